/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_yaml.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static json_t *read_one(const char *text)
{
    json_t *documents = NULL;
    assert_int_equal(mir_cli_yaml_read(mir_view_cstr(text), &documents, NULL), MIR_OK);
    assert_int_equal(json_array_size(documents), 1);
    json_t *value = json_incref(json_array_get(documents, 0));
    json_decref(documents);
    return value;
}

static void scalars_have_the_types_of_the_core_schema(void **state)
{
    (void)state;
    json_t *got =
        read_one("[1, -2, 1.5, 1e3, true, false, null, ~, yes, on, 0x10, 010, 1:30, '1', \"true\", "
                 "2026-01-02, .5, 1_000, 9223372036854775808]");
    json_t *want = json_loads(
        "[1, -2, 1.5, 1000.0, true, false, null, null, \"yes\", \"on\", \"0x10\", \"010\", "
        "\"1:30\", \"1\", \"true\", \"2026-01-02\", 0.5, \"1_000\", \"9223372036854775808\"]",
        0, NULL);
    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
}

static void what_is_written_reads_back_the_same(void **state)
{
    (void)state;
    json_t *want =
        json_loads("{\"a\": [\"yes\", \"null\", \"1\", \"1.5\", \"-\", \"\", \" x \", "
                   "\"a: b\", \"# c\", \"\\u00e9\", \"1:30\","
                   " \"line\\nfeed\", \"tab\\t\", \"'\", \"\\\\\", \"0x1f\", \"=\", \"<<\", "
                   "\"\\u2028\", \"no\", \"2026-01-02\"],"
                   " \"b\": {}, \"c\": [], \"d\": {\"1\": null, \"true\": true, \"f\": "
                   "0.1, \"n\": -7}, \"e\": [[1], {\"x\": []}]}",
                   0, NULL);
    assert_non_null(want);
    mir_bytes text = {0};
    assert_int_equal(mir_cli_yaml_write(want, false, &text), MIR_OK);
    mir_bytes_u8(&text, 0);
    assert_true(mir_bytes_ok(&text));
    json_t *got = read_one((const char *)text.data);
    assert_true(json_equal(got, want));
    json_decref(got);
    json_decref(want);
    mir_bytes_free(&text);
}

static void documents_are_told_apart_and_empty_ones_left_out(void **state)
{
    (void)state;
    json_t *documents = NULL;
    assert_int_equal(
        mir_cli_yaml_read(mir_view_cstr("---\n---\na: 1\n---\n- b\n"), &documents, NULL), MIR_OK);
    assert_int_equal(json_array_size(documents), 2);
    json_decref(documents);
    assert_int_equal(mir_cli_yaml_read(mir_view_of(NULL, 0), &documents, NULL), MIR_OK);
    assert_int_equal(json_array_size(documents), 0);
    json_decref(documents);
}

static void bad_input_is_refused_with_its_line(void **state)
{
    (void)state;
    static const char *const cases[] = {"a: 1\na: 2\n", "a: [\n",    "a: b: c\n",
                                        "? [x]\n: y\n", "a: *b\n",   "a: \"\\0\"\n",
                                        "\xff\xfe\xfd", "a: \xC3(\n"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        json_t *documents = NULL;
        mir_error error = {0};
        assert_int_not_equal(mir_cli_yaml_read(mir_view_cstr(cases[i]), &documents, &error),
                             MIR_OK);
        assert_null(documents);
        assert_non_null(strstr(error.text, "line "));
    }
}

static void depth_is_bounded(void **state)
{
    (void)state;
    char text[2 * 500 + 1];
    memset(text, '[', 500);
    memset(text + 500, ']', 500);
    text[1000] = '\0';
    json_t *documents = NULL;
    mir_error error = {0};
    assert_int_not_equal(mir_cli_yaml_read(mir_view_cstr(text), &documents, &error), MIR_OK);
    assert_non_null(strstr(error.text, "deep"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(scalars_have_the_types_of_the_core_schema),
        cmocka_unit_test(what_is_written_reads_back_the_same),
        cmocka_unit_test(documents_are_told_apart_and_empty_ones_left_out),
        cmocka_unit_test(bad_input_is_refused_with_its_line),
        cmocka_unit_test(depth_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
