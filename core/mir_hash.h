/* SPDX-License-Identifier: Apache-2.0 */
/* mir_hash: XXH3 of bytes, in two kinds that must not be mixed up.
 *
 * Why        Tables are filled with names that clients choose (devices, subjects, subscriptions):
 *            with a hash that anybody can compute they could all be put into one chain. What is
 *            stored, on the other hand, must have the same hash for ever.
 *              mir_hash_bytes, mir_hash_view  for tables in memory; keyed by a number that is drawn
 *                                             anew by each process
 *              mir_hash_fixed                 fixed by the xxHash specification: checksums on disk,
 *                                             the partition of a device
 * Affinity   Any thread. mir_hash_reseed: before there are threads and before the first table.
 * Errors     None. Neither kind names content: schemas are named by SHA-256.
 * Source     XXH3, 64 bits. */
#ifndef MIR_HASH_H
#define MIR_HASH_H

#define XXH_INLINE_ALL
#include <xxhash.h>

#include "mir_hash_long.h"
#include "mir_view.h"

/* Alone in its line: it is read for every message. */
typedef struct mir_hash_key {
    _Alignas(64) uint64_t seed;
} mir_hash_key;

extern mir_hash_key mir_hash_keyed;

/* For tests that have to take the same way each time. */
void mir_hash_reseed(uint64_t seed);

static inline uint64_t mir_hash_bytes(const void *data, size_t size)
{
    return XXH3_64bits_withSeed(data, size, mir_hash_keyed.seed);
}

static inline uint64_t mir_hash_view(mir_view view)
{
    return mir_hash_bytes(view.data, view.size);
}

static inline uint64_t mir_hash_fixed(const void *data, size_t size)
{
    return size < MIR_HASH_LONG_BYTES ? XXH3_64bits(data, size) : mir_hash_long(data, size);
}

#endif
