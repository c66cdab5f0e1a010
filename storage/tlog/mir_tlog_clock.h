/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_clock: the time that retention goes by, which follows the clock, but not at once.
 *
 * Why        A server that starts with its clock a year ahead would remove everything that it has. So
 *            the time that was known last is written down, and a clock that is far from it is believed
 *            when it has stayed there for a while, or because the operator says so. Meanwhile the known
 *            time goes on as the server runs, and rows go by that.
 * Ownership  Belongs to the log.
 * Affinity   begin: before the threads start; end: after they have; look: the background thread.
 *            read: any thread.
 * Units      Wall time; how long it has been so is time that the server ran.
 * Bounds     One small file, written once an hour.
 * Errors     A file that is damaged or cannot be read counts as none. What cannot be written is told to
 *            the log: the time that is known after a restart is then an earlier one.
 * Source     docs/decisions/0010-a-clock-that-jumps.md */
#ifndef MIR_TLOG_CLOCK_H
#define MIR_TLOG_CLOCK_H

#include "mir_tlog_internal.h"

/* Reads what was known, or takes the newest row of the version for it. Without options.clock_wait_ns
 * there is nothing to do here or later. MIR_E_UNSUPPORTED (a file of a newer version), _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_clock_begin(mir_tlog *tlog, mir_error *error);
void mir_tlog_clock_end(mir_tlog *tlog);

/* What the clock says now, which is returned. */
int64_t mir_tlog_clock_look(mir_tlog *tlog);
void mir_tlog_clock_read(mir_tlog *tlog, mir_tlog_clock_state *state);

#endif
