/* SPDX-License-Identifier: Apache-2.0 */
/* mir_state_props: the desired and the reported properties of devices, many in one request.
 *
 * Why        What is wanted of a device and what it says of itself are merged inside the writer's
 *            transaction, so that nobody's part of a property is lost to somebody else's.
 * Ownership  As of a mir_state_request: inputs are the submitter's, outputs are in its arena.
 * Affinity   The writer thread.
 * Units      Wall nanoseconds.
 * Bounds     MIR_STATE_PROPERTIES_PER_REQUEST_MAX in one request: whoever has more sends several.
 *            MIR_STATE_PROPERTIES_BYTES_MAX for all desired properties of a device, as for all
 *            reported ones; MIR_STATE_PROPERTY_NAMES_MAX names of each.
 * Errors     Of one property: its status and error; the others of the request are not affected. */
#ifndef MIR_STATE_PROPS_H
#define MIR_STATE_PROPS_H

#include <stdbool.h>
#include <stdint.h>

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_status.h"
#include "mir_store/v1/store.pb-c.h"
#include "mir_view.h"

enum {
    MIR_STATE_PROPERTIES_PER_REQUEST_MAX = 16384,
    MIR_STATE_PROPERTIES_BYTES_MAX = 1024 * 1024,
    MIR_STATE_PROPERTY_NAMES_MAX = 1024,
};

typedef enum mir_state_property_kind {
    MIR_STATE_PROPERTY_SEND = 1, /* desired, merged into what is there: DESIRED */
    MIR_STATE_PROPERTY_REPLACE,  /* desired, instead of what is there: DESIRED */
    MIR_STATE_PROPERTY_DEFAULT,  /* desired, if there is none yet; no change is reported */
    MIR_STATE_PROPERTY_REPORT,   /* reported, merged: REPORTED, perhaps OUT_OF_SYNC */
} mir_state_property_kind;

/* One property of one device. Those of one device stand together in a request: its record is then
 * written once, and its version grows by one. */
typedef struct mir_state_property {
    mir_state_property_kind kind;
    mir_view device_id;
    const char *name;    /* full, of the message */
    mir_view object;     /* in the form of mir_json_normalize */
    int64_t at_ns;       /* of the acceptance; put after the one that is stored if need be */
    int64_t goes_by_ns;  /* REPORT: the time of the desired property it goes by; 0: not said */
    bool has_if_version; /* refused unless the device has this version */
    uint64_t if_version;
    /* Outputs. MIR_E_NOT_FOUND: no such device. MIR_E_EXISTS: it has another version. */
    mir_status status;
    const char *error; /* null if and only if status is MIR_OK */
    mir_view merged;   /* the property after the change, or as it was for a DEFAULT that was none */
    int64_t merged_ns; /* its time, 0 if none is known */
    uint64_t version;  /* of the device */
    MirStore__V1__DeviceRecord *before, *record; /* of the device; record: after the change */
    bool changed, out_of_sync;
} mir_state_property;

/* The stored value and time of a property, as the record has it; empty and 0 when it has none. The
 * text is in the arena. */

MIR_MUST_CHECK mir_status mir_state_property_find(mir_view all_json, const char *name,
                                                  mir_arena *arena, mir_view *object);
int64_t mir_state_property_time_ns(const MirStore__V1__DeviceRecord *record, bool reported,
                                   const char *name);

/* Whether the event of a change (mir_state_change_kind) carries something else than the device, and
 * what: all desired or all reported properties; for OUT_OF_SYNC `{name: {"desired": …, "reported":
 * …}}` of each that is; for SCHEMA_CHANGED `{"from": …, "to": …, "packages": […]}`. Appended. */
struct mir_state_change;
bool mir_state_change_has_json(unsigned kind);
MIR_MUST_CHECK mir_status mir_state_change_json(const struct mir_state_change *change,
                                                mir_bytes *json);

/* What the state's writer does; see mir_state_ops.h. */
struct mir_state_ops;
MIR_MUST_CHECK mir_status mir_state_props_execute(struct mir_state_ops *ops);
/* Properties of one device onto a record that nobody else sees yet and that is not stored yet. */
MIR_MUST_CHECK mir_status mir_state_props_apply(struct mir_state_ops *ops,
                                                MirStore__V1__DeviceRecord *record,
                                                mir_state_property *list, size_t count);
/* Adds the changes of what was applied to records that are stored now: at most two for each. */
MIR_MUST_CHECK mir_status mir_state_props_tell(struct mir_state_ops *ops, mir_state_property *list,
                                               size_t count);

#endif
