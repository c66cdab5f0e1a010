/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_log.h"
#include "mir_tlog_numbered.h"
#include "mir_tlog_retain.h"

/* Any call to the disk may fail: rows are refused or an answer says that it is partial, nothing that
 * was stored is lost, and when the fault has gone all goes on. A life has ingest, sealing, merging,
 * retention and queries. MIR_TEST_FAULTS=all lets each single call fail in turn, which takes minutes. */

enum { ROWS = 600, LIVES = 2, PER_LIFE = ROWS / LIVES, AGE = 200 };

/* Rows that are rolled up go by whole hours. */
static const int64_t ROLLED_STEP_NS = 300 * MIR_NS_PER_S;
static const int64_t HOUR_NS = 3600 * MIR_NS_PER_S;

static _Atomic int64_t now_ns;
static bool rolled;                                             /* what rows came to stays */
static uint64_t lives, merges_seen, removed_seen, rollups_seen; /* of all lives together */

static int64_t wall_ns(void)
{
    return now_ns;
}

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

static mir_status open_aging(sim_disk *disk, mir_tlog **tlog, mir_error *error)
{
    const mir_tlog_options options = {.directory = "/t",
                                      .files = &disk->files,
                                      .writer_count = 2,
                                      .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN,
                                      .retention_age_ns = (uint64_t)(AGE * row_step_ns),
                                      .rollups = {{rolled, 0}, {rolled, 0}, {rolled, 0}},
                                      .wall_ns = wall_ns};
    *error = (mir_error){{0}};
    return mir_tlog_open(&options, tlog, error);
}

typedef struct life {
    sim_disk *disk;
    uint8_t stored[ROWS];
    const char *what;
    uint64_t partial;
    uint64_t refused;
} life;

static void roll(bool on)
{
    rolled = on;
    row_step_ns = on ? ROLLED_STEP_NS : 1;
    now_ns = 0;
}

static mir_status sum_counts(void *context, const mir_tlog_batch *batch)
{
    for (uint32_t i = 0; i < batch->row_count * batch->column_count; i++) {
        if (batch->present[i] != 0) *(uint64_t *)context += batch->cells[i].u64;
    }
    return MIR_OK;
}

static mir_status no_columns(void *context, const mir_column *header, uint32_t count)
{
    (void)context, (void)header, (void)count;
    return MIR_OK;
}

/* Rows that are there, and those that were and are in rollups: each of them once. */
static uint64_t counted(mir_tlog *tlog)
{
    uint64_t count = 0;
    const mir_view field = mir_view_cstr("n");
    const mir_tlog_query_spec spec = {.device_ids = ids,
                                      .device_count = DEVICES,
                                      .measurement = mir_view_cstr("m.v1.T"),
                                      .fields = &field,
                                      .field_count = 1,
                                      .from_ns = 0,
                                      .to_ns = (ROWS * row_step_ns / HOUR_NS + 1) * HOUR_NS,
                                      .functions = MIR_TLOG_COUNT};
    const mir_tlog_sink sink = {.context = &count, .columns = no_columns, .rows = sum_counts};
    mir_tlog_query_info info;
    assert_int_equal(mir_tlog_query(tlog, &spec, &sink, &info, NULL), MIR_OK);
    assert_int_equal(info.chunks_corrupt, 0);
    return count;
}

/* What is stored and not past its age is there, unless the answer says that something is missing. */
static void check(life *l, mir_tlog *tlog, int64_t end, bool partial_allowed)
{
    present_rows rows;
    const mir_status status = look(tlog, ROWS, &rows);
    assert_int_equal(rows.wrong, 0);
    if (status != MIR_OK || rows.corrupt > 0) {
        if (!partial_allowed) fail_msg("%s: query: %s", l->what, mir_status_name(status));
        l->partial++;
    } else {
        const int64_t now = now_ns / row_step_ns;
        for (int64_t n = now - AGE < 0 ? 0 : now - AGE; n < end; n++) {
            if (rows.seen[n] != 0 || l->stored[n] == 0) continue;
            fail_msg("%s: row %lld is lost, and nobody says so", l->what, (long long)n);
        }
    }
    free(rows.seen);
}

static void note(mir_tlog *tlog)
{
    mir_tlog_stats stats;
    mir_tlog_stats_read(tlog, &stats, NULL);
    mir_tlog_retention retention;
    mir_tlog_retention_read(tlog, &retention);
    merges_seen += stats.merges;
    removed_seen += retention.rows_removed[0];
    rollups_seen += retention.rollups_made;
}

