/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_oracle: what the telemetry log must answer, kept in the simplest way; for tests alone.
 *
 * Why        A list of all fields that were ever stored, in their order, of which the last one of
 *            each (device, time, name, type) counts: nothing in it can be wrong in the way that the
 *            log can be wrong.
 * Affinity   One thread at a time. */
#ifndef MIR_TLOG_ORACLE_H
#define MIR_TLOG_ORACLE_H

#include <stdio.h>
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog.h"
#include "mir_tlog_sim.h"

typedef struct oracle_field {
    uint32_t device;
    mir_column_type type;
    int64_t time_ns;
    char name[24];
    uint64_t bits; /* of a string: its hash */
    uint64_t order;
} oracle_field;

typedef struct oracle {
    oracle_field *fields;
    size_t count;
    size_t capacity;
} oracle;

static inline void oracle_free(oracle *o)
{
    free(o->fields);
    *o = (oracle){0};
}

static inline void oracle_add(oracle *o, uint32_t device, int64_t time_ns, mir_view name,
                              mir_column_type type, const mir_cell *cell)
{
    if (o->count == o->capacity) {
        o->capacity = o->capacity * 2 + 1024;
        o->fields = realloc(o->fields, o->capacity * sizeof *o->fields);
    }
    oracle_field *field = &o->fields[o->count];
    memset(field, 0, sizeof *field);
    field->device = device;
    field->type = type;
    field->time_ns = time_ns;
    field->order = o->count++;
    memcpy(field->name, name.data, name.size);
    switch (type) {
    case MIR_COLUMN_I64: field->bits = (uint64_t)cell->i64; break;
    case MIR_COLUMN_U64: field->bits = cell->u64; break;
    case MIR_COLUMN_F64: memcpy(&field->bits, &cell->f64, 8); break;
    case MIR_COLUMN_BOOL: field->bits = cell->boolean; break;
    case MIR_COLUMN_STRING: field->bits = mir_hash_view(cell->string); break;
    }
}

static inline void oracle_add_row(oracle *o, uint32_t device, const mir_column *columns,
                                  const mir_row *row)
{
    for (uint32_t i = 0; i < row->column_count; i++) {
        if (!mir_row_is_present(row, i)) continue;
        oracle_add(o, device, row->time_ns, mir_view_of(columns[i].name, columns[i].name_size),
                   columns[i].type, &row->cells[i]);
    }
    for (uint32_t i = 0; i < row->dynamic_count; i++) {
        const mir_dynamic_cell *cell = &row->dynamic[i];
        oracle_add(o, device, row->time_ns, cell->name, cell->type, &cell->value);
    }
}

static inline int oracle_compare_key(const oracle_field *left, const oracle_field *right)
{
    if (left->time_ns != right->time_ns) return left->time_ns < right->time_ns ? -1 : 1;
    if (left->device != right->device) return left->device < right->device ? -1 : 1;
    const int order = strcmp(left->name, right->name);
    return order != 0 ? order : (int)left->type - (int)right->type;
}

static inline int oracle_compare(const void *a, const void *b)
{
    const oracle_field *left = a;
    const oracle_field *right = b;
    const int order = oracle_compare_key(left, right);
    if (order != 0) return order;
    return left->order < right->order ? -1 : left->order > right->order;
}

/* The last of each, in the order of an answer. */
static inline void oracle_fold(oracle *o)
{
    qsort(o->fields, o->count, sizeof *o->fields, oracle_compare);
    size_t to = 0;
    for (size_t i = 0; i < o->count; i++) {
        if (i + 1 < o->count && oracle_compare_key(&o->fields[i], &o->fields[i + 1]) == 0) continue;
        o->fields[to++] = o->fields[i];
    }
    o->count = to;
}

/* A sink that turns an answer into fields. */
typedef struct oracle_sink {
    oracle answer;
    const mir_column *columns; /* valid within the query only: names are copied here */
    char names[64][24];
    mir_column_type types[64];
    uint32_t column_count;
    uint64_t rows;
    int64_t last_time;
    uint32_t last_device;
    bool disordered;
} oracle_sink;

static inline mir_status oracle_columns(void *context, const mir_column *columns, uint32_t count)
{
    oracle_sink *sink = context;
    if (count > 64 || sink->column_count != 0) return MIR_E_TOO_LARGE;
    for (uint32_t i = 0; i < count; i++) {
        (void)snprintf(sink->names[i], sizeof sink->names[i], "%.*s", (int)columns[i].name_size,
                       columns[i].name);
        sink->types[i] = columns[i].type;
        if (i > 0) {
            const int order = strcmp(sink->names[i - 1], sink->names[i]);
            if (order > 0 || (order == 0 && sink->types[i - 1] >= sink->types[i])) {
                sink->disordered = true;
            }
        }
    }
    sink->column_count = count;
    return MIR_OK;
}

static inline mir_status oracle_rows(void *context, const mir_tlog_batch *batch)
{
    oracle_sink *sink = context;
    for (uint32_t row = 0; row < batch->row_count; row++) {
        const int64_t time_ns = batch->times_ns[row];
        const uint32_t device = batch->devices[row];
        if (sink->rows++ > 0 && (time_ns < sink->last_time ||
                                 (time_ns == sink->last_time && device <= sink->last_device))) {
            sink->disordered = true;
        }
        sink->last_time = time_ns;
        sink->last_device = device;
        bool any = false;
        for (uint32_t i = 0; i < batch->column_count; i++) {
            const size_t at = (size_t)row * batch->column_count + i;
            if (batch->present[at] == 0) continue;
            any = true;
            oracle_add(&sink->answer, device, time_ns,
                       mir_view_of(sink->names[i], strlen(sink->names[i])), sink->types[i],
                       &batch->cells[at]);
        }
        if (!any) sink->disordered = true;
    }
    return MIR_OK;
}

static inline mir_tlog_sink oracle_sink_of(oracle_sink *sink)
{
    return (mir_tlog_sink){.context = sink, .columns = oracle_columns, .rows = oracle_rows};
}

#endif
