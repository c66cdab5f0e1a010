/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_ints.h"

#include <endian.h>
#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"

enum {
    GROUP_ROWS = MIR_TLOG_INTS_GROUP_ROWS,
    /* The first byte. */
    MODE_MASK = 0x03, /* 0, 1, 2: differences taken so often; 3: a grid */
    MODE_GRID = 3,
    MODE_UNIT = 0x10,  /* a base and a unit come next */
    MODE_STEPS = 0x20, /* of a grid: each value is one period after the one before it */
    MODE_WIDE = 0x40,  /* one group for all */
    MODE_KNOWN = 0x73,
    /* Fewer values do not pay for the words that a grid takes. */
    GRID_ROWS_MIN = 16,
    GRID_SAMPLES = 63,
    GRID_GAP_MIN = 8, /* periods */
    /* From so many values on every second, every fourth group is looked at for the form. */
    FORM_ROWS_FEW = 8 * GROUP_ROWS,
    FORM_ROWS_MANY = 32 * GROUP_ROWS,
    UNEVEN_ROWS = MIR_TLOG_CHUNK_ROWS_MAX /
                  (MIR_TLOG_INTS_UNEVEN_MAX -
                   1), /* for each of them one group with gaps is worth it, and one more */
};

static uint32_t bits_of(uint64_t value)
{
    return value == 0 ? 0 : 64 - (uint32_t)__builtin_clzll(value);
}

static uint64_t load64(const uint8_t *from)
{
    uint64_t word;
    memcpy(&word, from, sizeof word);
    return le64toh(word);
}

static uint8_t *store64(uint8_t *to, uint64_t word)
{
    word = htole64(word);
    memcpy(to, &word, sizeof word);
    return to + sizeof word;
}

#define WIDTHS_8(of, width)                                                                        \
    of((width) + 0);                                                                               \
    of((width) + 1);                                                                               \
    of((width) + 2);                                                                               \
    of((width) + 3);                                                                               \
    of((width) + 4);                                                                               \
    of((width) + 5);                                                                               \
    of((width) + 6);                                                                               \
    of((width) + 7)
/* A case for each number of bits that a value may have. */
#define WIDTHS_64(of)                                                                              \
    WIDTHS_8(of, 1);                                                                               \
    WIDTHS_8(of, 9);                                                                               \
    WIDTHS_8(of, 17);                                                                              \
    WIDTHS_8(of, 25);                                                                              \
    WIDTHS_8(of, 33);                                                                              \
    WIDTHS_8(of, 41);                                                                              \
    WIDTHS_8(of, 49);                                                                              \
    WIDTHS_8(of, 57)

/* ---- Groups: least value, width, packed differences from it ---- */

typedef struct range {
    int64_t low;
    int64_t high;
} range;

/* What the groups of a list take, and what it takes as one. */
typedef struct measured {
    range each[MIR_TLOG_INTS_GROUPS_MAX];
    range all;
    uint32_t narrow;
    uint32_t wide;
} measured;

/* Of 3, 5 and 6 different values bits are wasted: as many digits of that base stand in a byte as fit.
 * A width above 64 is 64 and the base. */
enum {
    WIDTH_BITS_MAX = 64,
    WIDTH_BASE_3 = 64 + 3,
    WIDTH_BASE_5 = 64 + 5,
    WIDTH_BASE_6 = 64 + 6,
    PER_BYTE_3 = 5,
    PER_BYTE_56 = 3,
    DIGITS_MAX = 5,
};

static uint32_t width_of(uint64_t span)
{
    switch (span) {
    case 2: return WIDTH_BASE_3;
    case 4: return WIDTH_BASE_5;
    case 5: return WIDTH_BASE_6;
    default: return bits_of(span);
    }
}

static bool width_known(uint32_t width)
{
    return width <= WIDTH_BITS_MAX || width == WIDTH_BASE_3 || width == WIDTH_BASE_5 ||
           width == WIDTH_BASE_6;
}

static inline uint32_t group_size(uint32_t rows, uint32_t width)
{
    if (width <= WIDTH_BITS_MAX) return (rows * width + 7) / 8;
    return width == WIDTH_BASE_3 ? (rows + PER_BYTE_3 - 1) / PER_BYTE_3
                                 : (rows + PER_BYTE_56 - 1) / PER_BYTE_56;
}

/* Digits of a byte from the lowest one on. Bytes that none make have some all the same. */
#define DIGIT(byte, power, base) (uint8_t)((byte) / (power) % (base))
#define DIGITS_3(b)                                                                                \
    {                                                                                              \
        DIGIT(b, 1, 3), DIGIT(b, 3, 3), DIGIT(b, 9, 3), DIGIT(b, 27, 3), DIGIT(b, 81, 3)           \
    }
#define DIGITS_5(b)                                                                                \
    {                                                                                              \
        DIGIT(b, 1, 5), DIGIT(b, 5, 5), DIGIT(b, 25, 5), 0, 0                                      \
    }
#define DIGITS_6(b)                                                                                \
    {                                                                                              \
        DIGIT(b, 1, 6), DIGIT(b, 6, 6), DIGIT(b, 36, 6), 0, 0                                      \
    }
#define BYTES_4(of, b) of(b), of((b) + 1), of((b) + 2), of((b) + 3)
#define BYTES_16(of, b)                                                                            \
    BYTES_4(of, b), BYTES_4(of, (b) + 4), BYTES_4(of, (b) + 8), BYTES_4(of, (b) + 12)
#define BYTES_64(of, b)                                                                            \
    BYTES_16(of, b), BYTES_16(of, (b) + 16), BYTES_16(of, (b) + 32), BYTES_16(of, (b) + 48)
