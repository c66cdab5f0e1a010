/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "mir_event_store.h"
#include "mir_hash.h"
#include "mir_state_db.h"
#include "mir_state_internal.h"
#include "mir_tlog_rollup.h"

/* What all parts need: the list of files, and the child that reads LMDB. */

enum { PUMP_BYTES = 256 * 1024, HANDLES_SPARE = 64 };

const char *mir_storage_kind_name(mir_storage_kind kind)
{
    static const char *const names[] = {"manifest", "segment", "index",  "chunk",
                                        "log",      "state",   "events", "backup"};
    return (size_t)kind < sizeof names / sizeof names[0] ? names[kind] : "unknown";
}

mir_status mir_storage_path(char *path, const char *directory, const char *name, mir_error *error)
{
    const int size = snprintf(path, MIR_STORAGE_PATH_BYTES_MAX, "%s/%s", directory, name);
    if (size < 0 || size >= MIR_STORAGE_PATH_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "the path %.200s… is too long", directory);
    return MIR_OK;
}

uint64_t mir_storage_file_bytes(const char *directory, const char *name)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    struct stat about;
    if (mir_storage_path(path, directory, name, NULL) != MIR_OK || stat(path, &about) != 0)
        return 0;
    return (uint64_t)about.st_size;
}

mir_status mir_storage_sync(const char *path, mir_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    int cause = fd < 0 ? errno : 0;
    if (fd >= 0 && fsync(fd) != 0) cause = errno;
    if (fd >= 0) (void)close(fd);
    return cause == 0 ? MIR_OK : mir_error_os(error, cause, "cannot sync %s", path);
}

static bool is_there(const char *directory, const char *name)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    return mir_storage_path(path, directory, name, NULL) == MIR_OK && access(path, F_OK) == 0;
}

const char *mir_storage_unfinished(const char *data, const char **text)
{
    *text = "a restore into it did not finish: empty it and restore again";
    if (is_there(data, MIR_STORAGE_RESTORING)) return MIR_STORAGE_RESTORING;
    *text = "it is a backup that did not finish: take another one";
    return is_there(data, MIR_STORAGE_MARKER_HALF) ? MIR_STORAGE_MARKER_HALF : NULL;
}

mir_status mir_storage_servable(const char *data, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    const char *text;
    const mir_status status = mir_storage_path(path, data, MIR_STORAGE_MARKER_HALF, error);
    if (status != MIR_OK) return status;
    if (mir_storage_unfinished(data, &text) == NULL) {
        if (!is_there(data, MIR_STORAGE_MARKER)) return MIR_OK;
        text = "it is a backup: `mir storage restore` makes a data directory of it";
    }
    return mir_error_set(error, MIR_E_INVALID, "data directory %s: %s", data, text);
}

bool mir_storage_served(const char *data)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    if (mir_storage_path(path, data, "lock", NULL) != MIR_OK) return false;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return false;
    const bool held = flock(fd, LOCK_SH | LOCK_NB) != 0 && errno == EWOULDBLOCK;
    (void)close(fd);
    return held;
}

/* ---- Files ---- */

bool mir_storage_number_in(const uint64_t *numbers, uint32_t count, uint64_t number)
{
    for (uint32_t i = 0; i < count; i++)
        if (numbers[i] == number) return true;
    return false;
}

static bool number_push(uint64_t **numbers, uint32_t *count, uint64_t number)
{
    uint64_t *more = realloc(*numbers, (*count + UINT32_C(1)) * sizeof *more);
    if (more == NULL) return false;
    *numbers = more;
    more[(*count)++] = number;
    return true;
}

static int number_compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

void mir_storage_files_fini(mir_storage_files *files)
{
    mir_tlog_manifest_fini(&files->manifest);
    free(files->segments);
    free(files->logs);
    free(files->aside);
    *files = (mir_storage_files){0};
}

