/* SPDX-License-Identifier: Apache-2.0 */
#define PCRE2_CODE_UNIT_WIDTH 8
#include "mir_influx_tags.h"

#include <pcre2.h>
#include <stdlib.h>

#include "mir_device_rules.h"
#include "mir_hash.h"
#include "mir_map.h"

enum { CANCEL_LOOK_DEVICES = 256, PATTERN_HEAP_KIB_MAX = 4096 };

/* --- patterns -------------------------------------------------------------------------------- */

struct mir_influx_pattern {
    pcre2_code *code;
    pcre2_match_data *data;
    pcre2_match_context *context;
    mir_view text;
};

static void *arena_malloc(size_t size, void *arena)
{
    return mir_arena_alloc(arena, size);
}

static void arena_free(void *memory, void *arena)
{
    (void)memory;
    (void)arena;
}

mir_status mir_influx_pattern_new(mir_view text, mir_arena *arena, mir_influx_pattern **pattern,
                                  mir_error *error)
{
    if (text.size > MIR_INFLUX_PATTERN_BYTES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "a regular expression is longer than %d bytes",
                             MIR_INFLUX_PATTERN_BYTES_MAX);
    mir_influx_pattern *made = mir_arena_alloc(arena, sizeof *made);
    pcre2_general_context *general = pcre2_general_context_create(arena_malloc, arena_free, arena);
    if (made == NULL || general == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    made->text = text;
    made->context = pcre2_match_context_create(general);
    pcre2_compile_context *compile = pcre2_compile_context_create(general);
    if (made->context == NULL || compile == NULL)
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    int code = 0;
    size_t at = 0;
    made->code = pcre2_compile(text.size == 0 ? (PCRE2_SPTR) "" : text.data, text.size,
                               PCRE2_UTF | PCRE2_MATCH_INVALID_UTF | PCRE2_DOLLAR_ENDONLY |
                                   PCRE2_NEVER_BACKSLASH_C | PCRE2_NO_AUTO_CAPTURE,
                               &code, &at, compile);
    if (made->code == NULL) {
        char reason[128] = "";
        (void)pcre2_get_error_message(code, (PCRE2_UCHAR *)reason, sizeof reason);
        return mir_error_set(error, MIR_E_INVALID, "the regular expression /%.*s/: %s at char %zu",
                             (int)(text.size < 128 ? text.size : 128), (const char *)text.data,
                             reason, at + 1);
    }
    (void)pcre2_set_match_limit(made->context, MIR_INFLUX_PATTERN_STEPS_MAX);
    (void)pcre2_set_heap_limit(made->context, PATTERN_HEAP_KIB_MAX);
    made->data = pcre2_match_data_create(1, general);
    if (made->data == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    *pattern = made;
    return MIR_OK;
}

mir_status mir_influx_pattern_find(const mir_influx_pattern *pattern, mir_view text, bool *found,
                                   mir_error *error)
{
    const int rc = pcre2_match(pattern->code, text.size == 0 ? (PCRE2_SPTR) "" : text.data,
                               text.size, 0, 0, pattern->data, pattern->context);
    *found = rc >= 0;
    if (rc >= 0 || rc == PCRE2_ERROR_NOMATCH) return MIR_OK;
    return mir_error_set(error, MIR_E_TOO_LARGE,
                         "the regular expression /%.*s/ takes too many steps: make it simpler",
                         (int)(pattern->text.size < 128 ? pattern->text.size : 128),
                         (const char *)pattern->text.data);
}

/* --- conditions ------------------------------------------------------------------------------ */

mir_view mir_influx_tag(const mir_influx_device *device, mir_view key)
{
    if (key.size > 2 && key.data[0] == '_' && key.data[1] == '_') {
        if (mir_view_eq_cstr(key, "__id")) return mir_view_cstr(device->device_id);
        if (mir_view_eq_cstr(key, "__name")) return mir_view_cstr(device->name);
        if (mir_view_eq_cstr(key, "__namespace")) return mir_view_cstr(device->namespace_);
    }
    for (size_t i = 0; i < device->n_labels; i++)
        if (mir_view_eq_cstr(key, device->labels[i]->key))
            return mir_view_cstr(device->labels[i]->value);
    return (mir_view){NULL, 0};
}

/* A condition with its patterns made. */
typedef struct filter {
    const mir_influxql_condition *condition;
    mir_influx_pattern *pattern;
    struct filter *first, *next;
} filter;

static mir_status make_filter(const mir_influxql_condition *condition, mir_arena *arena,
                              filter **made, mir_error *error)
{
    filter *fresh = mir_arena_alloc(arena, sizeof *fresh);
    if (fresh == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    fresh->condition = condition;
    if (condition->kind == MIR_INFLUXQL_TAG && condition->compare >= MIR_INFLUXQL_MATCHES) {
        const mir_status status =
            mir_influx_pattern_new(condition->value, arena, &fresh->pattern, error);
        if (status != MIR_OK) return status;
    }
    filter **link = &fresh->first;
    for (const mir_influxql_condition *c = condition->first; c != NULL; c = c->next) {
        const mir_status status = make_filter(c, arena, link, error);
        if (status != MIR_OK) return status;
        link = &(*link)->next;
    }
    *made = fresh;
    return MIR_OK;
}

static mir_status passes(const filter *f, const mir_influx_device *device, bool *pass,
                         mir_error *error)
{
    const mir_influxql_condition *condition = f->condition;
    if (condition->kind == MIR_INFLUXQL_TAG) {
        const mir_view value = mir_influx_tag(device, condition->key);
        if (f->pattern == NULL) {
            *pass =
                mir_view_eq(value, condition->value) == (condition->compare == MIR_INFLUXQL_EQUAL);
            return MIR_OK;
        }
        bool found = false;
        const mir_status status = mir_influx_pattern_find(f->pattern, value, &found, error);
        *pass = found == (condition->compare == MIR_INFLUXQL_MATCHES);
        return status;
    }
    const bool all = condition->kind == MIR_INFLUXQL_AND;
    *pass = all;
    for (const filter *child = f->first; child != NULL && *pass == all; child = child->next) {
        const mir_status status = passes(child, device, pass, error);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

/* --- finding --------------------------------------------------------------------------------- */

/* Ids, names or namespaces that a condition asks for alone, so that not every device is read. */
typedef struct wanted {
    const char *key;
    size_t *count;
    char ***values;
} wanted;

static bool asks_for(const mir_influxql_condition *condition, const char *key)
{
    if (condition->kind == MIR_INFLUXQL_OR) {
        for (const mir_influxql_condition *c = condition->first; c != NULL; c = c->next)
            if (c->kind != MIR_INFLUXQL_TAG || !asks_for(c, key)) return false;
        return true;
    }
    return condition->kind == MIR_INFLUXQL_TAG && condition->compare == MIR_INFLUXQL_EQUAL &&
           mir_view_eq_cstr(condition->key, key) && condition->value.size != 0 &&
           !mir_pattern_has_star(condition->value) &&
           memchr(condition->value.data, 0, condition->value.size) == NULL;
}

static mir_status add_wanted(const mir_influxql_condition *condition, const wanted *to,
                             mir_arena *arena)
{
    if (*to->count != 0 || !asks_for(condition, to->key)) return MIR_OK;
    const bool one = condition->kind == MIR_INFLUXQL_TAG;
    size_t count = 0;
    for (const mir_influxql_condition *c = one ? condition : condition->first; c != NULL;
         c = one ? NULL : c->next)
        count++;
    char **values = mir_arena_alloc(arena, count * sizeof *values);
    if (values == NULL) return MIR_E_NO_MEMORY;
    count = 0;
    for (const mir_influxql_condition *c = one ? condition : condition->first; c != NULL;
         c = one ? NULL : c->next) {
        values[count] = mir_arena_strdup(arena, c->value);
        if (values[count++] == NULL) return MIR_E_NO_MEMORY;
    }
    *to->values = values;
    *to->count = count;
    return MIR_OK;
}

static mir_status narrow(const mir_influxql_condition *condition, MirApi__V1__DeviceTarget *target,
                         mir_arena *arena)
{
    const wanted keys[] = {{"__id", &target->n_ids, &target->ids},
                           {"__name", &target->n_names, &target->names},
                           {"__namespace", &target->n_namespaces, &target->namespaces}};
    const bool all = condition->kind == MIR_INFLUXQL_AND;
    for (const mir_influxql_condition *c = all ? condition->first : condition; c != NULL;
         c = all ? c->next : NULL)
        for (size_t i = 0; i < sizeof keys / sizeof keys[0]; i++)
            if (add_wanted(c, &keys[i], arena) != MIR_OK) return MIR_E_NO_MEMORY;
    return MIR_OK;
}

mir_status mir_influx_devices_find(mir_state *state, const mir_influxql_condition *condition,
                                   const atomic_bool *cancel, mir_arena *arena,
                                   mir_influx_devices *devices, mir_error *error)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    filter *f = NULL;
    mir_status status = MIR_OK;
    if (condition != NULL) status = make_filter(condition, arena, &f, error);
    if (status == MIR_OK && condition != NULL && narrow(condition, &target, arena) != MIR_OK)
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK)
        status = mir_state_list(state, &target, arena, &devices->items, &devices->count, error);
    if (status != MIR_OK || f == NULL) return status;
    size_t kept = 0;
    for (size_t i = 0; i < devices->count; i++) {
        bool pass = false;
        if (i % CANCEL_LOOK_DEVICES == 0 && cancel != NULL &&
            atomic_load_explicit(cancel, memory_order_relaxed))
            return mir_error_set(error, MIR_E_CANCELLED, "cancelled");
        status = passes(f, devices->items[i], &pass, error);
        if (status != MIR_OK) return status;
        if (pass) devices->items[kept++] = devices->items[i];
    }
    devices->count = kept;
    return MIR_OK;
}

/* --- keys ------------------------------------------------------------------------------------ */

typedef struct key_entry {
    mir_map_node node;
    mir_view key;
} key_entry;

static int compare_keys(const void *a, const void *b)
{
    return mir_view_compare(*(const mir_view *)a, *(const mir_view *)b);
}

static mir_status add_key(mir_map *map, mir_view key, mir_arena *arena)
{
    const uint64_t hash = mir_hash_view(key);
    for (mir_map_node *node = mir_map_first(map, hash); node != NULL; node = mir_map_next(node))
        if (mir_view_eq(MIR_CONTAINER(node, key_entry, node)->key, key)) return MIR_OK;
    key_entry *entry = mir_arena_alloc(arena, sizeof *entry);
    if (entry == NULL) return MIR_E_NO_MEMORY;
    entry->key = key;
    mir_map_add(map, &entry->node, hash);
    return MIR_OK;
}

mir_status mir_influx_keys_of(const mir_influx_devices *devices, mir_arena *arena,
                              mir_influx_keys *keys)
{
    static const char *const fixed[] = {"__id", "__name", "__namespace"};
    mir_map map = {0};
    mir_status status = MIR_OK;
    *keys = (mir_influx_keys){0};
    if (devices->count == 0) return MIR_OK;
    for (size_t i = 0; i < 3 && status == MIR_OK; i++)
        status = add_key(&map, mir_view_cstr(fixed[i]), arena);
    for (size_t d = 0; d < devices->count; d++)
        for (size_t i = 0; i < devices->items[d]->n_labels && status == MIR_OK; i++)
            status = add_key(&map, mir_view_cstr(devices->items[d]->labels[i]->key), arena);
    if (status == MIR_OK) {
        keys->items = mir_arena_alloc(arena, map.count * sizeof *keys->items);
        if (keys->items == NULL) status = MIR_E_NO_MEMORY;
    }
    uint32_t from = 0;
    for (mir_map_node *node; (node = mir_map_any(&map, &from)) != NULL;) {
        mir_map_remove(&map, node);
        if (status == MIR_OK)
            keys->items[keys->count++] = MIR_CONTAINER(node, key_entry, node)->key;
    }
    mir_map_free(&map);
    if (keys->count > 1) qsort(keys->items, keys->count, sizeof *keys->items, compare_keys);
    return status;
}
