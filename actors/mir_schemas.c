/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_schemas.h"

#include <pthread.h>
#include <stdlib.h>

#include "mir_api/v1/device.pb-c.h"
#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_map.h"
#include "mir_pb.h"
#include "mir_zstd.h"

/* Two kinds of names lead to a schema: the hash of its bytes, and the hash of a whole message that
 * carried it, so that the same hello is recognized before it is decompressed. */
typedef struct entry {
    mir_map_node by_name;
    struct entry *newer, *older;
    uint8_t name[MIR_STATE_HASH_BYTES];
    mir_known_schema known;
} entry;

struct mir_schemas {
    mir_state *state;
    pthread_mutex_t lock;
    mir_map names;
    entry *newest, *oldest;
};

mir_status mir_schemas_create(mir_state *state, mir_schemas **schemas)
{
    mir_schemas *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return MIR_E_NO_MEMORY;
    fresh->state = state;
    (void)pthread_mutex_init(&fresh->lock, NULL);
    *schemas = fresh;
    return MIR_OK;
}

static void unlink_entry(mir_schemas *schemas, entry *e)
{
    if (e->newer != NULL)
        e->newer->older = e->older;
    else
        schemas->newest = e->older;
    if (e->older != NULL)
        e->older->newer = e->newer;
    else
        schemas->oldest = e->newer;
    e->newer = e->older = NULL;
}

static void link_newest(mir_schemas *schemas, entry *e)
{
    e->older = schemas->newest;
    if (schemas->newest != NULL) schemas->newest->newer = e;
    schemas->newest = e;
    if (schemas->oldest == NULL) schemas->oldest = e;
}

void mir_schemas_destroy(mir_schemas *schemas)
{
    if (schemas == NULL) return;
    while (schemas->newest != NULL) {
        entry *e = schemas->newest;
        MIR_ASSERT(e->newer == NULL);
        unlink_entry(schemas, e);
        mir_schema_unref(e->known.schema);
        free(e);
    }
    mir_map_free(&schemas->names);
    (void)pthread_mutex_destroy(&schemas->lock);
    free(schemas);
}

static uint64_t name_hash(const uint8_t *name)
{
    uint64_t hash;
    memcpy(&hash, name, sizeof hash);
    return hash;
}

static bool find(mir_schemas *schemas, const uint8_t *name, mir_known_schema *known)
{
    bool found = false;
    (void)pthread_mutex_lock(&schemas->lock);
    mir_map_node *node = mir_map_first(&schemas->names, name_hash(name));
    for (; node != NULL && !found; node = mir_map_next(node)) {
        entry *e = MIR_CONTAINER(node, entry, by_name);
        if (memcmp(e->name, name, sizeof e->name) != 0) continue;
        unlink_entry(schemas, e);
        link_newest(schemas, e);
        *known = e->known;
        (void)mir_schema_ref(known->schema);
        found = true;
    }
    (void)pthread_mutex_unlock(&schemas->lock);
    return found;
}

static void keep(mir_schemas *schemas, const uint8_t *name, const mir_known_schema *known)
{
    mir_known_schema present;
    if (find(schemas, name, &present)) {
        mir_schema_unref(present.schema);
        return;
    }
    entry *fresh = calloc(1, sizeof *fresh);
    if (fresh == NULL) return; /* It is only a cache. */
    memcpy(fresh->name, name, sizeof fresh->name);
    fresh->known = *known;
    (void)mir_schema_ref(fresh->known.schema);
    (void)pthread_mutex_lock(&schemas->lock);
    if (schemas->names.count >= MIR_SCHEMAS_KEPT) {
        entry *old = schemas->oldest;
        unlink_entry(schemas, old);
        mir_map_remove(&schemas->names, &old->by_name);
        mir_schema_unref(old->known.schema);
        free(old);
    }
    mir_map_add(&schemas->names, &fresh->by_name, name_hash(name));
    link_newest(schemas, fresh);
    (void)pthread_mutex_unlock(&schemas->lock);
}

mir_status mir_schemas_load(mir_schemas *schemas, mir_view set, mir_known_schema *known,
                            mir_error *error)
{
    uint8_t hash[MIR_STATE_HASH_BYTES];
    mir_state_schema_hash(set, hash);
    if (find(schemas, hash, known)) return MIR_OK;
    mir_known_schema fresh;
    memcpy(fresh.hash, hash, sizeof fresh.hash);
    mir_status status = mir_schema_load(set, NULL, &fresh.schema, error);
    if (status != MIR_OK) return status;
    keep(schemas, hash, &fresh);
    *known = fresh;
    return MIR_OK;
}

