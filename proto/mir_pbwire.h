/* SPDX-License-Identifier: Apache-2.0 */
/* mir_pbwire: reading and writing the protobuf wire format, piece by piece.
 *
 * Why        Messages whose types are known only at run time are walked by hand; the descriptor
 *            loader, the decode plan and the JSON codec share these few steps.
 * Ownership  The reader points into bytes of the caller.
 * Affinity   One thread per reader.
 * Bounds     Never reads outside of the bytes; groups are skipped to MIR_PBWIRE_GROUP_DEPTH_MAX.
 * Errors     False: the bytes are malformed; the reader's position is then meaningless. A tag with
 *            number 0, over 2^29 - 1 or with wire type 6 or 7 is malformed, as is a varint that
 *            does not fit into 64 bits.
 * Source     The encoding of Protocol Buffers. */
#ifndef MIR_PBWIRE_H
#define MIR_PBWIRE_H

#include <endian.h>
#include <string.h>

#include "mir_bytes.h"

enum {
    MIR_PBWIRE_VARINT = 0,
    MIR_PBWIRE_FIXED64 = 1,
    MIR_PBWIRE_BYTES = 2,
    MIR_PBWIRE_GROUP = 3,
    MIR_PBWIRE_GROUP_END = 4,
    MIR_PBWIRE_FIXED32 = 5,
};
enum { MIR_PBWIRE_GROUP_DEPTH_MAX = 64, MIR_PBWIRE_NUMBER_MAX = (1 << 29) - 1 };

typedef struct mir_pbwire {
    const uint8_t *at;
    const uint8_t *end;
} mir_pbwire;

static inline mir_pbwire mir_pbwire_of(mir_view view)
{
    static const uint8_t nothing[1];
    if (view.size == 0) return (mir_pbwire){nothing, nothing};
    return (mir_pbwire){view.data, view.data + view.size};
}

static inline bool mir_pbwire_more(const mir_pbwire *wire)
{
    return wire->at < wire->end;
}

bool mir_pbwire_varint_long(mir_pbwire *wire, uint64_t *value);

static inline bool mir_pbwire_varint(mir_pbwire *wire, uint64_t *value)
{
    if (__builtin_expect(wire->at < wire->end && *wire->at < 0x80, 1)) {
        *value = *wire->at++;
        return true;
    }
    return mir_pbwire_varint_long(wire, value);
}

/* `tag` is number << 3 | wire type. */
static inline bool mir_pbwire_tag(mir_pbwire *wire, uint32_t *tag)
{
    uint64_t value = 0;
    if (!mir_pbwire_varint(wire, &value)) return false;
    if (value < 8 || value > UINT32_MAX || (value & 7) > 5) return false;
    *tag = (uint32_t)value;
    return true;
}

static inline bool mir_pbwire_bytes(mir_pbwire *wire, mir_view *bytes)
{
    uint64_t size = 0;
    if (!mir_pbwire_varint(wire, &size) || size > (uint64_t)(wire->end - wire->at)) return false;
    *bytes = (mir_view){wire->at, (size_t)size};
    wire->at += size;
    return true;
}

static inline bool mir_pbwire_fixed32(mir_pbwire *wire, uint32_t *value)
{
    if (wire->end - wire->at < 4) return false;
    const uint8_t *at = wire->at;
    *value = (uint32_t)at[0] | (uint32_t)at[1] << 8 | (uint32_t)at[2] << 16 | (uint32_t)at[3] << 24;
    wire->at += 4;
    return true;
}

static inline bool mir_pbwire_fixed64(mir_pbwire *wire, uint64_t *value)
{
    uint32_t low = 0, high = 0;
    if (wire->end - wire->at < 8) return false;
    (void)mir_pbwire_fixed32(wire, &low);
    (void)mir_pbwire_fixed32(wire, &high);
    *value = (uint64_t)high << 32 | low;
    return true;
}

/* Passes over the value that follows the tag, a whole group included. */
bool mir_pbwire_skip(mir_pbwire *wire, uint32_t tag);

/* The next field, whatever it is. `bytes` is set for MIR_PBWIRE_BYTES and is empty otherwise;
 * `value` for the number types. A group is passed over. */
bool mir_pbwire_next(mir_pbwire *wire, uint32_t *tag, uint64_t *value, mir_view *bytes);

static inline uint32_t mir_pbwire_make_tag(uint32_t number, uint32_t type)
{
    return number << 3 | type;
}

static inline int64_t mir_pbwire_zigzag(uint64_t value)
{
    return (int64_t)(value >> 1) ^ -(int64_t)(value & 1);
}

static inline uint64_t mir_pbwire_unzigzag(int64_t value)
{
    return ((uint64_t)value << 1) ^ (uint64_t)(value >> 63);
}

enum { MIR_PBWIRE_VARINT_BYTES_MAX = 10 };

/* Room for MIR_PBWIRE_VARINT_BYTES_MAX at `to`; returns past the last byte. */
static inline uint8_t *mir_pbwire_write_varint(uint8_t *to, uint64_t value)
{
    while (value >= 0x80) {
        *to++ = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    *to++ = (uint8_t)value;
    return to;
}

static inline unsigned mir_pbwire_varint_size(uint64_t value)
{
    const unsigned highest = 63u ^ (unsigned)__builtin_clzll(value | 1);
    return (highest * 9 + 73) / 64;
}

static inline void mir_pbwire_store64(uint8_t *to, uint64_t value)
{
    value = htole64(value);
    memcpy(to, &value, sizeof value);
}

/* The low 28 bits, seven to a byte. */
static inline uint64_t mir_pbwire_spread28(uint64_t value)
{
    return (value & 0x7f) | (value & 0x3f80) << 1 | (value & 0x1fc000) << 2 |
           (value & 0xfe00000) << 3;
}

/* Of a varint of `size` bytes, at most 8: all but the last one say that another follows. */
static inline uint64_t mir_pbwire_continued(unsigned size)
{
    return UINT64_C(0x80808080808080) >> (64 - 8 * size);
}

/* mir_pbwire_write_varint without a step for each byte, for many values in a row of which nobody knows
 * how long they are. It may write over all MIR_PBWIRE_VARINT_BYTES_MAX bytes at `to`. */
static inline uint8_t *mir_pbwire_write_varint_wide(uint8_t *to, uint64_t value)
{
    const unsigned size = mir_pbwire_varint_size(value);
    const uint64_t low = mir_pbwire_spread28(value);
    if (size <= 4) {
        mir_pbwire_store64(to, low | mir_pbwire_continued(size));
        return to + size;
    }
    const uint64_t eight = low | mir_pbwire_spread28(value >> 28) << 32;
    if (size <= 8) {
        mir_pbwire_store64(to, eight | mir_pbwire_continued(size));
        return to + size;
    }
    mir_pbwire_store64(to, eight | UINT64_C(0x8080808080808080));
    to[8] = (uint8_t)(value >> 56);
    to[9] = 1;
    return to + size;
}

void mir_pbwire_put_varint(mir_bytes *bytes, uint64_t value);
void mir_pbwire_put_fixed32(mir_bytes *bytes, uint32_t value);
void mir_pbwire_put_fixed64(mir_bytes *bytes, uint64_t value);
void mir_pbwire_put_bytes(mir_bytes *bytes, uint32_t number, mir_view value);
/* Puts the length of what was appended since `start` before it. */
void mir_pbwire_put_length(mir_bytes *bytes, size_t start);

#endif
