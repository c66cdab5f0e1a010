/* SPDX-License-Identifier: Apache-2.0 */
/* Events of modules: how many are stored in a second, and how long lists of many take.
 *
 * Publishers keep ahead of the store by a bounded number of events, which the server holds for them:
 * what would come faster is lost by its promise, and a lost event fails the bench. */
#include "mir_bench_api.h"
#include "mir_bench_exchange.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <math.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mir_api/v1/event.pb-c.h"

enum {
    PUBLISHERS = 4,
    REASONS = 20,
    DEVICES_MAX = 10000,
    EVENTS_EACH = 100, /* of a device, at least */
    WINDOW = 49152,    /* published and not yet listable */
    PER_WRITE = 64,
    EVENT_BYTES_MAX = 512,
    LIST_ROUNDS = 21,
    LIST_EVENTS = 100,
    INDEX_BLOCK = 16384,
};

static const char list_subject[] = "client.bench.evt.v1alpha.list";
static const char retention_subject[] = "client.bench.evt.v1alpha.retention";
static const int64_t index_timeout_ns = 120 * MIR_NS_PER_S;
static const int64_t stall_timeout_ns = 20 * MIR_NS_PER_S;

typedef struct filling {
    unsigned device_count;
    uint64_t event_count;
    uint64_t before; /* sequence of the newest event that is not ours */
    _Atomic uint64_t claimed;
    _Atomic uint64_t stored;
    _Atomic bool failed;
} filling;

typedef struct publisher {
    filling *all;
    mir_bench_conn conn;
    pthread_t thread;
    mir_error error;
    mir_status status;
} publisher;

static void nap(int64_t ns)
{
    struct timespec wait = {.tv_nsec = ns};
    (void)nanosleep(&wait, NULL);
}

/* --- requests ------------------------------------------------------------------------------- */

static mir_status list(mir_bench_conn *conn, MirApi__V1__EventTarget *target,
                       MirApi__V1__ListEventsResponse **response, int64_t *wall_ns,
                       mir_error *error)
{
    MirApi__V1__ListEventsRequest request = MIR_API__V1__LIST_EVENTS_REQUEST__INIT;
    mir_view reply;
    request.target = target;
    int64_t from_ns = mir_clock_mono_ns();
    mir_status status = mir_bench_api_ask(conn, list_subject, &request.base, &reply, error);
    *wall_ns = mir_clock_mono_ns() - from_ns;
    if (status != MIR_OK) return status;
    MirApi__V1__ListEventsResponse *got =
        mir_api__v1__list_events_response__unpack(NULL, reply.size, reply.data);
    if (got == NULL) return mir_bench_api_refused(list_subject, NULL, error);
    if (got->response_case != MIR_API__V1__LIST_EVENTS_RESPONSE__RESPONSE_OK) {
        bool has_text = got->response_case == MIR_API__V1__LIST_EVENTS_RESPONSE__RESPONSE_ERROR;
        status = mir_bench_api_refused(list_subject, has_text ? got->error : NULL, error);
        mir_api__v1__list_events_response__free_unpacked(got, NULL);
        return status;
    }
    *response = got;
    return MIR_OK;
}

/* The newest event before a sequence, or of all with 0: its sequence and time. */
static mir_status newest(mir_bench_conn *conn, uint64_t before, uint64_t *sequence, int64_t *at_ns,
                         mir_error *error)
{
    MirApi__V1__EventTarget target = MIR_API__V1__EVENT_TARGET__INIT;
    MirApi__V1__ListEventsResponse *response = NULL;
    int64_t wall_ns;
    target.has_filter_limit = 1;
    target.filter_limit = 1;
    target.has_before_sequence = before != 0;
    target.before_sequence = before;
    mir_status status = list(conn, &target, &response, &wall_ns, error);
    if (status != MIR_OK || response == NULL) return status;
    *sequence = 0;
    *at_ns = 0;
    if (response->ok->n_events > 0) {
        const MirApi__V1__EventStatus *found = response->ok->events[0]->status;
        *sequence = found->sequence;
        *at_ns = found->first_at->seconds * MIR_NS_PER_S + found->first_at->nanos;
    }
    mir_api__v1__list_events_response__free_unpacked(response, NULL);
    return MIR_OK;
}

