/* SPDX-License-Identifier: Apache-2.0 */
/* mir_host_options: the command line of mir-host.
 *
 * Why        What a person types is checked before anything starts, with a text that helps.
 * Ownership  Texts point into argv and the environment.
 * Units      _ns: nanoseconds. Durations are written 500ms, 1s, 2m, 1h.
 * Errors     MIR_E_INVALID with a text for the person. */
#ifndef MIR_HOST_OPTIONS_H
#define MIR_HOST_OPTIONS_H

#include <stdbool.h>
#include <stdint.h>

#include "mir_clock.h"
#include "mir_log.h"
#include "mir_paths.h"
#include "mir_status.h"

/* Between two readings. */
#define MIR_HOST_INTERVAL_MIN_NS (100 * MIR_NS_PER_MS)
#define MIR_HOST_INTERVAL_MAX_NS (3600 * MIR_NS_PER_S)

typedef enum mir_host_action {
    MIR_HOST_RUN = 0,
    MIR_HOST_HELP,
    MIR_HOST_VERSION,
} mir_host_action;

typedef struct mir_host_options {
    mir_host_action action;
    const char *id;
    const char *target;
    const char *credentials_file;
    const char *root_ca_file;
    const char *proc;
    const char *sys;
    const char *state_dir; /* null: mir_host_default_state_dir */
    int64_t interval_ns;
    int64_t heartbeat_ns;      /* 0: the SDK's */
    int64_t reconnect_wait_ns; /* 0: the SDK's */
    bool once;
    mir_log_level log_level;
} mir_host_options;

/* A flag beats the environment (MIR__DEVICE__ID, MIR__TARGET, MIR__CREDENTIALS, MIR__ROOT_CA,
 * MIR__LOG_LEVEL, MIR__LOCAL_STORE__FOLDER_PATH), which beats the default. */
MIR_MUST_CHECK mir_status mir_host_options_parse(int argc, char **argv, mir_host_options *options,
                                                 mir_error *error);
MIR_MUST_CHECK mir_status mir_host_duration_parse(const char *text, int64_t *ns);

/* $XDG_STATE_HOME/mir-host, else ~/.local/state/mir-host; `path` holds MIR_PATH_BYTES_MAX.
 * MIR_E_NOT_FOUND without a home, MIR_E_TOO_LARGE. */
MIR_MUST_CHECK mir_status mir_host_default_state_dir(char *path);

extern const char mir_host_help[];

#endif
