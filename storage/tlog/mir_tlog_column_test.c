/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_tlog_column.h"
#include "mir_tlog_sim.h"

/* Whatever goes in comes out, bit for bit; what is damaged is refused or is another column, but is
 * never read past its end. */

enum { PATTERNS = 26, BEHIND = 3 };

static uint64_t bits_of_walk(uint64_t random, uint32_t i)
{
    static double at;
    if (i == 0) at = 700;
    at += (double)(random >> 11) / 9007199254740992.0 - 0.5;
    uint64_t bits;
    memcpy(&bits, &at, sizeof bits);
    return bits;
}

static const uint64_t few[] = {1, 2, 3, 4, 5, 6, 7, 16};

static uint64_t walk_of(uint64_t step, uint32_t i)
{
    static uint64_t at;
    if (i == 0) at = 1000;
    return at += step;
}

static uint64_t pattern(uint64_t *random, int kind, uint32_t i)
{
    const uint64_t r = sim_random(random);
    const double decimal = (double)(int64_t)(r % 20000 - 10000) / 100;
    uint64_t bits;
    switch (kind) {
    case 0: return r;
    case 1: return 7;
    case 2: return i * UINT64_C(1000000000) + r % 20000000;
    case 3: return i % 2 == 0 ? (uint64_t)INT64_MIN : (uint64_t)INT64_MAX;
    case 4: return r % 100 == 0 ? r : r % 5;
    case 5: memcpy(&bits, &decimal, 8); return bits;
    case 6: return i % 3 == 0 ? UINT64_C(0x8000000000000000) : UINT64_C(0x7ff8000000000001);
    case 7: return r % 2;
    /* Times: on a grid with jitter, with gaps, several in one place, in milliseconds, at the ends. */
    case 8: return i * UINT64_C(1000000000) + r % 40000001 - 20000000;
    case 9: return (i + i / 50 * 7) * UINT64_C(250000000) + r % 9000000;
    case 10: return i / 3 * UINT64_C(1000000000) + i % 3 * 1000 + r % 900;
    case 11: return (UINT64_C(1790000000000) + i * UINT64_C(1000) + r % 41) * 1000000;
    case 12: return (uint64_t)INT64_MIN + i * UINT64_C(2000000000000000);
    case 13: return i % 2 == 0 ? (uint64_t)INT64_MIN : (uint64_t)INT64_MAX - 1;
    case 15: return (i + (i < 900 ? 0 : 98501)) * UINT64_C(1000000000) + r % 40000001 - 20000000;
    /* A few different values, and walks in so many different steps. */
    case 16: return r % 3 + 1000;
    case 17: return r % 6 - 3;
    case 14: return bits_of_walk(r, i);
    default: return walk_of(r % few[kind - 18] - 1, i);
    }
}

static const uint32_t counts[] = {0, 1, 2, 3, 15, 127, 128, 129, 1000, MIR_TLOG_CHUNK_ROWS_MAX};

/* One at a time; whether they can be had so. */
static bool places_agree(mir_tlog_codec *codec, const mir_bytes *column, const uint64_t *values,
                         uint32_t count)
{
    static mir_tlog_ints_places places;
    const mir_tlog_reader in = mir_tlog_reader_of(column->data, column->size);
    if (mir_tlog_column_places(codec, in, count, &places) != MIR_OK) return false;
    for (uint32_t i = count; i > 0; i--) {
        assert_int_equal(mir_tlog_ints_at(&places, i - 1), values[i - 1]);
    }
    return true;
}

/* Sums of neighbours, from any value to any other one; whether they can be had so. */
static bool walk_agrees(mir_tlog_codec *codec, const mir_bytes *column, const uint64_t *values,
                        uint32_t count, uint64_t *random)
{
    static mir_tlog_ints_walk walk;
    for (uint32_t longest = 4; longest < 2 * MIR_TLOG_CHUNK_ROWS_MAX; longest *= 5) {
        mir_tlog_reader in = mir_tlog_reader_of(column->data, column->size);
        const mir_tlog_reader before = in;
        if (mir_tlog_column_walk(codec, &in, count, &walk) != MIR_OK) {
            assert_ptr_equal(in.at, before.at);
            return false;
        }
        assert_int_equal(mir_tlog_reader_left(&in), BEHIND);
        for (uint32_t at = 0; at < count;) {
            uint32_t some = (uint32_t)(sim_random(random) % longest);
            if (some > count - at) some = count - at;
            uint64_t sum = 0;
            for (uint32_t i = 0; i < some; i++) sum += values[at + i];
            assert_int_equal(mir_tlog_ints_walk_sum(&walk, some), sum);
            at += some;
        }
    }
    return true;
}

