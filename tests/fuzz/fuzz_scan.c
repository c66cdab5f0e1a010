/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of segments that the log's own writer made of arbitrary rows: rows come back as they were, and
 * what functions say of them, from statistics, sums of packed bytes and single times, is what the rows
 * come to. Then some bytes are others: what is still there is right, and what is missing is said. What
 * rows came to, stored in their place, says the same as well. Or the
 * input is a segment, whose checksums are put right: anything may be in it, and is kept within bounds. */
#include <math.h>

#include "fuzz_repair.h"
#include "fuzz_segment.h"
#include "mir_tlog_number.h"
#include "mir_tlog_part.h"
#include "mir_tlog_rollup.h"

enum { SEGMENTS = 3, MADE_MAX = 2, WINDOWS_MAX = 4000, ROLLED_DAYS_MAX = 1000 };

static mir_tlog tlog;

/* ---- What is asked ---- */

typedef struct question {
    uint32_t series;
    int64_t first_ns;
    int64_t last_ns;
    mir_view fields[2];
    mir_tlog_query_spec spec;
    mir_tlog_version version;
    mir_tlog_segment *segments[SEGMENTS];
    atomic_ullong bytes;
    uint64_t bytes_max;
} question;

static mir_tlog_scan scan_of(question *q)
{
    q->version.segments = q->segments;
    atomic_store(&q->bytes, 0);
    return (mir_tlog_scan){.tlog = &tlog,
                           .spec = &q->spec,
                           .version = &q->version,
                           .bytes = &q->bytes,
                           .bytes_max = q->bytes_max};
}

static bool is_wanted(const question *q, uint32_t c)
{
    for (uint32_t i = 0; i < q->spec.field_count; i++)
        if (mir_view_eq(q->fields[i], mir_view_cstr(fuzz_columns[c].name))) return true;
    return q->spec.field_count == 0;
}

/* A time of the rows or about one, or any. */
static int64_t time_take(fuzz_input *in, const fuzz_rows *rows)
{
    const uint64_t number = fuzz_number(in);
    const uint8_t how = fuzz_byte(in);
    if (rows->count == 0 || how % 8 == 7) return (int64_t)number;
    const uint64_t time = (uint64_t)rows->times[number % rows->count];
    return (int64_t)(time + how % 8 / 2 - 1);
}

static void question_take(fuzz_input *in, const fuzz_rows *all, question *q)
{
    static const uint64_t windows[] = {0, 60000000000, 7, 128, 1000, 60000, 1000000, 1000000000};
    const uint8_t how = fuzz_byte(in);
    q->series = fuzz_byte(in) % FUZZ_SERIES;
    const fuzz_rows *rows = &all[q->series];
    q->first_ns = (how & 1) != 0 ? INT64_MIN : time_take(in, rows);
    q->last_ns = (how & 2) != 0 ? INT64_MAX : time_take(in, rows);
    if (q->first_ns > q->last_ns) {
        const int64_t first_ns = q->last_ns;
        q->last_ns = q->first_ns;
        q->first_ns = first_ns;
    }
    q->spec = (mir_tlog_query_spec){
        .measurement = fuzz_measurements[q->series / FUZZ_DEVICES],
        .fields = q->fields,
        .functions = (uint32_t)(fuzz_byte(in) | fuzz_byte(in) << 8) & MIR_TLOG_FUNCTIONS,
        .window_ns = windows[how >> 2 & 7],
        .window_from_ns = (int64_t)((how & 32) != 0 ? fuzz_number(in) : 0),
        .limit = (how & 64) != 0 ? fuzz_number(in) % FUZZ_ROWS_MAX : 0,
        .backward = (how & 128) != 0,
    };
    q->bytes_max = UINT64_MAX / 2;
    const uint8_t fields = fuzz_byte(in);
    if (fields % 4 == 1)
        q->fields[q->spec.field_count++] =
            mir_view_cstr(fuzz_columns[fields / 4 % FUZZ_COLUMNS].name);
    /* Few windows, or this takes too long. */
    if (rows->count == 0 || q->spec.window_ns == 0) return;
    const uint64_t span = (uint64_t)rows->times[rows->count - 1] - (uint64_t)rows->times[0];
    if (span / q->spec.window_ns > WINDOWS_MAX) q->spec.window_ns = span / WINDOWS_MAX;
}

/* ---- Rows ---- */

