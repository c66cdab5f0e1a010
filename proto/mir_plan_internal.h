/* SPDX-License-Identifier: Apache-2.0 */
/* The compiled form of a plan, between mir_plan_compile and mir_plan_decode; for nobody else.
 *
 * A frame is a set of cells that are filled together: the row itself, or one element of a list or
 * map of messages. A node is one message type in one place of a frame; messages that are members of
 * each other share a frame, since there can be only one of each. An op tells what to do with one
 * tag in a node. */
#ifndef MIR_PLAN_INTERNAL_H
#define MIR_PLAN_INTERNAL_H

#include <stdatomic.h>

#include "mir_arena.h"
#include "mir_plan.h"

typedef enum mir_plan_code {
    MIR_OP_INT32 = 0,
    MIR_OP_INT64,
    MIR_OP_UINT32,
    MIR_OP_SINT32,
    MIR_OP_SINT64,
    MIR_OP_BOOL,
    MIR_OP_ENUM,
    MIR_OP_LAST_VARINT = MIR_OP_ENUM,
    MIR_OP_FIXED32,
    MIR_OP_SFIXED32,
    MIR_OP_FLOAT,
    MIR_OP_FIXED64,
    MIR_OP_STRING,
    MIR_OP_BYTES,
    MIR_OP_LAST_SCALAR = MIR_OP_BYTES,
    MIR_OP_MESSAGE,
    MIR_OP_LIST,
    MIR_OP_LIST_PACKED,
    MIR_OP_LIST_MESSAGE,
    MIR_OP_MAP,
} mir_plan_code;

typedef struct mir_plan_node mir_plan_node;
typedef struct mir_plan_frame mir_plan_frame;

/* Tag and code of the key and of the value of a map entry. */
typedef struct mir_plan_pair {
    uint32_t tags[2];
    mir_plan_code codes[2]; /* of the value: MIR_OP_MESSAGE when `frame` is set */
    bool key_is_unsigned;
} mir_plan_pair;

/* As large as a cache line, and so quickly indexed. */
typedef struct mir_plan_op {
    uint64_t bit; /* of `slot` in its word */
    uint32_t tag;
    uint8_t code;
    uint8_t element; /* code of an element of a list */
    uint8_t type;    /* mir_column_type of the cell, or of the elements' cells */
    uint32_t slot;   /* the cell; for lists the state that counts the elements */
    uint32_t oneof;  /* 1 + the state that tells which member is set; 0: not in a oneof */
    uint32_t name_size;
    const char *name; /* of lists and maps, within the frame, with the `_` that follows */
    const mir_plan_node *node;
    const mir_plan_frame *frame;
    const mir_plan_pair *pair;
} mir_plan_op;

/* What a byte that is a tag means where that is one number in a cell, and nothing else is to be done. */
typedef struct mir_plan_quick {
    uint8_t code; /* mir_plan_code and 1; 0: look for the op */
    uint8_t slot;
} mir_plan_quick;

struct mir_plan_node {
    const mir_plan_op *ops; /* by ascending tags */
    uint32_t op_count;
    uint32_t slot_first, slot_end; /* of the node and all nodes below it */
    uint32_t state_first, state_end;
    const char *path; /* `a.b.`, within the frame */
    uint32_t path_size;
    bool has_dynamic;          /* lists or maps, here or below */
    uint8_t by_small_tag[128]; /* 1 + index into ops */
    mir_plan_quick quick[128];
};

struct mir_plan_frame {
    const mir_plan_node *root;
    const mir_column *columns;
    const mir_cell *defaults;
    const uint64_t *present; /* of plain fields */
    uint32_t column_count;
    uint32_t word_count;
    uint64_t last_word_mask; /* the bits of columns in the last word */
    uint32_t state_count;
    bool is_never_empty;
};

struct mir_plan {
    atomic_uint reference_count;
    mir_arena arena;
    mir_plan_frame *frame;
    /* The field that gives the time is decoded into the two cells behind the columns: the number,
     * or the seconds; and the nanos. */
    bool has_time;
    bool is_time_unsigned;
    int64_t time_scale; /* nanoseconds in a unit of the first one */
};

#endif
