/* SPDX-License-Identifier: Apache-2.0 */
/* What becomes of devices, events and queued commands when the state store's file cannot be written,
 * call by call: what was told to be done is there, also after a restart; what was not is refused with
 * words and not there. */
#include "mir_event_testing.h"

#include <errno.h>
#include <fcntl.h>
#include <sched.h>
#include <stdatomic.h>
#include <sys/syscall.h>
#include <sys/uio.h>

#include "mir_command_store.h"

/* ── Calls that fail: LMDB finds these before those of the C library ─────────────────────────── */

static struct {
    atomic_bool armed;
    atomic_uint calls;   /* on the store's file, while armed */
    atomic_uint fail_at; /* the first that fails, counted from 1 */
    atomic_uint fail_count;
    int error; /* 0: a write is cut short */
} faults;

static atomic_bool syncs_alone; /* nothing else fails, or is counted */

static bool is_store(int fd)
{
    char link[64], name[256];
    (void)snprintf(link, sizeof link, "/proc/self/fd/%d", fd);
    const ssize_t size = readlink(link, name, sizeof name);
    static const char suffix[] = "/data.mdb";
    return size >= (ssize_t)sizeof suffix - 1 &&
           memcmp(name + size - (sizeof suffix - 1), suffix, sizeof suffix - 1) == 0;
}

static bool fails(int fd)
{
    if (!atomic_load(&faults.armed) || !is_store(fd)) return false;
    const unsigned call = atomic_fetch_add(&faults.calls, 1) + 1;
    return call >= faults.fail_at && call - faults.fail_at < faults.fail_count;
}

static ssize_t failed(void)
{
    errno = faults.error == 0 ? EIO : faults.error;
    return -1;
}

ssize_t pwrite(int fd, const void *bytes, size_t size, off_t offset)
{
    if (!syncs_alone && fails(fd)) {
        if (faults.error != 0) return failed();
        size /= 2;
    }
    return syscall(SYS_pwrite64, fd, bytes, size, offset);
}

ssize_t writev(int fd, const struct iovec *parts, int count)
{
    if (!syncs_alone && fails(fd)) {
        if (faults.error != 0 || count < 2) return failed();
        count /= 2;
    }
    return syscall(SYS_writev, fd, parts, count);
}

int fdatasync(int fd)
{
    return (int)(fails(fd) ? failed() : syscall(SYS_fdatasync, fd));
}

static void arm(unsigned fail_at, unsigned fail_count, int error)
{
    faults.error = error;
    faults.calls = 0;
    faults.fail_at = fail_at;
    faults.fail_count = fail_count;
    atomic_store(&faults.armed, true);
}

/* Whether any call has failed. */
static bool disarm(void)
{
    atomic_store(&faults.armed, false);
    return faults.calls >= faults.fail_at;
}

/* ── What is done, one request after the other ───────────────────────────────────────────────── */

enum { STEPS = 6 };

typedef struct model {
    unsigned devices;
    unsigned label; /* of the first device */
    unsigned commands;
    unsigned beaten;   /* devices that their first heartbeat has made */
    uint64_t sequence; /* of the newest event */
} model;

static mir_status add_device(fixture *f, unsigned number)
{
    char device[64];
    (void)snprintf(device, sizeof device, "{\"spec\":{\"deviceId\":\"d%u\"}}", number);
    return create(f, device);
}

static mir_status add_event(fixture *f)
{
    mir_event_item event;
    mir_error error = {""};
    const told what = {.reason = "Seen"};
    if (make(f, &what, &event, &error) != MIR_OK) fail_msg("make: %s", error.text);
    f->request.op = MIR_STATE_EVENTS;
    f->request.events.items = &event;
    f->request.events.count = 1;
    return run(f);
}

static mir_status add_command(fixture *f)
{
    char id[MIR_COMMAND_ID_BYTES_MAX];
    assert_int_equal(mir_command_id_new(id), MIR_OK);
    mir_command_add one = {.id = id,
                           .device_id = mir_view_cstr("d0"),
                           .message = "p.v1.Go",
                           .payload = mir_view_cstr("x"),
                           .expires_ns = mir_clock_wall_ns() + 3600 * MIR_NS_PER_S,
                           .timeout_s = 5};
    mir_command_adds adds = {&one, 1};
    mir_event_cause cause = {.actor = MIR_VIEW_LITERAL("anna")};
    f->request.cause = &cause;
    mir_command_prepare_add(&f->request, &adds);
    const mir_status status = run(f);
    f->request.cause = NULL;
    return status == MIR_OK ? one.status : status;
}

