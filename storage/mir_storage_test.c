/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_testing.h"

#include <fcntl.h>
#include <inttypes.h>
#include <sys/wait.h>

#include "mir_hash.h"
#include "mir_log.h"
#include "mir_tlog_rollup.h"

static int setup(void **state)
{
    (void)state;
    mir_log_set_level(MIR_LOG_ERROR);
    return 0;
}

/* ---- The list of a backup ---- */

static const mir_storage_entry entries[] = {
    {.name = "telemetry/0000000000000001.seg", .size = 70000},
    {.name = "telemetry/MANIFEST", .size = 31, .hashed = true, .hash = 7},
    {.name = "state/data.mdb", .size = UINT64_C(1) << 40, .hashed = true, .hash = UINT64_MAX},
};
enum { ENTRIES = sizeof entries / sizeof entries[0] };

static void list_make(mir_bytes *text)
{
    mir_storage_marker marker = {.at_ns = INT64_C(1790000000123456789)};
    for (size_t i = 0; i < ENTRIES; i++)
        assert_int_equal(mir_storage_marker_add(&marker, &entries[i]), MIR_OK);
    mir_storage_marker_format(&marker, text);
    mir_storage_marker_fini(&marker);
    assert_true(mir_bytes_ok(text));
}

static void test_a_list_is_read_as_it_was_written(void **state)
{
    (void)state;
    mir_bytes text = {0};
    mir_storage_marker marker = {0};
    mir_error error = {{0}};
    list_make(&text);
    assert_int_equal(mir_storage_marker_parse(mir_bytes_as_view(&text), &marker, &error), MIR_OK);
    assert_int_equal(marker.at_ns, INT64_C(1790000000123456789));
    assert_int_equal(marker.count, ENTRIES);
    assert_int_equal(marker.bytes, 70000 + 31 + (UINT64_C(1) << 40));
    for (size_t i = 0; i < ENTRIES; i++) {
        assert_string_equal(marker.entries[i].name, entries[i].name);
        assert_int_equal(marker.entries[i].size, entries[i].size);
        assert_int_equal(marker.entries[i].hashed, entries[i].hashed);
        assert_int_equal(marker.entries[i].hash, entries[i].hash);
    }
    mir_storage_marker_fini(&marker);
    mir_bytes_free(&text);
}

static void test_no_changed_list_is_taken(void **state)
{
    (void)state;
    mir_bytes text = {0};
    mir_storage_marker marker = {0};
    mir_error error;
    list_make(&text);
    for (size_t i = 0; i < text.size; i++) {
        assert_int_equal(mir_storage_marker_parse(mir_view_of(text.data, i), &marker, &error),
                         MIR_E_CORRUPT);
        for (unsigned bit = 0; bit < 8; bit++) {
            text.data[i] ^= (uint8_t)(1u << bit);
            assert_int_equal(mir_storage_marker_parse(mir_bytes_as_view(&text), &marker, &error),
                             MIR_E_CORRUPT);
            text.data[i] ^= (uint8_t)(1u << bit);
        }
    }
    mir_bytes_free(&text);
}

/* With a checksum that holds. */
static mir_status list_status(const char *lines)
{
    mir_bytes text = {0};
    mir_storage_marker marker = {0};
    mir_error error = {{0}};
    mir_bytes_text(&text, lines);
    mir_bytes_printf(&text, "end %016" PRIx64 "\n", mir_hash_fixed(text.data, text.size));
    const mir_status status = mir_storage_marker_parse(mir_bytes_as_view(&text), &marker, &error);
    assert_int_equal(status == MIR_OK, error.text[0] == '\0');
    if (status == MIR_OK) mir_storage_marker_fini(&marker);
    mir_bytes_free(&text);
    return status;
}

