/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cmd_sending.h"

#include <sched.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir/device/v1/mir.pb-c.h"
#include "mir_ask.h"
#include "mir_clock.h"
#include "mir_cmd_queue.h"
#include "mir_events.h"
#include "mir_json_codec.h"
#include "mir_json_text.h"
#include "mir_limits.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_pb.h"
#include "mir_resolve.h"
#include "mir_twin.h"
#include "mir_utf8.h"

enum {
    HEADER_BYTES_MAX = MIR_CHAIN_BLOCK_BYTES_MAX + MIR_CMD_NAME_BYTES_MAX + 64,
    KNOWN_NAMES_BYTES_MAX = 1024,
    PARTIAL_BYTES_MAX = 256 * 1024,
    /* Of a message beside the entry of a device: its header, the key of the map, the frames. */
    ENTRY_BYTES_ELSE = HEADER_BYTES_MAX + 1024,
    QUICK_BYTES_MAX = 4096, /* of an answer that is handled where it arrives */
};

#define ERROR_NAME "mir.device.v1.Error"
#define VOID_NAME  "mir.device.v1.Void"

typedef MirApi__V1__SendCommandResponse__CommandResponse entry_message;
typedef MirApi__V1__SendCommandResponse__CommandResponses__DeviceResponsesEntry entry_pair;

/* What one schema makes of the command: the same for all devices of a group. */
typedef struct plan {
    mir_schema *schema;    /* null: nothing is validated */
    const char *error;     /* null: it can be sent */
    const char *name;      /* full */
    const char *template_; /* with show_template */
    mir_view payload;
    mir_view header;
    bool is_unknown; /* `error` says that the schema has no such message: a newer one may */
} plan;

typedef enum target_state {
    CHECKING,
    READY,
    STORING, /* with queue */
    SENT,
    FINAL,
} target_state;

typedef struct sending sending;

/* While it is out, a target belongs to the shard that has it. */
typedef struct target {
    mir_mpsc_node inbox;
    struct target *next; /* of the chain that it is in */
    sending *all;
    void (*errand)(mir_shard *shard, struct target *t);
    MirStore__V1__DeviceRecord *record;
    plan *plan;
    uint8_t state;
    bool was_asked_again; /* for a schema that has the command */
    entry_message entry;
    /* What came back: */
    mir_status status;
    uint8_t *answer; /* the name, a zero byte, the payload */
    size_t name_size, payload_size;
    uint64_t number; /* of the queued command */
    char *asked_error;
    union {
        mir_twin_waiter waiter;
        mir_ask ask;
        mir_cmd_queue_waiter queued;
    };
} target;

/* A target is in one chain at most. */
typedef struct chain {
    target *first, *last;
    size_t count;
} chain;

/* Takes targets to one shard, where each does its errand: some in each turn. */
typedef struct carrier {
    mir_post post;
    mir_mpsc chains; /* each by the inbox of its first target */
    /* Targets in them, or about to be. Who counts it up from 0 posts. */
    atomic_size_t waiting;
    chain loading; /* by the present pass */
    /* The shard's: what it has taken and not yet done. */
    target *at;
    mir_mpsc_node *taken;
} carrier;

struct sending {
    mir_request *request;
    MirApi__V1__SendCommandRequest *input;
    mir_schema_groups groups;
    plan *raw; /* without validation */
    MirStore__V1__DeviceRecord **records;
    target *targets;
    size_t count;
    size_t begun; /* so many of them have been looked at */
    size_t unchecked, in_error, left;
    chain ready;  /* checked, and not sent yet */
    chain untold; /* final, and in no partial answer yet */
    size_t told;
    bool is_decided; /* what is ready is sent */
    bool was_sent;
    bool was_stored; /* with queue */
    bool failed;     /* without memory: what is under way is awaited, then that is the answer */
    int64_t timeout_ns;
    /* With queue, a part at a time: */
    mir_state_request store;
    bool is_storing; /* until each of the part is in the queue of its device, or has failed */
    bool is_stored;
    size_t queued_bytes;
    int64_t expires_ns;
    mir_mpsc_node stored; /* comes back once they are */
    mir_sequel *sequel;   /* of the part */
    mir_command_add *adds;
    mir_command_adds adds_list;
    size_t placed; /* so many of the list went on */
    target **added;
    /* What is told (partial answers and events) goes out some in each turn of the request's shard,
     * from the request's letters: */
    mir_post telling;
    mir_letters letters; /* the shard's, while it tells */
    bool is_telling;
    mir_mpsc_node told_some; /* comes back once they are out */
    /* At the end: */
    bool is_ending;
    size_t ended; /* so many of the targets are in the answer, and their events are made */
    entry_pair *pairs;
    entry_pair **pair_list;
    mir_event_batch *events;
    /* The actor: */
    mir_mpsc inbox;
    mir_mpsc_node *taken; /* from it, and not handled yet */
    size_t handled;       /* of what is pending */
    size_t budget;        /* devices that the present pass may yet deal with */
    /* What is in the inbox or about to be, and what is being handled. Who counts it up from 0 has it
     * run. */
    atomic_size_t pending;
    carrier carriers[]; /* to each shard */
};

static _Atomic uint32_t targets_in_flight;

static const char device_is_disabled[] = "the device is disabled";

static void work(mir_request *request);
static void run(sending *all);

/* `here`: it is quickly done, on the shard that calls. */
static void push(sending *all, mir_mpsc_node *node, bool here)
{
    size_t before = atomic_fetch_add_explicit(&all->pending, 1, memory_order_acq_rel);
    (void)mir_mpsc_push(&all->inbox, node);
    /* Whoever handles it may end the whole from here on, unless it waits for this one's run. */
    if (before != 0) return;
    if (here)
        run(all);
    else
        mir_request_continue(all->request, work, false);
}

static void come_back(target *t)
{
    push(t->all, &t->inbox, false);
}

/* Whether the whole is one device and one message there and back. It takes the shortest way: from the
 * shard of the request, which also makes the answer of the device's answer. */
static bool is_alone(const sending *all)
{
    return all->count == 1 && !all->input->queue;
}

static mir_view text_view(const char *text)
{
    return text == NULL ? (mir_view){0} : mir_view_cstr(text);
}

static char *copy_text(sending *all, mir_view text)
{
    char *copy = mir_arena_strdup(&all->request->arena, text);
    if (copy == NULL) all->failed = true;
    return copy;
}

