/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_rollup_read.h"

#include <stdlib.h>

#include "mir_clock.h"
#include "mir_tlog_rollup.h"

enum {
    HOUR = MIR_TLOG_ROLLUPS - 1, /* the longest step */
    BLOCK_ROWS = 256,
    /* Steps between two that are looked at are read along with them up to so many. */
    GAP_STEPS = 2048,
    SLICE_DAYS = 4, /* of minutes */
    SLICE_DAYS_HOURS = 128,
    /* A chunk is read for each slice that it has rows in: after one with less than this the next is
     * longer, as long as it has no more than that. */
    SLICE_LITTLE = 1024,
    SLICE_MUCH = 4096,
};

static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;

typedef struct item {
    int64_t time_ns; /* of its first value */
    size_t cell;
} item;

typedef struct item_cell {
    uint32_t column;
    mir_tlog_total total;
} item_cell;

/* A step that shorter ones have to tell of: all of it, or it is not told. */
typedef struct open_step {
    int64_t time_ns;
    uint64_t count; /* of values */
    uint64_t told;
} open_step;

/* What the table's column is in the answer. */
typedef struct answered {
    bool wanted;
    uint32_t column;
} answered;

typedef struct open_steps {
    open_step *list;
    size_t count;
    size_t capacity;
} open_steps;

typedef struct reading {
    mir_tlog_scan *scan;
    mir_tlog_totals *totals;
    int64_t first_ns;
    int64_t last_ns;
    uint32_t step; /* that is read */
    mir_tlog_rollup table;
    item *items; /* of the slice */
    size_t item_count;
    size_t item_capacity;
    item_cell *cells;
    size_t cell_count;
    size_t cell_capacity;
    mir_tlog_columns columns;
    answered *answered; /* by the table's column */
    uint32_t answered_capacity;
    mir_arena texts;
    uint64_t text_bytes;
    open_steps wanted; /* of the longer step, that this one is to tell; unused at the longest */
    size_t wanted_at;
    open_steps open; /* of this one */
    bool bounded;    /* MIR_E_AGAIN: the slice has more than SLICE_MUCH */
    bool counted;    /* some of the slice is in the totals */
    uint64_t bytes;
    int64_t until_ns;
} reading;

void mir_tlog_rollup_scan_init(mir_tlog_scan *scan)
{
    scan->rolled_first_ns = INT64_MAX;
    scan->rolled_last_ns = INT64_MIN;
    for (uint32_t i = 0; i < scan->version->segment_count; i++) {
        const mir_tlog_segment *segment = scan->version->segments[i];
        if (mir_tlog_rollup_step_in(segment) == MIR_TLOG_ROLLUP_NONE) continue;
        if (segment->time_min < scan->rolled_first_ns) scan->rolled_first_ns = segment->time_min;
        int64_t last_ns;
        if (__builtin_add_overflow(segment->time_max, mir_tlog_rollup_step_ns[HOUR] - 1,
                                   &last_ns)) {
            last_ns = INT64_MAX;
        }
        if (last_ns > scan->rolled_last_ns) scan->rolled_last_ns = last_ns;
    }
}

