/* SPDX-License-Identifier: Apache-2.0 */
/* Compiling of plans; decoding is in mir_plan_decode.c. */
#include "mir_plan.h"

#include <stdio.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_pbwire.h"
#include "mir_plan_internal.h"

enum {
    OPS_MAX = 65536,
    /* Columns of all frames together; those of the row are MIR_PLAN_COLUMNS_MAX at most. */
    SLOTS_MAX = 8192,
    MEMORY_BYTES_MAX = 32 << 20,
};

typedef struct slot {
    mir_column column;
    bool is_plain;
    bool is_enum;
} slot;

typedef struct frame_builder {
    slot *slots;
    uint32_t slot_count;
    uint32_t slot_capacity;
    uint32_t state_count;
    bool is_row;
} frame_builder;

typedef struct compiler {
    mir_plan *plan;
    const mir_schema_message *message;
    mir_error *error;
    mir_arena scratch;
    const mir_schema_message *open[MIR_PLAN_DEPTH_MAX];
    uint32_t depth;
    uint32_t node_count;
    uint32_t op_count;
    uint32_t slot_count;
    uint32_t time_tag;     /* of a number that gives the time */
    mir_plan_op *time_ops; /* of a message that does: seconds and nanos */
} compiler;

static mir_status no_memory(compiler *with)
{
    return mir_error_set(with->error, MIR_E_NO_MEMORY, "%s: out of memory for its decode plan",
                         with->message->name);
}

static mir_status too_large(compiler *with, const char *what, unsigned long limit)
{
    return mir_error_set(with->error, MIR_E_TOO_LARGE, "%s: more than %lu %s", with->message->name,
                         limit, what);
}

static mir_plan_code scalar_code(mir_schema_kind kind)
{
    switch (kind) {
    case MIR_KIND_DOUBLE:
    case MIR_KIND_FIXED64:
    case MIR_KIND_SFIXED64: return MIR_OP_FIXED64;
    case MIR_KIND_FLOAT: return MIR_OP_FLOAT;
    case MIR_KIND_INT64:
    case MIR_KIND_UINT64: return MIR_OP_INT64;
    case MIR_KIND_INT32: return MIR_OP_INT32;
    case MIR_KIND_FIXED32: return MIR_OP_FIXED32;
    case MIR_KIND_BOOL: return MIR_OP_BOOL;
    case MIR_KIND_STRING: return MIR_OP_STRING;
    case MIR_KIND_BYTES: return MIR_OP_BYTES;
    case MIR_KIND_UINT32: return MIR_OP_UINT32;
    case MIR_KIND_ENUM: return MIR_OP_ENUM;
    case MIR_KIND_SFIXED32: return MIR_OP_SFIXED32;
    case MIR_KIND_SINT32: return MIR_OP_SINT32;
    case MIR_KIND_SINT64: return MIR_OP_SINT64;
    case MIR_KIND_GROUP:
    case MIR_KIND_MESSAGE: break;
    }
    return MIR_OP_MESSAGE;
}

static mir_column_type column_type(mir_schema_kind kind)
{
    switch (kind) {
    case MIR_KIND_DOUBLE:
    case MIR_KIND_FLOAT: return MIR_COLUMN_F64;
    case MIR_KIND_BOOL: return MIR_COLUMN_BOOL;
    case MIR_KIND_STRING:
    case MIR_KIND_BYTES: return MIR_COLUMN_STRING;
    case MIR_KIND_UINT32:
    case MIR_KIND_UINT64:
    case MIR_KIND_FIXED32:
    case MIR_KIND_FIXED64:
    case MIR_KIND_ENUM: return MIR_COLUMN_U64;
    default: return MIR_COLUMN_I64;
    }
}

static bool is_integer(const mir_schema_field *field)
{
    mir_column_type type = column_type(field->kind);
    return !field->is_repeated && field->kind != MIR_KIND_ENUM && field->message == NULL &&
           (type == MIR_COLUMN_I64 || type == MIR_COLUMN_U64);
}

