/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <dirent.h>
#include <math.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_oracle.h"

/* A directory as each earlier format version has written it is in tests/data/telemetry-log: it must
 * be read for ever, with the answer that follows from how it was made, and nothing of it may be
 * taken for damage. `MIR_GOLDEN_WRITE=DIR` makes one of the present version, with MIR_GOLDEN_ROLLUPS
 * one of rollups; a released version's is never made anew. */

enum { DEVICES = 3, SEALED_ROWS = 400, LOGGED_ROWS = 40, TEXT_BYTES = 3000 };

static const mir_view ids[DEVICES] = {MIR_VIEW_LITERAL("golden-a"), MIR_VIEW_LITERAL("golden-b"),
                                      MIR_VIEW_LITERAL("golden-c")};
static const mir_column columns[] = {
    {"b", 1, MIR_COLUMN_BOOL},   {"dec", 3, MIR_COLUMN_F64}, {"i", 1, MIR_COLUMN_I64},
    {"s", 1, MIR_COLUMN_STRING}, {"u", 1, MIR_COLUMN_U64},   {"walk", 4, MIR_COLUMN_F64},
};
enum { COLUMNS = sizeof columns / sizeof columns[0] };

static char text[TEXT_BYTES];

static double walk_of(uint32_t n)
{
    uint64_t random = n;
    return 20 + (double)(sim_random(&random) >> 11) / 9007199254740992.0;
}

/* Row n, as it was stored by whoever made the directory. */
static void row_of(uint32_t n, mir_row *row)
{
    uint64_t random = 1000 + n;
    const uint64_t r = sim_random(&random);
    row->time_ns = INT64_C(1790000000000000000) + (int64_t)n * 1000000000 + (int64_t)(r % 40000000);
    if (n % 100 == 7) row->time_ns -= INT64_C(2) * 86400 * 1000000000;
    row->column_count = COLUMNS;
    row->present[0] = n % 10 == 3 ? 0x15 : 0x3f;
    row->cells[0].boolean = r & 1;
    row->cells[1].f64 = n % 50 == 9 ? NAN : (double)(r % 10000) / 100;
    row->cells[2].i64 = n % 40 == 0 ? INT64_MIN : n % 40 == 1 ? INT64_MAX : (int64_t)(r % 3) + n;
    row->cells[3].string = mir_view_of(text, n == 55 ? sizeof text : r / 16 % 5 * 3);
    row->cells[4].u64 = n % 40 == 2 ? UINT64_MAX : r % 100;
    row->cells[5].f64 = n % 60 == 5 ? -0.0 : walk_of(n);
    row->dynamic_count = n % 25 == 0 ? 1 : 0;
    row->dynamic[0].name = mir_view_cstr("list_0");
    row->dynamic[0].type = MIR_COLUMN_I64;
    row->dynamic[0].value.i64 = n;
}

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    for (size_t i = 0; i < sizeof text; i++) text[i] = (char)('a' + i % 26);
    return 0;
}

static mir_tlog *open_with(const mir_tlog_options *options)
{
    mir_tlog *tlog = NULL;
    mir_error error = {{0}};
    if (mir_tlog_open(options, &tlog, &error) != MIR_OK) fail_msg("open: %s", error.text);
    return tlog;
}

static mir_tlog *open_directory(const char *directory)
{
    const mir_tlog_options options = {
        .directory = directory, .writer_count = 1, .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN};
    return open_with(&options);
}

