/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of telemetry of any bytes, with their functions, groups and cursors: what is taken is within
 * the log's bounds, what is not comes with a text. */
#include <stdint.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_tlm_ask.h"
#include "mir_tlm_table.h"

enum { DEVICES = 3 };

/* A cursor that was given is understood, and means the row that it was of. */
static void cursor_comes_back(const mir_tlog_query_spec *spec)
{
    char text[MIR_TLM_CURSOR_BYTES_MAX];
    if (spec->after_device.size > MIR_TLOG_DEVICE_BYTES_MAX) return;
    mir_tlm_cursor(text, spec->after_ns, spec->after_device);
    MirApi__V1__QueryTelemetryRequest request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    request.cursor = text;
    mir_tlog_query_spec again = {0};
    mir_tlm_groups groups;
    mir_arena arena = {.bytes_max = 1 << 20};
    mir_error error;
    MIR_ASSERT(mir_tlm_ask(&request, NULL, 0, &arena, &again, &groups, &error) == MIR_OK);
    MIR_ASSERT(again.after && again.after_ns == spec->after_ns &&
               mir_view_eq(again.after_device, spec->after_device));
    mir_arena_free(&arena);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    MirApi__V1__QueryTelemetryRequest *request =
        mir_api__v1__query_telemetry_request__unpack(NULL, size, data);
    if (request == NULL) return 0;
    static char id[DEVICES][4] = {"a", "b", "c"};
    static char plant[] = "plant";
    static char one[] = "1";
    MirStore__V1__DeviceRecord records[DEVICES];
    MirStore__V1__DeviceRecord *list[DEVICES];
    MirStore__V1__DeviceRecord__LabelsEntry label =
        MIR_STORE__V1__DEVICE_RECORD__LABELS_ENTRY__INIT;
    MirStore__V1__DeviceRecord__LabelsEntry *labels[1] = {&label};
    label.key = plant;
    label.value = one;
    for (uint32_t i = 0; i < DEVICES; i++) {
        mir_store__v1__device_record__init(&records[i]);
        records[i].device_id = id[i];
        if (i > 0) records[i].namespace_ = plant;
        if (i > 1) {
            records[i].labels = labels;
            records[i].n_labels = 1;
        }
        list[i] = &records[i];
    }
    mir_arena arena = {.bytes_max = 8 << 20};
    mir_tlog_query_spec spec = {.device_count = DEVICES, .window_ns = size % 2};
    mir_tlm_groups groups;
    mir_error error = {{0}};
    const mir_status status = mir_tlm_ask(request, list, DEVICES, &arena, &spec, &groups, &error);
    if (status == MIR_OK) {
        MIR_ASSERT((spec.functions & ~(uint32_t)MIR_TLOG_FUNCTIONS) == 0);
        MIR_ASSERT(spec.percentile_count <= MIR_TLOG_PERCENTILES_MAX);
        for (uint32_t i = 0; i < spec.percentile_count; i++) {
            MIR_ASSERT(spec.percentiles[i] >= 0 && spec.percentiles[i] <= 100);
        }
        for (uint32_t i = 0; spec.groups != NULL && i < DEVICES; i++) {
            MIR_ASSERT(spec.groups[i] < spec.group_count);
        }
        if (spec.after) cursor_comes_back(&spec);
    } else {
        MIR_ASSERT(error.text[0] != '\0');
    }
    mir_arena_free(&arena);
    mir_api__v1__query_telemetry_request__free_unpacked(request, NULL);
    return 0;
}
