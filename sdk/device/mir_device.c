/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_api/v1/device.pb-c.h"
#include "mir_clock.h"
#include "mir_device_check.h"
#include "mir_device_state.h"

enum { COMMAND_THREADS = 4, HEADERS_MAX = 64 };
#define CONNECT_TIMEOUT_NS (2 * MIR_NS_PER_S)
#define RECONNECT_WAIT_NS  (3 * MIR_NS_PER_S)
#define HEARTBEAT_NS       (10 * MIR_NS_PER_S)
#define DURATION_NS_MAX    (INT64_C(86400) * MIR_NS_PER_S)

void mir_device_say(mir_device *device, mir_log_level level, const char *format, ...)
{
    if (device->log == NULL && level > mir_log_get_level()) return;
    char text[900];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    if (device->log != NULL)
        device->log(level, text, device->log_context);
    else
        mir_log_write(level, "%s", text);
}

/* ---- Options ---- */

typedef struct problems {
    mir_error *error;
    mir_status status; /* of the first */
    size_t used;
} problems;

/* Adds to the text that is there: a person mends all of it in one go. */
static void add_problem(problems *found, mir_status status, const char *text)
{
    if (status == MIR_OK) return;
    if (found->status == MIR_OK) found->status = status;
    if (found->error == NULL) return;
    size_t room = sizeof found->error->text - found->used;
    int more = snprintf(found->error->text + found->used, room, "%s%s",
                        found->used == 0 ? "" : "; ", text);
    if (more > 0) found->used += (size_t)more < room ? (size_t)more : room - 1;
}

static void check_file(problems *found, const char *path, const char *what)
{
    if (path == NULL || access(path, R_OK) == 0) return;
    mir_error error;
    mir_status status = mir_error_os(&error, errno, "%s %.200s", what, path);
    add_problem(found, status, error.text);
}

static void check_duration(problems *found, int64_t value, const char *name)
{
    if (value == 0 || (value >= MIR_NS_PER_MS && value <= DURATION_NS_MAX)) return;
    mir_error error;
    mir_status status =
        mir_error_set(&error, MIR_E_INVALID, "%s must be between a millisecond and a day", name);
    add_problem(found, status, error.text);
}

static mir_status check_options(const mir_device_options *options, mir_error *error)
{
    problems found = {.error = error};
    mir_error one = {{0}};
    add_problem(&found, mir_device_check_id(options->id, &one), one.text);
    if (options->target != NULL)
        add_problem(&found, mir_device_check_target(options->target, &one), one.text);
    int logins =
        (options->user != NULL) + (options->token != NULL) + (options->credentials_file != NULL);
    if (logins > 1)
        add_problem(&found, MIR_E_INVALID,
                    "give one of user, token and credentials file, not several");
    if (options->password != NULL && options->user == NULL)
        add_problem(&found, MIR_E_INVALID, "a password needs a user");
    if ((options->certificate_file == NULL) != (options->key_file == NULL))
        add_problem(&found, MIR_E_INVALID,
                    "a client certificate needs its key, and a key its certificate");
    check_file(&found, options->credentials_file, "credentials file");
    check_file(&found, options->root_ca_file, "root CA file");
    check_file(&found, options->certificate_file, "certificate file");
    check_file(&found, options->key_file, "key file");
    switch (options->persistence) {
    case MIR_DEVICE_PERSIST_DEFAULT:
    case MIR_DEVICE_PERSIST_NOSTORAGE: break;
    case MIR_DEVICE_PERSIST_IFOFFLINE:
    case MIR_DEVICE_PERSIST_ALWAYS:
        add_problem(&found, MIR_E_UNSUPPORTED,
                    "this version keeps nothing while offline: persistence must be nostorage");
        break;
    default: add_problem(&found, MIR_E_INVALID, "persistence is none of its values"); break;
    }
    check_duration(&found, options->connect_timeout_ns, "connect_timeout");
    check_duration(&found, options->reconnect_wait_ns, "reconnect_wait");
    check_duration(&found, options->heartbeat_ns, "heartbeat");
    if (options->command_threads > MIR_DEVICE_COMMAND_THREADS_MAX)
        add_problem(&found, MIR_E_INVALID, "at most 64 command threads");
    if (options->schemas == NULL && options->schema_count > 0)
        add_problem(&found, MIR_E_INVALID, "schema_count without schemas");
    return found.status;
}