static void test_a_list_leads_nowhere_else(void **state)
{
    (void)state;
    static const char *const bad[] = {
        "",
        "mir backup 1\n",
        "mir backup\nat 1\n",
        "mir backup 1\nat x\n",
        "mir backup 1\nat 9223372036854775808\n",
        "mir backup 1\nat 1\nfile state/data.mdb 1 -",
        "mir backup 1\nat 1\nfile state/data.mdb 1 -\n\n",
        "mir backup 1\nat 1\nfile state/data.mdb -1 -\n",
        "mir backup 1\nat 1\nfile state/data.mdb 18446744073709551616 -\n",
        "mir backup 1\nat 1\nfile state/data.mdb 1 00000000000000g0\n",
        "mir backup 1\nat 1\nfile state/data.mdb 1 123\n",
        "mir backup 1\nat 1\nfile state/../../etc/passwd 1 -\n",
        "mir backup 1\nat 1\nfile state/.. 1 -\n",
        "mir backup 1\nat 1\nfile state/ 1 -\n",
        "mir backup 1\nat 1\nfile telemetry/a/b 1 -\n",
        "mir backup 1\nat 1\nfile /etc/passwd 1 -\n",
        "mir backup 1\nat 1\nfile elsewhere/a 1 -\n",
        "mir backup 1\nat 1\nfile state/a 18446744073709551615 -\nfile state/b 1 -\n",
    };
    for (size_t i = 0; i < sizeof bad / sizeof bad[0]; i++)
        if (list_status(bad[i]) != MIR_E_CORRUPT) fail_msg("taken: %s", bad[i]);
    assert_int_equal(list_status("mir backup 2\nwhat comes then is not known\n"),
                     MIR_E_UNSUPPORTED);
    assert_int_equal(
        list_status("mir backup 1\nat 1\nfile state/"
                    "0123456789012345678901234567890123456789012345678901234567 1 -\n"),
        MIR_E_CORRUPT);
    assert_int_equal(list_status("mir backup 1\nat -1\n"), MIR_OK);
    assert_int_equal(list_status("mir backup 1\nat 1\nfile state/data.mdb 1 -\n"), MIR_OK);
}

/* ---- Verifying ---- */

static void flip_all(const data_folder *f, const char *suffix, uint64_t end)
{
    char path[160];
    struct stat about;
    assert_true(data_file(f, suffix, 0, path));
    assert_int_equal(stat(path, &about), 0);
    const char *file = path + strlen(f->data) + 1;
    uint8_t trailer[MIR_TLOG_SEGMENT_TRAILER_BYTES];
    const bool segment = strcmp(suffix, ".seg") == 0;
    const uint64_t index = segment ? data_index_of(path, trailer) : 0;
    for (uint64_t at = 0; at < (uint64_t)about.st_size && at < end;
         at += segment ? data_step(at, index, 1) : 1) {
        data_flip(path, at);
        const data_damage found = data_verify(f->data, file);
        data_flip(path, at);
        if (found.there == 0 || found.elsewhere != 0)
            fail_msg("byte %" PRIu64 " of %s: %u found, %u elsewhere", at, file, found.there,
                     found.elsewhere);
    }
}

static void test_every_byte_that_is_changed_is_found(void **state)
{
    (void)state;
    data_folder *f = data_new(90, 20);
    char path[160];
    mir_tlog_log_look look;
    mir_error error = {{0}};
    assert_int_equal(data_verify(f->data, NULL).elsewhere, 0);
    flip_all(f, ".seg", UINT64_MAX);
    flip_all(f, "MANIFEST", UINT64_MAX);
    /* What of a log was written; behind it there is room. */
    assert_true(data_file(f, ".log", 0, path));
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    const uint64_t number = strtoull(strrchr(path, '/') + 1, NULL, 16);
    assert_true(fd >= 0);
    assert_int_equal(mir_tlog_log_look_at(&mir_tlog_files_posix, fd, number, &look, &error),
                     MIR_OK);
    assert_int_equal(close(fd), 0);
    free(look.bytes);
    assert_int_equal(look.found.corrupt_frames + look.found.torn_bytes + look.headers_damaged, 0);
    flip_all(f, ".log", look.found.bytes + 40);
    assert_int_equal(data_verify(f->data, NULL).elsewhere, 0);
    data_free(f);
}

