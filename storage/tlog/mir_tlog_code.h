/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_code: how numbers stand in the telemetry log's files.
 *
 * Why        Logs, segments and the manifest share these few forms: little-endian words, LEB128
 *            varints of 1 to 10 bytes, and zigzag (0, -1, 1, -2 … as 0, 1, 2, 3 …) for signed ones.
 * Ownership  A reader points into bytes that its caller keeps.
 * Bounds     A reader never passes its end: it turns `failed`, answers 0 from then on, and is asked
 *            once, at the end.
 * Errors     mir_tlog_reader.failed. */
#ifndef MIR_TLOG_CODE_H
#define MIR_TLOG_CODE_H

#include <endian.h>
#include <string.h>

#include "mir_bytes.h"
#include "mir_view.h"

enum { MIR_TLOG_VARINT_BYTES_MAX = 10 };

static inline uint64_t mir_tlog_zigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

static inline int64_t mir_tlog_unzigzag(uint64_t value)
{
    return (int64_t)((value >> 1) ^ (0 - (value & 1)));
}

/* Room for MIR_TLOG_VARINT_BYTES_MAX at `to`; returns past the last byte. */
static inline uint8_t *mir_tlog_put_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

/* The same number, quicker; may write up to MIR_TLOG_VARINT_BYTES_MAX bytes where fewer are part of
 * it. */
static inline uint8_t *mir_tlog_put_varint_spread(uint8_t *to, uint64_t value)
{
    if (value < 0x80) {
        *to = (uint8_t)value;
        return to + 1;
    }
    if (value < 0x4000) {
        const uint16_t two = htole16((uint16_t)(value << 1 & 0x7f00) | (value & 0x7f) | 0x80);
        memcpy(to, &two, sizeof two);
        return to + 2;
    }
    if (value >> 56 != 0) {
        while (value >= 0x80) {
            *to++ = (uint8_t)(value | 0x80);
            value >>= 7;
        }
        *to++ = (uint8_t)value;
        return to;
    }
    /* Up to eight groups of seven bits, each to its byte: the other way round is mir_tlog_varint_fold. */
    const uint32_t groups = (63 - (uint32_t)__builtin_clzll(value)) / 7;
    uint64_t word = (value & UINT64_C(0x0fffffff)) | (value & UINT64_C(0xfffffff0000000)) << 4;
    word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x0fffc0000fffc000)) << 2;
    word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x3f803f803f803f80)) << 1;
    word |= UINT64_C(0x8080808080808080) & ((UINT64_C(1) << 8 * groups) - 1);
    word = htole64(word);
    memcpy(to, &word, sizeof word);
    return to + groups + 1;
}

static inline uint32_t mir_tlog_varint_size(uint64_t value)
{
    return (uint32_t)(63 - __builtin_clzll(value | 1)) / 7 + 1;
}

/* By memcpy, which is one instruction: compilers make eight turns of a loop over the bytes. */
static inline uint8_t *mir_tlog_put_u32(uint8_t *to, uint32_t value)
{
    value = htole32(value);
    memcpy(to, &value, sizeof value);
    return to + sizeof value;
}

static inline uint8_t *mir_tlog_put_u64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    memcpy(to, &value, sizeof value);
    return to + sizeof value;
}

static inline uint32_t mir_tlog_get_u32(const uint8_t *from)
{
    uint32_t value;
    memcpy(&value, from, sizeof value);
    return le32toh(value);
}

static inline uint64_t mir_tlog_get_u64(const uint8_t *from)
{
    uint64_t value;
    memcpy(&value, from, sizeof value);
    return le64toh(value);
}

static inline void mir_tlog_bytes_varint(mir_bytes *bytes, uint64_t value)
{
    uint8_t text[MIR_TLOG_VARINT_BYTES_MAX];
    mir_bytes_append(bytes, text, (size_t)(mir_tlog_put_varint(text, value) - text));
}

static inline void mir_tlog_bytes_u64(mir_bytes *bytes, uint64_t value)
{
    uint8_t text[8];
    (void)mir_tlog_put_u64(text, value);
    mir_bytes_append(bytes, text, sizeof text);
}

