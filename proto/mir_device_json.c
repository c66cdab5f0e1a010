/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_json.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_json_text.h"
#include "mir_timestamp.h"

/* ── Writing ─────────────────────────────────────────────────────────────────────────────────── */

typedef struct writer {
    mir_bytes *out;
    mir_json_style style;
    int depth;
    bool empty; /* nothing was written yet in the innermost object or array */
} writer;

static void line(writer *w)
{
    if (w->style != MIR_JSON_PRETTY) return;
    mir_bytes_u8(w->out, '\n');
    for (int i = 0; i < w->depth; i++) mir_bytes_text(w->out, "  ");
}

static void open_with(writer *w, uint8_t bracket)
{
    mir_bytes_u8(w->out, bracket);
    w->depth++;
    w->empty = true;
}

static void close_with(writer *w, uint8_t bracket)
{
    w->depth--;
    if (!w->empty) line(w);
    mir_bytes_u8(w->out, bracket);
    w->empty = false;
}

static void element(writer *w)
{
    if (!w->empty) mir_bytes_u8(w->out, ',');
    w->empty = false;
    line(w);
}

static void key(writer *w, const char *name)
{
    element(w);
    mir_json_write_string(mir_view_cstr(name), w->out);
    mir_bytes_text(w->out, w->style == MIR_JSON_PRETTY ? ": " : ":");
}

static void text_field(writer *w, const char *name, const char *value)
{
    if (value == NULL || value[0] == '\0') return;
    key(w, name);
    mir_json_write_string(mir_view_cstr(value), w->out);
}

void mir_json_write_string(mir_view text, mir_bytes *out)
{
    mir_json_put_string(out, text, MIR_JSON_ESCAPE_LENIENT);
}

void mir_json_write_number(double number, mir_bytes *out)
{
    if (isnan(number))
        mir_bytes_text(out, "\"NaN\"");
    else if (isinf(number))
        mir_bytes_text(out, number > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    else
        mir_json_put_number(out, number, false);
}

/* Every map entry that protobuf-c generates has this shape. */
typedef struct map_entry {
    ProtobufCMessage base;
    char *key;
    void *value;
} map_entry;

typedef struct sorted_entry {
    const char *key;
    void *value;
    size_t index;
} sorted_entry;

static int compare_entries(const void *a, const void *b)
{
    const sorted_entry *x = a, *y = b;
    int order = strcmp(x->key, y->key);
    return order != 0 ? order : x->index < y->index ? -1 : 1;
}

/* The entries by key; of several with one key the last. Null with a count of 0 for an empty map or
 * without memory, which fails `out`. The caller frees it. */
static sorted_entry *sort_map(void *entries, size_t *count, mir_bytes *out)
{
    size_t n = *count;
    *count = 0;
    if (n == 0) return NULL;
    sorted_entry *sorted = malloc(n * sizeof *sorted);
    if (sorted == NULL) {
        out->failed = true;
        return NULL;
    }
    map_entry **map = entries;
    for (size_t i = 0; i < n; i++)
        sorted[i] = (sorted_entry){map[i]->key == NULL ? "" : map[i]->key, map[i]->value, i};
    qsort(sorted, n, sizeof *sorted, compare_entries);
    size_t kept = 0;
    for (size_t i = 0; i < n; i++)
        if (i + 1 == n || strcmp(sorted[i].key, sorted[i + 1].key) != 0) sorted[kept++] = sorted[i];
    *count = kept;
    return sorted;
}

static void text_map_field(writer *w, const char *name, void *entries, size_t count)
{
    sorted_entry *sorted = sort_map(entries, &count, w->out);
    if (count != 0) {
        key(w, name);
        open_with(w, '{');
        for (size_t i = 0; i < count; i++) {
            key(w, sorted[i].key);
            mir_json_write_string(mir_view_cstr(sorted[i].value), w->out);
        }
        close_with(w, '}');
    }
    free(sorted);
}

static void time_field(writer *w, const char *name, const MirApi__V1__Timestamp *timestamp)
{
    char text[MIR_CLOCK_TEXT_BYTES];
    if (timestamp == NULL || mir_timestamp_format(timestamp->seconds, timestamp->nanos, text) == 0)
        return;
    text_field(w, name, text);
}

static void time_map_field(writer *w, const char *name, void *entries, size_t count)
{
    sorted_entry *sorted = sort_map(entries, &count, w->out);
    if (count != 0) {
        key(w, name);
        open_with(w, '{');
        for (size_t i = 0; i < count; i++) time_field(w, sorted[i].key, sorted[i].value);
        close_with(w, '}');
    }
    free(sorted);
}

static void write_struct(writer *w, const Google__Protobuf__Struct *object);

static void write_value(writer *w, const Google__Protobuf__Value *value)
{
    if (w->depth > MIR_DEVICE_JSON_DEPTH_MAX) {
        w->out->failed = true;
        return;
    }
    switch (value == NULL ? GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE : value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        mir_json_write_number(value->number_value, w->out);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        mir_json_write_string(mir_view_cstr(value->string_value), w->out);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE:
        mir_bytes_text(w->out, value->bool_value ? "true" : "false");
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE: write_struct(w, value->struct_value); break;
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        open_with(w, '[');
        for (size_t i = 0; value->list_value != NULL && i < value->list_value->n_values; i++) {
            element(w);
            write_value(w, value->list_value->values[i]);
        }
        close_with(w, ']');
        break;
    default: mir_bytes_text(w->out, "null"); break;
    }
}

static void write_struct(writer *w, const Google__Protobuf__Struct *object)
{
    open_with(w, '{');
    size_t count = object == NULL ? 0 : object->n_fields;
    sorted_entry *sorted = sort_map(object == NULL ? NULL : object->fields, &count, w->out);
    for (size_t i = 0; i < count; i++) {
        key(w, sorted[i].key);
        write_value(w, sorted[i].value);
        w->empty = false;
    }
    free(sorted);
    close_with(w, '}');
}

void mir_struct_write(const Google__Protobuf__Struct *object, mir_json_style style, mir_bytes *out)
{
    writer w = {.out = out, .style = style};
    write_struct(&w, object);
}

static void base64_field(writer *w, const char *name, ProtobufCBinaryData data)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    if (data.len == 0) return;
    key(w, name);
    size_t size = (data.len + 2) / 3 * 4 + 2;
    uint8_t *to = mir_bytes_reserve(w->out, size);
    if (to == NULL) return;
    *to++ = '"';
    for (size_t i = 0; i < data.len; i += 3) {
        size_t left = data.len - i;
        uint32_t group = (uint32_t)data.data[i] << 16;
        if (left > 1) group |= (uint32_t)data.data[i + 1] << 8;
        if (left > 2) group |= data.data[i + 2];
        *to++ = (uint8_t)digits[group >> 18];
        *to++ = (uint8_t)digits[group >> 12 & 63];
        *to++ = left > 1 ? (uint8_t)digits[group >> 6 & 63] : '=';
        *to++ = left > 2 ? (uint8_t)digits[group & 63] : '=';
    }
    *to = '"';
    w->out->size += size;
}

