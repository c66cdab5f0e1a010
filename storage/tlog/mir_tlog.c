/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_retain.h"
#include "mir_tlog_clock.h"
#include "mir_tlog_tally.h"

enum {
    LOG_BYTES_MAX_DEFAULT = 64 << 20,
    LOG_AGE_MS_DEFAULT = 600 * 1000,
    IDLE_MS_DEFAULT = 5000,
    SERIES_MAX_DEFAULT = 1000 * 1000,
    LOG_FILE_ALIGN = 4096,
    REPLAY_THREADS_MAX = 16, /* each has a log in memory, as a file and as rows */
};

/* Behind the names of files that are of no use any more. */
#define DAMAGED ".damaged"

void mir_tlog_path(const mir_tlog *tlog, char *path, uint64_t number, const char *suffix)
{
    (void)snprintf(path, MIR_TLOG_PATH_BYTES_MAX, "%s/%016" PRIx64 ".%s", tlog->directory, number,
                   suffix);
}

void mir_tlog_trouble(mir_tlog *tlog, const char *text)
{
    bool news = false;
    (void)pthread_mutex_lock(&tlog->mutex);
    if (text == NULL) {
        tlog->trouble.text[0] = 0;
    } else if (strcmp(tlog->trouble.text, text) != 0) {
        news = true;
        (void)mir_error_set(&tlog->trouble, MIR_OK, "%s", text);
    }
    (void)pthread_mutex_unlock(&tlog->mutex);
    if (news) mir_log_error("telemetry: %s", text);
}

/* ---- References ---- */

void mir_tlog_live_release(mir_tlog_live *live)
{
    /* Pairs with itself: the last one sees what all others did before they let go. */
    if (atomic_fetch_sub_explicit(&live->references, 1, memory_order_acq_rel) != 1) return;
    if (live->handle >= 0) {
        (void)live->tlog->files->close(live->tlog->files->context, live->handle);
    }
    mir_tlog_mem_free(live->mem);
    free(live);
}

mir_tlog_version *mir_tlog_version_acquire(mir_tlog *tlog)
{
    (void)pthread_mutex_lock(&tlog->mutex);
    mir_tlog_version *version = tlog->version;
    (void)atomic_fetch_add_explicit(&version->references, 1, memory_order_relaxed);
    (void)pthread_mutex_unlock(&tlog->mutex);
    return version;
}

void mir_tlog_version_release(mir_tlog_version *version)
{
    if (version == NULL) return;
    if (atomic_fetch_sub_explicit(&version->references, 1, memory_order_acq_rel) != 1) return;
    for (uint32_t i = 0; i < version->live_count; i++) mir_tlog_live_release(version->lives[i]);
    for (uint32_t i = 0; i < version->segment_count; i++) {
        mir_tlog_segment_release(version->segments[i]);
    }
    free(version->lives);
    free(version->segments);
    free(version);
}

uint64_t mir_tlog_version_damage(const mir_tlog *tlog, const mir_tlog_version *version)
{
    uint64_t damage = tlog->files_missing;
    for (uint32_t i = 0; i < version->live_count; i++) damage += version->lives[i]->damaged;
    return damage;
}

static int segment_compare(const void *a, const void *b)
{
    const mir_tlog_segment_head *left = &(*(mir_tlog_segment *const *)a)->head;
    const mir_tlog_segment_head *right = &(*(mir_tlog_segment *const *)b)->head;
    if (left->generation_max != right->generation_max) {
        return left->generation_max < right->generation_max ? -1 : 1;
    }
    if (left->generation_min != right->generation_min) {
        return left->generation_min < right->generation_min ? -1 : 1;
    }
    return left->id < right->id ? -1 : left->id > right->id;
}

static int live_compare(const void *a, const void *b)
{
    const uint64_t left = (*(mir_tlog_live *const *)a)->mem->generation;
    const uint64_t right = (*(mir_tlog_live *const *)b)->mem->generation;
    return left < right ? -1 : left > right;
}

/* A copy with changes; its members are not retained yet. */
static mir_tlog_version *version_make(const mir_tlog_version *old, mir_tlog_segment *const *add,
                                      uint32_t add_count, mir_tlog_segment *const *drop,
                                      uint32_t drop_count, mir_tlog_live *live_add,
                                      mir_tlog_live *live_drop)
{
    mir_tlog_version *made = calloc(1, sizeof *made);
    if (made == NULL) return NULL;
    atomic_init(&made->references, 1);
    made->lives = calloc(old->live_count + 1, sizeof(mir_tlog_live *));
    made->segments = calloc(old->segment_count + add_count + 1, sizeof(mir_tlog_segment *));
    if (made->lives == NULL || made->segments == NULL) {
        free(made->lives);
        free(made->segments);
        free(made);
        return NULL;
    }
    for (uint32_t i = 0; i < old->live_count; i++) {
        if (old->lives[i] != live_drop) made->lives[made->live_count++] = old->lives[i];
    }
    if (live_add != NULL) made->lives[made->live_count++] = live_add;
    for (uint32_t i = 0; i < old->segment_count; i++) {
        bool kept = true;
        for (uint32_t d = 0; d < drop_count && kept; d++) kept = drop[d] != old->segments[i];
        if (kept) made->segments[made->segment_count++] = old->segments[i];
    }
    for (uint32_t i = 0; i < add_count; i++) made->segments[made->segment_count++] = add[i];
    if (made->live_count > 1) {
        qsort(made->lives, made->live_count, sizeof(mir_tlog_live *), live_compare);
    }
    if (made->segment_count > 1) {
        qsort(made->segments, made->segment_count, sizeof(mir_tlog_segment *), segment_compare);
    }
    return made;
}

