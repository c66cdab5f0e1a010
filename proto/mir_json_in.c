/* SPDX-License-Identifier: Apache-2.0 */
/* From JSON to protobuf, in one pass over the text: each value is encoded as soon as it is read.
 * The text is read by hand, since JSON libraries lose integers over 63 bits and the digits of
 * numbers, both of which count here. */
#include <inttypes.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_json_codec.h"
#include "mir_json_known.h"
#include "mir_json_text.h"
#include "mir_pbwire.h"
#include "mir_utf8.h"

typedef struct reader {
    const uint8_t *start;
    const uint8_t *at;
    const uint8_t *end;
    mir_bytes *out;
    mir_error *error;
    mir_arena arena; /* strings that had escapes */
    uint32_t depth;
    uint32_t work; /* names of enum values compared */
} reader;

enum { WORK_MAX = 1 << 28 };

#define TRY(expression)                                                                            \
    do {                                                                                           \
        mir_status try_status = (expression);                                                      \
        if (try_status != MIR_OK) return try_status;                                               \
    } while (0)

/* The text, after the place in the input. */
static MIR_PRINTF(3, 4) mir_status
    refuse(const reader *in, const uint8_t *place, const char *format, ...)
{
    if (in->error == NULL) return MIR_E_INVALID;
    unsigned line = 1, column = 1;
    for (const uint8_t *at = in->start; at < place; at++) {
        column = *at == '\n' ? 1 : column + 1;
        line += *at == '\n';
    }
    char text[384];
    va_list args;
    va_start(args, format);
    (void)vsnprintf(text, sizeof text, format, args);
    va_end(args);
    return mir_error_set(in->error, MIR_E_INVALID, "(line %u:%u): %s", line, column, text);
}

static mir_status no_memory(const reader *in)
{
    return mir_error_set(in->error, MIR_E_NO_MEMORY, "out of memory for JSON");
}

/* Bytes of the input in an error text. */
static mir_view shown(mir_view view)
{
    if (view.size > 80) {
        view.size = 80;
        while (view.size > 0 && (view.data[view.size] & 0xc0) == 0x80) view.size--;
    }
    return view;
}

/* Tokens */

static void skip_space(reader *in)
{
    while (in->at < in->end &&
           (*in->at == ' ' || *in->at == '\t' || *in->at == '\n' || *in->at == '\r')) {
        in->at++;
    }
}

/* The first byte of the next token, 0 at the end. */
static uint8_t peek(reader *in)
{
    skip_space(in);
    return in->at < in->end ? *in->at : 0;
}

static mir_status unexpected(reader *in)
{
    skip_space(in);
    if (in->at == in->end) return refuse(in, in->at, "syntax error: unexpected end of text");
    const uint8_t *end = in->at + 1;
    bool is_word = (*in->at | 32) >= 'a' && (*in->at | 32) <= 'z';
    while (is_word && end < in->end && (*end | 32) >= 'a' && (*end | 32) <= 'z') end++;
    while (end < in->end && (*end & 0xc0) == 0x80) end++;
    mir_view token = shown(mir_view_of(in->at, (size_t)(end - in->at)));
    return refuse(in, in->at, "syntax error: unexpected token %.*s", MIR_VIEW_ARGS(token));
}

static mir_status expect(reader *in, char byte)
{
    if (peek(in) != (uint8_t)byte) return unexpected(in);
    in->at++;
    return MIR_OK;
}

static bool take_word(reader *in, const char *word)
{
    size_t size = strlen(word);
    if ((size_t)(in->end - in->at) < size || memcmp(in->at, word, size) != 0) return false;
    if ((size_t)(in->end - in->at) > size) {
        uint8_t next = in->at[size];
        if ((next | 32) >= 'a' && (next | 32) <= 'z') return false;
    }
    in->at += size;
    return true;
}

static bool take_hex(const uint8_t *at, const uint8_t *end, uint32_t *value)
{
    if (end - at < 4) return false;
    *value = 0;
    for (int i = 0; i < 4; i++) {
        uint8_t byte = at[i];
        uint32_t digit;
        if (byte >= '0' && byte <= '9') {
            digit = byte - '0';
        } else if ((byte | 32) >= 'a' && (byte | 32) <= 'f') {
            digit = (byte | 32) - 'a' + 10u;
        } else {
            return false;
        }
        *value = *value << 4 | digit;
    }
    return true;
}

/* Behind `\u`, a pair of surrogates as one. Null when it is none. */
static const uint8_t *take_point(const uint8_t *at, const uint8_t *end, uint32_t *point)
{
    uint32_t low;
    if (!take_hex(at, end, point)) return NULL;
    at += 4;
    if (*point < 0xd800 || *point > 0xdfff) return at;
    if (*point >= 0xdc00 || end - at < 2 || at[0] != '\\' || at[1] != 'u' ||
        !take_hex(at + 2, end, &low) || low < 0xdc00 || low > 0xdfff) {
        return NULL;
    }
    *point = 0x10000 + ((*point - 0xd800) << 10) + (low - 0xdc00);
    return at + 6;
}

