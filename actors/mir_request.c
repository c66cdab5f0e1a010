/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_request.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_cmd_service.h"
#include "mir_log.h"
#include "mir_origin.h"
#include "mir_pb.h"
#include "mir_reply.h"
#include "mir_resolve.h"
#include "mir_sequel.h"
#include "mir_twin.h"

enum { WATCH_MS = 250 };

/* --- requests that nobody waits for any more ------------------------------------------------- */

static void give_up(mir_request *request)
{
    atomic_store_explicit(&request->is_given_up, true, memory_order_relaxed);
}

static void unwatch(mir_request *request)
{
    if (request->watched_at == NULL) return;
    *request->watched_at = request->next_watched;
    if (request->next_watched != NULL) request->next_watched->watched_at = request->watched_at;
    request->watched_at = NULL;
}

static void look_at_watched(mir_timer *timer, void *context)
{
    mir_shard *shard = context;
    mir_request *next;
    for (mir_request *at = mir_actors_of(shard)->watched; at != NULL; at = next) {
        next = at->next_watched;
        if (mir_shard_has_listener(shard, at->watched, false)) continue;
        give_up(at);
        unwatch(at);
    }
    if (mir_actors_of(shard)->watched != NULL)
        mir_timer_set(&shard->loop->timers, timer, shard->loop->now_ns + WATCH_MS * MIR_NS_PER_MS);
}

static void watch(mir_shard *shard, mir_request *request)
{
    mir_actors *actors = mir_actors_of(shard);
    request->watched = request->reply;
    request->next_watched = actors->watched;
    request->watched_at = &actors->watched;
    if (actors->watched != NULL) actors->watched->watched_at = &request->next_watched;
    actors->watched = request;
    if (mir_timer_is_set(&actors->watch)) return;
    actors->watch.fire = look_at_watched;
    mir_timer_set(&shard->loop->timers, &actors->watch,
                  shard->loop->now_ns + WATCH_MS * MIR_NS_PER_MS);
}

void mir_request_give_up_all(mir_shard *shard)
{
    for (mir_request *at = mir_actors_of(shard)->watched; at != NULL; at = at->next_watched)
        give_up(at);
    mir_timer_cancel(&shard->loop->timers, &mir_actors_of(shard)->watch);
}

const char *mir_request_end_text(const mir_request *request)
{
    return atomic_load_explicit(&request->hub->stopping, memory_order_relaxed)
               ? "the server is stopping"
               : "nobody waited for the answer any more";
}

/* --- its life ------------------------------------------------------------------------------- */

static void end(mir_shard *shard, mir_request *request)
{
    mir_actors *actors = mir_actors_of(shard);
    mir_histogram_record(&actors->request_latency, shard->loop->now_ns - request->began_ns);
    atomic_fetch_sub_explicit(&request->hub->client_requests, 1, memory_order_relaxed);
    mir_hub_end(request->hub);
    mir_arena_free(&request->state.arena);
    mir_arena_free(&request->arena);
    free(request->sequel);
    free(request->copies);
    free(request);
}

/* On the shard where it arrived, and so is what is watched. */
static void published(mir_shard *shard, mir_post *post)
{
    mir_request *request = MIR_CONTAINER(post, mir_request, post);
    if (shard->stopping)
        mir_letters_discard(&request->letters);
    else
        mir_letters_publish_some(shard, &request->letters,
                                 request->letters_per_turn == 0 ? SIZE_MAX
                                                                : request->letters_per_turn);
    if (request->letters.first != NULL) {
        mir_shard_post(shard, &request->post);
        return;
    }
    unwatch(request);
    end(shard, request);
}

static void published_in_order(mir_shard *shard, mir_sequel *sequel)
{
    end(shard, sequel->context);
}

static void tell(mir_request *request, mir_sequel *sequel,
                 void (*done)(mir_shard *shard, mir_sequel *sequel))
{
    sequel->letters = request->letters;
    request->letters = (mir_letters){0};
    sequel->done = done;
    sequel->context = request;
    mir_sequel_tell(request->hub, sequel);
}