static mir_status index_lag(mir_bench_conn *conn, uint64_t *lag, mir_error *error)
{
    MirApi__V1__EventRetentionRequest request = MIR_API__V1__EVENT_RETENTION_REQUEST__INIT;
    mir_view reply;
    mir_status status = mir_bench_api_ask(conn, retention_subject, &request.base, &reply, error);
    if (status != MIR_OK) return status;
    MirApi__V1__EventRetentionResponse *got =
        mir_api__v1__event_retention_response__unpack(NULL, reply.size, reply.data);
    if (got == NULL || got->response_case != MIR_API__V1__EVENT_RETENTION_RESPONSE__RESPONSE_OK)
        status = mir_bench_api_refused(retention_subject, NULL, error);
    else
        *lag = got->ok->index_lag;
    if (got != NULL) mir_api__v1__event_retention_response__free_unpacked(got, NULL);
    return status;
}

/* --- publishing ----------------------------------------------------------------------------- */

/* A whole PUB; which device and which reason follow from the number. */
static size_t write_event(const filling *all, uint64_t number, uint8_t *out)
{
    char device[32], reason[32], payload[64], line[96];
    MirApi__V1__CreateEventRequest request = MIR_API__V1__CREATE_EVENT_REQUEST__INIT;
    MirApi__V1__EventSpec spec = MIR_API__V1__EVENT_SPEC__INIT;
    MirApi__V1__Object related = MIR_API__V1__OBJECT__INIT;
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    static char type[] = "normal", text[] = "what a module has to say", api[] = "mir/v1alpha",
                kind[] = "device", name_space[] = "plant";
    unsigned at = (unsigned)(number * 7919 % all->device_count);
    (void)snprintf(device, sizeof device, "bench-%u", at);
    (void)snprintf(reason, sizeof reason, "Reason%u", (unsigned)(number / 3 % REASONS));
    int size = snprintf(payload, sizeof payload, "{\"number\":%llu}", (unsigned long long)number);
    meta.name = device;
    meta.namespace_ = name_space;
    related.api_version = api;
    related.kind = kind;
    related.meta = &meta;
    spec.type = type;
    spec.reason = reason;
    spec.message = text;
    spec.has_json_payload = 1;
    spec.json_payload = (ProtobufCBinaryData){(size_t)size, (uint8_t *)payload};
    spec.related_object = &related;
    request.spec = &spec;
    size_t packed = protobuf_c_message_get_packed_size(&request.base);
    int line_size = snprintf(line, sizeof line, "PUB event.%s.m.v1.f %zu\r\n", device, packed);
    memcpy(out, line, (size_t)line_size);
    (void)protobuf_c_message_pack(&request.base, out + line_size);
    memcpy(out + (size_t)line_size + packed, "\r\n", 2);
    return (size_t)line_size + packed + 2;
}

static void *publish(void *context)
{
    publisher *self = context;
    filling *all = self->all;
    uint8_t *out = malloc((size_t)PER_WRITE * EVENT_BYTES_MAX);
    self->status = out == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    while (self->status == MIR_OK && !atomic_load(&all->failed)) {
        uint64_t from = atomic_fetch_add(&all->claimed, PER_WRITE);
        if (from >= all->event_count) break;
        uint64_t end = from + PER_WRITE < all->event_count ? from + PER_WRITE : all->event_count;
        size_t size = 0;
        for (uint64_t n = from; n < end; n++) size += write_event(all, n, out + size);
        while (end - atomic_load(&all->stored) > WINDOW && end > atomic_load(&all->stored) &&
               !atomic_load(&all->failed))
            nap(MIR_NS_PER_MS / 4);
        self->status = mir_bench_conn_write(&self->conn, out, size, &self->error);
    }
    if (self->status == MIR_OK) self->status = mir_bench_conn_flush(&self->conn, &self->error);
    if (self->status != MIR_OK) atomic_store(&all->failed, true);
    free(out);
    return NULL;
}

/* Until the store has them all; fails when nothing more arrives. */
static mir_status follow(mir_bench_conn *control, filling *all, mir_error *error)
{
    int64_t grown_ns = mir_clock_mono_ns();
    while (atomic_load(&all->stored) < all->event_count && !atomic_load(&all->failed)) {
        uint64_t sequence = 0;
        int64_t at_ns;
        mir_status status = newest(control, 0, &sequence, &at_ns, error);
        if (status != MIR_OK) return status;
        if (sequence - all->before > atomic_load(&all->stored)) {
            atomic_store(&all->stored, sequence - all->before);
            grown_ns = mir_clock_mono_ns();
        } else if (mir_clock_mono_ns() - grown_ns > stall_timeout_ns) {
            return mir_error_set(error, MIR_E_TIMEOUT, "%llu of %llu events were stored",
                                 (unsigned long long)atomic_load(&all->stored),
                                 (unsigned long long)all->event_count);
        }
        nap(2 * MIR_NS_PER_MS);
    }
    return MIR_OK;
}

