/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_utf8.h"

#include <string.h>

size_t mir_utf8_sequence(mir_view text)
{
    uint8_t lead = text.data[0];
    if (lead < 0x80) return 1;
    size_t more = lead >= 0xf0 ? 3 : lead >= 0xe0 ? 2 : 1;
    if (lead < 0xc2 || lead > 0xf4 || more >= text.size) return 0;
    uint32_t point = lead & (0x3fu >> more);
    for (size_t k = 1; k <= more; k++) {
        uint8_t byte = text.data[k];
        if ((byte & 0xc0) != 0x80) return 0;
        point = point << 6 | (byte & 0x3f);
    }
    if ((more == 2 && (point < 0x800 || (point >= 0xd800 && point <= 0xdfff))) ||
        (more == 3 && (point < 0x10000 || point > 0x10ffff)))
        return 0;
    return more + 1;
}

bool mir_utf8_valid(mir_view text)
{
    size_t i = 0;
    while (i < text.size) {
        /* Most texts are ASCII throughout: eight bytes at a time. */
        while (text.size - i >= 8) {
            uint64_t bytes;
            memcpy(&bytes, text.data + i, sizeof bytes);
            if ((bytes & UINT64_C(0x8080808080808080)) != 0) break;
            i += 8;
        }
        if (i == text.size) break;
        if (text.data[i] < 0x80) {
            i++;
            continue;
        }
        size_t size = mir_utf8_sequence(mir_view_from(text, i));
        if (size == 0) return false;
        i += size;
    }
    return true;
}

char *mir_utf8_copy(const char *text, char *to, size_t size)
{
    size_t length = strnlen(text, size);
    if (length >= size) {
        length = size - 1;
        /* The first byte that does not fit tells whether the cut is inside a sequence. */
        while (length != 0 && ((uint8_t)text[length] & 0xc0) == 0x80) length--;
    }
    memcpy(to, text, length);
    to[length] = '\0';
    return to;
}
