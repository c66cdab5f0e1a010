/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cfg_update.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_cfg_plan.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_json_codec.h"
#include "mir_resolve.h"

enum { PROBLEMS_SHOWN_MAX = 20 };

typedef struct checking {
    MirApi__V1__UpdateDeviceRequest *update;
    mir_request_handler then;
    mir_cfg_wish *wishes; /* one for each property of the update */
    const char **keys;
    size_t wish_count;
    mir_cfg_plan **plans; /* of request->state.with */
    mir_bytes problems;
    size_t problem_count;
} checking;

/* The one whose update is being checked or was committed; the request's context is its handler's. */
static checking *checking_of(mir_request *request)
{
    return request->context;
}

bool mir_cfg_update_has(const MirApi__V1__UpdateDeviceRequest *update)
{
    return update->props != NULL && update->props->desired != NULL &&
           update->props->desired->n_fields != 0;
}

static void end(mir_request *request)
{
    mir_bytes_free(&checking_of(request)->problems);
    mir_request_finish(request);
}

static mir_status read_wishes(mir_request *request, checking *c)
{
    json_t *desired = NULL;
    size_t field_count = c->update->props->desired->n_fields;
    c->wishes = mir_arena_alloc(&request->arena, field_count * sizeof *c->wishes);
    c->keys = mir_arena_alloc(&request->arena, field_count * sizeof *c->keys);
    if (c->wishes == NULL || c->keys == NULL) return MIR_E_NO_MEMORY;
    mir_status status = mir_struct_to_json(c->update->props->desired, &desired);
    const char *key;
    json_t *value;
    json_object_foreach(desired, key, value)
    {
        mir_bytes text = {0};
        if (status == MIR_OK) status = mir_json_generic(value, &text, NULL);
        char *name = mir_arena_strdup(&request->arena, mir_view_cstr(key));
        char *copy = mir_arena_strdup(&request->arena, mir_bytes_as_view(&text));
        c->keys[c->wish_count] = mir_arena_strdup(&request->arena, mir_view_cstr(key));
        if (name == NULL || copy == NULL || c->keys[c->wish_count] == NULL)
            status = MIR_E_NO_MEMORY;
        mir_cfg_wish_cut(name);
        c->wishes[c->wish_count++] = (mir_cfg_wish){
            .name = name,
            .payload = mir_view_of(copy, text.size),
            .encoding = MIR_API__V1__ENCODING__ENCODING_JSON,
        };
        mir_bytes_free(&text);
    }
    json_decref(desired);
    return status;
}

static void add_problem(checking *c, const char *key, const MirStore__V1__DeviceRecord *record,
                        const char *text)
{
    if (c->problem_count++ >= PROBLEMS_SHOWN_MAX) return;
    mir_bytes_printf(&c->problems, "%serror validating config '%s' to device %s/%s: %s",
                     c->problem_count == 1 ? "" : "\n", key, record->name, record->namespace_,
                     text);
}

/* The plans of a group, one for each property; null without memory. */
static mir_cfg_plan **plans_of(mir_request *request, mir_schema_group *group)
{
    checking *c = checking_of(request);
    if (group->context != NULL) return group->context;
    mir_cfg_plan **plans = mir_arena_alloc(&request->arena, c->wish_count * sizeof(mir_cfg_plan *));
    for (size_t i = 0; plans != NULL && i < c->wish_count; i++) {
        plans[i] = mir_cfg_plan_make(request, group, &c->wishes[i]);
        if (plans[i] == NULL) return NULL;
    }
    group->context = plans;
    return plans;
}

typedef struct planned {
    const MirStore__V1__DeviceRecord *record;
    mir_cfg_plan **plans;
} planned;

static int compare_planned(const void *a, const void *b)
{
    const planned *x = a, *y = b;
    return strcmp(x->record->device_id, y->record->device_id);
}

/* What of the plans the device does not have already. */
static mir_status add_properties(mir_request *request, mir_cfg_plan **plans,
                                 const MirStore__V1__DeviceRecord *record, int64_t now_ns)
{
    checking *c = checking_of(request);
    mir_state_request *state = &request->state;
    for (size_t i = 0; i < c->wish_count; i++) {
        bool is_stored = false;
        mir_status status = mir_cfg_plan_is_stored(plans[i], record, &request->arena, &is_stored);
        if (status != MIR_OK) return status;
        if (is_stored) continue;
        c->plans[state->with_count] = plans[i];
        state->with[state->with_count++] = (mir_state_property){
            .kind = plans[i]->kind,
            .device_id = mir_view_cstr(record->device_id),
            .name = plans[i]->message->name,
            .object = plans[i]->object,
            .at_ns = now_ns,
        };
    }
    return MIR_OK;
}

