/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cfg_plan.h"

#include <stdio.h>
#include <time.h>

#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_json_normal.h"
#include "mir_log.h"
#include "mir_timestamp.h"

enum { KNOWN_NAMES_BYTES_MAX = 1024 };

#define DESCRIPTOR "error retrieve config descriptor from device schema: "

void mir_cfg_wish_cut(char *name)
{
    char *brace = name == NULL ? NULL : strchr(name, '{');
    if (brace != NULL) *brace = '\0';
}

static const char *joined(mir_request *request, const char *prefix, const char *cause)
{
    size_t size = strlen(prefix) + strlen(cause) + 1;
    char *text = mir_arena_alloc(&request->arena, size);
    if (text == NULL) return "out of memory";
    (void)snprintf(text, size, "%s%s", prefix, cause);
    return text;
}

static void list_known(const mir_schema *schema, char *text, size_t size)
{
    uint32_t count = 0;
    const mir_schema_message *const *list = mir_schema_list(schema, MIR_MESSAGE_TELECONFIG, &count);
    size_t used = 0;
    if (count == 0) (void)snprintf(text, size, "its schema has no configuration");
    for (uint32_t i = 0; i < count; i++) {
        if (used + list[i]->name_size + 40 > size) {
            (void)snprintf(text + used, size - used, " and %u more", count - i);
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0 ? "its configuration has " : ", ", list[i]->name);
    }
}

/* Any message of the schema can be a property: which ones are meant for it is not enforced. */
static void find_message(mir_request *request, const mir_schema *schema, const char *name,
                         mir_cfg_plan *plan)
{
    mir_error error = {""};
    mir_status status = mir_schema_find(schema, mir_view_cstr(name), &plan->message, &error);
    if (status == MIR_E_NOT_FOUND) {
        mir_error ambiguous = {""};
        status = mir_schema_find_short(schema, mir_view_cstr(name), &plan->message, &ambiguous);
        if (status == MIR_E_INVALID) error = ambiguous;
    }
    if (status == MIR_OK) return;
    plan->message = NULL;
    plan->is_unknown = status == MIR_E_NOT_FOUND;
    char known[KNOWN_NAMES_BYTES_MAX], text[2 * KNOWN_NAMES_BYTES_MAX + MIR_ERROR_TEXT_BYTES_MAX];
    list_known(schema, known, sizeof known);
    (void)snprintf(text, sizeof text,
                   "cannot reconcile device schema: %s: the device has no message %.*s; %s",
                   error.text, MIR_CFG_NAME_BYTES_MAX, name, known);
    plan->error = joined(request, DESCRIPTOR, text);
}

