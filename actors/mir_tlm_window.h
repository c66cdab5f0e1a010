/* SPDX-License-Identifier: Apache-2.0 */
/* mir_tlm_window: the length of an aggregation window, as clients write it.
 *
 * Why        `30s`, `1h30m`: numbers with units, added up, as in the query languages that people
 *            know from time-series databases.
 * Affinity   Any thread; no state.
 * Units      Nanoseconds. `ns us ms s m h d w`; a day has 24 hours. Calendar months and years (`mo`
 *            and `y`) have no fixed length and windows have: they are refused.
 * Bounds     0 < window <= INT64_MAX nanoseconds, 292 years.
 * Errors     MIR_E_INVALID, or MIR_E_UNSUPPORTED for months and years, with a text for whoever wrote
 *            the literal. */
#ifndef MIR_TLM_WINDOW_H
#define MIR_TLM_WINDOW_H

#include "mir_status.h"
#include "mir_view.h"

MIR_MUST_CHECK mir_status mir_tlm_window_parse(mir_view literal, uint64_t *window_ns,
                                               mir_error *error);

#endif
