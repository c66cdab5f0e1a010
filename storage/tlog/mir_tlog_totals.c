/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_totals.h"

#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_tlog_number.h"

enum {
    /* What only the values themselves tell. */
    VALUE_FUNCTIONS = MIR_TLOG_RATE | MIR_TLOG_PERCENTILE,
    NUMBER_FUNCTIONS = MIR_TLOG_MEAN | MIR_TLOG_SUM | MIR_TLOG_MIN | MIR_TLOG_MAX,
};

static void samples_free(mir_tlog_totals *totals)
{
    for (uint32_t i = 0; i < totals->set.count && i < totals->column_capacity; i++) {
        mir_tlog_totals_column *column = &totals->columns[i];
        for (uint32_t w = 0; column->samples != NULL && w < totals->window_count; w++) {
            mir_tlog_samples *samples = &column->samples[w];
            (void)atomic_fetch_sub_explicit(totals->bytes,
                                            (uint64_t)samples->capacity * sizeof *samples->values,
                                            memory_order_relaxed);
            free(samples->values);
        }
    }
}

void mir_tlog_totals_reset(mir_tlog_totals *totals)
{
    samples_free(totals);
    for (uint32_t i = 0; i < totals->column_capacity; i++) totals->columns[i].has_before = false;
    mir_tlog_columns_reset(&totals->set);
    totals->window_count = totals->window_kept = totals->likely = 0;
    mir_arena_free(&totals->texts);
}

void mir_tlog_totals_free(mir_tlog_totals *totals)
{
    samples_free(totals);
    for (uint32_t i = 0; i < totals->column_capacity; i++) {
        free(totals->columns[i].samples);
        free(totals->columns[i].totals);
    }
    free(totals->columns);
    free(totals->windows);
    mir_tlog_columns_free(&totals->set);
    mir_arena_free(&totals->texts);
    *totals = (mir_tlog_totals){0};
}

int64_t mir_tlog_window_of(const mir_tlog_totals *totals, int64_t time_ns)
{
    if (totals->window_ns == 0) return 0;
    if (totals->window_from_ns != 0 || totals->window_ns > INT64_MAX) {
        const __int128 window_ns = (__int128)totals->window_ns;
        const __int128 since_ns = (__int128)time_ns - totals->window_from_ns;
        return (int64_t)(since_ns / window_ns - (since_ns % window_ns < 0 ? 1 : 0));
    }
    const int64_t window_ns = (int64_t)totals->window_ns;
    return time_ns / window_ns - (time_ns % window_ns < 0 ? 1 : 0);
}

__int128 mir_tlog_window_end(const mir_tlog_totals *totals, int64_t window)
{
    return ((__int128)window + 1) * (__int128)totals->window_ns + totals->window_from_ns;
}

/* A window while its values are taken. */
typedef struct window_now {
    int64_t number;
    int64_t limit_ns; /* the first time behind it */
    bool unbounded;   /* there is none: the last time may be in it */
} window_now;

static window_now window_at(const mir_tlog_totals *totals, int64_t time_ns)
{
    const int64_t number = mir_tlog_window_of(totals, time_ns);
    const __int128 limit_ns = mir_tlog_window_end(totals, number);
    const bool unbounded = totals->window_ns == 0 || limit_ns > INT64_MAX;
    return (window_now){number, unbounded ? INT64_MAX : (int64_t)limit_ns, unbounded};
}

/* Of a time behind a window, which is in the next one as a rule: that takes no division. */
static inline window_now window_behind(const mir_tlog_totals *totals, window_now window,
                                       int64_t time_ns)
{
    int64_t limit_ns;
    if (totals->window_ns <= INT64_MAX && time_ns >= window.limit_ns &&
        !__builtin_add_overflow(window.limit_ns, (int64_t)totals->window_ns, &limit_ns) &&
        time_ns < limit_ns) {
        return (window_now){window.number + 1, limit_ns, false};
    }
    return window_at(totals, time_ns);
}

