/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <fcntl.h>
#include <signal.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_numbered.h"
#include "mir_tlog_sim.h"

/* What survives: kill -9, power cuts, torn and flipped bytes, a full disk. */

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

/* ---- kill -9 ---- */

static void remove_tree(const char *path)
{
    char command[256];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", path);
    assert_int_equal(system(command), 0);
}

/* Appends from `n` on until it is killed; tells through the pipe each turn that is committed. */
_Noreturn static void child(const char *directory, int64_t n, uint64_t seed, int report)
{
    mir_tlog *tlog;
    mir_row row;
    const uint32_t writers = 1 + (uint32_t)(sim_random(&seed) % 3);
    if (open_with(NULL, directory, writers, 5, &tlog) != MIR_OK) _exit(2);
    if (mir_row_init(&row, 8, 8, 64) != MIR_OK) _exit(3);
    for (;;) {
        const uint64_t rows = 1 + sim_random(&seed) % 50;
        for (uint64_t i = 0; i < rows;) {
            const mir_status status = put_row(tlog, &row, n);
            if (status == MIR_OK) {
                n++;
                i++;
            } else if (status != MIR_E_FULL) {
                _exit(4);
            } else if (commit_all(tlog) != MIR_OK) {
                _exit(5);
            }
        }
        if (commit_all(tlog) != MIR_OK) _exit(5);
        if (write(report, &n, sizeof n) != sizeof n) _exit(6);
    }
}

static void killed_process_loses_no_committed_turn(void **state)
{
    (void)state;
    char directory[] = "/tmp/mir_tlog_kill_XXXXXX";
    assert_non_null(mkdtemp(directory));
    char data[64];
    (void)snprintf(data, sizeof data, "%s/telemetry", directory);
    uint64_t random = (uint64_t)mir_clock_wall_ns();
    int64_t committed = 0;
    int64_t start = 0;
    for (int round = 0; round < 20; round++) {
        int ends[2];
        assert_int_equal(pipe(ends), 0);
        const pid_t pid = fork();
        assert_true(pid >= 0);
        if (pid == 0) {
            (void)close(ends[0]);
            child(data, start, sim_random(&random), ends[1]);
        }
        (void)close(ends[1]);
        /* The instant is a number of turns, plus some microseconds into the next ones. */
        const uint64_t turns = 1 + sim_random(&random) % 150;
        int64_t end;
        for (uint64_t i = 0; i < turns && read(ends[0], &end, sizeof end) == sizeof end; i++) {
            committed = end;
        }
        sim_pause_us((int64_t)(sim_random(&random) % 3000));
        assert_int_equal(kill(pid, SIGKILL), 0);
        int exit_status;
        assert_int_equal(waitpid(pid, &exit_status, 0), pid);
        if (!WIFSIGNALED(exit_status)) fail_msg("child ended: %d", WEXITSTATUS(exit_status));
        while (read(ends[0], &end, sizeof end) == sizeof end) committed = end;
        (void)close(ends[0]);
        mir_tlog *tlog;
        assert_int_equal(open_with(NULL, data, 1 + round % 2, 5, &tlog), MIR_OK);
        present_rows rows;
        /* What was not reported may be there, too: it is then all of its turn or nothing, and the
         * next round writes the same rows again. */
        see(tlog, committed + 1000000, &rows);
        assert_int_equal(rows.wrong, 0);
        assert_int_equal(rows.corrupt, 0);
        assert_true(all_below(&rows, committed));
        free(rows.seen);
        mir_tlog_close(tlog);
        start = committed;
    }
    assert_true(committed > 0);
    remove_tree(directory);
}

/* ---- Power ---- */

