/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_testing.h"

#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <sys/file.h>
#include <sys/wait.h>

#include "mir_clock.h"
#include "mir_log.h"

/* Each repair is made on a copy of one directory: first dry, which changes nothing, then in earnest,
 * after which nothing is damaged, a start finds all rows that the repair did not call lost, and a
 * second repair finds nothing to do. */

enum { SEALED = 90, LOGGED = 20 };

typedef struct lost_rows {
    uint64_t rows;
    uint32_t told;
    uint32_t unknown; /* losses that do not say how many rows */
    uint32_t steps;
    char last[256];
    char step[256];
} lost_rows;

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

static void lost_count(void *context, const mir_storage_damage *damage)
{
    lost_rows *count = context;
    count->rows += damage->rows;
    count->told++;
    count->unknown += damage->rows == 0;
    (void)snprintf(count->last, sizeof count->last, "%s: %s", damage->file, damage->text);
    if (damage->kind == MIR_STORAGE_CHUNK) {
        assert_true(damage->measurement.size > 0 && damage->device.size > 0);
        assert_true(damage->has_range && damage->from_ns <= damage->to_ns && damage->rows > 0);
    }
}

static void step_count(void *context, const char *file, const char *text)
{
    lost_rows *count = context;
    count->steps++;
    (void)snprintf(count->step, sizeof count->step, "%s: %s", file, text);
}

static void copy_all(const char *from, const char *to)
{
    char command[512];
    (void)snprintf(command, sizeof command, "rm -rf %s && cp -r %s %s", to, from, to);
    assert_int_equal(system(command), 0); /* paths of our own */
}

/* Names and sizes of all files but the lock. */
static uint64_t files_sum(const char *directory)
{
    uint64_t sum = 0;
    DIR *opened = opendir(directory);
    assert_non_null(opened);
    for (const struct dirent *entry; (entry = readdir(opened)) != NULL;) {
        char path[512];
        struct stat about;
        if (entry->d_name[0] == '.' || strcmp(entry->d_name, "lock") == 0) continue;
        (void)snprintf(path, sizeof path, "%s/%s", directory, entry->d_name);
        assert_int_equal(stat(path, &about), 0);
        sum += strlen(entry->d_name) * 1000003 + (uint64_t)entry->d_name[strlen(entry->d_name) - 1];
        sum += S_ISDIR(about.st_mode) ? files_sum(path) : (uint64_t)about.st_size;
    }
    assert_int_equal(closedir(opened), 0);
    return sum;
}

static uint64_t rows_there(const char *data)
{
    char telemetry[160];
    mir_storage_stats stats;
    mir_error error = {{0}};
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", data);
    mir_tlog *tlog = data_open(telemetry);
    mir_tlog_stats counters;
    mir_tlog_stats_read(tlog, &counters, NULL);
    assert_int_equal(counters.corrupt_chunks + counters.corrupt_frames, 0);
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
    mir_tlog_close(tlog);
    if (mir_storage_stats_read(data, NULL, &stats, &error) != MIR_OK) fail_msg("%s", error.text);
    const uint64_t rows = stats.all.rows;
    assert_int_equal(stats.set_aside, 0);
    mir_storage_stats_fini(&stats);
    return rows;
}

static lost_rows repair(const char *data, bool dry)
{
    lost_rows count = {0};
    const mir_storage_watch watch = {&count, NULL, lost_count, step_count};
    mir_storage_repaired repaired;
    mir_error error = {{0}};
    /* A process that a killed one had begun may be about to let go of what it had open. */
    const int64_t deadline_ns = mir_clock_mono_ns() + 20 * MIR_NS_PER_S;
    mir_status status;
    while ((status = mir_storage_repair(data, dry, &watch, &repaired, &error)) == MIR_E_EXISTS &&
           mir_clock_mono_ns() < deadline_ns)
        sim_pause_us(1000);
    if (status != MIR_OK) fail_msg("repair: %s", error.text);
    assert_int_equal(repaired.lost, count.told);
    assert_int_equal(repaired.steps, count.steps);
    assert_int_equal(repaired.rows_lost, count.rows);
    assert_int_equal(repaired.beyond, 0);
    return count;
}

