/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_twin_internal.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_ask.h"
#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_cmd_queue.h"
#include "mir_cutoff.h"
#include "mir_device_rules.h"
#include "mir_events.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_nats.h"

enum {
    RETRY_MS = 500, /* after the store refused a request for want of room */
    PULL_BACKOFF_MIN_S = 1,
    PULL_BACKOFF_MAX_S = 60,
    PULL_AGAIN_S = 10,   /* after a schema came, for messages that it does not have */
    UNKNOWN_IDLE_S = 30, /* a device that nobody provisions is forgotten */
    REFRESH_S = 300,     /* heartbeats are written down at least this often */
    CUT_AGAIN_MS = 10,
    /* A device that announces schemas without end keeps neither its rows nor the PONGs waiting. */
    RENEWALS_MAX = 16,
};

static const mir_view no_view = {NULL, 0};

static void on_timer(mir_timer *timer, void *context);
static void load(mir_twin *twin);
static void write_beat(mir_twin *twin);
static void pull(mir_twin *twin, mir_twin_waiter *waiter);
static void take_schema(mir_twin *twin, mir_known_schema schema);

/* --- finding ------------------------------------------------------------------------------- */

static mir_twin *find_hashed(mir_shard *shard, mir_view id, uint64_t hash)
{
    mir_actors *actors = mir_actors_of(shard);
    mir_map_node *node = mir_map_first(&actors->twins, hash);
    for (; node != NULL; node = mir_map_next(node)) {
        mir_twin *twin = MIR_CONTAINER(node, mir_twin, by_id);
        if (twin->id_size == id.size && memcmp(twin->id, id.data, id.size) == 0) return twin;
    }
    return NULL;
}

static mir_twin *find(mir_shard *shard, mir_view id)
{
    return find_hashed(shard, id, mir_hash_view(id));
}

static mir_twin *find_or_make(mir_shard *shard, mir_view id)
{
    mir_twin *twin = find(shard, id);
    if (twin != NULL) return twin;
    mir_actors *actors = mir_actors_of(shard);
    mir_error error;
    if (mir_device_id_check(id, &error) != MIR_OK) {
        mir_actors_problem(actors, id, "invalid id", 1, "%s", error.text);
        return NULL;
    }
    if (actors->twins.count >= MIR_TWINS_MAX) return NULL;
    twin = calloc(1, sizeof *twin + id.size);
    if (twin == NULL) return NULL;
    twin->shard = shard;
    twin->id_size = (uint8_t)id.size;
    memcpy(twin->id, id.data, id.size);
    twin->timer.fire = on_timer;
    twin->last_active_ns = shard->loop->now_ns;
    mir_map_add(&actors->twins, &twin->by_id, mir_hash_view(id));
    mir_timer_set(&shard->loop->timers, &twin->timer,
                  shard->loop->now_ns + UNKNOWN_IDLE_S * MIR_NS_PER_S);
    return twin;
}

static void set_schema(mir_twin *twin, mir_known_schema schema)
{
    if (schema.schema == twin->schema.schema) {
        mir_schema_unref(schema.schema);
        return;
    }
    mir_twin_telemetry_forget(twin);
    mir_schema_unref(twin->schema.schema);
    twin->schema = schema;
}

static bool is_other(const mir_twin *twin, const mir_known_schema *schema)
{
    return schema->schema != NULL &&
           (twin->schema.schema == NULL ||
            memcmp(schema->hash, twin->schema.hash, sizeof schema->hash) != 0);
}

/* What is held is stored, unless it waits for a schema that is on its way, or that the device is asked
 * for. Whenever one of these has come to an end. */
static void settle(mir_twin *twin)
{
    twin->renews = twin->readings != 0 || twin->writes_other || is_other(twin, &twin->hello) ||
                   is_other(twin, &twin->taken);
    if (twin->renews && ++twin->renewals == RENEWALS_MAX) twin->renews = false;
    if (!twin->renews) twin->renewals = 0;
    mir_twin_telemetry_settle(twin);
    if (twin->state == MIR_TWIN_READY && twin->telemetry.held != NULL && !twin->renews)
        pull(twin, NULL);
}

static void add_waiter(mir_twin_waiters *list, mir_twin_waiter *waiter)
{
    waiter->next = NULL;
    if (list->last == NULL)
        list->first = waiter;
    else
        list->last->next = waiter;
    list->last = waiter;
}

static mir_twin_waiter *take_waiters(mir_twin_waiters *list)
{
    mir_twin_waiter *first = list->first;
    *list = (mir_twin_waiters){0};
    return first;
}

static void tell_waiters(mir_twin *twin, const char *error)
{
    mir_twin_waiter *waiter = take_waiters(&twin->waiters);
    while (waiter != NULL) {
        mir_twin_waiter *next = waiter->next;
        waiter->done(twin->shard, waiter, error);
        waiter = next;
    }
}

/* Something is under way that will come back to this twin. */
static bool is_busy(const mir_twin *twin)
{
    return twin->state == MIR_TWIN_LOADING || twin->writing || twin->pulling ||
           twin->readings != 0 || twin->beat_waits || twin->waiters.first != NULL ||
           twin->pull_waiters.first != NULL || twin->await.first != NULL;
}

