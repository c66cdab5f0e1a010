/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "mir_hash.h"

/* What was written with one way of hashing is verified with another one. */
static void all_ways_of_hashing_agree(void **state)
{
    (void)state;
    static uint8_t bytes[70000];
    uint64_t random = 1;
    for (size_t i = 0; i < sizeof bytes; i++) {
        random = random * UINT64_C(6364136223846793005) + 1442695040888963407;
        bytes[i] = (uint8_t)(random >> 56);
    }
    for (size_t size = 0; size < sizeof bytes; size += size < 3000 ? 1 : 997) {
        const uint64_t here = XXH3_64bits(bytes + size % 7, size - size % 7);
        assert_int_equal(mir_hash_long(bytes + size % 7, size - size % 7), here);
        assert_int_equal(mir_hash_fixed(bytes + size % 7, size - size % 7), here);
    }
    /* As the specification has it. */
    assert_int_equal(mir_hash_fixed("", 0), UINT64_C(0x2d06800538d394c2));
    assert_int_equal(mir_hash_long("", 0), UINT64_C(0x2d06800538d394c2));
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(all_ways_of_hashing_agree)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
