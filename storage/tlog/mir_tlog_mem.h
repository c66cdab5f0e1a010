/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_mem: the rows of one log file, in memory, still encoded as they stand in the log.
 *
 * Why        A row is encoded once: the same bytes go to the log and to its series' chain of blocks
 *            here. Blocks start at 64 bytes and double to 2,048, so that 100,000 series with a few
 *            rows each cost little more than their rows.
 * Ownership  All of it lives in slabs of the memtable and goes with mir_tlog_mem_free.
 * Affinity   One writer thread adds, publishes and rolls back; any number of readers find series
 * and walk what was published, at any time, without a lock. Nothing that a reader can reach is
 * changed or freed while the memtable lives, except atomics. Bounds     MIR_TLOG_COLUMNS_MAX
 * columns in a series. Slabs of 256 KiB, or one piece if larger. Errors     MIR_E_NO_MEMORY;
 * MIR_E_TOO_LARGE for columns; MIR_E_CORRUPT for a row's bytes.
 *
 *   series ─► first block ─► next ─► next        A block's bytes are [start, next->start) of the
 *   published ───────────────────┘               series; the last one's end at `published`. */
#ifndef MIR_TLOG_MEM_H
#define MIR_TLOG_MEM_H

#include <stdatomic.h>

#include "mir_row.h"
#include "mir_tlog_code.h"

/* A measurement and the columns that every row of it has a place for. */
typedef struct mir_tlog_shape {
    uint32_t id;
    uint32_t column_count;
    const mir_column *columns;
    const uint8_t *types;
    mir_view measurement;
    /* The writer's: how often it was written to the log, now and before the current turn. */
    uint64_t logged_turn;
    uint8_t logged;
    uint8_t logged_before;
} mir_tlog_shape;

/* A column that a row brought along. */
typedef struct mir_tlog_extra {
    _Atomic(struct mir_tlog_extra *) next;
    mir_column column;
} mir_tlog_extra;

typedef struct mir_tlog_block {
    _Atomic(struct mir_tlog_block *) next;
    uint32_t start;
    uint32_t capacity;
    uint8_t data[];
} mir_tlog_block;

typedef struct mir_tlog_mem_series {
    /* What each row needs, together: of many series, most of an append is waiting for memory. */
    mir_tlog_shape *shape;
    uint8_t *tail; /* in the last block: where the next row goes */
    int64_t turn_time_min;
    int64_t turn_time_max;
    uint32_t room; /* left in the last block */
    uint32_t end;  /* like published, with the current turn */
    uint32_t rows;
    uint32_t id;
    uint32_t extra_count; /* writer's */
    bool in_turn;
    uint8_t logged;
    atomic_bool seen_all;
    /* Not every row has a value in every fixed column, no others, and a later time than the one
     * before it; stored by append, so it may be on account of a row that is not published. */
    atomic_bool uneven;
    struct mir_tlog_mem_series *turn_next;
    /* Readers': stored by publish; `published` last, with release. */
    atomic_uint published;
    atomic_uint rows_published; /* with release, after the times */
    _Atomic int64_t time_min;
    _Atomic int64_t time_max;
    _Atomic(mir_tlog_block *) first;
    _Atomic(mir_tlog_extra *) extras;
    _Atomic uint64_t *seen;                  /* which fixed columns ever had a value; null: all */
    struct mir_tlog_mem_series *bucket_next; /* the one added before in the same bucket */
    struct mir_tlog_mem_series *all_next;    /* the one added before */
    mir_view device;
    /* The writer's. */
    mir_tlog_block *last;
    mir_tlog_block *committed_last;
    uint32_t committed_room;
    uint32_t columns_once; /* extras that are in the log at least once */
    uint32_t columns_twice;
    uint32_t columns_once_before;
    uint32_t columns_twice_before;
    uint32_t extra_table_capacity;
    mir_tlog_extra *last_extra;
    mir_tlog_extra **extra_table;
    uint32_t *slots; /* column number + 1, by hash of name and type */
    uint32_t slot_count;
    uint8_t logged_before;
} mir_tlog_mem_series;

