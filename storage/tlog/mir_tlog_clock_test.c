/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_clock.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_sim.h"

/* What the clock says, and for how long the machine runs, is what the tests say. */

enum { DAYS = 20, AGE_DAYS = 30, SHORT_DAYS = 3, WAIT_DAYS = 7, PER_DAY = 24 };

static const int64_t HOUR_NS = 3600 * MIR_NS_PER_S;
static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t YEAR_NS = INT64_C(365) * 86400 * MIR_NS_PER_S;
static const int64_t START_NS = INT64_C(1790035200) * MIR_NS_PER_S; /* midnight */
static const char *const devices[] = {"a", "b"};

static _Atomic int64_t now_ns;
static _Atomic int64_t ran_ns;
static _Atomic int times_told;
static _Atomic uint64_t told_ahead_ns;

static int64_t wall_ns(void)
{
    return now_ns;
}

static int64_t mono_ns(void)
{
    return ran_ns;
}

static void clock_told(void *context, const mir_tlog_clock_state *state)
{
    assert_ptr_equal(context, &now_ns);
    told_ahead_ns = state->ahead_ns;
    times_told++;
}

typedef struct fixture {
    sim_disk *disk;
    mir_tlog_options options;
    mir_tlog_rule rules[1];
    mir_tlog *tlog;
} fixture;

static void reopen(fixture *x)
{
    mir_error error = {{0}};
    if (x->tlog != NULL) mir_tlog_close(x->tlog);
    if (mir_tlog_open(&x->options, &x->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
}

/* The clock is set while nothing runs: else the one that runs may see it as well. */
static void reopen_at(fixture *x, int64_t at_ns)
{
    mir_tlog_close(x->tlog);
    x->tlog = NULL;
    now_ns = at_ns;
    reopen(x);
}

static void settle(fixture *x)
{
    mir_error error = {{0}};
    if (mir_tlog_settle(x->tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
}

/* Both devices have a row each hour of so many days from START_NS on. */
static void put_days(fixture *x, int64_t from, int64_t to)
{
    static const mir_column columns[] = {{"i", 1, MIR_COLUMN_I64}};
    mir_tlog_writer *writer = mir_tlog_writer_of(x->tlog, 0);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 1, 1, 64), MIR_OK);
    for (int64_t hour = from * PER_DAY; hour < to * PER_DAY; hour++) {
        for (int d = 0; d < 2; d++) {
            mir_tlog_series *series;
            assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(devices[d]),
                                                  mir_view_cstr(d == 0 ? "long.v1" : "short.v1"),
                                                  columns, 1, &series),
                             MIR_OK);
            row.column_count = 1;
            row.present[0] = 1;
            row.time_ns = START_NS + hour * HOUR_NS;
            row.cells[0].i64 = hour;
            assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        }
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (mir_tlog_freeze(writer) != MIR_OK) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(200);
    }
    mir_row_fini(&row);
    settle(x);
}

/* Twenty days of rows, and the clock is where they end. */
static void begin(fixture *x)
{
    mir_log_set_level(MIR_LOG_ERROR);
    now_ns = START_NS + DAYS * DAY_NS;
    ran_ns = HOUR_NS;
    times_told = 0;
    *x = (fixture){.disk = sim_disk_new(11),
                   .rules = {{.measurement = MIR_VIEW_LITERAL("short.*"),
                              .age_ns = (uint64_t)(SHORT_DAYS * DAY_NS)}}};
    x->options = (mir_tlog_options){.directory = "/tlog",
                                    .files = &x->disk->files,
                                    .log_bytes_max = 8 << 20,
                                    .sync_ms = 1,
                                    .rules = x->rules,
                                    .rule_count = 1,
                                    .retention_age_ns = (uint64_t)(AGE_DAYS * DAY_NS),
                                    .clock_wait_ns = (uint64_t)(WAIT_DAYS * DAY_NS),
                                    .clock_told = clock_told,
                                    .clock_told_context = &now_ns,
                                    .wall_ns = wall_ns,
                                    .mono_ns = mono_ns};
    reopen(x);
    put_days(x, 0, DAYS);
}

