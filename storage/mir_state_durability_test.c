/* SPDX-License-Identifier: Apache-2.0 */
/* Groups, failures, other processes and other threads. */
#include "mir_state_testing.h"

#include <fcntl.h>
#include <pthread.h>
#include <semaphore.h>
#include <signal.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>

#include "mir_clock.h"

/* Requests that are submitted while the writer is held in a `done`, so that they form one group. */
typedef struct batch {
    sem_t held, go, finished;
    size_t order[16], count;
} batch;

typedef struct batch_item {
    mir_state_request request;
    MirApi__V1__CreateDeviceRequest create;
    batch *batch;
    size_t index;
} batch_item;

static void hold(mir_state_request *request, void *ctx)
{
    batch *b = ctx;
    (void)request;
    (void)sem_post(&b->held);
    while (sem_wait(&b->go) != 0) continue;
}

static void note(mir_state_request *request, void *ctx)
{
    batch_item *item = ctx;
    (void)request;
    item->batch->order[item->batch->count++] = item->index;
    (void)sem_post(&item->batch->finished);
}

static void prepare_create(fixture *f, batch_item *item, batch *b, size_t index, const char *device,
                           void (*done)(mir_state_request *, void *))
{
    *item = (batch_item){.batch = b, .index = index};
    mir_api__v1__create_device_request__init(&item->create);
    item->create.device = device_of(&f->arena, device);
    item->request.op = MIR_STATE_CREATE;
    item->request.create = &item->create;
    item->request.done = done;
    item->request.ctx = done == hold ? (void *)b : item;
}

static void submit_create(fixture *f, batch_item *item, batch *b, size_t index, const char *device,
                          void (*done)(mir_state_request *, void *))
{
    prepare_create(f, item, b, index, device, done);
    assert_int_equal(mir_state_submit(f->state, &item->request), MIR_OK);
}

static void a_refusal_in_a_group_harms_nobody(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, 16 << 20);
    batch b = {.count = 0};
    batch_item first, items[5];
    (void)sem_init(&b.held, 0, 0);
    (void)sem_init(&b.go, 0, 0);
    (void)sem_init(&b.finished, 0, 0);
    submit_create(f, &first, &b, 0, "{\"spec\":{\"deviceId\":\"first\"}}", hold);
    while (sem_wait(&b.held) != 0) continue;
    static const char *const devices[] = {
        "{\"spec\":{\"deviceId\":\"a\"}}",
        "{\"spec\":{\"deviceId\":\"b\"}}",
        "{\"spec\":{\"deviceId\":\"a\"}}", /* taken by the first of the same group */
        "{\"meta\":{\"name\":\"b\"},\"spec\":{\"deviceId\":\"c\"}}",
        "{\"spec\":{\"deviceId\":\"d\"}}",
    };
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    for (size_t i = 0; i < 5; i++) submit_create(f, &items[i], &b, i, devices[i], note);
    (void)sem_post(&b.go);
    for (size_t i = 0; i < 5; i++)
        while (sem_wait(&b.finished) != 0) continue;
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.commits, before.commits + 1);
    assert_int_equal(after.group_last, 5);
    for (size_t i = 0; i < 5; i++) assert_int_equal(b.order[i], i);
    assert_int_equal(items[0].request.status, MIR_OK);
    assert_int_equal(items[1].request.status, MIR_OK);
    assert_int_equal(items[2].request.status, MIR_E_EXISTS);
    assert_string_equal(items[2].request.error, "device a/default with deviceId a already exist");
    assert_int_equal(items[3].request.status, MIR_E_EXISTS);
    assert_int_equal(items[4].request.status, MIR_OK);
    assert_string_equal(list(f, NULL), "a,b,d,first");
    mir_arena_free(&first.request.arena);
    for (size_t i = 0; i < 5; i++) mir_arena_free(&items[i].request.arena);
    fixture_free(f);
}