/* --- chains --------------------------------------------------------------------------------- */

static void chain_add(chain *c, target *t)
{
    t->next = NULL;
    if (c->last == NULL)
        c->first = t;
    else
        c->last->next = t;
    c->last = t;
    c->count++;
}

static target *chain_take(chain *c)
{
    target *t = c->first;
    if (t == NULL) return NULL;
    c->first = t->next;
    if (c->first == NULL) c->last = NULL;
    c->count--;
    return t;
}

/* --- to the shards and back ----------------------------------------------------------------- */

static target *carried_next(carrier *c)
{
    if (c->at == NULL) {
        if (c->taken == NULL) c->taken = mir_mpsc_take(&c->chains);
        if (c->taken == NULL) return NULL;
        c->at = MIR_CONTAINER(c->taken, target, inbox);
        c->taken = c->taken->next;
    }
    target *t = c->at;
    c->at = t->next;
    return t;
}

static void carry_run(mir_shard *shard, mir_post *post)
{
    carrier *c = MIR_CONTAINER(post, carrier, post);
    chain now = {0};
    target *t;
    while (now.count < MIR_CMD_SENT_PER_TURN && (t = carried_next(c)) != NULL) chain_add(&now, t);
    if (atomic_fetch_sub_explicit(&c->waiting, now.count, memory_order_acq_rel) != now.count)
        mir_shard_post(shard, &c->post);
    /* The last one's errand may end the whole, and the carrier with it. */
    while ((t = chain_take(&now)) != NULL) t->errand(shard, t);
}

/* The target goes to that shard at the end of this pass. */
static void carry(target *t, unsigned shard, void (*errand)(mir_shard *shard, target *t))
{
    t->errand = errand;
    chain_add(&t->all->carriers[shard].loading, t);
}

static void carry_home(target *t, void (*errand)(mir_shard *shard, target *t))
{
    carry(t, mir_hub_shard_of(t->all->request->hub, mir_view_cstr(t->record->device_id)), errand);
}

static void carry_loaded(sending *all)
{
    mir_hub *hub = all->request->hub;
    for (unsigned s = 0; s < hub->shard_count; s++) {
        carrier *c = &all->carriers[s];
        chain loaded = c->loading;
        if (loaded.first == NULL) continue;
        c->loading = (chain){0};
        size_t before = atomic_fetch_add_explicit(&c->waiting, loaded.count, memory_order_acq_rel);
        (void)mir_mpsc_push(&c->chains, &loaded.first->inbox);
        if (before != 0) continue;
        c->post.run = carry_run;
        mir_shard_post(hub->shards[s], &c->post);
    }
}

/* --- entries -------------------------------------------------------------------------------- */

static void finish_target(target *t)
{
    sending *all = t->all;
    t->state = FINAL;
    all->left--;
    if (all->input->stream && all->request->reply.size != 0) chain_add(&all->untold, t);
}

static void fail_target(target *t, const char *prefix, const char *cause)
{
    sending *all = t->all;
    size_t size = strlen(prefix) + strlen(cause) + 1;
    char *text = mir_arena_alloc(&all->request->arena, size);
    if (text == NULL)
        all->failed = true;
    else
        (void)snprintf(text, size, "%s%s", prefix, cause);
    entry_message *entry = &t->entry;
    entry->has_status = 1;
    entry->status = MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_ERROR;
    entry->error = text;
    entry->name = NULL;
    entry->has_payload = 0;
    all->in_error++;
    finish_target(t);
}

static void set_status(target *t, MirApi__V1__CommandResponseStatus status)
{
    t->entry.has_status = 1;
    t->entry.status = status;
}

/* --- what a schema makes of the command ------------------------------------------------------ */

static void list_commands(const mir_schema *schema, char *text, size_t size)
{
    uint32_t count = 0;
    const mir_schema_message *const *list =
        mir_schema_list(schema, MIR_MESSAGE_TELECOMMAND, &count);
    size_t used = 0;
    if (count == 0) (void)snprintf(text, size, "its schema has no commands");
    for (uint32_t i = 0; i < count; i++) {
        size_t need = list[i]->name_size + 32;
        if (used + need > size) {
            (void)snprintf(text + used, size - used, " and %u more", count - i);
            return;
        }
        used += (size_t)snprintf(text + used, size - used, "%s%s",
                                 i == 0 ? "its commands are " : ", ", list[i]->name);
    }
}

static const char *plan_failed(sending *all, const char *format, const char *cause)
{
    size_t size = strlen(format) + strlen(cause) + 1;
    char *text = mir_arena_alloc(&all->request->arena, size);
    if (text == NULL) {
        all->failed = true;
        return "out of memory";
    }
    (void)snprintf(text, size, "%s%s", format, cause);
    return text;
}

static const mir_schema_message *find_command(sending *all, const mir_schema *schema, plan *p)
{
    const mir_schema_message *message = NULL;
    mir_error error = {{0}};
    mir_view name = mir_view_cstr(all->input->name);
    mir_status status = mir_schema_find(schema, name, &message, &error);
    if (status == MIR_E_NOT_FOUND) {
        mir_error ambiguous = {{0}};
        status = mir_schema_find_short(schema, name, &message, &ambiguous);
        if (status == MIR_E_INVALID) error = ambiguous;
    }
    if (status == MIR_OK && message->type == MIR_MESSAGE_TELECOMMAND) return message;
    char known[KNOWN_NAMES_BYTES_MAX], text[KNOWN_NAMES_BYTES_MAX + MIR_ERROR_TEXT_BYTES_MAX + 256];
    list_commands(schema, known, sizeof known);
    if (status == MIR_OK)
        (void)snprintf(text, sizeof text, "%s is a message of the device and no command; %s",
                       message->name, known);
    else
        (void)snprintf(text, sizeof text,
                       "cannot reconcile device schema: %s: the device has no "
                       "command %s; %s",
                       error.text, all->input->name, known);
    p->is_unknown = status != MIR_OK;
    p->error = plan_failed(all, "error retrieve command descriptor from device schema: ", text);
    return NULL;
}