static mir_status bytes_take(reading *r, uint64_t bytes)
{
    const uint64_t before = atomic_fetch_add_explicit(r->scan->bytes, bytes, memory_order_relaxed);
    r->bytes += bytes;
    return before + bytes > r->scan->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

static mir_status room(reading *r, void **list, size_t *capacity, size_t count, size_t size)
{
    if (count < *capacity) return MIR_OK;
    const size_t more = *capacity == 0 ? 64 : *capacity * 2;
    const mir_status status = bytes_take(r, (more - *capacity) * size);
    if (status != MIR_OK) return status;
    void *grown = realloc(*list, more * size);
    if (grown == NULL) return MIR_E_NO_MEMORY;
    *list = grown;
    *capacity = more;
    return MIR_OK;
}

static bool is_much(const reading *r, size_t count)
{
    return r->bounded && count >= SLICE_MUCH;
}

static mir_status open_add(reading *r, open_steps *steps, int64_t time_ns, uint64_t count)
{
    if (is_much(r, steps->count)) return MIR_E_AGAIN;
    void *list = steps->list;
    const mir_status status = room(r, &list, &steps->capacity, steps->count, sizeof *steps->list);
    steps->list = list;
    if (status != MIR_OK) return status;
    steps->list[steps->count++] = (open_step){.time_ns = time_ns, .count = count};
    return MIR_OK;
}

static mir_status text_keep(reading *r, uint64_t *address, uint64_t size)
{
    if (size == 0) return MIR_OK;
    const mir_status status = bytes_take(r, size);
    r->text_bytes += size;
    if (status != MIR_OK) return status;
    uint8_t *copy = mir_arena_alloc(&r->texts, size);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    memcpy(copy, (const uint8_t *)(uintptr_t)*address, size);
    *address = (uint64_t)(uintptr_t)copy;
    return MIR_OK;
}

/* By the name that the answer has for it. */
static bool wanted_column(const mir_tlog_scan *scan, const mir_column *stored, mir_column *column)
{
    const mir_tlog_query_spec *spec = scan->spec;
    mir_view name = mir_tlog_column_name(stored);
    for (uint32_t i = 0; i < spec->rename_count; i++) {
        if (!mir_view_eq(spec->renames[i].stored, name)) continue;
        name = spec->renames[i].answered;
        break;
    }
    *column = (mir_column){(const char *)name.data, (uint32_t)name.size, stored->type};
    for (uint32_t i = 0; i < spec->field_count; i++) {
        if (mir_view_eq(spec->fields[i], name)) return true;
    }
    return spec->field_count == 0;
}

static mir_status columns_find(reading *r)
{
    const mir_tlog_rollup *table = &r->table;
    if (table->column_count > r->answered_capacity) {
        answered *more = realloc(r->answered, table->column_count * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        r->answered = more;
        r->answered_capacity = table->column_count;
    }
    mir_status status = MIR_OK;
    for (uint32_t c = 0; c < table->column_count && status == MIR_OK; c++) {
        mir_column column;
        r->answered[c] = (answered){.wanted = wanted_column(r->scan, &table->columns[c], &column)};
        if (!r->answered[c].wanted) continue;
        status = mir_tlog_columns_number(&r->columns, mir_tlog_column_name(&column), column.type,
                                         &r->answered[c].column);
    }
    return status;
}

static const mir_tlog_total *cells_of(const reading *r, uint32_t row)
{
    return &r->table.cells[(size_t)row * r->table.column_count];
}

/* Each column for itself: of two that are answered as one the earlier values come first. */
static mir_status items_add(reading *r, uint32_t row)
{
    mir_status status = MIR_OK;
    for (uint32_t c = 0; c < r->table.column_count && status == MIR_OK; c++) {
        const mir_tlog_total *from = &cells_of(r, row)[c];
        if (from->count == 0 || !r->answered[c].wanted) continue;
        if (is_much(r, r->item_count)) return MIR_E_AGAIN;
        void *list = r->items;
        status = room(r, &list, &r->item_capacity, r->item_count, sizeof *r->items);
        r->items = list;
        if (status != MIR_OK) return status;
        list = r->cells;
        status = room(r, &list, &r->cell_capacity, r->cell_count, sizeof *r->cells);
        r->cells = list;
        if (status != MIR_OK) return status;
        if (from->uncertain && (r->totals->functions & MIR_TLOG_RATE) != 0) {
            mir_tlog_rollup_left_out(r->scan,
                                     r->table.times[row] + mir_tlog_rollup_step_ns[r->step]);
        }
        r->items[r->item_count++] = (item){.time_ns = from->first_ns, .cell = r->cell_count};
        item_cell *cell = &r->cells[r->cell_count++];
        *cell = (item_cell){.column = r->answered[c].column, .total = *from};
        if (r->table.columns[c].type == MIR_COLUMN_STRING) {
            status = text_keep(r, &cell->total.first, cell->total.low);
            if (status == MIR_OK) status = text_keep(r, &cell->total.last, cell->total.high);
        }
        if (from->last_ns > r->until_ns) r->until_ns = from->last_ns;
    }
    return status;
}

/* The time from the first to the last value that is wanted of a row, and how many there are. */
static uint64_t extent(const reading *r, uint32_t row, int64_t *first_ns, int64_t *last_ns)
{
    uint64_t count = 0;
    for (uint32_t c = 0; c < r->table.column_count; c++) {
        const mir_tlog_total *from = &cells_of(r, row)[c];
        if (from->count == 0 || !r->answered[c].wanted) continue;
        if (count == 0 || from->first_ns < *first_ns) *first_ns = from->first_ns;
        if (count == 0 || from->last_ns > *last_ns) *last_ns = from->last_ns;
        count += from->count;
    }
    return count;
}

/* Whether a step is within one that is to be told of. */
static bool is_wanted(reading *r, int64_t time_ns, uint64_t count)
{
    if (r->step == HOUR) return true;
    const int64_t longer_ns = mir_tlog_rollup_step_ns[r->step + 1];
    while (r->wanted_at < r->wanted.count &&
           r->wanted.list[r->wanted_at].time_ns + longer_ns <= time_ns) {
        r->wanted_at++;
    }
    if (r->wanted_at == r->wanted.count || r->wanted.list[r->wanted_at].time_ns > time_ns) {
        return false;
    }
    r->wanted.list[r->wanted_at].told += count;
    return true;
}

static mir_status row_take(reading *r, uint32_t row)
{
    const int64_t time_ns = r->table.times[row];
    int64_t first_ns = 0;
    int64_t last_ns = 0;
    const uint64_t count = extent(r, row, &first_ns, &last_ns);
    if (count == 0 || !is_wanted(r, time_ns, count)) return MIR_OK;
    if (first_ns > r->last_ns || last_ns < r->first_ns) return MIR_OK;
    const bool whole =
        first_ns >= r->first_ns && last_ns <= r->last_ns &&
        mir_tlog_window_of(r->totals, first_ns) == mir_tlog_window_of(r->totals, last_ns);
    return whole ? items_add(r, row) : open_add(r, &r->open, time_ns, count);
}

static mir_status piece_take(void *context)
{
    reading *r = context;
    const mir_tlog_gather *rows = &r->scan->gather;
    mir_status status = MIR_OK;
    for (uint32_t at = 0; at < rows->row_count && status == MIR_OK; at += BLOCK_ROWS) {
        if (mir_tlog_scan_cancelled(r->scan)) return mir_tlog_scan_failed(r->scan, MIR_E_CANCELLED);
        status = mir_tlog_rollup_decode(&r->table, r->step, rows, at, BLOCK_ROWS);
        if (status == MIR_OK) status = columns_find(r);
        for (uint32_t i = 0; i < r->table.row_count && status == MIR_OK; i++) {
            status = row_take(r, i);
        }
    }
    return mir_tlog_scan_failed(r->scan, status);
}

/* Rows of the present step, from first_ns on and before end_ns. */
static mir_status step_read(reading *r, mir_view device, int64_t first_ns, int64_t end_ns)
{
    mir_tlog_scan *scan = r->scan;
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const uint32_t field_count = scan->gather.field_count;
    const uint32_t rename_count = scan->gather.rename_count;
    scan->gather.field_count = 0;
    scan->gather.rename_count = 0;
    scan->measurement = mir_tlog_rollup_measurement(scan->spec->measurement, r->step, name);
    const mir_status status =
        mir_tlog_scan_pieces(scan, device, first_ns, end_ns - 1, piece_take, r);
    scan->measurement = scan->spec->measurement;
    scan->gather.field_count = field_count;
    scan->gather.rename_count = rename_count;
    return status;
}

/* What steps that are open come to, by shorter ones. */
static mir_status open_read(reading *r, mir_view device)
{
    mir_status status = MIR_OK;
    while (r->open.count > 0 && r->step > 0 && status == MIR_OK) {
        const int64_t longer_ns = mir_tlog_rollup_step_ns[r->step];
        r->step--;
        const int64_t gap_ns = GAP_STEPS * mir_tlog_rollup_step_ns[r->step];
        const open_steps swap = r->wanted;
        r->wanted = r->open;
        r->wanted_at = 0;
        r->open = swap;
        r->open.count = 0;
        for (size_t at = 0; at < r->wanted.count && status == MIR_OK;) {
            const int64_t first_ns = r->wanted.list[at].time_ns;
            int64_t end_ns = first_ns + longer_ns;
            for (at++; at < r->wanted.count && r->wanted.list[at].time_ns - end_ns <= gap_ns;
                 at++) {
                end_ns = r->wanted.list[at].time_ns + longer_ns;
            }
            status = step_read(r, device, first_ns, end_ns);
        }
        /* One that was not read to its end is read again, or all fails. */
        for (size_t i = 0; i < r->wanted.count && status == MIR_OK; i++) {
            if (r->wanted.list[i].told == r->wanted.list[i].count) continue;
            mir_tlog_rollup_left_out(r->scan, r->wanted.list[i].time_ns + longer_ns);
        }
    }
    for (size_t i = 0; i < r->open.count && status == MIR_OK; i++) {
        mir_tlog_rollup_left_out(r->scan,
                                 r->open.list[i].time_ns + mir_tlog_rollup_step_ns[r->step]);
    }
    return status;
}

static int item_compare(const void *a, const void *b)
{
    const item *left = a;
    const item *right = b;
    return left->time_ns < right->time_ns ? -1 : left->time_ns > right->time_ns;
}

static mir_status items_take(reading *r)
{
    if (r->item_count > 1) qsort(r->items, r->item_count, sizeof *r->items, item_compare);
    mir_status status = MIR_OK;
    for (size_t i = 0; i < r->item_count && status == MIR_OK; i++) {
        const item_cell *cell = &r->cells[r->items[i].cell];
        const mir_column *column = &r->columns.columns[cell->column];
        status = mir_tlog_totals_take_total(r->totals, mir_tlog_column_name(column), column->type,
                                            r->items[i].time_ns, &cell->total);
    }
    return status == MIR_OK ? mir_tlog_totals_keep_texts(r->totals) : status;
}

static mir_status slice_read(reading *r, mir_view device, int64_t first_ns, int64_t end_ns)
{
    r->step = HOUR;
    r->item_count = r->cell_count = 0;
    mir_tlog_columns_reset(&r->columns);
    r->open.count = 0;
    r->counted = false;
    mir_status status = step_read(r, device, first_ns, end_ns);
    if (status == MIR_OK) status = open_read(r, device);
    if (status == MIR_OK) {
        r->counted = true;
        status = mir_tlog_scan_failed(r->scan, items_take(r));
    }
    mir_arena_free(&r->texts);
    (void)atomic_fetch_sub_explicit(r->scan->bytes, r->text_bytes, memory_order_relaxed);
    r->bytes -= r->text_bytes;
    r->text_bytes = 0;
    return status;
}

/* The first time, not before at_ns, that there may be rollups of. */
static int64_t next_time(const mir_tlog_scan *scan, int64_t at_ns)
{
    int64_t next_ns = INT64_MAX;
    for (uint32_t i = 0; i < scan->version->segment_count; i++) {
        const mir_tlog_segment *segment = scan->version->segments[i];
        if (segment->time_max < at_ns || mir_tlog_rollup_step_in(segment) != HOUR) continue;
        const int64_t begins_ns = segment->time_min > at_ns ? segment->time_min : at_ns;
        if (begins_ns < next_ns) next_ns = begins_ns;
    }
    return next_ns;
}

/* All that counts, also what was counted and could not be had. */
static void lists_free(reading *r)
{
    (void)atomic_fetch_sub_explicit(r->scan->bytes, r->bytes, memory_order_relaxed);
    r->bytes = 0;
    free(r->items);
    free(r->cells);
    free(r->wanted.list);
    free(r->open.list);
    r->items = NULL;
    r->cells = NULL;
    r->wanted = r->open = (open_steps){0};
    r->item_count = r->item_capacity = 0;
    r->cell_count = r->cell_capacity = 0;
}

static void reading_end(reading *r)
{
    lists_free(r);
    mir_tlog_rollup_free(&r->table);
    mir_arena_free(&r->texts);
    free(r->answered);
    mir_tlog_columns_free(&r->columns);
}

mir_status mir_tlog_rollup_totals(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                  int64_t last_ns, mir_tlog_totals *totals, int64_t *until_ns)
{
    *until_ns = INT64_MIN;
    if (!mir_tlog_rollup_touches(scan, first_ns, last_ns)) return MIR_OK;
    const int64_t hour_ns = mir_tlog_rollup_step_ns[HOUR];
    const bool by_hours = totals->window_ns == 0 || (totals->window_ns % (uint64_t)hour_ns == 0 &&
                                                     totals->window_from_ns % hour_ns == 0);
    const int64_t least_ns = (by_hours ? SLICE_DAYS_HOURS : SLICE_DAYS) * DAY_NS;
    int64_t slice_ns = least_ns;
    reading r = {.scan = scan,
                 .totals = totals,
                 .first_ns = first_ns,
                 .last_ns = last_ns,
                 .until_ns = INT64_MIN};
    mir_status status = MIR_OK;
    int64_t at_ns = next_time(scan, mir_tlog_rollup_floor(first_ns, hour_ns));
    while (at_ns <= last_ns && at_ns != INT64_MAX && status == MIR_OK) {
        at_ns = mir_tlog_rollup_floor(at_ns, hour_ns);
        int64_t end_ns;
        if (__builtin_add_overflow(at_ns, slice_ns, &end_ns)) end_ns = INT64_MAX;
        if (last_ns < INT64_MAX && end_ns > last_ns) end_ns = last_ns + 1;
        r.bounded = slice_ns > least_ns;
        status = slice_read(&r, device, at_ns, end_ns);
        if (r.bounded && !r.counted && (status == MIR_E_AGAIN || status == MIR_E_TOO_LARGE)) {
            slice_ns /= 2;
            lists_free(&r);
            status = mir_tlog_gather_cut(&scan->gather, 0);
            continue;
        }
        if (r.item_count + r.open.count < SLICE_LITTLE && slice_ns <= INT64_MAX / 2) slice_ns *= 2;
        if (end_ns == INT64_MAX) break;
        at_ns = next_time(scan, end_ns);
    }
    *until_ns = r.until_ns;
    if (r.until_ns != INT64_MIN && (totals->functions & MIR_TLOG_PERCENTILE) != 0) {
        mir_tlog_rollup_left_out(scan, r.until_ns + 1);
    }
    reading_end(&r);
    return status;
}

/* Rows of hours of the device, from the newest on. */
typedef struct hours {
    int64_t first_ns;
    int64_t end_ns;
    const mir_tlog_segment_shape *shape;
} hours;

static int hours_compare(const void *a, const void *b)
{
    const hours *left = a;
    const hours *right = b;
    return left->end_ns > right->end_ns ? -1 : left->end_ns < right->end_ns;
}

static mir_status hours_find(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                             int64_t last_ns, hours **found, size_t *count)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const mir_view stored = mir_tlog_rollup_measurement(scan->spec->measurement, HOUR, name);
    const int64_t hour_ns = mir_tlog_rollup_step_ns[HOUR];
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < scan->version->segment_count && status == MIR_OK; i++) {
        mir_tlog_segment *segment = scan->version->segments[i];
        if (mir_tlog_rollup_step_in(segment) != HOUR || segment->time_min > last_ns) continue;
        const mir_tlog_index_cursor *cursor;
        status = mir_tlog_scan_find(scan, i, stored, device, &cursor);
        if (status == MIR_OK) {
            hours *more = realloc(*found, (*count + cursor->chunk_count) * sizeof *more);
            if (more == NULL) return MIR_E_NO_MEMORY;
            *found = more;
        }
        for (uint32_t c = 0; status == MIR_OK && c < cursor->chunk_count; c++) {
            const mir_tlog_chunk *chunk = &cursor->chunks[c];
            if (chunk->time_min > last_ns || chunk->time_max > INT64_MAX - hour_ns ||
                chunk->time_max + hour_ns <= first_ns) {
                continue;
            }
            (*found)[(*count)++] =
                (hours){chunk->time_min, chunk->time_max + hour_ns, &segment->shapes[chunk->shape]};
        }
        mir_tlog_scan_let_go(scan, i);
        /* What is damaged is counted where it is read. */
        if (status == MIR_E_NOT_FOUND || status == MIR_E_CORRUPT || status == MIR_E_IO) {
            status = MIR_OK;
        }
    }
    return status;
}

