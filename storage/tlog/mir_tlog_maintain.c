/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_log.h"
#include "mir_thread.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_output.h"
#include "mir_tlog_retain.h"
#include "mir_tlog_rollup.h"
#include "mir_tlog_sweep.h"

/* What runs beside the shards: syncing, spare logs, sealing, merging, retention. */

enum {
    LOG_BYTES_PER_SERIES = 1024,
    DISK_CALM_BYTES = 64 << 20,
    /* While rows come fast a row is encoded again only with many others; in calm moments what is
     * left of that is put together. */
    MERGE_RUN_MIN = 8,
    MERGE_RUN_MIN_CALM = 2,
    MERGE_RUN_MAX = 16,
    /* In calm moments a merge is worth its cost when the largest segment in it is at most so many
     * times the others: then all merges of it together write less than thrice what there is. Once
     * the days of a partition are over little comes to them, so for the last time more is paid. */
    MERGE_LARGEST_TIMES = 2,
    MERGE_LARGEST_TIMES_OVER = 16,
    ROLLUP_DAYS = 32,
    /* An old segment is packed again when zstd made at least one in so many of its bytes. */
    LIGHT_PART = 8,
    /* What a chunk with many columns may take, when it is put together, of that with a few. */
    WIDE_TIMES = 8,
    /* Rows of one series between two looks at whether another thread should go on. */
    SEAL_ROWS_AT_ONCE = 4 * MIR_TLOG_CHUNK_ROWS_MAX,
    /* About so much of one series is put in order at once, in what a sweep has of rows; since its rows
     * are looked through for each stretch, there are no more than so many of these. */
    SEAL_SWEEPS = 2,
    SEAL_STRETCHES_MAX = 16,
    SEAL_SAMPLES = 8192,
    SEAL_TIME_BYTES = 8,
    SEAL_CELL_BYTES = 9,
};

/* So long without a refused row, and the log is full no more. */
static const int64_t FULL_CALM_NS = 5 * MIR_NS_PER_S;

/* Rows that are older hardly ever get company: the time to pack them once more, densely. */
static const int64_t OLD_NS = 24 * 3600 * MIR_NS_PER_S;

/* A trickle is less than this of all writers. */
static const uint64_t TRICKLE_BYTES_PER_MS = 64;

static const uint64_t MERGE_TIER_BYTES = 1 << 20;
static const uint64_t MERGE_BYTES_MAX = UINT64_C(512) << 20;

static bool stopping(const mir_tlog *tlog)
{
    return atomic_load_explicit(&tlog->stop, memory_order_acquire);
}

static void wait_for(sem_t *semaphore, int64_t timeout_ns)
{
    int64_t until = mir_clock_wall_ns() + timeout_ns;
    const struct timespec at = {.tv_sec = until / MIR_NS_PER_S, .tv_nsec = until % MIR_NS_PER_S};
    while (sem_timedwait(semaphore, &at) != 0 && errno == EINTR) continue;
}

/* ---- Logs ---- */

mir_status mir_tlog_live_create(mir_tlog *tlog, mir_tlog_writer *owner, mir_tlog_live **live,
                                mir_error *error)
{
    const mir_tlog_files *files = tlog->files;
    mir_tlog_live *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    const uint64_t generation = mir_tlog_number_take(tlog);
    made->tlog = tlog;
    made->owner = owner;
    made->handle = -1;
    atomic_init(&made->references, 1);
    mir_tlog_path(tlog, made->path, generation, "log");
    const int64_t base_ns = mir_clock_wall_ns();
    /* As many buckets as there may be series with a few rows each. */
    uint64_t hint = atomic_load_explicit(&owner->series_open, memory_order_relaxed);
    if (hint < tlog->file_bytes / LOG_BYTES_PER_SERIES) {
        hint = tlog->file_bytes / LOG_BYTES_PER_SERIES;
    }
    mir_status status = mir_tlog_mem_new(
        generation, base_ns, hint > UINT32_MAX ? UINT32_MAX : (uint32_t)hint, &made->mem);
    if (status != MIR_OK) {
        free(made);
        return mir_error_set(error, status, "out of memory");
    }
    uint8_t header[MIR_TLOG_LOG_HEADER_BYTES];
    mir_tlog_log_header(header, generation, base_ns);
    const char *step = "create";
    int result = files->create(files->context, made->path, &made->handle);
    if (result == 0) {
        step = "allocate room for";
        const uint64_t room =
            tlog->file_bytes < MIR_TLOG_LOG_ROOM_EMPTY ? tlog->file_bytes : MIR_TLOG_LOG_ROOM_EMPTY;
        atomic_init(&made->room, room);
        result = files->allocate(files->context, made->handle, room);
        if (result == 0) {
            step = "write";
            result = mir_tlog_file_write(files, made->handle, header, sizeof header, 0);
        }
        if (result == 0) {
            step = "sync";
            result = files->sync(files->context, made->handle);
        }
        if (result == 0) {
            step = "sync the directory of";
            result = files->sync_directory(files->context, tlog->directory);
        }
    }
    if (result != 0) {
        if (made->handle >= 0) (void)files->unlink(files->context, made->path);
        status = mir_error_os(error, -result, "%s %s", step, made->path);
    } else {
        /* Readers see it before it has a row. */
        status = mir_tlog_install(tlog, NULL, 0, NULL, 0, made, NULL, error);
        if (status != MIR_OK) (void)files->unlink(files->context, made->path);
    }
    if (status != MIR_OK) {
        mir_tlog_live_release(made);
        return status;
    }
    if (tlog->options.log_made != NULL) {
        tlog->options.log_made(tlog->options.log_made_context, generation, made->path);
    }
    *live = made;
    return MIR_OK;
}

static void spares_make(mir_tlog *tlog)
{
    for (uint32_t i = 0; i < tlog->options.writer_count && !stopping(tlog); i++) {
        mir_tlog_writer *writer = &tlog->writers[i];
        if (atomic_load_explicit(&writer->spare, memory_order_relaxed) != NULL) continue;
        mir_error error;
        mir_tlog_live *live;
        const mir_status status = mir_tlog_live_create(tlog, writer, &live, &error);
        if (status == MIR_OK) {
            atomic_store_explicit(&writer->spare_status, MIR_OK, memory_order_relaxed);
            /* Pairs with the acquire in rotate. */
            atomic_store_explicit(&writer->spare, live, memory_order_release);
            continue;
        }
        const mir_status cause = status == MIR_E_NO_SPACE    ? MIR_E_NO_SPACE
                                 : status == MIR_E_NO_MEMORY ? MIR_E_NO_MEMORY
                                                             : MIR_E_IO;
        atomic_store_explicit(&writer->spare_status, (int)cause, memory_order_relaxed);
        mir_tlog_count(&tlog->write_errors, 1);
        mir_error_wrap(&error,
                       "no new telemetry log can be made; telemetry is refused when the present "
                       "one is full (%s)",
                       cause == MIR_E_NO_SPACE ? "free disk space" : "check the disk");
        mir_tlog_trouble(tlog, error.text);
        return;
    }
}

