/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_when.h"

#include "mir_clock.h"

#include <string.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

static void durations_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {
        {"1ns", 1},
        {"250ms", 250 * MIR_NS_PER_MS},
        {"10s", 10 * MIR_NS_PER_S},
        {"1m", 60 * MIR_NS_PER_S},
        {"1h30m", 5400 * MIR_NS_PER_S},
        {"1.5h", 5400 * MIR_NS_PER_S},
        {"7d", 7 * 86400 * MIR_NS_PER_S},
        {"2w", 14 * 86400 * MIR_NS_PER_S},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t got = 0;
        assert_int_equal(mir_cli_when_duration(cases[i].text, &got, NULL), MIR_OK);
        assert_int_equal(got, cases[i].ns);
    }
}

static void what_is_no_duration_is_refused_with_an_example(void **state)
{
    (void)state;
    static const char *const cases[] = {"",    "10",    "0s",          "-1s",  "s",
                                        "1 m", "1x",    "1e3s",        "0x1s", "1m ",
                                        "inf", "1000y", "9999999999d", ".5s"};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t got = 42;
        mir_error error = {0};
        assert_int_equal(mir_cli_when_duration(cases[i], &got, &error), MIR_E_INVALID);
        assert_int_equal(got, 42);
        assert_non_null(strstr(error.text, "1h30m"));
        bool zero = strcmp(cases[i], "0s") == 0;
        assert_int_equal(strstr(error.text, "is no duration") == NULL, zero);
        assert_int_equal(strstr(error.text, "above zero") != NULL, zero);
    }
}

static void times_are_read(void **state)
{
    (void)state;
    static const struct {
        const char *text;
        int64_t ns;
    } cases[] = {
        {"1970-01-01T00:00:01Z", MIR_NS_PER_S},
        {"2023-11-14T22:13:20.25Z", INT64_C(1700000000250000000)},
        {"2023-11-14T23:13:20+01:00", INT64_C(1700000000000000000)},
        {"2023-11-14", INT64_C(1699920000000000000)},
        {"1700000000", INT64_C(1700000000000000000)},
        {"1700000000.5", INT64_C(1700000000500000000)},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        int64_t got = 0;
        assert_int_equal(mir_cli_when_time(cases[i].text, &got, NULL), MIR_OK);
        assert_int_equal(got, cases[i].ns);
    }
    int64_t ago = 0;
    assert_int_equal(mir_cli_when_time("10m", &ago, NULL), MIR_OK);
    int64_t since_ns = mir_clock_wall_ns() - ago;
    assert_true(since_ns >= 600 * MIR_NS_PER_S && since_ns < 4200 * MIR_NS_PER_S);
    static const char *const bad[] = {
        "", "yesterday", "12:00", "2023-13-01", "1700000000.5x", "17000000000000", "-5"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++) {
        int64_t got = 42;
        assert_int_equal(mir_cli_when_time(bad[i], &got, NULL), MIR_E_INVALID);
        assert_int_equal(got, 42);
    }
}

static void ages_are_short(void **state)
{
    (void)state;
    static const struct {
        int64_t age_s;
        const char *text;
    } cases[] = {{0, "now"},       {12, "12s ago"},    {119, "119s ago"}, {120, "2m ago"},
                 {7200, "2h ago"}, {172800, "2d ago"}, {-5, "in 5s"}};
    int64_t now = INT64_C(1700000000) * MIR_NS_PER_S;
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        char text[32];
        mir_cli_when_age(now - cases[i].age_s * MIR_NS_PER_S, now, text, sizeof text);
        assert_string_equal(text, cases[i].text);
    }
}

static void clocks_have_the_digits_that_were_asked_for(void **state)
{
    (void)state;
    char text[48];
    mir_cli_when_clock(INT64_C(1700000000250000000), false, 0, true, text, sizeof text);
    assert_string_equal(text, "22:13:20");
    mir_cli_when_clock(INT64_C(1700000000250000000), true, 3, true, text, sizeof text);
    assert_string_equal(text, "2023-11-14 22:13:20.250");
    mir_cli_when_clock(-250 * MIR_NS_PER_MS, true, 3, true, text, sizeof text);
    assert_string_equal(text, "1969-12-31 23:59:59.750");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(durations_are_read),
        cmocka_unit_test(what_is_no_duration_is_refused_with_an_example),
        cmocka_unit_test(times_are_read),
        cmocka_unit_test(ages_are_short),
        cmocka_unit_test(clocks_have_the_digits_that_were_asked_for),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