/* Of `all` what the question asks for. */
FUZZ_UNSEEN static void rows_wanted(const question *q, const fuzz_rows *all, fuzz_rows *wanted)
{
    wanted->count = 0;
    for (uint32_t r = 0; r < all->count; r++) {
        if (all->times[r] < q->first_ns || all->times[r] > q->last_ns) continue;
        const uint32_t to = wanted->count;
        bool any = false;
        for (uint32_t c = 0; c < FUZZ_COLUMNS; c++) {
            const bool is = all->present[c][r] != 0 && is_wanted(q, c);
            wanted->present[c][to] = is;
            wanted->values[c][to] = all->values[c][r];
            any = any || is;
        }
        wanted->times[to] = all->times[r];
        if (any) wanted->count++;
    }
}

typedef struct piecewise {
    const mir_tlog_scan *scan;
    const fuzz_rows *wanted;
    uint32_t at;
    bool whole;
} piecewise;

static mir_status piece_take(void *context)
{
    static fuzz_rows piece;
    piecewise *to = context;
    fuzz_rows_of(&piece, &to->scan->gather);
    for (uint32_t r = 0; to->whole && r < piece.count; r++, to->at++)
        MIR_ASSERT(to->at < to->wanted->count && fuzz_same_row(&piece, r, to->wanted, to->at));
    return MIR_OK;
}

/* What is found goes to `found`; whether anything was missing. */
static bool rows_find(question *q, const fuzz_rows *wanted, bool whole, fuzz_rows *found)
{
    static fuzz_rows some;
    const mir_view device = fuzz_devices[q->series % FUZZ_DEVICES];
    mir_tlog_scan scan = scan_of(q);
    MIR_ASSERT(mir_tlog_scan_init(&scan) == MIR_OK);
    MIR_ASSERT(mir_tlog_scan_rows(&scan, device, q->first_ns, q->last_ns, 0, false) == MIR_OK);
    fuzz_rows_of(found, &scan.gather);
    const bool missing = scan.chunks_corrupt > 0;
    piecewise pieces = {.scan = &scan, .wanted = found, .whole = true};
    MIR_ASSERT(mir_tlog_scan_pieces(&scan, device, q->first_ns, q->last_ns, piece_take, &pieces) ==
               MIR_OK);
    MIR_ASSERT(pieces.at == found->count && missing == (scan.chunks_corrupt > 0));
    if (whole) {
        MIR_ASSERT(!missing && found->count == wanted->count);
        for (uint32_t r = 0; r < wanted->count; r++) MIR_ASSERT(fuzz_same_row(found, r, wanted, r));
    }
    if (q->spec.limit > 0) {
        MIR_ASSERT(mir_tlog_scan_rows(&scan, device, q->first_ns, q->last_ns, q->spec.limit,
                                      q->spec.backward) == MIR_OK);
        fuzz_rows_of(&some, &scan.gather);
        const uint32_t count =
            found->count < q->spec.limit ? found->count : (uint32_t)q->spec.limit;
        MIR_ASSERT(some.count >= count && some.count <= found->count);
        for (uint32_t i = 0; i < count; i++) {
            const uint32_t at = q->spec.backward ? some.count - 1 - i : i;
            const uint32_t other = q->spec.backward ? found->count - 1 - i : i;
            MIR_ASSERT(fuzz_same_row(&some, at, found, other));
        }
    }
    mir_tlog_scan_fini(&scan);
    return missing;
}

/* ---- What they come to ---- */

typedef struct expected {
    mir_tlog_total total; /* of a text, first and last are numbers of words */
    double magnitude;     /* of a sum of doubles: what an error of it is measured by */
} expected;

FUZZ_UNSEEN static void expect(const mir_tlog_totals *totals, const fuzz_rows *rows, uint32_t c,
                               int64_t window, uint32_t *row, expected *e)
{
    const mir_column_type type = fuzz_columns[c].type;
    mir_tlog_total *total = &e->total;
    *e = (expected){.magnitude = 0};
    for (; *row < rows->count; ++*row) {
        if (mir_tlog_window_of(totals, rows->times[*row]) != window) break;
        if (rows->present[c][*row] == 0) continue;
        const uint64_t value = rows->values[c][*row];
        if (total->count++ == 0) {
            total->first = value;
            total->first_ns = rows->times[*row];
        }
        total->last = value;
        total->last_ns = rows->times[*row];
        if (type == MIR_COLUMN_STRING) continue;
        if (type == MIR_COLUMN_F64) {
            const double number = mir_tlog_double_of(value);
            total->sum_f64 += number;
            e->magnitude += fabs(number);
            if (number != number) continue;
        } else {
            total->sum += type == MIR_COLUMN_I64 ? (__int128)(int64_t)value : (__int128)value;
        }
        if (!total->ordered || mir_tlog_less(type, value, total->low)) total->low = value;
        if (!total->ordered || mir_tlog_less(type, total->high, value)) total->high = value;
        total->ordered = true;
    }
}

