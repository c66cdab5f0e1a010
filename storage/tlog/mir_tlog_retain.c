/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_retain.h"

#include <stdlib.h>

#include "mir_clock.h"
#include "mir_device_rules.h"
#include "mir_log.h"
#include "mir_tlog_clock.h"
#include "mir_tlog_expire.h"
#include "mir_tlog_rollup.h"
#include "mir_tlog_tally.h"

enum {
    KEPT = UINT32_MAX,                /* instead of a rule: it cannot be known now */
    ROLLUPS = MIR_TLOG_RULES_MAX + 1, /* a counter beside those of the rules */
    ROLLUP_PARTS = 6,   /* rollups are smaller than the rows by that much at least, as a rule */
    LOW_DISK_PARTS = 2, /* while the disk is full, a copy may take such a part of the reserve */
};

static const int64_t DAY_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t LOOK_NS_MIN = MIR_NS_PER_S;
/* A device may come under another rule at any time, if a rule asks for that. */
static const int64_t LOOK_NS_MAX = INT64_C(3600) * MIR_NS_PER_S;

typedef struct retain {
    mir_tlog *tlog;
    mir_tlog_codec *codec;
    int64_t now_ns;
    mir_tlog_clock_state clock;
    mir_bytes name_space;
    mir_tlog_version *version;
    int64_t cap_ns;             /* a group that would be too large ends here */
    uint64_t rows[ROLLUPS + 1]; /* of what is at work, by rule */
    bool asks;                  /* a rule depends on where a device is */
    bool unknown;               /* a namespace could not be read */
    bool more;                  /* there is a rest of a group, in segments that are new */
    bool removed;               /* something was */
    bool unread;                /* rollups that rows belong to, by the disk: it may be well later */
} retain;

