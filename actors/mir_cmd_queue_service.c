/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_api/v1/cmd.pb-c.h"
#include "mir_cmd_queue.h"
#include "mir_cmd_service.h"
#include "mir_json_codec.h"
#include "mir_resolve.h"
#include "mir_timestamp.h"

/* How many are cancelled at once, and how much of a message is left for what is not a record. */
enum { IDS_MAX = 10000, CANCELLED_AT_ONCE = 10000, ANSWER_BYTES_ELSE = 8192 };

/* How many a worker looks at, and how many it shows, before others have their turn: there may be a
 * million. It is done at the priority of other requests; on a machine that is busy, whoever has to give
 * way comes too late to cancel anything. */
enum { LOOKED_AT_ONCE = 1024, SHOWN_AT_ONCE = 256 };

typedef struct queue_query {
    mir_command_filter filter;
    mir_command_listing list;
    bool has_limit;
    mir_request_handler then; /* once the list is made */
} queue_query;

static void fail_list(mir_request *request, const char *what, mir_status status,
                      const mir_error *error)
{
    mir_request_fail(request, "error %s: %s", what,
                     error->text[0] == '\0' ? mir_status_name(status) : error->text);
    mir_request_finish(request);
}

static void look(mir_request *request)
{
    queue_query *q = request->context;
    if (atomic_load_explicit(&request->hub->stopping, memory_order_relaxed)) {
        mir_request_fail(request, "the server is stopping");
        mir_request_finish(request);
        return;
    }
    mir_error error = {{0}};
    mir_status status = mir_command_list(request->hub->state, &q->filter, LOOKED_AT_ONCE,
                                         &request->arena, &q->list, &error);
    if (status != MIR_OK)
        fail_list(request, "listing queued commands", status, &error);
    else
        mir_request_continue(request, q->list.is_over ? q->then : look, false);
}

