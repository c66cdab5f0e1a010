/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_evt_service.h"

#include "mir_api/v1/event.pb-c.h"
#include "mir_clock.h"
#include "mir_device_json.h"
#include "mir_event_store.h"
#include "mir_timestamp.h"

/* Of a message, beside its events. */
enum { ANSWER_BYTES_ELSE = 4096 + MIR_CHAIN_BLOCK_BYTES_MAX };

static mir_event_bounds bounds_of(const mir_request *request)
{
    size_t bytes_max = (size_t)request->hub->config->limits.max_payload_bytes;
    return (mir_event_bounds){.bytes_max = bytes_max > 2 * ANSWER_BYTES_ELSE
                                               ? bytes_max - ANSWER_BYTES_ELSE
                                               : bytes_max / 2,
                              .stop = &request->hub->stopping};
}

static void set_list(MirApi__V1__Events *events, const mir_event_list *list)
{
    events->events = list->events;
    events->n_events = list->count;
    events->has_newest_sequence = 1;
    events->newest_sequence = list->sequence;
    if (!list->cut) return;
    events->has_cut = events->has_cut_sequence = 1;
    events->cut = 1;
    events->cut_sequence = list->cut_sequence;
}

static const char *reason_of(const mir_error *error, mir_status status)
{
    return error->text[0] == '\0' ? mir_status_name(status) : error->text;
}

void mir_evt_list(mir_request *request)
{
    MirApi__V1__ListEventsRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__list_events_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    mir_event_list list = {0};
    mir_event_bounds bounds = bounds_of(request);
    mir_error error = {{0}};
    mir_status status = mir_event_list_get(request->hub->state, input->target, &bounds,
                                           &request->arena, &list, &error);
    if (status == MIR_OK) {
        MirApi__V1__Events events = MIR_API__V1__EVENTS__INIT;
        set_list(&events, &list);
        MirApi__V1__ListEventsResponse response = MIR_API__V1__LIST_EVENTS_RESPONSE__INIT;
        response.response_case = MIR_API__V1__LIST_EVENTS_RESPONSE__RESPONSE_OK;
        response.ok = &events;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "error listing events: error listing devices from database: %s",
                         reason_of(&error, status));
    }
    mir_request_finish(request);
}

static bool has_condition(const MirApi__V1__EventTarget *target)
{
    if (target == NULL) return false;
    const MirApi__V1__Targets *targets = target->targets;
    if (targets != NULL &&
        (targets->n_names != 0 || targets->n_namespaces != 0 || targets->n_labels != 0))
        return true;
    if (target->filter_date != NULL &&
        (target->filter_date->from != NULL || target->filter_date->to != NULL))
        return true;
    return target->n_device_ids != 0 || target->n_reasons != 0 || target->n_types != 0 ||
           target->n_actors != 0 || target->n_outcomes != 0 || target->devices != NULL ||
           (target->text != NULL && target->text[0] != '\0');
}

void mir_evt_delete(mir_request *request)
{
    MirApi__V1__DeleteEventRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__delete_event_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    if (!has_condition(input->target)) {
        mir_request_fail(request, "error no target found: No device target provided");
        mir_request_finish(request);
        return;
    }
    mir_event_list list = {0};
    mir_event_bounds bounds = bounds_of(request);
    uint64_t removed = 0;
    mir_error error = {{0}};
    mir_status status = mir_event_remove(request->hub->state, input->target, &request->cause,
                                         &bounds, &request->arena, &list, &removed, &error);
    if (status == MIR_OK) {
        MirApi__V1__Events events = MIR_API__V1__EVENTS__INIT;
        set_list(&events, &list);
        events.has_removed = 1;
        events.removed = removed;
        MirApi__V1__DeleteEventReponse response = MIR_API__V1__DELETE_EVENT_REPONSE__INIT;
        response.response_case = MIR_API__V1__DELETE_EVENT_REPONSE__RESPONSE_OK;
        response.ok = &events;
        mir_request_answer(request, &response.base);
    } else if (status == MIR_E_CANCELLED) {
        mir_request_fail(request,
                         "error deleting event: the server is stopping: %llu events are deleted, "
                         "the others are not",
                         (unsigned long long)removed);
    } else {
        mir_request_fail(request, "error deleting event: %s", reason_of(&error, status));
    }
    mir_request_finish(request);
}

static bool goes_on(void *context, uint64_t done, uint64_t total)
{
    (void)done;
    (void)total;
    const mir_request *request = context;
    return !atomic_load_explicit(&request->is_given_up, memory_order_relaxed) &&
           !atomic_load_explicit(&request->hub->stopping, memory_order_relaxed);
}

void mir_evt_verify(mir_request *request)
{
    MirApi__V1__VerifyEventsRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__verify_events_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    if (input->has_head && input->head.len != MIR_EVENT_HASH_BYTES) {
        mir_request_fail(request, "a head has 32 bytes (64 hexadecimal digits), this one has %zu",
                         input->head.len);
        mir_request_finish(request);
        return;
    }
    mir_view head = {0};
    if (input->has_head) head = mir_view_of(input->head.data, input->head.len);
    MirApi__V1__EventsProof *proof;
    mir_error error = {{0}};
    mir_status status = mir_event_verify(request->hub->state, head, goes_on, request,
                                         &request->arena, &proof, &error);
    if (status == MIR_OK) {
        MirApi__V1__VerifyEventsResponse response = MIR_API__V1__VERIFY_EVENTS_RESPONSE__INIT;
        response.response_case = MIR_API__V1__VERIFY_EVENTS_RESPONSE__RESPONSE_OK;
        response.ok = proof;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "error verifying events: %s",
                         status == MIR_E_CANCELLED ? mir_request_end_text(request)
                                                   : reason_of(&error, status));
    }
    mir_request_finish(request);
}

