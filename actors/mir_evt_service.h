/* SPDX-License-Identifier: Apache-2.0 */
/* mir_evt_service: stored events: listed, deleted, proved; what a device went through.
 *
 * Affinity   Handlers of mir_request: workers. Proofs and histories are on those of queries.
 * Bounds     An answer has what fits into a message, and says whether that was all.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response. */
#ifndef MIR_EVT_SERVICE_H
#define MIR_EVT_SERVICE_H

#include "mir_request.h"

void mir_evt_list(mir_request *request);
void mir_evt_delete(mir_request *request);
void mir_evt_verify(mir_request *request);
void mir_evt_retention(mir_request *request);
void mir_evt_history(mir_request *request);

#endif
