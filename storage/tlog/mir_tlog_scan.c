/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_scan.h"

#include "mir_tlog_rollup_read.h"

#include <inttypes.h>
#include <stdlib.h>

/* Columns of a series are compared each with each other. */
enum { COUNTABLE_COLUMNS_MAX = 32 };

/* Of bytes_max, what one thread may hold of indexes from one device to the next. */
enum { CURSORS_PART = 32 };

/* Rows of one device that take less than this part of bytes_max are put in order at once, or not. */
enum { SPLIT_PART = 8 };

/* From so many rows on, and so many times as many as are wanted, they are looked for in a part of the
 * time first. */
enum { MANY_ROWS = 16384, MANY_TIMES = 4, SHORTER_TIMES = 16 };

typedef struct device_key {
    mir_view id;
    uint32_t number;
} device_key;

static int device_compare(const void *a, const void *b)
{
    const device_key *left = a;
    const device_key *right = b;
    const int order = mir_view_compare(left->id, right->id);
    if (order != 0) return order;
    return left->number < right->number ? -1 : left->number > right->number;
}

mir_status mir_tlog_scan_order(const mir_tlog_query_spec *spec, uint32_t **order, uint32_t *count)
{
    const uint32_t all = spec->device_count;
    device_key *keys = malloc(((size_t)all + 1) * sizeof *keys);
    uint32_t *made = malloc(((size_t)all + 1) * sizeof *made);
    if (keys == NULL || made == NULL) {
        free(keys);
        free(made);
        return MIR_E_NO_MEMORY;
    }
    bool ordered = true;
    for (uint32_t i = 0; i < all; i++) {
        keys[i] = (device_key){spec->device_ids[i], i};
        ordered = ordered && (i == 0 || mir_view_compare(keys[i - 1].id, keys[i].id) < 0);
    }
    if (!ordered) qsort(keys, all, sizeof *keys, device_compare);
    *count = 0;
    for (uint32_t i = 0; i < all; i++) {
        if (i > 0 && mir_view_eq(keys[i].id, keys[i - 1].id)) continue;
        made[(*count)++] = keys[i].number;
    }
    free(keys);
    *order = made;
    return MIR_OK;
}

mir_status mir_tlog_scan_init(mir_tlog_scan *scan)
{
    mir_status status = mir_tlog_codecs_take(&scan->tlog->codecs, &scan->codec);
    if (status == MIR_OK) status = mir_tlog_gather_init(&scan->gather);
    scan->cursors = calloc(scan->version->segment_count + 1, sizeof *scan->cursors);
    if (scan->cursors != NULL && status == MIR_OK) {
        scan->cursor_bytes = (scan->version->segment_count + UINT64_C(1)) * sizeof *scan->cursors;
        status = mir_tlog_scan_take(scan, scan->cursor_bytes);
    }
    if (status == MIR_E_TOO_LARGE) return mir_tlog_scan_failed(scan, status);
    scan->times = malloc(sizeof *scan->times * MIR_TLOG_CHUNK_ROWS_MAX);
    scan->places = malloc(sizeof *scan->places);
    scan->walk = malloc(sizeof *scan->walk);
    scan->dense = malloc(sizeof *scan->dense * MIR_TLOG_CHUNK_ROWS_MAX);
    scan->values = malloc(sizeof *scan->values * MIR_TLOG_CHUNK_ROWS_MAX);
    scan->texts = malloc(sizeof *scan->texts * MIR_TLOG_CHUNK_ROWS_MAX);
    if (status != MIR_OK || scan->cursors == NULL || scan->times == NULL || scan->dense == NULL ||
        scan->places == NULL || scan->walk == NULL || scan->values == NULL || scan->texts == NULL) {
        return mir_tlog_scan_failed(scan, MIR_E_NO_MEMORY);
    }
    scan->measurement = scan->spec->measurement;
    mir_tlog_rollup_scan_init(scan);
    scan->gather.bytes_max = scan->bytes_max;
    scan->gather.shared = scan->bytes;
    scan->gather.fields = scan->spec->fields;
    scan->gather.field_count = scan->spec->field_count;
    scan->gather.renames = scan->spec->renames;
    scan->gather.rename_count = scan->spec->rename_count;
    return MIR_OK;
}

void mir_tlog_scan_fini(mir_tlog_scan *scan)
{
    for (uint32_t i = 0; scan->cursors != NULL && i < scan->version->segment_count; i++) {
        mir_tlog_index_fini(&scan->cursors[i]);
    }
    mir_tlog_scan_give(scan, scan->cursor_bytes);
    mir_tlog_scan_give(scan, (uint64_t)scan->source_capacity * sizeof *scan->sources);
    free(scan->cursors);
    free(scan->sources);
    free(scan->times);
    free(scan->places);
    free(scan->walk);
    free(scan->dense);
    free(scan->values);
    free(scan->texts);
    mir_arena_free(&scan->arena);
    mir_bytes_free(&scan->chunk);
    mir_tlog_gather_fini(&scan->gather);
    mir_tlog_codecs_give(&scan->tlog->codecs, &scan->codec);
}

bool mir_tlog_scan_cancelled(const mir_tlog_scan *scan)
{
    return scan->spec->cancel != NULL &&
           atomic_load_explicit(scan->spec->cancel, memory_order_relaxed);
}

