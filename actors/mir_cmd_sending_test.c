/* SPDX-License-Identifier: Apache-2.0 */
/* Commands to many devices, turn by turn. Nobody looks at the time that something takes: what is
 * counted is how much of it happens in one turn. */
#include "mir_hub_testing.h"

#include "mir_cmd_sending.h"
#include "mir_state_internal.h"

enum { DEVICES = 1500, STORED_DEVICES = MIR_CMD_STORED_AT_ONCE + 200 };

typedef struct options {
    bool raw, queue, dry_run, stream;
} options;

static void command_all(options how)
{
    char name_space[] = "default", name[] = "t.v1.Open", *spaces[] = {name_space};
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    target.n_namespaces = 1;
    target.namespaces = spaces;
    MirApi__V1__SendCommandRequest request = MIR_API__V1__SEND_COMMAND_REQUEST__INIT;
    request.targets = &target;
    request.name = name;
    request.has_payload_encoding = request.has_payload = 1;
    request.payload_encoding =
        how.raw ? MIR_API__V1__ENCODING__ENCODING_PROTOBUF : MIR_API__V1__ENCODING__ENCODING_JSON;
    if (!how.raw) request.payload = (ProtobufCBinaryData){2, (uint8_t *)(uintptr_t) "{}"};
    request.has_no_validation = request.no_validation = how.raw;
    request.has_queue = request.queue = how.queue;
    request.has_dry_run = request.dry_run = how.dry_run;
    request.has_stream = request.stream = how.stream;
    char body[256];
    size_t size = protobuf_c_message_get_packed_size(&request.base);
    assert_true(size < 128);
    int head = snprintf(body, 128, "PUB client.t.cmd.v1alpha.send _INBOX.test %zu\r\n", size);
    (void)protobuf_c_message_pack(&request.base, (uint8_t *)body + head);
    memcpy(body + head + size, "\r\n", 2);
    say(body, (size_t)head + size + 2);
}

static void cancel_all(void)
{
    char name_space[] = "default", *spaces[] = {name_space};
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    target.n_namespaces = 1;
    target.namespaces = spaces;
    MirApi__V1__CancelQueuedCommandsRequest request =
        MIR_API__V1__CANCEL_QUEUED_COMMANDS_REQUEST__INIT;
    request.targets = &target;
    char body[256];
    size_t size = protobuf_c_message_get_packed_size(&request.base);
    assert_true(size < 128);
    int head = snprintf(body, 128, "PUB client.t.cmd.v1alpha.cancel _INBOX.test %zu\r\n", size);
    (void)protobuf_c_message_pack(&request.base, (uint8_t *)body + head);
    memcpy(body + head + size, "\r\n", 2);
    say(body, (size_t)head + size + 2);
}

static size_t twins(void)
{
    return mir_actors_of(w->shards[0])->twins.count;
}

static size_t queues(void)
{
    return mir_actors_of(w->shards[0])->queues.count;
}

static size_t refusals(void)
{
    return heard("ask for results as they come");
}

static size_t events(void)
{
    return heard(".cmd.v1alpha.devicecommand ");
}

/* --- what one turn of a shard does ------------------------------------------------------------ */

static void devices_are_asked_for_their_schema_some_in_a_turn(void **state)
{
    (void)state;
    open_world(DEVICES);
    command_all((options){0});
    assert_in_range(most_in_a_turn(twins, DEVICES), 1, MIR_CMD_SENT_PER_TURN);
    await_answer();
    assert_int_equal(heard("no responders"), DEVICES);
    close_world();
}

static void queues_begin_some_in_a_turn(void **state)
{
    (void)state;
    open_world(STORED_DEVICES);
    command_all((options){.raw = true, .queue = true});
    assert_in_range(most_in_a_turn(queues, STORED_DEVICES), 1, MIR_CMD_SENT_PER_TURN);
    await_answer();
    /* The same after a start. */
    stop_server();
    start_server();
    assert_in_range(most_in_a_turn(queues, STORED_DEVICES), 1, MIR_CMD_SENT_PER_TURN);
    close_world();
}

