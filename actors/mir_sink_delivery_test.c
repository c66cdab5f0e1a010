/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "mir_sink_delivery.h"

/* The other side: refuses lines with an `x`, all of a body that has one, and answers as it is told
 * first. The clock is what is waited for. */
typedef struct peer {
    long script[16]; /* statuses before it does its work; 0 ends them, -1 is no answer */
    unsigned at;
    int64_t retry_after_ns;
    bool partial;   /* it takes what it can of a body that it refuses */
    bool elsewhere; /* nobody wants lines there, which is answered as a wrong line is */
    bool takes;     /* as the sender knows */
    mir_sink_pace pace;
    uint32_t lines_in_time; /* of more it says nothing in time; 0: it is fast */
    unsigned timeouts;
    unsigned asked; /* whether it is the lines */
    unsigned posts;
    unsigned waits;
    int64_t waited_ns;
    int64_t last_wait_ns;
    unsigned waits_max;    /* 0: any number */
    unsigned mended_after; /* so many waits somebody has put `elsewhere` right; 0: nobody does */
    char taken[4096];
    uint32_t accepted;
    uint64_t refused;
    char refused_lines[4096];
    unsigned failures;
} peer;

static void peer_post(void *context, mir_view body, mir_sink_answer *answer)
{
    peer *p = context;
    p->posts++;
    assert_true(body.size > 0);
    assert_int_equal(body.data[body.size - 1], '\n');
    const bool is_line = body.data[0] != '#';
    if (!is_line) p->asked++;
    if (p->at < 16 && p->script[p->at] != 0) {
        const long status = p->script[p->at++];
        answer->http_status = status < 0 ? 0 : status;
        answer->retry_after_ns = p->retry_after_ns;
        (void)snprintf(answer->text, sizeof answer->text, "scripted");
        return;
    }
    uint32_t lines = 0;
    for (size_t i = 0; i < body.size; i++) lines += body.data[i] == '\n';
    if (p->lines_in_time > 0 && lines > p->lines_in_time) {
        p->timeouts++;
        answer->slow = true;
        (void)snprintf(answer->text, sizeof answer->text, "scripted");
        return;
    }
    if (p->elsewhere) {
        answer->http_status = 400;
        (void)snprintf(answer->text, sizeof answer->text, "scripted");
        return;
    }
    uint64_t bad = 0;
    for (size_t i = 0; i < body.size; i++) bad += body.data[i] == 'x';
    if (bad > 0) {
        answer->http_status = 400;
        if (p->partial) answer->partial = bad;
        (void)snprintf(answer->text, sizeof answer->text, "there is an x");
        if (!p->partial) return;
    } else {
        answer->http_status = 204;
    }
    if (is_line) strncat(p->taken, (const char *)body.data, body.size);
}

static bool peer_wait(void *context, int64_t ns)
{
    peer *p = context;
    p->waits++;
    p->waited_ns += ns;
    p->last_wait_ns = ns;
    if (p->waits == p->mended_after) p->elsewhere = false;
    return p->waits_max == 0 || p->waits < p->waits_max;
}

static uint64_t peer_random(void *context)
{
    const peer *p = context;
    return p->posts * UINT64_C(0x9e3779b97f4a7c15);
}

static void peer_failed(void *context, const mir_sink_answer *answer, int64_t wait_ns)
{
    peer *p = context;
    assert_true(wait_ns > 0);
    assert_string_equal(answer->text, "scripted");
    p->failures++;
}

static void peer_accepted(void *context, uint32_t lines, size_t bytes)
{
    peer *p = context;
    assert_true(bytes > 0);
    p->accepted += lines;
}

static void peer_refused(void *context, uint64_t lines, mir_view line,
                         const mir_sink_answer *answer)
{
    peer *p = context;
    assert_string_equal(answer->text, "there is an x");
    p->refused += lines;
    strncat(p->refused_lines, (const char *)line.data, line.size);
}