/* What the index of a segment says. */
typedef struct look {
    uint64_t bytes;
    uint64_t bytes_gone;
    uint64_t rows_left;
    uint64_t slack_min_ns; /* UINT64_MAX: all is kept for ever */
    int64_t all_ns;        /* when the last row is past its age */
    bool cut;              /* there is something to remove */
    bool rolled;           /* and to roll up before */
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

static uint64_t rollup_age_min(const mir_tlog_options *options)
{
    uint64_t least = 0;
    for (uint32_t i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        const uint64_t keep_ns = options->rollups[i].on ? options->rollups[i].keep_ns : 0;
        if (keep_ns != 0 && (least == 0 || keep_ns < least)) least = keep_ns;
    }
    return least;
}

uint64_t mir_tlog_retain_age_min_ns(const mir_tlog_options *options)
{
    uint64_t least = 0;
    for (uint32_t i = 0; i <= options->rule_count; i++) {
        const uint64_t age_ns = rule_age(options, i);
        if (age_ns != 0 && (least == 0 || age_ns < least)) least = age_ns;
    }
    /* Rollups are kept for longer than rows, or go with them. */
    const uint64_t keep_ns = rollup_age_min(options);
    return keep_ns != 0 && keep_ns < least ? keep_ns : least;
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
    for (uint32_t i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        if (!options->rollups[i].on) continue;
        if (options->rollups[i].keep_ns == 0) return 0;
        if (options->rollups[i].keep_ns > most) most = options->rollups[i].keep_ns;
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

/* While the clock is ahead, rows are kept for longer by as much, until it has stayed so for as long as
 * they are kept: then there is none that was there before. */
static uint64_t by_clock(const retain *r, uint64_t age_ns)
{
    uint64_t longer_ns;
    if (age_ns == 0 || r->clock.apart_ns >= age_ns) return age_ns;
    return __builtin_add_overflow(age_ns, r->clock.ahead_ns, &longer_ns) ? UINT64_MAX : longer_ns;
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

static bool rolls_up(const mir_tlog_options *options)
{
    for (uint32_t i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        if (options->rollups[i].on) return true;
    }
    return false;
}

/* What is to go of a series, and after which age. */
static uint64_t series_end(retain *r, mir_view measurement, mir_view device, mir_tlog_end *end)
{
    const mir_tlog_options *options = &r->tlog->options;
    const int step = mir_tlog_rollup_step_of(measurement, &measurement);
    const uint32_t rule = rule_of(r, measurement, device);
    uint64_t age_ns = rule == KEPT ? 0 : rule_age(options, rule);
    const bool stays = rule >= options->rule_count ||
                       !(options->rules[rule].deleted || options->rules[rule].nothing_stays);
    *end = (mir_tlog_end){.counter = rule};
    if (step != MIR_TLOG_ROLLUP_NONE) {
        /* Of a step that is off, none is kept for longer than the rows. */
        if (rule != KEPT && stays && options->rollups[step].on) {
            age_ns = options->rollups[step].keep_ns;
        }
        end->counter = ROLLUPS;
        /* An hour has all of its minutes or none. */
        end->hours = true;
    } else {
        end->rolled = end->hours = stays && rolls_up(options);
    }
    age_ns = by_clock(r, age_ns);
    end->horizon_ns = horizon_of(r->now_ns, age_ns);
    if (end->hours) {
        end->horizon_ns =
            mir_tlog_rollup_floor(end->horizon_ns, mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1]);
    }
    end->late_ns = horizon_of(end->horizon_ns, mir_tlog_retain_slack_ns(age_ns) + (uint64_t)DAY_NS);
    return age_ns;
}

static void end_of(void *context, mir_view measurement, mir_view device, mir_tlog_end *end)
{
    const retain *r = context;
    (void)series_end(context, measurement, device, end);
    if (end->horizon_ns > r->cap_ns) end->horizon_ns = r->cap_ns;
}

static bool stopping(const mir_tlog *tlog)
{
    return atomic_load_explicit(&tlog->stop, memory_order_acquire);
}

/* Rows that are rolled up go at a whole hour. */
static int64_t hour_after(int64_t time_ns)
{
    const int64_t hour_ns = mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1];
    return time_after(mir_tlog_rollup_floor(time_ns, hour_ns), (uint64_t)hour_ns);
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
        mir_tlog_end end;
        const uint64_t age_ns =
            series_end(r, segment->measurements[cursor.measurement], cursor.device, &end);
        const int64_t horizon = end.horizon_ns;
        const uint64_t slack_ns = mir_tlog_retain_slack_ns(age_ns);
        if (age_ns != 0 && slack_ns < found->slack_min_ns) found->slack_min_ns = slack_ns;
        for (uint32_t i = 0; i < cursor.chunk_count; i++) {
            const mir_tlog_chunk *chunk = &cursor.chunks[i];
            const int64_t last = end.hours ? hour_after(chunk->time_max) : chunk->time_max;
            const int64_t ends = age_ns == 0 ? INT64_MAX : time_after(last, age_ns);
            if (ends > found->all_ns) found->all_ns = ends;
            found->bytes += chunk->size;
            if (chunk->time_max < horizon) {
                found->bytes_gone += chunk->size;
                r->rows[end.counter] += chunk->rows;
            } else {
                found->rows_left += chunk->rows;
            }
            if (chunk->time_min >= horizon) continue;
            found->cut = true;
            found->rolled = found->rolled || end.rolled;
            if (horizon_of(horizon, slack_ns) > chunk->time_min) found->overdue = true;
        }
    }
    mir_tlog_index_fini(&cursor);
    return status == MIR_E_EMPTY ? MIR_OK : status;
}

static void removed_note(retain *r, uint64_t bytes, uint64_t rollups_made, uint64_t rows_repeated)
{
    mir_tlog_retention *to = &r->tlog->retention;
    (void)pthread_mutex_lock(&r->tlog->mutex);
    for (uint32_t i = 0; i <= r->tlog->options.rule_count; i++) to->rows_removed[i] += r->rows[i];
    to->rollups_removed += r->rows[ROLLUPS];
    to->rollups_made += rollups_made;
    to->rows_repeated += rows_repeated;
    to->bytes_removed += bytes;
    to->removed_ns = to->run_ns = r->now_ns;
    (void)pthread_mutex_unlock(&r->tlog->mutex);
    r->removed = true;
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

/* No rule keeps any of it. */
static bool is_past_all(const retain *r, const mir_tlog_segment *segment)
{
    return segment->time_max < horizon_of(r->now_ns, by_clock(r, age_max(&r->tlog->options)));
}

/* Nothing of it can be told apart: it goes when all of it may go. */
static void segment_damaged(retain *r, mir_tlog_segment *segment)
{
    const mir_tlog_options *options = &r->tlog->options;
    memset(r->rows, 0, sizeof r->rows);
    segment->retain_ns = time_after(r->now_ns, (uint64_t)LOOK_NS_MAX);
    if (!is_past_all(r, segment)) return;
    r->rows[options->rule_count] = segment->rows;
    mir_error error;
    const uint64_t bytes = segment->size;
    if (segment_drop(r, segment, &error) == MIR_OK) {
        removed_note(r, bytes, 0, 0);
    } else {
        failed(r->tlog, &error);
    }
}

/* What a segment leaves that has to be written before it can go. */
static uint64_t bytes_written(const look *found)
{
    return found->bytes - found->bytes_gone +
           (found->rolled ? found->bytes_gone / ROLLUP_PARTS : 0);
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

static void segment_damage_found(retain *r, mir_tlog_segment *segment)
{
    atomic_store_explicit(&segment->damaged, true, memory_order_relaxed);
    mir_tlog_count(&r->tlog->corrupt_chunks, 1);
    mir_log_error("telemetry: a damaged segment is left as it is; what retention ends in it "
                  "stays until all of it is past its age");
}

static bool is_damaged(const mir_tlog_segment *segment)
{
    return atomic_load_explicit(&segment->damaged, memory_order_relaxed);
}

static bool same_hours(const mir_tlog_segment *a, const mir_tlog_segment *b)
{
    return a->time_min < hour_after(b->time_max) && b->time_min < hour_after(a->time_max);
}

/* Whether the other one may have values that later ones of this one replace. */
static bool is_older(const mir_tlog_segment *segment, const mir_tlog_segment *other)
{
    return mir_tlog_rollup_step_in(other) == mir_tlog_rollup_step_in(segment) &&
           other->head.generation_max < segment->head.generation_min &&
           other->time_min <= segment->time_max && other->time_max >= segment->time_min;
}

/* Adds segments of which rows have to go at the same time, and those of theirs. What is rolled up goes by
 * whole hours, from all that have some of them, whatever it is that begins with it; of other rows no
 * earlier value may stay when a later one goes: it would be there again. */
static mir_status group_find(retain *r, bool rolled, mir_tlog_segment **group, uint32_t *count,
                             uint64_t *bytes)
{
    const mir_tlog_version *version = r->version;
    const int step = mir_tlog_rollup_step_in(group[0]);
    for (uint32_t at = 0; at < *count;) {
        const bool by_hours = rolled;
        for (uint32_t i = 0; i < version->segment_count && rolled == by_hours; i++) {
            mir_tlog_segment *other = version->segments[i];
            bool known = other->retain_gone || is_damaged(other) ||
                         mir_tlog_rollup_step_in(other) != step ||
                         !(rolled ? same_hours(group[at], other) : is_older(group[at], other));
            for (uint32_t g = 0; g < *count && !known; g++) known = group[g] == other;
            if (known) continue;
            look found;
            const mir_status status = segment_look(r, other, &found);
            if (status == MIR_E_CORRUPT || status == MIR_E_IO) {
                segment_damage_found(r, other);
                continue;
            }
            if (status != MIR_OK) return status;
            if (!found.cut) continue;
            group[(*count)++] = other;
            *bytes += bytes_written(&found);
            rolled = rolled || found.rolled;
        }
        /* Segments with the same hours are more than older ones. */
        at = rolled == by_hours ? at + 1 : 0;
    }
    return MIR_OK;
}

static int segment_begin_compare(const void *a, const void *b)
{
    const int64_t left = (*(mir_tlog_segment *const *)a)->time_min;
    const int64_t right = (*(mir_tlog_segment *const *)b)->time_min;
    return left < right ? -1 : left > right;
}

/* What a copy may take: what is free beside the reserve, and of that a part in any case, since more is
 * free afterwards. */
static uint64_t room_of(const retain *r)
{
    const uint64_t room = mir_tlog_disk_room(r->tlog);
    const uint64_t least =
        atomic_load_explicit(&r->tlog->disk_reserve_bytes, memory_order_relaxed) / LOW_DISK_PARTS;
    return room > least ? room : least;
}

/* Of what cannot be done at once, or has no room, as many of the earliest hours as can: the rest
 * follows, by and by. */
static mir_status group_cap(retain *r, mir_tlog_segment **group, uint32_t *count, mir_error *error)
{
    const uint64_t room = room_of(r);
    const bool many = *count > MIR_TLOG_EXPIRE_MAX;
    qsort(group, *count, sizeof(mir_tlog_segment *), segment_begin_compare);
    for (uint32_t n = many ? MIR_TLOG_EXPIRE_MAX : *count - 1; n > 0; n--) {
        const int64_t cap_ns = mir_tlog_rollup_floor(group[n]->time_min,
                                                     mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1]);
        uint32_t kept = 0;
        uint64_t written = 0;
        while (kept < n && group[kept]->time_min < cap_ns) {
            const mir_tlog_segment *segment = group[kept++];
            written += segment->time_max < cap_ns ? segment->size / ROLLUP_PARTS : segment->size;
        }
        if (kept == 0 || written > room) continue;
        *count = kept;
        r->cap_ns = cap_ns;
        return MIR_OK;
    }
    if (room != UINT64_MAX) {
        return mir_error_set(error, MIR_E_NO_SPACE,
                             "the disk has no room for what stays of it: free disk space");
    }
    return mir_error_set(error, MIR_E_TOO_LARGE,
                         "more than %d segments have their first rows in the same hour",
                         MIR_TLOG_EXPIRE_MAX);
}

static mir_status group_remove(retain *r, mir_tlog_segment **group, uint32_t count,
                               mir_error *error)
{
    memset(r->rows, 0, sizeof r->rows);
    /* What the groups before this one came to has to be in it. */
    mir_tlog_version *version = mir_tlog_version_acquire(r->tlog);
    mir_tlog_expiry expiry = {.tlog = r->tlog,
                              .codec = r->codec,
                              .version = version,
                              .segments = group,
                              .count = count,
                              .end_of = end_of,
                              .context = r,
                              .rows = r->rows,
                              .now_ns = r->now_ns};
    for (uint32_t i = 0; i < MIR_TLOG_ROLLUPS; i++) {
        const uint64_t keep_ns = by_clock(r, r->tlog->options.rollups[i].keep_ns);
        expiry.kept_from_ns[i] = mir_tlog_rollup_floor(
            horizon_of(r->now_ns, keep_ns), mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS - 1]);
    }
    const mir_status status = mir_tlog_expire(&expiry, error);
    mir_tlog_version_release(version);
    if (expiry.unread || expiry.missing) {
        r->unread = true;
        for (uint32_t i = 0; i < count; i++) group[i]->retain_ns = r->now_ns + LOOK_NS_MAX;
        return mir_error_set(error, status, "%s",
                             expiry.missing
                                 ? "it came late, and a segment that may have what more of the "
                                   "same hours came to is missing: repair, or do without that"
                                 : "the disk cannot read what more of the same hours came to; in a "
                                   "day that is taken for lost: check the disk");
    }
    if (status != MIR_OK) return status;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < count; i++) {
        group[i]->retain_gone = true;
        bytes += group[i]->size;
    }
    removed_note(r, bytes > expiry.bytes_after ? bytes - expiry.bytes_after : 0,
                 expiry.rollups_made, expiry.rows_repeated);
    return MIR_OK;
}

