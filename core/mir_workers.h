/* SPDX-License-Identifier: Apache-2.0 */
/* mir_workers: a small pool of threads for what must not run on a shard.
 *
 * Why        Reads of the store, queries, password hashes: they block or take milliseconds.
 *            Nobody knows before how long a query takes, and it is asked for by somebody who waits: in a
 *            mixed pool each job begins with the priority of everybody, and one that has used a
 *            processor for MIR_WORKERS_SHORT_MS goes on with what others leave, on a thread that is
 *            the pool's no more, so that the next one need not wait for it. One that knows what may
 *            become of it asks sooner: see mir_workers_breathe.
 * Ownership  A job is embedded in its owner's request and belongs to the pool from submit until its
 *            `run` is called, which may free it.
 * Affinity   submit: any thread, lock-free. run: a pool thread.
 * Bounds     Whoever admits requests bounds the jobs in flight. In a mixed pool MIR_WORKERS_LONG_MAX
 *            long jobs beside the threads; further ones keep a thread.
 * Errors     create: MIR_E_NO_MEMORY, or the status of the thread's creation. A mixed pool that cannot
 *            make a thread later tries again, with what it has meanwhile. */
#ifndef MIR_WORKERS_H
#define MIR_WORKERS_H

#include <stdint.h>

#include "mir_mpsc.h"
#include "mir_status.h"

enum { MIR_WORKERS_SHORT_MS = 100, MIR_WORKERS_BRIEF_US = 1000, MIR_WORKERS_LONG_MAX = 2 };

typedef struct mir_workers mir_workers;

typedef struct mir_job {
    mir_mpsc_node node;
    void (*run)(struct mir_job *job);
} mir_job;

/* `nice_level` 0 runs like everybody else, 19 gives way to everybody else. */
MIR_MUST_CHECK mir_status mir_workers_create(unsigned thread_count, int nice_level,
                                             const char *name, mir_workers **workers);
MIR_MUST_CHECK mir_status mir_workers_create_mixed(unsigned thread_count, const char *name,
                                                   mir_workers **workers);
void mir_workers_submit(mir_workers *workers, mir_job *job);
/* Called by a job again and again that has several parts, after each of them: if it has used a
 * processor for MIR_WORKERS_BRIEF_US it is a long one from now on. Nothing elsewhere than in a job of
 * a mixed pool. */
void mir_workers_breathe(void);
/* Runs what was submitted, and what those jobs submit to this pool themselves; then ends the threads.
 * Nobody else may submit any more. */
void mir_workers_destroy(mir_workers *workers);

#endif
