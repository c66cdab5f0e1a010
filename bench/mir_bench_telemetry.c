/* SPDX-License-Identifier: Apache-2.0 */
/* Telemetry as a database holds it: what taking it in costs, what it takes on the disk, and how soon
 * it is read again, beside VictoriaMetrics and InfluxDB.
 *
 * 1,000 devices send messages with a timestamp and four values: times on a grid of a second with a
 * jitter of 20 ms to either side; walks by a step from {-1, 0, 1} in three fields, {-3 … 3} in one.
 * Then the same in milliseconds, the same as doubles (two with two decimals, two that use all their
 * digits), and a fleet of which one percent sends nine tenths. All from one seed. All three servers
 * are given the same values, paced; what they spend is counted until they are quiet again and have
 * nothing left to compact. Ours is asked over its own protocol, the others over HTTP. */
#include "mir_bench_api.h"
#include "mir_bench_http.h"
#include "mir_bench_server.h"
#include "mir_clock.h"
#include "mir_pbwire.h"

#include <dirent.h>
#include <jansson.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <time.h>

#include "mir_api/v1/tlm.pb-c.h"

enum {
    DEVICES = 1000,
    FIELDS = 4,
    BUSY_DEVICES = 10, /* of the skewed fleet: nine tenths of the messages */
    CONNECTIONS = 8,
    BATCH_BYTES = 64 << 10,
    PACE_MESSAGES = 20000,
    PACE_PER_SECOND = 300000,
    HTTP_LINES = 5000,
    ASKED_TIMES = 25,
    ASKED_TIMES_MIN = 3,
    QUIET_SECONDS = 9, /* longer than a log waits for more before it is sealed and merged */
    QUIET_SECONDS_QUICK = 1,
    QUIET_SECONDS_MAX = 120,
    UNSEALED_MAX = 6 << 20, /* fills the logs of two shards once, which are sealed meanwhile */
};

static const int64_t asked_ns_max = 10 * MIR_NS_PER_S;

typedef enum set_kind { SET_INTS, SET_MILLIS, SET_REALS, SET_SKEWED, SETS } set_kind;

static const char *const set_names[SETS] = {"ints, ns", "ints, ms", "doubles, ns", "skewed, ns"};
static const char *const messages[SETS] = {"Env", "EnvMilli", "Reals", "Env"};
static const char *const fields[FIELDS] = {"temperature", "humidity", "pressure", "light"};

typedef enum database { OURS, VICTORIA, INFLUX, DATABASES } database;

static const char *const database_names[DATABASES] = {"ours", "VictoriaMetrics", "InfluxDB"};

/* ---- The data ---- */

typedef struct data {
    set_kind kind;
    uint64_t random;
    int64_t base_ns;
    uint64_t messages;
    uint64_t made;
    int64_t walks[DEVICES][FIELDS];
    double drifts[DEVICES][2];
} data;

typedef struct sample {
    unsigned device;
    int64_t time_ns;
    int64_t ints[FIELDS];
    double reals[FIELDS];
} sample;

