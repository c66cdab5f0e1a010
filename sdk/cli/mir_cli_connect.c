/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_connect.h"

#include "mir_clock.h"
#include "mir_cli_context.h"
#include "mir_pb.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"

#include <jansson.h>
#include <stdarg.h>
#include <stdlib.h>

enum { PLACES_MAX = 3, PLACE_BYTES = 1024 };
#define REACH_TIMEOUT_NS (5 * MIR_NS_PER_S)

typedef struct place {
    char address[PLACE_BYTES];
    char origin[256];
} place;

typedef struct places {
    place items[PLACES_MAX];
    size_t count;
} places;

static const char *set_variable(const char *name)
{
    const char *value = getenv(name);
    return value != NULL && value[0] != '\0' ? value : NULL;
}

MIR_MUST_CHECK static mir_status add(places *to, const char *address, mir_error *error,
                                     const char *format, ...) MIR_PRINTF(4, 5);
static mir_status add(places *to, const char *address, mir_error *error, const char *format, ...)
{
    place *next = &to->items[to->count];
    if (strlen(address) >= sizeof next->address)
        return mir_error_set(error, MIR_E_INVALID, "the address '%.64s…' is too long", address);
    (void)snprintf(next->address, sizeof next->address, "%s", address);
    va_list args;
    va_start(args, format);
    (void)vsnprintf(next->origin, sizeof next->origin, format, args);
    va_end(args);
    to->count++;
    return MIR_OK;
}

/* A socket's path as an address: one that has a slash in front of it. */
MIR_MUST_CHECK static mir_status add_socket(places *to, const char *path, const char *origin,
                                            mir_error *error)
{
    char address[PLACE_BYTES + 8];
    (void)snprintf(address, sizeof address, "unix://%s%s",
                   path[0] == '/' || path[0] == '.' ? "" : "./", path);
    return add(to, address, error, "%s", origin);
}

MIR_MUST_CHECK static mir_status add_context(places *to, const mir_cli_context_file *file,
                                             const char *name, const char *origin, mir_error *error)
{
    static const char *const unsupported[] = {"credentials", "rootCA", "tlsCert", "tlsKey"};
    const json_t *found = mir_cli_context_find(file, name);
    if (found == NULL)
        return mir_error_set(error, MIR_E_NOT_FOUND,
                             "there is no context '%s' in %s; `mir context list` shows them, "
                             "`mir context add %s ADDRESS` makes it",
                             name, file->path, name);
    const json_t *security = json_object_get(found, "sec");
    for (size_t i = 0; i < sizeof unsupported / sizeof unsupported[0]; i++) {
        const char *value = json_string_value(json_object_get(security, unsupported[i]));
        if (value != NULL && value[0] != '\0')
            return mir_error_set(error, MIR_E_UNSUPPORTED,
                                 "context '%s' has sec.%s, but this version of mir speaks neither "
                                 "TLS nor credentials files",
                                 name, unsupported[i]);
    }
    return add(to, json_string_value(json_object_get(found, "target")), error, "%s '%s'", origin,
               name);
}

MIR_MUST_CHECK static mir_status find_places(const mir_cli_args *args, places *to, mir_error *error)
{
    *to = (places){0};
    const char *target = mir_cli_value(args, MIR_OPT_TARGET);
    const char *admin = mir_cli_value(args, MIR_OPT_ADMIN);
    const char *context = mir_cli_value(args, MIR_OPT_CONTEXT);
    if (target != NULL) return add(to, target, error, "--target");
    if (admin != NULL) return add_socket(to, admin, "--admin", error);

    mir_cli_context_file file;
    mir_status status = mir_cli_context_read(&file, error);
    if (status == MIR_OK) {
        const char *current = mir_cli_context_chosen(&file);
        if (context != NULL)
            status = add_context(to, &file, context, "--context", error);
        else if (current != NULL)
            status = add_context(to, &file, current, "the current context", error);
        mir_cli_context_free(&file);
        if (status != MIR_OK || to->count > 0) return status;
    } else if (context != NULL || status != MIR_E_NOT_FOUND) {
        return status;
    }
    target = set_variable("MIR_TARGET");
    admin = set_variable("MIR_ADMIN");
    if (target != NULL) return add(to, target, error, "$MIR_TARGET");
    /* What devices read; who has set it for them means the same server. */
    target = set_variable("MIR__TARGET");
    if (target != NULL && admin == NULL) return add(to, target, error, "$MIR__TARGET");
    if (admin != NULL) return add_socket(to, admin, "$MIR_ADMIN", error);
    char path[MIR_PATH_BYTES_MAX];
    if (mir_paths_admin_socket(NULL, path) == MIR_OK) {
        status = add_socket(to, path, "the admin socket of the default data directory", error);
        if (status != MIR_OK) return status;
    }
    return add(to, "nats://127.0.0.1:4222", error, "the default address");
}

