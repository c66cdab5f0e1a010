/* SPDX-License-Identifier: Apache-2.0 */
#include <math.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_expire.h"
#include "mir_tlog_oracle.h"
#include "mir_tlog_rollup.h"

/* Two logs take the same rows. One keeps all of them, the other three hours and what the others came
 * to: it must answer what the first one does, or say that it cannot. */

/* The thread sanitizer makes it thirty times slower, and it is the same thread all the time. */
#if defined(MIR_TSAN)
enum { SEEDS = 1, LATE_TURNS = 1, ROOM_STEPS = 2 };
#else
enum { SEEDS = 4, LATE_TURNS = 3, ROOM_STEPS = 16 };
#endif

enum { DEVICES = 3, SIDES = 2, AGE_HOURS = 3, SWEEP_BYTES = 2048 };

static const int64_t MINUTE_NS = 60 * MIR_NS_PER_S;
static const int64_t HOUR_NS = 3600 * MIR_NS_PER_S;
static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t START_NS = INT64_C(1790035200) * MIR_NS_PER_S; /* midnight */

static _Atomic int64_t now_ns;
static const char *const device_names[DEVICES] = {"a", "b", "c"};
static mir_view device_ids[DEVICES];
static const mir_column columns[] = {{"b", 1, MIR_COLUMN_BOOL},
                                     {"f", 1, MIR_COLUMN_F64},
                                     {"i", 1, MIR_COLUMN_I64},
                                     {"s", 1, MIR_COLUMN_STRING},
                                     {"u", 1, MIR_COLUMN_U64}};
enum { COLUMNS = sizeof columns / sizeof columns[0] };
static const mir_column other_type[] = {{"i", 1, MIR_COLUMN_F64}};

static int64_t wall_ns(void)
{
    return now_ns;
}

static mir_status namespace_of(void *context, mir_view device, mir_bytes *name_space)
{
    (void)context;
    (void)name_space;
    return mir_view_eq_cstr(device, "c") ? MIR_E_NOT_FOUND : MIR_OK;
}

typedef struct side {
    sim_disk *disk;
    mir_tlog_options options;
    mir_tlog *tlog;
} side;

typedef struct fixture {
    side sides[SIDES]; /* all, and with rollups */
    mir_row row;
    uint64_t random;
    uint64_t puts;
    uint32_t cases;
    bool extremes; /* of integers: as doubles, which rates are, their sums are not exact */
} fixture;

static void side_open(side *s)
{
    mir_error error = {{0}};
    if (mir_tlog_open(&s->options, &s->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
    /* So that a few rows are as much work as many. */
    atomic_store(&s->tlog->sweep_bytes_max, SWEEP_BYTES);
}

static void begin(fixture *x, uint64_t seed)
{
    mir_log_set_level(MIR_LOG_ERROR);
    now_ns = START_NS;
    *x = (fixture){.random = seed};
    for (uint32_t d = 0; d < DEVICES; d++) device_ids[d] = mir_view_cstr(device_names[d]);
    for (int i = 0; i < SIDES; i++) {
        side *s = &x->sides[i];
        s->disk = sim_disk_new(seed + (uint64_t)i);
        s->options = (mir_tlog_options){.directory = "/tlog",
                                        .files = &s->disk->files,
                                        .log_bytes_max = 8 << 20,
                                        .sync_ms = 1,
                                        .namespace_of = namespace_of,
                                        .wall_ns = wall_ns};
    }
    mir_tlog_options *kept = &x->sides[1].options;
    kept->retention_age_ns = (uint64_t)(AGE_HOURS * HOUR_NS);
    kept->rollups[0] = (mir_tlog_rollup_option){true, (uint64_t)(30 * DAY_NS)};
    kept->rollups[1] = (mir_tlog_rollup_option){true, (uint64_t)(60 * DAY_NS)};
    kept->rollups[2] = (mir_tlog_rollup_option){true, 0};
    for (int i = 0; i < SIDES; i++) side_open(&x->sides[i]);
    assert_int_equal(mir_row_init(&x->row, 8, 4, 1024), MIR_OK);
}

static void end(fixture *x)
{
    for (int i = 0; i < SIDES; i++) {
        mir_tlog_close(x->sides[i].tlog);
        sim_disk_free(x->sides[i].disk);
    }
    mir_row_fini(&x->row);
}

static void put_into(fixture *x, side *s, uint32_t device, const mir_column *of, uint32_t count)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(s->tlog, 0);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(writer, device_ids[device], mir_view_cstr("m.v1.T"), of,
                                          count, &series),
                     MIR_OK);
    x->row.column_count = count;
    assert_int_equal(mir_tlog_append(writer, series, &x->row), MIR_OK);
}

static void put(fixture *x, uint32_t device, int64_t time_ns)
{
    static const char *const words[] = {"", "idle", "running", "a longer text than the others"};
    const uint64_t r = sim_random(&x->random);
    x->row.time_ns = time_ns;
    x->row.dynamic_count = 0;
    /* Sums of these are exact, whatever their order. */
    x->row.cells[0].boolean = r & 1;
    x->row.cells[1].f64 = (double)((int64_t)(r >> 8 & 0xffff) - 0x8000) / 4;
    x->row.cells[2].i64 =
        x->extremes && (r & 0xf00) == 0 ? INT64_MAX - (int64_t)(r & 7) : (int64_t)(r >> 40) - 999;
    x->row.cells[3].string = mir_view_cstr(words[r >> 20 & 3]);
    x->row.cells[4].u64 = x->extremes && (r & 0xf000) == 0 ? UINT64_MAX : r >> 50;
    x->row.present[0] = (r >> 3 & 31) == 0 ? 31 : r >> 3 & 31;
    /* Which of two types' last values at one time is the last one is nobody's to say. */
    const bool changed = device == 1 && time_ns / 1000 % 16 == 3;
    if (changed) {
        x->row.cells[0].f64 = (double)(r >> 8 & 0xff) / 2;
        x->row.present[0] = 1;
    }
    for (int i = 0; i < SIDES; i++) {
        put_into(x, &x->sides[i], device, changed ? other_type : columns, changed ? 1 : COLUMNS);
    }
}

static void commit(fixture *x)
{
    for (int i = 0; i < SIDES; i++) {
        assert_int_equal(mir_tlog_commit_turn(mir_tlog_writer_of(x->sides[i].tlog, 0), NULL),
                         MIR_OK);
    }
}

static void freeze(fixture *x)
{
    for (int i = 0; i < SIDES; i++) {
        mir_tlog_writer *writer = mir_tlog_writer_of(x->sides[i].tlog, 0);
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
        const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
        while (mir_tlog_freeze(writer) != MIR_OK) {
            assert_true(mir_clock_mono_ns() < until);
            sim_pause_us(200);
        }
    }
}

