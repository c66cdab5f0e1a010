/* SPDX-License-Identifier: Apache-2.0 */
/* Events as they are made and appended. */
#include "mir_event_testing.h"

#include "mir_clock.h"
#include "mir_zstd.h"

/* The changes of an update as "path:from>to path:…", as the event tells them. */
static const char *changes_of_event(fixture *f, uint64_t sequence)
{
    const MirStore__V1__EventRecord *record = stored(f, sequence);
    mir_bytes out = {0};
    for (size_t i = 0; i < record->audit->n_changes; i++) {
        const MirApi__V1__EventChange *change = record->audit->changes[i];
        mir_bytes_printf(&out, "%s%s:%s>%s", i == 0 ? "" : " ", change->path,
                         change->from == NULL ? "" : change->from,
                         change->to == NULL ? "" : change->to);
    }
    char *copy = mir_arena_strdup(&f->arena, mir_bytes_as_view(&out));
    mir_bytes_free(&out);
    return copy;
}

static void a_change_and_its_event_are_one_commit(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    mir_state_stats before, after;
    mir_state_stats_get(f->state, &before);
    int64_t from_ns = mir_clock_wall_ns();
    add(f, "a", "pump", "plant");
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.commits, before.commits + 1);
    assert_int_equal(after.events, 1);
    assert_int_equal(after.event_sequence, 1);
    assert_int_equal(f->request.change_count, 1);
    assert_int_equal(f->request.changes[0].sequence, 1);
    assert_true(f->request.changes[0].at_ns >= from_ns);
    MirStore__V1__EventRecord *record = stored(f, 1);
    assert_string_equal(record->route, "event.a.core.v1alpha.devicecreated");
    assert_string_equal(record->reason, "DeviceCreated");
    assert_string_equal(record->type, "normal");
    assert_string_equal(record->message, "A device has been created successfully");
    assert_string_equal(record->related->api_version, "mir/v1alpha");
    assert_string_equal(record->related->kind, "device");
    assert_string_equal(record->related->meta->name, "pump");
    assert_string_equal(record->related->meta->namespace_, "plant");
    assert_string_equal(record->audit->actor, "server");
    assert_string_equal(record->audit->outcome, "ok");
    assert_string_equal(record->device->device_id, "a");
    assert_int_equal(record->change, MIR_STATE_CREATED);
    assert_true(record->suffix < UINT64_C(1) << 48);
    /* What is refused leaves no event. */
    assert_int_equal(create(f, "{\"spec\":{\"deviceId\":\"a\"}}"), MIR_E_EXISTS);
    mir_state_stats_get(f->state, &after);
    assert_int_equal(after.event_sequence, 1);
    fixture_free(f);
}

static void a_cause_is_put_down(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    mir_view chain[2] = {MIR_VIEW_LITERAL("one"), MIR_VIEW_LITERAL("two")};
    mir_event_cause cause = {
        .actor = MIR_VIEW_LITERAL("alice"),
        .address = MIR_VIEW_LITERAL("127.0.0.1:5"),
        .request_id = MIR_VIEW_LITERAL("r-1"),
        .chain = chain,
        .chain_count = 2,
        .instance = MIR_VIEW_LITERAL("hub"),
    };
    f->request.cause = &cause;
    add(f, "a", "a", "default");
    MirStore__V1__EventRecord *record = stored(f, 1);
    assert_string_equal(record->audit->actor, "alice");
    assert_string_equal(record->audit->address, "127.0.0.1:5");
    assert_string_equal(record->audit->request_id, "r-1");
    assert_int_equal(record->n_trigger_chain, 3);
    assert_string_equal(record->trigger_chain[0], "one");
    assert_string_equal(record->trigger_chain[2], "hub");
    f->request.cause = NULL;
    /* What a heartbeat changes, the device has caused. */
    mir_state_heartbeat beat = {.device_id = MIR_VIEW_LITERAL("b"), .at_ns = 1};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    assert_int_equal(f->request.change_count, 2);
    assert_int_equal(f->request.changes[1].sequence, 3);
    assert_string_equal(stored(f, 2)->reason, "DeviceCreated");
    assert_string_equal(stored(f, 2)->audit->actor, "device b");
    assert_string_equal(stored(f, 3)->reason, "DeviceOnline");
    assert_string_equal(stored(f, 3)->audit->actor, "device b");
    assert_int_equal(stored(f, 3)->device->online, 1);
    /* What is no text is left out, not stored. */
    cause.actor = MIR_VIEW_LITERAL("\xff\xfe");
    f->request.cause = &cause;
    assert_int_equal(delete_them(f, "{\"ids\":[\"b\"]}"), MIR_OK);
    assert_string_equal(stored(f, 4)->audit->actor, "server");
    f->request.cause = NULL;
    f->request.without_events = true;
    assert_int_equal(delete_them(f, "{\"ids\":[\"a\"]}"), MIR_OK);
    assert_int_equal(f->request.changes[0].sequence, 0);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.event_sequence, 4);
    fixture_free(f);
}

