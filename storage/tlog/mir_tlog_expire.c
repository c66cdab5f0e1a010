/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_expire.h"

#include <stdlib.h>
#include <time.h>

#include "mir_clock.h"
#include "mir_tlog_output.h"
#include "mir_tlog_rollup.h"

enum { PACE_BYTES = 1 << 20, SLICE_CELLS = 65536 };

typedef struct expiring_chunk {
    mir_tlog_segment *segment;
    mir_tlog_chunk chunk;
    uint32_t order;
} expiring_chunk;

typedef struct chunk_list {
    expiring_chunk *items;
    uint32_t count;
    uint32_t capacity;
} chunk_list;

typedef struct expire {
    mir_tlog_expiry *x;
    mir_tlog_index_cursor *cursors; /* of the segments */
    bool *ended;
    mir_tlog_outputs *raw; /* what stays of each */
    mir_tlog_outputs rolled[MIR_TLOG_ROLLUPS];
    mir_tlog_index_cursor *stored_cursors; /* of the version's segments of rollups */
    mir_tlog_gather rows;
    mir_tlog_gather stored;
    mir_tlog_gather out;
    mir_tlog_rollup made;
    mir_tlog_rollup before;
    chunk_list gone; /* chunks of the series that have rows which go */
    chunk_list earlier;
    mir_bytes bytes;
    int64_t began_ns;
    uint64_t paced;
    uint64_t paced_seen;
} expire;

static bool stopping(const expire *e)
{
    return atomic_load_explicit(&e->x->tlog->stop, memory_order_acquire);
}

/* Waits until what was read and written is no more than the pace allows. */
static void pace(expire *e, uint64_t bytes)
{
    e->paced += bytes;
    if (e->paced - e->paced_seen < PACE_BYTES) return;
    e->paced_seen = e->paced;
    const double seconds = (double)e->paced / MIR_TLOG_EXPIRE_BYTES_PER_S;
    const int64_t due_ns = e->began_ns + (int64_t)(seconds * MIR_NS_PER_S);
    while (!stopping(e)) {
        int64_t left_ns = due_ns - mir_clock_mono_ns();
        if (left_ns <= 0) return;
        if (left_ns > 20 * MIR_NS_PER_MS) left_ns = 20 * MIR_NS_PER_MS;
        const struct timespec wait = {.tv_nsec = left_ns};
        (void)nanosleep(&wait, NULL);
    }
}

static void mark(mir_tlog_segment *segment, mir_status status)
{
    if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
        atomic_store_explicit(&segment->damaged, true, memory_order_relaxed);
    }
}

static mir_status chunk_bytes(expire *e, mir_tlog_segment *segment, const mir_tlog_chunk *chunk)
{
    e->bytes.size = 0;
    const mir_status status = mir_tlog_chunk_read(segment, chunk, &e->bytes);
    if (!mir_bytes_ok(&e->bytes)) mir_bytes_free(&e->bytes);
    mark(segment, status);
    pace(e, chunk->size);
    return status;
}

static mir_status chunk_decode(expire *e, mir_tlog_segment *segment, const mir_tlog_chunk *chunk,
                               mir_tlog_gather *to)
{
    mir_status status = chunk_bytes(e, segment, chunk);
    if (status != MIR_OK) return status;
    status = mir_tlog_chunk_decode(e->x->codec, mir_bytes_as_view(&e->bytes),
                                   &segment->shapes[chunk->shape], to);
    mark(segment, status);
    return status;
}