static void set_state(mir_twin *twin, mir_twin_state state)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    if (twin->state == MIR_TWIN_ABSENT) actors->absent--;
    if (twin->state == MIR_TWIN_DISABLED) actors->disabled--;
    twin->state = (uint8_t)state;
    if (state == MIR_TWIN_ABSENT) actors->absent++;
    if (state == MIR_TWIN_DISABLED) actors->disabled++;
}

static void free_twin(mir_twin *twin)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    set_state(twin, MIR_TWIN_COLD);
    mir_map_remove(&actors->twins, &twin->by_id);
    mir_timer_cancel(&twin->shard->loop->timers, &twin->timer);
    mir_twin_telemetry_drop(twin, NULL, "");
    mir_twin_telemetry_forget(twin);
    mir_schema_unref(twin->schema.schema);
    mir_schema_unref(twin->hello.schema);
    mir_schema_unref(twin->taken.schema);
    free(twin);
}

/* Where too many unknown ids speak: as soon as nothing comes back to this one. It may be gone then. */
static void forget_surplus(mir_twin *twin)
{
    if (twin->state != MIR_TWIN_ABSENT || is_busy(twin) ||
        mir_actors_of(twin->shard)->absent <= MIR_TWINS_ABSENT_MAX)
        return;
    mir_twin_telemetry_drop(twin, "telemetry refused",
                            "the device is not provisioned (it sent no heartbeat)");
    free_twin(twin);
}

void mir_twin_free_all(mir_shard *shard)
{
    mir_actors *actors = mir_actors_of(shard);
    uint32_t from = 0;
    mir_map_node *node;
    while ((node = mir_map_any(&actors->twins, &from)) != NULL) {
        mir_twin *twin = MIR_CONTAINER(node, mir_twin, by_id);
        tell_waiters(twin, "the server is stopping");
        /* Those who wait for an activation that never ends now count as operations that a stop
         * waits for. */
        twin->waiters = twin->pull_waiters;
        twin->pull_waiters = (mir_twin_waiters){0};
        tell_waiters(twin, "the server is stopping");
        twin->waiters = twin->await;
        twin->await = (mir_twin_waiters){0};
        tell_waiters(twin, "the server is stopping");
        free_twin(twin);
    }
}

/* --- activation ---------------------------------------------------------------------------- */

typedef struct loading {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_hub *hub;
    mir_status status;
    bool online, disabled;
    uint64_t number;
    int64_t last_beat_wall_ns;
    mir_known_schema schema;
    size_t id_size;
    char id[];
} loading;

static void end_await(mir_twin *twin);

/* A heartbeat, hello or schema of a disabled device. */
static void count_sign(mir_twin *twin)
{
    mir_actors_problem(mir_actors_of(twin->shard), mir_twin_id(twin), "disabled", 1, "%s",
                       mir_twin_disabled);
}

/* Nothing of what was on its way is done any more. */
static void cut_off(mir_twin *twin)
{
    if (twin->beat_waits) count_sign(twin);
    twin->beat_waits = false;
    if (twin->taken.schema != NULL)
        twin->pulling = false; /* It was what the device had answered. */
    mir_schema_unref(twin->hello.schema);
    mir_schema_unref(twin->taken.schema);
    twin->hello = twin->taken = (mir_known_schema){0};
    mir_twin_telemetry_drop(twin, "disabled", mir_twin_disabled);
    mir_twin_waiter *waiter = take_waiters(&twin->pull_waiters);
    while (waiter != NULL) {
        mir_twin_waiter *next = waiter->next;
        waiter->done(twin->shard, waiter, mir_twin_disabled);
        waiter = next;
    }
    tell_waiters(twin, mir_twin_disabled);
    end_await(twin);
    /* The order matters: what is closed already is not refused once more. */
    mir_cutoff_device(twin->shard, mir_twin_id(twin), twin->visited);
    mir_cutoff_publisher(twin->shard, mir_twin_id(twin), twin->speaker);
    twin->visited = false;
    twin->speaker = 0;
}

/* Closes a connection of a disabled device, unless it serves others too. */
static void refuse_connection(mir_twin *twin, mir_ref publisher)
{
    if (mir_twin_now(twin) < twin->cut_after_ns) return;
    twin->cut_after_ns = mir_twin_now(twin) + CUT_AGAIN_MS * MIR_NS_PER_MS;
    mir_cutoff_publisher(twin->shard, mir_twin_id(twin), publisher);
}

static void refuse_sign(mir_twin *twin, const mir_message *message)
{
    count_sign(twin);
    refuse_connection(twin, message->publisher);
}

