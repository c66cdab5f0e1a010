/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_oracle.h"

/* What a scan holds of the indexes of many segments is counted with the rest of its query. */

enum { SEGMENTS = 24, DEVICES = 600 };

static const mir_view measurement = MIR_VIEW_LITERAL("m.v1.T");

typedef struct fixture {
    sim_disk *disk;
    mir_tlog *tlog;
    atomic_ullong bytes;
    mir_tlog_query_spec spec;
    mir_tlog_scan scan;
} fixture;

/* Long, so that blocks of the index are as large as they get. */
static mir_view device_of(uint32_t number, char text[200])
{
    const int size = snprintf(text, 200, "%04u%0150u", number, number);
    return mir_view_of(text, (size_t)size);
}

static void settle(fixture *x)
{
    mir_error error = {{0}};
    if (mir_tlog_settle(x->tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
}

/* Each segment has a row of each device, of a day of its own so that none are merged. */
static void fixture_init(fixture *x)
{
    static const mir_column column[] = {{"i", 1, MIR_COLUMN_I64}};
    mir_log_set_level(MIR_LOG_ERROR);
    *x = (fixture){.disk = sim_disk_new(5)};
    const mir_tlog_options options = {
        .directory = "/tlog", .files = &x->disk->files, .log_bytes_max = 8 << 20, .sync_ms = 1};
    assert_int_equal(mir_tlog_open(&options, &x->tlog, NULL), MIR_OK);
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 1, 1, 64), MIR_OK);
    for (int64_t day = 0; day < SEGMENTS; day++) {
        for (uint32_t d = 0; d < DEVICES; d++) {
            char text[200];
            mir_tlog_series *series;
            assert_int_equal(
                mir_tlog_series_open(writer, device_of(d, text), measurement, column, 1, &series),
                MIR_OK);
            row.column_count = 1;
            row.present[0] = 1;
            row.time_ns = day * 86400 * MIR_NS_PER_S + d;
            row.cells[0].i64 = d;
            assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
        while (mir_tlog_freeze(writer) != MIR_OK) {
            assert_true(mir_clock_mono_ns() < until);
            sim_pause_us(200);
        }
        settle(x);
    }
    mir_row_fini(&row);
    x->spec =
        (mir_tlog_query_spec){.measurement = measurement, .from_ns = INT64_MIN, .to_ns = INT64_MAX};
}

static void fixture_fini(fixture *x)
{
    mir_tlog_close(x->tlog);
    sim_disk_free(x->disk);
}

static void scan_begin(fixture *x, uint64_t bytes_max)
{
    x->scan = (mir_tlog_scan){.tlog = x->tlog,
                              .spec = &x->spec,
                              .version = mir_tlog_version_acquire(x->tlog),
                              .bytes = &x->bytes,
                              .bytes_max = bytes_max};
    assert_int_equal(mir_tlog_scan_init(&x->scan), MIR_OK);
    assert_int_equal(x->scan.version->segment_count, SEGMENTS);
}

static void scan_end(fixture *x)
{
    mir_tlog_scan_fini(&x->scan);
    mir_tlog_version_release(x->scan.version);
    assert_int_equal(atomic_load(&x->bytes), 0);
}

/* Blocks of indexes and lists of chunks. */
static uint64_t held(const fixture *x)
{
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < SEGMENTS; i++) {
        const mir_tlog_index_cursor *cursor = &x->scan.cursors[i];
        if (cursor->raw != NULL) bytes += sizeof *cursor->raw + cursor->raw->size;
        bytes += cursor->chunk_capacity * sizeof *cursor->chunks;
    }
    return bytes;
}

static uint64_t besides(const fixture *x)
{
    return x->scan.gather.bytes + x->scan.source_capacity * sizeof *x->scan.sources +
           (SEGMENTS + 1) * sizeof *x->scan.cursors;
}

