/* SPDX-License-Identifier: Apache-2.0 */
/* The calls that bring something to the disk go through the functions below (see CMakeLists.txt):
 * they are counted in order, and fail when a test says so. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_device_journal.h"
#include "mir_hash.h"

/* ---- What goes to the disk ---- */

static char calls[64]; /* w pwrite, d fdatasync, r rename, f fsync */
static char failing;   /* one of them, or 0 */
static bool syncing = true;

ssize_t __real_pwrite(int fd, const void *data, size_t size, off_t offset);
int __real_fdatasync(int fd);
int __real_rename(const char *from, const char *to);
int __real_fsync(int fd);
ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset);
int __wrap_fdatasync(int fd);
int __wrap_rename(const char *from, const char *to);
int __wrap_fsync(int fd);

static bool fails(char call)
{
    size_t size = strlen(calls);
    if (size + 1 < sizeof calls) {
        calls[size] = call;
        calls[size + 1] = '\0';
    }
    errno = ENOSPC;
    return failing == call;
}

ssize_t __wrap_pwrite(int fd, const void *data, size_t size, off_t offset)
{
    /* The half that a full disk still takes. */
    if (fails('w')) {
        (void)!__real_pwrite(fd, data, size / 2, offset);
        return -1;
    }
    return __real_pwrite(fd, data, size, offset);
}

int __wrap_fdatasync(int fd)
{
    if (fails('d')) return -1;
    return syncing ? __real_fdatasync(fd) : 0;
}

int __wrap_rename(const char *from, const char *to)
{
    return fails('r') ? -1 : __real_rename(from, to);
}

int __wrap_fsync(int fd)
{
    return fails('f') ? -1 : __real_fsync(fd);
}

/* ---- Helpers ---- */

static char dir[] = "/tmp/mir-journal-XXXXXX";
static char path[128];
static mir_device_journal journal;
static mir_error error;
static mir_device_answer answer;

static void open_journal(void)
{
    error.text[0] = '\0';
    mir_device_journal_init(&journal);
    if (mir_device_journal_open(&journal, dir, "pump", &error) != MIR_OK)
        fail_msg("%s", error.text);
}

static void reopen(void)
{
    mir_device_journal_close(&journal);
    open_journal();
}

static int set_up(void **state)
{
    (void)state;
    (void)snprintf(dir, sizeof dir, "/tmp/mir-journal-XXXXXX");
    if (mkdtemp(dir) == NULL) return -1;
    (void)snprintf(path, sizeof path, "%s/pump/commands", dir);
    failing = 0;
    syncing = true;
    mir_device_journal_init(&journal);
    return 0;
}

static int tear_down(void **state)
{
    (void)state;
    mir_device_journal_close(&journal);
    mir_device_answer_free(&answer);
    char command[64];
    (void)snprintf(command, sizeof command, "rm -r %s", dir);
    return system(command) == 0 ? 0 : -1;
}

static mir_device_verdict begin(const char *id)
{
    mir_device_verdict verdict = MIR_DEVICE_RUN;
    mir_device_answer_free(&answer);
    mir_status status =
        mir_device_journal_begin(&journal, id, "inbox", false, &verdict, &answer, &error);
    if (status != MIR_OK) fail_msg("%s: %s", id, error.text);
    return verdict;
}

static void finish(const char *id, const char *text)
{
    mir_device_waiter *waiters;
    if (mir_device_journal_finish(&journal, id, "pump.v1.Done", mir_view_cstr(text), &waiters,
                                  &error) != MIR_OK)
        fail_msg("%s: %s", id, error.text);
    assert_null(waiters);
}

static void assert_answered(const char *id, const char *text)
{
    assert_int_equal(begin(id), MIR_DEVICE_ANSWERED);
    assert_string_equal(answer.name, "pump.v1.Done");
    assert_true(mir_view_eq_cstr(mir_bytes_as_view(&answer.bytes), text));
}

static mir_bytes read_path(void)
{
    mir_bytes bytes = {0};
    FILE *file = fopen(path, "rb");
    assert_non_null(file);
    uint8_t *to = mir_bytes_reserve(&bytes, 64 << 20);
    assert_non_null(to);
    bytes.size = fread(to, 1, 64 << 20, file);
    (void)fclose(file);
    return bytes;
}

static void write_path(mir_view bytes)
{
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    assert_int_equal(fwrite(bytes.data, 1, bytes.size, file), bytes.size);
    assert_int_equal(fclose(file), 0);
}

