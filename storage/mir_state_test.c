/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_state_testing.h"

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_zstd.h"

static int setup(void **state)
{
    *state = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    return 0;
}

static int teardown(void **state)
{
    fixture_free(*state);
    return 0;
}

static void assert_refused(fixture *f, mir_status status, const char *text)
{
    if (status == MIR_OK) fail_msg("was not refused: %s", text);
    assert_string_equal(f->request.error, text);
    assert_int_equal(f->request.change_count, 0);
}

static void assert_kinds(const fixture *f, const char *kinds)
{
    char text[64] = "";
    for (size_t i = 0; i < f->request.change_count && i < sizeof text - 1; i++)
        text[i] = "?CUDNF"[f->request.changes[i].kind];
    assert_string_equal(text, kinds);
}

/* ── Create ──────────────────────────────────────────────────────────────────────────────────── */

static void create_stores_a_device_with_defaults(void **state)
{
    fixture *f = *state;
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"d1\"}}"), MIR_OK);
    assert_kinds(f, "C");
    assert_null(f->request.changes[0].before);
    MirStore__V1__DeviceRecord *record = get(f, "d1");
    assert_string_equal(record->name, "d1");
    assert_string_equal(record->namespace_, "default");
    assert_true(record->has_disabled);
    assert_false(record->disabled);
    assert_false(record->has_online);
    assert_null(record->last_heartbeat);
    assert_int_equal(record->version, 1);
    assert_int_equal(record->number, f->request.changes[0].number);
}

static void create_keeps_what_is_given(void **state)
{
    fixture *f = *state;
    assert_int_equal(create(f, "{\"meta\":{\"name\":\"Pump 7\",\"namespace\":\"plant\","
                               "\"labels\":{\"a-b.c/d e\":\"x=1\",\"empty\":\"\"},"
                               "\"annotations\":{\"note\":\"two\\nlines\"}},"
                               "\"spec\":{\"deviceId\":\"p-7\",\"disabled\":true}}"),
                     MIR_OK);
    MirStore__V1__DeviceRecord *record = get(f, "p-7");
    assert_string_equal(record->name, "Pump 7");
    assert_string_equal(record->namespace_, "plant");
    assert_string_equal(label(record, "a-b.c/d e"), "x=1");
    assert_string_equal(label(record, "empty"), "");
    assert_string_equal(record->annotations[0]->value, "two\nlines");
    assert_true(record->disabled);
}

static void create_without_id_is_refused(void **state)
{
    fixture *f = *state;
    assert_refused(f, create(f, NULL), "device id is missing");
    assert_refused(f, create(f, "{\"meta\":{\"name\":\"n\"}}"), "device id is missing");
    assert_string_equal(list(f, NULL), "");
}

static void create_of_what_exists_is_refused(void **state)
{
    fixture *f = *state;
    add(f, "d1", "n", "ns");
    assert_refused(f, create(f, "{\"spec\":{\"deviceId\":\"d1\"}}"),
                   "device d1/default with deviceId d1 already exist");
    assert_refused(f,
                   create(f, "{\"meta\":{\"name\":\"n\",\"namespace\":\"ns\"},"
                             "\"spec\":{\"deviceId\":\"d2\"}}"),
                   "device n/ns with deviceId d2 already exist");
    add(f, "d3", "n", "other"); /* the same name in two namespaces */
    add(f, "D1", "N", "ns");    /* case counts */
    assert_string_equal(list(f, NULL), "D1,d1,d3");
}

static void create_validates(void **state)
{
    fixture *f = *state;
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"a.b\"}}"), MIR_E_INVALID);
    assert_non_null(strstr(f->request.error, "device id 'a.b' contains"));
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"event\"}}"), MIR_E_INVALID);
    assert_int_equal(create(f, "{\"meta\":{\"name\":\"a/b\"},\"spec\":{\"deviceId\":\"d\"}}"),
                     MIR_E_INVALID);
    assert_non_null(strstr(f->request.error, "contains '/'"));
    assert_int_equal(create(f, "{\"meta\":{\"namespace\":\"a*\"},\"spec\":{\"deviceId\":\"d\"}}"),
                     MIR_E_INVALID);
    assert_int_equal(
        create(f, "{\"meta\":{\"labels\":{\"\":\"x\"}},\"spec\":{\"deviceId\":\"d\"}}"),
        MIR_E_INVALID);
    assert_string_equal(list(f, NULL), "");
    /* An id may hold a '/', a name may not. */
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"a/b\"}}"), MIR_OK);
    assert_string_equal(get(f, "a/b")->name, "a-b");
}

static void create_many_skips_what_exists(void **state)
{
    fixture *f = *state;
    add(f, "d1", "n1", "ns");
    assert_int_equal(create_many(f, "[{\"spec\":{\"deviceId\":\"d1\"}},"
                                    "{\"spec\":{\"deviceId\":\"d2\"}},"
                                    "{\"meta\":{\"name\":\"n1\",\"namespace\":\"ns\"},"
                                    "\"spec\":{\"deviceId\":\"d3\"}}]"),
                     MIR_OK);
    assert_kinds(f, "C");
    assert_string_equal(f->request.changes[0].after->device_id, "d2");
    assert_string_equal(list(f, NULL), "d2,d1");
    assert_int_equal(create_many(f, "[]"), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
}

static void create_many_lists_every_problem(void **state)
{
    fixture *f = *state;
    mir_status status =
        create_many(f, "[{\"spec\":{\"deviceId\":\"a\"}},{\"meta\":{\"name\":\"x\"}},"
                       "{\"spec\":{\"deviceId\":\"a\"}},{\"meta\":{\"name\":\"y\"}},"
                       "{\"meta\":{\"name\":\"a\"},\"spec\":{\"deviceId\":\"b\"}}]");
    assert_refused(f, status,
                   "error creating devices: device at index 1 is missing its id\n"
                   "device with id a is duplicated\n"
                   "device at index 1 is missing its id\n"
                   "device with name/namespace a/default is duplicated");
    assert_string_equal(list(f, NULL), "");
}

/* ── Targets ─────────────────────────────────────────────────────────────────────────────────── */

static void fill(fixture *f)
{
    assert_int_equal(
        create_many(
            f,
            "[{\"meta\":{\"name\":\"pump-1\",\"namespace\":\"north\",\"labels\":{\"type\":\"pump\","
            "\"floor\":\"1\"}},\"spec\":{\"deviceId\":\"p1\"}},"
            "{\"meta\":{\"name\":\"pump-2\",\"namespace\":\"north\",\"labels\":{\"type\":\"pump\","
            "\"floor\":\"2\"}},\"spec\":{\"deviceId\":\"p2\"}},"
            "{\"meta\":{\"name\":\"pump-1\",\"namespace\":\"south\",\"labels\":{\"type\":\"pump\"}}"
            ","
            "\"spec\":{\"deviceId\":\"p3\"}},"
            "{\"meta\":{\"name\":\"fan-1\",\"namespace\":\"south\",\"labels\":{\"type\":\"fan\","
            "\"floor\":\"\",\"a.b/c d\":\"p*q\"}},\"spec\":{\"deviceId\":\"f1\"}}]"),
        MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"p1\",\"f1\"]}", "{\"packages\":[\"acme.v1\",\"x\"]}"),
                     MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"p2\"]}", "{\"packages\":[\"acme.v1\"]}"), MIR_OK);
}

