/* SPDX-License-Identifier: Apache-2.0 */
/* mir_sink_delivery: a batch of lines to another system, whatever it answers.
 *
 * Why        The other side is away, overloaded, or wants some lines never. The first two are waited
 *            for; a refused line must not hold up those behind it, nor take along its neighbours.
 *            A wrong path or a missing database is answered with a 400 by many, as a wrong line is.
 *            So who has taken nothing yet, or failed since, is asked first whether it is the lines:
 *            by a post of a comment, which has nothing to be refused for. Who does not get a batch
 *            done in time would not the next time either: it gets less at once.
 * Ownership  Lines are the batch's; a port's context the caller's.
 * Affinity   The calling thread, which waits in `wait`.
 * Units      Nanoseconds; lines.
 * Bounds     A batch of n lines costs at most 2n + 1 posts besides those that are repeated (a slow side
 *            gets a quarter of what was too much, and twice as much after POSTS_WELL that were not); of an answer
 *            MIR_SINK_TEXT_BYTES_MAX are kept. Waits double from BACKOFF_MIN_NS to BACKOFF_MAX_NS;
 *            what Retry-After asks for is waited for up to RETRY_AFTER_MAX_NS.
 * Errors     MIR_E_CANCELLED when `wait` said so: all of the batch is to be sent again.
 * Source     Waits: exponential with "equal jitter", half of a wait is random. */
#ifndef MIR_SINK_DELIVERY_H
#define MIR_SINK_DELIVERY_H

#include "mir_bytes.h"
#include "mir_clock.h"
#include "mir_status.h"

enum { MIR_SINK_TEXT_BYTES_MAX = 256, MIR_SINK_POSTS_WELL = 16 };
#define MIR_SINK_BACKOFF_MIN_NS     (200 * MIR_NS_PER_MS)
#define MIR_SINK_BACKOFF_MAX_NS     (30 * MIR_NS_PER_S)
#define MIR_SINK_RETRY_AFTER_MAX_NS (300 * MIR_NS_PER_S)

typedef struct mir_sink_answer {
    long http_status; /* 0: none came */
    bool slow;        /* none came in time, or not to the end, of lines that were being sent */
    int64_t retry_after_ns; /* 0: it did not say */
    uint64_t partial;       /* lines that it says it has left out of those that it took; 0: none */
    char text[MIR_SINK_TEXT_BYTES_MAX]; /* what it said, or why there is no answer */
} mir_sink_answer;

typedef enum mir_sink_verdict {
    MIR_SINK_ACCEPTED,
    MIR_SINK_AGAIN,   /* nobody there, too busy, or something that somebody has to put right */
    MIR_SINK_REFUSED, /* because of what was sent */
} mir_sink_verdict;

mir_sink_verdict mir_sink_judge(long http_status);
/* What InfluxDB says when it took a batch but for some lines: `… dropped=N`. 0: nothing of it. */
uint64_t mir_sink_partial_of(mir_view text);
/* Before the attempt behind the `failed`th one, which counts from 1. */
int64_t mir_sink_backoff_ns(unsigned failed, int64_t retry_after_ns, uint64_t random);

typedef struct mir_sink_lines {
    mir_bytes text;
    uint32_t *starts; /* of each line */
    uint32_t count;
    uint32_t capacity;
} mir_sink_lines;

/* What was appended to the text since the last line is one. MIR_E_NO_MEMORY: it is taken back. */
MIR_MUST_CHECK mir_status mir_sink_lines_add(mir_sink_lines *lines);
void mir_sink_lines_clear(mir_sink_lines *lines);
void mir_sink_lines_fini(mir_sink_lines *lines);

/* How much a slow side gets at once; zeroed at first, and kept from batch to batch. */
typedef struct mir_sink_pace {
    uint32_t lines_max;  /* of a post; 0: any number */
    uint32_t posts_well; /* since that changed */
} mir_sink_pace;

typedef struct mir_sink_port {
    void *context;
    void (*post)(void *context, mir_view body, mir_sink_answer *answer);
    /* False: give up. */
    bool (*wait)(void *context, int64_t ns);
    uint64_t (*random)(void *context);
    /* It went wrong, and is tried again after a wait. */
    void (*failed)(void *context, const mir_sink_answer *answer, int64_t wait_ns);
    void (*accepted)(void *context, uint32_t lines, size_t bytes);
    /* `line` is one of them. */
    void (*refused)(void *context, uint64_t lines, mir_view line, const mir_sink_answer *answer);
    bool *takes; /* it is known to take lines; false at first, and kept from batch to batch */
    mir_sink_pace *pace;
} mir_sink_port;

MIR_MUST_CHECK mir_status mir_sink_deliver(const mir_sink_lines *lines, const mir_sink_port *port);

#endif