mir_status mir_tlog_scan_take(mir_tlog_scan *scan, uint64_t bytes)
{
    const uint64_t before = atomic_fetch_add_explicit(scan->bytes, bytes, memory_order_relaxed);
    return before + bytes > scan->bytes_max ? MIR_E_TOO_LARGE : MIR_OK;
}

void mir_tlog_scan_give(mir_tlog_scan *scan, uint64_t bytes)
{
    (void)atomic_fetch_sub_explicit(scan->bytes, bytes, memory_order_relaxed);
}

mir_status mir_tlog_scan_failed(mir_tlog_scan *scan, mir_status status)
{
    mir_error *error = &scan->error;
    switch (status) {
    case MIR_OK: return MIR_OK;
    case MIR_E_NO_MEMORY: return mir_error_set(error, status, "out of memory");
    case MIR_E_CANCELLED: return mir_error_set(error, status, "cancelled");
    case MIR_E_FULL:
        return mir_error_set(error, MIR_E_TOO_LARGE,
                             "the answer is larger than %" PRIu64
                             " rows: ask for a shorter time, fewer devices, fewer fields or a "
                             "longer window, or set a limit",
                             scan->spec->rows_max);
    case MIR_E_TOO_LARGE:
        return mir_error_set(error, status,
                             "the answer needs more than %" PRIu64
                             " bytes: ask for a shorter time, fewer devices, fewer fields or a "
                             "longer window",
                             scan->bytes_max);
    default: return mir_error_set(error, status, "reading rows: %s", mir_status_name(status));
    }
}

/* ---- Indexes ---- */

static void cursor_drop(mir_tlog_scan *scan, uint32_t segment)
{
    mir_tlog_index_cursor *cursor = &scan->cursors[segment];
    const uint64_t bytes = mir_tlog_index_held(cursor);
    mir_tlog_index_fini(cursor);
    scan->cursor_bytes -= bytes;
    mir_tlog_scan_give(scan, bytes);
}

mir_status mir_tlog_scan_find(mir_tlog_scan *scan, uint32_t segment, mir_view measurement,
                              mir_view device, const mir_tlog_index_cursor **found)
{
    mir_tlog_index_cursor *cursor = &scan->cursors[segment];
    cursor->segment = scan->version->segments[segment];
    *found = cursor;
    const uint64_t before = mir_tlog_index_held(cursor);
    const mir_status status = mir_tlog_index_find(cursor, &scan->codec, measurement, device);
    const uint64_t after = mir_tlog_index_held(cursor);
    if (after == before) return status;
    scan->cursor_bytes += after - before;
    if (after < before) {
        mir_tlog_scan_give(scan, before - after);
        return status;
    }
    if (mir_tlog_scan_take(scan, after - before) == MIR_OK) return status;
    for (uint32_t i = 0; i < scan->version->segment_count; i++) {
        if (i != segment) cursor_drop(scan, i);
    }
    return mir_tlog_scan_take(scan, 0) == MIR_OK ? status : MIR_E_TOO_LARGE;
}

void mir_tlog_scan_let_go(mir_tlog_scan *scan, uint32_t segment)
{
    if (scan->cursor_bytes > scan->bytes_max / CURSORS_PART) cursor_drop(scan, segment);
}

/* ---- Where the rows are ---- */

static mir_status source_add(mir_tlog_scan *scan, const mir_tlog_source *source)
{
    if (scan->source_count == scan->source_capacity) {
        const uint32_t capacity = scan->source_capacity * 2 + 16;
        const mir_status status = mir_tlog_scan_take(
            scan, (uint64_t)(capacity - scan->source_capacity) * sizeof *scan->sources);
        if (status != MIR_OK) return status;
        mir_tlog_source *more = realloc(scan->sources, capacity * sizeof *more);
        if (more == NULL) return MIR_E_NO_MEMORY;
        scan->sources = more;
        scan->source_capacity = capacity;
    }
    scan->sources[scan->source_count++] = *source;
    return MIR_OK;
}

static void damage(mir_tlog_scan *scan)
{
    scan->chunks_corrupt++;
    mir_tlog_count(&scan->tlog->corrupt_chunks, 1);
}

/* Newest log and series first: when a row is seen, then so are all that were committed before it. */
static mir_status memory_note(mir_tlog_scan *scan, mir_view device)
{
    mir_status status = MIR_OK;
    uint32_t order = UINT32_MAX;
    for (uint32_t i = scan->version->live_count; i > 0 && status == MIR_OK; i--) {
        const mir_tlog_mem *mem = scan->version->lives[i - 1]->mem;
        for (const mir_tlog_mem_series *series = mir_tlog_mem_find(mem, device, scan->measurement);
             series != NULL && status == MIR_OK; series = mir_tlog_mem_find_before(series)) {
            const uint32_t limit = mir_tlog_mem_published(series);
            const uint32_t rows = mir_tlog_mem_rows(series);
            /* The times, read afterwards, are at least as wide as these rows'. */
            const mir_tlog_source source = {
                .limit = limit,
                .rows = rows,
                .time_min = atomic_load_explicit(&series->time_min, memory_order_relaxed),
                .time_max = atomic_load_explicit(&series->time_max, memory_order_relaxed),
                .generation = mem->generation,
                .order = order--,
                .mem = mem,
                .series = series,
            };
            if (source.limit == 0 || source.time_min > scan->gather.time_last ||
                source.time_max < scan->gather.time_first) {
                continue;
            }
            status = source_add(scan, &source);
        }
    }
    return status;
}