static void targets_match(void **state)
{
    fixture *f = *state;
    fill(f);
    static const struct {
        const char *target, *ids;
    } rows[] = {
        {"{}", "p1,p2,f1,p3"}, /* by namespace, then name */
        {"{\"ids\":[\"p1\",\"f1\",\"none\"]}", "p1,f1"},
        {"{\"ids\":[\"P1\"]}", ""},
        {"{\"ids\":[\"p.\"]}", ""},
        {"{\"ids\":[\"\"]}", ""},
        {"{\"ids\":[\"p*\"]}", "p1,p2,p3"},
        {"{\"ids\":[\"*1\"]}", "p1,f1"},
        {"{\"ids\":[\"**\"]}", "p1,p2,f1,p3"},
        {"{\"ids\":[\"*\"]}", "p1,p2,f1,p3"},
        {"{\"ids\":[\"*\",\"nothing\"]}", "p1,p2,f1,p3"},
        {"{\"names\":[\"pump-1\"]}", "p1,p3"},
        {"{\"names\":[\"pump\"]}", ""},
        {"{\"names\":[\"pump*\"]}", "p1,p2,p3"},
        {"{\"names\":[\"*ump*\"]}", "p1,p2,p3"},
        {"{\"names\":[\"p*1\"]}", "p1,p3"},
        {"{\"names\":[\"*a*-1\"]}", "f1"},
        {"{\"names\":[\"*-1\",\"pump-2\"]}", "p1,p2,f1,p3"},
        {"{\"namespaces\":[\"north\"]}", "p1,p2"},
        {"{\"namespaces\":[\"*th\"]}", "p1,p2,f1,p3"},
        {"{\"namespaces\":[\"s*\",\"nor\"]}", "f1,p3"},
        {"{\"names\":[\"pump-1\",\"fan-1\"],\"namespaces\":[\"south\",\"north\"]}", "p1,f1,p3"},
        {"{\"labels\":{\"type\":\"pump\"}}", "p1,p2,p3"},
        {"{\"labels\":{\"type\":\"pump\",\"floor\":\"2\"}}", "p2"},
        {"{\"labels\":{\"type\":\"p*\"}}", "p1,p2,p3"},
        {"{\"labels\":{\"type\":\"*n\"}}", "f1"},
        {"{\"labels\":{\"floor\":\"\"}}", "f1,p3"},
        {"{\"labels\":{\"floor\":\"\",\"type\":\"fan\"}}", "f1"},
        {"{\"labels\":{\"floor\":\"*\"}}", "p1,p2,f1,p3"},
        {"{\"labels\":{\"none\":\"x\"}}", ""},
        {"{\"labels\":{\"none\":\"\"}}", "p1,p2,f1,p3"},
        {"{\"labels\":{\"a.b/c d\":\"p*q\"}}", "f1"},
        {"{\"labels\":{\"a.b/c d\":\"p**q\"}}", "f1"},
        {"{\"schemas\":[\"acme.v1\"]}", "p1,p2,f1"},
        {"{\"schemas\":[\"acme.v1\",\"x\"]}", "p1,f1"},
        {"{\"schemas\":[\"acme\"]}", ""},
        {"{\"schemas\":[\"acme*\"]}", ""},
        {"{\"ids\":[\"p1\",\"p2\"],\"labels\":{\"floor\":\"2\"},\"namespaces\":[\"n*\"]}", "p2"},
        {"{\"ids\":[\"p1\"],\"names\":[\"pump-2\"]}", ""},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        const char *ids = list(f, rows[i].target);
        if (strcmp(ids, rows[i].ids) != 0)
            fail_msg("%s: %s instead of %s", rows[i].target, ids, rows[i].ids);
    }
}

