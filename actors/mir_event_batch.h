/* SPDX-License-Identifier: Apache-2.0 */
/* mir_event_batch: events on their way into the store that are no changes of devices.
 *
 * Why        Commands, events of modules and refused logins are stored with one of the next group
 *            commits; whoever caused them does not wait for that.
 * Ownership  From submit on a batch owns itself, until its `done` has run. Inputs are copied by add.
 * Affinity   One thread at a time; `done` runs on the thread of the store's writer, and must be short.
 * Bounds     MIR_EVENT_BATCH_BYTES_MAX in one batch: what is added beyond it is lost.
 * Errors     What cannot be stored is counted in hub->events_lost, which the status shows as a
 *            problem of the server, and said in the log, at most once a second. add: MIR_E_INVALID
 *            and MIR_E_TOO_LARGE with a text for who sent the event; whatever it answers, the event is
 *            not in the batch, and it is the caller's to count it. */
#ifndef MIR_EVENT_BATCH_H
#define MIR_EVENT_BATCH_H

#include "mir_actors.h"

enum { MIR_EVENT_BATCH_BYTES_MAX = 256 * 1024 * 1024 };

typedef struct mir_event_batch mir_event_batch;

/* Never null: without memory it is a batch that takes nothing, so that what is added is known to be
 * lost. */
mir_event_batch *mir_event_batch_new(mir_hub *hub);
MIR_MUST_CHECK mir_status mir_event_batch_add(mir_event_batch *batch, const mir_event_input *input,
                                              mir_error *error);
/* `done` may be null: then nobody waits, and the store gathers them with what comes within
 * MIR_STATE_GATHER_MS. It runs before this returns when there is nothing to store. */
void mir_event_batch_submit(mir_hub *hub, mir_event_batch *batch, void (*done)(void *context),
                            void *context);
/* Counts events that were not stored. */
void mir_event_batch_lost(mir_hub *hub, size_t count, const char *why);

#endif