static mir_status segment_note(mir_tlog_scan *scan, uint32_t number, mir_view device)
{
    mir_tlog_segment *segment = scan->version->segments[number];
    if (segment->time_max < scan->gather.time_first || segment->time_min > scan->gather.time_last) {
        return MIR_OK;
    }
    const mir_tlog_index_cursor *cursor;
    mir_status status = mir_tlog_scan_find(scan, number, scan->measurement, device, &cursor);
    if (status == MIR_E_CORRUPT || status == MIR_E_IO) damage(scan);
    if (status == MIR_E_NOT_FOUND || status == MIR_E_CORRUPT || status == MIR_E_IO) {
        mir_tlog_scan_let_go(scan, number);
        return MIR_OK;
    }
    for (uint32_t i = 0; status == MIR_OK && i < cursor->chunk_count; i++) {
        const mir_tlog_chunk *chunk = &cursor->chunks[i];
        if (chunk->time_max < scan->gather.time_first || chunk->time_min > scan->gather.time_last) {
            continue;
        }
        const mir_tlog_source source = {
            .time_min = chunk->time_min,
            .time_max = chunk->time_max,
            .generation = chunk->generation,
            .order = scan->source_count,
            .segment = segment,
            .chunk = *chunk,
        };
        status = source_add(scan, &source);
    }
    mir_tlog_scan_let_go(scan, number);
    return status;
}

static int time_compare(const void *a, const void *b)
{
    const mir_tlog_source *left = a;
    const mir_tlog_source *right = b;
    return left->time_min < right->time_min ? -1 : left->time_min > right->time_min;
}

/* By cluster, and in each the later ones last. */
static int cluster_compare(const void *a, const void *b)
{
    const mir_tlog_source *left = a;
    const mir_tlog_source *right = b;
    if (left->cluster != right->cluster) return left->cluster < right->cluster ? -1 : 1;
    if (left->generation != right->generation) {
        return left->generation < right->generation ? -1 : 1;
    }
    return left->order < right->order ? -1 : left->order > right->order;
}

/* All sources of the device within the gather's times, in clusters of ascending time. */
static mir_status sources_find(mir_tlog_scan *scan, mir_view device)
{
    scan->source_count = 0;
    scan->cluster_count = 0;
    mir_status status = memory_note(scan, device);
    for (uint32_t i = 0; i < scan->version->segment_count && status == MIR_OK; i++) {
        status = segment_note(scan, i, device);
    }
    if (status != MIR_OK || scan->source_count == 0) return status;
    qsort(scan->sources, scan->source_count, sizeof *scan->sources, time_compare);
    int64_t until = scan->sources[0].time_max;
    bool alone = true;
    for (uint32_t i = 1; i < scan->source_count; i++) {
        mir_tlog_source *source = &scan->sources[i];
        if (source->time_min > until) {
            scan->cluster_count++;
        } else {
            alone = false;
        }
        source->cluster = scan->cluster_count;
        if (source->time_max > until) until = source->time_max;
    }
    scan->cluster_count++;
    if (!alone) qsort(scan->sources, scan->source_count, sizeof *scan->sources, cluster_compare);
    return MIR_OK;
}

/* ---- Rows ---- */

static mir_status gather_source(mir_tlog_scan *scan, mir_tlog_source *source)
{
    if (mir_tlog_scan_cancelled(scan)) return MIR_E_CANCELLED;
    if (source->lost) return MIR_OK;
    if (source->segment == NULL) {
        return mir_tlog_gather_mem(&scan->gather, source->mem, source->series, source->limit);
    }
    scan->chunk.size = 0;
    mir_status status = mir_tlog_chunk_read(source->segment, &source->chunk, &scan->chunk);
    if (!mir_bytes_ok(&scan->chunk)) mir_bytes_free(&scan->chunk);
    if (status == MIR_OK) {
        status =
            mir_tlog_chunk_decode(&scan->codec, mir_bytes_as_view(&scan->chunk),
                                  &source->segment->shapes[source->chunk.shape], &scan->gather);
    }
    if (status == MIR_OK) {
        status = mir_tlog_gather_count(&scan->gather);
        /* The chunk's texts are all there, whichever of its rows were taken. */
        if (status == MIR_E_TOO_LARGE && scan->gather.text_count > 0) {
            status = mir_tlog_gather_pack_texts(&scan->gather);
        }
        return status;
    }
    if (status != MIR_E_CORRUPT && status != MIR_E_IO) return status;
    damage(scan);
    source->lost = true;
    return MIR_OK;
}

/* Where texts of other sources' rows, which were not taken, may make room: then all of it once more. */
static mir_status gather_source_packed(mir_tlog_scan *scan, mir_tlog_source *source)
{
    mir_tlog_gather *gather = &scan->gather;
    const uint32_t rows = gather->row_count;
    const uint64_t rows_read = gather->rows_read;
    const uint64_t bytes = gather->bytes;
    mir_status status = gather_source(scan, source);
    if (status != MIR_E_TOO_LARGE || gather->text_count == 0) return status;
    status = mir_tlog_gather_cut(gather, rows);
    gather->rows_read = rows_read;
    if (status != MIR_OK) return status;
    return gather->bytes < bytes ? gather_source(scan, source) : MIR_E_TOO_LARGE;
}

