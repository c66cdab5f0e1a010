/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_normal.h"

#include <stdlib.h>

#include "mir_json_known.h"
#include "mir_json_text.h"

/* Any JSON that a property may hold. Integers are read as doubles: those that would lose digits are
 * strings in the form in which they are stored. */
static mir_status parse(mir_view text, json_t **value, mir_error *error)
{
    json_error_t problem;
    *value = json_loadb(text.size == 0 ? "" : (const char *)text.data, text.size,
                        JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &problem);
    if (*value != NULL) return MIR_OK;
    enum json_error_code code = json_error_code(&problem);
    if (code == json_error_out_of_memory)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for JSON");
    if (code == json_error_null_character || code == json_error_null_byte_in_key)
        return mir_error_set(error, MIR_E_INVALID,
                             "(line %d:%d): a property cannot contain a zero byte", problem.line,
                             problem.column);
    return mir_error_set(error, MIR_E_INVALID, "(line %d:%d): syntax error: %s", problem.line,
                         problem.column, problem.text);
}

static mir_status parse_object(const mir_schema_message *message, mir_view text, json_t **value,
                               mir_error *error)
{
    mir_status status = parse(text, value, error);
    if (status != MIR_OK || json_is_object(*value)) return status;
    json_decref(*value);
    *value = NULL;
    return mir_error_set(error, MIR_E_INVALID, "%s has no fields: a property is a JSON object",
                         message->name);
}

/* ── Choosing what was given ─────────────────────────────────────────────────────────────────── */

static bool is_plain(const mir_schema_message *message)
{
    return message != NULL && mir_json_known_of(message) == MIR_KNOWN_NONE;
}

/* Null is a value of these; of all others it is none. */
static bool takes_null(const mir_schema_field *field)
{
    if (field->is_repeated) return false;
    if (field->message != NULL) return mir_json_known_of(field->message) == MIR_KNOWN_VALUE;
    return mir_json_is_null_enum(field);
}

static json_t *choose(const json_t *given, const json_t *full, const mir_schema_message *message);

/* A new reference to the part of `full`, which has every field, that `given` names. */
static json_t *choose_value(const json_t *given, const json_t *full,
                            const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    if (is_plain(message) && json_is_object(given) && json_is_object(full))
        return choose(given, full, message);
    return json_incref((json_t *)(uintptr_t)full);
}

static json_t *choose_list(const json_t *given, const json_t *full,
                           const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    json_t *list = json_array();
    for (size_t i = 0; list != NULL && i < json_array_size(full); i++) {
        json_t *element =
            choose_value(json_array_get(given, i), json_array_get(full, i), field->message);
        if (json_array_append_new(list, element) == 0) continue;
        json_decref(list);
        list = NULL;
    }
    return list;
}

static json_t *choose_map(const json_t *given, const json_t *full,
                          const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    json_t *map = json_object();
    const char *key;
    json_t *entry;
    json_object_foreach((json_t *)(uintptr_t)full, key, entry)
    {
        if (map == NULL) break;
        json_t *chosen = choose_value(json_object_get(given, key), entry, value->message);
        if (json_object_set_new(map, key, chosen) == 0) continue;
        json_decref(map);
        map = NULL;
    }
    return map;
}

/* Null without memory: the text was read as this message before. */
static json_t *choose(const json_t *given, const json_t *full,
                      const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    json_t *object = json_object();
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)given, key, value)
    {
        const mir_schema_field *field = mir_schema_field_by_json_name(message, mir_view_cstr(key));
        if (object == NULL || field == NULL) break;
        const json_t *found = json_object_get(full, field->json_name);
        json_t *chosen;
        if (found == NULL || (json_is_null(value) && !takes_null(field))) {
            chosen = json_null();
        } else if (field->is_map) {
            chosen = choose_map(value, found, field);
        } else if (field->is_repeated) {
            chosen = choose_list(value, found, field);
        } else {
            chosen = choose_value(value, found, field->message);
        }
        if (json_object_set_new(object, field->json_name, chosen) == 0) continue;
        json_decref(object);
        object = NULL;
    }
    return object;
}

/* ── Normalizing ─────────────────────────────────────────────────────────────────────────────── */

static mir_status full_object(const mir_schema_message *message, mir_view payload,
                              mir_json_defaults defaults, json_t **full, mir_error *error)
{
    mir_bytes text = {0};
    mir_status status = mir_json_from_proto(message, payload, defaults, &text, error);
    if (status == MIR_OK) status = parse_object(message, mir_bytes_as_view(&text), full, error);
    mir_bytes_free(&text);
    return status;
}

