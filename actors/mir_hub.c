/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_hub.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "mir_actors.h"
#include "mir_ask.h"
#include "mir_assert.h"
#include "mir_cfg_service.h"
#include "mir_clock.h"
#include "mir_cmd_known.h"
#include "mir_cmd_queue.h"
#include "mir_cmd_service.h"
#include "mir_core_service.h"
#include "mir_cutoff.h"
#include "mir_event_intake.h"
#include "mir_evt_service.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_notices.h"
#include "mir_request.h"
#include "mir_status_service.h"
#include "mir_timestamp.h"
#include "mir_tlm_service.h"
#include "mir_tlm_retention.h"
#include "mir_twin.h"
#include "mir_twin_telemetry.h"

enum { QUERY_WORKERS = 2 };

const mir_request_handler mir_request_handlers[MIR_FUNCTION_COUNT] = {
    [MIR_CORE_CREATE] = mir_core_create,     [MIR_CORE_CREATES] = mir_core_creates,
    [MIR_CORE_UPDATE] = mir_core_update,     [MIR_CORE_DELETE] = mir_core_delete,
    [MIR_CORE_LIST] = mir_core_list,         [MIR_CORE_SCHEMA] = mir_core_schema,
    [MIR_CMD_QUEUE] = mir_cmd_queue_list,    [MIR_CMD_CANCEL] = mir_cmd_queue_cancel,
    [MIR_CMD_LIST] = mir_cmd_list,           [MIR_CMD_SEND] = mir_cmd_send,
    [MIR_CFG_LIST] = mir_cfg_list,           [MIR_CFG_SEND] = mir_cfg_send,
    [MIR_TLM_LIST] = mir_tlm_list,           [MIR_TLM_QUERY] = mir_tlm_query,
    [MIR_TLM_RETENTION] = mir_tlm_retention, [MIR_SYS_STATUS] = mir_status_report,
    [MIR_EVT_LIST] = mir_evt_list,           [MIR_EVT_DELETE] = mir_evt_delete,
    [MIR_EVT_VERIFY] = mir_evt_verify,       [MIR_EVT_RETENTION] = mir_evt_retention,
    [MIR_EVT_HISTORY] = mir_evt_history,
};

typedef struct service_name {
    const char *module, *name;
    mir_function function;
} service_name;

static const service_name client_services[] = {
    {"core", "create", MIR_CORE_CREATE},     {"core", "creates", MIR_CORE_CREATES},
    {"core", "update", MIR_CORE_UPDATE},     {"core", "delete", MIR_CORE_DELETE},
    {"core", "list", MIR_CORE_LIST},         {"core", "schema", MIR_CORE_SCHEMA},
    {"cmd", "queue", MIR_CMD_QUEUE},         {"cmd", "cancel", MIR_CMD_CANCEL},
    {"cmd", "list", MIR_CMD_LIST},           {"cmd", "send", MIR_CMD_SEND},
    {"cfg", "list", MIR_CFG_LIST},           {"cfg", "send", MIR_CFG_SEND},
    {"tlm", "list", MIR_TLM_LIST},           {"tlm", "query", MIR_TLM_QUERY},
    {"tlm", "retention", MIR_TLM_RETENTION}, {"sys", "status", MIR_SYS_STATUS},
    {"evt", "list", MIR_EVT_LIST},           {"evt", "delete", MIR_EVT_DELETE},
    {"evt", "verify", MIR_EVT_VERIFY},       {"evt", "retention", MIR_EVT_RETENTION},
    {"evt", "history", MIR_EVT_HISTORY},
};

static const service_name device_services[] = {
    {"core", "hearthbeat", MIR_DEVICE_HEARTBEAT}, {"core", "schema", MIR_DEVICE_SCHEMA},
    {"tlm", "proto", MIR_DEVICE_TELEMETRY},       {"cfg", "desiredproperties", MIR_DEVICE_DESIRED},
    {"cfg", "proto", MIR_DEVICE_REPORT},
};

unsigned mir_hub_shard_of(const mir_hub *hub, mir_view device_id)
{
    unsigned partition =
        (unsigned)(mir_hash_fixed(device_id.data, device_id.size) % MIR_PARTITIONS);
    return partition % hub->shard_count;
}

void mir_hub_begin(mir_hub *hub)
{
    atomic_fetch_add_explicit(&hub->in_flight, 1, memory_order_relaxed);
}

