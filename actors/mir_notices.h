/* SPDX-License-Identifier: Apache-2.0 */
/* mir_notices: events that tell what the server refused, however often it did.
 *
 * Why        Refused logins, connections and telemetry belong among the events, and whoever causes
 *            them must not be able to fill the store: the first one is told at once, what follows is
 *            counted and told once in a window.
 * Ownership  The shard's actors own what is counted. Everything that is given is copied.
 * Affinity   tell: a shard's thread. What concerns one device or address is counted on one shard.
 * Units      MIR_NOTICES_WINDOW_S seconds.
 * Bounds     MIR_NOTICES_MAX at a time on a shard: further ones are dropped and counted in the log.
 *            MIR_NOTICES_UNDER_WAY relayed to other shards by one: the same.
 * Errors     None: what cannot be stored is counted as lost (mir_event_batch.h). */
#ifndef MIR_NOTICES_H
#define MIR_NOTICES_H

#include "mir_actors.h"

enum {
    MIR_NOTICES_WINDOW_S = 60,
    MIR_NOTICES_MAX = 1024,
    MIR_NOTICES_UNDER_WAY = 4096,
    MIR_NOTICE_TEXT_BYTES_MAX = 200,
    MIR_NOTICE_USER_BYTES_MAX = 128,
    MIR_NOTICE_ADDRESS_BYTES_MAX = 64,
};

/* The id under which events stand that concern no device. */
#define MIR_NOTICE_SERVER "server"

typedef enum mir_notice_reason {
    MIR_NOTICE_TELEMETRY_REFUSED,
    MIR_NOTICE_CONNECTION_REFUSED,
    MIR_NOTICE_AUTHENTICATION_FAILED,
    MIR_NOTICE_FORWARDING_DROPPED,
    MIR_NOTICE_CLOCK_AHEAD,
} mir_notice_reason;

typedef struct mir_notice {
    mir_notice_reason reason;
    mir_view device_id;     /* empty: the server */
    const char *kind;       /* TELEMETRY_REFUSED: that of the problem, a string that stays */
    mir_view text;          /* why */
    mir_view user, address; /* of the connection; may be empty */
    uint64_t count;
} mir_notice;

/* Those with one reason, device and kind are counted together, for the server those of one address. */
void mir_notices_tell(mir_shard *shard, const mir_notice *notice);
void mir_notices_fini(mir_actors *actors);

#endif
