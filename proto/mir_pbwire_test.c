/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "mir_pbwire.h"

/* Behind the varint bytes may be written over, but none behind those that the longest one has. */
static void check(uint64_t value)
{
    uint8_t wanted[16];
    uint8_t made[16];
    memset(wanted, 0xa5, sizeof wanted);
    memset(made, 0xa5, sizeof made);
    const size_t size = (size_t)(mir_pbwire_write_varint(wanted, value) - wanted);
    assert_int_equal(mir_pbwire_varint_size(value), size);
    assert_int_equal(mir_pbwire_write_varint_wide(made, value) - made, size);
    assert_memory_equal(made, wanted, size);
    assert_memory_equal(made + MIR_PBWIRE_VARINT_BYTES_MAX, wanted + MIR_PBWIRE_VARINT_BYTES_MAX,
                        sizeof made - MIR_PBWIRE_VARINT_BYTES_MAX);
    uint64_t read = 0;
    mir_pbwire wire = mir_pbwire_of(mir_view_of(made, size));
    assert_true(mir_pbwire_varint(&wire, &read));
    assert_true(read == value && !mir_pbwire_more(&wire));
}

static void test_wide_varints(void **state)
{
    (void)state;
    check(0);
    check(UINT64_MAX);
    for (unsigned bit = 0; bit < 64; bit++) {
        const uint64_t power = UINT64_C(1) << bit;
        check(power);
        check(power - 1);
        check(power | 1);
        check(~power);
        check(0 - power);
    }
    uint64_t random = 1;
    for (int i = 0; i < 200000; i++) {
        random = random * UINT64_C(6364136223846793005) + UINT64_C(1442695040888963407);
        check(random >> random % 64);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(test_wide_varints),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
