/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_hash.h"
#include "mir_tlog_code.h"
#include "mir_tlog_position.h"
#include "mir_tlog_sim.h"
#include "mir_tlog_spool.h"

/* A log with two writers in a folder of its own, and a reader that is away at times. Each device
 * counts: what its rows say tells whether one is missing or comes too early. */

enum { WRITERS = 2, DEVICES = 5, PAYLOAD = 40 };

/* The disk of the spool, of which calls fail. */
typedef struct faults {
    mir_tlog_files files;
    _Atomic uint64_t calls;
    uint64_t fail_at;    /* counted from 1; 0: none */
    uint64_t fail_count; /* so many from there on */
    _Atomic uint64_t failed;
    int code;
} faults;

static bool fails(void *context)
{
    faults *f = context;
    const uint64_t call = atomic_fetch_add(&f->calls, 1) + 1;
    if (f->fail_at == 0 || call < f->fail_at || call - f->fail_at >= f->fail_count) return false;
    (void)atomic_fetch_add(&f->failed, 1);
    return true;
}

#define POSIX mir_tlog_files_posix
#define FAULTY(type, name, arguments, ...)                                                         \
    static type faulty_##name arguments                                                            \
    {                                                                                              \
        if (fails(context)) return -((faults *)context)->code;                                     \
        return POSIX.name(POSIX.context, __VA_ARGS__);                                             \
    }
FAULTY(int, make_directory, (void *context, const char *path), path)
FAULTY(int, create, (void *context, const char *path, int *handle), path, handle)
FAULTY(int, open, (void *context, const char *path, int *handle), path, handle)
FAULTY(int64_t, pread, (void *context, int handle, void *data, size_t size, uint64_t offset),
       handle, data, size, offset)
FAULTY(int64_t, pwrite, (void *context, int handle, const void *data, size_t size, uint64_t offset),
       handle, data, size, offset)
FAULTY(int, size, (void *context, int handle, uint64_t *size), handle, size)
FAULTY(int, sync, (void *context, int handle), handle)
FAULTY(int, sync_directory, (void *context, const char *path), path)
FAULTY(int, rename, (void *context, const char *from, const char *to), from, to)
FAULTY(int, unlink, (void *context, const char *path), path)
FAULTY(int, link, (void *context, const char *from, const char *to), from, to)
FAULTY(int, list,
       (void *context, const char *path, int (*each)(void *each_context, const char *name),
        void *each_context),
       path, each, each_context)

static void faults_begin(faults *f, uint64_t fail_at, uint64_t fail_count, int code)
{
    *f = (faults){.fail_at = fail_at, .fail_count = fail_count, .code = code, .files = POSIX};
    f->files.context = f;
    f->files.make_directory = faulty_make_directory;
    f->files.create = faulty_create;
    f->files.open = faulty_open;
    f->files.pread = faulty_pread;
    f->files.pwrite = faulty_pwrite;
    f->files.size = faulty_size;
    f->files.sync = faulty_sync;
    f->files.sync_directory = faulty_sync_directory;
    f->files.rename = faulty_rename;
    f->files.unlink = faulty_unlink;
    f->files.link = faulty_link;
    f->files.list = faulty_list;
}

/* Whose opening failed has nothing to close. */
static int close_opened(void *context, int handle)
{
    const faults *f = context;
    assert_int_equal(f->failed, 0);
    return POSIX.close(POSIX.context, handle);
}

typedef struct world {
    faults *faults; /* null: none */
    char directory[128];
    char logs[160];
    char pins[160];
    mir_tlog *tlog;
    mir_tlog_spool *spool;
    mir_row row;
    int64_t written[DEVICES];
    int64_t next[DEVICES];     /* that the reader waits for */
    int64_t accepted[DEVICES]; /* may be given again from here on */
    int64_t doubted[DEVICES];  /* but if it could not be noted for sure, perhaps from here on */
    uint64_t given;
    uint64_t room; /* rows that the reader takes before it says no */
    bool gaps;     /* rows may be missing */
} world;

