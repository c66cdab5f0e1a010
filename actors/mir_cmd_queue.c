/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cmd_queue.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir/device/v1/mir.pb-c.h"
#include "mir_ask.h"
#include "mir_clock.h"
#include "mir_cmd_sending.h"
#include "mir_events.h"
#include "mir_hash.h"
#include "mir_json_text.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_pb.h"
#include "mir_twin.h"
#include "mir_utf8.h"

enum { WATCH_S = 1, DUE_AT_ONCE = 1000, HEADER_BYTES_MAX = MIR_CHAIN_BLOCK_BYTES_MAX + 1024 };

/* What a queue does next. */
typedef enum next_step {
    NEXT_SETTLE, /* nothing is left, or it cannot be done now */
    NEXT_SEND,   /* the oldest is to go out, if the device is there */
    NEXT_ASK,    /* it is written down as sent */
    NEXT_READ,   /* something was written: on to the next */
    NEXT_IDLE,   /* the device is not there */
} next_step;

typedef struct queue {
    mir_map_node by_id;
    mir_shard *shard;
    mir_hub *hub;
    bool running;
    bool again;   /* entered while it was running */
    bool is_left; /* commands may wait: it stays */
    bool asking;  /* a command is with the device */
    bool asked;   /* the command of the last step was */
    bool written; /* the last step */
    bool owes;    /* an outcome that could not be written */
    mir_cmd_queue_waiter *waiters;
    /* Of what runs: */
    mir_arena arena;
    mir_command_record *record;
    mir_cmd_note note;
    mir_command_step step;
    mir_command_steps steps;
    mir_state_request state;
    next_step next;
    mir_job job;
    mir_post post;
    mir_ask ask;
    mir_status status; /* of the ask */
    uint8_t *answer;   /* the name, a zero byte, the payload */
    size_t name_size, payload_size;
    mir_sequel sequel; /* of the step */
    size_t id_size;
    char id[];
} queue;

static void run_next(queue *q);
static void read_next(queue *q);

static queue *find(mir_shard *shard, mir_view id)
{
    mir_actors *actors = mir_actors_of(shard);
    for (mir_map_node *n = mir_map_first(&actors->queues, mir_hash_view(id)); n != NULL;
         n = mir_map_next(n)) {
        queue *q = MIR_CONTAINER(n, queue, by_id);
        if (q->id_size == id.size && memcmp(q->id, id.data, id.size) == 0) return q;
    }
    return NULL;
}

static void tell_waiter(queue *q, mir_cmd_queue_waiter *waiter, mir_status status)
{
    mir_view none = {0};
    waiter->done(q->shard, waiter, status, none, none);
}

/* Those whose command is not this one's, or all of them: theirs stays queued for now. */
static void tell_others(queue *q, uint64_t number)
{
    mir_cmd_queue_waiter **place = &q->waiters;
    while (*place != NULL) {
        mir_cmd_queue_waiter *waiter = *place;
        if (waiter->number == number) {
            place = &waiter->next;
            continue;
        }
        *place = waiter->next;
        tell_waiter(q, waiter, q->shard->stopping ? MIR_E_CANCELLED : MIR_E_UNREACHABLE);
    }
}

static mir_cmd_queue_waiter *take_waiter(queue *q, uint64_t number)
{
    for (mir_cmd_queue_waiter **place = &q->waiters; *place != NULL; place = &(*place)->next) {
        mir_cmd_queue_waiter *waiter = *place;
        if (waiter->number != number) continue;
        *place = waiter->next;
        return waiter;
    }
    return NULL;
}

static void drop_outcome(queue *q)
{
    mir_arena_free(&q->arena);
    mir_arena_free(&q->state.arena);
    free(q->answer);
    q->answer = NULL;
    q->name_size = q->payload_size = 0;
}

static void settle(queue *q)
{
    tell_others(q, 0);
    if (!q->owes) drop_outcome(q);
    q->running = false;
    mir_hub_end(q->hub);
    if (q->is_left && !q->shard->stopping) return;
    drop_outcome(q);
    mir_map_remove(&mir_actors_of(q->shard)->queues, &q->by_id);
    free(q);
}

/* --- events ---------------------------------------------------------------------------------- */

typedef struct wording {
    const char *route, *type, *reason, *text;
} wording;