static void numbers_come_back_exactly(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t *values = malloc(sizeof(uint64_t) * MIR_TLOG_CHUNK_ROWS_MAX);
    uint64_t *back = malloc(sizeof(uint64_t) * MIR_TLOG_CHUNK_ROWS_MAX);
    uint64_t random = 1;
    int placed[PATTERNS] = {0};
    int walked[PATTERNS] = {0};
    for (int kind = 0; kind < PATTERNS; kind++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            const mir_column_type types[] = {MIR_COLUMN_I64, MIR_COLUMN_U64, MIR_COLUMN_F64,
                                             MIR_COLUMN_BOOL};
            for (int t = 0; t < (kind == 7 ? 4 : 3); t++) {
                for (uint32_t i = 0; i < counts[c]; i++) values[i] = pattern(&random, kind, i);
                mir_bytes out = {0};
                mir_arena arena = {0};
                mir_tlog_column_encode(&codec, &out, 0, types[t], values, NULL, counts[c]);
                for (int i = 0; i < BEHIND; i++) mir_bytes_u8(&out, 0xee);
                assert_true(mir_bytes_ok(&out));
                mir_tlog_reader in = mir_tlog_reader_of(out.data, out.size);
                assert_int_equal(
                    mir_tlog_column_decode(&codec, &in, types[t], back, NULL, counts[c], &arena),
                    MIR_OK);
                assert_int_equal(mir_tlog_reader_left(&in), BEHIND);
                if (types[t] == MIR_COLUMN_I64 && places_agree(&codec, &out, values, counts[c]))
                    placed[kind]++;
                if (types[t] == MIR_COLUMN_I64 &&
                    walk_agrees(&codec, &out, values, counts[c], &random))
                    walked[kind]++;
                if (counts[c] > 0) assert_memory_equal(values, back, counts[c] * sizeof *values);
                in = mir_tlog_reader_of(out.data, out.size);
                mir_tlog_column_skip(&in);
                assert_int_equal(mir_tlog_reader_left(&in), BEHIND);
                mir_bytes_free(&out);
                mir_arena_free(&arena);
            }
        }
    }
    /* What devices' clocks give: with jitter, in milliseconds, with a long gap, from some rows on. */
    assert_true(placed[8] >= 5 && placed[11] >= 5 && placed[15] >= 5);
    for (int kind = 16; kind < PATTERNS; kind++) assert_true(walked[kind] >= 5);
    free(values);
    free(back);
    mir_tlog_codec_fini(&codec);
}

static size_t round_trip(mir_tlog_codec *codec, mir_column_type type, const uint64_t *values,
                         uint32_t count)
{
    static uint64_t back[MIR_TLOG_CHUNK_ROWS_MAX];
    mir_bytes out = {0};
    mir_tlog_column_encode(codec, &out, 0, type, values, NULL, count);
    assert_true(mir_bytes_ok(&out));
    mir_tlog_reader in = mir_tlog_reader_of(out.data, out.size);
    assert_int_equal(mir_tlog_column_decode(codec, &in, type, back, NULL, count, NULL), MIR_OK);
    assert_memory_equal(values, back, count * sizeof *values);
    const size_t size = out.size;
    mir_bytes_free(&out);
    return size;
}

static void values_of_every_width_come_back(void **state)
{
    (void)state;
    static uint64_t values[MIR_TLOG_CHUNK_ROWS_MAX];
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t random = 3;
    for (uint32_t bits = 1; bits <= 64; bits++) {
        for (uint32_t count = 1; count < 300; count += count < 20 ? 1 : 37) {
            for (uint32_t i = 0; i < count; i++) values[i] = sim_random(&random) >> (64 - bits);
            (void)round_trip(&codec, MIR_COLUMN_I64, values, count);
        }
    }
    mir_tlog_codec_fini(&codec);
}

