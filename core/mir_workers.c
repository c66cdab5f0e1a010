/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_workers.h"

#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_thread.h"

typedef struct worker {
    mir_workers *pool;
    pthread_t thread;
    mir_mpsc jobs;
    sem_t wakes;
    _Atomic uint32_t queued;
    int nice_level;
    char name[16];
} worker;

struct mir_workers {
    _Atomic uint64_t unfinished; /* jobs of all threads */
    _Atomic bool stopping;
    unsigned count;
    worker workers[];
};

static void wake_all(mir_workers *pool)
{
    for (unsigned i = 0; i < pool->count; i++) (void)sem_post(&pool->workers[i].wakes);
}

static void *worker_main(void *argument)
{
    worker *w = argument;
    mir_workers *pool = w->pool;
    (void)pthread_setname_np(pthread_self(), w->name);
    if (w->nice_level != 0) mir_thread_give_way(w->nice_level);
    for (;;) {
        while (sem_wait(&w->wakes) != 0) continue;
        mir_mpsc_node *node = mir_mpsc_take(&w->jobs);
        while (node != NULL) {
            mir_mpsc_node *next = node->next;
            mir_job *job = (mir_job *)(void *)node;
            job->run(job);
            atomic_fetch_sub_explicit(&w->queued, 1, memory_order_relaxed);
            /* Sequentially consistent with destroy: either it sees that nothing is left, or the
             * thread that finishes the last job sees that the pool stops. A job may submit another
             * to any thread, so none of them ends before. */
            if (atomic_fetch_sub(&pool->unfinished, 1) == 1 && atomic_load(&pool->stopping))
                wake_all(pool);
            node = next;
        }
        if (atomic_load(&pool->stopping) && atomic_load(&pool->unfinished) == 0) return NULL;
    }
}

mir_status mir_workers_create(unsigned thread_count, int nice_level, const char *name,
                              mir_workers **workers)
{
    mir_workers *fresh = calloc(1, sizeof *fresh + thread_count * sizeof fresh->workers[0]);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    for (unsigned i = 0; i < thread_count; i++) {
        worker *w = &fresh->workers[i];
        w->pool = fresh;
        w->nice_level = nice_level;
        (void)snprintf(w->name, sizeof w->name, "%s%u", name, i);
        (void)sem_init(&w->wakes, 0, 0);
        int rc = pthread_create(&w->thread, NULL, worker_main, w);
        if (rc != 0) {
            (void)sem_destroy(&w->wakes);
            mir_workers_destroy(fresh);
            return mir_status_from_errno(rc);
        }
        fresh->count++;
    }
    *workers = fresh;
    return MIR_OK;
}

void mir_workers_submit(mir_workers *workers, mir_job *job)
{
    MIR_ASSERT(job->run != NULL && workers->count > 0);
    unsigned best = 0;
    uint32_t least = UINT32_MAX;
    for (unsigned i = 0; i < workers->count && least != 0; i++) {
        uint32_t queued = atomic_load_explicit(&workers->workers[i].queued, memory_order_relaxed);
        if (queued < least) {
            least = queued;
            best = i;
        }
    }
    worker *w = &workers->workers[best];
    uint64_t before = atomic_fetch_add(&workers->unfinished, 1);
    /* After destroy began only jobs may submit. */
    MIR_ASSERT(before != 0 || !atomic_load(&workers->stopping));
    atomic_fetch_add_explicit(&w->queued, 1, memory_order_relaxed);
    if (mir_mpsc_push(&w->jobs, &job->node)) (void)sem_post(&w->wakes);
}

void mir_workers_destroy(mir_workers *workers)
{
    if (workers == NULL) return;
    atomic_store(&workers->stopping, true);
    wake_all(workers);
    for (unsigned i = 0; i < workers->count; i++)
        (void)pthread_join(workers->workers[i].thread, NULL);
    for (unsigned i = 0; i < workers->count; i++) (void)sem_destroy(&workers->workers[i].wakes);
    free(workers);
}