/* Sources from `first` to `end` - 1, in order. */
static mir_status gather_sources(mir_tlog_scan *scan, uint32_t first, uint32_t end)
{
    mir_tlog_gather *gather = &scan->gather;
    mir_status status = MIR_OK;
    mir_tlog_gather_reset(gather);
    for (uint32_t i = first; i < end && status == MIR_OK; i++) {
        mir_tlog_source *source = &scan->sources[i];
        if (source->time_min > gather->time_last || source->time_max < gather->time_first) continue;
        status = gather_source_packed(scan, source);
    }
    return status == MIR_OK ? mir_tlog_gather_finish(gather) : status;
}

static mir_status gather_renew(mir_tlog_scan *scan)
{
    const mir_tlog_gather before = scan->gather;
    mir_tlog_gather_fini(&scan->gather);
    const mir_status status = mir_tlog_gather_init(&scan->gather);
    scan->gather.fields = before.fields;
    scan->gather.field_count = before.field_count;
    scan->gather.renames = before.renames;
    scan->gather.rename_count = before.rename_count;
    scan->gather.numbers_only = before.numbers_only;
    scan->gather.bytes_max = before.bytes_max;
    scan->gather.shared = before.shared;
    return status;
}

/* Rows of one cluster within a time go to `take`, in as many pieces that follow each other as memory
 * makes of them: where it has no room for all of them at once, one half is done after the other. */
static mir_status cluster_each(mir_tlog_scan *scan, uint32_t first, uint32_t end, int64_t first_ns,
                               int64_t last_ns, mir_status (*take)(void *context), void *context)
{
    mir_tlog_gather *gather = &scan->gather;
    gather->time_first = first_ns;
    gather->time_last = last_ns;
    mir_status status = gather_sources(scan, first, end);
    /* What others hold does not become less by that. */
    if (status == MIR_E_TOO_LARGE && first_ns < last_ns &&
        gather->bytes >= scan->bytes_max / SPLIT_PART) {
        const int64_t middle_ns =
            (int64_t)((uint64_t)first_ns + ((uint64_t)last_ns - (uint64_t)first_ns) / 2);
        status = gather_renew(scan);
        if (status == MIR_OK)
            status = cluster_each(scan, first, end, first_ns, middle_ns, take, context);
        if (status != MIR_OK) return status;
        return cluster_each(scan, first, end, middle_ns + 1, last_ns, take, context);
    }
    scan->rows_read += gather->rows_read;
    gather->rows_read = 0;
    return status == MIR_OK && gather->row_count > 0 ? take(context) : status;
}

/* The same for all that is wanted of the cluster. */
static mir_status cluster_take(mir_tlog_scan *scan, uint32_t first, uint32_t end,
                               mir_status (*take)(void *context), void *context)
{
    const int64_t wanted_first = scan->gather.time_first;
    const int64_t wanted_last = scan->gather.time_last;
    int64_t first_ns = INT64_MAX;
    int64_t last_ns = INT64_MIN;
    for (uint32_t i = first; i < end; i++) {
        if (scan->sources[i].time_min < first_ns) first_ns = scan->sources[i].time_min;
        if (scan->sources[i].time_max > last_ns) last_ns = scan->sources[i].time_max;
    }
    if (first_ns < wanted_first) first_ns = wanted_first;
    if (last_ns > wanted_last) last_ns = wanted_last;
    const mir_status status = cluster_each(scan, first, end, first_ns, last_ns, take, context);
    scan->gather.time_first = wanted_first;
    scan->gather.time_last = wanted_last;
    return status;
}

/* How many rows of a cluster are in the range for certain. */
static uint64_t rows_certain(const mir_tlog_scan *scan, uint32_t first, uint32_t end)
{
    const mir_tlog_source *source = &scan->sources[first];
    const bool whole = end - first == 1 && source->segment != NULL &&
                       source->time_min >= scan->gather.time_first &&
                       source->time_max <= scan->gather.time_last;
    /* A row without any of the wanted fields is no row of the answer. */
    return whole && scan->gather.field_count == 0 ? source->chunk.rows : 0;
}

/* How many of the first, or backward the last, sources must be taken for so many rows, if those that
 * were taken before have none of them. */
static uint32_t sources_narrow(const mir_tlog_scan *scan, uint32_t taken, uint64_t limit,
                               bool backward)
{
    uint64_t rows = 0;
    const uint32_t count = scan->source_count;
    while (taken < count && rows < limit) {
        const uint32_t at = backward ? count - 1 - taken : taken;
        const uint32_t cluster = scan->sources[at].cluster;
        uint32_t low = at;
        uint32_t high = at + 1;
        while (low > 0 && scan->sources[low - 1].cluster == cluster) low--;
        while (high < count && scan->sources[high].cluster == cluster) high++;
        rows += rows_certain(scan, low, high);
        taken += high - low;
    }
    return taken;
}

static uint64_t rows_at_most(const mir_tlog_scan *scan, uint32_t first, uint32_t end)
{
    uint64_t rows = 0;
    for (uint32_t i = first; i < end; i++) {
        const mir_tlog_source *source = &scan->sources[i];
        rows += source->segment == NULL ? source->rows : source->chunk.rows;
    }
    return rows;
}