static const wording *wording_of(const mir_cmd_note *note)
{
    static const wording queued = {"cmd.v1alpha.commandqueued", "normal", "CommandQueued",
                                   "The device is away: the command waits for it"},
                         done = {"cmd.v1alpha.devicecommand", "normal", "DeviceCommand",
                                 "Device command executed successfully"},
                         failed = {"cmd.v1alpha.devicecommand", "warning", "DeviceCommand",
                                   "Device command failed"},
                         expired = {"cmd.v1alpha.commandexpired", "warning", "CommandExpired",
                                    "The device did not return in time for the command"},
                         cancelled = {"cmd.v1alpha.commandcancelled", "normal", "CommandCancelled",
                                      "The command was cancelled before it was sent"};
    switch (note->state) {
    case MIR_COMMAND_QUEUED: return &queued;
    case MIR_COMMAND_SENT: return NULL;
    case MIR_COMMAND_DONE: return &done;
    case MIR_COMMAND_FAILED: return &failed;
    case MIR_COMMAND_EXPIRED: return &expired;
    case MIR_COMMAND_CANCELLED: return &cancelled;
    }
    return NULL;
}

static void put_member(mir_bytes *json, const char *key, const char *value)
{
    if (value == NULL || value[0] == '\0') return;
    mir_bytes_u8(json, json->size == 0 ? '{' : ',');
    mir_json_put_string(json, mir_view_cstr(key), MIR_JSON_ESCAPE_NEEDED);
    mir_bytes_u8(json, ':');
    mir_json_put_string(json, mir_view_cstr(value), MIR_JSON_ESCAPE_HTML);
}

/* The members that programs know of a command's event, and the id. */
static void write_json(const mir_cmd_note *note, mir_bytes *json)
{
    put_member(json, "device_id", note->record->device_id);
    put_member(json, "command_id", note->record->id);
    bool is_answer = note->state == MIR_COMMAND_DONE || note->state == MIR_COMMAND_FAILED;
    put_member(json, "name", is_answer ? note->response_name : note->record->message);
    if (note->response.size != 0) {
        mir_bytes_text(json, ",\"payload\":\"");
        mir_json_put_base64(json, note->response);
        mir_bytes_u8(json, '"');
    }
    if (is_answer)
        mir_bytes_printf(json, ",\"status\":%d", note->state == MIR_COMMAND_DONE ? 4 : 3);
    put_member(json, "error", note->error);
    mir_bytes_u8(json, '}');
}

/* What an event is made of, and what its parts are in. */
typedef struct telling {
    mir_bytes json;
    char text[512];
    mir_event_cause cause;
    mir_device_event event;
} telling;

static mir_view view_of(const char *text)
{
    return text == NULL ? (mir_view){0} : mir_view_cstr(text);
}

/* False: there is no event for it. */
static bool describe(mir_hub *hub, const mir_cmd_note *note, telling *t)
{
    const wording *w = wording_of(note);
    if (w == NULL) return false;
    const mir_command_record *record = note->record;
    write_json(note, &t->json);
    bool failed = w->type[0] == 'w';
    int size =
        snprintf(t->text, sizeof t->text, failed && note->error != NULL ? "%s: " : "%s", w->text);
    if (failed && note->error != NULL)
        (void)mir_utf8_copy(note->error, t->text + size, sizeof t->text - (size_t)size);
    /* What becomes of it later is still the doing of whoever queued it. */
    t->cause = note->cause != NULL ? *note->cause
                                   : (mir_event_cause){.actor = view_of(record->actor),
                                                       .address = view_of(record->address),
                                                       .request_id = view_of(record->request_id),
                                                       .instance = mir_hub_instance(hub)};
    t->event = (mir_device_event){.device_id = record->device_id,
                                  .name = record->device_name,
                                  .name_space = record->namespace_,
                                  .route = w->route,
                                  .type = w->type,
                                  .reason = w->reason,
                                  .text = t->text,
                                  .json = mir_bytes_as_view(&t->json),
                                  .cause = &t->cause,
                                  .actor = "server",
                                  .failed = failed,
                                  .error = failed ? note->error : NULL};
    return true;
}

