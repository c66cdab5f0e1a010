/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_shares: an answer of windows, given out by as many threads as there are.
 *
 * Why        Rows of one time stand side by side in the answer, so a device's cannot be written down
 *            when they are made. But how many bytes they take is known then, and with it where each
 *            stretch of the answer begins: threads take stretch after stretch of the same memory.
 * Ownership  Borrows the parts, which stay as they are, and the sink.
 * Affinity   give, any number of threads at once; the others one.
 * Bounds     Memory counts in `bytes`, up to bytes_max: less than 80 bytes for each part.
 * Errors     MIR_E_NO_MEMORY, MIR_E_TOO_LARGE (bytes_max), MIR_E_CANCELLED, and what the sink says. */
#ifndef MIR_TLOG_SHARES_H
#define MIR_TLOG_SHARES_H

#include "mir_tlog_part.h"

enum { MIR_TLOG_SHARES_MAX = 12 };

/* Rows of one device, with one column of numbers, that are still to be given out. */
typedef struct mir_tlog_number_run {
    const int64_t *times;
    const uint64_t *values;
    const uint8_t *present;
    uint32_t left; /* at least one */
    uint32_t device;
} mir_tlog_number_run;

enum { MIR_TLOG_NUMBERS_ROWS = 512 };

typedef struct mir_tlog_numbers {
    int64_t times[MIR_TLOG_NUMBERS_ROWS];
    uint32_t devices[MIR_TLOG_NUMBERS_ROWS];
    mir_cell cells[MIR_TLOG_NUMBERS_ROWS];
    uint8_t present[MIR_TLOG_NUMBERS_ROWS];
    mir_tlog_batch batch;
} mir_tlog_numbers;

/* Runs whose rows stand at the same times for the most part: at each time all of them in turn, batch
 * by batch into `numbers`, which `take` is called with. The runs are gone then. */
MIR_MUST_CHECK mir_status mir_tlog_numbers_merge(
    mir_tlog_number_run *runs, uint32_t count, uint64_t limit, mir_tlog_numbers *numbers,
    mir_status (*take)(void *context, const mir_tlog_batch *batch), void *context);

typedef struct mir_tlog_shares {
    const mir_tlog_part *parts;
    uint32_t part_count;
    mir_column column; /* the only one, of numbers */
    const mir_tlog_sink *sink;
    const atomic_bool *cancel; /* may be null */
    atomic_ullong *bytes;
    uint64_t bytes_max;
    /* Its own: */
    uint64_t rows;
    uint64_t bytes_taken;
    uint32_t *with_rows; /* parts */
    uint32_t count;      /* of these */
    uint32_t *cuts;      /* of each, where its rows of the stretch before end */
    uint8_t *places[MIR_TLOG_SHARES_MAX + 1];
    atomic_uint next;
    atomic_uint failed; /* a mir_status */
} mir_tlog_shares;

/* All up to `bytes_max` is set, and some part has rows. fini may be called either way. */
MIR_MUST_CHECK mir_status mir_tlog_shares_init(mir_tlog_shares *shares);
/* Tells the sink how long the answer is; the error is the sink's. */
MIR_MUST_CHECK mir_status mir_tlog_shares_measure(mir_tlog_shares *shares);
/* Returns when nothing is left to take; what others have taken may not be done. An error is of this
 * thread alone, which has no memory and has taken nothing. */
MIR_MUST_CHECK mir_status mir_tlog_shares_give(mir_tlog_shares *shares);
/* When all have returned, and one of them without an error: the sink's, or MIR_E_CANCELLED. */
MIR_MUST_CHECK mir_status mir_tlog_shares_status(const mir_tlog_shares *shares);
void mir_tlog_shares_fini(mir_tlog_shares *shares);

#endif