static mir_status deliver(peer *p, const char *text)
{
    mir_sink_lines lines = {0};
    for (const char *at = text; *at != '\0';) {
        const size_t size = strcspn(at, "\n") + 1;
        mir_bytes_append(&lines.text, at, size);
        assert_int_equal(mir_sink_lines_add(&lines), MIR_OK);
        at += size;
    }
    const mir_sink_port port = {.context = p,
                                .post = peer_post,
                                .wait = peer_wait,
                                .random = peer_random,
                                .failed = peer_failed,
                                .accepted = peer_accepted,
                                .refused = peer_refused,
                                .takes = &p->takes,
                                .pace = &p->pace};
    const mir_status status = mir_sink_deliver(&lines, &port);
    mir_sink_lines_fini(&lines);
    return status;
}

static void a_batch_is_one_post(void **state)
{
    (void)state;
    peer p = {0};
    assert_int_equal(deliver(&p, "a\nb\nc\n"), MIR_OK);
    assert_string_equal(p.taken, "a\nb\nc\n");
    assert_int_equal(p.posts, 1);
    assert_int_equal(p.accepted, 3);
    assert_int_equal(deliver(&p, ""), MIR_OK);
    assert_int_equal(p.posts, 1);
}

static void refused_lines_are_found_and_cost_nobody_else(void **state)
{
    (void)state;
    peer p = {0};
    assert_int_equal(deliver(&p, "a\nx1\nb\nc\nd\ne\nx2\nf\ng\nx3\n"), MIR_OK);
    assert_string_equal(p.taken, "a\nb\nc\nd\ne\nf\ng\n");
    assert_string_equal(p.refused_lines, "x1\nx2\nx3\n");
    assert_int_equal(p.accepted, 7);
    assert_int_equal(p.refused, 3);
    assert_true(p.posts <= 20);
    assert_int_equal(p.waits, 0);
    /* All of them. */
    peer q = {0};
    assert_int_equal(deliver(&q, "x1\nx2\nx3\nx4\nx5\n"), MIR_OK);
    assert_int_equal(q.refused, 5);
    assert_int_equal(q.accepted, 0);
    assert_true(q.posts <= 10);
}

static void who_says_how_many_it_left_out_is_believed(void **state)
{
    (void)state;
    peer p = {.partial = true};
    assert_int_equal(deliver(&p, "a\nx1\nb\nx2\n"), MIR_OK);
    assert_int_equal(p.posts, 1);
    assert_int_equal(p.accepted, 2);
    assert_int_equal(p.refused, 2);
    assert_int_equal(
        mir_sink_partial_of(mir_view_cstr("{\"error\":\"partial write: field type conflict: input "
                                          "field \\\"v\\\" dropped=12\"}")),
        12);
    assert_int_equal(mir_sink_partial_of(mir_view_cstr("partial write: dropped=")), 0);
    assert_int_equal(mir_sink_partial_of(mir_view_cstr("partial write: dropped=0")), 0);
    assert_int_equal(mir_sink_partial_of(mir_view_cstr("dropped=7")), 0);
    assert_int_equal(mir_sink_partial_of((mir_view){0}), 0);
    /* What it shows of a line that it refuses says nothing: a device wrote it. */
    assert_int_equal(
        mir_sink_partial_of(mir_view_cstr("{\"error\":\"unable to parse 'm s=\\\"partial write "
                                          "dropped=3\\\"': bad\"}")),
        0);
    assert_int_equal(
        mir_sink_partial_of(mir_view_cstr("{\"error\":\"partial write: unable to parse 'm "
                                          "s=\\\"dropped=3\\\"': bad dropped=1\"}\n")),
        1);
    assert_true(mir_sink_partial_of(mir_view_cstr("partial write dropped=99999999999999999999")) >
                UINT32_MAX);
}