/* A file that grows with each write makes its syncs dearer; one that is as large from the start as it
 * may ever be would take that room for nothing while few rows come. */
static void logs_grow(mir_tlog *tlog)
{
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t i = 0; i < version->live_count; i++) {
        mir_tlog_live *live = version->lives[i];
        if (live->handle < 0 || live->owner == NULL || !mir_tlog_wants_room(tlog, live)) continue;
        uint64_t room = 4 * atomic_load_explicit(&live->bytes, memory_order_relaxed);
        if (room < MIR_TLOG_LOG_ROOM) room = MIR_TLOG_LOG_ROOM;
        if (room > tlog->file_bytes) room = tlog->file_bytes;
        /* If it cannot be had the write itself will say so, or go on without. */
        (void)tlog->files->allocate(tlog->files->context, live->handle, room);
        atomic_store_explicit(&live->room, room, memory_order_relaxed);
    }
    mir_tlog_version_release(version);
}

/* What is free, and how much of it is for others; false: there is no reserve, or it is not known. */
static bool disk_look(const mir_tlog *tlog, uint64_t *free_bytes, uint64_t *reserve)
{
    uint64_t disk_bytes;
    *reserve = tlog->options.disk_reserve_bytes;
    if (*reserve == 0 || tlog->files->free_bytes(tlog->files->context, tlog->directory, free_bytes,
                                                 &disk_bytes) < 0) {
        return false;
    }
    /* A small disk is not all reserve. */
    if (*reserve > disk_bytes / 16) *reserve = disk_bytes / 16;
    return true;
}

uint64_t mir_tlog_disk_room(const mir_tlog *tlog)
{
    uint64_t free_bytes;
    uint64_t reserve;
    if (!disk_look(tlog, &free_bytes, &reserve)) return UINT64_MAX;
    return free_bytes > reserve ? free_bytes - reserve : 0;
}

static bool is_disk_low(const mir_tlog *tlog)
{
    return atomic_load_explicit(&tlog->disk_low, memory_order_relaxed);
}

void mir_tlog_disk_watch(mir_tlog *tlog)
{
    uint64_t reserve;
    uint64_t free_bytes;
    if (!disk_look(tlog, &free_bytes, &reserve)) return;
    atomic_store_explicit(&tlog->disk_reserve_bytes, reserve, memory_order_relaxed);
    const bool low = is_disk_low(tlog);
    /* Somewhat more, so that it does not go on and off. */
    const uint64_t more = reserve / 8 < DISK_CALM_BYTES ? reserve / 8 : DISK_CALM_BYTES;
    if (free_bytes < reserve || (low && free_bytes - reserve < more)) {
        mir_error text = {{0}};
        (void)mir_error_set(&text, MIR_E_NO_SPACE,
                            "telemetry is refused because less of the disk is free than "
                            "telemetry.disk_reserve (%" PRIu64
                            " MiB): free disk space, or set telemetry.retention",
                            reserve >> 20);
        atomic_store_explicit(&tlog->disk_low, true, memory_order_relaxed);
        mir_tlog_trouble(tlog, text.text);
    } else if (low) {
        atomic_store_explicit(&tlog->disk_low, false, memory_order_relaxed);
        mir_tlog_trouble(tlog, NULL);
        mir_log_warn("telemetry: the disk has room again, telemetry is taken");
    }
}

/* ---- Sealing ---- */

static int mem_series_compare(const void *a, const void *b)
{
    const mir_tlog_mem_series *left = *(const mir_tlog_mem_series *const *)a;
    const mir_tlog_mem_series *right = *(const mir_tlog_mem_series *const *)b;
    int order = left->shape == right->shape
                    ? 0
                    : mir_view_compare(left->shape->measurement, right->shape->measurement);
    if (order == 0) order = mir_view_compare(left->device, right->device);
    if (order == 0) order = left->id < right->id ? -1 : left->id > right->id;
    return order;
}

static bool same_series(const mir_tlog_mem_series *a, const mir_tlog_mem_series *b)
{
    return mir_view_eq(a->device, b->device) &&
           (a->shape == b->shape || mir_view_eq(a->shape->measurement, b->shape->measurement));
}

/* One thread at a time has it; the next one goes on where the last one stopped. */
struct mir_tlog_seal {
    mir_tlog_mem_series **series; /* in the order of segments */
    uint32_t count;
    uint32_t next; /* the first of the series whose rows are being put, or come next */
    uint32_t end;  /* behind the last of these */
    /* Of very many rows some are put in order at a time: the last times of each of these stretches. */
    int64_t cuts[SEAL_STRETCHES_MAX];
    uint32_t cut_count;
    uint32_t cut; /* the stretch that is gathered, or comes next */
    bool is_gathered;
    uint32_t row; /* of the gather: up to here they are in segments */
    mir_tlog_gather gather;
    mir_tlog_outputs all;
};

static void seal_free(mir_tlog_seal *s)
{
    if (s == NULL) return;
    mir_tlog_outputs_abandon(&s->all);
    mir_tlog_gather_fini(&s->gather);
    free(s->series);
    free(s);
}

static mir_status seal_begin(mir_tlog *tlog, const mir_tlog_live *live, mir_tlog_seal **seal)
{
    mir_tlog_seal *s = calloc(1, sizeof *s);
    if (s == NULL) return MIR_E_NO_MEMORY;
    s->series = malloc(((size_t)live->mem->series_count + 1) * sizeof *s->series);
    if (s->series == NULL || mir_tlog_gather_init(&s->gather) != MIR_OK) {
        free(s->series);
        free(s);
        return MIR_E_NO_MEMORY;
    }
    for (mir_tlog_mem_series *each = atomic_load_explicit(&live->mem->all, memory_order_acquire);
         each != NULL; each = each->all_next) {
        if (atomic_load_explicit(&each->published, memory_order_relaxed) > 0) {
            s->series[s->count++] = each;
        }
    }
    if (s->count > 1) qsort(s->series, s->count, sizeof *s->series, mem_series_compare);
    s->all.tlog = tlog;
    s->all.head.generation_min = s->all.head.generation_max = live->mem->generation;
    *seal = s;
    return MIR_OK;
}

static int time_compare(const void *a, const void *b)
{
    const int64_t left = *(const int64_t *)a;
    const int64_t right = *(const int64_t *)b;
    return left < right ? -1 : left > right;
}