/* One request of each kind, in turn; the model changes when the store says that it did it. */
static mir_status step(fixture *f, model *m, unsigned which)
{
    char change[64];
    char id[64];
    mir_state_heartbeat beat = {.device_id = mir_view_of(id, 0), .at_ns = mir_clock_wall_ns()};
    mir_status status = MIR_OK;
    switch (which) {
    case 0:
        status = add_device(f, m->devices);
        if (status == MIR_OK) m->devices++;
        break;
    case 1:
        (void)snprintf(change, sizeof change, "{\"labels\":{\"n\":\"%u\"}}", m->label + 1);
        status = update(f, "{\"ids\":[\"d0\"]}", change);
        if (status == MIR_OK) m->label++;
        break;
    case 2: status = add_event(f); break;
    case 3:
        status = add_command(f);
        if (status == MIR_OK) m->commands++;
        break;
    case 4:
        beat.device_id = mir_view_of(id, (size_t)snprintf(id, sizeof id, "n%u", m->beaten));
        status = heartbeats(f, &beat, 1, false);
        if (status == MIR_OK) status = beat.status;
        if (status == MIR_OK) m->beaten++;
        break;
    default:
        (void)snprintf(id, sizeof id, "{\"ids\":[\"d%u\"]}", m->devices - 1);
        status = delete_them(f, id);
        if (status == MIR_OK) m->devices--;
        break;
    }
    if (status == MIR_OK) {
        const uint64_t sequence = newest_sequence(f);
        assert_true(sequence >= m->sequence);
        m->sequence = sequence;
    }
    if (status != MIR_OK && (f->request.error == NULL || f->request.error[0] == '\0'))
        fail_msg("step %u failed without a word", which);
    return status;
}

static mir_status count_command(void *context, const mir_command_record *record)
{
    (void)record;
    ++*(unsigned *)context;
    return MIR_OK;
}

static unsigned count_of(fixture *f, char kind)
{
    char id[16];
    for (unsigned count = 0;; count++) {
        (void)snprintf(id, sizeof id, "%c%u", kind, count);
        if (get(f, id) == NULL) return count;
    }
}

static void assert_is(fixture *f, const model *m)
{
    assert_int_equal(count_of(f, 'd'), m->devices);
    assert_int_equal(count_of(f, 'n'), m->beaten);
    const char *value = label(get(f, "d0"), "n");
    assert_int_equal(value == NULL ? 0 : strtoul(value, NULL, 10), m->label);
    unsigned commands = 0;
    mir_error error = {""};
    assert_int_equal(mir_command_waiting_each(f->state, count_command, &commands, &error), MIR_OK);
    assert_int_equal(commands, m->commands);
    assert_int_equal(newest_sequence(f), m->sequence);
}

static void reopen(fixture *f, mir_state_sync sync)
{
    mir_state_close(f->state);
    fixture_open(f, sync, 16 << 20);
}

/* Whether LMDB has given up: a page that says which tree is valid could not be written. */
static bool is_stopped(fixture *f)
{
    mir_error error = {""};
    MirStore__V1__DeviceRecord *record;
    const mir_status status =
        mir_state_get(f->state, mir_view_cstr("d0"), &f->arena, &record, &error);
    if (status == MIR_OK) return false;
    assert_int_equal(status, MIR_E_CLOSED);
    assert_non_null(strstr(error.text, "restart the server"));
    return true;
}

/* ── Tests ───────────────────────────────────────────────────────────────────────────────────── */

static fixture *prepare(mir_state_sync sync, model *m)
{
    fixture *f = fixture_new(sync, 16 << 20);
    *m = (model){0};
    assert_int_equal(step(f, m, 0), MIR_OK);
    return f;
}

/* With the calls from fail_at on failing, one request of a kind; then all is as the answers said, with
 * this server and the next one. False when no call failed. */
static bool try_step(fixture *f, model *m, mir_state_sync sync, unsigned which, unsigned fail_at,
                     unsigned fail_count, int error)
{
    /* There is one to delete, besides that of the label and the commands. */
    while (m->devices < 2) assert_int_equal(step(f, m, 0), MIR_OK);
    arm(fail_at, fail_count, error);
    const mir_status status = step(f, m, which);
    const bool hit = disarm();
    if (fail_at == 1) assert_true(hit);
    if (hit && sync == MIR_STATE_SYNC_COMMIT) assert_int_not_equal(status, MIR_OK);
    if (is_stopped(f)) {
        for (unsigned i = 0; i < STEPS; i++) assert_int_equal(step(f, m, i), MIR_E_CLOSED);
        reopen(f, sync);
        assert_is(f, m);
    } else {
        assert_is(f, m);
        if (status != MIR_OK) assert_int_equal(step(f, m, which), MIR_OK);
        reopen(f, sync);
        assert_is(f, m);
    }
    return hit;
}