static void settle(fixture *x)
{
    for (int i = 0; i < SIDES; i++) {
        mir_error error = {{0}};
        if (mir_tlog_settle(x->sides[i].tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
    }
}

static oracle_sink ask(const side *s, const mir_tlog_query_spec *spec, mir_tlog_query_info *info)
{
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    mir_error error = {{0}};
    if (mir_tlog_query(s->tlog, spec, &to, info, &error) != MIR_OK) fail_msg("%s", error.text);
    assert_int_equal(info->chunks_corrupt, 0);
    if (!spec->backward) assert_false(sink.disordered);
    return sink;
}

static uint64_t rows_removed(const side *s)
{
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    return told.rows_removed[0];
}

static uint64_t stored_rollups(const side *s, uint32_t step)
{
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    return told.rollup_rows[step];
}

/* The answers are equal, or the second one says that something is left out. */
static bool compare(fixture *x, const mir_tlog_query_spec *spec)
{
    mir_tlog_query_info infos[SIDES];
    oracle_sink sinks[SIDES];
    for (int i = 0; i < SIDES; i++) sinks[i] = ask(&x->sides[i], spec, &infos[i]);
    assert_false(infos[0].left_out);
    if (!infos[1].left_out) {
        assert_int_equal(sinks[0].rows, sinks[1].rows);
        assert_int_equal(sinks[0].answer.count, sinks[1].answer.count);
        for (size_t i = 0; i < sinks[0].answer.count; i++) {
            const oracle_field *a = &sinks[0].answer.fields[i];
            const oracle_field *b = &sinks[1].answer.fields[i];
            if (oracle_compare_key(a, b) != 0 || a->bits != b->bits) {
                fail_msg("functions %x, window %llu, from %lld to %lld: %u %lld %s.%d %llx, with "
                         "rollups %u %lld %s.%d %llx",
                         spec->functions, (unsigned long long)spec->window_ns,
                         (long long)(spec->from_ns - START_NS), (long long)(spec->to_ns - START_NS),
                         a->device, (long long)(a->time_ns - START_NS), a->name, a->type,
                         (unsigned long long)a->bits, b->device, (long long)(b->time_ns - START_NS),
                         b->name, b->type, (unsigned long long)b->bits);
            }
        }
        x->cases++;
    } else {
        assert_true(infos[1].left_out_until_ns <= now_ns - AGE_HOURS * HOUR_NS + HOUR_NS);
    }
    for (int i = 0; i < SIDES; i++) oracle_free(&sinks[i].answer);
    return !infos[1].left_out;
}

static const uint32_t all_but_rate = MIR_TLOG_MEAN | MIR_TLOG_MIN | MIR_TLOG_MAX | MIR_TLOG_SUM |
                                     MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST;

static mir_tlog_query_spec spec_of(uint32_t functions, int64_t window_ns, int64_t from_ns,
                                   int64_t to_ns)
{
    return (mir_tlog_query_spec){.device_ids = device_ids,
                                 .device_count = DEVICES,
                                 .measurement = mir_view_cstr("m.v1.T"),
                                 .functions = functions,
                                 .window_ns = (uint64_t)window_ns,
                                 .from_ns = from_ns,
                                 .to_ns = to_ns};
}

static void compare_all(fixture *x, int64_t until_ns, bool rate)
{
    static const int64_t minutes[] = {0, 1, 3, 5, 10, 15, 30, 60, 90, 24 * 60};
    static const uint32_t groups[DEVICES] = {1, 0, 1};
    const mir_view field = mir_view_cstr("i");
    const uint32_t functions = all_but_rate | (rate ? MIR_TLOG_RATE : 0);
    for (size_t i = 0; i < sizeof minutes / sizeof minutes[0]; i++) {
        mir_tlog_query_spec spec = spec_of(functions, minutes[i] * MINUTE_NS, START_NS, until_ns);
        assert_true(compare(x, &spec));
        spec.from_ns += 7 * MINUTE_NS;
        spec.to_ns -= 77 * MINUTE_NS;
        assert_true(compare(x, &spec));
        spec.window_from_ns = START_NS + 2 * MINUTE_NS;
        assert_true(compare(x, &spec));
        spec.fields = &field;
        spec.field_count = 1;
        assert_true(compare(x, &spec));
        spec.groups = groups;
        spec.group_count = 2;
        assert_true(compare(x, &spec));
        spec.functions = MIR_TLOG_LAST;
        assert_true(compare(x, &spec));
        /* These cannot be answered but by chance. */
        spec.from_ns += 12345678901;
        (void)compare(x, &spec);
        spec.window_ns += 7;
        (void)compare(x, &spec);
    }
    for (int i = 0; i < 40; i++) {
        const uint64_t r = sim_random(&x->random);
        const int64_t from_ns = START_NS + (int64_t)(r % (uint64_t)(20 * HOUR_NS));
        const int64_t windows[] = {0, MINUTE_NS, HOUR_NS, 17 * MIR_NS_PER_S};
        const mir_tlog_query_spec spec = spec_of(all_but_rate, windows[r >> 20 & 3], from_ns,
                                                 from_ns + 1 + (int64_t)(r >> 8) % (30 * HOUR_NS));
        (void)compare(x, &spec);
    }
}

static void rollups_answer_what_the_rows_did(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        fixture x;
        begin(&x, seed);
        int64_t at_ns = START_NS;
        for (int turn = 0; turn < 12; turn++) {
            /* Some hours of rows, a few of them twice and a few of them late by half an hour. */
            const int64_t until_ns = at_ns + 2 * HOUR_NS + turn % 3 * 25 * MINUTE_NS;
            const int64_t mean_ns = (turn % 2 == 0 ? 5 : 70) * MIR_NS_PER_S;
            while (at_ns < until_ns) {
                const uint64_t r = sim_random(&x.random);
                at_ns += (int64_t)(r % (uint64_t)(2 * mean_ns)) + 1;
                put(&x, (uint32_t)(r >> 40) % DEVICES, at_ns);
                if ((r >> 50) % 16 == 0) put(&x, (uint32_t)(r >> 40) % DEVICES, at_ns);
                if ((r >> 54) % 32 == 0) put(&x, 0, at_ns - 30 * MINUTE_NS);
                if ((r >> 54) % 128 == 1) freeze(&x);
            }
            freeze(&x);
            settle(&x);
            now_ns = at_ns;
            settle(&x);
            if (turn % 4 == 3) {
                for (int i = 0; i < SIDES; i++) {
                    mir_tlog_close(x.sides[i].tlog);
                    side_open(&x.sides[i]);
                }
            }
        }
        assert_true(stored_rollups(&x.sides[1], 0) > 1000);
        compare_all(&x, now_ns, true);
        assert_true(x.cases > 60);
        end(&x);
    }
}

/* A row of any time: mostly of now, some hours or days late, and some for the second time, as long as the
 * first one is there. */
static void put_any(fixture *x, int64_t newest_ns)
{
    const uint64_t r = sim_random(&x->random);
    const uint32_t device = (uint32_t)(r >> 8) % DEVICES;
    const int64_t unique_ns = (int64_t)(x->puts++ % 1000000);
    int64_t at_ns = newest_ns - (int64_t)(r >> 16) % (20 * MINUTE_NS);
    if (r % 16 == 0) at_ns = newest_ns - (int64_t)(r >> 16) % (6 * HOUR_NS);
    if (r % 64 == 1) at_ns = newest_ns - (int64_t)(r >> 16) % (3 * DAY_NS);
    if (r % 256 == 2) at_ns = newest_ns + (int64_t)(r >> 16) % HOUR_NS;
    at_ns -= at_ns % MIR_NS_PER_S;
    if (r % 8 != 3 || at_ns < newest_ns - AGE_HOURS * HOUR_NS + 10 * MINUTE_NS) at_ns += unique_ns;
    put(x, device, at_ns);
}

/* A row of another measurement, of which nothing stays: it makes segments due at other times. */
static void put_beside(fixture *x, uint32_t device, int64_t time_ns)
{
    for (int i = 0; i < SIDES; i++) {
        mir_tlog_writer *writer = mir_tlog_writer_of(x->sides[i].tlog, 0);
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(writer, device_ids[device], mir_view_cstr("n.v1.T"),
                                              other_type, 1, &series),
                         MIR_OK);
        x->row.time_ns = time_ns;
        x->row.column_count = 1;
        x->row.dynamic_count = 0;
        x->row.present[0] = 1;
        x->row.cells[0].f64 = 1;
        assert_int_equal(mir_tlog_append(writer, series, &x->row), MIR_OK);
    }
}

static void side_reopen(side *s)
{
    mir_tlog_close(s->tlog);
    side_open(s);
}

/* Rows come, late ones and some twice, logs are sealed and merged or not, the clock goes on and back, the
 * program ends and starts, and queries come at any moment. */
static void whatever_happens_answers_are_the_same(void **state)
{
    (void)state;
    static const mir_tlog_rule rules[] = {{.measurement = MIR_VIEW_LITERAL("n.*"),
                                           .nothing_stays = true,
                                           .age_ns = (uint64_t)3600 * MIR_NS_PER_S},
                                          {.deleted = true}}; /* is kept for ever, as "c" is */
    const char *more = getenv("MIR_TEST_SEEDS");
    const uint64_t seeds = more == NULL ? (SEEDS + 1) / 2 : strtoull(more, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        fixture x;
        begin(&x, 1000 + seed);
        x.extremes = seed % 3 == 0;
        side *s = &x.sides[1];
        mir_tlog_close(s->tlog);
        s->options.rules = rules;
        s->options.rule_count = seed % 3;
        s->options.idle_ms = (uint32_t)(seed % 5) * 20;
        side_open(s);
        int64_t newest_ns = START_NS + 4 * DAY_NS;
        now_ns = newest_ns;
        for (int turn = 0; turn < 60; turn++) {
            const uint64_t r = sim_random(&x.random);
            for (uint64_t n = (r >> 40) % 4 == 0 ? 0 : r >> 8 & 255; n > 0; n--) {
                put_any(&x, newest_ns);
            }
            for (uint64_t n = (r >> 42) % 20; n > 0; n--) {
                const uint64_t q = sim_random(&x.random);
                const int64_t late_ns = q % 4 == 0 ? 9 * HOUR_NS : MINUTE_NS;
                put_beside(&x, (uint32_t)q % DEVICES, newest_ns - (int64_t)(q >> 8) % late_ns);
            }
            commit(&x);
            if (r % 2 == 0) freeze(&x);
            if ((r >> 16) % 4 == 0) settle(&x);
            if ((r >> 20) % 8 == 0) side_reopen(&x.sides[r >> 24 & 1]);
            if ((r >> 28) % 3 == 0) newest_ns += (int64_t)(r >> 32) % (4 * HOUR_NS);
            now_ns =
                (r >> 30) % 8 == 0 ? newest_ns - (int64_t)(r >> 32) % (3 * HOUR_NS) : newest_ns;
            static const int64_t minutes[] = {0, 1, 5, 30, 60, 7, 24 * 60};
            for (int i = 0; i < 4; i++) {
                const uint64_t q = sim_random(&x.random);
                mir_tlog_query_spec spec =
                    spec_of(all_but_rate, minutes[q % 7] * MINUTE_NS, START_NS, INT64_MAX);
                if (q >> 8 & 1) spec.from_ns += (int64_t)(q >> 16) % (4 * 24 * 60) * MINUTE_NS;
                if (q >> 9 & 1) spec.to_ns = newest_ns - newest_ns % MINUTE_NS;
                if (q >> 10 & 1) spec.functions = MIR_TLOG_LAST;
                if (q >> 11 & 1) spec.functions = MIR_TLOG_COUNT;
                assert_true(compare(&x, &spec));
                if (q >> 12 & 1) spec.window_ns += 30 * (uint64_t)MIR_NS_PER_S;
                if (q >> 13 & 1) spec.from_ns += (int64_t)(q >> 16) % MINUTE_NS;
                if ((q >> 14) % 4 == 0 && !x.extremes) spec.functions = MIR_TLOG_RATE;
                (void)compare(&x, &spec);
                spec.functions = 0;
                spec.window_ns = 0;
                spec.limit = (q >> 20) % 300;
                spec.backward = q >> 15 & 1;
                (void)compare(&x, &spec);
            }
        }
        settle(&x);
        compare_all(&x, newest_ns, false);
        end(&x);
    }
}

