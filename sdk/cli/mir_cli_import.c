/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry import: rows out of a file, published as their devices would publish them, so that
 * every rule of telemetry holds for them. What the server refuses it counts for the device; these
 * counts from before and after say what has become of the rows. */
#include "mir_cli_devices.h"

#include "mir_cli_encode.h"
#include "mir_cli_interrupt.h"
#include "mir_cli_progress.h"
#include "mir_cli_records.h"
#include "mir_cli_schema.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_map.h"

#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum {
    /* On the way at one time; less than a server holds of one device that it is only just looking
     * up. A single row may be larger. */
    WINDOW_BYTES = 2 * 1024 * 1024,
    BATCH_BYTES = WINDOW_BYTES / 8, /* that one answer is for */
    BATCHES_MAX = 16,
    MESSAGE_BYTES = 256, /* what a message costs besides its payload */
    CAUSES_MAX = 64,
    LINES_TOLD_MAX = 10, /* refused rows that are told by themselves */
    ENCODERS_MAX = 512,
    SCHEMAS_MAX = 4096,
    DEVICES_MAX = 1 << 20,
    IDS_ASKED_MAX = 500,
    SUBJECT_BYTES = 256,
};

typedef struct device {
    mir_map_node node;
    mir_view id;
    mir_schema *schema; /* null: its rows are refused */
    const char *cause;
    const char *text;
    uint64_t published;
    size_t problems_count;
    struct {
        const char *kind;
        uint64_t count;
    } * problems; /* from before */
} device;

typedef struct encoder {
    mir_map_node node;
    const mir_schema *schema;
    mir_view measurement;
    mir_view *columns;
    size_t count;
    mir_cli_encoder *encoder; /* null: rows are refused */
    const char *cause;
    const char *text;
    mir_arena arena;
} encoder;

typedef struct cause {
    const char *text;
    uint64_t count;
} cause;

/* Rows that one answer is for. */
typedef struct batch {
    uint64_t mark;
    uint64_t messages;
    size_t bytes;
    uint64_t line; /* of its first row */
} batch;

typedef struct importer {
    mir_cli_session session; /* its arena is emptied again and again */
    mir_arena arena;         /* of devices */
    mir_cli_records *records;
    const char *device_id;   /* null: the rows say */
    const char *measurement; /* null: the rows say */
    bool dry_run;
    uint64_t from_line; /* rows before it are passed over */
    mir_map devices;
    mir_map encoders;
    mir_schema *schemas[SCHEMAS_MAX];
    size_t schemas_count;
    mir_bytes payload;
    batch open;              /* published, without a mark yet */
    batch sent[BATCHES_MAX]; /* a ring, oldest first */
    size_t sent_first, sent_count, sent_bytes;
    bool lost;          /* the connection */
    uint64_t rest_line; /* what was not dealt with begins there; 0: there is nothing */
    uint64_t rows, sent_rows, refused, told;
    cause causes[CAUSES_MAX];
    size_t causes_count;
    mir_cli_progress progress;
} importer;

static void count_cause(importer *at, const char *text, uint64_t count)
{
    size_t i = 0;
    while (i < at->causes_count && strcmp(at->causes[i].text, text) != 0) i++;
    if (i == at->causes_count && i < CAUSES_MAX) at->causes[at->causes_count++] = (cause){text, 0};
    if (i < CAUSES_MAX) at->causes[i].count += count;
    at->refused += count;
}

/* `text` says what is wrong with this row, `kind` (constant, or of the arena) what is with such. */
static void refuse_row(importer *at, uint64_t line, const char *kind, const char *text)
{
    count_cause(at, kind, 1);
    if (at->told++ >= LINES_TOLD_MAX) return;
    mir_cli_progress_hide(&at->progress);
    (void)mir_cli_fail("line %" PRIu64 ": %s", line, text);
    if (at->told == LINES_TOLD_MAX)
        mir_cli_note("Others that are refused are only counted from here on.");
}

/* Devices with the same schema share it, and with it the encoders. */
static mir_schema *share(importer *at, mir_schema *schema)
{
    for (size_t i = 0; i < at->schemas_count; i++) {
        if (!mir_schema_equal(at->schemas[i], schema)) continue;
        mir_schema_unref(schema);
        return at->schemas[i];
    }
    if (at->schemas_count == SCHEMAS_MAX) {
        mir_schema_unref(schema);
        return NULL;
    }
    at->schemas[at->schemas_count++] = schema;
    return schema;
}

