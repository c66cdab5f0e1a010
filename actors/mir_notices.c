/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_notices.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_events.h"
#include "mir_hash.h"
#include "mir_json_text.h"
#include "mir_log.h"

/* What a notice says, in memory of its own. */
typedef struct content {
    mir_notice_reason reason;
    const char *kind;
    uint64_t count;
    char device_id[MIR_DEVICE_ID_BYTES_MAX + 1]; /* empty: the server */
    char text[MIR_NOTICE_TEXT_BYTES_MAX + 1];
    char user[MIR_NOTICE_USER_BYTES_MAX + 1];
    char address[MIR_NOTICE_ADDRESS_BYTES_MAX + 1];
} content;

typedef struct mir_notice_entry entry;

/* One that was told; `content.count` is what came since. */
struct mir_notice_entry {
    mir_map_node by_key;
    entry *next; /* in the order in which their windows end */
    int64_t ends_ns;
    content content;
};

/* As much as fits of a text, without half a character; what is no text is left out. */
static void keep_text(char *to, size_t size_max, mir_view text)
{
    size_t size = text.size;
    if (size > size_max) {
        size = size_max;
        while (size != 0 && (text.data[size] & 0xc0) == 0x80) size--;
    }
    if (!mir_utf8_valid(mir_view_of(text.data, size)) ||
        (size != 0 && memchr(text.data, '\0', size) != NULL))
        size = 0;
    if (size != 0) memcpy(to, text.data, size);
    to[size] = '\0';
}

static void keep(content *c, const mir_notice *notice)
{
    keep_text(c->text, sizeof c->text - 1, notice->text);
    keep_text(c->user, sizeof c->user - 1, notice->user);
    keep_text(c->address, sizeof c->address - 1, notice->address);
}

/* --- one event ------------------------------------------------------------------------------ */

typedef struct telling {
    mir_job job;
    mir_post post;
    mir_shard *shard;
    mir_hub *hub;
    mir_letters letters;
    content content;
} telling;

static void put_text(mir_bytes *json, const char *name, const char *value)
{
    if (value == NULL || value[0] == '\0') return;
    mir_bytes_printf(json, "%s\"%s\":", json->size == 0 ? "{" : ",", name);
    mir_json_put_string(json, mir_view_cstr(value), MIR_JSON_ESCAPE_HTML);
}

static void write_json(const content *c, mir_bytes *json)
{
    put_text(json, "kind", c->kind);
    put_text(json, "text", c->text);
    put_text(json, "user", c->user);
    put_text(json, "address", c->address);
    mir_bytes_printf(json, "%s\"count\":%llu}", json->size == 0 ? "{" : ",",
                     (unsigned long long)c->count);
}

static void describe(const content *c, mir_device_event *event, char *text, size_t text_size,
                     char *actor, size_t actor_size)
{
    const char *user = c->user[0] == '\0' ? "unknown" : c->user;
    event->type = "warning";
    event->failed = true;
    event->error = c->text;
    event->text = text;
    event->actor = actor;
    switch (c->reason) {
    case MIR_NOTICE_TELEMETRY_REFUSED:
        event->route = "tlm.v1alpha.telemetryrefused";
        event->reason = "TelemetryRefused";
        (void)snprintf(text, text_size, "Telemetry refused (%s): %s", c->kind, c->text);
        (void)snprintf(actor, actor_size, "device %s", c->device_id);
        break;
    case MIR_NOTICE_CONNECTION_REFUSED:
        event->route = "core.v1alpha.connectionrefused";
        event->reason = "ConnectionRefused";
        (void)snprintf(text, text_size, "Connection refused: %s", c->text);
        (void)snprintf(actor, actor_size, "%s", user);
        break;
    case MIR_NOTICE_AUTHENTICATION_FAILED:
        /* The name that was tried is nobody's doing. */
        event->route = "core.v1alpha.authenticationfailed";
        event->reason = "AuthenticationFailed";
        (void)snprintf(text, text_size, "Login refused: %s", c->text);
        (void)snprintf(actor, actor_size, "unknown");
        break;
    case MIR_NOTICE_FORWARDING_DROPPED:
        event->route = "tlm.v1alpha.forwardingdropped";
        event->reason = "TelemetryForwardingDropped";
        (void)snprintf(text, text_size, "Telemetry is not forwarded: %s", c->text);
        (void)snprintf(actor, actor_size, "server");
        break;
    case MIR_NOTICE_CLOCK_AHEAD:
        event->route = "tlm.v1alpha.clockahead";
        event->reason = "ClockAhead";
        (void)snprintf(text, text_size, "Retention of telemetry waits: %s", c->text);
        (void)snprintf(actor, actor_size, "server");
        break;
    }
}

