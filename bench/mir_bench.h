/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench: what the parts of the harness share: the options of a run and the rows it prints.
 *
 * Why        Every figure that the project quotes is one row: ours, those of peers from the same run
 *            on the same machine, the ratio, the bar that was set, and whether it was reached.
 * Ownership  Options and report belong to main; a bench appends rows and keeps nothing.
 * Affinity   The main thread, except mir_bench_series, which belongs to whoever fills it.
 * Units      A row names its own.
 * Bounds     MIR_BENCH_ROWS_MAX rows, MIR_BENCH_ROUNDS_MAX rounds per figure, MIR_BENCH_PEERS_MAX
 *            named peers of a row and of a report.
 * Errors     A bench that cannot measure says why in its mir_error; rows that it added before stay.
 *            A row that was measured but whose result is wrong (data missing) is marked failed. */
#ifndef MIR_BENCH_H
#define MIR_BENCH_H

#include "mir_status.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum {
    MIR_BENCH_ROWS_MAX = 96,
    MIR_BENCH_ROUNDS_MAX = 15,
    MIR_BENCH_SETS_MAX = 16,
    MIR_BENCH_PEERS_MAX = 3,
};

typedef struct mir_bench_options {
    const char *mir_path;                 /* null: ours is not measured */
    const char *peer_path;                /* null: the peer is not measured */
    const char *sets[MIR_BENCH_SETS_MAX]; /* key=value, handed to ours with --set */
    size_t set_count;
    double seconds;  /* aimed length of one round */
    uint64_t events; /* that the bench of events stores and lists */
    uint64_t values; /* that the bench of telemetry stores in each of its sets */
    unsigned rounds;
    bool quick; /* small sizes: shows that the harness works, not what the bars ask */
} mir_bench_options;

typedef struct mir_bench_series {
    double values[MIR_BENCH_ROUNDS_MAX];
    size_t count;
} mir_bench_series;

void mir_bench_series_add(mir_bench_series *series, double value);
/* The median of what was added, NaN when that is nothing. */
double mir_bench_series_median(const mir_bench_series *series);

typedef enum mir_bench_bar {
    MIR_BENCH_BAR_NONE,
    MIR_BENCH_BAR_RATIO_MAX, /* ours / peer at most */
    MIR_BENCH_BAR_RATIO_MIN, /* ours / peer at least */
    MIR_BENCH_BAR_VALUE_MAX, /* ours at most, in the row's unit */
    MIR_BENCH_BAR_VALUE_MIN, /* ours at least, in the row's unit */
} mir_bench_bar;

typedef struct mir_bench_peer {
    const char *name;
    double value;     /* NaN: not measured */
    char version[96]; /* of a report's */
} mir_bench_peer;

typedef struct mir_bench_row {
    char name[64];
    const char *unit;
    double ours; /* NaN: not measured */
    double peer; /* nats-server's, or the best of the named peers */
    mir_bench_peer peers[MIR_BENCH_PEERS_MAX];
    size_t peer_count;
    mir_bench_bar bar_kind;
    double bar;
    char note[256];
    bool failed; /* measured, but what came out is wrong */
} mir_bench_row;

typedef struct mir_bench_report {
    mir_bench_row rows[MIR_BENCH_ROWS_MAX];
    size_t row_count;
    mir_bench_peer peers[MIR_BENCH_PEERS_MAX]; /* none: nats-server is the peer */
    size_t peer_count;
    uint64_t peak_resident_bytes; /* the largest that any process of ours reached */
} mir_bench_report;

/* Appends a row and returns it for the note. */
mir_bench_row *mir_bench_report_add(mir_bench_report *report, const char *unit, double ours,
                                    double peer, mir_bench_bar bar_kind, double bar,
                                    const char *name, ...) MIR_PRINTF(7, 8);

/* Another peer than nats-server: what a row has of it, in the order of its columns. The row is judged
 * against the best of them, which is the lowest value unless its bar is a least one. */
void mir_bench_row_add_peer(mir_bench_row *row, const char *name, double value);
/* Says once per run which program that is: `path ARGUMENT` prints its version. */
void mir_bench_report_add_peer(mir_bench_report *report, const char *name, const char *path,
                               const char *argument);

/* "pass", "miss", "FAILED" or "-" (nothing to judge). */
const char *mir_bench_row_verdict(const mir_bench_row *row);

void mir_bench_report_table(const mir_bench_report *report, const mir_bench_options *options,
                            const char *command);
MIR_MUST_CHECK mir_status mir_bench_report_json(const mir_bench_report *report,
                                                const mir_bench_options *options,
                                                const char *command);

/* A line of progress on stderr. */
void mir_bench_say(const char *format, ...) MIR_PRINTF(1, 2);

typedef mir_status mir_bench_function(const mir_bench_options *options, mir_bench_report *report,
                                      mir_error *error);

mir_bench_function mir_bench_ingest;
mir_bench_function mir_bench_segments;
mir_bench_function mir_bench_pubsub;
mir_bench_function mir_bench_reqrep;
mir_bench_function mir_bench_idle;
mir_bench_function mir_bench_commands;
mir_bench_function mir_bench_events;
mir_bench_function mir_bench_telemetry_log;
mir_bench_function mir_bench_live;
mir_bench_function mir_bench_reopen;
/* telemetry_log, then live. */
mir_bench_function mir_bench_telemetry_and_live;
mir_bench_function mir_bench_start;
mir_bench_function mir_bench_create;
/* start and create on one data directory, which is filled once. */
mir_bench_function mir_bench_start_and_create;

#endif
