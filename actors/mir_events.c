/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_events.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_api/v1/event.pb-c.h"
#include "mir_device_json.h"
#include "mir_log.h"
#include "mir_origin.h"
#include "mir_twin.h"
#include "mir_utf8.h"

enum { HEADER_BYTES_MAX = MIR_CHAIN_BLOCK_BYTES_MAX + 64 };

static char *text_of(mir_view view, char *to, size_t size)
{
    char whole[1024];
    (void)snprintf(whole, sizeof whole, "%.*s", (int)view.size,
                   view.size == 0 ? "" : (const char *)view.data);
    return mir_utf8_copy(whole, to, size);
}

static size_t write_header(mir_hub *hub, const mir_device_event *event, char *block)
{
    size_t size = mir_chain_block(event->header, mir_hub_instance(hub), block);
    if (event->sequence == 0) return size;
    char sequence[24];
    int digits = snprintf(sequence, sizeof sequence, "%llu", (unsigned long long)event->sequence);
    return mir_block_add(block, size, HEADER_BYTES_MAX, "mir-event-sequence",
                         mir_view_of(sequence, (size_t)digits));
}

/* An event as a message, and what its parts are in. */
typedef struct draft {
    MirApi__V1__Meta meta;
    MirApi__V1__Object object;
    MirApi__V1__EventAudit audit;
    MirApi__V1__EventSpec spec;
    char actor[256], address[64], id[MIR_REQUEST_ID_BYTES_MAX + 1];
    char subject[256];
    char error[2048]; /* what a device says may be longer than an event should be */
    mir_view route;
    const mir_event_cause *cause;
} draft;

static void draft_of(const mir_device_event *event, draft *d)
{
    static const mir_event_cause no_cause;
    const mir_event_cause *cause = event->cause == NULL ? &no_cause : event->cause;
    d->cause = cause;
    mir_api__v1__meta__init(&d->meta);
    d->meta.name = (char *)(uintptr_t)event->name;
    d->meta.namespace_ = (char *)(uintptr_t)event->name_space;
    mir_api__v1__object__init(&d->object);
    d->object.api_version = (char *)(uintptr_t) "mir/v1alpha";
    d->object.kind =
        (char *)(uintptr_t)(event->object_kind == NULL ? "device" : event->object_kind);
    d->object.meta = &d->meta;
    mir_api__v1__event_audit__init(&d->audit);
    d->audit.actor = cause->actor.size != 0 ? text_of(cause->actor, d->actor, sizeof d->actor)
                                            : (char *)(uintptr_t)event->actor;
    if (cause->address.size != 0)
        d->audit.address = text_of(cause->address, d->address, sizeof d->address);
    if (cause->request_id.size != 0)
        d->audit.request_id = text_of(cause->request_id, d->id, sizeof d->id);
    d->audit.outcome = (char *)(uintptr_t)(event->failed ? "failed" : "ok");
    if (event->error != NULL)
        d->audit.error = mir_utf8_copy(event->error, d->error, sizeof d->error);
    d->audit.changes = event->changes;
    d->audit.n_changes = event->change_count;
    mir_api__v1__event_spec__init(&d->spec);
    d->spec.type = (char *)(uintptr_t)event->type;
    d->spec.reason = (char *)(uintptr_t)event->reason;
    d->spec.message = (char *)(uintptr_t)event->text;
    d->spec.has_json_payload = 1;
    d->spec.json_payload =
        (ProtobufCBinaryData){event->json.size, (uint8_t *)(uintptr_t)event->json.data};
    d->spec.related_object = &d->object;
    d->spec.audit = &d->audit;
    int size =
        snprintf(d->subject, sizeof d->subject, "event.%s.%s", event->device_id, event->route);
    d->route = mir_view_of(d->subject, (size_t)size);
}

static mir_event_input input_of(const mir_device_event *event, const draft *d)
{
    return (mir_event_input){.route = d->route,
                             .spec = &d->spec,
                             .cause = d->cause,
                             .failed = event->failed,
                             .error = d->audit.error == NULL ? (mir_view){0}
                                                             : mir_view_cstr(d->audit.error)};
}

void mir_events_add(mir_hub *hub, const mir_device_event *event, mir_letters *letters,
                    mir_event_batch *batch)
{
    draft d;
    draft_of(event, &d);
    MirApi__V1__CreateEventRequest message = MIR_API__V1__CREATE_EVENT_REQUEST__INIT;
    message.spec = &d.spec;
    char header[HEADER_BYTES_MAX];
    mir_letters_add_packed(letters, d.route, mir_view_of(header, write_header(hub, event, header)),
                           &message.base);
    if (batch == NULL) return;
    mir_error error = {{0}};
    mir_event_input input = input_of(event, &d);
    if (mir_event_batch_add(batch, &input, &error) != MIR_OK)
        mir_event_batch_lost(hub, 1, error.text);
}

mir_status mir_events_make(const mir_device_event *event, mir_arena *arena, mir_event_item *item,
                           mir_error *error)
{
    draft d;
    draft_of(event, &d);
    mir_event_input input = input_of(event, &d);
    return mir_event_make(&input, arena, item, error);
}

