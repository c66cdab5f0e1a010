/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sink.h"

#include <inttypes.h>
#include <math.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>
#include <sys/statvfs.h>
#include <time.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_hash.h"
#include "mir_line.h"
#include "mir_log.h"
#include "mir_map.h"
#include "mir_sink_delivery.h"
#include "mir_sink_http.h"
#include "mir_thread.h"
#include "mir_tlog_spool.h"

#define LOOK_NS       (1 * MIR_NS_PER_S)  /* how often the spool's size is looked at */
#define SAY_NS        (60 * MIR_NS_PER_S) /* how often the same trouble is logged */
#define READ_PAUSE_NS (1 * MIR_NS_PER_S)

#define TIME_SENT "time_" /* the name of a field `time`, there */

enum { WITHHELD_AT_ONCE = 100000 }; /* rows, before it looks up */

/* What stands behind the measurement in a device's lines. */
typedef struct tags {
    mir_map_node node;
    uint64_t changes; /* of the device, when they were made */
    uint64_t fitting; /* a bit for each rule that fits where the device is */
    mir_view id;
    mir_view text;
} tags;

struct mir_sink {
    const mir_config *config;
    mir_tlog_spool *spool;
    mir_tlog *tlog;
    mir_state *state;
    mir_sink_http *http;
    mir_sink_dropped_fn dropped;
    void *dropped_context;
    pthread_t thread;
    bool started;
    atomic_bool stop;

    /* The thread's. */
    mir_sink_lines lines;
    mir_bytes one_line; /* a text without its line ends */
    mir_map devices;
    uint32_t *last; /* cell of each column, of the row at hand */
    uint64_t random;
    uint64_t left_out;
    uint64_t withheld;
    uint32_t withheld_now; /* since the last batch */
    int64_t looked_ns;
    int64_t said_failed_ns;
    int64_t said_refused_ns;
    int64_t said_unwritten_ns;
    uint64_t refused_unsaid;
    bool told;      /* that it fails */
    bool said_time; /* that a field goes by another name */
    bool takes;     /* mir_sink_port's, as is the next one */
    mir_sink_pace pace;

    pthread_mutex_t mutex;
    pthread_cond_t wake;
    mir_sink_stats stats;
    uint64_t rows_before;  /* that waited when it began */
    int64_t began_ns;      /* if none did: since when none waits; wall time */
    uint64_t rows_settled; /* of these and of those committed since */
};

/* ---- Opening ---- */

static void url_show(const char *url, char *text, size_t size)
{
    const char *scheme = strstr(url, "://");
    const char *host = scheme == NULL ? url : scheme + 3;
    const size_t name = strcspn(host, "/?#");
    for (size_t i = 0; i < name; i++)
        if (host[i] == '@') return url_show(host + i + 1, text, size);
    (void)snprintf(text, size, "%.*s", (int)strcspn(url, "?#"), url);
}