static bool copy_text(char **to, const char *from)
{
    if (from == NULL) return true;
    *to = strdup(from);
    return *to != NULL;
}

static int64_t or_default(int64_t value, int64_t otherwise)
{
    return value == 0 ? otherwise : value;
}

static bool copy_options(mir_device *device, const mir_device_options *options)
{
    const char *target = options->target == NULL ? MIR_DEVICE_TARGET_DEFAULT : options->target;
    device->no_schema_on_boot = options->no_schema_on_boot;
    device->connect_timeout_ns = or_default(options->connect_timeout_ns, CONNECT_TIMEOUT_NS);
    device->reconnect_wait_ns = or_default(options->reconnect_wait_ns, RECONNECT_WAIT_NS);
    device->heartbeat_ns = or_default(options->heartbeat_ns, HEARTBEAT_NS);
    device->command_threads =
        options->command_threads == 0 ? COMMAND_THREADS : options->command_threads;
    device->log = options->log;
    device->log_context = options->log_context;
    return copy_text(&device->id, options->id) && copy_text(&device->target, target) &&
           copy_text(&device->user, options->user) &&
           copy_text(&device->password, options->password) &&
           copy_text(&device->token, options->token) &&
           copy_text(&device->credentials_file, options->credentials_file) &&
           copy_text(&device->root_ca_file, options->root_ca_file) &&
           copy_text(&device->certificate_file, options->certificate_file) &&
           copy_text(&device->key_file, options->key_file);
}

static bool pack_into(mir_bytes *out, const ProtobufCMessage *message)
{
    uint8_t *to = mir_bytes_reserve(out, protobuf_c_message_get_packed_size(message));
    if (to != NULL) out->size += protobuf_c_message_pack(message, to);
    return to != NULL;
}

/* What is said often is prepared once. */
static bool prepare_messages(mir_device *device)
{
    ProtobufCBinaryData set = {.len = device->schema.set.size, .data = device->schema.set.data};
    MirApi__V1__DeviceHelloContent content = MIR_API__V1__DEVICE_HELLO_CONTENT__INIT;
    content.has_schema = 1;
    content.schema = set;
    MirApi__V1__DeviceHello hello = MIR_API__V1__DEVICE_HELLO__INIT;
    hello.response_case = MIR_API__V1__DEVICE_HELLO__RESPONSE_HELLO;
    hello.hello = &content;
    MirApi__V1__SchemaRetrieveResponse response = MIR_API__V1__SCHEMA_RETRIEVE_RESPONSE__INIT;
    response.response_case = MIR_API__V1__SCHEMA_RETRIEVE_RESPONSE__RESPONSE_SCHEMA;
    response.schema = set;
    mir_bytes plain = {0};
    bool done = pack_into(&plain, &hello.base) &&
                mir_device_compress(mir_bytes_as_view(&plain), &device->hello) == MIR_OK &&
                pack_into(&device->schema_reply, &response.base) &&
                mir_device_compress(mir_bytes_as_view(&device->schema_reply),
                                    &device->schema_reply_zstd) == MIR_OK;
    mir_bytes_free(&plain);
    return done;
}

