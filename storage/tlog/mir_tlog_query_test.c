/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog.h"
#include "mir_tlog_columns.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_oracle.h"

/* What rows come to, pages of them and points: compared with what the simplest program makes of a
 * list of all fields, wherever the rows happen to be. */

enum { DEVICES = 6, GROUPS = 3, FUNCTION_COUNT = 8 };

static const mir_column columns_a[] = {
    {"b", 1, MIR_COLUMN_BOOL},   {"f", 1, MIR_COLUMN_F64}, {"i", 1, MIR_COLUMN_I64},
    {"s", 1, MIR_COLUMN_STRING}, {"u", 1, MIR_COLUMN_U64},
};
/* After a change of the schema: one type is another, one field is new. */
static const mir_column columns_b[] = {
    {"i", 1, MIR_COLUMN_F64}, {"n", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};

static const mir_view device_ids[DEVICES] = {MIR_VIEW_LITERAL("c"),     MIR_VIEW_LITERAL("a"),
                                             MIR_VIEW_LITERAL("b"),     MIR_VIEW_LITERAL("zz"),
                                             MIR_VIEW_LITERAL("dev-3"), MIR_VIEW_LITERAL("dev-31")};
/* Places of the devices in the order of their ids. */
static const uint32_t device_rank[DEVICES] = {2, 0, 1, 5, 3, 4};
static const uint32_t device_groups[DEVICES] = {0, 1, 0, 2, 1, 0};

static const int64_t start_ns = INT64_C(1790000000) * 1000000000;

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

typedef struct fixture {
    sim_disk *disk;
    mir_tlog *tlog;
    mir_row row;
    uint64_t random;
    uint64_t rows;
    oracle stored;
} fixture;

static void fixture_open(fixture *x)
{
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = &x->disk->files,
                                      .writer_count = 1,
                                      .log_bytes_max = 8 << 20,
                                      .sync_ms = 1};
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &x->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
}

static void fixture_init(fixture *x, uint64_t seed)
{
    *x = (fixture){.disk = sim_disk_new(seed), .random = seed};
    assert_int_equal(mir_row_init(&x->row, 16, 16, 1024), MIR_OK);
    fixture_open(x);
}

static void fixture_fini(fixture *x)
{
    mir_tlog_close(x->tlog);
    mir_row_fini(&x->row);
    oracle_free(&x->stored);
    sim_disk_free(x->disk);
}

static void random_cell(uint64_t *random, mir_column_type type, mir_cell *cell)
{
    static const char words[] = "onetwothreefour";
    static const double doubles[] = {NAN, -0.0, 0.0, 12.5, INFINITY, -INFINITY};
    const uint64_t r = sim_random(random);
    switch (type) {
    case MIR_COLUMN_I64:
        cell->i64 = r % 64 == 0   ? INT64_MAX
                    : r % 64 == 1 ? INT64_MIN
                                  : (int64_t)(r / 64 % 1000) - 500;
        break;
    case MIR_COLUMN_U64: cell->u64 = r % 64 == 0 ? UINT64_MAX : r / 64 % 100000; break;
    case MIR_COLUMN_F64:
        cell->f64 = r % 16 == 0 ? doubles[r / 16 % 6] : (double)(r / 64 % 100000) / 100;
        break;
    case MIR_COLUMN_BOOL: cell->boolean = r & 1; break;
    case MIR_COLUMN_STRING: cell->string = mir_view_of(words + r / 16 % 10, r % 5); break;
    }
}

/* Mostly in order; some late, some with a time that was there before. */
static void feed(fixture *x, uint32_t rows, bool in_order)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_row *row = &x->row;
    for (uint32_t n = 0; n < rows; n++) {
        const uint64_t r = sim_random(&x->random);
        const uint32_t device = (uint32_t)(r % DEVICES);
        const bool other = r / 8 % 64 == 0;
        const mir_column *columns = other ? columns_b : columns_a;
        const uint64_t late = in_order || r / 512 % 16 != 0 ? 0 : r / 8192 % (x->rows + 1);
        row->time_ns =
            start_ns + (int64_t)(x->rows - late) * 1000000000 + (int64_t)(r / 512 % 3) * 1000;
        row->column_count = other ? 3 : 5;
        row->present[0] = r / 65536 % 4 == 0 ? 1 + r / 262144 % (other ? 7 : 31) : 31;
        if (other) row->present[0] &= 7;
        for (uint32_t i = 0; i < row->column_count; i++) {
            random_cell(&x->random, columns[i].type, &row->cells[i]);
        }
        row->dynamic_count = 0;
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(writer, device_ids[device], mir_view_cstr("m.v1.T"),
                                              columns, row->column_count, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
        oracle_add_row(&x->stored, device, columns, row);
        x->rows++;
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
}

static void seal(fixture *x)
{
    mir_error error = {{0}};
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    while (mir_tlog_freeze(mir_tlog_writer_of(x->tlog, 0)) != MIR_OK) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(200);
    }
    if (mir_tlog_settle(x->tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
}

/* ---- The simplest program ---- */

static double number_of(const oracle_field *field)
{
    double value;
    if (field->type == MIR_COLUMN_I64) return (double)(int64_t)field->bits;
    if (field->type != MIR_COLUMN_F64) return (double)field->bits;
    memcpy(&value, &field->bits, sizeof value);
    return value;
}

static bool is_number(const oracle_field *field)
{
    return field->type != MIR_COLUMN_BOOL && field->type != MIR_COLUMN_STRING;
}

static int64_t window_of(const mir_tlog_query_spec *spec, int64_t time_ns)
{
    if (spec->window_ns == 0) return 0;
    const int64_t window_ns = (int64_t)spec->window_ns;
    const int64_t since_ns = time_ns - spec->window_from_ns;
    return since_ns / window_ns - (since_ns % window_ns < 0 ? 1 : 0);
}

static uint32_t place_of(const mir_tlog_query_spec *spec, uint32_t device)
{
    return spec->groups == NULL ? device : spec->groups[device];
}

static void want(oracle *to, uint32_t place, int64_t time_ns, const char *function,
                 const char *name, bool single, mir_column_type type, uint64_t bits)
{
    char text[32];
    (void)snprintf(text, sizeof text, single ? "%s%s" : "%s(%s)", single ? "" : function, name);
    mir_cell cell;
    memcpy(&cell, &bits, sizeof bits);
    if (type == MIR_COLUMN_BOOL) cell.boolean = bits != 0;
    const bool string = type == MIR_COLUMN_STRING;
    oracle_add(to, place, time_ns, mir_view_cstr(text), string ? MIR_COLUMN_U64 : type, &cell);
    to->fields[to->count - 1].type = type;
    to->fields[to->count - 1].bits = bits;
}

static uint64_t bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static int double_compare(const void *a, const void *b)
{
    const double left = *(const double *)a;
    const double right = *(const double *)b;
    if (left != left || right != right) return (left != left) - (right != right);
    return left < right ? -1 : left > right;
}

/* The increases of one device's column up to its values of one window, per second. */
static bool rate_of(const oracle *all, const mir_tlog_query_spec *spec, uint32_t device,
                    const char *name, mir_column_type type, int64_t window, double *rate)
{
    const oracle_field *before = NULL;
    double increase = 0;
    int64_t from_ns = 0;
    int64_t last_ns = 0;
    bool any = false;
    for (size_t i = 0; i < all->count; i++) {
        const oracle_field *field = &all->fields[i];
        if (field->device != device || field->type != type || strcmp(field->name, name) != 0) {
            continue;
        }
        if (field->time_ns < spec->from_ns || field->time_ns >= spec->to_ns) continue;
        if (window_of(spec, field->time_ns) == window && before != NULL) {
            if (!any) from_ns = before->time_ns;
            any = true;
            const double step = number_of(field) - number_of(before);
            const double anew = number_of(field) > 0 ? number_of(field) : 0;
            increase += number_of(field) >= number_of(before) ? step : anew;
            last_ns = field->time_ns;
        }
        before = field;
    }
    *rate = any ? increase / ((double)(last_ns - from_ns) / 1e9) : 0;
    return any;
}

typedef struct bucket {
    const oracle_field **fields;
    uint32_t count;
    mir_column_type type; /* of numbers, when there is one */
    uint32_t types;       /* of numbers */
} bucket;

static bool has_type(const bucket *b, mir_column_type type)
{
    for (uint32_t i = 0; i < b->count; i++) {
        if (b->fields[i]->type == type) return true;
    }
    return false;
}

/* In the order of time and of devices' numbers, where that of their ids is meant. */
static bool comes_first(const oracle_field *field, const oracle_field *before)
{
    return before == NULL || (field->time_ns == before->time_ns &&
                              device_rank[field->device] < device_rank[before->device]);
}

static bool comes_last(const oracle_field *field, const oracle_field *before)
{
    return before == NULL || field->time_ns > before->time_ns ||
           device_rank[field->device] >= device_rank[before->device];
}

static void want_numbers(const mir_tlog_query_spec *spec, const oracle *all, const bucket *b,
                         uint32_t place, int64_t window, int64_t time_ns, const char *name,
                         bool single, mir_column_type type, bool sums_fit, oracle *to)
{
    double sum = 0;
    __int128 signed_sum = 0;
    __int128 unsigned_sum = 0;
    __int128 whole = 0;
    uint32_t numbers = 0;
    const oracle_field *chosen[4] = {NULL}; /* min, max, first, last */
    double *sorted = malloc((b->count + 1) * sizeof *sorted);
    for (uint32_t i = 0; i < b->count; i++) {
        const oracle_field *field = b->fields[i];
        if (!is_number(field)) continue;
        const double value = number_of(field);
        sorted[numbers++] = value;
        if (field->type == MIR_COLUMN_F64) sum += value;
        if (field->type == MIR_COLUMN_I64) signed_sum += (int64_t)field->bits;
        if (field->type == MIR_COLUMN_U64) unsigned_sum += field->bits;
        whole +=
            field->type == MIR_COLUMN_I64 ? (__int128)(int64_t)field->bits : (__int128)field->bits;
        const bool whole_type = type == MIR_COLUMN_I64;
        if (value == value) {
            const oracle_field *low = chosen[0];
            const oracle_field *high = chosen[1];
            const bool below =
                low == NULL || (type == MIR_COLUMN_F64 ? value < number_of(low)
                                : whole_type           ? (int64_t)field->bits < (int64_t)low->bits
                                                       : field->bits < low->bits);
            const bool above =
                high == NULL || (type == MIR_COLUMN_F64 ? value > number_of(high)
                                 : whole_type           ? (int64_t)field->bits > (int64_t)high->bits
                                                        : field->bits > high->bits);
            if (below) chosen[0] = field;
            if (above) chosen[1] = field;
        }
        if (comes_first(field, chosen[2])) chosen[2] = field;
        if (comes_last(field, chosen[3])) chosen[3] = field;
    }
    sum += (double)signed_sum + (double)unsigned_sum;
    if (numbers > 0) {
        if (spec->functions & MIR_TLOG_MEAN) {
            want(to, place, time_ns, "mean", name, single, MIR_COLUMN_F64, bits_of(sum / numbers));
        }
        if (spec->functions & MIR_TLOG_SUM) {
            const bool exact = type != MIR_COLUMN_F64 && sums_fit;
            want(to, place, time_ns, "sum", name, single, exact ? type : MIR_COLUMN_F64,
                 exact ? (uint64_t)whole : bits_of(sum));
        }
        static const mir_tlog_function choices[] = {MIR_TLOG_MIN, MIR_TLOG_MAX, MIR_TLOG_FIRST,
                                                    MIR_TLOG_LAST};
        static const char *const choice_names[] = {"min", "max", "first", "last"};
        for (int c = 0; c < 4; c++) {
            if ((spec->functions & choices[c]) == 0 || chosen[c] == NULL) continue;
            want(to, place, time_ns, choice_names[c], name, single, type,
                 type == MIR_COLUMN_F64 ? bits_of(number_of(chosen[c])) : chosen[c]->bits);
        }
        if (spec->functions & MIR_TLOG_PERCENTILE) {
            qsort(sorted, numbers, sizeof *sorted, double_compare);
            for (uint32_t p = 0; p < spec->percentile_count; p++) {
                char text[16];
                (void)snprintf(text, sizeof text, "p%g", spec->percentiles[p]);
                /* Of percentiles with one decimal. */
                uint32_t rank = 1;
                while (rank * 1000 < lround(spec->percentiles[p] * 10) * numbers) rank++;
                const double value = sorted[rank - 1];
                uint64_t bits = bits_of(value);
                for (uint32_t i = 0; type != MIR_COLUMN_F64 && i < b->count; i++) {
                    if (is_number(b->fields[i]) && number_of(b->fields[i]) == value) {
                        bits = b->fields[i]->bits;
                    }
                }
                want(to, place, time_ns, text, name, single, type, bits);
            }
        }
    }
    if (spec->functions & MIR_TLOG_RATE) {
        double rate = 0;
        bool any = false;
        for (uint32_t d = 0; d < DEVICES; d++) {
            if (place_of(spec, d) != place) continue;
            static const mir_column_type types[] = {MIR_COLUMN_I64, MIR_COLUMN_U64, MIR_COLUMN_F64};
            for (int t = 0; t < 3; t++) {
                double one;
                if (!rate_of(all, spec, d, name, types[t], window, &one)) continue;
                rate += one;
                any = true;
            }
        }
        if (any) want(to, place, time_ns, "rate", name, single, MIR_COLUMN_F64, bits_of(rate));
    }
    free(sorted);
}

/* Sums of one name have one type in all of an answer. */
static void sums_unite(const mir_tlog_query_spec *spec, oracle *to)
{
    enum { NAMES = 16 };
    const char *seen[NAMES];
    uint32_t types[NAMES] = {0};
    uint32_t count = 0;
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < to->count; i++) {
            oracle_field *field = &to->fields[i];
            if (spec->functions != MIR_TLOG_SUM && strncmp(field->name, "sum(", 4) != 0) continue;
            uint32_t n = 0;
            while (n < count && strcmp(seen[n], field->name) != 0) n++;
            assert_true(n < NAMES);
            if (n == count) seen[count++] = field->name;
            types[n] |= 1u << field->type;
            if (pass == 0 || __builtin_popcount(types[n]) == 1) continue;
            field->bits = bits_of(number_of(field));
            field->type = MIR_COLUMN_F64;
        }
    }
}

