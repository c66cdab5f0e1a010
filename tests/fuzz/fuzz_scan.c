/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of segments that the log's own writer made of arbitrary rows: rows come back as they were, and
 * what functions say of them, from statistics, sums of packed bytes and single times, is what the rows
 * come to. Then some bytes are others: what is still there is right, and what is missing is said. Or the
 * input is a segment, whose checksums are put right: anything may be in it, and is kept within bounds. */
#include <math.h>

#include "fuzz_repair.h"
#include "fuzz_segment.h"
#include "mir_tlog_number.h"
#include "mir_tlog_part.h"

enum { SEGMENTS = 2, WINDOWS_MAX = 4000 };

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
} question;

static mir_tlog_scan scan_of(question *q)
{
    q->version.segments = q->segments;
    atomic_store(&q->bytes, 0);
    return (mir_tlog_scan){.tlog = &tlog,
                           .spec = &q->spec,
                           .version = &q->version,
                           .bytes = &q->bytes,
                           .bytes_max = UINT64_MAX / 2};
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
    static const uint64_t windows[] = {0, 1, 7, 128, 1000, 60000, 1000000, 1000000000};
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
static void rows_wanted(const question *q, const fuzz_rows *all, fuzz_rows *wanted)
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
    mir_tlog_total total;
    double magnitude; /* of a sum of doubles: what an error of it is measured by */
    uint32_t first;   /* rows */
    uint32_t last;
} expected;

static void expect(const question *q, const mir_tlog_totals *totals, const fuzz_rows *rows,
                   uint32_t c, int64_t window, uint32_t *row, expected *e)
{
    const mir_column_type type = fuzz_columns[c].type;
    (void)q;
    *e = (expected){.magnitude = 0};
    for (; *row < rows->count; ++*row) {
        if (mir_tlog_window_of(totals, rows->times[*row]) != window) break;
        if (rows->present[c][*row] == 0) continue;
        const uint64_t value = rows->values[c][*row];
        if (e->total.count++ == 0) {
            e->first = *row;
        }
        e->last = *row;
        if (type == MIR_COLUMN_STRING) continue;
        if (type == MIR_COLUMN_F64) {
            double number;
            memcpy(&number, &value, sizeof number);
            e->total.sum_f64 += number;
            e->magnitude += fabs(number);
            if (number != number) continue;
        } else {
            e->total.sum += type == MIR_COLUMN_I64 ? (__int128)(int64_t)value : (__int128)value;
        }
        if (!e->total.ordered || mir_tlog_less(type, value, e->total.low)) e->total.low = value;
        if (!e->total.ordered || mir_tlog_less(type, e->total.high, value)) e->total.high = value;
        e->total.ordered = true;
    }
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

static void total_check(uint32_t functions, uint32_t c, const fuzz_rows *rows,
                        const mir_tlog_total *got, const expected *e)
{
    const mir_column_type type = fuzz_columns[c].type;
    const bool last_only = functions == MIR_TLOG_LAST;
    MIR_ASSERT((got->count == 0) == (e->total.count == 0));
    if (got->count == 0) return;
    MIR_ASSERT(got->last_ns == rows->times[e->last]);
    const uint64_t *values = rows->values[c];
    if ((functions & MIR_TLOG_LAST) != 0)
        MIR_ASSERT(type == MIR_COLUMN_STRING ? same_text(values[e->last], got->last, got->high)
                                             : values[e->last] == got->last);
    /* Then not all of the rows are looked at. */
    if (last_only) return;
    MIR_ASSERT(got->count == e->total.count && got->first_ns == rows->times[e->first]);
    if ((functions & MIR_TLOG_FIRST) != 0)
        MIR_ASSERT(type == MIR_COLUMN_STRING ? same_text(values[e->first], got->first, got->low)
                                             : values[e->first] == got->first);
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
static void values_check(uint32_t functions, uint32_t c, const fuzz_rows *rows,
                         const mir_tlog_totals_column *column, const mir_tlog_totals *totals)
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

static void totals_find(question *q, const fuzz_rows *rows)
{
    const mir_view device = fuzz_devices[q->series % FUZZ_DEVICES];
    const uint32_t functions = q->spec.functions;
    mir_tlog_scan scan = scan_of(q);
    MIR_ASSERT(mir_tlog_scan_init(&scan) == MIR_OK);
    mir_tlog_totals totals = {.functions = functions,
                              .window_ns = q->spec.window_ns,
                              .window_from_ns = q->spec.window_from_ns,
                              .bytes = scan.bytes,
                              .bytes_max = scan.bytes_max};
    MIR_ASSERT(mir_tlog_scan_totals(&scan, device, q->first_ns, q->last_ns, &totals) == MIR_OK);
    for (uint32_t w = 1; w < totals.window_count; w++)
        MIR_ASSERT(totals.windows[w - 1] < totals.windows[w]);
    for (uint32_t i = 0; i < totals.set.count; i++) {
        const mir_column *named = &totals.set.columns[i];
        const uint32_t c = fuzz_column_of(mir_tlog_column_name(named), named->type);
        MIR_ASSERT(c < FUZZ_COLUMNS && is_wanted(q, c));
        uint32_t row = 0;
        for (uint32_t w = 0; w < totals.window_count; w++) {
            expected e;
            expect(q, &totals, rows, c, totals.windows[w], &row, &e);
            total_check(functions, c, rows, &totals.columns[i].totals[w], &e);
        }
        MIR_ASSERT(row == rows->count);
        if ((functions & (MIR_TLOG_RATE | MIR_TLOG_PERCENTILE)) != 0 &&
            mir_tlog_is_number(named->type))
            values_check(functions, c, rows, &totals.columns[i], &totals);
    }
    for (uint32_t c = 0; c < FUZZ_COLUMNS; c++) {
        if (memchr(rows->present[c], 1, rows->count) == NULL) continue;
        uint32_t i = 0;
        while (i < totals.set.count && fuzz_column_of(mir_tlog_column_name(&totals.set.columns[i]),
                                                      totals.set.columns[i].type) != c)
            i++;
        MIR_ASSERT(i < totals.set.count);
    }
    mir_tlog_totals_free(&totals);
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
    if (!missing || q->spec.functions != MIR_TLOG_LAST) totals_find(q, &found);
    parts_make(q);
}

static void made(fuzz_input *in, mir_tlog_codec *codec)
{
    static fuzz_made files[SEGMENTS];
    static fuzz_rows all[SEGMENTS][FUZZ_SERIES];
    static fuzz_rows both;
    question q = {.version = {0}};
    mir_tlog_files tables[SEGMENTS];
    const uint8_t count = 1 + fuzz_byte(in) % SEGMENTS;
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
    mir_tlog_segment_release(q.segments[0]);
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
            mir_tlog_totals totals = {.functions = q.spec.functions,
                                      .window_ns = q.spec.window_ns,
                                      .window_from_ns = q.spec.window_from_ns,
                                      .bytes = scan.bytes,
                                      .bytes_max = scan.bytes_max};
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
    if ((fuzz_byte(&in) & 1) != 0)
        any(&in, &codec);
    else
        made(&in, &codec);
    mir_tlog_codec_fini(&codec);
    return 0;
}
