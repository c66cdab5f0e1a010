/* SPDX-License-Identifier: Apache-2.0 */
/* A column of a chunk of any bytes: the first byte picks its type, two more how many values there are.
 * What can be read is the same when it is written and read again. Under other first bytes the rest
 * is values, or says which, and these come back as they were. Whoever reads single values or sums
 * without unpacking gets what unpacking gives. */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_values.h"
#include "mir_assert.h"
#include "mir_tlog_column.h"

enum { WRITE = 8, MAKE = 16, LEAD = 3 };

typedef struct column {
    uint64_t values[MIR_TLOG_CHUNK_ROWS_MAX];
    mir_view texts[MIR_TLOG_CHUNK_ROWS_MAX];
} column;

static column first;
static column second;

static void same(const mir_column_type type, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        if (type == MIR_COLUMN_STRING) {
            MIR_ASSERT(mir_view_eq(first.texts[i], second.texts[i]));
        } else {
            MIR_ASSERT(first.values[i] == second.values[i]);
        }
    }
}

/* Sums of neighbours, if they can be had without the values, are those of the values. */
static void walk(mir_tlog_codec *codec, mir_tlog_reader in, const uint64_t *values, uint32_t count)
{
    static mir_tlog_ints_walk place;
    if (mir_tlog_column_walk(codec, &in, count, &place) != MIR_OK) return;
    for (uint32_t at = 0, longest = 1; at < count; longest = longest * 3 % 1000) {
        const uint32_t some = longest < count - at ? longest : count - at;
        uint64_t sum = 0;
        for (uint32_t i = 0; i < some; i++) sum += values[at + i];
        MIR_ASSERT(mir_tlog_ints_walk_sum(&place, some) == sum);
        at += some;
    }
}

/* Single values, in an order of their own. */
static void look(mir_tlog_codec *codec, mir_tlog_reader in, const uint64_t *values, uint32_t count)
{
    static mir_tlog_ints_places places;
    if (mir_tlog_column_places(codec, in, count, &places) != MIR_OK) return;
    for (uint32_t i = 0, at = count - 1; i < count; i++, at = (at + 4099) % count) {
        MIR_ASSERT(mir_tlog_ints_at(&places, at) == values[at]);
        MIR_ASSERT(mir_tlog_ints_at(&places, i) == values[i]);
    }
}

static void write_and_read(mir_tlog_codec *codec, mir_column_type type, uint32_t count)
{
    mir_bytes out = {0};
    mir_arena arena = {.bytes_max = 64 << 20};
    mir_tlog_column_encode(codec, &out, (uint32_t)type, type, first.values, first.texts, count);
    MIR_ASSERT(mir_bytes_ok(&out));
    mir_tlog_reader in = mir_tlog_reader_of(out.data, out.size);
    const mir_status status =
        mir_tlog_column_decode(codec, &in, type, second.values, second.texts, count, &arena);
    MIR_ASSERT(status == MIR_OK && in.at == in.end);
    same(type, count);
    mir_tlog_reader over = mir_tlog_reader_of(out.data, out.size);
    mir_tlog_column_skip(&over);
    MIR_ASSERT(!over.failed && over.at == over.end);
    walk(codec, mir_tlog_reader_of(out.data, out.size), first.values, count);
    look(codec, mir_tlog_reader_of(out.data, out.size), first.values, count);
    /* With bytes behind it, as it stands in a chunk. */
    const size_t size = out.size;
    for (uint8_t i = 0; i < MIR_TLOG_INTS_PADDING; i++) mir_bytes_u8(&out, (uint8_t)~i);
    MIR_ASSERT(mir_bytes_ok(&out));
    walk(codec, mir_tlog_reader_of(out.data, out.size), first.values, count);
    look(codec, mir_tlog_reader_of(out.data, out.size), first.values, count);
    in = mir_tlog_reader_of(out.data, out.size);
    MIR_ASSERT(mir_tlog_column_decode(codec, &in, type, second.values, second.texts, count,
                                      &arena) == MIR_OK &&
               in.at == out.data + size);
    same(type, count);
    mir_arena_free(&arena);
    mir_bytes_free(&out);
}

/* Bytes as values: eight of a number, and of texts a length and as many. */
static uint32_t take_values(mir_column_type type, mir_view from, uint32_t most)
{
    uint32_t count = 0;
    size_t at = 0;
    while (count < most && at < from.size) {
        if (type == MIR_COLUMN_STRING) {
            size_t size = from.data[at++];
            if (size > from.size - at) size = from.size - at;
            first.texts[count++] = mir_view_of(from.data + at, size);
            at += size;
            continue;
        }
        uint64_t value = 0;
        for (int i = 0; i < 8 && at < from.size; i++) value = value << 8 | from.data[at++];
        first.values[count++] = type == MIR_COLUMN_BOOL ? value & 1 : value;
    }
    return count;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < LEAD) return 0;
    static mir_tlog_codec codec;
    if (codec.work == NULL && mir_tlog_codec_init(&codec) != MIR_OK) abort();
    const mir_column_type type =
        (mir_column_type)(MIR_COLUMN_I64 +
                          data[0] % WRITE % (MIR_COLUMN_STRING - MIR_COLUMN_I64 + 1));
    uint32_t count = (uint32_t)(data[1] | data[2] << 8) % (MIR_TLOG_CHUNK_ROWS_MAX + 1);
    /* In memory of its own, so that a step behind its end is seen. */
    uint8_t *copy = malloc(size - LEAD + 1);
    if (copy == NULL) return 0;
    memcpy(copy, data + LEAD, size - LEAD);
    if ((data[0] & MAKE) != 0 && type != MIR_COLUMN_STRING) {
        fuzz_input in = {copy, size - LEAD};
        count = fuzz_values(&in, type, first.values, count);
        codec.dense = (data[0] & WRITE) != 0;
        if (count > 0) write_and_read(&codec, type, count);
        codec.dense = false;
    } else if ((data[0] & WRITE) != 0) {
        count = take_values(type, mir_view_of(copy, size - LEAD), count);
        if (count > 0) write_and_read(&codec, type, count);
    } else {
        mir_arena arena = {.bytes_max = 64 << 20};
        mir_tlog_reader in = mir_tlog_reader_of(copy, size - LEAD);
        if (mir_tlog_column_decode(&codec, &in, type, first.values, first.texts, count, &arena) ==
                MIR_OK &&
            count > 0) {
            walk(&codec, mir_tlog_reader_of(copy, size - LEAD), first.values, count);
            look(&codec, mir_tlog_reader_of(copy, size - LEAD), first.values, count);
            write_and_read(&codec, type, count);
        }
        mir_arena_free(&arena);
    }
    free(copy);
    return 0;
}
