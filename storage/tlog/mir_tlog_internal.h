/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_internal: what the parts of the telemetry log share; nothing outside includes it.
 *
 * Why        A query needs one picture of all that there is while logs come and go: a version lists
 *            the live logs and segments, is never changed, and is replaced as a whole. A log enters
 *            the version before its first row, so the writers never touch it.
 * Ownership  References: a version holds its members; a writer holds its open and spare log; a seal
 *            job holds its log; whoever works with a version holds that.
 * Affinity   writer.c: the shard. maintain.c, threads: `back` at nice 19 seals, merges and applies
 *            retention; `seal-N` at normal priority seal for writers whose log is more than half
 *            full, and go on with what `back` has begun for these (who has lowered its priority may
 *            not raise it again without a privilege); `files` makes spare logs and tells when rows
 *            are refused; `sync` syncs logs. `mutex` guards the version pointer, the jobs, the
 *            trouble text and what is known of refusals; `install_mutex` the manifest and who makes
 *            the next version. Order: install, mutex.
 * Bounds     MIR_TLOG_FROZEN_MAX logs of a writer wait to be sealed.
 * Errors     See mir_tlog.h. */
#ifndef MIR_TLOG_INTERNAL_H
#define MIR_TLOG_INTERNAL_H

#include <pthread.h>
#include <semaphore.h>
#include <stdatomic.h>

#include "mir_tlog.h"
#include "mir_tlog_codecs.h"
#include "mir_tlog_file.h"
#include "mir_tlog_log.h"
#include "mir_tlog_mem.h"
#include "mir_tlog_segment.h"

enum {
    MIR_TLOG_FROZEN_MAX = 2,
    /* Open and frozen logs of one writer together are log_bytes_max. */
    MIR_TLOG_LOGS_PER_WRITER = MIR_TLOG_FROZEN_MAX + 1,
    MIR_TLOG_SHAPE_CACHE = 1024,
    /* One for each writer, and no more than this. */
    MIR_TLOG_SEALERS_MAX = 16,
    /* A log begins with little room: it may stay empty for long. With its first rows it gets more,
     * and grows ahead of what is written. */
    MIR_TLOG_LOG_ROOM_EMPTY = 16 * 1024,
    MIR_TLOG_LOG_ROOM = 256 * 1024,
    /* What devices hold of a log is counted by a hash of their ids, in so many places. */
    MIR_TLOG_HOLDERS = 8192,
    /* Rows of one series that the background puts in order at once, as columns. */
    MIR_TLOG_SWEEP_BYTES = 8 << 20,
};

/* How far the sealing of a log has come. */
typedef struct mir_tlog_seal mir_tlog_seal;

/* A log file and its rows in memory. */
typedef struct mir_tlog_live {
    atomic_uint references;
    mir_tlog *tlog;
    mir_tlog_writer *owner; /* null: replayed */
    mir_tlog_mem *mem;
    int handle; /* -1: replayed */
    char path[MIR_TLOG_PATH_BYTES_MAX];
    _Atomic int64_t first_ns;   /* monotonic time of the first commit; 0: none */
    _Atomic int64_t dirty_ns;   /* monotonic time of the first commit since the last sync began */
    _Atomic int64_t syncing_ns; /* what dirty_ns was for the sync that is under way */
    atomic_ullong bytes;        /* written */
    atomic_ullong room;         /* allocated */
    uint64_t damaged;           /* regions that could not be read when it was replayed */
    uint64_t idle_bytes;        /* the background's: bytes when it last looked, and since when */
    int64_t idle_since_ns;
    bool taken;                 /* a thread seals it */
    mir_tlog_seal *seal;        /* of who has taken it, or left it to the next one; may be null */
    struct mir_tlog_live *next; /* in the writer's frozen stack, then in the jobs */
} mir_tlog_live;

typedef struct mir_tlog_version {
    atomic_uint references;
    uint32_t live_count;
    uint32_t segment_count;
    mir_tlog_live **lives;       /* ascending generation */
    mir_tlog_segment **segments; /* ascending generation_max, generation_min, id */
} mir_tlog_version;

typedef struct mir_tlog_handle_table {
    mir_tlog_series **buckets;
    uint32_t bucket_count;
    uint32_t count;
} mir_tlog_handle_table;