static void set_payload(sending *all, const mir_schema_message *message, plan *p)
{
    mir_view given = mir_view_of(all->input->payload.data, all->input->payload.len);
    mir_error error = {{0}};
    mir_bytes bytes = {0};
    mir_status status;
    if (all->input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_JSON) {
        status = mir_json_to_proto(message, given, &bytes, &error);
        if (status == MIR_OK) {
            const char *copy = copy_text(all, mir_bytes_as_view(&bytes));
            p->payload = copy == NULL ? (mir_view){0} : mir_view_of(copy, bytes.size);
        }
    } else {
        status = mir_json_check_proto(message, given, &error);
        p->payload = given;
    }
    if (status != MIR_OK) p->error = plan_failed(all, "error unmarshaling payload: ", error.text);
    mir_bytes_free(&bytes);
}

static void set_template(sending *all, const mir_schema_message *message, plan *p)
{
    mir_bytes text = {0};
    mir_error error = {{0}};
    if (mir_json_template(message, MIR_JSON_TEMPLATE_SAMPLES, &text, &error) == MIR_OK)
        p->template_ = copy_text(all, mir_bytes_as_view(&text));
    else
        p->error =
            plan_failed(all, "error generating command template from device schema: ", error.text);
    mir_bytes_free(&text);
}

static void set_header(sending *all, plan *p)
{
    mir_request *request = all->request;
    char block[HEADER_BYTES_MAX];
    size_t size = mir_chain_block(request->header, mir_hub_instance(request->hub), block);
    size = mir_block_add(block, size, sizeof block, "mir-msg", mir_view_cstr(p->name));
    const char *copy = size == 0 ? NULL : copy_text(all, mir_view_of(block, size));
    p->header = copy == NULL ? (mir_view){0} : mir_view_of(copy, size);
}

static plan *plan_of(sending *all, mir_schema_group *group)
{
    if (group->context != NULL) return group->context;
    plan *p = mir_arena_alloc(&all->request->arena, sizeof *p);
    if (p == NULL) return NULL;
    group->context = p;
    p->schema = group->schema;
    if (group->error != NULL) {
        p->error = plan_failed(
            all, "error retrieve command descriptor from device schema: ", group->error);
        return p;
    }
    const mir_schema_message *message = find_command(all, group->schema, p);
    if (message == NULL) return p;
    p->name = message->name;
    if (all->input->show_template) {
        set_template(all, message, p);
        return p;
    }
    set_payload(all, message, p);
    set_header(all, p);
    return p;
}

/* --- checking ------------------------------------------------------------------------------- */

static void schema_asked(mir_shard *shard, mir_twin_waiter *waiter, const char *error)
{
    (void)shard;
    target *t = MIR_CONTAINER(waiter, target, waiter);
    t->status = error == NULL ? MIR_OK : MIR_E_UNREACHABLE;
    t->asked_error = error == NULL ? NULL : strdup(error);
    come_back(t);
}

static void ask_for_schema(mir_shard *shard, target *t)
{
    t->waiter = (mir_twin_waiter){.done = schema_asked};
    if (shard->stopping)
        schema_asked(shard, &t->waiter, "the server is stopping");
    else
        mir_twin_pull(shard, mir_view_cstr(t->record->device_id), &t->waiter);
}

/* A queued command waits until the device is enabled; a template is nothing that is sent. */
static bool is_cut_off(const target *t)
{
    const MirApi__V1__SendCommandRequest *input = t->all->input;
    return t->record->has_disabled && t->record->disabled && !input->queue && !input->show_template;
}

static void check(target *t, mir_schema_group *group)
{
    sending *all = t->all;
    plan *p = plan_of(all, group);
    if (p == NULL) {
        all->failed = true;
        all->unchecked--;
        fail_target(t, "", "out of memory");
        return;
    }
    if (p->error != NULL && p->is_unknown && !t->was_asked_again) {
        t->was_asked_again = true;
        carry_home(t, ask_for_schema);
        return;
    }
    all->unchecked--;
    t->plan = p;
    if (p->error != NULL) {
        fail_target(t, "", p->error);
    } else if (all->input->show_template) {
        set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_SUCCESS);
        t->entry.name = (char *)(uintptr_t)p->name;
        mir_view text = text_view(p->template_);
        t->entry.has_payload = 1;
        t->entry.payload = (ProtobufCBinaryData){text.size, (uint8_t *)(uintptr_t)text.data};
        finish_target(t);
    } else {
        set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_VALIDATED);
        t->state = READY;
        chain_add(&all->ready, t);
    }
}

static void check_stored(target *t)
{
    sending *all = t->all;
    mir_schema_group *group;
    if (mir_resolve_stored(all->request->hub, &all->groups, t->record, &group) == MIR_OK) {
        check(t, group);
        return;
    }
    all->failed = true;
    all->unchecked--;
    fail_target(t, "", "out of memory");
}

/* The device has answered for its schema, or has not. */
static void check_asked(target *t)
{
    sending *all = t->all;
    mir_request *request = all->request;
    mir_error error = {{0}};
    const char *cause = t->asked_error;
    MirStore__V1__DeviceRecord *record = NULL;
    if (t->status == MIR_OK) {
        mir_status status = mir_state_get(request->hub->state, mir_view_cstr(t->record->device_id),
                                          &request->arena, &record, &error);
        if (status == MIR_E_NOT_FOUND) cause = "no device found to update";
        if (status != MIR_OK && status != MIR_E_NOT_FOUND) cause = error.text;
    } else if (cause == NULL) {
        cause = "out of memory";
    }
    if (record != NULL) {
        t->record = record;
        if (is_cut_off(t)) {
            all->unchecked--;
            fail_target(t, "", device_is_disabled);
        } else {
            check_stored(t);
        }
    } else {
        all->unchecked--;
        fail_target(t,
                    "error retrieve command descriptor from device schema: "
                    "cannot reconcile device schema: ",
                    cause);
    }
    free(t->asked_error);
    t->asked_error = NULL;
}

/* --- sending -------------------------------------------------------------------------------- */

static void keep_answer(target *t, mir_view name, mir_view payload)
{
    /* The name goes into texts: one that is none names nothing. */
    if (name.size > MIR_CMD_NAME_BYTES_MAX || !mir_utf8_valid(name)) name = (mir_view){0};
    t->answer = malloc(name.size + 1 + payload.size);
    if (t->answer == NULL) {
        t->status = MIR_E_NO_MEMORY;
        return;
    }
    if (name.size != 0) memcpy(t->answer, name.data, name.size);
    t->answer[name.size] = '\0';
    if (payload.size != 0) memcpy(t->answer + name.size + 1, payload.data, payload.size);
    t->name_size = name.size;
    t->payload_size = payload.size;
}

