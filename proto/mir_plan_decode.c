/* SPDX-License-Identifier: Apache-2.0 */
/* Decoding of rows. The scratch of the row is used from both ends: names and texts that outlive the
 * decoding grow from its start, the cells of list elements that are being decoded are a stack that
 * grows from its end. */
#include <endian.h>
#include <stdio.h>

#include "mir_assert.h"
#include "mir_pbwire.h"
#include "mir_plan_internal.h"

/* Cells that one payload may have reset for list elements and changes inside a oneof: bytes that
 * cost far more time than they took to send are refused. */
enum { WORK_MAX = 1 << 20 };

/* A frame that is being filled. */
typedef struct instance {
    const mir_plan_frame *frame;
    mir_cell *cells;
    uint64_t *present;
    uint32_t *states; /* of lists: elements so far; of oneofs: 1 + index of the op that is set */
    mir_view prefix;  /* of the names of dynamic cells */
} instance;

typedef struct decoder {
    mir_row *row;
    uint8_t *top; /* end of the scratch that is still free */
    uint32_t work;
} decoder;

#define TRY(expression)                                                                            \
    do {                                                                                           \
        mir_status try_status = (expression);                                                      \
        if (__builtin_expect(try_status != MIR_OK, 0)) return try_status;                          \
    } while (0)

/* What is out of line works on a copy, so that the reader itself stays in registers. */
static inline bool read_varint_slowly(mir_pbwire *wire, uint64_t *value)
{
    mir_pbwire copy = *wire;
    uint64_t result = 0;
    if (!mir_pbwire_varint_long(&copy, &result)) return false;
    *value = result;
    wire->at = copy.at;
    return true;
}

static inline bool read_bytes(mir_pbwire *wire, mir_view *bytes)
{
    uint64_t size = 0;
    if (wire->at < wire->end && *wire->at < 0x80) {
        size = *wire->at++;
    } else if (!read_varint_slowly(wire, &size)) {
        return false;
    }
    if (size > (uint64_t)(wire->end - wire->at)) return false;
    *bytes = (mir_view){wire->at, (size_t)size};
    wire->at += size;
    return true;
}

/* Up to eight bytes are taken apart at once, which pays for the 64-bit times of telemetry. */
static inline __attribute__((always_inline)) bool read_varint(mir_pbwire *wire, uint64_t *value)
{
    const uint8_t *at = wire->at;
    ptrdiff_t left = wire->end - at;
    if (__builtin_expect(left < 2, 0)) return read_varint_slowly(wire, value);
    if (at[0] < 0x80) {
        *value = at[0];
        wire->at = at + 1;
        return true;
    }
    if (at[1] < 0x80) {
        *value = (uint64_t)(at[0] & 0x7f) | (uint64_t)at[1] << 7;
        wire->at = at + 2;
        return true;
    }
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    if (left >= 10) {
        uint64_t word;
        memcpy(&word, at, sizeof word);
        uint64_t stops = ~word & UINT64_C(0x8080808080808080);
        /* Everything up to the first byte without continuation; all, if there is none. */
        if (stops != 0) word &= stops ^ (stops - 1);
        word &= UINT64_C(0x7f7f7f7f7f7f7f7f);
        word = (word & UINT64_C(0x007f007f007f007f)) | (word & UINT64_C(0x7f007f007f007f00)) >> 1;
        word = (word & UINT64_C(0x00003fff00003fff)) | (word & UINT64_C(0x3fff00003fff0000)) >> 2;
        word = (word & UINT64_C(0x000000000fffffff)) | (word & UINT64_C(0x0fffffff00000000)) >> 4;
        if (stops != 0) {
            *value = word;
            wire->at = at + ((unsigned)__builtin_ctzll(stops) + 1) / 8;
            return true;
        }
        word |= (uint64_t)(at[8] & 0x7f) << 56;
        if (at[8] < 0x80) {
            *value = word;
            wire->at = at + 9;
            return true;
        }
        if (at[9] > 1) return false;
        *value = word | (uint64_t)at[9] << 63;
        wire->at = at + 10;
        return true;
    }
#endif
    return read_varint_slowly(wire, value);
}