/* The same rows over more devices than are decided on records: the indexes alone must say so. */
static void targets_match_over_many_devices(void **state)
{
    fixture *f = *state;
    for (int batch = 0; batch < 4; batch++) {
        mir_bytes text = {0};
        for (int i = 0; i < 250; i++) {
            int n = batch * 250 + i;
            mir_bytes_printf(&text,
                             "%s{\"meta\":{\"name\":\"n%d\",\"namespace\":\"s%d\",\"labels\":"
                             "{\"mod\":\"%d\",\"even\":\"%s\"}},\"spec\":{\"deviceId\":\"d%04d\"}}",
                             i == 0 ? "[" : ",", n, n % 3, n % 7, n % 2 == 0 ? "yes" : "", n);
        }
        mir_bytes_text(&text, "]");
        mir_bytes_u8(&text, 0);
        assert_int_equal(create_many(f, (const char *)text.data), MIR_OK);
        mir_bytes_free(&text);
    }
    static const char *const targets[] = {
        "{\"labels\":{\"even\":\"\"},\"namespaces\":[\"s1\"],\"ids\":[\"*5\",\"d*7\"]}",
        "{\"labels\":{\"even\":\"y*\",\"mod\":\"3\"}}",
        "{\"labels\":{\"even\":\"\",\"mod\":\"\"}}",
        "{\"names\":[\"*1*\"],\"namespaces\":[\"s0\",\"s2\"],\"labels\":{\"even\":\"\"}}",
    };
    for (size_t t = 0; t < sizeof targets / sizeof targets[0]; t++) {
        const MirApi__V1__DeviceTarget *target = target_of(&f->arena, targets[t]);
        mir_error error;
        MirStore__V1__DeviceRecord **all = NULL, **some = NULL;
        size_t all_count = 0, some_count = 0, expected = 0;
        assert_int_equal(mir_state_list(f->state, NULL, &f->arena, &all, &all_count, &error), 0);
        assert_int_equal(all_count, 1000);
        assert_int_equal(mir_state_list(f->state, target, &f->arena, &some, &some_count, &error),
                         0);
        for (size_t i = 0; i < all_count; i++) {
            int n = (int)strtol(all[i]->device_id + 1, NULL, 10);
            char last = all[i]->device_id[4];
            bool matches = false;
            if (t == 0) matches = n % 2 == 1 && n % 3 == 1 && (last == '5' || last == '7');
            if (t == 1) matches = n % 2 == 0 && n % 7 == 3;
            if (t == 3) matches = n % 2 == 1 && n % 3 != 1 && strchr(all[i]->name, '1') != NULL;
            if (!matches) continue;
            assert_true(expected < some_count);
            assert_string_equal(some[expected]->device_id, all[i]->device_id);
            expected++;
        }
        assert_int_equal(expected, some_count);
        if (t != 2) assert_true(expected > 20);
    }
}

static void long_label_values_are_found(void **state)
{
    fixture *f = *state;
    char value[MIR_DEVICE_LABEL_VALUE_BYTES_MAX + 2], text[4096], wanted[2048];
    for (size_t size = 255; size <= 1024; size += 769 / 3) {
        memset(value, 'v', size);
        value[size] = '\0';
        value[0] = (char)('a' + size % 26);
        (void)snprintf(text, sizeof text,
                       "{\"meta\":{\"labels\":{\"k\":\"%s\"}},\"spec\":{\"deviceId\":\"l%zu\"}}",
                       value, size);
        assert_int_equal(create(f, text), MIR_OK);
        (void)snprintf(text, sizeof text, "l%zu", size);
        (void)snprintf(wanted, sizeof wanted, "{\"labels\":{\"k\":\"%s\"}}", value);
        assert_string_equal(list(f, wanted), text);
        (void)snprintf(wanted, sizeof wanted, "{\"labels\":{\"k\":\"%c*\"}}", value[0]);
        assert_string_equal(list(f, wanted), text);
    }
    assert_string_equal(list(f, "{\"labels\":{\"k\":\"\"}}"), "");
    memset(value, 'v', sizeof value);
    value[MIR_DEVICE_LABEL_VALUE_BYTES_MAX + 1] = '\0';
    (void)snprintf(text, sizeof text,
                   "{\"meta\":{\"labels\":{\"k\":\"%s\"}},\"spec\":{\"deviceId\":\"x\"}}", value);
    assert_int_equal(create(f, text), MIR_E_INVALID);
}

static void targets_are_bounded(void **state)
{
    fixture *f = *state;
    mir_bytes text = {0};
    for (int i = 0; i < 65; i++) mir_bytes_printf(&text, "%s\"a%d*\"", i == 0 ? "" : ",", i);
    mir_bytes_u8(&text, 0);
    char target[2048];
    (void)snprintf(target, sizeof target, "{\"ids\":[%s]}", (char *)text.data);
    mir_bytes_free(&text);
    assert_int_equal(delete_them(f, target), MIR_E_TOO_LARGE);
    assert_string_equal(f->request.error,
                        "error deleting device: the target has 65 patterns and empty label values: "
                        "use at most 64");
}

/* ── Update ──────────────────────────────────────────────────────────────────────────────────── */

static void update_merges_labels(void **state)
{
    fixture *f = *state;
    fill(f);
    assert_int_equal(
        update(f, "{\"ids\":[\"p1\"]}",
               "{\"labels\":{\"type\":null,\"floor\":\"9\",\"new\":\"n\",\"gone\":\"\"},"
               "\"annotations\":{\"a\":\"b\"}}"),
        MIR_OK);
    assert_kinds(f, "U");
    assert_string_equal(label(f->request.changes[0].before, "type"), "pump");
    assert_null(label(f->request.changes[0].after, "type"));
    MirStore__V1__DeviceRecord *record = get(f, "p1");
    assert_null(label(record, "type"));
    assert_null(label(record, "gone"));
    assert_string_equal(label(record, "floor"), "9");
    assert_string_equal(label(record, "new"), "n");
    assert_string_equal(record->annotations[0]->value, "b");
    assert_string_equal(list(f, "{\"labels\":{\"floor\":\"1\"}}"), "");
    assert_string_equal(list(f, "{\"labels\":{\"floor\":\"9\"}}"), "p1");
    assert_int_equal(update(f, "{\"ids\":[\"p1\"]}", "{\"labels\":{\"new\":\"\"}}"), MIR_OK);
    assert_null(label(get(f, "p1"), "new"));
}

static void update_by_every_kind_of_target(void **state)
{
    fixture *f = *state;
    fill(f);
    assert_int_equal(update(f, "{\"names\":[\"fan-1\"]}", "{\"labels\":{\"u\":\"1\"}}"), MIR_OK);
    assert_int_equal(update(f, "{\"namespaces\":[\"north\"]}", "{\"labels\":{\"u\":\"2\"}}"),
                     MIR_OK);
    assert_int_equal(
        update(f, "{\"labels\":{\"type\":\"pump\",\"floor\":\"1\"}}", "{\"labels\":{\"u\":\"3\"}}"),
        MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"p3\",\"f1\"],\"labels\":{\"type\":\"pump\"}}",
                            "{\"labels\":{\"u\":\"4\"}}"),
                     MIR_OK);
    assert_string_equal(label(get(f, "f1"), "u"), "1");
    assert_string_equal(label(get(f, "p2"), "u"), "2");
    assert_string_equal(label(get(f, "p1"), "u"), "3");
    assert_string_equal(label(get(f, "p3"), "u"), "4");
}

