/* SPDX-License-Identifier: Apache-2.0 */
/* Arbitrary rows on their way to a client: streamed as columns in messages of any size they come back as
 * they were, and a table of them has the same bytes whichever way it is written. */
#include "fuzz_segment.h"
#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_blocks.h"
#include "mir_tlm_stream.h"
#include "mir_tlm_table.h"

enum { ROWS_MAX = 700, PARTS = 3 };

typedef MirApi__V1__QueryTelemetryResponse answer;

static const mir_view device = MIR_VIEW_LITERAL("a device");

/* In the order of the names, as the log gives them. */
static uint32_t columns_of(const mir_tlog_gather *gather, mir_tlog_rows_column *columns)
{
    uint32_t count = 0;
    for (uint32_t c = 0; c < FUZZ_COLUMNS; c++) {
        for (uint32_t i = 0; i < gather->column_count; i++) {
            const mir_tlog_gather_column *from = &gather->columns[i];
            if (fuzz_column_of(from->name, from->type) != c) continue;
            columns[count++] = (mir_tlog_rows_column){
                .column = fuzz_columns[c], .values = from->values, .present = from->present};
        }
    }
    return count;
}

/* ---- As columns ---- */

typedef struct reading {
    const mir_tlog_rows *rows;
    const mir_cli_row_cell *cells;
    const size_t *places;
    size_t count;
    uint32_t at;
} reading;

static mir_status row_check(void *context, int64_t time_ns, mir_error *error)
{
    reading *r = context;
    const uint32_t row = r->at++;
    (void)error;
    MIR_ASSERT(row < r->rows->row_count && time_ns == r->rows->times_ns[row]);
    for (uint32_t c = 0; c < r->rows->column_count; c++) {
        const mir_tlog_rows_column *column = &r->rows->columns[c];
        const mir_cli_row_cell *cell = NULL;
        for (size_t i = 0; i < r->count; i++) {
            const mir_cli_row_cell *one = &r->cells[i];
            if (one->type == column->column.type &&
                mir_view_eq_cstr(one->name, column->column.name))
                cell = one;
        }
        const bool present = column->present[row] != 0;
        /* A block has the columns alone that have a value in it. */
        MIR_ASSERT(cell == NULL ? !present : cell->present == present);
        if (!present) continue;
        const uint64_t value = column->values[row];
        switch (cell->type) {
        case MIR_COLUMN_BOOL: MIR_ASSERT(cell->value.boolean == (value != 0)); break;
        case MIR_COLUMN_STRING: {
            const mir_view text = r->rows->texts[value];
            /* As it may be shown: these are UTF-8 but for one. */
            uint8_t clean[256];
            const size_t size = mir_tlm_text_bytes(text);
            MIR_ASSERT(size <= sizeof clean);
            (void)mir_tlm_text_put(clean, text, size);
            MIR_ASSERT(mir_view_eq(cell->value.string, mir_view_of(clean, size)));
            break;
        }
        default: MIR_ASSERT(memcmp(&cell->value, &value, sizeof value) == 0);
        }
    }
    return MIR_OK;
}

static void block_check(reading *r, const MirApi__V1__TelemetryBlock *block)
{
    mir_cli_row_cell cells[FUZZ_COLUMNS] = {{.present = false}};
    size_t places[FUZZ_COLUMNS];
    size_t next[FUZZ_COLUMNS];
    mir_error error = {{0}};
    MIR_ASSERT(block->n_columns <= FUZZ_COLUMNS && mir_view_eq_cstr(device, block->device_id));
    for (size_t i = 0; i < block->n_columns; i++) {
        places[i] = i;
        cells[i].name = mir_view_cstr(block->columns[i]->name);
        cells[i].type = mir_cli_blocks_type(block->columns[i]->datatype);
    }
    r->cells = cells;
    r->count = block->n_columns;
    MIR_ASSERT(mir_cli_blocks_rows(block, cells, places, next, row_check, r, &error) == MIR_OK);
}

static void stream_check(const mir_tlog_rows *rows, size_t message_bytes_max)
{
    mir_letters letters = {0};
    mir_tlm_stream stream = {.letters = &letters,
                             .subject = MIR_VIEW_LITERAL("_INBOX.x"),
                             .device_ids = &device,
                             .message_bytes_max = message_bytes_max,
                             .bytes_max = MIR_TLM_STREAM_BYTES_MAX};
    reading r = {.rows = rows};
    const mir_status status = mir_tlm_stream_take(&stream, rows);
    /* A row may be larger than a message. */
    MIR_ASSERT(status == MIR_OK || status == MIR_E_TOO_LARGE);
    if (status == MIR_OK) {
        MIR_ASSERT(mir_tlm_stream_end(&stream) == MIR_OK && stream.rows == rows->row_count);
        for (const mir_letter *letter = letters.first; letter != NULL; letter = letter->next) {
            const mir_view payload = letter->message.payload;
            MIR_ASSERT(payload.size <= message_bytes_max);
            answer *one =
                mir_api__v1__query_telemetry_response__unpack(NULL, payload.size, payload.data);
            MIR_ASSERT(one != NULL && one->ok != NULL);
            for (size_t i = 0; i < one->ok->n_blocks; i++) block_check(&r, one->ok->blocks[i]);
            mir_api__v1__query_telemetry_response__free_unpacked(one, NULL);
        }
        MIR_ASSERT(r.at == rows->row_count);
    }
    mir_letters_discard(&letters);
    mir_tlm_stream_free(&stream);
}

