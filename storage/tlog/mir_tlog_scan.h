/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_scan: one thread of a query at work, device by device.
 *
 * Why        Rows of a series lie in chunks and in memory. Those whose times overlap must be put in
 *            order first, so that the later of two equal rows counts, and as many of them at once as
 *            there is room for, unless they are the answer; all others are read one by one,
 *            or not at all when what the index or the chunk says about them is enough.
 * Ownership  Borrows the query's version and spec. What gather holds is valid until the next device.
 * Affinity   One thread at a time; any number of scans of one version at once.
 * Bounds     bytes_max of the query, counted together in `bytes`: what is put in order, and what is
 *            held of indexes, of which a 32nd of it at most goes from one device to the next.
 * Errors     With a text for whoever asked. Damaged chunks are counted and left out. */
#ifndef MIR_TLOG_SCAN_H
#define MIR_TLOG_SCAN_H

#include "mir_tlog_internal.h"
#include "mir_tlog_totals.h"

enum { MIR_TLOG_QUERY_BYTES_DEFAULT = 256 << 20 };

/* Where rows of a device are: in a chunk, or in memory when segment is null. */
typedef struct mir_tlog_source {
    int64_t time_min; /* at least as wide as the rows' */
    int64_t time_max;
    uint64_t generation; /* then order: later ones win */
    uint32_t order;
    uint32_t cluster; /* sources of one cluster may overlap */
    bool lost;        /* it is damaged, and that has been counted */
    mir_tlog_segment *segment;
    mir_tlog_chunk chunk;
    const mir_tlog_mem *mem;
    const mir_tlog_mem_series *series;
    uint32_t limit;
    uint32_t rows; /* of the series; limit may have fewer */
} mir_tlog_source;

typedef struct mir_tlog_scan {
    mir_tlog *tlog;
    const mir_tlog_query_spec *spec;
    mir_tlog_version *version;
    atomic_ullong *bytes; /* of the whole query */
    uint64_t bytes_max;
    mir_error error;

    mir_tlog_codec codec;
    mir_tlog_gather gather;
    mir_tlog_index_cursor *cursors; /* one for each segment of the version */
    uint64_t cursor_bytes;          /* what they and all that they hold take */
    mir_bytes chunk;
    mir_tlog_source *sources; /* by cluster */
    uint32_t source_count;
    uint32_t source_capacity;
    uint32_t cluster_count;
    mir_arena arena;              /* texts of a chunk */
    int64_t *times;               /* MIR_TLOG_CHUNK_ROWS_MAX of each */
    mir_tlog_ints_places *places; /* of those of the chunk at hand */
    mir_tlog_ints_walk *walk;     /* through its column at hand */
    int64_t *dense;
    uint64_t *values;
    mir_view *texts;
    uint64_t rows_read;
    uint64_t chunks_corrupt;
    mir_view measurement;    /* whose rows are read: the spec's, or what they came to */
    int64_t rolled_first_ns; /* of which times there are rollups, if first <= last */
    int64_t rolled_last_ns;
    bool left_out; /* something that is in rollups alone, from before this */
    int64_t left_out_until_ns;
} mir_tlog_scan;

/* The numbers of the spec's devices in the order of their ids, each id once; *order is to be freed. */
MIR_MUST_CHECK mir_status mir_tlog_scan_order(const mir_tlog_query_spec *spec, uint32_t **order,
                                              uint32_t *count);

/* tlog, spec, version, bytes and bytes_max are set. fini may be called either way. */
MIR_MUST_CHECK mir_status mir_tlog_scan_init(mir_tlog_scan *scan);
void mir_tlog_scan_fini(mir_tlog_scan *scan);

/* The device's rows from first_ns to last_ns (inclusive) into scan->gather, finished. With `limit`
 * not all of them need be read: at least the first, or backward the last, so many are there. */
MIR_MUST_CHECK mir_status mir_tlog_scan_rows(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                             int64_t last_ns, uint64_t limit, bool backward);
/* The same in pieces that follow each other in time: `take` finds each in scan->gather. */
MIR_MUST_CHECK mir_status mir_tlog_scan_pieces(mir_tlog_scan *scan, mir_view device,
                                               int64_t first_ns, int64_t last_ns,
                                               mir_status (*take)(void *context), void *context);
/* What they come to. */
MIR_MUST_CHECK mir_status mir_tlog_scan_totals(mir_tlog_scan *scan, mir_view device,
                                               int64_t first_ns, int64_t last_ns,
                                               mir_tlog_totals *totals);
/* Counts memory of the query; MIR_E_TOO_LARGE beyond its bound. It is counted either way. */
MIR_MUST_CHECK mir_status mir_tlog_scan_take(mir_tlog_scan *scan, uint64_t bytes);
void mir_tlog_scan_give(mir_tlog_scan *scan, uint64_t bytes);
/* The chunks of a device in one segment of the version, as mir_tlog_index_find, until they are let go;
 * what that holds is counted. MIR_E_TOO_LARGE. */
MIR_MUST_CHECK mir_status mir_tlog_scan_find(mir_tlog_scan *scan, uint32_t segment,
                                             mir_view measurement, mir_view device,
                                             const mir_tlog_index_cursor **found);
/* They stay near for the next device, unless much is held already. */
void mir_tlog_scan_let_go(mir_tlog_scan *scan, uint32_t segment);
/* The error for a status, in words; MIR_E_FULL stands for more rows than rows_max. */
MIR_MUST_CHECK mir_status mir_tlog_scan_failed(mir_tlog_scan *scan, mir_status status);
bool mir_tlog_scan_cancelled(const mir_tlog_scan *scan);

#endif