void mir_hub_end(mir_hub *hub)
{
    /* Release: who sees none in flight sees everything that they did. */
    atomic_fetch_sub_explicit(&hub->in_flight, 1, memory_order_release);
}

void mir_actors_problem(mir_actors *actors, mir_view device, const char *kind, uint64_t count,
                        const char *format, ...)
{
    mir_problem *place = NULL, *rarest = &actors->problems[0];
    (void)pthread_mutex_lock(&actors->problems_lock);
    for (unsigned i = 0; i < actors->problem_count; i++) {
        mir_problem *p = &actors->problems[i];
        if (p->kind == kind && mir_view_eq_cstr(device, p->device)) {
            place = p;
            break;
        }
        if (p->last_wall_ns < rarest->last_wall_ns) rarest = p;
    }
    if (place == NULL) {
        place = actors->problem_count < MIR_PROBLEMS_MAX
                    ? &actors->problems[actors->problem_count++]
                    : rarest;
        *place = (mir_problem){.kind = kind};
        (void)snprintf(place->device, sizeof place->device, "%.*s",
                       device.size > MIR_DEVICE_ID_BYTES_MAX ? MIR_DEVICE_ID_BYTES_MAX
                                                             : (int)device.size,
                       (const char *)device.data);
    }
    place->count += count;
    place->last_wall_ns = actors->shard->loop->wall_ns;
    va_list args;
    va_start(args, format);
    (void)vsnprintf(place->text, sizeof place->text, format, args);
    va_end(args);
    (void)pthread_mutex_unlock(&actors->problems_lock);
}

static void attach_problem(MirApi__V1__Device *device, const mir_problem *problem, mir_arena *arena)
{
    MirApi__V1__DeviceStatus *status = device->status;
    MirApi__V1__DeviceProblem **list =
        mir_arena_alloc(arena, (status->n_problems + 1) * sizeof *list);
    MirApi__V1__DeviceProblem *entry = mir_arena_alloc(arena, sizeof *entry);
    char *message = mir_arena_strdup(arena, mir_view_cstr(problem->text));
    if (list == NULL || entry == NULL || message == NULL) return;
    mir_api__v1__device_problem__init(entry);
    entry->kind = (char *)(uintptr_t)problem->kind;
    entry->message = message;
    entry->has_count = 1;
    entry->count = problem->count;
    entry->last_at = mir_timestamp_new(arena, problem->last_wall_ns);
    if (status->n_problems != 0) memcpy(list, status->problems, status->n_problems * sizeof *list);
    list[status->n_problems] = entry;
    status->problems = list;
    status->n_problems++;
}

static int compare_ids(const void *a, const void *b)
{
    return strcmp((*(MirApi__V1__Device *const *)a)->spec->device_id,
                  (*(MirApi__V1__Device *const *)b)->spec->device_id);
}

void mir_hub_attach_problems(mir_hub *hub, MirApi__V1__Device **devices, size_t count,
                             mir_arena *arena)
{
    mir_problem *copy = mir_arena_alloc(arena, MIR_PROBLEMS_MAX * sizeof *copy);
    MirApi__V1__Device **by_id = mir_arena_alloc(arena, (count + 1) * sizeof(MirApi__V1__Device *));
    if (copy == NULL || by_id == NULL || count == 0) return;
    bool sorted = false;
    for (unsigned i = 0; i < hub->shard_count; i++) {
        mir_actors *actors = mir_actors_of(hub->shards[i]);
        (void)pthread_mutex_lock(&actors->problems_lock);
        unsigned problems = actors->problem_count;
        memcpy(copy, actors->problems, problems * sizeof *copy);
        (void)pthread_mutex_unlock(&actors->problems_lock);
        for (unsigned p = 0; p < problems; p++) {
            if (!sorted) {
                memcpy(by_id, devices, count * sizeof(MirApi__V1__Device *));
                qsort(by_id, count, sizeof(MirApi__V1__Device *), compare_ids);
                sorted = true;
            }
            MirApi__V1__DeviceSpec spec = {.device_id = copy[p].device};
            MirApi__V1__Device wanted = {.spec = &spec};
            MirApi__V1__Device *key = &wanted;
            MirApi__V1__Device **found =
                bsearch(&key, by_id, count, sizeof(MirApi__V1__Device *), compare_ids);
            if (found != NULL) attach_problem(*found, &copy[p], arena);
        }
    }
}

/* --- endpoints ------------------------------------------------------------------------------ */

