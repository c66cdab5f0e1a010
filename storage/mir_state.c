/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state.h"

#include <errno.h>
#include <poll.h>
#include <semaphore.h>
#include <stdlib.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_event_keeper.h"
#include "mir_field_names.h"
#include "mir_log.h"
#include "mir_state_internal.h"
#include "mir_state_ops.h"
#include "mir_state_target.h"
#include "mir_thread.h"
#include "mir_zstd.h"
#include "mir_device_rules.h"

static const uint64_t MAP_BYTES_DEFAULT = UINT64_C(16) << 30;
static const uint32_t REQUESTS_MAX_DEFAULT = 65536;
static const int64_t SCHEMA_UNUSED_KEPT_NS = 60 * MIR_NS_PER_S;
enum { SCHEMAS_SWEPT_MAX = 16 };

/* ── The writer ──────────────────────────────────────────────────────────────────────────────── */

static mir_state_request *request_of(mir_mpsc_node *node)
{
    return (mir_state_request *)(void *)((uint8_t *)node - offsetof(mir_state_request, node));
}

static int64_t live_ns(void *ctx, uint64_t number)
{
    return mir_state_live_ns(ctx, number);
}

static void clear_outputs(mir_state_request *request)
{
    mir_arena_free(&request->arena);
    request->status = MIR_OK;
    request->error = NULL;
    request->changes = NULL;
    request->change_count = 0;
    request->left = NULL;
    request->left_count = 0;
}

/* The request failed with the store, not by its own fault. */
static void fail_request(mir_state *state, mir_state_request *request, mir_status status)
{
    mir_error error;
    clear_outputs(request);
    mir_state_db_explain(&state->db, status, &error);
    mir_state_ops_refuse(request, status, "%s", error.text);
}

static mir_status execute_one(mir_state *state, MDB_txn *txn, mir_event_log *events,
                              mir_state_request *request)
{
    clear_outputs(request);
    mir_state_ops ops = {
        .db = &state->db,
        .txn = txn,
        .now_ns = mir_clock_wall_ns(),
        .live_ns = live_ns,
        .live_ctx = state,
        .request = request,
        .events = events,
    };
    return mir_state_ops_execute(&ops);
}

static void raise_max(_Atomic int64_t *max, int64_t value)
{
    if (value > atomic_load_explicit(max, memory_order_relaxed))
        atomic_store_explicit(max, value, memory_order_relaxed);
}

/* What the transaction has changed; whoever hears from now on that it is done sees the counts. */
static void count_changes(mir_state *state, bool committed)
{
    for (unsigned i = 0; i < MIR_STATE_CHANGE_WORDS; i++) {
        uint64_t left = committed ? state->changed[i] : 0;
        for (; left != 0; left &= left - 1) {
            unsigned count = i * 64 + (unsigned)__builtin_ctzll(left);
            atomic_fetch_add_explicit(&state->changes[count], 1, memory_order_seq_cst);
        }
        state->changed[i] = 0;
    }
}

/* How full the store may be after a request. Ordinary ones leave the reserve alone. Deleting devices
 * leaves events, which take room in their turn: the rest of the reserve is for removing those. */
static uint64_t bound_of(const mir_state *state, const mir_state_request *request)
{
    const mir_state_db *db = &state->db;
    if (request->op == MIR_STATE_DELETE) return db->deletes_max_bytes;
    if (request->op == MIR_STATE_INTERNAL && request->makes_room) return UINT64_MAX;
    return db->map_bytes;
}

/* Said when a level is reached, and again only after it was left by some percent. */
static void note_fullness(mir_state *state, uint64_t used_bytes)
{
    const uint64_t percent = used_bytes / (state->db.map_bytes / 100 + 1);
    const unsigned before = state->fullness;
    if (percent >= MIR_STATE_NEARLY_FULL_PERCENT && before == 0) {
        state->fullness = 1;
        mir_log_warn(
            "state store: %llu%% of state.map_size (%llu MiB) are used, and when it is full "
            "changes are refused: raise state.map_size, or delete events or devices",
            (unsigned long long)percent, (unsigned long long)(state->db.map_bytes >> 20));
    } else if (percent < MIR_STATE_NEARLY_FULL_PERCENT - 5 && before != 0) {
        state->fullness = 0;
        mir_log_info("state store: %llu%% of state.map_size are used: there is room again",
                     (unsigned long long)percent);
    }
}

