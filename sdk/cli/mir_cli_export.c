/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry export: all stored rows, streamed, so that their number does not matter. */
#include "mir_cli_devices.h"

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_blocks.h"
#include "mir_cli_interrupt.h"
#include "mir_cli_progress.h"
#include "mir_cli_rows.h"
#include "mir_cli_telemetry.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

enum { WRITE_BYTES = 256 * 1024 };

typedef struct column {
    mir_view name;
    mir_column_type type;
} column;

typedef struct exporter {
    mir_cli_session session; /* its arena is emptied again and again */
    mir_arena arena;         /* of what is needed to the end */
    mir_arena parts;         /* of one part of an answer */
    MirApi__V1__QueryTelemetryRequest request;
    mir_cli_rows_format format;
    /* Columns of CSV, by name and type; cells has one for each, or for each column of a block. */
    column *columns;
    size_t columns_count;
    mir_cli_row_cell *cells;
    size_t cells_capacity;
    size_t *places; /* of the columns of a block */
    mir_cli_progress progress;
    mir_bytes out;
    int fd;
    uint64_t rows, rows_here; /* in all; of this question */
    uint64_t damaged;
    int64_t rollups_until_ns; /* INT64_MIN: all rows are there */
    bool failed;              /* inside of a part; `error` says why */
    mir_error error;
} exporter;

MIR_MUST_CHECK static bool fail(exporter *at, const mir_error *error)
{
    if (!at->failed) at->error = *error;
    at->failed = true;
    return false;
}

MIR_MUST_CHECK static mir_status write_out(exporter *at, mir_error *error)
{
    size_t done = 0;
    if (!mir_bytes_ok(&at->out)) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    while (done < at->out.size) {
        if (mir_cli_interrupted()) return mir_error_set(error, MIR_E_CANCELLED, "stopped");
        ssize_t size = write(at->fd, at->out.data + done, at->out.size - done);
        if (size < 0 && errno == EINTR) continue;
        if (size < 0) return mir_error_os(error, errno, "cannot write");
        done += (size_t)size;
    }
    at->out.size = 0;
    return MIR_OK;
}

static int by_name_and_type(const void *left, const void *right)
{
    const column *a = left, *b = right;
    size_t size = a->name.size < b->name.size ? a->name.size : b->name.size;
    int order = memcmp(a->name.data, b->name.data, size);
    if (order != 0) return order;
    if (a->name.size != b->name.size) return a->name.size < b->name.size ? -1 : 1;
    return (int)a->type - (int)b->type;
}

MIR_MUST_CHECK static bool make_room(exporter *at, size_t count)
{
    if (count <= at->cells_capacity) return true;
    mir_cli_row_cell *cells = realloc(at->cells, count * sizeof *cells);
    if (cells != NULL) at->cells = cells;
    size_t *places = realloc(at->places, count * sizeof *places);
    if (places != NULL) at->places = places;
    if (cells == NULL || places == NULL) return false;
    at->cells_capacity = count;
    return true;
}

/* Prepares the cells of a block, and says where those of its columns are. */
MIR_MUST_CHECK static bool place_columns(exporter *at, const MirApi__V1__TelemetryBlock *block,
                                         size_t *count)
{
    mir_error error = {0};
    bool is_csv = at->format == MIR_ROWS_CSV;
    *count = is_csv ? at->columns_count : block->n_columns;
    size_t room = block->n_columns > *count ? block->n_columns : *count;
    if (!make_room(at, room + 1)) {
        (void)mir_error_set(&error, MIR_E_NO_MEMORY, "no memory");
        return fail(at, &error);
    }
    for (size_t i = 0; is_csv && i < at->columns_count; i++)
        at->cells[i] = (mir_cli_row_cell){.name = at->columns[i].name, .type = at->columns[i].type};
    for (size_t i = 0; i < block->n_columns; i++) {
        const MirApi__V1__TelemetryBlock__Column *from = block->columns[i];
        column key = {mir_view_cstr(from->name != NULL ? from->name : ""),
                      mir_cli_blocks_type(from->datatype)};
        at->places[i] = i;
        if (key.type == 0) {
            (void)mir_error_set(&error, MIR_E_UNSUPPORTED,
                                "the server has values of a type that this program does not know");
            return fail(at, &error);
        }
        if (!is_csv) {
            at->cells[i] = (mir_cli_row_cell){.name = key.name, .type = key.type};
            continue;
        }
        const column *found = at->columns_count == 0
                                  ? NULL
                                  : bsearch(&key, at->columns, at->columns_count,
                                            sizeof(*at->columns), by_name_and_type);
        if (found == NULL) {
            (void)mir_error_set(&error, MIR_E_AGAIN,
                                "the field '%s' appeared while rows were written: try again, or "
                                "choose fields with -f",
                                from->name);
            return fail(at, &error);
        }
        at->places[i] = (size_t)(found - at->columns);
    }
    return true;
}

