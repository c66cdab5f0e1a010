/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_rollup.h"

#include <math.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_tlog_number.h"

const int64_t mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS] = {
    60 * MIR_NS_PER_S,
    600 * MIR_NS_PER_S,
    3600 * MIR_NS_PER_S,
};

static const char step_letters[MIR_TLOG_ROLLUPS + 1] = "mth";

/* What a stored column has of a column, as the letter behind the mark. */
typedef enum part {
    PART_COUNT = 'n',
    PART_LOW = 'l',
    PART_HIGH = 'h',
    PART_SUM = 's', /* of integers the lower half */
    PART_SUM_HIGH = 'S',
    PART_FIRST = 'f',
    PART_LAST = 'e',
    PART_FIRST_NS = 'F', /* since the step began */
    PART_LAST_NS = 'E',
    PART_INCREASE = 'i', /* within the step */
    PART_UNCERTAIN = 'u',
} part;

static const char parts[] = "nlhsSfeFEiu";

static const double SAME_SUM = 1e-9;

enum { PARTS = sizeof parts - 1, SUFFIX_BYTES = MIR_TLOG_ROLLUP_SUFFIX_BYTES };

int64_t mir_tlog_rollup_floor(int64_t time_ns, int64_t step_ns)
{
    const int64_t rest = time_ns % step_ns;
    int64_t floor;
    if (__builtin_sub_overflow(time_ns, rest < 0 ? rest + step_ns : rest, &floor)) return INT64_MIN;
    return floor;
}

mir_view mir_tlog_rollup_measurement(mir_view measurement, uint32_t step, char *name)
{
    name[0] = MIR_TLOG_ROLLUP_MARK;
    name[1] = step_letters[step];
    const size_t size = measurement.size < MIR_TLOG_MEASUREMENT_BYTES_MAX
                            ? measurement.size
                            : MIR_TLOG_MEASUREMENT_BYTES_MAX;
    if (size > 0) memcpy(name + 2, measurement.data, size);
    return mir_view_of(name, size + 2);
}

int mir_tlog_rollup_step_of(mir_view stored, mir_view *measurement)
{
    if (stored.size < 2 || stored.data[0] != MIR_TLOG_ROLLUP_MARK) return MIR_TLOG_ROLLUP_NONE;
    for (int step = 0; step < MIR_TLOG_ROLLUPS; step++) {
        if (stored.data[1] != (uint8_t)step_letters[step]) continue;
        if (measurement != NULL) *measurement = mir_view_of(stored.data + 2, stored.size - 2);
        return step;
    }
    return MIR_TLOG_ROLLUP_NONE;
}

int mir_tlog_rollup_step_in(const mir_tlog_segment *segment)
{
    /* In ascending order: if the last one is reserved, all are. */
    return segment->measurement_count == 0
               ? MIR_TLOG_ROLLUP_NONE
               : mir_tlog_rollup_step_of(segment->measurements[segment->measurement_count - 1],
                                         NULL);
}

void mir_tlog_rollup_free(mir_tlog_rollup *rollup)
{
    free(rollup->columns);
    free(rollup->times);
    free(rollup->cells);
    free(rollup->repeated);
    mir_arena_free(&rollup->texts);
    mir_tlog_columns_free(&rollup->set);
    *rollup = (mir_tlog_rollup){0};
}

static mir_status columns_room(mir_tlog_rollup *rollup, uint32_t count)
{
    if (count <= rollup->column_capacity) return MIR_OK;
    mir_column *more = realloc(rollup->columns, count * sizeof *more);
    if (more == NULL) return MIR_E_NO_MEMORY;
    rollup->columns = more;
    rollup->column_capacity = count;
    return MIR_OK;
}

/* From the set's number `column_count` on it is none of the table's. */
static mir_status column_number(mir_tlog_rollup *rollup, const mir_column *column, uint32_t *number)
{
    return mir_tlog_columns_number(&rollup->set, mir_tlog_column_name(column), column->type,
                                   number);
}

void mir_tlog_rollup_clear(mir_tlog_rollup *rollup)
{
    rollup->column_count = rollup->row_count = 0;
    mir_tlog_columns_reset(&rollup->set);
    mir_arena_free(&rollup->texts);
    free(rollup->repeated);
    rollup->repeated = NULL;
}