static void power_cut_loses_nothing_that_was_synced(void **state)
{
    (void)state;
    uint64_t random = 99;
    for (int round = 0; round < 60; round++) {
        sim_disk *disk = sim_disk_new(sim_random(&random));
        disk->short_writes = round % 3 == 0;
        int64_t n = 0;
        const int lives = 1 + round % 4;
        for (int life = 0; life < lives; life++) {
            mir_tlog *tlog;
            mir_row row;
            const bool each = (round + life) % 2 == 0; /* synced with each commit */
            assert_int_equal(open_with(&disk->files, "/t", 1 + (uint32_t)(round + life) % 2,
                                       each ? 0 : 1, &tlog),
                             MIR_OK);
            assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
            present_rows rows;
            see(tlog, n + 100, &rows);
            assert_int_equal(rows.wrong, 0);
            if (!all_below(&rows, n)) fail_msg("round %d life %d: lost rows", round, life);
            free(rows.seen);
            const uint64_t turns = sim_random(&random) % 60;
            for (uint64_t turn = 0; turn < turns; turn++) {
                for (int i = 0; i < 20; i++) {
                    mir_status status;
                    while ((status = put_row(tlog, &row, n)) == MIR_E_FULL) sim_pause_us(200);
                    assert_int_equal(status, MIR_OK);
                    n++;
                }
                assert_int_equal(commit_all(tlog), MIR_OK);
                if (turn % 20 == 19) freeze_all(tlog);
            }
            int64_t safe = n;
            if (!each) {
                /* Rows of which a sync is known to have ended; the ones behind them are at stake. */
                const int64_t until = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
                mir_tlog_stats stats;
                do {
                    assert_true(mir_clock_mono_ns() < until);
                    sim_pause_us(200);
                    mir_tlog_stats_read(tlog, &stats, NULL);
                } while (stats.sync_lag_ns != 0);
                for (int i = 0; i < 30; i++) {
                    if (put_row(tlog, &row, n + i) != MIR_OK) break;
                    assert_int_equal(commit_all(tlog), MIR_OK);
                }
            }
            if (sim_random(&random) % 3 == 0) freeze_all(tlog);
            sim_disk *after = sim_power_cut(disk, sim_random(&random));
            mir_tlog_close(tlog);
            mir_row_fini(&row);
            sim_disk_free(disk);
            disk = after;
            n = safe;
            /* Rows at stake may be there; they are numbered again from `safe`, and equal. */
            mir_tlog *again;
            assert_int_equal(open_with(&disk->files, "/t", 1, 1, &again), MIR_OK);
            see(again, n + 100, &rows);
            assert_int_equal(rows.wrong, 0);
            /* The disk may have taken later ones of the writes that were not synced. */
            mir_tlog_stats after_cut;
            mir_tlog_stats_read(again, &after_cut, NULL);
            assert_true(rows.corrupt <= after_cut.corrupt_frames);
            assert_int_equal(after_cut.corrupt_chunks, 0);
            if (!all_below(&rows, n)) fail_msg("round %d life %d: lost synced rows", round, life);
            int64_t end = n;
            while (rows.seen[end] != 0) end++;
            free(rows.seen);
            assert_true(wait_settled(again));
            see(again, n + 100, &rows);
            assert_int_equal(rows.wrong, 0);
            assert_true(all_below(&rows, end));
            free(rows.seen);
            mir_tlog_close(again);
        }
        sim_disk_free(disk);
    }
}

/* ---- Damage ---- */

static void log_cut_anywhere_keeps_the_turns_before(void **state)
{
    (void)state;
    enum { TURNS = 6 };
    sim_disk *disk = disk_with(TURNS, false);
    const sim_inode *log = file_with(disk, "log", 0);
    uint64_t generation = mir_tlog_get_u64(log->data + 16);
    uint64_t end = log->size;
    while (log->data[end - 1] == 0) end--;
    uint64_t rows_before = 0;
    for (uint64_t cut = MIR_TLOG_LOG_HEADER_BYTES; cut <= end; cut++) {
        uint8_t *bytes = calloc(1, log->size);
        memcpy(bytes, log->data, cut);
        mir_tlog_mem *mem = NULL;
        mir_tlog_replay replay = {0};
        const mir_status status = mir_tlog_log_replay_bytes(mir_view_of(bytes, log->size),
                                                            generation, &mem, &replay, NULL);
        if (status == MIR_OK) {
            assert_int_equal(replay.rows % 3, 0);
            assert_true(replay.rows >= rows_before);
            rows_before = replay.rows;
            assert_int_equal(replay.corrupt_frames, 0);
            if (cut < end)
                assert_true(replay.torn_bytes > 0 || replay.bytes >= cut || replay.bytes + 8 > cut);
            mir_tlog_mem_free(mem);
        } else {
            assert_int_equal(status, MIR_E_EMPTY);
            assert_true(cut < MIR_TLOG_LOG_HEADER_BYTES + 8);
        }
        free(bytes);
    }
    assert_int_equal(rows_before, TURNS * 3);
    sim_disk_free(disk);
}