static void update_renames_moves_and_changes_ids(void **state)
{
    fixture *f = *state;
    fill(f);
    uint64_t number = get(f, "p1")->number;
    assert_int_equal(update(f, "{\"ids\":[\"p1\"]}",
                            "{\"id\":\"q1\",\"name\":\"renamed\",\"namespace\":\"west\","
                            "\"disabled\":true}"),
                     MIR_OK);
    assert_null(get(f, "p1"));
    MirStore__V1__DeviceRecord *record = get(f, "q1");
    assert_int_equal(record->number, number);
    assert_string_equal(record->name, "renamed");
    assert_string_equal(record->namespace_, "west");
    assert_true(record->disabled);
    assert_string_equal(list(f, "{\"namespaces\":[\"west\"]}"), "q1");
    assert_string_equal(list(f, "{\"namespaces\":[\"north\"]}"), "p2");
    add(f, "p1", "pump-1", "north"); /* everything that it had is free again */
    /* Empty strings are untouched. */
    assert_int_equal(
        update(f, "{\"ids\":[\"q1\"]}", "{\"id\":\"\",\"name\":\"\",\"namespace\":\"\"}"), MIR_OK);
    assert_string_equal(get(f, "q1")->name, "renamed");
}

static void update_without_target_is_refused(void **state)
{
    fixture *f = *state;
    const char *text = "error no target found: No device target provided";
    assert_refused(f, update(f, NULL, "{\"name\":\"x\"}"), text);
    assert_refused(f, update(f, "{}", "{\"name\":\"x\"}"), text);
    assert_refused(f, delete_them(f, NULL), text);
    assert_refused(f, delete_them(f, "{}"), text);
}