/* What was lost; `kept`: the file that was damaged is there under this name. */
static lost_rows repaired(const data_folder *f, const char *kept, const char *where)
{
    const uint64_t before = files_sum(f->other);
    const lost_rows said = repair(f->other, true);
    assert_int_equal(files_sum(f->other), before);
    const lost_rows done = repair(f->other, false);
    if (said.steps == 0 || said.steps != done.steps || said.told != done.told ||
        said.rows != done.rows)
        fail_msg("%s: said %u steps and %u losses, did %u and %u", where, said.steps, said.told,
                 done.steps, done.told);
    if (kept != NULL) {
        char path[256];
        (void)snprintf(path, sizeof path, "%s/" MIR_STORAGE_DAMAGED "/%s", f->other, kept);
        if (access(path, F_OK) != 0) fail_msg("%s: %s is not there", where, path);
    }
    const data_damage left = data_verify(f->other, NULL);
    if (left.elsewhere != 0) fail_msg("%s: left: %s", where, left.text);
    assert_int_equal(repair(f->other, false).steps, 0);
    const uint64_t rows = rows_there(f->other);
    if (done.unknown == 0 ? rows != SEALED + LOGGED - done.rows : rows > SEALED + LOGGED)
        fail_msg("%s: %" PRIu64 " rows, and %" PRIu64 " said to be lost: %s", where, rows,
                 done.rows, done.last);
    return done;
}

/* In the copy. */
static void file_of(const data_folder *f, const char *suffix, char path[160])
{
    data_folder at = {.root = ""};
    memcpy(at.data, f->other, sizeof at.data);
    assert_true(data_file(&at, suffix, 0, path));
}

/* Where what is there twice begins, with the second footer. */
static uint64_t chunks_end_of(const char *segment)
{
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
    const uint64_t index = data_index_of(segment, trailer);
    assert_int_equal(trailer[47], 7);
    const uint64_t footer = mir_tlog_get_u64(trailer + 8);
    return 2 * index - footer - mir_tlog_get_u32(trailer + 16) - MIR_TLOG_SPARE_HEAD_BYTES -
           MIR_TLOG_SPARE_GAP_BYTES;
}

static void test_every_byte_of_a_segment(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160], where[64];
    struct stat about;
    uint32_t nothing_lost = 0, rows_lost = 0;
    assert_true(data_file(f, ".seg", 0, path));
    const uint64_t chunks_end = chunks_end_of(path);
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
    const uint64_t index = data_index_of(path, trailer);
    for (uint64_t at = 0;; at += data_step(at, index, at < 64 ? 7 : at < chunks_end ? 29 : 5)) {
        copy_all(f->data, f->other);
        file_of(f, ".seg", path);
        assert_int_equal(stat(path, &about), 0);
        const uint64_t size = (uint64_t)about.st_size;
        if (at >= size) break;
        data_flip(path, at);
        (void)snprintf(where, sizeof where, "byte %" PRIu64, at);
        const lost_rows lost = repaired(f, strrchr(path, '/') + 1, where);
        nothing_lost += lost.told == 0;
        rows_lost += lost.rows > 0;
        /* A chunk costs its rows; what says whose they are is there twice. */
        assert_int_equal(lost.unknown, 0);
        if (at < 64 || at >= chunks_end) assert_int_equal(lost.told, 0);
    }
    assert_true(nothing_lost > 8 && rows_lost > 3);
    data_free(f);
}

