/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <inttypes.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mir_holding.h"

enum { PLACES = MIR_HOLDING_GENERATIONS };

static void nothing_held_is_all_settled(void **state)
{
    (void)state;
    mir_holding holding = {0};
    assert_true(mir_holding_is_empty(&holding));
    assert_int_equal(mir_holding_settled(&holding, 0), 0);
    assert_int_equal(mir_holding_settled(&holding, 17), 17);
    assert_true(mir_holding_passed(&holding, mir_holding_mark(&holding)));
}

static void a_mark_passes_with_what_was_held_before_it(void **state)
{
    (void)state;
    mir_holding holding = {0};
    uint8_t before = mir_holding_add(&holding);
    uint64_t mark = mir_holding_mark(&holding);
    uint8_t after = mir_holding_add(&holding);
    assert_false(mir_holding_passed(&holding, mark));
    mir_holding_remove(&holding, before);
    assert_true(mir_holding_passed(&holding, mark));
    assert_false(mir_holding_is_empty(&holding));
    mir_holding_remove(&holding, after);
    assert_true(mir_holding_is_empty(&holding));
}

static void a_mark_with_nothing_new_is_that_of_the_one_before(void **state)
{
    (void)state;
    mir_holding holding = {0};
    uint8_t before = mir_holding_add(&holding);
    (void)mir_holding_mark(&holding);
    uint64_t mark = mir_holding_mark(&holding);
    uint8_t after = mir_holding_add(&holding);
    mir_holding_remove(&holding, before);
    assert_true(mir_holding_passed(&holding, mark));
    mir_holding_remove(&holding, after);
}

/* Between two looks there may be a moment with nothing, which nobody saw. */
static void a_mark_that_has_passed_stays_so(void **state)
{
    (void)state;
    mir_holding holding = {0};
    for (unsigned i = 0; i < PLACES - 1; i++) {
        (void)mir_holding_add(&holding);
        (void)mir_holding_mark(&holding);
    }
    /* No place is left: this generation stays open. */
    uint8_t last = mir_holding_add(&holding);
    uint64_t mark = mir_holding_mark(&holding);
    uint8_t joins = mir_holding_add(&holding);
    assert_int_equal(joins, last);
    for (unsigned tag = 0; tag < PLACES - 1; tag++) mir_holding_remove(&holding, (uint8_t)tag);
    mir_holding_remove(&holding, last);
    assert_false(mir_holding_passed(&holding, mark));
    mir_holding_remove(&holding, joins);
    assert_true(mir_holding_passed(&holding, mark));
    uint8_t later = mir_holding_add(&holding);
    assert_true(mir_holding_passed(&holding, mark));
    mir_holding_remove(&holding, later);
}

static void what_settled_is_what_came_before_the_oldest(void **state)
{
    (void)state;
    mir_holding holding = {0};
    assert_int_equal(mir_holding_settled(&holding, 10), 10);
    uint8_t first = mir_holding_add(&holding); /* the 11th */
    assert_in_range(mir_holding_settled(&holding, 12), 0, 10);
    uint8_t second = mir_holding_add(&holding); /* the 13th */
    assert_in_range(mir_holding_settled(&holding, 14), 0, 10);
    mir_holding_remove(&holding, first);
    assert_int_equal(mir_holding_settled(&holding, 15), 12);
    uint8_t third = mir_holding_add(&holding);
    mir_holding_remove(&holding, second);
    assert_int_equal(mir_holding_settled(&holding, 16), 15);
    mir_holding_remove(&holding, third);
    assert_int_equal(mir_holding_settled(&holding, 16), 16);
}

static void what_is_owed_settles_when_it_is_on_its_way(void **state)
{
    (void)state;
    mir_holding holding = {0};
    assert_int_equal(mir_holding_settled(&holding, 10), 10);
    mir_holding_owe(&holding, 100);
    assert_in_range(mir_holding_settled(&holding, 12), 0, 10);
    mir_holding_owe(&holding, 200);
    mir_holding_paid(&holding, 99);
    assert_in_range(mir_holding_settled(&holding, 14), 0, 10);
    mir_holding_paid(&holding, 100);
    assert_true(holding.owes);
    assert_int_equal(mir_holding_settled(&holding, 16), 12);
    mir_holding_paid(&holding, 300);
    assert_false(holding.owes);
    assert_true(mir_holding_is_empty(&holding));
    assert_int_equal(mir_holding_settled(&holding, 16), 16);
}

/* --- beside a model ------------------------------------------------------------------------- */

static uint64_t next_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9E3779B97F4A7C15)); /* splitmix64, Steele et al. */
    z = (z ^ (z >> 30)) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94D049BB133111EB);
    return z ^ (z >> 31);
}

enum { MODEL_MAX = 64, MARKS_MAX = 8 };

typedef struct model {
    mir_holding holding;
    uint64_t handled, told, pushed, owed_most;
    uint64_t handled_then; /* when a turn ended last */
    struct {
        uint64_t position;
        uint8_t tag;
    } held[MODEL_MAX];
    unsigned held_count;
    struct {
        uint64_t position, owed;
    } debts[MODEL_MAX];
    unsigned debt_count;
    struct {
        bool set;
        uint64_t position, mark;
    } marks[MARKS_MAX];
} model;

