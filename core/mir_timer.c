/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_timer.h"

#include <stddef.h>

#include "mir_assert.h"
#include "mir_clock.h"
#include "mir_limits.h"

#define TICK_NS (MIR_TIMER_TICK_MS * MIR_NS_PER_MS)

void mir_timer_wheel_init(mir_timer_wheel *wheel, int64_t now_ns, void *context)
{
    *wheel = (mir_timer_wheel){.tick = now_ns / TICK_NS, .context = context};
    for (int i = 0; i < MIR_TIMER_SLOTS; i++)
        wheel->slots[i].next = wheel->slots[i].prev = &wheel->slots[i];
}

/* A timer belongs to the first tick that begins at or after its time, so it never fires early. */
static int64_t tick_of(int64_t due_ns)
{
    return due_ns / TICK_NS + (due_ns % TICK_NS > 0 ? 1 : 0);
}

static void unlink_timer(mir_timer *timer)
{
    timer->prev->next = timer->next;
    timer->next->prev = timer->prev;
    timer->next = timer->prev = NULL;
}

void mir_timer_set(mir_timer_wheel *wheel, mir_timer *timer, int64_t due_ns)
{
    MIR_ASSERT(timer->fire != NULL);
    if (timer->prev != NULL) {
        unlink_timer(timer);
        wheel->count--;
    }
    int64_t tick = tick_of(due_ns);
    if (tick < wheel->tick) tick = wheel->tick;
    mir_timer *head = &wheel->slots[tick % MIR_TIMER_SLOTS];
    timer->due_ns = due_ns;
    timer->next = head;
    timer->prev = head->prev;
    head->prev->next = timer;
    head->prev = timer;
    wheel->count++;
}

void mir_timer_cancel(mir_timer_wheel *wheel, mir_timer *timer)
{
    if (timer->prev == NULL) return;
    unlink_timer(timer);
    wheel->count--;
}

unsigned mir_timer_advance(mir_timer_wheel *wheel, int64_t now_ns, unsigned budget)
{
    unsigned fired = 0;
    int64_t now_tick = now_ns / TICK_NS;
    /* After a long sleep one round of the wheel visits every slot. */
    if (now_tick - wheel->tick > MIR_TIMER_SLOTS) wheel->tick = now_tick - MIR_TIMER_SLOTS;
    while (wheel->tick <= now_tick) {
        mir_timer *head = &wheel->slots[wheel->tick % MIR_TIMER_SLOTS];
        mir_timer *timer = head->next;
        while (timer != head) {
            if (timer->due_ns > now_ns) {
                timer = timer->next;
                continue;
            }
            if (fired == budget) return fired;
            /* The callback may change the list: a mark keeps the place in it. */
            mir_timer mark = {.next = timer->next, .prev = timer};
            timer->next->prev = &mark;
            timer->next = &mark;
            unlink_timer(timer);
            wheel->count--;
            fired++;
            timer->fire(timer, wheel->context);
            timer = mark.next;
            unlink_timer(&mark);
        }
        wheel->tick++;
    }
    return fired;
}

int64_t mir_timer_sleep_ns(const mir_timer_wheel *wheel, int64_t now_ns, int64_t max_ns)
{
    if (wheel->count == 0) return max_ns;
    for (int64_t tick = wheel->tick; tick < wheel->tick + MIR_TIMER_SLOTS; tick++) {
        int64_t wait_ns = tick * TICK_NS - now_ns;
        if (wait_ns >= max_ns) break;
        const mir_timer *head = &wheel->slots[tick % MIR_TIMER_SLOTS];
        if (head->next != head) return wait_ns > 0 ? wait_ns : 0;
    }
    return max_ns;
}
