/* SPDX-License-Identifier: Apache-2.0 */
/* mir_hub: the server's own actors: twins, services, and the stores that they work on.
 *
 * Why        The gateway moves messages; what the server does about devices begins here.
 * Ownership  The hub owns the state store, the telemetry log and each shard's actors.
 * Affinity   create, start, stop, destroy: the main thread. shard_init, shard_fini: the shard's.
 * Bounds     Requests in flight: MIR_HUB_REQUESTS_MAX; beyond it a request is answered at once with
 *            an error that says so.
 * Errors     create, start: with a text that says what to do. */
#ifndef MIR_HUB_H
#define MIR_HUB_H

#include "mir_shard.h"
#include "mir_workers.h"

typedef struct mir_hub mir_hub;

enum { MIR_HUB_REQUESTS_MAX = 4096 };

MIR_MUST_CHECK mir_status mir_hub_create(const mir_config *config, mir_shard *const *shards,
                                         unsigned shard_count, mir_workers *requests,
                                         const char *server_id, const char *io_name, mir_hub **hub,
                                         mir_error *error);
/* Before start: how the shards do their input and output after all. */
void mir_hub_set_io_name(mir_hub *hub, const char *io_name);
/* The shards run: what was online goes on being watched. */
MIR_MUST_CHECK mir_status mir_hub_start(mir_hub *hub, mir_error *error);
/* The shards have ended: waits for what is in flight; stores are closed by destroy. */
void mir_hub_stop(mir_hub *hub);
void mir_hub_destroy(mir_hub *hub);
MIR_MUST_CHECK mir_status mir_hub_shard_init(mir_hub *hub, mir_shard *shard);
void mir_hub_shard_fini(mir_hub *hub, mir_shard *shard);

extern const mir_endpoints mir_hub_endpoints;

#endif