static mir_status list_add(chunk_list *list, mir_tlog_segment *segment, const mir_tlog_chunk *chunk)
{
    if (list->count == list->capacity) {
        const uint32_t capacity = list->capacity * 2 + 16;
        expiring_chunk *more = realloc(list->items, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        list->items = more;
        list->capacity = capacity;
    }
    list->items[list->count] = (expiring_chunk){segment, *chunk, list->count};
    list->count++;
    return MIR_OK;
}

static int generation_compare(const void *a, const void *b)
{
    const expiring_chunk *left = a;
    const expiring_chunk *right = b;
    if (left->chunk.generation != right->chunk.generation) {
        return left->chunk.generation < right->chunk.generation ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

/* ---- What rows come to ---- */

/* Rows of the step that were stored by an earlier run, of the steps that e->rows are in. */
static mir_status stored_find(expire *e, uint32_t step, mir_view measurement, mir_view device,
                              uint64_t *generation)
{
    const mir_tlog_version *version = e->x->version;
    const int64_t step_ns = mir_tlog_rollup_step_ns[step];
    const int64_t first_ns = mir_tlog_rollup_floor(e->rows.times[0], step_ns);
    const int64_t last_ns = mir_tlog_rollup_floor(e->rows.times[e->rows.row_count - 1], step_ns);
    mir_status status = MIR_OK;
    e->earlier.count = 0;
    for (uint32_t i = 0; i < version->segment_count && status == MIR_OK; i++) {
        mir_tlog_segment *segment = version->segments[i];
        if (segment->time_min > last_ns || segment->time_max < first_ns ||
            mir_tlog_rollup_step_in(segment) != (int)step) {
            continue;
        }
        mir_tlog_index_cursor *cursor = &e->stored_cursors[i];
        cursor->segment = segment;
        status = mir_tlog_index_find(cursor, e->x->codec, measurement, device);
        if (status == MIR_E_NOT_FOUND || status == MIR_E_CORRUPT || status == MIR_E_IO) {
            status = MIR_OK;
            continue;
        }
        for (uint32_t c = 0; status == MIR_OK && c < cursor->chunk_count; c++) {
            const mir_tlog_chunk *chunk = &cursor->chunks[c];
            if (chunk->time_min > last_ns || chunk->time_max < first_ns) continue;
            status = list_add(&e->earlier, segment, chunk);
        }
    }
    if (status != MIR_OK || e->earlier.count == 0) return status;
    qsort(e->earlier.items, e->earlier.count, sizeof *e->earlier.items, generation_compare);
    mir_tlog_gather_reset(&e->stored);
    e->stored.time_first = first_ns;
    e->stored.time_last = last_ns;
    for (uint32_t i = 0; i < e->earlier.count && status == MIR_OK; i++) {
        const expiring_chunk *from = &e->earlier.items[i];
        status = chunk_decode(e, from->segment, &from->chunk, &e->stored);
        /* A damaged one is lost already; what is made now must not be lost with it. */
        if (status == MIR_E_CORRUPT || status == MIR_E_IO) status = MIR_OK;
        if (from->chunk.generation >= *generation) *generation = from->chunk.generation + 1;
    }
    return status == MIR_OK ? mir_tlog_gather_finish(&e->stored) : status;
}

/* What has come again since it was rolled up, as far as that can be known. */
static mir_status repeated_drop(expire *e, uint32_t step, mir_view measurement, mir_view device)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    uint64_t generation = 0;
    mir_status status = stored_find(e, step, mir_tlog_rollup_measurement(measurement, step, name),
                                    device, &generation);
    if (status != MIR_OK || e->earlier.count == 0) return status;
    status = mir_tlog_rollup_decode(&e->before, step, &e->stored, 0, UINT32_MAX);
    if (status == MIR_OK) status = mir_tlog_rollup_make(&e->made, step, &e->rows);
    bool any = false;
    if (status == MIR_OK) {
        status = mir_tlog_rollup_drop_repeated(&e->made, step, &e->before, &e->rows, &any);
    }
    if (status != MIR_OK || !any) return status;
    const uint32_t count = e->rows.row_count;
    status = mir_tlog_gather_finish(&e->rows);
    e->x->rows_repeated += count - e->rows.row_count;
    return status;
}

static mir_status step_put(expire *e, uint32_t step, mir_view measurement, mir_view device,
                           uint64_t generation, mir_error *error)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const mir_view stored_as = mir_tlog_rollup_measurement(measurement, step, name);
    mir_status status = mir_tlog_rollup_make(&e->made, step, &e->rows);
    if (status != MIR_OK || e->made.row_count == 0) return status;
    status = stored_find(e, step, stored_as, device, &generation);
    bool whole = false;
    if (status == MIR_OK && e->earlier.count > 0) {
        status = mir_tlog_rollup_decode(&e->before, step, &e->stored, 0, UINT32_MAX);
        if (status == MIR_OK) status = mir_tlog_rollup_add(&e->made, &e->before, &whole);
    }
    if (status == MIR_OK) status = mir_tlog_rollup_encode(&e->made, whole, &e->out);
    if (status != MIR_OK) return status;
    uint32_t first = 0;
    while (first < e->out.row_count && e->out.times[first] < e->x->kept_from_ns[step]) first++;
    if (first == e->out.row_count) return MIR_OK;
    mir_tlog_output *output = &e->rolled[step].list[0];
    status = mir_tlog_output_ready(&e->rolled[step], output, error);
    if (status == MIR_OK) {
        status = mir_tlog_segment_put(output->writer, e->x->codec, stored_as, device, &e->out,
                                      first, e->out.row_count, generation, error);
    }
    e->x->rollups_made += e->out.row_count - first;
    return status;
}

/* How many hours at once: as many as their cells may be, by how dense they are on the average. */
static int64_t slice_ns(const expire *e, int64_t first_ns, int64_t last_ns)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    double cells = 1;
    for (uint32_t i = 0; i < e->gone.count; i++) {
        const expiring_chunk *from = &e->gone.items[i];
        cells += (double)from->chunk.rows * from->segment->shapes[from->chunk.shape].column_count;
    }
    const double hours = ((double)last_ns - (double)first_ns) / (double)hour_ns + 1;
    double at_once = hours * SLICE_CELLS / cells;
    if (at_once > hours + 1) at_once = hours + 1;
    if (at_once > 1e6) at_once = 1e6;
    return at_once < 1 ? hour_ns : (int64_t)at_once * hour_ns;
}

