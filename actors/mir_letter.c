/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_letter.h"

#include <stdlib.h>

#include "mir_assert.h"
#include "mir_nats.h"

/* Few letters have buffers of their own, as large as they are; from then on those that are small share
 * larger ones. */
enum { LETTERS_ALONE = 4, SHARED_BYTES = 64 * 1024 };

/* The buffer of the next letter, and where in it. */
static mir_buffer *buffer_for(mir_letters *letters, size_t size, size_t *at)
{
    mir_buffer *last = letters->last == NULL ? NULL : letters->last->message.buffer;
    *at = 0;
    if (last == NULL || letters->count < LETTERS_ALONE || size > SHARED_BYTES / 4)
        return mir_buffer_heap(size);
    if (last->capacity == SHARED_BYTES && SHARED_BYTES - letters->used >= size) {
        *at = letters->used;
        mir_buffer_retain(last);
        return last;
    }
    return mir_buffer_heap(SHARED_BYTES);
}

/* The last one of a list, with copies of the pieces from `at` on; the payload goes behind them. */
static void letter_fill(mir_letters *letters, mir_letter *letter, mir_buffer *buffer, uint8_t *at,
                        mir_view subject, mir_view reply, mir_view header, size_t payload_size)
{
    mir_view pieces[3] = {subject, reply, header};
    for (int i = 0; i < 3; i++) {
        if (pieces[i].size != 0) memcpy(at, pieces[i].data, pieces[i].size);
        pieces[i].data = at;
        at += pieces[i].size;
    }
    *letter = (mir_letter){.message = {.subject = pieces[0],
                                       .reply = pieces[1],
                                       .header = pieces[2],
                                       .payload = {at, payload_size},
                                       .buffer = buffer}};
    if (letters->last == NULL)
        letters->first = letter;
    else
        letters->last->next = letter;
    letters->last = letter;
    letters->count++;
}

static mir_letter *letter_new(mir_letters *letters, mir_view subject, mir_view reply,
                              mir_view header, size_t payload_size)
{
    mir_letter *letter = malloc(sizeof *letter);
    size_t size = subject.size + reply.size + header.size + payload_size, first;
    mir_buffer *buffer = buffer_for(letters, size, &first);
    if (letter == NULL || buffer == NULL) {
        free(letter);
        if (buffer != NULL) mir_buffer_release(buffer);
        letters->failed = true;
        return NULL;
    }
    letters->used = first + size;
    letter_fill(letters, letter, buffer, buffer->data + first, subject, reply, header,
                payload_size);
    return letter;
}

void mir_letters_add(mir_letters *letters, mir_view subject, mir_view reply, mir_view header,
                     mir_view payload)
{
    mir_letter *letter = letter_new(letters, subject, reply, header, payload.size);
    if (letter != NULL && payload.size != 0)
        memcpy((uint8_t *)(uintptr_t)letter->message.payload.data, payload.data, payload.size);
}

size_t mir_letters_front(mir_view subject, mir_view header)
{
    return sizeof(mir_buffer) + subject.size + header.size;
}

void mir_letters_add_whole(mir_letters *letters, mir_view subject, mir_view header,
                           mir_bytes *bytes, mir_view payload)
{
    mir_letter *letter = malloc(sizeof *letter);
    if (letter == NULL) {
        letters->failed = true;
        mir_bytes_free(bytes);
        return;
    }
    const size_t at = (size_t)(payload.data - bytes->data) - subject.size - header.size;
    MIR_ASSERT(at >= sizeof(mir_buffer));
    uint8_t *from = bytes->data + at;
    mir_buffer *buffer = mir_buffer_adopt(bytes->data, bytes->capacity);
    *bytes = (mir_bytes){.size_max = bytes->size_max};
    letters->used = SHARED_BYTES; /* nothing else goes into it */
    letter_fill(letters, letter, buffer, from, subject, (mir_view){0}, header, payload.size);
}

void mir_letters_add_packed(mir_letters *letters, mir_view subject, mir_view header,
                            const ProtobufCMessage *message)
{
    size_t size = protobuf_c_message_get_packed_size(message);
    mir_letter *letter = letter_new(letters, subject, (mir_view){0}, header, size);
    if (letter != NULL)
        (void)protobuf_c_message_pack(message, (uint8_t *)(uintptr_t)letter->message.payload.data);
}

static mir_letter *letter_take(mir_letters *letters)
{
    mir_letter *letter = letters->first;
    if (letter == NULL) return NULL;
    letters->first = letter->next;
    if (letters->first == NULL) letters->last = NULL;
    letters->count--;
    return letter;
}

void mir_letters_publish_some(mir_shard *shard, mir_letters *letters, size_t max)
{
    mir_letter *letter;
    for (size_t i = 0; i < max && (letter = letter_take(letters)) != NULL; i++) {
        (void)mir_shard_publish(shard, &letter->message, NULL);
        mir_buffer_release(letter->message.buffer);
        free(letter);
    }
}

void mir_letters_publish(mir_shard *shard, mir_letters *letters)
{
    mir_letters_publish_some(shard, letters, SIZE_MAX);
}

void mir_letters_discard(mir_letters *letters)
{
    mir_letter *letter;
    while ((letter = letter_take(letters)) != NULL) {
        mir_buffer_release(letter->message.buffer);
        free(letter);
    }
}

size_t mir_block_add(char *block, size_t size, size_t capacity, const char *name, mir_view value)
{
    enum { FIRST = sizeof "NATS/1.0\r\n" - 1 };
    size_t name_size = strlen(name);
    size_t extra = name_size + 2 + value.size + 2;
    if (size < FIRST || extra > capacity || size > capacity - extra) return 0;
    char *at = block + FIRST;
    memmove(at + extra, at, size - FIRST);
    memcpy(at, name, name_size);
    at += name_size;
    *at++ = ':';
    *at++ = ' ';
    if (value.size != 0) memcpy(at, value.data, value.size);
    at += value.size;
    *at++ = '\r';
    *at = '\n';
    return size + extra;
}

size_t mir_chain_block(mir_view request_header, mir_view instance, char *to)
{
    static const char first[] = "NATS/1.0\r\n", name[] = "mir-trigger-chain: ";
    size_t used = sizeof first - 1;
    memcpy(to, first, used);
    size_t at = 0;
    mir_view key, value;
    /* Room is kept for the instance and the end. */
    size_t limit = MIR_CHAIN_BLOCK_BYTES_MAX - (sizeof name + instance.size + 8);
    while (mir_nats_header_next(request_header, &at, &key, &value)) {
        if (!mir_view_eq_cstr(key, "mir-trigger-chain")) continue;
        if (sizeof name + value.size + 2 > limit - used) break;
        memcpy(to + used, name, sizeof name - 1);
        used += sizeof name - 1;
        memcpy(to + used, value.data, value.size);
        used += value.size;
        to[used++] = '\r';
        to[used++] = '\n';
    }
    memcpy(to + used, name, sizeof name - 1);
    used += sizeof name - 1;
    memcpy(to + used, instance.data, instance.size);
    used += instance.size;
    memcpy(to + used, "\r\n\r\n", 4);
    return used + 4;
}
