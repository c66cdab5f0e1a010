/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_tally.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_log.h"

static const uint8_t tally_magic[8] = {'M', 'I', 'R', 'T', 'R', 'E', 'T', 0};
static const char tally_name[] = "RETENTION";

enum { TALLY_VERSION = 1, TALLY_BYTES_MAX = 1 << 16 };

/* A rule is known again by what it fits; 0: what no rule fitted. */
static mir_status rule_key(const mir_tlog_options *options, uint32_t rule, uint64_t *key)
{
    *key = 0;
    if (rule == options->rule_count) return MIR_OK;
    const mir_tlog_rule *of = &options->rules[rule];
    mir_bytes text = {0};
    mir_bytes_u8(&text, of->deleted);
    mir_tlog_bytes_text(&text, of->name_space);
    mir_tlog_bytes_text(&text, of->measurement);
    const bool ok = mir_bytes_ok(&text);
    if (ok) *key = mir_hash_fixed(text.data, text.size) | 1;
    mir_bytes_free(&text);
    return ok ? MIR_OK : MIR_E_NO_MEMORY;
}

static mir_status rules_parse(mir_tlog_reader *in, const mir_tlog_options *options,
                              mir_tlog_retention *made)
{
    uint64_t keys[MIR_TLOG_RULES_MAX + 1];
    for (uint32_t i = 0; i <= options->rule_count; i++) {
        const mir_status status = rule_key(options, i, &keys[i]);
        if (status != MIR_OK) return status;
    }
    const uint64_t count = mir_tlog_read_varint(in);
    if (in->failed || count > MIR_TLOG_RULES_MAX + 1) return MIR_E_CORRUPT;
    for (uint64_t n = 0; n < count; n++) {
        const uint64_t key = mir_tlog_read_varint(in);
        const uint64_t rows = mir_tlog_read_varint(in);
        uint32_t i = 0;
        while (i <= options->rule_count && keys[i] != key) i++;
        if (i <= options->rule_count) made->rows_removed[i] = rows;
    }
    return MIR_OK;
}

static mir_status tally_parse(mir_view bytes, const mir_tlog_options *options,
                              mir_tlog_retention *made, mir_error *error)
{
    mir_tlog_reader in;
    mir_status status = mir_tlog_whole_parse(bytes, tally_magic, TALLY_VERSION,
                                             "the count of what retention removed", &in, error);
    if (status != MIR_OK) return status;
    made->since_ns = mir_tlog_read_signed(&in);
    made->removed_ns = mir_tlog_read_signed(&in);
    made->rows_removed_size = mir_tlog_read_varint(&in);
    made->rows_repeated = mir_tlog_read_varint(&in);
    made->rollups_made = mir_tlog_read_varint(&in);
    made->rollups_removed = mir_tlog_read_varint(&in);
    made->bytes_removed = mir_tlog_read_varint(&in);
    status = rules_parse(&in, options, made);
    if (status == MIR_OK && (in.failed || in.at != in.end)) status = MIR_E_CORRUPT;
    return status == MIR_OK
               ? MIR_OK
               : mir_error_set(error, status, "the count of what retention removed cannot be read");
}

mir_status mir_tlog_tally_read(mir_tlog *tlog, mir_error *error)
{
    const mir_tlog_retention fresh = {.since_ns = tlog->options.wall_ns()};
    char path[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", tlog->directory, tally_name);
    uint8_t *bytes = NULL;
    size_t size = 0;
    mir_tlog_retention made = {0};
    mir_status status =
        mir_tlog_file_load(tlog->files, path, TALLY_BYTES_MAX, &bytes, &size, error);
    if (status == MIR_OK || status == MIR_E_TOO_LARGE) {
        status = tally_parse(mir_view_of(bytes, size), &tlog->options, &made, error);
    }
    free(bytes);
    tlog->retention = status == MIR_OK ? made : fresh;
    if (status == MIR_E_UNSUPPORTED || status == MIR_E_NO_MEMORY) return status;
    if (status != MIR_OK && status != MIR_E_NOT_FOUND) {
        mir_log_warn("telemetry: %s; counting begins anew", error->text);
    }
    return MIR_OK;
}

void mir_tlog_tally_write(mir_tlog *tlog)
{
    const mir_tlog_options *options = &tlog->options;
    (void)pthread_mutex_lock(&tlog->mutex);
    const mir_tlog_retention now = tlog->retention;
    (void)pthread_mutex_unlock(&tlog->mutex);
    const uint8_t header[MIR_TLOG_WHOLE_HEADER_BYTES] = {0};
    mir_bytes out = {0};
    mir_bytes_append(&out, header, sizeof header);
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(now.since_ns));
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(now.removed_ns));
    mir_tlog_bytes_varint(&out, now.rows_removed_size);
    mir_tlog_bytes_varint(&out, now.rows_repeated);
    mir_tlog_bytes_varint(&out, now.rollups_made);
    mir_tlog_bytes_varint(&out, now.rollups_removed);
    mir_tlog_bytes_varint(&out, now.bytes_removed);
    mir_tlog_bytes_varint(&out, options->rule_count + UINT64_C(1));
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i <= options->rule_count && status == MIR_OK; i++) {
        uint64_t key;
        status = rule_key(options, i, &key);
        mir_tlog_bytes_varint(&out, key);
        mir_tlog_bytes_varint(&out, now.rows_removed[i]);
    }
    mir_error error = {{0}};
    if (status != MIR_OK || !mir_bytes_ok(&out)) {
        status = mir_error_set(&error, MIR_E_NO_MEMORY, "out of memory");
    } else {
        bool in_doubt;
        mir_tlog_whole_end(&out, tally_magic, TALLY_VERSION);
        status = mir_tlog_file_replace(tlog->files, tlog->directory, tally_name,
                                       mir_bytes_as_view(&out), &in_doubt, &error);
    }
    mir_bytes_free(&out);
    if (status == MIR_OK) return;
    mir_log_warn("telemetry: what retention has removed is not written down: %s", error.text);
}