static bool name_take(mir_storage_files *files, const char *name)
{
    const size_t size = strlen(name);
    if (strspn(name, "0123456789abcdef") != 16) return true;
    if (strcmp(name + 16, ".seg.damaged") == 0 || strcmp(name + 16, ".log.damaged") == 0) {
        void *more = realloc(files->aside, (files->set_aside + UINT32_C(1)) * sizeof *files->aside);
        if (more == NULL) return false;
        files->aside = more;
        const uint64_t aside = strtoull(name, NULL, 16);
        if (aside > files->number_max) files->number_max = aside;
        memcpy(files->aside[files->set_aside++], name, size + 1);
        return true;
    }
    if (size != 20) return true;
    const uint64_t number = strtoull(name, NULL, 16);
    const bool log = strcmp(name + 16, ".log") == 0;
    if (!log && strcmp(name + 16, ".seg") != 0) return true;
    if (number > files->number_max) files->number_max = number;
    if (!log) return number_push(&files->segments, &files->segment_count, number);
    return mir_storage_number_in(files->manifest.sealed, files->manifest.sealed_count, number) ||
           number_push(&files->logs, &files->log_count, number);
}

mir_status mir_storage_files_list(const char *telemetry, mir_storage_files *files, mir_error *error)
{
    mir_storage_files found = {0};
    DIR *directory = opendir(telemetry);
    if (directory == NULL) return mir_error_os(error, errno, "cannot read %s", telemetry);
    mir_status status = MIR_OK;
    found.manifest_status = mir_tlog_manifest_read(&mir_tlog_files_posix, telemetry,
                                                   &found.manifest, &found.manifest_error);
    if (found.manifest_status != MIR_OK && found.manifest_status != MIR_E_NOT_FOUND &&
        found.manifest_status != MIR_E_CORRUPT)
        status = mir_error_set(error, found.manifest_status, "%s", found.manifest_error.text);
    while (status == MIR_OK) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (entry == NULL) {
            if (errno != 0) status = mir_error_os(error, errno, "cannot read %s", telemetry);
            break;
        }
        if (!name_take(&found, entry->d_name))
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    (void)closedir(directory);
    if (status == MIR_OK && found.manifest_status != MIR_OK && found.segment_count > 0) {
        found.manifest_lost = true;
        found.manifest.segments = malloc(found.segment_count * sizeof *found.segments);
        if (found.manifest.segments == NULL)
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        else
            memcpy(found.manifest.segments, found.segments,
                   found.segment_count * sizeof *found.segments);
        found.manifest.segment_count = status == MIR_OK ? found.segment_count : 0;
    }
    if (status != MIR_OK) {
        mir_storage_files_fini(&found);
        return status;
    }
    if (found.log_count > 1) qsort(found.logs, found.log_count, sizeof *found.logs, number_compare);
    if (found.manifest.segment_count > 1)
        qsort(found.manifest.segments, found.manifest.segment_count,
              sizeof *found.manifest.segments, number_compare);
    *files = found;
    return MIR_OK;
}

void mir_storage_held_fini(mir_storage_held *held)
{
    for (uint32_t i = 0; held->handles != NULL && i < held->files.manifest.segment_count; i++)
        if (held->handles[i] >= 0) (void)close(held->handles[i]);
    free(held->handles);
    mir_storage_files_fini(&held->files);
    *held = (mir_storage_held){0};
}

static bool same_manifest(const mir_tlog_manifest *a, const mir_tlog_manifest *b)
{
    return a->segment_count == b->segment_count && a->sealed_count == b->sealed_count &&
           (a->segment_count == 0 ||
            memcmp(a->segments, b->segments, a->segment_count * sizeof *a->segments) == 0) &&
           (a->sealed_count == 0 ||
            memcmp(a->sealed, b->sealed, a->sealed_count * sizeof *a->sealed) == 0);
}

static mir_status segments_open(mir_storage_held *held, const char *telemetry, mir_error *error)
{
    const uint32_t count = held->files.manifest.segment_count;
    struct rlimit handles;
    if (getrlimit(RLIMIT_NOFILE, &handles) == 0 && handles.rlim_cur < count + HANDLES_SPARE) {
        handles.rlim_cur = handles.rlim_max;
        (void)setrlimit(RLIMIT_NOFILE, &handles);
    }
    held->handles = malloc((count + UINT32_C(1)) * sizeof *held->handles);
    if (held->handles == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (uint32_t i = 0; i < count; i++) held->handles[i] = -1;
    for (uint32_t i = 0; i < count; i++) {
        char path[MIR_STORAGE_PATH_BYTES_MAX];
        char name[MIR_STORAGE_NAME_BYTES_MAX];
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".seg", held->files.manifest.segments[i]);
        mir_status status = mir_storage_path(path, telemetry, name, error);
        if (status != MIR_OK) return status;
        held->handles[i] = open(path, O_RDONLY | O_CLOEXEC);
        if (held->handles[i] < 0 && errno != ENOENT && errno != EIO)
            return mir_error_os(error, errno, "cannot open %s", path);
    }
    return MIR_OK;
}

