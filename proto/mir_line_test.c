/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>

#include <cmocka.h>

#include "mir_line.h"

static void text_is(mir_bytes *out, const char *expected)
{
    mir_bytes_u8(out, 0);
    assert_true(mir_bytes_ok(out));
    assert_string_equal((const char *)out->data, expected);
    mir_bytes_free(out);
}

static void a_line_is_put_together(void **state)
{
    (void)state;
    mir_bytes out = {0};
    const mir_cell numbers[] = {{.i64 = INT64_MIN}, {.u64 = UINT64_MAX}, {.f64 = 0.1}, {.u64 = 7}};
    const mir_cell yes = {.boolean = true};
    const mir_cell text = {.string = MIR_VIEW_LITERAL("a \"b\" \\ ,=\nc")};
    assert_int_equal(mir_line_measurement(mir_view_cstr("m, v.=1"), &out, NULL), MIR_OK);
    assert_int_equal(mir_line_tag(mir_view_cstr("k ,="), mir_view_cstr("v ,=\"é"), &out, NULL),
                     MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("i"), MIR_COLUMN_I64, &numbers[0], true, &out, NULL), MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("u"), MIR_COLUMN_U64, &numbers[1], false, &out, NULL), MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("s u"), MIR_COLUMN_U64, &numbers[3], false, &out, NULL),
        MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("f"), MIR_COLUMN_F64, &numbers[2], false, &out, NULL), MIR_OK);
    assert_int_equal(mir_line_field(mir_view_cstr("b"), MIR_COLUMN_BOOL, &yes, false, &out, NULL),
                     MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("t"), MIR_COLUMN_STRING, &text, false, &out, NULL), MIR_OK);
    mir_line_end(-5, &out);
    text_is(&out, "m\\,\\ v.=1,k\\ \\,\\==v\\ \\,\\=\"é i=-9223372036854775808i,"
                  "u=18446744073709551615u,s\\ u=7i,f=0.1,b=true,"
                  "t=\"a \\\"b\\\" \\\\ ,=\nc\" -5\n");
}

/* VictoriaMetrics takes a quote for the begin of a text, wherever in the fields it stands. */
static void a_quote_in_the_name_of_a_field_begins_no_text(void **state)
{
    (void)state;
    mir_bytes out = {0};
    const mir_cell one = {.i64 = 1};
    assert_int_equal(mir_line_measurement(mir_view_cstr("m\"m"), &out, NULL), MIR_OK);
    assert_int_equal(mir_line_tag(mir_view_cstr("k\""), mir_view_cstr("\"v"), &out, NULL), MIR_OK);
    assert_int_equal(
        mir_line_field(mir_view_cstr("by.\"a"), MIR_COLUMN_I64, &one, true, &out, NULL), MIR_OK);
    mir_line_end(1, &out);
    text_is(&out, "m\"m,k\"=\"v by.\\\"a=1i 1\n");
}

static void what_has_no_form_leaves_nothing_behind(void **state)
{
    (void)state;
    mir_bytes out = {0};
    mir_error error = {{0}};
    const mir_cell value = {.i64 = 1};
    mir_bytes_text(&out, "before");
    static const char *const names[] = {"a\nb", "a\rb", "a\\", "\\"};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const mir_view name = mir_view_cstr(names[i]);
        assert_int_equal(mir_line_measurement(name, &out, &error), MIR_E_UNSUPPORTED);
        assert_non_null(strstr(error.text, "no form"));
        assert_int_equal(mir_line_tag(name, mir_view_cstr("v"), &out, NULL), MIR_E_UNSUPPORTED);
        assert_int_equal(mir_line_tag(mir_view_cstr("k"), name, &out, NULL), MIR_E_UNSUPPORTED);
        assert_int_equal(mir_line_field(name, MIR_COLUMN_I64, &value, true, &out, NULL),
                         MIR_E_UNSUPPORTED);
    }
    assert_int_equal(mir_line_tag(mir_view_cstr("k"), mir_view_cstr(""), &out, NULL),
                     MIR_E_UNSUPPORTED);
    text_is(&out, "before");
}

static void doubles_read_back_the_same(void **state)
{
    (void)state;
    static const struct {
        double value;
        const char *text;
    } cases[] = {{0.1 + 0.2, "0.30000000000000004"},
                 {-0.0, "-0"},
                 {5e-324, "4.94065645841247e-324"},
                 {NAN, "NaN"},
                 {INFINITY, "Infinity"},
                 {-INFINITY, "-Infinity"}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        mir_bytes out = {0};
        mir_line_double(cases[i].value, &out);
        text_is(&out, cases[i].text);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_line_is_put_together),
        cmocka_unit_test(a_quote_in_the_name_of_a_field_begins_no_text),
        cmocka_unit_test(what_has_no_form_leaves_nothing_behind),
        cmocka_unit_test(doubles_read_back_the_same),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
