/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mir_clock.h"
#include "mir_hash.h"

/* The instant of a backup is that of the state store's read transaction; right behind it the segments
 * are opened and the logs read, before anything large is copied. What is opened stays there although
 * the server merges it away. */

enum { PARTS = 2 };
static const char *const parts[PARTS] = {"telemetry", "state"};

/* It is saved, but for these bytes. */
typedef struct unread_file {
    mir_storage_kind kind;
    uint64_t bytes;
    char name[MIR_STORAGE_NAME_BYTES_MAX];
} unread_file;

typedef struct saving {
    const char *data;
    const char *target;
    bool made_target;
    bool mine; /* what is in the target */
    bool copy;
    mir_storage_saved *saved;
    mir_storage_progress progress;
    mir_storage_held held;
    int half; /* the marker that is not complete, or -1 */
    mir_storage_marker marker;
    uint32_t unread_count;
    unread_file *unread_files;
} saving;

/* Nothing in it but what a file system keeps there by itself, and `own` (may be null). */
static mir_status check_empty(const char *path, const char *own, mir_error *error)
{
    DIR *directory = opendir(path);
    if (directory == NULL) return mir_error_os(error, errno, "cannot read %s", path);
    mir_status status = MIR_OK;
    while (status == MIR_OK) {
        errno = 0;
        const struct dirent *entry = readdir(directory);
        if (entry == NULL && errno != 0)
            status = mir_error_os(error, errno, "cannot read %s", path);
        if (entry == NULL) break;
        const char *name = entry->d_name;
        if (strcmp(name, ".") == 0 || strcmp(name, "..") == 0 || strcmp(name, "lost+found") == 0 ||
            (own != NULL && strcmp(name, own) == 0))
            continue;
        status = mir_error_set(error, MIR_E_EXISTS,
                               "%s is not empty (%.100s is in it): choose another directory", path,
                               name);
    }
    (void)closedir(directory);
    return status;
}

static mir_status empty_directory(const char *path, bool *made, mir_error *error)
{
    *made = mkdir(path, 0700) == 0;
    if (*made) return MIR_OK;
    if (errno != EEXIST) return mir_error_os(error, errno, "cannot make %s", path);
    return check_empty(path, NULL, error);
}

static mir_status make_directory(const char *root, const char *name, const char *like,
                                 mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    struct stat about;
    mir_status status = mir_storage_path(path, root, name, error);
    if (status != MIR_OK) return status;
    const mode_t mode = like != NULL && stat(like, &about) == 0 ? about.st_mode & 0770 : 0700;
    return mkdir(path, mode | 0700) == 0 ? MIR_OK
                                         : mir_error_os(error, errno, "cannot make %s", path);
}

static mir_status create_file(const char *root, const char *name, mode_t mode, int *fd,
                              mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, root, name, error);
    if (status != MIR_OK) return status;
    *fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, mode);
    return *fd >= 0 ? MIR_OK : mir_error_os(error, errno, "cannot create %s", path);
}