static void test_every_byte_of_a_log(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160], where[64];
    uint32_t lossless = 0, lossy = 0;
    for (uint64_t at = 0; at < 700; at += at < 128 ? 13 : 41) {
        copy_all(f->data, f->other);
        file_of(f, ".log", path);
        data_flip(path, at);
        (void)snprintf(where, sizeof where, "byte %" PRIu64, at);
        const lost_rows lost = repaired(f, strrchr(path, '/') + 1, where);
        lossless += lost.told == 0;
        lossy += lost.told > 0;
        if (at < MIR_TLOG_LOG_HEADER_BYTES) assert_int_equal(lost.told, 0);
    }
    assert_true(lossless > 8 && lossy > 8);
    /* Both copies of its header, each in another place. */
    copy_all(f->data, f->other);
    file_of(f, ".log", path);
    data_flip(path, 3);
    data_flip(path, 64 + 25);
    assert_int_equal(repaired(f, strrchr(path, '/') + 1, "both headers").told, 0);
    data_free(f);
}

static void test_manifest(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160];
    copy_all(f->data, f->other);
    file_of(f, "MANIFEST", path);
    data_flip(path, 20);
    assert_int_equal(repaired(f, "MANIFEST", "damaged manifest").told, 0);
    copy_all(f->data, f->other);
    file_of(f, "MANIFEST", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(repaired(f, NULL, "missing manifest").told, 0);
    data_free(f);
}

static void test_what_a_start_set_aside_comes_back(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160], log[160], telemetry[160], kept[64];
    copy_all(f->data, f->other);
    file_of(f, ".seg", path);
    data_flip(path, 20);
    file_of(f, ".log", log);
    data_flip(log, 20);
    data_flip(log, 64 + 9);
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->other);
    mir_tlog_close(data_open(telemetry));
    assert_int_not_equal(access(path, F_OK), 0);
    /* Without a manifest as well its number is not free. */
    char command[400];
    mir_storage_files files;
    (void)snprintf(command, sizeof command, "find %s -type f ! -name '*.damaged' -exec rm {} +",
                   telemetry);
    assert_int_equal(system(command), 0); /* paths of our own */
    assert_int_equal(mir_storage_files_list(telemetry, &files, NULL), MIR_OK);
    assert_int_equal(files.set_aside, 2);
    assert_int_equal(files.number_max, strtoull(strrchr(path, '/') + 1, NULL, 16));
    mir_storage_files_fini(&files);
    (void)snprintf(kept, sizeof kept, "%.20s.damaged", strrchr(path, '/') + 1);
    assert_int_equal(repaired(f, kept, "set aside").told, 0);
    (void)snprintf(path, sizeof path, "%.96s/" MIR_STORAGE_DAMAGED "/%.20s.damaged", f->other,
                   strrchr(log, '/') + 1);
    assert_int_equal(access(path, F_OK), 0);
    /* One that is missing is not expected any more. */
    copy_all(f->data, f->other);
    file_of(f, ".seg", path);
    assert_int_equal(unlink(path), 0);
    mir_tlog_close(data_open(telemetry));
    const lost_rows lost = repaired(f, NULL, "missing at a start");
    assert_int_equal(lost.told, 1);
    assert_int_equal(lost.unknown, 1);
    copy_all(f->data, f->other);
    file_of(f, ".seg", path);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(repaired(f, NULL, "missing").told, 1);
    data_free(f);
}

/* A server that was told to do without a file may have got it back from a backup since. */
static void test_a_log_takes_no_place_that_is_taken(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char log[160], aside[176];
    mir_storage_repaired result;
    mir_error error = {{0}};
    copy_all(f->data, f->other);
    file_of(f, ".log", log);
    (void)snprintf(aside, sizeof aside, "%s.damaged", log);
    copy_all(log, aside);
    assert_int_equal(truncate(aside, 300), 0);
    const uint64_t before = files_sum(f->other);
    for (int dry = 1; dry >= 0; dry--) {
        assert_int_equal(mir_storage_repair(f->other, dry != 0, NULL, &result, &error),
                         MIR_E_INVALID);
        assert_non_null(strstr(error.text, ".log.damaged"));
        assert_int_equal(files_sum(f->other), before);
    }
    /* Without it all rows are there. */
    assert_int_equal(unlink(aside), 0);
    assert_int_equal(repair(f->other, false).steps, 0);
    assert_int_equal(rows_there(f->other), SEALED + LOGGED);
    data_free(f);
}

