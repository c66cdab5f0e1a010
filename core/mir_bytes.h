/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bytes: a growing byte buffer, for work that is not on the message path.
 *
 * Why        Replies, files and texts are built piece by piece.
 * Ownership  The caller owns the struct; a zeroed one is empty and ready. mir_bytes_free releases.
 * Affinity   One thread at a time.
 * Bounds     Grows by doubling. When memory cannot be had, or `size_max` (if not 0) would be
 *            passed, the buffer turns `failed` and takes nothing more: check once, at the end.
 * Errors     mir_bytes_ok tells whether every append succeeded. */
#ifndef MIR_BYTES_H
#define MIR_BYTES_H

#include "mir_status.h"
#include "mir_view.h"

typedef struct mir_bytes {
    uint8_t *data;
    size_t size;
    size_t capacity;
    size_t size_max; /* 0: no bound beyond memory */
    bool failed;
} mir_bytes;

/* Makes room for `extra` more bytes and returns where they go, or null when failed. */
uint8_t *mir_bytes_reserve(mir_bytes *bytes, size_t extra);
void mir_bytes_append(mir_bytes *bytes, const void *data, size_t size);
void mir_bytes_view(mir_bytes *bytes, mir_view view);
void mir_bytes_text(mir_bytes *bytes, const char *text);
void mir_bytes_u8(mir_bytes *bytes, uint8_t value);
void mir_bytes_printf(mir_bytes *bytes, const char *format, ...) MIR_PRINTF(2, 3);
void mir_bytes_free(mir_bytes *bytes);

static inline bool mir_bytes_ok(const mir_bytes *bytes)
{
    return !bytes->failed;
}

static inline mir_view mir_bytes_as_view(const mir_bytes *bytes)
{
    return (mir_view){bytes->data, bytes->size};
}

#endif
