/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_yaml.h"

#include <errno.h>
#include <math.h>
#include <stdlib.h>
#include <yaml.h>

typedef struct reader {
    yaml_document_t *document;
    size_t nodes;
    mir_error *error;
} reader;

static json_t *refuse(const reader *from, const yaml_node_t *node, const char *text)
{
    (void)mir_error_set(from->error, MIR_E_INVALID, "line %zu: %s", node->start_mark.line + 1,
                        text);
    return NULL;
}

static json_t *plain_scalar(const char *text, size_t size)
{
    if (size == 0 || strcmp(text, "~") == 0 || strcmp(text, "null") == 0) return json_null();
    if (strcmp(text, "true") == 0) return json_true();
    if (strcmp(text, "false") == 0) return json_false();
    const char *digits = text[0] == '-' || text[0] == '+' ? text + 1 : text;
    size_t whole = strspn(digits, "0123456789");
    if (whole > 0 && digits[whole] == '\0' && (whole == 1 || digits[0] != '0')) {
        errno = 0;
        long long integer = strtoll(text, NULL, 10);
        if (errno == 0) return json_integer(integer);
    }
    if ((whole > 0 || digits[0] == '.') && strspn(digits, "0123456789.eE+-") == strlen(digits) &&
        strpbrk(digits, "0123456789") != NULL && strpbrk(digits, ".eE") != NULL) {
        char *end = NULL;
        double number = strtod(text, &end);
        if (*end == '\0' && isfinite(number)) return json_real(number);
    }
    return json_stringn(text, size);
}

static json_t *read_node(reader *from, const yaml_node_t *node, int depth);

static json_t *read_mapping(reader *from, const yaml_node_t *node, int depth)
{
    json_t *object = json_object();
    for (const yaml_node_pair_t *pair = node->data.mapping.pairs.start;
         object != NULL && pair < node->data.mapping.pairs.top; pair++) {
        const yaml_node_t *key = yaml_document_get_node(from->document, pair->key);
        const yaml_node_t *value = yaml_document_get_node(from->document, pair->value);
        json_t *made = NULL;
        if (key == NULL || value == NULL || key->type != YAML_SCALAR_NODE)
            (void)refuse(from, node, "a key must be text");
        else if (json_object_get(object, (const char *)key->data.scalar.value) != NULL)
            (void)refuse(from, key, "a key that was there before");
        else if (strlen((const char *)key->data.scalar.value) != key->data.scalar.length)
            (void)refuse(from, key, "a key with a zero byte");
        else
            made = read_node(from, value, depth + 1);
        if (made == NULL ||
            json_object_set_new(object, (const char *)key->data.scalar.value, made) != 0) {
            json_decref(object);
            return NULL;
        }
    }
    return object;
}

/* Recursion is bounded by MIR_YAML_DEPTH_MAX. */
static json_t *read_node(reader *from, const yaml_node_t *node, int depth)
{
    if (depth > MIR_YAML_DEPTH_MAX) return refuse(from, node, "nested too deeply");
    if (++from->nodes > MIR_YAML_NODES_MAX) return refuse(from, node, "too many values");
    if (node->type == YAML_MAPPING_NODE) return read_mapping(from, node, depth);
    if (node->type == YAML_SEQUENCE_NODE) {
        json_t *array = json_array();
        for (const yaml_node_item_t *item = node->data.sequence.items.start;
             array != NULL && item < node->data.sequence.items.top; item++) {
            const yaml_node_t *below = yaml_document_get_node(from->document, *item);
            json_t *made = below != NULL ? read_node(from, below, depth + 1) : NULL;
            if (made == NULL || json_array_append_new(array, made) != 0) {
                json_decref(array);
                return NULL;
            }
        }
        return array;
    }
    if (node->type != YAML_SCALAR_NODE) return json_null();
    const char *text = (const char *)node->data.scalar.value;
    size_t size = node->data.scalar.length;
    if (strlen(text) != size) return refuse(from, node, "a text with a zero byte");
    json_t *made = node->data.scalar.style == YAML_PLAIN_SCALAR_STYLE ? plain_scalar(text, size)
                                                                      : json_stringn(text, size);
    return made != NULL ? made : refuse(from, node, "text that is not UTF-8");
}

