/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_status_service.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_gateway.h"
#include "mir_json_text.h"

enum {
    REPORTED_PROBLEMS_MAX = 256, /* of devices; the most recent ones */
    SLOW_SYNC_FACTOR = 20,       /* times telemetry.sync, and at least one second: that is slow */
};
#define SLOW_DISK_NS (1 * MIR_NS_PER_S)
/* Of the state store's largest size. */

/* --- each shard adds its own numbers -------------------------------------------------------- */

typedef struct report report;

typedef struct shard_report {
    mir_post post;
    report *all;
    mir_shard_stats stats;
    mir_loop_stats loop;
    uint64_t telemetry_accepted, telemetry_refused;
    uint32_t twins;
    unsigned problem_count;
    mir_problem *problems; /* room for MIR_PROBLEMS_MAX */
} shard_report;

struct report {
    mir_request *request;
    _Atomic unsigned left;
    shard_report *shards;
    mir_histogram *latency;
};

static void write_report(mir_request *request);

static void drop(report *all)
{
    /* Acquire and release: whoever is last sees what every shard wrote. */
    if (atomic_fetch_sub_explicit(&all->left, 1, memory_order_acq_rel) == 1)
        mir_request_continue(all->request, write_report, false);
}

/* Also while the shard stops: its numbers are there until the hub is taken apart, which waits for
 * this request. */
static void read_shard(mir_shard *shard, mir_post *post)
{
    shard_report *one = MIR_CONTAINER(post, shard_report, post);
    const mir_actors *actors = mir_actors_of(shard);
    one->stats = shard->stats;
    one->loop = shard->loop->stats;
    one->telemetry_accepted = actors->telemetry_accepted;
    one->telemetry_refused = actors->telemetry_refused;
    one->twins = actors->twins.count;
    one->problem_count = actors->problem_count;
    memcpy(one->problems, actors->problems, actors->problem_count * sizeof *one->problems);
    drop(one->all);
}

