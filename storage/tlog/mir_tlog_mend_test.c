/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_mend.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_hash.h"
#include "mir_tlog_sim.h"

/* Segments of each version whose header tells nothing, or another version: the rows that are had are
 * those that were there, under their names, or none. */

typedef struct sample {
    const char *name; /* null: is made */
    uint64_t id;
    uint32_t version;
    bool twice; /* has a second footer */
} sample;

static const sample samples[] = {
    {"1/0000000000000005.seg", 5, 1, false},
    {"2/0000000000000005.seg", 5, 2, false},
    {"3/0000000000000005.seg", 5, 3, false},
    {"3-twice/0000000000000006.seg", 6, 3, true},
    {"3-apart/0000000000000006.seg", 6, 3, true},
    {NULL, 7, 3, true},
    {NULL, 7, 3, false},
};
enum { SAMPLES = sizeof samples / sizeof samples[0], ROWS = 20 };

static const char path[] = "/t/sample.seg";
static mir_tlog_codec codec;

static int setup(void **state)
{
    (void)state;
    return mir_tlog_codec_init(&codec) == MIR_OK ? 0 : -1;
}

static int teardown(void **state)
{
    (void)state;
    mir_tlog_codec_fini(&codec);
    return 0;
}

static void golden_load(const sample *g, sim_disk *disk)
{
    char from[512];
    static uint8_t bytes[64 * 1024];
    (void)snprintf(from, sizeof from, "%s/tests/data/telemetry-log/%s", MIR_SOURCE_DIR, g->name);
    FILE *file = fopen(from, "rb");
    assert_non_null(file);
    const size_t size = fread(bytes, 1, sizeof bytes, file);
    assert_true(size > 128 && size < sizeof bytes);
    (void)fclose(file);
    int handle = -1;
    assert_int_equal(sim_create(disk, path, &handle), 0);
    assert_int_equal(sim_pwrite(disk, handle, bytes, size, 0), size);
    assert_int_equal(sim_close(disk, handle), 0);
}

static void series_put(mir_tlog_segment_writer *writer, mir_tlog_gather *gather, const char *device,
                       const char *first, const char *second)
{
    const char *names[2] = {first, second};
    mir_tlog_gather_reset(gather);
    assert_int_equal(mir_tlog_gather_room(gather, ROWS), MIR_OK);
    for (uint64_t c = 0; c < 2; c++) {
        uint32_t column;
        assert_int_equal(
            mir_tlog_gather_column_of(gather, mir_view_cstr(names[c]), MIR_COLUMN_I64, &column),
            MIR_OK);
        for (uint64_t r = 0; r < ROWS; r++) {
            gather->times[r] = (int64_t)r;
            gather->columns[column].values[r] = r * r + c;
            gather->columns[column].present[r] = 1;
        }
    }
    gather->row_count = ROWS;
    assert_int_equal(mir_tlog_segment_put(writer, &codec, mir_view_cstr("m.v1.T"),
                                          mir_view_cstr(device), gather, 0, ROWS, 1, NULL),
                     MIR_OK);
}

/* Columns of as many and of the same type under several names: only the index tells which are whose. */
static void sample_make(const sample *g, sim_disk *disk)
{
    const mir_tlog_segment_head head = {g->id, 1, 1};
    mir_tlog_segment_writer *writer;
    mir_tlog_gather gather;
    uint64_t size;
    assert_int_equal(mir_tlog_gather_init(&gather), MIR_OK);
    assert_int_equal(mir_tlog_segment_begin(&disk->files, path, &head, &writer, NULL), MIR_OK);
    series_put(writer, &gather, "a", "n", "o");
    series_put(writer, &gather, "b", "p", "q");
    series_put(writer, &gather, "c", "r", "s");
    assert_int_equal(mir_tlog_segment_end(writer, &codec, &size, NULL), MIR_OK);
    mir_tlog_gather_fini(&gather);
    if (g->twice) return;
    /* As it was before there were second footers. */
    const sim_inode *file = disk->now.entries[0].inode;
    uint8_t *trailer = file->data + file->size - MIR_TLOG_SEGMENT_TRAILER_BYTES;
    uint8_t *spare = memmem(file->data, file->size, "MIRTCPY", 8);
    assert_non_null(spare);
    memset(spare, 0, MIR_TLOG_SPARE_HEAD_BYTES);
    trailer[47] = 0;
    (void)mir_tlog_put_u64(trailer + 56, mir_hash_fixed(trailer, 56));
}