static void told(mir_shard *shard, mir_sequel *sequel)
{
    (void)shard;
    free(sequel);
}

void mir_request_tell(mir_request *request)
{
    mir_sequel *sequel = request->sequel;
    if (sequel == NULL || !sequel->has_place) return;
    request->sequel = NULL;
    request->follows = true;
    tell(request, sequel, told);
}

void mir_request_finish(mir_request *request)
{
    mir_resolution_free(request->resolution); /* of one that ended early */
    if (request->sequel != NULL && request->sequel->has_place) {
        tell(request, request->sequel, published_in_order);
        return;
    }
    if (request->follows) {
        tell(request, &request->last, published_in_order);
        return;
    }
    request->post.run = published;
    mir_shard_post(request->shard, &request->post);
}

static void run_step(mir_job *job)
{
    mir_request *request = MIR_CONTAINER(job, mir_request, job);
    request->step(request);
}

void mir_request_continue(mir_request *request, mir_request_handler step, bool query)
{
    request->step = step;
    request->job.run = run_step;
    mir_workers_submit(query ? request->hub->queries : request->hub->requests, &request->job);
}

/* The error arm of any response: field 2, a string. */
static void add_error(mir_request *request, const char *text)
{
    if (request->reply.size == 0) return;
    size_t size = strlen(text);
    mir_bytes packed = {0};
    mir_bytes_u8(&packed, 0x12);
    size_t left = size;
    while (left >= 0x80) {
        mir_bytes_u8(&packed, (uint8_t)(left | 0x80));
        left >>= 7;
    }
    mir_bytes_u8(&packed, (uint8_t)left);
    mir_bytes_append(&packed, text, size);
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    size_t header_size = mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), header);
    if (mir_bytes_ok(&packed))
        mir_letters_add(&request->letters, request->reply, (mir_view){0},
                        mir_view_of(header, header_size), mir_bytes_as_view(&packed));
    mir_bytes_free(&packed);
}

void mir_request_fail(mir_request *request, const char *format, ...)
{
    char text[4096];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    /* Clients take an empty error for success. */
    add_error(request, text[0] == '\0' ? "the request failed" : text);
}

/* Whether an answer of this size may be sent; if not, that is the answer. */
static bool answer_fits(mir_request *request, size_t size)
{
    size_t size_max = (size_t)request->hub->config->limits.max_payload_bytes;
    /* What is refused is larger than the number in the text says. */
    size_max = size_max > MIR_CHAIN_BLOCK_BYTES_MAX ? size_max - MIR_CHAIN_BLOCK_BYTES_MAX : 0;
    if (size <= size_max) return true;
    mir_request_fail(request,
                     "the answer has %zu bytes, more than a message may have (%zu): narrow the "
                     "target, the fields or the time range",
                     size, size_max);
    return false;
}

static void answer_written(mir_request *request)
{
    if (!request->letters.failed) return;
    request->letters.failed = false;
    mir_request_fail(request, "the server is out of memory");
}

void mir_request_answer(mir_request *request, const ProtobufCMessage *response)
{
    if (request->reply.size == 0) return;
    if (!answer_fits(request, protobuf_c_message_get_packed_size(response))) return;
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    size_t header_size = mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), header);
    mir_letters_add_packed(&request->letters, request->reply, mir_view_of(header, header_size),
                           response);
    answer_written(request);
}

void mir_request_answer_text(mir_request *request, mir_view text)
{
    if (request->reply.size == 0 || !answer_fits(request, text.size)) return;
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    size_t header_size = mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), header);
    mir_letters_add(&request->letters, request->reply, (mir_view){0},
                    mir_view_of(header, header_size), text);
    answer_written(request);
}

size_t mir_request_front(const mir_request *request)
{
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    const size_t header_size =
        mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), header);
    return mir_letters_front(request->reply, mir_view_of(header, header_size));
}