/* What a part of the values leads to expect, and the others are not. */
static void what_was_not_foreseen_costs_no_more_than_itself(void **state)
{
    (void)state;
    enum { COUNT = MIR_TLOG_CHUNK_ROWS_MAX };
    static uint64_t values[COUNT];
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    for (uint32_t i = 0; i < COUNT; i++) values[i] = 1000;
    for (uint32_t at = 0; at < COUNT; at += 100) {
        values[at] = UINT64_MAX / 3;
        /* Two groups at most, with and without differences. */
        assert_true(round_trip(&codec, MIR_COLUMN_I64, values, COUNT) < 2 * 128 * 9);
        values[at] = 1000;
    }
    uint64_t random = 4;
    for (uint32_t first = 0; first < COUNT; first += 1024) {
        for (uint32_t i = 0; i < COUNT; i++) {
            /* Decimals that become longer, and bits among what hardly changes. */
            const double decimal = i < first ? (double)(i % 7) / 10 : (double)(i % 700) / 1000;
            memcpy(&values[i], &decimal, sizeof decimal);
        }
        assert_true(round_trip(&codec, MIR_COLUMN_F64, values, COUNT) < COUNT * 2);
        for (uint32_t i = 0; i < COUNT; i++) {
            values[i] =
                i / 1024 * 1024 == first ? UINT64_C(0x3fd5555555555555) + i : sim_random(&random);
        }
        assert_true(round_trip(&codec, MIR_COLUMN_F64, values, COUNT) < COUNT * 8 + 64);
    }
    mir_tlog_codec_fini(&codec);
}

static void texts_come_back_exactly(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    mir_view *texts = malloc(sizeof(mir_view) * MIR_TLOG_CHUNK_ROWS_MAX);
    mir_view *back = malloc(sizeof(mir_view) * MIR_TLOG_CHUNK_ROWS_MAX);
    uint64_t *room = malloc(sizeof(uint64_t) * MIR_TLOG_CHUNK_ROWS_MAX);
    uint8_t bytes[4096];
    uint64_t random = 2;
    for (size_t i = 0; i < sizeof bytes; i++) bytes[i] = (uint8_t)sim_random(&random);
    for (int kind = 0; kind < 3; kind++) {
        for (size_t c = 0; c < sizeof counts / sizeof counts[0]; c++) {
            for (uint32_t i = 0; i < counts[c]; i++) {
                const uint64_t r = sim_random(&random);
                texts[i] = kind == 0   ? mir_view_of(bytes + r % 5 * 10, r % 5)
                           : kind == 1 ? mir_view_of(bytes + r % 3000, r / 4096 % 60)
                                       : mir_view_of(bytes, 0);
            }
            mir_bytes out = {0};
            mir_arena arena = {0};
            mir_tlog_column_encode(&codec, &out, 0, MIR_COLUMN_STRING, NULL, texts, counts[c]);
            mir_tlog_reader in = mir_tlog_reader_of(out.data, out.size);
            assert_int_equal(mir_tlog_column_decode(&codec, &in, MIR_COLUMN_STRING, room, back,
                                                    counts[c], &arena),
                             MIR_OK);
            for (uint32_t i = 0; i < counts[c]; i++) assert_true(mir_view_eq(texts[i], back[i]));
            mir_bytes_free(&out);
            mir_arena_free(&arena);
        }
    }
    free(texts);
    free(back);
    free(room);
    mir_tlog_codec_fini(&codec);
}

static void even_times_and_constants_take_almost_nothing(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t values[1024];
    for (uint32_t i = 0; i < 1024; i++) values[i] = i * UINT64_C(1000000000);
    mir_bytes out = {0};
    mir_tlog_column_encode(&codec, &out, 0, MIR_COLUMN_I64, values, NULL, 1024);
    assert_true(out.size < 64);
    mir_bytes_free(&out);
    mir_tlog_codec_fini(&codec);
}

/* Bits that each of 5,000 values takes. */
static double bits_each(mir_column_type type, int kind)
{
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t *values = malloc(sizeof(uint64_t) * 5000);
    uint64_t random = 4;
    for (uint32_t i = 0; i < 5000; i++) {
        values[i] = pattern(&random, kind, i);
    }
    mir_bytes out = {0};
    mir_tlog_column_encode(&codec, &out, 0, type, values, NULL, 5000);
    assert_true(mir_bytes_ok(&out));
    const double bits = (double)out.size * 8 / 5000;
    mir_bytes_free(&out);
    free(values);
    mir_tlog_codec_fini(&codec);
    return bits;
}

/* What the values hold: 25.3 bits of jitter in nanoseconds, 5.4 in milliseconds, 1.6 of a step
 * among three, 2.3 and 2.6 of one among five and six, 43 of a double's. */
static void only_what_cannot_be_foreseen_takes_room(void **state)
{
    (void)state;
    assert_true(bits_each(MIR_COLUMN_I64, 8) < 26.2);
    assert_true(bits_each(MIR_COLUMN_I64, 11) < 6.2);
    assert_true(bits_each(MIR_COLUMN_I64, 20) < 1.62);
    assert_true(bits_each(MIR_COLUMN_I64, 22) < 2.69);
    assert_true(bits_each(MIR_COLUMN_I64, 23) < 2.69);
    assert_true(bits_each(MIR_COLUMN_F64, 14) < 46);
    /* A gap every so often does not lose the grid: 24 bits of jitter, and the steps. */
    assert_true(bits_each(MIR_COLUMN_I64, 9) < 26.2);
    /* Nor does one that is as long as many rows, but groups of rows take some words then. */
    assert_true(bits_each(MIR_COLUMN_I64, 15) < 27.2);
}