static void name_subjects(mir_device *device)
{
    const struct {
        char *subject;
        const char *rest;
    } names[] = {
        {device->heartbeat_subject, "core.v1alpha.hearthbeat"}, /* as the protocol spells */
        {device->desired_subject, "cfg.v1alpha.desiredproperties"},
        {device->telemetry_subject, "tlm.v1alpha.proto"},
        {device->reported_subject, "cfg.v1alpha.proto"}};
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++)
        (void)snprintf(names[i].subject, MIR_DEVICE_SUBJECT_BYTES, "device.%s.%s", device->id,
                       names[i].rest);
}

/* ---- Life ---- */

static void free_handlers(mir_device_handler *handler)
{
    while (handler != NULL) {
        mir_device_handler *next = handler->next;
        free(handler->name);
        free(handler);
        handler = next;
    }
}

static void free_content(mir_device *device)
{
    free(device->id);
    free(device->target);
    free(device->user);
    free(device->password);
    free(device->token);
    free(device->credentials_file);
    free(device->root_ca_file);
    free(device->certificate_file);
    free(device->key_file);
    mir_device_schema_free(&device->schema);
    mir_bytes_free(&device->hello);
    mir_bytes_free(&device->schema_reply);
    mir_bytes_free(&device->schema_reply_zstd);
    mir_device_properties_free(&device->values);
    mir_device_journal_close(&device->journal);
    free_handlers(device->command_handlers);
    free_handlers(device->property_handlers);
    free(device);
}

mir_status mir_device_create(const mir_device_options *options, mir_device **out, mir_error *error)
{
    mir_status status = check_options(options, error);
    if (status != MIR_OK) return status;
    mir_device *device = calloc(1, sizeof *device);
    if (device == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_device_journal_init(&device->journal);
    status =
        mir_device_schema_build(options->schemas, options->schema_count, &device->schema, error);
    if (status == MIR_OK && (!copy_options(device, options) || !prepare_messages(device)))
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK)
        status = mir_device_journal_open(&device->journal, options->state_dir, options->id, error);
    if (status != MIR_OK) {
        free_content(device);
        return status;
    }
    if (device->journal.damaged > 0)
        mir_device_say(device, MIR_LOG_WARN,
                       "%" PRIu64 " bytes of the journal of commands made no sense",
                       device->journal.damaged);
    name_subjects(device);
    pthread_condattr_t monotonic;
    (void)pthread_condattr_init(&monotonic);
    (void)pthread_condattr_setclock(&monotonic, CLOCK_MONOTONIC);
    (void)pthread_cond_init(&device->changed, &monotonic);
    (void)pthread_condattr_destroy(&monotonic);
    (void)pthread_mutex_init(&device->lock, NULL);
    (void)pthread_rwlock_init(&device->wire_lock, NULL);
    mir_device_pool_init(&device->commands);
    mir_device_pool_init(&device->updates);
    *out = device;
    return MIR_OK;
}

/* What nats.c sets up once for a process: here, since even a message that finds no connection needs
 * it, and the agent may not have come so far. Its threads have every signal blocked. */
static mir_status open_nats(mir_error *error)
{
    sigset_t all, before;
    (void)sigfillset(&all);
    (void)pthread_sigmask(SIG_SETMASK, &all, &before);
    natsStatus failed = nats_Open(-1);
    (void)pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (failed == NATS_OK) return MIR_OK;
    return mir_error_set(error, failed == NATS_NO_MEMORY ? MIR_E_NO_MEMORY : MIR_E_IO,
                         "start nats.c: %s", natsStatus_GetText(failed));
}

mir_status mir_device_launch(mir_device *device, mir_error *error)
{
    (void)pthread_mutex_lock(&device->lock);
    bool before = device->launched || device->stopping;
    (void)pthread_mutex_unlock(&device->lock);
    if (before) return mir_error_set(error, MIR_E_EXISTS, "the device was launched before");
    mir_status status = open_nats(error);
    if (status != MIR_OK) return status;
    status = mir_device_pool_start(&device->updates, 1);
    if (status == MIR_OK) {
        status = mir_device_pool_start(&device->commands, device->command_threads);
        if (status == MIR_OK) {
            int failure = mir_device_thread_start(&device->agent, mir_device_agent, device);
            status = mir_status_from_errno(failure);
        }
    }
    if (status != MIR_OK) {
        mir_device_pool_stop(&device->commands);
        mir_device_pool_stop(&device->updates);
        return mir_error_set(error, status, "start threads: %s", mir_status_name(status));
    }
    (void)pthread_mutex_lock(&device->lock);
    device->launched = true;
    (void)pthread_mutex_unlock(&device->lock);
    return MIR_OK;
}

