/* SPDX-License-Identifier: Apache-2.0 */
/* mir_holding: which messages of one source have not taken effect yet, as far as a PONG must know.
 *
 * Why        A message that a twin holds until it is activated was handled, but has not taken
 *            effect. A PONG waits for those that its connection published before the PING, and must
 *            not wait for those that come after: under a stream of unknown devices there are always
 *            some. One counter for all of them could not tell the two apart.
 * Ownership  A part of the shard that holds; one for each source, which is a shard.
 * Affinity   The thread of the shard that holds.
 * Bounds     A held message belongs to the generation that is open when it comes. Each turn, and
 *            each mark, closes the open generation when one of MIR_HOLDING_GENERATIONS places is free;
 *            otherwise it goes on, and what comes joins it. So a PONG waits for what came before its
 *            PING, and for what joined that while the oldest of the closed ones was waited for.
 *            Each call is a few instructions; none allocates. close, and remove, look at no more than
 *            MIR_HOLDING_GENERATIONS places.
 * Errors     None.
 *
 * Two ways to ask, both of which close the open generation if they can:
 *   mark, passed   for sessions of the holding shard itself
 *   settled        for a neighbour, which knows its messages by their position in the ring
 *
 * A message may also be answered with one that must be on its way to the source before the source
 * hears of any effect (a queue member's message that goes back, a 503). owe says that the source's
 * ring must have taken all up to a position; paid, how far it is. */
#ifndef MIR_HOLDING_H
#define MIR_HOLDING_H

#include <stdbool.h>
#include <stdint.h>

enum { MIR_HOLDING_GENERATIONS = 8 };

typedef struct mir_holding_generation {
    uint32_t count;   /* of messages; one more while something is owed */
    uint64_t owed;    /* position in the ring towards the source; 0: nothing */
    uint64_t handled; /* of the source's messages, when this generation was opened */
} mir_holding_generation;

/* Zeroed is empty. */
typedef struct mir_holding {
    uint64_t oldest, newest; /* generations are counted from 0; the newest is open */
    uint32_t count;          /* of all */
    bool owes;
    mir_holding_generation of[MIR_HOLDING_GENERATIONS]; /* by number, modulo */
} mir_holding;

static inline bool mir_holding_is_empty(const mir_holding *holding)
{
    return holding->count == 0;
}

/* One more is held. The tag is for remove. */
static inline uint8_t mir_holding_add(mir_holding *holding)
{
    uint8_t tag = (uint8_t)(holding->newest % MIR_HOLDING_GENERATIONS);
    holding->of[tag].count++;
    holding->count++;
    return tag;
}

/* It has taken effect, or is given up. */
void mir_holding_remove(mir_holding *holding, uint8_t tag);

/* What is held now has passed when mir_holding_passed says so of this mark. */
uint64_t mir_holding_mark(mir_holding *holding);
static inline bool mir_holding_passed(const mir_holding *holding, uint64_t mark)
{
    return holding->oldest >= mark;
}

uint64_t mir_holding_settled_while_held(mir_holding *holding, uint64_t handled);
/* Of the first `handled` messages of the source: how many, from the first on, have taken effect; less
 * than was said before when it is not known any more. Once a turn while something is held. */
static inline uint64_t mir_holding_settled(mir_holding *holding, uint64_t handled)
{
    return holding->count == 0 ? handled : mir_holding_settled_while_held(holding, handled);
}

/* What was handled since the last call of settled is complete when the ring towards the source has
 * taken all up to `position`. */
void mir_holding_owe(mir_holding *holding, uint64_t position);
void mir_holding_paid(mir_holding *holding, uint64_t pushed);

#endif