/* Of a device behind those that are in it. */
static void expect_add(expected *e, mir_column_type type, const expected *other)
{
    mir_tlog_total *to = &e->total;
    const mir_tlog_total *from = &other->total;
    if (from->count == 0) return;
    if (to->count == 0 || from->first_ns < to->first_ns) {
        to->first = from->first;
        to->first_ns = from->first_ns;
    }
    if (to->count == 0 || from->last_ns >= to->last_ns) {
        to->last = from->last;
        to->last_ns = from->last_ns;
    }
    to->count += from->count;
    to->sum += from->sum;
    to->sum_f64 += from->sum_f64;
    e->magnitude += other->magnitude;
    if (!from->ordered) return;
    if (!to->ordered || mir_tlog_less(type, from->low, to->low)) to->low = from->low;
    if (!to->ordered || mir_tlog_less(type, to->high, from->high)) to->high = from->high;
    to->ordered = true;
}

static bool same_number(mir_column_type type, uint64_t a, uint64_t b)
{
    return a == b ||
           (type == MIR_COLUMN_F64 && mir_tlog_number_of(type, a) == mir_tlog_number_of(type, b));
}

static bool same_text(uint64_t word, uint64_t address, uint64_t size)
{
    return mir_view_eq(fuzz_words[word],
                       mir_view_of((const uint8_t *)(uintptr_t)address, (size_t)size));
}

static void total_check(uint32_t functions, uint32_t c, const mir_tlog_total *got,
                        const expected *e)
{
    const mir_column_type type = fuzz_columns[c].type;
    const bool text = type == MIR_COLUMN_STRING;
    MIR_ASSERT((got->count == 0) == (e->total.count == 0));
    if (got->count == 0) return;
    MIR_ASSERT(got->last_ns == e->total.last_ns);
    if ((functions & MIR_TLOG_LAST) != 0)
        MIR_ASSERT(text ? same_text(e->total.last, got->last, got->high)
                        : e->total.last == got->last);
    /* Then not all of the rows are looked at. */
    if (functions == MIR_TLOG_LAST) return;
    MIR_ASSERT(got->count == e->total.count && got->first_ns == e->total.first_ns);
    if ((functions & MIR_TLOG_FIRST) != 0)
        MIR_ASSERT(text ? same_text(e->total.first, got->first, got->low)
                        : e->total.first == got->first);
    if (!mir_tlog_is_number(type)) return;
    if ((functions & (MIR_TLOG_MIN | MIR_TLOG_MAX)) != 0) {
        MIR_ASSERT(got->ordered == e->total.ordered);
        if (got->ordered)
            MIR_ASSERT(same_number(type, got->low, e->total.low) &&
                       same_number(type, got->high, e->total.high));
    }
    if ((functions & (MIR_TLOG_MEAN | MIR_TLOG_SUM)) == 0) return;
    if (type != MIR_COLUMN_F64)
        MIR_ASSERT(got->sum == e->total.sum);
    else if (e->magnitude < 1e300)
        MIR_ASSERT(fabs(got->sum_f64 - e->total.sum_f64) <= e->magnitude * 1e-11);
    else if (e->total.sum_f64 != e->total.sum_f64 && e->magnitude == e->magnitude)
        MIR_ASSERT(!isfinite(got->sum_f64));
    else if (e->magnitude != e->magnitude)
        MIR_ASSERT(got->sum_f64 != got->sum_f64);
}

