/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_file: a whole file in memory; "-" is standard input. Bounded by the buffer's size_max.
 * MIR_E_NOT_FOUND, MIR_E_TOO_LARGE and what errno says, each with a text. */
#ifndef MIR_CLI_FILE_H
#define MIR_CLI_FILE_H

#include "mir_bytes.h"

MIR_MUST_CHECK mir_status mir_cli_file_read(const char *path, mir_bytes *out, mir_error *error);

#endif