/* The times of some rows of the series, as many before each as before the others. */
static mir_status times_sample(const mir_tlog_live *live, const mir_tlog_seal *s, uint64_t rows,
                               int64_t *times, uint32_t *count)
{
    const uint64_t stride = rows / SEAL_SAMPLES + 1;
    uint64_t number = 0;
    *count = 0;
    for (uint32_t i = s->next; i < s->end; i++) {
        mir_tlog_mem_cursor cursor;
        mir_status status = mir_tlog_mem_cursor_init(&cursor, live->mem, s->series[i],
                                                     mir_tlog_mem_published(s->series[i]));
        if (status != MIR_OK) return status;
        while (status == MIR_OK) {
            int64_t time_ns;
            uint32_t cells;
            status = mir_tlog_mem_next(&cursor, &time_ns, s->gather.cells, &cells);
            if (status != MIR_OK || number++ % stride != 0 || *count == SEAL_SAMPLES) continue;
            times[(*count)++] = time_ns;
        }
        mir_tlog_mem_cursor_fini(&cursor);
        if (status != MIR_E_EMPTY) return status;
    }
    return MIR_OK;
}

/* The next device and measurement, whatever shapes its rows have. */
static mir_status seal_series(const mir_tlog_live *live, mir_tlog_seal *s)
{
    const uint64_t bytes_max =
        atomic_load_explicit(&live->tlog->sweep_bytes_max, memory_order_relaxed) * SEAL_SWEEPS;
    uint64_t bytes = 0;
    uint64_t rows = 0;
    for (s->end = s->next; s->end < s->count && same_series(s->series[s->next], s->series[s->end]);
         s->end++) {
        const mir_tlog_mem_series *series = s->series[s->end];
        rows += mir_tlog_mem_rows(series);
        bytes += (uint64_t)mir_tlog_mem_rows(series) *
                 (SEAL_TIME_BYTES + series->shape->column_count * (uint64_t)SEAL_CELL_BYTES);
    }
    const uint64_t wanted = bytes / bytes_max + 1;
    const uint32_t stretches = wanted < SEAL_STRETCHES_MAX ? (uint32_t)wanted : SEAL_STRETCHES_MAX;
    s->cut = 0;
    s->cut_count = stretches;
    s->cuts[stretches - 1] = INT64_MAX;
    if (stretches == 1) return MIR_OK;
    int64_t *times = malloc(SEAL_SAMPLES * sizeof *times);
    uint32_t count = 0;
    mir_status status =
        times == NULL ? MIR_E_NO_MEMORY : times_sample(live, s, rows, times, &count);
    if (count > 1) qsort(times, count, sizeof *times, time_compare);
    for (uint32_t i = 0; i + 1 < stretches && count > 0; i++) {
        s->cuts[i] = times[(uint64_t)count * (i + 1) / stretches];
    }
    if (count == 0) s->cuts[0] = INT64_MAX;
    if (count == 0) s->cut_count = 1;
    free(times);
    return status;
}

/* The rows of its next stretch. */
static mir_status seal_gather(const mir_tlog_live *live, mir_tlog_seal *s)
{
    mir_tlog_gather *gather = &s->gather;
    mir_tlog_gather_reset(gather);
    s->row = 0;
    gather->time_last = s->cuts[s->cut];
    gather->time_first = s->cut == 0 ? INT64_MIN : s->cuts[s->cut - 1];
    if (s->cut > 0) {
        /* Many rows may have the time of two cuts: they were in the first one's. */
        if (gather->time_first == gather->time_last) return MIR_OK;
        gather->time_first++;
    }
    mir_status status = MIR_OK;
    for (uint32_t i = s->next; i < s->end && status == MIR_OK; i++) {
        status = mir_tlog_gather_mem(gather, live->mem, s->series[i],
                                     mir_tlog_mem_published(s->series[i]));
    }
    return status == MIR_OK ? mir_tlog_gather_finish(gather) : status;
}

/* Whether a job is one for the sealers, which run at the priority of the shards. */
static bool job_pressed(const mir_tlog_live *job)
{
    return job->owner != NULL && mir_tlog_pressed(job->owner);
}

static mir_status seal_rows(const mir_tlog_live *live, mir_tlog_seal *s, mir_tlog_codec *codec,
                            bool sealer, mir_error *error)
{
    while (s->next < s->count) {
        if (stopping(live->tlog)) return MIR_E_CANCELLED;
        if (!sealer) {
            if (job_pressed(live)) return MIR_E_AGAIN;
            mir_thread_offer();
        }
        mir_status status = MIR_OK;
        if (s->end <= s->next) status = seal_series(live, s);
        if (status == MIR_OK && !s->is_gathered) status = seal_gather(live, s);
        if (status != MIR_OK) {
            return mir_error_set(error, status, "reading rows back: %s", mir_status_name(status));
        }
        s->is_gathered = true;
        uint32_t last = s->gather.row_count;
        if (last - s->row > SEAL_ROWS_AT_ONCE) last = s->row + SEAL_ROWS_AT_ONCE;
        const mir_tlog_mem_series *series = s->series[s->next];
        status = mir_tlog_outputs_put(&s->all, codec, series->shape->measurement, series->device,
                                      &s->gather, s->row, last, error);
        if (status != MIR_OK) return status;
        s->row = last;
        if (last < s->gather.row_count) continue;
        s->is_gathered = false;
        if (++s->cut == s->cut_count) s->next = s->end;
    }
    return MIR_OK;
}

/* MIR_E_AGAIN: it stays begun, for a sealer to go on with it. After any other failure the next one
 * begins anew. */
static mir_status seal(mir_tlog *tlog, mir_tlog_live *live, mir_tlog_codec *codec, bool sealer,
                       mir_error *error)
{
    mir_status status = MIR_OK;
    if (live->seal == NULL) status = seal_begin(tlog, live, &live->seal);
    if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
    mir_tlog_seal *s = live->seal;
    status = seal_rows(live, s, codec, sealer, error);
    if (status == MIR_E_AGAIN) return status;
    mir_tlog_segment *made[MIR_TLOG_OUTPUTS_MAX + 1];
    uint32_t made_count = 0;
    if (status == MIR_OK) status = mir_tlog_outputs_end(&s->all, codec, made, &made_count, error);
    if (status == MIR_OK) {
        status = mir_tlog_install(tlog, made, made_count, NULL, 0, NULL, live, error);
    }
    live->seal = NULL;
    seal_free(s);
    return status;
}

/* ---- Jobs ---- */

