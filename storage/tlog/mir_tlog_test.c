/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <math.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_oracle.h"

/* Most tests run on the disk in memory; what concerns real files is in mir_tlog_crash_test.c. */

enum { DEVICES = 5 };

static const mir_column columns_a[] = {
    {"b", 1, MIR_COLUMN_BOOL},   {"f", 1, MIR_COLUMN_F64}, {"i", 1, MIR_COLUMN_I64},
    {"s", 1, MIR_COLUMN_STRING}, {"u", 1, MIR_COLUMN_U64},
};
/* The same message after its schema changed: one type is another, one field is new. */
static const mir_column columns_b[] = {
    {"i", 1, MIR_COLUMN_F64}, {"n", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};

static const char *const device_names[DEVICES] = {"a", "b", "dev-3", "dev-31", "zz"};
static mir_view device_ids[DEVICES];

/* What the time is, where a test says so. */
static _Atomic int64_t now_ns;

static int64_t wall_ns(void)
{
    return now_ns != 0 ? now_ns : mir_clock_wall_ns();
}

static mir_tlog *open_with(const mir_tlog_files *files, uint32_t writers, uint64_t log_bytes,
                           uint32_t idle_ms)
{
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = files,
                                      .writer_count = writers,
                                      .log_bytes_max = log_bytes,
                                      .idle_ms = idle_ms,
                                      .sync_ms = 1,
                                      .wall_ns = wall_ns};
    mir_tlog *tlog = NULL;
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &tlog, &error) != MIR_OK) fail_msg("open: %s", error.text);
    return tlog;
}

static mir_tlog *open_on(const mir_tlog_files *files, uint32_t writers, uint64_t log_bytes)
{
    return open_with(files, writers, log_bytes, 0);
}

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    for (uint32_t i = 0; i < DEVICES; i++) device_ids[i] = mir_view_cstr(device_names[i]);
    return 0;
}

static const mir_tlog_query_spec everything = {.from_ns = INT64_MIN, .to_ns = INT64_MAX};

static mir_tlog_query_spec spec_all(void)
{
    mir_tlog_query_spec spec = everything;
    spec.device_ids = device_ids;
    spec.device_count = DEVICES;
    spec.measurement = mir_view_cstr("m.v1.T");
    return spec;
}

static void check_equal(mir_tlog *tlog, const oracle *stored, const char *where)
{
    oracle want = {.count = stored->count, .capacity = stored->count + 1};
    want.fields = malloc(want.capacity * sizeof *want.fields);
    if (stored->count > 0) memcpy(want.fields, stored->fields, stored->count * sizeof *want.fields);
    oracle_fold(&want);
    oracle_sink sink = {0};
    const mir_tlog_sink to = oracle_sink_of(&sink);
    const mir_tlog_query_spec spec = spec_all();
    mir_tlog_query_info info;
    mir_error error = {{0}};
    if (mir_tlog_query(tlog, &spec, &to, &info, &error) != MIR_OK) {
        fail_msg("%s: %s", where, error.text);
    }
    assert_int_equal(info.chunks_corrupt, 0);
    assert_false(sink.disordered);
    if (sink.answer.count != want.count) {
        fail_msg("%s: %zu fields, want %zu", where, sink.answer.count, want.count);
    }
    for (size_t i = 0; i < want.count; i++) {
        const oracle_field *a = &sink.answer.fields[i];
        const oracle_field *b = &want.fields[i];
        if (oracle_compare_key(a, b) != 0 || a->bits != b->bits) {
            fail_msg("%s: field %zu: %u %lld %s.%d %llx, want %u %lld %s.%d %llx", where, i,
                     a->device, (long long)a->time_ns, a->name, a->type,
                     (unsigned long long)a->bits, b->device, (long long)b->time_ns, b->name,
                     b->type, (unsigned long long)b->bits);
        }
    }
    oracle_free(&sink.answer);
    oracle_free(&want);
}

/* ---- Random rows, with the extremes of every type ---- */

static uint8_t long_text[64 * 1024];

static void random_cell(uint64_t *random, mir_column_type type, mir_cell *cell)
{
    static const int64_t ints[] = {INT64_MIN, INT64_MAX, 0, -1, 1};
    static const double doubles[] = {-0.0, 0.0, NAN, INFINITY, -INFINITY, 1e308, 5e-324, 0.1};
    const uint64_t r = sim_random(random);
    const bool extreme = r % 4 == 0;
    switch (type) {
    case MIR_COLUMN_I64: cell->i64 = extreme ? ints[r / 4 % 5] : (int64_t)(r / 4 % 1000); break;
    case MIR_COLUMN_U64: cell->u64 = extreme ? UINT64_MAX - r / 4 % 2 : r / 4 % 100000; break;
    case MIR_COLUMN_F64:
        cell->f64 = extreme ? doubles[r / 4 % 8] : (double)(r / 4 % 100000) / 100;
        break;
    case MIR_COLUMN_BOOL: cell->boolean = r & 1; break;
    case MIR_COLUMN_STRING: {
        size_t size = r / 4 % 20;
        if (extreme) size = r / 4 % 64 == 0 ? sizeof long_text : 0;
        cell->string = mir_view_of(long_text + (size == sizeof long_text ? 0 : r % 1000), size);
        break;
    }
    }
}

static int64_t random_time(uint64_t *random, uint64_t n)
{
    static const int64_t start = INT64_C(1790000000) * 1000000000;
    const uint64_t r = sim_random(random);
    switch (r % 16) {
    case 0: return start + (int64_t)(r / 16 % 50) * 1000000; /* often the same */
    case 1: return start + (int64_t)(n - r / 16 % (n + 1)) * 1000000000;
    case 2: return r / 16 % 40 == 0 ? INT64_MIN : start - (int64_t)(r / 16 % 20) * 86400000000000;
    case 3:
        return r / 16 % 40 == 0 ? INT64_MAX - 1 : start + (int64_t)(r / 16 % 400) * 3600000000000;
    default: return start + (int64_t)n * 1000000000 + (int64_t)(r % 20000000);
    }
}

typedef struct feeder {
    mir_tlog *tlog;
    uint32_t writers;
    uint64_t random;
    uint64_t rows;
    mir_row row;
    oracle stored;
    oracle turn;
} feeder;

static void feeder_init(feeder *f, uint64_t seed)
{
    *f = (feeder){.random = seed, .writers = 1};
    assert_int_equal(mir_row_init(&f->row, 16, 16, 1024), MIR_OK);
    uint64_t random = seed;
    for (size_t i = 0; i < sizeof long_text; i++) long_text[i] = (uint8_t)sim_random(&random);
}