/* Rows of hours that were rolled up long ago. */
static void late_rows_are_added(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 9);
    x.extremes = true;
    for (int64_t n = 0; n < 4000; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 7 * MIR_NS_PER_S);
    freeze(&x);
    now_ns = START_NS + 30 * HOUR_NS;
    settle(&x);
    const uint64_t removed = rows_removed(&x.sides[1]);
    assert_int_equal(removed, 4000);
    for (int turn = 1; turn <= LATE_TURNS; turn++) {
        for (int64_t n = turn * 97; n < 5000; n += 197) {
            put(&x, (uint32_t)n % DEVICES, START_NS + n * 7 * MIR_NS_PER_S + turn);
        }
        commit(&x);
        compare_all(&x, now_ns, false); /* not yet rolled up */
        freeze(&x);
        settle(&x);
        compare_all(&x, now_ns, false);
    }
    assert_true(rows_removed(&x.sides[1]) > removed);
    for (int i = 0; i < SIDES; i++) {
        mir_tlog_stats stats;
        mir_tlog_retention told;
        mir_tlog_stats_read(x.sides[i].tlog, &stats, NULL);
        mir_tlog_retention_read(x.sides[i].tlog, &told);
        assert_int_equal(told.bytes + told.rollup_bytes, stats.segment_bytes);
        assert_int_equal(told.bytes > 0, i == 0);
    }
    end(&x);
}

static void what_rollups_cannot_tell_is_said(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 4);
    for (int64_t n = 0; n < 4000; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 10 * MIR_NS_PER_S);
    freeze(&x);
    now_ns = START_NS + 11 * HOUR_NS + 10 * MINUTE_NS;
    settle(&x);
    const int64_t horizon_ns = START_NS + 8 * HOUR_NS;
    /* Rows as they are. */
    mir_tlog_query_spec spec = spec_of(0, 0, START_NS + HOUR_NS, now_ns);
    mir_tlog_query_info info;
    oracle_sink sink = ask(&x.sides[1], &spec, &info);
    assert_true(info.left_out);
    assert_int_equal(info.left_out_until_ns, horizon_ns);
    assert_true(sink.answer.count > 0 && sink.answer.fields[0].time_ns >= horizon_ns);
    oracle_free(&sink.answer);
    spec.limit = 5;
    assert_false(compare(&x, &spec));
    /* The newest ones are all there, until the page is not full. */
    spec.backward = true;
    assert_true(compare(&x, &spec));
    spec.limit = 4000;
    assert_false(compare(&x, &spec));
    spec.from_ns = horizon_ns;
    spec.limit = 0;
    spec.backward = false;
    assert_true(compare(&x, &spec));
    /* Percentiles are those of the rows that are there. */
    spec = spec_of(MIR_TLOG_PERCENTILE | MIR_TLOG_COUNT, HOUR_NS, START_NS, now_ns);
    spec.percentiles[0] = 50;
    spec.percentile_count = 1;
    assert_false(compare(&x, &spec));
    spec.from_ns = horizon_ns;
    assert_true(compare(&x, &spec));
    /* Windows that cut through minutes. */
    spec = spec_of(MIR_TLOG_COUNT, 45 * MIR_NS_PER_S, START_NS, now_ns);
    assert_false(compare(&x, &spec));
    /* A beginning within a minute costs that minute and no more. */
    spec = spec_of(MIR_TLOG_COUNT, 0, START_NS + 25 * MIR_NS_PER_S, now_ns);
    mir_tlog_query_info infos[SIDES];
    oracle_sink counts[SIDES];
    for (int i = 0; i < SIDES; i++) counts[i] = ask(&x.sides[i], &spec, &infos[i]);
    assert_true(infos[1].left_out);
    assert_int_equal(infos[1].left_out_until_ns, START_NS + MINUTE_NS);
    assert_int_equal(counts[0].answer.count, counts[1].answer.count);
    for (size_t i = 0; i < counts[0].answer.count; i++) {
        const uint64_t all = counts[0].answer.fields[i].bits;
        const uint64_t some = counts[1].answer.fields[i].bits;
        assert_true(some <= all && all - some <= 4);
    }
    for (int i = 0; i < SIDES; i++) oracle_free(&counts[i].answer);
    /* Rollups are no measurements of their own, and nobody writes them. */
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(mir_tlog_writer_of(x.sides[1].tlog, 0), device_ids[0],
                                          mir_view_cstr("\1hm.v1.T"), columns, 1, &series),
                     MIR_E_INVALID);
    end(&x);
}

static mir_status blocks_take(void *context, const mir_tlog_rows *block)
{
    mir_tlog_query_spec *next = context;
    next->after = true;
    next->after_ns = block->times_ns[block->row_count - 1];
    next->after_device = next->device_ids[block->device];
    return MIR_E_EMPTY;
}

/* Where devices are kept for different times, what is left out of one lies among the rows of another:
 * a page that goes back beyond it says so, and so does one of those that a device's rows are cut into. */
static void each_page_says_what_is_left_out(void **state)
{
    (void)state;
    static const mir_tlog_rule rules[] = {{.deleted = true}}; /* is kept for ever, as "c" is */
    fixture x;
    begin(&x, 29);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.rules = rules;
    s->options.rule_count = 1;
    side_open(s);
    for (int64_t n = 0; n < 2000; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 20 * MIR_NS_PER_S);
    freeze(&x);
    now_ns = START_NS + 11 * HOUR_NS + 10 * MINUTE_NS;
    settle(&x);
    for (int64_t n = 2000; n < 2100; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 20 * MIR_NS_PER_S);
    commit(&x);
    for (int backward = 0; backward < 2; backward++) {
        for (uint64_t limit = 3; limit < 3000; limit = limit * 5 + 2) {
            mir_tlog_query_spec spec = spec_of(0, 0, START_NS, now_ns);
            spec.backward = backward == 1;
            spec.limit = limit;
            bool told = false;
            for (uint64_t rows = limit; rows == limit;) {
                mir_tlog_query_info info;
                /* The rows of the other side up to where this page goes are the same, or it says so. */
                oracle_sink sink = ask(s, &spec, &info);
                rows = sink.rows;
                mir_tlog_query_spec whole = spec;
                if (rows == limit && spec.backward) whole.from_ns = sink.last_time;
                if (rows == limit && !spec.backward) whole.to_ns = sink.last_time + 1;
                whole.limit = 0;
                oracle_sink all = ask(&x.sides[0], &whole, &(mir_tlog_query_info){0});
                if (all.rows != rows && !info.left_out)
                    fail_msg("backward %d, limit %d: %d rows of %d", backward, (int)limit,
                             (int)rows, (int)all.rows);
                told = told || info.left_out;
                spec.after = true;
                spec.after_ns = sink.last_time;
                spec.after_device = device_ids[sink.last_device];
                oracle_free(&sink.answer);
                oracle_free(&all.answer);
            }
            assert_true(told);
        }
    }
    for (uint32_t device = 0; device < DEVICES; device++) {
        mir_tlog_query_spec spec = spec_of(0, 0, START_NS, now_ns);
        spec.device_ids = &device_ids[device];
        spec.device_count = 1;
        bool told = false;
        for (mir_status status = MIR_E_EMPTY; status == MIR_E_EMPTY;) {
            mir_tlog_query_info info;
            const mir_tlog_query_spec now = spec;
            status = mir_tlog_read(s->tlog, &now, blocks_take, &spec, &info, NULL);
            told = told || info.left_out;
        }
        assert_int_equal(told, device != 2);
    }
    end(&x);
}

static void each_step_is_kept_for_its_time(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 5);
    for (int64_t n = 0; n < 3000; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 10 * MIR_NS_PER_S);
    freeze(&x);
    now_ns = START_NS + 2 * DAY_NS;
    settle(&x);
    const side *s = &x.sides[1];
    assert_int_equal(stored_rollups(s, 2), 9 * DEVICES);
    assert_true(stored_rollups(s, 1) >= 50 * DEVICES);
    assert_true(stored_rollups(s, 0) >= 499 * DEVICES);
    compare_all(&x, START_NS + 20 * HOUR_NS, true);
    now_ns = START_NS + 32 * DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(s, 0), 0);
    assert_true(stored_rollups(s, 1) >= 50 * DEVICES);
    mir_tlog_query_spec spec = spec_of(all_but_rate, 10 * MINUTE_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    spec.window_ns = (uint64_t)MINUTE_NS;
    assert_false(compare(&x, &spec));
    now_ns = START_NS + 62 * DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(s, 1), 0);
    assert_int_equal(stored_rollups(s, 2), 9 * DEVICES);
    assert_false(compare(&x, &spec));
    spec.window_ns = (uint64_t)(3 * HOUR_NS);
    assert_true(compare(&x, &spec));
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.rollups_removed, told.rollups_made - 9 * DEVICES);
    end(&x);
}