/* The address without what is secret in it. */
static void public_address(const char *address, char *text, size_t size)
{
    const char *start = strstr(address, "://");
    const char *at = start != NULL ? strrchr(start, '@') : NULL;
    if (at == NULL || strncmp(address, "unix://", 7) == 0)
        (void)snprintf(text, size, "%s",
                       strncmp(address, "unix://", 7) == 0 ? address + 7 : address);
    else
        (void)snprintf(text, size, "%.*s***%s", (int)(start + 3 - address), address, at);
}

/* Tries each place; the reasons of those that failed come out as lines. */
MIR_MUST_CHECK static mir_status reach(const places *from, int64_t timeout_ns,
                                       mir_cli_session *session, mir_bytes *reasons,
                                       mir_error *error)
{
    mir_status status = MIR_E_UNREACHABLE;
    for (size_t i = 0; i < from->count; i++) {
        mir_client_options options = {
            .address = from->items[i].address,
            .name = "mir",
            .user = set_variable("MIR_USER"),
            .password = set_variable("MIR_PASSWORD"),
            .token = set_variable("MIR_TOKEN"),
            .connect_timeout_ns = timeout_ns < REACH_TIMEOUT_NS ? timeout_ns : REACH_TIMEOUT_NS,
            .timeout_ns = timeout_ns,
        };
        public_address(from->items[i].address, session->where, sizeof session->where);
        status = mir_client_connect(&options, &session->client, error);
        if (status == MIR_OK) return MIR_OK;
        if (reasons != NULL)
            mir_bytes_printf(reasons, "  tried %s (%s): %s\n", session->where,
                             from->items[i].origin, error->text);
        /* Who answers and refuses is the one that was meant. */
        if (status == MIR_E_PERMISSION || status == MIR_E_INVALID || status == MIR_E_UNSUPPORTED)
            return status;
    }
    return status;
}

int mir_cli_connect_open(const mir_cli *cli, const mir_cli_args *args, mir_cli_session *session)
{
    mir_error error = {0};
    places from;
    int64_t timeout_ns = MIR_CONNECT_TIMEOUT_NS;
    const char *timeout = mir_cli_value(args, MIR_OPT_TIMEOUT);
    if (timeout != NULL && mir_cli_when_duration(timeout, &timeout_ns, &error) != MIR_OK)
        return mir_cli_usage(cli, "--timeout: %s", error.text);
    if (find_places(args, &from, &error) != MIR_OK) return mir_cli_fail("%s", error.text);

    mir_bytes reasons = {0};
    mir_status status = reach(&from, timeout_ns, session, &reasons, &error);
    if (status == MIR_OK) {
        mir_bytes_free(&reasons);
        return MIR_EXIT_OK;
    }
    int code =
        status == MIR_E_PERMISSION || status == MIR_E_UNSUPPORTED || status == MIR_E_NO_MEMORY
            ? MIR_EXIT_FAILED
            : MIR_EXIT_UNREACHABLE;
    if (status == MIR_E_PERMISSION)
        (void)mir_cli_fail("%s does not let you in: %s\n"
                           "Set MIR_USER and MIR_PASSWORD, or MIR_TOKEN.",
                           session->where, error.text);
    else
        (void)mir_cli_fail("no Mir server is reachable\n%.*s"
                           "Start one with `mir serve`, or say where it is with --target "
                           "nats://HOST:4222.",
                           (int)reasons.size,
                           reasons.data != NULL ? (const char *)reasons.data : "");
    mir_bytes_free(&reasons);
    return code;
}

mir_status mir_cli_connect_quietly(const mir_cli_args *args, int64_t timeout_ns,
                                   mir_cli_session *session, mir_error *error)
{
    static const mir_cli_args none = {0};
    mir_error unused;
    places from;
    if (error == NULL) error = &unused;
    mir_status status = find_places(args != NULL ? args : &none, &from, error);
    return status != MIR_OK ? status : reach(&from, timeout_ns, session, NULL, error);
}

void mir_cli_connect_close(mir_cli_session *session)
{
    mir_client_close(session->client);
    session->client = NULL;
    mir_arena_free(&session->arena);
}

MIR_MUST_CHECK static mir_status request_bytes(mir_cli_session *session, const char *function,
                                               mir_view request, const mir_client_parts *parts,
                                               mir_bytes *reply, mir_error *error)
{
    char subject[160];
    (void)snprintf(subject, sizeof subject, "client.%s.%s", mir_client_instance(session->client),
                   function);
    mir_status status =
        mir_client_request_parts(session->client, subject, request, parts, reply, error);
    char text[sizeof error->text];
    (void)snprintf(text, sizeof text, "%s", error->text);
    if (status == MIR_E_UNREACHABLE)
        return mir_error_set(error, status, "%s answers, but is no Mir server that serves %s",
                             session->where, function);
    if (status != MIR_OK) return mir_error_set(error, status, "%s: %s", session->where, text);
    return MIR_OK;
}

