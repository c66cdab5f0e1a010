/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_expire.h"

#include <stdlib.h>
#include <time.h>

#include "mir_clock.h"
#include "mir_hash.h"
#include "mir_tlog_output.h"
#include "mir_tlog_rollup.h"
#include "mir_tlog_sweep.h"

enum { PACE_BYTES = 1 << 20, SLICE_CELLS = 65536 };

/* What is made of a step, and what an earlier run stored of it. */
typedef struct rolling {
    mir_tlog_rollup made;
    mir_tlog_rollup before;
    mir_tlog_gather stored; /* that `before` points into */
    uint64_t generation;    /* of the newest of that, if there is any */
    bool any;
} rolling;

typedef struct expire {
    mir_tlog_expiry *x;
    mir_tlog_index_cursor *cursors; /* of the segments */
    bool *ended;
    mir_tlog_outputs *raw; /* what stays of each */
    mir_tlog_outputs rolled[MIR_TLOG_ROLLUPS];
    mir_tlog_index_cursor *stored_cursors; /* of the version's segments of rollups */
    rolling steps[MIR_TLOG_ROLLUPS];
    mir_tlog_gather rest; /* of a chunk that is cut */
    mir_tlog_gather out;
    mir_tlog_sweep sweep;
    mir_tlog_sweep_list gone; /* chunks of the series that have rows which go */
    mir_tlog_sweep_list earlier;
    int64_t began_ns;
    uint64_t paced;
    uint64_t paced_seen;
} expire;

static bool stopping(const expire *e)
{
    return atomic_load_explicit(&e->x->tlog->stop, memory_order_acquire);
}

/* Waits until what was read and written is no more than the pace allows. */
static void pace(void *context, uint64_t bytes)
{
    expire *e = context;
    e->paced += bytes;
    if (e->paced - e->paced_seen < PACE_BYTES) return;
    e->paced_seen = e->paced;
    const double seconds = (double)e->paced / MIR_TLOG_EXPIRE_BYTES_PER_S;
    const int64_t due_ns = e->began_ns + (int64_t)(seconds * MIR_NS_PER_S);
    while (!stopping(e)) {
        int64_t left_ns = due_ns - mir_clock_mono_ns();
        if (left_ns <= 0) return;
        if (left_ns > 20 * MIR_NS_PER_MS) left_ns = 20 * MIR_NS_PER_MS;
        const struct timespec wait = {.tv_nsec = left_ns};
        (void)nanosleep(&wait, NULL);
    }
}

static bool is_on(const expire *e, uint32_t step)
{
    return e->x->tlog->options.rollups[step].on;
}

/* ---- What rows come to ---- */

/* Whether an earlier run's can be read or not, what is made replaces it. If it is lost already, what is
 * made must not be lost with it; what may be read later is waited for. */
static mir_status unread_note(expire *e, mir_tlog_segment *segment, uint64_t place,
                              mir_status status)
{
    if (status != MIR_E_IO) {
        if (place == segment->unread_place) segment->unread_last_ns = 0; /* it is over */
        return status == MIR_E_CORRUPT || status == MIR_E_NOT_FOUND ? MIR_OK : status;
    }
    const int64_t now_ns = e->x->now_ns;
    /* Not one of a clock that was ahead. */
    const bool again = segment->unread_last_ns != 0 && now_ns >= segment->unread_last_ns &&
                       now_ns - segment->unread_last_ns < MIR_TLOG_UNREAD_NS / 4;
    if (!again) {
        segment->unread_ns = now_ns;
        segment->unread_place = place;
    }
    segment->unread_last_ns = now_ns;
    if (now_ns - segment->unread_ns >= MIR_TLOG_UNREAD_NS) return MIR_OK;
    e->x->unread = true;
    return MIR_OK;
}

