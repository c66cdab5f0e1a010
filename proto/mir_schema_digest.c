/* SPDX-License-Identifier: Apache-2.0 */
/* The digest by which schemas are told apart: of the decoded content of the descriptors, since the
 * same content can be encoded in several orders. One running hash for each field number keeps the
 * order within a repeated field and forgets the order between fields; the members of a map, and the
 * files of the set, are added up, which forgets their order altogether. */
#include "mir_hash.h"
#include "mir_pbwire.h"
#include "mir_schema_internal.h"

typedef enum shape {
    OPAQUE = 0,
    SET,
    FILE_SHAPE,
    MESSAGE,
    FIELD,
    ENUM,
    ENUM_VALUE,
    MESSAGE_OPTIONS,
    FIELD_OPTIONS,
    META,
    PLAIN, /* fields in any order, none of them a message that counts */
} shape;

enum { NUMBERS = 24, SLOTS = NUMBERS + 4 };

static shape shape_of(shape outer, uint32_t number)
{
    switch (outer) {
    case SET: return number == 1 ? FILE_SHAPE : OPAQUE;
    case FILE_SHAPE:
        return number == 4   ? MESSAGE
               : number == 5 ? ENUM
               : number == 7 ? FIELD
               : number == 8 ? PLAIN
                             : OPAQUE;
    case MESSAGE:
        return number == 2 || number == 6                  ? FIELD
               : number == 3                               ? MESSAGE
               : number == 4                               ? ENUM
               : number == 7                               ? MESSAGE_OPTIONS
               : number == 5 || number == 8 || number == 9 ? PLAIN
                                                           : OPAQUE;
    case FIELD: return number == 8 ? FIELD_OPTIONS : OPAQUE;
    case ENUM: return number == 2 ? ENUM_VALUE : number == 3 ? PLAIN : OPAQUE;
    case ENUM_VALUE: return number == 3 ? PLAIN : OPAQUE;
    case MESSAGE_OPTIONS: return number == 50002 ? META : OPAQUE;
    case FIELD_OPTIONS: return number == 50102 ? META : OPAQUE;
    case META: return number == 1 ? PLAIN : OPAQUE;
    default: return OPAQUE;
    }
}

static unsigned slot_of(uint32_t number)
{
    switch (number) {
    case 50001: return NUMBERS;
    case 50002: return NUMBERS + 1;
    case 50101: return NUMBERS + 2;
    case 50102: return NUMBERS + 3;
    default: return number < NUMBERS ? number : 0; /* 0: the others, in their order */
    }
}

static XXH128_hash_t hash(const void *data, size_t size)
{
    return XXH3_128bits_withSeed(data, size, mir_hash_keyed.seed);
}

static XXH128_hash_t digest_of(shape outer, mir_view view) // NOLINT(misc-no-recursion)
{
    if (outer == OPAQUE) return hash(view.data, view.size);
    uint64_t slots[SLOTS][2] = {0};
    mir_pbwire wire = mir_pbwire_of(view);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        const uint8_t *start = wire.at;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) return hash(view.data, view.size);
        XXH128_hash_t inner = {value, 0};
        switch (tag & 7) {
        case MIR_PBWIRE_BYTES: inner = digest_of(shape_of(outer, tag >> 3), bytes); break;
        case MIR_PBWIRE_GROUP: inner = hash(start, (size_t)(wire.at - start)); break;
        default: break;
        }
        uint64_t *slot = slots[slot_of(tag >> 3)];
        bool unordered = tag >> 3 == 1 && (outer == SET || outer == META);
        uint64_t input[5] = {unordered ? 0 : slot[0], unordered ? 0 : slot[1], tag, inner.low64,
                             inner.high64};
        XXH128_hash_t mixed = hash(input, sizeof input);
        slot[0] = unordered ? slot[0] + mixed.low64 : mixed.low64;
        slot[1] = unordered ? slot[1] + mixed.high64 : mixed.high64;
    }
    return hash(slots, sizeof slots);
}

void mir_schema_digest(mir_view set, uint64_t digest[2])
{
    XXH128_hash_t all = digest_of(SET, set);
    digest[0] = all.low64;
    digest[1] = all.high64;
}