void mir_status_report(mir_request *request)
{
    mir_hub *hub = request->hub;
    report *all = mir_arena_alloc(&request->arena, sizeof *all);
    shard_report *shards = mir_arena_alloc(&request->arena, hub->shard_count * sizeof *shards);
    mir_histogram *latency = mir_arena_alloc(&request->arena, sizeof *latency);
    mir_problem *problems = mir_arena_alloc(
        &request->arena, (size_t)hub->shard_count * MIR_PROBLEMS_MAX * sizeof *problems);
    if (all == NULL || shards == NULL || latency == NULL || problems == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    all->request = request;
    all->shards = shards;
    all->latency = latency;
    request->context = all;
    /* One more than there are, so that it cannot end while posts still go out. */
    atomic_init(&all->left, hub->shard_count + 1);
    for (unsigned i = 0; i < hub->shard_count; i++) {
        shards[i].post.run = read_shard;
        shards[i].all = all;
        shards[i].problems = problems + (size_t)i * MIR_PROBLEMS_MAX;
        mir_shard_post(hub->shards[i], &shards[i].post);
    }
    drop(all);
}

/* --- the document --------------------------------------------------------------------------- */

static void put_key(mir_bytes *json, const char *key)
{
    uint8_t last = json->size == 0 ? '{' : json->data[json->size - 1];
    if (last != '{' && last != '[') mir_bytes_u8(json, ',');
    if (key != NULL) mir_bytes_printf(json, "\"%s\":", key);
}

static void open_value(mir_bytes *json, const char *key, char bracket)
{
    put_key(json, key);
    mir_bytes_u8(json, (uint8_t)bracket);
}

static void put_count(mir_bytes *json, const char *key, uint64_t value)
{
    put_key(json, key);
    mir_bytes_printf(json, "%" PRIu64, value);
}

static void put_decimal(mir_bytes *json, const char *key, double value)
{
    put_key(json, key);
    mir_bytes_printf(json, "%.3f", value);
}

/* Texts may be cut anywhere and have come from devices: what is not UTF-8 is shown as `?`. */
static void put_text(mir_bytes *json, const char *key, const char *text)
{
    put_key(json, key);
    mir_view view = mir_view_cstr(text);
    if (mir_utf8_valid(view)) {
        mir_json_put_string(json, view, MIR_JSON_ESCAPE_NEEDED);
        return;
    }
    char plain[MIR_ERROR_TEXT_BYTES_MAX];
    size_t used = 0;
    for (; text[used] != '\0' && used + 1 < sizeof plain; used++)
        plain[used] = (uint8_t)text[used] < 0x80 ? text[used] : '?';
    mir_json_put_string(json, mir_view_of(plain, used), MIR_JSON_ESCAPE_NEEDED);
}

static void put_problem(mir_bytes *json, const char *device, const char *kind, uint64_t count,
                        int64_t last_wall_ns, const char *text)
{
    char when[MIR_CLOCK_TEXT_BYTES];
    (void)mir_clock_rfc3339(last_wall_ns, when);
    open_value(json, NULL, '{');
    put_text(json, "device", device);
    put_text(json, "kind", kind);
    put_count(json, "count", count);
    put_text(json, "last", when);
    put_text(json, "text", text);
    mir_bytes_u8(json, '}');
}

static void put_shards(mir_bytes *json, const report *all, unsigned count, double uptime_s)
{
    open_value(json, "shards", '[');
    for (unsigned i = 0; i < count; i++) {
        const shard_report *one = &all->shards[i];
        double busy_s = (double)one->loop.busy_ns / MIR_NS_PER_S;
        open_value(json, NULL, '{');
        put_count(json, "id", i);
        put_count(json, "connections", one->stats.connections);
        put_count(json, "subscriptions", one->stats.subscriptions);
        put_count(json, "messages_in", one->stats.messages_in);
        put_count(json, "messages_out", one->stats.messages_out);
        put_count(json, "bytes_in", one->stats.bytes_in);
        put_count(json, "bytes_out", one->stats.bytes_out);
        put_count(json, "turns", one->loop.turns);
        put_count(json, "sleeps", one->loop.sleeps);
        put_decimal(json, "busy_seconds", busy_s);
        put_decimal(json, "busy_percent", uptime_s > 0 ? 100 * busy_s / uptime_s : 0);
        put_count(json, "route_hits", one->stats.route_hits);
        put_count(json, "route_misses", one->stats.route_misses);
        put_count(json, "parked", one->stats.parked);
        put_count(json, "twins", one->twins);
        put_count(json, "telemetry_accepted", one->telemetry_accepted);
        put_count(json, "telemetry_refused", one->telemetry_refused);
        mir_bytes_u8(json, '}');
    }
    mir_bytes_u8(json, ']');
}

static void put_sums(mir_bytes *json, const report *all, unsigned count)
{
    mir_shard_stats sum = {0};
    for (unsigned i = 0; i < count; i++) {
        const mir_shard_stats *one = &all->shards[i].stats;
        sum.connections += one->connections;
        sum.connections_total += one->connections_total;
        sum.subscriptions += one->subscriptions;
        sum.slow_consumers += one->slow_consumers;
        sum.stale += one->stale;
        sum.refused_connections += one->refused_connections;
        sum.auth_failures += one->auth_failures;
        sum.parse_errors += one->parse_errors;
        sum.permission_refusals += one->permission_refusals;
    }
    put_count(json, "connections", sum.connections);
    put_count(json, "connections_total", sum.connections_total);
    put_count(json, "subscriptions", sum.subscriptions);
    put_count(json, "slow_consumers", sum.slow_consumers);
    put_count(json, "stale", sum.stale);
    put_count(json, "refused_connections", sum.refused_connections);
    put_count(json, "auth_failures", sum.auth_failures);
    put_count(json, "parse_errors", sum.parse_errors);
    put_count(json, "permission_refusals", sum.permission_refusals);
}

static uint64_t active_twins(const report *all, unsigned count)
{
    uint64_t twins = 0;
    for (unsigned i = 0; i < count; i++) twins += all->shards[i].twins;
    return twins;
}

static void put_telemetry(mir_bytes *json, const report *all, unsigned count,
                          const mir_tlog_stats *log, const char *trouble)
{
    /* What the twins refused never came to the log; what the log refused is in its causes. */
    uint64_t refused_log = log->refused_full + log->refused_no_space + log->refused_io +
                           log->refused_too_large + log->refused_invalid + log->refused_no_memory;
    uint64_t refused = 0;
    for (unsigned i = 0; i < count; i++) refused += all->shards[i].telemetry_refused;
    open_value(json, "telemetry", '{');
    put_count(json, "rows_accepted", log->rows_accepted);
    put_count(json, "rows_refused", refused > refused_log ? refused : refused_log);
    put_count(json, "refused_full", log->refused_full);
    put_count(json, "refused_share", log->refused_share);
    put_count(json, "refused_no_space", log->refused_no_space);
    put_count(json, "refused_io", log->refused_io);
    put_count(json, "refused_too_large", log->refused_too_large);
    put_count(json, "refused_invalid", log->refused_invalid);
    put_count(json, "refused_no_memory", log->refused_no_memory);
    put_count(json, "series", log->series_open);
    put_count(json, "log_bytes", log->log_bytes);
    put_count(json, "log_files", log->log_files);
    put_count(json, "segments", log->segments);
    put_count(json, "segment_bytes", log->segment_bytes);
    put_count(json, "segment_rows", log->segment_rows);
    put_count(json, "seals", log->seals);
    put_count(json, "merges", log->merges);
    put_count(json, "segments_dropped", log->segments_dropped);
    put_count(json, "replayed_rows", log->replayed_rows);
    put_count(json, "torn_bytes_cut", log->torn_bytes_cut);
    put_count(json, "corrupt_frames", log->corrupt_frames);
    put_count(json, "corrupt_chunks", log->corrupt_chunks);
    put_decimal(json, "sync_lag_ms", (double)log->sync_lag_ns / MIR_NS_PER_MS);
    put_count(json, "write_errors", log->write_errors);
    put_count(json, "sync_errors", log->sync_errors);
    put_text(json, "trouble", trouble);
    mir_bytes_u8(json, '}');
}

static void put_state(mir_bytes *json, const mir_state_stats *state)
{
    open_value(json, "state", '{');
    put_count(json, "commits", state->commits);
    put_count(json, "commits_failed", state->commits_failed);
    put_count(json, "requests", state->requests);
    put_count(json, "requests_failed", state->requests_failed);
    put_count(json, "requests_in_flight", state->requests_in_flight);
    put_count(json, "group_last", state->group_last);
    put_count(json, "group_max", state->group_max);
    put_decimal(json, "commit_last_us", (double)state->commit_last_ns / MIR_NS_PER_US);
    put_decimal(json, "commit_max_us", (double)state->commit_max_ns / MIR_NS_PER_US);
    put_count(json, "map_used_bytes", state->map_bytes_used);
    put_count(json, "map_size_bytes", state->map_bytes);
    mir_bytes_u8(json, '}');
}

static uint64_t read_counter(const _Atomic uint64_t *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

static void put_http(mir_bytes *json, const mir_hub *hub)
{
    const mir_http_counters *http = &hub->http;
    if (hub->config->http.listen.host[0] == '\0') return;
    open_value(json, "http", '{');
    char port[16];
    (void)snprintf(port, sizeof port, "%" PRIu32,
                   atomic_load_explicit(&http->port, memory_order_relaxed));
    put_text(json, "port", port);
    put_count(json, "connections", read_counter(&http->connections));
    put_count(json, "requests", read_counter(&http->requests));
    put_count(json, "queries", read_counter(&http->queries));
    put_count(json, "queries_running", read_counter(&http->running));
    put_count(json, "errors", read_counter(&http->errors));
    put_count(json, "auth_failures", read_counter(&http->auth_failures));
    put_count(json, "clients_gone", read_counter(&http->gone));
    put_count(json, "timeouts", read_counter(&http->timeouts));
    put_count(json, "incomplete_answers", read_counter(&http->damaged));
    put_count(json, "rows_read", read_counter(&http->rows));
    put_count(json, "bytes_out", read_counter(&http->bytes_out));
    put_count(json, "waiting_bytes", read_counter(&http->answer_bytes));
    put_decimal(json, "busy_seconds", (double)read_counter(&http->busy_ns) / MIR_NS_PER_S);
    mir_bytes_u8(json, '}');
}

static void put_sink(mir_bytes *json, const mir_sink_stats *sink)
{
    if (sink->url[0] == '\0') return;
    open_value(json, "sink", '{');
    put_text(json, "url", sink->url);
    put_key(json, "failing");
    mir_bytes_text(json, sink->failing ? "true" : "false");
    put_count(json, "batches", sink->batches);
    put_count(json, "rows_sent", sink->rows_sent);
    put_count(json, "bytes_sent", sink->bytes_sent);
    put_count(json, "rows_withheld", sink->rows_withheld);
    put_count(json, "rows_refused", sink->rows_refused);
    put_count(json, "rows_dropped", sink->rows_dropped);
    put_count(json, "rows_damaged", sink->rows_damaged);
    put_count(json, "logs_lost", sink->logs_lost);
    put_count(json, "values_left_out", sink->values_left_out);
    put_count(json, "retries", sink->retries);
    put_count(json, "lag_rows", sink->lag_rows);
    put_decimal(json, "lag_seconds", (double)sink->lag_ns / MIR_NS_PER_S);
    put_count(json, "spool_bytes", sink->spool_bytes);
    put_count(json, "spool_bytes_max", sink->spool_bytes_max);
    if (sink->error_wall_ns != 0) {
        char when[MIR_CLOCK_TEXT_BYTES];
        (void)mir_clock_rfc3339(sink->error_wall_ns, when);
        put_text(json, "last_error", sink->error);
        put_text(json, "last_error_at", when);
    }
    mir_bytes_u8(json, '}');
}

static void put_sink_problems(mir_bytes *json, const mir_sink_stats *sink, int64_t wall_ns)
{
    char text[MIR_ERROR_TEXT_BYTES_MAX];
    if (sink->failing) {
        (void)snprintf(text, sizeof text,
                       "%s does not accept telemetry, %" PRIu64 " rows wait for it: %s", sink->url,
                       sink->lag_rows, sink->error);
        put_problem(json, "", "sink", sink->retries, sink->error_wall_ns, text);
    }
    if (sink->rows_dropped != 0)
        put_problem(json, "", "sink dropped", sink->rows_dropped, wall_ns,
                    "telemetry that waited for the sink was given up: see "
                    "telemetry.sink.spool_bytes_max");
    if (sink->rows_damaged != 0 || sink->logs_lost != 0)
        put_problem(json, "", "sink damaged", sink->rows_damaged + sink->logs_lost, wall_ns,
                    "telemetry that waited for the sink cannot be read: the log says why");
    if (sink->rows_refused != 0) {
        (void)snprintf(text, sizeof text, "%s refused rows for good: %s", sink->url, sink->error);
        put_problem(json, "", "sink refused", sink->rows_refused, wall_ns, text);
    }
}

/* What the process alone holds; file pages that it maps belong to the kernel. */
static uint64_t rss_anon_bytes(void)
{
    uint64_t kib = 0;
    FILE *file = fopen("/proc/self/status", "re");
    if (file == NULL) return 0;
    char line[256];
    while (fgets(line, sizeof line, file) != NULL)
        if (strncmp(line, "RssAnon:", 8) == 0) {
            kib = strtoull(line + 8, NULL, 10);
            break;
        }
    (void)fclose(file);
    return kib * 1024;
}

static void put_latency(mir_bytes *json, const mir_histogram *latency)
{
    static const struct {
        const char *key;
        double percentile;
    } points[] = {{"p50", 50}, {"p99", 99}, {"p999", 99.9}};
    open_value(json, "latency_us", '{');
    open_value(json, "request", '{');
    for (size_t i = 0; i < sizeof points / sizeof points[0]; i++) {
        int64_t ns = mir_histogram_percentile(latency, points[i].percentile);
        put_decimal(json, points[i].key, (double)ns / MIR_NS_PER_US);
    }
    put_decimal(json, "max", (double)mir_histogram_max(latency) / MIR_NS_PER_US);
    put_count(json, "count", mir_histogram_count(latency));
    mir_bytes_text(json, "}}");
}

static int by_recency(const void *a, const void *b)
{
    const mir_problem *first = *(const mir_problem *const *)a;
    const mir_problem *second = *(const mir_problem *const *)b;
    return (first->last_wall_ns < second->last_wall_ns) -
           (first->last_wall_ns > second->last_wall_ns);
}

static void put_server_problems(mir_bytes *json, const mir_hub *hub, const mir_tlog_stats *log,
                                const char *trouble, const mir_state_stats *state, int64_t wall_ns)
{
    char text[MIR_ERROR_TEXT_BYTES_MAX];
    if (trouble[0] != '\0') put_problem(json, "", "telemetry", 1, wall_ns, trouble);
    if (log->full_rows != 0) {
        (void)snprintf(text, sizeof text,
                       "%" PRIu64 " rows were refused in the last %.1f s, %" PRIu64
                       " of them from devices that held more of the log than their share: they "
                       "come faster than they are written to segments; raise "
                       "telemetry.log_bytes_max for peaks, use a faster disk or more processors, "
                       "or send less",
                       log->full_rows, (double)log->full_ns / MIR_NS_PER_S, log->full_share);
        put_problem(json, "", "log full", log->full_rows, wall_ns, text);
    }
    if (log->corrupt_chunks != 0 || log->corrupt_frames != 0 || log->files_missing != 0) {
        char missing[96] = "";
        if (log->files_missing != 0)
            (void)snprintf(missing, sizeof missing, " (%" PRIu32 " file%s missing or set aside)",
                           log->files_missing, log->files_missing == 1 ? " is" : "s are");
        (void)snprintf(text, sizeof text,
                       "stored telemetry is damaged%s: answers leave that out, and say so; "
                       "`mir storage verify` says what it is, `mir storage repair` what to do",
                       missing);
        const uint64_t met = log->corrupt_chunks + log->corrupt_frames;
        put_problem(json, "", "telemetry damaged", met != 0 ? met : 1, wall_ns, text);
    }
    if (log->clock.ahead_ns != 0) {
        const double day_ns = 86400.0 * MIR_NS_PER_S;
        (void)snprintf(
            text, sizeof text,
            "the clock is %.1f days ahead of the time that is known, and has been for "
            "%.1f h: retention of telemetry goes by that meanwhile; set the clock or, if "
            "it is right, start once with telemetry.retention.clock_wait=0",
            (double)log->clock.ahead_ns / day_ns,
            (double)log->clock.apart_ns / (3600.0 * MIR_NS_PER_S));
        put_problem(json, "", "clock ahead", 1, wall_ns, text);
    }
    int64_t slow_ns = SLOW_SYNC_FACTOR * hub->config->telemetry.sync_ns;
    if (slow_ns < SLOW_DISK_NS) slow_ns = SLOW_DISK_NS;
    if (log->sync_lag_ns > slow_ns) {
        (void)snprintf(text, sizeof text,
                       "the oldest row that is not on the disk has waited for %.1f s: the disk is "
                       "too slow for what is written to it",
                       (double)log->sync_lag_ns / MIR_NS_PER_S);
        put_problem(json, "", "slow sync", 1, wall_ns, text);
    }
    if (state->map_bytes != 0 &&
        state->map_bytes_used > state->map_bytes / 100 * MIR_STATE_NEARLY_FULL_PERCENT) {
        (void)snprintf(text, sizeof text,
                       "the state store uses %" PRIu64 " of %" PRIu64
                       " bytes: raise state.map_size, or delete events or devices",
                       state->map_bytes_used, state->map_bytes);
        put_problem(json, "", "store nearly full", 1, wall_ns, text);
    }
    if (state->commits_failed != 0)
        put_problem(json, "", "commits failed", state->commits_failed, wall_ns,
                    "the state store could not write: the log says why");
    uint64_t events_lost = atomic_load_explicit(&hub->events_lost, memory_order_relaxed);
    if (events_lost != 0)
        put_problem(json, "", "events lost", events_lost, wall_ns,
                    "events were published and are not stored: the log says why");
    if (state->commit_last_ns > SLOW_DISK_NS) {
        (void)snprintf(text, sizeof text, "the last commit of the state store took %.1f s",
                       (double)state->commit_last_ns / MIR_NS_PER_S);
        put_problem(json, "", "slow sync", 1, wall_ns, text);
    }
}

static void put_device_problems(mir_bytes *json, const report *all, unsigned count,
                                mir_arena *arena)
{
    size_t total = 0, used = 0;
    for (unsigned i = 0; i < count; i++) total += all->shards[i].problem_count;
    const mir_problem **sorted = mir_arena_alloc(arena, (total + 1) * sizeof *sorted);
    if (sorted == NULL) {
        json->failed = true;
        return;
    }
    for (unsigned i = 0; i < count; i++)
        for (unsigned p = 0; p < all->shards[i].problem_count; p++)
            sorted[used++] = &all->shards[i].problems[p];
    qsort(sorted, used, sizeof *sorted, by_recency);
    if (used > REPORTED_PROBLEMS_MAX) used = REPORTED_PROBLEMS_MAX;
    for (size_t i = 0; i < used; i++)
        put_problem(json, sorted[i]->device, sorted[i]->kind, sorted[i]->count,
                    sorted[i]->last_wall_ns, sorted[i]->text);
}

static void write_report(mir_request *request)
{
    const mir_hub *hub = request->hub;
    const report *all = request->context;
    unsigned count = hub->shard_count;
    mir_tlog_stats log = {0};
    mir_error trouble = {{0}};
    mir_state_stats state = {0};
    mir_sink_stats sink = {0};
    if (hub->sink != NULL) mir_sink_stats_read(hub->sink, &sink);
    mir_tlog_stats_read(hub->tlog, &log, &trouble);
    mir_state_stats_get(hub->state, &state);
    /* The histograms may be read while their shards write them. */
    for (unsigned i = 0; i < count; i++)
        mir_histogram_merge(all->latency, &mir_actors_of(hub->shards[i])->request_latency);
    double uptime_s = (double)(mir_clock_mono_ns() - hub->started_mono_ns) / MIR_NS_PER_S;

    mir_bytes json = {0};
    mir_bytes_u8(&json, '{');
    put_text(&json, "version", MIR_VERSION);
    put_text(&json, "server_id", request->shard->gateway->server_id);
    put_text(&json, "instance", hub->instance);
    put_decimal(&json, "uptime_seconds", uptime_s);
    put_text(&json, "io_backend", hub->io_name);
    put_text(&json, "nats_level", MIR_NATS_LEVEL);
    put_shards(&json, all, count, uptime_s);
    put_sums(&json, all, count);
    open_value(&json, "devices", '{');
    put_count(&json, "registered", state.devices);
    put_count(&json, "online", state.online);
    put_count(&json, "schemas", state.schemas);
    put_count(&json, "active_twins", active_twins(all, count));
    mir_bytes_u8(&json, '}');
    put_telemetry(&json, all, count, &log, trouble.text);
    put_state(&json, &state);
    put_http(&json, hub);
    put_sink(&json, &sink);
    open_value(&json, "memory", '{');
    put_count(&json, "rss_anon_bytes", rss_anon_bytes());
    mir_bytes_u8(&json, '}');
    put_latency(&json, all->latency);
    open_value(&json, "problems", '[');
    put_server_problems(&json, hub, &log, trouble.text, &state, mir_clock_wall_ns());
    put_sink_problems(&json, &sink, mir_clock_wall_ns());
    put_device_problems(&json, all, count, &request->arena);
    mir_bytes_text(&json, "]}");
    if (mir_bytes_ok(&json))
        mir_request_answer_text(request, mir_bytes_as_view(&json));
    else
        mir_request_fail(request, "the server is out of memory");
    mir_bytes_free(&json);
    mir_request_finish(request);
}