mir_status mir_sink_open(const mir_config *config, mir_tlog_options *options, mir_sink **sink,
                         mir_error *error)
{
    char path[4200];
    *sink = NULL;
    (void)snprintf(path, sizeof path, "%s/sink", config->data);
    if (config->telemetry.sink.url == NULL || config->telemetry.sink.url[0] == '\0')
        return mir_tlog_spool_remove(path, NULL, error);
    const char *url = config->telemetry.sink.url;
    if (strncmp(url, "http://", 7) != 0 && strncmp(url, "https://", 8) != 0)
        return mir_error_set(error, MIR_E_INVALID,
                             "telemetry.sink.url: expected a URL such as "
                             "http://127.0.0.1:8428/write");
    if (config->telemetry.sink.token != NULL && config->telemetry.sink.user != NULL)
        return mir_error_set(error, MIR_E_INVALID,
                             "telemetry.sink: either a token or a user, not both");
    mir_sink *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    made->config = config;
    (void)pthread_mutex_init(&made->mutex, NULL);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&made->wake, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    const mir_sink_http_options http = {.url = url,
                                        .user = config->telemetry.sink.user,
                                        .password = config->telemetry.sink.password,
                                        .token = config->telemetry.sink.token,
                                        .ca_file = config->telemetry.sink.ca_file,
                                        .gzip = config->telemetry.sink.compression ==
                                                MIR_CONFIG_COMPRESSION_GZIP,
                                        .timeout_ns = config->telemetry.sink.timeout_ns,
                                        .stop = &made->stop};
    mir_status status = mir_sink_http_create(&http, &made->http, error);
    if (status == MIR_OK) {
        made->last = calloc(MIR_TLOG_COLUMNS_MAX, sizeof *made->last);
        if (made->last == NULL) status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    if (status == MIR_OK) status = mir_tlog_spool_open(path, NULL, &made->spool, error);
    if (status != MIR_OK) {
        mir_sink_destroy(made);
        return status;
    }
    if (getrandom(&made->random, sizeof made->random, 0) < 0) made->random = (uintptr_t)made;
    url_show(url, made->stats.url, sizeof made->stats.url);
    made->stats.spool_bytes_max = (uint64_t)config->telemetry.sink.spool_bytes_max;
    mir_tlog_spool_options(made->spool, options);
    *sink = made;
    return MIR_OK;
}

/* ---- Tags ---- */

static void tags_forget(mir_sink *sink)
{
    uint32_t from = 0;
    mir_map_node *node;
    while ((node = mir_map_any(&sink->devices, &from)) != NULL) {
        tags *entry = MIR_CONTAINER(node, tags, node);
        mir_map_remove(&sink->devices, node);
        free(entry);
    }
}

/* A tag that has no form is left out: the row is worth more. */
static void tag_put(mir_sink *sink, const char *key, const char *value, mir_bytes *out)
{
    if (value == NULL) return;
    if (mir_line_tag(mir_view_cstr(key), mir_view_cstr(value), out, NULL) != MIR_OK)
        sink->left_out++;
}

/* Which rules fit a namespace; null: of a device that is there no more. */
static uint64_t rules_fitting(const mir_sink *sink, const char *name_space)
{
    _Static_assert(MIR_CONFIG_RULES_MAX <= 64, "a bit for each rule");
    uint64_t fitting = 0;
    for (size_t i = 0; i < sink->config->telemetry.sink.rule_count; i++) {
        const char *pattern = sink->config->telemetry.sink.rules[i].name_space;
        if (pattern == NULL || (name_space != NULL && mir_pattern_match(mir_view_cstr(pattern),
                                                                        mir_view_cstr(name_space))))
            fitting |= UINT64_C(1) << i;
    }
    return fitting;
}

static bool is_wanted(const mir_sink *sink, uint64_t fitting, mir_view message)
{
    const mir_config_forward *rules = sink->config->telemetry.sink.rules;
    for (size_t i = 0; i < sink->config->telemetry.sink.rule_count; i++) {
        if ((fitting >> i & 1) == 0) continue;
        if (rules[i].message == NULL || mir_pattern_match(mir_view_cstr(rules[i].message), message))
            return !rules[i].withheld;
    }
    return sink->config->telemetry.sink.rule_count == 0;
}

static mir_status tags_write(mir_sink *sink, mir_view id, mir_bytes *out, uint64_t *fitting)
{
    mir_arena arena = {0};
    MirStore__V1__DeviceRecord *record = NULL;
    const mir_status status = mir_state_get(sink->state, id, &arena, &record, NULL);
    if (mir_line_tag(mir_view_cstr("__id"), id, out, NULL) != MIR_OK) sink->left_out++;
    if (status == MIR_OK) {
        tag_put(sink, "__name", record->name, out);
        tag_put(sink, "__namespace", record->namespace_, out);
        for (size_t i = 0; i < record->n_labels; i++) {
            const char *key = record->labels[i]->key;
            /* These three are not the user's to give. */
            if (strncmp(key, "__", 2) == 0) continue;
            /* For `time` InfluxDB refuses the row. */
            if (strcmp(key, "time") == 0)
                sink->left_out++;
            else
                tag_put(sink, key, record->labels[i]->value, out);
        }
    }
    *fitting = rules_fitting(sink, status == MIR_OK ? record->namespace_ : NULL);
    mir_arena_free(&arena);
    /* A device that is not there any more is its id. */
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

static mir_status tags_of(mir_sink *sink, mir_view id, const tags **found)
{
    const uint64_t hash = mir_hash_view(id);
    const uint64_t changes = mir_state_changes_of_id(sink->state, id);
    mir_map_node *node = mir_map_first(&sink->devices, hash);
    for (; node != NULL; node = mir_map_next(node)) {
        tags *known = MIR_CONTAINER(node, tags, node);
        if (!mir_view_eq(known->id, id)) continue;
        if (known->changes == changes) {
            *found = known;
            return MIR_OK;
        }
        mir_map_remove(&sink->devices, node);
        free(known);
        break;
    }
    mir_bytes written = {0};
    uint64_t fitting = 0;
    mir_status status = tags_write(sink, id, &written, &fitting);
    if (status == MIR_OK && !mir_bytes_ok(&written)) status = MIR_E_NO_MEMORY;
    tags *made = NULL;
    if (status == MIR_OK) {
        if (sink->devices.count >= MIR_SINK_DEVICES_MAX) tags_forget(sink);
        made = malloc(sizeof *made + id.size + written.size);
        if (made == NULL) status = MIR_E_NO_MEMORY;
    }
    if (status == MIR_OK) {
        uint8_t *room = (uint8_t *)(made + 1);
        memcpy(room, id.data, id.size);
        if (written.size > 0) memcpy(room + id.size, written.data, written.size);
        made->changes = changes;
        made->fitting = fitting;
        made->id = mir_view_of(room, id.size);
        made->text = mir_view_of(room + id.size, written.size);
        mir_map_add(&sink->devices, &made->node, hash);
        *found = made;
    }
    mir_bytes_free(&written);
    return status;
}

/* ---- Lines ---- */

/* VictoriaMetrics ends a line at any line end, also within a text: what is behind it would be a line
 * that the device has made up, under the name of any other. False: no memory. */
static bool one_line(mir_sink *sink, mir_view text, mir_view *made)
{
    mir_bytes *out = &sink->one_line;
    *made = text;
    if (text.size == 0 ||
        (memchr(text.data, '\n', text.size) == NULL && memchr(text.data, '\r', text.size) == NULL))
        return true;
    out->size = 0;
    out->failed = false; /* of another text */
    for (size_t i = 0; i < text.size; i++) {
        const uint8_t c = text.data[i];
        if (c == '\n' || c == '\r')
            mir_bytes_text(out, c == '\n' ? "\\n" : "\\r");
        else
            mir_bytes_u8(out, c);
    }
    *made = mir_bytes_as_view(out);
    return mir_bytes_ok(out);
}

static const mir_column *column_of(const mir_tlog_log_row *row, uint32_t at)
{
    const mir_tlog_shape *shape = row->series->shape;
    return at < shape->column_count ? &shape->columns[at]
                                    : &row->series->extra_table[at - shape->column_count]->column;
}

static bool is_named(const mir_column *column, const char *name)
{
    return mir_view_eq_cstr(mir_view_of(column->name, column->name_size), name);
}

/* InfluxDB leaves out a field `time` without a word, or the row that has no other. A row that has a
 * field of the other name as well loses one of them: it is counted. False: this one. */
static bool name_sent(mir_sink *sink, const mir_tlog_log_row *row, const mir_column *column,
                      mir_view *name)
{
    *name = mir_view_of(column->name, column->name_size);
    if (!is_named(column, "time")) return true;
    for (uint32_t i = 0; i < row->cell_count; i++)
        if (row->cells[i].column < MIR_TLOG_COLUMNS_MAX &&
            is_named(column_of(row, row->cells[i].column), TIME_SENT))
            return false;
    *name = mir_view_cstr(TIME_SENT);
    if (!sink->said_time) {
        sink->said_time = true;
        mir_log_warn("telemetry sink: the field time of %.*s is sent as " TIME_SENT
                     ": InfluxDB would leave it out",
                     MIR_VIEW_ARGS(row->series->shape->measurement));
    }
    return true;
}

static bool field_put(mir_sink *sink, const mir_tlog_log_row *row, const mir_tlog_cell *cell,
                      bool first, mir_bytes *out)
{
    const mir_column *column = column_of(row, cell->column);
    mir_cell value = {.u64 = 0};
    mir_view name;
    bool has_form = name_sent(sink, row, column, &name);
    switch (column->type) {
    case MIR_COLUMN_STRING:
        has_form = one_line(sink, cell->value.text, &value.string) && has_form;
        break;
    case MIR_COLUMN_BOOL: value.boolean = cell->value.bits != 0; break;
    case MIR_COLUMN_I64: value.i64 = (int64_t)cell->value.bits; break;
    case MIR_COLUMN_U64: value.u64 = cell->value.bits; break;
    case MIR_COLUMN_F64:
        memcpy(&value.f64, &cell->value.bits, sizeof value.f64);
        has_form = has_form && isfinite(value.f64);
        break;
    }
    if (has_form && mir_line_field(name, column->type, &value, first, out, NULL) == MIR_OK)
        return true;
    sink->left_out++;
    return false;
}

static mir_status row_take(void *context, const mir_tlog_log_row *row)
{
    mir_sink *sink = context;
    mir_sink_lines *lines = &sink->lines;
    const mir_config *config = sink->config;
    if (lines->count >= (uint64_t)config->telemetry.sink.batch_lines ||
        lines->text.size >= (uint64_t)config->telemetry.sink.batch_bytes ||
        sink->withheld_now >= WITHHELD_AT_ONCE)
        return MIR_E_FULL;
    const mir_tlog_mem_series *series = row->series;
    const mir_tlog_shape *shape = series->shape;
    mir_bytes *out = &lines->text;
    const size_t start = out->size;
    const tags *about;
    /* Not the spool's fault, which would give up a log after some. */
    if (tags_of(sink, series->device, &about) != MIR_OK) return MIR_E_AGAIN;
    if (!is_wanted(sink, about->fitting, shape->measurement)) {
        sink->withheld++;
        sink->withheld_now++;
        return MIR_OK;
    }
    if (mir_line_measurement(shape->measurement, out, NULL) != MIR_OK) {
        sink->left_out += row->cell_count;
        return MIR_OK;
    }
    mir_bytes_view(out, about->text);
    for (uint32_t i = 0; i < row->cell_count; i++)
        if (row->cells[i].column < MIR_TLOG_COLUMNS_MAX) sink->last[row->cells[i].column] = i;
    bool first = true;
    for (uint32_t i = 0; i < row->cell_count; i++) {
        const mir_tlog_cell *cell = &row->cells[i];
        const uint32_t at = cell->column;
        if (at >= MIR_TLOG_COLUMNS_MAX || sink->last[at] != i) continue;
        if (field_put(sink, row, cell, first, out)) first = false;
    }
    if (first && mir_bytes_ok(out)) {
        out->size = start;
        return MIR_OK;
    }
    mir_line_end(row->time_ns, out);
    return mir_sink_lines_add(lines);
}

/* ---- The thread ---- */

static bool stopping(const mir_sink *sink)
{
    return atomic_load_explicit(&sink->stop, memory_order_relaxed);
}

static void error_note(mir_sink *sink, bool failing, const char *text)
{
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.failing = failing;
    sink->stats.error_wall_ns = mir_clock_wall_ns();
    (void)snprintf(sink->stats.error, sizeof sink->stats.error, "%s", text);
    (void)pthread_mutex_unlock(&sink->mutex);
}

/* Bounds the spool, about once a second. */
static void spool_look(mir_sink *sink)
{
    const int64_t now_ns = mir_clock_mono_ns();
    if (sink->looked_ns != 0 && now_ns - sink->looked_ns < LOOK_NS) return;
    sink->looked_ns = now_ns;
    uint64_t rows = mir_tlog_spool_trim(sink->spool, sink->stats.spool_bytes_max);
    const char *why = "telemetry.sink.spool_bytes_max is reached";
    struct statvfs disk;
    if (rows == 0 && statvfs(sink->config->data, &disk) == 0) {
        const uint64_t size = (uint64_t)disk.f_blocks * disk.f_frsize;
        const uint64_t left = (uint64_t)disk.f_bavail * disk.f_frsize;
        uint64_t reserve = (uint64_t)sink->config->telemetry.disk_reserve_bytes;
        if (reserve > size / 16) reserve = size / 16;
        mir_tlog_spool_stats spool;
        mir_tlog_spool_stats_read(sink->spool, &spool);
        if (left < reserve + reserve / 4 && spool.bytes > 0) {
            rows = mir_tlog_spool_trim(sink->spool, spool.bytes - 1);
            why = "the disk is nearly full";
        }
    }
    if (rows == 0) return;
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.rows_dropped += rows;
    sink->rows_settled += rows;
    (void)pthread_mutex_unlock(&sink->mutex);
    mir_log_error("telemetry sink: %s: %" PRIu64 " of the oldest rows will not be sent", why, rows);
    sink->dropped(sink->dropped_context, rows);
}

static bool wait_for(void *context, int64_t ns)
{
    mir_sink *sink = context;
    const int64_t until_ns = mir_clock_mono_ns() + ns;
    for (;;) {
        spool_look(sink);
        const int64_t now_ns = mir_clock_mono_ns();
        if (stopping(sink) || now_ns >= until_ns) return !stopping(sink);
        const int64_t next_ns = until_ns < now_ns + LOOK_NS ? until_ns : now_ns + LOOK_NS;
        const struct timespec at = {.tv_sec = (time_t)(next_ns / MIR_NS_PER_S),
                                    .tv_nsec = (long)(next_ns % MIR_NS_PER_S)};
        (void)pthread_mutex_lock(&sink->mutex);
        if (!stopping(sink)) (void)pthread_cond_timedwait(&sink->wake, &sink->mutex, &at);
        (void)pthread_mutex_unlock(&sink->mutex);
    }
}

static void post(void *context, mir_view body, mir_sink_answer *answer)
{
    mir_sink *sink = context;
    mir_sink_http_post(sink->http, body, answer);
}

static uint64_t random_next(void *context)
{
    mir_sink *sink = context;
    sink->random = sink->random * UINT64_C(6364136223846793005) + 1442695040888963407u;
    return sink->random >> 16;
}

static void answer_text(const mir_sink_answer *answer, char *text, size_t size)
{
    if (answer->http_status == 0)
        (void)snprintf(text, size, "%s", answer->text);
    else
        (void)snprintf(text, size, "HTTP %ld%s%s", answer->http_status,
                       answer->text[0] == '\0' ? "" : ": ", answer->text);
}

static void failed(void *context, const mir_sink_answer *answer, int64_t wait_ns)
{
    mir_sink *sink = context;
    if (stopping(sink)) return;
    char text[MIR_SINK_ERROR_BYTES_MAX];
    answer_text(answer, text, sizeof text);
    error_note(sink, true, text);
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.retries++;
    (void)pthread_mutex_unlock(&sink->mutex);
    const int64_t now_ns = mir_clock_mono_ns();
    if (sink->told && now_ns - sink->said_failed_ns < SAY_NS) return;
    sink->told = true;
    sink->said_failed_ns = now_ns;
    mir_log_warn("telemetry sink: %s does not accept rows (%s); tried again in %.1f s, and kept "
                 "meanwhile",
                 sink->stats.url, text, (double)wait_ns / MIR_NS_PER_S);
}

static void works(mir_sink *sink)
{
    if (!sink->told) return;
    sink->told = false;
    mir_log_info("telemetry sink: %s accepts rows again", sink->stats.url);
}

static void accepted(void *context, uint32_t lines, size_t bytes)
{
    mir_sink *sink = context;
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.failing = false;
    sink->stats.batches++;
    sink->stats.rows_sent += lines;
    sink->stats.bytes_sent += bytes;
    (void)pthread_mutex_unlock(&sink->mutex);
    works(sink);
    spool_look(sink); /* the batch may go out in many slow pieces */
}

static void refused(void *context, uint64_t lines, mir_view line, const mir_sink_answer *answer)
{
    mir_sink *sink = context;
    char text[MIR_SINK_ERROR_BYTES_MAX];
    answer_text(answer, text, sizeof text);
    error_note(sink, false, text);
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.rows_refused += lines;
    (void)pthread_mutex_unlock(&sink->mutex);
    works(sink);
    sink->refused_unsaid += lines;
    const int64_t now_ns = mir_clock_mono_ns();
    if (sink->said_refused_ns != 0 && now_ns - sink->said_refused_ns < SAY_NS) return;
    sink->said_refused_ns = now_ns;
    char shown[160];
    size_t used = 0;
    for (; used < line.size && used + 1 < sizeof shown && line.data[used] != '\n'; used++)
        shown[used] =
            line.data[used] < ' ' || line.data[used] >= 0x7f ? '?' : (char)line.data[used];
    shown[used] = '\0';
    mir_log_warn("telemetry sink: %s refused %" PRIu64 " rows, which are passed over: %s; of or "
                 "beside: %s",
                 sink->stats.url, sink->refused_unsaid, text, shown);
    sink->refused_unsaid = 0;
}

static uint64_t rows_committed(mir_sink *sink)
{
    mir_tlog_stats stats;
    mir_tlog_stats_read(sink->tlog, &stats, NULL);
    return stats.rows_accepted;
}

/* A batch is done with. `over`: with it all that had been committed when the round began. */
static void batch_settle(mir_sink *sink, uint64_t rows_read, bool over, uint64_t committed)
{
    mir_error error;
    if (mir_tlog_spool_accept(sink->spool, &error) != MIR_OK) {
        const int64_t now_ns = mir_clock_mono_ns();
        error_note(sink, false, error.text);
        if (sink->said_unwritten_ns == 0 || now_ns - sink->said_unwritten_ns >= SAY_NS) {
            sink->said_unwritten_ns = now_ns;
            mir_log_error("telemetry sink: after a crash rows will be sent again: %s", error.text);
        }
    }
    (void)pthread_mutex_lock(&sink->mutex);
    sink->stats.values_left_out = sink->left_out;
    sink->stats.rows_withheld = sink->withheld;
    if (over) {
        sink->rows_settled = sink->rows_before + committed;
    } else {
        sink->rows_settled += rows_read;
    }
    (void)pthread_mutex_unlock(&sink->mutex);
    mir_sink_lines_clear(&sink->lines);
    sink->withheld_now = 0;
}

static void *sink_main(void *context)
{
    mir_sink *sink = context;
    mir_thread_give_way(MIR_THREAD_NICE_LAST);
    const mir_sink_port port = {.context = sink,
                                .post = post,
                                .wait = wait_for,
                                .random = random_next,
                                .failed = failed,
                                .accepted = accepted,
                                .refused = refused,
                                .takes = &sink->takes,
                                .pace = &sink->pace};
    const int64_t began_ns = mir_clock_wall_ns();
    const uint64_t before = mir_tlog_spool_count(sink->spool, &sink->stop);
    (void)pthread_mutex_lock(&sink->mutex);
    sink->rows_before = before;
    if (before == 0) sink->began_ns = began_ns;
    (void)pthread_mutex_unlock(&sink->mutex);
    uint64_t committed = rows_committed(sink);
    mir_tlog_spool_stats spool;
    while (!stopping(sink)) {
        mir_error error = {{0}};
        mir_tlog_spool_stats_read(sink->spool, &spool);
        const uint64_t read_before = spool.rows_read;
        const mir_status status = mir_tlog_spool_read(sink->spool, row_take, sink, &error);
        mir_tlog_spool_stats_read(sink->spool, &spool);
        if (mir_sink_deliver(&sink->lines, &port) != MIR_OK) break;
        batch_settle(sink, spool.rows_read - read_before, status == MIR_OK, committed);
        spool_look(sink);
        if (status == MIR_OK) {
            (void)wait_for(sink, sink->config->telemetry.sink.linger_ns);
            committed = rows_committed(sink);
        } else if (status != MIR_E_FULL) {
            if (error.text[0] == '\0')
                (void)mir_error_set(&error, status, "%s", mir_status_name(status));
            error_note(sink, true, error.text);
            mir_log_error("telemetry sink: the spool cannot be read: %s", error.text);
            (void)wait_for(sink, READ_PAUSE_NS);
        }
    }
    return NULL;
}

void mir_sink_attach(mir_sink *sink, mir_tlog *tlog, mir_state *state)
{
    mir_tlog_spool_attach(sink->spool, tlog);
    sink->tlog = tlog;
    sink->state = state;
}

mir_status mir_sink_start(mir_sink *sink, mir_sink_dropped_fn dropped, void *context,
                          mir_error *error)
{
    sink->dropped = dropped;
    sink->dropped_context = context;
    const int rc = pthread_create(&sink->thread, NULL, sink_main, sink);
    if (rc != 0) return mir_error_os(error, rc, "the telemetry sink cannot start");
    (void)pthread_setname_np(sink->thread, "mir-sink");
    sink->started = true;
    mir_log_info("telemetry is forwarded to %s", sink->stats.url);
    return MIR_OK;
}

void mir_sink_stop(mir_sink *sink)
{
    if (sink == NULL || !sink->started) return;
    (void)pthread_mutex_lock(&sink->mutex);
    atomic_store_explicit(&sink->stop, true, memory_order_relaxed);
    (void)pthread_cond_signal(&sink->wake);
    (void)pthread_mutex_unlock(&sink->mutex);
    (void)pthread_join(sink->thread, NULL);
    sink->started = false;
}

void mir_sink_destroy(mir_sink *sink)
{
    if (sink == NULL) return;
    mir_sink_stop(sink);
    mir_tlog_spool_close(sink->spool);
    mir_sink_http_destroy(sink->http);
    mir_sink_lines_fini(&sink->lines);
    mir_bytes_free(&sink->one_line);
    tags_forget(sink);
    mir_map_free(&sink->devices);
    free(sink->last);
    (void)pthread_cond_destroy(&sink->wake);
    (void)pthread_mutex_destroy(&sink->mutex);
    free(sink);
}

void mir_sink_stats_read(mir_sink *sink, mir_sink_stats *stats)
{
    const uint64_t committed = rows_committed(sink);
    const int64_t now_ns = mir_clock_wall_ns();
    mir_tlog_spool_stats spool;
    mir_tlog_spool_stats_read(sink->spool, &spool);
    (void)pthread_mutex_lock(&sink->mutex);
    *stats = sink->stats;
    const uint64_t all = sink->rows_before + committed;
    if (spool.through_ns < sink->began_ns) spool.through_ns = sink->began_ns;
    stats->lag_rows = all > sink->rows_settled ? all - sink->rows_settled : 0;
    (void)pthread_mutex_unlock(&sink->mutex);
    stats->rows_damaged = spool.rows_lost;
    stats->logs_lost = spool.logs_lost;
    stats->spool_bytes = spool.bytes;
    if (stats->lag_rows > 0 && spool.through_ns > 0 && now_ns > spool.through_ns)
        stats->lag_ns = now_ns - spool.through_ns;
}