static void flipped_bit_in_log_costs_one_turn(void **state)
{
    (void)state;
    enum { TURNS = 6 };
    sim_disk *disk = disk_with(TURNS, false);
    const sim_inode *log = file_with(disk, "log", 0);
    const uint64_t generation = mir_tlog_get_u64(log->data + 16);
    uint64_t end = log->size;
    while (log->data[end - 1] == 0) end--;
    uint8_t *bytes = malloc(log->size);
    uint64_t damaged = 0;
    for (uint64_t at = 0; at < end; at++) {
        memcpy(bytes, log->data, log->size);
        bytes[at] ^= (uint8_t)(1u << (at % 8));
        mir_tlog_mem *mem = NULL;
        mir_tlog_replay replay;
        assert_int_equal(mir_tlog_log_replay_bytes(mir_view_of(bytes, log->size), generation, &mem,
                                                   &replay, NULL),
                         MIR_OK);
        /* Names are in two turns, so only the rows of the damaged turn are lost. A bit of padding
         * costs nothing. */
        assert_true(replay.rows == TURNS * 3 || replay.rows == TURNS * 3 - 3);
        assert_int_equal(replay.rows_lost, 0);
        if (replay.rows != TURNS * 3) {
            damaged++;
            assert_true(replay.corrupt_frames + replay.torn_bytes > 0);
        }
        mir_tlog_mem_free(mem);
    }
    assert_true(damaged > 0);
    free(bytes);
    sim_disk_free(disk);
}

/* Writes that were not synced may be lost in any order: whatever holes that leaves, reading what a
 * file has finds the same as reading all of it. */
static void holes_anywhere_change_nothing_that_is_found(void **state)
{
    (void)state;
    enum { TURNS = 60 };
    sim_disk *disk = disk_with(TURNS, false);
    const sim_inode *log = file_with(disk, "log", 0);
    const uint64_t generation = mir_tlog_get_u64(log->data + 16);
    uint64_t end = log->size;
    while (log->data[end - 1] == 0) end--;
    uint8_t *bytes = malloc(log->size);
    uint64_t random = 11;
    uint64_t torn = 0, damaged = 0, found = 0;
    for (int round = 0; round < 400; round++) {
        memcpy(bytes, log->data, log->size);
        const uint64_t losses = sim_random(&random) % 6;
        for (uint64_t i = 0; i < losses; i++) {
            const uint64_t at = sim_random(&random) % end / SIM_SECTOR * SIM_SECTOR;
            const uint64_t left = log->size - at;
            memset(bytes + at, 0, left < SIM_SECTOR ? left : SIM_SECTOR);
        }
        if (round % 3 == 0) memset(bytes + sim_random(&random) % end, 0, 1);
        if (round % 5 == 0) bytes[sim_random(&random) % log->size] ^= 1;
        mir_tlog_mem *mem[2] = {NULL, NULL};
        mir_tlog_replay replay[2] = {{0}};
        const mir_status whole = mir_tlog_log_replay_bytes(mir_view_of(bytes, log->size),
                                                           generation, &mem[0], &replay[0], NULL);
        sim_disk *copy = sim_disk_new(1);
        int handle = 0;
        assert_int_equal(sim_create(copy, "/t/log", &handle), 0);
        assert_int_equal(sim_pwrite(copy, handle, bytes, log->size, 0), log->size);
        assert_int_equal(sim_close(copy, handle), 0);
        mir_error error;
        const mir_status sparse =
            mir_tlog_log_replay(&copy->files, "/t/log", generation, &mem[1], &replay[1], &error);
        assert_int_equal(sparse, whole);
        assert_memory_equal(&replay[0], &replay[1], sizeof replay[0]);
        torn += replay[0].torn_bytes;
        damaged += replay[0].corrupt_frames;
        found += replay[0].rows;
        mir_tlog_mem_free(mem[0]);
        mir_tlog_mem_free(mem[1]);
        sim_disk_free(copy);
    }
    assert_true(torn > 0 && damaged > 0 && found > 0);
    free(bytes);
    sim_disk_free(disk);
}

static atomic_ullong bytes_read;

static int64_t counted_pread(void *context, int handle, void *data, size_t size, uint64_t offset)
{
    const int64_t count = sim_pread(context, handle, data, size, offset);
    if (count > 0) atomic_fetch_add(&bytes_read, (unsigned long long)count);
    return count;
}

