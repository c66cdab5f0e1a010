/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>
#include <cmocka.h>

#include "mir_clock.h"
#include "mir_workers.h"

typedef struct work {
    mir_job job;
    _Atomic unsigned *done;
    mir_workers *next_pool; /* not null: submits itself there once more */
} work;

static void count_and_free(mir_job *job)
{
    work *w = (work *)(void *)job;
    _Atomic unsigned *done = w->done;
    if (w->next_pool != NULL) {
        mir_workers *pool = w->next_pool;
        w->next_pool = NULL;
        mir_workers_submit(pool, job);
    } else {
        free(w);
    }
    atomic_fetch_add(done, 1);
}

static void every_job_runs_before_the_pool_is_gone(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        mir_workers *pool;
        _Atomic unsigned done = 0;
        assert_int_equal(mir_workers_create(threads, 19, "worker", &pool), MIR_OK);
        for (unsigned i = 0; i < 5000; i++) {
            work *w = malloc(sizeof *w);
            assert_non_null(w);
            *w = (work){.job.run = count_and_free, .done = &done};
            mir_workers_submit(pool, &w->job);
        }
        mir_workers_destroy(pool);
        assert_int_equal(atomic_load(&done), 5000);
    }
    mir_workers_destroy(NULL);
}

static void a_job_may_submit_another(void **state)
{
    (void)state;
    mir_workers *pool;
    _Atomic unsigned done = 0;
    assert_int_equal(mir_workers_create(2, 0, "a name that is far too long", &pool), MIR_OK);
    for (unsigned i = 0; i < 500; i++) {
        work *w = malloc(sizeof *w);
        assert_non_null(w);
        *w = (work){.job.run = count_and_free, .done = &done, .next_pool = pool};
        mir_workers_submit(pool, &w->job);
    }
    while (atomic_load(&done) < 1000) (void)sched_yield();
    mir_workers_destroy(pool);
}

typedef struct chain {
    mir_job job;
    mir_workers *pool;
    unsigned left;
} chain;

static void submit_next(mir_job *job)
{
    chain *c = (chain *)(void *)job;
    if (--c->left != 0) mir_workers_submit(c->pool, job);
}

static void what_a_job_submits_while_the_pool_ends_runs_too(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 4; threads++) {
        for (unsigned round = 0; round < 20; round++) {
            mir_workers *pool;
            assert_int_equal(mir_workers_create(threads, 0, "worker", &pool), MIR_OK);
            chain chains[3];
            for (unsigned i = 0; i < 3; i++) {
                chains[i] = (chain){.job.run = submit_next, .pool = pool, .left = 1000};
                mir_workers_submit(pool, &chains[i].job);
            }
            mir_workers_destroy(pool);
            for (unsigned i = 0; i < 3; i++) assert_int_equal(chains[i].left, 0);
        }
    }
}

/* Uses a processor until it may end; what it had of it then. */
typedef struct burner {
    mir_job job;
    _Atomic bool may_end, has_ended;
    int nice_at_first, nice_at_last;
} burner;

static void burn(mir_job *job)
{
    burner *b = (burner *)(void *)job;
    b->nice_at_first = getpriority(PRIO_PROCESS, (id_t)gettid());
    while (!atomic_load(&b->may_end)) continue;
    b->nice_at_last = getpriority(PRIO_PROCESS, (id_t)gettid());
    atomic_store(&b->has_ended, true);
}

static void await(_Atomic bool *what)
{
    const struct timespec step = {.tv_nsec = 1000 * 1000};
    for (int64_t until = mir_clock_mono_ns() + 120 * MIR_NS_PER_S; !atomic_load(what);) {
        if (mir_clock_mono_ns() > until) fail_msg("it does not happen");
        (void)nanosleep(&step, NULL);
    }
}