static void answered(mir_ask *ask, mir_status status, const mir_message *answer)
{
    target *t = MIR_CONTAINER(ask, target, ask);
    t->status = status;
    if (status == MIR_OK)
        keep_answer(t, mir_nats_header(answer->header, MIR_VIEW_LITERAL("mir-msg")),
                    answer->payload);
    bool is_quick = status == MIR_OK && is_alone(t->all) &&
                    answer->header.size + answer->payload.size <= QUICK_BYTES_MAX;
    push(t->all, &t->inbox, is_quick);
}

static void send_command(mir_shard *shard, target *t)
{
    t->ask = (mir_ask){.done = answered};
    if (shard->stopping) {
        answered(&t->ask, MIR_E_CANCELLED, NULL);
    } else if (mir_twin_is_disabled(shard, mir_view_cstr(t->record->device_id))) {
        answered(&t->ask, MIR_E_PERMISSION, NULL);
    } else {
        char subject[MIR_DEVICE_ID_BYTES_MAX + 32];
        int size = snprintf(subject, sizeof subject, "%s.v1alpha.command", t->record->device_id);
        mir_ask_send(shard, &t->ask, mir_view_of(subject, (size_t)size), t->plan->header,
                     t->plan->payload, t->all->timeout_ns);
    }
}

static void send_ready(sending *all)
{
    target *t;
    while (all->budget != 0 && (t = chain_take(&all->ready)) != NULL) {
        all->budget--;
        t->state = SENT;
        all->was_sent = true;
        if (is_alone(all))
            carry(t, all->request->shard->id, send_command);
        else
            carry_home(t, send_command);
    }
}

/* --- queueing ------------------------------------------------------------------------------- */

/* What the device's queue says of it. */
static void queue_told(mir_shard *shard, mir_cmd_queue_waiter *waiter, mir_status status,
                       mir_view name, mir_view payload)
{
    (void)shard;
    target *t = MIR_CONTAINER(waiter, target, queued);
    t->status = status;
    if (status == MIR_OK) keep_answer(t, name, payload);
    come_back(t);
}

static void enter_queue(mir_shard *shard, target *t)
{
    uint64_t number = t->number;
    t->queued = (mir_cmd_queue_waiter){.number = number, .done = queue_told};
    mir_cmd_queue_enter(shard, mir_view_cstr(t->record->device_id), &t->queued);
}

static void adds_done(mir_state_request *request, void *context)
{
    sending *all = context;
    if (request->status == MIR_OK) mir_sequel_place(all->request->hub, all->sequel);
    push(all, &all->stored, false);
}

static mir_status prepare_add(sending *all, target *t, mir_command_add *add, int64_t expires_ns)
{
    mir_arena *arena = &all->request->arena;
    char *command_id = mir_arena_alloc(arena, MIR_COMMAND_ID_BYTES_MAX);
    if (command_id == NULL) return MIR_E_NO_MEMORY;
    mir_status status = mir_command_id_new(command_id);
    if (status != MIR_OK) return status;
    *add = (mir_command_add){.id = command_id,
                             .device_id = mir_view_cstr(t->record->device_id),
                             .message = t->plan->name,
                             .payload = t->plan->payload,
                             .expires_ns = expires_ns,
                             .timeout_s = (uint32_t)(all->timeout_ns / MIR_NS_PER_S)};
    mir_command_record shown = MIR_STORE__V1__COMMAND_RECORD__INIT;
    shown.id = command_id;
    shown.device_id = t->record->device_id;
    shown.device_name = t->record->name;
    shown.namespace_ = t->record->namespace_;
    shown.message = (char *)(uintptr_t)t->plan->name;
    mir_cmd_note note = {
        .record = &shown, .state = MIR_COMMAND_QUEUED, .cause = &all->request->cause};
    return mir_cmd_queue_event(all->request->hub, &note, arena, &add->event);
}

static void submit_adds(sending *all)
{
    mir_request *request = all->request;
    all->is_storing = true;
    all->is_stored = false;
    all->placed = 0;
    mir_command_prepare_add(&all->store, &all->adds_list);
    all->store.cause = &request->cause;
    all->store.done = adds_done;
    all->store.ctx = all;
    all->sequel = calloc(1, sizeof *all->sequel);
    const char *error = all->sequel == NULL ? "out of memory" : "the store is busy: try again";
    if (all->sequel != NULL && mir_state_submit(request->hub->state, &all->store) == MIR_OK) return;
    free(all->sequel);
    all->is_storing = false;
    for (size_t i = 0; i < all->adds_list.count; i++) fail_target(all->added[i], "", error);
    all->adds_list.count = 0;
}

/* Null: it can be queued. */
static const char *refusal_of(sending *all, const target *t)
{
    mir_state_stats stats;
    mir_state_stats_get(all->request->hub->state, &stats);
    all->queued_bytes += t->plan->payload.size;
    if (stats.map_bytes_used > stats.map_bytes / 2)
        return "the state store is more than half full: raise state.map_size";
    if (t->plan->payload.size > MIR_COMMAND_PAYLOAD_BYTES_MAX)
        return "its payload is larger than 262144 bytes";
    if (all->queued_bytes > MIR_CMD_QUEUED_BYTES_MAX)
        return "the payloads of one request are larger than 64 MiB together";
    return NULL;
}

/* Adds to the part that is stored next, until it is full or there is no more. */
static void fill_adds(sending *all)
{
    size_t *count = &all->adds_list.count;
    target *t;
    while (all->budget != 0 && *count < MIR_CMD_STORED_AT_ONCE &&
           (t = chain_take(&all->ready)) != NULL) {
        all->budget--;
        const char *refusal = refusal_of(all, t);
        if (refusal != NULL) {
            fail_target(t, "error queueing the command: ", refusal);
        } else if (all->adds == NULL || all->added == NULL ||
                   prepare_add(all, t, &all->adds[*count], all->expires_ns) != MIR_OK) {
            fail_target(t, "", "out of memory");
        } else {
            t->state = STORING;
            all->added[(*count)++] = t;
        }
    }
}