/* Executes and commits `count` requests in one transaction, all or none. */
static mir_status commit_group(mir_state *state, mir_state_request *first, size_t count,
                               size_t *executed)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_db_status(mdb_txn_begin(state->db.env, NULL, 0, &txn));
    if (status == MIR_E_NOT_FOUND) status = MIR_E_IO;
    if (status != MIR_OK) {
        *executed = count;
        return status;
    }
    /* What an event shows of a device has its schema by reference. */
    const int64_t offset_ns = atomic_load_explicit(&state->known_offset_ns, memory_order_relaxed);
    if (state->schema_kept_ns != 0 && offset_ns != 0)
        status = mir_state_db_schema_sweep(&state->db, txn,
                                           mir_clock_mono_ns() + offset_ns - state->schema_kept_ns,
                                           SCHEMAS_SWEPT_MAX);
    mir_event_log events = {.db = &state->db, .txn = txn};
    size_t done = 0, devices = 0;
    mir_state_request *request = first;
    const uint64_t used_before = mir_state_db_used_bytes(&state->db, txn);
    uint64_t bound = UINT64_MAX;
    while (status == MIR_OK && done < count && devices < MIR_STATE_GROUP_DEVICES_MAX) {
        const uint64_t own_bound = bound_of(state, request);
        if (used_before > own_bound) {
            fail_request(state, request, MIR_E_FULL);
        } else {
            status = execute_one(state, txn, &events, request);
            if (request->status == MIR_OK && own_bound < bound) bound = own_bound;
        }
        devices += request->change_count;
        if (request->op == MIR_STATE_EVENTS) devices += request->events.count;
        done++;
        if (request->node.next == NULL) break;
        request = request_of(request->node.next);
    }
    *executed = done == 0 ? count : done;
    if (status == MIR_OK) status = mir_event_log_end(&events);
    const uint64_t used = mir_state_db_used_bytes(&state->db, txn);
    if (status == MIR_OK && used > bound && used > used_before) status = MIR_E_FULL;
    if (status != MIR_OK) {
        mdb_txn_abort(txn);
        count_changes(state, false);
        /* A lookup that finds nothing is an answer; here it means that an index lies. */
        return status == MIR_E_NOT_FOUND || status == MIR_E_EXISTS ? MIR_E_CORRUPT : status;
    }
    int64_t start_ns = mir_clock_mono_ns();
    status = mir_state_db_status(mdb_txn_commit(txn));
    count_changes(state, status == MIR_OK);
    if (status != MIR_OK) return status;
    if (events.completed)
        mir_event_keeper_wake(state->events, events.head.sequence / MIR_EVENT_BLOCK);
    state->failing = MIR_OK;
    note_fullness(state, used);
    int64_t took_ns = mir_clock_mono_ns() - start_ns;
    atomic_store_explicit(&state->commit_last_ns, took_ns, memory_order_relaxed);
    raise_max(&state->commit_max_ns, took_ns);
    atomic_fetch_add_explicit(&state->commits, 1, memory_order_relaxed);
    atomic_store_explicit(&state->group_last, done, memory_order_relaxed);
    if (done > atomic_load_explicit(&state->group_max, memory_order_relaxed))
        atomic_store_explicit(&state->group_max, done, memory_order_relaxed);
    if (state->sync == MIR_STATE_SYNC_INTERVAL && state->dirty_since_ns == 0)
        state->dirty_since_ns = mir_clock_mono_ns();
    return MIR_OK;
}

static void finish(mir_state *state, mir_state_request *request)
{
    /* The text of a failure is never empty: clients take an empty one for success. */
    MIR_ASSERT((request->status == MIR_OK) == (request->error == NULL));
    atomic_fetch_add_explicit(&state->requests, 1, memory_order_relaxed);
    if (request->status != MIR_OK)
        atomic_fetch_add_explicit(&state->requests_failed, 1, memory_order_relaxed);
    atomic_fetch_sub_explicit(&state->in_flight, 1, memory_order_relaxed);
    request->done(request, request->ctx);
}

/* Said when it begins, and again only after a commit has worked in between. */
static void commit_failed(mir_state *state, mir_status status)
{
    atomic_fetch_add_explicit(&state->commits_failed, 1, memory_order_relaxed);
    bool of_one_request = status == MIR_E_NO_MEMORY || status == MIR_E_TOO_LARGE;
    if (of_one_request || state->failing == status) return;
    state->failing = status;
    mir_error error;
    mir_state_db_explain(&state->db, status, &error);
    mir_log_error("state changes are refused: %s", error.text);
}

