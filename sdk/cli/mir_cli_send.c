/* SPDX-License-Identifier: Apache-2.0 */
/* mir command send, mir config send: one message to many devices.
 *
 * A name without its package is looked up first. Words for several namespaces become a list of
 * device ids, so that there is one request, and no device gets a message twice. In the editor a
 * text is tried with a dry run before it is sent: what the server refuses goes back to the editor,
 * and no device has seen it. */
#include "mir_cli_devices.h"
#include "mir_cli_message.h"
#include "mir_cli_payload.h"
#include "mir_cli_progress.h"
#include "mir_cli_result.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_json_text.h"
#include "mir_nats.h"

#include <stdlib.h>

/* What the server needs beyond the time that a device has: schemas of devices, storage. */
#define MARGIN_NS          (30 * MIR_NS_PER_S)
#define DEVICE_TIMEOUT_NS  (10 * MIR_NS_PER_S)
#define PART_BYTES_MAX     ((size_t)64 << 20)
#define COMMENT_DEVICE_MAX 3

typedef enum what { WHAT_SEND, WHAT_TRY, WHAT_TEMPLATE, WHAT_VALUES } what;

typedef struct sender {
    mir_cli *cli;
    const mir_cli_args *args;
    mir_cli_message_kind kind;
    mir_cli_session session;
    mir_cli_targets targets;
    MirApi__V1__DeviceTarget *target; /* the one of the request */
    const char *name;
    const char *format;
    bool refresh; /* still to be asked for */
    bool has_if_version;
    uint64_t if_version;
    uint32_t timeout_s;
    uint32_t ttl_s;
} sender;

/* ── What the server answers ─────────────────────────────────────────────────────────────────── */

static mir_view view_of(bool has, const ProtobufCBinaryData *data)
{
    return has ? mir_view_of(data->data, data->len) : (mir_view){0};
}

static const char *or_empty(const char *text)
{
    return text != NULL ? text : "";
}

static void set_command_status(int status, mir_cli_result *to)
{
    switch (status) {
    case MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_PENDING:
        to->status = "pending";
        break;
    case MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_VALIDATED:
        to->status = "validated";
        break;
    case MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_SUCCESS:
        to->status = "success";
        to->tone = MIR_TONE_GOOD;
        break;
    case MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_QUEUED:
        to->status = "queued";
        to->tone = MIR_TONE_STRONG;
        break;
    default:
        to->status = "error";
        to->tone = MIR_TONE_BAD;
        to->failed = true;
    }
}

static void set_config_status(int status, mir_cli_result *to)
{
    switch (status) {
    case MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_PENDING:
        to->status = "pending";
        break;
    case MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_VALIDATED:
        to->status = "validated";
        break;
    case MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_NOCHANGE:
        to->status = "unchanged";
        to->tone = MIR_TONE_DIM;
        break;
    case MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_SUCCESS:
        to->status = "success";
        to->tone = MIR_TONE_GOOD;
        break;
    default:
        to->status = "error";
        to->tone = MIR_TONE_BAD;
        to->failed = true;
    }
}

static bool next_command(const MirApi__V1__SendCommandResponse__CommandResponses *answer, size_t i,
                         mir_cli_result *to)
{
    if (i >= answer->n_device_responses) return false;
    const MirApi__V1__SendCommandResponse__CommandResponses__DeviceResponsesEntry *entry =
        answer->device_responses[i];
    MirApi__V1__SendCommandResponse__CommandResponse none =
        MIR_API__V1__SEND_COMMAND_RESPONSE__COMMAND_RESPONSE__INIT;
    const MirApi__V1__SendCommandResponse__CommandResponse *from =
        entry->value != NULL ? entry->value : &none;
    *to = (mir_cli_result){.device = or_empty(entry->key),
                           .device_id = or_empty(from->device_id),
                           .name = or_empty(from->name),
                           .payload = view_of(from->has_payload, &from->payload),
                           .error = or_empty(from->error),
                           .command_id = or_empty(from->command_id)};
    set_command_status(from->has_status ? (int)from->status : 0, to);
    return true;
}

