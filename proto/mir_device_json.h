/* SPDX-License-Identifier: Apache-2.0 */
/* mir_device_json: a device, and the generic objects of its properties, as JSON.
 *
 * Why        Event payloads, the output of the command line and its input files share one form.
 * Ownership  Text goes into the caller's mir_bytes; messages belong to the arena; a json_t belongs
 * to the caller (json_decref). Affinity   Any thread. Units      Keys are sorted bytewise; numbers
 * have their shortest form; `<`, `>`, `&`, U+2028 and U+2029 are escaped. Compact, or with
 * MIR_JSON_PRETTY two spaces a level. Bounds     Input: MIR_DEVICE_JSON_BYTES_MAX bytes,
 * MIR_DEVICE_JSON_DEPTH_MAX levels. Errors     Reading names the field and what it must be.
 * Writing: mir_bytes_ok. */
#ifndef MIR_DEVICE_JSON_H
#define MIR_DEVICE_JSON_H

#include <jansson.h>

#include "mir_api/v1/core.pb-c.h"
#include "mir_arena.h"
#include "mir_bytes.h"
#include "mir_status.h"
#include "mir_view.h"

enum { MIR_DEVICE_JSON_BYTES_MAX = 16 * 1024 * 1024, MIR_DEVICE_JSON_DEPTH_MAX = 100 };

typedef enum mir_json_style { MIR_JSON_COMPACT, MIR_JSON_PRETTY } mir_json_style;

/* Appends the device. Absent parts are written as the form says: meta, spec, properties, status,
 * status.schema and status.properties are always there; empty and unset values are not. */
void mir_device_json_write(const MirApi__V1__Device *device, mir_json_style style, mir_bytes *out);

/* One device of an input file. Unknown fields are refused, null is the same as absent, sub-messages
 * are always present afterwards. Bytes behind the object are refused. */
MIR_MUST_CHECK mir_status mir_device_json_read(mir_view text, mir_arena *arena,
                                               MirApi__V1__Device **device, mir_error *error);
/* From a value that was parsed already, for files that hold several. */
MIR_MUST_CHECK mir_status mir_device_json_read_value(const json_t *value, mir_arena *arena,
                                                     MirApi__V1__Device **device, mir_error *error);
/* What a create request takes of the same form: meta and spec. The rest is checked and left out. */
MIR_MUST_CHECK mir_status mir_device_json_read_new(mir_view text, mir_arena *arena,
                                                   MirApi__V1__NewDevice **device,
                                                   mir_error *error);

/* Generic JSON. Duplicate keys are refused. */
MIR_MUST_CHECK mir_status mir_json_parse(mir_view text, json_t **value, mir_error *error);
void mir_json_write(const json_t *value, mir_json_style style, mir_bytes *out);
/* One JSON string with its quotes; bytes that are not UTF-8 become U+FFFD. */
void mir_json_write_string(mir_view text, mir_bytes *out);
/* NaN and infinities, which JSON has no number for, become "NaN", "Infinity", "-Infinity". */
void mir_json_write_number(double number, mir_bytes *out);

/* google.protobuf.Struct. A null pointer is an empty object. */
void mir_struct_write(const Google__Protobuf__Struct *object, mir_json_style style, mir_bytes *out);
MIR_MUST_CHECK mir_status mir_struct_to_json(const Google__Protobuf__Struct *object,
                                             json_t **value);
/* `value` is an object. */
MIR_MUST_CHECK mir_status mir_struct_from_json(const json_t *value, mir_arena *arena,
                                               Google__Protobuf__Struct **object);
/* Empty text is an empty object. */
MIR_MUST_CHECK mir_status mir_struct_parse(mir_view text, mir_arena *arena,
                                           Google__Protobuf__Struct **object, mir_error *error);

#endif