MIR_MUST_CHECK static bool note_problems(importer *at, device *to,
                                         const MirApi__V1__DeviceStatus *status)
{
    if (status == NULL || status->n_problems == 0) return true;
    to->problems = mir_arena_alloc(&at->arena, status->n_problems * sizeof(*to->problems));
    if (to->problems == NULL) return false;
    for (size_t i = 0; i < status->n_problems; i++) {
        const MirApi__V1__DeviceProblem *each = status->problems[i];
        char *kind =
            mir_arena_strdup(&at->arena, mir_view_cstr(each->kind != NULL ? each->kind : ""));
        if (kind == NULL) return false;
        to->problems[i].kind = kind;
        to->problems[i].count = each->count;
    }
    to->problems_count = status->n_problems;
    return true;
}

static const char *keep_text(importer *at, const char *format, ...) MIR_PRINTF(2, 3);
static const char *keep_text(importer *at, const char *format, ...)
{
    char text[512];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    const char *kept = mir_arena_strdup(&at->arena, mir_view_cstr(text));
    return kept != NULL ? kept : "";
}

MIR_MUST_CHECK static int look_up(importer *at, device *to)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget *one = &target;
    mir_cli_targets targets = {.items = &one, .count = 1};
    mir_cli_devices found = {0};
    mir_error error = {0};
    char *id = (char *)(uintptr_t)to->id.data;
    target.ids = &id;
    target.n_ids = 1;
    /* A star would be a pattern; no device has it in its id. */
    bool possible = memchr(to->id.data, '*', to->id.size) == NULL;
    int code = possible ? mir_cli_devices_list(&at->session, &targets, MIR_DEVICES_SCHEMA, &found)
                        : MIR_EXIT_OK;
    if (code != MIR_EXIT_OK) return code;
    if (found.count == 0) {
        to->cause = "a device that is not registered";
        to->text = keep_text(at,
                             "the device '%s' is not registered; `mir device apply` or its own "
                             "heartbeat does that",
                             id);
        return code;
    }
    const MirApi__V1__Device *twin = found.items[0];
    if (twin->spec != NULL && twin->spec->disabled) {
        to->cause = "a device that is disabled";
        to->text = keep_text(at, "the device '%s' is disabled", id);
    } else if (mir_cli_schema_load(twin, &to->schema, &error) != MIR_OK) {
        to->schema = NULL;
        to->cause = "a device without a schema";
        to->text = keep_text(at,
                             "the server has no schema of the device '%s' yet: it comes with the "
                             "device, or by `mir device schema --refresh`",
                             id);
    } else {
        to->schema = share(at, to->schema);
        if (to->schema == NULL)
            return mir_cli_fail("more than %d schemas: import fewer devices at once", SCHEMAS_MAX);
    }
    if (!note_problems(at, to, twin->status)) return mir_cli_fail("no memory");
    mir_arena_reset(&at->session.arena);
    return MIR_EXIT_OK;
}

static int find_device(importer *at, mir_view id, device **found)
{
    uint64_t hash = mir_hash_view(id);
    for (mir_map_node *node = mir_map_first(&at->devices, hash); node != NULL;
         node = mir_map_next(node)) {
        *found = MIR_CONTAINER(node, device, node);
        if (mir_view_eq((*found)->id, id)) return MIR_EXIT_OK;
    }
    if (at->devices.count == DEVICES_MAX)
        return mir_cli_fail("more than %d devices: import fewer at once", DEVICES_MAX);
    *found = mir_arena_alloc(&at->arena, sizeof **found);
    char *copy = mir_arena_strdup(&at->arena, id);
    if (*found == NULL || copy == NULL) return mir_cli_fail("no memory");
    (*found)->id = mir_view_of(copy, id.size);
    int code = look_up(at, *found);
    if (code == MIR_EXIT_OK) mir_map_add(&at->devices, &(*found)->node, hash);
    return code;
}

