/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event_keeper.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mir_clock.h"
#include "mir_event_query.h"
#include "mir_hash.h"
#include "mir_log.h"
#include "mir_state_internal.h"
#include "mir_state_ops.h"
#include "mir_thread.h"

enum {
    SLICE_BYTES_MAX = 256 * 1024,
    NAME_SLOTS = 2 * MIR_EVENT_BLOCK,
    /* What a slice may keep other writers waiting. It holds fewer keys where it takes longer, but
     * each costs a commit, and a slow disk would be slower for it. */
    SLICE_NS = 8 * 1000 * 1000,
    SLICE_KEYS_MIN = MIR_EVENT_INDEX_SLICE / 8,
    AGAIN_S = 60,
    SOON_MS = 100, /* the time is not known yet */
    RETAIN_S = 3600,
};

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

struct mir_event_keeper {
    mir_state *state;
    mir_event_retention retention; /* its own copy */
    pthread_t thread, helper;
    int wake_fd, urgent_fd;
    atomic_bool stopping;
    _Atomic uint64_t indexed; /* blocks, as far as it is known */
    _Atomic uint64_t complete;
    /* One of them at a time: the thread, its helper, or a test. Held for one block. */
    pthread_mutex_t busy;
    uint64_t *terms; /* kind, hash and place of each, MIR_EVENT_BLOCK * MIR_EVENT_TERMS */
    uint64_t *names; /* hashes of the names that were seen in the block */
    mir_bytes slice; /* entries: size of the key, key, size of the value, value */
    size_t slice_count;
    size_t name_room;   /* names that may be added, as of the snapshot */
    size_t slice_max;   /* keys, for SLICE_NS */
    mir_status failing; /* what was logged last */
};

/* ── Slices ──────────────────────────────────────────────────────────────────────────────────── */

typedef struct slice_job {
    mir_view entries;
    MDB_dbi dbi;
    bool publish;
    uint64_t blocks; /* to publish */
    int64_t took_ns;
} slice_job;

static mir_view take(mir_view *entries)
{
    uint32_t size;
    memcpy(&size, entries->data, sizeof size);
    mir_view piece = mir_view_of(entries->data + sizeof size, size);
    *entries = mir_view_of(piece.data + size, entries->size - sizeof size - size);
    return piece;
}

/* On the writer. Keys ascend and mostly come behind everything that is there. */
static mir_status put_slice(mir_state_ops *ops, void *ctx)
{
    slice_job *job = ctx;
    const int64_t start_ns = mir_clock_mono_ns();
    mir_view entries = job->entries;
    bool append = true;
    while (entries.size != 0) {
        mir_view key = take(&entries), value = take(&entries);
        MDB_val k = {key.size, (void *)(uintptr_t)key.data};
        MDB_val v = {value.size, (void *)(uintptr_t)value.data};
        int rc = append ? mdb_put(ops->txn, job->dbi, &k, &v, MDB_APPEND) : MDB_KEYEXIST;
        /* Left by a run that was killed in the middle of this block, or names among others. */
        if (rc == MDB_KEYEXIST) {
            append = false;
            rc = mdb_put(ops->txn, job->dbi, &k, &v, 0);
        }
        TRY(mir_state_db_status(rc));
    }
    job->took_ns = mir_clock_mono_ns() - start_ns;
    return job->publish ? mir_event_indexed_write(ops->db, ops->txn, job->blocks) : MIR_OK;
}

static mir_status run_on_writer(mir_state *state, mir_status (*run)(mir_state_ops *, void *),
                                void *ctx, bool makes_room, mir_error *error)
{
    mir_state_request request = {.op = MIR_STATE_INTERNAL, .makes_room = makes_room};
    request.internal.run = run;
    request.internal.ctx = ctx;
    mir_status status = mir_state_execute(state, &request);
    if (status != MIR_OK)
        (void)mir_error_set(error, status, "%s",
                            request.error != NULL ? request.error : "the store is busy");
    mir_arena_free(&request.arena);
    return status;
}