static bool next_config(const MirApi__V1__SendConfigResponse__ConfigResponses *answer, size_t i,
                        mir_cli_result *to)
{
    if (i >= answer->n_device_responses) return false;
    const MirApi__V1__SendConfigResponse__ConfigResponses__DeviceResponsesEntry *entry =
        answer->device_responses[i];
    MirApi__V1__SendConfigResponse__ConfigResponse none =
        MIR_API__V1__SEND_CONFIG_RESPONSE__CONFIG_RESPONSE__INIT;
    const MirApi__V1__SendConfigResponse__ConfigResponse *from =
        entry->value != NULL ? entry->value : &none;
    *to = (mir_cli_result){.device = or_empty(entry->key),
                           .device_id = or_empty(from->device_id),
                           .name = or_empty(from->name),
                           .payload = view_of(from->has_payload, &from->payload),
                           .error = or_empty(from->error),
                           .command_id = "",
                           .has_version = from->has_version,
                           .version = from->version};
    set_config_status(from->has_status ? (int)from->status : 0, to);
    return true;
}

static bool is_protobuf(const sender *from)
{
    return mir_cli_flag(from->args, MIR_OPT_PROTOBUF);
}

/* What comes back in the encoding of the request is shown as a JSON string of base64. */
static void show_bytes(sender *from, mir_cli_result *result)
{
    mir_bytes text = {0};
    mir_bytes_u8(&text, '"');
    mir_json_put_base64(&text, result->payload);
    mir_bytes_u8(&text, '"');
    const char *kept = mir_bytes_ok(&text)
                           ? mir_arena_strdup(&from->session.arena, mir_bytes_as_view(&text))
                           : NULL;
    result->payload = kept != NULL ? mir_view_cstr(kept) : (mir_view){0};
    mir_bytes_free(&text);
}

static bool next_result(sender *from, const void *answer, size_t i, mir_cli_result *to)
{
    if (from->kind == MIR_MESSAGE_CONFIG) return next_config(answer, i, to);
    if (!next_command(answer, i, to)) return false;
    if (is_protobuf(from) && to->payload.size > 0) show_bytes(from, to);
    return true;
}

/* ── Asking ──────────────────────────────────────────────────────────────────────────────────── */

typedef struct listener {
    sender *from;
    mir_cli_results *results;
    mir_cli_progress progress;
    bool prints;
} listener;

static uint64_t number_of(mir_view text)
{
    uint64_t sum = 0;
    for (size_t i = 0; i < text.size && text.data[i] >= '0' && text.data[i] <= '9' && i < 18; i++)
        sum = sum * 10 + (uint64_t)(text.data[i] - '0');
    return sum;
}

static void heard_part(void *context, const char *subject, mir_view headers, mir_view payload)
{
    listener *to = context;
    (void)subject;
    mir_view progress = mir_nats_header(headers, MIR_VIEW_LITERAL("mir-progress"));
    const uint8_t *slash = progress.size > 0 ? memchr(progress.data, '/', progress.size) : NULL;
    if (slash != NULL)
        mir_cli_progress_set(
            &to->progress, number_of(progress),
            number_of(mir_view_from(progress, (size_t)(slash - progress.data) + 1)));
    if (to->prints) {
        mir_arena arena = {.bytes_max = PART_BYTES_MAX};
        const void *answer = mir_cli_connect_ok_arm(
            to->from->kind == MIR_MESSAGE_COMMAND ? &mir_api__v1__send_command_response__descriptor
                                                  : &mir_api__v1__send_config_response__descriptor,
            payload, &arena);
        mir_cli_result each;
        mir_cli_progress_hide(&to->progress);
        for (size_t i = 0; answer != NULL && next_result(to->from, answer, i, &each); i++)
            mir_cli_result_stream(to->results, &each, to->from->format);
        mir_arena_free(&arena);
    }
    mir_cli_progress_tick(&to->progress);
}