mir_status mir_storage_hold(const char *telemetry, mir_storage_held *held, mir_error *error)
{
    *held = (mir_storage_held){0};
    mir_status status = mir_storage_files_list(telemetry, &held->files, error);
    if (status != MIR_OK) return status;
    status = segments_open(held, telemetry, error);
    mir_storage_files now = {0};
    if (status == MIR_OK) status = mir_storage_files_list(telemetry, &now, error);
    if (status != MIR_OK) return status;
    const bool same = same_manifest(&held->files.manifest, &now.manifest);
    mir_storage_files_fini(&now);
    return same ? MIR_OK : MIR_E_AGAIN;
}

mir_status mir_storage_hold_gives_up(mir_error *error)
{
    return mir_error_set(error, MIR_E_AGAIN, "the telemetry log changes too fast: try again");
}

mir_view mir_storage_measurement_shown(mir_view stored,
                                       char text[MIR_STORAGE_MEASUREMENT_BYTES_MAX])
{
    static const char *const steps[MIR_TLOG_ROLLUPS] = {"1m", "10m", "1h"};
    mir_view rows = stored;
    const int step = mir_tlog_rollup_step_of(stored, &rows);
    if (step == MIR_TLOG_ROLLUP_NONE) return stored;
    (void)snprintf(text, MIR_STORAGE_MEASUREMENT_BYTES_MAX, "%.*s (%s)", MIR_VIEW_ARGS(rows),
                   steps[step]);
    return mir_view_cstr(text);
}

/* ---- Bytes ---- */

mir_status mir_storage_advance(mir_storage_progress *progress, uint64_t bytes, mir_error *error)
{
    progress->done += bytes;
    if (progress->total < progress->done) progress->total = progress->done;
    const mir_storage_watch *watch = progress->watch;
    if (watch == NULL || watch->progress == NULL ||
        watch->progress(watch->context, progress->done, progress->total))
        return MIR_OK;
    return mir_error_set(error, MIR_E_CANCELLED, "cancelled");
}

/* The next bytes of a file, although the disk cannot read all of them. */
static ssize_t salvage(int from, uint8_t *buffer, uint64_t *unread)
{
    struct stat about;
    const off_t at = lseek(from, 0, SEEK_CUR);
    if (at < 0 || fstat(from, &about) != 0) return -1;
    off_t size = about.st_size - at;
    if (size > PUMP_BYTES) size = PUMP_BYTES;
    if (size <= 0) return 0;
    const int result = mir_tlog_file_salvage(&mir_tlog_files_posix, from, buffer, (size_t)size,
                                             (uint64_t)at, unread);
    if (result < 0) {
        errno = -result;
        return -1;
    }
    return lseek(from, at + size, SEEK_SET) < 0 ? -1 : (ssize_t)size;
}

mir_status mir_storage_pump(int from, int to, mir_storage_progress *progress, uint64_t *size,
                            uint64_t *hash, uint64_t *unread, mir_error *error)
{
    uint8_t *buffer = malloc(PUMP_BYTES);
    XXH3_state_t *sum = XXH3_createState();
    mir_status status = MIR_OK;
    *size = 0;
    if (buffer == NULL || sum == NULL || XXH3_64bits_reset(sum) != XXH_OK)
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    while (status == MIR_OK) {
        ssize_t got = read(from, buffer, PUMP_BYTES);
        if (got < 0 && errno == EIO && unread != NULL) got = salvage(from, buffer, unread);
        if (got == 0) break;
        if (got < 0 && errno != EINTR) status = mir_error_os(error, errno, "cannot read");
        if (got < 0) continue;
        (void)XXH3_64bits_update(sum, buffer, (size_t)got);
        *size += (uint64_t)got;
        for (ssize_t put = 0; to >= 0 && put < got && status == MIR_OK;) {
            const ssize_t more = write(to, buffer + put, (size_t)(got - put));
            if (more >= 0)
                put += more;
            else if (errno != EINTR)
                status = mir_error_os(error, errno, "cannot write");
        }
        if (status == MIR_OK) status = mir_storage_advance(progress, (uint64_t)got, error);
    }
    if (status == MIR_OK) *hash = XXH3_64bits_digest(sum);
    (void)XXH3_freeState(sum);
    free(buffer);
    return status;
}