/* Repaired while the disk cannot read from `from` to `end` of that file. */
static lost_rows repaired_bad(const data_folder *f, const char *path, off_t from, off_t end)
{
    bad_begin(path, from, end, 0);
    const lost_rows lost = repair(f->other, false);
    bad_end();
    assert_true(lost.steps > 0);
    assert_int_equal(data_verify(f->other, NULL).elsewhere, 0);
    assert_int_equal(repair(f->other, false).steps, 0);
    return lost;
}

/* Of 450 devices the index is longer than a page, and of 27,000 rows it is there twice. */
static void many_seal(const data_folder *f, uint32_t rows, uint32_t devices)
{
    static const mir_column columns[] = {{"n", 1, MIR_COLUMN_I64}};
    char telemetry[128];
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    /* All of it has room in one log, and goes into one segment. */
    const mir_tlog_options options = {
        .directory = telemetry, .writer_count = 1, .log_bytes_max = 64 << 20};
    mir_tlog *tlog = NULL;
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &tlog, &error) != MIR_OK) fail_msg("open: %s", error.text);
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 1, 1, 8), MIR_OK);
    for (uint32_t n = 0; n < rows; n++) {
        char device[32];
        mir_tlog_series *series;
        (void)snprintf(device, sizeof device, "device-%08x", n % devices * UINT32_C(2654435761));
        row.time_ns = INT64_C(1790000000000000000) + n;
        row.column_count = 1;
        row.present[0] = 1;
        row.cells[0].i64 = (int64_t)(n * UINT64_C(0x9e3779b97f4a7c15));
        assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(device), data_measurements[0],
                                              columns, 1, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        if (n % 16 == 15) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    mir_row_fini(&row);
    data_seal(tlog);
    mir_tlog_close(tlog);
}

static void test_what_a_disk_cannot_read_costs_what_it_hit(void **state)
{
    (void)state;
    enum { MANY = 2000, MORE = 27000, PAGE = 4096 };
    data_folder *f = data_new(0, MANY);
    char path[160];
    struct stat about;
    copy_all(f->data, f->other);
    file_of(f, ".log", path);
    const lost_rows log = repaired_bad(f, path, 2 * PAGE, 3 * PAGE);
    assert_true(log.told > 0);
    const uint64_t rows = rows_there(f->other);
    if (rows >= MANY || rows < MANY - 400)
        fail_msg("%" PRIu64 " rows of %d; %s", rows, MANY, log.last);
    /* Where the rows end nothing shows that more of them are missing. */
    off_t last = 0;
    assert_true(data_file(f, ".log", 0, path));
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    for (int c; (c = fgetc(file)) != EOF;)
        if (c != 0) last = ftell(file);
    assert_int_equal(fclose(file), 0);
    copy_all(f->data, f->other);
    file_of(f, ".log", path);
    assert_true(repaired_bad(f, path, last / PAGE * PAGE, last / PAGE * PAGE + PAGE).told > 0);
    assert_true(rows_there(f->other) < MANY);
    data_free(f);
    /* What says whose rows a segment has is there twice; a header follows from the rest. */
    f = data_new(0, 0);
    many_seal(f, MORE, 450);
    assert_true(data_file(f, ".seg", 0, path));
    assert_int_equal(stat(path, &about), 0);
    if (about.st_size - (off_t)chunks_end_of(path) < 2 * PAGE + 512)
        fail_msg("%d of %d bytes", (int)(about.st_size - (off_t)chunks_end_of(path)),
                 (int)about.st_size);
    for (int where = 0; where < 3; where++) {
        copy_all(f->data, f->other);
        file_of(f, ".seg", path);
        const off_t end = where == 0   ? about.st_size
                          : where == 1 ? about.st_size - MIR_TLOG_SEGMENT_TRAILER_BYTES
                                       : MIR_TLOG_SEGMENT_HEADER_BYTES;
        const off_t from = where == 2 ? 0 : end - 64;
        const lost_rows segment = repaired_bad(f, path, from, end);
        if (segment.told > 0) fail_msg("%d: %s", where, segment.last);
        assert_int_equal(rows_there(f->other), MORE);
    }
    data_free(f);
}