static void waited(void *context)
{
    listener *to = context;
    mir_cli_progress_tick(&to->progress);
}

MIR_MUST_CHECK static mir_status ask_command(sender *from, what how, mir_view payload,
                                             const mir_client_parts *parts, bool stream,
                                             const void **answer, const char **refusal,
                                             mir_error *error)
{
    MirApi__V1__SendCommandRequest request = MIR_API__V1__SEND_COMMAND_REQUEST__INIT;
    MirApi__V1__SendCommandResponse__CommandResponses *ok = NULL;
    const mir_cli_args *args = from->args;
    request.targets = from->target;
    request.name = (char *)(uintptr_t)from->name;
    request.has_payload_encoding = 1;
    request.payload_encoding = is_protobuf(from) ? MIR_API__V1__ENCODING__ENCODING_PROTOBUF
                                                 : MIR_API__V1__ENCODING__ENCODING_JSON;
    request.has_payload = how == WHAT_SEND || how == WHAT_TRY;
    if (request.has_payload)
        request.payload = (ProtobufCBinaryData){payload.size, (uint8_t *)(uintptr_t)payload.data};
    request.has_refresh_schema = request.refresh_schema = from->refresh;
    request.has_show_template = request.show_template = how == WHAT_TEMPLATE;
    request.has_dry_run = request.dry_run = how == WHAT_TRY || mir_cli_flag(args, MIR_OPT_DRY_RUN);
    request.has_no_validation = request.no_validation = mir_cli_flag(args, MIR_OPT_NO_VALIDATION);
    request.has_force_push = request.force_push = mir_cli_flag(args, MIR_OPT_FORCE_PUSH);
    request.has_timeout_sec = from->timeout_s > 0;
    request.timeout_sec = from->timeout_s;
    request.has_stream = request.stream = stream;
    request.has_queue = request.queue = mir_cli_flag(args, MIR_OPT_QUEUE);
    request.has_ttl_sec = from->ttl_s > 0;
    request.ttl_sec = from->ttl_s;
    mir_status status = mir_cli_connect_try(&from->session, "cmd.v1alpha.send", &request.base,
                                            &mir_api__v1__send_command_response__descriptor, parts,
                                            &ok, refusal, error);
    *answer = ok;
    return status;
}

MIR_MUST_CHECK static mir_status ask_config(sender *from, what how, mir_view payload,
                                            const mir_client_parts *parts, const void **answer,
                                            const char **refusal, mir_error *error)
{
    MirApi__V1__SendConfigRequest request = MIR_API__V1__SEND_CONFIG_REQUEST__INIT;
    MirApi__V1__SendConfigResponse__ConfigResponses *ok = NULL;
    const mir_cli_args *args = from->args;
    request.targets = from->target;
    request.name = (char *)(uintptr_t)from->name;
    request.has_payload_encoding = 1;
    request.payload_encoding = MIR_API__V1__ENCODING__ENCODING_JSON;
    request.has_payload = how == WHAT_SEND || how == WHAT_TRY;
    if (request.has_payload)
        request.payload = (ProtobufCBinaryData){payload.size, (uint8_t *)(uintptr_t)payload.data};
    request.has_refresh_schema = request.refresh_schema = from->refresh;
    request.has_show_template = request.show_template = how == WHAT_TEMPLATE;
    request.has_show_values = request.show_values = how == WHAT_VALUES;
    request.has_dry_run = request.dry_run = how == WHAT_TRY || mir_cli_flag(args, MIR_OPT_DRY_RUN);
    request.has_force_push = request.force_push = mir_cli_flag(args, MIR_OPT_FORCE_PUSH);
    request.has_send_only_different = request.send_only_different =
        mir_cli_flag(args, MIR_OPT_ONLY_DIFFERENT);
    request.has_if_version = from->has_if_version;
    request.if_version = from->if_version;
    mir_status status = mir_cli_connect_try(&from->session, "cfg.v1alpha.send", &request.base,
                                            &mir_api__v1__send_config_response__descriptor, parts,
                                            &ok, refusal, error);
    *answer = ok;
    return status;
}

