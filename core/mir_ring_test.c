/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <pthread.h>
#include <sched.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mir_ring.h"

enum { SLOTS = 16 };

static void all_but_one_slot_is_usable_and_the_next_push_is_refused(void **state)
{
    (void)state;
    mir_ring *ring;
    assert_int_equal(mir_ring_create(SLOTS, &ring), MIR_OK);
    int items[SLOTS];
    for (uint32_t i = 0; i < SLOTS - 1; i++) {
        assert_int_equal(mir_ring_room(ring), SLOTS - 1 - i);
        assert_int_equal(mir_ring_push(ring, &items[i]), MIR_OK);
    }
    assert_int_equal(mir_ring_room(ring), 0);
    assert_int_equal(mir_ring_push(ring, &items[SLOTS - 1]), MIR_E_FULL);
    assert_int_equal(mir_ring_pushed(ring), SLOTS - 1);
    for (uint32_t i = 0; i < SLOTS - 1; i++) {
        void *message = NULL;
        assert_int_equal(mir_ring_pop(ring, &message), MIR_OK);
        assert_ptr_equal(message, &items[i]);
    }
    mir_ring_destroy(ring);
}

static void a_pop_from_an_empty_ring_is_refused_and_changes_nothing(void **state)
{
    (void)state;
    mir_ring *ring;
    assert_int_equal(mir_ring_create(4, &ring), MIR_OK);
    int item;
    void *message = &item;
    assert_int_equal(mir_ring_pop(ring, &message), MIR_E_EMPTY);
    assert_int_equal(mir_ring_popped(ring), 0);
    assert_int_equal(mir_ring_push(ring, &item), MIR_OK);
    assert_int_equal(mir_ring_pop(ring, &message), MIR_OK);
    assert_int_equal(mir_ring_pop(ring, &message), MIR_E_EMPTY);
    assert_int_equal(mir_ring_popped(ring), 1);
    mir_ring_destroy(ring);
}

static void popping_is_not_having_consumed(void **state)
{
    (void)state;
    mir_ring *ring;
    assert_int_equal(mir_ring_create(4, &ring), MIR_OK);
    int item;
    void *message;
    assert_int_equal(mir_ring_push(ring, &item), MIR_OK);
    assert_int_equal(mir_ring_pop(ring, &message), MIR_OK);
    assert_int_equal(mir_ring_consumed(ring), 0);
    mir_ring_consumed_set(ring, mir_ring_popped(ring));
    assert_int_equal(mir_ring_consumed(ring), mir_ring_pushed(ring));
    mir_ring_destroy(ring);
}

static void the_order_survives_many_turns_of_the_slots(void **state)
{
    (void)state;
    mir_ring *ring;
    assert_int_equal(mir_ring_create(8, &ring), MIR_OK);
    uintptr_t pushed = 0, popped = 0;
    for (unsigned round = 0; round < 1000; round++) {
        for (unsigned i = 0; i < round % 8; i++)
            if (mir_ring_push(ring, (void *)(pushed + 1)) == MIR_OK) pushed++;
        for (unsigned i = 0; i < (round * 5) % 7; i++) {
            void *message;
            if (mir_ring_pop(ring, &message) != MIR_OK) break;
            assert_int_equal((uintptr_t)message, ++popped);
        }
        assert_int_equal(mir_ring_room(ring), 7 - (pushed - popped));
    }
    assert_int_equal(mir_ring_pushed(ring), pushed);
    assert_int_equal(mir_ring_popped(ring), popped);
    mir_ring_destroy(ring);
}

static void destroying_nothing_is_fine(void **state)
{
    (void)state;
    mir_ring_destroy(NULL);
}

enum { MESSAGES = 200000 };

typedef struct cell {
    uint64_t value;
    uint64_t effect; /* written by the consumer, read by the producer after `consumed` covers it */
} cell;

typedef struct crossing {
    mir_ring *ring;
    cell *cells;
} crossing;

static void *consumer(void *argument)
{
    crossing *x = argument;
    for (uint64_t i = 0; i < MESSAGES; i++) {
        void *message;
        while (mir_ring_pop(x->ring, &message) != MIR_OK) (void)sched_yield();
        cell *c = message;
        if (c != &x->cells[i] || c->value != i * 3) abort();
        c->effect = i + 1;
        if (i % 64 == 63 || i + 1 == MESSAGES)
            mir_ring_consumed_set(x->ring, mir_ring_popped(x->ring));
    }
    return NULL;
}

static void what_was_written_before_a_push_or_a_consumed_count_is_seen_after_it(void **state)
{
    (void)state;
    crossing x = {.cells = calloc(MESSAGES, sizeof *x.cells)};
    assert_non_null(x.cells);
    assert_int_equal(mir_ring_create(1024, &x.ring), MIR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, consumer, &x), 0);
    for (uint64_t i = 0; i < MESSAGES; i++) {
        x.cells[i].value = i * 3;
        while (mir_ring_push(x.ring, &x.cells[i]) != MIR_OK) (void)sched_yield();
        uint64_t consumed = mir_ring_consumed(x.ring);
        if (consumed != 0) assert_int_equal(x.cells[consumed - 1].effect, consumed);
    }
    while (mir_ring_consumed(x.ring) != MESSAGES) (void)sched_yield();
    for (uint64_t i = 0; i < MESSAGES; i++) assert_int_equal(x.cells[i].effect, i + 1);
    assert_int_equal(pthread_join(thread, NULL), 0);
    mir_ring_destroy(x.ring);
    free(x.cells);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(all_but_one_slot_is_usable_and_the_next_push_is_refused),
        cmocka_unit_test(a_pop_from_an_empty_ring_is_refused_and_changes_nothing),
        cmocka_unit_test(popping_is_not_having_consumed),
        cmocka_unit_test(the_order_survives_many_turns_of_the_slots),
        cmocka_unit_test(destroying_nothing_is_fine),
        cmocka_unit_test(what_was_written_before_a_push_or_a_consumed_count_is_seen_after_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
