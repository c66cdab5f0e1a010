/* SPDX-License-Identifier: Apache-2.0 */
/* Damaged segments and logs, whose checksums stay wrong: what can be had of them is within their
 * bounds, and a header that was put right is one. The first byte chooses. */
#include <stdint.h>
#include <stdlib.h>

#include "fuzz_file.h"
#include "mir_assert.h"
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
    if (data[0] % 2 == 0)
        mend_log(copy, size - 1);
    else
        mend_segment(copy, size - 1);
    free(copy);
    return 0;
}
