/* SPDX-License-Identifier: Apache-2.0 */
/* mir_log: one line a message to stderr: time, level, text.
 *
 * Why        An error is logged once, where it is decided upon, with the step that failed.
 * Affinity   Any thread; each line is one write.
 * Bounds     Lines are cut at 1,024 bytes. Not for the message path: what repeats is counted, and
 *            reported when it begins.
 * Errors     None. */
#ifndef MIR_LOG_H
#define MIR_LOG_H

#include "mir_status.h"

typedef enum mir_log_level {
    MIR_LOG_ERROR = 0,
    MIR_LOG_WARN,
    MIR_LOG_INFO,
    MIR_LOG_DEBUG,
    MIR_LOG_TRACE,
} mir_log_level;

void mir_log_set_level(mir_log_level level);
mir_log_level mir_log_get_level(void);
MIR_MUST_CHECK mir_status mir_log_level_parse(const char *text, mir_log_level *level);
void mir_log_write(mir_log_level level, const char *format, ...) MIR_PRINTF(2, 3);

#define MIR_LOG(level, ...)                                                                        \
    do {                                                                                           \
        if ((level) <= mir_log_get_level()) mir_log_write((level), __VA_ARGS__);                   \
    } while (0)
#define mir_log_error(...) MIR_LOG(MIR_LOG_ERROR, __VA_ARGS__)
#define mir_log_warn(...)  MIR_LOG(MIR_LOG_WARN, __VA_ARGS__)
#define mir_log_info(...)  MIR_LOG(MIR_LOG_INFO, __VA_ARGS__)
#define mir_log_debug(...) MIR_LOG(MIR_LOG_DEBUG, __VA_ARGS__)

#endif