static void version_forget(mir_tlog_version *version)
{
    free(version->lives);
    free(version->segments);
    free(version);
}

/* With install_mutex held. */
static mir_status manifest_write(mir_tlog *tlog, const mir_tlog_version *version, bool *in_doubt,
                                 mir_error *error)
{
    *in_doubt = false;
    mir_tlog_manifest manifest = {
        .next_number = atomic_load_explicit(&tlog->next_number, memory_order_relaxed),
        .segments =
            malloc(((size_t)version->segment_count + tlog->unread_count + 1) * sizeof(uint64_t)),
        .segment_count = version->segment_count + tlog->unread_count,
        .sealed = tlog->sealed,
        .sealed_count = tlog->sealed_count,
    };
    if (manifest.segments == NULL) {
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    for (uint32_t i = 0; i < version->segment_count; i++) {
        manifest.segments[i] = version->segments[i]->head.id;
    }
    for (uint32_t i = 0; i < tlog->unread_count; i++) {
        manifest.segments[version->segment_count + i] = tlog->unread[i];
    }
    const mir_status status =
        mir_tlog_manifest_write(tlog->files, tlog->directory, &manifest, in_doubt, error);
    free(manifest.segments);
    return status;
}

/* With install_mutex held: unlinks logs that the manifest calls sealed, and forgets those that are
 * surely gone. What fails is done by the next start. */
static void sealed_unlink(mir_tlog *tlog)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    uint32_t kept = 0;
    for (uint32_t i = 0; i < tlog->sealed_count; i++) {
        mir_tlog_path(tlog, path, tlog->sealed[i], "log");
        const int result = tlog->files->unlink(tlog->files->context, path);
        if (result != 0 && result != -ENOENT) tlog->sealed[kept++] = tlog->sealed[i];
    }
    if (tlog->files->sync_directory(tlog->files->context, tlog->directory) == 0) {
        tlog->sealed_count = kept;
    }
}

static void segment_unlink(mir_tlog *tlog, uint64_t id)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    mir_tlog_path(tlog, path, id, "seg");
    (void)tlog->files->unlink(tlog->files->context, path);
}

mir_status mir_tlog_install(mir_tlog *tlog, mir_tlog_segment *const *add, uint32_t add_count,
                            mir_tlog_segment *const *drop, uint32_t drop_count,
                            mir_tlog_live *live_add, mir_tlog_live *live_drop, mir_error *error)
{
    (void)pthread_mutex_lock(&tlog->install_mutex);
    mir_tlog_version *old = tlog->version; /* changes under install_mutex alone */
    mir_status status = MIR_OK;
    bool in_doubt = false;
    mir_tlog_version *made =
        version_make(old, add, add_count, drop, drop_count, live_add, live_drop);
    uint64_t *sealed = tlog->sealed;
    if (live_drop != NULL) {
        sealed = realloc(tlog->sealed, (tlog->sealed_count + 1) * sizeof *sealed);
        if (sealed != NULL) tlog->sealed = sealed;
    }
    if (made == NULL || (live_drop != NULL && sealed == NULL)) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    } else if (add_count > 0 || drop_count > 0 || live_drop != NULL) {
        if (live_drop != NULL) sealed[tlog->sealed_count++] = live_drop->mem->generation;
        status = manifest_write(tlog, made, &in_doubt, error);
        if (status != MIR_OK && live_drop != NULL) tlog->sealed_count--;
    }
    if (status != MIR_OK) {
        if (made != NULL) version_forget(made);
        for (uint32_t i = 0; i < add_count; i++) {
            if (!in_doubt) segment_unlink(tlog, add[i]->head.id);
            mir_tlog_segment_release(add[i]);
        }
        (void)pthread_mutex_unlock(&tlog->install_mutex);
        return status;
    }
    for (uint32_t i = 0; i < made->live_count; i++) {
        (void)atomic_fetch_add_explicit(&made->lives[i]->references, 1, memory_order_relaxed);
    }
    for (uint32_t i = 0; i < made->segment_count; i++) {
        bool added = false;
        for (uint32_t a = 0; a < add_count && !added; a++) added = add[a] == made->segments[i];
        if (!added) mir_tlog_segment_retain(made->segments[i]);
    }
    (void)pthread_mutex_lock(&tlog->mutex);
    tlog->version = made;
    (void)pthread_mutex_unlock(&tlog->mutex);
    /* From here on nothing refers to these files any more but who reads them now. */
    for (uint32_t i = 0; i < drop_count; i++) segment_unlink(tlog, drop[i]->head.id);
    if (tlog->sealed_count > 0) sealed_unlink(tlog);
    (void)pthread_mutex_unlock(&tlog->install_mutex);
    mir_tlog_version_release(old);
    return MIR_OK;
}

