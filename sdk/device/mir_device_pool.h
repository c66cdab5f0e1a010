/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_pool: a bounded queue of jobs and the threads that run them.
 *
 * Why        Handlers of the program may block; heartbeats and schema answers must not wait.
 * Ownership  A job is the pool's once push returned MIR_OK; `run` frees it. On any other answer it
 *            is still the caller's.
 * Affinity   push: any thread. start and stop: one thread. With one thread jobs run in order.
 * Bounds     MIR_DEVICE_QUEUE_MAX jobs and MIR_DEVICE_QUEUE_BYTES_MAX bytes waiting.
 * Errors     push: MIR_E_FULL, MIR_E_CLOSED (not started, or stopped). */
#ifndef MIR_DEVICE_POOL_H
#define MIR_DEVICE_POOL_H

#include <pthread.h>
#include <stdbool.h>
#include <stddef.h>

#include "mir_device.h"

enum { MIR_DEVICE_QUEUE_BYTES_MAX = 16 << 20 };

typedef struct mir_device_job {
    struct mir_device_job *next;
    size_t size; /* bytes that it holds, for the bound */
    /* `cancelled`: the pool stops; only free. */
    void (*run)(struct mir_device_job *job, bool cancelled);
} mir_device_job;

typedef struct mir_device_pool {
    pthread_mutex_t lock;
    pthread_cond_t wake;
    mir_device_job *first;
    mir_device_job **last;
    size_t count;
    size_t bytes;
    pthread_t threads[MIR_DEVICE_COMMAND_THREADS_MAX];
    unsigned thread_count;
    bool running;
} mir_device_pool;

void mir_device_pool_init(mir_device_pool *pool);
MIR_MUST_CHECK mir_status mir_device_pool_start(mir_device_pool *pool, unsigned thread_count);
MIR_MUST_CHECK mir_status mir_device_pool_push(mir_device_pool *pool, mir_device_job *job);
/* Waits for the jobs that run and cancels the ones that wait. */
void mir_device_pool_stop(mir_device_pool *pool);
void mir_device_pool_fini(mir_device_pool *pool);

/* pthread_create with every signal blocked in the new thread. Returns an errno value. */
int mir_device_thread_start(pthread_t *thread, void *(*run)(void *), void *argument);

#endif
