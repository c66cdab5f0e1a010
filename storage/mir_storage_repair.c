/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include "mir_tlog_mend.h"

/* Each damaged file gets a second name below MIR_STORAGE_DAMAGED before anything replaces it, so that a
 * crash at any moment leaves it there; the manifest changes once, when all new segments are there.
 * What a start does by itself (leftovers of a crash, the sealing of logs) is done by opening the log
 * as a start does. */

enum { ASIDE_TRIES_MAX = 10000, SETTLE_MS = 3600 * 1000 };

typedef struct repairing {
    const char *data;
    char telemetry[MIR_STORAGE_PATH_BYTES_MAX];
    bool dry;
    int lock;
    const mir_storage_watch *watch;
    mir_storage_repaired *result;
    mir_storage_progress progress;
    mir_tlog_codec codec;
    mir_storage_files files;
    mir_tlog_manifest manifest; /* the next one */
    bool manifest_changed;
    bool logs_changed;
    uint32_t replaced_count;
    char (*replaced)[MIR_STORAGE_NAME_BYTES_MAX]; /* have another name now: to be unlinked */
    /* Of the segment that is read. */
    uint64_t generation_min;
    uint64_t generation_max;
    mir_tlog_segment_writer *writer;
} repairing;

/* ---- Saying ---- */

static void lost(repairing *r, const mir_storage_damage *damage)
{
    r->result->lost++;
    r->result->rows_lost += damage->rows;
    if (r->watch != NULL && r->watch->damage != NULL) r->watch->damage(r->watch->context, damage);
}

static void lost_told(void *context, const mir_storage_damage *damage)
{
    lost(context, damage);
}

static void did(repairing *r, const char *file, const char *format, ...) MIR_PRINTF(3, 4);
static void did(repairing *r, const char *file, const char *format, ...)
{
    char text[400];
    va_list values;
    va_start(values, format);
    (void)vsnprintf(text, sizeof text, format, values);
    va_end(values);
    r->result->steps++;
    if (r->watch != NULL && r->watch->step != NULL) r->watch->step(r->watch->context, file, text);
}

/* ---- Putting aside ---- */

