/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_workers.h"

#include <errno.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_thread.h"

enum { LOOK_MS = 25 }; /* at jobs that run in a mixed pool */

/* A thread. It has a place of the pool until it has become one for a long job. */
typedef struct runner {
    struct runner *next; /* of all; the keeper's, or whoever creates and destroys */
    mir_workers *pool;
    struct place *place;
    pthread_t thread;
    /* Under the place's lock, while it is the place's: */
    pid_t tid;
    clockid_t clock;      /* what it has used of processors */
    int64_t job_clock_ns; /* of that, when its job began; negative: it has none */
    bool gives_way;
    bool has_given_way; /* the thread's own: it has asked for it itself */
    _Atomic bool has_ended;
} runner;

typedef struct place {
    mir_mpsc jobs;
    sem_t wakes;
    _Atomic uint32_t queued;
    pthread_mutex_t lock; /* never held while a job runs */
    mir_mpsc_node *list;  /* taken from `jobs` */
    runner *runner;       /* null: the keeper is to make one */
    char name[16];
} place;

struct mir_workers {
    _Atomic uint64_t unfinished; /* jobs of all threads */
    _Atomic bool stopping;
    int nice_level;
    bool is_mixed;
    pthread_t keeper;
    sem_t keeper_wakes;
    _Atomic bool keeper_sleeps;
    unsigned long_count;
    runner *runners;
    unsigned count;
    place places[];
};

/* Of the calling thread, if it runs jobs of a mixed pool. */
static _Thread_local runner *own_runner;

static void wake_keeper(mir_workers *pool)
{
    if (pool->is_mixed) (void)sem_post(&pool->keeper_wakes);
}

static void wake_all(mir_workers *pool)
{
    for (unsigned i = 0; i < pool->count; i++) (void)sem_post(&pool->places[i].wakes);
    wake_keeper(pool);
}

static bool is_over(mir_workers *pool)
{
    return atomic_load(&pool->stopping) && atomic_load(&pool->unfinished) == 0;
}

static int64_t clock_ns(clockid_t clock)
{
    struct timespec now;
    if (clock_gettime(clock, &now) != 0) return 0;
    return now.tv_sec * MIR_NS_PER_S + now.tv_nsec;
}

/* The next job of the place, if it is still this thread's. */
static mir_job *take(runner *r, bool *is_mine)
{
    place *p = r->place;
    mir_workers *pool = r->pool;
    (void)pthread_mutex_lock(&p->lock);
    r->job_clock_ns = -1;
    /* A thread cannot get back the priority that it has lost: another one takes its place. */
    if (p->runner == r && r->gives_way) p->runner = NULL;
    *is_mine = p->runner == r;
    mir_mpsc_node *node = NULL;
    if (*is_mine) {
        if (p->list == NULL) p->list = mir_mpsc_take(&p->jobs);
        node = p->list;
        if (node != NULL) p->list = node->next;
        if (node != NULL && pool->is_mixed) r->job_clock_ns = clock_ns(r->clock);
    }
    (void)pthread_mutex_unlock(&p->lock);
    if (node != NULL && pool->is_mixed && atomic_load(&pool->keeper_sleeps) &&
        atomic_exchange(&pool->keeper_sleeps, false))
        wake_keeper(pool);
    return (mir_job *)(void *)node;
}

/* Its jobs are the next one's from when it has become long. */
static bool has_place(runner *r)
{
    (void)pthread_mutex_lock(&r->place->lock);
    bool has = r->place->runner == r;
    (void)pthread_mutex_unlock(&r->place->lock);
    return has;
}

