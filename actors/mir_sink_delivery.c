/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sink_delivery.h"

#include <stdlib.h>
#include <string.h>

mir_sink_verdict mir_sink_judge(long http_status)
{
    if (http_status >= 200 && http_status < 300) return MIR_SINK_ACCEPTED;
    switch (http_status) {
    case 401: /* who we are, where we write to and how: the lines are not to blame */
    case 402:
    case 403:
    case 404:
    case 405:
    case 407:
    case 408:
    case 415: /* it takes no gzip */
    case 425:
    case 429: return MIR_SINK_AGAIN;
    default: break;
    }
    return http_status >= 400 && http_status < 500 ? MIR_SINK_REFUSED : MIR_SINK_AGAIN;
}

uint64_t mir_sink_partial_of(mir_view text)
{
    static const char mark[] = "dropped=";
    const mir_view lead = MIR_VIEW_LITERAL("{\"error\":\"");
    /* Where it begins and how it ends are its own words; between these a line may be shown, which
     * says what a device wanted. */
    if (mir_view_starts(text, lead)) text = mir_view_from(text, lead.size);
    if (!mir_view_starts(text, MIR_VIEW_LITERAL("partial write"))) return 0;
    while (text.size > 0 && memchr("\"}\r\n", text.data[text.size - 1], 4) != NULL) text.size--;
    size_t digits = text.size;
    while (digits > 0 && text.data[digits - 1] >= '0' && text.data[digits - 1] <= '9') digits--;
    if (digits < sizeof mark - 1 ||
        memcmp(text.data + digits - (sizeof mark - 1), mark, sizeof mark - 1) != 0)
        return 0;
    uint64_t value = 0;
    for (size_t i = digits; i < text.size && value < UINT32_MAX; i++)
        value = value * 10 + (uint64_t)(text.data[i] - '0');
    return value;
}

int64_t mir_sink_backoff_ns(unsigned failed, int64_t retry_after_ns, uint64_t random)
{
    int64_t wait_ns = MIR_SINK_BACKOFF_MIN_NS;
    for (unsigned i = 1; i < failed && wait_ns < MIR_SINK_BACKOFF_MAX_NS; i++) wait_ns *= 2;
    if (wait_ns > MIR_SINK_BACKOFF_MAX_NS) wait_ns = MIR_SINK_BACKOFF_MAX_NS;
    wait_ns = wait_ns / 2 + (int64_t)(random % (uint64_t)(wait_ns / 2 + 1));
    if (retry_after_ns > MIR_SINK_RETRY_AFTER_MAX_NS) retry_after_ns = MIR_SINK_RETRY_AFTER_MAX_NS;
    return retry_after_ns > wait_ns ? retry_after_ns : wait_ns;
}

mir_status mir_sink_lines_add(mir_sink_lines *lines)
{
    const size_t start = lines->count == 0 ? 0 : lines->starts[lines->count];
    if (mir_bytes_ok(&lines->text) && lines->count + 1 >= lines->capacity) {
        const uint32_t capacity = lines->capacity == 0 ? 1024 : lines->capacity * 2;
        uint32_t *more = realloc(lines->starts, capacity * sizeof *more);
        if (more == NULL) {
            lines->text.size = start;
            return MIR_E_NO_MEMORY;
        }
        lines->starts = more;
        lines->capacity = capacity;
    }
    if (!mir_bytes_ok(&lines->text)) {
        lines->text.failed = false;
        lines->text.size = start;
        return MIR_E_NO_MEMORY;
    }
    lines->starts[lines->count++] = (uint32_t)start;
    lines->starts[lines->count] = (uint32_t)lines->text.size;
    return MIR_OK;
}

void mir_sink_lines_clear(mir_sink_lines *lines)
{
    lines->count = 0;
    lines->text.size = 0;
}

void mir_sink_lines_fini(mir_sink_lines *lines)
{
    mir_bytes_free(&lines->text);
    free(lines->starts);
    *lines = (mir_sink_lines){0};
}