mir_status mir_device_await_ready(mir_device *device, int64_t timeout_ns)
{
    int64_t until = mir_clock_mono_ns() + timeout_ns;
    struct timespec at = {.tv_sec = until / MIR_NS_PER_S, .tv_nsec = until % MIR_NS_PER_S};
    mir_status status = MIR_OK;
    (void)pthread_mutex_lock(&device->lock);
    while (status == MIR_OK && !device->ready) {
        if (device->stopping || !device->launched)
            status = MIR_E_CLOSED;
        else if (pthread_cond_timedwait(&device->changed, &device->lock, &at) == ETIMEDOUT)
            status = device->ready ? MIR_OK : MIR_E_TIMEOUT;
    }
    (void)pthread_mutex_unlock(&device->lock);
    return status;
}

void mir_device_close(mir_device *device)
{
    (void)pthread_mutex_lock(&device->lock);
    bool work = device->launched && !device->stopping;
    device->stopping = true;
    (void)pthread_cond_broadcast(&device->changed);
    (void)pthread_mutex_unlock(&device->lock);
    if (!work) return;
    /* Handlers first: what they answer still finds a connection. */
    mir_device_pool_stop(&device->commands);
    mir_device_pool_stop(&device->updates);
    (void)pthread_join(device->agent, NULL);
    mir_device_link_down(device);
}

void mir_device_destroy(mir_device *device)
{
    if (device == NULL) return;
    mir_device_close(device);
    mir_device_pool_fini(&device->commands);
    mir_device_pool_fini(&device->updates);
    (void)pthread_rwlock_destroy(&device->wire_lock);
    (void)pthread_mutex_destroy(&device->lock);
    (void)pthread_cond_destroy(&device->changed);
    free_content(device);
}

/* ---- Sending ---- */

static mir_status send(mir_device *device, const char *subject, const mir_device_header *headers,
                       size_t header_count, mir_view bytes, mir_error *error)
{
    (void)pthread_mutex_lock(&device->lock);
    bool alive = device->launched && !device->stopping;
    (void)pthread_mutex_unlock(&device->lock);
    if (!alive) return mir_error_set(error, MIR_E_CLOSED, "the device is not launched, or closed");
    mir_status status =
        mir_device_publish(device, subject, NULL, headers, header_count, bytes, error);
    if (status == MIR_OK)
        atomic_fetch_add_explicit(&device->stats.sent, 1, memory_order_relaxed);
    else if (status == MIR_E_UNREACHABLE)
        atomic_fetch_add_explicit(&device->stats.discarded, 1, memory_order_relaxed);
    return status;
}

/* The time of the desired value that the device goes by, so that a server knows which one a report is
 * about; false if there is none. */
static bool handled_time(mir_device *device, const char *name, char *time)
{
    (void)pthread_mutex_lock(&device->lock);
    const mir_device_property *item = mir_device_properties_get(&device->values, name);
    bool known = item != NULL && item->handled[0] != '\0';
    if (known) memcpy(time, item->handled, sizeof item->handled);
    (void)pthread_mutex_unlock(&device->lock);
    return known;
}

