/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_json_codec.h"
#include "mir_json_text.h"

static mir_status put_value(const json_t *value, unsigned depth, mir_bytes *text, mir_error *error);

static int compare_keys(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

static mir_status put_object(const json_t *value, unsigned depth, mir_bytes *text,
                             mir_error *error) // NOLINT(misc-no-recursion)
{
    const size_t count = json_object_size(value);
    const char **keys = malloc((count + 1) * sizeof(const char *));
    if (keys == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for JSON");
    size_t found = 0;
    const char *key;
    json_t *member;
    json_object_foreach((json_t *)(uintptr_t)value, key, member) keys[found++] = key;
    qsort(keys, found, sizeof(const char *), compare_keys);
    mir_status status = MIR_OK;
    mir_bytes_u8(text, '{');
    for (size_t i = 0; i < found && status == MIR_OK; i++) {
        if (i != 0) mir_bytes_u8(text, ',');
        mir_json_put_string(text, mir_view_cstr(keys[i]), MIR_JSON_ESCAPE_HTML);
        mir_bytes_u8(text, ':');
        status = put_value(json_object_get(value, keys[i]), depth + 1, text, error);
    }
    mir_bytes_u8(text, '}');
    free(keys);
    return status;
}

static mir_status put_value(const json_t *value, unsigned depth, mir_bytes *text,
                            mir_error *error) // NOLINT(misc-no-recursion)
{
    if (depth > MIR_JSON_DEPTH_MAX) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "JSON is nested deeper than %d levels",
                             MIR_JSON_DEPTH_MAX);
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT: return put_object(value, depth, text, error);
    case JSON_ARRAY:
        mir_bytes_u8(text, '[');
        for (size_t i = 0; i < json_array_size(value); i++) {
            if (i != 0) mir_bytes_u8(text, ',');
            mir_status status = put_value(json_array_get(value, i), depth + 1, text, error);
            if (status != MIR_OK) return status;
        }
        mir_bytes_u8(text, ']');
        break;
    case JSON_STRING:
        mir_json_put_string(text, mir_view_of(json_string_value(value), json_string_length(value)),
                            MIR_JSON_ESCAPE_HTML);
        break;
    case JSON_INTEGER: mir_json_put_number(text, (double)json_integer_value(value), false); break;
    case JSON_REAL: mir_json_put_number(text, json_real_value(value), false); break;
    case JSON_TRUE: mir_bytes_text(text, "true"); break;
    case JSON_FALSE: mir_bytes_text(text, "false"); break;
    case JSON_NULL: mir_bytes_text(text, "null"); break;
    }
    return MIR_OK;
}

mir_status mir_json_generic(const json_t *value, mir_bytes *text, mir_error *error)
{
    const size_t start = text->size;
    mir_status status = put_value(value, 0, text, error);
    if (status == MIR_OK && !mir_bytes_ok(text)) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for JSON");
    }
    if (status != MIR_OK) {
        text->size = start;
        text->failed = false;
    }
    return status;
}

mir_status mir_json_generic_text(mir_view input, mir_bytes *text, mir_error *error)
{
    if (input.size > MIR_JSON_TEXT_BYTES_MAX) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d bytes of JSON",
                             MIR_JSON_TEXT_BYTES_MAX);
    }
    json_error_t problem;
    json_t *value =
        json_loadb((const char *)input.data, input.size,
                   JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL | JSON_ALLOW_NUL, &problem);
    if (value == NULL) {
        return mir_error_set(error, MIR_E_INVALID, "(line %d:%d): syntax error: %s", problem.line,
                             problem.column, problem.text);
    }
    mir_status status = mir_json_generic(value, text, error);
    json_decref(value);
    return status;
}
