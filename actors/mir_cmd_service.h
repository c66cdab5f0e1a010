/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cmd_service: the commands that devices know, and their sending.
 *
 * Affinity   Handlers of mir_request: workers. mir_cmd_send_here: the shard of the request.
 * Bounds     MIR_CMD_HERE_BYTES_MAX of a command that a shard sends without a worker.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response or in the entry of
 *            the device. */
#ifndef MIR_CMD_SERVICE_H
#define MIR_CMD_SERVICE_H

#include "mir_request.h"

enum { MIR_CMD_HERE_BYTES_MAX = 4096 };

void mir_cmd_list(mir_request *request);
void mir_cmd_send(mir_request *request);
/* Sends a command to one device that the shard knows (mir_cmd_known.h), without waiting for anything;
 * false: nothing has happened, and a worker is to do it. */
bool mir_cmd_send_here(mir_request *request);
/* Queued commands, and those that were. */
void mir_cmd_queue_list(mir_request *request);
void mir_cmd_queue_cancel(mir_request *request);

#endif