static void blocks_of_indexes_are_counted(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    scan_begin(&x, UINT64_C(1) << 30);
    uint64_t most = 0;
    for (uint32_t d = 0; d < DEVICES; d += 7) {
        char text[200];
        assert_int_equal(
            mir_tlog_scan_rows(&x.scan, device_of(d, text), INT64_MIN, INT64_MAX, 0, false),
            MIR_OK);
        assert_int_equal(x.scan.gather.row_count, SEGMENTS);
        assert_int_equal(atomic_load(&x.bytes), held(&x) + besides(&x));
        if (held(&x) > most) most = held(&x);
    }
    assert_true(most > SEGMENTS * MIR_TLOG_INDEX_BLOCK_BYTES / 2);
    scan_end(&x);
    fixture_fini(&x);
}

/* With less room than all of them would take, a few are held, and all rows are found. */
static void few_are_held_where_there_is_little_room(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    for (uint64_t bytes_max = 1 << 20; bytes_max >= 1 << 17; bytes_max /= 2) {
        scan_begin(&x, bytes_max);
        for (uint32_t d = 0; d < DEVICES; d += 7) {
            char text[200];
            assert_int_equal(
                mir_tlog_scan_rows(&x.scan, device_of(d, text), INT64_MIN, INT64_MAX, 0, false),
                MIR_OK);
            assert_int_equal(x.scan.gather.row_count, SEGMENTS);
            assert_int_equal(atomic_load(&x.bytes), held(&x) + besides(&x));
            assert_true(held(&x) <= bytes_max / 32);
        }
        scan_end(&x);
    }
    /* Where not even one has room it is said. */
    char text[200];
    scan_begin(&x, 8000);
    assert_int_equal(
        mir_tlog_scan_rows(&x.scan, device_of(7, text), INT64_MIN, INT64_MAX, 0, false),
        MIR_E_TOO_LARGE);
    assert_non_null(strstr(x.scan.error.text, "needs more than 8000 bytes"));
    scan_end(&x);
    fixture_fini(&x);
}

/* ---- Rows that overlap ---- */

enum { OVERLAPPING = 30000, LOGS = 3 };