static void free_encoders(importer *at)
{
    mir_map_node *node;
    uint32_t from = 0;
    while ((node = mir_map_any(&at->encoders, &from)) != NULL) {
        encoder *each = MIR_CONTAINER(node, encoder, node);
        mir_map_remove(&at->encoders, node);
        mir_cli_encoder_free(each->encoder);
        mir_arena_free(&each->arena);
        free(each);
    }
}

static bool is_for(const encoder *each, const mir_schema *schema, mir_view measurement,
                   const mir_cli_record *record)
{
    if (each->schema != schema || each->count != record->count ||
        !mir_view_eq(each->measurement, measurement))
        return false;
    for (size_t i = 0; i < record->count; i++)
        if (!mir_view_eq(each->columns[i], record->columns[i])) return false;
    return true;
}

MIR_MUST_CHECK static bool copy_key(encoder *to, mir_view measurement, const mir_cli_record *record)
{
    const char *name = mir_arena_strdup(&to->arena, measurement);
    to->columns = mir_arena_alloc(&to->arena, (record->count + 1) * sizeof(*to->columns));
    if (name == NULL || to->columns == NULL) return false;
    to->measurement = mir_view_of(name, measurement.size);
    for (; to->count < record->count; to->count++) {
        mir_view column = record->columns[to->count];
        const char *copy = mir_arena_strdup(&to->arena, column);
        if (copy == NULL) return false;
        to->columns[to->count] = mir_view_of(copy, column.size);
    }
    return true;
}

static int find_encoder(importer *at, const mir_schema *schema, mir_view measurement,
                        const mir_cli_record *record, encoder **found)
{
    mir_error error = {0};
    uint64_t hash =
        mir_hash_view(measurement) ^ record->columns_hash ^ mir_hash_bytes(&schema, sizeof schema);
    for (mir_map_node *node = mir_map_first(&at->encoders, hash); node != NULL;
         node = mir_map_next(node)) {
        *found = MIR_CONTAINER(node, encoder, node);
        if (is_for(*found, schema, measurement, record)) return MIR_EXIT_OK;
    }
    if (at->encoders.count == ENCODERS_MAX) free_encoders(at);
    encoder *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_cli_fail("no memory");
    made->schema = schema;
    const mir_schema_message *message = NULL;
    bool ok = copy_key(made, measurement, record);
    if (ok && (mir_schema_find(schema, measurement, &message, NULL) != MIR_OK ||
               message->type != MIR_MESSAGE_TELEMETRY)) {
        made->cause = "a measurement that the schema does not have";
        (void)mir_error_set(&error, MIR_E_NOT_FOUND, "the device does not measure '%.*s'",
                            measurement.size < 200 ? (int)measurement.size : 200,
                            (const char *)measurement.data);
    } else if (ok && mir_cli_encoder_new(message, made->columns, made->count, &made->encoder,
                                         &error) != MIR_OK) {
        made->cause = "a measurement that cannot be imported";
    }
    if (ok && made->cause != NULL) {
        made->text = mir_arena_strdup(&made->arena, mir_view_cstr(error.text));
        ok = made->text != NULL;
    }
    if (!ok) {
        mir_arena_free(&made->arena);
        free(made);
        return mir_cli_fail("no memory");
    }
    mir_map_add(&at->encoders, &made->node, hash);
    *found = made;
    return MIR_EXIT_OK;
}

static int tell_loss(importer *at, mir_status status, const mir_error *error)
{
    mir_cli_progress_hide(&at->progress);
    if (!at->lost) (void)mir_cli_fail("%s: %s", at->session.where, error->text);
    at->lost = true;
    return mir_cli_exit_code(status);
}

static int mark_batch(importer *at)
{
    mir_error error = {0};
    if (at->open.messages == 0) return MIR_EXIT_OK;
    mir_status status = mir_client_mark(at->session.client, &at->open.mark, &error);
    if (status != MIR_OK) return tell_loss(at, status, &error);
    at->sent[(at->sent_first + at->sent_count++) % BATCHES_MAX] = at->open;
    at->sent_bytes += at->open.bytes;
    at->open = (batch){0};
    return MIR_EXIT_OK;
}

static int await_batch(importer *at)
{
    mir_error error = {0};
    const batch *oldest = &at->sent[at->sent_first];
    mir_status status = mir_client_await_mark(at->session.client, oldest->mark, &error);
    if (status != MIR_OK) return tell_loss(at, status, &error);
    at->sent_bytes -= oldest->bytes;
    at->sent_first = (at->sent_first + 1) % BATCHES_MAX;
    at->sent_count--;
    return MIR_EXIT_OK;
}

