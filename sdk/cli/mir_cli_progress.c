/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_progress.h"

#include "mir_cli_text.h"
#include "mir_clock.h"

#include <inttypes.h>
#include <stdio.h>
#include <unistd.h>

enum { BAR_COLUMNS_MAX = 40, LINE_BYTES = 160 };
#define QUIET_NS  MIR_NS_PER_S
#define REDRAW_NS (200 * MIR_NS_PER_MS)

mir_cli_progress mir_cli_progress_begin(void)
{
    return (mir_cli_progress){.wanted = isatty(STDERR_FILENO) == 1,
                              .begun_ns = mir_clock_mono_ns()};
}

void mir_cli_progress_set(mir_cli_progress *progress, uint64_t done, uint64_t total)
{
    progress->done = done < total || total == 0 ? done : total;
    progress->total = total;
}

void mir_cli_progress_tick(mir_cli_progress *progress)
{
    int64_t now_ns = mir_clock_mono_ns();
    if (!progress->wanted || now_ns - progress->begun_ns < QUIET_NS ||
        (progress->drawn && now_ns - progress->drawn_ns < REDRAW_NS))
        return;
    char line[LINE_BYTES];
    size_t columns = mir_cli_text_terminal_columns(stderr);
    int seconds = (int)((now_ns - progress->begun_ns) / MIR_NS_PER_S);
    const char *unit = progress->unit != NULL ? progress->unit : "";
    if (progress->total == 0 && progress->unit != NULL) {
        (void)snprintf(line, sizeof line, "%" PRIu64 "%s, %d s", progress->done, unit, seconds);
    } else if (progress->total == 0) {
        (void)snprintf(line, sizeof line, "waiting for the devices, %d s", seconds);
    } else {
        char counts[64];
        int counts_size = snprintf(counts, sizeof counts, " %" PRIu64 " of %" PRIu64 "%s, %d s",
                                   progress->done, progress->total, unit, seconds);
        size_t room = columns > (size_t)counts_size + 3 ? columns - (size_t)counts_size - 3 : 0;
        size_t bar = room < BAR_COLUMNS_MAX ? room : BAR_COLUMNS_MAX;
        size_t full = (size_t)((double)bar * (double)progress->done / (double)progress->total);
        char drawn[BAR_COLUMNS_MAX + 1];
        for (size_t i = 0; i < bar; i++) drawn[i] = i < full ? '#' : '.';
        drawn[bar] = '\0';
        (void)snprintf(line, sizeof line, "[%s]%s", drawn, counts);
    }
    (void)fflush(stdout);
    (void)fprintf(stderr, "\r%.*s\033[K", (int)(columns > 0 ? columns - 1 : 0), line);
    (void)fflush(stderr);
    progress->drawn = true;
    progress->drawn_ns = now_ns;
}

void mir_cli_progress_hide(mir_cli_progress *progress)
{
    if (!progress->drawn) return;
    (void)fputs("\r\033[K", stderr);
    (void)fflush(stderr);
    progress->drawn = false;
}
