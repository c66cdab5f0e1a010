/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_plot.h"

#include "mir_cli_cell.h"
#include "mir_cli_text.h"
#include "mir_cli_when.h"
#include "mir_clock.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <time.h>

enum {
    DOTS_WIDE = 2,
    DOTS_HIGH = 4,
    AXIS_LINES = 2,     /* of times and their labels */
    LINES_PER_TICK = 4, /* of values, or a little less */
    SPARK_LEVELS = 8,
    WEEKS_MAX = 2, /* of a step of time; then months */
};

static const int64_t day_ns = 86400 * MIR_NS_PER_S;
static const double precise_max = 1e14; /* steps in a value that a double tells apart */

static const char *const colour_codes[MIR_PLOT_SERIES_MAX] = {"36", "33", "32", "35", "34", "31",
                                                              "96", "93", "92", "95", "94", "91"};
static const char mark_letters[MIR_PLOT_SERIES_MAX + 1] = "*+xo#@%&=$^v";

typedef struct character {
    uint8_t dots;    /* of braille */
    uint16_t owners; /* a bit for each series that has something here */
} character;

typedef struct canvas {
    size_t columns, lines;
    size_t wide, high; /* dots of a character */
    character *at;
} canvas;

/* ---- numbers and their axis ---- */

void mir_cli_plot_number(double value, double step, double largest, char *text, size_t size)
{
    static const struct {
        double factor;
        const char *suffix;
    } units[] = {{1e12, "T"}, {1e9, "G"}, {1e6, "M"}, {1e3, "k"}, {1, ""}};
    if (value == 0) {
        (void)snprintf(text, size, "0");
        return;
    }
    /* The sum makes 0.2 / 0.1 and its like whole. */
    double step_digits = floor(log10(step) + 1e-9);
    if (largest >= 1e15 || largest < 1e-3) {
        double digits = floor(log10(fabs(value)) + 1e-9) - step_digits;
        (void)snprintf(text, size, "%.*e", digits < 0 ? 0 : digits > 16 ? 16 : (int)digits, value);
        /* 1e+05 and 1e-05 are written 1e5 and 1e-5. */
        char *end = strchr(text, 'e');
        if (end == NULL) return;
        long exponent = strtol(end + 1, NULL, 10);
        (void)snprintf(end, size - (size_t)(end - text), "e%ld", exponent);
        return;
    }
    size_t unit = 0;
    while (units[unit].factor > 1 &&
           largest < (units[unit].factor == 1e3 ? 1e4 : units[unit].factor))
        unit++;
    double decimals = log10(units[unit].factor) - step_digits;
    (void)snprintf(text, size, "%.*f%s",
                   decimals < 0    ? 0
                   : decimals > 17 ? 17
                                   : (int)decimals,
                   value / units[unit].factor, units[unit].suffix);
}

double mir_cli_plot_place(const mir_cli_plot_axis *axis, double value)
{
    double span = axis->high - axis->low;
    double place = isfinite(span) ? (value - axis->low) / span
                                  : (value / 2 - axis->low / 2) / (axis->high / 2 - axis->low / 2);
    return place < 0 ? 0 : place > 1 ? 1 : place;
}

static void add_value(mir_cli_plot_axis *axis, double value, const char *label)
{
    if (axis->count == MIR_PLOT_TICKS_MAX) return;
    mir_cli_plot_tick *to = &axis->ticks[axis->count++];
    to->place = mir_cli_plot_place(axis, value);
    (void)snprintf(to->label, sizeof to->label, "%s", label);
}

static void add_exact(mir_cli_plot_axis *axis, double value)
{
    mir_cli_cell cell = {.kind = MIR_CELL_REAL, .real = value};
    mir_bytes text = {0};
    mir_cli_cell_text(&cell, -1, &text);
    mir_bytes_u8(&text, '\0');
    add_value(axis, value, mir_bytes_ok(&text) ? (const char *)text.data : "");
    mir_bytes_free(&text);
}

