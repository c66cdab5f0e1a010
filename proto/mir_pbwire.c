/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_pbwire.h"

bool mir_pbwire_varint_long(mir_pbwire *wire, uint64_t *value)
{
    uint64_t result = 0;
    const uint8_t *at = wire->at;
    for (unsigned shift = 0; shift < 70; shift += 7) {
        if (at >= wire->end) return false;
        uint8_t byte = *at++;
        if (shift == 63 && byte > 1) return false;
        result |= (uint64_t)(byte & 0x7f) << shift;
        if (byte < 0x80) {
            wire->at = at;
            *value = result;
            return true;
        }
    }
    return false;
}

static bool skip_fixed(mir_pbwire *wire, size_t size)
{
    if ((size_t)(wire->end - wire->at) < size) return false;
    wire->at += size;
    return true;
}

bool mir_pbwire_skip(mir_pbwire *wire, uint32_t tag)
{
    uint32_t open[MIR_PBWIRE_GROUP_DEPTH_MAX];
    unsigned depth = 0;
    for (;;) {
        uint64_t ignored;
        mir_view bytes;
        bool sound = true;
        switch (tag & 7) {
        case MIR_PBWIRE_VARINT: sound = mir_pbwire_varint(wire, &ignored); break;
        case MIR_PBWIRE_FIXED64: sound = skip_fixed(wire, 8); break;
        case MIR_PBWIRE_FIXED32: sound = skip_fixed(wire, 4); break;
        case MIR_PBWIRE_BYTES: sound = mir_pbwire_bytes(wire, &bytes); break;
        case MIR_PBWIRE_GROUP:
            if (depth == MIR_PBWIRE_GROUP_DEPTH_MAX) return false;
            open[depth++] = tag >> 3;
            break;
        case MIR_PBWIRE_GROUP_END:
            if (depth == 0 || open[--depth] != tag >> 3) return false;
            break;
        default: return false;
        }
        if (!sound) return false;
        if (depth == 0) return true;
        if (!mir_pbwire_tag(wire, &tag)) return false;
    }
}

bool mir_pbwire_next(mir_pbwire *wire, uint32_t *tag, uint64_t *value, mir_view *bytes)
{
    *value = 0;
    *bytes = (mir_view){NULL, 0};
    if (!mir_pbwire_tag(wire, tag)) return false;
    switch (*tag & 7) {
    case MIR_PBWIRE_VARINT: return mir_pbwire_varint(wire, value);
    case MIR_PBWIRE_FIXED64: return mir_pbwire_fixed64(wire, value);
    case MIR_PBWIRE_BYTES: return mir_pbwire_bytes(wire, bytes);
    case MIR_PBWIRE_FIXED32: {
        uint32_t narrow = 0;
        bool sound = mir_pbwire_fixed32(wire, &narrow);
        *value = narrow;
        return sound;
    }
    default: return mir_pbwire_skip(wire, *tag);
    }
}

void mir_pbwire_put_varint(mir_bytes *bytes, uint64_t value)
{
    uint8_t buffer[10];
    size_t size = 0;
    while (value >= 0x80) {
        buffer[size++] = (uint8_t)(value | 0x80);
        value >>= 7;
    }
    buffer[size++] = (uint8_t)value;
    mir_bytes_append(bytes, buffer, size);
}

void mir_pbwire_put_fixed32(mir_bytes *bytes, uint32_t value)
{
    uint8_t buffer[4];
    for (int i = 0; i < 4; i++) buffer[i] = (uint8_t)(value >> (8 * i));
    mir_bytes_append(bytes, buffer, sizeof buffer);
}

void mir_pbwire_put_fixed64(mir_bytes *bytes, uint64_t value)
{
    uint8_t buffer[8];
    for (int i = 0; i < 8; i++) buffer[i] = (uint8_t)(value >> (8 * i));
    mir_bytes_append(bytes, buffer, sizeof buffer);
}

void mir_pbwire_put_bytes(mir_bytes *bytes, uint32_t number, mir_view value)
{
    mir_pbwire_put_varint(bytes, mir_pbwire_make_tag(number, MIR_PBWIRE_BYTES));
    mir_pbwire_put_varint(bytes, value.size);
    mir_bytes_view(bytes, value);
}

void mir_pbwire_put_length(mir_bytes *bytes, size_t start)
{
    if (!mir_bytes_ok(bytes)) return;
    size_t size = bytes->size - start;
    mir_pbwire_put_varint(bytes, size);
    if (!mir_bytes_ok(bytes)) return;
    size_t head = bytes->size - start - size;
    uint8_t length[10];
    memcpy(length, bytes->data + start + size, head);
    memmove(bytes->data + start + head, bytes->data + start, size);
    memcpy(bytes->data + start, length, head);
}
