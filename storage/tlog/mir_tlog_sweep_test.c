/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_sweep.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_tlog_sim.h"

/* A sweep gives what all chunks put in order at once would, in memory that does not grow with them. */

enum { SEEDS = 60, CHUNKS_MAX = 60, ROWS_MAX = 300, COLUMNS = 3, BYTES_MAX = 3000 };

static const mir_view measurement = MIR_VIEW_LITERAL("m.v1.T");
static const mir_view device = MIR_VIEW_LITERAL("d");
static const char path[] = "/t/0000000000000007.seg";
static const char *const words[] = {"", "a", "some words", "words that take somewhat more room"};

typedef struct fixture {
    sim_disk *disk;
    mir_tlog_codec codec;
    mir_tlog_segment *segment;
    mir_tlog_sweep_list chunks;
    uint64_t random;
} fixture;

static void column_fill(fixture *x, mir_tlog_gather *rows, uint32_t number, uint32_t row)
{
    static const char *const names[COLUMNS] = {"f", "i", "s"};
    static const mir_column_type types[COLUMNS] = {MIR_COLUMN_F64, MIR_COLUMN_I64,
                                                   MIR_COLUMN_STRING};
    uint32_t c;
    assert_int_equal(
        mir_tlog_gather_column_of(rows, mir_view_cstr(names[number]), types[number], &c), MIR_OK);
    uint64_t value = sim_random(&x->random);
    if (types[number] == MIR_COLUMN_STRING) {
        assert_int_equal(mir_tlog_gather_texts_room(rows, 1), MIR_OK);
        rows->texts[rows->text_count] = mir_view_cstr(words[value & 3]);
        value = rows->text_count++;
    }
    rows->columns[c].values[row] = value;
    rows->columns[c].present[row] = 1;
}

/* Chunks of rows within `span_ns`, each beginning anywhere in `reach_ns`. */
static void fixture_init(fixture *x, uint64_t seed)
{
    *x = (fixture){.disk = sim_disk_new(seed), .random = seed};
    assert_int_equal(mir_tlog_codec_init(&x->codec), MIR_OK);
    const mir_tlog_segment_head head = {7, 1, CHUNKS_MAX};
    mir_tlog_segment_writer *writer;
    mir_error error = {{0}};
    mir_tlog_gather rows;
    assert_int_equal(mir_tlog_gather_init(&rows), MIR_OK);
    assert_int_equal(mir_tlog_segment_begin(&x->disk->files, path, &head, &writer, &error), MIR_OK);
    static const uint64_t spans[] = {1, 2, 50, 5000, 5000000};
    const uint64_t span_ns = spans[seed % 5];
    const uint64_t reach_ns = spans[seed / 5 % 5];
    const uint64_t count = 1 + sim_random(&x->random) % CHUNKS_MAX;
    for (uint64_t n = 0; n < count; n++) {
        mir_tlog_gather_reset(&rows);
        const uint32_t row_count = 1 + (uint32_t)(sim_random(&x->random) % ROWS_MAX);
        assert_int_equal(mir_tlog_gather_room(&rows, row_count), MIR_OK);
        const uint64_t begin = sim_random(&x->random) % reach_ns;
        for (uint32_t row = 0; row < row_count; row++) {
            rows.times[row] = (int64_t)(begin + sim_random(&x->random) % span_ns) - 1000;
            const uint64_t r = sim_random(&x->random);
            for (uint32_t c = 0; c < COLUMNS; c++) {
                if (c == r % COLUMNS || (r >> (8 + c) & 3) != 0) column_fill(x, &rows, c, row);
            }
        }
        rows.row_count = row_count;
        assert_int_equal(mir_tlog_gather_finish(&rows), MIR_OK);
        /* Some are of one generation: then the later one wins. */
        assert_int_equal(mir_tlog_segment_put(writer, &x->codec, measurement, device, &rows, 0,
                                              rows.row_count, 1 + n / 2, &error),
                         MIR_OK);
    }
    mir_tlog_gather_fini(&rows);
    uint64_t size;
    assert_int_equal(mir_tlog_segment_end(writer, &x->codec, &size, &error), MIR_OK);
    assert_int_equal(
        mir_tlog_segment_open(&x->disk->files, path, 7, &x->codec, &x->segment, &error), MIR_OK);
    mir_tlog_index_cursor cursor = {.segment = x->segment};
    assert_int_equal(mir_tlog_index_next(&cursor, &x->codec), MIR_OK);
    for (uint32_t i = 0; i < cursor.chunk_count; i++) {
        assert_int_equal(mir_tlog_sweep_add(&x->chunks, x->segment, &cursor.chunks[i]), MIR_OK);
    }
    assert_int_equal(x->chunks.count, count);
    mir_tlog_index_fini(&cursor);
}

