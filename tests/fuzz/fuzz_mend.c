/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged segments and logs, whose checksums stay wrong: what can be had of them is within their
 * bounds, and a header that was put right is one. Of a segment whose rows are known no others are had,
 * and none is lost by what stands in it twice or follows from the rest. The first byte chooses. */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_segment.h"
#include "mir_tlog_log.h"
#include "mir_tlog_mend.h"

static void mend_segment(const uint8_t *data, size_t size)
{
    one_file file = {data, size};
    const mir_tlog_files files = file_table(&file);
    const uint64_t id = size >= 24 ? mir_tlog_get_u64(data + 16) : 0;
    mir_tlog_codec codec;
    mir_tlog_mend mend;
    if (mir_tlog_codec_init(&codec) != MIR_OK) return;
    if (mir_tlog_mend_open(&mend, &files, "", id, &codec, NULL) == MIR_OK) {
        mir_tlog_index_cursor cursor = {.segment = mend.segment};
        mir_bytes bytes = {0};
        for (int entries = 0; entries < 1000; entries++) {
            const mir_status status = mir_tlog_index_next(&cursor, &codec);
            if (status == MIR_E_EMPTY) break;
            for (uint32_t i = 0; status == MIR_OK && i < cursor.chunk_count && i < 100; i++) {
                bytes.size = 0;
                if (mir_tlog_chunk_read(mend.segment, &cursor.chunks[i], &bytes) == MIR_OK)
                    MIR_ASSERT(bytes.size == cursor.chunks[i].size);
            }
        }
        mir_bytes_free(&bytes);
        mir_tlog_index_fini(&cursor);
    }
    mir_tlog_mend_close(&mend);
    mir_tlog_codec_fini(&codec);
}

/* ---- Rows that are known ---- */

/* The rows of a chunk are among those that were written to its series. */
static uint32_t rows_known(mir_tlog_codec *codec, const mir_tlog_index_cursor *at,
                           const mir_tlog_chunk *chunk, mir_view bytes, const fuzz_rows *written)
{
    static fuzz_rows rows;
    const mir_tlog_segment *segment = at->segment;
    const mir_view measurement = segment->measurements[at->measurement];
    mir_tlog_gather gather;
    MIR_ASSERT(mir_tlog_gather_init(&gather) == MIR_OK);
    uint32_t count = 0;
    uint32_t s = 0;
    while (s < FUZZ_SERIES && (!mir_view_eq(measurement, fuzz_measurements[s / FUZZ_DEVICES]) ||
                               !mir_view_eq(at->device, fuzz_devices[s % FUZZ_DEVICES])))
        s++;
    MIR_ASSERT(s < FUZZ_SERIES);
    if (mir_tlog_chunk_decode(codec, bytes, &segment->shapes[chunk->shape], &gather) == MIR_OK) {
        MIR_ASSERT(mir_tlog_gather_finish(&gather) == MIR_OK);
        fuzz_rows_of(&rows, &gather);
        uint32_t other = 0;
        for (uint32_t r = 0; r < rows.count; r++, other++) {
            while (other < written[s].count && written[s].times[other] < rows.times[r]) other++;
            MIR_ASSERT(other < written[s].count && fuzz_same_row(&rows, r, &written[s], other));
        }
        count = rows.count;
    }
    mir_tlog_gather_fini(&gather);
    return count;
}

static uint64_t rows_had(mir_tlog_codec *codec, mir_tlog_segment *segment, const fuzz_rows *written)
{
    mir_tlog_index_cursor cursor = {.segment = segment};
    mir_bytes bytes = {0};
    uint64_t rows = 0;
    for (;;) {
        const mir_status status = mir_tlog_index_next(&cursor, codec);
        if (status == MIR_E_EMPTY) break;
        for (uint32_t i = 0; status == MIR_OK && i < cursor.chunk_count; i++) {
            bytes.size = 0;
            if (mir_tlog_chunk_read(segment, &cursor.chunks[i], &bytes) == MIR_OK)
                rows += rows_known(codec, &cursor, &cursor.chunks[i], mir_bytes_as_view(&bytes),
                                   written);
        }
    }
    mir_bytes_free(&bytes);
    mir_tlog_index_fini(&cursor);
    return rows;
}

/* Where nothing may be lost, as long as all else is whole. */
static bool region_take(fuzz_input *in, const mir_tlog_segment *segment, uint64_t *from,
                        uint64_t *end)
{
    const uint64_t index = segment->index_offset;
    const uint64_t footer = index + segment->index_bytes;
    switch (fuzz_byte(in) % 5) {
    case 0: *from = 0, *end = MIR_TLOG_SEGMENT_HEADER_BYTES; return true;
    case 1: *from = footer, *end = segment->size; return true;
    case 2: *from = index, *end = footer; return segment->has_spare_index;
    case 3:
        *from = index, *end = segment->size;
        return segment->has_spare_index && segment->has_spare_footer;
    default: *from = 0, *end = segment->size; return false;
    }
}

static void mend_written(fuzz_input *in)
{
    static fuzz_made made;
    static fuzz_rows written[FUZZ_SERIES];
    mir_tlog_codec codec;
    mir_tlog_mend mend;
    mir_tlog_segment *segment;
    if (mir_tlog_codec_init(&codec) != MIR_OK) return;
    (void)fuzz_segment_make(in, &made, 7, &codec, written);
    const mir_tlog_files files = fuzz_made_table(&made);
    MIR_ASSERT(mir_tlog_segment_open(&files, "made", 7, &codec, &segment, NULL) == MIR_OK);
    uint64_t from, end;
    const bool had = region_take(in, segment, &from, &end);
    const uint64_t rows = segment->rows;
    mir_tlog_segment_release(segment);
    fuzz_damage(in, &made, from, end);
    const mir_status status = mir_tlog_mend_open(&mend, &files, "made", 7, &codec, NULL);
    MIR_ASSERT(status == MIR_OK || status == MIR_E_CORRUPT || status == MIR_E_UNSUPPORTED);
    if (status == MIR_OK) {
        const uint64_t found = rows_had(&codec, mend.segment, written);
        MIR_ASSERT(found == rows || (!had && found < rows));
    } else {
        MIR_ASSERT(!had);
    }
    mir_tlog_mend_close(&mend);
    mir_tlog_codec_fini(&codec);
}

/* ---- Logs ---- */

static void mend_log(uint8_t *data, size_t size)
{
    int64_t base_ns;
    if (!mir_tlog_mend_log(data, size, 7)) return;
    MIR_ASSERT(mir_tlog_log_header_read(mir_view_of(data, size), size, 7, &base_ns, NULL) ==
               MIR_OK);
    mir_tlog_log_look look;
    MIR_ASSERT(mir_tlog_log_look_bytes(mir_view_of(data, size), 7, &look, NULL) == MIR_OK);
    MIR_ASSERT(look.headers_damaged == 0 && look.found.bytes <= size);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 1) return 0;
    uint8_t *copy = malloc(size);
    if (copy == NULL) return 0;
    memcpy(copy, data + 1, size - 1);
    switch (data[0] % 4) {
    case 0: mend_log(copy, size - 1); break;
    case 1: mend_segment(copy, size - 1); break;
    default: mend_written(&(fuzz_input){copy, size - 1});
    }
    free(copy);
    return 0;
}
