/* SPDX-License-Identifier: Apache-2.0 */
/* mir_sequel: what is said of committed changes, in the order of their commits.
 *
 * Why        Whoever follows the events of a device takes the last one for what the device is. Events
 *            are written on several workers and are asked for on several shards; messages of two
 *            shards to a third have no order. So all of them are published on one shard, one after
 *            another as the writer of the store has committed them.
 *
 *              writer: commit ── place, place ──▶ ┌ one lane ┐
 *              worker: letters are written ─ tell ▶ first that is told, next … ──▶ published, done
 *
 * Ownership  A sequel belongs to the lane from place until its `done` runs, which may free it. Its
 *            letters go with it. Who has placed one tells it, without waiting for anything but a
 *            worker's turn: what was committed after it waits for that.
 * Affinity   place: the thread of the store's writer, in the `done` of a request. tell: any thread.
 *            `done`: the shard of the lane.
 * Bounds     MIR_SEQUEL_LETTERS_TURN letters in a turn of the shard. As many sequels as operations are
 *            in flight.
 * Errors     None. While the server stops nothing is published, and `done` runs all the same. */
#ifndef MIR_SEQUEL_H
#define MIR_SEQUEL_H

#include "mir_letter.h"

enum { MIR_SEQUEL_LETTERS_TURN = 512 };

typedef struct mir_sequel mir_sequel;
struct mir_sequel {
    mir_mpsc_node node; /* in the lane */
    mir_post post;
    struct mir_hub *hub;
    mir_letters letters;
    void (*done)(mir_shard *shard, mir_sequel *sequel);
    void *context;
    bool has_place;
    bool is_told; /* as the lane knows */
};

/* One for the server. */
typedef struct mir_sequel_lane {
    mir_mpsc placed;     /* by the writer, not seen by the shard yet */
    mir_sequel *first;   /* the shard's, in order */
    mir_mpsc_node *last; /* of the same */
    mir_post again;
    bool goes_on; /* in the next turn */
} mir_sequel_lane;

/* A place behind everything that was committed before. */
void mir_sequel_place(struct mir_hub *hub, mir_sequel *sequel);
/* For `done`: has `post` run where it is at home, behind what was published, which is on its way. */
void mir_sequel_home(mir_shard *lane, mir_shard *home, mir_post *post);
/* The letters are written. One without a place gets the one behind all that are placed by now. */
void mir_sequel_tell(struct mir_hub *hub, mir_sequel *sequel);

#endif