static mir_status flush_slice(mir_event_keeper *keeper, MDB_dbi dbi, bool publish, uint64_t blocks)
{
    if (!mir_bytes_ok(&keeper->slice)) return MIR_E_NO_MEMORY;
    if (keeper->slice.size == 0 && !publish) return MIR_OK;
    slice_job job = {mir_bytes_as_view(&keeper->slice), dbi, publish, blocks, 0};
    mir_error error;
    mir_status status = run_on_writer(keeper->state, put_slice, &job, false, &error);
    if (status == MIR_OK) {
        int64_t took_ns = job.took_ns + atomic_load_explicit(&keeper->state->commit_last_ns,
                                                             memory_order_relaxed);
        if (took_ns > SLICE_NS)
            keeper->slice_max /= 2;
        else if (took_ns < SLICE_NS / 2 && keeper->slice_count * 2 > keeper->slice_max)
            keeper->slice_max += keeper->slice_max / 4;
        if (keeper->slice_max < SLICE_KEYS_MIN) keeper->slice_max = SLICE_KEYS_MIN;
        if (keeper->slice_max > MIR_EVENT_INDEX_SLICE) keeper->slice_max = MIR_EVENT_INDEX_SLICE;
    }
    keeper->slice.size = 0;
    keeper->slice_count = 0;
    return status;
}

static mir_status add_entry(mir_event_keeper *keeper, MDB_dbi dbi, mir_view key, mir_view value)
{
    if (atomic_load_explicit(&keeper->stopping, memory_order_relaxed)) return MIR_E_CANCELLED;
    uint32_t size = (uint32_t)key.size;
    mir_bytes_append(&keeper->slice, &size, sizeof size);
    mir_bytes_view(&keeper->slice, key);
    size = (uint32_t)value.size;
    mir_bytes_append(&keeper->slice, &size, sizeof size);
    mir_bytes_view(&keeper->slice, value);
    keeper->slice_count++;
    if (keeper->slice_count < keeper->slice_max &&
        keeper->slice.size < SLICE_BYTES_MAX * keeper->slice_max / MIR_EVENT_INDEX_SLICE)
        return MIR_OK;
    return flush_slice(keeper, dbi, false, 0);
}

/* ── One block ───────────────────────────────────────────────────────────────────────────────── */

/* Adds a name that is not in event_name yet. */
static mir_status note_name(mir_event_keeper *keeper, MDB_txn *txn, mir_view name)
{
    if (name.size == 0 || name.size > MIR_EVENT_NAME_BYTES_MAX) return MIR_OK;
    uint64_t hash = mir_hash_view(name) | 1; /* never 0, a free slot */
    size_t at = (size_t)(hash >> 16) % NAME_SLOTS;
    while (keeper->names[at] != 0 && keeper->names[at] != hash) at = (at + 1) % NAME_SLOTS;
    if (keeper->names[at] == hash || keeper->name_room == keeper->slice_count) return MIR_OK;
    keeper->names[at] = hash;
    MDB_val k = {name.size, (void *)(uintptr_t)name.data}, v;
    mir_status status = mir_state_db_status(mdb_get(txn, keeper->state->db.event_name, &k, &v));
    if (status != MIR_E_NOT_FOUND) return status;
    uint32_t size = (uint32_t)name.size, none = 0;
    mir_bytes_append(&keeper->slice, &size, sizeof size);
    mir_bytes_view(&keeper->slice, name);
    mir_bytes_append(&keeper->slice, &none, sizeof none);
    keeper->slice_count++;
    return MIR_OK;
}

static mir_status note_event(mir_event_keeper *keeper, MDB_txn *txn, uint64_t place, mir_view value,
                             size_t *count)
{
    mir_event_place event;
    if (!mir_event_place_read(value, &event)) return MIR_E_CORRUPT;
    if ((event.flags & (MIR_EVENT_IS_TOMB | MIR_EVENT_IS_REMOVAL)) != 0) return MIR_OK;
    for (unsigned term = 0; term < MIR_EVENT_TERMS; term++) {
        uint32_t hash = mir_event_place_term(&event, (mir_event_term)term);
        if (hash == 0) continue;
        keeper->terms[(*count)++] = (uint64_t)term << 48 | (uint64_t)hash << 16 | place;
    }
    mir_view name;
    if (!mir_event_peek_name(event.record, &name)) return MIR_E_CORRUPT;
    return note_name(keeper, txn, name);
}

