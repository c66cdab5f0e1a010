/* SPDX-License-Identifier: Apache-2.0 */
#include <stdio.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog_internal.h"

/* The list of live segments, and of logs whose rows are in them. It is replaced as a whole, so what
 * a crash leaves behind is either all of a step or nothing of it. */

static const uint8_t manifest_magic[8] = {'M', 'I', 'R', 'T', 'M', 'A', 'N', 0};

enum {
    MANIFEST_VERSION = 1,
    MANIFEST_BYTES_MAX = 64 << 20,
};

void mir_tlog_manifest_fini(mir_tlog_manifest *manifest)
{
    free(manifest->segments);
    free(manifest->sealed);
    *manifest = (mir_tlog_manifest){0};
}

static bool numbers_read(mir_tlog_reader *in, uint64_t **numbers, uint32_t *count,
                         mir_status *status)
{
    const uint64_t announced = mir_tlog_read_varint(in);
    if (in->failed || announced > mir_tlog_reader_left(in)) {
        *status = MIR_E_CORRUPT;
        return false;
    }
    *numbers = malloc((announced + 1) * sizeof **numbers);
    if (*numbers == NULL) {
        *status = MIR_E_NO_MEMORY;
        return false;
    }
    for (uint64_t i = 0; i < announced; i++) (*numbers)[i] = mir_tlog_read_varint(in);
    *count = (uint32_t)announced;
    return true;
}

mir_status mir_tlog_manifest_parse(mir_view bytes, mir_tlog_manifest *manifest, mir_error *error)
{
    mir_tlog_reader in;
    mir_status status =
        mir_tlog_whole_parse(bytes, manifest_magic, MANIFEST_VERSION, "the manifest", &in, error);
    if (status != MIR_OK) return status;
    mir_tlog_manifest made = {.next_number = mir_tlog_read_varint(&in)};
    if (numbers_read(&in, &made.segments, &made.segment_count, &status) &&
        numbers_read(&in, &made.sealed, &made.sealed_count, &status) &&
        (in.failed || in.at != in.end)) {
        status = MIR_E_CORRUPT;
    }
    if (status != MIR_OK) {
        mir_tlog_manifest_fini(&made);
        return mir_error_set(error, status, "the manifest cannot be read");
    }
    *manifest = made;
    return MIR_OK;
}

mir_status mir_tlog_manifest_read(const mir_tlog_files *files, const char *directory,
                                  mir_tlog_manifest *manifest, mir_error *error)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/MANIFEST", directory);
    uint8_t *bytes = NULL;
    size_t size = 0;
    const mir_status status =
        mir_tlog_file_load(files, path, MANIFEST_BYTES_MAX, &bytes, &size, error);
    if (status != MIR_OK && status != MIR_E_TOO_LARGE) return status;
    const mir_status parsed = mir_tlog_manifest_parse(mir_view_of(bytes, size), manifest, error);
    free(bytes);
    return parsed;
}

mir_status mir_tlog_manifest_write(const mir_tlog_files *files, const char *directory,
                                   const mir_tlog_manifest *manifest, bool *in_doubt,
                                   mir_error *error)
{
    mir_bytes out = {0};
    const uint8_t header[MIR_TLOG_WHOLE_HEADER_BYTES] = {0};
    mir_bytes_append(&out, header, sizeof header);
    mir_tlog_bytes_varint(&out, manifest->next_number);
    mir_tlog_bytes_varint(&out, manifest->segment_count);
    for (uint32_t i = 0; i < manifest->segment_count; i++) {
        mir_tlog_bytes_varint(&out, manifest->segments[i]);
    }
    mir_tlog_bytes_varint(&out, manifest->sealed_count);
    for (uint32_t i = 0; i < manifest->sealed_count; i++) {
        mir_tlog_bytes_varint(&out, manifest->sealed[i]);
    }
    if (!mir_bytes_ok(&out)) {
        *in_doubt = false;
        mir_bytes_free(&out);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    mir_tlog_whole_end(&out, manifest_magic, MANIFEST_VERSION);
    const mir_status status = mir_tlog_file_replace(files, directory, "MANIFEST",
                                                    mir_bytes_as_view(&out), in_doubt, error);
    mir_bytes_free(&out);
    return status;
}
