/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_core_service.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_api/v1/core.pb-c.h"
#include "mir_cfg_plan.h"
#include "mir_cfg_update.h"
#include "mir_event_store.h"
#include "mir_events.h"
#include "mir_log.h"

enum {
    EVENTS_LISTED = 5,
    PAGE_DEVICES_MAX = 4096,                               /* what one request converts */
    MESSAGE_MARGIN_BYTES = MIR_CHAIN_BLOCK_BYTES_MAX + 64, /* headers, and what is around a list */
    ENTRY_MARGIN_BYTES = 8,                                /* tag and length of an entry */
};

static size_t list_bytes_max(const mir_request *request)
{
    size_t bytes_max = (size_t)request->hub->config->limits.max_payload_bytes;
    return bytes_max > MESSAGE_MARGIN_BYTES ? bytes_max - MESSAGE_MARGIN_BYTES : 0;
}

static void leave_out_schemas(MirApi__V1__Device **devices, size_t count)
{
    for (size_t i = 0; i < count; i++)
        if (devices[i]->status != NULL && devices[i]->status->schema != NULL)
            devices[i]->status->schema->has_compressed_schema = 0;
}

/* --- changes -------------------------------------------------------------------------------- */

static size_t list_bytes(MirApi__V1__Device **devices, size_t count)
{
    size_t bytes = 0;
    for (size_t i = 0; i < count; i++)
        bytes += protobuf_c_message_get_packed_size(&devices[i]->base) + ENTRY_MARGIN_BYTES;
    return bytes;
}

#define TOO_LARGE_TEXT                                                                             \
    "it was done for %zu devices, but the answer with all of them has %zu bytes, more than a "     \
    "message may have"

/* What was done is not to look like a failure because its answer is too large for a message: then it
 * goes without the bytes of the schemas, of which nothing was changed. */
static bool fits(mir_request *request, MirApi__V1__Device **devices, size_t count)
{
    if (list_bytes(devices, count) <= list_bytes_max(request)) return true;
    leave_out_schemas(devices, count);
    size_t bytes = list_bytes(devices, count);
    if (count <= 1 || bytes <= list_bytes_max(request)) return true;
    mir_request_fail(request, TOO_LARGE_TEXT, count, bytes);
    return false;
}

/* Events and notices of what was committed; then the devices that the reply lists. */
static bool report(mir_request *request, mir_state_change_kind kind, MirApi__V1__Device ***devices,
                   size_t *count)
{
    mir_state_request *state = &request->state;
    if (state->status != MIR_OK) {
        mir_request_fail(request, "%s", state->error);
        return false;
    }
    mir_events_of_changes(request->hub, state, request->header, &request->arena, &request->letters);
    mir_events_notify_twins(request->hub, state->changes, state->change_count);
    MirStore__V1__DeviceRecord **records =
        mir_arena_alloc(&request->arena, (state->change_count + 1) * sizeof *records);
    size_t used = 0;
    for (size_t i = 0; records != NULL && i < state->change_count; i++) {
        const mir_state_change *change = &state->changes[i];
        if (change->kind == kind)
            records[used++] = change->after != NULL ? change->after : change->before;
    }
    mir_error error = {{0}};
    if (records == NULL || mir_state_devices_of(request->hub->state, records, used, &request->arena,
                                                devices, &error) != MIR_OK) {
        mir_request_fail(request, "it was done, but the answer cannot be written: %s",
                         records == NULL ? "out of memory" : error.text);
        return false;
    }
    *count = used;
    return fits(request, *devices, used);
}

static void create_done(mir_request *request)
{
    MirApi__V1__Device **devices;
    size_t count;
    if (report(request, MIR_STATE_CREATED, &devices, &count)) {
        MirApi__V1__CreateDeviceResponse response = MIR_API__V1__CREATE_DEVICE_RESPONSE__INIT;
        response.response_case = MIR_API__V1__CREATE_DEVICE_RESPONSE__RESPONSE_OK;
        response.ok = devices[0];
        mir_request_answer(request, &response.base);
    }
    mir_request_finish(request);
}

void mir_core_create(mir_request *request)
{
    MirApi__V1__CreateDeviceRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__create_device_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    request->state.op = MIR_STATE_CREATE;
    request->state.create = input;
    mir_request_write(request, create_done);
}