static bool split5(mir_view subject, mir_view tokens[5])
{
    const uint8_t *at = subject.data, *end = subject.data + subject.size;
    for (int i = 0; i < 5; i++) {
        const uint8_t *dot = at < end ? memchr(at, '.', (size_t)(end - at)) : NULL;
        if ((dot == NULL) != (i == 4)) return false;
        const uint8_t *stop = dot == NULL ? end : dot;
        tokens[i] = (mir_view){at, (size_t)(stop - at)};
        if (tokens[i].size == 0) return false;
        at = stop + 1;
    }
    return true;
}

static mir_function look_up(const service_name *names, size_t count, const mir_view tokens[5])
{
    if (!mir_view_eq_cstr(tokens[3], "v1alpha")) return MIR_FUNCTION_NONE;
    for (size_t i = 0; i < count; i++)
        if (mir_view_eq_cstr(tokens[2], names[i].module) &&
            mir_view_eq_cstr(tokens[4], names[i].name))
            return names[i].function;
    return MIR_FUNCTION_NONE;
}

static mir_hub *the_hub(const mir_shard *shard)
{
    return ((const mir_actors *)shard->actors)->hub;
}

static mir_endpoint_kind classify(const mir_shard *shard, mir_message *message, unsigned *owner)
{
    const mir_hub *hub = the_hub(shard);
    mir_view tokens[5];
    message->function = MIR_FUNCTION_NONE;
    if (mir_view_starts(message->subject, MIR_VIEW_LITERAL("device."))) {
        if (!split5(message->subject, tokens)) return MIR_ENDPOINT_NONE;
        message->function = (uint8_t)look_up(
            device_services, sizeof device_services / sizeof device_services[0], tokens);
        if (message->function == MIR_FUNCTION_NONE) return MIR_ENDPOINT_NONE;
        message->key = tokens[1];
        *owner = mir_hub_shard_of(hub, tokens[1]);
        return MIR_ENDPOINT_DEVICE;
    }
    if (mir_view_starts(message->subject, MIR_VIEW_LITERAL("client."))) {
        if (!split5(message->subject, tokens)) return MIR_ENDPOINT_NONE;
        message->function = (uint8_t)look_up(
            client_services, sizeof client_services / sizeof client_services[0], tokens);
        return message->function == MIR_FUNCTION_NONE ? MIR_ENDPOINT_NONE : MIR_ENDPOINT_SERVICE;
    }
    if (mir_view_starts(message->subject, MIR_VIEW_LITERAL("event."))) {
        if (!split5(message->subject, tokens)) return MIR_ENDPOINT_NONE;
        message->function = MIR_EVENT_PUBLISHED;
        return MIR_ENDPOINT_SERVICE;
    }
    mir_view inbox = mir_view_cstr(hub->inbox);
    if (mir_view_starts(message->subject, inbox)) {
        mir_view rest = mir_view_from(message->subject, inbox.size);
        unsigned number = 0;
        size_t i = 0;
        for (; i < rest.size && i < 3 && rest.data[i] >= '0' && rest.data[i] <= '9'; i++)
            number = number * 10 + (rest.data[i] - '0');
        if (i == 0 || i >= rest.size || rest.data[i] != '.' || number >= hub->shard_count)
            return MIR_ENDPOINT_NONE;
        message->key = mir_view_from(rest, i + 1);
        *owner = number;
        return MIR_ENDPOINT_REPLY;
    }
    return MIR_ENDPOINT_NONE;
}

static void deliver(mir_shard *shard, const mir_message *message)
{
    switch ((mir_endpoint_kind)message->endpoint) {
    case MIR_ENDPOINT_DEVICE:
        if (message->function == MIR_DEVICE_DESIRED || message->function == MIR_DEVICE_REPORT)
            mir_cfg_receive(shard, message);
        else
            mir_twin_receive(shard, message);
        break;
    case MIR_ENDPOINT_SERVICE:
        if (message->function == MIR_EVENT_PUBLISHED)
            mir_event_intake_take(shard, message);
        else
            mir_request_begin(shard, message);
        break;
    case MIR_ENDPOINT_REPLY: mir_ask_answer(shard, message); break;
    case MIR_ENDPOINT_NONE: MIR_ASSERT(false);
    }
}

static void commit(mir_shard *shard)
{
    mir_actors *actors = mir_actors_of(shard);
    uint32_t refused = 0;
    if (mir_tlog_commit_turn(actors->log, &refused) != MIR_OK && refused != 0)
        actors->telemetry_refused += refused;
}