static void failures_are_tried_again_ever_later(void **state)
{
    (void)state;
    peer p = {.script = {-1, 500, 503, 429, 401, 404, 301, 408}};
    assert_int_equal(deliver(&p, "a\nb\n"), MIR_OK);
    assert_string_equal(p.taken, "a\nb\n");
    assert_int_equal(p.posts, 10); /* since the 500 one by one */
    assert_int_equal(p.failures, 8);
    assert_true(p.last_wait_ns > p.waited_ns / 8);
    /* A refusal in the middle begins anew; the line before it is not sent again. */
    peer q = {.script = {400, 204, 204, 500, 500}};
    assert_int_equal(deliver(&q, "a\nb\n"), MIR_OK);
    assert_string_equal(q.taken, "b\n");
    assert_int_equal(q.waits, 2);
}

static void a_wrong_place_is_no_fault_of_the_lines(void **state)
{
    (void)state;
    peer p = {.elsewhere = true, .mended_after = 3};
    assert_int_equal(deliver(&p, "a\nb\nx1\nc\n"), MIR_OK);
    assert_string_equal(p.taken, "a\nb\nc\n");
    assert_string_equal(p.refused_lines, "x1\n");
    assert_int_equal(p.waits, 3);
    assert_int_equal(p.failures, 3);
    assert_int_equal(p.asked, 4);
    /* One line alone is not lost either. */
    peer q = {.elsewhere = true, .mended_after = 2};
    assert_int_equal(deliver(&q, "a\n"), MIR_OK);
    assert_string_equal(q.taken, "a\n");
    assert_int_equal(q.refused, 0);
    /* Who took some is not asked, until something else goes wrong. */
    peer r = {0};
    assert_int_equal(deliver(&r, "a\n"), MIR_OK);
    assert_int_equal(deliver(&r, "x1\n"), MIR_OK);
    assert_int_equal(r.asked, 0);
    assert_int_equal(r.refused, 1);
    r.script[0] = 503;
    assert_int_equal(deliver(&r, "x2\nx3\n"), MIR_OK);
    assert_int_equal(r.asked, 1);
    assert_int_equal(r.refused, 3);
    /* Whether it is the lines cannot always be told at once. */
    peer s = {.script = {400, 503, 400, -1}};
    assert_int_equal(deliver(&s, "a\n"), MIR_OK);
    assert_string_equal(s.taken, "a\n");
    assert_int_equal(s.waits, 2);
    assert_int_equal(s.refused, 0);
}

/* It would get nothing at all otherwise, as each try is the whole batch. */
static void who_is_slow_gets_less_at_once(void **state)
{
    (void)state;
    char text[1024] = "";
    for (int i = 0; i < 200; i++) (void)strcat(text, i % 50 == 7 ? "ax\n" : "abc\n");
    for (uint32_t lines = 1; lines < 100; lines = lines * 3 + 1) {
        peer p = {.lines_in_time = lines, .waits_max = 50};
        assert_int_equal(deliver(&p, text), MIR_OK);
        assert_int_equal(p.accepted, 196);
        assert_int_equal(p.refused, 4);
        assert_true(p.timeouts < 20);
        /* What it can do is known to the next batch, and tried again now and then. */
        p.timeouts = 0;
        p.taken[0] = p.refused_lines[0] = '\0';
        assert_int_equal(deliver(&p, text), MIR_OK);
        assert_int_equal(p.accepted, 2 * 196);
        assert_true(p.timeouts < 16); /* once in 16 posts */
    }
    /* One that is fast again gets all at once. */
    peer p = {.lines_in_time = 3};
    assert_int_equal(deliver(&p, "a\nb\nc\nd\ne\nf\n"), MIR_OK);
    assert_string_equal(p.taken, "a\nb\nc\nd\ne\nf\n");
    p.lines_in_time = 0;
    for (int i = 0; i < 60; i++) {
        p.taken[0] = '\0';
        p.posts = 0;
        assert_int_equal(deliver(&p, "a\nb\nc\nd\ne\nf\n"), MIR_OK);
    }
    assert_int_equal(p.posts, 1);
}