static void open_field(writer *w, const char *name)
{
    key(w, name);
    open_with(w, '{');
}

static void write_status(writer *w, const MirApi__V1__DeviceStatus *status)
{
    open_field(w, "status");
    if (status != NULL && status->n_events != 0) {
        key(w, "events");
        open_with(w, '[');
        for (size_t i = 0; i < status->n_events; i++) {
            const MirApi__V1__DeviceStatusEvent *event = status->events[i];
            element(w);
            open_with(w, '{');
            time_field(w, "firstAt", event->first_at);
            text_field(w, "message", event->message);
            text_field(w, "reason", event->reason);
            text_field(w, "type", event->type);
            close_with(w, '}');
        }
        close_with(w, ']');
    }
    if (status != NULL) time_field(w, "lastHearthbeat", status->last_hearthbeat);
    if (status != NULL && status->has_online) {
        key(w, "online");
        mir_bytes_text(w->out, status->online ? "true" : "false");
    }
    if (status != NULL && status->n_problems != 0) {
        key(w, "problems");
        open_with(w, '[');
        for (size_t i = 0; i < status->n_problems; i++) {
            const MirApi__V1__DeviceProblem *problem = status->problems[i];
            element(w);
            open_with(w, '{');
            key(w, "count");
            mir_bytes_printf(w->out, "%llu", (unsigned long long)problem->count);
            text_field(w, "kind", problem->kind);
            time_field(w, "lastAt", problem->last_at);
            text_field(w, "message", problem->message);
            close_with(w, '}');
        }
        close_with(w, ']');
    }
    open_field(w, "properties");
    const MirApi__V1__PropertiesTime *times = status == NULL ? NULL : status->properties;
    if (times != NULL) {
        time_map_field(w, "desired", times->desired, times->n_desired);
        time_map_field(w, "reported", times->reported, times->n_reported);
    }
    close_with(w, '}');
    open_field(w, "schema");
    const MirApi__V1__Schema *schema = status == NULL ? NULL : status->schema;
    if (schema != NULL) {
        if (schema->has_compressed_schema)
            base64_field(w, "compressedSchema", schema->compressed_schema);
        time_field(w, "lastSchemaFetch", schema->last_schema_fetch);
        if (schema->n_package_names != 0) {
            key(w, "packageNames");
            open_with(w, '[');
            for (size_t i = 0; i < schema->n_package_names; i++) {
                element(w);
                mir_json_write_string(mir_view_cstr(schema->package_names[i]), w->out);
            }
            close_with(w, ']');
        }
    }
    close_with(w, '}');
    if (status != NULL && status->has_version) {
        key(w, "version");
        mir_bytes_printf(w->out, "%llu", (unsigned long long)status->version);
    }
    close_with(w, '}');
}