static void *runner_main(void *argument)
{
    runner *r = argument;
    place *p = r->place;
    mir_workers *pool = r->pool;
    (void)pthread_setname_np(pthread_self(), p->name);
    if (pool->nice_level != 0 || pool->is_mixed) mir_thread_give_way(pool->nice_level);
    (void)pthread_mutex_lock(&p->lock);
    r->tid = gettid();
    (void)pthread_getcpuclockid(pthread_self(), &r->clock);
    (void)pthread_mutex_unlock(&p->lock);
    if (pool->is_mixed) own_runner = r;
    bool is_mine = true;
    for (;;) {
        mir_job *job;
        while ((job = take(r, &is_mine)) != NULL) {
            job->run(job);
            if (!pool->is_mixed || has_place(r))
                atomic_fetch_sub_explicit(&p->queued, 1, memory_order_relaxed);
            /* Sequentially consistent with destroy: either it sees that nothing is left, or the
             * thread that finishes the last job sees that the pool stops. A job may submit another
             * to any thread, so none of them ends before. */
            if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->stopping))
                wake_all(pool);
        }
        if (!is_mine || is_over(pool)) break;
        while (sem_wait(&p->wakes) != 0) continue;
    }
    atomic_store(&r->has_ended, true);
    if (!is_mine) wake_keeper(pool);
    return NULL;
}

void mir_workers_breathe(void)
{
    runner *r = own_runner;
    /* Only this thread writes when its job began, and there is no way back from giving way. */
    if (r == NULL || r->has_given_way ||
        clock_ns(r->clock) - r->job_clock_ns < MIR_WORKERS_BRIEF_US * MIR_NS_PER_US)
        return;
    r->has_given_way = true;
    place *p = r->place;
    (void)pthread_mutex_lock(&p->lock);
    r->gives_way = true;
    (void)pthread_mutex_unlock(&p->lock);
    mir_thread_lower(r->tid);
    wake_keeper(r->pool);
}

static mir_status start_runner(mir_workers *pool, place *p)
{
    runner *r = calloc(1, sizeof *r);
    if (r == NULL) return MIR_E_NO_MEMORY;
    r->pool = pool;
    r->place = p;
    r->job_clock_ns = -1;
    (void)pthread_mutex_lock(&p->lock);
    p->runner = r;
    (void)pthread_mutex_unlock(&p->lock);
    int rc = pthread_create(&r->thread, NULL, runner_main, r);
    if (rc != 0) {
        (void)pthread_mutex_lock(&p->lock);
        p->runner = NULL;
        (void)pthread_mutex_unlock(&p->lock);
        free(r);
        return mir_status_from_errno(rc);
    }
    r->next = pool->runners;
    pool->runners = r;
    return MIR_OK;
}

/* --- the keeper of a mixed pool --------------------------------------------------------------- */

/* Whether a job runs at the place. */
static bool look_at(mir_workers *pool, place *p)
{
    (void)pthread_mutex_lock(&p->lock);
    runner *r = p->runner;
    bool runs = r != NULL && r->job_clock_ns >= 0;
    if (runs && !r->gives_way &&
        clock_ns(r->clock) - r->job_clock_ns > MIR_WORKERS_SHORT_MS * MIR_NS_PER_MS) {
        mir_thread_lower(r->tid);
        r->gives_way = true;
    }
    if (runs && r->gives_way && pool->long_count < MIR_WORKERS_LONG_MAX) {
        pool->long_count++;
        p->runner = NULL;
        /* It is one of this place no more. */
        atomic_fetch_sub_explicit(&p->queued, 1, memory_order_relaxed);
    }
    bool is_vacant = p->runner == NULL;
    (void)pthread_mutex_unlock(&p->lock);
    /* Without one it tries again soon. */
    return is_vacant ? start_runner(pool, p) != MIR_OK || runs : runs;
}

static void reap(mir_workers *pool)
{
    for (runner **at = &pool->runners; *at != NULL;) {
        runner *r = *at;
        if (!atomic_load(&r->has_ended)) {
            at = &r->next;
            continue;
        }
        (void)pthread_join(r->thread, NULL);
        *at = r->next;
        free(r);
    }
    unsigned in_places = 0, all = 0;
    for (const runner *r = pool->runners; r != NULL; r = r->next) all++;
    for (unsigned i = 0; i < pool->count; i++) {
        (void)pthread_mutex_lock(&pool->places[i].lock);
        if (pool->places[i].runner != NULL) in_places++;
        (void)pthread_mutex_unlock(&pool->places[i].lock);
    }
    pool->long_count = all > in_places ? all - in_places : 0;
}