static void feeder_fini(feeder *f)
{
    mir_row_fini(&f->row);
    oracle_free(&f->stored);
    oracle_free(&f->turn);
}

/* One device is always fed by the same writer of a run. */
static mir_tlog_writer *writer_for(feeder *f, uint32_t device)
{
    return mir_tlog_writer_of(f->tlog, device % f->writers);
}

static bool feed_row(feeder *f)
{
    static const char names[8][4] = {"d_0", "d_1", "d_2", "d_3", "x", "i", "n_k", "q"};
    const uint64_t r = sim_random(&f->random);
    const uint32_t device = (uint32_t)(r % DEVICES);
    const bool other = r / 8 % 64 == 0;
    const mir_column *columns = other ? columns_b : columns_a;
    mir_row *row = &f->row;
    row->column_count = other ? 3 : 5;
    row->time_ns = random_time(&f->random, f->rows);
    row->present[0] = r / 512 % 4 == 0 ? r / 4096 % 32 : 31;
    row->dynamic_count = r / 16384 % 4 == 0 ? (uint32_t)(r / 65536 % 6) : 0;
    if (other) row->present[0] &= 7;
    if (row->present[0] == 0 && row->dynamic_count == 0) row->present[0] = 1;
    for (uint32_t i = 0; i < row->column_count; i++) {
        random_cell(&f->random, columns[i].type, &row->cells[i]);
    }
    for (uint32_t i = 0; i < row->dynamic_count; i++) {
        mir_dynamic_cell *cell = &row->dynamic[i];
        const uint64_t pick = sim_random(&f->random);
        cell->name = mir_view_cstr(names[pick % 8]);
        cell->type = (mir_column_type)(1 + pick / 8 % 5);
        random_cell(&f->random, cell->type, &cell->value);
    }
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(writer_for(f, device), device_ids[device],
                                          mir_view_cstr("m.v1.T"), columns, row->column_count,
                                          &series),
                     MIR_OK);
    const mir_status status = mir_tlog_append(writer_for(f, device), series, row);
    if (status != MIR_OK) return false;
    f->rows++;
    oracle_add_row(&f->turn, device, columns, row);
    return true;
}

static void commit(feeder *f)
{
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < f->writers; i++) {
        const mir_status one = mir_tlog_commit_turn(mir_tlog_writer_of(f->tlog, i), NULL);
        if (one != MIR_OK) status = one;
    }
    assert_int_equal(status, MIR_OK);
    for (size_t i = 0; i < f->turn.count; i++) {
        if (f->stored.count == f->stored.capacity) {
            f->stored.capacity = f->stored.capacity * 2 + 1024;
            f->stored.fields =
                realloc(f->stored.fields, f->stored.capacity * sizeof *f->stored.fields);
        }
        f->stored.fields[f->stored.count] = f->turn.fields[i];
        f->stored.fields[f->stored.count].order = f->stored.count;
        f->stored.count++;
    }
    f->turn.count = 0;
}

static void wait_spare(mir_tlog *tlog)
{
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        while (atomic_load(&tlog->writers[i].spare) == NULL ||
               atomic_load(&tlog->writers[i].frozen_count) > 1) {
            assert_true(mir_clock_mono_ns() < until);
            sim_pause_us(200);
        }
    }
}

static void settle(mir_tlog *tlog)
{
    mir_error error = {{0}};
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        wait_spare(tlog);
        assert_int_equal(mir_tlog_freeze(mir_tlog_writer_of(tlog, i)), MIR_OK);
    }
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("settle: %s", error.text);
}

/* Whatever happens between, an answer is what the oracle says: after each commit, sealed, merged,
 * reopened with other numbers of writers. */
static void property_answers_match_oracle(void **state)
{
    (void)state;
    const char *more = getenv("MIR_TEST_SEEDS");
    const uint64_t seeds = more == NULL ? 3 : strtoull(more, NULL, 10);
    for (uint64_t seed = 1; seed <= seeds; seed++) {
        sim_disk *disk = sim_disk_new(seed);
        disk->short_writes = seed == 2;
        feeder f;
        feeder_init(&f, seed);
        /* With merges when there are many segments, or whenever there are two. */
        const uint32_t idle_ms = seed == 2 ? 0 : 1;
        f.tlog = open_with(&disk->files, 1, 8 << 20, idle_ms);
        /* So that a few rows are as much work as many; long texts have no room in a merge then. */
        const bool is_little = seed == 3;
        const uint64_t sweep_bytes = is_little ? 1000 : MIR_TLOG_SWEEP_BYTES;
        atomic_store(&f.tlog->sweep_bytes_max, sweep_bytes);
        mir_tlog_stats stats;
        uint64_t merges = 0;
        for (int round = 0; round < 40; round++) {
            const uint32_t turns = (uint32_t)(sim_random(&f.random) % 6);
            for (uint32_t turn = 0; turn < turns; turn++) {
                const uint64_t rows = sim_random(&f.random) % 40;
                for (uint64_t i = 0; i < rows; i++) assert_true(feed_row(&f));
                commit(&f);
            }
            switch (sim_random(&f.random) % 4) {
            case 0: check_equal(f.tlog, &f.stored, "after commit"); break;
            case 1:
                settle(f.tlog);
                check_equal(f.tlog, &f.stored, "sealed");
                break;
            case 2:
                mir_tlog_stats_read(f.tlog, &stats, NULL);
                merges += stats.merges;
                mir_tlog_close(f.tlog);
                f.writers = 1 + (uint32_t)(sim_random(&f.random) % 3);
                f.tlog = open_with(&disk->files, f.writers, 8 << 20, idle_ms);
                atomic_store(&f.tlog->sweep_bytes_max, sweep_bytes);
                check_equal(f.tlog, &f.stored, "reopened");
                break;
            default:
                wait_spare(f.tlog);
                assert_int_equal(mir_tlog_freeze(mir_tlog_writer_of(f.tlog, 0)), MIR_OK);
                check_equal(f.tlog, &f.stored, "frozen");
            }
        }
        settle(f.tlog);
        check_equal(f.tlog, &f.stored, "at the end");
        mir_tlog_stats_read(f.tlog, &stats, NULL);
        assert_true(is_little || merges + stats.merges > 0);
        assert_int_equal(stats.corrupt_chunks + stats.corrupt_frames + stats.torn_bytes_cut, 0);
        mir_tlog_close(f.tlog);
        f.tlog = open_on(&disk->files, 1, 8 << 20);
        check_equal(f.tlog, &f.stored, "merged and reopened");
        mir_tlog_close(f.tlog);
        feeder_fini(&f);
        sim_disk_free(disk);
    }
}

/* ---- Single promises ---- */