static void a_stop_ends_it(void **state)
{
    (void)state;
    peer p = {.script = {500, 500, 500, 500}, .waits_max = 3};
    assert_int_equal(deliver(&p, "a\n"), MIR_E_CANCELLED);
    assert_int_equal(p.posts, 3);
    assert_int_equal(p.accepted, 0);
}

static void waits_have_bounds(void **state)
{
    (void)state;
    int64_t least = INT64_MAX;
    int64_t most = 0;
    for (uint64_t random = 0; random < 1000; random++) {
        const int64_t wait_ns = mir_sink_backoff_ns(1, 0, random * UINT64_C(0x9e3779b97f4a7c15));
        if (wait_ns < least) least = wait_ns;
        if (wait_ns > most) most = wait_ns;
    }
    assert_true(least >= MIR_SINK_BACKOFF_MIN_NS / 2);
    assert_true(most <= MIR_SINK_BACKOFF_MIN_NS);
    assert_true(most - least > MIR_SINK_BACKOFF_MIN_NS / 4);
    for (unsigned n = 1; n < 100; n++) {
        const int64_t wait_ns = mir_sink_backoff_ns(n, 0, UINT64_MAX);
        assert_true(wait_ns >= MIR_SINK_BACKOFF_MIN_NS / 2);
        assert_true(wait_ns <= MIR_SINK_BACKOFF_MAX_NS);
    }
    assert_true(mir_sink_backoff_ns(UINT32_MAX, 0, 0) == MIR_SINK_BACKOFF_MAX_NS / 2);
    /* What it asks for, but not for ever, and no less than without. */
    assert_int_equal(mir_sink_backoff_ns(1, 7 * MIR_NS_PER_S, 0), 7 * MIR_NS_PER_S);
    assert_int_equal(mir_sink_backoff_ns(1, INT64_MAX, 0), MIR_SINK_RETRY_AFTER_MAX_NS);
    assert_true(mir_sink_backoff_ns(50, 1, 0) >= MIR_SINK_BACKOFF_MAX_NS / 2);
    peer p = {.script = {429}, .retry_after_ns = 9 * MIR_NS_PER_S};
    assert_int_equal(deliver(&p, "a\n"), MIR_OK);
    assert_int_equal(p.waited_ns, 9 * MIR_NS_PER_S);
}

static void statuses_are_judged(void **state)
{
    (void)state;
    static const struct {
        long status;
        mir_sink_verdict verdict;
    } cases[] = {{200, MIR_SINK_ACCEPTED}, {204, MIR_SINK_ACCEPTED}, {400, MIR_SINK_REFUSED},
                 {413, MIR_SINK_REFUSED},  {422, MIR_SINK_REFUSED},  {415, MIR_SINK_AGAIN},
                 {401, MIR_SINK_AGAIN},    {403, MIR_SINK_AGAIN},    {404, MIR_SINK_AGAIN},
                 {429, MIR_SINK_AGAIN},    {500, MIR_SINK_AGAIN},    {503, MIR_SINK_AGAIN},
                 {302, MIR_SINK_AGAIN},    {0, MIR_SINK_AGAIN},      {100, MIR_SINK_AGAIN},
                 {-1, MIR_SINK_AGAIN}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(mir_sink_judge(cases[i].status), cases[i].verdict);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_batch_is_one_post),
        cmocka_unit_test(refused_lines_are_found_and_cost_nobody_else),
        cmocka_unit_test(who_says_how_many_it_left_out_is_believed),
        cmocka_unit_test(failures_are_tried_again_ever_later),
        cmocka_unit_test(a_wrong_place_is_no_fault_of_the_lines),
        cmocka_unit_test(who_is_slow_gets_less_at_once),
        cmocka_unit_test(a_stop_ends_it),
        cmocka_unit_test(waits_have_bounds),
        cmocka_unit_test(statuses_are_judged),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