static void put(mir_tlog *tlog, mir_row *row, uint32_t first, uint32_t end)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    for (uint32_t n = first; n < end; n++) {
        mir_tlog_series *series;
        row_of(n, row);
        assert_int_equal(mir_tlog_series_open(writer, ids[n % DEVICES], mir_view_cstr("golden.T"),
                                              columns, COLUMNS, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
}

static void seal(mir_tlog *tlog)
{
    mir_error error = {{0}};
    while (mir_tlog_freeze(mir_tlog_writer_of(tlog, 0)) != MIR_OK) sim_pause_us(200);
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
}

static int64_t ten_days_later(void)
{
    return INT64_C(1790000000000000000) + INT64_C(10) * 86400 * 1000000000;
}

/* Minutes, tens of minutes and hours, and none of the rows. */
static void write_rollups(const char *directory)
{
    mir_row row;
    assert_int_equal(mir_row_init(&row, 16, 16, 1024), MIR_OK);
    const mir_tlog_options options = {.directory = directory,
                                      .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN,
                                      .retention_age_ns = UINT64_C(3600000000000),
                                      .rollups = {{.on = true}, {.on = true}, {.on = true}},
                                      .wall_ns = ten_days_later};
    mir_tlog *tlog = open_with(&options);
    put(tlog, &row, 0, SEALED_ROWS);
    seal(tlog);
    mir_tlog_close(tlog);
    mir_row_fini(&row);
}

/* Segments of several days, and a log that no segment has. */
static void write_directory(const char *directory)
{
    mir_row row;
    assert_int_equal(mir_row_init(&row, 16, 16, 1024), MIR_OK);
    mir_tlog *tlog = open_directory(directory);
    put(tlog, &row, 0, SEALED_ROWS);
    seal(tlog);
    put(tlog, &row, SEALED_ROWS, SEALED_ROWS + LOGGED_ROWS);
    mir_tlog_close(tlog);
    mir_row_fini(&row);
}

static void copy_file(const char *from, const char *to)
{
    FILE *in = fopen(from, "rb");
    FILE *out = fopen(to, "wb");
    if (in == NULL || out == NULL) abort();
    static uint8_t bytes[65536];
    for (size_t size; (size = fread(bytes, 1, sizeof bytes, in)) > 0;) {
        assert_int_equal(fwrite(bytes, 1, size, out), size);
    }
    assert_int_equal(fclose(in), 0);
    assert_int_equal(fclose(out), 0);
}

static void each_file(const char *directory, const char *to)
{
    DIR *dir = opendir(directory);
    if (dir == NULL) {
        fail_msg("no directory is at %s", directory);
        return;
    }
    for (struct dirent *entry; (entry = readdir(dir)) != NULL;) {
        if (entry->d_name[0] == '.') continue;
        char from[1024];
        char path[1024];
        (void)snprintf(from, sizeof from, "%s/%s", directory, entry->d_name);
        (void)snprintf(path, sizeof path, "%s/%s", to, entry->d_name);
        if (to[0] == '\0') {
            assert_int_equal(unlink(from), 0);
        } else {
            copy_file(from, path);
        }
    }
    (void)closedir(dir);
}

static void check_directory(const char *directory, uint64_t rows_in_segments)
{
    mir_row row;
    assert_int_equal(mir_row_init(&row, 16, 16, 1024), MIR_OK);
    oracle want = {0};
    for (uint32_t n = 0; n < SEALED_ROWS + LOGGED_ROWS; n++) {
        row_of(n, &row);
        oracle_add_row(&want, n % DEVICES, columns, &row);
    }
    oracle_fold(&want);
    mir_tlog *tlog = open_directory(directory);
    mir_tlog_stats stats;
    mir_tlog_stats_read(tlog, &stats, NULL);
    assert_int_equal(stats.corrupt_chunks + stats.corrupt_frames + stats.torn_bytes_cut, 0);
    assert_int_equal(stats.replayed_rows, LOGGED_ROWS);
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    const mir_tlog_query_spec spec = {.device_ids = ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("golden.T"),
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    mir_tlog_query_info info;
    mir_error error = {{0}};
    if (mir_tlog_query(tlog, &spec, &to, &info, &error) != MIR_OK) fail_msg("%s", error.text);
    assert_int_equal(info.chunks_corrupt, 0);
    assert_int_equal(info.rows, rows_in_segments + LOGGED_ROWS);
    assert_int_equal(sink.answer.count, want.count);
    for (size_t i = 0; i < want.count; i++) {
        assert_int_equal(oracle_compare_key(&sink.answer.fields[i], &want.fields[i]), 0);
        assert_int_equal(sink.answer.fields[i].bits, want.fields[i].bits);
    }
    oracle_free(&sink.answer);
    oracle_free(&want);
    mir_tlog_close(tlog);
    mir_row_fini(&row);
}

/* What rollups answer is what the rows do. */
static void check_rollups(const char *directory)
{
    static const uint32_t functions =
        MIR_TLOG_MIN | MIR_TLOG_MAX | MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST;
    static const mir_view integers[] = {MIR_VIEW_LITERAL("i"), MIR_VIEW_LITERAL("u"),
                                        MIR_VIEW_LITERAL("list_0")};
    static const uint64_t windows_ns[] = {0, 60000000000, 600000000000, 3600000000000};
    mir_row row;
    assert_int_equal(mir_row_init(&row, 16, 16, 1024), MIR_OK);
    sim_disk *disk = sim_disk_new(1);
    const mir_tlog_options options = {
        .directory = "/rows", .files = &disk->files, .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN};
    mir_tlog *logs[2] = {open_with(&options), open_directory(directory)};
    put(logs[0], &row, 0, SEALED_ROWS);
    mir_tlog_retention told;
    mir_tlog_retention_read(logs[1], &told);
    assert_int_equal(told.rows, 0);
    for (int step = 0; step < MIR_TLOG_ROLLUPS; step++) assert_true(told.rollup_rows[step] > 0);
    for (size_t w = 0; w < 2 * sizeof windows_ns / sizeof windows_ns[0]; w++) {
        mir_tlog_query_spec spec = {.device_ids = ids,
                                    .device_count = DEVICES,
                                    .measurement = mir_view_cstr("golden.T"),
                                    .functions = functions,
                                    .window_ns = windows_ns[w / 2],
                                    .from_ns = INT64_MIN,
                                    .to_ns = INT64_MAX};
        if (w % 2 == 1) { /* sums of these are exact */
            spec.functions |= MIR_TLOG_SUM;
            spec.fields = integers;
            spec.field_count = 3;
        }
        oracle_sink sinks[2] = {0};
        for (int i = 0; i < 2; i++) {
            const mir_tlog_sink to = oracle_sink_of(&sinks[i]);
            mir_tlog_query_info info;
            assert_int_equal(mir_tlog_query(logs[i], &spec, &to, &info, NULL), MIR_OK);
            assert_int_equal(info.chunks_corrupt, 0);
            assert_false(info.left_out);
        }
        assert_true(sinks[0].answer.count > 0);
        assert_int_equal(sinks[0].answer.count, sinks[1].answer.count);
        for (size_t i = 0; i < sinks[0].answer.count; i++) {
            const oracle_field *want = &sinks[0].answer.fields[i];
            const oracle_field *found = &sinks[1].answer.fields[i];
            assert_int_equal(oracle_compare_key(want, found), 0);
            assert_int_equal(want->bits, found->bits);
        }
        for (int i = 0; i < 2; i++) oracle_free(&sinks[i].answer);
    }
    for (int i = 0; i < 2; i++) mir_tlog_close(logs[i]);
    sim_disk_free(disk);
    mir_row_fini(&row);
}

static void in_a_fresh_directory(void (*run)(const char *directory, const char *from),
                                 const char *from)
{
    char directory[] = "/tmp/mir-golden-XXXXXX";
    assert_non_null(mkdtemp(directory));
    run(directory, from);
    each_file(directory, "");
    assert_int_equal(rmdir(directory), 0);
}

static void read_copy(const char *directory, const char *from)
{
    each_file(from, directory);
    check_directory(directory, SEALED_ROWS);
}

static void a_directory_of_version_1_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_copy, MIR_SOURCE_DIR "/tests/data/telemetry-log/1");
}

static void a_directory_of_version_2_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_copy, MIR_SOURCE_DIR "/tests/data/telemetry-log/2");
}