typedef struct fixture {
    sim_disk *disk;
    mir_tlog *tlog;
    mir_tlog_writer *writer;
    mir_row row;
} fixture;

static void fixture_init(fixture *x, uint64_t log_bytes)
{
    x->disk = sim_disk_new(7);
    x->tlog = open_on(&x->disk->files, 1, log_bytes);
    x->writer = mir_tlog_writer_of(x->tlog, 0);
    assert_int_equal(mir_row_init(&x->row, 16, 16, 1024), MIR_OK);
}

static void fixture_fini(fixture *x)
{
    mir_row_fini(&x->row);
    mir_tlog_close(x->tlog);
    sim_disk_free(x->disk);
}

static const mir_column one_int[] = {{"v", 1, MIR_COLUMN_I64}};

static mir_status put_int(fixture *x, uint32_t device, int64_t time_ns, int64_t value)
{
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x->writer, device_ids[device], mir_view_cstr("m.v1.T"),
                                          one_int, 1, &series),
                     MIR_OK);
    x->row.column_count = 1;
    x->row.dynamic_count = 0;
    x->row.present[0] = 1;
    x->row.cells[0].i64 = value;
    x->row.time_ns = time_ns;
    return mir_tlog_append(x->writer, series, &x->row);
}

static void query_into(fixture *x, const mir_tlog_query_spec *spec, oracle_sink *sink,
                       mir_status want)
{
    *sink = (oracle_sink){0};
    const mir_tlog_sink to = oracle_sink_of(sink);
    mir_error error = {{0}};
    const mir_status status = mir_tlog_query(x->tlog, spec, &to, NULL, &error);
    if (status != want) fail_msg("query: %d %s", status, error.text);
}

static void row_is_visible_after_its_commit_and_not_before(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    const mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    assert_int_equal(put_int(&x, 0, 1000, 42), MIR_OK);
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 0);
    assert_int_equal(sink.column_count, 0);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 1);
    assert_int_equal(sink.answer.fields[0].bits, 42);
    oracle_free(&sink.answer);
    fixture_fini(&x);
}

static void times_are_inclusive_from_and_exclusive_to(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    for (int64_t t = 0; t < 10; t++) assert_int_equal(put_int(&x, 0, t, t), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    for (int sealed = 0; sealed < 2; sealed++) {
        mir_tlog_query_spec spec = spec_all();
        spec.from_ns = 3;
        spec.to_ns = 6;
        oracle_sink sink;
        query_into(&x, &spec, &sink, MIR_OK);
        assert_int_equal(sink.rows, 3);
        assert_int_equal(sink.answer.fields[0].time_ns, 3);
        assert_int_equal(sink.answer.fields[2].time_ns, 5);
        oracle_free(&sink.answer);
        spec.to_ns = 3;
        query_into(&x, &spec, &sink, MIR_E_INVALID);
        settle(x.tlog);
    }
    fixture_fini(&x);
}

static void window_is_the_mean_at_its_end_clipped(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    /* Two values in [0, 10), none in [10, 20), one in [20, 30), a negative one before zero. */
    assert_int_equal(put_int(&x, 0, 1, 1), MIR_OK);
    assert_int_equal(put_int(&x, 0, 9, 2), MIR_OK);
    assert_int_equal(put_int(&x, 0, 20, 7), MIR_OK);
    assert_int_equal(put_int(&x, 0, -3, -5), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    for (int sealed = 0; sealed < 2; sealed++) {
        mir_tlog_query_spec spec = spec_all();
        spec.from_ns = -100;
        spec.to_ns = 25;
        spec.window_ns = 10;
        oracle_sink sink;
        query_into(&x, &spec, &sink, MIR_OK);
        static const int64_t times[] = {0, 10, 25};
        static const double means[] = {-5, 1.5, 7};
        assert_int_equal(sink.rows, 3);
        for (int i = 0; i < 3; i++) {
            double mean;
            memcpy(&mean, &sink.answer.fields[i].bits, 8);
            assert_int_equal(sink.answer.fields[i].type, MIR_COLUMN_F64);
            assert_int_equal(sink.answer.fields[i].time_ns, times[i]);
            assert_true(mean == means[i]);
        }
        oracle_free(&sink.answer);
        settle(x.tlog);
    }
    fixture_fini(&x);
}

static void window_leaves_strings_and_booleans_out(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          columns_a, 5, &series),
                     MIR_OK);
    x.row.column_count = 5;
    x.row.present[0] = 31;
    x.row.cells[0].boolean = true;
    x.row.cells[1].f64 = 0.5;
    x.row.cells[2].i64 = -3;
    x.row.cells[3].string = mir_view_cstr("text");
    x.row.cells[4].u64 = UINT64_MAX;
    x.row.time_ns = 5;
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_query_spec spec = spec_all();
    spec.window_ns = 10;
    oracle_sink sink;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.column_count, 3);
    assert_string_equal(sink.names[0], "f");
    assert_string_equal(sink.names[1], "i");
    assert_string_equal(sink.names[2], "u");
    oracle_free(&sink.answer);
    fixture_fini(&x);
}

static void await_segments(mir_tlog *tlog, uint64_t segments)
{
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    mir_tlog_stats stats = {0};
    while (stats.segments != segments) {
        assert_true(mir_clock_mono_ns() < until);
        if (mir_tlog_settle(tlog, 60000, NULL) != MIR_OK) fail_msg("settle");
        mir_tlog_stats_read(tlog, &stats, NULL);
        sim_pause_us(200);
    }
}

static void put_ints(fixture *x, uint64_t *random, int64_t *t, int count)
{
    for (int i = 0; i < count; i++) {
        assert_int_equal(put_int(x, 0, (*t)++, (int64_t)sim_random(random)), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
    settle(x->tlog);
}

/* Nothing more is merged, however long nothing comes. */
static void check_segments_stay(mir_tlog *tlog, uint64_t segments)
{
    mir_tlog_stats stats = {0};
    for (int i = 0; i < 20; i++) {
        settle(tlog);
        sim_pause_us(200);
    }
    mir_tlog_stats_read(tlog, &stats, NULL);
    assert_int_equal(stats.segments, segments);
}

/* Few segments are too few to be merged while rows come, and a large one is not worth being written
 * again for a few rows: less so on the day of its rows than when that is over. */
static void what_is_left_over_is_merged_when_it_is_calm(void **state)
{
    (void)state;
    fixture x = {.disk = sim_disk_new(7)};
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    x.tlog = open_with(&x.disk->files, 1, 8 << 20, 3600 * 1000);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    uint64_t random = 1;
    int64_t t = 0;
    now_ns = 1;
    put_ints(&x, &random, &t, 2000);
    put_ints(&x, &random, &t, 1);
    put_ints(&x, &random, &t, 1);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 3);
    assert_int_equal(stats.merges, 0);
    mir_tlog_close(x.tlog);

    x.tlog = open_with(&x.disk->files, 1, 8 << 20, 1);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    await_segments(x.tlog, 2);
    put_ints(&x, &random, &t, 2000);
    await_segments(x.tlog, 1);
    put_ints(&x, &random, &t, 400);
    check_segments_stay(x.tlog, 2);
    now_ns = 86400 * MIR_NS_PER_S;
    await_segments(x.tlog, 1);
    put_ints(&x, &random, &t, 1);
    check_segments_stay(x.tlog, 2);
    const mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, t);
    oracle_free(&sink.answer);
    fixture_fini(&x);
    now_ns = 0;
}