static void creates_done(mir_request *request)
{
    MirApi__V1__DeviceList list = MIR_API__V1__DEVICE_LIST__INIT;
    if (report(request, MIR_STATE_CREATED, &list.devices, &list.n_devices)) {
        MirApi__V1__CreateDevicesResponse response = MIR_API__V1__CREATE_DEVICES_RESPONSE__INIT;
        response.response_case = MIR_API__V1__CREATE_DEVICES_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        mir_request_answer(request, &response.base);
    }
    mir_request_finish(request);
}

void mir_core_creates(mir_request *request)
{
    MirApi__V1__CreateDevicesRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__create_devices_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    request->state.op = MIR_STATE_CREATE_MANY;
    request->state.create_many = input;
    mir_request_write(request, creates_done);
}

/* What was stored while a device was disabled was not sent to it. A connection that serves it alone
 * was closed, and asks when it is back; one that serves others too hears of it here. */
static void publish_to_enabled(mir_request *request)
{
    const mir_state_request *state = &request->state;
    for (size_t i = 0; i < state->change_count; i++)
        if (state->changes[i].kind == MIR_STATE_ENABLED)
            mir_cfg_publish_stored(request, state->changes[i].after);
}

static void update_done(mir_request *request)
{
    MirApi__V1__DeviceList list = MIR_API__V1__DEVICE_LIST__INIT;
    bool reported = report(request, MIR_STATE_UPDATED, &list.devices, &list.n_devices);
    if (request->state.status == MIR_OK) {
        publish_to_enabled(request);
        mir_cfg_update_publish(request);
    }
    if (reported) {
        MirApi__V1__UpdateDeviceResponse response = MIR_API__V1__UPDATE_DEVICE_RESPONSE__INIT;
        response.response_case = MIR_API__V1__UPDATE_DEVICE_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        mir_request_answer(request, &response.base);
    }
    mir_request_finish(request);
}

static void update_write(mir_request *request)
{
    mir_request_write(request, update_done);
}

void mir_core_update(mir_request *request)
{
    MirApi__V1__UpdateDeviceRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__update_device_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    request->state.op = MIR_STATE_UPDATE;
    request->state.update = input;
    if (mir_cfg_update_has(input))
        mir_cfg_update_check(request, input, update_write);
    else
        update_write(request);
}

static void answer_deleted(mir_request *request, MirApi__V1__Device **devices, size_t count)
{
    MirApi__V1__DeviceList list = MIR_API__V1__DEVICE_LIST__INIT;
    list.devices = devices;
    list.n_devices = count;
    MirApi__V1__DeleteDeviceResponse response = MIR_API__V1__DELETE_DEVICE_RESPONSE__INIT;
    response.response_case = MIR_API__V1__DELETE_DEVICE_RESPONSE__RESPONSE_OK;
    response.ok = &list;
    mir_request_answer(request, &response.base);
}

/* A deletion of so many devices that it is cut into several commits. */
typedef struct deleting {
    struct part {
        struct part *next;
        mir_arena arena; /* of the store's answer, which the devices live in */
        MirApi__V1__Device **devices;
        size_t count;
    } * parts;
    size_t count, bytes; /* of all devices, without the schemas */
    bool is_out_of_memory;
    uint64_t *numbers; /* of candidates, for all commits but the first */
} deleting;

static void forget_parts(deleting *d)
{
    while (d->parts != NULL) {
        struct part *next = d->parts->next;
        mir_arena_free(&d->parts->arena);
        free(d->parts);
        d->parts = next;
    }
}

static size_t bytes_without_schemas(MirApi__V1__Device **devices, size_t count)
{
    size_t bytes = list_bytes(devices, count);
    for (size_t i = 0; i < count; i++) {
        const MirApi__V1__DeviceStatus *status = devices[i]->status;
        if (status == NULL || status->schema == NULL || !status->schema->has_compressed_schema)
            continue;
        bytes -= status->schema->compressed_schema.len;
    }
    return bytes;
}