/* Takes requests from the front of the list and finishes them; returns what is left. */
static mir_mpsc_node *run_group(mir_state *state, mir_mpsc_node *list)
{
    size_t count = 0;
    for (mir_mpsc_node *node = list; node != NULL && count < MIR_STATE_GROUP_REQUESTS_MAX;
         node = node->next)
        count++;
    size_t executed = 0;
    mir_status status = commit_group(state, request_of(list), count, &executed);
    bool alone = status == MIR_OK || executed == 1;
    if (status != MIR_OK) commit_failed(state, status);
    for (; executed != 0; executed--) {
        mir_state_request *request = request_of(list);
        list = list->next;
        if (!alone) {
            /* One of them may have been too much; each gets its own transaction, so that those that
             * fit are done. */
            size_t one = 0;
            status = commit_group(state, request, 1, &one);
            if (status != MIR_OK) commit_failed(state, status);
        }
        if (status != MIR_OK) fail_request(state, request, status);
        finish(state, request);
    }
    return list;
}

/* What the writer has said of itself to those who submit. */
typedef enum writer_sleep {
    AWAKE,
    SLEEPING,
    GATHERING, /* what may wait need not wake it */
} writer_sleep;

/* Whether nobody waits for any of these. */
static bool may_wait(mir_mpsc_node *list)
{
    for (; list != NULL; list = list->next)
        if (!request_of(list)->may_wait) return false;
    return true;
}

static void sync_if_due(mir_state *state, bool now)
{
    if (state->dirty_since_ns == 0) return;
    int64_t age_ns = mir_clock_mono_ns() - state->dirty_since_ns;
    if (!now && age_ns < MIR_STATE_SYNC_INTERVAL_MS * MIR_NS_PER_MS) return;
    int rc = mdb_env_sync(state->db.env, 1);
    state->dirty_since_ns = rc == 0 ? 0 : mir_clock_mono_ns();
    if (rc != 0) {
        atomic_fetch_add_explicit(&state->commits_failed, 1, memory_order_relaxed);
        if (!state->unsynced)
            mir_log_error("state store cannot be synced: %s: a power cut may take changes until "
                          "that has worked again",
                          mdb_strerror(rc));
    } else if (state->unsynced) {
        mir_log_info("state store is synced again");
    }
    state->unsynced = rc != 0;
}

static bool is_closing(mir_state *state)
{
    return atomic_load_explicit(&state->closing, memory_order_seq_cst);
}

/* Waits until somebody wakes the writer; `more` is what the last look into the queue has found. */
static mir_mpsc_node *sleep_until_woken(mir_state *state, writer_sleep how, int timeout_ms)
{
    atomic_store_explicit(&state->sleep, how, memory_order_seq_cst);
    /* Pairs with the push and the load of `sleep` in submit: one of the two sees the other. */
    mir_mpsc_node *more = mir_mpsc_is_empty(&state->queue) ? NULL : mir_mpsc_take(&state->queue);
    if ((more == NULL || (how == GATHERING && may_wait(more))) && !is_closing(state)) {
        struct pollfd poll_fd = {.fd = state->wake_fd, .events = POLLIN};
        (void)poll(&poll_fd, 1, timeout_ms);
    }
    if (atomic_exchange_explicit(&state->sleep, AWAKE, memory_order_seq_cst) == AWAKE) {
        uint64_t wakes;
        (void)!read(state->wake_fd, &wakes, sizeof wakes);
    }
    return more;
}

static void wake(mir_state *state, bool for_what_may_wait)
{
    /* Who takes the flag down owes the write; the writer reads it away when it finds it down. */
    unsigned sleep = atomic_load_explicit(&state->sleep, memory_order_seq_cst);
    if (sleep == AWAKE || (sleep == GATHERING && for_what_may_wait)) return;
    if (atomic_exchange_explicit(&state->sleep, AWAKE, memory_order_seq_cst) == AWAKE) return;
    uint64_t one = 1;
    (void)!write(state->wake_fd, &one, sizeof one);
}

static mir_mpsc_node *append(mir_mpsc_node *list, mir_mpsc_node *more)
{
    if (list == NULL) return more;
    mir_mpsc_node *last = list;
    while (last->next != NULL) last = last->next;
    last->next = more;
    return list;
}

