/* SPDX-License-Identifier: Apache-2.0 */
/* What the telemetry log reads from its files: logs, segments, the manifest, the position of who reads
 * from outside and what retention has counted, of any bytes. The first byte chooses. Checksums are
 * repaired first, or no mutation would get past them. */
#include <errno.h>
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_file.h"
#include "fuzz_repair.h"
#include "mir_assert.h"
#include "mir_log.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_position.h"
#include "mir_tlog_tally.h"

enum { FRAME_MAGIC = 0x4d52464d };

static void repair_log(uint8_t *data, size_t size)
{
    if (size < MIR_TLOG_LOG_HEADER_BYTES) return;
    mir_tlog_log_header(data, 7, (int64_t)mir_tlog_get_u64(data + 24));
    size_t at = MIR_TLOG_LOG_HEADER_BYTES;
    for (uint64_t sequence = 0; size - at > MIR_TLOG_FRAME_HEADER_BYTES + 8; sequence++) {
        const size_t left = size - at - MIR_TLOG_FRAME_HEADER_BYTES - 8;
        uint32_t payload = mir_tlog_get_u32(data + at + 4);
        if (payload > left) payload = (uint32_t)left;
        if (mir_tlog_get_u32(data + at) != FRAME_MAGIC) break;
        at += mir_tlog_log_frame(data + at, payload, 1, sequence, 7);
    }
}

static void read_log(uint8_t *data, size_t size)
{
    repair_log(data, size);
    mir_tlog_mem *mem = NULL;
    mir_tlog_replay replay;
    mir_tlog_gather gather;
    if (mir_tlog_log_replay_bytes(mir_view_of(data, size), 7, &mem, &replay, NULL) != MIR_OK)
        return;
    if (mir_tlog_gather_init(&gather) == MIR_OK) {
        for (const mir_tlog_mem_series *series = atomic_load(&mem->all); series != NULL;
             series = series->all_next) {
            mir_tlog_gather_reset(&gather);
            if (mir_tlog_gather_mem(&gather, mem, series, mir_tlog_mem_published(series)) !=
                    MIR_OK ||
                mir_tlog_gather_finish(&gather) != MIR_OK) {
                abort(); /* what replay took in can be read */
            }
        }
        mir_tlog_gather_fini(&gather);
    }
    mir_tlog_mem_free(mem);
}

/* As queries with functions read it: column by column, with what it says of itself. */
static void read_columns(mir_tlog_codec *codec, mir_view bytes, const mir_tlog_segment_shape *shape)
{
    static int64_t times[MIR_TLOG_CHUNK_ROWS_MAX];
    static uint64_t values[MIR_TLOG_CHUNK_ROWS_MAX];
    static mir_view texts[MIR_TLOG_CHUNK_ROWS_MAX];
    mir_tlog_chunk_reader reader;
    mir_arena arena = {.bytes_max = 64 << 20};
    mir_status status = mir_tlog_chunk_begin(&reader, bytes, shape);
    if (status == MIR_OK && mir_tlog_chunk_times(&reader, codec, times) == MIR_OK) {
        for (uint32_t i = 1; i < reader.rows; i++) MIR_ASSERT(times[i - 1] < times[i]);
    }
    for (uint32_t n = 0; status == MIR_OK; n++) {
        status = mir_tlog_chunk_next(&reader);
        if (status != MIR_OK) break;
        const uint32_t count = reader.statistics.count;
        MIR_ASSERT(count <= reader.rows && n < shape->column_count);
        uint32_t bits = 0;
        for (uint32_t i = 0; reader.bitmap.data != NULL && i < reader.rows; i++) {
            bits += reader.bitmap.data[i / 8] >> (i % 8) & 1;
        }
        MIR_ASSERT(reader.bitmap.data == NULL ? count == reader.rows : count == bits);
        if (n % 3 == 2) {
            status = mir_tlog_chunk_pass(&reader);
            continue;
        }
        status = mir_tlog_chunk_values(&reader, codec, values, texts, &arena);
        for (uint32_t i = 0;
             status == MIR_OK && reader.column->type == MIR_COLUMN_STRING && i < count; i++) {
            MIR_ASSERT(texts[i].size == 0 || texts[i].data[texts[i].size - 1] <= 0xff);
        }
    }
    mir_arena_free(&arena);
}

static void read_segment(uint8_t *data, size_t size)
{
    fuzz_repair_segment(data, size);
    one_file file = {data, size};
    const mir_tlog_files files = file_table(&file);
    mir_tlog_codec codec;
    mir_tlog_gather gather;
    if (mir_tlog_codec_init(&codec) != MIR_OK) return;
    if (mir_tlog_gather_init(&gather) != MIR_OK) abort();
    gather.bytes_max = 64 << 20;
    mir_tlog_segment *segment;
    const uint64_t id = size >= 24 ? mir_tlog_get_u64(data + 16) : 0;
    if (mir_tlog_segment_open(&files, "", id, &codec, &segment, NULL) == MIR_OK) {
        mir_tlog_index_cursor cursor = {.segment = segment};
        mir_bytes bytes = {0};
        for (int entries = 0; entries < 1000; entries++) {
            const mir_status status = mir_tlog_index_next(&cursor, &codec);
            if (status == MIR_E_EMPTY) break;
            if (status != MIR_OK) continue;
            for (uint32_t i = 0; i < cursor.chunk_count && i < 100; i++) {
                bytes.size = 0;
                if (mir_tlog_chunk_read(segment, &cursor.chunks[i], &bytes) == MIR_OK) {
                    (void)!mir_tlog_chunk_decode(&codec, mir_bytes_as_view(&bytes),
                                                 &segment->shapes[cursor.chunks[i].shape], &gather);
                    read_columns(&codec, mir_bytes_as_view(&bytes),
                                 &segment->shapes[cursor.chunks[i].shape]);
                }
            }
            if (mir_tlog_gather_finish(&gather) != MIR_OK) break;
            mir_tlog_gather_reset(&gather);
        }
        mir_tlog_index_cursor finder = {.segment = segment};
        (void)!mir_tlog_index_find(&finder, &codec, mir_view_cstr("m.v1.T"), mir_view_cstr("d1"));
        mir_tlog_index_fini(&finder);
        mir_tlog_index_fini(&cursor);
        mir_bytes_free(&bytes);
        mir_tlog_segment_release(segment);
    }
    mir_tlog_gather_fini(&gather);
    mir_tlog_codec_fini(&codec);
}