static mir_status set_rules(const mir_event_retention *rules, mir_arena *arena,
                            MirApi__V1__EventRetention *to)
{
    size_t count = rules->rule_count + 1;
    to->rules = mir_arena_alloc(arena, count * sizeof *to->rules);
    MirApi__V1__EventRetention__Rule *made = mir_arena_alloc(arena, count * sizeof *made);
    if (to->rules == NULL || made == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        mir_api__v1__event_retention__rule__init(&made[i]);
        bool is_default = i == 0;
        int64_t keep_ns = is_default ? rules->default_keep_ns : rules->rules[i - 1].keep_ns;
        made[i].reason = (char *)(uintptr_t)(is_default ? "default" : rules->rules[i - 1].reason);
        made[i].has_keep_seconds = 1;
        made[i].keep_seconds = (uint64_t)(keep_ns / MIR_NS_PER_S);
        to->rules[i] = &made[i];
    }
    to->n_rules = count;
    return MIR_OK;
}

void mir_evt_retention(mir_request *request)
{
    MirApi__V1__EventRetentionRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__event_retention_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    mir_event_retention_state state = {0};
    mir_error error = {{0}};
    MirApi__V1__EventRetention retention = MIR_API__V1__EVENT_RETENTION__INIT;
    mir_status status = mir_event_retention_get(request->hub->state, &state, &error);
    if (status == MIR_OK) status = set_rules(&state.rules, &request->arena, &retention);
    if (status == MIR_OK) {
        retention.has_events = retention.has_removed = retention.has_index_lag = 1;
        retention.events = state.events;
        retention.removed = state.removed;
        retention.index_lag = state.index_lag;
        if (state.oldest_ns != 0)
            retention.oldest = mir_timestamp_new(&request->arena, state.oldest_ns);
        if (state.last_run_ns != 0)
            retention.last_run = mir_timestamp_new(&request->arena, state.last_run_ns);
        MirApi__V1__EventRetentionResponse response = MIR_API__V1__EVENT_RETENTION_RESPONSE__INIT;
        response.response_case = MIR_API__V1__EVENT_RETENTION_RESPONSE__RESPONSE_OK;
        response.ok = &retention;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "error reading the retention of events: %s",
                         reason_of(&error, status));
    }
    mir_request_finish(request);
}

/* --- history -------------------------------------------------------------------------------- */

static mir_view view_of(const char *text)
{
    return text == NULL ? (mir_view){0} : mir_view_cstr(text);
}

static int64_t time_of(const MirApi__V1__Timestamp *time)
{
    int64_t ns;
    if (__builtin_mul_overflow(time->seconds, MIR_NS_PER_S, &ns) ||
        __builtin_add_overflow(ns, time->nanos, &ns))
        return time->seconds < 0 ? INT64_MIN : INT64_MAX;
    return ns;
}

static mir_status device_at(mir_request *request, const mir_event_subject *subject, int64_t at_ns,
                            char **json, mir_error *error)
{
    MirStore__V1__DeviceRecord *record;
    MirApi__V1__Device *device;
    int64_t changed_ns;
    mir_status status = mir_event_device_at(request->hub->state, subject, at_ns, &request->arena,
                                            &record, &changed_ns, error);
    if (status == MIR_OK)
        status = mir_state_device_as_stored(request->hub->state, record, &request->arena, &device,
                                            error);
    if (status != MIR_OK) return status;
    mir_bytes text = {0};
    mir_device_json_write(device, MIR_JSON_COMPACT, &text);
    *json =
        mir_bytes_ok(&text) ? mir_arena_strdup(&request->arena, mir_bytes_as_view(&text)) : NULL;
    mir_bytes_free(&text);
    return *json == NULL ? MIR_E_NO_MEMORY : MIR_OK;
}

static mir_status newest_of(mir_request *request, const mir_event_subject *subject, size_t limit,
                            MirApi__V1__DeviceHistory *history, mir_error *error)
{
    mir_event_bounds bounds = bounds_of(request);
    bounds.rows_max = limit;
    mir_event_list list = {0};
    mir_status status =
        mir_event_history(request->hub->state, subject, &bounds, &request->arena, &list, error);
    history->events = list.events;
    history->n_events = list.count;
    return status;
}

void mir_evt_history(mir_request *request)
{
    MirApi__V1__DeviceHistoryRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__device_history_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    const MirApi__V1__DeviceIdPair *device = input->device;
    mir_event_subject subject = {0};
    if (device != NULL)
        subject = (mir_event_subject){view_of(device->device_id), view_of(device->name),
                                      view_of(device->namespace_)};
    if (subject.device_id.size == 0 && (subject.name.size == 0 || subject.name_space.size == 0)) {
        mir_request_fail(request,
                         "the history of a device takes its id, or its name and namespace");
        mir_request_finish(request);
        return;
    }
    MirApi__V1__DeviceHistory history = MIR_API__V1__DEVICE_HISTORY__INIT;
    mir_error error = {{0}};
    mir_status status =
        input->at != NULL
            ? device_at(request, &subject, time_of(input->at), &history.device_json, &error)
            : newest_of(request, &subject, input->limit, &history, &error);
    if (status == MIR_OK) {
        MirApi__V1__DeviceHistoryResponse response = MIR_API__V1__DEVICE_HISTORY_RESPONSE__INIT;
        response.response_case = MIR_API__V1__DEVICE_HISTORY_RESPONSE__RESPONSE_OK;
        response.ok = &history;
        mir_request_answer(request, &response.base);
    } else {
        mir_request_fail(request, "error reading the history of the device: %s",
                         reason_of(&error, status));
    }
    mir_request_finish(request);
}
