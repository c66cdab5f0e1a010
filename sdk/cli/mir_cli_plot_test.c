/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_plot.h"

#include "mir_cli_text.h"
#include "mir_clock.h"

#include <float.h>
#include <locale.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

/* 2026-11-22T23:40:00Z */
#define START_NS (INT64_C(1795390800) * MIR_NS_PER_S)

static void labels_are(const mir_cli_plot_axis *axis, const char *expected)
{
    char text[MIR_PLOT_TICKS_MAX * MIR_PLOT_LABEL_BYTES] = "";
    for (size_t i = 0; i < axis->count; i++) {
        (void)strcat(text, i > 0 ? " " : "");
        (void)strcat(text, axis->ticks[i].label);
    }
    assert_string_equal(text, expected);
}

static void values_labels_are(double low, double high, size_t ticks, const char *expected)
{
    mir_cli_plot_axis axis;
    mir_cli_plot_values(low, high, ticks, &axis);
    labels_are(&axis, expected);
}

static void ticks_of_values_are_round(void **state)
{
    (void)state;
    values_labels_are(0, 100, 6, "0 20 40 60 80 100");
    values_labels_are(3, 97, 6, "0 20 40 60 80 100");
    values_labels_are(-1.3, 0.9, 5, "-2 -1 0 1");
    values_labels_are(20.1, 20.6, 6, "20.1 20.2 20.3 20.4 20.5 20.6");
    values_labels_are(0.001, 0.0035, 6, "0.0010 0.0015 0.0020 0.0025 0.0030 0.0035");
    values_labels_are(0, 0.0004, 5, "0 1e-4 2e-4 3e-4 4e-4");
    values_labels_are(0, 4000, 5, "0 1000 2000 3000 4000");
    values_labels_are(0, 1.5e6, 4, "0 0.5M 1.0M 1.5M");
    values_labels_are(9e8, 1.1e9, 5, "0.90G 0.95G 1.00G 1.05G 1.10G");
    values_labels_are(0, 9, 5, "0 2.5 5.0 7.5 10.0");
    values_labels_are(0, 900, 5, "0 250 500 750 1000");
    values_labels_are(0, 90000, 5, "0 25k 50k 75k 100k");
    values_labels_are(12000, 14000, 3, "12k 13k 14k");
}

static void extremes_have_axes(void **state)
{
    (void)state;
    values_labels_are(0, 1e300, 6, "0 2e299 4e299 6e299 8e299 1.0e300");
    values_labels_are(-1e300, 1e300, 5, "-1.0e300 -5e299 0 5e299 1.0e300");
    values_labels_are((double)INT64_MIN, (double)INT64_MAX, 5, "-1.0e19 -5e18 0 5e18 1.0e19");
    values_labels_are(0, (double)UINT64_MAX, 5, "0 5e18 1.0e19 1.5e19 2.0e19");
    values_labels_are(0, 5e-324, 5, "0 4.94065645841247e-324");
    values_labels_are(1e15, 1e15 + 0.25, 5, "1e+15 1000000000000000.2");
    mir_cli_plot_axis axis;
    const double worst[] = {
        -DBL_MAX, -1e300, (double)INT64_MIN, -1,   -DBL_MIN, -5e-324, 0, 5e-324, DBL_MIN,
        0.1,      1,      1e15 + 0.125,      1e19, 1.7e-300, DBL_MAX};
    enum { WORST = sizeof worst / sizeof worst[0] };
    for (size_t i = 0; i < WORST; i++)
        for (size_t j = i; j < WORST; j++)
            for (size_t ticks = 0; ticks < 40; ticks += 3) {
                double low = fmin(worst[i], worst[j]), high = fmax(worst[i], worst[j]);
                mir_cli_plot_values(low, high, ticks, &axis);
                assert_true(isfinite(axis.low) && isfinite(axis.high));
                assert_true(axis.low <= low && axis.high >= high && axis.low < axis.high);
                assert_in_range(axis.count, 1, ticks + 4);
                for (size_t k = 0; k < axis.count; k++) {
                    double place = axis.ticks[k].place;
                    assert_true(place >= 0 && place <= 1);
                    assert_true(k == 0 || place > axis.ticks[k - 1].place);
                    assert_in_range(strlen(axis.ticks[k].label), 1, MIR_PLOT_LABEL_BYTES - 1);
                }
                double place = mir_cli_plot_place(&axis, low);
                assert_true(place >= 0 && place <= mir_cli_plot_place(&axis, high));
            }
}