mir_status mir_json_normal_of_proto(const mir_schema_message *message, mir_view payload,
                                    mir_json_defaults defaults, mir_bytes *normal, mir_error *error)
{
    json_t *full = NULL;
    mir_status status = full_object(message, payload, defaults, &full, error);
    if (status != MIR_OK) return status;
    status = mir_json_generic(full, normal, error);
    json_decref(full);
    return status;
}

mir_status mir_json_normalize(const mir_schema_message *message, mir_view text, mir_bytes *normal,
                              mir_bytes *payload, mir_error *error)
{
    mir_bytes own = {0};
    if (payload == NULL) payload = &own;
    const size_t start = payload->size;
    json_t *given = NULL, *full = NULL;
    mir_status status = mir_json_to_proto(message, text, payload, error);
    if (status == MIR_OK) status = parse_object(message, text, &given, error);
    if (status == MIR_OK) {
        mir_view packed = mir_view_from(mir_bytes_as_view(payload), start);
        status = full_object(message, packed, MIR_JSON_DEFAULTS_EMITTED, &full, error);
    }
    if (status == MIR_OK) {
        json_t *chosen = choose_value(given, full, message);
        status = chosen == NULL ? mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for JSON")
                                : mir_json_generic(chosen, normal, error);
        json_decref(chosen);
    }
    json_decref(given);
    json_decref(full);
    if (status != MIR_OK) payload->size = start;
    mir_bytes_free(&own);
    return status;
}

/* ── Defaults ────────────────────────────────────────────────────────────────────────────────── */

enum { DEFAULT_BYTES_MAX = 1 << 20 };

typedef struct drawer {
    mir_bytes text;
    const mir_schema_message *open[MIR_JSON_DEPTH_MAX];
    uint32_t depth;
} drawer;

static bool is_open(const drawer *with, const mir_schema_message *message)
{
    for (uint32_t i = 0; i < with->depth; i++)
        if (with->open[i] == message) return true;
    return with->depth == MIR_JSON_DEPTH_MAX;
}

static void draw(drawer *with, const mir_schema_message *message);

static bool has_default(const drawer *with, const mir_schema_field *field)
{
    if (field->oneof >= 0 || field->kind == MIR_KIND_GROUP) return false;
    if (field->is_repeated) return true;
    if (field->kind == MIR_KIND_ENUM) return field->enumeration->value_count != 0;
    return field->message == NULL || (is_plain(field->message) && !is_open(with, field->message));
}

static void draw_value(drawer *with, const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    mir_bytes *text = &with->text;
    if (field->is_repeated) {
        mir_bytes_text(text, field->is_map ? "{}" : "[]");
        return;
    }
    switch (field->kind) {
    case MIR_KIND_BOOL: mir_bytes_text(text, "false"); break;
    case MIR_KIND_STRING:
    case MIR_KIND_BYTES: mir_bytes_text(text, "\"\""); break;
    case MIR_KIND_MESSAGE: draw(with, field->message); break;
    case MIR_KIND_ENUM: mir_bytes_printf(text, "%d", field->enumeration->values[0].number); break;
    default: mir_bytes_u8(text, '0'); break;
    }
}

static void draw(drawer *with, const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    bool is_first = true;
    with->open[with->depth++] = message;
    mir_bytes_u8(&with->text, '{');
    for (uint32_t i = 0; i < message->field_count && mir_bytes_ok(&with->text); i++) {
        const mir_schema_field *field = &message->fields[i];
        if (!has_default(with, field)) continue;
        if (!is_first) mir_bytes_u8(&with->text, ',');
        is_first = false;
        mir_json_put_string(&with->text, mir_view_of(field->json_name, field->json_name_size),
                            MIR_JSON_ESCAPE_NEEDED);
        mir_bytes_u8(&with->text, ':');
        draw_value(with, field);
    }
    mir_bytes_u8(&with->text, '}');
    with->depth--;
}

mir_status mir_json_normal_default(const mir_schema_message *message, mir_bytes *normal,
                                   mir_error *error)
{
    /* A type that holds itself in several ways has as many defaults as ways: the size ends that. */
    drawer with = {.text = {.size_max = DEFAULT_BYTES_MAX}};
    draw(&with, message);
    mir_status status =
        mir_bytes_ok(&with.text)
            ? mir_json_normalize(message, mir_bytes_as_view(&with.text), normal, NULL, error)
            : mir_error_set(error, MIR_E_TOO_LARGE, "the defaults of %s need too much memory",
                            message->name);
    mir_bytes_free(&with.text);
    return status;
}

/* ── Merging ─────────────────────────────────────────────────────────────────────────────────── */

