/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of mir_storage share: a small data directory whose rows are known, and files that
 * are changed. Included by the test programs alone. */
#ifndef MIR_STORAGE_TESTING_H
#define MIR_STORAGE_TESTING_H

#include <dirent.h>
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "mir_state.h"
#include "mir_storage.h"
#include "mir_storage_internal.h"
#include "mir_tlog.h"
#include "mir_tlog_sim.h"

enum { DATA_DEVICES = 3, DATA_MEASUREMENTS = 2 };

static const mir_view data_devices[DATA_DEVICES] = {
    MIR_VIEW_LITERAL("boiler"), MIR_VIEW_LITERAL("cooler"), MIR_VIEW_LITERAL("dryer")};
static const mir_view data_measurements[DATA_MEASUREMENTS] = {MIR_VIEW_LITERAL("m.v1.A"),
                                                              MIR_VIEW_LITERAL("m.v1.B")};

/* A disk that cannot read some of one file. */
static struct {
    dev_t device;
    _Atomic ino_t file; /* 0: it can read all; the others are set before it */
    off_t from;
    off_t end;
    uint32_t spared; /* so many reads of it go well */
} bad_disk;

static inline void bad_begin(const char *path, off_t from, off_t end, uint32_t spared)
{
    struct stat about;
    assert_int_equal(stat(path, &about), 0);
    bad_disk.device = about.st_dev;
    bad_disk.from = from;
    bad_disk.end = end;
    bad_disk.spared = spared;
    bad_disk.file = about.st_ino;
}

static inline void bad_end(void)
{
    bad_disk.file = 0;
}

/* How much of it can be read from there on; 0: nothing. */
static inline size_t bad_size(int fd, size_t size, off_t offset)
{
    struct stat about;
    if (bad_disk.file == 0 || offset >= bad_disk.end || offset + (off_t)size <= bad_disk.from ||
        fstat(fd, &about) != 0 || about.st_ino != bad_disk.file || about.st_dev != bad_disk.device)
        return size;
    if (bad_disk.spared > 0) {
        bad_disk.spared--;
        return size;
    }
    return offset >= bad_disk.from ? 0
                                   : (size_t)(bad_disk.from - offset); /* what comes before it */
}

/* Of a pipe there is no place. */
static inline size_t bad_size_here(int fd, size_t size)
{
    const off_t offset = bad_disk.file == 0 ? -1 : lseek(fd, 0, SEEK_CUR);
    return offset < 0 ? size : bad_size(fd, size, offset);
}

ssize_t pread(int fd, void *data, size_t size, off_t offset)
{
    const size_t some = bad_size(fd, size, offset);
    if (some > 0 || size == 0) return syscall(SYS_pread64, fd, data, some, offset);
    errno = EIO;
    return -1;
}

ssize_t read(int fd, void *data, size_t size)
{
    const size_t some = bad_size_here(fd, size);
    if (some > 0 || size == 0) return syscall(SYS_read, fd, data, some);
    errno = EIO;
    return -1;
}

typedef struct data_folder {
    char root[64];
    char data[96];
    char other[96]; /* not there at first */
} data_folder;

static inline mir_tlog *data_open(const char *telemetry)
{
    const mir_tlog_options options = {
        .directory = telemetry, .writer_count = 1, .log_bytes_max = MIR_TLOG_LOG_BYTES_MIN};
    mir_tlog *tlog = NULL;
    mir_error error = {{0}};
    if (mir_tlog_open(&options, &tlog, &error) != MIR_OK) fail_msg("open: %s", error.text);
    return tlog;
}

/* Rows `first` to `end` - 1: one each second, of the devices and measurements by turns. */
static inline void data_put(mir_tlog *tlog, uint32_t first, uint32_t end)
{
    static const mir_column columns[] = {{"n", 1, MIR_COLUMN_I64}, {"s", 1, MIR_COLUMN_STRING}};
    mir_row row;
    assert_int_equal(mir_row_init(&row, 2, 2, 64), MIR_OK);
    mir_tlog_writer *writer = mir_tlog_writer_of(tlog, 0);
    for (uint32_t n = first; n < end; n++) {
        mir_tlog_series *series;
        row.time_ns = INT64_C(1790000000000000000) + (int64_t)n * 1000000000;
        row.column_count = 2;
        row.present[0] = 3;
        row.cells[0].i64 = n;
        row.cells[1].string = MIR_VIEW_LITERAL("some text");
        assert_int_equal(
            mir_tlog_series_open(writer, data_devices[n % DATA_DEVICES],
                                 data_measurements[n / DATA_DEVICES % DATA_MEASUREMENTS], columns,
                                 2, &series),
            MIR_OK);
        assert_int_equal(mir_tlog_append(writer, series, &row), MIR_OK);
        /* Some frames, not one. */
        if (n % 16 == 15) assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    }
    assert_int_equal(mir_tlog_commit_turn(writer, NULL), MIR_OK);
    mir_row_fini(&row);
}

static inline void data_seal(mir_tlog *tlog)
{
    mir_error error = {{0}};
    while (mir_tlog_freeze(mir_tlog_writer_of(tlog, 0)) != MIR_OK) sim_pause_us(200);
    if (mir_tlog_settle(tlog, 60000, &error) != MIR_OK) fail_msg("%s", error.text);
}