/* Each log has rows of all of the time; the last one has some of the others' once more. */
static void overlapping_init(fixture *x, bool in_memory)
{
    static const mir_column column[] = {{"i", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};
    static const char *const words[] = {"one", "", "some more words"};
    mir_log_set_level(MIR_LOG_ERROR);
    *x = (fixture){.disk = sim_disk_new(6)};
    const mir_tlog_options options = {
        .directory = "/tlog", .files = &x->disk->files, .log_bytes_max = 24 << 20, .sync_ms = 1};
    assert_int_equal(mir_tlog_open(&options, &x->tlog, NULL), MIR_OK);
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_row row;
    mir_tlog_series *series;
    assert_int_equal(mir_row_init(&row, 2, 1, 64), MIR_OK);
    assert_int_equal(
        mir_tlog_series_open(writer, mir_view_cstr("d"), measurement, column, 2, &series), MIR_OK);
    row.column_count = 2;
    for (int64_t log = 0; log < LOGS; log++) {
        for (int64_t n = log; n < OVERLAPPING; n += log == LOGS - 1 ? 5 : LOGS - 1) {
            row.present[0] = 3;
            row.time_ns = n * n;
            row.cells[0].i64 = log == LOGS - 1 ? -n : n;
            row.cells[1].string = mir_view_cstr(words[n % 3]);
            assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        }
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        if (in_memory && log == LOGS - 1) break;
        const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
        while (mir_tlog_freeze(writer) != MIR_OK) {
            assert_true(mir_clock_mono_ns() < until);
            sim_pause_us(200);
        }
        settle(x);
    }
    mir_row_fini(&row);
}

static bool is_again(int64_t n)
{
    return n >= LOGS - 1 && (n - (LOGS - 1)) % 5 == 0;
}

static sim_inode *file_of(sim_disk *disk, uint64_t id)
{
    char name[64];
    (void)snprintf(name, sizeof name, "/tlog/%016llx.seg", (unsigned long long)id);
    sim_entry *entry = sim_find(disk, name);
    assert_non_null(entry);
    return entry->inode;
}

typedef struct blocks {
    int64_t next; /* the number of the row that comes next */
} blocks;

static mir_status blocks_take(void *context, const mir_tlog_rows *block)
{
    blocks *b = context;
    for (uint32_t row = 0; row < block->row_count; row++, b->next++) {
        assert_int_equal(block->times_ns[row], b->next * b->next);
        assert_int_equal(block->columns[0].values[row], is_again(b->next) ? -b->next : b->next);
    }
    return MIR_OK;
}

/* The answer is the same with a bound that all rows together are over. */
static void compare_bounds(fixture *x, mir_tlog_query_spec *spec, uint64_t rows)
{
    oracle_sink sinks[2] = {0};
    for (int i = 0; i < 2; i++) {
        const mir_tlog_sink to = oracle_sink_of(&sinks[i]);
        mir_error error = {{0}};
        mir_tlog_query_info info;
        spec->bytes_max = i == 0 ? UINT64_C(1) << 30 : 300000;
        if (mir_tlog_query(x->tlog, spec, &to, &info, &error) != MIR_OK) fail_msg("%s", error.text);
        assert_int_equal(info.chunks_corrupt, 0);
        assert_int_equal(sinks[i].rows, rows);
    }
    assert_int_equal(sinks[0].answer.count, sinks[1].answer.count);
    for (size_t i = 0; i < sinks[0].answer.count; i++) {
        const oracle_field *one = &sinks[0].answer.fields[i];
        const oracle_field *other = &sinks[1].answer.fields[i];
        assert_int_equal(oracle_compare_key(one, other), 0);
        assert_int_equal(one->bits, other->bits);
    }
    for (int i = 0; i < 2; i++) oracle_free(&sinks[i].answer);
}

/* Where they are more than may be in memory they are put in order piece by piece. */
static void what_overlaps_is_read_in_bounded_memory(void **state)
{
    (void)state;
    const mir_view device = mir_view_cstr("d");
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        fixture x;
        overlapping_init(&x, in_memory);
        mir_tlog_query_spec spec = {.device_ids = &device,
                                    .device_count = 1,
                                    .measurement = measurement,
                                    .from_ns = 0,
                                    .to_ns = INT64_MAX};
        static const uint32_t functions[] = {
            MIR_TLOG_SUM | MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST, MIR_TLOG_LAST,
            MIR_TLOG_RATE | MIR_TLOG_MIN | MIR_TLOG_MAX};
        for (int kind = 0; kind < 6; kind++) {
            spec.functions = functions[kind / 2];
            spec.window_ns = kind % 2 == 0 ? 0 : (uint64_t)OVERLAPPING * OVERLAPPING / 7;
            compare_bounds(&x, &spec, kind % 2 == 0 ? 1 : 7);
        }
        spec.functions = 0;
        spec.window_ns = 0;
        blocks got = {0};
        mir_error error = {{0}};
        if (mir_tlog_read(x.tlog, &spec, blocks_take, &got, NULL, &error) != MIR_OK)
            fail_msg("%s", error.text);
        assert_int_equal(got.next, OVERLAPPING);
        /* Damage counts once, in however many pieces a chunk is read. */
        mir_tlog_version *version = mir_tlog_version_acquire(x.tlog);
        sim_inode *inode = file_of(x.disk, version->segments[0]->head.id);
        inode->data[MIR_TLOG_SEGMENT_HEADER_BYTES + 40] ^= 1;
        mir_tlog_version_release(version);
        mir_tlog_query_info info;
        spec.functions = MIR_TLOG_COUNT | MIR_TLOG_SUM;
        oracle_sink sink = {0};
        const mir_tlog_sink to = oracle_sink_of(&sink);
        assert_int_equal(mir_tlog_query(x.tlog, &spec, &to, &info, &error), MIR_OK);
        assert_int_equal(info.chunks_corrupt, 1);
        oracle_free(&sink.answer);
        /* What is to be answered has to have room in any case. */
        spec.functions = 0;
        assert_int_equal(mir_tlog_query(x.tlog, &spec, &to, &info, &error), MIR_E_TOO_LARGE);
        fixture_fini(&x);
    }
}