mir_status mir_storage_log_bytes(const char *path, uint8_t **bytes, size_t *size, uint64_t *unread,
                                 mir_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "cannot open %s", path);
    struct stat about;
    mir_status status = MIR_OK;
    uint8_t *made = NULL;
    if (fstat(fd, &about) != 0)
        status = mir_error_os(error, errno, "cannot read %s", path);
    else if (about.st_size > MIR_TLOG_LOG_FILE_BYTES_MAX)
        status = mir_error_set(error, MIR_E_CORRUPT, "%s is larger than any log", path);
    else if ((made = calloc(1, (size_t)about.st_size + 1)) == NULL)
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK) {
        const int result = mir_tlog_file_salvage(&mir_tlog_files_posix, fd, made,
                                                 (size_t)about.st_size, 0, unread);
        if (result < 0) status = mir_error_os(error, -result, "cannot read %s", path);
    }
    (void)close(fd);
    if (status != MIR_OK) {
        free(made);
        return status;
    }
    *bytes = made;
    *size = (size_t)about.st_size;
    return MIR_OK;
}

/* ---- The child ---- */

typedef struct saying {
    int32_t status;
    mir_error error;
} saying;

mir_status mir_storage_child_begin(const char *path, mir_storage_state_fn work,
                                   mir_storage_child *child, mir_error *error)
{
    int data[2], words[2];
    if (pipe2(data, O_CLOEXEC) != 0) return mir_error_os(error, errno, "cannot make a pipe");
    if (pipe2(words, O_CLOEXEC) != 0) {
        (void)close(data[0]), (void)close(data[1]);
        return mir_error_os(error, errno, "cannot make a pipe");
    }
    (void)fflush(NULL);
    const pid_t pid = fork();
    if (pid < 0) {
        const int cause = errno;
        (void)close(data[0]), (void)close(data[1]), (void)close(words[0]), (void)close(words[1]);
        return mir_error_os(error, cause, "cannot start a process");
    }
    if (pid == 0) {
        /* A signal to all of the terminal must not end it in the middle: its place in the table of
         * readers would stay taken, and old pages with it. It ends when nobody reads. */
        static const int ignored[] = {SIGINT, SIGTERM, SIGHUP, SIGPIPE};
        static const int deadly[] = {SIGSEGV, SIGBUS, SIGABRT, SIGFPE, SIGILL};
        for (size_t i = 0; i < sizeof ignored / sizeof ignored[0]; i++)
            (void)signal(ignored[i], SIG_IGN);
        for (size_t i = 0; i < sizeof deadly / sizeof deadly[0]; i++)
            (void)signal(deadly[i], SIG_DFL);
        (void)setrlimit(RLIMIT_CORE, &(struct rlimit){0, 0});
        /* Nothing of who began it, least of all a lock that would outlive that. */
        const unsigned low = (unsigned)(data[1] < words[1] ? data[1] : words[1]);
        const unsigned high = (unsigned)(data[1] < words[1] ? words[1] : data[1]);
        if (low > 3) (void)close_range(3, low - 1, 0);
        if (high > low + 1) (void)close_range(low + 1, high - 1, 0);
        (void)close_range(high + 1, UINT_MAX, 0);
        /* What LMDB says of a page that it cannot understand is said in other words. */
        const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (nowhere >= 0) (void)dup2(nowhere, STDERR_FILENO);
        saying said = {0};
        said.status = (int32_t)work(path, data[1], &said.error);
        (void)close(data[1]);
        _exit(write(words[1], &said, sizeof said) == (ssize_t)sizeof said ? 0 : 1);
    }
    (void)close(data[1]), (void)close(words[1]);
    *child = (mir_storage_child){.pid = pid, .from = data[0], .said = words[0]};
    return MIR_OK;
}