static void update_that_matches_nothing_is_ok(void **state)
{
    fixture *f = *state;
    assert_int_equal(update(f, "{\"ids\":[\"none\"]}", "{\"labels\":{\"a\":\"b\"}}"), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
    assert_int_equal(update(f, "{\"ids\":[\"none\"]}", "{\"id\":\"x\"}"), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
    assert_int_equal(delete_them(f, "{\"ids\":[\"none\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
}

static void update_that_changes_nothing_still_reports(void **state)
{
    fixture *f = *state;
    fill(f);
    uint64_t version = get(f, "p1")->version;
    assert_int_equal(update(f, "{\"ids\":[\"p1\"]}", "{\"labels\":{\"floor\":\"1\"}}"), MIR_OK);
    assert_kinds(f, "U");
    assert_int_equal(get(f, "p1")->version, version);
    assert_int_equal(update(f, "{\"ids\":[\"p1\"]}", "{\"labels\":{\"floor\":\"2\"}}"), MIR_OK);
    assert_int_equal(get(f, "p1")->version, version + 1);
}

static void update_with_desired_properties_is_refused(void **state)
{
    fixture *f = *state;
    fill(f);
    MirApi__V1__UpdateDeviceRequest *request =
        update_of(&f->arena, "{\"ids\":[\"p1\"]}", "{\"labels\":{\"u\":\"1\"}}");
    MirApi__V1__UpdateDeviceRequest__Properties props =
        MIR_API__V1__UPDATE_DEVICE_REQUEST__PROPERTIES__INIT;
    request->props = &props;
    assert_int_equal(mir_struct_parse(mir_view_cstr("{}"), &f->arena, &props.desired, NULL), 0);
    f->request.op = MIR_STATE_UPDATE;
    f->request.update = request;
    assert_int_equal(run(f), MIR_OK); /* an empty one changes nothing */
    assert_int_equal(mir_struct_parse(mir_view_cstr("{\"a\":{}}"), &f->arena, &props.desired, NULL),
                     0);
    assert_refused(f, run(f), "error updating device: desired properties that nobody has checked");
}

static void uniqueness(void **state)
{
    fixture *f = *state;
    add(f, "a1", "a", "s1");
    add(f, "b1", "b", "s1");
    add(f, "a2", "a", "s2");
    add(f, "c2", "c", "s2");
    static const struct {
        const char *target, *change, *text;
    } rows[] = {
        {"{\"ids\":[\"a1\",\"b1\"]}", "{\"id\":\"x\"}",
         "error updating device: cannot update multiple devices as deviceId must be unique"},
        {"{\"ids\":[\"a1\"]}", "{\"id\":\"b1\"}",
         "error updating device: cannot update device has deviceId 'b1' is already in use"},
        {"{\"ids\":[\"a1\"]}", "{\"id\":\"a1\"}", NULL},
        {"{\"ids\":[\"a1\",\"b1\"]}", "{\"name\":\"x\",\"namespace\":\"y\"}",
         "error updating device: cannot update multiple devices as name/namespace 'x/y' must be "
         "unique"},
        {"{\"ids\":[\"a1\",\"b1\"]}", "{\"name\":\"a\",\"namespace\":\"s1\"}",
         "error updating device: cannot update multiple devices as name/namespace 'a/s1' must be "
         "unique"},
        {"{\"ids\":[\"a1\"]}", "{\"name\":\"b\",\"namespace\":\"s1\"}",
         "error updating device: cannot update device has 'b/s1' is already in use"},
        {"{\"ids\":[\"a1\"]}", "{\"name\":\"a\",\"namespace\":\"s1\"}", NULL},
        {"{\"names\":[\"a\"]}", "{\"namespace\":\"s9\"}",
         "error updating device: cannot update device as multiple device will have the same name "
         "'a' in namespace 's9'"},
        {"{\"ids\":[\"a1\"]}", "{\"namespace\":\"s2\"}",
         "error updating device: cannot update device as name 'a' is already in use in namespace "
         "'s2'"},
        {"{\"ids\":[\"a1\"]}", "{\"namespace\":\"s1\"}", NULL},
        {"{\"ids\":[\"b1\",\"c2\"]}", "{\"namespace\":\"s1\"}", NULL},
        {"{\"ids\":[\"c2\"]}", "{\"namespace\":\"s2\"}", NULL},
        {"{\"ids\":[\"a1\",\"b1\"]}", "{\"name\":\"z\"}",
         "error updating device: cannot update device as multiple device will have the same name "
         "'z' in namespace 's1'"},
        {"{\"ids\":[\"a1\",\"b1\"]}", "{\"name\":\"a\"}",
         "error updating device: cannot update device as multiple device will have the same name "
         "'a' in namespace 's1'"},
        {"{\"ids\":[\"b1\"]}", "{\"name\":\"a\"}",
         "error updating device: cannot update device as name 'a' is already in use in namespace "
         "'s1'"},
        {"{\"ids\":[\"a1\"]}", "{\"name\":\"a\"}", NULL},
        {"{\"ids\":[\"b1\",\"a2\"]}", "{\"name\":\"z\"}", NULL},
    };
    for (size_t i = 0; i < sizeof rows / sizeof rows[0]; i++) {
        mir_status status = update(f, rows[i].target, rows[i].change);
        if (rows[i].text == NULL && status != MIR_OK)
            fail_msg("%s %s: %s", rows[i].target, rows[i].change, f->request.error);
        if (rows[i].text != NULL) assert_refused(f, status, rows[i].text);
    }
    assert_string_equal(get(f, "b1")->name, "z");
    assert_string_equal(get(f, "a2")->name, "z");
}

static void upsert_creates(void **state)
{
    fixture *f = *state;
    assert_int_equal(
        update(
            f, "{\"ids\":[\"u1\"],\"names\":[\"up\"],\"namespaces\":[\"ns\"]}",
            "{\"id\":\"u1\",\"name\":\"up\",\"namespace\":\"ns\",\"disabled\":true,"
            "\"labels\":{\"a\":\"b\",\"gone\":null,\"empty\":\"\"},\"annotations\":{\"x\":\"y\"}}"),
        MIR_OK);
    assert_kinds(f, "CU");
    MirStore__V1__DeviceRecord *record = get(f, "u1");
    assert_string_equal(record->name, "up");
    assert_string_equal(label(record, "a"), "b");
    assert_int_equal(record->n_labels, 1);
    assert_string_equal(record->annotations[0]->key, "x");
    assert_true(record->disabled);
    assert_refused(f,
                   update(f, "{\"names\":[\"none\"]}", "{\"name\":\"none\",\"namespace\":\"ns\"}"),
                   "error creating device: device id is missing");
    assert_refused(f,
                   update(f, "{\"names\":[\"none\"]}",
                          "{\"name\":\"none\",\"namespace\":\"ns\",\"id\":\"u1\"}"),
                   "error creating device: device none/ns with deviceId u1 already exist");
}

/* ── Delete ──────────────────────────────────────────────────────────────────────────────────── */

/* In parts: what has gone, and what does not match any more when its turn comes, is passed over. */
static void delete_can_be_cut(void **state)
{
    fixture *f = *state;
    char id[16];
    for (int i = 0; i < 10; i++) {
        (void)snprintf(id, sizeof id, "cut-%d", 9 - i);
        add(f, id, id, "default");
    }
    f->request.delete_max = 4;
    assert_int_equal(delete_them(f, "{\"ids\":[\"cut-*\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, 4);
    assert_string_equal(f->request.changes[0].before->device_id, "cut-6"); /* by name in a part */
    assert_int_equal(f->request.left_count, 6);
    uint64_t left[6];
    memcpy(left, f->request.left, sizeof left);
    assert_int_equal(delete_them(f, "{\"ids\":[\"cut-5\"]}"), MIR_OK);
    assert_int_equal(f->request.left_count, 0);
    assert_int_equal(update(f, "{\"ids\":[\"cut-3\"]}", "{\"id\":\"kept\"}"), MIR_OK);
    f->request.numbers = left;
    f->request.number_count = 6;
    assert_int_equal(delete_them(f, "{\"ids\":[\"cut-*\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, 4);
    assert_string_equal(f->request.changes[0].before->device_id, "cut-0");
    assert_string_equal(f->request.changes[3].before->device_id, "cut-4");
    assert_int_equal(f->request.left_count, 0);
    f->request.numbers = NULL;
    f->request.number_count = f->request.delete_max = 0;
    assert_int_equal(delete_them(f, "{\"ids\":[\"cut-*\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
    assert_int_equal(delete_them(f, "{\"ids\":[\"kept\"]}"), MIR_OK);
    assert_int_equal(f->request.change_count, 1);
}

static void delete_returns_what_was(void **state)
{
    fixture *f = *state;
    fill(f);
    assert_int_equal(delete_them(f, "{\"labels\":{\"type\":\"pump\"},\"namespaces\":[\"north\"]}"),
                     MIR_OK);
    assert_kinds(f, "DD");
    assert_string_equal(f->request.changes[0].before->device_id, "p1");
    assert_string_equal(f->request.changes[1].before->device_id, "p2");
    assert_null(f->request.changes[0].after);
    assert_string_equal(list(f, NULL), "f1,p3");
    assert_int_equal(delete_them(f, "{\"names\":[\"fan-1\"]}"), MIR_OK);
    assert_int_equal(delete_them(f, "{\"ids\":[\"*\"]}"), MIR_OK);
    assert_string_equal(list(f, NULL), "");
    uint64_t number = f->request.changes[0].number;
    add(f, "p1", "pump-1", "north");
    assert_true(get(f, "p1")->number > number); /* numbers are not used again */
}

/* ── Presence and schemas ────────────────────────────────────────────────────────────────────── */

static const char raw_schema[] = "not really descriptors, but the store does not look inside";

static void heartbeats_provision_and_turn_online(void **state)
{
    fixture *f = *state;
    add(f, "known", "name", "ns");
    add(f, "other", "taken", "default");
    static const char *const packages[] = {"acme.v1", "google.protobuf", "acme.v1"};
    mir_state_schema schema = {.raw = mir_view_cstr(raw_schema),
                               .package_names = packages,
                               .package_count = 3,
                               .fetched_ns = 5 * MIR_NS_PER_S};
    mir_state_heartbeat beats[] = {
        {.device_id = mir_view_cstr("known"), .at_ns = 3 * MIR_NS_PER_S},
        {.device_id = mir_view_cstr("new"), .at_ns = 5 * MIR_NS_PER_S, .schema = &schema},
        {.device_id = mir_view_cstr("a b"), .at_ns = 1},
        {.device_id = mir_view_cstr("taken"), .at_ns = 1},
        {.device_id = mir_view_cstr("new"), .at_ns = 6 * MIR_NS_PER_S},
        {.device_id = mir_view_cstr("new"), .at_ns = 4 * MIR_NS_PER_S},
    };
    assert_int_equal(heartbeats(f, beats, 6, false), MIR_OK);
    assert_kinds(f, "NCNU");
    assert_int_equal(beats[0].status, MIR_OK);
    assert_int_equal(beats[2].status, MIR_E_INVALID);
    assert_int_equal(beats[3].status, MIR_E_EXISTS);
    assert_int_equal(beats[1].schema_status, MIR_OK);
    assert_int_equal(beats[1].number, beats[4].number);
    MirStore__V1__DeviceRecord *record = get(f, "new");
    assert_string_equal(record->name, "new");
    assert_string_equal(record->namespace_, "default");
    assert_true(record->online);
    assert_int_equal(record->last_heartbeat->seconds, 6);
    assert_int_equal(record->last_schema_fetch->seconds, 5);
    assert_int_equal(record->n_package_names, 2);
    assert_string_equal(list(f, "{\"schemas\":[\"acme.v1\"]}"), "new");

    mir_view ids[] = {mir_view_cstr("new"), mir_view_cstr("unknown"), mir_view_cstr("other")};
    atomic_store(mir_state_heartbeat_cell(f->state, beats[1].number), 9 * MIR_NS_PER_S);
    f->request.op = MIR_STATE_OFFLINE;
    f->request.offline.device_ids = ids;
    f->request.offline.count = 3;
    assert_int_equal(run(f), MIR_OK);
    assert_kinds(f, "F");
    record = get(f, "new");
    assert_true(record->has_online);
    assert_false(record->online);
    assert_int_equal(record->last_heartbeat->seconds, 9); /* what lived in memory is kept */
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.devices, 3);
    assert_int_equal(stats.online, 1);
    assert_int_equal(stats.schemas, 1);
}

static void a_refresh_creates_nothing_and_reports_nothing(void **state)
{
    fixture *f = *state;
    add(f, "d", "d", "default");
    mir_state_heartbeat beats[] = {
        {.device_id = mir_view_cstr("d"), .at_ns = 3 * MIR_NS_PER_S},
        {.device_id = mir_view_cstr("unknown"), .at_ns = 3},
    };
    assert_int_equal(heartbeats(f, beats, 2, true), MIR_OK);
    assert_int_equal(f->request.change_count, 0);
    assert_int_equal(beats[1].status, MIR_E_NOT_FOUND);
    assert_int_equal(get(f, "d")->last_heartbeat->seconds, 3);
    assert_false(get(f, "d")->has_online);
    assert_null(get(f, "unknown"));
}

static void a_disabled_device_is_not_online(void **state)
{
    fixture *f = *state;
    add(f, "d", "d", "ns");
    mir_state_heartbeat beat = {.device_id = MIR_VIEW_LITERAL("d"), .at_ns = 3 * MIR_NS_PER_S};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    atomic_store(mir_state_heartbeat_cell(f->state, beat.number), 4 * MIR_NS_PER_S);
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"disabled\":true,\"online\":true}"), MIR_OK);
    assert_int_equal(f->request.change_count, 3);
    assert_int_equal(f->request.changes[0].kind, MIR_STATE_DISABLED);
    assert_int_equal(f->request.changes[1].kind, MIR_STATE_OFFLINE_NOW);
    assert_int_equal(f->request.changes[2].kind, MIR_STATE_UPDATED);
    MirStore__V1__DeviceRecord *record = get(f, "d");
    assert_false(record->online);
    assert_int_equal(record->last_heartbeat->seconds, 4);
    /* Nor does it become so. */
    beat.at_ns = 9 * MIR_NS_PER_S;
    for (int refresh = 0; refresh < 2; refresh++) {
        assert_int_equal(heartbeats(f, &beat, 1, refresh != 0), MIR_OK);
        assert_int_equal(beat.status, MIR_E_PERMISSION);
        assert_int_equal(f->request.change_count, 0);
    }
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"online\":true}"), MIR_OK);
    record = get(f, "d");
    assert_false(record->online);
    assert_int_equal(record->last_heartbeat->seconds, 4);
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"disabled\":false}"), MIR_OK);
    assert_int_equal(f->request.changes[0].kind, MIR_STATE_ENABLED);
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    assert_true(get(f, "d")->online);
}

static void a_bad_schema_makes_a_plain_heartbeat(void **state)
{
    fixture *f = *state;
    uint8_t hash[MIR_STATE_HASH_BYTES] = {1};
    mir_state_schema bad = {.compressed = mir_view_cstr("garbage")}, unknown = {.hash = hash};
    mir_state_heartbeat beats[] = {
        {.device_id = mir_view_cstr("x"), .at_ns = 1, .schema = &bad},
        {.device_id = mir_view_cstr("y"), .at_ns = 1, .schema = &unknown},
    };
    assert_int_equal(heartbeats(f, beats, 2, false), MIR_OK);
    assert_kinds(f, "CNCN");
    assert_int_equal(beats[0].schema_status, MIR_E_INVALID);
    assert_int_equal(beats[1].schema_status, MIR_E_NOT_FOUND);
    assert_false(get(f, "x")->has_schema_hash);
    assert_true(get(f, "y")->online);
}

static mir_status set_schema(fixture *f, const char *id, mir_state_schema schema)
{
    f->request.op = MIR_STATE_SET_SCHEMA;
    f->request.set_schema.device_id = mir_view_cstr(id);
    f->request.set_schema.schema = schema;
    return run(f);
}

static void schemas_are_stored_once_and_by_every_form(void **state)
{
    fixture *f = *state;
    add(f, "a", "a", "s");
    add(f, "b", "b", "s");
    add(f, "c", "c", "s");
    mir_bytes frame = {0};
    mir_view raw = mir_view_cstr(raw_schema);
    assert_int_equal(mir_zstd_compress(raw, &frame, NULL), MIR_OK);
    uint8_t hash[MIR_STATE_HASH_BYTES];
    mir_state_schema_hash(raw, hash);
    static const char *const packages[] = {"p.v1"};
    mir_state_schema by_hash = {.hash = hash, .package_names = packages, .package_count = 1};
    assert_refused(f, set_schema(f, "a", by_hash),
                   "error updating device: the schema is not known: send its bytes");
    assert_refused(f, set_schema(f, "unknown", by_hash), "no device found to update");
    assert_int_equal(set_schema(f, "a", (mir_state_schema){.raw = raw, .fetched_ns = 7}), MIR_OK);
    assert_kinds(f, "U");
    assert_int_equal(
        set_schema(f, "b", (mir_state_schema){.compressed = mir_bytes_as_view(&frame)}), MIR_OK);
    assert_int_equal(set_schema(f, "c", by_hash), MIR_OK);
    mir_bytes_free(&frame);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.schemas, 1);
    assert_memory_equal(get(f, "b")->schema_hash.data, hash, sizeof hash);
    assert_memory_equal(get(f, "c")->schema_hash.data, hash, sizeof hash);
    mir_bytes read = {0};
    mir_error error;
    assert_int_equal(
        mir_state_schema_get(f->state, mir_view_of(hash, sizeof hash), false, &read, &error), 0);
    assert_true(mir_view_eq(mir_bytes_as_view(&read), raw));
    mir_bytes_free(&read);
    hash[0] ^= 1;
    assert_int_equal(
        mir_state_schema_get(f->state, mir_view_of(hash, sizeof hash), false, &read, &error),
        MIR_E_NOT_FOUND);
    /* Bytes that are no Zstandard are refused as an upload. */
    assert_int_equal(set_schema(f, "a", (mir_state_schema){.compressed = mir_view_cstr("garbage")}),
                     MIR_E_INVALID);
    assert_non_null(get(f, "a")->last_schema_fetch);
}

static void a_schema_is_kept_until_it_is_unused_for_a_while(void **state)
{
    fixture *f = *state;
    add(f, "a", "a", "s");
    assert_int_equal(set_schema(f, "a", (mir_state_schema){.raw = mir_view_cstr(raw_schema)}), 0);
    assert_int_equal(delete_them(f, "{\"ids\":[\"a\"]}"), MIR_OK);
    /* The event about the deletion still carries it. */
    MirApi__V1__Device *device = NULL;
    mir_error error;
    assert_int_equal(
        mir_state_device_of(f->state, f->request.changes[0].before, &f->arena, &device, &error),
        MIR_OK);
    assert_true(device->status->schema->has_compressed_schema);
    MDB_txn *txn = NULL;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(mir_state_db_schema_sweep(&f->state->db, txn, 0, 16), MIR_OK);
    MDB_stat stat;
    assert_int_equal(mdb_stat(txn, f->state->db.schema, &stat), 0);
    assert_int_equal(stat.ms_entries, 1);
    assert_int_equal(mir_state_db_schema_sweep(&f->state->db, txn, INT64_MAX, 16), MIR_OK);
    assert_int_equal(mdb_stat(txn, f->state->db.schema, &stat), 0);
    assert_int_equal(stat.ms_entries, 0);
    assert_int_equal(mdb_stat(txn, f->state->db.schema_unused, &stat), 0);
    assert_int_equal(stat.ms_entries, 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
}

static void devices_are_shown_complete(void **state)
{
    fixture *f = *state;
    add(f, "d", "n", "ns");
    MirApi__V1__Device *device = NULL;
    mir_error error;
    assert_int_equal(mir_state_device_of(f->state, get(f, "d"), &f->arena, &device, &error), 0);
    assert_string_equal(device->api_version, "mir/v1alpha");
    assert_string_equal(device->kind, "device");
    assert_non_null(device->meta);
    assert_non_null(device->properties->desired);
    assert_non_null(device->properties->reported);
    assert_non_null(device->status->schema);
    assert_non_null(device->status->properties);
    assert_null(device->status->last_hearthbeat);
    assert_false(device->status->has_online);
    assert_true(device->spec->has_disabled);
    atomic_store(mir_state_heartbeat_cell(f->state, get(f, "d")->number), 2 * MIR_NS_PER_S);
    assert_int_equal(mir_state_device_of(f->state, get(f, "d"), &f->arena, &device, &error), 0);
    assert_int_equal(device->status->last_hearthbeat->seconds, 2);
    assert_null(mir_state_heartbeat_cell(f->state, UINT64_C(1) << 40));
    mir_bytes text = {0};
    mir_device_json_write(device, MIR_JSON_COMPACT, &text);
    mir_bytes_u8(&text, 0);
    assert_string_equal(
        (const char *)text.data,
        "{\"apiVersion\":\"mir/"
        "v1alpha\",\"kind\":\"device\",\"meta\":{\"name\":\"n\",\"namespace\":"
        "\"ns\"},\"properties\":{},\"spec\":{\"deviceId\":\"d\",\"disabled\":false},\"status\":{"
        "\"lastHearthbeat\":\"1970-01-01T00:00:02Z\",\"properties\":{},\"schema\":{},"
        "\"version\":1}}");
    mir_bytes_free(&text);
}

static mir_status remember(void *ctx, mir_view id, uint64_t number, int64_t at_ns)
{
    mir_bytes_printf(ctx, "%.*s@%lld ", MIR_VIEW_ARGS(id), (long long)(at_ns / MIR_NS_PER_S));
    return number == 0 ? MIR_E_CORRUPT : MIR_OK;
}

static void online_devices_are_found_after_a_reopen(void **state)
{
    fixture *f = *state;
    mir_state_heartbeat beats[] = {
        {.device_id = mir_view_cstr("x"), .at_ns = 3 * MIR_NS_PER_S},
        {.device_id = mir_view_cstr("y"), .at_ns = 4 * MIR_NS_PER_S},
    };
    assert_int_equal(heartbeats(f, beats, 2, false), MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"x\"]}", "{\"id\":\"z\"}"), MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"y\"]}", "{\"online\":false}"), MIR_OK);
    add(f, "w", "w", "default");
    uint64_t next = get(f, "w")->number;
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 64 << 20);
    mir_bytes text = {0};
    mir_error error;
    assert_int_equal(mir_state_online_each(f->state, remember, &text, &error), MIR_OK);
    mir_bytes_u8(&text, 0);
    assert_string_equal((const char *)text.data, "z@3 ");
    mir_bytes_free(&text);
    assert_string_equal(list(f, NULL), "w,z,y"); /* names w, x, y */
    add(f, "v", "v", "default");
    assert_true(get(f, "v")->number > next);
}

