/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <pthread.h>
#include <stdatomic.h>
#include <cmocka.h>

#include "mir_nats.h"
#include "mir_router.h"

static mir_epoch *epoch;
static mir_epoch_record *record;
static mir_router *router;

static int setup(void **state)
{
    (void)state;
    assert_int_equal(mir_epoch_create(&epoch), MIR_OK);
    assert_int_equal(mir_epoch_register(epoch, &record), MIR_OK);
    assert_int_equal(mir_router_create(&router), MIR_OK);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    mir_router_destroy(router);
    mir_epoch_destroy(epoch);
    return 0;
}

static uint32_t rng_state;
static uint32_t rng(uint32_t bound)
{
    rng_state = rng_state * 1664525u + 1013904223u;
    return (rng_state >> 8) % bound;
}

static void random_subject(char *text, bool pattern)
{
    static const char *const words[] = {"a", "b", "c", "device", "x1"};
    unsigned tokens = 1 + rng(5);
    text[0] = '\0';
    for (unsigned i = 0; i < tokens; i++) {
        if (i > 0) strcat(text, ".");
        uint32_t pick = rng(10);
        if (pattern && pick < 3)
            strcat(text, "*");
        else if (pattern && pick == 3 && i + 1 == tokens)
            strcat(text, ">");
        else
            strcat(text, words[rng(5)]);
    }
}

typedef struct entry {
    char pattern[64];
    char queue[8];
    bool live;
} entry;

static int compare_refs(const void *a, const void *b)
{
    uint64_t x = *(const uint64_t *)a, y = *(const uint64_t *)b;
    return x < y ? -1 : x > y;
}

static void test_matching_equals_a_brute_force_oracle(void **state)
{
    (void)state;
    enum { ENTRIES = 300, STEPS = 6000 };
    static entry entries[ENTRIES];
    rng_state = 7;
    mir_match match = {0};
    mir_epoch_enter(record);
    for (int step = 0; step < STEPS; step++) {
        uint32_t i = rng(ENTRIES);
        entry *e = &entries[i];
        mir_ref ref = mir_ref_make(1, 1, i);
        if (!e->live) {
            random_subject(e->pattern, true);
            snprintf(e->queue, sizeof e->queue, "%s", rng(3) == 0 ? (rng(2) ? "q1" : "q2") : "");
            assert_int_equal(mir_router_subscribe(router, record, mir_view_cstr(e->pattern),
                                                  mir_view_cstr(e->queue), ref),
                             MIR_OK);
            e->live = true;
        } else {
            assert_int_equal(mir_router_unsubscribe(router, record, mir_view_cstr(e->pattern),
                                                    mir_view_cstr(e->queue), ref),
                             MIR_OK);
            e->live = false;
        }
        char subject[64];
        random_subject(subject, false);
        mir_match_reset(&match);
        mir_router_match(router, mir_view_cstr(subject), &match);
        assert_false(match.failed);
        uint64_t expected[3][ENTRIES];
        uint32_t counts[3] = {0};
        for (uint32_t k = 0; k < ENTRIES; k++) {
            if (!entries[k].live ||
                !mir_nats_match(mir_view_cstr(entries[k].pattern), mir_view_cstr(subject)))
                continue;
            int set = entries[k].queue[0] == '\0' ? 0 : entries[k].queue[1] - '0';
            expected[set][counts[set]++] = mir_ref_make(1, 1, k);
        }
        assert_int_equal(match.plain_count, counts[0]);
        if (counts[0] != 0)
            qsort(match.plain, match.plain_count, sizeof *match.plain, compare_refs);
        if (counts[0] != 0) assert_memory_equal(match.plain, expected[0], counts[0] * 8);
        uint32_t seen = 0;
        for (uint32_t g = 0; g < match.group_count; g++) {
            mir_match_group *group = &match.groups[g];
            int set = match.names[group->name_at + 1] - '0';
            qsort(match.members + group->first, group->count, sizeof *match.members, compare_refs);
            assert_int_equal(group->count, counts[set]);
            assert_memory_equal(match.members + group->first, expected[set], counts[set] * 8);
            seen++;
        }
        assert_int_equal(seen, (counts[1] != 0) + (counts[2] != 0));
        if (step % 64 == 0) {
            mir_epoch_leave(record);
            mir_epoch_poll(record);
            mir_epoch_enter(record);
        }
    }
    mir_epoch_leave(record);
    mir_match_free(&match);
}

static void
test_a_stamp_changes_with_subscriptions_of_its_first_token_and_of_wildcards(void **state)
{
    (void)state;
    mir_view subject = MIR_VIEW_LITERAL("device.a.b");
    mir_router_stamp before = mir_router_stamp_of(router, subject);
    assert_true(mir_router_stamp_holds(router, &before));
    assert_int_equal(mir_router_subscribe(router, record, MIR_VIEW_LITERAL("device.*.b"),
                                          (mir_view){0}, mir_ref_make(0, 1, 1)),
                     MIR_OK);
    mir_router_stamp after = mir_router_stamp_of(router, subject);
    assert_int_not_equal(before.bucket, after.bucket);
    assert_false(mir_router_stamp_holds(router, &before));
    assert_true(mir_router_stamp_holds(router, &after));
    assert_int_equal(mir_router_subscribe(router, record, MIR_VIEW_LITERAL(">"), (mir_view){0},
                                          mir_ref_make(0, 1, 2)),
                     MIR_OK);
    assert_int_not_equal(mir_router_stamp_of(router, subject).wild, after.wild);
    assert_false(mir_router_stamp_holds(router, &after));
}

static uint32_t plain_of(const char *subject)
{
    mir_match match = {0};
    mir_router_match(router, mir_view_cstr(subject), &match);
    assert_false(match.failed);
    uint32_t count = match.plain_count;
    mir_match_free(&match);
    return count;
}