void mir_request_answer_whole(mir_request *request, mir_bytes *bytes, mir_view answer)
{
    char header[MIR_CHAIN_BLOCK_BYTES_MAX];
    if (request->reply.size == 0 || !answer_fits(request, answer.size)) return;
    const size_t header_size =
        mir_chain_block((mir_view){0}, mir_hub_instance(request->hub), header);
    mir_letters_add_whole(&request->letters, request->reply, mir_view_of(header, header_size),
                          bytes, answer);
    answer_written(request);
}

bool mir_request_unpack(mir_request *request, const ProtobufCMessageDescriptor *descriptor,
                        void *message)
{
    mir_error error = {{0}};
    if (mir_pb_unpack(descriptor, request->payload, &request->arena, message, &error) == MIR_OK)
        return true;
    mir_request_fail(request, "%s", error.text);
    return false;
}

/* The first step: an answer that would go to a device is none. What waited for a worker while the
 * server began to stop is not begun: the stop waits for it. */
static void admit(mir_request *request)
{
    if (atomic_load_explicit(&request->hub->stopping, memory_order_relaxed)) {
        if (!mir_reply_is_inbox(request->reply)) request->reply.size = 0;
        mir_request_fail(request, "the server is stopping");
        mir_request_finish(request);
        return;
    }
    if (!mir_reply_allowed(request->hub, request->reply)) request->reply.size = 0;
    mir_request_handlers[request->function](request);
}

void mir_request_begin(mir_shard *shard, const mir_message *message)
{
    mir_hub *hub = mir_actors_of(shard)->hub;
    MIR_ASSERT(mir_request_handlers[message->function] != NULL);
    mir_request *request = calloc(1, sizeof *request);
    char id[MIR_REQUEST_ID_BYTES_MAX];
    mir_origin origin = mir_origin_of(shard, message);
    const mir_view texts[] = {message->reply,   message->header,
                              message->payload, origin.user,
                              origin.address,   mir_origin_request_id(shard, message, id)};
    size_t bytes = 0;
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) bytes += texts[i].size;
    uint8_t *copies = malloc(bytes + 1);
    if (request == NULL || copies == NULL) {
        free(request);
        free(copies);
        mir_log_error("out of memory: a request is dropped");
        return;
    }
    request->copies = copies;
    mir_view *const into[] = {&request->reply,         &request->header,
                              &request->payload,       &request->cause.actor,
                              &request->cause.address, &request->cause.request_id};
    for (size_t i = 0; i < sizeof texts / sizeof texts[0]; i++) {
        *into[i] = (mir_view){copies, texts[i].size};
        if (texts[i].size != 0) memcpy(copies, texts[i].data, texts[i].size);
        copies += texts[i].size;
    }
    request->cause.instance = mir_hub_instance(hub);
    if (mir_origin_chain(request->header, &request->arena, &request->cause) != MIR_OK)
        mir_log_error("out of memory: the chain of a request is cut");
    request->hub = hub;
    request->shard = shard;
    request->function = (mir_function)message->function;
    request->began_ns = shard->loop->now_ns;
    mir_hub_begin(hub);
    uint32_t running = atomic_fetch_add_explicit(&hub->client_requests, 1, memory_order_relaxed);
    if (running >= MIR_HUB_REQUESTS_MAX) {
        if (!mir_reply_is_inbox(request->reply)) request->reply.size = 0;
        mir_request_fail(request, "the server is busy: %u requests are being worked on; try again",
                         running);
        mir_request_finish(request);
        return;
    }
    bool is_long = message->function == MIR_TLM_QUERY || message->function == MIR_EVT_VERIFY ||
                   message->function == MIR_EVT_HISTORY || message->function == MIR_EVT_DELETE;
    if (message->function == MIR_TLM_QUERY || message->function == MIR_EVT_VERIFY)
        watch(shard, request);
    if (message->function == MIR_CMD_SEND && mir_cmd_send_here(request)) return;
    mir_request_continue(request, admit, is_long);
}

