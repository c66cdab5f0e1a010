/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of events share: events that are made in a line, and a look at what is stored.
 * Included by the test programs alone. */
#ifndef MIR_EVENT_TESTING_H
#define MIR_EVENT_TESTING_H

#include "mir_clock.h"
#include "mir_event_keeper.h"
#include "mir_event_log.h"
#include "mir_pb.h"
#include "mir_state_testing.h"

typedef struct told {
    const char *route, *type, *reason, *message, *name, *name_space, *payload, *actor, *error;
} told;

static inline char *text(const char *literal)
{
    return (char *)(uintptr_t)literal;
}

static inline mir_status make(fixture *f, const told *from, mir_event_item *event, mir_error *error)
{
    MirApi__V1__Meta meta = MIR_API__V1__META__INIT;
    MirApi__V1__Object related = MIR_API__V1__OBJECT__INIT;
    MirApi__V1__EventSpec spec = MIR_API__V1__EVENT_SPEC__INIT;
    mir_event_cause cause = {.actor = mir_view_cstr(from->actor)};
    meta.name = text(from->name);
    meta.namespace_ = text(from->name_space);
    related.api_version = text("mir/v1alpha");
    related.kind = text("device");
    related.meta = &meta;
    spec.type = text(from->type == NULL ? "normal" : from->type);
    spec.reason = text(from->reason == NULL ? "Reason" : from->reason);
    spec.message = text(from->message);
    if (from->payload != NULL) {
        spec.has_json_payload = 1;
        spec.json_payload.data = (uint8_t *)text(from->payload);
        spec.json_payload.len = strlen(from->payload);
    }
    if (from->name != NULL) spec.related_object = &related;
    mir_event_input input = {
        .route = mir_view_cstr(from->route == NULL ? "event.dev.mod.v1.happened" : from->route),
        .spec = &spec,
        .cause = &cause,
        .failed = from->error != NULL,
        .error = mir_view_cstr(from->error),
    };
    return mir_event_make(&input, &f->arena, event, error);
}

static inline void append(fixture *f, mir_event_item *events, size_t count)
{
    f->request.op = MIR_STATE_EVENTS;
    f->request.events.items = events;
    f->request.events.count = count;
    assert_int_equal(run(f), MIR_OK);
}

static inline uint64_t tell(fixture *f, told from)
{
    mir_event_item event;
    mir_error error = {""};
    if (make(f, &from, &event, &error) != MIR_OK) fail_msg("make: %s", error.text);
    append(f, &event, 1);
    return event.sequence;
}

/* The stored record, in the fixture's arena; null for what was removed. */
static inline MirStore__V1__EventRecord *stored(fixture *f, uint64_t sequence)
{
    MDB_txn *txn = NULL;
    mir_error error = {""};
    mir_event_place place;
    MirStore__V1__EventRecord *record = NULL;
    assert_int_equal(mir_state_read_begin(f->state, &txn, &error), MIR_OK);
    assert_int_equal(mir_event_get(&f->state->db, txn, sequence, &place), MIR_OK);
    if ((place.flags & MIR_EVENT_IS_TOMB) == 0) {
        mir_status status = mir_pb_unpack(&mir_store__v1__event_record__descriptor, place.record,
                                          &f->arena, &record, &error);
        if (status != MIR_OK) fail_msg("record %u: %s", (unsigned)sequence, error.text);
    }
    mir_state_read_end(f->state, txn);
    return record;
}

/* Appends `count` events that differ in nothing but their place. */
static inline void fill(fixture *f, told from, size_t count)
{
    enum { AT_ONCE = 4096 };
    mir_error error = {""};
    mir_event_item one;
    mir_event_item *events = calloc(AT_ONCE, sizeof *events);
    assert_non_null(events);
    if (make(f, &from, &one, &error) != MIR_OK) fail_msg("make: %s", error.text);
    for (size_t i = 0; i < AT_ONCE; i++) events[i] = one;
    for (size_t done = 0; done < count;) {
        size_t some = count - done < AT_ONCE ? count - done : AT_ONCE;
        append(f, events, some);
        done += some;
    }
    free(events);
}

static inline uint64_t newest_sequence(fixture *f)
{
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    return stats.event_sequence;
}

/* Up to the end of the block that the newest event is in. */
static inline void fill_block(fixture *f, told from)
{
    fill(f, from, MIR_EVENT_BLOCK - newest_sequence(f) % MIR_EVENT_BLOCK);
}

static inline void index_them(fixture *f)
{
    assert_int_equal(mir_event_index_all(f->state->events), MIR_OK);
    mir_state_stats stats;
    mir_state_stats_get(f->state, &stats);
    assert_true(stats.event_index_lag < MIR_EVENT_BLOCK);
}

static inline MirApi__V1__Timestamp *timestamp(fixture *f, int64_t ns)
{
    return mir_timestamp_new(&f->arena, ns);
}

/* {"names", "namespaces", "labels", "device_ids", "reasons", "types", "actors", "outcomes", "text",
 * "after", "before", "limit", "from", "to", "devices"}; times are nanoseconds. */