typedef struct mir_tlog_mem {
    uint64_t generation; /* of the log file */
    int64_t base_ns;     /* row times are stored relative to it */
    uint32_t bucket_count;
    uint32_t shape_count;
    uint32_t series_count;
    uint64_t rows; /* committed; the writer's */
    _Atomic(mir_tlog_mem_series *) *buckets;
    _Atomic(mir_tlog_mem_series *) all;
    atomic_size_t bytes;
    struct mir_tlog_slab *slabs;
} mir_tlog_mem;

/* One value of a decoded row. */
typedef struct mir_tlog_cell {
    uint32_t column;
    union {
        uint64_t bits;
        mir_view text;
    } value;
} mir_tlog_cell;

enum {
    MIR_TLOG_ROW_SPARSE = 1, /* a presence bitmap comes first */
    MIR_TLOG_ROW_EXTRAS = 2, /* values of extra columns come last */
    MIR_TLOG_ROW_FLAG_BITS = 2,
    /* A row has each fixed column once and may name as many extras again. */
    MIR_TLOG_ROW_CELLS_MAX = 2 * 4096 + 4096,
};

MIR_MUST_CHECK mir_status mir_tlog_mem_new(uint64_t generation, int64_t base_ns,
                                           uint32_t series_hint, mir_tlog_mem **mem);
void mir_tlog_mem_free(mir_tlog_mem *mem);

/* ---- The writer's ---- */

MIR_MUST_CHECK mir_status mir_tlog_mem_shape(mir_tlog_mem *mem, mir_view measurement,
                                             const mir_column *columns, uint32_t column_count,
                                             mir_tlog_shape **shape);
/* Readers find it from now on, without rows. */
MIR_MUST_CHECK mir_status mir_tlog_mem_series_add(mir_tlog_mem *mem, mir_tlog_shape *shape,
                                                  mir_view device, mir_tlog_mem_series **series);
/* The number of the column of that name and type, fixed or extra; added as an extra if new. */
MIR_MUST_CHECK mir_status mir_tlog_mem_column(mir_tlog_mem *mem, mir_tlog_mem_series *series,
                                              mir_view name, mir_column_type type,
                                              uint32_t *column);
/* Appends a row's bytes (size and flags, then body), not yet for readers. */
MIR_MUST_CHECK mir_status mir_tlog_mem_append(mir_tlog_mem *mem, mir_tlog_mem_series *series,
                                              const uint8_t *bytes, uint32_t size, int64_t time_ns);
/* The same for what fits into the last block with some bytes to spare, which are written over. */
enum { MIR_TLOG_MEM_SLACK = 16 };

static inline bool mir_tlog_mem_fits(const mir_tlog_mem_series *series, uint32_t size)
{
    return series->room >= size + MIR_TLOG_MEM_SLACK;
}

static inline void mir_tlog_mem_uneven(mir_tlog_mem_series *series)
{
    /* Readers see it with the rows, which are published later. */
    atomic_store_explicit(&series->uneven, true, memory_order_relaxed);
}

/* The row stands in the last block. */
static inline void mir_tlog_mem_took(mir_tlog_mem_series *series, const uint8_t *bytes,
                                     uint32_t size, int64_t time_ns)
{
    series->tail += size;
    series->room -= size;
    series->end += size;
    series->rows++;
    if (time_ns < series->turn_time_min) series->turn_time_min = time_ns;
    const bool is_whole = (bytes[0] & ((1u << MIR_TLOG_ROW_FLAG_BITS) - 1)) == 0;
    const bool is_later = time_ns > series->turn_time_max || series->rows == 1;
    if (!is_whole || !is_later) mir_tlog_mem_uneven(series);
    if (time_ns > series->turn_time_max) series->turn_time_max = time_ns;
}

/* Reads and writes up to 15 bytes more than `size`. */
static inline void mir_tlog_copy_loosely(uint8_t *to, const uint8_t *from, uint32_t size)
{
    for (uint32_t at = 0; at < size; at += MIR_TLOG_MEM_SLACK) {
        memcpy(to + at, from + at, MIR_TLOG_MEM_SLACK);
    }
}

