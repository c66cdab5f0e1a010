/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_tlog_clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_tlog_rollup.h"

static const uint8_t clock_magic[8] = {'M', 'I', 'R', 'T', 'C', 'L', 'K', 0};
static const char clock_name[] = "CLOCK";

enum { CLOCK_VERSION = 1, CLOCK_BYTES_MAX = 4096 };

static const int64_t HOUR_NS = INT64_C(3600) * MIR_NS_PER_S;
/* What is down for no longer starts as if nothing had been; so far may rows go too early. */
static const int64_t APART_NS = INT64_C(86400) * MIR_NS_PER_S;
static const int64_t NOT_KNOWN = INT64_MIN;
static const int64_t AT_ONCE_NS = 1;

static bool is_far(int64_t a, int64_t b)
{
    int64_t between;
    return __builtin_sub_overflow(a, b, &between) || between > APART_NS || between < -APART_NS;
}

static int64_t later_by(int64_t time_ns, int64_t span_ns)
{
    int64_t later;
    return __builtin_add_overflow(time_ns, span_ns, &later) ? INT64_MAX : later;
}

/* ---- What is written down ---- */

static mir_status parse(mir_view bytes, mir_tlog_clock *clock, mir_error *error)
{
    mir_tlog_reader in;
    const mir_status status =
        mir_tlog_whole_parse(bytes, clock_magic, CLOCK_VERSION, "the known time", &in, error);
    if (status != MIR_OK) return status;
    const int64_t known_ns = mir_tlog_read_signed(&in);
    const int64_t wall_ns = mir_tlog_read_signed(&in);
    const int64_t apart_ns = mir_tlog_read_signed(&in);
    if (in.failed || in.at != in.end || apart_ns < 0)
        return mir_error_set(error, MIR_E_CORRUPT, "the known time cannot be read");
    clock->known_ns = known_ns;
    clock->wall_ns = wall_ns;
    clock->apart_ns = apart_ns;
    return MIR_OK;
}

static void write_down(mir_tlog *tlog)
{
    const mir_tlog_clock *clock = &tlog->clock;
    const uint8_t header[MIR_TLOG_WHOLE_HEADER_BYTES] = {0};
    mir_bytes out = {0};
    mir_bytes_append(&out, header, sizeof header);
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(clock->known_ns));
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(clock->wall_ns));
    mir_tlog_bytes_varint(&out, mir_tlog_zigzag(clock->apart_ns));
    mir_error error = {{0}};
    mir_status status = MIR_E_NO_MEMORY;
    if (mir_bytes_ok(&out)) {
        bool in_doubt;
        mir_tlog_whole_end(&out, clock_magic, CLOCK_VERSION);
        status = mir_tlog_file_replace(tlog->files, tlog->directory, clock_name,
                                       mir_bytes_as_view(&out), &in_doubt, &error);
    } else {
        status = mir_error_set(&error, status, "out of memory");
    }
    mir_bytes_free(&out);
    tlog->clock.written_ns = tlog->clock.seen_ns;
    if (status != MIR_OK) mir_log_warn("telemetry: the time is not written down: %s", error.text);
}

/* Without the file: what rows, and what was removed of them, tell. */
static int64_t newest_known(const mir_tlog *tlog)
{
    int64_t newest_ns = NOT_KNOWN;
    const mir_tlog_version *version = tlog->version;
    for (uint32_t i = 0; i < version->segment_count; i++) {
        const mir_tlog_segment *segment = version->segments[i];
        if (mir_tlog_rollup_step_in(segment) == MIR_TLOG_ROLLUP_NONE &&
            segment->time_max > newest_ns) {
            newest_ns = segment->time_max;
        }
    }
    for (uint32_t i = 0; i < version->live_count; i++) {
        const mir_tlog_mem_series *each =
            atomic_load_explicit(&version->lives[i]->mem->all, memory_order_acquire);
        for (; each != NULL; each = each->all_next) {
            const int64_t time_ns = atomic_load_explicit(&each->time_max, memory_order_relaxed);
            if (mir_tlog_mem_rows(each) > 0 && time_ns > newest_ns) newest_ns = time_ns;
        }
    }
    if (newest_ns != NOT_KNOWN && tlog->retention.removed_ns > newest_ns)
        newest_ns = tlog->retention.removed_ns;
    return newest_ns;
}

