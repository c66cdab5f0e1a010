/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_scan.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_sim.h"

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

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(blocks_of_indexes_are_counted),
        cmocka_unit_test(few_are_held_where_there_is_little_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