/* Increases and samples: in the order of the rows. */
FUZZ_UNSEEN static void values_check(uint32_t functions, uint32_t c, const fuzz_rows *rows,
                                     const mir_tlog_totals_column *column,
                                     const mir_tlog_totals *totals)
{
    const mir_column_type type = fuzz_columns[c].type;
    double before = 0;
    bool any = false;
    uint32_t row = 0;
    for (uint32_t w = 0; w < totals->window_count; w++) {
        double increase = 0;
        uint32_t at = 0;
        for (; row < rows->count; row++) {
            if (mir_tlog_window_of(totals, rows->times[row]) != totals->windows[w]) break;
            if (rows->present[c][row] == 0) continue;
            const uint64_t value = rows->values[c][row];
            const double number = mir_tlog_number_of(type, value);
            if (any) increase += number >= before ? number - before : number > 0 ? number : 0;
            before = number;
            any = true;
            if ((functions & MIR_TLOG_PERCENTILE) == 0) continue;
            const mir_tlog_samples *samples = &column->samples[w];
            MIR_ASSERT(at < samples->count && samples->values[at] == value);
            at++;
        }
        if ((functions & MIR_TLOG_RATE) == 0) continue;
        const double got = column->totals[w].increase;
        MIR_ASSERT(got == increase || (got != got && increase != increase));
    }
}

static mir_tlog_totals totals_of(const question *q, const mir_tlog_scan *scan, uint32_t device)
{
    return (mir_tlog_totals){.functions = q->spec.functions,
                             .window_ns = q->spec.window_ns,
                             .window_from_ns = q->spec.window_from_ns,
                             .device = device,
                             .bytes = scan->bytes,
                             .bytes_max = scan->bytes_max};
}

/* What was found, of as many devices as there are `rows`, is what these come to. */
static void totals_check(const question *q, const mir_tlog_totals *totals, const fuzz_rows *rows,
                         uint32_t devices)
{
    bool found[FUZZ_COLUMNS] = {false};
    for (uint32_t w = 1; w < totals->window_count; w++)
        MIR_ASSERT(totals->windows[w - 1] < totals->windows[w]);
    for (uint32_t i = 0; i < totals->set.count; i++) {
        const mir_column *named = &totals->set.columns[i];
        const uint32_t c = fuzz_column_of(mir_tlog_column_name(named), named->type);
        uint32_t at[FUZZ_DEVICES] = {0};
        MIR_ASSERT(c < FUZZ_COLUMNS && is_wanted(q, c) && !found[c]);
        found[c] = true;
        for (uint32_t w = 0; w < totals->window_count; w++) {
            expected all = {.magnitude = 0};
            for (uint32_t d = 0; d < devices; d++) {
                expected e;
                expect(totals, &rows[d], c, totals->windows[w], &at[d], &e);
                expect_add(&all, named->type, &e);
            }
            total_check(q->spec.functions, c, &totals->columns[i].totals[w], &all);
        }
        for (uint32_t d = 0; d < devices; d++) MIR_ASSERT(at[d] == rows[d].count);
    }
    for (uint32_t c = 0; c < FUZZ_COLUMNS; c++)
        for (uint32_t d = 0; d < devices; d++)
            MIR_ASSERT(found[c] || memchr(rows[d].present[c], 1, rows[d].count) == NULL);
}

static void totals_find(question *q, const fuzz_rows *rows)
{
    const bool bounded = q->bytes_max < UINT64_MAX / 2;
    const mir_view device = fuzz_devices[q->series % FUZZ_DEVICES];
    const uint32_t functions = q->spec.functions;
    mir_tlog_scan scan = scan_of(q);
    MIR_ASSERT(mir_tlog_scan_init(&scan) == MIR_OK);
    mir_tlog_totals totals = totals_of(q, &scan, 0);
    const mir_status status = mir_tlog_scan_totals(&scan, device, q->first_ns, q->last_ns, &totals);
    MIR_ASSERT(status == MIR_OK || (bounded && status == MIR_E_TOO_LARGE));
    if (status == MIR_OK) totals_check(q, &totals, rows, 1);
    for (uint32_t i = 0; status == MIR_OK && i < totals.set.count; i++) {
        const mir_column *named = &totals.set.columns[i];
        const uint32_t c = fuzz_column_of(mir_tlog_column_name(named), named->type);
        if ((functions & (MIR_TLOG_RATE | MIR_TLOG_PERCENTILE)) != 0 &&
            mir_tlog_is_number(named->type))
            values_check(functions, c, rows, &totals.columns[i], &totals);
    }
    mir_tlog_totals_free(&totals);
    mir_tlog_scan_fini(&scan);
}