static void refused(mir_shard *shard, const mir_refusal *refusal)
{
    mir_notice notice = {.reason = refusal->is_login ? MIR_NOTICE_AUTHENTICATION_FAILED
                                                     : MIR_NOTICE_CONNECTION_REFUSED,
                         .text = refusal->text,
                         .user = refusal->user,
                         .address = refusal->address,
                         .count = 1};
    mir_notices_tell(shard, &notice);
}

const mir_endpoints mir_hub_endpoints = {
    .classify = classify,
    .deliver = deliver,
    .commit = commit,
    .subscribed = mir_cutoff_visit,
    .refused = refused,
};

/* --- life ----------------------------------------------------------------------------------- */

static void clock_told(void *context, const mir_tlog_clock_state *state);

/* Of events, too, none goes because a clock is ahead. The telemetry log knows the time; it opens after
 * the store of the events, and is there when all runs. */
static int64_t known_ns(void *context)
{
    const mir_hub *hub = context;
    return atomic_load_explicit(&hub->started, memory_order_acquire) ? mir_tlog_known_ns(hub->tlog)
                                                                     : 0;
}

mir_status mir_hub_create(const mir_config *config, mir_shard *const *shards, unsigned shard_count,
                          mir_workers *requests, const char *server_id, const char *io_name,
                          mir_hub **hub, mir_error *error)
{
    mir_hub *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    fresh->config = config;
    fresh->shards = shards;
    fresh->shard_count = shard_count;
    fresh->requests = requests;
    fresh->io_name = io_name;
    fresh->started_mono_ns = mir_clock_mono_ns();
    /* "mir-" and seven characters, as clients write their own names. */
    (void)snprintf(fresh->instance, sizeof fresh->instance, "mir-%.7s", server_id + 3);
    fresh->own_cause.instance = mir_hub_instance(fresh);
    (void)snprintf(fresh->inbox, sizeof fresh->inbox, "_INBOX.%s.", server_id);

    char path[4200];
    (void)snprintf(path, sizeof path, "%s/state", config->data);
    static const mir_state_sync syncs[] = {
        [MIR_CONFIG_SYNC_COMMIT] = MIR_STATE_SYNC_COMMIT,
        [MIR_CONFIG_SYNC_INTERVAL] = MIR_STATE_SYNC_INTERVAL,
        [MIR_CONFIG_SYNC_OFF] = MIR_STATE_SYNC_OFF,
    };
    if (config->state.sync != MIR_CONFIG_SYNC_COMMIT)
        mir_log_warn("state.sync is not `commit`: what a reply said is done may be lost in a power "
                     "cut");
    mir_event_rule rules[MIR_CONFIG_KEEP_MAX];
    for (size_t i = 0; i < config->events.retention_count; i++)
        rules[i] =
            (mir_event_rule){config->events.retention[i].name, config->events.retention[i].keep_ns};
    mir_state_options state_options = {.path = path,
                                       .map_bytes = (uint64_t)config->state.map_size_bytes,
                                       .sync = syncs[config->state.sync],
                                       .retention = {rules, config->events.retention_count,
                                                     config->events.default_keep_ns, known_ns,
                                                     fresh}};
    mir_status status = mir_state_open(&state_options, &fresh->state, error);
    if (status == MIR_OK) {
        (void)snprintf(path, sizeof path, "%s/telemetry", config->data);
        mir_tlog_options tlog_options = {
            .directory = path,
            .writer_count = shard_count,
            .log_bytes_max = (uint64_t)config->telemetry.log_bytes_max,
            .sync_ms = (uint32_t)(config->telemetry.sync_ns / MIR_NS_PER_MS),
            .disk_reserve_bytes = (uint64_t)config->telemetry.disk_reserve_bytes,
        };
        mir_tlm_retention_options(fresh, &tlog_options);
        tlog_options.clock_told = clock_told;
        tlog_options.clock_told_context = fresh;
        status = mir_sink_open(config, &tlog_options, &fresh->sink, error);
        if (status == MIR_OK) status = mir_tlog_open(&tlog_options, &fresh->tlog, error);
    }
    if (status == MIR_OK && fresh->sink != NULL)
        mir_sink_attach(fresh->sink, fresh->tlog, fresh->state);
    if (status == MIR_OK) {
        mir_tlog_stats stats;
        mir_tlog_stats_read(fresh->tlog, &stats, NULL);
        if (stats.replayed_rows != 0)
            mir_log_info("telemetry: %llu rows that are in no segment yet were read from the logs",
                         (unsigned long long)stats.replayed_rows);
        if (stats.torn_bytes_cut != 0)
            mir_log_warn("telemetry: the last run ended in the middle of a write; its unfinished "
                         "%llu bytes were cut off",
                         (unsigned long long)stats.torn_bytes_cut);
    }
    if (status == MIR_OK) {
        status = mir_schemas_create(fresh->state, &fresh->schemas);
        if (status == MIR_OK) status = mir_tlm_devices_create(fresh->state, &fresh->tlm_devices);
        if (status == MIR_OK)
            status = mir_workers_create_mixed(QUERY_WORKERS, "query", &fresh->queries);
        if (status != MIR_OK)
            (void)mir_error_set(error, status, "cannot start: %s", mir_status_name(status));
    }
    if (status != MIR_OK) {
        mir_hub_destroy(fresh);
        return status;
    }
    *hub = fresh;
    return MIR_OK;
}