/* A commit costs a sync, however little is in it: what nobody waits for waits for company. */
static mir_mpsc_node *gather(mir_state *state, mir_mpsc_node *list)
{
    int64_t until_ns = mir_clock_mono_ns() + MIR_STATE_GATHER_MS * MIR_NS_PER_MS;
    while (may_wait(list) && !is_closing(state)) {
        int64_t left_ns = until_ns - mir_clock_mono_ns();
        if (left_ns <= 0 || atomic_load_explicit(&state->in_flight, memory_order_relaxed) >=
                                MIR_STATE_GATHER_REQUESTS)
            break;
        int timeout_ms = (int)((left_ns + MIR_NS_PER_MS - 1) / MIR_NS_PER_MS);
        list = append(list, sleep_until_woken(state, GATHERING, timeout_ms));
        list = append(list, mir_mpsc_take(&state->queue));
    }
    return list;
}

static void *writer_main(void *opaque)
{
    mir_state *state = opaque;
    (void)pthread_setname_np(pthread_self(), "mir-state");
    mir_thread_give_way(0);
    for (;;) {
        /* Read before the queue is taken, so that nothing pushed before closing is left. */
        bool closing = is_closing(state);
        mir_mpsc_node *list = mir_mpsc_take(&state->queue);
        if (list == NULL && closing) break;
        if (list == NULL)
            list = sleep_until_woken(state, SLEEPING,
                                     state->dirty_since_ns != 0 ? MIR_STATE_SYNC_INTERVAL_MS : -1);
        if (list != NULL) list = gather(state, list);
        while (list != NULL) {
            list = run_group(state, list);
            sync_if_due(state, false);
        }
        sync_if_due(state, false);
    }
    sync_if_due(state, true);
    return NULL;
}

/* For how long a schema outlives its last device: as long as the events that show it. 0: for ever. */
static int64_t schema_kept_ns(const mir_event_retention *retention)
{
    int64_t kept_ns = retention->default_keep_ns;
    for (size_t i = 0; i < retention->rule_count && kept_ns != 0; i++) {
        int64_t keep_ns = retention->rules[i].keep_ns;
        if (keep_ns == 0 || keep_ns > kept_ns) kept_ns = keep_ns;
    }
    return kept_ns != 0 && kept_ns < SCHEMA_UNUSED_KEPT_NS ? SCHEMA_UNUSED_KEPT_NS : kept_ns;
}

/* ── Opening and closing ─────────────────────────────────────────────────────────────────────── */