/* ── Counts of changes ───────────────────────────────────────────────────────────────────────── */

typedef struct counts {
    uint64_t id, new_id, name, new_name;
} counts;

static counts counts_of(const fixture *f)
{
    return (counts){
        .id = mir_state_changes_of_id(f->state, mir_view_cstr("d")),
        .new_id = mir_state_changes_of_id(f->state, mir_view_cstr("e")),
        .name = mir_state_changes_of_name(f->state, mir_view_cstr("n"), mir_view_cstr("s")),
        .new_name = mir_state_changes_of_name(f->state, mir_view_cstr("m"), mir_view_cstr("s")),
    };
}

static void a_change_counts_for_the_device_before_and_after_it(void **state)
{
    fixture *f = *state;
    counts before = counts_of(f), now;
    add(f, "d", "n", "s");
    now = counts_of(f);
    assert_true(now.id > before.id && now.name > before.name);
    before = now;
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"labels\":{\"a\":\"b\"}}"), MIR_OK);
    now = counts_of(f);
    assert_true(now.id > before.id && now.name > before.name);
    before = now;
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"id\":\"e\"}"), MIR_OK);
    now = counts_of(f);
    assert_true(now.id > before.id && now.new_id > before.new_id && now.name > before.name);
    before = now;
    assert_int_equal(update(f, "{\"ids\":[\"e\"]}", "{\"name\":\"m\"}"), MIR_OK);
    now = counts_of(f);
    assert_true(now.new_id > before.new_id && now.name > before.name &&
                now.new_name > before.new_name);
    before = now;
    mir_state_heartbeat beat = {.device_id = mir_view_cstr("e"), .at_ns = MIR_NS_PER_S};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    now = counts_of(f);
    assert_true(now.new_id > before.new_id && now.new_name > before.new_name);
    before = now;
    assert_int_equal(delete_them(f, "{\"ids\":[\"e\"]}"), MIR_OK);
    now = counts_of(f);
    assert_true(now.new_id > before.new_id && now.new_name > before.new_name);
}

