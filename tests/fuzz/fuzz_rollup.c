/* SPDX-License-Identifier: Apache-2.0 */
/* Stored rollups of any bytes: columns of any names, types and values. What can be read of them lies
 * within its step, and is the same when it is written and read again. */
#include <stdint.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_tlog_rollup.h"

enum { ROWS = 8, COLUMN_BYTES = 6 };

typedef struct input {
    const uint8_t *data;
    size_t size;
} input;

static uint8_t take(input *in)
{
    if (in->size == 0) return 0;
    in->size--;
    return *in->data++;
}

static uint64_t take_value(input *in)
{
    /* Small values are what offsets and counts are made of. */
    const uint8_t bytes = take(in) % 9;
    uint64_t value = 0;
    for (uint8_t i = 0; i < bytes; i++) value = value << 8 | take(in);
    return value;
}

/* A letter of a part, or anything else. */
static mir_status column_take(input *in, mir_tlog_gather *rows)
{
    static const char letters[] = "nlhsSfeFEiabc";
    const uint8_t which = take(in);
    char *name = mir_arena_alloc(&rows->arena, COLUMN_BYTES);
    if (name == NULL) return MIR_E_NO_MEMORY;
    size_t size = 0;
    if (which % 4 != 0) name[size++] = (char)('x' + which % 4);
    name[size++] = which == 255 ? 'y' : MIR_TLOG_ROLLUP_MARK;
    name[size++] = letters[take(in) % (sizeof letters - 1)];
    name[size++] = (char)('0' + take(in) % 7);
    const mir_column_type type =
        (mir_column_type)(MIR_COLUMN_I64 + take(in) % (MIR_COLUMN_STRING - MIR_COLUMN_I64 + 1));
    uint32_t number;
    mir_status status = mir_tlog_gather_column_of(rows, mir_view_of(name, size), type, &number);
    for (uint32_t row = 0; row < ROWS && status == MIR_OK; row++) {
        if (take(in) % 4 == 0) continue;
        uint64_t value = take_value(in);
        if (type == MIR_COLUMN_STRING) {
            status = mir_tlog_gather_texts_room(rows, 1);
            if (status != MIR_OK) break;
            rows->texts[rows->text_count] = mir_view_of(name, value % (size + 1));
            value = rows->text_count++;
        } else if (type == MIR_COLUMN_BOOL) {
            value &= 1;
        }
        rows->columns[number].values[row] = value;
        rows->columns[number].present[row] = 1;
    }
    return status;
}

static bool same_bits(double a, double b)
{
    return memcmp(&a, &b, sizeof a) == 0;
}

static void check_cell(const mir_tlog_rollup *from, uint32_t row, uint32_t c, uint32_t step)
{
    const mir_tlog_total *cell = &from->cells[(size_t)row * from->column_count + c];
    if (cell->count == 0) return;
    const int64_t begins = from->times[row];
    MIR_ASSERT(cell->first_ns >= begins && cell->first_ns <= cell->last_ns);
    MIR_ASSERT(cell->last_ns - begins < mir_tlog_rollup_step_ns[step]);
}

static void check_same(const mir_tlog_rollup *a, const mir_tlog_rollup *b)
{
    for (uint32_t row = 0; row < a->row_count; row++) {
        for (uint32_t c = 0; c < a->column_count; c++) {
            const mir_tlog_total *one = &a->cells[(size_t)row * a->column_count + c];
            if (one->count == 0) continue;
            uint32_t at = 0;
            while (at < b->column_count &&
                   mir_tlog_column_compare(&a->columns[c], &b->columns[at]) != 0) {
                at++;
            }
            MIR_ASSERT(at < b->column_count);
            const mir_tlog_total *other = &b->cells[(size_t)row * b->column_count + at];
            MIR_ASSERT(one->count == other->count && one->first_ns == other->first_ns &&
                       one->last_ns == other->last_ns && one->first == other->first &&
                       one->last == other->last && one->low == other->low &&
                       one->high == other->high && one->ordered == other->ordered);
            MIR_ASSERT(one->sum == other->sum && same_bits(one->sum_f64, other->sum_f64) &&
                       same_bits(one->increase, other->increase) &&
                       one->uncertain == other->uncertain);
        }
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    input in = {data, size};
    const uint32_t step = take(&in) % MIR_TLOG_ROLLUPS;
    mir_tlog_gather rows;
    mir_tlog_gather again;
    mir_tlog_gather third;
    mir_tlog_rollup first = {0};
    mir_tlog_rollup second = {0};
    if (mir_tlog_gather_init(&rows) != MIR_OK || mir_tlog_gather_init(&again) != MIR_OK ||
        mir_tlog_gather_init(&third) != MIR_OK)
        abort();
    mir_status status = mir_tlog_gather_room(&rows, ROWS);
    int64_t time_ns = (int64_t)take_value(&in);
    for (uint32_t row = 0; row < ROWS && status == MIR_OK; row++) {
        rows.times[row] = time_ns;
        if (__builtin_add_overflow(time_ns, mir_tlog_rollup_step_ns[step], &time_ns)) {
            status = MIR_E_INVALID;
        }
    }
    while (status == MIR_OK && in.size > 0) status = column_take(&in, &rows);
    if (status == MIR_OK) {
        rows.row_count = ROWS;
        status = mir_tlog_rollup_decode(&first, step, &rows, 0, ROWS);
    }
    for (uint32_t row = 0; status == MIR_OK && row < first.row_count; row++) {
        for (uint32_t c = 0; c < first.column_count; c++) check_cell(&first, row, c, step);
    }
    if (status == MIR_OK) status = mir_tlog_rollup_encode(&first, true, &again);
    if (status == MIR_OK && again.column_count > 0) {
        MIR_ASSERT(mir_tlog_rollup_decode(&second, step, &again, 0, ROWS) == MIR_OK);
        check_same(&first, &second);
        bool any;
        MIR_ASSERT(mir_tlog_rollup_add(&second, &first, &any) == MIR_OK);
        /* Elsewhere: texts are those of the rows that they were read from. */
        (void)!mir_tlog_rollup_encode(&second, false, &third);
    }
    mir_tlog_rollup_free(&first);
    mir_tlog_rollup_free(&second);
    mir_tlog_gather_fini(&rows);
    mir_tlog_gather_fini(&again);
    mir_tlog_gather_fini(&third);
    return 0;
}
