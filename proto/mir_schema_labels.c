/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "mir_schema.h"

enum { DEPTH_MAX = 32, VISITS_MAX = 65536 };

typedef struct walk {
    mir_arena *arena;
    mir_schema_label *labels;
    uint32_t count;
    uint32_t capacity;
    uint32_t visits;
    const mir_schema_message *open[DEPTH_MAX];
    char path[MIR_SCHEMA_PATH_BYTES_MAX];
} walk;

/* prefix + path + name + dot + rest */
static mir_status add_label(walk *at, const char *prefix, size_t path_size, const char *name,
                            const char *dot, const char *rest, const char *value)
{
    if (at->count == MIR_SCHEMA_LABELS_MAX) return MIR_OK;
    if (at->count == at->capacity) {
        uint32_t capacity = at->capacity == 0 ? 16 : at->capacity * 2;
        mir_schema_label *grown = mir_arena_alloc(at->arena, capacity * sizeof *grown);
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (at->count != 0) memcpy(grown, at->labels, at->count * sizeof *grown);
        at->labels = grown;
        at->capacity = capacity;
    }
    size_t size = strlen(prefix) + path_size + strlen(name) + strlen(dot) + strlen(rest);
    char *key = mir_arena_alloc(at->arena, size + 1);
    if (key == NULL) return MIR_E_NO_MEMORY;
    (void)snprintf(key, size + 1, "%s%.*s%s%s%s", prefix, (int)path_size, at->path, name, dot,
                   rest);
    at->labels[at->count++] = (mir_schema_label){mir_view_of(key, size), mir_view_cstr(value)};
    return MIR_OK;
}

static mir_status walk_message(walk *at, const mir_schema_message *message, uint32_t depth,
                               size_t path_size) // NOLINT(misc-no-recursion)
{
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < message->tag_count && status == MIR_OK; i++) {
        const mir_schema_tag *tag = &message->tags[i];
        status = add_label(at, "__tag_", path_size, "", "", tag->key, tag->value);
    }
    at->open[depth] = message;
    for (uint32_t i = 0; i < message->field_count && status == MIR_OK; i++) {
        const mir_schema_field *field = &message->fields[i];
        if (++at->visits > VISITS_MAX) return MIR_OK;
        for (uint32_t k = 0; k < field->tag_count && status == MIR_OK; k++) {
            status = add_label(at, "__tag_", path_size, field->name, ".", field->tags[k].key,
                               field->tags[k].value);
        }
        if (field->unit != NULL && status == MIR_OK) {
            status = add_label(at, "__unit_", path_size, field->name, "", "", field->unit);
        }
        if (field->message == NULL || depth + 1 == DEPTH_MAX || status != MIR_OK) continue;
        bool is_open = false;
        for (uint32_t k = 0; k <= depth; k++) is_open = is_open || at->open[k] == field->message;
        if (is_open || field->name_size + 1 > sizeof at->path - path_size) continue;
        memcpy(at->path + path_size, field->name, field->name_size);
        at->path[path_size + field->name_size] = '.';
        status = walk_message(at, field->message, depth + 1, path_size + field->name_size + 1);
    }
    return status;
}

static int compare_labels(const void *a, const void *b)
{
    const mir_schema_label *left = a, *right = b;
    size_t size = left->key.size < right->key.size ? left->key.size : right->key.size;
    int order = memcmp(left->key.data, right->key.data, size);
    if (order != 0) return order;
    if (left->key.size != right->key.size) return left->key.size < right->key.size ? -1 : 1;
    return 0;
}

mir_status mir_schema_labels(const mir_schema_message *message, mir_arena *arena,
                             const mir_schema_label **labels, uint32_t *count)
{
    walk at = {.arena = arena};
    mir_status status = walk_message(&at, message, 0, 0);
    if (status != MIR_OK) return status;
    if (at.count != 0) qsort(at.labels, at.count, sizeof *at.labels, compare_labels);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < at.count; i++) {
        /* A tag key with dots can spell the path of a nested one: a map keeps one of them. */
        if (kept == 0 || !mir_view_eq(at.labels[kept - 1].key, at.labels[i].key)) {
            at.labels[kept++] = at.labels[i];
        }
    }
    *labels = at.labels;
    *count = kept;
    return MIR_OK;
}

typedef struct search {
    mir_schema_origin origin;
    uint32_t steps;
    mir_schema_renamed_fn renamed; /* null: by the names of this schema alone */
    void *context;
    char *name; /* what was found is called, as far as the search is; null: nobody asks */
    size_t name_size;
} search;

static bool say(search *found, const char *data, size_t size)
{
    if (found->name == NULL) return true;
    if (size > MIR_SCHEMA_PATH_BYTES_MAX - found->name_size) return false;
    memcpy(found->name + found->name_size, data, size);
    found->name_size += size;
    return true;
}