/* `path` `name` `end`, in the plan's arena. */
static mir_status make_name(compiler *with, mir_view path, const mir_schema_field *field,
                            const char *end, const char **name, uint32_t *name_size)
{
    size_t size = path.size + field->name_size + strlen(end);
    if (size > MIR_SCHEMA_PATH_BYTES_MAX) {
        return too_large(with, "bytes in a field's path", MIR_SCHEMA_PATH_BYTES_MAX);
    }
    char *text = mir_arena_alloc(&with->plan->arena, size + 1);
    if (text == NULL) return no_memory(with);
    (void)snprintf(text, size + 1, "%.*s%s%s", MIR_VIEW_ARGS(path), field->name, end);
    *name = text;
    *name_size = (uint32_t)size;
    return MIR_OK;
}

static mir_status add_slot(compiler *with, frame_builder *frame, slot added)
{
    if (frame->is_row && frame->slot_count == MIR_PLAN_COLUMNS_MAX) {
        return too_large(with, "telemetry fields", MIR_PLAN_COLUMNS_MAX);
    }
    if (with->slot_count++ == SLOTS_MAX) {
        return too_large(with, "telemetry fields, those of list elements included", SLOTS_MAX);
    }
    if (frame->slot_count == frame->slot_capacity) {
        uint32_t capacity = frame->slot_capacity == 0 ? 16 : frame->slot_capacity * 2;
        slot *grown = mir_arena_alloc(&with->scratch, capacity * sizeof *grown);
        if (grown == NULL) return no_memory(with);
        if (frame->slot_count != 0) memcpy(grown, frame->slots, frame->slot_count * sizeof *grown);
        frame->slots = grown;
        frame->slot_capacity = capacity;
    }
    frame->slots[frame->slot_count++] = added;
    return MIR_OK;
}

static mir_status compile_node(compiler *with, frame_builder *frame,
                               const mir_schema_message *message, mir_view path,
                               const mir_plan_node **compiled);

static mir_status compile_frame(compiler *with, const mir_schema_message *message, bool is_row,
                                mir_plan_frame **compiled) // NOLINT(misc-no-recursion)
{
    mir_arena *arena = &with->plan->arena;
    frame_builder builder = {.is_row = is_row};
    mir_plan_frame *frame = mir_arena_alloc(arena, sizeof *frame);
    if (frame == NULL) return no_memory(with);
    mir_status status = compile_node(with, &builder, message, (mir_view){NULL, 0}, &frame->root);
    if (status != MIR_OK) return status;
    const uint32_t count = builder.slot_count;
    mir_column *columns = mir_arena_alloc(arena, count * sizeof *columns + 1);
    mir_cell *defaults = mir_arena_alloc(arena, count * sizeof *defaults + 1);
    uint64_t *present = mir_arena_alloc(arena, (count / 64 + 1) * sizeof *present);
    if (columns == NULL || defaults == NULL || present == NULL) return no_memory(with);
    for (uint32_t i = 0; i < count; i++) {
        columns[i] = builder.slots[i].column;
        if (!builder.slots[i].is_plain) continue;
        present[i / 64] |= UINT64_C(1) << (i % 64);
        /* A negative enum number takes the default away. */
        if (!builder.slots[i].is_enum) frame->is_never_empty = true;
    }
    frame->columns = columns;
    frame->column_count = count;
    frame->defaults = defaults;
    frame->present = present;
    frame->word_count = (count + 63) / 64;
    frame->last_word_mask = count % 64 == 0 ? UINT64_MAX : (UINT64_C(1) << (count % 64)) - 1;
    frame->state_count = builder.state_count;
    *compiled = frame;
    return MIR_OK;
}

static bool is_open(const compiler *with, const mir_schema_message *message)
{
    for (uint32_t i = 0; i < with->depth; i++) {
        if (with->open[i] == message) return true;
    }
    return with->depth == MIR_PLAN_DEPTH_MAX;
}

