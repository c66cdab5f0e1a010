/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_segment.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_tlog_sim.h"

/* Where chunks end. And the index blocks that a segment keeps: who finds a series gets the same from a kept block, from one
 * that was pushed out of its place, and while others search. Run it under tsan, too. */

enum { SERIES = 2000, BLOCKS_MIN = 3 * MIR_TLOG_KEPT_BLOCKS, THREADS = 4, FINDS = 4000 };

typedef struct fixture {
    sim_disk *disk;
    mir_tlog_codec codec;
    mir_tlog_segment *segment;
} fixture;

/* Long, so that there are many blocks. */
static mir_view device_of(uint32_t number, char text[128])
{
    const int size = snprintf(text, 128, "%06u%0100u", number, number);
    return mir_view_of(text, (size_t)size);
}

static const mir_view measurement = MIR_VIEW_LITERAL("m.v1.T");
static const char path[] = "/t/0000000000000007.seg";

/* Series n has one row, of the time n. */
static void fixture_init(fixture *x)
{
    *x = (fixture){.disk = sim_disk_new(3)};
    assert_int_equal(mir_tlog_codec_init(&x->codec), MIR_OK);
    const mir_tlog_segment_head head = {7, 1, 1};
    mir_tlog_segment_writer *writer;
    mir_error error = {{0}};
    if (mir_tlog_segment_begin(&x->disk->files, path, &head, &writer, &error) != MIR_OK)
        fail_msg("%s", error.text);
    mir_tlog_gather gather;
    assert_int_equal(mir_tlog_gather_init(&gather), MIR_OK);
    for (uint32_t n = 0; n < SERIES; n++) {
        char text[128];
        uint32_t column;
        mir_tlog_gather_reset(&gather);
        assert_int_equal(mir_tlog_gather_room(&gather, 1), MIR_OK);
        assert_int_equal(
            mir_tlog_gather_column_of(&gather, mir_view_cstr("n"), MIR_COLUMN_I64, &column),
            MIR_OK);
        gather.times[0] = n;
        gather.columns[column].values[0] = n;
        gather.columns[column].present[0] = 1;
        gather.row_count = 1;
        assert_int_equal(mir_tlog_segment_put(writer, &x->codec, measurement, device_of(n, text),
                                              &gather, 0, 1, 1, &error),
                         MIR_OK);
    }
    mir_tlog_gather_fini(&gather);
    uint64_t size;
    assert_int_equal(mir_tlog_segment_end(writer, &x->codec, &size, &error), MIR_OK);
    assert_int_equal(
        mir_tlog_segment_open(&x->disk->files, path, 7, &x->codec, &x->segment, &error), MIR_OK);
    assert_true(x->segment->block_count >= BLOCKS_MIN);
    x->disk->fail_calls = SIM_READ; /* counted, none fails */
}

static void fixture_fini(fixture *x)
{
    mir_tlog_segment_release(x->segment);
    mir_tlog_codec_fini(&x->codec);
    sim_disk_free(x->disk);
}

/* The number of a series that a block begins with. */
static uint32_t first_of(const fixture *x, uint32_t block)
{
    uint32_t number = 0;
    for (size_t i = 0; i < 6; i++)
        number = number * 10 + (uint32_t)(x->segment->blocks[block].device.data[i] - '0');
    return number;
}

static mir_status find_with(mir_tlog_index_cursor *cursor, mir_tlog_codec *codec, uint32_t number)
{
    char text[128];
    const mir_status status =
        mir_tlog_index_find(cursor, codec, measurement, device_of(number, text));
    if (status != MIR_OK) return status;
    if (cursor->chunk_count != 1 || cursor->chunks[0].rows != 1 ||
        cursor->chunks[0].time_min != number || cursor->chunks[0].time_max != number)
        return MIR_E_INVALID;
    return MIR_OK;
}

/* As a query does it: a cursor of its own. */
static mir_status find(fixture *x, uint32_t number)
{
    mir_tlog_index_cursor cursor = {.segment = x->segment};
    const mir_status status = find_with(&cursor, &x->codec, number);
    mir_tlog_index_fini(&cursor);
    return status;
}