/* A merge needs the room of what it merges once more, and the reserve is not for that: the state store
 * could not write meanwhile. */
static void what_does_not_fit_beside_the_reserve_is_merged_when_it_does(void **state)
{
    (void)state;
    const uint64_t reserve = 1 << 20;
    fixture x = {.disk = sim_disk_new(7)};
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    x.tlog = open_with(&x.disk->files, 1, 8 << 20, 3600 * 1000);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    uint64_t random = 1;
    int64_t t = 0;
    now_ns = 1;
    put_ints(&x, &random, &t, 2000);
    put_ints(&x, &random, &t, 2000);
    put_ints(&x, &random, &t, 1);
    put_ints(&x, &random, &t, 1);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 4);
    mir_tlog_close(x.tlog);

    atomic_store(&x.disk->free_bytes, reserve + stats.segment_bytes / 4);
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = &x.disk->files,
                                      .writer_count = 1,
                                      .log_bytes_max = 8 << 20,
                                      .idle_ms = 1,
                                      .sync_ms = 1,
                                      .disk_reserve_bytes = reserve,
                                      .wall_ns = wall_ns};
    assert_int_equal(mir_tlog_open(&options, &x.tlog, NULL), MIR_OK);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    await_segments(x.tlog, 3);
    check_segments_stay(x.tlog, 3);
    atomic_store(&x.disk->free_bytes, UINT64_MAX);
    await_segments(x.tlog, 1);
    fixture_fini(&x);
    now_ns = 0;
}

/* What few rows still come goes to logs that stay open for minutes: nothing waits for these. */
static void a_trickle_does_not_keep_what_is_left_over_from_being_merged(void **state)
{
    (void)state;
    fixture x = {.disk = sim_disk_new(8)};
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    x.tlog = open_with(&x.disk->files, 1, 8 << 20, 3600 * 1000);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    uint64_t random = 1;
    int64_t t = 0;
    for (int i = 0; i < 3; i++) put_ints(&x, &random, &t, 1000);
    mir_tlog_close(x.tlog);

    x.tlog = open_with(&x.disk->files, 1, 8 << 20, 1000);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    while (atomic_load(&x.writer->open->bytes) < MIR_TLOG_LOG_ROOM) {
        assert_int_equal(put_int(&x, 0, t++, (int64_t)sim_random(&random)), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    }
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    mir_tlog_stats stats = {0};
    while (stats.segments != 1) {
        assert_true(mir_clock_mono_ns() < until);
        assert_int_equal(put_int(&x, 0, t++, (int64_t)sim_random(&random)), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
        sim_pause_us(2000);
        mir_tlog_stats_read(x.tlog, &stats, NULL);
    }
    fixture_fini(&x);
}

static const mir_column one_text[] = {{"s", 1, MIR_COLUMN_STRING}};

static mir_tlog *open_at(sim_disk *disk, int64_t at_ns)
{
    now_ns = at_ns;
    return open_with(&disk->files, 1, 8 << 20, 3600 * 1000);
}

static void put_texts(fixture *x, int64_t from_ns, uint32_t rows, uint64_t *random)
{
    static const char *const words[] = {"motor stalled", "door open", "battery low", "reboot"};
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x->writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          one_text, 1, &series),
                     MIR_OK);
    for (uint32_t i = 0; i < rows; i++) {
        char text[96];
        const uint64_t r = sim_random(random);
        const int size = snprintf(text, sizeof text, "%s unit=%u code=0x%04x after %u ms",
                                  words[r % 4], (unsigned)(r / 4 % 200),
                                  (unsigned)(r >> 16 & 0xffff), (unsigned)(r >> 32) % 5000);
        x->row.column_count = 1;
        x->row.dynamic_count = 0;
        x->row.present[0] = 1;
        x->row.cells[0].string = mir_view_of((const uint8_t *)text, (size_t)size);
        x->row.time_ns = from_ns + i;
        assert_int_equal(mir_tlog_append(x->writer, series, &x->row), MIR_OK);
        if (i % 1024 == 1023) assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
}

static uint64_t texts_hash(fixture *x, size_t rows)
{
    mir_tlog_query_spec spec = spec_all();
    spec.device_count = 1;
    oracle_sink sink;
    query_into(x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, rows);
    uint64_t hash = 0;
    for (size_t i = 0; i < sink.answer.count; i++) hash = hash * 31 + sink.answer.fields[i].bits;
    oracle_free(&sink.answer);
    return hash;
}

/* Texts of days that are over are packed once more, and once only; what is recent or has no texts is
 * left as it is. */
static void old_texts_are_packed_densely(void **state)
{
    (void)state;
    const int64_t day = 24 * 3600 * MIR_NS_PER_S;
    const uint32_t rows = 3000;
    fixture x = {.disk = sim_disk_new(9)};
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    x.tlog = open_at(x.disk, 100 * day + day / 2);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    uint64_t random = 1;
    put_texts(&x, 100 * day, rows, &random);
    settle(x.tlog);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 1);
    assert_int_equal(stats.merges, 0);
    const uint64_t hurried = stats.segment_bytes;
    const uint64_t hash = texts_hash(&x, rows);

    /* Two days later, beside numbers of the same age. */
    for (int64_t t = 0; t < rows; t++) {
        assert_int_equal(put_int(&x, 1, 99 * day + t, (int64_t)sim_random(&random)), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    settle(x.tlog);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 2);
    assert_int_equal(stats.merges, 0);
    const uint64_t numbers = stats.segment_bytes - hurried;
    now_ns = 102 * day;
    settle(x.tlog);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segments, 2);
    assert_int_equal(stats.merges, 1);
    const uint64_t dense = stats.segment_bytes - numbers;
    print_message("%u texts: %llu bytes, %llu when old\n", rows, (unsigned long long)hurried,
                  (unsigned long long)dense);
    assert_true(dense < hurried - hurried / 20);
    settle(x.tlog);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.merges, 1);
    mir_tlog_close(x.tlog);

    /* It is known of the file, not only of what runs. */
    x.tlog = open_at(x.disk, 200 * day);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    settle(x.tlog);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.merges, 0);
    assert_int_equal(stats.segment_bytes, dense + numbers);
    assert_true(texts_hash(&x, rows) == hash);
    fixture_fini(&x);
    now_ns = 0;
}