static void a_rule_may_leave_nothing(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 6);
    const mir_tlog_rule rules[] = {{.deleted = true, .age_ns = 3600000000000},
                                   {.measurement = mir_view_cstr("x.*"), .nothing_stays = true}};
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.rules = rules;
    s->options.rule_count = 2;
    side_open(s);
    for (int64_t n = 0; n < 3000; n++)
        put(&x, (uint32_t)n % DEVICES, START_NS + n * 10 * MIR_NS_PER_S);
    freeze(&x);
    now_ns = START_NS + 2 * DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(s, 2), 9 * (DEVICES - 1));
    mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    spec.device_count = 2;
    assert_true(compare(&x, &spec));
    spec.device_ids = &device_ids[2];
    spec.device_count = 1;
    mir_tlog_query_info info;
    oracle_sink sink = ask(s, &spec, &info);
    assert_int_equal(sink.rows, 0);
    assert_false(info.left_out);
    end(&x);
}

/* Either the rows are there or what they came to, at whichever change the power goes. */
static void a_power_cut_at_any_change_loses_and_doubles_nothing(void **state)
{
    (void)state;
    uint64_t changes = 4;
    uint64_t rolled = 0;
    for (uint64_t at = 1; at <= changes; at++) {
        fixture x;
        begin(&x, 7);
        x.extremes = true;
        for (int64_t n = 0; n < 300; n++)
            put(&x, (uint32_t)n % DEVICES, START_NS + n * 60 * MIR_NS_PER_S);
        freeze(&x);
        settle(&x);
        side *s = &x.sides[1];
        (void)pthread_mutex_lock(&s->disk->mutex);
        s->disk->fail_at = s->disk->calls + at;
        s->disk->fail_count = 1000000;
        s->disk->fail_errno = EIO;
        (void)pthread_mutex_unlock(&s->disk->mutex);
        now_ns = START_NS + 6 * HOUR_NS;
        settle(&x);
        (void)pthread_mutex_lock(&s->disk->mutex);
        if (s->disk->failed > 0) changes = at + 1;
        (void)pthread_mutex_unlock(&s->disk->mutex);
        const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
        assert_true(compare(&x, &spec));
        sim_disk *after = sim_power_cut(s->disk, at);
        mir_tlog_close(s->tlog);
        sim_disk_free(s->disk);
        s->disk = after;
        s->options.files = &after->files;
        now_ns = START_NS;
        side_open(s);
        assert_true(compare(&x, &spec));
        rolled += stored_rollups(s, 2) > 0;
        now_ns = START_NS + 6 * HOUR_NS;
        settle(&x);
        assert_true(compare(&x, &spec));
        assert_int_equal(stored_rollups(s, 2), 3 * DEVICES);
        end(&x);
    }
    assert_true(changes > 10 && rolled > 0);
}

/* Whichever read fails while late rows are added to what there is: once, it costs nothing. */
static void a_read_that_fails_loses_no_rollups(void **state)
{
    (void)state;
    uint64_t reads = 4;
    for (uint64_t at = 1; at <= reads; at++) {
        fixture x;
        begin(&x, 7);
        for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
        freeze(&x);
        now_ns = START_NS + 30 * HOUR_NS;
        settle(&x);
        for (int64_t n = 0; n < 30; n++) {
            put(&x, (uint32_t)n % DEVICES, START_NS + n * 10 * MINUTE_NS + 1);
        }
        side *s = &x.sides[1];
        (void)pthread_mutex_lock(&s->disk->mutex);
        s->disk->fail_calls = SIM_READ;
        s->disk->calls = 0;
        s->disk->fail_at = at;
        s->disk->fail_count = 1;
        s->disk->fail_errno = EIO;
        (void)pthread_mutex_unlock(&s->disk->mutex);
        freeze(&x);
        settle(&x);
        (void)pthread_mutex_lock(&s->disk->mutex);
        if (s->disk->failed > 0) reads = at + 1;
        s->disk->fail_at = 0;
        (void)pthread_mutex_unlock(&s->disk->mutex);
        const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
        if (!compare(&x, &spec)) fail_msg("read %llu", (unsigned long long)at);
        side_reopen(s);
        settle(&x);
        if (!compare(&x, &spec)) fail_msg("read %llu, later", (unsigned long long)at);
        end(&x);
    }
    assert_true(reads > 10);
}

static uint64_t reads_of(side *s, const mir_tlog_query_spec *spec)
{
    (void)pthread_mutex_lock(&s->disk->mutex);
    s->disk->fail_calls = SIM_READ;
    s->disk->calls = 0;
    (void)pthread_mutex_unlock(&s->disk->mutex);
    mir_tlog_query_info info;
    oracle_sink sink = ask(s, spec, &info);
    oracle_free(&sink.answer);
    (void)pthread_mutex_lock(&s->disk->mutex);
    const uint64_t reads = s->disk->calls;
    (void)pthread_mutex_unlock(&s->disk->mutex);
    return reads;
}

enum { UNREADABLE = 64 };
static _Atomic(sim_inode *) unreadable[UNREADABLE];

static int64_t bad_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    sim_disk *disk = context;
    (void)pthread_mutex_lock(&disk->mutex);
    const sim_inode *inode = disk->handles[handle];
    (void)pthread_mutex_unlock(&disk->mutex);
    for (int i = 0; i < UNREADABLE; i++)
        if (inode == atomic_load(&unreadable[i])) return -EIO;
    return sim_pread(context, handle, data, size, offset);
}

/* All segments that there are now. */
static void make_unreadable(side *s)
{
    uint32_t count = 0;
    (void)pthread_mutex_lock(&s->disk->mutex);
    for (uint32_t i = 0; i < s->disk->now.count; i++) {
        const sim_entry *entry = &s->disk->now.entries[i];
        if (strstr(entry->name, ".seg") != NULL && count < UNREADABLE)
            atomic_store(&unreadable[count++], entry->inode);
    }
    (void)pthread_mutex_unlock(&s->disk->mutex);
}

/* Retention goes on without what cannot be read for a day, but no failure counts that is over. */
static void what_is_not_read_for_a_day_is_lost(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 8);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->disk->files.pread = bad_pread;
    side_open(s);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + 30 * HOUR_NS;
    settle(&x);
    uint32_t removed = 300;
    assert_int_equal(rows_removed(s), removed);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, INT64_MAX);
    for (int turn = 0; turn < 3; turn++) {
        const bool for_good = turn == 2;
        make_unreadable(s);
        put(&x, 0, START_NS + turn + 1);
        freeze(&x);
        for (int hour = 0; hour < (for_good ? 30 : 20); hour++) {
            settle(&x);
            if (hour < 20) assert_int_equal(rows_removed(s), removed);
            now_ns += HOUR_NS;
        }
        removed++;
        if (for_good) assert_int_equal(rows_removed(s), removed);
        for (int i = 0; i < UNREADABLE; i++) atomic_store(&unreadable[i], NULL);
        if (for_good) break;
        settle(&x);
        assert_int_equal(rows_removed(s), removed);
        assert_true(compare(&x, &spec));
        now_ns += 10 * HOUR_NS;
    }
    end(&x);
}

/* The day of what cannot be read begins when it is met, and not when a clock said that was ahead. */
static void what_is_not_read_for_a_day_is_lost_whatever_the_clock_said(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 8);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->disk->files.pread = bad_pread;
    side_open(s);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + 30 * HOUR_NS;
    settle(&x);
    assert_int_equal(rows_removed(s), 300);
    make_unreadable(s);
    put(&x, 0, START_NS + 1);
    freeze(&x);
    now_ns += 10 * DAY_NS;
    settle(&x);
    now_ns -= 10 * DAY_NS;
    for (int hour = 0; hour < 30; hour++) {
        settle(&x);
        if (hour < 20) assert_int_equal(rows_removed(s), 300);
        now_ns += HOUR_NS;
    }
    assert_int_equal(rows_removed(s), 301);
    for (int i = 0; i < UNREADABLE; i++) atomic_store(&unreadable[i], NULL);
    end(&x);
}