/* Asks and adds every entry of the answer to the results. `*refusal` is what the server says when
 * it answers and refuses. */
MIR_MUST_CHECK static mir_status ask(sender *from, what how, mir_view payload,
                                     mir_cli_results *results, const char **refusal,
                                     mir_error *error)
{
    bool sends = how == WHAT_SEND && !mir_cli_flag(from->args, MIR_OPT_DRY_RUN);
    listener to = {.from = from,
                   .results = results,
                   .progress = mir_cli_progress_begin(),
                   .prints = sends && mir_cli_flag(from->args, MIR_OPT_STREAM)};
    mir_client_parts parts = {heard_part, waited, &to};
    const void *answer = NULL;
    mir_status status =
        from->kind == MIR_MESSAGE_COMMAND
            ? ask_command(from, how, payload, &parts, sends && (to.prints || to.progress.wanted),
                          &answer, refusal, error)
            : ask_config(from, how, payload, &parts, &answer, refusal, error);
    mir_cli_progress_hide(&to.progress);
    if (status != MIR_OK) return status;
    mir_cli_result each;
    for (size_t i = 0; next_result(from, answer, i, &each); i++) {
        if (!mir_cli_result_add(results, &each))
            return mir_error_set(error, MIR_E_NO_MEMORY, "no memory for the answer");
        if (to.prints) mir_cli_result_stream(results, &each, from->format);
    }
    mir_cli_result_sort(results);
    from->refresh = false;
    return MIR_OK;
}

static int ask_or_tell(sender *from, what how, mir_view payload, mir_cli_results *results)
{
    const char *refusal = NULL;
    mir_error error = {0};
    mir_status status = ask(from, how, payload, results, &refusal, &error);
    if (refusal != NULL)
        (void)mir_cli_connect_refused(refusal);
    else if (status != MIR_OK)
        (void)mir_cli_fail("%s", error.text);
    return mir_cli_exit_code(status);
}

/* ── Before asking ───────────────────────────────────────────────────────────────────────────── */

static int bad_combination(const sender *from)
{
    const mir_cli_args *args = from->args;
    bool payload = mir_cli_flag(args, MIR_OPT_PAYLOAD);
    bool edit = mir_cli_flag(args, MIR_OPT_EDIT);
    bool template_wanted = mir_cli_flag(args, MIR_OPT_SHOW_TEMPLATE);
    bool values = mir_cli_flag(args, MIR_OPT_SHOW_VALUES);
    if (payload + edit + template_wanted + values > 1)
        return mir_cli_usage(from->cli, from->kind == MIR_MESSAGE_COMMAND
                                            ? "-p, -e and -j exclude each other"
                                            : "-p, -e, -j and --show-values exclude each other");
    if (is_protobuf(from) && (edit || template_wanted))
        return mir_cli_usage(from->cli,
                             "--protobuf is of bytes: give them with -p @FILE or a pipe, "
                             "without -e and -j");
    if (mir_cli_flag(args, MIR_OPT_TTL) && !mir_cli_flag(args, MIR_OPT_QUEUE))
        return mir_cli_usage(from->cli, "--ttl is of commands that wait: add --queue");
    return MIR_EXIT_OK;
}

