/* SPDX-License-Identifier: Apache-2.0 */
/* Segments for fuzz targets: written by the log's own writer from few bytes, together with what must be
 * read of them. */
#ifndef FUZZ_SEGMENT_H
#define FUZZ_SEGMENT_H

#include <stdlib.h>

#include "fuzz_file.h"
#include "fuzz_values.h"
#include "mir_assert.h"
#include "mir_tlog_segment.h"

/* ---- A file in memory, to be written and read ---- */

typedef struct fuzz_made {
    one_file file; /* of bytes */
    mir_bytes bytes;
} fuzz_made;

static inline int64_t fuzz_pwrite(void *context, int handle, const void *data, size_t size,
                                  uint64_t offset)
{
    fuzz_made *made = context;
    (void)handle;
    MIR_ASSERT(offset == made->bytes.size);
    mir_bytes_append(&made->bytes, data, size);
    MIR_ASSERT(mir_bytes_ok(&made->bytes));
    made->file = (one_file){made->bytes.data, made->bytes.size};
    return (int64_t)size;
}

static inline int fuzz_sync(void *context, int handle)
{
    (void)context;
    (void)handle;
    return 0;
}

static inline mir_tlog_files fuzz_made_table(fuzz_made *made)
{
    /* The file is the first member: who reads finds it there. */
    mir_tlog_files files = file_table(&made->file);
    files.context = made;
    files.create = file_open;
    files.pwrite = fuzz_pwrite;
    files.sync = fuzz_sync;
    return files;
}

/* ---- What is in it ---- */

enum {
    FUZZ_MEASUREMENTS = 2,
    FUZZ_DEVICES = 3,
    FUZZ_SERIES = FUZZ_MEASUREMENTS * FUZZ_DEVICES,
    FUZZ_COLUMNS = 6,
    FUZZ_WORDS = 8,
    FUZZ_ROWS_MAX = MIR_TLOG_CHUNK_ROWS_MAX + 500, /* of a series */
    FUZZ_ROWS_ALL = MIR_TLOG_CHUNK_ROWS_MAX + 2500,
};

static const mir_view fuzz_measurements[FUZZ_MEASUREMENTS] = {MIR_VIEW_LITERAL("m.v1.A"),
                                                              MIR_VIEW_LITERAL("m.v1.B")};
static const mir_view fuzz_devices[FUZZ_DEVICES] = {MIR_VIEW_LITERAL("a"), MIR_VIEW_LITERAL("b"),
                                                    MIR_VIEW_LITERAL("c")};
static const mir_column fuzz_columns[FUZZ_COLUMNS] = {
    {"b", 1, MIR_COLUMN_BOOL}, {"d", 1, MIR_COLUMN_F64},    {"i", 1, MIR_COLUMN_I64},
    {"i", 1, MIR_COLUMN_F64},  {"s", 1, MIR_COLUMN_STRING}, {"u", 1, MIR_COLUMN_U64},
};
static const mir_view fuzz_words[FUZZ_WORDS] = {
    MIR_VIEW_LITERAL(""),
    MIR_VIEW_LITERAL("on"),
    MIR_VIEW_LITERAL("off"),
    MIR_VIEW_LITERAL("x y"),
    MIR_VIEW_LITERAL("MCHK"),
    MIR_VIEW_LITERAL("\x28\xb5\x2f\xfd"),
    MIR_VIEW_LITERAL("MIRTCPY"),
    MIR_VIEW_LITERAL("a long one that says nothing but that it is longer than the others"),
};

/* Rows of one series; of a text the number of its word. */
typedef struct fuzz_rows {
    uint32_t count;
    int64_t times[FUZZ_ROWS_MAX];
    uint64_t values[FUZZ_COLUMNS][FUZZ_ROWS_MAX];
    uint8_t present[FUZZ_COLUMNS][FUZZ_ROWS_MAX];
} fuzz_rows;