/* Keeps what the answer shows of one commit, as long as it may fit into a message. */
static void keep_part(mir_request *request, deleting *d)
{
    mir_state_request *state = &request->state;
    mir_error error = {{0}};
    struct part *part = calloc(1, sizeof *part);
    MirStore__V1__DeviceRecord **records =
        mir_arena_alloc(&state->arena, (state->change_count + 1) * sizeof *records);
    for (size_t i = 0; records != NULL && i < state->change_count; i++)
        records[i] = state->changes[i].before;
    if (part == NULL || records == NULL ||
        mir_state_devices_of(request->hub->state, records, state->change_count, &state->arena,
                             &part->devices, &error) != MIR_OK) {
        free(part);
        d->is_out_of_memory = true;
        forget_parts(d);
        mir_arena_free(&state->arena);
        return;
    }
    part->count = state->change_count;
    d->bytes += bytes_without_schemas(part->devices, part->count);
    part->arena = state->arena;
    state->arena = (mir_arena){0};
    part->next = d->parts;
    d->parts = part;
    if (d->is_out_of_memory || d->bytes > list_bytes_max(request)) forget_parts(d);
}

static int compare_devices(const void *a, const void *b)
{
    const MirApi__V1__Meta *x = (*(MirApi__V1__Device *const *)a)->meta;
    const MirApi__V1__Meta *y = (*(MirApi__V1__Device *const *)b)->meta;
    int order = strcmp(x->namespace_, y->namespace_);
    return order != 0 ? order : strcmp(x->name, y->name);
}

/* All commits are done. */
static void answer_parts(mir_request *request, deleting *d)
{
    MirApi__V1__Device **all =
        d->parts == NULL ? NULL : calloc(d->count + 1, sizeof(MirApi__V1__Device *));
    size_t count = 0;
    for (const struct part *at = d->parts; all != NULL && at != NULL; at = at->next) {
        memcpy(all + count, at->devices, at->count * sizeof(MirApi__V1__Device *));
        count += at->count;
    }
    if (d->is_out_of_memory || (all == NULL && d->parts != NULL)) {
        mir_request_fail(request,
                         "it was done for %zu devices, but the answer cannot be written: out of "
                         "memory",
                         d->count);
    } else if (all == NULL) {
        mir_request_fail(request, TOO_LARGE_TEXT, d->count, d->bytes);
    } else {
        qsort(all, count, sizeof(MirApi__V1__Device *), compare_devices);
        if (fits(request, all, count)) answer_deleted(request, all, count);
    }
    free(all);
}

static void end_parts(mir_request *request, deleting *d)
{
    forget_parts(d);
    free(d->numbers);
    mir_request_finish(request);
}

static void delete_part_done(mir_request *request)
{
    deleting *d = request->context;
    mir_state_request *state = &request->state;
    if (state->status != MIR_OK) {
        mir_request_fail(request, "%s: %zu devices are deleted, the others are not", state->error,
                         d->count);
        end_parts(request, d);
        return;
    }
    mir_events_of_changes(request->hub, state, request->header, &state->arena, &request->letters);
    mir_events_notify_twins(request->hub, state->changes, state->change_count);
    mir_request_tell(request);
    d->count += state->change_count;
    state->numbers = state->left;
    state->number_count = state->left_count;
    keep_part(request, d);
    if (state->number_count == 0) {
        answer_parts(request, d);
        end_parts(request, d);
    } else if (atomic_load_explicit(&request->hub->stopping, memory_order_relaxed)) {
        mir_request_fail(request,
                         "error deleting device: the server is stopping: %zu devices are deleted, "
                         "the others are not",
                         d->count);
        end_parts(request, d);
    } else {
        mir_request_write(request, delete_part_done);
    }
}

static void delete_done(mir_request *request)
{
    mir_state_request *state = &request->state;
    MirApi__V1__Device **devices;
    size_t count;
    if (state->status == MIR_OK && state->left_count != 0) {
        deleting *d = mir_arena_alloc(&request->arena, sizeof *d);
        uint64_t *numbers = malloc(state->left_count * sizeof *numbers);
        if (d != NULL && numbers != NULL) {
            memcpy(numbers, state->left, state->left_count * sizeof *numbers);
            state->left = d->numbers = numbers;
            request->context = d;
            delete_part_done(request);
            return;
        }
        free(numbers);
        mir_events_of_changes(request->hub, state, request->header, &request->arena,
                              &request->letters);
        mir_events_notify_twins(request->hub, state->changes, state->change_count);
        mir_request_fail(request,
                         "error deleting device: out of memory: %zu devices are deleted, the "
                         "others are not",
                         state->change_count);
    } else if (report(request, MIR_STATE_DELETED, &devices, &count)) {
        answer_deleted(request, devices, count);
    }
    mir_request_finish(request);
}

