/* SPDX-License-Identifier: Apache-2.0 */
/* mir_json_normal: properties of devices as JSON objects in one form, merged and compared.
 *
 * Why        People write properties as they like: names of fields in either form, numbers as
 *            strings, keys in any order. What is stored has one form, so that parts can be merged
 *            into it, and two values are compared by what they mean.
 * Ownership  Output is appended to the caller's mir_bytes and left as it was on failure. A json_t
 *            belongs to the caller.
 * Affinity   Any thread; nothing is shared.
 * Bounds     Those of mir_json_codec.h.
 * Errors     Those of mir_json_to_proto. Besides, a zero byte in a text and a message whose JSON is
 *            no object (google.protobuf.Timestamp) are MIR_E_INVALID: neither can be a property.
 * Source     Merging: RFC 7396. */
#ifndef MIR_JSON_NORMAL_H
#define MIR_JSON_NORMAL_H

#include <jansson.h>

#include "mir_json_codec.h"

/* The fields that the text gives, defaults and nulls included, and no others: by their JSON names
 * and in the form in which a protobuf message is written as JSON. Keys are sorted, without space.
 * `payload`, unless it is null, gets the message in bytes. */
MIR_MUST_CHECK mir_status mir_json_normalize(const mir_schema_message *message, mir_view text,
                                             mir_bytes *normal, mir_bytes *payload,
                                             mir_error *error);

/* The same form of a message in bytes; with MIR_JSON_DEFAULTS_EMITTED of the whole of it. */
MIR_MUST_CHECK mir_status mir_json_normal_of_proto(const mir_schema_message *message,
                                                   mir_view payload, mir_json_defaults defaults,
                                                   mir_bytes *normal, mir_error *error);

/* What a device starts with: every field with its zero, the first value of an enum, empty lists and
 * maps. Members of oneofs, types with a JSON form of their own and a type inside itself are left
 * out. */
MIR_MUST_CHECK mir_status mir_json_normal_default(const mir_schema_message *message,
                                                  mir_bytes *normal, mir_error *error);

/* Puts the members of `patch` into `object`: objects merge, null removes, everything else replaces.
 * `patch` stays as it is and shares nothing with the result. MIR_E_TOO_LARGE beyond
 * MIR_JSON_DEPTH_MAX levels, MIR_E_NO_MEMORY; `object` is then of no use. */
MIR_MUST_CHECK mir_status mir_json_merge(json_t *object, const json_t *patch);

/* Without a schema: numbers by value, a number and a string of it are the same, the order of keys
 * does not count. */
bool mir_json_same(const json_t *a, const json_t *b);
/* Whether every member of `part`, at any depth of objects, is the same in `whole`. */
bool mir_json_covers(const json_t *whole, const json_t *part);

/* Whether two texts say the same message: 1, 1.0 and "1" of an int64, an enum by name or by number,
 * a field with its default or without. What does not read as the message is compared without it. */
MIR_MUST_CHECK mir_status mir_json_same_message(const mir_schema_message *message, mir_view a,
                                                mir_view b, bool *same);

#endif
