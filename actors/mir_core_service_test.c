/* SPDX-License-Identifier: Apache-2.0 */
/* Deletions of more devices than go through the store at once. */
#include "mir_hub_testing.h"

#include "mir_api/v1/core.pb-c.h"
#include "mir_core_service.h"

enum { DEVICES = 2 * MIR_CORE_DELETED_AT_ONCE + 452 };

static void say_delete(const char *pattern)
{
    MirApi__V1__DeleteDeviceRequest input = MIR_API__V1__DELETE_DEVICE_REQUEST__INIT;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    char *ids[] = {(char *)(uintptr_t)pattern};
    target.ids = ids;
    target.n_ids = 1;
    input.targets = &target;
    uint8_t body[128];
    char text[256];
    size_t size = mir_api__v1__delete_device_request__pack(&input, body);
    int head =
        snprintf(text, sizeof text, "PUB client.t.core.v1alpha.delete _INBOX.test %zu\r\n", size);
    memcpy(text + head, body, size);
    memcpy(text + head + size, "\r\n", 2);
    say(text, (size_t)head + size + 2);
}

/* The payload of the answer, which is the last that was heard. */
static MirApi__V1__DeleteDeviceResponse *read_answer(void)
{
    const char *at = memmem(w->out, w->out_size, "HMSG _INBOX.test 1 ", 19);
    assert_non_null(at);
    char *end;
    size_t header_size = strtoul(at + 19, &end, 10);
    size_t size = strtoul(end, &end, 10);
    assert_memory_equal(end, "\r\n", 2);
    at = (const char *)memmem(at, 128, "\r\n", 2) + 2;
    assert_true(at + size <= w->out + w->out_size);
    MirApi__V1__DeleteDeviceResponse *response = mir_api__v1__delete_device_response__unpack(
        NULL, size - header_size, (const uint8_t *)at + header_size);
    assert_non_null(response);
    return response;
}

static uint64_t commits(void)
{
    mir_state_stats stats;
    mir_state_stats_get(w->hub->state, &stats);
    return stats.commits;
}

static void a_large_deletion_is_cut(void **state)
{
    (void)state;
    open_world(DEVICES);
    say_text("SUB event.> 2\r\n");
    turn();
    uint64_t before = commits();
    say_delete("*");
    await_answer();
    assert_true(commits() - before >= 3);
    assert_int_equal(heard("MSG event."), DEVICES);
    const char *reply = memmem(w->out, w->out_size, "MSG _INBOX.test ", 16);
    assert_null(memmem(reply, w->out_size - (size_t)(reply - w->out), "MSG event.", 10));
    MirApi__V1__DeleteDeviceResponse *response = read_answer();
    assert_int_equal(response->response_case, MIR_API__V1__DELETE_DEVICE_RESPONSE__RESPONSE_OK);
    assert_int_equal(response->ok->n_devices, DEVICES);
    for (size_t i = 1; i < DEVICES; i++)
        assert_true(strcmp(response->ok->devices[i - 1]->meta->name,
                           response->ok->devices[i]->meta->name) < 0);
    mir_api__v1__delete_device_response__free_unpacked(response, NULL);
    mir_state_stats stats;
    mir_state_stats_get(w->hub->state, &stats);
    assert_int_equal(stats.devices, 0);
    close_world();
}

/* What is asked for while it runs does not wait for its end; and what does not fit into a message is
 * done all the same. */
static void others_have_their_turn(void **state)
{
    (void)state;
    open_world(DEVICES);
    w->config.limits.max_payload_bytes = 64 * 1024;
    say_text("SUB event.> 2\r\n");
    turn();
    say_delete("*");
    int64_t until_ns = mir_clock_mono_ns() + PATIENCE_S * MIR_NS_PER_S;
    while (heard("devicedeleted") == 0 && mir_clock_mono_ns() < until_ns) turn();
    say_text("PUB device.fresh.core.v1alpha.hearthbeat 0\r\n\r\n");
    await_answer();
    while (heard("event.fresh.core.v1alpha.deviceonline") == 0 && mir_clock_mono_ns() < until_ns)
        turn();
    MirApi__V1__DeleteDeviceResponse *response = read_answer();
    assert_int_equal(response->response_case, MIR_API__V1__DELETE_DEVICE_RESPONSE__RESPONSE_ERROR);
    char text[64];
    (void)snprintf(text, sizeof text, "it was done for %d devices, but the answer", DEVICES);
    assert_non_null(strstr(response->error, text));
    mir_api__v1__delete_device_response__free_unpacked(response, NULL);
    mir_state_stats stats;
    mir_state_stats_get(w->hub->state, &stats);
    assert_int_equal(stats.devices, 1);
    close_world();
}

/* The stop waits for one part, and the answer says what was done. */
static void a_stop_ends_it_between_two_parts(void **state)
{
    (void)state;
    open_world(DEVICES);
    gate held = {0};
    say_text("SUB event.> 2\r\n");
    turn();
    gate_submit(&held);
    gate_await(&held);
    say_delete("*");
    turn();
    gate next = {0};
    gate_submit(&next); /* between the first step and the one after the first commit */
    (void)sem_post(&held.open);
    gate_await(&next);
    atomic_store(&w->hub->stopping, true);
    (void)sem_post(&next.open);
    await_answer();
    assert_int_equal(heard("MSG event."), MIR_CORE_DELETED_AT_ONCE);
    assert_int_equal(heard("the server is stopping: 1024 devices are deleted, the others are not"),
                     1);
    mir_state_stats stats;
    mir_state_stats_get(w->hub->state, &stats);
    assert_int_equal(stats.devices, DEVICES - MIR_CORE_DELETED_AT_ONCE);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_large_deletion_is_cut),
        cmocka_unit_test(others_have_their_turn),
        cmocka_unit_test(a_stop_ends_it_between_two_parts),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
