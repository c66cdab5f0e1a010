/* SPDX-License-Identifier: Apache-2.0 */
/* Many events: that they are found, and how long it took (printed, not judged). How many is the
 * first argument; without one it is what a test run has time for. */
#include "mir_event_testing.h"

#include <semaphore.h>

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
static size_t event_count = 40000;
#else
static size_t event_count = 200000;
#endif
static size_t device_count;
enum {
    DEVICES_MAX = 10000,
    REASONS = 20,
    IN_FLIGHT = 4096,
    ALONE = 100000,
    BATCH = 1000,
    DAYS = 10
};

static double ms_since(int64_t start_ns)
{
    return (double)(mir_clock_mono_ns() - start_ns) / 1e6;
}

/* ── Requests of one event each, as they come from many connections ──────────────────────────── */

typedef struct single {
    mir_state_request request;
    mir_event_item item;
    mir_arena arena;
    struct stream *stream;
} single;

typedef struct stream {
    sem_t free;
    single *singles;
    size_t *stack; /* of those that are free */
    atomic_size_t top;
    atomic_uint failed;
} stream;

static void make_numbered(mir_arena *arena, size_t n, mir_event_item *item)
{
    char name[32], route[64], payload[96], reason[32];
    (void)snprintf(name, sizeof name, "device-%05zu", n * 7919 % device_count);
    (void)snprintf(route, sizeof route, "event.%s.cmd.v1alpha.devicecommand", name);
    (void)snprintf(reason, sizeof reason, "Reason%zu", n / 3 % REASONS);
    int size = snprintf(payload, sizeof payload,
                        "{\"device_id\":\"%s\",\"payload\":\"CAESBHRlc3Q=\",\"status\":3}", name);
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    MirApi__V1__Object related = MIR_API__V1__OBJECT__INIT;
    MirApi__V1__EventSpec spec = MIR_API__V1__EVENT_SPEC__INIT;
    mir_view chain = MIR_VIEW_LITERAL("client-1");
    mir_event_cause cause = {
        .actor = MIR_VIEW_LITERAL("alice"),
        .address = MIR_VIEW_LITERAL("127.0.0.1:51812"),
        .request_id = MIR_VIEW_LITERAL("0123456789abcdef"),
        .chain = &chain,
        .chain_count = 1,
        .instance = MIR_VIEW_LITERAL("mir-1"),
    };
    meta.name = name;
    meta.namespace_ = text("plant");
    related.api_version = text("mir/v1alpha");
    related.kind = text("device");
    related.meta = &meta;
    spec.type = text("normal");
    spec.reason = reason;
    spec.message = text("Device command executed successfully");
    spec.has_json_payload = 1;
    spec.json_payload = (ProtobufCBinaryData){(size_t)size, (uint8_t *)payload};
    spec.related_object = &related;
    mir_event_input input = {.route = mir_view_cstr(route), .spec = &spec, .cause = &cause};
    mir_error error;
    if (mir_event_make(&input, arena, item, &error) != MIR_OK) fail_msg("%s", error.text);
}

static void give_back(mir_state_request *request, void *ctx)
{
    single *s = ctx;
    if (request->status != MIR_OK) atomic_fetch_add(&s->stream->failed, 1);
    size_t at = atomic_fetch_add(&s->stream->top, 1);
    /* One producer and one consumer: what is behind `taken` is not looked at before the post. */
    s->stream->stack[at % IN_FLIGHT] = (size_t)(s - s->stream->singles);
    (void)sem_post(&s->stream->free);
}