static mir_status slice_roll(expire *e, mir_view measurement, mir_view device, int64_t first_ns,
                             int64_t last_ns, mir_error *error)
{
    mir_tlog_gather_reset(&e->rows);
    e->rows.time_first = first_ns;
    e->rows.time_last = last_ns;
    uint64_t generation = 0;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < e->gone.count && status == MIR_OK; i++) {
        const expiring_chunk *from = &e->gone.items[i];
        if (from->chunk.time_min > last_ns || from->chunk.time_max < first_ns) continue;
        status = chunk_decode(e, from->segment, &from->chunk, &e->rows);
        if (from->chunk.generation > generation) generation = from->chunk.generation;
    }
    if (status == MIR_OK) status = mir_tlog_gather_finish(&e->rows);
    const mir_tlog_rollup_option *options = e->x->tlog->options.rollups;
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS && status == MIR_OK; step++) {
        if (!options[step].on || e->rows.row_count == 0) continue;
        status = repeated_drop(e, step, measurement, device);
    }
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS && status == MIR_OK; step++) {
        if (!options[step].on || e->rows.row_count == 0) continue;
        status = step_put(e, step, measurement, device, generation, error);
    }
    return status;
}

static mir_status series_roll(expire *e, mir_view measurement, mir_view device, int64_t horizon_ns,
                              mir_error *error)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    int64_t first_ns = INT64_MAX;
    for (uint32_t i = 0; i < e->gone.count; i++) {
        if (e->gone.items[i].chunk.time_min < first_ns) first_ns = e->gone.items[i].chunk.time_min;
    }
    qsort(e->gone.items, e->gone.count, sizeof *e->gone.items, generation_compare);
    int64_t from_ns = mir_tlog_rollup_floor(first_ns, hour_ns);
    const int64_t step_ns = slice_ns(e, from_ns, horizon_ns);
    mir_status status = MIR_OK;
    while (from_ns < horizon_ns && status == MIR_OK) {
        if (stopping(e)) return MIR_E_CANCELLED;
        int64_t to_ns;
        if (__builtin_add_overflow(from_ns, step_ns, &to_ns) || to_ns > horizon_ns) {
            to_ns = horizon_ns;
        }
        status = slice_roll(e, measurement, device, from_ns, to_ns - 1, error);
        /* To where there are rows again. */
        int64_t next_ns = INT64_MAX;
        for (uint32_t i = 0; i < e->gone.count; i++) {
            const mir_tlog_chunk *chunk = &e->gone.items[i].chunk;
            if (chunk->time_max < to_ns) continue;
            const int64_t begins = chunk->time_min > to_ns ? chunk->time_min : to_ns;
            if (begins < next_ns) next_ns = begins;
        }
        from_ns = next_ns == INT64_MAX ? INT64_MAX : mir_tlog_rollup_floor(next_ns, hour_ns);
    }
    return status;
}

/* ---- What stays ---- */

