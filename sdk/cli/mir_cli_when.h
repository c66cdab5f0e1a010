/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_when: times and durations as people type and read them.
 *
 * Affinity   The main thread (local time zones).
 * Units      Nanoseconds since 1970, and of durations.
 * Bounds     Durations up to 100 years; times as far as 64 bits of nanoseconds go.
 * Errors     MIR_E_INVALID with a text that says what is accepted. */
#ifndef MIR_CLI_WHEN_H
#define MIR_CLI_WHEN_H

#include "mir_status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* `90s`, `1h30m`, `1.5h`, `7d`: units ns us ms s m h d w y. Greater than zero. */
MIR_MUST_CHECK mir_status mir_cli_when_duration(const char *text, int64_t *duration_ns,
                                                mir_error *error);
/* RFC 3339, a date alone (midnight UTC), seconds since 1970 with an optional fraction, `now`, or a
 * duration: so long ago. */
MIR_MUST_CHECK mir_status mir_cli_when_time(const char *text, int64_t *wall_ns, mir_error *error);

/* "now", "12s ago", "5m ago", "3h ago", "2d ago"; "in 5s" for what is ahead. */
void mir_cli_when_age(int64_t wall_ns, int64_t now_ns, char *text, size_t size);
/* "42s", "3m 20s", "5h 12m", "8d 3h". */
void mir_cli_when_span(int64_t duration_ns, char *text, size_t size);
/* The title of a column of times: says UTC where they are. */
/* How long something is kept; 0: for ever. */
void mir_cli_when_kept(uint64_t seconds, char *text, size_t size);
const char *mir_cli_when_title(bool utc);
/* "15:04:05", with the date when asked, with `digits` of fraction, in UTC or local time. */
void mir_cli_when_clock(int64_t wall_ns, bool date, int digits, bool utc, char *text, size_t size);

#endif
