/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cmd_service: the commands that devices know, and their sending.
 *
 * Affinity   Handlers of mir_request: workers.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response or in the entry of
 *            the device. */
#ifndef MIR_CMD_SERVICE_H
#define MIR_CMD_SERVICE_H

#include "mir_request.h"

void mir_cmd_list(mir_request *request);
void mir_cmd_send(mir_request *request);
/* Queued commands, and those that were. */
void mir_cmd_queue_list(mir_request *request);
void mir_cmd_queue_cancel(mir_request *request);

#endif