void mir_device_json_write(const MirApi__V1__Device *device, mir_json_style style, mir_bytes *out)
{
    writer w = {.out = out, .style = style};
    open_with(&w, '{');
    text_field(&w, "apiVersion", device->api_version);
    text_field(&w, "kind", device->kind);
    open_field(&w, "meta");
    const MirApi__V1__Meta *meta = device->meta;
    if (meta != NULL) {
        text_map_field(&w, "annotations", meta->annotations, meta->n_annotations);
        text_map_field(&w, "labels", meta->labels, meta->n_labels);
        text_field(&w, "name", meta->name);
        text_field(&w, "namespace", meta->namespace_);
    }
    close_with(&w, '}');
    open_field(&w, "properties");
    const MirApi__V1__DeviceProperties *properties = device->properties;
    if (properties != NULL && properties->desired != NULL && properties->desired->n_fields != 0) {
        key(&w, "desired");
        write_struct(&w, properties->desired);
    }
    if (properties != NULL && properties->reported != NULL && properties->reported->n_fields != 0) {
        key(&w, "reported");
        write_struct(&w, properties->reported);
    }
    close_with(&w, '}');
    open_field(&w, "spec");
    if (device->spec != NULL) {
        text_field(&w, "deviceId", device->spec->device_id);
        if (device->spec->has_disabled) {
            key(&w, "disabled");
            mir_bytes_text(out, device->spec->disabled ? "true" : "false");
        }
    }
    close_with(&w, '}');
    write_status(&w, device->status);
    close_with(&w, '}');
}

static void write_json(writer *w, const json_t *value)
{
    if (w->depth > MIR_DEVICE_JSON_DEPTH_MAX) {
        w->out->failed = true;
        return;
    }
    switch (json_typeof(value)) {
    case JSON_OBJECT: {
        size_t count = json_object_size(value);
        sorted_entry *sorted = count == 0 ? NULL : malloc(count * sizeof *sorted);
        if (count != 0 && sorted == NULL) {
            w->out->failed = true;
            return;
        }
        size_t used = 0;
        const char *name;
        json_t *member;
        json_object_foreach((json_t *)value, name, member)
        {
            if (used == count) break;
            sorted[used] = (sorted_entry){name, member, used};
            used++;
        }
        if (used > 1) qsort(sorted, used, sizeof *sorted, compare_entries);
        open_with(w, '{');
        for (size_t i = 0; i < used; i++) {
            key(w, sorted[i].key);
            write_json(w, sorted[i].value);
        }
        close_with(w, '}');
        free(sorted);
        break;
    }
    case JSON_ARRAY: {
        open_with(w, '[');
        size_t index;
        json_t *member;
        json_array_foreach(value, index, member)
        {
            element(w);
            write_json(w, member);
        }
        close_with(w, ']');
        break;
    }
    case JSON_STRING:
        mir_json_write_string(mir_view_of(json_string_value(value), json_string_length(value)),
                              w->out);
        break;
    case JSON_INTEGER:
    case JSON_REAL: mir_json_write_number(json_number_value(value), w->out); break;
    case JSON_TRUE: mir_bytes_text(w->out, "true"); break;
    case JSON_FALSE: mir_bytes_text(w->out, "false"); break;
    case JSON_NULL: mir_bytes_text(w->out, "null"); break;
    }
}

void mir_json_write(const json_t *value, mir_json_style style, mir_bytes *out)
{
    writer w = {.out = out, .style = style};
    write_json(&w, value);
}

/* ── Structs ─────────────────────────────────────────────────────────────────────────────────── */

static mir_status value_to_json(const Google__Protobuf__Value *value, int depth, json_t **out);

static mir_status object_to_json(const Google__Protobuf__Struct *object, int depth, json_t **out)
{
    json_t *result = json_object();
    if (result == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; object != NULL && i < object->n_fields; i++) {
        const Google__Protobuf__Struct__FieldsEntry *field = object->fields[i];
        json_t *member = NULL;
        mir_status status = value_to_json(field->value, depth + 1, &member);
        if (status == MIR_OK &&
            json_object_set_new(result, field->key == NULL ? "" : field->key, member) != 0)
            status = MIR_E_INVALID;
        if (status != MIR_OK) {
            json_decref(result);
            return status;
        }
    }
    *out = result;
    return MIR_OK;
}