/* A page is the least that it loses, and small segments had all that is in them twice in one. */
static void test_no_page_of_a_segment_has_both_of_what_is_there_twice(void **state)
{
    (void)state;
    enum { PAGE = 4096, MANY = 3000 };
    for (int many = 0; many < 2; many++) {
        data_folder *f = data_new(many != 0 ? 0 : SEALED, 0);
        if (many != 0) many_seal(f, MANY, 40);
        const uint64_t all = many != 0 ? MANY : SEALED;
        char path[160];
        struct stat about;
        assert_true(data_file(f, ".seg", 0, path));
        assert_int_equal(stat(path, &about), 0);
        const off_t chunks_end = (off_t)chunks_end_of(path);
        uint32_t hit = 0;
        for (off_t from = 0; from < about.st_size; from += PAGE) {
            copy_all(f->data, f->other);
            file_of(f, ".seg", path);
            const lost_rows lost = repaired_bad(f, path, from, from + PAGE);
            /* The names of all that is lost are known, and how many rows. */
            if (lost.unknown > 0) fail_msg("page at %d: %s", (int)from, lost.last);
            assert_int_equal(rows_there(f->other), all - lost.rows);
            if (from >= chunks_end) assert_int_equal(lost.told, 0);
            hit += lost.rows > 0;
        }
        assert_int_equal(hit, (chunks_end + PAGE - 1) / PAGE);
        data_free(f);
    }
}

/* All else is worth the more then. */
static void test_what_the_disk_cannot_read_keeps_nothing_else_out(void **state)
{
    (void)state;
    enum { PAGE = 4096, IN_SEGMENT = 3000, IN_LOG = 2000 };
    data_folder *f = data_new(0, 0);
    many_seal(f, IN_SEGMENT, 40);
    char path[160], again[128], telemetry[160], name[64];
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    mir_tlog *tlog = data_open(telemetry);
    data_put(tlog, 0, IN_LOG);
    mir_tlog_close(tlog);
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", again);
    static const char *const suffixes[] = {".seg", ".log"};
    /* A page in the middle, or all of it. */
    for (int turn = 0; turn < 4; turn++) {
        mir_storage_saved saved;
        mir_error error = {{0}};
        assert_true(data_file(f, suffixes[turn / 2], 0, path));
        (void)snprintf(name, sizeof name, "telemetry/%.20s", strrchr(path, '/') + 1);
        data_damage told = {.file = name};
        const mir_storage_watch watch = {&told, NULL, data_damage_count, NULL};
        if (turn % 2 == 0)
            bad_begin(path, PAGE, PAGE + 1, 0);
        else
            bad_begin(path, 0, 64 << 20, 0);
        const mir_status status =
            mir_storage_backup(f->data, f->other, true, &watch, &saved, &error);
        bad_end();
        if (status != MIR_OK) fail_msg("%d: %s", turn, error.text);
        if (told.there != 1) fail_msg("%d: told %u times", turn, told.there);
        assert_int_equal(told.elsewhere, 0);
        if (turn % 2 == 0) assert_int_equal(saved.unread, PAGE);
        assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_OK);
        mir_storage_repaired repaired;
        assert_int_equal(mir_storage_repair(again, false, NULL, &repaired, &error), MIR_OK);
        assert_true(repaired.steps > 0 && repaired.lost > 0);
        tlog = data_open(telemetry);
        if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
        mir_tlog_close(tlog);
        mir_storage_stats stats;
        assert_int_equal(mir_storage_stats_read(again, NULL, &stats, &error), MIR_OK);
        static const uint64_t least[4] = {IN_LOG + IN_SEGMENT / 2, IN_LOG, IN_SEGMENT + IN_LOG / 2,
                                          IN_SEGMENT};
        if (stats.all.rows < least[turn] || stats.all.rows >= IN_SEGMENT + IN_LOG)
            fail_msg("%d: %" PRIu64 " rows", turn, stats.all.rows);
        mir_storage_stats_fini(&stats);
        data_remove(f->other);
        data_remove(again);
    }
    data_free(f);
}