/* A row of a block, whose values are in the cells. */
typedef struct block_row {
    exporter *at;
    const char *device_id;
    size_t count;
} block_row;

static mir_status write_row(void *context, int64_t time_ns, mir_error *error)
{
    const block_row *of = context;
    exporter *at = of->at;
    const mir_cli_row row = {time_ns, mir_view_cstr(of->device_id != NULL ? of->device_id : ""),
                             mir_view_cstr(at->request.measurement), at->cells, of->count};
    mir_status status = mir_cli_rows_write(at->format, &row, &at->out, error);
    if (status == MIR_OK && at->out.size >= WRITE_BYTES) status = write_out(at, error);
    return status;
}

MIR_MUST_CHECK static bool write_block(exporter *at, const MirApi__V1__TelemetryBlock *block)
{
    mir_error error = {0};
    block_row row = {.at = at, .device_id = block->device_id};
    if (!place_columns(at, block, &row.count)) return false;
    size_t *next = mir_arena_alloc(&at->parts, (block->n_columns + 1) * sizeof *next);
    mir_status status = next != NULL ? MIR_OK : mir_error_set(&error, MIR_E_NO_MEMORY, "no memory");
    if (status == MIR_OK)
        status = mir_cli_blocks_rows(block, at->cells, at->places, next, write_row, &row, &error);
    at->rows_here += block->n_times;
    return status == MIR_OK || fail(at, &error);
}

static void take_part(void *context, const char *subject, mir_view headers, mir_view payload)
{
    exporter *at = context;
    (void)subject, (void)headers;
    if (at->failed) return;
    const MirApi__V1__QueryTelemetry *part = mir_cli_connect_ok_arm(
        &mir_api__v1__query_telemetry_response__descriptor, payload, &at->parts);
    bool ok = part != NULL;
    if (!ok) {
        mir_error error = {0};
        (void)mir_error_set(&error, MIR_E_CORRUPT, "a part of the server's answer cannot be read");
        ok = fail(at, &error);
    }
    for (size_t i = 0; ok && i < part->n_blocks; i++) ok = write_block(at, part->blocks[i]);
    mir_arena_reset(&at->parts);
    if (mir_cli_interrupted()) at->failed = true;
    mir_cli_progress_set(&at->progress, at->rows + at->rows_here, at->progress.total);
    mir_cli_progress_tick(&at->progress);
}

static void tick(void *context)
{
    exporter *at = context;
    mir_cli_progress_tick(&at->progress);
}

