/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_twin_telemetry.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_nats.h"
#include "mir_notices.h"
#include "mir_plan.h"
#include "mir_twin_internal.h"

enum { SERIES_PER_TWIN_MAX = 256, HEADER_KEPT_BYTES_MAX = 128 };

typedef struct mir_twin_series {
    struct mir_twin_series *next;
    mir_plan *plan;
    mir_tlog_series *log;
    int64_t arrived_ns; /* of the last row that has the time of its arrival */
    uint32_t name_size;
    uint32_t header_size;
    uint8_t *header; /* the block that came with one of its messages; null: none yet */
    char name[];
} series;

typedef struct mir_twin_held {
    struct mir_twin_held *next;
    int64_t received_wall_ns;
    int16_t source; /* the shard whose PONGs wait for this one's activation; -1: none */
    uint8_t tag;    /* of its generation there */
    uint32_t name_size, payload_size;
    uint8_t bytes[]; /* name, payload */
} held;

/* Plans are shared by the devices of a shard that have the same schema. */
typedef struct shared_plan {
    mir_map_node by_message;
    const mir_schema_message *message;
    mir_schema *schema; /* a reference: keeps the message */
    mir_plan *plan;
} shared_plan;

enum { SHARED_PLANS_MAX = 16384 };

static mir_status find_plan(mir_actors *actors, mir_schema *schema,
                            const mir_schema_message *message, mir_plan **plan, mir_error *error)
{
    uint64_t hash = mir_hash_bytes(&message, sizeof message);
    for (mir_map_node *n = mir_map_first(&actors->plans, hash); n != NULL; n = mir_map_next(n)) {
        shared_plan *shared = MIR_CONTAINER(n, shared_plan, by_message);
        if (shared->message != message) continue;
        *plan = mir_plan_ref(shared->plan);
        return MIR_OK;
    }
    mir_status status = mir_plan_compile(schema, message, plan, error);
    if (status != MIR_OK || actors->plans.count >= SHARED_PLANS_MAX) return status;
    shared_plan *shared = calloc(1, sizeof *shared);
    if (shared == NULL) return MIR_OK; /* It is only a cache. */
    *shared = (shared_plan){
        .message = message, .schema = mir_schema_ref(schema), .plan = mir_plan_ref(*plan)};
    mir_map_add(&actors->plans, &shared->by_message, hash);
    return MIR_OK;
}

void mir_twin_telemetry_free_plans(mir_actors *actors)
{
    uint32_t from = 0;
    mir_map_node *node;
    while ((node = mir_map_any(&actors->plans, &from)) != NULL) {
        shared_plan *shared = MIR_CONTAINER(node, shared_plan, by_message);
        mir_map_remove(&actors->plans, node);
        mir_plan_unref(shared->plan);
        mir_schema_unref(shared->schema);
        free(shared);
    }
}

static mir_status open_series(mir_twin *twin, mir_view name, series **out, mir_error *error)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    const mir_schema_message *message;
    mir_status status = mir_schema_find(twin->schema.schema, name, &message, error);
    if (status != MIR_OK) return status;
    if (twin->telemetry.series_count >= SERIES_PER_TWIN_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d kinds of telemetry messages",
                             SERIES_PER_TWIN_MAX);
    series *fresh = calloc(1, sizeof *fresh + name.size);
    if (fresh == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    status = find_plan(actors, twin->schema.schema, message, &fresh->plan, error);
    if (status != MIR_OK) {
        free(fresh);
        return status;
    }
    uint32_t count;
    const mir_column *columns = mir_plan_columns(fresh->plan, &count);
    status =
        mir_tlog_series_open(actors->log, mir_twin_id(twin), name, columns, count, &fresh->log);
    if (status != MIR_OK) {
        mir_plan_unref(fresh->plan);
        free(fresh);
        return mir_error_set(error, status, "cannot open the series: %s", mir_status_name(status));
    }
    fresh->name_size = (uint32_t)name.size;
    memcpy(fresh->name, name.data, name.size);
    fresh->next = twin->telemetry.series;
    twin->telemetry.series = fresh;
    twin->telemetry.series_count++;
    *out = fresh;
    return MIR_OK;
}

void mir_twin_telemetry_forget(mir_twin *twin)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    while (twin->telemetry.series != NULL) {
        series *next = twin->telemetry.series->next;
        mir_tlog_series_close(actors->log, twin->telemetry.series->log);
        mir_plan_unref(twin->telemetry.series->plan);
        free(twin->telemetry.series->header);
        free(twin->telemetry.series);
        twin->telemetry.series = next;
    }
    twin->telemetry.series_count = 0;
}