/* Disks that fail read the same bytes now and then. */
static void test_what_can_be_read_once_is_kept_or_told(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, 0);
    char path[160];
    for (uint32_t spared = 0; spared < 3; spared++) {
        copy_all(f->data, f->other);
        file_of(f, ".seg", path);
        data_flip(path, 20); /* so that it is made anew */
        /* Of the first chunk. */
        bad_begin(path, MIR_TLOG_SEGMENT_HEADER_BYTES, MIR_TLOG_SEGMENT_HEADER_BYTES + 1, spared);
        const lost_rows lost = repair(f->other, false);
        bad_end();
        assert_int_equal(lost.unknown, 0);
        assert_true(spared == 2 ? lost.rows == 0 : lost.rows > 0);
        assert_int_equal(rows_there(f->other), SEALED - lost.rows);
        assert_int_equal(repair(f->other, false).steps, 0);
    }
    data_free(f);
}

/* Whether a cut there is one of many in the zeros between what is there twice. */
static bool amid_zeros(const char *path, off_t size)
{
    uint8_t bytes[256];
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pread(fd, bytes, sizeof bytes, size - (off_t)sizeof bytes), sizeof bytes);
    close(fd);
    for (size_t i = 0; i < sizeof bytes; i++)
        if (bytes[i] != 0) return false;
    return true;
}

static void test_cut_files(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160], where[64], whole[160];
    struct stat about;
    assert_true(data_file(f, ".seg", 0, whole));
    assert_int_equal(stat(whole, &about), 0);
    /* From the second footer on there is all that is needed, and from the second index on. */
    const off_t index = (off_t)chunks_end_of(whole);
    off_t step, lossless = 0;
    uint32_t lossy = 0;
    for (off_t size = about.st_size - 1; size > index - 100; size -= step) {
        step = amid_zeros(whole, size) ? 211 : 7;
        copy_all(f->data, f->other);
        file_of(f, ".seg", path);
        assert_int_equal(truncate(path, size), 0);
        (void)snprintf(where, sizeof where, "cut at %d, %d behind the chunks", (int)size,
                       (int)(size - index));
        const lost_rows lost = repaired(f, strrchr(path, '/') + 1, where);
        if (lossy == 0 && lost.told == 0) lossless += step;
        lossy += lost.told > 0;
        /* Once it has lost something, less of it is left. */
        assert_true(lossy == 0 || lost.told > 0);
    }
    assert_true(lossless > (about.st_size - index) / 2 - 64 && lossy > 0);
    for (off_t size = 0; size < 700; size += 79) {
        copy_all(f->data, f->other);
        file_of(f, ".log", path);
        assert_int_equal(truncate(path, size), 0);
        if (data_verify(f->other, NULL).elsewhere == 0) continue; /* between two frames */
        (void)snprintf(where, sizeof where, "cut at %d", (int)size);
        (void)repaired(f, strrchr(path, '/') + 1, where);
    }
    data_free(f);
}

