/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_mem.h"

#include <stdlib.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_tlog.h"

enum {
    SLAB_BYTES = 256 * 1024,
    BLOCK_BYTES_FIRST = 64,
    BLOCK_BYTES_LAST = 2048,
    BUCKETS_MIN = 256,
    BUCKETS_MAX = 1 << 18,
};

typedef struct mir_tlog_slab {
    struct mir_tlog_slab *next;
    size_t used;
    size_t capacity;
    size_t reserved; /* keeps data aligned to 16 */
    uint8_t data[];
} mir_tlog_slab;

static void *slab_alloc(mir_tlog_mem *mem, size_t size)
{
    size = (size + 15) & ~(size_t)15;
    mir_tlog_slab *slab = mem->slabs;
    if (slab == NULL || size > slab->capacity - slab->used) {
        const bool alone = size > SLAB_BYTES / 4;
        const size_t capacity = alone ? size : SLAB_BYTES - sizeof *slab;
        mir_tlog_slab *fresh = malloc(sizeof *fresh + capacity);
        if (fresh == NULL) return NULL;
        fresh->used = 0;
        fresh->capacity = capacity;
        if (alone && slab != NULL) {
            fresh->next = slab->next;
            slab->next = fresh;
        } else {
            fresh->next = slab;
            mem->slabs = fresh;
        }
        slab = fresh;
        atomic_store_explicit(&mem->bytes,
                              atomic_load_explicit(&mem->bytes, memory_order_relaxed) +
                                  sizeof *fresh + capacity,
                              memory_order_relaxed);
    }
    void *memory = slab->data + slab->used;
    slab->used += size;
    return memory;
}

