/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog: the telemetry log. What devices report is appended here, and queried back.
 *
 * Why        One write-ahead log per shard takes what arrived in a turn with one write; the same
 *            bytes stay in memory as the newest part of each series, so a row answers queries as
 *            soon as its turn is committed. A maintenance thread turns old logs into immutable
 *            segments of column chunks, merges small ones and drops what retention says.
 *
 *              append ──► staging ──► log file ──┐
 *                 └─────► memtable ──(frozen)────┴──► segment ──► larger segment ──► retention
 *
 *            A series is a device and a measurement (full message name). Its columns are pairs of
 *            name and type: a name whose type changes has one column for each type, and both are
 *            kept. Rows of one series with the same time are one row; of two values of one field
 *            the one that was appended later wins.
 * Ownership  mir_tlog_open creates the log, its writers and its threads; mir_tlog_close ends them.
 *            What is passed in is copied. What a query's sink sees is valid during the call only.
 * Affinity   A writer and its series: one thread at a time (its shard's). Queries, listings, stats:
 *            any thread, any number at once, while the writers write. mir_tlog_close: when no
 *            other call is running. A device's rows must go through one writer at a time.
 * Units      *_ns: nanoseconds since 1970-01-01 UTC or a duration; *_ms: milliseconds.
 * Bounds     Memory and disk for rows that are not yet in segments: log_bytes_max per writer, and
 *            about as much memory. Appending a row makes no system call, takes no lock and calls the
 *            allocator only when the memtable needs another 256 KiB.
 * Pressure   Of a writer's log_bytes_max, while segments are written more slowly than rows come:
 *              up to a half         sealing leaves the processor to others (nice 19)
 *              from a half on       it has the priority of the shards
 *              from 3 quarters on   rows of devices that hold more than their share are refused
 *              all of it            all rows are refused
 *            The share of a device is what the open log and the one before it may hold, divided by
 *            the devices that have rows in them: who sends less than the others still finds room in
 *            the last quarter. Devices are told apart by a hash with 8,192 values, so with many
 *            thousands of them a few are taken for one. What is refused is refused at once with
 *            MIR_E_FULL, counted, and told to the log when it begins and when it ends.
 *            With less than disk_reserve_bytes free on the disk, looked at once a second, all rows
 *            are refused with MIR_E_NO_SPACE, and nothing is merged, until an eighth
 *            more, or 64 MiB, is free. Nor is what would not fit beside it.
 * Errors     See each function. A refused row is stored nowhere and counted by cause.
 * Source     The files are drawn in docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_H
#define MIR_TLOG_H

#include <stdatomic.h>

#include "mir_bytes.h"
#include "mir_row.h"
#include "mir_status.h"
#include "mir_view.h"

typedef struct mir_tlog mir_tlog;
typedef struct mir_tlog_writer mir_tlog_writer;
typedef struct mir_tlog_series mir_tlog_series;
struct mir_tlog_files;

enum {
    MIR_TLOG_DEVICE_BYTES_MAX = 255,
    MIR_TLOG_MEASUREMENT_BYTES_MAX = 511,
    MIR_TLOG_COLUMN_NAME_BYTES_MAX = 1023,
    /* Of one series, fixed and dynamic together, since its log file was started. */
    MIR_TLOG_COLUMNS_MAX = 4096,
    MIR_TLOG_WRITERS_MAX = 1024,
    MIR_TLOG_LOG_BYTES_MIN = 3 * 64 * 1024,
};

/* How long rows are kept: for a series, what the first rule says that fits it. Patterns are those of
 * targets (mir_device_rules.h); an empty one fits all. */
typedef struct mir_tlog_rule {
    mir_view name_space;  /* fits devices that are there, by the namespace that they have now */
    mir_view measurement; /* full name of a message */
    bool deleted;         /* fits devices that are not there any more, and no others */
    bool nothing_stays;   /* no rollups either; so for deleted ones */
    uint64_t age_ns;      /* 0: for ever */
} mir_tlog_rule;

/* Appends the namespace that a device has now. MIR_E_NOT_FOUND: there is no such device; any other
 * failure: not known, its rows stay meanwhile. Called by a thread of the log. */
typedef mir_status (*mir_tlog_namespace_fn)(void *context, mir_view device_id,
                                            mir_bytes *name_space);

/* What rows of a minute, of ten minutes and of an hour came to stays when they go because of their
 * age. */
enum { MIR_TLOG_RULES_MAX = 64, MIR_TLOG_ROLLUPS = 3 };

typedef struct mir_tlog_rollup_option {
    bool on;
    uint64_t keep_ns; /* 0: for ever */
} mir_tlog_rollup_option;

/* A clock that is more than a day from the time that was known before. */
typedef struct mir_tlog_clock_state {
    int64_t known_ns;
    uint64_t ahead_ns; /* of that; 0: it is not ahead, and retention goes by it */
    uint64_t apart_ns; /* for how long it has been so */
} mir_tlog_clock_state;

/* Zero means the default in brackets, except where noted. */
typedef struct mir_tlog_options {
    const char *directory;   /* made if missing; its parent must be there */
    uint32_t writer_count;   /* [1] may differ from that of the last run */
    uint64_t log_bytes_max;  /* [64 MiB] unsealed log per writer; at least LOG_BYTES_MIN */
    uint32_t log_age_max_ms; /* [600,000] a log older than this is sealed although small */
    uint32_t idle_ms; /* [5,000] so long with a trickle of rows at most, and what is left in logs
                         and small segments is put together */
    uint32_t sync_ms; /* rows are on the disk this long after commit; 0: within commit */
    uint64_t retention_age_ns; /* of what no rule fits; 0: for ever */
    /* A clock that has jumped ahead makes rows old when it has stayed there for so long, or for as
     * long as they are kept if that is less; 1: at once; 0: at once, and nothing is written down. */
    uint64_t clock_wait_ns;
    /* It has, or has come back: called by who opens the log or by one of its threads. May be null. */
    void (*clock_told)(void *context, const mir_tlog_clock_state *state);
    void *clock_told_context;
    /* By step, shortest first; where one is on, so are the longer ones, kept for as long at least. */
    mir_tlog_rollup_option rollups[MIR_TLOG_ROLLUPS];
    const mir_tlog_rule *rules; /* must outlive the log, as must their texts */
    uint32_t rule_count;
    mir_tlog_namespace_fn namespace_of; /* needed if a rule asks for it */
    void *namespace_context;
    uint64_t retention_bytes_max;       /* 0: off; of all segments */
    uint64_t disk_reserve_bytes;        /* 0: off; rows are refused while less than this is free */
    uint32_t series_max;                /* [1,000,000] open series per writer */
    const struct mir_tlog_files *files; /* [POSIX] must outlive the log */
    uint64_t number_min;                /* of new files; 0: whatever the directory says */
    /* A log file was made that rows will go to: called before the first one does, by who opens the
     * log or by one of its threads. May be null. */
    void (*log_made)(void *context, uint64_t generation, const char *path);
    void *log_made_context;
    int64_t (*wall_ns)(void); /* [mir_clock_wall_ns] for retention and merging */
    int64_t (*mono_ns)(void); /* [mir_clock_mono_ns] for how long the clock has been ahead */
} mir_tlog_options;

/* Replays what the last run left unsealed (cutting a torn tail, which is logged and counted), then
 * starts the threads. MIR_E_NO_SPACE, _PERMISSION, _IO, _NO_MEMORY, _INVALID (options),
 * _UNSUPPORTED (files of a newer version); `error` says what to do. */
MIR_MUST_CHECK mir_status mir_tlog_open(const mir_tlog_options *options, mir_tlog **tlog,
                                        mir_error *error);
/* Commits nothing: the writers' last turns must have been. Syncs the logs and ends the threads. */
void mir_tlog_close(mir_tlog *tlog);

mir_tlog_writer *mir_tlog_writer_of(mir_tlog *tlog, uint32_t shard);

/* The handle of a series whose rows have these columns, in this order; the same arguments give the
 * same handle until it is closed. When a device's schema changes, open its series again with the
 * new columns; rows of all its handles answer one query. Of the handles of one device and
 * measurement only the one opened last is to be appended to.
 * MIR_E_TOO_LARGE (a name or count over its bound), _INVALID (an empty name or unknown type),
 * _FULL (series_max), _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_series_open(mir_tlog_writer *writer, mir_view device_id,
                                               mir_view measurement, const mir_column *columns,
                                               uint32_t column_count, mir_tlog_series **series);
/* The handle is gone; its rows stay. Rows of the current turn are committed as if it were open. */
void mir_tlog_series_close(mir_tlog_writer *writer, mir_tlog_series *series);

/* A row of it comes next: what it needs is brought near meanwhile. */
void mir_tlog_expect(const mir_tlog_series *series);
/* Stages one row. row->column_count must be the count that the series was opened with.
 * MIR_E_INVALID (no field at all), _TOO_LARGE (row, name or column count over its bound),
 * _FULL (segments are written too slowly; see Pressure), _NO_SPACE and _IO (the log cannot be written; retried
 * about once a second), _NO_MEMORY. The row is then not stored, and counted as refused. */
MIR_MUST_CHECK mir_status mir_tlog_append(mir_tlog_writer *writer, mir_tlog_series *series,
                                          const mir_row *row);

/* Writes what was staged since the last commit, in one write unless it was more than the staging
 * buffer holds, and shows it to queries. On failure the staged rows are stored nowhere; how many
 * were refused since the last commit for that reason goes to *rows_refused (may be null).
 * MIR_E_NO_SPACE, MIR_E_IO. Cheap when nothing is staged. */
MIR_MUST_CHECK mir_status mir_tlog_commit_turn(mir_tlog_writer *writer, uint32_t *rows_refused);

/* ---- Queries ---- */

/* What rows come to, in each window. Of texts and booleans there are the count, the first and the
 * last alone. */
typedef enum mir_tlog_function {
    MIR_TLOG_MEAN = 1 << 0,
    MIR_TLOG_MIN = 1 << 1, /* NaN is left out of both */
    MIR_TLOG_MAX = 1 << 2,
    MIR_TLOG_SUM = 1 << 3,
    MIR_TLOG_COUNT = 1 << 4,
    MIR_TLOG_FIRST = 1 << 5,
    MIR_TLOG_LAST = 1 << 6,
    /* Per second, of a counter: the increases from the value before (in the window before, too, if
     * the range has one) up to the last one; a counter that falls began again from nothing. Of a
     * group: the sum of its devices' rates. */
    MIR_TLOG_RATE = 1 << 7,
    MIR_TLOG_PERCENTILE = 1 << 8, /* the value at the nearest rank */
    MIR_TLOG_FUNCTIONS = (1 << 9) - 1,
} mir_tlog_function;

enum { MIR_TLOG_PERCENTILES_MAX = 4 };

/* A column that is stored under one name and answered under another. */
typedef struct mir_tlog_rename {
    mir_view stored;
    mir_view answered;
} mir_tlog_rename;

typedef struct mir_tlog_query_spec {
    const mir_view *device_ids; /* each one once at most; more of the same are ignored */
    uint32_t device_count;
    mir_view measurement;
    const mir_view *fields; /* names to keep, as they are answered */
    uint32_t field_count;   /* 0: all */
    /* Fields that had other names earlier: of a row that has several of them, one counts. */
    const mir_tlog_rename *renames;
    uint32_t rename_count;
    int64_t from_ns;        /* inclusive */
    int64_t to_ns;          /* exclusive */
    uint64_t window_ns;     /* 0: rows as they are, or one window for all */
    int64_t window_from_ns; /* windows are aligned to this time; 0 is 1970-01-01 */
    uint32_t functions;     /* of mir_tlog_function; 0: the mean if there are windows */
    double percentiles[MIR_TLOG_PERCENTILES_MAX]; /* 0 to 100, with MIR_TLOG_PERCENTILE */
    uint32_t percentile_count;
    /* With functions: the group of each device; null: each for itself. Of first values at one time
     * that of the smallest device id counts, of last ones that of the greatest; of one device that of
     * the first and of the last type: I64, U64, F64. */
    const uint32_t *groups;
    uint32_t group_count;
    bool backward;  /* rows in descending time, equal times in descending device id */
    uint64_t limit; /* rows in the answer, the first ones in its order; 0: all of them */
    /* Rows behind this one in the order of the answer, of rows as they are: a page's last one. */
    bool after;
    int64_t after_ns;
    mir_view after_device;
    uint32_t points; /* rows as they are: of each field of a device so many that show its course */
    uint64_t rows_max;         /* [10,000,000] rows in the answer */
    uint64_t bytes_max;        /* [256 MiB] memory that the query may use */
    const atomic_bool *cancel; /* may be null; set it to true and the query ends soon */
} mir_tlog_query_spec;

/* Rows in ascending time, equal times in ascending device id. Row r has column_count cells from
 * cells[r * column_count] on; cell i is meaningful when present[r * column_count + i] is 1. */
typedef struct mir_tlog_batch {
    uint32_t row_count;
    uint32_t column_count;
    const int64_t *times_ns;
    const uint32_t *devices; /* index into the spec's device_ids, or the number of a group */
    const mir_cell *cells;
    const uint8_t *present;
} mir_tlog_batch;

/* Rows of one device as columns, in ascending order of time. */
typedef struct mir_tlog_rows_column {
    mir_column column;
    const uint64_t *values; /* bits, or for strings a place in the block's texts */
    const uint8_t *present; /* 1: row i has a value */
} mir_tlog_rows_column;

typedef struct mir_tlog_rows {
    uint32_t device; /* index into the spec's device_ids */
    uint32_t row_count;
    uint32_t column_count;
    const int64_t *times_ns;
    const mir_tlog_rows_column *columns; /* by name, then type */
    const mir_view *texts;
} mir_tlog_rows;

/* `columns` is called once, before the first batch, and only if there is a row; the columns are in
 * ascending byte order of their names, then by type. A sink ends the query by returning an error.
 */
typedef struct mir_tlog_sink {
    void *context;
    mir_status (*columns)(void *context, const mir_column *columns, uint32_t column_count);
    mir_status (*rows)(void *context, const mir_tlog_batch *batch);
    /* Null, or what takes rows that follow each other and are of one device or group, with every one
     * of the columns, as they are: it may be called in place of `rows`. */
    mir_status (*run)(void *context, const mir_tlog_rows *rows);
    /* Null, or what several threads may call in place of `rows` when there are columns of numbers
     * alone. First comes `measure` for each device, with all that it has: adds to sizes[i] how many
     * bytes its rows will take from ends[i - 1], or the first one, up to ends[i]. The rows stay where
     * they are until the last of these calls. Then `reserve`: how many rows there are, of which device
     * the first is, and how many bytes they take together; it says where they go. Then `place`, by any
     * thread: writes to *at, which it moves, what rows take, and nothing from `end` on. */
    mir_status (*measure)(void *context, const mir_tlog_rows *rows, const uint32_t *ends,
                          uint32_t end_count, size_t *sizes);
    mir_status (*reserve)(void *context, uint32_t first_device, uint64_t row_count, size_t size,
                          uint8_t **at);
    mir_status (*place)(const void *context, const mir_tlog_batch *batch, uint8_t **at,
                        const uint8_t *end);
} mir_tlog_sink;

typedef struct mir_tlog_query_info {
    uint64_t rows; /* given to the sink */
    uint64_t rows_read;
    /* Left out of the answer, which is partial when this is not 0. A region of an unsealed log, and a
     * file that is missing, may have had rows of any answer: they count in all. */
    uint64_t chunks_corrupt;
    /* Of rows from before this that went because of their age there is only what minutes, tens of
     * minutes or hours came to, and that did not tell exactly what was asked: it is left out. */
    bool left_out;
    int64_t left_out_until_ns;
} mir_tlog_query_info;

/* With functions: a row for each device or group and window in which it has values. Windows are
 * aligned to window_from_ns; a row's time is its window's end, or to_ns if that is earlier; without
 * window_ns it is the time of the newest value in it. A column has the name of its field, or with
 * several functions `function(field)` (`p99(field)` for a percentile). Means, rates and sums of
 * doubles are F64, counts I64; others have the field's type, or F64 when the field had several types
 * of numbers. Sums of one field have one type in all of an answer: the field's, exactly, if that is
 * the same for all devices and groups and holds each of the sums; if not, F64, each exact sum of
 * integers rounded once.
 * With points: rows of each device are thinned by largest triangle, field by field; fields that are no
 * numbers are left out.
 * MIR_E_INVALID (from_ns >= to_ns, a function or percentile that is none, points with functions),
 * _TOO_LARGE (over rows_max or bytes_max; the text says how to narrow), _CANCELLED, _IO, _NO_MEMORY,
 * and whatever the sink returned. `info` may be null.
 * Source: S. Steinarsson, Downsampling Time Series for Visual Representation, 2013 (points). */
MIR_MUST_CHECK mir_status mir_tlog_query(mir_tlog *tlog, const mir_tlog_query_spec *spec,
                                         const mir_tlog_sink *sink, mir_tlog_query_info *info,
                                         mir_error *error);

/* What stands before the field in the name of a column of percentiles. */
enum { MIR_TLOG_PERCENTILE_NAME_BYTES = 32 };
void mir_tlog_percentile_name(double percentile, char name[MIR_TLOG_PERCENTILE_NAME_BYTES]);

enum { MIR_TLOG_ROWS_MAX = 8192 };

typedef mir_status (*mir_tlog_rows_fn)(void *context, const mir_tlog_rows *block);

/* Rows as they are, device by device in ascending order of ids, without being merged: the quickest
 * way to many of them. Of the spec count devices, measurement, fields, range, bytes_max (of what has
 * to be put in order at once), cancel, and after: behind the row of after_device at after_ns. A sink
 * ends it by returning an error. Errors as mir_tlog_query. */
MIR_MUST_CHECK mir_status mir_tlog_read(mir_tlog *tlog, const mir_tlog_query_spec *spec,
                                        mir_tlog_rows_fn sink, void *context,
                                        mir_tlog_query_info *info, mir_error *error);

/* Called with names in ascending byte order, each once. Returning an error ends the listing. */
typedef mir_status (*mir_tlog_name_fn)(void *context, mir_view name);

/* Names of the fields of a measurement that have data at or after since_ns from any device. Times
 * are kept per chunk, so a name whose last value is a little older may be among them. */
MIR_MUST_CHECK mir_status mir_tlog_fields(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                                          mir_tlog_name_fn sink, void *context, mir_error *error);
/* The same with their types: by type, then name; a name that had several types comes with each. */
typedef mir_status (*mir_tlog_column_fn)(void *context, const mir_column *column);
MIR_MUST_CHECK mir_status mir_tlog_field_types(mir_tlog *tlog, mir_view measurement,
                                               int64_t since_ns, mir_tlog_column_fn sink,
                                               void *context, mir_error *error);
/* Ids of the devices that have data of a measurement at or after since_ns, as far as chunks tell. How
 * many blocks of indexes were damaged, whose devices may be missing, goes to *blocks_corrupt. */
MIR_MUST_CHECK mir_status mir_tlog_devices(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                                           mir_tlog_name_fn sink, void *context,
                                           uint64_t *blocks_corrupt, mir_error *error);
/* All measurements that have data. */
MIR_MUST_CHECK mir_status mir_tlog_measurements(mir_tlog *tlog, mir_tlog_name_fn sink,
                                                void *context, mir_error *error);

typedef struct mir_tlog_stats {
    uint64_t rows_accepted;  /* committed */
    uint64_t bytes_appended; /* written to logs */
    uint64_t commits;
    uint64_t refused_full;      /* segments were written too slowly */
    uint64_t refused_share;     /* of these: because the device held more than its share */
    uint64_t refused_no_space;  /* no room on the disk */
    uint64_t refused_io;        /* the write or its sync failed */
    uint64_t refused_too_large; /* over a bound */
    uint64_t refused_invalid;   /* no field, or columns that are not the series' */
    uint64_t refused_no_memory;
    uint64_t series_open;
    uint64_t log_files;
    uint64_t log_bytes; /* of rows not yet in segments */
    uint64_t segments;
    uint64_t segment_bytes;
    uint64_t segment_rows;
    uint64_t seals; /* logs turned into segments by this process */
    uint64_t merges;
    uint64_t segments_dropped; /* by retention */
    uint64_t replayed_rows;    /* at open */
    uint64_t torn_bytes_cut;   /* at open */
    uint64_t corrupt_frames;   /* regions of logs, at open */
    uint64_t corrupt_chunks;   /* reads that met a damaged chunk, index or file */
    uint32_t files_missing;    /* set aside, or unreadable at the start: all answers are partial */
    uint64_t sync_errors;
    uint64_t write_errors; /* of logs and segments */
    int64_t sync_lag_ns;   /* age of the oldest row that is not known to be on the disk */
    /* Rows are refused because logs are full, or were a few seconds ago: */
    int64_t full_ns;     /* for how long; 0: not so */
    uint64_t full_rows;  /* how many since then */
    uint64_t full_share; /* of these: because the device held more than its share */
    mir_tlog_clock_state clock;
} mir_tlog_stats;

/* The last text of a failure that an operator should act on goes to *trouble (may be null; empty
 * when all is well). */
void mir_tlog_stats_read(mir_tlog *tlog, mir_tlog_stats *stats, mir_error *trouble);

/* What retention has removed, in this run and in earlier ones. */
typedef struct mir_tlog_retention {
    /* By rule, then what no rule fitted; in segments with damage all counts as the latter. */
    uint64_t rows_removed[MIR_TLOG_RULES_MAX + 1];
    uint64_t rows_removed_size; /* because of retention_bytes_max */
    uint64_t rows_repeated;     /* came again when they had been rolled up, and count once */
    uint64_t rollups_made;      /* rows of all steps */
    uint64_t rollups_removed;
    uint64_t bytes_removed;
    int64_t removed_ns; /* 0: nothing was */
    int64_t since_ns;   /* when counting began */
    int64_t run_ns;     /* when it last looked; 0: not yet */
    /* What there is now, in segments. */
    uint64_t rows;     /* without rollups */
    uint64_t bytes;    /* of these */
    int64_t oldest_ns; /* INT64_MAX: no row */
    uint64_t rollup_rows[MIR_TLOG_ROLLUPS];
    uint64_t rollup_bytes;
} mir_tlog_retention;

void mir_tlog_retention_read(mir_tlog *tlog, mir_tlog_retention *retention);
/* What the clock says or, while that is far ahead, the time that is known. Any thread. */
int64_t mir_tlog_known_ns(mir_tlog *tlog);

/* How far a log file has been written with whole frames, and whether it may grow: not when it is not
 * among those that are to be sealed; then it is as it stands, however long. Any thread. */
bool mir_tlog_log_grows(mir_tlog *tlog, uint64_t generation, uint64_t *bytes);

/* Hands what was committed so far over to be sealed, if there is anything. MIR_E_FULL, _NO_SPACE,
 * _IO: not now, for the reasons that append has. */
MIR_MUST_CHECK mir_status mir_tlog_freeze(mir_tlog_writer *writer);
/* Any thread but a writer's while it writes: waits until all that was frozen is in segments, small
 * segments are merged and retention is applied. For backups, tests and benchmarks. MIR_E_TIMEOUT,
 * with what stands in the way. */
MIR_MUST_CHECK mir_status mir_tlog_settle(mir_tlog *tlog, uint32_t timeout_ms, mir_error *error);

#endif