static uint8_t *put_point(uint8_t *to, uint32_t point)
{
    if (point < 0x80) {
        *to++ = (uint8_t)point;
    } else if (point < 0x800) {
        *to++ = (uint8_t)(0xc0 | point >> 6);
        *to++ = (uint8_t)(0x80 | (point & 63));
    } else if (point < 0x10000) {
        *to++ = (uint8_t)(0xe0 | point >> 12);
        *to++ = (uint8_t)(0x80 | (point >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (point & 63));
    } else {
        *to++ = (uint8_t)(0xf0 | point >> 18);
        *to++ = (uint8_t)(0x80 | (point >> 12 & 63));
        *to++ = (uint8_t)(0x80 | (point >> 6 & 63));
        *to++ = (uint8_t)(0x80 | (point & 63));
    }
    return to;
}

static mir_status unescape(reader *in, mir_view raw, mir_view *value)
{
    /* No escape grows: the shortest form of a point is never longer than its escape. */
    uint8_t *to = mir_arena_alloc(&in->arena, raw.size + 1);
    if (to == NULL) return no_memory(in);
    *value = mir_view_of(to, 0);
    const uint8_t *at = raw.data, *end = raw.data + raw.size;
    while (at < end) {
        if (*at != '\\') {
            *to++ = *at++;
            continue;
        }
        static const char names[] = "\"\\/bfnrt", meanings[] = "\"\\/\b\f\n\r\t";
        const uint8_t *escape = at++;
        const char *name = *at == 0 ? NULL : strchr(names, *at);
        uint32_t point = 0;
        if (name != NULL) {
            *to++ = (uint8_t)meanings[name - names];
            at++;
        } else if (*at == 'u' && (at = take_point(at + 1, end, &point)) != NULL) {
            to = put_point(to, point);
        } else {
            return refuse(in, escape, "syntax error: invalid escape in a string");
        }
    }
    value->size = (size_t)(to - value->data);
    return MIR_OK;
}

static mir_status take_string(reader *in, mir_view *value)
{
    if (peek(in) != '"') return unexpected(in);
    const uint8_t *start = ++in->at;
    bool has_escape = false;
    for (;; in->at++) {
        if (in->at == in->end) {
            return refuse(in, start - 1, "syntax error: a string does not end");
        }
        if (*in->at == '"') break;
        if (*in->at < 0x20) {
            return refuse(in, in->at, "syntax error: control character in a string");
        }
        if (*in->at == '\\') {
            has_escape = true;
            if (++in->at == in->end) in->at--;
        }
    }
    *value = mir_view_of(start, (size_t)(in->at - start));
    in->at++;
    return has_escape ? unescape(in, *value, value) : MIR_OK;
}

static bool is_digit(const uint8_t *at, const uint8_t *end)
{
    return at < end && *at >= '0' && *at <= '9';
}

/* The length of the number at the start of the text, 0 when there is none. */
static size_t number_size(mir_view text)
{
    const uint8_t *at = text.data, *end = text.data + text.size;
    if (at < end && *at == '-') at++;
    if (!is_digit(at, end)) return 0;
    if (*at == '0') {
        at++;
    } else {
        while (is_digit(at, end)) at++;
    }
    if (at < end && *at == '.') {
        if (!is_digit(++at, end)) return 0;
        while (is_digit(at, end)) at++;
    }
    if (at < end && (*at | 32) == 'e') {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        if (!is_digit(at, end)) return 0;
        while (is_digit(at, end)) at++;
    }
    return (size_t)(at - text.data);
}

static mir_status take_number(reader *in, mir_view *value)
{
    uint8_t first = peek(in);
    mir_view rest = mir_view_of(in->at, (size_t)(in->end - in->at));
    size_t size = first == '-' || (first >= '0' && first <= '9') ? number_size(rest) : 0;
    if (size == 0) return unexpected(in);
    *value = mir_view_of(in->at, size);
    in->at += size;
    if (in->at < in->end && ((*in->at | 32) >= 'a' || (*in->at >= '0' && *in->at <= '9')) &&
        (*in->at | 32) <= 'z') {
        return unexpected(in);
    }
    return MIR_OK;
}

/* A number, or a string that is one. Other strings come back as such, with `is_number` unset. */
static mir_status take_numeric(reader *in, mir_view *value, bool *is_number)
{
    *is_number = true;
    if (peek(in) != '"') return take_number(in, value);
    TRY(take_string(in, value));
    *is_number = value->size != 0 && number_size(*value) == value->size;
    return MIR_OK;
}

/* Numbers */

/* The value of a number without fraction, such as 12, 1.2e1 or 120e-1. */
static bool parse_integer(mir_view text, bool *is_negative, uint64_t *value)
{
    const uint8_t *at = text.data, *end = text.data + text.size;
    *is_negative = at < end && *at == '-';
    if (*is_negative) at++;
    const uint8_t *digits = at;
    size_t whole = 0, count = 0;
    while (is_digit(at, end)) at++, whole++;
    count = whole;
    if (at < end && *at == '.') {
        at++;
        while (is_digit(at, end)) at++, count++;
    }
    int64_t exponent = 0;
    if (at < end && (*at | 32) == 'e') {
        at++;
        bool is_down = at < end && *at == '-';
        if (at < end && (*at == '+' || *at == '-')) at++;
        while (is_digit(at, end)) {
            if (exponent < (int64_t)1 << 40) exponent = exponent * 10 + (*at - '0');
            at++;
        }
        if (is_down) exponent = -exponent;
    }
    /* Of the digits, those before `point` count, and those behind must be zeros. */
    const int64_t point = (int64_t)whole + exponent;
    *value = 0;
    for (size_t i = 0; i < count; i++) {
        unsigned digit = (unsigned)digits[i + (i >= whole)] - '0';
        if ((int64_t)i >= point) {
            if (digit != 0) return false;
        } else if (__builtin_mul_overflow(*value, 10u, value) ||
                   __builtin_add_overflow(*value, digit, value)) {
            return false;
        }
    }
    for (int64_t i = (int64_t)count; i < point && *value != 0; i++) {
        if (__builtin_mul_overflow(*value, 10u, value)) return false;
    }
    return true;
}

static bool parse_signed(mir_view text, int64_t low, int64_t high, int64_t *value)
{
    bool is_negative;
    uint64_t magnitude;
    if (!parse_integer(text, &is_negative, &magnitude)) return false;
    if (magnitude > (uint64_t)INT64_MAX + is_negative) return false;
    *value = is_negative ? (int64_t)(0 - magnitude) : (int64_t)magnitude;
    return *value >= low && *value <= high;
}

static bool parse_unsigned(mir_view text, uint64_t high, uint64_t *value)
{
    bool is_negative;
    if (!parse_integer(text, &is_negative, value)) return false;
    return *value <= high && !(is_negative && *value != 0);
}

static bool parse_double(reader *in, mir_view text, bool is_float, double *value)
{
    char buffer[64];
    char *copy = buffer;
    if (text.size >= sizeof buffer) {
        copy = mir_arena_strdup(&in->arena, text);
        if (copy == NULL) return false;
    } else {
        if (text.data != NULL) memcpy(buffer, text.data, text.size);
        buffer[text.size] = 0;
    }
    *value = is_float ? (double)strtof(copy, NULL) : strtod(copy, NULL);
    return isfinite(*value);
}

/* Scalars */

static mir_status bad_value(reader *in, const uint8_t *place, const mir_schema_message *message,
                            const mir_schema_field *field)
{
    static const char *const names[] = {
        [MIR_KIND_DOUBLE] = "double",     [MIR_KIND_FLOAT] = "float",
        [MIR_KIND_INT64] = "int64",       [MIR_KIND_UINT64] = "uint64",
        [MIR_KIND_INT32] = "int32",       [MIR_KIND_FIXED64] = "fixed64",
        [MIR_KIND_FIXED32] = "fixed32",   [MIR_KIND_BOOL] = "bool",
        [MIR_KIND_STRING] = "string",     [MIR_KIND_GROUP] = "group",
        [MIR_KIND_MESSAGE] = "message",   [MIR_KIND_BYTES] = "bytes",
        [MIR_KIND_UINT32] = "uint32",     [MIR_KIND_ENUM] = "enum",
        [MIR_KIND_SFIXED32] = "sfixed32", [MIR_KIND_SFIXED64] = "sfixed64",
        [MIR_KIND_SINT32] = "sint32",     [MIR_KIND_SINT64] = "sint64",
    };
    mir_view text = shown(mir_view_of(place, (size_t)(in->at - place)));
    return refuse(in, place, "invalid value for %s field %s in %s: %.*s", names[field->kind],
                  field->name, message->name, MIR_VIEW_ARGS(text));
}

static bool encode_integer(mir_bytes *out, mir_schema_kind kind, mir_view text)
{
    int64_t number = 0;
    uint64_t natural = 0;
    switch (kind) {
    case MIR_KIND_INT32:
    case MIR_KIND_SINT32:
    case MIR_KIND_SFIXED32:
        if (!parse_signed(text, INT32_MIN, INT32_MAX, &number)) return false;
        break;
    case MIR_KIND_INT64:
    case MIR_KIND_SINT64:
    case MIR_KIND_SFIXED64:
        if (!parse_signed(text, INT64_MIN, INT64_MAX, &number)) return false;
        break;
    case MIR_KIND_UINT32:
    case MIR_KIND_FIXED32:
        if (!parse_unsigned(text, UINT32_MAX, &natural)) return false;
        break;
    default:
        if (!parse_unsigned(text, UINT64_MAX, &natural)) return false;
        break;
    }
    switch (kind) {
    case MIR_KIND_INT32:
    case MIR_KIND_INT64: mir_pbwire_put_varint(out, (uint64_t)number); break;
    case MIR_KIND_SINT32:
    case MIR_KIND_SINT64: mir_pbwire_put_varint(out, mir_pbwire_unzigzag(number)); break;
    case MIR_KIND_SFIXED32: mir_pbwire_put_fixed32(out, (uint32_t)number); break;
    case MIR_KIND_SFIXED64: mir_pbwire_put_fixed64(out, (uint64_t)number); break;
    case MIR_KIND_FIXED32: mir_pbwire_put_fixed32(out, (uint32_t)natural); break;
    case MIR_KIND_FIXED64: mir_pbwire_put_fixed64(out, natural); break;
    default: mir_pbwire_put_varint(out, natural); break;
    }
    return true;
}

static mir_status read_floating(reader *in, bool is_float, bool *is_sound)
{
    mir_view text = {NULL, 0};
    bool is_number = false;
    double value = 0;
    TRY(take_numeric(in, &text, &is_number));
    *is_sound = true;
    if (is_number) {
        *is_sound = parse_double(in, text, is_float, &value);
    } else if (mir_view_eq_cstr(text, "NaN")) {
        value = (double)NAN;
    } else if (mir_view_eq_cstr(text, "Infinity")) {
        value = (double)INFINITY;
    } else if (mir_view_eq_cstr(text, "-Infinity")) {
        value = -(double)INFINITY;
    } else {
        *is_sound = false;
    }
    if (is_float) {
        float narrow = (float)value;
        uint32_t bits;
        memcpy(&bits, &narrow, sizeof bits);
        mir_pbwire_put_fixed32(in->out, bits);
    } else {
        uint64_t bits;
        memcpy(&bits, &value, sizeof bits);
        mir_pbwire_put_fixed64(in->out, bits);
    }
    return MIR_OK;
}

static mir_status read_enum(reader *in, const mir_schema_field *field, bool *is_sound)
{
    *is_sound = true;
    if (peek(in) != '"') {
        if (mir_json_is_null_enum(field) && take_word(in, "null")) {
            mir_pbwire_put_varint(in->out, 0);
            return MIR_OK;
        }
        mir_view text = {NULL, 0};
        int64_t number = 0;
        TRY(take_number(in, &text));
        *is_sound = parse_signed(text, INT32_MIN, INT32_MAX, &number);
        mir_pbwire_put_varint(in->out, (uint64_t)number);
        return MIR_OK;
    }
    mir_view name = {NULL, 0};
    TRY(take_string(in, &name));
    const mir_schema_enum *enumeration = field->enumeration;
    if (enumeration->value_count > WORK_MAX - in->work) {
        return mir_error_set(in->error, MIR_E_TOO_LARGE, "too many enum values in JSON");
    }
    in->work += enumeration->value_count;
    for (uint32_t i = 0; i < enumeration->value_count; i++) {
        const mir_schema_enum_value *value = &enumeration->values[i];
        if (!mir_view_eq(name, mir_view_of(value->name, value->name_size))) continue;
        mir_pbwire_put_varint(in->out, (uint64_t)(int64_t)value->number);
        return MIR_OK;
    }
    *is_sound = false;
    return MIR_OK;
}

static mir_status read_bytes(reader *in, bool *is_sound)
{
    mir_view text = {NULL, 0};
    TRY(take_string(in, &text));
    size_t start = in->out->size;
    *is_sound = mir_json_parse_base64(text, in->out);
    mir_pbwire_put_length(in->out, start);
    return MIR_OK;
}

/* The value without its tag. */
static mir_status read_scalar(reader *in, const mir_schema_message *message,
                              const mir_schema_field *field)
{
    mir_view text = {NULL, 0};
    bool is_sound = true;
    (void)peek(in);
    const uint8_t *place = in->at;
    switch (field->kind) {
    case MIR_KIND_DOUBLE:
    case MIR_KIND_FLOAT: TRY(read_floating(in, field->kind == MIR_KIND_FLOAT, &is_sound)); break;
    case MIR_KIND_BOOL:
        if (take_word(in, "true")) {
            mir_pbwire_put_varint(in->out, 1);
        } else if (take_word(in, "false")) {
            mir_pbwire_put_varint(in->out, 0);
        } else {
            return unexpected(in);
        }
        break;
    case MIR_KIND_STRING:
        TRY(take_string(in, &text));
        mir_pbwire_put_varint(in->out, text.size);
        mir_bytes_view(in->out, text);
        break;
    case MIR_KIND_BYTES: TRY(read_bytes(in, &is_sound)); break;
    case MIR_KIND_ENUM: TRY(read_enum(in, field, &is_sound)); break;
    default:
        TRY(take_numeric(in, &text, &is_sound));
        is_sound = is_sound && encode_integer(in->out, field->kind, text);
        break;
    }
    return is_sound ? MIR_OK : bad_value(in, place, message, field);
}

/* Well-known types */

static mir_status read_message(reader *in, const mir_schema_message *message);

static mir_status enter(reader *in)
{
    if (in->depth == MIR_JSON_DEPTH_MAX) {
        return mir_error_set(in->error, MIR_E_TOO_LARGE, "JSON is nested deeper than %d levels",
                             MIR_JSON_DEPTH_MAX);
    }
    in->depth++;
    return MIR_OK;
}

static mir_status check_out(reader *in)
{
    if (!mir_bytes_ok(in->out)) return no_memory(in);
    return MIR_OK;
}

/* Whether another member follows; `end` is the bracket that closes. The first is asked for too. */
static mir_status next_member(reader *in, bool *is_first, char end, bool *more)
{
    uint8_t next = peek(in);
    *more = next != (uint8_t)end;
    if (!*more) {
        in->at++;
        return MIR_OK;
    }
    if (!*is_first) {
        TRY(expect(in, ','));
        if (peek(in) == (uint8_t)end) return unexpected(in);
    }
    *is_first = false;
    return check_out(in);
}

static mir_status read_any_value(reader *in);

static mir_status read_list_value(reader *in) // NOLINT(misc-no-recursion)
{
    bool is_first = true, more = false;
    TRY(enter(in));
    TRY(expect(in, '['));
    for (;;) {
        TRY(next_member(in, &is_first, ']', &more));
        if (!more) break;
        mir_pbwire_put_varint(in->out, mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES));
        size_t start = in->out->size;
        TRY(read_any_value(in));
        mir_pbwire_put_length(in->out, start);
    }
    in->depth--;
    return MIR_OK;
}

