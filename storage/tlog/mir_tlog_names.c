/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog_columns.h"
#include "mir_tlog_internal.h"

/* What has data: names of measurements and of their fields. */

/* A set of names that live as long as a version. */
typedef struct name_set {
    mir_view *names;
    uint32_t count;
    uint32_t capacity;
    uint32_t *slots;
    uint32_t slot_count;
    bool failed;
} name_set;

static void name_add(name_set *set, mir_view name)
{
    if (set->failed) return;
    if (set->count * 2 >= set->slot_count) {
        const uint32_t slot_count = set->slot_count == 0 ? 64 : set->slot_count * 2;
        uint32_t *slots = calloc(slot_count, sizeof *slots);
        mir_view *names = realloc(set->names, slot_count * sizeof *names);
        if (names != NULL) set->names = names;
        if (slots == NULL || names == NULL) {
            free(slots);
            set->failed = true;
            return;
        }
        for (uint32_t i = 0; i < set->count; i++) {
            uint32_t at = (uint32_t)mir_hash_view(names[i]) & (slot_count - 1);
            while (slots[at] != 0) at = (at + 1) & (slot_count - 1);
            slots[at] = i + 1;
        }
        free(set->slots);
        set->slots = slots;
        set->slot_count = slot_count;
    }
    uint32_t at = (uint32_t)mir_hash_view(name) & (set->slot_count - 1);
    for (; set->slots[at] != 0; at = (at + 1) & (set->slot_count - 1)) {
        if (mir_view_eq(set->names[set->slots[at] - 1], name)) return;
    }
    set->names[set->count++] = name;
    set->slots[at] = set->count;
}

static int name_compare(const void *a, const void *b)
{
    return mir_tlog_view_compare(*(const mir_view *)a, *(const mir_view *)b);
}

static mir_status names_out(name_set *set, mir_tlog_name_fn sink, void *context, mir_error *error)
{
    mir_status status = MIR_OK;
    if (set->failed) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    } else if (set->count > 1) {
        qsort(set->names, set->count, sizeof *set->names, name_compare);
    }
    for (uint32_t i = 0; i < set->count && status == MIR_OK; i++) {
        status = sink(context, set->names[i]);
    }
    free(set->names);
    free(set->slots);
    return status;
}

/* Series of one shape mostly have the same columns: one that was complete speaks for the rest. */
static void series_fields(name_set *set, const mir_tlog_mem_series *series,
                          const mir_tlog_shape **complete)
{
    const mir_tlog_shape *shape = series->shape;
    const bool all = atomic_load_explicit(&series->seen_all, memory_order_relaxed);
    for (uint32_t i = 0; i < shape->column_count && *complete != shape; i++) {
        if (all || (atomic_load_explicit(&series->seen[i / 64], memory_order_relaxed) >> (i % 64) &
                    1) != 0) {
            name_add(set, mir_view_of(shape->columns[i].name, shape->columns[i].name_size));
        }
    }
    if (all) *complete = shape;
    for (const mir_tlog_extra *extra = atomic_load_explicit(&series->extras, memory_order_acquire);
         extra != NULL; extra = atomic_load_explicit(&extra->next, memory_order_acquire)) {
        name_add(set, mir_view_of(extra->column.name, extra->column.name_size));
    }
}

mir_status mir_tlog_fields(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                           mir_tlog_name_fn sink, void *context, mir_error *error)
{
    name_set set = {0};
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        for (uint32_t i = 0; i < segment->shape_count; i++) {
            const mir_tlog_segment_shape *shape = &segment->shapes[i];
            if (shape->time_max < since_ns ||
                !mir_view_eq(segment->measurements[shape->measurement], measurement)) {
                continue;
            }
            for (uint32_t c = 0; c < shape->column_count; c++) {
                name_add(&set, mir_view_of(shape->columns[c].name, shape->columns[c].name_size));
            }
        }
    }
    for (uint32_t l = 0; l < version->live_count; l++) {
        const mir_tlog_shape *complete = NULL;
        const mir_tlog_shape *known = NULL; /* one whose measurement was compared */
        bool wanted = false;
        for (const mir_tlog_mem_series *series =
                 atomic_load_explicit(&version->lives[l]->mem->all, memory_order_acquire);
             series != NULL; series = series->all_next) {
            if (series->shape != known) {
                known = series->shape;
                wanted = mir_view_eq(known->measurement, measurement);
            }
            if (!wanted || atomic_load_explicit(&series->published, memory_order_acquire) == 0 ||
                atomic_load_explicit(&series->time_max, memory_order_relaxed) < since_ns) {
                continue;
            }
            series_fields(&set, series, &complete);
        }
    }
    const mir_status status = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    return status;
}

mir_status mir_tlog_measurements(mir_tlog *tlog, mir_tlog_name_fn sink, void *context,
                                 mir_error *error)
{
    name_set set = {0};
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        for (uint32_t i = 0; i < segment->measurement_count; i++) {
            name_add(&set, segment->measurements[i]);
        }
    }
    for (uint32_t l = 0; l < version->live_count; l++) {
        const mir_tlog_shape *known = NULL;
        for (const mir_tlog_mem_series *series =
                 atomic_load_explicit(&version->lives[l]->mem->all, memory_order_acquire);
             series != NULL; series = series->all_next) {
            if (series->shape == known ||
                atomic_load_explicit(&series->published, memory_order_acquire) == 0) {
                continue;
            }
            known = series->shape;
            name_add(&set, known->measurement);
        }
    }
    const mir_status status = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    return status;
}