static uint64_t next_random(data *from)
{
    uint64_t z = (from->random += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static void data_begin(data *made, set_kind kind, uint64_t values, int64_t base_ns)
{
    memset(made, 0, sizeof *made);
    made->kind = kind;
    made->random = 42;
    made->base_ns = base_ns;
    made->messages = values / FIELDS;
    for (unsigned d = 0; d < DEVICES; d++) {
        for (unsigned f = 0; f < FIELDS; f++) made->walks[d][f] = 1000;
        made->drifts[d][0] = made->drifts[d][1] = 700;
    }
}

/* Seconds that the whole takes: of a skewed fleet those of a busy device. */
static int64_t data_span_s(const data *of)
{
    const uint64_t share =
        of->kind == SET_SKEWED ? of->messages * 9 / 10 / BUSY_DEVICES : of->messages / DEVICES;
    return (int64_t)share + 1;
}

static bool data_next(data *from, sample *to)
{
    if (from->made == from->messages) return false;
    const uint64_t n = from->made++;
    uint64_t step = n / DEVICES;
    to->device = (unsigned)(n % DEVICES);
    if (from->kind == SET_SKEWED) {
        if (n % 10 != 9) {
            const uint64_t busy = n / 10 * 9 + n % 10;
            to->device = (unsigned)(busy % BUSY_DEVICES);
            step = busy / BUSY_DEVICES;
        } else {
            to->device = BUSY_DEVICES + (unsigned)(n / 10 % (DEVICES - BUSY_DEVICES));
            step = n / 10 / (DEVICES - BUSY_DEVICES);
        }
    }
    const uint64_t r = next_random(from);
    const bool millis = from->kind == SET_MILLIS;
    const int64_t jitter_ns = millis ? ((int64_t)(r % 41) - 20) * MIR_NS_PER_MS
                                     : (int64_t)(r % 40000001) - 20 * MIR_NS_PER_MS;
    to->time_ns = from->base_ns + (int64_t)step * MIR_NS_PER_S + jitter_ns;
    int64_t *walk = from->walks[to->device];
    const uint64_t s = next_random(from);
    for (unsigned f = 0; f < FIELDS; f++) {
        const uint64_t part = s >> (16 * f) & 0xffff;
        walk[f] += f < 3 ? (int64_t)(part % 3) - 1 : (int64_t)(part % 7) - 3;
        to->ints[f] = walk[f];
    }
    if (from->kind != SET_REALS) return true;
    double *drift = from->drifts[to->device];
    for (unsigned f = 0; f < 2; f++) {
        drift[f] += (double)(next_random(from) >> 11) / 9007199254740992.0 - 0.5;
        to->reals[f] = (double)walk[f] / 100;
        to->reals[2 + f] = drift[f];
    }
    return true;
}

/* ---- The databases ---- */

typedef struct store {
    database kind;
    mir_bench_server server;
    mir_bench_conn senders[CONNECTIONS];
    mir_bench_conn control;
    mir_bench_http http;
    uint64_t peak_bytes; /* RssAnon */
} store;

static bool victoria_ready(const mir_bench_server *server)
{
    return mir_bench_http_answers(server->port, "/health");
}

static bool influx_ready(const mir_bench_server *server)
{
    return mir_bench_http_answers(server->port, "/ping");
}

static mir_status victoria_start(store *made, mir_error *error)
{
    char path[MIR_BENCH_PATH_BYTES_MAX + 64], listen[64];
    mir_status status = mir_bench_server_prepare(&made->server, error);
    if (status != MIR_OK) return status;
    (void)snprintf(path, sizeof path, "-storageDataPath=%s/data", made->server.dir);
    (void)snprintf(listen, sizeof listen, "-httpListenAddr=127.0.0.1:%u", made->server.port);
    const char *args[] = {"victoria-metrics",
                          path,
                          listen,
                          "-retentionPeriod=100y",
                          "-search.maxPointsPerTimeseries=1000000",
                          "-search.maxUniqueTimeseries=1000000",
                          NULL};
    return mir_bench_server_launch(&made->server, (char *const *)(uintptr_t)args, victoria_ready,
                                   error);
}

static mir_status influx_start(store *made, mir_error *error)
{
    char path[MIR_BENCH_PATH_BYTES_MAX + 64];
    mir_status status = mir_bench_server_prepare(&made->server, error);
    if (status != MIR_OK) return status;
    const char *dir = made->server.dir;
    (void)snprintf(path, sizeof path, "%s/influxdb.conf", dir);
    FILE *file = fopen(path, "we");
    if (file == NULL) return mir_error_set(error, MIR_E_IO, "cannot write %s", path);
    /* Compaction does not wait for hours without writes. */
    (void)fprintf(file,
                  "reporting-disabled = true\nbind-address = \"127.0.0.1:0\"\n"
                  "[meta]\n  dir = \"%s/data/meta\"\n"
                  "[data]\n  dir = \"%s/data/data\"\n  wal-dir = \"%s/data/wal\"\n"
                  "  cache-snapshot-write-cold-duration = \"2s\"\n"
                  "  compact-full-write-cold-duration = \"2s\"\n  query-log-enabled = false\n"
                  "[http]\n  bind-address = \"127.0.0.1:%u\"\n  log-enabled = false\n"
                  "  max-row-limit = 0\n[monitor]\n  store-enabled = false\n",
                  dir, dir, dir, made->server.port);
    if (fclose(file) != 0) return mir_error_set(error, MIR_E_IO, "cannot write %s", path);
    const char *args[] = {"influxd", "run", "-config", path, NULL};
    status =
        mir_bench_server_launch(&made->server, (char *const *)(uintptr_t)args, influx_ready, error);
    if (status == MIR_OK) status = mir_bench_http_open(&made->http, made->server.port, error);
    if (status == MIR_OK)
        status = mir_bench_http_post(&made->http, "/query?q=CREATE%20DATABASE%20bench",
                                     MIR_VIEW_LITERAL(""), error);
    return status;
}

static mir_status connections_open(store *of, mir_error *error)
{
    mir_status status =
        mir_bench_conn_open(&of->control, of->server.port, "SUB _INBOX.tlm 77\r\n", error);
    for (unsigned i = 0; i < CONNECTIONS && status == MIR_OK; i++)
        status = mir_bench_conn_open(&of->senders[i], of->server.port, "", error);
    return status;
}

static void connections_close(store *of)
{
    for (unsigned i = 0; i < CONNECTIONS; i++) mir_bench_conn_close(&of->senders[i]);
    mir_bench_conn_close(&of->control);
}

static mir_status store_start(store *made, database kind, const mir_bench_options *options,
                              const char *keep_dir, mir_error *error)
{
    *made = (store){.kind = kind, .control = {.fd = -1}};
    for (unsigned i = 0; i < CONNECTIONS; i++) made->senders[i].fd = -1;
    if (kind == INFLUX) return influx_start(made, error);
    mir_status status = kind == VICTORIA ? victoria_start(made, error)
                                         : mir_bench_server_start(&made->server, MIR_BENCH_OURS,
                                                                  options, keep_dir, error);
    if (status == MIR_OK && kind == VICTORIA)
        return mir_bench_http_open(&made->http, made->server.port, error);
    return status == MIR_OK ? connections_open(made, error) : status;
}

static void store_stop(store *stopped, mir_bench_report *report)
{
    connections_close(stopped);
    if (stopped->kind != OURS) mir_bench_http_close(&stopped->http);
    mir_bench_server_stop(&stopped->server, false);
    if (stopped->kind == OURS && stopped->server.peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = stopped->server.peak_resident_bytes;
}

static void note_peak(store *of)
{
    const uint64_t bytes = mir_bench_server_memory(&of->server, "RssAnon");
    if (bytes > of->peak_bytes) of->peak_bytes = bytes;
}

/* Until it spends next to nothing for as long as anything might still be waiting. */
static void await_quiet(store *of, double seconds)
{
    double calm = 0;
    int64_t before_ns = mir_bench_server_cpu_ns(&of->server);
    const int64_t until_ns = mir_clock_mono_ns() + QUIET_SECONDS_MAX * MIR_NS_PER_S;
    while (calm < seconds && mir_clock_mono_ns() < until_ns) {
        const struct timespec wait = {.tv_nsec = 250 * MIR_NS_PER_MS};
        (void)nanosleep(&wait, NULL);
        note_peak(of);
        const int64_t now_ns = mir_bench_server_cpu_ns(&of->server);
        /* Under two percent of a processor is what a runtime does of itself. */
        calm = now_ns - before_ns < 5 * MIR_NS_PER_MS ? calm + 0.25 : 0;
        before_ns = now_ns;
    }
}

/* What the directory takes of the disk; `apparent` grows by how long its files are. */
static uint64_t disk_bytes(const char *path, uint64_t *apparent)
{
    uint64_t total = 0;
    DIR *dir = opendir(path);
    if (dir == NULL) return 0;
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        char below[MIR_BENCH_PATH_BYTES_MAX * 4];
        struct stat info;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        const int size = snprintf(below, sizeof below, "%s/%s", path, entry->d_name);
        if (size < 0 || (size_t)size >= sizeof below || lstat(below, &info) != 0) continue;
        if (S_ISDIR(info.st_mode)) {
            total += disk_bytes(below, apparent);
            continue;
        }
        total += (uint64_t)info.st_blocks * 512;
        *apparent += (uint64_t)info.st_size;
    }
    (void)closedir(dir);
    return total;
}

static uint64_t store_disk_bytes(const store *of, uint64_t *apparent)
{
    char path[MIR_BENCH_PATH_BYTES_MAX + 32];
    (void)snprintf(path, sizeof path, "%s/data%s", of->server.dir,
                   of->kind == OURS ? "/telemetry" : "");
    *apparent = 0;
    return disk_bytes(path, apparent);
}

/* ---- In ---- */

static void put_frame(mir_bytes *out, const data *from, const sample *s)
{
    uint8_t payload[16 * (FIELDS + 1)];
    uint8_t *at = payload;
    *at++ = 1 << 3;
    at = mir_pbwire_write_varint(
        at, (uint64_t)(from->kind == SET_MILLIS ? s->time_ns / MIR_NS_PER_MS : s->time_ns));
    for (unsigned f = 0; f < FIELDS; f++) {
        if (from->kind == SET_REALS) {
            *at++ = (uint8_t)((f + 2) << 3 | 1);
            memcpy(at, &s->reals[f], 8);
            at += 8;
        } else {
            *at++ = (uint8_t)((f + 2) << 3);
            at = mir_pbwire_write_varint(at, (uint64_t)s->ints[f]);
        }
    }
    char header[64];
    const int header_size = snprintf(
        header, sizeof header, "NATS/1.0\r\nmir-msg: bench.v1.%s\r\n\r\n", messages[from->kind]);
    mir_bytes_printf(out, "HPUB device.bench-%u.tlm.v1alpha.proto %d %d\r\n%s", s->device,
                     header_size, header_size + (int)(at - payload), header);
    mir_bytes_append(out, payload, (size_t)(at - payload));
    mir_bytes_text(out, "\r\n");
}

static void put_line(mir_bytes *out, const data *from, const sample *s)
{
    mir_bytes_printf(out, "%s,id=bench-%u ", messages[from->kind], s->device);
    for (unsigned f = 0; f < FIELDS; f++) {
        if (from->kind == SET_REALS)
            mir_bytes_printf(out, "%s%s=%.17g", f == 0 ? "" : ",", fields[f], s->reals[f]);
        else
            mir_bytes_printf(out, "%s%s=%lldi", f == 0 ? "" : ",", fields[f],
                             (long long)s->ints[f]);
    }
    mir_bytes_printf(out, " %lld\n", (long long)s->time_ns);
}

/* Not faster than a machine with little to spare takes it from the fastest of them. */
static void pace(int64_t from_ns, uint64_t sent)
{
    const int64_t due_ns = from_ns + (int64_t)(sent * (uint64_t)MIR_NS_PER_S / PACE_PER_SECOND);
    const struct timespec until = {.tv_sec = due_ns / MIR_NS_PER_S,
                                   .tv_nsec = due_ns % MIR_NS_PER_S};
    (void)clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL);
}

static mir_status flush_all(store *to, mir_bytes *batches, mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < CONNECTIONS && status == MIR_OK; i++) {
        status = mir_bench_conn_write(&to->senders[i], batches[i].data, batches[i].size, error);
        batches[i].size = 0;
        if (status == MIR_OK) status = mir_bench_conn_flush(&to->senders[i], error);
    }
    return status;
}

