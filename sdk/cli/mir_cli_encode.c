/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_encode.h"

#include "mir_clock.h"
#include "mir_pbwire.h"
#include "mir_utf8.h"

#include <errno.h>
#include <math.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>

enum { STEPS_MAX = 100000, NUMBER_BYTES_MAX = 400, SHOWN_BYTES = 60 };
#define NO_COLUMN SIZE_MAX

/* A place in the message: a field, or one element of a list or a map. */
typedef struct node {
    const mir_schema_field *field;
    const mir_schema_field *value; /* the field, or that of a map's entry */
    mir_view key;                  /* of a map */
    uint64_t index;                /* of a list */
    size_t column;                 /* NO_COLUMN: a message with children */
    struct node *children;         /* by number of the field, then by index */
    struct node *next;
} node;

struct mir_cli_encoder {
    const mir_schema_message *message;
    const mir_schema_field *time;
    int64_t time_scale;                      /* of a whole number */
    const mir_schema_field *seconds, *nanos; /* of a message */
    size_t count;
    const mir_view *columns;
    bool *known;
    node root;
    mir_arena arena;
};

/* One step on the way to a value. */
typedef struct step {
    const mir_schema_field *field;
    mir_view key;
    uint64_t index;
} step;

typedef struct search {
    step steps[MIR_CLI_ENCODE_DEPTH_MAX];
    uint32_t depth;
    uint32_t tries;
} search;

static bool find_in(search *at, const mir_schema_message *message, mir_view name, uint32_t depth);

static bool found(search *at, uint32_t depth, const mir_schema_field *field, mir_view key,
                  uint64_t index)
{
    at->steps[depth] = (step){field, key, index};
    at->depth = depth + 1;
    return true;
}

static bool find_in_list(search *at, const mir_schema_field *field, mir_view rest,
                         uint32_t depth) // NOLINT(misc-no-recursion)
{
    uint64_t index = 0;
    size_t digits = 0;
    while (digits < rest.size && digits < 7 && rest.data[digits] >= '0' && rest.data[digits] <= '9')
        index = index * 10 + (uint64_t)(rest.data[digits++] - '0');
    if (digits == 0) return false;
    rest = mir_view_from(rest, digits);
    if (field->message == NULL)
        return rest.size == 0 && found(at, depth, field, (mir_view){0}, index);
    if (rest.size < 2 || rest.data[0] != '.' ||
        !find_in(at, field->message, mir_view_from(rest, 1), depth + 1))
        return false;
    at->steps[depth] = (step){field, {0}, index};
    return true;
}

static bool find_in_map(search *at, const mir_schema_field *field, mir_view rest,
                        uint32_t depth) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    if (value == NULL) return false;
    if (value->message == NULL) return found(at, depth, field, rest, 0);
    for (size_t i = 0; i + 1 < rest.size; i++) {
        if (rest.data[i] != '.' ||
            !find_in(at, value->message, mir_view_from(rest, i + 1), depth + 1))
            continue;
        at->steps[depth] = (step){field, mir_view_of(rest.data, i), 0};
        return true;
    }
    return false;
}

/* As mir_schema_origin_of reads a stored name. */
static bool find_in(search *at, const mir_schema_message *message, mir_view name,
                    uint32_t depth) // NOLINT(misc-no-recursion)
{
    if (depth == MIR_CLI_ENCODE_DEPTH_MAX || ++at->tries > STEPS_MAX) return false;
    const mir_schema_field *exact = mir_schema_field_by_name(message, name);
    if (exact != NULL && !exact->is_repeated && exact->message == NULL)
        return found(at, depth, exact, (mir_view){0}, 0);
    for (size_t end = 1; end + 1 <= name.size; end++) {
        if (name.data[end] != '.' && name.data[end] != '_') continue;
        const mir_schema_field *field =
            mir_schema_field_by_name(message, mir_view_of(name.data, end));
        if (field == NULL || field->kind == MIR_KIND_GROUP) continue;
        mir_view rest = mir_view_from(name, end + 1);
        if (name.data[end] == '.') {
            if (field->is_repeated || field->message == NULL ||
                !find_in(at, field->message, rest, depth + 1))
                continue;
            at->steps[depth] = (step){field, {0}, 0};
            return true;
        }
        if (field->is_map ? find_in_map(at, field, rest, depth)
                          : field->is_repeated && find_in_list(at, field, rest, depth))
            return true;
    }
    return false;
}

