/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cfg_device.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_api/v1/device.pb-c.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_events.h"
#include "mir_json_normal.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_reply.h"
#include "mir_timestamp.h"
#include "mir_twin.h"

typedef MirApi__V1__DeviceEncodedReportedProperties properties_message;
typedef MirApi__V1__DeviceEncodedReportedProperties__PropertiesEntry property_entry;

typedef struct mir_cfg_message message;

struct mir_cfg_message {
    message *next;
    mir_twin_waiter waiter;
    bool reports;    /* otherwise it asks */
    bool is_unknown; /* the schema does not have what is reported */
    bool was_asked;  /* the device, for a schema that has it */
    int64_t received_ns, goes_by_ns;
    mir_view device_id, reply, name, payload;
    json_t *desired; /* all that is stored; of a request */
    char *refusal;   /* why it gets no properties, known before it is read */
    /* In a batch: */
    MirStore__V1__DeviceRecord *record;
    mir_schema *schema;
    const mir_schema_message *of;      /* REPORT */
    size_t first_change, change_count; /* in the batch's list */
    char *error;
    uint8_t bytes[]; /* what the views show */
};

/* The default of one message, for all devices of a batch. */
typedef struct default_value {
    const mir_schema_message *of;
    mir_view object;
    const char *error;
} default_value;

enum { DEFAULTS_MAX = 256 };

typedef struct batch {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_hub *hub;
    message *first;
    mir_arena arena;
    mir_state_request request;
    mir_state_property *list;
    size_t count, capacity;
    default_value defaults[DEFAULTS_MAX];
    size_t default_count;
    mir_letters letters;
    mir_sequel sequel;
} batch;

static const char busy[] = "the server is busy: try again";

static size_t size_of(const message *m)
{
    return sizeof *m + m->device_id.size + m->reply.size + m->name.size + m->payload.size;
}

static void message_free(mir_shard *shard, message *m)
{
    mir_cfg_intake *intake = &mir_actors_of(shard)->properties;
    intake->waiting--;
    intake->bytes -= size_of(m);
    mir_schema_unref(m->schema);
    json_decref(m->desired);
    free(m->refusal);
    free(m);
}

static void refuse_report(mir_shard *shard, mir_view device_id, const char *text)
{
    mir_actors_problem(mir_actors_of(shard), device_id, "property refused", 1, "%s", text);
}

/* --- replies -------------------------------------------------------------------------------- */

static void add_reply(const mir_hub *hub, mir_letters *letters, mir_view reply,
                      properties_message *properties, const char *error)
{
    MirApi__V1__DeviceReportedPropertiesResponse response =
        MIR_API__V1__DEVICE_REPORTED_PROPERTIES_RESPONSE__INIT;
    if (error != NULL) {
        response.response_case = MIR_API__V1__DEVICE_REPORTED_PROPERTIES_RESPONSE__RESPONSE_ERROR;
        response.error = (char *)(uintptr_t)error;
    } else {
        response.response_case = MIR_API__V1__DEVICE_REPORTED_PROPERTIES_RESPONSE__RESPONSE_OK;
        response.ok = properties;
    }
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    size_t size = mir_chain_block((mir_view){NULL, 0}, mir_hub_instance(hub), header);
    mir_letters_add_packed(letters, reply, mir_view_of(header, size), &response.base);
}

static void reply_error(mir_shard *shard, mir_view reply, const char *error)
{
    if (!mir_reply_is_inbox(reply)) return;
    mir_letters letters = {0};
    add_reply(mir_actors_of(shard)->hub, &letters, reply, NULL, error);
    mir_letters_publish(shard, &letters);
}

/* --- a batch on a worker: what is wanted, what is reported ------------------------------------ */

static char *copy_text(batch *b, mir_view text)
{
    return mir_arena_strdup(&b->arena, text);
}

static void fail(batch *b, message *m, const char *prefix, const char *cause)
{
    char text[MIR_ERROR_TEXT_BYTES_MAX + 64];
    (void)snprintf(text, sizeof text, "%s%s", prefix, cause);
    m->error = copy_text(b, mir_view_cstr(text));
    if (m->error == NULL) m->error = (char *)(uintptr_t) "out of memory";
}

/* Adds a property to those that are stored; false when there is no room. */
static bool add_property(batch *b, const mir_state_property *property)
{
    if (b->count == MIR_STATE_PROPERTIES_PER_REQUEST_MAX) return false;
    if (b->count == b->capacity) {
        size_t capacity = b->capacity == 0 ? 256 : b->capacity * 2;
        mir_state_property *grown = mir_arena_alloc(&b->arena, capacity * sizeof *grown);
        if (grown == NULL) return false;
        if (b->count != 0) memcpy(grown, b->list, b->count * sizeof *grown);
        b->list = grown;
        b->capacity = capacity;
    }
    b->list[b->count++] = *property;
    return true;
}

