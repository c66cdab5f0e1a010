/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_column.h"

#include <math.h>
#include <stdlib.h>
#include <zstd.h>

#include "mir_assert.h"
#include "mir_hash.h"

enum {
    GROUP_ROWS = 128,
    ENCODING_INTS = 0,
    ENCODING_RAW = 1,
    ENCODING_SCALED = 2,
    ENCODING_PLANES = 3,
    ENCODING_TEXTS = 4,
    ENCODING_DICTIONARY = 5,
    ENCODING_MASK = 0x7f,
    ENCODING_ZSTD = 0x80,
    /* Below this a frame header and a table cost more than they save. */
    ZSTD_WORTH_BYTES = 256,
    ZSTD_LEVEL = 1,
    SCALE_MAX = 6,
    DICTIONARY_MAX = 255,
    DICTIONARY_SLOTS = 1024,
};

static const double powers_of_ten[SCALE_MAX + 1] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6};

mir_status mir_tlog_codec_init(mir_tlog_codec *codec)
{
    mir_tlog_codec made = {
        .compressor = ZSTD_createCCtx(),
        .decompressor = ZSTD_createDCtx(),
        .work = malloc(sizeof(uint64_t) * 2 * MIR_TLOG_CHUNK_ROWS_MAX),
    };
    if (made.compressor == NULL || made.decompressor == NULL || made.work == NULL) {
        mir_tlog_codec_fini(&made);
        return MIR_E_NO_MEMORY;
    }
    *codec = made;
    return MIR_OK;
}

void mir_tlog_codec_fini(mir_tlog_codec *codec)
{
    ZSTD_freeCCtx(codec->compressor);
    ZSTD_freeDCtx(codec->decompressor);
    mir_bytes_free(&codec->raw);
    mir_bytes_free(&codec->packed);
    free(codec->work);
    *codec = (mir_tlog_codec){0};
}

void mir_tlog_compress(mir_tlog_codec *codec, mir_bytes *out, const void *data, size_t size)
{
    const size_t room = ZSTD_compressBound(size);
    uint8_t *to = mir_bytes_reserve(out, room);
    if (to == NULL) return;
    const size_t made = ZSTD_compressCCtx(codec->compressor, to, room, data, size, ZSTD_LEVEL);
    if (ZSTD_isError(made)) {
        out->failed = true;
        return;
    }
    out->size += made;
}

mir_status mir_tlog_decompress(mir_tlog_codec *codec, uint8_t *raw, size_t raw_size,
                               mir_view packed)
{
    const size_t made =
        ZSTD_decompressDCtx(codec->decompressor, raw, raw_size, packed.data, packed.size);
    return ZSTD_isError(made) || made != raw_size ? MIR_E_CORRUPT : MIR_OK;
}

/* ---- Groups of packed differences ---- */

static uint32_t bits_of(uint64_t value)
{
    return value == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(value);
}

typedef struct group {
    int64_t low;
    uint32_t bits;
} group;

static group group_of(const uint64_t *values, uint32_t count)
{
    int64_t low = (int64_t)values[0];
    int64_t high = low;
    for (uint32_t i = 1; i < count; i++) {
        const int64_t value = (int64_t)values[i];
        if (value < low) low = value;
        if (value > high) high = value;
    }
    return (group){.low = low, .bits = bits_of((uint64_t)high - (uint64_t)low)};
}

static void groups_pack(mir_bytes *out, const uint64_t *values, uint32_t count)
{
    for (uint32_t at = 0; at < count; at += GROUP_ROWS) {
        const uint32_t rows = count - at < GROUP_ROWS ? count - at : GROUP_ROWS;
        const group g = group_of(values + at, rows);
        const size_t size = ((size_t)rows * g.bits + 7) / 8;
        uint8_t *start = mir_bytes_reserve(out, MIR_TLOG_VARINT_BYTES_MAX + 1 + size + 16);
        if (start == NULL) return;
        uint8_t *to = mir_tlog_put_varint(start, mir_tlog_zigzag(g.low));
        *to++ = (uint8_t)g.bits;
        uint64_t pending = 0;
        uint32_t pending_bits = 0;
        uint8_t *packed = to;
        for (uint32_t i = 0; i < rows && g.bits > 0; i++) {
            const uint64_t value = values[at + i] - (uint64_t)g.low;
            pending |= value << pending_bits;
            pending_bits += g.bits;
            if (pending_bits >= 64) {
                packed = mir_tlog_put_u64(packed, pending);
                pending_bits -= 64;
                pending = pending_bits == 0 ? 0 : value >> (g.bits - pending_bits);
            }
        }
        (void)mir_tlog_put_u64(packed, pending);
        out->size += (size_t)(to - start) + size;
    }
}

