/* SPDX-License-Identifier: Apache-2.0 */
/* mir_view: bytes that belong to somebody else.
 *
 * Why        Layers pass what they parsed without copying it.
 * Ownership  A view owns nothing; it is valid as long as the object that it was made from.
 * Units      Bytes; not terminated, may contain any byte. An empty view may have a null pointer. */
#ifndef MIR_VIEW_H
#define MIR_VIEW_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef struct mir_view {
    const uint8_t *data;
    size_t size;
} mir_view;

#define MIR_VIEW_LITERAL(text) ((mir_view){(const uint8_t *)(text), sizeof(text) - 1})
/* For printf("%.*s"). */
#define MIR_VIEW_ARGS(view) (int)(view).size, (const char *)(view).data

static inline mir_view mir_view_of(const void *data, size_t size)
{
    return (mir_view){(const uint8_t *)data, size};
}

static inline mir_view mir_view_cstr(const char *text)
{
    return (mir_view){(const uint8_t *)text, text == NULL ? 0 : strlen(text)};
}

static inline bool mir_view_eq(mir_view a, mir_view b)
{
    return a.size == b.size && (a.size == 0 || memcmp(a.data, b.data, a.size) == 0);
}

static inline bool mir_view_eq_cstr(mir_view a, const char *text)
{
    return mir_view_eq(a, mir_view_cstr(text));
}

/* By bytes; of two that begin alike the shorter one comes first. */
static inline int mir_view_compare(mir_view a, mir_view b)
{
    const size_t size = a.size < b.size ? a.size : b.size;
    const int order = size == 0 ? 0 : memcmp(a.data, b.data, size);
    if (order != 0) return order;
    return a.size < b.size ? -1 : a.size > b.size;
}

static inline bool mir_view_starts(mir_view a, mir_view prefix)
{
    return a.size >= prefix.size &&
           (prefix.size == 0 || memcmp(a.data, prefix.data, prefix.size) == 0);
}

static inline mir_view mir_view_from(mir_view a, size_t offset)
{
    return offset >= a.size ? (mir_view){NULL, 0} : (mir_view){a.data + offset, a.size - offset};
}

#endif