/* Rows of the step that were stored by an earlier run, of the steps from first_ns to last_ns. */
static mir_status stored_find(expire *e, uint32_t step, mir_view measurement, mir_view device,
                              int64_t first_ns, int64_t last_ns)
{
    const mir_tlog_version *version = e->x->version;
    const uint64_t place = mir_hash_view(measurement) ^ mir_hash_view(device); /* of its entry */
    mir_status status = MIR_OK;
    e->earlier.count = 0;
    for (uint32_t i = 0; i < version->segment_count && status == MIR_OK; i++) {
        mir_tlog_segment *segment = version->segments[i];
        if (segment->time_min > last_ns || segment->time_max < first_ns ||
            mir_tlog_rollup_step_in(segment) != (int)step) {
            continue;
        }
        mir_tlog_index_cursor *cursor = &e->stored_cursors[i];
        cursor->segment = segment;
        status = mir_tlog_index_find(cursor, e->x->codec, measurement, device);
        const bool found = status == MIR_OK;
        status = unread_note(e, segment, place, status);
        if (!found) continue;
        for (uint32_t c = 0; status == MIR_OK && c < cursor->chunk_count; c++) {
            const mir_tlog_chunk *chunk = &cursor->chunks[c];
            if (chunk->time_min > last_ns || chunk->time_max < first_ns) continue;
            status = mir_tlog_sweep_add(&e->earlier, segment, chunk);
        }
    }
    return status;
}

static mir_status stored_read(expire *e, uint32_t step, mir_view measurement, mir_view device,
                              int64_t first_ns, int64_t last_ns)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const int64_t step_ns = mir_tlog_rollup_step_ns[step];
    rolling *of = &e->steps[step];
    of->any = false;
    of->generation = 0;
    first_ns = mir_tlog_rollup_floor(first_ns, step_ns);
    last_ns = mir_tlog_rollup_floor(last_ns, step_ns);
    mir_status status = stored_find(e, step, mir_tlog_rollup_measurement(measurement, step, name),
                                    device, first_ns, last_ns);
    if (status != MIR_OK || e->earlier.count == 0) return status;
    mir_tlog_sweep_sort_winners(&e->earlier);
    mir_tlog_gather_reset(&of->stored);
    of->any = true;
    of->stored.time_first = first_ns;
    of->stored.time_last = last_ns;
    for (uint32_t i = 0; i < e->earlier.count && status == MIR_OK; i++) {
        const mir_tlog_sweep_chunk *from = &e->earlier.items[i];
        status = mir_tlog_sweep_decode(&e->sweep, from->segment, &from->chunk, &of->stored);
        status = unread_note(e, from->segment, from->chunk.offset, status);
        if (from->chunk.generation > of->generation) of->generation = from->chunk.generation;
    }
    if (status == MIR_OK) status = mir_tlog_gather_finish(&of->stored);
    return status == MIR_OK ? mir_tlog_rollup_decode(&of->before, step, &of->stored, 0, UINT32_MAX)
                            : status;
}

/* Without what has come again since it was rolled up, as far as steps before `end` tell. */
static mir_status repeated_drop(expire *e, uint32_t end)
{
    bool any = false;
    mir_status status = MIR_OK;
    for (uint32_t step = 0; step < end && status == MIR_OK; step++) {
        bool some = false;
        if (e->steps[step].any) {
            status =
                mir_tlog_rollup_drop_repeated(&e->steps[step].before, step, &e->sweep.rows, &some);
        }
        any = any || some;
    }
    return any && status == MIR_OK ? mir_tlog_gather_finish(&e->sweep.rows) : status;
}

