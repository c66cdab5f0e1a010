/* SPDX-License-Identifier: Apache-2.0 */
/* mir_ask: a request of the server's own over the bus, with one answer or none.
 *
 * Why        The server asks devices (for their schema); the answer, a timeout or the absence of
 *            anybody continues where the question was asked.
 * Ownership  An ask is embedded in its owner's operation and linked until `done` is called, which
 *            happens exactly once, possibly before mir_ask_send returns.
 * Affinity   The shard's thread.
 * Errors     done: MIR_OK with the answer, MIR_E_UNREACHABLE (nobody listens), MIR_E_TIMEOUT,
 *            MIR_E_CANCELLED (the server stops). */
#ifndef MIR_ASK_H
#define MIR_ASK_H

#include "mir_actors.h"

typedef struct mir_ask {
    mir_map_node by_token;
    uint64_t token;
    mir_timer timer;
    mir_shard *shard;
    void (*done)(struct mir_ask *ask, mir_status status, const mir_message *answer);
} mir_ask;

void mir_ask_send(mir_shard *shard, mir_ask *ask, mir_view subject, mir_view header,
                  mir_view payload, int64_t timeout_ns);
/* A message on a subject of ours; `token_text` is what follows the shard's number. */
void mir_ask_answer(mir_shard *shard, const mir_message *message);
void mir_ask_cancel_all(mir_shard *shard);

#endif
