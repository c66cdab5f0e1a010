/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_props.h"

#include "mir_clock.h"
#include "mir_state_testing.h"

static int set_up(void **state)
{
    *state = fixture_new(MIR_STATE_SYNC_OFF, 0);
    return 0;
}

static int tear_down(void **state)
{
    fixture_free(*state);
    return 0;
}

static mir_state_property property(mir_state_property_kind kind, const char *id, const char *name,
                                   const char *object, int64_t at_ns)
{
    return (mir_state_property){.kind = kind,
                                .device_id = mir_view_cstr(id),
                                .name = name,
                                .object = mir_view_cstr(object),
                                .at_ns = at_ns};
}

static void put_all(fixture *f, mir_state_property *list, size_t count)
{
    f->request.op = MIR_STATE_PROPERTIES;
    f->request.properties.list = list;
    f->request.properties.count = count;
    if (run(f) != MIR_OK) fail_msg("%s", f->request.error);
}

static mir_state_property put_one(fixture *f, mir_state_property_kind kind, const char *id,
                                  const char *name, const char *object, int64_t at_ns)
{
    mir_state_property one = property(kind, id, name, object, at_ns);
    put_all(f, &one, 1);
    return one;
}

static void expect_view(mir_view text, const char *expected)
{
    char copy[4096];
    assert_true(text.size < sizeof copy);
    if (text.size != 0) memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    assert_string_equal(copy, expected);
}

static void expect_desired(fixture *f, const char *id, const char *expected)
{
    const MirStore__V1__DeviceRecord *record = get(f, id);
    expect_view(mir_view_of(record->desired_json.data, record->desired_json.len), expected);
}

static int64_t differs_since(fixture *f, const char *id, const char *name)
{
    const MirStore__V1__DeviceRecord *record = get(f, id);
    for (size_t i = 0; i < record->n_differs_since; i++)
        if (strcmp(record->differs_since[i]->key, name) == 0)
            return mir_state_time_ns(record->differs_since[i]->value);
    return 0;
}

static void parts_are_merged(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    uint64_t version = get(f, "p1")->version;
    mir_state_property one =
        put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":1,\"z\":{\"u\":1}}", 1000);
    assert_int_equal(one.status, MIR_OK);
    assert_int_equal(one.version, version + 1);
    assert_int_equal(f->request.change_count, 1);
    assert_int_equal(f->request.changes[0].kind, MIR_STATE_DESIRED);
    one = put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"y\":false,\"z\":{\"v\":2}}", 2000);
    expect_view(one.merged, "{\"x\":1,\"y\":false,\"z\":{\"u\":1,\"v\":2}}");
    assert_int_equal(one.merged_ns, 2000);
    assert_int_equal(one.version, version + 2);
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.C", "{\"q\":[1,2]}", 3000);
    expect_desired(f, "p1",
                   "{\"a.B\":{\"x\":1,\"y\":false,\"z\":{\"u\":1,\"v\":2}},\"a.C\":{\"q\":[1,2]}}");
    one = put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"z\":null}", 4000);
    expect_view(one.merged, "{\"x\":1,\"y\":false}");
    one = put_one(f, MIR_STATE_PROPERTY_REPLACE, "p1", "a.B", "{\"w\":0}", 5000);
    expect_view(one.merged, "{\"w\":0}");
    assert_int_equal(mir_state_property_time_ns(get(f, "p1"), false, "a.B"), 5000);
    assert_int_equal(mir_state_property_time_ns(get(f, "p1"), false, "a.C"), 3000);
    assert_int_equal(mir_state_property_time_ns(get(f, "p1"), true, "a.B"), 0);
    assert_int_equal(get(f, "p1")->version, one.version);
}

static void defaults_do_not_replace(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    uint64_t version = get(f, "p1")->version;
    mir_state_property list[2] = {
        property(MIR_STATE_PROPERTY_DEFAULT, "p1", "a.B", "{\"x\":0}", 10),
        property(MIR_STATE_PROPERTY_DEFAULT, "p1", "a.C", "{\"y\":0}", 10),
    };
    put_all(f, list, 2);
    assert_int_equal(f->request.change_count, 0);
    assert_int_equal(list[0].version, version + 1);
    expect_desired(f, "p1", "{\"a.B\":{\"x\":0},\"a.C\":{\"y\":0}}");
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":5}", 20);
    mir_state_property one = put_one(f, MIR_STATE_PROPERTY_DEFAULT, "p1", "a.B", "{\"x\":0}", 30);
    expect_view(one.merged, "{\"x\":5}");
    assert_int_equal(one.merged_ns, 20);
    assert_int_equal(one.version, version + 2);
}

