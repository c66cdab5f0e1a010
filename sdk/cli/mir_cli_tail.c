/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry watch: rows as devices send them, decoded here by the schemas of their twins. What the
 * server refuses is shown as well: it is what the devices say. */
#include "mir_cli_devices.h"

#include "mir_cli_rows.h"
#include "mir_cli_schema.h"
#include "mir_cli_telemetry.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_map.h"
#include "mir_nats.h"
#include "mir_plan.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define IDLE_NS      (30 * MIR_NS_PER_S)
#define AGAIN_NS     (200 * MIR_NS_PER_MS) /* first pause before a new connection */
#define AGAIN_MAX_NS (5 * MIR_NS_PER_S)
#define ASK_NS       (5 * MIR_NS_PER_S)  /* between two questions for one device */
#define TELL_NS      (10 * MIR_NS_PER_S) /* between two notes about it */

enum {
    QUEUE_BYTES_MAX = 16 << 20,
    GATHERED_MAX = 256, /* messages that are heard before they are shown */
    DEVICES_MAX = 1 << 18,
    PLANS_MAX = 1024,
    ID_BYTES_MAX = 128,
    CELLS_MAX = MIR_ROW_COLUMNS_MAX_DEFAULT + MIR_ROW_DYNAMIC_MAX_DEFAULT,
};

typedef struct heard_message {
    struct heard_message *next;
    int64_t heard_ns;
    size_t size;
    mir_view device_id, measurement, payload;
    uint8_t bytes[];
} heard_message;

typedef struct device {
    mir_map_node node;
    mir_view id;
    bool wanted;
    int64_t asked_ns, told_ns;
    mir_schema *schema; /* null: none is known */
    char name[128];     /* NAME/NAMESPACE, perhaps cut */
} device;

/* Of a message of a schema; devices with the same schema share it. */
typedef struct plan {
    mir_schema *schema;
    char *measurement;
    mir_plan *plan;
} plan;

typedef struct tail {
    mir_cli_session session;
    mir_arena arena; /* of what is there to the end */
    mir_cli_targets targets;
    const mir_cli_args *args;
    char **measurements, **fields;
    size_t measurements_count, fields_count;
    const char *format;
    bool utc;
    int stop_fd;
    mir_map devices;
    plan plans[PLANS_MAX];
    size_t plans_count;
    mir_row row;
    mir_cli_row_cell *cells;
    heard_message *first, **last;
    size_t queued_bytes;
    uint64_t dropped;
    uint64_t header_hash; /* of the section of CSV */
    bool has_header;
    mir_bytes out;
} tail;

static bool is_among(char *const *list, size_t count, mir_view name)
{
    for (size_t i = 0; i < count; i++)
        if (mir_view_eq_cstr(name, list[i])) return true;
    return count == 0;
}

static void heard(void *context, const char *subject, mir_view headers, mir_view payload)
{
    tail *at = context;
    const char *id = strchr(subject, '.');
    mir_view measurement = mir_nats_header(headers, MIR_VIEW_LITERAL("mir-msg"));
    if (id == NULL || !is_among(at->measurements, at->measurements_count, measurement)) return;
    size_t id_size = strcspn(++id, ".");
    size_t size = id_size + measurement.size + payload.size;
    heard_message *made =
        at->queued_bytes + size <= QUEUE_BYTES_MAX ? malloc(sizeof *made + size) : NULL;
    if (made == NULL || id_size > ID_BYTES_MAX) {
        at->dropped++;
        free(made);
        return;
    }
    *made = (heard_message){.heard_ns = mir_clock_wall_ns(), .size = size};
    made->device_id = mir_view_of(made->bytes, id_size);
    made->measurement = mir_view_of(made->bytes + id_size, measurement.size);
    made->payload = mir_view_of(made->bytes + id_size + measurement.size, payload.size);
    memcpy(made->bytes, id, id_size);
    if (measurement.size > 0) memcpy(made->bytes + id_size, measurement.data, measurement.size);
    if (payload.size > 0)
        memcpy(made->bytes + id_size + measurement.size, payload.data, payload.size);
    *at->last = made;
    at->last = &made->next;
    at->queued_bytes += size;
}