mir_status mir_cmd_queue_event(mir_hub *hub, const mir_cmd_note *note, mir_arena *arena,
                               mir_event_item **event)
{
    *event = NULL;
    telling t = {0};
    if (!describe(hub, note, &t)) return MIR_OK;
    mir_error error = {{0}};
    mir_event_item *item = mir_arena_alloc(arena, sizeof *item);
    mir_status status = MIR_E_NO_MEMORY;
    if (item != NULL && mir_bytes_ok(&t.json))
        status = mir_events_make(&t.event, arena, item, &error);
    mir_bytes_free(&t.json);
    if (status == MIR_OK) *event = item;
    return status;
}

void mir_cmd_queue_tell(mir_hub *hub, const mir_cmd_note *note, const mir_event_item *event,
                        mir_letters *letters)
{
    telling t = {0};
    if (event == NULL || !describe(hub, note, &t)) return;
    t.event.sequence = event->sequence;
    if (mir_bytes_ok(&t.json)) mir_events_add(hub, &t.event, letters, NULL);
    mir_bytes_free(&t.json);
}

/* --- one step ------------------------------------------------------------------------------- */

/* On the shard, after a worker or the writer had it. */
static void come_home(mir_shard *shard, mir_post *post)
{
    (void)shard;
    run_next(MIR_CONTAINER(post, queue, post));
}

static void go_home(queue *q, next_step next)
{
    q->next = next;
    q->post.run = come_home;
    mir_shard_post(q->shard, &q->post);
}

/* On the shard of the lane. */
static void step_told(mir_shard *shard, mir_sequel *sequel)
{
    queue *q = MIR_CONTAINER(sequel, queue, sequel);
    q->post.run = come_home;
    mir_sequel_home(shard, q->shard, &q->post);
}

static void tell_step(mir_job *job)
{
    queue *q = MIR_CONTAINER(job, queue, job);
    mir_cmd_queue_tell(q->hub, &q->note, q->step.event, &q->sequel.letters);
    q->sequel.done = step_told;
    mir_sequel_tell(q->hub, &q->sequel);
}

static void step_written(mir_state_request *request, void *context)
{
    queue *q = context;
    q->written = request->status == MIR_OK;
    if (!q->written) {
        go_home(q, NEXT_IDLE);
        return;
    }
    /* Somebody cancelled it just then: on to the next. */
    if (q->step.status != MIR_OK) {
        go_home(q, NEXT_READ);
        return;
    }
    q->next = q->step.to == MIR_COMMAND_SENT     ? NEXT_ASK
              : q->step.to == MIR_COMMAND_QUEUED ? NEXT_IDLE
                                                 : NEXT_READ;
    if (q->step.to == MIR_COMMAND_QUEUED)
        mir_cmd_queue_note_due(q->hub, mir_command_time_ns(q->record->expires));
    if (q->step.event == NULL) {
        go_home(q, q->next);
        return;
    }
    q->sequel = (mir_sequel){0};
    mir_sequel_place(q->hub, &q->sequel);
    q->job.run = tell_step;
    mir_workers_submit(q->hub->requests, &q->job);
}

/* Moves the command on to the note's state. Any thread. The record stays as it was read. */
static void write_step(queue *q, mir_command_state from)
{
    q->step = (mir_command_step){.number = q->record->number,
                                 .from = from,
                                 .to = q->note.state,
                                 .error = q->note.error,
                                 .response_name = q->note.response_name,
                                 .response_payload = q->note.response};
    /* That it waits has been told when it began to. */
    if (q->note.state != MIR_COMMAND_QUEUED &&
        mir_cmd_queue_event(q->hub, &q->note, &q->arena, &q->step.event) != MIR_OK)
        mir_event_batch_lost(q->hub, 1, "the event of a queued command cannot be made");
    q->steps = (mir_command_steps){&q->step, 1};
    mir_command_prepare_steps(&q->state, &q->steps);
    q->state.cause = &q->hub->own_cause;
    q->state.done = step_written;
    q->state.ctx = q;
    q->written = false;
    if (mir_state_submit(q->hub->state, &q->state) != MIR_OK) go_home(q, NEXT_IDLE);
}

static void note_state(queue *q, mir_command_state state, const char *error)
{
    q->note = (mir_cmd_note){.record = q->record, .state = state, .error = error};
}