static inline void mir_tlog_mem_put(mir_tlog_mem_series *series, const uint8_t *bytes,
                                    uint32_t size, int64_t time_ns)
{
    mir_tlog_copy_loosely(series->tail, bytes, size);
    mir_tlog_mem_took(series, bytes, size, time_ns);
}

void mir_tlog_mem_publish(mir_tlog_mem_series *series);
/* Forgets what was appended since the last publish. */
void mir_tlog_mem_rollback(mir_tlog_mem_series *series);
/* A row without some fixed columns: `present` has bit i set for column i. */
void mir_tlog_mem_seen(mir_tlog_mem_series *series, const uint64_t *present);

/* ---- Readers' ---- */

/* The series of a device and measurement that was added last, or null; the one before it follows by
 * mir_tlog_mem_find_before. */
mir_tlog_mem_series *mir_tlog_mem_find(const mir_tlog_mem *mem, mir_view device,
                                       mir_view measurement);
mir_tlog_mem_series *mir_tlog_mem_find_before(const mir_tlog_mem_series *series);

typedef struct mir_tlog_mem_cursor {
    const mir_tlog_mem *mem;
    const mir_tlog_mem_series *series;
    const mir_tlog_block *block;
    uint32_t position;
    uint32_t limit;
    uint32_t column_count; /* fixed and extra */
    uint8_t *extra_types;
} mir_tlog_mem_cursor;

/* How many bytes of it are published: with acquire, so that the rows are there. */
static inline uint32_t mir_tlog_mem_published(const mir_tlog_mem_series *series)
{
    /* Pairs with the release in mir_tlog_mem_publish. */
    return atomic_load_explicit(&series->published, memory_order_acquire);
}

/* How many rows are published; the times are then at least as wide as theirs, and `uneven` is true
 * if they are. May be ahead of `published`. */
static inline uint32_t mir_tlog_mem_rows(const mir_tlog_mem_series *series)
{
    /* Pairs with the release in mir_tlog_mem_publish. */
    return atomic_load_explicit(&series->rows_published, memory_order_acquire);
}

/* Stands before the first row; sees what lies before `limit`, which was published. */
MIR_MUST_CHECK mir_status mir_tlog_mem_cursor_init(mir_tlog_mem_cursor *cursor,
                                                   const mir_tlog_mem *mem,
                                                   const mir_tlog_mem_series *series,
                                                   uint32_t limit);
void mir_tlog_mem_cursor_fini(mir_tlog_mem_cursor *cursor);
/* The next row's time and its values in column order, extras last (a column may come twice: the
 * later counts). `cells` has room for MIR_TLOG_ROW_CELLS_MAX. MIR_E_EMPTY at the end. */
MIR_MUST_CHECK mir_status mir_tlog_mem_next(mir_tlog_mem_cursor *cursor, int64_t *time_ns,
                                            mir_tlog_cell *cells, uint32_t *cell_count);

/* The quick way through what is usual. Of a series without strings: as many of the next rows as have
 * a value in every fixed column and no extras, at most `rows_max` of them, and those in the same
 * block; column i's values go to values[i], rows before time_first or behind time_last nowhere. How
 * many were taken; `*passed` also counts those that were not. None: try mir_tlog_mem_next. */
uint32_t mir_tlog_mem_take(mir_tlog_mem_cursor *cursor, int64_t time_first, int64_t time_last,
                           int64_t *times, uint64_t *const *values, uint32_t rows_max,
                           uint32_t *passed);

/* Reads the body of one row. Bytes from the disk may be anything: MIR_E_CORRUPT. */
MIR_MUST_CHECK mir_status mir_tlog_row_read(mir_view body, uint32_t flags, int64_t base_ns,
                                            const uint8_t *types, uint32_t column_count,
                                            const uint8_t *extra_types, uint32_t extra_count,
                                            int64_t *time_ns, mir_tlog_cell *cells,
                                            uint32_t *cell_count);

#endif