static sim_inode *sample_load(const sample *g, sim_disk *disk)
{
    if (g->name == NULL)
        sample_make(g, disk);
    else
        golden_load(g, disk);
    return disk->now.entries[0].inode;
}

typedef struct had {
    uint64_t rows;
    uint64_t damaged;
    uint64_t hash; /* of all that was had */
} had;

static void take(had *h, const void *data, size_t size)
{
    h->hash = h->hash * 31 + mir_hash_bytes(data, size);
}

static void gather_take(had *h, const mir_tlog_gather *gather)
{
    h->rows += gather->row_count;
    take(h, gather->times, gather->row_count * sizeof *gather->times);
    for (uint32_t c = 0; c < gather->column_count; c++) {
        const mir_tlog_gather_column *column = &gather->columns[c];
        take(h, column->name.data, column->name.size);
        take(h, &column->type, sizeof column->type);
        for (uint32_t r = 0; r < gather->row_count; r++) {
            if (column->present[r] == 0) continue;
            const uint64_t value = column->values[r];
            if (column->type == MIR_COLUMN_STRING)
                take(h, gather->texts[value].data, gather->texts[value].size);
            else
                take(h, &value, sizeof value);
        }
    }
}

static had had_of(mir_tlog_segment *segment)
{
    had h = {0};
    mir_tlog_index_cursor at = {.segment = segment};
    mir_bytes bytes = {0};
    mir_tlog_gather gather;
    assert_int_equal(mir_tlog_gather_init(&gather), MIR_OK);
    for (;;) {
        const mir_status status = mir_tlog_index_next(&at, &codec);
        if (status == MIR_E_EMPTY) break;
        h.damaged += status != MIR_OK;
        for (uint32_t i = 0; status == MIR_OK && i < at.chunk_count; i++) {
            const mir_tlog_chunk *chunk = &at.chunks[i];
            bytes.size = 0;
            mir_tlog_gather_reset(&gather);
            if (mir_tlog_chunk_read(segment, chunk, &bytes) != MIR_OK ||
                mir_tlog_chunk_decode(&codec, mir_bytes_as_view(&bytes),
                                      &segment->shapes[chunk->shape], &gather) != MIR_OK ||
                mir_tlog_gather_finish(&gather) != MIR_OK) {
                h.damaged++;
                continue;
            }
            take(&h, at.device.data, at.device.size);
            gather_take(&h, &gather);
        }
    }
    mir_tlog_gather_fini(&gather);
    mir_bytes_free(&bytes);
    mir_tlog_index_fini(&at);
    return h;
}

static mir_status mended(sim_disk *disk, const sample *g, had *h)
{
    mir_tlog_mend mend;
    mir_error error = {{0}};
    const mir_status status = mir_tlog_mend_open(&mend, &disk->files, path, g->id, &codec, &error);
    if (status == MIR_OK)
        *h = had_of(mend.segment);
    else
        assert_int_not_equal(error.text[0], 0);
    mir_tlog_mend_close(&mend);
    return status;
}

static void a_header_that_says_another_version_gives_no_other_rows(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        sim_disk *disk = sim_disk_new(1);
        sim_inode *file = sample_load(&samples[i], disk);
        had whole, found;
        assert_int_equal(mended(disk, &samples[i], &whole), MIR_OK);
        assert_true(whole.rows > 0 && whole.damaged == 0);
        uint8_t header[MIR_TLOG_SEGMENT_HEADER_BYTES];
        memcpy(header, file->data, sizeof header);
        assert_int_equal(header[8], samples[i].version);
        /* With its checksum and without; alone, and with all else that it says. */
        for (uint32_t round = 0; round < 4 * 256; round++) {
            memcpy(file->data, header, sizeof header);
            if ((round & 1) != 0) memset(file->data + 56, 0, 8);
            if ((round & 2) != 0) memset(file->data + 16, 0xa5, 24);
            file->data[8] = (uint8_t)(round / 4);
            assert_int_equal(mended(disk, &samples[i], &found), MIR_OK);
            assert_memory_equal(&found, &whole, sizeof whole);
        }
        sim_disk_free(disk);
    }
}

