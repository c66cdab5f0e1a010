/* SPDX-License-Identifier: Apache-2.0 */
/* mir_core_service: create, update, delete and list devices, and refresh their schemas.
 *
 * Affinity   Handlers of mir_request: workers.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response. */
#ifndef MIR_CORE_SERVICE_H
#define MIR_CORE_SERVICE_H

#include "mir_request.h"

void mir_core_create(mir_request *request);
void mir_core_creates(mir_request *request);
void mir_core_update(mir_request *request);
void mir_core_delete(mir_request *request);
void mir_core_list(mir_request *request);
void mir_core_schema(mir_request *request);

#endif
