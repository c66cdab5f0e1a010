/* SPDX-License-Identifier: Apache-2.0 */
/* mir_schemas: loaded schemas by the hash of their bytes, shared by all devices that have them.
 *
 * Why        Ten thousand devices of one kind send the same schema: it is decompressed, checked and
 *            kept once.
 * Ownership  The registry holds a reference to what it keeps; results carry one of the caller's.
 * Affinity   Worker threads; a mutex inside. Never on a shard: loading takes milliseconds.
 * Bounds     MIR_SCHEMAS_KEPT schemas; the one unused for longest makes room.
 * Errors     With a text that names what is wrong with the schema. */
#ifndef MIR_SCHEMAS_H
#define MIR_SCHEMAS_H

#include "mir_schema.h"
#include "mir_state.h"

enum { MIR_SCHEMAS_KEPT = 4096, MIR_SCHEMA_SET_BYTES_MAX = 8 * 1024 * 1024 };

typedef struct mir_schemas mir_schemas;

/* A schema with the name of its bytes. */
typedef struct mir_known_schema {
    mir_schema *schema; /* null: none */
    uint8_t hash[MIR_STATE_HASH_BYTES];
} mir_known_schema;

MIR_MUST_CHECK mir_status mir_schemas_create(mir_state *state, mir_schemas **schemas);
void mir_schemas_destroy(mir_schemas *schemas);
/* By hash, loaded from the store when it is not in memory. */
MIR_MUST_CHECK mir_status mir_schemas_get(mir_schemas *schemas, mir_view hash,
                                          mir_known_schema *known, mir_error *error);
/* From the bytes of a FileDescriptorSet. */
MIR_MUST_CHECK mir_status mir_schemas_load(mir_schemas *schemas, mir_view set,
                                           mir_known_schema *known, mir_error *error);
/* From a DeviceHello, compressed or not. MIR_E_EMPTY when it carries no schema. */
MIR_MUST_CHECK mir_status mir_schemas_from_hello(mir_schemas *schemas, mir_view payload,
                                                 bool compressed, mir_known_schema *known,
                                                 mir_error *error);
/* From a SchemaRetrieveResponse, compressed or not; a device's own error text goes to `error`. */
MIR_MUST_CHECK mir_status mir_schemas_from_answer(mir_schemas *schemas, mir_view payload,
                                                  bool compressed, mir_known_schema *known,
                                                  mir_error *error);

#endif
