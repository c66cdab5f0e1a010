/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_column: one column of a chunk as bytes, and back, exactly.
 *
 * Why        The values of one field are like one another, and times nearly evenly spaced: as
 *            integers (mir_tlog_ints) they are small and quick to unpack.
 * Ownership  A codec owns zstd contexts and scratch; decoded texts live in the caller's arena.
 * Affinity   A codec: one thread at a time.
 * Bounds     MIR_TLOG_CHUNK_ROWS_MAX values; a column's bytes MIR_TLOG_COLUMN_BYTES_MAX.
 * Errors     Encoding fails through mir_bytes_ok alone. Decoding: MIR_E_CORRUPT, _NO_MEMORY.
 * Source     Byte planes as in the Parquet BYTE_STREAM_SPLIT encoding. Drawn in
 *            docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_COLUMN_H
#define MIR_TLOG_COLUMN_H

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_row.h"
#include "mir_status.h"
#include "mir_tlog_code.h"
#include "mir_tlog_ints.h"

enum {
    MIR_TLOG_COLUMN_BYTES_MAX = 16 << 20,
    MIR_TLOG_TRIALS = 64, /* columns are told apart by a hash with so many values */
};

/* What has paid lately for the numbers of a column. */
typedef struct mir_tlog_trial {
    uint8_t failed; /* to compress them: in a row */
    uint8_t waits;  /* for so many chunks it is not tried again */
    uint8_t alike;  /* samples of doubles with the same answer, in a row */
    uint8_t kept;   /* for so many chunks it is taken to be the answer */
    bool as_ints;   /* the answer: as integers they take less than byte by byte */
} mir_tlog_trial;

typedef struct mir_tlog_codec {
    struct ZSTD_CCtx_s *compressor;
    struct ZSTD_DCtx_s *decompressor;
    mir_bytes raw;
    mir_bytes packed;
    mir_bytes places; /* what places point into, if not the column itself */
    mir_bytes walked; /* the same of walks */
    uint64_t *work;   /* MIR_TLOG_INTS_WORK, and as many values as a chunk has rows */
    mir_tlog_trial trials[MIR_TLOG_TRIALS];
    /* For what is old enough to be worth it: zstd takes six times as long. */
    bool dense;
    uint64_t light_bytes; /* stored so far of columns that zstd made smaller, and not dense */
} mir_tlog_codec;

MIR_MUST_CHECK mir_status mir_tlog_codec_init(mir_tlog_codec *codec);
void mir_tlog_codec_fini(mir_tlog_codec *codec);

/* Appends `count` values: the bits of integers, doubles (as IEEE 754 bits) and booleans (0, 1) from
 * `values`, strings from `texts`; the other may be null. Columns of the same `kind`, any number, are
 * taken to be alike: what zstd has lately not made smaller is not given to it every time. */
void mir_tlog_column_encode(mir_tlog_codec *codec, mir_bytes *out, uint32_t kind,
                            mir_column_type type, const uint64_t *values, const mir_view *texts,
                            uint32_t count);
/* The same back. `values` has room for `count`; texts (strings only) likewise, in the arena. */
MIR_MUST_CHECK mir_status mir_tlog_column_decode(mir_tlog_codec *codec, mir_tlog_reader *in,
                                                 mir_column_type type, uint64_t *values,
                                                 mir_view *texts, uint32_t count, mir_arena *arena);
/* Where each value of a column of integers stands, if it is written so; `in` is at its begin. Valid
 * until the next such call with this codec. MIR_E_UNSUPPORTED: decode it. */
MIR_MUST_CHECK mir_status mir_tlog_column_places(mir_tlog_codec *codec, mir_tlog_reader in,
                                                 uint32_t count, mir_tlog_ints_places *places);
/* For sums of neighbours of a column of integers, which is passed over; likewise. If it is written in
 * another way, `in` stays where it is. */
MIR_MUST_CHECK mir_status mir_tlog_column_walk(mir_tlog_codec *codec, mir_tlog_reader *in,
                                               uint32_t count, mir_tlog_ints_walk *walk);
/* Passes over a column without looking into it. */
void mir_tlog_column_skip(mir_tlog_reader *in);

/* zstd of `size` bytes into `out` (appended), for indexes and footers. */
void mir_tlog_compress(mir_tlog_codec *codec, mir_bytes *out, const void *data, size_t size);
MIR_MUST_CHECK mir_status mir_tlog_decompress(mir_tlog_codec *codec, uint8_t *raw, size_t raw_size,
                                              mir_view packed);

#endif
