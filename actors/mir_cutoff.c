/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cutoff.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_device_rules.h"
#include "mir_notices.h"
#include "mir_session.h"
#include "mir_twin.h"

/* On its way to the shard of a connection. */
typedef struct cut {
    mir_post post;
    mir_hub *hub;
    mir_ref ref;
    bool is_subscription; /* otherwise a session */
    bool returned;
    size_t id_size;
    char id[];
} cut;

static void cut_run(mir_shard *shard, mir_post *post)
{
    cut *c = MIR_CONTAINER(post, cut, post);
    mir_view id = mir_view_of(c->id, c->id_size);
    mir_session *session = NULL;
    if (shard->stopping) {
    } else if (c->is_subscription) {
        mir_subscription *sub =
            mir_slots_get(&shard->subscriptions, mir_ref_slot(c->ref), mir_ref_generation(c->ref));
        if (sub != NULL && !sub->session->closing) session = sub->session;
    } else {
        session = mir_session_find(shard, c->ref);
    }
    if (session != NULL && mir_session_is_of(session, id)) {
        mir_notice notice = {.reason = MIR_NOTICE_CONNECTION_REFUSED,
                             .device_id = id,
                             .text = MIR_VIEW_LITERAL("the device is disabled"),
                             .user = session->user,
                             .address = mir_view_cstr(session->address),
                             .count = 1};
        if (c->returned) mir_notices_tell(shard, &notice);
        /* No text: clients that are told of a violation twice give up for good. */
        mir_session_fail(session, NULL, "Device Disabled");
    }
    mir_hub_end(c->hub);
    free(c);
}

static void post_cut(mir_shard *shard, mir_view id, mir_ref ref, bool is_subscription,
                     bool returned)
{
    cut *c = malloc(sizeof *c + id.size);
    if (c == NULL) return;
    *c = (cut){.post = {.run = cut_run},
               .hub = mir_actors_of(shard)->hub,
               .ref = ref,
               .is_subscription = is_subscription,
               .returned = returned,
               .id_size = id.size};
    memcpy(c->id, id.data, id.size);
    mir_hub_begin(c->hub);
    mir_shard_post(shard->peers[mir_ref_shard(ref)], &c->post);
}

void mir_cutoff_publisher(mir_shard *shard, mir_view device_id, mir_ref session)
{
    if (session != 0) post_cut(shard, device_id, session, false, true);
}

void mir_cutoff_device(mir_shard *shard, mir_view device_id, bool returned)
{
    static const char *const questions[] = {"command", "config", "schema"};
    for (size_t i = 0; i < sizeof questions / sizeof questions[0]; i++) {
        char subject[MIR_DEVICE_ID_BYTES_MAX + 32];
        int size = snprintf(subject, sizeof subject, "%.*s.v1alpha.%s", MIR_VIEW_ARGS(device_id),
                            questions[i]);
        mir_match *match = &shard->match;
        mir_match_reset(match);
        mir_router_match_named(shard->router, mir_view_of(subject, (size_t)size), match);
        for (uint32_t k = 0; k < match->plain_count; k++)
            post_cut(shard, device_id, match->plain[k], true, returned);
        for (uint32_t k = 0; k < match->member_count; k++)
            post_cut(shard, device_id, match->members[k], true, returned);
    }
}

typedef struct visit {
    mir_post post;
    mir_hub *hub;
    mir_shard *from;
    size_t id_size;
    char id[];
} visit;

static void visit_home(mir_shard *shard, mir_post *post)
{
    visit *v = MIR_CONTAINER(post, visit, post);
    mir_actors_of(shard)->visits--;
    mir_hub_end(v->hub);
    free(v);
}

static void visit_run(mir_shard *shard, mir_post *post)
{
    visit *v = MIR_CONTAINER(post, visit, post);
    if (!shard->stopping) mir_twin_visit(shard, mir_view_of(v->id, v->id_size));
    v->post.run = visit_home;
    mir_shard_post(v->from, &v->post);
}

void mir_cutoff_visit(mir_shard *shard, mir_view device_id)
{
    mir_actors *actors = mir_actors_of(shard);
    if (shard->stopping || mir_device_id_check(device_id, NULL) != MIR_OK) return;
    mir_shard *owner = actors->hub->shards[mir_hub_shard_of(actors->hub, device_id)];
    if (owner == shard) {
        mir_twin_visit(shard, device_id);
        return;
    }
    visit *v = actors->visits < MIR_CUTOFF_VISITS ? malloc(sizeof *v + device_id.size) : NULL;
    if (v == NULL) return;
    *v = (visit){
        .post = {.run = visit_run}, .hub = actors->hub, .from = shard, .id_size = device_id.size};
    memcpy(v->id, device_id.data, device_id.size);
    actors->visits++;
    mir_hub_begin(v->hub);
    mir_shard_post(owner, &v->post);
}