static mir_status compile_map(compiler *with, const mir_schema_field *field, mir_plan_op *op,
                              bool *is_cut) // NOLINT(misc-no-recursion)
{
    const mir_schema_field *key = mir_schema_field_by_number(field->message, 1);
    const mir_schema_field *value = mir_schema_field_by_number(field->message, 2);
    MIR_ASSERT(key != NULL);
    MIR_ASSERT(value != NULL);
    mir_plan_pair *pair = mir_arena_alloc(&with->plan->arena, sizeof *pair);
    if (pair == NULL) return no_memory(with);
    *pair = (mir_plan_pair){
        .tags = {mir_pbwire_make_tag(1, mir_schema_wire_type(key->kind)),
                 mir_pbwire_make_tag(2, mir_schema_wire_type(value->kind))},
        .codes = {scalar_code(key->kind), scalar_code(value->kind)},
        .key_is_unsigned = column_type(key->kind) == MIR_COLUMN_U64,
    };
    op->code = MIR_OP_MAP;
    op->pair = pair;
    if (value->message == NULL) {
        op->type = column_type(value->kind);
        return MIR_OK;
    }
    *is_cut = is_open(with, value->message);
    if (*is_cut) return MIR_OK;
    mir_plan_frame *frame = NULL;
    mir_status status = compile_frame(with, value->message, false, &frame);
    op->frame = frame;
    return status;
}

static int compare_ops(const void *a, const void *b)
{
    uint32_t left = ((const mir_plan_op *)a)->tag, right = ((const mir_plan_op *)b)->tag;
    return left < right ? -1 : left > right;
}

static void index_ops(mir_plan_node *node, mir_plan_op *ops)
{
    if (node->op_count != 0) qsort(ops, node->op_count, sizeof *ops, compare_ops);
    node->ops = ops;
    for (uint32_t i = 0; i < node->op_count; i++) {
        ops[i].bit = UINT64_C(1) << (ops[i].slot % 64);
        if (ops[i].tag < 128) node->by_small_tag[ops[i].tag] = (uint8_t)(i + 1);
    }
}

static void quicken(mir_plan_node *node)
{
    for (uint32_t i = 0; i < node->op_count; i++) {
        const mir_plan_op *op = &node->ops[i];
        if (op->tag >= 128 || op->oneof != 0 || op->slot >= 64) continue;
        switch (op->code) {
        case MIR_OP_INT32:
        case MIR_OP_INT64:
        case MIR_OP_UINT32:
        case MIR_OP_SINT32:
        case MIR_OP_SINT64:
        case MIR_OP_BOOL:
        case MIR_OP_FIXED64:
            node->quick[op->tag] = (mir_plan_quick){(uint8_t)(op->code + 1), (uint8_t)op->slot};
            break;
        default: break;
        }
    }
}

/* The field that gives the time, if it is of a type that can. Slots are counted from the end of the
 * columns, whose number is known in place_time. */
static mir_status compile_time(compiler *with, const mir_schema_field *field, mir_plan_op *op,
                               bool *is_time)
{
    static const int64_t scales[] = {[MIR_TIMESTAMP_SEC] = 1000000000,
                                     [MIR_TIMESTAMP_MILLI] = 1000000,
                                     [MIR_TIMESTAMP_MICRO] = 1000,
                                     [MIR_TIMESTAMP_NANO] = 1};
    mir_plan *plan = with->plan;
    *is_time = false;
    if (is_integer(field) && field->timestamp_type != MIR_TIMESTAMP_FRACTION) {
        *is_time = true;
        op->code = scalar_code(field->kind);
        with->time_tag = op->tag;
        plan->has_time = true;
        plan->time_scale = scales[field->timestamp_type];
        plan->is_time_unsigned = column_type(field->kind) == MIR_COLUMN_U64;
        return MIR_OK;
    }
    if (field->kind != MIR_KIND_MESSAGE || field->is_repeated) return MIR_OK;
    const mir_schema_field *parts[2] = {
        mir_schema_field_by_name(field->message, MIR_VIEW_LITERAL("seconds")),
        mir_schema_field_by_name(field->message, MIR_VIEW_LITERAL("nanos"))};
    if (parts[0] == NULL || parts[1] == NULL || !is_integer(parts[0]) || !is_integer(parts[1])) {
        return MIR_OK;
    }
    mir_plan_node *node = mir_arena_alloc(&plan->arena, sizeof *node);
    mir_plan_op *ops = mir_arena_alloc(&plan->arena, 2 * sizeof *ops);
    if (node == NULL || ops == NULL) return no_memory(with);
    for (uint32_t i = 0; i < 2; i++) {
        ops[i] = (mir_plan_op){
            .tag = mir_pbwire_make_tag(parts[i]->number, mir_schema_wire_type(parts[i]->kind)),
            .code = (uint8_t)scalar_code(parts[i]->kind),
            .slot = i};
    }
    node->op_count = 2;
    index_ops(node, ops);
    *is_time = true;
    op->code = MIR_OP_MESSAGE;
    op->node = node;
    with->time_ops = ops;
    plan->has_time = true;
    plan->time_scale = scales[MIR_TIMESTAMP_SEC];
    return MIR_OK;
}