static mir_status take_bytes(const mir_tlog_totals *totals, uint64_t bytes)
{
    const uint64_t before = atomic_fetch_add_explicit(totals->bytes, bytes, memory_order_relaxed);
    return before + bytes > totals->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

static bool sampled(const mir_tlog_totals *totals)
{
    return (totals->functions & MIR_TLOG_PERCENTILE) != 0;
}

/* What is beyond the windows that there are is set when they come. */
static mir_status column_room(const mir_tlog_totals *totals, mir_tlog_totals_column *column,
                              uint32_t from, uint32_t to)
{
    mir_tlog_total *more = realloc(column->totals, to * sizeof *more);
    if (more == NULL) return MIR_E_NO_MEMORY;
    column->totals = more;
    if (!sampled(totals)) return MIR_OK;
    mir_tlog_samples *samples = realloc(column->samples, to * sizeof *samples);
    if (samples == NULL) return MIR_E_NO_MEMORY;
    memset(samples + from, 0, (to - from) * sizeof *samples); /* may be freed before they are set */
    column->samples = samples;
    return MIR_OK;
}

static mir_status windows_room(mir_tlog_totals *totals, uint32_t count)
{
    if (count <= totals->window_capacity) return MIR_OK;
    uint32_t capacity = totals->window_capacity == 0 ? 1 : totals->window_capacity;
    while (capacity < count) capacity *= 2;
    mir_status status = take_bytes(
        totals, (uint64_t)(capacity - totals->window_capacity) *
                    (sizeof(int64_t) + totals->column_capacity * sizeof(mir_tlog_total)));
    if (status != MIR_OK) return status;
    int64_t *windows = realloc(totals->windows, capacity * sizeof *windows);
    if (windows == NULL) return MIR_E_NO_MEMORY;
    totals->windows = windows;
    for (uint32_t i = 0; i < totals->column_capacity && status == MIR_OK; i++) {
        status = column_room(totals, &totals->columns[i], totals->window_capacity, capacity);
    }
    if (status == MIR_OK) totals->window_capacity = capacity;
    return status;
}

static mir_status column_of(mir_tlog_totals *totals, mir_view name, mir_column_type type,
                            mir_tlog_totals_column **column)
{
    uint32_t number = totals->likely;
    const uint32_t known = totals->set.count;
    mir_status status = MIR_OK;
    if (number >= known || totals->set.columns[number].type != type ||
        !mir_view_eq(mir_tlog_column_name(&totals->set.columns[number]), name)) {
        status = mir_tlog_columns_number(&totals->set, name, type, &number);
        if (status != MIR_OK) return status;
    }
    totals->likely = number + 1 < known ? number + 1 : 0;
    if (number >= totals->column_capacity) {
        const uint32_t capacity = totals->column_capacity == 0 ? 2 : totals->column_capacity * 2;
        status = take_bytes(totals, (uint64_t)(capacity - totals->column_capacity) *
                                        totals->window_capacity * sizeof(mir_tlog_total));
        if (status != MIR_OK) return status;
        mir_tlog_totals_column *columns = realloc(totals->columns, capacity * sizeof *columns);
        if (columns == NULL) return MIR_E_NO_MEMORY;
        totals->columns = columns;
        memset(columns + totals->column_capacity, 0,
               (capacity - totals->column_capacity) * sizeof *columns);
        const uint32_t first = totals->column_capacity;
        totals->column_capacity = capacity;
        for (uint32_t i = first; i < capacity && totals->window_capacity > 0; i++) {
            status = column_room(totals, &columns[i], 0, totals->window_capacity);
            if (status != MIR_OK) return status;
        }
    }
    *column = &totals->columns[number];
    if (number < known || (*column)->totals == NULL) return MIR_OK;
    memset((*column)->totals, 0, totals->window_count * sizeof *(*column)->totals);
    if ((*column)->samples == NULL) return MIR_OK;
    memset((*column)->samples, 0, totals->window_count * sizeof *(*column)->samples);
    return MIR_OK;
}

/* A window behind all others. */
static mir_status window_append(mir_tlog_totals *totals, int64_t window)
{
    const uint32_t at = totals->window_count;
    if (at == totals->window_capacity) {
        const mir_status status = windows_room(totals, at + 1);
        if (status != MIR_OK) return status;
    }
    totals->windows[at] = window;
    totals->window_count = at + 1;
    for (uint32_t i = 0; i < totals->set.count; i++) {
        mir_tlog_totals_column *column = &totals->columns[i];
        column->totals[at] = (mir_tlog_total){0};
        if (column->samples != NULL) column->samples[at] = (mir_tlog_samples){0};
    }
    return MIR_OK;
}

/* The place of a window that is not behind all others. */
static mir_status window_find(mir_tlog_totals *totals, int64_t window, uint32_t *place)
{
    uint32_t at = totals->window_count;
    for (uint32_t near = 0; near < 4 && at > 0 && totals->windows[at - 1] > window; near++) at--;
    if (at > 0 && totals->windows[at - 1] > window) {
        uint32_t low = 0; /* the first place behind the window is in [low, at] */
        while (low < at) {
            const uint32_t middle = low + (at - low) / 2;
            if (totals->windows[middle] > window) {
                at = middle;
            } else {
                low = middle + 1;
            }
        }
    }
    if (at > 0 && totals->windows[at - 1] == window) {
        *place = at - 1;
        return MIR_OK;
    }
    const mir_status status = windows_room(totals, totals->window_count + 1);
    if (status != MIR_OK) return status;
    /* A sparse column may have been first, and one with values between its windows next. */
    const uint32_t behind = totals->window_count - at;
    memmove(totals->windows + at + 1, totals->windows + at, behind * sizeof *totals->windows);
    totals->windows[at] = window;
    for (uint32_t i = 0; i < totals->set.count; i++) {
        mir_tlog_totals_column *column = &totals->columns[i];
        memmove(column->totals + at + 1, column->totals + at, behind * sizeof *column->totals);
        column->totals[at] = (mir_tlog_total){0};
        if (column->samples == NULL) continue;
        memmove(column->samples + at + 1, column->samples + at, behind * sizeof *column->samples);
        column->samples[at] = (mir_tlog_samples){0};
    }
    totals->window_count++;
    if (at < totals->window_kept) totals->window_kept = at;
    *place = at;
    return MIR_OK;
}

/* The place of a window that is one of the last, or a new one behind them. Columns of one run of rows
 * come one after another, so a window may be there already with others behind it. */
static inline mir_status window_place(mir_tlog_totals *totals, int64_t window, uint32_t *place)
{
    const uint32_t count = totals->window_count;
    if (count > 0 && totals->windows[count - 1] >= window) {
        return window_find(totals, window, place);
    }
    *place = count;
    return window_append(totals, window);
}

static mir_status samples_take(const mir_tlog_totals *totals, mir_tlog_samples *samples,
                               const uint64_t *values, uint32_t count)
{
    if (count > samples->capacity - samples->count) {
        uint32_t capacity = samples->capacity == 0 ? 16 : samples->capacity;
        if (count > UINT32_MAX / 4 - samples->count) return MIR_E_TOO_LARGE;
        while (capacity - samples->count < count) capacity *= 2;
        const mir_status status =
            take_bytes(totals, (uint64_t)(capacity - samples->capacity) * sizeof *values);
        if (status != MIR_OK) return status;
        uint64_t *more = realloc(samples->values, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        samples->values = more;
        samples->capacity = capacity;
    }
    memcpy(samples->values + samples->count, values, count * sizeof *values);
    samples->count += count;
    return MIR_OK;
}

static void range_take(mir_tlog_total *total, mir_column_type type, uint64_t low, uint64_t high)
{
    if (!total->ordered || mir_tlog_less(type, low, total->low)) total->low = low;
    if (!total->ordered || mir_tlog_less(type, total->high, high)) total->high = high;
    total->ordered = true;
}

static void sum_doubles(mir_tlog_total *total, const uint64_t *values, uint32_t count, bool ordered)
{
    double sum = total->sum_f64;
    for (uint32_t i = 0; i < count; i++) sum += mir_tlog_double_of(values[i]);
    total->sum_f64 = sum;
    for (uint32_t i = 0; i < count && ordered; i++) {
        const double value = mir_tlog_double_of(values[i]);
        if (value != value) continue;
        if (!total->ordered || value < mir_tlog_double_of(total->low)) total->low = values[i];
        if (!total->ordered || value > mir_tlog_double_of(total->high)) total->high = values[i];
        total->ordered = true;
    }
}

static void sum_integers(mir_tlog_total *total, mir_column_type type, const uint64_t *values,
                         uint32_t count, bool ordered, bool small)
{
    if (small && !ordered) {
        uint64_t all = 0;
        for (uint32_t i = 0; i < count; i++) all += values[i];
        total->sum += (int64_t)all;
        return;
    }
    /* With the sign bit turned over, unsigned order is that of the type, and sums cannot wrap. */
    const uint64_t flip = type == MIR_COLUMN_I64 ? UINT64_C(1) << 63 : 0;
    MIR_ASSERT(count <= MIR_TLOG_CHUNK_ROWS_MAX);
    /* Halves of so few values do not overflow either. */
    uint64_t low_half = 0;
    uint64_t high_half = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t value = values[i] ^ flip;
        low_half += value & UINT32_MAX;
        high_half += value >> 32;
    }
    const unsigned __int128 sum = ((unsigned __int128)high_half << 32) + low_half;
    total->sum += (__int128)(sum - (unsigned __int128)flip * count);
    if (!ordered) return;
    uint64_t low = UINT64_MAX;
    uint64_t high = 0;
    for (uint32_t i = 0; i < count; i++) {
        const uint64_t value = values[i] ^ flip;
        low = value < low ? value : low;
        high = value > high ? value : high;
    }
    range_take(total, type, low ^ flip, high ^ flip);
}

/* A counter grows; where it falls it began again from nothing. */
static void increase_take(mir_tlog_total *total, mir_tlog_totals_column *column,
                          mir_column_type type, const int64_t *times, const uint64_t *values,
                          uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        const double value = mir_tlog_number_of(type, values[i]);
        if (column->has_before) {
            if (!total->rated) total->rate_from_ns = column->before_ns;
            total->rated = true;
            const double before = mir_tlog_number_of(type, column->before);
            const double anew = value > 0 ? value : 0;
            total->increase += value >= before ? value - before : anew;
        }
        column->before = values[i];
        column->before_ns = times[i];
        column->has_before = true;
    }
}

