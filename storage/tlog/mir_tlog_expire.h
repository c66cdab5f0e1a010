/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_expire: segments written anew without rows that are past their age.
 *
 * Why        What such rows came to must be stored in the same step that removes them, or a crash
 *            would lose or double it. Rows of one minute may lie in several segments, and the later
 *            ones of equal times count: so all that overlap are done together.
 * Ownership  The caller holds a version that has the segments.
 * Affinity   The background thread.
 * Bounds     MIR_TLOG_EXPIRE_MAX segments; in memory rows of one device as mir_tlog_sweep has them,
 *            however many an hour has, and what the steps of an hour come to, or of as many hours as
 *            have 65,536 cells; read and written at MIR_TLOG_EXPIRE_BYTES_PER_S.
 * Errors     MIR_E_CORRUPT marks the damaged segment. On failure all is as it was. Rollups that rows
 *            are to be added to are replaced by that: damaged ones are lost already, but what a disk
 *            cannot read now (MIR_E_IO) it may read later. That is waited for, MIR_TLOG_UNREAD_NS. And
 *            late rows wait (MIR_E_NOT_FOUND) as long as a segment is missing, which a start or a repair
 *            may bring back. */
#ifndef MIR_TLOG_EXPIRE_H
#define MIR_TLOG_EXPIRE_H

#include "mir_tlog_internal.h"

enum { MIR_TLOG_EXPIRE_MAX = 128, MIR_TLOG_EXPIRE_BYTES_PER_S = 64 << 20 };

#define MIR_TLOG_UNREAD_NS (INT64_C(86400) * 1000000000)

/* What ends of a series. */
typedef struct mir_tlog_end {
    int64_t horizon_ns; /* rows before this; a whole hour if they are rolled up */
    bool hours;         /* what is rolled up, or is a rollup: goes by whole hours */
    bool rolled;
    int64_t late_ns; /* rows before this would have been rolled up already, had they come in time */
    uint32_t counter; /* of the removed rows */
} mir_tlog_end;

typedef struct mir_tlog_expiry {
    mir_tlog *tlog;
    mir_tlog_codec *codec;
    const mir_tlog_version *version;
    mir_tlog_segment **segments;
    uint32_t count;
    void (*end_of)(void *context, mir_view measurement, mir_view device, mir_tlog_end *end);
    void *context;
    /* Steps that began before this are not made any more; INT64_MIN: all are. */
    int64_t kept_from_ns[MIR_TLOG_ROLLUPS];
    uint64_t *rows; /* removed, by counter */
    int64_t now_ns;
    /* What it came to. */
    bool unread;  /* failed since the disk cannot read rollups that these rows are to be added to */
    bool missing; /* or since these may be in a segment that is missing */
    uint64_t rows_gone;
    uint64_t rows_repeated; /* of these: rolled up before, and not counted again */
    uint64_t rollups_made;
    uint64_t bytes_after;
} mir_tlog_expiry;

/* MIR_E_EMPTY: there was nothing to remove. */
MIR_MUST_CHECK mir_status mir_tlog_expire(mir_tlog_expiry *expiry, mir_error *error);

#endif