struct mir_tlog_writer {
    mir_tlog *tlog;
    uint32_t shard;
    mir_tlog_live *open;
    uint64_t position; /* in its file */
    uint64_t sequence;
    uint64_t turn;
    uint8_t *staging; /* frame header, then payload */
    uint32_t staging_capacity;
    uint32_t staged; /* payload bytes */
    uint32_t staged_rows;
    uint8_t *scratch; /* one row */
    mir_tlog_mem_series *touched;
    uint32_t *extra_numbers; /* of the row's dynamic cells */
    int64_t refuse_until_ns;
    mir_status refuse_status;
    mir_status turn_status; /* first failure since the last commit */
    uint32_t turn_refused;
    mir_tlog_handle_table handles;
    /* Shapes of the open memtable by hash; what does not match is looked up no further. */
    mir_tlog_shape *shape_cache[MIR_TLOG_SHAPE_CACHE];
    uint64_t shape_cache_generation;
    /* Bytes of each place's devices in the open log, and in the one before it. */
    uint32_t *held_open;
    uint32_t *held_before;
    uint32_t holders_open; /* places that have any in the open log */
    uint32_t holders;      /* and in either */
    bool pressed;          /* the sealers know that more than half is unsealed */
    /* Shared with the threads. */
    atomic_ullong open_bytes; /* `position`, for others */
    atomic_bool full_told;    /* that rows are refused */
    _Atomic(mir_tlog_live *) spare;
    atomic_int spare_status; /* why there is none */
    _Atomic(mir_tlog_live *) frozen;
    atomic_uint frozen_count;
    atomic_bool rotate_wanted;
    /* Counters: written by the shard alone, read by anyone. */
    atomic_ullong rows_accepted;
    atomic_ullong bytes_appended;
    atomic_ullong commits;
    atomic_ullong refused[MIR_E_UNREACHABLE + 1];
    atomic_ullong refused_share;
    atomic_ullong write_errors;
    atomic_ullong series_open;
};

/* What is known of the time; see mir_tlog_clock.h. */
typedef struct mir_tlog_clock {
    int64_t known_ns;
    int64_t
        wall_ns; /* when it was looked at last, by the clock, and by how long the machine runs */
    int64_t seen_ns;
    int64_t apart_ns; /* for how long the clock has said something else */
    int64_t written_ns;
    bool apart;
} mir_tlog_clock;

struct mir_tlog {
    mir_tlog_options options;
    char directory[MIR_TLOG_PATH_BYTES_MAX - 64];
    const mir_tlog_files *files;
    int lock_handle;
    uint64_t file_bytes;              /* of one log */
    atomic_bool disk_low;             /* less than the reserve is free */
    atomic_ullong disk_reserve_bytes; /* of this disk */
    atomic_ullong next_number;        /* of files: logs and segments count together, upwards */
    mir_tlog_writer *writers;

    pthread_mutex_t mutex;
    pthread_cond_t settled;
    mir_tlog_version *version;
    mir_tlog_live *jobs; /* ascending generation */
    mir_error trouble;
    mir_tlog_retention retention; /* what it has removed */
    mir_tlog_clock clock;
    uint64_t settle_wanted;
    uint64_t settle_done;
    /* Rows that were refused because logs are full, as `files` has seen it. */
    int64_t full_since_ns; /* monotonic; 0: none lately */
    int64_t full_last_ns;
    uint64_t full_seen; /* of all writers together */
    uint64_t full_before;
    uint64_t full_share_before;

    pthread_mutex_t install_mutex;
    uint64_t *sealed; /* logs that are in segments but whose files may be there */
    uint32_t sealed_count;
    uint64_t *unread; /* segments that could not be read at the start, and are left as they are */
    uint32_t unread_count;
    uint32_t files_missing;    /* unread, or set aside now or earlier: every answer is partial */
    uint32_t segments_missing; /* of these */

    atomic_bool stop;
    sem_t sync_wake;
    sem_t sync_stop;
    sem_t files_wake;
    sem_t sealer_wake;
    sem_t background_wake;
    pthread_t threads[3 + MIR_TLOG_SEALERS_MAX];
    uint32_t thread_count;
    uint32_t sealer_count;
    atomic_uint sealers_started;

    atomic_ullong seals;
    atomic_ullong merges;
    atomic_ullong segments_dropped;
    atomic_ullong replayed_rows;
    atomic_ullong torn_bytes_cut;
    atomic_ullong corrupt_frames;
    atomic_ullong corrupt_chunks;
    atomic_ullong sync_errors;
    atomic_ullong write_errors;
    /* The background's, of how busy writers are. */
    uint64_t calm_bytes; /* appended when it last looked, and when that was */
    int64_t calm_seen_ns;
    int64_t busy_ns;               /* when it last saw more than a trickle */
    atomic_ullong sweep_bytes_max; /* MIR_TLOG_SWEEP_BYTES; tests have less */
    atomic_uint query_helpers;     /* threads that help queries, now */
    uint32_t query_helpers_max;
    mir_tlog_codecs codecs; /* of queries */
};

static inline void mir_tlog_count(atomic_ullong *counter, uint64_t more)
{
    (void)atomic_fetch_add_explicit(counter, more, memory_order_relaxed);
}