/* Adds the rows of sources within a time to those that are there. */
static mir_status rows_add(mir_tlog_scan *scan, uint32_t first, uint32_t end, int64_t first_ns,
                           int64_t last_ns)
{
    mir_tlog_gather *gather = &scan->gather;
    const int64_t wanted_first = gather->time_first;
    const int64_t wanted_last = gather->time_last;
    mir_status status = MIR_OK;
    gather->time_first = first_ns;
    gather->time_last = last_ns;
    for (uint32_t i = first; i < end && status == MIR_OK; i++) {
        mir_tlog_source *source = &scan->sources[i];
        if (source->time_min > last_ns || source->time_max < first_ns) continue;
        status = gather_source(scan, source);
    }
    gather->time_first = wanted_first;
    gather->time_last = wanted_last;
    return status == MIR_OK ? mir_tlog_gather_finish(gather) : status;
}

/* The first rows of sources, or backward the last ones, until there are `limit`: of many more a time
 * after the other, each longer than the one before, so that what is not wanted takes no room. */
static mir_status rows_take(mir_tlog_scan *scan, uint32_t first, uint32_t end, uint64_t limit,
                            bool backward)
{
    const mir_tlog_gather *gather = &scan->gather;
    const uint64_t rows = rows_at_most(scan, first, end);
    int64_t from_ns = INT64_MAX;
    int64_t to_ns = INT64_MIN;
    for (uint32_t i = first; i < end; i++) {
        if (scan->sources[i].time_min < from_ns) from_ns = scan->sources[i].time_min;
        if (scan->sources[i].time_max > to_ns) to_ns = scan->sources[i].time_max;
    }
    if (from_ns < gather->time_first) from_ns = gather->time_first;
    if (to_ns > gather->time_last) to_ns = gather->time_last;
    const uint64_t whole_ns = (uint64_t)to_ns - (uint64_t)from_ns;
    uint64_t span_ns = whole_ns;
    if (rows > MANY_ROWS && limit - gather->row_count < rows / MANY_TIMES) {
        const double part = (double)(limit - gather->row_count + 1) * MANY_TIMES / 2 / (double)rows;
        span_ns = (uint64_t)((double)whole_ns * part);
    }
    mir_status status = MIR_OK;
    while (status == MIR_OK && gather->row_count < limit) {
        const uint32_t before = gather->row_count;
        const bool is_rest = span_ns >= (uint64_t)to_ns - (uint64_t)from_ns;
        int64_t cut_ns = backward ? from_ns : to_ns;
        if (!is_rest) {
            cut_ns = backward ? (int64_t)((uint64_t)to_ns - span_ns)
                              : (int64_t)((uint64_t)from_ns + span_ns);
        }
        status = backward ? rows_add(scan, first, end, cut_ns, to_ns)
                          : rows_add(scan, first, end, from_ns, cut_ns);
        if (status == MIR_E_TOO_LARGE && span_ns > 0 && limit != UINT64_MAX &&
            gather->bytes >= scan->bytes_max / SPLIT_PART) {
            /* There are more in this time than elsewhere. */
            span_ns = (is_rest ? (uint64_t)to_ns - (uint64_t)from_ns : span_ns) / SHORTER_TIMES;
            status = mir_tlog_gather_cut(&scan->gather, before);
            continue;
        }
        if (is_rest) return status;
        if (backward) {
            to_ns = cut_ns - 1;
        } else {
            from_ns = cut_ns + 1;
        }
        span_ns = span_ns > UINT64_MAX / MANY_TIMES - 1 ? UINT64_MAX : (span_ns + 1) * MANY_TIMES;
    }
    return status;
}

mir_status mir_tlog_scan_rows(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                              int64_t last_ns, uint64_t limit, bool backward)
{
    scan->gather.time_first = first_ns;
    scan->gather.time_last = last_ns;
    mir_tlog_gather_reset(&scan->gather);
    if (limit == 0) limit = UINT64_MAX;
    mir_status status = sources_find(scan, device);
    uint32_t taken = 0;
    /* Damaged chunks have none of their rows: then there is more to take. */
    while (status == MIR_OK && taken < scan->source_count && scan->gather.row_count < limit) {
        const uint32_t before = taken;
        taken = sources_narrow(scan, before, limit - scan->gather.row_count, backward);
        const uint32_t first = backward ? scan->source_count - taken : before;
        status = rows_take(scan, first, first + (taken - before), limit, backward);
    }
    scan->rows_read += scan->gather.rows_read;
    scan->gather.rows_read = 0;
    return mir_tlog_scan_failed(scan, status);
}

/* Whoever takes rows has words of its own for what goes wrong there. */
typedef struct piece_taker {
    mir_status (*take)(void *context);
    void *context;
    mir_status status;
} piece_taker;

static mir_status piece_give(void *context)
{
    piece_taker *to = context;
    return to->status = to->take(to->context);
}

mir_status mir_tlog_scan_pieces(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                int64_t last_ns, mir_status (*take)(void *context), void *context)
{
    piece_taker to = {take, context, MIR_OK};
    scan->gather.time_first = first_ns;
    scan->gather.time_last = last_ns;
    mir_status status = sources_find(scan, device);
    for (uint32_t at = 0; at < scan->source_count && status == MIR_OK;) {
        const uint32_t first = at;
        const uint32_t cluster = scan->sources[at].cluster;
        while (at < scan->source_count && scan->sources[at].cluster == cluster) at++;
        status = cluster_take(scan, first, at, piece_give, &to);
    }
    return to.status != MIR_OK ? to.status : mir_tlog_scan_failed(scan, status);
}

/* ---- Totals ---- */

