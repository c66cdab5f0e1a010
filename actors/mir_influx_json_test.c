/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influx_json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_json_text.h"

static const mir_view columns[] = {MIR_VIEW_LITERAL("time"), MIR_VIEW_LITERAL("v")};

static void expect(mir_influx_json *json, const char *wanted)
{
    mir_bytes_u8(&json->bytes, 0);
    assert_string_equal((const char *)json->bytes.data, wanted);
    mir_bytes_free(&json->bytes);
}

static void values_keep_their_types(void **state)
{
    (void)state;
    mir_influx_json json = {.bytes_max = 1 << 20};
    const int64_t time_ns = -1;
    const mir_influx_value values[] = {
        {0},
        {.type = MIR_COLUMN_I64, .i64 = INT64_MIN},
        {.type = MIR_COLUMN_U64, .u64 = UINT64_MAX},
        {.type = MIR_COLUMN_F64, .f64 = NAN},
        {.type = MIR_COLUMN_F64, .f64 = -INFINITY},
        {.type = MIR_COLUMN_F64, .f64 = 0.1},
        {.type = MIR_COLUMN_BOOL, .boolean = false},
        mir_influx_text(MIR_VIEW_LITERAL("a\"\n\xff")),
        mir_influx_text((mir_view){NULL, 0}),
    };
    mir_influx_json_begin(&json, 3);
    mir_influx_json_series(&json, MIR_VIEW_LITERAL("m"), NULL, NULL, 0, columns, 2);
    assert_int_equal(mir_influx_json_row(&json, &time_ns, values, 9), MIR_OK);
    mir_influx_json_series_end(&json);
    mir_influx_json_end(&json, NULL);
    mir_influx_json_finish(&json);
    expect(&json, "{\"results\":[{\"statement_id\":3,\"series\":[{\"name\":\"m\",\"columns\":["
                  "\"time\",\"v\"],\"values\":[[\"1969-12-31T23:59:59.999999999Z\",null,"
                  "-9223372036854775808,18446744073709551615,null,null,0.1,false,"
                  "\"a\\\"\\n\xef\xbf\xbd\",\"\"]]}]}]}\n");
}

/* Whatever is written faster is written the same. */
static void numbers_are_as_short_as_they_can_be(void **state)
{
    (void)state;
    mir_influx_json json = {.bytes_max = 1 << 20, .epoch_ns = 1};
    mir_bytes wanted = {0};
    uint64_t random = 88172645463325252u;
    const double special[] = {
        0,      -0.0,     0.1,     -0.1,   1e15,  -1e15, 999999999999999, 1e-6,
        1e-7,   -1.5e-6,  1e300,   5e-324, 0.3,   2.5,   123456.789012,   1e21,
        -1e-10, 0.000001, 1234567, 100,    -1000, 1e14,  0x1p53,          1e22};
    mir_influx_json_begin(&json, 0);
    mir_influx_json_series(&json, (mir_view){NULL, 0}, NULL, NULL, 0, columns, 1);
    for (unsigned i = 0; i < 20000; i++) {
        random ^= random << 13;
        random ^= random >> 7;
        random ^= random << 17;
        double value = special[i % (sizeof special / sizeof special[0])];
        if (i % 4 == 1) value = (double)(int64_t)(random >> 20) / (double)(1 << (i / 4 % 24));
        if (i % 4 == 2) value = (double)(int64_t)(random % 2000000) / 1000 - 1000;
        if (i % 4 == 3) memcpy(&value, &random, sizeof value);
        const mir_influx_value cell = {.type = MIR_COLUMN_F64, .f64 = value};
        json.bytes.size = 0;
        json.rows = 0;
        assert_int_equal(mir_influx_json_row(&json, NULL, &cell, 1), MIR_OK);
        wanted.size = 0;
        mir_bytes_u8(&wanted, '[');
        if (isfinite(value))
            mir_json_put_number(&wanted, value, false);
        else
            mir_bytes_text(&wanted, "null");
        mir_bytes_u8(&wanted, ']');
        if (!mir_view_eq(mir_bytes_as_view(&wanted), mir_bytes_as_view(&json.bytes)))
            fail_msg("%.*s is written %.*s", (int)wanted.size, wanted.data, (int)json.bytes.size,
                     json.bytes.data);
    }
    mir_bytes_free(&json.bytes);
    mir_bytes_free(&wanted);
}

