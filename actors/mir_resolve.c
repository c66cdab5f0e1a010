/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_resolve.h"

#include <stdio.h>

/* Of the devices that are asked: */
typedef struct mir_resolve_pull {
    const char **ids;
    const size_t *places; /* in records */
    const char **errors;
    size_t count;
} mir_resolve_pull;

mir_view mir_resolve_schema_hash(const MirStore__V1__DeviceRecord *record)
{
    if (!record->has_schema_hash) return (mir_view){0};
    return mir_view_of(record->schema_hash.data, record->schema_hash.len);
}

static void fail(mir_resolution *resolution, const char *text)
{
    mir_request *request = resolution->request;
    mir_request_fail(request, "%s", text);
    mir_resolution_free(resolution);
    mir_request_finish(request);
}

mir_status mir_resolve_failed(mir_schema_groups *groups, mir_view hash, const char *cause,
                              mir_schema_group **group)
{
    char text[MIR_ERROR_TEXT_BYTES_MAX + 64];
    (void)snprintf(text, sizeof text, "cannot reconcile device schema: %s", cause);
    return mir_schema_groups_of_error(groups, hash, text, group);
}

mir_status mir_resolve_stored(mir_hub *hub, mir_schema_groups *groups,
                              const MirStore__V1__DeviceRecord *record, mir_schema_group **group)
{
    mir_view hash = mir_resolve_schema_hash(record);
    *group = mir_schema_groups_find(groups, hash);
    if (*group != NULL) return MIR_OK;
    mir_error error = {{0}};
    mir_known_schema known;
    mir_status status = mir_schemas_get(hub->schemas, hash, &known, &error);
    if (status == MIR_E_NO_MEMORY) return status;
    if (status != MIR_OK)
        return mir_resolve_failed(
            groups, hash, error.text[0] == '\0' ? mir_status_name(status) : error.text, group);
    status = mir_schema_groups_of_schema(groups, hash, known.schema, group);
    mir_schema_unref(known.schema);
    return status;
}

/* Devices that were asked have another record now, or a reason why not. */
static void pulled(mir_request *request)
{
    mir_resolution *resolution = request->resolution;
    mir_resolve_pull *pull = resolution->pull;
    mir_error error = {{0}};
    mir_status status = MIR_OK;
    for (size_t i = 0; i < pull->count && status == MIR_OK; i++) {
        size_t place = pull->places[i];
        mir_schema_group *group = NULL;
        status = mir_state_get(request->hub->state, mir_view_cstr(pull->ids[i]), &request->arena,
                               &resolution->records[place], &error);
        if (status == MIR_E_NOT_FOUND) {
            resolution->records[place] = NULL;
            status = MIR_OK;
        } else if (status == MIR_OK) {
            status = pull->errors[i] != NULL
                         ? mir_resolve_failed(&resolution->groups, (mir_view){0}, pull->errors[i],
                                              &group)
                         : mir_resolve_stored(request->hub, &resolution->groups,
                                              resolution->records[place], &group);
        }
        resolution->group_of[place] = group;
    }
    if (status == MIR_OK) {
        resolution->then(request);
        return;
    }
    char text[MIR_ERROR_TEXT_BYTES_MAX + 64];
    (void)snprintf(text, sizeof text, "error listing device from db: %s",
                   error.text[0] == '\0' ? mir_status_name(status) : error.text);
    fail(resolution, text);
}

void mir_resolve_again(mir_resolution *resolution, const size_t *places, size_t count,
                       mir_request_handler then)
{
    mir_request *request = resolution->request;
    resolution->then = then;
    mir_resolve_pull *pull = mir_arena_alloc(&request->arena, sizeof *pull);
    if (pull != NULL) pull->ids = mir_arena_alloc(&request->arena, (count + 1) * sizeof *pull->ids);
    if (pull == NULL || pull->ids == NULL) {
        fail(resolution, "the server is out of memory");
        return;
    }
    pull->places = places;
    pull->count = count;
    for (size_t i = 0; i < count; i++) pull->ids[i] = resolution->records[places[i]]->device_id;
    resolution->pull = pull;
    mir_request_pull(request, pull->ids, count, &pull->errors, pulled);
}

void mir_resolve(mir_request *request, MirStore__V1__DeviceRecord **records, size_t count,
                 bool refresh, mir_request_handler then)
{
    mir_resolution *resolution = mir_arena_alloc(&request->arena, sizeof *resolution);
    if (resolution == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    *resolution =
        (mir_resolution){.request = request, .records = records, .count = count, .then = then};
    resolution->groups.arena = &request->arena;
    request->resolution = resolution;
    resolution->group_of =
        mir_arena_alloc(&request->arena, (count + 1) * sizeof *resolution->group_of);
    size_t *places = mir_arena_alloc(&request->arena, (count + 1) * sizeof *places);
    if (resolution->group_of == NULL || places == NULL) {
        fail(resolution, "the server is out of memory");
        return;
    }
    size_t unknown = 0;
    for (size_t i = 0; i < count; i++) {
        resolution->group_of[i] = NULL;
        if (refresh || mir_resolve_schema_hash(records[i]).size == 0) {
            places[unknown++] = i;
        } else if (mir_resolve_stored(request->hub, &resolution->groups, records[i],
                                      &resolution->group_of[i]) != MIR_OK) {
            fail(resolution, "the server is out of memory");
            return;
        }
    }
    if (unknown == 0)
        then(request);
    else
        mir_resolve_again(resolution, places, unknown, then);
}

mir_status mir_resolution_collect(mir_resolution *resolution)
{
    mir_status status = MIR_OK;
    for (size_t i = 0; i < resolution->count && status == MIR_OK; i++) {
        if (resolution->group_of[i] != NULL)
            status = mir_schema_groups_add(&resolution->groups, resolution->group_of[i],
                                           resolution->records[i]);
    }
    return status;
}

void mir_resolution_free(mir_resolution *resolution)
{
    if (resolution == NULL) return;
    mir_schema_groups_free(&resolution->groups);
    resolution->request->resolution = NULL;
}
