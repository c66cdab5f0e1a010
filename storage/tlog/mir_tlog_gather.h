/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_gather: the rows of one series from all places where they are, as columns in order.
 *
 * Why        Sealing, merging and queries do the same: take rows from sources, oldest source first,
 *            put them in the order of time, and make one row of those with equal times, field by
 *            field, the later one winning.
 * Ownership  Names and texts are pointed to: they stay with the sources, or in the gather's arena.
 * Affinity   One thread at a time.
 * Bounds     bytes_max (0: none) for its arrays and texts, or for those of all that count in `shared`;
 *            UINT32_MAX rows.
 * Errors     MIR_E_NO_MEMORY, MIR_E_TOO_LARGE (bytes_max). */
#ifndef MIR_TLOG_GATHER_H
#define MIR_TLOG_GATHER_H

#include <stdatomic.h>

#include "mir_arena.h"
#include "mir_row.h"
#include "mir_tlog.h"
#include "mir_tlog_mem.h"

typedef struct mir_tlog_gather_column {
    mir_view name;
    mir_column_type type;
    uint32_t capacity;
    uint64_t *values; /* bits, or for strings an index into texts */
    uint8_t *present;
} mir_tlog_gather_column;

typedef struct mir_tlog_gather {
    /* What to take; set by the caller after init. */
    const mir_view *fields;
    uint32_t field_count; /* 0: all */
    const mir_tlog_rename *renames;
    uint32_t rename_count;
    bool numbers_only;
    int64_t time_first;
    int64_t time_last; /* inclusive */
    uint64_t bytes_max;
    atomic_ullong *shared; /* null: what it takes is counted alone */

    uint32_t row_count;
    uint32_t capacity; /* of rows: all arrays have room for so many, some for more */
    uint32_t times_capacity;
    int64_t *times;
    uint32_t column_count;
    uint32_t column_capacity;
    mir_tlog_gather_column *columns;
    uint32_t slot_count;
    uint32_t *slots; /* column + 1 by hash of name and type */
    mir_view *texts;
    uint32_t text_count;
    uint32_t text_capacity;
    uint64_t bytes;      /* of the arrays, and of the arena as far as that is counted */
    uint64_t bytes_text; /* so far */
    uint64_t rows_read;
    mir_arena arena;
    mir_tlog_cell *cells;
    uint32_t *map;
    uint32_t map_capacity;
} mir_tlog_gather;

enum { MIR_TLOG_GATHER_NONE = UINT32_MAX };

MIR_MUST_CHECK mir_status mir_tlog_gather_init(mir_tlog_gather *gather);
void mir_tlog_gather_fini(mir_tlog_gather *gather);
/* Empty again; keeps its memory and what to take. */
void mir_tlog_gather_reset(mir_tlog_gather *gather);

/* Counts what has come into the arena since. */
MIR_MUST_CHECK mir_status mir_tlog_gather_count(mir_tlog_gather *gather);
/* Texts that no row has, as those of a chunk's rows that were not taken, make room. On failure the
 * rows are of no use any more. */
MIR_MUST_CHECK mir_status mir_tlog_gather_pack_texts(mir_tlog_gather *gather);
/* Without the rows from `rows` on, and most of the memory that they took; those before are finished. */
MIR_MUST_CHECK mir_status mir_tlog_gather_cut(mir_tlog_gather *gather, uint32_t rows);
/* The texts, and what they point into, are the caller's now; in `shared` they stay counted. */
void mir_tlog_gather_give_texts(mir_tlog_gather *gather, mir_view **texts, mir_arena *arena);

/* What a column is to be called. */
mir_view mir_tlog_gather_name(const mir_tlog_gather *gather, mir_view stored);
/* Whether a column, by its stored name, is among what to take. */
bool mir_tlog_gather_wants(const mir_tlog_gather *gather, mir_view name, mir_column_type type);
/* The place of a column, or MIR_TLOG_GATHER_NONE when it is not wanted. */
MIR_MUST_CHECK mir_status mir_tlog_gather_column_of(mir_tlog_gather *gather, mir_view name,
                                                    mir_column_type type, uint32_t *column);
/* Room for `count` more rows; none of their fields is present. Does not change row_count. */
MIR_MUST_CHECK mir_status mir_tlog_gather_room(mir_tlog_gather *gather, uint32_t count);
MIR_MUST_CHECK mir_status mir_tlog_gather_texts_room(mir_tlog_gather *gather, uint32_t count);
/* Room for `count` column numbers in gather->map. */
MIR_MUST_CHECK mir_status mir_tlog_gather_map_room(mir_tlog_gather *gather, uint32_t count);
/* The rows of a series in memory that lie before `limit`, which was published. */
MIR_MUST_CHECK mir_status mir_tlog_gather_mem(mir_tlog_gather *gather, const mir_tlog_mem *mem,
                                              const mir_tlog_mem_series *series, uint32_t limit);
/* Orders, makes one row of equal times, leaves out rows without any field. */
MIR_MUST_CHECK mir_status mir_tlog_gather_finish(mir_tlog_gather *gather);

#endif