static void each_device_has_its_own_outcome(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    add(f, "p2", "press", "plant");
    uint64_t version = get(f, "p2")->version;
    mir_state_property list[3] = {
        property(MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":1}", 10),
        property(MIR_STATE_PROPERTY_SEND, "nobody", "a.B", "{\"x\":1}", 10),
        property(MIR_STATE_PROPERTY_SEND, "p2", "a.B", "{\"x\":1}", 10),
    };
    list[0].has_if_version = list[2].has_if_version = true;
    list[0].if_version = get(f, "p1")->version;
    list[2].if_version = version + 7;
    put_all(f, list, 3);
    assert_int_equal(list[0].status, MIR_OK);
    assert_int_equal(list[1].status, MIR_E_NOT_FOUND);
    assert_int_equal(list[2].status, MIR_E_EXISTS);
    char text[128];
    (void)snprintf(text, sizeof text, "device press/plant has version %d, not %d", (int)version,
                   (int)version + 7);
    assert_string_equal(list[2].error, text);
    assert_int_equal(f->request.change_count, 1);
    assert_int_equal(get(f, "p2")->has_desired_json, 0);
    assert_int_equal(get(f, "p2")->version, version);
}

static void what_is_too_much_is_refused(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    char *large = malloc(MIR_STATE_PROPERTIES_BYTES_MAX + 64);
    assert_non_null(large);
    memset(large, 'a', MIR_STATE_PROPERTIES_BYTES_MAX + 64);
    memcpy(large, "{\"x\":\"", 6);
    memcpy(large + MIR_STATE_PROPERTIES_BYTES_MAX, "\"}", 3);
    mir_state_property one = put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", large, 10);
    assert_int_equal(one.status, MIR_E_TOO_LARGE);
    free(large);
    for (int i = 0; i <= MIR_STATE_PROPERTY_NAMES_MAX; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "a.B%d", i);
        one = put_one(f, MIR_STATE_PROPERTY_REPORT, "p1", name, "{}", 10);
        assert_int_equal(one.status, i < MIR_STATE_PROPERTY_NAMES_MAX ? MIR_OK : MIR_E_TOO_LARGE);
    }
    one = put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "[1]", 10);
    assert_int_equal(one.status, MIR_E_INVALID);
    assert_int_equal(get(f, "p1")->has_desired_json, 0);
}

static void many_of_one_device_are_one_change(void **state)
{
    fixture *f = *state;
    enum { COUNT = MIR_STATE_PROPERTY_NAMES_MAX + 1 };
    add(f, "p1", "pump", "plant");
    uint64_t version = get(f, "p1")->version;
    mir_state_property *list = calloc(COUNT, sizeof *list);
    char(*names)[16] = calloc(COUNT, sizeof *names);
    for (int i = 0; i < COUNT; i++) {
        (void)snprintf(names[i], sizeof names[i], "a.B%d", i);
        list[i] = property(MIR_STATE_PROPERTY_DEFAULT, "p1", names[i], "{\"x\":0}", 10);
    }
    put_all(f, list, COUNT);
    assert_int_equal(list[COUNT - 2].status, MIR_OK);
    assert_int_equal(list[COUNT - 1].status, MIR_E_TOO_LARGE);
    const MirStore__V1__DeviceRecord *record = get(f, "p1");
    assert_int_equal(record->version, version + 1);
    assert_int_equal(record->n_desired_times, COUNT - 1);
    assert_int_equal(record->n_differs_since, COUNT - 1);
    /* A refused one leaves the others of its request as they are. */
    list[0] = property(MIR_STATE_PROPERTY_SEND, "p1", "a.B0", "{\"x\":1}", 20);
    list[1] = property(MIR_STATE_PROPERTY_SEND, "p1", "a.B1", "[]", 20);
    list[2] = property(MIR_STATE_PROPERTY_REPORT, "p1", "a.B0", "{\"x\":1}", 30);
    put_all(f, list, 3);
    assert_int_equal(list[1].status, MIR_E_INVALID);
    assert_int_equal(f->request.change_count, 2);
    assert_int_equal(differs_since(f, "p1", "a.B0"), 0);
    assert_int_equal(differs_since(f, "p1", "a.B1"), 10);
    free(names);
    free(list);
}