/* All rows of one message. */
static int stream(exporter *at)
{
    const mir_client_parts parts = {take_part, tick, at};
    char *cursor = NULL;
    int code = MIR_EXIT_OK;
    MirApi__V1__QueryTelemetryRequest request = at->request;
    request.has_stream = request.stream = 1;
    do {
        MirApi__V1__QueryTelemetry *answer = NULL;
        at->rows_here = 0;
        request.cursor = cursor;
        code = mir_cli_connect_ask_parts(&at->session, "tlm.v1alpha.query", &request.base,
                                         &mir_api__v1__query_telemetry_response__descriptor, &parts,
                                         &answer);
        free(cursor);
        cursor = NULL;
        if (at->failed)
            code = mir_cli_interrupted() ? MIR_EXIT_STOPPED : mir_cli_fail("%s", at->error.text);
        if (code != MIR_EXIT_OK) break;
        if (answer->stream_rows != at->rows_here) {
            code = mir_cli_fail("of %" PRIu64 " rows %" PRIu64 " arrived", answer->stream_rows,
                                at->rows_here);
            break;
        }
        at->rows += at->rows_here;
        at->damaged += answer->damaged_chunks;
        if (answer->rollups_until != NULL &&
            mir_timestamp_ns(answer->rollups_until) > at->rollups_until_ns)
            at->rollups_until_ns = mir_timestamp_ns(answer->rollups_until);
        if (answer->cursor != NULL && answer->cursor[0] != '\0') {
            cursor = strdup(answer->cursor);
            if (cursor == NULL) code = mir_cli_fail("no memory");
        }
        mir_arena_reset(&at->session.arena);
    } while (code == MIR_EXIT_OK && cursor != NULL);
    return code;
}

/* One row with the newest value, or the count, of each field that has one in the range. */
static int ask_function(exporter *at, const char *function, MirApi__V1__QueryTelemetry **answer)
{
    static char all[] = "all";
    char name[16];
    char *functions[] = {name};
    MirApi__V1__QueryTelemetryRequest request = at->request;
    (void)snprintf(name, sizeof name, "%s", function);
    request.functions = functions;
    request.n_functions = 1;
    request.group_by = all;
    return mir_cli_connect_ask(&at->session, "tlm.v1alpha.query", &request.base,
                               &mir_api__v1__query_telemetry_response__descriptor, answer);
}

/* The columns of CSV have to be known before its first row is. */
static int find_columns(exporter *at)
{
    MirApi__V1__QueryTelemetry *answer = NULL;
    int code = ask_function(at, "last", &answer);
    if (code != MIR_EXIT_OK) return code;
    at->columns_count = 0;
    at->columns = mir_arena_alloc(&at->arena, (answer->n_headers + 1) * sizeof(*at->columns));
    for (size_t i = 2; at->columns != NULL && i < answer->n_headers && i < answer->n_datatypes;
         i++) {
        char *name = mir_arena_strdup(&at->arena, mir_view_cstr(answer->headers[i]));
        mir_column_type type = mir_cli_blocks_type(answer->datatypes[i]);
        if (name == NULL) return mir_cli_fail("no memory");
        if (type != 0) at->columns[at->columns_count++] = (column){mir_view_cstr(name), type};
    }
    mir_arena_reset(&at->session.arena);
    if (at->columns == NULL) return mir_cli_fail("no memory");
    if (at->columns_count > 0)
        qsort(at->columns, at->columns_count, sizeof(*at->columns), by_name_and_type);
    return MIR_EXIT_OK;
}

/* How many rows the next message has, or less where no field is in all of them. For the progress. */
static int count_rows(exporter *at)
{
    MirApi__V1__QueryTelemetry *answer = NULL;
    uint64_t most = 0;
    int code = ask_function(at, "count", &answer);
    if (code != MIR_EXIT_OK) return code;
    for (size_t i = 0; answer->n_rows > 0 && i < answer->rows[0]->n_datapoints; i++) {
        const MirApi__V1__QueryTelemetry__Row__DataPoint *point = answer->rows[0]->datapoints[i];
        uint64_t count = point->has_value_uint64 ? point->value_uint64
                         : point->has_value_int64 && point->value_int64 > 0
                             ? (uint64_t)point->value_int64
                             : 0;
        if (count > most) most = count;
    }
    at->progress.total = at->rows + most;
    mir_arena_reset(&at->session.arena);
    return MIR_EXIT_OK;
}