static mir_status value_to_json(const Google__Protobuf__Value *value, int depth, json_t **out)
{
    if (depth > MIR_DEVICE_JSON_DEPTH_MAX) return MIR_E_INVALID;
    json_t *result = NULL;
    switch (value == NULL ? GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE : value->kind_case) {
    case GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE:
        if (isnan(value->number_value))
            result = json_string("NaN");
        else if (isinf(value->number_value))
            result = json_string(value->number_value > 0 ? "Infinity" : "-Infinity");
        else
            result = json_real(value->number_value);
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE:
        result = json_string(value->string_value == NULL ? "" : value->string_value);
        if (result == NULL) return MIR_E_INVALID;
        break;
    case GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE: result = json_boolean(value->bool_value); break;
    case GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE:
        return object_to_json(value->struct_value, depth, out);
    case GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE:
        result = json_array();
        if (result == NULL) return MIR_E_NO_MEMORY;
        for (size_t i = 0; value->list_value != NULL && i < value->list_value->n_values; i++) {
            json_t *member = NULL;
            mir_status status = value_to_json(value->list_value->values[i], depth + 1, &member);
            if (status == MIR_OK && json_array_append_new(result, member) != 0)
                status = MIR_E_NO_MEMORY;
            if (status != MIR_OK) {
                json_decref(result);
                return status;
            }
        }
        break;
    default: result = json_null(); break;
    }
    if (result == NULL) return MIR_E_NO_MEMORY;
    *out = result;
    return MIR_OK;
}

mir_status mir_struct_to_json(const Google__Protobuf__Struct *object, json_t **value)
{
    return object_to_json(object, 0, value);
}

static mir_status value_from_json(const json_t *json, mir_arena *arena, int depth,
                                  Google__Protobuf__Value **out);

static mir_status object_from_json(const json_t *json, mir_arena *arena, int depth,
                                   Google__Protobuf__Struct **out)
{
    Google__Protobuf__Struct *object = mir_arena_alloc(arena, sizeof *object);
    size_t count = json_object_size(json);
    if (object == NULL) return MIR_E_NO_MEMORY;
    google__protobuf__struct__init(object);
    if (count != 0) {
        object->fields = mir_arena_alloc(arena, count * sizeof(void *));
        if (object->fields == NULL) return MIR_E_NO_MEMORY;
    }
    const char *name;
    json_t *member;
    json_object_foreach((json_t *)json, name, member)
    {
        Google__Protobuf__Struct__FieldsEntry *field = mir_arena_alloc(arena, sizeof *field);
        if (field == NULL) return MIR_E_NO_MEMORY;
        google__protobuf__struct__fields_entry__init(field);
        field->key = mir_arena_strdup(arena, mir_view_cstr(name));
        if (field->key == NULL) return MIR_E_NO_MEMORY;
        mir_status status = value_from_json(member, arena, depth + 1, &field->value);
        if (status != MIR_OK) return status;
        object->fields[object->n_fields++] = field;
    }
    *out = object;
    return MIR_OK;
}

static mir_status value_from_json(const json_t *json, mir_arena *arena, int depth,
                                  Google__Protobuf__Value **out)
{
    if (depth > MIR_DEVICE_JSON_DEPTH_MAX) return MIR_E_INVALID;
    Google__Protobuf__Value *value = mir_arena_alloc(arena, sizeof *value);
    if (value == NULL) return MIR_E_NO_MEMORY;
    google__protobuf__value__init(value);
    mir_status status = MIR_OK;
    switch (json_typeof(json)) {
    case JSON_OBJECT:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRUCT_VALUE;
        status = object_from_json(json, arena, depth, &value->struct_value);
        break;
    case JSON_ARRAY: {
        Google__Protobuf__ListValue *list = mir_arena_alloc(arena, sizeof *list);
        if (list == NULL) return MIR_E_NO_MEMORY;
        google__protobuf__list_value__init(list);
        size_t count = json_array_size(json);
        if (count != 0) {
            list->values = mir_arena_alloc(arena, count * sizeof(void *));
            if (list->values == NULL) return MIR_E_NO_MEMORY;
        }
        for (; list->n_values < count && status == MIR_OK; list->n_values++)
            status = value_from_json(json_array_get(json, list->n_values), arena, depth + 1,
                                     &list->values[list->n_values]);
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_LIST_VALUE;
        value->list_value = list;
        break;
    }
    case JSON_STRING:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_STRING_VALUE;
        value->string_value =
            mir_arena_strdup(arena, mir_view_of(json_string_value(json), json_string_length(json)));
        if (value->string_value == NULL) return MIR_E_NO_MEMORY;
        break;
    case JSON_INTEGER:
    case JSON_REAL:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NUMBER_VALUE;
        value->number_value = json_number_value(json);
        break;
    case JSON_TRUE:
    case JSON_FALSE:
        value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_BOOL_VALUE;
        value->bool_value = json_is_true(json);
        break;
    case JSON_NULL: value->kind_case = GOOGLE__PROTOBUF__VALUE__KIND_NULL_VALUE; break;
    }
    if (status == MIR_OK) *out = value;
    return status;
}

