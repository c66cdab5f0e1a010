/* SPDX-License-Identifier: Apache-2.0 */
/* The checksums of a damaged segment put right, or no mutation would get past them. */
#ifndef FUZZ_REPAIR_H
#define FUZZ_REPAIR_H

#include "mir_hash.h"
#include "mir_tlog_segment.h"

enum { FUZZ_CHUNK_MAGIC = 0x4b48434d };

static inline void fuzz_repair_segment(uint8_t *data, size_t size)
{
    if (size < MIR_TLOG_SEGMENT_HEADER_BYTES + MIR_TLOG_SEGMENT_TRAILER_BYTES) return;
    for (size_t at = MIR_TLOG_SEGMENT_HEADER_BYTES; at + 16 <= size; at++) {
        if (mir_tlog_get_u32(data + at) != FUZZ_CHUNK_MAGIC) continue;
        const uint32_t payload = mir_tlog_get_u32(data + at + 4);
        if (payload > size - at - 16) continue;
        (void)mir_tlog_put_u64(data + at + 8, mir_hash_fixed(data + at + 16, payload));
    }
    uint8_t *trailer = data + size - MIR_TLOG_SEGMENT_TRAILER_BYTES;
    const uint64_t index = mir_tlog_get_u64(trailer);
    const uint64_t footer = mir_tlog_get_u64(trailer + 8);
    const uint32_t stored = mir_tlog_get_u32(trailer + 16);
    const size_t end = size - MIR_TLOG_SEGMENT_TRAILER_BYTES;
    for (uint64_t at = index; at < footer && footer <= end && footer - at >= 16;) {
        const uint32_t block = mir_tlog_get_u32(data + at);
        if (block > footer - at - 16) break;
        (void)mir_tlog_put_u64(data + at + 8, mir_hash_fixed(data + at + 16, block));
        at += 16 + block;
    }
    if (footer <= end && stored <= end - footer) {
        (void)mir_tlog_put_u64(trailer + 24, mir_hash_fixed(data + footer, stored));
    }
    (void)mir_tlog_put_u64(data + 56, mir_hash_fixed(data, 56));
    (void)mir_tlog_put_u64(trailer + 56, mir_hash_fixed(trailer, 56));
}

#endif
