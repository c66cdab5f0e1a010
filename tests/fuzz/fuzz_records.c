/* SPDX-License-Identifier: Apache-2.0 */
/* A file of telemetry to import, whatever is in it: the first byte picks the form, the rest is the
 * file. What a row encodes to has to parse as the message. */
#include <sys/mman.h>
#include <unistd.h>

#include "fuzz_kinds.h"
#include "mir_assert.h"
#include "mir_cli_encode.h"
#include "mir_cli_records.h"
#include "mir_json_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void encode(const mir_schema_message *message, const mir_cli_record *record)
{
    mir_cli_encoder *encoder = NULL;
    mir_bytes payload = {0};
    mir_error error = {0};
    const char *cause = NULL;
    if (mir_cli_encoder_new(message, record->columns, record->count, &encoder, &error) != MIR_OK)
        return;
    if (mir_cli_encoder_row(encoder, record->time_ns, record->values, &payload, &cause, &error) !=
        MIR_OK) {
        MIR_ASSERT(cause != NULL && payload.size == 0);
    } else if (mir_json_check_proto(message, mir_bytes_as_view(&payload), &error) != MIR_OK) {
        (void)fprintf(stderr, "%s\n", error.text);
        abort();
    }
    mir_bytes_free(&payload);
    mir_cli_encoder_free(encoder);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static mir_schema *schema;
    mir_cli_records *records = NULL;
    mir_cli_record record;
    mir_error error = {0};
    const mir_schema_message *message = NULL;
    char path[64];
    if (size == 0) return 0;
    if (schema == NULL) schema = fuzz_schema("timed");
    if (mir_schema_find(schema, MIR_VIEW_LITERAL("timed.v1.All"), &message, NULL) != MIR_OK)
        abort();
    int fd = memfd_create("records", MFD_CLOEXEC);
    if (fd < 0 || write(fd, data + 1, size - 1) != (ssize_t)(size - 1)) abort();
    (void)snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
    if (mir_cli_records_open(path, (mir_cli_records_format)(data[0] % 3), 1, &records, &error) !=
        MIR_OK)
        abort();
    while (mir_cli_records_next(records, &record, &error) == MIR_OK)
        if (record.cause == NULL) encode(message, &record);
    mir_cli_records_close(records);
    (void)close(fd);
    return 0;
}