/* Whoever invents ids makes no events. */
static void count_refused(mir_twin *twin, const char *kind, uint64_t count, const char *text)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    actors->telemetry_refused += count;
    mir_actors_problem(actors, mir_twin_id(twin), kind, count, "%s", text);
    if (twin->state == MIR_TWIN_ABSENT) return;
    mir_notice notice = {.reason = MIR_NOTICE_TELEMETRY_REFUSED,
                         .device_id = mir_twin_id(twin),
                         .kind = kind,
                         .text = mir_view_cstr(text),
                         .count = count};
    mir_notices_tell(twin->shard, &notice);
}

static void refuse(mir_twin *twin, const char *kind, const char *text)
{
    count_refused(twin, kind, 1, text);
}

static void refuse_unknown(mir_twin *twin, mir_view name)
{
    char text[160];
    (void)snprintf(text, sizeof text, "%.*s is not in the device's schema",
                   name.size > 100 ? 100 : (int)name.size, (const char *)name.data);
    refuse(twin, "unknown message", text);
}

/* A clock that is wrong would keep its rows away from every query, and from retention. */
static void refuse_future(mir_twin *twin, mir_view name, int64_t time_ns, int64_t now_ns)
{
    char text[200];
    const uint64_t ahead_s = ((uint64_t)time_ns - (uint64_t)now_ns) / (uint64_t)MIR_NS_PER_S;
    (void)snprintf(text, sizeof text,
                   "%.*s is %" PRIu64 " h %" PRIu64 " min ahead of now, more than "
                   "telemetry.future_limit: set the device's clock",
                   name.size > 60 ? 60 : (int)name.size, (const char *)name.data, ahead_s / 3600,
                   ahead_s / 60 % 60);
    refuse(twin, "future time", text);
}

/* Without it names are looked up in each header. */
static void keep_header(series *s, mir_view header)
{
    if (header.size == 0 || header.size > HEADER_KEPT_BYTES_MAX) return;
    s->header = malloc(header.size);
    if (s->header == NULL) return;
    memcpy(s->header, header.data, header.size);
    s->header_size = (uint32_t)header.size;
}

/* Messages without a time of their own that are read in one turn have the same time of arrival, and
 * rows of the same time would be one row. A clock that was set back is followed. */
static int64_t tell_apart(series *s, int64_t received_wall_ns)
{
    int64_t time_ns = received_wall_ns;
    if (time_ns <= s->arrived_ns && s->arrived_ns - time_ns < MIR_NS_PER_S)
        time_ns = s->arrived_ns + 1;
    s->arrived_ns = time_ns;
    return time_ns;
}

/* MIR_E_NOT_FOUND when the schema does not know the message; everything else is settled here. */
static mir_status ingest(mir_twin *twin, mir_view name, mir_view header, mir_view payload,
                         int64_t received_wall_ns)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    series *s = twin->telemetry.series;
    /* The name is the series' own when the header was. */
    if (__builtin_expect(s == NULL || s->name_size != name.size ||
                             (name.data != (const uint8_t *)s->name &&
                              memcmp(s->name, name.data, name.size) != 0),
                         0)) {
        series **place = &twin->telemetry.series;
        while ((s = *place) != NULL &&
               (s->name_size != name.size || memcmp(s->name, name.data, name.size) != 0))
            place = &s->next;
        if (s == NULL) {
            mir_error error = {{0}};
            mir_status status = open_series(twin, name, &s, &error);
            if (status == MIR_E_NOT_FOUND) return status;
            if (status != MIR_OK) {
                refuse(twin, "telemetry refused", error.text);
                return MIR_OK;
            }
        } else {
            /* What is sent now is likely to be sent next. */
            *place = s->next;
            s->next = twin->telemetry.series;
            twin->telemetry.series = s;
        }
    }
    if (__builtin_expect(s->header == NULL, 0)) keep_header(s, header);
    mir_row *row = &actors->row;
    mir_tlog_expect(s->log);
    mir_status status = mir_plan_decode(s->plan, payload, received_wall_ns, row);
    const int64_t future_ns = twin->shard->config->telemetry.future_limit_ns;
    if (status == MIR_OK && future_ns != 0 &&
        __builtin_expect(row->time_ns > received_wall_ns + future_ns, 0)) {
        refuse_future(twin, name, row->time_ns, received_wall_ns);
        return MIR_OK;
    }
    if (status == MIR_OK && row->time_ns == received_wall_ns)
        row->time_ns = tell_apart(s, received_wall_ns);
    if (status == MIR_OK) status = mir_tlog_append(actors->log, s->log, row);
    if (__builtin_expect(status == MIR_OK, 1)) {
        actors->telemetry_accepted++;
        twin->shard->staged++;
        return MIR_OK;
    }
    char text[200];
    const char *what = "cannot be stored";
    if (status == MIR_E_INVALID) what = "is not a valid protobuf message of that type";
    if (status == MIR_E_EMPTY) what = "has no field with a value";
    if (status == MIR_E_TOO_LARGE) what = "has more or larger fields than can be stored";
    if (status == MIR_E_FULL) what = "came faster than the disk takes it";
    if (status == MIR_E_NO_SPACE) what = "finds no room on the disk";
    (void)snprintf(text, sizeof text, "%.*s %s", name.size > 100 ? 100 : (int)name.size,
                   (const char *)name.data, what);
    refuse(twin, status == MIR_E_INVALID ? "bad payload" : "telemetry refused", text);
    return MIR_OK;
}