static void expect(const mir_tlog_query_spec *spec, const oracle *all, oracle *to)
{
    static const char *const names[] = {"b", "f", "i", "n", "s", "u", "x"};
    const bool single =
        __builtin_popcount(spec->functions & ~(unsigned)MIR_TLOG_PERCENTILE) +
            (spec->functions & MIR_TLOG_PERCENTILE ? (int)spec->percentile_count : 0) ==
        1;
    const bool any_type =
        (spec->functions & (MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST)) != 0;
    const oracle_field **fields = malloc((all->count + 1) * sizeof *fields);
    int64_t first_window = INT64_MAX;
    int64_t last_window = INT64_MIN;
    for (size_t i = 0; i < all->count; i++) {
        const int64_t window = window_of(spec, all->fields[i].time_ns);
        if (window < first_window) first_window = window;
        if (window > last_window) last_window = window;
    }
    for (uint32_t place = 0; place < DEVICES; place++) {
        for (size_t n = 0; n < sizeof names / sizeof names[0]; n++) {
            if (spec->field_count > 0 && !mir_view_eq(spec->fields[0], mir_view_cstr(names[n]))) {
                continue;
            }
            /* What the type of sums is follows from all windows; that of the others, too. */
            uint32_t types = 0;
            mir_column_type type = MIR_COLUMN_F64;
            for (size_t i = 0; i < all->count; i++) {
                const oracle_field *field = &all->fields[i];
                if (place_of(spec, field->device) != place || !is_number(field) ||
                    strcmp(field->name, names[n]) != 0 || field->time_ns < spec->from_ns ||
                    field->time_ns >= spec->to_ns || (types & 1u << field->type) != 0) {
                    continue;
                }
                types |= 1u << field->type;
                type = field->type;
            }
            if (__builtin_popcount(types) > 1) type = MIR_COLUMN_F64;
            bool sums_fit = true;
            for (int pass = 0; pass < 2; pass++) {
                for (int64_t window = first_window; window <= last_window; window++) {
                    bucket b = {.fields = fields};
                    __int128 whole = 0;
                    int64_t newest = INT64_MIN;
                    for (size_t i = 0; i < all->count; i++) {
                        const oracle_field *field = &all->fields[i];
                        if (place_of(spec, field->device) != place ||
                            field->time_ns < spec->from_ns || field->time_ns >= spec->to_ns ||
                            window_of(spec, field->time_ns) != window) {
                            continue;
                        }
                        if (spec->field_count > 0 &&
                            !mir_view_eq(spec->fields[0], mir_view_cstr(field->name))) {
                            continue;
                        }
                        if ((any_type || is_number(field)) && field->time_ns > newest) {
                            newest = field->time_ns;
                        }
                        if (strcmp(field->name, names[n]) != 0) continue;
                        fields[b.count++] = field;
                        if (field->type == MIR_COLUMN_I64) whole += (int64_t)field->bits;
                        if (field->type == MIR_COLUMN_U64) whole += field->bits;
                    }
                    if (b.count == 0) continue;
                    if (pass == 0) {
                        if (type == MIR_COLUMN_I64) {
                            sums_fit = sums_fit && whole >= INT64_MIN && whole <= INT64_MAX;
                        } else {
                            sums_fit = sums_fit && whole <= UINT64_MAX;
                        }
                        continue;
                    }
                    int64_t time_ns = newest;
                    if (spec->window_ns != 0) {
                        const __int128 end = ((__int128)window + 1) * (__int128)spec->window_ns +
                                             spec->window_from_ns;
                        time_ns = end < spec->to_ns ? (int64_t)end : spec->to_ns;
                    }
                    if (spec->functions & MIR_TLOG_COUNT) {
                        want(to, place, time_ns, "count", names[n], single, MIR_COLUMN_I64,
                             b.count);
                    }
                    want_numbers(spec, all, &b, place, window, time_ns, names[n], single, type,
                                 sums_fit, to);
                    static const mir_column_type others[] = {MIR_COLUMN_BOOL, MIR_COLUMN_STRING};
                    for (int o = 0; o < 2; o++) {
                        if (!has_type(&b, others[o])) continue;
                        const oracle_field *first = NULL;
                        const oracle_field *last = NULL;
                        for (uint32_t i = 0; i < b.count; i++) {
                            if (b.fields[i]->type != others[o]) continue;
                            if (comes_first(b.fields[i], first)) first = b.fields[i];
                            if (comes_last(b.fields[i], last)) last = b.fields[i];
                        }
                        if (spec->functions & MIR_TLOG_FIRST) {
                            want(to, place, time_ns, "first", names[n], single, others[o],
                                 first->bits);
                        }
                        if (spec->functions & MIR_TLOG_LAST) {
                            want(to, place, time_ns, "last", names[n], single, others[o],
                                 last->bits);
                        }
                    }
                }
            }
        }
    }
    free(fields);
    if ((spec->functions & MIR_TLOG_SUM) != 0) sums_unite(spec, to);
    if (to->count > 1) qsort(to->fields, to->count, sizeof *to->fields, oracle_compare);
}

static bool near(const oracle_field *a, const oracle_field *b)
{
    if (a->bits == b->bits) return true;
    if (a->type != MIR_COLUMN_F64) return false;
    const double left = number_of(a);
    const double right = number_of(b);
    if (left != left) return right != right;
    return fabs(left - right) <= 1e-9 * (fabs(left) + fabs(right)) + 1e-12;
}

static void check(fixture *x, const mir_tlog_query_spec *spec, const oracle *expected,
                  const char *where)
{
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    mir_error error = {{0}};
    mir_tlog_query_info info;
    if (mir_tlog_query(x->tlog, spec, &to, &info, &error) != MIR_OK) {
        fail_msg("%s: %s", where, error.text);
    }
    assert_int_equal(info.chunks_corrupt, 0);
    /* In the order of devices' numbers instead of their ids. */
    if (sink.answer.count > 1) {
        qsort(sink.answer.fields, sink.answer.count, sizeof *sink.answer.fields, oracle_compare);
    }
    for (size_t i = 0; i < sink.answer.count && i < expected->count; i++) {
        const oracle_field *a = &sink.answer.fields[i];
        const oracle_field *b = &expected->fields[i];
        if (oracle_compare_key(a, b) == 0 && near(a, b)) continue;
        fail_msg("%s: functions %x, %u renames, window %llu: field %zu: %u %lld %s.%d %llx, want "
                 "%u %lld %s.%d %llx",
                 where, spec->functions, spec->rename_count, (unsigned long long)spec->window_ns, i,
                 a->device, (long long)(a->time_ns - start_ns), a->name, a->type,
                 (unsigned long long)a->bits, b->device, (long long)(b->time_ns - start_ns),
                 b->name, b->type, (unsigned long long)b->bits);
    }
    if (sink.answer.count != expected->count) {
        fail_msg("%s: %zu fields, want %zu", where, sink.answer.count, expected->count);
    }
    oracle_free(&sink.answer);
}

/* Rows as they are, of the same range and fields. */
static void check_rows(fixture *x, const mir_tlog_query_spec *of, const oracle *all)
{
    mir_tlog_query_spec spec = *of;
    spec.functions = 0;
    spec.window_ns = 0;
    spec.groups = NULL;
    oracle expected = {.fields = malloc((all->count + 1) * sizeof *expected.fields)};
    for (size_t i = 0; i < all->count; i++) {
        const oracle_field *field = &all->fields[i];
        if (field->time_ns < spec.from_ns || field->time_ns >= spec.to_ns) continue;
        if (spec.field_count > 0 && !mir_view_eq_cstr(spec.fields[0], field->name)) continue;
        expected.fields[expected.count++] = *field;
    }
    check(x, &spec, &expected, "rows");
    oracle_free(&expected);
}