static void read_run(mir_job *job)
{
    queue *q = MIR_CONTAINER(job, queue, job);
    mir_arena_free(&q->arena);
    mir_error error = {{0}};
    mir_view id = mir_view_of(q->id, q->id_size);
    mir_status status = mir_command_first(q->hub->state, id, &q->arena, &q->record, &error);
    if (status == MIR_E_NOT_FOUND) {
        q->is_left = false;
        go_home(q, NEXT_SETTLE);
        return;
    }
    MirStore__V1__DeviceRecord *device = NULL;
    if (status == MIR_OK) {
        status = mir_state_get(q->hub->state, id, &q->arena, &device, &error);
        if (status == MIR_E_NOT_FOUND) status = MIR_OK;
    }
    if (status != MIR_OK) {
        mir_log_error("queued commands of %s: %s", q->id,
                      error.text[0] == '\0' ? mir_status_name(status) : error.text);
        go_home(q, NEXT_IDLE);
        return;
    }
    if (mir_command_state_of(q->record) == MIR_COMMAND_SENT) {
        note_state(q, MIR_COMMAND_FAILED,
                   "the server stopped while the command was with the device: its outcome is not "
                   "known");
        write_step(q, MIR_COMMAND_SENT);
    } else if (device == NULL || device->number != q->record->device_number) {
        note_state(q, MIR_COMMAND_CANCELLED, "the device was deleted");
        write_step(q, MIR_COMMAND_QUEUED);
    } else if (mir_command_time_ns(q->record->expires) <= mir_clock_wall_ns()) {
        note_state(q, MIR_COMMAND_EXPIRED, NULL);
        write_step(q, MIR_COMMAND_QUEUED);
    } else if (device->has_disabled && device->disabled) {
        go_home(q, NEXT_SETTLE);
    } else {
        go_home(q, NEXT_SEND);
    }
}

static void read_next(queue *q)
{
    q->again = false;
    q->asked = false;
    q->is_left = true;
    q->job.run = read_run;
    mir_workers_submit(q->hub->requests, &q->job);
}

/* --- sending -------------------------------------------------------------------------------- */

static void write_sent(mir_job *job)
{
    queue *q = MIR_CONTAINER(job, queue, job);
    note_state(q, MIR_COMMAND_SENT, NULL);
    write_step(q, MIR_COMMAND_QUEUED);
}

static bool is_there(queue *q)
{
    if (mir_twin_is_disabled(q->shard, mir_view_of(q->id, q->id_size))) return false;
    char subject[MIR_DEVICE_ID_BYTES_MAX + 32];
    int size = snprintf(subject, sizeof subject, "%s.v1alpha.command", q->id);
    mir_view view = mir_view_of(subject, (size_t)size);
    if (mir_shard_has_listener(q->shard, view, true)) return true;
    return mir_twin_is_online(q->shard, mir_view_of(q->id, q->id_size)) &&
           mir_shard_has_listener(q->shard, view, false);
}

static void answer_run(mir_job *job)
{
    queue *q = MIR_CONTAINER(job, queue, job);
    mir_view payload = {0};
    const char *name = "";
    if (q->answer != NULL) {
        name = (const char *)q->answer;
        payload = mir_view_of(q->answer + q->name_size + 1, q->payload_size);
    }
    switch (q->status) {
    case MIR_OK:
        if (strcmp(name, "mir.device.v1.Error") == 0) {
            Mir__Device__V1__Error *message = NULL;
            mir_error error = {{0}};
            bool readable = mir_pb_unpack(&mir__device__v1__error__descriptor, payload, &q->arena,
                                          &message, &error) == MIR_OK;
            note_state(q, MIR_COMMAND_FAILED,
                       readable && message->message != NULL && message->message[0] != '\0'
                           ? message->message
                           : "the device answered with an error that says nothing");
        } else {
            note_state(q, MIR_COMMAND_DONE, NULL);
            q->note.response_name = name;
            q->note.response = payload;
        }
        break;
    case MIR_E_TIMEOUT:
        note_state(q, MIR_COMMAND_FAILED,
                   "the device did not answer in time: whether it ran the command is not known");
        break;
    case MIR_E_UNREACHABLE: note_state(q, MIR_COMMAND_QUEUED, NULL); break;
    default: note_state(q, MIR_COMMAND_FAILED, "the server is out of memory"); break;
    }
    write_step(q, MIR_COMMAND_SENT);
}