static void write_one(mir_influx_json *json, uint32_t statement, const char *warning)
{
    const int64_t time_ns = 5;
    const mir_influx_value value = {.type = MIR_COLUMN_BOOL, .boolean = true};
    mir_influx_json_begin(json, statement);
    mir_influx_json_series(json, (mir_view){NULL, 0}, columns, columns, 1, columns, 2);
    assert_int_equal(mir_influx_json_row(json, &time_ns, &value, 1), MIR_OK);
    mir_influx_json_series_end(json);
    mir_influx_json_end(json, warning);
}

#define ONE                                                                                        \
    "\"series\":[{\"tags\":{\"time\":\"time\"},\"columns\":[\"time\",\"v\"],\"values\":[[5,true]]" \
    "}]"

static void an_incomplete_result_says_so(void **state)
{
    (void)state;
    mir_influx_json json = {.bytes_max = 1 << 20, .epoch_ns = 1};
    write_one(&json, 0, "some \"was\" lost");
    write_one(&json, 1, NULL);
    mir_influx_json_finish(&json);
    expect(&json, "{\"results\":[{\"statement_id\":0," ONE
                  ",\"partial\":true,\"messages\":[{\"level\":\"warning\",\"text\":\"some "
                  "\\\"was\\\" lost\"}]},{\"statement_id\":1," ONE "}]}\n");
    json = (mir_influx_json){.bytes_max = 1 << 20, .epoch_ns = 1, .chunk_rows = 10};
    mir_influx_json_begin(&json, 0);
    mir_influx_json_end(&json, "lost");
    mir_influx_json_finish(&json);
    expect(&json, "{\"results\":[{\"statement_id\":0,\"partial\":true,\"messages\":[{\"level\":"
                  "\"warning\",\"text\":\"lost\"}]}]}\n");
}

static void an_error_takes_the_place_of_what_was_written(void **state)
{
    (void)state;
    for (uint64_t chunk_rows = 0; chunk_rows < 2; chunk_rows++) {
        mir_influx_json json = {.bytes_max = 40, .epoch_ns = 1, .chunk_rows = chunk_rows};
        const int64_t time_ns = 7;
        const mir_influx_value value = {.type = MIR_COLUMN_I64, .i64 = 1};
        mir_influx_json_begin(&json, 0);
        mir_influx_json_series(&json, MIR_VIEW_LITERAL("m"), NULL, NULL, 0, columns, 2);
        assert_int_equal(mir_influx_json_row(&json, &time_ns, &value, 1), MIR_E_TOO_LARGE);
        assert_int_equal(mir_influx_json_row(&json, &time_ns, &value, 1), MIR_E_TOO_LARGE);
        mir_influx_json_fail(&json, "too large");
        mir_influx_json_begin(&json, 1);
        mir_influx_json_end(&json, NULL);
        mir_influx_json_finish(&json);
        expect(&json, chunk_rows == 0
                          ? "{\"results\":[{\"statement_id\":0,\"error\":\"too large\"},{"
                            "\"statement_id\":1}]}\n"
                          : "{\"results\":[{\"statement_id\":0,\"error\":\"too large\"}]}\n"
                            "{\"results\":[{\"statement_id\":1}]}\n");
    }
}

static void texts_are_left_alone_by_line_breaks(void **state)
{
    (void)state;
    mir_bytes pretty = {0};
    assert_int_equal(mir_influx_json_indent(
                         MIR_VIEW_LITERAL("{\"a\":\"{[,:]}\\\"\",\"b\":[],\"c\":{}}\n"), &pretty),
                     MIR_OK);
    mir_bytes_u8(&pretty, 0);
    assert_string_equal((const char *)pretty.data,
                        "{\n    \"a\": \"{[,:]}\\\"\",\n    \"b\": [],\n    \"c\": {}\n}\n");
    mir_bytes_free(&pretty);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(values_keep_their_types),
        cmocka_unit_test(numbers_are_as_short_as_they_can_be),
        cmocka_unit_test(an_incomplete_result_says_so),
        cmocka_unit_test(an_error_takes_the_place_of_what_was_written),
        cmocka_unit_test(texts_are_left_alone_by_line_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