/* Synced and closed; the first failure counts. */
static mir_status finish_file(int fd, const char *name, mir_status status, mir_error *error)
{
    if (status == MIR_OK && fsync(fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", name);
    else if (status != MIR_OK && status != MIR_E_CANCELLED)
        mir_error_wrap(error, "%s", name);
    (void)close(fd);
    return status;
}

static mir_status listed(saving *s, const char *name, uint64_t size, bool hashed, uint64_t hash,
                         mir_error *error)
{
    mir_storage_entry entry = {.size = size, .hashed = hashed, .hash = hash};
    (void)snprintf(entry.name, sizeof entry.name, "%s", name);
    if (mir_storage_marker_add(&s->marker, &entry) != MIR_OK)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    s->saved->files++;
    s->saved->bytes += size;
    return MIR_OK;
}

/* ---- Room ---- */

static uint64_t allocated_bytes(const char *directory, const char *name)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    struct stat about;
    if (mir_storage_path(path, directory, name, NULL) != MIR_OK || stat(path, &about) != 0)
        return 0;
    return (uint64_t)about.st_blocks * 512;
}

/* Said before the first byte is written, instead of when the disk is full: about, as the server goes
 * on. What cannot be asked is no reason to refuse. */
static mir_status room_check(const char *target, uint64_t wanted, mir_error *error)
{
    uint64_t left = 0, size = 0;
    if (mir_tlog_files_posix.free_bytes(NULL, target, &left, &size) != 0 || left >= wanted)
        return MIR_OK;
    return mir_error_set(error, MIR_E_NO_SPACE,
                         "%s needs %" PRIu64 " MiB, and its disk has %" PRIu64
                         " MiB free: make room or choose another disk",
                         target, (wanted >> 20) + 1, left >> 20);
}

static mir_status backup_room(const saving *s, const char *telemetry, mir_error *error)
{
    struct stat from, to;
    const bool links = !s->copy && stat(telemetry, &from) == 0 && stat(s->target, &to) == 0 &&
                       from.st_dev == to.st_dev;
    mir_storage_files files;
    mir_status status = mir_storage_files_list(telemetry, &files, error);
    if (status != MIR_OK) return status;
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    uint64_t wanted = allocated_bytes(s->data, "state/data.mdb");
    for (uint32_t i = 0; i < files.manifest.segment_count && !links; i++) {
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".seg", files.manifest.segments[i]);
        wanted += allocated_bytes(telemetry, name);
    }
    for (uint32_t i = 0; i < files.log_count; i++) {
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".log", files.logs[i]);
        wanted += allocated_bytes(telemetry, name);
    }
    mir_storage_files_fini(&files);
    return room_check(s->target, wanted, error);
}

/* A file whose rows are not in the backup: a name without content, so that the answers of who restores
 * it stay partial, as a start that misses a file makes them. Once: a start that was killed leaves one
 * set aside and still expected. */
static mir_status lost_save(saving *s, const char *file, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    int fd;
    (void)snprintf(name, sizeof name, "telemetry/%s", file);
    for (uint32_t i = 0; i < s->marker.count; i++)
        if (strcmp(s->marker.entries[i].name, name) == 0) return MIR_OK;
    s->saved->damaged++;
    mir_status status = create_file(s->target, name, 0640, &fd, error);
    if (status == MIR_OK) status = finish_file(fd, name, status, error);
    return status == MIR_OK ? listed(s, name, 0, true, mir_hash_fixed("", 0), error) : status;
}

