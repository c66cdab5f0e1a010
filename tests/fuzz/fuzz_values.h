/* SPDX-License-Identifier: Apache-2.0 */
/* Columns of values from few bytes: a list of stretches, each of one of the shapes that the packing of
 * columns looks for, so that a mutation of one byte is another shape and not another value. */
#ifndef FUZZ_VALUES_H
#define FUZZ_VALUES_H

#include <stdint.h>
#include <string.h>

#include "mir_row.h"

/* What compares all that there is finds nothing new for the fuzzer, and takes its time. */
#define FUZZ_UNSEEN __attribute__((no_sanitize("coverage")))

typedef struct fuzz_input {
    const uint8_t *data;
    size_t size;
} fuzz_input;

static inline uint8_t fuzz_byte(fuzz_input *in)
{
    if (in->size == 0) return 0;
    in->size--;
    return *in->data++;
}

/* Of 0 to 8 bytes. */
static inline uint64_t fuzz_number(fuzz_input *in)
{
    uint64_t value = 0;
    for (uint8_t bytes = fuzz_byte(in) % 9; bytes > 0; bytes--) value = value << 8 | fuzz_byte(in);
    return value;
}

static inline uint64_t fuzz_random(uint64_t *state)
{
    uint64_t z = (*state += UINT64_C(0x9e3779b97f4a7c15));
    z = (z ^ (z >> 30)) * UINT64_C(0xbf58476d1ce4e5b9);
    z = (z ^ (z >> 27)) * UINT64_C(0x94d049bb133111eb);
    return z ^ (z >> 31);
}

static inline uint64_t fuzz_double(double number)
{
    uint64_t bits;
    memcpy(&bits, &number, sizeof bits);
    return bits;
}

/* `values` up to `most`, of as many stretches as there are bytes for; how many these were. */
static inline uint32_t fuzz_values(fuzz_input *in, mir_column_type type, uint64_t *values,
                                   uint32_t most)
{
    static const uint32_t spans[] = {1, 2, 3, 4, 5, 6, 7, 16, 17, 256, 1000, 65536};
    static const uint32_t lengths[] = {1, 2, 7, 16, 100, 127, 128, 129, 500, 2000, 8192};
    uint64_t last = 0;
    uint32_t count = 0;
    while (in->size > 0 && count < most) {
        const uint8_t shape = fuzz_byte(in);
        uint32_t length = lengths[fuzz_byte(in) % (sizeof lengths / sizeof *lengths)];
        if (length > most - count) length = most - count;
        const uint64_t span = spans[fuzz_byte(in) % (sizeof spans / sizeof *spans)];
        const uint64_t number = fuzz_number(in);
        uint64_t random = shape * UINT64_C(77) + span;
        for (uint32_t i = 0; i < length; i++) {
            const uint64_t r = fuzz_random(&random);
            uint64_t value = 0;
            switch (shape % 8) {
            case 0: value = number; break;                            /* the same */
            case 1: value = last + r % span - span / 2; break;        /* a walk */
            case 2: value = last + number; break;                     /* even steps */
            case 3: value = number + r % span; break;                 /* about a number */
            case 4: value = number * (r % span) + 3; break;           /* multiples */
            case 5: value = last + number + r % 9; break;             /* uneven steps */
            case 6: value = r >> (number % 64); break;                /* anything of some width */
            default: value = number + (number + i) * i * span; break; /* steps that grow */
            }
            last = value;
            if (type == MIR_COLUMN_BOOL) value &= 1;
            if (type == MIR_COLUMN_F64 && (shape & 0x10) == 0)
                value = fuzz_double((double)(int64_t)value / 100);
            values[count++] = value;
        }
    }
    return count;
}

#endif
