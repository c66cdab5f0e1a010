/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_cli_blocks.h"

enum { ROWS = 3 };

typedef struct taker {
    const mir_cli_row_cell *cells;
    int64_t times[ROWS];
    int64_t ints[ROWS];
    bool there[ROWS];
    uint32_t rows;
    uint32_t rows_max;
} taker;

static mir_status take(void *context, int64_t time_ns, mir_error *error)
{
    taker *to = context;
    if (to->rows == to->rows_max) return mir_error_set(error, MIR_E_IO, "enough");
    to->times[to->rows] = time_ns;
    to->there[to->rows] = to->cells[1].present;
    if (to->cells[1].present) to->ints[to->rows] = to->cells[1].value.i64;
    to->rows++;
    return MIR_OK;
}

static mir_status read(size_t values, size_t present_bytes, bool sparse, taker *to)
{
    int64_t times[ROWS] = {10, 5, -20};
    int64_t ints[ROWS] = {-1, INT64_MAX, 7};
    uint8_t bits[1] = {5};
    MirApi__V1__TelemetryBlock__Column column = MIR_API__V1__TELEMETRY_BLOCK__COLUMN__INIT;
    MirApi__V1__TelemetryBlock__Column *columns[1] = {&column};
    MirApi__V1__TelemetryBlock block = MIR_API__V1__TELEMETRY_BLOCK__INIT;
    mir_cli_row_cell cells[2] = {{.type = MIR_COLUMN_BOOL}, {.type = MIR_COLUMN_I64}};
    const size_t places[1] = {1};
    size_t next[1];
    mir_error error = {{0}};
    column.ints = ints;
    column.n_ints = values;
    column.has_present = sparse;
    column.present.data = bits;
    column.present.len = present_bytes;
    block.columns = columns;
    block.n_columns = 1;
    block.times = times;
    block.n_times = ROWS;
    to->cells = cells;
    const mir_status status = mir_cli_blocks_rows(&block, cells, places, next, take, to, &error);
    assert_int_equal(status == MIR_OK, error.text[0] == '\0');
    return status;
}

static void rows_have_their_times_and_values(void **state)
{
    (void)state;
    taker got = {.rows_max = ROWS};
    assert_int_equal(read(ROWS, 0, false, &got), MIR_OK);
    assert_int_equal(got.rows, ROWS);
    const int64_t times[ROWS] = {10, 15, -5};
    const int64_t ints[ROWS] = {-1, INT64_MAX, 7};
    assert_memory_equal(got.times, times, sizeof times);
    assert_memory_equal(got.ints, ints, sizeof ints);
    got = (taker){.rows_max = ROWS};
    assert_int_equal(read(2, 1, true, &got), MIR_OK);
    assert_true(got.there[0] && !got.there[1] && got.there[2]);
    assert_int_equal(got.ints[2], INT64_MAX);
    /* Bits that are not there are rows without a value. */
    got = (taker){.rows_max = ROWS};
    assert_int_equal(read(0, 0, true, &got), MIR_OK);
    assert_false(got.there[0] || got.there[1] || got.there[2]);
}

static void fewer_values_than_rows_are_an_error(void **state)
{
    (void)state;
    taker got = {.rows_max = ROWS};
    assert_int_equal(read(2, 0, false, &got), MIR_E_CORRUPT);
    got = (taker){.rows_max = ROWS};
    assert_int_equal(read(1, 1, true, &got), MIR_E_CORRUPT);
    got = (taker){.rows_max = 1};
    assert_int_equal(read(ROWS, 0, false, &got), MIR_E_IO);
    assert_int_equal(got.rows, 1);
}

static void types_of_later_servers_are_none(void **state)
{
    (void)state;
    assert_int_equal(mir_cli_blocks_type(MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING),
                     MIR_COLUMN_STRING);
    assert_int_equal(mir_cli_blocks_type((MirApi__V1__DataType)12345), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rows_have_their_times_and_values),
        cmocka_unit_test(fewer_values_than_rows_are_an_error),
        cmocka_unit_test(types_of_later_servers_are_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