static void place_op(mir_plan_op *op, uint32_t at)
{
    op->slot = at;
    op->bit = UINT64_C(1) << (at % 64);
}

static void place_time(compiler *with, const mir_plan_node *root, mir_plan_op *ops)
{
    for (uint32_t i = 0; i < 2 && with->time_ops != NULL; i++) {
        place_op(&with->time_ops[i], with->time_ops[i].slot + root->slot_end);
    }
    for (uint32_t i = 0; i < root->op_count && with->time_tag != 0; i++) {
        if (ops[i].tag == with->time_tag) place_op(&ops[i], root->slot_end);
    }
}

typedef struct node_builder {
    mir_plan_node *node;
    mir_plan_op *ops;
    uint32_t *oneof_states; /* 1 + state */
    mir_view path;
} node_builder;

static mir_status put_op(compiler *with, node_builder *to, mir_plan_op op)
{
    if (with->op_count++ == OPS_MAX) return too_large(with, "fields of fields", OPS_MAX);
    to->ops[to->node->op_count++] = op;
    return MIR_OK;
}

static mir_status compile_list(compiler *with, frame_builder *frame, node_builder *to,
                               const mir_schema_field *field,
                               mir_plan_op op) // NOLINT(misc-no-recursion)
{
    mir_status status = make_name(with, to->path, field, "_", &op.name, &op.name_size);
    if (status != MIR_OK) return status;
    op.slot = frame->state_count++;
    to->node->has_dynamic = true;
    if (field->is_map) {
        bool is_cut = false;
        status = compile_map(with, field, &op, &is_cut);
        return status != MIR_OK || is_cut ? status : put_op(with, to, op);
    }
    if (field->message != NULL) {
        if (is_open(with, field->message)) return MIR_OK;
        op.code = MIR_OP_LIST_MESSAGE;
        mir_plan_frame *elements = NULL;
        status = compile_frame(with, field->message, false, &elements);
        op.frame = elements;
        return status != MIR_OK ? status : put_op(with, to, op);
    }
    op.code = MIR_OP_LIST;
    op.element = scalar_code(field->kind);
    op.type = column_type(field->kind);
    status = put_op(with, to, op);
    if (status != MIR_OK || mir_schema_wire_type(field->kind) == MIR_PBWIRE_BYTES) return status;
    op.code = MIR_OP_LIST_PACKED;
    op.tag = mir_pbwire_make_tag(field->number, MIR_PBWIRE_BYTES);
    return put_op(with, to, op);
}

static mir_status compile_field(compiler *with, frame_builder *frame, node_builder *to,
                                const mir_schema_field *field,
                                const mir_schema_field *time) // NOLINT(misc-no-recursion)
{
    if (field->kind == MIR_KIND_GROUP) return MIR_OK;
    mir_plan_op op = {.tag = mir_pbwire_make_tag(field->number, mir_schema_wire_type(field->kind))};
    if (field == time) {
        bool is_time = false;
        mir_status status = compile_time(with, field, &op, &is_time);
        if (status != MIR_OK) return status;
        if (is_time) return put_op(with, to, op);
    }
    if (field->is_repeated) return compile_list(with, frame, to, field, op);
    if (field->oneof >= 0) {
        uint32_t *state = &to->oneof_states[field->oneof];
        if (*state == 0) *state = 1 + frame->state_count++;
        op.oneof = *state;
    }
    if (field->message != NULL) {
        if (is_open(with, field->message)) return MIR_OK;
        const char *name = NULL;
        uint32_t name_size = 0;
        mir_status status = make_name(with, to->path, field, ".", &name, &name_size);
        if (status != MIR_OK) return status;
        op.code = MIR_OP_MESSAGE;
        status = compile_node(with, frame, field->message, mir_view_of(name, name_size), &op.node);
        if (status != MIR_OK) return status;
        to->node->has_dynamic = to->node->has_dynamic || op.node->has_dynamic;
        return put_op(with, to, op);
    }
    slot added = {.column.type = column_type(field->kind),
                  .is_plain = !field->has_presence,
                  .is_enum = field->kind == MIR_KIND_ENUM};
    mir_status status =
        make_name(with, to->path, field, "", &added.column.name, &added.column.name_size);
    if (status != MIR_OK) return status;
    op.code = scalar_code(field->kind);
    op.type = added.column.type;
    op.slot = frame->slot_count;
    status = add_slot(with, frame, added);
    return status != MIR_OK ? status : put_op(with, to, op);
}

