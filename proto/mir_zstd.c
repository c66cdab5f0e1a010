/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_zstd.h"

#include <zstd.h>

enum { WINDOW_LOG_MAX = 23, STEP_BYTES = 64 << 10, LEVEL = 3 };

mir_status mir_zstd_decompress(mir_view frames, size_t raw_bytes_max, mir_bytes *raw,
                               mir_error *error)
{
    if (frames.size == 0) return MIR_OK;
    mir_status status = MIR_OK;
    const size_t start = raw->size;
    ZSTD_DCtx *context = ZSTD_createDCtx();
    if (context == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "zstd: out of memory");
    if (ZSTD_isError(ZSTD_DCtx_setParameter(context, ZSTD_d_windowLogMax, WINDOW_LOG_MAX))) {
        status = mir_error_set(error, MIR_E_UNSUPPORTED, "zstd: the window cannot be bounded");
        goto out;
    }
    ZSTD_inBuffer in = {frames.data, frames.size, 0};
    size_t rest = 0; /* 0 at the end of a frame */
    for (;;) {
        /* One byte over the bound, to tell a full output from one that is too large. */
        size_t room = raw_bytes_max - (raw->size - start);
        room = room < STEP_BYTES ? room + 1 : STEP_BYTES;
        uint8_t *to = mir_bytes_reserve(raw, room);
        if (to == NULL) {
            status = mir_error_set(error, MIR_E_NO_MEMORY, "zstd: no room for the output");
            goto out;
        }
        ZSTD_outBuffer out = {to, room, 0};
        const size_t in_before = in.pos;
        rest = ZSTD_decompressStream(context, &out, &in);
        if (ZSTD_isError(rest)) {
            status = mir_error_set(error, MIR_E_INVALID, "zstd: %s", ZSTD_getErrorName(rest));
            goto out;
        }
        raw->size += out.pos;
        if (raw->size - start > raw_bytes_max) {
            status = mir_error_set(error, MIR_E_TOO_LARGE,
                                   "zstd: more than %zu bytes after decompression", raw_bytes_max);
            goto out;
        }
        if (in.pos == in.size && (rest == 0 || out.pos < room)) break;
        if (in.pos == in_before && out.pos == 0) break;
    }
    if (rest != 0) status = mir_error_set(error, MIR_E_INVALID, "zstd: the frame is cut short");
out:
    ZSTD_freeDCtx(context);
    if (status != MIR_OK) {
        raw->size = start;
        raw->failed = false;
    }
    return status;
}

mir_status mir_zstd_compress(mir_view raw, mir_bytes *frame, mir_error *error)
{
    if (raw.size == 0) return MIR_OK;
    size_t bound = ZSTD_compressBound(raw.size);
    uint8_t *to = ZSTD_isError(bound) ? NULL : mir_bytes_reserve(frame, bound);
    if (to == NULL) {
        frame->failed = false;
        return mir_error_set(error, MIR_E_NO_MEMORY, "zstd: no room for the output");
    }
    size_t size = ZSTD_compress(to, bound, raw.data, raw.size, LEVEL);
    if (ZSTD_isError(size)) {
        return mir_error_set(error, MIR_E_NO_MEMORY, "zstd: %s", ZSTD_getErrorName(size));
    }
    frame->size += size;
    return MIR_OK;
}