static void answered(mir_ask *ask, mir_status status, const mir_message *answer)
{
    queue *q = MIR_CONTAINER(ask, queue, ask);
    q->status = status;
    q->asking = false;
    q->asked = true;
    if (status == MIR_OK) {
        mir_view name = mir_nats_header(answer->header, MIR_VIEW_LITERAL("mir-msg"));
        /* It is stored as a text: one that is none names nothing. */
        if (name.size > MIR_CMD_NAME_BYTES_MAX || !mir_utf8_valid(name)) name = (mir_view){0};
        q->answer = malloc(name.size + 1 + answer->payload.size);
        if (q->answer == NULL) {
            q->status = MIR_E_NO_MEMORY;
        } else {
            if (name.size != 0) memcpy(q->answer, name.data, name.size);
            q->answer[name.size] = '\0';
            if (answer->payload.size != 0)
                memcpy(q->answer + name.size + 1, answer->payload.data, answer->payload.size);
            q->name_size = name.size;
            q->payload_size = answer->payload.size;
        }
    }
    if (status == MIR_E_CANCELLED) {
        /* It stays as sent; the next start says that its outcome is not known. */
        settle(q);
        return;
    }
    q->job.run = answer_run;
    mir_workers_submit(q->hub->requests, &q->job);
}

static void send(queue *q)
{
    char subject[MIR_DEVICE_ID_BYTES_MAX + 32], block[HEADER_BYTES_MAX];
    int subject_size = snprintf(subject, sizeof subject, "%s.v1alpha.command", q->id);
    size_t size = mir_chain_block((mir_view){0}, mir_hub_instance(q->hub), block);
    size = mir_block_add(block, size, sizeof block, "mir-command-id", mir_view_cstr(q->record->id));
    size = mir_block_add(block, size, sizeof block, "mir-msg", mir_view_cstr(q->record->message));
    memset(&q->ask, 0, sizeof q->ask);
    q->ask.done = answered;
    q->asking = true;
    mir_ask_send(q->shard, &q->ask, mir_view_of(subject, (size_t)subject_size),
                 mir_view_of(block, size),
                 mir_view_of(q->record->payload.data, q->record->payload.len),
                 (int64_t)q->record->timeout_s * MIR_NS_PER_S);
}

/* The command of the last step has ended, or could not be moved on: whoever waits for it hears how. */
static void tell_ended(queue *q)
{
    mir_cmd_queue_waiter *waiter = take_waiter(q, q->step.number);
    mir_command_state state = q->step.to;
    bool is_outcome = state == MIR_COMMAND_DONE || state == MIR_COMMAND_FAILED;
    if (waiter != NULL && is_outcome && q->asked && q->answer != NULL) {
        mir_view name = mir_view_of(q->answer, q->name_size);
        mir_view payload = mir_view_of(q->answer + q->name_size + 1, q->payload_size);
        waiter->done(q->shard, waiter, MIR_OK, name, payload);
    } else if (waiter != NULL) {
        mir_status status = MIR_E_UNREACHABLE;
        bool has_moved = q->written && q->step.status == MIR_OK;
        if (is_outcome && q->asked) status = q->status == MIR_OK ? MIR_E_NO_MEMORY : q->status;
        /* Somebody else moved it just then: that can only have been a cancellation or its end. */
        if (q->written && q->step.status != MIR_OK) status = MIR_E_CLOSED;
        if (has_moved && state == MIR_COMMAND_CANCELLED) status = MIR_E_CLOSED;
        if (has_moved && state == MIR_COMMAND_EXPIRED) status = MIR_E_EMPTY;
        tell_waiter(q, waiter, status);
    }
    /* What the device said is not lost with a write that failed. */
    q->owes = !q->written && q->asked;
    if (!q->owes) {
        free(q->answer);
        q->answer = NULL;
        q->name_size = q->payload_size = 0;
    }
}

static void run_next(queue *q)
{
    if (q->next == NEXT_READ || q->next == NEXT_IDLE) tell_ended(q);
    if (q->shard->stopping) {
        settle(q);
        return;
    }
    switch (q->next) {
    case NEXT_READ: read_next(q); return;
    case NEXT_ASK:
        tell_others(q, q->record->number);
        send(q);
        return;
    case NEXT_SEND:
        if (is_there(q)) {
            q->job.run = write_sent;
            mir_workers_submit(q->hub->requests, &q->job);
            return;
        }
        settle(q);
        return;
    case NEXT_SETTLE:
    case NEXT_IDLE:
        if (q->again && (q->next == NEXT_SETTLE || q->written))
            read_next(q);
        else
            settle(q);
        return;
    }
}