static int compare_texts(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* False when the request was answered. */
static bool set_ids(mir_request *request, char **ids, size_t count, mir_command_filter *filter)
{
    if (count == 0) return true;
    if (count > IDS_MAX) {
        mir_request_fail(request, "%zu command ids in one request: use at most %d", count, IDS_MAX);
        return false;
    }
    qsort(ids, count, sizeof *ids, compare_texts);
    filter->ids = (const char *const *)ids;
    filter->id_count = count;
    return true;
}

/* Fills the filter's devices; false when the request was answered. */
static bool set_devices(mir_request *request, const MirApi__V1__DeviceTarget *target,
                        mir_command_filter *filter)
{
    if (mir_state_target_is_empty(target)) return true;
    MirStore__V1__DeviceRecord **records;
    size_t count;
    mir_error error = {{0}};
    if (mir_state_list(request->hub->state, target, &request->arena, &records, &count, &error) !=
        MIR_OK) {
        mir_request_fail(request, "error listing devices from db: %s", error.text);
        return false;
    }
    const char **ids = mir_arena_alloc(&request->arena, (count + 1) * sizeof *ids);
    if (ids == NULL) {
        mir_request_fail(request, "the server is out of memory");
        return false;
    }
    for (size_t i = 0; i < count; i++) ids[i] = records[i]->device_id;
    qsort(ids, count, sizeof *ids, compare_texts);
    filter->device_ids = ids;
    filter->device_count = count;
    return true;
}

/* --- as the API shows them ------------------------------------------------------------------ */

typedef struct showing {
    mir_request *request;
    mir_schema_groups groups;
    MirApi__V1__QueuedCommands list;
    const mir_command_listing *from;
    size_t shown; /* so many of these */
} showing;

static char *json_of(showing *show, const mir_schema *schema, const char *name, mir_view payload)
{
    const mir_schema_message *message;
    mir_error error;
    mir_bytes json = {0};
    char *copy = NULL;
    if (name == NULL || mir_schema_find(schema, mir_view_cstr(name), &message, &error) != MIR_OK)
        return NULL;
    if (mir_json_from_proto(message, payload, MIR_JSON_DEFAULTS_OMITTED, &json, &error) == MIR_OK)
        copy = mir_arena_strdup(&show->request->arena, mir_bytes_as_view(&json));
    mir_bytes_free(&json);
    return copy;
}

/* What the device's present schema can tell; without one there are the bytes. */
static void set_json(showing *show, const mir_command_record *record, MirApi__V1__QueuedCommand *to)
{
    mir_hub *hub = show->request->hub;
    MirStore__V1__DeviceRecord *device;
    mir_schema_group *group;
    mir_error error;
    if (mir_state_get(hub->state, mir_view_cstr(record->device_id), &show->request->arena, &device,
                      &error) != MIR_OK ||
        mir_resolve_schema_hash(device).size == 0 ||
        mir_resolve_stored(hub, &show->groups, device, &group) != MIR_OK || group->schema == NULL)
        return;
    to->payload_json = json_of(show, group->schema, record->message,
                               mir_view_of(record->payload.data, record->payload.len));
    to->response_json =
        json_of(show, group->schema, record->response_name,
                mir_view_of(record->response_payload.data, record->response_payload.len));
}

static MirApi__V1__Timestamp *time_of(showing *show, const MirStore__V1__Time *time)
{
    return mir_timestamp_new(&show->request->arena, mir_command_time_ns(time));
}

static mir_status set_steps(showing *show, const mir_command_record *record,
                            MirApi__V1__QueuedCommand *to)
{
    mir_arena *arena = &show->request->arena;
    to->steps = mir_arena_alloc(arena, (record->n_steps + 1) * sizeof *to->steps);
    MirApi__V1__QueuedCommand__Step *steps =
        mir_arena_alloc(arena, (record->n_steps + 1) * sizeof *steps);
    if (to->steps == NULL || steps == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < record->n_steps; i++) {
        mir_api__v1__queued_command__step__init(&steps[i]);
        steps[i].has_state = 1;
        steps[i].state = (MirApi__V1__QueuedCommandState)record->steps[i]->state;
        steps[i].at = time_of(show, record->steps[i]->at);
        to->steps[i] = &steps[i];
    }
    to->n_steps = record->n_steps;
    return MIR_OK;
}

/* Strings are the record's. */
static mir_status add_record(showing *show, const mir_command_record *record)
{
    mir_arena *arena = &show->request->arena;
    MirApi__V1__QueuedCommand *to = mir_arena_alloc(arena, sizeof *to);
    MirApi__V1__DeviceIdPair *device = mir_arena_alloc(arena, sizeof *device);
    if (to == NULL || device == NULL) return MIR_E_NO_MEMORY;
    mir_api__v1__queued_command__init(to);
    mir_api__v1__device_id_pair__init(device);
    device->device_id = record->device_id;
    device->name = record->device_name;
    device->namespace_ = record->namespace_;
    to->id = record->id;
    to->device = device;
    to->name = record->message;
    to->has_payload = to->has_state = 1;
    to->payload = record->payload;
    to->state = (MirApi__V1__QueuedCommandState)mir_command_state_of(record);
    to->expires_at = time_of(show, record->expires);
    to->error = record->error;
    to->response_name = record->response_name;
    to->has_response_payload = record->response_name != NULL;
    to->response_payload = record->response_payload;
    to->actor = record->actor;
    set_json(show, record, to);
    show->list.commands[show->list.n_commands++] = to;
    return set_steps(show, record, to);
}

static mir_status begin_showing(showing *show, mir_request *request, size_t count)
{
    *show = (showing){.request = request, .groups = {.arena = &request->arena}};
    mir_api__v1__queued_commands__init(&show->list);
    show->list.commands =
        mir_arena_alloc(&request->arena, (count + 1) * sizeof *show->list.commands);
    return show->list.commands == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

/* --- list ----------------------------------------------------------------------------------- */

static size_t bytes_max_of(const mir_request *request)
{
    size_t bytes_max = (size_t)request->hub->config->limits.max_payload_bytes;
    /* Payloads are shown as bytes and as JSON. */
    return bytes_max > 4 * ANSWER_BYTES_ELSE ? (bytes_max - ANSWER_BYTES_ELSE) / 3 : bytes_max / 4;
}

static void list_answer(mir_request *request)
{
    showing *show = request->context;
    MirApi__V1__ListQueuedCommandsResponse response =
        MIR_API__V1__LIST_QUEUED_COMMANDS_RESPONSE__INIT;
    response.response_case = MIR_API__V1__LIST_QUEUED_COMMANDS_RESPONSE__RESPONSE_OK;
    response.ok = &show->list;
    mir_request_answer(request, &response.base);
    mir_schema_groups_free(&show->groups);
    mir_request_finish(request);
}

static void show_more(mir_request *request)
{
    showing *show = request->context;
    mir_status status = MIR_OK;
    for (size_t i = 0; i < SHOWN_AT_ONCE && status == MIR_OK && show->shown < show->from->count;
         i++)
        status = add_record(show, show->from->records[show->shown++]);
    if (status != MIR_OK) {
        mir_error none = {{0}};
        mir_schema_groups_free(&show->groups);
        fail_list(request, "listing queued commands", status, &none);
    } else if (show->shown < show->from->count) {
        mir_request_continue(request, show_more, false);
    } else {
        list_answer(request);
    }
}

static void listed(mir_request *request)
{
    const queue_query *q = request->context;
    if (q->list.cut && !q->has_limit) {
        mir_request_fail(request,
                         "the answer would be larger than a message may be (%lld bytes): "
                         "narrow the target, the states or give a limit",
                         (long long)request->hub->config->limits.max_payload_bytes);
        mir_request_finish(request);
        return;
    }
    showing *show = mir_arena_alloc(&request->arena, sizeof *show);
    if (show == NULL || begin_showing(show, request, q->list.count) != MIR_OK) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    show->from = &q->list;
    request->context = show;
    show_more(request);
}

void mir_cmd_queue_list(mir_request *request)
{
    MirApi__V1__ListQueuedCommandsRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__list_queued_commands_request__descriptor,
                            &input)) {
        mir_request_finish(request);
        return;
    }
    queue_query *q = mir_arena_alloc(&request->arena, sizeof *q);
    if (q == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    q->then = listed;
    q->has_limit = input->limit != 0;
    q->filter = (mir_command_filter){.rows_max = input->limit, .bytes_max = bytes_max_of(request)};
    for (size_t i = 0; i < input->n_states; i++)
        if ((unsigned)input->states[i] < 32) q->filter.states |= 1u << input->states[i];
    if (!set_ids(request, input->command_ids, input->n_command_ids, &q->filter) ||
        !set_devices(request, input->targets, &q->filter)) {
        mir_request_finish(request);
        return;
    }
    request->context = q;
    look(request);
}

/* --- cancel --------------------------------------------------------------------------------- */

typedef struct cancelling {
    queue_query query;
    mir_command_steps steps;
    mir_cmd_note *notes;
} cancelling;

static void cancelled(mir_request *request)
{
    cancelling *c = request->context;
    if (request->state.status != MIR_OK) {
        mir_request_fail(request, "error cancelling commands: %s", request->state.error);
        mir_request_finish(request);
        return;
    }
    showing show = {0};
    mir_status status = begin_showing(&show, request, c->steps.count);
    mir_cmd_queue_calls calls = {.hub = request->hub};
    for (size_t i = 0; status == MIR_OK && i < c->steps.count; i++) {
        const mir_command_step *step = &c->steps.list[i];
        /* Sent, or over its time, just then. */
        if (step->status != MIR_OK) continue;
        /* Its queue may go; without memory it stays until the device's next sign. */
        (void)!mir_cmd_queue_calls_add(&calls, mir_view_cstr(step->record->device_id));
        mir_cmd_queue_tell(request->hub, &c->notes[i], step->event, &request->letters);
        status = add_record(&show, step->record);
    }
    mir_cmd_queue_calls_go(&calls);
    if (status == MIR_OK) {
        MirApi__V1__CancelQueuedCommandsResponse response =
            MIR_API__V1__CANCEL_QUEUED_COMMANDS_RESPONSE__INIT;
        response.response_case = MIR_API__V1__CANCEL_QUEUED_COMMANDS_RESPONSE__RESPONSE_OK;
        response.ok = &show.list;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "the commands are cancelled, but the server is out of memory for "
                                  "the answer");
    }
    mir_schema_groups_free(&show.groups);
    mir_request_finish(request);
}

