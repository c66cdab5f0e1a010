/* SPDX-License-Identifier: Apache-2.0 */
/* From protobuf to JSON. The fields of a message may be encoded in any order and in several parts,
 * so each message is first taken apart into its pieces, which are then sorted by field. */
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_json_codec.h"
#include "mir_json_known.h"
#include "mir_json_text.h"
#include "mir_pbwire.h"
#include "mir_utf8.h"

enum {
    PIECES_MAX = 1 << 20,
    /* Fields looked at, over the whole text: bounds what small input can cost. */
    WORK_MAX = 1 << 27,
};

typedef struct writer {
    mir_bytes *text;
    size_t start;
    mir_json_defaults defaults;
    mir_error *error;
    uint32_t work;
    uint32_t depth;
} writer;

typedef struct piece {
    uint32_t field; /* index in the message */
    uint32_t order;
    bool is_packed;
    uint64_t value;
    mir_view bytes;
} piece;

typedef struct pieces {
    piece *list;
    uint32_t count;
    uint32_t capacity;
} pieces;

#define TRY(expression)                                                                            \
    do {                                                                                           \
        mir_status try_status = (expression);                                                      \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

static mir_status malformed(mir_error *error, const mir_schema_message *message)
{
    return mir_error_set(error, MIR_E_INVALID, "proto: cannot parse invalid wire-format data of %s",
                         message->name);
}

static mir_status no_memory(mir_error *error)
{
    return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory for JSON");
}

static mir_status add_work(writer *out, uint32_t work)
{
    if (work > WORK_MAX - out->work) {
        return mir_error_set(out->error, MIR_E_TOO_LARGE, "too many fields for JSON");
    }
    out->work += work;
    return MIR_OK;
}

static mir_status check_size(writer *out)
{
    if (!mir_bytes_ok(out->text)) return no_memory(out->error);
    if (out->text->size - out->start > MIR_JSON_TEXT_BYTES_MAX) {
        return mir_error_set(out->error, MIR_E_TOO_LARGE, "more than %d bytes of JSON",
                             MIR_JSON_TEXT_BYTES_MAX);
    }
    return MIR_OK;
}

/* Checking */

typedef struct checker {
    mir_error *error;
    uint32_t work;
} checker;

static bool packed_is_sound(mir_schema_kind kind, mir_view bytes)
{
    uint32_t type = mir_schema_wire_type(kind);
    if (type == MIR_PBWIRE_FIXED32) return bytes.size % 4 == 0;
    if (type == MIR_PBWIRE_FIXED64) return bytes.size % 8 == 0;
    mir_pbwire wire = mir_pbwire_of(bytes);
    uint64_t value;
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_varint(&wire, &value)) return false;
    }
    return true;
}

static mir_status check_required(checker *with, const mir_schema_message *message,
                                 const uint8_t *seen)
{
    for (uint32_t i = 0; i < message->field_count; i++) {
        if (!message->fields[i].is_required || seen[i] != 0) continue;
        return mir_error_set(with->error, MIR_E_INVALID, "proto: required field %s.%s not set",
                             message->name, message->fields[i].name);
    }
    return MIR_OK;
}

static mir_status check_message(checker *with, const mir_schema_message *message, mir_view payload,
                                uint32_t depth);

static mir_status check_fields(checker *with, const mir_schema_message *message, mir_view payload,
                               uint32_t depth, uint8_t *seen) // NOLINT(misc-no-recursion)
{
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) return malformed(with->error, message);
        const mir_schema_field *field = mir_schema_field_by_number(message, tag >> 3);
        if (field == NULL) continue;
        const uint32_t type = mir_schema_wire_type(field->kind);
        if ((tag & 7) == type && seen != NULL) seen[field - message->fields] = 1;
        if ((tag & 7) != MIR_PBWIRE_BYTES) continue;
        if (type != MIR_PBWIRE_BYTES) {
            if (field->is_repeated && !packed_is_sound(field->kind, bytes)) {
                return malformed(with->error, message);
            }
        } else if (field->kind == MIR_KIND_MESSAGE) {
            TRY(check_message(with, field->message, bytes, depth + 1));
        } else if (field->kind == MIR_KIND_STRING && !mir_utf8_valid(bytes)) {
            return mir_error_set(with->error, MIR_E_INVALID,
                                 "proto: field %s.%s contains invalid UTF-8", message->name,
                                 field->name);
        }
    }
    return seen == NULL ? MIR_OK : check_required(with, message, seen);
}