static bool comes_before(const node *a, const step *b)
{
    if (a->field->number != b->field->number) return a->field->number < b->field->number;
    return a->index <= b->index;
}

/* The child for the step; a new one when there is none, or when it is a column's own place. */
static node *child_for(mir_cli_encoder *encoder, node *parent, const step *to, bool is_leaf)
{
    node **link = &parent->children;
    for (; *link != NULL && comes_before(*link, to); link = &(*link)->next)
        if (!is_leaf && (*link)->column == NO_COLUMN && (*link)->field == to->field &&
            (*link)->index == to->index && mir_view_eq((*link)->key, to->key))
            return *link;
    node *made = mir_arena_alloc(&encoder->arena, sizeof *made);
    if (made == NULL) return NULL;
    *made = (node){.field = to->field,
                   .value = to->field->is_map ? mir_schema_field_by_number(to->field->message, 2)
                                              : to->field,
                   .key = to->key,
                   .index = to->index,
                   .column = NO_COLUMN,
                   .next = *link};
    *link = made;
    return made;
}

MIR_MUST_CHECK static mir_status place(mir_cli_encoder *encoder, size_t column, mir_error *error)
{
    search at = {0};
    encoder->known[column] = find_in(&at, encoder->message, encoder->columns[column], 0);
    node *in = &encoder->root;
    for (uint32_t i = 0; encoder->known[column] && i < at.depth; i++) {
        in = child_for(encoder, in, &at.steps[i], i + 1 == at.depth);
        if (in == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
        if (i + 1 == at.depth) in->column = column;
    }
    return MIR_OK;
}

static bool is_whole(mir_schema_kind kind)
{
    switch (kind) {
    case MIR_KIND_INT32:
    case MIR_KIND_SINT32:
    case MIR_KIND_SFIXED32:
    case MIR_KIND_INT64:
    case MIR_KIND_SINT64:
    case MIR_KIND_SFIXED64:
    case MIR_KIND_UINT32:
    case MIR_KIND_FIXED32:
    case MIR_KIND_UINT64:
    case MIR_KIND_FIXED64: return true;
    default: return false;
    }
}

MIR_MUST_CHECK static mir_status find_time(mir_cli_encoder *to, mir_error *error)
{
    static const int64_t scales[] = {[MIR_TIMESTAMP_SEC] = MIR_NS_PER_S,
                                     [MIR_TIMESTAMP_MILLI] = MIR_NS_PER_MS,
                                     [MIR_TIMESTAMP_MICRO] = MIR_NS_PER_US,
                                     [MIR_TIMESTAMP_NANO] = 1};
    const mir_schema_field *field = mir_schema_timestamp_field(to->message);
    if (field != NULL && !field->is_repeated && is_whole(field->kind) &&
        field->timestamp_type < MIR_TIMESTAMP_FRACTION) {
        to->time_scale = scales[field->timestamp_type];
        to->time = field;
    }
    if (field != NULL && !field->is_repeated && field->kind == MIR_KIND_MESSAGE) {
        to->seconds = mir_schema_field_by_name(field->message, MIR_VIEW_LITERAL("seconds"));
        to->nanos = mir_schema_field_by_name(field->message, MIR_VIEW_LITERAL("nanos"));
        if (to->seconds != NULL && to->nanos != NULL && is_whole(to->seconds->kind) &&
            is_whole(to->nanos->kind))
            to->time = field;
    }
    if (to->time == NULL)
        return mir_error_set(
            error, MIR_E_UNSUPPORTED,
            "%s has no field for its time: its rows take the time of their arrival",
            to->message->name);
    return MIR_OK;
}

mir_status mir_cli_encoder_new(const mir_schema_message *message, const mir_view *columns,
                               size_t count, mir_cli_encoder **encoder, mir_error *error)
{
    if (count > MIR_CLI_ENCODE_COLUMNS_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "more than %d columns",
                             MIR_CLI_ENCODE_COLUMNS_MAX);
    mir_cli_encoder *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    made->message = message;
    made->count = count;
    mir_view *names = mir_arena_alloc(&made->arena, (count + 1) * sizeof *names);
    made->known = mir_arena_alloc(&made->arena, (count + 1) * sizeof *made->known);
    mir_status status = names != NULL && made->known != NULL
                            ? find_time(made, error)
                            : mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
    made->columns = names;
    for (size_t i = 0; status == MIR_OK && i < count; i++) {
        char *copy = mir_arena_strdup(&made->arena, columns[i]);
        if (copy == NULL) {
            status = mir_error_set(error, MIR_E_NO_MEMORY, "no memory");
            break;
        }
        names[i] = mir_view_of(copy, columns[i].size);
        status = place(made, i, error);
    }
    if (status != MIR_OK) {
        mir_cli_encoder_free(made);
        return status;
    }
    *encoder = made;
    return MIR_OK;
}

void mir_cli_encoder_free(mir_cli_encoder *encoder)
{
    if (encoder == NULL) return;
    mir_arena_free(&encoder->arena);
    free(encoder);
}

/* Sign and size of a whole number. A number with a point that is whole all the same is one, as other
 * databases keep nothing else. */
static bool parse_whole(mir_view text, bool *negative, uint64_t *value)
{
    char copy[NUMBER_BYTES_MAX];
    if (text.size == 0 || text.size >= sizeof copy) return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    char last = copy[text.size - 1];
    if (last == 'i' || last == 'u') copy[text.size - 1] = '\0';
    const char *digits = copy + (copy[0] == '-' || copy[0] == '+');
    *negative = copy[0] == '-';
    size_t count = strspn(digits, "0123456789");
    if (count == 0) return false;
    errno = 0;
    char *end = NULL;
    *value = strtoull(digits, &end, 10);
    if (*end == '\0') return errno == 0;
    if (strspn(digits, "0123456789.eE+-") != strlen(digits)) return false;
    double number = strtod(digits, &end);
    if (*end != '\0' || number != floor(number) || number > 9007199254740992.0) return false;
    *value = (uint64_t)number;
    return true;
}

static bool parse_double(mir_view text, double *value)
{
    char copy[NUMBER_BYTES_MAX];
    if (text.size == 0 || text.size >= sizeof copy) return false;
    memcpy(copy, text.data, text.size);
    copy[text.size] = '\0';
    if (copy[text.size - 1] == 'i' || copy[text.size - 1] == 'u') {
        if (strspn(copy, "0123456789+-") != text.size - 1) return false;
        copy[text.size - 1] = '\0';
    }
    /* strtod also reads blanks and hexadecimal. */
    if (strspn(copy, "0123456789.eE+-infINFtyTYaA") != strlen(copy)) return false;
    char *end = NULL;
    *value = strtod(copy, &end);
    return *end == '\0';
}

static bool parse_bool(mir_view text, bool *value)
{
    static const char *const yes[] = {"true", "t", "T", "True", "TRUE", "1"};
    static const char *const no[] = {"false", "f", "F", "False", "FALSE", "0"};
    for (size_t i = 0; i < sizeof yes / sizeof yes[0]; i++) {
        *value = mir_view_eq_cstr(text, yes[i]);
        if (*value || mir_view_eq_cstr(text, no[i])) return true;
    }
    return false;
}

static int base64_digit(uint8_t c)
{
    if (c >= 'A' && c <= 'Z') return c - 'A';
    if (c >= 'a' && c <= 'z') return c - 'a' + 26;
    if (c >= '0' && c <= '9') return c - '0' + 52;
    return c == '+' ? 62 : c == '/' ? 63 : -1;
}

static bool put_base64(mir_bytes *out, mir_view text)
{
    if (text.size % 4 != 0) return false;
    size_t size = text.size;
    for (int i = 0; i < 2 && size > 0 && text.data[size - 1] == '='; i++) size--;
    uint32_t bits = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(text.data[i]);
        if (digit < 0) return false;
        bits = bits << 6 | (uint32_t)digit;
        if (i % 4 != 0) mir_bytes_u8(out, (uint8_t)(bits >> (6 - 2 * (i % 4))));
    }
    return true;
}

