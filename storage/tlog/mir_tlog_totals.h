/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_totals: what a run of rows comes to, window by window and column by column.
 *
 * Why        Aggregates of a device are counted up as its rows, or what chunks say about theirs, pass
 *            by in ascending time; those of a group are the sum of its devices'. Nothing of a row is
 *            kept, except for percentiles.
 * Ownership  Owns all but column names, which must outlive it; texts are copied by `keep_texts`.
 * Affinity   One thread at a time.
 * Units      A window is the number of whole window_ns since window_from_ns; without windows all is 0.
 * Bounds     bytes_max, shared by whoever counts with the same `bytes`.
 * Errors     MIR_E_NO_MEMORY, MIR_E_TOO_LARGE (bytes_max). */
#ifndef MIR_TLOG_TOTALS_H
#define MIR_TLOG_TOTALS_H

#include <stdatomic.h>

#include "mir_arena.h"
#include "mir_tlog.h"
#include "mir_tlog_columns.h"
#include "mir_tlog_segment.h"

typedef struct mir_tlog_total {
    /* Of all but doubles; a group of counters counts their rates together in `rate`. */
    __int128 sum;
    double sum_f64;
    double increase; /* from the value before, whichever window it was in */
    double rate;     /* per second, once the device is complete */
    int64_t rate_from_ns;
    uint64_t count;
    /* Bits, as the column has them. Of strings, first and last are addresses, low and high sizes. */
    uint64_t low; /* NaN left out */
    uint64_t high;
    uint64_t first;
    uint64_t last;
    int64_t first_ns;
    int64_t last_ns;
    /* Of a group: whose first and last are. */
    uint32_t first_device : 30;
    bool ordered : 1;   /* low and high are there */
    bool uncertain : 1; /* of what is rolled up: the increase was more, perhaps */
    uint32_t last_device : 31;
    bool rated : 1;
} mir_tlog_total;

/* Values for percentiles. */
typedef struct mir_tlog_samples {
    uint64_t *values;
    uint32_t count;
    uint32_t capacity;
} mir_tlog_samples;

/* One column's, parallel to the windows. */
typedef struct mir_tlog_totals_column {
    mir_tlog_total *totals;
    mir_tlog_samples *samples; /* null unless percentiles are wanted */
    uint64_t before;           /* the value that came last, and its time */
    int64_t before_ns;
    bool has_before;
} mir_tlog_totals_column;

typedef struct mir_tlog_totals {
    /* Set by the caller, then left alone. */
    uint32_t functions; /* of mir_tlog_function */
    uint64_t window_ns; /* 0: none */
    int64_t window_from_ns;
    uint32_t device; /* whose they are: its place among all in the order of ids */
    atomic_ullong *bytes;
    uint64_t bytes_max;

    bool grouped; /* several devices' were added */
    mir_tlog_columns set;
    mir_tlog_totals_column *columns;
    uint32_t column_capacity;
    uint32_t likely;  /* the number of the column that comes next, as a rule */
    int64_t *windows; /* ascending */
    uint32_t window_count;
    uint32_t window_capacity;
    uint32_t window_kept; /* texts of windows before this one are copied */
    mir_arena texts;
} mir_tlog_totals;

/* Empty again, for the next device; keeps its memory, which stays counted. */
void mir_tlog_totals_reset(mir_tlog_totals *totals);
void mir_tlog_totals_free(mir_tlog_totals *totals);
int64_t mir_tlog_window_of(const mir_tlog_totals *totals, int64_t time_ns);
/* The first time behind a window. */
__int128 mir_tlog_window_end(const mir_tlog_totals *totals, int64_t window);

/* Ascending times: all of them, or where they stand. */
typedef struct mir_tlog_times {
    const int64_t *list; /* or null */
    const mir_tlog_ints_places *places;
} mir_tlog_times;

static inline int64_t mir_tlog_time_at(const mir_tlog_times *times, uint32_t index)
{
    return times->list != NULL ? times->list[index]
                               : (int64_t)mir_tlog_ints_at(times->places, index);
}

/* Values of one column, of a chunk's rows at most, with the times from `first` on. */
typedef struct mir_tlog_run {
    mir_tlog_times times; /* for rates a list */
    uint32_t first;
    uint32_t count;           /* > 0 */
    const uint64_t *values;   /* null when they are only counted, as the texts, or summed up */
    mir_tlog_ints_walk *walk; /* for their sums, which fit 64 bits; stands at the first value */
    const mir_view *texts;    /* of strings */
    bool small;               /* integers of less than 2^49 */
} mir_tlog_run;

/* None of the times is before any that were taken. */
MIR_MUST_CHECK mir_status mir_tlog_totals_take(mir_tlog_totals *totals, mir_view name,
                                               mir_column_type type, const mir_tlog_run *run);
/* Whether the functions want no more of integers than their sums. */
bool mir_tlog_totals_sums_only(const mir_tlog_totals *totals);
/* Whether a chunk's statistics say all that the functions want of a column. */
bool mir_tlog_totals_suffices(const mir_tlog_totals *totals, mir_column_type type,
                              const mir_tlog_column_statistics *statistics);
/* The same for values that are all in one window, and whose statistics suffice. */
MIR_MUST_CHECK mir_status mir_tlog_totals_take_statistics(
    mir_tlog_totals *totals, mir_view name, mir_column_type type, int64_t first_ns, int64_t last_ns,
    const mir_tlog_column_statistics *statistics);
/* What values that are all in the window of time_ns come to: of one column in ascending order. */
MIR_MUST_CHECK mir_status mir_tlog_totals_take_total(mir_tlog_totals *totals, mir_view name,
                                                     mir_column_type type, int64_t time_ns,
                                                     const mir_tlog_total *from);
/* Texts that were taken may be freed from now on. */
MIR_MUST_CHECK mir_status mir_tlog_totals_keep_texts(mir_tlog_totals *totals);
/* The device is complete: rates follow from increases. */
void mir_tlog_totals_finish(mir_tlog_totals *totals);
/* Adds another device's, finished, or another part of the group to a group's. Of first and last values
 * at one time those of the first and of the last device count. `from` stays as it is, and must stay
 * until the group is done with if it has texts. */
MIR_MUST_CHECK mir_status mir_tlog_totals_add(mir_tlog_totals *to, const mir_tlog_totals *from);

#endif