static void a_constant_is_in_the_middle(void **state)
{
    (void)state;
    const double values[] = {0, 1, -40.5, 1e300, DBL_MAX / 2, (double)INT64_MIN};
    for (size_t i = 0; i < sizeof values / sizeof values[0]; i++) {
        mir_cli_plot_axis axis;
        mir_cli_plot_values(values[i], values[i], 5, &axis);
        double place = mir_cli_plot_place(&axis, values[i]);
        assert_true(place > 0.25 && place < 0.75);
    }
}

static void times_labels_are(int64_t from_ns, int64_t span_ns, size_t columns, const char *expected)
{
    mir_cli_plot_axis axis;
    mir_cli_plot_times(from_ns, from_ns + span_ns, columns, true, &axis);
    labels_are(&axis, expected);
}

static void ticks_of_times_are_round(void **state)
{
    (void)state;
    const int64_t minute = 60 * MIR_NS_PER_S, day = 86400 * MIR_NS_PER_S;
    times_labels_are(START_NS, 10 * minute, 74, "23:40 23:42 23:44 23:46 23:48 23:50");
    times_labels_are(START_NS + 31 * MIR_NS_PER_S, 10 * minute, 74,
                     "23:42 23:44 23:46 23:48 23:50");
    times_labels_are(START_NS, 40 * minute, 40, "23:40 23:50 11-23 00:10 00:20");
    times_labels_are(START_NS, 10 * MIR_NS_PER_S, 74,
                     "23:40:00 23:40:02 23:40:04 23:40:06 23:40:08 23:40:10");
    times_labels_are(START_NS, 20 * MIR_NS_PER_MS, 60, "23:40:00.000 23:40:00.010 23:40:00.020");
    times_labels_are(START_NS, 2, 74,
                     "23:40:00.000000000 23:40:00.000000001 "
                     "23:40:00.000000002");
    times_labels_are(START_NS, 3 * day, 40, "11-23 11-24 11-25");
    times_labels_are(START_NS, 120 * day, 50, "12-01 01-01 02-01 03-01");
    times_labels_are(START_NS, 730 * day, 74, "2027-01-01 2027-07-01 2028-01-01 2028-07-01");
}

static void times_of_any_size_have_ticks_that_fit(void **state)
{
    (void)state;
    mir_cli_plot_axis axis;
    uint64_t seed = 7;
    for (int i = 0; i < 20000; i++) {
        seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        int64_t from = (int64_t)(seed >> 2), span = (int64_t)(seed >> (1 + i % 62));
        int64_t to = 0;
        size_t columns = 10 + (size_t)(seed >> 20) % (MIR_PLOT_COLUMNS_MAX - 10);
        if (__builtin_add_overflow(from, span, &to)) continue;
        mir_cli_plot_times(from, to, columns, true, &axis);
        for (size_t k = 1; k < axis.count; k++) {
            double apart = (axis.ticks[k].place - axis.ticks[k - 1].place) * (double)columns;
            assert_true(apart > (double)strlen(axis.ticks[k].label));
        }
    }
    mir_cli_plot_times(5, 5, 80, true, &axis);
    assert_int_equal(axis.count, 0);
    mir_cli_plot_times(INT64_MIN, INT64_MAX, 80, true, &axis);
    assert_true(mir_cli_plot_time_place(INT64_MIN, INT64_MAX, 0) > 0.499);
}

static void round_times_follow_the_clock_of_the_zone(void **state)
{
    (void)state;
    mir_cli_plot_axis axis;
    assert_int_equal(setenv("TZ", "Asia/Kolkata", 1), 0);
    tzset();
    /* 2026-11-23 05:10 there */
    mir_cli_plot_times(START_NS, START_NS + 6 * 3600 * MIR_NS_PER_S, 60, false, &axis);
    labels_are(&axis, "06:00 07:00 08:00 09:00 10:00 11:00");
    /* A night with an hour twice: 2026-10-25 in Berlin, from 00:00 there. */
    assert_int_equal(setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1), 0);
    tzset();
    int64_t night = INT64_C(1792879200) * MIR_NS_PER_S;
    mir_cli_plot_times(night, night + 24 * 3600 * MIR_NS_PER_S, 40, false, &axis);
    labels_are(&axis, "10-25 06:00 12:00 18:00");
    assert_int_equal(setenv("TZ", "UTC", 1), 0);
    tzset();
}

