/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_responses.h"

#include <stdlib.h>

#include "mir_hash.h"
#include "mir_map.h"

typedef struct response {
    mir_map_node by_reply;
    struct response *newer, *older; /* by the time of the latest question */
    int64_t until_ns;
    int64_t left; /* negative: any number */
    uint32_t size;
    uint8_t reply[];
} response;

struct mir_responses {
    mir_map by_reply;
    response *oldest, *newest;
};

mir_responses *mir_responses_create(void)
{
    return calloc(1, sizeof(mir_responses));
}

static void unlink_age(mir_responses *responses, response *r)
{
    if (r->older != NULL)
        r->older->newer = r->newer;
    else
        responses->oldest = r->newer;
    if (r->newer != NULL)
        r->newer->older = r->older;
    else
        responses->newest = r->older;
}

static void link_newest(mir_responses *responses, response *r)
{
    r->newer = NULL;
    r->older = responses->newest;
    if (responses->newest != NULL)
        responses->newest->newer = r;
    else
        responses->oldest = r;
    responses->newest = r;
}

static void forget(mir_responses *responses, response *r)
{
    unlink_age(responses, r);
    mir_map_remove(&responses->by_reply, &r->by_reply);
    free(r);
}

static void expire(mir_responses *responses, int64_t now_ns)
{
    for (unsigned i = 0; i < MIR_RESPONSES_STEP; i++) {
        if (responses->oldest == NULL || now_ns <= responses->oldest->until_ns) return;
        forget(responses, responses->oldest);
    }
}

static response *find(const mir_responses *responses, mir_view reply, uint64_t hash)
{
    mir_map_node *node = mir_map_first(&responses->by_reply, hash);
    for (; node != NULL; node = mir_map_next(node)) {
        response *r = MIR_CONTAINER(node, response, by_reply);
        if (mir_view_eq((mir_view){r->reply, r->size}, reply)) return r;
    }
    return NULL;
}

void mir_responses_note(mir_responses *responses, mir_view reply, int64_t max, int64_t expires_ns,
                        int64_t now_ns)
{
    expire(responses, now_ns);
    uint64_t hash = mir_hash_view(reply);
    response *r = find(responses, reply, hash);
    if (r == NULL) {
        if (responses->by_reply.count >= MIR_RESPONSES_MAX) forget(responses, responses->oldest);
        r = malloc(sizeof *r + reply.size);
        if (r == NULL) return;
        *r = (response){.size = (uint32_t)reply.size};
        memcpy(r->reply, reply.data, reply.size);
        mir_map_add(&responses->by_reply, &r->by_reply, hash);
    } else {
        if (now_ns > r->until_ns) r->left = 0;
        unlink_age(responses, r);
    }
    link_newest(responses, r);
    r->until_ns =
        expires_ns < 0 || now_ns > INT64_MAX - expires_ns ? INT64_MAX : now_ns + expires_ns;
    r->left = max < 0 || r->left < 0 || r->left > INT64_MAX - max ? -1 : r->left + max;
}

bool mir_responses_take(mir_responses *responses, mir_view reply, int64_t now_ns)
{
    expire(responses, now_ns);
    response *r = find(responses, reply, mir_hash_view(reply));
    if (r == NULL) return false;
    bool allowed = now_ns <= r->until_ns;
    if (allowed && r->left > 0) r->left--;
    if (!allowed || r->left == 0) forget(responses, r);
    return allowed;
}

uint32_t mir_responses_count(const mir_responses *responses)
{
    return responses->by_reply.count;
}

void mir_responses_destroy(mir_responses *responses)
{
    if (responses == NULL) return;
    while (responses->oldest != NULL) {
        response *newer = responses->oldest->newer;
        free(responses->oldest);
        responses->oldest = newer;
    }
    mir_map_free(&responses->by_reply);
    free(responses);
}