/* A journal of its own with what the bytes say. */
static mir_device_journal journal_of(mir_view bytes, mir_status expected)
{
    mir_device_journal read;
    mir_device_journal_init(&read);
    assert_int_equal(mir_device_journal_read(&read, bytes, NULL), expected);
    return read;
}

static bool knows(mir_device_journal *in, const char *id)
{
    for (size_t i = 0; i < in->count; i++)
        if (strcmp(in->entries[(in->first + i) % in->capacity].id, id) == 0) return true;
    return false;
}

/* ---- What is promised ---- */

static void an_id_runs_once_and_is_answered_again(void **state)
{
    (void)state;
    open_journal();
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    assert_int_equal(begin("b"), MIR_DEVICE_RUN);
    finish("a", "first");
    finish("b", "");
    assert_answered("a", "first");
    assert_answered("b", "");
    reopen();
    assert_answered("a", "first");
    assert_answered("b", "");
}

static void who_asks_while_it_runs_gets_the_same_answer(void **state)
{
    (void)state;
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    assert_int_equal(begin("a"), MIR_DEVICE_RUNNING);
    mir_device_verdict verdict;
    assert_int_equal(
        mir_device_journal_begin(&journal, "a", "other", true, &verdict, &answer, &error), MIR_OK);
    assert_int_equal(mir_device_journal_begin(&journal, "a", NULL, true, &verdict, &answer, &error),
                     MIR_OK);
    mir_device_waiter *waiters;
    assert_int_equal(mir_device_journal_finish(&journal, "a", "pump.v1.Done", (mir_view){NULL, 0},
                                               &waiters, &error),
                     MIR_OK);
    assert_string_equal(waiters->to, "inbox");
    assert_false(waiters->zstd);
    assert_string_equal(waiters->next->to, "other");
    assert_true(waiters->next->zstd);
    assert_null(waiters->next->next);
    free(waiters->next);
    free(waiters);
}

static void those_who_wait_are_bounded(void **state)
{
    (void)state;
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    for (int i = 0; i < MIR_DEVICE_JOURNAL_WAITERS_MAX; i++)
        assert_int_equal(begin("a"), MIR_DEVICE_RUNNING);
    mir_device_verdict verdict;
    assert_int_equal(
        mir_device_journal_begin(&journal, "a", "more", false, &verdict, &answer, &error),
        MIR_E_FULL);
}

static void what_was_begun_is_on_the_disk_before_it_runs(void **state)
{
    (void)state;
    open_journal();
    calls[0] = '\0';
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    assert_string_equal(calls, "wd");
    mir_bytes file = read_path();
    mir_device_journal read = journal_of(mir_bytes_as_view(&file), MIR_OK);
    assert_true(knows(&read, "a"));
    mir_device_journal_close(&read);
    mir_bytes_free(&file);
    finish("a", "done");
    assert_string_equal(calls, "wdwd");
}

static void what_was_begun_and_not_answered_is_unknown_afterwards(void **state)
{
    (void)state;
    open_journal();
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    reopen();
    assert_int_equal(begin("a"), MIR_DEVICE_UNKNOWN);
    assert_int_equal(begin("a"), MIR_DEVICE_UNKNOWN);
}

static void what_cannot_be_recorded_does_not_run(void **state)
{
    (void)state;
    open_journal();
    assert_int_equal(begin("before"), MIR_DEVICE_RUN);
    finish("before", "yes");
    /* Neither the first time nor when the file is made anew: w, then w or d or r or f of that. */
    const char ways[] = {'w', 'd', 'r', 'f'};
    for (size_t i = 0; i < sizeof ways; i++) {
        mir_device_verdict verdict;
        failing = i < 2 ? ways[i] : 'w';
        assert_int_equal(
            mir_device_journal_begin(&journal, "a", NULL, false, &verdict, &answer, &error),
            MIR_E_NO_SPACE);
        failing = ways[i];
        assert_int_equal(
            mir_device_journal_begin(&journal, "a", NULL, false, &verdict, &answer, &error),
            MIR_E_NO_SPACE);
        failing = 0;
        char id[] = {'o', 'k', ways[i], '\0'};
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        finish(id, "");
        assert_answered("before", "yes");
    }
    assert_int_equal(begin("a"), MIR_DEVICE_RUN); /* room again, and it never ran */
    reopen();
    assert_int_equal(journal.damaged, 0);
    assert_answered("before", "yes");
    assert_answered("okf", "");
    assert_int_equal(begin("a"), MIR_DEVICE_UNKNOWN);
}