/* Every column of these hours has a value that is newer. */
static bool all_known(const mir_tlog_scan *scan, const hours *of, const mir_tlog_totals *totals)
{
    for (uint32_t i = 0; i < of->shape->column_count; i++) {
        mir_column rows;
        mir_column column;
        if (!mir_tlog_rollup_column_of(&of->shape->columns[i], &rows) ||
            !wanted_column(scan, &rows, &column)) {
            continue;
        }
        bool known = false;
        for (uint32_t k = 0; k < totals->set.count && !known; k++) {
            known = mir_tlog_column_compare(&totals->set.columns[k], &column) == 0 &&
                    totals->window_count > 0 && totals->columns[k].totals[0].count > 0 &&
                    totals->columns[k].totals[0].last_ns >= of->end_ns;
        }
        if (!known) return false;
    }
    return true;
}

mir_status mir_tlog_rollup_last(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                int64_t last_ns, mir_tlog_totals *totals)
{
    if (!mir_tlog_rollup_touches(scan, first_ns, last_ns)) return MIR_OK;
    reading r = {.scan = scan,
                 .totals = totals,
                 .first_ns = first_ns,
                 .last_ns = last_ns,
                 .until_ns = INT64_MIN};
    hours *found = NULL;
    size_t count = 0;
    mir_status status =
        mir_tlog_scan_failed(scan, hours_find(scan, device, first_ns, last_ns, &found, &count));
    if (count > 1) qsort(found, count, sizeof *found, hours_compare);
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        if (all_known(scan, &found[i], totals)) continue;
        const int64_t end_ns = found[i].end_ns <= last_ns ? found[i].end_ns : last_ns + 1;
        status = slice_read(&r, device, found[i].first_ns, end_ns);
    }
    free(found);
    reading_end(&r);
    return status;
}

mir_status mir_tlog_rollup_missed(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                  int64_t last_ns)
{
    if (!mir_tlog_rollup_touches(scan, first_ns, last_ns)) return MIR_OK;
    hours *found = NULL;
    size_t count = 0;
    const mir_status status = hours_find(scan, device, first_ns, last_ns, &found, &count);
    for (size_t i = 0; i < count; i++) {
        mir_tlog_rollup_left_out(scan, found[i].end_ns <= last_ns ? found[i].end_ns : last_ns + 1);
    }
    free(found);
    return mir_tlog_scan_failed(scan, status);
}
