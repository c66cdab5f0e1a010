/* SPDX-License-Identifier: Apache-2.0 */
/* mir_core_service: create, update, delete and list devices, and refresh their schemas.
 *
 * Bounds     A deletion goes through the store MIR_CORE_DELETED_AT_ONCE devices at a time, with others'
 *            changes between; those that matched when it began and still do when it comes to them are
 *            deleted. Creations and updates are all or nothing.
 * Affinity   Handlers of mir_request: workers.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response. */
#ifndef MIR_CORE_SERVICE_H
#define MIR_CORE_SERVICE_H

#include "mir_request.h"

enum { MIR_CORE_DELETED_AT_ONCE = 1024 };

void mir_core_create(mir_request *request);
void mir_core_creates(mir_request *request);
void mir_core_update(mir_request *request);
void mir_core_delete(mir_request *request);
void mir_core_list(mir_request *request);
void mir_core_schema(mir_request *request);

#endif