static mir_status check_message(checker *with, const mir_schema_message *message, mir_view payload,
                                uint32_t depth) // NOLINT(misc-no-recursion)
{
    if (depth >= MIR_JSON_DEPTH_MAX) {
        return mir_error_set(with->error, MIR_E_TOO_LARGE, "proto: %s is nested deeper than %d",
                             message->name, MIR_JSON_DEPTH_MAX);
    }
    uint8_t *seen = NULL;
    if (message->has_required) {
        if (message->field_count > WORK_MAX - with->work) {
            return mir_error_set(with->error, MIR_E_TOO_LARGE, "proto: too many fields");
        }
        with->work += message->field_count;
        seen = calloc(message->field_count, 1);
        if (seen == NULL) return no_memory(with->error);
    }
    mir_status status = check_fields(with, message, payload, depth, seen);
    free(seen);
    return status;
}

mir_status mir_json_check_proto(const mir_schema_message *message, mir_view payload,
                                mir_error *error)
{
    checker with = {.error = error};
    return check_message(&with, message, payload, 0);
}

/* Scalars */

static mir_status put_double(writer *out, double value, bool is_float)
{
    if (isnan(value)) {
        mir_bytes_text(out->text, "\"NaN\"");
    } else if (isinf(value)) {
        mir_bytes_text(out->text, value > 0 ? "\"Infinity\"" : "\"-Infinity\"");
    } else {
        mir_json_put_number(out->text, value, is_float);
    }
    return MIR_OK;
}

static void put_enum(writer *out, const mir_schema_field *field, int32_t number)
{
    if (mir_json_is_null_enum(field)) {
        mir_bytes_text(out->text, "null");
        return;
    }
    const mir_schema_enum *enumeration = field->enumeration;
    for (uint32_t i = 0; i < enumeration->value_count; i++) {
        const mir_schema_enum_value *value = &enumeration->values[i];
        if (value->number != number) continue;
        mir_json_put_string(out->text, mir_view_of(value->name, value->name_size),
                            MIR_JSON_ESCAPE_NEEDED);
        return;
    }
    mir_bytes_printf(out->text, "%" PRId32, number);
}

static mir_status put_scalar(writer *out, const mir_schema_field *field, uint64_t value,
                             mir_view bytes)
{
    mir_bytes *text = out->text;
    float narrow;
    double wide;
    uint32_t half = (uint32_t)value;
    switch (field->kind) {
    case MIR_KIND_DOUBLE: memcpy(&wide, &value, sizeof wide); return put_double(out, wide, false);
    case MIR_KIND_FLOAT:
        memcpy(&narrow, &half, sizeof narrow);
        return put_double(out, (double)narrow, true);
    case MIR_KIND_INT64:
    case MIR_KIND_SFIXED64: mir_bytes_printf(text, "\"%" PRId64 "\"", (int64_t)value); break;
    case MIR_KIND_UINT64:
    case MIR_KIND_FIXED64: mir_bytes_printf(text, "\"%" PRIu64 "\"", value); break;
    case MIR_KIND_SINT64:
        mir_bytes_printf(text, "\"%" PRId64 "\"", mir_pbwire_zigzag(value));
        break;
    case MIR_KIND_INT32:
    case MIR_KIND_SFIXED32: mir_bytes_printf(text, "%" PRId32, (int32_t)value); break;
    case MIR_KIND_UINT32:
    case MIR_KIND_FIXED32: mir_bytes_printf(text, "%" PRIu32, half); break;
    case MIR_KIND_SINT32:
        mir_bytes_printf(text, "%" PRId32, (int32_t)mir_pbwire_zigzag(half));
        break;
    case MIR_KIND_BOOL: mir_bytes_text(text, value != 0 ? "true" : "false"); break;
    case MIR_KIND_STRING: mir_json_put_string(text, bytes, MIR_JSON_ESCAPE_NEEDED); break;
    case MIR_KIND_BYTES:
        mir_bytes_u8(text, '"');
        mir_json_put_base64(text, bytes);
        mir_bytes_u8(text, '"');
        break;
    case MIR_KIND_ENUM:
        TRY(add_work(out, field->enumeration->value_count));
        put_enum(out, field, (int32_t)value);
        break;
    case MIR_KIND_GROUP:
    case MIR_KIND_MESSAGE: break;
    }
    return MIR_OK;
}

