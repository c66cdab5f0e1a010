/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_spool.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_code.h"
#include "mir_tlog_position.h"

enum {
    WINDOW_BYTES = 1 << 20,
    FAILURES_MAX = 10,
    SUFFIX_BYTES = 32,
};

typedef struct pin {
    uint64_t generation;
    uint64_t offset; /* of the frame that is next to be given */
    uint32_t rows;   /* of that frame, given */
    uint64_t limit;  /* of this round */
    uint64_t bytes;  /* of the file */
    bool grows;      /* as far as is known */
    bool given_up;
    uint32_t failures;
    int handle; /* -1: not open */
    mir_tlog_records *records;
} pin;

struct mir_tlog_spool {
    char directory[MIR_TLOG_PATH_BYTES_MAX - SUFFIX_BYTES];
    const mir_tlog_files *files;
    mir_tlog *tlog;
    pin *pins; /* ascending generation */
    uint32_t pin_count;
    uint32_t pin_capacity;
    uint64_t generation_max; /* that the position names, whether its log is there or not */
    bool in_round;
    uint32_t at; /* pin that the round is at */
    int64_t round_ns;
    int64_t given_ns; /* all that was committed by then is given */
    bool unwritten;   /* more is given than POSITION says */
    uint8_t *window;
    size_t window_bytes;

    pthread_mutex_t mutex;
    mir_tlog_spool_stats stats;
    uint64_t *made; /* logs that are pinned, but not among the pins yet */
    uint32_t made_count;
};

static void path_of(const mir_tlog_spool *spool, uint64_t generation, char *path)
{
    (void)snprintf(path, MIR_TLOG_PATH_BYTES_MAX, "%s/%016" PRIx64 ".log", spool->directory,
                   generation);
}

static void count(mir_tlog_spool *spool, uint64_t *counter, uint64_t more)
{
    (void)pthread_mutex_lock(&spool->mutex);
    *counter += more;
    (void)pthread_mutex_unlock(&spool->mutex);
}

static void pin_close(mir_tlog_spool *spool, pin *p)
{
    mir_tlog_records_free(p->records);
    p->records = NULL;
    if (p->handle >= 0) (void)spool->files->close(spool->files->context, p->handle);
    p->handle = -1;
}

/* In order; the ones that logs get later are mostly higher. */
static mir_status pin_add(mir_tlog_spool *spool, uint64_t generation)
{
    if (spool->pin_count == spool->pin_capacity) {
        const uint32_t capacity = spool->pin_capacity == 0 ? 16 : spool->pin_capacity * 2;
        pin *more = realloc(spool->pins, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        spool->pins = more;
        spool->pin_capacity = capacity;
    }
    uint32_t at = spool->pin_count++;
    for (; at > 0 && spool->pins[at - 1].generation > generation; at--) {
        spool->pins[at] = spool->pins[at - 1];
    }
    spool->pins[at] = (pin){
        .generation = generation, .offset = MIR_TLOG_LOG_HEADER_BYTES, .grows = true, .handle = -1};
    return MIR_OK;
}

/* False: its file cannot be removed now. Then it stays, so that the position says that it is done. */
static bool pin_remove(mir_tlog_spool *spool, uint32_t at)
{
    pin *p = &spool->pins[at];
    char path[MIR_TLOG_PATH_BYTES_MAX];
    path_of(spool, p->generation, path);
    pin_close(spool, p);
    const int result = spool->files->unlink(spool->files->context, path);
    if (result < 0 && result != -ENOENT) return false;
    spool->pin_count--;
    memmove(p, p + 1, (spool->pin_count - at) * sizeof *p);
    if (spool->at > at) spool->at--;
    return true;
}

/* 0 or -errno, and then *bytes is what it was. */
static int pin_bytes(const mir_tlog_spool *spool, const pin *p, uint64_t *bytes)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    path_of(spool, p->generation, path);
    int handle = p->handle;
    if (handle < 0) {
        const int result = spool->files->open(spool->files->context, path, &handle);
        if (result < 0) return result;
    }
    uint64_t size;
    const int result = spool->files->size(spool->files->context, handle, &size);
    if (result == 0) *bytes = size;
    if (p->handle < 0) (void)spool->files->close(spool->files->context, handle);
    return result;
}

/* ---- Opening ---- */

typedef struct listing {
    mir_tlog_spool *spool;
    bool remove;
} listing;