static void a_first_command_that_cannot_be_recorded_leaves_no_trace(void **state)
{
    (void)state;
    open_journal();
    failing = 'w';
    mir_device_verdict verdict;
    assert_int_equal(
        mir_device_journal_begin(&journal, "a", NULL, false, &verdict, &answer, &error),
        MIR_E_NO_SPACE);
    failing = 0;
    syncing = false;
    char id[8];
    for (int i = 0; i < 100; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        finish(id, id);
    }
    for (int i = 0; i < 100; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_answered(id, id);
    }
}

static void an_answer_that_cannot_be_recorded_is_still_given(void **state)
{
    (void)state;
    open_journal();
    assert_int_equal(begin("a"), MIR_DEVICE_RUN);
    failing = 'd';
    mir_device_waiter *waiters;
    assert_int_equal(mir_device_journal_finish(&journal, "a", "pump.v1.Done", mir_view_cstr("x"),
                                               &waiters, &error),
                     MIR_E_NO_SPACE);
    assert_answered("a", "x");
    failing = 0;
    assert_int_equal(begin("b"), MIR_DEVICE_RUN); /* which makes the file anew */
    reopen();
    assert_answered("a", "x");
}

static void a_file_cut_anywhere_knows_all_that_is_whole(void **state)
{
    (void)state;
    open_journal();
    uint64_t begun_at[8], answered_at[8];
    char id[8];
    for (int i = 0; i < 8; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        begun_at[i] = journal.file_size;
        finish(id, "some answer");
        answered_at[i] = journal.file_size;
    }
    mir_bytes file = read_path();
    assert_int_equal(file.size, journal.file_size);
    mir_device_journal_close(&journal);
    for (size_t size = 32; size <= file.size; size++) {
        write_path(mir_view_of(file.data, size));
        syncing = false;
        open_journal();
        for (int i = 0; i < 8; i++) {
            (void)snprintf(id, sizeof id, "id%d", i);
            assert_int_equal(begin(id), size >= answered_at[i] ? MIR_DEVICE_ANSWERED
                                        : size >= begun_at[i]  ? MIR_DEVICE_UNKNOWN
                                                               : MIR_DEVICE_RUN);
        }
        /* And goes on behind the torn end. */
        mir_device_journal_close(&journal);
        open_journal();
        assert_int_equal(journal.damaged, 0);
        assert_int_equal(journal.count, 8);
        mir_device_journal_close(&journal);
    }
    mir_bytes_free(&file);
}

static void a_damaged_byte_costs_one_record(void **state)
{
    (void)state;
    open_journal();
    char id[8];
    for (int i = 0; i < 4; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
    }
    mir_bytes file = read_path();
    for (size_t at = 0; at < file.size; at++) {
        file.data[at] ^= 0x10;
        mir_device_journal read;
        mir_device_journal_init(&read);
        mir_status status = mir_device_journal_read(&read, mir_bytes_as_view(&file), NULL);
        if (at < 32) {
            assert_true(status == MIR_E_CORRUPT || status == MIR_E_UNSUPPORTED);
        } else {
            assert_int_equal(status, MIR_OK);
            assert_int_equal(read.count, 3);
            assert_true(read.damaged > 0);
        }
        mir_device_journal_close(&read);
        file.data[at] ^= 0x10;
    }
    mir_bytes_free(&file);
}

static uint64_t random_state = 88172645463325252u;

/* xorshift64: the same each time. */
static size_t pick(size_t below)
{
    random_state ^= random_state << 13;
    random_state ^= random_state >> 7;
    random_state ^= random_state << 17;
    return (size_t)(random_state % below);
}

/* Checksums that hold, so that what is behind them is read as well. */
static void repair(uint8_t *data, size_t size)
{
    uint64_t header = mir_hash_fixed(data, 24);
    memcpy(data + 24, &header, 8);
    uint64_t seed;
    memcpy(&seed, data + 16, 8);
    for (size_t at = 32; at + 16 <= size; at++) {
        uint32_t payload;
        memcpy(&payload, data + at + 4, 4);
        if (memcmp(data + at, "MCMD", 4) != 0 || payload > size - at - 16) continue;
        uint64_t sum = XXH3_64bits_withSeed(data + at + 16, payload, seed + payload);
        memcpy(data + at + 8, &sum, 8);
        at += 15;
    }
}