static bool put_whole(const mir_schema_field *field, bool negative, uint64_t value, mir_bytes *out)
{
    uint64_t most = UINT64_MAX, least = 0; /* the least as its amount */
    switch (field->kind) {
    case MIR_KIND_INT32:
    case MIR_KIND_SINT32:
    case MIR_KIND_SFIXED32:
    case MIR_KIND_ENUM: most = INT32_MAX, least = UINT64_C(1) << 31; break;
    case MIR_KIND_UINT32:
    case MIR_KIND_FIXED32: most = UINT32_MAX; break;
    case MIR_KIND_UINT64:
    case MIR_KIND_FIXED64: break;
    default: most = INT64_MAX, least = UINT64_C(1) << 63; break;
    }
    if (value > (negative ? least : most)) return false;
    uint64_t bits = negative ? 0 - value : value;
    mir_pbwire_put_varint(out,
                          mir_pbwire_make_tag(field->number, mir_schema_wire_type(field->kind)));
    switch (field->kind) {
    case MIR_KIND_SINT32:
    case MIR_KIND_SINT64: mir_pbwire_put_varint(out, mir_pbwire_unzigzag((int64_t)bits)); break;
    case MIR_KIND_FIXED32:
    case MIR_KIND_SFIXED32: mir_pbwire_put_fixed32(out, (uint32_t)bits); break;
    case MIR_KIND_FIXED64:
    case MIR_KIND_SFIXED64: mir_pbwire_put_fixed64(out, bits); break;
    default: mir_pbwire_put_varint(out, bits); break;
    }
    return true;
}