static void loaded(mir_shard *shard, mir_post *post)
{
    loading *op = MIR_CONTAINER(post, loading, post);
    mir_actors_of(shard)->loading--;
    mir_twin *twin = shard->stopping ? NULL : find(shard, mir_view_of(op->id, op->id_size));
    mir_hub_end(op->hub);
    if (twin == NULL) {
        mir_schema_unref(op->schema.schema);
        free(op);
        return;
    }
    MIR_ASSERT(twin->state == MIR_TWIN_LOADING);
    if (op->status == MIR_OK) {
        set_state(twin, op->disabled ? MIR_TWIN_DISABLED : MIR_TWIN_READY);
        twin->number = op->number;
        twin->online = op->online && !op->disabled;
        twin->cell = op->disabled ? NULL : mir_state_heartbeat_cell(op->hub->state, op->number);
        set_schema(twin, op->schema);
    } else {
        set_state(twin, MIR_TWIN_ABSENT);
        twin->online = false;
        twin->cell = NULL;
        set_schema(twin, op->schema);
    }
    free(op);
    if (twin->stale) {
        twin->stale = false;
        load(twin);
        return;
    }
    if (twin->state == MIR_TWIN_DISABLED) {
        cut_off(twin);
        return;
    }
    twin->visited = false;
    twin->speaker = 0;
    if (twin->cell != NULL && twin->last_beat_wall_ns != 0)
        atomic_store_explicit(twin->cell, twin->last_beat_wall_ns, memory_order_relaxed);
    if (twin->beat_waits && !twin->hello_parses) {
        if (twin->state == MIR_TWIN_ABSENT || !twin->online || twin->hello.schema != NULL)
            write_beat(twin);
        else
            twin->beat_waits = false;
    }
    mir_twin_waiter *waiter = take_waiters(&twin->pull_waiters);
    while (waiter != NULL) {
        mir_twin_waiter *next = waiter->next;
        pull(twin, waiter);
        waiter = next;
    }
    end_await(twin);
    settle(twin);
    forget_surplus(twin);
}

static void load_run(mir_job *job)
{
    loading *op = MIR_CONTAINER(job, loading, job);
    mir_arena arena = {0};
    MirStore__V1__DeviceRecord *record;
    mir_error error = {{0}};
    if (atomic_load_explicit(&op->hub->stopping, memory_order_relaxed)) {
        op->status = MIR_E_CANCELLED;
        mir_shard_post(op->shard, &op->post);
        return;
    }
    op->status =
        mir_state_get(op->hub->state, mir_view_of(op->id, op->id_size), &arena, &record, &error);
    if (op->status == MIR_OK) {
        op->number = record->number;
        op->online = record->online;
        op->disabled = record->has_disabled && record->disabled;
        if (record->schema_hash.len == MIR_STATE_HASH_BYTES &&
            mir_schemas_get(op->hub->schemas,
                            mir_view_of(record->schema_hash.data, record->schema_hash.len),
                            &op->schema, &error) != MIR_OK)
            mir_log_warn("device %.*s: its stored schema cannot be used: %s", (int)op->id_size,
                         op->id, error.text);
    } else if (op->status != MIR_E_NOT_FOUND) {
        mir_log_error("device %.*s cannot be read: %s", (int)op->id_size, op->id, error.text);
    }
    mir_arena_free(&arena);
    mir_shard_post(op->shard, &op->post);
}

static void load(mir_twin *twin)
{
    if (twin->state == MIR_TWIN_LOADING) {
        twin->stale = true;
        return;
    }
    loading *op = calloc(1, sizeof *op + twin->id_size);
    if (op == NULL) return; /* The next message tries again. */
    *op = (loading){.job = {.run = load_run},
                    .post = {.run = loaded},
                    .shard = twin->shard,
                    .hub = mir_twin_hub(twin),
                    .id_size = twin->id_size};
    memcpy(op->id, twin->id, twin->id_size);
    set_state(twin, MIR_TWIN_LOADING);
    mir_actors_of(twin->shard)->loading++;
    mir_hub_begin(op->hub);
    mir_workers_submit(op->hub->requests, &op->job);
}

void mir_twin_changed(mir_shard *shard, mir_view device_id, bool is_disabled)
{
    mir_twin *twin = find(shard, device_id);
    if (twin != NULL) {
        twin->changes++;
        if (twin->state != MIR_TWIN_COLD) load(twin);
    }
    if (is_disabled && (twin == NULL || twin->state == MIR_TWIN_COLD))
        mir_cutoff_device(shard, device_id, false);
}

void mir_twin_visit(mir_shard *shard, mir_view device_id)
{
    mir_twin *twin = find(shard, device_id);
    bool is_cold = twin == NULL || twin->state == MIR_TWIN_COLD;
    if (is_cold && mir_actors_of(shard)->loading >= MIR_TWIN_LOADING_SHARD) return;
    if (twin == NULL) twin = find_or_make(shard, device_id);
    if (twin == NULL) return;
    twin->last_active_ns = shard->loop->now_ns;
    if (twin->state == MIR_TWIN_COLD) load(twin);
    if (twin->state == MIR_TWIN_LOADING) twin->visited = true;
    if (twin->state == MIR_TWIN_DISABLED) mir_cutoff_device(shard, device_id, true);
}

bool mir_twin_is_disabled(mir_shard *shard, mir_view device_id)
{
    if (mir_actors_of(shard)->disabled == 0) return false;
    const mir_twin *twin = find(shard, device_id);
    return twin != NULL && twin->state == MIR_TWIN_DISABLED;
}

bool mir_twin_is_online(mir_shard *shard, mir_view device_id)
{
    const mir_twin *twin = find(shard, device_id);
    return twin != NULL && twin->online;
}

void mir_twin_resume(mir_shard *shard, mir_view device_id, uint64_t number)
{
    mir_twin *twin = find_or_make(shard, device_id);
    if (twin == NULL) return;
    twin->online = true;
    twin->number = number;
    twin->last_beat_ns = shard->loop->now_ns;
    mir_timer_set(&shard->loop->timers, &twin->timer,
                  shard->loop->now_ns + shard->config->presence.offline_after_ns);
}

/* --- writing: presence and schemas ---------------------------------------------------------- */

typedef enum write_kind { WRITE_BEAT, WRITE_REFRESH, WRITE_OFFLINE, WRITE_SCHEMA } write_kind;