/* The device as one of the targets finds it, with its schema. */
MIR_MUST_CHECK static mir_status ask_device(tail *at, device *to, mir_error *error)
{
    char *id = (char *)(uintptr_t)to->id.data;
    mir_status status = MIR_OK;
    to->asked_ns = mir_clock_mono_ns();
    to->wanted = false;
    for (size_t i = 0; i < at->targets.count && !to->wanted && status == MIR_OK; i++) {
        MirApi__V1__ListDeviceRequest request = MIR_API__V1__LIST_DEVICE_REQUEST__INIT;
        MirApi__V1__DeviceTarget target = *at->targets.items[i];
        MirApi__V1__DeviceList *answer = NULL;
        const char *refusal = NULL;
        mir_schema *schema = NULL;
        if (!is_among(target.ids, target.n_ids, to->id)) continue;
        target.ids = &id;
        target.n_ids = 1;
        request.targets = &target;
        status = mir_cli_connect_try(&at->session, "core.v1alpha.list", &request.base,
                                     &mir_api__v1__list_device_response__descriptor, NULL, &answer,
                                     &refusal, error);
        if (status == MIR_OK && answer->n_devices > 0) {
            const MirApi__V1__Device *found = answer->devices[0];
            to->wanted = true;
            (void)snprintf(to->name, sizeof to->name, "%s/%s", mir_cli_devices_name(found),
                           mir_cli_devices_namespace(found));
            if (mir_cli_schema_load(found, &schema, NULL) == MIR_OK) {
                mir_schema_unref(to->schema);
                to->schema = schema;
            }
        }
        mir_arena_reset(&at->session.arena);
    }
    return status;
}

MIR_MUST_CHECK static mir_status find_device(tail *at, mir_view id, device **found,
                                             mir_error *error)
{
    uint64_t hash = mir_hash_view(id);
    mir_status status = MIR_OK;
    *found = NULL;
    for (mir_map_node *node = mir_map_first(&at->devices, hash); node != NULL;
         node = mir_map_next(node)) {
        *found = MIR_CONTAINER(node, device, node);
        if (mir_view_eq((*found)->id, id)) break;
        *found = NULL;
    }
    if (*found == NULL) {
        if (at->devices.count == DEVICES_MAX)
            return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d devices: watch fewer",
                                 DEVICES_MAX);
        device *made = mir_arena_alloc(&at->arena, sizeof *made);
        const char *copy = mir_arena_strdup(&at->arena, id);
        if (made == NULL || copy == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
        made->id = mir_view_of(copy, id.size);
        status = ask_device(at, made, error);
        mir_map_add(&at->devices, &made->node, hash);
        *found = made;
    } else if ((!(*found)->wanted || (*found)->schema == NULL) &&
               mir_clock_mono_ns() - (*found)->asked_ns > ASK_NS) {
        status = ask_device(at, *found, error);
    }
    return status;
}

static void free_plans(tail *at)
{
    for (size_t i = 0; i < at->plans_count; i++) {
        mir_plan_unref(at->plans[i].plan);
        mir_schema_unref(at->plans[i].schema);
        free(at->plans[i].measurement);
    }
    at->plans_count = 0;
}

/* Null when the schema has no such message. */
static const mir_plan *find_plan(tail *at, const device *from, mir_view measurement)
{
    const mir_schema_message *message = NULL;
    for (size_t i = 0; i < at->plans_count; i++) {
        plan *each = &at->plans[i];
        if (!mir_view_eq_cstr(measurement, each->measurement)) continue;
        if (each->schema == from->schema || mir_schema_equal(each->schema, from->schema))
            return each->plan;
    }
    if (mir_schema_find(from->schema, measurement, &message, NULL) != MIR_OK) return NULL;
    if (at->plans_count == PLANS_MAX) free_plans(at);
    plan made = {.measurement = strndup((const char *)measurement.data, measurement.size)};
    if (made.measurement == NULL ||
        mir_plan_compile(from->schema, message, &made.plan, NULL) != MIR_OK) {
        free(made.measurement);
        return NULL;
    }
    made.schema = mir_schema_ref(from->schema);
    at->plans[at->plans_count++] = made;
    return made.plan;
}