static uint64_t reads_of(fixture *x, uint32_t number)
{
    const uint64_t before = x->disk->calls;
    assert_int_equal(find(x, number), MIR_OK);
    return x->disk->calls - before;
}

static void a_kept_block_is_not_read_again_until_another_takes_its_place(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    for (uint32_t round = 0; round < 3; round++) {
        /* As many as are kept, one for each place. */
        for (uint32_t i = 0; i < MIR_TLOG_KEPT_BLOCKS; i++) {
            const uint32_t block = round * MIR_TLOG_KEPT_BLOCKS + i;
            assert_int_equal(reads_of(&x, first_of(&x, block)), 1);
        }
        for (uint32_t i = 0; i < MIR_TLOG_KEPT_BLOCKS; i++) {
            const uint32_t block = round * MIR_TLOG_KEPT_BLOCKS + i;
            const uint32_t first = first_of(&x, block);
            const uint32_t next = first_of(&x, block + 1 < x.segment->block_count ? block + 1 : 0);
            for (uint32_t n = first; n < next; n++) assert_int_equal(reads_of(&x, n), 0);
        }
    }
    /* Those of the rounds before are gone, each by the one in its place. */
    assert_int_equal(reads_of(&x, first_of(&x, 0)), 1);
    assert_int_equal(reads_of(&x, first_of(&x, 2 * MIR_TLOG_KEPT_BLOCKS)), 1);
    assert_int_equal(reads_of(&x, first_of(&x, 2 * MIR_TLOG_KEPT_BLOCKS + 1)), 0);
    fixture_fini(&x);
}

/* Who has it at hand has it alone; what it says stays until that one is done. */
static void a_block_at_hand_is_nobody_elses(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    mir_tlog_index_cursor one = {.segment = x.segment}, other = {.segment = x.segment};
    assert_int_equal(find_with(&one, &x.codec, 0), MIR_OK);
    const uint64_t before = x.disk->calls;
    assert_int_equal(find_with(&other, &x.codec, 1), MIR_OK);
    assert_int_equal(x.disk->calls - before, 1);
    char text[128];
    assert_true(mir_view_eq(one.device, device_of(0, text)));
    mir_tlog_index_fini(&other);
    /* The place is taken out by a third, and filled again by the first. */
    assert_int_equal(reads_of(&x, 2), 0);
    assert_true(mir_view_eq(one.device, device_of(0, text)));
    mir_tlog_index_fini(&one);
    assert_int_equal(reads_of(&x, 3), 0);
    fixture_fini(&x);
}

static void damage_is_met_when_a_block_is_read_and_nothing_of_it_is_kept(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    uint8_t *bytes = sim_find(x.disk, path)->inode->data;
    const mir_tlog_index_block *block = &x.segment->blocks[1];
    const uint32_t number = first_of(&x, 1);
    const uint32_t in_its_place = first_of(&x, 1 + MIR_TLOG_KEPT_BLOCKS);
    for (uint32_t at = 0; at < block->size; at += 7) {
        assert_int_equal(find(&x, number), MIR_OK);
        bytes[block->offset + at] ^= 0x10;
        /* From memory it is what it was. */
        assert_int_equal(find(&x, number), MIR_OK);
        assert_int_equal(find(&x, in_its_place), MIR_OK);
        assert_int_equal(find(&x, number), MIR_E_CORRUPT);
        assert_int_equal(find(&x, number), MIR_E_CORRUPT);
        /* It has pushed nothing out. */
        assert_int_equal(find(&x, in_its_place), MIR_OK);
        bytes[block->offset + at] ^= 0x10;
    }
    /* An error of the disk is another thing, and passes. */
    assert_int_equal(find(&x, in_its_place), MIR_OK);
    x.disk->fail_errno = EIO;
    x.disk->fail_at = x.disk->calls + 1;
    x.disk->fail_count = 1;
    assert_int_equal(find(&x, number), MIR_E_IO);
    assert_int_equal(reads_of(&x, number), 1);
    fixture_fini(&x);
}

