/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_sockets.h"

static mir_sockets sockets;

static int setup(void **state)
{
    (void)state;
    memset(&sockets, 0, sizeof sockets);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mir_sockets_free(&sockets);
    return 0;
}

/* Without a descriptor: the table never uses it. */
static uint32_t take(void *user)
{
    uint32_t id;
    assert_int_equal(mir_sockets_take(&sockets, -1, user, &id), MIR_OK);
    return id;
}

static void an_id_comes_back_with_another_generation(void **state)
{
    (void)state;
    int user, other;
    for (uint32_t i = 0; i < 3 * MIR_SOCKETS_PER_PAGE; i++) assert_int_equal(take(&user), i);
    mir_socket *socket = mir_sockets_at(&sockets, 1500);
    uint32_t generation = socket->generation;
    socket->paused = socket->closing = socket->ended = true;
    mir_sockets_give(&sockets, 1500);
    assert_int_equal(take(&other), 1500);
    assert_ptr_equal(mir_sockets_at(&sockets, 1500), socket);
    assert_ptr_equal(socket->user, &other);
    assert_int_equal(socket->generation, generation + 1);
    assert_false(socket->paused || socket->closing || socket->ended);
    assert_int_equal(take(&user), 3 * MIR_SOCKETS_PER_PAGE);
}

static void the_table_has_an_end(void **state)
{
    (void)state;
    uint32_t id;
    for (uint32_t i = 0; i < MIR_SOCKET_PAGES_MAX * MIR_SOCKETS_PER_PAGE; i++) (void)take(NULL);
    assert_int_equal(mir_sockets_take(&sockets, -1, NULL, &id), MIR_E_FULL);
    mir_sockets_give(&sockets, 77);
    assert_int_equal(take(NULL), 77);
}

static void a_send_goes_on_where_it_stopped(void **state)
{
    (void)state;
    char text[] = "abcdefghij";
    struct iovec pieces[] = {{text, 3}, {text + 3, 1}, {text + 4, 6}};
    mir_socket *socket = mir_sockets_at(&sockets, take(NULL));
    mir_sockets_send_begin(&sockets, socket, pieces, 3, 3);
    mir_send_block *block = socket->sending;
    assert_int_equal(block->total_bytes, 10);
    assert_int_equal(block->header.msg_iovlen, 2);
    assert_ptr_equal(block->header.msg_iov->iov_base, text + 3);
    assert_false(mir_send_block_take(block, 2));
    assert_int_equal(block->header.msg_iovlen, 1);
    assert_ptr_equal(block->header.msg_iov->iov_base, text + 5);
    assert_int_equal(block->header.msg_iov->iov_len, 5);
    assert_false(mir_send_block_take(block, 0));
    assert_true(mir_send_block_take(block, 5));
    /* The caller's pieces are as they were. */
    assert_ptr_equal(pieces[2].iov_base, text + 4);
    mir_sockets_send_end(&sockets, socket);
    assert_null(socket->sending);
    mir_sockets_send_begin(&sockets, socket, pieces, 1, 0);
    assert_ptr_equal(socket->sending, block);
}

static uint32_t fed[256], fed_count;

static void note_fed(mir_poller *poller, uint32_t id, mir_socket *socket)
{
    assert_null(poller);
    assert_ptr_equal(socket, mir_sockets_at(&sockets, id));
    assert_false(socket->starved);
    fed[fed_count++] = id;
}