/* --- what is held ----------------------------------------------------------------------------- */

static uint32_t held_size(const held *message)
{
    return (uint32_t)(sizeof *message + message->name_size + message->payload_size);
}

/* What waited for the activation does so no more: it is stored, or waits for something that may not
 * come, which no PONG promises. */
static void release_held(mir_twin *twin)
{
    for (held *h = twin->telemetry.held; h != NULL; h = h->next) {
        if (h->source < 0) continue;
        mir_holding_remove(&twin->shard->holding[h->source], h->tag);
        h->source = -1;
    }
}

void mir_twin_telemetry_drop(mir_twin *twin, const char *kind, const char *why)
{
    release_held(twin);
    mir_actors *actors = mir_actors_of(twin->shard);
    if (kind != NULL && twin->telemetry.held_count != 0)
        count_refused(twin, kind, twin->telemetry.held_count, why);
    while (twin->telemetry.held != NULL) {
        held *next = twin->telemetry.held->next;
        free(twin->telemetry.held);
        twin->telemetry.held = next;
    }
    twin->telemetry.held_last = NULL;
    actors->held_bytes -= twin->telemetry.held_bytes;
    twin->telemetry.held_count = twin->telemetry.held_bytes = 0;
}

static bool knows_schema(const mir_twin *twin)
{
    return twin->state == MIR_TWIN_READY && twin->schema.schema != NULL;
}

/* What it waits for always ends, and soon: the twin is being read, a heartbeat that registers the device is
 * being written, or a schema that came from the device is being read and written. */
static bool is_passing(const mir_twin *twin)
{
    return twin->state == MIR_TWIN_COLD || twin->state == MIR_TWIN_LOADING || twin->renews ||
           (twin->state == MIR_TWIN_ABSENT && twin->writing);
}

/* The device may have learnt a message since: it is asked once in a while. */
static bool may_learn(const mir_twin *twin)
{
    return twin->pulling || mir_twin_now(twin) >= twin->pull_after_ns;
}

static void hold(mir_twin *twin, mir_view name, const mir_message *message)
{
    mir_view payload = message->payload;
    int64_t received_wall_ns = twin->shard->loop->wall_ns;
    mir_actors *actors = mir_actors_of(twin->shard);
    size_t bytes = sizeof(held) + name.size + payload.size;
    bool passes = is_passing(twin);
    bool room = passes ? bytes <= MIR_TWIN_ACTIVATION_BYTES - twin->telemetry.held_bytes &&
                             actors->held_bytes + bytes <= MIR_TWIN_ACTIVATION_SHARD_BYTES
                       : twin->telemetry.held_count < MIR_TWIN_HELD_MESSAGES &&
                             bytes <= MIR_TWIN_HELD_BYTES &&
                             twin->telemetry.held_bytes + bytes <= MIR_TWIN_HELD_BYTES;
    held *fresh = room ? malloc(bytes) : NULL;
    if (fresh == NULL) {
        refuse(twin, "telemetry refused",
               passes ? "it came faster than the device, or its schema, could be read and written"
               : twin->state == MIR_TWIN_ABSENT
                   ? "the device is not provisioned (it sent no heartbeat)"
                   : "its schema is not known yet");
        return;
    }
    *fresh = (held){.received_wall_ns = received_wall_ns,
                    .source = passes && message->publisher != 0
                                  ? (int16_t)mir_ref_shard(message->publisher)
                                  : -1,
                    .name_size = (uint32_t)name.size,
                    .payload_size = (uint32_t)payload.size};
    memcpy(fresh->bytes, name.data, name.size);
    if (payload.size != 0) memcpy(fresh->bytes + name.size, payload.data, payload.size);
    if (twin->telemetry.held_last == NULL)
        twin->telemetry.held = fresh;
    else
        twin->telemetry.held_last->next = fresh;
    twin->telemetry.held_last = fresh;
    if (fresh->source >= 0) fresh->tag = mir_holding_add(&twin->shard->holding[fresh->source]);
    twin->telemetry.held_count++;
    twin->telemetry.held_bytes += (uint32_t)bytes;
    actors->held_bytes += bytes;
}

