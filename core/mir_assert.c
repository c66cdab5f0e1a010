/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_assert.h"

#include <stdio.h>
#include <stdlib.h>

_Noreturn void mir_assert_failed(const char *condition, const char *file, int line)
{
    (void)fprintf(stderr, "mir: assertion failed: %s (%s:%d)\n", condition, file, line);
    abort();
}
