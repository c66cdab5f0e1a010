/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mir_tlm_window.h"

static void accepts(const char *literal, uint64_t expected_ns)
{
    uint64_t window_ns = 0;
    mir_error error = {{0}};
    if (mir_tlm_window_parse(mir_view_cstr(literal), &window_ns, &error) != MIR_OK)
        fail_msg("%s: %s", literal, error.text);
    assert_int_equal(window_ns, expected_ns);
}

static void refuses(const char *literal, mir_status expected, const char *why)
{
    uint64_t window_ns = 42;
    mir_error error = {{0}};
    mir_status status = mir_tlm_window_parse(mir_view_cstr(literal), &window_ns, &error);
    if (status != expected) fail_msg("%s: %s", literal, mir_status_name(status));
    assert_int_equal(window_ns, 42);
    if (strstr(error.text, why) == NULL) fail_msg("%s: %s", literal, error.text);
}

static void test_each_unit(void **state)
{
    (void)state;
    accepts("7ns", 7);
    accepts("7us", 7000);
    accepts("7ms", 7000000);
    accepts("10s", UINT64_C(10000000000));
    accepts("1m", UINT64_C(60000000000));
    accepts("6h", UINT64_C(21600000000000));
    accepts("1d", UINT64_C(86400000000000));
    accepts("2w", UINT64_C(1209600000000000));
}

static void test_units_add_up(void **state)
{
    (void)state;
    accepts("1h30m", UINT64_C(5400000000000));
    accepts("1s1ms1us1ns", 1001001001);
    accepts("0h5s", UINT64_C(5000000000));
    accepts("1m1m", UINT64_C(120000000000));
    accepts("9223372036854775807ns", INT64_MAX);
}

static void test_what_is_no_literal(void **state)
{
    (void)state;
    refuses("", MIR_E_INVALID, "empty");
    refuses("10", MIR_E_INVALID, "takes one of the units");
    refuses("s", MIR_E_INVALID, "number is expected");
    refuses("-1s", MIR_E_INVALID, "number is expected");
    refuses(" 1s", MIR_E_INVALID, "number is expected");
    refuses("1s ", MIR_E_INVALID, "number is expected");
    refuses("1.5s", MIR_E_INVALID, "takes one of the units");
    refuses("1S", MIR_E_INVALID, "takes one of the units");
    refuses("1hm", MIR_E_INVALID, "takes one of the units");
    refuses("1sec", MIR_E_INVALID, "takes one of the units");
    refuses("\xff", MIR_E_INVALID, "number is expected");
}

static void test_windows_have_a_fixed_length(void **state)
{
    (void)state;
    refuses("1mo", MIR_E_UNSUPPORTED, "months and years");
    refuses("1y", MIR_E_UNSUPPORTED, "months and years");
    refuses("1d1mo", MIR_E_UNSUPPORTED, "months and years");
}

static void test_bounds(void **state)
{
    (void)state;
    refuses("0s", MIR_E_INVALID, "no length");
    refuses("9223372036854775808ns", MIR_E_INVALID, "292 years");
    refuses("99999999999999999999999s", MIR_E_INVALID, "292 years");
    refuses("9223372036854775807ns1ns", MIR_E_INVALID, "292 years");
    refuses("20000w", MIR_E_INVALID, "292 years");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_each_unit),
        cmocka_unit_test(test_units_add_up),
        cmocka_unit_test(test_what_is_no_literal),
        cmocka_unit_test(test_windows_have_a_fixed_length),
        cmocka_unit_test(test_bounds),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