/* Well-known types. Their shapes are those of the protobuf project, whatever the schema says. */

static mir_status put_message(writer *out, const mir_schema_message *message, mir_view payload);
static mir_status put_any_value(writer *out, mir_view payload);

static mir_status put_instant(writer *out, const mir_schema_message *message, mir_view payload,
                              bool is_duration)
{
    uint64_t parts[3] = {0};
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) return malformed(out->error, message);
        if ((tag & 7) == MIR_PBWIRE_VARINT && tag >> 3 <= 2) parts[tag >> 3] = value;
    }
    bool is_sound = is_duration
                        ? mir_json_put_duration(out->text, (int64_t)parts[1], (int32_t)parts[2])
                        : mir_json_put_time(out->text, (int64_t)parts[1], (int32_t)parts[2]);
    if (is_sound) return MIR_OK;
    return mir_error_set(out->error, MIR_E_INVALID, "proto: %s: seconds or nanos out of range",
                         message->name);
}

static mir_status put_field_mask(writer *out, const mir_schema_message *message, mir_view payload)
{
    bool is_first = true;
    mir_bytes joined = {0};
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            mir_bytes_free(&joined);
            return malformed(out->error, message);
        }
        if (tag != mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES)) continue;
        if (!is_first) mir_bytes_u8(&joined, ',');
        is_first = false;
        bool is_upper = false;
        for (size_t i = 0; i < bytes.size; i++) {
            uint8_t byte = bytes.data[i];
            bool is_lower = byte >= 'a' && byte <= 'z';
            if (byte != '_') {
                mir_bytes_u8(&joined, is_upper && is_lower ? (uint8_t)(byte - 32) : byte);
            }
            is_upper = byte == '_';
        }
    }
    mir_json_put_string(out->text, mir_bytes_as_view(&joined), MIR_JSON_ESCAPE_NEEDED);
    bool is_sound = mir_bytes_ok(&joined);
    mir_bytes_free(&joined);
    return is_sound ? MIR_OK : no_memory(out->error);
}

static mir_status put_struct(writer *out, mir_view payload) // NOLINT(misc-no-recursion)
{
    bool is_first = true;
    mir_bytes_u8(out->text, '{');
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view entry, key = {NULL, 0}, content = {NULL, 0}, bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &entry)) goto malformed;
        if (tag != mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES)) continue;
        mir_pbwire inner = mir_pbwire_of(entry);
        while (mir_pbwire_more(&inner)) {
            if (!mir_pbwire_next(&inner, &tag, &value, &bytes)) goto malformed;
            if (tag == mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES)) key = bytes;
            if (tag == mir_pbwire_make_tag(2, MIR_PBWIRE_BYTES)) content = bytes;
        }
        if (!is_first) mir_bytes_u8(out->text, ',');
        is_first = false;
        mir_json_put_string(out->text, key, MIR_JSON_ESCAPE_NEEDED);
        mir_bytes_u8(out->text, ':');
        TRY(put_any_value(out, content));
    }
    mir_bytes_u8(out->text, '}');
    return check_size(out);
malformed:
    return mir_error_set(out->error, MIR_E_INVALID, "proto: google.protobuf.Struct is malformed");
}

static mir_status put_list_value(writer *out, mir_view payload) // NOLINT(misc-no-recursion)
{
    bool is_first = true;
    mir_bytes_u8(out->text, '[');
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return mir_error_set(out->error, MIR_E_INVALID,
                                 "proto: google.protobuf.ListValue is malformed");
        }
        if (tag != mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES)) continue;
        if (!is_first) mir_bytes_u8(out->text, ',');
        is_first = false;
        TRY(put_any_value(out, bytes));
    }
    mir_bytes_u8(out->text, ']');
    return check_size(out);
}