static mir_status groups_unpack(mir_tlog_reader *in, uint64_t *values, uint32_t count)
{
    uint8_t padded[GROUP_ROWS * 8 + 16];
    for (uint32_t at = 0; at < count; at += GROUP_ROWS) {
        const uint32_t rows = count - at < GROUP_ROWS ? count - at : GROUP_ROWS;
        const uint64_t low = (uint64_t)mir_tlog_read_signed(in);
        const uint32_t bits = mir_tlog_read_u8(in);
        if (in->failed || bits > 64) return MIR_E_CORRUPT;
        if (bits == 0) {
            for (uint32_t i = 0; i < rows; i++) values[at + i] = low;
            continue;
        }
        const mir_view packed = mir_tlog_read_bytes(in, ((uint64_t)rows * bits + 7) / 8);
        if (in->failed) return MIR_E_CORRUPT;
        memcpy(padded, packed.data, packed.size);
        memset(padded + packed.size, 0, 16);
        const uint64_t mask = bits == 64 ? UINT64_MAX : (UINT64_C(1) << bits) - 1;
        for (uint32_t i = 0; i < rows; i++) {
            const uint32_t position = i * bits;
            const uint32_t shift = position % 8;
            const uint8_t *from = padded + position / 8;
            uint64_t word = mir_tlog_get_u64(from) >> shift;
            if (shift + bits > 64) word |= (uint64_t)from[8] << (64 - shift);
            values[at + i] = low + (word & mask);
        }
    }
    return MIR_OK;
}

typedef struct range {
    int64_t low;
    int64_t high;
} range;

static void range_take(range *r, uint64_t value)
{
    if ((int64_t)value < r->low) r->low = (int64_t)value;
    if ((int64_t)value > r->high) r->high = (int64_t)value;
}

static uint32_t range_cost(const range *r, uint32_t rows)
{
    if (rows == 0) return 0;
    return 1 + mir_tlog_varint_size(mir_tlog_zigzag(r->low)) +
           (rows * bits_of((uint64_t)r->high - (uint64_t)r->low) + 7) / 8;
}

/* How often differences should be taken so that the groups are smallest: in one pass, with groups
 * that begin at the same value whatever the depth, which is close enough. */
static uint32_t ints_depth(const uint64_t *values, uint32_t count)
{
    uint32_t cost[3] = {0};
    for (uint32_t at = 0; at < count; at += GROUP_ROWS) {
        const uint32_t end = count - at < GROUP_ROWS ? count : at + GROUP_ROWS;
        range r[3] = {{INT64_MAX, INT64_MIN}, {INT64_MAX, INT64_MIN}, {INT64_MAX, INT64_MIN}};
        uint32_t i = at;
        for (; i < end && i < 2; i++) {
            range_take(&r[0], values[i]);
            if (i == 1) range_take(&r[1], values[1] - values[0]);
        }
        if (i < end) {
            uint64_t before = values[i - 1];
            uint64_t first_before = before - values[i - 2];
            for (; i < end; i++) {
                const uint64_t first = values[i] - before;
                range_take(&r[0], values[i]);
                range_take(&r[1], first);
                range_take(&r[2], first - first_before);
                before = values[i];
                first_before = first;
            }
        }
        for (uint32_t d = 0; d < 3; d++) {
            const uint32_t without = at >= d ? 0 : d;
            cost[d] += range_cost(&r[d], end - at > without ? end - at - without : 0);
        }
    }
    uint32_t depth = 0;
    if (count >= 2) {
        cost[1] += mir_tlog_varint_size(mir_tlog_zigzag((int64_t)values[0]));
        if (cost[1] < cost[0]) depth = 1;
    }
    if (count >= 3) {
        cost[2] += mir_tlog_varint_size(mir_tlog_zigzag((int64_t)values[0])) +
                   mir_tlog_varint_size(mir_tlog_zigzag((int64_t)(values[1] - values[0])));
        if (cost[2] < cost[depth]) depth = 2;
    }
    return depth;
}

/* One byte says how often differences were taken: 0, 1 or 2 times; then the values that start them
 * and the groups. */