/* ---- Where chunks end ---- */

enum { ROWS_MAX = 20000 };

typedef struct cut {
    uint64_t bytes;
    uint32_t chunk_count;
    uint32_t rows[64]; /* of the first ones */
} cut;

/* A walk in four fields, at times that a function says; a jump of all where a time is far ahead. */
static cut cut_of(uint32_t rows, int64_t (*time_of)(uint32_t row))
{
    static const char *const names[] = {"a", "b", "c", "d"};
    cut made = {0};
    sim_disk *disk = sim_disk_new(3);
    mir_tlog_codec codec;
    mir_tlog_gather gather;
    mir_tlog_segment_writer *writer;
    mir_tlog_segment *segment;
    mir_error error = {{0}};
    const mir_tlog_segment_head head = {7, 1, 1};
    assert_int_equal(mir_tlog_codec_init(&codec), MIR_OK);
    assert_int_equal(mir_tlog_gather_init(&gather), MIR_OK);
    assert_int_equal(mir_tlog_segment_begin(&disk->files, path, &head, &writer, &error), MIR_OK);
    assert_int_equal(mir_tlog_gather_room(&gather, rows), MIR_OK);
    uint64_t random = 1;
    for (uint32_t f = 0; f < 4; f++) {
        uint32_t column;
        assert_int_equal(
            mir_tlog_gather_column_of(&gather, mir_view_cstr(names[f]), MIR_COLUMN_I64, &column),
            MIR_OK);
        int64_t value = 1000;
        for (uint32_t row = 0; row < rows; row++) {
            gather.times[row] = time_of(row);
            const uint64_t step =
                row == 0 ? 0 : (uint64_t)gather.times[row] - (uint64_t)gather.times[row - 1];
            value += step > 100 * (uint64_t)MIR_NS_PER_S ? 1000000
                                                         : (int64_t)(sim_random(&random) % 3) - 1;
            gather.columns[column].values[row] = (uint64_t)value;
            gather.columns[column].present[row] = 1;
        }
    }
    gather.row_count = rows;
    const mir_view device = mir_view_cstr("d");
    assert_int_equal(
        mir_tlog_segment_put(writer, &codec, measurement, device, &gather, 0, rows, 1, &error),
        MIR_OK);
    assert_int_equal(mir_tlog_segment_end(writer, &codec, &made.bytes, &error), MIR_OK);
    assert_int_equal(mir_tlog_segment_open(&disk->files, path, 7, &codec, &segment, &error),
                     MIR_OK);
    mir_tlog_index_cursor cursor = {.segment = segment};
    assert_int_equal(mir_tlog_index_next(&cursor, &codec), MIR_OK);
    made.chunk_count = cursor.chunk_count;
    uint32_t total = 0;
    for (uint32_t i = 0; i < cursor.chunk_count; i++) {
        if (i < 64) made.rows[i] = cursor.chunks[i].rows;
        assert_int_equal(cursor.chunks[i].time_min, time_of(total));
        total += cursor.chunks[i].rows;
        assert_int_equal(cursor.chunks[i].time_max, time_of(total - 1));
    }
    assert_int_equal(total, rows);
    mir_tlog_index_fini(&cursor);
    mir_tlog_segment_release(segment);
    mir_tlog_gather_fini(&gather);
    mir_tlog_codec_fini(&codec);
    sim_disk_free(disk);
    return made;
}

static int64_t even(uint32_t row)
{
    return row * MIR_NS_PER_S + row * UINT64_C(7919) % 40000000;
}

static int64_t one_before(uint32_t row)
{
    return row == 0 ? -1000 * MIR_NS_PER_S : even(row - 1);
}

static int64_t pause_each_2000(uint32_t row)
{
    return even(row) + row / 2000 * 600 * MIR_NS_PER_S;
}

/* The one hides the other until the rows are parted at it. */
static int64_t pauses_of_a_year_and_a_minute(uint32_t row)
{
    return even(row) + (row < 100 ? 0 : 365 * 86400 * MIR_NS_PER_S) +
           (row < 4000 ? 0 : 60 * MIR_NS_PER_S);
}

