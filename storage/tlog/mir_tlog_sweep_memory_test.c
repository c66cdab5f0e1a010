/* SPDX-License-Identifier: Apache-2.0 */
#include <malloc.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_oracle.h"

/* One device sends thousands of rows a second. Merging and rolling up its hour take no more memory than
 * for any other. */

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { PER_SECOND = 20, MEASURED = 0 };
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
enum { PER_SECOND = 20, MEASURED = 0 };
#else
enum { PER_SECOND = 1000, MEASURED = 1 };
#endif
#else
enum { PER_SECOND = 1000, MEASURED = 1 };
#endif

/* So many logs have rows of all of the hour: then they are merged. */
enum { PARTS = 8 };
enum { SECONDS = 3600, ROWS = SECONDS * PER_SECOND, AGAIN = 1009, PEAK_MIB = 48 };

static const int64_t MINUTE_NS = 60 * MIR_NS_PER_S;
static const int64_t START_NS = INT64_C(1790035200) * MIR_NS_PER_S; /* midnight */
static const int64_t STEP_NS = MIR_NS_PER_S / PER_SECOND;

static const mir_column columns[] = {
    {"f", 1, MIR_COLUMN_F64}, {"i", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};
static const char *const words[] = {"idle", "running", "", "halted because of a jam"};

static _Atomic int64_t now_ns;

static int64_t wall_ns(void)
{
    return now_ns;
}

static void settle(mir_tlog *tlog)
{
    mir_error error = {{0}};
    if (mir_tlog_settle(tlog, 100000, &error) != MIR_OK) fail_msg("%s", error.text);
}

static uint64_t word_of(uint64_t n)
{
    return n * n % 7 & 3;
}

/* Every so many rows are sent a second time, with another value. */
static int64_t value_of(int64_t n, bool again)
{
    return again ? -n : n * n % 1000003 - 500000;
}

static bool is_sent_again(int64_t n)
{
    return n % AGAIN == 5;
}

/* At random, so that chunks of one begin within those of the others. The last one is small. */
static int64_t part_of(int64_t n)
{
    uint64_t state = (uint64_t)n;
    const uint64_t random = sim_random(&state);
    return random % 64 == 7 ? PARTS - 1 : (int64_t)(random >> 8) % (PARTS - 1);
}

static void put_rows(mir_tlog *tlog, int64_t part, bool again)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    mir_tlog_series *series;
    mir_row row;
    assert_int_equal(mir_row_init(&row, 4, 1, 64), MIR_OK);
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr("d"), mir_view_cstr("m.v1.T"),
                                          columns, 3, &series),
                     MIR_OK);
    row.column_count = 3;
    for (int64_t n = 0; n < ROWS; n++) {
        if (again ? !is_sent_again(n) : part_of(n) != part) continue;
        row.time_ns = START_NS + n * STEP_NS;
        row.present[0] = again ? 2 : 7;
        row.cells[0].f64 = (double)(n % 4096) / 4;
        row.cells[1].i64 = value_of(n, again);
        row.cells[2].string = mir_view_cstr(words[word_of((uint64_t)n)]);
        const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
        while (mir_tlog_append(writer, series, &row) != MIR_OK) {
            assert_true(mir_clock_mono_ns() < until);
            assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
            sim_pause_us(1000);
        }
        if (n % 1024 == 0) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    while (mir_tlog_freeze(writer) != MIR_OK) sim_pause_us(1000);
    mir_row_fini(&row);
    settle(tlog);
}

static uint64_t memory_kb(const char *what)
{
    char line[128];
    uint64_t found = 0;
    FILE *status = fopen("/proc/self/status", "r");
    assert_non_null(status);
    while (fgets(line, sizeof line, status) != NULL) {
        if (strncmp(line, what, strlen(what)) == 0) found = strtoull(line + strlen(what), NULL, 10);
    }
    (void)fclose(status);
    assert_true(found > 0);
    return found;
}