static void what_may_wait_is_done_in_order_and_not_forgotten(void **state)
{
    (void)state;
    static const char *const devices[] = {
        "{\"spec\":{\"deviceId\":\"a\"}}", "{\"spec\":{\"deviceId\":\"b\"}}",
        "{\"spec\":{\"deviceId\":\"c\"}}", "{\"spec\":{\"deviceId\":\"d\"}}",
        "{\"spec\":{\"deviceId\":\"e\"}}", "{\"spec\":{\"deviceId\":\"f\"}}",
    };
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    batch b = {.count = 0};
    batch_item items[6];
    (void)sem_init(&b.finished, 0, 0);
    for (size_t i = 0; i < 6; i++) prepare_create(f, &items[i], &b, i, devices[i], note);
    /* One alone is done when nothing else comes. */
    items[0].request.may_wait = true;
    assert_int_equal(mir_state_submit(f->state, &items[0].request), MIR_OK);
    while (sem_wait(&b.finished) != 0) continue;
    /* What does not wait takes those before it along. */
    for (size_t i = 1; i < 4; i++) {
        items[i].request.may_wait = i != 3;
        assert_int_equal(mir_state_submit(f->state, &items[i].request), MIR_OK);
    }
    for (size_t i = 1; i < 4; i++)
        while (sem_wait(&b.finished) != 0) continue;
    /* Nor does closing wait, or forget. */
    for (size_t i = 4; i < 6; i++) {
        items[i].request.may_wait = true;
        assert_int_equal(mir_state_submit(f->state, &items[i].request), MIR_OK);
    }
    mir_state_close(f->state);
    assert_int_equal(b.count, 6);
    for (size_t i = 0; i < 6; i++) {
        assert_int_equal(b.order[i], i);
        assert_int_equal(items[i].request.status, MIR_OK);
        mir_arena_free(&items[i].request.arena);
    }
    fixture_open(f, MIR_STATE_SYNC_OFF, 16 << 20);
    assert_string_equal(list(f, NULL), "a,b,c,d,e,f");
    fixture_free(f);
}

static void requests_in_flight_are_bounded(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    mir_state_close(f->state);
    mir_error error;
    mir_state_options options = {.path = f->path, .map_bytes = 16 << 20, .requests_max = 2};
    assert_int_equal(mir_state_open(&options, &f->state, &error), MIR_OK);
    batch b = {.count = 0};
    batch_item first, items[3];
    (void)sem_init(&b.held, 0, 0);
    (void)sem_init(&b.go, 0, 0);
    (void)sem_init(&b.finished, 0, 0);
    submit_create(f, &first, &b, 0, "{\"spec\":{\"deviceId\":\"first\"}}", hold);
    while (sem_wait(&b.held) != 0) continue; /* is no longer in flight when done is called */
    submit_create(f, &items[0], &b, 0, "{\"spec\":{\"deviceId\":\"a\"}}", note);
    submit_create(f, &items[1], &b, 1, "{\"spec\":{\"deviceId\":\"b\"}}", note);
    items[2] = items[0];
    items[2].request.ctx = &items[2];
    assert_int_equal(mir_state_submit(f->state, &items[2].request), MIR_E_FULL);
    (void)sem_post(&b.go);
    for (size_t i = 0; i < 2; i++)
        while (sem_wait(&b.finished) != 0) continue;
    assert_int_equal(b.count, 2);
    mir_arena_free(&first.request.arena);
    for (size_t i = 0; i < 2; i++) mir_arena_free(&items[i].request.arena);
    fixture_free(f);
}

static void a_full_map_is_said_and_survived(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 1 << 20);
    char device[8192], filler[4096];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    int stored = 0;
    mir_status status = MIR_OK;
    while (status == MIR_OK && stored < 1000) {
        (void)snprintf(device, sizeof device,
                       "{\"meta\":{\"annotations\":{\"a\":\"%s\"}},\"spec\":{\"deviceId\":"
                       "\"d%d\"}}",
                       filler, stored);
        status = create(f, device);
        if (status == MIR_OK) stored++;
    }
    assert_int_equal(status, MIR_E_FULL);
    assert_string_equal(
        f->request.error,
        "state store is full (1 MiB map): raise state.map_size, or delete events or devices");
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.devices, stored);
    assert_int_equal(stats.commits_failed, 1);
    assert_non_null(get(f, "d0"));
    /* Raising the map is what the text says, and nothing was lost. */
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 8 << 20);
    assert_int_equal(create(f, device), MIR_OK);
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.devices, stored + 1);
    assert_int_equal(delete_them(f, "{\"ids\":[\"*\"]}"), MIR_OK);
    fixture_free(f);
}