static void what_changes_nothing_counts_nothing(void **state)
{
    fixture *f = *state;
    add(f, "d", "n", "s");
    counts before = counts_of(f), now;
    /* Its name is taken. */
    assert_int_not_equal(create(f, "{\"meta\":{\"name\":\"n\",\"namespace\":\"s\"},"
                                   "\"spec\":{\"deviceId\":\"e\"}}"),
                         MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"name\":\"n\"}"), MIR_OK);
    now = counts_of(f);
    assert_memory_equal(&now, &before, sizeof now);
}

/* ── Limits of a device ──────────────────────────────────────────────────────────────────────── */

static void labels_of_a_device_are_bounded(void **state)
{
    fixture *f = *state;
    add(f, "d", "d", "default");
    for (int i = 0; i < MIR_DEVICE_LABELS_MAX; i++) {
        char change[64];
        (void)snprintf(change, sizeof change, "{\"labels\":{\"k%d\":\"v\"}}", i);
        assert_int_equal(update(f, "{\"ids\":[\"d\"]}", change), MIR_OK);
    }
    assert_refused(f, update(f, "{\"ids\":[\"d\"]}", "{\"labels\":{\"one more\":\"v\"}}"),
                   "error updating device: a device cannot have 129 labels: use at most 128");
    assert_int_equal(update(f, "{\"ids\":[\"d\"]}", "{\"labels\":{\"k0\":null,\"x\":\"v\"}}"), 0);
}

