/* SPDX-License-Identifier: Apache-2.0 */
/* A device without a server; what needs one is in tests/sdk. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_device.h"

/* The schema of the SDK alone, which every device has. */
static mir_device *device_of(const char *id)
{
    mir_device_options options = {.id = id, .target = "nats://127.0.0.1:1"};
    mir_device *device = NULL;
    mir_error error = {{0}};
    if (mir_device_create(&options, &device, &error) != MIR_OK) fail_msg("%s", error.text);
    return device;
}

/* Runs first: what nats.c sets up for a process must be there before a thread sends. */
static void a_device_may_send_as_soon_as_it_is_launched(void **state)
{
    (void)state;
    mir_device *device = device_of("early");
    mir_error error;
    assert_int_equal(mir_device_launch(device, &error), MIR_OK);
    for (int i = 0; i < 100; i++)
        assert_int_equal(mir_device_send_telemetry_raw(device, "mir.device.v1.Void",
                                                       (mir_view){NULL, 0}, &error),
                         MIR_E_UNREACHABLE);
    mir_device_stats stats;
    mir_device_get_stats(device, &stats);
    assert_int_equal(stats.discarded, 100);
    mir_device_destroy(device);
}

static void what_is_not_launched_sends_nothing(void **state)
{
    (void)state;
    mir_device *device = device_of("idle");
    mir_error error;
    assert_int_equal(
        mir_device_send_telemetry_raw(device, "mir.device.v1.Void", (mir_view){NULL, 0}, &error),
        MIR_E_CLOSED);
    assert_int_equal(mir_device_await_ready(device, MIR_NS_PER_S), MIR_E_CLOSED);
    mir_device_close(device);
    assert_int_equal(mir_device_launch(device, &error), MIR_E_EXISTS);
    mir_device_destroy(device);
}

static void all_problems_of_the_options_are_told(void **state)
{
    (void)state;
    mir_device_options options = {.id = "a.b",
                                  .target = "nowhere",
                                  .password = "x",
                                  .heartbeat_ns = 1,
                                  .persistence = MIR_DEVICE_PERSIST_ALWAYS};
    mir_device *device = NULL;
    mir_error error = {{0}};
    assert_int_equal(mir_device_create(&options, &device, &error), MIR_E_INVALID);
    assert_null(device);
    const char *const parts[] = {"device id", "no target", "password needs", "heartbeat",
                                 "persistence"};
    for (size_t i = 0; i < sizeof parts / sizeof parts[0]; i++)
        assert_non_null(strstr(error.text, parts[i]));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_device_may_send_as_soon_as_it_is_launched),
        cmocka_unit_test(what_is_not_launched_sends_nothing),
        cmocka_unit_test(all_problems_of_the_options_are_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
