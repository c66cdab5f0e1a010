/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_blocks.h"

#include <string.h>

mir_column_type mir_cli_blocks_type(MirApi__V1__DataType type)
{
    switch (type) {
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_INT64: return MIR_COLUMN_I64;
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_UINT64: return MIR_COLUMN_U64;
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_DOUBLE: return MIR_COLUMN_F64;
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_BOOL: return MIR_COLUMN_BOOL;
    case MIR_API__V1__DATA_TYPE__DATA_TYPE_STRING: return MIR_COLUMN_STRING;
    default: return 0;
    }
}

/* How many values the column has, whatever its type. */
static size_t values_of(const MirApi__V1__TelemetryBlock__Column *from, mir_column_type type)
{
    switch (type) {
    case MIR_COLUMN_I64: return from->n_ints;
    case MIR_COLUMN_U64: return from->n_uints;
    case MIR_COLUMN_F64: return from->n_doubles;
    case MIR_COLUMN_BOOL: return from->n_bools;
    case MIR_COLUMN_STRING: return from->n_texts;
    }
    return 0;
}

static mir_cell value_at(const MirApi__V1__TelemetryBlock__Column *from, mir_column_type type,
                         size_t i)
{
    switch (type) {
    case MIR_COLUMN_I64: return (mir_cell){.i64 = from->ints[i]};
    case MIR_COLUMN_U64: return (mir_cell){.u64 = from->uints[i]};
    case MIR_COLUMN_F64: return (mir_cell){.f64 = from->doubles[i]};
    case MIR_COLUMN_BOOL: return (mir_cell){.boolean = from->bools[i] != 0};
    case MIR_COLUMN_STRING: return (mir_cell){.string = mir_view_cstr(from->texts[i])};
    }
    return (mir_cell){0};
}

mir_status mir_cli_blocks_rows(const MirApi__V1__TelemetryBlock *block, mir_cli_row_cell *cells,
                               const size_t *places, size_t *next,
                               mir_status (*row)(void *context, int64_t time_ns, mir_error *error),
                               void *context, mir_error *error)
{
    int64_t time_ns = 0;
    if (block->n_columns > 0) memset(next, 0, block->n_columns * sizeof *next);
    for (size_t r = 0; r < block->n_times; r++) {
        time_ns = (int64_t)((uint64_t)time_ns + (uint64_t)block->times[r]);
        for (size_t i = 0; i < block->n_columns; i++) {
            const MirApi__V1__TelemetryBlock__Column *from = block->columns[i];
            mir_cli_row_cell *cell = &cells[places[i]];
            cell->present = !from->has_present ||
                            (r / 8 < from->present.len && from->present.data[r / 8] >> r % 8 & 1);
            if (!cell->present) continue;
            if (next[i] >= values_of(from, cell->type)) {
                return mir_error_set(error, MIR_E_CORRUPT,
                                     "the server's answer has fewer values than rows");
            }
            cell->value = value_at(from, cell->type, next[i]++);
        }
        const mir_status status = row(context, time_ns, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}