#define TEST(function) cmocka_unit_test_setup_teardown(function, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        TEST(create_stores_a_device_with_defaults),
        TEST(create_keeps_what_is_given),
        TEST(create_without_id_is_refused),
        TEST(create_of_what_exists_is_refused),
        TEST(create_validates),
        TEST(create_many_skips_what_exists),
        TEST(create_many_lists_every_problem),
        TEST(targets_match),
        TEST(targets_match_over_many_devices),
        TEST(long_label_values_are_found),
        TEST(targets_are_bounded),
        TEST(update_merges_labels),
        TEST(update_by_every_kind_of_target),
        TEST(update_renames_moves_and_changes_ids),
        TEST(update_without_target_is_refused),
        TEST(update_that_matches_nothing_is_ok),
        TEST(update_that_changes_nothing_still_reports),
        TEST(update_with_desired_properties_is_refused),
        TEST(uniqueness),
        TEST(upsert_creates),
        TEST(delete_returns_what_was),
        TEST(delete_can_be_cut),
        TEST(heartbeats_provision_and_turn_online),
        TEST(a_disabled_device_is_not_online),
        TEST(a_bad_schema_makes_a_plain_heartbeat),
        TEST(a_refresh_creates_nothing_and_reports_nothing),
        TEST(schemas_are_stored_once_and_by_every_form),
        TEST(a_schema_is_kept_until_it_is_unused_for_a_while),
        TEST(devices_are_shown_complete),
        TEST(online_devices_are_found_after_a_reopen),
        TEST(a_change_counts_for_the_device_before_and_after_it),
        TEST(what_changes_nothing_counts_nothing),
        TEST(labels_of_a_device_are_bounded),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