static void a_directory_of_version_3_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_copy, MIR_SOURCE_DIR "/tests/data/telemetry-log/3");
}

/* Made since the index and the footer are in it twice. */
static void one_with_a_second_index_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_copy, MIR_SOURCE_DIR "/tests/data/telemetry-log/3-twice");
}

/* Made since these are a page away from the first ones. */
static void one_with_a_gap_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_copy, MIR_SOURCE_DIR "/tests/data/telemetry-log/3-apart");
}

static void read_rollups(const char *directory, const char *from)
{
    each_file(from, directory);
    check_rollups(directory);
}

static void rollups_of_version_2_are_read(void **state)
{
    (void)state;
    in_a_fresh_directory(read_rollups, MIR_SOURCE_DIR "/tests/data/telemetry-log/2-rollups");
}

static void write_and_read_rollups(const char *directory, const char *from)
{
    (void)from;
    write_rollups(directory);
    check_rollups(directory);
}

static void write_and_read(const char *directory, const char *from)
{
    (void)from;
    write_directory(directory);
    check_directory(directory, SEALED_ROWS);
}

static void what_is_written_now_is_read(void **state)
{
    (void)state;
    in_a_fresh_directory(write_and_read, NULL);
    in_a_fresh_directory(write_and_read_rollups, NULL);
}

int main(void)
{
    const char *directory = getenv("MIR_GOLDEN_WRITE");
    if (directory != NULL) {
        (void)setup(NULL);
        if (getenv("MIR_GOLDEN_ROLLUPS") != NULL) {
            write_rollups(directory);
        } else {
            write_directory(directory);
        }
        return 0;
    }
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_directory_of_version_1_is_read),
        cmocka_unit_test(a_directory_of_version_2_is_read),
        cmocka_unit_test(a_directory_of_version_3_is_read),
        cmocka_unit_test(one_with_a_second_index_is_read),
        cmocka_unit_test(one_with_a_gap_is_read),
        cmocka_unit_test(rollups_of_version_2_are_read),
        cmocka_unit_test(what_is_written_now_is_read),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