/* ---- Opening ---- */

typedef struct found_files {
    uint64_t *logs;
    uint32_t log_count;
    uint64_t *segments;
    uint32_t segment_count;
    uint64_t number_max;
    mir_tlog *tlog;
} found_files;

static bool number_push(uint64_t **numbers, uint32_t *count, uint64_t number)
{
    uint64_t *more = realloc(*numbers, (*count + 1) * sizeof *more);
    if (more == NULL) return false;
    *numbers = more;
    more[(*count)++] = number;
    return true;
}

static int found_name(void *context, const char *name)
{
    found_files *found = context;
    const size_t size = strlen(name);
    char path[MIR_TLOG_PATH_BYTES_MAX];
    if (size > 4 && strcmp(name + size - 4, ".tmp") == 0) {
        (void)snprintf(path, sizeof path, "%s/%s", found->tlog->directory, name);
        (void)found->tlog->files->unlink(found->tlog->files->context, path);
        return 0;
    }
    if (strspn(name, "0123456789abcdef") == 16 &&
        (strcmp(name + 16, ".seg" DAMAGED) == 0 || strcmp(name + 16, ".log" DAMAGED) == 0)) {
        found->tlog->files_missing++;
        if (name[17] == 's') found->tlog->segments_missing++;
        const uint64_t aside = strtoull(name, NULL, 16);
        if (aside > found->number_max) found->number_max = aside; /* its place stays free */
        mir_log_warn("telemetry: answers are partial while %s/%s is there: restore its rows from a "
                     "backup, or remove it to do without them",
                     found->tlog->directory, name);
        return 0;
    }
    if (size != 20 || strspn(name, "0123456789abcdef") != 16) return 0;
    const uint64_t number = strtoull(name, NULL, 16);
    bool pushed = true;
    if (strcmp(name + 16, ".log") == 0) {
        pushed = number_push(&found->logs, &found->log_count, number);
    } else if (strcmp(name + 16, ".seg") == 0) {
        pushed = number_push(&found->segments, &found->segment_count, number);
    } else {
        return 0;
    }
    if (number > found->number_max) found->number_max = number;
    return pushed ? 0 : -ENOMEM;
}

static int number_compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

static bool number_in(const uint64_t *numbers, uint32_t count, uint64_t number)
{
    for (uint32_t i = 0; i < count; i++) {
        if (numbers[i] == number) return true;
    }
    return false;
}

/* A file whose rows are lost. While its new name is there answers say that they are partial: of one
 * that is missing, too. */
static bool set_aside(mir_tlog *tlog, uint64_t number, const char *suffix, bool missing,
                      const char *why)
{
    const mir_tlog_files *files = tlog->files;
    char from[MIR_TLOG_PATH_BYTES_MAX];
    char to[MIR_TLOG_PATH_BYTES_MAX + 16];
    mir_tlog_path(tlog, from, number, suffix);
    (void)snprintf(to, sizeof to, "%s" DAMAGED, from);
    int handle;
    uint64_t taken = 0;
    if (!missing && files->open(files->context, to, &handle) == 0) {
        (void)files->size(files->context, handle, &taken);
        (void)files->close(files->context, handle);
    }
    /* What may still be repaired is not replaced; what was said to be missing and is there again is. */
    const int result = missing     ? files->create(files->context, to, &handle)
                       : taken > 0 ? -EEXIST
                                   : files->rename(files->context, from, to);
    if (missing && result == -EEXIST) return true; /* it was set aside, and the crash came then */
    if (missing && result == 0) (void)files->close(files->context, handle);
    mir_tlog_count(&tlog->corrupt_chunks, 1);
    tlog->files_missing++;
    if (strcmp(suffix, "seg") == 0) tlog->segments_missing++;
    if (taken > 0) {
        mir_log_error(
            "telemetry: %s; its rows are missing, and answers are partial; it stays where "
            "it is, as there is another %s: repair or remove that",
            why, to);
    } else if (result != 0) {
        mir_log_error("telemetry: %s; its rows are missing, and answers are partial", why);
    } else {
        mir_log_error("telemetry: %s; its rows are missing, and answers are partial while %s is "
                      "there",
                      why, to);
    }
    return result == 0;
}

