/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_row.h"

#include <stdlib.h>

mir_status mir_row_init(mir_row *row, uint32_t column_count_max, uint32_t dynamic_count_max,
                        size_t scratch_bytes_max)
{
    size_t word_count = ((size_t)column_count_max + 63) / 64;
    uint64_t *present = calloc(word_count + 1, sizeof *present);
    mir_cell *cells = calloc((size_t)column_count_max + 2, sizeof *cells);
    mir_dynamic_cell *dynamic = malloc(((size_t)dynamic_count_max + 1) * sizeof *dynamic);
    uint8_t *scratch = malloc(scratch_bytes_max + 1);
    if (present == NULL || cells == NULL || dynamic == NULL || scratch == NULL) {
        free(present);
        free(cells);
        free(dynamic);
        free(scratch);
        return MIR_E_NO_MEMORY;
    }
    *row = (mir_row){
        .column_count_max = column_count_max,
        .present = present,
        .cells = cells,
        .dynamic = dynamic,
        .dynamic_count_max = dynamic_count_max,
        .scratch = scratch,
        .scratch_bytes_max = scratch_bytes_max,
    };
    return MIR_OK;
}

void mir_row_fini(mir_row *row)
{
    free(row->present);
    free(row->cells);
    free(row->dynamic);
    free(row->scratch);
    *row = (mir_row){0};
}