static void it_is_known_since_when_they_differ(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":1,\"n\":\"5\"}", 100);
    assert_int_equal(differs_since(f, "p1", "a.B"), 100);
    mir_state_property one =
        put_one(f, MIR_STATE_PROPERTY_REPORT, "p1", "a.B", "{\"n\":\"5\",\"t\":9,\"x\":1}", 200);
    assert_int_equal(one.status, MIR_OK);
    assert_int_equal(f->request.changes[0].kind, MIR_STATE_REPORTED);
    assert_int_equal(differs_since(f, "p1", "a.B"), 0);
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":2}", 300);
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":3}", 400);
    assert_int_equal(differs_since(f, "p1", "a.B"), 300);
    (void)put_one(f, MIR_STATE_PROPERTY_REPORT, "p1", "a.B", "{\"x\":2}", 500);
    assert_int_equal(differs_since(f, "p1", "a.B"), 300);
    (void)put_one(f, MIR_STATE_PROPERTY_REPORT, "p1", "a.B", "{\"x\":3}", 600);
    assert_int_equal(differs_since(f, "p1", "a.B"), 0);
    /* Nothing is wanted of what is only reported. */
    (void)put_one(f, MIR_STATE_PROPERTY_REPORT, "p1", "a.C", "{\"x\":3}", 700);
    assert_int_equal(differs_since(f, "p1", "a.C"), 0);
    assert_int_equal(mir_state_property_time_ns(get(f, "p1"), true, "a.B"), 600);
}

static size_t report_by(fixture *f, const char *object, int64_t at_ns, int64_t goes_by_ns)
{
    mir_state_property one = property(MIR_STATE_PROPERTY_REPORT, "p1", "a.B", object, at_ns);
    one.goes_by_ns = goes_by_ns;
    put_all(f, &one, 1);
    assert_int_equal(one.status, MIR_OK);
    expect_view(one.merged, object);
    return f->request.change_count;
}

static void a_report_by_an_older_property_is_out_of_sync(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":1}", 100);
    assert_int_equal(report_by(f, "{\"x\":1}", 150, 100), 1);
    (void)put_one(f, MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":2}", 200);
    assert_int_equal(report_by(f, "{\"x\":1}", 250, 100), 2);
    assert_int_equal(f->request.changes[1].kind, MIR_STATE_OUT_OF_SYNC);
    assert_int_equal(get(f, "p1")->n_stale_since, 1);
    /* It is told of once. */
    assert_int_equal(report_by(f, "{\"x\":1}", 260, 100), 1);
    /* Equal by accident. */
    assert_int_equal(report_by(f, "{\"x\":2}", 270, 100), 1);
    assert_int_equal(differs_since(f, "p1", "a.B"), 200);
    assert_int_equal(report_by(f, "{\"x\":2}", 280, 200), 1);
    assert_int_equal(get(f, "p1")->n_stale_since, 0);
    assert_int_equal(differs_since(f, "p1", "a.B"), 0);
}

static void an_update_brings_properties(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    add(f, "p2", "press", "plant");
    mir_state_property list[2] = {
        property(MIR_STATE_PROPERTY_SEND, "p1", "a.B", "{\"x\":1}", 10),
        property(MIR_STATE_PROPERTY_SEND, "p1", "a.C", "{\"y\":1}", 10),
    };
    f->request.with = list;
    f->request.with_count = 2;
    uint64_t version = get(f, "p1")->version;
    assert_int_equal(update(f, "{\"namespaces\":[\"plant\"]}", "{\"labels\":{\"a\":\"b\"}}"),
                     MIR_OK);
    assert_int_equal(f->request.change_count, 4);
    assert_int_equal(f->request.changes[0].kind, MIR_STATE_DESIRED);
    assert_int_equal(f->request.changes[3].kind, MIR_STATE_UPDATED);
    assert_int_equal(get(f, "p1")->version, version + 1);
    expect_desired(f, "p1", "{\"a.B\":{\"x\":1},\"a.C\":{\"y\":1}}");
    assert_int_equal(get(f, "p2")->has_desired_json, 0);
    list[1].object = mir_view_cstr("7");
    assert_int_equal(update(f, "{\"ids\":[\"p1\"]}", "{\"labels\":{\"a\":\"c\"}}"), MIR_E_INVALID);
    assert_string_equal(label(get(f, "p1"), "a"), "b");
    f->request.with = NULL;
    f->request.with_count = 0;
}

static mir_status update_if(fixture *f, const char *target, const char *change, uint64_t version)
{
    MirApi__V1__UpdateDeviceRequest *made = update_of(&f->arena, target, change);
    made->has_if_version = 1;
    made->if_version = version;
    f->request.op = MIR_STATE_UPDATE;
    f->request.update = made;
    return run(f);
}

