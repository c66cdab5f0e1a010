/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_part: what one device or group has of an answer, ready to be merged with the others'.
 *
 * Why        Rows as they are, thinned rows, or what rows come to: behind this they look the same.
 * Ownership  A part owns its arrays; names of its columns are its maker's. Parts go before makers.
 * Affinity   A maker and its parts: one thread at a time, until all are merged.
 * Bounds     bytes_max of the query.
 * Errors     With a text in maker->scan.error. */
#ifndef MIR_TLOG_PART_H
#define MIR_TLOG_PART_H

#include "mir_tlog_scan.h"

/* One thread of a query. */
typedef struct mir_tlog_part_maker {
    mir_tlog_scan scan;
    mir_tlog_columns columns; /* of its parts */
    uint32_t *rank;           /* the place of each in the answer */
    uint32_t *moved;          /* 1 + the number of the one that a column has gone into; or null */
    uint32_t moved_count;
    atomic_ullong *rows;     /* of the whole query */
    mir_tlog_totals totals;  /* of the device at hand */
    mir_tlog_totals *groups; /* spec->group_count, or null */
    mir_arena names;
    mir_arena *texts; /* that groups point into */
    uint32_t text_count;
    uint32_t text_capacity;
    mir_status status;
} mir_tlog_part_maker;

typedef struct mir_tlog_part {
    mir_tlog_part_maker *maker;
    uint32_t number; /* of the device in the spec, or of the group */
    uint32_t row_count;
    uint32_t stride; /* of a column in values and present */
    uint32_t column_count;
    uint32_t left; /* rows that are still to be given out */
    int64_t *times;
    uint32_t *columns; /* their numbers in the maker's */
    uint64_t *values;  /* column by column; of strings a place in texts */
    uint8_t *present;
    mir_view *texts;
    mir_arena arena;
} mir_tlog_part;

/* Whether a column's values have gone into another one, so that it has none. */
static inline bool mir_tlog_part_moved(const mir_tlog_part_maker *maker, uint32_t column)
{
    return column < maker->moved_count && maker->moved[column] != 0;
}

/* scan's tlog, spec, version, bytes and bytes_max, and rows, are set. fini either way. */
MIR_MUST_CHECK mir_status mir_tlog_part_maker_init(mir_tlog_part_maker *maker);
void mir_tlog_part_maker_fini(mir_tlog_part_maker *maker);

/* The part of one device; it stays empty when there is nothing. */
MIR_MUST_CHECK mir_status mir_tlog_part_device(mir_tlog_part_maker *maker, mir_view device,
                                               int64_t first_ns, int64_t last_ns,
                                               mir_tlog_part *part);
/* Adds a device to a group of this maker; `place` is its own among all in the order of ids. */
MIR_MUST_CHECK mir_status mir_tlog_part_group(mir_tlog_part_maker *maker, mir_view device,
                                              uint32_t place, int64_t first_ns, int64_t last_ns,
                                              uint32_t group);
/* The groups of all makers together, as parts of the first one. */
MIR_MUST_CHECK mir_status mir_tlog_part_groups(mir_tlog_part_maker *makers, uint32_t maker_count,
                                               uint32_t group_count, mir_tlog_part *parts);
void mir_tlog_part_free(mir_tlog_part *part);

#endif
