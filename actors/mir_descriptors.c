/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_descriptors.h"

#include <string.h>

#include "mir_json_codec.h"

static bool has_label(const mir_descriptor *of, const mir_label_filter *filter)
{
    for (uint32_t i = 0; i < of->label_count; i++)
        if (mir_view_eq_cstr(of->labels[i].key, filter->key))
            return mir_view_eq_cstr(of->labels[i].value, filter->value);
    return false;
}

/* Views into the schema have no end of their own; clients are given C strings. */
static mir_status terminate(mir_descriptor *of, mir_arena *arena)
{
    mir_schema_label *copies = mir_arena_alloc(arena, (of->label_count + 1) * sizeof *copies);
    if (copies == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < of->label_count; i++) {
        const char *key = mir_arena_strdup(arena, of->labels[i].key);
        const char *value = mir_arena_strdup(arena, of->labels[i].value);
        if (key == NULL || value == NULL) return MIR_E_NO_MEMORY;
        copies[i] = (mir_schema_label){mir_view_cstr(key), mir_view_cstr(value)};
    }
    of->labels = copies;
    return MIR_OK;
}

static mir_status set_template(mir_descriptor *of, mir_arena *arena)
{
    mir_bytes text = {0};
    mir_error error = {{0}};
    mir_status status = mir_json_template(of->message, MIR_JSON_TEMPLATE_SAMPLES, &text, &error);
    char **place = status == MIR_OK ? &of->template : &of->error;
    if (status != MIR_E_NO_MEMORY)
        *place = mir_arena_strdup(arena, status == MIR_OK ? mir_bytes_as_view(&text)
                                                          : mir_view_cstr(error.text));
    mir_bytes_free(&text);
    return *place == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

mir_status mir_descriptors_of(const mir_schema *schema, mir_schema_message_type type,
                              const mir_label_filter *filters, size_t filter_count,
                              mir_arena *arena, mir_descriptor **descriptors, size_t *count)
{
    uint32_t message_count = 0;
    const mir_schema_message *const *messages = mir_schema_list(schema, type, &message_count);
    mir_descriptor *made = mir_arena_alloc(arena, ((size_t)message_count + 1) * sizeof *made);
    if (made == NULL) return MIR_E_NO_MEMORY;
    size_t used = 0;
    for (uint32_t i = 0; i < message_count; i++) {
        mir_descriptor *of = &made[used];
        *of = (mir_descriptor){.message = messages[i]};
        mir_status status = mir_schema_labels(messages[i], arena, &of->labels, &of->label_count);
        if (status != MIR_OK) return status;
        bool wanted = true;
        for (size_t f = 0; f < filter_count && wanted; f++) wanted = has_label(of, &filters[f]);
        if (!wanted) continue;
        status = terminate(of, arena);
        if (status == MIR_OK) status = set_template(of, arena);
        if (status != MIR_OK) return status;
        used++;
    }
    *descriptors = made;
    *count = used;
    return MIR_OK;
}