typedef struct keys {
    mir_view *list;
    size_t count;
    size_t capacity;
} keys;

static mir_status add_key(reader *in, keys *to, mir_view key)
{
    if (to->count == to->capacity) {
        size_t capacity = to->capacity == 0 ? 16 : to->capacity * 2;
        mir_view *grown = realloc(to->list, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(in);
        to->list = grown;
        to->capacity = capacity;
    }
    to->list[to->count++] = key;
    return MIR_OK;
}

static int compare_keys(const void *a, const void *b)
{
    const mir_view *left = a, *right = b;
    size_t size = left->size < right->size ? left->size : right->size;
    int order = size == 0 ? 0 : memcmp(left->data, right->data, size);
    return order != 0 ? order : left->size < right->size ? -1 : left->size > right->size;
}

static mir_status check_keys(reader *in, keys *of)
{
    if (of->count > 1) qsort(of->list, of->count, sizeof *of->list, compare_keys);
    for (size_t i = 1; i < of->count; i++) {
        if (compare_keys(&of->list[i - 1], &of->list[i]) != 0) continue;
        mir_view key = shown(of->list[i]);
        return refuse(in, in->at, "duplicate map key \"%.*s\"", MIR_VIEW_ARGS(key));
    }
    return MIR_OK;
}

static mir_status read_struct_members(reader *in, keys *seen) // NOLINT(misc-no-recursion)
{
    bool is_first = true, more = false;
    TRY(expect(in, '{'));
    for (;;) {
        mir_view key = {NULL, 0};
        TRY(next_member(in, &is_first, '}', &more));
        if (!more) return check_keys(in, seen);
        TRY(take_string(in, &key));
        TRY(add_key(in, seen, key));
        TRY(expect(in, ':'));
        mir_pbwire_put_varint(in->out, mir_pbwire_make_tag(1, MIR_PBWIRE_BYTES));
        size_t entry = in->out->size;
        mir_pbwire_put_bytes(in->out, 1, key);
        mir_pbwire_put_varint(in->out, mir_pbwire_make_tag(2, MIR_PBWIRE_BYTES));
        size_t value = in->out->size;
        TRY(read_any_value(in));
        mir_pbwire_put_length(in->out, value);
        mir_pbwire_put_length(in->out, entry);
    }
}

static mir_status read_struct(reader *in) // NOLINT(misc-no-recursion)
{
    keys seen = {0};
    TRY(enter(in));
    mir_status status = read_struct_members(in, &seen);
    in->depth--;
    free(seen.list);
    return status;
}

static mir_status read_any_value(reader *in) // NOLINT(misc-no-recursion)
{
    mir_view text = {NULL, 0};
    mir_bytes *out = in->out;
    switch (peek(in)) {
    case '"':
        TRY(take_string(in, &text));
        mir_pbwire_put_bytes(out, 3, text);
        return MIR_OK;
    case '{':
    case '[': {
        bool is_list = *in->at == '[';
        mir_pbwire_put_varint(out, mir_pbwire_make_tag(is_list ? 6 : 5, MIR_PBWIRE_BYTES));
        size_t start = out->size;
        TRY(is_list ? read_list_value(in) : read_struct(in));
        mir_pbwire_put_length(out, start);
        return check_out(in);
    }
    case 'n':
        if (!take_word(in, "null")) return unexpected(in);
        mir_bytes_append(out, "\x08\x00", 2);
        return MIR_OK;
    case 't':
    case 'f': {
        bool is_true = *in->at == 't';
        if (!take_word(in, is_true ? "true" : "false")) return unexpected(in);
        mir_bytes_append(out, is_true ? "\x20\x01" : "\x20\x00", 2);
        return MIR_OK;
    }
    default: {
        const uint8_t *place = in->at;
        double value = 0;
        uint64_t bits;
        TRY(take_number(in, &text));
        if (!parse_double(in, text, false, &value)) {
            return refuse(in, place, "number out of range: %.*s", MIR_VIEW_ARGS(shown(text)));
        }
        memcpy(&bits, &value, sizeof bits);
        mir_pbwire_put_varint(out, mir_pbwire_make_tag(2, MIR_PBWIRE_FIXED64));
        mir_pbwire_put_fixed64(out, bits);
        return MIR_OK;
    }
    }
}

static mir_status read_instant(reader *in, const mir_schema_message *message, bool is_duration)
{
    mir_view text = {NULL, 0};
    int64_t seconds = 0;
    int32_t nanos = 0;
    (void)peek(in);
    const uint8_t *place = in->at;
    TRY(take_string(in, &text));
    bool is_sound = is_duration ? mir_json_parse_duration(text, &seconds, &nanos)
                                : mir_json_parse_time(text, &seconds, &nanos);
    if (!is_sound) {
        return refuse(in, place, "invalid %s value \"%.*s\"", message->name,
                      MIR_VIEW_ARGS(shown(text)));
    }
    if (seconds != 0) {
        mir_bytes_u8(in->out, 0x08);
        mir_pbwire_put_varint(in->out, (uint64_t)seconds);
    }
    if (nanos != 0) {
        mir_bytes_u8(in->out, 0x10);
        mir_pbwire_put_varint(in->out, (uint64_t)(int64_t)nanos);
    }
    return MIR_OK;
}

static mir_status read_field_mask(reader *in)
{
    mir_view text = {NULL, 0};
    (void)peek(in);
    const uint8_t *place = in->at;
    TRY(take_string(in, &text));
    size_t start = 0;
    for (size_t i = 0; i <= text.size && text.size != 0; i++) {
        if (i < text.size && text.data[i] != ',') continue;
        if (i == start) return refuse(in, place, "google.protobuf.FieldMask has an empty path");
        mir_bytes_u8(in->out, 0x0a);
        size_t path = in->out->size;
        for (size_t k = start; k < i; k++) {
            uint8_t byte = text.data[k];
            bool is_upper = byte >= 'A' && byte <= 'Z';
            if (byte == '_') return refuse(in, place, "google.protobuf.FieldMask contains \"_\"");
            if (is_upper) mir_bytes_u8(in->out, '_');
            mir_bytes_u8(in->out, is_upper ? (uint8_t)(byte + 32) : byte);
        }
        mir_pbwire_put_length(in->out, path);
        start = i + 1;
    }
    return MIR_OK;
}

/* Fields */

static bool takes_null(const mir_schema_field *field)
{
    if (field->message != NULL) return mir_json_known_of(field->message) == MIR_KNOWN_VALUE;
    return mir_json_is_null_enum(field);
}

static void put_tag(reader *in, const mir_schema_field *field, uint32_t type)
{
    mir_pbwire_put_varint(in->out, mir_pbwire_make_tag(field->number, type));
}

/* One value with its tag. A plain scalar with its default value is left out when asked for. */
static mir_status read_value(reader *in, const mir_schema_message *message,
                             const mir_schema_field *field,
                             bool keep_default) // NOLINT(misc-no-recursion)
{
    const size_t before = in->out->size;
    put_tag(in, field, mir_schema_wire_type(field->kind));
    const size_t start = in->out->size;
    if (field->message != NULL) {
        TRY(read_message(in, field->message));
        mir_pbwire_put_length(in->out, start);
        return check_out(in);
    }
    TRY(read_scalar(in, message, field));
    TRY(check_out(in));
    bool is_default = !keep_default && !field->has_presence;
    for (size_t i = start; i < in->out->size && is_default; i++) {
        is_default = in->out->data[i] == 0;
    }
    if (is_default) in->out->size = before;
    return MIR_OK;
}

static mir_status read_list(reader *in, const mir_schema_message *message,
                            const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    const size_t before = in->out->size;
    bool is_first = true, more = false;
    TRY(enter(in));
    TRY(expect(in, '['));
    if (field->is_packed) put_tag(in, field, MIR_PBWIRE_BYTES);
    const size_t start = in->out->size;
    for (;;) {
        TRY(next_member(in, &is_first, ']', &more));
        if (!more) break;
        if (field->is_packed) {
            TRY(read_scalar(in, message, field));
        } else {
            TRY(read_value(in, message, field, true));
        }
    }
    if (field->is_packed && is_first) {
        in->out->size = before;
    } else if (field->is_packed) {
        mir_pbwire_put_length(in->out, start);
    }
    in->depth--;
    return check_out(in);
}

static mir_status put_key(reader *in, const uint8_t *place, const mir_schema_message *message,
                          const mir_schema_field *field, const mir_schema_field *key, mir_view text)
{
    put_tag(in, key, mir_schema_wire_type(key->kind));
    if (key->kind == MIR_KIND_STRING) {
        mir_pbwire_put_varint(in->out, text.size);
        mir_bytes_view(in->out, text);
        return MIR_OK;
    }
    bool is_true = mir_view_eq_cstr(text, "true");
    if (key->kind == MIR_KIND_BOOL && (is_true || mir_view_eq_cstr(text, "false"))) {
        mir_pbwire_put_varint(in->out, is_true);
        return MIR_OK;
    }
    bool is_plain = text.size != 0 && number_size(text) == text.size;
    for (size_t i = 0; i < text.size && is_plain; i++) {
        is_plain = text.data[i] == '-' || (text.data[i] >= '0' && text.data[i] <= '9');
    }
    if (key->kind != MIR_KIND_BOOL && is_plain && encode_integer(in->out, key->kind, text)) {
        return MIR_OK;
    }
    return refuse(in, place, "invalid key \"%.*s\" of map field %s in %s",
                  MIR_VIEW_ARGS(shown(text)), field->name, message->name);
}

static mir_status read_map_members(reader *in, const mir_schema_message *message,
                                   const mir_schema_field *field,
                                   keys *seen) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *key = mir_schema_field_by_number(field->message, 1);
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    bool is_first = true, more = false;
    TRY(expect(in, '{'));
    for (;;) {
        mir_view text = {NULL, 0};
        TRY(next_member(in, &is_first, '}', &more));
        if (!more) return check_keys(in, seen);
        const uint8_t *place = in->at;
        TRY(take_string(in, &text));
        TRY(add_key(in, seen, text));
        TRY(expect(in, ':'));
        put_tag(in, field, MIR_PBWIRE_BYTES);
        size_t entry = in->out->size;
        TRY(put_key(in, place, message, field, key, text));
        TRY(read_value(in, message, value, true));
        mir_pbwire_put_length(in->out, entry);
    }
}

