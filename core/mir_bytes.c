/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bytes.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

static bool over_bound(const mir_bytes *bytes, size_t extra)
{
    return bytes->size_max != 0 && extra > bytes->size_max - bytes->size;
}

static uint8_t *grow(mir_bytes *bytes, size_t extra)
{
    if (bytes->data == NULL || extra > bytes->capacity - bytes->size) {
        if (extra > SIZE_MAX / 2 - bytes->size) {
            bytes->failed = true;
            return NULL;
        }
        size_t want = bytes->capacity < 64 ? 64 : bytes->capacity;
        while (want - bytes->size < extra) want *= 2;
        uint8_t *grown = realloc(bytes->data, want);
        if (grown == NULL) {
            bytes->failed = true;
            return NULL;
        }
        bytes->data = grown;
        bytes->capacity = want;
    }
    return bytes->data + bytes->size;
}

uint8_t *mir_bytes_reserve(mir_bytes *bytes, size_t extra)
{
    if (bytes->failed) return NULL;
    if (over_bound(bytes, extra)) {
        bytes->failed = true;
        return NULL;
    }
    return grow(bytes, extra);
}

void mir_bytes_append(mir_bytes *bytes, const void *data, size_t size)
{
    if (size == 0) return;
    uint8_t *to = mir_bytes_reserve(bytes, size);
    if (to == NULL) return;
    memcpy(to, data, size);
    bytes->size += size;
}

void mir_bytes_view(mir_bytes *bytes, mir_view view)
{
    mir_bytes_append(bytes, view.data, view.size);
}

void mir_bytes_text(mir_bytes *bytes, const char *text)
{
    mir_bytes_append(bytes, text, strlen(text));
}

void mir_bytes_u8(mir_bytes *bytes, uint8_t value)
{
    mir_bytes_append(bytes, &value, 1);
}

void mir_bytes_printf(mir_bytes *bytes, const char *format, ...)
{
    va_list args;
    va_start(args, format);
    va_list again;
    va_copy(again, args);
    int need = vsnprintf(NULL, 0, format, args);
    va_end(args);
    if (need < 0 || over_bound(bytes, (size_t)need)) {
        bytes->failed = true;
    } else if (!bytes->failed) {
        /* The terminator needs room in memory, but does not count. */
        uint8_t *to = grow(bytes, (size_t)need + 1);
        if (to != NULL) {
            (void)vsnprintf((char *)to, (size_t)need + 1, format, again);
            bytes->size += (size_t)need;
        }
    }
    va_end(again);
}

void mir_bytes_free(mir_bytes *bytes)
{
    free(bytes->data);
    *bytes = (mir_bytes){.size_max = bytes->size_max};
}
