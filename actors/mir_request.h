/* SPDX-License-Identifier: Apache-2.0 */
/* mir_request: one request of a client to one of the server's services, from its arrival to its
 * reply.
 *
 * Why        A service reads, computes and answers on a worker; the shard where the request arrived
 *            publishes what it wrote. Events of changes go out in the order of the commits, and
 *            everything behind them with them (mir_sequel.h): events first, then the reply.
 * Ownership  A request owns copies of what it needs of the message. It belongs to whoever runs one
 *            of its steps, and goes with mir_request_finish.
 * Affinity   begin: the shard. Handlers and everything they call: a worker, but for a command to one
 *            device that the shard knows (mir_cmd_service.h).
 * Bounds     MIR_HUB_REQUESTS_MAX at a time; a reply holds at most limits.max_payload bytes, beyond
 *            that it is an error that says how to narrow the request.
 * Audit      The cause names the user and the address of the connection, and the request: by its
 *            header mir-request-id, or by a number of our own.
 * Stop       Of what has not begun then each is refused; what has begun is carried out, but for what
 *            takes long, which looks at hub->stopping now and then.
 * Watch      Long work that changes nothing (a proof of the events, a telemetry query) ends soon after
 *            the last subscription of its reply subject is gone, and when the server stops.
 * Errors     mir_request_fail answers with the error arm, which is field 2 of every response. */
#ifndef MIR_REQUEST_H
#define MIR_REQUEST_H

#include "mir_actors.h"

typedef struct mir_request mir_request;

struct mir_request {
    mir_job job;
    mir_post post;
    mir_hub *hub;
    mir_shard *shard;
    mir_function function;
    mir_view reply;        /* empty: nobody waits for an answer; it is carried out all the same */
    mir_view header;       /* of the request: its trigger chain goes on */
    mir_event_cause cause; /* who asks, for the events of what changes */
    mir_view payload;
    uint8_t *copies; /* what the views point into */
    mir_arena arena; /* dies with the request */
    mir_letters letters;
    size_t letters_per_turn; /* of the shard, when they are large; 0: all in one */
    mir_state_request state;
    int64_t began_ns;
    void *context;                           /* what a handler keeps between its steps */
    mir_sequel *sequel;                      /* of the last write */
    mir_sequel last;                         /* of an answer behind what was told before */
    bool follows;                            /* there is such a thing */
    bool writes_events;                      /* the next write does, though it changes no device */
    mir_request *next_watched, **watched_at; /* of its shard; null: it is not watched */
    mir_view watched;                        /* where it would be heard; the shard's */
    atomic_bool is_given_up;                 /* nobody would hear the answer, if it is watched */
    struct mir_gather *gather;
    struct mir_resolution *resolution;  /* of mir_resolve */
    void (*step)(mir_request *request); /* the next one on a worker */
};

typedef void (*mir_request_handler)(mir_request *request);

/* The handlers of services, by function; null where there is none. */
extern const mir_request_handler mir_request_handlers[MIR_FUNCTION_COUNT];

void mir_request_begin(mir_shard *shard, const mir_message *message);
/* The shards run no more: nobody would hear answers. */
void mir_request_give_up_all(mir_shard *shard);
/* Runs `step` on a worker (the slow ones with `query`). */
void mir_request_continue(mir_request *request, mir_request_handler step, bool query);
/* Unpacks the payload; when it is not valid it answers so and returns false. */
bool mir_request_unpack(mir_request *request, const ProtobufCMessageDescriptor *descriptor,
                        void *message);
/* Writes the reply; it is sent by finish, after the letters written before. */
void mir_request_answer(mir_request *request, const ProtobufCMessage *response);
/* The same for an answer that is no protobuf message. */
void mir_request_answer_text(mir_request *request, mir_view text);
/* The same without a copy: the answer is a part of `bytes`, which are empty then; in front of it there
 * are mir_request_front bytes that are nothing yet. */
size_t mir_request_front(const mir_request *request);
void mir_request_answer_whole(mir_request *request, mir_bytes *bytes, mir_view answer);
void mir_request_fail(mir_request *request, const char *format, ...) MIR_PRINTF(2, 3);
/* Why something watched has ended early. */
const char *mir_request_end_text(const mir_request *request);
void mir_request_finish(mir_request *request);
/* What the last write has changed is told now, with the letters written so far; the reply follows. For
 * requests with several writes: the place of each holds up what was committed after it. */
void mir_request_tell(mir_request *request);
/* Submits request->state and runs `step` on a worker once it is committed or has failed. */
void mir_request_write(mir_request *request, mir_request_handler step);

/* Asks devices for their schema, all at once, and runs `step` on a worker when each has answered or
 * failed. *errors (of the request's arena) has a text, or null, for each id. */
void mir_request_pull(mir_request *request, const char *const *device_ids, size_t count,
                      const char ***errors, mir_request_handler step);

#endif
