/* SPDX-License-Identifier: Apache-2.0 */
/* Telemetry that goes on while something else does: how late a subscriber has a paced stream while
 * everything stored is scanned and segments are merged, and what the memory comes to when a hundred
 * times as many devices report as usual. Ours alone: the bars are of its own.
 *
 * The stream's timestamps are when a message was due, or, if the sender woke up late without being
 * held up by the server, when it was written: what waits for the server counts, what waits for this
 * program to be scheduled does not. How late messages were for their due time, and how late when
 * they reached the subscriber's socket, before its thread was awake, is told beside it. */
#include "mir_bench_api.h"
#include "mir_bench_exchange.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <errno.h>
#include <jansson.h>
#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

#include "mir_api/v1/tlm.pb-c.h"

enum {
    FIELDS = 4,
    DEVICES = 1000,
    TICK_NS = 1000000,
    STREAM_PER_TICK = 50,
    STREAM_SECONDS = 5, /* of one round: time for a merge */
    WARM_UP_PER_CENT = 10,
    FEED_PER_SECOND = 200000,
    FEED_BYTES = 64 << 10,
    ACTIVE_SERIES = 100000,
    ACTIVE_ROUNDS_MIN = 3,
};

static const int64_t arrive_timeout_ns = 60 * MIR_NS_PER_S;