static mir_status send_named(mir_device *device, const char *subject, const char *name,
                             mir_view bytes, mir_error *error)
{
    mir_status status = mir_device_check_message_name(name, error);
    if (status != MIR_OK) return status;
    if (!mir_device_schema_has(&device->schema, name))
        return mir_error_set(error, MIR_E_NOT_FOUND, "the schema of this device has no message %s",
                             name);
    mir_device_header headers[] = {{MIR_DEVICE_HEADER_MESSAGE, name},
                                   {MIR_DEVICE_HEADER_TIME, NULL}};
    char time[sizeof((mir_device_property){0}.handled)];
    bool timed = subject == device->reported_subject && handled_time(device, name, time);
    if (timed) headers[1].value = time;
    return send(device, subject, headers, timed ? 2 : 1, bytes, error);
}

/* Serialized on the stack when small, which telemetry is. */
typedef struct packed {
    uint8_t small[512];
    uint8_t *large;
    mir_view view;
} packed;

static mir_status pack(const ProtobufCMessage *message, packed *out, mir_error *error)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    out->large = size > sizeof out->small ? malloc(size) : NULL;
    if (size > sizeof out->small && out->large == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint8_t *to = out->large == NULL ? out->small : out->large;
    out->view = mir_view_of(to, protobuf_c_message_pack(message, to));
    return MIR_OK;
}

static mir_status send_message(mir_device *device, const char *subject,
                               const ProtobufCMessage *message, mir_error *error)
{
    packed bytes;
    mir_status status = pack(message, &bytes, error);
    if (status != MIR_OK) return status;
    status = send_named(device, subject, message->descriptor->name, bytes.view, error);
    free(bytes.large);
    return status;
}

mir_status mir_device_send_telemetry(mir_device *device, const ProtobufCMessage *message,
                                     mir_error *error)
{
    return send_message(device, device->telemetry_subject, message, error);
}

mir_status mir_device_send_telemetry_raw(mir_device *device, const char *name, mir_view bytes,
                                         mir_error *error)
{
    return send_named(device, device->telemetry_subject, name, bytes, error);
}

mir_status mir_device_send_property(mir_device *device, const ProtobufCMessage *message,
                                    mir_error *error)
{
    return send_message(device, device->reported_subject, message, error);
}

mir_status mir_device_send_property_raw(mir_device *device, const char *name, mir_view bytes,
                                        mir_error *error)
{
    return send_named(device, device->reported_subject, name, bytes, error);
}

mir_status mir_device_send_custom(mir_device *device, const char *route,
                                  const mir_device_header *headers, size_t header_count,
                                  mir_view bytes, mir_error *error)
{
    mir_status status = mir_device_check_route(route, error);
    if (status == MIR_OK && header_count > HEADERS_MAX)
        status = mir_error_set(error, MIR_E_TOO_LARGE, "over %d headers", HEADERS_MAX);
    for (size_t i = 0; status == MIR_OK && i < header_count; i++)
        status = mir_device_check_header(headers[i].name, headers[i].value, error);
    if (status != MIR_OK) return status;
    char subject[MIR_DEVICE_SUBJECT_BYTES + 1024];
    (void)snprintf(subject, sizeof subject, "device.%s.%s", device->id, route);
    return send(device, subject, headers, header_count, bytes, error);
}

mir_status mir_device_send_custom_message(mir_device *device, const char *route,
                                          const ProtobufCMessage *message, mir_error *error)
{
    packed bytes;
    mir_status status = pack(message, &bytes, error);
    if (status != MIR_OK) return status;
    const mir_device_header header = {MIR_DEVICE_HEADER_MESSAGE, message->descriptor->name};
    status = mir_device_send_custom(device, route, &header, 1, bytes.view, error);
    free(bytes.large);
    return status;
}

/* ---- Handlers ---- */

static mir_status new_handler(const mir_device_handler *model, const char *name,
                              mir_device_handler **out)
{
    mir_status status = mir_device_check_message_name(name, NULL);
    if (status != MIR_OK) return status;
    mir_device_handler *handler = malloc(sizeof *handler);
    char *copy = strdup(name);
    if (handler == NULL || copy == NULL) {
        free(handler);
        free(copy);
        return MIR_E_NO_MEMORY;
    }
    *handler = *model;
    handler->name = copy;
    *out = handler;
    return MIR_OK;
}