static const default_value *default_of(batch *b, const mir_schema_message *of)
{
    for (size_t i = 0; i < b->default_count; i++)
        if (b->defaults[i].of == of) return &b->defaults[i];
    if (b->default_count == DEFAULTS_MAX) b->default_count = 0;
    default_value *made = &b->defaults[b->default_count++];
    *made = (default_value){.of = of};
    mir_bytes object = {0};
    mir_error error = {""};
    if (mir_json_normal_default(of, &object, &error) == MIR_OK) {
        char *copy = copy_text(b, mir_bytes_as_view(&object));
        made->object = mir_view_of(copy, copy == NULL ? 0 : object.size);
    }
    if (made->object.size == 0) made->error = "it has no default";
    mir_bytes_free(&object);
    return made;
}

static mir_view desired_json(const MirStore__V1__DeviceRecord *record)
{
    if (!record->has_desired_json) return (mir_view){NULL, 0};
    return mir_view_of(record->desired_json.data, record->desired_json.len);
}

/* Which of its properties have no desired value yet: those get their default. */
static void ask_defaults(batch *b, message *m)
{
    uint32_t count = 0;
    const mir_schema_message *const *list =
        mir_schema_list(m->schema, MIR_MESSAGE_TELECONFIG, &count);
    if (count > MIR_CFG_PROPERTIES_MAX) count = MIR_CFG_PROPERTIES_MAX;
    mir_view stored = desired_json(m->record);
    if (stored.size != 0 && mir_json_parse(stored, &m->desired, NULL) != MIR_OK) {
        fail(b, m, "", "the stored properties cannot be read");
        return;
    }
    m->first_change = b->count;
    for (uint32_t i = 0; i < count && m->error == NULL; i++) {
        if (json_object_get(m->desired, list[i]->name) != NULL) continue;
        const default_value *value = default_of(b, list[i]);
        if (value->error != NULL) continue;
        mir_state_property property = {.kind = MIR_STATE_PROPERTY_DEFAULT,
                                       .device_id = m->device_id,
                                       .name = list[i]->name,
                                       .object = value->object,
                                       .at_ns = m->received_ns};
        if (!add_property(b, &property)) fail(b, m, "", busy);
    }
    if (m->error != NULL) b->count = m->first_change;
    m->change_count = b->count - m->first_change;
}

static void take_report(batch *b, message *m)
{
    mir_error error = {""};
    mir_bytes object = {0};
    mir_status status = mir_schema_find(m->schema, m->name, &m->of, &error);
    m->is_unknown = status == MIR_E_NOT_FOUND;
    if (status == MIR_OK) status = mir_json_check_proto(m->of, m->payload, &error);
    if (status == MIR_OK)
        status =
            mir_json_normal_of_proto(m->of, m->payload, MIR_JSON_DEFAULTS_EMITTED, &object, &error);
    char *copy = status == MIR_OK ? copy_text(b, mir_bytes_as_view(&object)) : NULL;
    if (copy == NULL) {
        char text[MIR_ERROR_TEXT_BYTES_MAX + MIR_ERROR_TEXT_BYTES_MAX];
        (void)snprintf(text, sizeof text, "%.*s: %s", m->name.size > 100 ? 100 : (int)m->name.size,
                       (const char *)m->name.data, status == MIR_OK ? "out of memory" : error.text);
        fail(b, m, "", text);
    } else {
        mir_state_property property = {.kind = MIR_STATE_PROPERTY_REPORT,
                                       .device_id = m->device_id,
                                       .name = m->of->name,
                                       .object = mir_view_of(copy, object.size),
                                       .at_ns = m->received_ns,
                                       .goes_by_ns = m->goes_by_ns};
        m->first_change = b->count;
        m->change_count = add_property(b, &property) ? 1 : 0;
        if (m->change_count == 0) fail(b, m, "", busy);
    }
    mir_bytes_free(&object);
}