mir_status mir_schemas_get(mir_schemas *schemas, mir_view hash, mir_known_schema *known,
                           mir_error *error)
{
    if (hash.size != MIR_STATE_HASH_BYTES)
        return mir_error_set(error, MIR_E_INVALID, "no schema is stored");
    if (find(schemas, hash.data, known)) return MIR_OK;
    mir_bytes raw = {0};
    mir_status status = mir_state_schema_get(schemas->state, hash, false, &raw, error);
    if (status == MIR_OK) status = mir_schemas_load(schemas, mir_bytes_as_view(&raw), known, error);
    mir_bytes_free(&raw);
    return status;
}

typedef mir_status (*unwrap_fn)(mir_view payload, mir_arena *arena, mir_view *set,
                                mir_error *error);

static mir_status unwrap_hello(mir_view payload, mir_arena *arena, mir_view *set, mir_error *error)
{
    MirApi__V1__DeviceHello *hello;
    mir_status status =
        mir_pb_unpack(&mir_api__v1__device_hello__descriptor, payload, arena, &hello, error);
    if (status != MIR_OK) return status;
    if (hello->response_case != MIR_API__V1__DEVICE_HELLO__RESPONSE_HELLO || hello->hello == NULL ||
        hello->hello->schema.len == 0)
        return mir_error_set(error, MIR_E_EMPTY, "the hello carries no schema");
    *set = mir_view_of(hello->hello->schema.data, hello->hello->schema.len);
    return MIR_OK;
}

static mir_status unwrap_answer(mir_view payload, mir_arena *arena, mir_view *set, mir_error *error)
{
    MirApi__V1__SchemaRetrieveResponse *answer;
    mir_status status = mir_pb_unpack(&mir_api__v1__schema_retrieve_response__descriptor, payload,
                                      arena, &answer, error);
    if (status != MIR_OK) return status;
    if (answer->response_case == MIR_API__V1__SCHEMA_RETRIEVE_RESPONSE__RESPONSE_ERROR)
        return mir_error_set(error, MIR_E_UNREACHABLE, "%s",
                             answer->error == NULL || answer->error[0] == '\0'
                                 ? "the device reports an error without a text"
                                 : answer->error);
    if (answer->response_case != MIR_API__V1__SCHEMA_RETRIEVE_RESPONSE__RESPONSE_SCHEMA ||
        answer->schema.len == 0)
        return mir_error_set(error, MIR_E_EMPTY, "the device answered without a schema");
    *set = mir_view_of(answer->schema.data, answer->schema.len);
    return MIR_OK;
}

static mir_status from_message(mir_schemas *schemas, mir_view payload, bool compressed,
                               unwrap_fn unwrap, mir_known_schema *known, mir_error *error)
{
    uint8_t name[MIR_STATE_HASH_BYTES];
    mir_state_schema_hash(payload, name);
    if (find(schemas, name, known)) return MIR_OK;
    mir_bytes plain = {.size_max = MIR_SCHEMA_SET_BYTES_MAX + 1024};
    mir_arena arena = {.bytes_max = 4 * MIR_SCHEMA_SET_BYTES_MAX};
    mir_status status = MIR_OK;
    mir_view message = payload;
    if (compressed) {
        status = mir_zstd_decompress(payload, MIR_SCHEMA_SET_BYTES_MAX + 1024, &plain, error);
        message = mir_bytes_as_view(&plain);
    }
    mir_view set = {NULL, 0};
    if (status == MIR_OK) status = unwrap(message, &arena, &set, error);
    if (status == MIR_OK) status = mir_schemas_load(schemas, set, known, error);
    if (status == MIR_OK) keep(schemas, name, known);
    mir_arena_free(&arena);
    mir_bytes_free(&plain);
    return status;
}

mir_status mir_schemas_from_hello(mir_schemas *schemas, mir_view payload, bool compressed,
                                  mir_known_schema *known, mir_error *error)
{
    return from_message(schemas, payload, compressed, unwrap_hello, known, error);
}

mir_status mir_schemas_from_answer(mir_schemas *schemas, mir_view payload, bool compressed,
                                   mir_known_schema *known, mir_error *error)
{
    return from_message(schemas, payload, compressed, unwrap_answer, known, error);
}