static char *drawn(const mir_cli_plot_series *series, size_t count, int64_t gap_ns,
                   mir_cli_plot_look look)
{
    mir_bytes out = {0};
    mir_cli_plot_frame frame = {
        .from_ns = START_NS, .to_ns = START_NS + 600 * MIR_NS_PER_S, .gap_ns = gap_ns};
    look.utc = true;
    assert_int_equal(mir_cli_plot_draw(&frame, series, count, &look, &out), MIR_OK);
    mir_bytes_u8(&out, '\0');
    assert_true(mir_bytes_ok(&out));
    size_t lines = 0;
    for (char *at = (char *)out.data; *at != '\0'; lines++) {
        char *end = strchr(at, '\n');
        assert_non_null(end);
        *end = '\0';
        if (!look.colours) assert_in_range(mir_cli_text_columns(at), 1, look.columns);
        *end = '\n';
        at = end + 1;
    }
    assert_int_equal(lines, look.lines);
    return (char *)out.data;
}

static void a_line_is_drawn_with_axes(void **state)
{
    (void)state;
    mir_cli_plot_point points[] = {{START_NS, 0}, {START_NS + 600 * MIR_NS_PER_S, 100}};
    mir_cli_plot_series series = {points, 2, 0};
    char *text =
        drawn(&series, 1, INT64_MAX,
              (mir_cli_plot_look){.columns = 40, .lines = 7, .ascii = true, .marks = true});
    assert_string_equal(text, "100 +                              *****\n"
                              "    |                      ********\n"
                              " 50 +             *********\n"
                              "    |     ********\n"
                              "  0 +*****\n"
                              "    ++----------------+----------------+\n"
                              "UTC  23:40          23:45          23:50\n");
    free(text);
    text = drawn(&series, 1, INT64_MAX, (mir_cli_plot_look){.columns = 30, .lines = 5});
    assert_string_equal(text, "100 ┤                 ⣀⣀⠤⠤⠔⠒⠊⠉\n"
                              "    │        ⣀⣀⡠⠤⠔⠒⠊⠉⠉\n"
                              "  0 ┤⣀⡠⠤⠔⠒⠒⠉⠉\n"
                              "    └┬───────────┬───────────┬\n"
                              "UTC  23:40     23:45     23:50\n");
    free(text);
}

static size_t count_of(const char *text, char letter)
{
    size_t count = 0;
    for (; *text != '\0'; text++) count += *text == letter;
    return count;
}

static void gaps_stay_gaps(void **state)
{
    (void)state;
    mir_cli_plot_look look = {.columns = 46, .lines = 7, .ascii = true, .marks = true};
    mir_cli_plot_point points[60];
    for (size_t i = 0; i < 60; i++)
        points[i] = (mir_cli_plot_point){START_NS + (int64_t)i * 10 * MIR_NS_PER_S, 5};
    mir_cli_plot_series whole = {points, 60, 0};
    int64_t gap_ns = 0;
    assert_int_equal(mir_cli_plot_gap(&whole, 1, 0, &gap_ns), MIR_OK);
    assert_int_equal(gap_ns, 30 * MIR_NS_PER_S);
    /* Windows of the same length, longer ones, and some that are shorter than rows are apart. */
    assert_int_equal(mir_cli_plot_gap(&whole, 1, 10 * MIR_NS_PER_S, &gap_ns), MIR_OK);
    assert_int_equal(gap_ns, 15 * MIR_NS_PER_S);
    assert_int_equal(mir_cli_plot_gap(&whole, 1, 4 * MIR_NS_PER_S, &gap_ns), MIR_OK);
    assert_int_equal(gap_ns, 30 * MIR_NS_PER_S);
    assert_int_equal(mir_cli_plot_gap(&whole, 1, INT64_MAX, &gap_ns), MIR_OK);
    assert_int_equal(gap_ns, INT64_MAX);
    assert_int_equal(mir_cli_plot_gap(&whole, 1, 0, &gap_ns), MIR_OK);
    char *text = drawn(&whole, 1, gap_ns, look);
    size_t full = count_of(text, '*');
    assert_true(full >= 39);
    free(text);
    /* Not a number, infinite, or not there at all: 30 of 60 points. */
    mir_cli_plot_point holes[45];
    memcpy(holes, points, 20 * sizeof *holes);
    memcpy(holes + 20, points + 35, 25 * sizeof *holes);
    for (size_t i = 25; i < 40; i++) holes[i].value = i % 2 == 0 ? NAN : INFINITY;
    mir_cli_plot_series series = {holes, 45, 0};
    assert_int_equal(mir_cli_plot_gap(&series, 1, 0, &gap_ns), MIR_OK);
    text = drawn(&series, 1, gap_ns, look);
    assert_in_range(count_of(text, '*'), full / 2 - 2, full / 2 + 2);
    free(text);
    /* Nothing that has a place. */
    for (size_t i = 0; i < 45; i++) holes[i].value = NAN;
    text = drawn(&series, 1, gap_ns, look);
    assert_int_equal(count_of(text, '*'), 0);
    free(text);
}