/* The outcome that could not be written the last time. */
static void write_again(mir_job *job)
{
    queue *q = MIR_CONTAINER(job, queue, job);
    write_step(q, MIR_COMMAND_SENT);
}

static void begin(queue *q)
{
    if (q->running) {
        q->again = true;
        return;
    }
    q->running = true;
    mir_hub_begin(q->hub);
    if (!q->owes) {
        q->written = true;
        read_next(q);
        return;
    }
    q->again = false;
    q->job.run = write_again;
    mir_workers_submit(q->hub->requests, &q->job);
}

static queue *find_or_make(mir_shard *shard, mir_view device_id)
{
    queue *q = find(shard, device_id);
    if (q != NULL) return q;
    q = calloc(1, sizeof *q + device_id.size + 1);
    if (q == NULL) return NULL;
    q->shard = shard;
    q->hub = mir_actors_of(shard)->hub;
    q->is_left = true;
    q->id_size = device_id.size;
    memcpy(q->id, device_id.data, device_id.size);
    mir_map_add(&mir_actors_of(shard)->queues, &q->by_id, mir_hash_view(device_id));
    return q;
}

void mir_cmd_queue_enter(mir_shard *shard, mir_view device_id, mir_cmd_queue_waiter *waiter)
{
    queue *q = shard->stopping ? NULL : find_or_make(shard, device_id);
    if (q == NULL) {
        mir_view none = {0};
        if (waiter != NULL)
            waiter->done(shard, waiter, shard->stopping ? MIR_E_CANCELLED : MIR_E_UNREACHABLE, none,
                         none);
        return;
    }
    if (waiter != NULL && q->asking && q->record->number != waiter->number) {
        /* Another one is with the device, and may be for long. */
        tell_waiter(q, waiter, MIR_E_UNREACHABLE);
    } else if (waiter != NULL) {
        waiter->next = q->waiters;
        q->waiters = waiter;
    }
    begin(q);
}

void mir_cmd_queue_wake(mir_shard *shard, mir_view device_id)
{
    if (mir_actors_of(shard)->queues.count == 0) return;
    queue *q = find(shard, device_id);
    if (q != NULL) begin(q);
}

/* --- what is over its time ------------------------------------------------------------------ */

typedef struct expiry {
    mir_job job;
    mir_post post;
    mir_hub *hub;
    mir_shard *shard;
    mir_arena arena;
    mir_state_request state;
    mir_command_step *list;
    mir_cmd_note *notes;
    mir_command_steps steps;
    mir_sequel sequel;
} expiry;

static void expiry_home(mir_shard *shard, mir_post *post)
{
    expiry *e = MIR_CONTAINER(post, expiry, post);
    mir_actors_of(shard)->queue_watching = false;
    mir_hub_end(e->hub);
    mir_arena_free(&e->arena);
    mir_arena_free(&e->state.arena);
    free(e);
}

/* On the shard of the lane. */
static void expiry_told(mir_shard *shard, mir_sequel *sequel)
{
    expiry *e = MIR_CONTAINER(sequel, expiry, sequel);
    mir_sequel_home(shard, e->shard, &e->post);
}

static void tell_expired(mir_job *job)
{
    expiry *e = MIR_CONTAINER(job, expiry, job);
    mir_cmd_queue_calls calls = {.hub = e->hub};
    for (size_t i = 0; i < e->steps.count; i++) {
        if (e->list[i].status != MIR_OK) continue;
        mir_cmd_queue_tell(e->hub, &e->notes[i], e->list[i].event, &e->sequel.letters);
        /* It reads, finds nothing, and goes; without memory it stays until the device's next sign. */
        (void)!mir_cmd_queue_calls_add(&calls, mir_view_cstr(e->notes[i].record->device_id));
    }
    mir_cmd_queue_calls_go(&calls);
    e->sequel.done = expiry_told;
    mir_sequel_tell(e->hub, &e->sequel);
}