int mir_cli_connect_ask_bytes(mir_cli_session *session, const char *function, mir_view request,
                              mir_bytes *reply)
{
    mir_error error = {0};
    mir_status status = request_bytes(session, function, request, NULL, reply, &error);
    if (status != MIR_OK) (void)mir_cli_fail("%s", error.text);
    return mir_cli_exit_code(status);
}

/* Every response is a oneof of `ok` (number 1) and `error` (number 2). */
static uint32_t arm_of(const ProtobufCMessageDescriptor *response, const void *message, void **arm)
{
    const ProtobufCFieldDescriptor *field = protobuf_c_message_descriptor_get_field(response, 1);
    uint32_t which = 0;
    memcpy(&which, (const uint8_t *)message + field->quantifier_offset, sizeof which);
    memcpy(arm, (const uint8_t *)message + field->offset, sizeof *arm);
    return *arm != NULL ? which : 0;
}

void *mir_cli_connect_ok_arm(const ProtobufCMessageDescriptor *response, mir_view bytes,
                             mir_arena *arena)
{
    void *message = NULL;
    void *arm = NULL;
    if (mir_pb_unpack(response, bytes, arena, &message, NULL) != MIR_OK) return NULL;
    return arm_of(response, message, &arm) == 1 ? arm : NULL;
}

mir_status mir_cli_connect_try(mir_cli_session *session, const char *function,
                               const ProtobufCMessage *request,
                               const ProtobufCMessageDescriptor *response,
                               const mir_client_parts *parts, void *ok, const char **refusal,
                               mir_error *error)
{
    mir_bytes out = {0};
    mir_bytes in = {0};
    void *message = NULL;
    void *arm = NULL;
    mir_error why = {0};
    *refusal = NULL;
    mir_pb_pack(request, &out);
    mir_status status =
        mir_bytes_ok(&out)
            ? request_bytes(session, function, mir_bytes_as_view(&out), parts, &in, error)
            : mir_error_set(error, MIR_E_NO_MEMORY, "no memory for the request");
    mir_bytes_free(&out);
    if (status == MIR_OK) {
        status = mir_pb_unpack(response, mir_bytes_as_view(&in), &session->arena, &message, &why);
        if (status != MIR_OK)
            (void)mir_error_set(error, status, "the answer of %s cannot be read: %s",
                                session->where, why.text);
    }
    mir_bytes_free(&in);
    if (status != MIR_OK) return status;
    uint32_t which = arm_of(response, message, &arm);
    if (which == 2) *refusal = arm;
    if (which == 2) return mir_error_set(error, MIR_E_INVALID, "%s", *refusal);
    if (which != 1)
        return mir_error_set(error, MIR_E_CORRUPT, "the answer of %s is empty", session->where);
    memcpy(ok, &arm, sizeof arm);
    return MIR_OK;
}

int mir_cli_connect_ask_parts(mir_cli_session *session, const char *function,
                              const ProtobufCMessage *request,
                              const ProtobufCMessageDescriptor *response,
                              const mir_client_parts *parts, void *ok)
{
    mir_error error = {0};
    const char *refusal = NULL;
    mir_status status =
        mir_cli_connect_try(session, function, request, response, parts, ok, &refusal, &error);
    if (refusal != NULL)
        (void)mir_cli_connect_refused(refusal);
    else if (status != MIR_OK && status != MIR_E_CANCELLED) /* who stopped it knows */
        (void)mir_cli_fail("%s", error.text);
    return mir_cli_exit_code(status);
}

int mir_cli_connect_refused(const char *refusal)
{
    return mir_cli_fail("%s%s", refusal,
                        strstr(refusal, "no device found with current targets criteria") != NULL
                            ? "; `mir device list` shows all devices"
                            : "");
}

int mir_cli_connect_ask(mir_cli_session *session, const char *function,
                        const ProtobufCMessage *request, const ProtobufCMessageDescriptor *response,
                        void *ok)
{
    return mir_cli_connect_ask_parts(session, function, request, response, NULL, ok);
}

void mir_cli_connect_each_context(mir_cli_connect_name_fn each, void *context)
{
    mir_cli_context_file file;
    if (mir_cli_context_read(&file, NULL) != MIR_OK) return;
    const json_t *all = mir_cli_context_all(&file);
    for (size_t i = 0; i < json_array_size(all); i++) {
        const json_t *at = json_array_get(all, i);
        each(context, json_string_value(json_object_get(at, "name")),
             json_string_value(json_object_get(at, "target")));
    }
    mir_cli_context_free(&file);
}

int mir_cli_connect_explain(const mir_cli *cli, const mir_cli_args *args)
{
    (void)cli;
    mir_error error = {0};
    places from;
    if (find_places(args, &from, &error) != MIR_OK) return mir_cli_fail("%s", error.text);
    for (size_t i = 0; i < from.count; i++) {
        char address[PLACE_BYTES];
        public_address(from.items[i].address, address, sizeof address);
        (void)printf("%s%s  (%s)\n", i > 0 ? "or " : "", address, from.items[i].origin);
    }
    return MIR_EXIT_OK;
}
