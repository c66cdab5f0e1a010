/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_pool.h"

#include <signal.h>

#include "mir_assert.h"

int mir_device_thread_start(pthread_t *thread, void *(*run)(void *), void *argument)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    int failure = pthread_sigmask(SIG_SETMASK, &all, &before);
    if (failure != 0) return failure;
    failure = pthread_create(thread, NULL, run, argument);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    return failure;
}

void mir_device_pool_init(mir_device_pool *pool)
{
    *pool = (mir_device_pool){0};
    pool->last = &pool->first;
    (void)pthread_mutex_init(&pool->lock, NULL);
    (void)pthread_cond_init(&pool->wake, NULL);
}

static mir_device_job *take(mir_device_pool *pool)
{
    mir_device_job *job = pool->first;
    if (job == NULL) return NULL;
    pool->first = job->next;
    if (pool->first == NULL) pool->last = &pool->first;
    pool->count--;
    pool->bytes -= job->size;
    return job;
}

static void *work(void *argument)
{
    mir_device_pool *pool = argument;
    (void)pthread_mutex_lock(&pool->lock);
    for (;;) {
        while (pool->running && pool->first == NULL)
            (void)pthread_cond_wait(&pool->wake, &pool->lock);
        if (!pool->running) break;
        mir_device_job *job = take(pool);
        (void)pthread_mutex_unlock(&pool->lock);
        job->run(job, false);
        (void)pthread_mutex_lock(&pool->lock);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return NULL;
}

mir_status mir_device_pool_start(mir_device_pool *pool, unsigned thread_count)
{
    MIR_ASSERT(thread_count > 0 && thread_count <= MIR_DEVICE_COMMAND_THREADS_MAX);
    pool->running = true;
    for (; pool->thread_count < thread_count; pool->thread_count++) {
        int failure = mir_device_thread_start(&pool->threads[pool->thread_count], work, pool);
        if (failure != 0) {
            mir_device_pool_stop(pool);
            return mir_status_from_errno(failure);
        }
    }
    return MIR_OK;
}

mir_status mir_device_pool_push(mir_device_pool *pool, mir_device_job *job)
{
    mir_status status = MIR_OK;
    (void)pthread_mutex_lock(&pool->lock);
    if (!pool->running) {
        status = MIR_E_CLOSED;
    } else if (pool->count == MIR_DEVICE_QUEUE_MAX ||
               job->size > MIR_DEVICE_QUEUE_BYTES_MAX - pool->bytes) {
        status = MIR_E_FULL;
    } else {
        job->next = NULL;
        *pool->last = job;
        pool->last = &job->next;
        pool->count++;
        pool->bytes += job->size;
        (void)pthread_cond_signal(&pool->wake);
    }
    (void)pthread_mutex_unlock(&pool->lock);
    return status;
}

void mir_device_pool_stop(mir_device_pool *pool)
{
    (void)pthread_mutex_lock(&pool->lock);
    pool->running = false;
    (void)pthread_cond_broadcast(&pool->wake);
    (void)pthread_mutex_unlock(&pool->lock);
    for (unsigned i = 0; i < pool->thread_count; i++) (void)pthread_join(pool->threads[i], NULL);
    pool->thread_count = 0;
    for (mir_device_job *job; (job = take(pool)) != NULL;) job->run(job, true);
}

void mir_device_pool_fini(mir_device_pool *pool)
{
    (void)pthread_cond_destroy(&pool->wake);
    (void)pthread_mutex_destroy(&pool->lock);
}