/* A log that nothing was written to takes next to no room, and as soon as rows come it has more. */
static void an_empty_log_is_small(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    wait_spare(x.tlog);
    const mir_tlog_live *spare = atomic_load(&x.writer->spare);
    assert_int_equal(atomic_load(&spare->room), MIR_TLOG_LOG_ROOM_EMPTY);
    const mir_tlog_live *open = x.writer->open;
    const int64_t until = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    for (int64_t t = 0; atomic_load(&open->room) < MIR_TLOG_LOG_ROOM; t++) {
        assert_true(mir_clock_mono_ns() < until);
        assert_int_equal(put_int(&x, 0, t, t), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
        if (t >= 2000) sim_pause_us(200);
    }
    fixture_fini(&x);
}

static void fields_can_be_chosen(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          columns_a, 5, &series),
                     MIR_OK);
    x.row.column_count = 5;
    memset(x.row.cells, 0, 5 * sizeof *x.row.cells);
    for (int64_t t = 0; t < 10; t++) {
        x.row.time_ns = t;
        x.row.present[0] = t % 2 == 0 ? 31 : 1;
        assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    for (int sealed = 0; sealed < 2; sealed++) {
        const mir_view fields[] = {MIR_VIEW_LITERAL("u"), MIR_VIEW_LITERAL("none"),
                                   MIR_VIEW_LITERAL("i")};
        mir_tlog_query_spec spec = spec_all();
        spec.fields = fields;
        spec.field_count = 3;
        oracle_sink sink;
        query_into(&x, &spec, &sink, MIR_OK);
        assert_int_equal(sink.column_count, 2);
        assert_string_equal(sink.names[0], "i");
        assert_int_equal(sink.rows, 5); /* rows without any of them are not rows */
        oracle_free(&sink.answer);
        settle(x.tlog);
    }
    fixture_fini(&x);
}

/* Rows of times 0 to 9 have the one name, 10 to 19 the other, 20 to 29 each in turn; the values are the
 * times. */
static void put_renamed(fixture *x)
{
    static const mir_column columns[] = {{"celsius", 7, MIR_COLUMN_I64},
                                         {"degrees", 7, MIR_COLUMN_I64}};
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x->writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          columns, 2, &series),
                     MIR_OK);
    x->row.column_count = 2;
    for (int64_t t = 0; t < 30; t++) {
        const bool is_new = t < 20 ? t >= 10 : t % 2 == 0;
        x->row.time_ns = t;
        x->row.cells[0].i64 = x->row.cells[1].i64 = t;
        x->row.present[0] = is_new ? 1 : 2;
        assert_int_equal(mir_tlog_append(x->writer, series, &x->row), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
}

static void a_field_that_was_renamed_is_one_column(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    put_renamed(&x);
    const mir_tlog_rename rename = {mir_view_cstr("degrees"), mir_view_cstr("celsius")};
    const mir_view names[] = {MIR_VIEW_LITERAL("celsius"), MIR_VIEW_LITERAL("degrees")};
    for (int sealed = 0; sealed < 2; sealed++) {
        mir_tlog_query_spec spec = spec_all();
        spec.renames = &rename;
        spec.rename_count = 1;
        for (uint32_t fields = 0; fields < 2; fields++) {
            spec.fields = names;
            spec.field_count = fields;
            oracle_sink sink;
            query_into(&x, &spec, &sink, MIR_OK);
            assert_int_equal(sink.column_count, 1);
            assert_string_equal(sink.names[0], "celsius");
            assert_int_equal(sink.answer.count, 30);
            for (size_t i = 0; i < 30; i++) {
                assert_int_equal(sink.answer.fields[i].bits, sink.answer.fields[i].time_ns);
            }
            oracle_free(&sink.answer);
        }
        spec.field_count = 0;
        spec.window_ns = 15;
        static const mir_tlog_function functions[] = {MIR_TLOG_SUM, MIR_TLOG_COUNT, MIR_TLOG_LAST};
        static const uint64_t expected[][2] = {{105, 330}, {15, 15}, {14, 29}};
        for (int i = 0; i < 3; i++) {
            spec.functions = functions[i];
            oracle_sink sink;
            query_into(&x, &spec, &sink, MIR_OK);
            assert_int_equal(sink.answer.count, 2);
            assert_int_equal(sink.answer.fields[0].bits, expected[i][0]);
            assert_int_equal(sink.answer.fields[1].bits, expected[i][1]);
            oracle_free(&sink.answer);
        }
        spec.window_ns = 0;
        spec.functions = MIR_TLOG_LAST;
        oracle_sink sink;
        query_into(&x, &spec, &sink, MIR_OK);
        assert_int_equal(sink.answer.count, 1);
        assert_int_equal(sink.answer.fields[0].bits, 29);
        oracle_free(&sink.answer);
        /* The earlier name is what is stored: nothing answers to it. */
        spec.functions = 0;
        spec.fields = &names[1];
        spec.field_count = 1;
        query_into(&x, &spec, &sink, MIR_OK);
        assert_int_equal(sink.answer.count, 0);
        oracle_free(&sink.answer);
        settle(x.tlog);
    }
    fixture_fini(&x);
}

static void answers_are_bounded_and_cancellable(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    for (int64_t t = 0; t < 5000; t++) assert_int_equal(put_int(&x, 0, t, t), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    oracle_sink sink;
    mir_tlog_query_spec spec = spec_all();
    spec.rows_max = 4999;
    query_into(&x, &spec, &sink, MIR_E_TOO_LARGE);
    spec.rows_max = 5000;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 5000);
    oracle_free(&sink.answer);
    spec.bytes_max = 10000;
    query_into(&x, &spec, &sink, MIR_E_TOO_LARGE);
    spec.bytes_max = 0;
    atomic_bool cancel = true;
    spec.cancel = &cancel;
    query_into(&x, &spec, &sink, MIR_E_CANCELLED);
    fixture_fini(&x);
}

typedef struct name_list {
    char names[32][64];
    uint32_t count;
} name_list;

static mir_status name_push(void *context, mir_view name)
{
    name_list *list = context;
    (void)snprintf(list->names[list->count++], 64, "%.*s", MIR_VIEW_ARGS(name));
    return MIR_OK;
}

static mir_status column_push(void *context, const mir_column *column)
{
    name_list *list = context;
    (void)snprintf(list->names[list->count++], 64, "%d %.*s", (int)column->type,
                   (int)column->name_size, column->name);
    return MIR_OK;
}

static void fields_and_measurements_are_listed(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          columns_a, 5, &series),
                     MIR_OK);
    x.row.column_count = 5;
    memset(x.row.cells, 0, 5 * sizeof *x.row.cells);
    x.row.present[0] = 1 | 4; /* b and i */
    x.row.dynamic_count = 1;
    x.row.dynamic[0] = (mir_dynamic_cell){.name = MIR_VIEW_LITERAL("a_0"), .type = MIR_COLUMN_I64};
    x.row.time_ns = 1000;
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    for (int sealed = 0; sealed < 2; sealed++) {
        name_list list = {.count = 0};
        assert_int_equal(
            mir_tlog_fields(x.tlog, mir_view_cstr("m.v1.T"), 1000, name_push, &list, NULL), MIR_OK);
        assert_int_equal(list.count, 3);
        assert_string_equal(list.names[0], "a_0");
        assert_string_equal(list.names[1], "b");
        assert_string_equal(list.names[2], "i");
        list.count = 0;
        assert_int_equal(
            mir_tlog_fields(x.tlog, mir_view_cstr("m.v1.T"), 1001, name_push, &list, NULL), MIR_OK);
        assert_int_equal(list.count, 0);
        assert_int_equal(mir_tlog_measurements(x.tlog, name_push, &list, NULL), MIR_OK);
        assert_int_equal(list.count, 1);
        assert_string_equal(list.names[0], "m.v1.T");
        list.count = 0;
        assert_int_equal(
            mir_tlog_field_types(x.tlog, mir_view_cstr("m.v1.T"), 1000, column_push, &list, NULL),
            MIR_OK);
        assert_int_equal(list.count, 3);
        assert_string_equal(list.names[0], "1 a_0");
        assert_string_equal(list.names[1], "1 i");
        assert_string_equal(list.names[2], "4 b");
        list.count = 0;
        uint64_t corrupt = 1;
        assert_int_equal(mir_tlog_devices(x.tlog, mir_view_cstr("m.v1.T"), 1000, name_push, &list,
                                          &corrupt, NULL),
                         MIR_OK);
        assert_int_equal(list.count, 1);
        assert_int_equal(corrupt, 0);
        assert_true(mir_view_eq_cstr(device_ids[0], list.names[0]));
        list.count = 0;
        assert_int_equal(mir_tlog_devices(x.tlog, mir_view_cstr("m.v1.T"), 1001, name_push, &list,
                                          &corrupt, NULL),
                         MIR_OK);
        assert_int_equal(
            mir_tlog_devices(x.tlog, mir_view_cstr("m.v1"), 0, name_push, &list, &corrupt, NULL),
            MIR_OK);
        assert_int_equal(list.count, 0);
        settle(x.tlog);
    }
    fixture_fini(&x);
}