static void test_missing_files_are_found(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 0);
    char path[160];
    assert_true(data_file(f, ".seg", 0, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(data_verify(f->data, path + strlen(f->data) + 1).there, 1);
    assert_true(data_file(f, "MANIFEST", 0, path));
    data_free(f);
    f = data_new(300, 0);
    assert_true(data_file(f, "MANIFEST", 0, path));
    assert_int_equal(unlink(path), 0);
    assert_int_equal(data_verify(f->data, "telemetry/MANIFEST").there, 1);
    data_free(f);
}

static void test_names_can_be_read(void **state)
{
    (void)state;
    char stored[MIR_TLOG_ROLLUP_NAME_BYTES_MAX], text[MIR_STORAGE_MEASUREMENT_BYTES_MAX];
    const mir_view rows = MIR_VIEW_LITERAL("m.v1.T");
    const mir_view rollup = mir_tlog_rollup_measurement(rows, 1, stored);
    assert_true(mir_view_eq(mir_storage_measurement_shown(rows, text), rows));
    assert_true(mir_view_eq_cstr(mir_storage_measurement_shown(rollup, text), "m.v1.T (10m)"));
}

static void test_what_is_whole_is_counted_wherever_it_is(void **state)
{
    (void)state;
    data_folder *f = data_new(90, 20);
    mir_storage_checked checked;
    mir_error error = {{0}};
    assert_int_equal(mir_storage_verify(f->data, false, NULL, &checked, &error), MIR_OK);
    assert_int_equal(checked.rows, 110);
    data_free(f);
}

/* ---- Backing up ---- */

static uint64_t rows_of(const char *data)
{
    mir_storage_stats stats;
    mir_error error = {{0}};
    char telemetry[160];
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", data);
    mir_tlog *tlog = data_open(telemetry); /* what is in logs counts once it is in segments */
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
    mir_tlog_close(tlog);
    if (mir_storage_stats_read(data, NULL, &stats, &error) != MIR_OK) fail_msg("%s", error.text);
    const uint64_t rows = stats.all.rows;
    assert_int_equal(stats.measurement_count, DATA_MEASUREMENTS);
    assert_int_equal(stats.all.series, DATA_DEVICES * DATA_MEASUREMENTS);
    mir_storage_stats_fini(&stats);
    return rows;
}

static bool cancel(void *context, uint64_t done, uint64_t total)
{
    uint32_t *left = context;
    (void)done, (void)total;
    return (*left)-- > 0;
}

static bool there(const char *directory, const char *name)
{
    char path[256];
    (void)snprintf(path, sizeof path, "%s/%s", directory, name);
    return access(path, F_OK) == 0;
}

static void test_a_backup_is_restored(void **state)
{
    (void)state;
    for (int copy = 0; copy < 2; copy++) {
        data_folder *f = data_new(300, 60);
        char again[128];
        mir_storage_saved saved, restored;
        mir_error error = {{0}};
        (void)snprintf(again, sizeof again, "%s/again", f->root);
        if (mir_storage_backup(f->data, f->other, copy != 0, NULL, &saved, &error) != MIR_OK)
            fail_msg("%s", error.text);
        assert_int_equal(saved.damaged, 0);
        assert_true(copy != 0 ? saved.linked == 0 : saved.linked > 0);
        assert_true(there(f->other, MIR_STORAGE_MARKER));
        assert_false(there(f->other, MIR_STORAGE_MARKER_HALF));
        assert_int_equal(mir_storage_servable(f->other, &error), MIR_E_INVALID);
        assert_int_equal(data_verify(f->other, NULL).elsewhere, 0);
        /* What is there already is left alone. */
        assert_int_equal(mir_storage_backup(f->data, f->other, false, NULL, &restored, &error),
                         MIR_E_EXISTS);
        assert_int_equal(mir_storage_restore(f->other, f->data, NULL, &restored, &error),
                         MIR_E_EXISTS);
        (void)snprintf(again, sizeof again, "%s/inside", f->data);
        assert_int_equal(mir_storage_backup(f->data, again, false, NULL, &restored, &error),
                         MIR_E_INVALID);
        assert_int_not_equal(access(again, F_OK), 0);
        (void)snprintf(again, sizeof again, "%s/inside", f->other);
        assert_int_equal(mir_storage_restore(f->other, again, NULL, &restored, &error),
                         MIR_E_INVALID);
        assert_int_not_equal(access(again, F_OK), 0);
        (void)snprintf(again, sizeof again, "%s/again", f->root);
        if (mir_storage_restore(f->other, again, NULL, &restored, &error) != MIR_OK)
            fail_msg("%s", error.text);
        assert_int_equal(restored.files, saved.files);
        assert_int_equal(restored.bytes, saved.bytes);
        assert_int_equal(restored.at_ns, saved.at_ns);
        assert_int_equal(mir_storage_servable(again, &error), MIR_OK);
        assert_int_equal(data_verify(again, NULL).elsewhere, 0);
        assert_int_equal(rows_of(again), 360);
        assert_int_equal(data_verify(f->other, NULL).elsewhere, 0);
        data_free(f);
    }
}

static void test_what_is_cancelled_leaves_nothing(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 60);
    char again[128];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    uint32_t tries = 0;
    for (mir_status status = MIR_E_CANCELLED; status == MIR_E_CANCELLED; tries++) {
        uint32_t left = tries;
        const mir_storage_watch watch = {&left, cancel, NULL, NULL};
        status = mir_storage_backup(f->data, f->other, true, &watch, &saved, &error);
        if (status != MIR_OK) {
            assert_int_equal(status, MIR_E_CANCELLED);
            assert_int_not_equal(access(f->other, F_OK), 0);
        }
    }
    assert_true(tries > 3);
    tries = 0;
    for (mir_status status = MIR_E_CANCELLED; status == MIR_E_CANCELLED; tries++) {
        uint32_t left = tries;
        const mir_storage_watch watch = {&left, cancel, NULL, NULL};
        status = mir_storage_restore(f->other, again, &watch, &saved, &error);
        if (status != MIR_OK) {
            assert_int_equal(status, MIR_E_CANCELLED);
            assert_int_not_equal(access(again, F_OK), 0);
        }
    }
    assert_true(tries > 3);
    assert_int_equal(rows_of(again), 360);
    data_free(f);
}