mir_status mir_struct_from_json(const json_t *value, mir_arena *arena,
                                Google__Protobuf__Struct **object)
{
    if (!json_is_object(value)) return MIR_E_INVALID;
    return object_from_json(value, arena, 0, object);
}

mir_status mir_struct_parse(mir_view text, mir_arena *arena, Google__Protobuf__Struct **object,
                            mir_error *error)
{
    if (text.size == 0) {
        Google__Protobuf__Struct *empty = mir_arena_alloc(arena, sizeof *empty);
        if (empty == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        google__protobuf__struct__init(empty);
        *object = empty;
        return MIR_OK;
    }
    json_t *value = NULL;
    mir_status status = mir_json_parse(text, &value, error);
    if (status != MIR_OK) return status;
    status = mir_struct_from_json(value, arena, object);
    json_decref(value);
    if (status == MIR_E_INVALID)
        return mir_error_set(error, status, "not a JSON object of at most %d levels",
                             MIR_DEVICE_JSON_DEPTH_MAX);
    if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
    return MIR_OK;
}

mir_status mir_json_parse(mir_view text, json_t **value, mir_error *error)
{
    if (text.size > MIR_DEVICE_JSON_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "JSON of %zu bytes: at most %d are read",
                             text.size, MIR_DEVICE_JSON_BYTES_MAX);
    json_error_t detail;
    json_t *parsed =
        json_loadb(text.size == 0 ? "" : (const char *)text.data, text.size,
                   JSON_REJECT_DUPLICATES | JSON_DECODE_ANY | JSON_DECODE_INT_AS_REAL, &detail);
    if (parsed == NULL)
        return mir_error_set(error, MIR_E_INVALID, "invalid JSON at line %d, column %d: %s",
                             detail.line, detail.column, detail.text);
    *value = parsed;
    return MIR_OK;
}

/* ── Reading a device ────────────────────────────────────────────────────────────────────────── */

typedef struct reader {
    mir_arena *arena;
    mir_error *error;
} reader;

static mir_status no_memory(reader *r)
{
    return mir_error_set(r->error, MIR_E_NO_MEMORY, "the device needs too much memory");
}

/* The member, or null if it is absent or null. */
static const json_t *member_of(const json_t *object, const char *name)
{
    const json_t *member = object == NULL ? NULL : json_object_get(object, name);
    return json_is_null(member) ? NULL : member;
}

static mir_status wrong_type(reader *r, const char *path, const char *name, const char *must)
{
    return mir_error_set(r->error, MIR_E_INVALID, "field %s%s%s must be %s", path,
                         path[0] == '\0' ? "" : ".", name, must);
}

/* An object whose members are all known; null if it is absent. `known` ends with a null pointer. */
static mir_status read_object(reader *r, const json_t *parent, const char *path, const char *name,
                              const char *const *known, const json_t **object)
{
    const json_t *member = name == NULL ? parent : member_of(parent, name);
    *object = member;
    if (member == NULL) return MIR_OK;
    if (!json_is_object(member))
        return name == NULL
                   ? mir_error_set(r->error, MIR_E_INVALID, "a device must be a JSON object")
                   : wrong_type(r, path, name, "an object");
    const char *key_name;
    json_t *ignored;
    json_object_foreach((json_t *)member, key_name, ignored)
    {
        size_t i = 0;
        while (known[i] != NULL && strcmp(known[i], key_name) != 0) i++;
        if (known[i] != NULL) continue;
        char list[256] = "";
        size_t used = 0;
        for (i = 0; known[i] != NULL && used < sizeof list - 40; i++)
            used += (size_t)snprintf(list + used, sizeof list - used, "%s%s", i == 0 ? "" : ", ",
                                     known[i]);
        return mir_error_set(r->error, MIR_E_INVALID,
                             "unknown field %s%s%s%s%.100s: known here are %s", path,
                             path[0] == '\0' ? "" : ".", name == NULL ? "" : name,
                             name == NULL ? "" : ".", key_name, list);
    }
    return MIR_OK;
}

static mir_status read_text(reader *r, const json_t *object, const char *path, const char *name,
                            char **text)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return MIR_OK;
    if (!json_is_string(member)) return wrong_type(r, path, name, "a string; put quotes around it");
    *text = mir_arena_strdup(r->arena,
                             mir_view_of(json_string_value(member), json_string_length(member)));
    return *text == NULL ? no_memory(r) : MIR_OK;
}