static mir_status totals_texts(mir_tlog_scan *scan, mir_tlog_totals *totals,
                               const mir_tlog_gather_column *column, uint32_t count)
{
    for (uint32_t i = 0; i < count; i++) {
        scan->texts[i] = scan->gather.texts[scan->values[i]];
    }
    const mir_tlog_run run = {.times.list = scan->dense, .count = count, .texts = scan->texts};
    return mir_tlog_totals_take(totals, column->name, column->type, &run);
}

/* One column of a finished gather, in pieces that the scratch arrays hold. */
static mir_status totals_column(mir_tlog_scan *scan, mir_tlog_totals *totals,
                                const mir_tlog_gather_column *column)
{
    const mir_tlog_gather *gather = &scan->gather;
    mir_status status = MIR_OK;
    for (uint32_t row = 0; row < gather->row_count && status == MIR_OK;) {
        const uint32_t first = row;
        uint32_t count = 0;
        for (; row < gather->row_count && row - first < MIR_TLOG_CHUNK_ROWS_MAX; row++) {
            if (column->present[row] == 0) continue;
            scan->dense[count] = gather->times[row];
            scan->values[count++] = column->values[row];
        }
        if (count == 0) continue;
        const mir_tlog_run run = {
            .times.list = scan->dense, .count = count, .values = scan->values};
        status = column->type == MIR_COLUMN_STRING
                     ? totals_texts(scan, totals, column, count)
                     : mir_tlog_totals_take(totals, column->name, column->type, &run);
    }
    return status;
}

typedef struct totals_taker {
    mir_tlog_scan *scan;
    mir_tlog_totals *totals;
} totals_taker;

static mir_status totals_gathered(void *context)
{
    const totals_taker *to = context;
    const mir_tlog_gather *gather = &to->scan->gather;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < gather->column_count && status == MIR_OK; i++) {
        status = totals_column(to->scan, to->totals, &gather->columns[i]);
    }
    return status == MIR_OK ? mir_tlog_totals_keep_texts(to->totals) : status;
}

/* Rows of the chunk that are in the range. */
typedef struct chunk_part {
    bool whole;
    bool one_window;
    bool placed;      /* scan->places has the times */
    bool timed;       /* scan->times has them */
    int64_t time_min; /* as the index says */
    int64_t time_max;
    uint32_t skip;
    uint32_t end;
} chunk_part;

/* The first of `rows` ascending times that is not before `time_ns`. */
static uint32_t first_from(const mir_tlog_times *times, uint32_t rows, int64_t time_ns)
{
    uint32_t low = 0;
    uint32_t high = rows;
    while (low < high) {
        const uint32_t middle = low + (high - low) / 2;
        if (mir_tlog_time_at(times, middle) < time_ns) {
            low = middle + 1;
        } else {
            high = middle;
        }
    }
    return low;
}

static mir_status part_range(mir_tlog_scan *scan, uint32_t rows, const mir_tlog_times *times,
                             chunk_part *part)
{
    /* Later chunks must have later times, or windows that were done with would change. */
    if (mir_tlog_time_at(times, 0) < part->time_min ||
        mir_tlog_time_at(times, rows - 1) > part->time_max) {
        return MIR_E_CORRUPT;
    }
    part->skip = 0;
    part->end = rows;
    if (part->whole) return MIR_OK;
    part->skip = first_from(times, rows, scan->gather.time_first);
    if (scan->gather.time_last != INT64_MAX) {
        part->end = first_from(times, rows, scan->gather.time_last + 1);
    }
    return MIR_OK;
}

/* The times of the chunk: where they stand will do for windows of many rows. */
static mir_status part_time(mir_tlog_scan *scan, const mir_tlog_chunk_reader *reader,
                            chunk_part *part, bool all)
{
    if (part->timed || (part->placed && !all)) return MIR_OK;
    if (!all && mir_tlog_chunk_time_places(reader, &scan->codec, scan->places) == MIR_OK) {
        const mir_tlog_times times = {.places = scan->places};
        part->placed = true;
        return part_range(scan, reader->rows, &times, part);
    }
    const mir_status status = mir_tlog_chunk_times(reader, &scan->codec, scan->times);
    if (status != MIR_OK) return status;
    part->timed = true;
    const mir_tlog_times times = {.list = scan->times};
    return part_range(scan, reader->rows, &times, part);
}

static bool is_small(const mir_tlog_chunk_reader *reader)
{
    const mir_tlog_column_statistics *s = &reader->statistics;
    const uint64_t half = UINT64_C(1) << 48;
    return s->known && reader->column->type == MIR_COLUMN_I64 && s->low + half < 2 * half &&
           s->high + half < 2 * half;
}