static void expiry_written(mir_state_request *request, void *context)
{
    expiry *e = context;
    /* Looked at again at once: there may be more, and what failed is tried again. */
    atomic_store_explicit(&e->hub->commands_due_ns, 0, memory_order_relaxed);
    if (request->status != MIR_OK) e->steps.count = 0;
    mir_sequel_place(e->hub, &e->sequel);
    e->job.run = tell_expired;
    mir_workers_submit(e->hub->requests, &e->job);
}

static mir_status expire(expiry *e, mir_command_record **records, size_t count)
{
    e->list = mir_arena_alloc(&e->arena, count * sizeof *e->list);
    e->notes = mir_arena_alloc(&e->arena, count * sizeof *e->notes);
    if (e->list == NULL || e->notes == NULL) return MIR_E_NO_MEMORY;
    for (size_t i = 0; i < count; i++) {
        e->notes[i] = (mir_cmd_note){.record = records[i], .state = MIR_COMMAND_EXPIRED};
        e->list[i] = (mir_command_step){
            .number = records[i]->number, .from = MIR_COMMAND_QUEUED, .to = MIR_COMMAND_EXPIRED};
        mir_status status = mir_cmd_queue_event(e->hub, &e->notes[i], &e->arena, &e->list[i].event);
        if (status != MIR_OK) return status;
    }
    e->steps = (mir_command_steps){e->list, count};
    mir_command_prepare_steps(&e->state, &e->steps);
    return MIR_OK;
}

static void expiry_run(mir_job *job)
{
    expiry *e = MIR_CONTAINER(job, expiry, job);
    mir_command_record **records;
    size_t count = 0;
    int64_t now_ns = mir_clock_wall_ns(), next_ns;
    mir_error error = {{0}};
    /* What is queued from here on lowers it again; what was before is in the snapshot. */
    atomic_store_explicit(&e->hub->commands_due_ns, INT64_MAX, memory_order_seq_cst);
    mir_status status = mir_command_due(e->hub->state, now_ns, DUE_AT_ONCE, &e->arena, &records,
                                        &count, &next_ns, &error);
    if (status == MIR_OK && count != 0) {
        status = expire(e, records, count);
    } else if (status == MIR_OK && next_ns <= now_ns) {
        mir_command_prepare_purge(&e->state);
    } else if (status == MIR_OK) {
        int64_t latest_ns = now_ns + 3600 * MIR_NS_PER_S;
        mir_cmd_queue_note_due(e->hub, next_ns < latest_ns ? next_ns : latest_ns);
        mir_shard_post(e->shard, &e->post);
        return;
    }
    e->state.cause = &e->hub->own_cause;
    e->state.done = expiry_written;
    e->state.ctx = e;
    if (status == MIR_OK && mir_state_submit(e->hub->state, &e->state) == MIR_OK) return;
    if (status != MIR_OK)
        mir_log_error("queued commands cannot expire: %s",
                      error.text[0] == '\0' ? mir_status_name(status) : error.text);
    mir_cmd_queue_note_due(e->hub, now_ns + MIR_NS_PER_S);
    mir_shard_post(e->shard, &e->post);
}

void mir_cmd_queue_note_due(mir_hub *hub, int64_t due_ns)
{
    int64_t known_ns = atomic_load_explicit(&hub->commands_due_ns, memory_order_relaxed);
    while (due_ns < known_ns &&
           !atomic_compare_exchange_weak_explicit(&hub->commands_due_ns, &known_ns, due_ns,
                                                  memory_order_relaxed, memory_order_relaxed)) {
    }
}

static void watch(mir_timer *timer, void *context)
{
    (void)context;
    mir_actors *actors = MIR_CONTAINER(timer, mir_actors, queue_watch);
    mir_shard *shard = actors->shard;
    mir_timer_set(&shard->loop->timers, timer, shard->loop->now_ns + WATCH_S * MIR_NS_PER_S);
    int64_t due_ns = atomic_load_explicit(&actors->hub->commands_due_ns, memory_order_relaxed);
    if (actors->queue_watching || due_ns > shard->loop->wall_ns) return;
    expiry *e = calloc(1, sizeof *e);
    if (e == NULL) return;
    e->hub = actors->hub;
    e->shard = shard;
    e->post.run = expiry_home;
    e->job.run = expiry_run;
    actors->queue_watching = true;
    mir_hub_begin(e->hub);
    mir_workers_submit(e->hub->requests, &e->job);
}

/* --- life ----------------------------------------------------------------------------------- */

