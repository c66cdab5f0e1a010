/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlog_rollup: what the rows of a minute, ten minutes or an hour come to, as rows of a series.
 *
 * Why        When rows are removed because of their age, what they came to stays for longer. It is
 *            stored like rows: a series for each step, whose measurement is that of the rows behind
 *            two reserved bytes, with several columns for each one of theirs. So checksums, indexes,
 *            merging and queries need nothing new.
 * Ownership  A table owns its arrays; names are pointed to, and so are texts until `keep_texts`.
 * Affinity   One thread at a time.
 * Units      A row's time is the beginning of its step; steps count from 1970-01-01 UTC.
 * Bounds     As much memory as a table has cells.
 * Errors     MIR_E_NO_MEMORY. What does not make sense in stored rows is left out.
 * Source     Columns are listed in docs/formats/telemetry-log.md. */
#ifndef MIR_TLOG_ROLLUP_H
#define MIR_TLOG_ROLLUP_H

#include "mir_tlog_internal.h"
#include "mir_tlog_totals.h"

enum {
    MIR_TLOG_ROLLUP_MARK = 1, /* the first byte of a measurement, and what ends a column's name */
    MIR_TLOG_ROLLUP_NONE = -1,
    MIR_TLOG_ROLLUP_NAME_BYTES_MAX = MIR_TLOG_MEASUREMENT_BYTES_MAX + 2,
    /* Of a stored column: the mark, which part it is, and the type. */
    MIR_TLOG_ROLLUP_SUFFIX_BYTES = 3,
};

extern const int64_t mir_tlog_rollup_step_ns[MIR_TLOG_ROLLUPS];

/* The beginning of the step that a time is in. */
int64_t mir_tlog_rollup_floor(int64_t time_ns, int64_t step_ns);
/* The measurement of a step's rows; `name` has MIR_TLOG_ROLLUP_NAME_BYTES_MAX. */
mir_view mir_tlog_rollup_measurement(mir_view measurement, uint32_t step, char *name);
/* The step of a measurement, whose rows' measurement goes to *measurement; or ROLLUP_NONE. */
int mir_tlog_rollup_step_of(mir_view stored, mir_view *measurement);
/* The step that a segment has rows of; such a segment has no others. */
int mir_tlog_rollup_step_in(const mir_tlog_segment *segment);

/* The column that a stored column has a part of; false: it is none of such a segment. */
bool mir_tlog_rollup_column_of(const mir_column *stored, mir_column *column);

/* Cell c of row r is cells[r * column_count + c], and there if its count is not 0. Of strings, first
 * and last are addresses, low and high their sizes. */
typedef struct mir_tlog_rollup {
    uint32_t column_count;
    uint32_t column_capacity;
    mir_column *columns;
    uint32_t row_count;
    uint32_t row_capacity;
    size_t cell_capacity;
    int64_t *times;
    mir_tlog_total *cells;
    mir_tlog_columns set; /* the columns' numbers */
    mir_arena texts;
    uint8_t *repeated; /* of each cell: that all of its values have come again; or null */
} mir_tlog_rollup;

void mir_tlog_rollup_free(mir_tlog_rollup *rollup);
/* Empty again; keeps its memory. */
void mir_tlog_rollup_clear(mir_tlog_rollup *rollup);
/* Adds finished rows that are all behind those that it has; names and texts stay theirs. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_take(mir_tlog_rollup *rollup, uint32_t step,
                                               const mir_tlog_gather *rows);
/* Those rows' texts may go from now on. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_keep_texts(mir_tlog_rollup *rollup);
/* From finished rows of a step's series: `count` of them at most, from `first` on. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_decode(mir_tlog_rollup *rollup, uint32_t step,
                                                 const mir_tlog_gather *stored, uint32_t first,
                                                 uint32_t count);
/* To such rows. `whole`: with everything that a row has, so that none of an earlier one remains. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_encode(const mir_tlog_rollup *rollup, bool whole,
                                                 mir_tlog_gather *stored);
/* Adds what was stored before to the cells of the same steps and columns; *any: there was such a
 * step. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_add(mir_tlog_rollup *rollup,
                                              const mir_tlog_rollup *stored, bool *any);

/* Notes in `stored` which of its cells the rows that `made` was made from have come to once more. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_compare(mir_tlog_rollup *made, mir_tlog_rollup *stored);
/* Values of rows that were sent again are taken out of `rows`: those with the time of the first or the
 * last one of what is stored of their step, and all of a step that has come again. *any: there were
 * such values; then `rows` is to be finished anew. */
MIR_MUST_CHECK mir_status mir_tlog_rollup_drop_repeated(mir_tlog_rollup *stored, uint32_t step,
                                                        mir_tlog_gather *rows, bool *any);

#endif
