/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_responses.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>

#include <cmocka.h>

static mir_responses *responses;

static int set_up(void **state)
{
    (void)state;
    responses = mir_responses_create();
    return responses == NULL ? -1 : 0;
}

static int tear_down(void **state)
{
    (void)state;
    mir_responses_destroy(responses);
    return 0;
}

static void note(unsigned n, int64_t max, int64_t expires_ns, int64_t now_ns)
{
    char text[32];
    (void)snprintf(text, sizeof text, "in.%u", n);
    mir_responses_note(responses, mir_view_cstr(text), max, expires_ns, now_ns);
}

static bool take(unsigned n, int64_t now_ns)
{
    char text[32];
    (void)snprintf(text, sizeof text, "in.%u", n);
    return mir_responses_take(responses, mir_view_cstr(text), now_ns);
}

static void as_many_answers_as_were_asked_for(void **state)
{
    (void)state;
    assert_false(take(1, 0));
    note(1, 2, 100, 0);
    note(2, 1, 100, 0);
    assert_true(take(1, 1));
    assert_true(take(2, 1));
    assert_false(take(2, 1));
    assert_true(take(1, 1));
    assert_false(take(1, 1));
    assert_int_equal(mir_responses_count(responses), 0);
    note(3, -1, 100, 0);
    note(3, 1, 100, 0);
    for (unsigned i = 0; i < 100; i++) assert_true(take(3, 1));
}

static void each_question_earns_its_answers(void **state)
{
    (void)state;
    note(1, 1, 100, 0);
    note(1, 1, 100, 50);
    assert_int_equal(mir_responses_count(responses), 1);
    assert_true(take(1, 120));
    assert_true(take(1, 120));
    assert_false(take(1, 120));
    /* What was left when its time was over is not left to a later question. */
    note(1, 3, 100, 200);
    note(1, 1, 100, 301);
    assert_true(take(1, 302));
    assert_false(take(1, 302));
    note(1, INT64_MAX, 100, 400);
    note(1, INT64_MAX, 100, 400);
    assert_true(take(1, 401));
    note(1, 1, INT64_MAX, 401);
    assert_true(take(1, INT64_MAX));
}

static void an_answer_comes_in_time_or_not_at_all(void **state)
{
    (void)state;
    note(1, 5, 100, 1000);
    assert_true(take(1, 1100));
    assert_false(take(1, 1101));
    assert_int_equal(mir_responses_count(responses), 0);
    note(2, 5, -1, 1000);
    assert_true(take(2, INT64_MAX));
    /* It lies behind younger ones that are still good for a while. */
    note(3, 5, 100, 1000);
    assert_false(take(3, 1101));
}

static void old_questions_go_a_few_at_a_time(void **state)
{
    (void)state;
    for (unsigned i = 0; i < 1000; i++) note(i, 1, 100, 0);
    assert_int_equal(mir_responses_count(responses), 1000);
    for (unsigned i = 1; i <= 1000 / MIR_RESPONSES_STEP; i++) {
        assert_false(take(5000, 101));
        assert_int_equal(mir_responses_count(responses), 1000 - i * MIR_RESPONSES_STEP);
    }
    for (unsigned i = 0; i < 1000; i++) note(i, 1, 100, 200);
    for (unsigned i = 0; i < 1000; i++) {
        note(2000 + i, 1, 100, 301);
        assert_true(mir_responses_count(responses) <= 1000);
    }
    assert_int_equal(mir_responses_count(responses), 1000);
}

static void the_oldest_question_makes_room(void **state)
{
    (void)state;
    for (unsigned i = 0; i < MIR_RESPONSES_MAX; i++) note(i, 1, -1, 0);
    note(0, 1, -1, 0); /* is the newest now */
    note(MIR_RESPONSES_MAX, 1, -1, 0);
    assert_int_equal(mir_responses_count(responses), MIR_RESPONSES_MAX);
    assert_false(take(1, 0));
    assert_true(take(0, 0));
    for (unsigned i = 2; i <= MIR_RESPONSES_MAX; i++) assert_true(take(i, 0));
    assert_true(take(0, 0));
    assert_int_equal(mir_responses_count(responses), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(as_many_answers_as_were_asked_for, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_question_earns_its_answers, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_answer_comes_in_time_or_not_at_all, set_up, tear_down),
        cmocka_unit_test_setup_teardown(old_questions_go_a_few_at_a_time, set_up, tear_down),
        cmocka_unit_test_setup_teardown(the_oldest_question_makes_room, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