/* Fields that had other names are those of today. */
static void fields_rename(oracle *all, const mir_tlog_query_spec *spec)
{
    for (size_t i = 0; i < all->count; i++) {
        for (uint32_t n = 0; n < spec->rename_count; n++) {
            const mir_view to = spec->renames[n].answered;
            if (!mir_view_eq_cstr(spec->renames[n].stored, all->fields[i].name)) continue;
            memset(all->fields[i].name, 0, sizeof all->fields[i].name);
            memcpy(all->fields[i].name, to.data, to.size);
            break;
        }
    }
}

static void totals_are_those_of_the_rows(void **state)
{
    (void)state;
    static const uint64_t windows[] = {0, 7000000000, 60000000000, 3600000000000};
    /* To a name that was not there, and to those of other types: of two of one type in one row it is
     * not said which counts. */
    static const mir_tlog_rename renames[] = {{MIR_VIEW_LITERAL("u"), MIR_VIEW_LITERAL("i")},
                                              {MIR_VIEW_LITERAL("f"), MIR_VIEW_LITERAL("x")},
                                              {MIR_VIEW_LITERAL("s"), MIR_VIEW_LITERAL("n")},
                                              {MIR_VIEW_LITERAL("b"), MIR_VIEW_LITERAL("i")}};
    const char *more = getenv("MIR_TEST_SEEDS");
    const uint64_t seeds = more == NULL ? 4 : strtoull(more, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        fixture x;
        fixture_init(&x, seed);
        for (int round = 0; round < 12; round++) {
            feed(&x, 40, seed % 2 == 0);
            switch (sim_random(&x.random) % 3) {
            case 0: seal(&x); break;
            case 1:
                mir_tlog_close(x.tlog);
                fixture_open(&x);
                break;
            default: break;
            }
            for (int i = 0; i < 12; i++) {
                const uint64_t r = sim_random(&x.random);
                const mir_view field = mir_view_cstr(r / 16 % 2 == 0 ? "i" : "s");
                mir_tlog_query_spec spec = {
                    .device_ids = device_ids,
                    .device_count = DEVICES,
                    .measurement = mir_view_cstr("m.v1.T"),
                    .from_ns =
                        r % 4 == 0 ? start_ns + (int64_t)(r / 64 % 200) * 1000000000 : INT64_MIN,
                    .to_ns = r % 8 == 0 ? start_ns + (int64_t)(200 + r / 4096 % 200) * 1000000000
                                        : INT64_MAX,
                    .window_ns = windows[r / 8 % 4],
                    .window_from_ns =
                        r / 524288 % 3 == 0 ? (int64_t)(r / 2097152 % 9) * 1700000000 : 0,
                    .functions = 1u << (r / 32 % FUNCTION_COUNT),
                    .percentiles = {50, 99.9, 0},
                    .percentile_count = 3,
                    .fields = &field,
                    .field_count = r / 256 % 8 == 0,
                    .renames = renames,
                    .rename_count = (uint32_t)(sim_random(&x.random) % 6),
                };
                if (spec.rename_count > 4) spec.rename_count = 0;
                if (r / 1024 % 3 == 0) spec.functions = MIR_TLOG_FUNCTIONS;
                if (r / 1024 % 3 == 1) spec.functions = (uint32_t)(1 + r / 65536 % 511);
                if (r / 131072 % 2 == 0) {
                    spec.groups = device_groups;
                    spec.group_count = GROUPS;
                }
                oracle all = {.count = x.stored.count, .capacity = x.stored.count + 1};
                all.fields = malloc(all.capacity * sizeof *all.fields);
                memcpy(all.fields, x.stored.fields, all.count * sizeof *all.fields);
                fields_rename(&all, &spec);
                oracle_fold(&all);
                check_rows(&x, &spec, &all);
                oracle expected = {0};
                expect(&spec, &all, &expected);
                char where[32];
                (void)snprintf(where, sizeof where, "seed %llu round %d", (unsigned long long)seed,
                               round);
                check(&x, &spec, &expected, where);
                oracle_free(&expected);
                oracle_free(&all);
            }
        }
        fixture_fini(&x);
    }
}

static mir_status page_columns(void *context, const mir_column *columns, uint32_t count)
{
    (void)context;
    (void)columns;
    (void)count;
    return MIR_OK;
}

/* ---- The ends of time ---- */

typedef struct span {
    __int128 number; /* of the window */
    int64_t time_ns;
    uint64_t count;
    __int128 sum;
    int64_t first_ns, last_ns;
    int64_t first, last;
} span;

typedef struct spans {
    span list[1024];
    uint32_t count;
} spans;

static int span_compare(const void *a, const void *b)
{
    const span *left = a;
    const span *right = b;
    return left->number < right->number ? -1 : left->number > right->number;
}

static __int128 floor_of(__int128 number, __int128 step)
{
    return number / step - (number % step < 0 ? 1 : 0);
}

static void spans_of(const int64_t (*rows)[2], uint32_t count, const mir_tlog_query_spec *spec,
                     spans *to)
{
    to->count = 0;
    for (uint32_t i = 0; i < count; i++) {
        const int64_t at_ns = rows[i][0];
        if (at_ns < spec->from_ns || at_ns >= spec->to_ns) continue;
        const __int128 length = (__int128)spec->window_ns;
        const __int128 number = floor_of((__int128)at_ns - spec->window_from_ns, length);
        const __int128 end = (number + 1) * length + spec->window_from_ns;
        uint32_t n = 0;
        while (n < to->count && to->list[n].number != number) n++;
        span *of = &to->list[n];
        if (n == to->count) {
            to->count++;
            *of = (span){.number = number,
                         .time_ns = end < spec->to_ns ? (int64_t)end : spec->to_ns,
                         .first_ns = at_ns,
                         .last_ns = at_ns,
                         .first = rows[i][1],
                         .last = rows[i][1]};
        }
        of->count++;
        of->sum += rows[i][1];
        if (at_ns < of->first_ns) of->first = rows[i][1];
        if (at_ns < of->first_ns) of->first_ns = at_ns;
        if (at_ns > of->last_ns) of->last = rows[i][1];
        if (at_ns > of->last_ns) of->last_ns = at_ns;
    }
    if (to->count > 1) qsort(to->list, to->count, sizeof *to->list, span_compare);
}

static mir_status spans_rows(void *context, const mir_tlog_batch *batch)
{
    spans *to = context;
    assert_int_equal(batch->column_count, 4); /* count, first, last, sum */
    for (uint32_t i = 0; i < batch->row_count; i++) {
        const mir_cell *cells = &batch->cells[(size_t)i * 4];
        assert_true(to->count < 1024);
        to->list[to->count++] = (span){.time_ns = batch->times_ns[i],
                                       .count = (uint64_t)cells[0].i64,
                                       .first = cells[1].i64,
                                       .last = cells[2].i64,
                                       .sum = cells[3].i64};
    }
    return MIR_OK;
}

static int64_t edge_time(uint64_t *random)
{
    static const int64_t edges[] = {INT64_MIN, INT64_MIN + 4000,    -1000,
                                    0,         1790000000000000000, INT64_MAX - 4000};
    const uint64_t r = sim_random(random);
    return edges[r % 6] + (int64_t)(r / 8 % 4001);
}

/* Windows of any length that begin anywhere, and ranges to where time ends. */
static void windows_reach_to_the_ends_of_time(void **state)
{
    (void)state;
    enum { ROWS = 600 };
    static const mir_column whole[] = {{"i", 1, MIR_COLUMN_I64}};
    static const uint64_t lengths[] = {1,         2, 3, 1000, INT64_MAX, (uint64_t)INT64_MAX + 1,
                                       UINT64_MAX};
    static const int64_t begins[] = {0, 1, -1, 999, INT64_MIN, INT64_MAX};
    static int64_t rows[ROWS][2];
    static spans wanted;
    static spans got;
    fixture x;
    fixture_init(&x, 17);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    mir_tlog_series *series;
    uint32_t count = 0;
    for (int stage = 0; stage < 4; stage++) {
        assert_int_equal(
            mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.W"), whole, 1, &series),
            MIR_OK);
        for (int i = 0; i < ROWS / 4; i++) {
            const int64_t at_ns = edge_time(&x.random);
            uint32_t same = 0;
            while (same < count && rows[same][0] != at_ns) same++;
            if (same == count) count++;
            rows[same][0] = at_ns;
            rows[same][1] = (int64_t)(sim_random(&x.random) % 1000);
            x.row.time_ns = at_ns;
            x.row.column_count = 1;
            x.row.dynamic_count = 0;
            x.row.present[0] = 1;
            x.row.cells[0].i64 = rows[same][1];
            assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        if (stage > 0) seal(&x);
        for (int i = 0; i < 400; i++) {
            const uint64_t r = sim_random(&x.random);
            const int64_t one = r % 3 == 0 ? INT64_MIN : edge_time(&x.random);
            const int64_t other = r / 4 % 3 == 0 ? INT64_MAX : edge_time(&x.random);
            if (one == other) continue;
            mir_tlog_query_spec spec = {
                .device_ids = device_ids,
                .device_count = 1,
                .measurement = mir_view_cstr("m.v1.W"),
                .from_ns = one < other ? one : other,
                .to_ns = one < other ? other : one,
                .window_ns = lengths[r / 16 % 7],
                .window_from_ns = begins[r / 128 % 6],
                .functions = MIR_TLOG_COUNT | MIR_TLOG_SUM | MIR_TLOG_FIRST | MIR_TLOG_LAST,
            };
            const mir_tlog_sink sink = {
                .context = &got, .columns = page_columns, .rows = spans_rows};
            got.count = 0;
            assert_int_equal(mir_tlog_query(x.tlog, &spec, &sink, NULL, NULL), MIR_OK);
            spans_of(rows, count, &spec, &wanted);
            for (uint32_t n = 0; n < got.count && n < wanted.count; n++) {
                const span *a = &got.list[n];
                const span *b = &wanted.list[n];
                if (a->time_ns == b->time_ns && a->count == b->count && a->sum == b->sum &&
                    a->first == b->first && a->last == b->last)
                    continue;
                fail_msg("windows of %llu since %lld, from %lld to %lld: row %u at %lld of %llu, "
                         "want %lld of %llu",
                         (unsigned long long)spec.window_ns, (long long)spec.window_from_ns,
                         (long long)spec.from_ns, (long long)spec.to_ns, n, (long long)a->time_ns,
                         (unsigned long long)a->count, (long long)b->time_ns,
                         (unsigned long long)b->count);
            }
            assert_int_equal(got.count, wanted.count);
        }
    }
    fixture_fini(&x);
}

typedef struct percentiles {
    char names[MIR_TLOG_PERCENTILES_MAX][64];
    double values[MIR_TLOG_PERCENTILES_MAX];
    uint32_t count;
} percentiles;

static mir_status percentiles_columns(void *context, const mir_column *columns, uint32_t count)
{
    percentiles *p = context;
    assert_true(count <= MIR_TLOG_PERCENTILES_MAX);
    p->count = count;
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(p->names[i], sizeof p->names[i], "%.*s", (int)columns[i].name_size,
                       columns[i].name);
    }
    return MIR_OK;
}