static mir_status compile_node(compiler *with, frame_builder *frame,
                               const mir_schema_message *message, mir_view path,
                               const mir_plan_node **compiled) // NOLINT(misc-no-recursion)
{
    mir_arena *arena = &with->plan->arena;
    if (with->node_count++ == MIR_PLAN_MESSAGES_MAX) {
        return too_large(with, "messages inside each other", MIR_PLAN_MESSAGES_MAX);
    }
    if (message->field_count > OPS_MAX - with->op_count) {
        return too_large(with, "fields of fields", OPS_MAX);
    }
    node_builder to = {.node = mir_arena_alloc(arena, sizeof *to.node), .path = path};
    to.ops = mir_arena_alloc(arena, 2 * (size_t)message->field_count * sizeof *to.ops + 1);
    to.oneof_states =
        mir_arena_alloc(&with->scratch, message->oneof_count * sizeof *to.oneof_states + 1);
    if (to.node == NULL || to.ops == NULL || to.oneof_states == NULL) return no_memory(with);
    mir_plan_node *node = to.node;
    node->path = (const char *)path.data;
    node->path_size = (uint32_t)path.size;
    node->slot_first = frame->slot_count;
    node->state_first = frame->state_count;
    const mir_schema_field *time =
        frame->is_row && path.size == 0 ? mir_schema_timestamp_field(message) : NULL;
    with->open[with->depth++] = message;
    for (uint32_t i = 0; i < message->field_count; i++) {
        mir_status status = compile_field(with, frame, &to, &message->fields[i], time);
        if (status != MIR_OK) return status;
    }
    with->depth--;
    node->slot_end = frame->slot_count;
    node->state_end = frame->state_count;
    index_ops(node, to.ops);
    if (time != NULL) place_time(with, node, to.ops);
    quicken(node);
    *compiled = node;
    return MIR_OK;
}

mir_status mir_plan_compile(const mir_schema *schema, const mir_schema_message *message,
                            mir_plan **plan, mir_error *error)
{
    MIR_ASSERT(schema != NULL);
    MIR_ASSERT(message != NULL);
    compiler with = {.message = message, .error = error, .scratch.bytes_max = MEMORY_BYTES_MAX};
    with.plan = calloc(1, sizeof *with.plan);
    if (with.plan == NULL) return no_memory(&with);
    atomic_init(&with.plan->reference_count, 1);
    with.plan->arena.bytes_max = MEMORY_BYTES_MAX;
    mir_status status = compile_frame(&with, message, true, &with.plan->frame);
    mir_arena_free(&with.scratch);
    if (status != MIR_OK) {
        mir_plan_unref(with.plan);
        return status;
    }
    *plan = with.plan;
    return MIR_OK;
}

mir_plan *mir_plan_ref(mir_plan *plan)
{
    /* Whoever passes a reference on already holds one, so nothing has to be ordered. */
    unsigned before = atomic_fetch_add_explicit(&plan->reference_count, 1, memory_order_relaxed);
    MIR_ASSERT(before > 0);
    return plan;
}

void mir_plan_unref(mir_plan *plan)
{
    if (plan == NULL) return;
    /* Release: what this holder read comes before; acquire: the last one sees all of them done. */
    unsigned before = atomic_fetch_sub_explicit(&plan->reference_count, 1, memory_order_acq_rel);
    MIR_ASSERT(before > 0);
    if (before != 1) return;
    mir_arena_free(&plan->arena);
    free(plan);
}

const mir_column *mir_plan_columns(const mir_plan *plan, uint32_t *count)
{
    *count = plan->frame->column_count;
    return plan->frame->columns;
}
