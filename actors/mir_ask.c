/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_ask.h"

#include <stdio.h>

static void finish(mir_ask *ask, mir_status status, const mir_message *answer)
{
    mir_actors *actors = mir_actors_of(ask->shard);
    mir_map_remove(&actors->asks, &ask->by_token);
    mir_timer_cancel(&ask->shard->loop->timers, &ask->timer);
    ask->done(ask, status, answer);
}

static void on_timeout(mir_timer *timer, void *context)
{
    (void)context;
    finish(MIR_CONTAINER(timer, mir_ask, timer), MIR_E_TIMEOUT, NULL);
}

static mir_ask *find(mir_actors *actors, uint64_t token)
{
    for (mir_map_node *n = mir_map_first(&actors->asks, token); n != NULL; n = mir_map_next(n)) {
        mir_ask *ask = MIR_CONTAINER(n, mir_ask, by_token);
        if (ask->token == token) return ask;
    }
    return NULL;
}

void mir_ask_send(mir_shard *shard, mir_ask *ask, mir_view subject, mir_view header,
                  mir_view payload, int64_t timeout_ns)
{
    mir_actors *actors = mir_actors_of(shard);
    ask->shard = shard;
    /* Random, so that nobody can answer for another by counting. */
    ask->token = (uint64_t)mir_shard_random(shard) << 32 | mir_shard_random(shard);
    ask->timer = (mir_timer){.fire = on_timeout};
    char reply[96];
    int size = snprintf(reply, sizeof reply, "%s%u.%016llx", actors->hub->inbox, shard->id,
                        (unsigned long long)ask->token);
    mir_map_add(&actors->asks, &ask->by_token, ask->token);
    mir_timer_set(&shard->loop->timers, &ask->timer, shard->loop->now_ns + timeout_ns);
    uint64_t token = ask->token;
    unsigned delivered =
        mir_shard_emit(shard, subject, mir_view_of(reply, (size_t)size), header, payload);
    /* The answer may have come already, and the ask may be gone. */
    if (delivered == 0 && find(actors, token) == ask) finish(ask, MIR_E_UNREACHABLE, NULL);
}

void mir_ask_answer(mir_shard *shard, const mir_message *message)
{
    uint64_t token = 0;
    if (message->key.size != 16) return;
    for (size_t i = 0; i < 16; i++) {
        uint8_t c = message->key.data[i];
        unsigned digit = c >= '0' && c <= '9' ? c - '0' : c >= 'a' && c <= 'f' ? c - 'a' + 10 : 16;
        if (digit > 15) return;
        token = token << 4 | digit;
    }
    mir_ask *ask = find(mir_actors_of(shard), token);
    if (ask != NULL) finish(ask, MIR_OK, message);
}

void mir_ask_cancel_all(mir_shard *shard)
{
    mir_actors *actors = mir_actors_of(shard);
    uint32_t from = 0;
    mir_map_node *node;
    while ((node = mir_map_any(&actors->asks, &from)) != NULL)
        finish(MIR_CONTAINER(node, mir_ask, by_token), MIR_E_CANCELLED, NULL);
}
