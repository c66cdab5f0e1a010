/* SPDX-License-Identifier: Apache-2.0 */
/* Any bytes as a descriptor set; whatever loads is then used in every way. */
#include <stdlib.h>

#include "mir_json_codec.h"
#include "mir_plan.h"
#include "mir_schema.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void use_message(const mir_schema *schema, const mir_schema_message *message)
{
    mir_arena arena = {.bytes_max = 8 << 20};
    const mir_schema_label *labels = NULL;
    uint32_t count = 0;
    if (mir_schema_labels(message, &arena, &labels, &count) == MIR_OK) {
        for (uint32_t i = 1; i < count; i++) {
            mir_view a = labels[i - 1].key, b = labels[i].key;
            if (mir_view_eq(a, b)) abort();
        }
    }
    mir_arena_free(&arena);
    mir_plan *plan = NULL;
    if (mir_plan_compile(schema, message, &plan, NULL) == MIR_OK) {
        const mir_column *columns = mir_plan_columns(plan, &count);
        if (count > MIR_PLAN_COLUMNS_MAX) abort();
        for (uint32_t i = 0; i < count && i < 64; i++) {
            /* What a plan names leads back to a field. */
            mir_schema_origin origin;
            mir_view name = mir_view_of(columns[i].name, columns[i].name_size);
            if (mir_schema_origin_of(message, name, &origin) != MIR_OK) abort();
        }
        mir_plan_unref(plan);
    }
    mir_bytes text = {.size_max = 8 << 20};
    if (mir_json_template(message, MIR_JSON_TEMPLATE_SAMPLES, &text, NULL) != MIR_OK) {
        text.size = 0;
    }
    text.size = 0;
    if (mir_json_from_proto(message, (mir_view){NULL, 0}, MIR_JSON_DEFAULTS_EMITTED, &text, NULL) ==
        MIR_OK) {
        mir_bytes payload = {.size_max = 8 << 20};
        if (mir_json_to_proto(message, mir_bytes_as_view(&text), &payload, NULL) != MIR_OK) {
            payload.size = 0;
        }
        mir_bytes_free(&payload);
    }
    mir_bytes_free(&text);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mir_schema *schema = NULL, *again = NULL;
    mir_error error;
    if (mir_schema_load(mir_view_of(data, size), NULL, &schema, &error) != MIR_OK) return 0;
    uint32_t count = 0;
    const mir_schema_message *const *messages = mir_schema_messages(schema, &count);
    for (uint32_t i = 0; i < count && i < 16; i++) {
        const mir_schema_message *found = NULL;
        mir_view name = mir_view_of(messages[i]->name, messages[i]->name_size);
        if (mir_schema_find(schema, name, &found, NULL) != MIR_OK || found != messages[i]) abort();
        use_message(schema, messages[i]);
    }
    if (mir_schema_load(mir_schema_set_bytes(schema), NULL, &again, &error) != MIR_OK) abort();
    if (!mir_schema_equal(schema, again)) abort();
    mir_schema_unref(schema);
    mir_schema_unref(again);
    return 0;
}
