/* SPDX-License-Identifier: Apache-2.0 */
/* mir_responses: the replies that a connection may publish because it was asked.
 *
 * Why        A service with allow_responses publishes nothing but answers: each of its publishes
 *            asks here, so an answer is found by its subject and not by looking at every question.
 * Ownership  The session owns it; subjects are copied.
 * Affinity   One thread.
 * Units      Nanoseconds of the caller's clock, which never goes back.
 * Bounds     MIR_RESPONSES_MAX subjects; the oldest makes room. note and take do the work of a
 *            hash lookup and free at most MIR_RESPONSES_STEP subjects whose time is over.
 * Errors     Without memory a question is not noted: its answer is refused. */
#ifndef MIR_RESPONSES_H
#define MIR_RESPONSES_H

#include "mir_view.h"

enum {
    MIR_RESPONSES_MAX = 4096, /* what a requester can make a service hold */
    MIR_RESPONSES_STEP = 4,   /* more than one, so that a heap of old ones shrinks */
};

typedef struct mir_responses mir_responses;

/* Null without memory. */
mir_responses *mir_responses_create(void);
void mir_responses_destroy(mir_responses *responses);
/* A question with this reply came: `max` more answers (negative: any number), for the next
 * `expires_ns` (negative: always). What is left of earlier questions with the same reply is kept. */
void mir_responses_note(mir_responses *responses, mir_view reply, int64_t max, int64_t expires_ns,
                        int64_t now_ns);
/* Uses up one answer; false when none is left. */
bool mir_responses_take(mir_responses *responses, mir_view reply, int64_t now_ns);
uint32_t mir_responses_count(const mir_responses *responses);

#endif
