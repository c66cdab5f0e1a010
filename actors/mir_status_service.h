/* SPDX-License-Identifier: Apache-2.0 */
/* mir_status_service: how the server is doing, as one JSON document.
 *
 * Affinity   A handler of mir_request: begins on a worker; each shard adds its own numbers on its
 *            own thread, then a worker writes the document. */
#ifndef MIR_STATUS_SERVICE_H
#define MIR_STATUS_SERVICE_H

#include "mir_request.h"

void mir_status_report(mir_request *request);

#endif
