/* SPDX-License-Identifier: Apache-2.0 */
/* Many devices: memory of an idle connection, time to start, time to create and to list.
 *
 * An idle device has connected, subscribed to its subjects, sent one heartbeat and had its PING
 * answered. With ours it has a twin by then, which is awaited; the peer keeps the connection alone.
 * Memory is anonymous resident memory, and the figure is the slope between two sizes, so that what
 * a server needs in any case is not in it. */
#include "mir_bench_api.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

enum {
    IDLE_SAMPLES = 16,
    START_ROUNDS = 5,
    CREATE_PER_REQUEST = 1000,
    LIST_ROUNDS = 20,
    ID_BYTES_MAX = 24,
};

static const int64_t online_timeout_ns = 60 * MIR_NS_PER_S;

static void note_peak(const mir_bench_server *stopped, mir_bench_report *report)
{
    if (stopped->side == MIR_BENCH_OURS &&
        stopped->peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = stopped->peak_resident_bytes;
}

/* Servers inherit the limit, so it is raised before they start. */
static mir_status raise_descriptors(unsigned needed, mir_error *error)
{
    struct rlimit limit;
    if (getrlimit(RLIMIT_NOFILE, &limit) != 0) return mir_error_set(error, MIR_E_IO, "getrlimit");
    if (limit.rlim_cur >= needed) return MIR_OK;
    limit.rlim_cur = limit.rlim_max;
    if (limit.rlim_max < needed || setrlimit(RLIMIT_NOFILE, &limit) != 0)
        return mir_error_set(error, MIR_E_PERMISSION,
                             "%u open files are needed and %llu allowed: raise the hard limit "
                             "(ulimit -Hn)",
                             needed, (unsigned long long)limit.rlim_max);
    return MIR_OK;
}

static mir_status connect_idle(mir_bench_conn *conns, unsigned first, unsigned end, uint16_t port,
                               mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned i = first; i < end && status == MIR_OK; i++) {
        char text[160];
        (void)snprintf(text, sizeof text,
                       "SUB idle-%u.> 1\r\nPUB device.idle-%u.core.v1alpha.hearthbeat 0\r\n\r\n", i,
                       i);
        status = mir_bench_conn_open(&conns[i], port, text, error);
        if (status == MIR_OK) mir_bench_conn_trim(&conns[i]);
    }
    return status;
}

/* Waits until samples of the devices [first, end), the last one among them, are online. */
static mir_status await_online(mir_bench_conn *control, unsigned first, unsigned end,
                               mir_error *error)
{
    char text[IDLE_SAMPLES][ID_BYTES_MAX];
    char *ids[IDLE_SAMPLES];
    for (unsigned i = 0; i < IDLE_SAMPLES; i++) {
        (void)snprintf(text[i], sizeof text[i], "idle-%u",
                       first + (end - 1 - first) * i / (IDLE_SAMPLES - 1));
        ids[i] = text[i];
    }
    size_t online = 0;
    int64_t until_ns = mir_clock_mono_ns() + online_timeout_ns;
    while (mir_clock_mono_ns() < until_ns) {
        mir_status status = mir_bench_api_online(control, ids, IDLE_SAMPLES, &online, error);
        if (status != MIR_OK || online == IDLE_SAMPLES) return status;
        struct timespec wait = {.tv_nsec = 20 * MIR_NS_PER_MS};
        (void)nanosleep(&wait, NULL);
    }
    return mir_error_set(error, MIR_E_TIMEOUT, "%zu of %d sampled devices came online", online,
                         IDLE_SAMPLES);
}

static mir_status idle_round(mir_bench_side side, const mir_bench_options *options,
                             mir_bench_conn *conns, unsigned half, double *slope,
                             mir_bench_report *report, mir_error *error)
{
    mir_bench_server server = {0};
    mir_bench_conn control = {.fd = -1};
    uint64_t anonymous[2] = {0};
    for (unsigned i = 0; i < 2 * half; i++) conns[i] = (mir_bench_conn){.fd = -1};
    mir_status status = mir_bench_server_start(&server, side, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&control, server.port, "", error);
    for (unsigned step = 0; step < 2 && status == MIR_OK; step++) {
        unsigned first = step * half, end = first + half;
        status = connect_idle(conns, first, end, server.port, error);
        if (status == MIR_OK && side == MIR_BENCH_OURS)
            status = await_online(&control, first, end, error);
        if (status == MIR_OK) mir_bench_server_settle(&server);
        anonymous[step] = mir_bench_server_memory(&server, "RssAnon");
    }
    for (unsigned i = 0; i < 2 * half; i++) mir_bench_conn_close(&conns[i]);
    mir_bench_conn_close(&control);
    mir_bench_server_stop(&server, false);
    note_peak(&server, report);
    *slope = ((double)anonymous[1] - (double)anonymous[0]) / half / 1024;
    return status;
}

