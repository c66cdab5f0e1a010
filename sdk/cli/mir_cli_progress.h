/* SPDX-License-Identifier: Apache-2.0 */
/* mir_cli_progress: how far a long request is, on the terminal of stderr.
 *
 * Why        A request to many devices takes as long as the slowest of them.
 * Ownership  The caller's; mir_cli_progress_end wipes the line.
 * Affinity   The main thread.
 * Bounds     Nothing is shown within the first second, or when stderr is no terminal; redrawn a
 *            few times a second at most. */
#ifndef MIR_CLI_PROGRESS_H
#define MIR_CLI_PROGRESS_H

#include <stdbool.h>
#include <stdint.h>

typedef struct mir_cli_progress {
    bool wanted;
    bool drawn;
    int64_t begun_ns;
    int64_t drawn_ns;
    uint64_t done;
    uint64_t total;   /* 0: not known yet */
    const char *unit; /* of done and total; null: devices, which are waited for */
} mir_cli_progress;

mir_cli_progress mir_cli_progress_begin(void);
void mir_cli_progress_set(mir_cli_progress *progress, uint64_t done, uint64_t total);
/* Draws when it is time to. */
void mir_cli_progress_tick(mir_cli_progress *progress);
/* Takes the line away, to write something else; the next tick brings it back. */
void mir_cli_progress_hide(mir_cli_progress *progress);

#endif
