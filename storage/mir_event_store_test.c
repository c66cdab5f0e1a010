/* SPDX-License-Identifier: Apache-2.0 */
/* What is asked of stored events: lists with and without an index, history, removal, retention. */
#include "mir_event_testing.h"

#include "mir_event_query.h"

static void an_event_is_shown_as_it_was_captured(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    mir_view chain[2] = {MIR_VIEW_LITERAL("a"), MIR_VIEW_LITERAL("b")};
    mir_event_cause cause = {
        .actor = MIR_VIEW_LITERAL("alice"),
        .address = MIR_VIEW_LITERAL("127.0.0.1:7"),
        .request_id = MIR_VIEW_LITERAL("r"),
        .chain = chain,
        .chain_count = 2,
        .instance = MIR_VIEW_LITERAL("hub"),
    };
    MirApi__V1__EventSpec spec = MIR_API__V1__EVENT_SPEC__INIT;
    MirApi__V1__Object related = MIR_API__V1__OBJECT__INIT;
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    MirApi__V1__EventAudit lie = MIR_API__V1__EVENT_AUDIT__INIT;
    mir_event_item item;
    mir_error error;
    meta.name = text("pump-7");
    related.kind = text("thing");
    related.meta = &meta;
    lie.actor = text("root");
    spec.type = text("warning");
    spec.reason = text("Leak");
    spec.message = text("It leaks");
    spec.has_json_payload = 1;
    spec.json_payload = (ProtobufCBinaryData){9, (uint8_t *)text("{\"x\": 1 }")};
    spec.related_object = &related;
    spec.audit = &lie;
    mir_event_input input = {
        .route = MIR_VIEW_LITERAL("event.unit7.leaks.v1.found"), .spec = &spec, .cause = &cause};
    assert_int_equal(mir_event_make(&input, &f->arena, &item, &error), MIR_OK);
    append(f, &item, 1);
    const MirApi__V1__Event *event = event_at(f, 1);
    assert_string_equal(event->object->api_version, "mir/v1alpha");
    assert_string_equal(event->object->kind, "events");
    assert_memory_equal(event->object->meta->name, "pump-7-", 7);
    assert_int_equal(strlen(event->object->meta->name), 7 + 12);
    assert_int_equal(strspn(event->object->meta->name + 7, "0123456789abcdef"), 12);
    assert_string_equal(event->object->meta->namespace_, "default");
    assert_int_equal(event->object->meta->n_labels, 2);
    assert_string_equal(event->object->meta->labels[0]->key, "reason");
    assert_string_equal(event->object->meta->labels[0]->value, "Leak");
    assert_string_equal(event->object->meta->labels[1]->key, "type");
    assert_string_equal(event->object->meta->labels[1]->value, "warning");
    assert_int_equal(event->object->meta->n_annotations, 3);
    assert_string_equal(event->object->meta->annotations[0]->key, "mir-route");
    assert_string_equal(event->object->meta->annotations[0]->value, "event.unit7.leaks.v1.found");
    assert_string_equal(event->object->meta->annotations[1]->key, "mir-subject");
    assert_string_equal(event->object->meta->annotations[1]->value, "unit7");
    assert_string_equal(event->object->meta->annotations[2]->key, "mir-trigger-chain");
    assert_string_equal(event->object->meta->annotations[2]->value, "a,b,hub");
    assert_string_equal(event->spec->message, "It leaks");
    assert_int_equal(event->spec->json_payload.len, 9);
    assert_memory_equal(event->spec->json_payload.data, "{\"x\": 1 }", 9);
    assert_string_equal(event->spec->related_object->kind, "thing");
    assert_string_equal(event->spec->related_object->meta->name, "pump-7");
    assert_string_equal(event->spec->audit->actor, "alice");
    assert_string_equal(event->spec->audit->address, "127.0.0.1:7");
    assert_string_equal(event->spec->audit->request_id, "r");
    assert_string_equal(event->spec->audit->outcome, "ok");
    assert_int_equal(event->status->count, 1);
    assert_int_equal(mir_timestamp_ns(event->status->first_at), item.at_ns);
    assert_int_equal(mir_timestamp_ns(event->status->last_at), item.at_ns);
    assert_int_equal(event->status->leaf.len, 32);
    /* Without a related object the subject gives the name; nobody dereferences a null pointer. */
    (void)tell(f, (told){.route = "event.unit8.leaks.v1.found"});
    event = event_at(f, 2);
    assert_memory_equal(event->object->meta->name, "unit8-", 6);
    assert_null(event->spec->related_object);
    related.meta = NULL;
    assert_int_equal(mir_event_make(&input, &f->arena, &item, &error), MIR_OK);
    append(f, &item, 1);
    assert_non_null(event_at(f, 3)->spec->related_object->meta);
    events_free(f);
}

static void a_device_is_shown_as_it_was_published(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    mir_state_schema schema = {.raw = MIR_VIEW_LITERAL("no schema, but bytes of one")};
    mir_state_heartbeat beat = {
        .device_id = MIR_VIEW_LITERAL("a"), .at_ns = 1000, .schema = &schema};
    assert_int_equal(heartbeats(f, &beat, 1, false), MIR_OK);
    assert_int_equal(f->request.change_count, 3);
    mir_bytes published = {0};
    mir_error error;
    for (size_t i = 0; i < 3; i++) {
        const mir_state_change *change = &f->request.changes[i];
        MirApi__V1__Device *device = NULL;
        published.size = 0;
        assert_int_equal(
            mir_state_device_as_stored(f->state, change->after, &f->arena, &device, &error),
            MIR_OK);
        mir_device_json_write(device, MIR_JSON_COMPACT, &published);
        const MirApi__V1__Event *event = event_at(f, change->sequence);
        assert_int_equal(event->spec->json_payload.len, published.size);
        assert_memory_equal(event->spec->json_payload.data, published.data, published.size);
    }
    mir_bytes_u8(&published, 0);
    assert_non_null(strstr((char *)published.data, "compressedSchema"));
    assert_null(strstr((char *)event_at(f, 1)->spec->json_payload.data, "compressedSchema"));
    mir_bytes_free(&published);
    /* The schema of a device that is gone stays as long as the event. */
    assert_int_equal(delete_them(f, "{\"ids\":[\"a\"]}"), MIR_OK);
    (void)tell(f, (told){.reason = "Another commit"});
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.schemas, 1);
    events_free(f);
}