#define BYTES_256(of)                                                                              \
    {                                                                                              \
        BYTES_64(of, 0), BYTES_64(of, 64), BYTES_64(of, 128), BYTES_64(of, 192)                    \
    }

static const uint8_t digits_3[256][DIGITS_MAX] = BYTES_256(DIGITS_3);
static const uint8_t digits_5[256][DIGITS_MAX] = BYTES_256(DIGITS_5);
static const uint8_t digits_6[256][DIGITS_MAX] = BYTES_256(DIGITS_6);

static inline __attribute__((always_inline)) void digits_pack(uint8_t *to, const uint64_t *values,
                                                              uint64_t low, uint32_t rows,
                                                              uint32_t base, uint32_t per_byte)
{
    uint32_t at = 0;
    for (; at + per_byte <= rows; at += per_byte) {
        uint32_t byte = 0;
#pragma GCC unroll 5
        for (uint32_t i = per_byte; i > 0; i--) {
            byte = byte * base + (uint32_t)(values[at + i - 1] - low);
        }
        *to++ = (uint8_t)byte;
    }
    uint32_t byte = 0;
    for (uint32_t end = rows; end > at; end--) {
        byte = byte * base + (uint32_t)(values[end - 1] - low);
    }
    if (at < rows) *to = (uint8_t)byte;
}

static inline __attribute__((always_inline)) void digits_unpack(const uint8_t *from,
                                                                const uint8_t (*digits)[DIGITS_MAX],
                                                                uint64_t low, uint64_t *values,
                                                                uint32_t rows, uint32_t per_byte)
{
    uint32_t at = 0;
    for (; at + per_byte <= rows; at += per_byte) {
        const uint8_t *of = digits[*from++];
        for (uint32_t i = 0; i < per_byte; i++) values[at + i] = low + of[i];
    }
    for (uint32_t i = 0; at < rows; i++) values[at++] = low + digits[*from][i];
}

/* As many of the first values as make whole bytes eight at a time; how many these were. With a
 * constant width all shifts are. */
static inline __attribute__((always_inline)) uint32_t
pack_eights(uint8_t *to, const uint64_t *values, uint64_t low, uint32_t rows, uint32_t bits)
{
    uint32_t at = 0;
    for (; at + 8 <= rows; at += 8) {
        uint64_t pending = 0;
        uint32_t pending_bits = 0;
#pragma GCC unroll 8
        for (uint32_t i = 0; i < 8; i++) {
            const uint64_t value = values[at + i] - low;
            pending |= value << pending_bits;
            pending_bits += bits;
            if (pending_bits < 64) continue;
            to = store64(to, pending);
            pending_bits -= 64;
            pending = pending_bits == 0 ? 0 : value >> (bits - pending_bits);
        }
        if (pending_bits > 0) (void)store64(to, pending);
        to += pending_bits / 8;
    }
    return at;
}

#define PACKED(width)                                                                              \
    case width: return pack_eights(to, values, low, rows, width)
static uint32_t pack_most(uint8_t *to, const uint64_t *values, uint64_t low, uint32_t rows,
                          uint32_t bits)
{
    switch (bits) {
        WIDTHS_64(PACKED);
    default: return rows;
    }
}

static void group_pack(mir_bytes *out, const uint64_t *values, uint32_t rows, const range *r)
{
    const uint64_t low = (uint64_t)r->low;
    const uint32_t bits = width_of((uint64_t)r->high - low);
    const size_t size = group_size(rows, bits);
    uint8_t *start =
        mir_bytes_reserve(out, MIR_TLOG_VARINT_BYTES_MAX + 1 + size + MIR_TLOG_INTS_PADDING);
    if (start == NULL) return;
    uint8_t *to = mir_tlog_put_varint(start, mir_tlog_zigzag(r->low));
    *to++ = (uint8_t)bits;
    out->size += (size_t)(to - start) + size;
    switch (bits) {
    case 0: return;
    case WIDTH_BASE_3: digits_pack(to, values, low, rows, 3, PER_BYTE_3); return;
    case WIDTH_BASE_5: digits_pack(to, values, low, rows, 5, PER_BYTE_56); return;
    case WIDTH_BASE_6: digits_pack(to, values, low, rows, 6, PER_BYTE_56); return;
    default: break;
    }
    const uint32_t most = pack_most(to, values, low, rows, bits);
    if (most == rows) return;
    /* Seven at most are left: a last turn with what stands for nothing. */
    uint64_t last[8];
    for (uint32_t i = 0; i < 8; i++) last[i] = most + i < rows ? values[most + i] : low;
    uint8_t packed[64 + MIR_TLOG_INTS_PADDING];
    (void)pack_most(packed, last, low, 8, bits);
    const size_t done = (size_t)most / 8 * bits;
    memcpy(to + done, packed, size - done);
}

static void groups_pack(mir_bytes *out, const uint64_t *values, uint32_t count,
                        const measured *lengths, bool wide)
{
    if (wide) {
        if (count > 0) group_pack(out, values, count, &lengths->all);
        return;
    }
    for (uint32_t at = 0; at < count; at += GROUP_ROWS) {
        group_pack(out, values + at, count - at < GROUP_ROWS ? count - at : GROUP_ROWS,
                   &lengths->each[at / GROUP_ROWS]);
    }
}

