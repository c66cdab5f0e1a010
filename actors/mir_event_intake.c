/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event_intake.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_clock.h"
#include "mir_event_batch.h"
#include "mir_event_store.h"
#include "mir_log.h"
#include "mir_nats.h"
#include "mir_origin.h"
#include "mir_pb.h"

enum { TEXTS = 5, PAUSE_MS = 5 };

/* If the index does not catch up within that, it is the index that is in trouble. */
static const int64_t pause_ns_max = MIR_NS_PER_S;

/* One message, its texts behind it. */
typedef struct entry {
    uint32_t sizes[TEXTS]; /* subject, header, payload, user, address */
} entry;

/* Events of one id that are none. */
typedef struct refused {
    mir_view id; /* in the entries */
    uint64_t count;
    char text[MIR_PROBLEM_TEXT_BYTES]; /* of the last one */
} refused;

/* What a worker reads. */
typedef struct reading {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_bytes entries;
    size_t refused_count;
    refused refused[MIR_EVENT_INTAKE_REFUSED];
} reading;

struct mir_event_intake {
    mir_shard *shard;
    mir_timer timer;         /* of a pause, for the index */
    int64_t paused_since_ns; /* 0: there is none */
    mir_bytes entries;       /* that wait */
    size_t count;
    bool reading; /* a worker has some, or the store */
};

static void proceed(mir_shard *shard, mir_event_intake *intake);

static void committed(mir_shard *shard, mir_post *post)
{
    reading *r = MIR_CONTAINER(post, reading, post);
    mir_hub *hub = mir_actors_of(shard)->hub;
    mir_event_intake *intake = mir_actors_of(shard)->intake;
    for (size_t i = 0; i < r->refused_count; i++)
        mir_actors_problem(mir_actors_of(shard), r->refused[i].id, "bad event", r->refused[i].count,
                           "%s", r->refused[i].text);
    mir_bytes_free(&r->entries);
    free(r);
    intake->reading = false;
    proceed(shard, intake);
    mir_hub_end(hub);
}

static void batch_done(void *context)
{
    reading *r = context;
    mir_shard_post(r->shard, &r->post);
}

/* The second token of the subject, which has five. */
static mir_view id_of(mir_view subject)
{
    mir_view rest = mir_view_from(subject, sizeof "event." - 1);
    const uint8_t *dot = rest.size == 0 ? NULL : memchr(rest.data, '.', rest.size);
    return dot == NULL ? rest : (mir_view){rest.data, (size_t)(dot - rest.data)};
}

static void refuse(reading *r, mir_view subject, const char *text)
{
    mir_view id = id_of(subject);
    size_t i = 0;
    while (i < r->refused_count && !mir_view_eq(r->refused[i].id, id)) i++;
    if (i == MIR_EVENT_INTAKE_REFUSED) return;
    if (i == r->refused_count) r->refused[r->refused_count++] = (refused){.id = id};
    r->refused[i].count++;
    (void)snprintf(r->refused[i].text, sizeof r->refused[i].text, "%.*s: %s",
                   MIR_VIEW_ARGS(subject), text);
}

static void read_one(reading *r, mir_event_batch *batch, const mir_view texts[TEXTS],
                     mir_arena *arena)
{
    mir_hub *hub = mir_actors_of(r->shard)->hub;
    MirApi__V1__CreateEventRequest *message;
    mir_error error = {{0}};
    /* The chain stays as it came, with the module as its last: this server caused nothing. */
    mir_event_cause cause = {.actor = texts[3], .address = texts[4]};
    mir_status status = mir_pb_unpack(&mir_api__v1__create_event_request__descriptor, texts[2],
                                      arena, &message, &error);
    if (status == MIR_OK) status = mir_origin_chain(texts[1], arena, &cause);
    MirApi__V1__EventSpec none = MIR_API__V1__EVENT_SPEC__INIT;
    if (status == MIR_OK) {
        mir_event_input input = {.route = texts[0],
                                 .spec = message->spec == NULL ? &none : message->spec,
                                 .cause = &cause};
        status = mir_event_batch_add(batch, &input, &error);
    }
    if (status == MIR_OK) return;
    const char *text = error.text[0] == '\0' ? mir_status_name(status) : error.text;
    if (status == MIR_E_INVALID || status == MIR_E_TOO_LARGE)
        refuse(r, texts[0], text);
    else
        mir_event_batch_lost(hub, 1, text);
}