/* Reads the heads of a block on one snapshot. */
static mir_status read_block(mir_event_keeper *keeper, uint64_t block, size_t *count)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    TRY(mir_state_read_begin(keeper->state, &txn, NULL));
    memset(keeper->names, 0, NAME_SLOTS * sizeof *keeper->names);
    uint8_t bytes[8];
    mir_state_u64_write(bytes, block * MIR_EVENT_BLOCK + 1);
    MDB_val k = {sizeof bytes, bytes}, v;
    mir_status status = mir_state_db_status(mdb_cursor_open(txn, keeper->state->db.event, &cursor));
    if (status == MIR_OK) status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET));
    MDB_stat known = {0};
    if (status == MIR_OK)
        status = mir_state_db_status(mdb_stat(txn, keeper->state->db.event_name, &known));
    const uint64_t names_max = keeper->state->db.event_names_max;
    keeper->name_room = known.ms_entries < names_max ? names_max - known.ms_entries : 0;
    *count = 0;
    for (uint64_t place = 0; place < MIR_EVENT_BLOCK && status == MIR_OK; place++) {
        if (place != 0) status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
        if (status == MIR_OK)
            status = note_event(keeper, txn, place, mir_view_of(v.mv_data, v.mv_size), count);
    }
    if (cursor != NULL) mdb_cursor_close(cursor);
    mir_state_read_end(keeper->state, txn);
    return status == MIR_E_NOT_FOUND ? MIR_E_CORRUPT : status;
}

static int compare_terms(const void *a, const void *b)
{
    uint64_t x, y;
    memcpy(&x, a, sizeof x);
    memcpy(&y, b, sizeof y);
    return x < y ? -1 : x > y;
}

/* The entry of one term: terms[0..count) differ in their places alone. */
static mir_status add_term(mir_event_keeper *keeper, uint64_t block, const uint64_t *terms,
                           size_t count)
{
    uint8_t key[MIR_EVENT_INDEX_KEY_BYTES], value[MIR_EVENT_BITMAP_BYTES];
    mir_event_index_key(block, (unsigned)(terms[0] >> 48), (uint32_t)(terms[0] >> 16), key);
    size_t size = count * 2;
    if (size >= MIR_EVENT_BITMAP_BYTES) {
        size = MIR_EVENT_BITMAP_BYTES;
        memset(value, 0, size);
        for (size_t i = 0; i < count; i++)
            value[(terms[i] & 0xffff) / 8] |= (uint8_t)(1 << (terms[i] & 7));
    } else {
        for (size_t i = 0; i < count; i++) {
            value[2 * i] = (uint8_t)(terms[i] >> 8);
            value[2 * i + 1] = (uint8_t)terms[i];
        }
    }
    return add_entry(keeper, keeper->state->db.event_index, mir_view_of(key, sizeof key),
                     mir_view_of(value, size));
}

static mir_status index_block(mir_event_keeper *keeper, uint64_t block)
{
    const mir_state_db *db = &keeper->state->db;
    size_t count = 0;
    keeper->slice.size = 0;
    keeper->slice_count = 0;
    /* The names of the block are one or more slices of their own. */
    TRY(read_block(keeper, block, &count));
    mir_bytes names = keeper->slice;
    size_t name_count = keeper->slice_count;
    keeper->slice = (mir_bytes){0};
    keeper->slice_count = 0;
    mir_status status = names.failed ? MIR_E_NO_MEMORY : MIR_OK;
    mir_view left = mir_bytes_as_view(&names);
    for (size_t i = 0; i < name_count && status == MIR_OK; i++) {
        mir_view key = take(&left), value = take(&left);
        status = add_entry(keeper, db->event_name, key, value);
        /* They go to places far apart: fewer of them at a time. */
        if (status == MIR_OK && keeper->slice_count >= keeper->slice_max / 4)
            status = flush_slice(keeper, db->event_name, false, 0);
    }
    mir_bytes_free(&names);
    if (status == MIR_OK) status = flush_slice(keeper, db->event_name, false, 0);
    qsort(keeper->terms, count, sizeof *keeper->terms, compare_terms);
    for (size_t i = 0; i < count && status == MIR_OK;) {
        size_t end = i + 1;
        while (end < count && keeper->terms[end] >> 16 == keeper->terms[i] >> 16) end++;
        status = add_term(keeper, block, keeper->terms + i, end - i);
        i = end;
    }
    TRY(status);
    return flush_slice(keeper, db->event_index, true, block + 1);
}

static mir_status lag_of(mir_event_keeper *keeper, uint64_t *indexed, uint64_t *complete)
{
    MDB_txn *txn = NULL;
    mir_event_head head = {0};
    TRY(mir_state_read_begin(keeper->state, &txn, NULL));
    mir_status status = mir_event_head_read(&keeper->state->db, txn, &head);
    if (status == MIR_OK) status = mir_event_indexed_read(&keeper->state->db, txn, indexed);
    mir_state_read_end(keeper->state, txn);
    *complete = head.sequence / MIR_EVENT_BLOCK;
    return status;
}