static void ints_pack(mir_tlog_codec *codec, mir_bytes *out, const uint64_t *values, uint32_t count)
{
    const uint32_t depth = ints_depth(values, count);
    uint64_t *differences = codec->work;
    if (depth == 1) {
        for (uint32_t i = 1; i < count; i++) differences[i - 1] = values[i] - values[i - 1];
    } else if (depth == 2) {
        for (uint32_t i = 2; i < count; i++) {
            differences[i - 2] = values[i] - 2 * values[i - 1] + values[i - 2];
        }
    }
    mir_bytes_u8(out, (uint8_t)depth);
    if (depth >= 1) mir_tlog_bytes_varint(out, mir_tlog_zigzag((int64_t)values[0]));
    if (depth >= 2) {
        mir_tlog_bytes_varint(out, mir_tlog_zigzag((int64_t)(values[1] - values[0])));
    }
    groups_pack(out, depth == 0 ? values : differences, count - depth);
}

static mir_status ints_unpack(mir_tlog_reader *in, uint64_t *values, uint32_t count)
{
    const uint32_t depth = mir_tlog_read_u8(in);
    if (in->failed || depth > 2 || depth > count) return MIR_E_CORRUPT;
    const uint64_t start = depth >= 1 ? (uint64_t)mir_tlog_read_signed(in) : 0;
    const uint64_t step = depth >= 2 ? (uint64_t)mir_tlog_read_signed(in) : 0;
    if (groups_unpack(in, values + depth, count - depth) != MIR_OK) return MIR_E_CORRUPT;
    if (depth == 1) {
        values[0] = start;
        for (uint32_t i = 1; i < count; i++) values[i] += values[i - 1];
    } else if (depth == 2) {
        uint64_t delta = step;
        values[0] = start;
        values[1] = start + step;
        for (uint32_t i = 2; i < count; i++) {
            delta += values[i];
            values[i] = values[i - 1] + delta;
        }
    }
    return MIR_OK;
}

/* ---- Doubles ---- */

static double double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static uint64_t bits_of_double(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

/* Whether the value is exactly a whole number of 10^-scale, bit for bit. */
static bool scaled(uint64_t bits, uint32_t scale, int64_t *whole)
{
    const double large = double_of(bits) * powers_of_ten[scale];
    if (!(fabs(large) < 9007199254740992.0)) return false;
    *whole = (int64_t)(large + (large < 0 ? -0.5 : 0.5));
    return bits_of_double((double)*whole / powers_of_ten[scale]) == bits;
}

static bool doubles_scale(const uint64_t *values, uint32_t count, uint64_t *whole, uint32_t *scale)
{
    uint32_t at = 0;
    for (uint32_t i = 0; i < count; i++) {
        int64_t unused;
        while (!scaled(values[i], at, &unused)) {
            if (at++ == SCALE_MAX) return false;
        }
    }
    for (uint32_t i = 0; i < count; i++) {
        if (!scaled(values[i], at, (int64_t *)&whole[i])) return false;
    }
    *scale = at;
    return true;
}

static void doubles_pack(mir_tlog_codec *codec, mir_bytes *raw, const uint64_t *values,
                         uint32_t count, uint8_t *encoding)
{
    uint64_t *whole = codec->work + MIR_TLOG_CHUNK_ROWS_MAX;
    uint32_t scale;
    bool constant = true;
    for (uint32_t i = 1; i < count && constant; i++) constant = values[i] == values[0];
    if (constant) {
        *encoding = ENCODING_INTS;
        ints_pack(codec, raw, values, count);
    } else if (doubles_scale(values, count, whole, &scale)) {
        *encoding = ENCODING_SCALED;
        mir_bytes_u8(raw, (uint8_t)scale);
        ints_pack(codec, raw, whole, count);
    } else {
        uint8_t *to = mir_bytes_reserve(raw, (size_t)count * 8);
        if (to == NULL) return;
        *encoding = count * 8 >= ZSTD_WORTH_BYTES ? ENCODING_PLANES : ENCODING_RAW;
        for (uint32_t i = 0; i < count; i++) {
            if (*encoding == ENCODING_RAW) {
                (void)mir_tlog_put_u64(to + (size_t)i * 8, values[i]);
            } else {
                for (uint32_t b = 0; b < 8; b++) {
                    to[(size_t)b * count + i] = (uint8_t)(values[i] >> (8 * b));
                }
            }
        }
        raw->size += (size_t)count * 8;
    }
}

static mir_status doubles_unpack(mir_tlog_reader *in, uint32_t encoding, uint64_t *values,
                                 uint32_t count)
{
    if (encoding == ENCODING_INTS) return ints_unpack(in, values, count);
    if (encoding == ENCODING_SCALED) {
        const uint32_t scale = mir_tlog_read_u8(in);
        if (in->failed || scale > SCALE_MAX || ints_unpack(in, values, count) != MIR_OK) {
            return MIR_E_CORRUPT;
        }
        for (uint32_t i = 0; i < count; i++) {
            values[i] = bits_of_double((double)(int64_t)values[i] / powers_of_ten[scale]);
        }
        return MIR_OK;
    }
    const mir_view bytes = mir_tlog_read_bytes(in, (uint64_t)count * 8);
    if (in->failed) return MIR_E_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        if (encoding == ENCODING_RAW) {
            values[i] = mir_tlog_get_u64(bytes.data + (size_t)i * 8);
        } else {
            uint64_t value = 0;
            for (uint32_t b = 0; b < 8; b++) {
                value |= (uint64_t)bytes.data[(size_t)b * count + i] << (8 * b);
            }
            values[i] = value;
        }
    }
    return MIR_OK;
}