static mir_status put_any_value_within(writer *out, mir_view payload) // NOLINT(misc-no-recursion)
{
    uint32_t set = 0, tag;
    uint64_t number = 0, value;
    mir_view content = {NULL, 0}, bytes;
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) {
            return mir_error_set(out->error, MIR_E_INVALID,
                                 "proto: google.protobuf.Value is malformed");
        }
        if (tag >> 3 < 1 || tag >> 3 > 6) continue;
        set = tag;
        number = value;
        content = bytes;
    }
    double wide;
    switch (set) {
    case 2 << 3 | MIR_PBWIRE_FIXED64:
        memcpy(&wide, &number, sizeof wide);
        if (!isfinite(wide)) {
            return mir_error_set(out->error, MIR_E_INVALID,
                                 "proto: google.protobuf.Value cannot be infinite or NaN");
        }
        mir_json_put_number(out->text, wide, false);
        return MIR_OK;
    case 3 << 3 | MIR_PBWIRE_BYTES:
        mir_json_put_string(out->text, content, MIR_JSON_ESCAPE_NEEDED);
        return MIR_OK;
    case 4 << 3 | MIR_PBWIRE_VARINT:
        mir_bytes_text(out->text, number != 0 ? "true" : "false");
        return MIR_OK;
    case 5 << 3 | MIR_PBWIRE_BYTES: return put_struct(out, content);
    case 6 << 3 | MIR_PBWIRE_BYTES: return put_list_value(out, content);
    default: mir_bytes_text(out->text, "null"); return MIR_OK;
    }
}

static mir_status enter(writer *out, const char *what)
{
    if (out->depth == MIR_JSON_DEPTH_MAX) {
        return mir_error_set(out->error, MIR_E_TOO_LARGE, "proto: %s is nested deeper than %d",
                             what, MIR_JSON_DEPTH_MAX);
    }
    out->depth++;
    return MIR_OK;
}

static mir_status put_any_value(writer *out, mir_view payload) // NOLINT(misc-no-recursion)
{
    TRY(enter(out, "google.protobuf.Value"));
    TRY(put_any_value_within(out, payload));
    out->depth--;
    return MIR_OK;
}

static mir_status put_wrapper(writer *out, const mir_schema_message *message, mir_view payload)
{
    const mir_schema_field *field = mir_schema_field_by_number(message, 1);
    uint64_t kept = 0;
    mir_view kept_bytes = {NULL, 0};
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        uint64_t value;
        mir_view bytes;
        if (!mir_pbwire_next(&wire, &tag, &value, &bytes)) return malformed(out->error, message);
        if (tag != mir_pbwire_make_tag(1, mir_schema_wire_type(field->kind))) continue;
        kept = value;
        kept_bytes = bytes;
    }
    return put_scalar(out, field, kept, kept_bytes);
}

/* Messages */