static mir_status read_map(reader *in, const mir_schema_message *message,
                           const mir_schema_field *field) // NOLINT(misc-no-recursion)
{
    keys seen = {0};
    TRY(enter(in));
    mir_status status = read_map_members(in, message, field, &seen);
    in->depth--;
    free(seen.list);
    return status;
}

/* A set of small numbers: a few in a list, more in a bitmap. */
typedef struct seen_set {
    uint32_t few[16];
    uint32_t count;
    uint8_t *bits;
} seen_set;

static mir_status see(reader *in, seen_set *set, uint32_t number, uint32_t universe, bool *is_new)
{
    if (set->bits == NULL) {
        *is_new = true;
        for (uint32_t i = 0; i < set->count && *is_new; i++) *is_new = set->few[i] != number;
        if (!*is_new) return MIR_OK;
        if (set->count < sizeof set->few / sizeof *set->few) {
            set->few[set->count++] = number;
            return MIR_OK;
        }
        set->bits = calloc(universe / 8 + 1, 1);
        if (set->bits == NULL) return no_memory(in);
        for (uint32_t i = 0; i < set->count; i++) {
            set->bits[set->few[i] / 8] |= (uint8_t)(1 << set->few[i] % 8);
        }
    }
    uint8_t bit = (uint8_t)(1 << number % 8);
    *is_new = (set->bits[number / 8] & bit) == 0;
    set->bits[number / 8] |= bit;
    return MIR_OK;
}