static mir_status on_command(mir_device *device, const char *name, const mir_device_handler *model)
{
    mir_device_handler *handler;
    mir_status status = new_handler(model, name, &handler);
    if (status != MIR_OK) return status;
    (void)pthread_mutex_lock(&device->lock);
    mir_device_handler *at = device->command_handlers;
    while (at != NULL && strcmp(at->name, name) != 0) at = at->next;
    if (at != NULL) {
        at->type = model->type;
        at->call = model->call;
        at->context = model->context;
    } else if (device->handler_count == MIR_DEVICE_HANDLERS_MAX) {
        status = MIR_E_FULL;
    } else {
        handler->next = device->command_handlers;
        device->command_handlers = handler;
        device->handler_count++;
        handler = NULL;
    }
    (void)pthread_mutex_unlock(&device->lock);
    free_handlers(handler);
    return status;
}

static mir_status on_property(mir_device *device, const char *name, const mir_device_handler *model)
{
    mir_device_handler *handler;
    mir_status status = new_handler(model, name, &handler);
    if (status != MIR_OK) return status;
    (void)pthread_mutex_lock(&device->lock);
    if (device->handler_count == MIR_DEVICE_HANDLERS_MAX) status = MIR_E_FULL;
    if (status == MIR_OK) status = mir_device_deliver_to(device, handler);
    if (status == MIR_OK) {
        handler->since = device->update_count;
        mir_device_handler **end = &device->property_handlers;
        while (*end != NULL) end = &(*end)->next;
        *end = handler;
        device->handler_count++;
        handler = NULL;
    }
    (void)pthread_mutex_unlock(&device->lock);
    free_handlers(handler);
    return status;
}

mir_status mir_device_on_command(mir_device *device, const ProtobufCMessageDescriptor *type,
                                 mir_device_command_handler handler, void *context)
{
    return on_command(
        device, type->name,
        &(mir_device_handler){.type = type, .call.command = handler, .context = context});
}

mir_status mir_device_on_command_raw(mir_device *device, const char *name,
                                     mir_device_command_raw_handler handler, void *context)
{
    return on_command(device, name,
                      &(mir_device_handler){.call.command_raw = handler, .context = context});
}

mir_status mir_device_on_property(mir_device *device, const ProtobufCMessageDescriptor *type,
                                  mir_device_property_handler handler, void *context)
{
    return on_property(
        device, type->name,
        &(mir_device_handler){.type = type, .call.property = handler, .context = context});
}

mir_status mir_device_on_property_raw(mir_device *device, const char *name,
                                      mir_device_property_raw_handler handler, void *context)
{
    return on_property(device, name,
                       &(mir_device_handler){.call.property_raw = handler, .context = context});
}

/* ---- Information ---- */

const char *mir_device_id(const mir_device *device)
{
    return device->id;
}

bool mir_device_is_connected(mir_device *device)
{
    (void)pthread_rwlock_rdlock(&device->wire_lock);
    bool connected =
        device->wire != NULL && natsConnection_Status(device->wire) == NATS_CONN_STATUS_CONNECTED;
    (void)pthread_rwlock_unlock(&device->wire_lock);
    return connected;
}

void mir_device_get_stats(mir_device *device, mir_device_stats *stats)
{
#define READ(name) .name = atomic_load_explicit(&device->stats.name, memory_order_relaxed)
    *stats = (mir_device_stats){READ(sent),     READ(discarded),  READ(heartbeats), READ(connects),
                                READ(commands), READ(properties), READ(ignored)};
#undef READ
}

mir_view mir_device_schema_set(const mir_device *device)
{
    return mir_bytes_as_view(&device->schema.set);
}