static const mir_schema_field *field_named(const search *found, const mir_schema_message *message,
                                           mir_view name)
{
    const mir_schema_field *field = mir_schema_field_by_name(message, name);
    if (field != NULL || found->renamed == NULL) return field;
    const uint32_t number = found->renamed(found->context, message, name);
    return number == 0 ? NULL : mir_schema_field_by_number(message, number);
}

static bool find_in(search *found, const mir_schema_message *message, mir_view name,
                    uint32_t depth);

/* What follows the `_` of a list element: digits, then the end or a dot and a member. */
static bool find_in_list(search *found, const mir_schema_field *field, mir_view rest,
                         uint32_t depth) // NOLINT(misc-no-recursion)
{
    size_t digits = 0;
    while (digits < rest.size && rest.data[digits] >= '0' && rest.data[digits] <= '9') digits++;
    if (digits == 0 || !say(found, (const char *)rest.data, digits)) return false;
    rest = mir_view_from(rest, digits);
    if (field->message != NULL) {
        return rest.size > 1 && rest.data[0] == '.' && say(found, ".", 1) &&
               find_in(found, field->message, mir_view_from(rest, 1), depth + 1);
    }
    if (rest.size != 0) return false;
    found->origin = (mir_schema_origin){field, field->unit};
    return true;
}

/* What follows the `_` of a map entry: a key of any bytes, then the end or a dot and a member. */
static bool find_in_map(search *found, const mir_schema_field *field, mir_view rest,
                        uint32_t depth) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    if (value->message == NULL) {
        if (!say(found, (const char *)rest.data, rest.size)) return false;
        found->origin = (mir_schema_origin){value, field->unit};
        return true;
    }
    const size_t said = found->name_size;
    for (size_t i = 0; i + 1 < rest.size; i++) {
        if (rest.data[i] == '.' && say(found, (const char *)rest.data, i + 1) &&
            find_in(found, value->message, mir_view_from(rest, i + 1), depth + 1)) {
            return true;
        }
        found->name_size = said;
    }
    return false;
}

static bool find_in(search *found, const mir_schema_message *message, mir_view name,
                    uint32_t depth) // NOLINT(misc-no-recursion)
{
    if (depth == DEPTH_MAX || ++found->steps > VISITS_MAX) return false;
    const mir_schema_field *exact = field_named(found, message, name);
    if (exact != NULL && !exact->is_repeated && exact->message == NULL) {
        if (!say(found, exact->name, exact->name_size)) return false;
        found->origin = (mir_schema_origin){exact, exact->unit};
        return true;
    }
    /* The name of a field ends at a dot or an underscore, or not at all. */
    const size_t said = found->name_size;
    for (size_t end = 1; end + 1 <= name.size; end++) {
        if (name.data[end] != '.' && name.data[end] != '_') continue;
        const mir_schema_field *field = field_named(found, message, mir_view_of(name.data, end));
        if (field == NULL || field->kind == MIR_KIND_GROUP) continue;
        mir_view rest = mir_view_from(name, end + 1);
        bool is_here = false;
        found->name_size = said;
        if (!say(found, field->name, field->name_size) ||
            !say(found, (const char *)name.data + end, 1)) {
            continue;
        }
        if (name.data[end] == '.') {
            is_here = !field->is_repeated && field->message != NULL &&
                      find_in(found, field->message, rest, depth + 1);
        } else if (field->is_map) {
            is_here = find_in_map(found, field, rest, depth);
        } else if (field->is_repeated) {
            is_here = find_in_list(found, field, rest, depth);
        }
        if (is_here) return true;
    }
    return false;
}

mir_status mir_schema_name_today(const mir_schema_message *message, mir_view stored_name,
                                 mir_schema_renamed_fn renamed, void *context,
                                 char name[MIR_SCHEMA_PATH_BYTES_MAX], size_t *size)
{
    if (stored_name.size == 0 || stored_name.size > MIR_SCHEMA_PATH_BYTES_MAX)
        return MIR_E_NOT_FOUND;
    search found = {0};
    found.name = name;
    if (!find_in(&found, message, stored_name, 0)) {
        found = (search){.renamed = renamed, .context = context};
        found.name = name;
        if (!find_in(&found, message, stored_name, 0)) return MIR_E_NOT_FOUND;
    }
    *size = found.name_size;
    return MIR_OK;
}

mir_status mir_schema_origin_of(const mir_schema_message *message, mir_view stored_name,
                                mir_schema_origin *origin)
{
    search found = {0};
    if (stored_name.size == 0 || stored_name.size > MIR_SCHEMA_PATH_BYTES_MAX ||
        !find_in(&found, message, stored_name, 0)) {
        return MIR_E_NOT_FOUND;
    }
    *origin = found.origin;
    return MIR_OK;
}
