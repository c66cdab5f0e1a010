/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_output: segments being written.
 *
 * Why        Sealing, merging and retention all end in the same way: files that are complete and
 *            synced before they get their names, and not there at all when something failed.
 * Ownership  Zeroed but for tlog and head. It owns the files that it has begun until `end` or
 *            `abandon`; the segments that `end` gives are the caller's, to be installed.
 * Affinity   One thread at a time.
 * Bounds     Rows of MIR_TLOG_OUTPUTS_MAX days go to a segment each, those of all others share one.
 * Errors     With a text. */
#ifndef MIR_TLOG_OUTPUT_H
#define MIR_TLOG_OUTPUT_H

#include "mir_tlog_internal.h"

enum { MIR_TLOG_OUTPUTS_MAX = 8 };

typedef struct mir_tlog_output {
    int64_t day;
    mir_tlog_segment_writer *writer;
    uint64_t id;
} mir_tlog_output;

typedef struct mir_tlog_outputs {
    mir_tlog *tlog;
    mir_tlog_segment_head head;
    /* The last one takes days that have none of their own. */
    mir_tlog_output list[MIR_TLOG_OUTPUTS_MAX + 1];
    uint32_t count; /* of those with a day */
} mir_tlog_outputs;

static inline uint64_t mir_tlog_number_take(mir_tlog *tlog)
{
    return atomic_fetch_add_explicit(&tlog->next_number, 1, memory_order_relaxed);
}

/* The UTC day that a time lies in. */
int64_t mir_tlog_day_of(int64_t time_ns);

/* Begins the file of one of them unless it has been. */
MIR_MUST_CHECK mir_status mir_tlog_output_ready(mir_tlog_outputs *all, mir_tlog_output *output,
                                                mir_error *error);
/* Rows `first` to `last` - 1 of a finished gather, each to the segment of its day. */
MIR_MUST_CHECK mir_status mir_tlog_outputs_put(mir_tlog_outputs *all, mir_tlog_codec *codec,
                                               mir_view measurement, mir_view device,
                                               const mir_tlog_gather *gather, uint32_t first,
                                               uint32_t last, mir_error *error);
/* Completes the files under their names and opens them: at most MIR_TLOG_OUTPUTS_MAX + 1. On failure
 * none of them is there. */
MIR_MUST_CHECK mir_status mir_tlog_outputs_end(mir_tlog_outputs *all, mir_tlog_codec *codec,
                                               mir_tlog_segment **segments, uint32_t *count,
                                               mir_error *error);
void mir_tlog_outputs_abandon(mir_tlog_outputs *all);

#endif
