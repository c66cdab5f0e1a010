/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_log: the write-ahead log's file: header, frames, records; and how it is read again.
 *
 * Why        What arrived in one turn is one frame with one checksum, given to the kernel with one
 *            write. Every row can be read without the ones before it: a lost frame costs its own
 *            rows only. What names a series stands in the log twice, in different frames.
 * Ownership  Buffers are the caller's; replay makes a memtable that becomes the caller's.
 * Affinity   Any thread.
 * Bounds     A frame's payload is below 4 GiB; what of a file was ever written is read at once,
 *            MIR_TLOG_LOG_FILE_BYTES_MAX.
 * Errors     Replay: MIR_E_IO, _NO_MEMORY, _UNSUPPORTED (a newer version), _CORRUPT (both headers
 *            damaged), _EMPTY (nothing was ever written to it). Damage further on is counted.
 * Source     Drawn in docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_LOG_H
#define MIR_TLOG_LOG_H

#include "mir_status.h"
#include "mir_tlog_file.h"
#include "mir_tlog_mem.h"

enum {
    MIR_TLOG_LOG_VERSION = 1,
    MIR_TLOG_LOG_HEADER_BYTES = 128, /* two copies of 64 */
    MIR_TLOG_FRAME_HEADER_BYTES = 32,
    MIR_TLOG_FRAME_ALIGN = 8,
    MIR_TLOG_RECORD_SHAPE = 1,
    MIR_TLOG_RECORD_SERIES = 2,
    MIR_TLOG_RECORD_COLUMNS = 3,
    MIR_TLOG_LOG_FILE_BYTES_MAX = 1 << 30,
};

/* Writes MIR_TLOG_LOG_HEADER_BYTES. */
void mir_tlog_log_header(uint8_t *to, uint64_t generation, int64_t base_ns);

/* Completes the frame whose payload is in place behind its header; zeroes up to the alignment, for
 * which there is room. Returns the bytes to write. */
size_t mir_tlog_log_frame(uint8_t *frame, uint32_t payload_size, uint32_t row_count,
                          uint64_t sequence, uint64_t generation);

/* Sizes are upper bounds; the put functions return past the last byte. */
size_t mir_tlog_log_shape_size(const mir_tlog_shape *shape);
uint8_t *mir_tlog_log_put_shape(uint8_t *to, const mir_tlog_shape *shape);
size_t mir_tlog_log_series_size(const mir_tlog_mem_series *series);
uint8_t *mir_tlog_log_put_series(uint8_t *to, const mir_tlog_mem_series *series);
/* Extras `first` to `end` - 1. */
size_t mir_tlog_log_columns_size(const mir_tlog_mem_series *series, uint32_t first, uint32_t end);
uint8_t *mir_tlog_log_put_columns(uint8_t *to, const mir_tlog_mem_series *series, uint32_t first,
                                  uint32_t end);

/* From `written` on there are only zeros. MIR_E_EMPTY, _CORRUPT (both copies), _UNSUPPORTED. */
MIR_MUST_CHECK mir_status mir_tlog_log_header_read(mir_view bytes, size_t written,
                                                   uint64_t generation, int64_t *base_ns,
                                                   mir_error *error);

typedef struct mir_tlog_frame {
    size_t start;
    size_t end; /* where the next one would begin */
    uint32_t row_count;
    uint64_t sequence;
    mir_view payload;
} mir_tlog_frame;

typedef enum mir_tlog_frame_found {
    MIR_TLOG_FRAME_NONE,
    MIR_TLOG_FRAME_PART, /* its header is whole, and says that it goes on behind these bytes */
    MIR_TLOG_FRAME_WHOLE,
} mir_tlog_frame_found;

/* `start` is within the bytes. Of a part there is no payload. */
mir_tlog_frame_found mir_tlog_log_frame_at(mir_view bytes, size_t start, uint64_t generation,
                                           mir_tlog_frame *frame);

/* What has been read of a log: the names that its rows rely on. */
typedef struct mir_tlog_records mir_tlog_records;

typedef struct mir_tlog_log_row {
    const mir_tlog_mem_series *series;
    int64_t time_ns;
    const mir_tlog_cell *cells; /* in column order; one that comes twice counts the second time */
    uint32_t cell_count;
} mir_tlog_log_row;

typedef mir_status (*mir_tlog_log_row_fn)(void *context, const mir_tlog_log_row *row);

/* `bytes`: how long the log is at most. MIR_E_NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_records_new(uint64_t generation, int64_t base_ns, size_t bytes,
                                               mir_tlog_records **records);
void mir_tlog_records_free(mir_tlog_records *records);
/* Takes up the names of a frame and gives its rows, but for the first `skip`, to `row`, which may be
 * null. How many of the frame are done with goes to *taken: those skipped, given, or lost with their
 * names. Returns what `row` did when it refused one, MIR_E_CORRUPT, _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_records_read(mir_tlog_records *records, mir_view payload,
                                                uint32_t skip, mir_tlog_log_row_fn row,
                                                void *context, uint32_t *taken,
                                                uint64_t *rows_lost);

typedef struct mir_tlog_replay {
    uint64_t rows;
    uint64_t rows_lost;      /* in frames that are whole, of series whose names are lost */
    uint64_t bytes;          /* up to the end of the last whole frame */
    uint64_t torn_bytes;     /* behind it, up to the last byte that is not zero */
    uint64_t corrupt_frames; /* damaged regions between whole frames */
} mir_tlog_replay;

/* All rows of the result are published. */
MIR_MUST_CHECK mir_status mir_tlog_log_replay(const mir_tlog_files *files, const char *path,
                                              uint64_t generation, mir_tlog_mem **mem,
                                              mir_tlog_replay *replay, mir_error *error);
/* The same from bytes in memory. */
MIR_MUST_CHECK mir_status mir_tlog_log_replay_bytes(mir_view bytes, uint64_t generation,
                                                    mir_tlog_mem **mem, mir_tlog_replay *replay,
                                                    mir_error *error);

/* A log as it is on the disk now, its rows left alone. */
typedef struct mir_tlog_log_look {
    uint8_t *bytes; /* the caller frees it; found.bytes of it are whole */
    uint32_t headers_damaged;
    uint32_t padding_damaged; /* frames behind which there are not zeros */
    mir_tlog_replay found;    /* rows as the frames say; none of them is looked at */
} mir_tlog_log_look;

/* May be done while a writer writes: a frame that is being written is torn then, and not a damaged
 * region. Errors as replay; nothing is to be freed then. */
MIR_MUST_CHECK mir_status mir_tlog_log_look_at(const mir_tlog_files *files, int handle,
                                               uint64_t generation, mir_tlog_log_look *look,
                                               mir_error *error);
/* The same from bytes in memory, which it does not give again. */
MIR_MUST_CHECK mir_status mir_tlog_log_look_bytes(mir_view bytes, uint64_t generation,
                                                  mir_tlog_log_look *look, mir_error *error);

#endif