static const int errors[] = {EIO, ENOSPC, EDQUOT, 0};

static void fail_each_call(mir_state_sync sync, int error)
{
    model m;
    fixture *f = prepare(sync, &m);
    for (unsigned which = 0; which < STEPS; which++) {
        unsigned call = 1;
        while (call < 64 && try_step(f, &m, sync, which, call, 1, error)) call++;
        /* Pages, a sync, and the page that makes them valid. */
        assert_in_range(call, sync == MIR_STATE_SYNC_COMMIT ? 3 : 2, 63);
        (void)try_step(f, &m, sync, which, 1, UINT_MAX, error);
    }
    events_free(f);
}

static void what_fails_is_refused_with_words_and_not_there(void **state)
{
    (void)state;
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        fail_each_call(MIR_STATE_SYNC_COMMIT, errors[e]);
        fail_each_call(MIR_STATE_SYNC_INTERVAL, errors[e]);
    }
}

static void a_store_that_cannot_be_opened_says_why(void **state)
{
    (void)state;
    for (size_t e = 0; e < sizeof errors / sizeof errors[0]; e++) {
        for (unsigned call = 1; call < 64; call++) {
            fixture *f = calloc(1, sizeof *f);
            assert_non_null(f);
            (void)snprintf(f->path, sizeof f->path, "/tmp/mir-state-XXXXXX");
            assert_non_null(mkdtemp(f->path));
            const mir_state_options options = {.path = f->path, .map_bytes = 16 << 20};
            mir_error error = {""};
            arm(call, 1, errors[e]);
            const mir_status status = mir_state_open(&options, &f->state, &error);
            const bool hit = disarm();
            if (status != MIR_OK) {
                assert_true(strlen(error.text) > strlen(f->path));
                fixture_open(f, MIR_STATE_SYNC_COMMIT, 16 << 20);
            }
            assert_int_equal(add_device(f, 0), MIR_OK);
            fixture_free(f);
            if (!hit) break;
            assert_in_range(call, 1, 62);
        }
    }
}

/* What was committed is not forgotten when it could not be synced: that is tried again. */
static void a_sync_that_failed_is_done_again(void **state)
{
    (void)state;
    model m;
    fixture *f = prepare(MIR_STATE_SYNC_INTERVAL, &m);
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    syncs_alone = true;
    arm(1, 2, EIO);
    assert_int_equal(step(f, &m, 1), MIR_OK);
    const int64_t until_ns = mir_clock_mono_ns() + 30 * MIR_NS_PER_S;
    do {
        if (mir_clock_mono_ns() > until_ns) fail_msg("%u syncs", faults.calls);
        (void)sched_yield();
    } while (faults.calls < 3);
    syncs_alone = false;
    assert_true(disarm());
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.commits_failed, before.commits_failed + 2);
    reopen(f, MIR_STATE_SYNC_INTERVAL);
    assert_is(f, &m);
    events_free(f);
}

static void a_full_map_refuses_each_kind_but_deletes(void **state)
{
    (void)state;
    model m;
    fixture *f = prepare(MIR_STATE_SYNC_OFF, &m);
    reopen(f, MIR_STATE_SYNC_OFF);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 1 << 20);
    while (m.devices < 10000 && step(f, &m, 0) == MIR_OK) continue;
    for (unsigned which = 0; which < STEPS - 1; which++) {
        /* What is small may still find room until it does not. */
        mir_status status = MIR_OK;
        for (int i = 0; i < 10000 && status == MIR_OK; i++) status = step(f, &m, which);
        assert_int_equal(status, MIR_E_FULL);
        assert_non_null(strstr(f->request.error, "state store is full"));
        assert_is(f, &m);
    }
    assert_int_equal(step(f, &m, STEPS - 1), MIR_OK);
    assert_is(f, &m);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 16 << 20);
    assert_is(f, &m);
    for (unsigned which = 0; which < STEPS; which++) assert_int_equal(step(f, &m, which), MIR_OK);
    assert_is(f, &m);
    events_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fails_is_refused_with_words_and_not_there),
        cmocka_unit_test(a_store_that_cannot_be_opened_says_why),
        cmocka_unit_test(a_sync_that_failed_is_done_again),
        cmocka_unit_test(a_full_map_refuses_each_kind_but_deletes),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