/* What the rows come to, in the steps from `first` to `last`, by steps before `known`. */
static mir_status rows_roll(expire *e, int64_t first_ns, int64_t last_ns, uint32_t known,
                            uint32_t first, uint32_t last)
{
    for (uint32_t step = first; step <= last; step++) mir_tlog_rollup_clear(&e->steps[step].made);
    mir_tlog_sweep_begin(&e->sweep, &e->gone, first_ns, last_ns);
    mir_status status;
    while ((status = mir_tlog_sweep_next(&e->sweep)) == MIR_OK) {
        if (stopping(e)) return MIR_E_CANCELLED;
        const uint32_t count = e->sweep.rows.row_count;
        status = repeated_drop(e, known);
        if (known == MIR_TLOG_ROLLUPS) e->x->rows_repeated += count - e->sweep.rows.row_count;
        for (uint32_t step = first; step <= last && status == MIR_OK; step++) {
            if (!is_on(e, step)) continue;
            mir_tlog_rollup *made = &e->steps[step].made;
            status = mir_tlog_rollup_take(made, step, &e->sweep.rows);
            if (status == MIR_OK && !e->sweep.ended) status = mir_tlog_rollup_keep_texts(made);
        }
        if (status != MIR_OK) return status;
        if (e->sweep.ended) return MIR_OK;
    }
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

static mir_status step_put(expire *e, uint32_t step, mir_view measurement, mir_view device,
                           uint64_t generation, mir_error *error)
{
    char name[MIR_TLOG_ROLLUP_NAME_BYTES_MAX];
    const mir_view stored_as = mir_tlog_rollup_measurement(measurement, step, name);
    rolling *of = &e->steps[step];
    if (of->made.row_count == 0) return MIR_OK;
    bool whole = false;
    mir_status status = MIR_OK;
    if (of->any) {
        if (of->generation >= generation) generation = of->generation + 1;
        status = mir_tlog_rollup_add(&of->made, &of->before, &whole);
    }
    if (status == MIR_OK) status = mir_tlog_rollup_encode(&of->made, whole, &e->out);
    if (status != MIR_OK) return status;
    uint32_t first = 0;
    while (first < e->out.row_count && e->out.times[first] < e->x->kept_from_ns[step]) first++;
    if (first == e->out.row_count) return MIR_OK;
    mir_tlog_output *output = &e->rolled[step].list[0];
    status = mir_tlog_output_ready(&e->rolled[step], output, error);
    if (status == MIR_OK) {
        status = mir_tlog_segment_put(output->writer, e->x->codec, stored_as, device, &e->out,
                                      first, e->out.row_count, generation, error);
    }
    e->x->rollups_made += e->out.row_count - first;
    return status;
}

/* How many hours at once: as many as their cells may be, by how dense they are on the average. */
static int64_t slice_ns(const expire *e, int64_t first_ns, int64_t last_ns)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    double cells = 1;
    for (uint32_t i = 0; i < e->gone.count; i++) {
        const mir_tlog_sweep_chunk *from = &e->gone.items[i];
        cells += (double)from->chunk.rows * from->segment->shapes[from->chunk.shape].column_count;
    }
    const double hours = ((double)last_ns - (double)first_ns) / (double)hour_ns + 1;
    double at_once = hours * SLICE_CELLS / cells;
    if (at_once > hours + 1) at_once = hours + 1;
    if (at_once > 1e6) at_once = 1e6;
    return at_once < 1 ? hour_ns : (int64_t)at_once * hour_ns;
}

/* So many hours from from_ns on, or fewer where they are denser than on the average: what their steps
 * come to is kept in memory. */
static int64_t slice_end(const expire *e, int64_t from_ns, int64_t slice_ns, int64_t horizon_ns)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    for (;; slice_ns = slice_ns / hour_ns / 2 * hour_ns) {
        int64_t to_ns;
        if (__builtin_add_overflow(from_ns, slice_ns, &to_ns) || to_ns > horizon_ns) {
            to_ns = horizon_ns;
        }
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < e->gone.count; i++) {
            const mir_tlog_sweep_chunk *from = &e->gone.items[i];
            if (from->chunk.time_min >= to_ns) break;
            if (from->chunk.time_max >= from_ns) bytes += mir_tlog_sweep_weight(from);
        }
        if (slice_ns < 2 * hour_ns || bytes <= e->sweep.bytes_max) return to_ns;
    }
}

static mir_status slice_roll(expire *e, mir_view measurement, mir_view device, int64_t first_ns,
                             int64_t last_ns, mir_error *error)
{
    uint64_t generation = 0;
    int64_t begins_ns = last_ns;
    int64_t ends_ns = first_ns;
    for (uint32_t i = 0; i < e->gone.count; i++) {
        const mir_tlog_chunk *chunk = &e->gone.items[i].chunk;
        if (chunk->time_min > last_ns) break;
        if (chunk->time_max < first_ns) continue;
        if (chunk->generation > generation) generation = chunk->generation;
        if (chunk->time_min < begins_ns) begins_ns = chunk->time_min;
        if (chunk->time_max > ends_ns) ends_ns = chunk->time_max;
    }
    if (begins_ns < first_ns) begins_ns = first_ns;
    if (ends_ns > last_ns) ends_ns = last_ns;
    if (begins_ns > ends_ns) return MIR_OK;
    mir_status status = MIR_OK;
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS && status == MIR_OK; step++) {
        if (!is_on(e, step)) continue;
        status = stored_read(e, step, measurement, device, begins_ns, ends_ns);
    }
    /* Of all steps it is known since when by now. */
    if (status == MIR_OK && e->x->unread) return MIR_E_IO;
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS && status == MIR_OK; step++) {
        rolling *of = &e->steps[step];
        if (!of->any || !is_on(e, step)) continue;
        status = rows_roll(e, begins_ns, ends_ns, step, step, step);
        if (status == MIR_OK) status = mir_tlog_rollup_compare(&of->made, &of->before);
    }
    if (status == MIR_OK) {
        status = rows_roll(e, begins_ns, ends_ns, MIR_TLOG_ROLLUPS, 0, MIR_TLOG_ROLLUPS - 1);
    }
    for (uint32_t step = 0; step < MIR_TLOG_ROLLUPS && status == MIR_OK; step++) {
        if (is_on(e, step)) status = step_put(e, step, measurement, device, generation, error);
    }
    return status;
}

