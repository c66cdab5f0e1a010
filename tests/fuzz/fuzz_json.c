/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks a message of the fixed schema and, by its highest bit, the direction: the
 * rest is a payload to write as JSON, or JSON to read. What was written must be read again, into
 * bytes that are written the same way. */
#include "fuzz_kinds.h"
#include "mir_json_codec.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* Two keys of a Struct may be the same on the wire, a path of a FieldMask may be one that its JSON
 * form cannot say: what contains them does not always come back. */
static bool comes_back(const mir_schema_message *message)
{
    return strcmp(message->name, "kinds.v1.WellKnown") != 0 &&
           strncmp(message->name, "google.protobuf.", 16) != 0;
}

static void write_and_read(const mir_schema_message *message, mir_view payload)
{
    mir_error error = {0};
    mir_bytes text = {0}, back = {0}, again = {0};
    for (int defaults = 0; defaults < 2; defaults++) {
        text.size = back.size = again.size = 0;
        if (mir_json_from_proto(message, payload, (mir_json_defaults)defaults, &text, &error) !=
            MIR_OK) {
            break;
        }
        if (mir_json_to_proto(message, mir_bytes_as_view(&text), &back, &error) != MIR_OK) {
            if (!comes_back(message)) break;
            (void)fprintf(stderr, "%.*s\n%s\n", (int)text.size, (const char *)text.data,
                          error.text);
            abort();
        }
        if (mir_json_from_proto(message, mir_bytes_as_view(&back), (mir_json_defaults)defaults,
                                &again, &error) != MIR_OK) {
            abort();
        }
        if (!mir_view_eq(mir_bytes_as_view(&text), mir_bytes_as_view(&again)) &&
            comes_back(message)) {
            (void)fprintf(stderr, "%.*s\n%.*s\n", (int)text.size, (const char *)text.data,
                          (int)again.size, (const char *)again.data);
            abort();
        }
    }
    mir_bytes_free(&text);
    mir_bytes_free(&back);
    mir_bytes_free(&again);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const mir_schema_message *message = fuzz_message(data[0] & 0x7f);
    mir_view input = mir_view_of(data + 1, size - 1);
    if ((data[0] & 0x80) == 0) {
        write_and_read(message, input);
        return 0;
    }
    mir_error error = {0};
    mir_bytes payload = {0}, text = {0};
    if (mir_json_to_proto(message, input, &payload, &error) == MIR_OK) {
        /* What was accepted is sound, and can be said again unless it is out of range of a form. */
        if (mir_json_check_proto(message, mir_bytes_as_view(&payload), &error) != MIR_OK) {
            (void)fprintf(stderr, "%s\n", error.text);
            abort();
        }
        write_and_read(message, mir_bytes_as_view(&payload));
    }
    if (mir_json_generic_text(input, &text, &error) == MIR_OK) {
        mir_bytes again = {0};
        if (mir_json_generic_text(mir_bytes_as_view(&text), &again, &error) != MIR_OK ||
            !mir_view_eq(mir_bytes_as_view(&text), mir_bytes_as_view(&again))) {
            abort();
        }
        mir_bytes_free(&again);
    }
    mir_bytes_free(&payload);
    mir_bytes_free(&text);
    return 0;
}
