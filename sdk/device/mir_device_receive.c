/* SPDX-License-Identifier: Apache-2.0 */
/* What the server sends: schema requests are answered here and now; commands and property values
 * go to the threads that may block in the program's handlers. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <zstd.h>

#include "mir/device/v1/mir.pb-c.h"
#include "mir_api/v1/device.pb-c.h"
#include "mir_device_check.h"
#include "mir_device_state.h"
#include "mir_device_wire.h"

enum { ZSTD_LEVEL = 3 };

/* The server says so about a device that it does not know yet. */
static const char unknown_device[] = "no device found with current targets criteria";

struct mir_device_reply {
    mir_device_answer answer; /* without a name: none was given */
};

mir_status mir_device_compress(mir_view bytes, mir_bytes *out)
{
    size_t bound = ZSTD_compressBound(bytes.size);
    uint8_t *to = mir_bytes_reserve(out, bound);
    if (to == NULL) return MIR_E_NO_MEMORY;
    size_t size = ZSTD_compress(to, bound, bytes.data, bytes.size, ZSTD_LEVEL);
    if (ZSTD_isError(size)) return MIR_E_NO_MEMORY;
    out->size += size;
    return MIR_OK;
}

static const char *header(natsMsg *message, const char *name)
{
    const char *value = NULL;
    return natsMsgHeader_Get(message, name, &value) == NATS_OK ? value : NULL;
}

static mir_view body(natsMsg *message)
{
    return mir_view_of(natsMsg_GetData(message), (size_t)natsMsg_GetDataLength(message));
}

static bool accepts_zstd(natsMsg *message)
{
    const char *accept = header(message, MIR_DEVICE_HEADER_ACCEPT);
    return accept != NULL && strcmp(accept, MIR_DEVICE_ZSTD) == 0;
}

static void ignore(mir_device *device, const char *subject, const char *why)
{
    atomic_fetch_add_explicit(&device->stats.ignored, 1, memory_order_relaxed);
    mir_device_say(device, MIR_LOG_WARN, "message on %.200s ignored: %s", subject, why);
}

/* ---- Schema ---- */

static void answer_schema(mir_device *device, natsMsg *message)
{
    const char *reply = natsMsg_GetReply(message);
    if (reply == NULL) {
        ignore(device, natsMsg_GetSubject(message), "a request without a reply subject");
        return;
    }
    bool zstd = accepts_zstd(message);
    const mir_device_header headers[] = {
        {MIR_DEVICE_HEADER_MESSAGE, mir_api__v1__schema_retrieve_response__descriptor.name},
        {MIR_DEVICE_HEADER_ENCODING, MIR_DEVICE_ZSTD}};
    const mir_bytes *bytes = zstd ? &device->schema_reply_zstd : &device->schema_reply;
    mir_error error = {{0}};
    if (mir_device_publish(device, reply, NULL, headers, zstd ? 2 : 1, mir_bytes_as_view(bytes),
                           &error) != MIR_OK)
        mir_device_say(device, MIR_LOG_WARN, "schema answer: %s", error.text);
    else
        mir_device_say(device, MIR_LOG_DEBUG, "schema sent (%zu bytes)", bytes->size);
}

/* ---- Commands ---- */

typedef struct command_job {
    mir_device_job job;
    mir_device *device;
    natsMsg *message; /* a copy: the original dies with the callback */
} command_job;

static mir_status pack(const ProtobufCMessage *message, mir_bytes *out)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    if (size == 0) return MIR_OK;
    uint8_t *to = mir_bytes_reserve(out, size);
    if (to == NULL) return MIR_E_NO_MEMORY;
    out->size += protobuf_c_message_pack(message, to);
    return MIR_OK;
}

mir_status mir_device_reply_raw(mir_device_reply *reply, const char *name, mir_view bytes)
{
    mir_status status = mir_device_check_message_name(name, NULL);
    if (status != MIR_OK) return status;
    char *copy = strdup(name);
    mir_bytes content = {0};
    mir_bytes_view(&content, bytes);
    if (copy == NULL || !mir_bytes_ok(&content)) {
        free(copy);
        mir_bytes_free(&content);
        return MIR_E_NO_MEMORY;
    }
    mir_device_answer_free(&reply->answer);
    reply->answer = (mir_device_answer){copy, content};
    return MIR_OK;
}

