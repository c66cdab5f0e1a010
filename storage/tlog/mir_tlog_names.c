/* SPDX-License-Identifier: Apache-2.0 */
#include <stdlib.h>

#include "mir_hash.h"
#include "mir_tlog_columns.h"
#include "mir_tlog_internal.h"
#include "mir_tlog_rollup.h"

/* What has data: names of measurements, of their fields and of the devices that have them. */

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
    return mir_view_compare(*(const mir_view *)a, *(const mir_view *)b);
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

/* A set for each type, or the same for all. */
typedef struct field_sets {
    name_set *of[MIR_COLUMN_STRING + 1];
} field_sets;

static void field_add(const field_sets *sets, const mir_column *column)
{
    name_add(sets->of[column->type], mir_view_of(column->name, column->name_size));
}

/* Series of one shape mostly have the same columns: one that was complete speaks for the rest. */
static void series_fields(const field_sets *sets, const mir_tlog_mem_series *series,
                          const mir_tlog_shape **complete)
{
    const mir_tlog_shape *shape = series->shape;
    const bool all = atomic_load_explicit(&series->seen_all, memory_order_relaxed);
    for (uint32_t i = 0; i < shape->column_count && *complete != shape; i++) {
        if (all || (atomic_load_explicit(&series->seen[i / 64], memory_order_relaxed) >> (i % 64) &
                    1) != 0) {
            field_add(sets, &shape->columns[i]);
        }
    }
    if (all) *complete = shape;
    for (const mir_tlog_extra *extra = atomic_load_explicit(&series->extras, memory_order_acquire);
         extra != NULL; extra = atomic_load_explicit(&extra->next, memory_order_acquire)) {
        field_add(sets, &extra->column);
    }
}