static inline uint32_t fuzz_column_of(mir_view name, mir_column_type type)
{
    uint32_t c = 0;
    while (c < FUZZ_COLUMNS && (fuzz_columns[c].type != type ||
                                !mir_view_eq(mir_view_cstr(fuzz_columns[c].name), name)))
        c++;
    return c;
}

/* Of what was gathered, which is finished. A column or a text that was never written is one that was
 * made up. */
FUZZ_UNSEEN static inline void fuzz_rows_of(fuzz_rows *rows, const mir_tlog_gather *gather)
{
    MIR_ASSERT(gather->row_count <= FUZZ_ROWS_MAX);
    rows->count = gather->row_count;
    memset(rows->present, 0, sizeof rows->present);
    if (rows->count == 0) return;
    memcpy(rows->times, gather->times, rows->count * sizeof *rows->times);
    for (uint32_t i = 0; i < gather->column_count; i++) {
        const mir_tlog_gather_column *from = &gather->columns[i];
        const uint32_t c = fuzz_column_of(from->name, from->type);
        MIR_ASSERT(c < FUZZ_COLUMNS);
        memcpy(rows->present[c], from->present, rows->count);
        memcpy(rows->values[c], from->values, rows->count * sizeof *from->values);
        for (uint32_t r = 0; from->type == MIR_COLUMN_STRING && r < rows->count; r++) {
            if (from->present[r] == 0) continue;
            const mir_view text = gather->texts[from->values[r]];
            uint32_t word = 0;
            while (word < FUZZ_WORDS && !mir_view_eq(text, fuzz_words[word])) word++;
            MIR_ASSERT(word < FUZZ_WORDS);
            rows->values[c][r] = word;
        }
    }
}

FUZZ_UNSEEN static inline bool fuzz_same_row(const fuzz_rows *a, uint32_t at, const fuzz_rows *b,
                                             uint32_t other)
{
    if (a->times[at] != b->times[other]) return false;
    for (uint32_t c = 0; c < FUZZ_COLUMNS; c++) {
        if (a->present[c][at] != b->present[c][other]) return false;
        if (a->present[c][at] != 0 && a->values[c][at] != b->values[c][other]) return false;
    }
    return true;
}

static inline fuzz_input fuzz_part(fuzz_input *in)
{
    fuzz_input part = {in->data, fuzz_byte(in) % 64};
    part.data = in->data;
    if (part.size > in->size) part.size = in->size;
    in->data += part.size;
    in->size -= part.size;
    return part;
}

/* A column of `rows` rows from row `from` on, all of them or some. */
FUZZ_UNSEEN static inline void fuzz_column_make(fuzz_input *in, mir_tlog_gather *gather, uint32_t c,
                                                uint32_t rows)
{
    static uint64_t values[FUZZ_ROWS_MAX];
    const mir_column_type type = fuzz_columns[c].type;
    const uint32_t from = gather->row_count;
    const uint8_t gaps = fuzz_byte(in);
    fuzz_input part = fuzz_part(in);
    uint32_t count = fuzz_values(&part, type, values, rows);
    if (count == 0) values[count++] = gaps;
    uint32_t number;
    MIR_ASSERT(mir_tlog_gather_column_of(gather, mir_view_cstr(fuzz_columns[c].name), type,
                                         &number) == MIR_OK);
    mir_tlog_gather_column *column = &gather->columns[number];
    if (type == MIR_COLUMN_STRING) MIR_ASSERT(mir_tlog_gather_texts_room(gather, rows) == MIR_OK);
    uint64_t random = gaps;
    for (uint32_t i = 0; i < rows; i++) {
        const uint64_t r = fuzz_random(&random);
        if (gaps % 4 == 1 && r % 64 == 0) continue;
        if (gaps % 4 == 2 && r % 16 != 0) continue;
        if (gaps % 4 == 3 && i / 100 % 3 == gaps / 4 % 3) continue;
        uint64_t value = values[i % count];
        if (type == MIR_COLUMN_BOOL) value &= 1;
        if (type == MIR_COLUMN_STRING) {
            gather->texts[gather->text_count] = fuzz_words[value % FUZZ_WORDS];
            value = gather->text_count++;
        }
        column->values[from + i] = value;
        column->present[from + i] = 1;
    }
}

