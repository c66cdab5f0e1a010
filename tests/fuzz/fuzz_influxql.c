/* SPDX-License-Identifier: Apache-2.0 */
/* Queries of any bytes: what is taken is a tree within its bounds whose texts can be read, what is
 * not comes with a text. */
#include <stdint.h>

#include "mir_assert.h"
#include "mir_influxql.h"

static unsigned sum;

static void touch(mir_view text)
{
    for (size_t i = 0; i < text.size; i++) sum += text.data[i];
}

static void walk_expression(const mir_influxql_expression *term, unsigned depth)
{
    MIR_ASSERT(depth < MIR_INFLUXQL_TERMS_MAX);
    touch(term->name);
    if (term->kind == MIR_INFLUXQL_CALL)
        MIR_ASSERT(mir_influxql_function_name(term->function)[0] != '\0' && term->left != NULL);
    if (term->kind == MIR_INFLUXQL_SIGN) MIR_ASSERT(term->left != NULL && term->right != NULL);
    if (term->left != NULL) walk_expression(term->left, depth + 1);
    if (term->right != NULL) walk_expression(term->right, depth + 1);
}

static void walk_condition(const mir_influxql_condition *condition, unsigned depth)
{
    MIR_ASSERT(depth < MIR_INFLUXQL_TERMS_MAX);
    touch(condition->key);
    touch(condition->value);
    if (condition->kind == MIR_INFLUXQL_TAG)
        MIR_ASSERT(condition->compare >= MIR_INFLUXQL_EQUAL && condition->first == NULL);
    else
        MIR_ASSERT(condition->first != NULL && condition->kind != MIR_INFLUXQL_TIME);
    for (const mir_influxql_condition *c = condition->first; c != NULL; c = c->next)
        walk_condition(c, depth + 1);
}

static void walk(const mir_influxql_statement *s)
{
    MIR_ASSERT(s->field_count <= MIR_INFLUXQL_FIELDS_MAX);
    MIR_ASSERT((s->kind == MIR_INFLUXQL_SELECT) == (s->field_count != 0));
    for (uint32_t i = 0; i < s->field_count; i++) {
        walk_expression(s->fields[i].expression, 0);
        touch(s->fields[i].alias);
    }
    touch(s->database);
    for (uint32_t i = 0; i < s->source_count; i++) {
        touch(s->sources[i].database);
        touch(s->sources[i].policy);
        touch(s->sources[i].name.text);
    }
    for (uint32_t i = 0; i < s->dimension_count; i++) touch(s->dimensions[i].text);
    for (uint32_t i = 0; i < s->key_count; i++) touch(s->keys[i]);
    if (s->condition != NULL) walk_condition(s->condition, 0);
    MIR_ASSERT(s->window_ns == 0 || (s->window_from_ns >= 0 && s->aggregates &&
                                     (uint64_t)s->window_from_ns < s->window_ns));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mir_arena arena = {.bytes_max = 64 << 20};
    mir_influxql_query query;
    mir_error error = {{0}};
    const mir_status status = mir_influxql_parse(
        mir_view_of(data, size), INT64_C(1700000000000000000), &arena, &query, &error);
    if (status == MIR_OK) {
        MIR_ASSERT(query.statement_count > 0);
        for (uint32_t i = 0; i < query.statement_count; i++) walk(&query.statements[i]);
    } else {
        MIR_ASSERT(error.text[0] != '\0');
    }
    mir_arena_free(&arena);
    return 0;
}