/* A mixture: two devices, two reasons, two namespaces, some failures. */
static void tell_mixture(fixture *f)
{
    (void)tell(f, (told){.name = "pump", .name_space = "plant", .route = "event.p.a.b.c"});
    (void)tell(f, (told){.name = "pump-7",
                         .name_space = "plant",
                         .route = "event.p7.a.b.c",
                         .actor = "alice"});
    (void)tell(f, (told){.name = "pump",
                         .name_space = "depot",
                         .route = "event.q.a.b.c",
                         .reason = "Other",
                         .message = "The VALVE is open"});
    (void)tell(f, (told){.name = "fan",
                         .route = "event.f.a.b.c",
                         .type = "warning",
                         .error = "timed out",
                         .actor = "bob"});
    (void)tell(f, (told){.route = "event.f.a.b.c", .payload = "{\"k\":\"needle\"}"});
}

static void check_mixture(fixture *f)
{
    assert_string_equal(events(f, "{}"), "5,4,3,2,1");
    assert_string_equal(events(f, "{\"limit\":2}"), "5,4");
    assert_string_equal(events(f, "{\"limit\":-1}"), "5,4,3,2,1");
    assert_string_equal(events(f, "{\"names\":[\"pump-*\"]}"), "3,2,1");
    assert_string_equal(events(f, "{\"names\":[\"pump-7-*\"]}"), "2");
    assert_string_equal(events(f, "{\"names\":[\"pump-*\"],\"namespaces\":[\"plant\"]}"), "2,1");
    assert_string_equal(events(f, "{\"names\":[\"pump-*\"],\"namespaces\":[\"p*\"]}"), "2,1");
    assert_string_equal(events(f, "{\"names\":[\"*an-*\",\"pump-7-*\"]}"), "4,2");
    assert_string_equal(events(f, "{\"names\":[\"pump\"]}"), "");
    assert_string_equal(events(f, "{\"names\":[\"*\"]}"), "5,4,3,2,1");
    assert_string_equal(events(f, "{\"namespaces\":[\"default\"]}"), "5,4");
    assert_string_equal(events(f, "{\"namespaces\":[\"depot\",\"none\"]}"), "3");
    assert_string_equal(events(f, "{\"labels\":{\"reason\":\"Other\"}}"), "3");
    assert_string_equal(events(f, "{\"labels\":{\"reason\":\"*\",\"type\":\"w*\"}}"), "4");
    assert_string_equal(events(f, "{\"labels\":{\"color\":\"\"}}"), "5,4,3,2,1");
    assert_string_equal(events(f, "{\"labels\":{\"color\":\"red\"}}"), "");
    assert_string_equal(events(f, "{\"labels\":{\"reason\":\"Reason\"},\"reasons\":[\"Other\"]}"),
                        "");
    assert_string_equal(events(f, "{\"device_ids\":[\"f\",\"q\"]}"), "5,4,3");
    assert_string_equal(events(f, "{\"device_ids\":[\"p*\"]}"), "2,1");
    assert_string_equal(events(f, "{\"reasons\":[\"Reason\"],\"device_ids\":[\"f\"]}"), "5,4");
    assert_string_equal(events(f, "{\"types\":[\"warning\"]}"), "4");
    assert_string_equal(events(f, "{\"actors\":[\"alice\",\"bob\"]}"), "4,2");
    assert_string_equal(events(f, "{\"actors\":[\"a*\"]}"), "2");
    assert_string_equal(events(f, "{\"outcomes\":[\"failed\"]}"), "4");
    assert_string_equal(events(f, "{\"text\":\"valve\"}"), "3");
    assert_string_equal(events(f, "{\"text\":\"NEEDLE\"}"), "5");
    assert_string_equal(events(f, "{\"text\":\"Timed\"}"), "4");
    assert_string_equal(events(f, "{\"text\":\"nowhere\"}"), "");
    assert_string_equal(events(f, "{\"after\":3}"), "4,5");
    assert_string_equal(events(f, "{\"after\":5}"), "");
    assert_string_equal(events(f, "{\"before\":3}"), "2,1");
    assert_string_equal(events(f, "{\"before\":1}"), "");
    assert_string_equal(events(f, "{\"after\":1,\"before\":4}"), "2,3");
    assert_string_equal(events(f, "{\"after\":1,\"reasons\":[\"Reason\"],\"limit\":2}"), "2,4");
    char target[128];
    const char *name = event_at(f, 2)->object->meta->name;
    (void)snprintf(target, sizeof target, "{\"names\":[\"%s\"]}", name);
    assert_string_equal(events(f, target), "2");
    (void)snprintf(target, sizeof target, "{\"names\":[\"%.*s*\"]}", 10, name);
    assert_string_equal(events(f, target), "2");
}

static void every_filter_is_applied_without_an_index(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    tell_mixture(f);
    check_mixture(f);
    events_free(f);
}

