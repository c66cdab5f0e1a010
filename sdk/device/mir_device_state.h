/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_state: the inside of a device, for the files of this folder alone.
 *
 *      program threads          agent thread             nats.c threads
 *      send ──────┐             connect, hello,          connection callbacks: set flags, wake
 * agent on_… ────┐ │             heartbeat, properties    <id>.>  : mir_device_receive │ │ │
 * inbox.* : mir_device_receive_properties ▼ ▼                 ▼                        │ `lock`:
 * flags, handlers, values     ◄──────────┤ `wire_lock`: the connection pointer            ▼
 *                                              commands pool, properties pool → handlers
 *
 * `lock` is never held while something of nats.c, a handler or the log callback runs. `wire_lock`
 * is held for reading around a publish, and for writing only to exchange the pointer. */
#ifndef MIR_DEVICE_STATE_H
#define MIR_DEVICE_STATE_H

#include <nats/nats.h>
#include <pthread.h>
#include <stdatomic.h>

#include "mir_bytes.h"
#include "mir_device.h"
#include "mir_device_journal.h"
#include "mir_device_pool.h"
#include "mir_device_properties.h"
#include "mir_device_schema.h"

enum {
    MIR_DEVICE_SUBJECT_BYTES = MIR_DEVICE_ID_BYTES_MAX + 64,
    MIR_DEVICE_HANDLERS_MAX = 4096,
};

typedef struct mir_device_handler {
    struct mir_device_handler *next;
    char *name;
    const ProtobufCMessageDescriptor *type; /* null: raw */
    union {
        mir_device_command_handler command;
        mir_device_command_raw_handler command_raw;
        mir_device_property_handler property;
        mir_device_property_raw_handler property_raw;
    } call;
    void *context;
    uint64_t since; /* of a property: the updates queued before it was registered */
} mir_device_handler;

struct mir_device {
    /* Fixed by create. */
    char *id;
    char *target;
    char *user;
    char *password;
    char *token;
    char *credentials_file;
    char *root_ca_file;
    char *certificate_file;
    char *key_file;
    bool no_schema_on_boot;
    int64_t connect_timeout_ns;
    int64_t reconnect_wait_ns;
    int64_t heartbeat_ns;
    unsigned command_threads;
    mir_device_log log;
    void *log_context;
    mir_device_schema schema;
    mir_bytes hello;             /* zstd of DeviceHello */
    mir_bytes schema_reply;      /* SchemaRetrieveResponse */
    mir_bytes schema_reply_zstd; /* the same, compressed */
    char heartbeat_subject[MIR_DEVICE_SUBJECT_BYTES];
    char desired_subject[MIR_DEVICE_SUBJECT_BYTES];
    char telemetry_subject[MIR_DEVICE_SUBJECT_BYTES];
    char reported_subject[MIR_DEVICE_SUBJECT_BYTES];

    mir_device_journal journal; /* has a lock of its own */
    mir_device_pool commands;
    mir_device_pool updates;

    pthread_rwlock_t wire_lock;
    natsConnection *wire;

    /* The agent's own. */
    natsSubscription *down;
    natsSubscription *answers;
    char inbox[64];
    bool greeted;

    pthread_mutex_t lock;
    pthread_cond_t changed; /* on the monotonic clock */
    bool launched;
    bool stopping;
    bool came_up;   /* a connection began that the agent has not dealt with */
    bool closed;    /* nats.c gave the connection up, or it was closed */
    int deliveries; /* subscriptions whose delivery threads may still call */
    bool ready;
    uint64_t request; /* number of the open desired-properties request; 0: none */
    uint64_t request_count;
    mir_device_properties values;
    uint64_t update_count; /* queued */
    mir_device_handler *command_handlers;
    mir_device_handler *property_handlers; /* in order; only `next` of the last changes */
    size_t handler_count;

    pthread_t agent;

    struct {
        _Atomic uint64_t sent, discarded, heartbeats, connects, commands, properties, ignored;
    } stats;
};

/* mir_device.c */
void mir_device_say(mir_device *device, mir_log_level level, const char *format, ...)
    MIR_PRINTF(3, 4);

/* mir_device_link.c */
void *mir_device_agent(void *device);
void mir_device_link_down(mir_device *device);
/* Publishes when connected. `reply` may be null. */
MIR_MUST_CHECK mir_status mir_device_publish(mir_device *device, const char *subject,
                                             const char *reply, const mir_device_header *headers,
                                             size_t header_count, mir_view bytes, mir_error *error);

/* mir_device_receive.c */
void mir_device_receive(mir_device *device, natsMsg *message);
void mir_device_receive_properties(mir_device *device, natsMsg *message);
/* Calls every property handler with the value that is stored, and makes the device ready. */
void mir_device_deliver_stored(mir_device *device);
/* The same for one handler that comes late. Call with `lock` held. */
MIR_MUST_CHECK mir_status mir_device_deliver_to(mir_device *device,
                                                const mir_device_handler *handler);
MIR_MUST_CHECK mir_status mir_device_compress(mir_view bytes, mir_bytes *out);

#define MIR_DEVICE_HEADER_MESSAGE    "mir-msg"
#define MIR_DEVICE_HEADER_TIME       "mir-time"
#define MIR_DEVICE_HEADER_CONTENT    "mir-content"
#define MIR_DEVICE_HEADER_ENCODING   "mir-content-encoding"
#define MIR_DEVICE_HEADER_ACCEPT     "mir-request-encoding"
#define MIR_DEVICE_HEADER_COMMAND_ID "mir-command-id"
#define MIR_DEVICE_ZSTD              "mir-zstd"

#endif
