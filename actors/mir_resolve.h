/* SPDX-License-Identifier: Apache-2.0 */
/* mir_resolve: the schema of each device that a request is about, or why it cannot be had.
 *
 * Why        Telemetry lists, commands and configuration all begin with what the devices speak: known
 *            to the store, or asked for. Devices that speak the same share a group, so that what
 *            follows from a schema is done once for all of them.
 * Ownership  A resolution is in its request's arena and is freed (mir_resolution_free) by its user
 *            before the request is finished. Records are the caller's; those of devices that were
 *            asked are replaced by what the store has of them then.
 * Affinity   Worker threads, one at a time.
 * Bounds     All devices are asked at once; each waits at most schema.request_timeout.
 * Errors     Of a device: the error of its group, `cannot reconcile device schema: <cause>`. Of the
 *            request: it is answered and finished, and `then` does not run. */
#ifndef MIR_RESOLVE_H
#define MIR_RESOLVE_H

#include "mir_request.h"
#include "mir_schema_groups.h"

typedef struct mir_resolution {
    mir_request *request;
    MirStore__V1__DeviceRecord **records; /* null: deleted meanwhile */
    mir_schema_group **group_of;          /* of each record; null where the record is */
    size_t count;
    mir_schema_groups groups;
    mir_request_handler then;
    struct mir_resolve_pull *pull;
} mir_resolution;

/* What the store says of a device's schema: empty when it has none. */
mir_view mir_resolve_schema_hash(const MirStore__V1__DeviceRecord *record);

/* The group of what the store has, and of a failure, for those who ask devices one by one. */
MIR_MUST_CHECK mir_status mir_resolve_stored(mir_hub *hub, mir_schema_groups *groups,
                                             const MirStore__V1__DeviceRecord *record,
                                             mir_schema_group **group);
MIR_MUST_CHECK mir_status mir_resolve_failed(mir_schema_groups *groups, mir_view hash,
                                             const char *cause, mir_schema_group **group);

/* Runs `then` on a worker, perhaps before it returns, with request->resolution set. Devices without
 * a known schema are asked for it, and all of them with `refresh`. */
void mir_resolve(mir_request *request, MirStore__V1__DeviceRecord **records, size_t count,
                 bool refresh, mir_request_handler then);
/* Asks the devices at these places again: their group may be another one then. */
void mir_resolve_again(mir_resolution *resolution, const size_t *places, size_t count,
                       mir_request_handler then);
/* Fills the records of the groups, in the order of the resolution's. */
MIR_MUST_CHECK mir_status mir_resolution_collect(mir_resolution *resolution);
/* A null pointer is fine. */
void mir_resolution_free(mir_resolution *resolution);

#endif