static bool put_enum(const mir_schema_field *field, mir_view text, mir_bytes *out)
{
    bool negative = false;
    uint64_t value = 0;
    if (parse_whole(text, &negative, &value)) return put_whole(field, negative, value, out);
    for (uint32_t i = 0; field->enumeration != NULL && i < field->enumeration->value_count; i++) {
        int64_t number = field->enumeration->values[i].number;
        if (mir_view_eq_cstr(text, field->enumeration->values[i].name))
            return put_whole(field, number < 0, (uint64_t)(number < 0 ? -number : number), out);
    }
    return false;
}

static bool put_real(const mir_schema_field *field, mir_view text, mir_bytes *out)
{
    double value = 0;
    if (!parse_double(text, &value)) return false;
    mir_pbwire_put_varint(out,
                          mir_pbwire_make_tag(field->number, mir_schema_wire_type(field->kind)));
    if (field->kind == MIR_KIND_DOUBLE) {
        uint64_t bits = 0;
        memcpy(&bits, &value, sizeof bits);
        mir_pbwire_put_fixed64(out, bits);
        return true;
    }
    float single = (float)value;
    if (isfinite(value) && !isfinite(single)) return false;
    uint32_t bits = 0;
    memcpy(&bits, &single, sizeof bits);
    mir_pbwire_put_fixed32(out, bits);
    return true;
}

/* The field with the value that the text says; false when it cannot have it. */
static bool put_value(const mir_schema_field *field, const mir_cli_text_value *value,
                      mir_bytes *out)
{
    bool negative = false, truth = false;
    uint64_t whole = 0;
    bool is_text = field->kind == MIR_KIND_STRING || field->kind == MIR_KIND_BYTES;
    if (value->form == (is_text ? MIR_TEXT_BARE : MIR_TEXT_QUOTED) && field->kind != MIR_KIND_ENUM)
        return false;
    switch (field->kind) {
    case MIR_KIND_STRING:
        if (!mir_utf8_valid(value->text)) return false;
        mir_pbwire_put_bytes(out, field->number, value->text);
        return true;
    case MIR_KIND_BYTES: {
        mir_pbwire_put_varint(out, mir_pbwire_make_tag(field->number, MIR_PBWIRE_BYTES));
        size_t start = out->size;
        if (!put_base64(out, value->text)) return false;
        mir_pbwire_put_length(out, start);
        return true;
    }
    case MIR_KIND_BOOL:
        if (!parse_bool(value->text, &truth)) return false;
        mir_pbwire_put_varint(out, mir_pbwire_make_tag(field->number, MIR_PBWIRE_VARINT));
        mir_bytes_u8(out, truth);
        return true;
    case MIR_KIND_ENUM: return put_enum(field, value->text, out);
    case MIR_KIND_FLOAT:
    case MIR_KIND_DOUBLE: return put_real(field, value->text, out);
    default:
        return is_whole(field->kind) && parse_whole(value->text, &negative, &whole) &&
               put_whole(field, negative, whole, out);
    }
}

