/* SPDX-License-Identifier: Apache-2.0 */
/* mir event list, show, delete, verify, retention. */
#include "mir_cli_devices.h"
#include "mir_cli_events.h"
#include "mir_cli_table.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <ctype.h>
#include <inttypes.h>
#include <strings.h>
#include <sys/ioctl.h>
#include <unistd.h>

enum {
    LIMIT_USUAL = 100,
    LIMIT_LEAST = 10,
    LINES_BESIDE = 4, /* of a terminal: title, note, prompt */
    SHOWN_MAX = 5,
    COUNTED_MAX = 10000,
    HASH_BYTES = 32,
    TEXT_COLUMNS = 76,
};

static const char *format_of(const mir_cli_args *args, const char *usual)
{
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    return format != NULL ? format : usual;
}

/* As many as the terminal shows at once, or a hundred. */
static size_t usual_limit(void)
{
    struct winsize size;
    if (!isatty(STDOUT_FILENO) || ioctl(STDOUT_FILENO, TIOCGWINSZ, &size) != 0 || size.ws_row == 0)
        return LIMIT_USUAL;
    return size.ws_row > LIMIT_LEAST + LINES_BESIDE ? (size_t)size.ws_row - LINES_BESIDE
                                                    : LIMIT_LEAST;
}

static void say_none(const mir_cli_event_query *query)
{
    mir_cli_note(query->stated ? "No event matches." : "There are no events yet.");
}

