/* SPDX-License-Identifier: Apache-2.0 */
/* mir_host_top: the processes that use the processors most.
 *
 * Why        Shares are differences of two readings of /proc, a short while apart.
 * Ownership  Values. The readings are freed before the function returns.
 * Affinity   Any thread, several at a time. Blocks for `window_ns`.
 * Units      cpu in percent of one core, memory in bytes.
 * Bounds     MIR_HOST_PROCESSES_MAX processes of a reading, MIR_HOST_TOP_MAX of an answer.
 * Errors     The directory cannot be read, or no process in it. A process that ends while it is
 *            read is left out. */
#ifndef MIR_HOST_TOP_H
#define MIR_HOST_TOP_H

#include "mir_host_proc.h"

enum { MIR_HOST_TOP_MAX = 100, MIR_HOST_PROCESSES_MAX = 1 << 16 };

typedef struct mir_host_top_process {
    int32_t pid;
    char name[MIR_HOST_NAME_BYTES];
    double cpu;
    uint64_t memory;
} mir_host_top_process;

typedef struct mir_host_top {
    mir_host_top_process items[MIR_HOST_TOP_MAX];
    size_t count;
    size_t total;
} mir_host_top;

/* At most `count` of them, the busiest first. */
MIR_MUST_CHECK mir_status mir_host_top_read(const char *proc, int64_t window_ns, size_t count,
                                            mir_host_top *top, mir_error *error);

/* The same of two readings, which get sorted. */
void mir_host_top_compare(mir_host_process *before, size_t before_count, mir_host_process *now,
                          size_t now_count, int64_t elapsed_ns, size_t count, mir_host_top *top);

#endif