static mir_status chunk_put(expire *e, mir_tlog_outputs *to, const mir_tlog_index_cursor *cursor,
                            const mir_tlog_chunk *chunk, const mir_tlog_end *end, mir_error *error)
{
    mir_tlog_segment *segment = cursor->segment;
    const mir_view measurement = segment->measurements[cursor->measurement];
    mir_status status;
    if (chunk->time_min >= end->horizon_ns) {
        status = chunk_bytes(e, segment, chunk);
        if (status != MIR_OK) return status;
        pace(e, chunk->size);
        status = mir_tlog_output_ready(to, &to->list[0], error);
        if (status != MIR_OK) return status;
        return mir_tlog_segment_put_chunk(to->list[0].writer, e->x->codec, measurement,
                                          cursor->device, segment, chunk,
                                          mir_bytes_as_view(&e->bytes), error);
    }
    mir_tlog_gather_reset(&e->rows);
    e->rows.time_first = end->horizon_ns;
    e->rows.time_last = INT64_MAX;
    status = chunk_decode(e, segment, chunk, &e->rows);
    if (status == MIR_OK) status = mir_tlog_gather_finish(&e->rows);
    if (status != MIR_OK) return status;
    e->x->rows[end->counter] += chunk->rows - e->rows.row_count;
    e->x->rows_gone += chunk->rows - e->rows.row_count;
    if (e->rows.row_count == 0) return MIR_OK;
    status = mir_tlog_output_ready(to, &to->list[0], error);
    if (status != MIR_OK) return status;
    return mir_tlog_segment_put(to->list[0].writer, e->x->codec, measurement, cursor->device,
                                &e->rows, 0, e->rows.row_count, chunk->generation, error);
}

static mir_status advance(expire *e, uint32_t which)
{
    const mir_status status = mir_tlog_index_next(&e->cursors[which], e->x->codec);
    if (status == MIR_E_EMPTY) {
        e->ended[which] = true;
        return MIR_OK;
    }
    mark(e->cursors[which].segment, status);
    return status;
}

static int cursor_compare(const mir_tlog_index_cursor *a, const mir_tlog_index_cursor *b)
{
    const int order = mir_view_compare(a->segment->measurements[a->measurement],
                                       b->segment->measurements[b->measurement]);
    return order != 0 ? order : mir_view_compare(a->device, b->device);
}

static mir_status series_expire(expire *e, const bool *here, uint32_t least, mir_error *error)
{
    const mir_tlog_index_cursor *first = &e->cursors[least];
    const mir_view measurement = first->segment->measurements[first->measurement];
    mir_tlog_end end = {0};
    e->x->end_of(e->x->context, measurement, first->device, &end);
    e->gone.count = 0;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
        const mir_tlog_index_cursor *cursor = &e->cursors[i];
        for (uint32_t c = 0; here[i] && c < cursor->chunk_count && status == MIR_OK; c++) {
            if (cursor->chunks[c].time_min >= end.horizon_ns) continue;
            status = list_add(&e->gone, cursor->segment, &cursor->chunks[c]);
        }
    }
    if (status == MIR_OK && end.rolled && e->gone.count > 0) {
        status = series_roll(e, measurement, first->device, end.horizon_ns, error);
    }
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
        const mir_tlog_index_cursor *cursor = &e->cursors[i];
        for (uint32_t c = 0; here[i] && c < cursor->chunk_count && status == MIR_OK; c++) {
            const mir_tlog_chunk *chunk = &cursor->chunks[c];
            if (chunk->time_max >= end.horizon_ns) {
                status = chunk_put(e, &e->raw[i], cursor, chunk, &end, error);
            } else {
                e->x->rows[end.counter] += chunk->rows;
                e->x->rows_gone += chunk->rows;
            }
        }
    }
    return status;
}

static mir_status all_series(expire *e, mir_error *error)
{
    bool here[MIR_TLOG_EXPIRE_MAX] = {false};
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) status = advance(e, i);
    while (status == MIR_OK) {
        if (stopping(e)) return MIR_E_CANCELLED;
        uint32_t least = UINT32_MAX;
        for (uint32_t i = 0; i < e->x->count; i++) {
            if (e->ended[i]) continue;
            if (least == UINT32_MAX || cursor_compare(&e->cursors[i], &e->cursors[least]) < 0) {
                least = i;
            }
        }
        if (least == UINT32_MAX) return MIR_OK;
        for (uint32_t i = 0; i < e->x->count; i++) {
            here[i] = !e->ended[i] && cursor_compare(&e->cursors[i], &e->cursors[least]) == 0;
        }
        status = series_expire(e, here, least, error);
        for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
            if (here[i]) status = advance(e, i);
        }
    }
    return status;
}

