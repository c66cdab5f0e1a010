/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event: an event before it is stored: what it says, who caused it, and its packed form.
 *
 * Why        An event is packed and hashed by whoever has it, so that the store's writer only gives
 *            it a place, a time and a link. What a change of a device says is in one table here,
 *            for the event that is stored and for the one that is published.
 * Ownership  Inputs are the caller's and may go once mir_event_make has returned. A made event is in
 *            the arena.
 * Affinity   Any thread.
 * Units      Times are wall nanoseconds. A leaf is the SHA-256 of a zero byte and the record.
 * Bounds     The enumerators below.
 * Errors     MIR_E_INVALID: no subject with an id in its second token, or text that is not UTF-8.
 *            MIR_E_TOO_LARGE. Both with a text. MIR_E_NO_MEMORY.
 * Source     docs/formats/state.md. */
#ifndef MIR_EVENT_H
#define MIR_EVENT_H

#include "mir_api/v1/event.pb-c.h"
#include "mir_arena.h"
#include "mir_status.h"
#include "mir_view.h"

enum {
    MIR_EVENT_HASH_BYTES = 32,
    MIR_EVENT_HEAD_BYTES = 81,        /* what stands before a record in the store */
    MIR_EVENT_NAME_BYTES_MAX = 256,   /* of the related object, its namespace, the subject's id */
    MIR_EVENT_TEXT_BYTES_MAX = 65536, /* any other text */
    MIR_EVENT_PAYLOAD_BYTES_MAX = 16 * 1024 * 1024,
    MIR_EVENT_CHAIN_MAX = 256, /* links of a trigger chain */
    MIR_EVENT_RULES_MAX = 64,  /* of retention */
};

/* Who caused it. Everything may be empty; a null pointer to a cause is an empty one. */
typedef struct mir_event_cause {
    mir_view actor; /* empty: "device <id>" for what a heartbeat changes, "server" otherwise */
    mir_view address;
    mir_view request_id;
    /* The values of mir-trigger-chain of the request, then the instance that acts on it. */
    const mir_view *chain;
    size_t chain_count;
    mir_view instance;
} mir_event_cause;

typedef struct mir_event_input {
    mir_view route; /* the subject: event.<id>.… */
    /* As it is published. An audit in it is not looked at: what a client says of itself proves
     * nothing. */
    const MirApi__V1__EventSpec *spec;
    const mir_event_cause *cause;
    bool failed;    /* the outcome */
    mir_view error; /* why, if it failed */
    MirApi__V1__EventChange *const *changes;
    size_t change_count;
} mir_event_input;

typedef struct mir_event_item {
    uint8_t head[MIR_EVENT_HEAD_BYTES];
    mir_view record;
    /* Outputs of the store. */
    uint64_t sequence;
    int64_t at_ns;
} mir_event_item;

MIR_MUST_CHECK mir_status mir_event_make(const mir_event_input *input, mir_arena *arena,
                                         mir_event_item *event, mir_error *error);

/* What the events of changes of devices say; `change` is a mir_state_change_kind. */
typedef struct mir_event_wording {
    const char *route; /* the subject is event.<id>.<route> */
    const char *type;
    const char *reason;
    const char *message;
} mir_event_wording;

const mir_event_wording *mir_event_wording_of(unsigned change);

/* How long events are kept. */
typedef struct mir_event_rule {
    const char *reason;
    int64_t keep_ns; /* 0: for ever */
} mir_event_rule;

typedef struct mir_event_retention {
    const mir_event_rule *rules; /* copied by who takes them */
    size_t rule_count;
    int64_t default_keep_ns; /* for all other reasons; 0: for ever */
    /* [mir_clock_wall_ns] What ages are counted to; 0: that is not known yet. Any thread. */
    int64_t (*now_ns)(void *context);
    void *context;
} mir_event_retention;

#endif