static mir_status add_piece(writer *out, pieces *to, piece added)
{
    if (to->count == PIECES_MAX) {
        return mir_error_set(out->error, MIR_E_TOO_LARGE, "more than %d values in one message",
                             PIECES_MAX);
    }
    if (to->count == to->capacity) {
        uint32_t capacity = to->capacity == 0 ? 16 : to->capacity * 2;
        piece *grown = realloc(to->list, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(out->error);
        to->list = grown;
        to->capacity = capacity;
    }
    to->list[to->count++] = added;
    return MIR_OK;
}

/* The part of a varint that counts for a type that is narrower. */
static uint64_t significant(mir_schema_kind kind, uint64_t value)
{
    switch (kind) {
    case MIR_KIND_INT32:
    case MIR_KIND_UINT32:
    case MIR_KIND_SINT32:
    case MIR_KIND_ENUM: return (uint32_t)value;
    case MIR_KIND_BOOL: return value != 0;
    default: return value;
    }
}

static mir_status take_apart(writer *out, const mir_schema_message *message, mir_view payload,
                             pieces *to)
{
    mir_pbwire wire = mir_pbwire_of(payload);
    while (mir_pbwire_more(&wire)) {
        uint32_t tag;
        piece found = {.order = to->count};
        if (!mir_pbwire_next(&wire, &tag, &found.value, &found.bytes)) {
            return malformed(out->error, message);
        }
        const mir_schema_field *field = mir_schema_field_by_number(message, tag >> 3);
        if (field == NULL || field->kind == MIR_KIND_GROUP) continue;
        uint32_t type = mir_schema_wire_type(field->kind);
        found.is_packed =
            field->is_repeated && type != MIR_PBWIRE_BYTES && (tag & 7) == MIR_PBWIRE_BYTES;
        if ((tag & 7) != type && !found.is_packed) continue;
        if (found.is_packed && found.bytes.size == 0) continue;
        found.value = significant(field->kind, found.value);
        found.field = (uint32_t)(field - message->fields);
        TRY(add_piece(out, to, found));
    }
    return MIR_OK;
}

/* Leaves the pieces of that member of each oneof that was set last, and of them only those that
 * came after any other member. */
static mir_status settle_oneofs(writer *out, const mir_schema_message *message, pieces *of)
{
    if (message->oneof_count == 0 || of->count == 0) return MIR_OK;
    TRY(add_work(out, message->oneof_count));
    uint32_t *members = calloc(message->oneof_count, sizeof *members); /* 1 + field */
    if (members == NULL) return no_memory(out->error);
    uint32_t kept = of->count;
    for (uint32_t i = of->count; i-- > 0;) {
        int32_t oneof = message->fields[of->list[i].field].oneof;
        if (oneof >= 0) {
            uint32_t *member = &members[oneof];
            if (*member == 0) *member = 1 + of->list[i].field;
            if (*member != 1 + of->list[i].field) {
                *member = UINT32_MAX; /* whatever came before is gone */
                continue;
            }
        }
        of->list[--kept] = of->list[i];
    }
    free(members);
    memmove(of->list, of->list + kept, (of->count - kept) * sizeof *of->list);
    of->count -= kept;
    return MIR_OK;
}

static int compare_pieces(const void *a, const void *b)
{
    const piece *left = a, *right = b;
    if (left->field != right->field) return left->field < right->field ? -1 : 1;
    return left->order < right->order ? -1 : left->order > right->order;
}

static mir_status put_singular(writer *out, const mir_schema_field *field, const piece *list,
                               uint32_t count) // NOLINT(misc-no-recursion)
{
    if (field->message == NULL) {
        return put_scalar(out, field, list[count - 1].value, list[count - 1].bytes);
    }
    if (count == 1) return put_message(out, field->message, list[0].bytes);
    /* The parts of a message merge when they are decoded as one. */
    mir_bytes joined = {0};
    for (uint32_t i = 0; i < count; i++) mir_bytes_view(&joined, list[i].bytes);
    mir_status status = mir_bytes_ok(&joined)
                            ? put_message(out, field->message, mir_bytes_as_view(&joined))
                            : no_memory(out->error);
    mir_bytes_free(&joined);
    return status;
}

static mir_status put_packed(writer *out, const mir_schema_message *message,
                             const mir_schema_field *field, mir_view bytes, bool *is_first)
{
    mir_pbwire wire = mir_pbwire_of(bytes);
    while (mir_pbwire_more(&wire)) {
        uint64_t value = 0;
        uint32_t narrow = 0;
        bool is_sound;
        switch (mir_schema_wire_type(field->kind)) {
        case MIR_PBWIRE_FIXED32:
            is_sound = mir_pbwire_fixed32(&wire, &narrow);
            value = narrow;
            break;
        case MIR_PBWIRE_FIXED64: is_sound = mir_pbwire_fixed64(&wire, &value); break;
        default: is_sound = mir_pbwire_varint(&wire, &value); break;
        }
        if (!is_sound) return malformed(out->error, message);
        if (!*is_first) mir_bytes_u8(out->text, ',');
        *is_first = false;
        TRY(put_scalar(out, field, value, (mir_view){NULL, 0}));
        TRY(check_size(out));
    }
    return MIR_OK;
}

static mir_status put_list(writer *out, const mir_schema_message *message,
                           const mir_schema_field *field, const piece *list,
                           uint32_t count) // NOLINT(misc-no-recursion)
{
    bool is_first = true;
    mir_bytes_u8(out->text, '[');
    for (uint32_t i = 0; i < count; i++) {
        if (list[i].is_packed) {
            TRY(put_packed(out, message, field, list[i].bytes, &is_first));
            continue;
        }
        if (!is_first) mir_bytes_u8(out->text, ',');
        is_first = false;
        TRY(put_singular(out, field, &list[i], 1));
        TRY(check_size(out));
    }
    mir_bytes_u8(out->text, ']');
    return MIR_OK;
}

typedef struct entry {
    piece key;
    pieces value;
    uint32_t order;
    const mir_schema_field *key_field;
} entry;

static int64_t signed_key(const entry *of)
{
    switch (of->key_field->kind) {
    case MIR_KIND_SINT32:
    case MIR_KIND_SINT64: return mir_pbwire_zigzag(of->key.value);
    case MIR_KIND_INT32:
    case MIR_KIND_SFIXED32: return (int32_t)of->key.value;
    default: return (int64_t)of->key.value;
    }
}

static int compare_keys(const entry *left, const entry *right)
{
    switch (left->key_field->kind) {
    case MIR_KIND_STRING: {
        mir_view a = left->key.bytes, b = right->key.bytes;
        size_t size = a.size < b.size ? a.size : b.size;
        int order = size == 0 ? 0 : memcmp(a.data, b.data, size);
        return order != 0 ? order : a.size < b.size ? -1 : a.size > b.size;
    }
    case MIR_KIND_BOOL: return (left->key.value != 0) - (right->key.value != 0);
    case MIR_KIND_UINT32:
    case MIR_KIND_UINT64:
    case MIR_KIND_FIXED32:
    case MIR_KIND_FIXED64:
        return left->key.value < right->key.value ? -1 : left->key.value > right->key.value;
    default: {
        int64_t a = signed_key(left), b = signed_key(right);
        return a < b ? -1 : a > b;
    }
    }
}

static int compare_entries(const void *a, const void *b)
{
    const entry *left = a, *right = b;
    int order = compare_keys(left, right);
    if (order != 0) return order;
    return left->order < right->order ? -1 : left->order > right->order;
}

static mir_status take_entry(writer *out, const mir_schema_field *field, mir_view bytes,
                             entry *taken)
{
    pieces parts = {0};
    mir_status status = take_apart(out, field->message, bytes, &parts);
    for (uint32_t i = 0; i < parts.count && status == MIR_OK; i++) {
        if (field->message->fields[parts.list[i].field].number == 1) {
            taken->key = parts.list[i];
        } else {
            status = add_piece(out, &taken->value, parts.list[i]);
        }
    }
    free(parts.list);
    return status;
}

static mir_status put_entry(writer *out, const entry *from,
                            const mir_schema_field *value) // NOLINT(misc-no-recursion)
{
    static const piece unset;
    if (from->key_field->kind == MIR_KIND_STRING) {
        mir_json_put_string(out->text, from->key.bytes, MIR_JSON_ESCAPE_NEEDED);
    } else {
        /* 64-bit numbers come with quotes already. */
        size_t start = out->text->size;
        TRY(put_scalar(out, from->key_field, from->key.value, from->key.bytes));
        if (mir_bytes_ok(out->text) && out->text->data[start] != '"') {
            mir_bytes_u8(out->text, '"');
            if (mir_bytes_ok(out->text)) {
                memmove(out->text->data + start + 1, out->text->data + start,
                        out->text->size - start - 1);
                out->text->data[start] = '"';
            }
            mir_bytes_u8(out->text, '"');
        }
    }
    mir_bytes_u8(out->text, ':');
    if (from->value.count == 0) return put_singular(out, value, &unset, 1);
    return put_singular(out, value, from->value.list, from->value.count);
}

static mir_status put_map(writer *out, const mir_schema_field *field, const piece *list,
                          uint32_t count) // NOLINT(misc-no-recursion)
{
    mir_status status = MIR_OK;
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    entry *entries = calloc((size_t)count + 1, sizeof *entries);
    if (entries == NULL) return no_memory(out->error);
    for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
        entries[i].order = i;
        entries[i].key_field = mir_schema_field_by_number(field->message, 1);
        status = take_entry(out, field, list[i].bytes, &entries[i]);
    }
    if (status == MIR_OK) {
        qsort(entries, count, sizeof *entries, compare_entries);
        bool is_first = true;
        mir_bytes_u8(out->text, '{');
        for (uint32_t i = 0; i < count && status == MIR_OK; i++) {
            if (i + 1 < count && compare_keys(&entries[i], &entries[i + 1]) == 0) continue;
            if (!is_first) mir_bytes_u8(out->text, ',');
            is_first = false;
            status = put_entry(out, &entries[i], value);
            if (status == MIR_OK) status = check_size(out);
        }
        mir_bytes_u8(out->text, '}');
    }
    for (uint32_t i = 0; i < count; i++) free(entries[i].value.list);
    free(entries);
    return status;
}