static mir_status series_roll(expire *e, mir_view measurement, mir_view device,
                              const mir_tlog_end *end, mir_error *error)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    const int64_t horizon_ns = end->horizon_ns;
    mir_tlog_sweep_sort(&e->gone);
    if (e->x->tlog->segments_missing > 0 && e->gone.items[0].chunk.time_min < end->late_ns) {
        e->x->missing = true;
        return MIR_E_NOT_FOUND;
    }
    int64_t from_ns = mir_tlog_rollup_floor(e->gone.items[0].chunk.time_min, hour_ns);
    const int64_t step_ns = slice_ns(e, from_ns, horizon_ns);
    mir_status status = MIR_OK;
    while (from_ns < horizon_ns && status == MIR_OK) {
        if (stopping(e)) return MIR_E_CANCELLED;
        const int64_t to_ns = slice_end(e, from_ns, step_ns, horizon_ns);
        status = slice_roll(e, measurement, device, from_ns, to_ns - 1, error);
        /* To where there are rows again. */
        int64_t next_ns = INT64_MAX;
        for (uint32_t i = 0; i < e->gone.count; i++) {
            const mir_tlog_chunk *chunk = &e->gone.items[i].chunk;
            if (chunk->time_max < to_ns) continue;
            const int64_t begins = chunk->time_min > to_ns ? chunk->time_min : to_ns;
            if (begins < next_ns) next_ns = begins;
        }
        from_ns = next_ns == INT64_MAX ? INT64_MAX : mir_tlog_rollup_floor(next_ns, hour_ns);
    }
    return status;
}

/* ---- What stays ---- */

static mir_status chunk_put(expire *e, mir_tlog_outputs *to, const mir_tlog_index_cursor *cursor,
                            const mir_tlog_chunk *chunk, const mir_tlog_end *end, mir_error *error)
{
    mir_tlog_segment *segment = cursor->segment;
    const mir_view measurement = segment->measurements[cursor->measurement];
    mir_status status;
    if (chunk->time_min >= end->horizon_ns) {
        status = mir_tlog_sweep_read(&e->sweep, segment, chunk);
        if (status != MIR_OK) return status;
        pace(e, chunk->size);
        status = mir_tlog_output_ready(to, &to->list[0], error);
        if (status != MIR_OK) return status;
        return mir_tlog_segment_put_chunk(to->list[0].writer, e->x->codec, measurement,
                                          cursor->device, segment, chunk,
                                          mir_bytes_as_view(&e->sweep.bytes), error);
    }
    mir_tlog_gather_reset(&e->rest);
    e->rest.time_first = end->horizon_ns;
    e->rest.time_last = INT64_MAX;
    status = mir_tlog_sweep_decode(&e->sweep, segment, chunk, &e->rest);
    if (status == MIR_OK) status = mir_tlog_gather_finish(&e->rest);
    if (status != MIR_OK) return status;
    e->x->rows[end->counter] += chunk->rows - e->rest.row_count;
    e->x->rows_gone += chunk->rows - e->rest.row_count;
    if (e->rest.row_count == 0) return MIR_OK;
    status = mir_tlog_output_ready(to, &to->list[0], error);
    if (status != MIR_OK) return status;
    return mir_tlog_segment_put(to->list[0].writer, e->x->codec, measurement, cursor->device,
                                &e->rest, 0, e->rest.row_count, chunk->generation, error);
}