static void end(fixture *x)
{
    mir_tlog_close(x->tlog);
    sim_disk_free(x->disk);
}

/* The server runs for so long, and the clock goes on meanwhile. */
static void run(fixture *x, int64_t span_ns)
{
    for (int64_t left_ns = span_ns; left_ns > 0; left_ns -= HOUR_NS) {
        now_ns += left_ns < HOUR_NS ? left_ns : HOUR_NS;
        ran_ns += left_ns < HOUR_NS ? left_ns : HOUR_NS;
        settle(x);
    }
}

static uint64_t rows(fixture *x)
{
    mir_tlog_retention told;
    settle(x);
    mir_tlog_retention_read(x->tlog, &told);
    return told.rows;
}

static uint64_t ahead_ns(fixture *x)
{
    mir_tlog_stats stats;
    mir_tlog_stats_read(x->tlog, &stats, NULL);
    return stats.clock.ahead_ns;
}

enum { LONG_ROWS = DAYS * PER_DAY, SHORT_ROWS = SHORT_DAYS * PER_DAY };

static void a_start_with_a_clock_that_is_ahead_removes_nothing(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    const uint64_t before = rows(&x);
    assert_in_range(before, LONG_ROWS + SHORT_ROWS, 2 * LONG_ROWS - 1);
    for (int round = 0; round < 3; round++) {
        reopen_at(&x, now_ns + YEAR_NS);
        assert_int_equal(rows(&x), before);
        assert_int_equal(ahead_ns(&x), YEAR_NS);
        assert_int_equal(mir_tlog_known_ns(x.tlog), now_ns - YEAR_NS);
        assert_int_equal(times_told, 2 * round + 1);
        assert_int_equal(told_ahead_ns, YEAR_NS);
        /* And comes back, with the server running or not. */
        if (round == 1)
            reopen_at(&x, now_ns - YEAR_NS);
        else
            now_ns -= YEAR_NS;
        assert_int_equal(rows(&x), before);
        assert_int_equal(ahead_ns(&x), 0);
        assert_int_equal(mir_tlog_known_ns(x.tlog), now_ns);
        if (round == 1) times_told++;
        assert_int_equal(times_told, 2 * round + 2);
    }
    end(&x);
}

/* Rows that are past their age by the time that is known go as ever. */
static void retention_goes_on_by_the_time_that_is_known(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    now_ns += YEAR_NS;
    settle(&x);
    run(&x, 2 * DAY_NS);
    assert_int_equal(ahead_ns(&x), YEAR_NS);
    /* Of the short ones a day is left, and what may wait. */
    assert_in_range(rows(&x), LONG_ROWS + SHORT_ROWS / 3, LONG_ROWS + SHORT_ROWS / 3 + PER_DAY);
    now_ns -= YEAR_NS;
    run(&x, 12 * DAY_NS);
    assert_in_range(rows(&x), LONG_ROWS - 4 * PER_DAY, LONG_ROWS - 3 * PER_DAY);
    end(&x);
}

static void a_clock_that_stays_is_believed(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    now_ns += YEAR_NS;
    settle(&x);
    /* Rows of three days when it has stayed for three days, those of thirty after the wait; restarts
     * take nothing from that, however long they take. */
    for (int part = 0; part < WAIT_DAYS * 2 - 1; part++) {
        run(&x, DAY_NS / 2);
        reopen_at(&x, now_ns + part * HOUR_NS);
        const uint64_t left = rows(&x);
        assert_in_range(left, LONG_ROWS, LONG_ROWS + SHORT_ROWS + PER_DAY);
        if (part > SHORT_DAYS * 2) assert_int_equal(left, LONG_ROWS);
        assert_true(ahead_ns(&x) > 0);
    }
    run(&x, DAY_NS);
    assert_int_equal(ahead_ns(&x), 0);
    assert_int_equal(rows(&x), 0);
    end(&x);
}