/* With the mutex held: frozen logs of all writers enter the list, in the order of generations. */
static void jobs_collect(mir_tlog *tlog)
{
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        /* Pairs with the release in rotate. */
        mir_tlog_live *live =
            atomic_exchange_explicit(&tlog->writers[i].frozen, NULL, memory_order_acquire);
        while (live != NULL) {
            mir_tlog_live *next = live->next;
            mir_tlog_live **link = &tlog->jobs;
            while (*link != NULL && (*link)->mem->generation < live->mem->generation) {
                link = &(*link)->next;
            }
            live->next = *link;
            *link = live;
            live = next;
        }
    }
}

/* The oldest log that nobody seals yet: for a sealer, of the writers that are pressed; for who runs
 * at nice 19, of the others. */
static mir_tlog_live *job_take(mir_tlog *tlog, bool sealer)
{
    (void)pthread_mutex_lock(&tlog->mutex);
    jobs_collect(tlog);
    mir_tlog_live *job = tlog->jobs;
    while (job != NULL && (job->taken || job_pressed(job) != sealer)) job = job->next;
    if (job != NULL) job->taken = true;
    (void)pthread_mutex_unlock(&tlog->mutex);
    return job;
}

static void job_end(mir_tlog *tlog, mir_tlog_live *job, bool done)
{
    (void)pthread_mutex_lock(&tlog->mutex);
    job->taken = false;
    if (done) {
        mir_tlog_live **link = &tlog->jobs;
        while (*link != job) link = &(*link)->next;
        *link = job->next;
    }
    (void)pthread_mutex_unlock(&tlog->mutex);
    if (!done) return;
    if (job->owner != NULL) {
        /* Pairs with the acquire in rotate. */
        (void)atomic_fetch_sub_explicit(&job->owner->frozen_count, 1, memory_order_release);
    }
    mir_tlog_live_release(job);
    /* There may be something to merge, and who waits in mir_tlog_settle may go on. */
    (void)sem_post(&tlog->background_wake);
}

/* Seals what there is to seal; false when it cannot at present. */
static bool jobs_work(mir_tlog *tlog, mir_tlog_codec *codec, bool sealer)
{
    for (mir_tlog_live *job; !stopping(tlog) && (job = job_take(tlog, sealer)) != NULL;) {
        mir_error error;
        const mir_status status = seal(tlog, job, codec, sealer, &error);
        job_end(tlog, job, status == MIR_OK);
        if (status == MIR_E_CANCELLED) return false;
        if (status == MIR_E_AGAIN) {
            mir_tlog_seal_wanted(tlog, true);
            continue;
        }
        if (status != MIR_OK) {
            mir_tlog_count(&tlog->write_errors, 1);
            mir_error_wrap(&error, "telemetry stays in its log, which cannot be sealed (%s)",
                           status == MIR_E_NO_SPACE ? "free disk space" : "check the disk");
            mir_tlog_trouble(tlog, error.text);
            return false;
        }
        mir_tlog_count(&tlog->seals, 1);
        mir_tlog_trouble(tlog, NULL);
    }
    return true;
}

/* ---- Merging ---- */

static uint32_t tier_of(const mir_tlog_segment *segment)
{
    uint32_t tier = 0;
    for (uint64_t size = segment->size / MERGE_TIER_BYTES; size > 0; size /= 4) tier++;
    return tier;
}

/* Segments of one day are merged with each other, and those of several days with each other. */
static int64_t partition_of(const mir_tlog_segment *segment)
{
    const int step = mir_tlog_rollup_step_in(segment);
    if (step != MIR_TLOG_ROLLUP_NONE) {
        /* What rows came to is far less: so many days together. */
        const int64_t first = mir_tlog_day_of(segment->time_min) / ROLLUP_DAYS;
        const bool one = first == mir_tlog_day_of(segment->time_max) / ROLLUP_DAYS;
        return INT64_MIN + 1 + (step + 1) * (INT64_C(1) << 40) + (one ? first : -(1 << 30));
    }
    const int64_t day = mir_tlog_day_of(segment->time_min);
    return day == mir_tlog_day_of(segment->time_max) ? day : INT64_MIN;
}

/* Within a run of the program a series has one writer, so generations of its chunks grow with the
 * order of its rows, whatever logs of other writers come between. A merged chunk has the highest
 * generation of its parts: no part of the same series may stay behind between them. */
static bool run_allowed(const mir_tlog_version *version, const uint32_t *run, uint32_t count,
                        uint64_t unsealed_min)
{
    uint64_t low = UINT64_MAX, high = 0;
    int64_t first = INT64_MAX, last = INT64_MIN;
    for (uint32_t i = 0; i < count; i++) {
        const mir_tlog_segment *segment = version->segments[run[i]];
        if (segment->head.generation_min < low) low = segment->head.generation_min;
        if (segment->head.generation_max > high) high = segment->head.generation_max;
        if (segment->time_min < first) first = segment->time_min;
        if (segment->time_max > last) last = segment->time_max;
    }
    if (unsealed_min <= high) return false;
    const int step = mir_tlog_rollup_step_in(version->segments[run[0]]);
    for (uint32_t i = 0; i < version->segment_count; i++) {
        const mir_tlog_segment *other = version->segments[i];
        bool in_run = false;
        for (uint32_t r = 0; r < count && !in_run; r++) in_run = run[r] == i;
        /* Rows and what others came to are of different series. */
        if (mir_tlog_rollup_step_in(other) != step) continue;
        if (!in_run && other->head.generation_max >= low && other->head.generation_min <= high &&
            other->time_max >= first && other->time_min <= last) {
            return false;
        }
    }
    return true;
}

static uint32_t run_find(const mir_tlog_version *version, uint64_t unsealed_min, uint64_t bytes_max,
                         uint32_t *run)
{
    for (uint32_t tier = 0; tier < 6; tier++) {
        for (uint32_t start = 0; start < version->segment_count; start++) {
            const int64_t partition = partition_of(version->segments[start]);
            uint32_t count = 0;
            uint64_t bytes = 0;
            for (uint32_t i = start; i < version->segment_count && count < MERGE_RUN_MAX; i++) {
                const mir_tlog_segment *segment = version->segments[i];
                if (partition_of(segment) != partition) continue;
                if (tier_of(segment) > tier || bytes + segment->size > bytes_max ||
                    atomic_load_explicit(&segment->damaged, memory_order_relaxed)) {
                    break;
                }
                bytes += segment->size;
                run[count++] = i;
            }
            if (count >= MERGE_RUN_MIN && run_allowed(version, run, count, unsealed_min)) {
                return count;
            }
        }
    }
    return 0;
}

/* Whether the days of a segment's partition are over. */
static bool partition_over(const mir_tlog_segment *segment, int64_t today)
{
    const int64_t day = mir_tlog_day_of(segment->time_max);
    if (mir_tlog_rollup_step_in(segment) != MIR_TLOG_ROLLUP_NONE) {
        return day / ROLLUP_DAYS < today / ROLLUP_DAYS;
    }
    return day < today;
}

