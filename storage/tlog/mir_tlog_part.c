/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_part.h"

#include "mir_tlog_number.h"
#include "mir_tlog_rollup_read.h"

#include <float.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

static mir_tlog_totals totals_new(const mir_tlog_part_maker *maker)
{
    return (mir_tlog_totals){
        .functions = maker->scan.spec->functions,
        .window_ns = maker->scan.spec->window_ns,
        .window_from_ns = maker->scan.spec->window_from_ns,
        .bytes = maker->scan.bytes,
        .bytes_max = maker->scan.bytes_max,
    };
}

mir_status mir_tlog_part_maker_init(mir_tlog_part_maker *maker)
{
    const mir_tlog_query_spec *spec = maker->scan.spec;
    mir_status status = mir_tlog_scan_init(&maker->scan);
    if (status != MIR_OK) return status;
    mir_tlog_gather *gather = &maker->scan.gather;
    const uint32_t any = MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST;
    gather->numbers_only =
        spec->points != 0 || (spec->functions != 0 && (spec->functions & any) == 0);
    maker->totals = totals_new(maker);
    if (spec->groups == NULL) return MIR_OK;
    maker->groups = calloc((size_t)spec->group_count + 1, sizeof *maker->groups);
    if (maker->groups == NULL) return mir_tlog_scan_failed(&maker->scan, MIR_E_NO_MEMORY);
    return MIR_OK;
}

void mir_tlog_part_maker_fini(mir_tlog_part_maker *maker)
{
    for (uint32_t i = 0; maker->groups != NULL && i < maker->scan.spec->group_count; i++) {
        mir_tlog_totals_free(&maker->groups[i]);
    }
    free(maker->groups);
    mir_tlog_totals_free(&maker->totals);
    for (uint32_t i = 0; i < maker->text_count; i++) mir_arena_free(&maker->texts[i]);
    free(maker->texts);
    free(maker->rank);
    free(maker->moved);
    mir_tlog_columns_free(&maker->columns);
    mir_arena_free(&maker->names);
    mir_tlog_scan_fini(&maker->scan);
}

void mir_tlog_part_free(mir_tlog_part *part)
{
    free(part->times);
    free(part->columns);
    free(part->values);
    free(part->present);
    free(part->texts);
    mir_arena_free(&part->arena);
}

static mir_status part_new(mir_tlog_part_maker *maker, mir_tlog_part *part, uint32_t rows,
                           uint32_t columns)
{
    const uint64_t cells = (uint64_t)rows * columns;
    const mir_status status =
        mir_tlog_scan_take(&maker->scan, (uint64_t)rows * 8 + cells * 9 + columns * 4u);
    if (status != MIR_OK) return status;
    part->maker = maker;
    part->times = malloc((size_t)rows * 8 + 1);
    part->columns = malloc((columns + 1) * sizeof *part->columns);
    part->values = malloc(cells * 8 + 1);
    part->present = calloc(1, cells + 1);
    if (part->times == NULL || part->columns == NULL || part->values == NULL ||
        part->present == NULL) {
        return MIR_E_NO_MEMORY;
    }
    part->row_count = part->stride = rows;
    part->column_count = columns;
    const uint64_t before = atomic_fetch_add_explicit(maker->rows, rows, memory_order_relaxed);
    const mir_tlog_query_spec *spec = maker->scan.spec;
    return spec->limit == 0 && before + rows > spec->rows_max ? MIR_E_FULL : MIR_OK;
}

/* ---- Rows as they are ---- */