static size_t gather_cells(tail *at, const mir_plan *by)
{
    size_t count = 0;
    uint32_t columns_count = 0;
    const mir_column *columns = mir_plan_columns(by, &columns_count);
    for (uint32_t i = 0; i < columns_count; i++) {
        mir_view name = mir_view_of(columns[i].name, columns[i].name_size);
        if (!is_among(at->fields, at->fields_count, name)) continue;
        at->cells[count++] = (mir_cli_row_cell){name, columns[i].type,
                                                mir_row_is_present(&at->row, i), at->row.cells[i]};
    }
    for (uint32_t i = 0; i < at->row.dynamic_count; i++) {
        const mir_dynamic_cell *each = &at->row.dynamic[i];
        if (is_among(at->fields, at->fields_count, each->name))
            at->cells[count++] = (mir_cli_row_cell){each->name, each->type, true, each->value};
    }
    return count;
}

static void put_people(tail *at, const device *from, const mir_cli_row *row)
{
    char clock[64];
    mir_bytes line = {0};
    size_t columns = strcmp(at->format, "wide") == 0 ? 0 : mir_cli_text_terminal_columns(stdout);
    mir_cli_when_clock(row->time_ns, false, 3, at->utc, clock, sizeof clock);
    mir_bytes_printf(&line, "%s  %s  %.*s ", clock, from->name, MIR_VIEW_ARGS(row->measurement));
    for (size_t i = 0; i < row->count; i++) {
        const mir_cli_row_cell *cell = &row->cells[i];
        if (!cell->present) continue;
        mir_bytes_printf(&line, " %.*s=", MIR_VIEW_ARGS(cell->name));
        mir_cli_rows_value(cell, &line);
    }
    /* A line for each row, whatever is in its texts. */
    for (size_t i = 0; i < line.size; i++)
        if (line.data[i] == '\n' || line.data[i] == '\0') line.data[i] = ' ';
    mir_bytes_u8(&line, '\0');
    if (mir_bytes_ok(&line))
        (void)mir_cli_text_fit(&at->out, (const char *)line.data, columns > 0 ? columns : SIZE_MAX);
    mir_bytes_u8(&at->out, '\n');
    mir_bytes_free(&line);
}

MIR_MUST_CHECK static mir_status put_row(tail *at, const device *from, const mir_cli_row *row,
                                         mir_error *error)
{
    bool is_csv = strcmp(at->format, "csv") == 0;
    if (strcmp(at->format, "json") == 0)
        return mir_cli_rows_write(MIR_ROWS_JSONL, row, &at->out, error);
    if (strcmp(at->format, "line") == 0)
        return mir_cli_rows_write(MIR_ROWS_LINE, row, &at->out, error);
    if (!is_csv) {
        put_people(at, from, row);
        return MIR_OK;
    }
    uint64_t hash = mir_hash_view(row->measurement);
    for (size_t i = 0; i < row->count; i++)
        hash = (hash ^ mir_hash_view(row->cells[i].name)) * UINT64_C(0x9e3779b97f4a7c15);
    if (!at->has_header || hash != at->header_hash) {
        if (at->has_header) mir_bytes_u8(&at->out, '\n');
        mir_cli_rows_header(row->cells, row->count, &at->out);
        at->has_header = true;
        at->header_hash = hash;
    }
    return mir_cli_rows_write(MIR_ROWS_CSV, row, &at->out, error);
}

MIR_MUST_CHECK static mir_status show(tail *at, const heard_message *message, mir_error *error)
{
    device *from = NULL;
    mir_status status = find_device(at, message->device_id, &from, error);
    if (status != MIR_OK || !from->wanted) return status;
    for (int round = 0; status == MIR_OK; round++) {
        const mir_plan *by =
            from->schema != NULL ? find_plan(at, from, message->measurement) : NULL;
        if (by != NULL &&
            mir_plan_decode(by, message->payload, message->heard_ns, &at->row) == MIR_OK) {
            const mir_cli_row row = {at->row.time_ns, from->id, message->measurement, at->cells,
                                     gather_cells(at, by)};
            bool any = false;
            for (size_t i = 0; i < row.count; i++) any = any || row.cells[i].present;
            return any ? put_row(at, from, &row, error) : MIR_OK;
        }
        if (round > 0 || mir_clock_mono_ns() - from->asked_ns < ASK_NS) break;
        status = ask_device(at, from, error);
    }
    if (status == MIR_OK && (from->told_ns == 0 || mir_clock_mono_ns() - from->told_ns > TELL_NS)) {
        mir_cli_note("%s: a message %.*s that the schema of the device does not explain",
                     from->name, MIR_VIEW_ARGS(message->measurement));
        from->told_ns = mir_clock_mono_ns();
    }
    return status;
}

