/* SPDX-License-Identifier: Apache-2.0 */
/* mir_hash: XXH3 of a view, for tables in memory and checksums of stored blocks (both fixed by the
 * xxHash specification, so stored values stay valid). Not for content that an attacker could
 * collide on purpose across devices: schemas are named by SHA-256. */
#ifndef MIR_HASH_H
#define MIR_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mir_view.h"

static inline uint64_t mir_hash_bytes(const void *data, size_t size)
{
    return XXH3_64bits(data, size);
}

static inline uint64_t mir_hash_view(mir_view view)
{
    return XXH3_64bits(view.data, view.size);
}

#endif