mir_status mir_tlog_mem_new(uint64_t generation, int64_t base_ns, uint32_t series_hint,
                            mir_tlog_mem **mem)
{
    uint32_t bucket_count = BUCKETS_MIN;
    while (bucket_count < series_hint && bucket_count < BUCKETS_MAX) bucket_count *= 2;
    mir_tlog_mem *made = calloc(1, sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    made->buckets = calloc(bucket_count, sizeof *made->buckets);
    if (made->buckets == NULL) {
        free(made);
        return MIR_E_NO_MEMORY;
    }
    made->generation = generation;
    made->base_ns = base_ns;
    made->bucket_count = bucket_count;
    atomic_init(&made->bytes, sizeof *made + bucket_count * sizeof *made->buckets);
    *mem = made;
    return MIR_OK;
}

void mir_tlog_mem_free(mir_tlog_mem *mem)
{
    if (mem == NULL) return;
    mir_tlog_slab *slab = mem->slabs;
    while (slab != NULL) {
        mir_tlog_slab *next = slab->next;
        free(slab);
        slab = next;
    }
    free(mem->buckets);
    free(mem);
}

static mir_view slab_copy(mir_tlog_mem *mem, mir_view text)
{
    uint8_t *copy = slab_alloc(mem, text.size + 1);
    if (copy == NULL) return (mir_view){NULL, 0};
    if (text.size > 0) memcpy(copy, text.data, text.size);
    copy[text.size] = 0;
    return mir_view_of(copy, text.size);
}

mir_status mir_tlog_mem_shape(mir_tlog_mem *mem, mir_view measurement, const mir_column *columns,
                              uint32_t column_count, mir_tlog_shape **shape)
{
    MIR_ASSERT(column_count <= MIR_TLOG_COLUMNS_MAX);
    mir_tlog_shape *made = slab_alloc(mem, sizeof *made);
    mir_column *own = slab_alloc(mem, (column_count + 1) * sizeof *own);
    uint8_t *types = slab_alloc(mem, column_count + 1);
    const mir_view name = slab_copy(mem, measurement);
    if (made == NULL || own == NULL || types == NULL || name.data == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < column_count; i++) {
        const mir_view column = slab_copy(mem, mir_view_of(columns[i].name, columns[i].name_size));
        if (column.data == NULL) return MIR_E_NO_MEMORY;
        own[i] = (mir_column){.name = (const char *)column.data,
                              .name_size = columns[i].name_size,
                              .type = columns[i].type};
        types[i] = (uint8_t)columns[i].type;
    }
    *made = (mir_tlog_shape){.id = mem->shape_count++,
                             .column_count = column_count,
                             .columns = own,
                             .types = types,
                             .measurement = name};
    *shape = made;
    return MIR_OK;
}

static uint32_t bucket_of(const mir_tlog_mem *mem, mir_view device, mir_view measurement)
{
    const uint64_t hash =
        mir_hash_view(device) + mir_hash_view(measurement) * UINT64_C(0x9e3779b97f4a7c15);
    return (uint32_t)(hash >> 32) & (mem->bucket_count - 1);
}

mir_status mir_tlog_mem_series_add(mir_tlog_mem *mem, mir_tlog_shape *shape, mir_view device,
                                   mir_tlog_mem_series **series)
{
    const uint32_t words = (shape->column_count + 63) / 64;
    mir_tlog_mem_series *made = slab_alloc(mem, sizeof *made);
    _Atomic uint64_t *seen = words == 0 ? NULL : slab_alloc(mem, words * sizeof *seen);
    const mir_view own = slab_copy(mem, device);
    if (made == NULL || own.data == NULL || (words != 0 && seen == NULL)) return MIR_E_NO_MEMORY;
    memset(made, 0, sizeof *made);
    for (uint32_t i = 0; i < words; i++) atomic_init(&seen[i], 0);
    const uint32_t bucket = bucket_of(mem, device, shape->measurement);
    made->shape = shape;
    made->device = own;
    made->id = mem->series_count++;
    made->seen = seen;
    atomic_init(&made->time_min, INT64_MAX);
    atomic_init(&made->time_max, INT64_MIN);
    made->turn_time_min = INT64_MAX;
    made->turn_time_max = INT64_MIN;
    made->bucket_next = atomic_load_explicit(&mem->buckets[bucket], memory_order_relaxed);
    made->all_next = atomic_load_explicit(&mem->all, memory_order_relaxed);
    /* Both pair with the acquire of who looks for series: its fields are there before it is. */
    atomic_store_explicit(&mem->buckets[bucket], made, memory_order_release);
    atomic_store_explicit(&mem->all, made, memory_order_release);
    *series = made;
    return MIR_OK;
}

/* ---- Columns that rows bring along ---- */

static const mir_column *column_at(const mir_tlog_mem_series *series, uint32_t column)
{
    const uint32_t fixed = series->shape->column_count;
    return column < fixed ? &series->shape->columns[column]
                          : &series->extra_table[column - fixed]->column;
}

static uint32_t slot_of(const mir_tlog_mem_series *series, mir_view name, mir_column_type type)
{
    uint32_t slot = ((uint32_t)mir_hash_view(name) + (uint32_t)type) & (series->slot_count - 1);
    while (series->slots[slot] != 0) {
        const mir_column *column = column_at(series, series->slots[slot] - 1);
        if (column->type == type && mir_view_eq(name, mir_view_of(column->name, column->name_size)))
            break;
        slot = (slot + 1) & (series->slot_count - 1);
    }
    return slot;
}

static mir_status slots_grow(mir_tlog_mem *mem, mir_tlog_mem_series *series)
{
    const uint32_t columns = series->shape->column_count + series->extra_count;
    uint32_t slot_count = 16;
    while (slot_count < columns * 2 + 16) slot_count *= 2;
    uint32_t *slots = slab_alloc(mem, slot_count * sizeof *slots);
    if (slots == NULL) return MIR_E_NO_MEMORY;
    memset(slots, 0, slot_count * sizeof *slots);
    series->slots = slots;
    series->slot_count = slot_count;
    for (uint32_t i = 0; i < columns; i++) {
        const mir_column *column = column_at(series, i);
        const uint32_t slot =
            slot_of(series, mir_view_of(column->name, column->name_size), column->type);
        /* Of fixed columns that are the same the first stands for both. */
        if (slots[slot] == 0) slots[slot] = i + 1;
    }
    return MIR_OK;
}

mir_status mir_tlog_mem_column(mir_tlog_mem *mem, mir_tlog_mem_series *series, mir_view name,
                               mir_column_type type, uint32_t *column)
{
    uint32_t slot = 0;
    if (series->slots != NULL) {
        slot = slot_of(series, name, type);
        if (series->slots[slot] != 0) {
            *column = series->slots[slot] - 1;
            return MIR_OK;
        }
    }
    const uint32_t columns = series->shape->column_count + series->extra_count;
    if (series->slots == NULL || columns * 2 >= series->slot_count) {
        if (slots_grow(mem, series) != MIR_OK) return MIR_E_NO_MEMORY;
        slot = slot_of(series, name, type);
        if (series->slots[slot] != 0) {
            *column = series->slots[slot] - 1;
            return MIR_OK;
        }
    }
    if (columns >= MIR_TLOG_COLUMNS_MAX) return MIR_E_TOO_LARGE;
    if (series->extra_count == series->extra_table_capacity) {
        const uint32_t capacity = series->extra_count == 0 ? 4 : series->extra_count * 2;
        mir_tlog_extra **table = slab_alloc(mem, capacity * sizeof(mir_tlog_extra *));
        if (table == NULL) return MIR_E_NO_MEMORY;
        if (series->extra_count > 0) {
            memcpy(table, series->extra_table, series->extra_count * sizeof(mir_tlog_extra *));
        }
        series->extra_table = table;
        series->extra_table_capacity = capacity;
    }
    mir_tlog_extra *extra = slab_alloc(mem, sizeof *extra);
    const mir_view own = slab_copy(mem, name);
    if (extra == NULL || own.data == NULL) return MIR_E_NO_MEMORY;
    atomic_init(&extra->next, NULL);
    extra->column = (mir_column){
        .name = (const char *)own.data, .name_size = (uint32_t)name.size, .type = type};
    /* Pairs with the acquire of who walks the extras. */
    atomic_store_explicit(series->last_extra == NULL ? &series->extras : &series->last_extra->next,
                          extra, memory_order_release);
    series->last_extra = extra;
    series->extra_table[series->extra_count++] = extra;
    series->slots[slot] = columns + 1;
    *column = columns;
    return MIR_OK;
}

/* ---- Rows ---- */

mir_status mir_tlog_mem_append(mir_tlog_mem *mem, mir_tlog_mem_series *series, const uint8_t *bytes,
                               uint32_t size, int64_t time_ns)
{
    if (size > series->room) {
        if (size > UINT32_MAX / 2 - series->end) return MIR_E_FULL;
        uint32_t whole = BLOCK_BYTES_FIRST;
        if (series->last != NULL) {
            whole = (series->last->capacity + (uint32_t)sizeof(mir_tlog_block)) * 2;
            if (whole > BLOCK_BYTES_LAST) whole = BLOCK_BYTES_LAST;
        }
        while (whole < BLOCK_BYTES_LAST && whole - sizeof(mir_tlog_block) < size) whole *= 2;
        uint32_t capacity = whole - (uint32_t)sizeof(mir_tlog_block);
        if (capacity < size) capacity = size;
        mir_tlog_block *block = slab_alloc(mem, sizeof *block + capacity);
        if (block == NULL) return MIR_E_NO_MEMORY;
        atomic_init(&block->next, NULL);
        block->start = series->end;
        block->capacity = capacity;
        /* Pairs with the acquire of a cursor that goes on to the next block. */
        atomic_store_explicit(series->last == NULL ? &series->first : &series->last->next, block,
                              memory_order_release);
        series->last = block;
        series->room = capacity;
        series->tail = block->data;
    }
    memcpy(series->tail, bytes, size);
    mir_tlog_mem_took(series, bytes, size, time_ns);
    return MIR_OK;
}

void mir_tlog_mem_publish(mir_tlog_mem_series *series)
{
    if (series->turn_time_min < atomic_load_explicit(&series->time_min, memory_order_relaxed)) {
        atomic_store_explicit(&series->time_min, series->turn_time_min, memory_order_relaxed);
    }
    if (series->turn_time_max > atomic_load_explicit(&series->time_max, memory_order_relaxed)) {
        atomic_store_explicit(&series->time_max, series->turn_time_max, memory_order_relaxed);
    }
    /* Pairs with the acquire in mir_tlog_mem_rows. */
    atomic_store_explicit(&series->rows_published, series->rows, memory_order_release);
    series->committed_last = series->last;
    series->committed_room = series->room;
    /* Pairs with the acquire in mir_tlog_mem_cursor_init: the rows' bytes come before. */
    atomic_store_explicit(&series->published, series->end, memory_order_release);
}

void mir_tlog_mem_rollback(mir_tlog_mem_series *series)
{
    series->end = atomic_load_explicit(&series->published, memory_order_relaxed);
    series->rows = atomic_load_explicit(&series->rows_published, memory_order_relaxed);
    series->last = series->committed_last;
    series->room = series->committed_room;
    series->tail =
        series->last == NULL ? NULL : series->last->data + (series->last->capacity - series->room);
    series->turn_time_min = INT64_MAX;
    series->turn_time_max = INT64_MIN;
    /* The last time is forgotten. */
    if (series->rows > 0) mir_tlog_mem_uneven(series);
    /* A cursor that already holds the block that is cut off sees that it starts at or behind what
     * was published, and stops; the block stays where it is until the memtable goes. */
    atomic_store_explicit(series->last == NULL ? &series->first : &series->last->next, NULL,
                          memory_order_release);
}

void mir_tlog_mem_seen(mir_tlog_mem_series *series, const uint64_t *present)
{
    if (present == NULL) {
        if (!atomic_load_explicit(&series->seen_all, memory_order_relaxed)) {
            atomic_store_explicit(&series->seen_all, true, memory_order_relaxed);
        }
        return;
    }
    const uint32_t words = (series->shape->column_count + 63) / 64;
    for (uint32_t i = 0; i < words; i++) {
        const uint64_t old = atomic_load_explicit(&series->seen[i], memory_order_relaxed);
        if ((present[i] & ~old) != 0) {
            atomic_store_explicit(&series->seen[i], old | present[i], memory_order_relaxed);
        }
    }
}

mir_status mir_tlog_row_read(mir_view body, uint32_t flags, int64_t base_ns, const uint8_t *types,
                             uint32_t column_count, const uint8_t *extra_types,
                             uint32_t extra_count, int64_t *time_ns, mir_tlog_cell *cells,
                             uint32_t *cell_count)
{
    mir_tlog_reader in = mir_tlog_reader_of(body.data, body.size);
    *time_ns = (int64_t)((uint64_t)base_ns + (uint64_t)mir_tlog_read_signed(&in));
    mir_view bitmap = {NULL, 0};
    if ((flags & MIR_TLOG_ROW_SPARSE) != 0) {
        bitmap = mir_tlog_read_bytes(&in, (column_count + 7) / 8);
        if (in.failed) return MIR_E_CORRUPT;
    }
    uint64_t more = 0;
    uint32_t count = 0;
    uint32_t at = 0;
    for (bool extras = false;;) {
        uint32_t column;
        uint8_t type;
        if (at < column_count) {
            column = at++;
            if (bitmap.data != NULL && (bitmap.data[column / 8] >> (column % 8) & 1) == 0) continue;
            type = types[column];
        } else {
            if (!extras) {
                extras = true;
                if ((flags & MIR_TLOG_ROW_EXTRAS) != 0) more = mir_tlog_read_varint(&in);
                if (more > MIR_TLOG_ROW_CELLS_MAX - MIR_TLOG_COLUMNS_MAX) return MIR_E_CORRUPT;
            }
            if (more-- == 0) break;
            const uint64_t named = mir_tlog_read_varint(&in);
            if (in.failed || named >= column_count + (uint64_t)extra_count) return MIR_E_CORRUPT;
            column = (uint32_t)named;
            type = column < column_count ? types[column] : extra_types[column - column_count];
        }
        mir_tlog_cell *cell = &cells[count++];
        cell->column = column;
        switch (type) {
        case MIR_COLUMN_I64: cell->value.bits = (uint64_t)mir_tlog_read_signed(&in); break;
        case MIR_COLUMN_U64: cell->value.bits = mir_tlog_read_varint(&in); break;
        case MIR_COLUMN_F64: cell->value.bits = mir_tlog_read_u64(&in); break;
        case MIR_COLUMN_BOOL: cell->value.bits = mir_tlog_read_u8(&in) & 1; break;
        default: cell->value.text = mir_tlog_read_text(&in); break;
        }
    }
    *cell_count = count;
    return in.failed || in.at != in.end ? MIR_E_CORRUPT : MIR_OK;
}

/* ---- Readers ---- */

static mir_tlog_mem_series *find_from(mir_tlog_mem_series *series, mir_view device,
                                      mir_view measurement)
{
    while (series != NULL && !(mir_view_eq(series->device, device) &&
                               mir_view_eq(series->shape->measurement, measurement))) {
        series = series->bucket_next;
    }
    return series;
}

mir_tlog_mem_series *mir_tlog_mem_find(const mir_tlog_mem *mem, mir_view device,
                                       mir_view measurement)
{
    const uint32_t bucket = bucket_of(mem, device, measurement);
    return find_from(atomic_load_explicit(&mem->buckets[bucket], memory_order_acquire), device,
                     measurement);
}

mir_tlog_mem_series *mir_tlog_mem_find_before(const mir_tlog_mem_series *series)
{
    return find_from(series->bucket_next, series->device, series->shape->measurement);
}

mir_status mir_tlog_mem_cursor_init(mir_tlog_mem_cursor *cursor, const mir_tlog_mem *mem,
                                    const mir_tlog_mem_series *series, uint32_t limit)
{
    mir_tlog_mem_cursor made = {.mem = mem, .series = series, .limit = limit};
    made.block = atomic_load_explicit(&series->first, memory_order_acquire);
    uint32_t extra_count = 0;
    const mir_tlog_extra *extra = atomic_load_explicit(&series->extras, memory_order_acquire);
    for (const mir_tlog_extra *e = extra; e != NULL;
         e = atomic_load_explicit(&e->next, memory_order_acquire)) {
        extra_count++;
    }
    if (extra_count > 0) {
        made.extra_types = malloc(extra_count);
        if (made.extra_types == NULL) return MIR_E_NO_MEMORY;
        for (uint32_t i = 0; i < extra_count; i++) {
            made.extra_types[i] = (uint8_t)extra->column.type;
            extra = atomic_load_explicit(&extra->next, memory_order_acquire);
        }
    }
    made.column_count = series->shape->column_count + extra_count;
    *cursor = made;
    return MIR_OK;
}

void mir_tlog_mem_cursor_fini(mir_tlog_mem_cursor *cursor)
{
    free(cursor->extra_types);
    *cursor = (mir_tlog_mem_cursor){0};
}

/* What is left of the block that the next row stands in. */
static mir_tlog_reader block_left(mir_tlog_mem_cursor *cursor)
{
    const mir_tlog_block *block = cursor->block;
    const mir_tlog_block *next = atomic_load_explicit(&block->next, memory_order_acquire);
    uint32_t end = cursor->limit;
    if (next != NULL && next->start < end) end = next->start;
    if (cursor->position == end) {
        /* Rows do not cross blocks, and a block is only started for a row. */
        block = cursor->block = next;
        next = atomic_load_explicit(&block->next, memory_order_acquire);
        end = cursor->limit;
        if (next != NULL && next->start < end) end = next->start;
    }
    return mir_tlog_reader_of(block->data + (cursor->position - block->start),
                              end - cursor->position);
}

/* The rows that lie so far from the end of what may be read that no number of them can pass it. */
static uint32_t take_far(const mir_tlog_shape *shape, uint64_t base, mir_tlog_reader *in,
                         int64_t time_first, int64_t time_last, int64_t *times,
                         uint64_t *const *values, uint32_t rows_max, uint32_t *passed)
{
    const ptrdiff_t row_bytes_max =
        (ptrdiff_t)MIR_TLOG_VARINT_BYTES_MAX * (2 + (ptrdiff_t)shape->column_count);
    const uint8_t *at = in->at;
    uint32_t rows = 0;
    uint32_t seen = 0;
    while (rows < rows_max && in->end - at >= row_bytes_max) {
        const uint8_t *row = at;
        const uint64_t head = mir_tlog_take_varint(&at);
        if ((head & ((1u << MIR_TLOG_ROW_FLAG_BITS) - 1)) != 0) {
            at = row;
            break;
        }
        const uint8_t *end = at + (head >> MIR_TLOG_ROW_FLAG_BITS);
        const int64_t time_ns =
            (int64_t)(base + (uint64_t)mir_tlog_unzigzag(mir_tlog_take_varint(&at)));
        for (uint32_t i = 0; i < shape->column_count; i++) {
            uint64_t value;
            switch (shape->types[i]) {
            case MIR_COLUMN_I64:
                value = (uint64_t)mir_tlog_unzigzag(mir_tlog_take_varint(&at));
                break;
            case MIR_COLUMN_U64: value = mir_tlog_take_varint(&at); break;
            case MIR_COLUMN_F64:
                value = mir_tlog_get_u64(at);
                at += 8;
                break;
            default: value = *at++ & 1; break;
            }
            values[i][rows] = value;
        }
        MIR_ASSERT(at == end);
        seen++;
        if (time_ns < time_first || time_ns > time_last) continue;
        times[rows++] = time_ns;
    }
    in->at = at;
    *passed += seen;
    return rows;
}

uint32_t mir_tlog_mem_take(mir_tlog_mem_cursor *cursor, int64_t time_first, int64_t time_last,
                           int64_t *times, uint64_t *const *values, uint32_t rows_max,
                           uint32_t *passed)
{
    *passed = 0;
    if (cursor->position >= cursor->limit) return 0;
    mir_tlog_reader in = block_left(cursor);
    const mir_tlog_shape *shape = cursor->series->shape;
    const uint64_t base = (uint64_t)cursor->mem->base_ns;
    const uint8_t *start = in.at;
    uint32_t rows =
        take_far(shape, base, &in, time_first, time_last, times, values, rows_max, passed);
    while (in.at < in.end && rows < rows_max) {
        const uint8_t *row = in.at;
        const uint64_t head = mir_tlog_read_varint(&in);
        if ((head & ((1u << MIR_TLOG_ROW_FLAG_BITS) - 1)) != 0) {
            in.at = row;
            break;
        }
        const uint8_t *end = in.at + (head >> MIR_TLOG_ROW_FLAG_BITS);
        const int64_t time_ns = (int64_t)(base + (uint64_t)mir_tlog_read_signed(&in));
        for (uint32_t i = 0; i < shape->column_count; i++) {
            uint64_t value;
            switch (shape->types[i]) {
            case MIR_COLUMN_I64: value = (uint64_t)mir_tlog_read_signed(&in); break;
            case MIR_COLUMN_U64: value = mir_tlog_read_varint(&in); break;
            case MIR_COLUMN_F64: value = mir_tlog_read_u64(&in); break;
            default: value = mir_tlog_read_u8(&in) & 1; break;
            }
            values[i][rows] = value;
        }
        MIR_ASSERT(!in.failed && in.at == end);
        (*passed)++;
        if (time_ns < time_first || time_ns > time_last) continue;
        times[rows++] = time_ns;
    }
    cursor->position += (uint32_t)(in.at - start);
    return rows;
}

mir_status mir_tlog_mem_next(mir_tlog_mem_cursor *cursor, int64_t *time_ns, mir_tlog_cell *cells,
                             uint32_t *cell_count)
{
    if (cursor->position >= cursor->limit) return MIR_E_EMPTY;
    mir_tlog_reader in = block_left(cursor);
    const uint8_t *start = in.at;
    const uint64_t head = mir_tlog_read_varint(&in);
    const mir_view body = mir_tlog_read_bytes(&in, head >> MIR_TLOG_ROW_FLAG_BITS);
    MIR_ASSERT(!in.failed);
    cursor->position += (uint32_t)(in.at - start);
    const mir_tlog_shape *shape = cursor->series->shape;
    return mir_tlog_row_read(body, (uint32_t)head & ((1u << MIR_TLOG_ROW_FLAG_BITS) - 1),
                             cursor->mem->base_ns, shape->types, shape->column_count,
                             cursor->extra_types, cursor->column_count - shape->column_count,
                             time_ns, cells, cell_count);
}