/* Whether that was the last one that is complete. */
static mir_status index_next(mir_event_keeper *keeper, bool *done)
{
    uint64_t indexed = 0, complete = 0;
    TRY(lag_of(keeper, &indexed, &complete));
    *done = indexed >= complete;
    if (!*done) TRY(index_block(keeper, indexed++));
    atomic_store_explicit(&keeper->indexed, indexed, memory_order_relaxed);
    return MIR_OK;
}

mir_status mir_event_index_all(mir_event_keeper *keeper)
{
    bool done = false;
    mir_status status = MIR_OK;
    while (status == MIR_OK && !done) {
        (void)pthread_mutex_lock(&keeper->busy);
        status = index_next(keeper, &done);
        (void)pthread_mutex_unlock(&keeper->busy);
    }
    return status;
}

/* ── Indexes of nothing ──────────────────────────────────────────────────────────────────────── */

typedef struct prune_job {
    uint64_t block;
    bool done;
} prune_job;

static mir_status prune_slice(mir_state_ops *ops, void *ctx)
{
    prune_job *job = ctx;
    MDB_cursor *cursor = NULL;
    uint8_t key[MIR_EVENT_INDEX_KEY_BYTES];
    mir_event_index_key(job->block, 0, 0, key);
    TRY(mir_state_db_status(mdb_cursor_open(ops->txn, ops->db->event_index, &cursor)));
    MDB_val k = {sizeof key, key}, v;
    mir_status status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE));
    unsigned count = 0;
    while (status == MIR_OK && count < MIR_EVENT_INDEX_SLICE) {
        if (k.mv_size != sizeof key || memcmp(k.mv_data, key, 4) != 0) {
            status = MIR_E_NOT_FOUND;
            break;
        }
        status = mir_state_db_status(mdb_cursor_del(cursor, 0));
        count++;
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
    }
    mdb_cursor_close(cursor);
    job->done = status == MIR_E_NOT_FOUND;
    return job->done ? MIR_OK : status;
}

/* Whether a block that has nothing left still has an index. */
static mir_status is_prunable(mir_event_keeper *keeper, uint64_t block, bool *prunable)
{
    MDB_txn *txn = NULL;
    MDB_cursor *cursor = NULL;
    mir_event_block state;
    uint8_t key[MIR_EVENT_INDEX_KEY_BYTES];
    *prunable = false;
    TRY(mir_state_read_begin(keeper->state, &txn, NULL));
    mir_status status = mir_event_block_read(&keeper->state->db, txn, block, &state);
    if (status == MIR_OK && state.live == 0) {
        mir_event_index_key(block, 0, 0, key);
        MDB_val k = {sizeof key, key}, v;
        status = mir_state_db_status(mdb_cursor_open(txn, keeper->state->db.event_index, &cursor));
        if (status == MIR_OK)
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_SET_RANGE));
        *prunable = status == MIR_OK && k.mv_size == sizeof key && memcmp(k.mv_data, key, 4) == 0;
        if (cursor != NULL) mdb_cursor_close(cursor);
    }
    mir_state_read_end(keeper->state, txn);
    return status == MIR_E_NOT_FOUND ? MIR_OK : status;
}

mir_status mir_event_index_prune(mir_event_keeper *keeper)
{
    uint64_t indexed = 0, complete = 0;
    TRY(lag_of(keeper, &indexed, &complete));
    for (uint64_t block = 0; block < indexed; block++) {
        if (atomic_load_explicit(&keeper->stopping, memory_order_relaxed)) return MIR_E_CANCELLED;
        bool prunable = false;
        TRY(is_prunable(keeper, block, &prunable));
        prune_job job = {.block = block, .done = !prunable};
        while (!job.done) TRY(run_on_writer(keeper->state, prune_slice, &job, true, NULL));
    }
    return MIR_OK;
}

/* ── Removing ────────────────────────────────────────────────────────────────────────────────── */

typedef struct remove_job {
    const uint64_t *sequences;
    size_t count;
    const char *why;
    const mir_event_cause *cause;
    size_t removed;
} remove_job;