/* Room around what does not change. */
static void widen(double *low, double *high)
{
    double value = *low, room = fabs(value) * 0.1;
    if (value == 0)
        room = 1;
    else if (!isnormal(room)) {
        *low = fmin(value, 0);
        *high = fmax(value, 0);
        return;
    }
    *low = fmax(value - room, -DBL_MAX);
    *high = fmin(value + room, DBL_MAX);
}

/* The tick of number `count`: exact where decimal fractions have no exact step. */
static double multiple(double count, double mantissa, int exponent)
{
    return exponent < 0 ? count * mantissa / pow(10, -exponent)
                        : count * mantissa * pow(10, exponent);
}

void mir_cli_plot_values(double low, double high, size_t ticks, mir_cli_plot_axis *axis)
{
    *axis = (mir_cli_plot_axis){0};
    if (low == high) widen(&low, &high);
    axis->low = low;
    axis->high = high;
    double parts = (double)(ticks < 2                        ? 1
                            : ticks > MIR_PLOT_TICKS_MAX / 2 ? MIR_PLOT_TICKS_MAX / 2
                                                             : ticks - 1);
    double wanted = high / parts - low / parts;
    double largest = fmax(fabs(low), fabs(high));
    int exponent = isnormal(wanted) ? (int)floor(log10(wanted)) : 0;
    double unit = pow(10, exponent);
    if (!isnormal(wanted) || !isnormal(unit) || largest / wanted > precise_max) {
        add_exact(axis, low);
        add_exact(axis, high);
        return;
    }
    double mantissa = wanted / unit;
    mantissa = mantissa <= 1     ? 1
               : mantissa <= 2   ? 2
               : mantissa <= 2.5 ? 2.5
               : mantissa <= 5   ? 5
                                 : 10;
    double step = mantissa * unit;
    double first = floor(low / step + 1e-9), last = ceil(high / step - 1e-9);
    double bottom = multiple(first, mantissa, exponent), top = multiple(last, mantissa, exponent);
    if (isfinite(bottom) && bottom < axis->low) axis->low = bottom;
    if (isfinite(top) && top > axis->high) axis->high = top;
    largest = fmax(fabs(axis->low), fabs(axis->high));
    for (int i = 0; first + i <= last; i++) {
        double value = multiple(first + i, mantissa, exponent);
        char label[MIR_PLOT_LABEL_BYTES];
        if (!isfinite(value) || value < axis->low || value > axis->high) continue;
        /* A quarter has a digit more. */
        mir_cli_plot_number(value, mantissa == 2.5 ? step / 10 : step, largest, label,
                            sizeof label);
        add_value(axis, value, label);
    }
}

/* ---- times and their axis ---- */

double mir_cli_plot_time_place(int64_t from_ns, int64_t to_ns, int64_t time_ns)
{
    if (time_ns <= from_ns || to_ns <= from_ns) return 0;
    if (time_ns >= to_ns) return 1;
    return (double)((uint64_t)time_ns - (uint64_t)from_ns) /
           (double)((uint64_t)to_ns - (uint64_t)from_ns);
}

static int64_t zone_offset_ns(int64_t time_ns, bool utc)
{
    time_t seconds = (time_t)(time_ns / MIR_NS_PER_S);
    struct tm parts;
    if (utc || localtime_r(&seconds, &parts) == NULL) return 0;
    return parts.tm_gmtoff * MIR_NS_PER_S;
}

static void zone_name(int64_t time_ns, bool utc, char *text, size_t size)
{
    time_t seconds = (time_t)(time_ns / MIR_NS_PER_S);
    struct tm parts;
    if (utc || localtime_r(&seconds, &parts) == NULL || strftime(text, size, "%Z", &parts) == 0)
        (void)snprintf(text, size, "UTC");
}

/* Digits of the fraction of a second that a step needs. */
static int fraction_digits(int64_t step_ns)
{
    return step_ns % MIR_NS_PER_S == 0    ? 0
           : step_ns % MIR_NS_PER_MS == 0 ? 3
           : step_ns % 1000 == 0          ? 6
                                          : 9;
}