static mir_status feed_ours(store *to, data *from, mir_error *error)
{
    mir_bytes batches[CONNECTIONS] = {{0}};
    mir_status status = MIR_OK;
    const int64_t from_ns = mir_clock_mono_ns();
    sample s;
    while (status == MIR_OK && data_next(from, &s)) {
        mir_bytes *batch = &batches[s.device % CONNECTIONS];
        put_frame(batch, from, &s);
        if (!mir_bytes_ok(batch)) status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        if (batch->size >= BATCH_BYTES && status == MIR_OK) {
            status = mir_bench_conn_write(&to->senders[s.device % CONNECTIONS], batch->data,
                                          batch->size, error);
            batch->size = 0;
        }
        if (from->made % PACE_MESSAGES == 0) {
            note_peak(to);
            pace(from_ns, from->made);
        }
    }
    if (status == MIR_OK) status = flush_all(to, batches, error);
    for (unsigned i = 0; i < CONNECTIONS; i++) mir_bytes_free(&batches[i]);
    return status;
}

static mir_status feed_lines(store *to, data *from, mir_error *error)
{
    const char *path =
        to->kind == VICTORIA ? "/write?precision=ns" : "/write?db=bench&precision=ns";
    mir_bytes lines = {0};
    mir_status status = MIR_OK;
    const int64_t from_ns = mir_clock_mono_ns();
    sample s;
    bool more = true;
    for (uint64_t count = 0; more && status == MIR_OK;) {
        more = data_next(from, &s);
        if (more) {
            put_line(&lines, from, &s);
            count++;
        }
        if (count == 0 || (more && count % HTTP_LINES != 0)) continue;
        if (!mir_bytes_ok(&lines)) status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        if (status == MIR_OK && lines.size > 0)
            status = mir_bench_http_post(&to->http, path, mir_bytes_as_view(&lines), error);
        lines.size = 0;
        note_peak(to);
        pace(from_ns, from->made);
    }
    mir_bytes_free(&lines);
    return status;
}

