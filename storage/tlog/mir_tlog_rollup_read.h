/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_rollup_read: what is stored of rows that are there no more, in the answer of a query.
 *
 * Why        A row is either there or in the rollups, never in both, so what they come to is the sum
 *            of both. An hour that is in one window of the answer counts as it is; of others the
 *            tens of minutes are looked at, and then the minutes. What is still in two windows, or
 *            reaches beyond the time that was asked for, or whose minutes are not kept any more,
 *            cannot be told: it is left out, and said.
 * Ownership  Borrows the scan.
 * Affinity   That of the scan.
 * Bounds     bytes_max of the query.
 * Errors     Those of a scan. */
#ifndef MIR_TLOG_ROLLUP_READ_H
#define MIR_TLOG_ROLLUP_READ_H

#include "mir_tlog_scan.h"

/* Of which times there are rollups: to scan->rolled_*. */
void mir_tlog_rollup_scan_init(mir_tlog_scan *scan);
/* Adds what is rolled up of a device to its totals. *until_ns: the newest value that was. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_totals(mir_tlog_scan *scan, mir_view device,
                                                 int64_t first_ns, int64_t last_ns,
                                                 mir_tlog_totals *totals, int64_t *until_ns);
/* Adds the last value of columns that have none yet, or an older one. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_last(mir_tlog_scan *scan, mir_view device,
                                               int64_t first_ns, int64_t last_ns,
                                               mir_tlog_totals *totals);
/* Rows as they are cannot be told: notes it if there are any. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_missed(mir_tlog_scan *scan, mir_view device,
                                                 int64_t first_ns, int64_t last_ns);

static inline bool mir_tlog_rollup_touches(const mir_tlog_scan *scan, int64_t first_ns,
                                           int64_t last_ns)
{
    return first_ns <= scan->rolled_last_ns && last_ns >= scan->rolled_first_ns;
}

static inline void mir_tlog_rollup_left_out(mir_tlog_scan *scan, int64_t until_ns)
{
    if (!scan->left_out || until_ns > scan->left_out_until_ns) scan->left_out_until_ns = until_ns;
    scan->left_out = true;
}

#endif
