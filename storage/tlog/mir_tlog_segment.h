/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_segment: immutable files of column chunks, written once in the order of their series.
 *
 * Why        Rows that have left the log are read far more often than written: as columns they are
 *            small, and an index sorted by measurement and device finds a series with one binary
 *            search in memory and one read.
 * Ownership  A segment is reference-counted; the last release closes the file.
 * Affinity   A segment: any thread. A segment writer and a codec: one thread at a time.
 * Bounds     A chunk has MIR_TLOG_CHUNK_ROWS_MAX rows and MIR_TLOG_CHUNK_BYTES_MAX bytes. In memory
 *            an open segment keeps its footer: names, column sets and one key for each 16 KiB of
 *            index.
 * Errors     MIR_E_CORRUPT for any damage, _UNSUPPORTED for a newer version, _IO, _NO_SPACE,
 *            _NO_MEMORY.
 * Source     Drawn in docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_SEGMENT_H
#define MIR_TLOG_SEGMENT_H

#include <stdatomic.h>

#include "mir_tlog_column.h"
#include "mir_tlog_file.h"
#include "mir_tlog_gather.h"

enum {
    MIR_TLOG_SEGMENT_VERSION = 3, /* versions 1 and 2 are read as well */
    MIR_TLOG_SEGMENT_HEADER_BYTES = 64,
    MIR_TLOG_SEGMENT_TRAILER_BYTES = 64,
    MIR_TLOG_SPARE_HEAD_BYTES = 56,
    MIR_TLOG_SPARE_GAP_BYTES = 4096, /* a page, and the least that a disk loses */
    MIR_TLOG_CHUNK_HEADER_BYTES = 16,
    MIR_TLOG_CHUNK_BYTES_MAX = 64 << 20,
    MIR_TLOG_CHUNK_TEXT_BYTES = 1 << 20, /* a chunk ends before its strings pass this */
    MIR_TLOG_INDEX_BLOCK_BYTES = 16 * 1024,
    MIR_TLOG_KEPT_BLOCKS = 4,                  /* of a segment's index */
    MIR_TLOG_KEPT_BLOCK_BYTES_MAX = 32 * 1024, /* of one that is kept */
    MIR_TLOG_FOOTER_BYTES_MAX = 256 << 20,
};

/* A chunk as the index names it. */
typedef struct mir_tlog_chunk {
    uint64_t offset;
    uint32_t size;
    uint32_t shape;
    uint32_t rows;
    bool full; /* every column has a value in every row; false: may be */
    int64_t time_min;
    int64_t time_max;
    uint64_t generation; /* of the newest log whose rows it has: of two chunks it wins */
} mir_tlog_chunk;

/* What a chunk says about the values of one column without showing them. Bits as in the column. */
typedef struct mir_tlog_column_statistics {
    uint32_t count;  /* values, whether the others are known or not */
    bool known;      /* low, high and sum are */
    bool ends_known; /* first and last are */
    uint64_t low;    /* NaN left out; of NaN alone: 0 */
    uint64_t high;
    __int128 sum; /* of all but doubles */
    double sum_f64;
    uint64_t first;
    uint64_t last;
} mir_tlog_column_statistics;

/* A measurement and columns; every column has a value in every chunk of this shape. */
typedef struct mir_tlog_segment_shape {
    uint32_t measurement;
    uint32_t column_count;
    const mir_column *columns; /* ascending by name, then type */
    uint64_t rows;
    int64_t time_min;
    int64_t time_max;
} mir_tlog_segment_shape;

typedef struct mir_tlog_index_block {
    uint64_t offset;
    uint32_t size;
    uint32_t measurement; /* the first entry's */
    mir_view device;
} mir_tlog_index_block;

typedef struct mir_tlog_segment_head {
    uint64_t id;
    uint64_t generation_min; /* of the logs whose rows it has */
    uint64_t generation_max;
} mir_tlog_segment_head;