static void test_many_of_one_subject_leave_in_any_order(void **state)
{
    (void)state;
    enum { MANY = 50000 };
    mir_view pattern = mir_view_cstr("busy.subject"), none = {NULL, 0};
    uint32_t *order = malloc(MANY * sizeof *order);
    assert_non_null(order);
    rng_state = 7;
    mir_epoch_enter(record);
    for (int round = 0; round < 2; round++) {
        for (uint32_t i = 0; i < MANY; i++) {
            order[i] = i;
            assert_int_equal(
                mir_router_subscribe(router, record, pattern, none, mir_ref_make(1, 1, i)), MIR_OK);
        }
        for (uint32_t i = MANY; i-- > 1;) {
            uint32_t other = rng(i + 1), kept = order[i];
            order[i] = order[other];
            order[other] = kept;
        }
        for (uint32_t i = 0; i < MANY; i++) {
            mir_ref ref = mir_ref_make(1, 1, order[i]);
            if (i % 5000 == 0) assert_int_equal(plain_of("busy.subject"), MANY - i);
            assert_int_equal(mir_router_unsubscribe(router, record, pattern, none, ref), MIR_OK);
            if (i % 100 == 0)
                assert_int_equal(mir_router_unsubscribe(router, record, pattern, none, ref),
                                 MIR_E_NOT_FOUND);
        }
        assert_int_equal(plain_of("busy.subject"), 0);
    }
    mir_epoch_leave(record);
    free(order);
}

static void test_the_queues_of_one_pattern_are_bounded(void **state)
{
    (void)state;
    mir_view pattern = mir_view_cstr("work");
    char name[16];
    mir_epoch_enter(record);
    for (uint32_t i = 0; i <= MIR_ROUTER_GROUPS_MAX; i++) {
        (void)snprintf(name, sizeof name, "q%u", i);
        assert_int_equal(mir_router_subscribe(router, record, pattern, mir_view_cstr(name),
                                              mir_ref_make(0, 1, i)),
                         i < MIR_ROUTER_GROUPS_MAX ? MIR_OK : MIR_E_FULL);
    }
    /* One that is there takes more members; one that goes makes room. */
    assert_int_equal(
        mir_router_subscribe(router, record, pattern, mir_view_cstr("q0"), mir_ref_make(0, 2, 0)),
        MIR_OK);
    assert_int_equal(
        mir_router_unsubscribe(router, record, pattern, mir_view_cstr("q1"), mir_ref_make(0, 1, 1)),
        MIR_OK);
    assert_int_equal(mir_router_subscribe(router, record, pattern, mir_view_cstr("fresh"),
                                          mir_ref_make(0, 3, 0)),
                     MIR_OK);
    mir_epoch_leave(record);
}

static void test_invalid_patterns_are_refused(void **state)
{
    (void)state;
    static const char *const bad[] = {"", "a..b", ".a", "a.", "a.>.b", ">.a"};
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        assert_int_equal(mir_router_subscribe(router, record, mir_view_cstr(bad[i]), (mir_view){0},
                                              mir_ref_make(0, 1, 1)),
                         MIR_E_INVALID);
    assert_int_equal(mir_router_count(router), 0);
}

typedef struct reader {
    mir_epoch_record *record;
    _Atomic bool *stop;
    uint64_t matched;
    bool lost;
} reader;

static void *read_loop(void *argument)
{
    reader *r = argument;
    mir_match match = {0};
    while (!atomic_load(r->stop)) {
        mir_epoch_enter(r->record);
        mir_match_reset(&match);
        mir_router_match(router, MIR_VIEW_LITERAL("stay.here"), &match);
        if (match.plain_count < 1) r->lost = true;
        mir_router_match(router, MIR_VIEW_LITERAL("a.b.c"), &match);
        r->matched += match.plain_count;
        mir_epoch_leave(r->record);
    }
    mir_match_free(&match);
    return NULL;
}

static void test_readers_see_a_steady_subscription_while_others_come_and_go(void **state)
{
    (void)state;
    _Atomic bool stop = false;
    reader r = {.stop = &stop};
    assert_int_equal(mir_epoch_register(epoch, &r.record), MIR_OK);
    assert_int_equal(mir_router_subscribe(router, record, MIR_VIEW_LITERAL("stay.*"), (mir_view){0},
                                          mir_ref_make(0, 1, 1)),
                     MIR_OK);
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, read_loop, &r), 0);
    rng_state = 3;
    for (int i = 0; i < 20000; i++) {
        char pattern[64];
        random_subject(pattern, true);
        mir_ref ref = mir_ref_make(0, 2, (uint32_t)i);
        assert_int_equal(
            mir_router_subscribe(router, record, mir_view_cstr(pattern), (mir_view){0}, ref),
            MIR_OK);
        assert_int_equal(
            mir_router_unsubscribe(router, record, mir_view_cstr(pattern), (mir_view){0}, ref),
            MIR_OK);
        if (i % 32 == 0) mir_epoch_poll(record);
    }
    atomic_store(&stop, true);
    (void)pthread_join(thread, NULL);
    assert_false(r.lost);
    assert_int_equal(mir_router_count(router), 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(test_matching_equals_a_brute_force_oracle, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_a_stamp_changes_with_subscriptions_of_its_first_token_and_of_wildcards, setup,
            teardown),
        cmocka_unit_test_setup_teardown(test_many_of_one_subject_leave_in_any_order, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_the_queues_of_one_pattern_are_bounded, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(test_invalid_patterns_are_refused, setup, teardown),
        cmocka_unit_test_setup_teardown(
            test_readers_see_a_steady_subscription_while_others_come_and_go, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
