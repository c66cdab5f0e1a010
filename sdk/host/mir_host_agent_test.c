/* SPDX-License-Identifier: Apache-2.0 */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>

#include <cmocka.h>

#include "mir_clock.h"
#include "mir_host_agent.h"

static void intervals(void **state)
{
    (void)state;
    const int64_t own = 5 * MIR_NS_PER_S;
    const struct {
        uint32_t wanted_ms;
        int64_t ns;
    } cases[] = {{0, own},
                 {1, 100 * MIR_NS_PER_MS},
                 {99, 100 * MIR_NS_PER_MS},
                 {100, 100 * MIR_NS_PER_MS},
                 {2000, 2 * MIR_NS_PER_S},
                 {3600000, 3600 * MIR_NS_PER_S},
                 {3600001, 3600 * MIR_NS_PER_S},
                 {UINT32_MAX, 3600 * MIR_NS_PER_S}};
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++)
        assert_int_equal(mir_host_agent_interval(cases[i].wanted_ms, own), cases[i].ns);
}

int main(void)
{
    const struct CMUnitTest tests[] = {cmocka_unit_test(intervals)};
    return cmocka_run_group_tests(tests, NULL, NULL);
}