/* ---- Strings ---- */

static bool texts_number(const mir_view *texts, uint32_t count, uint64_t *numbers,
                         const mir_view **words, uint32_t *word_count)
{
    uint16_t slots[DICTIONARY_SLOTS] = {0}; /* word number + 1 */
    for (uint32_t i = 0; i < count; i++) {
        uint32_t slot = (uint32_t)mir_hash_view(texts[i]) % DICTIONARY_SLOTS;
        while (slots[slot] != 0 && !mir_view_eq(*words[slots[slot] - 1], texts[i])) {
            slot = (slot + 1) % DICTIONARY_SLOTS;
        }
        if (slots[slot] == 0) {
            if (*word_count == DICTIONARY_MAX || *word_count > count / 2) return false;
            words[*word_count] = &texts[i];
            slots[slot] = (uint16_t)++ * word_count;
        }
        numbers[i] = slots[slot] - 1u;
    }
    return true;
}

static void texts_pack(mir_tlog_codec *codec, mir_bytes *raw, const mir_view *texts, uint32_t count,
                       uint8_t *encoding)
{
    uint64_t *numbers = codec->work + MIR_TLOG_CHUNK_ROWS_MAX;
    const mir_view *words[DICTIONARY_MAX];
    uint32_t word_count = 0;
    if (texts_number(texts, count, numbers, words, &word_count)) {
        *encoding = ENCODING_DICTIONARY;
        mir_tlog_bytes_varint(raw, word_count);
        for (uint32_t i = 0; i < word_count; i++) mir_tlog_bytes_text(raw, *words[i]);
        ints_pack(codec, raw, numbers, count);
        return;
    }
    *encoding = ENCODING_TEXTS;
    for (uint32_t i = 0; i < count; i++) numbers[i] = texts[i].size;
    ints_pack(codec, raw, numbers, count);
    for (uint32_t i = 0; i < count; i++) mir_bytes_view(raw, texts[i]);
}

static mir_status texts_unpack(mir_tlog_reader *in, uint32_t encoding, uint64_t *values,
                               mir_view *texts, uint32_t count)
{
    if (encoding == ENCODING_TEXTS) {
        if (ints_unpack(in, values, count) != MIR_OK) return MIR_E_CORRUPT;
        for (uint32_t i = 0; i < count; i++) texts[i] = mir_tlog_read_bytes(in, values[i]);
        return in->failed ? MIR_E_CORRUPT : MIR_OK;
    }
    mir_view words[DICTIONARY_MAX];
    const uint64_t word_count = mir_tlog_read_varint(in);
    if (in->failed || word_count > DICTIONARY_MAX) return MIR_E_CORRUPT;
    for (uint32_t i = 0; i < word_count; i++) words[i] = mir_tlog_read_text(in);
    if (in->failed || ints_unpack(in, values, count) != MIR_OK) return MIR_E_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] >= word_count) return MIR_E_CORRUPT;
        texts[i] = words[values[i]];
    }
    return MIR_OK;
}

/* ---- A column: encoding, size, bytes ---- */