mir_status mir_device_reply_message(mir_device_reply *reply, const ProtobufCMessage *message)
{
    mir_bytes bytes = {0};
    mir_status status = pack(message, &bytes);
    if (status == MIR_OK)
        status = mir_device_reply_raw(reply, message->descriptor->name, mir_bytes_as_view(&bytes));
    mir_bytes_free(&bytes);
    return status;
}

/* Errors and what has no content go out as they are, whatever the sender would take. */
static void send_answer(mir_device *device, const char *to, const mir_device_answer *answer,
                        bool zstd)
{
    if (to == NULL || answer->name == NULL) return;
    mir_bytes packed = {0};
    mir_view bytes = mir_bytes_as_view(&answer->bytes);
    zstd = zstd && bytes.size > 0 &&
           strcmp(answer->name, mir__device__v1__error__descriptor.name) != 0 &&
           mir_device_compress(bytes, &packed) == MIR_OK;
    if (zstd) bytes = mir_bytes_as_view(&packed);
    const mir_device_header headers[] = {{MIR_DEVICE_HEADER_MESSAGE, answer->name},
                                         {MIR_DEVICE_HEADER_ENCODING, MIR_DEVICE_ZSTD}};
    mir_error error = {{0}};
    if (mir_device_publish(device, to, NULL, headers, zstd ? 2 : 1, bytes, &error) != MIR_OK)
        mir_device_say(device, MIR_LOG_WARN, "answer to a command: %s", error.text);
    mir_bytes_free(&packed);
}

MIR_PRINTF(3, 4)
static void refuse(mir_device *device, mir_device_reply *reply, const char *format, ...)
{
    char text[MIR_ERROR_TEXT_BYTES_MAX + 128];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    mir_device_make_utf8(text); /* or nobody could read the answer */
    mir_device_say(device, MIR_LOG_WARN, "command refused: %s", text);
    Mir__Device__V1__Error message = MIR__DEVICE__V1__ERROR__INIT;
    message.message = text;
    if (mir_device_reply_message(reply, &message.base) != MIR_OK)
        mir_device_say(device, MIR_LOG_WARN, "no memory for an answer");
}

static bool find_command(mir_device *device, const char *name, mir_device_handler *found)
{
    bool known = false;
    (void)pthread_mutex_lock(&device->lock);
    for (mir_device_handler *at = device->command_handlers; at != NULL && !known; at = at->next) {
        if (strcmp(at->name, name) != 0) continue;
        *found = *at; /* a copy: registering again replaces the entry's content */
        known = true;
    }
    (void)pthread_mutex_unlock(&device->lock);
    return known;
}

static void run_handler(mir_device *device, natsMsg *message, mir_device_reply *reply)
{
    const char *name = header(message, MIR_DEVICE_HEADER_MESSAGE);
    if (name == NULL) name = "";
    if (!mir_device_schema_has(&device->schema, name)) {
        refuse(device, reply,
               "device error while looking for command descriptor: the schema has no message "
               "'%.200s'",
               name);
        return;
    }
    mir_device_handler handler;
    if (!find_command(device, name, &handler)) {
        refuse(device, reply, "device error: no handler for command %.200s found", name);
        return;
    }
    mir_error error = {{0}};
    mir_status status;
    if (handler.type == NULL) {
        status =
            handler.call.command_raw(device, name, body(message), reply, handler.context, &error);
    } else {
        ProtobufCMessage *command = mir_device_unpack(handler.type, body(message));
        if (command == NULL) {
            refuse(device, reply,
                   "device error while unmarshalling command payload: not a serialized %.200s",
                   name);
            return;
        }
        status = handler.call.command(device, command, reply, handler.context, &error);
        protobuf_c_message_free_unpacked(command, NULL);
    }
    if (status != MIR_OK) {
        refuse(device, reply, "device error in command handler: %s",
               error.text[0] == '\0' ? mir_status_name(status) : error.text);
    } else if (reply->answer.name == NULL &&
               mir_device_reply_raw(reply, mir__device__v1__void__descriptor.name,
                                    (mir_view){NULL, 0}) != MIR_OK) {
        mir_device_say(device, MIR_LOG_WARN, "no memory for an answer");
    }
}