static void read_all(mir_job *job)
{
    reading *r = MIR_CONTAINER(job, reading, job);
    mir_hub *hub = mir_actors_of(r->shard)->hub;
    mir_event_batch *batch = mir_event_batch_new(hub);
    for (size_t at = 0; at < r->entries.size;) {
        entry head;
        memcpy(&head, r->entries.data + at, sizeof head);
        at += sizeof head;
        mir_view texts[TEXTS];
        for (int i = 0; i < TEXTS; i++) {
            texts[i] = mir_view_of(r->entries.data + at, head.sizes[i]);
            at += head.sizes[i];
        }
        mir_arena arena = {0};
        read_one(r, batch, texts, &arena);
        mir_arena_free(&arena);
    }
    mir_event_batch_submit(hub, batch, batch_done, r);
}

static void begin(mir_shard *shard, mir_event_intake *intake)
{
    mir_hub *hub = mir_actors_of(shard)->hub;
    reading *r = shard->stopping ? NULL : calloc(1, sizeof *r);
    if (r == NULL) {
        mir_event_batch_lost(hub, intake->count,
                             shard->stopping ? "the server is stopping" : "out of memory");
        mir_bytes_free(&intake->entries);
        intake->entries = (mir_bytes){0};
        intake->count = 0;
        return;
    }
    r->job.run = read_all;
    r->post.run = committed;
    r->shard = shard;
    r->entries = intake->entries;
    intake->entries = (mir_bytes){0};
    intake->count = 0;
    intake->reading = true;
    mir_hub_begin(hub);
    mir_workers_submit(hub->requests, &r->job);
}

static void on_pause_over(mir_timer *timer, void *context)
{
    (void)context;
    mir_event_intake *intake = MIR_CONTAINER(timer, mir_event_intake, timer);
    proceed(intake->shard, intake);
}

/* Begins with what there is, unless something is under way or the index is too far behind. */
static void proceed(mir_shard *shard, mir_event_intake *intake)
{
    if (intake->reading || intake->count == 0 || mir_timer_is_set(&intake->timer)) return;
    int64_t now_ns = shard->loop->now_ns;
    if (intake->paused_since_ns == 0) intake->paused_since_ns = now_ns;
    if (!shard->stopping && now_ns - intake->paused_since_ns < pause_ns_max &&
        mir_event_lags(mir_actors_of(shard)->hub->state)) {
        mir_timer_set(&shard->loop->timers, &intake->timer, now_ns + PAUSE_MS * MIR_NS_PER_MS);
        return;
    }
    intake->paused_since_ns = 0;
    begin(shard, intake);
}

void mir_event_intake_take(mir_shard *shard, const mir_message *message)
{
    if (message->publisher == 0) return;
    mir_actors *actors = mir_actors_of(shard);
    if (actors->intake == NULL) actors->intake = calloc(1, sizeof *actors->intake);
    mir_event_intake *intake = actors->intake;
    if (intake != NULL && intake->shard == NULL) {
        intake->shard = shard;
        intake->timer.fire = on_pause_over;
    }
    mir_origin origin = mir_origin_of(shard, message);
    const mir_view texts[TEXTS] = {message->subject, message->header, message->payload, origin.user,
                                   origin.address};
    entry head;
    size_t bytes = sizeof head;
    for (int i = 0; i < TEXTS; i++) {
        head.sizes[i] = (uint32_t)texts[i].size;
        bytes += texts[i].size;
    }
    if (intake == NULL || intake->count >= MIR_EVENT_INTAKE_EVENTS ||
        (intake->count != 0 && intake->entries.size + bytes > MIR_EVENT_INTAKE_BYTES)) {
        mir_event_batch_lost(actors->hub, 1, "they come faster than the store takes them");
        return;
    }
    size_t before = intake->entries.size;
    mir_bytes_append(&intake->entries, &head, sizeof head);
    for (int i = 0; i < TEXTS; i++) mir_bytes_view(&intake->entries, texts[i]);
    if (!mir_bytes_ok(&intake->entries)) {
        intake->entries.size = before;
        intake->entries.failed = false;
        mir_event_batch_lost(actors->hub, 1, "out of memory");
        return;
    }
    intake->count++;
    proceed(shard, intake);
}

void mir_event_intake_fini(mir_actors *actors)
{
    if (actors->intake == NULL) return;
    if (actors->intake->count != 0)
        mir_event_batch_lost(actors->hub, actors->intake->count, "the server is stopping");
    if (actors->intake->shard != NULL)
        mir_timer_cancel(&actors->intake->shard->loop->timers, &actors->intake->timer);
    mir_bytes_free(&actors->intake->entries);
    free(actors->intake);
    actors->intake = NULL;
}