static mir_status part_rows(mir_tlog_part_maker *maker, mir_tlog_part *part)
{
    const mir_tlog_query_spec *spec = maker->scan.spec;
    mir_tlog_gather *gather = &maker->scan.gather;
    uint32_t rows = gather->row_count;
    uint32_t first = 0;
    if (spec->limit != 0 && rows > spec->limit) {
        if (spec->backward) first = rows - (uint32_t)spec->limit;
        rows = (uint32_t)spec->limit;
    }
    mir_status status = part_new(maker, part, rows, gather->column_count);
    if (status != MIR_OK) return status;
    memcpy(part->times, gather->times + first, (size_t)rows * 8);
    bool strings = false;
    for (uint32_t i = 0; i < gather->column_count; i++) {
        const mir_tlog_gather_column *column = &gather->columns[i];
        status =
            mir_tlog_columns_number(&maker->columns, column->name, column->type, &part->columns[i]);
        if (status != MIR_OK) return status;
        memcpy(part->values + (size_t)i * rows, column->values + first, (size_t)rows * 8);
        memcpy(part->present + (size_t)i * rows, column->present + first, rows);
        if (column->type == MIR_COLUMN_STRING) strings = true;
    }
    if (strings) mir_tlog_gather_give_texts(gather, &part->texts, &part->arena);
    return MIR_OK;
}

/* ---- Points ---- */

/* Times lie too far from zero for doubles to tell them apart. */
static double since(int64_t time_ns, int64_t origin_ns)
{
    return (double)((uint64_t)time_ns - (uint64_t)origin_ns);
}

/* Values between the first and the last one are shared out among buckets, one for each of the points
 * between theirs: none is left over. */
static uint32_t bucket_begin(uint32_t bucket, uint32_t count, uint32_t points)
{
    return 1 + (uint32_t)((uint64_t)bucket * (count - 2) / (points - 2));
}

static double value_at(const mir_tlog_gather_column *column, uint32_t row)
{
    return mir_tlog_number_of(column->type, column->values[row]);
}

/* Of each bucket of values the one that spans the largest triangle with the one chosen before it and
 * the mean of the next bucket; the first and the last value always. Sets present[row] to 2 there.
 * Triangles with what is not finite would all be alike: it is chosen where there is nothing else. */
static void column_thin(mir_tlog_gather_column *column, const int64_t *times,
                        const uint32_t *with_value, uint32_t count, uint32_t points)
{
    column->present[with_value[0]] = 2;
    column->present[with_value[count - 1]] = 2;
    uint32_t chosen = 0;
    for (uint32_t bucket = 0; bucket + 2 < points; bucket++) {
        const uint32_t first = bucket_begin(bucket, count, points);
        const uint32_t next = bucket_begin(bucket + 1, count, points);
        const bool is_last = bucket + 3 == points;
        const uint32_t next_end = is_last ? count : bucket_begin(bucket + 2, count, points);
        const int64_t origin_ns = times[with_value[chosen]];
        double origin = value_at(column, with_value[chosen]);
        double mean_time = 0;
        double mean_value = 0;
        uint32_t finite = 0;
        for (uint32_t i = next; i < next_end; i++) {
            const double value = value_at(column, with_value[i]);
            mean_time += since(times[with_value[i]], origin_ns);
            if (!isfinite(value)) continue;
            mean_value += value;
            finite++;
        }
        mean_time /= next_end - next;
        if (finite > 0) mean_value /= finite;
        if (!isfinite(origin)) origin = mean_value;
        if (finite == 0) mean_value = origin;
        double largest = -1;
        uint32_t best = first;
        for (uint32_t i = first; i < next; i++) {
            const double time = since(times[with_value[i]], origin_ns);
            const double value = value_at(column, with_value[i]);
            const double area = fabs(mean_time * (value - origin) - time * (mean_value - origin));
            if (isfinite(value) && area > largest) {
                largest = area;
                best = i;
            }
        }
        column->present[with_value[best]] = 2;
        chosen = best;
    }
}