static mir_status prepare_cancel(mir_request *request, cancelling *c, size_t count)
{
    mir_arena *arena = &request->arena;
    mir_command_step *list = mir_arena_alloc(arena, (count + 1) * sizeof *list);
    c->notes = mir_arena_alloc(arena, (count + 1) * sizeof *c->notes);
    if (list == NULL || c->notes == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        c->notes[i] = (mir_cmd_note){.record = c->query.list.records[i],
                                     .state = MIR_COMMAND_CANCELLED,
                                     .cause = &request->cause};
        list[i] = (mir_command_step){.number = c->query.list.records[i]->number,
                                     .from = MIR_COMMAND_QUEUED,
                                     .to = MIR_COMMAND_CANCELLED};
        mir_status status = mir_cmd_queue_event(request->hub, &c->notes[i], arena, &list[i].event);
        if (status != MIR_OK) return status;
    }
    c->steps = (mir_command_steps){list, count};
    return MIR_OK;
}

static void cancel_listed(mir_request *request)
{
    cancelling *c = MIR_CONTAINER((queue_query *)request->context, cancelling, query);
    mir_error error = {{0}};
    if (c->query.list.cut) {
        mir_request_fail(request,
                         "more than %d commands would be cancelled, or more than an answer can "
                         "show: narrow the target",
                         CANCELLED_AT_ONCE);
        mir_request_finish(request);
        return;
    }
    mir_status status = prepare_cancel(request, c, c->query.list.count);
    if (status != MIR_OK) {
        fail_list(request, "cancelling commands", status, &error);
        return;
    }
    request->context = c;
    mir_command_prepare_steps(&request->state, &c->steps);
    request->writes_events = true;
    mir_request_write(request, cancelled);
}

void mir_cmd_queue_cancel(mir_request *request)
{
    MirApi__V1__CancelQueuedCommandsRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__cancel_queued_commands_request__descriptor,
                            &input)) {
        mir_request_finish(request);
        return;
    }
    if (input->n_command_ids == 0 && mir_state_target_is_empty(input->targets)) {
        mir_request_fail(request, "error occure because of bad request: [No device target and no "
                                  "command id provided]");
        mir_request_finish(request);
        return;
    }
    cancelling *c = mir_arena_alloc(&request->arena, sizeof *c);
    if (c == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    c->query.then = cancel_listed;
    c->query.filter = (mir_command_filter){.states = 1u << MIR_COMMAND_QUEUED,
                                           .rows_max = CANCELLED_AT_ONCE,
                                           .bytes_max = bytes_max_of(request)};
    if (!set_ids(request, input->command_ids, input->n_command_ids, &c->query.filter) ||
        !set_devices(request, input->targets, &c->query.filter)) {
        mir_request_finish(request);
        return;
    }
    request->context = &c->query;
    look(request);
}