/* In a process of its own, as soon as the pipe ends: its status is what it exits with. */
static pid_t backup_begin(const data_folder *f, const int gate[2])
{
    const pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid > 0) return pid;
    mir_storage_saved saved;
    mir_error error = {{0}};
    char byte;
    (void)close(gate[1]);
    if (read(gate[0], &byte, 1) != 0) _exit(100);
    _exit((int)mir_storage_backup(f->data, f->other, true, NULL, &saved, &error));
}

static void test_two_backups_into_one_directory(void **state)
{
    (void)state;
    enum { ROUNDS = 60 };
    data_folder *f = data_new(30, 6);
    for (int round = 0; round < ROUNDS; round++) {
        int gate[2], how[2];
        pid_t pids[2];
        assert_int_equal(pipe(gate), 0);
        for (int i = 0; i < 2; i++) pids[i] = backup_begin(f, gate);
        assert_int_equal(close(gate[1]), 0);
        for (int i = 0; i < 2; i++) {
            assert_int_equal(waitpid(pids[i], &how[i], 0), pids[i]);
            assert_true(WIFEXITED(how[i]));
        }
        assert_int_equal(close(gate[0]), 0);
        /* One of them has made it, and the other one has taken nothing of it away. */
        const mir_status a = (mir_status)WEXITSTATUS(how[0]), b = (mir_status)WEXITSTATUS(how[1]);
        if (a != MIR_OK) assert_int_equal(a, MIR_E_EXISTS);
        if (b != MIR_OK) assert_int_equal(b, MIR_E_EXISTS);
        assert_int_equal((a == MIR_OK) + (b == MIR_OK), 1);
        assert_int_equal(data_verify(f->other, NULL).elsewhere, 0);
        data_remove(f->other);
    }
    data_free(f);
}

static void test_half_a_backup_is_none(void **state)
{
    (void)state;
    data_folder *f = data_new(30, 0);
    char path[160], again[128];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    assert_int_equal(mir_storage_backup(f->data, f->other, true, NULL, &saved, &error), MIR_OK);
    (void)snprintf(path, sizeof path, "%s/" MIR_STORAGE_MARKER, f->other);
    char half[160];
    (void)snprintf(half, sizeof half, "%s/" MIR_STORAGE_MARKER_HALF, f->other);
    assert_int_equal(rename(path, half), 0);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_E_NOT_FOUND);
    assert_int_not_equal(access(again, F_OK), 0);
    assert_int_equal(mir_storage_servable(f->other, &error), MIR_E_INVALID);
    /* Nor is what is made of it: a segment that is not there yet would be missed by nobody. */
    assert_int_equal(mir_storage_backup(f->other, again, true, NULL, &saved, &error),
                     MIR_E_INVALID);
    assert_int_not_equal(access(again, F_OK), 0);
    assert_int_equal(data_verify(f->other, MIR_STORAGE_MARKER_HALF).there, 1);
    assert_int_equal(rename(half, path), 0);
    /* A file that is not the one that was saved stops it, and nothing stays. */
    data_folder at = {.root = ""};
    (void)snprintf(at.data, sizeof at.data, "%s", f->other);
    assert_true(data_file(&at, "MANIFEST", 0, path));
    data_flip(path, 3);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_E_CORRUPT);
    assert_int_not_equal(access(again, F_OK), 0);
    data_flip(path, 3);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_OK);
    data_free(f);
}