/* Whole seconds, at least one, rounded up; 0 when the option is not there. */
static int read_seconds(const sender *from, mir_cli_option_id id, const char *option,
                        uint32_t *seconds)
{
    const char *value = mir_cli_value(from->args, id);
    int64_t duration_ns = 0;
    mir_error error = {0};
    *seconds = 0;
    if (value == NULL) return MIR_EXIT_OK;
    if (mir_cli_when_duration(value, &duration_ns, &error) != MIR_OK)
        return mir_cli_usage(from->cli, "%s: %s", option, error.text);
    int64_t rounded = (duration_ns + MIR_NS_PER_S - 1) / MIR_NS_PER_S;
    if (rounded > UINT32_MAX) return mir_cli_usage(from->cli, "%s: that is too long", option);
    *seconds = (uint32_t)rounded;
    return MIR_EXIT_OK;
}

static int read_line_options(sender *from)
{
    mir_error error = {0};
    const char *version = mir_cli_value(from->args, MIR_OPT_IF_VERSION);
    if (mir_cli_target_parse(from->args, &from->session.arena, &from->targets, &error) != MIR_OK)
        return mir_cli_usage(from->cli, "%s", error.text);
    if (!from->targets.stated) return mir_cli_usage(from->cli, "which devices? '*/*' means all");
    from->name = mir_cli_value(from->args, MIR_OPT_MESSAGE);
    if (from->name == NULL || from->name[strspn(from->name, " ")] == '\0')
        return mir_cli_usage(from->cli, "needs -n NAME; `mir %s list` shows the names",
                             from->kind == MIR_MESSAGE_COMMAND ? "command" : "config");
    from->has_if_version = version != NULL;
    if (version != NULL && !mir_cli_number(version, true, &from->if_version))
        return mir_cli_usage(from->cli, "--if-version is a number: status.version of the device");
    int code = bad_combination(from);
    if (code == MIR_EXIT_OK && from->kind == MIR_MESSAGE_COMMAND)
        code = read_seconds(from, MIR_OPT_TIMEOUT, "--timeout", &from->timeout_s);
    if (code == MIR_EXIT_OK) code = read_seconds(from, MIR_OPT_TTL, "--ttl", &from->ttl_s);
    return code;
}

/* One target: that of the line, or the ids of what several of them match. */
static int choose_target(sender *from)
{
    mir_cli_target_state_everything(&from->targets);
    from->target = from->targets.items[0];
    if (from->targets.count == 1) return MIR_EXIT_OK;
    mir_cli_devices devices = {0};
    int code = mir_cli_devices_list(&from->session, &from->targets, MIR_DEVICES_PLAIN, &devices);
    if (code != MIR_EXIT_OK) return code;
    MirApi__V1__DeviceTarget *target = mir_arena_alloc(&from->session.arena, sizeof *target);
    if (target == NULL) return mir_cli_fail("no memory");
    mir_api__v1__device_target__init(target);
    target->ids = mir_arena_alloc(&from->session.arena, (devices.count + 1) * sizeof(*target->ids));
    if (target->ids == NULL) return mir_cli_fail("no memory");
    for (size_t i = 0; i < devices.count; i++)
        if (mir_cli_devices_id(devices.items[i])[0] != '\0')
            target->ids[target->n_ids++] = devices.items[i]->spec->device_id;
    if (target->n_ids == 0)
        return mir_cli_fail("no device matches; `mir device list` shows all devices");
    from->target = target;
    return MIR_EXIT_OK;
}

/* Whether the message is one without fields, for every device of the list that knows it. */
static bool has_fields(const mir_cli_message_list *list, const char *name)
{
    size_t size = strcspn(name, "{");
    for (size_t g = 0; g < list->count; g++)
        for (size_t i = 0; i < list->groups[g].messages_count; i++) {
            const mir_cli_message *each = &list->groups[g].messages[i];
            if (strlen(each->name) == size && memcmp(each->name, name, size) == 0 &&
                strcmp(each->template_text, "{}") != 0)
                return true;
        }
    return false;
}

/* The full name. A pipe that says nothing may be one that has not spoken yet: then only a command
 * without fields goes without a payload. */