static void ingest(life *l, mir_tlog *tlog, mir_row *row, int64_t first)
{
    for (int64_t n = first; n < first + PER_LIFE; n += 10) {
        bool staged[10];
        for (int i = 0; i < 10; i++) staged[i] = put_row(tlog, row, n + i) == MIR_OK;
        for (uint32_t w = 0; w < 2; w++) {
            const bool ok = mir_tlog_commit_turn(mir_tlog_writer_of(tlog, w), NULL) == MIR_OK;
            for (int i = 0; i < 10; i++) {
                if ((uint64_t)(n + i) % DEVICES % 2 != w) continue;
                l->stored[n + i] = staged[i] && ok;
                if (!l->stored[n + i]) l->refused++;
            }
        }
        now_ns = (n + 10) * row_step_ns;
        if (n % 30 != 20) continue;
        for (uint32_t w = 0; w < 2; w++) {
            if (mir_tlog_freeze(mir_tlog_writer_of(tlog, w)) != MIR_OK) break;
        }
        const mir_status settled = mir_tlog_settle(tlog, l->disk->fail_at == 0 ? 30000 : 10, NULL);
        assert_true(settled == MIR_OK || settled == MIR_E_TIMEOUT);
        check(l, tlog, n + 10, true);
    }
}

/* With a disk that works: all is there but what is past its age, and that is gone. */
static void recover(life *l)
{
    mir_tlog *tlog = NULL;
    mir_error error;
    l->disk->fail_at = 0;
    if (open_aging(l->disk, &tlog, &error) != MIR_OK) fail_msg("%s: %s", l->what, error.text);
    freeze_all(tlog);
    for (int again = 0; again < 2; again++) assert_true(wait_settled(tlog));
    check(l, tlog, ROWS, false);
    present_rows rows;
    see(tlog, ROWS, &rows);
    const uint64_t age_ns = (uint64_t)(AGE * row_step_ns);
    int64_t due = now_ns - (int64_t)(age_ns + mir_tlog_retain_slack_ns(age_ns));
    if (rolled) due -= HOUR_NS;
    for (int64_t n = 0; n * row_step_ns < due; n++) {
        if (rows.seen[n] != 0) fail_msg("%s: row %lld is past its age", l->what, (long long)n);
    }
    free(rows.seen);
    if (rolled) {
        uint64_t stored = 0;
        for (int64_t n = 0; n < ROWS; n++) stored += l->stored[n];
        const uint64_t count = counted(tlog);
        if (count < stored || count > ROWS) {
            fail_msg("%s: %llu rows are counted, and %llu were stored", l->what,
                     (unsigned long long)count, (unsigned long long)stored);
        }
    }
    note(tlog);
    mir_tlog_close(tlog);
}

/* Fault number `at` among these calls, and `count` - 1 behind it; how many calls there were. */
static uint64_t live(uint32_t calls, uint64_t at, uint64_t count, int code, bool short_ones)
{
    char what[96];
    (void)snprintf(what, sizeof what, "calls %#x, %llu from %llu on: %s", calls,
                   (unsigned long long)count, (unsigned long long)at, strerror(code));
    life l = {.disk = sim_disk_new(at), .what = what};
    l.disk->fail_calls = calls;
    l.disk->fail_at = at;
    /* A signal does not interrupt for ever. */
    l.disk->fail_count = code == EINTR && count > 5 ? 5 : count;
    l.disk->fail_errno = code;
    l.disk->short_reads = l.disk->short_writes = short_ones;
    roll(at / 2 % 3 == 1);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
    for (int64_t turn = 0; turn < LIVES; turn++) {
        mir_tlog *tlog = NULL;
        mir_error error;
        if (open_aging(l.disk, &tlog, &error) != MIR_OK) {
            assert_int_not_equal(error.text[0], 0);
            continue;
        }
        check(&l, tlog, turn * PER_LIFE, true);
        ingest(&l, tlog, &row, turn * PER_LIFE);
        note(tlog);
        mir_tlog_close(tlog);
    }
    const uint64_t made = l.disk->calls;
    lives++;
    recover(&l);
    if (at == 0) assert_int_equal(l.partial + l.refused, 0);
    mir_row_fini(&row);
    sim_disk_free(l.disk);
    return made;
}

/* Each of the first ones, which are those of a start, then some; once, for a while, and for good. */
static void calls_fail(uint32_t calls, const int *codes, uint64_t each)
{
    const char *asked = getenv("MIR_TEST_FAULTS");
    const bool all = asked != NULL && strcmp(asked, "all") == 0;
    const uint64_t made = live(calls, 0, 0, 0, false);
    assert_true(made > 0);
#if defined(MIR_TSAN)
    each = (each + 2) / 3; /* it is ten times slower, and there are two minutes */
#endif
    const uint64_t counts[3] = {1, 5, UINT64_MAX};
    const uint64_t step = made / each + 1;
    for (uint64_t at = 1; at <= made; at += all || at < each / 2 ? 1 : step) {
        (void)live(calls, at, counts[at % 3], codes[at % 2], at % 5 == 0);
    }
}

static void short_reads_and_writes_change_nothing(void **state)
{
    (void)state;
    (void)live(SIM_CALLS, 0, 0, 0, true);
}

static void a_life_with_rollups_counts_each_row_once(void **state)
{
    (void)state;
    (void)live(SIM_CALLS, UINT64_MAX, 1, EIO, false);
}

