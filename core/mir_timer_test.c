/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_limits.h"
#include "mir_timer.h"

#define TICK_NS  (MIR_TIMER_TICK_MS * MIR_NS_PER_MS)
#define ROUND_NS (TICK_NS * MIR_TIMER_SLOTS)

static mir_timer_wheel wheel;

typedef struct alarm_clock {
    mir_timer timer;
    unsigned fired;
    int64_t again_ns; /* not 0: sets itself again so much later */
    struct alarm_clock *cancels;
} alarm_clock;

static int64_t now_ns;

static void ring(mir_timer *timer, void *context)
{
    alarm_clock *clock = (alarm_clock *)(void *)timer;
    assert_ptr_equal(context, &wheel);
    assert_false(mir_timer_is_set(timer));
    assert_true(timer->due_ns <= now_ns); /* never early */
    clock->fired++;
    if (clock->cancels != NULL) mir_timer_cancel(&wheel, &clock->cancels->timer);
    if (clock->again_ns != 0) mir_timer_set(&wheel, timer, now_ns + clock->again_ns);
}

static int setup(void **state)
{
    (void)state;
    now_ns = 12345678901;
    mir_timer_wheel_init(&wheel, now_ns, &wheel);
    return 0;
}

static unsigned advance_to(int64_t then_ns, unsigned budget)
{
    now_ns = then_ns;
    return mir_timer_advance(&wheel, now_ns, budget);
}

static void a_timer_fires_once_and_never_early(void **state)
{
    (void)state;
    for (int64_t delay_ns = 0; delay_ns < 4 * TICK_NS; delay_ns += TICK_NS / 7) {
        alarm_clock clock = {.timer.fire = ring};
        int64_t due_ns = now_ns + delay_ns;
        mir_timer_set(&wheel, &clock.timer, due_ns);
        while (clock.fired == 0) {
            assert_true(now_ns <= due_ns + 2 * TICK_NS);
            (void)advance_to(now_ns + TICK_NS / 3, 100);
        }
        (void)advance_to(now_ns + 3 * TICK_NS, 100);
        assert_int_equal(clock.fired, 1);
    }
}

static void a_timer_in_the_past_fires_at_the_next_tick(void **state)
{
    (void)state;
    alarm_clock clock = {.timer.fire = ring};
    (void)advance_to(now_ns + 5 * TICK_NS, 100);
    mir_timer_set(&wheel, &clock.timer, now_ns - MIR_NS_PER_S);
    assert_int_equal(advance_to(now_ns + TICK_NS, 100), 1);
    mir_timer_set(&wheel, &clock.timer, INT64_MIN);
    assert_int_equal(advance_to(now_ns + TICK_NS, 100), 1);
}

static void a_timer_may_lie_at_the_end_of_time(void **state)
{
    (void)state;
    alarm_clock clock = {.timer.fire = ring};
    mir_timer_set(&wheel, &clock.timer, INT64_MAX);
    for (int i = 0; i < 3; i++) assert_int_equal(advance_to(now_ns + ROUND_NS, 100), 0);
    assert_true(mir_timer_is_set(&clock.timer));
    mir_timer_cancel(&wheel, &clock.timer);
    assert_int_equal(wheel.count, 0);
}

static void rounds_of_the_wheel_are_passed_over(void **state)
{
    (void)state;
    alarm_clock near = {.timer.fire = ring}, far = {.timer.fire = ring};
    mir_timer_set(&wheel, &far.timer, now_ns + 3 * ROUND_NS + 10 * TICK_NS);
    mir_timer_set(&wheel, &near.timer, now_ns + 10 * TICK_NS);
    int64_t start_ns = now_ns;
    for (int i = 0; i < 12; i++) (void)advance_to(now_ns + TICK_NS, 100);
    assert_int_equal(near.fired, 1);
    while (far.fired == 0) {
        assert_true(now_ns <= start_ns + 3 * ROUND_NS + 12 * TICK_NS);
        (void)advance_to(now_ns + TICK_NS, 100);
    }
    assert_true(now_ns >= start_ns + 3 * ROUND_NS + 10 * TICK_NS);
}

static void a_long_sleep_loses_nothing(void **state)
{
    (void)state;
    enum { COUNT = 500 };
    static alarm_clock clocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        clocks[i] = (alarm_clock){.timer.fire = ring};
        mir_timer_set(&wheel, &clocks[i].timer, now_ns + (int64_t)i * ROUND_NS / 97);
    }
    assert_int_equal(advance_to(now_ns + 100 * ROUND_NS, COUNT + 1), COUNT);
    for (int i = 0; i < COUNT; i++) assert_int_equal(clocks[i].fired, 1);
    assert_int_equal(wheel.count, 0);
}

static void what_exceeds_the_budget_stays_due(void **state)
{
    (void)state;
    enum { COUNT = 10 };
    alarm_clock clocks[COUNT];
    for (int i = 0; i < COUNT; i++) {
        clocks[i] = (alarm_clock){.timer.fire = ring};
        mir_timer_set(&wheel, &clocks[i].timer, now_ns + (i / 4) * TICK_NS);
    }
    (void)advance_to(now_ns + 5 * TICK_NS, 0);
    for (int left = COUNT; left > 0; left -= 3) {
        assert_int_equal(mir_timer_sleep_ns(&wheel, now_ns, MIR_NS_PER_S), 0);
        assert_int_equal(advance_to(now_ns, 3), left < 3 ? left : 3);
        /* Even when the next look comes after more than a whole round. */
        if (left == 7) now_ns += 2 * ROUND_NS;
    }
    for (int i = 0; i < COUNT; i++) assert_int_equal(clocks[i].fired, 1);
}