static void one_by_one(fixture *f)
{
    size_t count = event_count < ALONE ? event_count : ALONE;
    stream st = {0};
    st.singles = calloc(IN_FLIGHT, sizeof *st.singles);
    st.stack = calloc(IN_FLIGHT, sizeof *st.stack);
    assert_non_null(st.singles);
    assert_non_null(st.stack);
    (void)sem_init(&st.free, 0, IN_FLIGHT);
    for (size_t i = 0; i < IN_FLIGHT; i++) st.stack[i] = i;
    atomic_store(&st.top, IN_FLIGHT);
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    int64_t start_ns = mir_clock_mono_ns();
    for (size_t n = 0; n < count; n++) {
        while (sem_wait(&st.free) != 0) continue;
        single *s = &st.singles[st.stack[n % IN_FLIGHT]];
        mir_arena_free(&s->arena);
        mir_arena_free(&s->request.arena);
        s->stream = &st;
        make_numbered(&s->arena, n, &s->item);
        s->request = (mir_state_request){.op = MIR_STATE_EVENTS, .done = give_back, .ctx = s};
        s->request.events.items = &s->item;
        s->request.events.count = 1;
        assert_int_equal(mir_state_submit(f->state, &s->request), MIR_OK);
    }
    for (size_t i = 0; i < IN_FLIGHT; i++)
        while (sem_wait(&st.free) != 0) continue;
    double ms = ms_since(start_ns);
    mir_state_stats_get(f->state, &after);
    assert_int_equal(atomic_load(&st.failed), 0);
    assert_int_equal(after.event_sequence - before.event_sequence, count);
    print_message("append %zu events, a request each, synced, made by the same thread: %.0f ms, "
                  "%.0f events/s, %.0f in a commit, longest commit %.1f ms\n",
                  count, ms, (double)count / ms * 1000,
                  (double)count / (double)(after.commits - before.commits),
                  (double)after.commit_max_ns / 1e6);
    for (size_t i = 0; i < IN_FLIGHT; i++) {
        mir_arena_free(&st.singles[i].arena);
        mir_arena_free(&st.singles[i].request.arena);
    }
    free(st.singles);
    free(st.stack);
}

/* ── The mass ────────────────────────────────────────────────────────────────────────────────── */

static void in_batches(fixture *f, size_t count)
{
    mir_event_item *items = calloc(BATCH, sizeof *items);
    assert_non_null(items);
    int64_t start_ns = mir_clock_mono_ns();
    for (size_t done = 0; done < count; done += BATCH) {
        mir_arena arena = {0};
        for (size_t i = 0; i < BATCH; i++) make_numbered(&arena, done + i, &items[i]);
        append(f, items, BATCH);
        mir_arena_free(&arena);
        mir_arena_free(&f->request.arena);
    }
    double ms = ms_since(start_ns);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    print_message("append %zu events, %d in a request, synced: %.0f ms, %.0f events/s, lag of the "
                  "index %llu, %.1f MiB used\n",
                  count, BATCH, ms, (double)count / ms * 1000,
                  (unsigned long long)stats.event_index_lag,
                  (double)stats.map_bytes_used / 1048576);
    free(items);
}

static void time_events(fixture *f, const char *what, const char *target, size_t expected)
{
    double best_ms = 1e9, first_ms = 0;
    for (int i = 0; i < 5; i++) {
        mir_arena arena = {0};
        mir_event_list list = {0};
        mir_error error = {""};
        MirApi__V1__EventTarget *parsed = event_target(f, target);
        int64_t start_ns = mir_clock_mono_ns();
        mir_status status = mir_event_list_get(f->state, parsed, NULL, &arena, &list, &error);
        double ms = ms_since(start_ns);
        if (status != MIR_OK) fail_msg("%s: %s", what, error.text);
        if (list.count != expected) fail_msg("%s: %zu events", what, list.count);
        if (i == 0) first_ms = ms;
        if (ms < best_ms) best_ms = ms;
        mir_arena_free(&arena);
    }
    print_message("list %-46s %6zu events: %8.2f ms, the first time %8.2f ms\n", what, expected,
                  best_ms, first_ms);
}