static mir_status read_bool(reader *r, const json_t *object, const char *path, const char *name,
                            protobuf_c_boolean *has, protobuf_c_boolean *value)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return MIR_OK;
    if (!json_is_boolean(member)) return wrong_type(r, path, name, "true or false");
    *has = 1;
    *value = json_is_true(member);
    return MIR_OK;
}

static mir_status parse_time(reader *r, const json_t *member, const char *path, const char *name,
                             MirApi__V1__Timestamp **time)
{
    static const int64_t year_1 = INT64_C(-62135596800); /* how some writers spell "no time" */
    int64_t seconds = 0;
    int32_t nanos = 0;
    if (!json_is_string(member) ||
        mir_timestamp_parse(mir_view_cstr(json_string_value(member)), &seconds, &nanos) != MIR_OK)
        return wrong_type(r, path, name, "a time such as \"2025-01-31T12:00:00Z\"");
    if (seconds == year_1 && nanos == 0) return MIR_OK;
    MirApi__V1__Timestamp *timestamp = mir_arena_alloc(r->arena, sizeof *timestamp);
    if (timestamp == NULL) return no_memory(r);
    mir_api__v1__timestamp__init(timestamp);
    timestamp->has_seconds = timestamp->has_nanos = 1;
    timestamp->seconds = seconds;
    timestamp->nanos = nanos;
    *time = timestamp;
    return MIR_OK;
}

static mir_status read_time(reader *r, const json_t *object, const char *path, const char *name,
                            MirApi__V1__Timestamp **time)
{
    const json_t *member = member_of(object, name);
    return member == NULL ? MIR_OK : parse_time(r, member, path, name, time);
}

/* A map whose entries have the shape of map_entry; `descriptor` is that of the entry. */
static mir_status read_map(reader *r, const json_t *object, const char *path, const char *name,
                           const ProtobufCMessageDescriptor *descriptor, bool of_times,
                           void *entries_out, size_t *count_out)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return MIR_OK;
    if (!json_is_object(member)) return wrong_type(r, path, name, "an object");
    size_t count = json_object_size(member);
    if (count == 0) return MIR_OK;
    map_entry **entries = mir_arena_alloc(r->arena, count * sizeof *entries);
    if (entries == NULL) return no_memory(r);
    char full[256];
    (void)snprintf(full, sizeof full, "%s.%s", path, name);
    size_t used = 0;
    const char *map_key;
    json_t *value;
    json_object_foreach((json_t *)member, map_key, value)
    {
        if (json_is_null(value)) continue;
        map_entry *entry = mir_arena_alloc(r->arena, descriptor->sizeof_message);
        if (entry == NULL) return no_memory(r);
        protobuf_c_message_init(descriptor, entry);
        entry->key = mir_arena_strdup(r->arena, mir_view_cstr(map_key));
        if (entry->key == NULL) return no_memory(r);
        if (of_times) {
            MirApi__V1__Timestamp *time = NULL;
            mir_status status = parse_time(r, value, full, map_key, &time);
            if (status != MIR_OK) return status;
            if (time == NULL) continue;
            entry->value = time;
        } else {
            if (!json_is_string(value))
                return wrong_type(r, full, map_key, "a string; put quotes around it");
            entry->value = mir_arena_strdup(r->arena, mir_view_cstr(json_string_value(value)));
            if (entry->value == NULL) return no_memory(r);
        }
        entries[used++] = entry;
    }
    memcpy(entries_out, &entries, sizeof entries);
    *count_out = used;
    return MIR_OK;
}

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    if (c == '+' || c == '-') return 62;
    if (c == '/' || c == '_') return 63;
    return -1;
}

static mir_status read_base64(reader *r, const json_t *object, const char *path, const char *name,
                              protobuf_c_boolean *has, ProtobufCBinaryData *data)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return MIR_OK;
    if (!json_is_string(member)) return wrong_type(r, path, name, "a base64 string");
    const uint8_t *text = (const uint8_t *)json_string_value(member);
    size_t size = json_string_length(member);
    while (size != 0 && text[size - 1] == '=') size--;
    uint8_t *bytes = mir_arena_alloc(r->arena, size / 4 * 3 + 3);
    if (bytes == NULL) return no_memory(r);
    size_t used = 0;
    uint32_t group = 0;
    unsigned bits = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(text[i]);
        if (digit < 0) return wrong_type(r, path, name, "a base64 string");
        group = group << 6 | (uint32_t)digit;
        bits += 6;
        if (bits >= 8) {
            bits -= 8;
            bytes[used++] = (uint8_t)(group >> bits);
        }
    }
    if (size % 4 == 1) return wrong_type(r, path, name, "a base64 string");
    *has = used != 0;
    *data = (ProtobufCBinaryData){used, bytes};
    return MIR_OK;
}