static void malformed_rows_are_refused_and_counted(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, MIR_TLOG_LOG_BYTES_MIN);
    mir_tlog_series *series;
    assert_int_equal(mir_tlog_series_open(x.writer, (mir_view){NULL, 0}, mir_view_cstr("m"),
                                          columns_a, 5, &series),
                     MIR_E_INVALID);
    assert_int_equal(mir_tlog_series_open(x.writer, mir_view_of(long_text, 256), mir_view_cstr("m"),
                                          columns_a, 5, &series),
                     MIR_E_TOO_LARGE);
    assert_int_equal(mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                          columns_a, 5, &series),
                     MIR_OK);
    x.row.column_count = 4;
    x.row.present[0] = 1;
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_E_INVALID);
    x.row.column_count = 5;
    x.row.present[0] = 0;
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_E_INVALID);
    x.row.present[0] = 8;
    x.row.cells[3].string = mir_view_of(long_text, 20000);
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_E_TOO_LARGE);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.refused_invalid, 2);
    assert_int_equal(stats.refused_too_large, 1);
    assert_int_equal(stats.rows_accepted, 0);
    fixture_fini(&x);
}

static void columns_of_a_series_are_bounded_until_its_log_is_sealed(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 24 << 20);
    mir_tlog_series *series;
    assert_int_equal(
        mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"), one_int, 1, &series),
        MIR_OK);
    x.row.column_count = 1;
    x.row.present[0] = 1;
    x.row.dynamic_count = 1;
    char name[16];
    uint32_t stored = 0;
    for (int i = 0; i < MIR_TLOG_COLUMNS_MAX + 10; i++) {
        const int size = snprintf(name, sizeof name, "k_%d", i);
        x.row.time_ns = i;
        x.row.dynamic[0] = (mir_dynamic_cell){
            .name = mir_view_of(name, (size_t)size), .type = MIR_COLUMN_I64, .value.i64 = i};
        const mir_status status = mir_tlog_append(x.writer, series, &x.row);
        if (status == MIR_OK) {
            stored++;
        } else {
            assert_int_equal(status, MIR_E_TOO_LARGE);
        }
    }
    assert_int_equal(stored, MIR_TLOG_COLUMNS_MAX - 1);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    settle(x.tlog);
    assert_int_equal(mir_tlog_append(x.writer, series, &x.row), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    fixture_fini(&x);
}

/* With nobody who seals, the log takes what it may hold and refuses the rest at once. */
static void full_log_refuses_and_recovers(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, MIR_TLOG_LOG_BYTES_MIN);
    uint64_t stored = 0;
    uint64_t refused = 0;
    /* Segments cannot be made: every change but writes of the log would fail, so all fail once the
     * logs are there. */
    for (int64_t t = 0; t < 200000 && refused < 10; t++) {
        const mir_status status = put_int(&x, 0, t, t);
        if (status == MIR_OK) {
            stored++;
        } else {
            assert_int_equal(status, MIR_E_FULL);
            refused++;
        }
        if (t % 64 == 0) assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.rows_accepted, stored);
    assert_int_equal(stats.refused_full, refused);
    assert_true(stats.log_bytes <= MIR_TLOG_LOG_BYTES_MIN);
    wait_spare(x.tlog);
    assert_int_equal(put_int(&x, 0, INT64_C(1) << 40, 1), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, stored + 1);
    oracle_free(&sink.answer);
    fixture_fini(&x);
}

/* A disk on which making a segment waits, fails, or is told who did it. */
static atomic_bool gate_shut; /* for the thread at nice 19 */
static atomic_bool gate_fails;
static atomic_int gate_waiting;
static atomic_int sealed_by_sealers;

static bool thread_is(const char *prefix)
{
    char name[16] = "";
    (void)pthread_getname_np(pthread_self(), name, sizeof name);
    return strncmp(name, prefix, strlen(prefix)) == 0;
}

