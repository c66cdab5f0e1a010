/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sequel.h"

#include "mir_actors.h"

/* The shard that has the lane; any would do. */
enum { LANE_SHARD = 0 };

void mir_sequel_place(mir_hub *hub, mir_sequel *sequel)
{
    sequel->has_place = true;
    (void)mir_mpsc_push(&hub->sequels.placed, &sequel->node);
}

static mir_sequel *sequel_of(mir_mpsc_node *node)
{
    return (mir_sequel *)(void *)((uint8_t *)node - offsetof(mir_sequel, node));
}

static void append(mir_sequel_lane *lane, mir_mpsc_node *node)
{
    if (lane->first == NULL)
        lane->first = sequel_of(node);
    else
        lane->last->next = node;
    while (node->next != NULL) node = node->next;
    lane->last = node;
}

static void go_on(mir_shard *shard, mir_sequel_lane *lane)
{
    size_t left = MIR_SEQUEL_LETTERS_TURN;
    while (lane->first != NULL && lane->first->is_told) {
        mir_sequel *sequel = lane->first;
        size_t count = sequel->letters.count;
        if (shard->stopping)
            mir_letters_discard(&sequel->letters);
        else
            mir_letters_publish_some(shard, &sequel->letters, left);
        if (sequel->letters.count != 0) break;
        left -= shard->stopping ? 0 : count;
        lane->first = sequel->node.next == NULL ? NULL : sequel_of(sequel->node.next);
        sequel->done(shard, sequel);
    }
    if (lane->first != NULL && lane->first->is_told) {
        lane->goes_on = true;
        mir_shard_post(shard, &lane->again);
    }
}

static void go_on_again(mir_shard *shard, mir_post *post)
{
    mir_sequel_lane *lane = MIR_CONTAINER(post, mir_sequel_lane, again);
    lane->goes_on = false;
    go_on(shard, lane);
}

static void told(mir_shard *shard, mir_post *post)
{
    mir_sequel *sequel = MIR_CONTAINER(post, mir_sequel, post);
    mir_sequel_lane *lane = &sequel->hub->sequels;
    sequel->is_told = true;
    /* Who tells it has seen that it was placed, and so do we. */
    mir_mpsc_node *placed = mir_mpsc_take(&lane->placed);
    if (placed != NULL) append(lane, placed);
    if (!sequel->has_place) {
        sequel->node.next = NULL;
        append(lane, &sequel->node);
    }
    if (lane->goes_on) return;
    lane->again.run = go_on_again;
    go_on(shard, lane);
}

void mir_sequel_home(mir_shard *lane, mir_shard *home, mir_post *post)
{
    if (home == lane) {
        post->run(lane, post);
        return;
    }
    /* Who waits for this answers from another shard, and not before the event. */
    mir_shard_flush_parcels(lane);
    mir_shard_post(home, post);
}

void mir_sequel_tell(mir_hub *hub, mir_sequel *sequel)
{
    sequel->hub = hub;
    sequel->post.run = told;
    mir_shard_post(hub->shards[LANE_SHARD], &sequel->post);
}