static mir_view part_of(const mir_sink_lines *lines, uint32_t first, uint32_t count)
{
    const uint32_t start = lines->starts[first];
    return mir_view_of(lines->text.data + start, lines->starts[first + count] - start);
}

/* What a refusal means: MIR_SINK_REFUSED, it is the lines; MIR_SINK_AGAIN, it is not, or cannot be told
 * now, and *answer says why. */
static mir_sink_verdict refusal_judge(const mir_sink_port *port, mir_sink_answer *answer)
{
    if (*port->takes) return MIR_SINK_REFUSED;
    mir_sink_answer asked = {0};
    port->post(port->context, MIR_VIEW_LITERAL("# mir\n"), &asked);
    switch (mir_sink_judge(asked.http_status)) {
    case MIR_SINK_ACCEPTED: *port->takes = true; return MIR_SINK_REFUSED;
    case MIR_SINK_REFUSED: break;
    case MIR_SINK_AGAIN: *answer = asked; break;
    }
    return MIR_SINK_AGAIN;
}

/* It had more than it could do in its time, or in ours. */
static bool is_slow(const mir_sink_answer *answer)
{
    return answer->slow || answer->http_status == 408 || answer->http_status == 500 ||
           answer->http_status == 504;
}

static void pace_slower(mir_sink_pace *pace, uint32_t count)
{
    *pace = (mir_sink_pace){.lines_max = count / 4 > 0 ? count / 4 : 1};
}

/* Of small posts nothing follows. */
static void pace_faster(mir_sink_pace *pace, uint32_t count)
{
    if (pace->lines_max == 0 || count < pace->lines_max / 2) return;
    if (++pace->posts_well < MIR_SINK_POSTS_WELL) return;
    *pace = (mir_sink_pace){.lines_max = pace->lines_max * 2};
}

/* A piece that is refused is cut in halves, the first one first, until it is one line. */
mir_status mir_sink_deliver(const mir_sink_lines *lines, const mir_sink_port *port)
{
    uint32_t ends
        [40]; /* of the pieces that wait, the nearest one last; each is half of the one before */
    uint32_t depth = 0;
    uint32_t at = 0;
    unsigned failed = 0;
    if (lines->count == 0) return MIR_OK;
    ends[depth++] = lines->count;
    while (depth > 0) {
        const uint32_t count = ends[depth - 1] - at;
        if (count > 1 && port->pace->lines_max > 0 && count > port->pace->lines_max) {
            ends[depth++] = at + count / 2;
            continue;
        }
        const mir_view body = part_of(lines, at, count);
        mir_sink_answer answer = {0};
        port->post(port->context, body, &answer);
        const bool partial = answer.partial > 0 && answer.partial <= count;
        mir_sink_verdict verdict = mir_sink_judge(answer.http_status);
        if (verdict == MIR_SINK_ACCEPTED || (verdict == MIR_SINK_REFUSED && partial))
            *port->takes = true;
        if (verdict == MIR_SINK_REFUSED) verdict = refusal_judge(port, &answer);
        if (verdict == MIR_SINK_AGAIN) {
            *port->takes = false;
            if (is_slow(&answer)) pace_slower(port->pace, count);
            const int64_t wait_ns =
                mir_sink_backoff_ns(++failed, answer.retry_after_ns, port->random(port->context));
            port->failed(port->context, &answer, wait_ns);
            if (!port->wait(port->context, wait_ns)) return MIR_E_CANCELLED;
            continue;
        }
        failed = 0;
        pace_faster(port->pace, count);
        if (verdict == MIR_SINK_REFUSED && !partial && count > 1) {
            ends[depth++] = at + count / 2;
            continue;
        }
        uint64_t refused = 0;
        if (verdict == MIR_SINK_REFUSED) refused = partial ? answer.partial : 1;
        if (refused > 0) port->refused(port->context, refused, part_of(lines, at, 1), &answer);
        if (refused < count) port->accepted(port->context, count - (uint32_t)refused, body.size);
        at += count;
        depth--;
    }
    return MIR_OK;
}