static int found_name(void *context, const char *name)
{
    const listing *l = context;
    mir_tlog_spool *spool = l->spool;
    const size_t size = strlen(name);
    const bool log =
        size == 20 && strspn(name, "0123456789abcdef") == 16 && strcmp(name + 16, ".log") == 0;
    const bool temporary = size > 4 && strcmp(name + size - 4, ".tmp") == 0;
    if (temporary || (l->remove && (log || strcmp(name, "POSITION") == 0))) {
        char path[MIR_TLOG_PATH_BYTES_MAX];
        if (size >= SUFFIX_BYTES - 1) return 0; /* nothing of ours */
        (void)snprintf(path, sizeof path, "%s/%s", spool->directory, name);
        (void)spool->files->unlink(spool->files->context, path);
    } else if (log && !l->remove) {
        return pin_add(spool, strtoull(name, NULL, 16)) == MIR_OK ? 0 : -ENOMEM;
    }
    return 0;
}

static mir_status position_load(mir_tlog_spool *spool, mir_error *error)
{
    mir_tlog_position position = {0};
    const mir_status status =
        mir_tlog_position_read(spool->files, spool->directory, &position, error);
    if (status == MIR_E_NOT_FOUND) return MIR_OK;
    if (status == MIR_E_CORRUPT) {
        mir_log_error("telemetry sink: %s: all rows that wait are sent again", error->text);
        spool->stats.damaged++;
        return MIR_OK;
    }
    if (status != MIR_OK) return status;
    for (uint32_t i = 0; i < position.log_count; i++) {
        const mir_tlog_position_log *log = &position.logs[i];
        if (log->generation > spool->generation_max) spool->generation_max = log->generation;
        for (uint32_t p = 0; p < spool->pin_count; p++) {
            if (spool->pins[p].generation != log->generation) continue;
            if (log->offset < MIR_TLOG_LOG_HEADER_BYTES || log->offset % MIR_TLOG_FRAME_ALIGN != 0)
                continue;
            spool->pins[p].offset = log->offset;
            spool->pins[p].rows = log->rows;
        }
    }
    spool->stats.through_ns = position.through_ns;
    mir_tlog_position_fini(&position);
    return MIR_OK;
}

static mir_status directory_list(mir_tlog_spool *spool, bool remove, mir_error *error)
{
    listing l = {spool, remove};
    const int result = spool->files->list(spool->files->context, spool->directory, found_name, &l);
    if (result < 0) return mir_error_os(error, -result, "list %s", spool->directory);
    return MIR_OK;
}

static mir_status directory_set(mir_tlog_spool *spool, const char *directory,
                                const mir_tlog_files *files, mir_error *error)
{
    if (strlen(directory) >= sizeof spool->directory) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "the name of the data directory is too long");
    }
    (void)snprintf(spool->directory, sizeof spool->directory, "%s", directory);
    spool->files = files == NULL ? &mir_tlog_files_posix : files;
    return MIR_OK;
}

