/* SPDX-License-Identifier: Apache-2.0 */
/* Requests that wait for a worker while the server stops. */
#include "mir_hub_testing.h"

#include "mir_request.h"

static const char *const services[] = {
    "core.v1alpha.create", "core.v1alpha.creates",  "core.v1alpha.update", "core.v1alpha.delete",
    "core.v1alpha.list",   "core.v1alpha.schema",   "cmd.v1alpha.queue",   "cmd.v1alpha.cancel",
    "cmd.v1alpha.list",    "cmd.v1alpha.send",      "cfg.v1alpha.list",    "cfg.v1alpha.send",
    "tlm.v1alpha.list",    "tlm.v1alpha.query",     "sys.v1alpha.status",  "evt.v1alpha.list",
    "evt.v1alpha.delete",  "evt.v1alpha.retention", "evt.v1alpha.verify",  "evt.v1alpha.history",
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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_stop_refuses_what_has_not_begun),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