mir_status mir_state_open(const mir_state_options *options, mir_state **state, mir_error *error)
{
    mir_state *opened = calloc(1, sizeof *opened);
    if (opened == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    opened->sync = options->sync;
    opened->requests_max =
        options->requests_max == 0 ? REQUESTS_MAX_DEFAULT : options->requests_max;
    opened->wake_fd = -1;
    opened->db.lock_fd = -1;
    uint64_t map_bytes = options->map_bytes == 0 ? MAP_BYTES_DEFAULT : options->map_bytes;
    opened->schema_kept_ns = schema_kept_ns(&options->retention);
    if (options->retention.now_ns == NULL)
        atomic_init(&opened->known_offset_ns, mir_clock_wall_ns() - mir_clock_mono_ns());
    mir_status status =
        mir_state_db_open(options->path, map_bytes, options->sync, &opened->db, error);
    if (status == MIR_OK) status = mir_field_names_begin(&opened->db, error);
    if (status != MIR_OK) goto failed;
    opened->db.changed = opened->changed;
    opened->db.event_names_max =
        options->event_names_max == 0 ? MIR_EVENT_NAMES_KEPT_MAX : options->event_names_max;
    opened->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (opened->wake_fd < 0) {
        status = mir_error_os(error, errno, "cannot start the state writer");
        goto failed;
    }
    int rc = pthread_create(&opened->writer, NULL, writer_main, opened);
    if (rc != 0) {
        status = mir_error_os(error, rc, "cannot start the state writer");
        goto failed;
    }
    status = mir_event_keeper_start(opened, &options->retention, error);
    if (status != MIR_OK) {
        mir_state_close(opened);
        return status;
    }
    *state = opened;
    return MIR_OK;
failed:
    if (opened->wake_fd >= 0) (void)close(opened->wake_fd);
    mir_state_db_close(&opened->db);
    free(opened);
    return status;
}

void mir_state_close(mir_state *state)
{
    if (state == NULL) return;
    mir_event_keeper_stop(state->events);
    atomic_store_explicit(&state->closing, true, memory_order_seq_cst);
    wake(state, false);
    (void)pthread_join(state->writer, NULL);
    mir_event_keeper_free(state->events);
    for (size_t i = 0; i < MIR_STATE_READERS_KEPT; i++) {
        MDB_txn *txn = atomic_load_explicit(&state->readers[i], memory_order_relaxed);
        if (txn != NULL) mdb_txn_abort(txn);
    }
    for (size_t i = 0; i < MIR_STATE_CELL_PAGES; i++)
        free(atomic_load_explicit(&state->cells[i], memory_order_relaxed));
    (void)close(state->wake_fd);
    mir_state_db_close(&state->db);
    free(state);
}

mir_status mir_state_submit(mir_state *state, mir_state_request *request)
{
    MIR_ASSERT(request->done != NULL);
    if (atomic_load_explicit(&state->closing, memory_order_relaxed)) return MIR_E_CLOSED;
    uint32_t before = atomic_fetch_add_explicit(&state->in_flight, 1, memory_order_relaxed);
    if (before >= state->requests_max) {
        atomic_fetch_sub_explicit(&state->in_flight, 1, memory_order_relaxed);
        return MIR_E_FULL;
    }
    if (request->arena.bytes_max == 0) request->arena.bytes_max = MIR_STATE_REQUEST_BYTES_MAX;
    /* From here on it is not the submitter's, and may be gone. */
    bool may_wait_now = request->may_wait && before + 1 < MIR_STATE_GATHER_REQUESTS;
    (void)mir_mpsc_push(&state->queue, &request->node);
    wake(state, may_wait_now);
    return MIR_OK;
}

static void post(mir_state_request *request, void *ctx)
{
    (void)request;
    (void)sem_post(ctx);
}

mir_status mir_state_execute(mir_state *state, mir_state_request *request)
{
    sem_t finished;
    (void)sem_init(&finished, 0, 0);
    request->done = post;
    request->ctx = &finished;
    mir_status status = mir_state_submit(state, request);
    if (status == MIR_OK) {
        while (sem_wait(&finished) != 0) continue; /* interrupted by a signal */
        status = request->status;
    }
    (void)sem_destroy(&finished);
    return status;
}

/* ── Reading ─────────────────────────────────────────────────────────────────────────────────── */

mir_status mir_state_read_begin(mir_state *state, MDB_txn **txn, mir_error *error)
{
    MDB_txn *taken = NULL;
    for (size_t i = 0; i < MIR_STATE_READERS_KEPT && taken == NULL; i++) {
        if (atomic_load_explicit(&state->readers[i], memory_order_relaxed) == NULL) continue;
        /* Acquire pairs with the release in mir_state_read_end. */
        taken = atomic_exchange_explicit(&state->readers[i], NULL, memory_order_acquire);
    }
    int rc = taken != NULL ? mdb_txn_renew(taken)
                           : mdb_txn_begin(state->db.env, NULL, MDB_RDONLY, &taken);
    if (rc == 0) {
        *txn = taken;
        return MIR_OK;
    }
    if (taken != NULL) mdb_txn_abort(taken);
    mir_status status = mir_state_db_status(rc);
    mir_state_db_explain(&state->db, status, error);
    return status;
}

void mir_state_read_end(mir_state *state, MDB_txn *txn)
{
    mdb_txn_reset(txn);
    for (size_t i = 0; i < MIR_STATE_READERS_KEPT; i++) {
        MDB_txn *none = NULL;
        if (atomic_compare_exchange_strong_explicit(&state->readers[i], &none, txn,
                                                    memory_order_release, memory_order_relaxed))
            return;
    }
    mdb_txn_abort(txn);
}

mir_status mir_state_get(mir_state *state, mir_view device_id, mir_arena *arena,
                         MirStore__V1__DeviceRecord **record, mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_read_begin(state, &txn, error);
    if (status != MIR_OK) return status;
    uint64_t number = 0;
    status = mir_state_db_find_id(&state->db, txn, device_id, &number);
    if (status == MIR_OK) {
        status = mir_state_db_load(&state->db, txn, number, arena, record);
        if (status == MIR_E_NOT_FOUND) status = MIR_E_CORRUPT;
    }
    mir_state_read_end(state, txn);
    if (status != MIR_OK && status != MIR_E_NOT_FOUND)
        mir_state_db_explain(&state->db, status, error);
    return status;
}

uint64_t mir_state_changes_of_id(const mir_state *state, mir_view id)
{
    return atomic_load_explicit(&state->changes[mir_state_count_of_id(id)], memory_order_seq_cst);
}

uint64_t mir_state_changes_of_name(const mir_state *state, mir_view name, mir_view name_space)
{
    return atomic_load_explicit(&state->changes[mir_state_count_of_name(name, name_space)],
                                memory_order_seq_cst);
}

uint64_t mir_state_changes_of_fleet(const mir_state *state)
{
    return atomic_load_explicit(&state->changes[MIR_STATE_COUNT_OF_FLEET], memory_order_seq_cst);
}

mir_status mir_state_list(mir_state *state, const MirApi__V1__DeviceTarget *target,
                          mir_arena *arena, MirStore__V1__DeviceRecord ***records, size_t *count,
                          mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_read_begin(state, &txn, error);
    if (status != MIR_OK) return status;
    status = mir_state_target_load(&state->db, txn, target, arena, records, count, error);
    mir_state_read_end(state, txn);
    return status;
}

mir_status mir_state_count(mir_state *state, const MirApi__V1__DeviceTarget *target,
                           uint64_t *count, mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_read_begin(state, &txn, error);
    if (status != MIR_OK) return status;
    mir_state_numbers numbers = {0};
    bool exact = true;
    status = mir_state_target_candidates(&state->db, txn, target, &numbers, &exact, error);
    uint64_t found = numbers.count;
    if (status == MIR_OK && !exact) {
        /* Few enough to be looked at: MIR_STATE_TARGET_FEW. */
        mir_arena arena = {0};
        found = 0;
        for (size_t i = 0; i < numbers.count && status == MIR_OK; i++) {
            MirStore__V1__DeviceRecord *record = NULL;
            status = mir_state_db_load(&state->db, txn, numbers.items[i], &arena, &record);
            if (status == MIR_OK && mir_state_target_matches(target, record)) found++;
        }
        if (status != MIR_OK) mir_state_db_explain(&state->db, MIR_E_CORRUPT, error);
        mir_arena_free(&arena);
    }
    free(numbers.items);
    mir_state_read_end(state, txn);
    if (status == MIR_OK) *count = found;
    return status;
}

mir_status mir_state_schema_get(mir_state *state, mir_view hash, bool compressed, mir_bytes *out,
                                mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_read_begin(state, &txn, error);
    if (status != MIR_OK) return status;
    mir_arena arena = {0};
    MirStore__V1__SchemaRecord *record = NULL;
    status = mir_state_db_schema_load(&state->db, txn, hash, &arena, &record);
    mir_state_read_end(state, txn);
    if (status == MIR_E_NOT_FOUND) {
        (void)mir_error_set(error, status, "the schema is not stored");
    } else if (status != MIR_OK) {
        mir_state_db_explain(&state->db, status, error);
    } else {
        mir_view frame = mir_view_of(record->compressed.data, record->compressed.len);
        if (compressed) {
            mir_bytes_view(out, frame);
            if (!mir_bytes_ok(out))
                status = mir_error_set(error, MIR_E_NO_MEMORY, "the schema needs too much memory");
        } else {
            status = mir_zstd_decompress(frame, MIR_DEVICE_SCHEMA_BYTES_MAX, out, error);
        }
    }
    mir_arena_free(&arena);
    return status;
}

mir_status mir_state_online_each(mir_state *state, mir_state_online_visit visit, void *ctx,
                                 mir_error *error)
{
    MDB_txn *txn = NULL;
    mir_status status = mir_state_read_begin(state, &txn, error);
    if (status != MIR_OK) return status;
    MDB_cursor *cursor = NULL;
    status = mir_state_db_status(mdb_cursor_open(txn, state->db.online, &cursor));
    mir_status answer = MIR_OK;
    if (status == MIR_OK) {
        MDB_val k, v;
        status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_FIRST));
        while (status == MIR_OK) {
            if (k.mv_size != 8 || v.mv_size < 8) {
                status = MIR_E_CORRUPT;
                break;
            }
            answer = visit(ctx, mir_view_of((const uint8_t *)v.mv_data + 8, v.mv_size - 8),
                           mir_state_u64_read(k.mv_data), (int64_t)mir_state_u64_read(v.mv_data));
            if (answer != MIR_OK) break;
            status = mir_state_db_status(mdb_cursor_get(cursor, &k, &v, MDB_NEXT));
        }
        mdb_cursor_close(cursor);
    }
    mir_state_read_end(state, txn);
    if (answer != MIR_OK) return mir_error_set(error, answer, "%s", mir_status_name(answer));
    if (status == MIR_OK || status == MIR_E_NOT_FOUND) return MIR_OK;
    mir_state_db_explain(&state->db, status, error);
    return status;
}

