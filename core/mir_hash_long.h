/* SPDX-License-Identifier: Apache-2.0 */
/* mir_hash_long: mir_hash_fixed of many bytes, by the widest instructions that the processor has.
 *
 * Why        Checksums of what is read from the disk are much of what a query does. Code that is
 *            compiled in place has the instructions of the oldest processor; the library has several
 *            ways and chooses.
 * Affinity   Any thread.
 * Errors     None.
 * Source     XXH3, 64 bits. */
#ifndef MIR_HASH_LONG_H
#define MIR_HASH_LONG_H

#include <stddef.h>
#include <stdint.h>

enum { MIR_HASH_LONG_BYTES = 512 }; /* fewer are hashed sooner in place */

uint64_t mir_hash_long(const void *data, size_t size);

#endif