/* Nothing but the index tells the version of those that have no second footer. */
static void without_header_and_index_nothing_is_guessed(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        sim_disk *disk = sim_disk_new(1);
        sim_inode *file = sample_load(&samples[i], disk);
        had found;
        const uint64_t index = mir_tlog_get_u64(file->data + file->size - 64);
        memset(file->data, 0, MIR_TLOG_SEGMENT_HEADER_BYTES);
        file->data[index + 17] ^= 1;
        const mir_status status = mended(disk, &samples[i], &found);
        assert_int_equal(status, samples[i].twice ? MIR_OK : MIR_E_CORRUPT);
        sim_disk_free(disk);
    }
}

/* The trailer says that there is a second index; what is left of it proves the footer alone. */
static void an_index_is_read_from_its_second_place_without_a_trailer(void **state)
{
    (void)state;
    for (size_t i = 0; i < SAMPLES; i++) {
        if (!samples[i].twice) continue;
        sim_disk *disk = sim_disk_new(1);
        sim_inode *file = sample_load(&samples[i], disk);
        had whole, found;
        assert_int_equal(mended(disk, &samples[i], &whole), MIR_OK);
        uint8_t *trailer = file->data + file->size - MIR_TLOG_SEGMENT_TRAILER_BYTES;
        const uint64_t index = mir_tlog_get_u64(trailer);
        const uint64_t footer = mir_tlog_get_u64(trailer + 8);
        memset(file->data + index, 0, footer - index);
        memset(trailer + 32, 0, MIR_TLOG_SEGMENT_TRAILER_BYTES - 32);
        assert_int_equal(mended(disk, &samples[i], &found), MIR_OK);
        assert_memory_equal(&found, &whole, sizeof whole);
        sim_disk_free(disk);
    }
}

/* Each byte of them looks like the beginning of what goes on to the end of the file. Who looks each
 * time as far as it goes looks for hours. */
static void files_that_are_made_to_be_searched_have_an_end(void **state)
{
    (void)state;
    enum { BYTES = 16 << 20 };
    uint8_t *bytes = malloc(BYTES);
    assert_non_null(bytes);
    for (int kind = 0; kind < 2; kind++) {
        /* A frame whose block of 6 bytes is the head of the next one. */
        static const uint8_t frame[9] = {0x28, 0xb5, 0x2f, 0xfd, 0x20, 1, 6 << 3, 0, 0};
        size_t at = MIR_TLOG_SEGMENT_HEADER_BYTES;
        memset(bytes, 0, BYTES);
        for (; kind == 0 && at + sizeof frame <= BYTES; at += sizeof frame)
            memcpy(bytes + at, frame, sizeof frame);
        for (; kind == 1 && at + MIR_TLOG_SPARE_HEAD_BYTES <= BYTES;
             at += MIR_TLOG_SPARE_HEAD_BYTES) {
            uint8_t *head = bytes + at;
            memcpy(head, "MIRTCPY", 8);
            (void)mir_tlog_put_u64(head + 8, 7);
            (void)mir_tlog_put_u32(head + 32, (uint32_t)(BYTES - at - MIR_TLOG_SPARE_HEAD_BYTES));
            (void)mir_tlog_put_u64(head + 48, mir_hash_fixed(head, 48));
        }
        sim_disk *disk = sim_disk_new(1);
        int handle = -1;
        assert_int_equal(sim_create(disk, path, &handle), 0);
        assert_int_equal(sim_pwrite(disk, handle, bytes, BYTES, 0), BYTES);
        assert_int_equal(sim_close(disk, handle), 0);
        mir_tlog_mend mend;
        assert_int_equal(mir_tlog_mend_open(&mend, &disk->files, path, 7, &codec, NULL),
                         MIR_E_CORRUPT);
        sim_disk_free(disk);
    }
    free(bytes);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(files_that_are_made_to_be_searched_have_an_end),
        cmocka_unit_test(a_header_that_says_another_version_gives_no_other_rows),
        cmocka_unit_test(without_header_and_index_nothing_is_guessed),
        cmocka_unit_test(an_index_is_read_from_its_second_place_without_a_trailer),
    };
    return cmocka_run_group_tests(tests, setup, teardown);
}