typedef struct object_state {
    seen_set fields;
    seen_set oneofs;
} object_state;

static mir_status read_member(reader *in, const mir_schema_message *message,
                              object_state *state) // NOLINT(misc-no-recursion)
{
    mir_view name = {NULL, 0};
    bool is_new = false;
    (void)peek(in);
    const uint8_t *place = in->at;
    TRY(take_string(in, &name));
    const mir_schema_field *field = mir_schema_field_by_json_name(message, name);
    if (field == NULL) {
        return refuse(in, place, "unknown field \"%.*s\" in %s", MIR_VIEW_ARGS(shown(name)),
                      message->name);
    }
    TRY(see(in, &state->fields, (uint32_t)(field - message->fields), message->field_count,
            &is_new));
    if (!is_new) {
        return refuse(in, place, "duplicate field \"%.*s\" in %s", MIR_VIEW_ARGS(shown(name)),
                      message->name);
    }
    TRY(expect(in, ':'));
    if (peek(in) == 'n' && (field->is_repeated || !takes_null(field))) {
        return take_word(in, "null") ? MIR_OK : unexpected(in);
    }
    if (field->kind == MIR_KIND_GROUP) {
        return mir_error_set(in->error, MIR_E_UNSUPPORTED, "field \"%s\" of %s is a group",
                             field->name, message->name);
    }
    if (field->is_map) return read_map(in, message, field);
    if (field->is_repeated) return read_list(in, message, field);
    if (field->oneof >= 0) {
        TRY(see(in, &state->oneofs, (uint32_t)field->oneof, message->oneof_count, &is_new));
        if (!is_new) {
            return refuse(in, place, "field \"%.*s\" in %s: oneof %s is already set",
                          MIR_VIEW_ARGS(shown(name)), message->name,
                          message->oneof_names[field->oneof]);
        }
    }
    return read_value(in, message, field, false);
}