void mir_core_delete(mir_request *request)
{
    MirApi__V1__DeleteDeviceRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__delete_device_request__descriptor, &input)) {
        mir_request_finish(request);
        return;
    }
    request->state.op = MIR_STATE_DELETE;
    request->state.delete_ = input;
    request->state.delete_max = MIR_CORE_DELETED_AT_ONCE;
    mir_request_write(request, delete_done);
}

/* --- list ----------------------------------------------------------------------------------- */

/* The newest events of each device; a list without them is better than none. */
static void attach_events(mir_request *request, MirStore__V1__DeviceRecord **records,
                          MirApi__V1__Device **devices, size_t count)
{
    mir_event_brief *briefs;
    mir_error error = {{0}};
    if (mir_event_newest(request->hub->state, records, count, EVENTS_LISTED, &request->arena,
                         &briefs, &error) != MIR_OK) {
        mir_log_error("events of devices cannot be listed: %s", error.text);
        return;
    }
    for (size_t i = 0; i < count; i++) {
        devices[i]->status->events = briefs[i].events;
        devices[i]->status->n_events = briefs[i].count;
    }
}

/* Narrows the records, which are by namespace and name, to a page behind `after`, a NAMESPACE/NAME
 * that need not be there any more. */
static bool page_of(const char *after, MirStore__V1__DeviceRecord ***records, size_t *count)
{
    const char *slash = strchr(after, '/');
    size_t namespace_size = slash != NULL ? (size_t)(slash - after) : strlen(after);
    size_t first = 0;
    for (; after[0] != '\0' && first < *count; first++) {
        const char *space = (*records)[first]->namespace_, *name = (*records)[first]->name;
        size_t size = strlen(space);
        size_t common = size < namespace_size ? size : namespace_size;
        int order = memcmp(space, after, common);
        if (order == 0) order = (size > namespace_size) - (size < namespace_size);
        if (order == 0) order = strcmp(name, slash != NULL ? slash + 1 : "");
        if (order > 0) break;
    }
    *records += first;
    *count -= first;
    bool cut = *count > PAGE_DEVICES_MAX;
    if (cut) *count = PAGE_DEVICES_MAX;
    return cut;
}

/* Ends the page where a message would be full. One device that is too large is answered as such. */
static void cut_page(const mir_request *request, MirApi__V1__DeviceList *list)
{
    size_t bytes = 0, i = 0;
    for (; i < list->n_devices; i++) {
        bytes += protobuf_c_message_get_packed_size(&list->devices[i]->base) + ENTRY_MARGIN_BYTES;
        if (bytes > list_bytes_max(request) && i > 0) break;
    }
    if (i < list->n_devices) list->has_cut = list->cut = 1;
    list->n_devices = i;
}

void mir_core_list(mir_request *request)
{
    MirApi__V1__ListDeviceRequest *input;
    if (mir_request_unpack(request, &mir_api__v1__list_device_request__descriptor, &input)) {
        MirStore__V1__DeviceRecord **records;
        size_t count;
        mir_error error = {{0}};
        MirApi__V1__DeviceList list = MIR_API__V1__DEVICE_LIST__INIT;
        mir_status status = mir_state_list(request->hub->state, input->targets, &request->arena,
                                           &records, &count, &error);
        if (status == MIR_OK && input->after != NULL)
            list.has_cut = list.cut = page_of(input->after, &records, &count);
        if (status == MIR_OK)
            status = mir_state_devices_of(request->hub->state, records, count, &request->arena,
                                          &list.devices, &error);
        if (status == MIR_OK) {
            list.n_devices = count;
            if (input->without_schema) leave_out_schemas(list.devices, count);
            mir_hub_attach_problems(request->hub, list.devices, count, &request->arena);
            if (input->include_events) attach_events(request, records, list.devices, count);
            if (input->after != NULL) cut_page(request, &list);
            MirApi__V1__ListDeviceResponse response = MIR_API__V1__LIST_DEVICE_RESPONSE__INIT;
            response.response_case = MIR_API__V1__LIST_DEVICE_RESPONSE__RESPONSE_OK;
            response.ok = &list;
            mir_request_answer(request, &response.base);
        } else {
            mir_request_fail(request,
                             "error listing device: error listing devices from database: %s",
                             error.text);
        }
    }
    mir_request_finish(request);
}