typedef struct mir_tlog_segment {
    mir_tlog_segment_head head;
    atomic_uint references;
    uint32_t version;
    const mir_tlog_files *files;
    int handle;
    uint64_t size;
    uint64_t rows;
    uint64_t chunk_count;
    uint64_t light_bytes; /* about so many are worth packing again when they are old */
    uint64_t index_offset;
    uint64_t index_bytes;
    uint32_t footer_bytes; /* as stored, and unpacked */
    uint32_t footer_raw_bytes;
    bool has_spare_footer;
    bool has_spare_index; /* its blocks once more */
    uint32_t spare_gap;   /* zeros between these two and the index: 0 or MIR_TLOG_SPARE_GAP_BYTES */
    int64_t time_min;
    int64_t time_max;
    uint32_t measurement_count;
    const mir_view *measurements; /* ascending */
    uint32_t shape_count;
    const mir_tlog_segment_shape *shapes;
    uint32_t block_count;
    const mir_tlog_index_block *blocks;
    /* Blocks that were read lately, for those who search. Who takes one out has it alone. */
    _Atomic(struct mir_tlog_raw_block *) kept[MIR_TLOG_KEPT_BLOCKS];
    mir_arena arena;
    /* The background's: */
    int64_t retain_ns; /* nothing for retention before */
    bool retain_gone;  /* retention has replaced it */
    /* Retention could not read what it has of steps that more rows belong to: since when, where first,
     * and when it tried last; 0: it never could not, or could read that later. */
    int64_t unread_ns;
    uint64_t unread_place;
    int64_t unread_last_ns;
    atomic_bool damaged; /* a read met damage: it is left alone, so that it can be examined */
} mir_tlog_segment;

/* ---- Writing ---- */

typedef struct mir_tlog_segment_writer mir_tlog_segment_writer;

MIR_MUST_CHECK mir_status mir_tlog_segment_begin(const mir_tlog_files *files, const char *path,
                                                 const mir_tlog_segment_head *head,
                                                 mir_tlog_segment_writer **writer,
                                                 mir_error *error);
/* Rows `first` to `end` - 1 of a finished gather, as one or more chunks. Series come in ascending
 * order of measurement, then device; several calls for one series in the order in which later ones
 * win. */
MIR_MUST_CHECK mir_status mir_tlog_segment_put(mir_tlog_segment_writer *writer,
                                               mir_tlog_codec *codec, mir_view measurement,
                                               mir_view device, const mir_tlog_gather *gather,
                                               uint32_t first, uint32_t end, uint64_t generation,
                                               mir_error *error);
/* A chunk of another segment, `from`, as it is. */
MIR_MUST_CHECK mir_status mir_tlog_segment_put_chunk(mir_tlog_segment_writer *writer,
                                                     mir_tlog_codec *codec, mir_view measurement,
                                                     mir_view device, const mir_tlog_segment *from,
                                                     const mir_tlog_chunk *chunk, mir_view bytes,
                                                     mir_error *error);
uint64_t mir_tlog_segment_written(const mir_tlog_segment_writer *writer);
/* Index, footer, sync. The writer is gone either way; on failure so is the file. */
MIR_MUST_CHECK mir_status mir_tlog_segment_end(mir_tlog_segment_writer *writer,
                                               mir_tlog_codec *codec, uint64_t *size,
                                               mir_error *error);
void mir_tlog_segment_abandon(mir_tlog_segment_writer *writer);

/* ---- Reading ---- */

MIR_MUST_CHECK mir_status mir_tlog_segment_open(const mir_tlog_files *files, const char *path,
                                                uint64_t id, mir_tlog_codec *codec,
                                                mir_tlog_segment **segment, mir_error *error);
void mir_tlog_segment_retain(mir_tlog_segment *segment);
void mir_tlog_segment_release(mir_tlog_segment *segment);

/* A block of an index, unpacked. */
typedef struct mir_tlog_raw_block {
    uint32_t number;
    uint32_t size;
    uint8_t bytes[];
} mir_tlog_raw_block;

/* Walks or searches the index of one segment. Zeroed but for `segment`, it stands at the start. What
 * is walked is read from the disk; what is searched may be from memory. */
typedef struct mir_tlog_index_cursor {
    mir_tlog_segment *segment;
    mir_tlog_raw_block *raw; /* the block that is read, or null */
    bool keeps;              /* it has searched */
    uint32_t block;          /* the number of the one that was read, or could not be */
    bool from_spare;         /* the block is damaged, and was read from where it stands once more */
    uint32_t next_block;
    mir_tlog_reader in;
    /* The key of the entry before the current one in the block. */
    bool has_before;
    uint32_t before_measurement;
    mir_view before_device;
    /* The current entry. */
    bool has_entry;
    uint32_t measurement;
    mir_view device;
    uint32_t chunk_count;
    uint32_t chunk_capacity;
    mir_tlog_chunk *chunks;
} mir_tlog_index_cursor;