static bool ends_with(const char *path, const char *suffix)
{
    const size_t size = strlen(path);
    return size > strlen(suffix) && strcmp(path + size - strlen(suffix), suffix) == 0;
}

static int gated_create(void *context, const char *path, int *handle)
{
    if (ends_with(path, ".seg.tmp")) {
        if (atomic_load(&gate_fails)) return -EIO;
        while (atomic_load(&gate_shut) && thread_is("mir-tlog-back")) {
            atomic_store(&gate_waiting, 1);
            sim_pause_us(200);
        }
    }
    return sim_create(context, path, handle);
}

static int gated_rename(void *context, const char *from, const char *to)
{
    if (ends_with(to, ".seg") && thread_is("mir-seal-")) atomic_fetch_add(&sealed_by_sealers, 1);
    return sim_rename(context, from, to);
}

static void gated_init(fixture *x)
{
    atomic_store(&gate_shut, false);
    atomic_store(&gate_fails, false);
    atomic_store(&gate_waiting, 0);
    atomic_store(&sealed_by_sealers, 0);
    x->disk = sim_disk_new(7);
    x->disk->files.create = gated_create;
    x->disk->files.rename = gated_rename;
    x->tlog = open_on(&x->disk->files, 1, MIR_TLOG_LOG_BYTES_MIN);
    x->writer = mir_tlog_writer_of(x->tlog, 0);
    assert_int_equal(mir_row_init(&x->row, 16, 16, 1024), MIR_OK);
}

#define WAIT_UNTIL(condition)                                                                      \
    for (const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S; !(condition);) {           \
        assert_true(mir_clock_mono_ns() < until);                                                  \
        sim_pause_us(200);                                                                         \
    }

/* One frozen log, with rows of all devices, and an open one that is more than half full. */
static void press(fixture *x, int64_t *time_ns)
{
    for (uint32_t i = 0; i < DEVICES; i++) assert_int_equal(put_int(x, i, (*time_ns)++, 1), MIR_OK);
    wait_spare(x->tlog);
    assert_int_equal(mir_tlog_freeze(x->writer), MIR_OK);
    while (x->writer->position * 2 <= x->tlog->file_bytes) {
        assert_int_equal(put_int(x, 0, (*time_ns)++, 1), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
    }
}

static void check_count(fixture *x, uint64_t rows)
{
    const mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    query_into(x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, rows);
    oracle_free(&sink.answer);
}

/* The thread at nice 19 gets no further with what it does: what the writer needs is done by others
 * before the log is full. */
static void half_full_log_is_sealed_by_others_than_the_background(void **state)
{
    (void)state;
    fixture x;
    gated_init(&x);
    int64_t time_ns = 0;
    assert_int_equal(put_int(&x, 0, time_ns++, 1), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_close(x.tlog);
    atomic_store(&gate_shut, true);
    x.tlog = open_on(&x.disk->files, 1, MIR_TLOG_LOG_BYTES_MIN);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    WAIT_UNTIL(atomic_load(&gate_waiting) != 0);
    press(&x, &time_ns);
    WAIT_UNTIL(atomic_load(&x.writer->frozen_count) == 0);
    assert_true(atomic_load(&sealed_by_sealers) > 0);
    atomic_store(&gate_shut, false);
    check_count(&x, (uint64_t)time_ns);
    fixture_fini(&x);
}

/* What it has begun itself is finished by them, too, and no row is lost or twice on the way. */
static void sealing_that_has_begun_changes_hands(void **state)
{
    (void)state;
    fixture x;
    gated_init(&x);
    int64_t time_ns = 0;
    atomic_store(&gate_shut, true);
    press(&x, &time_ns);
    WAIT_UNTIL(atomic_load(&x.writer->frozen_count) == 0 || atomic_load(&gate_waiting) != 0);
    const bool begun = atomic_load(&gate_waiting) != 0;
    atomic_store(&gate_shut, false);
    WAIT_UNTIL(atomic_load(&x.writer->frozen_count) == 0);
    assert_true(atomic_load(&sealed_by_sealers) > 0);
    check_count(&x, (uint64_t)time_ns);
    settle(x.tlog);
    check_count(&x, (uint64_t)time_ns);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.segment_rows, (uint64_t)time_ns);
    assert_true(begun || stats.seals > 0);
    fixture_fini(&x);
}

/* Appends a row, and waits when there is only no new file for it yet. */
static mir_status put_patiently(fixture *x, uint32_t device, int64_t time_ns)
{
    mir_status status;
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    while ((status = put_int(x, device, time_ns, time_ns)) == MIR_E_FULL &&
           atomic_load(&x->writer->frozen_count) < MIR_TLOG_FROZEN_MAX) {
        assert_true(mir_clock_mono_ns() < until);
        sim_pause_us(200);
    }
    if (status == MIR_OK && time_ns % 16 == 0) {
        assert_int_equal(mir_tlog_commit_turn(x->writer, NULL), MIR_OK);
    }
    return status;
}

static void a_flooding_device_leaves_room_for_its_neighbours(void **state)
{
    (void)state;
    fixture x;
    gated_init(&x);
    atomic_store(&gate_fails, true);
    int64_t time_ns = 0;
    uint64_t stored = 0;
    /* One that sends ten rows of a hundred, and one that sends the others. */
    for (; time_ns < 100000; time_ns++) {
        const uint32_t device = time_ns % 10 == 0 ? 1 : 0;
        const mir_status status = put_patiently(&x, device, time_ns);
        if (status != MIR_OK) {
            assert_int_equal(device, 0);
            break;
        }
        stored++;
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_true(stats.refused_share > 0);
    const uint64_t capacity = x.tlog->file_bytes * MIR_TLOG_LOGS_PER_WRITER;
    assert_in_range(stats.log_bytes, capacity / 2, capacity * 4 / 5);
    /* The neighbour goes on, and a third one comes; the first one stays refused. */
    const uint64_t more = stored / 16;
    const uint64_t other_before = stats.refused_full - stats.refused_share;
    for (uint64_t i = 0; i < more; i++, time_ns++) {
        assert_int_equal(put_patiently(&x, i % 4 == 0 ? 2 : 1, time_ns), MIR_OK);
        stored++;
        if (i % 16 == 0) assert_int_equal(put_int(&x, 0, time_ns, 0), MIR_E_FULL);
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.rows_accepted, stored);
    assert_int_equal(stats.refused_full - stats.refused_share, other_before);
    /* It is known for as long as it lasts, with all that was refused. */
    WAIT_UNTIL((mir_tlog_stats_read(x.tlog, &stats, NULL), stats.full_ns > 0));
    assert_int_equal(stats.full_rows, stats.refused_full);
    assert_int_equal(stats.full_share, stats.refused_share);
    /* Segments can be made again: so is there room for all. */
    atomic_store(&gate_fails, false);
    WAIT_UNTIL(atomic_load(&x.writer->frozen_count) == 0);
    assert_int_equal(put_int(&x, 0, time_ns, 0), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    check_count(&x, stored + 1);
    fixture_fini(&x);
}

/* Devices that send the same are all served until nothing fits any more. */
static void equal_devices_fill_the_whole_log(void **state)
{
    (void)state;
    fixture x;
    gated_init(&x);
    atomic_store(&gate_fails, true);
    int64_t time_ns = 0;
    while (put_patiently(&x, (uint32_t)(time_ns % DEVICES), time_ns) == MIR_OK) time_ns++;
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    const uint64_t capacity = x.tlog->file_bytes * MIR_TLOG_LOGS_PER_WRITER;
    /* But for the room of one turn in each file. */
    assert_true(stats.log_bytes + 3 * (uint64_t)x.writer->staging_capacity + 4096 >= capacity);
    check_count(&x, (uint64_t)time_ns);
    fixture_fini(&x);
}

static void retention_drops_by_size_and_age(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new(3);
    mir_tlog_options options = {.directory = "/tlog",
                                .files = &disk->files,
                                .log_bytes_max = 8 << 20,
                                .sync_ms = 1,
                                .retention_age_ns = UINT64_C(86400000000000)};
    fixture x = {.disk = disk};
    assert_int_equal(mir_tlog_open(&options, &x.tlog, NULL), MIR_OK);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    const int64_t now = mir_clock_wall_ns();
    assert_int_equal(put_int(&x, 0, now - 3 * INT64_C(86400000000000), 1), MIR_OK);
    assert_int_equal(put_int(&x, 0, now, 2), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    settle(x.tlog);
    mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 1);
    assert_int_equal(sink.answer.fields[0].bits, 2);
    oracle_free(&sink.answer);
    mir_tlog_close(x.tlog);
    options.retention_bytes_max = 1;
    assert_int_equal(mir_tlog_open(&options, &x.tlog, NULL), MIR_OK);
    assert_int_equal(mir_tlog_settle(x.tlog, 20000, NULL), MIR_OK);
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 0);
    fixture_fini(&x);
}

static void closed_series_keep_their_rows(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 8 << 20);
    for (int64_t t = 0; t < 100; t++) {
        assert_int_equal(put_int(&x, 0, t, t), MIR_OK);
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(x.writer, device_ids[0], mir_view_cstr("m.v1.T"),
                                              one_int, 1, &series),
                         MIR_OK);
        mir_tlog_series_close(x.writer, series);
    }
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_tlog_query_spec spec = spec_all();
    oracle_sink sink;
    query_into(&x, &spec, &sink, MIR_OK);
    assert_int_equal(sink.rows, 100);
    oracle_free(&sink.answer);
    mir_tlog_stats stats;
    mir_tlog_stats_read(x.tlog, &stats, NULL);
    assert_int_equal(stats.series_open, 0);
    fixture_fini(&x);
}