/* What is named of rows that went is in their hours. */
typedef struct looked_for {
    mir_view name; /* in a segment; empty: not there */
    int64_t since_ns;
    bool rolled;
    char text[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
} looked_for;

static void look_for(looked_for *it, const mir_tlog_segment *segment, mir_view measurement,
                     int64_t since_ns)
{
    const int hour = MIR_TLOG_ROLLUPS - 1;
    const int step = mir_tlog_rollup_step_in(segment);
    it->name = measurement;
    it->since_ns = since_ns;
    it->rolled = step == hour;
    if (step == MIR_TLOG_ROLLUP_NONE) return;
    it->name = it->rolled ? mir_tlog_rollup_measurement(measurement, (uint32_t)hour, it->text)
                          : (mir_view){0};
    const int64_t hour_ns = mir_tlog_rollup_step_ns[hour];
    it->since_ns = since_ns < INT64_MIN + hour_ns ? INT64_MIN : since_ns - hour_ns;
}

static void fields_collect(const mir_tlog_version *version, mir_view measurement, int64_t since_ns,
                           const field_sets *sets)
{
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        looked_for it;
        look_for(&it, segment, measurement, since_ns);
        for (uint32_t i = 0; i < segment->shape_count; i++) {
            const mir_tlog_segment_shape *shape = &segment->shapes[i];
            if (shape->time_max < it.since_ns ||
                !mir_view_eq(segment->measurements[shape->measurement], it.name)) {
                continue;
            }
            for (uint32_t c = 0; c < shape->column_count; c++) {
                mir_column column = shape->columns[c];
                if (it.rolled && !mir_tlog_rollup_column_of(&shape->columns[c], &column)) continue;
                field_add(sets, &column);
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
            series_fields(sets, series, &complete);
        }
    }
}

mir_status mir_tlog_fields(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                           mir_tlog_name_fn sink, void *context, mir_error *error)
{
    name_set set = {0};
    field_sets sets = {{NULL}};
    for (int type = MIR_COLUMN_I64; type <= MIR_COLUMN_STRING; type++) sets.of[type] = &set;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    fields_collect(version, measurement, since_ns, &sets);
    const mir_status status = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    return status;
}

typedef struct typed_sink {
    mir_tlog_column_fn sink;
    void *context;
    mir_column_type type;
} typed_sink;

static mir_status typed_name(void *context, mir_view name)
{
    const typed_sink *to = context;
    const mir_column column = {(const char *)name.data, (uint32_t)name.size, to->type};
    return to->sink(to->context, &column);
}

mir_status mir_tlog_field_types(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                                mir_tlog_column_fn sink, void *context, mir_error *error)
{
    name_set by_type[MIR_COLUMN_STRING + 1] = {0};
    field_sets sets = {{NULL}};
    for (int type = MIR_COLUMN_I64; type <= MIR_COLUMN_STRING; type++)
        sets.of[type] = &by_type[type];
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    fields_collect(version, measurement, since_ns, &sets);
    mir_status status = MIR_OK;
    for (int type = MIR_COLUMN_I64; type <= MIR_COLUMN_STRING; type++) {
        typed_sink to = {sink, context, (mir_column_type)type};
        if (status != MIR_OK) by_type[type].count = 0;
        const mir_status one = names_out(&by_type[type], typed_name, &to, error);
        if (status == MIR_OK) status = one;
    }
    mir_tlog_version_release(version);
    return status;
}

/* Device ids in an index live as long as its block: what is kept is a copy. */
static mir_status segment_devices(mir_tlog_segment *segment, mir_tlog_codec *codec,
                                  mir_view measurement, int64_t since_ns, name_set *set,
                                  mir_arena *arena, uint64_t *blocks_corrupt)
{
    uint32_t wanted = 0;
    looked_for it;
    look_for(&it, segment, measurement, since_ns);
    since_ns = it.since_ns;
    while (wanted < segment->measurement_count &&
           !mir_view_eq(segment->measurements[wanted], it.name)) {
        wanted++;
    }
    if (wanted == segment->measurement_count || segment->time_max < since_ns) return MIR_OK;
    mir_tlog_index_cursor cursor = {.segment = segment};
    while (cursor.next_block + 1 < segment->block_count &&
           segment->blocks[cursor.next_block + 1].measurement < wanted) {
        cursor.next_block++;
    }
    mir_status status = MIR_OK;
    for (;;) {
        status = mir_tlog_index_next(&cursor, codec);
        if (status == MIR_E_CORRUPT) {
            (*blocks_corrupt)++;
            continue;
        }
        if (status != MIR_OK || cursor.measurement > wanted) break;
        int64_t newest = INT64_MIN;
        for (uint32_t i = 0; i < cursor.chunk_count; i++) {
            if (cursor.chunks[i].time_max > newest) newest = cursor.chunks[i].time_max;
        }
        if (cursor.measurement != wanted || newest < since_ns) continue;
        const char *copy = mir_arena_strdup(arena, cursor.device);
        if (copy == NULL) {
            status = MIR_E_NO_MEMORY;
            break;
        }
        name_add(set, mir_view_of(copy, cursor.device.size));
    }
    mir_tlog_index_fini(&cursor);
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

mir_status mir_tlog_devices(mir_tlog *tlog, mir_view measurement, int64_t since_ns,
                            mir_tlog_name_fn sink, void *context, uint64_t *blocks_corrupt,
                            mir_error *error)
{
    name_set set = {0};
    mir_arena arena = {0};
    mir_tlog_codec codec;
    *blocks_corrupt = 0;
    if (mir_tlog_codecs_take(&tlog->codecs, &codec) != MIR_OK) {
        return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    }
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    *blocks_corrupt = mir_tlog_version_damage(tlog, version);
    mir_status status = MIR_OK;
    for (uint32_t s = 0; s < version->segment_count && status == MIR_OK; s++) {
        status = segment_devices(version->segments[s], &codec, measurement, since_ns, &set, &arena,
                                 blocks_corrupt);
    }
    for (uint32_t l = 0; l < version->live_count && status == MIR_OK; l++) {
        for (const mir_tlog_mem_series *series =
                 atomic_load_explicit(&version->lives[l]->mem->all, memory_order_acquire);
             series != NULL; series = series->all_next) {
            if (mir_view_eq(series->shape->measurement, measurement) &&
                atomic_load_explicit(&series->published, memory_order_acquire) != 0 &&
                atomic_load_explicit(&series->time_max, memory_order_relaxed) >= since_ns) {
                name_add(&set, series->device);
            }
        }
    }
    if (status != MIR_OK) {
        set.count = 0;
        (void)mir_error_set(error, status, "the index of a segment cannot be read: %s",
                            mir_status_name(status));
    }
    const mir_status listed = names_out(&set, sink, context, error);
    mir_tlog_version_release(version);
    mir_tlog_codecs_give(&tlog->codecs, &codec);
    mir_arena_free(&arena);
    return status == MIR_OK ? listed : status;
}

mir_status mir_tlog_measurements(mir_tlog *tlog, mir_tlog_name_fn sink, void *context,
                                 mir_error *error)
{
    name_set set = {0};
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    for (uint32_t s = 0; s < version->segment_count; s++) {
        const mir_tlog_segment *segment = version->segments[s];
        for (uint32_t i = 0; i < segment->measurement_count; i++) {
            mir_view name = segment->measurements[i];
            (void)mir_tlog_rollup_step_of(name, &name);
            name_add(&set, name);
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