/* `group` has the segment and those that go with it. */
static mir_status group_expire(retain *r, mir_tlog_segment **group, uint32_t count,
                               uint64_t written, mir_error *error)
{
    const uint32_t all = count;
    mir_status status = MIR_OK;
    r->cap_ns = INT64_MAX;
    if (count > MIR_TLOG_EXPIRE_MAX || written > room_of(r)) {
        status = group_cap(r, group, &count, error);
    }
    if (status == MIR_OK) status = group_remove(r, group, count, error);
    if (status == MIR_OK && r->cap_ns != INT64_MAX) r->more = true;
    for (uint32_t i = count; i < all && r->more; i++) group[i]->retain_ns = r->now_ns;
    return status;
}

/* What is due of a segment goes, if that is worth it or cannot wait any more. */
static mir_status segment_remove(retain *r, mir_tlog_segment *segment, const look *found,
                                 mir_error *error)
{
    const bool all_gone = found->cut && found->rows_left == 0;
    const bool much = found->bytes_gone * 2 >= found->bytes &&
                      found->all_ns > time_after(r->now_ns, found->slack_min_ns);
    if (!found->cut || !(all_gone || much || found->overdue)) return MIR_OK;
    mir_tlog_segment **group = malloc(((size_t)r->version->segment_count + 1) * sizeof *group);
    if (group == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint64_t rows[ROLLUPS + 1];
    memcpy(rows, r->rows, sizeof rows);
    uint32_t count = 1;
    uint64_t written = bytes_written(found);
    group[0] = segment;
    mir_status status = group_find(r, found->rolled, group, &count, &written);
    const bool alone = count == 1;
    if (status == MIR_OK && all_gone && !found->rolled && alone) {
        memcpy(r->rows, rows, sizeof rows);
        const uint64_t bytes = segment->size;
        status = segment_drop(r, segment, error);
        if (status == MIR_OK) removed_note(r, bytes, 0, 0);
    } else if (status == MIR_OK && (alone || found->rolled || found->overdue)) {
        status = group_expire(r, group, count, written, error);
    } else if (status == MIR_OK) {
        /* All of it may go, but not before others, for which it is not worth it yet. */
        const uint64_t wait_ns = found->slack_min_ns / 4;
        segment->retain_ns = time_after(
            r->now_ns, wait_ns < (uint64_t)LOOK_NS_MIN ? (uint64_t)LOOK_NS_MIN : wait_ns);
    }
    free(group);
    return status;
}

static void segment_retain(retain *r, mir_tlog_segment *segment)
{
    if (is_damaged(segment)) {
        segment_damaged(r, segment);
        return;
    }
    look found;
    mir_error error;
    r->unread = false;
    (void)mir_error_set(&error, MIR_OK, "reading the index of a segment failed");
    memset(r->rows, 0, sizeof r->rows);
    mir_status status = segment_look(r, segment, &found);
    if (status == MIR_OK) {
        segment->retain_ns = next_look(r, &found);
        status = segment_remove(r, segment, &found, &error);
    } else if (status == MIR_E_CORRUPT) {
        segment_damage_found(r, segment);
        segment_damaged(r, segment);
        return;
    } else if (status == MIR_E_IO && is_past_all(r, segment)) {
        segment_damaged(r, segment);
        return;
    }
    if (status == MIR_E_CORRUPT) {
        /* The one that has it is marked by now: what is damaged is told when it is met again. */
        mir_tlog_count(&r->tlog->corrupt_chunks, 1);
        mir_log_error("telemetry: a damaged segment is left as it is; what retention ends in it "
                      "stays until all of it is past its age");
        segment->retain_ns = r->now_ns;
    } else if (status != MIR_OK && status != MIR_E_CANCELLED && status != MIR_E_EMPTY) {
        segment->retain_ns = r->now_ns + (r->unread ? LOOK_NS_MAX : 10 * LOOK_NS_MIN);
        failed(r->tlog, &error);
    }
}

/* One that is to wait for longer than any waits was looked at when the clock was ahead. */
static bool is_time_for(const retain *r, const mir_tlog_segment *segment)
{
    return r->now_ns >= segment->retain_ns || segment->retain_ns > time_after(r->now_ns, DAY_NS);
}

static void by_age(retain *r, bool all)
{
    uint64_t age_ns = mir_tlog_retain_age_min_ns(&r->tlog->options);
    const bool rollups_alone = age_ns == 0;
    if (rollups_alone) age_ns = rollup_age_min(&r->tlog->options);
    if (age_ns == 0) return;
    for (uint32_t i = 0; i < r->tlog->options.rule_count; i++) {
        const mir_tlog_rule *rule = &r->tlog->options.rules[i];
        if (rule->deleted || rule->name_space.size > 0) r->asks = true;
    }
    const int64_t horizon = horizon_of(r->now_ns, by_clock(r, age_ns));
    mir_tlog_version *version = mir_tlog_version_acquire(r->tlog);
    r->version = version;
    for (uint32_t i = 0; i < version->segment_count && !r->more && !stopping(r->tlog); i++) {
        mir_tlog_segment *segment = version->segments[i];
        if (segment->retain_gone || segment->time_min >= horizon ||
            (!all && !is_time_for(r, segment)) ||
            (rollups_alone && mir_tlog_rollup_step_in(segment) == MIR_TLOG_ROLLUP_NONE)) {
            continue;
        }
        segment_retain(r, segment);
    }
    mir_tlog_version_release(version);
    if (r->unknown) {
        mir_log_warn("telemetry: namespaces of devices cannot be read; what rules of "
                     "telemetry.retention say of them waits");
    }
}

/* A segment, and the newest time of what has to go before it: its own, or that of one whose values it
 * replaces, which must not be there again. */
typedef struct aged {
    mir_tlog_segment *segment;
    int64_t last_ns;
} aged;

/* Rows before rollups, of these shorter steps first; of each the oldest first. */
static int segment_age_compare(const void *a, const void *b)
{
    const aged *one = a;
    const aged *other = b;
    const int step = mir_tlog_rollup_step_in(one->segment);
    const int other_step = mir_tlog_rollup_step_in(other->segment);
    if (step != other_step) return step < other_step ? -1 : 1;
    if (one->last_ns != other->last_ns) return one->last_ns < other->last_ns ? -1 : 1;
    const uint64_t left = one->segment->head.generation_max;
    const uint64_t right = other->segment->head.generation_max;
    return left < right ? -1 : left > right;
}

/* In the order in which they go. MIR_E_NO_MEMORY. */
static mir_status sort_by_age(mir_tlog_segment **segments, uint32_t count)
{
    aged *all = malloc(((size_t)count + 1) * sizeof *all);
    if (all == NULL) return MIR_E_NO_MEMORY;
    /* They come by ascending generation: of those before it the times are final. */
    for (uint32_t i = 0; i < count; i++) {
        all[i] = (aged){segments[i], segments[i]->time_max};
        for (uint32_t k = 0; k < i; k++) {
            if (all[k].last_ns > all[i].last_ns && is_older(segments[i], segments[k])) {
                all[i].last_ns = all[k].last_ns;
            }
        }
    }
    qsort(all, count, sizeof *all, segment_age_compare);
    for (uint32_t i = 0; i < count; i++) segments[i] = all[i].segment;
    free(all);
    return MIR_OK;
}

/* Moves what is to go to the front of segments in the order of their age: rows as long as they take more than half of the size, so that
 * rollups of years do not leave those of today no room. */
static uint32_t beyond_size(mir_tlog_segment **segments, uint32_t count, uint64_t bytes_max)
{
    uint32_t rows_end = 0;
    uint64_t rows = 0;
    uint64_t all = 0;
    for (uint32_t i = 0; i < count; i++) {
        all += segments[i]->size;
        if (mir_tlog_rollup_step_in(segments[i]) != MIR_TLOG_ROLLUP_NONE) continue;
        rows += segments[i]->size;
        rows_end = i + 1;
    }
    uint32_t gone = 0;
    uint32_t rollup = rows_end;
    while (all > bytes_max && gone < rows_end && (rows > bytes_max / 2 || rows_end == count)) {
        rows -= segments[gone]->size;
        all -= segments[gone++]->size;
    }
    while (all > bytes_max && rollup < count) {
        all -= segments[rollup]->size;
        mir_tlog_segment *left = segments[gone];
        segments[gone++] = segments[rollup];
        segments[rollup++] = left;
    }
    return gone;
}

static void by_size(retain *r)
{
    mir_tlog *tlog = r->tlog;
    const uint64_t bytes_max = tlog->options.retention_bytes_max;
    if (bytes_max == 0) return;
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    const uint32_t all = version->segment_count;
    uint64_t bytes = 0;
    for (uint32_t i = 0; i < all; i++) bytes += version->segments[i]->size;
    mir_tlog_segment **segments = bytes <= bytes_max ? NULL : malloc(all * sizeof *segments);
    if (segments != NULL) memcpy(segments, version->segments, all * sizeof *segments);
    if (segments != NULL && sort_by_age(segments, all) == MIR_OK) {
        const uint32_t count = beyond_size(segments, all, bytes_max);
        uint64_t rows = 0;
        uint64_t rollups = 0;
        uint64_t gone = 0;
        for (uint32_t i = 0; i < count; i++) {
            const bool rolled = mir_tlog_rollup_step_in(segments[i]) != MIR_TLOG_ROLLUP_NONE;
            *(rolled ? &rollups : &rows) += segments[i]->rows;
            gone += segments[i]->size;
        }
        mir_error error;
        if (count > 0 &&
            mir_tlog_install(tlog, NULL, 0, segments, count, NULL, NULL, &error) == MIR_OK) {
            mir_tlog_count(&tlog->segments_dropped, count);
            (void)pthread_mutex_lock(&tlog->mutex);
            tlog->retention.rows_removed_size += rows;
            tlog->retention.rollups_removed += rollups;
            tlog->retention.bytes_removed += gone;
            tlog->retention.removed_ns = tlog->retention.run_ns = r->now_ns;
            (void)pthread_mutex_unlock(&tlog->mutex);
            r->removed = true;
        } else if (count > 0) {
            failed(tlog, &error);
        }
    }
    free(segments);
    mir_tlog_version_release(version);
}

bool mir_tlog_retain(mir_tlog *tlog, mir_tlog_codec *codec, bool all)
{
    retain r = {.tlog = tlog, .codec = codec, .now_ns = mir_tlog_clock_look(tlog)};
    mir_tlog_clock_read(tlog, &r.clock);
    by_age(&r, all);
    by_size(&r);
    mir_bytes_free(&r.name_space);
    if (r.removed) mir_tlog_tally_write(tlog);
    (void)pthread_mutex_lock(&tlog->mutex);
    tlog->retention.run_ns = r.now_ns;
    (void)pthread_mutex_unlock(&tlog->mutex);
    return r.more;
}

void mir_tlog_retention_read(mir_tlog *tlog, mir_tlog_retention *retention)
{
    mir_tlog_version *version = mir_tlog_version_acquire(tlog);
    int64_t oldest_ns = INT64_MAX;
    uint64_t rows = 0;
    uint64_t bytes = 0;
    uint64_t rollup_rows[MIR_TLOG_ROLLUPS] = {0};
    uint64_t rollup_bytes = 0;
    for (uint32_t i = 0; i < version->segment_count; i++) {
        const mir_tlog_segment *segment = version->segments[i];
        const int step = mir_tlog_rollup_step_in(segment);
        if (step != MIR_TLOG_ROLLUP_NONE) {
            rollup_rows[step] += segment->rows;
            rollup_bytes += segment->size;
            continue;
        }
        if (segment->time_min < oldest_ns) oldest_ns = segment->time_min;
        rows += segment->rows;
        bytes += segment->size;
    }
    mir_tlog_version_release(version);
    (void)pthread_mutex_lock(&tlog->mutex);
    *retention = tlog->retention;
    (void)pthread_mutex_unlock(&tlog->mutex);
    retention->rows = rows;
    retention->bytes = bytes;
    memcpy(retention->rollup_rows, rollup_rows, sizeof rollup_rows);
    retention->rollup_bytes = rollup_bytes;
    retention->oldest_ns = oldest_ns;
}
