/* SPDX-License-Identifier: Apache-2.0 */
/* The first byte picks a message of the fixed schema, the rest is JSON. What reads as the message
 * has a normal form, unless it has a zero byte or is no object; that says the same message, has
 * itself as its normal form, and covers itself. */
#include "fuzz_kinds.h"
#include "mir_json_normal.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static void check(bool holds, mir_view text, const char *what)
{
    if (holds) return;
    (void)fprintf(stderr, "%s: %.*s\n", what, (int)text.size, (const char *)text.data);
    abort();
}

/* Two keys of a Struct, or the keys "0" and "-0" of a map, may be one on the wire, a path of a
 * FieldMask may be one that JSON cannot say. */
static bool is_exact(const mir_schema_message *message)
{
    return strcmp(message->name, "kinds.v1.WellKnown") != 0 &&
           strcmp(message->name, "kinds.v1.Maps") != 0 &&
           strncmp(message->name, "google.protobuf.", 16) != 0;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size == 0) return 0;
    const mir_schema_message *message = fuzz_message(data[0]);
    mir_view input = mir_view_of(data + 1, size - 1);
    mir_error error = {0};
    mir_bytes payload = {0}, normal = {0}, packed = {0}, again = {0};
    mir_status reads = mir_json_to_proto(message, input, &payload, NULL);
    mir_status status = mir_json_normalize(message, input, &normal, &packed, &error);
    if (reads != MIR_OK) check(status != MIR_OK, input, "normal form of what does not read");
    if (status == MIR_OK) {
        mir_view text = mir_bytes_as_view(&normal);
        check(mir_view_eq(mir_bytes_as_view(&payload), mir_bytes_as_view(&packed)), input, "bytes");
        bool same = false;
        mir_status compared = mir_json_same_message(message, input, text, &same);
        check(compared == MIR_OK, input, "comparison");
        check(same || !is_exact(message), text, "another message");
        compared = mir_json_normalize(message, text, &again, NULL, &error);
        check(compared == MIR_OK || !is_exact(message), text, error.text);
        if (compared == MIR_OK && is_exact(message))
            check(mir_view_eq(text, mir_bytes_as_view(&again)), text, "another normal form");
        json_t *value =
            json_loadb((const char *)text.data, text.size, JSON_DECODE_INT_AS_REAL, NULL);
        check(value != NULL && mir_json_covers(value, value), text, "does not cover itself");
        json_t *merged = json_object();
        mir_status merging = mir_json_merge(merged, value);
        check(merging == MIR_OK || merging == MIR_E_TOO_LARGE, text, "merge");
        json_decref(merged);
        json_decref(value);
    }
    mir_bytes_free(&payload);
    mir_bytes_free(&normal);
    mir_bytes_free(&packed);
    mir_bytes_free(&again);
    return 0;
}