/* The generic cell rate algorithm of ATM (ITU-T I.371): a burst of one second's messages is fine. */
bool mir_twin_telemetry_floods(mir_twin *twin)
{
    int64_t rate = twin->shard->config->limits.device_rate;
    if (rate == 0) return false;
    int64_t now_ns = mir_twin_now(twin);
    if (twin->telemetry.due_ns < now_ns) twin->telemetry.due_ns = now_ns;
    if (twin->telemetry.due_ns - now_ns > MIR_NS_PER_S) return true;
    twin->telemetry.due_ns += MIR_NS_PER_S / rate;
    return false;
}

/* Most messages have the header of an earlier one, byte by byte. */
static mir_view name_of(const mir_twin *twin, mir_view header)
{
    const series *s = twin->telemetry.series;
    if (s != NULL && header.size != 0 && s->header_size == header.size &&
        memcmp(s->header, header.data, header.size) == 0)
        return mir_view_of(s->name, s->name_size);
    return mir_nats_header(header, MIR_VIEW_LITERAL("mir-msg"));
}

bool mir_twin_telemetry_take(mir_twin *twin, const mir_message *message)
{
    int64_t wall_ns = twin->shard->loop->wall_ns;
    if (__builtin_expect(mir_twin_telemetry_floods(twin), 0)) {
        refuse(twin, "flood", "more messages a second than limits.device_rate allows");
        return true;
    }
    mir_view name = name_of(twin, message->header);
    if (__builtin_expect(name.size == 0 || name.size > MIR_TLOG_MEASUREMENT_BYTES_MAX, 0)) {
        refuse(twin, "unknown message", "telemetry without the header mir-msg that names its type");
        return true;
    }
    if (__builtin_expect(knows_schema(twin), 1)) {
        /* It may be of a schema that came just before it, which this twin does not go by yet. */
        if (__builtin_expect(twin->renews, 0)) {
            hold(twin, name, message);
            return true;
        }
        /* What is held beside a known schema is of types that it lacks: it holds nothing else up. */
        if (ingest(twin, name, message->header, message->payload, wall_ns) == MIR_OK) return true;
        if (!may_learn(twin)) {
            refuse_unknown(twin, name);
            return true;
        }
    }
    if (twin->state == MIR_TWIN_DISABLED) {
        refuse(twin, "disabled", mir_twin_disabled);
        return false;
    }
    hold(twin, name, message);
    return false;
}

/* More may wait for an activation than for a heartbeat or a schema, which may never come: the
 * latest go. */
static void trim_held(mir_twin *twin)
{
    mir_actors *actors = mir_actors_of(twin->shard);
    held **place = &twin->telemetry.held, *last = NULL;
    uint32_t count = 0, bytes = 0;
    for (held *h = twin->telemetry.held; h != NULL; h = h->next) {
        uint32_t size = held_size(h);
        if (count == MIR_TWIN_HELD_MESSAGES || size > MIR_TWIN_HELD_BYTES - bytes) break;
        count++;
        bytes += size;
        last = h;
        place = &h->next;
    }
    held *rest = *place;
    if (rest == NULL) return;
    *place = NULL;
    twin->telemetry.held_last = last;
    uint32_t refused = twin->telemetry.held_count - count;
    actors->held_bytes -= twin->telemetry.held_bytes - bytes;
    twin->telemetry.held_count = count;
    twin->telemetry.held_bytes = bytes;
    while (rest != NULL) {
        held *next = rest->next;
        free(rest);
        rest = next;
    }
    count_refused(twin, "telemetry refused", refused,
                  twin->state == MIR_TWIN_ABSENT
                      ? "the device is not provisioned (it sent no heartbeat)"
                      : "its schema is not known yet");
}

void mir_twin_telemetry_settle(mir_twin *twin)
{
    if (is_passing(twin)) return;
    release_held(twin);
    if (!knows_schema(twin)) {
        trim_held(twin);
        return;
    }
    held *message = twin->telemetry.held, **place = &twin->telemetry.held;
    uint32_t count = 0, bytes = 0;
    twin->telemetry.held_last = NULL;
    while (message != NULL) {
        held *next = message->next;
        mir_view name = {message->bytes, message->name_size};
        mir_view payload = {message->bytes + message->name_size, message->payload_size};
        if (ingest(twin, name, (mir_view){0}, payload, message->received_wall_ns) == MIR_OK) {
            free(message);
        } else if (may_learn(twin)) {
            twin->telemetry.held_last = *place = message;
            place = &message->next;
            count++;
            bytes += held_size(message);
        } else {
            refuse_unknown(twin, name);
            free(message);
        }
        message = next;
    }
    *place = NULL;
    mir_actors_of(twin->shard)->held_bytes -= twin->telemetry.held_bytes - bytes;
    twin->telemetry.held_count = count;
    twin->telemetry.held_bytes = bytes;
    trim_held(twin);
}