/* With an id: recorded first, run at most once, and then recorded with its answer. */
static void run_recorded(mir_device *device, natsMsg *message, const char *id,
                         mir_device_reply *reply)
{
    mir_device_verdict verdict;
    mir_error error = {{0}};
    mir_status status =
        mir_device_journal_begin(&device->journal, id, natsMsg_GetReply(message),
                                 accepts_zstd(message), &verdict, &reply->answer, &error);
    if (status != MIR_OK) {
        refuse(device, reply, "device error: command %s does not run, it cannot be recorded: %s",
               id, error.text);
        return;
    }
    if (verdict == MIR_DEVICE_UNKNOWN)
        refuse(device, reply,
               "device error: command %s was begun before and its outcome is not known", id);
    if (verdict != MIR_DEVICE_RUN) {
        mir_device_say(device, MIR_LOG_INFO, "command %s was here before", id);
        return;
    }
    run_handler(device, message, reply);
    mir_device_waiter *waiters;
    const char *name = reply->answer.name == NULL ? "" : reply->answer.name;
    if (mir_device_journal_finish(&device->journal, id, name,
                                  mir_bytes_as_view(&reply->answer.bytes), &waiters,
                                  &error) != MIR_OK)
        mir_device_say(device, MIR_LOG_WARN, "command %s: %s", id, error.text);
    while (waiters != NULL) {
        mir_device_waiter *next = waiters->next;
        send_answer(device, waiters->to, &reply->answer, waiters->zstd);
        free(waiters);
        waiters = next;
    }
}

static void handle_command(mir_device *device, natsMsg *message)
{
    const char *id = header(message, MIR_DEVICE_HEADER_COMMAND_ID);
    mir_device_reply reply = {0};
    if (id == NULL)
        run_handler(device, message, &reply);
    else if (mir_device_journal_check_id(id) == MIR_OK)
        run_recorded(device, message, id, &reply);
    else
        refuse(device, &reply, "device error: the id of the command is not 1 to %d printable bytes",
               MIR_DEVICE_COMMAND_ID_BYTES_MAX);
    send_answer(device, natsMsg_GetReply(message), &reply.answer, accepts_zstd(message));
    mir_device_answer_free(&reply.answer);
}

static void run_command(mir_device_job *job, bool cancelled)
{
    command_job *command = (command_job *)job;
    if (!cancelled) handle_command(command->device, command->message);
    natsMsg_Destroy(command->message);
    free(command);
}

static natsMsg *copy_message(natsMsg *message)
{
    static const char *const names[] = {MIR_DEVICE_HEADER_MESSAGE, MIR_DEVICE_HEADER_ACCEPT,
                                        MIR_DEVICE_HEADER_COMMAND_ID};
    natsMsg *copy = NULL;
    natsStatus failed =
        natsMsg_Create(&copy, natsMsg_GetSubject(message), natsMsg_GetReply(message),
                       natsMsg_GetData(message), natsMsg_GetDataLength(message));
    for (size_t i = 0; failed == NATS_OK && i < sizeof names / sizeof names[0]; i++) {
        const char *value = header(message, names[i]);
        if (value != NULL) failed = natsMsgHeader_Set(copy, names[i], value);
    }
    if (failed == NATS_OK) return copy;
    natsMsg_Destroy(copy);
    return NULL;
}

static void queue_command(mir_device *device, natsMsg *message)
{
    atomic_fetch_add_explicit(&device->stats.commands, 1, memory_order_relaxed);
    command_job *job = malloc(sizeof *job);
    natsMsg *copy = job == NULL ? NULL : copy_message(message);
    mir_status status = MIR_E_NO_MEMORY;
    if (copy != NULL) {
        *job = (command_job){.job = {.run = run_command, .size = body(message).size},
                             .device = device,
                             .message = copy};
        status = mir_device_pool_push(&device->commands, &job->job);
        if (status == MIR_OK) return;
    }
    natsMsg_Destroy(copy);
    free(job);
    if (status == MIR_E_CLOSED) return;
    mir_device_reply reply = {0};
    refuse(device, &reply, "device error: too many commands wait");
    send_answer(device, natsMsg_GetReply(message), &reply.answer, false);
    mir_device_answer_free(&reply.answer);
}

/* ---- Desired properties ---- */

typedef struct update_job {
    mir_device_job job;
    mir_device *device;
    const mir_device_handler *only; /* null: every handler of the name */
    char *name;
    mir_bytes value;
    mir_device_time time;
    uint64_t number;
} update_job;