static int resolve(sender *from, bool silent)
{
    bool is_short = mir_cli_message_is_short(from->name);
    if (!is_short && !silent) return MIR_EXIT_OK;
    mir_cli_targets one = {.items = &from->target, .count = 1};
    mir_cli_message_list list = {0};
    int code =
        mir_cli_message_fetch(&from->session, from->kind, &one, NULL, 0, from->refresh, &list);
    if (code == MIR_EXIT_OK) from->refresh = false;
    if (code == MIR_EXIT_OK && is_short)
        code = mir_cli_message_resolve(from->kind, &list, from->name, &from->name);
    if (code == MIR_EXIT_OK && silent && has_fields(&list, from->name))
        code = mir_cli_usage(from->cli,
                             "%s has fields, and standard input says nothing: give them with -p, "
                             "wait for the input with -p -, or send none with -p '{}'",
                             from->name);
    mir_cli_message_free(&list);
    return code;
}

/* ── Templates and the editor ────────────────────────────────────────────────────────────────── */

/* JSON as people edit it, in the order of the fields. */
static void pretty(mir_view json, mir_bytes *out)
{
    json_t *value = json_loadb((const char *)json.data, json.size, JSON_DECODE_ANY, NULL);
    char *text = value != NULL ? json_dumps(value, JSON_INDENT(2) | JSON_ENCODE_ANY) : NULL;
    if (text != NULL)
        mir_bytes_text(out, text);
    else
        mir_bytes_view(out, json);
    free(text);
    json_decref(value);
}

static bool same_payload(const mir_cli_result *a, const mir_cli_result *b)
{
    return mir_view_eq(a->payload, b->payload);
}

/* The template once, or once for each group of devices that has another one. */
static int print_templates(const mir_cli_results *results)
{
    size_t groups = 0;
    int code = MIR_EXIT_OK;
    for (size_t i = 0; i < results->count; i++) {
        bool seen = results->items[i].failed;
        for (size_t j = 0; j < i && !seen; j++)
            seen =
                !results->items[j].failed && same_payload(&results->items[j], &results->items[i]);
        groups += !seen;
    }
    for (size_t i = 0; i < results->count; i++) {
        const mir_cli_result *each = &results->items[i];
        if (each->failed) {
            code = mir_cli_fail("%s: %s", each->device, each->error);
            continue;
        }
        bool seen = false;
        for (size_t j = 0; j < i && !seen; j++)
            seen = !results->items[j].failed && same_payload(&results->items[j], each);
        if (seen) continue;
        if (groups > 1) mir_cli_note("%s:", each->device);
        mir_bytes text = {0};
        pretty(each->payload, &text);
        mir_bytes_u8(&text, '\n');
        if (mir_bytes_ok(&text)) (void)fwrite(text.data, 1, text.size, stdout);
        mir_bytes_free(&text);
    }
    return code;
}

static void add_devices(const mir_cli_results *results, mir_bytes *out)
{
    for (size_t i = 0; i < results->count && i < COMMENT_DEVICE_MAX; i++)
        mir_bytes_printf(out, "%s%s", i > 0 ? ", " : "", results->items[i].device);
    if (results->count > COMMENT_DEVICE_MAX)
        mir_bytes_printf(out, " and %zu more", results->count - COMMENT_DEVICE_MAX);
}

static int send_and_show(sender *from, mir_view payload);