/* The current column's values. */
static mir_status totals_values(mir_tlog_scan *scan, mir_tlog_chunk_reader *reader,
                                chunk_part *part, mir_tlog_totals *totals)
{
    const bool all = reader->bitmap.data != NULL || (totals->functions & MIR_TLOG_RATE) != 0;
    mir_status status = part_time(scan, reader, part, all);
    /* How many there are, their times tell. */
    const bool counted = totals->functions == MIR_TLOG_COUNT;
    bool walked = false;
    if (status == MIR_OK && counted) {
        status = mir_tlog_chunk_pass(reader);
    } else if (status == MIR_OK) {
        walked = is_small(reader) && !all && mir_tlog_totals_sums_only(totals) &&
                 mir_tlog_chunk_walk(reader, &scan->codec, scan->walk) == MIR_OK;
        if (!walked) {
            status = mir_tlog_chunk_values(reader, &scan->codec, scan->values, scan->texts,
                                           &scan->arena);
        }
    }
    if (status != MIR_OK) return status;
    mir_tlog_run run = {
        .times = {.list = part->timed ? scan->times : NULL, .places = scan->places},
        .first = part->skip,
        .count = part->end < part->skip ? 0 : part->end - part->skip,
        .values = scan->values + part->skip,
        .texts = scan->texts + part->skip,
        .small = is_small(reader),
    };
    if (reader->bitmap.data != NULL) {
        /* Values are without gaps: so are their times then. */
        uint32_t at = 0;
        uint32_t count = 0;
        uint32_t first = 0;
        for (uint32_t row = 0; row < part->end; row++) {
            if ((reader->bitmap.data[row / 8] >> (row % 8) & 1) == 0) continue;
            if (row >= part->skip) {
                if (count == 0) first = at;
                scan->dense[count++] = scan->times[row];
            }
            at++;
        }
        run.times.list = scan->dense;
        run.first = 0;
        run.count = count;
        run.values = scan->values + first;
        run.texts = scan->texts + first;
    }
    if (run.count == 0) return MIR_OK;
    if (counted || walked) run.values = NULL;
    if (walked) {
        (void)mir_tlog_ints_walk_sum(scan->walk, part->skip);
        run.walk = scan->walk;
    }
    const mir_column *column = reader->column;
    return mir_tlog_totals_take(totals, mir_tlog_column_name(column), column->type, &run);
}

static mir_status totals_columns(mir_tlog_scan *scan, const mir_tlog_source *source,
                                 chunk_part *part, mir_tlog_totals *totals)
{
    mir_tlog_chunk_reader reader;
    mir_status status = mir_tlog_chunk_begin(&reader, mir_bytes_as_view(&scan->chunk),
                                             &source->segment->shapes[source->chunk.shape]);
    while (status == MIR_OK) {
        status = mir_tlog_chunk_next(&reader);
        if (status != MIR_OK) break;
        const mir_column *column = reader.column;
        const bool full = reader.bitmap.data == NULL;
        if (!mir_tlog_gather_wants(&scan->gather, mir_tlog_column_name(column), column->type)) {
            status = mir_tlog_chunk_pass(&reader);
        } else if (part->one_window && full &&
                   mir_tlog_totals_suffices(totals, column->type, &reader.statistics)) {
            status = mir_tlog_chunk_pass(&reader);
            if (status == MIR_OK) {
                status = mir_tlog_totals_take_statistics(totals, mir_tlog_column_name(column),
                                                         column->type, source->time_min,
                                                         source->time_max, &reader.statistics);
            }
        } else {
            status = totals_values(scan, &reader, part, totals);
        }
    }
    if ((part->timed || part->placed) && part->end > part->skip) {
        scan->rows_read += part->end - part->skip;
    }
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

/* As many values in each of the columns as there are rows. */
static mir_status totals_counted(mir_tlog_scan *scan, const mir_tlog_source *source,
                                 const mir_column *columns, uint32_t column_count, uint32_t rows,
                                 mir_tlog_totals *totals)
{
    const mir_tlog_column_statistics statistics = {.count = rows};
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < column_count && status == MIR_OK; i++) {
        const mir_column *column = &columns[i];
        if (!mir_tlog_gather_wants(&scan->gather, mir_tlog_column_name(column), column->type)) {
            continue;
        }
        status = mir_tlog_totals_take_statistics(totals, mir_tlog_column_name(column), column->type,
                                                 source->time_min, source->time_max, &statistics);
    }
    return status;
}

static bool is_whole(const mir_tlog_scan *scan, const mir_tlog_source *source)
{
    return source->time_min >= scan->gather.time_first &&
           source->time_max <= scan->gather.time_last;
}

static bool is_one_window(const mir_tlog_source *source, const mir_tlog_totals *totals)
{
    return mir_tlog_window_of(totals, source->time_min) ==
           mir_tlog_window_of(totals, source->time_max);
}

static mir_status totals_chunk(mir_tlog_scan *scan, const mir_tlog_source *source,
                               mir_tlog_totals *totals)
{
    chunk_part part = {.whole = is_whole(scan, source),
                       .time_min = source->time_min,
                       .time_max = source->time_max};
    part.one_window = part.whole && is_one_window(source, totals);
    if (part.one_window && source->chunk.full && totals->functions == MIR_TLOG_COUNT) {
        const mir_tlog_segment_shape *shape = &source->segment->shapes[source->chunk.shape];
        return totals_counted(scan, source, shape->columns, shape->column_count, source->chunk.rows,
                              totals);
    }
    if (mir_tlog_scan_cancelled(scan)) return MIR_E_CANCELLED;
    scan->chunk.size = 0;
    mir_status status = mir_tlog_chunk_read(source->segment, &source->chunk, &scan->chunk);
    if (!mir_bytes_ok(&scan->chunk)) mir_bytes_free(&scan->chunk);
    if (status == MIR_OK) status = totals_columns(scan, source, &part, totals);
    /* Columns before a damaged one have been taken. */
    if (status == MIR_OK || status == MIR_E_CORRUPT) {
        const mir_status kept = mir_tlog_totals_keep_texts(totals);
        if (kept != MIR_OK) status = kept;
    }
    mir_arena_free(&scan->arena);
    if (status != MIR_E_CORRUPT && status != MIR_E_IO) return status;
    damage(scan);
    return MIR_OK;
}