/* Until so many bytes more may be on their way. */
static int make_room(importer *at, size_t bytes)
{
    int code = MIR_EXIT_OK;
    if (at->open.bytes + bytes > BATCH_BYTES) code = mark_batch(at);
    while (code == MIR_EXIT_OK && at->sent_count > 0 &&
           (at->sent_count == BATCHES_MAX || at->sent_bytes + bytes > WINDOW_BYTES))
        code = await_batch(at);
    return code;
}

/* Whatever is on its way; what the server did not answer for counts as sent no more. */
static int settle(importer *at, int code)
{
    int settled = code == MIR_EXIT_OK ? mark_batch(at) : MIR_EXIT_OK;
    while (settled == MIR_EXIT_OK && at->sent_count > 0) settled = await_batch(at);
    if (at->sent_count == 0 && at->open.messages == 0) return settled;
    at->rest_line = at->sent_count > 0 ? at->sent[at->sent_first].line : at->open.line;
    at->sent_rows -= at->open.messages;
    for (; at->sent_count > 0; at->sent_count--) {
        at->sent_rows -= at->sent[at->sent_first].messages;
        at->sent_first = (at->sent_first + 1) % BATCHES_MAX;
    }
    return settled;
}

static int publish(importer *at, device *from, mir_view measurement, const mir_cli_record *record)
{
    char subject[SUBJECT_BYTES];
    char headers[1024];
    mir_error error = {0};
    (void)snprintf(subject, sizeof subject, "device.%s.tlm.v1alpha.proto",
                   (const char *)from->id.data);
    int size = snprintf(headers, sizeof headers, "NATS/1.0\r\nmir-msg: %.*s\r\n\r\n",
                        MIR_VIEW_ARGS(measurement));
    if (size < 0 || (size_t)size >= sizeof headers) {
        refuse_row(at, record->line, "a measurement that cannot be imported",
                   "the name of the measurement is too long");
        return MIR_EXIT_OK;
    }
    size_t bytes = at->payload.size + (size_t)size + MESSAGE_BYTES;
    int code = make_room(at, bytes);
    if (code != MIR_EXIT_OK) return code;
    mir_status status =
        mir_client_publish(at->session.client, subject, mir_view_of(headers, (size_t)size),
                           mir_bytes_as_view(&at->payload), &error);
    if (status == MIR_E_TOO_LARGE) {
        refuse_row(at, record->line, "a row that is too large", error.text);
        return MIR_EXIT_OK;
    }
    if (status != MIR_OK) return tell_loss(at, status, &error);
    if (at->open.messages++ == 0) at->open.line = record->line;
    at->open.bytes += bytes;
    at->sent_rows++;
    from->published++;
    return MIR_EXIT_OK;
}

static int take_record(importer *at, const mir_cli_record *record)
{
    mir_error error = {0};
    device *from = NULL;
    encoder *by = NULL;
    const char *kind = NULL;
    at->rows++;
    mir_view id = at->device_id != NULL ? mir_view_cstr(at->device_id) : record->device_id;
    mir_view measurement =
        at->measurement != NULL ? mir_view_cstr(at->measurement) : record->measurement;
    if (record->cause != NULL) {
        refuse_row(at, record->line, record->cause, record->text);
        return MIR_EXIT_OK;
    }
    if (id.size == 0 || id.size > 128) {
        refuse_row(at, record->line, "no device",
                   "the row names no device: there is no __id, and --device is not given");
        return MIR_EXIT_OK;
    }
    if (measurement.size == 0) {
        refuse_row(at, record->line, "no measurement",
                   "the row names no measurement: there is no _measurement, and -m is not given");
        return MIR_EXIT_OK;
    }
    int code = find_device(at, id, &from);
    if (code != MIR_EXIT_OK) return code;
    if (from->schema == NULL) {
        refuse_row(at, record->line, from->cause, from->text);
        return MIR_EXIT_OK;
    }
    code = find_encoder(at, from->schema, measurement, record, &by);
    if (code != MIR_EXIT_OK) return code;
    if (by->encoder == NULL) {
        refuse_row(at, record->line, by->cause, by->text);
        return MIR_EXIT_OK;
    }
    at->payload.size = 0;
    mir_status status = mir_cli_encoder_row(by->encoder, record->time_ns, record->values,
                                            &at->payload, &kind, &error);
    if (status == MIR_E_NO_MEMORY) return mir_cli_fail("%s", error.text);
    if (status != MIR_OK) {
        refuse_row(at, record->line, kind, error.text);
        return MIR_EXIT_OK;
    }
    if (!at->dry_run) return publish(at, from, measurement, record);
    at->sent_rows++;
    return MIR_EXIT_OK;
}