static size_t label_columns(int64_t step_ns, bool years)
{
    if (step_ns >= day_ns) return years ? 10 : 5;
    if (step_ns >= 60 * MIR_NS_PER_S) return 5;
    int digits = fraction_digits(step_ns);
    return 8 + (digits > 0 ? 1 + (size_t)digits : 0);
}

/* The steps of people, ascending; 0 behind the last one. */
static int64_t step_at(size_t number)
{
    static const int64_t parts_s[] = {1,   2,   5,    10,   15,   30,    60,    120,  300,
                                      600, 900, 1800, 3600, 7200, 10800, 21600, 43200};
    static const int64_t low[] = {1, 2, 5};
    enum { BELOW_SECOND = 27, PARTS = sizeof parts_s / sizeof parts_s[0], DAYS = 15 };
    int64_t step = number < BELOW_SECOND ? 1 : day_ns;
    if (number >= BELOW_SECOND && number < BELOW_SECOND + PARTS)
        return parts_s[number - BELOW_SECOND] * MIR_NS_PER_S;
    if (number >= BELOW_SECOND + PARTS) number -= BELOW_SECOND + PARTS;
    if (number >= (step == 1 ? BELOW_SECOND : DAYS)) return 0;
    for (size_t i = 0; i < number / 3; i++) step *= 10;
    return step * low[number % 3];
}

int64_t mir_cli_plot_round(int64_t step_ns)
{
    int64_t found = step_at(0);
    for (size_t i = 0; found < step_ns && step_at(i) != 0; i++) found = step_at(i);
    return found;
}

static void time_label(int64_t time_ns, int64_t step_ns, bool years, bool utc, char *text,
                       size_t size)
{
    char full[64];
    mir_cli_when_clock(time_ns, true, fraction_digits(step_ns), utc, full, sizeof full);
    bool midnight =
        strncmp(full + 11, "00:00:00", 8) == 0 && strspn(full + 19, ".0") == strlen(full + 19);
    if (step_ns >= day_ns || midnight)
        (void)snprintf(text, size, "%.*s", years ? 10 : 5, full + (years ? 0 : 5));
    else
        (void)snprintf(text, size, "%.*s", step_ns >= 60 * MIR_NS_PER_S ? 5 : 18, full + 11);
}

static void add_time(mir_cli_plot_axis *axis, int64_t from_ns, int64_t to_ns, int64_t time_ns,
                     int64_t step_ns, bool years, bool utc)
{
    mir_cli_plot_tick *to = &axis->ticks[axis->count++];
    to->place = mir_cli_plot_time_place(from_ns, to_ns, time_ns);
    time_label(time_ns, step_ns, years, utc, to->label, sizeof to->label);
}

/* Beyond weeks people count in months, which have no one length. */
static void add_months(mir_cli_plot_axis *axis, int64_t from_ns, int64_t to_ns, size_t room,
                       bool years, bool utc)
{
    static const int steps[] = {1, 2, 3, 6, 12, 24, 60, 120, 240, 600, 1200};
    uint64_t span = (uint64_t)to_ns - (uint64_t)from_ns;
    time_t seconds = (time_t)(from_ns / MIR_NS_PER_S);
    struct tm parts = {0};
    size_t number = 0;
    while (number + 1 < sizeof steps / sizeof steps[0] &&
           span / (uint64_t)(steps[number] * 30 * day_ns) >= room)
        number++;
    if ((utc ? gmtime_r(&seconds, &parts) : localtime_r(&seconds, &parts)) == NULL) return;
    int months = parts.tm_year * 12 + parts.tm_mon;
    for (months -= months % steps[number]; axis->count < MIR_PLOT_TICKS_MAX;
         months += steps[number]) {
        struct tm first = {.tm_year = months / 12, .tm_mon = months % 12, .tm_mday = 1};
        int64_t time = 0;
        first.tm_isdst = -1;
        seconds = utc ? timegm(&first) : mktime(&first);
        if (__builtin_mul_overflow((int64_t)seconds, MIR_NS_PER_S, &time) || time > to_ns) return;
        if (time >= from_ns) add_time(axis, from_ns, to_ns, time, day_ns, years, utc);
    }
}