static void sleep_until(int64_t mono_ns)
{
    const struct timespec until = {.tv_sec = mono_ns / MIR_NS_PER_S,
                                   .tv_nsec = mono_ns % MIR_NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

/* ---- What is asked ---- */

/* One function of all values between two times, of the whole range or of windows. `values` is the sum
 * of the first row's numbers, `rows` their number. */
static mir_status ask(mir_bench_conn *conn, char *function, char *window, int64_t from_ns,
                      int64_t to_ns, double *values, size_t *rows, mir_error *error)
{
    static const char subject[] = "client.bench.tlm.v1alpha.query";
    char measurement[] = "bench.v1.Env", all[] = "all";
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__Timestamp from = MIR_API__V1__TIMESTAMP__INIT, to = MIR_API__V1__TIMESTAMP__INIT;
    MirApi__V1__QueryTelemetryRequest request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    from.has_seconds = from.has_nanos = to.has_seconds = to.has_nanos = 1;
    from.seconds = from_ns / MIR_NS_PER_S;
    from.nanos = (int32_t)(from_ns % MIR_NS_PER_S);
    to.seconds = to_ns / MIR_NS_PER_S;
    to.nanos = (int32_t)(to_ns % MIR_NS_PER_S);
    request.targets = &target;
    request.measurement = measurement;
    request.start_time = &from;
    request.end_time = &to;
    request.functions = &function;
    request.n_functions = 1;
    request.aggregation_window = window;
    request.group_by = all;
    mir_view reply;
    mir_status status = mir_bench_api_ask(conn, subject, &request.base, &reply, error);
    if (status != MIR_OK) return status;
    MirApi__V1__QueryTelemetryResponse *got =
        mir_api__v1__query_telemetry_response__unpack(NULL, reply.size, reply.data);
    if (got == NULL) return mir_bench_api_refused(subject, NULL, error);
    if (got->response_case != MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK) {
        const bool has_text =
            got->response_case == MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_ERROR;
        status = mir_bench_api_refused(subject, has_text ? got->error : NULL, error);
    } else {
        *rows = got->ok->n_rows;
        *values = 0;
        for (size_t f = 2; *rows > 0 && f < got->ok->rows[0]->n_datapoints; f++)
            *values += (double)got->ok->rows[0]->datapoints[f]->value_int64;
    }
    mir_api__v1__query_telemetry_response__free_unpacked(got, NULL);
    return status;
}

static mir_status count_values(mir_bench_conn *conn, int64_t from_ns, int64_t to_ns, double *values,
                               mir_error *error)
{
    char count[] = "count";
    size_t rows;
    return ask(conn, count, NULL, from_ns, to_ns, values, &rows, error);
}

typedef struct log_state {
    json_int_t refused, merges, seals;
} log_state;

static mir_status ask_status(mir_bench_conn *conn, log_state *log, mir_error *error)
{
    mir_view reply;
    mir_status status = mir_bench_conn_request(conn, "client.bench.sys.v1alpha.status",
                                               MIR_VIEW_LITERAL(""), &reply, error);
    if (status != MIR_OK) return status;
    json_t *all = json_loadb((const char *)reply.data, reply.size, 0, NULL);
    const json_t *of = json_object_get(all, "telemetry");
    *log = (log_state){.refused = json_integer_value(json_object_get(of, "rows_refused")),
                       .merges = json_integer_value(json_object_get(of, "merges")),
                       .seals = json_integer_value(json_object_get(of, "seals"))};
    if (of == NULL) status = mir_error_set(error, MIR_E_INVALID, "the status tells no telemetry");
    json_decref(all);
    return status;
}

/* ---- Feeding ---- */

static void note_peak(const mir_bench_server *server, uint64_t *peak_bytes)
{
    const uint64_t bytes = mir_bench_server_memory(server, "RssAnon");
    if (bytes > *peak_bytes) *peak_bytes = bytes;
}

/* Rounds [first, end) of a message from each device, a second apart, paced, with a PONG behind each
 * round. */
static mir_status feed(mir_bench_conn *conn, const mir_bench_server *server, unsigned device_count,
                       uint32_t first, uint32_t end, int64_t base_ns, uint64_t *peak_bytes,
                       mir_error *error)
{
    mir_bench_telemetry *telemetry = malloc(sizeof *telemetry * device_count);
    mir_bytes out = {0};
    mir_status status = MIR_OK;
    if (telemetry == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (unsigned d = 0; d < device_count; d++) mir_bench_telemetry_init(&telemetry[d], d);
    const int64_t from_ns = mir_clock_mono_ns();
    uint64_t sent = 0;
    for (uint32_t round = first; round < end && status == MIR_OK; round++) {
        for (unsigned d = 0; d < device_count && status == MIR_OK; d++) {
            mir_bench_telemetry_fill(telemetry[d].bytes + telemetry[d].payload_at,
                                     base_ns + round * (MIR_NS_PER_S - MIR_BENCH_STEP_NS), d,
                                     round);
            mir_bytes_append(&out, telemetry[d].bytes, telemetry[d].size);
            sent++;
            if (out.size < FEED_BYTES && d + 1 < device_count) continue;
            status = mir_bytes_ok(&out) ? mir_bench_conn_write(conn, out.data, out.size, error)
                                        : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
            out.size = 0;
            note_peak(server, peak_bytes);
            sleep_until(from_ns + (int64_t)(sent * (uint64_t)MIR_NS_PER_S / FEED_PER_SECOND));
        }
        if (status == MIR_OK) status = mir_bench_conn_flush(conn, error);
    }
    mir_bytes_free(&out);
    free(telemetry);
    return status;
}

/* Hellos, and a first message of each device that is awaited until it can be read. */
static mir_status introduce(mir_bench_conn *conn, const mir_bench_server *server,
                            unsigned device_count, int64_t base_ns, uint64_t *peak_bytes,
                            mir_error *error)
{
    mir_status status = mir_bench_api_hello(conn, device_count, error);
    if (status == MIR_OK)
        status = feed(conn, server, device_count, 0, 1, base_ns, peak_bytes, error);
    const int64_t until_ns = mir_clock_mono_ns() + arrive_timeout_ns;
    double values = 0;
    while (status == MIR_OK && values < (double)device_count * FIELDS) {
        mir_error refusal = {0};
        const mir_status asked =
            count_values(conn, base_ns, base_ns + MIR_NS_PER_S, &values, &refusal);
        if (asked != MIR_OK && asked != MIR_E_INVALID) {
            *error = refusal;
            return asked;
        }
        if (mir_clock_mono_ns() > until_ns)
            return mir_error_set(error, MIR_E_TIMEOUT,
                                 "%.0f values of %u devices were readable after their hellos",
                                 values, device_count);
        note_peak(server, peak_bytes);
        sleep_until(mir_clock_mono_ns() + 20 * MIR_NS_PER_MS);
    }
    return status;
}

/* ---- Many active series ---- */

static void report_take(mir_bench_report *report, const mir_bench_server *server)
{
    if (server->peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = server->peak_resident_bytes;
}

static mir_status many_series(const mir_bench_options *options, mir_bench_report *report,
                              mir_error *error)
{
    const unsigned series = options->quick ? ACTIVE_SERIES / 50 : ACTIVE_SERIES;
    uint64_t rounds = options->values / FIELDS / series;
    if (rounds < ACTIVE_ROUNDS_MIN) rounds = ACTIVE_ROUNDS_MIN;
    const int64_t base_ns =
        (mir_clock_wall_ns() / MIR_NS_PER_S - (int64_t)rounds - 60) * MIR_NS_PER_S;
    mir_bench_server server = {0};
    mir_bench_conn conn = {.fd = -1};
    uint64_t known = 0, peak = 0;
    double counted = 0;
    mir_status status = mir_bench_server_start(&server, MIR_BENCH_OURS, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&conn, server.port, "", error);
    if (status == MIR_OK) status = introduce(&conn, &server, series, base_ns, &peak, error);
    if (status == MIR_OK) {
        mir_bench_server_settle(&server);
        known = mir_bench_server_memory(&server, "RssAnon");
        status = feed(&conn, &server, series, 1, (uint32_t)rounds, base_ns, &peak, error);
    }
    if (status == MIR_OK)
        status = count_values(&conn, base_ns, base_ns + ((int64_t)rounds + 1) * MIR_NS_PER_S,
                              &counted, error);
    note_peak(&server, &peak);
    if (status == MIR_OK) {
        const double sent = (double)series * (double)rounds * FIELDS;
        mir_bench_row *row =
            mir_bench_report_add(report, "MiB", (double)peak / (1 << 20), NAN,
                                 options->quick ? MIR_BENCH_BAR_NONE : MIR_BENCH_BAR_VALUE_MAX, 400,
                                 "peak memory, %u series", series);
        row->failed = counted != sent;
        (void)snprintf(row->note, sizeof row->note,
                       "RssAnon, twins and schemas in it; %.0f MiB when each had reported once; "
                       "%.0f of %.0f values readable",
                       (double)known / (1 << 20), counted, sent);
        mir_bench_say("live, %u series: %.0f MiB", series, (double)peak / (1 << 20));
    }
    mir_bench_conn_close(&conn);
    mir_bench_server_stop(&server, false);
    report_take(report, &server);
    return status;
}

/* ---- A paced stream ---- */

typedef struct listener {
    mir_bench_conn conn;
    int64_t *late_ns;         /* when it was read */
    int64_t *arrived_late_ns; /* when the socket had it */
    size_t capacity;
    _Atomic size_t count;
    bool wrong; /* a payload that nobody sent; read after the thread's end */
} listener;

static bool read_varint(mir_view from, size_t at, uint64_t *value)
{
    *value = 0;
    for (unsigned shift = 0; at < from.size && shift < 64; at++, shift += 7) {
        *value |= (uint64_t)(from.data[at] & 0x7f) << shift;
        if ((from.data[at] & 0x80) == 0) return true;
    }
    return false;
}

/* Ends with its connection. */
static void *listen_to(void *context)
{
    listener *in = context;
    mir_bench_message message;
    mir_error error = {0};
    while (mir_bench_conn_read(&in->conn, &message, &error) == MIR_OK) {
        uint64_t due_ns;
        const int64_t now_ns = mir_clock_wall_ns();
        if (message.pong) continue;
        const size_t count = atomic_load_explicit(&in->count, memory_order_relaxed);
        if (count == in->capacity || !read_varint(message.payload, 1, &due_ns)) {
            in->wrong = true;
            continue;
        }
        in->late_ns[count] = now_ns - (int64_t)due_ns;
        in->arrived_late_ns[count] = in->conn.arrived_ns - (int64_t)due_ns;
        atomic_store_explicit(&in->count, count + 1, memory_order_release);
    }
    return NULL;
}

typedef struct scanner {
    mir_bench_conn conn;
    int64_t from_ns, to_ns;
    _Atomic bool ending;
    unsigned scans;
    size_t rows;
    mir_status status;
    mir_error error;
} scanner;

/* Windows are shorter than a chunk, so that every value has to be read. */
static void *scan_all(void *context)
{
    scanner *of = context;
    char mean[] = "mean", window[] = "10s";
    while (of->status == MIR_OK && !atomic_load_explicit(&of->ending, memory_order_acquire)) {
        double unread;
        of->status =
            ask(&of->conn, mean, window, of->from_ns, of->to_ns, &unread, &of->rows, &of->error);
        of->scans += of->status == MIR_OK;
    }
    return NULL;
}

/* `sender_late_ns` gets how late each tick woke up, `excused_ns` how much of it its timestamps leave
 * out. */
static mir_status send_stream(mir_bench_conn *out, size_t ticks, int64_t *sender_late_ns,
                              int64_t *excused_ns, mir_error *error)
{
    mir_bench_telemetry *telemetry = malloc(sizeof *telemetry * DEVICES);
    mir_bytes batch = {0};
    mir_status status = MIR_OK;
    if (telemetry == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (unsigned d = 0; d < DEVICES; d++) mir_bench_telemetry_init(&telemetry[d], d);
    const int64_t from_ns = mir_clock_mono_ns();
    const int64_t wall_ns = mir_clock_wall_ns() - from_ns;
    int64_t written_ns = from_ns;
    uint32_t sent = 0;
    for (size_t tick = 0; tick < ticks && status == MIR_OK; tick++) {
        const int64_t due_ns = from_ns + (int64_t)tick * TICK_NS;
        sleep_until(due_ns);
        const int64_t now_ns = mir_clock_mono_ns();
        sender_late_ns[tick] = now_ns - due_ns;
        excused_ns[tick] = written_ns > due_ns ? 0 : now_ns - due_ns;
        const int64_t stamp_ns = due_ns + excused_ns[tick] + wall_ns;
        for (unsigned i = 0; i < STREAM_PER_TICK; i++, sent++) {
            const unsigned d = sent % DEVICES;
            mir_bench_telemetry_fill(telemetry[d].bytes + telemetry[d].payload_at,
                                     stamp_ns - (int64_t)sent * MIR_BENCH_STEP_NS, d, sent);
            mir_bytes_append(&batch, telemetry[d].bytes, telemetry[d].size);
        }
        status = mir_bytes_ok(&batch) ? mir_bench_conn_write(out, batch.data, batch.size, error)
                                      : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        batch.size = 0;
        written_ns = mir_clock_mono_ns();
    }
    if (status == MIR_OK) status = mir_bench_conn_flush(out, error);
    mir_bytes_free(&batch);
    free(telemetry);
    return status;
}

typedef struct stream_result {
    double p50_ms, p99_ms, max_ms, sender_p99_ms, arrived_p99_ms, due_p99_ms;
    unsigned scans;
    size_t rows;
    log_state before, after;
} stream_result;

static mir_status stream_round(uint16_t port, double seconds, bool with_scan, int64_t from_ns,
                               int64_t to_ns, stream_result *result, mir_error *error)
{
    const size_t ticks = (size_t)(seconds * (double)MIR_NS_PER_S / TICK_NS);
    const size_t messages = ticks * STREAM_PER_TICK;
    listener in = {.conn = {.fd = -1}, .capacity = messages};
    scanner scan = {.conn = {.fd = -1}, .from_ns = from_ns, .to_ns = to_ns};
    mir_bench_conn out = {.fd = -1};
    pthread_t listening, scanning;
    bool is_listening = false, is_scanning = false;
    int64_t *sender_late_ns = calloc(ticks, sizeof *sender_late_ns);
    int64_t *excused_ns = calloc(ticks, sizeof *excused_ns);
    int64_t *due_late_ns = calloc(messages, sizeof *due_late_ns);
    in.late_ns = calloc(messages, sizeof *in.late_ns);
    in.arrived_late_ns = calloc(messages, sizeof *in.arrived_late_ns);
    mir_status status = MIR_OK;
    if (sender_late_ns == NULL || excused_ns == NULL || due_late_ns == NULL || in.late_ns == NULL ||
        in.arrived_late_ns == NULL)
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK)
        status = mir_bench_conn_open(&in.conn, port, "SUB device.*.tlm.v1alpha.proto 1\r\n", error);
    if (status == MIR_OK) status = mir_bench_conn_stamp(&in.conn, error);
    if (status == MIR_OK) status = mir_bench_conn_open(&out, port, "", error);
    if (status == MIR_OK) status = mir_bench_conn_open(&scan.conn, port, "", error);
    if (status == MIR_OK) status = ask_status(&out, &result->before, error);
    if (status == MIR_OK) {
        is_listening = pthread_create(&listening, NULL, listen_to, &in) == 0;
        is_scanning = with_scan && pthread_create(&scanning, NULL, scan_all, &scan) == 0;
        if (!is_listening || is_scanning != with_scan)
            status = mir_error_set(error, MIR_E_NO_MEMORY, "cannot start a thread");
    }
    if (status == MIR_OK) status = send_stream(&out, ticks, sender_late_ns, excused_ns, error);
    const int64_t until_ns = mir_clock_mono_ns() + arrive_timeout_ns;
    while (status == MIR_OK && atomic_load_explicit(&in.count, memory_order_acquire) < messages &&
           mir_clock_mono_ns() < until_ns)
        sleep_until(mir_clock_mono_ns() + MIR_NS_PER_MS);
    atomic_store_explicit(&scan.ending, true, memory_order_release);
    if (is_scanning) (void)pthread_join(scanning, NULL);
    if (is_listening) {
        (void)shutdown(in.conn.fd, SHUT_RDWR);
        (void)pthread_join(listening, NULL);
    }
    if (status == MIR_OK && scan.status != MIR_OK) {
        status = scan.status;
        *error = scan.error;
    }
    const size_t arrived = atomic_load_explicit(&in.count, memory_order_relaxed);
    if (status == MIR_OK && (arrived != messages || in.wrong))
        status = mir_error_set(error, MIR_E_CORRUPT, "%zu of %zu messages reached the subscriber",
                               arrived, messages);
    if (status == MIR_OK) status = ask_status(&out, &result->after, error);
    if (status == MIR_OK) {
        const size_t warm = messages * WARM_UP_PER_CENT / 100;
        /* They come in the order in which they were sent. */
        for (size_t i = 0; i < messages; i++)
            due_late_ns[i] = in.late_ns[i] + excused_ns[i / STREAM_PER_TICK];
        result->p50_ms = mir_bench_quantile(in.late_ns + warm, messages - warm, 0.5) / 1e6;
        result->p99_ms = mir_bench_quantile(in.late_ns + warm, messages - warm, 0.99) / 1e6;
        result->max_ms = (double)in.late_ns[messages - 1] / 1e6;
        result->arrived_p99_ms =
            mir_bench_quantile(in.arrived_late_ns + warm, messages - warm, 0.99) / 1e6;
        result->due_p99_ms = mir_bench_quantile(due_late_ns + warm, messages - warm, 0.99) / 1e6;
        result->sender_p99_ms = mir_bench_quantile(sender_late_ns, ticks, 0.99) / 1e6;
        result->scans = scan.scans;
        result->rows = scan.rows;
    }
    mir_bench_conn_close(&in.conn);
    mir_bench_conn_close(&out);
    mir_bench_conn_close(&scan.conn);
    free(sender_late_ns);
    free(excused_ns);
    free(due_late_ns);
    free(in.late_ns);
    free(in.arrived_late_ns);
    return status;
}

static int by_p99(const void *a, const void *b)
{
    const stream_result *of = a, *than = b;
    return (of->p99_ms > than->p99_ms) - (of->p99_ms < than->p99_ms);
}

/* The round with the median of the percentiles is told in full. Sorts the rounds. */
static void add_stream_row(mir_bench_report *report, const mir_bench_options *options,
                           const char *name, stream_result *rounds, bool judged)
{
    qsort(rounds, options->rounds, sizeof *rounds, by_p99);
    const stream_result *result = &rounds[options->rounds / 2];
    mir_bench_row *row = mir_bench_report_add(
        report, "ms", result->p99_ms, NAN,
        judged && !options->quick ? MIR_BENCH_BAR_VALUE_MAX : MIR_BENCH_BAR_NONE, 1, "%s", name);
    json_int_t refused = 0;
    for (unsigned i = 0; i < options->rounds; i++)
        refused += rounds[i].after.refused - rounds[i].before.refused;
    row->failed = refused != 0;
    (void)snprintf(row->note, sizeof row->note,
                   "p99 %.2f to %.2f in %u rounds; p50 %.2f, max %.1f; at the socket p99 %.2f, "
                   "from due p99 %.2f, the sender itself woke up p99 %.2f late; %u scans, %lld "
                   "seals, %lld merges meanwhile%s",
                   rounds[0].p99_ms, rounds[options->rounds - 1].p99_ms, options->rounds,
                   result->p50_ms, result->max_ms, result->arrived_p99_ms, result->due_p99_ms,
                   result->sender_p99_ms, result->scans,
                   (long long)(result->after.seals - result->before.seals),
                   (long long)(result->after.merges - result->before.merges),
                   refused != 0 ? "; rows were REFUSED" : "");
    mir_bench_say("live, %s: p99 %.2f ms", name, result->p99_ms);
}

static mir_status stream_under_load(const mir_bench_options *options, mir_bench_report *report,
                                    mir_error *error)
{
    const uint32_t rounds = (uint32_t)(options->values / FIELDS / DEVICES);
    const double seconds = options->quick ? 1 : STREAM_SECONDS;
    const int64_t base_ns = (mir_clock_wall_ns() / MIR_NS_PER_S - rounds - 60) * MIR_NS_PER_S;
    const int64_t to_ns = base_ns + (int64_t)rounds * MIR_NS_PER_S;
    mir_bench_server server = {0};
    mir_bench_conn conn = {.fd = -1};
    char dir[MIR_BENCH_PATH_BYTES_MAX];
    uint64_t peak = 0;
    stream_result alone[MIR_BENCH_ROUNDS_MAX] = {0}, loaded[MIR_BENCH_ROUNDS_MAX] = {0};
    mir_status status = mir_bench_server_start(&server, MIR_BENCH_OURS, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&conn, server.port, "", error);
    if (status == MIR_OK) status = introduce(&conn, &server, DEVICES, base_ns, &peak, error);
    if (status == MIR_OK) status = feed(&conn, &server, DEVICES, 1, rounds, base_ns, &peak, error);
    if (status == MIR_OK) mir_bench_server_settle(&server);
    mir_bench_conn_close(&conn);
    (void)snprintf(dir, sizeof dir, "%s", server.dir);
    mir_bench_server_stop(&server, status == MIR_OK);
    report_take(report, &server);
    if (status != MIR_OK) return status;

    /* A small log is sealed so often that there is something to merge within seconds. What the
     * caller sets comes later and wins. */
    mir_bench_options small = *options;
    small.set_count = 0;
    small.sets[small.set_count++] = "limits.max_payload=1MiB"; /* at most the log's size */
    small.sets[small.set_count++] = "telemetry.log_bytes_max=4MiB";
    for (size_t i = 0; i < options->set_count && small.set_count < MIR_BENCH_SETS_MAX; i++)
        small.sets[small.set_count++] = options->sets[i];
    status = mir_bench_server_start(&server, MIR_BENCH_OURS, &small, dir, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&conn, server.port, "", error);
    /* The twins are back when each takes telemetry again. */
    if (status == MIR_OK)
        status = introduce(&conn, &server, DEVICES, to_ns + 10 * MIR_NS_PER_S, &peak, error);
    for (unsigned i = 0; i < options->rounds && status == MIR_OK; i++) {
        status = stream_round(server.port, seconds, false, base_ns, to_ns, &alone[i], error);
        if (status == MIR_OK)
            status = stream_round(server.port, seconds, true, base_ns, to_ns, &loaded[i], error);
    }
    mir_bench_conn_close(&conn);
    mir_bench_server_stop(&server, false);
    report_take(report, &server);
    if (status != MIR_OK) return status;
    add_stream_row(report, options, "50,000 msg/s to a subscriber, p99", alone, false);
    add_stream_row(report, options, "the same during scans and merges", loaded, true);
    return MIR_OK;
}

mir_status mir_bench_live(const mir_bench_options *options, mir_bench_report *report,
                          mir_error *error)
{
    if (options->mir_path == NULL) return MIR_OK;
    mir_status status = many_series(options, report, error);
    return status == MIR_OK ? stream_under_load(options, report, error) : status;
}

mir_status mir_bench_telemetry_and_live(const mir_bench_options *options, mir_bench_report *report,
                                        mir_error *error)
{
    mir_status status = mir_bench_telemetry_log(options, report, error);
    return status == MIR_OK ? mir_bench_live(options, report, error) : status;
}