/* ---- As a table ---- */

static mir_tlm_table table_begin(void)
{
    return (mir_tlm_table){.device_ids = &device, .bytes_max = 64 << 20};
}

static void columns_tell(const mir_tlog_sink *sink, const mir_tlog_rows *rows)
{
    mir_column columns[FUZZ_COLUMNS];
    for (uint32_t c = 0; c < rows->column_count; c++) columns[c] = rows->columns[c].column;
    MIR_ASSERT(sink->columns(sink->context, columns, rows->column_count) == MIR_OK);
}

/* Rows `from` to `end` - 1 as cells. */
static mir_tlog_batch batch_of(const mir_tlog_rows *rows, uint32_t from, uint32_t end)
{
    static mir_cell cells[ROWS_MAX * FUZZ_COLUMNS];
    static uint8_t present[ROWS_MAX * FUZZ_COLUMNS];
    static uint32_t devices[ROWS_MAX];
    size_t at = 0;
    for (uint32_t r = from; r < end; r++) {
        for (uint32_t c = 0; c < rows->column_count; c++, at++) {
            const mir_tlog_rows_column *column = &rows->columns[c];
            present[at] = column->present[r];
            cells[at] = (mir_cell){.u64 = 0};
            if (present[at] == 0) continue;
            switch (column->column.type) {
            case MIR_COLUMN_STRING: cells[at].string = rows->texts[column->values[r]]; break;
            case MIR_COLUMN_BOOL: cells[at].boolean = column->values[r] != 0; break;
            default: memcpy(&cells[at], &column->values[r], sizeof column->values[r]);
            }
        }
    }
    return (mir_tlog_batch){.row_count = end - from,
                            .column_count = rows->column_count,
                            .times_ns = rows->times_ns + from,
                            .devices = devices,
                            .cells = cells,
                            .present = present};
}

static void table_place(const mir_tlog_sink *sink, const mir_tlog_rows *rows)
{
    uint32_t ends[PARTS];
    size_t sizes[PARTS] = {0};
    size_t size = 0;
    for (uint32_t i = 0; i < PARTS; i++) ends[i] = rows->row_count * (i + 1) / PARTS;
    MIR_ASSERT(sink->measure(sink->context, rows, ends, PARTS, sizes) == MIR_OK);
    for (uint32_t i = 0; i < PARTS; i++) size += sizes[i];
    uint8_t *at;
    MIR_ASSERT(sink->reserve(sink->context, 0, rows->row_count, size, &at) == MIR_OK);
    for (uint32_t i = 0, from = 0; i < PARTS; from = ends[i++]) {
        const uint8_t *end = at + sizes[i];
        const mir_tlog_batch batch = batch_of(rows, from, ends[i]);
        MIR_ASSERT(sink->place(sink->context, &batch, &at, end) == MIR_OK && at == end);
    }
}

static void tables_check(const mir_tlog_rows *rows)
{
    const mir_tlog_query_info info = {0};
    mir_tlm_table tables[PARTS];
    mir_view packed[PARTS];
    bool texts = false;
    for (uint32_t c = 0; c < rows->column_count; c++)
        texts = texts || rows->columns[c].column.type == MIR_COLUMN_STRING;
    const uint32_t ways = texts ? 2 : 3;
    for (uint32_t way = 0; way < ways; way++) {
        tables[way] = table_begin();
        const mir_tlog_sink sink = mir_tlm_table_sink(&tables[way]);
        const mir_tlog_batch batch = batch_of(rows, 0, rows->row_count);
        columns_tell(&sink, rows);
        if (way == 0)
            MIR_ASSERT(sink.rows(sink.context, &batch) == MIR_OK);
        else if (way == 1)
            MIR_ASSERT(sink.run(sink.context, rows) == MIR_OK);
        else
            table_place(&sink, rows);
        MIR_ASSERT(mir_tlm_table_end(&tables[way], &info, &packed[way]) == MIR_OK);
        MIR_ASSERT(mir_view_eq(packed[way], packed[0]));
    }
    answer *one =
        mir_api__v1__query_telemetry_response__unpack(NULL, packed[0].size, packed[0].data);
    MIR_ASSERT(one != NULL && one->ok != NULL && one->ok->n_rows == rows->row_count);
    mir_api__v1__query_telemetry_response__free_unpacked(one, NULL);
    for (uint32_t way = 0; way < ways; way++) mir_tlm_table_free(&tables[way]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    fuzz_input in = {data, size};
    mir_tlog_rows_column columns[FUZZ_COLUMNS];
    mir_tlog_gather gather;
    const size_t message_bytes_max = 60 + fuzz_number(&in) % 20000;
    MIR_ASSERT(mir_tlog_gather_init(&gather) == MIR_OK);
    fuzz_rows_make(&in, &gather, ROWS_MAX);
    const mir_tlog_rows rows = {.row_count = gather.row_count,
                                .column_count = columns_of(&gather, columns),
                                .times_ns = gather.times,
                                .columns = columns,
                                .texts = gather.texts};
    if (rows.row_count > 0) {
        stream_check(&rows, message_bytes_max);
        tables_check(&rows);
    }
    mir_tlog_gather_fini(&gather);
    return 0;
}