static void events_go_out_some_in_a_turn_and_before_the_answer(void **state)
{
    (void)state;
    open_world(DEVICES);
    say_text("SUB event.> 2\r\n");
    turn();
    command_all((options){.raw = true});
    assert_in_range(most_in_a_turn(events, DEVICES), 1, 2 * MIR_CMD_SENT_PER_TURN);
    await_answer();
    assert_int_equal(events(), DEVICES);
    const char *last = w->out, *next;
    size_t left = w->out_size;
    while ((next = memmem(last, left, ".devicecommand ", 15)) != NULL) {
        left -= (size_t)(next - last) + 15;
        last = next + 15;
    }
    assert_non_null(memmem(last, left, "MSG _INBOX.test ", 16));
    close_world();
}

/* Each device is in the partial answers once, and they come before the whole one. */
static void partial_answers_tell_of_each_device_once(void **state)
{
    (void)state;
    open_world(DEVICES);
    command_all((options){.raw = true, .stream = true});
    char whole[64];
    (void)snprintf(whole, sizeof whole, "mir-progress: %d/%d\r\n", DEVICES, DEVICES);
    int64_t until_ns = mir_clock_mono_ns() + PATIENCE_S * MIR_NS_PER_S;
    while (heard(whole) == 0 || answers() == heard("mir-stream: partial")) {
        assert_true(mir_clock_mono_ns() < until_ns);
        turn();
    }
    assert_int_equal(answers(), heard("mir-stream: partial") + 1);
    /* As a key of the map, in a partial answer and in the whole. */
    assert_int_equal(heard("/default\x12"), 2 * DEVICES);
    close_world();
}

/* --- what a worker does at once ---------------------------------------------------------------- */

/* Whoever comes behind a command to many devices has its turn before that is done. */
static void a_worker_is_not_held(void **state)
{
    (void)state;
    open_world(DEVICES);
    gate first = {0}, second = {0};
    gate_submit(&first);
    gate_await(&first);
    command_all((options){.raw = true, .dry_run = true});
    turn();
    gate_submit(&second);
    (void)sem_post(&first.open);
    gate_await(&second);
    for (int i = 0; i < 10; i++) turn();
    assert_int_equal(answers(), 0);
    (void)sem_post(&second.open);
    await_answer();
    close_world();
}

/* However small a message may be, and however many devices there are to tell of. */
static void partial_answers_keep_to_the_largest_message(void **state)
{
    (void)state;
    enum { FEW = 400, BYTES_MAX = 16 * 1024 };
    open_world(FEW);
    w->config.limits.max_payload_bytes = BYTES_MAX;
    /* The worker makes a pass between two gates: so all are sent before it takes any answer. */
    gate gates[8] = {0};
    gate_submit(&gates[0]);
    gate_await(&gates[0]);
    command_all((options){.raw = true, .stream = true});
    turn();
    for (int i = 1; i < 8; i++) {
        gate_submit(&gates[i]);
        (void)sem_post(&gates[i - 1].open);
        gate_await(&gates[i]);
    }
    for (int i = 0; i < 5; i++) turn();
    (void)sem_post(&gates[7].open);
    static const char line[] = "HMSG _INBOX.test 1 ";
    size_t messages = 0;
    /* The whole answer has no room: that is what it says. */
    (void)most_in_a_turn(refusals, 1);
    const char *at = w->out, *end = w->out + w->out_size;
    while ((at = memmem(at, (size_t)(end - at), line, sizeof line - 1)) != NULL) {
        char *behind;
        at += sizeof line - 1;
        (void)strtoul(at, &behind, 10);
        assert_in_range(strtoul(behind, NULL, 10), 1, BYTES_MAX);
        messages++;
    }
    assert_in_range(messages, 3, FEW);
    assert_int_equal(heard("/default\x12"), FEW);
    close_world();
}

