/* SPDX-License-Identifier: Apache-2.0 */
/* mir_zstd: whole messages in and out of Zstandard frames.
 *
 * Why        Hellos and schemas travel compressed, written by streaming encoders: the frame header
 *            may lack the content size, and several frames may follow each other.
 * Ownership  The caller owns the output; it is appended to, and left as it was on failure.
 * Affinity   Any thread; nothing is shared.
 * Bounds     Decompression stops at raw_bytes_max, whatever the frame header claims, and refuses
 *            windows over 8 MiB, so that a small frame cannot ask for much memory.
 * Errors     MIR_E_INVALID: not Zstandard, damaged or cut short. MIR_E_TOO_LARGE. MIR_E_NO_MEMORY.
 *            Zero bytes mean zero bytes in both directions. */
#ifndef MIR_ZSTD_H
#define MIR_ZSTD_H

#include "mir_bytes.h"

enum { MIR_ZSTD_RAW_BYTES_MAX_DEFAULT = 8 << 20 };

MIR_MUST_CHECK mir_status mir_zstd_decompress(mir_view frames, size_t raw_bytes_max, mir_bytes *raw,
                                              mir_error *error);
MIR_MUST_CHECK mir_status mir_zstd_compress(mir_view raw, mir_bytes *frame, mir_error *error);

#endif