static int export_message(exporter *at, char *measurement, bool *first)
{
    mir_error error = {0};
    uint64_t before = at->rows;
    at->request.measurement = measurement;
    int code = MIR_EXIT_OK;
    if (at->progress.wanted) code = count_rows(at);
    if (code == MIR_EXIT_OK && at->format == MIR_ROWS_CSV) {
        code = find_columns(at);
        if (code != MIR_EXIT_OK || at->columns_count == 0) return code;
        if (!make_room(at, at->columns_count + 1)) return mir_cli_fail("no memory");
        for (size_t i = 0; i < at->columns_count; i++)
            at->cells[i] =
                (mir_cli_row_cell){.name = at->columns[i].name, .type = at->columns[i].type};
        if (!*first) mir_bytes_u8(&at->out, '\n');
        mir_cli_rows_header(at->cells, at->columns_count, &at->out);
    }
    /* The cells are at->cells still. NOLINTNEXTLINE(clang-analyzer-unix.Malloc) */
    if (code == MIR_EXIT_OK) code = stream(at);
    mir_status status = code == MIR_EXIT_OK ? write_out(at, &error) : MIR_OK;
    if (status == MIR_E_CANCELLED)
        code = MIR_EXIT_STOPPED;
    else if (status != MIR_OK)
        code = mir_cli_fail("%s", error.text);
    if (at->rows > before) *first = false;
    return code;
}

/* The messages of telemetry that the devices declare, each once, in order. */
static int find_measurements(exporter *at, char ***names, size_t *count)
{
    MirApi__V1__ListTelemetryRequest request = MIR_API__V1__LIST_TELEMETRY_REQUEST__INIT;
    MirApi__V1__TelemetryResponse *answer = NULL;
    json_t *found = json_object();
    const char *name;
    json_t *value;
    request.targets = at->request.targets;
    int code = mir_cli_connect_ask(&at->session, "tlm.v1alpha.list", &request.base,
                                   &mir_api__v1__list_telemetry_response__descriptor, &answer);
    for (size_t g = 0; code == MIR_EXIT_OK && g < answer->n_devices_telemetry; g++) {
        const MirApi__V1__DevicesTelemetry *group = answer->devices_telemetry[g];
        if (group->error != NULL && group->error[0] != '\0' && group->n_ids > 0)
            mir_cli_note("%zu device%s left out: %s", group->n_ids,
                         group->n_ids == 1 ? " is" : "s are", group->error);
        for (size_t i = 0; i < group->n_tlm_descriptors; i++)
            if (group->tlm_descriptors[i]->name != NULL)
                (void)json_object_set_new(found, group->tlm_descriptors[i]->name, json_true());
    }
    *count = 0;
    *names = mir_arena_alloc(&at->arena, (json_object_size(found) + 1) * sizeof **names);
    json_object_foreach(found, name, value)
    {
        char *copy = *names != NULL ? mir_arena_strdup(&at->arena, mir_view_cstr(name)) : NULL;
        if (copy == NULL) break;
        size_t to = (*count)++;
        for (; to > 0 && strcmp((*names)[to - 1], copy) > 0; to--) (*names)[to] = (*names)[to - 1];
        (*names)[to] = copy;
    }
    if (code == MIR_EXIT_OK && *count < json_object_size(found)) code = mir_cli_fail("no memory");
    json_decref(found);
    mir_arena_reset(&at->session.arena);
    return code;
}

/* Several targets, of several namespaces, become one with the ids of their devices. */
static int join_targets(exporter *at, const mir_cli_targets *targets)
{
    at->request.targets = targets->items[0];
    if (targets->count < 2) return MIR_EXIT_OK;
    mir_cli_devices devices = {0};
    int code = mir_cli_devices_list(&at->session, targets, MIR_DEVICES_PLAIN, &devices);
    if (code != MIR_EXIT_OK) return code;
    if (devices.count == 0)
        return mir_cli_fail("no device matches; `mir device list` shows all devices");
    MirApi__V1__DeviceTarget *one = mir_arena_alloc(&at->arena, sizeof *one);
    char **ids = mir_arena_alloc(&at->arena, devices.count * sizeof *ids);
    if (one == NULL || ids == NULL) return mir_cli_fail("no memory");
    mir_api__v1__device_target__init(one);
    for (size_t i = 0; i < devices.count; i++) {
        ids[i] = mir_arena_strdup(&at->arena, mir_view_cstr(mir_cli_devices_id(devices.items[i])));
        if (ids[i] == NULL) return mir_cli_fail("no memory");
    }
    one->ids = ids;
    one->n_ids = devices.count;
    at->request.targets = one;
    mir_arena_reset(&at->session.arena);
    return MIR_EXIT_OK;
}