static void state_done(mir_state_request *state, void *context)
{
    mir_request *request = context;
    if (state->status == MIR_OK && (state->change_count != 0 || request->writes_events))
        mir_sequel_place(request->hub, request->sequel);
    mir_request_continue(request, request->step, false);
}

void mir_request_write(mir_request *request, mir_request_handler step)
{
    if (request->sequel == NULL) request->sequel = calloc(1, sizeof *request->sequel);
    request->step = step;
    request->state.cause = &request->cause;
    request->state.done = state_done;
    request->state.ctx = request;
    if (request->sequel != NULL && mir_state_submit(request->hub->state, &request->state) == MIR_OK)
        return;
    /* The step says what that means; it has other parts to tell of, perhaps. */
    request->state.status = request->sequel == NULL ? MIR_E_NO_MEMORY : MIR_E_FULL;
    request->state.error =
        request->sequel == NULL ? "the server is out of memory" : "the store is busy: try again";
    request->state.change_count = 0;
    mir_request_continue(request, step, false);
}

/* --- asking devices for their schemas ------------------------------------------------------- */

typedef struct mir_gather gather;

typedef struct gather_one {
    mir_post post;
    mir_twin_waiter waiter;
    gather *all;
    mir_shard *shard;
    mir_view device_id;
    char error[MIR_ERROR_TEXT_BYTES_MAX];
} gather_one;

struct mir_gather {
    mir_request *request;
    mir_request_handler step;
    _Atomic size_t left;
    const char **errors;
    size_t count;
    gather_one *ones;
};

static void gather_step(mir_request *request)
{
    gather *all = request->gather;
    for (size_t i = 0; i < all->count; i++)
        all->errors[i] = all->ones[i].error[0] == '\0' ? NULL : all->ones[i].error;
    all->step(request);
}

static void gather_drop(gather *all)
{
    /* Acquire and release: whoever is last sees every answer. */
    if (atomic_fetch_sub_explicit(&all->left, 1, memory_order_acq_rel) != 1) return;
    all->request->gather = all;
    mir_request_continue(all->request, gather_step, false);
}

static void gather_answer(mir_shard *shard, mir_twin_waiter *waiter, const char *error)
{
    (void)shard;
    gather_one *one = MIR_CONTAINER(waiter, gather_one, waiter);
    if (error != NULL) (void)snprintf(one->error, sizeof one->error, "%s", error);
    gather_drop(one->all);
}

static void gather_post(mir_shard *shard, mir_post *post)
{
    gather_one *one = MIR_CONTAINER(post, gather_one, post);
    one->waiter.done = gather_answer;
    if (shard->stopping)
        gather_answer(shard, &one->waiter, "the server is stopping");
    else
        mir_twin_pull(shard, one->device_id, &one->waiter);
}

void mir_request_pull(mir_request *request, const char *const *device_ids, size_t count,
                      const char ***errors, mir_request_handler step)
{
    gather *all = mir_arena_alloc(&request->arena, sizeof *all);
    const char **texts = mir_arena_alloc(&request->arena, (count + 1) * sizeof *texts);
    gather_one *ones = mir_arena_alloc(&request->arena, (count + 1) * sizeof *ones);
    if (all == NULL || texts == NULL || ones == NULL) {
        mir_request_fail(request, "the server is out of memory");
        mir_request_finish(request);
        return;
    }
    /* A schema that came is a change, whose event goes before the reply. */
    request->follows = true;
    *errors = texts;
    *all =
        (gather){.request = request, .step = step, .errors = texts, .count = count, .ones = ones};
    /* One more than there are, so that an early answer does not end it while posts go out. */
    atomic_init(&all->left, count + 1);
    for (size_t i = 0; i < count; i++) {
        ones[i].post.run = gather_post;
        ones[i].all = all;
        ones[i].device_id = mir_view_cstr(device_ids[i]);
        unsigned shard = mir_hub_shard_of(request->hub, ones[i].device_id);
        mir_shard_post(request->hub->shards[shard], &ones[i].post);
    }
    gather_drop(all);
}
