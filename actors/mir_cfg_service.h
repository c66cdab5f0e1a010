/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cfg_service: the configuration that devices know, and its sending.
 *
 * Why        What is wanted of a device is stored, told as an event and published to it, in that
 *            order; the device gets it when it is there, or asks for it when it comes back.
 * Affinity   Handlers of mir_request: workers.
 * Bounds     MIR_CFG_SLICE devices are stored in one request of the state store, and told of before
 *            the next ones are.
 * Errors     The texts of docs/formats/api.md, in the error arm of each response or in the entry of
 *            the device. */
#ifndef MIR_CFG_SERVICE_H
#define MIR_CFG_SERVICE_H

#include "mir_request.h"

enum { MIR_CFG_SLICE = 2048 };

void mir_cfg_list(mir_request *request);
void mir_cfg_send(mir_request *request);

#endif