/* --- schema refresh ------------------------------------------------------------------------- */

typedef struct refresh {
    const char **ids;
    const char **errors;
    size_t count;
} refresh;

static void refresh_done(mir_request *request)
{
    refresh *r = request->context;
    MirApi__V1__DeviceListWithError list = MIR_API__V1__DEVICE_LIST_WITH_ERROR__INIT;
    list.devices = mir_arena_alloc(&request->arena, (r->count + 1) * sizeof *list.devices);
    mir_error error = {{0}};
    mir_status status = list.devices == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    for (size_t i = 0; i < r->count && status == MIR_OK; i++) {
        MirStore__V1__DeviceRecord *record;
        MirApi__V1__DeviceWithError *entry = mir_arena_alloc(&request->arena, sizeof *entry);
        if (entry == NULL) {
            status = MIR_E_NO_MEMORY;
            break;
        }
        mir_api__v1__device_with_error__init(entry);
        status = mir_state_get(request->hub->state, mir_view_cstr(r->ids[i]), &request->arena,
                               &record, &error);
        if (status == MIR_E_NOT_FOUND) {
            status = MIR_OK; /* deleted meanwhile */
            continue;
        }
        if (status == MIR_OK)
            status = mir_state_device_of(request->hub->state, record, &request->arena,
                                         &entry->device, &error);
        if (r->errors[i] != NULL) {
            size_t size = strlen(r->errors[i]) + 64;
            char *text = mir_arena_alloc(&request->arena, size);
            if (text == NULL)
                status = MIR_E_NO_MEMORY;
            else
                (void)snprintf(text, size, "cannot reconcile device schema: %s", r->errors[i]);
            entry->error = text;
        }
        if (status == MIR_OK) list.devices[list.n_devices++] = entry;
    }
    if (status != MIR_OK) {
        mir_request_fail(request, "error listing device: %s",
                         error.text[0] == '\0' ? mir_status_name(status) : error.text);
    } else {
        MirApi__V1__RefreshDeviceSchemaResponse response =
            MIR_API__V1__REFRESH_DEVICE_SCHEMA_RESPONSE__INIT;
        response.response_case = MIR_API__V1__REFRESH_DEVICE_SCHEMA_RESPONSE__RESPONSE_OK;
        response.ok = &list;
        mir_request_answer(request, &response.base);
    }
    mir_request_finish(request);
}

void mir_core_schema(mir_request *request)
{
    MirApi__V1__RefreshDeviceSchemaRequest *input;
    if (!mir_request_unpack(request, &mir_api__v1__refresh_device_schema_request__descriptor,
                            &input)) {
        mir_request_finish(request);
        return;
    }
    if (mir_state_target_is_empty(input->targets)) {
        mir_request_fail(request,
                         "error occure because of bad request: [No device target provided]");
        mir_request_finish(request);
        return;
    }
    MirStore__V1__DeviceRecord **records;
    size_t count = 0;
    mir_error error = {{0}};
    refresh *r = mir_arena_alloc(&request->arena, sizeof *r);
    if (r == NULL || mir_state_list(request->hub->state, input->targets, &request->arena, &records,
                                    &count, &error) != MIR_OK) {
        mir_request_fail(request, "error listing device: error listing devices from database: %s",
                         r == NULL ? "out of memory" : error.text);
        mir_request_finish(request);
        return;
    }
    if (count == 0) {
        mir_request_fail(request, "no device found with current targets criteria");
        mir_request_finish(request);
        return;
    }
    r->ids = mir_arena_alloc(&request->arena, count * sizeof *r->ids);
    if (r->ids == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    for (size_t i = 0; i < count; i++) r->ids[i] = records[i]->device_id;
    r->count = count;
    request->context = r;
    mir_request_pull(request, r->ids, count, &r->errors, refresh_done);
}