/* Writer-owned counters: no other thread adds to them. */
static inline void mir_tlog_count_own(atomic_ullong *counter, uint64_t more)
{
    atomic_store_explicit(counter, atomic_load_explicit(counter, memory_order_relaxed) + more,
                          memory_order_relaxed);
}

/* More than half of a log's room is used, so that it should grow before the rest is. */
static inline bool mir_tlog_wants_room(const mir_tlog *tlog, const mir_tlog_live *live)
{
    const uint64_t room = atomic_load_explicit(&live->room, memory_order_relaxed);
    return room < tlog->file_bytes &&
           atomic_load_explicit(&live->bytes, memory_order_relaxed) * 2 > room;
}

/* How much of a writer's log is not yet in segments, of MIR_TLOG_LOGS_PER_WRITER times file_bytes;
 * any thread. */
static inline uint64_t mir_tlog_unsealed(const mir_tlog_writer *writer)
{
    return atomic_load_explicit(&writer->frozen_count, memory_order_relaxed) *
               writer->tlog->file_bytes +
           atomic_load_explicit(&writer->open_bytes, memory_order_relaxed);
}

/* More than half of the log is unsealed: sealing has to go as fast as ingest. */
static inline bool mir_tlog_pressed(const mir_tlog_writer *writer)
{
    return mir_tlog_unsealed(writer) * 2 > MIR_TLOG_LOGS_PER_WRITER * writer->tlog->file_bytes;
}

/* mir_tlog.c */
void mir_tlog_path(const mir_tlog *tlog, char *path, uint64_t number, const char *suffix);
void mir_tlog_live_release(mir_tlog_live *live);
mir_tlog_version *mir_tlog_version_acquire(mir_tlog *tlog);
void mir_tlog_version_release(mir_tlog_version *version);
/* What no answer from this version has, of whatever device and time: files that are missing, regions
 * of logs. Of these nothing is known once the log is sealed. */
uint64_t mir_tlog_version_damage(const mir_tlog *tlog, const mir_tlog_version *version);
/* Records what an operator should know, and logs it if it is news. Null clears it. */
void mir_tlog_trouble(mir_tlog *tlog, const char *text);
/* The next version: without what is in `drop` and `live_drop`, with `add` and `live_add`; if
 * anything but live_add changes, the manifest is written first. Takes over the references in add;
 * on failure they are released, and their files unlinked unless a manifest may name them. */
MIR_MUST_CHECK mir_status mir_tlog_install(mir_tlog *tlog, mir_tlog_segment *const *add,
                                           uint32_t add_count, mir_tlog_segment *const *drop,
                                           uint32_t drop_count, mir_tlog_live *live_add,
                                           mir_tlog_live *live_drop, mir_error *error);

/* mir_tlog_manifest.c */
typedef struct mir_tlog_manifest {
    uint64_t next_number;
    uint32_t segment_count;
    uint64_t *segments;
    uint32_t sealed_count;
    uint64_t *sealed;
} mir_tlog_manifest;

/* MIR_E_NOT_FOUND, _CORRUPT, _UNSUPPORTED, _IO, _NO_MEMORY. */
MIR_MUST_CHECK mir_status mir_tlog_manifest_read(const mir_tlog_files *files, const char *directory,
                                                 mir_tlog_manifest *manifest, mir_error *error);
MIR_MUST_CHECK mir_status mir_tlog_manifest_parse(mir_view bytes, mir_tlog_manifest *manifest,
                                                  mir_error *error);
/* *in_doubt: it failed so late that the new manifest may be the one that a crash leaves. */
MIR_MUST_CHECK mir_status mir_tlog_manifest_write(const mir_tlog_files *files,
                                                  const char *directory,
                                                  const mir_tlog_manifest *manifest, bool *in_doubt,
                                                  mir_error *error);
void mir_tlog_manifest_fini(mir_tlog_manifest *manifest);

/* mir_tlog_writer.c */
MIR_MUST_CHECK mir_status mir_tlog_writer_init(mir_tlog *tlog, uint32_t shard);
void mir_tlog_writer_fini(mir_tlog_writer *writer);

/* mir_tlog_maintain.c */
MIR_MUST_CHECK mir_status mir_tlog_live_create(mir_tlog *tlog, mir_tlog_writer *owner,
                                               mir_tlog_live **live, mir_error *error);
/* Whether rows are refused for the sake of the reserve. */
void mir_tlog_disk_watch(mir_tlog *tlog);
/* How much is free beyond the reserve; UINT64_MAX: there is none. */
uint64_t mir_tlog_disk_room(const mir_tlog *tlog);
MIR_MUST_CHECK mir_status mir_tlog_threads_start(mir_tlog *tlog, mir_error *error);
void mir_tlog_threads_stop(mir_tlog *tlog);
/* Something was frozen, or a writer's log has come to be more than half full: `pressed`. */
void mir_tlog_seal_wanted(mir_tlog *tlog, bool pressed);

#endif
