/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_event_batch.h"

#include <stdlib.h>

#include "mir_clock.h"
#include "mir_log.h"

/* What goes to the store at once, and for how many there is room at first: most batches are those of
 * one command. */
enum { PART_EVENTS = 4096, PART_EVENTS_FIRST = 4 };

typedef struct part {
    struct part *next;
    mir_state_request request;
    mir_event_batch *batch;
    size_t count, room;
    mir_event_item items[];
} part;

struct mir_event_batch {
    mir_hub *hub;
    mir_arena arena;
    part *first, *last;
    _Atomic size_t left; /* parts under way, and one for submit itself */
    void (*done)(void *context);
    void *context;
};

/* Stands for the batches for which there was no memory. */
static mir_event_batch takes_nothing;

mir_event_batch *mir_event_batch_new(mir_hub *hub)
{
    mir_event_batch *batch = calloc(1, sizeof *batch);
    if (batch == NULL) return &takes_nothing;
    batch->hub = hub;
    batch->arena.bytes_max = MIR_EVENT_BATCH_BYTES_MAX;
    return batch;
}

void mir_event_batch_lost(mir_hub *hub, size_t count, const char *why)
{
    uint64_t before =
        atomic_fetch_add_explicit(&hub->events_lost, (uint64_t)count, memory_order_relaxed);
    int64_t now_ns = mir_clock_mono_ns();
    int64_t said_ns = atomic_load_explicit(&hub->events_lost_said_ns, memory_order_relaxed);
    if (before != 0 && now_ns - said_ns < MIR_NS_PER_S) return;
    if (atomic_compare_exchange_strong_explicit(&hub->events_lost_said_ns, &said_ns, now_ns,
                                                memory_order_relaxed, memory_order_relaxed))
        mir_log_error("%zu events are not stored: %s", count, why);
}

mir_status mir_event_batch_add(mir_event_batch *batch, const mir_event_input *input,
                               mir_error *error)
{
    if (batch == &takes_nothing) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (batch->last == NULL || batch->last->count == batch->last->room) {
        size_t room = batch->last == NULL ? PART_EVENTS_FIRST : PART_EVENTS;
        part *fresh = calloc(1, sizeof *fresh + room * sizeof fresh->items[0]);
        if (fresh == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        fresh->batch = batch;
        fresh->room = room;
        if (batch->last == NULL)
            batch->first = fresh;
        else
            batch->last->next = fresh;
        batch->last = fresh;
    }
    part *last = batch->last;
    mir_status status = mir_event_make(input, &batch->arena, &last->items[last->count], error);
    if (status == MIR_OK) last->count++;
    return status;
}

static void drop(mir_event_batch *batch)
{
    if (atomic_fetch_sub_explicit(&batch->left, 1, memory_order_acq_rel) != 1) return;
    mir_hub *hub = batch->hub;
    void (*done)(void *) = batch->done;
    void *context = batch->context;
    while (batch->first != NULL) {
        part *next = batch->first->next;
        mir_arena_free(&batch->first->request.arena);
        free(batch->first);
        batch->first = next;
    }
    mir_arena_free(&batch->arena);
    free(batch);
    if (done != NULL) done(context);
    mir_hub_end(hub);
}

static void stored(mir_state_request *request, void *context)
{
    part *of = context;
    if (request->status != MIR_OK) mir_event_batch_lost(of->batch->hub, of->count, request->error);
    drop(of->batch);
}

void mir_event_batch_submit(mir_hub *hub, mir_event_batch *batch, void (*done)(void *context),
                            void *context)
{
    if (batch == &takes_nothing) {
        if (done != NULL) done(context);
        return;
    }
    mir_hub_begin(hub);
    batch->done = done;
    batch->context = context;
    atomic_init(&batch->left, 1);
    for (part *at = batch->first; at != NULL; at = at->next) {
        if (at->count == 0) continue;
        at->request.op = MIR_STATE_EVENTS;
        at->request.events.items = at->items;
        at->request.events.count = at->count;
        at->request.done = stored;
        at->request.ctx = at;
        at->request.may_wait = done == NULL;
        atomic_fetch_add_explicit(&batch->left, 1, memory_order_relaxed);
        if (mir_state_submit(hub->state, &at->request) != MIR_OK) {
            mir_event_batch_lost(hub, at->count, "the store is busy");
            atomic_fetch_sub_explicit(&batch->left, 1, memory_order_relaxed);
        }
    }
    drop(batch);
}
