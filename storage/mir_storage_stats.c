/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_storage_internal.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_hash.h"

/* Footers and indexes tell everything but the values of sparse columns; no chunk is read. */

/* The hashes of what was seen, with open addressing; 0 stands for an empty place. */
typedef struct seen {
    uint64_t *places;
    size_t capacity; /* a power of two */
    size_t count;
} seen;

typedef struct counting {
    mir_storage_stats *stats;
    mir_storage_progress progress;
    mir_tlog_codec codec;
    seen series;
} counting;

static void seen_put(seen *all, uint64_t hash)
{
    size_t at = hash & (all->capacity - 1);
    while (all->places[at] != 0 && all->places[at] != hash) at = (at + 1) & (all->capacity - 1);
    if (all->places[at] == 0) all->count++;
    all->places[at] = hash;
}

/* Whether it is new: *fresh. False: out of memory. */
static bool seen_add(seen *all, uint64_t hash, bool *fresh)
{
    if (hash == 0) hash = 1;
    if (all->count * 2 >= all->capacity) {
        seen larger = {.capacity = all->capacity == 0 ? 1024 : all->capacity * 2};
        larger.places = calloc(larger.capacity, sizeof *larger.places);
        if (larger.places == NULL) return false;
        for (size_t i = 0; i < all->capacity; i++)
            if (all->places[i] != 0) seen_put(&larger, all->places[i]);
        free(all->places);
        *all = larger;
    }
    const size_t before = all->count;
    seen_put(all, hash);
    *fresh = all->count != before;
    return true;
}

static mir_storage_measurement *measurement_of(mir_storage_stats *stats, mir_view name)
{
    for (uint32_t i = 0; i < stats->measurement_count; i++) {
        const char *known = stats->measurements[i].name;
        if (strlen(known) == name.size && memcmp(known, name.data, name.size) == 0)
            return &stats->measurements[i];
    }
    mir_storage_measurement *more =
        realloc(stats->measurements, (stats->measurement_count + UINT32_C(1)) * sizeof *more);
    if (more == NULL) return NULL;
    stats->measurements = more;
    mir_storage_measurement *made = &more[stats->measurement_count];
    *made = (mir_storage_measurement){.name = malloc(name.size + 1)};
    if (made->name == NULL) return NULL;
    memcpy(made->name, name.data, name.size);
    made->name[name.size] = '\0';
    stats->measurement_count++;
    return made;
}

static void widen(mir_storage_measurement *to, const mir_storage_measurement *from)
{
    if (from->rows == 0) return;
    if (to->rows == 0 || from->oldest_ns < to->oldest_ns) to->oldest_ns = from->oldest_ns;
    if (to->rows == 0 || from->newest_ns > to->newest_ns) to->newest_ns = from->newest_ns;
    to->rows += from->rows;
    to->values += from->values;
    to->bytes += from->bytes;
    to->series += from->series;
}

static mir_status series_count(counting *c, const mir_tlog_index_cursor *at)
{
    const mir_tlog_segment *segment = at->segment;
    const mir_view name = segment->measurements[at->measurement];
    char text[MIR_STORAGE_MEASUREMENT_BYTES_MAX];
    mir_storage_measurement *to =
        measurement_of(c->stats, mir_storage_measurement_shown(name, text));
    bool fresh = false;
    if (to == NULL || !seen_add(&c->series,
                                XXH3_64bits_withSeed(at->device.data, at->device.size,
                                                     mir_hash_fixed(name.data, name.size)),
                                &fresh))
        return MIR_E_NO_MEMORY;
    to->series += fresh;
    for (uint32_t i = 0; i < at->chunk_count; i++) {
        const mir_tlog_chunk *chunk = &at->chunks[i];
        widen(to, &(mir_storage_measurement){.rows = chunk->rows,
                                             .values = (uint64_t)chunk->rows *
                                                       segment->shapes[chunk->shape].column_count,
                                             .bytes = chunk->size,
                                             .oldest_ns = chunk->time_min,
                                             .newest_ns = chunk->time_max});
        c->stats->chunks++;
    }
    return MIR_OK;
}

/* What is open already, under no name any more perhaps. It is the opener's then. */
static int held_open(void *context, const char *path, int *handle)
{
    int *held = context;
    (void)path;
    if (*held < 0) return -ENOENT;
    *handle = *held;
    *held = -1;
    return 0;
}

static mir_status segment_count(counting *c, const char *path, uint64_t number, int *held,
                                mir_error *error)
{
    mir_tlog_segment *segment = NULL;
    mir_error why = {{0}};
    mir_tlog_files files = mir_tlog_files_posix;
    files.context = held;
    files.open = held_open;
    mir_status status = mir_tlog_segment_open(&files, path, number, &c->codec, &segment, &why);
    if (status == MIR_E_NO_MEMORY) return mir_error_set(error, status, "%s", why.text);
    if (status != MIR_OK) {
        c->stats->damaged++;
        return MIR_OK;
    }
    c->stats->segments++;
    c->stats->segment_bytes += segment->size;
    mir_tlog_index_cursor at = {.segment = segment};
    while (status == MIR_OK) {
        status = mir_tlog_index_next(&at, &c->codec);
        if (status == MIR_OK) {
            status = series_count(c, &at);
        } else if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
            c->stats->damaged++;
            status = MIR_OK;
        }
    }
    if (status == MIR_E_EMPTY)
        status = mir_storage_advance(&c->progress, segment->size, error);
    else
        (void)mir_error_set(error, status, "out of memory");
    mir_tlog_index_fini(&at);
    mir_tlog_segment_release(segment);
    return status;
}