/* Room for so many rows in all; those that are new have nothing. */
static mir_status rows_room(mir_tlog_rollup *rollup, uint32_t count)
{
    const size_t cells = (size_t)count * rollup->column_count;
    const size_t before = (size_t)rollup->row_count * rollup->column_count;
    if (count > rollup->row_capacity) {
        int64_t *times = realloc(rollup->times, count * sizeof *times);
        if (times == NULL) return MIR_E_NO_MEMORY;
        rollup->times = times;
        rollup->row_capacity = count;
    }
    if (cells > rollup->cell_capacity) {
        mir_tlog_total *more = realloc(rollup->cells, cells * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        rollup->cells = more;
        rollup->cell_capacity = cells;
    }
    if (cells > before) memset(rollup->cells + before, 0, (cells - before) * sizeof *rollup->cells);
    rollup->row_count = count;
    return MIR_OK;
}

/* More columns, of which the rows that are there have nothing. */
static mir_status cells_widen(mir_tlog_rollup *rollup, uint32_t column_count)
{
    const uint32_t before = rollup->column_count;
    const size_t cells = (size_t)rollup->row_count * column_count;
    if (column_count == before) return MIR_OK;
    if (cells > rollup->cell_capacity) {
        mir_tlog_total *more = realloc(rollup->cells, cells * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        rollup->cells = more;
        rollup->cell_capacity = cells;
    }
    for (uint32_t row = rollup->row_count; row > 0; row--) {
        mir_tlog_total *to = rollup->cells + (size_t)(row - 1) * column_count;
        memmove(to, rollup->cells + (size_t)(row - 1) * before, before * sizeof *to);
        memset(to + before, 0, (column_count - before) * sizeof *to);
    }
    rollup->column_count = column_count;
    return MIR_OK;
}

/* A counter that falls began again from nothing. */
static double increase_of(mir_column_type type, uint64_t before, uint64_t after)
{
    const double from = mir_tlog_number_of(type, before);
    const double to = mir_tlog_number_of(type, after);
    return to >= from ? to - from : to > 0 ? to : 0;
}

static void sum_add(mir_tlog_total *total, mir_column_type type, uint64_t bits)
{
    if (type == MIR_COLUMN_F64) total->sum_f64 += mir_tlog_double_of(bits);
    if (type == MIR_COLUMN_I64) total->sum += (int64_t)bits;
    if (type == MIR_COLUMN_U64) total->sum += bits;
}

static void range_add(mir_tlog_total *total, mir_column_type type, uint64_t low, uint64_t high)
{
    if (!total->ordered || mir_tlog_less(type, low, total->low)) total->low = low;
    if (!total->ordered || mir_tlog_less(type, total->high, high)) total->high = high;
    total->ordered = true;
}

static void value_add(mir_tlog_total *total, mir_column_type type, int64_t time_ns, uint64_t bits,
                      const mir_view *text)
{
    if (type == MIR_COLUMN_STRING) {
        bits = (uint64_t)(uintptr_t)text->data;
        total->high = text->size;
        if (total->count == 0) total->low = text->size;
    } else if (mir_tlog_is_number(type)) {
        sum_add(total, type, bits);
        const bool nan =
            type == MIR_COLUMN_F64 && mir_tlog_double_of(bits) != mir_tlog_double_of(bits);
        if (!nan) range_add(total, type, bits, bits);
        if (total->count > 0) total->increase += increase_of(type, total->last, bits);
    }
    if (total->count++ == 0) {
        total->first = bits;
        total->first_ns = time_ns;
    }
    total->last = bits;
    total->last_ns = time_ns;
}

/* The columns of rows that are new get numbers, and all of theirs go to `numbers`. */
static mir_status columns_take(mir_tlog_rollup *rollup, const mir_tlog_gather *rows,
                               uint32_t *numbers)
{
    uint32_t count = rollup->column_count;
    for (uint32_t c = 0; c < rows->column_count; c++) {
        const mir_tlog_gather_column *from = &rows->columns[c];
        const mir_column column = {(const char *)from->name.data, (uint32_t)from->name.size,
                                   from->type};
        const mir_status status = column_number(rollup, &column, &numbers[c]);
        if (status != MIR_OK) return status;
        if (numbers[c] == count) rollup->columns[count++] = column;
    }
    return cells_widen(rollup, count);
}

static void column_take(mir_tlog_rollup *rollup, uint32_t number, int64_t step_ns, uint32_t first,
                        const mir_tlog_gather *rows, const mir_tlog_gather_column *from)
{
    uint32_t at = first;
    for (uint32_t i = 0; i < rows->row_count; i++) {
        if (from->present[i] == 0) continue;
        const int64_t time_ns = mir_tlog_rollup_floor(rows->times[i], step_ns);
        while (rollup->times[at] != time_ns) at++;
        const mir_view *text =
            from->type == MIR_COLUMN_STRING ? &rows->texts[from->values[i]] : NULL;
        value_add(&rollup->cells[(size_t)at * rollup->column_count + number], from->type,
                  rows->times[i], from->values[i], text);
    }
}

mir_status mir_tlog_rollup_take(mir_tlog_rollup *rollup, uint32_t step, const mir_tlog_gather *rows)
{
    const int64_t step_ns = mir_tlog_rollup_step_ns[step];
    const uint32_t before = rollup->row_count;
    uint32_t count = before;
    int64_t last_ns = before > 0 ? rollup->times[before - 1] : 0;
    for (uint32_t i = 0; i < rows->row_count; i++) {
        const int64_t time_ns = mir_tlog_rollup_floor(rows->times[i], step_ns);
        if (count == 0 || time_ns != last_ns) count++;
        last_ns = time_ns;
    }
    uint32_t *numbers = malloc((rows->column_count + (size_t)1) * sizeof *numbers);
    if (numbers == NULL) return MIR_E_NO_MEMORY;
    mir_status status = columns_room(rollup, rollup->column_count + rows->column_count);
    if (status == MIR_OK) status = columns_take(rollup, rows, numbers);
    if (status == MIR_OK) status = rows_room(rollup, count);
    uint32_t at = before;
    for (uint32_t i = 0; i < rows->row_count && status == MIR_OK; i++) {
        const int64_t time_ns = mir_tlog_rollup_floor(rows->times[i], step_ns);
        if (at == 0 || time_ns != rollup->times[at - 1]) rollup->times[at++] = time_ns;
    }
    for (uint32_t c = 0; c < rows->column_count && status == MIR_OK; c++) {
        column_take(rollup, numbers[c], step_ns, before > 0 ? before - 1 : 0, rows,
                    &rows->columns[c]);
    }
    free(numbers);
    return status;
}

static mir_status text_keep(mir_arena *arena, uint64_t *address, uint64_t size)
{
    uint8_t *to = mir_arena_alloc(arena, size + 1);
    if (to == NULL) return MIR_E_NO_MEMORY;
    if (size > 0) memcpy(to, (const void *)(uintptr_t)*address, size);
    *address = (uint64_t)(uintptr_t)to;
    return MIR_OK;
}

mir_status mir_tlog_rollup_keep_texts(mir_tlog_rollup *rollup)
{
    /* All anew: so there is never more than what counts. */
    mir_arena texts = {0};
    mir_status status = MIR_OK;
    for (uint32_t c = 0; c < rollup->column_count; c++) {
        if (rollup->columns[c].type != MIR_COLUMN_STRING) continue;
        for (uint32_t row = 0; row < rollup->row_count && status == MIR_OK; row++) {
            mir_tlog_total *cell = &rollup->cells[(size_t)row * rollup->column_count + c];
            if (cell->count == 0) continue;
            status = text_keep(&texts, &cell->first, cell->low);
            if (status == MIR_OK) status = text_keep(&texts, &cell->last, cell->high);
        }
    }
    mir_arena_free(&rollup->texts);
    rollup->texts = texts;
    return status;
}

/* ---- As rows ---- */

/* Times that all columns of a row have in common are stored once, as parts of this one. */
static const mir_column common = {"", 0, (mir_column_type)0};

static mir_status part_set(mir_tlog_gather *to, const mir_column *column, part which,
                           mir_column_type type, uint32_t row, uint64_t bits, uint32_t *numbers)
{
    const uint32_t slot = (uint32_t)(strchr(parts, which) - parts);
    if (numbers[slot] == 0) {
        char *name = mir_arena_alloc(&to->arena, column->name_size + SUFFIX_BYTES);
        if (name == NULL) return MIR_E_NO_MEMORY;
        if (column->name_size > 0) memcpy(name, column->name, column->name_size);
        name[column->name_size] = MIR_TLOG_ROLLUP_MARK;
        name[column->name_size + 1] = (char)which;
        name[column->name_size + 2] = (char)('0' + (int)column->type);
        uint32_t number;
        const mir_status status = mir_tlog_gather_column_of(
            to, mir_view_of(name, column->name_size + SUFFIX_BYTES), type, &number);
        if (status != MIR_OK) return status;
        numbers[slot] = number + 1;
    }
    mir_tlog_gather_column *stored = &to->columns[numbers[slot] - 1];
    stored->values[row] = bits;
    stored->present[row] = 1;
    return MIR_OK;
}

static mir_status text_set(mir_tlog_gather *to, const mir_column *column, part which, uint32_t row,
                           uint64_t address, uint64_t size, uint32_t *numbers)
{
    const mir_status status = mir_tlog_gather_texts_room(to, 1);
    if (status != MIR_OK) return status;
    to->texts[to->text_count] = mir_view_of((const void *)(uintptr_t)address, size);
    return part_set(to, column, which, MIR_COLUMN_STRING, row, to->text_count++, numbers);
}

/* Of a single value only the value. */
static mir_status cell_encode(const mir_column *column, const mir_tlog_total *cell, int64_t time_ns,
                              bool whole, mir_tlog_gather *to, uint32_t row, uint32_t *numbers,
                              const mir_tlog_total *shared)
{
    const bool more = whole || cell->count > 1;
    const mir_column_type type = column->type;
    mir_status status = part_set(to, column, PART_COUNT, MIR_COLUMN_I64, row, cell->count, numbers);
    const bool own =
        whole || cell->first_ns != shared->first_ns || cell->last_ns != shared->last_ns;
    if (status == MIR_OK && own) {
        status = part_set(to, column, PART_FIRST_NS, MIR_COLUMN_I64, row,
                          (uint64_t)cell->first_ns - (uint64_t)time_ns, numbers);
    }
    if (status == MIR_OK && own && more) {
        status = part_set(to, column, PART_LAST_NS, MIR_COLUMN_I64, row,
                          (uint64_t)cell->last_ns - (uint64_t)time_ns, numbers);
    }
    if (status != MIR_OK) return status;
    if (type == MIR_COLUMN_STRING) {
        status = text_set(to, column, PART_FIRST, row, cell->first, cell->low, numbers);
        if (status != MIR_OK || !more) return status;
        return text_set(to, column, PART_LAST, row, cell->last, cell->high, numbers);
    }
    status = part_set(to, column, PART_FIRST, type, row, cell->first, numbers);
    if (status == MIR_OK && more) {
        status = part_set(to, column, PART_LAST, type, row, cell->last, numbers);
    }
    if (status != MIR_OK || !more || !mir_tlog_is_number(type)) return status;
    if (cell->ordered) {
        status = part_set(to, column, PART_LOW, type, row, cell->low, numbers);
        if (status == MIR_OK) {
            status = part_set(to, column, PART_HIGH, type, row, cell->high, numbers);
        }
    }
    if (status != MIR_OK) return status;
    const double straight =
        mir_tlog_number_of(type, cell->last) - mir_tlog_number_of(type, cell->first);
    if (type == MIR_COLUMN_F64) {
        status =
            part_set(to, column, PART_SUM, type, row, mir_tlog_bits_of(cell->sum_f64), numbers);
    } else {
        const int64_t half = (int64_t)cell->sum;
        status = part_set(to, column, PART_SUM, MIR_COLUMN_I64, row, (uint64_t)half, numbers);
        if (status == MIR_OK && (whole || half != cell->sum)) {
            status = part_set(to, column, PART_SUM_HIGH, MIR_COLUMN_I64, row,
                              (uint64_t)(cell->sum >> 64), numbers);
        }
    }
    /* What was uncertain once stays so: an earlier row does not have it where this one has not. */
    if (status == MIR_OK && cell->uncertain) {
        status = part_set(to, column, PART_UNCERTAIN, MIR_COLUMN_I64, row, 1, numbers);
    }
    if (status != MIR_OK || (!whole && cell->increase == straight)) return status;
    return part_set(to, column, PART_INCREASE, MIR_COLUMN_F64, row,
                    mir_tlog_bits_of(cell->increase), numbers);
}

/* The cell whose times are those of its row. */
static const mir_tlog_total *shared_of(const mir_tlog_rollup *rollup, uint32_t row)
{
    const mir_tlog_total *cells = &rollup->cells[(size_t)row * rollup->column_count];
    uint32_t c = 0;
    while (c < rollup->column_count && cells[c].count == 0) c++;
    return c == rollup->column_count ? NULL : &cells[c];
}

static mir_status shared_encode(const mir_tlog_rollup *rollup, mir_tlog_gather *stored)
{
    uint32_t numbers[PARTS] = {0};
    mir_status status = MIR_OK;
    for (uint32_t row = 0; row < rollup->row_count && status == MIR_OK; row++) {
        const mir_tlog_total *cell = shared_of(rollup, row);
        if (cell == NULL) continue;
        const uint64_t time_ns = (uint64_t)rollup->times[row];
        status = part_set(stored, &common, PART_FIRST_NS, MIR_COLUMN_I64, row,
                          (uint64_t)cell->first_ns - time_ns, numbers);
        if (status != MIR_OK || cell->last_ns == cell->first_ns) continue;
        status = part_set(stored, &common, PART_LAST_NS, MIR_COLUMN_I64, row,
                          (uint64_t)cell->last_ns - time_ns, numbers);
    }
    return status;
}

mir_status mir_tlog_rollup_encode(const mir_tlog_rollup *rollup, bool whole,
                                  mir_tlog_gather *stored)
{
    mir_tlog_gather_reset(stored);
    mir_status status = mir_tlog_gather_room(stored, rollup->row_count);
    /* The times of an earlier row may be those of columns that this one does not have. */
    if (status == MIR_OK && !whole) status = shared_encode(rollup, stored);
    for (uint32_t c = 0; c < rollup->column_count && status == MIR_OK; c++) {
        uint32_t numbers[PARTS] = {0};
        for (uint32_t row = 0; row < rollup->row_count && status == MIR_OK; row++) {
            const mir_tlog_total *cell = &rollup->cells[(size_t)row * rollup->column_count + c];
            if (cell->count == 0) continue;
            status = cell_encode(&rollup->columns[c], cell, rollup->times[row], whole, stored, row,
                                 numbers, shared_of(rollup, row));
        }
    }
    if (status != MIR_OK) return status;
    memcpy(stored->times, rollup->times, rollup->row_count * sizeof *rollup->times);
    stored->row_count = rollup->row_count;
    return MIR_OK;
}

/* A stored column's name, taken apart. */
static bool part_of(mir_view name, mir_column *column, uint32_t *which)
{
    if (name.size < SUFFIX_BYTES || name.data[name.size - 3] != MIR_TLOG_ROLLUP_MARK) return false;
    const char letter = (char)name.data[name.size - 2];
    const char *found = letter == '\0' ? NULL : strchr(parts, letter);
    const int type = name.data[name.size - 1] - '0';
    const bool shared = type == 0 && name.size == SUFFIX_BYTES;
    if (found == NULL || type > (int)MIR_COLUMN_STRING || (type < (int)MIR_COLUMN_I64 && !shared)) {
        return false;
    }
    *column =
        (mir_column){(const char *)name.data, name.size - SUFFIX_BYTES, (mir_column_type)type};
    *which = (uint32_t)(found - parts);
    return true;
}

bool mir_tlog_rollup_column_of(const mir_column *stored, mir_column *column)
{
    uint32_t which;
    return part_of(mir_tlog_column_name(stored), column, &which) && column->type != common.type;
}

typedef struct stored_parts {
    const mir_tlog_gather *from;
    const mir_tlog_gather_column *of[PARTS];
    const struct stored_parts *shared; /* what all columns have in common; may be null */
} stored_parts;

static bool part_get(const stored_parts *p, part which, mir_column_type type, uint32_t row,
                     uint64_t *bits)
{
    const mir_tlog_gather_column *column = p->of[strchr(parts, which) - parts];
    if (column == NULL || column->type != type || column->present[row] == 0) return false;
    *bits = column->values[row];
    return true;
}

static bool ends_decode(const stored_parts *p, mir_column_type type, uint32_t row,
                        mir_tlog_total *cell)
{
    uint64_t bits;
    if (!part_get(p, PART_FIRST, type, row, &bits)) return false;
    cell->first = cell->last = bits;
    const bool has_last = part_get(p, PART_LAST, type, row, &bits);
    if (has_last) cell->last = bits;
    if (type == MIR_COLUMN_STRING) {
        const mir_view first = p->from->texts[cell->first];
        const mir_view last = p->from->texts[cell->last];
        cell->first = (uint64_t)(uintptr_t)first.data;
        cell->last = (uint64_t)(uintptr_t)last.data;
        cell->low = first.size;
        cell->high = last.size;
    }
    return has_last || cell->count == 1;
}

/* As many values come to no more than as many of the largest. */
static bool sum_fits(const mir_tlog_total *cell)
{
    const __int128 most = (__int128)cell->count << 64;
    return cell->sum <= most && cell->sum >= -most;
}

static void cell_decode(const stored_parts *p, mir_column_type type, uint32_t step, int64_t time_ns,
                        uint32_t row, mir_tlog_total *to)
{
    mir_tlog_total cell = {0};
    uint64_t bits;
    if (!part_get(p, PART_COUNT, MIR_COLUMN_I64, row, &cell.count) || cell.count == 0) return;
    const stored_parts *times = p;
    if (!part_get(times, PART_FIRST_NS, MIR_COLUMN_I64, row, &bits)) {
        times = p->shared;
        if (times == NULL || !part_get(times, PART_FIRST_NS, MIR_COLUMN_I64, row, &bits)) return;
    }
    const uint64_t step_ns = (uint64_t)mir_tlog_rollup_step_ns[step];
    uint64_t last = bits;
    /* A row for each nanosecond at most: then sums have room, too. */
    if (bits >= step_ns || cell.count > step_ns) return;
    (void)part_get(times, PART_LAST_NS, MIR_COLUMN_I64, row, &last);
    if (last >= step_ns || last < bits || time_ns > INT64_MAX - (int64_t)step_ns) return;
    cell.first_ns = time_ns + (int64_t)bits;
    cell.last_ns = time_ns + (int64_t)last;
    if (!ends_decode(p, type, row, &cell)) return;
    if (!mir_tlog_is_number(type)) {
        *to = cell;
        return;
    }
    if (part_get(p, PART_LOW, type, row, &cell.low) &&
        part_get(p, PART_HIGH, type, row, &cell.high)) {
        cell.ordered = true;
    } else if (cell.count == 1 && (type != MIR_COLUMN_F64 || mir_tlog_double_of(cell.first) ==
                                                                 mir_tlog_double_of(cell.first))) {
        cell.low = cell.high = cell.first;
        cell.ordered = true;
    }
    if (part_get(p, PART_SUM, type == MIR_COLUMN_F64 ? type : MIR_COLUMN_I64, row, &bits)) {
        uint64_t high;
        if (type == MIR_COLUMN_F64) {
            cell.sum_f64 = mir_tlog_double_of(bits);
        } else {
            cell.sum = (int64_t)bits;
        }
        if (type != MIR_COLUMN_F64 && part_get(p, PART_SUM_HIGH, MIR_COLUMN_I64, row, &high)) {
            cell.sum = (__int128)(((unsigned __int128)high << 64) | bits);
        }
        if (type != MIR_COLUMN_F64 && !sum_fits(&cell)) return;
    } else if (cell.count == 1) {
        sum_add(&cell, type, cell.first);
    } else {
        return;
    }
    /* Of one value there is none, even if it is infinite. */
    if (cell.count > 1)
        cell.increase = mir_tlog_number_of(type, cell.last) - mir_tlog_number_of(type, cell.first);
    if (part_get(p, PART_INCREASE, MIR_COLUMN_F64, row, &bits))
        cell.increase = mir_tlog_double_of(bits);
    cell.uncertain = part_get(p, PART_UNCERTAIN, MIR_COLUMN_I64, row, &bits) && bits != 0;
    *to = cell;
}

mir_status mir_tlog_rollup_decode(mir_tlog_rollup *rollup, uint32_t step,
                                  const mir_tlog_gather *stored, uint32_t first, uint32_t count)
{
    if (count > stored->row_count - first) count = stored->row_count - first;
    mir_tlog_rollup_clear(rollup);
    stored_parts shared = {.from = stored};
    stored_parts *found = calloc(stored->column_count + (size_t)1, sizeof *found);
    mir_status status =
        found == NULL ? MIR_E_NO_MEMORY : columns_room(rollup, stored->column_count);
    if (status == MIR_OK) {
        for (uint32_t i = 0; i < stored->column_count && status == MIR_OK; i++) {
            mir_column column;
            uint32_t which;
            if (!part_of(stored->columns[i].name, &column, &which)) continue;
            if (column.type == common.type) {
                shared.of[which] = &stored->columns[i];
                continue;
            }
            uint32_t c;
            status = column_number(rollup, &column, &c);
            if (status != MIR_OK) break;
            if (c == rollup->column_count) {
                rollup->columns[rollup->column_count++] = column;
                found[c].from = stored;
                found[c].shared = &shared;
            }
            found[c].of[which] = &stored->columns[i];
        }
        if (status == MIR_OK) status = rows_room(rollup, count);
    }
    for (uint32_t c = 0; c < rollup->column_count && status == MIR_OK; c++) {
        for (uint32_t row = 0; row < rollup->row_count; row++) {
            cell_decode(&found[c], rollup->columns[c].type, step, stored->times[first + row],
                        first + row, &rollup->cells[(size_t)row * rollup->column_count + c]);
        }
    }
    if (status == MIR_OK && count > 0) {
        memcpy(rollup->times, stored->times + first, count * sizeof *rollup->times);
    }
    free(found);
    return status;
}

static void cell_add(mir_tlog_total *to, mir_column_type type, const mir_tlog_total *from)
{
    /* Exact where one of them ends before the other begins. */
    if (mir_tlog_is_number(type)) {
        const bool before = from->last_ns < to->first_ns;
        const bool after = to->last_ns < from->first_ns;
        const double between = before  ? increase_of(type, from->last, to->first)
                               : after ? increase_of(type, to->last, from->first)
                                       : 0;
        to->uncertain = to->uncertain || from->uncertain || !(before || after);
        to->increase += from->increase + between;
        to->sum = (__int128)((unsigned __int128)to->sum + (unsigned __int128)from->sum);
        to->sum_f64 += from->sum_f64;
        if (from->ordered) range_add(to, type, from->low, from->high);
    }
    if (from->first_ns < to->first_ns) {
        to->first_ns = from->first_ns;
        to->first = from->first;
        if (type == MIR_COLUMN_STRING) to->low = from->low;
    }
    if (from->last_ns > to->last_ns) {
        to->last_ns = from->last_ns;
        to->last = from->last;
        if (type == MIR_COLUMN_STRING) to->high = from->high;
    }
    to->count += from->count;
}

/* Where the stored columns are in a table; from its count on: nowhere. Freed by the caller. */
static mir_status columns_match(mir_tlog_rollup *rollup, const mir_tlog_rollup *stored,
                                uint32_t **numbers)
{
    *numbers = malloc((stored->column_count + (size_t)1) * sizeof **numbers);
    mir_status status = *numbers == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    for (uint32_t s = 0; s < stored->column_count && status == MIR_OK; s++) {
        status = column_number(rollup, &stored->columns[s], &(*numbers)[s]);
    }
    return status;
}

mir_status mir_tlog_rollup_add(mir_tlog_rollup *rollup, const mir_tlog_rollup *stored, bool *any)
{
    *any = false;
    uint32_t *to_column;
    const mir_status status = columns_match(rollup, stored, &to_column);
    uint32_t a = 0;
    for (uint32_t b = 0; b < stored->row_count && status == MIR_OK; b++) {
        while (a < rollup->row_count && rollup->times[a] < stored->times[b]) a++;
        if (a == rollup->row_count) break;
        if (rollup->times[a] != stored->times[b]) continue;
        *any = true;
        for (uint32_t s = 0; s < stored->column_count; s++) {
            const uint32_t c = to_column[s];
            if (c >= rollup->column_count) continue;
            const mir_tlog_total *from = &stored->cells[(size_t)b * stored->column_count + s];
            mir_tlog_total *to = &rollup->cells[(size_t)a * rollup->column_count + c];
            if (from->count == 0 || to->count == 0) continue;
            cell_add(to, rollup->columns[c].type, from);
        }
    }
    free(to_column);
    return status;
}

static bool same_text(uint64_t a, uint64_t a_size, uint64_t b, uint64_t b_size)
{
    return mir_view_eq(mir_view_of((const void *)(uintptr_t)a, a_size),
                       mir_view_of((const void *)(uintptr_t)b, b_size));
}

/* A sum depends on the order in which it was added up. */
static bool same_sum(double a, double b)
{
    if (a != a || b != b) return a != a && b != b;
    return a == b || fabs(a - b) <= SAME_SUM * (fabs(a) + fabs(b));
}

static bool same_cell(mir_column_type type, const mir_tlog_total *a, const mir_tlog_total *b)
{
    if (a->count != b->count || a->first_ns != b->first_ns || a->last_ns != b->last_ns) {
        return false;
    }
    if (type == MIR_COLUMN_STRING) {
        return same_text(a->first, a->low, b->first, b->low) &&
               same_text(a->last, a->high, b->last, b->high);
    }
    const bool ends = a->first == b->first && a->last == b->last;
    const bool range =
        a->ordered == b->ordered &&
        (!a->ordered ||
         (!mir_tlog_less(type, a->low, b->low) && !mir_tlog_less(type, b->low, a->low) &&
          !mir_tlog_less(type, a->high, b->high) && !mir_tlog_less(type, b->high, a->high)));
    return ends && range && a->sum == b->sum && same_sum(a->sum_f64, b->sum_f64);
}

mir_status mir_tlog_rollup_compare(mir_tlog_rollup *made, mir_tlog_rollup *stored)
{
    uint32_t *of_column;
    const size_t cells = (size_t)stored->row_count * stored->column_count;
    free(stored->repeated);
    stored->repeated = calloc(cells + 1, sizeof *stored->repeated);
    if (stored->repeated == NULL) return MIR_E_NO_MEMORY;
    const mir_status status = columns_match(made, stored, &of_column);
    uint32_t a = 0;
    for (uint32_t b = 0; b < stored->row_count && status == MIR_OK; b++) {
        while (a < made->row_count && made->times[a] < stored->times[b]) a++;
        if (a == made->row_count) break;
        if (made->times[a] != stored->times[b]) continue;
        for (uint32_t s = 0; s < stored->column_count; s++) {
            const uint32_t c = of_column[s];
            if (c >= made->column_count) continue;
            const size_t at = (size_t)b * stored->column_count + s;
            const mir_tlog_total *now = &made->cells[(size_t)a * made->column_count + c];
            stored->repeated[at] = stored->cells[at].count > 0 &&
                                   same_cell(made->columns[c].type, now, &stored->cells[at]);
        }
    }
    free(of_column);
    return status;
}

static bool column_drop(const mir_tlog_rollup *stored, uint32_t s, int64_t step_ns,
                        const mir_tlog_gather *rows, const mir_tlog_gather_column *from)
{
    bool any = false;
    uint32_t b = 0;
    for (uint32_t i = 0; i < rows->row_count; i++) {
        if (from->present[i] == 0) continue;
        const int64_t time_ns = mir_tlog_rollup_floor(rows->times[i], step_ns);
        while (b < stored->row_count && stored->times[b] < time_ns) b++;
        if (b == stored->row_count) break;
        const size_t at = (size_t)b * stored->column_count + s;
        const mir_tlog_total *then = &stored->cells[at];
        if (stored->times[b] != time_ns || then->count == 0) continue;
        const bool all = stored->repeated != NULL && stored->repeated[at] != 0;
        if (!all && rows->times[i] != then->first_ns && rows->times[i] != then->last_ns) continue;
        from->present[i] = 0;
        any = true;
    }
    return any;
}

mir_status mir_tlog_rollup_drop_repeated(mir_tlog_rollup *stored, uint32_t step,
                                         mir_tlog_gather *rows, bool *any)
{
    *any = false;
    for (uint32_t c = 0; c < rows->column_count; c++) {
        const mir_tlog_gather_column *from = &rows->columns[c];
        const mir_column column = {(const char *)from->name.data, (uint32_t)from->name.size,
                                   from->type};
        uint32_t s;
        const mir_status status = column_number(stored, &column, &s);
        if (status != MIR_OK) return status;
        if (s >= stored->column_count) continue;
        if (column_drop(stored, s, mir_tlog_rollup_step_ns[step], rows, from)) *any = true;
    }
    return MIR_OK;
}
