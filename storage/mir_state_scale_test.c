/* SPDX-License-Identifier: Apache-2.0 */
/* A store with many devices: that it answers right, and how long it took (printed, not judged). */
#include "mir_state_testing.h"

#include "mir_clock.h"

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
enum { DEVICES = 10000 };
#else
enum { DEVICES = 100000 };
#endif
enum { BATCH = 1000, ALONE = 200 };

static double ms_since(int64_t start_ns)
{
    return (double)(mir_clock_mono_ns() - start_ns) / 1e6;
}

/* One batch of create-many, built without JSON: the store is what is measured. */
static void create_batch(fixture *f, int first)
{
    mir_arena arena = {0};
    MirApi__V1__CreateDevicesRequest many = MIR_API__V1__CREATE_DEVICES_REQUEST__INIT;
    many.devices = mir_arena_alloc(&arena, BATCH * sizeof *many.devices);
    for (int i = 0; i < BATCH; i++) {
        int n = first + i;
        char text[64];
        MirApi__V1__NewDevice *device = mir_arena_alloc(&arena, sizeof *device);
        MirApi__V1__Meta *meta = mir_arena_alloc(&arena, sizeof *meta);
        MirApi__V1__DeviceSpec *spec = mir_arena_alloc(&arena, sizeof *spec);
        MirApi__V1__Meta__LabelsEntry *labels = mir_arena_alloc(&arena, 2 * sizeof *labels);
        mir_api__v1__new_device__init(device);
        mir_api__v1__meta__init(meta);
        mir_api__v1__device_spec__init(spec);
        meta->labels = mir_arena_alloc(&arena, 2 * sizeof *meta->labels);
        for (int k = 0; k < 2; k++) {
            mir_api__v1__meta__labels_entry__init(&labels[k]);
            meta->labels[meta->n_labels++] = &labels[k];
            labels[k].key = mir_arena_strdup(&arena, mir_view_cstr(k == 0 ? "group" : "type"));
            (void)snprintf(text, sizeof text, "%d", k == 0 ? n % (DEVICES / 1000) : n % 7);
            labels[k].value = mir_arena_strdup(&arena, mir_view_cstr(text));
        }
        (void)snprintf(text, sizeof text, "device-%06d", n);
        spec->device_id = mir_arena_strdup(&arena, mir_view_cstr(text));
        (void)snprintf(text, sizeof text, "site-%d", n % 13);
        meta->namespace_ = mir_arena_strdup(&arena, mir_view_cstr(text));
        device->meta = meta;
        device->spec = spec;
        many.devices[many.n_devices++] = device;
    }
    f->request.op = MIR_STATE_CREATE_MANY;
    f->request.create_many = &many;
    assert_int_equal(run(f), MIR_OK);
    assert_int_equal(f->request.change_count, BATCH);
    mir_arena_free(&arena);
}

static void time_list(fixture *f, const char *what, const char *target, size_t expected)
{
    MirApi__V1__DeviceTarget *parsed = target_of(&f->arena, target);
    double best_ms = 1e9, shown_ms = 1e9;
    for (int i = 0; i < 5; i++) {
        mir_arena arena = {0};
        mir_error error = {""};
        MirStore__V1__DeviceRecord **records = NULL;
        MirApi__V1__Device **devices = NULL;
        size_t count = 0;
        int64_t start_ns = mir_clock_mono_ns();
        assert_int_equal(mir_state_list(f->state, parsed, &arena, &records, &count, &error), 0);
        double ms = ms_since(start_ns);
        assert_int_equal(count, expected);
        assert_int_equal(mir_state_devices_of(f->state, records, count, &arena, &devices, &error),
                         MIR_OK);
        double all_ms = ms_since(start_ns);
        if (ms < best_ms) best_ms = ms;
        if (all_ms < shown_ms) shown_ms = all_ms;
        mir_arena_free(&arena);
    }
    print_message("list %-34s %6zu devices: %8.2f ms, as the API shows them %8.2f ms\n", what,
                  expected, best_ms, shown_ms);
}

static void many_devices(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, UINT64_C(4) << 30);
    int64_t start_ns = mir_clock_mono_ns();
    for (int first = 0; first < DEVICES; first += BATCH) create_batch(f, first);
    double ms = ms_since(start_ns);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.devices, DEVICES);
    print_message("create %d devices, %d each, synced: %.0f ms, %.0f devices/s, %.1f MiB used, "
                  "longest commit %.1f ms\n",
                  DEVICES, BATCH, ms, DEVICES / ms * 1000, (double)stats.map_bytes_used / 1048576,
                  (double)stats.commit_max_ns / 1e6);
    time_list(f, "by one label", "{\"labels\":{\"group\":\"3\"}}", 1000);
    time_list(f, "by a pattern of a label", "{\"labels\":{\"group\":\"*3\",\"type\":\"*\"}}",
              DEVICES / 10);
    time_list(f, "by an empty label", "{\"labels\":{\"type\":\"\"}}", 0);
    time_list(f, "by a pattern of an id", "{\"ids\":[\"*-00012*\"]}", 10);
    time_list(f, "by one id", "{\"ids\":[\"device-000123\"]}", 1);
    time_list(f, "of all", "{}", DEVICES);
    mir_state_close(f->state);
    start_ns = mir_clock_mono_ns();
    fixture_open(f, MIR_STATE_SYNC_COMMIT, UINT64_C(4) << 30);
    print_message("open with %d devices: %.2f ms\n", DEVICES, ms_since(start_ns));
    start_ns = mir_clock_mono_ns();
    for (int i = 0; i < ALONE; i++) {
        char id[32];
        (void)snprintf(id, sizeof id, "alone-%d", i);
        add(f, id, id, "default");
    }
    print_message("create %d devices one after the other: %.2f ms each\n", ALONE,
                  ms_since(start_ns) / ALONE);
    assert_int_equal(delete_them(f, "{\"ids\":[\"alone-*\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, ALONE);
    mir_state_heartbeat *beats = calloc(BATCH, sizeof *beats);
    assert_non_null(beats);
    char ids[BATCH][16];
    for (int i = 0; i < BATCH; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "device-%06d", i * (DEVICES / BATCH));
        beats[i] = (mir_state_heartbeat){.device_id = mir_view_cstr(ids[i]), .at_ns = 1};
    }
    start_ns = mir_clock_mono_ns();
    assert_int_equal(heartbeats(f, beats, BATCH, false), MIR_OK);
    print_message("turn %d devices online in one request: %.2f ms\n", BATCH, ms_since(start_ns));
    free(beats);
    start_ns = mir_clock_mono_ns();
    assert_int_equal(update(f, "{\"labels\":{\"group\":\"3\"}}", "{\"labels\":{\"new\":\"x\"}}"),
                     0);
    assert_int_equal(f->request.change_count, 1000);
    print_message("update 1000 devices in one request: %.2f ms\n", ms_since(start_ns));
    start_ns = mir_clock_mono_ns();
    assert_int_equal(delete_them(f, "{\"ids\":[\"*\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, DEVICES);
    print_message("delete %d devices in one request: %.0f ms\n", DEVICES, ms_since(start_ns));
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(many_devices)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