/* Tries the text; on a refusal `comment` is what to say above it. */
static int try_text(sender *from, mir_view text, mir_bytes *comment, bool *refused)
{
    mir_cli_results results = {0};
    mir_error error = {0};
    const char *refusal = NULL;
    int code = MIR_EXIT_OK;
    const mir_cli_result *wrong = NULL;
    *refused = false;
    if (mir_cli_payload_check(text, &error) != MIR_OK) {
        *refused = true;
    } else {
        mir_status status = ask(from, WHAT_TRY, text, &results, &refusal, &error);
        wrong = mir_cli_result_first_error(&results);
        bool force = mir_cli_flag(from->args, MIR_OPT_FORCE_PUSH);
        if (status != MIR_OK && refusal == NULL) {
            (void)mir_cli_fail("%s", error.text);
            code = mir_cli_exit_code(status);
        }
        *refused = refusal != NULL || (status == MIR_OK && wrong != NULL && !force);
    }
    if (*refused) {
        comment->size = 0;
        mir_bytes_printf(comment, "REFUSED: %s%s%s\n", wrong != NULL ? wrong->device : "",
                         wrong != NULL ? ": " : "",
                         wrong != NULL     ? wrong->error
                         : refusal != NULL ? refusal
                                           : error.text);
    }
    mir_cli_result_free(&results);
    return code;
}

static int edit_and_send(sender *from)
{
    mir_cli_results shown = {0};
    mir_cli_payload_edit edit = {0};
    mir_bytes json = {0};
    mir_bytes text = {0};
    mir_bytes comment = {0};
    mir_bytes about = {0};
    int code = ask_or_tell(from, from->kind == MIR_MESSAGE_COMMAND ? WHAT_TEMPLATE : WHAT_VALUES,
                           (mir_view){0}, &shown);
    const mir_cli_result *first = NULL;
    for (size_t i = 0; i < shown.count && first == NULL; i++)
        if (!shown.items[i].failed) first = &shown.items[i];
    if (code == MIR_EXIT_OK && first == NULL) {
        const mir_cli_result *wrong = mir_cli_result_first_error(&shown);
        code = mir_cli_fail("%s", wrong != NULL ? wrong->error : "the server knows no template");
    }
    if (code == MIR_EXIT_OK && first != NULL) {
        pretty(first->payload, &json);
        mir_bytes_printf(&about, "%s for ", from->name);
        add_devices(&shown, &about);
        if (from->kind == MIR_MESSAGE_CONFIG && shown.count > 1)
            mir_bytes_printf(&about, "\nThe values are those of %s.", first->device);
        mir_bytes_text(&about, "\nLines that begin with # or // are left out. An empty or "
                               "unchanged text sends nothing.\n");
        mir_bytes_u8(&about, '\0');
        code = mir_cli_payload_edit_begin(&edit);
    }
    bool refused = code == MIR_EXIT_OK;
    while (refused) {
        mir_bytes_text(&comment, mir_bytes_ok(&about) ? (const char *)about.data : "");
        mir_bytes_u8(&comment, '\0');
        if (!mir_bytes_ok(&comment) || !mir_bytes_ok(&json)) code = mir_cli_fail("no memory");
        if (code == MIR_EXIT_OK)
            code = mir_cli_payload_edit_open(&edit, (const char *)comment.data,
                                             mir_bytes_as_view(&json), &text);
        if (code != MIR_EXIT_OK) break;
        code = try_text(from, mir_bytes_as_view(&text), &comment, &refused);
        json.size = 0;
        mir_bytes_view(&json, mir_bytes_as_view(&text));
    }
    if (code == MIR_EXIT_OK) code = send_and_show(from, mir_bytes_as_view(&text));
    mir_cli_payload_edit_end(&edit);
    mir_bytes_free(&json);
    mir_bytes_free(&text);
    mir_bytes_free(&comment);
    mir_bytes_free(&about);
    mir_cli_result_free(&shown);
    return code;
}

/* ── Sending ─────────────────────────────────────────────────────────────────────────────────── */