/* Of all devices together. */
static void group_find(question *q, const fuzz_rows *all)
{
    static fuzz_rows rows[FUZZ_DEVICES];
    const uint32_t first = q->series - q->series % FUZZ_DEVICES;
    mir_tlog_totals totals[FUZZ_DEVICES];
    mir_tlog_scan scan = scan_of(q);
    MIR_ASSERT(mir_tlog_scan_init(&scan) == MIR_OK);
    mir_tlog_totals group = totals_of(q, &scan, 0);
    for (uint32_t d = 0; d < FUZZ_DEVICES; d++) {
        rows_wanted(q, &all[first + d], &rows[d]);
        totals[d] = totals_of(q, &scan, d);
        MIR_ASSERT(mir_tlog_scan_totals(&scan, fuzz_devices[d], q->first_ns, q->last_ns,
                                        &totals[d]) == MIR_OK);
        MIR_ASSERT(mir_tlog_totals_add(&group, &totals[d]) == MIR_OK);
    }
    totals_check(q, &group, rows, FUZZ_DEVICES);
    for (uint32_t d = 0; d < FUZZ_DEVICES; d++) mir_tlog_totals_free(&totals[d]);
    mir_tlog_totals_free(&group);
    mir_tlog_scan_fini(&scan);
}

/* As an answer is made of it: within bounds, whatever it is. */
static void parts_make(question *q)
{
    const mir_view device = fuzz_devices[q->series % FUZZ_DEVICES];
    atomic_ullong rows = 0;
    mir_tlog_part_maker maker = {.scan = scan_of(q), .rows = &rows};
    maker.scan.bytes_max = 64 << 20;
    mir_tlog_part part = {0};
    q->spec.rows_max = 1000000;
    q->spec.percentiles[0] = 50;
    q->spec.percentile_count = 1;
    if (mir_tlog_part_maker_init(&maker) == MIR_OK &&
        mir_tlog_part_device(&maker, device, q->first_ns, q->last_ns, &part) == MIR_OK) {
        for (uint32_t i = 0; i < part.column_count; i++) {
            if (maker.columns.columns[part.columns[i]].type != MIR_COLUMN_STRING) continue;
            for (uint32_t r = 0; r < part.row_count; r++) {
                const size_t at = (size_t)i * part.stride + r;
                if (part.present[at] == 0) continue;
                const mir_view text = part.texts[part.values[at]];
                MIR_ASSERT(text.size == 0 || text.data[text.size - 1] <= UINT8_MAX);
            }
        }
    }
    mir_tlog_part_free(&part);
    mir_tlog_part_maker_fini(&maker);
}

/* ---- Inputs ---- */

/* With little memory there are as many pieces as it takes, or it is said that it does not do. */
static void ask_little(question *q, const fuzz_rows *found, uint8_t how)
{
    const mir_view device = fuzz_devices[q->series % FUZZ_DEVICES];
    q->bytes_max = UINT64_C(1) << (12 + how % 16);
    mir_tlog_scan scan = scan_of(q);
    if (mir_tlog_scan_init(&scan) == MIR_OK) {
        piecewise pieces = {.scan = &scan, .wanted = found, .whole = true};
        const mir_status status =
            mir_tlog_scan_pieces(&scan, device, q->first_ns, q->last_ns, piece_take, &pieces);
        MIR_ASSERT(status == MIR_OK ? pieces.at == found->count : status == MIR_E_TOO_LARGE);
    }
    mir_tlog_scan_fini(&scan);
    totals_find(q, found);
    q->bytes_max = UINT64_MAX / 2;
}

static void ask_again(fuzz_input *in, const fuzz_rows *all, question *q, bool whole)
{
    static fuzz_rows wanted, found;
    question_take(in, all, q);
    rows_wanted(q, &all[q->series], &wanted);
    const bool missing = rows_find(q, &wanted, whole, &found);
    if (!whole && q->version.segment_count == 1) {
        /* What is there is right, and what is not has been told. */
        uint32_t at = 0;
        for (uint32_t r = 0; r < found.count; r++) {
            while (at < wanted.count && wanted.times[at] < found.times[r]) at++;
            MIR_ASSERT(at < wanted.count && fuzz_same_row(&found, r, &wanted, at));
        }
        MIR_ASSERT(missing || found.count == wanted.count);
    }
    /* Numbers of rows are in the index, too: they say more than can be read. */
    if (q->spec.functions == 0) q->spec.functions = MIR_TLOG_MEAN;
    if (missing && q->spec.functions == MIR_TLOG_COUNT) q->spec.functions |= MIR_TLOG_SUM;
    if (!missing || q->spec.functions != MIR_TLOG_LAST) {
        const uint8_t how = fuzz_byte(in);
        totals_find(q, &found);
        if (how != 0) ask_little(q, &found, how);
    }
    if (whole) group_find(q, all);
    parts_make(q);
}