static void read_device(batch *b, message *m)
{
    if (!mir_reply_allowed(b->hub, m->reply)) m->reply.size = 0;
    if (m->refusal != NULL) {
        m->error = m->refusal;
        return;
    }
    mir_error error = {""};
    mir_status status = mir_state_get(b->hub->state, m->device_id, &b->arena, &m->record, &error);
    if (status != MIR_OK) {
        fail(b, m, "", status == MIR_E_NOT_FOUND ? mir_twin_unknown : error.text);
        return;
    }
    if (m->record->has_disabled && m->record->disabled) {
        fail(b, m, "", mir_twin_disabled);
        return;
    }
    mir_known_schema known = {0};
    mir_view hash = {NULL, 0};
    if (m->record->has_schema_hash)
        hash = mir_view_of(m->record->schema_hash.data, m->record->schema_hash.len);
    if (mir_schemas_get(b->hub->schemas, hash, &known, &error) != MIR_OK) {
        fail(b, m, "cannot reconcile device schema: ", error.text);
        return;
    }
    m->schema = known.schema;
    if (m->reports)
        take_report(b, m);
    else
        ask_defaults(b, m);
}

/* --- a batch on a worker again: answers ------------------------------------------------------ */

static mir_view set_property(batch *b, const mir_schema_message *of, mir_view object)
{
    mir_bytes payload = {0};
    char *copy = NULL;
    mir_error error = {""};
    if (mir_json_to_proto(of, object, &payload, &error) == MIR_OK)
        copy = copy_text(b, mir_bytes_as_view(&payload));
    mir_view made = mir_view_of(copy, copy == NULL ? 0 : payload.size);
    mir_bytes_free(&payload);
    return made;
}

/* The value of one property and its time; false: it is left out, as the device cannot read it. */
static bool add_entry(batch *b, const message *m, const mir_schema_message *of,
                      property_entry *entry, MirApi__V1__DeviceEncodedProperties *value)
{
    mir_view object = {NULL, 0};
    int64_t at_ns = 0;
    for (size_t i = m->first_change; i < m->first_change + m->change_count; i++) {
        if (strcmp(b->list[i].name, of->name) != 0) continue;
        if (b->list[i].status != MIR_OK) return false;
        object = b->list[i].merged;
        at_ns = b->list[i].merged_ns;
    }
    mir_bytes text = {0};
    if (object.size == 0) {
        const json_t *stored = json_object_get(m->desired, of->name);
        if (stored == NULL || mir_json_generic(stored, &text, NULL) != MIR_OK) return false;
        object = mir_bytes_as_view(&text);
        at_ns = mir_state_property_time_ns(m->record, false, of->name);
    }
    mir_view payload = set_property(b, of, object);
    mir_bytes_free(&text);
    if (payload.data == NULL) return false;
    char time[64];
    int size = mir_timestamp_format(at_ns / MIR_NS_PER_S, (int32_t)(at_ns % MIR_NS_PER_S), time);
    mir_api__v1__device_encoded_reported_properties__properties_entry__init(entry);
    mir_api__v1__device_encoded_properties__init(value);
    value->time = at_ns == 0 || size <= 0 ? (char *)(uintptr_t) "0001-01-01T00:00:00Z"
                                          : copy_text(b, mir_view_of(time, (size_t)size));
    value->has_property = 1;
    value->property = (ProtobufCBinaryData){payload.size, (uint8_t *)(uintptr_t)payload.data};
    entry->key = (char *)(uintptr_t)of->name;
    entry->value = value;
    return value->time != NULL;
}

static void answer(batch *b, message *m)
{
    properties_message properties = MIR_API__V1__DEVICE_ENCODED_REPORTED_PROPERTIES__INIT;
    properties.has_encoding = 1;
    properties.encoding = MIR_API__V1__ENCODING__ENCODING_PROTOBUF;
    uint32_t count = 0;
    const mir_schema_message *const *list =
        m->error != NULL ? NULL : mir_schema_list(m->schema, MIR_MESSAGE_TELECONFIG, &count);
    if (count > MIR_CFG_PROPERTIES_MAX) count = MIR_CFG_PROPERTIES_MAX;
    property_entry **entries =
        mir_arena_alloc(&b->arena, ((size_t)count + 1) * sizeof(property_entry *));
    property_entry *made = mir_arena_alloc(&b->arena, ((size_t)count + 1) * sizeof *made);
    MirApi__V1__DeviceEncodedProperties *values =
        mir_arena_alloc(&b->arena, ((size_t)count + 1) * sizeof *values);
    if (entries == NULL || made == NULL || values == NULL) {
        add_reply(b->hub, &b->letters, m->reply, NULL, busy);
        return;
    }
    for (uint32_t i = 0; i < count; i++) {
        size_t at = properties.n_properties;
        if (!add_entry(b, m, list[i], &made[at], &values[at])) continue;
        entries[properties.n_properties++] = &made[at];
    }
    properties.properties = entries;
    add_reply(b->hub, &b->letters, m->reply, &properties, m->error);
}