void mir_cli_plot_times(int64_t from_ns, int64_t to_ns, size_t columns, bool utc,
                        mir_cli_plot_axis *axis)
{
    *axis = (mir_cli_plot_axis){0};
    if (to_ns <= from_ns) return;
    uint64_t span = (uint64_t)to_ns - (uint64_t)from_ns;
    bool years = span > (uint64_t)(300 * day_ns);
    int64_t step = 1;
    for (size_t i = 0; step_at(i) != 0; i++) {
        step = step_at(i);
        if (span / (uint64_t)step < columns / (label_columns(step, years) + 3)) break;
    }
    if (step > WEEKS_MAX * 7 * day_ns) {
        add_months(axis, from_ns, to_ns, columns / (label_columns(step, years) + 3), years, utc);
        return;
    }
    /* Round is what is round in the zone, on either side of a change of its clock. */
    int64_t offset = zone_offset_ns(from_ns, utc);
    int64_t local = 0;
    if (__builtin_add_overflow(from_ns, offset, &local)) return;
    int64_t rest = local % step < 0 ? local % step + step : local % step;
    local -= rest;
    while (axis->count < MIR_PLOT_TICKS_MAX) {
        int64_t time = local - offset;
        int64_t now = zone_offset_ns(time, utc);
        if (step >= 3600 * MIR_NS_PER_S) time = local - now;
        if (time > to_ns) break;
        if (time >= from_ns) add_time(axis, from_ns, to_ns, time, step, years, utc);
        if (__builtin_add_overflow(local, step, &local)) break;
    }
}

/* ---- the canvas ---- */

static void put_dot(canvas *on, size_t series, size_t x, size_t y)
{
    static const uint8_t dots[DOTS_HIGH][DOTS_WIDE] = {
        {0x01, 0x08}, {0x02, 0x10}, {0x04, 0x20}, {0x40, 0x80}};
    character *to = &on->at[y / on->high * on->columns + x / on->wide];
    to->dots |= dots[y % on->high][x % on->wide];
    to->owners |= (uint16_t)(1u << series);
}

static void put_line(canvas *on, size_t series, long x, long y, long to_x, long to_y)
{
    long wide = labs(to_x - x), high = -labs(to_y - y);
    long step_x = x < to_x ? 1 : -1, step_y = y < to_y ? 1 : -1;
    long error = wide + high;
    for (;;) {
        put_dot(on, series, (size_t)x, (size_t)y);
        if (x == to_x && y == to_y) return;
        long twice = 2 * error;
        if (twice >= high) {
            error += high;
            x += step_x;
        }
        if (twice <= wide) {
            error += wide;
            y += step_y;
        }
    }
}

static size_t dot_of(double place, size_t dots)
{
    double at = place * (double)(dots - 1) + 0.5;
    return at <= 0 ? 0 : at >= (double)dots ? dots - 1 : (size_t)at;
}

static void put_series(canvas *on, const mir_cli_plot_frame *frame, const mir_cli_plot_axis *axis,
                       const mir_cli_plot_series *series)
{
    bool joined = false;
    int64_t before_ns = 0;
    size_t x_before = 0, y_before = 0;
    for (size_t i = 0; i < series->count; i++) {
        const mir_cli_plot_point *point = &series->points[i];
        if (!isfinite(point->value) || point->time_ns < frame->from_ns ||
            point->time_ns > frame->to_ns) {
            joined = false;
            continue;
        }
        double place = mir_cli_plot_time_place(frame->from_ns, frame->to_ns, point->time_ns);
        size_t x = dot_of(place, on->columns * on->wide);
        size_t y = dot_of(1 - mir_cli_plot_place(axis, point->value), on->lines * on->high);
        joined =
            joined && (uint64_t)point->time_ns - (uint64_t)before_ns <= (uint64_t)frame->gap_ns;
        if (joined)
            put_line(on, series->look, (long)x_before, (long)y_before, (long)x, (long)y);
        else
            put_dot(on, series->look, x, y);
        joined = true;
        before_ns = point->time_ns;
        x_before = x;
        y_before = y;
    }
}