/* Who lowers state.map_size to less than there is can make it so. */
static void what_a_smaller_map_has_no_room_for_can_be_deleted(void **state)
{
    (void)state;
    enum { DEVICES = 1000 };
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    char device[16384], filler[8192];
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    for (int i = 0; i < DEVICES; i++) {
        (void)snprintf(device, sizeof device,
                       "{\"meta\":{\"annotations\":{\"a\":\"%s\"}},\"spec\":{\"deviceId\":"
                       "\"d%d\"}}",
                       filler, i);
        f->request.without_events = true;
        assert_int_equal(create(f, device), MIR_OK);
    }
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 1 << 20);
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"e\"}}"), MIR_E_FULL);
    for (int i = 0; i < DEVICES; i++) {
        char target[64];
        (void)snprintf(target, sizeof target, "{\"ids\":[\"d%d\"]}", i);
        f->request.without_events = true;
        if (delete_them(f, target) != MIR_OK) fail_msg("d%d: %s", i, f->request.error);
    }
    f->request.without_events = false;
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"e\"}}"), MIR_OK);
    fixture_free(f);
}

/* The kernel refuses to let the file grow, as a full disk does. */
static void a_failed_write_is_said_and_survived(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, 64 << 20);
    add(f, "before", "before", "default");
    char path[128], device[40000], filler[32768];
    struct stat file;
    (void)snprintf(path, sizeof path, "%s/data.mdb", f->path);
    assert_int_equal(stat(path, &file), 0);
    struct rlimit old, tight;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &old), 0);
    tight = old;
    tight.rlim_cur = (rlim_t)file.st_size;
    (void)signal(SIGXFSZ, SIG_IGN);
    memset(filler, 'x', sizeof filler - 1);
    filler[sizeof filler - 1] = '\0';
    (void)snprintf(device, sizeof device,
                   "{\"meta\":{\"annotations\":{\"a\":\"%s\"}},\"spec\":{\"deviceId\":\"big\"}}",
                   filler);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &tight), 0);
    mir_status status = create(f, device);
    mir_status again = create(f, device);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &old), 0);
    assert_int_equal(status, MIR_E_NO_SPACE);
    assert_int_equal(again, MIR_E_NO_SPACE);
    assert_string_equal(f->request.error,
                        "state store cannot grow, its disk is full: free some space");
    assert_null(get(f, "big"));
    assert_non_null(get(f, "before"));
    assert_int_equal(create(f, device), MIR_OK); /* without a restart, once there is room */
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 64 << 20);
    assert_string_equal(list(f, NULL), "before,big");
    fixture_free(f);
}

static void what_was_submitted_is_done_before_a_close(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_INTERVAL, 16 << 20);
    batch b = {.count = 0};
    batch_item items[16];
    (void)sem_init(&b.finished, 0, 0);
    for (size_t i = 0; i < 16; i++) {
        char device[64];
        (void)snprintf(device, sizeof device, "{\"spec\":{\"deviceId\":\"d%02zu\"}}", i);
        submit_create(f, &items[i], &b, i, device, note);
    }
    mir_state_close(f->state);
    assert_int_equal(b.count, 16);
    for (size_t i = 0; i < 16; i++) {
        assert_int_equal(items[i].request.status, MIR_OK);
        mir_arena_free(&items[i].request.arena);
    }
    fixture_open(f, MIR_STATE_SYNC_INTERVAL, 16 << 20);
    assert_non_null(get(f, "d15"));
    fixture_free(f);
}

