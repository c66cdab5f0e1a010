/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

/* A running server merges and drops while this reads: a segment that cannot be opened is damaged only
 * if the manifest still names it, and what has come instead is read afterwards. */

enum { ROUNDS_MAX = 1000 }; /* each reads what came during the one before */

typedef struct checking {
    const char *data;
    char telemetry[MIR_STORAGE_PATH_BYTES_MAX];
    const mir_storage_watch *watch;
    mir_storage_checked *checked;
    mir_storage_progress progress;
    mir_tlog_codec codec;
} checking;

static void tell(checking *c, mir_storage_damage damage)
{
    c->checked->damage++;
    if (c->watch != NULL && c->watch->damage != NULL) c->watch->damage(c->watch->context, &damage);
}

static bool still_named(const checking *c, uint64_t number)
{
    mir_storage_files now;
    if (mir_storage_files_list(c->telemetry, &now, NULL) != MIR_OK) return true;
    const bool named =
        mir_storage_number_in(now.manifest.segments, now.manifest.segment_count, number);
    mir_storage_files_fini(&now);
    return named;
}

/* ---- A segment, chunk by chunk; repair walks the same way ---- */

static void walk_tell(mir_storage_walk *w, mir_storage_damage damage)
{
    char shown[MIR_STORAGE_MEASUREMENT_BYTES_MAX];
    w->damage++;
    damage.file = w->file;
    damage.measurement = mir_storage_measurement_shown(damage.measurement, shown);
    if (w->tell != NULL) w->tell(w->context, &damage);
}

static void tell_chunk(mir_storage_walk *w, const mir_tlog_index_cursor *at,
                       const mir_tlog_chunk *chunk, const char *text)
{
    walk_tell(w, (mir_storage_damage){.kind = MIR_STORAGE_CHUNK,
                                      .measurement = at->segment->measurements[at->measurement],
                                      .device = at->device,
                                      .has_range = true,
                                      .from_ns = chunk->time_min,
                                      .to_ns = chunk->time_max,
                                      .offset = chunk->offset,
                                      .bytes = chunk->size,
                                      .rows = chunk->rows,
                                      .text = text});
}

static void tell_index(mir_storage_walk *w, const mir_tlog_segment *segment, uint32_t block)
{
    const mir_tlog_index_block *from = &segment->blocks[block];
    char text[200] = "the series from here to the end of the segment cannot be found";
    if (block + 1 < segment->block_count) {
        const mir_tlog_index_block *to = &segment->blocks[block + 1];
        char shown[MIR_STORAGE_MEASUREMENT_BYTES_MAX];
        const mir_view name =
            mir_storage_measurement_shown(segment->measurements[to->measurement], shown);
        (void)snprintf(
            text, sizeof text, "the series from here to before %.*s of %.*s cannot be found",
            (int)(name.size < 60 ? name.size : 60), (const char *)name.data,
            (int)(to->device.size < 60 ? to->device.size : 60), (const char *)to->device.data);
    }
    walk_tell(w, (mir_storage_damage){.kind = MIR_STORAGE_INDEX,
                                      .measurement = segment->measurements[from->measurement],
                                      .device = from->device,
                                      .has_range = true,
                                      .from_ns = segment->time_min,
                                      .to_ns = segment->time_max,
                                      .offset = from->offset,
                                      .bytes = from->size,
                                      .text = text});
}

/* `block` UINT32_MAX: all that is there twice. */
static void tell_spare(mir_storage_walk *w, const mir_tlog_segment *segment, uint32_t block)
{
    mir_storage_damage damage = {.kind = MIR_STORAGE_INDEX,
                                 .text = "its second index or footer is damaged; the first ones "
                                         "are whole, and no row is lost"};
    if (block != UINT32_MAX) {
        damage.offset = segment->blocks[block].offset;
        damage.bytes = segment->blocks[block].size;
        damage.text = "a block of its index is damaged; there is a second one, and no row is lost";
    }
    if (w->tells_spares)
        walk_tell(w, damage);
    else
        w->damage++;
}

/* The checksum holds; so must the shape of what it covers. */
static mir_status chunk_check(mir_view bytes, const mir_tlog_segment_shape *shape,
                              const mir_tlog_chunk *chunk)
{
    mir_tlog_chunk_reader reader;
    mir_status status = mir_tlog_chunk_begin(&reader, bytes, shape);
    if (status == MIR_OK && reader.rows != chunk->rows) status = MIR_E_CORRUPT;
    while (status == MIR_OK) {
        status = mir_tlog_chunk_next(&reader);
        if (status == MIR_E_EMPTY) return MIR_OK;
        if (status == MIR_OK) status = mir_tlog_chunk_pass(&reader);
    }
    return status;
}

