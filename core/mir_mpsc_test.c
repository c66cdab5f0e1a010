/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <pthread.h>
#include <sched.h>
#include <cmocka.h>

#include "mir_mpsc.h"

enum { PRODUCERS = 3, EACH = 20000 };

typedef struct letter {
    mir_mpsc_node node;
    unsigned from, number;
} letter;

static void take_gives_everything_oldest_first_and_push_tells_of_an_empty_queue(void **state)
{
    (void)state;
    mir_mpsc queue = {NULL};
    letter letters[5];
    assert_true(mir_mpsc_is_empty(&queue));
    assert_null(mir_mpsc_take(&queue));
    for (int round = 0; round < 2; round++) {
        for (int i = 0; i < 5; i++)
            assert_int_equal(mir_mpsc_push(&queue, &letters[i].node), i == 0);
        assert_false(mir_mpsc_is_empty(&queue));
        mir_mpsc_node *node = mir_mpsc_take(&queue);
        for (int i = 0; i < 5; i++, node = node->next) assert_ptr_equal(node, &letters[i].node);
        assert_null(node);
        assert_true(mir_mpsc_is_empty(&queue));
    }
}

typedef struct producer {
    pthread_t thread;
    mir_mpsc *queue;
    letter *letters;
    unsigned empty;
} producer;

static void *produce(void *argument)
{
    producer *p = argument;
    for (unsigned i = 0; i < EACH; i++)
        if (mir_mpsc_push(p->queue, &p->letters[i].node)) p->empty++;
    return NULL;
}

static void order_holds_for_each_producer_and_every_batch_is_announced_once(void **state)
{
    (void)state;
    mir_mpsc queue = {NULL};
    producer producers[PRODUCERS];
    for (unsigned i = 0; i < PRODUCERS; i++) {
        producers[i] = (producer){.queue = &queue, .letters = calloc(EACH, sizeof(letter))};
        assert_non_null(producers[i].letters);
        for (unsigned n = 0; n < EACH; n++)
            producers[i].letters[n] = (letter){.from = i, .number = n};
    }
    for (unsigned i = 0; i < PRODUCERS; i++)
        assert_int_equal(pthread_create(&producers[i].thread, NULL, produce, &producers[i]), 0);
    unsigned next[PRODUCERS] = {0}, total = 0, batches = 0, announced = 0;
    while (total < PRODUCERS * EACH) {
        mir_mpsc_node *node = mir_mpsc_take(&queue);
        if (node == NULL) {
            (void)sched_yield();
            continue;
        }
        batches++;
        for (; node != NULL; node = node->next, total++) {
            letter *l = (letter *)(void *)node;
            assert_int_equal(l->number, next[l->from]);
            next[l->from]++;
        }
    }
    for (unsigned i = 0; i < PRODUCERS; i++) {
        assert_int_equal(pthread_join(producers[i].thread, NULL), 0);
        announced += producers[i].empty;
        free(producers[i].letters);
    }
    assert_int_equal(announced, batches);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(take_gives_everything_oldest_first_and_push_tells_of_an_empty_queue),
        cmocka_unit_test(order_holds_for_each_producer_and_every_batch_is_announced_once),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