/* Logs are made as long as they may become: a start must not take as long as reading all that. */
static void a_start_reads_what_was_written(void **state)
{
    (void)state;
    enum { ROWS = 300 };
    sim_disk *disk = sim_disk_new(5);
    disk->files.pread = counted_pread;
    const mir_tlog_options options = {.directory = "/t",
                                      .files = &disk->files,
                                      .writer_count = 2,
                                      .log_bytes_max = 12 << 20,
                                      .sync_ms = 1};
    mir_tlog *tlog;
    mir_row row;
    assert_int_equal(mir_tlog_open(&options, &tlog, NULL), MIR_OK);
    assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
    for (int64_t n = 0; n < ROWS; n++) assert_int_equal(put_row(tlog, &row, n), MIR_OK);
    assert_int_equal(commit_all(tlog), MIR_OK);
    mir_tlog_stats stats;
    mir_tlog_stats_read(tlog, &stats, NULL);
    mir_tlog_close(tlog);
    atomic_store(&bytes_read, 0);
    assert_int_equal(mir_tlog_open(&options, &tlog, NULL), MIR_OK);
    assert_true(atomic_load(&bytes_read) >= stats.log_bytes);
    assert_true(atomic_load(&bytes_read) < stats.log_bytes + (64 << 10));
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.count, ROWS);
    free(rows.seen);
    mir_tlog_close(tlog);
    mir_row_fini(&row);
    sim_disk_free(disk);
}

static void flipped_bit_in_segment_is_found_and_confined(void **state)
{
    (void)state;
    enum { TURNS = 30 };
    sim_disk *disk = disk_with(TURNS, true);
    sim_inode *segment = file_with(disk, "seg", 0);
    assert_non_null(segment);
    const uint64_t size = segment->size;
    for (uint64_t at = 0; at < size; at++) {
        sim_disk *copy = sim_power_cut(disk, 1);
        sim_inode *hurt = file_with(copy, "seg", 0);
        hurt->data[at] ^= (uint8_t)(1u << (at % 8));
        mir_tlog *tlog;
        assert_int_equal(open_with(&copy->files, "/t", 1, 1, &tlog), MIR_OK);
        present_rows rows;
        see(tlog, TURNS * 3, &rows);
        assert_int_equal(rows.wrong, 0);
        mir_tlog_stats stats;
        mir_tlog_stats_read(tlog, &stats, NULL);
        if (rows.count != TURNS * 3) {
            assert_true(stats.corrupt_chunks > 0);
            /* A chunk is one device's; index, footer, header and trailer are all that there is of a
             * segment of this size. */
            assert_true(rows.corrupt == 1 || (rows.count == 0 && rows.corrupt == DEVICES));
        }
        free(rows.seen);
        mir_tlog_close(tlog);
        sim_disk_free(copy);
    }
    sim_disk_free(disk);
}

static void damaged_or_missing_manifest_loses_nothing(void **state)
{
    (void)state;
    enum { TURNS = 30 };
    sim_disk *disk = disk_with(TURNS, true);
    for (int way = 0; way < 40; way++) {
        sim_disk *copy = sim_power_cut(disk, 1);
        for (uint32_t i = 0; i < copy->now.count; i++) {
            sim_entry *entry = &copy->now.entries[i];
            if (strcmp(entry->name, "MANIFEST") != 0) continue;
            if (way == 0) {
                sim_remove(copy, entry);
            } else if ((uint64_t)way < entry->inode->size) {
                entry->inode->data[way] ^= 16;
            }
            break;
        }
        mir_tlog *tlog;
        assert_int_equal(open_with(&copy->files, "/t", 1, 1, &tlog), MIR_OK);
        present_rows rows;
        see(tlog, TURNS * 3, &rows);
        assert_int_equal(rows.wrong, 0);
        assert_int_equal(rows.count, TURNS * 3);
        free(rows.seen);
        mir_tlog_close(tlog);
        sim_disk_free(copy);
    }
    sim_disk_free(disk);
}

static void newer_version_is_refused_and_untouched(void **state)
{
    (void)state;
    sim_disk *disk = disk_with(4, true);
    sim_inode *segment = file_with(disk, "seg", 0);
    (void)mir_tlog_put_u32(segment->data + 8, MIR_TLOG_SEGMENT_VERSION + 1);
    (void)mir_tlog_put_u64(segment->data + 56, mir_hash_fixed(segment->data, 56));
    mir_tlog *tlog;
    const mir_tlog_options options = {.directory = "/t", .files = &disk->files};
    mir_error error = {{0}};
    assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "newer"));
    assert_ptr_equal(file_with(disk, "seg", 0), segment);
    sim_disk_free(disk);
}

/* ---- Faults at every call ---- */