static void time_newest(fixture *f, size_t count)
{
    mir_arena arena = {0};
    mir_error error;
    mir_event_brief *lists = NULL;
    MirStore__V1__DeviceRecord *all = mir_arena_alloc(&arena, count * sizeof *all);
    MirStore__V1__DeviceRecord **records = mir_arena_alloc(&arena, count * sizeof *records);
    for (size_t i = 0; i < count; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "device-%05zu", i);
        mir_store__v1__device_record__init(&all[i]);
        all[i].name = mir_arena_strdup(&arena, mir_view_cstr(name));
        all[i].namespace_ = text("plant");
        records[i] = &all[i];
    }
    int64_t start_ns = mir_clock_mono_ns();
    assert_int_equal(mir_event_newest(f->state, records, count, 5, &arena, &lists, &error), MIR_OK);
    double ms = ms_since(start_ns);
    for (size_t i = 0; i < count; i++) assert_int_equal(lists[i].count, 5);
    print_message("the newest 5 of each of %zu devices: %.2f ms\n", count, ms);
    mir_arena_free(&arena);
}

static void many_events(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, UINT64_C(64) << 30);
    device_count = event_count / 40 < DEVICES_MAX ? event_count / 40 : DEVICES_MAX;
    one_by_one(f);
    size_t left = event_count - newest_sequence(f);
    left -= left % BATCH;
    in_batches(f, left);
    int64_t start_ns = mir_clock_mono_ns();
    index_them(f);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    print_message("the index caught up %.0f ms later, %.1f MiB used, longest commit %.1f ms\n",
                  ms_since(start_ns), (double)stats.map_bytes_used / 1048576,
                  (double)stats.commit_max_ns / 1e6);
    size_t per_device = event_count / device_count,
           hundred = per_device < 100 ? per_device / 2 : 100;
    char target[256];
    (void)snprintf(target, sizeof target,
                   "{\"names\":[\"device-00234-*\"],\"namespaces\":[\"plant\"],\"limit\":%zu}",
                   hundred);
    time_events(f, "of one device, by a pattern of its name", target, hundred);
    (void)snprintf(target, sizeof target, "{\"device_ids\":[\"device-00321\"],\"limit\":%zu}",
                   hundred);
    time_events(f, "of one device, by its id", target, hundred);
    time_events(f, "of a device that there is not", "{\"device_ids\":[\"none\"]}", 0);
    time_events(f, "of all", "{\"limit\":100}", 100);
    /* A tenth of the time that it took to write them stands for a day. */
    int64_t first_ns = mir_timestamp_ns(event_at(f, 1)->status->first_at);
    int64_t last_ns = mir_timestamp_ns(event_at(f, newest_sequence(f))->status->first_at);
    int64_t day_ns = (last_ns - first_ns) / DAYS;
    (void)snprintf(target, sizeof target,
                   "{\"reasons\":[\"Reason7\"],\"from\":%lld,\"to\":%lld,\"limit\":100}",
                   (long long)(first_ns + 4 * day_ns), (long long)(first_ns + 5 * day_ns));
    time_events(f, "by reason and a tenth of the time", target, 100);
    time_newest(f, 100);
    time_newest(f, device_count);
    mir_arena arena = {0};
    MirApi__V1__EventsProof *proof = NULL;
    mir_error error;
    start_ns = mir_clock_mono_ns();
    assert_int_equal(
        mir_event_verify(f->state, (mir_view){NULL, 0}, NULL, NULL, &arena, &proof, &error),
        MIR_OK);
    assert_true(proof->intact);
    print_message("verify %llu links: %.0f ms\n", (unsigned long long)proof->links,
                  ms_since(start_ns));
    mir_arena_free(&arena);
    mir_state_close(f->state);
    start_ns = mir_clock_mono_ns();
    fixture_open(f, MIR_STATE_SYNC_COMMIT, UINT64_C(64) << 30);
    print_message("open: %.2f ms\n", ms_since(start_ns));
    fixture_free(f);
}

int main(int argc, char **argv)
{
    if (argc > 1) {
        char *end = NULL;
        unsigned long long count = strtoull(argv[1], &end, 10);
        if (*end != '\0' || count < 40000 || count > 1000000000) {
            print_error("how many events: 40000 to 1000000000\n");
            return 2;
        }
        event_count = (size_t)count;
    }
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_events)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