mir_status mir_tlog_spool_open(const char *directory, const mir_tlog_files *files,
                               mir_tlog_spool **spool, mir_error *error)
{
    mir_tlog_spool *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    (void)pthread_mutex_init(&made->mutex, NULL);
    mir_status status = directory_set(made, directory, files, error);
    if (status == MIR_OK) {
        const int result = made->files->make_directory(made->files->context, directory);
        if (result < 0) status = mir_error_os(error, -result, "make directory %s", directory);
    }
    if (status == MIR_OK) status = directory_list(made, false, error);
    if (status == MIR_OK) status = position_load(made, error);
    if (status == MIR_OK) {
        made->window_bytes = WINDOW_BYTES;
        made->window = malloc(made->window_bytes);
        if (made->window == NULL) status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    if (status != MIR_OK) {
        mir_tlog_spool_close(made);
        return status;
    }
    *spool = made;
    return MIR_OK;
}

void mir_tlog_spool_close(mir_tlog_spool *spool)
{
    if (spool == NULL) return;
    for (uint32_t i = 0; i < spool->pin_count; i++) pin_close(spool, &spool->pins[i]);
    free(spool->pins);
    free(spool->made);
    free(spool->window);
    (void)pthread_mutex_destroy(&spool->mutex);
    free(spool);
}

mir_status mir_tlog_spool_remove(const char *directory, const mir_tlog_files *files,
                                 mir_error *error)
{
    mir_tlog_spool spool = {0};
    const mir_status status = directory_set(&spool, directory, files, error);
    if (status != MIR_OK) return status;
    int handle;
    const int result = spool.files->open(spool.files->context, directory, &handle);
    if (result == -ENOENT) return MIR_OK;
    if (result < 0) return mir_error_os(error, -result, "open %s", directory);
    (void)spool.files->close(spool.files->context, handle);
    return directory_list(&spool, true, error);
}

static void log_made(void *context, uint64_t generation, const char *path)
{
    mir_tlog_spool *spool = context;
    char name[MIR_TLOG_PATH_BYTES_MAX];
    path_of(spool, generation, name);
    int result = spool->files->link(spool->files->context, path, name);
    if (result == -EEXIST) { /* of a log that never came to be, after a power cut */
        (void)spool->files->unlink(spool->files->context, name);
        result = spool->files->link(spool->files->context, path, name);
    }
    if (result == 0) {
        result = spool->files->sync_directory(spool->files->context, spool->directory);
        /* It is told to be lost, so it must not come after later ones when this process is over. */
        if (result != 0) (void)spool->files->unlink(spool->files->context, name);
    }
    (void)pthread_mutex_lock(&spool->mutex);
    uint64_t *more = NULL;
    if (result == 0) more = realloc(spool->made, (spool->made_count + 1) * sizeof *more);
    if (more != NULL) {
        spool->made = more;
        more[spool->made_count++] = generation;
    } else {
        spool->stats.logs_lost++;
    }
    (void)pthread_mutex_unlock(&spool->mutex);
    if (more == NULL) {
        mir_log_error("telemetry sink: the rows of %s will not be sent: it cannot be kept: %s",
                      path, result == 0 ? "out of memory" : strerror(-result));
    }
}

void mir_tlog_spool_options(mir_tlog_spool *spool, mir_tlog_options *options)
{
    /* What waits keeps its number, although the log may know nothing of it any more; and what the
     * position says of a log that is gone must not be taken for what it says of a new one. */
    uint64_t taken = spool->generation_max;
    if (spool->pin_count > 0 && spool->pins[spool->pin_count - 1].generation > taken) {
        taken = spool->pins[spool->pin_count - 1].generation;
    }
    if (taken > 0 && taken < UINT64_MAX) options->number_min = taken + 1;
    options->log_made = log_made;
    options->log_made_context = spool;
}

void mir_tlog_spool_attach(mir_tlog_spool *spool, mir_tlog *tlog)
{
    spool->tlog = tlog;
}

/* ---- Reading ---- */

/* Frames of a log between two places; with `row` null, for their names alone. */
typedef struct walk {
    mir_tlog_spool *spool;
    pin *pin;
    uint64_t at;
    uint64_t limit;
    uint32_t rows; /* of the frame at `at`, given */
    mir_tlog_log_row_fn row;
    void *context;
    uint64_t rows_read;
    uint64_t rows_lost;
    uint64_t damaged;
} walk;

static mir_status window_fill(walk *w, size_t *size, mir_error *error)
{
    mir_tlog_spool *spool = w->spool;
    if (*size > w->limit - w->at) *size = (size_t)(w->limit - w->at);
    if (*size > spool->window_bytes) {
        uint8_t *larger = realloc(spool->window, *size);
        if (larger == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        spool->window = larger;
        spool->window_bytes = *size;
    }
    const int result =
        mir_tlog_file_read(spool->files, w->pin->handle, spool->window, *size, w->at);
    if (result < 0) {
        return mir_error_os(error, -result, "read log %016" PRIx64 " of the telemetry sink",
                            w->pin->generation);
    }
    return MIR_OK;
}

static mir_status frame_give(walk *w, const mir_tlog_frame *frame)
{
    uint32_t taken;
    const mir_status status = mir_tlog_records_read(w->pin->records, frame->payload, w->rows,
                                                    w->row, w->context, &taken, &w->rows_lost);
    if (w->row == NULL) return status == MIR_E_NO_MEMORY ? status : MIR_OK;
    if (taken > w->rows) w->rows_read += taken - w->rows;
    if (status == MIR_E_CORRUPT) {
        /* Its checksum is right, its records are not; what is left of it cannot be told apart. */
        w->damaged++;
        if (frame->row_count > taken) w->rows_lost += frame->row_count - taken;
        w->rows = 0;
        return MIR_OK;
    }
    w->rows = status == MIR_OK ? 0 : taken;
    return status;
}

/* To `limit`, or up to a row that is refused. */
static mir_status walk_on(walk *w, mir_error *error)
{
    size_t wanted = WINDOW_BYTES;
    bool astray = false;
    while (w->at < w->limit) {
        size_t size = wanted;
        mir_status status = window_fill(w, &size, error);
        if (status != MIR_OK) return status;
        const mir_view bytes = mir_view_of(w->spool->window, size);
        const uint64_t start = w->at;
        size_t at = 0;
        wanted = WINDOW_BYTES;
        while (size - at >= MIR_TLOG_FRAME_HEADER_BYTES) {
            mir_tlog_frame frame;
            const mir_tlog_frame_found found =
                mir_tlog_log_frame_at(bytes, at, w->pin->generation, &frame);
            if (found == MIR_TLOG_FRAME_PART && start + frame.end <= w->limit) {
                if (at == 0) wanted = frame.end;
                break;
            }
            if (found != MIR_TLOG_FRAME_WHOLE) {
                astray = true;
                w->rows = 0;
                at += MIR_TLOG_FRAME_ALIGN;
                continue;
            }
            if (astray) w->damaged++;
            astray = false;
            status = frame_give(w, &frame);
            if (status != MIR_OK) {
                w->at = start + at;
                return status;
            }
            at = frame.end;
        }
        /* What is shorter than a header at the end of a log is nothing. */
        const bool last = start + size >= w->limit && size - at < MIR_TLOG_FRAME_HEADER_BYTES;
        w->at = last ? w->limit : start + at;
    }
    return MIR_OK;
}

/* Its header, and the names that come before the place where it is to be read on. */
static mir_status pin_open(mir_tlog_spool *spool, pin *p, mir_error *error)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    path_of(spool, p->generation, path);
    if (p->handle < 0) {
        const int result = spool->files->open(spool->files->context, path, &p->handle);
        if (result < 0) {
            p->handle = -1;
            return mir_error_os(error, -result, "open %s", path);
        }
    }
    if (p->records != NULL) return MIR_OK;
    uint8_t header[MIR_TLOG_LOG_HEADER_BYTES];
    const int result = mir_tlog_file_read(spool->files, p->handle, header, sizeof header, 0);
    if (result < 0) return mir_error_os(error, -result, "read %s", path);
    int64_t base_ns;
    mir_status status = mir_tlog_log_header_read(mir_view_of(header, sizeof header), sizeof header,
                                                 p->generation, &base_ns, error);
    /* It was on the disk before the log was pinned. */
    if (status == MIR_E_EMPTY) status = mir_error_set(error, MIR_E_CORRUPT, "its header is gone");
    if (status != MIR_OK) return status;
    status =
        mir_tlog_records_new(p->generation, base_ns, MIR_TLOG_LOG_FILE_BYTES_MAX / 64, &p->records);
    if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
    walk names = {.spool = spool,
                  .pin = p,
                  .at = MIR_TLOG_LOG_HEADER_BYTES,
                  .limit = p->offset < p->limit ? p->offset : p->limit};
    status = walk_on(&names, error);
    if (status != MIR_OK) pin_close(spool, p);
    return status;
}

static void give_up(mir_tlog_spool *spool, pin *p, const char *why)
{
    mir_log_error("telemetry sink: the rest of log %016" PRIx64 " is given up: %s", p->generation,
                  why);
    count(spool, &spool->stats.logs_lost, 1);
    p->given_up = true;
    p->offset = p->limit;
    spool->unwritten = true;
}

static mir_status pin_read(mir_tlog_spool *spool, pin *p, mir_tlog_log_row_fn row, void *context,
                           mir_error *error)
{
    if (p->offset > p->limit) {
        /* The position is that of another file. */
        p->offset = MIR_TLOG_LOG_HEADER_BYTES;
        p->rows = 0;
    }
    if (p->offset >= p->limit) return MIR_OK;
    mir_status status = pin_open(spool, p, error);
    walk w = {.spool = spool,
              .pin = p,
              .at = p->offset,
              .limit = p->limit,
              .rows = p->rows,
              .row = row,
              .context = context};
    const bool opened = status == MIR_OK;
    if (opened) status = walk_on(&w, error);
    if (w.at != p->offset || w.rows != p->rows) {
        spool->unwritten = true;
        p->failures = 0;
    }
    p->offset = w.at;
    p->rows = w.rows;
    (void)pthread_mutex_lock(&spool->mutex);
    spool->stats.rows_read += w.rows_read;
    spool->stats.rows_lost += w.rows_lost;
    spool->stats.damaged += w.damaged;
    (void)pthread_mutex_unlock(&spool->mutex);
    const bool unreadable =
        status == MIR_E_CORRUPT || status == MIR_E_UNSUPPORTED || status == MIR_E_NOT_FOUND;
    const bool failed = status == MIR_E_IO && ++p->failures >= FAILURES_MAX;
    if ((!opened && unreadable) || failed) {
        give_up(spool, p, error->text);
        status = MIR_OK;
    }
    return status;
}

static mir_status made_take(mir_tlog_spool *spool)
{
    mir_status status = MIR_OK;
    (void)pthread_mutex_lock(&spool->mutex);
    while (spool->made_count > 0 && status == MIR_OK) {
        status = pin_add(spool, spool->made[spool->made_count - 1]);
        if (status == MIR_OK) spool->made_count--;
    }
    (void)pthread_mutex_unlock(&spool->mutex);
    return status;
}

/* Where each log ends. The later ones first: when one of these has rows, the log that its writer had
 * before is complete, and will be seen so. */
static mir_status round_begin(mir_tlog_spool *spool, mir_error *error)
{
    const int64_t now_ns = mir_clock_wall_ns();
    if (made_take(spool) != MIR_OK) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint64_t bytes = 0;
    for (uint32_t i = spool->pin_count; i-- > 0;) {
        pin *p = &spool->pins[i];
        if (p->grows) {
            const bool grows = mir_tlog_log_grows(spool->tlog, p->generation, &p->limit);
            const int result = pin_bytes(spool, p, &p->bytes);
            if (!grows && result < 0 && result != -ENOENT && ++p->failures < FAILURES_MAX) {
                /* Those behind it may not be read before it. */
                return mir_error_os(error, -result, "size of log %016" PRIx64, p->generation);
            }
            p->grows = grows;
            if (!grows && result == 0) {
                p->limit = p->bytes;
            } else if (!grows) {
                give_up(spool, p, strerror(-result));
            }
        }
        if (p->given_up) p->offset = p->limit;
        bytes += p->bytes;
    }
    (void)pthread_mutex_lock(&spool->mutex);
    spool->stats.bytes = bytes;
    spool->stats.logs = spool->pin_count;
    (void)pthread_mutex_unlock(&spool->mutex);
    spool->round_ns = now_ns;
    spool->at = 0;
    spool->in_round = true;
    return MIR_OK;
}

mir_status mir_tlog_spool_read(mir_tlog_spool *spool, mir_tlog_log_row_fn row, void *context,
                               mir_error *error)
{
    MIR_ASSERT(spool->tlog != NULL);
    if (!spool->in_round) {
        const mir_status status = round_begin(spool, error);
        if (status != MIR_OK) return status;
    }
    for (; spool->at < spool->pin_count; spool->at++) {
        pin *p = &spool->pins[spool->at];
        const mir_status status = pin_read(spool, p, row, context, error);
        if (status != MIR_OK) return status;
        if (!p->grows) pin_close(spool, p);
    }
    spool->in_round = false;
    spool->given_ns = spool->round_ns;
    return MIR_OK;
}

static bool pin_done(const pin *p)
{
    return !p->grows && p->offset >= p->limit;
}

mir_status mir_tlog_spool_accept(mir_tlog_spool *spool, mir_error *error)
{
    mir_status status = MIR_OK;
    bool done = false;
    for (uint32_t i = 0; i < spool->pin_count && !done; i++) {
        done = i < spool->at && pin_done(&spool->pins[i]);
    }
    if (spool->given_ns != 0) {
        (void)pthread_mutex_lock(&spool->mutex);
        spool->stats.through_ns = spool->given_ns;
        (void)pthread_mutex_unlock(&spool->mutex);
    }
    if (spool->unwritten || done) {
        mir_tlog_position position = {.through_ns = spool->stats.through_ns,
                                      .logs = calloc(spool->pin_count + 1, sizeof *position.logs)};
        if (position.logs == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        for (uint32_t i = 0; i < spool->pin_count; i++) {
            const pin *p = &spool->pins[i];
            if (p->offset == MIR_TLOG_LOG_HEADER_BYTES && p->rows == 0) continue;
            position.logs[position.log_count++] = (mir_tlog_position_log){
                .generation = p->generation, .offset = p->offset, .rows = p->rows};
        }
        status = mir_tlog_position_write(spool->files, spool->directory, &position, error);
        mir_tlog_position_fini(&position);
        if (status != MIR_OK) return status;
        spool->unwritten = false;
    }
    /* Those of this round, or of the one that is over: of others the limit is not that of now. */
    const uint32_t end = spool->at < spool->pin_count ? spool->at : spool->pin_count;
    for (uint32_t i = end; i-- > 0 && done;) {
        if (pin_done(&spool->pins[i])) (void)pin_remove(spool, i);
    }
    return MIR_OK;
}

/* ---- Bounds ---- */

static bool stopped(const atomic_bool *stop)
{
    return stop != NULL && atomic_load_explicit(stop, memory_order_relaxed);
}

/* Frames follow one another; where they do not, the rest is not counted. Frames are small and many: one
 * read has the heads of those that lie in it. */
static uint64_t rows_behind(mir_tlog_spool *spool, pin *p, uint64_t limit, const atomic_bool *stop)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    path_of(spool, p->generation, path);
    int handle;
    if (spool->files->open(spool->files->context, path, &handle) < 0) return 0;
    uint64_t rows = 0;
    uint64_t from = 0; /* of what the window has */
    size_t size = 0;
    for (uint64_t at = p->offset; at + MIR_TLOG_FRAME_HEADER_BYTES <= limit && !stopped(stop);) {
        if (at + MIR_TLOG_FRAME_HEADER_BYTES > from + size) {
            from = at;
            size = limit - at < WINDOW_BYTES ? (size_t)(limit - at) : WINDOW_BYTES;
            if (mir_tlog_file_read(spool->files, handle, spool->window, size, from) < 0) break;
        }
        mir_tlog_frame frame;
        const mir_view head = mir_view_of(spool->window + (at - from), MIR_TLOG_FRAME_HEADER_BYTES);
        /* An empty frame is whole with its header alone. */
        if (mir_tlog_log_frame_at(head, 0, p->generation, &frame) == MIR_TLOG_FRAME_NONE) break;
        rows += frame.row_count;
        at += frame.end;
    }
    (void)spool->files->close(spool->files->context, handle);
    return rows > p->rows ? rows - p->rows : 0;
}

uint64_t mir_tlog_spool_count(mir_tlog_spool *spool, const atomic_bool *stop)
{
    uint64_t rows = 0;
    for (uint32_t i = 0; i < spool->pin_count && !stopped(stop); i++) {
        pin *p = &spool->pins[i];
        uint64_t bytes = 0;
        if (pin_bytes(spool, p, &bytes) == 0) rows += rows_behind(spool, p, bytes, stop);
    }
    return rows;
}

uint64_t mir_tlog_spool_trim(mir_tlog_spool *spool, uint64_t bytes_max)
{
    uint64_t rows = 0;
    uint64_t bytes = 0;
    if (made_take(spool) != MIR_OK) return 0;
    for (uint32_t i = 0; i < spool->pin_count; i++) {
        pin *p = &spool->pins[i];
        /* Of the others it is known. */
        if (p->grows) (void)pin_bytes(spool, p, &p->bytes);
        bytes += p->bytes;
    }
    for (uint32_t i = 0; i < spool->pin_count && bytes > bytes_max;) {
        pin *p = &spool->pins[i];
        uint64_t written;
        if (mir_tlog_log_grows(spool->tlog, p->generation, &written)) {
            i++;
            continue;
        }
        rows += rows_behind(spool, p, p->bytes, NULL);
        const uint64_t freed = p->bytes;
        if (pin_remove(spool, i)) {
            bytes -= freed;
            continue;
        }
        p->grows = false;
        p->given_up = true;
        p->limit = freed;
        p->offset = freed;
        p->rows = 0;
        spool->unwritten = true;
        i++;
    }
    (void)pthread_mutex_lock(&spool->mutex);
    spool->stats.bytes = bytes;
    spool->stats.logs = spool->pin_count;
    (void)pthread_mutex_unlock(&spool->mutex);
    return rows;
}

void mir_tlog_spool_stats_read(mir_tlog_spool *spool, mir_tlog_spool_stats *stats)
{
    (void)pthread_mutex_lock(&spool->mutex);
    *stats = spool->stats;
    (void)pthread_mutex_unlock(&spool->mutex);
}