/* Told when the backup is made: a snapshot that is tried again reads it once more. */
static mir_status unread_note(saving *s, mir_storage_kind kind, const char *name, uint64_t unread,
                              mir_error *error)
{
    if (unread == 0) return MIR_OK;
    unread_file *more =
        realloc(s->unread_files, (s->unread_count + UINT32_C(1)) * sizeof *s->unread_files);
    if (more == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    s->unread_files = more;
    unread_file *one = &more[s->unread_count++];
    *one = (unread_file){.kind = kind, .bytes = unread};
    (void)snprintf(one->name, sizeof one->name, "%s", name);
    return MIR_OK;
}

static void unread_tell(saving *s)
{
    const mir_storage_watch *watch = s->progress.watch;
    for (uint32_t i = 0; i < s->unread_count; i++) {
        const unread_file *one = &s->unread_files[i];
        char text[160];
        s->saved->unread += one->bytes;
        (void)snprintf(text, sizeof text,
                       "the disk cannot read %" PRIu64 " bytes of it: what is in them is not saved",
                       one->bytes);
        if (watch != NULL && watch->damage != NULL)
            watch->damage(watch->context, &(mir_storage_damage){
                                              .kind = one->kind, .file = one->name, .text = text});
    }
}

/* ---- The snapshot ---- */

/* A log of which the disk cannot read all; MIR_E_CORRUPT: no row can be had. */
static mir_status log_salvage(const char *path, uint64_t number, mir_tlog_log_look *look,
                              uint64_t *unread, mir_error *error)
{
    uint8_t *bytes = NULL;
    size_t size = 0;
    mir_status status = mir_storage_log_bytes(path, &bytes, &size, unread, error);
    if (status != MIR_OK) return status;
    status = mir_tlog_log_look_bytes(mir_view_of(bytes, size), number, look, error);
    if (status == MIR_E_EMPTY && *unread > 0) status = MIR_E_CORRUPT;
    if (status == MIR_OK)
        look->bytes = bytes;
    else
        free(bytes);
    return status;
}

/* The rows of one log up to now, if it is still there: else the manifest has changed. */
static mir_status log_save(saving *s, const char *telemetry, uint64_t number, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(name, sizeof name, "telemetry/%016" PRIx64 ".log", number);
    mir_status status = mir_storage_path(path, telemetry, strchr(name, '/') + 1, error);
    if (status != MIR_OK) return status;
    const int from = open(path, O_RDONLY | O_CLOEXEC);
    if (from < 0)
        return errno == ENOENT ? MIR_E_AGAIN : mir_error_os(error, errno, "cannot open %s", path);
    mir_tlog_log_look look;
    uint64_t unread = 0;
    mir_error why = {{0}};
    status = mir_tlog_log_look_at(&mir_tlog_files_posix, from, number, &look, &why);
    (void)close(from);
    if (status == MIR_E_IO) status = log_salvage(path, number, &look, &unread, &why);
    if (status == MIR_E_NOT_FOUND) return MIR_E_AGAIN; /* sealed meanwhile */
    if (unread > 0 && (status == MIR_OK || status == MIR_E_CORRUPT)) {
        const mir_status noted = unread_note(s, MIR_STORAGE_LOG, name, unread, error);
        if (noted != MIR_OK) {
            if (status == MIR_OK) free(look.bytes);
            return noted;
        }
    }
    if (status == MIR_E_EMPTY) return MIR_OK;
    if (status == MIR_E_CORRUPT) { /* no row of it can be had */
        char lost[MIR_STORAGE_NAME_BYTES_MAX];
        (void)snprintf(lost, sizeof lost, "%016" PRIx64 ".log.damaged", number);
        return lost_save(s, lost, error);
    }
    if (status != MIR_OK) return mir_error_set(error, status, "%s", why.text);
    int to;
    status = create_file(s->target, name, 0640, &to, error);
    if (status == MIR_OK) {
        const int result =
            mir_tlog_file_write(&mir_tlog_files_posix, to, look.bytes, look.found.bytes, 0);
        if (result < 0) status = mir_error_os(error, -result, "cannot write");
        status = finish_file(to, name, status, error);
    }
    if (status == MIR_OK)
        status = listed(s, name, look.found.bytes, true,
                        mir_hash_fixed(look.bytes, look.found.bytes), error);
    if (status == MIR_OK) status = mir_storage_advance(&s->progress, look.found.bytes, error);
    free(look.bytes);
    return status;
}

static void unsave(saving *s)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    for (uint32_t i = 0; i < s->marker.count; i++)
        if (mir_storage_path(path, s->target, s->marker.entries[i].name, NULL) == MIR_OK)
            (void)unlink(path);
    mir_storage_marker_fini(&s->marker);
    s->unread_count = 0;
    s->saved->files = s->saved->bytes = s->saved->damaged = s->progress.done = 0;
}

/* One try: MIR_E_AGAIN when the server has replaced the manifest meanwhile. */
static mir_status snapshot_try(saving *s, const char *telemetry, mir_error *error)
{
    mir_status status = mir_storage_hold(telemetry, &s->held, error);
    if (status != MIR_OK) return status;
    for (uint32_t i = 0; i < s->held.files.log_count && status == MIR_OK; i++)
        status = log_save(s, telemetry, s->held.files.logs[i], error);
    for (uint32_t i = 0; i < s->held.files.set_aside && status == MIR_OK; i++)
        status = lost_save(s, s->held.files.aside[i], error);
    return status;
}