static bool is_default(const mir_schema_field *field, const piece *last)
{
    /* -0.0 is not the default of a number: its bits are not zero. */
    bool is_bytes = field->kind == MIR_KIND_STRING || field->kind == MIR_KIND_BYTES;
    return !field->has_presence && (is_bytes ? last->bytes.size == 0 : last->value == 0);
}

static mir_status put_field(writer *out, const mir_schema_message *message,
                            const mir_schema_field *field, const piece *list, uint32_t count,
                            bool *is_first) // NOLINT(misc-no-recursion)
{
    static const piece unset;
    if (field->kind == MIR_KIND_GROUP) return MIR_OK;
    if (count == 0 || (!field->is_repeated && is_default(field, &list[count - 1]))) {
        if (out->defaults == MIR_JSON_DEFAULTS_OMITTED || field->has_presence) return MIR_OK;
        if (!field->is_repeated) list = &unset, count = 1;
    }
    if (!*is_first) mir_bytes_u8(out->text, ',');
    *is_first = false;
    mir_json_put_string(out->text, mir_view_of(field->json_name, field->json_name_size),
                        MIR_JSON_ESCAPE_NEEDED);
    mir_bytes_u8(out->text, ':');
    if (field->is_map) {
        TRY(put_map(out, field, list, count));
    } else if (field->is_repeated) {
        TRY(put_list(out, message, field, list, count));
    } else {
        TRY(put_singular(out, field, list, count));
    }
    return check_size(out);
}

