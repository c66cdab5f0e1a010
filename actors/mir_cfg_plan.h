/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cfg_plan: what a schema makes of a property that somebody sends, and its way to the device.
 *
 * Why        Sending a property and updating a device with one check, store and publish it alike.
 *            Devices that speak the same share the plan.
 * Ownership  Everything is in the request's arena; the message lives as long as its schema.
 * Affinity   Worker threads, one request at a time.
 * Bounds     MIR_CFG_NAME_BYTES_MAX.
 * Errors     Of a property: the plan's error, a text for the entry of each device. Null results:
 *            out of memory. */
#ifndef MIR_CFG_PLAN_H
#define MIR_CFG_PLAN_H

#include "mir_api/v1/cfg.pb-c.h"
#include "mir_request.h"
#include "mir_schema_groups.h"

enum { MIR_CFG_NAME_BYTES_MAX = 512 };

/* A property as it is asked for. */
typedef struct mir_cfg_wish {
    char *name; /* cut at its first `{` by mir_cfg_wish_cut */
    mir_view payload;
    MirApi__V1__Encoding encoding;
    bool show_template, show_values; /* the payload is not looked at */
} mir_cfg_wish;

typedef struct mir_cfg_plan {
    const mir_schema_message *message; /* null: see error */
    const char *error;                 /* null: it can be sent */
    bool is_unknown; /* the schema has no such message: a newer one of the device may */
    const char *template_;
    mir_state_property_kind kind;
    mir_view object;  /* to store */
    mir_view payload; /* to publish */
    /* The last comparison: devices of one kind often have the same. */
    mir_view compared;
    bool is_same;
} mir_cfg_plan;

void mir_cfg_wish_cut(char *name);
mir_cfg_plan *mir_cfg_plan_make(mir_request *request, const mir_schema_group *group,
                                const mir_cfg_wish *wish);

/* Whether the device has this desired property already. */
MIR_MUST_CHECK mir_status mir_cfg_plan_is_stored(mir_cfg_plan *plan,
                                                 const MirStore__V1__DeviceRecord *record,
                                                 mir_arena *arena, bool *is_stored);

/* To the device, with the time under which it is stored. */
void mir_cfg_publish(mir_request *request, const mir_cfg_plan *plan, const char *device_id,
                     int64_t at_ns);

/* All desired properties of a device, each with the time under which it is stored: those that it has
 * already it knows by their times. */
void mir_cfg_publish_stored(mir_request *request, const MirStore__V1__DeviceRecord *record);

#endif