static mir_status advance(expire *e, uint32_t which)
{
    const mir_status status = mir_tlog_index_next(&e->cursors[which], e->x->codec);
    if (status == MIR_E_EMPTY) {
        e->ended[which] = true;
        return MIR_OK;
    }
    mir_tlog_sweep_mark(e->cursors[which].segment, status);
    return status;
}

static int cursor_compare(const mir_tlog_index_cursor *a, const mir_tlog_index_cursor *b)
{
    const int order = mir_view_compare(a->segment->measurements[a->measurement],
                                       b->segment->measurements[b->measurement]);
    return order != 0 ? order : mir_view_compare(a->device, b->device);
}

static mir_status series_expire(expire *e, const bool *here, uint32_t least, mir_error *error)
{
    const mir_tlog_index_cursor *first = &e->cursors[least];
    const mir_view measurement = first->segment->measurements[first->measurement];
    mir_tlog_end end = {0};
    e->x->end_of(e->x->context, measurement, first->device, &end);
    e->gone.count = 0;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
        const mir_tlog_index_cursor *cursor = &e->cursors[i];
        for (uint32_t c = 0; here[i] && c < cursor->chunk_count && status == MIR_OK; c++) {
            if (cursor->chunks[c].time_min >= end.horizon_ns) continue;
            status = mir_tlog_sweep_add(&e->gone, cursor->segment, &cursor->chunks[c]);
        }
    }
    if (status == MIR_OK && end.rolled && e->gone.count > 0) {
        status = series_roll(e, measurement, first->device, &end, error);
    }
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
        const mir_tlog_index_cursor *cursor = &e->cursors[i];
        for (uint32_t c = 0; here[i] && c < cursor->chunk_count && status == MIR_OK; c++) {
            const mir_tlog_chunk *chunk = &cursor->chunks[c];
            if (chunk->time_max >= end.horizon_ns) {
                status = chunk_put(e, &e->raw[i], cursor, chunk, &end, error);
            } else {
                e->x->rows[end.counter] += chunk->rows;
                e->x->rows_gone += chunk->rows;
            }
        }
    }
    return status;
}

static mir_status all_series(expire *e, mir_error *error)
{
    bool here[MIR_TLOG_EXPIRE_MAX] = {false};
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) status = advance(e, i);
    while (status == MIR_OK) {
        if (stopping(e)) return MIR_E_CANCELLED;
        uint32_t least = UINT32_MAX;
        for (uint32_t i = 0; i < e->x->count; i++) {
            if (e->ended[i]) continue;
            if (least == UINT32_MAX || cursor_compare(&e->cursors[i], &e->cursors[least]) < 0) {
                least = i;
            }
        }
        if (least == UINT32_MAX) return MIR_OK;
        for (uint32_t i = 0; i < e->x->count; i++) {
            here[i] = !e->ended[i] && cursor_compare(&e->cursors[i], &e->cursors[least]) == 0;
        }
        status = series_expire(e, here, least, error);
        for (uint32_t i = 0; i < e->x->count && status == MIR_OK; i++) {
            if (here[i]) status = advance(e, i);
        }
    }
    return status;
}

static mir_status prepare(expire *e)
{
    mir_tlog_expiry *x = e->x;
    const mir_tlog_outputs none = {.tlog = x->tlog, .head = {.generation_min = UINT64_MAX}};
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) e->rolled[s] = none;
    e->cursors = calloc(x->count, sizeof *e->cursors);
    e->ended = calloc(x->count, sizeof *e->ended);
    e->raw = calloc(x->count, sizeof *e->raw);
    e->stored_cursors = calloc(x->version->segment_count, sizeof *e->stored_cursors);
    if (e->cursors == NULL || e->ended == NULL || e->raw == NULL || e->stored_cursors == NULL) {
        return MIR_E_NO_MEMORY;
    }
    mir_tlog_segment_head head = none.head;
    for (uint32_t i = 0; i < x->count; i++) {
        const mir_tlog_segment_head *each = &x->segments[i]->head;
        e->cursors[i].segment = x->segments[i];
        e->raw[i] = (mir_tlog_outputs){.tlog = x->tlog, .head = *each};
        if (each->generation_min < head.generation_min) head.generation_min = each->generation_min;
        if (each->generation_max > head.generation_max) head.generation_max = each->generation_max;
    }
    /* Rows that replace earlier ones are of a later generation than these. */
    for (uint32_t i = 0; i < x->version->segment_count; i++) {
        const mir_tlog_segment *other = x->version->segments[i];
        if (mir_tlog_rollup_step_in(other) != MIR_TLOG_ROLLUP_NONE &&
            other->head.generation_max >= head.generation_max) {
            head.generation_max = other->head.generation_max + 1;
        }
    }
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) e->rolled[s].head = head;
    mir_status status = mir_tlog_sweep_init(&e->sweep);
    e->sweep.codec = x->codec;
    e->sweep.bytes_max = atomic_load_explicit(&x->tlog->sweep_bytes_max, memory_order_relaxed);
    e->sweep.read = pace;
    e->sweep.context = e;
    if (status == MIR_OK) status = mir_tlog_gather_init(&e->rest);
    if (status == MIR_OK) status = mir_tlog_gather_init(&e->out);
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS && status == MIR_OK; s++) {
        status = mir_tlog_gather_init(&e->steps[s].stored);
    }
    return status;
}

