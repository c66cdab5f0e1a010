/* SPDX-License-Identifier: Apache-2.0 */
/* Read by clang-tidy before each source, and by nothing else.
 *
 * The analyzer looks at one source at a time, so it cannot know that what mir_error_set returns is
 * the failure it was given, and goes on as if `return mir_error_set(...)` had meant success. */
#include "mir_status.h"

#define mir_error_set(error, failure, ...)                                                         \
    ((void)(mir_error_set)((error), (failure), __VA_ARGS__), (failure))
#define mir_error_os(error, errno_value, ...)                                                      \
    __extension__({                                                                                \
        mir_status lint_failure = (mir_error_os)((error), (errno_value), __VA_ARGS__);             \
        if (lint_failure == MIR_OK) __builtin_unreachable();                                       \
        lint_failure;                                                                              \
    })