static inline void mir_tlog_bytes_text(mir_bytes *bytes, mir_view text)
{
    mir_tlog_bytes_varint(bytes, text.size);
    mir_bytes_view(bytes, text);
}

typedef struct mir_tlog_reader {
    const uint8_t *at;
    const uint8_t *end;
    bool failed;
} mir_tlog_reader;

static inline mir_tlog_reader mir_tlog_reader_of(const void *data, size_t size)
{
    return (mir_tlog_reader){.at = data, .end = (const uint8_t *)data + size};
}

static inline size_t mir_tlog_reader_left(const mir_tlog_reader *reader)
{
    return (size_t)(reader->end - reader->at);
}

/* Of up to 8 bytes at once: `word` holds them, their groups of 7 bits are moved together. */
static inline uint64_t mir_tlog_varint_fold(uint64_t word)
{
    word &= UINT64_C(0x7f7f7f7f7f7f7f7f);
    word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x7f007f007f007f00)) >> 1;
    word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x3fff00003fff0000)) >> 2;
    return (word & UINT64_C(0x000000000fffffff)) | (word & UINT64_C(0x0fffffff00000000)) >> 4;
}

static inline uint64_t mir_tlog_read_varint(mir_tlog_reader *reader)
{
    if (mir_tlog_reader_left(reader) >= 8) {
        const uint64_t word = mir_tlog_get_u64(reader->at);
        const uint64_t last = ~word & UINT64_C(0x8080808080808080);
        if (last != 0) {
            reader->at += (uint32_t)__builtin_ctzll(last) / 8 + 1;
            return mir_tlog_varint_fold(word & (last ^ (last - 1)));
        }
    }
    uint64_t value = 0;
    for (uint32_t shift = 0; shift < 64 && reader->at < reader->end; shift += 7) {
        const uint8_t byte = *reader->at++;
        if (shift == 63 && byte > 1) break;
        value |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) return value;
    }
    reader->failed = true;
    reader->at = reader->end;
    return 0;
}

/* One that is known to be whole, with MIR_TLOG_VARINT_BYTES_MAX bytes to read from `*at` on. */
static inline uint64_t mir_tlog_take_varint(const uint8_t **at)
{
    const uint8_t *from = *at;
    if (from[0] < 0x80) {
        *at = from + 1;
        return from[0];
    }
    if (from[1] < 0x80) {
        *at = from + 2;
        return (uint64_t)(from[0] & 0x7f) | (uint64_t)from[1] << 7;
    }
    const uint64_t word = mir_tlog_get_u64(from);
    const uint64_t last = ~word & UINT64_C(0x8080808080808080);
    if (last != 0) {
        *at = from + (uint32_t)__builtin_ctzll(last) / 8 + 1;
        return mir_tlog_varint_fold(word & (last ^ (last - 1)));
    }
    const bool is_longest = (from[8] & 0x80) != 0;
    *at = from + (is_longest ? 10 : 9);
    return mir_tlog_varint_fold(word) | (uint64_t)(from[8] & 0x7f) << 56 |
           (is_longest ? (uint64_t)from[9] << 63 : 0);
}

static inline int64_t mir_tlog_read_signed(mir_tlog_reader *reader)
{
    return mir_tlog_unzigzag(mir_tlog_read_varint(reader));
}

static inline mir_view mir_tlog_read_bytes(mir_tlog_reader *reader, uint64_t size)
{
    if (size > mir_tlog_reader_left(reader)) {
        reader->failed = true;
        reader->at = reader->end;
        return (mir_view){NULL, 0};
    }
    const mir_view view = {reader->at, (size_t)size};
    reader->at += size;
    return view;
}

static inline mir_view mir_tlog_read_text(mir_tlog_reader *reader)
{
    return mir_tlog_read_bytes(reader, mir_tlog_read_varint(reader));
}

static inline uint8_t mir_tlog_read_u8(mir_tlog_reader *reader)
{
    const mir_view view = mir_tlog_read_bytes(reader, 1);
    return view.size == 1 ? view.data[0] : 0;
}

static inline uint64_t mir_tlog_read_u64(mir_tlog_reader *reader)
{
    const mir_view view = mir_tlog_read_bytes(reader, 8);
    return view.size == 8 ? mir_tlog_get_u64(view.data) : 0;
}

#endif