static mir_status part_points(mir_tlog_part_maker *maker, mir_tlog_part *part)
{
    mir_tlog_gather *gather = &maker->scan.gather;
    const uint32_t points = maker->scan.spec->points < 3 ? 3 : maker->scan.spec->points;
    const uint64_t bytes = ((uint64_t)gather->row_count + 1) * sizeof(uint32_t);
    const mir_status status = mir_tlog_scan_take(&maker->scan, bytes);
    if (status != MIR_OK) return status;
    uint32_t *with_value = malloc(bytes);
    if (with_value == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < gather->column_count; i++) {
        mir_tlog_gather_column *column = &gather->columns[i];
        uint32_t count = 0;
        for (uint32_t row = 0; row < gather->row_count; row++) {
            if (column->present[row] != 0) with_value[count++] = row;
        }
        if (count > points) column_thin(column, gather->times, with_value, count, points);
        /* All of them are chosen when they are so few. */
        for (uint32_t row = 0; row < gather->row_count; row++) {
            const uint8_t chosen = count > points ? 2 : 1;
            column->present[row] = column->present[row] == chosen;
        }
    }
    free(with_value);
    mir_tlog_scan_give(&maker->scan, bytes);
    uint32_t kept = 0;
    for (uint32_t row = 0; row < gather->row_count; row++) {
        bool any = false;
        for (uint32_t i = 0; i < gather->column_count && !any; i++) {
            any = gather->columns[i].present[row] != 0;
        }
        if (!any) continue;
        gather->times[kept] = gather->times[row];
        for (uint32_t i = 0; i < gather->column_count; i++) {
            gather->columns[i].values[kept] = gather->columns[i].values[row];
            gather->columns[i].present[kept] = gather->columns[i].present[row];
        }
        kept++;
    }
    for (uint32_t i = 0; i < gather->column_count; i++) {
        memset(gather->columns[i].present + kept, 0, gather->row_count - kept);
    }
    gather->row_count = kept;
    return part_rows(maker, part);
}

/* ---- What rows come to ---- */

/* A column of the answer: a function of the columns of one name. */
typedef struct output {
    mir_tlog_function function;
    double percentile;
    mir_column_type type;
    const uint32_t *members; /* columns of the totals */
    uint32_t member_count;
} output;

typedef struct outputs {
    mir_tlog_part_maker *maker;
    const mir_tlog_totals *totals;
    output *list;
    uint32_t count;
    uint32_t capacity;
    uint32_t *numbers; /* in the maker's columns */
    bool single;       /* one function: its columns have the fields' names */
} outputs;

static const struct {
    mir_tlog_function function;
    const char *name;
} function_names[] = {
    {MIR_TLOG_MEAN, "mean"}, {MIR_TLOG_MIN, "min"},     {MIR_TLOG_MAX, "max"},
    {MIR_TLOG_SUM, "sum"},   {MIR_TLOG_COUNT, "count"}, {MIR_TLOG_FIRST, "first"},
    {MIR_TLOG_LAST, "last"}, {MIR_TLOG_RATE, "rate"},
};

static bool sum_fits(mir_column_type type, __int128 sum)
{
    return type == MIR_COLUMN_I64 ? sum >= INT64_MIN && sum <= INT64_MAX
                                  : sum >= 0 && sum <= UINT64_MAX;
}

static mir_column_type output_type(const mir_tlog_totals *totals, mir_tlog_function function,
                                   const uint32_t *members, uint32_t count)
{
    const mir_column_type type = totals->set.columns[members[0]].type;
    switch (function) {
    case MIR_TLOG_COUNT: return MIR_COLUMN_I64;
    case MIR_TLOG_MEAN:
    case MIR_TLOG_RATE: return MIR_COLUMN_F64;
    case MIR_TLOG_SUM:
        for (uint32_t w = 0; count == 1 && type != MIR_COLUMN_F64 && w < totals->window_count;
             w++) {
            if (!sum_fits(type, totals->columns[members[0]].totals[w].sum)) return MIR_COLUMN_F64;
        }
        return count == 1 ? type : MIR_COLUMN_F64;
    default: return count == 1 ? type : MIR_COLUMN_F64;
    }
}