/* The same in a block that is indexed, among others that match nothing. */
static void every_filter_is_applied_with_an_index(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    tell_mixture(f);
    fill_block(f, (told){.name = "noise",
                         .name_space = "elsewhere",
                         .reason = "Noise",
                         .route = "event.noise.a.b.c",
                         .type = "other",
                         .actor = "nobody"});
    index_them(f);
    static const struct {
        const char *target, *want;
    } cases[] = {
        {"{\"names\":[\"pump-*\"]}", "3,2,1"},
        {"{\"names\":[\"pump-7-*\"]}", "2"},
        {"{\"names\":[\"pump-*\"],\"namespaces\":[\"plant\"]}", "2,1"},
        {"{\"names\":[\"pump-*\"],\"namespaces\":[\"p*\"]}", "2,1"},
        {"{\"names\":[\"*an-*\",\"pump-7-*\"]}", "4,2"},
        {"{\"names\":[\"pump\"]}", ""},
        {"{\"namespaces\":[\"default\"]}", "5,4"},
        {"{\"labels\":{\"reason\":\"Other\"}}", "3"},
        {"{\"labels\":{\"type\":\"w*\"}}", "4"},
        {"{\"device_ids\":[\"f\",\"q\"]}", "5,4,3"},
        {"{\"reasons\":[\"Reason\"],\"device_ids\":[\"f\"]}", "5,4"},
        {"{\"actors\":[\"alice\",\"bob\"]}", "4,2"},
        {"{\"outcomes\":[\"failed\"]}", "4"},
        {"{\"text\":\"needle\"}", "5"},
        {"{\"after\":1,\"reasons\":[\"Reason\"],\"limit\":2}", "2,4"},
        {"{\"before\":4,\"reasons\":[\"Reason\"]}", "2,1"},
        {"{\"reasons\":[\"Never\"]}", ""},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_string_equal(events(f, cases[i].target), cases[i].want);
    /* Most of the block has one reason: its entry is a bitmap. */
    assert_string_equal(events(f, "{\"reasons\":[\"Noise\"],\"limit\":2}"), "16384,16383");
    assert_string_equal(events(f, "{\"reasons\":[\"Noise\"],\"after\":3,\"limit\":2}"), "6,7");
    events_free(f);
}

static void what_is_behind_the_index_is_found_too(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    told noise = {.name = "noise", .reason = "Noise"};
    told pump = {.name = "pump", .route = "event.p.a.b.c", .reason = "Rare"};
    (void)tell(f, pump);
    fill(f, noise, MIR_EVENT_BLOCK - 2);
    (void)tell(f, pump); /* the last of the first block */
    (void)tell(f, pump); /* the first of the second */
    index_them(f);
    static const char want[] = "16385,16384,1";
    assert_string_equal(events(f, "{\"names\":[\"pump-*\"]}"), want);
    assert_string_equal(events(f, "{\"reasons\":[\"Rare\"]}"), want);
    assert_string_equal(events(f, "{\"device_ids\":[\"p\"]}"), want);
    assert_string_equal(events(f, "{\"reasons\":[\"Rare\"],\"after\":0}"), "1,16384,16385");
    assert_string_equal(events(f, "{\"reasons\":[\"Rare\"],\"before\":16385}"), "16384,1");
    /* A name that only the tail knows. */
    (void)tell(f, (told){.name = "valve"});
    assert_string_equal(events(f, "{\"names\":[\"valve-*\"]}"), "16386");
    assert_string_equal(events(f, "{\"names\":[\"valve-*\"],\"namespaces\":[\"default\"]}"),
                        "16386");
    /* The rest becomes a block, the store is opened again. */
    fill_block(f, noise);
    index_them(f);
    mir_state_close(f->state);
    fixture_open(f, MIR_STATE_SYNC_OFF, 256 << 20);
    assert_string_equal(events(f, "{\"reasons\":[\"Rare\"]}"), want);
    assert_string_equal(events(f, "{\"names\":[\"valve-*\"]}"), "16386");
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.event_index_lag, 0);
    assert_int_equal(stats.events, 2 * MIR_EVENT_BLOCK);
    events_free(f);
}