static mir_status put_fields(writer *out, const mir_schema_message *message,
                             const pieces *of) // NOLINT(misc-no-recursion)
{
    bool is_first = true;
    uint32_t at = 0;
    mir_bytes_u8(out->text, '{');
    uint32_t next = 0;
    while (at < of->count || out->defaults == MIR_JSON_DEFAULTS_EMITTED) {
        /* With defaults every field has its turn, otherwise those with a value. */
        uint32_t index = out->defaults == MIR_JSON_DEFAULTS_EMITTED ? next++ : of->list[at].field;
        if (index >= message->field_count) break;
        uint32_t end = at;
        while (end < of->count && of->list[end].field == index) end++;
        const piece *list = of->list == NULL ? NULL : of->list + at;
        TRY(put_field(out, message, &message->fields[index], list, end - at, &is_first));
        at = end;
    }
    mir_bytes_u8(out->text, '}');
    return check_size(out);
}

static mir_status put_ordinary(writer *out, const mir_schema_message *message,
                               mir_view payload) // NOLINT(misc-no-recursion)
{
    if (out->defaults == MIR_JSON_DEFAULTS_EMITTED) TRY(add_work(out, message->field_count));
    pieces parts = {0};
    mir_status status = take_apart(out, message, payload, &parts);
    if (status == MIR_OK) status = settle_oneofs(out, message, &parts);
    if (status == MIR_OK) {
        if (parts.count > 1) qsort(parts.list, parts.count, sizeof *parts.list, compare_pieces);
        status = put_fields(out, message, &parts);
    }
    free(parts.list);
    return status;
}

static mir_status put_message(writer *out, const mir_schema_message *message,
                              mir_view payload) // NOLINT(misc-no-recursion)
{
    mir_status status = MIR_OK;
    TRY(enter(out, message->name));
    switch (mir_json_known_of(message)) {
    case MIR_KNOWN_TIMESTAMP: status = put_instant(out, message, payload, false); break;
    case MIR_KNOWN_DURATION: status = put_instant(out, message, payload, true); break;
    case MIR_KNOWN_FIELD_MASK: status = put_field_mask(out, message, payload); break;
    case MIR_KNOWN_STRUCT: status = put_struct(out, payload); break;
    case MIR_KNOWN_VALUE: status = put_any_value_within(out, payload); break;
    case MIR_KNOWN_LIST: status = put_list_value(out, payload); break;
    case MIR_KNOWN_WRAPPER: status = put_wrapper(out, message, payload); break;
    case MIR_KNOWN_ANY:
        status = mir_error_set(out->error, MIR_E_UNSUPPORTED,
                               "proto: google.protobuf.Any is not supported in JSON");
        break;
    case MIR_KNOWN_NONE: status = put_ordinary(out, message, payload); break;
    }
    out->depth--;
    return status;
}

mir_status mir_json_from_proto(const mir_schema_message *message, mir_view payload,
                               mir_json_defaults defaults, mir_bytes *text, mir_error *error)
{
    TRY(mir_json_check_proto(message, payload, error));
    writer out = {.text = text, .start = text->size, .defaults = defaults, .error = error};
    mir_status status = put_message(&out, message, payload);
    if (status == MIR_OK) status = check_size(&out);
    /* A schema with a google.protobuf.Value of its own may have let other bytes through. */
    if (status == MIR_OK && !mir_utf8_valid(mir_view_from(mir_bytes_as_view(text), out.start))) {
        status = malformed(error, message);
    }
    if (status != MIR_OK) {
        text->size = out.start;
        text->failed = false;
    }
    return status;
}