int mir_cli_event_list(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_event_query query = {0};
    mir_cli_events events = {0};
    mir_error error = {0};
    uint64_t before = 0;
    uint64_t limit = usual_limit();
    const char *before_text = mir_cli_value(args, MIR_OPT_BEFORE);
    const char *limit_text = mir_cli_value(args, MIR_OPT_LIMIT);
    const char *format = format_of(args, "table");
    int code = MIR_EXIT_OK;
    if (before_text != NULL && !mir_cli_number(before_text, false, &before))
        code = mir_cli_usage(cli, "--before is the number of an event, the first column");
    else if (limit_text != NULL && (!mir_cli_number(limit_text, true, &limit) || limit > INT32_MAX))
        code = mir_cli_usage(cli, "--limit is a number; 0 is all");
    else if (mir_cli_events_query(args, &session.arena, &query, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code =
            mir_cli_events_newest(&session, &query, before, (size_t)limit, &session.arena, &events);
    if (code == MIR_EXIT_OK)
        code = mir_cli_events_print(&events, format, mir_cli_flag(args, MIR_OPT_UTC));
    if (code == MIR_EXIT_OK && events.count == 0) say_none(&query);
    uint64_t last = events.count > 0 ? mir_cli_events_sequence(events.items[events.count - 1]) : 0;
    if (code == MIR_EXIT_OK && events.more && last > 0)
        mir_cli_note("There are older ones: --before %" PRIu64 " shows them, --limit 0 shows all.",
                     last);
    else if (code == MIR_EXIT_OK && events.more)
        mir_cli_note("There are older ones: --limit shows more, --limit 0 all.");
    mir_cli_connect_close(&session);
    return code;
}

int mir_cli_event_show(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    int code = MIR_EXIT_OK;
    for (size_t i = 0; code == MIR_EXIT_OK && i < args->words_count; i++) {
        uint64_t unused;
        if (!mir_cli_number(args->words[i], false, &unused))
            code = mir_cli_usage(cli,
                                 "'%s' is not the number of an event, the first column of "
                                 "`mir event list`",
                                 args->words[i]);
    }
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    for (size_t i = 0; code == MIR_EXIT_OK && i < args->words_count; i++) {
        uint64_t sequence = 0;
        MirApi__V1__EventTarget target = MIR_API__V1__EVENT_TARGET__INIT;
        MirApi__V1__ListEventsRequest request = MIR_API__V1__LIST_EVENTS_REQUEST__INIT;
        MirApi__V1__Events *answer = NULL;
        if (!mir_cli_number(args->words[i], false, &sequence)) break;
        target.has_after_sequence = 1;
        target.after_sequence = sequence - 1;
        target.has_filter_limit = target.filter_limit = 1;
        request.target = &target;
        code = mir_cli_connect_ask(&session, "evt.v1alpha.list", &request.base,
                                   &mir_api__v1__list_events_response__descriptor, &answer);
        if (code != MIR_EXIT_OK) break;
        if (answer->n_events == 0 || mir_cli_events_sequence(answer->events[0]) != sequence) {
            code = mir_cli_fail("there is no event %" PRIu64 ", or it was removed", sequence);
            break;
        }
        mir_cli_events one = {answer->events, 1, false};
        if (i > 0 && strcmp(format_of(args, "yaml"), "yaml") == 0) (void)fputs("---\n", stdout);
        code = mir_cli_events_print(&one, format_of(args, "yaml"), false);
    }
    mir_cli_connect_close(&session);
    return code;
}

/* ── Deleting ────────────────────────────────────────────────────────────────────────────────── */

/* Asks on the terminal; only a clear yes is one. */
static bool confirmed(const mir_cli_events *events)
{
    (void)fflush(stdout);
    (void)fprintf(stderr, "Delete %s%zu event%s?\n", events->more ? "more than " : "",
                  events->count, events->count == 1 ? "" : "s");
    for (size_t i = 0; i < events->count && i < SHOWN_MAX; i++) {
        const MirApi__V1__Event *each = events->items[i];
        char device[512], time[64];
        mir_cli_events_device(each, device, sizeof device);
        mir_cli_when_clock(mir_cli_events_time(each), true, 0, false, time, sizeof time);
        mir_cli_note("  %s  %s  %s", time,
                     each->spec != NULL && each->spec->reason != NULL ? each->spec->reason : "",
                     device);
    }
    if (events->count > SHOWN_MAX)
        mir_cli_note("  and %s", events->more ? "many more" : "older ones");
    (void)fputs("Type y to delete, anything else to leave them: ", stderr);
    char answer[16];
    if (fgets(answer, sizeof answer, stdin) == NULL) return false;
    return strcasecmp(answer, "y\n") == 0 || strcasecmp(answer, "yes\n") == 0;
}

static char any_namespace[] = "*";
static char *any_namespace_list[] = {any_namespace};

/* The server wants to hear that everything is meant. */
MIR_MUST_CHECK static bool state_everything(const mir_cli_event_query *query, mir_arena *arena)
{
    for (size_t i = 0; i < query->count; i++) {
        if (query->items[i]->targets != NULL) continue;
        MirApi__V1__Targets *targets = mir_arena_alloc(arena, sizeof *targets);
        if (targets == NULL) return false;
        mir_api__v1__targets__init(targets);
        targets->namespaces = any_namespace_list;
        targets->n_namespaces = 1;
        query->items[i]->targets = targets;
    }
    return true;
}

static int nothing_found(void)
{
    return mir_cli_fail("no event matches; those of a device that is gone are found with --id");
}

int mir_cli_event_delete(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    bool yes = mir_cli_flag(args, MIR_OPT_YES);
    if (!yes && !isatty(STDIN_FILENO))
        return mir_cli_usage(cli, "there is no terminal to ask on; say --yes to delete");
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    mir_cli_event_query query = {0};
    mir_cli_events events = {0};
    mir_error error = {0};
    uint64_t before = 0;
    size_t deleted = 0;
    int code = MIR_EXIT_OK;
    if (mir_cli_events_query(args, &session.arena, &query, &error) != MIR_OK)
        code = mir_cli_usage(cli, "%s", error.text);
    else if (!query.stated)
        code = mir_cli_usage(cli, "which events? '*/*' means all");
    else if (!state_everything(&query, &session.arena))
        code = mir_cli_fail("no memory");
    query.by_name = false; /* a name that only begins alike must not be taken for the device's */
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK && !yes) {
        code = mir_cli_events_newest(&session, &query, 0, COUNTED_MAX, &session.arena, &events);
        if (code == MIR_EXIT_OK && events.count == 0) code = nothing_found();
        if (code == MIR_EXIT_OK && !confirmed(&events)) code = mir_cli_fail("nothing was deleted");
        /* What came after the question is not deleted. */
        if (code == MIR_EXIT_OK && mir_cli_events_sequence(events.items[0]) > 0)
            before = mir_cli_events_sequence(events.items[0]) + 1;
    }
    for (size_t i = 0; code == MIR_EXIT_OK && i < query.count; i++) {
        MirApi__V1__DeleteEventRequest request = MIR_API__V1__DELETE_EVENT_REQUEST__INIT;
        MirApi__V1__Events *answer = NULL;
        request.target = query.items[i];
        request.target->has_before_sequence = before > 0;
        request.target->before_sequence = before;
        code = mir_cli_connect_ask(&session, "evt.v1alpha.delete", &request.base,
                                   &mir_api__v1__delete_event_reponse__descriptor, &answer);
        if (code == MIR_EXIT_OK)
            deleted += answer->has_removed ? (size_t)answer->removed : answer->n_events;
    }
    if (code == MIR_EXIT_OK && deleted == 0) code = nothing_found();
    if (code == MIR_EXIT_OK)
        (void)printf("deleted %zu event%s\n", deleted, deleted == 1 ? "" : "s");
    mir_cli_connect_close(&session);
    return code;
}

/* ── The chain, and retention ────────────────────────────────────────────────────────────────── */

static int hex_digit(char c)
{
    if (c >= '0' && c <= '9') return c - '0';
    c = (char)tolower((unsigned char)c);
    return c >= 'a' && c <= 'f' ? c - 'a' + 10 : -1;
}

static bool parse_hash(const char *text, uint8_t hash[HASH_BYTES])
{
    for (size_t i = 0; i < HASH_BYTES; i++) {
        int high = hex_digit(text[2 * i]);
        int low = high >= 0 ? hex_digit(text[2 * i + 1]) : -1;
        if (low < 0) return false;
        hash[i] = (uint8_t)(high << 4 | low);
    }
    return text[2 * (size_t)HASH_BYTES] == '\0';
}

static void hash_text(const ProtobufCBinaryData *hash, char *text, size_t size)
{
    size_t used = 0;
    text[0] = '\0';
    for (size_t i = 0; i < hash->len && used + 3 <= size; i++, used += 2)
        (void)snprintf(text + used, size - used, "%02x", hash->data[i]);
}

static json_t *proof_json(const MirApi__V1__EventsProof *from)
{
    char head[2 * HASH_BYTES + 3] = "";
    if (from->has_head) hash_text(&from->head, head, sizeof head);
    json_t *out = json_pack("{s:b, s:I, s:I, s:I, s:s}", "intact", from->intact, "links",
                            (json_int_t)from->links, "removed", (json_int_t)from->removed,
                            "removals", (json_int_t)from->removals, "head", head);
    if (from->has_head_sequence)
        (void)json_object_set_new(out, "headSequence",
                                  json_integer((json_int_t)from->head_sequence));
    if (from->has_broken_sequence)
        (void)json_object_set_new(out, "brokenSequence",
                                  json_integer((json_int_t)from->broken_sequence));
    if (from->broken_text != NULL)
        (void)json_object_set_new(out, "brokenText", json_string(from->broken_text));
    if (from->text != NULL) (void)json_object_set_new(out, "text", json_string(from->text));
    return out;
}

static void print_proof(const MirApi__V1__EventsProof *from)
{
    bool colours = mir_cli_text_colours(stdout);
    mir_cli_table_tone tone = from->intact ? MIR_TONE_GOOD : MIR_TONE_BAD;
    (void)printf("%s%s%s\n", mir_cli_table_tone_on(tone, colours),
                 from->intact ? "intact" : "BROKEN", mir_cli_table_tone_off(tone, colours));
    if (!from->intact && from->has_broken_sequence)
        (void)printf("first broken link: %" PRIu64 "\n", from->broken_sequence);
    if (!from->intact && from->broken_text != NULL) {
        mir_cli_text_print_visible(stdout, from->broken_text);
        (void)fputc('\n', stdout);
    }
    (void)printf("links    %" PRIu64 "\nremoved  %" PRIu64 ", recorded by %" PRIu64 " removal%s\n",
                 from->links, from->removed, from->removals, from->removals == 1 ? "" : "s");
    if (from->has_head_sequence)
        (void)printf("given head found behind link %" PRIu64 "\n", from->head_sequence);
    if (from->has_head) {
        char head[2 * HASH_BYTES + 3];
        hash_text(&from->head, head, sizeof head);
        (void)printf("head     %s\n", head);
    }
    if (from->text != NULL && from->text[0] != '\0') {
        (void)fputc('\n', stdout);
        mir_cli_text_print_wrapped(stdout, from->text, TEXT_COLUMNS);
    }
}

int mir_cli_event_verify(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__VerifyEventsRequest request = MIR_API__V1__VERIFY_EVENTS_REQUEST__INIT;
    MirApi__V1__EventsProof *proof = NULL;
    uint8_t head[HASH_BYTES];
    const char *typed = mir_cli_value(args, MIR_OPT_HEAD);
    const char *format = format_of(args, "table");
    if (typed != NULL && !parse_hash(typed, head))
        return mir_cli_usage(cli, "--head is the 64 hexadecimal digits that `mir event verify` "
                                  "showed before");
    request.has_head = typed != NULL;
    request.head = (ProtobufCBinaryData){HASH_BYTES, head};
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code = mir_cli_connect_ask(&session, "evt.v1alpha.verify", &request.base,
                                   &mir_api__v1__verify_events_response__descriptor, &proof);
    if (code == MIR_EXIT_OK && strcmp(format, "table") == 0) {
        print_proof(proof);
    } else if (code == MIR_EXIT_OK) {
        json_t *value = proof_json(proof);
        code = mir_cli_devices_print_value(value, format);
        json_decref(value);
    }
    if (code == MIR_EXIT_OK && !proof->intact) code = MIR_EXIT_FAILED;
    mir_cli_connect_close(&session);
    return code;
}

static json_t *retention_json(const MirApi__V1__EventRetention *from)
{
    char text[MIR_CLOCK_TEXT_BYTES];
    json_t *rules = json_array();
    for (size_t i = 0; i < from->n_rules; i++)
        (void)json_array_append_new(
            rules, json_pack("{s:s, s:I}", "reason",
                             from->rules[i]->reason != NULL ? from->rules[i]->reason : "",
                             "keepSeconds", (json_int_t)from->rules[i]->keep_seconds));
    json_t *out =
        json_pack("{s:o, s:I, s:I, s:I}", "rules", rules, "events", (json_int_t)from->events,
                  "removed", (json_int_t)from->removed, "indexLag", (json_int_t)from->index_lag);
    if (from->oldest != NULL &&
        mir_timestamp_format(from->oldest->seconds, from->oldest->nanos, text) > 0)
        (void)json_object_set_new(out, "oldest", json_string(text));
    if (from->last_run != NULL &&
        mir_timestamp_format(from->last_run->seconds, from->last_run->nanos, text) > 0)
        (void)json_object_set_new(out, "lastRun", json_string(text));
    return out;
}

static int print_retention(const MirApi__V1__EventRetention *from)
{
    char text[64];
    int64_t now_ns = mir_clock_wall_ns();
    mir_cli_table *table = mir_cli_table_new();
    mir_cli_table_column(table, "REASON", NULL, MIR_TABLE_TEXT);
    mir_cli_table_column(table, "KEPT", NULL, MIR_TABLE_FIXED);
    for (size_t i = 0; i < from->n_rules; i++) {
        uint64_t seconds = from->rules[i]->keep_seconds;
        mir_cli_when_kept(seconds, text, sizeof text);
        mir_cli_table_cell(table, MIR_TONE_STRONG,
                           from->rules[i]->reason != NULL ? from->rules[i]->reason : "");
        mir_cli_table_cell(table, MIR_TONE_PLAIN, text);
    }
    mir_status status = mir_cli_table_print(table, stdout, mir_cli_text_terminal_columns(stdout),
                                            mir_cli_text_colours(stdout), NULL);
    mir_cli_table_free(table);
    if (status != MIR_OK) return mir_cli_fail("no memory for the table");
    (void)printf("\n%" PRIu64 " event%s stored", from->events, from->events == 1 ? " is" : "s are");
    if (from->oldest != NULL) {
        mir_cli_when_age(mir_timestamp_ns(from->oldest), now_ns, text, sizeof text);
        (void)printf(", the oldest from %s", text);
    }
    (void)printf("; %" PRIu64 " %s removed", from->removed, from->removed == 1 ? "was" : "were");
    if (from->last_run != NULL) {
        mir_cli_when_age(mir_timestamp_ns(from->last_run), now_ns, text, sizeof text);
        (void)printf(", last looked %s", text);
    }
    (void)printf(".\n");
    if (from->index_lag > 0)
        (void)printf("%" PRIu64 " are stored and not yet in an index.\n", from->index_lag);
    return MIR_EXIT_OK;
}

int mir_cli_event_retention(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_cli_session session = MIR_CLI_SESSION_INIT;
    MirApi__V1__EventRetentionRequest request = MIR_API__V1__EVENT_RETENTION_REQUEST__INIT;
    MirApi__V1__EventRetention *answer = NULL;
    const char *format = format_of(args, "table");
    int code = mir_cli_connect_open(cli, args, &session);
    if (code == MIR_EXIT_OK)
        code = mir_cli_connect_ask(&session, "evt.v1alpha.retention", &request.base,
                                   &mir_api__v1__event_retention_response__descriptor, &answer);
    if (code == MIR_EXIT_OK && strcmp(format, "table") == 0) {
        code = print_retention(answer);
    } else if (code == MIR_EXIT_OK) {
        json_t *value = retention_json(answer);
        code = mir_cli_devices_print_value(value, format);
        json_decref(value);
    }
    mir_cli_connect_close(&session);
    return code;
}