typedef struct encoding {
    mir_cli_encoder *encoder;
    const mir_cli_text_value *values;
    mir_bytes *out;
    const char *cause;
    mir_error *error;
} encoding;

static bool has_value(const encoding *at, const node *in) // NOLINT(misc-no-recursion)
{
    if (in->column != NO_COLUMN) return at->values[in->column].form != MIR_TEXT_ABSENT;
    for (const node *each = in->children; each != NULL; each = each->next)
        if (has_value(at, each)) return true;
    return false;
}

MIR_MUST_CHECK static mir_status refuse(encoding *at, mir_status status, const char *cause,
                                        const char *format, ...) MIR_PRINTF(4, 5);
static mir_status refuse(encoding *at, mir_status status, const char *cause, const char *format,
                         ...)
{
    char text[256];
    va_list arguments;
    va_start(arguments, format);
    (void)vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    at->cause = cause;
    return mir_error_set(at->error, status, "%s: %s", at->encoder->message->name, text);
}

MIR_MUST_CHECK static mir_status put_children(encoding *at, const node *in);

MIR_MUST_CHECK static mir_status put_node(encoding *at, const node *in) // NOLINT(misc-no-recursion)
{
    mir_status status = MIR_OK;
    size_t start = 0;
    if (in->field->is_map) {
        const mir_schema_field *key = mir_schema_field_by_number(in->field->message, 1);
        const mir_cli_text_value text = {MIR_TEXT_ANY, in->key};
        mir_pbwire_put_varint(at->out, mir_pbwire_make_tag(in->field->number, MIR_PBWIRE_BYTES));
        start = at->out->size;
        if (key == NULL || !put_value(key, &text, at->out))
            return refuse(at, MIR_E_INVALID, "a value of another type", "'%.*s' is no key of %s",
                          MIR_VIEW_ARGS(in->key), in->field->name);
    }
    if (in->column != NO_COLUMN) {
        const mir_cli_text_value *value = &at->values[in->column];
        mir_view name = at->encoder->columns[in->column];
        int shown = value->text.size < SHOWN_BYTES ? (int)value->text.size : SHOWN_BYTES;
        if (!put_value(in->value, value, at->out))
            status = refuse(at, MIR_E_INVALID, "a value of another type",
                            "'%.*s' is no value of %.*s", shown, (const char *)value->text.data,
                            name.size < SHOWN_BYTES ? (int)name.size : SHOWN_BYTES,
                            (const char *)name.data);
    } else {
        mir_pbwire_put_varint(at->out, mir_pbwire_make_tag(in->value->number, MIR_PBWIRE_BYTES));
        size_t inner = at->out->size;
        status = put_children(at, in);
        if (status == MIR_OK) mir_pbwire_put_length(at->out, inner);
    }
    if (status == MIR_OK && in->field->is_map) mir_pbwire_put_length(at->out, start);
    return status;
}

/* A member of the same oneof that has a value, before this one; null: there is none. */
static const node *rival_of(const encoding *at, const node *in, const node *member)
{
    for (const node *each = in->children; each != member; each = each->next)
        if (each->field->oneof == member->field->oneof && has_value(at, each)) return each;
    return NULL;
}

