/* SPDX-License-Identifier: Apache-2.0 */
/* What the tests of events share: events that are made in a line, and a look at what is stored.
 * Included by the test programs alone. */
#ifndef MIR_EVENT_TESTING_H
#define MIR_EVENT_TESTING_H

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

#endif