static void damaged_columns_are_not_read_past_their_end(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t values[300];
    mir_view texts[300];
    uint64_t random = 3;
    for (int round = 0; round < 20000; round++) {
        const mir_column_type type = (mir_column_type)(1 + round % 5);
        const uint32_t count = (uint32_t)(sim_random(&random) % 300);
        for (uint32_t i = 0; i < count; i++) {
            values[i] =
                pattern(&random, round % PATTERNS, i) & (type == MIR_COLUMN_BOOL ? 1 : UINT64_MAX);
            texts[i] = mir_view_of(values, values[i] % 30);
        }
        mir_bytes out = {0};
        mir_arena arena = {0};
        mir_tlog_column_encode(&codec, &out, 0, type, values, texts, count);
        out.data[sim_random(&random) % out.size] ^= (uint8_t)(1 + sim_random(&random) % 255);
        /* In memory of its very size, so that a sanitizer sees a byte too far. */
        const size_t size = sim_random(&random) % 4 == 0 ? out.size / 2 : out.size;
        uint8_t *exact = malloc(size + 1);
        memcpy(exact + 1, out.data, size);
        mir_tlog_reader in = mir_tlog_reader_of(exact + 1, size);
        uint64_t back[300];
        mir_view back_texts[300];
        const mir_status status =
            mir_tlog_column_decode(&codec, &in, type, back, back_texts, count, &arena);
        assert_true(status == MIR_OK || status == MIR_E_CORRUPT);
        mir_tlog_ints_places *places = malloc(sizeof *places);
        in = mir_tlog_reader_of(exact + 1, size);
        if (mir_tlog_column_places(&codec, in, count, places) == MIR_OK)
            for (uint32_t i = 0; i < count; i++) back[i] = mir_tlog_ints_at(places, i);
        free(places);
        mir_tlog_ints_walk *walk = malloc(sizeof *walk);
        in = mir_tlog_reader_of(exact + 1, size);
        if (mir_tlog_column_walk(&codec, &in, count, walk) == MIR_OK)
            while (walk->at < count) (void)mir_tlog_ints_walk_sum(walk, 1);
        free(walk);
        free(exact);
        mir_bytes_free(&out);
        mir_arena_free(&arena);
    }
    mir_tlog_codec_fini(&codec);
}

/* A unit of one has a base as others have, whoever reads it; nobody writes it so. */
static void a_base_counts_whatever_the_unit(void **state)
{
    (void)state;
    enum { COUNT = 5 };
    for (uint8_t unit = 1; unit < 3; unit++) {
        mir_tlog_codec codec;
        assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
        /* Integers, all in one group: unit, base 100, the unit, no differences, 3, without bits. */
        const uint8_t bytes[] = {0, 6, 0x50, 200, 1, unit, 6, 0};
        mir_tlog_reader in = mir_tlog_reader_of(bytes, sizeof bytes);
        uint64_t values[COUNT];
        assert_int_equal(
            mir_tlog_column_decode(&codec, &in, MIR_COLUMN_I64, values, NULL, COUNT, NULL), MIR_OK);
        mir_tlog_ints_places *places = malloc(sizeof *places);
        mir_tlog_ints_walk *walk = malloc(sizeof *walk);
        in = mir_tlog_reader_of(bytes, sizeof bytes);
        assert_int_equal(mir_tlog_column_places(&codec, in, COUNT, places), MIR_OK);
        assert_int_equal(mir_tlog_column_walk(&codec, &in, COUNT, walk), MIR_OK);
        for (uint32_t i = 0; i < COUNT; i++) {
            assert_int_equal(values[i], 100 + unit * 3);
            assert_int_equal(mir_tlog_ints_at(places, i), values[i]);
            assert_int_equal(mir_tlog_ints_walk_sum(walk, 1), values[i]);
        }
        free(places);
        free(walk);
        mir_tlog_codec_fini(&codec);
    }
}