static void any_bytes_can_be_read_and_say_the_same_when_written(void **state)
{
    (void)state;
    char id[MIR_DEVICE_COMMAND_ID_BYTES_MAX + 1];
    for (int i = 0; i < 6; i++) {
        memset(id, 'a' + i, sizeof id - 1);
        id[i == 5 ? MIR_DEVICE_COMMAND_ID_BYTES_MAX : i + 1] = '\0';
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        if (i % 2 == 0) finish(id, "answer");
    }
    mir_bytes sound = {0};
    mir_device_journal_write(&journal, &sound);
    uint8_t *bytes = malloc(sound.size);
    assert_non_null(bytes);
    for (int round = 0; round < 20000; round++) {
        memcpy(bytes, sound.data, sound.size);
        for (size_t i = pick(4) + 1; i > 0; i--)
            bytes[pick(sound.size)] = pick(2) == 0 ? (uint8_t)pick(256) : (uint8_t)pick(4);
        if (pick(4) != 0) repair(bytes, sound.size);
        mir_device_journal read, again;
        mir_device_journal_init(&read);
        mir_device_journal_init(&again);
        size_t size = pick(4) == 0 ? pick(sound.size + 1) : sound.size;
        if (mir_device_journal_read(&read, mir_view_of(bytes, size), NULL) == MIR_OK) {
            mir_bytes written = {0}, twice = {0};
            mir_device_journal_write(&read, &written);
            assert_int_equal(written.size, read.live_size);
            assert_int_equal(mir_device_journal_read(&again, mir_bytes_as_view(&written), NULL),
                             MIR_OK);
            assert_int_equal(again.damaged, 0);
            assert_int_equal(again.count, read.count);
            mir_device_journal_write(&again, &twice);
            assert_true(mir_view_eq(mir_bytes_as_view(&written), mir_bytes_as_view(&twice)));
            mir_bytes_free(&written);
            mir_bytes_free(&twice);
        }
        mir_device_journal_close(&read);
        mir_device_journal_close(&again);
    }
    free(bytes);
    mir_bytes_free(&sound);
}

static void the_latest_ids_are_known_and_the_file_is_bounded(void **state)
{
    (void)state;
    syncing = false;
    open_journal();
    assert_int_equal(begin("long"), MIR_DEVICE_RUN); /* runs all the while */
    char id[16];
    uint64_t largest = 0;
    const int count = 4 * MIR_DEVICE_JOURNAL_IDS_MAX;
    for (int i = 0; i < count; i++) {
        (void)snprintf(id, sizeof id, "id-%d", i);
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        finish(id, "done");
        if (journal.file_size > largest) largest = journal.file_size;
    }
    assert_true(largest < 3 * journal.live_size);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(journal.count, MIR_DEVICE_JOURNAL_IDS_MAX);
        (void)snprintf(id, sizeof id, "id-%d", count - MIR_DEVICE_JOURNAL_IDS_MAX);
        assert_false(knows(&journal, id)); /* the one that runs has its place */
        (void)snprintf(id, sizeof id, "id-%d", count - MIR_DEVICE_JOURNAL_IDS_MAX + 1);
        assert_answered(id, "done");
        assert_int_equal(begin("long"), again == 0 ? MIR_DEVICE_RUNNING : MIR_DEVICE_UNKNOWN);
        mir_bytes image = {0};
        mir_device_journal_write(&journal, &image);
        assert_int_equal(image.size, journal.live_size);
        mir_bytes_free(&image);
        reopen();
    }
}

static void answers_together_are_bounded(void **state)
{
    (void)state;
    syncing = false;
    open_journal();
    size_t size = MIR_DEVICE_JOURNAL_ANSWER_BYTES_MAX;
    char *text = malloc(size + 2);
    assert_non_null(text);
    memset(text, 'x', size + 1);
    text[size] = '\0';
    char id[8];
    for (int i = 0; i < 40; i++) {
        (void)snprintf(id, sizeof id, "id%d", i);
        assert_int_equal(begin(id), MIR_DEVICE_RUN);
        finish(id, text);
        assert_true(journal.answer_bytes <= MIR_DEVICE_JOURNAL_ANSWERS_BYTES_MAX);
        assert_true(journal.file_size <= 3u * MIR_DEVICE_JOURNAL_ANSWERS_BYTES_MAX);
    }
    for (int again = 0; again < 2; again++) {
        assert_int_equal(begin("id0"), MIR_DEVICE_UNKNOWN); /* known to have run all the same */
        assert_answered("id39", text);
        reopen();
    }
    text[size] = 'x';
    text[size + 1] = '\0';
    assert_int_equal(begin("large"), MIR_DEVICE_RUN);
    mir_device_waiter *waiters;
    assert_int_equal(
        mir_device_journal_finish(&journal, "large", "a.B", mir_view_cstr(text), &waiters, &error),
        MIR_E_TOO_LARGE);
    assert_int_equal(begin("large"), MIR_DEVICE_UNKNOWN);
    free(text);
}