/* Failures that were over each time do not add up to a day. */
static void what_is_read_again_each_time_is_not_lost(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 8);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->disk->files.pread = bad_pread;
    side_open(s);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + 30 * HOUR_NS;
    settle(&x);
    uint32_t removed = 300;
    assert_int_equal(rows_removed(s), removed);
    make_unreadable(s);
    sim_inode *first[UNREADABLE];
    for (int i = 0; i < UNREADABLE; i++) first[i] = atomic_load(&unreadable[i]);
    for (int turn = 0; turn < 12; turn++) {
        for (int i = 0; i < UNREADABLE; i++) atomic_store(&unreadable[i], first[i]);
        put(&x, 0, START_NS + turn + 1);
        freeze(&x);
        settle(&x);
        assert_int_equal(rows_removed(s), removed);
        for (int i = 0; i < UNREADABLE; i++) atomic_store(&unreadable[i], NULL);
        now_ns += 2 * HOUR_NS;
        settle(&x);
        assert_int_equal(rows_removed(s), ++removed);
        now_ns += HOUR_NS;
    }
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, INT64_MAX);
    assert_true(compare(&x, &spec));
    end(&x);
}

static int bad_open(void *context, const char *path, int *handle)
{
    sim_disk *disk = context;
    (void)pthread_mutex_lock(&disk->mutex);
    const sim_entry *entry = sim_find(disk, path);
    bool bad = false;
    for (int i = 0; i < UNREADABLE && entry != NULL; i++)
        bad = bad || entry->inode == atomic_load(&unreadable[i]);
    (void)pthread_mutex_unlock(&disk->mutex);
    return bad ? -EIO : sim_open(context, path, handle);
}

/* Rollups that a start could not open are there again after the next one, whatever came late meanwhile. */
static void late_rows_wait_for_what_a_start_could_not_open(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 8);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->disk->files.open = bad_open;
    side_open(s);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + 30 * HOUR_NS;
    settle(&x);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, INT64_MAX);
    assert_true(compare(&x, &spec));
    mir_tlog_close(s->tlog);
    uint32_t count = 0;
    for (uint32_t i = 0; i < s->disk->now.count; i++) {
        const sim_entry *entry = &s->disk->now.entries[i];
        if (strstr(entry->name, ".seg") != NULL) atomic_store(&unreadable[count++], entry->inode);
    }
    assert_true(count > 0);
    side_open(s);
    put(&x, 0, START_NS + 1);
    freeze(&x);
    settle(&x);
    for (int i = 0; i < UNREADABLE; i++) atomic_store(&unreadable[i], NULL);
    side_reopen(s);
    assert_true(compare(&x, &spec));
    settle(&x);
    assert_true(compare(&x, &spec));
    end(&x);
}

/* Few hours of many years are not read anew for each of these; of hours that are near each other no
 * more are in memory for that. */
static void hours_far_apart_are_read_a_few_times(void **state)
{
    (void)state;
    enum { MONTHS = 600, NEAR = 9000 };
    fixture x;
    begin(&x, 12);
    atomic_store(&x.sides[1].tlog->sweep_bytes_max, MIR_TLOG_SWEEP_BYTES);
    for (int64_t n = 0; n < MONTHS; n++) put(&x, 0, START_NS + n * 31 * DAY_NS);
    const int64_t near_ns = START_NS + MONTHS * 31 * DAY_NS;
    for (int64_t n = 0; n < NEAR; n++) put(&x, 0, near_ns + n * HOUR_NS);
    for (int64_t n = 0; n < MONTHS; n++) {
        put(&x, 0, near_ns + NEAR * HOUR_NS + n * 31 * DAY_NS);
    }
    freeze(&x);
    now_ns = START_NS + 2000 * 31 * DAY_NS;
    settle(&x);
    assert_int_equal(rows_removed(&x.sides[1]), 2 * MONTHS + NEAR);
    static const int64_t windows[] = {0, 12 * HOUR_NS, 30 * MINUTE_NS};
    for (int i = 0; i < 3; i++) {
        const mir_tlog_query_spec spec = spec_of(all_but_rate, windows[i], INT64_MIN, now_ns);
        if (windows[i] != 30 * MINUTE_NS) assert_true(compare(&x, &spec));
        const uint64_t reads = reads_of(&x.sides[1], &spec);
        if (reads > 150) fail_msg("%d: %llu reads", i, (unsigned long long)reads);
    }
    end(&x);
}

/* What was read in vain of a slice that turned out to have much says nothing of what is left out. */
static void a_slice_that_is_read_again_leaves_nothing_out(void **state)
{
    (void)state;
    enum { MONTHS = 24, NEAR_DAYS = 20 };
    fixture x;
    begin(&x, 12);
    atomic_store(&x.sides[1].tlog->sweep_bytes_max, MIR_TLOG_SWEEP_BYTES);
    for (int64_t n = 0; n < MONTHS; n++) put(&x, 0, START_NS + n * 31 * DAY_NS);
    const int64_t near_ns = START_NS + MONTHS * 31 * DAY_NS;
    const int64_t end_ns = near_ns + NEAR_DAYS * DAY_NS;
    for (int64_t at_ns = near_ns; at_ns < end_ns; at_ns += 2 * MINUTE_NS) put(&x, 0, at_ns);
    freeze(&x);
    now_ns = end_ns + 10 * HOUR_NS;
    settle(&x);
    assert_int_equal(rows_removed(&x.sides[1]), MONTHS + NEAR_DAYS * 720);
    const mir_tlog_query_spec part = spec_of(all_but_rate, 90 * MINUTE_NS, near_ns, now_ns);
    assert_true(compare(&x, &part));
    const mir_tlog_query_spec all = spec_of(all_but_rate, 90 * MINUTE_NS, INT64_MIN, now_ns);
    assert_true(compare(&x, &all));
    end(&x);
}

/* What is few and far apart is read with no more memory than what is near each other and put in order
 * at once, where rows came late. */
static void a_long_time_needs_no_more_than_a_part_of_it(void **state)
{
    (void)state;
    enum { QUARTERS = 200, NEAR = 9000, TURNS = 4 };
    fixture x;
    begin(&x, 12);
    side *s = &x.sides[1];
    atomic_store(&s->tlog->sweep_bytes_max, MIR_TLOG_SWEEP_BYTES);
    const int64_t near_ns = START_NS + QUARTERS * 93 * DAY_NS;
    const int64_t end_ns = near_ns + NEAR * HOUR_NS;
    now_ns = end_ns + (QUARTERS + 1) * 93 * DAY_NS;
    for (int64_t turn = 0; turn < TURNS; turn++) {
        for (int64_t n = 0; n < QUARTERS; n++) put(&x, 0, START_NS + n * 93 * DAY_NS + turn);
        for (int64_t n = turn; n < NEAR; n += 1 + turn) put(&x, 0, near_ns + n * HOUR_NS + turn);
        for (int64_t n = 0; n < QUARTERS; n++) put(&x, 0, end_ns + n * 93 * DAY_NS + turn);
        freeze(&x);
        settle(&x);
    }
    uint64_t least[2] = {0, 0}; /* of a part, and of all */
    for (uint64_t bytes = 1 << 20; least[0] == 0 || least[1] == 0; bytes += bytes / 8) {
        assert_true(bytes < 256 << 20);
        for (int i = 0; i < 2; i++) {
            mir_tlog_query_spec spec =
                spec_of(all_but_rate, 0, i == 0 ? near_ns : INT64_MIN, i == 0 ? end_ns : now_ns);
            spec.bytes_max = bytes;
            oracle_sink sink = {0};
            const mir_tlog_sink to = oracle_sink_of(&sink);
            const mir_status status = mir_tlog_query(s->tlog, &spec, &to, NULL, NULL);
            oracle_free(&sink.answer);
            if (status == MIR_OK && least[i] == 0) least[i] = bytes;
        }
    }
    assert_true(least[1] <= least[0] + least[0] / 4);
    for (uint64_t bytes = least[1]; bytes < 8 * least[1]; bytes += bytes / ROOM_STEPS) {
        mir_tlog_query_spec spec = spec_of(all_but_rate, 0, INT64_MIN, now_ns);
        spec.bytes_max = bytes;
        oracle_sink sink = {0};
        const mir_tlog_sink to = oracle_sink_of(&sink);
        const mir_status status = mir_tlog_query(s->tlog, &spec, &to, NULL, NULL);
        oracle_free(&sink.answer);
        if (status != MIR_OK) {
            fail_msg("%llu bytes are too few, and %llu were enough", (unsigned long long)bytes,
                     (unsigned long long)least[1]);
        }
    }
    end(&x);
}

