/* SPDX-License-Identifier: Apache-2.0 */
/* mir_utf8: whether bytes are UTF-8.
 *
 * Why        Texts of devices and clients are looked at before they are stored, compared or written
 *            as JSON.
 * Affinity   Any thread; no state.
 * Bounds     Each byte is looked at once, none behind the text.
 *
 * Well-formed means without overlong forms, surrogates and what is above U+10FFFF. NUL is a
 * character like others. */
#ifndef MIR_UTF8_H
#define MIR_UTF8_H

#include "mir_view.h"

/* The length of the well-formed sequence at the start of a text that is not empty; 0 if there is
 * none. */
size_t mir_utf8_sequence(mir_view text);
bool mir_utf8_valid(mir_view text);
/* What fits into `size` bytes with a zero byte behind it, without a part of a sequence at its end. */
char *mir_utf8_copy(const char *text, char *to, size_t size);

#endif
