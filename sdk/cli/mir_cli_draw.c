/* SPDX-License-Identifier: Apache-2.0 */
/* mir telemetry plot: a chart of stored telemetry, once or again and again. The server thins rows
 * to what a chart of that width can show. */
#include "mir_cli_devices.h"

#include "mir_cli_cell.h"
#include "mir_cli_chart.h"
#include "mir_cli_query.h"
#include "mir_cli_telemetry.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"
#include "mir_timestamp.h"

#include <inttypes.h>
#include <math.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <sys/signalfd.h>
#include <unistd.h>

#define HOUR_NS      (3600 * MIR_NS_PER_S)
#define AGAIN_NS     (200 * MIR_NS_PER_MS) /* first pause before a new connection */
#define AGAIN_MAX_NS (5 * MIR_NS_PER_S)

enum {
    COLUMNS_DEFAULT = 80, /* where there is no terminal to ask */
    LINES_DEFAULT = 20,
    DEVICES_MAX = 64, /* whose rows are asked for to be drawn */
    PANELS_MAX = 8,
    PANEL_LINES_MIN = 12, /* where nobody said how many there are */
    ROUND_S_MIN = 1,      /* between two pictures */
    ROUND_S_MAX = 10,
    MARGIN_USUAL = 8, /* columns of the axis of values and its labels */
};

typedef struct drawer {
    mir_cli *cli;
    const mir_cli_args *args;
    mir_arena arena; /* of what is there to the end */
    mir_cli_session session;
    mir_cli_query query;
    MirApi__V1__Timestamp from, to;
    int64_t from_ns, to_ns, span_ns;
    int64_t window_ns; /* 0: rows as they are */
    bool slides;       /* the range is a time that ends now */
    bool as_value;     /* JSON or YAML */
    bool follows;
    bool too_many;  /* rows: windows are drawn */
    bool chooses;   /* nobody said how long windows are */
    size_t widened; /* steps of rollups that windows were fitted to */
    bool rolled;    /* rows of a part of the time are there no more */
    json_t *names;  /* of devices, by id */
    size_t width, height;
    mir_cli_plot_look look;
    mir_cli_plot_frame frame; /* of which only the values are known from the start */
} drawer;