/* A segment that may be read at the next start stays in the manifest. */
static mir_status segment_leave(mir_tlog *tlog, uint64_t number, mir_error *error)
{
    return number_push(&tlog->unread, &tlog->unread_count, number)
               ? MIR_OK
               : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
}

static mir_status segment_missing(mir_tlog *tlog, uint64_t number, mir_status cause,
                                  mir_error *error)
{
    if (cause == MIR_E_IO) {
        mir_tlog_count(&tlog->corrupt_chunks, 1);
        tlog->files_missing++;
        tlog->segments_missing++;
        mir_log_error("telemetry: %s; its rows are missing, and answers are partial, until a start "
                      "can read it",
                      error->text);
        return segment_leave(tlog, number, error);
    }
    /* Who cannot set it aside must not forget it either, or it would be taken for a leftover. */
    return set_aside(tlog, number, "seg", cause == MIR_E_NOT_FOUND, error->text)
               ? MIR_OK
               : segment_leave(tlog, number, error);
}

static mir_status segments_load(mir_tlog *tlog, found_files *found,
                                const mir_tlog_manifest *manifest, bool adopt, mir_error *error)
{
    mir_tlog_codec codec;
    mir_status status = mir_tlog_codec_init(&codec);
    if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
    char path[MIR_TLOG_PATH_BYTES_MAX];
    const uint64_t *numbers = adopt ? found->segments : manifest->segments;
    const uint32_t count = adopt ? found->segment_count : manifest->segment_count;
    tlog->version->segments = malloc((count + 1) * sizeof(mir_tlog_segment *));
    if (tlog->version->segments == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
        mir_tlog_path(tlog, path, numbers[i], "seg");
        mir_tlog_segment *segment;
        status = mir_tlog_segment_open(tlog->files, path, numbers[i], &codec, &segment, error);
        if (status == MIR_OK) {
            tlog->version->segments[tlog->version->segment_count++] = segment;
        } else if (status == MIR_E_CORRUPT || status == MIR_E_NOT_FOUND || status == MIR_E_IO) {
            status = segment_missing(tlog, numbers[i], status, error);
        }
    }
    mir_tlog_codec_fini(&codec);
    if (status != MIR_OK) return status;
    if (tlog->version->segment_count > 1) {
        qsort(tlog->version->segments, tlog->version->segment_count, sizeof(mir_tlog_segment *),
              segment_compare);
    }
    /* What a crash left behind on its way into or out of the manifest. */
    for (uint32_t i = 0; i < found->segment_count && !adopt; i++) {
        if (number_in(manifest->segments, manifest->segment_count, found->segments[i])) continue;
        mir_tlog_path(tlog, path, found->segments[i], "seg");
        (void)tlog->files->unlink(tlog->files->context, path);
    }
    return MIR_OK;
}

static void log_report(const char *path, const mir_tlog_replay *replay)
{
    if (replay->torn_bytes == 0 && replay->corrupt_frames == 0 && replay->rows_lost == 0) return;
    mir_log_warn("telemetry: %s: %" PRIu64 " rows recovered, torn tail of %" PRIu64
                 " bytes cut, %" PRIu64 " damaged regions passed over, %" PRIu64
                 " rows without their names",
                 path, replay->rows, replay->torn_bytes, replay->corrupt_frames, replay->rows_lost);
}

typedef struct log_load {
    uint64_t generation;
    mir_status status;
    mir_tlog_mem *mem;
    mir_tlog_replay replay;
    mir_error error;
} log_load;

typedef struct log_loads {
    const mir_tlog *tlog;
    log_load *list;
    uint32_t count;
    atomic_uint next;
} log_loads;

static void *loads_main(void *context)
{
    log_loads *loads = context;
    for (;;) {
        const uint32_t at = atomic_fetch_add_explicit(&loads->next, 1, memory_order_relaxed);
        if (at >= loads->count) return NULL;
        log_load *load = &loads->list[at];
        char path[MIR_TLOG_PATH_BYTES_MAX];
        mir_tlog_path(loads->tlog, path, load->generation, "log");
        load->status = mir_tlog_log_replay(loads->tlog->files, path, load->generation, &load->mem,
                                           &load->replay, &load->error);
    }
}

/* Reads all logs, on as many threads as there are writers; where none can be started, on this one. */
static void logs_load(log_loads *loads)
{
    pthread_t threads[REPLAY_THREADS_MAX];
    uint32_t wanted = loads->tlog->options.writer_count;
    if (wanted > REPLAY_THREADS_MAX) wanted = REPLAY_THREADS_MAX;
    if (wanted > loads->count) wanted = loads->count;
    uint32_t started = 0;
    while (started + 1 < wanted &&
           pthread_create(&threads[started], NULL, loads_main, loads) == 0) {
        started++;
    }
    (void)loads_main(loads);
    for (uint32_t i = 0; i < started; i++) (void)pthread_join(threads[i], NULL);
}