static mir_status fill(const mir_bench_server *server, mir_bench_conn *control, filling *all,
                       double *seconds, mir_error *error)
{
    publisher publishers[PUBLISHERS] = {0};
    unsigned started = 0;
    int64_t at_ns;
    mir_status status = newest(control, 0, &all->before, &at_ns, error);
    int64_t from_ns = mir_clock_mono_ns();
    for (; started < PUBLISHERS && status == MIR_OK; started++) {
        publisher *p = &publishers[started];
        p->all = all;
        status = mir_bench_conn_open(&p->conn, server->port, "", error);
        if (status != MIR_OK) break;
        int failure = pthread_create(&p->thread, NULL, publish, p);
        if (failure == 0) continue;
        status = mir_error_os(error, failure, "cannot start a thread");
        mir_bench_conn_close(&p->conn);
        break;
    }
    if (status == MIR_OK) status = follow(control, all, error);
    *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    if (status != MIR_OK) atomic_store(&all->failed, true);
    for (unsigned i = 0; i < started; i++) {
        (void)pthread_join(publishers[i].thread, NULL);
        if (status == MIR_OK && publishers[i].status != MIR_OK) {
            status = publishers[i].status;
            if (error != NULL) *error = publishers[i].error;
        }
        mir_bench_conn_close(&publishers[i].conn);
    }
    return status;
}

/* How far the index is behind when the last event has been stored, and when it has caught up. */
static mir_status await_index(mir_bench_conn *control, uint64_t *lag_first, double *seconds,
                              mir_error *error)
{
    int64_t from_ns = mir_clock_mono_ns();
    uint64_t lag = 0;
    mir_status status = index_lag(control, lag_first, error);
    for (lag = *lag_first; status == MIR_OK && lag >= INDEX_BLOCK;
         status = index_lag(control, &lag, error)) {
        if (mir_clock_mono_ns() - from_ns > index_timeout_ns)
            return mir_error_set(error, MIR_E_TIMEOUT, "the index is still %llu events behind",
                                 (unsigned long long)lag);
        nap(5 * MIR_NS_PER_MS);
    }
    *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    return status;
}

/* --- lists ---------------------------------------------------------------------------------- */

typedef struct list_times {
    double median_ms, max_ms;
} list_times;

typedef enum list_kind { BY_NAME, BY_ID, BY_REASON_AND_TIME } list_kind;

typedef struct time_span {
    int64_t from_ns, to_ns;
} time_span;

static void set_time(MirApi__V1__Timestamp *time, int64_t ns)
{
    mir_api__v1__timestamp__init(time);
    time->has_seconds = time->has_nanos = 1;
    time->seconds = ns / MIR_NS_PER_S;
    time->nanos = (int32_t)(ns % MIR_NS_PER_S);
}

static mir_status list_some(mir_bench_conn *conn, const filling *all, list_kind kind,
                            time_span between, list_times *result, mir_error *error)
{
    int64_t times[LIST_ROUNDS];
    for (unsigned i = 0; i < LIST_ROUNDS; i++) {
        MirApi__V1__EventTarget target = MIR_API__V1__EVENT_TARGET__INIT;
        MirApi__V1__Targets names = MIR_API__V1__TARGETS__INIT;
        MirApi__V1__DateFilter dates = MIR_API__V1__DATE_FILTER__INIT;
        MirApi__V1__Timestamp from, to;
        MirApi__V1__ListEventsResponse *response = NULL;
        static char name_space[] = "plant";
        char text[40], *texts[] = {text}, *namespaces[] = {name_space};
        unsigned device = i * 997 % all->device_count;
        target.has_filter_limit = 1;
        target.filter_limit = LIST_EVENTS;
        if (kind == BY_NAME) {
            (void)snprintf(text, sizeof text, "bench-%u-*", device);
            names.n_names = names.n_namespaces = 1;
            names.names = texts;
            names.namespaces = namespaces;
            target.targets = &names;
        } else if (kind == BY_ID) {
            (void)snprintf(text, sizeof text, "bench-%u", device);
            target.n_device_ids = 1;
            target.device_ids = texts;
        } else {
            (void)snprintf(text, sizeof text, "Reason%u", i % REASONS);
            target.n_reasons = 1;
            target.reasons = texts;
            set_time(&from, between.from_ns);
            set_time(&to, between.to_ns);
            dates.from = &from;
            dates.to = &to;
            target.filter_date = &dates;
        }
        mir_status status = list(conn, &target, &response, &times[i], error);
        if (status != MIR_OK || response == NULL) return status;
        size_t found = response->ok->n_events;
        mir_api__v1__list_events_response__free_unpacked(response, NULL);
        if (found != LIST_EVENTS)
            return mir_error_set(error, MIR_E_CORRUPT, "a list of events (%s) has %zu, not %d",
                                 text, found, LIST_EVENTS);
    }
    result->median_ms = mir_bench_quantile(times, LIST_ROUNDS, 0.5) / 1e6;
    result->max_ms = mir_bench_quantile(times, LIST_ROUNDS, 1) / 1e6;
    return MIR_OK;
}

