/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cmd_service.h"

#include <stdlib.h>

#include "mir_api/v1/cmd.pb-c.h"
#include "mir_cmd_known.h"
#include "mir_cmd_sending.h"
#include "mir_descriptors.h"
#include "mir_pb.h"
#include "mir_reply.h"
#include "mir_resolve.h"

/* --- list ----------------------------------------------------------------------------------- */

static mir_status set_labels(const mir_descriptor *from, mir_arena *arena,
                             MirApi__V1__CommandDescriptor *to)
{
    to->labels = mir_arena_alloc(arena, (from->label_count + 1) * sizeof *to->labels);
    MirApi__V1__CommandDescriptor__LabelsEntry *entries =
        mir_arena_alloc(arena, (from->label_count + 1) * sizeof *entries);
    if (to->labels == NULL || entries == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < from->label_count; i++) {
        mir_api__v1__command_descriptor__labels_entry__init(&entries[i]);
        entries[i].key = (char *)(uintptr_t)from->labels[i].key.data;
        entries[i].value = (char *)(uintptr_t)from->labels[i].value.data;
        to->labels[i] = &entries[i];
    }
    to->n_labels = from->label_count;
    return MIR_OK;
}

static mir_status set_descriptors(const mir_schema_group *group,
                                  const MirApi__V1__SendListCommandsRequest *input,
                                  mir_arena *arena, MirApi__V1__DevicesCommands *entry)
{
    mir_label_filter *filters =
        mir_arena_alloc(arena, (input->n_filter_labels + 1) * sizeof *filters);
    if (filters == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < input->n_filter_labels; i++)
        filters[i] =
            (mir_label_filter){input->filter_labels[i]->key, input->filter_labels[i]->value};
    mir_descriptor *found;
    size_t count;
    mir_status status = mir_descriptors_of(group->schema, MIR_MESSAGE_TELECOMMAND, filters,
                                           input->n_filter_labels, arena, &found, &count);
    if (status != MIR_OK) return status;
    entry->cmd_descriptors = mir_arena_alloc(arena, (count + 1) * sizeof *entry->cmd_descriptors);
    MirApi__V1__CommandDescriptor *made = mir_arena_alloc(arena, (count + 1) * sizeof *made);
    if (entry->cmd_descriptors == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        mir_api__v1__command_descriptor__init(&made[i]);
        /* The schema is referenced until the answer is packed. */
        made[i].name = (char *)(uintptr_t)found[i].message->name;
        made[i].template_ = found[i].template;
        made[i].error = found[i].error;
        status = set_labels(&found[i], arena, &made[i]);
        entry->cmd_descriptors[i] = &made[i];
    }
    entry->n_cmd_descriptors = count;
    return status;
}