static mir_status output_add(outputs *all, mir_tlog_function function, const char *function_name,
                             double percentile, const uint32_t *members, uint32_t count)
{
    if (count == 0) return MIR_OK;
    if (all->count == all->capacity) {
        const uint32_t capacity = all->capacity * 2 + 16;
        output *list = realloc(all->list, capacity * sizeof *list);
        if (list != NULL) all->list = list;
        uint32_t *numbers = realloc(all->numbers, capacity * sizeof *numbers);
        if (numbers != NULL) all->numbers = numbers;
        if (list == NULL || numbers == NULL) return MIR_E_NO_MEMORY;
        all->capacity = capacity;
    }
    mir_view name = mir_tlog_column_name(&all->totals->set.columns[members[0]]);
    if (!all->single) {
        const size_t size = strlen(function_name) + name.size + 2;
        char *text = mir_arena_alloc(&all->maker->names, size + 1);
        if (text == NULL) return MIR_E_NO_MEMORY;
        (void)snprintf(text, size + 1, "%s(%.*s)", function_name, (int)name.size,
                       (const char *)name.data);
        name = mir_view_of(text, size);
    }
    output *made = &all->list[all->count];
    *made = (output){
        .function = function,
        .percentile = percentile,
        .type = output_type(all->totals, function, members, count),
        .members = members,
        .member_count = count,
    };
    return mir_tlog_columns_number(&all->maker->columns, name, made->type,
                                   &all->numbers[all->count++]);
}

void mir_tlog_percentile_name(double percentile, char name[MIR_TLOG_PERCENTILE_NAME_BYTES])
{
    (void)snprintf(name, MIR_TLOG_PERCENTILE_NAME_BYTES, "p%.15g", percentile);
}

/* Of the columns of one name: `numbers` of them are, the others follow. */
static mir_status outputs_of_name(outputs *all, const uint32_t *members, uint32_t numbers,
                                  uint32_t count)
{
    const mir_tlog_query_spec *spec = all->maker->scan.spec;
    mir_status status = MIR_OK;
    for (size_t f = 0; f < sizeof function_names / sizeof function_names[0]; f++) {
        const mir_tlog_function function = function_names[f].function;
        const char *name = function_names[f].name;
        if ((spec->functions & function) == 0 || status != MIR_OK) continue;
        if (function == MIR_TLOG_COUNT) {
            status = output_add(all, function, name, 0, members, count);
            continue;
        }
        status = output_add(all, function, name, 0, members, numbers);
        if (function != MIR_TLOG_FIRST && function != MIR_TLOG_LAST) continue;
        for (uint32_t i = numbers; i < count && status == MIR_OK; i++) {
            status = output_add(all, function, name, 0, &members[i], 1);
        }
    }
    if ((spec->functions & MIR_TLOG_PERCENTILE) == 0) return status;
    for (uint32_t i = 0; i < spec->percentile_count && status == MIR_OK; i++) {
        char name[MIR_TLOG_PERCENTILE_NAME_BYTES];
        mir_tlog_percentile_name(spec->percentiles[i], name);
        status = output_add(all, MIR_TLOG_PERCENTILE, name, spec->percentiles[i], members, numbers);
    }
    return status;
}

/* `members` has room for all columns of the totals. */
static mir_status outputs_make(outputs *all, uint32_t *members)
{
    const mir_tlog_columns *set = &all->totals->set;
    uint8_t *done = calloc(1, set->count + 1);
    if (done == NULL) return MIR_E_NO_MEMORY;
    mir_status status = MIR_OK;
    uint32_t used = 0;
    for (uint32_t i = 0; i < set->count && status == MIR_OK; i++) {
        if (done[i]) continue;
        const mir_view name = mir_tlog_column_name(&set->columns[i]);
        uint32_t *mine = members + used;
        uint32_t numbers = 0;
        /* A name has one type, as good as always. Whatever order they came in, numbers are first. */
        for (int type = MIR_COLUMN_I64; type <= MIR_COLUMN_STRING; type++) {
            for (uint32_t k = i; k < set->count; k++) {
                if ((int)set->columns[k].type != type ||
                    !mir_view_eq(name, mir_tlog_column_name(&set->columns[k]))) {
                    continue;
                }
                done[k] = 1;
                members[used++] = k;
                numbers += mir_tlog_is_number(set->columns[k].type);
            }
        }
        status = outputs_of_name(all, mine, numbers, (uint32_t)(members + used - mine));
    }
    free(done);
    return status;
}