/* How many of the source's messages, from the first on, have taken effect. */
static uint64_t complete(const model *m)
{
    uint64_t count = m->handled;
    for (unsigned i = 0; i < m->held_count; i++)
        if (m->held[i].position < count) count = m->held[i].position;
    for (unsigned i = 0; i < m->debt_count; i++)
        if (m->debts[i].owed > m->pushed && m->debts[i].position < count)
            count = m->debts[i].position;
    return count;
}

static void step(model *m, uint64_t *random, unsigned seed)
{
    switch (next_random(random) % 7) {
    case 0:
    case 1: /* a message comes */
        if (next_random(random) % 2 == 0 && m->held_count < MODEL_MAX) {
            m->held[m->held_count].position = m->handled;
            m->held[m->held_count++].tag = mir_holding_add(&m->holding);
        }
        m->handled++;
        break;
    case 2:
    case 3: { /* one is let go */
        if (m->held_count == 0) break;
        unsigned i = (unsigned)(next_random(random) % m->held_count);
        if (next_random(random) % 4 != 0) i = 0;
        mir_holding_remove(&m->holding, m->held[i].tag);
        m->held_count--;
        for (; i < m->held_count; i++) m->held[i] = m->held[i + 1];
        break;
    }
    case 4: { /* a turn ends */
        if (next_random(random) % 8 == 0 && m->debt_count < MODEL_MAX) {
            m->owed_most += next_random(random) % 4;
            if (m->owed_most > m->pushed) {
                m->debts[m->debt_count].position = m->handled_then;
                m->debts[m->debt_count++].owed = m->owed_most;
                mir_holding_owe(&m->holding, m->owed_most);
            }
        }
        if (m->holding.owes) mir_holding_paid(&m->holding, m->pushed);
        uint64_t settled = mir_holding_settled(&m->holding, m->handled);
        if (settled > complete(m))
            fail_msg("seed %u: %" PRIu64 " settled of %" PRIu64, seed, settled, complete(m));
        if (m->held_count == 0 && !m->holding.owes) assert_int_equal(settled, m->handled);
        if (settled > m->told) m->told = settled;
        m->handled_then = m->handled;
        break;
    }
    case 5: m->pushed += next_random(random) % 4; break;
    case 6: { /* a PING here, and a look at those before */
        unsigned i = (unsigned)(next_random(random) % MARKS_MAX);
        if (!m->marks[i].set) {
            m->marks[i].set = true;
            m->marks[i].position = m->handled;
            m->marks[i].mark = mir_holding_mark(&m->holding);
        }
        for (i = 0; i < MARKS_MAX; i++) {
            if (!m->marks[i].set || !mir_holding_passed(&m->holding, m->marks[i].mark)) continue;
            for (unsigned h = 0; h < m->held_count; h++)
                if (m->held[h].position < m->marks[i].position)
                    fail_msg("seed %u: a mark passed what is held", seed);
            m->marks[i].set = false;
        }
    }
    }
}

static void nothing_settles_before_its_time_and_all_in_the_end(void **state)
{
    (void)state;
    for (unsigned seed = 0; seed < 400; seed++) {
        uint64_t random = seed;
        model m = {0};
        for (unsigned i = 0; i < 2000; i++) step(&m, &random, seed);
        while (m.held_count != 0) mir_holding_remove(&m.holding, m.held[--m.held_count].tag);
        m.pushed = UINT64_MAX;
        mir_holding_paid(&m.holding, m.pushed);
        assert_true(mir_holding_is_empty(&m.holding));
        assert_int_equal(mir_holding_settled(&m.holding, m.handled), m.handled);
        for (unsigned i = 0; i < MARKS_MAX; i++)
            assert_true(!m.marks[i].set || mir_holding_passed(&m.holding, m.marks[i].mark));
    }
}

/* One comes and one goes each turn, so that DEPTH are held at any time: what is told lags behind by
 * no more than twice that. */
static void a_stream_that_never_ends_settles_in_time(void **state)
{
    (void)state;
    enum { DEPTH = 700, TURNS = 20000 };
    mir_holding holding = {0};
    static uint8_t tags[TURNS];
    uint64_t told = 0;
    for (unsigned i = 0; i < TURNS; i++) {
        tags[i] = mir_holding_add(&holding);
        if (i >= DEPTH) mir_holding_remove(&holding, tags[i - DEPTH]);
        uint64_t settled = mir_holding_settled(&holding, i + 1);
        if (settled > told) told = settled;
        assert_in_range(i + 1 - told, 0, DEPTH * 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(nothing_held_is_all_settled),
        cmocka_unit_test(a_mark_passes_with_what_was_held_before_it),
        cmocka_unit_test(a_mark_with_nothing_new_is_that_of_the_one_before),
        cmocka_unit_test(a_mark_that_has_passed_stays_so),
        cmocka_unit_test(what_settled_is_what_came_before_the_oldest),
        cmocka_unit_test(what_is_owed_settles_when_it_is_on_its_way),
        cmocka_unit_test(nothing_settles_before_its_time_and_all_in_the_end),
        cmocka_unit_test(a_stream_that_never_ends_settles_in_time),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
