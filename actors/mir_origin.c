/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_origin.h"

#include <stdio.h>

#include "mir_device_rules.h"
#include "mir_nats.h"
#include "mir_session.h"

mir_origin mir_origin_of(mir_shard *shard, const mir_message *message)
{
    const mir_session *session = mir_session_find(shard, message->publisher);
    if (session == NULL) return (mir_origin){.user = MIR_VIEW_LITERAL("unknown")};
    return (mir_origin){.user = session->user,
                        .address = session->local ? MIR_VIEW_LITERAL("admin socket")
                                                  : mir_view_cstr(session->address)};
}

mir_view mir_origin_request_id(mir_shard *shard, const mir_message *message,
                               char to[MIR_REQUEST_ID_BYTES_MAX])
{
    mir_view given = mir_nats_header(message->header, MIR_VIEW_LITERAL("mir-request-id"));
    if (given.size != 0 && given.size <= MIR_REQUEST_ID_BYTES_MAX && mir_utf8_valid(given))
        return given;
    int size = snprintf(to, MIR_REQUEST_ID_BYTES_MAX, "%08x%08x", mir_shard_random(shard),
                        mir_shard_random(shard));
    return mir_view_of(to, (size_t)size);
}

mir_status mir_origin_chain(mir_view header, mir_arena *arena, mir_event_cause *cause)
{
    mir_view *links = NULL, key, value;
    for (size_t at = 0; mir_nats_header_next(header, &at, &key, &value);) {
        if (!mir_view_eq_cstr(key, "mir-trigger-chain")) continue;
        if (cause->chain_count == MIR_EVENT_CHAIN_MAX || !mir_utf8_valid(value)) continue;
        if (links == NULL) links = mir_arena_alloc(arena, MIR_EVENT_CHAIN_MAX * sizeof *links);
        if (links == NULL) return MIR_E_NO_MEMORY;
        links[cause->chain_count++] = value;
    }
    cause->chain = links;
    return MIR_OK;
}