static void repair_whole(uint8_t *data, size_t size)
{
    if (size < MIR_TLOG_WHOLE_HEADER_BYTES) return;
    (void)mir_tlog_put_u32(data + 12, (uint32_t)(size - 24));
    (void)mir_tlog_put_u64(data + 16,
                           XXH3_64bits_withSeed(data + 24, size - 24, mir_tlog_get_u64(data + 8)));
}

static void read_manifest(uint8_t *data, size_t size)
{
    repair_whole(data, size);
    mir_tlog_manifest manifest;
    if (mir_tlog_manifest_parse(mir_view_of(data, size), &manifest, NULL) == MIR_OK) {
        mir_tlog_manifest_fini(&manifest);
    }
}

static void read_position(uint8_t *data, size_t size)
{
    repair_whole(data, size);
    mir_tlog_position position;
    if (mir_tlog_position_parse(mir_view_of(data, size), &position, NULL) == MIR_OK) {
        mir_tlog_position_fini(&position);
    }
}

static int64_t wall_ns(void)
{
    return 1;
}

static void read_tally(uint8_t *data, size_t size)
{
    static mir_tlog tlog;
    static const mir_tlog_rule rules[2] = {{.age_ns = 1}, {.deleted = true}};
    repair_whole(data, size);
    one_file file = {data, size};
    const mir_tlog_files files = file_table(&file);
    mir_error error = {{0}};
    tlog.files = &files;
    tlog.options.rules = rules;
    tlog.options.rule_count = 2;
    tlog.options.wall_ns = wall_ns;
    const mir_status status = mir_tlog_tally_read(&tlog, &error);
    MIR_ASSERT(status == MIR_OK || status == MIR_E_UNSUPPORTED);
    /* What cannot be read is counted anew. */
    if (error.text[0] != '\0')
        MIR_ASSERT(tlog.retention.since_ns == 1 && tlog.retention.rows_removed[0] == 0);
}

typedef struct taker {
    uint32_t given;
    uint32_t refused_at;
    int64_t sum;
} taker;

static mir_status take_row(void *context, const mir_tlog_log_row *row)
{
    taker *to = context;
    if (to->given == to->refused_at) return MIR_E_AGAIN;
    to->given++;
    for (uint32_t i = 0; i < row->cell_count; i++) {
        to->sum ^= (int64_t)(row->cells[i].value.bits ^ row->cells[i].column);
    }
    return MIR_OK;
}

/* As who reads a log from outside does it: frame by frame, and a row that was refused once more. */
static void read_rows(uint8_t *data, size_t size)
{
    repair_log(data, size);
    const mir_view bytes = mir_view_of(data, size);
    int64_t base_ns;
    mir_tlog_records *records;
    if (mir_tlog_log_header_read(bytes, size, 7, &base_ns, NULL) != MIR_OK) return;
    if (mir_tlog_records_new(7, base_ns, size, &records) != MIR_OK) return;
    mir_tlog_frame frame;
    for (size_t at = MIR_TLOG_LOG_HEADER_BYTES;
         at < size && mir_tlog_log_frame_at(bytes, at, 7, &frame) == MIR_TLOG_FRAME_WHOLE;
         at = frame.end) {
        MIR_ASSERT(frame.start == at && frame.end > at && frame.end <= size + 7);
        taker to = {.refused_at = 1};
        uint32_t taken = 0;
        uint64_t lost = 0;
        mir_status status =
            mir_tlog_records_read(records, frame.payload, 0, take_row, &to, &taken, &lost);
        if (status == MIR_E_AGAIN) {
            MIR_ASSERT(taken == 1 + lost);
            to.refused_at = UINT32_MAX;
            status =
                mir_tlog_records_read(records, frame.payload, taken, take_row, &to, &taken, &lost);
            MIR_ASSERT(status != MIR_E_AGAIN);
        }
    }
    mir_tlog_records_free(records);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    mir_log_set_level(MIR_LOG_ERROR);
    uint8_t *copy = malloc(size);
    if (copy == NULL) return 0;
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 6) {
    case 0: read_log(copy, size - 1); break;
    case 1: read_segment(copy, size - 1); break;
    case 2: read_manifest(copy, size - 1); break;
    case 3: read_position(copy, size - 1); break;
    case 5: read_tally(copy, size - 1); break;
    default: read_rows(copy, size - 1);
    }
    free(copy);
    return 0;
}
