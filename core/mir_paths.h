/* SPDX-License-Identifier: Apache-2.0 */
/* mir_paths: where Mir keeps things when nobody says otherwise.
 *
 * Why        The server and the command line must agree, without a flag, on the data directory and
 *            on the admin socket in it.
 * Ownership  The caller's buffers of MIR_PATH_BYTES_MAX bytes.
 * Affinity   Any thread that does not change the environment meanwhile.
 * Bounds     A path that does not fit is MIR_E_TOO_LARGE; a socket's path must also fit sun_path.
 * Errors     MIR_E_TOO_LARGE; MIR_E_NOT_FOUND when no home directory is known.
 * Source     XDG Base Directory Specification 0.8 (relative values of its variables are ignored). */
#ifndef MIR_PATHS_H
#define MIR_PATHS_H

#include "mir_status.h"

enum { MIR_PATH_BYTES_MAX = 4096 };

/* $MIR_DATA, else /var/lib/mir for root, else $XDG_DATA_HOME/mir, else ~/.local/share/mir. */
MIR_MUST_CHECK mir_status mir_paths_data_dir(char *path);
/* `<data>/admin.sock`; `data` may be null for the default data directory. */
MIR_MUST_CHECK mir_status mir_paths_admin_socket(const char *data, char *path);
/* `$XDG_CONFIG_HOME/mir/<name>`, else `~/.config/mir/<name>`. */
MIR_MUST_CHECK mir_status mir_paths_config_file(const char *name, char *path);

#endif