/* Neither a list of commands nor a cancellation waits for what gives way to everybody else. */
static void who_cancels_does_not_wait_for_queries(void **state)
{
    (void)state;
    open_world(DEVICES);
    command_all((options){.raw = true, .queue = true});
    await_answer();
    forget();
    gate held[2] = {0};
    for (int i = 0; i < 2; i++) {
        gate_submit_to(w->hub->queries, &held[i]);
        gate_await(&held[i]);
    }
    say_text("PUB client.t.cmd.v1alpha.queue _INBOX.test 0\r\n\r\n");
    await_answer();
    assert_in_range(heard("t.v1.Open"), DEVICES, 3 * DEVICES);
    forget();
    cancel_all();
    await_answer();
    assert_in_range(heard("t.v1.Open"), DEVICES, 3 * DEVICES);
    for (int i = 0; i < 2; i++) (void)sem_post(&held[i].open);
    close_world();
}

/* A list looks at a part of them, then others have their turn. */
static void a_worker_is_not_held_by_a_list(void **state)
{
    (void)state;
    open_world(DEVICES);
    command_all((options){.raw = true, .queue = true});
    await_answer();
    while (w->hub->in_flight != 0) turn();
    forget();
    gate first = {0}, second = {0};
    gate_submit(&first);
    gate_await(&first);
    say_text("PUB client.t.cmd.v1alpha.queue _INBOX.test 0\r\n\r\n");
    turn();
    gate_submit(&second);
    (void)sem_post(&first.open);
    gate_await(&second);
    for (int i = 0; i < 10; i++) turn();
    assert_int_equal(answers(), 0);
    (void)sem_post(&second.open);
    await_answer();
    close_world();
}

/* --- what fails on the way --------------------------------------------------------------------- */

/* A part that the store does not take is no reason to leave the next one. */
static void a_store_that_takes_nothing_is_told_of_each_device(void **state)
{
    (void)state;
    open_world(STORED_DEVICES);
    gate held = {0};
    gate_submit(&held);
    gate_await(&held);
    command_all((options){.raw = true, .queue = true});
    turn();
    uint32_t requests_max = w->hub->state->requests_max;
    w->hub->state->requests_max = 0;
    (void)sem_post(&held.open);
    await_answer();
    assert_int_equal(heard("the store is busy: try again"), STORED_DEVICES);
    w->hub->state->requests_max = requests_max;
    close_world();
}

/* --- a stop in the midst ----------------------------------------------------------------------- */

/* Whatever it is at: it ends, and the leak checker finds nothing. */
static void a_stop_ends_what_is_under_way(void **state)
{
    (void)state;
    static const options kinds[] = {
        {.raw = true}, {.raw = true, .stream = true}, {.raw = true, .queue = true}, {.raw = false}};
    for (size_t kind = 0; kind < sizeof kinds / sizeof kinds[0]; kind++) {
        open_world(2 * MIR_CMD_SENT_PER_TURN + 10);
        for (unsigned turns = 1; turns < 40; turns += 13) {
            command_all(kinds[kind]);
            for (unsigned i = 0; i < turns; i++) turn();
            stop_server();
            start_server();
            turn();
        }
        close_world();
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(devices_are_asked_for_their_schema_some_in_a_turn),
        cmocka_unit_test(queues_begin_some_in_a_turn),
        cmocka_unit_test(events_go_out_some_in_a_turn_and_before_the_answer),
        cmocka_unit_test(partial_answers_tell_of_each_device_once),
        cmocka_unit_test(partial_answers_keep_to_the_largest_message),
        cmocka_unit_test(a_worker_is_not_held),
        cmocka_unit_test(who_cancels_does_not_wait_for_queries),
        cmocka_unit_test(a_worker_is_not_held_by_a_list),
        cmocka_unit_test(a_store_that_takes_nothing_is_told_of_each_device),
        cmocka_unit_test(a_stop_ends_what_is_under_way),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
