/* SPDX-License-Identifier: Apache-2.0 */
/* MIR_ASSERT: states what only a mistake of ours could break. On in release too, so its condition
 * has no side effect. Bytes from a peer or a disk are answered with an error, never asserted. */
#ifndef MIR_ASSERT_H
#define MIR_ASSERT_H

_Noreturn void mir_assert_failed(const char *condition, const char *file, int line);

#define MIR_ASSERT(condition)                                                                      \
    do {                                                                                           \
        if (__builtin_expect(!(condition), 0)) mir_assert_failed(#condition, __FILE__, __LINE__);  \
    } while (0)

#endif