static void a_callback_may_set_itself_again_and_cancel_others(void **state)
{
    (void)state;
    alarm_clock victim = {.timer.fire = ring};
    alarm_clock again = {.timer.fire = ring, .again_ns = ROUND_NS, .cancels = &victim};
    alarm_clock last = {.timer.fire = ring};
    int64_t due_ns = now_ns + TICK_NS;
    mir_timer_set(&wheel, &again.timer, due_ns);
    mir_timer_set(&wheel, &victim.timer, due_ns);
    mir_timer_set(&wheel, &last.timer, due_ns);
    assert_int_equal(advance_to(now_ns + 2 * TICK_NS, 100), 2);
    assert_int_equal(victim.fired, 0);
    assert_int_equal(last.fired, 1);
    assert_true(mir_timer_is_set(&again.timer));
    assert_int_equal(advance_to(now_ns + ROUND_NS + TICK_NS, 100), 1);
    mir_timer_cancel(&wheel, &again.timer);
}

static void a_callback_that_is_always_due_uses_the_budget_and_no_more(void **state)
{
    (void)state;
    alarm_clock greedy = {.timer.fire = ring, .again_ns = -MIR_NS_PER_S};
    alarm_clock other = {.timer.fire = ring};
    mir_timer_set(&wheel, &greedy.timer, now_ns);
    mir_timer_set(&wheel, &other.timer, now_ns);
    assert_int_equal(advance_to(now_ns + 2 * TICK_NS, 50), 50);
    assert_int_equal(greedy.fired + other.fired, 50);
    assert_int_equal(other.fired, 1);
    mir_timer_cancel(&wheel, &greedy.timer);
}

static void setting_moves_and_cancelling_twice_is_fine(void **state)
{
    (void)state;
    alarm_clock clock = {.timer.fire = ring};
    mir_timer_cancel(&wheel, &clock.timer);
    mir_timer_set(&wheel, &clock.timer, now_ns + TICK_NS);
    mir_timer_set(&wheel, &clock.timer, now_ns + 50 * TICK_NS);
    assert_int_equal(wheel.count, 1);
    assert_int_equal(advance_to(now_ns + 40 * TICK_NS, 100), 0);
    mir_timer_cancel(&wheel, &clock.timer);
    mir_timer_cancel(&wheel, &clock.timer);
    assert_int_equal(wheel.count, 0);
    assert_int_equal(advance_to(now_ns + 40 * TICK_NS, 100), 0);
}

static void sleeping_as_long_as_one_may_never_misses_a_timer(void **state)
{
    (void)state;
    assert_int_equal(mir_timer_sleep_ns(&wheel, now_ns, 77), 77);
    uint32_t random = 1;
    for (int i = 0; i < 300; i++) {
        random = random * 1664525u + 1013904223u;
        alarm_clock clock = {.timer.fire = ring};
        int64_t due_ns = now_ns + (int64_t)(random >> 4) % (3 * ROUND_NS);
        mir_timer_set(&wheel, &clock.timer, due_ns);
        for (int steps = 0; clock.fired == 0; steps++) {
            int64_t sleep_ns = mir_timer_sleep_ns(&wheel, now_ns, ROUND_NS / 2);
            assert_true(sleep_ns <= ROUND_NS / 2 && sleep_ns >= 0 && steps < 30);
            (void)advance_to(now_ns + sleep_ns, 100);
        }
        assert_true(now_ns < due_ns + 2 * TICK_NS);
    }
}

static void one_slot_of_many_rounds_is_looked_through_once(void **state)
{
    (void)state;
    /* Far timers that share their slot with due ones must not be walked again for each of these:
     * that would take minutes here. */
    enum { FAR = 100000, DUE = 20000 };
    alarm_clock *clocks = calloc(FAR + DUE, sizeof *clocks);
    assert_non_null(clocks);
    for (int i = 0; i < FAR + DUE; i++) {
        clocks[i].timer.fire = ring;
        mir_timer_set(&wheel, &clocks[i].timer, now_ns + TICK_NS + (i < FAR ? ROUND_NS : 0));
    }
    int64_t before_ns = mir_clock_mono_ns();
    assert_int_equal(advance_to(now_ns + 2 * TICK_NS, FAR + DUE), DUE);
    assert_true(mir_clock_mono_ns() - before_ns < MIR_NS_PER_S);
    for (int i = 0; i < FAR; i++) mir_timer_cancel(&wheel, &clocks[i].timer);
    free(clocks);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup(a_timer_fires_once_and_never_early, setup),
        cmocka_unit_test_setup(a_timer_in_the_past_fires_at_the_next_tick, setup),
        cmocka_unit_test_setup(a_timer_may_lie_at_the_end_of_time, setup),
        cmocka_unit_test_setup(rounds_of_the_wheel_are_passed_over, setup),
        cmocka_unit_test_setup(a_long_sleep_loses_nothing, setup),
        cmocka_unit_test_setup(what_exceeds_the_budget_stays_due, setup),
        cmocka_unit_test_setup(a_callback_may_set_itself_again_and_cancel_others, setup),
        cmocka_unit_test_setup(a_callback_that_is_always_due_uses_the_budget_and_no_more, setup),
        cmocka_unit_test_setup(setting_moves_and_cancelling_twice_is_fine, setup),
        cmocka_unit_test_setup(sleeping_as_long_as_one_may_never_misses_a_timer, setup),
        cmocka_unit_test_setup(one_slot_of_many_rounds_is_looked_through_once, setup),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