static int send_and_show(sender *from, mir_view payload)
{
    mir_cli_results results = {0};
    bool streamed =
        mir_cli_flag(from->args, MIR_OPT_STREAM) && !mir_cli_flag(from->args, MIR_OPT_DRY_RUN);
    int code = ask_or_tell(from, WHAT_SEND, payload, &results);
    if (code == MIR_EXIT_OK && !streamed)
        code = mir_cli_result_print(
            &results, from->kind == MIR_MESSAGE_COMMAND ? "REPLY" : "PROPERTY", from->format);
    if (code == MIR_EXIT_OK)
        code = mir_cli_result_conclude(&results, from->format,
                                       !mir_cli_flag(from->args, MIR_OPT_DRY_RUN));
    mir_cli_result_free(&results);
    return code;
}

static int show(sender *from, what how)
{
    mir_cli_results results = {0};
    bool table = strcmp(from->format, "table") == 0 || strcmp(from->format, "wide") == 0;
    int code = ask_or_tell(from, how, (mir_view){0}, &results);
    if (code == MIR_EXIT_OK && how == WHAT_TEMPLATE && table)
        code = print_templates(&results);
    else if (code == MIR_EXIT_OK) {
        code = mir_cli_result_print(&results, "PROPERTY", from->format);
        if (code == MIR_EXIT_OK && mir_cli_result_first_error(&results) != NULL)
            code = MIR_EXIT_FAILED;
    }
    mir_cli_result_free(&results);
    return code;
}

static int run(sender *from)
{
    const mir_cli_args *args = from->args;
    bool edit = mir_cli_flag(args, MIR_OPT_EDIT);
    what how = mir_cli_flag(args, MIR_OPT_SHOW_TEMPLATE) ? WHAT_TEMPLATE
               : mir_cli_flag(args, MIR_OPT_SHOW_VALUES) ? WHAT_VALUES
                                                         : WHAT_SEND;
    mir_cli_payload payload = {0};
    int code = read_line_options(from);
    if (code == MIR_EXIT_OK && how == WHAT_SEND && !edit)
        code = mir_cli_payload_read(from->cli, args, &payload);
    if (code == MIR_EXIT_OK && how == WHAT_SEND && !edit && !payload.given &&
        from->kind == MIR_MESSAGE_CONFIG)
        code = mir_cli_usage(from->cli, "what value? give it with -p JSON, a pipe or -e; -j shows "
                                        "the template, --show-values what is set");
    if (code == MIR_EXIT_OK && !payload.given) {
        payload.text.size = 0;
        if (!is_protobuf(from)) mir_bytes_text(&payload.text, "{}");
        if (!mir_bytes_ok(&payload.text)) code = mir_cli_fail("no memory");
    }
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(from->cli, args, &from->session);
    if (code == MIR_EXIT_OK && from->kind == MIR_MESSAGE_COMMAND)
        mir_client_set_timeout(
            from->session.client,
            MARGIN_NS + (from->timeout_s > 0 ? from->timeout_s * MIR_NS_PER_S : DEVICE_TIMEOUT_NS));
    if (code == MIR_EXIT_OK) code = choose_target(from);
    if (code == MIR_EXIT_OK) code = resolve(from, payload.silent && how == WHAT_SEND && !edit);
    if (code == MIR_EXIT_OK)
        code = edit               ? edit_and_send(from)
               : how == WHAT_SEND ? send_and_show(from, mir_bytes_as_view(&payload.text))
                                  : show(from, how);
    mir_cli_payload_free(&payload);
    mir_cli_connect_close(&from->session);
    return code;
}

static int send_message(mir_cli *cli, const mir_cli_args *args, mir_cli_message_kind kind)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    sender from = {.cli = cli,
                   .args = args,
                   .kind = kind,
                   .session = MIR_CLI_SESSION_INIT,
                   .format = format != NULL ? format : "table",
                   .refresh = mir_cli_flag(args, MIR_OPT_REFRESH)};
    return run(&from);
}

int mir_cli_command_send(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    return send_message(cli, args, MIR_MESSAGE_COMMAND);
}

int mir_cli_config_send(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    return send_message(cli, args, MIR_MESSAGE_CONFIG);
}