/* The longest run of segments that are worth a merge although they are few. It ends: each merge
 * leaves fewer segments. */
static uint32_t run_find_calm(const mir_tlog_version *version, uint64_t unsealed_min,
                              uint64_t bytes_max, int64_t today, uint32_t *run)
{
    uint32_t best = 0;
    for (uint32_t start = 0; start + 1 < version->segment_count; start++) {
        const int64_t partition = partition_of(version->segments[start]);
        uint32_t tried[MERGE_RUN_MAX];
        uint32_t count = 0;
        uint64_t bytes = 0, largest = 0, rows = 0, chunks = 0;
        bool over = true;
        for (uint32_t i = start; i < version->segment_count && count < MERGE_RUN_MAX; i++) {
            const mir_tlog_segment *segment = version->segments[i];
            if (partition_of(segment) != partition) continue;
            if (bytes + segment->size > bytes_max ||
                atomic_load_explicit(&segment->damaged, memory_order_relaxed)) {
                break;
            }
            /* The gap is in all of them, and would make the smallest alike. */
            const uint64_t size = segment->size - segment->spare_gap;
            bytes += size;
            if (size > largest) largest = size;
            rows += segment->rows;
            chunks += segment->chunk_count;
            over = over && partition_over(segment, today);
            tried[count++] = i;
            const uint64_t times = over ? MERGE_LARGEST_TIMES_OVER : MERGE_LARGEST_TIMES;
            if (count >= MERGE_RUN_MIN_CALM && count > best &&
                largest <= times * (bytes - largest) &&
                /* Full chunks become no smaller: then it is for the number of segments. */
                (over || rows < chunks * (MIR_TLOG_CHUNK_ROWS_MAX / 2)) &&
                run_allowed(version, tried, count, unsealed_min)) {
                memcpy(run, tried, count * sizeof *run);
                best = count;
            }
        }
    }
    return best;
}

static bool is_old(const mir_tlog *tlog, const mir_tlog_segment *segment)
{
    return segment->time_max < tlog->options.wall_ns() - OLD_NS;
}

/* One that has become old and was packed in a hurry. What it becomes is not found again. */
static uint32_t run_find_old(const mir_tlog *tlog, const mir_tlog_version *version,
                             uint64_t unsealed_min, uint64_t bytes_max, uint32_t *run)
{
    for (uint32_t i = 0; i < version->segment_count; i++) {
        const mir_tlog_segment *segment = version->segments[i];
        if (segment->light_bytes > 0 && segment->light_bytes >= segment->size / LIGHT_PART &&
            segment->size <= bytes_max && is_old(tlog, segment) &&
            !atomic_load_explicit(&segment->damaged, memory_order_relaxed) &&
            run_allowed(version, &i, 1, unsealed_min)) {
            *run = i;
            return 1;
        }
    }
    return 0;
}

static int64_t idle_ns(const mir_tlog *tlog)
{
    return (int64_t)tlog->options.idle_ms * MIR_NS_PER_MS;
}

/* Whether next to nothing has come for a while, and no log waits to be sealed for that. */
static bool is_calm(mir_tlog *tlog)
{
    const int64_t now = mir_clock_mono_ns();
    const int64_t since_ns = now - tlog->calm_seen_ns;
    if (since_ns >= MIR_NS_PER_S || since_ns >= idle_ns(tlog)) {
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
            bytes += atomic_load_explicit(&tlog->writers[i].bytes_appended, memory_order_relaxed);
        }
        const uint64_t trickle = TRICKLE_BYTES_PER_MS * (uint64_t)(since_ns / MIR_NS_PER_MS);
        if (bytes - tlog->calm_bytes > trickle) tlog->busy_ns = now;
        tlog->calm_bytes = bytes;
        tlog->calm_seen_ns = now;
    }
    if (now - tlog->busy_ns < idle_ns(tlog)) return false;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    bool calm = true;
    for (uint32_t i = 0; i < version->live_count; i++) {
        mir_tlog_live *live = version->lives[i];
        const uint64_t bytes = atomic_load_explicit(&live->bytes, memory_order_relaxed);
        /* One to which a trickle comes stays open for minutes. */
        if (live->owner == NULL || (bytes >= MIR_TLOG_LOG_ROOM && bytes == live->idle_bytes)) {
            calm = false;
        }
    }
    mir_tlog_version_release(version);
    return calm;
}

typedef struct merge {
    mir_tlog *tlog;
    mir_tlog_codec *codec;
    mir_tlog_segment_writer *writer;
    mir_tlog_index_cursor cursors[MERGE_RUN_MAX];
    bool ended[MERGE_RUN_MAX];
    uint32_t count;
    mir_tlog_sweep_list chunks; /* of the series */
    mir_tlog_sweep sweep;
} merge;

/* What others have written meanwhile may have taken the room: then it is given back. */
static bool merge_ends(const merge *m)
{
    return stopping(m->tlog) || is_disk_low(m->tlog);
}

static mir_status merge_advance(merge *m, uint32_t which)
{
    const mir_status status = mir_tlog_index_next(&m->cursors[which], m->codec);
    if (status == MIR_E_EMPTY) {
        m->ended[which] = true;
        return MIR_OK;
    }
    mir_tlog_sweep_mark(m->cursors[which].segment, status);
    return status;
}

static mir_view cursor_measurement(const mir_tlog_index_cursor *cursor)
{
    return cursor->segment->measurements[cursor->measurement];
}

static int cursor_compare(const mir_tlog_index_cursor *a, const mir_tlog_index_cursor *b)
{
    const int order = mir_view_compare(cursor_measurement(a), cursor_measurement(b));
    return order != 0 ? order : mir_view_compare(a->device, b->device);
}

/* A chunk that stays as it is. */
static mir_status merge_copy(merge *m, mir_view measurement, mir_view device,
                             const mir_tlog_sweep_chunk *from, mir_error *error)
{
    const mir_status status = mir_tlog_sweep_read(&m->sweep, from->segment, &from->chunk);
    if (status != MIR_OK) return status;
    return mir_tlog_segment_put_chunk(m->writer, m->codec, measurement, device, from->segment,
                                      &from->chunk, mir_bytes_as_view(&m->sweep.bytes), error);
}

