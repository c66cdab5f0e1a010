/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_hash.h"

#include <sys/auxv.h>
#include <sys/random.h>

mir_hash_key mir_hash_keyed;

void mir_hash_reseed(uint64_t seed)
{
    mir_hash_keyed.seed = seed;
}

/* Before main, so that no table is older. */
__attribute__((constructor)) static void draw_seed(void)
{
    uint64_t seed = 0;
    if (getrandom(&seed, sizeof seed, 0) == (ssize_t)sizeof seed) {
        mir_hash_reseed(seed);
        return;
    }
    /* A kernel that refuses has still given every process sixteen random bytes; they guard the
     * stack too, so not they themselves but what becomes of them. */
    const void *random = (const void *)getauxval(AT_RANDOM); // NOLINT(performance-no-int-to-ptr)
    if (random != NULL) mir_hash_reseed(XXH3_64bits(random, 16));
}