static void *keeper_main(void *argument)
{
    mir_workers *pool = argument;
    (void)pthread_setname_np(pthread_self(), "mir-keep-work");
    while (!is_over(pool)) {
        bool looks = false;
        atomic_store(&pool->keeper_sleeps, true);
        reap(pool);
        for (unsigned i = 0; i < pool->count; i++) looks |= look_at(pool, &pool->places[i]);
        if (looks) {
            struct timespec until;
            (void)clock_gettime(CLOCK_MONOTONIC, &until);
            until.tv_nsec += LOOK_MS * MIR_NS_PER_MS;
            if (until.tv_nsec >= MIR_NS_PER_S) {
                until.tv_nsec -= MIR_NS_PER_S;
                until.tv_sec++;
            }
            atomic_store(&pool->keeper_sleeps, false);
            (void)sem_clockwait(&pool->keeper_wakes, CLOCK_MONOTONIC, &until);
        } else {
            /* Who begins a job from here on sees that it sleeps. */
            (void)sem_wait(&pool->keeper_wakes);
        }
    }
    return NULL;
}

/* --- the pool ------------------------------------------------------------------------------- */

static mir_status create(unsigned thread_count, int nice_level, bool is_mixed, const char *name,
                         mir_workers **workers)
{
    mir_workers *fresh = calloc(1, sizeof *fresh + thread_count * sizeof fresh->places[0]);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->nice_level = nice_level;
    (void)sem_init(&fresh->keeper_wakes, 0, 0);
    for (unsigned i = 0; i < thread_count; i++) {
        place *p = &fresh->places[i];
        (void)snprintf(p->name, sizeof p->name, "%s%u", name, i);
        (void)sem_init(&p->wakes, 0, 0);
        (void)pthread_mutex_init(&p->lock, NULL);
    }
    fresh->count = thread_count;
    fresh->is_mixed = is_mixed;
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < thread_count && status == MIR_OK; i++)
        status = start_runner(fresh, &fresh->places[i]);
    if (status == MIR_OK && is_mixed)
        status = mir_status_from_errno(pthread_create(&fresh->keeper, NULL, keeper_main, fresh));
    if (status != MIR_OK) {
        fresh->is_mixed = false; /* it has no keeper */
        mir_workers_destroy(fresh);
        return status;
    }
    *workers = fresh;
    return MIR_OK;
}

mir_status mir_workers_create(unsigned thread_count, int nice_level, const char *name,
                              mir_workers **workers)
{
    return create(thread_count, nice_level, false, name, workers);
}

mir_status mir_workers_create_mixed(unsigned thread_count, const char *name, mir_workers **workers)
{
    return create(thread_count, 0, true, name, workers);
}

void mir_workers_submit(mir_workers *workers, mir_job *job)
{
    MIR_ASSERT(job->run != NULL && workers->count > 0);
    unsigned best = 0;
    uint32_t least = UINT32_MAX;
    for (unsigned i = 0; i < workers->count && least != 0; i++) {
        uint32_t queued = atomic_load_explicit(&workers->places[i].queued, memory_order_relaxed);
        if (queued < least) {
            least = queued;
            best = i;
        }
    }
    place *p = &workers->places[best];
    uint64_t before = atomic_fetch_add(&workers->unfinished, 1);
    /* After destroy began only jobs may submit. */
    MIR_ASSERT(before != 0 || !atomic_load(&workers->stopping));
    atomic_fetch_add_explicit(&p->queued, 1, memory_order_relaxed);
    if (mir_mpsc_push(&p->jobs, &job->node)) (void)sem_post(&p->wakes);
}

void mir_workers_destroy(mir_workers *workers)
{
    if (workers == NULL) return;
    atomic_store(&workers->stopping, true);
    wake_all(workers);
    if (workers->is_mixed) (void)pthread_join(workers->keeper, NULL);
    while (workers->runners != NULL) {
        runner *r = workers->runners;
        (void)pthread_join(r->thread, NULL);
        workers->runners = r->next;
        free(r);
    }
    for (unsigned i = 0; i < workers->count; i++) {
        (void)sem_destroy(&workers->places[i].wakes);
        (void)pthread_mutex_destroy(&workers->places[i].lock);
    }
    (void)sem_destroy(&workers->keeper_wakes);
    free(workers);
}