static inline bool read_fixed(mir_pbwire *wire, void *value, size_t size)
{
    if ((size_t)(wire->end - wire->at) < size) return false;
#if __BYTE_ORDER__ == __ORDER_LITTLE_ENDIAN__
    memcpy(value, wire->at, size);
    wire->at += size;
    return true;
#else
    return size == 4 ? mir_pbwire_fixed32(wire, value) : mir_pbwire_fixed64(wire, value);
#endif
}

static uint8_t *take_scratch(decoder *with, size_t size)
{
    mir_row *row = with->row;
    uint8_t *at = row->scratch + row->scratch_size;
    if (size > (size_t)(with->top - at)) return NULL;
    row->scratch_size += size;
    return at;
}

static mir_status put_base64(decoder *with, mir_view bytes, mir_view *text)
{
    static const char digits[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    size_t size = (bytes.size + 2) / 3 * 4;
    uint8_t *to = take_scratch(with, size);
    if (to == NULL) return MIR_E_TOO_LARGE;
    *text = mir_view_of(to, size);
    size_t i = 0;
    for (; i + 3 <= bytes.size; i += 3) {
        uint32_t group =
            (uint32_t)bytes.data[i] << 16 | (uint32_t)bytes.data[i + 1] << 8 | bytes.data[i + 2];
        *to++ = (uint8_t)digits[group >> 18];
        *to++ = (uint8_t)digits[group >> 12 & 63];
        *to++ = (uint8_t)digits[group >> 6 & 63];
        *to++ = (uint8_t)digits[group & 63];
    }
    if (i < bytes.size) {
        uint32_t group = (uint32_t)bytes.data[i] << 16;
        if (i + 1 < bytes.size) group |= (uint32_t)bytes.data[i + 1] << 8;
        *to++ = (uint8_t)digits[group >> 18];
        *to++ = (uint8_t)digits[group >> 12 & 63];
        *to++ = i + 1 < bytes.size ? (uint8_t)digits[group >> 6 & 63] : '=';
        *to++ = '=';
    }
    return MIR_OK;
}

/* What a varint means. False: a value that is not kept. */
static inline bool convert_varint(unsigned code, uint64_t value, mir_cell *cell)
{
    switch (code) {
    case MIR_OP_INT32: cell->i64 = (int32_t)value; return true;
    case MIR_OP_UINT32: cell->u64 = (uint32_t)value; return true;
    case MIR_OP_SINT32: cell->i64 = mir_pbwire_zigzag((uint32_t)value); return true;
    case MIR_OP_SINT64: cell->i64 = mir_pbwire_zigzag(value); return true;
    case MIR_OP_BOOL: cell->boolean = value != 0; return true;
    case MIR_OP_ENUM: cell->u64 = (uint32_t)value; return (int32_t)value >= 0;
    default: cell->u64 = value; return true;
    }
}

/* What is not a varint. */
static inline mir_status read_other_scalar(decoder *with, mir_pbwire *wire, unsigned code,
                                           mir_cell *cell)
{
    uint32_t narrow = 0;
    float number;
    mir_view bytes;
    switch (code) {
    case MIR_OP_FIXED32:
        if (!read_fixed(wire, &narrow, sizeof narrow)) return MIR_E_INVALID;
        cell->u64 = narrow;
        return MIR_OK;
    case MIR_OP_SFIXED32:
        if (!read_fixed(wire, &narrow, sizeof narrow)) return MIR_E_INVALID;
        cell->i64 = (int32_t)narrow;
        return MIR_OK;
    case MIR_OP_FLOAT:
        if (!read_fixed(wire, &narrow, sizeof narrow)) return MIR_E_INVALID;
        memcpy(&number, &narrow, sizeof number);
        cell->f64 = number;
        return MIR_OK;
    case MIR_OP_FIXED64:
        return read_fixed(wire, &cell->u64, sizeof cell->u64) ? MIR_OK : MIR_E_INVALID;
    case MIR_OP_STRING: return read_bytes(wire, &cell->string) ? MIR_OK : MIR_E_INVALID;
    case MIR_OP_BYTES:
        if (!read_bytes(wire, &bytes)) return MIR_E_INVALID;
        return put_base64(with, bytes, &cell->string);
    default: MIR_ASSERT(!"a scalar's code");
    }
    return MIR_E_INVALID;
}

/* Any scalar, where speed is not decided. MIR_E_EMPTY: read, but not a value that is kept. */
static mir_status read_value(decoder *with, mir_pbwire *wire, unsigned code, mir_cell *cell)
{
    uint64_t value = 0;
    if (code > MIR_OP_LAST_VARINT) return read_other_scalar(with, wire, code, cell);
    if (!mir_pbwire_varint(wire, &value)) return MIR_E_INVALID;
    return convert_varint(code, value, cell) ? MIR_OK : MIR_E_EMPTY;
}

static mir_status put_dynamic(decoder *with, mir_view prefix, mir_view name, mir_view end,
                              mir_column_type type, const mir_cell *value)
{
    mir_row *row = with->row;
    size_t size = prefix.size + name.size + end.size;
    if (row->dynamic_count == row->dynamic_count_max) return MIR_E_TOO_LARGE;
    if (size > MIR_SCHEMA_PATH_BYTES_MAX) return MIR_E_TOO_LARGE;
    uint8_t *text = take_scratch(with, size);
    if (text == NULL) return MIR_E_TOO_LARGE;
    if (prefix.size != 0) memcpy(text, prefix.data, prefix.size);
    if (name.size != 0) memcpy(text + prefix.size, name.data, name.size);
    if (end.size != 0) memcpy(text + prefix.size + name.size, end.data, end.size);
    row->dynamic[row->dynamic_count++] =
        (mir_dynamic_cell){.name = {text, size}, .type = type, .value = *value};
    return MIR_OK;
}

static mir_status decode_node(decoder *with, instance *in, const mir_plan_node *node,
                              mir_pbwire wire);

/* Frames */

static mir_status add_work(decoder *with, size_t work)
{
    if (work > WORK_MAX - with->work) return MIR_E_TOO_LARGE;
    with->work += (uint32_t)work;
    return MIR_OK;
}

/* Zeroed, aligned to 16 bytes, from the end of the scratch. */
static void *push_stack(decoder *with, size_t size)
{
    const mir_row *row = with->row;
    uint8_t *low = row->scratch + row->scratch_size;
    uintptr_t top = (uintptr_t)with->top & ~(uintptr_t)15;
    size = (size + 15) & ~(size_t)15;
    if (top < (uintptr_t)low || size > top - (uintptr_t)low) return NULL;
    with->top = with->top - ((uintptr_t)with->top - top) - size;
    memset(with->top, 0, size);
    return with->top;
}

/* An instance of a frame for the element whose name is prefix, name, end and a dot. The caller
 * gives `top` back when it is done. */
static mir_status open_instance(decoder *with, const mir_plan_frame *frame, mir_view prefix,
                                mir_view name, mir_view end, instance *opened)
{
    TRY(add_work(with, (size_t)frame->column_count + frame->state_count + 1));
    size_t size = prefix.size + name.size + end.size + 1;
    if (size > MIR_SCHEMA_PATH_BYTES_MAX) return MIR_E_TOO_LARGE;
    *opened = (instance){.frame = frame};
    opened->cells = push_stack(with, frame->column_count * sizeof(mir_cell));
    opened->present = push_stack(with, frame->word_count * sizeof(uint64_t));
    opened->states = push_stack(with, frame->state_count * sizeof(uint32_t));
    uint8_t *text = push_stack(with, size);
    if (opened->cells == NULL || opened->present == NULL || opened->states == NULL ||
        text == NULL) {
        return MIR_E_TOO_LARGE;
    }
    opened->prefix = (mir_view){text, size};
    if (prefix.size != 0) memcpy(text, prefix.data, prefix.size);
    text += prefix.size;
    memcpy(text, name.data, name.size);
    text += name.size;
    if (end.size != 0) memcpy(text, end.data, end.size);
    text[end.size] = '.';
    memcpy(opened->cells, frame->defaults, frame->column_count * sizeof(mir_cell));
    memcpy(opened->present, frame->present, frame->word_count * sizeof(uint64_t));
    return MIR_OK;
}

static mir_status close_instance(decoder *with, const instance *in)
{
    for (uint32_t i = 0; i < in->frame->column_count; i++) {
        if ((in->present[i / 64] >> (i % 64) & 1) == 0) continue;
        const mir_column *column = &in->frame->columns[i];
        TRY(put_dynamic(with, in->prefix, mir_view_of(column->name, column->name_size),
                        (mir_view){NULL, 0}, column->type, &in->cells[i]));
    }
    return MIR_OK;
}

/* Lists and maps */

static mir_view index_text(uint32_t index, char text[static 12])
{
    char *at = text + 12;
    do {
        *--at = (char)('0' + index % 10);
        index /= 10;
    } while (index != 0);
    return mir_view_of(at, (size_t)(text + 12 - at));
}

static mir_status decode_element(decoder *with, instance *in, const mir_plan_op *op,
                                 mir_pbwire *wire)
{
    mir_cell value = {0};
    char text[12];
    MIR_ASSERT(in->states != NULL);
    mir_view end = index_text(in->states[op->slot]++, text);
    mir_status status = read_value(with, wire, op->element, &value);
    if (status != MIR_OK) return status == MIR_E_EMPTY ? MIR_OK : status;
    return put_dynamic(with, in->prefix, mir_view_of(op->name, op->name_size), end,
                       (mir_column_type)op->type, &value);
}

static mir_status decode_packed(decoder *with, instance *in, const mir_plan_op *op, mir_view bytes)
{
    mir_pbwire wire = mir_pbwire_of(bytes);
    while (mir_pbwire_more(&wire)) TRY(decode_element(with, in, op, &wire));
    return MIR_OK;
}

static mir_status decode_list_message(decoder *with, instance *in, const mir_plan_op *op,
                                      mir_view bytes) // NOLINT(misc-no-recursion)
{
    instance element;
    char text[12];
    uint8_t *top = with->top;
    MIR_ASSERT(in->states != NULL);
    mir_view end = index_text(in->states[op->slot]++, text);
    TRY(open_instance(with, op->frame, in->prefix, mir_view_of(op->name, op->name_size), end,
                      &element));
    TRY(decode_node(with, &element, op->frame->root, mir_pbwire_of(bytes)));
    TRY(close_instance(with, &element));
    with->top = top;
    return MIR_OK;
}

static mir_view key_text(const mir_plan_pair *pair, const mir_cell *key, char text[static 24])
{
    if (pair->codes[0] == MIR_OP_STRING) return key->string;
    if (pair->codes[0] == MIR_OP_BOOL) return mir_view_cstr(key->boolean ? "true" : "false");
    int size = pair->key_is_unsigned ? snprintf(text, 24, "%llu", (unsigned long long)key->u64)
                                     : snprintf(text, 24, "%lld", (long long)key->i64);
    return mir_view_of(text, (size_t)size);
}

static mir_status decode_map(decoder *with, instance *in, const mir_plan_op *op,
                             mir_view entry) // NOLINT(misc-no-recursion)
{
    const mir_plan_pair *pair = op->pair;
    mir_cell key = {0}, value = {0};
    bool has_value = true;
    uint32_t tag = 0;
    mir_pbwire wire = mir_pbwire_of(entry);
    while (mir_pbwire_more(&wire)) {
        if (!mir_pbwire_tag(&wire, &tag)) return MIR_E_INVALID;
        if (tag == pair->tags[0]) {
            TRY(read_value(with, &wire, pair->codes[0], &key));
        } else if (tag == pair->tags[1] && op->frame == NULL) {
            mir_status status = read_value(with, &wire, pair->codes[1], &value);
            if (status != MIR_OK && status != MIR_E_EMPTY) return status;
            has_value = status == MIR_OK;
        } else if (!mir_pbwire_skip(&wire, tag)) {
            return MIR_E_INVALID;
        }
    }
    char text[24];
    mir_view end = key_text(pair, &key, text);
    mir_view name = mir_view_of(op->name, op->name_size);
    if (op->frame == NULL) {
        return has_value
                   ? put_dynamic(with, in->prefix, name, end, (mir_column_type)op->type, &value)
                   : MIR_OK;
    }
    instance element;
    uint8_t *top = with->top;
    TRY(open_instance(with, op->frame, in->prefix, name, end, &element));
    wire = mir_pbwire_of(entry);
    while (mir_pbwire_more(&wire)) {
        mir_view bytes;
        if (!mir_pbwire_tag(&wire, &tag)) return MIR_E_INVALID;
        if (tag != pair->tags[1]) {
            if (!mir_pbwire_skip(&wire, tag)) return MIR_E_INVALID;
            continue;
        }
        if (!mir_pbwire_bytes(&wire, &bytes)) return MIR_E_INVALID;
        TRY(decode_node(with, &element, op->frame->root, mir_pbwire_of(bytes)));
    }
    TRY(close_instance(with, &element));
    with->top = top;
    return MIR_OK;
}

/* Oneofs: what the former member left is set back as if it had never been there. */

static void clear_slots(instance *in, uint32_t first, uint32_t end)
{
    for (uint32_t i = first; i < end; i++) {
        uint64_t bit = UINT64_C(1) << (i % 64);
        in->cells[i] = in->frame->defaults[i];
        in->present[i / 64] = (in->present[i / 64] & ~bit) | (in->frame->present[i / 64] & bit);
    }
}

/* Takes away the dynamic cells whose names begin with the path of the node. */
static void clear_dynamic(decoder *with, const instance *in, const mir_plan_node *node)
{
    mir_row *row = with->row;
    mir_view path = mir_view_of(node->path, node->path_size);
    uint32_t kept = 0;
    for (uint32_t i = 0; i < row->dynamic_count; i++) {
        mir_view name = row->dynamic[i].name;
        bool is_below = mir_view_starts(name, in->prefix) &&
                        mir_view_starts(mir_view_from(name, in->prefix.size), path);
        if (!is_below) row->dynamic[kept++] = row->dynamic[i];
    }
    row->dynamic_count = kept;
}

static __attribute__((noinline)) mir_status
change_oneof(decoder *with, instance *in, const mir_plan_node *node, const mir_plan_op *op)
{
    MIR_ASSERT(in->states != NULL);
    uint32_t *state = &in->states[op->oneof - 1];
    const uint32_t set = (uint32_t)(op - node->ops) + 1;
    const uint32_t former = *state;
    *state = set;
    if (former == 0 || former == set) return MIR_OK;
    const mir_plan_op *old = &node->ops[former - 1];
    if (old->code != MIR_OP_MESSAGE) {
        clear_slots(in, old->slot, old->slot + 1);
        return MIR_OK;
    }
    const mir_plan_node *below = old->node;
    uint32_t state_count = below->state_end - below->state_first;
    TRY(add_work(with, (size_t)(below->slot_end - below->slot_first) + state_count +
                           (below->has_dynamic ? with->row->dynamic_count : 0)));
    clear_slots(in, below->slot_first, below->slot_end);
    if (state_count != 0) {
        memset(&in->states[below->state_first], 0, state_count * sizeof *in->states);
    }
    if (below->has_dynamic) clear_dynamic(with, in, below);
    return MIR_OK;
}

/* Nodes */

static const mir_plan_op *find_op(const mir_plan_node *node, uint32_t tag)
{
    uint32_t low = 0, high = node->op_count;
    while (low < high) {
        uint32_t middle = low + (high - low) / 2;
        if (node->ops[middle].tag < tag) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low < node->op_count && node->ops[low].tag == tag ? &node->ops[low] : NULL;
}

static __attribute__((noinline)) mir_status decode_other(decoder *with, instance *in,
                                                         const mir_plan_op *op,
                                                         mir_pbwire *wire) // NOLINT
{
    if (op->code == MIR_OP_LIST) return decode_element(with, in, op, wire);
    mir_view bytes;
    if (!mir_pbwire_bytes(wire, &bytes)) return MIR_E_INVALID;
    switch (op->code) {
    case MIR_OP_LIST_PACKED: return decode_packed(with, in, op, bytes);
    case MIR_OP_LIST_MESSAGE: return decode_list_message(with, in, op, bytes);
    case MIR_OP_MAP: return decode_map(with, in, op, bytes);
    default: MIR_ASSERT(!"an op's code");
    }
    return MIR_E_INVALID;
}

/* The op for a tag that is not a small one; `tag` leaves for what has none. */
static __attribute__((noinline)) bool find_long_tag(const mir_plan_node *node,
                                                    const mir_plan_op *next, mir_pbwire *wire,
                                                    uint32_t *tag, const mir_plan_op **op)
{
    if (!mir_pbwire_tag(wire, tag)) return false;
    bool is_next = next < node->ops + node->op_count && next->tag == *tag;
    *op = is_next ? next : find_op(node, *tag);
    return true;
}

/* The numbers at the begin of a message, which mostly are all of it; where it stopped, in `wire`. */
static bool decode_numbers(const instance *in, const mir_plan_node *node, mir_pbwire *wire)
{
    const uint8_t *at = wire->at;
    const uint8_t *const end = wire->end;
    uint64_t present = 0;
    while (at < end && *at < 0x80) {
        const mir_plan_quick quick = node->quick[*at];
        if (quick.code == 0) break;
        const uint8_t *from = at + 1;
        const size_t left = (size_t)(end - from);
        uint64_t value;
        if (quick.code == MIR_OP_FIXED64 + 1) {
            if (left < sizeof value) return false;
            memcpy(&value, from, sizeof value);
            value = le64toh(value);
            at = from + sizeof value;
        } else if (left >= 2 && from[0] < 0x80) {
            value = from[0];
            at = from + 1;
        } else if (left >= 2 && from[1] < 0x80) {
            value = (uint64_t)(from[0] & 0x7f) | (uint64_t)from[1] << 7;
            at = from + 2;
        } else {
            mir_pbwire rest = {.at = from, .end = end};
            if (!read_varint(&rest, &value)) return false;
            at = rest.at;
        }
        mir_cell *cell = &in->cells[quick.slot];
        present |= UINT64_C(1) << quick.slot;
        if (quick.code == MIR_OP_INT32 + 1) {
            cell->i64 = (int32_t)value;
        } else if (quick.code == MIR_OP_INT64 + 1 || quick.code == MIR_OP_FIXED64 + 1) {
            cell->u64 = value;
        } else {
            (void)convert_varint(quick.code - 1u, value, cell);
        }
    }
    if (present != 0) in->present[0] |= present;
    wire->at = at;
    return true;
}

static mir_status decode_node(decoder *with, instance *in, const mir_plan_node *node,
                              mir_pbwire wire) // NOLINT(misc-no-recursion)
{
    if (!decode_numbers(in, node, &wire)) return MIR_E_INVALID;
    /* Encoders write fields in order, so the op after the last one is tried first. */
    const mir_plan_op *next = node->ops;
    while (wire.at < wire.end) {
        uint32_t tag = *wire.at;
        const mir_plan_op *op;
        if (tag < 0x80) {
            wire.at++;
            uint32_t index = node->by_small_tag[tag];
            op = index == 0 ? NULL : &node->ops[index - 1];
        } else {
            mir_pbwire copy = wire;
            if (!find_long_tag(node, next, &copy, &tag, &op)) return MIR_E_INVALID;
            wire.at = copy.at;
        }
        if (__builtin_expect(op == NULL, 0)) {
            mir_pbwire copy = wire;
            if (tag < 8 || !mir_pbwire_skip(&copy, tag)) return MIR_E_INVALID;
            wire.at = copy.at;
            continue;
        }
        next = op + 1;
        if (__builtin_expect(op->oneof != 0, 0)) TRY(change_oneof(with, in, node, op));
        if (op->code <= MIR_OP_LAST_VARINT) {
            uint64_t value = 0;
            uint64_t *present = &in->present[op->slot / 64];
            if (!read_varint(&wire, &value)) return MIR_E_INVALID;
            bool is_kept = convert_varint(op->code, value, &in->cells[op->slot]);
            *present |= op->bit;
            if (__builtin_expect(!is_kept, 0)) *present &= ~op->bit;
        } else if (op->code <= MIR_OP_LAST_SCALAR) {
            TRY(read_other_scalar(with, &wire, op->code, &in->cells[op->slot]));
            in->present[op->slot / 64] |= op->bit;
        } else if (op->code == MIR_OP_MESSAGE) {
            mir_view bytes;
            if (!read_bytes(&wire, &bytes)) return MIR_E_INVALID;
            TRY(decode_node(with, in, op->node, mir_pbwire_of(bytes)));
        } else {
            mir_pbwire copy = wire;
            TRY(decode_other(with, in, op, &copy));
            wire.at = copy.at;
        }
    }
    return MIR_OK;
}

/* Takes the time out of the two cells behind the columns. */
static int64_t take_time(const mir_plan *plan, mir_row *row, int64_t receive_ns)
{
    const uint32_t first = row->column_count;
    if (first != 0) row->present[plan->frame->word_count - 1] &= plan->frame->last_word_mask;
    const int64_t number = row->cells[first].i64;
    int64_t time = 0;
    if ((plan->is_time_unsigned && number < 0) ||
        __builtin_mul_overflow(number, plan->time_scale, &time) ||
        __builtin_add_overflow(time, row->cells[first + 1].i64, &time) || time == 0) {
        return receive_ns;
    }
    return time;
}

static bool has_value(const mir_row *row)
{
    if (row->dynamic_count != 0) return true;
    for (uint32_t i = 0; i < (row->column_count + 63) / 64; i++) {
        if (row->present[i] != 0) return true;
    }
    return false;
}

mir_status mir_plan_decode(const mir_plan *plan, mir_view payload, int64_t receive_ns, mir_row *row)
{
    const mir_plan_frame *frame = plan->frame;
    MIR_ASSERT(frame->column_count <= row->column_count_max);
    row->column_count = frame->column_count;
    row->dynamic_count = 0;
    row->scratch_size = 0;
    memcpy(row->cells, frame->defaults, frame->column_count * sizeof *row->cells);
    memcpy(row->present, frame->present, frame->word_count * sizeof *row->present);
    row->cells[frame->column_count] = row->cells[frame->column_count + 1] = (mir_cell){0};
    decoder with = {.row = row, .top = row->scratch + row->scratch_bytes_max};
    instance in = {.frame = frame, .cells = row->cells, .present = row->present};
    if (frame->state_count != 0) {
        in.states = push_stack(&with, frame->state_count * sizeof *in.states);
        if (in.states == NULL) return MIR_E_TOO_LARGE;
    }
    TRY(decode_node(&with, &in, frame->root, mir_pbwire_of(payload)));
    row->time_ns = plan->has_time ? take_time(plan, row, receive_ns) : receive_ns;
    if (!frame->is_never_empty && !has_value(row)) return MIR_E_EMPTY;
    return MIR_OK;
}