/* ---- Out ---- */

typedef struct question {
    unsigned devices;
    bool minutes; /* the mean of each; otherwise rows as they are */
    bool count;   /* of all values */
} question;

static mir_status ask_ours(store *of, const data *set, const question *q, uint64_t *answer_bytes,
                           double *counted, mir_error *error)
{
    static char ids[DEVICES][16];
    static char *id_list[DEVICES];
    char measurement[32], inbox[] = "_INBOX.tlm", field[] = "temperature", mean[] = "mean";
    char count[] = "count", all[] = "all", minute[] = "1m", *one_field[] = {field};
    char *function[] = {q->count ? count : mean};
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__Timestamp from = MIR_API__V1__TIMESTAMP__INIT, to = MIR_API__V1__TIMESTAMP__INIT;
    MirApi__V1__QueryTelemetryRequest request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    for (unsigned i = 0; i < q->devices; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "bench-%u", i);
        id_list[i] = ids[i];
    }
    (void)snprintf(measurement, sizeof measurement, "bench.v1.%s", messages[set->kind]);
    target.ids = id_list;
    target.n_ids = q->devices;
    request.targets = &target;
    request.measurement = measurement;
    from.has_seconds = to.has_seconds = 1;
    from.seconds = set->base_ns / MIR_NS_PER_S - 1;
    to.seconds = set->base_ns / MIR_NS_PER_S + data_span_s(set) + 1;
    request.start_time = &from;
    request.end_time = &to;
    if (!q->count) {
        request.fields = one_field;
        request.n_fields = 1;
    }
    if (q->count || q->minutes) {
        request.functions = function;
        request.n_functions = 1;
    }
    if (q->minutes) request.aggregation_window = minute;
    if (q->count) request.group_by = all;
    const bool stream = !q->count && !q->minutes && q->devices > 1;
    request.has_stream = request.stream = stream;
    char cursor[512] = "";
    *answer_bytes = 0;
    for (bool more = true; more;) {
        uint8_t body[64 * 1024];
        if (cursor[0] != '\0') request.cursor = cursor;
        const size_t size = protobuf_c_message_get_packed_size(&request.base);
        if (size > sizeof body) return mir_error_set(error, MIR_E_TOO_LARGE, "a large request");
        (void)protobuf_c_message_pack(&request.base, body);
        char line[128];
        const int head = snprintf(line, sizeof line,
                                  "PUB client.bench.tlm.v1alpha.query %s %zu\r\n", inbox, size);
        mir_status status = mir_bench_conn_write(&of->control, line, (size_t)head, error);
        if (status == MIR_OK) status = mir_bench_conn_write(&of->control, body, size, error);
        if (status == MIR_OK) status = mir_bench_conn_write(&of->control, "\r\n", 2, error);
        mir_bench_message message = {0};
        for (bool last = false; status == MIR_OK && !last;) {
            status = mir_bench_conn_read(&of->control, &message, error);
            if (status != MIR_OK || message.pong || !mir_view_eq_cstr(message.subject, inbox))
                continue;
            *answer_bytes += message.payload.size;
            last = memmem(message.header.data, message.header.size, "mir-stream", 10) == NULL;
        }
        if (status != MIR_OK) return status;
        more = false;
        if (!stream && !q->count && message.payload.size > 100 && message.payload.data[0] == 0x0a)
            continue;
        MirApi__V1__QueryTelemetryResponse *got = mir_api__v1__query_telemetry_response__unpack(
            NULL, message.payload.size, message.payload.data);
        if (got == NULL ||
            got->response_case != MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK) {
            status = mir_bench_api_refused("tlm.query", got == NULL ? NULL : got->error, error);
        } else if (q->count) {
            *counted = 0;
            for (size_t f = 2; got->ok->n_rows == 1 && f < got->ok->rows[0]->n_datapoints; f++)
                *counted += (double)got->ok->rows[0]->datapoints[f]->value_int64;
        } else if (got->ok->cursor != NULL && got->ok->cursor[0] != '\0') {
            (void)snprintf(cursor, sizeof cursor, "%s", got->ok->cursor);
            more = true;
        }
        if (got != NULL) mir_api__v1__query_telemetry_response__free_unpacked(got, NULL);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

static const char *victoria_filter(const question *q)
{
    if (q->devices == 1) return "{id=\"bench-0\"}";
    return q->devices == 100 ? "{id=~\"bench-[0-9]{1,2}\"}" : "";
}

static mir_status ask_victoria(store *of, const data *set, const question *q, mir_error *error)
{
    char text[256], from[32], to[32];
    const int64_t first_s = set->base_ns / MIR_NS_PER_S - 1;
    (void)snprintf(from, sizeof from, "%lld", (long long)first_s);
    (void)snprintf(to, sizeof to, "%lld", (long long)(first_s + data_span_s(set) + 2));
    if (q->count) {
        (void)snprintf(text, sizeof text, "sum(count_over_time({__name__=~\"%s_.*\"}[%llds]))",
                       messages[set->kind], (long long)data_span_s(set) + 10);
        const char *parameters[] = {"query", text, "time", to, "nocache", "1", NULL};
        return mir_bench_http_get(&of->http, "/api/v1/query", parameters, error);
    }
    if (q->minutes) {
        (void)snprintf(text, sizeof text, "avg_over_time(%s_temperature%s[1m])",
                       messages[set->kind], victoria_filter(q));
        const char *parameters[] = {"query", text, "start",   from, "end", to,
                                    "step",  "60", "nocache", "1",  NULL};
        return mir_bench_http_get(&of->http, "/api/v1/query_range", parameters, error);
    }
    (void)snprintf(text, sizeof text, "%s_temperature%s", messages[set->kind], victoria_filter(q));
    const char *parameters[] = {"match[]", text, "start", from, "end", to, NULL};
    return mir_bench_http_get(&of->http, "/api/v1/export", parameters, error);
}

static mir_status ask_influx(store *of, const data *set, const question *q, mir_error *error)
{
    char text[320], where[160];
    const char *which = q->devices == 1     ? " AND id = 'bench-0'"
                        : q->devices == 100 ? " AND id =~ /^bench-[0-9]{1,2}$/"
                                            : "";
    (void)snprintf(where, sizeof where, "time >= %llds AND time < %llds%s",
                   (long long)(set->base_ns / MIR_NS_PER_S - 1),
                   (long long)(set->base_ns / MIR_NS_PER_S + data_span_s(set) + 1), which);
    const char *message = messages[set->kind];
    if (q->count)
        (void)snprintf(text, sizeof text, "SELECT count(*) FROM %s WHERE %s", message, where);
    else if (q->minutes)
        (void)snprintf(text, sizeof text,
                       "SELECT mean(temperature) FROM %s WHERE %s GROUP BY time(1m), id", message,
                       where);
    else
        (void)snprintf(text, sizeof text, "SELECT temperature FROM %s WHERE %s%s", message, where,
                       q->devices > 1 ? " GROUP BY id" : "");
    const char *parameters[] = {"db", "bench", "epoch", "ns", "q", text, NULL};
    return mir_bench_http_get(&of->http, "/query", parameters, error);
}

/* The sum of the numbers of a peer's answer to the count of all values. */
static double counted_by(const store *of)
{
    double sum = 0;
    const mir_bytes *answer = &of->http.answer;
    json_t *all = json_loadb((const char *)answer->data, answer->size, 0, NULL);
    if (of->kind == VICTORIA) {
        const json_t *result = json_object_get(json_object_get(all, "data"), "result");
        const json_t *value = json_object_get(json_array_get(result, 0), "value");
        const char *text = json_string_value(json_array_get(value, 1));
        sum = text != NULL ? strtod(text, NULL) : 0;
    } else {
        const json_t *result = json_array_get(json_object_get(all, "results"), 0);
        const json_t *series = json_array_get(json_object_get(result, "series"), 0);
        const json_t *row = json_array_get(json_object_get(series, "values"), 0);
        for (size_t i = 1; i < json_array_size(row); i++)
            sum += json_number_value(json_array_get(row, i));
    }
    json_decref(all);
    return sum;
}

/* Milliseconds, the median of some times after a first one; fewer when each takes long. */
static mir_status ask(store *of, const data *set, const question *q, unsigned times, double *ms,
                      uint64_t *answer_bytes, double *counted, mir_error *error)
{
    double taken[ASKED_TIMES];
    const int64_t until_ns = mir_clock_mono_ns() + asked_ns_max;
    for (unsigned i = 0; i <= times; i++) {
        if (i > ASKED_TIMES_MIN && mir_clock_mono_ns() > until_ns) times = i - 1;
        if (i > times) break;
        const int64_t from_ns = mir_clock_mono_ns();
        mir_status status = of->kind == OURS ? ask_ours(of, set, q, answer_bytes, counted, error)
                            : of->kind == VICTORIA ? ask_victoria(of, set, q, error)
                                                   : ask_influx(of, set, q, error);
        if (status != MIR_OK) return status;
        if (of->kind != OURS) *answer_bytes = of->http.answer.size;
        if (i > 0) taken[i - 1] = (double)(mir_clock_mono_ns() - from_ns) / 1e6;
        if (of->kind != OURS && q->count) *counted = counted_by(of);
    }
    for (unsigned i = 1; i < times; i++)
        for (unsigned k = i; k > 0 && taken[k] < taken[k - 1]; k--) {
            const double other = taken[k];
            taken[k] = taken[k - 1];
            taken[k - 1] = other;
        }
    *ms = taken[times / 2];
    return MIR_OK;
}

/* ---- Rows ---- */

typedef struct figures {
    double of[DATABASES];
} figures;

static mir_bench_row *add_row(mir_bench_report *report, const char *unit, const figures *f,
                              double bar, const char *name, const char *set)
{
    mir_bench_row *row = mir_bench_report_add(
        report, unit, f->of[OURS], NAN, bar > 0 ? MIR_BENCH_BAR_VALUE_MAX : MIR_BENCH_BAR_NONE, bar,
        "%s%s%s", name, set[0] == '\0' ? "" : ", ", set);
    mir_bench_row_add_peer(row, database_names[VICTORIA], f->of[VICTORIA]);
    mir_bench_row_add_peer(row, database_names[INFLUX], f->of[INFLUX]);
    return row;
}

static void note_more(mir_bench_row *row, const char *text)
{
    const size_t used = strlen(row->note);
    (void)snprintf(row->note + used, sizeof row->note - used, "%s%s", used > 0 ? "; " : "", text);
}

typedef struct run {
    const mir_bench_options *options;
    mir_bench_report *report;
    data *set;
    uint64_t values;
    int64_t base_ns;
    figures cpu, disk, apparent, peak;
} run;

static mir_status take_in(run *r, store *to, set_kind kind, mir_error *error)
{
    data_begin(r->set, kind, r->values, r->base_ns);
    const int64_t cpu_ns = mir_bench_server_cpu_ns(&to->server);
    const int64_t from_ns = mir_clock_mono_ns();
    mir_status status =
        to->kind == OURS ? feed_ours(to, r->set, error) : feed_lines(to, r->set, error);
    if (status != MIR_OK) return status;
    const double seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    if (to->kind == VICTORIA) {
        status = mir_bench_http_get(&to->http, "/internal/force_flush", NULL, error);
        if (status == MIR_OK)
            status = mir_bench_http_get(&to->http, "/internal/force_merge", NULL, error);
        if (status != MIR_OK) return status;
    }
    await_quiet(to, r->options->quick ? QUIET_SECONDS_QUICK : QUIET_SECONDS);
    const double values = (double)r->set->messages * FIELDS;
    r->cpu.of[to->kind] = (double)(mir_bench_server_cpu_ns(&to->server) - cpu_ns) / 1e3 / values;
    uint64_t apparent;
    r->disk.of[to->kind] = (double)store_disk_bytes(to, &apparent) / values;
    r->apparent.of[to->kind] = (double)apparent / values;
    r->peak.of[to->kind] = (double)to->peak_bytes / (1 << 20);
    mir_bench_say("telemetry, %s, %s: %.3f us and %.2f bytes a value, %.0f s", set_names[kind],
                  database_names[to->kind], r->cpu.of[to->kind], r->disk.of[to->kind], seconds);
    return MIR_OK;
}

static const struct {
    question asked;
    const char *name;
    double bar_ms;
} questions[] = {
    {{1, false, false}, "a field of 1 device, raw", 0.3},
    {{1, true, false}, "mean per minute, 1 device", 0.15},
    {{100, true, false}, "mean per minute, 100 devices", 1.5},
    {{DEVICES, true, false}, "mean per minute, 1,000 devices", 12},
    {{100, false, false}, "a field of 100 devices, raw", 15},
    {{DEVICES, false, true}, "count of all values", 5},
};

enum { QUESTIONS = sizeof questions / sizeof questions[0] };

static mir_status ask_all(run *r, store *of, figures *answers, uint64_t *bytes, double *counted,
                          mir_error *error)
{
    const unsigned times = r->options->quick ? 3 : ASKED_TIMES;
    for (size_t i = 0; i < QUESTIONS; i++) {
        mir_status status = ask(of, r->set, &questions[i].asked, times, &answers[i].of[of->kind],
                                &bytes[i * DATABASES + of->kind], counted, error);
        if (status != MIR_OK) return status;
        mir_bench_say("telemetry, %s, %s: %.3f ms, %llu bytes", questions[i].name,
                      database_names[of->kind], answers[i].of[of->kind],
                      (unsigned long long)bytes[i * DATABASES + of->kind]);
    }
    return MIR_OK;
}

static void none(figures *f)
{
    for (unsigned i = 0; i < DATABASES; i++) f->of[i] = NAN;
}

static void add_in_rows(run *r, set_kind kind)
{
    static const double disk_bars[SETS] = {1.15, 0.6, 0, 0};
    (void)add_row(r->report, "us/val", &r->cpu, 0.15, "in, CPU", set_names[kind]);
    mir_bench_row *disk =
        add_row(r->report, "B/val", &r->disk, r->options->quick ? 0 : disk_bars[kind], "on disk",
                set_names[kind]);
    char text[96];
    int used = snprintf(text, sizeof text, "blocks; files are %.3g", r->apparent.of[OURS]);
    for (unsigned d = VICTORIA; d < DATABASES; d++)
        if (!isnan(r->apparent.of[d]))
            used += snprintf(text + used, sizeof text - (size_t)used, ", %.3g", r->apparent.of[d]);
    (void)snprintf(text + used, sizeof text - (size_t)used, " long");
    note_more(disk, text);
    if (kind == SET_INTS)
        (void)add_row(r->report, "MiB", &r->peak, 100, "peak anonymous memory", set_names[kind]);
}

/* kill -9 with a log that is not sealed, and how soon everything is there again. */
static mir_status reopen(run *r, store *ours, mir_error *error)
{
    const uint64_t unsealed = r->values / 10 < UNSEALED_MAX ? r->values / 10 : UNSEALED_MAX;
    data_begin(r->set, SET_INTS, unsealed, r->base_ns - 100000 * MIR_NS_PER_S);
    mir_status status = feed_ours(ours, r->set, error);
    const question count = {.devices = DEVICES, .count = true};
    uint64_t bytes;
    double visible = 0, counted = 0, unread, asked_ms;
    if (status == MIR_OK) status = ask(ours, r->set, &count, 1, &unread, &bytes, &visible, error);
    if (status != MIR_OK) return status;
    uint64_t apparent;
    const double stored_mib = (double)store_disk_bytes(ours, &apparent) / (1 << 20);
    connections_close(ours);
    char dir[MIR_BENCH_PATH_BYTES_MAX];
    (void)snprintf(dir, sizeof dir, "%s", ours->server.dir);
    mir_bench_server_kill(&ours->server);
    status = store_start(ours, OURS, r->options, dir, error);
    if (status == MIR_OK) status = ask(ours, r->set, &count, 1, &asked_ms, &bytes, &counted, error);
    if (status != MIR_OK) return status;
    figures f;
    none(&f);
    f.of[OURS] = (double)ours->server.ready_ns / 1e6 + asked_ms;
    mir_bench_row *row = add_row(r->report, "ms", &f, 1000, "reopen after kill -9", "");
    const double sent = (double)r->set->messages * FIELDS;
    char text[128];
    (void)snprintf(text, sizeof text,
                   "until all is counted; %.0f of %.0f last values seen after their PONG, %.0f "
                   "after it; %.0f MiB stored",
                   visible, sent, counted, stored_mib);
    note_more(row, text);
    row->failed = visible != sent || counted != sent;
    return MIR_OK;
}

static mir_status measure_set(run *r, set_kind kind, bool with_questions, mir_error *error)
{
    static figures answers[QUESTIONS];
    static uint64_t bytes[QUESTIONS * DATABASES];
    mir_status status = MIR_OK;
    none(&r->cpu);
    none(&r->disk);
    none(&r->apparent);
    none(&r->peak);
    for (size_t i = 0; i < QUESTIONS; i++) none(&answers[i]);
    bool lost = false;
    for (unsigned kind_of = 0; kind_of < DATABASES && status == MIR_OK; kind_of++) {
        const bool wanted =
            kind_of == OURS ? r->options->mir_path != NULL : r->options->peer_path != NULL;
        if (!wanted) continue;
        store *s = calloc(1, sizeof *s);
        if (s == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        double counted = 0;
        status = store_start(s, (database)kind_of, r->options, NULL, error);
        if (status == MIR_OK && kind_of == OURS)
            status = mir_bench_api_introduce(&s->control, DEVICES, r->base_ns - 1000 * MIR_NS_PER_S,
                                             error);
        if (status == MIR_OK) status = take_in(r, s, kind, error);
        const double sent = (double)r->set->messages * FIELDS;
        if (status == MIR_OK && kind_of == OURS) {
            const question all = {.devices = DEVICES, .count = true};
            uint64_t unread;
            double ms;
            status = ask(s, r->set, &all, 1, &ms, &unread, &counted, error);
            lost = counted != sent;
        }
        if (status == MIR_OK && with_questions)
            status = ask_all(r, s, answers, bytes, &counted, error);
        if (status == MIR_OK && with_questions && counted != sent)
            status = mir_error_set(error, MIR_E_CORRUPT, "%s has %.0f of %.0f values",
                                   database_names[kind_of], counted, sent);
        if (status == MIR_OK && with_questions && kind_of == OURS) {
            data_begin(r->set, kind, r->values, r->base_ns);
            status = reopen(r, s, error);
        }
        store_stop(s, r->report);
        free(s);
    }
    if (status != MIR_OK) return status;
    add_in_rows(r, kind);
    if (lost) r->report->rows[r->report->row_count - 1].failed = true;
    for (size_t i = 0; i < QUESTIONS && with_questions; i++) {
        mir_bench_row *row =
            add_row(r->report, "ms", &answers[i], questions[i].bar_ms, questions[i].name, "");
        char text[96];
        (void)snprintf(text, sizeof text, "answers %llu, %llu, %llu KiB",
                       (unsigned long long)bytes[i * DATABASES + OURS] >> 10,
                       (unsigned long long)bytes[i * DATABASES + VICTORIA] >> 10,
                       (unsigned long long)bytes[i * DATABASES + INFLUX] >> 10);
        note_more(row, text);
    }
    return MIR_OK;
}

mir_status mir_bench_telemetry_log(const mir_bench_options *options, mir_bench_report *report,
                                   mir_error *error)
{
    run r = {.options = options, .report = report, .values = options->values};
    r.set = malloc(sizeof *r.set);
    if (r.set == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    /* It ends now, on a whole minute. */
    if (options->peer_path != NULL) {
        /* It does not know its version itself. */
        mir_bench_report_add_peer(report, database_names[VICTORIA], "dpkg-query",
                                  "-W -f='${Version}\\n' victoria-metrics");
        mir_bench_report_add_peer(report, database_names[INFLUX], "influxd", "version");
    }
    data_begin(r.set, SET_INTS, r.values, 0);
    r.base_ns = (mir_clock_wall_ns() / MIR_NS_PER_S - data_span_s(r.set)) / 60 * 60 * MIR_NS_PER_S;
    mir_status status = MIR_OK;
    for (unsigned kind = 0; kind < SETS && status == MIR_OK; kind++) {
        if (kind == SET_SKEWED) {
            data_begin(r.set, SET_SKEWED, r.values, 0);
            r.base_ns =
                (mir_clock_wall_ns() / MIR_NS_PER_S - data_span_s(r.set)) / 60 * 60 * MIR_NS_PER_S;
        }
        status = measure_set(&r, (set_kind)kind, kind == SET_INTS, error);
    }
    free(r.set);
    return status;
}

/* Values as they are hardest to store, and then the restart alone. */
mir_status mir_bench_reopen(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    if (options->mir_path == NULL) return MIR_OK;
    run r = {.options = options, .report = report, .values = options->values};
    r.set = malloc(sizeof *r.set);
    store *s = calloc(1, sizeof *s);
    mir_status status = MIR_OK;
    if (r.set == NULL || s == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        goto out;
    }
    none(&r.cpu);
    none(&r.disk);
    none(&r.apparent);
    none(&r.peak);
    data_begin(r.set, SET_REALS, r.values, 0);
    r.base_ns = (mir_clock_wall_ns() / MIR_NS_PER_S - data_span_s(r.set)) / 60 * 60 * MIR_NS_PER_S;
    status = store_start(s, OURS, options, NULL, error);
    if (status == MIR_OK)
        status =
            mir_bench_api_introduce(&s->control, DEVICES, r.base_ns - 1000 * MIR_NS_PER_S, error);
    if (status == MIR_OK) status = take_in(&r, s, SET_REALS, error);
    if (status == MIR_OK) {
        /* After minutes the server has pinged them, and nobody read that. */
        connections_close(s);
        status = connections_open(s, error);
    }
    if (status == MIR_OK) status = reopen(&r, s, error);
    store_stop(s, report);
out:
    free(s);
    free(r.set);
    return status;
}
