/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cfg_update: the desired properties that come with an update of devices.
 *
 * Why        An update that names properties sends them, too: each is checked for each device before
 *            anything changes, all of it is one commit, and devices get what differs.
 * Ownership  Everything is in the request's arena.
 * Affinity   Workers, one request at a time.
 * Bounds     MIR_CFG_UPDATE_MAX properties for all devices together.
 * Errors     The request is answered and finished, and `then` does not run. */
#ifndef MIR_CFG_UPDATE_H
#define MIR_CFG_UPDATE_H

#include "mir_request.h"

enum { MIR_CFG_UPDATE_MAX = 65536 };

/* Whether the update has desired properties. */
bool mir_cfg_update_has(const MirApi__V1__UpdateDeviceRequest *update);
/* Checks them and puts what the store is to do with them into request->state.with; then `then`. */
void mir_cfg_update_check(mir_request *request, MirApi__V1__UpdateDeviceRequest *update,
                          mir_request_handler then);
/* After the commit and its events: what is published to the devices. */
void mir_cfg_update_publish(mir_request *request);

#endif
