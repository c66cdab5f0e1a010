/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_query.h"

#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <stdlib.h>

enum {
    LIMIT_MAX = 1000000000,
    POINTS_MAX = 1000000,
    /* Rows of a page at first; half as many where a message is too small for them. */
    PAGE_ROWS_MAX = 65536,
    PAGE_ROWS_MIN = 64,
};

typedef MirApi__V1__QueryTelemetry__Row query_row;
typedef MirApi__V1__QueryTelemetry__Row__DataPoint data_point;

MIR_MUST_CHECK static mir_status read_count(const mir_cli_args *args, mir_cli_option_id id,
                                            const char *what, long max, size_t *count,
                                            mir_error *error)
{
    const char *text = mir_cli_value(args, id);
    if (text == NULL) return MIR_OK;
    char *end = NULL;
    long value = strtol(text, &end, 10);
    if (text[0] == '\0' || *end != '\0' || value < 1 || value > max)
        return mir_error_set(error, MIR_E_INVALID, "%s from 1, not '%s'", what, text);
    *count = (size_t)value;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_range(const mir_cli_args *args, mir_arena *arena,
                                            MirApi__V1__QueryTelemetryRequest *request,
                                            mir_error *error)
{
    const char *since = mir_cli_value(args, MIR_OPT_SINCE);
    const char *from = mir_cli_value(args, MIR_OPT_FROM);
    const char *to = mir_cli_value(args, MIR_OPT_TO);
    int64_t from_ns = -1, to_ns = -1, duration_ns = 0;
    if (since != NULL && from != NULL)
        return mir_error_set(error, MIR_E_INVALID, "--since and --from exclude each other");
    mir_status status = MIR_OK;
    if (to != NULL) status = mir_cli_when_time(to, &to_ns, error);
    if (status == MIR_OK && from != NULL) status = mir_cli_when_time(from, &from_ns, error);
    if (status == MIR_OK && since != NULL) {
        status = mir_cli_when_duration(since, &duration_ns, error);
        if (status == MIR_OK) from_ns = (to_ns >= 0 ? to_ns : mir_clock_wall_ns()) - duration_ns;
    }
    if (status != MIR_OK) return status;
    if (from == NULL && since == NULL && to_ns >= 0) from_ns = to_ns - 3600 * MIR_NS_PER_S;
    /* Since before 1970 is since the beginning, and not what is used when nothing is said. */
    if (from_ns < 0 && (since != NULL || to_ns >= 0)) from_ns = 0;
    if (from_ns >= 0 && to_ns >= 0 && from_ns >= to_ns)
        return mir_error_set(error, MIR_E_INVALID, "the range ends before it begins");
    if (from_ns >= 0) request->start_time = mir_timestamp_new(arena, from_ns);
    if (to_ns >= 0) request->end_time = mir_timestamp_new(arena, to_ns);
    return MIR_OK;
}

/* What rows come to: --agg, --last, --every, --group-by. */
MIR_MUST_CHECK static mir_status read_functions(const mir_cli_args *args, mir_arena *arena,
                                                MirApi__V1__QueryTelemetryRequest *request,
                                                mir_error *error)
{
    static char last[] = "last";
    static char *last_list[] = {last};
    const char *window = mir_cli_value(args, MIR_OPT_WINDOW);
    const char *group = mir_cli_value(args, MIR_OPT_GROUP_BY);
    int64_t window_ns = 0;
    mir_status status = mir_cli_target_list(args, MIR_OPT_AGG, arena, &request->functions,
                                            &request->n_functions, error);
    if (status == MIR_OK && window != NULL)
        status = mir_cli_when_duration(window, &window_ns, error);
    if (status != MIR_OK) return status;
    if (mir_cli_flag(args, MIR_OPT_LAST)) {
        if (request->n_functions > 0 || window != NULL || group != NULL)
            return mir_error_set(error, MIR_E_INVALID,
                                 "--last is the newest value of each device: leave --agg, --every "
                                 "and --group-by out");
        request->functions = last_list;
        request->n_functions = 1;
    }
    if (group != NULL && request->n_functions == 0 && window == NULL)
        return mir_error_set(
            error, MIR_E_INVALID,
            "--group-by needs to know what rows come to: add --agg, as --agg mean");
    if (window != NULL)
        request->aggregation_window = mir_arena_strdup(arena, mir_view_cstr(window));
    if (group != NULL) request->group_by = mir_arena_strdup(arena, mir_view_cstr(group));
    return MIR_OK;
}

mir_status mir_cli_query_read(const mir_cli_args *args, mir_arena *arena, mir_cli_query *query,
                              mir_error *error)
{
    const char *cursor = mir_cli_value(args, MIR_OPT_CURSOR);
    const char *measurement = mir_cli_value(args, MIR_OPT_MEASUREMENT);
    size_t points = 0;
    *query = (mir_cli_query){.request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT,
                             .limit = SIZE_MAX,
                             .descending = mir_cli_flag(args, MIR_OPT_DESC)};
    MirApi__V1__QueryTelemetryRequest *request = &query->request;
    mir_status status = mir_cli_target_parse(args, arena, &query->targets, error);
    if (status == MIR_OK)
        status = mir_cli_target_list(args, MIR_OPT_FIELDS, arena, &request->fields,
                                     &request->n_fields, error);
    if (status == MIR_OK) status = read_range(args, arena, request, error);
    if (status == MIR_OK) status = read_functions(args, arena, request, error);
    if (status == MIR_OK)
        status = read_count(args, MIR_OPT_LIMIT, "--limit is a number of rows", LIMIT_MAX,
                            &query->limit, error);
    if (status == MIR_OK)
        status = read_count(args, MIR_OPT_POINTS, "--points is a number of rows", POINTS_MAX,
                            &points, error);
    if (status != MIR_OK) return status;
    if (query->targets.count > 1)
        return mir_error_set(error, MIR_E_INVALID,
                             "targets of several namespaces cannot be queried at once; use labels");
    query->raw = request->n_functions == 0 && request->aggregation_window == NULL;
    if (!query->raw && (cursor != NULL || points > 0))
        return mir_error_set(error, MIR_E_INVALID,
                             "--cursor and --points are for rows as they are: leave --agg, --every "
                             "and --last out");
    if (points > 0 && (cursor != NULL || query->limit != SIZE_MAX))
        return mir_error_set(error, MIR_E_INVALID,
                             "--points are of the whole range: leave --limit and --cursor out");
    request->targets = query->targets.items[0];
    request->measurement = mir_arena_strdup(arena, mir_view_cstr(measurement));
    if (cursor != NULL) request->cursor = mir_arena_strdup(arena, mir_view_cstr(cursor));
    request->has_points = points > 0;
    request->points = (uint32_t)points;
    return MIR_OK;
}

/* The column of that name and type in `to`, added if it is not there; SIZE_MAX without memory. */
static size_t column_of(mir_arena *arena, MirApi__V1__QueryTelemetry *to,
                        const MirApi__V1__QueryTelemetry *from, size_t column)
{
    MirApi__V1__DataType type = column < from->n_datatypes ? from->datatypes[column] : 0;
    for (size_t i = 0; i < to->n_headers; i++)
        if (strcmp(to->headers[i], from->headers[column]) == 0 &&
            (i < to->n_datatypes ? to->datatypes[i] : 0) == type)
            return i;
    size_t count = to->n_headers + 1;
    char **headers = mir_arena_alloc(arena, count * sizeof *headers);
    char **units = mir_arena_alloc(arena, count * sizeof *units);
    MirApi__V1__DataType *types = mir_arena_alloc(arena, count * sizeof *types);
    if (headers == NULL || units == NULL || types == NULL) return SIZE_MAX;
    static char none[] = "";
    for (size_t i = 0; i + 1 < count; i++) {
        headers[i] = to->headers[i];
        units[i] = i < to->n_units ? to->units[i] : none;
        types[i] = i < to->n_datatypes ? to->datatypes[i] : 0;
    }
    headers[count - 1] = from->headers[column];
    units[count - 1] = column < from->n_units ? from->units[column] : none;
    types[count - 1] = type;
    to->headers = headers;
    to->units = units;
    to->datatypes = types;
    to->n_headers = to->n_units = to->n_datatypes = count;
    return count - 1;
}

/* Appends the rows of a page, whose columns may be others. */
MIR_MUST_CHECK static bool append(mir_arena *arena, MirApi__V1__QueryTelemetry *to,
                                  size_t *capacity, const MirApi__V1__QueryTelemetry *page)
{
    size_t *places = mir_arena_alloc(arena, (page->n_headers + 1) * sizeof *places);
    bool moved = false;
    if (places == NULL) return false;
    for (size_t i = 0; i < page->n_headers; i++) {
        places[i] = column_of(arena, to, page, i);
        if (places[i] == SIZE_MAX) return false;
        moved |= places[i] != i;
    }
    if (to->n_rows + page->n_rows > *capacity) {
        size_t want = (to->n_rows + page->n_rows) * 2;
        query_row **rows = mir_arena_alloc(arena, want * sizeof(*rows));
        if (rows == NULL) return false;
        if (to->n_rows > 0) memcpy(rows, to->rows, to->n_rows * sizeof(*rows));
        to->rows = rows;
        *capacity = want;
    }
    for (size_t r = 0; r < page->n_rows; r++) {
        query_row *row = page->rows[r];
        if (moved) {
            data_point **points = mir_arena_alloc(arena, to->n_headers * sizeof(*points));
            if (points == NULL) return false;
            memset(points, 0, to->n_headers * sizeof(*points));
            for (size_t i = 0; i < row->n_datapoints && i < page->n_headers; i++)
                points[places[i]] = row->datapoints[i];
            row->datapoints = points;
            row->n_datapoints = to->n_headers;
        }
        to->rows[to->n_rows++] = row;
    }
    return true;
}

static int no_memory(void)
{
    return mir_cli_fail("no memory for so many rows: ask for a shorter time, fewer devices, fewer "
                        "fields, or what they come to (--every 1m)");
}

int mir_cli_query_ask(mir_cli_session *session, mir_cli_query *query,
                      MirApi__V1__QueryTelemetry **answer)
{
    MirApi__V1__QueryTelemetryRequest *request = &query->request;
    bool limited = query->limit != SIZE_MAX;
    bool paged = (query->raw && !request->has_points) || limited;
    size_t page_rows = PAGE_ROWS_MAX, capacity = 0;
    MirApi__V1__QueryTelemetry *all = mir_arena_alloc(&session->arena, sizeof *all);
    if (all == NULL) return no_memory();
    mir_api__v1__query_telemetry__init(all);
    /* With a limit the latest rows are wanted, from which a cursor goes on to older ones. */
    bool backward = query->descending || limited;
    request->has_descending = request->descending = backward;
    for (;;) {
        MirApi__V1__QueryTelemetry *page = NULL;
        const char *refusal = NULL;
        mir_error error = {0};
        size_t left = limited ? query->limit - all->n_rows : SIZE_MAX;
        /* What is aggregated has no cursor to go on with. */
        size_t rows = query->raw && left > page_rows ? page_rows : left;
        if (rows > LIMIT_MAX) rows = LIMIT_MAX;
        request->has_limit = paged;
        request->limit = paged ? (uint32_t)rows : 0;
        mir_status status = mir_cli_connect_try(session, "tlm.v1alpha.query", &request->base,
                                                &mir_api__v1__query_telemetry_response__descriptor,
                                                NULL, &page, &refusal, &error);
        if (refusal != NULL && query->raw && paged && rows > PAGE_ROWS_MIN &&
            strstr(refusal, "larger than") != NULL) {
            page_rows = rows / 2;
            continue;
        }
        if (status != MIR_OK) {
            if (refusal != NULL) return mir_cli_connect_refused(refusal);
            (void)mir_cli_fail("%s", error.text);
            return mir_cli_exit_code(status);
        }
        if (!append(&session->arena, all, &capacity, page)) return no_memory();
        all->damaged_chunks += page->damaged_chunks;
        /* Pages of older rows tell of older ones that are left out. */
        if (page->rollups_until != NULL &&
            (all->rollups_until == NULL ||
             mir_timestamp_ns(page->rollups_until) > mir_timestamp_ns(all->rollups_until)))
            all->rollups_until = page->rollups_until;
        all->cursor = page->cursor != NULL && page->cursor[0] != '\0' ? page->cursor : NULL;
        if (all->cursor == NULL || page->n_rows == 0 || all->n_rows >= query->limit) break;
        request->cursor = all->cursor;
    }
    /* Of a server that knows neither limits nor orders the rows come ascending, and all. */
    bool ignored = limited && all->n_rows > query->limit;
    if (ignored) {
        all->rows += all->n_rows - query->limit;
        all->n_rows = query->limit;
    }
    if (ignored ? query->descending : backward && !query->descending)
        for (size_t i = 0, j = all->n_rows; i + 1 < j; i++) {
            query_row *row = all->rows[i];
            all->rows[i] = all->rows[--j];
            all->rows[j] = row;
        }
    *answer = all;
    return MIR_EXIT_OK;
}

bool mir_cli_query_is_field(const char *header, const char *field)
{
    const char *inner = strchr(header, '(');
    size_t size = strlen(field);
    return strcmp(header, field) == 0 || (inner != NULL && strncmp(inner + 1, field, size) == 0 &&
                                          strcmp(inner + 1 + size, ")") == 0);
}

void mir_cli_query_note_rollups(const MirApi__V1__Timestamp *until)
{
    char text[64];
    if (until == NULL) return;
    mir_cli_when_clock(mir_timestamp_ns(until), true, 0, true, text, sizeof text);
    mir_cli_note(
        "Not all is here: of rows from before %s UTC there are rollups alone (1m, 10m, 1h), "
        "and what does not fit them is left out.",
        text);
}

int mir_cli_query_check(const MirApi__V1__QueryTelemetry *answer)
{
    mir_cli_query_note_rollups(answer->rollups_until);
    if (answer->damaged_chunks == 0) return MIR_EXIT_OK;
    return mir_cli_fail("this is not all: %llu piece%s of stored rows cannot be read; "
                        "`mir storage verify` says which",
                        (unsigned long long)answer->damaged_chunks,
                        answer->damaged_chunks == 1 ? "" : "s");
}