void mir_tlog_column_encode(mir_tlog_codec *codec, mir_bytes *out, mir_column_type type,
                            const uint64_t *values, const mir_view *texts, uint32_t count)
{
    MIR_ASSERT(count <= MIR_TLOG_CHUNK_ROWS_MAX);
    codec->raw.size = 0;
    uint8_t encoding = ENCODING_INTS;
    if (count == 0) {
        /* Nothing to say. */
    } else if (type == MIR_COLUMN_STRING) {
        texts_pack(codec, &codec->raw, texts, count, &encoding);
    } else if (type == MIR_COLUMN_F64) {
        doubles_pack(codec, &codec->raw, values, count, &encoding);
    } else {
        ints_pack(codec, &codec->raw, values, count);
    }
    if (!mir_bytes_ok(&codec->raw)) {
        mir_bytes_free(&codec->raw);
        out->failed = true;
        return;
    }
    mir_view bytes = mir_bytes_as_view(&codec->raw);
    if (bytes.size >= ZSTD_WORTH_BYTES) {
        codec->packed.size = 0;
        mir_tlog_compress(codec, &codec->packed, bytes.data, bytes.size);
        if (!mir_bytes_ok(&codec->packed)) {
            mir_bytes_free(&codec->packed);
            out->failed = true;
            return;
        }
        if (codec->packed.size < bytes.size - bytes.size / 16) {
            bytes = mir_bytes_as_view(&codec->packed);
            encoding |= ENCODING_ZSTD;
        }
    }
    mir_bytes_u8(out, encoding);
    if ((encoding & ENCODING_ZSTD) != 0) mir_tlog_bytes_varint(out, codec->raw.size);
    mir_tlog_bytes_text(out, bytes);
}

void mir_tlog_column_skip(mir_tlog_reader *in)
{
    if ((mir_tlog_read_u8(in) & ENCODING_ZSTD) != 0) (void)mir_tlog_read_varint(in);
    (void)mir_tlog_read_text(in);
}

mir_status mir_tlog_column_decode(mir_tlog_codec *codec, mir_tlog_reader *in, mir_column_type type,
                                  uint64_t *values, mir_view *texts, uint32_t count,
                                  mir_arena *arena)
{
    const uint8_t head = mir_tlog_read_u8(in);
    const uint32_t encoding = head & ENCODING_MASK;
    const bool packed = (head & ENCODING_ZSTD) != 0;
    const uint64_t raw_size = packed ? mir_tlog_read_varint(in) : 0;
    mir_view bytes = mir_tlog_read_text(in);
    if (in->failed || raw_size > MIR_TLOG_COLUMN_BYTES_MAX || (packed && raw_size == 0)) {
        return MIR_E_CORRUPT;
    }
    if (packed || (type == MIR_COLUMN_STRING && bytes.size > 0)) {
        const size_t size = packed ? raw_size : bytes.size;
        /* Texts point into their bytes, so these must live as long as the arena. */
        uint8_t *room;
        if (type == MIR_COLUMN_STRING) {
            room = mir_arena_alloc(arena, size == 0 ? 1 : size);
        } else {
            codec->raw.size = 0;
            room = mir_bytes_reserve(&codec->raw, size);
            if (room == NULL) mir_bytes_free(&codec->raw);
        }
        if (room == NULL) return MIR_E_NO_MEMORY;
        if (!packed) {
            memcpy(room, bytes.data, size);
        } else if (mir_tlog_decompress(codec, room, size, bytes) != MIR_OK) {
            return MIR_E_CORRUPT;
        }
        bytes = mir_view_of(room, size);
    }
    if (count == 0) return bytes.size == 0 ? MIR_OK : MIR_E_CORRUPT;
    mir_tlog_reader from = mir_tlog_reader_of(bytes.data, bytes.size);
    mir_status status = MIR_E_CORRUPT;
    if (type == MIR_COLUMN_STRING) {
        if (encoding == ENCODING_TEXTS || encoding == ENCODING_DICTIONARY) {
            status = texts_unpack(&from, encoding, values, texts, count);
        }
    } else if (type == MIR_COLUMN_F64) {
        if (encoding <= ENCODING_PLANES) status = doubles_unpack(&from, encoding, values, count);
    } else if (encoding == ENCODING_INTS) {
        status = ints_unpack(&from, values, count);
    }
    return status == MIR_OK && from.at != from.end ? MIR_E_CORRUPT : status;
}