static void one_point_and_none_are_drawn(void **state)
{
    (void)state;
    mir_cli_plot_look look = {.columns = 40, .lines = 8, .ascii = true, .marks = true};
    mir_cli_plot_point point = {START_NS + 300 * MIR_NS_PER_S, 42};
    mir_cli_plot_series series = {&point, 1, 3};
    int64_t gap_ns = 0;
    assert_int_equal(mir_cli_plot_gap(&series, 1, 0, &gap_ns), MIR_OK);
    char *text = drawn(&series, 1, gap_ns, look);
    assert_int_equal(count_of(text, '#') + count_of(text, 'o'), 1);
    free(text);
    free(drawn(&series, 0, gap_ns, look));
    point.time_ns = START_NS - 1;
    text = drawn(&series, 1, gap_ns, look);
    assert_int_equal(count_of(text, '#') + count_of(text, 'o'), 0);
    free(text);
}

static void the_axis_reaches_as_far_as_is_wished(void **state)
{
    (void)state;
    mir_cli_plot_point points[2] = {{START_NS, 40}, {START_NS + 600 * MIR_NS_PER_S, 140}};
    mir_cli_plot_series series = {points, 2, 0};
    mir_cli_plot_look look = {
        .columns = 40, .lines = 12, .ascii = true, .marks = true, .utc = true};
    mir_cli_plot_frame frame = {.from_ns = START_NS,
                                .to_ns = START_NS + 600 * MIR_NS_PER_S,
                                .gap_ns = INT64_MAX,
                                .has_low = true,
                                .has_high = true,
                                .low = 0,
                                .high = 100};
    for (size_t count = 0; count < 2; count++) {
        mir_bytes out = {0};
        assert_int_equal(mir_cli_plot_draw(&frame, &series, count, &look, &out), MIR_OK);
        mir_bytes_u8(&out, '\0');
        assert_true(mir_bytes_ok(&out));
        /* As far as the wish, and as far as the values. */
        assert_true(strncmp((const char *)out.data, count == 0 ? "100 +" : "150 +", 5) == 0);
        assert_non_null(strstr((const char *)out.data, "\n  0 +"));
        mir_bytes_free(&out);
    }
}

static void series_differ_by_marks_or_colours_and_hide_none(void **state)
{
    (void)state;
    mir_cli_plot_point points[2] = {{START_NS, 7}, {START_NS + 600 * MIR_NS_PER_S, 7}};
    mir_cli_plot_series series[3] = {{points, 2, 0}, {points, 2, 1}, {points, 2, 2}};
    char *text =
        drawn(series, 3, INT64_MAX,
              (mir_cli_plot_look){.columns = 50, .lines = 9, .ascii = true, .marks = true});
    assert_non_null(strstr(text, "*+x*+x*+x"));
    free(text);
    text = drawn(series, 3, INT64_MAX,
                 (mir_cli_plot_look){.columns = 50, .lines = 9, .colours = true});
    assert_non_null(strstr(text, "\033[36m"));
    assert_non_null(strstr(text, "\033[33m"));
    assert_non_null(strstr(text, "\033[32m"));
    free(text);
    mir_cli_plot_look plain = {.columns = 80};
    mir_bytes out = {0};
    mir_cli_plot_legend(0, &plain, &out);
    assert_int_equal(out.size, 0);
    plain.marks = true;
    mir_cli_plot_legend(1, &plain, &out);
    assert_int_equal(out.size, 2);
    assert_memory_equal(out.data, "+ ", 2);
    mir_bytes_free(&out);
}