typedef struct write_op {
    mir_state_request request;
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_hub *hub;
    write_kind kind;
    uint32_t changes; /* the twin's, when this write began */
    mir_state_heartbeat beat;
    mir_state_schema schema_in;
    mir_view id_view;
    mir_known_schema schema; /* a reference */
    mir_sequel sequel;
    int64_t at_wall_ns;
    size_t id_size;
    char id[];
} write_op;

static write_op *write_new(mir_twin *twin, write_kind kind)
{
    write_op *op = calloc(1, sizeof *op + twin->id_size);
    if (op == NULL) return NULL;
    op->shard = twin->shard;
    op->hub = mir_twin_hub(twin);
    op->kind = kind;
    op->changes = twin->changes;
    op->id_size = twin->id_size;
    memcpy(op->id, twin->id, twin->id_size);
    op->id_view = mir_view_of(op->id, op->id_size);
    op->at_wall_ns = twin->last_beat_wall_ns;
    return op;
}

static void write_free(write_op *op)
{
    mir_arena_free(&op->request.arena);
    mir_schema_unref(op->schema.schema);
    free(op);
}

/* Gives the write's schema the shape that the store takes. */
static void write_schema(write_op *op, int64_t fetched_ns)
{
    uint32_t count;
    const char *const *packages = mir_schema_packages(op->schema.schema, &count);
    op->schema_in = (mir_state_schema){.raw = mir_schema_set_bytes(op->schema.schema),
                                       .package_names = packages,
                                       .package_count = count,
                                       .fetched_ns = fetched_ns};
}

static void written(mir_shard *shard, mir_post *post)
{
    write_op *op = MIR_CONTAINER(post, write_op, post);
    mir_hub_end(op->hub);
    if (shard->stopping) {
        write_free(op);
        return;
    }
    mir_twin *twin = find(shard, op->id_view);
    MIR_ASSERT(twin != NULL && twin->writing);
    /* As in write_told. */
    if (twin->waiters.first != NULL) mir_shard_flush_parcels(shard);
    twin->writing = twin->writes_other = false;
    /* What is being read may be from before this write. */
    if (twin->state == MIR_TWIN_LOADING) twin->stale = true;
    bool ok = op->request.status == MIR_OK;
    switch (op->kind) {
    case WRITE_BEAT:
        ok = ok && op->beat.status == MIR_OK;
        if (ok) {
            twin->last_written_ns = shard->loop->now_ns;
            twin->number = op->beat.number;
            /* It may have been disabled since. */
            if (twin->state == MIR_TWIN_DISABLED) break;
            twin->online = true;
            if (twin->state != MIR_TWIN_LOADING) set_state(twin, MIR_TWIN_READY);
            twin->cell = mir_state_heartbeat_cell(op->hub->state, op->beat.number);
            if (twin->cell != NULL)
                atomic_store_explicit(twin->cell, twin->last_beat_wall_ns, memory_order_relaxed);
        } else if (op->beat.status == MIR_E_PERMISSION) {
            if (twin->state != MIR_TWIN_DISABLED) load(twin); /* the twin did not know yet */
        } else {
            mir_actors_problem(mir_actors_of(shard), mir_twin_id(twin), "not provisioned", 1, "%s",
                               op->request.error != NULL
                                   ? op->request.error
                                   : "its name is taken by another device in namespace default");
        }
        break;
    case WRITE_REFRESH:
        if (ok) twin->last_written_ns = shard->loop->now_ns;
        break;
    case WRITE_OFFLINE:
        if (!ok) break;
        twin->online = false;
        /* A heartbeat that came meanwhile found it online still. */
        if (mir_twin_now(twin) - twin->last_beat_ns < shard->config->presence.offline_after_ns)
            twin->beat_waits = true;
        break;
    case WRITE_SCHEMA: break;
    }
    if (op->schema.schema != NULL && ok) {
        (void)mir_schema_ref(op->schema.schema);
        set_schema(twin, op->schema);
        twin->pull_backoff_ns = 0;
        twin->pull_after_ns = shard->loop->now_ns + PULL_AGAIN_S * MIR_NS_PER_S;
        tell_waiters(twin, NULL);
    } else if (op->kind == WRITE_SCHEMA) {
        tell_waiters(twin, op->request.error);
    }
    if (op->kind == WRITE_SCHEMA) twin->pulling = false;
    /* A change that was committed after this write may have been told, and read, before it: what we
     * know now would be the older of the two for good, a device that is no more online for one. */
    if (op->changes != twin->changes) load(twin);
    write_free(op);
    settle(twin);
    if (twin->beat_waits && !twin->hello_parses && twin->state != MIR_TWIN_LOADING) {
        if (twin->hello.schema != NULL || !twin->online)
            write_beat(twin);
        else
            twin->beat_waits = false;
    }
    if (twin->taken.schema != NULL && !twin->writing) {
        mir_known_schema schema = twin->taken;
        twin->taken = (mir_known_schema){0};
        take_schema(twin, schema);
    }
    end_await(twin);
    forget_surplus(twin);
}

/* On the shard of the lane. */
static void write_told(mir_shard *shard, mir_sequel *sequel)
{
    write_op *op = MIR_CONTAINER(sequel, write_op, sequel);
    mir_sequel_home(shard, op->shard, &op->post);
}

