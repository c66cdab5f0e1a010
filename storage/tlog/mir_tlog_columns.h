/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_columns: the columns that an answer or a part of it has, each with a number.
 *
 * Why        Chunks and memtables name their columns each for itself; what is found in several of
 *            them belongs together by name and type.
 * Ownership  Names are pointed to and must outlive the set.
 * Affinity   One thread at a time.
 * Errors     MIR_E_NO_MEMORY. */
#ifndef MIR_TLOG_COLUMNS_H
#define MIR_TLOG_COLUMNS_H

#include "mir_row.h"
#include "mir_status.h"

typedef struct mir_tlog_columns {
    mir_column *columns; /* by number */
    uint32_t count;
    uint32_t capacity;
    uint32_t *slots; /* number + 1, by hash of name and type */
    uint32_t slot_count;
} mir_tlog_columns;

/* The number of the column; a new one is added. */
MIR_MUST_CHECK mir_status mir_tlog_columns_number(mir_tlog_columns *set, mir_view name,
                                                  mir_column_type type, uint32_t *number);
/* By name, then type. */
int mir_tlog_column_compare(const mir_column *left, const mir_column *right);
static inline mir_view mir_tlog_column_name(const mir_column *column)
{
    return mir_view_of(column->name, column->name_size);
}
/* Empty again; keeps its memory. */
void mir_tlog_columns_reset(mir_tlog_columns *set);
void mir_tlog_columns_free(mir_tlog_columns *set);

#endif