/* An index that a killed run left in pieces is written again. */
static void a_half_written_index_does_no_harm(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    tell_mixture(f);
    fill_block(f, (told){.reason = "Noise"});
    index_them(f);
    MDB_txn *txn = NULL;
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(mir_event_indexed_write(&f->state->db, txn, 0), MIR_OK);
    /* Some of its entries are missing, one is of a later run. */
    uint8_t key[MIR_EVENT_INDEX_KEY_BYTES];
    mir_event_index_key(0, MIR_EVENT_REASON, mir_event_hash(MIR_VIEW_LITERAL("Other")), key);
    MDB_val k = {sizeof key, key};
    assert_int_equal(mdb_del(txn, f->state->db.event_index, &k, NULL), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    index_them(f);
    assert_string_equal(events(f, "{\"reasons\":[\"Other\"]}"), "3");
    assert_string_equal(events(f, "{\"reasons\":[\"Reason\"]}"), "5,4,2,1");
    events_free(f);
}

/* Two texts with one hash: the index names both, the record decides. */
static void a_collision_is_told_apart(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    uint32_t *seen = calloc(1 << 24, sizeof *seen);
    assert_non_null(seen);
    char one[32] = "", two[32] = "";
    /* By the birthday paradox a pair is found long before the end. */
    for (uint32_t i = 1; i < 1 << 22 && one[0] == '\0'; i++) {
        (void)snprintf(two, sizeof two, "reason-%u", i);
        uint32_t hash = mir_event_hash(mir_view_cstr(two));
        size_t at = hash & 0xffffff;
        while (seen[at] != 0) {
            char other[32];
            (void)snprintf(other, sizeof other, "reason-%u", seen[at]);
            if (mir_event_hash(mir_view_cstr(other)) == hash) memcpy(one, other, sizeof one);
            at = (at + 1) & 0xffffff;
        }
        seen[at] = i;
    }
    free(seen);
    assert_true(one[0] != '\0' && strcmp(one, two) != 0);
    assert_int_equal(mir_event_hash(mir_view_cstr(one)), mir_event_hash(mir_view_cstr(two)));
    (void)tell(f, (told){.reason = one});
    (void)tell(f, (told){.reason = two});
    char target[64];
    for (int indexed = 0; indexed < 2; indexed++) {
        (void)snprintf(target, sizeof target, "{\"reasons\":[\"%s\"]}", one);
        assert_string_equal(events(f, target), "1");
        (void)snprintf(target, sizeof target, "{\"reasons\":[\"%s\"]}", two);
        assert_string_equal(events(f, target), "2");
        fill_block(f, (told){.reason = "Noise"});
        index_them(f);
    }
    events_free(f);
}

static void times_are_found_by_halving(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    /* Three at one time, for they are of one request. */
    mir_event_item items[3];
    mir_error error;
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(make(f, &(told){.reason = "Same"}, &items[i], &error), MIR_OK);
    uint64_t first = tell(f, (told){.reason = "Before"});
    append(f, items, 3);
    uint64_t last = tell(f, (told){.reason = "After"});
    assert_int_equal(first, 1);
    assert_int_equal(last, 5);
    int64_t at_ns = items[0].at_ns;
    assert_int_equal(items[2].at_ns, at_ns);
    char target[96];
    (void)snprintf(target, sizeof target, "{\"from\":%lld,\"to\":%lld}", (long long)at_ns,
                   (long long)at_ns);
    /* The clock may not have moved between two requests. */
    assert_non_null(strstr(events(f, target), "4,3,2"));
    (void)snprintf(target, sizeof target, "{\"from\":%lld,\"reasons\":[\"Same\",\"Before\"]}",
                   (long long)at_ns + 1);
    assert_string_equal(events(f, target), "");
    (void)snprintf(target, sizeof target, "{\"to\":%lld,\"reasons\":[\"Same\",\"After\"]}",
                   (long long)at_ns - 1);
    assert_string_equal(events(f, target), "");
    assert_string_equal(events(f, "{\"from\":1}"), "5,4,3,2,1");
    assert_string_equal(events(f, "{\"to\":1}"), "");
    /* A time that nanoseconds do not reach. */
    MirApi__V1__EventTarget *beyond = event_target(f, "{\"to\":1}");
    beyond->filter_date->to->seconds = INT64_C(200000000000);
    mir_event_list list = {0};
    assert_int_equal(mir_event_list_get(f->state, beyond, NULL, &f->arena, &list, &error), MIR_OK);
    assert_int_equal(list.count, 5);
    beyond->filter_date->to->seconds = INT64_MAX;
    assert_int_equal(mir_event_list_get(f->state, beyond, NULL, &f->arena, &list, &error),
                     MIR_E_INVALID);
    events_free(f);
}

static void a_list_says_when_it_is_cut(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    for (int i = 0; i < 10; i++) (void)tell(f, (told){.reason = i % 2 == 0 ? "Even" : "Odd"});
    mir_event_list list = {0};
    mir_error error;
    mir_event_bounds bounds = {.rows_max = 3};
    MirApi__V1__EventTarget *target = event_target(f, "{\"reasons\":[\"Odd\"]}");
    assert_int_equal(mir_event_list_get(f->state, target, &bounds, &f->arena, &list, &error),
                     MIR_OK);
    assert_string_equal(joined(f, &list), "10,8,6");
    assert_true(list.cut);
    assert_int_equal(list.cut_sequence, 6);
    target->has_before_sequence = 1;
    target->before_sequence = list.cut_sequence;
    assert_int_equal(mir_event_list_get(f->state, target, &bounds, &f->arena, &list, &error),
                     MIR_OK);
    assert_string_equal(joined(f, &list), "4,2");
    assert_false(list.cut);
    /* By bytes: one at least. */
    bounds = (mir_event_bounds){.bytes_max = 1};
    assert_int_equal(mir_event_list_get(f->state, NULL, &bounds, &f->arena, &list, &error), MIR_OK);
    assert_string_equal(joined(f, &list), "10");
    assert_true(list.cut);
    /* By how much was looked at. */
    bounds = (mir_event_bounds){.looked_max = 4};
    target = event_target(f, "{\"text\":\"even\",\"after\":0}");
    assert_int_equal(mir_event_list_get(f->state, target, &bounds, &f->arena, &list, &error),
                     MIR_OK);
    assert_string_equal(joined(f, &list), "1,3");
    assert_true(list.cut);
    assert_int_equal(list.cut_sequence, 4);
    events_free(f);
}

static void devices_of_a_target_have_their_events(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    add(f, "a", "one", "plant");
    add(f, "b", "two", "plant");
    add(f, "c", "three", "depot");
    assert_int_equal(update(f, "{\"ids\":[\"a\"]}", "{\"name\":\"renamed\"}"), MIR_OK);
    assert_string_equal(events(f, "{\"devices\":{\"namespaces\":[\"plant\"]}}"), "4,2,1");
    assert_string_equal(events(f, "{\"devices\":{\"names\":[\"renamed\"]}}"), "4,1");
    assert_string_equal(events(f, "{\"devices\":{\"names\":[\"none\"]}}"), "");
    assert_string_equal(events(f, "{\"names\":[\"one-*\"]}"), "1");
    events_free(f);
}

static const char *briefs(fixture *f, size_t per_device)
{
    mir_error error;
    MirStore__V1__DeviceRecord **records = NULL;
    mir_event_brief *lists = NULL;
    size_t count = 0;
    assert_int_equal(mir_state_list(f->state, NULL, &f->arena, &records, &count, &error), MIR_OK);
    assert_int_equal(
        mir_event_newest(f->state, records, count, per_device, &f->arena, &lists, &error), MIR_OK);
    mir_bytes out = {0};
    for (size_t i = 0; i < count; i++) {
        mir_bytes_printf(&out, "%s%s:", i == 0 ? "" : " ", records[i]->device_id);
        for (size_t k = 0; k < lists[i].count; k++) {
            mir_bytes_printf(&out, "%s%s", k == 0 ? "" : ",", lists[i].events[k]->reason);
            assert_non_null(lists[i].events[k]->first_at);
        }
    }
    char *copy = mir_arena_strdup(&f->arena, mir_bytes_as_view(&out));
    mir_bytes_free(&out);
    return copy;
}

static void the_newest_of_each_device(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    add(f, "a", "same", "plant");
    add(f, "b", "same", "depot");
    add(f, "c", "other", "plant");
    told noise = {.name = "noise", .reason = "Noise"};
    for (int i = 0; i < 3; i++)
        (void)tell(f, (told){.name = "same",
                             .name_space = "plant",
                             .reason = i == 0   ? "First"
                                       : i == 1 ? "Second"
                                                : "Third"});
    static const char two[] = "b:DeviceCreated c:DeviceCreated a:Third,Second";
    assert_string_equal(briefs(f, 2), two);
    fill_block(f, noise);
    index_them(f);
    assert_string_equal(briefs(f, 2), two);
    assert_string_equal(briefs(f, 5),
                        "b:DeviceCreated c:DeviceCreated a:Third,Second,First,DeviceCreated");
    assert_string_equal(briefs(f, 0), "b: c: a:");
    (void)tell(f, (told){.name = "other", .name_space = "plant", .reason = "Late"});
    assert_string_equal(briefs(f, 1), "b:DeviceCreated c:Late a:Third");
    events_free(f);
}

static const char *history(fixture *f, const char *id, const char *name, const char *name_space)
{
    mir_event_subject subject = {mir_view_cstr(id), mir_view_cstr(name), mir_view_cstr(name_space)};
    mir_event_list list = {0};
    mir_error error = {""};
    if (mir_event_history(f->state, &subject, NULL, &f->arena, &list, &error) != MIR_OK)
        fail_msg("history: %s", error.text);
    return joined(f, &list);
}

/* The labels.v of the device as it was, "-" if there was none. */
static const char *value_at(fixture *f, const char *id, const char *name, int64_t at_ns)
{
    mir_event_subject subject = {mir_view_cstr(id), mir_view_cstr(name),
                                 MIR_VIEW_LITERAL("default")};
    MirStore__V1__DeviceRecord *record = NULL;
    mir_error error = {""};
    int64_t changed_ns = 0;
    mir_status status =
        mir_event_device_at(f->state, &subject, at_ns, &f->arena, &record, &changed_ns, &error);
    if (status == MIR_E_NOT_FOUND) return "-";
    if (status != MIR_OK) fail_msg("device at: %s", error.text);
    assert_true(changed_ns <= at_ns);
    return label(record, "v");
}

static int64_t change(fixture *f, const char *target, const char *what)
{
    int64_t before_ns = mir_clock_wall_ns();
    assert_int_equal(update(f, target, what), MIR_OK);
    /* So that the next change has a later time. */
    while (mir_clock_wall_ns() <= f->request.changes[0].at_ns) continue;
    assert_true(f->request.changes[0].at_ns >= before_ns);
    return f->request.changes[0].at_ns;
}

static void a_device_has_its_history_through_all_names(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    int64_t before_ns = mir_clock_wall_ns() - 1;
    add(f, "a", "one", "default");
    add(f, "x", "else", "default");
    int64_t first_ns = change(f, "{\"ids\":[\"a\"]}", "{\"labels\":{\"v\":\"1\"}}");
    int64_t second_ns =
        change(f, "{\"ids\":[\"a\"]}", "{\"labels\":{\"v\":\"2\"},\"name\":\"two\"}");
    int64_t third_ns = change(f, "{\"ids\":[\"a\"]}", "{\"id\":\"b\",\"labels\":{\"v\":\"3\"}}");
    /* Another device takes the id: it is not this one. */
    add(f, "a", "taker", "default");
    int64_t fourth_ns = change(f, "{\"ids\":[\"b\"]}", "{\"labels\":{\"v\":\"4\"}}");
    assert_string_equal(history(f, "b", NULL, NULL), "1,3,4,5,7");
    assert_string_equal(history(f, NULL, "two", "default"), "1,3,4,5,7");
    assert_string_equal(history(f, NULL, "one", "default"), "1,3,4,5,7");
    assert_string_equal(history(f, "a", NULL, NULL), "1,3,4,6");
    assert_string_equal(history(f, NULL, "never", "default"), "");
    for (int by_name = 0; by_name < 2; by_name++) {
        const char *id = by_name ? NULL : "b", *name = by_name ? "two" : NULL;
        assert_string_equal(value_at(f, id, name, before_ns), "-");
        assert_string_equal(value_at(f, id, name, first_ns), "1");
        assert_string_equal(value_at(f, id, name, second_ns - 1), "1");
        assert_string_equal(value_at(f, id, name, second_ns), "2");
        assert_string_equal(value_at(f, id, name, third_ns), "3");
        assert_string_equal(value_at(f, id, name, fourth_ns), "4");
        assert_string_equal(value_at(f, id, name, INT64_MAX), "4");
    }
    assert_int_equal(delete_them(f, "{\"ids\":[\"b\"]}"), MIR_OK);
    assert_string_equal(value_at(f, "b", NULL, INT64_MAX), "-");
    assert_string_equal(value_at(f, "b", NULL, fourth_ns), "4");
    assert_string_equal(history(f, NULL, "two", "default"), "1,3,4,5,7,8");
    events_free(f);
}

/* ── Removal ─────────────────────────────────────────────────────────────────────────────────── */

static uint64_t remove_them(fixture *f, const char *target, const char **listed)
{
    mir_event_cause cause = {.actor = MIR_VIEW_LITERAL("alice")};
    mir_event_list list = {0};
    mir_error error = {""};
    uint64_t removed = 0;
    mir_status status = mir_event_remove(f->state, event_target(f, target), &cause, NULL, &f->arena,
                                         &list, &removed, &error);
    if (status != MIR_OK) fail_msg("remove: %s", error.text);
    if (listed != NULL) *listed = joined(f, &list);
    return removed;
}

static void removed_events_are_gone_and_told_of(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    tell_mixture(f);
    uint8_t leaf[MIR_EVENT_HASH_BYTES];
    memcpy(leaf, event_at(f, 2)->status->leaf.data, sizeof leaf);
    mir_error error = {""};
    mir_event_list list;
    uint64_t removed = 0;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"limit\":1}"), NULL, NULL,
                                      &f->arena, &list, &removed, &error),
                     MIR_E_INVALID);
    assert_string_equal(error.text, "error no target found: No device target provided");
    const char *listed = NULL;
    /* The limit bounds the answer alone. */
    assert_int_equal(remove_them(f, "{\"names\":[\"pump-*\"],\"limit\":1}", &listed), 3);
    assert_string_equal(listed, "3");
    assert_string_equal(events(f, "{}"), "5,4");
    assert_string_equal(events(f, "{\"names\":[\"pump-*\"]}"), "");
    MDB_txn *txn = NULL;
    mir_event_place place;
    assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
    assert_int_equal(mir_event_get(&f->state->db, txn, 2, &place), MIR_OK);
    assert_int_equal(place.flags, MIR_EVENT_IS_TOMB);
    assert_int_equal(place.removal, 6);
    assert_memory_equal(place.leaf, leaf, sizeof leaf);
    mir_state_read_end(f->state, txn);
    MirStore__V1__EventRecord *record = stored(f, 6);
    assert_string_equal(record->removal->why, "request");
    assert_int_equal(record->removal->count, 3);
    assert_int_equal(record->removal->n_ranges, 2);
    assert_int_equal(record->removal->ranges[0], 0);
    assert_int_equal(record->removal->ranges[1], 3);
    assert_string_equal(record->audit->actor, "alice");
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.events, 2);
    assert_int_equal(stats.events_removed, 3);
    assert_int_equal(stats.event_sequence, 6);
    assert_int_equal(remove_them(f, "{\"names\":[\"pump-*\"]}", &listed), 0);
    assert_string_equal(listed, "");
    MirApi__V1__EventsProof *proof = verify(f, (mir_view){NULL, 0});
    assert_int_equal(proof->links, 6);
    assert_int_equal(proof->removed, 3);
    assert_int_equal(proof->removals, 1);
    events_free(f);
}