static void write_report(mir_job *job)
{
    write_op *op = MIR_CONTAINER(job, write_op, job);
    mir_events_of_changes(op->hub, &op->request, no_view, &op->request.arena, &op->sequel.letters);
    op->sequel.done = write_told;
    mir_sequel_tell(op->hub, &op->sequel);
}

static void write_done(mir_state_request *request, void *context)
{
    write_op *op = context;
    if (request->status == MIR_OK && request->change_count != 0) {
        mir_sequel_place(op->hub, &op->sequel);
        op->job.run = write_report;
        mir_workers_submit(op->hub->requests, &op->job);
    } else {
        mir_shard_post(op->shard, &op->post);
    }
}

/* False when the store has no room for requests now. */
static bool write_submit(mir_twin *twin, write_op *op)
{
    op->request.cause = &op->hub->own_cause;
    op->request.done = write_done;
    op->request.ctx = op;
    op->post.run = written;
    mir_hub_begin(op->hub);
    if (mir_state_submit(op->hub->state, &op->request) != MIR_OK) {
        mir_hub_end(op->hub);
        return false;
    }
    twin->writing = true;
    twin->writes_other = is_other(twin, &op->schema);
    return true;
}

static void retry_soon(mir_twin *twin)
{
    twin->beat_waits = true;
    mir_timer_set(&twin->shard->loop->timers, &twin->timer,
                  mir_twin_now(twin) + RETRY_MS * MIR_NS_PER_MS);
}

static void write_beat(mir_twin *twin)
{
    if (twin->state == MIR_TWIN_DISABLED) {
        twin->beat_waits = false;
        mir_schema_unref(twin->hello.schema);
        twin->hello = (mir_known_schema){0};
        return;
    }
    if (twin->writing) {
        twin->beat_waits = true;
        return;
    }
    write_op *op = write_new(twin, WRITE_BEAT);
    if (op == NULL) {
        retry_soon(twin);
        return;
    }
    op->schema = twin->hello;
    twin->hello = (mir_known_schema){0};
    op->beat = (mir_state_heartbeat){.device_id = op->id_view, .at_ns = op->at_wall_ns};
    if (op->schema.schema != NULL) {
        write_schema(op, op->at_wall_ns);
        op->beat.schema = &op->schema_in;
    }
    op->request.op = MIR_STATE_HEARTBEAT;
    op->request.heartbeat.beats = &op->beat;
    op->request.heartbeat.count = 1;
    twin->beat_waits = false;
    if (!write_submit(twin, op)) {
        twin->hello = op->schema;
        op->schema = (mir_known_schema){0};
        write_free(op);
        retry_soon(twin);
    }
}

static void write_refresh(mir_twin *twin)
{
    write_op *op = write_new(twin, WRITE_REFRESH);
    if (op == NULL) return;
    op->beat = (mir_state_heartbeat){.device_id = op->id_view, .at_ns = op->at_wall_ns};
    op->request.op = MIR_STATE_HEARTBEAT;
    op->request.heartbeat.beats = &op->beat;
    op->request.heartbeat.count = 1;
    op->request.heartbeat.refresh_only = true;
    if (!write_submit(twin, op)) write_free(op);
}

static void write_offline(mir_twin *twin)
{
    write_op *op = write_new(twin, WRITE_OFFLINE);
    if (op == NULL) return;
    op->request.op = MIR_STATE_OFFLINE;
    op->request.offline.device_ids = &op->id_view;
    op->request.offline.count = 1;
    if (!write_submit(twin, op)) write_free(op);
}

/* --- schemas from the device ---------------------------------------------------------------- */

typedef enum reading_kind { READ_HELLO, READ_ANSWER, READ_PUSH } reading_kind;

typedef struct reading {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_hub *hub;
    reading_kind kind;
    bool compressed;
    uint32_t number; /* twin->sent */
    mir_status status;
    mir_error error;
    mir_known_schema schema;
    size_t id_size, payload_size;
    uint8_t bytes[]; /* id, payload */
} reading;

static void schema_failed(mir_twin *twin, const char *text)
{
    twin->pulling = false;
    int64_t backoff_ns = twin->pull_backoff_ns * 2;
    if (backoff_ns < PULL_BACKOFF_MIN_S * MIR_NS_PER_S)
        backoff_ns = PULL_BACKOFF_MIN_S * MIR_NS_PER_S;
    if (backoff_ns > PULL_BACKOFF_MAX_S * MIR_NS_PER_S)
        backoff_ns = PULL_BACKOFF_MAX_S * MIR_NS_PER_S;
    twin->pull_backoff_ns = backoff_ns;
    twin->pull_after_ns = mir_twin_now(twin) + backoff_ns;
    mir_actors_problem(mir_actors_of(twin->shard), mir_twin_id(twin), "no schema", 1, "%s", text);
    tell_waiters(twin, text);
    /* The schema that it has will not grow by what was held for that. */
    settle(twin);
}

/* Stores a schema that the device sent. */
static void take_schema(mir_twin *twin, mir_known_schema schema)
{
    if (twin->state == MIR_TWIN_DISABLED) {
        mir_schema_unref(schema.schema);
        twin->pulling = false;
        tell_waiters(twin, mir_twin_disabled);
        return;
    }
    if (twin->writing) {
        /* One write at a time: this one follows. */
        mir_schema_unref(twin->taken.schema);
        twin->taken = schema;
        return;
    }
    write_op *op = write_new(twin, WRITE_SCHEMA);
    if (op == NULL) {
        mir_schema_unref(schema.schema);
        schema_failed(twin, "out of memory");
        return;
    }
    op->schema = schema;
    op->request.op = MIR_STATE_SET_SCHEMA;
    op->request.set_schema.device_id = op->id_view;
    write_schema(op, twin->shard->loop->wall_ns);
    op->request.set_schema.schema = op->schema_in;
    if (!write_submit(twin, op)) {
        write_free(op);
        schema_failed(twin, "the store is busy");
    }
}