/* Where several series share a character they take turns, so that none is hidden. */
static size_t owner_of(const character *from, size_t column)
{
    size_t turn = column % (size_t)__builtin_popcount(from->owners);
    for (size_t series = 0;; series++)
        if ((from->owners >> series & 1) != 0 && turn-- == 0) return series;
}

static void put_utf8(uint32_t point, mir_bytes *out)
{
    mir_bytes_u8(out, (uint8_t)(0xE0 | point >> 12));
    mir_bytes_u8(out, (uint8_t)(0x80 | (point >> 6 & 0x3F)));
    mir_bytes_u8(out, (uint8_t)(0x80 | (point & 0x3F)));
}

static void put_characters(const canvas *on, size_t line, const mir_cli_plot_look *look,
                           mir_bytes *out)
{
    size_t columns = on->columns, now = MIR_PLOT_SERIES_MAX;
    while (columns > 0 && on->at[line * on->columns + columns - 1].owners == 0) columns--;
    for (size_t i = 0; i < columns; i++) {
        const character *from = &on->at[line * on->columns + i];
        size_t owner = from->owners != 0 ? owner_of(from, i) : MIR_PLOT_SERIES_MAX;
        if (look->colours && owner != now) {
            if (now != MIR_PLOT_SERIES_MAX) mir_bytes_text(out, "\033[0m");
            if (owner != MIR_PLOT_SERIES_MAX)
                mir_bytes_printf(out, "\033[%sm", colour_codes[owner]);
            now = owner;
        }
        if (owner == MIR_PLOT_SERIES_MAX)
            mir_bytes_u8(out, ' ');
        else if (look->marks)
            mir_bytes_u8(out, (uint8_t)mark_letters[owner]);
        else
            put_utf8(0x2800 + from->dots, out);
    }
    if (now != MIR_PLOT_SERIES_MAX) mir_bytes_text(out, "\033[0m");
}

static void put_values_axis(const mir_cli_plot_axis *axis, const canvas *on, size_t line,
                            size_t margin, bool ascii, mir_bytes *out)
{
    const char *label = NULL;
    for (size_t i = 0; i < axis->count; i++)
        if (dot_of(1 - axis->ticks[i].place, on->lines * on->high) / on->high == line)
            label = axis->ticks[i].label;
    mir_bytes_printf(out, "%*s ", (int)margin, label != NULL ? label : "");
    mir_bytes_text(out, ascii ? (label != NULL ? "+" : "|") : label != NULL ? "┤" : "│");
}

static void put_times_axis(const mir_cli_plot_axis *axis, const canvas *on, size_t margin,
                           const char *zone, bool ascii, mir_bytes *out)
{
    char labels[MIR_PLOT_COLUMNS_MAX + MIR_PLOT_LABEL_BYTES];
    bool ticks[MIR_PLOT_COLUMNS_MAX] = {false};
    size_t used = 0, free_from = 0;
    memset(labels, ' ', sizeof labels);
    for (size_t i = 0; i < axis->count; i++) {
        size_t size = strlen(axis->ticks[i].label);
        size_t at = dot_of(axis->ticks[i].place, on->columns);
        size_t from = at >= size / 2 ? at - size / 2 : 0;
        if (from + size > on->columns) from = on->columns > size ? on->columns - size : 0;
        if (from < free_from || size > on->columns) continue;
        ticks[at] = true;
        memcpy(labels + from, axis->ticks[i].label, size);
        used = from + size;
        free_from = used + 1;
    }
    mir_bytes_printf(out, "%*s %s", (int)margin, "", ascii ? "+" : "└");
    for (size_t i = 0; i < on->columns; i++)
        mir_bytes_text(out, ascii ? (ticks[i] ? "+" : "-") : ticks[i] ? "┬" : "─");
    mir_bytes_printf(out, "\n%*s  %.*s\n", (int)margin, zone, (int)used, labels);
}

