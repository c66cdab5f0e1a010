/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_connect: finds the server that a command is to talk to, and talks to it.
 *
 * Why        Every command looks in the same places, and says the same when nothing is there.
 * Ownership  The caller's session starts as MIR_CLI_SESSION_INIT; mir_cli_connect_close empties it,
 *            opened or not. Answers live in its arena.
 * Affinity   The main thread.
 * Errors     Functions that return int return an exit code and have told the user.
 * Bounds     MIR_CONNECT_ARENA_BYTES_MAX of memory for answers. */
#ifndef MIR_CLI_CONNECT_H
#define MIR_CLI_CONNECT_H

#include "mir_arena.h"
#include "mir_cli.h"
#include "mir_client.h"

#include <protobuf-c/protobuf-c.h>

#define MIR_CONNECT_ARENA_BYTES_MAX ((size_t)2 << 30)
#define MIR_CONNECT_TIMEOUT_NS      (30 * INT64_C(1000000000))

typedef struct mir_cli_session {
    mir_client *client;
    mir_arena arena;
    char where[512]; /* for messages: the address that answered */
} mir_cli_session;

/* Before it is opened: the arena can be used already. */
#define MIR_CLI_SESSION_INIT ((mir_cli_session){.arena.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX})

int mir_cli_connect_open(const mir_cli *cli, const mir_cli_args *args, mir_cli_session *session);
/* Without a word to the user. `args` may be null: then no flag says where. */
MIR_MUST_CHECK mir_status mir_cli_connect_quietly(const mir_cli_args *args, int64_t timeout_ns,
                                                  mir_cli_session *session, mir_error *error);
void mir_cli_connect_close(mir_cli_session *session);

/* Asks `client.<instance>.<function>`. On MIR_EXIT_OK `*ok` is the ok arm of the response; its
 * error arm has been shown to the user. */
int mir_cli_connect_ask(mir_cli_session *session, const char *function,
                        const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
                        void *ok);
/* The same, with the parts of the answer as they come. */
int mir_cli_connect_ask_parts(mir_cli_session *session, const char *function,
                              const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response,
                              const mir_client_parts *parts, void *ok);
/* The same without a word to the user. When the server refuses, `*refusal` is its text and the
 * outcome MIR_E_INVALID; else `*refusal` is null, and `error` says what is wrong. */
MIR_MUST_CHECK mir_status mir_cli_connect_try(mir_cli_session *session, const char *function,
                                              const ProtobufCMessage *request,
                                              const ProtobufCMessageDescriptor *response,
                                              const mir_client_parts *parts, void *ok,
                                              const char **refusal, mir_error *error);
/* Says what the server refused, and what to do next if that is known; MIR_EXIT_FAILED. */
int mir_cli_connect_refused(const char *refusal);
/* The ok arm of a response in bytes, for the parts of an answer; null when it is something else. */
void *mir_cli_connect_ok_arm(const ProtobufCMessageDescriptor *response, mir_view bytes,
                             mir_arena *arena);
/* The same without protobuf: bytes in, bytes out. */
int mir_cli_connect_ask_bytes(mir_cli_session *session, const char *function, mir_view request,
                              mir_bytes *reply);

typedef void (*mir_cli_connect_name_fn)(void *context, const char *name, const char *text);
void mir_cli_connect_each_context(mir_cli_connect_name_fn each, void *context);

/* What would be tried, in order, each with where that comes from. */
int mir_cli_connect_explain(const mir_cli *cli, const mir_cli_args *args);

#endif
