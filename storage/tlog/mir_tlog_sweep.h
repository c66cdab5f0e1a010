/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_sweep: the rows of one series out of any number of chunks, in the order of time, so many at
 * once.
 *
 * Why        The rows of a busy hour may be more than memory has room for. Where chunks follow each
 *            other a few of them are put in order at a time; where more overlap than that, the time is
 *            cut shorter, and each chunk is read for each of the cuts that it has rows in.
 * Ownership  The chunks are the caller's, and stay. What `rows` points to is valid until the next call.
 * Affinity   One thread at a time.
 * Bounds     Rows of bytes_max at once; with what arrays grow ahead, and putting in order takes, eight
 *            times that.
 * Errors     Damage marks the segment. MIR_E_CORRUPT, _IO, _NO_MEMORY, _TOO_LARGE (rows of one single
 *            time that take eight times bytes_max). */
#ifndef MIR_TLOG_SWEEP_H
#define MIR_TLOG_SWEEP_H

#include "mir_tlog_internal.h"

typedef struct mir_tlog_sweep_chunk {
    mir_tlog_segment *segment;
    mir_tlog_chunk chunk;
    uint32_t order; /* of those of one generation the later ones win */
} mir_tlog_sweep_chunk;

typedef struct mir_tlog_sweep_list {
    mir_tlog_sweep_chunk *items;
    uint32_t count;
    uint32_t capacity;
} mir_tlog_sweep_list;

/* Adds a chunk; its order is behind all that are there. MIR_E_NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_sweep_add(mir_tlog_sweep_list *list, mir_tlog_segment *segment,
                                             const mir_tlog_chunk *chunk);
/* By their first times: as a sweep needs them. */
void mir_tlog_sweep_sort(mir_tlog_sweep_list *list);
/* By who wins, the last one last. */
void mir_tlog_sweep_sort_winners(mir_tlog_sweep_list *list);

typedef struct mir_tlog_sweep {
    /* Set by the caller after init. */
    mir_tlog_codec *codec;
    uint64_t bytes_max; /* [MIR_TLOG_SWEEP_BYTES] of rows as columns */
    /* Null, or called with the size of each chunk that was read. It may wait. */
    void (*read)(void *context, uint64_t bytes);
    void *context;

    mir_tlog_gather rows; /* finished; at least one */
    bool ended;           /* there are no more after these */

    const mir_tlog_sweep_list *chunks;
    uint32_t passed; /* chunks before this one are done with */
    int64_t at_ns;
    int64_t last_ns;
    uint64_t span_ns;          /* of the last cut; 0: none was needed */
    mir_tlog_sweep_list taken; /* of the stretch at hand */
    mir_bytes bytes;
} mir_tlog_sweep;

MIR_MUST_CHECK mir_status mir_tlog_sweep_init(mir_tlog_sweep *sweep);
void mir_tlog_sweep_fini(mir_tlog_sweep *sweep);

/* What a failure to read it says about a segment. */
void mir_tlog_sweep_mark(mir_tlog_segment *segment, mir_status status);
/* A chunk's bytes, into sweep->bytes; what is damaged is marked. */
MIR_MUST_CHECK mir_status mir_tlog_sweep_read(mir_tlog_sweep *sweep, mir_tlog_segment *segment,
                                              const mir_tlog_chunk *chunk);
/* And its rows, into any gather. */
MIR_MUST_CHECK mir_status mir_tlog_sweep_decode(mir_tlog_sweep *sweep, mir_tlog_segment *segment,
                                                const mir_tlog_chunk *chunk, mir_tlog_gather *to);

/* Rows from first_ns to last_ns, inclusive; `chunks` are sorted. */
void mir_tlog_sweep_begin(mir_tlog_sweep *sweep, const mir_tlog_sweep_list *chunks,
                          int64_t first_ns, int64_t last_ns);
/* The next rows, all before those of the next call: MIR_E_EMPTY behind the last. */
MIR_MUST_CHECK mir_status mir_tlog_sweep_next(mir_tlog_sweep *sweep);

/* About how many bytes the rows of a chunk take as columns. */
uint64_t mir_tlog_sweep_weight(const mir_tlog_sweep_chunk *chunk);

#endif