MIR_MUST_CHECK static bool find_range(const mir_cli_plot_frame *frame,
                                      const mir_cli_plot_series *series, size_t count, double *low,
                                      double *high)
{
    bool found = false;
    for (size_t s = 0; s < count; s++)
        for (size_t i = 0; i < series[s].count; i++) {
            const mir_cli_plot_point *point = &series[s].points[i];
            if (!isfinite(point->value) || point->time_ns < frame->from_ns ||
                point->time_ns > frame->to_ns)
                continue;
            *low = found ? fmin(*low, point->value) : point->value;
            *high = found ? fmax(*high, point->value) : point->value;
            found = true;
        }
    return found;
}

static size_t bounded(size_t value, size_t low, size_t high)
{
    return value < low ? low : value > high ? high : value;
}

mir_status mir_cli_plot_draw(const mir_cli_plot_frame *frame, const mir_cli_plot_series *series,
                             size_t count, const mir_cli_plot_look *look, mir_bytes *out)
{
    double low = 0, high = 1;
    char zone[16];
    mir_cli_plot_axis values, times;
    size_t columns = bounded(look->columns, MIR_PLOT_COLUMNS_MIN, MIR_PLOT_COLUMNS_MAX);
    size_t lines = bounded(look->lines, MIR_PLOT_LINES_MIN, MIR_PLOT_LINES_MAX) - AXIS_LINES;
    if (!find_range(frame, series, count, &low, &high)) {
        low = frame->has_low ? frame->low : frame->has_high ? frame->high : 0;
        high = frame->has_high ? frame->high : frame->has_low ? frame->low : 1;
    }
    if (frame->has_low) low = fmin(low, frame->low);
    if (frame->has_high) high = fmax(high, frame->high);
    mir_cli_plot_values(low, high, lines / LINES_PER_TICK + 2, &values);
    zone_name(frame->from_ns, look->utc, zone, sizeof zone);
    size_t margin = strlen(zone);
    for (size_t i = 0; i < values.count; i++)
        if (strlen(values.ticks[i].label) > margin) margin = strlen(values.ticks[i].label);
    canvas on = {.columns = columns > margin + 12 ? columns - margin - 2 : 10,
                 .lines = lines,
                 .wide = look->marks ? 1 : DOTS_WIDE,
                 .high = look->marks ? 1 : DOTS_HIGH};
    on.at = calloc(on.columns * on.lines, sizeof *on.at);
    if (on.at == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++)
        if (series[i].look < MIR_PLOT_SERIES_MAX) put_series(&on, frame, &values, &series[i]);
    for (size_t line = 0; line < lines; line++) {
        put_values_axis(&values, &on, line, margin, look->ascii, out);
        put_characters(&on, line, look, out);
        mir_bytes_u8(out, '\n');
    }
    mir_cli_plot_times(frame->from_ns, frame->to_ns, on.columns, look->utc, &times);
    put_times_axis(&times, &on, margin, zone, look->ascii, out);
    free(on.at);
    return mir_bytes_ok(out) ? MIR_OK : MIR_E_NO_MEMORY;
}

void mir_cli_plot_legend(size_t look, const mir_cli_plot_look *how, mir_bytes *out)
{
    size_t at = look % MIR_PLOT_SERIES_MAX;
    if (!how->marks && !how->colours) return;
    if (how->colours) mir_bytes_printf(out, "\033[%sm", colour_codes[at]);
    if (how->marks)
        mir_bytes_u8(out, (uint8_t)mark_letters[at]);
    else
        mir_bytes_text(out, how->ascii ? "--" : "━━");
    mir_bytes_text(out, how->colours ? "\033[0m " : " ");
}

/* ---- one line ---- */