static void batch_done(mir_shard *shard, mir_post *post);

/* On the shard of the lane. */
static void batch_told(mir_shard *shard, mir_sequel *sequel)
{
    batch *b = MIR_CONTAINER(sequel, batch, sequel);
    mir_sequel_home(shard, b->shard, &b->post);
}

static void batch_answer(mir_job *job)
{
    batch *b = MIR_CONTAINER(job, batch, job);
    if (b->count != 0 && b->request.status == MIR_OK)
        mir_events_of_changes(b->hub, &b->request, (mir_view){NULL, 0}, &b->arena, &b->letters);
    for (message *m = b->first; m != NULL; m = m->next) {
        if (m->error == NULL && m->change_count != 0) {
            const mir_state_property *of = &b->list[m->first_change];
            if (b->request.status != MIR_OK)
                fail(b, m, "", b->request.error);
            else if (of->status == MIR_E_NOT_FOUND || (m->reports && of->status != MIR_OK))
                fail(b, m, "", of->error);
        }
        if (!m->reports && m->reply.size != 0) answer(b, m);
    }
    b->post.run = batch_done;
    if (!b->sequel.has_place) {
        mir_shard_post(b->shard, &b->post);
        return;
    }
    b->sequel.letters = b->letters;
    b->letters = (mir_letters){0};
    b->sequel.done = batch_told;
    mir_sequel_tell(b->hub, &b->sequel);
}

static void batch_stored(mir_state_request *request, void *context)
{
    batch *b = context;
    if (request->status == MIR_OK && request->change_count != 0)
        mir_sequel_place(b->hub, &b->sequel);
    b->job.run = batch_answer;
    mir_workers_submit(b->hub->requests, &b->job);
}

static void batch_run(mir_job *job)
{
    batch *b = MIR_CONTAINER(job, batch, job);
    for (message *m = b->first; m != NULL; m = m->next) read_device(b, m);
    if (b->count == 0) {
        batch_answer(&b->job);
        return;
    }
    b->request.op = MIR_STATE_PROPERTIES;
    b->request.properties.list = b->list;
    b->request.properties.count = b->count;
    b->request.done = batch_stored;
    b->request.ctx = b;
    if (mir_state_submit(b->hub->state, &b->request) == MIR_OK) return;
    b->request.status = MIR_E_FULL;
    b->request.error = busy;
    batch_answer(&b->job);
}

/* --- the shard ------------------------------------------------------------------------------- */

static void batch_begin(mir_shard *shard)
{
    mir_cfg_intake *intake = &mir_actors_of(shard)->properties;
    if (intake->is_working || intake->first == NULL) return;
    batch *b = calloc(1, sizeof *b);
    if (b == NULL) {
        mir_log_error("out of memory: properties of devices wait");
        return; /* The next message tries again. */
    }
    b->shard = shard;
    b->hub = mir_actors_of(shard)->hub;
    b->first = intake->first;
    message *last = b->first;
    for (unsigned i = 1; i < MIR_CFG_BATCH_MAX && last->next != NULL; i++) last = last->next;
    intake->first = last->next;
    if (intake->first == NULL) intake->last = NULL;
    last->next = NULL;
    intake->is_working = true;
    b->job.run = batch_run;
    mir_hub_begin(b->hub);
    mir_workers_submit(b->hub->requests, &b->job);
}

/* As it is with telemetry: the device may have learnt a message since its schema was stored. */
static bool ask_again(mir_shard *shard, message *m)
{
    if (!m->is_unknown || m->was_asked || shard->stopping) return false;
    mir_schema_unref(m->schema);
    m->schema = NULL;
    m->of = NULL;
    m->record = NULL;
    m->is_unknown = false;
    m->was_asked = true;
    return mir_twin_learn(shard, m->device_id, &m->waiter);
}

static void batch_done(mir_shard *shard, mir_post *post)
{
    batch *b = MIR_CONTAINER(post, batch, post);
    mir_actors_of(shard)->properties.is_working = false;
    if (shard->stopping)
        mir_letters_discard(&b->letters);
    else
        mir_letters_publish(shard, &b->letters);
    while (b->first != NULL) {
        message *m = b->first;
        b->first = m->next;
        const char *error = m->error;
        m->error = NULL;
        if (m->reports && error != NULL) {
            if (ask_again(shard, m)) continue;
            refuse_report(shard, m->device_id, error);
        }
        message_free(shard, m);
    }
    mir_hub_end(b->hub);
    mir_arena_free(&b->request.arena);
    mir_arena_free(&b->arena);
    free(b);
    if (!shard->stopping) batch_begin(shard);
}