/* As much at once as a full chunk needs, however many columns it has. */
static uint64_t merge_room(const merge *m, const mir_tlog_sweep_list *group)
{
    const uint64_t least = atomic_load_explicit(&m->tlog->sweep_bytes_max, memory_order_relaxed);
    uint64_t row = 0;
    for (uint32_t i = 0; i < group->count; i++) {
        const mir_tlog_sweep_chunk *from = &group->items[i];
        const uint64_t bytes = mir_tlog_sweep_weight(from) / (from->chunk.rows + 1);
        if (bytes > row) row = bytes;
    }
    const uint64_t chunk = row * MIR_TLOG_CHUNK_ROWS_MAX;
    return chunk < least ? least : chunk < least * WIDE_TIMES ? chunk : least * WIDE_TIMES;
}

static mir_status merge_group(merge *m, mir_view measurement, mir_view device,
                              const mir_tlog_sweep_list *group, mir_error *error)
{
    if (group->count == 1 && !(m->codec->dense && group->items->segment->light_bytes > 0)) {
        return merge_copy(m, measurement, device, group->items, error);
    }
    uint64_t generation = 0;
    for (uint32_t i = 0; i < group->count; i++) {
        const mir_tlog_chunk *chunk = &group->items[i].chunk;
        if (chunk->generation > generation) generation = chunk->generation;
    }
    m->sweep.bytes_max = merge_room(m, group);
    mir_tlog_sweep_begin(&m->sweep, group, INT64_MIN, INT64_MAX);
    mir_status status;
    while ((status = mir_tlog_sweep_next(&m->sweep)) == MIR_OK) {
        if (merge_ends(m)) return MIR_E_CANCELLED;
        mir_thread_offer();
        status = mir_tlog_segment_put(m->writer, m->codec, measurement, device, &m->sweep.rows, 0,
                                      m->sweep.rows.row_count, generation, error);
        if (status != MIR_OK) return status;
    }
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

/* Chunks in the order of time are put together until there are enough rows for a full one; those
 * that overlap stay together, so that their rows meet. */
static mir_status merge_series(merge *m, mir_view measurement, mir_view device, mir_error *error)
{
    mir_tlog_sweep_sort(&m->chunks);
    mir_status status = MIR_OK;
    uint32_t first = 0;
    while (first < m->chunks.count && status == MIR_OK) {
        uint32_t end = first;
        uint32_t rows = 0;
        int64_t reach = INT64_MIN;
        while (end < m->chunks.count) {
            const mir_tlog_chunk *chunk = &m->chunks.items[end].chunk;
            const bool overlaps = end > first && chunk->time_min <= reach;
            const bool enough = rows >= MIR_TLOG_CHUNK_ROWS_MAX / 2 &&
                                (end - first == 1 || chunk->rows > MIR_TLOG_CHUNK_ROWS_MAX - rows);
            if (!overlaps && end > first &&
                (enough || chunk->rows >= MIR_TLOG_CHUNK_ROWS_MAX / 2)) {
                break;
            }
            if (chunk->time_max > reach) reach = chunk->time_max;
            rows = rows > UINT32_MAX - chunk->rows ? UINT32_MAX : rows + chunk->rows;
            end++;
        }
        mir_thread_offer();
        const mir_tlog_sweep_list group = {.items = m->chunks.items + first, .count = end - first};
        status = merge_group(m, measurement, device, &group, error);
        first = end;
    }
    return status;
}

static mir_status merge_collect(merge *m, uint32_t which)
{
    const mir_tlog_index_cursor *cursor = &m->cursors[which];
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < cursor->chunk_count && status == MIR_OK; i++) {
        status = mir_tlog_sweep_add(&m->chunks, cursor->segment, &cursor->chunks[i]);
    }
    return status;
}

static mir_status merge_rows(merge *m, mir_error *error)
{
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < m->count && status == MIR_OK; i++) status = merge_advance(m, i);
    while (status == MIR_OK) {
        if (merge_ends(m)) return MIR_E_CANCELLED;
        uint32_t least = UINT32_MAX;
        for (uint32_t i = 0; i < m->count; i++) {
            if (m->ended[i]) continue;
            if (least == UINT32_MAX || cursor_compare(&m->cursors[i], &m->cursors[least]) < 0) {
                least = i;
            }
        }
        if (least == UINT32_MAX) return MIR_OK;
        const mir_view measurement = cursor_measurement(&m->cursors[least]);
        const mir_view device = m->cursors[least].device;
        bool at_least[MERGE_RUN_MAX] = {false};
        m->chunks.count = 0;
        for (uint32_t i = 0; i < m->count && status == MIR_OK; i++) {
            at_least[i] = !m->ended[i] && cursor_compare(&m->cursors[i], &m->cursors[least]) == 0;
            if (at_least[i]) status = merge_collect(m, i);
        }
        if (status == MIR_OK) status = merge_series(m, measurement, device, error);
        for (uint32_t i = 0; i < m->count && status == MIR_OK; i++) {
            if (at_least[i]) status = merge_advance(m, i);
        }
    }
    return status;
}

static mir_status merge_run(mir_tlog *tlog, mir_tlog_codec *codec, const mir_tlog_version *version,
                            const uint32_t *run, uint32_t count, mir_error *error)
{
    merge m = {.tlog = tlog, .codec = codec, .count = count};
    mir_tlog_segment *inputs[MERGE_RUN_MAX];
    mir_tlog_outputs all = {.tlog = tlog, .head = {.generation_min = UINT64_MAX}};
    codec->dense = true;
    for (uint32_t i = 0; i < count; i++) {
        inputs[i] = version->segments[run[i]];
        codec->dense = codec->dense && is_old(tlog, inputs[i]);
        m.cursors[i].segment = inputs[i];
        if (inputs[i]->head.generation_min < all.head.generation_min) {
            all.head.generation_min = inputs[i]->head.generation_min;
        }
        if (inputs[i]->head.generation_max > all.head.generation_max) {
            all.head.generation_max = inputs[i]->head.generation_max;
        }
    }
    mir_status status = mir_tlog_sweep_init(&m.sweep);
    if (status != MIR_OK) {
        codec->dense = false;
        return mir_error_set(error, status, "out of memory");
    }
    m.sweep.codec = codec;
    status = mir_tlog_output_ready(&all, &all.list[0], error);
    m.writer = all.list[0].writer;
    if (status == MIR_OK) {
        (void)mir_error_set(error, MIR_OK, "merging segments failed");
        status = merge_rows(&m, error);
    }
    mir_tlog_segment *made[MIR_TLOG_OUTPUTS_MAX + 1];
    uint32_t made_count = 0;
    if (status == MIR_OK) {
        status = mir_tlog_outputs_end(&all, codec, made, &made_count, error);
    } else {
        mir_tlog_outputs_abandon(&all);
    }
    if (status == MIR_OK) {
        status = mir_tlog_install(tlog, made, made_count, inputs, count, NULL, NULL, error);
    }
    codec->dense = false;
    for (uint32_t i = 0; i < count; i++) mir_tlog_index_fini(&m.cursors[i]);
    mir_tlog_sweep_fini(&m.sweep);
    free(m.chunks.items);
    return status;
}