static void a_removal_is_stopped(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 64 << 20);
    tell_mixture(f);
    _Atomic bool stop = true;
    mir_event_bounds bounds = {.stop = &stop};
    mir_event_list list = {0};
    mir_error error = {""};
    uint64_t removed = 77;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"names\":[\"pump-*\"]}"), NULL,
                                      &bounds, &f->arena, &list, &removed, &error),
                     MIR_E_CANCELLED);
    assert_int_equal(removed, 0);
    assert_string_equal(error.text, "stopped after 0 events");
    stop = false;
    assert_int_equal(mir_event_remove(f->state, event_target(f, "{\"names\":[\"pump-*\"]}"), NULL,
                                      &bounds, &f->arena, &list, &removed, &error),
                     MIR_OK);
    assert_int_equal(removed, 3);
    events_free(f);
}

static void many_are_removed_in_slices(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    told noise = {.reason = "Noise"};
    fill(f, noise, 2500);
    (void)tell(f, (told){.reason = "Kept"});
    fill_block(f, noise);
    fill(f, noise, 100);
    index_them(f);
    const uint64_t noises = MIR_EVENT_BLOCK - 1 + 100;
    assert_int_equal(remove_them(f, "{\"reasons\":[\"Noise\"]}", NULL), noises);
    assert_string_equal(events(f, "{}"), "2501");
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_int_equal(stats.events_removed, noises);
    assert_int_equal(stats.events, 1);
    uint64_t slices = (noises + MIR_EVENT_SLICE - 1) / MIR_EVENT_SLICE;
    assert_int_equal(stats.event_sequence, MIR_EVENT_BLOCK + 100 + slices);
    /* The block's index goes with its last event. */
    assert_int_equal(mir_event_index_prune(f->state->events), MIR_OK);
    assert_string_equal(events(f, "{\"reasons\":[\"Kept\"]}"), "2501");
    assert_int_equal(remove_them(f, "{\"reasons\":[\"Kept\"]}", NULL), 1);
    assert_int_equal(mir_event_index_prune(f->state->events), MIR_OK);
    MDB_txn *txn = NULL;
    MDB_stat entries;
    mir_error error;
    assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
    assert_int_equal(mdb_stat(txn, f->state->db.event_index, &entries), 0);
    assert_int_equal(entries.ms_entries, 0);
    mir_state_read_end(f->state, txn);
    assert_string_equal(events(f, "{\"reasons\":[\"Kept\"]}"), "");
    events_free(f);
}