static const mir_column columns[] = {{"n", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};

static void open_all(world *w, bool spooled)
{
    mir_error error = {{0}};
    const mir_tlog_files *files = w->faults == NULL ? NULL : &w->faults->files;
    mir_tlog_options options = {
        .directory = w->logs, .writer_count = WRITERS, .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN};
    if (spooled) {
        mir_status status = mir_tlog_spool_open(w->pins, files, &w->spool, &error);
        /* Whoever starts the server tries again. */
        for (int i = 0; w->faults != NULL && status != MIR_OK && i < 100; i++) {
            w->faults->fail_count = w->faults->calls < w->faults->fail_at
                                        ? w->faults->fail_count
                                        : w->faults->calls - w->faults->fail_at + 1;
            status = mir_tlog_spool_open(w->pins, files, &w->spool, &error);
        }
        if (status != MIR_OK) fail_msg("%s", error.text);
        mir_tlog_spool_options(w->spool, &options);
    }
    if (mir_tlog_open(&options, &w->tlog, &error) != MIR_OK) fail_msg("%s", error.text);
    if (spooled) mir_tlog_spool_attach(w->spool, w->tlog);
}

static void close_all(world *w)
{
    mir_tlog_close(w->tlog);
    mir_tlog_spool_close(w->spool);
    w->tlog = NULL;
    w->spool = NULL;
}

static int world_setup(void **state)
{
    world *w = calloc(1, sizeof *w);
    if (w == NULL || mir_row_init(&w->row, 4, 4, 64) != MIR_OK) return -1;
    (void)snprintf(w->directory, sizeof w->directory, "/tmp/mir_spool_XXXXXX");
    if (mkdtemp(w->directory) == NULL) return -1;
    (void)snprintf(w->logs, sizeof w->logs, "%s/telemetry", w->directory);
    (void)snprintf(w->pins, sizeof w->pins, "%s/sink", w->directory);
    *state = w;
    return 0;
}

static int world_teardown(void **state)
{
    world *w = *state;
    close_all(w);
    mir_row_fini(&w->row);
    char command[160];
    (void)snprintf(command, sizeof command, "rm -rf '%s'", w->directory);
    const int result = system(command);
    free(w);
    return result;
}

static void write_rows(world *w, int device, int count)
{
    mir_tlog_writer *writer = mir_tlog_writer_of(w->tlog, (uint32_t)(device % WRITERS));
    char id[8];
    (void)snprintf(id, sizeof id, "d%d", device);
    char text[PAYLOAD];
    memset(text, 'x', sizeof text);
    for (int i = 0; i < count;) {
        mir_tlog_series *series;
        assert_int_equal(mir_tlog_series_open(writer, mir_view_cstr(id), mir_view_cstr("m.v1.T"),
                                              columns, 2, &series),
                         MIR_OK);
        const int64_t n = w->written[device];
        mir_row *row = &w->row;
        row->column_count = 2;
        row->time_ns = 1000 + n;
        row->present[0] = n % 3 == 0 ? 1 : 3;
        row->cells[0].i64 = n;
        row->cells[1].string = mir_view_of(text, sizeof text);
        row->dynamic_count = n % 5 == 0 ? 1 : 0;
        row->dynamic[0] = (mir_dynamic_cell){
            .name = MIR_VIEW_LITERAL("extra"), .type = MIR_COLUMN_I64, .value.i64 = n * 2};
        if (mir_tlog_append(writer, series, row) == MIR_OK) {
            w->written[device]++;
            i++;
        } else {
            sim_pause_us(500); /* sealing is behind */
        }
        if (i % 7 == 0) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
}

/* There may be no spare log yet. */
static void freeze_all(world *w)
{
    for (uint32_t i = 0; i < WRITERS; i++) {
        while (mir_tlog_freeze(mir_tlog_writer_of(w->tlog, i)) != MIR_OK) sim_pause_us(200);
    }
}

static mir_status take(void *context, const mir_tlog_log_row *row)
{
    world *w = context;
    if (w->room == 0) return MIR_E_FULL;
    w->room--;
    w->given++;
    const mir_tlog_mem_series *series = row->series;
    assert_int_equal(series->device.size, 2);
    const int device = series->device.data[1] - '0';
    assert_true(mir_view_eq_cstr(series->shape->measurement, "m.v1.T"));
    const int64_t n = row->time_ns - 1000;
    if (n > w->next[device] && n <= w->doubted[device]) w->next[device] = n;
    if (w->gaps ? n < w->next[device] : n != w->next[device]) {
        fail_msg("device %d: row %lld comes when %lld should", device, (long long)n,
                 (long long)w->next[device]);
    }
    w->next[device] = n + 1;
    assert_int_equal(row->cell_count, 1 + (n % 3 != 0) + (n % 5 == 0));
    assert_int_equal((int64_t)row->cells[0].value.bits, n);
    if (n % 5 == 0) {
        const mir_tlog_cell *last = &row->cells[row->cell_count - 1];
        const mir_column *column =
            &series->extra_table[last->column - series->shape->column_count]->column;
        assert_memory_equal(column->name, "extra", 5);
        assert_int_equal((int64_t)last->value.bits, n * 2);
    }
    return MIR_OK;
}

static mir_status read_some(world *w, uint64_t room)
{
    mir_error error = {{0}};
    w->room = room;
    const mir_status status = mir_tlog_spool_read(w->spool, take, w, &error);
    if (w->faults != NULL) return status; /* it is called again later */
    if (status != MIR_OK && status != MIR_E_FULL) fail_msg("%s", error.text);
    return status;
}

static void accept_all(world *w)
{
    mir_error error = {{0}};
    if (mir_tlog_spool_accept(w->spool, &error) != MIR_OK) {
        if (w->faults == NULL) fail_msg("%s", error.text);
        memcpy(w->doubted, w->next, sizeof w->doubted);
        return; /* a crash may bring it back */
    }
    memcpy(w->accepted, w->next, sizeof w->accepted);
}

static void read_to_the_end(world *w)
{
    /* The round that is under way may have begun before the last rows came. */
    for (int rounds = 0; rounds < 2;) {
        if (read_some(w, 5000) == MIR_OK) rounds++;
        accept_all(w);
    }
}

static void all_were_given(const world *w)
{
    for (int d = 0; d < DEVICES; d++) assert_int_equal(w->next[d], w->written[d]);
}

static mir_tlog_spool_stats stats_of(world *w)
{
    mir_tlog_spool_stats stats;
    mir_tlog_spool_stats_read(w->spool, &stats);
    return stats;
}

static void rows_come_once_and_in_order_while_logs_are_sealed(void **state)
{
    world *w = *state;
    open_all(w, true);
    uint64_t random = 7;
    for (int round = 0; round < 40; round++) {
        write_rows(w, (int)(sim_random(&random) % DEVICES), (int)(sim_random(&random) % 1000));
        (void)read_some(w, sim_random(&random) % 1000);
        accept_all(w);
    }
    read_to_the_end(w);
    all_were_given(w);
    assert_true(w->given > 10000);
    assert_int_equal(stats_of(w).rows_read, w->given);
    /* Logs that are in segments are let go of: what is left are those that may grow. */
    freeze_all(w);
    mir_error error;
    assert_int_equal(mir_tlog_settle(w->tlog, 60000, &error), MIR_OK);
    read_to_the_end(w);
    (void)read_some(w, 1);
    assert_true(stats_of(w).logs <= (uint64_t)2 * WRITERS);
    assert_int_equal(stats_of(w).damaged + stats_of(w).logs_lost + stats_of(w).rows_lost, 0);
    assert_true(stats_of(w).through_ns > 0);
}

static void what_was_not_accepted_comes_again_after_a_crash(void **state)
{
    world *w = *state;
    uint64_t random = 11;
    uint64_t again = 0;
    for (int run = 0; run < 6; run++) {
        open_all(w, true);
        for (int round = 0; round < 6; round++) {
            write_rows(w, (int)(sim_random(&random) % DEVICES), (int)(sim_random(&random) % 300));
            (void)read_some(w, sim_random(&random) % 300);
            if (round < 5) accept_all(w);
        }
        uint64_t lost = 0;
        for (int d = 0; d < DEVICES; d++) lost += (uint64_t)(w->next[d] - w->accepted[d]);
        again += lost;
        memcpy(w->next, w->accepted, sizeof w->next);
        close_all(w);
    }
    assert_true(again > 0);
    open_all(w, true);
    uint64_t waiting = 0;
    for (int d = 0; d < DEVICES; d++) waiting += (uint64_t)(w->written[d] - w->next[d]);
    assert_int_equal(mir_tlog_spool_count(w->spool, NULL), waiting);
    read_to_the_end(w);
    all_were_given(w);
}

static void what_waits_is_counted_with_few_reads(void **state)
{
    world *w = *state;
    faults f;
    faults_begin(&f, 0, 0, 0);
    w->faults = &f;
    open_all(w, true);
    for (int d = 0; d < DEVICES; d++) write_rows(w, d, 2000); /* frames of seven rows */
    close_all(w);
    open_all(w, true);
    const uint64_t before = f.calls;
    assert_int_equal(mir_tlog_spool_count(w->spool, NULL), DEVICES * 2000);
    const uint64_t calls = f.calls - before;
    assert_true(calls > 0);
    assert_true(calls < DEVICES * 2000 / 7 / 4);
    /* A stop does not wait for it. */
    const atomic_bool stop = true;
    const uint64_t then = f.calls;
    assert_int_equal(mir_tlog_spool_count(w->spool, &stop), 0);
    assert_int_equal(f.calls, then);
    close_all(w);
    w->faults = NULL;
}

static void only_what_comes_from_then_on_is_in_it(void **state)
{
    world *w = *state;
    open_all(w, false);
    write_rows(w, 0, 5000);
    close_all(w);
    open_all(w, true);
    w->next[0] = w->written[0];
    write_rows(w, 0, 3);
    write_rows(w, 1, 3);
    read_to_the_end(w);
    all_were_given(w);
    assert_int_equal(w->given, 6);
    /* Off: nothing is left, and nothing of it comes later. */
    write_rows(w, 0, 10);
    close_all(w);
    mir_error error;
    assert_int_equal(mir_tlog_spool_remove(w->pins, NULL, &error), MIR_OK);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/POSITION", w->pins);
    assert_int_not_equal(access(path, F_OK), 0);
    open_all(w, true);
    w->next[0] = w->written[0];
    write_rows(w, 0, 2);
    read_to_the_end(w);
    all_were_given(w);
}

/* Writes, ends the process as it were, and gives the path of the first pin that has rows. */
static void write_and_find(world *w, char *path, size_t size)
{
    open_all(w, true);
    write_rows(w, 0, 300);
    close_all(w);
    (void)snprintf(path, size, "%s/%016x.log", w->pins, 1);
    assert_int_equal(access(path, F_OK), 0);
}

static void flip(const char *path, long at)
{
    FILE *file = fopen(path, "r+e");
    assert_non_null(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_equal(fseek(file, at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 0x5a, file), EOF);
    assert_int_equal(fclose(file), 0);
}

static void what_waits_outlives_the_log(void **state)
{
    world *w = *state;
    open_all(w, true);
    write_rows(w, 0, 300);
    (void)read_some(w, 100);
    accept_all(w);
    close_all(w);
    char command[200];
    (void)snprintf(command, sizeof command, "rm -r '%s'", w->logs);
    assert_int_equal(system(command), 0);
    open_all(w, true);
    write_rows(w, 0, 50);
    read_to_the_end(w);
    all_were_given(w);
    assert_int_equal(w->given, 350);
}

/* The position is of logs of another life; those of this one must not be taken for them. */
static void numbers_of_the_position_are_not_given_again(void **state)
{
    world *w = *state;
    open_all(w, true);
    write_rows(w, 0, 300);
    read_to_the_end(w);
    accept_all(w);
    close_all(w);
    char command[400];
    (void)snprintf(command, sizeof command, "rm -r '%s'; rm -f '%s'/*.log", w->logs, w->pins);
    assert_int_equal(system(command), 0);
    open_all(w, true);
    write_rows(w, 0, 300);
    close_all(w); /* the other side was away all the time */
    open_all(w, true);
    read_to_the_end(w);
    all_were_given(w);
    assert_int_equal(w->given, 600);
}

/* Its handle is none then, and nobody else's. */
static void a_spool_that_cannot_be_opened_is_not_removed(void **state)
{
    world *w = *state;
    open_all(w, true);
    write_rows(w, 0, 10);
    close_all(w);
    faults f;
    mir_error error = {{0}};
    faults_begin(&f, 1, 1, EACCES);
    f.files.close = close_opened;
    assert_int_equal(mir_tlog_spool_remove(w->pins, &f.files, &error), MIR_E_PERMISSION);
    assert_int_equal(mir_tlog_spool_remove(w->pins, NULL, &error), MIR_OK);
}

static void damage_costs_what_it_hit(void **state)
{
    world *w = *state;
    char path[200];
    write_and_find(w, path, sizeof path);
    flip(path, 4000);
    w->gaps = true;
    open_all(w, true);
    read_to_the_end(w);
    assert_int_equal(w->next[0], 300);
    assert_int_equal(w->given, 300 - 7);
    assert_int_equal(stats_of(w).damaged, 1);
}

static void a_damaged_position_gives_all_again(void **state)
{
    world *w = *state;
    open_all(w, true);
    write_rows(w, 0, 100);
    (void)read_some(w, 60);
    accept_all(w);
    close_all(w);
    char path[200];
    (void)snprintf(path, sizeof path, "%s/POSITION", w->pins);
    flip(path, 30);
    w->next[0] = 0;
    open_all(w, true);
    read_to_the_end(w);
    all_were_given(w);
    assert_int_equal(w->given, 160);
    close_all(w);
    /* A newer version's is not touched. */
    mir_error error = {{0}};
    assert_int_equal(truncate(path, 0), 0);
    uint8_t newer[24] = {'M', 'I', 'R', 'T', 'P', 'O', 'S', 0, 2};
    (void)mir_tlog_put_u64(newer + 16, XXH3_64bits_withSeed(newer + 24, 0, 2));
    FILE *file = fopen(path, "we");
    assert_non_null(file);
    assert_int_equal(fwrite(newer, sizeof newer, 1, file), 1);
    assert_int_equal(fclose(file), 0);
    assert_int_equal(mir_tlog_spool_open(w->pins, NULL, &w->spool, &error), MIR_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "version 2"));
    assert_null(w->spool);
}

static void the_oldest_go_when_there_are_too_many(void **state)
{
    world *w = *state;
    open_all(w, true);
    for (int d = 0; d < DEVICES; d++) write_rows(w, d, 4000);
    mir_error error;
    freeze_all(w);
    assert_int_equal(mir_tlog_settle(w->tlog, 60000, &error), MIR_OK);
    (void)read_some(w, 10); /* in the middle of a log that goes */
    const uint64_t dropped = mir_tlog_spool_trim(w->spool, 512 * 1024);
    assert_true(dropped > 1000);
    assert_true(stats_of(w).bytes <= 512 * 1024);
    w->gaps = true;
    read_to_the_end(w);
    uint64_t all = 0;
    for (int d = 0; d < DEVICES; d++) all += (uint64_t)w->written[d];
    assert_int_equal(w->given + dropped, all);
    assert_int_equal(mir_tlog_spool_trim(w->spool, 0), 0);
    /* What may grow stays. */
    write_rows(w, 0, 3);
    assert_int_equal(mir_tlog_spool_trim(w->spool, 0), 0);
    w->given = 0;
    read_to_the_end(w);
    assert_int_equal(w->given, 3);
}

/* Two runs of a server whose spool has a disk that fails from call `at` on, `count` times; then one
 * without faults. Returns how many calls were made. */
static uint64_t live(world *w, uint64_t at, uint64_t count, int code)
{
    faults f;
    faults_begin(&f, at, count, code);
    w->faults = &f;
    uint64_t random = 3, calls = 0, lost = 0;
    for (int run = 0; run < 3; run++) {
        if (run == 2) f.fail_at = 0;
        open_all(w, true);
        for (int round = 0; round < 3; round++) {
            write_rows(w, (int)(sim_random(&random) % DEVICES), 400);
            (void)read_some(w, sim_random(&random) % 500);
            accept_all(w);
            if (round == 1) {
                freeze_all(w);
                mir_error error;
                assert_int_equal(mir_tlog_settle(w->tlog, 60000, &error), MIR_OK);
            }
        }
        if (run < 2) calls = f.calls;
        if (run < 2) {
            /* Its threads make logs until then. */
            mir_tlog_close(w->tlog);
            w->tlog = NULL;
            lost += stats_of(w).logs_lost;
            memcpy(w->next, w->accepted, sizeof w->next);
            /* What was said to be lost is, and nothing else. */
            if (lost > 0) w->gaps = true;
            close_all(w);
        }
    }
    lost += stats_of(w).logs_lost;
    if (lost > 0) w->gaps = true;
    read_to_the_end(w);
    for (int d = 0; d < DEVICES && lost == 0; d++) {
        if (w->next[d] == w->written[d] || w->doubted[d] == w->written[d]) continue;
        fail_msg("call %llu failing %llu times: device %d: %lld of %lld rows came",
                 (unsigned long long)at, (unsigned long long)count, d, (long long)w->next[d],
                 (long long)w->written[d]);
    }
    if (at != 0 && at < calls) assert_true(f.failed > 0);
    if (at == 0) assert_int_equal(lost, 0);
    close_all(w);
    w->faults = NULL;
    return calls;
}

static void a_disk_that_fails_loses_nothing_in_silence(void **state)
{
    (void)state;
    const char *asked = getenv("MIR_TEST_FAULTS");
    const bool all = asked != NULL && strcmp(asked, "all") == 0;
    uint64_t made = 0;
    for (uint64_t at = 0; at <= made; at += at < 20 || all ? 1 : made / 24 + 1) {
        void *world_of = NULL;
        if (world_setup(&world_of) != 0 || world_of == NULL) {
            fail_msg("no folder");
            return;
        }
        const uint64_t counts[3] = {1, 4, UINT64_MAX};
        const int codes[3] = {EIO, ENOSPC, EMFILE};
        const uint64_t calls = live(world_of, at, counts[at % 3], codes[at / 3 % 3]);
        if (at == 0) made = calls;
        assert_int_equal(world_teardown(&world_of), 0);
    }
    assert_true(made > 50);
}

static void a_position_is_read_as_it_was_written(void **state)
{
    world *w = *state;
    mir_error error;
    mir_tlog_position_log logs[] = {{1, 128, 0}, {UINT64_MAX, UINT64_MAX, UINT32_MAX}};
    mir_tlog_position written = {.through_ns = INT64_MIN, .logs = logs, .log_count = 2};
    assert_int_equal(mir_tlog_position_write(&mir_tlog_files_posix, w->directory, &written, &error),
                     MIR_OK);
    mir_tlog_position read = {0};
    assert_int_equal(mir_tlog_position_read(&mir_tlog_files_posix, w->directory, &read, &error),
                     MIR_OK);
    assert_int_equal(read.through_ns, INT64_MIN);
    assert_int_equal(read.log_count, 2);
    for (int i = 0; i < 2; i++) {
        assert_int_equal(read.logs[i].generation, logs[i].generation);
        assert_int_equal(read.logs[i].offset, logs[i].offset);
        assert_int_equal(read.logs[i].rows, logs[i].rows);
    }
    mir_tlog_position_fini(&read);
    /* No byte of it may be another one. */
    char path[200];
    (void)snprintf(path, sizeof path, "%s/POSITION", w->directory);
    for (long at = 0; at < 24 + 30; at++) {
        flip(path, at);
        assert_int_equal(mir_tlog_position_read(&mir_tlog_files_posix, w->directory, &read, &error),
                         MIR_E_CORRUPT);
        flip(path, at);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(rows_come_once_and_in_order_while_logs_are_sealed,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(what_was_not_accepted_comes_again_after_a_crash,
                                        world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(what_waits_is_counted_with_few_reads, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(only_what_comes_from_then_on_is_in_it, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(what_waits_outlives_the_log, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(numbers_of_the_position_are_not_given_again, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(a_spool_that_cannot_be_opened_is_not_removed, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(damage_costs_what_it_hit, world_setup, world_teardown),
        cmocka_unit_test_setup_teardown(a_damaged_position_gives_all_again, world_setup,
                                        world_teardown),
        cmocka_unit_test_setup_teardown(the_oldest_go_when_there_are_too_many, world_setup,
                                        world_teardown),
        cmocka_unit_test(a_disk_that_fails_loses_nothing_in_silence),
        cmocka_unit_test_setup_teardown(a_position_is_read_as_it_was_written, world_setup,
                                        world_teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