void mir_tlog_index_fini(mir_tlog_index_cursor *cursor);
/* The memory that it has taken. */
static inline uint64_t mir_tlog_index_held(const mir_tlog_index_cursor *cursor)
{
    return (cursor->raw == NULL ? 0 : sizeof *cursor->raw + cursor->raw->size) +
           cursor->chunk_capacity * sizeof *cursor->chunks;
}
/* A block that is damaged is taken from the spare index, if there is one.
 *
 * The next series: MIR_E_EMPTY after the last, MIR_E_CORRUPT for a damaged block, which the next
 * call passes over. */
MIR_MUST_CHECK mir_status mir_tlog_index_next(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec);
/* Makes that series current: MIR_E_NOT_FOUND, MIR_E_CORRUPT. */
MIR_MUST_CHECK mir_status mir_tlog_index_find(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec,
                                              mir_view measurement, mir_view device);

/* What stands in a segment before its index, to be found without its end: a head, and the footer as it
 * is stored. */
typedef struct mir_tlog_spare {
    uint64_t index_offset;
    uint64_t index_bytes;
    uint32_t stored;
    uint32_t raw_size;
    uint64_t hash; /* of the footer as stored */
} mir_tlog_spare;

/* Whether these MIR_TLOG_SPARE_HEAD_BYTES are the head of that segment's. */
bool mir_tlog_spare_read(const uint8_t *head, uint64_t id, mir_tlog_spare *spare);
/* Whether the segment's second footer and second index, where it has them, are what the first ones
 * are: MIR_OK, MIR_E_CORRUPT, or what else kept it from reading them. */
MIR_MUST_CHECK mir_status mir_tlog_segment_check_spares(mir_tlog_segment *segment,
                                                        mir_tlog_codec *codec);

/* Reads a chunk's bytes (appended to `bytes`) and verifies their checksum. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_read(mir_tlog_segment *segment,
                                              const mir_tlog_chunk *chunk, mir_bytes *bytes);
/* Walks the columns of a chunk's bytes, which stay the caller's. */
typedef struct mir_tlog_chunk_reader {
    mir_tlog_reader in;
    mir_tlog_reader times_in;
    const mir_tlog_segment_shape *shape;
    uint32_t rows;
    uint32_t next; /* column of the shape */
    /* The current column. */
    const mir_column *column;
    mir_view bitmap; /* which rows have a value, lowest bit first; without data: all */
    mir_tlog_column_statistics statistics;
} mir_tlog_chunk_reader;

MIR_MUST_CHECK mir_status mir_tlog_chunk_begin(mir_tlog_chunk_reader *reader, mir_view bytes,
                                               const mir_tlog_segment_shape *shape);
/* Where the times stand, if they are written so: not checked as those are. MIR_E_UNSUPPORTED. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_time_places(const mir_tlog_chunk_reader *reader,
                                                     mir_tlog_codec *codec,
                                                     mir_tlog_ints_places *places);
/* The times of all rows, ascending; at any moment, and only if they are needed. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_times(const mir_tlog_chunk_reader *reader,
                                               mir_tlog_codec *codec, int64_t *times);
/* Makes the next column current: MIR_E_EMPTY behind the last. Then its values are taken or passed. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_next(mir_tlog_chunk_reader *reader);
/* As many values, or for strings texts, as the statistics count; room for reader->rows of each. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_values(mir_tlog_chunk_reader *reader,
                                                mir_tlog_codec *codec, uint64_t *values,
                                                mir_view *texts, mir_arena *arena);
/* Instead of the values, for their sums. MIR_E_UNSUPPORTED: take them. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_walk(mir_tlog_chunk_reader *reader, mir_tlog_codec *codec,
                                              mir_tlog_ints_walk *walk);
MIR_MUST_CHECK mir_status mir_tlog_chunk_pass(mir_tlog_chunk_reader *reader);

/* Its rows within the gather's times, of the columns that it wants. Nothing is added on failure. */
MIR_MUST_CHECK mir_status mir_tlog_chunk_decode(mir_tlog_codec *codec, mir_view bytes,
                                                const mir_tlog_segment_shape *shape,
                                                mir_tlog_gather *gather);

#endif
