/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_reply.h"

bool mir_reply_is_inbox(mir_view subject)
{
    return mir_view_starts(subject, MIR_VIEW_LITERAL("_INBOX."));
}

bool mir_reply_allowed(mir_hub *hub, mir_view subject)
{
    if (subject.size == 0 || mir_reply_is_inbox(subject)) return true;
    const uint8_t *dot = memchr(subject.data, '.', subject.size);
    if (dot == NULL) return true;
    mir_arena arena = {0};
    MirStore__V1__DeviceRecord *record;
    mir_status status = mir_state_get(
        hub->state, mir_view_of(subject.data, (size_t)(dot - subject.data)), &arena, &record, NULL);
    mir_arena_free(&arena);
    return status == MIR_E_NOT_FOUND;
}
