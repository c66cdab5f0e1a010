/* SPDX-License-Identifier: Apache-2.0 */
/* A message of streamed telemetry of any bytes, as a client reads it and writes it down: the first byte
 * picks the form of the rows. */
#include <stdint.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_cli_blocks.h"

typedef struct writer {
    mir_cli_rows_format format;
    const mir_cli_row_cell *cells;
    size_t count;
    mir_view device_id;
    mir_bytes out;
} writer;

static mir_status write_row(void *context, int64_t time_ns, mir_error *error)
{
    writer *to = context;
    const mir_cli_row row = {time_ns, to->device_id, MIR_VIEW_LITERAL("m.v1.T"), to->cells,
                             to->count};
    const mir_status status = mir_cli_rows_write(to->format, &row, &to->out, error);
    MIR_ASSERT(mir_bytes_ok(&to->out));
    to->out.size = 0;
    return status;
}

static void read_block(writer *to, const MirApi__V1__TelemetryBlock *block)
{
    mir_cli_row_cell *cells = calloc(block->n_columns + 1, sizeof *cells);
    size_t *places = calloc(block->n_columns + 1, sizeof *places);
    size_t *next = calloc(block->n_columns + 1, sizeof *next);
    mir_error error = {{0}};
    bool known = cells != NULL && places != NULL && next != NULL;
    for (size_t i = 0; i < block->n_columns && known; i++) {
        const MirApi__V1__TelemetryBlock__Column *column = block->columns[i];
        places[i] = i;
        cells[i].name = mir_view_cstr(column->name != NULL ? column->name : "");
        cells[i].type = mir_cli_blocks_type(column->datatype);
        known = cells[i].type != 0;
    }
    to->cells = cells;
    to->count = block->n_columns;
    to->device_id = mir_view_cstr(block->device_id != NULL ? block->device_id : "");
    if (known && mir_cli_blocks_rows(block, cells, places, next, write_row, to, &error) != MIR_OK) {
        MIR_ASSERT(error.text[0] != '\0');
    }
    free(cells);
    free(places);
    free(next);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    MirApi__V1__QueryTelemetryResponse *answer =
        mir_api__v1__query_telemetry_response__unpack(NULL, size - 1, data + 1);
    if (answer == NULL) return 0;
    writer to = {.format = (mir_cli_rows_format)(data[0] % 3)};
    if (answer->response_case == MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK &&
        answer->ok != NULL) {
        for (size_t i = 0; i < answer->ok->n_blocks; i++) read_block(&to, answer->ok->blocks[i]);
    }
    mir_bytes_free(&to.out);
    mir_api__v1__query_telemetry_response__free_unpacked(answer, NULL);
    return 0;
}
