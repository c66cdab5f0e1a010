/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_plot: series of values as a chart of characters, and as one line of them.
 *
 * Why        Numbers over time are seen, not read. The arithmetic of axes and dots is kept apart
 *            from where the values come from, so that it can be tested with the worst of them.
 * Ownership  Series belong to the caller; text is appended to the caller's buffer.
 * Affinity   The main thread (local time zones).
 * Units      Nanoseconds since 1970; columns and lines of the terminal; places on an axis are
 *            fractions, 0 at its low end and 1 at its high end.
 * Bounds     MIR_PLOT_SERIES_MAX series of any length, MIR_PLOT_COLUMNS_MAX by MIR_PLOT_LINES_MAX
 *            characters, MIR_PLOT_TICKS_MAX ticks. Any finite value has its place; what is not
 *            finite is a gap.
 * Errors     MIR_E_NO_MEMORY.
 * Source     Dots are those of braille, two by four in a character (U+2800 and on); lines between
 *            them by J. E. Bresenham, Algorithm for computer control of a digital plotter, 1965. */
#ifndef MIR_CLI_PLOT_H
#define MIR_CLI_PLOT_H

#include "mir_bytes.h"

enum {
    MIR_PLOT_SERIES_MAX = 12, /* as many as there are colours and marks */
    MIR_PLOT_COLUMNS_MIN = 30,
    MIR_PLOT_COLUMNS_MAX = 1000,
    MIR_PLOT_LINES_MIN = 5, /* of the frame: three of the canvas, and the axis of times */
    MIR_PLOT_LINES_MAX = 500,
    MIR_PLOT_TICKS_MAX = 128,
    MIR_PLOT_LABEL_BYTES = 40,
};

typedef struct mir_cli_plot_tick {
    double place;
    char label[MIR_PLOT_LABEL_BYTES];
} mir_cli_plot_tick;

typedef struct mir_cli_plot_axis {
    double low, high; /* of an axis of values */
    size_t count;
    mir_cli_plot_tick ticks[MIR_PLOT_TICKS_MAX]; /* ascending */
} mir_cli_plot_axis;

/* An axis that covers both, with about so many round ticks. Where doubles are too coarse for round
 * steps in between, the ticks are its two ends, in full. */
void mir_cli_plot_values(double low, double high, size_t ticks, mir_cli_plot_axis *axis);
double mir_cli_plot_place(const mir_cli_plot_axis *axis, double value);
/* Ticks at round times of the zone, as many as have room for their labels. Where a day begins the
 * label is its date. */
void mir_cli_plot_times(int64_t from_ns, int64_t to_ns, size_t columns, bool utc,
                        mir_cli_plot_axis *axis);
/* The least round step of time that is not shorter, or the longest there is. */
int64_t mir_cli_plot_round(int64_t step_ns);
double mir_cli_plot_time_place(int64_t from_ns, int64_t to_ns, int64_t time_ns);

typedef struct mir_cli_plot_point {
    int64_t time_ns;
    double value;
} mir_cli_plot_point;

typedef struct mir_cli_plot_series {
    const mir_cli_plot_point *points; /* ascending in time */
    size_t count;
    size_t look; /* which colour and mark */
} mir_cli_plot_series;

typedef struct mir_cli_plot_look {
    size_t columns, lines; /* of the frame, with its axes */
    bool ascii;            /* no character beyond ASCII */
    bool marks;            /* series differ by characters and not by colours */
    bool colours;
    bool utc;
} mir_cli_plot_look;

/* The range of times and values that is drawn. Two points that are further apart than gap_ns are
 * not joined. */
typedef struct mir_cli_plot_frame {
    int64_t from_ns, to_ns;
    int64_t gap_ns;
    bool has_low, has_high; /* the axis of values reaches at least to these */
    double low, high;
} mir_cli_plot_frame;

/* The canvas with its axes: look->lines lines of at most look->columns columns. */
MIR_MUST_CHECK mir_status mir_cli_plot_draw(const mir_cli_plot_frame *frame,
                                            const mir_cli_plot_series *series, size_t count,
                                            const mir_cli_plot_look *look, mir_bytes *out);
/* What a series looks like, for a legend: its colour and its mark, or nothing for one that is alone
 * without colours. */
void mir_cli_plot_legend(size_t look, const mir_cli_plot_look *how, mir_bytes *out);
/* A number for people: as many digits as a span of that size needs, with k, M, G or T. */
void mir_cli_plot_number(double value, double step, double largest, char *text, size_t size);

/* The course from from_ns (not included) to to_ns in one line of so many columns, low to high. */
void mir_cli_plot_spark(const mir_cli_plot_point *points, size_t count, int64_t from_ns,
                        int64_t to_ns, size_t columns, bool ascii, mir_bytes *out);

/* How far apart two points may be and still belong together: three times as far as nine of ten are.
 * Of windows, unless they are shorter than rows are apart, each that is missing counts; `window_ns`
 * is 0 for rows as they are. */
MIR_MUST_CHECK mir_status mir_cli_plot_gap(const mir_cli_plot_series *series, size_t count,
                                           int64_t window_ns, int64_t *gap_ns);

/* Whether LC_ALL, LC_CTYPE or LANG, the first that is set, says another charset than UTF-8, or the
 * terminal has few characters. */
bool mir_cli_plot_wants_ascii(void);

#endif