/* The same chunks in a segment of their own. */
static mir_tlog_segment *copied(mir_tlog_segment *from, fuzz_made *to, const mir_tlog_files *files,
                                mir_tlog_codec *codec)
{
    const mir_tlog_segment_head head = {9, 1, 1};
    mir_tlog_segment_writer *writer;
    mir_tlog_index_cursor at = {.segment = from};
    mir_bytes bytes = {0};
    uint64_t size;
    to->bytes.size = 0;
    MIR_ASSERT(mir_tlog_segment_begin(files, "copied", &head, &writer, NULL) == MIR_OK);
    while (mir_tlog_index_next(&at, codec) == MIR_OK) {
        for (uint32_t i = 0; i < at.chunk_count; i++) {
            bytes.size = 0;
            MIR_ASSERT(mir_tlog_chunk_read(from, &at.chunks[i], &bytes) == MIR_OK);
            MIR_ASSERT(mir_tlog_segment_put_chunk(writer, codec, from->measurements[at.measurement],
                                                  at.device, from, &at.chunks[i],
                                                  mir_bytes_as_view(&bytes), NULL) == MIR_OK);
        }
    }
    MIR_ASSERT(mir_tlog_segment_end(writer, codec, &size, NULL) == MIR_OK);
    mir_bytes_free(&bytes);
    mir_tlog_index_fini(&at);
    mir_tlog_segment *segment;
    MIR_ASSERT(mir_tlog_segment_open(files, "copied", head.id, codec, &segment, NULL) == MIR_OK);
    return segment;
}

static void made(fuzz_input *in, mir_tlog_codec *codec)
{
    static fuzz_made files[MADE_MAX];
    static fuzz_rows all[MADE_MAX][FUZZ_SERIES];
    static fuzz_rows both;
    question q = {.version = {0}};
    mir_tlog_files tables[MADE_MAX];
    const uint8_t count = 1 + fuzz_byte(in) % MADE_MAX;
    for (uint8_t i = 0; i < count; i++) {
        (void)fuzz_segment_make(in, &files[i], i + UINT64_C(1), codec, all[i]);
        tables[i] = fuzz_made_table(&files[i]);
        MIR_ASSERT(mir_tlog_segment_open(&tables[i], "made", i + UINT64_C(1), codec, &q.segments[i],
                                         NULL) == MIR_OK);
        MIR_ASSERT(mir_tlog_segment_check_spares(q.segments[i], codec) == MIR_OK);
    }
    q.version.segment_count = count;
    if (count > 1) {
        /* Rows of both, field by field the later one's. */
        for (uint32_t s = 0; s < FUZZ_SERIES; s++) {
            uint32_t a = 0, b = 0;
            both.count = 0;
            while ((a < all[0][s].count || b < all[1][s].count) && both.count < FUZZ_ROWS_MAX) {
                const bool has_a =
                    a < all[0][s].count &&
                    (b == all[1][s].count || all[0][s].times[a] <= all[1][s].times[b]);
                const bool has_b =
                    b < all[1][s].count &&
                    (a == all[0][s].count || all[1][s].times[b] <= all[0][s].times[a]);
                const uint32_t to = both.count++;
                both.times[to] = has_a ? all[0][s].times[a] : all[1][s].times[b];
                for (uint32_t c = 0; c < FUZZ_COLUMNS; c++) {
                    const bool in_b = has_b && all[1][s].present[c][b] != 0;
                    both.present[c][to] = in_b || (has_a && all[0][s].present[c][a] != 0);
                    both.values[c][to] = in_b    ? all[1][s].values[c][b]
                                         : has_a ? all[0][s].values[c][a]
                                                 : 0;
                }
                a += has_a;
                b += has_b;
            }
            /* More than there is room for is not compared. */
            if (a < all[0][s].count || b < all[1][s].count) goto out;
            all[0][s] = both;
        }
    }
    ask_again(in, all[0], &q, true);
    ask_again(in, all[0], &q, true);
    static fuzz_made copy;
    const mir_tlog_files copy_files = fuzz_made_table(&copy);
    mir_tlog_segment *original = q.segments[0];
    q.segments[0] = copied(original, &copy, &copy_files, codec);
    ask_again(in, all[0], &q, true);
    mir_tlog_segment_release(q.segments[0]);
    mir_tlog_segment_release(original);
    q.segments[0] = NULL;
    fuzz_damage(in, &files[0], 0, files[0].bytes.size);
    if (mir_tlog_segment_open(&tables[0], "made", 1, codec, &q.segments[0], NULL) == MIR_OK) {
        (void)!mir_tlog_segment_check_spares(q.segments[0], codec);
        ask_again(in, all[0], &q, false);
    }
out:
    for (uint8_t i = 0; i < count; i++)
        if (q.segments[i] != NULL) mir_tlog_segment_release(q.segments[i]);
}

