/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_schema_groups.h"

#include "mir_hash.h"

/* A schema's bytes and the group that they lead to. */
typedef struct alias {
    mir_map_node by_name;
    mir_view hash;
    mir_schema_group *group;
} alias;

mir_schema_group *mir_schema_groups_find(const mir_schema_groups *groups, mir_view hash)
{
    if (hash.size == 0) return NULL;
    mir_map_node *node = mir_map_first(&groups->by_name, mir_hash_view(hash));
    for (; node != NULL; node = mir_map_next(node)) {
        alias *known = MIR_CONTAINER(node, alias, by_name);
        if (mir_view_eq(known->hash, hash)) return known->group;
    }
    return NULL;
}

static mir_status name_group(mir_schema_groups *groups, mir_view hash, mir_schema_group *group)
{
    if (hash.size == 0 || mir_schema_groups_find(groups, hash) != NULL) return MIR_OK;
    alias *fresh = mir_arena_alloc(groups->arena, sizeof *fresh);
    const char *copy = mir_arena_strdup(groups->arena, hash);
    if (fresh == NULL || copy == NULL) return MIR_E_NO_MEMORY;
    fresh->hash = mir_view_of(copy, hash.size);
    fresh->group = group;
    mir_map_add(&groups->by_name, &fresh->by_name, mir_hash_view(hash));
    return MIR_OK;
}

static mir_schema_group *group_new(mir_schema_groups *groups, mir_map *map, uint64_t content)
{
    mir_schema_group *fresh = mir_arena_alloc(groups->arena, sizeof *fresh);
    if (fresh == NULL) return NULL;
    fresh->made_before = groups->made_last;
    groups->made_last = fresh;
    mir_map_add(map, &fresh->by_content, content);
    return fresh;
}

mir_status mir_schema_groups_of_schema(mir_schema_groups *groups, mir_view hash, mir_schema *schema,
                                       mir_schema_group **group)
{
    uint64_t content = mir_schema_hash(schema);
    mir_schema_group *found = NULL;
    mir_map_node *node = mir_map_first(&groups->by_schema, content);
    for (; node != NULL && found == NULL; node = mir_map_next(node)) {
        mir_schema_group *other = MIR_CONTAINER(node, mir_schema_group, by_content);
        if (mir_schema_equal(other->schema, schema)) found = other;
    }
    if (found == NULL) {
        found = group_new(groups, &groups->by_schema, content);
        if (found == NULL) return MIR_E_NO_MEMORY;
        found->schema = mir_schema_ref(schema);
    }
    mir_status status = name_group(groups, hash, found);
    if (status == MIR_OK) *group = found;
    return status;
}

mir_status mir_schema_groups_of_error(mir_schema_groups *groups, mir_view hash, const char *text,
                                      mir_schema_group **group)
{
    uint64_t content = mir_hash_view(mir_view_cstr(text));
    mir_schema_group *found = NULL;
    mir_map_node *node = mir_map_first(&groups->by_error, content);
    for (; node != NULL && found == NULL; node = mir_map_next(node)) {
        mir_schema_group *other = MIR_CONTAINER(node, mir_schema_group, by_content);
        if (strcmp(other->error, text) == 0) found = other;
    }
    if (found == NULL) {
        const char *copy = mir_arena_strdup(groups->arena, mir_view_cstr(text));
        if (copy == NULL) return MIR_E_NO_MEMORY;
        found = group_new(groups, &groups->by_error, content);
        if (found == NULL) return MIR_E_NO_MEMORY;
        found->error = copy;
    }
    mir_status status = name_group(groups, hash, found);
    if (status == MIR_OK) *group = found;
    return status;
}

mir_status mir_schema_groups_add(mir_schema_groups *groups, mir_schema_group *group,
                                 MirStore__V1__DeviceRecord *record)
{
    if (group->count == group->capacity) {
        size_t capacity = group->capacity == 0 ? 4 : group->capacity * 2;
        MirStore__V1__DeviceRecord **grown =
            mir_arena_alloc(groups->arena, capacity * sizeof *grown);
        if (grown == NULL) return MIR_E_NO_MEMORY;
        if (group->count != 0) memcpy(grown, group->records, group->count * sizeof *grown);
        group->records = grown;
        group->capacity = capacity;
    }
    if (group->count == 0) {
        mir_schema_group_list *list = group->error != NULL ? &groups->errors : &groups->schemas;
        if (list->last == NULL)
            list->first = group;
        else
            list->last->next = group;
        list->last = group;
        list->count++;
    }
    group->records[group->count++] = record;
    return MIR_OK;
}

mir_status mir_schema_group_ids(const mir_schema_group *group, mir_arena *arena,
                                MirApi__V1__DeviceIdPair ***ids, size_t *count)
{
    MirApi__V1__DeviceIdPair **list = mir_arena_alloc(arena, (group->count + 1) * sizeof *list);
    MirApi__V1__DeviceIdPair *pairs = mir_arena_alloc(arena, (group->count + 1) * sizeof *pairs);
    if (list == NULL || pairs == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < group->count; i++) {
        mir_api__v1__device_id_pair__init(&pairs[i]);
        pairs[i].device_id = group->records[i]->device_id;
        pairs[i].name = group->records[i]->name;
        pairs[i].namespace_ = group->records[i]->namespace_;
        list[i] = &pairs[i];
    }
    *ids = list;
    *count = group->count;
    return MIR_OK;
}

void mir_schema_groups_free(mir_schema_groups *groups)
{
    for (mir_schema_group *group = groups->made_last; group != NULL; group = group->made_before)
        mir_schema_unref(group->schema);
    mir_map_free(&groups->by_name);
    mir_map_free(&groups->by_schema);
    mir_map_free(&groups->by_error);
    *groups = (mir_schema_groups){.arena = groups->arena};
}