static mir_status check_all(mir_request *request)
{
    checking *c = checking_of(request);
    mir_resolution *resolution = request->resolution;
    planned *sorted = mir_arena_alloc(&request->arena, (resolution->count + 1) * sizeof *sorted);
    size_t count = 0;
    if (sorted == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < resolution->count; i++) {
        if (resolution->records[i] == NULL) continue;
        mir_cfg_plan **plans = plans_of(request, resolution->group_of[i]);
        if (plans == NULL) return MIR_E_NO_MEMORY;
        for (size_t k = 0; k < c->wish_count; k++)
            if (plans[k]->error != NULL)
                add_problem(c, c->keys[k], resolution->records[i], plans[k]->error);
        sorted[count++] = (planned){resolution->records[i], plans};
    }
    if (c->problem_count != 0) return MIR_E_INVALID;
    request->state.with =
        mir_arena_alloc(&request->arena, (count * c->wish_count + 1) * sizeof(mir_state_property));
    c->plans =
        mir_arena_alloc(&request->arena, (count * c->wish_count + 1) * sizeof(mir_cfg_plan *));
    if (request->state.with == NULL || c->plans == NULL) return MIR_E_NO_MEMORY;
    qsort(sorted, count, sizeof *sorted, compare_planned);
    int64_t now_ns = mir_clock_wall_ns();
    for (size_t i = 0; i < count; i++) {
        mir_status status = add_properties(request, sorted[i].plans, sorted[i].record, now_ns);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

static void checked(mir_request *request)
{
    checking *c = checking_of(request);
    mir_status status = check_all(request);
    if (status == MIR_OK) {
        c->then(request);
        return;
    }
    if (status == MIR_E_INVALID && c->problem_count > PROBLEMS_SHOWN_MAX)
        mir_bytes_printf(&c->problems, "\nand %zu more", c->problem_count - PROBLEMS_SHOWN_MAX);
    if (status == MIR_E_INVALID && mir_bytes_ok(&c->problems))
        mir_request_fail(request, "%.*s", (int)c->problems.size, (const char *)c->problems.data);
    else
        mir_request_fail(request, "error updating device: the server is out of memory");
    end(request);
}

/* Devices whose schema lacks a message are asked once whether a newer one has it. */
static void resolved(mir_request *request)
{
    checking *c = checking_of(request);
    mir_resolution *resolution = request->resolution;
    size_t *places = mir_arena_alloc(&request->arena, (resolution->count + 1) * sizeof *places);
    size_t count = 0;
    for (size_t i = 0; places != NULL && i < resolution->count; i++) {
        mir_schema_group *group = resolution->group_of[i];
        mir_cfg_plan **plans = group == NULL ? NULL : plans_of(request, group);
        bool is_unknown = false;
        for (size_t k = 0; plans != NULL && k < c->wish_count; k++)
            is_unknown = is_unknown || plans[k]->is_unknown;
        if (is_unknown) places[count++] = i;
    }
    if (count == 0)
        checked(request);
    else
        mir_resolve_again(resolution, places, count, checked);
}

void mir_cfg_update_check(mir_request *request, MirApi__V1__UpdateDeviceRequest *update,
                          mir_request_handler then)
{
    checking *c = mir_arena_alloc(&request->arena, sizeof *c);
    if (c == NULL) {
        mir_request_fail(request, "error updating device: the server is out of memory");
        mir_request_finish(request);
        return;
    }
    c->update = update;
    c->then = then;
    request->context = c;
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {""};
    const char *key = update->props->desired->fields[0]->key;
    if (key == NULL) key = "";
    const MirApi__V1__DeviceTarget *target = update->targets;
    if (read_wishes(request, c) != MIR_OK)
        mir_request_fail(request,
                         "error updating device: the desired properties need too much memory");
    else if (target == NULL ||
             (target->n_ids == 0 && target->n_names == 0 && target->n_namespaces == 0 &&
              target->n_labels == 0 && target->n_schemas == 0 && target->n_liveness == 0))
        mir_request_fail(request,
                         "error validating config '%s' to cfg module: error occure because of bad "
                         "request: [No device target provided]",
                         key);
    else if (mir_state_list(request->hub->state, target, &request->arena, &records, &count,
                            &error) != MIR_OK)
        mir_request_fail(request,
                         "error validating config '%s' to cfg module: error sending config to "
                         "devices: %s",
                         key, error.text);
    else if (count == 0)
        mir_request_fail(request,
                         "error validating config '%s' to cfg module: error sending config to "
                         "devices: no device found with current targets criteria",
                         key);
    else if (count > MIR_CFG_UPDATE_MAX / c->wish_count)
        mir_request_fail(request,
                         "error updating device: %zu properties of %zu devices in one update: "
                         "narrow the target or send the configuration",
                         c->wish_count, count);
    else {
        mir_resolve(request, records, count, false, resolved);
        return;
    }
    end(request);
}

void mir_cfg_update_publish(mir_request *request)
{
    const checking *c = checking_of(request);
    const mir_state_request *state = &request->state;
    for (size_t i = 0; i < state->with_count; i++) {
        const mir_state_property *of = &state->with[i];
        if (!of->changed || of->record == NULL) continue;
        if (of->record->has_disabled && of->record->disabled) continue;
        mir_cfg_publish(request, c->plans[i], of->record->device_id, of->merged_ns);
    }
}