/* Devices of one shard whose queues are to look: some in each turn. */
typedef struct mir_cmd_queue_call {
    mir_post post;
    mir_hub *hub;
    mir_bytes ids; /* one behind the other, each with a zero byte */
    size_t at;
} call;

static void call_free(call *c)
{
    mir_bytes_free(&c->ids);
    free(c);
}

static void call_run(mir_shard *shard, mir_post *post)
{
    call *c = MIR_CONTAINER(post, call, post);
    for (unsigned i = 0; i < MIR_CMD_SENT_PER_TURN && c->at < c->ids.size && !shard->stopping;
         i++) {
        mir_view id = mir_view_cstr((const char *)c->ids.data + c->at);
        c->at += id.size + 1;
        mir_cmd_queue_enter(shard, id, NULL);
    }
    if (c->at < c->ids.size && !shard->stopping) {
        mir_shard_post(shard, &c->post);
        return;
    }
    mir_hub_end(c->hub);
    call_free(c);
}

mir_status mir_cmd_queue_calls_add(mir_cmd_queue_calls *calls, mir_view device_id)
{
    mir_hub *hub = calls->hub;
    call **c = &calls->by_shard[mir_hub_shard_of(hub, device_id)];
    if (*c == NULL) *c = calloc(1, sizeof **c);
    if (*c == NULL) return MIR_E_NO_MEMORY;
    mir_bytes *ids = &(*c)->ids;
    size_t before = ids->size;
    mir_bytes_view(ids, device_id);
    mir_bytes_u8(ids, 0);
    if (mir_bytes_ok(ids)) return MIR_OK;
    ids->size = before;
    ids->failed = false;
    return MIR_E_NO_MEMORY;
}

void mir_cmd_queue_calls_go(mir_cmd_queue_calls *calls)
{
    mir_hub *hub = calls->hub;
    for (unsigned s = 0; s < hub->shard_count; s++) {
        call *c = calls->by_shard[s];
        if (c == NULL) continue;
        calls->by_shard[s] = NULL;
        c->hub = hub;
        c->post.run = call_run;
        mir_hub_begin(hub);
        mir_shard_post(hub->shards[s], &c->post);
    }
}

typedef struct watching {
    mir_post post;
    mir_hub *hub;
} watching;

static void watch_begin(mir_shard *shard, mir_post *post)
{
    watching *w = MIR_CONTAINER(post, watching, post);
    mir_actors *actors = mir_actors_of(shard);
    if (!shard->stopping) {
        actors->queue_watch.fire = watch;
        mir_timer_set(&shard->loop->timers, &actors->queue_watch,
                      shard->loop->now_ns + WATCH_S * MIR_NS_PER_S);
    }
    mir_hub_end(w->hub);
    free(w);
}

typedef struct seen {
    mir_cmd_queue_calls calls;
    char last[MIR_DEVICE_ID_BYTES_MAX + 1];
} seen;

/* The commands of a device stand together. */
static mir_status see(void *context, const mir_command_record *record)
{
    seen *s = context;
    if (strcmp(s->last, record->device_id) == 0) return MIR_OK;
    (void)snprintf(s->last, sizeof s->last, "%s", record->device_id);
    return mir_cmd_queue_calls_add(&s->calls, mir_view_cstr(record->device_id));
}

mir_status mir_cmd_queue_start(mir_hub *hub, mir_error *error)
{
    seen s = {.calls.hub = hub};
    watching *w = calloc(1, sizeof *w);
    if (w == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_status status = mir_command_waiting_each(hub->state, see, &s, error);
    /* Those that were found are looked at in any case: nobody else will. */
    mir_cmd_queue_calls_go(&s.calls);
    if (status != MIR_OK) {
        free(w);
        return status;
    }
    w->hub = hub;
    w->post.run = watch_begin;
    mir_hub_begin(hub);
    mir_shard_post(hub->shards[0], &w->post);
    return MIR_OK;
}

void mir_cmd_queue_fini(mir_actors *actors)
{
    uint32_t from = 0;
    mir_map_node *node;
    while ((node = mir_map_any(&actors->queues, &from)) != NULL) {
        mir_map_remove(&actors->queues, node);
        queue *q = MIR_CONTAINER(node, queue, by_id);
        drop_outcome(q);
        free(q);
    }
    mir_map_free(&actors->queues);
}
