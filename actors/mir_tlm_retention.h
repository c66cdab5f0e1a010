/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_retention: how long telemetry is kept: from the configuration into the log, and told.
 *
 * Why        The log knows devices by their ids alone. Which namespace one is in is the state
 *            store's to say, and it may change at any time.
 * Ownership  The rules are the hub's, their texts the configuration's.
 * Affinity   mir_tlm_retention_options: before the log is opened. The handler: a request worker.
 * Errors     The texts of docs/formats/api.md. */
#ifndef MIR_TLM_RETENTION_H
#define MIR_TLM_RETENTION_H

#include "mir_request.h"

/* Sets what concerns retention. */
void mir_tlm_retention_options(mir_hub *hub, mir_tlog_options *options);
void mir_tlm_retention(mir_request *request);

#endif