/* True when something was merged, and there may be more. */
static bool merge_work(mir_tlog *tlog, mir_tlog_codec *codec, bool calm)
{
    if (is_disk_low(tlog)) return false;
    /* A merge needs the room of what it merges once more. */
    uint64_t bytes_max = mir_tlog_disk_room(tlog);
    if (bytes_max > MERGE_BYTES_MAX) bytes_max = MERGE_BYTES_MAX;
    uint64_t unsealed_min = UINT64_MAX;
    (void)pthread_mutex_lock(&tlog->mutex);
    if (tlog->jobs != NULL) unsealed_min = tlog->jobs->mem->generation;
    (void)pthread_mutex_unlock(&tlog->mutex);
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    uint32_t run[MERGE_RUN_MAX];
    uint32_t count = run_find(version, unsealed_min, bytes_max, run);
    if (count == 0 && calm) {
        const int64_t today = mir_tlog_day_of(tlog->options.wall_ns());
        count = run_find_calm(version, unsealed_min, bytes_max, today, run);
    }
    if (count == 0) count = run_find_old(tlog, version, unsealed_min, bytes_max, run);
    mir_status status = MIR_E_EMPTY;
    if (count > 0) {
        mir_error error;
        status = merge_run(tlog, codec, version, run, count, &error);
        if (status == MIR_OK) {
            mir_tlog_count(&tlog->merges, 1);
        } else if (status == MIR_E_CORRUPT) {
            mir_tlog_count(&tlog->corrupt_chunks, 1);
            mir_log_error("telemetry: a damaged segment is left as it is");
            status = MIR_OK; /* it is marked; look for other work */
        } else if (status != MIR_E_CANCELLED) {
            mir_tlog_count(&tlog->write_errors, 1);
            mir_error_wrap(&error, "small telemetry segments cannot be merged");
            mir_tlog_trouble(tlog, error.text);
        }
    }
    mir_tlog_version_release(version);
    return status == MIR_OK;
}

/* ---- Threads ---- */

/* Logs that are old, or to which nothing more comes: rows take a tenth of their room in segments. */
static void ages_check(mir_tlog *tlog)
{
    const int64_t now = mir_clock_mono_ns();
    const int64_t limit = now - (int64_t)tlog->options.log_age_max_ms * MIR_NS_PER_MS;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t i = 0; i < version->live_count; i++) {
        mir_tlog_live *live = version->lives[i];
        const int64_t first = atomic_load_explicit(&live->first_ns, memory_order_relaxed);
        if (live->owner == NULL || first == 0) continue;
        const uint64_t bytes = atomic_load_explicit(&live->bytes, memory_order_relaxed);
        if (bytes != live->idle_bytes) {
            live->idle_bytes = bytes;
            live->idle_since_ns = now;
        }
        const bool idle = bytes >= MIR_TLOG_LOG_ROOM && now - live->idle_since_ns > idle_ns(tlog);
        if (first < limit || idle) {
            atomic_store_explicit(&live->owner->rotate_wanted, true, memory_order_relaxed);
        }
    }
    mir_tlog_version_release(version);
}

static void sync_all(mir_tlog *tlog)
{
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t i = 0; i < version->live_count; i++) {
        mir_tlog_live *live = version->lives[i];
        if (live->handle < 0) continue;
        const int64_t since = atomic_load_explicit(&live->dirty_ns, memory_order_acquire);
        if (since == 0) continue;
        atomic_store_explicit(&live->syncing_ns, since, memory_order_relaxed);
        /* Pairs with the compare-exchange in stage_write. */
        (void)atomic_exchange_explicit(&live->dirty_ns, 0, memory_order_acq_rel);
        const int result = tlog->files->sync(tlog->files->context, live->handle);
        atomic_store_explicit(&live->syncing_ns, 0, memory_order_relaxed);
        if (result < 0) {
            /* The kernel may have dropped the pages: what is in memory goes into a segment. */
            mir_tlog_count(&tlog->sync_errors, 1);
            mir_error error;
            (void)mir_error_os(&error, -result, "sync %s: check the disk", live->path);
            mir_tlog_trouble(tlog, error.text);
            if (live->owner != NULL) {
                atomic_store_explicit(&live->owner->rotate_wanted, true, memory_order_relaxed);
            }
        }
    }
    mir_tlog_version_release(version);
}

static void *sync_main(void *context)
{
    mir_tlog *tlog = context;
    (void)pthread_setname_np(pthread_self(), "mir-tlog-sync");
    mir_thread_give_way(0);
    /* Half the promised time, so that waiting and syncing together stay within it. */
    const int64_t interval = (int64_t)tlog->options.sync_ms * MIR_NS_PER_MS / 2;
    while (!stopping(tlog)) {
        while (sem_wait(&tlog->sync_wake) != 0) continue;
        wait_for(&tlog->sync_stop, interval);
        sync_all(tlog);
    }
    return NULL;
}

/* Says when rows begin to be refused because logs are full, and when that is over. What the writers
 * count is looked at often enough that none of them has to do more than count. */
static void full_watch(mir_tlog *tlog)
{
    uint64_t rows = 0;
    uint64_t share = 0;
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        const mir_tlog_writer *writer = &tlog->writers[i];
        rows += atomic_load_explicit(&writer->refused[MIR_E_FULL], memory_order_relaxed);
        share += atomic_load_explicit(&writer->refused_share, memory_order_relaxed);
    }
    const int64_t now = mir_clock_mono_ns();
    bool begins = false;
    bool ends = false;
    (void)pthread_mutex_lock(&tlog->mutex);
    if (rows != tlog->full_seen) {
        begins = tlog->full_since_ns == 0;
        if (begins) {
            tlog->full_since_ns = now;
            tlog->full_before = tlog->full_seen;
        }
        tlog->full_seen = rows;
        tlog->full_last_ns = now;
    } else if (tlog->full_since_ns != 0 && now - tlog->full_last_ns > FULL_CALM_NS) {
        ends = true;
    }
    /* It is looked at once a second. */
    const double seconds = 1 + (double)(tlog->full_last_ns - tlog->full_since_ns) / MIR_NS_PER_S;
    const uint64_t refused = rows - tlog->full_before;
    const uint64_t refused_share = share - tlog->full_share_before;
    if (ends) {
        tlog->full_since_ns = 0;
        tlog->full_share_before = share;
    }
    (void)pthread_mutex_unlock(&tlog->mutex);
    if (begins) {
        mir_log_warn("telemetry: %s are refused: they come faster than they are written to "
                     "segments, and the log is %sfull; raise telemetry.log_bytes_max for peaks, "
                     "use a faster disk or more processors, or send less",
                     refused_share >= refused ? "rows of devices that send most" : "rows",
                     refused_share >= refused ? "nearly " : "");
    }
    if (!ends) return;
    mir_log_warn("telemetry: rows are no longer refused: %" PRIu64 " were within %.0f s, %" PRIu64
                 " of them from devices that held more of the log than their share",
                 refused, seconds, refused_share);
    for (uint32_t i = 0; i < tlog->options.writer_count; i++) {
        atomic_store_explicit(&tlog->writers[i].full_told, false, memory_order_relaxed);
    }
}

