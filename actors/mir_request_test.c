/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that nobody waits for any more, and those that wait for a worker while the server stops. */
#include "mir_hub_testing.h"

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_request.h"

static const char *const services[] = {
    "core.v1alpha.create",   "core.v1alpha.creates",  "core.v1alpha.update", "core.v1alpha.delete",
    "core.v1alpha.list",     "core.v1alpha.schema",   "cmd.v1alpha.queue",   "cmd.v1alpha.cancel",
    "cmd.v1alpha.list",      "cmd.v1alpha.send",      "cfg.v1alpha.list",    "cfg.v1alpha.send",
    "tlm.v1alpha.list",      "tlm.v1alpha.query",     "sys.v1alpha.status",  "evt.v1alpha.list",
    "evt.v1alpha.delete",    "evt.v1alpha.retention", "evt.v1alpha.verify",  "evt.v1alpha.history",
    "tlm.v1alpha.retention",
};

enum { SERVICES = sizeof services / sizeof services[0] };

/* Nothing of them is begun: each is told so, whatever it asks for. */
static void a_stop_refuses_what_has_not_begun(void **state)
{
    (void)state;
    open_world(3);
    gate first = {0};
    gate_submit(&first);
    gate_await(&first);
    for (size_t i = 0; i < SERVICES; i++) {
        char line[128];
        (void)snprintf(line, sizeof line, "PUB client.t.%s _INBOX.test 0\r\n\r\n", services[i]);
        /* Those of the other pool are not held by the gate. */
        if (i == 0) atomic_store(&w->hub->stopping, true);
        say_text(line);
        turn();
    }
    (void)sem_post(&first.open);
    (void)most_in_a_turn(answers, SERVICES);
    assert_int_equal(answers(), SERVICES);
    assert_int_equal(heard("the server is stopping"), SERVICES);
    close_world();
}

static void say_query(void)
{
    MirApi__V1__QueryTelemetryRequest query = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    char *ids[] = {(char *)(uintptr_t) "d0"};
    target.ids = ids;
    target.n_ids = 1;
    query.targets = &target;
    query.measurement = (char *)(uintptr_t) "Sample";
    uint8_t body[128];
    size_t size = mir_api__v1__query_telemetry_request__pack(&query, body);
    char text[256];
    int head =
        snprintf(text, sizeof text, "PUB client.t.tlm.v1alpha.query _INBOX.test %zu\r\n", size);
    memcpy(text + head, body, size);
    memcpy(text + head + size, "\r\n", 2);
    say(text, (size_t)head + size + 2);
}

static void say_both(void)
{
    say_text("PUB client.t.evt.v1alpha.verify _INBOX.test 0\r\n\r\n");
    say_query();
}

/* Whoever asked for a proof or for telemetry has gone before it was begun, so that it ends where it
 * would look for that first. */
static void what_nobody_waits_for_ends(void **state)
{
    (void)state;
    open_world(2);
    say_both();
    (void)most_in_a_turn(answers, 2);
    assert_int_equal(heard("nobody waited"), 0);
    forget();
    gate gates[2] = {0};
    for (int i = 0; i < 2; i++) {
        gate_submit_to(w->hub->queries, &gates[i]);
        gate_await(&gates[i]);
    }
    say_both();
    turn();
    mir_actors *actors = mir_actors_of(w->shards[0]);
    assert_non_null(actors->watched);
    /* As long as somebody is there it is not given up. */
    int64_t until_ns = mir_clock_mono_ns() + MIR_NS_PER_S;
    while (mir_clock_mono_ns() < until_ns) turn();
    assert_non_null(actors->watched);
    say_text("UNSUB 1\r\n");
    until_ns = mir_clock_mono_ns() + PATIENCE_S * MIR_NS_PER_S;
    while (actors->watched != NULL && mir_clock_mono_ns() < until_ns) turn();
    assert_null(actors->watched);
    say_text("SUB _INBOX.test 1\r\n"); /* to hear what became of them */
    turn();
    for (int i = 0; i < 2; i++) (void)sem_post(&gates[i].open);
    (void)most_in_a_turn(answers, 2);
    assert_int_equal(heard("nobody waited for the answer"), 2);
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_nobody_waits_for_ends),
        cmocka_unit_test(a_stop_refuses_what_has_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