static void ends_take(mir_tlog_total *total, mir_column_type type, int64_t first_ns,
                      int64_t last_ns, const uint64_t *first, const uint64_t *last,
                      const mir_view *first_text, const mir_view *last_text)
{
    const bool text = type == MIR_COLUMN_STRING;
    if (total->count == 0 || first_ns < total->first_ns) {
        total->first_ns = first_ns;
        total->first = text ? (uint64_t)(uintptr_t)first_text->data : *first;
        if (text) total->low = first_text->size;
    }
    if (total->count == 0 || last_ns >= total->last_ns) {
        total->last_ns = last_ns;
        total->last = text ? (uint64_t)(uintptr_t)last_text->data : *last;
        if (text) total->high = last_text->size;
    }
}

/* A place in a run and its time. */
typedef struct moment {
    uint32_t at;
    int64_t time_ns;
} moment;

static moment moment_at(const mir_tlog_run *run, uint32_t at)
{
    return (moment){at, mir_tlog_time_at(&run->times, at)};
}

/* Between `low`, which is before the limit, and `high`, which is not: makes them neighbours. A time
 * may have to be unpacked for itself, so few are looked at: those about `guess`. */
static void find_limit(const mir_tlog_run *run, int64_t limit_ns, uint32_t guess, moment *low,
                       moment *high)
{
    if (high->at - low->at == 1) return;
    const bool fits = guess > low->at && guess < high->at;
    moment look = moment_at(run, fits ? guess : low->at + 1);
    const bool up = look.time_ns < limit_ns;
    *(up ? low : high) = look;
    /* Away from there in growing steps, until the limit lies between two looks. */
    bool is_between = false;
    for (uint32_t step = 1; !is_between && step < high->at - low->at; step *= 2) {
        look = moment_at(run, up ? low->at + step : high->at - step);
        is_between = (look.time_ns < limit_ns) != up;
        *(look.time_ns < limit_ns ? low : high) = look;
    }
    while (high->at - low->at > 1) {
        look = moment_at(run, low->at + (high->at - low->at) / 2);
        *(look.time_ns < limit_ns ? low : high) = look;
    }
}