MIR_MUST_CHECK static mir_status show_all(tail *at, mir_error *error)
{
    mir_status status = MIR_OK;
    while (at->first != NULL && status == MIR_OK) {
        heard_message *message = at->first;
        at->first = message->next;
        if (at->first == NULL) at->last = &at->first;
        at->queued_bytes -= message->size;
        status = show(at, message, error);
        free(message);
        if (status != MIR_OK || at->first == NULL || at->out.size > GATHERED_MAX * 1024) {
            if (mir_bytes_ok(&at->out)) (void)fwrite(at->out.data, 1, at->out.size, stdout);
            at->out.size = 0;
        }
    }
    if (fflush(stdout) != 0 && status == MIR_OK)
        status = mir_error_set(error, MIR_E_CANCELLED, "standard output is closed");
    if (at->dropped > 0) mir_cli_note("%" PRIu64 " rows came too fast to be shown.", at->dropped);
    at->dropped = 0;
    return status;
}

/* As long as the connection lasts. */
MIR_MUST_CHECK static mir_status watch(tail *at, const char *pattern, bool again, mir_error *error)
{
    mir_client_stop_on(at->session.client, at->stop_fd);
    mir_status status = mir_client_subscribe(at->session.client, pattern, heard, at, error);
    if (status == MIR_OK && !again) mir_cli_note("Watching telemetry. Ctrl-C ends.");
    while (status == MIR_OK) {
        status = mir_client_listen(at->session.client, IDLE_NS, error);
        for (size_t i = 0; status == MIR_OK && i < GATHERED_MAX; i++)
            status = mir_client_listen(at->session.client, 0, error);
        if (status == MIR_E_TIMEOUT) status = MIR_OK;
        if (status == MIR_OK) status = show_all(at, error);
    }
    return status;
}

static bool stopped(const tail *at, int64_t wait_ns)
{
    struct pollfd wait = {.fd = at->stop_fd, .events = POLLIN};
    return poll(&wait, 1, (int)(wait_ns / MIR_NS_PER_MS)) > 0;
}

/* Until there is a connection again, or the wish to stop. */
MIR_MUST_CHECK static bool connect_again(tail *at)
{
    int64_t pause_ns = AGAIN_NS;
    for (;;) {
        mir_cli_connect_close(&at->session);
        if (stopped(at, pause_ns)) return false;
        at->session = MIR_CLI_SESSION_INIT;
        if (mir_cli_connect_quietly(at->args, MIR_CONNECT_TIMEOUT_NS, &at->session, NULL) == MIR_OK)
            return true;
        pause_ns = pause_ns * 2 < AGAIN_MAX_NS ? pause_ns * 2 : AGAIN_MAX_NS;
    }
}

static int run(tail *at, const char *pattern)
{
    mir_error error = {0};
    for (bool again = false;; again = true) {
        mir_status status = watch(at, pattern, again, &error);
        if (status == MIR_E_CANCELLED) return MIR_EXIT_OK;
        if (status != MIR_E_CLOSED && status != MIR_E_UNREACHABLE && status != MIR_E_TIMEOUT &&
            status != MIR_E_IO) {
            (void)mir_cli_fail("%s", error.text);
            return mir_cli_exit_code(status);
        }
        mir_cli_note("The connection is lost (%s); trying again.", error.text);
        if (!connect_again(at)) return MIR_EXIT_OK;
        mir_cli_note("Connected again. What was sent meanwhile was not seen here; "
                     "`mir telemetry query` has it.");
    }
}