MIR_MUST_CHECK static mir_status read_size(const mir_cli_args *args, mir_cli_option_id id,
                                           const char *what, size_t low, size_t high, size_t *size,
                                           mir_error *error)
{
    const char *text = mir_cli_value(args, id);
    uint64_t value = 0;
    if (text == NULL) return MIR_OK;
    if (!mir_cli_number(text, false, &value) || value < low || value > high)
        return mir_error_set(error, MIR_E_INVALID, "%s from %zu to %zu, not '%s'", what, low, high,
                             text);
    *size = (size_t)value;
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_value(const mir_cli_args *args, mir_cli_option_id id,
                                            const char *name, bool *has, double *value,
                                            mir_error *error)
{
    const char *text = mir_cli_value(args, id);
    char *end = NULL;
    if (text == NULL) return MIR_OK;
    *value = strtod(text, &end);
    *has = true;
    if (end == text || *end != '\0' || !isfinite(*value))
        return mir_error_set(error, MIR_E_INVALID, "%s is a number, not '%s'", name, text);
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status read_values(const mir_cli_args *args, mir_cli_plot_frame *frame,
                                             mir_error *error)
{
    mir_status status = read_value(args, MIR_OPT_MIN, "--min", &frame->has_low, &frame->low, error);
    if (status == MIR_OK)
        status = read_value(args, MIR_OPT_MAX, "--max", &frame->has_high, &frame->high, error);
    if (status == MIR_OK && frame->has_low && frame->has_high && frame->low >= frame->high)
        return mir_error_set(error, MIR_E_INVALID, "--min is below --max");
    return status;
}

static void measure_terminal(drawer *at)
{
    size_t columns = mir_cli_text_terminal_columns(stdout);
    size_t lines = mir_cli_text_terminal_lines(stdout);
    at->look.columns = at->width > 0 ? at->width : columns > 0 ? columns : COLUMNS_DEFAULT;
    /* The prompt that follows has a line. */
    at->look.lines = at->height > 0 ? at->height : lines > 1 ? lines - 1 : LINES_DEFAULT;
    if (at->look.columns > MIR_PLOT_COLUMNS_MAX) at->look.columns = MIR_PLOT_COLUMNS_MAX;
    if (at->look.columns < MIR_PLOT_COLUMNS_MIN) at->look.columns = MIR_PLOT_COLUMNS_MIN;
}

static void set_time(MirApi__V1__Timestamp *to, int64_t time_ns)
{
    mir_api__v1__timestamp__init(to);
    to->has_seconds = to->has_nanos = true;
    to->seconds = time_ns / MIR_NS_PER_S;
    to->nanos = (int32_t)(time_ns % MIR_NS_PER_S);
}

static void set_range(drawer *at)
{
    MirApi__V1__QueryTelemetryRequest *request = &at->query.request;
    if (at->slides) {
        at->to_ns = mir_clock_wall_ns();
        if (at->span_ns > 0) at->from_ns = at->to_ns - at->span_ns;
    }
    /* Rollups tell of whole windows alone. */
    if (at->rolled) {
        at->from_ns -= (at->from_ns % at->window_ns + at->window_ns) % at->window_ns;
        if (!at->slides) at->to_ns += (at->window_ns - at->to_ns % at->window_ns) % at->window_ns;
    }
    set_time(&at->from, at->from_ns);
    set_time(&at->to, at->to_ns);
    request->start_time = &at->from;
    request->end_time = &at->to;
}

MIR_MUST_CHECK static mir_status set_window(drawer *at, int64_t window_ns, mir_error *error)
{
    char text[32];
    at->window_ns = window_ns;
    (void)snprintf(text, sizeof text, "%" PRId64 "ns", at->window_ns);
    at->query.request.aggregation_window = mir_arena_strdup(&at->arena, mir_view_cstr(text));
    return at->query.request.aggregation_window != NULL
               ? MIR_OK
               : mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
}

/* Windows of a round length, one for each column or so. */
MIR_MUST_CHECK static mir_status choose_window(drawer *at, mir_error *error)
{
    const int64_t columns = (int64_t)at->look.columns - MARGIN_USUAL;
    at->chooses = true;
    return set_window(at, mir_cli_plot_round((at->to_ns - at->from_ns) / columns + 1), error);
}

/* What is asked of the server: a range, and as many points or windows as can be told apart. */
MIR_MUST_CHECK static mir_status prepare(drawer *at, mir_error *error)
{
    MirApi__V1__QueryTelemetryRequest *request = &at->query.request;
    at->to_ns =
        request->end_time != NULL ? mir_timestamp_ns(request->end_time) : mir_clock_wall_ns();
    at->from_ns =
        request->start_time != NULL ? mir_timestamp_ns(request->start_time) : at->to_ns - HOUR_NS;
    at->slides = request->end_time == NULL;
    if (mir_cli_value(at->args, MIR_OPT_FROM) == NULL) at->span_ns = at->to_ns - at->from_ns;
    if (at->from_ns >= at->to_ns)
        return mir_error_set(error, MIR_E_INVALID, "the range ends before it begins");
    set_range(at);
    if (at->query.raw) {
        request->has_points = true;
        request->points = (uint32_t)at->look.columns * 2;
        return MIR_OK;
    }
    if (request->aggregation_window == NULL) return choose_window(at, error);
    return mir_cli_when_duration(request->aggregation_window, &at->window_ns, error);
}

/* Names for the legend. More devices than lines anybody can follow are told before they are asked
 * for. */
static int find_devices(drawer *at)
{
    mir_cli_devices devices = {0};
    const char *group = at->query.request.group_by;
    if (group != NULL && strcmp(group, "device") != 0) return MIR_EXIT_OK;
    int code = mir_cli_devices_list(&at->session, &at->query.targets, MIR_DEVICES_PLAIN, &devices);
    if (code == MIR_EXIT_OK && devices.count == 0)
        code = mir_cli_fail("no device matches; `mir device list` shows all devices");
    if (code == MIR_EXIT_OK && devices.count > DEVICES_MAX && !at->as_value)
        code = mir_cli_fail("%zu devices are too many for one chart: choose up to %d, or draw what "
                            "they come to together: --agg mean --group-by all, namespace or "
                            "label:KEY",
                            devices.count, DEVICES_MAX);
    for (size_t i = 0; code == MIR_EXIT_OK && i < devices.count; i++) {
        const MirApi__V1__Device *each = devices.items[i];
        (void)json_object_set_new(
            at->names, mir_cli_devices_id(each),
            json_sprintf("%s/%s", mir_cli_devices_name(each), mir_cli_devices_namespace(each)));
    }
    mir_arena_reset(&at->session.arena);
    return code;
}

static const char *owner_name(const drawer *at, const mir_cli_chart_series *series)
{
    const char *name = json_string_value(json_object_get(at->names, series->owner));
    /* Such as the devices without the label by which is grouped. */
    return name != NULL ? name : series->owner[0] != '\0' ? series->owner : "(none)";
}

static int refuse_column(const drawer *at, const MirApi__V1__QueryTelemetry *from, size_t column)
{
    const char *type = mir_cli_chart_type(from, column);
    if (strcmp(type, "bool") == 0)
        return mir_cli_fail("%s of %s is true or false: --agg last --every 10s draws it as 1 and 0",
                            from->headers[column], at->query.request.measurement);
    return mir_cli_fail("%s of %s is no number (%s) and cannot be drawn; `mir telemetry query` "
                        "shows it",
                        from->headers[column], at->query.request.measurement, type);
}

/* Why a field that was asked for, or everything, is not in the answer: a name that no schema has,
 * values that are no numbers, or nothing in that time. */
static int explain(drawer *at, const char *field)
{
    MirApi__V1__QueryTelemetry *answer = NULL;
    mir_cli_query probe = at->query;
    char *one = (char *)(uintptr_t)field;
    probe.request.fields = &one;
    probe.request.n_fields = field != NULL ? 1 : 0;
    int code = mir_cli_telemetry_check_names(&at->session, &probe.request);
    if (code != MIR_EXIT_OK) return code;
    probe.raw = true;
    probe.limit = 1;
    probe.request.has_points = false;
    probe.request.n_functions = 0;
    probe.request.aggregation_window = probe.request.group_by = probe.request.cursor = NULL;
    code = mir_cli_query_ask(&at->session, &probe, &answer);
    if (code != MIR_EXIT_OK) return code;
    if (answer->n_rows > 0 && answer->n_headers > 2)
        return field != NULL ? refuse_column(at, answer, 2)
                             : mir_cli_fail("%s has no field that is a number; `mir telemetry "
                                            "query` shows what it has",
                                            at->query.request.measurement);
    if (field != NULL && at->query.request.n_fields > 1)
        mir_cli_note("No data of %s in that time.", field);
    else
        mir_cli_telemetry_say_nothing(at->query.request.measurement);
    return MIR_EXIT_OK;
}

static int check_fields(drawer *at, const MirApi__V1__QueryTelemetry *answer)
{
    const MirApi__V1__QueryTelemetryRequest *request = &at->query.request;
    int code = MIR_EXIT_OK;
    if (request->n_fields == 0) return answer->n_rows == 0 ? explain(at, NULL) : MIR_EXIT_OK;
    for (size_t f = 0; f < request->n_fields && code == MIR_EXIT_OK; f++) {
        bool found = false;
        for (size_t i = 2; i < answer->n_headers && code == MIR_EXIT_OK; i++) {
            if (!mir_cli_query_is_field(answer->headers[i], request->fields[f])) continue;
            found = true;
            if (!mir_cli_chart_is_drawable(answer, i)) code = refuse_column(at, answer, i);
        }
        if (!found) code = explain(at, request->fields[f]);
        /* One word for a time in which there is nothing at all. */
        if (answer->n_rows == 0) break;
    }
    return code;
}

/* ---- values ---- */

static json_t *points_json(const MirApi__V1__QueryTelemetry *from,
                           const mir_cli_chart_series *series)
{
    json_t *points = json_array();
    for (size_t i = 0; i < series->count; i++) {
        const MirApi__V1__QueryTelemetry__Row *row = from->rows[series->rows[i]];
        mir_cli_cell time = mir_cli_cell_of(row->datapoints[0]);
        mir_cli_cell value = mir_cli_cell_of(row->datapoints[series->column]);
        json_t *point = json_array();
        (void)json_array_append_new(point, mir_cli_cell_json(&time));
        (void)json_array_append_new(point, mir_cli_cell_json(&value));
        (void)json_array_append_new(points, point);
    }
    return points;
}

static int print_points(const drawer *at, const MirApi__V1__QueryTelemetry *from,
                        const mir_cli_chart *chart, const char *format)
{
    char start[MIR_CLOCK_TEXT_BYTES], end[MIR_CLOCK_TEXT_BYTES];
    json_t *list = json_array();
    (void)mir_clock_rfc3339(at->from_ns, start);
    (void)mir_clock_rfc3339(at->to_ns, end);
    for (size_t i = 0; i < chart->count; i++) {
        const mir_cli_chart_series *each = &chart->series[i];
        const char *unit = each->column < from->n_units ? from->units[each->column] : "";
        json_t *series =
            json_pack("{s:s, s:s, s:s, s:o}", from->headers[1], each->owner, "field",
                      from->headers[each->column], "unit", unit, "points", points_json(from, each));
        const json_t *name = json_object_get(at->names, each->owner);
        if (name != NULL)
            (void)json_object_set_new(series, "device", json_string(json_string_value(name)));
        (void)json_array_append_new(list, series);
    }
    json_t *out = json_pack("{s:s, s:s, s:s, s:o}", "measurement", at->query.request.measurement,
                            "from", start, "to", end, "series", list);
    int code = out != NULL ? mir_cli_devices_print_value(out, format) : mir_cli_fail("no memory");
    json_decref(out);
    return code;
}

/* ---- pictures ---- */

typedef struct panel {
    const char *unit;
    mir_cli_plot_series series[MIR_PLOT_SERIES_MAX];
    const mir_cli_chart_series *from[MIR_PLOT_SERIES_MAX];
    size_t count;
} panel;

static const char *unit_of(const MirApi__V1__QueryTelemetry *from, size_t column)
{
    return column < from->n_units && from->units[column] != NULL ? from->units[column] : "";
}

/* A chart for each unit: nobody compares bytes with percents. */
static size_t split(const MirApi__V1__QueryTelemetry *from, const mir_cli_chart *chart,
                    panel *panels, size_t *left_out)
{
    size_t count = 0;
    *left_out = 0;
    for (size_t i = 0; i < chart->count; i++) {
        const mir_cli_chart_series *each = &chart->series[i];
        const char *unit = unit_of(from, each->column);
        size_t p = 0;
        while (p < count && strcmp(panels[p].unit, unit) != 0) p++;
        if (p == PANELS_MAX || (p < count && panels[p].count == MIR_PLOT_SERIES_MAX)) {
            (*left_out)++;
            continue;
        }
        panel *to = &panels[p];
        if (p == count) panels[count++] = (panel){.unit = unit};
        to->from[to->count] = each;
        to->series[to->count] = (mir_cli_plot_series){each->points, each->count, to->count};
        to->count++;
    }
    return count;
}

static void put_last(const mir_cli_chart_series *series, const char *unit, mir_bytes *out)
{
    char text[64];
    double value = series->points[series->count - 1].value;
    double size = fabs(value);
    if (!isfinite(value))
        (void)snprintf(text, sizeof text, "%s",
                       isnan(value) ? "NaN"
                       : value > 0  ? "Infinity"
                                    : "-Infinity");
    else if (value == floor(value) && size < 1e6)
        (void)snprintf(text, sizeof text, "%.0f", value);
    else
        mir_cli_plot_number(value, pow(10, floor(log10(size)) - 3), size, text, sizeof text);
    mir_bytes_printf(out, "%s%s%s", text, unit[0] != '\0' ? " " : "", unit);
}

static void put_name(const drawer *at, const MirApi__V1__QueryTelemetry *from, const panel *of,
                     const mir_cli_chart_series *series, mir_bytes *out)
{
    bool owners = false, fields = false;
    for (size_t i = 1; i < of->count; i++) {
        owners = owners || of->from[i]->owner != of->from[0]->owner;
        fields = fields || of->from[i]->column != of->from[0]->column;
    }
    const char *field = from->headers[series->column];
    if (owners) mir_bytes_text(out, owner_name(at, series));
    if (owners && fields) mir_bytes_u8(out, ' ');
    if (fields || !owners) mir_bytes_text(out, field);
}

/* Entries side by side, in as many lines as they take. */
static size_t put_legend(const drawer *at, const MirApi__V1__QueryTelemetry *from, const panel *of,
                         const mir_cli_plot_look *look, mir_bytes *out)
{
    size_t lines = 1, used = 0;
    for (size_t i = 0; i < of->count; i++) {
        mir_bytes name = {0}, last = {0}, mark = {0}, entry = {0};
        put_name(at, from, of, of->from[i], &name);
        mir_bytes_u8(&name, '\0');
        put_last(of->from[i], of->unit, &last);
        mir_bytes_u8(&last, '\0');
        mir_cli_plot_legend(i, look, &mark);
        if (mir_bytes_ok(&name) && mir_bytes_ok(&last)) {
            size_t marked = look->marks ? 2 : look->colours ? 3 : 0;
            size_t tail = mir_cli_text_columns((const char *)last.data) + 7;
            size_t room = look->columns > tail + marked ? look->columns - tail - marked : 1;
            size_t wide = mir_cli_text_fit(&entry, (const char *)name.data, room);
            mir_bytes_printf(&entry, "  last %s", (const char *)last.data);
            wide += tail + marked;
            if (used > 0 && used + 3 + wide > look->columns) {
                mir_bytes_u8(out, '\n');
                lines++;
                used = 0;
            }
            if (used > 0) mir_bytes_text(out, "   ");
            mir_bytes_view(out, mir_bytes_as_view(&mark));
            mir_bytes_view(out, mir_bytes_as_view(&entry));
            used += wide + (used > 0 ? 3 : 0);
        }
        mir_bytes_free(&name);
        mir_bytes_free(&last);
        mir_bytes_free(&mark);
        mir_bytes_free(&entry);
    }
    mir_bytes_u8(out, '\n');
    return lines;
}

static void put_title(const drawer *at, const MirApi__V1__QueryTelemetry *from, const panel *of,
                      const mir_cli_plot_look *look, mir_bytes *out)
{
    mir_bytes full = {0};
    bool same_owner = true, same_field = true;
    char start[48], end[48];
    for (size_t i = 1; i < of->count; i++) {
        same_owner = same_owner && of->from[i]->owner == of->from[0]->owner;
        same_field = same_field && of->from[i]->column == of->from[0]->column;
    }
    if (same_owner) mir_bytes_printf(&full, "%s  ", owner_name(at, of->from[0]));
    mir_bytes_printf(&full, "%s", at->query.request.measurement);
    if (same_field) mir_bytes_printf(&full, " %s", from->headers[of->from[0]->column]);
    if (of->unit[0] != '\0') mir_bytes_printf(&full, " (%s)", of->unit);
    mir_bytes_u8(&full, '\0');
    mir_cli_when_clock(at->from_ns, true, 0, look->utc, start, sizeof start);
    mir_cli_when_clock(at->to_ns, true, 0, look->utc, end, sizeof end);
    /* What both times have in common is said once. */
    size_t same = strncmp(start, end, 10) == 0 ? 11 : strncmp(start, end, 5) == 0 ? 5 : 0;
    mir_bytes_text(out, look->colours ? "\033[1m" : "");
    if (mir_bytes_ok(&full)) {
        size_t used = mir_cli_text_fit(out, (const char *)full.data, look->columns);
        mir_bytes_text(out, look->colours ? "\033[0m" : "");
        if (used + strlen(start) + strlen(end + same) + 6 <= look->columns)
            mir_bytes_printf(out, "  %s to %s", start, end + same);
    }
    mir_bytes_u8(out, '\n');
    mir_bytes_free(&full);
}

/* Names may have characters that the terminal does not. */
static void make_ascii(mir_bytes *text)
{
    size_t kept = 0;
    for (size_t i = 0; i < text->size; i++) {
        uint8_t byte = text->data[i];
        if (byte >= 0x80 && byte < 0xC0) continue;
        text->data[kept++] = byte < 0x80 ? byte : '?';
    }
    text->size = kept;
}

MIR_MUST_CHECK static mir_status draw(const drawer *at, const MirApi__V1__QueryTelemetry *from,
                                      const mir_cli_chart *chart, size_t *left_out, mir_bytes *out)
{
    panel panels[PANELS_MAX];
    size_t count = split(from, chart, panels, left_out);
    mir_status status = MIR_OK;
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        mir_cli_plot_look look = at->look;
        mir_cli_plot_frame frame = at->frame;
        frame.from_ns = at->from_ns;
        frame.to_ns = at->to_ns;
        frame.gap_ns = INT64_MAX;
        mir_bytes legend = {0};
        look.marks = look.ascii || (!look.colours && panels[i].count > 1);
        size_t lines = (at->look.lines - (count - 1)) / count;
        if (lines < PANEL_LINES_MIN && at->height == 0 && !at->follows) lines = PANEL_LINES_MIN;
        size_t taken = 1 + put_legend(at, from, &panels[i], &look, &legend);
        look.lines = lines > taken + MIR_PLOT_LINES_MIN ? lines - taken : MIR_PLOT_LINES_MIN;
        status = mir_cli_plot_gap(panels[i].series, panels[i].count, at->window_ns, &frame.gap_ns);
        /* A hole that is narrower than two characters is none that can be seen. */
        int64_t seen_ns = (at->to_ns - at->from_ns) / (int64_t)look.columns * 2;
        if (at->window_ns == 0 && frame.gap_ns < seen_ns) frame.gap_ns = seen_ns;
        if (i > 0) mir_bytes_u8(out, '\n');
        put_title(at, from, &panels[i], &look, out);
        if (status == MIR_OK)
            status = mir_cli_plot_draw(&frame, panels[i].series, panels[i].count, &look, out);
        mir_bytes_view(out, mir_bytes_as_view(&legend));
        mir_bytes_free(&legend);
    }
    if (at->look.ascii && mir_bytes_ok(out)) make_ascii(out);
    return status == MIR_OK && !mir_bytes_ok(out) ? MIR_E_NO_MEMORY : status;
}

/* Windows that are the next longer rollups' fit what is there of rows that are gone; MIR_E_EMPTY when
 * no other ones would. */
MIR_MUST_CHECK static mir_status fit_rollups(drawer *at, mir_error *error)
{
    static const int64_t steps_ns[] = {60 * MIR_NS_PER_S, 600 * MIR_NS_PER_S, HOUR_NS};
    if (!at->query.raw && !at->chooses) return MIR_E_EMPTY;
    if (at->query.raw) {
        at->query.raw = false;
        at->query.request.has_points = false;
        mir_status status = choose_window(at, error);
        if (status != MIR_OK) return status;
    }
    while (at->widened < sizeof steps_ns / sizeof steps_ns[0]) {
        const int64_t step_ns = steps_ns[at->widened++];
        const int64_t fitting_ns = (at->window_ns + step_ns - 1) / step_ns * step_ns;
        if (fitting_ns != at->window_ns || at->widened == 1)
            return set_window(at, fitting_ns, error);
    }
    return MIR_E_EMPTY;
}

/* Rows that are too many to choose some of become windows, as when these are asked for; so do those
 * that are not there any more. */
MIR_MUST_CHECK static mir_status ask(drawer *at, MirApi__V1__QueryTelemetry **answer,
                                     const char **refusal, mir_error *error)
{
    for (;;) {
        mir_status status = mir_cli_connect_try(
            &at->session, "tlm.v1alpha.query", &at->query.request.base,
            &mir_api__v1__query_telemetry_response__descriptor, NULL, answer, refusal, error);
        if (status == MIR_OK && *refusal == NULL && (*answer)->rollups_until != NULL) {
            status = fit_rollups(at, error);
            if (status == MIR_E_EMPTY) return MIR_OK;
            if (status != MIR_OK) return status;
            at->rolled = true;
            set_range(at);
            continue;
        }
        if (*refusal == NULL || !at->query.raw ||
            strstr(*refusal, "ask for a shorter time") == NULL)
            return status;
        at->query.raw = false;
        at->query.request.has_points = false;
        at->too_many = true;
        *refusal = NULL;
        *error = (mir_error){0};
        status = choose_window(at, error);
        if (status != MIR_OK) return status;
    }
}

static int ask_or_tell(drawer *at, MirApi__V1__QueryTelemetry **answer)
{
    const char *refusal = NULL;
    mir_error error = {0};
    mir_status status = ask(at, answer, &refusal, &error);
    if (refusal != NULL) return mir_cli_connect_refused(refusal);
    if (status != MIR_OK) (void)mir_cli_fail("%s", error.text);
    return mir_cli_exit_code(status);
}

static void note_windows(const drawer *at)
{
    char window[32];
    const int64_t minutes = at->window_ns / (60 * MIR_NS_PER_S);
    if (minutes == 0 || at->window_ns % (60 * MIR_NS_PER_S) != 0)
        mir_cli_when_span(at->window_ns, window, sizeof window);
    else if (minutes % 60 == 0)
        (void)snprintf(window, sizeof window, "%" PRId64 "h", minutes / 60);
    else
        (void)snprintf(window, sizeof window, "%" PRId64 "m", minutes);
    const char *why = at->rolled ? "Rows of a part of that time are there as rollups alone"
                                 : "The rows are too many to choose from";
    if (at->query.request.n_functions > 0)
        mir_cli_note("%s: windows of %s are drawn.", why, window);
    else
        mir_cli_note("%s: means of %s are drawn; --agg min,max draws the extremes.", why, window);
}

static int show_once(drawer *at)
{
    MirApi__V1__QueryTelemetry *answer = NULL;
    mir_cli_chart chart = {0};
    mir_bytes picture = {0};
    size_t left_out = 0;
    const char *format = mir_cli_value(at->args, MIR_OPT_OUTPUT);
    int code = ask_or_tell(at, &answer);
    if (code == MIR_EXIT_OK) code = check_fields(at, answer);
    if (code == MIR_EXIT_OK && mir_cli_chart_gather(answer, &chart) != MIR_OK)
        code = mir_cli_fail("no memory for the chart");
    if (code == MIR_EXIT_OK && at->as_value) {
        code = print_points(at, answer, &chart, format);
    } else if (code == MIR_EXIT_OK && chart.count > 0) {
        if (draw(at, answer, &chart, &left_out, &picture) != MIR_OK)
            code = mir_cli_fail("no memory for the chart");
        else
            (void)fwrite(picture.data, 1, picture.size, stdout);
    }
    if ((at->too_many || at->rolled) && chart.count > 0) note_windows(at);
    if (left_out > 0)
        mir_cli_note("%zu more are not drawn: choose with -f and the name of a device, or draw "
                     "what they come to with --agg and --group-by",
                     left_out);
    if (chart.not_finite > 0 && !at->as_value)
        mir_cli_note("%zu value%s NaN or infinite and left a gap.", chart.not_finite,
                     chart.not_finite == 1 ? " is" : "s are");
    if (code == MIR_EXIT_OK) code = mir_cli_query_check(answer);
    mir_bytes_free(&picture);
    mir_cli_chart_free(&chart);
    return code;
}

/* ---- again and again ---- */

typedef struct waker {
    int fd;
    bool stopped;
} waker;

/* Until the time is over, a signal says to stop, or the terminal has another size. */
static void wait_for(waker *by, int64_t wait_ns)
{
    struct pollfd wait = {.fd = by->fd, .events = POLLIN};
    struct signalfd_siginfo signal;
    if (poll(&wait, 1, (int)(wait_ns / MIR_NS_PER_MS)) <= 0) return;
    if (read(by->fd, &signal, sizeof signal) != (ssize_t)sizeof signal ||
        signal.ssi_signo != SIGWINCH)
        by->stopped = true;
}

/* What the next picture says below itself; no text while all is well. */
static void show_picture(drawer *at, const char *note, mir_bytes *picture)
{
    (void)fputs("\033[H", stdout);
    size_t lines = 0, room = mir_cli_text_terminal_lines(stdout);
    /* More than there is room for would scroll. */
    for (size_t from = 0, i = 0; i < picture->size && lines + 1 < room; i++) {
        if (picture->data[i] != '\n') continue;
        (void)fwrite(picture->data + from, 1, i - from, stdout);
        (void)fputs("\033[K\r\n", stdout);
        from = i + 1;
        lines++;
    }
    (void)fputs("\033[J", stdout);
    if (note[0] != '\0') {
        mir_bytes line = {0};
        (void)mir_cli_text_fit(&line, note, at->look.columns - 1);
        if (mir_bytes_ok(&line)) (void)fwrite(line.data, 1, line.size, stdout);
        mir_bytes_free(&line);
    }
    (void)fflush(stdout);
}

/* One picture into the buffer, which keeps the one before when there is none. */
MIR_MUST_CHECK static mir_status next_picture(drawer *at, mir_bytes *picture, mir_error *error)
{
    MirApi__V1__QueryTelemetry *answer = NULL;
    mir_cli_chart chart = {0};
    mir_bytes made = {0};
    const char *refusal = NULL;
    size_t left_out = 0;
    measure_terminal(at);
    set_range(at);
    if (at->query.raw) at->query.request.points = (uint32_t)at->look.columns * 2;
    mir_status status = ask(at, &answer, &refusal, error);
    if (status != MIR_OK) {
        if (refusal != NULL) return mir_error_set(error, MIR_E_INVALID, "%s", refusal);
        return status;
    }
    if (answer->n_rows > 0) status = mir_cli_chart_gather(answer, &chart);
    if (status == MIR_OK && chart.count > 0) status = draw(at, answer, &chart, &left_out, &made);
    if (status == MIR_OK && made.size > 0) {
        mir_bytes_free(picture);
        *picture = made;
        made = (mir_bytes){0};
    } else if (status != MIR_OK) {
        status = mir_error_set(error, status, "no memory for the chart");
    }
    mir_bytes_free(&made);
    mir_cli_chart_free(&chart);
    mir_arena_reset(&at->session.arena);
    return status;
}

/* Without a connection: pauses, and tries to have one. */
static void connect_again(drawer *at, waker *by, int64_t *pause_ns)
{
    mir_cli_connect_close(&at->session);
    at->session = MIR_CLI_SESSION_INIT;
    wait_for(by, *pause_ns);
    if (by->stopped ||
        mir_cli_connect_quietly(at->args, MIR_CONNECT_TIMEOUT_NS, &at->session, NULL) == MIR_OK)
        *pause_ns = AGAIN_NS;
    else
        *pause_ns = *pause_ns * 2 < AGAIN_MAX_NS ? *pause_ns * 2 : AGAIN_MAX_NS;
}

static int follow(drawer *at)
{
    sigset_t signals;
    MirApi__V1__QueryTelemetry *first = NULL;
    waker by = {.fd = -1};
    mir_bytes picture = {0};
    mir_error error = {0};
    int code = MIR_EXIT_OK;
    int64_t pause_ns = AGAIN_NS;
    int64_t round_ns = (at->to_ns - at->from_ns) / (int64_t)(at->look.columns * 2);
    /* What can never be drawn is said at once. */
    code = ask_or_tell(at, &first);
    if (code == MIR_EXIT_OK) code = check_fields(at, first);
    if (code != MIR_EXIT_OK) return code;
    mir_arena_reset(&at->session.arena);
    if (round_ns < ROUND_S_MIN * MIR_NS_PER_S) round_ns = ROUND_S_MIN * MIR_NS_PER_S;
    if (round_ns > ROUND_S_MAX * MIR_NS_PER_S) round_ns = ROUND_S_MAX * MIR_NS_PER_S;
    (void)sigemptyset(&signals);
    (void)sigaddset(&signals, SIGINT);
    (void)sigaddset(&signals, SIGTERM);
    (void)sigaddset(&signals, SIGHUP);
    (void)sigaddset(&signals, SIGWINCH);
    if (sigprocmask(SIG_BLOCK, &signals, NULL) == 0) by.fd = signalfd(-1, &signals, SFD_CLOEXEC);
    if (by.fd < 0) return mir_cli_fail("cannot wait for signals");
    /* A screen of its own, without a cursor; the last picture stays on the other one. */
    (void)fputs("\033[?1049h\033[?25l", stdout);
    while (!by.stopped && code == MIR_EXIT_OK) {
        mir_status status = at->session.client != NULL
                                ? next_picture(at, &picture, &error)
                                : mir_error_set(&error, MIR_E_CLOSED, "no server answers");
        bool lost = status == MIR_E_CLOSED || status == MIR_E_UNREACHABLE ||
                    status == MIR_E_TIMEOUT || status == MIR_E_IO;
        char note[600] = "";
        if (lost)
            (void)snprintf(note, sizeof note, "The connection is lost (%s); trying again.",
                           error.text);
        else if (status == MIR_OK && picture.size == 0)
            (void)snprintf(note, sizeof note, "No data of %s yet. Ctrl-C ends.",
                           at->query.request.measurement);
        else if (status != MIR_OK)
            code = mir_cli_exit_code(status);
        show_picture(at, note, &picture);
        if (lost)
            connect_again(at, &by, &pause_ns);
        else if (code == MIR_EXIT_OK)
            wait_for(&by, round_ns);
        if (ferror(stdout) != 0) by.stopped = true;
    }
    (void)fputs("\033[?25h\033[?1049l", stdout);
    if (mir_bytes_ok(&picture)) (void)fwrite(picture.data, 1, picture.size, stdout);
    (void)fflush(stdout);
    if (code != MIR_EXIT_OK) (void)mir_cli_fail("%s", error.text);
    mir_bytes_free(&picture);
    (void)close(by.fd);
    return code;
}

static int check_follow(const drawer *at)
{
    if (!at->follows) return MIR_EXIT_OK;
    if (mir_cli_value(at->args, MIR_OPT_TO) != NULL)
        return mir_cli_usage(at->cli, "--follow ends now: leave --to out");
    if (at->as_value || mir_cli_text_terminal_columns(stdout) == 0)
        return mir_cli_usage(at->cli, "--follow draws on a terminal; `mir telemetry watch` gives a "
                                      "program what comes in");
    return MIR_EXIT_OK;
}

int mir_cli_telemetry_plot(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args)
{
    (void)command;
    mir_error error = {0};
    const char *format = mir_cli_value(args, MIR_OPT_OUTPUT);
    const char *measurement = mir_cli_value(args, MIR_OPT_MEASUREMENT);
    drawer at = {.cli = cli, .args = args, .session = MIR_CLI_SESSION_INIT};
    at.arena.bytes_max = MIR_CONNECT_ARENA_BYTES_MAX;
    at.as_value = format != NULL && strcmp(format, "chart") != 0;
    at.follows = mir_cli_flag(args, MIR_OPT_FOLLOW);
    at.look.utc = mir_cli_flag(args, MIR_OPT_UTC);
    at.look.ascii = mir_cli_flag(args, MIR_OPT_ASCII) || mir_cli_plot_wants_ascii();
    at.look.colours = mir_cli_text_colours(stdout);
    if (measurement == NULL || measurement[0] == '\0')
        return mir_cli_usage(cli, "needs -m MEASUREMENT; `mir telemetry list` shows what there is");
    mir_status status = read_size(args, MIR_OPT_WIDTH, "--width is a number of columns",
                                  MIR_PLOT_COLUMNS_MIN, MIR_PLOT_COLUMNS_MAX, &at.width, &error);
    if (status == MIR_OK)
        status = read_size(args, MIR_OPT_HEIGHT, "--height is a number of lines",
                           MIR_PLOT_LINES_MIN + 2, MIR_PLOT_LINES_MAX, &at.height, &error);
    if (status == MIR_OK) status = read_values(args, &at.frame, &error);
    measure_terminal(&at);
    if (status == MIR_OK) status = mir_cli_query_read(args, &at.arena, &at.query, &error);
    if (status == MIR_OK) status = prepare(&at, &error);
    int code = status == MIR_OK ? check_follow(&at) : mir_cli_usage(cli, "%s", error.text);
    at.names = json_object();
    if (code == MIR_EXIT_OK) code = mir_cli_connect_open(cli, args, &at.session);
    if (code == MIR_EXIT_OK) code = find_devices(&at);
    if (code == MIR_EXIT_OK) code = at.follows ? follow(&at) : show_once(&at);
    json_decref(at.names);
    mir_cli_connect_close(&at.session);
    mir_arena_free(&at.arena);
    return code;
}
