/* SPDX-License-Identifier: Apache-2.0 */
/* mir_host_agent: what can be asked of this machine: the commands Ping and TopProcesses, and the
 * property Sampling.
 *
 *      handlers, threads of the SDK          the program's thread
 *      Sampling: interval_ns, unreported ──► `wake` is readable: mir_host_agent_report, and the
 *                                            next reading by the new interval
 *
 * Why        A handler sets what it was told and leaves the work to the thread that takes readings.
 * Ownership  The caller's, like the texts in it; it outlives the device.
 * Affinity   init, fini and report: the program's thread. The rest is atomic.
 * Units      _ns: nanoseconds.
 * Bounds     Intervals lie within MIR_HOST_INTERVAL_MIN_NS and _MAX_NS.
 * Errors     Those of the SDK; a handler's leave as the answer to the command. */
#ifndef MIR_HOST_AGENT_H
#define MIR_HOST_AGENT_H

#include <stdatomic.h>
#include <stdbool.h>

#include "mir_device.h"

typedef struct mir_host_agent {
    const char *proc;
    int64_t started_ns;      /* monotonic */
    int64_t own_interval_ns; /* that the program was started with */
    _Atomic int64_t interval_ns;
    atomic_bool unreported;
    int wake; /* eventfd */
} mir_host_agent;

MIR_MUST_CHECK mir_status mir_host_agent_init(mir_host_agent *agent, const char *proc,
                                              int64_t interval_ns, mir_error *error);
void mir_host_agent_fini(mir_host_agent *agent);

/* Before the launch. */
MIR_MUST_CHECK mir_status mir_host_agent_register(mir_host_agent *agent, mir_device *device,
                                                  mir_error *error);

/* Reports the interval in force if that is to be done; call again while `unreported`. */
void mir_host_agent_report(mir_host_agent *agent, mir_device *device);

/* What a desired value comes to. */
int64_t mir_host_agent_interval(uint32_t interval_ms, int64_t own_interval_ns);

#endif