/* One device has a subject of its own; others are picked out of all. */
static int find_pattern(tail *at, char *pattern, size_t size)
{
    mir_cli_devices devices = {0};
    int code = MIR_EXIT_OK;
    (void)snprintf(pattern, size, "device.*.tlm.v1alpha.proto");
    if (at->targets.everything) return code;
    code = mir_cli_devices_list(&at->session, &at->targets, MIR_DEVICES_PLAIN, &devices);
    if (code == MIR_EXIT_OK && devices.count == 0)
        code = mir_cli_fail("no device matches; `mir device list` shows all devices");
    if (code == MIR_EXIT_OK && devices.count == 1 && at->targets.literal)
        (void)snprintf(pattern, size, "device.%s.tlm.v1alpha.proto",
                       mir_cli_devices_id(devices.items[0]));
    mir_arena_reset(&at->session.arena);
    return code;
}

/* A name that no schema has may be one that a device brings later, and is a mistake more often. */
static void hint_at_names(tail *at)
{
    MirApi__V1__QueryTelemetryRequest names = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    if (at->targets.count > 1) return;
    names.targets = at->targets.items[0];
    names.fields = at->fields;
    for (size_t i = 0; i < at->measurements_count; i++) {
        names.measurement = at->measurements[i];
        /* Of several messages each has fields of its own. */
        names.n_fields = at->measurements_count == 1 ? at->fields_count : 0;
        (void)mir_cli_telemetry_check_names(&at->session, &names);
        mir_arena_reset(&at->session.arena);
    }
}

static void free_all(tail *at)
{
    mir_map_node *node;
    uint32_t from = 0;
    while (at->first != NULL) {
        heard_message *next = at->first->next;
        free(at->first);
        at->first = next;
    }
    while ((node = mir_map_any(&at->devices, &from)) != NULL) {
        mir_map_remove(&at->devices, node);
        mir_schema_unref(MIR_CONTAINER(node, device, node)->schema);
    }
    mir_map_free(&at->devices);
    free_plans(at);
    mir_row_fini(&at->row);
    mir_bytes_free(&at->out);
    mir_cli_connect_close(&at->session);
    mir_arena_free(&at->arena);
}

int mir_cli_telemetry_watch(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    char pattern[64 + ID_BYTES_MAX];
    mir_error error = {0};
    sigset_t signals;
    tail *at = calloc(1, sizeof *at);
    if (at == NULL) return mir_cli_fail("no memory");
    at->session = MIR_CLI_SESSION_INIT;
    at->arena.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX;
    at->args = args;
    at->format = format != NULL ? format : "table";
    at->utc = mir_cli_flag(args, MIR_OPT_UTC);
    at->last = &at->first;
    at->stop_fd = -1;
    mir_status status = mir_cli_target_parse(args, &at->arena, &at->targets, &error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_MEASUREMENT, &at->arena, &at->measurements,
                                     &at->measurements_count, &error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_FIELDS, &at->arena, &at->fields,
                                     &at->fields_count, &error);
    int code = status == MIR_OK ? MIR_EXIT_OK : mir_cli_usage(cli, "%s", error.text);
    at->cells = mir_arena_alloc(&at->arena, CELLS_MAX * sizeof(*at->cells));
    if (code == MIR_EXIT_OK &&
        (at->cells == NULL ||
         mir_row_init(&at->row, MIR_PLAN_COLUMNS_MAX, MIR_ROW_DYNAMIC_MAX_DEFAULT,
                      MIR_ROW_SCRATCH_BYTES_MAX_DEFAULT) != MIR_OK))
        code = mir_cli_fail("no memory");
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &at->session);
    if (code == MIR_EXIT_OK) code = find_pattern(at, pattern, sizeof pattern);
    if (code == MIR_EXIT_OK) hint_at_names(at);
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    if (code == MIR_EXIT_OK && sigprocmask(SIG_BLOCK, &signals, NULL) == 0)
        at->stop_fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (code == MIR_EXIT_OK && at->stop_fd < 0) code = mir_cli_fail("cannot wait for signals");
    if (code == MIR_EXIT_OK) code = run(at, pattern);
    if (at->stop_fd >= 0) (void)close(at->stop_fd);
    free_all(at);
    free(at);
    return code;
}