static void test_state(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    for (uint64_t head = 0; head < 2; head++) {
        copy_all(f->data, f->other);
        (void)snprintf(path, sizeof path, "%s/state/data.mdb", f->other);
        data_flip(path, head * page + 16);
        assert_int_equal(repaired(f, "data.mdb", "one head").told, 1);
        (void)snprintf(path, sizeof path, "%s/state", f->other);
        const mir_state_options options = {.path = path, .map_bytes = 16 << 20};
        mir_error error = {{0}};
        mir_state *opened;
        if (mir_state_open(&options, &opened, &error) != MIR_OK) fail_msg("%s", error.text);
        mir_state_close(opened);
    }
    copy_all(f->data, f->other);
    (void)snprintf(path, sizeof path, "%s/state/data.mdb", f->other);
    data_flip(path, 16);
    data_flip(path, page + 16);
    const uint64_t before = files_sum(f->other);
    lost_rows count = {0};
    const mir_storage_watch watch = {&count, NULL, lost_count, step_count};
    mir_storage_repaired done;
    mir_error error = {{0}};
    assert_int_equal(mir_storage_repair(f->other, false, &watch, &done, &error), MIR_OK);
    assert_int_equal(done.beyond, 1);
    assert_int_equal(files_sum(f->other), before);
    data_free(f);
}

static void test_nothing_is_touched_that_is_in_use(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160];
    mir_storage_repaired done;
    mir_error error = {{0}};
    assert_int_equal(repair(f->data, false).steps, 0);
    (void)snprintf(path, sizeof path, "%s/lock", f->data);
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(mir_storage_repair(f->data, true, NULL, &done, &error), MIR_E_EXISTS);
    assert_int_equal(close(fd), 0);
    /* A backup stays what its list says. */
    mir_storage_saved saved;
    assert_int_equal(mir_storage_backup(f->data, f->other, true, NULL, &saved, &error), MIR_OK);
    assert_int_equal(mir_storage_repair(f->other, false, NULL, &done, &error), MIR_E_INVALID);
    assert_int_equal(data_verify(f->other, NULL).elsewhere, 0);
    data_free(f);
}

static bool die(void *context, uint64_t done, uint64_t total)
{
    uint32_t *left = context;
    (void)done, (void)total;
    if (*left == 0) (void)raise(SIGKILL);
    --*left;
    return true;
}

static bool no_scratch(void *context, uint64_t done, uint64_t total)
{
    static const char *const names[] = {"state.tmp", "state.raw.tmp"};
    const data_folder *f = context;
    char path[160];
    (void)done, (void)total;
    for (size_t i = 0; i < 2; i++) {
        (void)snprintf(path, sizeof path, "%s/%s", f->data, names[i]);
        assert_int_not_equal(access(path, F_OK), 0);
    }
    return true;
}

static void test_who_only_looks_tries_copies_elsewhere(void **state)
{
    (void)state;
    data_folder *f = data_new(30, 6);
    mir_storage_repaired done;
    mir_error error = {{0}};
    char path[160];
    const mir_storage_watch watch = {f, no_scratch, NULL, NULL};
    (void)snprintf(path, sizeof path, "%s/state/data.mdb", f->data);
    data_flip(path, 16);
    const uint64_t before = files_sum(f->data);
    assert_int_equal(mir_storage_repair(f->data, true, &watch, &done, &error), MIR_OK);
    assert_int_equal(done.beyond, 0);
    assert_int_equal(done.steps, 1);
    assert_int_equal(files_sum(f->data), before);
    /* Where there is no place, it says so. */
    char *former = getenv("TMPDIR");
    former = former == NULL ? NULL : strdup(former);
    (void)setenv("TMPDIR", "/nonexistent", 1);
    assert_int_not_equal(mir_storage_repair(f->data, true, &watch, &done, &error), MIR_OK);
    assert_non_null(strstr(error.text, "set TMPDIR"));
    former == NULL ? (void)unsetenv("TMPDIR") : (void)setenv("TMPDIR", former, 1);
    free(former);
    data_free(f);
}