/* The rollup of a series of the first segment. The same rows that come again are known again. */
static void roll(question *q, uint32_t series, uint32_t step, mir_tlog_gather *stored,
                 mir_tlog_segment_writer *writer, mir_tlog_codec *codec)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const mir_view device = fuzz_devices[series % FUZZ_DEVICES];
    mir_tlog_rollup rollup = {0};
    mir_tlog_rollup known = {0};
    bool any;
    q->spec = (mir_tlog_query_spec){.measurement = fuzz_measurements[series / FUZZ_DEVICES]};
    mir_tlog_scan scan = scan_of(q);
    MIR_ASSERT(mir_tlog_scan_init(&scan) == MIR_OK);
    MIR_ASSERT(mir_tlog_scan_rows(&scan, device, INT64_MIN, INT64_MAX, 0, false) == MIR_OK);
    mir_tlog_gather *rows = &scan.gather;
    MIR_ASSERT(mir_tlog_rollup_take(&rollup, step, rows) == MIR_OK);
    MIR_ASSERT(mir_tlog_rollup_encode(&rollup, true, stored) == MIR_OK);
    MIR_ASSERT(mir_tlog_segment_put(writer, codec,
                                    mir_tlog_rollup_measurement(q->spec.measurement, step, name),
                                    device, stored, 0, stored->row_count, 1, NULL) == MIR_OK);
    MIR_ASSERT(mir_tlog_rollup_decode(&known, step, stored, 0, stored->row_count) == MIR_OK);
    MIR_ASSERT(known.row_count == rollup.row_count);
    MIR_ASSERT(mir_tlog_rollup_compare(&rollup, &known) == MIR_OK);
    MIR_ASSERT(mir_tlog_rollup_drop_repeated(&known, step, rows, &any) == MIR_OK && any);
    MIR_ASSERT(mir_tlog_gather_finish(rows) == MIR_OK && rows->row_count == 0);
    mir_tlog_rollup_free(&rollup);
    mir_tlog_rollup_free(&known);
    mir_tlog_scan_fini(&scan);
}