/* Random numbers, or the same few hundred of them again and again. */
static size_t encoded_size(mir_tlog_codec *codec, uint32_t kind, bool repeats, uint64_t *random)
{
    uint64_t values[4096];
    for (uint32_t i = 0; i < 4096; i++) {
        values[i] = repeats && i >= 256 ? values[i - 256] : sim_random(random) % 1000;
    }
    mir_bytes out = {0};
    mir_tlog_column_encode(codec, &out, kind, MIR_COLUMN_I64, values, NULL, 4096);
    assert_true(mir_bytes_ok(&out));
    const size_t size = out.size;
    uint64_t back[4096];
    mir_tlog_reader in = mir_tlog_reader_of(out.data, out.size);
    assert_int_equal(mir_tlog_column_decode(codec, &in, MIR_COLUMN_I64, back, NULL, 4096, NULL),
                     MIR_OK);
    assert_memory_equal(back, values, sizeof values);
    mir_bytes_free(&out);
    return size;
}

static void compression_that_has_not_paid_is_tried_now_and_then(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t random = 1;
    const size_t whole = encoded_size(&codec, 1, false, &random);
    for (int i = 0; i < 100; i++) (void)encoded_size(&codec, 1, false, &random);
    /* Another column knows nothing of it. */
    assert_true(encoded_size(&codec, 2, true, &random) < whole / 4);
    int untried = 0;
    while (encoded_size(&codec, 1, true, &random) > whole / 4) untried++;
    assert_in_range(untried, 1, 100);
    /* And when it has paid it is tried each time again. */
    for (int i = 0; i < 20; i++) {
        assert_true(encoded_size(&codec, 1, true, &random) < whole / 4);
    }
    mir_tlog_codec_fini(&codec);
}

/* Of doubles that walk, which suits integers, or whose upper bytes are some few in any order. */
static size_t doubles_size(mir_tlog_codec *codec, bool walk, uint64_t *random)
{
    enum { COUNT = 2048 };
    uint64_t values[COUNT];
    for (uint32_t i = 0; i < COUNT; i++) {
        const uint64_t r = sim_random(random);
        const double upper = 1e9 / (double)(7 + r % 3 * 1000);
        memcpy(&values[i], &upper, sizeof upper);
        values[i] = walk ? bits_of_walk(r, i) : values[i] ^ (r >> 48);
    }
    return round_trip(codec, MIR_COLUMN_F64, values, COUNT) / COUNT;
}

static void doubles_that_change_their_nature_are_packed_by_the_new_one_soon(void **state)
{
    (void)state;
    mir_tlog_codec codec;
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    uint64_t random = 1;
    for (int change = 0; change < 4; change++) {
        const bool walk = change % 2 == 1;
        const size_t bytes = walk ? 6 : 4;
        int otherwise = 0;
        while (doubles_size(&codec, walk, &random) >= bytes) otherwise++;
        assert_in_range(otherwise, 0, 20);
        for (int i = 0; i < 100; i++) {
            assert_true(doubles_size(&codec, walk, &random) < bytes);
        }
    }
    mir_tlog_codec_fini(&codec);
}

static void varints_are_the_same_either_way(void **state)
{
    (void)state;
    for (unsigned bits = 0; bits <= 64; bits++) {
        for (int more = -2; more <= 2; more++) {
            const uint64_t value = (bits == 64 ? 0 : UINT64_C(1) << bits) + (uint64_t)(int64_t)more;
            uint8_t slow[MIR_TLOG_VARINT_BYTES_MAX], quick[MIR_TLOG_VARINT_BYTES_MAX];
            const size_t size = (size_t)(mir_tlog_put_varint(slow, value) - slow);
            assert_int_equal(mir_tlog_put_varint_spread(quick, value) - quick, size);
            assert_memory_equal(quick, slow, size);
            mir_tlog_reader in = mir_tlog_reader_of(quick, size);
            assert_true(mir_tlog_read_varint(&in) == value);
            const uint8_t *at = quick;
            assert_true(mir_tlog_take_varint(&at) == value);
            assert_true(at == quick + size);
            assert_false(in.failed);
        }
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(varints_are_the_same_either_way),
        cmocka_unit_test(compression_that_has_not_paid_is_tried_now_and_then),
        cmocka_unit_test(doubles_that_change_their_nature_are_packed_by_the_new_one_soon),
        cmocka_unit_test(numbers_come_back_exactly),
        cmocka_unit_test(values_of_every_width_come_back),
        cmocka_unit_test(a_base_counts_whatever_the_unit),
        cmocka_unit_test(what_was_not_foreseen_costs_no_more_than_itself),
        cmocka_unit_test(texts_come_back_exactly),
        cmocka_unit_test(even_times_and_constants_take_almost_nothing),
        cmocka_unit_test(only_what_cannot_be_foreseen_takes_room),
        cmocka_unit_test(damaged_columns_are_not_read_past_their_end),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