static mir_status percentiles_rows(void *context, const mir_tlog_batch *batch)
{
    percentiles *p = context;
    assert_int_equal(batch->row_count, 1);
    for (uint32_t i = 0; i < batch->column_count; i++) p->values[i] = batch->cells[i].f64;
    return MIR_OK;
}

static percentiles ask_percentiles(fixture *x, const double *wanted, uint32_t count)
{
    percentiles p = {0};
    const mir_tlog_sink sink = {
        .context = &p, .columns = percentiles_columns, .rows = percentiles_rows};
    mir_tlog_query_spec spec = {.device_ids = device_ids,
                                .device_count = 1,
                                .measurement = mir_view_cstr("m.v1.W"),
                                .from_ns = INT64_MIN,
                                .to_ns = INT64_MAX,
                                .functions = MIR_TLOG_PERCENTILE,
                                .percentile_count = count};
    memcpy(spec.percentiles, wanted, count * sizeof *wanted);
    assert_int_equal(mir_tlog_query(x->tlog, &spec, &sink, NULL, NULL), MIR_OK);
    return p;
}

/* Of the values 1 to n the rank is the value: 7 % of 100 are 7, and not one more. */
static void percentiles_are_those_of_the_nearest_rank(void **state)
{
    (void)state;
    static const mir_column wave[] = {{"w", 1, MIR_COLUMN_F64}};
    fixture x;
    fixture_init(&x, 15);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    mir_tlog_series *series;
    assert_int_equal(
        mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.W"), wave, 1, &series),
        MIR_OK);
    for (int64_t n = 1; n <= 1000; n++) {
        x.row.time_ns = start_ns + n;
        x.row.column_count = 1;
        x.row.dynamic_count = 0;
        x.row.present[0] = 1;
        x.row.cells[0].f64 = (double)n;
        assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        if (n > 120 && n % 100 != 0) continue;
        for (int64_t tenths = 0; tenths <= 1000; tenths += n == 1000 ? 1 : 10) {
            const double wanted = (double)tenths / 10;
            const int64_t rank = (tenths * n + 999) / 1000;
            const percentiles p = ask_percentiles(&x, &wanted, 1);
            if (p.values[0] == (double)(rank < 1 ? 1 : rank)) continue;
            fail_msg("p%g of %d values is %g", wanted, (int)n, p.values[0]);
        }
    }
    /* However near they are, each has a column of its own. */
    static const double close[] = {99.9999, 99.99991, 99.99992};
    const percentiles p = ask_percentiles(&x, close, 3);
    assert_int_equal(p.count, 3);
    assert_string_equal(p.names[0], "p99.9999(w)");
    assert_string_equal(p.names[1], "p99.99991(w)");
    assert_string_equal(p.names[2], "p99.99992(w)");
    fixture_fini(&x);
}

/* ---- Pages ---- */

typedef struct page {
    int64_t times[4096];
    uint32_t devices[4096];
    uint32_t count;
} page;

static mir_status page_rows(void *context, const mir_tlog_batch *batch)
{
    page *p = context;
    for (uint32_t i = 0; i < batch->row_count; i++) {
        assert_true(p->count < 4096);
        p->times[p->count] = batch->times_ns[i];
        p->devices[p->count++] = batch->devices[i];
    }
    return MIR_OK;
}

/* How many damaged chunks were left out. */
static uint64_t rows_in_order(fixture *x, mir_tlog_query_spec *spec, page *p)
{
    const mir_tlog_sink sink = {.context = p, .columns = page_columns, .rows = page_rows};
    mir_error error = {{0}};
    mir_tlog_query_info info;
    if (mir_tlog_query(x->tlog, spec, &sink, &info, &error) != MIR_OK) fail_msg("%s", error.text);
    return info.chunks_corrupt;
}

/* Page by page, forwards or backwards, each row of the whole answer comes once, in order, and none is
 * missing; each page but the last is full. */
static void assert_pages(fixture *x, uint32_t devices, bool damaged)
{
    static page whole;
    static page pieces;
    mir_tlog_query_spec spec = {.device_ids = device_ids,
                                .device_count = devices,
                                .measurement = mir_view_cstr("m.v1.T"),
                                .from_ns = INT64_MIN,
                                .to_ns = INT64_MAX};
    whole.count = 0;
    assert_int_equal(rows_in_order(x, &spec, &whole) > 0, damaged);
    assert_true(whole.count > 0);
    for (int backward = 0; backward < 2; backward++) {
        for (uint64_t limit = 1; limit < 400; limit = limit * 3 + 1) {
            pieces.count = 0;
            spec.backward = backward == 1;
            spec.limit = limit;
            spec.after = false;
            uint64_t left_out = 0;
            for (uint32_t before = 0;; before = pieces.count) {
                left_out += rows_in_order(x, &spec, &pieces);
                assert_true(pieces.count - before <= limit);
                if (pieces.count - before < limit) break;
                spec.after = true;
                spec.after_ns = pieces.times[pieces.count - 1];
                spec.after_device = device_ids[pieces.devices[pieces.count - 1]];
            }
            assert_int_equal(left_out > 0, damaged);
            assert_int_equal(pieces.count, whole.count);
            for (uint32_t i = 0; i < whole.count; i++) {
                const uint32_t at = backward == 1 ? whole.count - 1 - i : i;
                assert_int_equal(pieces.times[i], whole.times[at]);
                assert_int_equal(pieces.devices[i], whole.devices[at]);
            }
        }
    }
    assert_true(device_rank[whole.devices[0]] < DEVICES);
}

static void pages_give_each_row_once(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 11);
    for (int i = 0; i < 6; i++) {
        feed(&x, 100, i % 2 == 0);
        if (i % 2 == 0) seal(&x);
    }
    assert_pages(&x, DEVICES, false);
    assert_pages(&x, 1, false);
    fixture_fini(&x);
}

/* A page of few rows takes little memory, however many rows there are that are not in order, in memory and
 * in segments. */
static void a_page_takes_the_memory_of_its_rows(void **state)
{
    (void)state;
    enum { ROWS = 120000 };
    static const mir_column whole[] = {{"i", 1, MIR_COLUMN_I64}};
    static page got;
    fixture x;
    fixture_init(&x, 18);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (int64_t i = 0; i < ROWS; i++) {
        mir_tlog_series *series;
        assert_int_equal(
            mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.W"), whole, 1, &series),
            MIR_OK);
        /* Each half of them from the first time to the last one; most are at the end of it. */
        const int64_t at = i % (ROWS / 2) * 2 + i / (ROWS / 2);
        x.row.time_ns = start_ns + at * 1000 - (at < 1000 ? INT64_C(86400000000000) : 0);
        x.row.column_count = 1;
        x.row.dynamic_count = 0;
        x.row.present[0] = 1;
        x.row.cells[0].i64 = at;
        assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
        if (i % 1000 == 0) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        if (i == ROWS / 2) seal(&x);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    for (int backward = 0; backward < 2; backward++) {
        mir_tlog_query_spec spec = {.device_ids = device_ids,
                                    .device_count = 1,
                                    .measurement = mir_view_cstr("m.v1.W"),
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX,
                                    .backward = backward == 1,
                                    .bytes_max = 1 << 20};
        int64_t at = backward == 1 ? ROWS - 1 : 0;
        for (spec.limit = 1; spec.limit <= 1500; spec.limit = spec.limit * 2 + 1) {
            got.count = 0;
            rows_in_order(&x, &spec, &got);
            assert_int_equal(got.count, spec.limit);
            for (uint32_t i = 0; i < got.count; i++) {
                const int64_t day_ns = at < 1000 ? INT64_C(86400000000000) : 0;
                assert_int_equal(got.times[i], start_ns + at * 1000 - day_ns);
                at += backward == 1 ? -1 : 1;
            }
            spec.after = true;
            spec.after_ns = got.times[got.count - 1];
            spec.after_device = device_ids[0];
        }
        /* All of them have no room. */
        spec.limit = 0;
        const mir_tlog_sink sink = {.context = &got, .columns = page_columns, .rows = page_rows};
        assert_int_equal(mir_tlog_query(x.tlog, &spec, &sink, NULL, NULL), MIR_E_TOO_LARGE);
    }
    fixture_fini(&x);
}

/* A chunk has fewer rows than its index says then: what follows it is no less in its page, and what other
 * devices have behind it does not come before. */
static void pages_give_each_row_that_is_left_once(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 8; seed++) {
        fixture x;
        fixture_init(&x, 11 + seed);
        for (int i = 0; i < 6; i++) {
            feed(&x, 100, true);
            seal(&x);
            x.rows += 86400; /* Chunks of two days are not merged. */
        }
        feed(&x, 20, true);
        uint32_t chunks = 0;
        uint32_t files = 0;
        for (uint32_t i = 0; i < x.disk->now.count; i++) {
            const sim_entry *entry = &x.disk->now.entries[i];
            if (strstr(entry->name, ".seg") == NULL) continue;
            uint8_t *at = entry->inode->data;
            const uint8_t *end = at + entry->inode->size;
            files++;
            while ((at = memmem(at, (size_t)(end - at), "MCHK", 4)) != NULL) {
                at += MIR_TLOG_CHUNK_HEADER_BYTES;
                /* Some of every day, or some days as a whole. */
                if ((seed < 4 ? chunks + files : files) % 3 == seed % 3) at[3] ^= 0x20;
                chunks++;
            }
        }
        assert_true(chunks >= 6 * DEVICES);
        assert_pages(&x, DEVICES, true);
        assert_pages(&x, 1, true);
        fixture_fini(&x);
    }
}

/* The first windows of all devices are those that come first without a limit, forwards and backwards,
 * of one column and of several. */
