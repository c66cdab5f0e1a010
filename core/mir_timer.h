/* SPDX-License-Identifier: Apache-2.0 */
/* mir_timer: a hashed timer wheel for one shard.
 *
 * Why        Pings, deadlines of replies, offline scans and write deadlines are many, cheap to set,
 *            and mostly cancelled or pushed back.
 * Ownership  Timers are embedded in their owners; the wheel links them and owns nothing. An owner
 *            cancels before it dies.
 * Affinity   The shard's thread.
 * Units      Monotonic nanoseconds; resolution is MIR_TIMER_TICK_MS. A timer never fires early.
 * Bounds     set, cancel: O(1). advance: at most `budget` callbacks a call; the rest stay due.
 * Errors     None.
 * Source     Varghese and Lauck's hashed wheel with unsorted slots (scheme 6): a slot holds all
 *            rounds, an entry whose time has not come is passed over. */
#ifndef MIR_TIMER_H
#define MIR_TIMER_H

#include <stdbool.h>
#include <stdint.h>

enum { MIR_TIMER_SLOTS = 4096 };

typedef struct mir_timer {
    struct mir_timer *next;
    struct mir_timer *prev; /* null when not set */
    int64_t due_ns;
    void (*fire)(struct mir_timer *timer, void *context);
} mir_timer;

typedef struct mir_timer_wheel {
    mir_timer slots[MIR_TIMER_SLOTS]; /* list heads */
    int64_t tick;                     /* every tick before this one was handled */
    uint64_t count;
    void *context;
} mir_timer_wheel;

void mir_timer_wheel_init(mir_timer_wheel *wheel, int64_t now_ns, void *context);
/* Sets or moves. */
void mir_timer_set(mir_timer_wheel *wheel, mir_timer *timer, int64_t due_ns);
void mir_timer_cancel(mir_timer_wheel *wheel, mir_timer *timer);
static inline bool mir_timer_is_set(const mir_timer *timer)
{
    return timer->prev != 0;
}
/* Runs what is due; returns how many callbacks ran. */
unsigned mir_timer_advance(mir_timer_wheel *wheel, int64_t now_ns, unsigned budget);
/* How long one may sleep: until the next tick that holds a timer, at most max_ns. */
int64_t mir_timer_sleep_ns(const mir_timer_wheel *wheel, int64_t now_ns, int64_t max_ns);

#endif
