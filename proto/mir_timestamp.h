/* SPDX-License-Identifier: Apache-2.0 */
/* mir_timestamp: points in time as the API carries them, and as text.
 *
 * Why        The API has seconds and nanos, storage and timers have nanoseconds, people RFC 3339.
 * Ownership  Values; messages that are made belong to the arena.
 * Affinity   Any thread.
 * Units      `_ns` is wall time since 1970 in UTC. As nanoseconds only the years 1678 to 2261
 * exist; seconds and nanos reach from year 1 to 9999. Bounds     Texts fit MIR_CLOCK_TEXT_BYTES.
 * Errors     MIR_E_INVALID for what is not such a time. */
#ifndef MIR_TIMESTAMP_H
#define MIR_TIMESTAMP_H

#include "mir_api/v1/common.pb-c.h"
#include "mir_arena.h"
#include "mir_status.h"
#include "mir_view.h"

/* Null without memory. */
MirApi__V1__Timestamp *mir_timestamp_new(mir_arena *arena, int64_t wall_ns);
/* Seconds within years 1 to 9999 and nanos within 0 to 999,999,999. */
bool mir_timestamp_valid(const MirApi__V1__Timestamp *timestamp);
/* Nanoseconds, clamped to what fits; 0 for a null pointer. */
int64_t mir_timestamp_ns(const MirApi__V1__Timestamp *timestamp);

/* RFC 3339 with `Z` and the fraction trimmed. Returns the length; 0 for a time that is not valid.
 */
int mir_timestamp_format(int64_t seconds, int32_t nanos, char *text);
/* Accepts `Z` or an offset, `T`, `t` or one space, and 0 to 9 digits of fraction. */
MIR_MUST_CHECK mir_status mir_timestamp_parse(mir_view text, int64_t *seconds, int32_t *nanos);

#endif