/* Who reads a large schema may come behind who reads what the device has sent after it. */
static void supersede(mir_twin *twin, reading *op)
{
    if ((int32_t)(op->number - twin->read) > 0) {
        twin->read = op->number;
        return;
    }
    mir_schema_unref(op->schema.schema);
    op->schema = (mir_known_schema){0};
    op->status = op->kind == READ_HELLO ? MIR_E_EMPTY
                                        : mir_error_set(&op->error, MIR_E_UNREACHABLE,
                                                        "the device has sent another schema since");
}

static void read_done(mir_shard *shard, mir_post *post)
{
    reading *op = MIR_CONTAINER(post, reading, post);
    mir_actors_of(shard)->reading_bytes -= sizeof *op + op->id_size + op->payload_size;
    mir_twin *twin = shard->stopping ? NULL : find(shard, mir_view_of(op->bytes, op->id_size));
    mir_hub_end(op->hub);
    if (twin == NULL) {
        mir_schema_unref(op->schema.schema);
        free(op);
        return;
    }
    twin->readings--;
    if (op->status == MIR_OK) supersede(twin, op);
    if (op->kind == READ_HELLO) {
        twin->hello_parses = false;
        if (op->status == MIR_OK) {
            mir_schema_unref(twin->hello.schema);
            twin->hello = op->schema;
        } else if (op->status != MIR_E_EMPTY) {
            mir_actors_problem(mir_actors_of(shard), mir_twin_id(twin), "bad schema", 1, "%s",
                               op->error.text);
        }
        if (twin->state != MIR_TWIN_LOADING && twin->state != MIR_TWIN_COLD) {
            if (twin->hello.schema != NULL || twin->state == MIR_TWIN_ABSENT || !twin->online)
                write_beat(twin);
        } else {
            twin->beat_waits = true;
        }
    } else if (op->status == MIR_OK) {
        take_schema(twin, op->schema);
    } else {
        char text[MIR_ERROR_TEXT_BYTES_MAX + 64];
        (void)snprintf(text, sizeof text, "%s%s",
                       op->status == MIR_E_UNREACHABLE ? "" : "the device's schema is not usable: ",
                       op->error.text);
        schema_failed(twin, text);
    }
    free(op);
    end_await(twin);
    settle(twin);
    forget_surplus(twin);
}

static void read_run(mir_job *job)
{
    reading *op = MIR_CONTAINER(job, reading, job);
    mir_view payload = {op->bytes + op->id_size, op->payload_size};
    op->status = op->kind == READ_HELLO
                     ? mir_schemas_from_hello(op->hub->schemas, payload, op->compressed,
                                              &op->schema, &op->error)
                     : mir_schemas_from_answer(op->hub->schemas, payload, op->compressed,
                                               &op->schema, &op->error);
    mir_shard_post(op->shard, &op->post);
}

static bool read_schema(mir_twin *twin, reading_kind kind, const mir_message *message)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    size_t bytes = sizeof(reading) + twin->id_size + message->payload.size;
    reading *op = NULL;
    if (actors->reading_bytes == 0 || actors->reading_bytes + bytes <= MIR_TWIN_READING_SHARD_BYTES)
        op = calloc(1, bytes);
    if (op == NULL) {
        mir_actors_problem(actors, mir_twin_id(twin), "bad schema", 1, "%s",
                           "it came while too many others were waiting to be read");
        return false;
    }
    actors->reading_bytes += bytes;
    op->job.run = read_run;
    op->post.run = read_done;
    op->shard = twin->shard;
    op->hub = mir_twin_hub(twin);
    op->kind = kind;
    op->number = ++twin->sent;
    mir_view encoding = mir_nats_header(message->header, MIR_VIEW_LITERAL("mir-content-encoding"));
    op->compressed = mir_view_eq_cstr(encoding, "mir-zstd");
    op->id_size = twin->id_size;
    op->payload_size = message->payload.size;
    memcpy(op->bytes, twin->id, twin->id_size);
    if (message->payload.size != 0)
        memcpy(op->bytes + twin->id_size, message->payload.data, message->payload.size);
    mir_hub_begin(op->hub);
    mir_workers_submit(op->hub->requests, &op->job);
    twin->readings++;
    twin->renews = true; /* What the device sends from now on may be of that schema. */
    return true;
}

typedef struct question {
    mir_ask ask;
    size_t id_size;
    char id[];
} question;

static void answered(mir_ask *ask, mir_status status, const mir_message *answer)
{
    question *q = MIR_CONTAINER(ask, question, ask);
    mir_twin *twin = find(ask->shard, mir_view_of(q->id, q->id_size));
    free(q);
    if (twin == NULL || status == MIR_E_CANCELLED) return;
    if (status == MIR_OK && read_schema(twin, READ_ANSWER, answer)) return;
    schema_failed(twin, status == MIR_E_UNREACHABLE
                            ? "error requesting device schema: error publishing request message: "
                              "nats: no responders available for request"
                        : status == MIR_E_TIMEOUT
                            ? "error requesting device schema: error publishing request message: "
                              "nats: timeout"
                            : "error requesting device schema: out of memory");
}