static bool write_device(mir_hub *hub, MirStore__V1__DeviceRecord *record, mir_arena *arena,
                         mir_bytes *json, mir_error *error)
{
    MirApi__V1__Device *device;
    /* As the stored event shows it: what was committed, not what was heard since. */
    if (mir_state_device_as_stored(hub->state, record, arena, &device, error) != MIR_OK)
        return false;
    mir_device_json_write(device, MIR_JSON_COMPACT, json);
    return true;
}

void mir_events_of_changes(mir_hub *hub, const mir_state_request *state, mir_view header,
                           mir_arena *arena, mir_letters *letters)
{
    mir_bytes json = {0};
    for (size_t i = 0; i < state->change_count; i++) {
        const mir_state_change *change = &state->changes[i];
        const mir_event_wording *kind = mir_event_wording_of(change->kind);
        MirStore__V1__DeviceRecord *record = change->after != NULL ? change->after : change->before;
        json.size = 0;
        mir_error error;
        if (mir_state_change_has_json(change->kind)) {
            if (mir_state_change_json(change, &json) != MIR_OK) json.failed = true;
        } else if (!write_device(hub, record, arena, &json, &error)) {
            mir_log_error("event %s of device %s: %s", kind->reason, record->device_id, error.text);
            letters->failed = true;
            continue;
        }
        if (!mir_bytes_ok(&json)) {
            letters->failed = true;
            break;
        }
        char actor[MIR_DEVICE_ID_BYTES_MAX + 16] = "server";
        if (change->by_device) (void)snprintf(actor, sizeof actor, "device %s", record->device_id);
        mir_events_add(hub,
                       &(mir_device_event){.device_id = record->device_id,
                                           .name = record->name,
                                           .name_space = record->namespace_,
                                           .route = kind->route,
                                           .type = kind->type,
                                           .reason = kind->reason,
                                           .text = kind->message,
                                           .json = mir_bytes_as_view(&json),
                                           .cause = state->cause,
                                           .actor = actor,
                                           .changes = change->diffs,
                                           .change_count = change->diff_count,
                                           .sequence = change->sequence,
                                           .header = header},
                       letters, NULL);
    }
    mir_bytes_free(&json);
}

/* The ids of one shard's devices, in one post. */
typedef struct notice {
    mir_post post;
    mir_hub *hub;
    size_t count, used;
    char *ids; /* one behind the other: whether it is disabled, the id, a zero byte */
} notice;

enum { IS_DISABLED = 'd', IS_NOT = '-' };

static void notice_run(mir_shard *shard, mir_post *post)
{
    notice *n = MIR_CONTAINER(post, notice, post);
    const char *id = n->ids;
    for (size_t i = 0; i < n->count && !shard->stopping; i++) {
        bool is_disabled = *id++ == IS_DISABLED;
        mir_twin_changed(shard, mir_view_cstr(id), is_disabled);
        id += strlen(id) + 1;
    }
    mir_hub_end(n->hub);
    free(n->ids);
    free(n);
}

static void collect(notice *n, const char *id, bool is_disabled)
{
    size_t size = strlen(id) + 1;
    n->ids[n->used++] = is_disabled ? IS_DISABLED : IS_NOT;
    memcpy(n->ids + n->used, id, size);
    n->used += size;
    n->count++;
}

void mir_events_notify_twins(mir_hub *hub, const mir_state_change *changes, size_t count)
{
    size_t bytes[MIR_SHARDS_MAX] = {0};
    notice *notices[MIR_SHARDS_MAX] = {0};
    for (int pass = 0; pass < 2; pass++) {
        for (size_t i = 0; i < count; i++) {
            /* An id that changed concerns two twins. */
            MirStore__V1__DeviceRecord *records[2] = {changes[i].before, changes[i].after};
            for (int r = 0; r < 2; r++) {
                if (records[r] == NULL) continue;
                if (r == 0 && records[1] != NULL &&
                    strcmp(records[0]->device_id, records[1]->device_id) == 0)
                    continue;
                const char *id = records[r]->device_id;
                unsigned shard = mir_hub_shard_of(hub, mir_view_cstr(id));
                if (pass == 0)
                    bytes[shard] += strlen(id) + 2;
                else if (notices[shard] != NULL)
                    collect(notices[shard], id,
                            r == 1 && records[r]->has_disabled && records[r]->disabled);
            }
        }
        for (unsigned s = 0; pass == 0 && s < hub->shard_count; s++) {
            if (bytes[s] == 0) continue;
            notices[s] = calloc(1, sizeof *notices[s]);
            if (notices[s] == NULL) continue;
            notices[s]->ids = malloc(bytes[s]);
            if (notices[s]->ids == NULL) {
                free(notices[s]);
                notices[s] = NULL;
                mir_log_error("out of memory: twins are not told of changes");
            }
        }
    }
    for (unsigned s = 0; s < hub->shard_count; s++) {
        if (notices[s] == NULL) continue;
        notices[s]->hub = hub;
        notices[s]->post.run = notice_run;
        mir_hub_begin(hub);
        mir_shard_post(hub->shards[s], &notices[s]->post);
    }
}
