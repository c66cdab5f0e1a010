/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_log.h"

#include <errno.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

static _Atomic int log_level = MIR_LOG_INFO;
static const char *const level_names[] = {"error", "warn", "info", "debug", "trace"};

void mir_log_set_level(mir_log_level level)
{
    atomic_store_explicit(&log_level, (int)level, memory_order_relaxed);
}

mir_log_level mir_log_get_level(void)
{
    return (mir_log_level)atomic_load_explicit(&log_level, memory_order_relaxed);
}

mir_status mir_log_level_parse(const char *text, mir_log_level *level)
{
    for (size_t i = 0; i < sizeof level_names / sizeof level_names[0]; i++) {
        if (strcmp(text, level_names[i]) == 0) {
            *level = (mir_log_level)i;
            return MIR_OK;
        }
    }
    return MIR_E_INVALID;
}

void mir_log_write(mir_log_level level, const char *format, ...)
{
    int saved_errno = errno;
    char line[1024];
    struct timespec now;
    (void)clock_gettime(CLOCK_REALTIME, &now);
    struct tm utc;
    (void)gmtime_r(&now.tv_sec, &utc);
    size_t used = strftime(line, sizeof line, "%Y-%m-%dT%H:%M:%S", &utc);
    int more = snprintf(line + used, sizeof line - used, ".%03dZ %-5s ",
                        (int)(now.tv_nsec / 1000000), level_names[level]);
    used += (size_t)more;
    va_list args;
    va_start(args, format);
    more = vsnprintf(line + used, sizeof line - used - 1, format, args);
    va_end(args);
    if (more > 0) used += (size_t)more;
    if (used > sizeof line - 2) used = sizeof line - 2;
    line[used++] = '\n';
    ssize_t ignored = write(STDERR_FILENO, line, used);
    (void)ignored; /* Nobody is left to tell when stderr itself fails. */
    errno = saved_errno;
}
