/* SPDX-License-Identifier: Apache-2.0 */
/* mir_server: the whole server, assembled from a configuration.
 *
 * Why        The one entry for `mir serve`, and the one place that names every layer.
 * Ownership  The configuration stays the caller's and must outlive the call.
 * Affinity   Blocks the calling thread, which handles the signals: SIGINT and SIGTERM stop it
 *            within two seconds, SIGUSR2 begins the lame duck period.
 * Errors     The exit code of the process: 0 after an orderly stop, 1 when it could not start or
 *            run; what went wrong was logged with what to do. */
#ifndef MIR_SERVER_H
#define MIR_SERVER_H

#include "mir_config.h"

int mir_server_main(const mir_config *config);

#endif