static inline __attribute__((always_inline)) uint64_t value_at(const uint8_t *from, uint32_t index,
                                                               uint32_t bits)
{
    const uint32_t position = index * bits;
    const uint32_t shift = position % 8;
    uint64_t word = load64(from + position / 8) >> shift;
    if (__builtin_expect(shift + bits > 64, 0))
        word |= (uint64_t)from[position / 8 + 8] << (64 - shift);
    return bits == 64 ? word : word & ((UINT64_C(1) << bits) - 1);
}

/* Eight values are as many bytes as one has bits, so with a constant width all shifts are. */
static inline __attribute__((always_inline)) uint32_t unpack_eights(const uint8_t *from,
                                                                    const uint8_t *end,
                                                                    uint64_t low, uint64_t *values,
                                                                    uint32_t rows, uint32_t bits)
{
    uint32_t at = 0;
    for (; at + 8 <= rows && (size_t)(end - from) >= bits + MIR_TLOG_INTS_PADDING; at += 8) {
#pragma GCC unroll 8
        for (uint32_t i = 0; i < 8; i++) values[at + i] = low + value_at(from, i, bits);
        from += bits;
    }
    return at;
}

#define EIGHTS(width)                                                                              \
    case width: return unpack_eights(from, end, low, values, rows, width)
/* As many of the first values as can be read eight at a time; how many these were. */
static uint32_t unpack_most(const uint8_t *from, const uint8_t *end, uint64_t low, uint64_t *values,
                            uint32_t rows, uint32_t bits)
{
    switch (bits) {
        WIDTHS_64(EIGHTS);
    default: return 0;
    }
}

static mir_status group_unpack(mir_tlog_reader *in, uint64_t *values, uint32_t rows)
{
    const uint64_t low = (uint64_t)mir_tlog_read_signed(in);
    const uint32_t bits = mir_tlog_read_u8(in);
    if (in->failed || !width_known(bits)) return MIR_E_CORRUPT;
    const mir_view packed = mir_tlog_read_bytes(in, group_size(rows, bits));
    if (in->failed) return MIR_E_CORRUPT;
    switch (bits) {
    case 0:
        for (uint32_t i = 0; i < rows; i++) values[i] = low;
        return MIR_OK;
    case WIDTH_BASE_3:
        digits_unpack(packed.data, digits_3, low, values, rows, PER_BYTE_3);
        return MIR_OK;
    case WIDTH_BASE_5:
        digits_unpack(packed.data, digits_5, low, values, rows, PER_BYTE_56);
        return MIR_OK;
    case WIDTH_BASE_6:
        digits_unpack(packed.data, digits_6, low, values, rows, PER_BYTE_56);
        return MIR_OK;
    default: break;
    }
    /* Bytes behind the group are there to be read, if not to be used. */
    uint32_t at = unpack_most(packed.data, in->end, low, values, rows, bits);
    uint8_t padded[8 * 64 + MIR_TLOG_INTS_PADDING];
    while (at < rows) {
        const uint32_t some = rows - at < 64 ? rows - at : 64;
        const size_t offset = (size_t)at * bits / 8; /* at is a multiple of eight */
        const size_t left = packed.size - offset;
        const size_t size = left < (size_t)some * 8 ? left : (size_t)some * 8;
        memcpy(padded, packed.data + offset, size);
        memset(padded + size, 0, MIR_TLOG_INTS_PADDING);
        for (uint32_t i = 0; i < some; i++) values[at + i] = low + value_at(padded, i, bits);
        at += some;
    }
    return MIR_OK;
}

