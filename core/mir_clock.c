/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_clock.h"

#include <stdio.h>
#include <string.h>

int mir_clock_write_fraction(int32_t nanos, mir_clock_digits digits, char *text)
{
    text[0] = '\0';
    if (nanos <= 0 || nanos >= MIR_NS_PER_S) return 0;
    int used = snprintf(text, MIR_CLOCK_TEXT_BYTES, ".%09d", (int)nanos);
    int step = digits == MIR_CLOCK_THREES ? 3 : 1;
    while (memcmp(text + used - step, "000", (size_t)step) == 0) used -= step;
    text[used] = '\0';
    return used;
}

int mir_clock_write(int64_t seconds, int32_t nanos, mir_clock_digits digits, char *text)
{
    text[0] = '\0';
    time_t when = (time_t)seconds;
    struct tm utc;
    if (seconds < MIR_CLOCK_SECONDS_MIN || seconds > MIR_CLOCK_SECONDS_MAX || nanos < 0 ||
        nanos >= MIR_NS_PER_S || gmtime_r(&when, &utc) == NULL)
        return 0;
    /* The remainders change nothing; they tell the compiler how long it can get. */
    int used = snprintf(text, MIR_CLOCK_TEXT_BYTES, "%04d-%02d-%02dT%02d:%02d:%02d",
                        (utc.tm_year + 1900) % 10000, (utc.tm_mon + 1) % 100, utc.tm_mday % 100,
                        utc.tm_hour % 100, utc.tm_min % 100, utc.tm_sec % 100);
    char fraction[MIR_CLOCK_TEXT_BYTES];
    int more = mir_clock_write_fraction(nanos, digits, fraction);
    memcpy(text + used, fraction, (size_t)more);
    used += more;
    text[used++] = 'Z';
    text[used] = '\0';
    return used;
}

int mir_clock_rfc3339(int64_t wall_ns, char *text)
{
    int64_t seconds = wall_ns / MIR_NS_PER_S;
    int64_t nanos = wall_ns % MIR_NS_PER_S;
    if (nanos < 0) {
        nanos += MIR_NS_PER_S;
        seconds--;
    }
    return mir_clock_write(seconds, (int32_t)nanos, MIR_CLOCK_TRIMMED, text);
}