static mir_status merge(json_t *object, const json_t *patch,
                        unsigned depth) // NOLINT(misc-no-recursion)
{
    if (depth > MIR_JSON_DEPTH_MAX) return MIR_E_TOO_LARGE;
    const char *key;
    json_t *value;
    json_object_foreach((json_t *)(uintptr_t)patch, key, value)
    {
        if (json_is_null(value)) {
            (void)json_object_del(object, key); /* fails when there is none */
            continue;
        }
        if (!json_is_object(value)) {
            if (json_object_set_new(object, key, json_deep_copy(value)) != 0)
                return MIR_E_NO_MEMORY;
            continue;
        }
        json_t *into = json_object_get(object, key);
        if (!json_is_object(into)) {
            into = json_object();
            if (json_object_set_new(object, key, into) != 0) return MIR_E_NO_MEMORY;
        }
        mir_status status = merge(into, value, depth + 1);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

mir_status mir_json_merge(json_t *object, const json_t *patch)
{
    return merge(object, patch, 0);
}

/* ── Comparing ───────────────────────────────────────────────────────────────────────────────── */

/* The value of a number or of a string that is nothing but one. */
static bool number_of(const json_t *value, double *number)
{
    if (json_is_number(value)) {
        *number = json_number_value(value);
        return true;
    }
    const char *text = json_string_value(value);
    if (text == NULL || !(text[0] == '-' || (text[0] >= '0' && text[0] <= '9'))) return false;
    char *end = NULL;
    *number = strtod(text, &end);
    return *end == '\0';
}

static bool same_scalar(const json_t *a, const json_t *b)
{
    if (json_is_string(a) && json_is_string(b))
        return strcmp(json_string_value(a), json_string_value(b)) == 0;
    double left, right;
    if (number_of(a, &left) && number_of(b, &right)) return left == right;
    return json_typeof(a) == json_typeof(b) && !json_is_number(a) && !json_is_string(a);
}

static bool compare(const json_t *whole, const json_t *part, bool covers,
                    unsigned depth) // NOLINT(misc-no-recursion)
{
    if (whole == NULL || part == NULL || depth > 2 * MIR_JSON_DEPTH_MAX) return false;
    if (json_is_object(whole) && json_is_object(part)) {
        if (!covers && json_object_size(whole) != json_object_size(part)) return false;
        const char *key;
        json_t *value;
        json_object_foreach((json_t *)(uintptr_t)part, key, value)
        {
            if (!compare(json_object_get(whole, key), value, covers, depth + 1)) return false;
        }
        return true;
    }
    if (json_is_array(whole) && json_is_array(part)) {
        if (json_array_size(whole) != json_array_size(part)) return false;
        for (size_t i = 0; i < json_array_size(whole); i++)
            if (!compare(json_array_get(whole, i), json_array_get(part, i), covers, depth + 1))
                return false;
        return true;
    }
    if (json_is_object(whole) || json_is_object(part) || json_is_array(whole) ||
        json_is_array(part)) {
        return false;
    }
    return same_scalar(whole, part);
}

bool mir_json_same(const json_t *a, const json_t *b)
{
    return compare(a, b, false, 0);
}

bool mir_json_covers(const json_t *whole, const json_t *part)
{
    return compare(whole, part, true, 0);
}

static mir_status said(const mir_schema_message *message, mir_view text, mir_bytes *canonical)
{
    mir_bytes payload = {0};
    mir_status status = mir_json_to_proto(message, text, &payload, NULL);
    if (status == MIR_OK)
        status = mir_json_from_proto(message, mir_bytes_as_view(&payload),
                                     MIR_JSON_DEFAULTS_EMITTED, canonical, NULL);
    mir_bytes_free(&payload);
    return status;
}

mir_status mir_json_same_message(const mir_schema_message *message, mir_view a, mir_view b,
                                 bool *same)
{
    mir_bytes left = {0}, right = {0};
    mir_status status = said(message, a, &left);
    if (status == MIR_OK) status = said(message, b, &right);
    if (status == MIR_OK) *same = mir_view_eq(mir_bytes_as_view(&left), mir_bytes_as_view(&right));
    mir_bytes_free(&left);
    mir_bytes_free(&right);
    if (status == MIR_OK || status == MIR_E_NO_MEMORY) return status;
    json_t *first = NULL, *second = NULL;
    *same = false;
    status = parse(a, &first, NULL);
    if (status == MIR_OK) status = parse(b, &second, NULL);
    if (status == MIR_OK) *same = mir_json_same(first, second);
    json_decref(first);
    json_decref(second);
    return status == MIR_E_NO_MEMORY ? status : MIR_OK;
}
