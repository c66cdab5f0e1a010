/* SPDX-License-Identifier: Apache-2.0 */
/* mir_clock: now, in nanoseconds. Wall time is what is stored and shown; monotonic time is what
 * durations and timers are measured with. Shards read both once per turn and pass them on. */
#ifndef MIR_CLOCK_H
#define MIR_CLOCK_H

#include <stdint.h>
#include <time.h>

#define MIR_NS_PER_US INT64_C(1000)
#define MIR_NS_PER_MS INT64_C(1000000)
#define MIR_NS_PER_S  INT64_C(1000000000)

static inline int64_t mir_clock_read(clockid_t id)
{
    struct timespec now;
    (void)clock_gettime(id, &now);
    return (int64_t)now.tv_sec * MIR_NS_PER_S + now.tv_nsec;
}

static inline int64_t mir_clock_wall_ns(void)
{
    return mir_clock_read(CLOCK_REALTIME);
}

static inline int64_t mir_clock_mono_ns(void)
{
    return mir_clock_read(CLOCK_MONOTONIC);
}

/* RFC 3339 in UTC with `Z`, the fraction trimmed of trailing zeros. `text` holds
 * MIR_CLOCK_TEXT_BYTES; returns the length without the terminator. */
enum { MIR_CLOCK_TEXT_BYTES = 40 };
int mir_clock_rfc3339(int64_t wall_ns, char *text);

#endif