/* Nor does what was tried in vain with a longer slice take the room of the shorter ones. */
static void a_slice_that_is_read_again_has_all_the_room(void **state)
{
    (void)state;
    enum { MONTHS = 24, NEAR_DAYS = 20 };
    fixture x;
    begin(&x, 12);
    side *s = &x.sides[1];
    atomic_store(&s->tlog->sweep_bytes_max, MIR_TLOG_SWEEP_BYTES);
    for (int64_t n = 0; n < MONTHS; n++) put(&x, 0, START_NS + n * 31 * DAY_NS);
    const int64_t near_ns = START_NS + MONTHS * 31 * DAY_NS;
    const int64_t end_ns = near_ns + NEAR_DAYS * DAY_NS;
    for (int64_t at_ns = near_ns; at_ns < end_ns; at_ns += 2 * MINUTE_NS) put(&x, 0, at_ns);
    freeze(&x);
    now_ns = end_ns + 10 * HOUR_NS;
    settle(&x);
    uint64_t least[2] = {0, 0}; /* of a part, and of all */
    for (uint64_t bytes = 1 << 16; least[0] == 0 || least[1] == 0; bytes += bytes / 16) {
        assert_true(bytes < 256 << 20);
        for (int i = 0; i < 2; i++) {
            mir_tlog_query_spec spec =
                spec_of(all_but_rate, 90 * MINUTE_NS, i == 0 ? near_ns : INT64_MIN, now_ns);
            spec.bytes_max = bytes;
            oracle_sink sink = {0};
            const mir_tlog_sink to = oracle_sink_of(&sink);
            const mir_status status = mir_tlog_query(s->tlog, &spec, &to, NULL, NULL);
            oracle_free(&sink.answer);
            if (status == MIR_OK && least[i] == 0) least[i] = bytes;
        }
    }
    if (least[1] > least[0] + least[0] / 4) {
        fail_msg("%llu bytes for all, %llu for a part", (unsigned long long)least[1],
                 (unsigned long long)least[0]);
    }
    end(&x);
}

/* Rows wait for room for what they came to. */
static void a_low_disk_loses_no_rollups(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 12);
    for (int64_t n = 0; n < 3000; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS / 2);
    freeze(&x);
    settle(&x);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.disk_reserve_bytes = 2000;
    atomic_store(&s->disk->free_bytes, 1000);
    now_ns = START_NS + 3 * DAY_NS;
    side_open(s);
    settle(&x);
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.rows, 2880); /* there was room for the rest of the second day */
    mir_error trouble;
    mir_tlog_stats stats;
    mir_tlog_stats_read(s->tlog, &stats, &trouble);
    assert_non_null(strstr(trouble.text, "free disk space"));
    atomic_store(&s->disk->free_bytes, 1 << 20);
    mir_tlog_disk_watch(s->tlog);
    settle(&x);
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.rows, 0);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    end(&x);
}

/* What has no room at once goes hour by hour. */
static void a_low_disk_is_cleared_by_and_by(void **state)
{
    (void)state;
    enum { HOURS = 7 }; /* one more, and they are merged */
    fixture x;
    begin(&x, 13);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.idle_ms = 1000000;
    side_open(s);
    /* Each segment has a row of the hour after its own. */
    for (int64_t hour = 0; hour < HOURS; hour++) {
        for (int64_t n = 0; n <= 1200; n++)
            put(&x, (uint32_t)n % DEVICES, START_NS + hour * HOUR_NS + n * MINUTE_NS / 20);
        freeze(&x);
        mir_error error = {{0}};
        assert_int_equal(mir_tlog_settle(s->tlog, 60000, &error), MIR_OK);
    }
    settle(&x);
    mir_tlog_stats stats;
    mir_tlog_stats_read(s->tlog, &stats, NULL);
    const uint64_t bytes = stats.segment_bytes / HOURS;
    assert_int_equal(stats.segments, HOURS);
    mir_tlog_close(s->tlog);
    s->options.disk_reserve_bytes = 2 * (bytes + bytes / 20);
    atomic_store(&s->disk->free_bytes, bytes);
    now_ns = START_NS + DAY_NS;
    side_open(s);
    settle(&x);
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.rows, 0);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, MINUTE_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    end(&x);
}

typedef struct watcher {
    const side *watched;
    _Atomic uint64_t least; /* rows that are committed */
    _Atomic uint64_t most;  /* and those that may be */
    atomic_bool stop;
    uint64_t looks;
    bool wrong;
} watcher;

static void *watch(void *context)
{
    watcher *w = context;
    while (!atomic_load(&w->stop)) {
        const mir_tlog_query_spec spec = spec_of(MIR_TLOG_COUNT, 0, INT64_MIN, INT64_MAX);
        const mir_view field = mir_view_cstr("n");
        mir_tlog_query_spec of_field = spec;
        of_field.fields = &field;
        of_field.field_count = 1;
        mir_tlog_query_info info;
        const uint64_t least = atomic_load(&w->least);
        oracle_sink sink = ask(w->watched, &of_field, &info);
        const uint64_t most = atomic_load(&w->most);
        uint64_t count = 0;
        for (size_t i = 0; i < sink.answer.count; i++) count += sink.answer.fields[i].bits;
        if (count < least || count > most || info.left_out) w->wrong = true;
        oracle_free(&sink.answer);
        w->looks++;
    }
    return NULL;
}

/* While hours go, each row is counted once: as itself or by what it came to. */
static void each_row_is_counted_once_at_any_moment(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 2);
    static const mir_column only[] = {{"n", 1, MIR_COLUMN_I64}};
    side *s = &x.sides[1];
    watcher w = {.watched = s};
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, watch, &w), 0);
    enum { ROUNDS = 30, ROWS = 400 };
    for (int64_t n = 0; n < ROUNDS * ROWS; n++) {
        x.row.time_ns = START_NS + n * 17 * MIR_NS_PER_S;
        x.row.cells[0].i64 = n;
        x.row.present[0] = 1;
        x.row.dynamic_count = 0;
        atomic_fetch_add(&w.most, 1);
        put_into(&x, s, (uint32_t)n % DEVICES, only, 1);
        if (n % 10 == 9) {
            assert_int_equal(mir_tlog_commit_turn(mir_tlog_writer_of(s->tlog, 0), NULL), MIR_OK);
            atomic_fetch_add(&w.least, 10);
        }
        if (n % ROWS != ROWS - 1) continue;
        freeze(&x);
        now_ns = x.row.time_ns;
        settle(&x);
    }
    atomic_store(&w.stop, true);
    assert_int_equal(pthread_join(thread, NULL), 0);
    assert_false(w.wrong);
    assert_true(w.looks > 0 && stored_rollups(s, 2) > 50);
    end(&x);
}

static mir_status names_add(void *context, mir_view name)
{
    mir_bytes *names = context;
    mir_bytes_view(names, name);
    mir_bytes_text(names, " ");
    return MIR_OK;
}

static mir_status columns_add(void *context, const mir_column *column)
{
    mir_bytes *names = context;
    mir_bytes_append(names, column->name, column->name_size);
    mir_bytes_u8(names, (uint8_t)('0' + (int)column->type));
    mir_bytes_text(names, " ");
    return MIR_OK;
}

/* Devices that are silent, and what they told, are named by what is left. */
static void what_went_is_named(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 3);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + 300 * HOUR_NS;
    settle(&x);
    const mir_view measurement = mir_view_cstr("m.v1.T");
    const int64_t since[] = {INT64_MIN, START_NS + 4 * HOUR_NS, START_NS + 7 * HOUR_NS};
    for (size_t i = 0; i < sizeof since / sizeof since[0]; i++) {
        mir_bytes names[SIDES] = {0};
        uint64_t corrupt;
        for (int s = 0; s < SIDES; s++) {
            mir_tlog *tlog = x.sides[s].tlog;
            assert_int_equal(mir_tlog_measurements(tlog, names_add, &names[s], NULL), MIR_OK);
            assert_int_equal(
                mir_tlog_devices(tlog, measurement, since[i], names_add, &names[s], &corrupt, NULL),
                MIR_OK);
            assert_int_equal(
                mir_tlog_fields(tlog, measurement, since[i], names_add, &names[s], NULL), MIR_OK);
            assert_int_equal(
                mir_tlog_field_types(tlog, measurement, since[i], columns_add, &names[s], NULL),
                MIR_OK);
            mir_bytes_u8(&names[s], 0);
        }
        assert_string_equal(names[0].data, names[1].data);
        assert_int_equal(strlen((const char *)names[0].data) > 10, i < 2);
        for (int s = 0; s < SIDES; s++) mir_bytes_free(&names[s]);
    }
    assert_int_equal(stored_rollups(&x.sides[1], 2), 5 * DEVICES);
    end(&x);
}

static void many_months_are_few_segments(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 8);
    x.extremes = true;
    for (int64_t day = 0; day < 70; day++) {
        for (int64_t n = 0; n < 60; n++) {
            put(&x, (uint32_t)n % DEVICES, START_NS + day * DAY_NS + n * 20 * MINUTE_NS);
        }
        freeze(&x);
        now_ns = START_NS + day * DAY_NS + DAY_NS;
        settle(&x);
    }
    /* Minutes of the last thirty days, tens of minutes of sixty, hours of all. */
    assert_int_equal(stored_rollups(&x.sides[1], 2) / 70, 60);
    uint32_t count = 0;
    for (uint32_t i = 0; i < x.sides[1].tlog->version->segment_count; i++) {
        count += mir_tlog_rollup_step_in(x.sides[1].tlog->version->segments[i]) >= 0;
    }
    assert_true(count <= 40);
    mir_tlog_query_spec spec = spec_of(all_but_rate, DAY_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    /* By size rows go while they take more than half of it, then minutes before hours. */
    side *s = &x.sides[1];
    mir_tlog_retention before;
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &before);
    mir_tlog_stats stats;
    mir_tlog_stats_read(s->tlog, &stats, NULL);
    const uint64_t bytes_max = before.rollup_bytes / 2;
    assert_true(stats.segment_bytes - before.rollup_bytes < bytes_max / 2);
    mir_tlog_close(s->tlog);
    s->options.retention_bytes_max = bytes_max;
    side_open(s);
    settle(&x);
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.rows, before.rows);
    assert_true(told.rollup_rows[0] < before.rollup_rows[0]);
    assert_int_equal(told.rollups_removed - before.rollups_removed,
                     before.rollup_rows[0] - told.rollup_rows[0] + before.rollup_rows[1] -
                         told.rollup_rows[1]);
    assert_int_equal(told.rollup_rows[2], before.rollup_rows[2]);
    mir_tlog_stats_read(s->tlog, &stats, NULL);
    assert_true(stats.segment_bytes <= bytes_max);
    end(&x);
}