/* The values from one moment to another one. */
static mir_status window_take(mir_tlog_totals *totals, mir_tlog_totals_column *column,
                              uint32_t place, mir_column_type type, const mir_tlog_run *run,
                              moment first, moment last)
{
    mir_tlog_total *total = &column->totals[place];
    const uint32_t from = first.at - run->first;
    const uint32_t count = last.at - first.at + 1;
    mir_status status = MIR_OK;
    if (totals->functions == MIR_TLOG_COUNT || run->walk != NULL) {
        if (total->count == 0 || first.time_ns < total->first_ns) total->first_ns = first.time_ns;
        if (total->count == 0 || last.time_ns > total->last_ns) total->last_ns = last.time_ns;
        if (run->walk != NULL) total->sum += (int64_t)mir_tlog_ints_walk_sum(run->walk, count);
    } else if (type == MIR_COLUMN_STRING) {
        if (place < totals->window_kept) totals->window_kept = place;
        ends_take(total, type, first.time_ns, last.time_ns, NULL, NULL, &run->texts[from],
                  &run->texts[from + count - 1]);
    } else {
        const uint64_t *values = run->values + from;
        const bool ordered = (totals->functions & (MIR_TLOG_MIN | MIR_TLOG_MAX)) != 0;
        ends_take(total, type, first.time_ns, last.time_ns, values, &values[count - 1], NULL, NULL);
        if (type == MIR_COLUMN_F64) {
            sum_doubles(total, values, count, ordered);
        } else if ((totals->functions & NUMBER_FUNCTIONS) != 0) {
            sum_integers(total, type, values, count, ordered, run->small);
        }
        if ((totals->functions & MIR_TLOG_RATE) != 0) {
            increase_take(total, column, type, run->times.list + first.at, values, count);
        }
        if (sampled(totals)) status = samples_take(totals, &column->samples[place], values, count);
    }
    total->count += count;
    return status;
}