/* From now on the peak is that of what comes. */
static uint64_t peak_begin(void)
{
    if (!MEASURED) return 0;
    (void)malloc_trim(0);
    FILE *refs = fopen("/proc/self/clear_refs", "w");
    const bool written = refs != NULL && fputs("5", refs) >= 0;
    if (refs == NULL || fclose(refs) != 0 || !written) skip();
    return memory_kb("VmRSS:");
}

static void peak_end(const char *what, uint64_t before_kb)
{
    if (!MEASURED) return;
    const uint64_t peak_kb = memory_kb("VmHWM:") - before_kb;
    print_message("rows of one hour are %s with %llu KiB at most\n", what,
                  (unsigned long long)peak_kb);
    assert_true(peak_kb < PEAK_MIB << 10);
}

static void check(mir_tlog *tlog)
{
    const mir_view device = mir_view_cstr("d");
    const mir_tlog_query_spec spec = {.device_ids = &device,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .functions = MIR_TLOG_COUNT | MIR_TLOG_SUM | MIR_TLOG_MIN |
                                                   MIR_TLOG_MAX | MIR_TLOG_FIRST | MIR_TLOG_LAST,
                                      .window_ns = (uint64_t)MINUTE_NS,
                                      .from_ns = START_NS,
                                      .to_ns = START_NS + 60 * MINUTE_NS};
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    mir_tlog_query_info info;
    mir_error error = {{0}};
    if (mir_tlog_query(tlog, &spec, &to, &info, &error) != MIR_OK) fail_msg("%s", error.text);
    assert_false(info.left_out);
    assert_int_equal(sink.rows, 60);
    /* count, first, last of all; max, min, sum of the numbers */
    assert_int_equal(sink.answer.count, 60 * (3 * 3 + 3 * 2));
    for (size_t at = 0; at < sink.answer.count; at++) {
        const oracle_field *field = &sink.answer.fields[at];
        const int64_t minute = (field->time_ns - START_NS) / MINUTE_NS - 1;
        const int64_t first = minute * (ROWS / 60);
        const int64_t last = first + ROWS / 60 - 1;
        int64_t sum = 0;
        int64_t low = INT64_MAX;
        int64_t high = INT64_MIN;
        if (strcmp(field->name, "count(s)") == 0 || strcmp(field->name, "count(i)") == 0) {
            assert_int_equal(field->bits, ROWS / 60);
        } else if (strcmp(field->name, "first(s)") == 0) {
            assert_int_equal(field->bits,
                             mir_hash_view(mir_view_cstr(words[word_of((uint64_t)first)])));
        } else if (strcmp(field->name, "last(s)") == 0) {
            assert_int_equal(field->bits,
                             mir_hash_view(mir_view_cstr(words[word_of((uint64_t)last)])));
        }
        if (strstr(field->name, "(i)") == NULL) continue;
        for (int64_t n = first; n <= last; n++) {
            const int64_t value = value_of(n, is_sent_again(n));
            sum += value;
            if (value < low) low = value;
            if (value > high) high = value;
        }
        const int64_t got = (int64_t)field->bits;
        if (strcmp(field->name, "sum(i)") == 0) assert_int_equal(got, sum);
        if (strcmp(field->name, "min(i)") == 0) assert_int_equal(got, low);
        if (strcmp(field->name, "max(i)") == 0) assert_int_equal(got, high);
        if (strcmp(field->name, "first(i)") == 0)
            assert_int_equal(got, value_of(first, is_sent_again(first)));
        if (strcmp(field->name, "last(i)") == 0)
            assert_int_equal(got, value_of(last, is_sent_again(last)));
    }
    oracle_free(&sink.answer);
}

static uint64_t merges(mir_tlog *tlog)
{
    mir_tlog_stats stats;
    mir_tlog_stats_read(tlog, &stats, NULL);
    return stats.merges;
}