/* It is another jump: what was before the first one does not count. */
static void a_clock_that_jumps_again_has_to_stay_anew(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    now_ns += YEAR_NS;
    settle(&x);
    run(&x, 6 * DAY_NS);
    now_ns += YEAR_NS;
    settle(&x);
    run(&x, 6 * DAY_NS);
    assert_int_equal(ahead_ns(&x), 2 * YEAR_NS);
    assert_in_range(rows(&x), LONG_ROWS - 2 * PER_DAY, LONG_ROWS - PER_DAY);
    run(&x, 2 * DAY_NS);
    assert_int_equal(rows(&x), 0);
    end(&x);
}

/* One that starts far behind, as without a battery, and is set soon after. */
static void a_clock_that_is_set_from_behind_is_believed_at_once(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    const uint64_t before = rows(&x);
    const int64_t right_ns = now_ns;
    reopen_at(&x, 0);
    assert_int_equal(rows(&x), before);
    assert_int_equal(ahead_ns(&x), 0);
    ran_ns += HOUR_NS;
    now_ns = right_ns + HOUR_NS;
    assert_in_range(rows(&x), before - PER_DAY, before);
    assert_int_equal(ahead_ns(&x), 0);
    run(&x, 3 * DAY_NS);
    assert_in_range(rows(&x), LONG_ROWS, LONG_ROWS + PER_DAY);
    end(&x);
}

static void the_operator_may_say_that_it_is_right(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    reopen_at(&x, now_ns + YEAR_NS);
    assert_true(rows(&x) > LONG_ROWS);
    x.options.clock_wait_ns = 1;
    reopen(&x);
    assert_int_equal(rows(&x), 0);
    /* And it is known from then on. */
    x.options.clock_wait_ns = (uint64_t)(WAIT_DAYS * DAY_NS);
    reopen(&x);
    assert_int_equal(ahead_ns(&x), 0);
    end(&x);
}

/* Without the file, as after an update or from a backup, the newest row tells. */
static void without_the_file_the_newest_row_stands_for_it(void **state)
{
    (void)state;
    fixture x;
    begin(&x);
    const uint64_t before = rows(&x);
    int handle;
    uint64_t size;
    uint8_t whole[64];
    const mir_tlog_files *files = &x.disk->files;
    mir_tlog_close(x.tlog);
    x.tlog = NULL;
    assert_int_equal(files->open(x.disk, "/tlog/CLOCK", &handle), 0);
    assert_int_equal(files->size(x.disk, handle, &size), 0);
    assert_in_range(size, 30, sizeof whole);
    assert_int_equal(mir_tlog_file_read(files, handle, whole, size, 0), 0);
    (void)files->close(x.disk, handle);
    now_ns += YEAR_NS;
    for (uint64_t at = 0; at <= size; at++) {
        uint8_t bad[sizeof whole];
        bool in_doubt;
        memcpy(bad, whole, size);
        if (at < size) bad[at] ^= 64;
        const bool cut = at % 2 == 0;
        if (at == size) {
            assert_int_equal(files->unlink(x.disk, "/tlog/CLOCK"), 0);
        } else {
            assert_int_equal(mir_tlog_file_replace(files, "/tlog", "CLOCK",
                                                   mir_view_of(cut ? whole : bad, cut ? at : size),
                                                   &in_doubt, NULL),
                             MIR_OK);
        }
        reopen(&x);
        assert_int_equal(rows(&x), before);
        assert_in_range(ahead_ns(&x), YEAR_NS, YEAR_NS + 2 * DAY_NS);
        mir_tlog_close(x.tlog);
        x.tlog = NULL;
    }
    reopen(&x);
    end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_start_with_a_clock_that_is_ahead_removes_nothing),
        cmocka_unit_test(retention_goes_on_by_the_time_that_is_known),
        cmocka_unit_test(a_clock_that_stays_is_believed),
        cmocka_unit_test(a_clock_that_jumps_again_has_to_stay_anew),
        cmocka_unit_test(a_clock_that_is_set_from_behind_is_believed_at_once),
        cmocka_unit_test(the_operator_may_say_that_it_is_right),
        cmocka_unit_test(without_the_file_the_newest_row_stands_for_it),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