static int take_all(importer *at)
{
    mir_cli_record record;
    mir_error error = {0};
    int code = MIR_EXIT_OK;
    for (uint64_t n = 0; code == MIR_EXIT_OK; n++) {
        at->rest_line = mir_cli_records_line(at->records);
        mir_status status = mir_cli_interrupted()
                                ? MIR_E_CANCELLED
                                : mir_cli_records_next(at->records, &record, &error);
        if (status == MIR_E_EMPTY) {
            if (at->from_line > at->rest_line)
                code =
                    mir_cli_fail("there is no line %" PRIu64 " to begin with: there are %" PRIu64,
                                 at->from_line, at->rest_line - 1);
            at->rest_line = 0;
        }
        if (status == MIR_E_EMPTY || status == MIR_E_CANCELLED) break;
        if (status != MIR_OK) {
            mir_cli_progress_hide(&at->progress);
            code = mir_cli_fail("%s", error.text);
            break;
        }
        if (record.line >= at->from_line) code = take_record(at, &record);
        if (n % 64 != 0) continue;
        uint64_t done = 0, total = 0;
        mir_cli_records_progress(at->records, &done, &total);
        mir_cli_progress_set(&at->progress, done >> 10, total >> 10);
        mir_cli_progress_tick(&at->progress);
    }
    int settled = settle(at, code);
    if (code == MIR_EXIT_OK) code = settled;
    bool stopped = mir_cli_interrupted() && at->rest_line > 0;
    return code == MIR_EXIT_OK && stopped ? MIR_EXIT_STOPPED : code;
}

static uint64_t count_before(const device *from, const char *kind)
{
    for (size_t i = 0; i < from->problems_count; i++)
        if (strcmp(from->problems[i].kind, kind) == 0) return from->problems[i].count;
    return 0;
}

/* What the server has counted for the device since, at most as much as came from here. */
static void count_problems(importer *at, device *from, const MirApi__V1__DeviceStatus *status)
{
    uint64_t left = from->published;
    for (size_t i = 0; status != NULL && i < status->n_problems && left > 0; i++) {
        const MirApi__V1__DeviceProblem *each = status->problems[i];
        const char *kind = each->kind != NULL ? each->kind : "";
        uint64_t before = count_before(from, kind);
        uint64_t count = each->count > before ? each->count - before : 0;
        bool concerns = strncmp(kind, "property", 8) != 0;
        if (!concerns || count == 0) continue;
        if (count > left) count = left;
        left -= count;
        at->sent_rows -= count;
        count_cause(at,
                    keep_text(at, "%s (by the server: %s)", kind,
                              each->message != NULL ? each->message : ""),
                    count);
    }
}

static int ask_problems(importer *at, device **some, char **ids, size_t count)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget *one = &target;
    mir_cli_targets targets = {.items = &one, .count = 1};
    mir_cli_devices found = {0};
    if (count == 0) return MIR_EXIT_OK;
    target.ids = ids;
    target.n_ids = count;
    int code = mir_cli_devices_list(&at->session, &targets, MIR_DEVICES_PLAIN, &found);
    for (size_t i = 0; code == MIR_EXIT_OK && i < found.count; i++)
        for (size_t j = 0; j < count; j++)
            if (strcmp(mir_cli_devices_id(found.items[i]), ids[j]) == 0)
                count_problems(at, some[j], found.items[i]->status);
    mir_arena_reset(&at->session.arena);
    return code;
}