/* `bytes`: of the answer so far. */
static mir_status add_groups(mir_request *request, const mir_schema_group_list *groups,
                             MirApi__V1__CommandsResponse *response, size_t *bytes)
{
    mir_status status = MIR_OK;
    for (mir_schema_group *group = groups->first; group != NULL && status == MIR_OK;
         group = group->next) {
        MirApi__V1__DevicesCommands *entry = mir_arena_alloc(&request->arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__devices_commands__init(entry);
        response->devices_commands[response->n_devices_commands++] = entry;
        status = mir_schema_group_ids(group, &request->arena, &entry->ids, &entry->n_ids);
        if (group->error != NULL)
            entry->error = (char *)(uintptr_t)group->error;
        else if (status == MIR_OK)
            status = set_descriptors(group, request->context, &request->arena, entry);
        if (status != MIR_OK) break;
        *bytes += protobuf_c_message_get_packed_size(&entry->base);
        if (*bytes > (size_t)request->hub->config->limits.max_payload_bytes)
            status = MIR_E_TOO_LARGE;
    }
    return status;
}

static void list_answer(mir_request *request)
{
    mir_resolution *resolution = request->resolution;
    mir_schema_groups *groups = &resolution->groups;
    mir_status status = mir_resolution_collect(resolution);
    MirApi__V1__CommandsResponse list = MIR_API__V1__COMMANDS_RESPONSE__INIT;
    list.devices_commands =
        mir_arena_alloc(&request->arena, (groups->errors.count + groups->schemas.count + 1) *
                                             sizeof *list.devices_commands);
    if (list.devices_commands == NULL) status = MIR_E_NO_MEMORY;
    size_t bytes = 0;
    if (status == MIR_OK) status = add_groups(request, &groups->errors, &list, &bytes);
    if (status == MIR_OK) status = add_groups(request, &groups->schemas, &list, &bytes);
    if (status == MIR_OK) {
        MirApi__V1__SendListCommandsResponse response =
            MIR_API__V1__SEND_LIST_COMMANDS_RESPONSE__INIT;
        response.response_case = MIR_API__V1__SEND_LIST_COMMANDS_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        mir_request_answer(request, &response.base);
    } else if (status == MIR_E_TOO_LARGE) {
        mir_request_fail(request,
                         "the answer would be larger than a message may be (%lld bytes): narrow "
                         "the target or filter by labels",
                         (long long)request->hub->config->limits.max_payload_bytes);
    } else {
        mir_request_fail(request, "the server is out of memory");
    }
    mir_resolution_free(resolution);
    mir_request_finish(request);
}

void mir_cmd_list(mir_request *request)
{
    MirApi__V1__SendListCommandsRequest *input;
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {{0}};
    if (!mir_request_unpack(request, &mir_api__v1__send_list_commands_request__descriptor,
                            &input)) {
        mir_request_finish(request);
        return;
    }
    if (mir_state_list(request->hub->state, input->targets, &request->arena, &records, &count,
                       &error) != MIR_OK)
        mir_request_fail(request, "error listing devices from db: %s", error.text);
    else if (count == 0)
        mir_request_fail(request, "no device found with current targets criteria");
    if (count == 0) {
        mir_request_finish(request);
        return;
    }
    request->context = input;
    mir_resolve(request, records, count, input->refresh_schema, list_answer);
}

/* --- send ----------------------------------------------------------------------------------- */

/* All that is wrong with the request, in one text; false when there was something. */
static bool check(mir_request *request, const MirApi__V1__SendCommandRequest *input)
{
    bool has_encoding = input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_PROTOBUF ||
                        input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_JSON;
    bool needs_payload = !input->show_template &&
                         input->payload_encoding != MIR_API__V1__ENCODING__ENCODING_PROTOBUF;
    const char *texts[4];
    size_t count = 0;
    if (mir_state_target_is_empty(input->targets)) texts[count++] = "No device target provided";
    if (input->name == NULL || input->name[0] == '\0') texts[count++] = "No command name provided";
    if (!has_encoding && !input->show_template) texts[count++] = "Command encoding not specified";
    if (needs_payload && input->payload.len == 0) texts[count++] = "No command payload provided";
    char joined[256] = "";
    for (size_t i = 0, used = 0; i < count; i++)
        used += (size_t)snprintf(joined + used, sizeof joined - used, "%s%s", i == 0 ? "" : " ",
                                 texts[i]);
    if (count != 0) mir_request_fail(request, "error occure because of bad request: [%s]", joined);
    return count == 0;
}

/* Whether the shard could do it, if it knew the device. */
static bool is_plain(const MirApi__V1__SendCommandRequest *input, mir_cmd_known_key *key)
{
    return !input->queue && !input->refresh_schema && !input->show_template &&
           mir_cmd_known_key_of(input->targets, key);
}

bool mir_cmd_send_here(mir_request *request)
{
    mir_cmd_known *known = mir_actors_of(request->shard)->known;
    MirApi__V1__SendCommandRequest *input;
    mir_cmd_known_key key;
    if (known == NULL || request->payload.size > MIR_CMD_HERE_BYTES_MAX ||
        (request->reply.size != 0 && !mir_reply_is_inbox(request->reply)))
        return false;
    /* What is wrong with a request is told by the worker. */
    if (mir_pb_unpack(&mir_api__v1__send_command_request__descriptor, request->payload,
                      &request->arena, &input, NULL) != MIR_OK)
        return false;
    request->context = input;
    if (!is_plain(input, &key)) return false;
    const mir_cmd_known_entry *entry =
        mir_cmd_known_find(known, &key, mir_cmd_known_changes(request->hub->state, &key));
    if (entry == NULL) return false;
    MirStore__V1__DeviceRecord **records = mir_arena_alloc(&request->arena, sizeof(void *));
    if (records == NULL) return false;
    records[0] = mir_cmd_known_record(entry, &request->arena);
    if (records[0] == NULL) return false;
    if (check(request, input))
        mir_cmd_sending_begin(request, input, records, 1, entry->schema);
    else
        mir_request_finish(request);
    return true;
}

static void learned(mir_shard *shard, mir_post *post)
{
    mir_cmd_known_entry *entry = MIR_CONTAINER(post, mir_cmd_known_entry, post);
    mir_actors *actors = mir_actors_of(shard);
    if (actors->known == NULL) actors->known = calloc(1, sizeof *actors->known);
    if (actors->known == NULL)
        mir_cmd_known_entry_free(entry);
    else
        mir_cmd_known_put(actors->known, entry);
    mir_hub_end(actors->hub);
}

/* The next command for the device needs no worker. */
static void learn(mir_request *request, const mir_cmd_known_key *key, uint64_t changes,
                  const MirStore__V1__DeviceRecord *record)
{
    mir_known_schema schema;
    if (mir_schemas_get(request->hub->schemas, mir_resolve_schema_hash(record), &schema, NULL) !=
        MIR_OK)
        return;
    mir_cmd_known_entry *entry = mir_cmd_known_make(key, changes, record, schema.schema);
    mir_schema_unref(schema.schema);
    if (entry == NULL) return;
    entry->post.run = learned;
    mir_hub_begin(request->hub);
    mir_shard_post(request->shard, &entry->post);
}

void mir_cmd_send(mir_request *request)
{
    MirApi__V1__SendCommandRequest *input = request->context;
    if ((input == NULL &&
         !mir_request_unpack(request, &mir_api__v1__send_command_request__descriptor, &input)) ||
        !check(request, input)) {
        mir_request_finish(request);
        return;
    }
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {{0}};
    mir_cmd_known_key key;
    bool is_one = is_plain(input, &key);
    uint64_t changes = is_one ? mir_cmd_known_changes(request->hub->state, &key) : 0;
    if (mir_state_list(request->hub->state, input->targets, &request->arena, &records, &count,
                       &error) != MIR_OK)
        mir_request_fail(request, "error sending command to devices: %s", error.text);
    else if (count == 0)
        mir_request_fail(request, "error sending command to devices: no device found with current "
                                  "targets criteria");
    if (count == 0) {
        mir_request_finish(request);
        return;
    }
    if (is_one && count == 1) learn(request, &key, changes, records[0]);
    mir_cmd_sending_begin(request, input, records, count, NULL);
}