mir_status mir_storage_child_end(mir_storage_child *child, mir_error *error)
{
    (void)close(child->from);
    saying said;
    ssize_t got;
    do got = read(child->said, &said, sizeof said);
    while (got < 0 && errno == EINTR);
    (void)close(child->said);
    int how = 0;
    while (waitpid(child->pid, &how, 0) < 0 && errno == EINTR) {
    }
    if (got != (ssize_t)sizeof said)
        return mir_error_set(error, MIR_E_CORRUPT,
                             "reading the state store ended a process (%s): it is damaged",
                             WIFSIGNALED(how) ? strsignal(WTERMSIG(how)) : "for no reason given");
    if (said.status == MIR_OK) return MIR_OK;
    said.error.text[sizeof said.error.text - 1] = '\0';
    return mir_error_set(error, (mir_status)said.status, "%s", said.error.text);
}

static mir_status explain(int rc, const char *what, mir_error *error)
{
    if (rc == 0) return MIR_OK;
    const mir_status status = rc == MDB_INCOMPATIBLE ? MIR_E_CORRUPT : mir_state_db_status(rc);
    return mir_error_set(error, status, "%s: %s", what, mdb_strerror(rc));
}

mir_status mir_storage_state_copy(const char *path, int out, mir_error *error)
{
    mir_state_db db;
    mir_status status = mir_state_db_open_reader(path, &db, error);
    if (status != MIR_OK) return status;
    /* Compacted: reads only pages that hold something, and never waits for the server's writer. */
    status =
        explain(mdb_env_copyfd2(db.env, out, MDB_CP_COMPACT), "cannot copy the state store", error);
    mir_state_db_close(&db);
    return status;
}

mir_status mir_storage_state_check(const char *path, int out, mir_error *error)
{
    (void)out;
    mir_state_db db;
    mir_status status = mir_state_db_open_reader(path, &db, error);
    if (status != MIR_OK) return status;
    /* Every page that holds something is walked through by a copy to nowhere. */
    const int nowhere = open("/dev/null", O_WRONLY | O_CLOEXEC);
    status = nowhere < 0 ? mir_error_os(error, errno, "cannot open /dev/null")
                         : explain(mdb_env_copyfd2(db.env, nowhere, MDB_CP_COMPACT),
                                   "cannot read the state store", error);
    MDB_txn *txn = NULL;
    if (status == MIR_OK)
        status = explain(mdb_txn_begin(db.env, NULL, MDB_RDONLY, &txn), "cannot read", error);
    if (status == MIR_OK) {
        status = mir_state_db_check(&db, txn, error);
        if (status != MIR_OK && error->text[0] == '\0')
            (void)mir_error_set(error, status, "records and indexes disagree");
        if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
    }
    if (txn != NULL) mdb_txn_abort(txn);
    if (nowhere >= 0) (void)close(nowhere);
    mir_state_db_close(&db);
    return status;
}

mir_status mir_storage_state_events(const char *path, int out, mir_error *error)
{
    mir_state *state = calloc(1, sizeof *state);
    if (state == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_status status = mir_state_db_open_reader(path, &state->db, error);
    if (status == MIR_OK) {
        mir_arena arena = {0};
        MirApi__V1__EventsProof *proof = NULL;
        status = mir_event_verify(state, (mir_view){NULL, 0}, NULL, NULL, &arena, &proof, error);
        if (status == MIR_OK && !proof->intact)
            status = mir_error_set(error, MIR_E_CORRUPT, "%.400s", proof->text);
        if (status == MIR_OK &&
            write(out, &proof->links, sizeof proof->links) != (ssize_t)sizeof proof->links)
            status = mir_error_set(error, MIR_E_CANCELLED, "nobody listens");
        mir_arena_free(&arena);
        for (size_t i = 0; i < MIR_STATE_READERS_KEPT; i++)
            if (state->readers[i] != NULL) mdb_txn_abort(state->readers[i]);
        mir_state_db_close(&state->db);
    }
    free(state);
    return status;
}
