/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_column.h"

#include <math.h>
#include <stdlib.h>
#include <zstd.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_tlog_number.h"

enum {
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
    /* The second one makes texts an eighth smaller than the first, at 60 MB/s instead of 300; those
     * above it gain as much again at less than a tenth of its speed. */
    ZSTD_LEVEL = 1,
    ZSTD_LEVEL_DENSE = 9,
    /* After so many chunks in a row that did not become smaller, one in so many more is tried. */
    TRIALS_MIN = 4,
    TRIAL_WAITS = 15,
    SCALE_MAX = 6,
    SAMPLE_ROWS = 256,
    DICTIONARY_MAX = 255,
    DICTIONARY_SLOTS = 1024,
};

static const double powers_of_ten[SCALE_MAX + 1] = {1, 10, 100, 1e3, 1e4, 1e5, 1e6};

mir_status mir_tlog_codec_init(mir_tlog_codec *codec)
{
    mir_tlog_codec made = {
        .compressor = ZSTD_createCCtx(),
        .decompressor = ZSTD_createDCtx(),
        .work = malloc(sizeof(uint64_t) * (MIR_TLOG_INTS_WORK + MIR_TLOG_CHUNK_ROWS_MAX)),
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
    mir_bytes_free(&codec->places);
    mir_bytes_free(&codec->walked);
    free(codec->work);
    *codec = (mir_tlog_codec){0};
}

void mir_tlog_compress(mir_tlog_codec *codec, mir_bytes *out, const void *data, size_t size)
{
    const size_t room = ZSTD_compressBound(size);
    uint8_t *to = mir_bytes_reserve(out, room);
    if (to == NULL) return;
    const int level = codec->dense ? ZSTD_LEVEL_DENSE : ZSTD_LEVEL;
    const size_t made = ZSTD_compressCCtx(codec->compressor, to, room, data, size, level);
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

/* ---- Doubles ---- */

/* Whether the value is exactly a whole number of 10^-scale, bit for bit. */
static bool scaled(uint64_t bits, uint32_t scale, int64_t *whole)
{
    const double large = mir_tlog_double_of(bits) * powers_of_ten[scale];
    if (!(fabs(large) < 9007199254740992.0)) return false;
    *whole = (int64_t)(large + (large < 0 ? -0.5 : 0.5));
    return mir_tlog_bits_of((double)*whole / powers_of_ten[scale]) == bits;
}

static bool doubles_scale(const uint64_t *values, uint32_t count, uint64_t *whole, uint32_t *scale)
{
    uint32_t at = 0;
    uint32_t i = 0;
    while (i < count) {
        int64_t unused;
        if (scaled(values[i], at, (int64_t *)&whole[i])) {
            i++;
            continue;
        }
        do {
            if (at++ == SCALE_MAX) return false;
        } while (!scaled(values[i], at, &unused));
        i = 0; /* those before it once more */
    }
    *scale = at;
    return true;
}

static void planes_put(uint8_t *to, const uint64_t *values, uint32_t count)
{
    for (uint32_t b = 0; b < 8; b++) {
        for (uint32_t i = 0; i < count; i++) *to++ = (uint8_t)(values[i] >> (8 * b));
    }
}

/* Whether some of the values in the middle take less as integers than as planes. */
static bool doubles_are_ints(mir_tlog_codec *codec, const uint64_t *values, uint32_t count)
{
    uint8_t planes[SAMPLE_ROWS * 8];
    const uint32_t rows = count < SAMPLE_ROWS ? count : SAMPLE_ROWS;
    const uint64_t *from = values + (count - rows) / 2;
    planes_put(planes, from, rows);
    codec->packed.size = 0;
    mir_tlog_compress(codec, &codec->packed, planes, sizeof *values * rows);
    const size_t size = codec->packed.size;
    codec->packed.size = 0;
    mir_tlog_ints_pack(&codec->packed, from, rows, codec->work);
    const bool smaller = codec->packed.size <= size;
    if (!mir_bytes_ok(&codec->packed)) mir_bytes_free(&codec->packed);
    return smaller;
}

/* As samples that agree lately, or of one more. */
static bool doubles_are_ints_again(mir_tlog_codec *codec, mir_tlog_trial *trial,
                                   const uint64_t *values, uint32_t count)
{
    if (trial->kept > 0) {
        trial->kept--;
        return trial->as_ints;
    }
    const bool as_ints = doubles_are_ints(codec, values, count);
    if (as_ints != trial->as_ints) trial->alike = 0;
    trial->as_ints = as_ints;
    if (trial->alike < TRIALS_MIN) trial->alike++;
    if (trial->alike == TRIALS_MIN) trial->kept = TRIAL_WAITS;
    return as_ints;
}

/* The bits as they are: as integers, which suits walks (their upper bits hardly change, and their
 * steps have fewer than the values), or byte by byte, which suits values that have bytes in common.
 */
static void doubles_pack_bits(mir_tlog_codec *codec, mir_bytes *raw, mir_tlog_trial *trial,
                              const uint64_t *values, uint32_t count, uint8_t *encoding)
{
    const size_t size = (size_t)count * 8;
    if (size < ZSTD_WORTH_BYTES) {
        *encoding = ENCODING_RAW;
        uint8_t *to = mir_bytes_reserve(raw, size);
        if (to == NULL) return;
        for (uint32_t i = 0; i < count; i++) to = mir_tlog_put_u64(to, values[i]);
        raw->size += size;
        return;
    }
    if (doubles_are_ints_again(codec, trial, values, count)) {
        *encoding = ENCODING_INTS;
        const size_t before = raw->size;
        mir_tlog_ints_pack(raw, values, count, codec->work);
        if (raw->size - before <= size) return;
        raw->size = before;
    }
    *encoding = ENCODING_PLANES;
    uint8_t *to = mir_bytes_reserve(raw, size);
    if (to == NULL) return;
    planes_put(to, values, count);
    raw->size += size;
}

static void doubles_pack(mir_tlog_codec *codec, mir_bytes *raw, mir_tlog_trial *trial,
                         const uint64_t *values, uint32_t count, uint8_t *encoding)
{
    uint64_t *whole = codec->work + MIR_TLOG_INTS_WORK;
    uint32_t scale;
    bool constant = true;
    for (uint32_t i = 1; i < count && constant; i++) constant = values[i] == values[0];
    if (constant) {
        *encoding = ENCODING_INTS;
        mir_tlog_ints_pack(raw, values, count, codec->work);
    } else if (doubles_scale(values, count, whole, &scale)) {
        *encoding = ENCODING_SCALED;
        mir_bytes_u8(raw, (uint8_t)scale);
        mir_tlog_ints_pack(raw, whole, count, codec->work);
    } else {
        doubles_pack_bits(codec, raw, trial, values, count, encoding);
    }
}

static mir_status doubles_unpack(mir_tlog_codec *codec, mir_tlog_reader *in, uint32_t encoding,
                                 uint64_t *values, uint32_t count)
{
    if (encoding == ENCODING_INTS) return mir_tlog_ints_unpack(in, values, count, codec->work);
    if (encoding == ENCODING_SCALED) {
        const uint32_t scale = mir_tlog_read_u8(in);
        if (in->failed || scale > SCALE_MAX ||
            mir_tlog_ints_unpack(in, values, count, codec->work) != MIR_OK) {
            return MIR_E_CORRUPT;
        }
        for (uint32_t i = 0; i < count; i++) {
            values[i] = mir_tlog_bits_of((double)(int64_t)values[i] / powers_of_ten[scale]);
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
    uint64_t *numbers = codec->work + MIR_TLOG_INTS_WORK;
    const mir_view *words[DICTIONARY_MAX];
    uint32_t word_count = 0;
    if (texts_number(texts, count, numbers, words, &word_count)) {
        *encoding = ENCODING_DICTIONARY;
        mir_tlog_bytes_varint(raw, word_count);
        for (uint32_t i = 0; i < word_count; i++) mir_tlog_bytes_text(raw, *words[i]);
        mir_tlog_ints_pack(raw, numbers, count, codec->work);
        return;
    }
    *encoding = ENCODING_TEXTS;
    for (uint32_t i = 0; i < count; i++) numbers[i] = texts[i].size;
    mir_tlog_ints_pack(raw, numbers, count, codec->work);
    for (uint32_t i = 0; i < count; i++) mir_bytes_view(raw, texts[i]);
}

static mir_status texts_unpack(mir_tlog_codec *codec, mir_tlog_reader *in, uint32_t encoding,
                               uint64_t *values, mir_view *texts, uint32_t count)
{
    if (encoding == ENCODING_TEXTS) {
        if (mir_tlog_ints_unpack(in, values, count, codec->work) != MIR_OK) return MIR_E_CORRUPT;
        for (uint32_t i = 0; i < count; i++) texts[i] = mir_tlog_read_bytes(in, values[i]);
        return in->failed ? MIR_E_CORRUPT : MIR_OK;
    }
    mir_view words[DICTIONARY_MAX];
    const uint64_t word_count = mir_tlog_read_varint(in);
    if (in->failed || word_count > DICTIONARY_MAX) return MIR_E_CORRUPT;
    for (uint32_t i = 0; i < word_count; i++) words[i] = mir_tlog_read_text(in);
    if (in->failed || mir_tlog_ints_unpack(in, values, count, codec->work) != MIR_OK)
        return MIR_E_CORRUPT;
    for (uint32_t i = 0; i < count; i++) {
        if (values[i] >= word_count) return MIR_E_CORRUPT;
        texts[i] = words[values[i]];
    }
    return MIR_OK;
}

/* ---- A column: encoding, size, bytes ---- */

/* Numbers that are packed already hardly ever become smaller, and trying costs more than packing. */
static bool is_packed(uint8_t encoding)
{
    return encoding == ENCODING_INTS || encoding == ENCODING_SCALED;
}

static bool is_worth_trying(mir_tlog_trial *trial, uint8_t encoding)
{
    if (!is_packed(encoding) || trial->failed < TRIALS_MIN) return true;
    if (trial->waits == 0) return true;
    trial->waits--;
    return false;
}

static void trial_end(mir_tlog_trial *trial, uint8_t encoding, bool paid)
{
    if (!is_packed(encoding)) return;
    if (paid) {
        trial->failed = trial->waits = 0;
    } else {
        if (trial->failed < TRIALS_MIN) trial->failed++;
        trial->waits = TRIAL_WAITS;
    }
}

void mir_tlog_column_encode(mir_tlog_codec *codec, mir_bytes *out, uint32_t kind,
                            mir_column_type type, const uint64_t *values, const mir_view *texts,
                            uint32_t count)
{
    mir_tlog_trial *trial = &codec->trials[kind % MIR_TLOG_TRIALS];
    MIR_ASSERT(count <= MIR_TLOG_CHUNK_ROWS_MAX);
    codec->raw.size = 0;
    uint8_t encoding = ENCODING_INTS;
    if (count == 0) {
        /* Nothing to say. */
    } else if (type == MIR_COLUMN_STRING) {
        texts_pack(codec, &codec->raw, texts, count, &encoding);
    } else if (type == MIR_COLUMN_F64) {
        doubles_pack(codec, &codec->raw, trial, values, count, &encoding);
    } else {
        mir_tlog_ints_pack(&codec->raw, values, count, codec->work);
    }
    if (!mir_bytes_ok(&codec->raw)) {
        mir_bytes_free(&codec->raw);
        out->failed = true;
        return;
    }
    mir_view bytes = mir_bytes_as_view(&codec->raw);
    if (bytes.size >= ZSTD_WORTH_BYTES && is_worth_trying(trial, encoding)) {
        codec->packed.size = 0;
        mir_tlog_compress(codec, &codec->packed, bytes.data, bytes.size);
        if (!mir_bytes_ok(&codec->packed)) {
            mir_bytes_free(&codec->packed);
            out->failed = true;
            return;
        }
        const bool paid = codec->packed.size < bytes.size - bytes.size / 16;
        trial_end(trial, encoding, paid);
        if (paid) {
            bytes = mir_bytes_as_view(&codec->packed);
            encoding |= ENCODING_ZSTD;
            if (!codec->dense) codec->light_bytes += bytes.size;
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
            status = texts_unpack(codec, &from, encoding, values, texts, count);
        }
    } else if (type == MIR_COLUMN_F64) {
        if (encoding <= ENCODING_PLANES)
            status = doubles_unpack(codec, &from, encoding, values, count);
    } else if (encoding == ENCODING_INTS) {
        status = mir_tlog_ints_unpack(&from, values, count, codec->work);
    }
    return status == MIR_OK && from.at != from.end ? MIR_E_CORRUPT : status;
}

/* The bytes of a column of integers, out of `room` if they are packed or the last ones; they may be
 * read up to readable_end, beyond their own. */
static mir_status ints_find(mir_tlog_codec *codec, mir_tlog_reader *in, uint32_t count,
                            mir_bytes *room, mir_tlog_reader *ints, const uint8_t **readable_end)
{
    const uint8_t head = mir_tlog_read_u8(in);
    const bool packed = (head & ENCODING_ZSTD) != 0;
    if (in->failed || (head & ENCODING_MASK) != ENCODING_INTS || count == 0)
        return MIR_E_UNSUPPORTED;
    const uint64_t raw_size = packed ? mir_tlog_read_varint(in) : 0;
    mir_view bytes = mir_tlog_read_text(in);
    *readable_end = in->end;
    if (in->failed || raw_size > MIR_TLOG_COLUMN_BYTES_MAX || (packed && raw_size == 0))
        return MIR_E_UNSUPPORTED;
    if (packed || mir_tlog_reader_left(in) < MIR_TLOG_INTS_PADDING) {
        const size_t size = packed ? raw_size : bytes.size;
        room->size = 0;
        uint8_t *to = mir_bytes_reserve(room, size + MIR_TLOG_INTS_PADDING);
        if (to == NULL) {
            mir_bytes_free(room);
            return MIR_E_UNSUPPORTED;
        }
        if (!packed) {
            memcpy(to, bytes.data, size);
        } else if (mir_tlog_decompress(codec, to, size, bytes) != MIR_OK) {
            return MIR_E_UNSUPPORTED;
        }
        memset(to + size, 0, MIR_TLOG_INTS_PADDING);
        bytes = mir_view_of(to, size);
        *readable_end = to + size + MIR_TLOG_INTS_PADDING;
    }
    *ints = mir_tlog_reader_of(bytes.data, bytes.size);
    return MIR_OK;
}

mir_status mir_tlog_column_places(mir_tlog_codec *codec, mir_tlog_reader in, uint32_t count,
                                  mir_tlog_ints_places *places)
{
    mir_tlog_reader from;
    const uint8_t *readable_end;
    mir_status status = ints_find(codec, &in, count, &codec->places, &from, &readable_end);
    if (status == MIR_OK) status = mir_tlog_ints_open(&from, readable_end, count, places);
    return status == MIR_OK && from.at != from.end ? MIR_E_UNSUPPORTED : status;
}

mir_status mir_tlog_column_walk(mir_tlog_codec *codec, mir_tlog_reader *in, uint32_t count,
                                mir_tlog_ints_walk *walk)
{
    mir_tlog_reader behind = *in;
    mir_tlog_reader from;
    const uint8_t *readable_end;
    mir_status status = ints_find(codec, &behind, count, &codec->walked, &from, &readable_end);
    if (status == MIR_OK) status = mir_tlog_ints_walk_open(&from, readable_end, count, walk);
    if (status != MIR_OK || from.at != from.end) return MIR_E_UNSUPPORTED;
    *in = behind;
    return MIR_OK;
}
