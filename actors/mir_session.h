/* SPDX-License-Identifier: Apache-2.0 */
/* mir_session: one connection: protocol state, identity, permissions, subscriptions, output.
 *
 * Why        Between the bytes of a socket and the messages of a shard.
 * Ownership  The shard's slot table owns it; it owns its partial input, its output chunks and its
 *            subscriptions. Others keep a mir_ref.
 * Affinity   The shard's thread.
 * Bounds     Input: one control line and one message being assembled, plus what was received while
 *            paused (receiving is paused then). Output: limits.max_pending, then it is closed.
 *
 * States     greeted -> [checking ->] open -> closing (error text out, input discarded) -> gone
 *            paused is orthogonal: received bytes wait in `pending` until the reason is over. */
#ifndef MIR_SESSION_H
#define MIR_SESSION_H

#include "mir_auth.h"
#include "mir_nats.h"
#include "mir_responses.h"
#include "mir_shard.h"

typedef enum mir_pause {
    MIR_PAUSE_NONE = 0,
    MIR_PAUSE_SETTLE, /* a PONG waits for neighbours */
    MIR_PAUSE_ROOM,   /* rings are full */
    MIR_PAUSE_CHECK,  /* a password is being checked */
    MIR_PAUSE_PARKED, /* it feeds a congested subscriber: until the timer */
} mir_pause;

typedef struct mir_pending {
    struct mir_pending *next;
    mir_buffer *buffer;
    size_t at, size;
} mir_pending;

struct mir_session {
    mir_slot slot;
    mir_shard *shard;
    uint32_t io_id;
    uint8_t pause;
    bool local;   /* through the admin socket */
    bool greeted; /* CONNECT was accepted */
    bool authenticated;
    bool ponged; /* the first PONG is on its way */
    bool verbose, pedantic, echo, headers, no_responders;
    uint8_t protocol;
    bool closing; /* no more input is taken */
    bool gone;    /* the socket is being closed */
    bool shut;    /* our side was shut down, lingering */
    bool ended;   /* the peer has sent its end of stream */
    bool send_inflight;
    bool is_dirty, is_waiting;
    bool receive_paused;
    uint8_t pings_out;
    bool pinged; /* since the last CONNECT */
    bool processing;
    mir_session *next_dirty, *next_waiting;
    mir_session *next_sending, *prev_sending;

    /* input */
    uint8_t *line; /* the beginning of a control line that is not complete */
    uint32_t line_size, line_capacity;
    mir_buffer *assembling; /* line and body of a message that came in pieces */
    size_t assembled, assembling_need;
    mir_pending *pending, *pending_last;
    /* One for each shard, while PAUSE_SETTLE: a position in its ring; for the own shard a mark of
     * what is held. */
    uint64_t *settle_targets;
    uint64_t touched; /* shards that were sent something since the last PONG */

    /* output */
    mir_chunk *out, *out_last; /* not yet given to the socket */
    mir_chunk *in_flight;
    size_t out_bytes; /* both */
    int64_t send_began_ns;

    mir_subscription *subscriptions;
    uint32_t subscription_count;

    mir_timer timer; /* login deadline, then pings; linger at the end; parking */
    int64_t accepted_ns, last_input_ns, rtt_at_ns, parked_until_ns;
    const mir_permissions *permissions;
    mir_view user;            /* who logged in */
    mir_responses *responses; /* null before the first question */
    char *name;               /* "name/lang/version" for people; may be null */
    const char *close_reason;
    uint64_t client_id;
    char address[48];
};

/* Takes an accepted socket: greets and begins to receive. Closes it when that is not possible. */
void mir_session_accept(mir_shard *shard, int fd, bool local);
void mir_session_event(mir_shard *shard, const mir_event *event);
/* Closes after flushing `text` (an -ERR line without the frame) when it is not null. */
void mir_session_fail(mir_session *session, const char *text, const char *reason);
/* Closes without flushing. */
void mir_session_drop(mir_session *session, const char *reason);
/* Sends what is queued; once a turn for each dirty session. */
void mir_session_flush(mir_session *session);
/* Tries to go on with what was paused; false while the reason holds. */
bool mir_session_resume(mir_session *session);
/* Write deadlines of the shard's sessions. */
void mir_session_sweep(mir_shard *shard);
/* Lame duck: one INFO. */
void mir_session_announce_lame_duck(mir_session *session);

typedef enum mir_delivery {
    MIR_DELIVERED = 0,
    MIR_NOT_DELIVERED, /* gone, own message with echo off, withheld, closing */
    MIR_DELIVERED_CONGESTED,
} mir_delivery;

/* Writes a message to the session of a subscription of this shard. */
mir_delivery mir_session_deliver(mir_shard *shard, mir_ref subscription,
                                 const mir_message *message);
/* The 503 for a request that nobody took, when the session asked for such. */
void mir_session_no_responders(mir_session *session, const mir_message *message);
/* The publisher parks for a moment: it feeds a congested subscriber. */
void mir_session_park(mir_session *session);

static inline mir_ref mir_session_ref(const mir_session *session)
{
    return mir_ref_make(session->shard->id, session->slot.generation, session->slot.index);
}
mir_session *mir_session_find(mir_shard *shard, mir_ref ref);
/* Whether it serves this one device: its permissions name no other, or it subscribes below the id of
 * this one alone (beside inboxes), and not more often than MIR_SESSION_OF_SUBSCRIPTIONS_MAX: every
 * subscription looks at all of them. */
enum { MIR_SESSION_OF_SUBSCRIPTIONS_MAX = 64 };
bool mir_session_is_of(const mir_session *session, mir_view device_id);

/* Something that this session published goes to a neighbour with the next parcel: its next PONG
 * waits for that. True when it is a PONG that waits already. */
static inline bool mir_session_touch(mir_session *session, unsigned to)
{
    session->touched |= UINT64_C(1) << to;
    if (session->pause != MIR_PAUSE_SETTLE) return false;
    session->settle_targets[to] = mir_loop_sent(session->shard->loop, to) + 1;
    return true;
}

#endif