static void pull(mir_twin *twin, mir_twin_waiter *waiter)
{
    if (twin->state == MIR_TWIN_DISABLED) {
        if (waiter == NULL) return;
        waiter->next = NULL;
        waiter->done(twin->shard, waiter, mir_twin_disabled);
        return;
    }
    if (waiter != NULL) {
        if (twin->state == MIR_TWIN_ABSENT) {
            waiter->next = NULL;
            waiter->done(twin->shard, waiter, "no device found to update");
            return;
        }
        add_waiter(&twin->waiters, waiter);
    } else if (mir_twin_now(twin) < twin->pull_after_ns) {
        return;
    }
    if (twin->pulling) return;
    question *q = calloc(1, sizeof *q + twin->id_size);
    if (q == NULL) {
        schema_failed(twin, "error requesting device schema: out of memory");
        return;
    }
    twin->pulling = true;
    q->id_size = twin->id_size;
    memcpy(q->id, twin->id, twin->id_size);
    q->ask.done = answered;
    char subject[MIR_DEVICE_ID_BYTES_MAX + 32], header[160];
    int subject_size =
        snprintf(subject, sizeof subject, "%.*s.v1alpha.schema", twin->id_size, twin->id);
    int header_size = snprintf(header, sizeof header,
                               "NATS/1.0\r\nmir-request-encoding: mir-zstd\r\n"
                               "mir-trigger-chain: %s\r\n\r\n",
                               mir_twin_hub(twin)->instance);
    mir_ask_send(twin->shard, &q->ask, mir_view_of(subject, (size_t)subject_size),
                 mir_view_of(header, (size_t)header_size), no_view,
                 twin->shard->config->schema.request_timeout_ns);
}

void mir_twin_pull(mir_shard *shard, mir_view device_id, mir_twin_waiter *waiter)
{
    mir_twin *twin = find_or_make(shard, device_id);
    if (twin == NULL) {
        waiter->done(shard, waiter, "no device found to update");
        return;
    }
    if (twin->state != MIR_TWIN_COLD && twin->state != MIR_TWIN_LOADING) {
        pull(twin, waiter);
        return;
    }
    add_waiter(&twin->pull_waiters, waiter);
    if (twin->state == MIR_TWIN_COLD) load(twin);
}

bool mir_twin_learn(mir_shard *shard, mir_view device_id, mir_twin_waiter *waiter)
{
    mir_twin *twin = find(shard, device_id);
    if (twin == NULL || twin->state != MIR_TWIN_READY) return false;
    if (!twin->pulling && mir_twin_now(twin) < twin->pull_after_ns) return false;
    pull(twin, waiter);
    return true;
}

/* --- who waits until the device is known ------------------------------------------------------ */

const char mir_twin_unknown[] = "no device found with current targets criteria";
const char mir_twin_disabled[] =
    "the device is disabled: enable it with \"mir device update NAME/NAMESPACE --disabled false\"";

/* Whether what is under way may yet register the device or bring its schema. */
static bool is_settling(const mir_twin *twin)
{
    return twin->state == MIR_TWIN_COLD || twin->state == MIR_TWIN_LOADING || twin->writing ||
           twin->hello_parses || twin->beat_waits;
}

static void end_await(mir_twin *twin)
{
    if (twin->await.first == NULL || is_settling(twin)) return;
    mir_twin_waiter *waiter = take_waiters(&twin->await);
    while (waiter != NULL) {
        mir_twin_waiter *next = waiter->next;
        if (twin->state == MIR_TWIN_ABSENT)
            waiter->done(twin->shard, waiter, mir_twin_unknown);
        else if (twin->state == MIR_TWIN_DISABLED)
            waiter->done(twin->shard, waiter, mir_twin_disabled);
        else if (twin->schema.schema != NULL)
            waiter->done(twin->shard, waiter, NULL);
        else
            pull(twin, waiter);
        waiter = next;
    }
}

void mir_twin_await(mir_shard *shard, const mir_message *message, mir_twin_waiter *waiter)
{
    mir_twin *twin = find_or_make(shard, message->key);
    if (twin == NULL) {
        waiter->done(shard, waiter, mir_twin_unknown);
        return;
    }
    twin->last_active_ns = shard->loop->now_ns;
    if (message->function == MIR_DEVICE_REPORT && mir_twin_telemetry_floods(twin)) {
        waiter->done(shard, waiter, "more messages a second than limits.device_rate allows");
        return;
    }
    if (twin->state == MIR_TWIN_COLD && mir_actors_of(shard)->loading >= MIR_TWIN_LOADING_SHARD)
        mir_shard_tell_congested(shard, message->publisher);
    if (twin->state == MIR_TWIN_DISABLED)
        refuse_connection(twin, message->publisher);
    else
        twin->speaker = message->publisher;
    add_waiter(&twin->await, waiter);
    if (twin->state == MIR_TWIN_COLD)
        load(twin);
    else
        end_await(twin);
}

/* --- presence ------------------------------------------------------------------------------- */

