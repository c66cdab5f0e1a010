/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_retain.h"

#include <stdlib.h>
#include <time.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_log.h"
#include "mir_tlog_output.h"

enum {
    KEPT = UINT32_MAX, /* instead of a rule: it cannot be known now */
    PACE_BYTES = 1 << 20,
    LOW_DISK_PARTS = 4, /* while the disk is low, a copy may take such a part of the reserve */
};

static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t LOOK_NS_MIN = MIR_NS_PER_S;
/* A device may come under another rule at any time, if a rule asks for that. */
static const int64_t LOOK_NS_MAX = INT64_C(3600) * MIR_NS_PER_S;

typedef struct retain {
    mir_tlog *tlog;
    mir_tlog_codec *codec;
    int64_t now_ns;
    mir_bytes name_space;
    uint64_t rows[MIR_TLOG_RULES_MAX + 1]; /* of the present segment, by rule */
    bool asks;                             /* a rule depends on where a device is */
    bool unknown;                          /* a namespace could not be read */
    /* For the pace of writing. */
    int64_t began_ns;
    uint64_t bytes;
    uint64_t bytes_seen;
} retain;

/* What the index of a segment says. */
typedef struct look {
    uint64_t bytes;
    uint64_t bytes_gone;
    uint64_t rows_left;
    uint64_t slack_min_ns; /* UINT64_MAX: all is kept for ever */
    int64_t all_ns;        /* when the last row is past its age */
    bool cut;              /* there is something to remove */
    bool overdue;
} look;

uint64_t mir_tlog_retain_slack_ns(uint64_t age_ns)
{
    return age_ns / 4 < (uint64_t)DAY_NS ? age_ns / 4 : (uint64_t)DAY_NS;
}

static uint64_t rule_age(const mir_tlog_options *options, uint32_t rule)
{
    return rule < options->rule_count ? options->rules[rule].age_ns : options->retention_age_ns;
}

uint64_t mir_tlog_retain_age_min_ns(const mir_tlog_options *options)
{
    uint64_t least = 0;
    for (uint32_t i = 0; i <= options->rule_count; i++) {
        const uint64_t age_ns = rule_age(options, i);
        if (age_ns != 0 && (least == 0 || age_ns < least)) least = age_ns;
    }
    return least;
}

/* 0: one of them is for ever. */
static uint64_t age_max(const mir_tlog_options *options)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i <= options->rule_count; i++) {
        const uint64_t age_ns = rule_age(options, i);
        if (age_ns == 0) return 0;
        if (age_ns > most) most = age_ns;
    }
    return most;
}

static int64_t time_after(int64_t time_ns, uint64_t span_ns)
{
    int64_t later;
    return span_ns > INT64_MAX || __builtin_add_overflow(time_ns, (int64_t)span_ns, &later)
               ? INT64_MAX
               : later;
}

/* Rows before this are past the age. */
static int64_t horizon_of(int64_t now_ns, uint64_t age_ns)
{
    int64_t at;
    return age_ns == 0 || age_ns > INT64_MAX || __builtin_sub_overflow(now_ns, (int64_t)age_ns, &at)
               ? INT64_MIN
               : at;
}

static bool pattern_fits(mir_view pattern, mir_view text)
{
    return pattern.size == 0 || mir_pattern_match(pattern, text);
}

/* The first rule that fits a series; rule_count is what holds for all others. */
static uint32_t rule_of(retain *r, mir_view measurement, mir_view device)
{
    const mir_tlog_options *options = &r->tlog->options;
    bool asked = false;
    bool there = true;
    for (uint32_t i = 0; i < options->rule_count; i++) {
        const mir_tlog_rule *rule = &options->rules[i];
        if (!pattern_fits(rule->measurement, measurement)) continue;
        if (rule->name_space.size == 0 && !rule->deleted) return i;
        if (!asked) {
            r->name_space.size = 0;
            const mir_status status =
                options->namespace_of(options->namespace_context, device, &r->name_space);
            if (status != MIR_OK && status != MIR_E_NOT_FOUND) {
                r->unknown = true;
                return KEPT;
            }
            asked = true;
            there = status == MIR_OK;
        }
        if (rule->deleted
                ? !there
                : there && mir_pattern_match(rule->name_space, mir_bytes_as_view(&r->name_space))) {
            return i;
        }
    }
    return options->rule_count;
}

