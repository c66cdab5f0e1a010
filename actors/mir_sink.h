/* SPDX-License-Identifier: Apache-2.0 */
/* mir_sink: forwards telemetry to what accepts Influx line protocol over HTTP.
 *
 * Why        Whoever has a database of measurements already wants the telemetry there. The other side
 *            may be away for hours; nothing is lost meanwhile, and no message waits for it.
 *
 *              telemetry log ──► spool (mir_tlog_spool) ──► lines ──► POST ──► accepted, or refused
 *
 *            A row becomes `measurement,__id=…,__name=…,__namespace=…,label=… field=…,… time`, with
 *            names and labels as they are when it is sent. What line protocol has no form for is left
 *            out: tags and fields with a line end or a backslash in their names, empty labels, labels
 *            called `time`, and values that are no numbers (NaN, infinities), which would cost the
 *            whole line. A line end in a text goes out as a backslash and a letter: some end the line
 *            there, and a device could write lines of another one.
 * Ownership  The hub has it; it has its thread and its spool.
 * Affinity   open, attach, start, stop, destroy: the main thread, stop while the shards still run.
 *            stats: any thread. Its own thread at nice 19 does all the work.
 * Promise    At least once, in the order of each series: after a kill one batch may go out again,
 *            which is the same point to the other side.
 * Units      *_ns: nanoseconds; through_ns since 1970 UTC.
 * Bounds     One batch in memory (batch_lines, batch_bytes and one line more), tags of
 *            MIR_SINK_DEVICES_MAX devices, spool_bytes_max on the disk: beyond it, or with less of
 *            the disk free than a quarter more than telemetry.disk_reserve, the oldest log goes, which
 *            is counted, logged and told as an event.
 * Errors     open, start: with a text. What goes wrong later is in the stats and in the log. */
#ifndef MIR_SINK_H
#define MIR_SINK_H

#include "mir_config.h"
#include "mir_state.h"
#include "mir_tlog.h"

typedef struct mir_sink mir_sink;

enum { MIR_SINK_DEVICES_MAX = 65536, MIR_SINK_ERROR_BYTES_MAX = 320 };

/* Null in *sink when none is configured; then what an earlier one left is removed. Sets what concerns
 * the log. */
MIR_MUST_CHECK mir_status mir_sink_open(const mir_config *config, mir_tlog_options *options,
                                        mir_sink **sink, mir_error *error);
/* What it reads from: before any other call but destroy. Both may be used until it is stopped. */
void mir_sink_attach(mir_sink *sink, mir_tlog *tlog, mir_state *state);
/* Rows were given up: called by the sink's thread. */
typedef void (*mir_sink_dropped_fn)(void *context, uint64_t rows);
MIR_MUST_CHECK mir_status mir_sink_start(mir_sink *sink, mir_sink_dropped_fn dropped, void *context,
                                         mir_error *error);
void mir_sink_stop(mir_sink *sink);
void mir_sink_destroy(mir_sink *sink);

typedef struct mir_sink_stats {
    char url[256]; /* without what may be secret */
    uint64_t batches;
    uint64_t rows_sent;
    uint64_t bytes_sent;
    uint64_t rows_withheld;   /* telemetry.sink.rules do not want them sent */
    uint64_t rows_refused;    /* by the other side, for good */
    uint64_t rows_dropped;    /* the spool was full */
    uint64_t rows_damaged;    /* could not be read from the spool */
    uint64_t logs_lost;       /* could not be kept for it, or not be read at all */
    uint64_t values_left_out; /* line protocol has no form for them */
    uint64_t retries;
    uint64_t lag_rows; /* stored and not accepted yet, about */
    int64_t lag_ns;    /* how long the oldest of them has waited; 0: none does */
    uint64_t spool_bytes;
    uint64_t spool_bytes_max;
    bool failing;          /* the last attempt failed, or it waits for the next one */
    int64_t error_wall_ns; /* 0: nothing went wrong yet */
    char error[MIR_SINK_ERROR_BYTES_MAX];
} mir_sink_stats;

void mir_sink_stats_read(mir_sink *sink, mir_sink_stats *stats);

#endif