static void call_property(mir_device *device, const mir_device_handler *handler, mir_view value)
{
    if (handler->type == NULL) {
        handler->call.property_raw(device, handler->name, value, handler->context);
        return;
    }
    ProtobufCMessage *message = mir_device_unpack(handler->type, value);
    if (message == NULL) {
        mir_device_say(device, MIR_LOG_WARN, "the desired value of %.200s is not of that type",
                       handler->name);
        return;
    }
    handler->call.property(device, message, handler->context);
    protobuf_c_message_free_unpacked(message, NULL);
}

/* From now on the device goes by this value, and says so in its reports; but for the year 1, by which
 * a server says that it has no time. */
static void goes_by(mir_device *device, const update_job *update)
{
    (void)pthread_mutex_lock(&device->lock);
    mir_device_property *item = mir_device_properties_get(&device->values, update->name);
    if (item != NULL)
        (void)snprintf(item->handled, sizeof item->handled, "%s",
                       update->time.seconds < 0 ? "" : update->time.text);
    (void)pthread_mutex_unlock(&device->lock);
}

/* The next handler of the update behind `after`, or the first. One that was registered while the
 * update waited has been given the value by itself. */
static const mir_device_handler *next_handler(mir_device *device, const mir_device_handler *after,
                                              const update_job *update)
{
    (void)pthread_mutex_lock(&device->lock);
    const mir_device_handler *at = after == NULL ? device->property_handlers : after->next;
    while (at != NULL && (strcmp(at->name, update->name) != 0 || at->since >= update->number))
        at = at->next;
    (void)pthread_mutex_unlock(&device->lock);
    return at;
}

static void run_update(mir_device_job *job, bool cancelled)
{
    update_job *update = (update_job *)job;
    mir_device *device = update->device;
    mir_view value = mir_bytes_as_view(&update->value);
    if (!cancelled && update->only != NULL) {
        goes_by(device, update);
        call_property(device, update->only, value);
    } else if (!cancelled) {
        bool called = false;
        const mir_device_handler *at = NULL;
        while ((at = next_handler(device, at, update)) != NULL) {
            if (!called) goes_by(device, update);
            called = true;
            call_property(device, at, value);
        }
        if (!called)
            mir_device_say(device, MIR_LOG_DEBUG, "no handler for property %.200s", update->name);
    }
    free(update->name);
    mir_bytes_free(&update->value);
    free(update);
}

/* With `lock` held. */
static mir_status queue_update(mir_device *device, const mir_device_handler *only,
                               const mir_device_property *item)
{
    mir_view value = mir_bytes_as_view(&item->value);
    update_job *update = calloc(1, sizeof *update);
    if (update == NULL) return MIR_E_NO_MEMORY;
    *update = (update_job){.job = {.run = run_update, .size = value.size},
                           .device = device,
                           .only = only,
                           .name = strdup(item->name),
                           .time = item->time,
                           .number = ++device->update_count};
    mir_bytes_view(&update->value, value);
    mir_status status = MIR_E_NO_MEMORY;
    if (update->name != NULL && mir_bytes_ok(&update->value))
        status = mir_device_pool_push(&device->updates, &update->job);
    if (status != MIR_OK) update->job.run(&update->job, true);
    return status;
}

mir_status mir_device_deliver_to(mir_device *device, const mir_device_handler *handler)
{
    const mir_device_property *known = mir_device_properties_get(&device->values, handler->name);
    if (!device->ready || known == NULL) return MIR_OK;
    return queue_update(device, handler, known);
}

void mir_device_deliver_stored(mir_device *device)
{
    mir_status worst = MIR_OK;
    (void)pthread_mutex_lock(&device->lock);
    for (size_t i = 0; i < device->values.count; i++) {
        mir_status status = queue_update(device, NULL, &device->values.items[i]);
        if (status != MIR_OK && status != MIR_E_CLOSED) worst = status;
    }
    device->ready = true;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
    if (worst != MIR_OK)
        mir_device_say(device, MIR_LOG_WARN, "some property handlers were not called: %s",
                       mir_status_name(worst));
}

/* Stores by the freshness rule. */
static mir_status store(mir_device *device, const char *name, const char *time, mir_view value,
                        bool deliver)
{
    mir_device_time when;
    mir_status status = mir_device_time_parse(time, &when);
    if (status != MIR_OK) return status;
    (void)pthread_mutex_lock(&device->lock);
    status = mir_device_properties_put(&device->values, name, when, value);
    /* In the lock, so that handlers see values in the order of acceptance. Before the launch is
     * through nobody is called twice: the value is delivered with the others. */
    if (status == MIR_OK && deliver && device->ready)
        status = queue_update(device, NULL, mir_device_properties_get(&device->values, name));
    (void)pthread_mutex_unlock(&device->lock);
    if (status == MIR_OK)
        atomic_fetch_add_explicit(&device->stats.properties, 1, memory_order_relaxed);
    return status;
}

