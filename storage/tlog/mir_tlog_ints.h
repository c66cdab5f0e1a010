/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_ints: a run of integers as few bits, and back, exactly.
 *
 * Why        Every column of a chunk becomes integers in the end: times, counters, scaled decimals,
 *            numbers of words. What they have in common is found from the values themselves, and
 *            what is left is packed with as many bits as the widest needs, or with digits of base 3,
 *            5 or 6:
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
    MIR_TLOG_INTS_PADDING = 16, /* bytes that a read of a value may pass its last one by */
};

/* Appends `count` > 0 integers. */
void mir_tlog_ints_pack(mir_bytes *out, const uint64_t *values, uint32_t count, uint64_t *work);
/* The same back, from where the reader stands. */
MIR_MUST_CHECK mir_status mir_tlog_ints_unpack(mir_tlog_reader *in, uint64_t *values,
                                               uint32_t count, uint64_t *work);

/* Where each integer of a run stands, for those who need few of them. Of runs without differences, and
 * of grids, which most times are. */
typedef struct mir_tlog_ints_group {
    const uint8_t *packed; /* null: all of them are low */
    uint64_t low;
    uint32_t bits; /* or another width */
} mir_tlog_ints_group;

enum {
    MIR_TLOG_INTS_GROUP_ROWS = 128,
    MIR_TLOG_INTS_GROUPS_MAX = MIR_TLOG_CHUNK_ROWS_MAX / MIR_TLOG_INTS_GROUP_ROWS,
    MIR_TLOG_INTS_UNEVEN_MAX = 5, /* groups of steps that are not all one */
};

typedef struct mir_tlog_ints_places {
    uint64_t base, unit; /* a value is base + unit * what follows */
    uint64_t start, period;
    uint32_t group_shift;
    uint32_t group_mask;
    bool stepped; /* not each value is one period after the one before it */
    mir_tlog_ints_group groups[MIR_TLOG_INTS_GROUPS_MAX];
    mir_tlog_ints_group steps[MIR_TLOG_INTS_GROUPS_MAX]; /* periods beyond one */
    uint64_t skipped[MIR_TLOG_INTS_GROUPS_MAX];          /* periods before the group of steps */
    uint8_t uneven[MIR_TLOG_INTS_GROUPS_MAX];            /* which of these it is, if it is any */
    uint64_t led[MIR_TLOG_INTS_UNEVEN_MAX][MIR_TLOG_INTS_GROUP_ROWS]; /* periods up to each step */
} mir_tlog_ints_places;

/* The same bytes as unpack takes; up to `readable_end` they may be read. MIR_E_UNSUPPORTED: unpack
 * them; they may be damaged. */
MIR_MUST_CHECK mir_status mir_tlog_ints_open(mir_tlog_reader *in, const uint8_t *readable_end,
                                             uint32_t count, mir_tlog_ints_places *places);
/* One of the `count`. */
uint64_t mir_tlog_ints_at(const mir_tlog_ints_places *places, uint32_t index);

/* Sums of neighbours, from the first integer on, of runs with differences taken at most once: most
 * are had without unpacking. */
typedef struct mir_tlog_ints_walk {
    uint64_t base, unit; /* a value is base + unit * what follows */
    uint64_t value, sum; /* up to the last byte that was gone past */
    uint64_t given;      /* the sum up to `at` */
    uint32_t at;
    uint32_t count;
    uint32_t depth;
    uint32_t group_rows;
    uint32_t group;
    uint32_t done; /* of the group, in whole bytes */
    mir_tlog_ints_group groups[MIR_TLOG_INTS_GROUPS_MAX];
} mir_tlog_ints_walk;

/* As mir_tlog_ints_open. */
MIR_MUST_CHECK mir_status mir_tlog_ints_walk_open(mir_tlog_reader *in, const uint8_t *readable_end,
                                                  uint32_t count, mir_tlog_ints_walk *walk);
/* Of the next `count`, of which there are so many: the sum's lower 64 bits. */
uint64_t mir_tlog_ints_walk_sum(mir_tlog_ints_walk *walk, uint32_t count);

#endif
