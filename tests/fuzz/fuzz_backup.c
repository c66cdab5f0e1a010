/* SPDX-License-Identifier: Apache-2.0 */
/* The list of a backup, of any bytes, whose checksum is made to hold: what is taken names only files
 * that a backup has, and is written as it was read. */
#include <inttypes.h>
#include <stdint.h>

#include "mir_assert.h"
#include "mir_hash.h"
#include "mir_storage_internal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mir_storage_marker marker, again;
    mir_bytes text = {0};
    if (mir_storage_marker_parse(mir_view_of(data, size), &marker, NULL) == MIR_OK)
        mir_storage_marker_fini(&marker);
    mir_bytes_append(&text, data, size);
    mir_bytes_printf(&text, "end %016" PRIx64 "\n", mir_hash_fixed(data, size));
    MIR_ASSERT(mir_bytes_ok(&text));
    if (mir_storage_marker_parse(mir_bytes_as_view(&text), &marker, NULL) == MIR_OK) {
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < marker.count; i++) {
            const char *name = marker.entries[i].name;
            MIR_ASSERT(strncmp(name, "telemetry/", 10) == 0 || strncmp(name, "state/", 6) == 0);
            MIR_ASSERT(strchr(strchr(name, '/') + 1, '/') == NULL && strstr(name, "/.") == NULL);
            bytes += marker.entries[i].size;
        }
        MIR_ASSERT(bytes == marker.bytes);
        text.size = 0;
        mir_storage_marker_format(&marker, &text);
        MIR_ASSERT(mir_storage_marker_parse(mir_bytes_as_view(&text), &again, NULL) == MIR_OK);
        MIR_ASSERT(again.count == marker.count && again.bytes == marker.bytes &&
                   again.at_ns == marker.at_ns);
        mir_storage_marker_fini(&again);
        mir_storage_marker_fini(&marker);
    }
    mir_bytes_free(&text);
    return 0;
}
