/* SPDX-License-Identifier: Apache-2.0 */
/* mir_letter: a message that a helper thread has written and a shard is to publish.
 *
 * Why        Replies and events are built where the work was done; the shard only sends them, in the
 *            order in which they were written.
 * Ownership  A letter holds its buffer, which it shares with its neighbours when they are many;
 *            publishing or discarding a list frees both. Messages of one buffer share parcels.
 * Affinity   Build: any thread. Publish: a shard.
 * Bounds     None of its own; whoever builds bounds what it builds.
 * Errors     add: null without memory; the list is then marked as failed. */
#ifndef MIR_LETTER_H
#define MIR_LETTER_H

#include <protobuf-c/protobuf-c.h>

#include "mir_bytes.h"
#include "mir_shard.h"

typedef struct mir_letter {
    struct mir_letter *next;
    mir_message message;
} mir_letter;

typedef struct mir_letters {
    mir_letter *first, *last;
    size_t count;
    bool failed;
    size_t used; /* of the last letter's buffer */
} mir_letters;

/* One message made of copies of the pieces. */
void mir_letters_add(mir_letters *letters, mir_view subject, mir_view reply, mir_view header,
                     mir_view payload);
/* The same without a copy of the payload, which is a part of `bytes`: in front of it there is room for
 * what mir_letters_front says. The memory is the letter's, even if that fails; `bytes` is empty then. */
size_t mir_letters_front(mir_view subject, mir_view header);
void mir_letters_add_whole(mir_letters *letters, mir_view subject, mir_view header,
                           mir_bytes *bytes, mir_view payload);
/* The same with a packed protobuf message as payload. */
void mir_letters_add_packed(mir_letters *letters, mir_view subject, mir_view header,
                            const ProtobufCMessage *message);
void mir_letters_publish(mir_shard *shard, mir_letters *letters);
/* The first `max` of them. */
void mir_letters_publish_some(mir_shard *shard, mir_letters *letters, size_t max);
void mir_letters_discard(mir_letters *letters);

/* The chain of a message as lines of a header block, `instance` last; chain may be empty. The
 * result is a whole block of at most MIR_CHAIN_BLOCK_BYTES_MAX bytes, or empty when it would be
 * longer. Returns its size. */
enum { MIR_CHAIN_BLOCK_BYTES_MAX = 4096 };
size_t mir_chain_block(mir_view request_header, mir_view instance, char *to);

/* Puts a line in front of the others of a block. `capacity` is that of the block's memory; returns
 * the new size, or 0 when it does not fit. The value has no control characters. */
size_t mir_block_add(char *block, size_t size, size_t capacity, const char *name, mir_view value);

#endif