static void test_who_only_looks_leaves_no_trace(void **state)
{
    (void)state;
    data_folder *f = data_new(30, 6);
    mir_storage_repaired repaired;
    mir_error error = {{0}};
    char path[128];
    (void)snprintf(path, sizeof path, "%s/lock", f->data);
    assert_int_equal(mir_storage_repair(f->data, true, NULL, &repaired, &error), MIR_OK);
    assert_int_not_equal(access(path, F_OK), 0);
    /* A server is seen all the same. */
    const int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    assert_true(fd >= 0);
    assert_int_equal(flock(fd, LOCK_EX | LOCK_NB), 0);
    assert_int_equal(mir_storage_repair(f->data, true, NULL, &repaired, &error), MIR_E_EXISTS);
    assert_int_equal(close(fd), 0);
    assert_int_equal(mir_storage_repair(f->data, true, NULL, &repaired, &error), MIR_OK);
    data_free(f);
}

/* At each place where it says how far it is: in the copy of the state, while a segment is written, before
 * and after the manifest is replaced. Whoever comes then finds what nobody had touched. */
static void test_a_killed_repair_is_done_again(void **state)
{
    (void)state;
    data_folder *f = data_new(SEALED, LOGGED);
    char path[160], where[64];
    const uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    bool killed = true;
    uint32_t kills = 0;
    for (uint32_t n = 0; killed; n++) {
        copy_all(f->data, f->other);
        (void)snprintf(path, sizeof path, "%s/state/data.mdb", f->other);
        data_flip(path, page + 16);
        file_of(f, ".log", path);
        data_flip(path, 160);
        file_of(f, ".seg", path);
        data_flip(path, 90);
        data_flip(path, 30);
        const pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            uint32_t left = n;
            const mir_storage_watch watch = {&left, die, NULL, NULL};
            mir_storage_repaired done;
            mir_error error;
            _exit(mir_storage_repair(f->other, false, &watch, &done, &error) == MIR_OK ? 0 : 1);
        }
        int how;
        assert_int_equal(waitpid(child, &how, 0), child);
        killed = WIFSIGNALED(how);
        if (!killed) assert_int_equal(WEXITSTATUS(how), 0);
        kills += killed;
        (void)snprintf(where, sizeof where, "killed at %u", n);
        (void)repair(f->other, false);
        const data_damage left = data_verify(f->other, NULL);
        if (left.elsewhere != 0) fail_msg("%s: left: %s", where, left.text);
        assert_int_equal(repair(f->other, false).steps, 0);
        (void)snprintf(path, sizeof path, "%s/" MIR_STORAGE_DAMAGED, f->other);
        assert_int_equal(access(path, F_OK), 0);
        /* One chunk, and the frames of one place in the log. */
        const uint64_t rows = rows_there(f->other);
        if (rows < SEALED + LOGGED - 40 || rows >= SEALED + LOGGED)
            fail_msg("%s: %" PRIu64 " rows", where, rows);
    }
    assert_true(kills > 8);
    data_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_every_byte_of_a_segment),
        cmocka_unit_test(test_every_byte_of_a_log),
        cmocka_unit_test(test_manifest),
        cmocka_unit_test(test_what_a_start_set_aside_comes_back),
        cmocka_unit_test(test_a_log_takes_no_place_that_is_taken),
        cmocka_unit_test(test_what_a_disk_cannot_read_costs_what_it_hit),
        cmocka_unit_test(test_what_can_be_read_once_is_kept_or_told),
        cmocka_unit_test(test_no_page_of_a_segment_has_both_of_what_is_there_twice),
        cmocka_unit_test(test_what_the_disk_cannot_read_keeps_nothing_else_out),
        cmocka_unit_test(test_cut_files),
        cmocka_unit_test(test_state),
        cmocka_unit_test(test_who_only_looks_leaves_no_trace),
        cmocka_unit_test(test_who_only_looks_tries_copies_elsewhere),
        cmocka_unit_test(test_a_killed_repair_is_done_again),
        cmocka_unit_test(test_nothing_is_touched_that_is_in_use),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