_Atomic int64_t *mir_state_heartbeat_cell(mir_state *state, uint64_t number)
{
    uint64_t page_index = number / MIR_STATE_CELLS_PER_PAGE;
    if (page_index >= MIR_STATE_CELL_PAGES) return NULL;
    _Atomic(mir_state_cells *) *slot = &state->cells[page_index];
    /* Acquire pairs with the exchange below: a page is seen with its zeroes. */
    mir_state_cells *page = atomic_load_explicit(slot, memory_order_acquire);
    if (page == NULL) {
        mir_state_cells *fresh = calloc(1, sizeof *fresh);
        if (fresh == NULL) return NULL;
        if (atomic_compare_exchange_strong_explicit(slot, &page, fresh, memory_order_acq_rel,
                                                    memory_order_acquire))
            page = fresh;
        else
            free(fresh);
    }
    return &page->at_ns[number % MIR_STATE_CELLS_PER_PAGE];
}

int64_t mir_state_live_ns(mir_state *state, uint64_t number)
{
    uint64_t page_index = number / MIR_STATE_CELLS_PER_PAGE;
    if (page_index >= MIR_STATE_CELL_PAGES) return 0;
    mir_state_cells *page = atomic_load_explicit(&state->cells[page_index], memory_order_acquire);
    if (page == NULL) return 0;
    return atomic_load_explicit(&page->at_ns[number % MIR_STATE_CELLS_PER_PAGE],
                                memory_order_relaxed);
}