static bool columns_known(const mir_tlog_scan *scan, const mir_tlog_source *source,
                          mir_tlog_totals *totals)
{
    const mir_tlog_segment_shape *shape = &source->segment->shapes[source->chunk.shape];
    const uint32_t known = totals->set.count;
    for (uint32_t i = 0; i < shape->column_count; i++) {
        const mir_column *column = &shape->columns[i];
        const mir_view name = mir_tlog_column_name(column);
        if (!mir_tlog_gather_wants(&scan->gather, name, column->type)) continue;
        bool found = false;
        for (uint32_t k = 0; k < known && !found; k++) {
            found = mir_tlog_column_compare(&totals->set.columns[k], column) == 0 &&
                    totals->window_count > 0 && totals->columns[k].totals[0].count > 0;
        }
        if (!found) return false;
    }
    return true;
}

/* Rows of one time order are needed where two columns are one: a chunk may have both. */
static bool has_renamed(const mir_tlog_scan *scan, const mir_tlog_source *source)
{
    if (scan->gather.rename_count == 0) return false;
    const mir_tlog_segment_shape *shape = &source->segment->shapes[source->chunk.shape];
    for (uint32_t i = 0; i < shape->column_count; i++) {
        const mir_view stored = mir_tlog_column_name(&shape->columns[i]);
        if (mir_tlog_gather_name(&scan->gather, stored).data != stored.data) return true;
    }
    return false;
}

/* Whether the values of a series in memory are counted with its rows, without a look at them. */
static bool is_countable(const mir_tlog_scan *scan, const mir_tlog_source *source,
                         const mir_tlog_totals *totals)
{
    const mir_tlog_shape *shape = source->series->shape;
    if (totals->functions != MIR_TLOG_COUNT || !is_whole(scan, source) ||
        !is_one_window(source, totals) || shape->column_count > COUNTABLE_COLUMNS_MAX ||
        scan->gather.rename_count != 0 ||
        atomic_load_explicit(&source->series->uneven, memory_order_relaxed)) {
        return false;
    }
    /* Two columns that are the same are one in the rows. */
    for (uint32_t i = 1; i < shape->column_count; i++) {
        for (uint32_t k = 0; k < i; k++) {
            if (mir_tlog_column_compare(&shape->columns[i], &shape->columns[k]) == 0) return false;
        }
    }
    return true;
}

static mir_status totals_cluster(mir_tlog_scan *scan, uint32_t first, uint32_t end,
                                 mir_tlog_totals *totals)
{
    const mir_tlog_source *source = &scan->sources[first];
    if (end - first == 1 && source->segment == NULL && is_countable(scan, source, totals)) {
        const mir_tlog_shape *shape = source->series->shape;
        return totals_counted(scan, source, shape->columns, shape->column_count, source->rows,
                              totals);
    }
    if (end - first == 1 && scan->sources[first].segment != NULL &&
        !has_renamed(scan, &scan->sources[first])) {
        return totals_chunk(scan, &scan->sources[first], totals);
    }
    totals_taker to = {scan, totals};
    return cluster_take(scan, first, end, totals_gathered, &to);
}

mir_status mir_tlog_scan_totals(mir_tlog_scan *scan, mir_view device, int64_t first_ns,
                                int64_t last_ns, mir_tlog_totals *totals)
{
    /* The last values are looked for from the newest chunk back, until every column has one. */
    const bool last_only = totals->functions == MIR_TLOG_LAST && totals->window_ns == 0;
    int64_t rolled_ns = INT64_MIN;
    mir_status status = MIR_OK;
    if (!last_only) {
        status = mir_tlog_rollup_totals(scan, device, first_ns, last_ns, totals, &rolled_ns);
        if (status != MIR_OK) return status;
    }
    scan->gather.time_first = first_ns;
    scan->gather.time_last = last_ns;
    status = sources_find(scan, device);
    /* What came late is between values that were counted up already. */
    const bool counts_up = (totals->functions & MIR_TLOG_RATE) != 0;
    for (uint32_t i = 0; counts_up && i < scan->source_count; i++) {
        if (scan->sources[i].time_min > rolled_ns) continue;
        mir_tlog_rollup_left_out(scan, rolled_ns + 1);
        break;
    }
    for (uint32_t n = 0; n < scan->source_count && status == MIR_OK;) {
        const uint32_t at = last_only ? scan->source_count - 1 - n : n;
        const uint32_t cluster = scan->sources[at].cluster;
        uint32_t low = at;
        uint32_t high = at + 1;
        while (low > 0 && scan->sources[low - 1].cluster == cluster) low--;
        while (high < scan->source_count && scan->sources[high].cluster == cluster) high++;
        n += high - low;
        if (last_only && high - low == 1 && scan->sources[low].segment != NULL &&
            columns_known(scan, &scan->sources[low], totals)) {
            continue;
        }
        status = totals_cluster(scan, low, high, totals);
    }
    if (status == MIR_OK && last_only) {
        status = mir_tlog_rollup_last(scan, device, first_ns, last_ns, totals);
        if (status != MIR_OK) return status;
    }
    if (status == MIR_OK) mir_tlog_totals_finish(totals);
    return mir_tlog_scan_failed(scan, status);
}
