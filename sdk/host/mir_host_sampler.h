/* SPDX-License-Identifier: Apache-2.0 */
/* mir_host_sampler: reads the machine and makes its messages.
 *
 * Why        Most readings are differences: the sampler keeps what it read before.
 * Ownership  The caller owns the sampler; it is large (about 120 KiB), so not on the stack.
 * Affinity   One thread.
 * Units      As in host.proto.
 * Bounds     Files are read up to 4 MiB, sent messages as mir_host_proc bounds them.
 * Errors     A file that cannot be read or understood (containers hide some) only costs its
 *            message. That is logged when it begins and when it ends, not each second. */
#ifndef MIR_HOST_SAMPLER_H
#define MIR_HOST_SAMPLER_H

#include <protobuf-c/protobuf-c.h>

#include "mir_bytes.h"
#include "mir_host_proc.h"

/* Where a message goes; it is gone when the function returns. */
typedef void (*mir_host_emit)(const ProtobufCMessage *message, void *context);

typedef struct mir_host_sampler {
    const char *proc; /* "/proc", or where another machine's is mounted */
    const char *sys;
    mir_bytes text;
    unsigned failing; /* a bit for each file that could not be read last time */
    bool has_cpu, has_disks, has_interfaces; /* whether there is a reading before */
    int64_t disks_ns, interfaces_ns;         /* monotonic time of it */
    mir_host_cpu cpu[2];
    mir_host_disks disks[2];
    mir_host_interfaces interfaces[2];
    int now; /* index of the newer reading */
} mir_host_sampler;

/* Takes a first reading. `proc` and `sys` must live as long as the sampler. */
void mir_host_sampler_init(mir_host_sampler *sampler, const char *proc, const char *sys);
/* Reads everything and emits Cpu, Memory, Load, Disk and Network as far as they can be told.
 * `emit` null: only reads. Returns the number of messages. */
int mir_host_sampler_sample(mir_host_sampler *sampler, mir_host_emit emit, void *context);
void mir_host_sampler_fini(mir_host_sampler *sampler);

#endif