static void limited_windows_are_the_first_ones(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 21);
    feed(&x, 400, true);
    seal(&x);
    feed(&x, 100, false);
    static const mir_view fields[] = {MIR_VIEW_LITERAL("u"), MIR_VIEW_LITERAL("f")};
    static page whole;
    static page some;
    for (uint32_t field_count = 1; field_count <= 2; field_count++) {
        for (int backward = 0; backward < 2; backward++) {
            mir_tlog_query_spec spec = {.device_ids = device_ids,
                                        .device_count = DEVICES,
                                        .measurement = mir_view_cstr("m.v1.T"),
                                        .fields = fields,
                                        .field_count = field_count,
                                        .functions = MIR_TLOG_MEAN,
                                        .window_ns = 60000000000,
                                        .backward = backward == 1,
                                        .from_ns = INT64_MIN,
                                        .to_ns = INT64_MAX};
            whole.count = 0;
            rows_in_order(&x, &spec, &whole);
            assert_true(whole.count >= 30);
            for (uint32_t i = 1; i < whole.count; i++) {
                const int64_t step_ns = whole.times[i] - whole.times[i - 1];
                assert_true(backward == 1 ? step_ns <= 0 : step_ns >= 0);
                const uint32_t before = device_rank[whole.devices[i - 1]];
                const uint32_t here = device_rank[whole.devices[i]];
                assert_true(step_ns != 0 || (backward == 1 ? before > here : before < here));
            }
            for (spec.limit = 1; spec.limit <= whole.count; spec.limit++) {
                some.count = 0;
                rows_in_order(&x, &spec, &some);
                assert_int_equal(some.count, spec.limit);
                assert_memory_equal(some.times, whole.times, spec.limit * sizeof *some.times);
                assert_memory_equal(some.devices, whole.devices, spec.limit * sizeof *some.devices);
            }
        }
    }
    fixture_fini(&x);
}

/* ---- Blocks ---- */

typedef struct blocks {
    oracle answer;
    uint32_t last_device;
    int64_t last_ns;
    uint32_t rows;
    uint32_t stop_at;
} blocks;

static mir_status blocks_take(void *context, const mir_tlog_rows *block)
{
    blocks *b = context;
    for (uint32_t row = 0; row < block->row_count; row++) {
        const uint32_t rank = device_rank[block->device];
        assert_true(b->rows == 0 || rank > device_rank[b->last_device] ||
                    (block->device == b->last_device && block->times_ns[row] > b->last_ns));
        for (uint32_t i = 0; i < block->column_count; i++) {
            const mir_tlog_rows_column *column = &block->columns[i];
            if (column->present[row] == 0) continue;
            mir_cell cell;
            memcpy(&cell, &column->values[row], sizeof(uint64_t));
            if (column->column.type == MIR_COLUMN_STRING) {
                cell.string = block->texts[column->values[row]];
            } else if (column->column.type == MIR_COLUMN_BOOL) {
                cell.boolean = column->values[row] != 0;
            }
            oracle_add(&b->answer, block->device, block->times_ns[row],
                       mir_tlog_column_name(&column->column), column->column.type, &cell);
        }
        b->last_device = block->device;
        b->last_ns = block->times_ns[row];
        b->rows++;
        if (b->stop_at != 0 && b->rows % b->stop_at == 0) return MIR_E_EMPTY;
    }
    return MIR_OK;
}

/* Device by device in blocks, at one go or with stops anywhere, the rows are the same. */
static void blocks_have_all_rows_of_each_device(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 14);
    for (int i = 0; i < 6; i++) {
        feed(&x, 100, i % 2 == 0);
        if (i % 2 == 0) seal(&x);
    }
    oracle_fold(&x.stored);
    for (uint32_t stop_at = 0; stop_at < 300; stop_at = stop_at * 3 + 7) {
        blocks b = {.stop_at = stop_at};
        mir_tlog_query_spec spec = {.device_ids = device_ids,
                                    .device_count = DEVICES,
                                    .measurement = mir_view_cstr("m.v1.T"),
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX};
        mir_status status;
        do {
            mir_error error = {{0}};
            status = mir_tlog_read(x.tlog, &spec, blocks_take, &b, NULL, &error);
            if (status != MIR_OK && status != MIR_E_EMPTY) fail_msg("%s", error.text);
            spec.after = true;
            spec.after_ns = b.last_ns;
            spec.after_device = device_ids[b.last_device];
        } while (status == MIR_E_EMPTY);
        oracle_fold(&b.answer);
        assert_int_equal(b.answer.count, x.stored.count);
        for (size_t i = 0; i < b.answer.count; i++) {
            assert_int_equal(oracle_compare_key(&b.answer.fields[i], &x.stored.fields[i]), 0);
            assert_int_equal(b.answer.fields[i].bits, x.stored.fields[i].bits);
        }
        oracle_free(&b.answer);
    }
    fixture_fini(&x);
}

/* ---- Points ---- */

typedef struct course {
    uint32_t rows;
    int64_t first_ns;
    int64_t last_ns;
    double low;
    double high;
} course;

static mir_status course_rows(void *context, const mir_tlog_batch *batch)
{
    course *c = context;
    for (uint32_t i = 0; i < batch->row_count; i++) {
        assert_int_equal(batch->column_count, 1);
        const double value = batch->cells[i].f64;
        if (c->rows++ == 0) c->first_ns = batch->times_ns[i];
        c->last_ns = batch->times_ns[i];
        if (value < c->low) c->low = value;
        if (value > c->high) c->high = value;
    }
    return MIR_OK;
}

static void points_keep_the_ends_and_the_peaks(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 12);
    static const mir_column wave[] = {{"w", 1, MIR_COLUMN_F64}};
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (int64_t i = 0; i < 20000; i++) {
        mir_tlog_series *series;
        assert_int_equal(
            mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.W"), wave, 1, &series),
            MIR_OK);
        x.row.time_ns = start_ns + i * 1000000;
        x.row.column_count = 1;
        x.row.dynamic_count = 0;
        x.row.present[0] = 1;
        x.row.cells[0].f64 = i == 7777 ? 50 : i == 12345 ? -60 : sin((double)i / 300);
        assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    for (int sealed = 0; sealed < 2; sealed++) {
        course c = {0};
        const mir_tlog_sink sink = {.context = &c, .columns = page_columns, .rows = course_rows};
        const mir_tlog_query_spec spec = {.device_ids = device_ids,
                                          .device_count = 1,
                                          .measurement = mir_view_cstr("m.v1.W"),
                                          .from_ns = INT64_MIN,
                                          .to_ns = INT64_MAX,
                                          .points = 300};
        mir_error error = {{0}};
        if (mir_tlog_query(x.tlog, &spec, &sink, NULL, &error) != MIR_OK) {
            fail_msg("%s", error.text);
        }
        assert_int_equal(c.rows, 300);
        assert_int_equal(c.first_ns, start_ns);
        assert_int_equal(c.last_ns, start_ns + INT64_C(19999) * 1000000);
        assert_true(c.high == 50 && c.low == -60);
        if (sealed == 0) seal(&x);
    }
    fixture_fini(&x);
}

/* However many rows and points there are, the last row but one belongs to those that are chosen from. */
static void points_keep_a_peak_right_before_the_end(void **state)
{
    (void)state;
    static const mir_column wave[] = {{"w", 1, MIR_COLUMN_F64}};
    for (int64_t rows = 250; rows < 256; rows++) {
        fixture x;
        fixture_init(&x, 12);
        mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
        for (int64_t i = 0; i < rows; i++) {
            mir_tlog_series *series;
            assert_int_equal(mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.W"),
                                                  wave, 1, &series),
                             MIR_OK);
            x.row.time_ns = start_ns + i * 1000000;
            x.row.column_count = 1;
            x.row.dynamic_count = 0;
            x.row.present[0] = 1;
            x.row.cells[0].f64 = i == rows - 2 ? 50 : 0;
            assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        for (uint32_t points = 4; points < 200; points++) {
            course c = {0};
            const mir_tlog_sink sink = {
                .context = &c, .columns = page_columns, .rows = course_rows};
            const mir_tlog_query_spec spec = {.device_ids = device_ids,
                                              .device_count = 1,
                                              .measurement = mir_view_cstr("m.v1.W"),
                                              .from_ns = INT64_MIN,
                                              .to_ns = INT64_MAX,
                                              .points = points};
            assert_int_equal(mir_tlog_query(x.tlog, &spec, &sink, NULL, NULL), MIR_OK);
            assert_int_equal(c.rows, points);
            if (c.high != 50) fail_msg("%u points of %d rows", points, (int)rows);
        }
        fixture_fini(&x);
    }
}

/* Values that are none, and infinite ones, hide no others. */
static void points_keep_peaks_beside_what_is_not_finite(void **state)
{
    (void)state;
    static const mir_column wave[] = {{"w", 1, MIR_COLUMN_F64}};
    static const double odd[] = {NAN, INFINITY, -INFINITY};
    fixture x;
    fixture_init(&x, 16);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (uint32_t device = 0; device < DEVICES; device++) {
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(writer, device_ids[device], mir_view_cstr("m.v1.W"),
                                              wave, 1, &series),
                         MIR_OK);
        /* A tenth of the values are so, and all of them for a while; the peaks are elsewhere. */
        for (int64_t i = 0; i < 3000; i++) {
            const bool peak = i % 500 == 250;
            const bool is_odd =
                device % 3 != 2 && (sim_random(&x.random) % 10 == 0 || i / 100 == 7);
            x.row.time_ns = start_ns + i * 1000000;
            x.row.column_count = 1;
            x.row.dynamic_count = 0;
            x.row.present[0] = 1;
            x.row.cells[0].f64 = peak ? 50 : is_odd ? odd[device % 3 == 0 ? 0 : i % 3] : 0;
            assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        for (uint32_t points = 20; points < 200; points += 9) {
            oracle_sink sink = {0};
            const mir_tlog_sink to = oracle_sink_of(&sink);
            const mir_tlog_query_spec spec = {.device_ids = &device_ids[device],
                                              .device_count = 1,
                                              .measurement = mir_view_cstr("m.v1.W"),
                                              .from_ns = INT64_MIN,
                                              .to_ns = INT64_MAX,
                                              .points = points};
            assert_int_equal(mir_tlog_query(x.tlog, &spec, &to, NULL, NULL), MIR_OK);
            assert_int_equal(sink.rows, points);
            uint32_t peaks = 0;
            for (size_t i = 0; i < sink.answer.count; i++)
                peaks += number_of(&sink.answer.fields[i]) == 50;
            if (peaks != 6) fail_msg("device %u, %u points: %u peaks", device, points, peaks);
            oracle_free(&sink.answer);
        }
    }
    fixture_fini(&x);
}

/* ---- Refusals ---- */

static void what_makes_no_sense_is_refused_with_words(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 13);
    feed(&x, 50, true);
    const mir_tlog_query_spec good = {.device_ids = device_ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    page p = {.count = 0};
    const mir_tlog_sink sink = {.context = &p, .columns = page_columns, .rows = page_rows};
    for (int i = 0; i < 7; i++) {
        mir_tlog_query_spec spec = good;
        mir_status wanted = MIR_E_INVALID;
        switch (i) {
        case 0: spec.functions = MIR_TLOG_FUNCTIONS + 1; break;
        case 1: spec.functions = MIR_TLOG_PERCENTILE; break;
        case 2:
            spec.functions = MIR_TLOG_PERCENTILE;
            spec.percentile_count = 1;
            spec.percentiles[0] = 101;
            break;
        case 3:
            spec.functions = MIR_TLOG_MEAN;
            spec.points = 10;
            break;
        case 4:
            spec.groups = device_groups;
            spec.group_count = GROUPS;
            break;
        case 5:
            spec.rows_max = 10;
            wanted = MIR_E_TOO_LARGE;
            break;
        default: spec.bytes_max = 1000; wanted = MIR_E_TOO_LARGE;
        }
        mir_error error = {{0}};
        assert_int_equal(mir_tlog_query(x.tlog, &spec, &sink, NULL, &error), wanted);
        assert_true(error.text[0] != '\0');
        assert_int_equal(p.count, 0);
    }
    fixture_fini(&x);
}