static void test_what_is_lost_stays_told(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 60);
    char path[160], again[128];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    assert_true(data_file(f, ".seg", 0, path));
    assert_int_equal(unlink(path), 0);
    assert_true(data_file(f, ".log", 0, path));
    data_flip(path, 3);
    data_flip(path, 67);
    assert_int_equal(mir_storage_backup(f->data, f->other, false, NULL, &saved, &error), MIR_OK);
    assert_int_equal(saved.damaged, 2);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_OK);
    mir_storage_checked checked;
    assert_int_equal(mir_storage_verify(again, false, NULL, &checked, &error), MIR_OK);
    assert_int_equal(checked.set_aside, 2);
    data_free(f);
}

/* A start was killed, or failed, between its two steps: the manifest still names what is set aside. */
static void test_what_is_set_aside_twice_is_told_once(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 60);
    char path[160], log[160], aside[176], again[128];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    assert_true(data_file(f, ".seg", 0, path));
    (void)snprintf(aside, sizeof aside, "%s.damaged", path);
    assert_int_equal(rename(path, aside), 0);
    assert_true(data_file(f, ".log", 0, log));
    (void)snprintf(aside, sizeof aside, "%s.damaged", log);
    assert_int_equal(link(log, aside), 0);
    data_flip(log, 3);
    data_flip(log, 67);
    if (mir_storage_backup(f->data, f->other, false, NULL, &saved, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(saved.damaged, 2);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_OK);
    data_free(f);
}

/* A server merges while a check reads: what was there when it began goes, and `path` comes. */
typedef struct merging {
    const data_folder *f;
    const char *gone;
    const char *path;
    const char *hidden;
    bool done;
    data_damage damage;
} merging;

static bool merge(void *context, uint64_t done, uint64_t total)
{
    merging *m = context;
    (void)total;
    if (m->done || done == 0) return true;
    m->done = true;
    char telemetry[128];
    bool in_doubt;
    mir_tlog_manifest manifest;
    mir_error error = {{0}};
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", m->f->data);
    assert_int_equal(mir_tlog_manifest_read(&mir_tlog_files_posix, telemetry, &manifest, &error),
                     MIR_OK);
    assert_int_equal(manifest.segment_count, 1);
    assert_int_equal(rename(m->hidden, m->path), 0);
    manifest.segments[0] = strtoull(strrchr(m->path, '/') + 1, NULL, 16);
    assert_int_equal(
        mir_tlog_manifest_write(&mir_tlog_files_posix, telemetry, &manifest, &in_doubt, &error),
        MIR_OK);
    mir_tlog_manifest_fini(&manifest);
    assert_int_equal(unlink(m->gone), 0);
    return true;
}

static void merged_damage(void *context, const mir_storage_damage *damage)
{
    data_damage_count(&((merging *)context)->damage, damage);
}