static void any_size_and_any_value_is_drawn(void **state)
{
    (void)state;
    const double worst[] = {-DBL_MAX, DBL_MAX, 5e-324, 0, NAN, -INFINITY, 1e19, -1};
    mir_cli_plot_point points[64];
    uint64_t seed = 3;
    for (int round = 0; round < 400; round++) {
        for (size_t i = 0; i < 64; i++) {
            seed = seed * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
            points[i] = (mir_cli_plot_point){START_NS + (int64_t)(i * 10) * MIR_NS_PER_S,
                                             worst[(seed >> 40) % (1 + (size_t)round % 8)]};
        }
        mir_cli_plot_series series = {points, 64, (size_t)round % MIR_PLOT_SERIES_MAX};
        mir_cli_plot_look look = {.columns = MIR_PLOT_COLUMNS_MIN + (seed >> 20) % 200,
                                  .lines = MIR_PLOT_LINES_MIN + (seed >> 30) % 40,
                                  .marks = round % 2 == 0};
        free(drawn(&series, 1, INT64_MAX, look));
    }
}

static void spark_is(const mir_cli_plot_point *points, size_t count, size_t columns, bool ascii,
                     const char *expected)
{
    mir_bytes out = {0};
    mir_cli_plot_spark(points, count, 0, 80, columns, ascii, &out);
    mir_bytes_u8(&out, '\0');
    assert_true(mir_bytes_ok(&out));
    assert_string_equal((const char *)out.data, expected);
    mir_bytes_free(&out);
}

static void a_line_of_blocks_shows_the_course(void **state)
{
    (void)state;
    mir_cli_plot_point points[8];
    for (size_t i = 0; i < 8; i++)
        points[i] = (mir_cli_plot_point){(int64_t)(i + 1) * 10, (double)i};
    spark_is(points, 8, 8, false, "▁▂▃▄▅▆▇█");
    spark_is(points, 8, 8, true, "_.,-=+*#");
    spark_is(points, 8, 4, true, "_,+#");
    points[3].value = NAN;
    points[5].value = INFINITY;
    spark_is(points, 8, 8, true, "_., = *#");
    for (size_t i = 0; i < 8; i++) points[i].value = 3;
    spark_is(points, 8, 8, true, "--------");
    points[0].value = -DBL_MAX;
    points[1].value = DBL_MAX;
    spark_is(points, 2, 8, true, "_#      ");
    spark_is(points, 8, 1, true, "-");
    spark_is(points, 0, 3, true, "   ");
}

static void the_locale_says_which_characters(void **state)
{
    (void)state;
    assert_int_equal(setenv("TERM", "xterm", 1), 0);
    assert_int_equal(unsetenv("LC_ALL") | unsetenv("LC_CTYPE") | unsetenv("LANG"), 0);
    assert_false(mir_cli_plot_wants_ascii());
    assert_int_equal(setenv("LANG", "de_DE.utf8", 1), 0);
    assert_false(mir_cli_plot_wants_ascii());
    assert_int_equal(setenv("LC_ALL", "C", 1), 0);
    assert_true(mir_cli_plot_wants_ascii());
    assert_int_equal(setenv("LC_ALL", "", 1) | setenv("LC_CTYPE", "en_US.ISO-8859-1", 1), 0);
    assert_true(mir_cli_plot_wants_ascii());
    assert_int_equal(setenv("LC_CTYPE", "en_US.UTF-8", 1), 0);
    assert_false(mir_cli_plot_wants_ascii());
    assert_int_equal(setenv("TERM", "linux", 1), 0);
    assert_true(mir_cli_plot_wants_ascii());
}

int main(void)
{
    (void)setlocale(LC_CTYPE, "C.UTF-8");
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(ticks_of_values_are_round),
        cmocka_unit_test(extremes_have_axes),
        cmocka_unit_test(a_constant_is_in_the_middle),
        cmocka_unit_test(ticks_of_times_are_round),
        cmocka_unit_test(times_of_any_size_have_ticks_that_fit),
        cmocka_unit_test(round_times_follow_the_clock_of_the_zone),
        cmocka_unit_test(a_line_is_drawn_with_axes),
        cmocka_unit_test(gaps_stay_gaps),
        cmocka_unit_test(one_point_and_none_are_drawn),
        cmocka_unit_test(the_axis_reaches_as_far_as_is_wished),
        cmocka_unit_test(series_differ_by_marks_or_colours_and_hide_none),
        cmocka_unit_test(any_size_and_any_value_is_drawn),
        cmocka_unit_test(a_line_of_blocks_shows_the_course),
        cmocka_unit_test(the_locale_says_which_characters),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
