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
#include <stdatomic.h>
#include <stdbool.h>
#include <cmocka.h>

#include "mir_epoch.h"

typedef struct node {
    mir_epoch_entry entry;
    uint64_t value; /* the poison of one that was freed is not this pattern */
} node;

#define ALIVE UINT64_C(0x1122334455667788)

static unsigned freed;

static void free_node(mir_epoch_entry *entry)
{
    node *n = (node *)(void *)entry;
    n->value = 0;
    freed++;
    free(n);
}

static void what_is_retired_lives_while_a_reader_is_inside(void **state)
{
    (void)state;
    mir_epoch *epoch;
    mir_epoch_record *reader, *writer;
    assert_int_equal(mir_epoch_create(&epoch), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &reader), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &writer), MIR_OK);
    freed = 0;
    mir_epoch_enter(reader);
    node *n = calloc(1, sizeof *n);
    assert_non_null(n);
    mir_epoch_enter(writer);
    mir_epoch_retire(writer, &n->entry, free_node);
    mir_epoch_leave(writer);
    for (int i = 0; i < 10; i++) mir_epoch_poll(writer);
    assert_int_equal(freed, 0);
    mir_epoch_leave(reader);
    for (int i = 0; i < 10 && freed == 0; i++) {
        mir_epoch_enter(reader);
        mir_epoch_leave(reader);
        mir_epoch_poll(writer);
    }
    assert_int_equal(freed, 1);
    mir_epoch_destroy(epoch);
}

static void destroying_runs_what_is_still_retired(void **state)
{
    (void)state;
    mir_epoch *epoch;
    mir_epoch_record *record;
    assert_int_equal(mir_epoch_create(&epoch), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &record), MIR_OK);
    freed = 0;
    for (int i = 0; i < 100; i++) {
        node *n = calloc(1, sizeof *n);
        assert_non_null(n);
        mir_epoch_retire(record, &n->entry, free_node);
    }
    mir_epoch_destroy(epoch);
    assert_int_equal(freed, 100);
    mir_epoch_destroy(NULL);
}

typedef struct reader {
    pthread_t thread;
    mir_epoch_record *record;
    _Atomic(node *) *shared;
    _Atomic bool *stop;
} reader;

static void *read_on(void *argument)
{
    reader *r = argument;
    while (!atomic_load(r->stop)) {
        mir_epoch_enter(r->record);
        node *n = atomic_load_explicit(r->shared, memory_order_acquire);
        for (int i = 0; i < 20; i++)
            if (n->value != ALIVE) abort();
        mir_epoch_leave(r->record);
    }
    return NULL;
}

static void readers_never_see_what_was_freed(void **state)
{
    (void)state;
    enum { READERS = 2, CHANGES = 20000 };
    mir_epoch *epoch;
    mir_epoch_record *writer;
    assert_int_equal(mir_epoch_create(&epoch), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &writer), MIR_OK);
    _Atomic(node *) shared = NULL;
    _Atomic bool stop = false;
    freed = 0;
    node *first = calloc(1, sizeof *first);
    assert_non_null(first);
    first->value = ALIVE;
    atomic_store(&shared, first);
    reader readers[READERS];
    for (int i = 0; i < READERS; i++) {
        readers[i] = (reader){.shared = &shared, .stop = &stop};
        assert_int_equal(mir_epoch_register(epoch, &readers[i].record), MIR_OK);
    }
    for (int i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i].thread, NULL, read_on, &readers[i]), 0);
    for (int i = 0; i < CHANGES; i++) {
        node *fresh = calloc(1, sizeof *fresh);
        assert_non_null(fresh);
        fresh->value = ALIVE;
        mir_epoch_enter(writer);
        node *old = atomic_exchange(&shared, fresh);
        mir_epoch_retire(writer, &old->entry, free_node);
        mir_epoch_leave(writer);
        mir_epoch_poll(writer);
    }
    atomic_store(&stop, true);
    for (int i = 0; i < READERS; i++) assert_int_equal(pthread_join(readers[i].thread, NULL), 0);
    mir_epoch_destroy(epoch);
    assert_int_equal(freed, CHANGES);
    free(atomic_load(&shared));
}

static void records_are_bounded(void **state)
{
    (void)state;
    mir_epoch *epoch;
    mir_epoch_record *record;
    assert_int_equal(mir_epoch_create(&epoch), MIR_OK);
    for (int i = 0; i < 128; i++) assert_int_equal(mir_epoch_register(epoch, &record), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &record), MIR_E_FULL);
    mir_epoch_destroy(epoch);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_retired_lives_while_a_reader_is_inside),
        cmocka_unit_test(destroying_runs_what_is_still_retired),
        cmocka_unit_test(readers_never_see_what_was_freed),
        cmocka_unit_test(records_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
