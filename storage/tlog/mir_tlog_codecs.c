/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_codecs.h"

#include <stdlib.h>

mir_status mir_tlog_codecs_take(mir_tlog_codecs *codecs, mir_tlog_codec *codec)
{
    for (unsigned i = 0; i < MIR_TLOG_CODECS_KEPT; i++) {
        if (atomic_load_explicit(&codecs->kept[i], memory_order_relaxed) == NULL) continue;
        /* Acquire pairs with the release of give. */
        mir_tlog_codec *kept =
            atomic_exchange_explicit(&codecs->kept[i], NULL, memory_order_acquire);
        if (kept == NULL) continue;
        *codec = *kept;
        free(kept);
        return MIR_OK;
    }
    return mir_tlog_codec_init(codec);
}

static void trim(mir_bytes *bytes)
{
    if (bytes->failed || bytes->capacity > MIR_TLOG_CODEC_BYTES_KEPT) mir_bytes_free(bytes);
    bytes->size = 0;
}

void mir_tlog_codecs_give(mir_tlog_codecs *codecs, mir_tlog_codec *codec)
{
    if (codec->decompressor == NULL) return;
    mir_tlog_codec *kept = malloc(sizeof *kept);
    if (kept != NULL) {
        trim(&codec->raw);
        trim(&codec->packed);
        trim(&codec->places);
        trim(&codec->walked);
        *kept = *codec;
        for (unsigned i = 0; i < MIR_TLOG_CODECS_KEPT; i++) {
            mir_tlog_codec *none = NULL;
            if (atomic_compare_exchange_strong_explicit(
                    &codecs->kept[i], &none, kept, memory_order_release, memory_order_relaxed)) {
                *codec = (mir_tlog_codec){0};
                return;
            }
        }
        free(kept);
    }
    mir_tlog_codec_fini(codec);
}

void mir_tlog_codecs_free(mir_tlog_codecs *codecs)
{
    for (unsigned i = 0; i < MIR_TLOG_CODECS_KEPT; i++) {
        mir_tlog_codec *kept =
            atomic_exchange_explicit(&codecs->kept[i], NULL, memory_order_acquire);
        if (kept == NULL) continue;
        mir_tlog_codec_fini(kept);
        free(kept);
    }
}
