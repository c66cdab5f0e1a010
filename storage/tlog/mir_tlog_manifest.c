/* SPDX-License-Identifier: Apache-2.0 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog_internal.h"

/* The list of live segments, and of logs whose rows are in them. It is replaced as a whole, so what
 * a crash leaves behind is either all of a step or nothing of it. */

static const uint8_t manifest_magic[8] = {'M', 'I', 'R', 'T', 'M', 'A', 'N', 0};

enum {
    MANIFEST_VERSION = 1,
    MANIFEST_HEADER_BYTES = 24,
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
    if (bytes.size < MANIFEST_HEADER_BYTES ||
        memcmp(bytes.data, manifest_magic, sizeof manifest_magic) != 0 ||
        mir_tlog_get_u64(bytes.data + 16) !=
            XXH3_64bits_withSeed(bytes.data + MANIFEST_HEADER_BYTES,
                                 bytes.size - MANIFEST_HEADER_BYTES,
                                 mir_tlog_get_u64(bytes.data + 8)) ||
        mir_tlog_get_u32(bytes.data + 12) != bytes.size - MANIFEST_HEADER_BYTES) {
        return mir_error_set(error, MIR_E_CORRUPT, "the manifest is damaged");
    }
    if (mir_tlog_get_u32(bytes.data + 8) != MANIFEST_VERSION) {
        return mir_tlog_version_refuse(error, "the manifest", mir_tlog_get_u32(bytes.data + 8),
                                       MANIFEST_VERSION);
    }
    mir_tlog_reader in =
        mir_tlog_reader_of(bytes.data + MANIFEST_HEADER_BYTES, bytes.size - MANIFEST_HEADER_BYTES);
    mir_tlog_manifest made = {.next_number = mir_tlog_read_varint(&in)};
    mir_status status = MIR_OK;
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
    int handle;
    int result = files->open(files->context, path, &handle);
    if (result == -ENOENT) return MIR_E_NOT_FOUND;
    if (result < 0) return mir_error_os(error, -result, "open %s", path);
    uint64_t size = 0;
    uint8_t *bytes = NULL;
    mir_status status;
    result = files->size(files->context, handle, &size);
    if (result == 0 && size <= MANIFEST_BYTES_MAX) {
        bytes = malloc(size + 1);
        if (bytes == NULL) {
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
            goto out;
        }
        result = mir_tlog_file_read(files, handle, bytes, size, 0);
    }
    if (result < 0) {
        status = mir_error_os(error, -result, "read %s", path);
        goto out;
    }
    status = mir_tlog_manifest_parse(mir_view_of(bytes, bytes == NULL ? 0 : size), manifest, error);
out:
    free(bytes);
    (void)files->close(files->context, handle);
    return status;
}

mir_status mir_tlog_manifest_write(const mir_tlog_files *files, const char *directory,
                                   const mir_tlog_manifest *manifest, bool *in_doubt,
                                   mir_error *error)
{
    *in_doubt = false;
    char path[MIR_TLOG_PATH_BYTES_MAX];
    char temporary[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/MANIFEST", directory);
    (void)snprintf(temporary, sizeof temporary, "%s/MANIFEST.tmp", directory);
    mir_bytes out = {0};
    uint8_t header[MANIFEST_HEADER_BYTES] = {0};
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
        mir_bytes_free(&out);
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    memcpy(out.data, manifest_magic, sizeof manifest_magic);
    (void)mir_tlog_put_u32(out.data + 8, MANIFEST_VERSION);
    (void)mir_tlog_put_u32(out.data + 12, (uint32_t)(out.size - sizeof header));
    (void)mir_tlog_put_u64(out.data + 16,
                           XXH3_64bits_withSeed(out.data + sizeof header, out.size - sizeof header,
                                                mir_tlog_get_u64(out.data + 8)));
    (void)files->unlink(files->context, temporary);
    int handle;
    const char *step = "create";
    int result = files->create(files->context, temporary, &handle);
    if (result == 0) {
        step = "write";
        result = mir_tlog_file_write(files, handle, out.data, out.size, 0);
        if (result == 0) {
            step = "sync";
            result = files->sync(files->context, handle);
        }
        (void)files->close(files->context, handle);
        if (result == 0) {
            step = "rename";
            result = files->rename(files->context, temporary, path);
        }
        if (result == 0) {
            step = "sync the directory of";
            result = files->sync_directory(files->context, directory);
            *in_doubt = result != 0;
        } else {
            (void)files->unlink(files->context, temporary);
        }
    }
    mir_bytes_free(&out);
    return result == 0 ? MIR_OK : mir_error_os(error, -result, "%s %s", step, temporary);
}
