/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_telemetry: what the commands of telemetry tell when there is nothing to show.
 *
 * Affinity   The main thread.
 * Errors     Exit codes; what is wrong has been said on stderr. */
#ifndef MIR_CLI_TELEMETRY_H
#define MIR_CLI_TELEMETRY_H

#include "mir_api/v1/tlm.pb-c.h"
#include "mir_cli_connect.h"

/* Of an answer without rows: whether it may be for a name that no schema has. Who mistypes is not
 * to look for the mistake in the devices. Exit code 0 as well when nobody can tell. */
int mir_cli_telemetry_check_names(mir_cli_session *session,
                                  const MirApi__V1__QueryTelemetryRequest *query);
/* The measurements, or the fields of one that have values, for completion; silent when no server
 * answers at once. */
void mir_cli_telemetry_each_name(const char *measurement, mir_cli_connect_name_fn each,
                                 void *context);
void mir_cli_telemetry_say_nothing(const char *measurement);

#endif
