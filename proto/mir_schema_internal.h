/* SPDX-License-Identifier: Apache-2.0 */
/* What the sources of mir_schema share; for nobody else. */
#ifndef MIR_SCHEMA_INTERNAL_H
#define MIR_SCHEMA_INTERNAL_H

#include <stdatomic.h>

#include "mir_schema.h"

typedef enum mir_schema_symbol_kind {
    MIR_SYMBOL_NONE = 0,
    MIR_SYMBOL_MESSAGE,
    MIR_SYMBOL_ENUM,
    MIR_SYMBOL_OTHER, /* extensions and services: taken names */
} mir_schema_symbol_kind;

typedef struct mir_schema_symbol {
    const char *name;
    uint32_t name_size;
    mir_schema_symbol_kind kind;
    const void *object;
} mir_schema_symbol;

/* A name table with open addressing; capacity is a power of two, at most half full. */
typedef struct mir_schema_table {
    mir_schema_symbol *slots;
    uint32_t capacity;
    uint32_t count;
} mir_schema_table;

typedef struct mir_schema_list_of {
    const mir_schema_message **messages;
    uint32_t count;
} mir_schema_list_of;

struct mir_schema {
    atomic_uint reference_count;
    mir_arena arena;
    mir_view set;
    const char **file_paths;
    uint32_t file_count;
    const char **packages;
    uint32_t package_count;
    mir_schema_table symbols;
    mir_schema_list_of top_level;
    mir_schema_list_of by_type[4]; /* indexed by mir_schema_message_type; [0] is not used */
    uint64_t digest[2];
};

const mir_schema_symbol *mir_schema_lookup(const mir_schema_table *table, mir_view name);
/* Of the whole set, independent of the order of files, fields and map entries. */
void mir_schema_digest(mir_view set, uint64_t digest[2]);

#endif