static mir_status remove_on_writer(mir_state_ops *ops, void *ctx)
{
    remove_job *job = ctx;
    mir_event_context context;
    TRY(mir_event_context_make(job->cause, &ops->request->arena, &context));
    return mir_event_log_remove(ops->events, ops->now_ns, job->sequences, job->count, job->why,
                                &context, &job->removed);
}

mir_status mir_event_remove_slice(mir_state *state, const uint64_t *sequences, size_t count,
                                  const char *why, const mir_event_cause *cause, size_t *removed,
                                  mir_error *error)
{
    remove_job job = {sequences, count, why, cause, 0};
    mir_status status = run_on_writer(state, remove_on_writer, &job, true, error);
    if (status == MIR_OK) *removed = job.removed;
    return status;
}

/* ── The thread ──────────────────────────────────────────────────────────────────────────────── */

static void report(mir_event_keeper *keeper, const char *what, mir_status status)
{
    if (status == MIR_OK || status == MIR_E_CANCELLED || status == MIR_E_CLOSED) return;
    atomic_fetch_add_explicit(&keeper->state->event_keeper_failures, 1, memory_order_relaxed);
    if (keeper->failing == status) return;
    keeper->failing = status;
    mir_error error;
    mir_state_db_explain(&keeper->state->db, status, &error);
    mir_log_error("%s failed, and is tried again: %s", what, error.text);
}

/* Schemas are kept as long as events, so the writer goes by the same time. */
static int64_t retention_now(const mir_event_keeper *keeper)
{
    const mir_event_retention *retention = &keeper->retention;
    const int64_t now_ns =
        retention->now_ns == NULL ? mir_clock_wall_ns() : retention->now_ns(retention->context);
    if (now_ns != 0)
        atomic_store_explicit(&keeper->state->known_offset_ns, now_ns - mir_clock_mono_ns(),
                              memory_order_relaxed);
    return now_ns;
}

static void *keeper_main(void *opaque)
{
    mir_event_keeper *keeper = opaque;
    (void)pthread_setname_np(pthread_self(), "mir-events");
    mir_thread_give_way(MIR_THREAD_NICE_LAST);
    int64_t retain_ns = 0; /* when it is due, on the monotonic clock */
    while (!atomic_load_explicit(&keeper->stopping, memory_order_relaxed)) {
        mir_status status = mir_event_index_all(keeper);
        report(keeper, "the index of events", status);
        if (status == MIR_OK) keeper->failing = MIR_OK;
        const bool due = mir_clock_mono_ns() >= retain_ns;
        const int64_t now_ns = retention_now(keeper);
        if (due && now_ns != 0) {
            uint64_t removed = 0;
            status = mir_event_retain(keeper->state, now_ns, &removed, NULL);
            if (status == MIR_OK) status = mir_event_index_prune(keeper);
            report(keeper, "the retention of events", status);
            retain_ns = mir_clock_mono_ns() + RETAIN_S * MIR_NS_PER_S;
        }
        struct pollfd poll_fd = {.fd = keeper->wake_fd, .events = POLLIN};
        if (poll(&poll_fd, 1, due && now_ns == 0 ? SOON_MS : AGAIN_S * 1000) > 0) {
            uint64_t wakes;
            (void)!read(keeper->wake_fd, &wakes, sizeof wakes);
        }
    }
    return NULL;
}

/* Where everybody else is busy, nice 19 is never: then this one catches up. */
static void *helper_main(void *opaque)
{
    mir_event_keeper *keeper = opaque;
    (void)pthread_setname_np(pthread_self(), "mir-events-now");
    mir_thread_give_way(0);
    while (!atomic_load_explicit(&keeper->stopping, memory_order_relaxed)) {
        struct pollfd poll_fd = {.fd = keeper->urgent_fd, .events = POLLIN};
        if (poll(&poll_fd, 1, -1) <= 0) continue;
        uint64_t wakes;
        (void)!read(keeper->urgent_fd, &wakes, sizeof wakes);
        /* The thread tries again and reports. */
        if (!atomic_load_explicit(&keeper->stopping, memory_order_relaxed))
            (void)!mir_event_index_all(keeper);
    }
    return NULL;
}

static void wake_fd(int fd)
{
    uint64_t one = 1;
    (void)!write(fd, &one, sizeof one);
}

