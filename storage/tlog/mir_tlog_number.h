/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_number: values as the 64 bits that they are kept in.
 *
 * Why        Columns, statistics, rollups and answers have values of any type as bits; what these come
 *            to must be the same wherever it is worked out.
 * Ownership  None: values.
 * Affinity   Any thread.
 * Errors     None. */
#ifndef MIR_TLOG_NUMBER_H
#define MIR_TLOG_NUMBER_H

#include <stdbool.h>
#include <string.h>

#include "mir_row.h"

static inline double mir_tlog_double_of(uint64_t bits)
{
    double value;
    memcpy(&value, &bits, sizeof value);
    return value;
}

static inline uint64_t mir_tlog_bits_of(double value)
{
    uint64_t bits;
    memcpy(&bits, &value, sizeof bits);
    return bits;
}

static inline bool mir_tlog_is_number(mir_column_type type)
{
    return type == MIR_COLUMN_I64 || type == MIR_COLUMN_U64 || type == MIR_COLUMN_F64;
}

static inline double mir_tlog_number_of(mir_column_type type, uint64_t bits)
{
    if (type == MIR_COLUMN_I64) return (double)(int64_t)bits;
    return type == MIR_COLUMN_F64 ? mir_tlog_double_of(bits) : (double)bits;
}

/* NaN is neither less nor greater than anything. */
static inline bool mir_tlog_less(mir_column_type type, uint64_t a, uint64_t b)
{
    if (type == MIR_COLUMN_I64) return (int64_t)a < (int64_t)b;
    return type == MIR_COLUMN_F64 ? mir_tlog_double_of(a) < mir_tlog_double_of(b) : a < b;
}

#endif