static void enqueue(mir_shard *shard, message *m)
{
    mir_cfg_intake *intake = &mir_actors_of(shard)->properties;
    m->next = NULL;
    if (intake->last == NULL)
        intake->first = m;
    else
        intake->last->next = m;
    intake->last = m;
    batch_begin(shard);
}

static void device_known(mir_shard *shard, mir_twin_waiter *waiter, const char *error)
{
    message *m = MIR_CONTAINER(waiter, message, waiter);
    if (shard->stopping) {
        message_free(shard, m);
    } else if (error == NULL) {
        enqueue(shard, m);
    } else if (m->reports) {
        char text[MIR_ERROR_TEXT_BYTES_MAX + MIR_ERROR_TEXT_BYTES_MAX];
        (void)snprintf(text, sizeof text, "%.*s is not in the device's schema: %s",
                       m->name.size > 100 ? 100 : (int)m->name.size, (const char *)m->name.data,
                       error);
        refuse_report(shard, m->device_id, m->was_asked ? text : error);
        message_free(shard, m);
    } else {
        char text[MIR_ERROR_TEXT_BYTES_MAX + 64];
        (void)snprintf(text, sizeof text, "%s%s",
                       error == mir_twin_unknown || error == mir_twin_disabled
                           ? ""
                           : "cannot reconcile device schema: ",
                       error);
        if (!mir_reply_is_inbox(m->reply)) m->refusal = strdup(text);
        if (m->refusal != NULL) {
            enqueue(shard, m); /* a worker sees whether it may be answered there */
            return;
        }
        reply_error(shard, m->reply, text);
        message_free(shard, m);
    }
}

static int64_t time_of(mir_view text)
{
    int64_t seconds;
    int32_t nanos;
    if (text.size == 0 || mir_timestamp_parse(text, &seconds, &nanos) != MIR_OK) return 0;
    MirApi__V1__Timestamp time = MIR_API__V1__TIMESTAMP__INIT;
    time.seconds = seconds;
    time.nanos = nanos;
    return mir_timestamp_ns(&time);
}

void mir_cfg_receive(mir_shard *shard, const mir_message *from)
{
    mir_cfg_intake *intake = &mir_actors_of(shard)->properties;
    bool reports = from->function == MIR_DEVICE_REPORT;
    if (!reports && from->reply.size == 0) return;
    mir_view name = {NULL, 0}, payload = {NULL, 0};
    if (reports) {
        name = mir_nats_header(from->header, MIR_VIEW_LITERAL("mir-msg"));
        payload = from->payload;
    }
    const mir_view pieces[4] = {from->key, from->reply, name, payload};
    size_t size = sizeof(message);
    for (int i = 0; i < 4; i++) size += pieces[i].size;
    message *m = NULL;
    if (reports && (name.size == 0 || name.size > MIR_SCHEMA_PATH_BYTES_MAX)) {
        refuse_report(shard, from->key, "it has no header mir-msg that names its type");
        return;
    }
    if (intake->waiting < MIR_CFG_WAITING_MAX && intake->bytes + size <= MIR_CFG_WAITING_BYTES_MAX)
        m = calloc(1, size);
    if (m == NULL) {
        if (reports)
            refuse_report(shard, from->key, busy);
        else
            reply_error(shard, from->reply, busy);
        return;
    }
    mir_view *const copies[4] = {&m->device_id, &m->reply, &m->name, &m->payload};
    uint8_t *at = m->bytes;
    for (int i = 0; i < 4; i++) {
        *copies[i] = mir_view_of(at, pieces[i].size);
        if (pieces[i].size != 0) memcpy(at, pieces[i].data, pieces[i].size);
        at += pieces[i].size;
    }
    m->reports = reports;
    m->received_ns = shard->loop->wall_ns;
    if (reports)
        m->goes_by_ns = time_of(mir_nats_header(from->header, MIR_VIEW_LITERAL("mir-time")));
    m->waiter.done = device_known;
    intake->waiting++;
    intake->bytes += size;
    mir_twin_await(shard, from, &m->waiter);
}

void mir_cfg_free_all(mir_shard *shard)
{
    mir_cfg_intake *intake = &mir_actors_of(shard)->properties;
    while (intake->first != NULL) {
        message *m = intake->first;
        intake->first = m->next;
        message_free(shard, m);
    }
    intake->last = NULL;
}