/* Takes over the rows of a log that was read: they are live, and to be sealed. */
static mir_status log_take(mir_tlog *tlog, log_load *load, mir_error *error)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    mir_tlog_path(tlog, path, load->generation, "log");
    if (load->status == MIR_E_EMPTY) {
        (void)tlog->files->unlink(tlog->files->context, path);
        return MIR_OK;
    }
    if (load->status == MIR_E_CORRUPT) {
        (void)set_aside(tlog, load->generation, "log", false, load->error.text);
        return MIR_OK;
    }
    if (load->status != MIR_OK) {
        *error = load->error;
        return load->status;
    }
    log_report(path, &load->replay);
    mir_tlog_count(&tlog->replayed_rows, load->replay.rows);
    mir_tlog_count(&tlog->torn_bytes_cut, load->replay.torn_bytes);
    mir_tlog_count(&tlog->corrupt_frames, load->replay.corrupt_frames);
    if (load->replay.rows == 0) {
        /* Whatever it held was never whole, or is lost: no use for it at the next start. */
        (void)tlog->files->unlink(tlog->files->context, path);
        return MIR_OK;
    }
    mir_tlog_live *live = calloc(1, sizeof *live);
    if (live == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    live->tlog = tlog;
    live->mem = load->mem;
    load->mem = NULL;
    live->handle = -1;
    atomic_init(&live->references, 2); /* of the version, and of the job */
    atomic_init(&live->bytes, load->replay.bytes);
    live->damaged = load->replay.corrupt_frames;
    if (live->damaged == 0 && load->replay.rows_lost > 0) live->damaged = 1;
    memcpy(live->path, path, sizeof live->path);
    tlog->version->lives[tlog->version->live_count++] = live;
    mir_tlog_live **link = &tlog->jobs;
    while (*link != NULL) link = &(*link)->next;
    *link = live;
    return MIR_OK;
}