mir_status mir_tlog_totals_take(mir_tlog_totals *totals, mir_view name, mir_column_type type,
                                const mir_tlog_run *run)
{
    mir_tlog_totals_column *column;
    mir_status status = column_of(totals, name, type, &column);
    const moment end = moment_at(run, run->first + run->count - 1);
    moment first = moment_at(run, run->first);
    /* As a rule windows have as many values each, but for one that is just before or behind a limit:
     * the guess stays where these differ. */
    uint32_t guess = first.at;
    uint32_t stride = 0;
    window_now window = window_at(totals, first.time_ns);
    while (status == MIR_OK) {
        moment last = first;
        moment next = end;
        const bool is_last = window.unbounded || end.time_ns < window.limit_ns;
        guess += stride;
        if (!is_last) find_limit(run, window.limit_ns, guess, &last, &next);
        uint32_t place;
        status = window_place(totals, window.number, &place);
        if (status != MIR_OK) break;
        status = window_take(totals, column, place, type, run, first, is_last ? end : last);
        if (is_last) break;
        if (stride == 0 || next.at > guess + 1 || next.at + 1 < guess) {
            stride = next.at - first.at;
            guess = next.at;
        } else if (next.at < guess) {
            guess = next.at;
        }
        first = next;
        window = window_behind(totals, window, first.time_ns);
    }
    return status;
}

bool mir_tlog_totals_sums_only(const mir_tlog_totals *totals)
{
    const uint32_t sums = MIR_TLOG_MEAN | MIR_TLOG_SUM | MIR_TLOG_COUNT;
    return (totals->functions & ~sums) == 0;
}

bool mir_tlog_totals_suffices(const mir_tlog_totals *totals, mir_column_type type,
                              const mir_tlog_column_statistics *statistics)
{
    uint32_t wanted = totals->functions;
    if (type == MIR_COLUMN_STRING || type == MIR_COLUMN_BOOL) wanted &= ~(uint32_t)NUMBER_FUNCTIONS;
    if ((wanted & (VALUE_FUNCTIONS)) != 0 && type != MIR_COLUMN_STRING) return false;
    if ((wanted & NUMBER_FUNCTIONS) != 0) {
        if (!statistics->known) return false;
        /* What is smallest beside a NaN, or of nothing but NaN, they do not say. */
        if (type == MIR_COLUMN_F64 && statistics->sum_f64 != statistics->sum_f64) return false;
    }
    return (wanted & (MIR_TLOG_FIRST | MIR_TLOG_LAST)) == 0 || statistics->ends_known;
}

