/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_ints: a run of integers as few bits, and back, exactly.
 *
 * Why        Every column of a chunk becomes integers in the end: times, counters, scaled decimals,
 *            numbers of words. What they have in common is found from the values themselves, and
 *            what is left is packed with as many bits as the widest needs:
 *              unit         all values are a base plus whole multiples of one number (times that a
 *                           device gives in milliseconds)
 *              differences  taken 0, 1 or 2 times (walks, counters, even steps)
 *              grid         a period, how many of them each value is after the one before it, and
 *                           how far off: stamps of a clock that ticks evenly and is read a little
 *                           late need the bits of the jitter alone, with gaps or without
 * Ownership  `work` is the caller's: MIR_TLOG_INTS_WORK values, used during the call only.
 * Affinity   Any thread; no state.
 * Bounds     MIR_TLOG_CHUNK_ROWS_MAX values; not more than 10 bytes for each and 64.
 * Errors     Packing fails through mir_bytes_ok alone. Unpacking: MIR_E_CORRUPT.
 * Source     Frame of reference in groups, as in the Parquet DELTA_BINARY_PACKED encoding. Drawn in
 *            docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_INTS_H
#define MIR_TLOG_INTS_H

#include "mir_bytes.h"
#include "mir_status.h"
#include "mir_tlog_code.h"

enum {
    MIR_TLOG_CHUNK_ROWS_MAX = 8192,
    MIR_TLOG_INTS_WORK = 3 * MIR_TLOG_CHUNK_ROWS_MAX,
};

/* Appends `count` > 0 integers. */
void mir_tlog_ints_pack(mir_bytes *out, const uint64_t *values, uint32_t count, uint64_t *work);
/* The same back, from where the reader stands. */
MIR_MUST_CHECK mir_status mir_tlog_ints_unpack(mir_tlog_reader *in, uint64_t *values,
                                               uint32_t count, uint64_t *work);

#endif
