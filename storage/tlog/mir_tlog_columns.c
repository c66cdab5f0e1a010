/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_columns.h"

#include <stdlib.h>

#include "mir_hash.h"

int mir_tlog_column_compare(const mir_column *left, const mir_column *right)
{
    const int order = mir_view_compare(mir_tlog_column_name(left), mir_tlog_column_name(right));
    return order != 0 ? order : (int)left->type - (int)right->type;
}

static uint32_t slot_of(const mir_tlog_columns *set, mir_view name, mir_column_type type)
{
    uint32_t slot = ((uint32_t)mir_hash_view(name) + (uint32_t)type) & (set->slot_count - 1);
    for (; set->slots[slot] != 0; slot = (slot + 1) & (set->slot_count - 1)) {
        const mir_column *column = &set->columns[set->slots[slot] - 1];
        if (column->type == type && mir_view_eq(name, mir_tlog_column_name(column))) break;
    }
    return slot;
}

static mir_status grow(mir_tlog_columns *set)
{
    const uint32_t capacity = set->capacity == 0 ? 16 : set->capacity * 2;
    mir_column *columns = realloc(set->columns, capacity * sizeof *columns);
    if (columns == NULL) return MIR_E_NO_MEMORY;
    set->columns = columns;
    uint32_t *slots = calloc((size_t)capacity * 2, sizeof *slots);
    if (slots == NULL) return MIR_E_NO_MEMORY;
    free(set->slots);
    set->slots = slots;
    set->slot_count = capacity * 2;
    set->capacity = capacity;
    for (uint32_t i = 0; i < set->count; i++) {
        slots[slot_of(set, mir_tlog_column_name(&columns[i]), columns[i].type)] = i + 1;
    }
    return MIR_OK;
}

mir_status mir_tlog_columns_number(mir_tlog_columns *set, mir_view name, mir_column_type type,
                                   uint32_t *number)
{
    if (set->slot_count > 0) {
        const uint32_t slot = slot_of(set, name, type);
        if (set->slots[slot] != 0) {
            *number = set->slots[slot] - 1;
            return MIR_OK;
        }
    }
    if (set->count == set->capacity) {
        const mir_status status = grow(set);
        if (status != MIR_OK) return status;
    }
    const uint32_t slot = slot_of(set, name, type);
    set->columns[set->count] = (mir_column){(const char *)name.data, (uint32_t)name.size, type};
    *number = set->count++;
    set->slots[slot] = set->count;
    return MIR_OK;
}

void mir_tlog_columns_reset(mir_tlog_columns *set)
{
    if (set->count != 0) memset(set->slots, 0, set->slot_count * sizeof *set->slots);
    set->count = 0;
}

void mir_tlog_columns_free(mir_tlog_columns *set)
{
    free(set->columns);
    free(set->slots);
    *set = (mir_tlog_columns){0};
}
