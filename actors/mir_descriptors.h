/* SPDX-License-Identifier: Apache-2.0 */
/* mir_descriptors: the commands or properties of a schema, as lists show them.
 *
 * Why        Commands and configuration describe a message alike: its name, the labels of its schema
 *            options and a template to fill in.
 * Ownership  Everything is in the arena, but names, which live as long as the schema.
 * Affinity   One thread at a time.
 * Bounds     Those of the schema and of its labels.
 * Errors     MIR_E_NO_MEMORY. A template that cannot be made is the descriptor's own error. */
#ifndef MIR_DESCRIPTORS_H
#define MIR_DESCRIPTORS_H

#include "mir_schema.h"

typedef struct mir_descriptor {
    const mir_schema_message *message;
    const mir_schema_label *labels; /* sorted by key; terminated by a zero byte each */
    uint32_t label_count;
    char *template; /* null: see error */
    char *error;
} mir_descriptor;

/* A label that a listed message must have, exactly. */
typedef struct mir_label_filter {
    const char *key;
    const char *value;
} mir_label_filter;

MIR_MUST_CHECK mir_status mir_descriptors_of(const mir_schema *schema, mir_schema_message_type type,
                                             const mir_label_filter *filters, size_t filter_count,
                                             mir_arena *arena, mir_descriptor **descriptors,
                                             size_t *count);

#endif
