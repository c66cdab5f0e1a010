/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_schema: the descriptor set that a device sends about itself.
 *
 * Why        A server decodes telemetry by nothing else, so the set has to be whole: every file
 *            once, every import present.
 * Ownership  The schema owns its bytes; mir_device_schema_free releases. A zeroed one is empty.
 * Affinity   Immutable once built.
 * Bounds     1,024 files, 65,536 messages.
 * Errors     MIR_E_INVALID (no descriptor set, two different files of one path, a missing import),
 *            MIR_E_TOO_LARGE, MIR_E_NO_MEMORY. */
#ifndef MIR_DEVICE_SCHEMA_H
#define MIR_DEVICE_SCHEMA_H

#include "mir_bytes.h"

enum { MIR_DEVICE_FILES_MAX = 1024, MIR_DEVICE_MESSAGES_MAX = 65536 };

typedef struct mir_device_schema {
    mir_bytes set; /* serialized FileDescriptorSet */
    char **names;  /* full names of all messages, sorted */
    size_t name_count;
} mir_device_schema;

/* The files of `sets` in their order, each path once, then descriptor.proto and mir.proto from this
 * library's own copy. */
MIR_MUST_CHECK mir_status mir_device_schema_build(const mir_view *sets, size_t set_count,
                                                  mir_device_schema *schema, mir_error *error);
bool mir_device_schema_has(const mir_device_schema *schema, const char *name);
void mir_device_schema_free(mir_device_schema *schema);

#endif
