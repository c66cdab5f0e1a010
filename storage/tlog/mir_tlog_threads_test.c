/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_tlog.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_sim.h"

/* Two writers, queries and listings at once, while logs rotate, seal and merge: what a writer has
 * committed answers the query that begins after it, in order and once. Run it under tsan, too. */

enum { WRITERS = 2, ROWS = 30000, ROWS_PER_TURN = 25 };

typedef struct shared {
    mir_tlog *tlog;
    atomic_llong committed[WRITERS];
    atomic_bool stop;
    atomic_int wrong;
    atomic_int queries;
} shared;

typedef struct writing {
    shared *s;
    uint32_t shard;
} writing;

static const mir_column columns[] = {{"n", 1, MIR_COLUMN_I64}, {"o", 1, MIR_COLUMN_F64}};
static const mir_view ids[WRITERS] = {MIR_VIEW_LITERAL("w0"), MIR_VIEW_LITERAL("w1")};

static void *write_main(void *context)
{
    const writing *w = context;
    shared *s = w->s;
    mir_tlog_writer *writer = mir_tlog_writer_of(s->tlog, w->shard);
    mir_row row;
    if (mir_row_init(&row, 4, 4, 64) != MIR_OK) return NULL;
    for (int64_t n = 0; n < ROWS;) {
        mir_tlog_series *series;
        if (mir_tlog_series_open(writer, ids[w->shard], mir_view_cstr("m.v1.T"), columns, 2,
                                 &series) != MIR_OK) {
            atomic_fetch_add(&s->wrong, 1);
            break;
        }
        row.column_count = 2;
        row.time_ns = n;
        row.present[0] = n % 3 == 0 ? 1 : 3;
        row.cells[0].i64 = n;
        row.cells[1].f64 = (double)n / 2;
        row.dynamic_count = n % 5 == 0 ? 1 : 0;
        row.dynamic[0] = (mir_dynamic_cell){.name = MIR_VIEW_LITERAL("k_1"),
                                            .type = MIR_COLUMN_STRING,
                                            .value.string = MIR_VIEW_LITERAL("text")};
        const mir_status status = mir_tlog_append(writer, series, &row);
        if (status == MIR_OK) {
            n++;
        } else if (status == MIR_E_FULL) {
            sim_pause_us(200);
        } else {
            atomic_fetch_add(&s->wrong, 1);
        }
        if (n % ROWS_PER_TURN == 0 || status != MIR_OK) {
            if (mir_tlog_commit_turn(writer, NULL) != MIR_OK) atomic_fetch_add(&s->wrong, 1);
            atomic_store(&s->committed[w->shard], n);
        }
        if (n % 5000 == 0) mir_tlog_series_close(writer, series);
    }
    mir_row_fini(&row);
    return NULL;
}

typedef struct checking {
    shared *s;
    int64_t next[WRITERS];
    int64_t time;
    int n_column;
} checking;

static mir_status check_columns(void *context, const mir_column *header, uint32_t count)
{
    checking *c = context;
    for (uint32_t i = 0; i < count; i++) {
        if (strcmp(header[i].name, "n") == 0) c->n_column = (int)i;
    }
    return MIR_OK;
}

static mir_status check_rows(void *context, const mir_tlog_batch *batch)
{
    checking *c = context;
    for (uint32_t r = 0; r < batch->row_count; r++) {
        const size_t at = (size_t)r * batch->column_count + (size_t)c->n_column;
        const uint32_t device = batch->devices[r];
        if (batch->times_ns[r] != c->next[device] || batch->present[at] == 0 ||
            batch->cells[at].i64 != c->next[device] || batch->times_ns[r] < c->time) {
            atomic_fetch_add(&c->s->wrong, 1);
        }
        c->time = batch->times_ns[r];
        c->next[device]++;
    }
    return MIR_OK;
}

static mir_status ignore_name(void *context, mir_view name)
{
    (void)context;
    return name.size > 0 ? MIR_OK : MIR_E_INVALID;
}

static void *query_main(void *context)
{
    shared *s = context;
    while (!atomic_load(&s->stop)) {
        checking c = {.s = s};
        int64_t least[WRITERS];
        for (int i = 0; i < WRITERS; i++) least[i] = atomic_load(&s->committed[i]);
        const mir_tlog_query_spec spec = {.device_ids = ids,
                                          .device_count = WRITERS,
                                          .measurement = MIR_VIEW_LITERAL("m.v1.T"),
                                          .from_ns = 0,
                                          .to_ns = INT64_MAX};
        const mir_tlog_sink sink = {.context = &c, .columns = check_columns, .rows = check_rows};
        mir_tlog_stats stats;
        if (mir_tlog_query(s->tlog, &spec, &sink, NULL, NULL) != MIR_OK ||
            mir_tlog_fields(s->tlog, spec.measurement, 0, ignore_name, NULL, NULL) != MIR_OK ||
            mir_tlog_measurements(s->tlog, ignore_name, NULL, NULL) != MIR_OK) {
            atomic_fetch_add(&s->wrong, 1);
        }
        mir_tlog_stats_read(s->tlog, &stats, NULL);
        for (int i = 0; i < WRITERS; i++) {
            if (c.next[i] < least[i]) atomic_fetch_add(&s->wrong, 1);
        }
        atomic_fetch_add(&s->queries, 1);
    }
    return NULL;
}

static void queries_see_every_commit_while_everything_runs(void **state)
{
    (void)state;
    sim_disk *disk = sim_disk_new(1);
    const mir_tlog_options options = {.directory = "/t",
                                      .files = &disk->files,
                                      .writer_count = WRITERS,
                                      .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN,
                                      .sync_ms = 2,
                                      .idle_ms = 1};
    shared s = {.stop = false};
    assert_int_equal(mir_tlog_open(&options, &s.tlog, NULL), MIR_OK);
    pthread_t threads[WRITERS + 2];
    writing w[WRITERS];
    for (uint32_t i = 0; i < WRITERS; i++) {
        w[i] = (writing){&s, i};
        assert_int_equal(pthread_create(&threads[i], NULL, write_main, &w[i]), 0);
    }
    for (int i = 0; i < 2; i++) {
        assert_int_equal(pthread_create(&threads[WRITERS + i], NULL, query_main, &s), 0);
    }
    for (int i = 0; i < WRITERS; i++) assert_int_equal(pthread_join(threads[i], NULL), 0);
    atomic_store(&s.stop, true);
    for (int i = 0; i < 2; i++) assert_int_equal(pthread_join(threads[WRITERS + i], NULL), 0);
    assert_int_equal(atomic_load(&s.wrong), 0);
    assert_true(atomic_load(&s.queries) > 0);
    for (int i = 0; i < WRITERS; i++) assert_int_equal(atomic_load(&s.committed[i]), ROWS);
    mir_tlog_stats stats;
    mir_tlog_stats_read(s.tlog, &stats, NULL);
    assert_int_equal(stats.rows_accepted, WRITERS * ROWS);
    assert_true(stats.seals > 0);
    mir_tlog_close(s.tlog);
    sim_disk_free(disk);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(queries_see_every_commit_while_everything_runs),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