mir_status mir_tlog_totals_take_statistics(mir_tlog_totals *totals, mir_view name,
                                           mir_column_type type, int64_t first_ns, int64_t last_ns,
                                           const mir_tlog_column_statistics *s)
{
    mir_tlog_totals_column *column;
    uint32_t place;
    mir_status status = column_of(totals, name, type, &column);
    if (status == MIR_OK) {
        status = window_place(totals, mir_tlog_window_of(totals, first_ns), &place);
    }
    if (status != MIR_OK) return status;
    mir_tlog_total *total = &column->totals[place];
    if (type == MIR_COLUMN_STRING) {
        const mir_view none = {NULL, 0};
        ends_take(total, type, first_ns, last_ns, NULL, NULL, &none, &none);
    } else {
        ends_take(total, type, first_ns, last_ns, &s->first, &s->last, NULL, NULL);
    }
    if (s->known) {
        total->sum += s->sum;
        total->sum_f64 += s->sum_f64;
        range_take(total, type, s->low, s->high);
    }
    total->count += s->count;
    return MIR_OK;
}

static mir_status text_keep(mir_tlog_totals *totals, uint64_t *address, uint64_t size)
{
    if (size == 0) return MIR_OK;
    mir_status status = take_bytes(totals, size);
    if (status != MIR_OK) return status;
    uint8_t *copy = mir_arena_alloc(&totals->texts, size);
    if (copy == NULL) return MIR_E_NO_MEMORY;
    memcpy(copy, (const uint8_t *)(uintptr_t)*address, size);
    *address = (uint64_t)(uintptr_t)copy;
    return MIR_OK;
}

mir_status mir_tlog_totals_keep_texts(mir_tlog_totals *totals)
{
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < totals->set.count && status == MIR_OK; i++) {
        if (totals->set.columns[i].type != MIR_COLUMN_STRING) continue;
        for (uint32_t w = totals->window_kept; w < totals->window_count && status == MIR_OK; w++) {
            mir_tlog_total *total = &totals->columns[i].totals[w];
            if (total->count == 0) continue;
            status = text_keep(totals, &total->first, total->low);
            if (status == MIR_OK) status = text_keep(totals, &total->last, total->high);
        }
    }
    /* The last window may go on. */
    totals->window_kept = totals->window_count > 0 ? totals->window_count - 1 : 0;
    return status;
}

void mir_tlog_totals_finish(mir_tlog_totals *totals)
{
    if ((totals->functions & MIR_TLOG_RATE) == 0) return;
    for (uint32_t i = 0; i < totals->set.count; i++) {
        for (uint32_t w = 0; w < totals->window_count; w++) {
            mir_tlog_total *total = &totals->columns[i].totals[w];
            if (!total->rated) continue;
            const uint64_t span_ns = (uint64_t)total->last_ns - (uint64_t)total->rate_from_ns;
            const double seconds = (double)span_ns / (double)MIR_NS_PER_S;
            total->rate = seconds > 0 ? total->increase / seconds : 0;
        }
    }
}

static mir_status total_add(const mir_tlog_totals *totals, mir_tlog_total *to,
                            mir_tlog_samples *to_samples, mir_column_type type,
                            const mir_tlog_total *from, const mir_tlog_samples *from_samples,
                            uint32_t first_device, uint32_t last_device)
{
    if (from->count == 0) return MIR_OK;
    if (to->count == 0 || from->first_ns < to->first_ns ||
        (from->first_ns == to->first_ns && first_device < to->first_device)) {
        to->first_ns = from->first_ns;
        to->first = from->first;
        to->first_device = first_device & (INT32_MAX >> 1);
        if (type == MIR_COLUMN_STRING) to->low = from->low;
    }
    if (to->count == 0 || from->last_ns > to->last_ns ||
        (from->last_ns == to->last_ns && last_device >= to->last_device)) {
        to->last_ns = from->last_ns;
        to->last = from->last;
        to->last_device = last_device & INT32_MAX;
        if (type == MIR_COLUMN_STRING) to->high = from->high;
    }
    if (from->ordered) range_take(to, type, from->low, from->high);
    to->sum = (__int128)((unsigned __int128)to->sum + (unsigned __int128)from->sum);
    to->sum_f64 += from->sum_f64;
    to->count += from->count;
    to->rate += from->rate;
    to->rated = to->rated || from->rated;
    if (from_samples == NULL || from_samples->count == 0) return MIR_OK;
    return samples_take(totals, to_samples, from_samples->values, from_samples->count);
}