void mir_hub_set_io_name(mir_hub *hub, const char *io_name)
{
    hub->io_name = io_name;
}

mir_status mir_hub_shard_init(mir_hub *hub, mir_shard *shard)
{
    mir_actors *actors = calloc(1, sizeof *actors);
    if (actors == NULL) return MIR_E_NO_MEMORY;
    actors->hub = hub;
    actors->shard = shard;
    (void)pthread_mutex_init(&actors->problems_lock, NULL);
    actors->log = mir_tlog_writer_of(hub->tlog, shard->id);
    shard->actors = actors;
    return mir_row_init(&actors->row, MIR_ROW_COLUMNS_MAX_DEFAULT, MIR_ROW_DYNAMIC_MAX_DEFAULT,
                        MIR_ROW_SCRATCH_BYTES_MAX_DEFAULT);
}

void mir_hub_shard_fini(mir_hub *hub, mir_shard *shard)
{
    (void)hub;
    mir_actors *actors = shard->actors;
    if (actors == NULL) return;
    mir_twin_telemetry_free_plans(actors);
    mir_map_free(&actors->twins);
    mir_map_free(&actors->asks);
    mir_map_free(&actors->plans);
    mir_row_fini(&actors->row);
    mir_event_intake_fini(actors);
    mir_notices_fini(actors);
    mir_cmd_queue_fini(actors);
    mir_cmd_known_free(actors->known);
    (void)pthread_mutex_destroy(&actors->problems_lock);
    free(actors);
    shard->actors = NULL;
}

typedef struct resume {
    mir_post post;
    mir_hub *hub;
    uint64_t number;
    size_t id_size;
    char id[];
} resume;

static void resume_run(mir_shard *shard, mir_post *post)
{
    resume *r = MIR_CONTAINER(post, resume, post);
    if (!shard->stopping) mir_twin_resume(shard, mir_view_of(r->id, r->id_size), r->number);
    mir_hub_end(r->hub);
    free(r);
}

static mir_status resume_one(void *context, mir_view device_id, uint64_t number,
                             int64_t last_heartbeat_ns)
{
    (void)last_heartbeat_ns; /* It gets a full offline_after from now. */
    mir_hub *hub = context;
    resume *r = malloc(sizeof *r + device_id.size);
    if (r == NULL) return MIR_E_NO_MEMORY;
    *r = (resume){
        .post = {.run = resume_run}, .hub = hub, .number = number, .id_size = device_id.size};
    memcpy(r->id, device_id.data, device_id.size);
    mir_hub_begin(hub);
    mir_shard_post(hub->shards[mir_hub_shard_of(hub, device_id)], &r->post);
    return MIR_OK;
}

typedef struct forwarding_dropped {
    mir_post post;
    mir_hub *hub;
    uint64_t rows;
} forwarding_dropped;

static void tell_dropped(mir_shard *shard, mir_post *post)
{
    forwarding_dropped *d = MIR_CONTAINER(post, forwarding_dropped, post);
    const mir_notice notice = {
        .reason = MIR_NOTICE_FORWARDING_DROPPED,
        .text = MIR_VIEW_LITERAL("the other side has been away, or slow, for too long: the oldest "
                                 "rows that waited were given up"),
        .count = d->rows};
    if (!shard->stopping) mir_notices_tell(shard, &notice);
    mir_hub_end(d->hub);
    free(d);
}

