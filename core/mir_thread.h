/* SPDX-License-Identifier: Apache-2.0 */
/* mir_thread: how a thread beside the shards shares their processors.
 *
 * Why        Shards have the processors to themselves only while nobody else has work. Linux lets a
 *            running thread end its slice before one that wakes gets the processor, some milliseconds,
 *            at whatever nice level; a commit of the store is shorter than that, so a message that
 *            arrived during one waited for its end. With a slice longer than that of the others a
 *            thread keeps its share of the processor and gives it up to who wakes. Not always at
 *            once: one that has just had its share may be found to have no claim yet, and the next
 *            time that the kernel looks is its timer's tick, up to 4 ms later. So long computations
 *            offer the processor themselves every now and then.
 * Affinity   The calling thread, for itself; lower: any.
 * Errors     None: where the system does not have it, everything works, and messages wait.
 * Source     sched_setattr(2): `sched_runtime` of SCHED_OTHER is the slice since Linux 6.12, older
 *            ones ignore it. */
#ifndef MIR_THREAD_H
#define MIR_THREAD_H

#include <pthread.h>
#include <stdbool.h>
#include <sys/types.h>

enum {
    /* More than the slice of others, which is 2.8 ms at most unless somebody has configured it; also
     * about what the thread may have to wait for when all processors are busy. */
    MIR_THREAD_SLICE_US = 10000,
    /* What who waits may come to wait for, against what a system call costs. */
    MIR_THREAD_OFFER_US = 100,
    MIR_THREAD_NICE_LAST = 19, /* hardly anything while somebody else has work */
};

/* The calling thread gives way to those that wake. `nice_level`: how much of the processor it gets
 * beside those that do not sleep; 0 is as much as they. */
void mir_thread_give_way(int nice_level);
/* Another thread of the process gets MIR_THREAD_NICE_LAST from now on. There is no way back. */
void mir_thread_lower(pid_t thread);

/* A long computation calls it after each step of some ten microseconds: whoever waits for the
 * processor and has a claim to it gets it, once every MIR_THREAD_OFFER_US. */
void mir_thread_offer(void);

/* Of a thread that is to work beside the calling one: it may run on all processors but the one that the
 * caller is on now. The kernel leaves two threads of the lowest level on one processor, with another
 * one idle, for longer than most queries take. False: there is no other processor. */
bool mir_thread_beside(pthread_attr_t *fresh);

#endif