static mir_status series_walk(mir_storage_walk *w, const mir_tlog_index_cursor *at,
                              mir_error *error)
{
    for (uint32_t i = 0; i < at->chunk_count; i++) {
        const mir_tlog_chunk *chunk = &at->chunks[i];
        w->bytes.size = 0;
        mir_status status = mir_tlog_chunk_read(at->segment, chunk, &w->bytes);
        const mir_view bytes = mir_bytes_as_view(&w->bytes);
        const bool read = status == MIR_OK;
        w->chunks_listed++;
        w->rows_listed += chunk->rows;
        if (status == MIR_E_NO_MEMORY) return mir_error_set(error, status, "out of memory");
        if (read) status = chunk_check(bytes, &at->segment->shapes[chunk->shape], chunk);
        if (status != MIR_OK) {
            tell_chunk(w, at, chunk,
                       read                 ? "its checksum holds, but it cannot be read"
                       : status == MIR_E_IO ? "the disk cannot read it"
                                            : "its checksum is wrong");
        } else {
            w->chunks++;
            w->rows += chunk->rows;
            status = w->keep == NULL ? MIR_OK : w->keep(w->context, at, chunk, bytes, error);
            if (status != MIR_OK) return status;
        }
        status = mir_storage_advance(w->progress, chunk->size, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

mir_status mir_storage_walk_segment(mir_storage_walk *w, mir_tlog_segment *segment,
                                    mir_tlog_codec *codec, mir_error *error)
{
    mir_tlog_index_cursor at = {.segment = segment};
    mir_status status = MIR_OK;
    bool whole = true;
    uint32_t spare_told = UINT32_MAX;
    const uint64_t before = w->progress->done;
    while (status == MIR_OK) {
        status = mir_tlog_index_next(&at, codec);
        if (status == MIR_OK && at.from_spare && at.block != spare_told) {
            tell_spare(w, segment, at.block);
            spare_told = at.block;
        }
        if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
            tell_index(w, segment, at.block);
            whole = false;
            status = MIR_OK;
        } else if (status == MIR_OK) {
            status = series_walk(w, &at, error);
        } else if (status != MIR_E_EMPTY) {
            (void)mir_error_set(error, status, "cannot read %s", w->file);
        }
    }
    mir_tlog_index_fini(&at);
    if (status != MIR_E_EMPTY) return status;
    if (whole && (w->rows_listed != segment->rows || w->chunks_listed != segment->chunk_count))
        walk_tell(w, (mir_storage_damage){.kind = MIR_STORAGE_SEGMENT,
                                          .text = "its index and its footer count differently"});
    status = mir_tlog_segment_check_spares(segment, codec);
    if (status == MIR_E_NO_MEMORY) return mir_error_set(error, status, "out of memory");
    if (status != MIR_OK) tell_spare(w, segment, UINT32_MAX);
    const uint64_t walked = w->progress->done - before;
    return segment->size <= walked
               ? MIR_OK
               : mir_storage_advance(w->progress, segment->size - walked, error);
}

static void walk_told(void *context, const mir_storage_damage *damage)
{
    tell(context, *damage);
}

static mir_status segment_check(checking *c, uint64_t number, mir_error *error)
{
    char file[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(file, sizeof file, "telemetry/%016" PRIx64 ".seg", number);
    mir_status status = mir_storage_path(path, c->data, file, error);
    if (status != MIR_OK) return status;
    mir_tlog_segment *segment = NULL;
    mir_error why = {{0}};
    status = mir_tlog_segment_open(&mir_tlog_files_posix, path, number, &c->codec, &segment, &why);
    if (status == MIR_E_NO_MEMORY) return mir_error_set(error, status, "%s", why.text);
    if (status != MIR_OK) {
        if (still_named(c, number))
            tell(c,
                 (mir_storage_damage){.kind = MIR_STORAGE_SEGMENT, .file = file, .text = why.text});
        return MIR_OK;
    }
    c->checked->files++;
    c->checked->bytes += segment->size;
    mir_storage_walk walk = {.file = file,
                             .progress = &c->progress,
                             .context = c,
                             .tell = walk_told,
                             .tells_spares = true};
    status = mir_storage_walk_segment(&walk, segment, &c->codec, error);
    c->checked->chunks += walk.chunks;
    c->checked->rows += walk.rows;
    mir_bytes_free(&walk.bytes);
    mir_tlog_segment_release(segment);
    return status;
}

static mir_status log_check(checking *c, uint64_t number, mir_error *error)
{
    char file[MIR_STORAGE_NAME_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    (void)snprintf(file, sizeof file, "telemetry/%016" PRIx64 ".log", number);
    mir_status status = mir_storage_path(path, c->data, file, error);
    if (status != MIR_OK) return status;
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 && errno == ENOENT) return MIR_OK; /* it was sealed meanwhile */
    mir_storage_damage damage = {.kind = MIR_STORAGE_LOG, .file = file};
    mir_error why = {{0}};
    if (fd < 0) {
        (void)mir_error_os(&why, errno, "cannot open it");
        damage.text = why.text;
        tell(c, damage);
        return MIR_OK;
    }
    mir_tlog_log_look look = {0};
    char text[160];
    status = mir_tlog_log_look_at(&mir_tlog_files_posix, fd, number, &look, &why);
    (void)close(fd);
    if (status == MIR_E_NO_MEMORY) return mir_error_set(error, status, "%s", why.text);
    if (status == MIR_E_EMPTY) return MIR_OK;
    c->checked->files++;
    if (status != MIR_OK) {
        damage.text = why.text;
        tell(c, damage);
        return MIR_OK;
    }
    c->checked->bytes += look.found.bytes;
    c->checked->rows += look.found.rows;
    if (look.headers_damaged > 0) {
        damage.text =
            "one copy of its header is damaged; the other one is whole, and no row is lost";
        damage.bytes = 64;
        tell(c, damage);
    }
    if (look.padding_damaged > 0) {
        damage.text = "bytes between its frames have changed; no row is lost";
        damage.bytes = 0;
        tell(c, damage);
    }
    if (look.found.corrupt_frames > 0) {
        (void)snprintf(text, sizeof text,
                       "%" PRIu64
                       " damaged regions between whole frames: the rows in them are lost",
                       look.found.corrupt_frames);
        damage.text = text;
        damage.bytes = 0;
        tell(c, damage);
    }
    /* The last frame of a log that a server writes may be on its way. */
    if (look.found.torn_bytes > 0 && !mir_storage_served(c->data)) {
        damage.text = "its end is torn: what was written last before a power cut is lost";
        damage.offset = look.found.bytes;
        damage.bytes = look.found.torn_bytes;
        tell(c, damage);
    }
    const uint64_t bytes = look.found.bytes;
    free(look.bytes);
    return mir_storage_advance(&c->progress, bytes, error);
}

/* The segments of `files` that `before` has not. */
static mir_status segments_check(checking *c, const mir_storage_files *files,
                                 const mir_storage_files *before, uint32_t *checked,
                                 mir_error *error)
{
    mir_status status = MIR_OK;
    *checked = 0;
    for (uint32_t i = 0; i < files->manifest.segment_count && status == MIR_OK; i++) {
        const uint64_t number = files->manifest.segments[i];
        if (before != NULL && mir_storage_number_in(before->manifest.segments,
                                                    before->manifest.segment_count, number))
            continue;
        ++*checked;
        status = segment_check(c, number, error);
    }
    return status;
}

/* Of a server that seals and merges: the rows of a log or a segment that is gone are in these. */
static mir_status arrivals_check(checking *c, mir_storage_files *files, mir_error *error)
{
    mir_status status = MIR_OK;
    uint32_t checked = 1;
    for (int round = 0; round < ROUNDS_MAX && checked > 0 && status == MIR_OK; round++) {
        mir_storage_files now;
        status = mir_storage_files_list(c->telemetry, &now, error);
        if (status != MIR_OK) return status;
        status = segments_check(c, &now, files, &checked, error);
        mir_storage_files_fini(files);
        *files = now;
    }
    return status;
}

static mir_status telemetry_check(checking *c, mir_storage_files *files, mir_error *error)
{
    if (files->manifest_status == MIR_E_CORRUPT || files->manifest_lost)
        tell(c, (mir_storage_damage){.kind = MIR_STORAGE_MANIFEST,
                                     .file = "telemetry/MANIFEST",
                                     .text = files->manifest_status == MIR_E_CORRUPT
                                                 ? "it is damaged; no row is lost by that"
                                                 : "it is missing; no row is lost by that"});
    c->checked->set_aside = files->set_aside;
    uint32_t checked;
    mir_status status = segments_check(c, files, NULL, &checked, error);
    for (uint32_t i = 0; i < files->log_count && status == MIR_OK; i++)
        status = log_check(c, files->logs[i], error);
    return status == MIR_OK ? arrivals_check(c, files, error) : status;
}

static mir_status state_check(checking *c, bool events, mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX];
    mir_status status = mir_storage_path(path, c->data, "state", error);
    if (status != MIR_OK) return status;
    const uint64_t bytes = mir_storage_file_bytes(path, "data.mdb");
    mir_storage_child child;
    mir_error why = {{0}};
    status = mir_storage_child_begin(path, mir_storage_state_check, &child, error);
    if (status != MIR_OK) return status;
    status = mir_storage_child_end(&child, &why);
    c->checked->files++;
    c->checked->bytes += bytes;
    if (status == MIR_E_NO_MEMORY || status == MIR_E_PERMISSION || status == MIR_E_AGAIN)
        return mir_error_set(error, status, "%s", why.text);
    if (status != MIR_OK)
        tell(c, (mir_storage_damage){
                    .kind = MIR_STORAGE_STATE, .file = "state/data.mdb", .text = why.text});
    if (status == MIR_OK && events) {
        status = mir_storage_child_begin(path, mir_storage_state_events, &child, error);
        if (status != MIR_OK) return status;
        uint64_t links = 0;
        ssize_t got;
        do got = read(child.from, &links, sizeof links);
        while (got < 0 && errno == EINTR);
        if (got == (ssize_t)sizeof links) c->checked->events = links;
        status = mir_storage_child_end(&child, &why);
        if (status != MIR_OK)
            tell(c, (mir_storage_damage){
                        .kind = MIR_STORAGE_EVENTS, .file = "state/data.mdb", .text = why.text});
    }
    return mir_storage_advance(&c->progress, bytes, error);
}

/* What is in a backup stays as it was listed. */
static mir_status backup_check(checking *c, mir_error *error)
{
    mir_storage_marker marker;
    mir_error why = {{0}};
    const char *text;
    const char *half = mir_storage_unfinished(c->data, &text);
    if (half != NULL)
        tell(c, (mir_storage_damage){.kind = MIR_STORAGE_BACKUP, .file = half, .text = text});
    mir_status status = mir_storage_marker_read(c->data, &marker, &why);
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    if (status != MIR_OK) {
        tell(c, (mir_storage_damage){
                    .kind = MIR_STORAGE_BACKUP, .file = MIR_STORAGE_MARKER, .text = why.text});
        return MIR_OK;
    }
    for (uint32_t i = 0; i < marker.count && status == MIR_OK; i++) {
        const mir_storage_entry *entry = &marker.entries[i];
        char path[MIR_STORAGE_PATH_BYTES_MAX];
        status = mir_storage_path(path, c->data, entry->name, error);
        if (status != MIR_OK) break;
        mir_storage_damage damage = {.kind = MIR_STORAGE_BACKUP, .file = entry->name};
        const int fd = open(path, O_RDONLY | O_CLOEXEC);
        if (fd < 0) {
            damage.text = "it is missing";
            tell(c, damage);
            continue;
        }
        uint64_t size = mir_storage_file_bytes(c->data, entry->name), hash = entry->hash;
        if (entry->hashed) {
            status = mir_storage_pump(fd, -1, &c->progress, &size, &hash, NULL, &why);
            damage.text = why.text;
            if (status == MIR_E_IO) tell(c, damage);
            if (status == MIR_E_IO)
                status = MIR_OK;
            else if (status != MIR_OK)
                (void)mir_error_set(error, status, "%s", why.text);
        }
        (void)close(fd);
        damage.text = "it is not the file that the list of the backup names";
        if (status == MIR_OK && (size != entry->size || (entry->hashed && hash != entry->hash)))
            tell(c, damage);
    }
    mir_storage_marker_fini(&marker);
    return status;
}

mir_status mir_storage_verify(const char *data, bool events, const mir_storage_watch *watch,
                              mir_storage_checked *checked, mir_error *error)
{
    *checked = (mir_storage_checked){0};
    checking c = {.data = data, .watch = watch, .checked = checked, .progress = {.watch = watch}};
    mir_storage_files files;
    mir_status status = mir_storage_path(c.telemetry, data, "telemetry", error);
    if (status == MIR_OK) status = mir_storage_files_list(c.telemetry, &files, error);
    if (status != MIR_OK) return status;
    status = mir_tlog_codec_init(&c.codec);
    if (status != MIR_OK) {
        mir_storage_files_fini(&files);
        return mir_error_set(error, status, "out of memory");
    }
    char name[MIR_STORAGE_NAME_BYTES_MAX];
    c.progress.total = mir_storage_file_bytes(data, "state/data.mdb");
    for (uint32_t i = 0; i < files.manifest.segment_count; i++) {
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".seg", files.manifest.segments[i]);
        c.progress.total += mir_storage_file_bytes(c.telemetry, name);
    }
    status = backup_check(&c, error);
    if (status == MIR_OK) status = state_check(&c, events, error);
    if (status == MIR_OK) status = telemetry_check(&c, &files, error);
    mir_tlog_codec_fini(&c.codec);
    mir_storage_files_fini(&files);
    return status;
}