void mir_cli_plot_spark(const mir_cli_plot_point *points, size_t count, int64_t from_ns,
                        int64_t to_ns, size_t columns, bool ascii, mir_bytes *out)
{
    static const char letters[SPARK_LEVELS + 1] = "_.,-=+*#";
    double low = INFINITY, high = -INFINITY;
    double sums[MIR_PLOT_COLUMNS_MAX] = {0};
    size_t counts[MIR_PLOT_COLUMNS_MAX] = {0};
    columns = bounded(columns, 1, MIR_PLOT_COLUMNS_MAX);
    for (size_t i = 0; i < count; i++) {
        if (!isfinite(points[i].value)) continue;
        /* The end of a part belongs to it. */
        double place = mir_cli_plot_time_place(from_ns, to_ns, points[i].time_ns);
        double end = ceil(place * (double)columns - 1e-6);
        size_t at = end <= 1 ? 0 : end >= (double)columns ? columns - 1 : (size_t)end - 1;
        /* A running mean: a sum could pass what a double holds. */
        counts[at]++;
        sums[at] += (points[i].value - sums[at]) / (double)counts[at];
        if (!isfinite(sums[at])) sums[at] = points[i].value;
    }
    for (size_t i = 0; i < columns; i++) {
        if (counts[i] == 0) continue;
        low = fmin(low, sums[i]);
        high = fmax(high, sums[i]);
    }
    mir_cli_plot_axis axis = {.low = low, .high = high};
    for (size_t i = 0; i < columns; i++) {
        if (counts[i] == 0) {
            mir_bytes_u8(out, ' ');
            continue;
        }
        double place = low == high ? 0.5 : mir_cli_plot_place(&axis, sums[i]);
        size_t level = bounded((size_t)(place * SPARK_LEVELS), 0, SPARK_LEVELS - 1);
        if (low == high) level = SPARK_LEVELS / 2 - 1;
        if (ascii)
            mir_bytes_u8(out, (uint8_t)letters[level]);
        else
            put_utf8(0x2581 + (uint32_t)level, out);
    }
}

/* ---- gaps and looks ---- */

static int compare_times(const void *left, const void *right)
{
    int64_t a = *(const int64_t *)left, b = *(const int64_t *)right;
    return (a > b) - (a < b);
}

mir_status mir_cli_plot_gap(const mir_cli_plot_series *series, size_t count, int64_t window_ns,
                            int64_t *gap_ns)
{
    enum { GAP_TIMES = 3 };
    int64_t widest = 0;
    for (size_t s = 0; s < count; s++) {
        if (series[s].count < 3) continue;
        int64_t *steps = calloc(series[s].count - 1, sizeof *steps);
        if (steps == NULL) return MIR_E_NO_MEMORY;
        for (size_t i = 0; i + 1 < series[s].count; i++) {
            uint64_t step =
                (uint64_t)series[s].points[i + 1].time_ns - (uint64_t)series[s].points[i].time_ns;
            steps[i] = step < INT64_MAX ? (int64_t)step : INT64_MAX;
        }
        qsort(steps, series[s].count - 1, sizeof *steps, compare_times);
        /* Of rows at random times the middle one is much shorter than many others. */
        int64_t usual = steps[(series[s].count - 1) * 9 / 10];
        free(steps);
        if (usual > widest) widest = usual;
    }
    if (window_ns > 0 && widest <= window_ns) {
        if (__builtin_add_overflow(window_ns, window_ns / 2, gap_ns)) *gap_ns = INT64_MAX;
        return MIR_OK;
    }
    if (widest == 0 || __builtin_mul_overflow(widest, GAP_TIMES, gap_ns)) *gap_ns = INT64_MAX;
    return MIR_OK;
}

bool mir_cli_plot_wants_ascii(void)
{
    static const char *const names[] = {"LC_ALL", "LC_CTYPE", "LANG"};
    const char *term = getenv("TERM");
    if (term != NULL && (strcmp(term, "linux") == 0 || strcmp(term, "dumb") == 0)) return true;
    for (size_t i = 0; i < sizeof names / sizeof names[0]; i++) {
        const char *value = getenv(names[i]);
        if (value != NULL && value[0] != '\0')
            return strcasestr(value, "UTF-8") == NULL && strcasestr(value, "UTF8") == NULL;
    }
    return false;
}