static mir_status snapshot(saving *s, mir_error *error)
{
    char telemetry[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(telemetry, s->data, "telemetry", error);
    if (status != MIR_OK) return status;
    for (int tries = 0; tries < MIR_STORAGE_HOLDS_MAX; tries++) {
        status = snapshot_try(s, telemetry, error);
        if (status != MIR_E_AGAIN) return status;
        mir_storage_held_fini(&s->held);
        unsave(s);
        status = mir_storage_advance(&s->progress, 0, error);
        if (status != MIR_OK) return status;
    }
    return mir_storage_hold_gives_up(error);
}

/* ---- The rest ---- */

static mir_status segment_save(saving *s, uint32_t i, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char from[MIR_STORAGE_PATH_BYTES_MAX];
    char to[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(name, sizeof name, "telemetry/%016" PRIx64 ".seg",
                   s->held.files.manifest.segments[i]);
    mir_status status = mir_storage_path(from, s->data, name, error);
    if (status == MIR_OK) status = mir_storage_path(to, s->target, name, error);
    if (status != MIR_OK) return status;
    struct stat about;
    if (fstat(s->held.handles[i], &about) != 0)
        return mir_error_os(error, errno, "cannot read %s", from);
    if (!s->copy && link(from, to) == 0) {
        s->saved->linked++;
        status = listed(s, name, (uint64_t)about.st_size, false, 0, error);
        if (status == MIR_OK)
            status = mir_storage_advance(&s->progress, (uint64_t)about.st_size, error);
        return status;
    }
    int fd;
    uint64_t size, hash;
    status = create_file(s->target, name, about.st_mode & 0660, &fd, error);
    if (status != MIR_OK) return status;
    uint64_t unread = 0;
    status = finish_file(
        fd, name,
        mir_storage_pump(s->held.handles[i], fd, &s->progress, &size, &hash, &unread, error),
        error);
    if (status == MIR_OK) status = unread_note(s, MIR_STORAGE_SEGMENT, name, unread, error);
    return status == MIR_OK ? listed(s, name, size, true, hash, error) : status;
}

static mir_status segments_save(saving *s, mir_error *error)
{
    const mir_tlog_manifest *manifest = &s->held.files.manifest;
    mir_status status = MIR_OK;
    uint32_t kept = 0;
    for (uint32_t i = 0; i < manifest->segment_count && status == MIR_OK; i++) {
        if (s->held.handles[i] < 0) {
            char lost[MIR_STORAGE_NAME_BYTES_MAX];
            (void)snprintf(lost, sizeof lost, "%016" PRIx64 ".seg.damaged", manifest->segments[i]);
            status = lost_save(s, lost, error);
            continue;
        }
        status = segment_save(s, i, error);
        manifest->segments[kept++] = manifest->segments[i];
    }
    if (status != MIR_OK || s->held.files.manifest_status != MIR_OK) return status;
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    status = mir_storage_path(path, s->target, "telemetry", error);
    if (status != MIR_OK) return status;
    mir_tlog_manifest saved = *manifest;
    saved.segment_count = kept;
    bool in_doubt;
    status = mir_tlog_manifest_write(&mir_tlog_files_posix, path, &saved, &in_doubt, error);
    if (status == MIR_OK) status = mir_storage_path(path, s->target, "telemetry/MANIFEST", error);
    if (status != MIR_OK) return status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return mir_error_os(error, errno, "cannot read %s", path);
    uint64_t size, hash;
    status = mir_storage_pump(fd, -1, &s->progress, &size, &hash, NULL, error);
    (void)close(fd);
    return status == MIR_OK ? listed(s, "telemetry/MANIFEST", size, true, hash, error) : status;
}

static mir_status state_save(saving *s, int from, uint64_t *size, uint64_t *hash, mir_error *error)
{
    int fd;
    mir_status status = create_file(s->target, "state/data.mdb", 0600, &fd, error);
    if (status != MIR_OK) return status;
    return finish_file(fd, "state/data.mdb",
                       mir_storage_pump(from, fd, &s->progress, size, hash, NULL, error), error);
}

static mir_status marker_write(saving *s, mir_error *error)
{
    mir_bytes text = {0};
    s->marker.at_ns = s->saved->at_ns;
    mir_storage_marker_format(&s->marker, &text);
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    char half[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_bytes_ok(&text)
                            ? mir_storage_path(path, s->target, MIR_STORAGE_MARKER, error)
                            : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK)
        status = mir_storage_path(half, s->target, MIR_STORAGE_MARKER_HALF, error);
    if (status == MIR_OK) {
        const int result =
            mir_tlog_file_write(&mir_tlog_files_posix, s->half, text.data, text.size, 0);
        if (result < 0) status = mir_error_os(error, -result, "cannot write");
        status = finish_file(s->half, half, status, error);
        s->half = -1;
    }
    mir_bytes_free(&text);
    if (status == MIR_OK && rename(half, path) != 0)
        status = mir_error_os(error, errno, "cannot rename %s", half);
    return status == MIR_OK ? mir_storage_sync(s->target, error) : status;
}

static mir_status parent_sync(const char *path, mir_error *error)
{
    char parent[MIR_STORAGE_PATH_BYTES_MAX];
    return mir_storage_path(parent, path, "..", error) == MIR_OK ? mir_storage_sync(parent, error)
                                                                 : MIR_E_TOO_LARGE;
}

static mir_status save_all(saving *s, mir_error *error)
{
    char state[MIR_STORAGE_PATH_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    uint64_t size = 0, hash = 0;
    mir_status status = mir_storage_path(state, s->data, "state", error);
    if (status == MIR_OK) status = mir_storage_path(path, s->data, "telemetry", error);
    if (status == MIR_OK) status = backup_room(s, path, error);
    /* From here on it is half a backup: no server starts on it. */
    if (status == MIR_OK)
        status = create_file(s->target, MIR_STORAGE_MARKER_HALF, 0600, &s->half, error);
    /* Another backup may have come between, whose marker is this one or already complete. */
    if (status == MIR_OK) {
        status = check_empty(s->target, MIR_STORAGE_MARKER_HALF, error);
        s->mine = status == MIR_OK;
        if (!s->mine && mir_storage_path(path, s->target, MIR_STORAGE_MARKER_HALF, NULL) == MIR_OK)
            (void)unlink(path);
    }
    if (status == MIR_OK) status = mir_storage_path(path, s->data, "telemetry", error);
    if (status == MIR_OK) status = make_directory(s->target, "state", state, error);
    if (status == MIR_OK) status = make_directory(s->target, "telemetry", path, error);
    if (status != MIR_OK) return status;
    mir_storage_child child;
    status = mir_storage_child_begin(state, mir_storage_state_copy, &child, error);
    if (status != MIR_OK) return status;
    /* The first bytes come when the transaction has begun. */
    while (poll(&(struct pollfd){.fd = child.from, .events = POLLIN}, 1, 100) == 0 &&
           status == MIR_OK)
        status = mir_storage_advance(&s->progress, 0, error);
    s->saved->at_ns = mir_clock_wall_ns();
    if (status == MIR_OK) status = snapshot(s, error);
    for (uint32_t i = 0; i < s->held.files.manifest.segment_count && status == MIR_OK; i++) {
        struct stat about;
        if (s->held.handles[i] >= 0 && fstat(s->held.handles[i], &about) == 0)
            s->progress.total += (uint64_t)about.st_size;
    }
    if (status == MIR_OK) status = state_save(s, child.from, &size, &hash, error);
    mir_error why = {{0}};
    const mir_status ended = mir_storage_child_end(&child, &why);
    if (status == MIR_OK && ended != MIR_OK) status = mir_error_set(error, ended, "%s", why.text);
    if (status == MIR_OK) status = listed(s, "state/data.mdb", size, true, hash, error);
    if (status == MIR_OK) status = segments_save(s, error);
    if (status == MIR_OK) status = mir_storage_path(path, s->target, "telemetry", error);
    if (status == MIR_OK) status = mir_storage_sync(path, error);
    if (status == MIR_OK) status = mir_storage_path(path, s->target, "state", error);
    if (status == MIR_OK) status = mir_storage_sync(path, error);
    if (status == MIR_OK) status = parent_sync(s->target, error);
    if (status == MIR_OK) status = marker_write(s, error);
    if (status == MIR_OK) unread_tell(s);
    return status;
}

/* All files of a folder that is open. */
static void remove_files(int folder)
{
    const int own = openat(folder, ".", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    DIR *directory = own < 0 ? NULL : fdopendir(own);
    if (directory == NULL && own >= 0) (void)close(own);
    for (const struct dirent *entry; directory != NULL && (entry = readdir(directory)) != NULL;)
        (void)unlinkat(folder, entry->d_name, 0);
    if (directory != NULL) (void)closedir(directory);
}

/* What was begun and will not be finished; not what a link in its place leads to. */
static void remove_begun(const char *root)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    for (size_t i = 0; i < PARTS; i++) {
        if (mir_storage_path(path, root, parts[i], NULL) != MIR_OK) continue;
        const int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
        if (folder < 0) continue;
        remove_files(folder);
        (void)close(folder);
        (void)rmdir(path);
    }
}

static bool within(const char *inner, const char *outer)
{
    char *a = realpath(inner, NULL);
    char *b = realpath(outer, NULL);
    const size_t size = b == NULL ? 0 : strlen(b);
    const bool is =
        a != NULL && b != NULL && strncmp(a, b, size) == 0 && (a[size] == '/' || a[size] == '\0');
    free(a);
    free(b);
    return is;
}

mir_status mir_storage_backup(const char *data, const char *target, bool copy,
                              const mir_storage_watch *watch, mir_storage_saved *saved,
                              mir_error *error)
{
    *saved = (mir_storage_saved){0};
    saving s = {.data = data,
                .target = target,
                .copy = copy,
                .saved = saved,
                .progress = {.watch = watch},
                .half = -1};
    s.progress.total = mir_storage_file_bytes(data, "state/data.mdb");
    struct stat about;
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, data, "telemetry", error);
    if (status != MIR_OK) return status;
    const char *text;
    if (mir_storage_unfinished(data, &text) != NULL)
        return mir_error_set(error, MIR_E_INVALID, "data directory %s: %s", data, text);
    if (stat(path, &about) != 0)
        return mir_error_os(error, errno, "%s is no data directory: cannot read %s", data, path);
    status = empty_directory(target, &s.made_target, error);
    if (status != MIR_OK) return status;
    if (within(target, data)) {
        if (s.made_target) (void)rmdir(target);
        return mir_error_set(error, MIR_E_INVALID,
                             "%s is inside the data directory: choose another place", target);
    }
    status = save_all(&s, error);
    if (status != MIR_OK && s.mine) {
        if (mir_storage_path(path, target, MIR_STORAGE_MARKER, NULL) == MIR_OK) (void)unlink(path);
        remove_begun(target);
        if (mir_storage_path(path, target, MIR_STORAGE_MARKER_HALF, NULL) == MIR_OK)
            (void)unlink(path);
    }
    if (status != MIR_OK && s.made_target) (void)rmdir(target);
    if (s.half >= 0) (void)close(s.half);
    mir_storage_held_fini(&s.held);
    mir_storage_marker_fini(&s.marker);
    free(s.unread_files);
    return status;
}

/* ---- Restoring ---- */

/* The files and folders that a backup has, and nothing that they lead to: root may read what those who
 * can write there may not. */
static mir_status entry_open(const char *backup, const mir_storage_entry *entry, int *fd,
                             struct stat *about, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    char part[MIR_STORAGE_NAME_BYTES_MAX];
    const char *name = strchr(entry->name, '/') + 1;
    (void)snprintf(part, sizeof part, "%.*s", (int)(name - entry->name - 1), entry->name);
    mir_status status = mir_storage_path(path, backup, part, error);
    if (status != MIR_OK) return status;
    const int folder = open(path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    /* A pipe would be waited for. */
    const int found =
        folder < 0 ? -1 : openat(folder, name, O_RDONLY | O_NOFOLLOW | O_NONBLOCK | O_CLOEXEC);
    const int cause = errno;
    if (folder >= 0) (void)close(folder);
    if (found < 0) {
        const bool missing = cause == ENOENT || cause == ENOTDIR || cause == ELOOP;
        return mir_error_set(error, missing ? MIR_E_CORRUPT : mir_status_from_errno(cause),
                             "cannot read %s/%s: %s", backup, entry->name, strerror(cause));
    }
    if (fstat(found, about) == 0 && S_ISREG(about->st_mode)) {
        *fd = found;
        return MIR_OK;
    }
    (void)close(found);
    return mir_error_set(error, MIR_E_CORRUPT, "%s/%s is no file", backup, entry->name);
}

/* The owner of the data directory can put anything in the place of anything in it, while root writes
 * there: so nothing below it is found by its path but with what is open. */
typedef struct restoring {
    const char *backup;
    const char *data;
    struct stat owner; /* of the data directory */
    int data_fd;
    int begun_fd;
    int part_fds[PARTS];
    bool begun; /* there is MIR_STORAGE_RESTORING, and it is ours */
    mir_storage_progress progress;
} restoring;

static mir_status entry_restore(restoring *r, const mir_storage_entry *entry, mir_error *error)
{
    int from = -1;
    uint64_t size = 0, hash = 0;
    struct stat about;
    mir_status status = entry_open(r->backup, entry, &from, &about, error);
    if (status != MIR_OK) return status;
    const char *name = strchr(entry->name, '/') + 1;
    const size_t folder = (size_t)(name - entry->name - 1);
    const size_t part = strncmp(entry->name, parts[0], folder) == 0 ? 0 : 1;
    const int to =
        openat(r->part_fds[part], name, O_WRONLY | O_CREAT | O_EXCL | O_NOFOLLOW | O_CLOEXEC,
               (about.st_mode & 0660) | 0600);
    if (to < 0) {
        status = mir_error_os(error, errno, "cannot create %s", entry->name);
    } else {
        status = mir_storage_pump(from, to, &r->progress, &size, &hash, NULL, error);
        if (status == MIR_OK && (size != entry->size || (entry->hashed && hash != entry->hash)))
            status = mir_error_set(error, MIR_E_CORRUPT,
                                   "it is damaged: not the file that the list of the backup names");
        if (status == MIR_OK && geteuid() == 0 && fchown(to, r->owner.st_uid, r->owner.st_gid) != 0)
            status = mir_error_os(error, errno, "cannot give it to the owner of the directory");
        status = finish_file(to, entry->name, status, error);
    }
    (void)close(from);
    return status;
}

/* A folder of our own within one that is open. */
static mir_status folder_make(int in, const char *name, mode_t mode, int *fd, mir_error *error)
{
    struct stat about;
    if (mkdirat(in, name, mode | 0700) != 0)
        return mir_error_os(error, errno, "cannot make %s", name);
    *fd = openat(in, name, O_RDONLY | O_DIRECTORY | O_NOFOLLOW | O_CLOEXEC);
    if (*fd < 0) return mir_error_os(error, errno, "cannot open %s", name);
    if (fstat(*fd, &about) == 0 && about.st_uid == geteuid()) return MIR_OK;
    return mir_error_set(error, MIR_E_PERMISSION, "%s has been replaced by somebody else", name);
}

static mir_status begin_restoring(restoring *r, mir_error *error)
{
    mir_status status = folder_make(r->data_fd, MIR_STORAGE_RESTORING, 0, &r->begun_fd, error);
    if (status != MIR_OK) return status;
    /* Another restore may have come between. */
    status = check_empty(r->data, MIR_STORAGE_RESTORING, error);
    r->begun = status == MIR_OK;
    if (!r->begun) (void)unlinkat(r->data_fd, MIR_STORAGE_RESTORING, AT_REMOVEDIR);
    for (size_t i = 0; i < PARTS && status == MIR_OK; i++) {
        char like[MIR_STORAGE_PATH_BYTES_MAX];
        struct stat about;
        status = mir_storage_path(like, r->backup, parts[i], error);
        const mode_t mode = status == MIR_OK && stat(like, &about) == 0 ? about.st_mode & 0770 : 0;
        if (status == MIR_OK)
            status = folder_make(r->begun_fd, parts[i], mode, &r->part_fds[i], error);
    }
    if (status == MIR_OK && fsync(r->data_fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", r->data);
    return status;
}

static mir_status part_place(restoring *r, size_t part, mir_error *error)
{
    const int fd = r->part_fds[part];
    if (geteuid() == 0 && fchown(fd, r->owner.st_uid, r->owner.st_gid) != 0)
        return mir_error_os(error, errno, "cannot change the owner of %s", parts[part]);
    if (fsync(fd) != 0) return mir_error_os(error, errno, "cannot sync %s", parts[part]);
    return renameat(r->begun_fd, parts[part], r->data_fd, parts[part]) == 0
               ? MIR_OK
               : mir_error_os(error, errno, "cannot rename %s", parts[part]);
}

static mir_status finish_restoring(restoring *r, mir_error *error)
{
    mir_status status = MIR_OK;
    for (size_t i = 0; i < PARTS && status == MIR_OK; i++) status = part_place(r, i, error);
    if (status == MIR_OK && fsync(r->data_fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", r->data);
    if (status == MIR_OK && unlinkat(r->data_fd, MIR_STORAGE_RESTORING, AT_REMOVEDIR) != 0)
        status = mir_error_os(error, errno, "cannot remove %s/" MIR_STORAGE_RESTORING, r->data);
    if (status == MIR_OK && fsync(r->data_fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", r->data);
    return status == MIR_OK ? parent_sync(r->data, error) : status;
}

static void undo_restoring(const restoring *r)
{
    for (size_t i = 0; i < PARTS && r->begun; i++) {
        if (r->part_fds[i] < 0) continue;
        remove_files(r->part_fds[i]);
        if (unlinkat(r->begun_fd, parts[i], AT_REMOVEDIR) != 0)
            (void)unlinkat(r->data_fd, parts[i], AT_REMOVEDIR);
    }
    if (r->begun) (void)unlinkat(r->data_fd, MIR_STORAGE_RESTORING, AT_REMOVEDIR);
}

static mir_status data_open(restoring *r, bool made, mir_error *error)
{
    const int flags = O_RDONLY | O_DIRECTORY | O_CLOEXEC | (made ? O_NOFOLLOW : 0);
    r->data_fd = open(r->data, flags);
    return r->data_fd >= 0 && fstat(r->data_fd, &r->owner) == 0
               ? MIR_OK
               : mir_error_os(error, errno, "cannot read %s", r->data);
}

mir_status mir_storage_restore(const char *backup, const char *data, const mir_storage_watch *watch,
                               mir_storage_saved *saved, mir_error *error)
{
    *saved = (mir_storage_saved){0};
    mir_storage_marker marker;
    mir_status status = mir_storage_marker_read(backup, &marker, error);
    if (status == MIR_E_NOT_FOUND)
        return mir_error_set(
            error, status, "%s is no complete backup: it has no file " MIR_STORAGE_MARKER, backup);
    if (status != MIR_OK) return status;
    bool made = false;
    restoring r = {.backup = backup,
                   .data = data,
                   .data_fd = -1,
                   .begun_fd = -1,
                   .part_fds = {-1, -1},
                   .progress = {.watch = watch, .total = marker.bytes}};
    status = empty_directory(data, &made, error);
    if (status != MIR_OK) {
        mir_storage_marker_fini(&marker);
        return status;
    }
    if (within(data, backup))
        status = mir_error_set(error, MIR_E_INVALID,
                               "%s is inside the backup: choose another place", data);
    if (status == MIR_OK) status = data_open(&r, made, error);
    if (status == MIR_OK) status = room_check(data, marker.bytes, error);
    if (status == MIR_OK) status = begin_restoring(&r, error);
    for (uint32_t i = 0; i < marker.count && status == MIR_OK; i++)
        status = entry_restore(&r, &marker.entries[i], error);
    if (status == MIR_OK) status = finish_restoring(&r, error);
    if (status != MIR_OK) {
        undo_restoring(&r);
        if (made) (void)rmdir(data);
    } else {
        *saved = (mir_storage_saved){
            .files = marker.count, .bytes = marker.bytes, .at_ns = marker.at_ns};
    }
    for (size_t i = 0; i < PARTS; i++)
        if (r.part_fds[i] >= 0) (void)close(r.part_fds[i]);
    if (r.begun_fd >= 0) (void)close(r.begun_fd);
    if (r.data_fd >= 0) (void)close(r.data_fd);
    mir_storage_marker_fini(&marker);
    return status;
}
