/* SPDX-License-Identifier: Apache-2.0 */
/* Events for which there is no memory: counted as lost, one by one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

/* The module itself, with a memory that can run out. */
static bool is_out_of_memory;
#define calloc(count, size) (is_out_of_memory ? NULL : (calloc)(count, size))
#include "mir_event_batch.c" /* NOLINT(bugprone-suspicious-include) */
#undef calloc

#include "mir_events.h"

static void is_done(void *context)
{
    ++*(unsigned *)context;
}

static const mir_device_event event = {.device_id = "pump-7",
                                       .name = "pump-7",
                                       .name_space = "plant",
                                       .route = "cmd.v1alpha.devicecommand",
                                       .type = "normal",
                                       .reason = "DeviceCommand",
                                       .text = "Device command executed successfully",
                                       .actor = "server"};

static void a_batch_without_memory_counts_each_event_as_lost(void **state)
{
    (void)state;
    mir_hub hub = {0};
    mir_letters letters = {0};
    is_out_of_memory = true;
    mir_event_batch *batch = mir_event_batch_new(&hub);
    for (int i = 0; i < 3; i++) mir_events_add(&hub, &event, &letters, batch);
    unsigned done = 0;
    mir_event_batch_submit(&hub, batch, is_done, &done);
    is_out_of_memory = false;
    assert_int_equal(hub.events_lost, 3);
    /* They are told of all the same, and whoever waits is not kept waiting. */
    assert_int_equal(letters.count, 3);
    assert_int_equal(done, 1);
    assert_int_equal(hub.in_flight, 0);
    mir_letters_discard(&letters);
}

static void an_event_beyond_the_memory_is_lost_alone(void **state)
{
    (void)state;
    mir_hub hub = {0};
    mir_letters letters = {0};
    mir_event_batch *batch = mir_event_batch_new(&hub);
    for (int i = 0; i <= PART_EVENTS_FIRST; i++) {
        is_out_of_memory = i == PART_EVENTS_FIRST;
        mir_events_add(&hub, &event, &letters, batch);
    }
    is_out_of_memory = false;
    assert_int_equal(hub.events_lost, 1);
    assert_int_equal(batch->first->count, PART_EVENTS_FIRST);
    batch->first->count = 0;
    mir_event_batch_submit(&hub, batch, NULL, NULL);
    assert_int_equal(hub.in_flight, 0);
    mir_letters_discard(&letters);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_without_memory_counts_each_event_as_lost),
        cmocka_unit_test(an_event_beyond_the_memory_is_lost_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