/* The log of the server has it in any case. */
static void sink_dropped(void *context, uint64_t rows)
{
    mir_hub *hub = context;
    forwarding_dropped *d = calloc(1, sizeof *d);
    if (d == NULL) return;
    d->post.run = tell_dropped;
    d->hub = hub;
    d->rows = rows;
    mir_hub_begin(hub);
    mir_shard_post(hub->shards[0], &d->post);
}

typedef struct clock_ahead {
    mir_post post;
    mir_hub *hub;
    uint64_t days;
} clock_ahead;

static void tell_clock(mir_shard *shard, mir_post *post)
{
    clock_ahead *c = MIR_CONTAINER(post, clock_ahead, post);
    char text[MIR_NOTICE_TEXT_BYTES_MAX];
    const int size = snprintf(
        text, sizeof text, "the server's clock is %llu day%s ahead of the time that is known: %s",
        (unsigned long long)c->days, c->days == 1 ? "" : "s",
        "set it, or start once with telemetry.retention.clock_wait=0 if it is right");
    const mir_notice notice = {.reason = MIR_NOTICE_CLOCK_AHEAD,
                               .text = mir_view_of(text, size < 0 ? 0 : (size_t)size),
                               .count = 1};
    if (!shard->stopping) mir_notices_tell(shard, &notice);
    mir_hub_end(c->hub);
    free(c);
}

/* The log of the server has it in any case. Before the shards run it has to wait for them. */
static void clock_told(void *context, const mir_tlog_clock_state *state)
{
    mir_hub *hub = context;
    if (state->ahead_ns == 0 || !atomic_load_explicit(&hub->started, memory_order_acquire)) return;
    clock_ahead *c = calloc(1, sizeof *c);
    if (c == NULL) return;
    c->post.run = tell_clock;
    c->hub = hub;
    c->days = state->ahead_ns / (UINT64_C(86400) * MIR_NS_PER_S);
    mir_hub_begin(hub);
    if (atomic_load_explicit(&hub->stopping, memory_order_acquire)) {
        mir_hub_end(hub);
        free(c);
        return;
    }
    mir_shard_post(hub->shards[0], &c->post);
}

mir_status mir_hub_start(mir_hub *hub, mir_error *error)
{
    atomic_store_explicit(&hub->started, true, memory_order_release);
    mir_tlog_stats stats;
    mir_tlog_stats_read(hub->tlog, &stats, NULL);
    clock_told(hub, &stats.clock);
    mir_status status = mir_state_online_each(hub->state, resume_one, hub, error);
    if (status == MIR_OK) status = mir_cmd_queue_start(hub, error);
    if (status == MIR_OK && hub->sink != NULL)
        status = mir_sink_start(hub->sink, sink_dropped, hub, error);
    return status;
}

void mir_hub_stop(mir_hub *hub)
{
    if (hub == NULL) return;
    atomic_store_explicit(&hub->stopping, true, memory_order_relaxed);
    mir_sink_stop(hub->sink);
    for (unsigned i = 0; i < hub->shard_count; i++) {
        mir_shard *shard = hub->shards[i];
        if (shard == NULL) continue;
        shard->stopping = true;
    }
    for (unsigned i = 0; i < hub->shard_count; i++) {
        mir_shard *shard = hub->shards[i];
        if (shard == NULL || shard->actors == NULL) continue;
        commit(shard);
        mir_request_give_up_all(shard);
        mir_ask_cancel_all(shard);
        mir_twin_free_all(shard);
        mir_cfg_free_all(shard);
    }
    /* What is with workers and the writer comes home through the mailboxes. */
    while (atomic_load_explicit(&hub->in_flight, memory_order_acquire) != 0) {
        for (unsigned i = 0; i < hub->shard_count; i++)
            if (hub->shards[i] != NULL) mir_shard_drain(hub->shards[i]);
        struct timespec step = {.tv_nsec = 1000 * 1000};
        (void)nanosleep(&step, NULL);
    }
    /* A thread whose post has been taken may still be about to wake the shard: they end before the
     * shards go. */
    mir_workers_destroy(hub->queries);
    hub->queries = NULL;
    mir_state_close(hub->state);
    hub->state = NULL;
}

void mir_hub_destroy(mir_hub *hub)
{
    if (hub == NULL) return;
    mir_workers_destroy(hub->queries);
    mir_tlm_devices_destroy(hub->tlm_devices);
    mir_schemas_destroy(hub->schemas);
    mir_sink_stop(hub->sink);
    if (hub->tlog != NULL) mir_tlog_close(hub->tlog);
    mir_sink_destroy(hub->sink);
    mir_state_close(hub->state);
    free(hub);
}