static mir_status put_children(encoding *at, const node *in) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *list = NULL;
    uint64_t next = 0;
    for (const node *each = in->children; each != NULL; each = each->next) {
        if (!has_value(at, each)) continue;
        const node *rival = each->field->oneof >= 0 ? rival_of(at, in, each) : NULL;
        if (rival != NULL)
            return refuse(at, MIR_E_INVALID, "two members of a oneof",
                          "%s and %s have a value, and a message has one of them: make two rows "
                          "of the same time, which are stored as one",
                          rival->field->name, each->field->name);
        if (each->field->is_repeated && !each->field->is_map) {
            if (list != each->field) next = 0;
            list = each->field;
            if (each->index != next++)
                return refuse(at, MIR_E_INVALID, "a list with a gap",
                              "%s_%llu has a value and the element before it has none", list->name,
                              (unsigned long long)each->index);
        }
        mir_status status = put_node(at, each);
        if (status != MIR_OK) return status;
    }
    return MIR_OK;
}

MIR_MUST_CHECK static mir_status put_time(encoding *at, int64_t time_ns)
{
    const mir_cli_encoder *by = at->encoder;
    static const char cannot[] = "a time that the message cannot carry";
    if (time_ns == 0)
        return refuse(at, MIR_E_INVALID, cannot,
                      "the time 0 stands for that of the arrival of a message");
    if (by->seconds == NULL) {
        if (time_ns % by->time_scale != 0)
            return refuse(at, MIR_E_INVALID, cannot, "%s does not have as many digits as the time",
                          by->time->name);
        int64_t number = time_ns / by->time_scale;
        if (!put_whole(by->time, number < 0, number < 0 ? 0 - (uint64_t)number : (uint64_t)number,
                       at->out))
            return refuse(at, MIR_E_INVALID, cannot, "the time does not fit into %s",
                          by->time->name);
        return MIR_OK;
    }
    int64_t nanos = time_ns % MIR_NS_PER_S;
    if (nanos < 0) nanos += MIR_NS_PER_S;
    int64_t seconds = (time_ns - nanos) / MIR_NS_PER_S;
    mir_pbwire_put_varint(at->out, mir_pbwire_make_tag(by->time->number, MIR_PBWIRE_BYTES));
    size_t start = at->out->size;
    if (!put_whole(by->seconds, seconds < 0,
                   seconds < 0 ? 0 - (uint64_t)seconds : (uint64_t)seconds, at->out) ||
        !put_whole(by->nanos, false, (uint64_t)nanos, at->out))
        return refuse(at, MIR_E_INVALID, cannot, "the time does not fit into %s", by->time->name);
    mir_pbwire_put_length(at->out, start);
    return MIR_OK;
}

mir_status mir_cli_encoder_row(mir_cli_encoder *encoder, int64_t time_ns,
                               const mir_cli_text_value *values, mir_bytes *payload,
                               const char **cause, mir_error *error)
{
    encoding at = {.encoder = encoder, .values = values, .out = payload, .error = error};
    size_t start = payload->size;
    mir_status status = MIR_OK;
    bool any = false;
    for (size_t i = 0; status == MIR_OK && i < encoder->count; i++) {
        if (values[i].form == MIR_TEXT_ABSENT) continue;
        any = true;
        if (!encoder->known[i])
            status = refuse(&at, MIR_E_NOT_FOUND, "a field that the schema does not have",
                            "there is no field '%.*s'",
                            encoder->columns[i].size < SHOWN_BYTES ? (int)encoder->columns[i].size
                                                                   : SHOWN_BYTES,
                            (const char *)encoder->columns[i].data);
    }
    if (status == MIR_OK && !any)
        status = refuse(&at, MIR_E_INVALID, "no value at all", "the row has no value");
    if (status == MIR_OK) status = put_children(&at, &encoder->root);
    /* Last, so that it counts also when a column has the name of the field of the time. */
    if (status == MIR_OK) status = put_time(&at, time_ns);
    if (status == MIR_OK && !mir_bytes_ok(payload))
        status = refuse(&at, MIR_E_NO_MEMORY, "no memory", "no memory");
    if (status != MIR_OK) {
        payload->size = start;
        *cause = at.cause;
    }
    return status;
}