/* By another name of the same file, or where there are no such names by a copy. */
static int file_keep(const char *from, const char *to, mir_error *error, mir_status *status)
{
    *status = MIR_OK;
    if (link(from, to) == 0) return 0;
    if (errno == EEXIST) return EEXIST;
    const int source = open(from, O_RDONLY | O_CLOEXEC);
    const int target = source < 0 ? -1 : open(to, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (target < 0) {
        const int cause = errno;
        if (source >= 0) (void)close(source);
        if (cause != EEXIST) *status = mir_error_os(error, cause, "cannot keep %s", from);
        return cause;
    }
    mir_storage_progress none = {0};
    uint64_t size, hash, unread = 0;
    *status = mir_storage_pump(source, target, &none, &size, &hash, &unread, error);
    if (*status == MIR_OK && fsync(target) != 0)
        *status = mir_error_os(error, errno, "cannot sync %s", to);
    (void)close(source);
    (void)close(target);
    if (*status != MIR_OK) (void)unlink(to);
    return 0;
}

/* `<data>/<name>` stays as `<data>/damaged/<its last part>`, with a number if that name is taken. */
static mir_status keep(repairing *r, const char *name, mir_error *error)
{
    char from[MIR_STORAGE_PATH_BYTES_MAX];
    char folder[MIR_STORAGE_PATH_BYTES_MAX];
    char to[MIR_STORAGE_PATH_BYTES_MAX + MIR_STORAGE_NAME_BYTES_MAX + 16];
    const char *base = strrchr(name, '/') == NULL ? name : strrchr(name, '/') + 1;
    mir_status status = mir_storage_path(from, r->data, name, error);
    if (status == MIR_OK) status = mir_storage_path(folder, r->data, MIR_STORAGE_DAMAGED, error);
    if (status != MIR_OK) return status;
    if (mkdir(folder, 0700) != 0 && errno != EEXIST)
        return mir_error_os(error, errno, "cannot make %s", folder);
    for (int n = 0; n < ASIDE_TRIES_MAX; n++) {
        if (n == 0)
            (void)snprintf(to, sizeof to, "%s/%s", folder, base);
        else
            (void)snprintf(to, sizeof to, "%s/%s.%d", folder, base, n);
        if (file_keep(from, to, error, &status) == EEXIST) continue;
        return status == MIR_OK ? mir_storage_sync(folder, error) : status;
    }
    return mir_error_set(error, MIR_E_FULL, "%s is full of files of that name: empty it", folder);
}

/* It is kept, and will go when the manifest does not need it any more. */
static mir_status replaced(repairing *r, const char *name, mir_error *error)
{
    mir_status status = keep(r, name, error);
    if (status != MIR_OK) return status;
    void *more = realloc(r->replaced, (r->replaced_count + UINT32_C(1)) * sizeof *r->replaced);
    if (more == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    r->replaced = more;
    (void)snprintf(r->replaced[r->replaced_count++], MIR_STORAGE_NAME_BYTES_MAX, "%s", name);
    return MIR_OK;
}

/* ---- Segments ---- */

static mir_status segment_listed(repairing *r, uint64_t number, mir_error *error)
{
    mir_tlog_manifest *manifest = &r->manifest;
    uint64_t *more =
        realloc(manifest->segments, (manifest->segment_count + UINT32_C(1)) * sizeof *more);
    if (more == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    manifest->segments = more;
    more[manifest->segment_count++] = number;
    return MIR_OK;
}

/* Of all that its index lists, which may be read the next time. */
static mir_status generations_find(repairing *r, mir_tlog_segment *segment, mir_error *error)
{
    mir_tlog_index_cursor at = {.segment = segment};
    mir_status status = MIR_OK;
    r->generation_min = UINT64_MAX;
    r->generation_max = 0;
    while (status == MIR_OK || status == MIR_E_CORRUPT || status == MIR_E_IO) {
        status = mir_tlog_index_next(&at, &r->codec);
        for (uint32_t i = 0; status == MIR_OK && i < at.chunk_count; i++) {
            const uint64_t generation = at.chunks[i].generation;
            if (generation < r->generation_min) r->generation_min = generation;
            if (generation > r->generation_max) r->generation_max = generation;
        }
    }
    mir_tlog_index_fini(&at);
    return status == MIR_E_EMPTY ? MIR_OK : mir_error_set(error, status, "out of memory");
}

static mir_status chunk_write(void *context, const mir_tlog_index_cursor *at,
                              const mir_tlog_chunk *chunk, mir_view bytes, mir_error *error)
{
    repairing *r = context;
    const mir_tlog_segment *segment = at->segment;
    return mir_tlog_segment_put_chunk(r->writer, &r->codec, segment->measurements[at->measurement],
                                      at->device, segment, chunk, bytes, error);
}

/* What is whole of it, under the next number. What is not is told now: a disk that fails may read less
 * than it did a moment ago, or more. */
static mir_status segment_write(repairing *r, mir_tlog_mend *mend, mir_storage_walk *walk,
                                mir_error *error)
{
    char file[MIR_STORAGE_NAME_BYTES_MAX];
    char temporary[MIR_STORAGE_PATH_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_tlog_segment_head head = mend->segment->head;
    mir_status status = MIR_OK;
    if (mend->header_made) {
        status = generations_find(r, mend->segment, error);
        if (status != MIR_OK) return status;
        head.generation_min = r->generation_min;
        head.generation_max = r->generation_max;
    }
    head.id = r->manifest.next_number++;
    (void)snprintf(file, sizeof file, "%016" PRIx64 ".seg.tmp", head.id);
    status = mir_storage_path(temporary, r->telemetry, file, error);
    file[20] = '\0';
    if (status == MIR_OK) status = mir_storage_path(path, r->telemetry, file, error);
    if (status != MIR_OK) return status;
    (void)unlink(temporary);
    status = mir_tlog_segment_begin(&mir_tlog_files_posix, temporary, &head, &r->writer, error);
    if (status != MIR_OK) return status;
    *walk = (mir_storage_walk){.file = walk->file,
                               .progress = &r->progress,
                               .context = r,
                               .tell = lost_told,
                               .keep = chunk_write};
    status = mir_storage_walk_segment(walk, mend->segment, &r->codec, error);
    mir_bytes_free(&walk->bytes);
    uint64_t size;
    if (status != MIR_OK || walk->chunks == 0) {
        mir_tlog_segment_abandon(r->writer);
        return status;
    }
    status = mir_tlog_segment_end(r->writer, &r->codec, &size, error);
    if (status == MIR_OK && rename(temporary, path) != 0)
        status = mir_error_os(error, errno, "cannot rename %s", temporary);
    return status == MIR_OK ? segment_listed(r, head.id, error) : status;
}

/* Nothing of it can be had. */
static mir_status segment_lost(repairing *r, uint64_t number, const char *name, bool aside,
                               const char *why, mir_error *error)
{
    char file[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(file, sizeof file, "telemetry/%016" PRIx64 ".seg", number);
    struct stat about;
    mir_status status = mir_storage_path(path, r->data, name, error);
    if (status != MIR_OK) return status;
    const bool there = stat(path, &about) == 0;
    const bool missing = !there || (aside && about.st_size == 0);
    lost(r, &(mir_storage_damage){
                .kind = MIR_STORAGE_SEGMENT,
                .file = file,
                .text = missing ? "it is missing: which rows were in it is not known" : why});
    did(r, name,
        missing ? "it is not expected any more" : "it is moved to " MIR_STORAGE_DAMAGED "/");
    r->manifest_changed = true;
    return there && !r->dry ? replaced(r, name, error) : MIR_OK;
}

/* `aside`: a start has set it aside before. */
static mir_status segment_repair(repairing *r, uint64_t number, bool aside, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_error why = {{0}};
    mir_tlog_mend mend;
    (void)snprintf(name, sizeof name, "telemetry/%016" PRIx64 ".seg%s", number,
                   aside ? ".damaged" : "");
    mir_status status = mir_storage_path(path, r->data, name, error);
    if (status != MIR_OK) return status;
    status = mir_tlog_mend_open(&mend, &mir_tlog_files_posix, path, number, &r->codec, &why);
    if (status == MIR_E_CORRUPT || status == MIR_E_NOT_FOUND || status == MIR_E_IO)
        return segment_lost(r, number, name, aside, why.text, error);
    if (status != MIR_OK) return mir_error_set(error, status, "%s", why.text);
    mir_storage_walk walk = {
        .file = name, .progress = &r->progress, .context = r, .tell = r->dry ? lost_told : NULL};
    status = mir_storage_walk_segment(&walk, mend.segment, &r->codec, error);
    mir_bytes_free(&walk.bytes);
    if (status != MIR_OK) goto out;
    if (walk.damage == 0 && !mend.header_made && !mend.trailer_made && !aside) {
        status = segment_listed(r, number, error);
        goto out;
    }
    r->manifest_changed = true;
    if (!r->dry) status = segment_write(r, &mend, &walk, error);
    if (status != MIR_OK) goto out;
    r->result->rows_kept += walk.rows;
    did(r, name,
        "%" PRIu64 " rows in %" PRIu64
        " chunks are kept, in a new segment; it is moved to " MIR_STORAGE_DAMAGED "/",
        walk.rows, walk.chunks);
    if (!r->dry) status = replaced(r, name, error);
out:
    mir_tlog_mend_close(&mend);
    return status;
}

/* ---- Logs ---- */

/* Takes the place of `<number>.log`. */
static mir_status log_write(repairing *r, uint64_t number, const uint8_t *bytes, size_t size,
                            mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char temporary[MIR_STORAGE_PATH_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(name, sizeof name, "%016" PRIx64 ".log.tmp", number);
    mir_status status = mir_storage_path(temporary, r->telemetry, name, error);
    name[20] = '\0';
    if (status == MIR_OK) status = mir_storage_path(path, r->telemetry, name, error);
    if (status != MIR_OK) return status;
    (void)unlink(temporary);
    const int fd = open(temporary, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0640);
    if (fd < 0) return mir_error_os(error, errno, "cannot create %s", temporary);
    const int result = mir_tlog_file_write(&mir_tlog_files_posix, fd, bytes, size, 0);
    if (result < 0) status = mir_error_os(error, -result, "cannot write %s", temporary);
    if (status == MIR_OK && fsync(fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", temporary);
    (void)close(fd);
    if (status == MIR_OK && rename(temporary, path) != 0)
        status = mir_error_os(error, errno, "cannot rename %s", temporary);
    if (status != MIR_OK) (void)unlink(temporary);
    return status;
}

static void log_losses(repairing *r, const char *name, const mir_tlog_replay *found,
                       uint64_t unread)
{
    char text[200];
    if (unread > 0) {
        (void)snprintf(text, sizeof text,
                       "the disk cannot read %" PRIu64 " bytes of it: the rows in them are lost",
                       unread);
        lost(r, &(mir_storage_damage){.kind = MIR_STORAGE_LOG, .file = name, .text = text});
    }
    if (found->corrupt_frames > 0) {
        (void)snprintf(text, sizeof text,
                       "%" PRIu64 " damaged regions between whole frames: the rows that came then "
                       "are lost",
                       found->corrupt_frames);
        lost(r, &(mir_storage_damage){.kind = MIR_STORAGE_LOG, .file = name, .text = text});
    }
    if (found->rows_lost > 0)
        lost(r, &(mir_storage_damage){.kind = MIR_STORAGE_LOG,
                                      .file = name,
                                      .rows = found->rows_lost,
                                      .text = "the names of what these rows belong to are lost"});
    if (found->torn_bytes > 0)
        lost(r, &(mir_storage_damage){.kind = MIR_STORAGE_LOG,
                                      .file = name,
                                      .offset = found->bytes,
                                      .bytes = found->torn_bytes,
                                      .text = "its end is torn: what was being written when the "
                                              "server ended is lost"});
}

static mir_status log_repair(repairing *r, uint64_t number, bool aside, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(name, sizeof name, "telemetry/%016" PRIx64 ".log%s", number,
                   aside ? ".damaged" : "");
    mir_status status = mir_storage_path(path, r->data, name, error);
    uint8_t *bytes = NULL;
    size_t size = 0;
    uint64_t unread = 0;
    mir_error why = {{0}};
    if (status == MIR_OK) status = mir_storage_log_bytes(path, &bytes, &size, &unread, &why);
    if (status == MIR_E_NO_MEMORY || status == MIR_E_PERMISSION)
        return mir_error_set(error, status, "%s", why.text);
    mir_tlog_mem *mem = NULL;
    mir_tlog_replay found = {0};
    mir_tlog_log_look look = {0};
    if (status == MIR_OK) {
        status = mir_tlog_log_look_bytes(mir_view_of(bytes, size), number, &look, &why);
        if (status == MIR_E_CORRUPT && mir_tlog_mend_log(bytes, size, number)) {
            look.headers_damaged = 2;
            status = MIR_OK;
        }
        if (status == MIR_OK)
            status =
                mir_tlog_log_replay_bytes(mir_view_of(bytes, size), number, &mem, &found, &why);
        mir_tlog_mem_free(mem);
    }
    if (status == MIR_E_UNSUPPORTED || status == MIR_E_NO_MEMORY) {
        free(bytes);
        return mir_error_set(error, status, "%s: %s", name, why.text);
    }
    if (status == MIR_E_EMPTY && aside && size == 0) /* what a backup says of one */
        status =
            mir_error_set(&why, MIR_E_CORRUPT, "it is missing: which rows were in it is not known");
    if (status == MIR_E_EMPTY && unread > 0)
        status = mir_error_set(&why, MIR_E_CORRUPT, "the disk cannot read it");
    if (status != MIR_OK && status != MIR_E_EMPTY) {
        lost(r, &(mir_storage_damage){.kind = MIR_STORAGE_LOG, .file = name, .text = why.text});
        did(r, name, "it is moved to " MIR_STORAGE_DAMAGED "/");
        free(bytes);
        r->logs_changed = true;
        return r->dry ? MIR_OK : replaced(r, name, error);
    }
    log_losses(r, name, &found, unread);
    const bool damaged = unread > 0 || look.headers_damaged + look.padding_damaged > 0 || aside ||
                         found.corrupt_frames + found.torn_bytes + found.rows_lost > 0;
    status = MIR_OK;
    if (damaged) {
        r->logs_changed = true;
        r->result->rows_kept += found.rows;
        did(r, name, "%" PRIu64 " rows are kept; it is moved to " MIR_STORAGE_DAMAGED "/",
            found.rows);
        if (!r->dry) {
            status = aside ? replaced(r, name, error) : keep(r, name, error);
            /* The other copy of the header is right, or was put right above. */
            if (status == MIR_OK && (found.rows > 0 || !aside) &&
                mir_tlog_mend_log(bytes, size, number))
                status = log_write(r, number, bytes, found.bytes, error);
        }
    }
    free(bytes);
    return status == MIR_OK ? mir_storage_advance(&r->progress, size, error) : status;
}

/* What a start has set aside takes its name again, which somebody may have given to another file
 * since: a log out of a backup. A repair that was killed leaves the same rows under both. */
static mir_status log_place_check(const repairing *r, uint64_t number, mir_error *error)
{
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    uint8_t *bytes[2] = {NULL, NULL};
    size_t size[2] = {0, 0};
    uint64_t unread = 0;
    mir_status status = MIR_OK;
    for (int aside = 0; aside < 2 && status == MIR_OK; aside++) {
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".log%s", number,
                       aside != 0 ? ".damaged" : "");
        status = mir_storage_path(path, r->telemetry, name, error);
        if (status == MIR_OK)
            status = mir_storage_log_bytes(path, &bytes[aside], &size[aside], &unread, error);
    }
    if (status == MIR_OK) {
        const bool mended = mir_tlog_mend_log(bytes[1], size[1], number);
        if (!mended || size[0] > size[1] || memcmp(bytes[0], bytes[1], size[0]) != 0)
            status = mir_error_set(error, MIR_E_INVALID,
                                   "%s is there although %.20s is: their rows are not the same; "
                                   "move one of them away, then repair",
                                   path, name);
    }
    free(bytes[0]);
    free(bytes[1]);
    return status;
}

/* ---- The telemetry log ---- */

static mir_status manifest_repair(repairing *r, mir_error *error)
{
    const mir_storage_files *files = &r->files;
    r->manifest.next_number = files->manifest.next_number;
    for (uint32_t i = 0; i < files->manifest.segment_count; i++)
        if (files->manifest.segments[i] >= r->manifest.next_number)
            r->manifest.next_number = files->manifest.segments[i] + 1;
    if (files->number_max >= r->manifest.next_number)
        r->manifest.next_number = files->number_max + 1;
    if (files->manifest.sealed_count > 0) {
        r->manifest.sealed = malloc(files->manifest.sealed_count * sizeof *r->manifest.sealed);
        if (r->manifest.sealed == NULL)
            return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        memcpy(r->manifest.sealed, files->manifest.sealed,
               files->manifest.sealed_count * sizeof *r->manifest.sealed);
        r->manifest.sealed_count = files->manifest.sealed_count;
    }
    const bool corrupt = files->manifest_status == MIR_E_CORRUPT;
    if (!corrupt && !files->manifest_lost) return MIR_OK;
    r->manifest_changed = true;
    did(r, "telemetry/MANIFEST", "it is made again from the %" PRIu32 " segments that are there%s",
        files->segment_count, corrupt ? "; it is moved to " MIR_STORAGE_DAMAGED "/" : "");
    return corrupt && !r->dry ? keep(r, "telemetry/MANIFEST", error) : MIR_OK;
}

/* Once all that is kept of the old files is there under other names. */
static mir_status telemetry_change(repairing *r, mir_error *error)
{
    bool in_doubt;
    mir_status status = mir_storage_advance(&r->progress, 0, error);
    if (status == MIR_OK && r->manifest_changed)
        status = mir_tlog_manifest_write(&mir_tlog_files_posix, r->telemetry, &r->manifest,
                                         &in_doubt, error);
    if (status == MIR_OK) status = mir_storage_sync(r->telemetry, error);
    for (uint32_t i = 0; i < r->replaced_count && status == MIR_OK; i++) {
        char path[MIR_STORAGE_PATH_BYTES_MAX];
        status = mir_storage_advance(&r->progress, 0, error);
        if (status == MIR_OK) status = mir_storage_path(path, r->data, r->replaced[i], error);
        if (status == MIR_OK && unlink(path) != 0)
            status = mir_error_os(error, errno, "cannot remove %s", path);
    }
    if (status == MIR_OK) status = mir_storage_sync(r->telemetry, error);
    if (status == MIR_OK) status = mir_storage_advance(&r->progress, 0, error);
    if (status != MIR_OK || !r->logs_changed) return status;
    /* Logs with a damaged region are read once more, and for the last time. */
    const mir_tlog_options options = {.directory = r->telemetry, .writer_count = 1};
    mir_tlog *tlog;
    status = mir_tlog_open(&options, &tlog, error);
    if (status != MIR_OK) return status;
    status = mir_tlog_settle(tlog, SETTLE_MS, error);
    mir_tlog_close(tlog);
    return status;
}

static mir_status telemetry_repair(repairing *r, mir_error *error)
{
    mir_status status = mir_storage_files_list(r->telemetry, &r->files, error);
    if (status != MIR_OK) return status;
    const mir_storage_files *files = &r->files;
    for (uint32_t i = 0; i < files->manifest.segment_count; i++) {
        char name[MIR_STORAGE_NAME_BYTES_MAX];
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".seg", files->manifest.segments[i]);
        r->progress.total += mir_storage_file_bytes(r->telemetry, name);
    }
    for (uint32_t i = 0; i < files->set_aside && status == MIR_OK; i++) {
        const uint64_t number = strtoull(files->aside[i], NULL, 16);
        if (strcmp(files->aside[i] + 16, ".log.damaged") == 0 &&
            mir_storage_number_in(files->logs, files->log_count, number))
            status = log_place_check(r, number, error);
    }
    if (status == MIR_OK) status = manifest_repair(r, error);
    for (uint32_t i = 0; i < files->manifest.segment_count && status == MIR_OK; i++)
        status = segment_repair(r, files->manifest.segments[i], false, error);
    for (uint32_t i = 0; i < files->set_aside && status == MIR_OK; i++) {
        const uint64_t number = strtoull(files->aside[i], NULL, 16);
        status = strcmp(files->aside[i] + 16, ".seg.damaged") == 0
                     ? segment_repair(r, number, true, error)
                     : log_repair(r, number, true, error);
    }
    for (uint32_t i = 0; i < files->log_count && status == MIR_OK; i++)
        status = log_repair(r, files->logs[i], false, error);
    if (status != MIR_OK || r->dry || r->result->steps == 0) return status;
    return telemetry_change(r, error);
}

/* ---- The state store ---- */

static mir_status state_ask(const char *path, mir_storage_state_fn work, mir_error *error)
{
    mir_storage_child child;
    const mir_status status = mir_storage_child_begin(path, work, &child, error);
    return status == MIR_OK ? mir_storage_child_end(&child, error) : status;
}

/* A compact copy of `<from>/data.mdb`, which a check finds nothing against, as `<to>/data.mdb`. */
static mir_status state_copy(repairing *r, const char *from, const char *to, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, to, "data.mdb", error);
    if (status != MIR_OK) return status;
    (void)unlink(path);
    const int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (fd < 0) return mir_error_os(error, errno, "cannot create %s", path);
    mir_storage_child child;
    status = mir_storage_child_begin(from, mir_storage_state_copy, &child, error);
    if (status == MIR_OK) {
        uint64_t size, hash;
        mir_error why = {{0}};
        status = mir_storage_pump(child.from, fd, &r->progress, &size, &hash, NULL, error);
        const mir_status ended = mir_storage_child_end(&child, &why);
        if (status == MIR_OK && ended != MIR_OK)
            status = mir_error_set(error, ended, "%s", why.text);
    }
    if (status == MIR_OK && fsync(fd) != 0)
        status = mir_error_os(error, errno, "cannot sync %s", path);
    (void)close(fd);
    return status == MIR_OK ? state_ask(to, mir_storage_state_check, error) : status;
}

/* The file once more, with one of its two heads in the place of the other as well: LMDB opens none
 * that has a damaged one, and each of them is of a commit whose pages are all there. */
static mir_status state_head(const char *from, const char *to, int good, mir_error *error)
{
    enum { PAGE_BYTES_MAX = 65536 };
    const long page_bytes = sysconf(_SC_PAGESIZE);
    const size_t page_size =
        page_bytes > 0 && page_bytes <= PAGE_BYTES_MAX ? (size_t)page_bytes : 4096;
    char source[MIR_STORAGE_PATH_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(source, from, "data.mdb", error);
    if (status == MIR_OK) status = mir_storage_path(path, to, "data.mdb", error);
    if (status != MIR_OK) return status;
    const int in = open(source, O_RDONLY | O_CLOEXEC);
    if (in < 0) return mir_error_os(error, errno, "cannot open %s", source);
    (void)unlink(path);
    const int out = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (out < 0) {
        status = mir_error_os(error, errno, "cannot create %s", path);
        (void)close(in);
        return status;
    }
    mir_storage_progress none = {0};
    uint64_t size, hash, unread = 0;
    uint8_t page[PAGE_BYTES_MAX];
    status = mir_storage_pump(in, out, &none, &size, &hash, &unread, error);
    const off_t good_at = good * (off_t)page_size;
    if (status == MIR_OK) {
        if (pread(out, page, page_size, good_at) != (ssize_t)page_size) {
            status = mir_error_set(error, MIR_E_CORRUPT, "%s is too short", source);
        } else {
            memset(page, 0, 8); /* its number */
            page[0] = (uint8_t)(1 - good);
            if (pwrite(out, page, page_size, (off_t)page_size - good_at) != (ssize_t)page_size)
                status = mir_error_os(error, errno, "cannot write %s", path);
        }
    }
    (void)close(in);
    (void)close(out);
    return status;
}

static mir_status state_swap(repairing *r, const char *state, const char *made, mir_error *error)
{
    char from[MIR_STORAGE_PATH_BYTES_MAX];
    char to[MIR_STORAGE_PATH_BYTES_MAX];
    char table[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = keep(r, "state/data.mdb", error);
    if (status == MIR_OK) status = mir_storage_path(from, made, "data.mdb", error);
    if (status == MIR_OK) status = mir_storage_path(to, state, "data.mdb", error);
    if (status == MIR_OK) status = mir_storage_path(table, state, "lock.mdb", error);
    if (status != MIR_OK) return status;
    if (rename(from, to) != 0) return mir_error_os(error, errno, "cannot rename %s", from);
    (void)unlink(table); /* of readers of the file that it was */
    return mir_storage_sync(state, error);
}

static void state_clean(const char *folder)
{
    static const char *const names[] = {"data.mdb", "lock.mdb"};
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    for (size_t i = 0; i < 2; i++)
        if (mir_storage_path(path, folder, names[i], NULL) == MIR_OK) (void)unlink(path);
    (void)rmdir(folder);
}

/* Where copies are tried: beside what they would replace, or elsewhere for who only looks. */
static mir_status scratch_make(const repairing *r, char *path, mir_error *error)
{
    if (!r->dry) {
        (void)snprintf(path, MIR_STORAGE_PATH_BYTES_MAX, "%s", r->data);
        return MIR_OK;
    }
    const char *base = getenv("TMPDIR");
    const mir_status status = mir_storage_path(
        path, base == NULL || base[0] == '\0' ? "/tmp" : base, "mir-repair-XXXXXX", error);
    if (status != MIR_OK) return status;
    return mkdtemp(path) != NULL
               ? MIR_OK
               : mir_error_os(error, errno, "cannot make %s: set TMPDIR to another place", path);
}

static mir_status state_mend(repairing *r, const char *state, const char *scratch,
                             mir_status status, const mir_error *first, mir_error *error)
{
    char raw[MIR_STORAGE_PATH_BYTES_MAX];
    char made[MIR_STORAGE_PATH_BYTES_MAX];
    mir_error why = *first;
    mir_status named = mir_storage_path(raw, scratch, "state.raw.tmp", error);
    if (named == MIR_OK) named = mir_storage_path(made, scratch, "state.tmp", error);
    if (named != MIR_OK) return named;
    state_clean(raw); /* of a repair that was killed */
    state_clean(made);
    if (status == MIR_OK) return MIR_OK;
    if (status == MIR_E_CORRUPT && (mkdir(made, 0700) != 0 || mkdir(raw, 0700) != 0))
        status = mir_error_os(&why, errno, "cannot make %s", made);
    /* As it is, then with the one head, then with the other. */
    bool saved = false;
    int head = -1;
    while (head < 2 && status == MIR_E_CORRUPT && !saved) {
        status = head < 0 ? MIR_OK : state_head(state, raw, head, &why);
        if (status == MIR_OK) status = state_copy(r, head < 0 ? state : raw, made, &why);
        saved = status == MIR_OK;
        head++;
    }
    const mir_storage_damage damage = {
        .kind = MIR_STORAGE_STATE,
        .file = "state/data.mdb",
        .text =
            saved ? "one of its two heads is damaged: the last change may be lost" : first->text};
    if (!saved || head > 0) lost(r, &damage);
    if (saved && !r->dry) status = state_swap(r, state, made, error);
    state_clean(raw);
    state_clean(made);
    if (saved && status == MIR_OK) {
        did(r, "state/data.mdb",
            "what is in it is copied into a new one; it is moved to " MIR_STORAGE_DAMAGED "/");
        return MIR_OK;
    }
    if (saved || (status != MIR_E_CORRUPT && status != MIR_E_NOT_FOUND))
        return saved ? status : mir_error_set(error, status, "%s", why.text);
    r->result->beyond++;
    did(r, "state/data.mdb",
        "it cannot be repaired: make a data directory from a backup with `mir storage restore`");
    return MIR_OK;
}

static mir_status state_repair(repairing *r, mir_error *error)
{
    char state[MIR_STORAGE_PATH_BYTES_MAX];
    char scratch[MIR_STORAGE_PATH_BYTES_MAX];
    mir_error why = {{0}};
    mir_status status = mir_storage_path(state, r->data, "state", error);
    if (status != MIR_OK) return status;
    const mir_status found = state_ask(state, mir_storage_state_check, &why);
    if (found != MIR_OK && found != MIR_E_CORRUPT && found != MIR_E_NOT_FOUND)
        return mir_error_set(error, found, "%s", why.text);
    if (found == MIR_OK && r->dry) return MIR_OK;
    status = scratch_make(r, scratch, error);
    if (status == MIR_OK) status = state_mend(r, state, scratch, found, &why, error);
    if (r->dry) (void)rmdir(scratch);
    return status;
}

/* ---- All ---- */

static mir_status data_lock(repairing *r, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, r->data, "lock", error);
    if (status != MIR_OK) return status;
    /* Who only looks may not be able to write: disks that fail are often mounted read-only. */
    r->lock = open(path, r->dry ? O_RDONLY | O_CLOEXEC : O_RDWR | O_CREAT | O_CLOEXEC, 0640);
    if (r->lock < 0 && r->dry && errno == ENOENT) return MIR_OK;
    if (r->lock < 0) return mir_error_os(error, errno, "cannot open %s", path);
    if (flock(r->lock, LOCK_EX | LOCK_NB) == 0) return MIR_OK;
    return errno == EWOULDBLOCK
               ? mir_error_set(error, MIR_E_EXISTS,
                               "a server is running on %s: stop it, then repair", r->data)
               : mir_error_os(error, errno, "cannot lock %s", path);
}

mir_status mir_storage_repair(const char *data, bool dry, const mir_storage_watch *watch,
                              mir_storage_repaired *repaired, mir_error *error)
{
    *repaired = (mir_storage_repaired){0};
    repairing r = {.data = data,
                   .dry = dry,
                   .lock = -1,
                   .watch = watch,
                   .result = repaired,
                   .progress = {.watch = watch}};
    struct stat about;
    mir_status status = mir_storage_path(r.telemetry, data, "telemetry", error);
    if (status != MIR_OK) return status;
    if (stat(r.telemetry, &about) != 0)
        return mir_error_os(error, errno, "%s is no data directory: cannot read %s", data,
                            r.telemetry);
    const uid_t user = geteuid();
    const gid_t group = getegid();
    if (user == 0 && (setegid(about.st_gid) != 0 || seteuid(about.st_uid) != 0))
        return mir_error_os(error, errno, "cannot work as the owner of %s", r.telemetry);
    status = mir_storage_servable(data, error);
    if (status == MIR_OK) status = data_lock(&r, error);
    if (status == MIR_OK && mir_tlog_codec_init(&r.codec) != MIR_OK)
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK) {
        r.progress.total = mir_storage_file_bytes(data, "state/data.mdb");
        status = state_repair(&r, error);
        if (status == MIR_OK) status = telemetry_repair(&r, error);
        mir_tlog_codec_fini(&r.codec);
    }
    mir_storage_files_fini(&r.files);
    mir_tlog_manifest_fini(&r.manifest);
    free(r.replaced);
    if (r.lock >= 0) (void)close(r.lock);
    if (user == 0 && (seteuid(user) != 0 || setegid(group) != 0) && status == MIR_OK)
        status = mir_error_os(error, errno, "cannot work as root again");
    return status;
}
