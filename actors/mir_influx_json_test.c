/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_influx_json.h"

#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

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
        cmocka_unit_test(an_incomplete_result_says_so),
        cmocka_unit_test(an_error_takes_the_place_of_what_was_written),
        cmocka_unit_test(texts_are_left_alone_by_line_breaks),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