/* What does not fit must not take down what shares its transaction. */
static void a_request_that_is_too_large_fails_alone(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    batch b = {.count = 0};
    batch_item first, items[3];
    (void)sem_init(&b.held, 0, 0);
    (void)sem_init(&b.go, 0, 0);
    (void)sem_init(&b.finished, 0, 0);
    submit_create(f, &first, &b, 0, "{\"spec\":{\"deviceId\":\"first\"}}", hold);
    while (sem_wait(&b.held) != 0) continue;
    for (size_t i = 0; i < 3; i++) {
        char device[64];
        (void)snprintf(device, sizeof device, "{\"spec\":{\"deviceId\":\"d%zu\"}}", i);
        items[i] = (batch_item){.batch = &b, .index = i};
        mir_api__v1__create_device_request__init(&items[i].create);
        items[i].create.device = device_of(&f->arena, device);
        items[i].request.op = MIR_STATE_CREATE;
        items[i].request.create = &items[i].create;
        items[i].request.done = note;
        items[i].request.ctx = &items[i];
        if (i == 1) items[i].request.arena.bytes_max = 64;
        assert_int_equal(mir_state_submit(f->state, &items[i].request), MIR_OK);
    }
    (void)sem_post(&b.go);
    for (size_t i = 0; i < 3; i++)
        while (sem_wait(&b.finished) != 0) continue;
    assert_int_equal(items[0].request.status, MIR_OK);
    assert_int_equal(items[1].request.status, MIR_E_NO_MEMORY);
    assert_non_null(items[1].request.error);
    assert_int_equal(items[2].request.status, MIR_OK);
    assert_string_equal(list(f, NULL), "d0,d2,first");
    mir_arena_free(&first.request.arena);
    for (size_t i = 0; i < 3; i++) mir_arena_free(&items[i].request.arena);
    fixture_free(f);
}

/* ── Opening ─────────────────────────────────────────────────────────────────────────────────── */

static void a_folder_that_cannot_be_written_is_said(void **state)
{
    (void)state;
    mir_state *opened = NULL;
    mir_error error;
    mir_state_options options = {.path = "/proc/self/mir-state"};
    assert_int_not_equal(mir_state_open(&options, &opened, &error), MIR_OK);
    assert_non_null(strstr(error.text, "choose a writable data directory"));
    if (geteuid() == 0) return; /* permissions do not stop root */
    char path[] = "/tmp/mir-state-XXXXXX";
    assert_non_null(mkdtemp(path));
    assert_int_equal(chmod(path, 0500), 0);
    options.path = path;
    assert_int_equal(mir_state_open(&options, &opened, &error), MIR_E_PERMISSION);
    assert_non_null(strstr(error.text, "choose a writable data directory"));
    assert_int_equal(rmdir(path), 0);
}

static void a_store_in_use_is_refused(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 1 << 20);
    mir_state *second = NULL;
    mir_error error;
    mir_state_options options = {.path = f->path, .map_bytes = 1 << 20};
    assert_int_equal(mir_state_open(&options, &second, &error), MIR_E_EXISTS);
    assert_non_null(strstr(error.text, "in use by another process"));
    fixture_free(f);
}

static void a_newer_format_is_refused(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 1 << 20);
    MDB_txn *txn = NULL;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    uint8_t version[8];
    mir_state_u64_write(version, 99);
    MDB_val k = {6, (void *)(uintptr_t) "format"}, v = {sizeof version, version};
    assert_int_equal(mdb_put(txn, f->state->db.meta, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mir_state_close(f->state);
    mir_error error;
    mir_state_options options = {.path = f->path, .map_bytes = 1 << 20};
    assert_int_equal(mir_state_open(&options, &f->state, &error), MIR_E_UNSUPPORTED);
    assert_non_null(strstr(error.text, "has format 99, this version of mir reads up to 2"));
    f->state = NULL;
    fixture_free(f);
}

static void a_file_that_is_no_store_is_refused(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 1 << 20);
    mir_state_close(f->state);
    f->state = NULL;
    char path[128];
    (void)snprintf(path, sizeof path, "%s/data.mdb", f->path);
    FILE *file = fopen(path, "wb");
    assert_non_null(file);
    for (int i = 0; i < 20000; i++) (void)fputc('g', file);
    assert_int_equal(fclose(file), 0);
    mir_error error;
    mir_state_options options = {.path = f->path, .map_bytes = 1 << 20};
    assert_int_not_equal(mir_state_open(&options, &f->state, &error), MIR_OK);
    assert_non_null(strstr(error.text, "cannot open state store"));
    fixture_free(f);
}