static void told(mir_shard *shard, mir_post *post)
{
    telling *t = MIR_CONTAINER(post, telling, post);
    if (shard->stopping)
        mir_letters_discard(&t->letters);
    else
        mir_letters_publish(shard, &t->letters);
    mir_hub_end(t->hub);
    free(t);
}

static void tell_run(mir_job *job)
{
    telling *t = MIR_CONTAINER(job, telling, job);
    const content *c = &t->content;
    mir_arena arena = {0};
    mir_bytes json = {0};
    mir_error error = {{0}};
    MirStore__V1__DeviceRecord *record = NULL;
    bool of_server = c->device_id[0] == '\0';
    mir_event_cause cause = t->hub->own_cause;
    cause.address = mir_view_cstr(c->address);
    mir_device_event event = {.device_id = of_server ? MIR_NOTICE_SERVER : c->device_id,
                              .name = MIR_NOTICE_SERVER,
                              .name_space = "default",
                              .object_kind = of_server ? "server" : NULL,
                              .cause = &cause};
    bool is_known = of_server;
    if (!of_server && mir_state_get(t->hub->state, mir_view_cstr(c->device_id), &arena, &record,
                                    &error) == MIR_OK) {
        event.name = record->name;
        event.name_space = record->namespace_;
        is_known = true;
    }
    char text[512], actor[MIR_DEVICE_ID_BYTES_MAX + MIR_NOTICE_USER_BYTES_MAX];
    describe(c, &event, text, sizeof text, actor, sizeof actor);
    cause.actor = mir_view_cstr(actor);
    write_json(c, &json);
    event.json = mir_bytes_as_view(&json);
    /* Whoever invents ids gets no events. */
    if (is_known && mir_bytes_ok(&json)) {
        mir_event_batch *batch = mir_event_batch_new(t->hub);
        mir_events_add(t->hub, &event, &t->letters, batch);
        mir_event_batch_submit(t->hub, batch, NULL, NULL);
    } else if (is_known) {
        mir_event_batch_lost(t->hub, 1, "out of memory");
    }
    mir_bytes_free(&json);
    mir_arena_free(&arena);
    mir_shard_post(t->shard, &t->post);
}

static void announce(mir_shard *shard, const content *c)
{
    mir_hub *hub = mir_actors_of(shard)->hub;
    telling *t = malloc(sizeof *t);
    if (t == NULL) {
        mir_event_batch_lost(hub, 1, "out of memory");
        return;
    }
    *t = (telling){
        .job = {.run = tell_run}, .post = {.run = told}, .shard = shard, .hub = hub, .content = *c};
    mir_hub_begin(hub);
    mir_workers_submit(hub->requests, &t->job);
}

/* --- counting ------------------------------------------------------------------------------- */

static uint64_t key_hash(const content *c)
{
    uint64_t hash =
        mir_hash_view(mir_view_cstr(c->device_id[0] == '\0' ? c->address : c->device_id));
    return hash ^ ((uint64_t)c->reason + 1) * UINT64_C(0x9E3779B97F4A7C15) ^
           (c->kind == NULL ? 0 : mir_hash_view(mir_view_cstr(c->kind)));
}

static bool same_key(const content *a, const content *b)
{
    if (a->reason != b->reason || strcmp(a->device_id, b->device_id) != 0) return false;
    if (a->device_id[0] == '\0') return strcmp(a->address, b->address) == 0;
    return a->kind == b->kind ||
           (a->kind != NULL && b->kind != NULL && strcmp(a->kind, b->kind) == 0);
}

static void append(mir_notices *all, entry *e)
{
    e->next = NULL;
    if (all->last == NULL)
        all->first = e;
    else
        all->last->next = e;
    all->last = e;
}

