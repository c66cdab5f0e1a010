/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_gather.h"

#include <stdlib.h>

#include "mir_hash.h"

/* Rows of numbers alone are taken so many at a time. */
enum {
    PLAIN_COLUMNS_MAX = 64,
    PLAIN_ROWS = 64,
    /* Rows that a new column has room for because an earlier series had so many. */
    KEPT_ROWS = 16384,
};

mir_status mir_tlog_gather_init(mir_tlog_gather *gather)
{
    *gather = (mir_tlog_gather){.time_first = INT64_MIN, .time_last = INT64_MAX};
    gather->slot_count = 64;
    gather->slots = calloc(gather->slot_count, sizeof *gather->slots);
    gather->cells = malloc(sizeof *gather->cells * MIR_TLOG_ROW_CELLS_MAX);
    if (gather->slots != NULL && gather->cells != NULL) return MIR_OK;
    mir_tlog_gather_fini(gather);
    return MIR_E_NO_MEMORY;
}

static mir_status take_bytes(mir_tlog_gather *gather, uint64_t extra)
{
    uint64_t before = gather->bytes;
    if (gather->shared != NULL) {
        before = atomic_fetch_add_explicit(gather->shared, extra, memory_order_relaxed);
    }
    gather->bytes += extra;
    return gather->bytes_max != 0 && before + extra > gather->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

static void give_bytes(mir_tlog_gather *gather, uint64_t bytes)
{
    gather->bytes -= bytes;
    if (gather->shared == NULL) return;
    (void)atomic_fetch_sub_explicit(gather->shared, bytes, memory_order_relaxed);
}

mir_status mir_tlog_gather_count(mir_tlog_gather *gather)
{
    const uint64_t extra = gather->arena.bytes_used - gather->bytes_text;
    gather->bytes_text += extra;
    return take_bytes(gather, extra);
}

void mir_tlog_gather_give_texts(mir_tlog_gather *gather, mir_view **texts, mir_arena *arena)
{
    *texts = gather->texts;
    *arena = gather->arena;
    gather->bytes -= (uint64_t)gather->text_capacity * sizeof(mir_view) + gather->bytes_text;
    gather->texts = NULL;
    gather->text_capacity = gather->text_count = 0;
    gather->arena = (mir_arena){0};
    gather->bytes_text = 0;
}

void mir_tlog_gather_fini(mir_tlog_gather *gather)
{
    for (uint32_t i = 0; i < gather->column_capacity; i++) {
        free(gather->columns[i].values);
        free(gather->columns[i].present);
    }
    free(gather->columns);
    free(gather->times);
    free(gather->slots);
    free(gather->texts);
    free(gather->cells);
    free(gather->map);
    mir_arena_free(&gather->arena);
    give_bytes(gather, gather->bytes);
    *gather = (mir_tlog_gather){0};
}

void mir_tlog_gather_reset(mir_tlog_gather *gather)
{
    for (uint32_t i = 0; i < gather->column_count; i++) {
        memset(gather->columns[i].present, 0, gather->row_count);
    }
    if (gather->column_count > 0) memset(gather->slots, 0, gather->slot_count * sizeof(uint32_t));
    gather->column_count = 0;
    gather->row_count = 0;
    gather->text_count = 0;
    mir_arena_free(&gather->arena);
    give_bytes(gather, gather->bytes_text);
    gather->bytes_text = 0;
}

static mir_status column_grow(mir_tlog_gather *gather, mir_tlog_gather_column *column)
{
    const uint32_t capacity = gather->capacity;
    if (column->capacity >= capacity) return MIR_OK;
    const mir_status status = take_bytes(gather, (uint64_t)(capacity - column->capacity) * 9);
    if (status != MIR_OK) return status;
    uint64_t *values = realloc(column->values, capacity * sizeof *values);
    if (values != NULL) column->values = values;
    uint8_t *present = realloc(column->present, capacity);
    if (present != NULL) {
        memset(present + column->capacity, 0, capacity - column->capacity);
        column->present = present;
    }
    if (values == NULL || present == NULL) return MIR_E_NO_MEMORY;
    column->capacity = capacity;
    return MIR_OK;
}

mir_status mir_tlog_gather_room(mir_tlog_gather *gather, uint32_t count)
{
    if (gather->row_count == 0 && gather->capacity > KEPT_ROWS) gather->capacity = KEPT_ROWS;
    if (count <= gather->capacity - gather->row_count) return MIR_OK;
    if (count > UINT32_MAX / 4 - gather->row_count) return MIR_E_TOO_LARGE;
    uint32_t capacity = gather->capacity < 64 ? 64 : gather->capacity;
    while (capacity - gather->row_count < count) capacity *= 2;
    if (capacity > gather->times_capacity) {
        const mir_status status =
            take_bytes(gather, (uint64_t)(capacity - gather->times_capacity) * 8);
        if (status != MIR_OK) return status;
        int64_t *times = realloc(gather->times, capacity * sizeof *times);
        if (times == NULL) return MIR_E_NO_MEMORY;
        gather->times = times;
        gather->times_capacity = capacity;
    }
    gather->capacity = capacity;
    for (uint32_t i = 0; i < gather->column_count; i++) {
        const mir_status grown = column_grow(gather, &gather->columns[i]);
        if (grown != MIR_OK) return grown;
    }
    return MIR_OK;
}

mir_status mir_tlog_gather_texts_room(mir_tlog_gather *gather, uint32_t count)
{
    if (count <= gather->text_capacity - gather->text_count) return MIR_OK;
    if (count > UINT32_MAX / 4 - gather->text_count) return MIR_E_TOO_LARGE;
    uint32_t capacity = gather->text_capacity < 64 ? 64 : gather->text_capacity;
    while (capacity - gather->text_count < count) capacity *= 2;
    const mir_status status =
        take_bytes(gather, (uint64_t)(capacity - gather->text_capacity) * sizeof(mir_view));
    if (status != MIR_OK) return status;
    mir_view *texts = realloc(gather->texts, capacity * sizeof *texts);
    if (texts == NULL) return MIR_E_NO_MEMORY;
    gather->texts = texts;
    gather->text_capacity = capacity;
    return MIR_OK;
}

mir_status mir_tlog_gather_map_room(mir_tlog_gather *gather, uint32_t count)
{
    if (count <= gather->map_capacity) return MIR_OK;
    uint32_t *map = realloc(gather->map, count * sizeof *map);
    if (map == NULL) return MIR_E_NO_MEMORY;
    gather->map = map;
    gather->map_capacity = count;
    return MIR_OK;
}

static uint32_t slot_of(const mir_tlog_gather *gather, mir_view name, mir_column_type type)
{
    uint32_t slot = ((uint32_t)mir_hash_view(name) + (uint32_t)type) & (gather->slot_count - 1);
    while (gather->slots[slot] != 0) {
        const mir_tlog_gather_column *column = &gather->columns[gather->slots[slot] - 1];
        if (column->type == type && mir_view_eq(column->name, name)) break;
        slot = (slot + 1) & (gather->slot_count - 1);
    }
    return slot;
}

mir_view mir_tlog_gather_name(const mir_tlog_gather *gather, mir_view stored)
{
    for (uint32_t i = 0; i < gather->rename_count; i++) {
        if (mir_view_eq(gather->renames[i].stored, stored)) return gather->renames[i].answered;
    }
    return stored;
}

bool mir_tlog_gather_wants(const mir_tlog_gather *gather, mir_view name, mir_column_type type)
{
    if (gather->numbers_only && (type == MIR_COLUMN_STRING || type == MIR_COLUMN_BOOL)) {
        return false;
    }
    if (gather->field_count == 0) return true;
    name = mir_tlog_gather_name(gather, name);
    for (uint32_t i = 0; i < gather->field_count; i++) {
        if (mir_view_eq(gather->fields[i], name)) return true;
    }
    return false;
}

mir_status mir_tlog_gather_column_of(mir_tlog_gather *gather, mir_view name, mir_column_type type,
                                     uint32_t *column)
{
    const mir_view stored = name;
    name = mir_tlog_gather_name(gather, stored);
    uint32_t slot = slot_of(gather, name, type);
    if (gather->slots[slot] != 0) {
        *column = gather->slots[slot] - 1;
        return MIR_OK;
    }
    if (!mir_tlog_gather_wants(gather, stored, type)) {
        *column = MIR_TLOG_GATHER_NONE;
        return MIR_OK;
    }
    if (gather->column_count * 2 >= gather->slot_count) {
        uint32_t *slots = calloc((size_t)gather->slot_count * 2, sizeof *slots);
        if (slots == NULL) return MIR_E_NO_MEMORY;
        free(gather->slots);
        gather->slots = slots;
        gather->slot_count *= 2;
        for (uint32_t i = 0; i < gather->column_count; i++) {
            slots[slot_of(gather, gather->columns[i].name, gather->columns[i].type)] = i + 1;
        }
        slot = slot_of(gather, name, type);
    }
    if (gather->column_count == gather->column_capacity) {
        const uint32_t capacity = gather->column_capacity < 8 ? 8 : gather->column_capacity * 2;
        mir_tlog_gather_column *columns = realloc(gather->columns, capacity * sizeof *columns);
        if (columns == NULL) return MIR_E_NO_MEMORY;
        memset(columns + gather->column_capacity, 0,
               (capacity - gather->column_capacity) * sizeof *columns);
        gather->columns = columns;
        gather->column_capacity = capacity;
    }
    mir_tlog_gather_column *made = &gather->columns[gather->column_count];
    made->name = name;
    made->type = type;
    const mir_status status = column_grow(gather, made);
    if (status != MIR_OK) return status;
    *column = gather->column_count++;
    gather->slots[slot] = gather->column_count;
    return MIR_OK;
}

/* Whether rows of the series can be taken many at once: numbers alone, all of them wanted, and the
 * columns have entered. */
static bool is_plain(const mir_tlog_gather *gather, const mir_tlog_shape *shape)
{
    if (shape->column_count == 0 || shape->column_count > PLAIN_COLUMNS_MAX) return false;
    for (uint32_t i = 0; i < shape->column_count; i++) {
        if (shape->types[i] == MIR_COLUMN_STRING || gather->map[i] >= MIR_TLOG_GATHER_NONE - 1) {
            return false;
        }
    }
    return true;
}

/* MIR_E_EMPTY: the next row is none of these, or there is none. */
static mir_status take_plain(mir_tlog_gather *gather, mir_tlog_mem_cursor *cursor)
{
    const mir_tlog_shape *shape = cursor->series->shape;
    uint64_t *to[PLAIN_COLUMNS_MAX];
    const mir_status status = mir_tlog_gather_room(gather, PLAIN_ROWS);
    if (status != MIR_OK) return status;
    for (uint32_t i = 0; i < shape->column_count; i++) {
        to[i] = gather->columns[gather->map[i]].values + gather->row_count;
    }
    uint32_t passed;
    const uint32_t rows =
        mir_tlog_mem_take(cursor, gather->time_first, gather->time_last,
                          gather->times + gather->row_count, to, PLAIN_ROWS, &passed);
    for (uint32_t i = 0; i < shape->column_count; i++) {
        memset(gather->columns[gather->map[i]].present + gather->row_count, 1, rows);
    }
    gather->row_count += rows;
    gather->rows_read += passed;
    return passed > 0 ? MIR_OK : MIR_E_EMPTY;
}

mir_status mir_tlog_gather_mem(mir_tlog_gather *gather, const mir_tlog_mem *mem,
                               const mir_tlog_mem_series *series, uint32_t limit)
{
    mir_tlog_mem_cursor cursor;
    mir_status status = mir_tlog_mem_cursor_init(&cursor, mem, series, limit);
    if (status != MIR_OK) return status;
    const mir_tlog_shape *shape = series->shape;
    status = mir_tlog_gather_map_room(gather, cursor.column_count + 1);
    if (status != MIR_OK) goto out;
    const mir_tlog_extra *extra = atomic_load_explicit(&series->extras, memory_order_acquire);
    for (uint32_t i = 0; i < cursor.column_count; i++) {
        const mir_column *column = &shape->columns[i < shape->column_count ? i : 0];
        if (i >= shape->column_count) {
            column = &extra->column;
            extra = atomic_load_explicit(&extra->next, memory_order_acquire);
        }
        /* A column enters only with its first value: the set of columns is that of the data. */
        gather->map[i] = mir_tlog_gather_wants(gather, mir_view_of(column->name, column->name_size),
                                               column->type)
                             ? MIR_TLOG_GATHER_NONE - 1
                             : MIR_TLOG_GATHER_NONE;
    }
    for (;;) {
        if (is_plain(gather, shape)) {
            status = take_plain(gather, &cursor);
            if (status == MIR_OK) continue;
            if (status != MIR_E_EMPTY) break;
        }
        int64_t time_ns;
        uint32_t cell_count;
        status = mir_tlog_mem_next(&cursor, &time_ns, gather->cells, &cell_count);
        if (status != MIR_OK) break;
        gather->rows_read++;
        if (time_ns < gather->time_first || time_ns > gather->time_last) continue;
        status = mir_tlog_gather_room(gather, 1);
        if (status != MIR_OK) break;
        const uint32_t row = gather->row_count;
        bool any = false;
        for (uint32_t i = 0; i < cell_count; i++) {
            const mir_tlog_cell *cell = &gather->cells[i];
            uint32_t to = gather->map[cell->column];
            if (to == MIR_TLOG_GATHER_NONE) continue;
            if (to == MIR_TLOG_GATHER_NONE - 1) {
                const mir_column *column;
                if (cell->column < shape->column_count) {
                    column = &shape->columns[cell->column];
                } else {
                    extra = atomic_load_explicit(&series->extras, memory_order_acquire);
                    for (uint32_t n = cell->column - shape->column_count; n > 0; n--) {
                        extra = atomic_load_explicit(&extra->next, memory_order_acquire);
                    }
                    column = &extra->column;
                }
                status = mir_tlog_gather_column_of(
                    gather, mir_view_of(column->name, column->name_size), column->type, &to);
                if (status != MIR_OK) goto out;
                gather->map[cell->column] = to;
            }
            mir_tlog_gather_column *column = &gather->columns[to];
            if (column->type == MIR_COLUMN_STRING) {
                status = mir_tlog_gather_texts_room(gather, 1);
                if (status != MIR_OK) goto out;
                column->values[row] = gather->text_count;
                gather->texts[gather->text_count++] = cell->value.text;
            } else {
                column->values[row] = cell->value.bits;
            }
            column->present[row] = 1;
            any = true;
        }
        if (!any) continue;
        gather->times[row] = time_ns;
        gather->row_count++;
    }
    if (status == MIR_E_EMPTY) status = MIR_OK;
out:
    mir_tlog_mem_cursor_fini(&cursor);
    return status;
}

typedef struct placed {
    int64_t time_ns;
    uint32_t row;
} placed;

static int placed_compare(const void *a, const void *b)
{
    const placed *left = a;
    const placed *right = b;
    if (left->time_ns != right->time_ns) return left->time_ns < right->time_ns ? -1 : 1;
    return left->row < right->row ? -1 : left->row > right->row;
}

/* Brings one column into the order of `order`, folding equal times into one row. */
static void column_order(mir_tlog_gather_column *column, const placed *order, uint32_t row_count,
                         uint64_t *values, uint8_t *present)
{
    uint32_t to = 0;
    present[0] = 0;
    for (uint32_t i = 0; i < row_count; i++) {
        if (i > 0 && order[i].time_ns != order[i - 1].time_ns) present[++to] = 0;
        if (column->present[order[i].row] != 0) {
            values[to] = column->values[order[i].row];
            present[to] = 1;
        }
    }
    to++;
    memcpy(column->values, values, to * sizeof *values);
    memcpy(column->present, present, to);
    memset(column->present + to, 0, row_count - to);
}

static mir_status order_rows(mir_tlog_gather *gather)
{
    const uint32_t row_count = gather->row_count;
    const uint64_t extra = (uint64_t)row_count * (sizeof(placed) + 9);
    placed *order = NULL;
    uint64_t *values = NULL;
    uint8_t *present = NULL;
    mir_status status = take_bytes(gather, extra);
    if (status != MIR_OK) goto out;
    order = malloc(row_count * sizeof *order);
    values = malloc(row_count * sizeof *values);
    present = malloc(row_count);
    status = MIR_E_NO_MEMORY;
    if (order == NULL || values == NULL || present == NULL) goto out;
    for (uint32_t i = 0; i < row_count; i++) order[i] = (placed){gather->times[i], i};
    qsort(order, row_count, sizeof *order, placed_compare);
    for (uint32_t i = 0; i < gather->column_count; i++) {
        column_order(&gather->columns[i], order, row_count, values, present);
    }
    uint32_t to = 0;
    for (uint32_t i = 0; i < row_count; i++) {
        if (i == 0 || order[i].time_ns != order[i - 1].time_ns) {
            gather->times[to++] = order[i].time_ns;
        }
    }
    gather->row_count = to;
    status = MIR_OK;
out:
    free(order);
    free(values);
    free(present);
    give_bytes(gather, extra);
    return status;
}

static void drop_empty_rows(mir_tlog_gather *gather)
{
    for (uint32_t i = 0; i < gather->column_count; i++) {
        if (memchr(gather->columns[i].present, 0, gather->row_count) == NULL) return;
    }
    uint32_t to = 0;
    if (gather->row_count == 0) return;
    /* As nearly always: a column without gaps. */
    for (uint32_t i = 0; i < gather->column_count; i++) {
        if (memchr(gather->columns[i].present, 0, gather->row_count) == NULL) return;
    }
    for (uint32_t row = 0; row < gather->row_count; row++) {
        bool any = false;
        for (uint32_t i = 0; i < gather->column_count && !any; i++) {
            any = gather->columns[i].present[row] != 0;
        }
        if (!any) continue;
        if (to != row) {
            gather->times[to] = gather->times[row];
            for (uint32_t i = 0; i < gather->column_count; i++) {
                gather->columns[i].values[to] = gather->columns[i].values[row];
                gather->columns[i].present[to] = gather->columns[i].present[row];
            }
        }
        to++;
    }
    for (uint32_t i = 0; i < gather->column_count && to < gather->row_count; i++) {
        memset(gather->columns[i].present + to, 0, gather->row_count - to);
    }
    gather->row_count = to;
}

/* Where a text was, and where its copy is: many rows may have the same. */
typedef struct moved {
    mir_view from;
    const uint8_t *to;
} moved;

static mir_status text_move(mir_arena *arena, moved *table, uint32_t slot_count, mir_view *text)
{
    const uint64_t address = (uint64_t)(uintptr_t)text->data;
    uint32_t slot = (uint32_t)(mir_hash_fixed(&address, sizeof address) + text->size);
    for (slot &= slot_count - 1; table[slot].to != NULL; slot = (slot + 1) & (slot_count - 1)) {
        if (table[slot].from.data == text->data && table[slot].from.size == text->size) break;
    }
    if (table[slot].to == NULL) {
        uint8_t *to = mir_arena_alloc(arena, text->size + 1);
        if (to == NULL) return MIR_E_NO_MEMORY;
        if (text->size > 0) memcpy(to, text->data, text->size);
        table[slot] = (moved){*text, to};
    }
    text->data = table[slot].to;
    return MIR_OK;
}

mir_status mir_tlog_gather_pack_texts(mir_tlog_gather *gather)
{
    if (gather->text_count == 0) return MIR_OK;
    uint32_t slot_count = 64;
    while (slot_count < gather->text_count * 2) slot_count *= 2;
    mir_view *texts = malloc(gather->text_count * sizeof *texts);
    moved *table = calloc(slot_count, sizeof *table);
    mir_arena arena = {0};
    uint32_t count = 0;
    mir_status status = texts == NULL || table == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    for (uint32_t i = 0; i < gather->column_count; i++) {
        const mir_tlog_gather_column *column = &gather->columns[i];
        if (column->type != MIR_COLUMN_STRING) continue;
        for (uint32_t row = 0; row < gather->row_count && status == MIR_OK; row++) {
            if (column->present[row] == 0) continue;
            texts[count] = gather->texts[column->values[row]];
            status = text_move(&arena, table, slot_count, &texts[count]);
            column->values[row] = count++;
        }
    }
    free(table);
    if (status == MIR_OK) {
        memcpy(gather->texts, texts, count * sizeof *texts);
        gather->text_count = count;
        mir_arena_free(&gather->arena);
        gather->arena = arena;
        give_bytes(gather, gather->bytes_text);
        gather->bytes_text = 0;
        status = mir_tlog_gather_count(gather);
    } else {
        mir_arena_free(&arena);
    }
    free(texts);
    return status;
}

/* To get less memory may fail: then it stays as it is, uncounted. */
static void column_shrink(mir_tlog_gather_column *column, uint32_t rows, uint32_t capacity)
{
    if (column->capacity > rows) memset(column->present + rows, 0, column->capacity - rows);
    if (column->capacity <= capacity) return;
    uint64_t *values = realloc(column->values, capacity * sizeof *values);
    if (values != NULL) column->values = values;
    uint8_t *present = realloc(column->present, capacity);
    if (present != NULL) column->present = present;
    column->capacity = capacity;
}

mir_status mir_tlog_gather_cut(mir_tlog_gather *gather, uint32_t rows)
{
    uint32_t capacity = 64;
    while (capacity < rows) capacity *= 2;
    if (capacity < gather->capacity) gather->capacity = capacity;
    if (gather->times_capacity > gather->capacity) {
        int64_t *times = realloc(gather->times, gather->capacity * sizeof *times);
        if (times != NULL) gather->times = times;
        gather->times_capacity = gather->capacity;
    }
    /* What was counted when it could not be had is not counted any more. */
    uint64_t bytes = (uint64_t)gather->times_capacity * 8 +
                     (uint64_t)gather->text_capacity * sizeof(mir_view) + gather->bytes_text;
    for (uint32_t i = 0; i < gather->column_capacity; i++) {
        column_shrink(&gather->columns[i], rows, gather->capacity);
        bytes += (uint64_t)gather->columns[i].capacity * 9;
    }
    give_bytes(gather, gather->bytes - bytes);
    gather->row_count = rows;
    return mir_tlog_gather_pack_texts(gather);
}

mir_status mir_tlog_gather_finish(mir_tlog_gather *gather)
{
    bool ordered = true;
    for (uint32_t i = 1; i < gather->row_count && ordered; i++) {
        ordered = gather->times[i - 1] < gather->times[i];
    }
    if (!ordered) {
        const mir_status status = order_rows(gather);
        if (status != MIR_OK) return status;
    }
    drop_empty_rows(gather);
    return MIR_OK;
}