static inline MirApi__V1__EventTarget *event_target(fixture *f, const char *json_text)
{
    mir_arena *arena = &f->arena;
    json_t *json = parse(json_text), *member;
    MirApi__V1__EventTarget *target = mir_arena_alloc(arena, sizeof *target);
    MirApi__V1__Targets *targets = mir_arena_alloc(arena, sizeof *targets);
    MirApi__V1__DateFilter *date = mir_arena_alloc(arena, sizeof *date);
    mir_api__v1__event_target__init(target);
    mir_api__v1__targets__init(targets);
    mir_api__v1__date_filter__init(date);
    target->targets = targets;
    target->filter_date = date;
    names_of(arena, json_object_get(json, "names"), &targets->names, &targets->n_names);
    names_of(arena, json_object_get(json, "namespaces"), &targets->namespaces,
             &targets->n_namespaces);
    json_t *labels = json_object_get(json, "labels");
    targets->labels = mir_arena_alloc(arena, (json_object_size(labels) + 1) * sizeof(void *));
    const char *key;
    json_object_foreach(labels, key, member)
    {
        MirApi__V1__Targets__LabelsEntry *entry = mir_arena_alloc(arena, sizeof *entry);
        mir_api__v1__targets__labels_entry__init(entry);
        entry->key = mir_arena_strdup(arena, mir_view_cstr(key));
        entry->value = text_in(arena, member);
        targets->labels[targets->n_labels++] = entry;
    }
    names_of(arena, json_object_get(json, "device_ids"), &target->device_ids,
             &target->n_device_ids);
    names_of(arena, json_object_get(json, "reasons"), &target->reasons, &target->n_reasons);
    names_of(arena, json_object_get(json, "types"), &target->types, &target->n_types);
    names_of(arena, json_object_get(json, "actors"), &target->actors, &target->n_actors);
    names_of(arena, json_object_get(json, "outcomes"), &target->outcomes, &target->n_outcomes);
    if ((member = json_object_get(json, "text")) != NULL) target->text = text_in(arena, member);
    if ((member = json_object_get(json, "limit")) != NULL)
        target->filter_limit = (int32_t)json_integer_value(member);
    if ((member = json_object_get(json, "after")) != NULL) {
        target->has_after_sequence = 1;
        target->after_sequence = (uint64_t)json_integer_value(member);
    }
    if ((member = json_object_get(json, "before")) != NULL) {
        target->has_before_sequence = 1;
        target->before_sequence = (uint64_t)json_integer_value(member);
    }
    if ((member = json_object_get(json, "from")) != NULL)
        date->from = timestamp(f, json_integer_value(member));
    if ((member = json_object_get(json, "to")) != NULL)
        date->to = timestamp(f, json_integer_value(member));
    if ((member = json_object_get(json, "devices")) != NULL) {
        char *devices = json_dumps(member, 0);
        target->devices = target_of(arena, devices);
        free(devices);
    }
    json_decref(json);
    return target;
}

static inline const char *joined(fixture *f, const mir_event_list *list)
{
    mir_bytes out = {0};
    for (size_t i = 0; i < list->count; i++)
        mir_bytes_printf(&out, "%s%u", i == 0 ? "" : ",",
                         (unsigned)list->events[i]->status->sequence);
    char *copy = mir_arena_strdup(&f->arena, mir_bytes_as_view(&out));
    mir_bytes_free(&out);
    return copy;
}

/* The sequences of a list, joined with ','. */
static inline const char *events(fixture *f, const char *target)
{
    mir_event_list list = {0};
    mir_error error = {""};
    mir_status status =
        mir_event_list_get(f->state, event_target(f, target), NULL, &f->arena, &list, &error);
    if (status != MIR_OK) fail_msg("events %s: %s", target, error.text);
    assert_false(list.cut);
    return joined(f, &list);
}

static inline MirApi__V1__Event *event_at(fixture *f, uint64_t sequence)
{
    char target[64];
    mir_event_list list = {0};
    mir_error error = {""};
    (void)snprintf(target, sizeof target, "{\"after\":%u,\"limit\":1}", (unsigned)sequence - 1);
    assert_int_equal(
        mir_event_list_get(f->state, event_target(f, target), NULL, &f->arena, &list, &error),
        MIR_OK);
    assert_int_equal(list.count, 1);
    assert_int_equal(list.events[0]->status->sequence, sequence);
    return list.events[0];
}

static inline MirApi__V1__EventsProof *verify(fixture *f, mir_view head)
{
    MirApi__V1__EventsProof *proof = NULL;
    mir_error error = {""};
    mir_status status = mir_event_verify(f->state, head, NULL, NULL, &f->arena, &proof, &error);
    if (status != MIR_OK) fail_msg("verify: %s", error.text);
    return proof;
}

/* Ends with a proof. */
static inline void events_free(fixture *f)
{
    MirApi__V1__EventsProof *proof = verify(f, (mir_view){NULL, 0});
    if (!proof->intact) fail_msg("%s", proof->text);
    fixture_free(f);
}

#endif
