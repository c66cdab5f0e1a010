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

/* How a fraction of a second ends; one of zero is left out. */
typedef enum mir_clock_digits {
    MIR_CLOCK_TRIMMED = 0, /* without trailing zeros */
    MIR_CLOCK_THREES,      /* 3, 6 or 9 digits, as few as do */
} mir_clock_digits;

#define MIR_CLOCK_SECONDS_MIN INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define MIR_CLOCK_SECONDS_MAX INT64_C(253402300799) /* 9999-12-31T23:59:59Z */

/* `text` holds so many; what is returned is the length without the terminator. */
enum { MIR_CLOCK_TEXT_BYTES = 40 };

/* RFC 3339 in UTC with `Z`. 0 and an empty text for what is not in the years 1 to 9999, or when
 * nanos are not within 0 to 999,999,999. */
int mir_clock_write(int64_t seconds, int32_t nanos, mir_clock_digits digits, char *text);
/* `.5`; empty for 0. */
int mir_clock_write_fraction(int32_t nanos, mir_clock_digits digits, char *text);
/* The same, trimmed, from nanoseconds. */
int mir_clock_rfc3339(int64_t wall_ns, char *text);

#endif
