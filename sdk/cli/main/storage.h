/* SPDX-License-Identifier: Apache-2.0 */
/* storage: what is below `mir storage`, on the files of a data directory.
 *
 * Why        It needs no server, and must not delay the one that may be running: it is a process of
 *            its own, with low priority.
 * Affinity   The main thread.
 * Errors     Returns an exit code and has told the user. */
#ifndef MIR_MAIN_STORAGE_H
#define MIR_MAIN_STORAGE_H

#include "mir_cli.h"

int mir_main_storage(mir_cli *cli, const mir_cli_command *command, const mir_cli_args *args);

#endif
