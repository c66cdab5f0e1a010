/* SPDX-License-Identifier: Apache-2.0 */
/* mir_workers: a small pool of threads for what must not run on a shard.
 *
 * Why        Reads of the store, queries, password hashes: they block or take milliseconds.
 * Ownership  A job is embedded in its owner's request and belongs to the pool from submit until its
 *            `run` is called, which may free it.
 * Affinity   submit: any thread, lock-free. run: a pool thread.
 * Bounds     Whoever admits requests bounds the jobs in flight.
 * Errors     create: MIR_E_NO_MEMORY, or the status of the thread's creation. */
#ifndef MIR_WORKERS_H
#define MIR_WORKERS_H

#include <stdint.h>

#include "mir_mpsc.h"
#include "mir_status.h"

typedef struct mir_workers mir_workers;

typedef struct mir_job {
    mir_mpsc_node node;
    void (*run)(struct mir_job *job);
} mir_job;

/* `nice_level` 0 runs like everybody else, 19 gives way to everybody else. */
MIR_MUST_CHECK mir_status mir_workers_create(unsigned thread_count, int nice_level,
                                             const char *name, mir_workers **workers);
void mir_workers_submit(mir_workers *workers, mir_job *job);
/* Runs what was submitted, and what those jobs submit to this pool themselves; then ends the threads.
 * Nobody else may submit any more. */
void mir_workers_destroy(mir_workers *workers);

#endif