/* Runs rows through a whole life with the disk failing at its `at`th change; returns the changes. */
static uint64_t life_with_fault(uint64_t at, uint64_t count, int code)
{
    sim_disk *disk = sim_disk_new(at);
    disk->fail_at = at;
    disk->fail_count = count;
    disk->fail_errno = code;
    mir_tlog *tlog = NULL;
    mir_row row;
    assert_int_equal(mir_row_init(&row, 8, 8, 64), MIR_OK);
    enum { ROWS = 1500, LIVES = 3 };
    uint8_t *stored = calloc(ROWS, 1);
    for (int life = 0; life < LIVES; life++) {
        if (open_with(&disk->files, "/t", 2, 0, &tlog) != MIR_OK) continue;
        for (int64_t n = life * 500; n < life * 500 + 500; n += 10) {
            bool staged[10];
            for (int i = 0; i < 10; i++) {
                staged[i] = put_row(tlog, &row, n + i) == MIR_OK;
            }
            /* Two writers: even devices' rows are the first one's. */
            for (uint32_t w = 0; w < 2; w++) {
                const bool ok = mir_tlog_commit_turn(mir_tlog_writer_of(tlog, w), NULL) == MIR_OK;
                for (int i = 0; i < 10; i++) {
                    if ((uint64_t)(n + i) % DEVICES % 2 == w) stored[n + i] = staged[i] && ok;
                }
            }
            if (n % 250 == 240) {
                for (uint32_t w = 0; w < 2; w++) {
                    if (mir_tlog_freeze(mir_tlog_writer_of(tlog, w)) != MIR_OK) break;
                }
                const mir_status settled = mir_tlog_settle(tlog, 30, NULL);
                assert_true(settled == MIR_OK || settled == MIR_E_TIMEOUT);
            }
        }
        present_rows rows;
        see(tlog, ROWS, &rows);
        assert_int_equal(rows.wrong, 0);
        for (int64_t n = 0; n < life * 500 + 500; n++) {
            if (rows.seen[n] != stored[n]) {
                /* A row that was refused in an earlier life may have reached the disk after all
                 * when its sync failed; one that was stored must be there. */
                if (stored[n] != 0 || n >= life * 500) {
                    fail_msg("fault %llu: row %lld is %s", (unsigned long long)at, (long long)n,
                             stored[n] != 0 ? "lost" : "there though it was refused");
                }
            }
        }
        free(rows.seen);
        mir_tlog_close(tlog);
        sim_disk *after = sim_power_cut(disk, at + (uint64_t)life);
        after->calls = disk->calls;
        after->fail_at = disk->fail_at;
        after->fail_count = disk->fail_count;
        after->fail_errno = disk->fail_errno;
        sim_disk_free(disk);
        disk = after;
    }
    /* With a disk that works again all is as it should be. */
    disk->fail_at = 0;
    assert_int_equal(open_with(&disk->files, "/t", 1, 0, &tlog), MIR_OK);
    assert_true(wait_settled(tlog));
    present_rows rows;
    see(tlog, ROWS, &rows);
    assert_int_equal(rows.wrong, 0);
    for (int64_t n = 0; n < ROWS; n++) {
        if (stored[n] != 0 && rows.seen[n] == 0) {
            fail_msg("fault %llu: row %lld is lost at the end", (unsigned long long)at,
                     (long long)n);
        }
    }
    free(rows.seen);
    mir_tlog_close(tlog);
    const uint64_t changes = disk->calls;
    sim_disk_free(disk);
    free(stored);
    mir_row_fini(&row);
    return changes;
}

static void disk_that_fails_at_any_call_loses_nothing_stored(void **state)
{
    (void)state;
    const uint64_t changes = life_with_fault(0, 0, ENOSPC);
    assert_true(changes > 100);
    /* Every call of a start, then a sample of the rest: once, for a while, for good. */
    for (uint64_t at = 1; at < changes; at += at < 40 ? 1 : 17) {
        const uint64_t counts[3] = {1, 7, UINT64_MAX};
        (void)life_with_fault(at, counts[at % 3], at % 2 == 0 ? ENOSPC : EIO);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(log_cut_anywhere_keeps_the_turns_before),
        cmocka_unit_test(flipped_bit_in_log_costs_one_turn),
        cmocka_unit_test(holes_anywhere_change_nothing_that_is_found),
        cmocka_unit_test(a_start_reads_what_was_written),
        cmocka_unit_test(flipped_bit_in_segment_is_found_and_confined),
        cmocka_unit_test(damaged_or_missing_manifest_loses_nothing),
        cmocka_unit_test(newer_version_is_refused_and_untouched),
        cmocka_unit_test(killed_process_loses_no_committed_turn),
        cmocka_unit_test(power_cut_loses_nothing_that_was_synced),
        cmocka_unit_test(disk_that_fails_at_any_call_loses_nothing_stored),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
