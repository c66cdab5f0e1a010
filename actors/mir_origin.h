/* SPDX-License-Identifier: Apache-2.0 */
/* mir_origin: who sent a message, for the events that tell of what it caused.
 *
 * Ownership  Views are the session's; copy them before the call ends.
 * Affinity   of, request_id: the shard that received the message. chain: any thread. */
#ifndef MIR_ORIGIN_H
#define MIR_ORIGIN_H

#include "mir_arena.h"
#include "mir_event.h"
#include "mir_shard.h"

enum { MIR_REQUEST_ID_BYTES_MAX = 128 };

typedef struct mir_origin {
    mir_view user;
    mir_view address; /* host:port, or "admin socket"; empty: it is not connected any more */
} mir_origin;

mir_origin mir_origin_of(mir_shard *shard, const mir_message *message);
/* The header mir-request-id, or a random id, which is written to `to`. */
mir_view mir_origin_request_id(mir_shard *shard, const mir_message *message,
                               char to[MIR_REQUEST_ID_BYTES_MAX]);
/* The links of a header's trigger chain, as views into it; those that are no text are left out. */
MIR_MUST_CHECK mir_status mir_origin_chain(mir_view header, mir_arena *arena,
                                           mir_event_cause *cause);

#endif
