/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

#include "mir_device_properties.h"

static mir_device_time at(const char *text)
{
    mir_device_time time = {0};
    assert_int_equal(mir_device_time_parse(text, &time), MIR_OK);
    return time;
}

static void times(void **state)
{
    (void)state;
    assert_int_equal(at("1970-01-01T00:00:00Z").seconds, 0);
    assert_int_equal(at("2025-01-02T03:04:05.123456789Z").seconds, 1735787045);
    assert_int_equal(at("2025-01-02T03:04:05.123456789Z").nanos, 123456789);
    assert_int_equal(at("2025-01-02T03:04:05.5Z").nanos, 500000000);
    assert_int_equal(at("2025-01-02T05:04:05+02:00").seconds, 1735787045);
    assert_int_equal(at("2025-01-01T22:34:05-04:30").seconds, 1735787045);
    assert_int_equal(at("2000-02-29T00:00:00Z").seconds, 951782400);
    assert_int_equal(at("0001-01-01T00:00:00Z").seconds, INT64_C(-62135596800));
    assert_int_equal(at("9999-12-31T23:59:59Z").seconds, INT64_C(253402300799));
    assert_string_equal(at("2025-01-02T03:04:05.123456789+02:00").text,
                        "2025-01-02T03:04:05.123456789+02:00");
}

static void texts_that_are_no_times(void **state)
{
    (void)state;
    const char *const bad[] = {"",
                               "2025",
                               "2025-01-02",
                               "2025-01-02T03:04:05",
                               "2025-13-02T03:04:05Z",
                               "2025-00-02T03:04:05Z",
                               "2025-01-32T03:04:05Z",
                               "2025-01-02T24:04:05Z",
                               "2025-01-02T03:60:05Z",
                               "2025-01-02T03:04:05.Z",
                               "2025-01-02T03:04:05.1234567890Z",
                               "2025-01-02T03:04:05+0200",
                               "2025-01-02T03:04:05Zjunk",
                               "2025-01-02 03:04:05Z",
                               "1735787045"};
    mir_device_time time;
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(mir_device_time_parse(bad[i], &time), MIR_E_INVALID);
}

static void only_what_is_strictly_later_is_accepted(void **state)
{
    (void)state;
    mir_device_properties table = {0};
    mir_device_time first = {.seconds = 100, .nanos = 5};
    assert_int_equal(mir_device_properties_put(&table, "a.B", first, MIR_VIEW_LITERAL("one")),
                     MIR_OK);
    const mir_device_time refused[] = {{.seconds = 100, .nanos = 5},
                                       {.seconds = 100, .nanos = 4},
                                       {.seconds = 99, .nanos = 999999999},
                                       {.seconds = -5}};
    for (size_t i = 0; i < sizeof refused / sizeof refused[0]; i++)
        assert_int_equal(
            mir_device_properties_put(&table, "a.B", refused[i], MIR_VIEW_LITERAL("old")),
            MIR_E_EXISTS);
    const mir_device_property *item = mir_device_properties_get(&table, "a.B");
    assert_non_null(item);
    assert_memory_equal(item->value.data, "one", 3);
    mir_device_time later = {.seconds = 100, .nanos = 6};
    assert_int_equal(mir_device_properties_put(&table, "a.B", later, (mir_view){NULL, 0}), MIR_OK);
    assert_int_equal(mir_device_properties_get(&table, "a.B")->value.size, 0);
    assert_null(mir_device_properties_get(&table, "a.C"));
    mir_device_properties_free(&table);
}

static void the_table_is_bounded(void **state)
{
    (void)state;
    mir_device_properties table = {0};
    mir_device_time time = {.seconds = 1, .nanos = 0};
    char name[32];
    for (int i = 0; i < MIR_DEVICE_PROPERTIES_MAX; i++) {
        (void)snprintf(name, sizeof name, "a.P%d", i);
        assert_int_equal(mir_device_properties_put(&table, name, time, (mir_view){NULL, 0}),
                         MIR_OK);
    }
    assert_int_equal(mir_device_properties_put(&table, "a.More", time, (mir_view){NULL, 0}),
                     MIR_E_FULL);
    time.seconds = 2; /* a known name still has room */
    assert_int_equal(mir_device_properties_put(&table, "a.P0", time, MIR_VIEW_LITERAL("x")),
                     MIR_OK);
    mir_device_properties_free(&table);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(times),
        cmocka_unit_test(texts_that_are_no_times),
        cmocka_unit_test(only_what_is_strictly_later_is_accepted),
        cmocka_unit_test(the_table_is_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