static mir_status prepare(expire *e)
{
    mir_tlog_expiry *x = e->x;
    const mir_tlog_outputs none = {.tlog = x->tlog, .head = {.generation_min = UINT64_MAX}};
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) e->rolled[s] = none;
    e->cursors = calloc(x->count, sizeof *e->cursors);
    e->ended = calloc(x->count, sizeof *e->ended);
    e->raw = calloc(x->count, sizeof *e->raw);
    e->stored_cursors = calloc(x->version->segment_count, sizeof *e->stored_cursors);
    if (e->cursors == NULL || e->ended == NULL || e->raw == NULL || e->stored_cursors == NULL) {
        return MIR_E_NO_MEMORY;
    }
    mir_tlog_segment_head head = none.head;
    for (uint32_t i = 0; i < x->count; i++) {
        const mir_tlog_segment_head *each = &x->segments[i]->head;
        e->cursors[i].segment = x->segments[i];
        e->raw[i] = (mir_tlog_outputs){.tlog = x->tlog, .head = *each};
        if (each->generation_min < head.generation_min) head.generation_min = each->generation_min;
        if (each->generation_max > head.generation_max) head.generation_max = each->generation_max;
    }
    /* Rows that replace earlier ones are of a later generation than these. */
    for (uint32_t i = 0; i < x->version->segment_count; i++) {
        const mir_tlog_segment *other = x->version->segments[i];
        if (mir_tlog_rollup_step_in(other) != MIR_TLOG_ROLLUP_NONE &&
            other->head.generation_max >= head.generation_max) {
            head.generation_max = other->head.generation_max + 1;
        }
    }
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) e->rolled[s].head = head;
    mir_status status = mir_tlog_gather_init(&e->rows);
    if (status == MIR_OK) status = mir_tlog_gather_init(&e->stored);
    if (status == MIR_OK) status = mir_tlog_gather_init(&e->out);
    return status;
}

static void finish(expire *e)
{
    for (uint32_t i = 0; e->cursors != NULL && i < e->x->count; i++) {
        mir_tlog_index_fini(&e->cursors[i]);
    }
    for (uint32_t i = 0; e->stored_cursors != NULL && i < e->x->version->segment_count; i++) {
        mir_tlog_index_fini(&e->stored_cursors[i]);
    }
    free(e->cursors);
    free(e->ended);
    free(e->raw);
    free(e->stored_cursors);
    free(e->gone.items);
    free(e->earlier.items);
    mir_tlog_gather_fini(&e->rows);
    mir_tlog_gather_fini(&e->stored);
    mir_tlog_gather_fini(&e->out);
    mir_tlog_rollup_free(&e->made);
    mir_tlog_rollup_free(&e->before);
    mir_bytes_free(&e->bytes);
}

/* All files are complete before any of them counts. */
static mir_status install(expire *e, mir_error *error)
{
    mir_tlog_expiry *x = e->x;
    const uint32_t room = (x->count + MIR_TLOG_ROLLUPS) * (MIR_TLOG_OUTPUTS_MAX + 1);
    mir_tlog_segment **made = calloc(room, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint32_t count = 0;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < x->count + MIR_TLOG_ROLLUPS && status == MIR_OK; i++) {
        mir_tlog_outputs *from = i < x->count ? &e->raw[i] : &e->rolled[i - x->count];
        uint32_t more = 0;
        if (from->list[0].writer == NULL) continue;
        status = mir_tlog_outputs_end(from, x->codec, made + count, &more, error);
        count += more;
    }
    if (status == MIR_OK) {
        for (uint32_t i = 0; i < count; i++) x->bytes_after += made[i]->size;
        status = mir_tlog_install(x->tlog, made, count, x->segments, x->count, NULL, NULL, error);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            char path[MIR_TLOG_PATH_BYTES_MAX];
            mir_tlog_path(x->tlog, path, made[i]->head.id, "seg");
            (void)x->tlog->files->unlink(x->tlog->files->context, path);
            mir_tlog_segment_release(made[i]);
        }
    }
    free(made);
    return status;
}

mir_status mir_tlog_expire(mir_tlog_expiry *expiry, mir_error *error)
{
    expire *e = calloc(1, sizeof *e);
    if (e == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    e->x = expiry;
    e->began_ns = mir_clock_mono_ns();
    (void)mir_error_set(error, MIR_OK, "writing segments anew failed");
    mir_status status = prepare(e);
    if (status == MIR_OK) status = all_series(e, error);
    /* A device may have come under another rule meanwhile. */
    if (status == MIR_OK && expiry->rows_gone == 0) status = MIR_E_EMPTY;
    if (status == MIR_OK) status = install(e, error);
    for (uint32_t i = 0; e->raw != NULL && i < expiry->count; i++) {
        mir_tlog_outputs_abandon(&e->raw[i]);
    }
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) mir_tlog_outputs_abandon(&e->rolled[s]);
    finish(e);
    free(e);
    return status;
}