static mir_status read_names(reader *r, const json_t *object, const char *path, const char *name,
                             char ***names, size_t *count)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return MIR_OK;
    if (!json_is_array(member)) return wrong_type(r, path, name, "a list of strings");
    size_t size = json_array_size(member);
    if (size == 0) return MIR_OK;
    char **list = mir_arena_alloc(r->arena, size * sizeof *list);
    if (list == NULL) return no_memory(r);
    for (size_t i = 0; i < size; i++) {
        const json_t *item = json_array_get(member, i);
        if (!json_is_string(item)) return wrong_type(r, path, name, "a list of strings");
        list[i] = mir_arena_strdup(r->arena, mir_view_cstr(json_string_value(item)));
        if (list[i] == NULL) return no_memory(r);
    }
    *names = list;
    *count = size;
    return MIR_OK;
}

static mir_status read_struct(reader *r, const json_t *object, const char *path, const char *name,
                              Google__Protobuf__Struct **out)
{
    const json_t *member = member_of(object, name);
    if (member == NULL) return mir_struct_parse((mir_view){NULL, 0}, r->arena, out, r->error);
    if (!json_is_object(member)) return wrong_type(r, path, name, "an object");
    mir_status status = mir_struct_from_json(member, r->arena, out);
    if (status == MIR_E_INVALID) return wrong_type(r, path, name, "nested less deeply");
    return status == MIR_OK ? MIR_OK : no_memory(r);
}