/* What the rows of each step came to, instead of the rows. */
static void rolled(fuzz_input *in, mir_tlog_codec *codec)
{
    static fuzz_made raw, files[MIR_TLOG_ROLLUPS];
    static fuzz_rows all[FUZZ_SERIES];
    static const uint64_t hours[] = {0, 1, 6, 24};
    mir_tlog_files tables[MIR_TLOG_ROLLUPS];
    mir_tlog_segment *segments[MIR_TLOG_ROLLUPS];
    question q = {.first_ns = INT64_MIN, .last_ns = INT64_MAX, .bytes_max = UINT64_MAX / 2};
    mir_tlog_gather stored;
    if (!fuzz_segment_make(in, &raw, 1, codec, all)) return;
    /* Hours are looked at some days at a time: of centuries it takes long. */
    int64_t first_ns = INT64_MAX, last_ns = INT64_MIN;
    for (uint32_t s = 0; s < FUZZ_SERIES; s++) {
        const uint32_t count = all[s].count;
        if (count == 0) continue;
        if (all[s].times[0] < first_ns) first_ns = all[s].times[0];
        if (all[s].times[count - 1] > last_ns) last_ns = all[s].times[count - 1];
    }
    if ((uint64_t)last_ns - (uint64_t)first_ns > ROLLED_DAYS_MAX * UINT64_C(86400000000000)) return;
    const mir_tlog_files raw_files = fuzz_made_table(&raw);
    MIR_ASSERT(mir_tlog_segment_open(&raw_files, "raw", 1, codec, &q.segments[0], NULL) == MIR_OK);
    q.version.segment_count = 1;
    MIR_ASSERT(mir_tlog_gather_init(&stored) == MIR_OK);
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS; step++) {
        const mir_tlog_segment_head head = {2 + step, 1, 1};
        mir_tlog_segment_writer *writer;
        uint64_t size;
        files[step].bytes.size = 0;
        tables[step] = fuzz_made_table(&files[step]);
        MIR_ASSERT(mir_tlog_segment_begin(&tables[step], "rolled", &head, &writer, NULL) == MIR_OK);
        for (uint32_t s = 0; s < FUZZ_SERIES; s++) {
            if (all[s].count > 0) roll(&q, s, step, &stored, writer, codec);
        }
        MIR_ASSERT(mir_tlog_segment_end(writer, codec, &size, NULL) == MIR_OK);
        MIR_ASSERT(mir_tlog_segment_open(&tables[step], "rolled", head.id, codec, &segments[step],
                                         NULL) == MIR_OK);
    }
    mir_tlog_gather_fini(&stored);
    mir_tlog_segment_release(q.segments[0]);
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS; step++) q.segments[step] = segments[step];
    q.version.segment_count = MIR_TLOG_ROLLUPS;
    for (int questions = 0; questions < 3; questions++) {
        q.series = fuzz_byte(in) % FUZZ_SERIES;
        q.spec = (mir_tlog_query_spec){
            .measurement = fuzz_measurements[q.series / FUZZ_DEVICES],
            .functions = (uint32_t)(1 + fuzz_byte(in)) & (MIR_TLOG_FUNCTIONS >> 2),
            .window_ns = hours[fuzz_byte(in) % 4] * UINT64_C(3600000000000)};
        if (q.spec.functions != 0) totals_find(&q, &all[q.series]);
    }
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS; step++)
        mir_tlog_segment_release(segments[step]);
}

/* What anybody's segment may be asked. */
static void any(fuzz_input *in, mir_tlog_codec *codec)
{
    static fuzz_rows none[FUZZ_SERIES];
    question q = {.version = {.segment_count = 1}};
    fuzz_input asked = fuzz_part(in);
    uint8_t *bytes = malloc(in->size + 1);
    if (bytes == NULL) return;
    memcpy(bytes, in->data, in->size);
    fuzz_repair_segment(bytes, in->size);
    one_file file = {bytes, in->size};
    const mir_tlog_files files = file_table(&file);
    const uint64_t id = in->size >= 24 ? mir_tlog_get_u64(bytes + 16) : 0;
    if (mir_tlog_segment_open(&files, "any", id, codec, &q.segments[0], NULL) == MIR_OK) {
        (void)!mir_tlog_segment_check_spares(q.segments[0], codec);
        mir_tlog_index_cursor cursor = {.segment = q.segments[0]};
        for (int entries = 0; entries < 8; entries++) {
            const mir_status status = mir_tlog_index_next(&cursor, codec);
            if (status == MIR_E_EMPTY) break;
            if (status != MIR_OK) continue;
            question_take(&asked, none, &q);
            q.spec.measurement = q.segments[0]->measurements[cursor.measurement];
            if (q.spec.window_ns != 0 && q.spec.window_ns < UINT64_C(1) << 48)
                q.spec.window_ns = UINT64_C(1) << 48;
            mir_tlog_scan scan = scan_of(&q);
            scan.bytes_max = 64 << 20;
            mir_tlog_totals totals = totals_of(&q, &scan, 0);
            if (mir_tlog_scan_init(&scan) == MIR_OK) {
                (void)!mir_tlog_scan_rows(&scan, cursor.device, q.first_ns, q.last_ns, q.spec.limit,
                                          q.spec.backward);
                if (totals.functions != 0)
                    (void)!mir_tlog_scan_totals(&scan, cursor.device, q.first_ns, q.last_ns,
                                                &totals);
            }
            mir_tlog_totals_free(&totals);
            mir_tlog_scan_fini(&scan);
        }
        mir_tlog_index_fini(&cursor);
        mir_tlog_segment_release(q.segments[0]);
    }
    free(bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    mir_tlog_codec codec;
    if (size < 4 || mir_tlog_codec_init(&codec) != MIR_OK) return 0;
    switch (fuzz_byte(&in) % 4) {
    case 1: any(&in, &codec); break;
    case 3: rolled(&in, &codec); break;
    default: made(&in, &codec);
    }
    mir_tlog_codec_fini(&codec);
    return 0;
}
