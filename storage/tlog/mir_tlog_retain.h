/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_retain: removes telemetry that has been kept long enough.
 *
 * Why        Series of one segment may have different ages. A segment whose rows are all past theirs
 *            is dropped as a whole, which costs nothing; another is written anew without them, so
 *            it is worth waiting until that is much of it. How long it may wait is promised: a
 *            quarter of the age, and a day at most. Rows are then cut off exactly at their age.
 *            What later values replaced is in older segments: it goes with them or before, since it
 *            would be there again.
 * Ownership  Belongs to the log.
 * Affinity   The background thread.
 * Units      Times are those of the rows, against options.wall_ns as far as that is believed
 *            (mir_tlog_clock.h).
 * Bounds     In memory the rows of one chunk; on the disk one more copy of a segment, or of up to
 *            MIR_TLOG_EXPIRE_MAX whose rows share hours, read and written with
 *            MIR_TLOG_EXPIRE_BYTES_PER_S at most, and only when that takes no more than is free
 *            beside the disk's reserve, or half of the reserve.
 * Errors     Told to the log and counted; the rows stay, and it is tried again. A segment with damage
 *            is not written anew: it stays until the last of its rows is past the longest age. */
#ifndef MIR_TLOG_RETAIN_H
#define MIR_TLOG_RETAIN_H

#include "mir_tlog_internal.h"

/* How much later than its age a row may be removed. */
uint64_t mir_tlog_retain_slack_ns(uint64_t age_ns);
/* The shortest age of any rule; 0: everything is kept for ever. */
uint64_t mir_tlog_retain_age_min_ns(const mir_tlog_options *options);

/* Looks at the segments for which it is time, or at all of them, and removes what is due. True: that
 * was too much at once, and there is more. */
bool mir_tlog_retain(mir_tlog *tlog, mir_tlog_codec *codec, bool all);

#endif
