/* SPDX-License-Identifier: Apache-2.0 */
/* mir_row: one decoded telemetry message, as the decode plan hands it to storage.
 *
 * Why        Fields that are known when a plan is compiled are columns with a fixed place, so that
 *            nothing is named or looked up per message. What only a message itself can name (list
 *            elements, map entries) travels beside them as dynamic cells with their own name.
 * Ownership  The row owns its arrays and is used over and over by its owner. String cells and
 *            dynamic names point into the decoded payload or into the row's scratch: they are valid
 *            until the payload goes or the row is filled again, whichever is first.
 * Affinity   One thread at a time.
 * Units      time_ns: nanoseconds since 1970-01-01 UTC.
 * Bounds     Fixed by mir_row_init; filling a row allocates nothing.
 * Errors     mir_row_init: MIR_E_NO_MEMORY. */
#ifndef MIR_ROW_H
#define MIR_ROW_H

#include "mir_status.h"
#include "mir_view.h"

typedef enum mir_column_type {
    MIR_COLUMN_I64 = 1,
    MIR_COLUMN_U64,
    MIR_COLUMN_F64,
    MIR_COLUMN_BOOL,
    MIR_COLUMN_STRING,
} mir_column_type;

/* `name` is terminated by a zero byte that name_size does not count. */
typedef struct mir_column {
    const char *name;
    uint32_t name_size;
    mir_column_type type;
} mir_column;

typedef union mir_cell {
    int64_t i64;
    uint64_t u64;
    double f64;
    bool boolean;
    mir_view string;
} mir_cell;

/* A list element or a map entry: `f_0`, `f_key`, `f_0.sub`, ... A message that carries the same map
 * key twice yields the later entry only; a name that equals that of a column or of another dynamic
 * cell by coincidence of underscores is not resolved here: the later cell should win. */
typedef struct mir_dynamic_cell {
    mir_view name;
    mir_column_type type;
    mir_cell value;
} mir_dynamic_cell;

enum {
    MIR_ROW_COLUMNS_MAX_DEFAULT = 1024,
    MIR_ROW_DYNAMIC_MAX_DEFAULT = 4096,
    MIR_ROW_SCRATCH_BYTES_MAX_DEFAULT = 1 << 20,
};

typedef struct mir_row {
    int64_t time_ns;
    uint32_t column_count;
    uint32_t column_count_max;
    uint64_t *present; /* bit i of word i / 64: cells[i] has a value */
    mir_cell *cells;   /* the two behind the last column are the decoder's own */
    mir_dynamic_cell *dynamic;
    uint32_t dynamic_count;
    uint32_t dynamic_count_max;
    uint8_t *scratch; /* dynamic names and texts made from the payload */
    size_t scratch_size;
    size_t scratch_bytes_max;
} mir_row;

MIR_MUST_CHECK mir_status mir_row_init(mir_row *row, uint32_t column_count_max,
                                       uint32_t dynamic_count_max, size_t scratch_bytes_max);
void mir_row_fini(mir_row *row);

static inline bool mir_row_is_present(const mir_row *row, uint32_t column)
{
    return (row->present[column / 64] >> (column % 64) & 1) != 0;
}

static inline void mir_row_set_present(mir_row *row, uint32_t column)
{
    row->present[column / 64] |= UINT64_C(1) << (column % 64);
}

#endif