mir_status mir_cli_yaml_read(mir_view text, json_t **documents, mir_error *error)
{
    if (text.size > MIR_YAML_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d MiB", MIR_YAML_BYTES_MAX >> 20);
    yaml_parser_t parser;
    if (!yaml_parser_initialize(&parser)) return MIR_E_NO_MEMORY;
    yaml_parser_set_input_string(&parser, text.size > 0 ? text.data : (const uint8_t *)"",
                                 text.size);
    json_t *all = json_array();
    mir_status status = all != NULL ? MIR_OK : MIR_E_NO_MEMORY;
    while (status == MIR_OK) {
        yaml_document_t document;
        if (!yaml_parser_load(&parser, &document)) {
            status =
                mir_error_set(error, MIR_E_INVALID, "line %zu: %s", parser.problem_mark.line + 1,
                              parser.problem != NULL ? parser.problem : "not YAML");
            break;
        }
        const yaml_node_t *root = yaml_document_get_root_node(&document);
        bool end = root == NULL;
        if (!end) {
            reader from = {.document = &document, .error = error};
            (void)mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
            json_t *value = read_node(&from, root, 0);
            if (value == NULL)
                status = MIR_E_INVALID;
            else if (json_is_null(value))
                json_decref(value);
            else if (json_array_append_new(all, value) != 0)
                status = MIR_E_NO_MEMORY;
        }
        yaml_document_delete(&document);
        if (end) break;
    }
    yaml_parser_delete(&parser);
    if (status != MIR_OK) {
        json_decref(all);
        return status;
    }
    *documents = all;
    return MIR_OK;
}

/* Whether plain text would be read back as the same string, here and by readers of YAML 1.1. */
static bool safe_plain(const char *text)
{
    static const char *const words[] = {"y",   "n",    "yes",   "no",  "on",
                                        "off", "true", "false", "null"};
    json_t *as = plain_scalar(text, strlen(text));
    bool safe = json_is_string(as);
    json_decref(as);
    for (size_t i = 0; i < sizeof words / sizeof words[0]; i++)
        if (strcasecmp(text, words[i]) == 0) safe = false;
    /* Numbers of other bases, times of day, dates: what begins with a digit or a sign. */
    if (strchr("0123456789+-.=<", text[0]) != NULL &&
        text[strspn(text, "0123456789_:+-.xeEoTZ ")] == '\0')
        safe = false;
    return safe;
}

static bool emit_scalar(yaml_emitter_t *emitter, const char *text, bool plain)
{
    yaml_event_t event;
    /* Quoted strings stay on one line, plain ones are checked by the emitter itself. */
    yaml_scalar_style_t style = plain ? YAML_PLAIN_SCALAR_STYLE : YAML_DOUBLE_QUOTED_SCALAR_STYLE;
    return yaml_scalar_event_initialize(&event, NULL, NULL, (const yaml_char_t *)text,
                                        (int)strlen(text), 1, 1, style) &&
           yaml_emitter_emit(emitter, &event);
}

static bool emit_value(yaml_emitter_t *emitter, const json_t *value, int depth)
{
    yaml_event_t event;
    char text[64];
    if (depth > MIR_YAML_DEPTH_MAX + 8) return false;
    switch (json_typeof(value)) {
    case JSON_OBJECT: {
        bool ok = yaml_mapping_start_event_initialize(&event, NULL, NULL, 1,
                                                      json_object_size(value) == 0
                                                          ? YAML_FLOW_MAPPING_STYLE
                                                          : YAML_BLOCK_MAPPING_STYLE) &&
                  yaml_emitter_emit(emitter, &event);
        const char *key;
        json_t *below;
        json_object_foreach((json_t *)(uintptr_t)value, key, below)
        {
            ok = ok && emit_scalar(emitter, key, safe_plain(key)) &&
                 emit_value(emitter, below, depth + 1);
        }
        return ok && yaml_mapping_end_event_initialize(&event) &&
               yaml_emitter_emit(emitter, &event);
    }
    case JSON_ARRAY: {
        bool ok = yaml_sequence_start_event_initialize(&event, NULL, NULL, 1,
                                                       json_array_size(value) == 0
                                                           ? YAML_FLOW_SEQUENCE_STYLE
                                                           : YAML_BLOCK_SEQUENCE_STYLE) &&
                  yaml_emitter_emit(emitter, &event);
        for (size_t i = 0; ok && i < json_array_size(value); i++)
            ok = emit_value(emitter, json_array_get(value, i), depth + 1);
        return ok && yaml_sequence_end_event_initialize(&event) &&
               yaml_emitter_emit(emitter, &event);
    }
    case JSON_STRING:
        return emit_scalar(emitter, json_string_value(value), safe_plain(json_string_value(value)));
    case JSON_INTEGER:
        (void)snprintf(text, sizeof text, "%lld", (long long)json_integer_value(value));
        return emit_scalar(emitter, text, true);
    case JSON_REAL:
        for (int digits = 15; digits <= 17; digits++) {
            (void)snprintf(text, sizeof text, "%.*g", digits, json_real_value(value));
            if (strtod(text, NULL) == json_real_value(value)) break;
        }
        return emit_scalar(emitter, text, true);
    case JSON_TRUE: return emit_scalar(emitter, "true", true);
    case JSON_FALSE: return emit_scalar(emitter, "false", true);
    case JSON_NULL: return emit_scalar(emitter, "null", true);
    }
    return false;
}

static int take_output(void *to, unsigned char *buffer, size_t size)
{
    mir_bytes_append(to, buffer, size);
    return mir_bytes_ok(to);
}

mir_status mir_cli_yaml_write(const json_t *value, bool separate, mir_bytes *out)
{
    yaml_emitter_t emitter;
    yaml_event_t event;
    if (!yaml_emitter_initialize(&emitter)) return MIR_E_NO_MEMORY;
    yaml_emitter_set_output(&emitter, take_output, out);
    yaml_emitter_set_unicode(&emitter, 1);
    yaml_emitter_set_indent(&emitter, 2);
    yaml_emitter_set_width(&emitter, -1);
    bool ok = yaml_stream_start_event_initialize(&event, YAML_UTF8_ENCODING) &&
              yaml_emitter_emit(&emitter, &event) &&
              yaml_document_start_event_initialize(&event, NULL, NULL, NULL, !separate) &&
              yaml_emitter_emit(&emitter, &event) && emit_value(&emitter, value, 0) &&
              yaml_document_end_event_initialize(&event, 1) &&
              yaml_emitter_emit(&emitter, &event) && yaml_stream_end_event_initialize(&event) &&
              yaml_emitter_emit(&emitter, &event);
    yaml_emitter_delete(&emitter);
    return ok ? MIR_OK : MIR_E_INVALID;
}
