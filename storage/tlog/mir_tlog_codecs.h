/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_codecs: codecs that queries use one after the other.
 *
 * Why        To make one takes longer than to decode a chunk: zstd asks the processor what it can do,
 *            and on a virtual machine the host answers that.
 * Ownership  A codec is the caller's from take to give, which empties it. Those that are kept go with
 *            free.
 * Affinity   take, give: any thread, lock-free. free: when nobody takes or gives any more.
 * Bounds     MIR_TLOG_CODECS_KEPT codecs, without memory beyond MIR_TLOG_CODEC_BYTES_KEPT for what passes
 *            through them.
 * Errors     take: MIR_E_NO_MEMORY. */
#ifndef MIR_TLOG_CODECS_H
#define MIR_TLOG_CODECS_H

#include <stdatomic.h>

#include "mir_tlog_column.h"

enum { MIR_TLOG_CODECS_KEPT = 8, MIR_TLOG_CODEC_BYTES_KEPT = 64 * 1024 };

typedef struct mir_tlog_codecs {
    _Atomic(mir_tlog_codec *) kept[MIR_TLOG_CODECS_KEPT]; /* zeroed: none yet */
} mir_tlog_codecs;

MIR_MUST_CHECK mir_status mir_tlog_codecs_take(mir_tlog_codecs *codecs, mir_tlog_codec *codec);
/* A zeroed codec is none. */
void mir_tlog_codecs_give(mir_tlog_codecs *codecs, mir_tlog_codec *codec);
void mir_tlog_codecs_free(mir_tlog_codecs *codecs);

#endif
