/* SPDX-License-Identifier: Apache-2.0 */
/* mir_ring: a bounded queue of message pointers from one shard to one other shard.
 *
 * Why        Shards share no mutable state; this is the road between two of them.
 * Ownership  A message becomes the consumer's when push returns MIR_OK; otherwise it stays the
 *            producer's. The ring never touches what the pointers point to.
 * Affinity   push, room, pushed: the producer shard. pop, consumed_set: the consumer shard.
 *            consumed: the producer shard. create, destroy: nobody else running.
 * Units      Messages. slot_count is a power of two; slot_count - 1 are usable.
 * Bounds     Wait-free. No allocation, no lock, no system call, no growth.
 * Errors     push: MIR_OK, MIR_E_FULL. pop: MIR_OK, MIR_E_EMPTY. A refusal changes nothing.
 * Source     Concurrency Kit's ck_ring, single producer, single consumer. The implementation is
 *            compiled without ThreadSanitizer, which cannot see ck's assembly, and annotates its
 *            acquire and release instead.
 *
 * Popping is not having handled: `consumed` counts the messages whose effects are complete, and
 * the consumer publishes it after the step that makes them so. A producer that must know (the PONG
 * barrier) compares it with its own `pushed`. */
#ifndef MIR_RING_H
#define MIR_RING_H

#include <stdint.h>

#include "mir_status.h"

typedef struct mir_ring mir_ring;

MIR_MUST_CHECK mir_status mir_ring_create(uint32_t slot_count, mir_ring **ring);
void mir_ring_destroy(mir_ring *ring);
MIR_MUST_CHECK mir_status mir_ring_push(mir_ring *ring, void *message);
MIR_MUST_CHECK mir_status mir_ring_pop(mir_ring *ring, void **message);
/* How many more push calls will succeed at least. */
uint32_t mir_ring_room(const mir_ring *ring);
uint64_t mir_ring_pushed(const mir_ring *ring);
/* How many messages were popped so far (consumer side). */
uint64_t mir_ring_popped(const mir_ring *ring);
/* Publishes that the first `count` messages have taken full effect. */
void mir_ring_consumed_set(mir_ring *ring, uint64_t count);
uint64_t mir_ring_consumed(const mir_ring *ring);

#endif
