/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>

#include <cmocka.h>

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_pb.h"
#include "mir_tlm_table.h"

typedef MirApi__V1__QueryTelemetry__Row row;
typedef MirApi__V1__QueryTelemetry__Row__DataPoint point;

enum { TIMES_MAX = 8, COLUMNS = 6 };

static const mir_column columns[COLUMNS] = {
    {"a_bool", 6, MIR_COLUMN_BOOL}, {"b_double", 8, MIR_COLUMN_F64},
    {"c_int", 5, MIR_COLUMN_I64},   {"d_text", 6, MIR_COLUMN_STRING},
    {"d_text", 6, MIR_COLUMN_U64},  {"e_uint", 6, MIR_COLUMN_U64},
};

static const mir_view devices[] = {
    {(const uint8_t *)"first", 5},
    {(const uint8_t *)"second", 6},
};

static const char *unit_by_name(void *context, uint32_t device, mir_view field)
{
    *(uint32_t *)context = device;
    return mir_view_eq_cstr(field, "b_double") ? "m/s" : NULL;
}

static void feed(mir_tlm_table *table, const mir_tlog_batch *batch, mir_status expected)
{
    mir_tlog_sink sink = mir_tlm_table_sink(table);
    assert_int_equal(sink.columns(sink.context, columns, batch->column_count), MIR_OK);
    assert_int_equal(sink.rows(sink.context, batch), expected);
}

/* Reads with protobuf-c and, before, with our checker, which is as strict as other readers. */
static MirApi__V1__QueryTelemetry *read_back(mir_tlm_table *table, mir_arena *arena)
{
    mir_view packed = {0};
    assert_int_equal(mir_tlm_table_end(table, &(mir_tlog_query_info){0}, &packed), MIR_OK);
    MirApi__V1__QueryTelemetryResponse *response;
    mir_error error = {{0}};
    if (mir_pb_unpack(&mir_api__v1__query_telemetry_response__descriptor, packed, arena, &response,
                      &error) != MIR_OK) {
        fail_msg("%s", error.text);
    }
    assert_int_equal(response->response_case, MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK);
    /* It is also written as protobuf-c would write it. */
    mir_bytes again = {0};
    mir_pb_pack(&response->base, &again);
    assert_int_equal(again.size, packed.size);
    assert_memory_equal(again.data, packed.data, packed.size);
    mir_bytes_free(&again);
    return response->ok;
}

static void test_head_and_cells(void **state)
{
    (void)state;
    const int64_t times[] = {INT64_C(1700000000123456789), -1, 0};
    const uint32_t owners[] = {1, 0, 1};
    mir_cell cells[3 * COLUMNS] = {
        {.boolean = false}, {.f64 = -0.1},
        {.i64 = INT64_MIN}, {.string = MIR_VIEW_LITERAL("gr\xc3\xbc\xc3\x9f")},
        {.u64 = 0},         {.u64 = UINT64_MAX},
        {.boolean = true},  {.f64 = INFINITY},
        {.i64 = 0},         {.string = {0}},
        {.u64 = 300},       {.u64 = 0},
    };
    uint8_t present[3 * COLUMNS] = {1, 1, 1, 1, 0, 1, 1, 1, 1, 1, 1, 1, 0, 0, 0, 0, 0, 0};
    uint32_t unit_device = 99;
    mir_tlm_table table = {
        .device_ids = devices, .unit = unit_by_name, .unit_context = &unit_device};
    feed(&table,
         &(mir_tlog_batch){.row_count = 3,
                           .column_count = COLUMNS,
                           .times_ns = times,
                           .devices = owners,
                           .cells = cells,
                           .present = present},
         MIR_OK);
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(unit_device, 1);

    const char *headers[] = {"_time", "__id",   "a_bool", "b_double",
                             "c_int", "d_text", "d_text", "e_uint"};
    const char *units[] = {"RFC3339", "", "", "m/s", "", "", "", ""};
    const MirApi__V1__DataType types[] = {
        MIR_API__V1__DATA_TYPE__DATA_TYPE_TIMESTAMP, MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_BOOL,      MIR_API__V1__DATA_TYPE__DATA_TYPE_DOUBLE,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_INT64,     MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING,
        MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64,    MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64};
    assert_int_equal(got->n_headers, 8);
    assert_int_equal(got->n_units, 8);
    assert_int_equal(got->n_datatypes, 8);
    for (size_t i = 0; i < 8; i++) {
        assert_string_equal(got->headers[i], headers[i]);
        assert_string_equal(got->units[i], units[i]);
        assert_int_equal(got->datatypes[i], types[i]);
    }
    assert_int_equal(got->n_rows, 3);
    for (size_t i = 0; i < 3; i++) {
        assert_int_equal(got->rows[i]->n_datapoints, 8);
        MirApi__V1__Timestamp *time = got->rows[i]->datapoints[0]->value_timestamp;
        assert_int_equal(time->seconds * 1000000000 + time->nanos, times[i]);
        assert_true(time->nanos >= 0);
        assert_string_equal(got->rows[i]->datapoints[1]->value_string,
                            (const char *)devices[owners[i]].data);
    }
    point **p = got->rows[0]->datapoints + 2;
    assert_true(p[0]->has_value_bool && !p[0]->value_bool);
    assert_true(p[1]->has_value_double && p[1]->value_double == -0.1);
    assert_true(p[2]->has_value_int64 && p[2]->value_int64 == INT64_MIN);
    assert_string_equal(p[3]->value_string, "gr\xc3\xbc\xc3\x9f");
    assert_int_equal(protobuf_c_message_get_packed_size(&p[4]->base), 0);
    assert_true(p[5]->has_value_uint64 && p[5]->value_uint64 == UINT64_MAX);
    p = got->rows[1]->datapoints + 2;
    assert_true(p[0]->has_value_bool && p[0]->value_bool);
    assert_true(p[1]->has_value_double && isinf(p[1]->value_double));
    assert_true(p[2]->has_value_int64 && p[2]->value_int64 == 0);
    assert_string_equal(p[3]->value_string, "");
    assert_true(p[4]->has_value_uint64 && p[4]->value_uint64 == 300);
    for (size_t i = 2; i < 8; i++) {
        point *empty = got->rows[2]->datapoints[i];
        assert_int_equal(protobuf_c_message_get_packed_size(&empty->base), 0);
    }
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

static void test_nothing_is_ok_without_anything(void **state)
{
    (void)state;
    mir_tlm_table table = {.device_ids = devices};
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(got->n_headers + got->n_units + got->n_datatypes + got->n_rows, 0);
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

/* One column of texts of the given size: lengths of rows cross one, two and three bytes. */
static void test_rows_of_every_length(void **state)
{
    (void)state;
    static char long_text[20000];
    memset(long_text, 'x', sizeof long_text);
    const size_t sizes[] = {1, 90, 100, 127, 128, 1, 16250, 16300, 16384, 20000, 3, 0};
    enum { COUNT = sizeof sizes / sizeof *sizes };
    const mir_column text = {"text", 4, MIR_COLUMN_STRING};
    mir_tlm_table table = {.device_ids = devices};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, &text, 1), MIR_OK);
    for (size_t i = 0; i < COUNT; i++) {
        const int64_t time = 1700000000000000000;
        const uint32_t owner = 0;
        const uint8_t present = 1;
        mir_cell cell = {.string = mir_view_of(long_text, sizes[i])};
        mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
        assert_int_equal(sink.rows(sink.context, &batch), MIR_OK);
    }
    mir_arena arena = {0};
    MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
    assert_int_equal(got->n_rows, COUNT);
    for (size_t i = 0; i < COUNT; i++)
        assert_int_equal(strlen(got->rows[i]->datapoints[2]->value_string), sizes[i]);
    mir_arena_free(&arena);
    mir_tlm_table_free(&table);
}

