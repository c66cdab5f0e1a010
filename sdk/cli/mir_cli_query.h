/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_query: stored telemetry, asked for as the flags say, in as many pages as it takes.
 *
 * Why        `telemetry query` and `telemetry plot` ask the same. An answer has to fit into a
 *            message; whoever types a query should not have to know that.
 * Ownership  The answer lives in the session's arena.
 * Affinity   The main thread.
 * Units      Nanoseconds since 1970.
 * Bounds     What the session's arena takes; beyond that the query fails.
 * Errors     mir_cli_query_read: MIR_E_INVALID with a text; the others return exit codes and have
 *            said on stderr what is wrong. */
#ifndef MIR_CLI_QUERY_H
#define MIR_CLI_QUERY_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli.h"
#include "mir_cli_connect.h"
#include "mir_cli_target.h"

typedef struct mir_cli_query {
    mir_cli_targets targets;
    MirApi__V1__QueryTelemetryRequest request;
    size_t limit;    /* rows; SIZE_MAX: all */
    bool raw;        /* rows as they are: they have pages */
    bool descending; /* the newest first, also in what is shown */
} mir_cli_query;

/* What the flags and words say, but for -m. */
MIR_MUST_CHECK mir_status mir_cli_query_read(const mir_cli_args *args, mir_arena *arena,
                                             mir_cli_query *query, mir_error *error);
/* All rows, in the order in which they are to be shown. `cursor` is set when --limit left some out
 * that can be asked for. */
int mir_cli_query_ask(mir_cli_session *session, mir_cli_query *query,
                      MirApi__V1__QueryTelemetry **answer);
/* Whether a column is of that field: it has its name, or is a function of it. */
bool mir_cli_query_is_field(const char *header, const char *field);
/* Says that an answer is partial; then the exit code is MIR_EXIT_FAILED. */
/* Says what rollups could not tell; null: nothing. */
void mir_cli_query_note_rollups(const MirApi__V1__Timestamp *until);
int mir_cli_query_check(const MirApi__V1__QueryTelemetry *answer);

#endif