static mir_status check_required(reader *in, const mir_schema_message *message,
                                 const uint8_t *place, object_state *state)
{
    for (uint32_t i = 0; i < message->field_count && message->has_required; i++) {
        bool is_new = false;
        if (!message->fields[i].is_required) continue;
        TRY(see(in, &state->fields, i, message->field_count, &is_new));
        if (is_new) {
            return refuse(in, place, "required field %s.%s not set", message->name,
                          message->fields[i].name);
        }
    }
    return MIR_OK;
}

static mir_status read_members(reader *in, const mir_schema_message *message,
                               object_state *state) // NOLINT(misc-no-recursion)
{
    bool is_first = true, more = true;
    (void)peek(in);
    const uint8_t *place = in->at;
    TRY(expect(in, '{'));
    for (;;) {
        TRY(next_member(in, &is_first, '}', &more));
        if (!more) return check_required(in, message, place, state);
        TRY(read_member(in, message, state));
    }
}

static mir_status read_ordinary(reader *in,
                                const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    object_state state = {0};
    mir_status status = read_members(in, message, &state);
    free(state.fields.bits);
    free(state.oneofs.bits);
    return status;
}

/* The content of the message, without tag and length. */
static mir_status read_message(reader *in,
                               const mir_schema_message *message) // NOLINT(misc-no-recursion)
{
    mir_status status = MIR_OK;
    TRY(enter(in));
    switch (mir_json_known_of(message)) {
    case MIR_KNOWN_TIMESTAMP: status = read_instant(in, message, false); break;
    case MIR_KNOWN_DURATION: status = read_instant(in, message, true); break;
    case MIR_KNOWN_FIELD_MASK: status = read_field_mask(in); break;
    case MIR_KNOWN_STRUCT: status = read_struct(in); break;
    case MIR_KNOWN_VALUE: status = read_any_value(in); break;
    case MIR_KNOWN_LIST: status = read_list_value(in); break;
    case MIR_KNOWN_WRAPPER:
        status = read_value(in, message, mir_schema_field_by_number(message, 1), false);
        break;
    case MIR_KNOWN_ANY:
        status = mir_error_set(in->error, MIR_E_UNSUPPORTED,
                               "google.protobuf.Any is not supported in JSON");
        break;
    case MIR_KNOWN_NONE: status = read_ordinary(in, message); break;
    }
    in->depth--;
    return status;
}

mir_status mir_json_to_proto(const mir_schema_message *message, mir_view text, mir_bytes *payload,
                             mir_error *error)
{
    if (text.size > MIR_JSON_TEXT_BYTES_MAX) {
        return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d bytes of JSON",
                             MIR_JSON_TEXT_BYTES_MAX);
    }
    if (!mir_utf8_valid(text)) {
        return mir_error_set(error, MIR_E_INVALID, "syntax error: the text is not UTF-8");
    }
    mir_pbwire all = mir_pbwire_of(text);
    reader in = {.start = all.at, .at = all.at, .end = all.end, .out = payload, .error = error};
    in.arena.bytes_max = 16 * (size_t)MIR_JSON_TEXT_BYTES_MAX;
    const size_t start = payload->size;
    mir_status status = read_message(&in, message);
    if (status == MIR_OK) status = check_out(&in);
    if (status == MIR_OK) {
        (void)peek(&in);
        if (in.at != in.end) status = refuse(&in, in.at, "syntax error: text behind the value");
    }
    mir_arena_free(&in.arena);
    if (status != MIR_OK) {
        payload->size = start;
        payload->failed = false;
    }
    return status;
}