static void a_disk_that_gets_full_is_left_its_reserve(void **state)
{
    (void)state;
    fixture x = {.disk = sim_disk_new(7)};
    atomic_store(&x.disk->free_bytes, 1000);
    const mir_tlog_options options = {.directory = "/tlog",
                                      .files = &x.disk->files,
                                      .log_bytes_max = 8 << 20,
                                      .disk_reserve_bytes = 800};
    assert_int_equal(mir_tlog_open(&options, &x.tlog, NULL), MIR_OK);
    x.writer = mir_tlog_writer_of(x.tlog, 0);
    assert_int_equal(mir_row_init(&x.row, 16, 16, 1024), MIR_OK);
    assert_int_equal(put_int(&x, 0, 1, 1), MIR_OK);
    assert_int_equal(mir_tlog_commit_turn(x.writer, NULL), MIR_OK);
    mir_error trouble = {{0}};
    mir_tlog_stats stats;
    const struct {
        uint64_t free_bytes;
        mir_status status;
    } steps[] = {{799, MIR_E_NO_SPACE}, {850, MIR_E_NO_SPACE}, {900, MIR_OK}, {801, MIR_OK}};
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        atomic_store(&x.disk->free_bytes, steps[i].free_bytes);
        mir_tlog_disk_watch(x.tlog);
        assert_int_equal(put_int(&x, 0, 2 + (int64_t)i, 1), steps[i].status);
        (void)!mir_tlog_commit_turn(x.writer, NULL);
        mir_tlog_stats_read(x.tlog, &stats, &trouble);
        assert_int_equal(trouble.text[0] != 0, steps[i].status != MIR_OK);
    }
    assert_int_equal(stats.refused_no_space, 2);
    assert_int_equal(stats.rows_accepted, 3);
    fixture_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(row_is_visible_after_its_commit_and_not_before),
        cmocka_unit_test(times_are_inclusive_from_and_exclusive_to),
        cmocka_unit_test(window_is_the_mean_at_its_end_clipped),
        cmocka_unit_test(window_leaves_strings_and_booleans_out),
        cmocka_unit_test(what_is_left_over_is_merged_when_it_is_calm),
        cmocka_unit_test(what_does_not_fit_beside_the_reserve_is_merged_when_it_does),
        cmocka_unit_test(old_texts_are_packed_densely),
        cmocka_unit_test(a_trickle_does_not_keep_what_is_left_over_from_being_merged),
        cmocka_unit_test(an_empty_log_is_small),
        cmocka_unit_test(fields_can_be_chosen),
        cmocka_unit_test(a_field_that_was_renamed_is_one_column),
        cmocka_unit_test(answers_are_bounded_and_cancellable),
        cmocka_unit_test(fields_and_measurements_are_listed),
        cmocka_unit_test(malformed_rows_are_refused_and_counted),
        cmocka_unit_test(columns_of_a_series_are_bounded_until_its_log_is_sealed),
        cmocka_unit_test(full_log_refuses_and_recovers),
        cmocka_unit_test(half_full_log_is_sealed_by_others_than_the_background),
        cmocka_unit_test(sealing_that_has_begun_changes_hands),
        cmocka_unit_test(a_disk_that_gets_full_is_left_its_reserve),
        cmocka_unit_test(a_flooding_device_leaves_room_for_its_neighbours),
        cmocka_unit_test(equal_devices_fill_the_whole_log),
        cmocka_unit_test(retention_drops_by_size_and_age),
        cmocka_unit_test(closed_series_keep_their_rows),
        cmocka_unit_test(property_answers_match_oracle),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