/* What became of what was published. */
static int check(importer *at)
{
    device *some[IDS_ASKED_MAX];
    char *ids[IDS_ASKED_MAX];
    mir_map_node *node;
    uint32_t from = 0;
    size_t count = 0;
    int code = MIR_EXIT_OK;
    while ((node = mir_map_any(&at->devices, &from)) != NULL) {
        device *each = MIR_CONTAINER(node, device, node);
        mir_map_remove(&at->devices, node);
        if (each->published == 0 || code != MIR_EXIT_OK) continue;
        some[count] = each;
        ids[count++] = (char *)(uintptr_t)each->id.data;
        if (count < IDS_ASKED_MAX) continue;
        code = ask_problems(at, some, ids, count);
        count = 0;
    }
    return code == MIR_EXIT_OK ? ask_problems(at, some, ids, count) : code;
}

/* Rows that are imported anew change nothing, so what is not known may be repeated. */
static void conclude(const importer *at)
{
    mir_cli_note("%" PRIu64 " row%s: %" PRIu64 " %s, %" PRIu64 " refused.", at->rows,
                 at->rows == 1 ? "" : "s", at->sent_rows,
                 at->dry_run ? "would be imported" : "imported", at->refused);
    if (at->sent_rows + at->refused < at->rows)
        mir_cli_note("  %" PRIu64 " may be there or not: the server did not answer for them",
                     at->rows - at->sent_rows - at->refused);
    for (size_t i = 0; i < at->causes_count; i++)
        mir_cli_note("  %" PRIu64 " %s", at->causes[i].count, at->causes[i].text);
    if (at->rest_line > 1)
        mir_cli_note("Everything before line %" PRIu64 " is done: --from-line %" PRIu64
                     " goes on there.",
                     at->rest_line, at->rest_line);
}

int mir_cli_telemetry_import(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    importer at = {.session = MIR_CLI_SESSION_INIT,
                   .arena.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX,
                   .device_id = mir_cli_value(args, MIR_OPT_DEVICE),
                   .measurement = mir_cli_value(args, MIR_OPT_MEASUREMENT),
                   .dry_run = mir_cli_flag(args, MIR_OPT_DRY_RUN)};
    const char *format = mir_cli_value(args, MIR_OPT_FORMAT);
    const char *from_line = mir_cli_value(args, MIR_OPT_FROM_LINE);
    const char *precision = mir_cli_value(args, MIR_OPT_PRECISION);
    mir_error error = {0};
    int64_t tick_ns = precision == NULL || strcmp(precision, "ns") == 0 ? 1
                      : strcmp(precision, "us") == 0                    ? MIR_NS_PER_US
                      : strcmp(precision, "ms") == 0                    ? MIR_NS_PER_MS
                                                                        : MIR_NS_PER_S;
    mir_cli_records_format form = format == NULL               ? MIR_RECORDS_GUESS
                                  : strcmp(format, "csv") == 0 ? MIR_RECORDS_CSV
                                                               : MIR_RECORDS_LINE;
    int code = MIR_EXIT_OK;
    if (from_line != NULL && !mir_cli_number(from_line, false, &at.from_line))
        return mir_cli_usage(cli, "--from-line is the number of a line, from 1");
    if (mir_cli_records_open(args->words[0], form, tick_ns, &at.records, &error) != MIR_OK ||
        mir_cli_interrupt_begin(&error) != MIR_OK)
        code = mir_cli_fail("%s", error.text);
    if (code == MIR_EXIT_OK) mir_cli_records_stop_on(at.records, mir_cli_interrupt_fd());
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &at.session);
    if (code == MIR_EXIT_OK) {
        at.progress = mir_cli_progress_begin();
        at.progress.unit = " KiB";
        code = take_all(&at);
        mir_cli_progress_hide(&at.progress);
        int checked = at.dry_run || at.lost ? MIR_EXIT_OK : check(&at);
        if (code == MIR_EXIT_OK) code = checked;
        conclude(&at);
        if (code == MIR_EXIT_OK && at.refused > 0) code = MIR_EXIT_FAILED;
    }
    free_encoders(&at);
    mir_map_free(&at.encoders);
    mir_map_free(&at.devices);
    for (size_t i = 0; i < at.schemas_count; i++) mir_schema_unref(at.schemas[i]);
    mir_cli_records_close(at.records);
    mir_bytes_free(&at.payload);
    mir_cli_connect_close(&at.session);
    mir_arena_free(&at.arena);
    return code;
}
