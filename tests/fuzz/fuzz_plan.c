/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks a message of the fixed schema, the rest is a payload of it. */
#include "fuzz_kinds.h"
#include "mir_plan.h"
#include "mir_row.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static volatile uint8_t sink;

static void touch(mir_view view)
{
    for (size_t i = 0; i < view.size; i++) sink = (uint8_t)(sink ^ view.data[i]);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mir_plan *plans[256];
    static mir_row row;
    if (size == 0) return 0;
    const mir_schema_message *message = fuzz_message(data[0]);
    mir_plan **plan = &plans[data[0]];
    if (row.cells == NULL &&
        mir_row_init(&row, MIR_ROW_COLUMNS_MAX_DEFAULT, 256, 16384) != MIR_OK) {
        abort();
    }
    if (*plan == NULL && mir_plan_compile(fuzz_kinds(), message, plan, NULL) != MIR_OK) abort();
    mir_status status = mir_plan_decode(*plan, mir_view_of(data + 1, size - 1), 42, &row);
    if (status != MIR_OK) {
        if (status != MIR_E_INVALID && status != MIR_E_TOO_LARGE && status != MIR_E_EMPTY) abort();
        return 0;
    }
    uint32_t count = 0;
    const mir_column *columns = mir_plan_columns(*plan, &count);
    if (count != row.column_count) abort();
    for (uint32_t i = 0; i < count; i++) {
        if (mir_row_is_present(&row, i) && columns[i].type == MIR_COLUMN_STRING) {
            touch(row.cells[i].string);
        }
    }
    if (count % 64 != 0 && row.present[count / 64] >> (count % 64) != 0) abort();
    for (uint32_t i = 0; i < row.dynamic_count; i++) {
        touch(row.dynamic[i].name);
        if (row.dynamic[i].type == MIR_COLUMN_STRING) touch(row.dynamic[i].value.string);
        mir_schema_origin origin;
        if (mir_schema_origin_of(message, row.dynamic[i].name, &origin) != MIR_OK) abort();
    }
    return 0;
}