static void test_text_that_is_no_text(void **state)
{
    (void)state;
#define R "\xef\xbf\xbd"
    static const struct {
        mir_view stored;
        const char *answered;
    } cases[] = {
        {MIR_VIEW_LITERAL("\xff"), R},
        {MIR_VIEW_LITERAL("a\0b"), "a" R "b"},
        {MIR_VIEW_LITERAL("\xc3"), R},
        {MIR_VIEW_LITERAL("\xc3\xa9\xc3"), "\xc3\xa9" R},
        {MIR_VIEW_LITERAL("\xed\xa0\x80"), R R R}, /* a surrogate */
        {MIR_VIEW_LITERAL("\xc0\xaf"), R R},       /* overlong */
        {MIR_VIEW_LITERAL("\xf0\x9f\x98\x80!\xf0\x9f"), "\xf0\x9f\x98\x80!" R R},
    };
    const mir_column text = {"text\xfe", 5, MIR_COLUMN_STRING};
    for (size_t i = 0; i < sizeof cases / sizeof *cases; i++) {
        mir_tlm_table table = {.device_ids = devices};
        mir_tlog_sink sink = mir_tlm_table_sink(&table);
        assert_int_equal(sink.columns(sink.context, &text, 1), MIR_OK);
        const int64_t time = 5;
        const uint32_t owner = 1;
        const uint8_t present = 1;
        mir_cell cell = {.string = cases[i].stored};
        mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
        assert_int_equal(sink.rows(sink.context, &batch), MIR_OK);
        mir_arena arena = {0};
        MirApi__V1__QueryTelemetry *got = read_back(&table, &arena);
        assert_string_equal(got->headers[2], "text" R);
        assert_string_equal(got->rows[0]->datapoints[2]->value_string, cases[i].answered);
        mir_arena_free(&arena);
        mir_tlm_table_free(&table);
    }
#undef R
}

static void test_more_than_a_message_may_have(void **state)
{
    (void)state;
    const mir_column number = {"n", 1, MIR_COLUMN_I64};
    mir_tlm_table table = {.device_ids = devices, .bytes_max = 1000};
    mir_tlog_sink sink = mir_tlm_table_sink(&table);
    assert_int_equal(sink.columns(sink.context, &number, 1), MIR_OK);
    const int64_t time = 1700000000000000000;
    const uint32_t owner = 0;
    const uint8_t present = 1;
    mir_cell cell = {.i64 = 1};
    mir_tlog_batch batch = {1, 1, &time, &owner, &cell, &present};
    size_t rows = 0;
    while (sink.rows(sink.context, &batch) == MIR_OK) rows++;
    assert_int_equal(sink.rows(sink.context, &batch), MIR_E_TOO_LARGE);
    assert_in_range(rows, 20, 60);
    assert_in_range(table.bytes.size, 1000, 1100);
    mir_tlm_table_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_head_and_cells),
        cmocka_unit_test(test_nothing_is_ok_without_anything),
        cmocka_unit_test(test_rows_of_every_length),
        cmocka_unit_test(test_text_that_is_no_text),
        cmocka_unit_test(test_more_than_a_message_may_have),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