/* Makes up a part of what is ready, and has it stored when it is full or there is no more. A part that
 * is not taken leaves the next one to this pass: nothing comes back that would begin another. */
static void queue_ready(sending *all)
{
    mir_request *request = all->request;
    if (all->is_storing) return;
    if (all->adds == NULL) {
        size_t room = all->count < MIR_CMD_STORED_AT_ONCE ? all->count : MIR_CMD_STORED_AT_ONCE;
        all->adds = mir_arena_alloc(&request->arena, room * sizeof *all->adds);
        all->added = mir_arena_alloc(&request->arena, room * sizeof(target *));
        all->adds_list.list = all->adds;
    }
    size_t ttl_s = all->input->ttl_sec == 0 ? MIR_CMD_TTL_S_DEFAULT : all->input->ttl_sec;
    size_t *count = &all->adds_list.count;
    do {
        if (*count == 0) all->expires_ns = mir_clock_wall_ns() + (int64_t)ttl_s * MIR_NS_PER_S;
        fill_adds(all);
        if (*count != 0 && (*count == MIR_CMD_STORED_AT_ONCE || all->ready.count == 0))
            submit_adds(all);
    } while (!all->is_storing && all->ready.count != 0 && all->budget != 0);
}

/* It is stored, or not: if it is, it goes to the queue of its device. */
static void place(sending *all, target *t, const mir_command_add *add)
{
    if (all->store.status != MIR_OK) {
        fail_target(t, "error queueing the command: ", all->store.error);
        return;
    }
    if (add->status != MIR_OK) {
        fail_target(t, "error queueing the command: ",
                    add->status == MIR_E_FULL
                        ? "too many commands wait already: cancel some, or wait until the "
                          "device is back"
                        : "the device was deleted");
        return;
    }
    all->was_stored = true;
    t->number = add->record->number;
    t->entry.command_id = (char *)(uintptr_t)add->id;
    mir_cmd_note note = {
        .record = add->record, .state = MIR_COMMAND_QUEUED, .cause = &all->request->cause};
    mir_cmd_queue_tell(all->request->hub, &note, add->event, &all->sequel->letters);
    t->state = SENT;
    carry_home(t, enter_queue);
}

/* The shard of the lane has published it. */
static void told_stored(mir_shard *shard, mir_sequel *sequel)
{
    (void)shard;
    free(sequel);
}

static void place_stored(sending *all)
{
    if (!all->is_stored) return;
    for (; all->placed < all->adds_list.count && all->budget != 0; all->budget--) {
        size_t i = all->placed++;
        place(all, all->added[i], &all->adds[i]);
    }
    if (all->placed < all->adds_list.count) return;
    if (all->was_stored) mir_cmd_queue_note_due(all->request->hub, all->expires_ns);
    mir_arena_free(&all->store.arena);
    if (all->sequel->has_place) {
        /* The answer comes behind it. */
        all->request->follows = true;
        all->sequel->done = told_stored;
        mir_sequel_tell(all->request->hub, all->sequel);
    } else {
        free(all->sequel);
    }
    all->is_storing = all->is_stored = false;
    all->adds_list.count = 0;
}

/* --- what devices answer -------------------------------------------------------------------- */

static void take_error_message(target *t, mir_view payload)
{
    Mir__Device__V1__Error *message;
    mir_error error = {{0}};
    if (mir_pb_unpack(&mir__device__v1__error__descriptor, payload, &t->all->request->arena,
                      &message, &error) != MIR_OK)
        fail_target(t, "error unmarshaling error payload: ", error.text);
    else
        fail_target(t, "",
                    message->message == NULL || message->message[0] == '\0'
                        ? "the device answered with an error that says nothing"
                        : message->message);
}

static void succeed(target *t, const char *name, mir_view payload)
{
    sending *all = t->all;
    t->entry.name = copy_text(all, mir_view_cstr(name));
    const char *copy = copy_text(all, payload);
    t->entry.has_payload = payload.size != 0;
    t->entry.payload = (ProtobufCBinaryData){payload.size, (uint8_t *)(uintptr_t)copy};
    set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_SUCCESS);
    finish_target(t);
}

static void take_reply(target *t, const char *name, mir_view payload)
{
    const plan *p = t->plan;
    if (p->schema == NULL) {
        succeed(t, name, payload);
        return;
    }
    bool as_json = t->all->input->payload_encoding == MIR_API__V1__ENCODING__ENCODING_JSON;
    const mir_schema_message *message = NULL;
    mir_error error = {{0}};
    mir_status status = mir_schema_find(p->schema, mir_view_cstr(name), &message, &error);
    /* Handlers that return nothing answer with it, whether the schema brings its file or not. */
    if (status != MIR_OK && strcmp(name, VOID_NAME) == 0 && payload.size == 0) {
        succeed(t, name, as_json ? MIR_VIEW_LITERAL("{}") : payload);
        return;
    }
    if (status != MIR_OK) {
        fail_target(t, "error finding command response in schema: ",
                    name[0] == '\0' ? "the answer has no header mir-msg that names its type"
                                    : error.text);
        return;
    }
    status = mir_json_check_proto(message, payload, &error);
    if (status != MIR_OK) {
        fail_target(t, "error unmarshaling payload: ", error.text);
        return;
    }
    if (!as_json) {
        succeed(t, name, payload);
        return;
    }
    mir_bytes json = {0};
    if (mir_json_from_proto(message, payload, MIR_JSON_DEFAULTS_OMITTED, &json, &error) == MIR_OK)
        succeed(t, name, mir_bytes_as_view(&json));
    else
        fail_target(t, "error marshaling proto payload to json: ", error.text);
    mir_bytes_free(&json);
}

/* How large an entry may be, so that a message can bring it. */
static size_t entry_bytes_max(const sending *all)
{
    size_t size_max = (size_t)all->request->hub->config->limits.max_payload_bytes;
    return size_max > 2 * ENTRY_BYTES_ELSE ? size_max - ENTRY_BYTES_ELSE : size_max / 2;
}

/* What a device says may not keep the others from being told of. */
static void bound_entry(target *t)
{
    sending *all = t->all;
    size_t size = protobuf_c_message_get_packed_size(&t->entry.base);
    if (size <= entry_bytes_max(all)) return;
    char text[128];
    (void)snprintf(text, sizeof text,
                   "the device answered, but with %zu bytes, more than can be told (%zu)", size,
                   entry_bytes_max(all));
    if (t->entry.status != MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_ERROR)
        all->in_error++;
    set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_ERROR);
    t->entry.error = copy_text(all, mir_view_cstr(text));
    t->entry.name = NULL;
    t->entry.has_payload = 0;
}