/* A state store; `sealed` rows in a segment, and `logged` ones behind them in a log. */
static inline data_folder *data_new(uint32_t sealed, uint32_t logged)
{
    data_folder *f = calloc(1, sizeof *f);
    assert_non_null(f);
    (void)snprintf(f->root, sizeof f->root, "/tmp/mir-storage-XXXXXX");
    bad_end(); /* of a test that failed */
    assert_non_null(mkdtemp(f->root));
    (void)snprintf(f->data, sizeof f->data, "%s/data", f->root);
    (void)snprintf(f->other, sizeof f->other, "%s/other", f->root);
    assert_int_equal(mkdir(f->data, 0700), 0);
    char path[160];
    (void)snprintf(path, sizeof path, "%s/state", f->data);
    const mir_state_options options = {.path = path, .map_bytes = 16 << 20};
    mir_error error = {{0}};
    mir_state *state = NULL;
    if (mir_state_open(&options, &state, &error) != MIR_OK) fail_msg("%s", error.text);
    mir_state_close(state);
    (void)snprintf(path, sizeof path, "%s/telemetry", f->data);
    mir_tlog *tlog = data_open(path);
    if (sealed > 0) {
        data_put(tlog, 0, sealed);
        data_seal(tlog);
    }
    if (logged > 0) data_put(tlog, sealed, sealed + logged);
    mir_tlog_close(tlog);
    return f;
}

static inline void data_remove(const char *path)
{
    DIR *directory = opendir(path);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;) {
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0) continue;
        char inner[512];
        (void)snprintf(inner, sizeof inner, "%s/%s", path, entry->d_name);
        if (unlink(inner) != 0) data_remove(inner);
    }
    if (directory != NULL) (void)closedir(directory);
    (void)rmdir(path);
}

static inline void data_free(data_folder *f)
{
    data_remove(f->root);
    free(f);
}

/* The path of the n-th file of the telemetry log whose name ends so, in the order of names; false:
 * there are fewer. With something in it, of logs. */
static inline bool data_file(const data_folder *f, const char *suffix, uint32_t nth, char path[160])
{
    char telemetry[128];
    struct dirent **names;
    (void)snprintf(telemetry, sizeof telemetry, "%s/telemetry", f->data);
    const int count = scandir(telemetry, &names, NULL, alphasort);
    bool found = false;
    for (int i = 0; i < count; i++) {
        const size_t size = strlen(names[i]->d_name), end = strlen(suffix);
        char one[160];
        uint8_t magic[4] = {0};
        (void)snprintf(one, sizeof one, "%s/%.20s", telemetry, names[i]->d_name);
        bool fits = size >= end && strcmp(names[i]->d_name + size - end, suffix) == 0;
        if (fits && strcmp(suffix, ".log") == 0) {
            FILE *file = fopen(one, "rb");
            assert_non_null(file);
            fits = fseek(file, MIR_TLOG_LOG_HEADER_BYTES, SEEK_SET) == 0 &&
                   fread(magic, 1, 4, file) == 4 && memcmp(magic, "MFRM", 4) == 0;
            assert_int_equal(fclose(file), 0);
        }
        if (fits && nth-- == 0) {
            memcpy(path, one, sizeof one);
            found = true;
        }
        free(names[i]);
    }
    if (count >= 0) free(names);
    return found;
}

static inline void data_flip(const char *path, uint64_t at)
{
    FILE *file = fopen(path, "r+b");
    assert_non_null(file);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    const int byte = fgetc(file);
    assert_int_not_equal(byte, EOF);
    assert_int_equal(fseek(file, (long)at, SEEK_SET), 0);
    assert_int_not_equal(fputc(byte ^ 0x10, file), EOF);
    assert_int_equal(fclose(file), 0);
}

/* Where the first index of a segment begins; before it there are MIR_TLOG_SPARE_GAP_BYTES zeros. */
static inline uint64_t data_index_of(const char *segment, uint8_t trailer[64])
{
    FILE *file = fopen(segment, "rb");
    assert_non_null(file);
    assert_int_equal(fseek(file, -MIR_TLOG_SEGMENT_TRAILER_BYTES, SEEK_END), 0);
    assert_int_equal(fread(trailer, 1, MIR_TLOG_SEGMENT_TRAILER_BYTES, file),
                     MIR_TLOG_SEGMENT_TRAILER_BYTES);
    assert_int_equal(fclose(file), 0);
    return mir_tlog_get_u64(trailer);
}

/* One of these zeros is as good as the next. */
static inline uint64_t data_step(uint64_t at, uint64_t index, uint64_t step)
{
    enum { ZEROS = 500 };
    const bool zeros = at + MIR_TLOG_SPARE_GAP_BYTES > index + 8 && at + ZEROS + 8 < index;
    return zeros ? ZEROS : step;
}

/* How often a file was called damaged, and others were. */
typedef struct data_damage {
    const char *file;
    uint32_t there;
    uint32_t elsewhere;
    uint64_t rows;
    char text[256]; /* of the last one */
} data_damage;

static inline void data_damage_count(void *context, const mir_storage_damage *damage)
{
    data_damage *count = context;
    if (count->file != NULL && strcmp(damage->file, count->file) == 0)
        count->there++;
    else
        count->elsewhere++;
    count->rows += damage->rows;
    (void)snprintf(count->text, sizeof count->text, "%s: %s", damage->file, damage->text);
}

static inline data_damage data_verify(const char *data, const char *file)
{
    data_damage count = {.file = file};
    const mir_storage_watch watch = {&count, NULL, data_damage_count, NULL};
    mir_storage_checked checked;
    mir_error error = {{0}};
    if (mir_storage_verify(data, false, &watch, &checked, &error) != MIR_OK)
        fail_msg("verify: %s", error.text);
    assert_int_equal(checked.damage, count.there + count.elsewhere);
    return count;
}

#endif
