/* SPDX-License-Identifier: Apache-2.0 */
/* mir_json_codec: messages of a schema as JSON text, and back.
 *
 * Why        People and web clients write commands and properties as JSON; devices speak protobuf.
 * Ownership  Output is appended to the caller's mir_bytes and left as it was on failure.
 * Affinity   Any thread; nothing is shared.
 * Bounds     MIR_JSON_DEPTH_MAX levels of messages, lists and objects; MIR_JSON_TEXT_BYTES_MAX of
 *            text in or out; the output's own size_max, if set.
 * Errors     MIR_E_INVALID with a text for the person who wrote the input, such as
 *            `unknown field "foo" in pkg.Msg`; MIR_E_TOO_LARGE; MIR_E_UNSUPPORTED for
 *            google.protobuf.Any and for groups; MIR_E_NO_MEMORY.
 * Source     The JSON mapping of Protocol Buffers 3, strict as its Go implementation: unknown and
 *            repeated names are refused, well-known types have their special forms. */
#ifndef MIR_JSON_CODEC_H
#define MIR_JSON_CODEC_H

#include <jansson.h>

#include "mir_bytes.h"
#include "mir_schema.h"

enum { MIR_JSON_DEPTH_MAX = 64, MIR_JSON_TEXT_BYTES_MAX = 16 << 20 };

typedef enum mir_json_defaults {
    MIR_JSON_DEFAULTS_OMITTED = 0,
    MIR_JSON_DEFAULTS_EMITTED, /* presence-less scalars, empty lists and maps */
} mir_json_defaults;

/* Compact text; fields in order of their declaration, map entries in order of their keys. */
MIR_MUST_CHECK mir_status mir_json_from_proto(const mir_schema_message *message, mir_view payload,
                                              mir_json_defaults defaults, mir_bytes *text,
                                              mir_error *error);
MIR_MUST_CHECK mir_status mir_json_to_proto(const mir_schema_message *message, mir_view text,
                                            mir_bytes *payload, mir_error *error);
/* Whether the bytes parse as the message: nesting, wire types, UTF-8 of strings, required fields.
 */
MIR_MUST_CHECK mir_status mir_json_check_proto(const mir_schema_message *message, mir_view payload,
                                               mir_error *error);

typedef enum mir_json_template_form {
    MIR_JSON_TEMPLATE_SAMPLES = 0, /* lists and maps show one sample element */
    MIR_JSON_TEMPLATE_DEFAULTS,    /* lists and maps are empty */
} mir_json_template_form;

/* The shape of a message for a person to fill in. A type inside itself is `{}`. */
MIR_MUST_CHECK mir_status mir_json_template(const mir_schema_message *message,
                                            mir_json_template_form form, mir_bytes *text,
                                            mir_error *error);

/* JSON without a schema: keys sorted bytewise, compact, shortest numbers (integral doubles without
 * fraction, exponent below 1e-6 and from 1e21), `<`, `>`, `&`, U+2028 and U+2029 escaped. */
MIR_MUST_CHECK mir_status mir_json_generic(const json_t *value, mir_bytes *text, mir_error *error);
/* The same from text; numbers pass through a double, as any reader of generic JSON may do. */
MIR_MUST_CHECK mir_status mir_json_generic_text(mir_view input, mir_bytes *text, mir_error *error);

#endif