static void heartbeat(mir_twin *twin, const mir_message *message)
{
    mir_loop *loop = twin->shard->loop;
    twin->last_beat_wall_ns = loop->wall_ns;
    twin->last_beat_ns = loop->now_ns;
    if (twin->cell != NULL) atomic_store_explicit(twin->cell, loop->wall_ns, memory_order_relaxed);
    int64_t offline_after_ns = twin->shard->config->presence.offline_after_ns;
    /* The timer looks at the last heartbeat when it fires: an earlier one need not be moved. */
    if (!mir_timer_is_set(&twin->timer) || twin->timer.due_ns > loop->now_ns + offline_after_ns)
        mir_timer_set(&loop->timers, &twin->timer, loop->now_ns + offline_after_ns);
    mir_view content = mir_nats_header(message->header, MIR_VIEW_LITERAL("mir-content"));
    bool hello = message->payload.size != 0 && mir_view_eq_cstr(content, "mir-hello") &&
                 read_schema(twin, READ_HELLO, message);
    if (hello) twin->hello_parses = true;
    if (twin->state == MIR_TWIN_COLD || twin->state == MIR_TWIN_LOADING) {
        twin->beat_waits = true;
        twin->speaker = message->publisher;
        if (twin->state == MIR_TWIN_COLD) load(twin);
        return;
    }
    if (twin->hello_parses) return;
    if (twin->state == MIR_TWIN_ABSENT || !twin->online || twin->hello.schema != NULL)
        write_beat(twin);
}

static void on_timer(mir_timer *timer, void *context)
{
    (void)context;
    mir_twin *twin = MIR_CONTAINER(timer, mir_twin, timer);
    mir_loop *loop = twin->shard->loop;
    int64_t offline_after_ns = twin->shard->config->presence.offline_after_ns;
    int64_t next_ns = loop->now_ns + offline_after_ns;
    if (twin->beat_waits && !twin->writing && !twin->hello_parses &&
        (twin->state == MIR_TWIN_READY || twin->state == MIR_TWIN_ABSENT)) {
        write_beat(twin);
        if (!twin->writing) return; /* The timer is set for another try. */
    } else if (twin->online) {
        int64_t due_ns = twin->last_beat_ns + offline_after_ns;
        if (due_ns > loop->now_ns) {
            next_ns = due_ns;
            if (!twin->writing && twin->state == MIR_TWIN_READY && twin->last_beat_wall_ns != 0 &&
                loop->now_ns - twin->last_written_ns > REFRESH_S * MIR_NS_PER_S)
                write_refresh(twin);
        } else if (!twin->writing) {
            write_offline(twin);
            next_ns = loop->now_ns + MIR_NS_PER_S;
        }
    } else {
        int64_t idle_ns =
            (twin->state == MIR_TWIN_ABSENT ? UNKNOWN_IDLE_S : MIR_TWIN_IDLE_S) * MIR_NS_PER_S;
        bool busy = is_busy(twin);
        if (!busy && loop->now_ns - twin->last_active_ns >= idle_ns) {
            mir_twin_telemetry_drop(twin, "telemetry refused",
                                    twin->state == MIR_TWIN_ABSENT
                                        ? "the device is not provisioned (it sent no heartbeat)"
                                        : "its schema could not be had");
            free_twin(twin);
            return;
        }
        next_ns = loop->now_ns + (busy ? MIR_NS_PER_S : idle_ns);
    }
    if (twin->state == MIR_TWIN_READY && twin->schema.schema == NULL &&
        twin->telemetry.held != NULL)
        pull(twin, NULL);
    mir_timer_set(&loop->timers, timer, next_ns);
}

void mir_twin_receive(mir_shard *shard, const mir_message *message)
{
    mir_twin *twin =
        message->key_hash == 0 ? NULL : find_hashed(shard, message->key, message->key_hash);
    if (__builtin_expect(twin == NULL, 0)) twin = find_or_make(shard, message->key);
    if (twin == NULL) {
        if (message->function == MIR_DEVICE_TELEMETRY) mir_actors_of(shard)->telemetry_refused++;
        return;
    }
    twin->last_active_ns = shard->loop->now_ns;
    /* Who wakes devices faster than the store reads them waits, and not those behind it. */
    if (__builtin_expect(twin->state == MIR_TWIN_COLD, 0) &&
        mir_actors_of(shard)->loading >= MIR_TWIN_LOADING_SHARD)
        mir_shard_tell_congested(shard, message->publisher);
    switch ((mir_function)message->function) {
    case MIR_DEVICE_TELEMETRY:
        if (mir_twin_telemetry_take(twin, message)) break;
        if (twin->state == MIR_TWIN_DISABLED) {
            refuse_connection(twin, message->publisher);
            break;
        }
        twin->speaker = message->publisher;
        if (twin->state == MIR_TWIN_COLD) load(twin);
        if (twin->state == MIR_TWIN_READY && !twin->renews) pull(twin, NULL);
        break;
    case MIR_DEVICE_HEARTBEAT:
        if (twin->state == MIR_TWIN_DISABLED) {
            refuse_sign(twin, message);
            break;
        }
        heartbeat(twin, message);
        mir_cmd_queue_wake(shard, message->key);
        break;
    case MIR_DEVICE_SCHEMA:
        if (twin->state == MIR_TWIN_DISABLED) {
            refuse_sign(twin, message);
            break;
        }
        if (twin->state == MIR_TWIN_COLD) load(twin);
        (void)read_schema(twin, READ_PUSH, message);
        break;
    default: MIR_ASSERT(false);
    }
}