static void one_process_at_a_time(void **state)
{
    (void)state;
    open_journal();
    mir_device_journal second;
    mir_device_journal_init(&second);
    assert_int_equal(mir_device_journal_open(&second, dir, "pump", &error), MIR_E_EXISTS);
    assert_non_null(strstr(error.text, "is used by another process"));
    assert_int_equal(mir_device_journal_open(&second, dir, "other", &error), MIR_OK);
    mir_device_journal_close(&second);
}

static void folders_are_made_below_and_nowhere_else(void **state)
{
    (void)state;
    char below[64], folder[128];
    (void)snprintf(below, sizeof below, "%s/a//b/", dir);
    assert_int_equal(mir_device_journal_open(&journal, below, "x/%y", &error), MIR_OK);
    (void)snprintf(folder, sizeof folder, "%s/a/b/x%%2F%%25y/commands", dir);
    assert_int_equal(access(folder, R_OK), 0);
    struct stat about;
    (void)snprintf(folder, sizeof folder, "%s/a", dir);
    assert_int_equal(stat(folder, &about), 0);
    assert_int_equal(about.st_mode & 0777, 0700);
    mir_device_journal_close(&journal);
    char id[129];
    memset(id, '/', 128);
    id[128] = '\0';
    assert_int_equal(mir_device_journal_open(&journal, dir, id, &error), MIR_E_TOO_LARGE);
}

static void a_file_of_something_else_is_left_alone(void **state)
{
    (void)state;
    open_journal();
    mir_device_journal_close(&journal);
    write_path(mir_view_cstr("something that is no journal of commands"));
    assert_int_equal(mir_device_journal_open(&journal, dir, "pump", &error), MIR_E_CORRUPT);
    assert_non_null(strstr(error.text, "this is no journal of commands"));
    mir_bytes file = read_path();
    assert_int_equal(file.size, 40);
    mir_bytes_free(&file);
}

static void ids(void **state)
{
    (void)state;
    char id[66];
    memset(id, 'x', 65);
    id[65] = '\0';
    assert_int_equal(mir_device_journal_check_id(id), MIR_E_INVALID);
    assert_int_equal(mir_device_journal_check_id(id + 1), MIR_OK);
    assert_int_equal(mir_device_journal_check_id("0b5c-\xc3\xa9"), MIR_OK);
    assert_int_equal(mir_device_journal_check_id(""), MIR_E_INVALID);
    assert_int_equal(mir_device_journal_check_id("a b"), MIR_E_INVALID);
    assert_int_equal(mir_device_journal_check_id("a\n"), MIR_E_INVALID);
}

#define TEST(name) cmocka_unit_test_setup_teardown(name, set_up, tear_down)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(an_id_runs_once_and_is_answered_again),
        TEST(who_asks_while_it_runs_gets_the_same_answer),
        TEST(those_who_wait_are_bounded),
        TEST(what_was_begun_is_on_the_disk_before_it_runs),
        TEST(what_was_begun_and_not_answered_is_unknown_afterwards),
        TEST(what_cannot_be_recorded_does_not_run),
        TEST(a_first_command_that_cannot_be_recorded_leaves_no_trace),
        TEST(an_answer_that_cannot_be_recorded_is_still_given),
        TEST(a_file_cut_anywhere_knows_all_that_is_whole),
        TEST(a_damaged_byte_costs_one_record),
        TEST(any_bytes_can_be_read_and_say_the_same_when_written),
        TEST(the_latest_ids_are_known_and_the_file_is_bounded),
        TEST(answers_together_are_bounded),
        TEST(one_process_at_a_time),
        TEST(folders_are_made_below_and_nowhere_else),
        TEST(a_file_of_something_else_is_left_alone),
        TEST(ids),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