/* One thread: whatever runs while a long job does has another one, with everybody's priority. */
static void a_long_job_of_a_mixed_pool_gives_way(void **state)
{
    (void)state;
    mir_workers *pool;
    int ours = getpriority(PRIO_PROCESS, (id_t)gettid());
    burner longs[MIR_WORKERS_LONG_MAX + 1] = {0}, brief = {.may_end = true};
    assert_int_equal(mir_workers_create_mixed(1, "mixed", &pool), MIR_OK);
    for (unsigned i = 0; i < MIR_WORKERS_LONG_MAX; i++) {
        longs[i].job.run = burn;
        mir_workers_submit(pool, &longs[i].job);
    }
    brief.job.run = burn;
    mir_workers_submit(pool, &brief.job);
    await(&brief.has_ended);
    assert_int_equal(brief.nice_at_last, ours);
    for (unsigned i = 0; i < MIR_WORKERS_LONG_MAX; i++)
        assert_false(atomic_load(&longs[i].has_ended));
    /* One more than may be long beside the pool keeps the thread, until one of the others ends. */
    burner *last = &longs[MIR_WORKERS_LONG_MAX];
    last->job.run = burn;
    mir_workers_submit(pool, &last->job);
    burner next = {.job.run = burn, .may_end = true};
    mir_workers_submit(pool, &next.job);
    atomic_store(&longs[0].may_end, true);
    await(&next.has_ended);
    assert_int_equal(next.nice_at_last, ours);
    for (unsigned i = 1; i <= MIR_WORKERS_LONG_MAX; i++) atomic_store(&longs[i].may_end, true);
    mir_workers_destroy(pool);
    for (unsigned i = 0; i <= MIR_WORKERS_LONG_MAX; i++) {
        assert_true(atomic_load(&longs[i].has_ended));
        assert_int_equal(longs[i].nice_at_first, ours);
    }
    for (unsigned i = 1; i < MIR_WORKERS_LONG_MAX; i++) assert_int_equal(longs[i].nice_at_last, 19);
}

typedef struct breather {
    mir_job job;
    int nice_at_first, nice_at_last;
} breather;

static int64_t used_ns(void)
{
    struct timespec used;
    assert_int_equal(clock_gettime(CLOCK_THREAD_CPUTIME_ID, &used), 0);
    return used.tv_sec * MIR_NS_PER_S + used.tv_nsec;
}

static void breathe(mir_job *job)
{
    breather *b = (breather *)(void *)job;
    const int64_t from_ns = used_ns();
    mir_workers_breathe();
    b->nice_at_first = getpriority(PRIO_PROCESS, (id_t)gettid());
    while (used_ns() - from_ns < 2 * MIR_WORKERS_BRIEF_US * MIR_NS_PER_US) continue;
    mir_workers_breathe();
    b->nice_at_last = getpriority(PRIO_PROCESS, (id_t)gettid());
}

static void who_breathes_gives_way_soon(void **state)
{
    (void)state;
    mir_workers *pool;
    int ours = getpriority(PRIO_PROCESS, (id_t)gettid());
    mir_workers_breathe(); /* it is nobody's job */
    assert_int_equal(getpriority(PRIO_PROCESS, (id_t)gettid()), ours);
    breather in_turn[3] = {0};
    assert_int_equal(mir_workers_create_mixed(1, "mixed", &pool), MIR_OK);
    for (unsigned i = 0; i < 3; i++) {
        in_turn[i].job.run = breathe;
        mir_workers_submit(pool, &in_turn[i].job);
    }
    mir_workers_destroy(pool);
    for (unsigned i = 0; i < 3; i++) {
        assert_int_equal(in_turn[i].nice_at_first, ours);
        assert_int_equal(in_turn[i].nice_at_last, 19);
    }
    breather alone = {.job.run = breathe};
    assert_int_equal(mir_workers_create(1, 0, "plain", &pool), MIR_OK);
    mir_workers_submit(pool, &alone.job);
    mir_workers_destroy(pool);
    assert_int_equal(alone.nice_at_last, ours);
}

static void a_mixed_pool_runs_everything(void **state)
{
    (void)state;
    for (unsigned threads = 1; threads <= 3; threads++) {
        mir_workers *pool;
        _Atomic unsigned done = 0;
        assert_int_equal(mir_workers_create_mixed(threads, "mixed", &pool), MIR_OK);
        for (unsigned i = 0; i < 3000; i++) {
            work *w = malloc(sizeof *w);
            assert_non_null(w);
            *w = (work){.job.run = count_and_free, .done = &done};
            mir_workers_submit(pool, &w->job);
        }
        mir_workers_destroy(pool);
        assert_int_equal(atomic_load(&done), 3000);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_before_the_pool_is_gone),
        cmocka_unit_test(a_job_may_submit_another),
        cmocka_unit_test(what_a_job_submits_while_the_pool_ends_runs_too),
        cmocka_unit_test(a_long_job_of_a_mixed_pool_gives_way),
        cmocka_unit_test(who_breathes_gives_way_soon),
        cmocka_unit_test(a_mixed_pool_runs_everything),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