static void any_number_of_rows_is_merged_and_rolled_up(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    char directory[] = "/tmp/mir-sweep-XXXXXX";
    assert_non_null(mkdtemp(directory));
    now_ns = START_NS + 60 * MINUTE_NS;
    const mir_tlog_options options = {.directory = directory,
                                      .log_bytes_max = 96 << 20,
                                      .sync_ms = 100,
                                      .idle_ms = 1000000, /* nothing is sealed by itself */
                                      .retention_age_ns = (uint64_t)(180 * MINUTE_NS),
                                      .rollups = {{true, 0}, {true, 0}, {true, 0}},
                                      .wall_ns = wall_ns};
    mir_tlog *tlog;
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &tlog, &error) != MIR_OK) fail_msg("%s", error.text);
    for (int64_t part = 0; part < PARTS - 1; part++) put_rows(tlog, part, false);
    uint64_t before_kb = peak_begin();
    put_rows(tlog, PARTS - 1, false);
    assert_int_equal(merges(tlog), 1);
    peak_end("merged", before_kb);
    put_rows(tlog, 0, true);
    check(tlog);
    before_kb = peak_begin();
    now_ns = START_NS + 600 * MINUTE_NS;
    settle(tlog);
    peak_end("rolled up", before_kb);
    mir_tlog_retention told;
    mir_tlog_retention_read(tlog, &told);
    assert_int_equal(told.rows, 0);
    assert_int_equal(told.rollup_rows[0], 60);
    assert_int_equal(told.rollup_rows[1], 6);
    assert_int_equal(told.rollup_rows[2], 1);
    check(tlog);
    mir_tlog_close(tlog);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
}

/* A log that one device has filled, with rows in no order. */
static void any_number_of_rows_is_sealed(void **state)
{
    (void)state;
    enum { LOG_ROWS = ROWS * 2 / 3, NEAR = 64 };
    mir_log_set_level(MIR_LOG_ERROR);
    char directory[] = "/tmp/mir-sweep-XXXXXX";
    assert_non_null(mkdtemp(directory));
    now_ns = START_NS;
    const mir_tlog_options options = {.directory = directory,
                                      .log_bytes_max = 96 << 20,
                                      .sync_ms = 100,
                                      .idle_ms = 1000000,
                                      .wall_ns = wall_ns};
    mir_tlog *tlog;
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &tlog, &error) != MIR_OK) fail_msg("%s", error.text);
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    mir_tlog_series *series;
    mir_row row;
    assert_int_equal(mir_row_init(&row, 4, 1, 64), MIR_OK);
    assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr("d"), mir_view_cstr("m.v1.T"),
                                          &columns[1], 1, &series),
                     MIR_OK);
    row.column_count = 1;
    row.present[0] = 1;
    for (int64_t n = 0; n < LOG_ROWS; n++) {
        const int64_t number = n / NEAR * NEAR + (n * 37) % NEAR;
        row.time_ns = START_NS + number * STEP_NS;
        row.cells[0].i64 = number % 50;
        assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        if (n % 1024 == 0) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    mir_row_fini(&row);
    const uint64_t before_kb = peak_begin();
    assert_int_equal(mir_tlog_freeze(writer), MIR_OK);
    settle(tlog);
    peak_end("sealed", before_kb);
    const mir_view device = mir_view_cstr("d");
    const mir_tlog_query_spec spec = {.device_ids = &device,
                                      .device_count = 1,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .functions = MIR_TLOG_COUNT | MIR_TLOG_SUM,
                                      .from_ns = INT64_MIN,
                                      .to_ns = INT64_MAX};
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    assert_int_equal(mir_tlog_query(tlog, &spec, &to, NULL, NULL), MIR_OK);
    assert_int_equal(sink.answer.count, 2);
    int64_t sum = 0;
    for (int64_t n = 0; n < LOG_ROWS; n++) sum += n % 50;
    assert_int_equal(sink.answer.fields[0].bits, LOG_ROWS);
    assert_int_equal(sink.answer.fields[1].bits, sum);
    oracle_free(&sink.answer);
    mir_tlog_close(tlog);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -rf %s", directory);
    assert_int_equal(system(command), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(any_number_of_rows_is_sealed),
        cmocka_unit_test(any_number_of_rows_is_merged_and_rolled_up),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