static void windows_end(mir_timer *timer, void *context)
{
    (void)context;
    mir_actors *actors = MIR_CONTAINER(timer, mir_actors, notices.timer);
    mir_notices *all = &actors->notices;
    mir_loop *loop = actors->shard->loop;
    while (all->first != NULL && all->first->ends_ns <= loop->now_ns) {
        entry *e = all->first;
        all->first = e->next;
        if (all->first == NULL) all->last = NULL;
        if (e->content.count == 0) {
            mir_map_remove(&all->by_key, &e->by_key);
            free(e);
            continue;
        }
        announce(actors->shard, &e->content);
        e->content.count = 0;
        e->ends_ns = loop->now_ns + MIR_NOTICES_WINDOW_S * MIR_NS_PER_S;
        append(all, e);
    }
    if (all->dropped != 0)
        mir_log_warn("%llu refusals are in no event: too many devices and addresses at a time",
                     (unsigned long long)all->dropped);
    all->dropped = 0;
    if (all->first != NULL) mir_timer_set(&loop->timers, timer, all->first->ends_ns);
}

static void count(mir_shard *shard, const content *c)
{
    mir_notices *all = &mir_actors_of(shard)->notices;
    uint64_t hash = key_hash(c);
    for (mir_map_node *n = mir_map_first(&all->by_key, hash); n != NULL; n = mir_map_next(n)) {
        entry *e = MIR_CONTAINER(n, entry, by_key);
        if (!same_key(&e->content, c)) continue;
        uint64_t before = e->content.count;
        e->content = *c;
        e->content.count += before;
        return;
    }
    entry *e = all->by_key.count < MIR_NOTICES_MAX ? malloc(sizeof *e) : NULL;
    if (e == NULL) {
        all->dropped += c->count;
        return;
    }
    announce(shard, c);
    *e = (entry){.ends_ns = shard->loop->now_ns + MIR_NOTICES_WINDOW_S * MIR_NS_PER_S,
                 .content = *c};
    e->content.count = 0;
    mir_map_add(&all->by_key, &e->by_key, hash);
    append(all, e);
    all->timer.fire = windows_end;
    if (!mir_timer_is_set(&all->timer))
        mir_timer_set(&shard->loop->timers, &all->timer, all->first->ends_ns);
}

/* --- on the shard that counts it -------------------------------------------------------------- */

typedef struct relay {
    mir_post post;
    mir_hub *hub;
    mir_shard *from;
    content content;
} relay;

static void relay_home(mir_shard *shard, mir_post *post)
{
    relay *r = MIR_CONTAINER(post, relay, post);
    mir_actors_of(shard)->notices.under_way--;
    mir_hub_end(r->hub);
    free(r);
}

static void relay_run(mir_shard *shard, mir_post *post)
{
    relay *r = MIR_CONTAINER(post, relay, post);
    if (!shard->stopping) count(shard, &r->content);
    r->post.run = relay_home;
    mir_shard_post(r->from, &r->post);
}

void mir_notices_tell(mir_shard *shard, const mir_notice *notice)
{
    if (shard->stopping || notice->device_id.size > MIR_DEVICE_ID_BYTES_MAX) return;
    mir_actors *actors = mir_actors_of(shard);
    content c = {.reason = notice->reason, .kind = notice->kind, .count = notice->count};
    if (notice->device_id.size != 0)
        memcpy(c.device_id, notice->device_id.data, notice->device_id.size);
    keep(&c, notice);
    mir_view owner = mir_view_cstr(c.device_id[0] == '\0' ? c.address : c.device_id);
    mir_shard *to = actors->hub->shards[mir_hub_shard_of(actors->hub, owner)];
    if (to == shard) {
        count(shard, &c);
        return;
    }
    relay *r = actors->notices.under_way < MIR_NOTICES_UNDER_WAY ? malloc(sizeof *r) : NULL;
    if (r == NULL) {
        actors->notices.dropped += c.count;
        return;
    }
    *r = (relay){.post = {.run = relay_run}, .hub = actors->hub, .from = shard, .content = c};
    actors->notices.under_way++;
    mir_hub_begin(actors->hub);
    mir_shard_post(to, &r->post);
}

void mir_notices_fini(mir_actors *actors)
{
    mir_notices *all = &actors->notices;
    while (all->first != NULL) {
        entry *e = all->first;
        all->first = e->next;
        mir_map_remove(&all->by_key, &e->by_key);
        free(e);
    }
    all->last = NULL;
    mir_map_free(&all->by_key);
}
