/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_sweep.h"

#include <stdlib.h>

enum {
    /* Of arrays that grow by doubling, that several series with columns of their own have left, and of
     * putting in order. */
    ROOM_TIMES = 8,
    TIME_BYTES = 8,
    CELL_BYTES = 9,
    TEXT_BYTES = 32, /* a short one, and where it stands */
};

mir_status mir_tlog_sweep_add(mir_tlog_sweep_list *list, mir_tlog_segment *segment,
                              const mir_tlog_chunk *chunk)
{
    if (list->count == list->capacity) {
        const uint32_t capacity = list->capacity * 2 + 16;
        mir_tlog_sweep_chunk *more = realloc(list->items, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        list->items = more;
        list->capacity = capacity;
    }
    list->items[list->count] = (mir_tlog_sweep_chunk){segment, *chunk, list->count};
    list->count++;
    return MIR_OK;
}

static int begin_compare(const void *a, const void *b)
{
    const mir_tlog_sweep_chunk *left = a;
    const mir_tlog_sweep_chunk *right = b;
    if (left->chunk.time_min != right->chunk.time_min) {
        return left->chunk.time_min < right->chunk.time_min ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

static int winner_compare(const void *a, const void *b)
{
    const mir_tlog_sweep_chunk *left = a;
    const mir_tlog_sweep_chunk *right = b;
    if (left->chunk.generation != right->chunk.generation) {
        return left->chunk.generation < right->chunk.generation ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

void mir_tlog_sweep_sort(mir_tlog_sweep_list *list)
{
    if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, begin_compare);
}

void mir_tlog_sweep_sort_winners(mir_tlog_sweep_list *list)
{
    if (list->count > 1) qsort(list->items, list->count, sizeof *list->items, winner_compare);
}

mir_status mir_tlog_sweep_init(mir_tlog_sweep *sweep)
{
    *sweep = (mir_tlog_sweep){.bytes_max = MIR_TLOG_SWEEP_BYTES, .ended = true};
    return mir_tlog_gather_init(&sweep->rows);
}

void mir_tlog_sweep_fini(mir_tlog_sweep *sweep)
{
    mir_tlog_gather_fini(&sweep->rows);
    free(sweep->taken.items);
    mir_bytes_free(&sweep->bytes);
}

void mir_tlog_sweep_mark(mir_tlog_segment *segment, mir_status status)
{
    if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
        atomic_store_explicit(&segment->damaged, true, memory_order_relaxed);
    }
}

mir_status mir_tlog_sweep_read(mir_tlog_sweep *sweep, mir_tlog_segment *segment,
                               const mir_tlog_chunk *chunk)
{
    sweep->bytes.size = 0;
    const mir_status status = mir_tlog_chunk_read(segment, chunk, &sweep->bytes);
    if (!mir_bytes_ok(&sweep->bytes)) mir_bytes_free(&sweep->bytes);
    mir_tlog_sweep_mark(segment, status);
    if (sweep->read != NULL) sweep->read(sweep->context, chunk->size);
    return status;
}

mir_status mir_tlog_sweep_decode(mir_tlog_sweep *sweep, mir_tlog_segment *segment,
                                 const mir_tlog_chunk *chunk, mir_tlog_gather *to)
{
    mir_status status = mir_tlog_sweep_read(sweep, segment, chunk);
    if (status != MIR_OK) return status;
    status = mir_tlog_chunk_decode(sweep->codec, mir_bytes_as_view(&sweep->bytes),
                                   &segment->shapes[chunk->shape], to);
    mir_tlog_sweep_mark(segment, status);
    /* Whoever has a bound looks at what has come before there is more. */
    if (status == MIR_OK) (void)!mir_tlog_gather_count(to);
    return status;
}

uint64_t mir_tlog_sweep_weight(const mir_tlog_sweep_chunk *chunk)
{
    const mir_tlog_segment_shape *shape = &chunk->segment->shapes[chunk->chunk.shape];
    uint64_t row = TIME_BYTES;
    for (uint32_t i = 0; i < shape->column_count; i++) {
        row += CELL_BYTES + (shape->columns[i].type == MIR_COLUMN_STRING ? TEXT_BYTES : 0);
    }
    return chunk->chunk.rows * row;
}

static mir_status rows_renew(mir_tlog_sweep *sweep)
{
    mir_tlog_gather_fini(&sweep->rows);
    const mir_status status = mir_tlog_gather_init(&sweep->rows);
    sweep->rows.bytes_max = sweep->bytes_max * ROOM_TIMES;
    return status;
}

void mir_tlog_sweep_begin(mir_tlog_sweep *sweep, const mir_tlog_sweep_list *chunks,
                          int64_t first_ns, int64_t last_ns)
{
    sweep->chunks = chunks;
    sweep->passed = 0;
    sweep->at_ns = first_ns;
    sweep->last_ns = last_ns;
    sweep->span_ns = 0;
    sweep->ended = first_ns > last_ns;
    sweep->rows.bytes_max = sweep->bytes_max * ROOM_TIMES;
}

/* The chunks that have rows of the next stretch, and where it ends: as many as may be put in order at
 * once, or all of those that are there at its beginning. MIR_E_EMPTY: there is none. */
static mir_status stretch_take(mir_tlog_sweep *sweep, int64_t *end_ns)
{
    const mir_tlog_sweep_list *all = sweep->chunks;
    while (sweep->passed < all->count && all->items[sweep->passed].chunk.time_max < sweep->at_ns) {
        sweep->passed++;
    }
    sweep->taken.count = 0;
    *end_ns = sweep->last_ns;
    uint64_t weight = 0;
    for (uint32_t i = sweep->passed; i < all->count; i++) {
        const mir_tlog_sweep_chunk *next = &all->items[i];
        if (next->chunk.time_max < sweep->at_ns) continue;
        if (next->chunk.time_min > sweep->last_ns) break;
        if (sweep->taken.count == 0 && next->chunk.time_min > sweep->at_ns) {
            sweep->at_ns = next->chunk.time_min;
        }
        weight += mir_tlog_sweep_weight(next);
        if (weight > sweep->bytes_max && next->chunk.time_min > sweep->at_ns) {
            *end_ns = next->chunk.time_min - 1;
            break;
        }
        const mir_status status = mir_tlog_sweep_add(&sweep->taken, next->segment, &next->chunk);
        if (status != MIR_OK) return status;
        sweep->taken.items[sweep->taken.count - 1].order = next->order;
    }
    if (sweep->taken.count == 0) return MIR_E_EMPTY;
    mir_tlog_sweep_sort_winners(&sweep->taken);
    /* Where the last stretch had to be cut, this one will have to be as well. */
    const uint64_t span_ns = (uint64_t)*end_ns - (uint64_t)sweep->at_ns;
    const uint64_t likely_ns = sweep->span_ns + sweep->span_ns / 4 + 1;
    if (sweep->span_ns != 0 && span_ns > likely_ns) {
        *end_ns = (int64_t)((uint64_t)sweep->at_ns + likely_ns);
        sweep->span_ns = likely_ns;
    } else {
        sweep->span_ns = 0;
    }
    return MIR_OK;
}

static bool is_over(const mir_tlog_sweep *sweep)
{
    const mir_tlog_gather *rows = &sweep->rows;
    const uint64_t row = TIME_BYTES + (uint64_t)rows->column_count * CELL_BYTES;
    return rows->row_count * row + rows->text_count * sizeof(mir_view) + rows->bytes_text >
           sweep->bytes_max;
}

/* What was decided to be too much, less: up to the middle of the rows that are there, if they tell. */
static int64_t cut(const mir_tlog_sweep *sweep, int64_t end_ns)
{
    const mir_tlog_gather *rows = &sweep->rows;
    const uint64_t span_ns = (uint64_t)end_ns - (uint64_t)sweep->at_ns;
    const int64_t half_ns = (int64_t)((uint64_t)sweep->at_ns + span_ns / 2);
    if (rows->row_count < 2) return half_ns;
    const int64_t middle_ns = rows->times[rows->row_count / 2] - 1;
    return middle_ns < sweep->at_ns || middle_ns >= end_ns ? half_ns : middle_ns;
}

/* MIR_E_TOO_LARGE: what is there so far is too much already, and is in order if that had room. */
static mir_status stretch_gather(mir_tlog_sweep *sweep, int64_t end_ns)
{
    mir_tlog_gather *rows = &sweep->rows;
    mir_tlog_gather_reset(rows);
    rows->time_first = sweep->at_ns;
    rows->time_last = end_ns;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < sweep->taken.count && status == MIR_OK; i++) {
        const mir_tlog_sweep_chunk *from = &sweep->taken.items[i];
        if (from->chunk.time_min > end_ns) continue;
        status = mir_tlog_sweep_decode(sweep, from->segment, &from->chunk, rows);
        if (status != MIR_OK || !is_over(sweep)) continue;
        /* Texts of other times may be many, and so may equal times. */
        status = mir_tlog_gather_pack_texts(rows);
        if (status == MIR_OK) status = mir_tlog_gather_finish(rows);
        if (status == MIR_OK && end_ns > sweep->at_ns && is_over(sweep)) status = MIR_E_TOO_LARGE;
    }
    return status == MIR_OK ? mir_tlog_gather_finish(rows) : status;
}

mir_status mir_tlog_sweep_next(mir_tlog_sweep *sweep)
{
    while (!sweep->ended) {
        int64_t end_ns;
        mir_status status = stretch_take(sweep, &end_ns);
        if (status == MIR_E_EMPTY) break;
        if (status != MIR_OK) return status;
        bool last_try = false;
        while ((status = stretch_gather(sweep, end_ns)) == MIR_E_TOO_LARGE) {
            if (last_try) return status;
            last_try = end_ns == sweep->at_ns;
            end_ns = cut(sweep, end_ns);
            sweep->span_ns = (uint64_t)end_ns - (uint64_t)sweep->at_ns + 1;
            /* Other columns may have left arrays that are of no use here. */
            if (last_try || sweep->rows.bytes > sweep->bytes_max * ROOM_TIMES / 2) {
                status = rows_renew(sweep);
                if (status != MIR_OK) return status;
            }
        }
        if (status != MIR_OK) return status;
        sweep->ended = end_ns == sweep->last_ns;
        if (!sweep->ended) sweep->at_ns = end_ns + 1;
        if (sweep->rows.row_count > 0) return MIR_OK;
    }
    sweep->ended = true;
    return MIR_E_EMPTY;
}