static void the_starved_are_fed_in_turn(void **state)
{
    (void)state;
    for (uint32_t i = 0; i < 200; i++) {
        uint32_t id = take(NULL);
        assert_true(mir_sockets_starve(&sockets, id));
        assert_true(mir_sockets_at(&sockets, id)->starved);
    }
    mir_sockets_unstarve(&sockets, 0);
    mir_sockets_unstarve(&sockets, 3);
    mir_sockets_unstarve(&sockets, 3);
    mir_sockets_unstarve(&sockets, 199);
    fed_count = 0;
    mir_sockets_feed(&sockets, 0, NULL, note_fed);
    assert_int_equal(fed_count, 0);
    mir_sockets_feed(&sockets, 3, NULL, note_fed);
    assert_int_equal(fed_count, 3);
    assert_true(fed[0] == 1 && fed[1] == 2 && fed[2] == 4);
    /* Who comes again is the last. */
    assert_true(mir_sockets_starve(&sockets, 2));
    mir_sockets_feed(&sockets, 1000, NULL, note_fed);
    assert_int_equal(fed_count, 198);
    assert_true(fed[3] == 5 && fed[196] == 198 && fed[197] == 2);
    assert_int_equal(sockets.starved.count, 0);
}

static bool watchable;
static unsigned watched[MIR_LISTENERS_MAX];

static bool watch(mir_poller *poller, uint32_t index)
{
    assert_null(poller);
    watched[index]++;
    return watchable;
}

static void a_listener_that_failed_rests(void **state)
{
    (void)state;
    for (int i = 0; i < MIR_LISTENERS_MAX; i++) {
        uint32_t place = mir_sockets_listener_place(&sockets);
        assert_int_equal(place, i);
        sockets.listeners[place] = (mir_listener){.fd = 100 + i, .used = true};
    }
    assert_int_equal(mir_sockets_listener_place(&sockets), MIR_LISTENERS_MAX);
    assert_int_equal(mir_sockets_listener_find(&sockets, 105), 5);
    assert_int_equal(mir_sockets_listener_find(&sockets, 99), MIR_LISTENERS_MAX);
    sockets.listeners[5].used = false;
    assert_int_equal(mir_sockets_listener_find(&sockets, 105), MIR_LISTENERS_MAX);
    assert_int_equal(mir_sockets_listener_place(&sockets), 5);
    /* The kernel still has its accept. */
    sockets.listeners[5].armed = true;
    assert_int_equal(mir_sockets_listener_place(&sockets), MIR_LISTENERS_MAX);

    const int64_t rest_ns = MIR_POLLER_ACCEPT_REST_MS * MIR_NS_PER_MS;
    memset(watched, 0, sizeof watched);
    assert_true(mir_sockets_watch_rested(&sockets, INT64_MAX, NULL, watch) == INT64_MAX);
    mir_listener_rest(&sockets.listeners[2]);
    sockets.listeners[2].rest_until_ns += rest_ns * 1000;
    int64_t left_ns = mir_sockets_watch_rested(&sockets, INT64_MAX, NULL, watch);
    assert_true(left_ns > 0 && left_ns <= rest_ns * 1001);
    assert_true(mir_sockets_watch_rested(&sockets, 5, NULL, watch) == 5);
    assert_int_equal(watched[2], 0);
    /* It is tried when it has rested, and rests again when that fails. */
    sockets.listeners[2].rest_until_ns = 1;
    watchable = false;
    left_ns = mir_sockets_watch_rested(&sockets, INT64_MAX, NULL, watch);
    assert_int_equal(watched[2], 1);
    assert_true(left_ns > 0 && left_ns < INT64_MAX);
    sockets.listeners[2].rest_until_ns = 1;
    watchable = true;
    assert_true(mir_sockets_watch_rested(&sockets, INT64_MAX, NULL, watch) == INT64_MAX);
    assert_int_equal(watched[2], 2);
    assert_true(mir_sockets_watch_rested(&sockets, INT64_MAX, NULL, watch) == INT64_MAX);
    assert_int_equal(watched[2], 2);
}

#define CASE(test) cmocka_unit_test_setup_teardown(test, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        CASE(an_id_comes_back_with_another_generation),
        CASE(the_table_has_an_end),
        CASE(a_send_goes_on_where_it_stopped),
        CASE(the_starved_are_fed_in_turn),
        CASE(a_listener_that_failed_rests),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