static mir_status rows_count(void *context, const mir_tlog_rows *block)
{
    *(uint64_t *)context += block->row_count;
    return MIR_OK;
}

/* Long texts of rows that are not asked for make room, and nothing else goes with them. */
static void texts_make_room_for_rows_and_cost_none(void **state)
{
    (void)state;
    enum { TEXTS = 2000, TEXT_BYTES = 200, ASKED = 10, ROWS = 20000, STEP = 4096 };
    static const mir_column with_text[] = {{"i", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};
    static char text[TEXT_BYTES + 1];
    const mir_view device = mir_view_cstr("d");
    for (int in_memory = 0; in_memory < 2; in_memory++) {
        fixture x = {.disk = sim_disk_new(7)};
        const mir_tlog_options options = {
            .directory = "/tlog", .files = &x.disk->files, .log_bytes_max = 24 << 20, .sync_ms = 1};
        assert_int_equal(mir_tlog_open(&options, &x.tlog, NULL), MIR_OK);
        mir_tlog_writer *writer = mir_tlog_writer_of(x.tlog, 0);
        mir_row row;
        mir_tlog_series *series;
        assert_int_equal(mir_row_init(&row, 2, 1, 64), MIR_OK);
        const int64_t from_ns = (int64_t)(TEXTS - ASKED) * ROWS;
        for (int log = 0; log < 2; log++) {
            assert_int_equal(mir_tlog_series_open(writer, device, measurement, with_text,
                                                  log == 0 ? 2 : 1, &series),
                             MIR_OK);
            row.column_count = log == 0 ? 2 : 1;
            for (int64_t n = 0; n < (log == 0 ? TEXTS : ROWS); n++) {
                (void)snprintf(text, sizeof text, "%0*lld", TEXT_BYTES, (long long)(n * n));
                row.present[0] = log == 0 ? 3 : 1;
                row.time_ns = log == 0 ? n * ROWS : from_ns + 1 + n * ASKED;
                row.cells[0].i64 = n;
                row.cells[1].string = mir_view_cstr(text);
                assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
            }
            assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
            if (in_memory && log == 1) break;
            const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
            while (mir_tlog_freeze(writer) != MIR_OK) {
                assert_true(mir_clock_mono_ns() < until);
                sim_pause_us(200);
            }
            settle(&x);
        }
        uint32_t told = 0;
        for (uint64_t bytes_max = STEP; bytes_max < 3 << 20; bytes_max += STEP) {
            const mir_tlog_query_spec spec = {.device_ids = &device,
                                              .device_count = 1,
                                              .measurement = measurement,
                                              .from_ns = from_ns,
                                              .to_ns = INT64_MAX,
                                              .bytes_max = bytes_max};
            uint64_t count = 0;
            const mir_status status = mir_tlog_read(x.tlog, &spec, rows_count, &count, NULL, NULL);
            if (status == MIR_E_TOO_LARGE) continue;
            assert_int_equal(status, MIR_OK);
            if (count != ASKED + ROWS) {
                fail_msg("%llu rows with %llu bytes", (unsigned long long)count,
                         (unsigned long long)bytes_max);
            }
            told++;
        }
        assert_true(told > 0);
        mir_row_fini(&row);
        fixture_fini(&x);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_indexes_are_counted),
        cmocka_unit_test(few_are_held_where_there_is_little_room),
        cmocka_unit_test(what_overlaps_is_read_in_bounded_memory),
        cmocka_unit_test(texts_make_room_for_rows_and_cost_none),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