mir_status mir_tlog_clock_begin(mir_tlog *tlog, mir_error *error)
{
    mir_tlog_clock *clock = &tlog->clock;
    *clock = (mir_tlog_clock){.known_ns = NOT_KNOWN};
    if (tlog->options.clock_wait_ns == 0) return MIR_OK;
    char path[MIR_TLOG_PATH_BYTES_MAX];
    (void)snprintf(path, sizeof path, "%s/%s", tlog->directory, clock_name);
    uint8_t *bytes = NULL;
    size_t size = 0;
    mir_status status =
        mir_tlog_file_load(tlog->files, path, CLOCK_BYTES_MAX, &bytes, &size, error);
    if (status == MIR_OK || status == MIR_E_TOO_LARGE)
        status = parse(mir_view_of(bytes, size), clock, error);
    free(bytes);
    if (status == MIR_E_UNSUPPORTED || status == MIR_E_NO_MEMORY) return status;
    if (status != MIR_OK) clock->known_ns = newest_known(tlog);
    if (status != MIR_OK && status != MIR_E_NOT_FOUND)
        mir_log_warn("telemetry: %s; the newest row stands for it", error->text);
    clock->seen_ns = tlog->options.mono_ns();
    clock->written_ns = clock->seen_ns - HOUR_NS;
    if (clock->known_ns == NOT_KNOWN) clock->known_ns = tlog->options.wall_ns();
    (void)mir_tlog_clock_look(tlog);
    return MIR_OK;
}

void mir_tlog_clock_end(mir_tlog *tlog)
{
    if (tlog->options.clock_wait_ns != 0) write_down(tlog);
}

/* ---- What the clock says ---- */

static void tell(mir_tlog *tlog, const mir_tlog_clock *now)
{
    char known[MIR_CLOCK_TEXT_BYTES];
    char wall[MIR_CLOCK_TEXT_BYTES];
    mir_tlog_clock_state state;
    (void)mir_clock_rfc3339(now->known_ns, known);
    (void)mir_clock_rfc3339(now->wall_ns, wall);
    mir_tlog_clock_read(tlog, &state);
    if (state.ahead_ns > 0) {
        mir_log_warn(
            "telemetry: the clock says %s, and the time that is known is %s: retention goes "
            "by that until the clock has stayed so for telemetry.retention.clock_wait, or "
            "for as long as rows are kept; set the clock or, if it is right, start once "
            "with a clock_wait of 0",
            wall, known);
    } else if (now->apart) {
        mir_log_warn("telemetry: the clock says %s, and %s was known before: set the clock", wall,
                     known);
    } else {
        mir_log_warn("telemetry: the clock says %s, and retention goes by it again", wall);
    }
    if (tlog->options.clock_told != NULL)
        tlog->options.clock_told(tlog->options.clock_told_context, &state);
}

int64_t mir_tlog_clock_look(mir_tlog *tlog)
{
    const int64_t wall_ns = tlog->options.wall_ns();
    const int64_t wait_ns =
        tlog->options.clock_wait_ns > INT64_MAX ? INT64_MAX : (int64_t)tlog->options.clock_wait_ns;
    if (wait_ns == 0) return wall_ns;
    const int64_t mono_ns = tlog->options.mono_ns();
    const mir_tlog_clock before = tlog->clock;
    mir_tlog_clock now = before;
    const int64_t ran_ns = mono_ns > now.seen_ns ? mono_ns - now.seen_ns : 0;
    now.seen_ns = mono_ns;
    now.known_ns = later_by(now.known_ns, ran_ns);
    now.apart = is_far(wall_ns, now.known_ns);
    /* One that jumps again has to stay anew; so has the one of another run. */
    const bool same = !is_far(wall_ns, later_by(now.wall_ns, ran_ns));
    now.apart_ns = now.apart && same ? later_by(now.apart_ns, ran_ns) : 0;
    if (now.apart_ns >= wait_ns || wait_ns == AT_ONCE_NS) now.apart = false;
    if (!now.apart) {
        now.known_ns = wall_ns;
        now.apart_ns = 0;
    }
    now.wall_ns = wall_ns;
    (void)pthread_mutex_lock(&tlog->mutex);
    tlog->clock = now;
    (void)pthread_mutex_unlock(&tlog->mutex);
    const bool news = now.apart != before.apart;
    if (news) tell(tlog, &now);
    if (news || mono_ns - now.written_ns >= HOUR_NS) write_down(tlog);
    return wall_ns;
}

void mir_tlog_clock_read(mir_tlog *tlog, mir_tlog_clock_state *state)
{
    (void)pthread_mutex_lock(&tlog->mutex);
    const mir_tlog_clock now = tlog->clock;
    (void)pthread_mutex_unlock(&tlog->mutex);
    *state = (mir_tlog_clock_state){.known_ns = now.known_ns};
    if (!now.apart || now.wall_ns < now.known_ns) return;
    state->ahead_ns = (uint64_t)now.wall_ns - (uint64_t)now.known_ns;
    state->apart_ns = (uint64_t)now.apart_ns;
}

int64_t mir_tlog_known_ns(mir_tlog *tlog)
{
    const int64_t wall_ns = tlog->options.wall_ns();
    if (tlog->options.clock_wait_ns <= (uint64_t)AT_ONCE_NS) return wall_ns;
    (void)pthread_mutex_lock(&tlog->mutex);
    const mir_tlog_clock now = tlog->clock;
    (void)pthread_mutex_unlock(&tlog->mutex);
    /* It may have jumped since it was looked at. */
    const int64_t known_ns = later_by(now.known_ns, tlog->options.mono_ns() - now.seen_ns);
    return wall_ns > known_ns && is_far(wall_ns, known_ns) ? known_ns : wall_ns;
}