static void reopen_with(fixture *f, const mir_event_retention *retention)
{
    mir_error error = {""};
    mir_state_options options = {.path = f->path,
                                 .map_bytes = 256 << 20,
                                 .sync = MIR_STATE_SYNC_OFF,
                                 .retention = *retention};
    mir_state_close(f->state);
    if (mir_state_open(&options, &f->state, &error) != MIR_OK) fail_msg("open: %s", error.text);
}

static void retention_keeps_what_the_rules_say(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    const int64_t hour_ns = 3600 * MIR_NS_PER_S;
    mir_event_rule rules[] = {{"Short", hour_ns}, {"Forever", 0}, {"Long", 100 * hour_ns}};
    mir_event_retention retention = {
        .rules = rules, .rule_count = 3, .default_keep_ns = 10 * hour_ns};
    reopen_with(f, &retention);
    /* A schema stays as long as the events that show it: here some stay for ever. */
    assert_int_equal(f->state->schema_kept_ns, 0);
    rules[1].keep_ns = 7 * hour_ns;
    reopen_with(f, &retention);
    assert_int_equal(f->state->schema_kept_ns, 100 * hour_ns);
    rules[1].keep_ns = 0;
    reopen_with(f, &retention);
    (void)tell(f, (told){.reason = "Short"});
    (void)tell(f, (told){.reason = "Forever"});
    (void)tell(f, (told){.reason = "Long"});
    (void)tell(f, (told){.reason = "Default"});
    uint64_t removed = 99;
    mir_error error = {""};
    int64_t now_ns = mir_clock_wall_ns();
    static const struct {
        int64_t hours;
        uint64_t removed;
        const char *left;
    } steps[] = {
        {0, 0, "4,3,2,1"}, {2, 1, "4,3,2"}, {9, 0, "4,3,2"},
        {11, 1, "3,2"},    {101, 1, "2"},   {100000, 0, "2"},
    };
    for (size_t i = 0; i < sizeof steps / sizeof steps[0]; i++) {
        assert_int_equal(
            mir_event_retain(f->state, now_ns + steps[i].hours * hour_ns, &removed, &error),
            MIR_OK);
        assert_int_equal(removed, steps[i].removed);
        assert_string_equal(events(f, "{}"), steps[i].left);
    }
    assert_string_equal(stored(f, 5)->removal->why, "retention");
    assert_string_equal(stored(f, 5)->audit->actor, "server");
    mir_event_retention_state now;
    assert_int_equal(mir_event_retention_get(f->state, &now, &error), MIR_OK);
    assert_int_equal(now.rules.rule_count, 3);
    assert_string_equal(now.rules.rules[2].reason, "Long");
    assert_int_equal(now.events, 1);
    assert_int_equal(now.removed, 3);
    assert_int_equal(now.oldest_ns, mir_timestamp_ns(event_at(f, 2)->status->first_at));
    assert_int_equal(now.last_run_ns, now_ns + 100000 * hour_ns);
    events_free(f);
}

