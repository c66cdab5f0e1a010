/* SPDX-License-Identifier: Apache-2.0 */
/* A message of streamed telemetry of any bytes, as a client reads it and writes it down: the first byte
 * picks the form of the rows. What is written in a form that can be read comes back as it was. */
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <unistd.h>

#include "mir_assert.h"
#include "mir_cli_blocks.h"
#include "mir_cli_records.h"

enum { READ_MAX = 4 }; /* rows of an input that are read back */

typedef struct writer {
    mir_cli_rows_format format;
    const mir_cli_row_cell *cells;
    size_t count;
    mir_view device_id;
    mir_bytes out;
    uint32_t read;
} writer;

/* As it is written, without the letter that line protocol puts behind integers. */
static void same_value(const mir_cli_row_cell *cell, const mir_cli_text_value *value, bool line)
{
    mir_bytes text = {0};
    mir_view got = value->text;
    mir_cli_rows_value(cell, &text);
    const bool letter = line && (cell->type == MIR_COLUMN_I64 || cell->type == MIR_COLUMN_U64);
    MIR_ASSERT(mir_bytes_ok(&text) && value->form != MIR_TEXT_ABSENT);
    MIR_ASSERT(!line || (cell->type == MIR_COLUMN_STRING) == (value->form == MIR_TEXT_QUOTED));
    if (letter) {
        MIR_ASSERT(got.size > 0 &&
                   (got.data[got.size - 1] == 'i' || got.data[got.size - 1] == 'u'));
        got.size--;
    }
    MIR_ASSERT(mir_view_eq(got, mir_bytes_as_view(&text)));
    mir_bytes_free(&text);
}

/* Two rows, one behind the other, so that the end of the first one is found. */
static void read_back(writer *to, const mir_cli_row *row)
{
    const bool line = to->format == MIR_ROWS_LINE;
    mir_cli_records *records = NULL;
    mir_cli_record record;
    mir_error error = {{0}};
    mir_bytes head = {0};
    char path[64];
    for (size_t i = 0; i < row->count; i++)
        if (row->cells[i].name.size == 0) return; /* of nothing that is stored */
    if (to->format == MIR_ROWS_JSONL || to->out.size == 0 || row->count > 100 ||
        to->read++ >= READ_MAX)
        return;
    if (!line) mir_cli_rows_header(row->cells, row->count, &head);
    mir_bytes_view(&head, mir_bytes_as_view(&to->out));
    mir_bytes_view(&head, mir_bytes_as_view(&to->out));
    MIR_ASSERT(mir_bytes_ok(&head));
    const int fd = memfd_create("rows", MFD_CLOEXEC);
    if (fd < 0 || write(fd, head.data, head.size) != (ssize_t)head.size) abort();
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    MIR_ASSERT(mir_cli_records_open(path, line ? MIR_RECORDS_LINE : MIR_RECORDS_CSV, 1, &records,
                                    &error) == MIR_OK);
    for (int round = 0; round < 2; round++) {
        MIR_ASSERT(mir_cli_records_next(records, &record, &error) == MIR_OK);
        MIR_ASSERT(record.cause == NULL && record.has_time && record.time_ns == row->time_ns);
        MIR_ASSERT(mir_view_eq(record.device_id, row->device_id));
        MIR_ASSERT(mir_view_eq(record.measurement, row->measurement));
        size_t at = line ? 0 : 3; /* behind time, device and measurement */
        for (size_t i = 0; i < row->count; i++) {
            const mir_cli_row_cell *cell = &row->cells[i];
            if (line && !cell->present) continue;
            MIR_ASSERT(at < record.count && mir_view_eq(record.columns[at], cell->name));
            if (cell->present)
                same_value(cell, &record.values[at], line);
            else
                MIR_ASSERT(record.values[at].form == MIR_TEXT_ABSENT);
            at++;
        }
        MIR_ASSERT(at == record.count);
    }
    MIR_ASSERT(mir_cli_records_next(records, &record, &error) == MIR_E_EMPTY);
    mir_cli_records_close(records);
    (void)close(fd);
    mir_bytes_free(&head);
}

static mir_status write_row(void *context, int64_t time_ns, mir_error *error)
{
    writer *to = context;
    const mir_cli_row row = {time_ns, to->device_id, MIR_VIEW_LITERAL("m.v1.T"), to->cells,
                             to->count};
    const mir_status status = mir_cli_rows_write(to->format, &row, &to->out, error);
    MIR_ASSERT(mir_bytes_ok(&to->out));
    if (status == MIR_OK) read_back(to, &row);
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