/* Rows of a series, put in order. */
static inline void fuzz_rows_make(fuzz_input *in, mir_tlog_gather *gather, uint32_t most)
{
    static uint64_t times[FUZZ_ROWS_MAX];
    fuzz_input part = fuzz_part(in);
    const uint32_t rows = fuzz_values(&part, MIR_COLUMN_I64, times, most);
    const uint8_t columns = fuzz_byte(in);
    mir_tlog_gather_reset(gather);
    if (rows == 0) return;
    MIR_ASSERT(mir_tlog_gather_room(gather, rows) == MIR_OK);
    memcpy(gather->times, times, rows * sizeof *times);
    for (uint32_t c = 0; c < FUZZ_COLUMNS; c++)
        if ((columns >> c & 1) != 0) fuzz_column_make(in, gather, c, rows);
    gather->row_count = rows;
    MIR_ASSERT(mir_tlog_gather_finish(gather) == MIR_OK);
}

/* A segment of that number and generation; false if there is no row. `rows` has room for
 * FUZZ_SERIES. */
static inline bool fuzz_segment_make(fuzz_input *in, fuzz_made *made, uint64_t id,
                                     mir_tlog_codec *codec, fuzz_rows *rows)
{
    made->bytes.size = 0;
    made->file.size = 0;
    const mir_tlog_files files = fuzz_made_table(made);
    const mir_tlog_segment_head head = {id, id, id};
    mir_tlog_segment_writer *writer;
    mir_tlog_gather gather;
    const uint8_t series = fuzz_byte(in);
    uint32_t left = FUZZ_ROWS_ALL;
    bool any = false;
    MIR_ASSERT(mir_tlog_segment_begin(&files, "made", &head, &writer, NULL) == MIR_OK);
    MIR_ASSERT(mir_tlog_gather_init(&gather) == MIR_OK);
    codec->dense = (series & 0x80) != 0;
    for (uint32_t s = 0; s < FUZZ_SERIES; s++) {
        rows[s].count = 0;
        if ((series >> s & 1) == 0) continue;
        fuzz_rows_make(in, &gather, left < FUZZ_ROWS_MAX ? left : FUZZ_ROWS_MAX);
        left -= gather.row_count;
        fuzz_rows_of(&rows[s], &gather);
        if (gather.row_count == 0) continue;
        any = true;
        MIR_ASSERT(mir_tlog_segment_put(writer, codec, fuzz_measurements[s / FUZZ_DEVICES],
                                        fuzz_devices[s % FUZZ_DEVICES], &gather, 0,
                                        gather.row_count, id, NULL) == MIR_OK);
    }
    uint64_t size;
    MIR_ASSERT(mir_tlog_segment_end(writer, codec, &size, NULL) == MIR_OK);
    MIR_ASSERT(size == made->bytes.size);
    codec->dense = false;
    mir_tlog_gather_fini(&gather);
    return any;
}

/* Of the bytes from `from` on some are others now, and those up to the end may be gone. */
static inline void fuzz_damage(fuzz_input *in, fuzz_made *made, uint64_t from, uint64_t end)
{
    uint8_t *bytes = made->bytes.data;
    const uint64_t size = end - from;
    const uint8_t how = fuzz_byte(in);
    for (uint8_t i = 0; i < how % 4 && size > 0; i++) {
        /* From the end on as easily as from the begin. */
        const uint64_t at = fuzz_number(in) % size;
        bytes[(how & 0x80) != 0 ? end - 1 - at : from + at] ^= fuzz_byte(in);
    }
    if ((how & 0x40) != 0) {
        const uint64_t at = fuzz_number(in) % (size + 1);
        memset(bytes + from + at, how, fuzz_number(in) % (size - at + 1));
    }
    if ((how & 0x20) != 0 && end == made->bytes.size)
        made->bytes.size -= fuzz_number(in) % (size + 1);
    made->file = (one_file){made->bytes.data, made->bytes.size};
}

#endif