/* The names of what they came to are longer than those of the rows. */
static void names_may_be_as_long_as_those_of_rows(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 21);
    char name[MIR_TLOG_COLUMN_NAME_BYTES_MAX];
    memset(name, 'n', sizeof name);
    const mir_column longest[] = {{name, sizeof name, MIR_COLUMN_I64}};
    x.row.present[0] = 1;
    x.row.dynamic_count = 0;
    for (int64_t n = 0; n < 90; n++) {
        x.row.time_ns = START_NS + n * MINUTE_NS;
        x.row.cells[0].i64 = n;
        for (int i = 0; i < SIDES; i++) put_into(&x, &x.sides[i], 0, longest, 1);
    }
    freeze(&x);
    now_ns = START_NS + DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(&x.sides[1], 2), 2);
    mir_tlog_close(x.sides[1].tlog);
    side_open(&x.sides[1]);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    assert_int_equal(stored_rollups(&x.sides[1], 2), 2);
    end(&x);
}

/* Within one hour a field is renamed, and its rate goes on. */
static void a_rate_goes_on_under_another_name(void **state)
{
    (void)state;
    static const mir_column names[] = {{"z", 1, MIR_COLUMN_I64}, {"a", 1, MIR_COLUMN_I64}};
    const mir_tlog_rename rename = {mir_view_cstr("z"), mir_view_cstr("a")};
    fixture x;
    begin(&x, 22);
    x.row.present[0] = 1;
    x.row.dynamic_count = 0;
    for (int64_t n = 0; n < 120; n++) {
        x.row.time_ns = START_NS + n * MINUTE_NS + 1;
        x.row.cells[0].i64 = n * n % 997; /* begins anew a few times */
        for (int i = 0; i < SIDES; i++) put_into(&x, &x.sides[i], 0, &names[n > 30], 1);
    }
    freeze(&x);
    now_ns = START_NS + DAY_NS;
    settle(&x);
    static const int64_t windows[] = {0, 10, 60, 120};
    for (size_t i = 0; i < sizeof windows / sizeof windows[0]; i++) {
        mir_tlog_query_spec spec =
            spec_of(all_but_rate | MIR_TLOG_RATE, windows[i] * MINUTE_NS, START_NS, now_ns);
        spec.renames = &rename;
        spec.rename_count = 1;
        assert_true(compare(&x, &spec));
    }
    end(&x);
}

/* Minutes that were stored only since an hour had been are not all of it. */
static void an_hour_is_not_told_by_some_of_its_minutes(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 23);
    side *s = &x.sides[1];
    for (int round = 0; round < 2; round++) {
        mir_tlog_close(s->tlog);
        s->options.rollups[0].on = s->options.rollups[1].on = round == 1;
        side_open(s);
        for (int64_t n = 0; n < 60; n += round == 0 ? 1 : 30)
            put(&x, 0, START_NS + n * MINUTE_NS + round);
        freeze(&x);
        now_ns = START_NS + DAY_NS;
        settle(&x);
    }
    assert_int_equal(stored_rollups(s, 0), 2);
    mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    spec.window_ns = (uint64_t)MINUTE_NS;
    assert_false(compare(&x, &spec));
    spec.window_ns = (uint64_t)(10 * MINUTE_NS);
    assert_false(compare(&x, &spec));
    end(&x);
}

static void what_is_added_to_an_infinite_value_counts(void **state)
{
    (void)state;
    static const mir_column only[] = {{"f", 1, MIR_COLUMN_F64}};
    fixture x;
    begin(&x, 24);
    x.row.present[0] = 1;
    x.row.dynamic_count = 0;
    for (int64_t n = 0; n < 3; n++) {
        x.row.time_ns = START_NS + n;
        x.row.cells[0].f64 = n == 0 ? (double)INFINITY : (double)n;
        for (int i = 0; i < SIDES; i++) put_into(&x, &x.sides[i], 0, only, 1);
        freeze(&x);
        now_ns = START_NS + DAY_NS;
        settle(&x);
    }
    const mir_tlog_query_spec spec =
        spec_of(MIR_TLOG_RATE | MIR_TLOG_COUNT | MIR_TLOG_MIN, 0, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    end(&x);
}

static _Atomic int asked_of_b; /* from the third time on it has moved */

static mir_status namespace_moving(void *context, mir_view device, mir_bytes *name_space)
{
    (void)context;
    const bool stays = mir_view_eq_cstr(device, "b") && ++asked_of_b < 3;
    mir_bytes_text(name_space, stays ? "kept" : "short");
    return MIR_OK;
}

/* What one segment came to is stored when the next one of the same hours is looked at. */
static void a_device_may_move_while_its_rows_are_looked_at(void **state)
{
    (void)state;
    static const mir_tlog_rule rules[] = {{.name_space = {(const uint8_t *)"kept", 4}}};
    fixture x;
    begin(&x, 25);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.rules = rules;
    s->options.rule_count = 1;
    s->options.namespace_of = namespace_moving;
    s->options.idle_ms = 1000000; /* no merges */
    side_open(s);
    for (int64_t n = 0; n < 60; n++) put(&x, (uint32_t)n % 2, START_NS + n * MINUTE_NS);
    freeze(&x);
    settle(&x);
    for (int64_t n = 0; n < 30; n++) put(&x, 1, START_NS + n * MINUTE_NS + 1);
    freeze(&x);
    settle(&x);
    asked_of_b = 0;
    now_ns = START_NS + DAY_NS;
    settle(&x);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    assert_int_equal(rows_removed(s) + s->tlog->retention.rows_removed[1], 90);
    end(&x);
}

/* More segments than can be written anew at once, of which one has hours of all the others. */
static void any_number_of_segments_may_share_hours(void **state)
{
    (void)state;
    enum { DAYS = MIR_TLOG_EXPIRE_MAX + 22 };
    fixture x;
    begin(&x, 26);
    for (int64_t day = 0; day < DAYS; day++) {
        for (int64_t n = 0; n < 6; n++) {
            put(&x, (uint32_t)n % DEVICES, START_NS + day * DAY_NS + n * 2 * HOUR_NS);
        }
        freeze(&x);
        settle(&x);
    }
    /* Some of them once more, and some new ones. */
    for (int64_t day = 0; day < DAYS; day++) {
        put(&x, 0, START_NS + day * DAY_NS);
        put(&x, 0, START_NS + day * DAY_NS + 1);
    }
    freeze(&x);
    settle(&x);
    assert_true(x.sides[1].tlog->version->segment_count > MIR_TLOG_EXPIRE_MAX);
    now_ns = START_NS + (DAYS + 5) * DAY_NS;
    settle(&x);
    assert_int_equal(rows_removed(&x.sides[1]), DAYS * 7 + DAYS);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    end(&x);
}

/* What has to go because of rows that are not rolled up takes an older segment with it, of which rows are:
 * these have later values in a third one, for which it is not time yet. */
static void hours_go_as_a_whole_with_whatever_takes_them_along(void **state)
{
    (void)state;
    static const mir_tlog_rule rules[] = {{.measurement = MIR_VIEW_LITERAL("n.*"),
                                           .nothing_stays = true,
                                           .age_ns = (uint64_t)3600 * MIR_NS_PER_S}};
    fixture x;
    begin(&x, 30);
    side *s = &x.sides[1];
    mir_tlog_close(s->tlog);
    s->options.rules = rules;
    s->options.rule_count = 1;
    s->options.idle_ms = 1000000; /* no merges */
    side_open(s);
    for (int part = 0; part < 3; part++) {
        for (int64_t n = 0; n < 40 && part == 1; n++) put_beside(&x, 0, START_NS + HOUR_NS + n);
        for (int64_t n = 120; n < 360 && part != 1; n++)
            put(&x, 0, START_NS + n * 10 * MIR_NS_PER_S);
        for (int64_t n = 0; n < 1500 && part != 1; n++)
            put(&x, 0, START_NS + HOUR_NS + n * 6 * MIR_NS_PER_S + part);
        freeze(&x);
        settle(&x);
    }
    assert_int_equal(s->tlog->version->segment_count, 3);
    now_ns = START_NS + 4 * HOUR_NS + 10 * MINUTE_NS;
    settle(&x);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    now_ns += 10 * HOUR_NS;
    settle(&x);
    assert_true(compare(&x, &spec));
    end(&x);
}

/* Rows are kept for ever now: what earlier ones came to is kept for its time all the same. */
static void rollups_end_although_rows_stay(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 27);
    for (int64_t n = 0; n < 300; n++) put(&x, (uint32_t)n % DEVICES, START_NS + n * MINUTE_NS);
    freeze(&x);
    now_ns = START_NS + DAY_NS;
    settle(&x);
    side *s = &x.sides[1];
    assert_true(stored_rollups(s, 0) > 0);
    mir_tlog_stats stats;
    mir_tlog_retention told;
    mir_tlog_stats_read(s->tlog, &stats, NULL);
    mir_tlog_retention_read(s->tlog, &told);
    assert_int_equal(told.bytes + told.rollup_bytes, stats.segment_bytes);
    mir_tlog_close(s->tlog);
    s->options.retention_age_ns = 0;
    side_open(s);
    put(&x, 0, START_NS + DAY_NS);
    freeze(&x);
    now_ns = START_NS + 40 * DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(s, 0), 0);
    assert_true(stored_rollups(s, 1) > 0);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    end(&x);
}