void mir_event_keeper_wake(mir_event_keeper *keeper, uint64_t complete)
{
    atomic_store_explicit(&keeper->complete, complete, memory_order_relaxed);
    wake_fd(keeper->wake_fd);
    uint64_t indexed = atomic_load_explicit(&keeper->indexed, memory_order_relaxed);
    if (complete > indexed + MIR_EVENT_LAG_BLOCKS) wake_fd(keeper->urgent_fd);
}

bool mir_event_lags(mir_state *state)
{
    uint64_t complete = atomic_load_explicit(&state->events->complete, memory_order_relaxed);
    uint64_t indexed = atomic_load_explicit(&state->events->indexed, memory_order_relaxed);
    return complete > indexed + MIR_EVENT_LAG_BLOCKS_MAX;
}

static void stop_thread(mir_event_keeper *keeper, pthread_t thread, int fd)
{
    atomic_store_explicit(&keeper->stopping, true, memory_order_relaxed);
    wake_fd(fd);
    (void)pthread_join(thread, NULL);
}

void mir_event_keeper_free(mir_event_keeper *keeper)
{
    if (keeper == NULL) return;
    for (size_t i = 0; i < keeper->retention.rule_count; i++)
        free((char *)(uintptr_t)keeper->retention.rules[i].reason);
    free((mir_event_rule *)(uintptr_t)keeper->retention.rules);
    free(keeper->terms);
    free(keeper->names);
    mir_bytes_free(&keeper->slice);
    if (keeper->wake_fd >= 0) (void)close(keeper->wake_fd);
    if (keeper->urgent_fd >= 0) (void)close(keeper->urgent_fd);
    (void)pthread_mutex_destroy(&keeper->busy);
    free(keeper);
}

static mir_status copy_retention(const mir_event_retention *from, mir_event_retention *to,
                                 mir_error *error)
{
    if (from->rule_count > MIR_EVENT_RULES_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "%zu rules of retention for events: use at most %d", from->rule_count,
                             MIR_EVENT_RULES_MAX);
    to->default_keep_ns = from->default_keep_ns;
    to->now_ns = from->now_ns;
    to->context = from->context;
    mir_event_rule *rules = calloc(from->rule_count + 1, sizeof *rules);
    if (rules == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    to->rules = rules;
    for (size_t i = 0; i < from->rule_count; i++) {
        rules[i] = (mir_event_rule){strdup(from->rules[i].reason), from->rules[i].keep_ns};
        if (rules[i].reason == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        to->rule_count++;
    }
    return MIR_OK;
}

mir_status mir_event_keeper_start(mir_state *state, const mir_event_retention *retention,
                                  mir_error *error)
{
    mir_event_keeper *started = calloc(1, sizeof *started);
    if (started == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    started->state = state;
    started->slice_max = MIR_EVENT_INDEX_SLICE / 2;
    (void)pthread_mutex_init(&started->busy, NULL);
    started->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    started->urgent_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    started->terms = malloc((size_t)MIR_EVENT_BLOCK * MIR_EVENT_TERMS * sizeof *started->terms);
    started->names = malloc(NAME_SLOTS * sizeof *started->names);
    mir_status status = copy_retention(retention, &started->retention, error);
    if (status == MIR_OK && (started->terms == NULL || started->names == NULL))
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK && (started->wake_fd < 0 || started->urgent_fd < 0))
        status = mir_error_os(error, errno, "cannot start the keeper of events");
    /* It looks for itself through the store. */
    state->events = started;
    if (status == MIR_OK) {
        int rc = pthread_create(&started->thread, NULL, keeper_main, started);
        if (rc == 0) {
            rc = pthread_create(&started->helper, NULL, helper_main, started);
            if (rc != 0) stop_thread(started, started->thread, started->wake_fd);
        }
        if (rc != 0) status = mir_error_os(error, rc, "cannot start the keeper of events");
    }
    if (status != MIR_OK) {
        state->events = NULL;
        mir_event_keeper_free(started);
    }
    return status;
}

void mir_event_keeper_stop(mir_event_keeper *keeper)
{
    if (keeper == NULL) return;
    stop_thread(keeper, keeper->thread, keeper->wake_fd);
    stop_thread(keeper, keeper->helper, keeper->urgent_fd);
}

const mir_event_retention *mir_event_keeper_retention(const mir_event_keeper *keeper)
{
    return &keeper->retention;
}

bool mir_event_keeper_stopping(const mir_event_keeper *keeper)
{
    return atomic_load_explicit(&keeper->stopping, memory_order_relaxed);
}
