/* SPDX-License-Identifier: Apache-2.0 */
/* mir_schema_groups: devices of a request, put together by what they speak.
 *
 * Why        Ten thousand devices of one kind are one entry of a list, and a command is translated
 *            once for them. Devices whose schemas are equal in content are one group, even if the
 *            bytes differ; devices whose schema cannot be had are one group for each distinct error.
 * Ownership  Memory is the arena's; records are the caller's and must outlive the groups. A group
 *            holds a reference to its schema until mir_schema_groups_free.
 * Affinity   One thread at a time.
 * Bounds     Finding a group takes constant time, so many different schemas cost no more than few.
 * Errors     MIR_E_NO_MEMORY. */
#ifndef MIR_SCHEMA_GROUPS_H
#define MIR_SCHEMA_GROUPS_H

#include "mir_arena.h"
#include "mir_map.h"
#include "mir_schemas.h"

typedef struct mir_schema_group {
    struct mir_schema_group *next; /* in its list */
    struct mir_schema_group *made_before;
    mir_map_node by_content; /* of its schema or of its error */
    const char *error;       /* null: a group of a schema */
    mir_schema *schema;
    void *context; /* its user's */
    MirStore__V1__DeviceRecord **records;
    size_t count;
    size_t capacity;
} mir_schema_group;

/* Groups with devices, in the order of their first ones. */
typedef struct mir_schema_group_list {
    mir_schema_group *first, *last;
    size_t count;
} mir_schema_group_list;

typedef struct mir_schema_groups {
    mir_arena *arena;
    mir_schema_group_list errors;
    mir_schema_group_list schemas;
    mir_schema_group *made_last;
    mir_map by_name; /* of the schema's bytes */
    mir_map by_schema;
    mir_map by_error;
} mir_schema_groups;

/* The group of the devices whose schema has this hash, null when it has not been seen. */
mir_schema_group *mir_schema_groups_find(const mir_schema_groups *groups, mir_view hash);
/* The group of this schema (which it references) or this error, a new one if need be. From then on
 * it is also found by `hash`, unless that is empty. */
MIR_MUST_CHECK mir_status mir_schema_groups_of_schema(mir_schema_groups *groups, mir_view hash,
                                                      mir_schema *schema, mir_schema_group **group);
MIR_MUST_CHECK mir_status mir_schema_groups_of_error(mir_schema_groups *groups, mir_view hash,
                                                     const char *text, mir_schema_group **group);
MIR_MUST_CHECK mir_status mir_schema_groups_add(mir_schema_groups *groups, mir_schema_group *group,
                                                MirStore__V1__DeviceRecord *record);
/* Who is in the group, as lists show it; the strings are those of the records. */
MIR_MUST_CHECK mir_status mir_schema_group_ids(const mir_schema_group *group, mir_arena *arena,
                                               MirApi__V1__DeviceIdPair ***ids, size_t *count);
void mir_schema_groups_free(mir_schema_groups *groups);

#endif