/* The rows of START_NS + from … of a device, the same at each call. */
static void put_same(fixture *x, uint32_t device, int64_t from_ns, int64_t to_ns, int64_t step_ns)
{
    for (int64_t at_ns = from_ns; at_ns < to_ns; at_ns += step_ns) {
        x->random = (uint64_t)at_ns;
        put(x, device, START_NS + at_ns);
    }
}

static uint64_t rows_repeated(const side *s)
{
    mir_tlog_retention told;
    mir_tlog_retention_read(s->tlog, &told);
    return told.rows_repeated;
}

/* Hours that were rolled up are sent once more, whole or in part, with rows that are new. */
static void what_is_sent_again_counts_once(void **state)
{
    (void)state;
    fixture x;
    begin(&x, 28);
    const int64_t times[] = {3 * MIR_NS_PER_S, 40 * MIR_NS_PER_S, 15 * MINUTE_NS};
    for (uint32_t d = 0; d < DEVICES; d++) put_same(&x, d, 0, 5 * HOUR_NS, times[d]);
    freeze(&x);
    now_ns = START_NS + DAY_NS;
    settle(&x);
    const mir_tlog_query_spec spec = spec_of(all_but_rate, HOUR_NS, START_NS, now_ns);
    assert_true(compare(&x, &spec));
    assert_int_equal(rows_repeated(&x.sides[1]), 0);
    /* Whole minutes of many rows; any rows where there are two in a minute at most. */
    put_same(&x, 0, HOUR_NS, 2 * HOUR_NS + 7 * MINUTE_NS, times[0]);
    put_same(&x, 1, 1000 * MIR_NS_PER_S, 2000 * MIR_NS_PER_S, times[1]);
    put_same(&x, 2, 0, 5 * HOUR_NS, times[2]);
    freeze(&x);
    settle(&x);
    compare_all(&x, now_ns, false);
    assert_int_equal(rows_repeated(&x.sides[1]), 67 * 20 + 25 + 20);
    /* With others among them, and in two parts. */
    for (uint32_t d = 0; d < DEVICES; d++) {
        put_same(&x, d, 2 * HOUR_NS, 3 * HOUR_NS, times[d]);
        put_same(&x, d, 3 * HOUR_NS + 1, 4 * HOUR_NS, times[d]);
    }
    freeze(&x);
    settle(&x);
    for (uint32_t d = 0; d < DEVICES; d++) put_same(&x, d, 0, HOUR_NS, times[d]);
    freeze(&x);
    settle(&x);
    compare_all(&x, now_ns, false);
    /* Minutes are gone: of an hour that is sent again as it was that can be seen still. */
    now_ns = START_NS + 70 * DAY_NS;
    settle(&x);
    assert_int_equal(stored_rollups(&x.sides[1], 1), 0);
    const uint64_t before = rows_repeated(&x.sides[1]);
    for (uint32_t d = 0; d < DEVICES; d++) put_same(&x, d, 0, 2 * HOUR_NS, times[d]);
    freeze(&x);
    settle(&x);
    assert_true(compare(&x, &spec));
    assert_int_equal(rows_repeated(&x.sides[1]) - before, 2 * (1200 + 90 + 4));
    end(&x);
}

/* Times about 1970 and at the borders of minutes and hours; values that are no numbers, or none. */
static void odd_times_and_values_are_as_rows_are(void **state)
{
    (void)state;
    static const mir_column only[] = {{"f", 1, MIR_COLUMN_F64}, {"z", 1, MIR_COLUMN_F64}};
    const double odd[] = {(double)NAN, (double)INFINITY, -(double)INFINITY, 5e-324, -1.5, 3, 1e308};
    enum { ODD = sizeof odd / sizeof odd[0] };
    fixture x;
    begin(&x, 29);
    now_ns = 0;
    x.row.present[0] = 3;
    x.row.dynamic_count = 0;
    for (int64_t n = -400; n < 400; n++) {
        const int64_t off[] = {-1, 0, 1, 29 * MIR_NS_PER_S};
        x.row.time_ns = n * MINUTE_NS + off[(n + 400) % 4];
        /* Some minutes have nothing but NaN. */
        x.row.cells[0].f64 = n % 3 == 0 ? odd[0] : odd[sim_random(&x.random) % ODD];
        x.row.cells[1].f64 = n % 2 == 0 ? -0.0 : 0.0;
        for (int i = 0; i < SIDES; i++) put_into(&x, &x.sides[i], (uint32_t)(n + 400) % 2, only, 2);
    }
    freeze(&x);
    settle(&x);
    now_ns = 11 * HOUR_NS;
    settle(&x);
    assert_true(stored_rollups(&x.sides[1], 2) >= 2 * 13);
    const mir_view fields[] = {mir_view_cstr("f"), mir_view_cstr("z")};
    static const int64_t windows[] = {0, 1, 2, 7, 10, 30, 60, 120, 180};
    for (size_t w = 0; w < sizeof windows / sizeof windows[0]; w++) {
        for (int f = 0; f < 2; f++) {
            const uint32_t range = f == 0 ? MIR_TLOG_MIN | MIR_TLOG_MAX : MIR_TLOG_RATE;
            mir_tlog_query_spec spec =
                spec_of(range | MIR_TLOG_COUNT | MIR_TLOG_FIRST | MIR_TLOG_LAST,
                        windows[w] * MINUTE_NS, -9 * HOUR_NS, 9 * HOUR_NS);
            spec.fields = &fields[f];
            spec.field_count = 1;
            assert_true(compare(&x, &spec));
            spec.from_ns = -3 * HOUR_NS;
            spec.to_ns = 2 * HOUR_NS;
            assert_true(compare(&x, &spec));
            spec.from_ns = INT64_MIN;
            spec.to_ns = INT64_MAX;
            assert_true(compare(&x, &spec));
        }
    }
    end(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(rollups_answer_what_the_rows_did),
        cmocka_unit_test(whatever_happens_answers_are_the_same),
        cmocka_unit_test(late_rows_are_added),
        cmocka_unit_test(what_rollups_cannot_tell_is_said),
        cmocka_unit_test(each_page_says_what_is_left_out),
        cmocka_unit_test(each_step_is_kept_for_its_time),
        cmocka_unit_test(a_rule_may_leave_nothing),
        cmocka_unit_test(a_power_cut_at_any_change_loses_and_doubles_nothing),
        cmocka_unit_test(a_read_that_fails_loses_no_rollups),
        cmocka_unit_test(what_is_not_read_for_a_day_is_lost),
        cmocka_unit_test(what_is_not_read_for_a_day_is_lost_whatever_the_clock_said),
        cmocka_unit_test(what_is_read_again_each_time_is_not_lost),
        cmocka_unit_test(late_rows_wait_for_what_a_start_could_not_open),
        cmocka_unit_test(hours_far_apart_are_read_a_few_times),
        cmocka_unit_test(a_slice_that_is_read_again_leaves_nothing_out),
        cmocka_unit_test(a_long_time_needs_no_more_than_a_part_of_it),
        cmocka_unit_test(a_slice_that_is_read_again_has_all_the_room),
        cmocka_unit_test(a_low_disk_loses_no_rollups),
        cmocka_unit_test(a_low_disk_is_cleared_by_and_by),
        cmocka_unit_test(each_row_is_counted_once_at_any_moment),
        cmocka_unit_test(what_went_is_named),
        cmocka_unit_test(many_months_are_few_segments),
        cmocka_unit_test(names_may_be_as_long_as_those_of_rows),
        cmocka_unit_test(a_rate_goes_on_under_another_name),
        cmocka_unit_test(an_hour_is_not_told_by_some_of_its_minutes),
        cmocka_unit_test(what_is_added_to_an_infinite_value_counts),
        cmocka_unit_test(a_device_may_move_while_its_rows_are_looked_at),
        cmocka_unit_test(any_number_of_segments_may_share_hours),
        cmocka_unit_test(hours_go_as_a_whole_with_whatever_takes_them_along),
        cmocka_unit_test(rollups_end_although_rows_stay),
        cmocka_unit_test(what_is_sent_again_counts_once),
        cmocka_unit_test(odd_times_and_values_are_as_rows_are),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