static void retention_of_many_runs_by_itself(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    fill_block(f, (told){.reason = "Old"});
    fill(f, (told){.reason = "Old"}, 2000);
    (void)tell(f, (told){.reason = "Forever"});
    index_them(f);
    /* All of it is older than a nanosecond when the store is opened again. */
    mir_event_rule rule = {"Forever", 0};
    mir_event_retention retention = {.rules = &rule, .rule_count = 1, .default_keep_ns = 1};
    reopen_with(f, &retention);
    mir_state_stats stats;
    int64_t until_ns = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    do mir_state_stats_get(f->state, &stats);
    while (stats.events != 1 && mir_clock_mono_ns() < until_ns);
    assert_int_equal(stats.events, 1);
    assert_string_equal(events(f, "{}"), "18385");
    assert_int_equal(stats.event_keeper_failures, 0);
    events_free(f);
}

static _Atomic int64_t known_ns;
static _Atomic int times_asked;

static int64_t known_now(void *context)
{
    assert_ptr_equal(context, &known_ns);
    times_asked++;
    return known_ns;
}

/* Not what the clock says: it may be ahead, and the time may come to be known after the start only. */
static void retention_goes_by_the_time_that_it_is_told(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    (void)tell(f, (told){.reason = "Old"});
    const int64_t then_ns = mir_timestamp_ns(event_at(f, 1)->status->first_at);
    mir_event_retention retention = {
        .default_keep_ns = 1, .now_ns = known_now, .context = &known_ns};
    known_ns = 0;
    times_asked = 0;
    reopen_with(f, &retention);
    const int64_t until_ns = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    while (times_asked < 3 && mir_clock_mono_ns() < until_ns) (void)sched_yield();
    assert_string_equal(events(f, "{}"), "1");
    mir_event_retention_state now;
    mir_error error = {""};
    assert_int_equal(mir_event_retention_get(f->state, &now, &error), MIR_OK);
    assert_int_equal(now.last_run_ns, 0);
    known_ns = then_ns;
    while (now.last_run_ns == 0 && mir_clock_mono_ns() < until_ns)
        assert_int_equal(mir_event_retention_get(f->state, &now, &error), MIR_OK);
    assert_int_equal(now.last_run_ns, then_ns);
    assert_string_equal(events(f, "{}"), "1");
    known_ns = then_ns + MIR_NS_PER_S;
    reopen_with(f, &retention);
    do assert_int_equal(mir_event_retention_get(f->state, &now, &error), MIR_OK);
    while (now.last_run_ns == 0 && mir_clock_mono_ns() < until_ns);
    assert_string_equal(events(f, "{}"), "");
    events_free(f);
}