/* The time in which the sixth tenth of them came stands for a day. */
static mir_status day_of(mir_bench_conn *conn, const filling *all, time_span *day, mir_error *error)
{
    uint64_t tenth = all->event_count / 10, sequence;
    mir_status status = newest(conn, all->before + 5 * tenth, &sequence, &day->from_ns, error);
    if (status != MIR_OK) return status;
    return newest(conn, all->before + 6 * tenth, &sequence, &day->to_ns, error);
}

static mir_status lists(mir_bench_conn *conn, const filling *all, mir_bench_report *report,
                        mir_error *error)
{
    list_times by_name = {0}, by_id = {0}, by_reason = {0};
    time_span day = {0, 0};
    mir_status status = list_some(conn, all, BY_NAME, day, &by_name, error);
    if (status == MIR_OK) status = list_some(conn, all, BY_ID, day, &by_id, error);
    if (status == MIR_OK) status = day_of(conn, all, &day, error);
    if (status == MIR_OK) status = list_some(conn, all, BY_REASON_AND_TIME, day, &by_reason, error);
    if (status != MIR_OK) return status;
    unsigned long long count = all->event_count;
    mir_bench_row *row =
        mir_bench_report_add(report, "ms", by_name.median_ms, NAN, MIR_BENCH_BAR_VALUE_MAX, 5,
                             "%d of a device in %llu events", LIST_EVENTS, count);
    (void)snprintf(row->note, sizeof row->note,
                   "the newest, by name; by id %.2f ms; median of %d, the slowest took %.1f ms",
                   by_id.median_ms, LIST_ROUNDS,
                   by_name.max_ms > by_id.max_ms ? by_name.max_ms : by_id.max_ms);
    row = mir_bench_report_add(report, "ms", by_reason.median_ms, NAN, MIR_BENCH_BAR_VALUE_MAX, 20,
                               "%d by reason in %llu events", LIST_EVENTS, count);
    (void)snprintf(row->note, sizeof row->note,
                   "and day, in which a tenth of them came; median of %d, the slowest took %.1f ms",
                   LIST_ROUNDS, by_reason.max_ms);
    return MIR_OK;
}

mir_status mir_bench_events(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    if (!mir_bench_server_wanted(options, MIR_BENCH_OURS)) {
        mir_bench_say("events: ours alone stores them, skipped");
        return MIR_OK;
    }
    filling all = {.event_count = options->events};
    uint64_t devices = all.event_count / EVENTS_EACH;
    all.device_count = devices < DEVICES_MAX ? (unsigned)devices : DEVICES_MAX;
    mir_bench_server server;
    mir_bench_conn control = {.fd = -1};
    double seconds = NAN, index_seconds = NAN;
    uint64_t lag = 0;
    mir_status status = mir_bench_server_start(&server, MIR_BENCH_OURS, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&control, server.port, "", error);
    int64_t cpu_ns = mir_bench_server_cpu_ns(&server);
    if (status == MIR_OK) status = fill(&server, &control, &all, &seconds, error);
    cpu_ns = mir_bench_server_cpu_ns(&server) - cpu_ns;
    if (status == MIR_OK) status = await_index(&control, &lag, &index_seconds, error);
    if (status == MIR_OK) {
        mir_bench_row *row = mir_bench_report_add(
            report, "k/s", (double)all.event_count / seconds / 1e3, NAN, MIR_BENCH_BAR_VALUE_MIN,
            50, "events stored durably, %llu", (unsigned long long)all.event_count);
        (void)snprintf(row->note, sizeof row->note,
                       "%.1f us of CPU each; the index was %llu behind, and %.2f s later less than "
                       "a block",
                       (double)cpu_ns / 1e3 / (double)all.event_count, (unsigned long long)lag,
                       index_seconds);
        mir_bench_say("events: %llu in %.1f s", (unsigned long long)all.event_count, seconds);
        mir_bench_server_settle(&server);
        status = lists(&control, &all, report, error);
    }
    mir_bench_conn_close(&control);
    mir_bench_server_stop(&server, false);
    if (server.peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = server.peak_resident_bytes;
    return status;
}