static void take_answer(target *t)
{
    static const char prefix[] = "error during sent command request to device: ";
    static const char asking[] =
        "error during sent command request to device: error requesting device command: ";
    switch (t->status) {
    case MIR_OK: {
        const char *name = (const char *)t->answer;
        mir_view payload = {t->answer + t->name_size + 1, t->payload_size};
        if (strlen(name) == sizeof ERROR_NAME - 1 && strcmp(name, ERROR_NAME) == 0)
            take_error_message(t, payload);
        else
            take_reply(t, name, payload);
        break;
    }
    case MIR_E_UNREACHABLE:
        if (t->all->input->queue) {
            set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_QUEUED);
            finish_target(t);
            break;
        }
        fail_target(t, asking, "nats: no responders available for request");
        break;
    case MIR_E_TIMEOUT: fail_target(t, asking, "nats: timeout"); break;
    case MIR_E_CANCELLED: fail_target(t, prefix, "the server is stopping"); break;
    case MIR_E_CLOSED: fail_target(t, prefix, "it was cancelled before it was sent"); break;
    case MIR_E_EMPTY: fail_target(t, prefix, "its time was over before it was sent"); break;
    case MIR_E_PERMISSION: fail_target(t, "", device_is_disabled); break;
    default: fail_target(t, prefix, "the server is out of memory"); break;
    }
    free(t->answer);
    t->answer = NULL;
    bound_entry(t);
}

/* --- answers -------------------------------------------------------------------------------- */

static char *key_of(sending *all, const target *t)
{
    const char *name = t->record->name, *name_space = t->record->namespace_;
    size_t size = strlen(name) + strlen(name_space) + 2;
    char *key = mir_arena_alloc(&all->request->arena, size);
    if (key != NULL) (void)snprintf(key, size, "%s/%s", name, name_space);
    return key;
}

static bool set_pair(sending *all, target *t, entry_pair *pair)
{
    mir_api__v1__send_command_response__command_responses__device_responses_entry__init(pair);
    pair->key = key_of(all, t);
    pair->value = &t->entry;
    return pair->key != NULL;
}

static void set_encoding(const sending *all,
                         MirApi__V1__SendCommandResponse__CommandResponses *responses)
{
    responses->has_encoding =
        all->input->payload_encoding != MIR_API__V1__ENCODING__ENCODING_UNSPECIFIED;
    responses->encoding = all->input->payload_encoding;
}

static void add_partial(sending *all, entry_pair **pairs, size_t count)
{
    MirApi__V1__SendCommandResponse__CommandResponses responses =
        MIR_API__V1__SEND_COMMAND_RESPONSE__COMMAND_RESPONSES__INIT;
    responses.device_responses = pairs;
    responses.n_device_responses = count;
    set_encoding(all, &responses);
    MirApi__V1__SendCommandResponse response = MIR_API__V1__SEND_COMMAND_RESPONSE__INIT;
    response.response_case = MIR_API__V1__SEND_COMMAND_RESPONSE__RESPONSE_OK;
    response.ok = &responses;
    char block[HEADER_BYTES_MAX], progress[64];
    all->told += count;
    int progress_size = snprintf(progress, sizeof progress, "%zu/%zu", all->told, all->count);
    size_t size = mir_chain_block((mir_view){0}, mir_hub_instance(all->request->hub), block);
    size = mir_block_add(block, size, sizeof block, "mir-progress",
                         mir_view_of(progress, (size_t)progress_size));
    size = mir_block_add(block, size, sizeof block, "mir-stream", MIR_VIEW_LITERAL("partial"));
    mir_letters_add_packed(&all->request->letters, all->request->reply, mir_view_of(block, size),
                           &response.base);
}

/* What became final since the last time; without memory it comes with the whole answer. */
static void tell_partial(sending *all)
{
    size_t max = all->untold.count < all->budget ? all->untold.count : all->budget;
    if (max == 0) return;
    all->budget -= max;
    entry_pair *pairs = calloc(max, sizeof *pairs);
    entry_pair **list = calloc(max, sizeof(entry_pair *));
    size_t bytes_max = entry_bytes_max(all);
    if (bytes_max > PARTIAL_BYTES_MAX) bytes_max = PARTIAL_BYTES_MAX;
    size_t first = 0, count = 0, bytes = 0;
    for (size_t i = 0; i < max; i++) {
        target *t = chain_take(&all->untold);
        if (pairs == NULL || list == NULL || !set_pair(all, t, &pairs[count])) continue;
        /* With the frame around it, whose size has at most five bytes. */
        size_t size = protobuf_c_message_get_packed_size(&pairs[count].base) + 8;
        if (count != first && bytes + size > bytes_max) {
            add_partial(all, list + first, count - first);
            first = count;
            bytes = 0;
        }
        list[count] = &pairs[count];
        bytes += size;
        count++;
    }
    if (count != first) add_partial(all, list + first, count - first);
    free(pairs);
    free(list);
}

static void tell_run(mir_shard *shard, mir_post *post)
{
    sending *all = MIR_CONTAINER(post, sending, telling);
    if (shard->stopping)
        mir_letters_discard(&all->letters);
    else
        mir_letters_publish_some(shard, &all->letters, MIR_CMD_SENT_PER_TURN);
    if (all->letters.first != NULL)
        mir_shard_post(shard, &all->telling);
    else
        push(all, &all->told_some, false);
}

/* Has the request's shard tell what there is, unless it does already. */
static void tell(sending *all)
{
    mir_letters *letters = &all->request->letters;
    if (all->is_telling || letters->first == NULL) return;
    all->is_telling = true;
    all->letters = *letters;
    *letters = (mir_letters){.failed = letters->failed};
    all->telling.run = tell_run;
    mir_shard_post(all->request->shard, &all->telling);
}

