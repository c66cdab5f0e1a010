/* SPDX-License-Identifier: Apache-2.0 */
/* Header blocks and subjects: views stay inside, and the answers about subjects agree with each
 * other. Input: texts separated by zero bytes: a header block, a name, then three subjects. */
#include <stdint.h>
#include <string.h>

#include "mir_assert.h"
#include "mir_nats.h"

static mir_view next_text(const uint8_t **at, const uint8_t *end)
{
    const uint8_t *start = *at;
    size_t left = (size_t)(end - start);
    const uint8_t *zero = left == 0 ? NULL : memchr(start, 0, left);
    const uint8_t *stop = zero == NULL ? end : zero;
    *at = zero == NULL ? end : zero + 1;
    return (mir_view){start, (size_t)(stop - start)};
}

static void check_header(mir_view block, mir_view wanted)
{
    size_t at = 0, before = 0;
    mir_view name, value, found = {NULL, 0};
    bool is_there = false;
    while (mir_nats_header_next(block, &at, &name, &value)) {
        MIR_ASSERT(at > before && at <= block.size);
        before = at;
        MIR_ASSERT(name.data >= block.data && name.data + name.size <= block.data + block.size);
        MIR_ASSERT(value.data >= block.data && value.data + value.size <= block.data + block.size);
        MIR_ASSERT(name.size == 0 || memchr(name.data, ':', name.size) == NULL);
        MIR_ASSERT(value.size == 0 || memchr(value.data, '\n', value.size) == NULL);
        if (!is_there && mir_view_eq(name, wanted)) {
            is_there = true;
            found = value;
        }
    }
    mir_view answer = mir_nats_header(block, wanted);
    MIR_ASSERT(is_there == (answer.data != NULL));
    if (is_there) MIR_ASSERT(answer.data == found.data && answer.size == found.size);
}

static void check_tokens(mir_view subject)
{
    unsigned count = mir_nats_token_count(subject);
    size_t at = 0;
    for (unsigned i = 0; i < count; i++) {
        mir_view token = mir_nats_token(subject, i);
        MIR_ASSERT(token.data == subject.data + at);
        at += token.size;
        if (i + 1 < count) MIR_ASSERT(subject.data[at] == '.');
        at++;
    }
    if (subject.size == 0)
        MIR_ASSERT(count == 0);
    else
        MIR_ASSERT(at == subject.size + 1);
    MIR_ASSERT(mir_nats_token(subject, count).size == 0);
    if (mir_nats_subject_literal(subject)) MIR_ASSERT(mir_nats_subject_valid(subject));
}

static void check_subjects(mir_view a, mir_view b, mir_view literal)
{
    check_tokens(a);
    check_tokens(b);
    check_tokens(literal);
    if (!mir_nats_subject_valid(a) || !mir_nats_subject_valid(b)) return;
    MIR_ASSERT(mir_nats_subset(a, a) && mir_nats_overlap(a, a));
    MIR_ASSERT(mir_nats_overlap(a, b) == mir_nats_overlap(b, a));
    if (mir_nats_subset(a, b)) MIR_ASSERT(mir_nats_overlap(a, b));
    if (!mir_nats_subject_literal(literal)) return;
    MIR_ASSERT(mir_nats_match(a, literal) == mir_nats_subset(literal, a));
    MIR_ASSERT(mir_nats_match(a, literal) == mir_nats_overlap(a, literal));
    if (mir_nats_match(a, literal)) {
        if (mir_nats_match(b, literal)) MIR_ASSERT(mir_nats_overlap(a, b));
        if (mir_nats_subset(a, b)) MIR_ASSERT(mir_nats_match(b, literal));
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    const uint8_t *at = data, *end = data + size;
    if (size == 0) return 0;
    mir_view block = next_text(&at, end), name = next_text(&at, end);
    mir_view a = next_text(&at, end), b = next_text(&at, end), literal = next_text(&at, end);
    check_header(block, name);
    check_subjects(a, b, literal);
    return 0;
}