static mir_status copy_bytes(mir_arena *arena, const mir_bytes *bytes, mir_view *copy)
{
    char *made = mir_arena_strdup(arena, mir_bytes_as_view(bytes));
    *copy = mir_view_of(made, bytes->size);
    return made == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

static void read_payload(mir_request *request, const mir_cfg_wish *wish, mir_cfg_plan *plan)
{
    mir_error error = {""};
    mir_bytes object = {0}, payload = {0};
    mir_status status;
    if (wish->encoding == MIR_API__V1__ENCODING__ENCODING_JSON) {
        plan->kind = MIR_STATE_PROPERTY_SEND;
        status = mir_json_normalize(plan->message, wish->payload, &object, &payload, &error);
    } else {
        /* The whole message: what it leaves out has its default from now on. */
        plan->kind = MIR_STATE_PROPERTY_REPLACE;
        mir_bytes_view(&payload, wish->payload);
        status = mir_json_check_proto(plan->message, wish->payload, &error);
        if (status == MIR_OK)
            status = mir_json_normal_of_proto(plan->message, wish->payload,
                                              MIR_JSON_DEFAULTS_EMITTED, &object, &error);
    }
    if (status == MIR_OK) status = copy_bytes(&request->arena, &object, &plan->object);
    if (status == MIR_OK) status = copy_bytes(&request->arena, &payload, &plan->payload);
    if (status != MIR_OK)
        plan->error = joined(request, "error unmarshaling payload: ",
                             error.text[0] == '\0' ? mir_status_name(status) : error.text);
    mir_bytes_free(&object);
    mir_bytes_free(&payload);
}

static void draw_template(mir_request *request, mir_cfg_plan *plan)
{
    mir_error error = {""};
    mir_bytes text = {0};
    mir_view copy = {NULL, 0};
    mir_status status = mir_json_template(plan->message, MIR_JSON_TEMPLATE_SAMPLES, &text, &error);
    if (status == MIR_OK) status = copy_bytes(&request->arena, &text, &copy);
    plan->template_ = (const char *)copy.data;
    if (status != MIR_OK)
        plan->error = joined(request, "error generating config template from device schema: ",
                             error.text[0] == '\0' ? mir_status_name(status) : error.text);
    mir_bytes_free(&text);
}

mir_cfg_plan *mir_cfg_plan_make(mir_request *request, const mir_schema_group *group,
                                const mir_cfg_wish *wish)
{
    mir_cfg_plan *plan = mir_arena_alloc(&request->arena, sizeof *plan);
    if (plan == NULL) return NULL;
    if (group->error != NULL) {
        plan->error = joined(request, DESCRIPTOR, group->error);
        return plan;
    }
    find_message(request, group->schema, wish->name, plan);
    if (plan->message == NULL) return plan;
    if (wish->show_template || wish->show_values)
        draw_template(request, plan);
    else
        read_payload(request, wish, plan);
    return plan;
}

mir_status mir_cfg_plan_is_stored(mir_cfg_plan *plan, const MirStore__V1__DeviceRecord *record,
                                  mir_arena *arena, bool *is_stored)
{
    mir_view stored = {NULL, 0};
    *is_stored = false;
    if (!record->has_desired_json) return MIR_OK;
    mir_status status =
        mir_state_property_find(mir_view_of(record->desired_json.data, record->desired_json.len),
                                plan->message->name, arena, &stored);
    if (status != MIR_OK || stored.size == 0) return status;
    if (plan->compared.size == 0 || !mir_view_eq(plan->compared, stored)) {
        status = mir_json_same_message(plan->message, plan->object, stored, &plan->is_same);
        if (status != MIR_OK) return status;
        plan->compared = stored;
    }
    *is_stored = plan->is_same;
    return MIR_OK;
}

static void publish(mir_request *request, const char *name, mir_view payload, const char *device_id,
                    int64_t at_ns)
{
    char block[MIR_CHAIN_BLOCK_BYTES_MAX + MIR_CFG_NAME_BYTES_MAX + 128];
    char subject[MIR_DEVICE_ID_BYTES_MAX + 32], time[64] = "0001-01-01T00:00:00Z";
    int time_size = (int)strlen(time);
    if (at_ns != 0)
        time_size =
            mir_timestamp_format(at_ns / MIR_NS_PER_S, (int32_t)(at_ns % MIR_NS_PER_S), time);
    size_t size = mir_chain_block(request->header, mir_hub_instance(request->hub), block);
    size =
        mir_block_add(block, size, sizeof block, "mir-time", mir_view_of(time, (size_t)time_size));
    size = mir_block_add(block, size, sizeof block, "mir-msg", mir_view_cstr(name));
    int subject_size = snprintf(subject, sizeof subject, "%s.v1alpha.config", device_id);
    if (size == 0 || time_size <= 0) {
        request->letters.failed = true;
        return;
    }
    mir_letters_add(&request->letters, mir_view_of(subject, (size_t)subject_size), (mir_view){0},
                    mir_view_of(block, size), payload);
}

void mir_cfg_publish(mir_request *request, const mir_cfg_plan *plan, const char *device_id,
                     int64_t at_ns)
{
    publish(request, plan->message->name, plan->payload, device_id, at_ns);
}

void mir_cfg_publish_stored(mir_request *request, const MirStore__V1__DeviceRecord *record)
{
    mir_known_schema known = {0};
    mir_error error = {""};
    json_t *desired = NULL;
    /* Without a schema nothing was sent to it, and the device asks when it has one. */
    if (!record->has_desired_json || !record->has_schema_hash) return;
    if (mir_schemas_get(request->hub->schemas,
                        mir_view_of(record->schema_hash.data, record->schema_hash.len), &known,
                        &error) != MIR_OK ||
        mir_json_parse(mir_view_of(record->desired_json.data, record->desired_json.len), &desired,
                       &error) != MIR_OK) {
        mir_log_warn("device %s: its configuration is not sent: %s", record->device_id, error.text);
        mir_schema_unref(known.schema);
        return;
    }
    const char *name;
    json_t *value;
    json_object_foreach(desired, name, value)
    {
        const mir_schema_message *of = NULL;
        mir_bytes object = {0}, payload = {0};
        /* What the schema cannot read any more is left out, as it is when the device asks. */
        if (mir_schema_find(known.schema, mir_view_cstr(name), &of, &error) == MIR_OK &&
            mir_json_generic(value, &object, NULL) == MIR_OK &&
            mir_json_to_proto(of, mir_bytes_as_view(&object), &payload, &error) == MIR_OK)
            publish(request, of->name, mir_bytes_as_view(&payload), record->device_id,
                    mir_state_property_time_ns(record, false, of->name));
        mir_bytes_free(&object);
        mir_bytes_free(&payload);
    }
    json_decref(desired);
    mir_schema_unref(known.schema);
}
