/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_codec.h"
#include "mir_json_text.h"

enum { TEMPLATE_BYTES_MAX = 1 << 20 };

typedef struct drawer {
    mir_bytes *text;
    size_t start;
    mir_json_template_form form;
    mir_error *error;
    const mir_schema_message *open[MIR_JSON_DEPTH_MAX];
    uint32_t depth;
} drawer;

static mir_status draw_message(drawer *with, const mir_schema_message *message);

static void draw_enum(drawer *with, const mir_schema_enum *enumeration)
{
    if (enumeration->value_count == 0) {
        mir_bytes_text(with->text, "\"UNKNOWN\"");
        return;
    }
    for (uint32_t i = 0; i < enumeration->value_count; i++) {
        mir_bytes_u8(with->text, i == 0 ? '"' : '|');
        mir_bytes_append(with->text, enumeration->values[i].name, enumeration->values[i].name_size);
    }
    mir_bytes_u8(with->text, '"');
}

static mir_status draw_value(drawer *with,
                             const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    switch (field->kind) {
    case MIR_KIND_BOOL: mir_bytes_text(with->text, "false"); break;
    case MIR_KIND_STRING: mir_bytes_text(with->text, "\"\""); break;
    case MIR_KIND_DOUBLE:
    case MIR_KIND_FLOAT: mir_bytes_text(with->text, "0.0"); break;
    case MIR_KIND_BYTES: mir_bytes_text(with->text, "[0, 255]"); break;
    case MIR_KIND_ENUM: draw_enum(with, field->enumeration); break;
    case MIR_KIND_MESSAGE: return draw_message(with, field->message);
    case MIR_KIND_GROUP:
        return mir_error_set(with->error, MIR_E_UNSUPPORTED, "unsupported field kind: group");
    default: mir_bytes_text(with->text, "0"); break;
    }
    return MIR_OK;
}

static mir_status draw_field(drawer *with,
                             const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    mir_bytes *text = with->text;
    mir_json_put_string(text, mir_view_of(field->json_name, field->json_name_size),
                        MIR_JSON_ESCAPE_NEEDED);
    mir_bytes_u8(text, ':');
    if (!field->is_repeated) return draw_value(with, field);
    if (with->form == MIR_JSON_TEMPLATE_DEFAULTS) {
        mir_bytes_text(text, field->is_map ? "{}" : "[]");
        return MIR_OK;
    }
    if (field->is_map) {
        const mir_schema_field *key = mir_schema_field_by_number(field->message, 1);
        mir_bytes_text(text, key->kind == MIR_KIND_STRING ? "{\"string\":" : "{\"0\":");
        field = mir_schema_field_by_number(field->message, 2);
        mir_status status = draw_value(with, field);
        mir_bytes_u8(text, '}');
        return status;
    }
    mir_bytes_u8(text, '[');
    mir_status status = draw_value(with, field);
    mir_bytes_u8(text, ']');
    return status;
}

static mir_status draw_message(drawer *with,
                               const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    bool is_cut = with->depth == MIR_JSON_DEPTH_MAX;
    for (uint32_t i = 0; i < with->depth && !is_cut; i++) is_cut = with->open[i] == message;
    mir_bytes_u8(with->text, '{');
    mir_status status = MIR_OK;
    if (!is_cut) {
        with->open[with->depth++] = message;
        for (uint32_t i = 0; i < message->field_count && status == MIR_OK; i++) {
            if (i != 0) mir_bytes_u8(with->text, ',');
            status = draw_field(with, &message->fields[i]);
            if (status != MIR_OK) return status;
            if (!mir_bytes_ok(with->text)) {
                return mir_error_set(with->error, MIR_E_NO_MEMORY, "out of memory for a template");
            }
            if (with->text->size - with->start > TEMPLATE_BYTES_MAX) {
                return mir_error_set(with->error, MIR_E_TOO_LARGE,
                                     "the template is longer than %d bytes", TEMPLATE_BYTES_MAX);
            }
        }
        with->depth--;
    }
    mir_bytes_u8(with->text, '}');
    return status;
}

mir_status mir_json_template(const mir_schema_message *message, mir_json_template_form form,
                             mir_bytes *text, mir_error *error)
{
    drawer with = {.text = text, .start = text->size, .form = form, .error = error};
    mir_status status = draw_message(&with, message);
    if (status == MIR_OK && !mir_bytes_ok(text)) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for a template");
    }
    if (status != MIR_OK) {
        text->size = with.start;
        text->failed = false;
    }
    return status;
}