static void an_update_may_ask_for_a_version(void **state)
{
    fixture *f = *state;
    add(f, "p1", "pump", "plant");
    add(f, "p2", "press", "plant");
    const char *all = "{\"namespaces\":[\"plant\"]}", *change = "{\"labels\":{\"a\":\"b\"}}";
    assert_int_equal(update_if(f, all, change, 1), MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"p2\"]}", "{\"labels\":{\"a\":\"c\"}}"), MIR_OK);
    assert_int_equal(update_if(f, all, "{\"labels\":{\"a\":\"d\"}}", 2), MIR_E_EXISTS);
    assert_string_equal(f->request.error,
                        "error updating device: device press/plant has version 3, not 2");
    assert_string_equal(label(get(f, "p1"), "a"), "b");
    /* Version 0 is that of a device that is not there. */
    const char *fresh = "{\"id\":\"p3\",\"name\":\"oven\",\"namespace\":\"plant\"}";
    assert_int_equal(update_if(f, "{\"ids\":[\"p3\"]}", fresh, 4), MIR_E_EXISTS);
    assert_int_equal(update_if(f, "{\"ids\":[\"p3\"]}", fresh, 0), MIR_OK);
    assert_int_equal(update_if(f, "{\"ids\":[\"p3\"]}", fresh, 0), MIR_E_EXISTS);
}

static void heartbeats_are_no_changes(void **state)
{
    fixture *f = *state;
    mir_state_heartbeat beat = {.device_id = mir_view_cstr("p1"), .at_ns = 1000};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    uint64_t version = get(f, "p1")->version;
    beat.at_ns = 2000;
    assert_int_equal(heartbeats(f, &beat, 1, true), MIR_OK);
    beat.at_ns = 3000;
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    assert_int_equal(get(f, "p1")->version, version);
    assert_int_equal(mir_state_time_ns(get(f, "p1")->last_heartbeat), 3000);
    MirApi__V1__Device *device = NULL;
    mir_error error;
    assert_int_equal(mir_state_device_of(f->state, get(f, "p1"), &f->arena, &device, &error),
                     MIR_OK);
    assert_int_equal(device->status->version, version);
}

enum { MANY = 10000, SLICE = 2048 };

static void ten_thousand_are_stored(void **state)
{
    fixture *f = *state;
    char(*ids)[16] = calloc(MANY, sizeof *ids);
    mir_state_property *list = calloc(SLICE, sizeof *list);
    mir_bytes text = {0};
    mir_bytes_u8(&text, '[');
    for (int i = 0; i < MANY; i++) {
        (void)snprintf(ids[i], sizeof ids[i], "d%d", i);
        mir_bytes_printf(&text, "%s{\"spec\":{\"deviceId\":\"%s\"}}", i == 0 ? "" : ",", ids[i]);
    }
    mir_bytes_text(&text, "]");
    mir_bytes_u8(&text, 0);
    assert_int_equal(create_many(f, (const char *)text.data), MIR_OK);
    int64_t begun_ns = mir_clock_mono_ns();
    for (size_t start = 0; start < MANY; start += SLICE) {
        size_t count = MANY - start < SLICE ? MANY - start : SLICE;
        for (size_t i = 0; i < count; i++)
            list[i] =
                property(MIR_STATE_PROPERTY_SEND, ids[start + i], "pump.v1.Rate",
                         "{\"interval\":60,\"name\":\"a name of some length\",\"valve\":true}", 10);
        put_all(f, list, count);
        assert_int_equal(f->request.change_count, count);
    }
    print_message("%d devices: %lld ms\n", MANY,
                  (long long)((mir_clock_mono_ns() - begun_ns) / MIR_NS_PER_MS));
    assert_true(get(f, "d9999")->has_desired_json);
    mir_bytes_free(&text);
    free(list);
    free(ids);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(parts_are_merged, set_up, tear_down),
        cmocka_unit_test_setup_teardown(defaults_do_not_replace, set_up, tear_down),
        cmocka_unit_test_setup_teardown(each_device_has_its_own_outcome, set_up, tear_down),
        cmocka_unit_test_setup_teardown(what_is_too_much_is_refused, set_up, tear_down),
        cmocka_unit_test_setup_teardown(many_of_one_device_are_one_change, set_up, tear_down),
        cmocka_unit_test_setup_teardown(it_is_known_since_when_they_differ, set_up, tear_down),
        cmocka_unit_test_setup_teardown(a_report_by_an_older_property_is_out_of_sync, set_up,
                                        tear_down),
        cmocka_unit_test_setup_teardown(an_update_brings_properties, set_up, tear_down),
        cmocka_unit_test_setup_teardown(an_update_may_ask_for_a_version, set_up, tear_down),
        cmocka_unit_test_setup_teardown(heartbeats_are_no_changes, set_up, tear_down),
        cmocka_unit_test_setup_teardown(ten_thousand_are_stored, set_up, tear_down),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
