/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_service: which telemetry devices have, and the telemetry itself.
 *
 * Affinity   Handlers of mir_request: list on a request worker, query on a query worker.
 * Bounds     The bounds of the telemetry log's queries; a reply that would be larger than a message
 *            may be is an error that says how to narrow the request.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response. */
#ifndef MIR_TLM_SERVICE_H
#define MIR_TLM_SERVICE_H

#include "mir_request.h"

void mir_tlm_list(mir_request *request);
void mir_tlm_query(mir_request *request);

#endif