typedef struct sample {
    double number;
    uint64_t bits;
} sample;

static int sample_compare(const void *a, const void *b)
{
    const sample *left = a;
    const sample *right = b;
    /* NaN last. */
    if (left->number != left->number || right->number != right->number) {
        return (left->number != left->number) - (right->number != right->number);
    }
    if (left->number != right->number) return left->number < right->number ? -1 : 1;
    return left->bits < right->bits ? -1 : left->bits > right->bits;
}

static int i64_compare(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a;
    const int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

static int u64_compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* Nearest rank: the smallest value that so many percent of the values do not exceed. */
static uint32_t rank_of(double percentile, uint32_t count)
{
    const double exact = percentile * count / 100;
    const double whole = round(exact);
    /* 99.9 % of 1,000 are 999, although doubles know no 99.9. */
    const double rank = fabs(exact - whole) <= 4 * DBL_EPSILON * whole ? whole : ceil(exact);
    if (rank < 1) return 0;
    return rank > count ? count - 1 : (uint32_t)rank - 1;
}

static uint32_t samples_of(const outputs *all, const output *o, uint32_t window)
{
    uint32_t count = 0;
    for (uint32_t m = 0; m < o->member_count; m++) {
        count += all->totals->columns[o->members[m]].samples[window].count;
    }
    return count;
}

static mir_status percentile_of(const outputs *all, const output *o, uint32_t window,
                                uint64_t *bits)
{
    const uint32_t count = samples_of(all, o, window);
    const uint32_t rank = rank_of(o->percentile, count);
    const mir_tlog_samples *samples = &all->totals->columns[o->members[0]].samples[window];
    if (o->member_count == 1 && o->type != MIR_COLUMN_F64) {
        qsort(samples->values, count, sizeof *samples->values,
              o->type == MIR_COLUMN_I64 ? i64_compare : u64_compare);
        *bits = samples->values[rank];
        return MIR_OK;
    }
    const uint64_t bytes = ((uint64_t)count + 1) * sizeof(sample);
    const mir_status status = mir_tlog_scan_take(&all->maker->scan, bytes);
    if (status != MIR_OK) return status;
    sample *sorted = malloc(bytes);
    if (sorted == NULL) return MIR_E_NO_MEMORY;
    uint32_t used = 0;
    for (uint32_t m = 0; m < o->member_count; m++) {
        const mir_column_type type = all->totals->set.columns[o->members[m]].type;
        samples = &all->totals->columns[o->members[m]].samples[window];
        for (uint32_t i = 0; i < samples->count; i++) {
            const double number = mir_tlog_number_of(type, samples->values[i]);
            sorted[used++] = (sample){number, mir_tlog_bits_of(number)};
        }
    }
    qsort(sorted, used, sizeof *sorted, sample_compare);
    *bits = sorted[rank].bits;
    free(sorted);
    mir_tlog_scan_give(&all->maker->scan, bytes);
    return MIR_OK;
}

/* The sum of all but doubles as a double, or of doubles. */
static double sum_of(mir_column_type type, const mir_tlog_total *total)
{
    if (type == MIR_COLUMN_F64) return total->sum_f64;
    /* Of 64 bits there is an instruction for it. */
    const int64_t small = (int64_t)total->sum;
    return small == total->sum ? (double)small : (double)total->sum;
}

/* One member's value for functions that choose or add; *there tells whether it has any. */
static uint64_t member_value(const output *o, mir_column_type type, const mir_tlog_total *total,
                             bool *there)
{
    *there = total->count > 0;
    switch (o->function) {
    case MIR_TLOG_MIN: *there = total->ordered; return total->low;
    case MIR_TLOG_MAX: *there = total->ordered; return total->high;
    case MIR_TLOG_FIRST: return total->first;
    case MIR_TLOG_LAST: return total->last;
    case MIR_TLOG_RATE: *there = total->rated; return mir_tlog_bits_of(total->rate);
    case MIR_TLOG_SUM:
        return type == MIR_COLUMN_F64 ? mir_tlog_bits_of(total->sum_f64) : (uint64_t)total->sum;
    default: return 0;
    }
}

/* Several types of numbers together, as doubles. */
static uint64_t mixed_value(const outputs *all, const output *o, uint32_t window, bool *there)
{
    double result = 0;
    int64_t at_ns = 0;
    uint32_t at_device = 0;
    *there = false;
    for (uint32_t m = 0; m < o->member_count; m++) {
        const mir_column_type type = all->totals->set.columns[o->members[m]].type;
        const mir_tlog_total *total = &all->totals->columns[o->members[m]].totals[window];
        bool here;
        const uint64_t bits = member_value(o, type, total, &here);
        if (!here) continue;
        const double number = o->function == MIR_TLOG_SUM    ? sum_of(type, total)
                              : o->function == MIR_TLOG_RATE ? total->rate
                                                             : mir_tlog_number_of(type, bits);
        const bool first = o->function == MIR_TLOG_FIRST;
        const int64_t time_ns = first ? total->first_ns : total->last_ns;
        const uint32_t device = first ? total->first_device : total->last_device;
        bool better = !*there;
        switch (o->function) {
        case MIR_TLOG_MIN: better = better || number < result; break;
        case MIR_TLOG_MAX: better = better || number > result; break;
        case MIR_TLOG_FIRST:
            better = better || time_ns < at_ns || (time_ns == at_ns && device < at_device);
            break;
        case MIR_TLOG_LAST:
            better = better || time_ns > at_ns || (time_ns == at_ns && device >= at_device);
            break;
        default: break;
        }
        if (o->function == MIR_TLOG_SUM || o->function == MIR_TLOG_RATE) {
            result += number;
        } else if (better) {
            result = number;
            at_ns = time_ns;
            at_device = device;
        }
        *there = true;
    }
    return mir_tlog_bits_of(result);
}

static mir_status output_value(const outputs *all, const output *o, uint32_t window, uint64_t *bits,
                               bool *there)
{
    uint64_t count = 0;
    double sum = 0;
    for (uint32_t m = 0; m < o->member_count; m++) {
        const mir_tlog_total *total = &all->totals->columns[o->members[m]].totals[window];
        count += total->count;
        sum += sum_of(all->totals->set.columns[o->members[m]].type, total);
    }
    *there = count > 0;
    if (count == 0) return MIR_OK;
    switch (o->function) {
    case MIR_TLOG_COUNT: *bits = count; return MIR_OK;
    case MIR_TLOG_MEAN: *bits = mir_tlog_bits_of(sum / (double)count); return MIR_OK;
    case MIR_TLOG_PERCENTILE:
        /* None of the values may be there any more. */
        *there = samples_of(all, o, window) > 0;
        return *there ? percentile_of(all, o, window, bits) : MIR_OK;
    default: break;
    }
    const mir_column_type type = all->totals->set.columns[o->members[0]].type;
    const bool mixed = o->member_count > 1 || (o->function == MIR_TLOG_SUM && type != o->type);
    *bits = mixed
                ? mixed_value(all, o, window, there)
                : member_value(o, type, &all->totals->columns[o->members[0]].totals[window], there);
    return MIR_OK;
}

/* One column's means, which are what is asked for most. */
static void means_put(const mir_tlog_totals *totals, uint32_t member, uint64_t *values,
                      uint8_t *present)
{
    const mir_column_type type = totals->set.columns[member].type;
    const mir_tlog_total *total = totals->columns[member].totals;
    for (uint32_t w = 0; w < totals->window_count; w++, total++) {
        present[w] = total->count > 0;
        if (total->count > 0)
            values[w] = mir_tlog_bits_of(sum_of(type, total) / (double)total->count);
    }
}

static int64_t row_time(const mir_tlog_query_spec *spec, const mir_tlog_totals *totals,
                        uint32_t window)
{
    if (totals->window_ns != 0) {
        const __int128 end = mir_tlog_window_end(totals, totals->windows[window]);
        return end < spec->to_ns ? (int64_t)end : spec->to_ns;
    }
    int64_t newest = INT64_MIN;
    for (uint32_t i = 0; i < totals->set.count; i++) {
        const mir_tlog_total *total = &totals->columns[i].totals[window];
        if (total->count > 0 && total->last_ns > newest) newest = total->last_ns;
    }
    return newest;
}

static mir_status part_cells(outputs *all, mir_tlog_part *part)
{
    const mir_tlog_totals *totals = all->totals;
    uint32_t strings = 0;
    for (uint32_t i = 0; i < all->count; i++) {
        if (all->list[i].type == MIR_COLUMN_STRING) strings++;
    }
    mir_status status = part_new(all->maker, part, totals->window_count, all->count);
    if (status == MIR_OK && strings > 0) {
        const uint64_t cells = (uint64_t)strings * totals->window_count;
        status = mir_tlog_scan_take(&all->maker->scan, cells * sizeof *part->texts);
        part->texts = malloc(cells * sizeof *part->texts);
        if (part->texts == NULL) status = MIR_E_NO_MEMORY;
    }
    uint32_t text = 0;
    for (uint32_t w = 0; w < totals->window_count && status == MIR_OK; w++) {
        part->times[w] = row_time(all->maker->scan.spec, totals, w);
    }
    for (uint32_t i = 0; i < all->count && status == MIR_OK; i++) {
        const output *o = &all->list[i];
        part->columns[i] = all->numbers[i];
        if (o->function == MIR_TLOG_MEAN && o->member_count == 1) {
            const size_t first = (size_t)i * totals->window_count;
            means_put(totals, o->members[0], part->values + first, part->present + first);
            continue;
        }
        for (uint32_t w = 0; w < totals->window_count && status == MIR_OK; w++) {
            const size_t cell = (size_t)i * totals->window_count + w;
            bool there;
            status = output_value(all, o, w, &part->values[cell], &there);
            part->present[cell] = there;
            if (o->type != MIR_COLUMN_STRING || !there) continue;
            const mir_tlog_total *total = &totals->columns[o->members[0]].totals[w];
            part->texts[text] =
                mir_view_of((const uint8_t *)(uintptr_t)part->values[cell],
                            o->function == MIR_TLOG_FIRST ? total->low : total->high);
            part->values[cell] = text++;
        }
    }
    return status;
}

/* Windows in which no function has a value, as the smallest of nothing but NaN, make no row. */
static void part_drop_empty(mir_tlog_part *part)
{
    const size_t rows = part->stride;
    uint32_t kept = 0;
    if (memchr(part->present, 0, rows) == NULL) return;
    for (uint32_t row = 0; row < rows; row++) {
        bool any = false;
        for (uint32_t i = 0; i < part->column_count && !any; i++) {
            any = part->present[i * rows + row] != 0;
        }
        if (!any) continue;
        part->times[kept] = part->times[row];
        for (uint32_t i = 0; i < part->column_count; i++) {
            part->values[i * rows + kept] = part->values[i * rows + row];
            part->present[i * rows + kept] = part->present[i * rows + row];
        }
        kept++;
    }
    (void)atomic_fetch_sub_explicit(part->maker->rows, part->row_count - kept,
                                    memory_order_relaxed);
    part->row_count = kept;
}

static mir_status part_totals(mir_tlog_part_maker *maker, const mir_tlog_totals *totals,
                              mir_tlog_part *part)
{
    if (totals->window_count == 0) return MIR_OK;
    const mir_tlog_query_spec *spec = maker->scan.spec;
    const uint32_t others = spec->functions & ~(uint32_t)MIR_TLOG_PERCENTILE;
    const uint32_t percentiles = spec->functions == others ? 0 : spec->percentile_count;
    outputs all = {
        .maker = maker,
        .totals = totals,
        .single = (uint32_t)__builtin_popcount(others) + percentiles == 1,
    };
    uint32_t *members = malloc((totals->set.count + 1) * sizeof *members);
    mir_status status = members == NULL ? MIR_E_NO_MEMORY : outputs_make(&all, members);
    if (status == MIR_OK && all.count > 0) status = part_cells(&all, part);
    if (status == MIR_OK && all.count > 0) part_drop_empty(part);
    free(members);
    free(all.list);
    free(all.numbers);
    return status;
}

mir_status mir_tlog_part_device(mir_tlog_part_maker *maker, mir_view device, int64_t first_ns,
                                int64_t last_ns, mir_tlog_part *part)
{
    const mir_tlog_query_spec *spec = maker->scan.spec;
    part->maker = maker;
    if (spec->functions == 0) {
        const uint64_t limit = spec->points != 0 ? 0 : spec->limit;
        mir_status status = mir_tlog_rollup_missed(&maker->scan, device, first_ns, last_ns);
        if (status != MIR_OK) return status;
        status = mir_tlog_scan_rows(&maker->scan, device, first_ns, last_ns, limit, spec->backward);
        if (status != MIR_OK || maker->scan.gather.row_count == 0) return status;
        status = spec->points != 0 ? part_points(maker, part) : part_rows(maker, part);
        return mir_tlog_scan_failed(&maker->scan, status);
    }
    mir_tlog_totals *totals = &maker->totals;
    mir_status status = mir_tlog_scan_totals(&maker->scan, device, first_ns, last_ns, totals);
    if (status == MIR_OK) {
        status = mir_tlog_scan_failed(&maker->scan, part_totals(maker, totals, part));
    }
    /* The texts go with the part. */
    part->arena = totals->texts;
    totals->texts = (mir_arena){0};
    mir_tlog_totals_reset(totals);
    return status;
}

static mir_status texts_keep(mir_tlog_part_maker *maker, mir_tlog_totals *totals)
{
    if (totals->texts.blocks == NULL) return MIR_OK;
    if (maker->text_count == maker->text_capacity) {
        const uint32_t capacity = maker->text_capacity * 2 + 16;
        mir_arena *more = realloc(maker->texts, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        maker->texts = more;
        maker->text_capacity = capacity;
    }
    maker->texts[maker->text_count++] = totals->texts;
    totals->texts = (mir_arena){0};
    return MIR_OK;
}

mir_status mir_tlog_part_group(mir_tlog_part_maker *maker, mir_view device, uint32_t place,
                               int64_t first_ns, int64_t last_ns, uint32_t group)
{
    mir_tlog_totals *totals = &maker->totals;
    totals->device = place;
    mir_status status = mir_tlog_scan_totals(&maker->scan, device, first_ns, last_ns, totals);
    if (status == MIR_OK) {
        if (maker->groups[group].bytes == NULL) maker->groups[group] = totals_new(maker);
        status = mir_tlog_totals_add(&maker->groups[group], totals);
        if (status == MIR_OK) status = texts_keep(maker, totals);
        status = mir_tlog_scan_failed(&maker->scan, status);
    }
    mir_tlog_totals_reset(totals);
    return status;
}

mir_status mir_tlog_part_groups(mir_tlog_part_maker *makers, uint32_t maker_count,
                                uint32_t group_count, mir_tlog_part *parts)
{
    mir_status status = MIR_OK;
    for (uint32_t g = 0; g < group_count && status == MIR_OK; g++) {
        mir_tlog_totals *first = &makers[0].groups[g];
        if (first->bytes == NULL) *first = totals_new(&makers[0]);
        for (uint32_t m = 1; m < maker_count && status == MIR_OK; m++) {
            if (makers[m].groups[g].bytes == NULL) continue;
            status = mir_tlog_totals_add(first, &makers[m].groups[g]);
        }
        parts[g].number = g;
        if (status == MIR_OK) status = part_totals(&makers[0], first, &parts[g]);
    }
    return mir_tlog_scan_failed(&makers[0].scan, status);
}