/* ---- Memory ---- */

static mir_status ask(fixture *x, const mir_tlog_query_spec *spec, mir_tlog_query_info *info,
                      oracle *answer)
{
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    mir_error error = {{0}};
    const mir_status status = mir_tlog_query(x->tlog, spec, &to, info, &error);
    if (answer != NULL)
        *answer = sink.answer;
    else
        oracle_free(&sink.answer);
    return status;
}

/* What a device's percentiles took is there again for the next device's. */
static void percentiles_of_many_devices_take_the_memory_of_one(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 15);
    feed(&x, 12000, true);
    seal(&x);
    mir_tlog_query_spec spec = {.device_ids = device_ids,
                                .device_count = 1,
                                .measurement = mir_view_cstr("m.v1.T"),
                                .from_ns = INT64_MIN,
                                .to_ns = INT64_MAX,
                                .functions = MIR_TLOG_PERCENTILE,
                                .percentiles = {50},
                                .percentile_count = 1,
                                .bytes_max = 32 << 10};
    mir_tlog_query_info info;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_E_TOO_LARGE);
    spec.bytes_max = 128 << 10;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_OK);
    spec.device_count = DEVICES;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_OK);
    /* The groups keep theirs. */
    spec.groups = device_groups;
    spec.group_count = GROUPS;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_E_TOO_LARGE);
    spec.bytes_max = 512 << 10;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_OK);
    fixture_fini(&x);
}