static uint64_t unused_schemas(fixture *f)
{
    MDB_txn *txn = NULL;
    MDB_stat stat = {0};
    mir_error error;
    assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
    assert_int_equal(mdb_stat(txn, f->state->db.schema_unused, &stat), 0);
    mir_state_read_end(f->state, txn);
    return stat.ms_entries;
}

static void schemas_go_by_the_same_time(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    const int64_t day_ns = 24 * 3600 * MIR_NS_PER_S;
    const int64_t unused_ns = mir_clock_wall_ns() - 100 * day_ns;
    mir_state_key key = {.size = 0};
    const uint8_t hash[MIR_STATE_HASH_BYTES] = {1};
    mir_state_key_u64(&key, (uint64_t)unused_ns);
    mir_state_key_view(&key, mir_view_of(hash, sizeof hash));
    MDB_txn *txn = NULL;
    MDB_val k = {key.size, (void *)(uintptr_t)key.data}, v = {0, NULL};
    assert_int_equal(mdb_txn_begin(f->state->db.env, NULL, 0, &txn), 0);
    assert_int_equal(mdb_put(txn, f->state->db.schema_unused, &k, &v, 0), 0);
    assert_int_equal(mdb_txn_commit(txn), 0);
    mir_event_retention retention = {
        .default_keep_ns = day_ns, .now_ns = known_now, .context = &known_ns};
    const int64_t until_ns = mir_clock_mono_ns() + 60 * MIR_NS_PER_S;
    /* Nothing goes while the time is not known, or before it is due. */
    static const int64_t days[] = {0, -1, 0, 2};
    for (size_t i = 0; i < 4; i++) {
        known_ns = i == 0 ? 0 : unused_ns + days[i] * day_ns;
        times_asked = 0;
        reopen_with(f, &retention);
        while (times_asked < 2 && i == 0 && mir_clock_mono_ns() < until_ns) (void)sched_yield();
        while (atomic_load(&f->state->known_offset_ns) == 0 && i != 0 &&
               mir_clock_mono_ns() < until_ns)
            (void)sched_yield();
        (void)tell(f, (told){.reason = "Any"});
        assert_int_equal(unused_schemas(f), i == 3 ? 0 : 1);
    }
    events_free(f);
}

/* Whoever makes names up finds an end, and what is asked for is found all the same. */
static void names_are_bounded(void **state)
{
    (void)state;
    fixture *f = fixture_new(MIR_STATE_SYNC_OFF, 256 << 20);
    mir_state_close(f->state);
    mir_error error;
    mir_state_options options = {.path = f->path,
                                 .map_bytes = 256 << 20,
                                 .sync = MIR_STATE_SYNC_OFF,
                                 .event_names_max = 100};
    assert_int_equal(mir_state_open(&options, &f->state, &error), MIR_OK);
    for (unsigned i = 0; i < 300; i++) {
        char name[32];
        (void)snprintf(name, sizeof name, "%s-%03u", i % 2 == 0 ? "even" : "odd", i);
        (void)tell(f, (told){.name = name, .name_space = "ns", .reason = "Named"});
    }
    fill_block(f, (told){.name = "noise", .name_space = "ns", .reason = "Noise"});
    index_them(f);
    MDB_txn *txn = NULL;
    MDB_stat entries;
    assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
    assert_int_equal(mdb_stat(txn, f->state->db.event_name, &entries), 0);
    assert_int_equal(entries.ms_entries, 100);
    mir_state_read_end(f->state, txn);
    assert_string_equal(events(f, "{\"names\":[\"odd-29*\"]}"), "300,298,296,294,292");
    assert_string_equal(events(f, "{\"names\":[\"even-00*\"],\"namespaces\":[\"ns\"]}"),
                        "9,7,5,3,1");
    assert_string_equal(events(f, "{\"names\":[\"none-*\"]}"), "");
    events_free(f);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(names_are_bounded),
        cmocka_unit_test(an_event_is_shown_as_it_was_captured),
        cmocka_unit_test(a_device_is_shown_as_it_was_published),
        cmocka_unit_test(every_filter_is_applied_without_an_index),
        cmocka_unit_test(every_filter_is_applied_with_an_index),
        cmocka_unit_test(what_is_behind_the_index_is_found_too),
        cmocka_unit_test(a_half_written_index_does_no_harm),
        cmocka_unit_test(a_collision_is_told_apart),
        cmocka_unit_test(times_are_found_by_halving),
        cmocka_unit_test(a_list_says_when_it_is_cut),
        cmocka_unit_test(devices_of_a_target_have_their_events),
        cmocka_unit_test(the_newest_of_each_device),
        cmocka_unit_test(a_device_has_its_history_through_all_names),
        cmocka_unit_test(removed_events_are_gone_and_told_of),
        cmocka_unit_test(a_removal_is_stopped),
        cmocka_unit_test(many_are_removed_in_slices),
        cmocka_unit_test(retention_keeps_what_the_rules_say),
        cmocka_unit_test(retention_of_many_runs_by_itself),
        cmocka_unit_test(schemas_go_by_the_same_time),
        cmocka_unit_test(retention_goes_by_the_time_that_it_is_told),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