mir_status mir_tlog_totals_take_total(mir_tlog_totals *totals, mir_view name, mir_column_type type,
                                      int64_t time_ns, const mir_tlog_total *from)
{
    mir_tlog_totals_column *column;
    uint32_t place;
    mir_status status = column_of(totals, name, type, &column);
    if (status == MIR_OK) {
        status = window_place(totals, mir_tlog_window_of(totals, time_ns), &place);
    }
    if (status != MIR_OK) return status;
    if (type == MIR_COLUMN_STRING && place < totals->window_kept) totals->window_kept = place;
    mir_tlog_total *total = &column->totals[place];
    if ((totals->functions & MIR_TLOG_RATE) != 0 && type != MIR_COLUMN_STRING) {
        increase_take(total, column, type, &from->first_ns, &from->first, 1);
        if (from->count > 1) {
            if (!total->rated) total->rate_from_ns = from->first_ns;
            total->rated = true;
            total->increase += from->increase;
        }
        column->before = from->last;
        column->before_ns = from->last_ns;
    }
    return total_add(totals, total, NULL, type, from, NULL, 0, 0);
}

/* Places for windows that only the other has, all at once. */
static mir_status windows_join(mir_tlog_totals *to, const mir_tlog_totals *from)
{
    uint32_t fresh = 0;
    uint32_t a = 0;
    for (uint32_t b = 0; b < from->window_count; b++) {
        while (a < to->window_count && to->windows[a] < from->windows[b]) a++;
        if (a == to->window_count || to->windows[a] != from->windows[b]) fresh++;
    }
    if (fresh == 0) return MIR_OK;
    const mir_status status = windows_room(to, to->window_count + fresh);
    if (status != MIR_OK) return status;
    /* From the last one backwards, so that nothing is overwritten. */
    uint32_t put = to->window_count + fresh;
    a = to->window_count;
    uint32_t b = from->window_count;
    while (put > a) {
        put--;
        const bool other = a == 0 || (b > 0 && from->windows[b - 1] > to->windows[a - 1]);
        if (!other && b > 0 && from->windows[b - 1] == to->windows[a - 1]) b--;
        if (other) {
            b--;
        } else {
            a--;
        }
        to->windows[put] = other ? from->windows[b] : to->windows[a];
        for (uint32_t i = 0; i < to->set.count; i++) {
            mir_tlog_totals_column *column = &to->columns[i];
            column->totals[put] = other ? (mir_tlog_total){0} : column->totals[a];
            if (column->samples == NULL) continue;
            column->samples[put] = other ? (mir_tlog_samples){0} : column->samples[a];
        }
    }
    to->window_count += fresh;
    return MIR_OK;
}

mir_status mir_tlog_totals_add(mir_tlog_totals *to, const mir_tlog_totals *from)
{
    mir_status status = windows_join(to, from);
    to->grouped = true;
    for (uint32_t i = 0; i < from->set.count && status == MIR_OK; i++) {
        const mir_column *named = &from->set.columns[i];
        mir_tlog_totals_column *column;
        status = column_of(to, mir_tlog_column_name(named), named->type, &column);
        uint32_t a = 0;
        for (uint32_t b = 0; b < from->window_count && status == MIR_OK; b++) {
            while (to->windows[a] < from->windows[b]) a++;
            const mir_tlog_totals_column *source = &from->columns[i];
            const mir_tlog_total *total = &source->totals[b];
            status = total_add(to, &column->totals[a],
                               column->samples == NULL ? NULL : &column->samples[a], named->type,
                               total, source->samples == NULL ? NULL : &source->samples[b],
                               from->grouped ? total->first_device : from->device,
                               from->grouped ? total->last_device : from->device);
        }
    }
    return status;
}