static void an_update_tells_what_it_changed(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    assert_int_equal(create(f, "{\"meta\":{\"name\":\"n\",\"labels\":{\"floor\":\"2\",\"old\":"
                               "\"x\"}},\"spec\":{\"deviceId\":\"a\"}}"),
                     MIR_OK);
    assert_int_equal(update(f, "{\"ids\":[\"a\"]}",
                            "{\"name\":\"m\",\"labels\":{\"floor\":\"3\",\"old\":null,\"new\":"
                            "\"\\\"y\"},\"disabled\":true}"),
                     MIR_OK);
    const char *want = "meta.name:\"n\">\"m\" meta.labels.floor:\"2\">\"3\" "
                       "meta.labels.old:\"x\"> meta.labels.new:>\"\\\"y\" "
                       "spec.disabled:false>true";
    assert_string_equal(stored(f, 2)->reason, "DeviceDisabled");
    assert_string_equal(changes_of_event(f, 3), want);
    assert_int_equal(f->request.changes[1].diff_count, 5);
    assert_string_equal(f->request.changes[1].diffs[0]->path, "meta.name");
    /* An update that changes nothing is an event as well, and says so. */
    assert_int_equal(update(f, "{\"ids\":[\"a\"]}", "{\"name\":\"m\"}"), MIR_OK);
    assert_string_equal(stored(f, 4)->reason, "DeviceUpdated");
    assert_string_equal(changes_of_event(f, 4), "");
    assert_int_equal(update(f, "{\"ids\":[\"a\"]}", "{\"id\":\"b\",\"namespace\":\"plant\"}"),
                     MIR_OK);
    assert_string_equal(changes_of_event(f, 5),
                        "meta.namespace:\"default\">\"plant\" spec.deviceId:\"a\">\"b\"");
    assert_string_equal(stored(f, 5)->route, "event.b.core.v1alpha.deviceupdated");
    fixture_free(f);
}

static void a_schema_and_properties_are_told(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    MirStore__V1__DeviceRecord before = MIR_STORE__V1__DEVICE_RECORD__INIT, after;
    before.name = before.device_id = before.namespace_ = text("d");
    before.has_desired_json = 1;
    before.desired_json.data = (uint8_t *)text("{\"p.A\":{\"x\":1,\"y\":2},\"p.B\":{}}");
    before.desired_json.len = strlen((char *)before.desired_json.data);
    after = before;
    after.desired_json.data = (uint8_t *)text("{\"p.A\":{\"y\":2, \"x\":1.5},\"p.C\":{\"z\":0}}");
    after.desired_json.len = strlen((char *)after.desired_json.data);
    uint8_t hash[MIR_STATE_HASH_BYTES] = {0xab};
    after.has_schema_hash = 1;
    after.schema_hash = (ProtobufCBinaryData){sizeof hash, hash};
    MirApi__V1__EventChange **changes = NULL;
    size_t count = 0;
    assert_int_equal(mir_event_diff(&before, &after, &f->arena, &changes, &count), MIR_OK);
    assert_int_equal(count, 4);
    assert_string_equal(changes[0]->path, "properties.desired.p.A");
    assert_string_equal(changes[0]->from, "{\"x\":1,\"y\":2}");
    assert_string_equal(changes[0]->to, "{\"x\":1.5,\"y\":2}");
    assert_string_equal(changes[1]->path, "properties.desired.p.B");
    assert_null(changes[1]->to);
    assert_string_equal(changes[2]->path, "properties.desired.p.C");
    assert_null(changes[2]->from);
    assert_string_equal(changes[3]->path, "schema");
    assert_null(changes[3]->from);
    assert_memory_equal(changes[3]->to, "\"ab00", 5);
    /* The same value written in another way is no change. */
    after = before;
    after.desired_json.data = (uint8_t *)text("{\"p.B\":{}, \"p.A\":{\"y\":2,\"x\":1}}");
    after.desired_json.len = strlen((char *)after.desired_json.data);
    assert_int_equal(mir_event_diff(&before, &after, &f->arena, &changes, &count), MIR_OK);
    assert_int_equal(count, 0);
    fixture_free(f);
}

static void the_live_heartbeat_is_in_the_event(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    mir_state_heartbeat beat = {.device_id = MIR_VIEW_LITERAL("a"), .at_ns = 1000};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    atomic_store(mir_state_heartbeat_cell(f->state, beat.number), INT64_C(5000000007));
    assert_int_equal(update(f, "{\"ids\":[\"a\"]}", "{\"labels\":{\"k\":\"v\"}}"), MIR_OK);
    uint64_t sequence = f->request.changes[0].sequence;
    assert_int_equal(stored(f, sequence)->device->last_heartbeat->seconds, 5);
    assert_int_equal(stored(f, sequence)->device->last_heartbeat->nanos, 7);
    /* The stored device keeps its own, and the one that is published is the one of the event. */
    assert_int_equal(mir_state_time_ns(get(f, "a")->last_heartbeat), 1000);
    atomic_store(mir_state_heartbeat_cell(f->state, beat.number), INT64_C(9000000000));
    MirApi__V1__Device *device = NULL;
    mir_error error;
    assert_int_equal(mir_state_device_as_stored(f->state, f->request.changes[0].after, &f->arena,
                                                &device, &error),
                     MIR_OK);
    assert_int_equal(device->status->last_hearthbeat->seconds, 5);
    assert_int_equal(delete_them(f, "{\"ids\":[\"a\"]}"), MIR_OK);
    sequence = f->request.changes[0].sequence;
    assert_int_equal(stored(f, sequence)->device->last_heartbeat->seconds, 9);
    fixture_free(f);
}