static void receive_config(mir_device *device, natsMsg *message)
{
    const char *subject = natsMsg_GetSubject(message);
    const char *name = header(message, MIR_DEVICE_HEADER_MESSAGE);
    const char *time = header(message, MIR_DEVICE_HEADER_TIME);
    if (mir_device_check_message_name(name, NULL) != MIR_OK || time == NULL) {
        ignore(device, subject, "no message name or no time");
        return;
    }
    mir_status status = store(device, name, time, body(message), true);
    if (status == MIR_E_INVALID)
        ignore(device, subject, "the time is not RFC 3339");
    else if (status == MIR_E_EXISTS)
        mir_device_say(device, MIR_LOG_DEBUG, "property %.200s: not newer than what is known",
                       name);
    else if (status != MIR_OK && status != MIR_E_CLOSED)
        mir_device_say(device, MIR_LOG_WARN, "property %.200s: %s", name, mir_status_name(status));
}

static void store_all(mir_device *device, const MirApi__V1__DeviceEncodedReportedProperties *ok)
{
    for (size_t i = 0; i < ok->n_properties; i++) {
        const char *name = ok->properties[i]->key;
        const MirApi__V1__DeviceEncodedProperties *value = ok->properties[i]->value;
        if (value == NULL || value->time == NULL ||
            mir_device_check_message_name(name, NULL) != MIR_OK) {
            ignore(device, "desiredproperties", "a value without name or time");
            continue;
        }
        mir_status status = store(device, name, value->time,
                                  mir_view_of(value->property.data, value->property.len), false);
        if (status != MIR_OK && status != MIR_E_EXISTS)
            mir_device_say(device, MIR_LOG_WARN, "property %.200s: %s", name,
                           mir_status_name(status));
    }
}

void mir_device_receive_properties(mir_device *device, natsMsg *message)
{
    const char *token = strrchr(natsMsg_GetSubject(message), '.');
    uint64_t number = token == NULL ? 0 : strtoull(token + 1, NULL, 10);
    (void)pthread_mutex_lock(&device->lock);
    bool expected = number != 0 && number == device->request;
    if (expected) device->request = 0;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
    if (!expected) return; /* late, or a second answer */
    if (natsMsg_IsNoResponders(message)) {
        mir_device_say(device, MIR_LOG_WARN, "desired properties: nobody answers");
    } else {
        mir_view bytes = body(message);
        MirApi__V1__DeviceReportedPropertiesResponse *response =
            (MirApi__V1__DeviceReportedPropertiesResponse *)mir_device_unpack(
                &mir_api__v1__device_reported_properties_response__descriptor, bytes);
        if (response == NULL) {
            ignore(device, "desiredproperties", "not a DeviceReportedPropertiesResponse");
        } else if (response->response_case ==
                       MIR_API__V1__DEVICE_REPORTED_PROPERTIES_RESPONSE__RESPONSE_OK &&
                   response->ok != NULL) {
            store_all(device, response->ok);
        } else if (response->response_case ==
                       MIR_API__V1__DEVICE_REPORTED_PROPERTIES_RESPONSE__RESPONSE_ERROR &&
                   response->error != NULL) {
            bool unknown = strstr(response->error, unknown_device) != NULL;
            mir_device_say(device, unknown ? MIR_LOG_INFO : MIR_LOG_WARN,
                           "desired properties: %.300s%s", response->error,
                           unknown ? " (the server has yet to register this device)" : "");
        }
        if (response != NULL) protobuf_c_message_free_unpacked(&response->base, NULL);
    }
    mir_device_deliver_stored(device);
}

/* ---- Dispatch ---- */

void mir_device_receive(mir_device *device, natsMsg *message)
{
    const char *subject = natsMsg_GetSubject(message);
    const char *function = subject + strlen(device->id) + 1; /* the subscription is "<id>.>" */
    if (strcmp(function, "v1alpha.schema") == 0)
        answer_schema(device, message);
    else if (strcmp(function, "v1alpha.command") == 0)
        queue_command(device, message);
    else if (strcmp(function, "v1alpha.config") == 0)
        receive_config(device, message);
    else
        ignore(device, subject, "unknown function");
}