static int64_t in_bursts(uint32_t row)
{
    return even(row) + row / 50 * 3600 * MIR_NS_PER_S;
}

static int64_t from_end_to_end(uint32_t row)
{
    return row < 400 ? INT64_MIN + row : INT64_MAX - 1000 + row;
}

static void a_chunk_ends_before_a_pause_if_these_are_few(void **state)
{
    (void)state;
    const cut without = cut_of(5000, even);
    assert_int_equal(without.chunk_count, 1);
    const cut with = cut_of(5001, one_before);
    assert_int_equal(with.chunk_count, 2);
    assert_int_equal(with.rows[0], 1);
    /* In one chunk the jumps of time and values take more than a kilobyte. */
    assert_true(with.bytes < without.bytes + 250);

    const cut several = cut_of(10000, pause_each_2000);
    assert_int_equal(several.chunk_count, 5);
    for (uint32_t i = 0; i < 5; i++) assert_int_equal(several.rows[i], 2000);
    const cut unlike = cut_of(9000, pauses_of_a_year_and_a_minute);
    assert_int_equal(unlike.chunk_count, 3);
    assert_int_equal(unlike.rows[0], 100);
    assert_int_equal(unlike.rows[1], 3900);

    const cut bursts = cut_of(ROWS_MAX, in_bursts);
    assert_int_equal(bursts.chunk_count,
                     (ROWS_MAX + MIR_TLOG_CHUNK_ROWS_MAX - 1) / MIR_TLOG_CHUNK_ROWS_MAX);
    const cut far = cut_of(1000, from_end_to_end);
    assert_int_equal(far.chunk_count, 2);
    assert_int_equal(far.rows[0], 400);
    assert_int_equal(cut_of(1, even).chunk_count, 1);
    assert_int_equal(cut_of(200, one_before).chunk_count, 1);
}

typedef struct searching {
    fixture *x;
    uint64_t random;
    uint32_t wrong;
} searching;

static void *search_main(void *context)
{
    searching *s = context;
    mir_tlog_codec codec;
    if (mir_tlog_codec_init(&codec) != MIR_OK) {
        s->wrong++;
        return NULL;
    }
    for (uint32_t i = 0; i < FINDS;) {
        mir_tlog_index_cursor cursor = {.segment = s->x->segment};
        /* Upwards, as queries of many devices do, from somewhere; or one alone. */
        uint32_t number = (uint32_t)(sim_random(&s->random) % SERIES);
        const uint32_t step = 1 + (uint32_t)(sim_random(&s->random) % 300);
        do {
            s->wrong += find_with(&cursor, &codec, number) != MIR_OK;
            number += step;
            i++;
        } while (number < SERIES && sim_random(&s->random) % 4 != 0);
        mir_tlog_index_fini(&cursor);
    }
    mir_tlog_codec_fini(&codec);
    return NULL;
}

static void searches_at_once_find_what_is_there(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x);
    pthread_t threads[THREADS];
    searching searches[THREADS];
    for (uint32_t i = 0; i < THREADS; i++) {
        searches[i] = (searching){.x = &x, .random = i};
        assert_int_equal(pthread_create(&threads[i], NULL, search_main, &searches[i]), 0);
    }
    for (uint32_t i = 0; i < THREADS; i++) {
        assert_int_equal(pthread_join(threads[i], NULL), 0);
        assert_int_equal(searches[i].wrong, 0);
    }
    /* Places were used, and blocks were pushed out of them. */
    assert_true(x.disk->calls > x.segment->block_count);
    assert_true(x.disk->calls < (uint64_t)THREADS * FINDS);
    fixture_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_kept_block_is_not_read_again_until_another_takes_its_place),
        cmocka_unit_test(a_block_at_hand_is_nobody_elses),
        cmocka_unit_test(damage_is_met_when_a_block_is_read_and_nothing_of_it_is_kept),
        cmocka_unit_test(searches_at_once_find_what_is_there),
        cmocka_unit_test(a_chunk_ends_before_a_pause_if_these_are_few),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