static mir_status log_count(counting *c, const char *path, uint64_t number, mir_error *error)
{
    const int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0) return errno == ENOENT ? MIR_E_AGAIN : MIR_OK; /* sealed: its rows are elsewhere */
    mir_tlog_log_look look;
    mir_status status = mir_tlog_log_look_at(&mir_tlog_files_posix, fd, number, &look, error);
    (void)close(fd);
    if (status == MIR_E_NO_MEMORY) return status;
    if (status == MIR_OK) {
        c->stats->logs++;
        c->stats->log_bytes += look.found.bytes;
        free(look.bytes);
    } else if (status != MIR_E_EMPTY) {
        c->stats->damaged++;
    }
    return mir_storage_advance(&c->progress, 0, error);
}

static int by_bytes(const void *a, const void *b)
{
    const mir_storage_measurement *left = a, *right = b;
    if (left->bytes != right->bytes) return left->bytes > right->bytes ? -1 : 1;
    return strcmp(left->name, right->name);
}

void mir_storage_stats_fini(mir_storage_stats *stats)
{
    for (uint32_t i = 0; i < stats->measurement_count; i++) free(stats->measurements[i].name);
    free(stats->measurements);
    *stats = (mir_storage_stats){0};
}

static mir_status logs_count(counting *c, const char *telemetry, const mir_storage_files *files,
                             mir_error *error)
{
    char path[MIR_STORAGE_PATH_BYTES_MAX + MIR_STORAGE_NAME_BYTES_MAX];
    mir_status status = MIR_OK;
    c->stats->logs = c->stats->log_bytes = c->stats->damaged = 0;
    for (uint32_t i = 0; i < files->log_count && status == MIR_OK; i++) {
        (void)snprintf(path, sizeof path, "%s/%016" PRIx64 ".log", telemetry, files->logs[i]);
        status = log_count(c, path, files->logs[i], error);
    }
    return status;
}

/* The segments of one moment, and the logs of that. */
static mir_status hold(counting *c, const char *telemetry, mir_storage_held *held, mir_error *error)
{
    for (int tries = 0; tries < MIR_STORAGE_HOLDS_MAX; tries++) {
        mir_storage_held_fini(held);
        mir_status status = mir_storage_hold(telemetry, held, error);
        if (status == MIR_OK) status = logs_count(c, telemetry, &held->files, error);
        if (status != MIR_E_AGAIN) return status;
        status = mir_storage_advance(&c->progress, 0, error);
        if (status != MIR_OK) return status;
    }
    return mir_storage_hold_gives_up(error);
}

mir_status mir_storage_stats_read(const char *data, const mir_storage_watch *watch,
                                  mir_storage_stats *stats, mir_error *error)
{
    mir_storage_stats made = {0};
    counting c = {.stats = &made, .progress = {.watch = watch}};
    char telemetry[MIR_STORAGE_PATH_BYTES_MAX];
    char path[MIR_STORAGE_PATH_BYTES_MAX + MIR_STORAGE_NAME_BYTES_MAX];
    mir_storage_held held = {0};
    mir_status status = mir_storage_path(telemetry, data, "telemetry", error);
    if (status == MIR_OK) status = hold(&c, telemetry, &held, error);
    if (status == MIR_OK) {
        status = mir_tlog_codec_init(&c.codec);
        if (status != MIR_OK) (void)mir_error_set(error, status, "out of memory");
    }
    if (status != MIR_OK) {
        mir_storage_held_fini(&held);
        return status;
    }
    const mir_storage_files *files = &held.files;
    const uint32_t segments = files->manifest.segment_count;
    for (uint32_t i = 0; i < segments; i++) {
        char name[MIR_STORAGE_NAME_BYTES_MAX];
        (void)snprintf(name, sizeof name, "%016" PRIx64 ".seg", files->manifest.segments[i]);
        c.progress.total += mir_storage_file_bytes(telemetry, name);
    }
    made.state_bytes = mir_storage_file_bytes(data, "state/data.mdb");
    made.set_aside = files->set_aside;
    for (uint32_t i = 0; i < segments && status == MIR_OK; i++) {
        (void)snprintf(path, sizeof path, "%s/%016" PRIx64 ".seg", telemetry,
                       files->manifest.segments[i]);
        status = segment_count(&c, path, files->manifest.segments[i], &held.handles[i], error);
    }
    for (uint32_t i = 0; i < made.measurement_count; i++) widen(&made.all, &made.measurements[i]);
    if (made.measurement_count > 1)
        qsort(made.measurements, made.measurement_count, sizeof *made.measurements, by_bytes);
    free(c.series.places);
    mir_tlog_codec_fini(&c.codec);
    mir_storage_held_fini(&held);
    if (status != MIR_OK) {
        mir_storage_stats_fini(&made);
        return status;
    }
    *stats = made;
    return MIR_OK;
}