static void put_member(mir_bytes *json, const char *key, mir_view value, bool as_base64)
{
    if (value.size == 0) return;
    mir_bytes_u8(json, json->size == 0 ? '{' : ',');
    mir_json_put_string(json, mir_view_cstr(key), MIR_JSON_ESCAPE_NEEDED);
    mir_bytes_u8(json, ':');
    if (as_base64) {
        mir_bytes_u8(json, '"');
        mir_json_put_base64(json, value);
        mir_bytes_u8(json, '"');
    } else {
        mir_json_put_string(json, value, MIR_JSON_ESCAPE_HTML);
    }
}

/* The names and the number of the status are those of the programs that read it. */
static void write_entry_json(const entry_message *entry, mir_bytes *json)
{
    put_member(json, "device_id", text_view(entry->device_id), false);
    put_member(json, "name", text_view(entry->name), false);
    if (entry->has_payload)
        put_member(json, "payload", mir_view_of(entry->payload.data, entry->payload.len), true);
    mir_bytes_printf(json, "%s\"status\":%d", json->size == 0 ? "{" : ",", (int)entry->status);
    put_member(json, "error", text_view(entry->error), false);
    mir_bytes_u8(json, '}');
}

static void add_event(sending *all, const target *t, mir_bytes *json)
{
    mir_request *request = all->request;
    bool failed =
        t->entry.status == MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_ERROR;
    const char *error = t->entry.error == NULL ? "out of memory" : t->entry.error;
    static const char prefix[] = "Device command failed: ";
    enum { prefix_size = sizeof prefix - 1 };
    char text[256];
    memcpy(text, prefix, sizeof prefix);
    if (failed) (void)mir_utf8_copy(error, text + prefix_size, sizeof text - prefix_size);
    json->size = 0;
    write_entry_json(&t->entry, json);
    if (!mir_bytes_ok(json)) {
        json->failed = false;
        mir_event_batch_lost(request->hub, 1, "out of memory");
        return;
    }
    mir_events_add(
        request->hub,
        &(mir_device_event){.device_id = t->record->device_id,
                            .name = t->record->name,
                            .name_space = t->record->namespace_,
                            .route = "cmd.v1alpha.devicecommand",
                            .type = failed ? "warning" : "normal",
                            .reason = "DeviceCommand",
                            .text = failed ? text : "Device command executed successfully",
                            .json = mir_bytes_as_view(json),
                            .cause = &request->cause,
                            .actor = "server",
                            .failed = failed,
                            .error = failed ? error : NULL,
                            .header = request->header},
        &request->letters, all->events);
}

static void add_answer(sending *all)
{
    mir_request *request = all->request;
    if (all->failed) {
        mir_request_fail(
            request, (all->was_sent || all->was_stored)
                         ? "the command was sent or queued, but the server is out of memory for "
                           "the answers"
                         : "the server is out of memory");
        return;
    }
    MirApi__V1__SendCommandResponse__CommandResponses responses =
        MIR_API__V1__SEND_COMMAND_RESPONSE__COMMAND_RESPONSES__INIT;
    responses.device_responses = all->pair_list;
    responses.n_device_responses = all->count;
    set_encoding(all, &responses);
    MirApi__V1__SendCommandResponse response = MIR_API__V1__SEND_COMMAND_RESPONSE__INIT;
    response.response_case = MIR_API__V1__SEND_COMMAND_RESPONSE__RESPONSE_OK;
    response.ok = &responses;
    size_t size = protobuf_c_message_get_packed_size(&response.base);
    size_t size_max = (size_t)request->hub->config->limits.max_payload_bytes;
    if ((all->was_sent || all->was_stored) && size + MIR_CHAIN_BLOCK_BYTES_MAX > size_max)
        mir_request_fail(
            request,
            "the command was sent or queued, but the answer has %zu bytes, more than a message "
            "may have (%zu): narrow the target, or ask for results as they come "
            "(stream)",
            size, size_max);
    else
        mir_request_answer(request, &response.base);
}

static void complete(sending *all)
{
    mir_request *request = all->request;
    /* A letter for which there was no memory is no reason to say that the command was not sent. */
    if (request->letters.failed) mir_log_error("out of memory: not all of a command is told");
    request->letters.failed = false;
    add_answer(all);
    atomic_fetch_sub_explicit(&targets_in_flight, (uint32_t)all->count, memory_order_relaxed);
    mir_schema_groups_free(&all->groups);
    mir_request_finish(request);
}

/* --- the actor ------------------------------------------------------------------------------ */

typedef enum progress {
    WAITS,    /* for what is to come back */
    HAS_MORE, /* the pass has done its share */
    IS_OVER,
} progress;

/* Everything is final: tells the rest, makes the events and the answer. */
static progress end(sending *all)
{
    if (!all->is_ending) {
        mir_arena *arena = &all->request->arena;
        all->is_ending = true;
        all->pairs = mir_arena_alloc(arena, all->count * sizeof *all->pairs);
        all->pair_list = mir_arena_alloc(arena, all->count * sizeof(entry_pair *));
        if (all->pairs == NULL || all->pair_list == NULL) all->failed = true;
        if (all->was_sent) all->events = mir_event_batch_new(all->request->hub);
    }
    tell_partial(all);
    mir_bytes json = {0};
    for (; all->ended < all->count && all->budget != 0; all->budget--) {
        size_t i = all->ended++;
        target *t = &all->targets[i];
        if (!all->failed) {
            all->pair_list[i] = &all->pairs[i];
            if (!set_pair(all, t, &all->pairs[i])) all->failed = true;
        }
        if (all->was_sent) add_event(all, t, &json);
    }
    mir_bytes_free(&json);
    if (all->untold.count != 0 || all->ended < all->count) return HAS_MORE;
    if (all->events != NULL) mir_event_batch_submit(all->request->hub, all->events, NULL, NULL);
    all->events = NULL;
    /* The answer comes behind what is told. */
    if (all->is_telling || all->request->letters.count > MIR_CMD_SENT_PER_TURN) return WAITS;
    complete(all);
    return IS_OVER;
}

static void begin_target(sending *all, target *t, MirStore__V1__DeviceRecord *record)
{
    t->all = all;
    t->record = record;
    mir_api__v1__send_command_response__command_response__init(&t->entry);
    t->entry.device_id = record->device_id;
    if (is_cut_off(t)) {
        all->unchecked--;
        fail_target(t, "", device_is_disabled);
    } else if (all->raw != NULL) {
        set_status(t, MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_PENDING);
        t->plan = all->raw;
        t->state = READY;
        chain_add(&all->ready, t);
        all->unchecked--;
    } else if (all->input->refresh_schema || mir_resolve_schema_hash(record).size == 0) {
        carry_home(t, ask_for_schema);
    } else {
        check_stored(t);
    }
}