static void events_of_others_are_stored_as_they_came(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_COMMIT, 64 << 20);
    mir_event_item events[3];
    mir_error error = {""};
    char *large = mir_arena_alloc(&f->arena, 100001);
    memset(large, '7', 100000);
    assert_int_equal(make(f, &(told){.payload = " { \"a\" : 1 } "}, &events[0], &error), MIR_OK);
    assert_int_equal(make(f, &(told){.payload = large, .name = "n"}, &events[1], &error), MIR_OK);
    assert_int_equal(make(f, &(told){.error = "no answer", .actor = "bob", .type = "warning"},
                          &events[2], &error),
                     MIR_OK);
    append(f, events, 3);
    for (uint64_t i = 0; i < 3; i++) assert_int_equal(events[i].sequence, i + 1);
    assert_true(events[2].at_ns >= events[0].at_ns);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_COMMIT, 64 << 20);
    MirStore__V1__EventRecord *record = stored(f, 1);
    assert_true(
        mir_view_eq_cstr(mir_view_of(record->json.data, record->json.len), " { \"a\" : 1 } "));
    assert_null(record->related);
    record = stored(f, 2);
    assert_false(record->has_json);
    assert_true(record->json_zstd.len < 1000);
    mir_bytes raw = {0};
    assert_int_equal(mir_zstd_decompress(mir_view_of(record->json_zstd.data, record->json_zstd.len),
                                         1 << 20, &raw, &error),
                     MIR_OK);
    assert_int_equal(raw.size, 100000);
    mir_bytes_free(&raw);
    record = stored(f, 3);
    assert_string_equal(record->audit->outcome, "failed");
    assert_string_equal(record->audit->error, "no answer");
    assert_string_equal(record->audit->actor, "bob");
    assert_int_equal(tell(f, (told){.reason = "After"}), 4);
    fixture_free(f);
}

static void what_cannot_be_an_event_is_refused(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    mir_event_item event;
    mir_error error;
    assert_int_equal(make(f, &(told){.route = "event"}, &event, &error), MIR_E_INVALID);
    assert_string_equal(error.text, "the subject of an event has no id");
    assert_int_equal(make(f, &(told){.route = "event..a"}, &event, &error), MIR_E_INVALID);
    assert_int_equal(make(f, &(told){.route = "event.\xff.a"}, &event, &error), MIR_E_INVALID);
    char name[MIR_EVENT_NAME_BYTES_MAX + 2];
    memset(name, 'n', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    assert_int_equal(make(f, &(told){.name = name}, &event, &error), MIR_E_TOO_LARGE);
    name[sizeof name - 2] = '\0';
    assert_int_equal(make(f, &(told){.name = name}, &event, &error), MIR_OK);
    f->request.op = MIR_STATE_EVENTS;
    f->request.events.items = &event;
    f->request.events.count = MIR_STATE_EVENTS_MAX + 1;
    assert_int_equal(run(f), MIR_E_TOO_LARGE);
    fixture_free(f);
}

/* As a store was before there were events. */
static void an_older_store_gets_its_events(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 16 << 20);
    f->request.without_events = true;
    add(f, "a", "a", "default");
    f->request.without_events = false;
    MDB_txn *txn = NULL;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    uint8_t version[8];
    mir_state_u64_write(version, 1);
    MDB_val k = {6, (void *)(uintptr_t) "format"}, v = {sizeof version, version};
    assert_int_equal(mdb_put(txn, f->state->db.meta, &k, &v, 0), 0);
    assert_int_equal(mdb_drop(txn, f->state->db.event, 1), 0);
    assert_int_equal(mdb_drop(txn, f->state->db.event_block, 1), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 16 << 20);
    assert_non_null(get(f, "a"));
    assert_int_equal(tell(f, (told){.reason = "First"}), 1);
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, MDB_RDONLY, &txn), 0);
    assert_int_equal(mdb_get(txn, f->state->db.meta, &k, &v), 0);
    assert_int_equal(mir_state_u64_read(v.mv_data), MIR_STATE_FORMAT_VERSION);
    mdb_txn_abort(txn);
    fixture_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_change_and_its_event_are_one_commit),
        cmocka_unit_test(a_cause_is_put_down),
        cmocka_unit_test(an_update_tells_what_it_changed),
        cmocka_unit_test(a_schema_and_properties_are_told),
        cmocka_unit_test(the_live_heartbeat_is_in_the_event),
        cmocka_unit_test(events_of_others_are_stored_as_they_came),
        cmocka_unit_test(what_cannot_be_an_event_is_refused),
        cmocka_unit_test(an_older_store_gets_its_events),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