#define TRY(call)                                                                                  \
    do {                                                                                           \
        mir_status try_status = (call);                                                            \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

static mir_status read_meta(reader *r, const json_t *root, MirApi__V1__Meta **out)
{
    static const char *const known[] = {"name", "namespace", "labels", "annotations", NULL};
    const json_t *json;
    TRY(read_object(r, root, "", "meta", known, &json));
    MirApi__V1__Meta *meta = mir_arena_alloc(r->arena, sizeof *meta);
    if (meta == NULL) return no_memory(r);
    mir_api__v1__meta__init(meta);
    TRY(read_text(r, json, "meta", "name", &meta->name));
    TRY(read_text(r, json, "meta", "namespace", &meta->namespace_));
    TRY(read_map(r, json, "meta", "labels", &mir_api__v1__meta__labels_entry__descriptor, false,
                 &meta->labels, &meta->n_labels));
    TRY(read_map(r, json, "meta", "annotations", &mir_api__v1__meta__annotations_entry__descriptor,
                 false, &meta->annotations, &meta->n_annotations));
    *out = meta;
    return MIR_OK;
}

static mir_status read_spec(reader *r, const json_t *root, MirApi__V1__DeviceSpec **out)
{
    static const char *const known[] = {"deviceId", "disabled", NULL};
    const json_t *json;
    TRY(read_object(r, root, "", "spec", known, &json));
    MirApi__V1__DeviceSpec *spec = mir_arena_alloc(r->arena, sizeof *spec);
    if (spec == NULL) return no_memory(r);
    mir_api__v1__device_spec__init(spec);
    TRY(read_text(r, json, "spec", "deviceId", &spec->device_id));
    TRY(read_bool(r, json, "spec", "disabled", &spec->has_disabled, &spec->disabled));
    *out = spec;
    return MIR_OK;
}

static mir_status read_events(reader *r, const json_t *json, MirApi__V1__DeviceStatus *status)
{
    static const char *const known[] = {"type", "reason", "message", "firstAt", NULL};
    const json_t *list = member_of(json, "events");
    if (list == NULL) return MIR_OK;
    if (!json_is_array(list)) return wrong_type(r, "status", "events", "a list of objects");
    size_t count = json_array_size(list);
    if (count == 0) return MIR_OK;
    status->events = mir_arena_alloc(r->arena, count * sizeof *status->events);
    if (status->events == NULL) return no_memory(r);
    for (size_t i = 0; i < count; i++) {
        const json_t *item = json_array_get(list, i);
        if (!json_is_object(item)) return wrong_type(r, "status", "events", "a list of objects");
        TRY(read_object(r, item, "status.events", NULL, known, &item));
        MirApi__V1__DeviceStatusEvent *event = mir_arena_alloc(r->arena, sizeof *event);
        if (event == NULL) return no_memory(r);
        mir_api__v1__device_status_event__init(event);
        TRY(read_text(r, item, "status.events", "type", &event->type));
        TRY(read_text(r, item, "status.events", "reason", &event->reason));
        TRY(read_text(r, item, "status.events", "message", &event->message));
        TRY(read_time(r, item, "status.events", "firstAt", &event->first_at));
        status->events[status->n_events++] = event;
    }
    return MIR_OK;
}

static mir_status read_status(reader *r, const json_t *root, MirApi__V1__DeviceStatus **out)
{
    /* What is shown of problems and of the version is not taken back. */
    static const char *const known[] = {"online", "lastHearthbeat", "schema",  "properties",
                                        "events", "problems",       "version", NULL};
    static const char *const known_schema[] = {"compressedSchema", "packageNames",
                                               "lastSchemaFetch", NULL};
    static const char *const known_times[] = {"desired", "reported", NULL};
    const json_t *json, *inner;
    TRY(read_object(r, root, "", "status", known, &json));
    MirApi__V1__DeviceStatus *status = mir_arena_alloc(r->arena, sizeof *status);
    MirApi__V1__Schema *schema = mir_arena_alloc(r->arena, sizeof *schema);
    MirApi__V1__PropertiesTime *times = mir_arena_alloc(r->arena, sizeof *times);
    if (status == NULL || schema == NULL || times == NULL) return no_memory(r);
    mir_api__v1__device_status__init(status);
    mir_api__v1__schema__init(schema);
    mir_api__v1__properties_time__init(times);
    status->schema = schema;
    status->properties = times;
    TRY(read_bool(r, json, "status", "online", &status->has_online, &status->online));
    TRY(read_time(r, json, "status", "lastHearthbeat", &status->last_hearthbeat));
    TRY(read_object(r, json, "status", "schema", known_schema, &inner));
    TRY(read_base64(r, inner, "status.schema", "compressedSchema", &schema->has_compressed_schema,
                    &schema->compressed_schema));
    TRY(read_names(r, inner, "status.schema", "packageNames", &schema->package_names,
                   &schema->n_package_names));
    TRY(read_time(r, inner, "status.schema", "lastSchemaFetch", &schema->last_schema_fetch));
    TRY(read_object(r, json, "status", "properties", known_times, &inner));
    TRY(read_map(r, inner, "status.properties", "desired",
                 &mir_api__v1__properties_time__desired_entry__descriptor, true, &times->desired,
                 &times->n_desired));
    TRY(read_map(r, inner, "status.properties", "reported",
                 &mir_api__v1__properties_time__reported_entry__descriptor, true, &times->reported,
                 &times->n_reported));
    TRY(read_events(r, json, status));
    *out = status;
    return MIR_OK;
}

mir_status mir_device_json_read_value(const json_t *value, mir_arena *arena,
                                      MirApi__V1__Device **device, mir_error *error)
{
    static const char *const known[] = {"apiVersion", "kind",   "meta", "spec",
                                        "properties", "status", NULL};
    static const char *const known_properties[] = {"desired", "reported", NULL};
    reader r = {arena, error};
    const json_t *root, *json;
    if (value == NULL || !json_is_object(value))
        return mir_error_set(error, MIR_E_INVALID, "a device must be a JSON object");
    TRY(read_object(&r, value, "", NULL, known, &root));
    MirApi__V1__Device *result = mir_arena_alloc(arena, sizeof *result);
    MirApi__V1__DeviceProperties *properties = mir_arena_alloc(arena, sizeof *properties);
    if (result == NULL || properties == NULL) return no_memory(&r);
    mir_api__v1__device__init(result);
    mir_api__v1__device_properties__init(properties);
    result->properties = properties;
    TRY(read_text(&r, root, "", "apiVersion", &result->api_version));
    TRY(read_text(&r, root, "", "kind", &result->kind));
    TRY(read_meta(&r, root, &result->meta));
    TRY(read_spec(&r, root, &result->spec));
    TRY(read_object(&r, root, "", "properties", known_properties, &json));
    TRY(read_struct(&r, json, "properties", "desired", &properties->desired));
    TRY(read_struct(&r, json, "properties", "reported", &properties->reported));
    TRY(read_status(&r, root, &result->status));
    *device = result;
    return MIR_OK;
}

mir_status mir_device_json_read(mir_view text, mir_arena *arena, MirApi__V1__Device **device,
                                mir_error *error)
{
    json_t *value = NULL;
    TRY(mir_json_parse(text, &value, error));
    mir_status status = mir_device_json_read_value(value, arena, device, error);
    json_decref(value);
    return status;
}

mir_status mir_device_json_read_new(mir_view text, mir_arena *arena, MirApi__V1__NewDevice **device,
                                    mir_error *error)
{
    MirApi__V1__Device *full = NULL;
    TRY(mir_device_json_read(text, arena, &full, error));
    MirApi__V1__NewDevice *result = mir_arena_alloc(arena, sizeof *result);
    if (result == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "the device needs too much memory");
    mir_api__v1__new_device__init(result);
    result->meta = full->meta;
    result->spec = full->spec;
    *device = result;
    return MIR_OK;
}
