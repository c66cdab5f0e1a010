/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cfg_service.h"

#include <stdio.h>

#include "mir_cfg_plan.h"
#include "mir_clock.h"
#include "mir_descriptors.h"
#include "mir_device_json.h"
#include "mir_events.h"
#include "mir_json_normal.h"
#include "mir_resolve.h"
#include "mir_timestamp.h"

static mir_view bytes_view(protobuf_c_boolean has, ProtobufCBinaryData data)
{
    return has ? mir_view_of(data.data, data.len) : (mir_view){NULL, 0};
}

/* --- list ----------------------------------------------------------------------------------- */

typedef MirApi__V1__DevicesConfigs__ConfigValues values_message;
typedef MirApi__V1__DevicesConfigs__ConfigState state_message;

/* What the descriptors of a group say, for each of its devices. */
typedef struct group_list {
    mir_arena *arena;
    const mir_descriptor *found;
    size_t count;
} group_list;

/* The member as text, null when there is none. */
static mir_status member_text(mir_arena *arena, const json_t *all, const char *name, char **out)
{
    *out = NULL;
    const json_t *value = json_object_get(all, name);
    if (value == NULL) return MIR_OK;
    mir_bytes text = {0};
    mir_error error = {""};
    mir_status status = mir_json_generic(value, &text, &error);
    if (status != MIR_OK && status != MIR_E_NO_MEMORY) {
        text.size = 0;
        mir_bytes_text(&text, "{\"err\":");
        mir_json_write_string(mir_view_cstr(error.text), &text);
        mir_bytes_u8(&text, '}');
        status = MIR_OK;
    }
    if (status == MIR_OK) *out = mir_arena_strdup(arena, mir_bytes_as_view(&text));
    mir_bytes_free(&text);
    return *out == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

static mir_status parse_all(mir_view text, json_t **all)
{
    if (text.size == 0) {
        *all = json_object();
        return *all == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    }
    return mir_json_parse(text, all, NULL);
}

static MirApi__V1__Timestamp *time_of(mir_arena *arena, const MirStore__V1__DeviceRecord *record,
                                      bool reported, const char *name)
{
    int64_t ns = mir_state_property_time_ns(record, reported, name);
    return ns == 0 ? NULL : mir_timestamp_new(arena, ns);
}

static MirApi__V1__Timestamp *
differs_since(mir_arena *arena, const MirStore__V1__DeviceRecord *record, const char *name)
{
    for (size_t i = 0; i < record->n_differs_since; i++) {
        const MirStore__V1__Time *since = record->differs_since[i]->value;
        if (since == NULL || strcmp(record->differs_since[i]->key, name) != 0) continue;
        MirApi__V1__Timestamp *made = mir_timestamp_new(arena, 0);
        if (made == NULL) return NULL;
        made->seconds = since->seconds;
        made->nanos = since->nanos;
        return made;
    }
    return NULL;
}

/* Adds the value and, when there is something to tell, the state of one property. */
static mir_status add_value(const group_list *list, const mir_descriptor *of, values_message *to,
                            const MirStore__V1__DeviceRecord *record, const json_t *desired,
                            const json_t *reported)
{
    mir_arena *arena = list->arena;
    const char *name = of->message->name;
    MirApi__V1__DevicesConfigs__ConfigValues__ValuesEntry *value =
        mir_arena_alloc(arena, sizeof *value);
    MirApi__V1__DevicesConfigs__ConfigValues__StatesEntry *entry =
        mir_arena_alloc(arena, sizeof *entry);
    state_message *state = mir_arena_alloc(arena, sizeof *state);
    if (value == NULL || entry == NULL || state == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__devices_configs__config_values__values_entry__init(value);
    mir_api__v1__devices_configs__config_values__states_entry__init(entry);
    mir_api__v1__devices_configs__config_state__init(state);
    mir_status status = member_text(arena, desired, name, &state->desired);
    if (status == MIR_OK) status = member_text(arena, reported, name, &state->reported);
    if (status != MIR_OK) return status;
    value->key = (char *)(uintptr_t)name;
    value->value = state->desired != NULL ? state->desired : of->template;
    to->values[to->n_values++] = value;
    if (state->desired == NULL && state->reported == NULL) return MIR_OK;
    state->desired_at = time_of(arena, record, false, name);
    state->reported_at = time_of(arena, record, true, name);
    if (state->desired != NULL) {
        state->differs_since = differs_since(arena, record, name);
        state->has_in_sync = 1;
        state->in_sync = state->differs_since == NULL;
    }
    entry->key = value->key;
    entry->value = state;
    to->states[to->n_states++] = entry;
    return MIR_OK;
}

static mir_status set_values(const group_list *list, const MirStore__V1__DeviceRecord *record,
                             values_message *to)
{
    json_t *desired = NULL, *reported = NULL;
    to->values = mir_arena_alloc(list->arena, (list->count + 1) * sizeof *to->values);
    to->states = mir_arena_alloc(list->arena, (list->count + 1) * sizeof *to->states);
    if (to->values == NULL || to->states == NULL) return MIR_E_NO_MEMORY;
    mir_status status =
        parse_all(bytes_view(record->has_desired_json, record->desired_json), &desired);
    if (status == MIR_OK)
        status = parse_all(bytes_view(record->has_reported_json, record->reported_json), &reported);
    for (size_t i = 0; i < list->count && status == MIR_OK; i++)
        status = add_value(list, &list->found[i], to, record, desired, reported);
    json_decref(desired);
    json_decref(reported);
    return status;
}

static mir_status set_labels(const mir_descriptor *from, mir_arena *arena,
                             MirApi__V1__ConfigDescriptor *to)
{
    to->labels = mir_arena_alloc(arena, (from->label_count + 1) * sizeof *to->labels);
    MirApi__V1__ConfigDescriptor__LabelsEntry *entries =
        mir_arena_alloc(arena, (from->label_count + 1) * sizeof *entries);
    if (to->labels == NULL || entries == NULL) return MIR_E_NO_MEMORY;
    for (uint32_t i = 0; i < from->label_count; i++) {
        mir_api__v1__config_descriptor__labels_entry__init(&entries[i]);
        entries[i].key = (char *)(uintptr_t)from->labels[i].key.data;
        entries[i].value = (char *)(uintptr_t)from->labels[i].value.data;
        to->labels[i] = &entries[i];
    }
    to->n_labels = from->label_count;
    return MIR_OK;
}

static mir_status set_descriptors(const mir_schema_group *group,
                                  const MirApi__V1__SendListConfigRequest *input, group_list *list,
                                  MirApi__V1__DevicesConfigs *entry)
{
    mir_arena *arena = list->arena;
    mir_label_filter *filters =
        mir_arena_alloc(arena, (input->n_filter_labels + 1) * sizeof *filters);
    if (filters == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < input->n_filter_labels; i++)
        filters[i] =
            (mir_label_filter){input->filter_labels[i]->key, input->filter_labels[i]->value};
    mir_descriptor *found;
    mir_status status = mir_descriptors_of(group->schema, MIR_MESSAGE_TELECONFIG, filters,
                                           input->n_filter_labels, arena, &found, &list->count);
    if (status != MIR_OK) return status;
    list->found = found;
    entry->cfg_descriptors =
        mir_arena_alloc(arena, (list->count + 1) * sizeof *entry->cfg_descriptors);
    MirApi__V1__ConfigDescriptor *made = mir_arena_alloc(arena, (list->count + 1) * sizeof *made);
    if (entry->cfg_descriptors == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < list->count && status == MIR_OK; i++) {
        mir_api__v1__config_descriptor__init(&made[i]);
        /* The schema is referenced until the answer is packed. */
        made[i].name = (char *)(uintptr_t)found[i].message->name;
        made[i].template_ = found[i].template;
        made[i].error = found[i].error;
        status = set_labels(&found[i], arena, &made[i]);
        entry->cfg_descriptors[i] = &made[i];
    }
    entry->n_cfg_descriptors = list->count;
    return status;
}

static mir_status add_devices(mir_request *request, const mir_schema_group *group,
                              const group_list *list, MirApi__V1__DevicesConfigs *entry,
                              size_t *bytes)
{
    mir_arena *arena = &request->arena;
    MirApi__V1__DeviceIdPair **ids;
    size_t count = 0;
    mir_status status = mir_schema_group_ids(group, arena, &ids, &count);
    if (status != MIR_OK) return status;
    entry->cfg_values = mir_arena_alloc(arena, (count + 1) * sizeof *entry->cfg_values);
    values_message *made = mir_arena_alloc(arena, (count + 1) * sizeof *made);
    if (entry->cfg_values == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count && status == MIR_OK; i++) {
        mir_api__v1__devices_configs__config_values__init(&made[i]);
        made[i].id = ids[i];
        if (group->error == NULL) status = set_values(list, group->records[i], &made[i]);
        entry->cfg_values[entry->n_cfg_values++] = &made[i];
        *bytes += protobuf_c_message_get_packed_size(&made[i].base);
        if (*bytes > (size_t)request->hub->config->limits.max_payload_bytes)
            status = MIR_E_TOO_LARGE;
    }
    return status;
}

static mir_status add_groups(mir_request *request, const mir_schema_group_list *groups,
                             MirApi__V1__ConfigsResponse *response, size_t *bytes)
{
    mir_status status = MIR_OK;
    for (mir_schema_group *group = groups->first; group != NULL && status == MIR_OK;
         group = group->next) {
        MirApi__V1__DevicesConfigs *entry = mir_arena_alloc(&request->arena, sizeof *entry);
        if (entry == NULL) return MIR_E_NO_MEMORY;
        mir_api__v1__devices_configs__init(entry);
        response->device_configs[response->n_device_configs++] = entry;
        group_list list = {.arena = &request->arena};
        if (group->error != NULL)
            entry->error = (char *)(uintptr_t)group->error;
        else
            status = set_descriptors(group, request->context, &list, entry);
        if (status == MIR_OK) status = add_devices(request, group, &list, entry, bytes);
    }
    return status;
}

static void list_answer(mir_request *request)
{
    mir_resolution *resolution = request->resolution;
    mir_schema_groups *groups = &resolution->groups;
    mir_status status = mir_resolution_collect(resolution);
    MirApi__V1__ConfigsResponse list = MIR_API__V1__CONFIGS_RESPONSE__INIT;
    list.device_configs =
        mir_arena_alloc(&request->arena, (groups->errors.count + groups->schemas.count + 1) *
                                             sizeof *list.device_configs);
    if (list.device_configs == NULL) status = MIR_E_NO_MEMORY;
    size_t bytes = 0;
    if (status == MIR_OK) status = add_groups(request, &groups->errors, &list, &bytes);
    if (status == MIR_OK) status = add_groups(request, &groups->schemas, &list, &bytes);
    if (status == MIR_OK) {
        MirApi__V1__SendListConfigResponse response = MIR_API__V1__SEND_LIST_CONFIG_RESPONSE__INIT;
        response.response_case = MIR_API__V1__SEND_LIST_CONFIG_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        mir_request_answer(request, &response.base);
    } else if (status == MIR_E_TOO_LARGE) {
        mir_request_fail(request,
                         "the answer would be larger than a message may be (%lld bytes): narrow "
                         "the target or filter by labels",
                         (long long)request->hub->config->limits.max_payload_bytes);
    } else {
        mir_request_fail(request, "error listing devices from db: %s", mir_status_name(status));
    }
    mir_resolution_free(resolution);
    mir_request_finish(request);
}

void mir_cfg_list(mir_request *request)
{
    MirApi__V1__SendListConfigRequest *input;
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {{0}};
    if (!mir_request_unpack(request, &mir_api__v1__send_list_config_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    if (mir_state_list(request->hub->state, input->targets, &request->arena, &records, &count,
                       &error) != MIR_OK) {
        mir_request_fail(request, "error listing devices from db: %s", error.text);
        count = 0;
    } else if (count == 0) {
        mir_request_fail(request, "no device found with current targets criteria");
    }
    if (count == 0) {
        mir_request_finish(request);
        return;
    }
    request->context = input;
    mir_resolve(request, records, count, input->refresh_schema, list_answer);
}

/* --- send ----------------------------------------------------------------------------------- */

typedef MirApi__V1__SendConfigResponse__ConfigResponse entry_message;
typedef MirApi__V1__SendConfigResponse__ConfigResponses__DeviceResponsesEntry entry_pair;

typedef enum entry_state { FINAL, READY } entry_state;

typedef struct target {
    entry_message entry;
    MirStore__V1__DeviceRecord *record; /* null: deleted meanwhile */
    mir_cfg_plan *plan;
    entry_state state;
} target;

typedef struct sending {
    MirApi__V1__SendConfigRequest *input;
    mir_cfg_wish wish;
    target *targets;
    size_t count;
    size_t next; /* of those that are stored next */
    size_t in_error;
    bool was_asked_again; /* for schemas that have the message */
    mir_state_property *slice;
    target **slice_targets;
    size_t slice_count;
} sending;

static void set_status(target *t, MirApi__V1__ConfigResponseStatus status)
{
    t->entry.has_status = 1;
    t->entry.status = status;
    t->state = FINAL;
}

static void fail_target(mir_request *request, target *t, const char *prefix, const char *cause)
{
    sending *all = request->context;
    size_t size = strlen(prefix) + strlen(cause) + 1;
    char *text = mir_arena_alloc(&request->arena, size);
    if (text != NULL) (void)snprintf(text, size, "%s%s", prefix, cause);
    set_status(t, MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_ERROR);
    t->entry.error = text == NULL ? (char *)(uintptr_t) "out of memory" : text;
    t->entry.name = NULL;
    t->entry.has_payload = 0;
    all->in_error++;
}

static void set_payload(target *t, mir_view payload)
{
    t->entry.has_payload = 1;
    t->entry.payload = (ProtobufCBinaryData){payload.size, (uint8_t *)(uintptr_t)payload.data};
}

static void send_answer(mir_request *request)
{
    sending *all = request->context;
    entry_pair **pairs = mir_arena_alloc(&request->arena, (all->count + 1) * sizeof *pairs);
    entry_pair *made = mir_arena_alloc(&request->arena, (all->count + 1) * sizeof *made);
    MirApi__V1__SendConfigResponse__ConfigResponses list =
        MIR_API__V1__SEND_CONFIG_RESPONSE__CONFIG_RESPONSES__INIT;
    bool failed = pairs == NULL || made == NULL;
    for (size_t i = 0; i < all->count && !failed; i++) {
        target *t = &all->targets[i];
        if (t->record == NULL) continue;
        size_t size = strlen(t->record->name) + strlen(t->record->namespace_) + 2;
        entry_pair *pair = &made[list.n_device_responses];
        mir_api__v1__send_config_response__config_responses__device_responses_entry__init(pair);
        pair->key = mir_arena_alloc(&request->arena, size);
        failed = pair->key == NULL;
        if (failed) break;
        (void)snprintf(pair->key, size, "%s/%s", t->record->name, t->record->namespace_);
        pair->value = &t->entry;
        pairs[list.n_device_responses++] = pair;
    }
    if (failed) {
        mir_request_fail(request, "the server is out of memory");
    } else {
        list.device_responses = pairs;
        list.has_encoding = 1;
        list.encoding = all->input->payload_encoding;
        MirApi__V1__SendConfigResponse response = MIR_API__V1__SEND_CONFIG_RESPONSE__INIT;
        response.response_case = MIR_API__V1__SEND_CONFIG_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        /* It is done: that is said even if what is stored now does not fit beside it. */
        size_t size_max = (size_t)request->hub->config->limits.max_payload_bytes;
        if (all->next != 0 &&
            protobuf_c_message_get_packed_size(&response.base) + MIR_CHAIN_BLOCK_BYTES_MAX >
                size_max)
            for (size_t i = 0; i < all->count; i++) all->targets[i].entry.has_payload = 0;
        mir_request_answer(request, &response.base);
    }
    mir_resolution_free(request->resolution);
    mir_request_finish(request);
}

/* What the entry of a stored property shows: the object as it is now, in the form asked for. */
static void show_stored(mir_request *request, target *t, const mir_state_property *stored)
{
    sending *all = request->context;
    set_status(t, MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_SUCCESS);
    t->entry.name = (char *)(uintptr_t)t->plan->message->name;
    t->entry.has_version = 1;
    t->entry.version = stored->version;
    if (all->wish.encoding == MIR_API__V1__ENCODING__ENCODING_PROTOBUF) {
        set_payload(t, t->plan->payload); /* it replaced what was there */
        return;
    }
    const char *copy = mir_arena_strdup(&request->arena, stored->merged);
    if (copy == NULL)
        fail_target(request, t, "error marshalling properties to json: ", "out of memory");
    else
        set_payload(t, mir_view_of(copy, stored->merged.size));
}

static void store_next(mir_request *request);

static void stored(mir_request *request)
{
    sending *all = request->context;
    mir_state_request *state = &request->state;
    static const char failed[] = "error updating device properties in store: ";
    if (state->status == MIR_OK)
        mir_events_of_changes(request->hub, state, request->header, &request->arena,
                              &request->letters);
    for (size_t i = 0; i < all->slice_count; i++) {
        target *t = all->slice_targets[i];
        const mir_state_property *of = &all->slice[i];
        const char *error = state->status == MIR_OK ? of->error : state->error;
        if (error != NULL) {
            fail_target(request, t, failed, error);
            continue;
        }
        /* A disabled device asks for it when it has been enabled. */
        if (!of->record->has_disabled || !of->record->disabled)
            mir_cfg_publish(request, t->plan, t->record->device_id, of->merged_ns);
        show_stored(request, t, of);
    }
    if (request->letters.failed) {
        request->letters.failed = false;
        for (size_t i = 0; i < all->slice_count; i++)
            if (all->slice_targets[i]->entry.error == NULL)
                fail_target(request, all->slice_targets[i],
                            "error during sent config request to device: ", "out of memory");
    }
    mir_request_tell(request);
    mir_arena_free(&state->arena);
    store_next(request);
}

/* Stores the next slice, or answers when there is none. */
static void store_next(mir_request *request)
{
    sending *all = request->context;
    int64_t now_ns = mir_clock_wall_ns();
    all->slice_count = 0;
    for (; all->next < all->count && all->slice_count < MIR_CFG_SLICE; all->next++) {
        target *t = &all->targets[all->next];
        if (t->record == NULL || t->state != READY) continue;
        all->slice_targets[all->slice_count] = t;
        all->slice[all->slice_count++] = (mir_state_property){
            .kind = t->plan->kind,
            .device_id = mir_view_cstr(t->record->device_id),
            .name = t->plan->message->name,
            .object = t->plan->object,
            .at_ns = now_ns,
            .has_if_version = all->input->has_if_version,
            .if_version = all->input->if_version,
        };
    }
    if (all->slice_count == 0) {
        send_answer(request);
        return;
    }
    request->state.op = MIR_STATE_PROPERTIES;
    request->state.properties.list = all->slice;
    request->state.properties.count = all->slice_count;
    mir_request_write(request, stored);
}

static bool version_differs(const sending *all, const target *t)
{
    return all->input->has_if_version && t->record->version != all->input->if_version;
}

/* One device, as far as that goes without storing anything. */
static void check_target(mir_request *request, target *t)
{
    sending *all = request->context;
    const MirApi__V1__SendConfigRequest *input = all->input;
    mir_cfg_plan *plan = t->plan;
    mir_view desired = bytes_view(t->record->has_desired_json, t->record->desired_json);
    t->entry.device_id = t->record->device_id;
    t->entry.has_version = 1;
    t->entry.version = t->record->version;
    if (plan->error != NULL) {
        fail_target(request, t, "", plan->error);
        return;
    }
    t->entry.name = (char *)(uintptr_t)plan->message->name;
    if (input->show_template || input->show_values) {
        mir_view shown = {NULL, 0};
        mir_status status = MIR_OK;
        if (!input->show_template)
            status = mir_state_property_find(desired, plan->message->name, &request->arena, &shown);
        if (status != MIR_OK) {
            fail_target(request, t,
                        "error marshalling config from device: ", mir_status_name(status));
            return;
        }
        set_status(t, MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_SUCCESS);
        set_payload(t, shown.size != 0 ? shown : mir_view_cstr(plan->template_));
        return;
    }
    if (version_differs(all, t)) {
        char text[MIR_ERROR_TEXT_BYTES_MAX];
        (void)snprintf(text, sizeof text, "device %s/%s has version %llu, not %llu",
                       t->record->name, t->record->namespace_,
                       (unsigned long long)t->record->version,
                       (unsigned long long)input->if_version);
        fail_target(request, t, "error updating device properties in store: ", text);
        return;
    }
    bool is_stored = false;
    if (input->send_only_different &&
        mir_cfg_plan_is_stored(plan, t->record, &request->arena, &is_stored) != MIR_OK) {
        fail_target(request, t, "error marshalling config from device: ", "out of memory");
        return;
    }
    if (is_stored) {
        set_status(t, MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_NOCHANGE);
        return;
    }
    set_status(t, MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_VALIDATED);
    t->entry.name = NULL;
    t->state = READY;
}

static void send_checked(mir_request *request)
{
    sending *all = request->context;
    bool failed = false;
    for (size_t i = 0; i < all->count && !failed; i++) {
        target *t = &all->targets[i];
        t->record = request->resolution->records[i];
        if (t->record == NULL) continue;
        mir_api__v1__send_config_response__config_response__init(&t->entry);
        mir_schema_group *group = request->resolution->group_of[i];
        if (group->context == NULL) group->context = mir_cfg_plan_make(request, group, &all->wish);
        t->plan = group->context;
        failed = t->plan == NULL;
        if (!failed) check_target(request, t);
    }
    all->slice = mir_arena_alloc(&request->arena, MIR_CFG_SLICE * sizeof *all->slice);
    all->slice_targets = mir_arena_alloc(&request->arena, MIR_CFG_SLICE * sizeof(target *));
    if (failed || all->slice == NULL || all->slice_targets == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_resolution_free(request->resolution);
        mir_request_finish(request);
        return;
    }
    if (all->input->dry_run || (all->in_error != 0 && !all->input->force_push))
        send_answer(request);
    else
        store_next(request);
}

/* Devices whose schema has no such message are asked once whether a newer one has. */
static void send_resolved(mir_request *request)
{
    sending *all = request->context;
    mir_resolution *resolution = request->resolution;
    size_t *places = mir_arena_alloc(&request->arena, (all->count + 1) * sizeof *places);
    size_t count = 0;
    for (size_t i = 0; places != NULL && i < all->count; i++) {
        mir_schema_group *group = resolution->group_of[i];
        if (group == NULL || all->input->refresh_schema) continue;
        if (group->context == NULL) group->context = mir_cfg_plan_make(request, group, &all->wish);
        const mir_cfg_plan *plan = group->context;
        if (plan != NULL && plan->is_unknown) places[count++] = i;
    }
    if (count == 0)
        send_checked(request);
    else
        mir_resolve_again(resolution, places, count, send_checked);
}

/* All that is wrong with the request, in one text; false when there was something. The texts speak
 * of commands, as those of commands do. */
static bool check(mir_request *request, const MirApi__V1__SendConfigRequest *input)
{
    bool has_encoding = input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_PROTOBUF ||
                        input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_JSON;
    bool needs_payload = !input->show_template && !input->show_values &&
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

void mir_cfg_send(mir_request *request)
{
    MirApi__V1__SendConfigRequest *input;
    sending *all = mir_arena_alloc(&request->arena, sizeof *all);
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {{0}};
    if (all == NULL) mir_request_fail(request, "the server is out of memory");
    if (all == NULL ||
        !mir_request_unpack(request, &mir_api__v1__send_config_request__descriptor, &input) ||
        !check(request, input)) {
        mir_request_finish(request);
        return;
    }
    if (mir_state_list(request->hub->state, input->targets, &request->arena, &records, &count,
                       &error) != MIR_OK) {
        mir_request_fail(request, "error sending config to devices: %s", error.text);
        count = 0;
    } else if (count == 0) {
        mir_request_fail(request, "error sending config to devices: no device found with current "
                                  "targets criteria");
    }
    if (count != 0) {
        all->targets = mir_arena_alloc(&request->arena, count * sizeof *all->targets);
        if (all->targets == NULL) mir_request_fail(request, "the server is out of memory");
    }
    if (all->targets == NULL) {
        mir_request_finish(request);
        return;
    }
    all->input = input;
    all->count = count;
    mir_cfg_wish_cut(input->name);
    all->wish = (mir_cfg_wish){
        .name = input->name,
        .payload = bytes_view(input->has_payload, input->payload),
        .encoding = input->payload_encoding,
        .show_template = input->show_template,
        .show_values = input->show_values,
    };
    request->context = all;
    mir_resolve(request, records, count, input->refresh_schema, send_resolved);
}