/* So many rows of one device with one number. */
static void feed_numbers(fixture *x, uint32_t rows)
{
    static const mir_column column[] = {{"f", 1, MIR_COLUMN_F64}};
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_tlog_series *series;
    assert_int_equal(
        mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.T"), column, 1, &series),
        MIR_OK);
    x->row.column_count = 1;
    x->row.present[0] = 1;
    for (uint32_t n = 0; n < rows; n++) {
        x->row.time_ns = start_ns + n;
        x->row.cells[0].f64 = (double)sim_random(&x->random);
        assert_int_equal(mir_tlog_append(writer, series, &x->row), MIR_OK);
        if (n % 256 == 255) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
}

static void assert_needs(fixture *x, mir_tlog_query_spec *spec, uint64_t least, uint64_t most)
{
    mir_tlog_query_info info;
    mir_error error = {{0}};
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    spec->bytes_max = least;
    assert_int_equal(mir_tlog_query(x->tlog, spec, &to, &info, &error), MIR_E_TOO_LARGE);
    assert_non_null(strstr(error.text, "bytes: ask for a shorter time"));
    oracle_free(&sink.answer);
    spec->bytes_max = most;
    assert_int_equal(ask(x, spec, &info, NULL), MIR_OK);
}

/* Rows and what is made of them are there together; so are values and their order. */
static void what_a_query_holds_at_once_is_within_its_bound(void **state)
{
    (void)state;
    enum { ROWS = 8000, ROW_BYTES = 17, PLACE_BYTES = 4, VALUE_BYTES = 8, SORTED_BYTES = 16 };
    fixture x;
    fixture_init(&x, 16);
    feed_numbers(&x, ROWS);
    const mir_tlog_query_spec rows = {.device_ids = device_ids,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    for (int sealed = 0; sealed < 2; sealed++) {
        mir_tlog_query_spec spec = rows;
        assert_needs(&x, &spec, 2 * ROW_BYTES * ROWS - 1, 4 * ROW_BYTES * ROWS);
        spec.points = 16;
        assert_needs(&x, &spec, (ROW_BYTES + PLACE_BYTES) * ROWS - 1, 4 * ROW_BYTES * ROWS);
        spec.points = 0;
        spec.functions = MIR_TLOG_PERCENTILE;
        spec.percentile_count = 1;
        spec.percentiles[0] = 50;
        assert_needs(&x, &spec, (VALUE_BYTES + SORTED_BYTES) * ROWS - 1, 4 * ROW_BYTES * ROWS);
        if (sealed == 0) seal(&x);
    }
    fixture_fini(&x);
}

/* ---- Sums ---- */

typedef struct sums {
    uint32_t column_count;
    mir_column_type type; /* of the last column, which is the sum or the only one */
    double of[8];         /* by device or group */
    uint32_t rows;
} sums;

static mir_status sums_columns(void *context, const mir_column *columns, uint32_t count)
{
    sums *to = context;
    to->column_count = count;
    to->type = columns[count - 1].type;
    return MIR_OK;
}

static mir_status sums_rows(void *context, const mir_tlog_batch *batch)
{
    sums *to = context;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        const mir_cell *cell = &batch->cells[(r + 1) * batch->column_count - 1];
        assert_int_equal(batch->present[(r + 1) * batch->column_count - 1], 1);
        to->rows++;
        to->of[batch->devices[r]] = to->type == MIR_COLUMN_F64   ? cell->f64
                                    : to->type == MIR_COLUMN_I64 ? (double)cell->i64
                                                                 : (double)cell->u64;
    }
    return MIR_OK;
}

/* Device 0 has small values, device 1 one that is large, device 2 one of another type. */
static void a_sum_is_one_column(void **state)
{
    (void)state;
    static const mir_column types[] = {{"u", 1, MIR_COLUMN_U64}, {"u", 1, MIR_COLUMN_I64}};
    static const uint32_t groups[] = {0, 1, 1};
    fixture x;
    fixture_init(&x, 41);
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (uint32_t n = 0; n < 60; n++) {
        const uint32_t device = n % 3;
        mir_tlog_series *series;
        x.row.time_ns = start_ns + n;
        x.row.column_count = 1;
        x.row.dynamic_count = 0;
        x.row.present[0] = 1;
        x.row.cells[0].u64 = device == 1 ? UINT64_C(1) << 62 : n;
        assert_int_equal(mir_tlog_series_open(writer, device_ids[device], mir_view_cstr("m.v1.T"),
                                              &types[device == 2], 1, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, &x.row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    /* 0 + 3 … 57, 20 times 2^62, 2 + 5 … 59 */
    const double all[] = {570, 0x1p62 * 20, 610};
    const mir_tlog_sink sink_of = {.columns = sums_columns, .rows = sums_rows};
    for (uint32_t devices = 1; devices <= 3; devices++) {
        for (int kind = 0; kind < 4; kind++) {
            sums got = {0};
            mir_tlog_sink sink = sink_of;
            sink.context = &got;
            mir_tlog_query_spec spec = {.device_ids = device_ids,
                                        .device_count = devices,
                                        .measurement = mir_view_cstr("m.v1.T"),
                                        .functions = MIR_TLOG_SUM,
                                        .from_ns = INT64_MIN,
                                        .to_ns = INT64_MAX};
            if (kind == 1) spec.functions |= MIR_TLOG_COUNT;
            if (kind == 2) spec.window_ns = UINT64_C(3600000000000);
            if (kind == 3) {
                spec.groups = groups;
                spec.group_count = 2;
            }
            mir_tlog_query_info info;
            mir_error error = {{0}};
            if (mir_tlog_query(x.tlog, &spec, &sink, &info, &error) != MIR_OK)
                fail_msg("%s", error.text);
            assert_int_equal(got.column_count, kind == 1 ? 2 : 1);
            /* Exact as long as all of them fit. */
            assert_int_equal(got.type, devices == 1 ? MIR_COLUMN_U64 : MIR_COLUMN_F64);
            const bool grouped = kind == 3 && devices == 3;
            assert_int_equal(got.rows, grouped ? 2 : devices);
            for (uint32_t i = 0; i < got.rows; i++) {
                const double want = grouped && i == 1 ? all[1] + all[2] : all[i];
                assert_true(got.of[i] == want);
            }
        }
    }
    fixture_fini(&x);
}

/* ---- Threads ---- */

/* However many threads read, the answer is that of one. */
static void many_devices_are_read_by_many_threads(void **state)
{
    (void)state;
    enum { MANY = 300, TURNS = 3 };
    fixture x;
    fixture_init(&x, 18);
    char names[MANY][8];
    mir_view ids[MANY];
    uint32_t groups[MANY];
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "d%03u", i);
        ids[i] = mir_view_cstr(names[i]);
        groups[i] = i % GROUPS;
    }
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (int turn = 0; turn < TURNS; turn++) {
        for (uint32_t n = 0; n < 20 * MANY; n++) {
            mir_row *row = &x.row;
            row->time_ns = start_ns + (int64_t)x.rows++ * 1000000;
            row->column_count = 5;
            row->dynamic_count = 0;
            row->present[0] = 31;
            for (uint32_t i = 0; i < 5; i++) {
                random_cell(&x.random, columns_a[i].type, &row->cells[i]);
            }
            /* Sums of doubles that cancel out depend on their order. */
            row->cells[2].i64 = (int64_t)(sim_random(&x.random) % 1000);
            mir_tlog_series *series;
            assert_int_equal(mir_tlog_series_open(writer, ids[n % MANY], mir_view_cstr("m.v1.T"),
                                                  columns_a, 5, &series),
                             MIR_OK);
            assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        if (turn < TURNS - 1) seal(&x);
    }
    for (int kind = 0; kind < 3; kind++) {
        mir_tlog_query_spec spec = {.device_ids = ids,
                                    .device_count = MANY,
                                    .measurement = mir_view_cstr("m.v1.T"),
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX};
        if (kind > 0) {
            spec.functions = MIR_TLOG_FUNCTIONS;
            spec.percentiles[0] = 90;
            spec.percentile_count = 1;
            spec.window_ns = 3000000000;
        }
        if (kind == 2) {
            spec.groups = groups;
            spec.group_count = GROUPS;
        }
        oracle alone, together;
        mir_tlog_query_info info;
        x.tlog->query_helpers_max = 0;
        assert_int_equal(ask(&x, &spec, &info, &alone), MIR_OK);
        assert_true(alone.count > 0);
        x.tlog->query_helpers_max = 7;
        assert_int_equal(ask(&x, &spec, &info, &together), MIR_OK);
        assert_int_equal(atomic_load(&x.tlog->query_helpers), 0);
        assert_int_equal(together.count, alone.count);
        for (size_t i = 0; i < alone.count; i++) {
            assert_int_equal(oracle_compare_key(&alone.fields[i], &together.fields[i]), 0);
            assert_true(near(&alone.fields[i], &together.fields[i]));
        }
        oracle_free(&alone);
        oracle_free(&together);
    }
    fixture_fini(&x);
}

/* All devices tell at the same times, and as many threads read them as may. */
static void of_equal_times_the_first_and_the_last_device_count(void **state)
{
    (void)state;
    enum { MANY = 320, TIMES = 4 };
    static const mir_column kinds[2][2] = {{{"n", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}},
                                           {{"n", 1, MIR_COLUMN_F64}, {"s", 1, MIR_COLUMN_STRING}}};
    fixture x;
    fixture_init(&x, 31);
    char names[MANY][8];
    mir_view ids[MANY];
    static const uint32_t groups[MANY];
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    for (uint32_t i = 0; i < MANY; i++) {
        const uint32_t number = i * 77 % MANY; /* ids are in no order */
        (void)snprintf(names[i], sizeof names[i], "d%03u", number);
        ids[i] = mir_view_cstr(names[i]);
        const bool odd = number % 2 == 1;
        for (int64_t n = 0; n < TIMES; n++) {
            mir_row *row = &x.row;
            row->time_ns = start_ns + n;
            row->column_count = 2;
            row->dynamic_count = 0;
            row->present[0] = 3;
            row->cells[0].i64 = number;
            if (odd) row->cells[0].f64 = number;
            row->cells[1].string = ids[i];
            mir_tlog_series *series;
            assert_int_equal(mir_tlog_series_open(writer, ids[i], mir_view_cstr("m.v1.T"),
                                                  kinds[odd], 2, &series),
                             MIR_OK);
            assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
        }
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    for (int turn = 0; turn < 100; turn++) {
        mir_tlog_query_spec spec = {.device_ids = ids,
                                    .device_count = MANY,
                                    .measurement = mir_view_cstr("m.v1.T"),
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX,
                                    .functions = MIR_TLOG_FIRST | MIR_TLOG_LAST,
                                    .window_ns = turn % 2 == 0 ? 0 : 1,
                                    .groups = groups,
                                    .group_count = 1};
        oracle found;
        mir_tlog_query_info info;
        x.tlog->query_helpers_max = 7;
        assert_int_equal(ask(&x, &spec, &info, &found), MIR_OK);
        assert_int_equal(found.count, turn % 2 == 0 ? 4 : 4 * TIMES);
        for (size_t i = 0; i < found.count; i++) {
            const oracle_field *field = &found.fields[i];
            const bool first = field->name[0] == 'f';
            const double number = first ? 0 : MANY - 1;
            uint64_t bits;
            memcpy(&bits, &number, sizeof bits);
            if (field->type == MIR_COLUMN_STRING) {
                bits = mir_hash_view(mir_view_cstr(first ? "d000" : "d319"));
            }
            assert_int_equal(field->bits, bits);
        }
        oracle_free(&found);
    }
    fixture_fini(&x);
}

/* A row as a sink of several hands writes it. */
typedef struct put_row_of {
    int64_t time_ns;
    uint32_t device;
    uint32_t present;
    uint64_t bits;
} put_row_of;

typedef struct hands {
    put_row_of *rows;
    uint64_t count;    /* of what was given in turn */
    uint64_t measured; /* of what was put where it belongs */
    uint32_t first_device;
    mir_status refusal;   /* of `reserve` */
    atomic_bool *cancels; /* if not null: `reserve` sets it */
    atomic_uint places;   /* calls of `place` until one is refused; 0: never */
    bool only_in_turn;
} hands;

static mir_status hands_columns(void *context, const mir_column *columns, uint32_t count)
{
    (void)context;
    (void)columns;
    return count == 1 ? MIR_OK : MIR_E_INVALID;
}

static void hands_write(const mir_tlog_batch *batch, put_row_of *to)
{
    for (uint32_t r = 0; r < batch->row_count; r++) {
        to[r] = (put_row_of){batch->times_ns[r], batch->devices[r], batch->present[r],
                             batch->cells[r].u64};
    }
}

static mir_status hands_rows(void *context, const mir_tlog_batch *batch)
{
    hands *h = context;
    h->rows = realloc(h->rows, (h->count + batch->row_count) * sizeof *h->rows);
    assert_non_null(h->rows);
    hands_write(batch, h->rows + h->count);
    h->count += batch->row_count;
    return MIR_OK;
}

static mir_status hands_measure(void *context, const mir_tlog_rows *rows, const uint32_t *ends,
                                uint32_t end_count, size_t *sizes)
{
    (void)context;
    uint32_t row = 0;
    for (uint32_t i = 0; i < end_count; i++) {
        assert_in_range(ends[i], row, rows->row_count);
        sizes[i] += (ends[i] - row) * sizeof(put_row_of);
        row = ends[i];
    }
    assert_int_equal(row, rows->row_count);
    return MIR_OK;
}

static mir_status hands_reserve(void *context, uint32_t first_device, uint64_t row_count,
                                size_t size, uint8_t **at)
{
    hands *h = context;
    assert_int_equal(size, row_count * sizeof *h->rows);
    if (h->refusal != MIR_OK) return h->refusal;
    h->rows = malloc(size);
    assert_non_null(h->rows);
    h->measured = row_count;
    h->first_device = first_device;
    if (h->cancels != NULL) atomic_store(h->cancels, true);
    *at = (uint8_t *)h->rows;
    return MIR_OK;
}

static mir_status hands_place(const void *context, const mir_tlog_batch *batch, uint8_t **at,
                              const uint8_t *end)
{
    hands *h = (hands *)(uintptr_t)context;
    const size_t size = batch->row_count * sizeof *h->rows;
    /* Not asserted: this is in other threads too. */
    if ((size_t)(end - *at) < size) return MIR_E_CORRUPT;
    if (atomic_load(&h->places) > 0 && atomic_fetch_sub(&h->places, 1) == 1) return MIR_E_IO;
    hands_write(batch, (put_row_of *)(void *)*at);
    *at += size;
    return MIR_OK;
}

static mir_status hands_ask(fixture *x, const mir_tlog_query_spec *spec, hands *h, mir_error *error)
{
    mir_tlog_sink sink = {.context = h, .columns = hands_columns, .rows = hands_rows};
    if (!h->only_in_turn) {
        sink.measure = hands_measure;
        sink.reserve = hands_reserve;
        sink.place = hands_place;
    }
    mir_tlog_query_info info;
    const mir_status status = mir_tlog_query(x->tlog, spec, &sink, &info, error);
    if (status == MIR_OK) assert_int_equal(info.rows, h->count + h->measured);
    assert_int_equal(atomic_load(&x->tlog->query_helpers), 0);
    return status;
}

/* Windows of many devices, some with gaps, that as many threads give out as may. */
static void windows_are_given_out_by_many_threads(void **state)
{
    (void)state;
    enum { MANY = 300, TIMES = 600, STEP_NS = 100000000 };
    fixture x;
    fixture_init(&x, 41);
    char names[MANY][8];
    mir_view ids[MANY];
    mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
    const mir_column column = {"n", 1, MIR_COLUMN_I64};
    for (uint32_t i = 0; i < MANY; i++) {
        (void)snprintf(names[i], sizeof names[i], "d%03u", (i * 77 + 5) % MANY);
        ids[i] = mir_view_cstr(names[i]);
        for (int64_t n = 0; n < TIMES; n++) {
            /* One begins late, one ends early, others have gaps. */
            if (i % 10 == 1 && n < TIMES / 2) continue;
            if (i % 10 == 2 && n > TIMES / 3) continue;
            if (i % 10 == 3 && n / 40 % 3 == 1) continue;
            mir_row *row = &x.row;
            row->time_ns = start_ns + n * STEP_NS;
            row->column_count = 1;
            row->dynamic_count = 0;
            row->present[0] = 1;
            row->cells[0].i64 = (int64_t)(sim_random(&x.random) % 1000);
            mir_tlog_series *series;
            assert_int_equal(
                mir_tlog_series_open(writer, ids[i], mir_view_cstr("m.v1.T"), &column, 1, &series),
                MIR_OK);
            assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    x.tlog->query_helpers_max = 7;
    const uint32_t functions[] = {MIR_TLOG_MEAN, MIR_TLOG_SUM, MIR_TLOG_COUNT, MIR_TLOG_RATE};
    for (uint32_t round = 0; round < 8; round++) {
        mir_tlog_query_spec spec = {.device_ids = ids,
                                    .device_count = MANY,
                                    .measurement = mir_view_cstr("m.v1.T"),
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX,
                                    .functions = functions[round % 4],
                                    .window_ns = round < 4 ? 1000000000 : 3300000000};
        mir_error error = {{0}};
        hands turn = {.only_in_turn = true};
        hands many = {0};
        assert_int_equal(hands_ask(&x, &spec, &turn, &error), MIR_OK);
        assert_int_equal(hands_ask(&x, &spec, &many, &error), MIR_OK);
        assert_int_equal(turn.measured, 0);
        assert_int_equal(many.count, 0);
        assert_int_equal(many.measured, turn.count);
        assert_int_equal(many.first_device, turn.rows[0].device);
        assert_memory_equal(many.rows, turn.rows, turn.count * sizeof *turn.rows);
        free(many.rows);
        /* What goes wrong in one hand ends all of it. */
        hands refused = {.refusal = MIR_E_TOO_LARGE};
        error = (mir_error){{0}};
        assert_int_equal(hands_ask(&x, &spec, &refused, &error), MIR_E_TOO_LARGE);
        assert_int_equal(error.text[0], '\0');
        hands broken = {.places = round + 1};
        assert_int_equal(hands_ask(&x, &spec, &broken, &error), MIR_E_IO);
        free(broken.rows);
        atomic_bool cancel = false;
        hands given_up = {.cancels = &cancel};
        spec.cancel = &cancel;
        assert_int_equal(hands_ask(&x, &spec, &given_up, &error), MIR_E_CANCELLED);
        assert_string_equal(error.text, "cancelled");
        free(given_up.rows);
        spec.cancel = NULL;
        /* In turn, if only some of them are wanted. */
        hands few = {0};
        spec.limit = turn.count / 2;
        assert_int_equal(hands_ask(&x, &spec, &few, &error), MIR_OK);
        assert_int_equal(few.measured, 0);
        assert_int_equal(few.count, turn.count / 2);
        assert_memory_equal(few.rows, turn.rows, few.count * sizeof *turn.rows);
        free(few.rows);
        free(turn.rows);
    }
    fixture_fini(&x);
}

/* ---- Counting ---- */

static void put_row(fixture *x, int64_t time_ns, uint64_t present)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_tlog_series *series;
    mir_row *row = &x->row;
    row->time_ns = time_ns;
    row->column_count = 5;
    row->dynamic_count = 0;
    row->present[0] = present;
    for (uint32_t i = 0; i < 5; i++) random_cell(&x->random, columns_a[i].type, &row->cells[i]);
    assert_int_equal(
        mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.T"), columns_a, 5, &series),
        MIR_OK);
    assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
    oracle_add_row(&x->stored, 0, columns_a, row);
}

/* As many values as are stored, wherever they are; how many rows were looked at. */
static uint64_t counted(fixture *x, int64_t from_ns, int64_t to_ns, uint64_t window_ns)
{
    const mir_tlog_query_spec spec = {.device_ids = device_ids,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .from_ns = from_ns,
                                      .to_ns = to_ns,
                                      .functions = MIR_TLOG_COUNT,
                                      .window_ns = window_ns};
    mir_tlog_query_info info;
    oracle answer;
    assert_int_equal(ask(x, &spec, &info, &answer), MIR_OK);
    uint64_t values = 0;
    uint64_t stored = 0;
    for (size_t i = 0; i < answer.count; i++) values += answer.fields[i].bits;
    for (size_t i = 0; i < x->stored.count; i++) {
        const int64_t time_ns = x->stored.fields[i].time_ns;
        if (time_ns >= from_ns && time_ns < to_ns) stored++;
    }
    assert_int_equal(values, stored);
    oracle_free(&answer);
    return info.rows_read;
}

/* Rows that came one after the other with all of their values are counted as they are; as soon as
 * one is late, came twice or lacks a value, or the range ends among them, they are looked at. */
static void rows_in_memory_are_counted_as_they_are(void **state)
{
    (void)state;
    enum { ROWS = 50 };
    for (int kind = 0; kind < 4; kind++) {
        fixture x;
        fixture_init(&x, 40 + (uint64_t)kind);
        mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
        for (int half = 0; half < 2; half++) {
            for (int64_t n = 0; n < ROWS; n++) {
                put_row(&x, start_ns + (half * ROWS + n) * 1000000000, 31);
            }
            assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        }
        oracle_fold(&x.stored);
        assert_int_equal(counted(&x, INT64_MIN, INT64_MAX, 0), 0);
        assert_true(counted(&x, start_ns + 5500000000, INT64_MAX, 0) > 0);
        assert_true(counted(&x, INT64_MIN, start_ns + 5500000000, 0) > 0);
        assert_true(counted(&x, INT64_MIN, INT64_MAX, 7000000000) > 0);
        switch (kind) {
        case 0: put_row(&x, start_ns + 99000000000, 31); break;
        case 1: put_row(&x, start_ns + 3500000000, 31); break;
        case 2: put_row(&x, start_ns + 100000000000, 15); break;
        default: put_row(&x, start_ns + 100000000000, 31); break;
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        oracle_fold(&x.stored);
        const uint64_t looked_at = counted(&x, INT64_MIN, INT64_MAX, 0);
        assert_int_equal(looked_at, kind < 3 ? 2 * ROWS + 1 : 0);
        seal(&x);
        (void)counted(&x, INT64_MIN, INT64_MAX, 0);
        put_row(&x, start_ns + 200000000000, 31);
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        oracle_fold(&x.stored);
        (void)counted(&x, INT64_MIN, INT64_MAX, 0);
        fixture_fini(&x);
    }
}

/* ---- Bytes that are not as they were written, with hashes that fit ---- */

enum { CHUNK_ROWS = 40, TEXT_BYTES = 48 };

static const mir_column text_columns[] = {{"s", 1, MIR_COLUMN_STRING}, {"t", 1, MIR_COLUMN_STRING}};
static const mir_tlog_segment_shape text_shape = {.column_count = 2, .columns = text_columns};

/* A chunk of texts that are all different, a row each second. */
static void feed_texts(fixture *x)
{
    char text[TEXT_BYTES];
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    for (uint32_t n = 0; n < CHUNK_ROWS; n++) {
        for (size_t i = 0; i < sizeof text; i++)
            text[i] = (char)('a' + sim_random(&x->random) % 26);
        mir_row *row = &x->row;
        row->time_ns = start_ns + (int64_t)x->rows++ * 1000000000;
        row->column_count = 2;
        row->dynamic_count = 0;
        row->present[0] = 3;
        row->cells[0].string = row->cells[1].string = mir_view_of(text, sizeof text);
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                              text_columns, 2, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    seal(x);
}

/* The chunk of the segment that was written last. */
static mir_view chunk_find(fixture *x)
{
    mir_view chunk = {0};
    for (uint32_t i = 0; i < x->disk->now.count; i++) {
        const sim_entry *entry = &x->disk->now.entries[i];
        if (strstr(entry->name, ".seg") == NULL) continue;
        uint8_t *at = memmem(entry->inode->data, entry->inode->size, "MCHK", 4);
        assert_non_null(at);
        chunk = mir_view_of(at, MIR_TLOG_CHUNK_HEADER_BYTES + mir_tlog_get_u32(at + 4));
    }
    assert_non_null(chunk.data);
    return chunk;
}

static void chunk_change(mir_view chunk, const uint8_t *at, uint8_t bits)
{
    uint8_t *bytes = (uint8_t *)(uintptr_t)chunk.data;
    if (bytes == NULL) abort();
    bytes[at - chunk.data] ^= bits;
    (void)mir_tlog_put_u64(bytes + 8, mir_hash_fixed(bytes + MIR_TLOG_CHUNK_HEADER_BYTES,
                                                     chunk.size - MIR_TLOG_CHUNK_HEADER_BYTES));
}

static const mir_tlog_query_spec ends_spec = {.device_ids = device_ids,
                                              .device_count = 1,
                                              .measurement = {(const uint8_t *)"m.v1.T", 6},
                                              .from_ns = INT64_MIN,
                                              .to_ns = INT64_MAX,
                                              .functions = MIR_TLOG_FIRST | MIR_TLOG_LAST};

/* The texts of the columns before the damaged one were taken already. */
static void a_damaged_column_leaves_no_texts_behind(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 16);
    feed_texts(&x);
    const mir_view chunk = chunk_find(&x);
    mir_tlog_chunk_reader reader;
    assert_int_equal(mir_tlog_chunk_begin(&reader, chunk, &text_shape), MIR_OK);
    assert_int_equal(mir_tlog_chunk_next(&reader), MIR_OK);
    assert_int_equal(mir_tlog_chunk_pass(&reader), MIR_OK);
    assert_int_equal(mir_tlog_chunk_next(&reader), MIR_OK);
    chunk_change(chunk, reader.in.at, 0x40); /* the encoding of `t` */
    mir_tlog_query_info info;
    oracle answer;
    assert_int_equal(ask(&x, &ends_spec, &info, &answer), MIR_OK);
    assert_int_equal(info.chunks_corrupt, 1);
    for (size_t i = 0; i < answer.count; i++) assert_null(strstr(answer.fields[i].name, "(t)"));
    oracle_free(&answer);
    fixture_fini(&x);
}

/* Its rows would be in windows that were done with. */
static void a_chunk_with_times_that_its_index_does_not_say_is_left_out(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 17);
    feed_texts(&x);
    feed_texts(&x);
    const mir_view chunk = chunk_find(&x);
    mir_tlog_chunk_reader reader;
    assert_int_equal(mir_tlog_chunk_begin(&reader, chunk, &text_shape), MIR_OK);
    int64_t before[CHUNK_ROWS], after[CHUNK_ROWS];
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    assert_int_equal(mir_tlog_chunk_times(&reader, &codec, before), MIR_OK);
    /* Encoding, size, form; then the least of the times, as a varint: earlier by some 17 seconds. */
    const uint8_t *least = reader.times_in.at + 3;
    unsigned at = 5;
    uint8_t bits = 1;
    while ((least[at] & bits) == 0) bits = (uint8_t)(bits << 1);
    chunk_change(chunk, least + at, bits);
    assert_int_equal(mir_tlog_chunk_begin(&reader, chunk, &text_shape), MIR_OK);
    assert_int_equal(mir_tlog_chunk_times(&reader, &codec, after), MIR_OK);
    assert_true(after[0] < before[0]);
    mir_tlog_codec_fini(&codec);
    mir_tlog_query_spec spec = ends_spec;
    spec.window_ns = 1000000000;
    mir_tlog_query_info info;
    assert_int_equal(ask(&x, &spec, &info, NULL), MIR_OK);
    assert_int_equal(info.chunks_corrupt, 1);
    fixture_fini(&x);
}

/* They would be taken for the sizes of texts. */
static void texts_with_statistics_are_refused(void **state)
{
    (void)state;
    const uint64_t times[1] = {1};
    const mir_view texts[1] = {MIR_VIEW_LITERAL("text")};
    static const uint8_t header[MIR_TLOG_CHUNK_HEADER_BYTES];
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    for (uint8_t flags = 0; flags < 8; flags = (uint8_t)(flags + 2)) {
        mir_bytes bytes = {0};
        mir_bytes_append(&bytes, header, sizeof header);
        mir_tlog_bytes_varint(&bytes, 1); /* row */
        mir_tlog_bytes_varint(&bytes, 1); /* column */
        mir_tlog_column_encode(&codec, &bytes, 0, MIR_COLUMN_I64, times, NULL, 1);
        mir_bytes_u8(&bytes, flags);
        for (int i = 0; i < 5 && flags != 0; i++) mir_tlog_bytes_varint(&bytes, 100);
        mir_tlog_column_encode(&codec, &bytes, 0, MIR_COLUMN_STRING, NULL, texts, 1);
        const mir_tlog_segment_shape shape = {.column_count = 1, .columns = text_columns};
        mir_tlog_chunk_reader reader;
        assert_int_equal(mir_tlog_chunk_begin(&reader, mir_bytes_as_view(&bytes), &shape), MIR_OK);
        const mir_status wanted = (flags & 2) == 0 ? MIR_OK : MIR_E_CORRUPT;
        assert_int_equal(mir_tlog_chunk_next(&reader), wanted);
        mir_bytes_free(&bytes);
    }
    mir_tlog_codec_fini(&codec);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(totals_are_those_of_the_rows),
        cmocka_unit_test(windows_reach_to_the_ends_of_time),
        cmocka_unit_test(percentiles_are_those_of_the_nearest_rank),
        cmocka_unit_test(pages_give_each_row_once),
        cmocka_unit_test(a_page_takes_the_memory_of_its_rows),
        cmocka_unit_test(pages_give_each_row_that_is_left_once),
        cmocka_unit_test(limited_windows_are_the_first_ones),
        cmocka_unit_test(blocks_have_all_rows_of_each_device),
        cmocka_unit_test(points_keep_the_ends_and_the_peaks),
        cmocka_unit_test(points_keep_a_peak_right_before_the_end),
        cmocka_unit_test(points_keep_peaks_beside_what_is_not_finite),
        cmocka_unit_test(what_makes_no_sense_is_refused_with_words),
        cmocka_unit_test(percentiles_of_many_devices_take_the_memory_of_one),
        cmocka_unit_test(what_a_query_holds_at_once_is_within_its_bound),
        cmocka_unit_test(a_sum_is_one_column),
        cmocka_unit_test(many_devices_are_read_by_many_threads),
        cmocka_unit_test(windows_are_given_out_by_many_threads),
        cmocka_unit_test(rows_in_memory_are_counted_as_they_are),
        cmocka_unit_test(a_damaged_column_leaves_no_texts_behind),
        cmocka_unit_test(a_chunk_with_times_that_its_index_does_not_say_is_left_out),
        cmocka_unit_test(texts_with_statistics_are_refused),
        cmocka_unit_test(of_equal_times_the_first_and_the_last_device_count),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
