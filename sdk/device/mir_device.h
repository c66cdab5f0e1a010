/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device: a device that talks to a Mir server.
 *
 * Why        A program describes what it measures and obeys in a .proto file; this library brings
 *            it to the server: connection and reconnection, hello with the schema, heartbeats,
 *            schema requests, telemetry, reported properties, commands and desired properties.
 *
 *                mir_device_options options = {
 *                    .id = "pump-7", .schemas = &pump_schema, .schema_count = 1};
 *                mir_device *device = NULL;
 *                mir_status status = mir_device_create(&options, &device, &error);
 *                if (status == MIR_OK) status = mir_device_launch(device, &error);
 *                ... mir_device_send_telemetry(device, &reading.base, &error) ...
 *                mir_device_destroy(device);
 *
 * Ownership  mir_device_create copies everything that the options point to. The device belongs to
 *            the caller until mir_device_destroy. What a function is given to send is its caller's
 *            again on return. What a handler is given lives until the handler returns.
 * Affinity   Every function may be called from any thread, and sends also from handlers. One
 *            thread calls mir_device_close and mir_device_destroy, and never from a handler or the
 *            log callback. The library's own threads: one agent (connection, heartbeat), one that
 *            calls property handlers, `command_threads` that call command handlers, and those of
 *            nats.c. All of them have every signal blocked, so signals reach the program's threads.
 * Units      Names that end in _ns are nanoseconds. Zero takes the default. Times on the wire are
 *            UTC.
 * Bounds     Handler queues hold MIR_DEVICE_QUEUE_MAX messages and 16 MiB each: a command beyond
 *            that is answered with an error, a property update is kept for the next launch of the
 *            handlers. A message is as large as the server allows (8 MiB by default).
 * Errors     A mir_status, with a text in `error` (which may be null) for a person. A failure
 *            leaves the device as it was. Whatever the server sends, the device lives: what is
 *            malformed or unknown is logged and ignored.
 * Growth     Options get new members at the end; zero will always mean today's behaviour, except
 *            MIR_DEVICE_PERSIST_DEFAULT, which becomes IFOFFLINE when devices can store. */
#ifndef MIR_DEVICE_H
#define MIR_DEVICE_H

#include <protobuf-c/protobuf-c.h>

#include "mir_log.h"
#include "mir_limits.h"
#include "mir_status.h"
#include "mir_view.h"

typedef struct mir_device mir_device;

#define MIR_DEVICE_TARGET_DEFAULT "nats://127.0.0.1:4222"

enum {
    MIR_DEVICE_QUEUE_MAX = 256,
    MIR_DEVICE_COMMAND_THREADS_MAX = 64,
};

/* What happens to telemetry, reported properties and custom messages while there is no server. */
typedef enum mir_device_persistence {
    MIR_DEVICE_PERSIST_DEFAULT = 0,
    MIR_DEVICE_PERSIST_NOSTORAGE, /* discarded, and the send says so: the default of this version */
    MIR_DEVICE_PERSIST_IFOFFLINE, /* stored, sent on reconnection; this version refuses it */
    MIR_DEVICE_PERSIST_ALWAYS,    /* stored in any case, and kept; this version refuses it */
} mir_device_persistence;

/* Called from any thread, the library's own among them; must not block. `text` is one line. */
typedef void (*mir_device_log)(mir_log_level level, const char *text, void *context);

