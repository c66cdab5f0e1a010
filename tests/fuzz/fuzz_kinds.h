/* SPDX-License-Identifier: Apache-2.0 */
/* The schema that the fuzz targets of plans and JSON work with: tests/data/schema/kinds.binpb, the
 * compiled kinds.proto beside it. */
#ifndef FUZZ_KINDS_H
#define FUZZ_KINDS_H

#include <stdio.h>
#include <stdlib.h>

#include "mir_bytes.h"
#include "mir_schema.h"

/* Of tests/data/schema. */
static inline mir_schema *fuzz_schema(const char *name)
{
    mir_schema *schema = NULL;
    static const char here[] = __FILE__;
    char path[4096];
    const char *slash = strrchr(here, '/');
    (void)snprintf(path, sizeof path, "%.*s/../data/schema/%s.binpb",
                   slash == NULL ? 0 : (int)(slash - here), here, name);
    FILE *file = fopen(path, "rb");
    if (file == NULL) {
        perror(path);
        abort();
    }
    mir_bytes bytes = {0};
    uint8_t buffer[4096];
    size_t size;
    while ((size = fread(buffer, 1, sizeof buffer, file)) > 0) {
        mir_bytes_append(&bytes, buffer, size);
    }
    (void)fclose(file);
    if (mir_schema_load(mir_bytes_as_view(&bytes), NULL, &schema, NULL) != MIR_OK) abort();
    mir_bytes_free(&bytes);
    return schema;
}

static inline const mir_schema *fuzz_kinds(void)
{
    static mir_schema *schema;
    if (schema == NULL) schema = fuzz_schema("kinds");
    return schema;
}

/* The top-level message that the byte picks. */
static inline const mir_schema_message *fuzz_message(uint8_t pick)
{
    uint32_t count = 0;
    const mir_schema_message *const *messages = mir_schema_messages(fuzz_kinds(), &count);
    return messages[pick % count];
}

#endif
