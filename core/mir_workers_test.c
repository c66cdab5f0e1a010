/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <cmocka.h>

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(every_job_runs_before_the_pool_is_gone),
        cmocka_unit_test(a_job_may_submit_another),
        cmocka_unit_test(what_a_job_submits_while_the_pool_ends_runs_too),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