typedef struct mir_device_options {
    /* Who the device is: one token of a subject, so without `.`, `*`, `>`, blanks and control
     * characters, and none of the words client, device, event, _INBOX. */
    const char *id;
    /* nats://[user:password@]host[:port] or tls://…; several with commas between them. */
    const char *target;
    /* One way to log in, or none. The credentials file is a NATS .creds file. */
    const char *user;
    const char *password;
    const char *token;
    const char *credentials_file;
    /* PEM files for tls:// targets; null: the system's authorities, no client certificate. */
    const char *root_ca_file;
    const char *certificate_file;
    const char *key_file;

    /* Serialized google.protobuf.FileDescriptorSets of the device's .proto files, imports
     * included, as mir_device_schema() of mir_device.cmake embeds them. The library sends each
     * file once, in this order, then descriptor.proto and mir/device/v1/mir.proto. */
    const mir_view *schemas;
    size_t schema_count;
    /* The schema does not go out with the hello; the server asks for it when it needs it. */
    bool no_schema_on_boot;

    mir_device_persistence persistence;

    int64_t connect_timeout_ns; /* of one attempt: 2 s */
    int64_t reconnect_wait_ns;  /* between attempts: 3 s, and up to 100 ms of jitter (TLS: 1 s) */
    int64_t heartbeat_ns;       /* 10 s; a server calls a device offline after 30 s */
    unsigned command_threads;   /* commands handled at once: 4 */

    /* Null: mir_log writes to stderr, at its level. */
    mir_device_log log;
    void *log_context;

    /* Where the device remembers what has to outlive it, in a folder of its own below this one;
     * made when missing. One process at a time. Null: in memory, so that after a restart a command
     * that the server sends again may run again. */
    const char *state_dir;
} mir_device_options;

/* ---- Life ---- */

/* Checks the options and the schema. No thread, no connection yet: handlers are best registered
 * now. Every problem of the options is told in the text, not only the first.
 * MIR_E_INVALID, MIR_E_UNSUPPORTED, MIR_E_NOT_FOUND (a file), MIR_E_NO_MEMORY; of the state
 * directory MIR_E_EXISTS (another process has it), MIR_E_CORRUPT, MIR_E_IO and the like. */
MIR_MUST_CHECK mir_status mir_device_create(const mir_device_options *options, mir_device **device,
                                            mir_error *error);

/* Starts the device and returns at once; a server that is not there is tried for ever. On the
 * first connection: hello; a second later the request for desired properties, whose answer calls
 * the property handlers. Then heartbeats while connected. After a reconnection the properties are
 * requested and the handlers called again. MIR_E_EXISTS when launched before. */
MIR_MUST_CHECK mir_status mir_device_launch(mir_device *device, mir_error *error);

/* Waits until the launch is through: connected, hello sent, desired properties answered, refused
 * or timed out (30 s). MIR_E_TIMEOUT, MIR_E_CLOSED when closed meanwhile or never launched. */
MIR_MUST_CHECK mir_status mir_device_await_ready(mir_device *device, int64_t timeout_ns);

/* Sends out what was accepted (300 ms at most), ends the connection and all threads. Waits for
 * handlers that run, and up to connect_timeout for a connection attempt under way. Again: no-op. */
void mir_device_close(mir_device *device);

/* Closes if need be and frees. Null is fine. */
void mir_device_destroy(mir_device *device);

/* ---- Sending ----
 * MIR_OK: handed to the connection. It is on the wire a moment later, and lost if the connection
 * breaks just then. Else, and nothing is sent:
 *   MIR_E_UNREACHABLE  not connected, and the message discarded (persistence nostorage)
 *   MIR_E_NOT_FOUND    the schema of the device has no such message: the server would drop it
 *   MIR_E_TOO_LARGE    over the server's limit
 *   MIR_E_CLOSED       not launched, or closed
 *   MIR_E_INVALID, MIR_E_NO_MEMORY */

/* `message` is a generated protobuf-c message; pass &m.base. */
MIR_MUST_CHECK mir_status mir_device_send_telemetry(mir_device *device,
                                                    const ProtobufCMessage *message,
                                                    mir_error *error);
/* The same with bytes that something else serialized; `name` as in "pump.v1.Flow". */
MIR_MUST_CHECK mir_status mir_device_send_telemetry_raw(mir_device *device, const char *name,
                                                        mir_view bytes, mir_error *error);

/* What a property is in fact, for the twin's `reported`. If handlers were called with a desired
 * value of the same message, the report carries the time of that value (header mir-time), which
 * tells a server whether the device has seen its latest wish. */
MIR_MUST_CHECK mir_status mir_device_send_property(mir_device *device,
                                                   const ProtobufCMessage *message,
                                                   mir_error *error);
MIR_MUST_CHECK mir_status mir_device_send_property_raw(mir_device *device, const char *name,
                                                       mir_view bytes, mir_error *error);

/* To modules of one's own: `route` is "<module>.<version>.<function>[.more]"; the subject becomes
 * device.<id>.<route>. */