static uint64_t entries(MDB_txn *txn, MDB_dbi dbi)
{
    MDB_stat stat;
    return mdb_stat(txn, dbi, &stat) == 0 ? stat.ms_entries : 0;
}

void mir_state_stats_get(mir_state *state, mir_state_stats *stats)
{
    *stats = (mir_state_stats){
        .map_bytes = state->db.map_bytes,
        .requests = atomic_load_explicit(&state->requests, memory_order_relaxed),
        .requests_failed = atomic_load_explicit(&state->requests_failed, memory_order_relaxed),
        .requests_in_flight = atomic_load_explicit(&state->in_flight, memory_order_relaxed),
        .commits = atomic_load_explicit(&state->commits, memory_order_relaxed),
        .commits_failed = atomic_load_explicit(&state->commits_failed, memory_order_relaxed),
        .group_last = atomic_load_explicit(&state->group_last, memory_order_relaxed),
        .group_max = atomic_load_explicit(&state->group_max, memory_order_relaxed),
        .commit_last_ns = atomic_load_explicit(&state->commit_last_ns, memory_order_relaxed),
        .commit_max_ns = atomic_load_explicit(&state->commit_max_ns, memory_order_relaxed),
        .event_keeper_failures =
            atomic_load_explicit(&state->event_keeper_failures, memory_order_relaxed),
    };
    MDB_txn *txn = NULL;
    if (mir_state_read_begin(state, &txn, NULL) == MIR_OK) {
        stats->devices = entries(txn, state->db.id);
        stats->online = entries(txn, state->db.online);
        stats->schemas = entries(txn, state->db.schema);
        mir_event_head head;
        uint64_t blocks = 0;
        if (mir_event_head_read(&state->db, txn, &head) == MIR_OK &&
            mir_event_indexed_read(&state->db, txn, &blocks) == MIR_OK) {
            stats->event_sequence = head.sequence;
            stats->events_removed = head.removed;
            stats->events = head.sequence - head.removed - head.removals;
            stats->event_index_lag = head.sequence - blocks * MIR_EVENT_BLOCK;
        }
        stats->map_bytes_used = mir_state_db_used_bytes(&state->db, txn);
        mir_state_read_end(state, txn);
    }
}