static mir_status groups_unpack(mir_tlog_reader *in, uint64_t *values, uint32_t count, bool wide)
{
    const uint32_t group = wide ? count : GROUP_ROWS;
    for (uint32_t at = 0; at < count; at += group) {
        const mir_status status =
            group_unpack(in, values + at, count - at < group ? count - at : group);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

/* ---- What a form would take ---- */

static const range range_none = {INT64_MAX, INT64_MIN};

static void range_take(range *r, uint64_t value)
{
    if ((int64_t)value < r->low) r->low = (int64_t)value;
    if ((int64_t)value > r->high) r->high = (int64_t)value;
}

static void range_join(range *r, const range *other)
{
    if (other->low < r->low) r->low = other->low;
    if (other->high > r->high) r->high = other->high;
}

static uint32_t range_cost(const range *r, uint32_t rows)
{
    if (rows == 0) return 0;
    return 1 + mir_tlog_varint_size(mir_tlog_zigzag(r->low)) +
           group_size(rows, width_of((uint64_t)r->high - (uint64_t)r->low));
}

static void measure(const uint64_t *values, uint32_t count, measured *m)
{
    m->all = range_none;
    m->narrow = 0;
    for (uint32_t at = 0; at < count; at += GROUP_ROWS) {
        const uint32_t end = count - at < GROUP_ROWS ? count : at + GROUP_ROWS;
        range r = range_none;
        for (uint32_t i = at; i < end; i++) range_take(&r, values[i]);
        m->each[at / GROUP_ROWS] = r;
        m->narrow += range_cost(&r, end - at);
        range_join(&m->all, &r);
    }
    m->wide = range_cost(&m->all, count);
}

/* A way to write the values, and about how many bytes it takes. */
typedef struct form {
    uint32_t mode;
    uint32_t cost;
} form;

static void form_take(form *best, uint32_t mode, uint32_t extra, uint32_t narrow, uint32_t wide)
{
    const uint32_t cost = extra + (wide <= narrow ? wide : narrow);
    if (cost < best->cost) *best = (form){.mode = mode, .cost = cost};
}

static uint32_t signed_size(uint64_t value)
{
    return mir_tlog_varint_size(mir_tlog_zigzag((int64_t)value));
}

/* How often differences should be taken: in one pass, with groups that begin at the same value
 * whatever the depth, which is close enough, and of many groups some stand for all. */
static form differences_form(const uint64_t *values, uint32_t count)
{
    const uint32_t stride =
        GROUP_ROWS * (count >= FORM_ROWS_FEW ? count >= FORM_ROWS_MANY ? 4 : 2 : 1);
    uint64_t narrow[3] = {0};
    uint32_t rows = 0;
    range all[3] = {range_none, range_none, range_none};
    for (uint32_t at = 0; at < count; at += stride) {
        const uint32_t end = count - at < GROUP_ROWS ? count : at + GROUP_ROWS;
        range r[3] = {range_none, range_none, range_none};
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
        rows += end - at;
        for (uint32_t d = 0; d < 3; d++) {
            const uint32_t without = at >= d ? 0 : d;
            narrow[d] += range_cost(&r[d], end - at > without ? end - at - without : 0);
            range_join(&all[d], &r[d]);
        }
    }
    form best = {.mode = 0, .cost = UINT32_MAX};
    uint32_t extra = 0;
    for (uint32_t d = 0; d < 3 && d < count; d++) {
        if (d == 1) extra += signed_size(values[0]);
        if (d == 2) extra += signed_size(values[1] - values[0]);
        form_take(&best, d, extra, (uint32_t)(narrow[d] * count / rows),
                  range_cost(&all[d], count - d));
    }
    return best;
}

/* ---- Units ---- */

static uint64_t common_divisor(uint64_t a, uint64_t b)
{
    while (b != 0) {
        const uint64_t rest = a % b;
        a = b;
        b = rest;
    }
    return a;
}

/* The largest number of which all values are whole multiples from the least one on; 1 when there is
 * none, or the values are too far apart to tell, or all are one. */
static uint64_t unit_of(const uint64_t *values, uint32_t count, int64_t *low)
{
    uint64_t unit = 0;
    for (uint32_t i = 1; i < count && unit != 1; i++) {
        const uint64_t step = (int64_t)values[i] >= (int64_t)values[i - 1]
                                  ? values[i] - values[i - 1]
                                  : values[i - 1] - values[i];
        if (step == 0 || step == unit) continue;
        if (unit == 0) {
            unit = step;
        } else if (step % unit != 0) {
            unit = common_divisor(unit, step);
        }
    }
    if (unit <= 1) return 1;
    int64_t high = *low = (int64_t)values[0];
    for (uint32_t i = 1; i < count; i++) {
        const int64_t value = (int64_t)values[i];
        if (value < *low) *low = value;
        if (value > high) high = value;
    }
    return unit;
}

/* ---- Grids ---- */

static int step_compare(const void *a, const void *b)
{
    const uint64_t left = *(const uint64_t *)a;
    const uint64_t right = *(const uint64_t *)b;
    return left < right ? -1 : left > right;
}

/* The number between the two that ends in most zeros. */
static uint64_t roundest(uint64_t low, uint64_t high)
{
    uint64_t best = low;
    for (uint64_t power = 10; power <= high; power *= 10) {
        const uint64_t multiple = (low + power - 1) / power * power;
        if (multiple < low || multiple > high) break;
        best = multiple;
        if (power > UINT64_MAX / 10) break;
    }
    return best;
}

/* Values that follow each other without a long gap. */
typedef struct stretch {
    uint32_t first, last; /* values */
    uint64_t periods;     /* between them */
    uint64_t off;         /* the farthest that a step is from whole periods */
} stretch;

/* The longest one. A gap tells less of the period the longer it is: how many periods it has is not
 * known before the period is. */
static stretch longest_stretch(const uint64_t *values, uint32_t count, uint64_t median)
{
    stretch longest = {0}, at = {0};
    for (uint32_t i = 1; i < count; i++) {
        const uint64_t step = values[i] - values[i - 1];
        if (step / GRID_GAP_MIN >= median) {
            if (at.last - at.first > longest.last - longest.first) longest = at;
            at = (stretch){.first = i, .last = i};
            continue;
        }
        uint64_t whole = 1;
        if (step - median / 2 > median) whole = (step + median / 2) / median;
        const uint64_t even = whole * median;
        const uint64_t away = step > even ? step - even : even - step;
        at.last = i;
        at.periods += whole;
        if (away > at.off) at.off = away;
    }
    return at.last - at.first > longest.last - longest.first ? at : longest;
}

/* The period at which ascending values seem to come; 0: none. Found from the median step, and from
 * how many such steps lie between the ends of the longest stretch. */
static uint64_t period_of(const uint64_t *values, uint32_t count)
{
    if (count < GRID_ROWS_MIN) return 0;
    const uint64_t span = values[count - 1] - values[0];
    if (span > INT64_MAX / 4) return 0;
    uint64_t steps[GRID_SAMPLES];
    uint32_t step_count = 0;
    const uint32_t stride = (count - 1 + GRID_SAMPLES - 1) / GRID_SAMPLES;
    for (uint32_t i = 1; i < count; i += stride) steps[step_count++] = values[i] - values[i - 1];
    qsort(steps, step_count, sizeof *steps, step_compare);
    const uint64_t median = steps[step_count / 2];
    if (median < 4) return 0;
    const stretch even = longest_stretch(values, count, median);
    if (even.periods == 0) return 0;
    const uint64_t slack = (even.off + even.periods - 1) / even.periods;
    const uint64_t mean = (values[even.last] - values[even.first]) / even.periods;
    return roundest(mean > slack ? mean - slack : 1, mean + slack + 1);
}

static bool ascending(const uint64_t *values, uint32_t count)
{
    for (uint32_t i = 1; i < count; i++) {
        if ((int64_t)values[i] < (int64_t)values[i - 1]) return false;
    }
    return true;
}

/* Steps (count - 1 of them, each as the periods beyond one) and how far each value is from where
 * its step says. */
static void grid_split(const uint64_t *values, uint32_t count, uint64_t period, uint64_t *steps,
                       uint64_t *rest)
{
    uint64_t at = 0; /* periods from the first value on */
    uint64_t place = values[0];
    rest[0] = 0;
    for (uint32_t i = 1; i < count; i++) {
        /* Mostly the next one: no division. */
        uint64_t next = at + 1;
        uint64_t next_place = place + period;
        const uint64_t away = values[i] - next_place + period / 2;
        if (away >= period) {
            next = (values[i] - values[0] + period / 2) / period;
            next_place = values[0] + next * period;
        }
        steps[i - 1] = next - at - 1;
        rest[i] = values[i] - next_place;
        at = next;
        place = next_place;
    }
}

/* Whether the grid takes fewer bytes than `best`, which it is then. */
static bool grid_take(const uint64_t *values, uint32_t count, uint64_t period, uint64_t *steps,
                      uint64_t *rest, measured lists[2], form *best)
{
    grid_split(values, count, period, steps, rest);
    measure(steps, count - 1, &lists[0]);
    measure(rest, count, &lists[1]);
    const bool even = lists[0].all.low == 0 && lists[0].all.high == 0;
    const uint32_t extra = signed_size(values[0]) + mir_tlog_varint_size(period);
    const uint32_t mode = MODE_GRID | (even ? MODE_STEPS : 0);
    form_take(best, mode, extra, lists[1].narrow + (even ? 0 : lists[0].narrow),
              lists[1].wide + (even ? 0 : lists[0].wide));
    return best->mode == mode;
}

/* ---- All together ---- */

void mir_tlog_ints_pack(mir_bytes *out, const uint64_t *values, uint32_t count, uint64_t *work)
{
    MIR_ASSERT(count > 0 && count <= MIR_TLOG_CHUNK_ROWS_MAX);
    uint64_t *whole = work;
    uint64_t *steps = work + MIR_TLOG_CHUNK_ROWS_MAX;
    uint64_t *rest = work + (size_t)2 * MIR_TLOG_CHUNK_ROWS_MAX;
    int64_t low = 0;
    const uint64_t unit = unit_of(values, count, &low);
    const uint64_t *from = values;
    if (unit > 1) {
        for (uint32_t i = 0; i < count; i++) whole[i] = (values[i] - (uint64_t)low) / unit;
        from = whole;
    }
    form best = differences_form(from, count);
    measured lists[2];
    const uint64_t *list = steps;
    uint32_t depth = 0;
    uint64_t period = 0;
    bool grid = false;
    if (best.cost > count / 4 && ascending(from, count)) {
        period = period_of(from, count);
        if (period > 0) grid = grid_take(from, count, period, steps, rest, lists, &best);
    }
    bool wide = false;
    if (grid) {
        const bool even = (best.mode & MODE_STEPS) != 0;
        wide = lists[1].wide + (even ? 0 : lists[0].wide) <=
               lists[1].narrow + (even ? 0 : lists[0].narrow);
    } else {
        depth = best.mode;
        if (depth == 0) list = from;
        if (depth == 1) {
            for (uint32_t i = 1; i < count; i++) steps[i - 1] = from[i] - from[i - 1];
        } else if (depth == 2) {
            for (uint32_t i = 2; i < count; i++) {
                steps[i - 2] = from[i] - 2 * from[i - 1] + from[i - 2];
            }
        }
        measure(list, count - depth, &lists[0]);
        wide = lists[0].wide <= lists[0].narrow;
    }
    mir_bytes_u8(out, (uint8_t)(best.mode | (unit > 1 ? MODE_UNIT : 0) | (wide ? MODE_WIDE : 0)));
    if (unit > 1) {
        mir_tlog_bytes_varint(out, mir_tlog_zigzag(low));
        mir_tlog_bytes_varint(out, unit);
    }
    if (grid) {
        mir_tlog_bytes_varint(out, mir_tlog_zigzag((int64_t)from[0]));
        mir_tlog_bytes_varint(out, period);
        if ((best.mode & MODE_STEPS) == 0) groups_pack(out, steps, count - 1, &lists[0], wide);
        groups_pack(out, rest, count, &lists[1], wide);
        return;
    }
    if (depth >= 1) mir_tlog_bytes_varint(out, mir_tlog_zigzag((int64_t)from[0]));
    if (depth == 2) mir_tlog_bytes_varint(out, mir_tlog_zigzag((int64_t)(from[1] - from[0])));
    groups_pack(out, list, count - depth, &lists[0], wide);
}

static mir_status grid_unpack(mir_tlog_reader *in, uint32_t head, uint64_t *values, uint32_t count,
                              uint64_t *steps)
{
    uint64_t place = (uint64_t)mir_tlog_read_signed(in);
    const uint64_t period = mir_tlog_read_varint(in);
    const bool wide = (head & MODE_WIDE) != 0;
    if (in->failed) return MIR_E_CORRUPT;
    mir_status status = MIR_OK;
    if ((head & MODE_STEPS) == 0) status = groups_unpack(in, steps, count - 1, wide);
    if (status == MIR_OK) status = groups_unpack(in, values, count, wide);
    if (status != MIR_OK) return status;
    values[0] += place;
    if ((head & MODE_STEPS) != 0) {
        for (uint32_t i = 1; i < count; i++) values[i] += place + i * period;
        return MIR_OK;
    }
    for (uint32_t i = 1; i < count; i++) {
        place += (steps[i - 1] + 1) * period;
        values[i] += place;
    }
    return MIR_OK;
}

static mir_status differences_unpack(mir_tlog_reader *in, uint32_t head, uint64_t *values,
                                     uint32_t count)
{
    const uint32_t depth = head & MODE_MASK;
    if (depth >= count) return depth == 0 ? MIR_OK : MIR_E_CORRUPT;
    const uint64_t start = depth >= 1 ? (uint64_t)mir_tlog_read_signed(in) : 0;
    const uint64_t step = depth >= 2 ? (uint64_t)mir_tlog_read_signed(in) : 0;
    if (in->failed) return MIR_E_CORRUPT;
    const mir_status status =
        groups_unpack(in, values + depth, count - depth, (head & MODE_WIDE) != 0);
    if (status != MIR_OK) return status;
    if (depth == 1) {
        uint64_t value = values[0] = start;
        for (uint32_t i = 1; i < count; i++) values[i] = value += values[i];
    } else if (depth == 2) {
        uint64_t delta = step;
        values[0] = start;
        uint64_t value = values[1] = start + step;
        for (uint32_t i = 2; i < count; i++) {
            delta += values[i];
            values[i] = value += delta;
        }
    }
    return MIR_OK;
}

mir_status mir_tlog_ints_unpack(mir_tlog_reader *in, uint64_t *values, uint32_t count,
                                uint64_t *work)
{
    const uint32_t head = mir_tlog_read_u8(in);
    if (in->failed || (head & ~(uint32_t)MODE_KNOWN) != 0) return MIR_E_CORRUPT;
    uint64_t low = 0;
    uint64_t unit = 1;
    if ((head & MODE_UNIT) != 0) {
        low = (uint64_t)mir_tlog_read_signed(in);
        unit = mir_tlog_read_varint(in);
    }
    mir_status status = MIR_E_CORRUPT;
    if (!in->failed) {
        status = (head & MODE_MASK) == MODE_GRID ? grid_unpack(in, head, values, count, work)
                                                 : differences_unpack(in, head, values, count);
    }
    if (status != MIR_OK) return status;
    if (unit != 1 || low != 0) {
        for (uint32_t i = 0; i < count; i++) values[i] = low + values[i] * unit;
    }
    return MIR_OK;
}

/* ---- Single ones ---- */

static bool groups_open(mir_tlog_reader *in, const uint8_t *readable_end, uint32_t count, bool wide,
                        mir_tlog_ints_group *groups)
{
    const uint32_t group = wide ? count : GROUP_ROWS;
    for (uint32_t at = 0; at < count; at += group) {
        const uint32_t rows = count - at < group ? count - at : group;
        const uint64_t low = (uint64_t)mir_tlog_read_signed(in);
        const uint32_t bits = mir_tlog_read_u8(in);
        if (in->failed || !width_known(bits)) return false;
        const mir_view packed = mir_tlog_read_bytes(in, group_size(rows, bits));
        if (in->failed || readable_end - in->at < MIR_TLOG_INTS_PADDING) return false;
        *groups++ = (mir_tlog_ints_group){bits == 0 ? NULL : packed.data, low, bits};
    }
    return true;
}

static __attribute__((noinline)) uint64_t digit_at(const mir_tlog_ints_group *group, uint32_t index)
{
    if (group->bits == WIDTH_BASE_3) {
        return digits_3[group->packed[index / PER_BYTE_3]][index % PER_BYTE_3];
    }
    const uint8_t byte = group->packed[index / PER_BYTE_56];
    return (group->bits == WIDTH_BASE_5 ? digits_5 : digits_6)[byte][index % PER_BYTE_56];
}

/* Of a group that is not all low: how far beyond it. */
static inline uint64_t group_at(const mir_tlog_ints_group *group, uint32_t index)
{
    return group->bits <= WIDTH_BITS_MAX ? value_at(group->packed, index, group->bits)
                                         : digit_at(group, index);
}

mir_status mir_tlog_ints_open(mir_tlog_reader *in, const uint8_t *readable_end, uint32_t count,
                              mir_tlog_ints_places *places)
{
    const uint32_t head = mir_tlog_read_u8(in);
    const uint32_t mode = head & MODE_MASK;
    if (in->failed || (head & ~(uint32_t)MODE_KNOWN) != 0) return MIR_E_UNSUPPORTED;
    if (mode != 0 && mode != MODE_GRID) return MIR_E_UNSUPPORTED;
    places->base = 0;
    places->unit = 1;
    if ((head & MODE_UNIT) != 0) {
        places->base = (uint64_t)mir_tlog_read_signed(in);
        places->unit = mir_tlog_read_varint(in);
    }
    places->start = mode == MODE_GRID ? (uint64_t)mir_tlog_read_signed(in) : 0;
    places->period = mode == MODE_GRID ? mir_tlog_read_varint(in) : 0;
    places->stepped = mode == MODE_GRID && (head & MODE_STEPS) == 0;
    const bool wide = (head & MODE_WIDE) != 0;
    places->group_shift = wide ? 31 : (uint32_t)__builtin_ctz(GROUP_ROWS);
    places->group_mask = wide ? UINT32_MAX : GROUP_ROWS - 1;
    if (places->stepped) {
        if (!groups_open(in, readable_end, count - 1, wide, places->steps))
            return MIR_E_UNSUPPORTED;
        /* One wide group would be summed up from its begin each time. */
        if (wide && places->steps[0].packed != NULL) return MIR_E_UNSUPPORTED;
        uint64_t skipped = 0;
        uint32_t uneven = 0;
        for (uint32_t at = 0, g = 0; at + 1 < count && !wide; at += GROUP_ROWS, g++) {
            const mir_tlog_ints_group *steps = &places->steps[g];
            const uint32_t rows = count - 1 - at < GROUP_ROWS ? count - 1 - at : GROUP_ROWS;
            places->skipped[g] = skipped;
            if (steps->packed == NULL) {
                skipped += rows * steps->low;
                continue;
            }
            /* Many gaps are summed up sooner once and for all. */
            if (uneven > count / UNEVEN_ROWS) return MIR_E_UNSUPPORTED;
            places->uneven[g] = (uint8_t)uneven;
            for (uint32_t i = 0; i < rows; i++) {
                skipped += steps->low + group_at(steps, i);
                places->led[uneven][i] = skipped;
            }
            uneven++;
        }
        if (wide) places->skipped[0] = 0;
    }
    return groups_open(in, readable_end, count, wide, places->groups) && !in->failed
               ? MIR_OK
               : MIR_E_UNSUPPORTED;
}

/* Periods beyond one for each step that leads to a value. */
static uint64_t periods_skipped(const mir_tlog_ints_places *places, uint32_t index)
{
    if (index == 0) return 0;
    /* The step that leads to a value stands one place before it. */
    const uint32_t number = (index - 1) >> places->group_shift;
    const uint32_t step = (index - 1) & places->group_mask;
    const mir_tlog_ints_group *group = &places->steps[number];
    if (group->packed != NULL) return places->led[places->uneven[number]][step];
    return places->skipped[number] + (step + 1) * group->low;
}

uint64_t mir_tlog_ints_at(const mir_tlog_ints_places *places, uint32_t index)
{
    const mir_tlog_ints_group *group = &places->groups[index >> places->group_shift];
    uint64_t periods = index;
    if (places->stepped) periods += periods_skipped(places, index);
    uint64_t value = places->start + periods * places->period + group->low;
    if (group->packed != NULL) value += group_at(group, index & places->group_mask);
    return places->base + places->unit * value;
}

/* ---- Sums of neighbours ---- */

/* What the digits of a byte, d0 to dn, come to: their sum, and (n + 1) * d0 + n * d1 + … + dn, which
 * is the sum of the values that they lead to one by one. */
typedef uint32_t byte_sums; /* all of them, and from the 16th bit on what they lead to */

#define ALL(b, base, p1, p2, p3, p4, p5, p6, p7)                                                   \
    (DIGIT(b, 1, base) + DIGIT(b, p1, base) + DIGIT(b, p2, base) + DIGIT(b, p3, base) +            \
     DIGIT(b, p4, base) + DIGIT(b, p5, base) + DIGIT(b, p6, base) + DIGIT(b, p7, base))
#define BEHIND(b, base, p1, p2, p3, p4, p5, p6, p7)                                                \
    (1 * DIGIT(b, p1, base) + 2 * DIGIT(b, p2, base) + 3 * DIGIT(b, p3, base) +                    \
     4 * DIGIT(b, p4, base) + 5 * DIGIT(b, p5, base) + 6 * DIGIT(b, p6, base) +                    \
     7 * DIGIT(b, p7, base))
#define SUMS(b, base, n, ...)                                                                      \
    (uint32_t)(ALL(b, base, __VA_ARGS__) +                                                         \
               ((n)*ALL(b, base, __VA_ARGS__) - BEHIND(b, base, __VA_ARGS__)) * 65536)
/* 256: there are not so many digits. */
#define SUMS_2(b)  SUMS(b, 2, 8, 2, 4, 8, 16, 32, 64, 128)
#define SUMS_3(b)  SUMS(b, 3, 5, 3, 9, 27, 81, 256, 256, 256)
#define SUMS_4(b)  SUMS(b, 4, 4, 4, 16, 64, 256, 256, 256, 256)
#define SUMS_5(b)  SUMS(b, 5, 3, 5, 25, 256, 256, 256, 256, 256)
#define SUMS_6(b)  SUMS(b, 6, 3, 6, 36, 256, 256, 256, 256, 256)
#define SUMS_16(b) SUMS(b, 16, 2, 16, 256, 256, 256, 256, 256, 256)

static const byte_sums sums_2[256] = BYTES_256(SUMS_2);
static const byte_sums sums_3[256] = BYTES_256(SUMS_3);
static const byte_sums sums_4[256] = BYTES_256(SUMS_4);
static const byte_sums sums_5[256] = BYTES_256(SUMS_5);
static const byte_sums sums_6[256] = BYTES_256(SUMS_6);
static const byte_sums sums_16[256] = BYTES_256(SUMS_16);

/* How digits stand in a byte. */
typedef struct byte_form {
    const byte_sums *sums;
    uint32_t per_byte;
    const uint16_t *powers; /* of the base */
} byte_form;

static const uint16_t powers_2[] = {1, 2, 4, 8, 16, 32, 64, 128};
static const uint16_t powers_3[] = {1, 3, 9, 27, 81};
static const uint16_t powers_4[] = {1, 4, 16, 64};
static const uint16_t powers_5[] = {1, 5, 25};
static const uint16_t powers_6[] = {1, 6, 36};
static const uint16_t powers_16[] = {1, 16};

mir_status mir_tlog_ints_walk_open(mir_tlog_reader *in, const uint8_t *readable_end, uint32_t count,
                                   mir_tlog_ints_walk *walk)
{
    const uint32_t head = mir_tlog_read_u8(in);
    const uint32_t depth = head & MODE_MASK;
    if (in->failed || (head & ~(uint32_t)MODE_KNOWN) != 0 || depth > 1 || depth >= count) {
        return MIR_E_UNSUPPORTED;
    }
    const bool wide = (head & MODE_WIDE) != 0;
    walk->base = 0;
    walk->unit = 1;
    if ((head & MODE_UNIT) != 0) {
        walk->base = (uint64_t)mir_tlog_read_signed(in);
        walk->unit = mir_tlog_read_varint(in);
    }
    walk->value = depth == 1 ? (uint64_t)mir_tlog_read_signed(in) : 0;
    walk->sum = depth == 1 ? walk->value : 0;
    walk->given = 0;
    walk->at = 0;
    walk->count = count;
    walk->depth = depth;
    walk->group = 0;
    walk->done = 0;
    walk->group_rows = wide ? count : GROUP_ROWS;
    return groups_open(in, readable_end, count - depth, wide, walk->groups) && !in->failed
               ? MIR_OK
               : MIR_E_UNSUPPORTED;
}

/* What a walk comes to at some place. */
typedef struct walked {
    uint64_t value;
    uint64_t sum;
} walked;

/* Goes on to the byte that the group's difference `end` is in; what there is just before it. */
static inline __attribute__((always_inline)) walked
led_bytes(mir_tlog_ints_walk *walk, const mir_tlog_ints_group *group, byte_form how, uint32_t end)
{
    const uint32_t per_byte = how.per_byte;
    const uint32_t bytes = end / per_byte - walk->done / per_byte;
    const uint8_t *from = group->packed + walk->done / per_byte;
    const uint64_t low_all = per_byte * group->low;
    const uint64_t low_led = per_byte * (per_byte + 1) / 2 * group->low;
    uint64_t at = walk->value; /* without the low ones, which follow from their number */
    uint64_t all = 0;
    uint64_t before = 0;
#pragma GCC unroll 4
    for (uint32_t i = 0; i < bytes; i++) {
        const byte_sums of = how.sums[from[i]];
        before += at;
        all += of;
        at += (uint16_t)of;
    }
    const uint64_t led = (all - (at - walk->value)) >> 16;
    before += low_all * ((uint64_t)bytes * (bytes - UINT64_C(1)) / 2);
    walk->value = at += bytes * low_all;
    walk->sum += per_byte * before + led + bytes * low_led;
    walk->done += bytes * per_byte;
    const uint32_t rest = end - walk->done;
    if (rest == 0) return (walked){walk->value, walk->sum};
    /* Without the digits behind it, which stand for the values before them as well. */
    const byte_sums of = how.sums[from[bytes] % how.powers[rest]];
    const uint32_t some = of & UINT16_MAX;
    return (walked){at + rest * group->low + some, walk->sum + rest * at +
                                                       rest * (rest + 1) / 2 * group->low +
                                                       (of >> 16) - (per_byte - rest) * some};
}

static walked led_singly(mir_tlog_ints_walk *walk, const mir_tlog_ints_group *group, uint32_t end)
{
    for (; walk->done < end; walk->done++) {
        if (walk->depth == 0) walk->value = 0;
        walk->value += group->low;
        if (group->packed != NULL) walk->value += group_at(group, walk->done);
        walk->sum += walk->value;
    }
    return (walked){walk->value, walk->sum};
}

/* Up to `end` in the group that the walk has come to. */
static walked led_to(mir_tlog_ints_walk *walk, uint32_t end)
{
    const mir_tlog_ints_group *group = &walk->groups[walk->group];
    if (walk->depth == 0) return led_singly(walk, group, end);
    if (group->packed == NULL) {
        const uint64_t steps = end - walk->done;
        walk->sum += steps * walk->value + steps * (steps + 1) / 2 * group->low;
        walk->value += steps * group->low;
        walk->done = end;
        return (walked){walk->value, walk->sum};
    }
    switch (group->bits) {
    case 1: return led_bytes(walk, group, (byte_form){sums_2, 8, powers_2}, end);
    case 2: return led_bytes(walk, group, (byte_form){sums_4, 4, powers_4}, end);
    case 4: return led_bytes(walk, group, (byte_form){sums_16, 2, powers_16}, end);
    case WIDTH_BASE_3: return led_bytes(walk, group, (byte_form){sums_3, 5, powers_3}, end);
    case WIDTH_BASE_5: return led_bytes(walk, group, (byte_form){sums_5, 3, powers_5}, end);
    case WIDTH_BASE_6: return led_bytes(walk, group, (byte_form){sums_6, 3, powers_6}, end);
    default: return led_singly(walk, group, end);
    }
}

uint64_t mir_tlog_ints_walk_sum(mir_tlog_ints_walk *walk, uint32_t count)
{
    MIR_ASSERT(count <= walk->count - walk->at);
    if (count == 0) return 0;
    walk->at += count;
    /* In the groups, the first value of those with differences is not among them. */
    uint32_t end = walk->at - walk->depth - walk->group * walk->group_rows;
    walked there = {walk->value, walk->sum};
    while (end > walk->group_rows) {
        there = led_to(walk, walk->group_rows);
        walk->value = there.value;
        walk->sum = there.sum;
        walk->done = 0;
        walk->group++;
        end -= walk->group_rows;
    }
    if (end > 0) there = led_to(walk, end);
    const uint64_t sum = there.sum - walk->given;
    walk->given = there.sum;
    return count * walk->base + walk->unit * sum;
}
