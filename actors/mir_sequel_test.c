/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_hub_testing.h"

#include "mir_sequel.h"

/* What the one connection, which is subscribed to _INBOX.test, has heard: one letter for each number. */
static unsigned done_count;

static void done(mir_shard *shard, mir_sequel *sequel)
{
    (void)shard;
    assert_int_equal(sequel->letters.count, 0);
    *(unsigned *)sequel->context = ++done_count;
}

typedef struct said {
    mir_sequel sequel;
    unsigned done_as; /* 0: not yet */
} said;

static void make(said *of, unsigned number, unsigned count)
{
    *of = (said){.sequel = {.done = done}};
    of->sequel.context = &of->done_as;
    for (unsigned i = 0; i < count; i++) {
        char text[32];
        int size = snprintf(text, sizeof text, "<%u.%u>", number, i);
        mir_letters_add(&of->sequel.letters, MIR_VIEW_LITERAL("_INBOX.test"), (mir_view){0},
                        (mir_view){0}, mir_view_of(text, (size_t)size));
    }
}

static size_t all_heard(void)
{
    return heard("<");
}

/* Where in what was heard, or fails. */
static size_t place_of(unsigned number, unsigned letter)
{
    char text[32];
    int size = snprintf(text, sizeof text, "<%u.%u>", number, letter);
    const char *at = memmem(w->out, w->out_size, text, (size_t)size);
    if (at == NULL) fail_msg("%s was not heard", text);
    return (size_t)(at - w->out);
}

static void test_places_are_kept_whoever_is_ready_first(void **state)
{
    (void)state;
    open_world(1);
    done_count = 0;
    said first, second, third, answer;
    make(&first, 1, 3);
    make(&second, 2, 2);
    make(&third, 3, 1);
    make(&answer, 4, 1);
    mir_sequel_place(w->hub, &first.sequel);
    mir_sequel_place(w->hub, &second.sequel);
    mir_sequel_tell(w->hub, &second.sequel);
    turn();
    mir_sequel_tell(w->hub, &answer.sequel); /* without a place: behind the two */
    turn();
    mir_sequel_place(w->hub, &third.sequel);
    mir_sequel_tell(w->hub, &third.sequel);
    turn();
    assert_int_equal(all_heard(), 0);
    assert_int_equal(done_count, 0);
    mir_sequel_tell(w->hub, &first.sequel);
    (void)most_in_a_turn(all_heard, 7);
    assert_true(place_of(1, 0) < place_of(1, 2));
    assert_true(place_of(1, 2) < place_of(2, 0));
    assert_true(place_of(2, 1) < place_of(4, 0));
    assert_true(place_of(4, 0) < place_of(3, 0));
    assert_int_equal(first.done_as, 1);
    assert_int_equal(second.done_as, 2);
    assert_int_equal(answer.done_as, 3);
    assert_int_equal(third.done_as, 4);
    close_world();
}

static void test_many_letters_take_several_turns(void **state)
{
    (void)state;
    open_world(1);
    done_count = 0;
    enum { COUNT = 5 * MIR_SEQUEL_LETTERS_TURN + 7 };
    said many, next;
    make(&many, 1, COUNT);
    make(&next, 2, 2);
    mir_sequel_place(w->hub, &many.sequel);
    mir_sequel_place(w->hub, &next.sequel);
    mir_sequel_tell(w->hub, &next.sequel);
    mir_sequel_tell(w->hub, &many.sequel);
    assert_int_equal(most_in_a_turn(all_heard, COUNT + 2), MIR_SEQUEL_LETTERS_TURN);
    assert_int_equal(many.done_as, 1);
    assert_true(place_of(1, COUNT - 1) < place_of(2, 0));
    for (unsigned i = 1; i < COUNT; i += 100) assert_true(place_of(1, i - 1) < place_of(1, i));
    close_world();
}

/* A stop finds sequels of which some were told and some were not. */
static void test_a_stop_ends_what_waits(void **state)
{
    (void)state;
    open_world(1);
    done_count = 0;
    said first, second;
    make(&first, 1, 2);
    make(&second, 2, 2);
    mir_sequel_place(w->hub, &first.sequel);
    mir_sequel_place(w->hub, &second.sequel);
    mir_sequel_tell(w->hub, &second.sequel);
    turn();
    w->shards[0]->stopping = true;
    mir_sequel_tell(w->hub, &first.sequel);
    mir_shard_drain(w->shards[0]);
    assert_int_equal(first.done_as, 1);
    assert_int_equal(second.done_as, 2);
    assert_int_equal(all_heard(), 0);
    w->shards[0]->stopping = false;
    close_world();
}

/* Events of a request and its reply: the events first, in the order of their numbers. */
static void test_changes_are_told_before_the_reply(void **state)
{
    (void)state;
    open_world(2);
    say_text("SUB event.> 2\r\n");
    turn();
    MirApi__V1__DeleteDeviceRequest input = MIR_API__V1__DELETE_DEVICE_REQUEST__INIT;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    char *ids[] = {(char *)(uintptr_t) "d0", (char *)(uintptr_t) "d1"};
    target.ids = ids;
    target.n_ids = 2;
    input.targets = &target;
    uint8_t body[128];
    char text[256];
    size_t size = mir_api__v1__delete_device_request__pack(&input, body);
    int head =
        snprintf(text, sizeof text, "PUB client.t.core.v1alpha.delete _INBOX.test %zu\r\n", size);
    memcpy(text + head, body, size);
    memcpy(text + head + size, "\r\n", 2);
    say(text, (size_t)head + size + 2);
    await_answer();
    assert_int_equal(heard("MSG event."), 2);
    assert_int_equal(heard("mir-event-sequence"), 2);
    const char *reply = memmem(w->out, w->out_size, "MSG _INBOX.test ", 16);
    assert_null(memmem(reply, w->out_size - (size_t)(reply - w->out), "MSG event.", 10));
    close_world();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_places_are_kept_whoever_is_ready_first),
        cmocka_unit_test(test_many_letters_take_several_turns),
        cmocka_unit_test(test_a_stop_ends_what_waits),
        cmocka_unit_test(test_changes_are_told_before_the_reply),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