static int64_t series_horizon(retain *r, const mir_tlog_index_cursor *cursor, uint32_t *rule,
                              uint64_t *age_ns)
{
    *rule = rule_of(r, cursor->segment->measurements[cursor->measurement], cursor->device);
    *age_ns = *rule == KEPT ? 0 : rule_age(&r->tlog->options, *rule);
    return horizon_of(r->now_ns, *age_ns);
}

static bool stopping(const mir_tlog *tlog)
{
    return atomic_load_explicit(&tlog->stop, memory_order_acquire);
}

static mir_status segment_look(retain *r, mir_tlog_segment *segment, look *found)
{
    *found = (look){.slack_min_ns = UINT64_MAX, .all_ns = INT64_MIN};
    mir_tlog_index_cursor cursor = {.segment = segment};
    mir_status status;
    while ((status = mir_tlog_index_next(&cursor, r->codec)) == MIR_OK) {
        if (stopping(r->tlog)) {
            status = MIR_E_CANCELLED;
            break;
        }
        uint32_t rule;
        uint64_t age_ns;
        const int64_t horizon = series_horizon(r, &cursor, &rule, &age_ns);
        const uint64_t slack_ns = mir_tlog_retain_slack_ns(age_ns);
        if (age_ns != 0 && slack_ns < found->slack_min_ns) found->slack_min_ns = slack_ns;
        for (uint32_t i = 0; i < cursor.chunk_count; i++) {
            const mir_tlog_chunk *chunk = &cursor.chunks[i];
            const int64_t ends = age_ns == 0 ? INT64_MAX : time_after(chunk->time_max, age_ns);
            if (ends > found->all_ns) found->all_ns = ends;
            found->bytes += chunk->size;
            if (chunk->time_max < horizon) {
                found->bytes_gone += chunk->size;
                r->rows[rule] += chunk->rows;
            } else {
                found->rows_left += chunk->rows;
            }
            if (chunk->time_min >= horizon) continue;
            found->cut = true;
            if (horizon_of(horizon, slack_ns) > chunk->time_min) found->overdue = true;
        }
    }
    mir_tlog_index_fini(&cursor);
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

/* Waits until what was read and written is no more than the pace allows. */
static void pace(retain *r, uint64_t bytes)
{
    r->bytes += bytes;
    if (r->bytes - r->bytes_seen < PACE_BYTES) return;
    r->bytes_seen = r->bytes;
    const double seconds = (double)r->bytes / MIR_TLOG_RETAIN_BYTES_PER_S;
    const int64_t due_ns = r->began_ns + (int64_t)(seconds * MIR_NS_PER_S);
    while (!stopping(r->tlog)) {
        int64_t left_ns = due_ns - mir_clock_mono_ns();
        if (left_ns <= 0) return;
        if (left_ns > 20 * MIR_NS_PER_MS) left_ns = 20 * MIR_NS_PER_MS;
        const struct timespec wait = {.tv_nsec = left_ns};
        (void)nanosleep(&wait, NULL);
    }
}

static mir_status chunk_bytes(mir_tlog_segment *segment, const mir_tlog_chunk *chunk,
                              mir_bytes *bytes)
{
    bytes->size = 0;
    const mir_status status = mir_tlog_chunk_read(segment, chunk, bytes);
    if (!mir_bytes_ok(bytes)) mir_bytes_free(bytes);
    return status;
}

static mir_status series_put(retain *r, mir_tlog_outputs *all, mir_tlog_gather *gather,
                             mir_bytes *bytes, const mir_tlog_index_cursor *cursor,
                             mir_error *error)
{
    mir_tlog_segment *segment = cursor->segment;
    const mir_view measurement = segment->measurements[cursor->measurement];
    mir_tlog_segment_writer *writer = all->list[0].writer;
    uint32_t rule;
    uint64_t age_ns;
    const int64_t horizon = series_horizon(r, cursor, &rule, &age_ns);
    mir_status status = MIR_OK;
    for (uint32_t i = 0; i < cursor->chunk_count && status == MIR_OK; i++) {
        const mir_tlog_chunk *chunk = &cursor->chunks[i];
        if (chunk->time_max < horizon) {
            r->rows[rule] += chunk->rows;
            continue;
        }
        status = chunk_bytes(segment, chunk, bytes);
        if (status != MIR_OK) break;
        const mir_tlog_segment_shape *shape = &segment->shapes[chunk->shape];
        const uint64_t before = mir_tlog_segment_written(writer);
        if (chunk->time_min >= horizon) {
            status = mir_tlog_segment_put_chunk(writer, r->codec, measurement, cursor->device,
                                                shape, chunk, mir_bytes_as_view(bytes), error);
        } else {
            mir_tlog_gather_reset(gather);
            gather->time_first = horizon;
            status = mir_tlog_chunk_decode(r->codec, mir_bytes_as_view(bytes), shape, gather);
            if (status == MIR_OK) status = mir_tlog_gather_finish(gather);
            if (status != MIR_OK) break;
            r->rows[rule] += chunk->rows - gather->row_count;
            if (gather->row_count > 0) {
                status = mir_tlog_segment_put(writer, r->codec, measurement, cursor->device, gather,
                                              0, gather->row_count, chunk->generation, error);
            }
        }
        pace(r, chunk->size + mir_tlog_segment_written(writer) - before);
    }
    return status;
}

static mir_status segment_copy(retain *r, mir_tlog_segment *segment, mir_tlog_outputs *all,
                               mir_error *error)
{
    mir_tlog_gather gather;
    mir_status status = mir_tlog_gather_init(&gather);
    if (status != MIR_OK) return mir_error_set(error, status, "out of memory");
    mir_bytes bytes = {0};
    mir_tlog_index_cursor cursor = {.segment = segment};
    status = mir_tlog_output_ready(all, &all->list[0], error);
    while (status == MIR_OK) {
        status = stopping(r->tlog) ? MIR_E_CANCELLED : mir_tlog_index_next(&cursor, r->codec);
        if (status == MIR_OK) status = series_put(r, all, &gather, &bytes, &cursor, error);
    }
    mir_tlog_index_fini(&cursor);
    mir_tlog_gather_fini(&gather);
    mir_bytes_free(&bytes);
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

/* The same segment without what is past its age; *bytes_left: of the new one. */
static mir_status segment_rewrite(retain *r, mir_tlog_segment *segment, uint64_t *bytes_left,
                                  mir_error *error)
{
    mir_tlog_outputs all = {.tlog = r->tlog, .head = segment->head};
    memset(r->rows, 0, sizeof r->rows);
    r->began_ns = mir_clock_mono_ns();
    r->bytes = r->bytes_seen = 0;
    (void)mir_error_set(error, MIR_OK, "writing a segment anew failed");
    mir_status status = segment_copy(r, segment, &all, error);
    uint64_t gone = 0;
    for (uint32_t i = 0; i <= MIR_TLOG_RULES_MAX; i++) gone += r->rows[i];
    if (status == MIR_OK && gone == 0) status = MIR_E_EMPTY; /* a device has come under another */
    mir_tlog_segment *made[MIR_TLOG_OUTPUTS_MAX + 1];
    uint32_t made_count = 0;
    if (status == MIR_OK && gone < segment->rows) {
        status = mir_tlog_outputs_end(&all, r->codec, made, &made_count, error);
    } else {
        mir_tlog_outputs_abandon(&all);
    }
    *bytes_left = 0;
    for (uint32_t i = 0; i < made_count; i++) *bytes_left += made[i]->size;
    if (status == MIR_OK) {
        status = mir_tlog_install(r->tlog, made, made_count, &segment, 1, NULL, NULL, error);
    }
    return status;
}

static void removed_note(retain *r, uint64_t bytes)
{
    mir_tlog_retention *to = &r->tlog->retention;
    (void)pthread_mutex_lock(&r->tlog->mutex);
    for (uint32_t i = 0; i <= r->tlog->options.rule_count; i++) to->rows_removed[i] += r->rows[i];
    to->bytes_removed += bytes;
    to->removed_ns = r->now_ns;
    (void)pthread_mutex_unlock(&r->tlog->mutex);
}

static void failed(mir_tlog *tlog, mir_error *error)
{
    mir_tlog_count(&tlog->write_errors, 1);
    mir_error_wrap(error, "telemetry that retention ends cannot be removed");
    mir_tlog_trouble(tlog, error->text);
}

static mir_status segment_drop(retain *r, mir_tlog_segment *segment, mir_error *error)
{
    const mir_status status = mir_tlog_install(r->tlog, NULL, 0, &segment, 1, NULL, NULL, error);
    if (status == MIR_OK) mir_tlog_count(&r->tlog->segments_dropped, 1);
    return status;
}

/* Nothing of it can be told apart: it goes when all of it may go. */
static void segment_damaged(retain *r, mir_tlog_segment *segment)
{
    const mir_tlog_options *options = &r->tlog->options;
    memset(r->rows, 0, sizeof r->rows);
    segment->retain_ns = time_after(r->now_ns, (uint64_t)LOOK_NS_MAX);
    if (segment->time_max >= horizon_of(r->now_ns, age_max(options))) return;
    r->rows[options->rule_count] = segment->rows;
    mir_error error;
    const uint64_t bytes = segment->size;
    if (segment_drop(r, segment, &error) == MIR_OK) {
        removed_note(r, bytes);
    } else {
        failed(r->tlog, &error);
    }
}

static bool room_for(const retain *r, const look *found)
{
    return !atomic_load_explicit(&r->tlog->disk_low, memory_order_relaxed) ||
           found->bytes - found->bytes_gone <= r->tlog->options.disk_reserve_bytes / LOW_DISK_PARTS;
}

/* When there may be something to do that is worth it. */
static int64_t next_look(const retain *r, const look *found)
{
    int64_t wait_ns = r->asks ? LOOK_NS_MAX : DAY_NS;
    if (found->slack_min_ns / 4 < (uint64_t)wait_ns) wait_ns = (int64_t)(found->slack_min_ns / 4);
    int64_t next_ns = r->now_ns + wait_ns;
    if (found->all_ns < next_ns) next_ns = found->all_ns;
    return next_ns < r->now_ns + LOOK_NS_MIN ? r->now_ns + LOOK_NS_MIN : next_ns;
}

static void segment_retain(retain *r, mir_tlog_segment *segment)
{
    if (atomic_load_explicit(&segment->damaged, memory_order_relaxed)) {
        segment_damaged(r, segment);
        return;
    }
    look found;
    mir_error error;
    (void)mir_error_set(&error, MIR_OK, "reading the index of a segment failed");
    memset(r->rows, 0, sizeof r->rows);
    mir_status status = segment_look(r, segment, &found);
    const uint64_t bytes = segment->size;
    uint64_t bytes_left = 0;
    bool done = false;
    if (status == MIR_OK) {
        segment->retain_ns = next_look(r, &found);
        const bool much = found.bytes_gone * 2 >= found.bytes &&
                          found.all_ns > time_after(r->now_ns, found.slack_min_ns);
        if (found.cut && found.rows_left == 0) {
            status = segment_drop(r, segment, &error);
            done = status == MIR_OK;
        } else if (found.cut && (found.overdue || much) && room_for(r, &found)) {
            status = segment_rewrite(r, segment, &bytes_left, &error);
            done = status == MIR_OK;
        }
    }
    if (done) {
        removed_note(r, bytes > bytes_left ? bytes - bytes_left : 0);
    } else if (status == MIR_E_CORRUPT) {
        atomic_store_explicit(&segment->damaged, true, memory_order_relaxed);
        mir_tlog_count(&r->tlog->corrupt_chunks, 1);
        mir_log_error("telemetry: a damaged segment is left as it is; what retention ends in it "
                      "stays until all of it is past its age");
        segment_damaged(r, segment);
    } else if (status != MIR_OK && status != MIR_E_CANCELLED && status != MIR_E_EMPTY) {
        segment->retain_ns = r->now_ns + 10 * LOOK_NS_MIN;
        failed(r->tlog, &error);
    }
}

static void by_age(retain *r, bool all)
{
    const uint64_t age_ns = mir_tlog_retain_age_min_ns(&r->tlog->options);
    if (age_ns == 0) return;
    for (uint32_t i = 0; i < r->tlog->options.rule_count; i++) {
        const mir_tlog_rule *rule = &r->tlog->options.rules[i];
        if (rule->deleted || rule->name_space.size > 0) r->asks = true;
    }
    const int64_t horizon = horizon_of(r->now_ns, age_ns);
    mir_tlog_version *version = mir_tlog_version_acquire(r->tlog);
    for (uint32_t i = 0; i < version->segment_count && !stopping(r->tlog); i++) {
        mir_tlog_segment *segment = version->segments[i];
        if (segment->time_min >= horizon || (!all && r->now_ns < segment->retain_ns)) continue;
        segment_retain(r, segment);
    }
    mir_tlog_version_release(version);
    if (r->unknown) {
        mir_log_warn("telemetry: namespaces of devices cannot be read; what rules of "
                     "telemetry.retention say of them waits");
    }
}

static int segment_age_compare(const void *a, const void *b)
{
    const int64_t left = (*(mir_tlog_segment *const *)a)->time_max;
    const int64_t right = (*(mir_tlog_segment *const *)b)->time_max;
    return left < right ? -1 : left > right;
}

/* The oldest segments beyond the size. */
static void by_size(retain *r)
{
    mir_tlog *tlog = r->tlog;
    const uint64_t bytes_max = tlog->options.retention_bytes_max;
    if (bytes_max == 0) return;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    mir_tlog_segment **segments = malloc((version->segment_count + 1) * sizeof *segments);
    if (segments != NULL && version->segment_count > 0) {
        uint64_t bytes = 0;
        for (uint32_t i = 0; i < version->segment_count; i++) {
            segments[i] = version->segments[i];
            bytes += segments[i]->size;
        }
        qsort(segments, version->segment_count, sizeof *segments, segment_age_compare);
        uint32_t count = 0;
        uint64_t rows = 0;
        uint64_t gone = 0;
        while (count < version->segment_count && bytes - gone > bytes_max) {
            rows += segments[count]->rows;
            gone += segments[count++]->size;
        }
        mir_error error;
        if (count > 0 &&
            mir_tlog_install(tlog, NULL, 0, segments, count, NULL, NULL, &error) == MIR_OK) {
            mir_tlog_count(&tlog->segments_dropped, count);
            (void)pthread_mutex_lock(&tlog->mutex);
            tlog->retention.rows_removed_size += rows;
            tlog->retention.bytes_removed += gone;
            tlog->retention.removed_ns = r->now_ns;
            (void)pthread_mutex_unlock(&tlog->mutex);
        } else if (count > 0) {
            failed(tlog, &error);
        }
    }
    free(segments);
    mir_tlog_version_release(version);
}

void mir_tlog_retain(mir_tlog *tlog, mir_tlog_codec *codec, bool all)
{
    retain r = {.tlog = tlog, .codec = codec, .now_ns = tlog->options.wall_ns()};
    by_age(&r, all);
    by_size(&r);
    mir_bytes_free(&r.name_space);
    (void)pthread_mutex_lock(&tlog->mutex);
    tlog->retention.run_ns = r.now_ns;
    (void)pthread_mutex_unlock(&tlog->mutex);
}

void mir_tlog_retention_read(mir_tlog *tlog, mir_tlog_retention *retention)
{
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    int64_t oldest_ns = INT64_MAX;
    uint64_t rows = 0;
    for (uint32_t i = 0; i < version->segment_count; i++) {
        const mir_tlog_segment *segment = version->segments[i];
        if (segment->time_min < oldest_ns) oldest_ns = segment->time_min;
        rows += segment->rows;
    }
    mir_tlog_version_release(version);
    (void)pthread_mutex_lock(&tlog->mutex);
    *retention = tlog->retention;
    (void)pthread_mutex_unlock(&tlog->mutex);
    retention->rows = rows;
    retention->oldest_ns = oldest_ns;
}