static mir_status directory_load(mir_tlog *tlog, mir_error *error)
{
    found_files found = {.tlog = tlog};
    log_loads loads = {.tlog = tlog};
    mir_tlog_manifest manifest = {0};
    mir_status status;
    int result = tlog->files->list(tlog->files->context, tlog->directory, found_name, &found);
    if (result < 0) {
        status = mir_error_os(error, -result, "list %s", tlog->directory);
        goto out;
    }
    status = mir_tlog_manifest_read(tlog->files, tlog->directory, &manifest, error);
    bool adopt = false;
    if (status == MIR_E_NOT_FOUND || status == MIR_E_CORRUPT) {
        adopt = true;
        if (status == MIR_E_CORRUPT || found.segment_count > 0) {
            char from[MIR_TLOG_PATH_BYTES_MAX];
            char to[MIR_TLOG_PATH_BYTES_MAX + 16];
            (void)snprintf(from, sizeof from, "%s/MANIFEST", tlog->directory);
            (void)snprintf(to, sizeof to, "%s" DAMAGED, from);
            if (status == MIR_E_CORRUPT) {
                (void)tlog->files->rename(tlog->files->context, from, to);
            }
            mir_tlog_count(&tlog->corrupt_chunks, 1);
            mir_log_error("telemetry: the manifest is %s: all %u segments found are taken",
                          status == MIR_E_CORRUPT ? "damaged" : "missing", found.segment_count);
        }
        status = MIR_OK;
    }
    if (status != MIR_OK) goto out;
    if (manifest.next_number > found.number_max) found.number_max = manifest.next_number;
    for (uint32_t i = 0; i < manifest.segment_count; i++) {
        if (manifest.segments[i] > found.number_max) found.number_max = manifest.segments[i];
    }
    if (tlog->options.number_min > found.number_max) {
        found.number_max = tlog->options.number_min - 1;
    }
    atomic_init(&tlog->next_number, found.number_max + 1);
    status = segments_load(tlog, &found, &manifest, adopt, error);
    if (status != MIR_OK) goto out;
    if (found.log_count > 1) {
        qsort(found.logs, found.log_count, sizeof *found.logs, number_compare);
    }
    tlog->version->lives = malloc((found.log_count + 1) * sizeof(mir_tlog_live *));
    loads.list = calloc(found.log_count + 1, sizeof *loads.list);
    if (tlog->version->lives == NULL || loads.list == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (uint32_t i = 0; i < found.log_count; i++) {
        if (number_in(manifest.sealed, manifest.sealed_count, found.logs[i])) {
            char path[MIR_TLOG_PATH_BYTES_MAX];
            mir_tlog_path(tlog, path, found.logs[i], "log");
            result = tlog->files->unlink(tlog->files->context, path);
            /* Forgotten, it would be replayed by the next start: its rows may be removed by now. */
            if (result < 0 && result != -ENOENT &&
                !number_push(&tlog->sealed, &tlog->sealed_count, found.logs[i])) {
                status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
                goto out;
            }
            continue;
        }
        loads.list[loads.count++].generation = found.logs[i];
    }
    logs_load(&loads);
    for (uint32_t i = 0; i < loads.count && status == MIR_OK; i++) {
        status = log_take(tlog, &loads.list[i], error);
    }
    if (status != MIR_OK) goto out;
    /* Unlinked files stay so before the manifest forgets that they were sealed. */
    result = tlog->files->sync_directory(tlog->files->context, tlog->directory);
    if (result < 0) {
        status = mir_error_os(error, -result, "sync directory %s", tlog->directory);
        goto out;
    }
    bool in_doubt;
    status = manifest_write(tlog, tlog->version, &in_doubt, error);
out:
    for (uint32_t i = 0; i < loads.count; i++) mir_tlog_mem_free(loads.list[i].mem);
    free(loads.list);
    free(found.logs);
    free(found.segments);
    mir_tlog_manifest_fini(&manifest);
    return status;
}

static mir_status options_complete(mir_tlog *tlog, const mir_tlog_options *options,
                                   mir_error *error)
{
    tlog->options = *options;
    mir_tlog_options *o = &tlog->options;
    if (o->directory == NULL || o->directory[0] == 0 ||
        strlen(o->directory) >= sizeof tlog->directory - 32) {
        return mir_error_set(error, MIR_E_INVALID,
                             "the telemetry directory's name is empty or "
                             "longer than %zu bytes",
                             sizeof tlog->directory - 33);
    }
    if (o->writer_count == 0) o->writer_count = 1;
    if (o->log_bytes_max == 0) o->log_bytes_max = LOG_BYTES_MAX_DEFAULT;
    if (o->log_age_max_ms == 0) o->log_age_max_ms = LOG_AGE_MS_DEFAULT;
    if (o->idle_ms == 0) o->idle_ms = IDLE_MS_DEFAULT;
    if (o->series_max == 0) o->series_max = SERIES_MAX_DEFAULT;
    if (o->writer_count > MIR_TLOG_WRITERS_MAX) {
        return mir_error_set(error, MIR_E_INVALID, "at most %d telemetry writers",
                             MIR_TLOG_WRITERS_MAX);
    }
    const uint64_t log_bytes_limit =
        (uint64_t)MIR_TLOG_LOG_FILE_BYTES_MAX * MIR_TLOG_LOGS_PER_WRITER;
    if (o->log_bytes_max < MIR_TLOG_LOG_BYTES_MIN || o->log_bytes_max > log_bytes_limit) {
        return mir_error_set(error, MIR_E_INVALID,
                             "telemetry.log_bytes_max must be from %d to %" PRIu64 " bytes",
                             MIR_TLOG_LOG_BYTES_MIN, log_bytes_limit);
    }
    if (o->wall_ns == NULL) o->wall_ns = mir_clock_wall_ns;
    if (o->mono_ns == NULL) o->mono_ns = mir_clock_mono_ns;
    if (o->rule_count > MIR_TLOG_RULES_MAX) {
        return mir_error_set(error, MIR_E_INVALID, "at most %d rules of telemetry.retention",
                             MIR_TLOG_RULES_MAX);
    }
    for (uint32_t i = 0; i < o->rule_count; i++) {
        const mir_tlog_rule *rule = &o->rules[i];
        if (rule->deleted && rule->name_space.size > 0) {
            return mir_error_set(error, MIR_E_INVALID,
                                 "telemetry.retention: a device that is deleted has no namespace");
        }
        MIR_ASSERT(o->namespace_of != NULL || (!rule->deleted && rule->name_space.size == 0));
    }
    for (uint32_t i = 1; i < MIR_TLOG_ROLLUPS; i++) {
        const mir_tlog_rollup_option *finer = &o->rollups[i - 1];
        const mir_tlog_rollup_option *coarser = &o->rollups[i];
        if (!finer->on) continue;
        if (!coarser->on ||
            (coarser->keep_ns != 0 && (finer->keep_ns == 0 || finer->keep_ns > coarser->keep_ns))) {
            return mir_error_set(error, MIR_E_INVALID,
                                 "telemetry.rollup: longer steps must be kept for at least as "
                                 "long as shorter ones");
        }
    }
    /* What is not in segments is not removed: it must get there in time. */
    const uint64_t age_ns = mir_tlog_retain_age_min_ns(o);
    const uint64_t slack_ms = mir_tlog_retain_slack_ns(age_ns) / (uint64_t)MIR_NS_PER_MS;
    if (age_ns != 0 && slack_ms < o->log_age_max_ms) o->log_age_max_ms = (uint32_t)slack_ms + 1;
    (void)snprintf(tlog->directory, sizeof tlog->directory, "%s", o->directory);
    o->directory = tlog->directory;
    tlog->files = o->files == NULL ? &mir_tlog_files_posix : o->files;
    atomic_init(&tlog->sweep_bytes_max, MIR_TLOG_SWEEP_BYTES);
    tlog->file_bytes =
        o->log_bytes_max / MIR_TLOG_LOGS_PER_WRITER / LOG_FILE_ALIGN * LOG_FILE_ALIGN;
    return MIR_OK;
}

static mir_status open_into(mir_tlog *tlog, mir_error *error)
{
    const mir_tlog_files *files = tlog->files;
    int result = files->make_directory(files->context, tlog->directory);
    if (result < 0) return mir_error_os(error, -result, "make directory %s", tlog->directory);
    char path[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/LOCK", tlog->directory);
    result = files->lock(files->context, path, &tlog->lock_handle);
    if (result == -EWOULDBLOCK) {
        tlog->lock_handle = -1;
        return mir_error_set(error, MIR_E_EXISTS,
                             "%s is in use by another process: stop it or choose another data "
                             "directory",
                             tlog->directory);
    }
    if (result < 0) {
        tlog->lock_handle = -1;
        return mir_error_os(error, -result, "lock %s", path);
    }
    mir_status status = directory_load(tlog, error);
    if (status == MIR_OK) status = mir_tlog_tally_read(tlog, error);
    if (status == MIR_OK) status = mir_tlog_clock_begin(tlog, error);
    if (status != MIR_OK) return status;
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        status = mir_tlog_writer_init(tlog, i);
        if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
        mir_tlog_writer *writer = &tlog->writers[i];
        status = mir_tlog_live_create(tlog, writer, &writer->open, error);
        if (status != MIR_OK) return status;
        writer->position = MIR_TLOG_LOG_HEADER_BYTES;
    }
    mir_tlog_disk_watch(tlog);
    return mir_tlog_threads_start(tlog, error);
}

static void tlog_free(mir_tlog *tlog)
{
    for (uint32_t i = 0; tlog->writers != NULL && i < tlog->options.writer_count; i++) {
        mir_tlog_writer_fini(&tlog->writers[i]);
    }
    free(tlog->writers);
    while (tlog->jobs != NULL) {
        mir_tlog_live *next = tlog->jobs->next;
        mir_tlog_live_release(tlog->jobs);
        tlog->jobs = next;
    }
    mir_tlog_version_release(tlog->version);
    free(tlog->sealed);
    free(tlog->unread);
    mir_tlog_codecs_free(&tlog->codecs);
    if (tlog->lock_handle >= 0) {
        (void)tlog->files->close(tlog->files->context, tlog->lock_handle);
    }
    (void)sem_destroy(&tlog->sync_wake);
    (void)sem_destroy(&tlog->sync_stop);
    (void)sem_destroy(&tlog->files_wake);
    (void)sem_destroy(&tlog->sealer_wake);
    (void)sem_destroy(&tlog->background_wake);
    (void)pthread_cond_destroy(&tlog->settled);
    (void)pthread_mutex_destroy(&tlog->mutex);
    (void)pthread_mutex_destroy(&tlog->install_mutex);
    free(tlog);
}

mir_status mir_tlog_open(const mir_tlog_options *options, mir_tlog **tlog, mir_error *error)
{
    mir_error unread;
    if (error == NULL) error = &unread;
    mir_tlog *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    made->lock_handle = -1;
    const long processors = sysconf(_SC_NPROCESSORS_ONLN);
    made->query_helpers_max = processors > 1 ? (uint32_t)processors - 1 : 0;
    (void)pthread_mutex_init(&made->mutex, NULL);
    (void)pthread_mutex_init(&made->install_mutex, NULL);
    (void)pthread_cond_init(&made->settled, NULL);
    (void)sem_init(&made->sync_wake, 0, 0);
    (void)sem_init(&made->sync_stop, 0, 0);
    (void)sem_init(&made->files_wake, 0, 0);
    (void)sem_init(&made->sealer_wake, 0, 0);
    (void)sem_init(&made->background_wake, 0, 0);
    mir_status status = options_complete(made, options, error);
    if (status == MIR_OK) {
        made->writers = calloc(made->options.writer_count, sizeof *made->writers);
        made->version = calloc(1, sizeof *made->version);
        if (made->writers == NULL || made->version == NULL) {
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        } else {
            atomic_init(&made->version->references, 1);
            status = open_into(made, error);
        }
    }
    if (status == MIR_E_NO_SPACE) {
        mir_error_wrap(error,
                       "the telemetry log needs room for %u files of %" PRIu64
                       " bytes: free disk space or lower telemetry.log_bytes_max",
                       made->options.writer_count, made->file_bytes);
    }
    if (status != MIR_OK) {
        mir_tlog_threads_stop(made);
        tlog_free(made);
        return status;
    }
    *tlog = made;
    return MIR_OK;
}

void mir_tlog_close(mir_tlog *tlog)
{
    if (tlog == NULL) return;
    mir_tlog_threads_stop(tlog);
    mir_tlog_clock_end(tlog);
    tlog_free(tlog);
}

mir_tlog_writer *mir_tlog_writer_of(mir_tlog *tlog, uint32_t shard)
{
    MIR_ASSERT(shard < tlog->options.writer_count);
    return &tlog->writers[shard];
}

bool mir_tlog_log_grows(mir_tlog *tlog, uint64_t generation, uint64_t *bytes)
{
    bool grows = false;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t i = 0; i < version->live_count && !grows; i++) {
        const mir_tlog_live *live = version->lives[i];
        if (live->mem->generation != generation) continue;
        grows = true;
        /* Acquire: who sees that a later log has rows sees all of this one's. */
        *bytes = atomic_load_explicit(&live->bytes, memory_order_acquire);
    }
    mir_tlog_version_release(version);
    return grows;
}

