/* SPDX-License-Identifier: Apache-2.0 */
/* mir_pb: protobuf-c messages in arenas, read from bytes that nobody has checked.
 *
 * Why        protobuf-c unpacks without any limit of depth, takes text that is no text, and
 *            allocates piece by piece. Here a message is checked first, lives in one arena and goes
 *            with it.
 * Ownership  Messages belong to the arena; free_unpacked is never called on them.
 * Affinity   Any thread; an arena has one user at a time.
 * Bounds     MIR_PB_DEPTH_MAX levels of messages. Memory: the arena's bytes_max.
 * Errors     MIR_E_INVALID for bytes that are not the message: wrong lengths, too deep, a string
 *            that is not UTF-8 or holds a zero byte. MIR_E_NO_MEMORY when the arena is exhausted.
 */
#ifndef MIR_PB_H
#define MIR_PB_H

#include <protobuf-c/protobuf-c.h>

#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_status.h"
#include "mir_view.h"

enum { MIR_PB_DEPTH_MAX = 100 };

/* An allocator over the arena; it frees nothing. Valid as long as the arena stays where it is. */
ProtobufCAllocator mir_pb_allocator(mir_arena *arena);

/* Walks the bytes by the descriptor, without recursion and without memory. */
MIR_MUST_CHECK mir_status mir_pb_check(const ProtobufCMessageDescriptor *descriptor, mir_view wire,
                                       mir_error *error);

/* Checks and unpacks the bytes of a peer. `*message` is a pointer to the generated type. The
 * strings and bytes of the message are copies: `wire` may go. */
MIR_MUST_CHECK mir_status mir_pb_unpack(const ProtobufCMessageDescriptor *descriptor, mir_view wire,
                                        mir_arena *arena, void *message, mir_error *error);

/* Appends the packed message (`&message->base`); mir_bytes_ok tells whether there was room. */
void mir_pb_pack(const ProtobufCMessage *message, mir_bytes *out);
#define MIR_PB_PACK(message, out) mir_pb_pack(&(message)->base, (out))

#endif