static void test_what_comes_meanwhile_is_checked(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 0);
    char telemetry[128], first[160], second[160], hidden[176];
    mir_error error = {{0}};
    bool in_doubt;
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    assert_true(data_file(f, ".seg", 0, first));
    mir_tlog *tlog = data_open(telemetry);
    data_put(tlog, 300, 600);
    data_seal(tlog);
    mir_tlog_close(tlog);
    /* Two, or one of both. */
    mir_tlog_manifest manifest;
    assert_int_equal(mir_tlog_manifest_read(&mir_tlog_files_posix, telemetry, &manifest, &error),
                     MIR_OK);
    assert_int_equal(manifest.segment_count, 2);
    assert_true(data_file(f, ".seg", 1, second));
    (void)snprintf(hidden, sizeof hidden, "%s.hidden", second);
    data_flip(second, 100);
    assert_int_equal(rename(second, hidden), 0);
    manifest.segments[0] = strtoull(strrchr(first, '/') + 1, NULL, 16);
    manifest.segment_count = 1;
    assert_int_equal(
        mir_tlog_manifest_write(&mir_tlog_files_posix, telemetry, &manifest, &in_doubt, &error),
        MIR_OK);
    mir_tlog_manifest_fini(&manifest);
    merging m = {.f = f, .gone = first, .path = second, .hidden = hidden};
    char name[64];
    (void)snprintf(name, sizeof name, "telemetry/%.20s", strrchr(second, '/') + 1);
    m.damage.file = name;
    const mir_storage_watch watch = {&m, merge, merged_damage, NULL};
    mir_storage_checked checked;
    if (mir_storage_verify(f->data, false, &watch, &checked, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_true(m.done);
    assert_int_equal(m.damage.there, 1);
    assert_int_equal(m.damage.elsewhere, 0);
    data_free(f);
}

static bool unlink_all(void *context, uint64_t done, uint64_t total)
{
    const merging *m = context;
    (void)total;
    if (done == 0) return true;
    (void)unlink(m->gone);
    (void)unlink(m->path);
    return true;
}

/* The rows of what it has not read yet are not in what it lists. */
static void test_what_is_merged_away_meanwhile_is_counted(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 0);
    char telemetry[128], first[160], second[160];
    mir_error error = {{0}};
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    mir_tlog *tlog = data_open(telemetry);
    data_put(tlog, 300, 600);
    data_seal(tlog);
    mir_tlog_close(tlog);
    assert_true(data_file(f, ".seg", 0, first));
    assert_true(data_file(f, ".seg", 1, second));
    merging m = {.f = f, .gone = first, .path = second};
    const mir_storage_watch watch = {&m, unlink_all, NULL, NULL};
    mir_storage_stats stats;
    if (mir_storage_stats_read(f->data, &watch, &stats, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_int_not_equal(access(second, F_OK), 0);
    assert_int_equal(stats.all.rows, 600);
    assert_int_equal(stats.segments, 2);
    assert_int_equal(stats.damaged, 0);
    mir_storage_stats_fini(&stats);
    data_free(f);
}

static bool seal_all(void *context, uint64_t done, uint64_t total)
{
    merging *m = context;
    (void)done, (void)total;
    if (m->done) return true;
    m->done = true;
    mir_error error = {{0}};
    mir_tlog *tlog = data_open(m->path);
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
    mir_tlog_close(tlog);
    return true;
}

/* Of logs that are sealed while they are looked at the rows are in segments, or in the logs. */
static void test_what_is_sealed_meanwhile_is_counted(void **state)
{
    (void)state;
    enum { WRITERS = 3, ROWS = 10 };
    static const mir_column column = {"n", 1, MIR_COLUMN_I64};
    data_folder *f = data_new(0, 0);
    char telemetry[128];
    mir_error error = {{0}};
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    const mir_tlog_options options = {.directory = telemetry, .writer_count = WRITERS};
    mir_tlog *tlog;
    assert_int_equal(mir_tlog_open(&options, &tlog, &error), MIR_OK);
    mir_row row;
    assert_int_equal(mir_row_init(&row, 1, 1, 64), MIR_OK);
    for (uint32_t i = 0; i < WRITERS * ROWS; i++) {
        mir_tlog_writer *writer = mir_tlog_writer_of(tlog, i % WRITERS);
        mir_tlog_series *series;
        row.time_ns = i;
        row.column_count = 1;
        row.dynamic_count = 0;
        row.present[0] = 1;
        row.cells[0].i64 = i;
        assert_int_equal(mir_tlog_series_open(writer, data_devices[i % WRITERS],
                                              data_measurements[0], &column, 1, &series),
                         MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    mir_tlog_close(tlog);
    merging m = {.f = f, .path = telemetry};
    const mir_storage_watch watch = {&m, seal_all, NULL, NULL};
    mir_storage_stats stats;
    if (mir_storage_stats_read(f->data, &watch, &stats, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_true(m.done);
    assert_int_equal(stats.damaged, 0);
    if (stats.logs != WRITERS) assert_int_equal(stats.all.rows, WRITERS * ROWS);
    mir_storage_stats_fini(&stats);
    mir_row_fini(&row);
    data_free(f);
}

/* Who restores may read what those who can write to the backup may not. */
static void test_a_restore_follows_no_links(void **state)
{
    (void)state;
    data_folder *f = data_new(30, 6);
    char path[160], secret[128], again[128], moved[160];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    (void)snprintf(secret, sizeof secret, "%s/secret", f->root);
    assert_int_equal(mir_storage_backup(f->data, f->other, false, NULL, &saved, &error), MIR_OK);
    data_folder at = {.root = ""};
    memcpy(at.data, f->other, sizeof at.data);
    /* The same bytes, so that nothing but the link is wrong. */
    assert_true(data_file(&at, ".seg", 0, path));
    assert_int_equal(rename(path, secret), 0);
    assert_int_equal(symlink(secret, path), 0);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_E_CORRUPT);
    assert_int_not_equal(access(again, F_OK), 0);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(mkfifo(path, 0600), 0);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_E_CORRUPT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(secret, path), 0);
    (void)snprintf(path, sizeof path, "%s/telemetry", f->other);
    (void)snprintf(moved, sizeof moved, "%s/moved", f->root);
    assert_int_equal(rename(path, moved), 0);
    assert_int_equal(symlink(moved, path), 0);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_E_CORRUPT);
    assert_int_equal(unlink(path), 0);
    assert_int_equal(rename(moved, path), 0);
    assert_int_equal(mir_storage_restore(f->other, again, NULL, &saved, &error), MIR_OK);
    data_free(f);
}

/* The owner of a data directory puts something else in the place of what root has begun there. */
typedef struct replacing {
    const data_folder *f;
    const char *data;
    bool done;
} replacing;

static void run(const char *format, ...) MIR_PRINTF(1, 2);
static void run(const char *format, ...)
{
    char command[512];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(command, sizeof command, format, values);
    va_end(values);
    assert_int_equal(system(command), 0); /* paths of our own */
}

static bool replace(void *context, uint64_t done, uint64_t total)
{
    replacing *r = context;
    (void)total;
    if (r->done || done == 0) return true;
    r->done = true;
    run("mv %s/restoring %s/moved", r->data, r->data);
    run("ln -s %s/victim %s/restoring", r->f->root, r->data);
    return true;
}

static void test_a_restore_writes_nowhere_else(void **state)
{
    (void)state;
    data_folder *f = data_new(300, 60);
    char again[128], path[160];
    mir_storage_saved saved;
    mir_error error = {{0}};
    (void)snprintf(again, sizeof again, "%s/again", f->root);
    assert_int_equal(mir_storage_backup(f->data, f->other, true, NULL, &saved, &error), MIR_OK);
    assert_int_equal(mkdir(again, 0700), 0);
    run("mkdir -p %s/victim/telemetry %s/victim/state", f->root, f->root);
    run("touch %s/victim/telemetry/precious %s/victim/state/precious", f->root, f->root);
    replacing r = {.f = f, .data = again};
    const mir_storage_watch watch = {&r, replace, NULL, NULL};
    assert_int_not_equal(mir_storage_restore(f->other, again, &watch, &saved, &error), MIR_OK);
    assert_true(r.done);
    /* What is there was there before, and no more came. */
    for (int part = 0; part < 2; part++) {
        (void)snprintf(path, sizeof path, "%s/victim/%s", f->root,
                       part == 0 ? "telemetry" : "state");
        run("test \"$(ls %s)\" = precious", path);
    }
    /* All of its own is gone, and it can be done again. */
    run("rmdir %s/moved && rm %s/restoring", again, again);
    if (mir_storage_restore(f->other, again, NULL, &saved, &error) != MIR_OK)
        fail_msg("%s", error.text);
    assert_int_equal(data_verify(again, NULL).elsewhere, 0);
    data_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_what_is_whole_is_counted_wherever_it_is),
        cmocka_unit_test(test_a_list_is_read_as_it_was_written),
        cmocka_unit_test(test_no_changed_list_is_taken),
        cmocka_unit_test(test_a_list_leads_nowhere_else),
        cmocka_unit_test(test_every_byte_that_is_changed_is_found),
        cmocka_unit_test(test_missing_files_are_found),
        cmocka_unit_test(test_names_can_be_read),
        cmocka_unit_test(test_a_backup_is_restored),
        cmocka_unit_test(test_what_is_cancelled_leaves_nothing),
        cmocka_unit_test(test_two_backups_into_one_directory),
        cmocka_unit_test(test_half_a_backup_is_none),
        cmocka_unit_test(test_what_is_lost_stays_told),
        cmocka_unit_test(test_what_is_set_aside_twice_is_told_once),
        cmocka_unit_test(test_what_comes_meanwhile_is_checked),
        cmocka_unit_test(test_what_is_merged_away_meanwhile_is_counted),
        cmocka_unit_test(test_what_is_sealed_meanwhile_is_counted),
        cmocka_unit_test(test_a_restore_follows_no_links),
        cmocka_unit_test(test_a_restore_writes_nowhere_else),
    };
    return cmocka_run_group_tests(tests, setup, NULL);
}
