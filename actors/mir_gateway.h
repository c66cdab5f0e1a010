/* SPDX-License-Identifier: Apache-2.0 */
/* mir_gateway: what all sessions of all shards share.
 *
 * Why        Identity of the server, limits, logins, and the two counters that are global.
 * Ownership  The server assembly owns it; sessions borrow it.
 * Affinity   Immutable after start but for the atomics.
 * Errors     None. */
#ifndef MIR_GATEWAY_H
#define MIR_GATEWAY_H

#include <stdatomic.h>

#include "mir_auth.h"
#include "mir_config.h"
#include "mir_limits.h"
#include "mir_workers.h"

/* The NATS feature level that clients gate on; the product's own version is a field of its own. */
#define MIR_NATS_LEVEL "2.10.22"

struct mir_gateway {
    const mir_config *config;
    const mir_auth *auth;
    mir_workers *workers;
    char server_id[32];
    char host[64];
    uint16_t port;
    _Atomic uint64_t connections;
    _Atomic uint64_t shard_connections[MIR_SHARDS_MAX];
    _Atomic uint64_t next_client_id;
};

#endif
