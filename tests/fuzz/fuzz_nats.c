/* SPDX-License-Identifier: Apache-2.0 */
/* A stream of the NATS protocol gives the same operations however it is cut. Input: one byte of
 * direction and line limit, one byte that seeds the cuts, then the stream. */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_nats.h"

enum { OPS_MAX = 4096 };

typedef struct result {
    mir_nats_op ops[OPS_MAX];
    size_t at[OPS_MAX];
    unsigned count;
    mir_nats_outcome last;
} result;

static mir_nats_outcome parse_some(const uint8_t *data, size_t size, unsigned mode, mir_nats_op *op)
{
    size_t line_max = (mode & 2) != 0 ? 24 : 4096;
    return (mode & 1) != 0 ? mir_nats_parse_server(data, size, line_max, op)
                           : mir_nats_parse(data, size, line_max, op);
}

static size_t body_bytes(const mir_nats_op *op)
{
    switch (op->kind) {
    case MIR_NATS_PUB:
    case MIR_NATS_HPUB:
    case MIR_NATS_MSG:
    case MIR_NATS_HMSG: return (size_t)op->total_size + 2;
    default: return 0;
    }
}

static void check_view(mir_view view, const uint8_t *data, size_t size)
{
    if (view.size == 0) return;
    MIR_ASSERT(view.data >= data && view.data + view.size <= data + size);
}

static void run(const uint8_t *data, size_t size, unsigned mode, unsigned seed, bool cut, result *r)
{
    size_t at = 0, have = cut ? 0 : size;
    r->count = 0;
    for (;;) {
        mir_nats_op op;
        /* A block of its own, so that a read past what has arrived is found. */
        uint8_t *piece = malloc(have - at + 1);
        MIR_ASSERT(piece != NULL);
        uint8_t *exact = realloc(piece, have > at ? have - at : 1);
        MIR_ASSERT(exact != NULL);
        if (have > at) memcpy(exact, data + at, have - at);
        r->last = parse_some(exact, have - at, mode, &op);
        if (r->last == MIR_NATS_DONE) {
            MIR_ASSERT(op.line_bytes >= 1 && op.line_bytes <= have - at);
            MIR_ASSERT(exact[op.line_bytes - 1] == '\n');
            MIR_ASSERT(op.header_size <= op.total_size);
            mir_view *views[] = {&op.subject, &op.reply, &op.queue, &op.sid, &op.text};
            for (unsigned i = 0; i < sizeof views / sizeof views[0]; i++) {
                check_view(*views[i], exact, op.line_bytes);
                if (views[i]->size != 0)
                    views[i]->data = data + at + (size_t)(views[i]->data - exact);
            }
        }
        free(exact);
        if (r->last == MIR_NATS_NEED_MORE && have < size) {
            seed = seed * 1664525u + 1013904223u;
            size_t step = 1 + (seed >> 8) % 13;
            have = size - have < step ? size : have + step;
            continue;
        }
        if (r->last != MIR_NATS_DONE || r->count == OPS_MAX) return;
        r->at[r->count] = at;
        r->ops[r->count++] = op;
        size_t used = op.line_bytes + body_bytes(&op);
        if (used > size - at) return;
        at += used;
        if (have < at) have = at;
    }
}

static bool same_op(const mir_nats_op *a, const mir_nats_op *b)
{
    return a->kind == b->kind && a->line_bytes == b->line_bytes &&
           mir_view_eq(a->subject, b->subject) && mir_view_eq(a->reply, b->reply) &&
           mir_view_eq(a->queue, b->queue) && mir_view_eq(a->sid, b->sid) &&
           mir_view_eq(a->text, b->text) && a->header_size == b->header_size &&
           a->total_size == b->total_size && a->max == b->max && a->has_max == b->has_max;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 2) return 0;
    static result whole, pieces;
    run(data + 2, size - 2, data[0], 0, false, &whole);
    run(data + 2, size - 2, data[0], data[1], true, &pieces);
    MIR_ASSERT(whole.count == pieces.count);
    MIR_ASSERT(whole.last == pieces.last);
    for (unsigned i = 0; i < whole.count; i++) {
        MIR_ASSERT(whole.at[i] == pieces.at[i]);
        MIR_ASSERT(same_op(&whole.ops[i], &pieces.ops[i]));
    }
    return 0;
}
