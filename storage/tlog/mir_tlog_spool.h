/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_spool: the telemetry log as a queue, for one reader that comes when it can.
 *
 * Why        What is forwarded to another system has to survive that it is away, and must not cost the
 *            message path anything. The log's files have every row already: a second name keeps a file
 *            when its rows have become segments, until the reader is done with it.
 *
 *              log file made ──► pinned ──► read as far as it is committed ──► accepted ──► unpinned
 *
 * Ownership  The spool owns its directory. Rows are valid during the call that gives them.
 * Affinity   log_made: the log's threads. stats: any thread. All else: one thread at a time.
 * Order      Rows of one series come in the order in which they were appended. A round takes what was
 *            committed when it began, log by log; a log that got rows later than another one of the
 *            same writer is read after it.
 * Promise    At least once: what was not accepted when the process ended is given again. What is not
 *            yet on the disk (telemetry.sync) may be given before it is.
 * Units      *_ns: nanoseconds since 1970 UTC.
 * Bounds     MIR_TLOG_POSITION_LOGS_MAX logs; mir_tlog_spool_trim bounds their bytes.
 * Errors     See each function. Damage in a log costs the rows in it and is counted. */
#ifndef MIR_TLOG_SPOOL_H
#define MIR_TLOG_SPOOL_H

#include <stdatomic.h>

#include "mir_tlog.h"
#include "mir_tlog_log.h"

typedef struct mir_tlog_spool mir_tlog_spool;

/* The directory is made if it is missing: on the file system of the log, whose files get a second
 * name in it. `files` null: POSIX. MIR_E_UNSUPPORTED (a newer version), _IO, _PERMISSION, _NO_SPACE,
 * _NO_MEMORY. A damaged position is said in the log: then all that is there is given again. */
MIR_MUST_CHECK mir_status mir_tlog_spool_open(const char *directory, const mir_tlog_files *files,
                                              mir_tlog_spool **spool, mir_error *error);
void mir_tlog_spool_close(mir_tlog_spool *spool);
/* Sets what concerns the spool. What is logged before the log is opened with it is not in it. */
void mir_tlog_spool_options(mir_tlog_spool *spool, mir_tlog_options *options);
/* Before anything is read; the log must outlive the reading. */
void mir_tlog_spool_attach(mir_tlog_spool *spool, mir_tlog *tlog);
/* There is no reader any more: deletes what is there. */
MIR_MUST_CHECK mir_status mir_tlog_spool_remove(const char *directory, const mir_tlog_files *files,
                                                mir_error *error);

/* Gives rows behind those that were given before. MIR_OK: a round is over, and all that was committed
 * when it began is given. What `row` returns, when it refuses one: that row comes again. MIR_E_IO,
 * _NO_MEMORY: the same, call again later; a log that cannot be read ten times in a row is given up. */
MIR_MUST_CHECK mir_status mir_tlog_spool_read(mir_tlog_spool *spool, mir_tlog_log_row_fn row,
                                              void *context, mir_error *error);
/* All that was given is done with. On failure it is so for this process, but a crash may bring it
 * back. */
MIR_MUST_CHECK mir_status mir_tlog_spool_accept(mir_tlog_spool *spool, mir_error *error);
/* Gives up the oldest logs until no more than so many bytes are pinned. Those that still get rows
 * stay. How many rows went unread is returned. */
uint64_t mir_tlog_spool_trim(mir_tlog_spool *spool, uint64_t bytes_max);
/* Rows that have not been given, as the frames say; reads all that is pinned, once. What it has counted
 * when `stop` (may be null) is set. */
uint64_t mir_tlog_spool_count(mir_tlog_spool *spool, const atomic_bool *stop);

typedef struct mir_tlog_spool_stats {
    uint64_t rows_read;
    uint64_t rows_lost; /* damaged */
    uint64_t damaged;   /* places in logs that were passed over */
    uint64_t logs_lost; /* that could not be pinned or read */
    uint64_t bytes;     /* of pinned logs, with the room that they have for more */
    uint64_t logs;
    int64_t through_ns; /* all that was committed by then is accepted; 0: not known */
} mir_tlog_spool_stats;

void mir_tlog_spool_stats_read(mir_tlog_spool *spool, mir_tlog_spool_stats *stats);

#endif