/* ---- Stats ---- */

static uint64_t read_counter(const atomic_ullong *counter)
{
    return atomic_load_explicit(counter, memory_order_relaxed);
}

void mir_tlog_stats_read(mir_tlog *tlog, mir_tlog_stats *stats, mir_error *trouble)
{
    mir_tlog_stats made = {0};
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        const mir_tlog_writer *writer = &tlog->writers[i];
        made.rows_accepted += read_counter(&writer->rows_accepted);
        made.bytes_appended += read_counter(&writer->bytes_appended);
        made.commits += read_counter(&writer->commits);
        made.refused_full += read_counter(&writer->refused[MIR_E_FULL]);
        made.refused_share += read_counter(&writer->refused_share);
        made.refused_no_space += read_counter(&writer->refused[MIR_E_NO_SPACE]);
        made.refused_io += read_counter(&writer->refused[MIR_E_IO]) +
                           read_counter(&writer->refused[MIR_E_PERMISSION]);
        made.refused_too_large += read_counter(&writer->refused[MIR_E_TOO_LARGE]);
        made.refused_invalid += read_counter(&writer->refused[MIR_E_INVALID]);
        made.refused_no_memory += read_counter(&writer->refused[MIR_E_NO_MEMORY]);
        made.series_open += read_counter(&writer->series_open);
        made.write_errors += read_counter(&writer->write_errors);
    }
    made.seals = read_counter(&tlog->seals);
    made.merges = read_counter(&tlog->merges);
    made.segments_dropped = read_counter(&tlog->segments_dropped);
    made.replayed_rows = read_counter(&tlog->replayed_rows);
    made.torn_bytes_cut = read_counter(&tlog->torn_bytes_cut);
    made.corrupt_frames = read_counter(&tlog->corrupt_frames);
    made.corrupt_chunks = read_counter(&tlog->corrupt_chunks);
    made.files_missing = tlog->files_missing;
    made.sync_errors = read_counter(&tlog->sync_errors);
    made.write_errors += read_counter(&tlog->write_errors);
    const int64_t now = mir_clock_mono_ns();
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t i = 0; i < version->live_count; i++) {
        mir_tlog_live *live = version->lives[i];
        const uint64_t bytes = read_counter(&live->bytes);
        if (bytes > MIR_TLOG_LOG_HEADER_BYTES) made.log_bytes += bytes;
        made.log_files++;
        const int64_t marks[2] = {atomic_load_explicit(&live->dirty_ns, memory_order_relaxed),
                                  atomic_load_explicit(&live->syncing_ns, memory_order_relaxed)};
        for (int m = 0; m < 2; m++) {
            if (marks[m] != 0 && now - marks[m] > made.sync_lag_ns) {
                made.sync_lag_ns = now - marks[m];
            }
        }
    }
    for (uint32_t i = 0; i < version->segment_count; i++) {
        made.segments++;
        made.segment_bytes += version->segments[i]->size;
        made.segment_rows += version->segments[i]->rows;
    }
    mir_tlog_version_release(version);
    mir_tlog_clock_read(tlog, &made.clock);
    (void)pthread_mutex_lock(&tlog->mutex);
    if (tlog->full_since_ns != 0) {
        made.full_ns = now > tlog->full_since_ns ? now - tlog->full_since_ns : 1;
        /* The counters were read before, perhaps before the present refusals began. */
        if (made.refused_full > tlog->full_before) {
            made.full_rows = made.refused_full - tlog->full_before;
        }
        if (made.refused_share > tlog->full_share_before) {
            made.full_share = made.refused_share - tlog->full_share_before;
        }
    }
    if (trouble != NULL) *trouble = tlog->trouble;
    (void)pthread_mutex_unlock(&tlog->mutex);
    *stats = made;
}