/* ── kill -9 ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct stream_item {
    mir_state_request request;
    MirApi__V1__CreateDeviceRequest create;
    MirApi__V1__NewDevice device;
    MirApi__V1__DeviceSpec spec;
    char id[32];
    int pipe_fd;
    uint32_t index;
} stream_item;

static void report(mir_state_request *request, void *ctx)
{
    stream_item *item = ctx;
    if (request->status == MIR_OK) (void)!write(item->pipe_fd, &item->index, sizeof item->index);
    mir_arena_free(&request->arena);
    free(item);
}

/* The child: creates devices as fast as it may, says which are done, until it is killed. */
static _Noreturn void create_stream(const char *path, uint32_t first, int pipe_fd)
{
    mir_error error;
    mir_state *store = NULL;
    mir_state_options options = {.path = path, .map_bytes = 64 << 20, .requests_max = 64};
    if (mir_state_open(&options, &store, &error) != MIR_OK) _exit(3);
    for (uint32_t i = first;; i++) {
        stream_item *item = calloc(1, sizeof *item);
        if (item == NULL) _exit(4);
        (void)snprintf(item->id, sizeof item->id, "k%u", i);
        mir_api__v1__create_device_request__init(&item->create);
        mir_api__v1__new_device__init(&item->device);
        mir_api__v1__device_spec__init(&item->spec);
        item->spec.device_id = item->id;
        item->device.spec = &item->spec;
        item->create.device = &item->device;
        item->pipe_fd = pipe_fd;
        item->index = i;
        item->request.op = MIR_STATE_CREATE;
        item->request.create = &item->create;
        item->request.done = report;
        item->request.ctx = item;
        while (mir_state_submit(store, &item->request) == MIR_E_FULL) sched_yield();
    }
}

static void what_was_said_to_be_done_survives_a_kill(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, 64 << 20);
    mir_state_close(f->state);
    f->state = NULL;
    uint32_t first = 0;
    for (unsigned round = 0; round < 5; round++) {
        int pipe_fds[2];
        assert_int_equal(pipe2(pipe_fds, O_CLOEXEC), 0);
        pid_t child = fork();
        assert_true(child >= 0);
        if (child == 0) {
            (void)close(pipe_fds[0]);
            create_stream(f->path, first, pipe_fds[1]);
        }
        (void)close(pipe_fds[1]);
        /* Killed in the middle of whatever it does after so many answers. */
        uint32_t done = 0, index = 0, want = 50 + round * 61;
        while (done < want && read(pipe_fds[0], &index, sizeof index) == sizeof index) done++;
        assert_int_equal(kill(child, SIGKILL), 0);
        while (read(pipe_fds[0], &index, sizeof index) == sizeof index) done++;
        (void)close(pipe_fds[0]);
        int child_status = 0;
        assert_int_equal(waitpid(child, &child_status, 0), child);
        assert_true(WIFSIGNALED(child_status));
        assert_true(done >= want);
        fixture_open(f, MIR_STATE_SYNC_COMMIT, 64 << 20);
        for (uint32_t i = 0; i < first + done; i++) {
            char id[32];
            (void)snprintf(id, sizeof id, "k%u", i);
            if (get(f, id) == NULL) fail_msg("round %u: %s is lost", round, id);
        }
        MDB_txn *txn = NULL;
        mir_error error = {""};
        assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
        if (mir_state_db_check(&f->state->db, txn, &error) != MIR_OK) fail_msg("%s", error.text);
        mir_state_read_end(f->state, txn);
        mir_state_stats stats;
        mir_state_stats_get(f->state, &stats);
        first = (uint32_t)stats.devices; /* what was committed and not reported is there too */
        mir_state_close(f->state);
        f->state = NULL;
    }
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 64 << 20);
    fixture_free(f);
}

/* ── Threads ─────────────────────────────────────────────────────────────────────────────────── */

enum { READERS = 4, WRITERS = 3, DEVICES_PER_WRITER = 150 };

typedef struct crowd {
    mir_state *state;
    atomic_bool stop;
    atomic_uint reads;
    atomic_uint wrong;
    unsigned index;
} crowd;