mir_status mir_bench_idle(const mir_bench_options *options, mir_bench_report *report,
                          mir_error *error)
{
    unsigned half = options->quick ? 500 : 5000;
    mir_bench_series slopes[MIR_BENCH_SIDES] = {0};
    mir_status status = raise_descriptors(2 * half + 256, error);
    if (status != MIR_OK) return status;
    mir_bench_conn *conns = calloc((size_t)2 * half, sizeof *conns);
    if (conns == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
        double slope = 0;
        if (!mir_bench_server_wanted(options, i % 2)) continue;
        status = idle_round(i % 2, options, conns, half, &slope, report, error);
        if (status != MIR_OK) break;
        mir_bench_series_add(&slopes[i % 2], slope);
        mir_bench_say("idle, %s: %.2f KiB each", i % 2 == MIR_BENCH_OURS ? "ours" : "peer", slope);
    }
    free(conns);
    if (status != MIR_OK) return status;
    mir_bench_row *row =
        mir_bench_report_add(report, "KiB", mir_bench_series_median(&slopes[MIR_BENCH_OURS]),
                             mir_bench_series_median(&slopes[MIR_BENCH_PEER]),
                             MIR_BENCH_BAR_VALUE_MAX, 4, "idle connection with its twin");
    (void)snprintf(row->note, sizeof row->note,
                   "slope of RssAnon from %u to %u connections; the peer has no twins", half,
                   2 * half);
    return MIR_OK;
}

/* Milliseconds from exec until a client has read INFO, on a fresh directory or a kept one. */
static mir_status start_times(mir_bench_side side, const mir_bench_options *options,
                              const char *keep_dir, mir_bench_series *times,
                              mir_bench_report *report, mir_error *error)
{
    for (unsigned i = 0; i < START_ROUNDS; i++) {
        mir_bench_server server = {0};
        mir_status status = mir_bench_server_start(&server, side, options, keep_dir, error);
        if (status != MIR_OK) return status;
        mir_bench_series_add(times, (double)server.ready_ns / 1e6);
        mir_bench_server_stop(&server, keep_dir != NULL);
        note_peak(&server, report);
    }
    return MIR_OK;
}

static mir_status start_empty(const mir_bench_options *options, mir_bench_report *report,
                              mir_error *error)
{
    mir_bench_series times[MIR_BENCH_SIDES] = {0};
    for (unsigned side = 0; side < MIR_BENCH_SIDES; side++) {
        if (!mir_bench_server_wanted(options, side)) continue;
        mir_status status = start_times(side, options, NULL, &times[side], report, error);
        if (status != MIR_OK) return status;
    }
    (void)mir_bench_report_add(report, "ms", mir_bench_series_median(&times[MIR_BENCH_OURS]),
                               mir_bench_series_median(&times[MIR_BENCH_PEER]),
                               MIR_BENCH_BAR_VALUE_MAX, 50, "start to ready, empty");
    return MIR_OK;
}

static mir_status create_all(mir_bench_conn *control, unsigned device_count, double *seconds,
                             mir_error *error)
{
    int64_t from_ns = mir_clock_mono_ns();
    for (unsigned first = 0; first < device_count; first += CREATE_PER_REQUEST) {
        mir_status status = mir_bench_api_create(control, first, CREATE_PER_REQUEST, error);
        if (status != MIR_OK) return status;
    }
    *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    return MIR_OK;
}

