/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tsan: tells ThreadSanitizer what it cannot see, in sources that are built without it because
 * they use the inline assembly of Concurrency Kit. Nothing in other builds. */
#ifndef MIR_TSAN_H
#define MIR_TSAN_H

#ifdef MIR_TSAN
#include <sanitizer/tsan_interface.h>
#define MIR_TSAN_RELEASE(address) __tsan_release((void *)(address))
#define MIR_TSAN_ACQUIRE(address) __tsan_acquire((void *)(address))
#else
#define MIR_TSAN_RELEASE(address) ((void)(address))
#define MIR_TSAN_ACQUIRE(address) ((void)(address))
#endif

#endif
