/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_position.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "mir_hash.h"
#include "mir_tlog_code.h"

static const uint8_t magic[8] = {'M', 'I', 'R', 'T', 'P', 'O', 'S', 0};

enum {
    VERSION = 1,
    HEADER_BYTES = 24,
    FILE_BYTES_MAX =
        HEADER_BYTES + (2 + 3 * MIR_TLOG_POSITION_LOGS_MAX) * MIR_TLOG_VARINT_BYTES_MAX,
};

void mir_tlog_position_fini(mir_tlog_position *position)
{
    free(position->logs);
    *position = (mir_tlog_position){0};
}

/* Of what stands behind the checksum, and of the version in front of it. */
static uint64_t check_of(const uint8_t *bytes, size_t size)
{
    return XXH3_64bits_withSeed(bytes + HEADER_BYTES, size - HEADER_BYTES,
                                mir_tlog_get_u64(bytes + 8));
}

mir_status mir_tlog_position_parse(mir_view bytes, mir_tlog_position *position, mir_error *error)
{
    static const char damaged[] = "the position of the telemetry sink is damaged";
    if (bytes.size < HEADER_BYTES || memcmp(bytes.data, magic, sizeof magic) != 0 ||
        mir_tlog_get_u64(bytes.data + 16) != check_of(bytes.data, bytes.size) ||
        mir_tlog_get_u32(bytes.data + 12) != bytes.size - HEADER_BYTES) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s", damaged);
    }
    if (mir_tlog_get_u32(bytes.data + 8) != VERSION) {
        return mir_tlog_version_refuse(error, "the position of the telemetry sink",
                                       mir_tlog_get_u32(bytes.data + 8), VERSION);
    }
    mir_tlog_reader in = mir_tlog_reader_of(bytes.data + HEADER_BYTES, bytes.size - HEADER_BYTES);
    mir_tlog_position made = {.through_ns = mir_tlog_read_signed(&in)};
    const uint64_t count = mir_tlog_read_varint(&in);
    if (in.failed || count > MIR_TLOG_POSITION_LOGS_MAX) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s", damaged);
    }
    made.logs = calloc(count + 1, sizeof *made.logs);
    if (made.logs == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (; made.log_count < count; made.log_count++) {
        mir_tlog_position_log *log = &made.logs[made.log_count];
        log->generation = mir_tlog_read_varint(&in);
        log->offset = mir_tlog_read_varint(&in);
        const uint64_t rows = mir_tlog_read_varint(&in);
        if (rows > UINT32_MAX) in.failed = true;
        log->rows = (uint32_t)rows;
    }
    if (in.failed || in.at != in.end) {
        mir_tlog_position_fini(&made);
        return mir_error_set(error, MIR_E_CORRUPT, "%s", damaged);
    }
    *position = made;
    return MIR_OK;
}

mir_status mir_tlog_position_read(const mir_tlog_files *files, const char *directory,
                                  mir_tlog_position *position, mir_error *error)
{
    char path[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/POSITION", directory);
    uint8_t *bytes;
    size_t size;
    const mir_status status = mir_tlog_file_load(files, path, FILE_BYTES_MAX, &bytes, &size, error);
    if (status == MIR_E_TOO_LARGE) {
        return mir_error_set(error, MIR_E_CORRUPT, "%s is larger than any position", path);
    }
    if (status != MIR_OK) return status;
    const mir_status parsed = mir_tlog_position_parse(mir_view_of(bytes, size), position, error);
    free(bytes);
    return parsed;
}

mir_status mir_tlog_position_write(const mir_tlog_files *files, const char *directory,
                                   const mir_tlog_position *position, mir_error *error)
{
    if (position->log_count > MIR_TLOG_POSITION_LOGS_MAX) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "the spool has too many logs");
    }
    mir_bytes out = {0};
    const uint8_t header[HEADER_BYTES] = {0};
    mir_bytes_append(&out, header, sizeof header);
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(position->through_ns));
    mir_tlog_bytes_varint(&out, position->log_count);
    for (uint32_t i = 0; i < position->log_count; i++) {
        mir_tlog_bytes_varint(&out, position->logs[i].generation);
        mir_tlog_bytes_varint(&out, position->logs[i].offset);
        mir_tlog_bytes_varint(&out, position->logs[i].rows);
    }
    mir_status status = MIR_E_NO_MEMORY;
    if (mir_bytes_ok(&out)) {
        memcpy(out.data, magic, sizeof magic);
        (void)mir_tlog_put_u32(out.data + 8, VERSION);
        (void)mir_tlog_put_u32(out.data + 12, (uint32_t)(out.size - HEADER_BYTES));
        (void)mir_tlog_put_u64(out.data + 16, check_of(out.data, out.size));
        bool in_doubt;
        status = mir_tlog_file_replace(files, directory, "POSITION", mir_bytes_as_view(&out),
                                       &in_doubt, error);
    } else {
        (void)mir_error_set(error, status, "out of memory");
    }
    mir_bytes_free(&out);
    return status;
}