MIR_MUST_CHECK static mir_status read_times(const mir_cli_args *args, exporter *at,
                                            mir_error *error)
{
    const char *since = mir_cli_value(args, MIR_OPT_SINCE);
    const char *from = mir_cli_value(args, MIR_OPT_FROM);
    const char *to = mir_cli_value(args, MIR_OPT_TO);
    int64_t from_ns = INT64_MIN, to_ns = mir_clock_wall_ns(), duration_ns = 0;
    mir_status status = MIR_OK;
    if (since != NULL && from != NULL)
        return mir_error_set(error, MIR_E_INVALID, "--since and --from exclude each other");
    if (to != NULL) status = mir_cli_when_time(to, &to_ns, error);
    if (status == MIR_OK && from != NULL) status = mir_cli_when_time(from, &from_ns, error);
    if (status == MIR_OK && since != NULL) {
        status = mir_cli_when_duration(since, &duration_ns, error);
        from_ns = to_ns - duration_ns;
    }
    if (status == MIR_OK && from_ns >= to_ns)
        return mir_error_set(error, MIR_E_INVALID, "the range ends before it begins");
    if (status != MIR_OK) return status;
    at->request.start_time = mir_timestamp_new(&at->arena, from_ns);
    at->request.end_time = mir_timestamp_new(&at->arena, to_ns);
    if (at->request.start_time == NULL || at->request.end_time == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    return MIR_OK;
}

/* A file is written beside its place and takes it when it is whole. What is there already and is no
 * file, such as a pipe, is written to as it is. */
MIR_MUST_CHECK static mir_status open_file(const char *path, char **beside, int *fd,
                                           mir_error *error)
{
    struct stat about;
    *beside = NULL;
    if (stat(path, &about) == 0 && !S_ISREG(about.st_mode)) {
        *fd = open(path, O_WRONLY | O_CLOEXEC);
        return *fd >= 0 ? MIR_OK : mir_error_os(error, errno, "cannot open %s", path);
    }
    if (asprintf(beside, "%s.tmp", path) < 0) {
        *beside = NULL;
        return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    }
    *fd = open(*beside, O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0666);
    return *fd >= 0 ? MIR_OK : mir_error_os(error, errno, "cannot write %s", *beside);
}

MIR_MUST_CHECK static mir_status finish_file(const char *path, const char *beside, int fd,
                                             bool whole, mir_error *error)
{
    mir_status status = MIR_OK;
    if (whole && beside != NULL && fsync(fd) != 0)
        status = mir_error_os(error, errno, "cannot write %s", beside);
    if (close(fd) != 0 && status == MIR_OK)
        status = mir_error_os(error, errno, "cannot write %s", path);
    if (beside == NULL) return status;
    if (whole && status == MIR_OK && rename(beside, path) != 0)
        status = mir_error_os(error, errno, "cannot rename %s to %s", beside, path);
    if (!whole || status != MIR_OK) (void)unlink(beside);
    return status;
}

static int export_all(exporter *at, char **names, size_t count)
{
    int code = MIR_EXIT_OK;
    bool first = true, stated = count > 0;
    if (count == 0) code = find_measurements(at, &names, &count);
    at->progress = mir_cli_progress_begin();
    at->progress.unit = " rows";
    for (size_t i = 0; code == MIR_EXIT_OK && i < count; i++) {
        uint64_t before = at->rows;
        code = export_message(at, names[i], &first);
        if (code != MIR_EXIT_OK || !stated || at->rows > before) continue;
        /* Who has mistyped a name is not to find an empty file. */
        mir_cli_progress_hide(&at->progress);
        code = mir_cli_telemetry_check_names(&at->session, &at->request);
    }
    mir_cli_progress_hide(&at->progress);
    return code;
}

int mir_cli_telemetry_export(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    exporter at = {.session = MIR_CLI_SESSION_INIT,
                   .arena.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX,
                   .parts.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX,
                   .request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT,
                   .rollups_until_ns = INT64_MIN,
                   .fd = STDOUT_FILENO};
    mir_cli_targets targets = {0};
    mir_error error = {0};
    const char *format = mir_cli_value(args, MIR_OPT_FORMAT);
    const char *path = mir_cli_value(args, MIR_OPT_OUTPUT_FILE);
    char **names = NULL;
    char *beside = NULL;
    size_t names_count = 0;
    if (path != NULL && strcmp(path, "-") == 0) path = NULL;
    at.format = format == NULL || strcmp(format, "csv") == 0 ? MIR_ROWS_CSV
                : strcmp(format, "jsonl") == 0               ? MIR_ROWS_JSONL
                                                             : MIR_ROWS_LINE;
    mir_status status = mir_cli_target_parse(args, &at.arena, &targets, &error);
    if (status == MIR_OK)
        status =
            mir_cli_target_list(args, MIR_OPT_MEASUREMENT, &at.arena, &names, &names_count, &error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_FIELDS, &at.arena, &at.request.fields,
                                     &at.request.n_fields, &error);
    if (status == MIR_OK) status = read_times(args, &at, &error);
    int code = status == MIR_OK ? mir_cli_connect_open(cli, args, &at.session)
                                : mir_cli_usage(cli, "%s", error.text);
    if (code == MIR_EXIT_OK && mir_cli_interrupt_begin(&error) != MIR_OK)
        code = mir_cli_fail("%s", error.text);
    if (code == MIR_EXIT_OK) mir_client_stop_on(at.session.client, mir_cli_interrupt_fd());
    if (code == MIR_EXIT_OK) code = join_targets(&at, &targets);
    if (code == MIR_EXIT_OK && path != NULL && open_file(path, &beside, &at.fd, &error) != MIR_OK) {
        code = mir_cli_fail("%s", error.text);
    } else if (code == MIR_EXIT_OK) {
        code = export_all(&at, names, names_count);
        if (path != NULL &&
            finish_file(path, beside, at.fd, code == MIR_EXIT_OK, &error) != MIR_OK &&
            code == MIR_EXIT_OK)
            code = mir_cli_fail("%s", error.text);
    }
    if (code == MIR_EXIT_STOPPED)
        mir_cli_note("Stopped: %s%s.",
                     path != NULL ? "there is no new " : "not all rows are written",
                     path != NULL ? path : "");
    if (code == MIR_EXIT_OK && at.damaged > 0)
        code = mir_cli_fail("some rows are missing: the server has %" PRIu64
                            " damaged chunk%s of rows; `mir storage verify` says which",
                            at.damaged, at.damaged == 1 ? "" : "s");
    if (code == MIR_EXIT_OK && at.rollups_until_ns != INT64_MIN) {
        char text[64];
        mir_cli_when_clock(at.rollups_until_ns, true, 0, true, text, sizeof text);
        mir_cli_note("Of rows from before %s UTC there are rollups alone, which are not exported.",
                     text);
    }
    if (code == MIR_EXIT_OK && (path != NULL || at.rows == 0))
        mir_cli_note("%" PRIu64 " row%s exported%s%s.", at.rows, at.rows == 1 ? "" : "s",
                     path != NULL ? " to " : "", path != NULL ? path : "");
    free(beside);
    free(at.cells);
    free(at.places);
    mir_bytes_free(&at.out);
    mir_arena_free(&at.parts);
    mir_cli_connect_close(&at.session);
    mir_arena_free(&at.arena);
    return code;
}