static void finish(expire *e)
{
    for (uint32_t i = 0; e->cursors != NULL && i < e->x->count; i++) {
        mir_tlog_index_fini(&e->cursors[i]);
    }
    for (uint32_t i = 0; e->stored_cursors != NULL && i < e->x->version->segment_count; i++) {
        mir_tlog_index_fini(&e->stored_cursors[i]);
    }
    free(e->cursors);
    free(e->ended);
    free(e->raw);
    free(e->stored_cursors);
    free(e->gone.items);
    free(e->earlier.items);
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) {
        mir_tlog_gather_fini(&e->steps[s].stored);
        mir_tlog_rollup_free(&e->steps[s].made);
        mir_tlog_rollup_free(&e->steps[s].before);
    }
    mir_tlog_gather_fini(&e->rest);
    mir_tlog_gather_fini(&e->out);
    mir_tlog_sweep_fini(&e->sweep);
}

/* All files are complete before any of them counts. */
static mir_status install(expire *e, mir_error *error)
{
    mir_tlog_expiry *x = e->x;
    const uint32_t room = (x->count + MIR_TLOG_ROLLUPS) * (MIR_TLOG_OUTPUTS_MAX + 1);
    mir_tlog_segment **made = calloc(room, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint32_t count = 0;
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < x->count + MIR_TLOG_ROLLUPS && status == MIR_OK; i++) {
        mir_tlog_outputs *from = i < x->count ? &e->raw[i] : &e->rolled[i - x->count];
        uint32_t more = 0;
        if (from->list[0].writer == NULL) continue;
        status = mir_tlog_outputs_end(from, x->codec, made + count, &more, error);
        count += more;
    }
    if (status == MIR_OK) {
        for (uint32_t i = 0; i < count; i++) x->bytes_after += made[i]->size;
        status = mir_tlog_install(x->tlog, made, count, x->segments, x->count, NULL, NULL, error);
    } else {
        for (uint32_t i = 0; i < count; i++) {
            char path[MIR_TLOG_PATH_BYTES_MAX];
            mir_tlog_path(x->tlog, path, made[i]->head.id, "seg");
            (void)x->tlog->files->unlink(x->tlog->files->context, path);
            mir_tlog_segment_release(made[i]);
        }
    }
    free(made);
    return status;
}

mir_status mir_tlog_expire(mir_tlog_expiry *expiry, mir_error *error)
{
    expire *e = calloc(1, sizeof *e);
    if (e == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    e->x = expiry;
    e->began_ns = mir_clock_mono_ns();
    (void)mir_error_set(error, MIR_OK, "writing segments anew failed");
    mir_status status = prepare(e);
    if (status == MIR_OK) status = all_series(e, error);
    /* A device may have come under another rule meanwhile. */
    if (status == MIR_OK && expiry->rows_gone == 0) status = MIR_E_EMPTY;
    if (status == MIR_OK) status = install(e, error);
    for (uint32_t i = 0; e->raw != NULL && i < expiry->count; i++) {
        mir_tlog_outputs_abandon(&e->raw[i]);
    }
    for (uint32_t s = 0; s < MIR_TLOG_ROLLUPS; s++) mir_tlog_outputs_abandon(&e->rolled[s]);
    finish(e);
    free(e);
    return status;
}