static void *read_along(void *opaque)
{
    crowd *c = opaque;
    while (!atomic_load(&c->stop)) {
        mir_arena arena = {0};
        mir_error error;
        MirStore__V1__DeviceRecord **records = NULL;
        MirApi__V1__Device **devices = NULL;
        size_t count = 0;
        mir_state_stats stats;
        bool ok =
            mir_state_list(c->state, NULL, &arena, &records, &count, &error) == MIR_OK &&
            mir_state_devices_of(c->state, records, count, &arena, &devices, &error) == MIR_OK;
        for (size_t i = 0; ok && i < count; i++) {
            MirStore__V1__DeviceRecord *record = NULL;
            ok = mir_state_get(c->state, mir_view_cstr(records[i]->device_id), &arena, &record,
                               &error) == MIR_OK &&
                 record->number == records[i]->number;
            _Atomic int64_t *cell = mir_state_heartbeat_cell(c->state, record->number);
            if (cell == NULL) ok = false;
            if (ok) atomic_store_explicit(cell, (int64_t)i, memory_order_release);
        }
        mir_state_stats_get(c->state, &stats);
        if (!ok) atomic_fetch_add(&c->wrong, 1);
        atomic_fetch_add(&c->reads, 1);
        mir_arena_free(&arena);
    }
    return NULL;
}

typedef struct writer {
    crowd *crowd;
    unsigned index;
} writer;

static void *write_along(void *opaque)
{
    writer *w = opaque;
    for (unsigned i = 0; i < DEVICES_PER_WRITER; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "w%u-%u", w->index, i);
        mir_state_heartbeat beat = {.device_id = mir_view_cstr(id), .at_ns = (int64_t)i + 1};
        mir_state_request request = {.op = MIR_STATE_HEARTBEAT};
        request.heartbeat.beats = &beat;
        request.heartbeat.count = 1;
        if (mir_state_execute(w->crowd->state, &request) != MIR_OK || request.change_count != 2)
            atomic_fetch_add(&w->crowd->wrong, 1);
        mir_arena_free(&request.arena);
    }
    return NULL;
}

static void readers_and_writers_do_not_disturb_each_other(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_INTERVAL, 64 << 20);
    crowd c = {.state = f->state};
    pthread_t readers[READERS], writers[WRITERS];
    writer contexts[WRITERS];
    for (unsigned i = 0; i < READERS; i++)
        assert_int_equal(pthread_create(&readers[i], NULL, read_along, &c), 0);
    for (unsigned i = 0; i < WRITERS; i++) {
        contexts[i] = (writer){&c, i};
        assert_int_equal(pthread_create(&writers[i], NULL, write_along, &contexts[i]), 0);
    }
    for (unsigned i = 0; i < WRITERS; i++) (void)pthread_join(writers[i], NULL);
    atomic_store(&c.stop, true);
    for (unsigned i = 0; i < READERS; i++) (void)pthread_join(readers[i], NULL);
    assert_int_equal(atomic_load(&c.wrong), 0);
    assert_true(atomic_load(&c.reads) >= READERS);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.devices, WRITERS * DEVICES_PER_WRITER);
    assert_int_equal(stats.requests, WRITERS * DEVICES_PER_WRITER);
    assert_int_equal(stats.requests_in_flight, 0);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_refusal_in_a_group_harms_nobody),
        cmocka_unit_test(what_may_wait_is_done_in_order_and_not_forgotten),
        cmocka_unit_test(requests_in_flight_are_bounded),
        cmocka_unit_test(a_full_map_is_said_and_survived),
        cmocka_unit_test(what_a_smaller_map_has_no_room_for_can_be_deleted),
        cmocka_unit_test(a_failed_write_is_said_and_survived),
        cmocka_unit_test(what_was_submitted_is_done_before_a_close),
        cmocka_unit_test(a_request_that_is_too_large_fails_alone),
        cmocka_unit_test(a_folder_that_cannot_be_written_is_said),
        cmocka_unit_test(a_store_in_use_is_refused),
        cmocka_unit_test(a_newer_format_is_refused),
        cmocka_unit_test(a_file_that_is_no_store_is_refused),
        cmocka_unit_test(what_was_said_to_be_done_survives_a_kill),
        cmocka_unit_test(readers_and_writers_do_not_disturb_each_other),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