static void *files_main(void *context)
{
    mir_tlog *tlog = context;
    (void)pthread_setname_np(pthread_self(), "mir-tlog-files");
    mir_thread_give_way(0);
    while (!stopping(tlog)) {
        mir_tlog_disk_watch(tlog);
        spares_make(tlog);
        logs_grow(tlog);
        full_watch(tlog);
        wait_for(&tlog->files_wake, MIR_NS_PER_S);
    }
    return NULL;
}

static void *sealer_main(void *context)
{
    mir_tlog *tlog = context;
    char name[16];
    (void)snprintf(name, sizeof name, "mir-seal-%u",
                   atomic_fetch_add_explicit(&tlog->sealers_started, 1, memory_order_relaxed) %
                       MIR_TLOG_SEALERS_MAX);
    (void)pthread_setname_np(pthread_self(), name);
    mir_thread_give_way(0);
    mir_tlog_codec codec;
    bool ready = false;
    while (!stopping(tlog)) {
        wait_for(&tlog->sealer_wake, MIR_NS_PER_S);
        if (!ready) ready = mir_tlog_codec_init(&codec) == MIR_OK;
        if (ready) (void)jobs_work(tlog, &codec, true);
    }
    if (ready) mir_tlog_codec_fini(&codec);
    return NULL;
}

void mir_tlog_seal_wanted(mir_tlog *tlog, bool pressed)
{
    /* Each of them looks for itself whether there is something for it. */
    for (uint32_t i = 0; pressed && i < tlog->sealer_count; i++) {
        (void)sem_post(&tlog->sealer_wake);
    }
    (void)sem_post(&tlog->background_wake);
}

static void *background_main(void *context)
{
    mir_tlog *tlog = context;
    (void)pthread_setname_np(pthread_self(), "mir-tlog-back");
    mir_thread_give_way(MIR_THREAD_NICE_LAST);
    tlog->busy_ns = tlog->calm_seen_ns = mir_clock_mono_ns();
    mir_tlog_codec codec;
    bool ready = false;
    while (!stopping(tlog)) {
        if (!ready) ready = mir_tlog_codec_init(&codec) == MIR_OK;
        (void)pthread_mutex_lock(&tlog->mutex);
        const uint64_t wanted = tlog->settle_wanted;
        const uint64_t done = tlog->settle_done;
        (void)pthread_mutex_unlock(&tlog->mutex);
        bool sealed = ready && jobs_work(tlog, &codec, false);
        while (sealed && !stopping(tlog) && merge_work(tlog, &codec, is_calm(tlog))) {
            /* Logs that have come meanwhile go first. */
            sealed = jobs_work(tlog, &codec, false);
        }
        const bool more = ready && mir_tlog_retain(tlog, &codec, wanted > done);
        ages_check(tlog);
        (void)pthread_mutex_lock(&tlog->mutex);
        jobs_collect(tlog);
        if (sealed && !more && tlog->jobs == NULL && wanted > tlog->settle_done) {
            tlog->settle_done = wanted;
            (void)pthread_cond_broadcast(&tlog->settled);
        }
        const bool again = tlog->settle_wanted > wanted;
        (void)pthread_mutex_unlock(&tlog->mutex);
        if (!again && !more) wait_for(&tlog->background_wake, MIR_NS_PER_S);
    }
    if (ready) mir_tlog_codec_fini(&codec);
    return NULL;
}

mir_status mir_tlog_settle(mir_tlog *tlog, uint32_t timeout_ms, mir_error *error)
{
    const int64_t until = mir_clock_wall_ns() + (int64_t)timeout_ms * MIR_NS_PER_MS;
    const struct timespec at = {.tv_sec = until / MIR_NS_PER_S, .tv_nsec = until % MIR_NS_PER_S};
    mir_status status = MIR_OK;
    (void)pthread_mutex_lock(&tlog->mutex);
    const uint64_t wanted = ++tlog->settle_wanted;
    (void)sem_post(&tlog->background_wake);
    while (tlog->settle_done < wanted && status == MIR_OK) {
        if (pthread_cond_timedwait(&tlog->settled, &tlog->mutex, &at) == ETIMEDOUT) {
            status = mir_error_set(error, MIR_E_TIMEOUT, "the telemetry log is not settled yet%s%s",
                                   tlog->trouble.text[0] == 0 ? "" : ": ", tlog->trouble.text);
        }
    }
    (void)pthread_mutex_unlock(&tlog->mutex);
    return status;
}

static int thread_start(mir_tlog *tlog, void *(*run)(void *context))
{
    const int result = pthread_create(&tlog->threads[tlog->thread_count], NULL, run, tlog);
    if (result == 0) tlog->thread_count++;
    return result;
}

mir_status mir_tlog_threads_start(mir_tlog *tlog, mir_error *error)
{
    tlog->sealer_count = tlog->options.writer_count;
    if (tlog->sealer_count > MIR_TLOG_SEALERS_MAX) tlog->sealer_count = MIR_TLOG_SEALERS_MAX;
    int result = thread_start(tlog, sync_main);
    if (result == 0) result = thread_start(tlog, files_main);
    if (result == 0) result = thread_start(tlog, background_main);
    for (uint32_t i = 0; i < tlog->sealer_count && result == 0; i++) {
        result = thread_start(tlog, sealer_main);
    }
    return result == 0 ? MIR_OK : mir_error_os(error, result, "start a telemetry thread");
}

void mir_tlog_threads_stop(mir_tlog *tlog)
{
    if (tlog->thread_count == 0) return;
    atomic_store_explicit(&tlog->stop, true, memory_order_release);
    (void)sem_post(&tlog->sync_wake);
    (void)sem_post(&tlog->sync_stop);
    (void)sem_post(&tlog->files_wake);
    mir_tlog_seal_wanted(tlog, true);
    for (uint32_t i = 0; i < tlog->thread_count; i++) (void)pthread_join(tlog->threads[i], NULL);
    tlog->thread_count = 0;
    for (mir_tlog_live *job = tlog->jobs; job != NULL; job = job->next) {
        seal_free(job->seal);
        job->seal = NULL;
    }
    sync_all(tlog);
}
