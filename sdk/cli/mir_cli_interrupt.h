/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_interrupt: Ctrl-C asks a long command to come to an orderly end.
 *
 * Why        What a command has begun is put away or told; a second Ctrl-C ends it as ever.
 * Ownership  One for the process, from mir_cli_interrupt_begin to its end.
 * Affinity   The main thread. SIGINT, SIGTERM and SIGHUP, unless who started it has them ignored; a
 *            call that is interrupted ends with EINTR.
 * Errors     MIR_E_OS when there is no descriptor left. */
#ifndef MIR_CLI_INTERRUPT_H
#define MIR_CLI_INTERRUPT_H

#include "mir_status.h"

#include <stdbool.h>

MIR_MUST_CHECK mir_status mir_cli_interrupt_begin(mir_error *error);
bool mir_cli_interrupted(void);
/* Readable from then on; for mir_client_stop_on and poll. */
int mir_cli_interrupt_fd(void);

#endif