static void fixture_fini(fixture *x)
{
    free(x->chunks.items);
    mir_tlog_segment_release(x->segment);
    mir_tlog_codec_fini(&x->codec);
    sim_disk_free(x->disk);
}

static const mir_tlog_gather_column *column_of(const mir_tlog_gather *rows,
                                               const mir_tlog_gather_column *like)
{
    for (uint32_t c = 0; c < rows->column_count; c++) {
        const mir_tlog_gather_column *column = &rows->columns[c];
        if (column->type == like->type && mir_view_eq(column->name, like->name)) return column;
    }
    return NULL;
}

static void compare_row(const mir_tlog_gather *all, uint32_t at, const mir_tlog_gather *some,
                        uint32_t row)
{
    assert_int_equal(all->times[at], some->times[row]);
    for (uint32_t c = 0; c < all->column_count; c++) {
        const mir_tlog_gather_column *want = &all->columns[c];
        const mir_tlog_gather_column *have = column_of(some, want);
        assert_int_equal(want->present[at], have == NULL ? 0 : have->present[row]);
        if (want->present[at] == 0 || have == NULL) continue;
        if (want->type == MIR_COLUMN_STRING) {
            assert_true(mir_view_eq(all->texts[want->values[at]], some->texts[have->values[row]]));
        } else {
            assert_int_equal(want->values[at], have->values[row]);
        }
    }
}

static void it_is_as_if_all_were_put_in_order_at_once(void **state)
{
    (void)state;
    uint32_t stretches = 0;
    for (uint64_t seed = 0; seed < SEEDS; seed++) {
        fixture x;
        fixture_init(&x, seed);
        mir_tlog_sweep sweep;
        mir_tlog_gather all;
        assert_int_equal(mir_tlog_sweep_init(&sweep), MIR_OK);
        sweep.codec = &x.codec;
        sweep.bytes_max = BYTES_MAX;
        assert_int_equal(mir_tlog_gather_init(&all), MIR_OK);
        const int64_t first_ns = x.segment->time_min + (int64_t)(seed % 3);
        const int64_t last_ns = x.segment->time_max - (int64_t)(seed % 2);
        all.time_first = first_ns;
        all.time_last = last_ns;
        mir_tlog_sweep_sort_winners(&x.chunks);
        for (uint32_t i = 0; i < x.chunks.count; i++) {
            const mir_tlog_sweep_chunk *from = &x.chunks.items[i];
            assert_int_equal(mir_tlog_sweep_decode(&sweep, from->segment, &from->chunk, &all),
                             MIR_OK);
        }
        assert_int_equal(mir_tlog_gather_finish(&all), MIR_OK);
        mir_tlog_sweep_sort(&x.chunks);
        for (int twice = 0; twice < 2; twice++) {
            uint32_t at = 0;
            mir_status status;
            mir_tlog_sweep_begin(&sweep, &x.chunks, first_ns, last_ns);
            while ((status = mir_tlog_sweep_next(&sweep)) == MIR_OK) {
                assert_in_range(sweep.rows.row_count, 1, all.row_count - at);
                /* A row takes 17 bytes at least. */
                assert_true(sweep.rows.row_count <= BYTES_MAX / 17);
                assert_true(sweep.rows.bytes <= (uint64_t)8 * BYTES_MAX + (1 << 16));
                for (uint32_t row = 0; row < sweep.rows.row_count; row++) {
                    compare_row(&all, at++, &sweep.rows, row);
                }
                stretches++;
            }
            assert_int_equal(status, MIR_E_EMPTY);
            assert_int_equal(at, all.row_count);
        }
        mir_tlog_gather_fini(&all);
        mir_tlog_sweep_fini(&sweep);
        fixture_fini(&x);
    }
    assert_true(stretches > 1000);
}

/* A chunk that cannot be read fails the sweep, and its segment is left alone from then on. */
static void damage_is_marked(void **state)
{
    (void)state;
    fixture x;
    fixture_init(&x, 23);
    mir_tlog_sweep sweep;
    assert_int_equal(mir_tlog_sweep_init(&sweep), MIR_OK);
    sweep.codec = &x.codec;
    sweep.bytes_max = BYTES_MAX;
    mir_tlog_sweep_sort(&x.chunks);
    const mir_tlog_chunk *last = &x.chunks.items[x.chunks.count - 1].chunk;
    x.disk->now.entries[0].inode->data[last->offset + last->size - 1] ^= 1;
    mir_tlog_sweep_begin(&sweep, &x.chunks, INT64_MIN, INT64_MAX);
    mir_status status = MIR_OK;
    while (status == MIR_OK) status = mir_tlog_sweep_next(&sweep);
    assert_int_equal(status, MIR_E_CORRUPT);
    assert_true(atomic_load(&x.segment->damaged));
    mir_tlog_sweep_fini(&sweep);
    fixture_fini(&x);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(it_is_as_if_all_were_put_in_order_at_once),
        cmocka_unit_test(damage_is_marked),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