static void writes_fail(void **state)
{
    (void)state;
    calls_fail(SIM_WRITE, (const int[]){ENOSPC, EIO}, 16);
    calls_fail(SIM_ALLOCATE, (const int[]){ENOSPC, EIO}, 6);
}

static void syncs_fail(void **state)
{
    (void)state;
    calls_fail(SIM_SYNC, (const int[]){EIO, ENOSPC}, 16);
    calls_fail(SIM_SYNC_DIRECTORY, (const int[]){EIO, ENOSPC}, 16);
}

static void names_fail(void **state)
{
    (void)state;
    calls_fail(SIM_CREATE, (const int[]){EMFILE, ENOSPC}, 16);
    calls_fail(SIM_RENAME, (const int[]){EIO, ENOSPC}, 12);
    calls_fail(SIM_UNLINK, (const int[]){EIO, EROFS}, 12);
}

static void reads_fail(void **state)
{
    (void)state;
    calls_fail(SIM_OPEN, (const int[]){EMFILE, EIO}, 16);
    calls_fail(SIM_READ, (const int[]){EIO, EINTR}, 30);
    calls_fail(SIM_SIZE, (const int[]){EIO, EIO}, 8);
    calls_fail(SIM_LIST, (const int[]){EIO, EMFILE}, 2);
}

static void anything_fails(void **state)
{
    (void)state;
    calls_fail(SIM_CALLS, (const int[]){EIO, ENOSPC}, 20);
}

/* ---- Power ---- */

enum { CUT_LIVES = 12, CUT_CALLS = 160 };

/* The power goes so many calls from now on, whatever is being sealed, merged or removed then. */
static sim_disk *cut_after(sim_disk *disk, uint64_t calls, uint64_t seed)
{
    const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_MS;
    (void)pthread_mutex_lock(&disk->mutex);
    const uint64_t from = disk->calls;
    (void)pthread_mutex_unlock(&disk->mutex);
    for (uint64_t made = 0; made < calls && mir_clock_mono_ns() < until;) {
        (void)pthread_mutex_lock(&disk->mutex);
        made = disk->calls - from;
        (void)pthread_mutex_unlock(&disk->mutex);
    }
    return sim_power_cut(disk, seed);
}

/* Rows are on the disk when they are committed. */
static void power_cuts_in_maintenance_lose_nothing(void **state)
{
    (void)state;
    uint64_t random = 5;
    for (int turn = 0; turn < CUT_LIVES; turn++) {
        life l = {.disk = sim_disk_new(sim_random(&random)), .what = "power cut"};
        mir_tlog *tlog = NULL;
        mir_error error;
        mir_row row;
        roll(turn % 2 != 0);
        assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
        assert_int_equal(open_aging(l.disk, &tlog, &error), MIR_OK);
        for (int64_t n = 0; n < ROWS; n++) {
            mir_status status;
            while ((status = put_row(tlog, &row, n)) == MIR_E_FULL) sim_pause_us(200);
            assert_int_equal(status, MIR_OK);
            if (n % 10 != 9) continue;
            assert_int_equal(commit_all(tlog), MIR_OK);
            memset(l.stored, 1, (size_t)n + 1);
            now_ns = (n + 1) * row_step_ns;
            if (n % 30 != 29) continue;
            freeze_all(tlog);
            sim_disk *after =
                cut_after(l.disk, sim_random(&random) % CUT_CALLS, sim_random(&random));
            mir_tlog *again = NULL;
            if (open_aging(after, &again, &error) != MIR_OK) fail_msg("%s", error.text);
            check(&l, again, n + 1, false);
            if (rolled) assert_int_equal(counted(again), n + 1);
            assert_true(wait_settled(again));
            check(&l, again, n + 1, false);
            if (rolled) assert_int_equal(counted(again), n + 1);
            mir_tlog_close(again);
            sim_disk_free(after);
        }
        lives++;
        note(tlog);
        mir_tlog_close(tlog);
        mir_row_fini(&row);
        sim_disk_free(l.disk);
    }
}

/* Which files are small and old at the same moment depends on when threads run. */
static void lives_had_merges_and_removals(void **state)
{
    (void)state;
    print_message("%llu lives: %llu merges, %llu rows removed, %llu rollups\n",
                  (unsigned long long)lives, (unsigned long long)merges_seen,
                  (unsigned long long)removed_seen, (unsigned long long)rollups_seen);
    assert_true(merges_seen > lives / 4);
    assert_true(removed_seen > lives);
    assert_true(rollups_seen > lives);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(short_reads_and_writes_change_nothing),
        cmocka_unit_test(a_life_with_rollups_counts_each_row_once),
        cmocka_unit_test(writes_fail),
        cmocka_unit_test(syncs_fail),
        cmocka_unit_test(names_fail),
        cmocka_unit_test(reads_fail),
        cmocka_unit_test(anything_fails),
        cmocka_unit_test(power_cuts_in_maintenance_lose_nothing),
        cmocka_unit_test(lives_had_merges_and_removals),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