/* Takes the next steps that are possible, as far as the pass may. */
static progress advance(sending *all)
{
    const MirApi__V1__SendCommandRequest *input = all->input;
    bool holds_back = input->dry_run || input->show_template;
    if (all->is_ending) return end(all);
    for (; all->begun < all->count && all->budget != 0; all->budget--) {
        size_t i = all->begun++;
        begin_target(all, &all->targets[i], all->records[i]);
    }
    if (!all->is_decided && (all->unchecked == 0 || (input->force_push && !holds_back))) {
        if (holds_back || (all->in_error != 0 && !input->force_push)) return end(all);
        all->is_decided = true;
    }
    if (all->is_decided) {
        if (input->queue) {
            place_stored(all);
            queue_ready(all);
        } else {
            send_ready(all);
        }
        tell_partial(all);
    }
    if (all->left == 0) return end(all);
    return all->budget == 0 ? HAS_MORE : WAITS;
}

static void handle(sending *all, mir_mpsc_node *node)
{
    if (node == &all->stored) {
        all->is_stored = true;
    } else if (node == &all->told_some) {
        all->is_telling = false;
    } else {
        target *t = MIR_CONTAINER(node, target, inbox);
        if (t->state == CHECKING)
            check_asked(t);
        else
            take_answer(t);
    }
}

/* A pass: handles what came back and takes the next steps, of a bounded number of devices. While
 * there is more, others have their turn first. */
static void run(sending *all)
{
    all->budget = MIR_CMD_PER_PASS;
    for (;;) {
        for (; all->taken != NULL && all->budget != 0; all->budget--) {
            mir_mpsc_node *node = all->taken;
            all->taken = node->next;
            all->handled++;
            handle(all, node);
        }
        progress made = advance(all);
        if (made == IS_OVER) return;
        tell(all);
        carry_loaded(all);
        if (made == HAS_MORE || all->taken != NULL) {
            mir_request_continue(all->request, work, false);
            return;
        }
        size_t handled = all->handled;
        all->handled = 0;
        /* After the count is 0 somebody else may run, and end it all. */
        if (atomic_fetch_sub_explicit(&all->pending, handled, memory_order_acq_rel) == handled)
            return;
        /* It has been counted: it is here, or about to be. */
        while ((all->taken = mir_mpsc_take(&all->inbox)) == NULL) (void)sched_yield();
    }
}

static void work(mir_request *request)
{
    run(request->context);
}

static bool has_control(const char *text)
{
    for (; *text != '\0'; text++)
        if ((uint8_t)*text < 0x21 || *text == 0x7f) return true;
    return false;
}

static void refuse(mir_request *request, const char *text)
{
    mir_request_fail(request, "%s", text);
    mir_request_finish(request);
}

void mir_cmd_sending_begin(mir_request *request, MirApi__V1__SendCommandRequest *input,
                           MirStore__V1__DeviceRecord **records, size_t count, mir_schema *schema)
{
    /* A name as lists show it: what follows are its labels. */
    char *labels = strchr(input->name, '{');
    if (labels != NULL) *labels = '\0';
    if (input->name[0] == '\0') {
        refuse(request, "error occure because of bad request: [No command name provided]");
        return;
    }
    if (strlen(input->name) > MIR_CMD_NAME_BYTES_MAX || has_control(input->name)) {
        refuse(request, "error occure because of bad request: [the command name is longer than 512 "
                        "bytes or has blanks or control characters]");
        return;
    }
    if (input->timeout_sec > MIR_CMD_TIMEOUT_S_MAX) {
        refuse(request,
               "error occure because of bad request: [the time-out is longer than 3600 seconds]");
        return;
    }
    if (input->ttl_sec > MIR_CMD_TTL_S_MAX) {
        refuse(request, "error occure because of bad request: [the time to live is longer than a "
                        "year (31536000 seconds)]");
        return;
    }
    size_t carriers_bytes = request->hub->shard_count * sizeof(carrier);
    sending *all = mir_arena_alloc(&request->arena, sizeof *all + carriers_bytes);
    target *targets = mir_arena_alloc(&request->arena, count * sizeof *targets);
    bool is_raw = input->no_validation && !input->show_template &&
                  input->payload_encoding != MIR_API__V1__ENCODING__ENCODING_JSON;
    plan *raw = is_raw ? mir_arena_alloc(&request->arena, sizeof *raw) : NULL;
    if (all == NULL || targets == NULL || (is_raw && raw == NULL)) {
        refuse(request, "the server is out of memory");
        return;
    }
    uint32_t in_flight =
        atomic_fetch_add_explicit(&targets_in_flight, (uint32_t)count, memory_order_relaxed);
    if (count > MIR_CMD_TARGETS_MAX || in_flight > MIR_CMD_TARGETS_MAX - count) {
        atomic_fetch_sub_explicit(&targets_in_flight, (uint32_t)count, memory_order_relaxed);
        mir_request_fail(request,
                         "the server is busy: commands to %u devices are under way, and %d is the "
                         "most: try again or narrow the target",
                         in_flight, MIR_CMD_TARGETS_MAX);
        mir_request_finish(request);
        return;
    }
    all->request = request;
    all->input = input;
    all->records = records;
    all->targets = targets;
    all->count = all->unchecked = all->left = count;
    all->groups.arena = &request->arena;
    /* Without memory it is looked up like others. */
    mir_schema_group *known;
    if (schema != NULL)
        (void)!mir_schema_groups_of_schema(&all->groups, mir_resolve_schema_hash(records[0]),
                                           schema, &known);
    int64_t timeout_s = input->timeout_sec == 0 ? MIR_CMD_TIMEOUT_S_DEFAULT : input->timeout_sec;
    all->timeout_ns = timeout_s * MIR_NS_PER_S;
    request->context = all;
    if (raw != NULL) {
        raw->name = input->name;
        raw->payload = mir_view_of(input->payload.data, input->payload.len);
        set_header(all, raw);
        all->raw = raw;
    }
    /* This run counts like something that came back: nobody else begins one meanwhile. */
    atomic_init(&all->pending, 1);
    all->handled = 1;
    run(all);
}
