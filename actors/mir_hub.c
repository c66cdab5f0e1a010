/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_hub.h"
#include <stdlib.h>
struct mir_hub {
    int unused;
};
mir_status mir_hub_create(const mir_config *config, mir_shard *const *shards, unsigned shard_count,
                          mir_workers *requests, const char *server_id, const char *io_name,
                          mir_hub **hub, mir_error *error)
{
    (void)config;
    (void)shards;
    (void)shard_count;
    (void)requests;
    (void)server_id;
    (void)io_name;
    (void)error;
    *hub = calloc(1, sizeof **hub);
    return MIR_OK;
}
mir_status mir_hub_start(mir_hub *hub, mir_error *error)
{
    (void)hub;
    (void)error;
    return MIR_OK;
}
void mir_hub_stop(mir_hub *hub)
{
    (void)hub;
}
void mir_hub_destroy(mir_hub *hub)
{
    free(hub);
}
mir_status mir_hub_shard_init(mir_hub *hub, mir_shard *shard)
{
    (void)hub;
    (void)shard;
    return MIR_OK;
}
void mir_hub_shard_fini(mir_hub *hub, mir_shard *shard)
{
    (void)hub;
    (void)shard;
}
static mir_endpoint_kind classify(const mir_server *s, mir_message *m, unsigned *sh)
{
    (void)s;
    (void)m;
    (void)sh;
    return MIR_ENDPOINT_NONE;
}
static void deliver(mir_shard *s, const mir_message *m)
{
    (void)s;
    (void)m;
}
static void commit(mir_shard *s)
{
    (void)s;
}
const mir_endpoints mir_hub_endpoints = {
    .classify = classify, .deliver = deliver, .commit = commit};