static mir_status list_some(mir_bench_conn *control, unsigned device_count, double *median_ms,
                            double *max_ms, mir_error *error)
{
    double times[LIST_ROUNDS];
    for (unsigned i = 0; i < LIST_ROUNDS; i++) {
        size_t found = 0;
        int64_t wall_ns = 0;
        unsigned group = i % (device_count / MIR_BENCH_LABEL_HITS);
        mir_status status = mir_bench_api_list_group(control, group, &found, &wall_ns, error);
        if (status != MIR_OK) return status;
        if (found != MIR_BENCH_LABEL_HITS)
            return mir_error_set(error, MIR_E_CORRUPT, "a list by label found %zu of %d devices",
                                 found, MIR_BENCH_LABEL_HITS);
        times[i] = (double)wall_ns / 1e6;
    }
    for (unsigned i = 1; i < LIST_ROUNDS; i++)
        for (unsigned j = i; j > 0 && times[j - 1] > times[j]; j--) {
            double swap = times[j];
            times[j] = times[j - 1];
            times[j - 1] = swap;
        }
    *median_ms = (times[LIST_ROUNDS / 2 - 1] + times[LIST_ROUNDS / 2]) / 2;
    *max_ms = times[LIST_ROUNDS - 1];
    return MIR_OK;
}

static mir_status filled(const mir_bench_options *options, mir_bench_report *report,
                         bool with_create, bool with_start, mir_error *error)
{
    unsigned device_count = options->quick ? 10000 : 100000;
    mir_bench_server server = {0};
    mir_bench_conn control = {.fd = -1};
    mir_bench_series times = {0};
    double seconds = NAN, list_ms = NAN, list_max_ms = NAN, restored_ms = NAN;
    if (!mir_bench_server_wanted(options, MIR_BENCH_OURS)) {
        mir_bench_say("create, and start with devices: ours alone has devices, skipped");
        return MIR_OK;
    }
    mir_status status = mir_bench_server_start(&server, MIR_BENCH_OURS, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&control, server.port, "", error);
    if (status == MIR_OK) status = create_all(&control, device_count, &seconds, error);
    if (status == MIR_OK) status = list_some(&control, device_count, &list_ms, &list_max_ms, error);
    mir_bench_conn_close(&control);
    mir_bench_server_stop(&server, true);
    note_peak(&server, report);
    if (status == MIR_OK && with_create) {
        (void)mir_bench_report_add(report, "s", seconds, NAN, MIR_BENCH_BAR_VALUE_MAX, 10,
                                   "create %u devices, %d each", device_count, CREATE_PER_REQUEST);
        mir_bench_row *row =
            mir_bench_report_add(report, "ms", list_ms, NAN, MIR_BENCH_BAR_VALUE_MAX, 20,
                                 "list by label, %d hits", MIR_BENCH_LABEL_HITS);
        (void)snprintf(row->note, sizeof row->note,
                       "of %u devices; median of %d, the slowest took %.1f ms", device_count,
                       LIST_ROUNDS, list_max_ms);
    }
    if (status == MIR_OK && with_start) {
        status = start_times(MIR_BENCH_OURS, options, server.dir, &times, report, error);
        restored_ms = mir_bench_series_median(&times);
        if (status == MIR_OK)
            (void)mir_bench_report_add(report, "ms", restored_ms, NAN, MIR_BENCH_BAR_VALUE_MAX, 500,
                                       "start to ready, %u devices", device_count);
    }
    /* Once more to see that the devices are there, and to let go of the directory. */
    mir_error ignored;
    mir_bench_server last = {0};
    mir_error *reason = status == MIR_OK ? error : &ignored;
    mir_status again = mir_bench_server_start(&last, MIR_BENCH_OURS, options, server.dir, reason);
    if (again == MIR_OK) again = mir_bench_conn_open(&control, last.port, "", reason);
    if (again == MIR_OK) again = list_some(&control, device_count, &list_ms, &list_max_ms, reason);
    mir_bench_conn_close(&control);
    mir_bench_server_stop(&last, false);
    note_peak(&last, report);
    return status == MIR_OK ? again : status;
}

mir_status mir_bench_start(const mir_bench_options *options, mir_bench_report *report,
                           mir_error *error)
{
    mir_status status = start_empty(options, report, error);
    return status == MIR_OK ? filled(options, report, false, true, error) : status;
}

mir_status mir_bench_create(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    return filled(options, report, true, false, error);
}

mir_status mir_bench_start_and_create(const mir_bench_options *options, mir_bench_report *report,
                                      mir_error *error)
{
    mir_status status = start_empty(options, report, error);
    return status == MIR_OK ? filled(options, report, true, true, error) : status;
}