typedef struct mir_device_header {
    const char *name;
    const char *value;
} mir_device_header;
MIR_MUST_CHECK mir_status mir_device_send_custom(mir_device *device, const char *route,
                                                 const mir_device_header *headers,
                                                 size_t header_count, mir_view bytes,
                                                 mir_error *error);
/* A message of any type; the header mir-msg names it. */
MIR_MUST_CHECK mir_status mir_device_send_custom_message(mir_device *device, const char *route,
                                                         const ProtobufCMessage *message,
                                                         mir_error *error);

/* ---- Commands ----
 * One handler for a type; the last registered wins. Handlers run at the same time as others and as
 * themselves, on `command_threads` threads.
 *
 * A command that waited for the device in the server's queue carries an id (header mir-command-id).
 * The SDK runs an id at most once, whatever becomes of the server, the connection and this process:
 * the id is on the disk (state_dir) before the handler is called, and the answer afterwards, before
 * it is sent. An id that comes again gets the recorded answer; one whose run the process did not
 * survive gets an error that says so. The latest 4,096 ids are remembered. */

typedef struct mir_device_reply mir_device_reply;

/* Serializes the answer, so `message` may be a local of the handler. The last call counts; without
 * one the answer is mir.device.v1.Void. */
MIR_MUST_CHECK mir_status mir_device_reply_message(mir_device_reply *reply,
                                                   const ProtobufCMessage *message);
MIR_MUST_CHECK mir_status mir_device_reply_raw(mir_device_reply *reply, const char *name,
                                               mir_view bytes);

/* Anything but MIR_OK answers with mir.device.v1.Error and the text of `error`. `command` is of the
 * registered type: cast it. */
typedef mir_status (*mir_device_command_handler)(mir_device *device,
                                                 const ProtobufCMessage *command,
                                                 mir_device_reply *reply, void *context,
                                                 mir_error *error);
typedef mir_status (*mir_device_command_raw_handler)(mir_device *device, const char *name,
                                                     mir_view command, mir_device_reply *reply,
                                                     void *context, mir_error *error);
MIR_MUST_CHECK mir_status mir_device_on_command(mir_device *device,
                                                const ProtobufCMessageDescriptor *type,
                                                mir_device_command_handler handler, void *context);
MIR_MUST_CHECK mir_status mir_device_on_command_raw(mir_device *device, const char *name,
                                                    mir_device_command_raw_handler handler,
                                                    void *context);

/* ---- Desired properties ----
 * Several handlers for a type are welcome; all of them run on one thread, one call after another in
 * the order of registration, so a handler sees values in the order in which the device accepted
 * them. A value is accepted when it is the first of its name or strictly later than the one before.
 * A handler is called with the known value at launch and after each reconnection (registered later:
 * right away), and with each value that is accepted from then on. */

typedef void (*mir_device_property_handler)(mir_device *device, const ProtobufCMessage *value,
                                            void *context);
typedef void (*mir_device_property_raw_handler)(mir_device *device, const char *name,
                                                mir_view value, void *context);
MIR_MUST_CHECK mir_status mir_device_on_property(mir_device *device,
                                                 const ProtobufCMessageDescriptor *type,
                                                 mir_device_property_handler handler,
                                                 void *context);
MIR_MUST_CHECK mir_status mir_device_on_property_raw(mir_device *device, const char *name,
                                                     mir_device_property_raw_handler handler,
                                                     void *context);

/* ---- Information ---- */

typedef struct mir_device_stats {
    uint64_t sent;       /* messages handed to the connection by the send functions */
    uint64_t discarded;  /* refused by the send functions because there was no server */
    uint64_t heartbeats; /* the hello among them */
    uint64_t connects;   /* first connection and reconnections */
    uint64_t commands;   /* received, whatever became of them */
    uint64_t properties; /* desired values that were accepted */
    uint64_t ignored;    /* messages from the server that made no sense */
} mir_device_stats;

const char *mir_device_id(const mir_device *device);
bool mir_device_is_connected(mir_device *device);
void mir_device_get_stats(mir_device *device, mir_device_stats *stats);
/* The serialized descriptor set that the device sends; valid as long as the device. */
mir_view mir_device_schema_set(const mir_device *device);

#endif
