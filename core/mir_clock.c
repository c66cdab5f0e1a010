/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_clock.h"

#include <stdio.h>

int mir_clock_rfc3339(int64_t wall_ns, char *text)
{
    int64_t seconds = wall_ns / MIR_NS_PER_S;
    int64_t nanos = wall_ns % MIR_NS_PER_S;
    if (nanos < 0) {
        nanos += MIR_NS_PER_S;
        seconds--;
    }
    time_t when = (time_t)seconds;
    struct tm utc;
    if (gmtime_r(&when, &utc) == NULL) return snprintf(text, MIR_CLOCK_TEXT_BYTES, "invalid");
    int used = (int)strftime(text, MIR_CLOCK_TEXT_BYTES, "%Y-%m-%dT%H:%M:%S", &utc);
    if (nanos != 0) {
        used += snprintf(text + used, MIR_CLOCK_TEXT_BYTES - (size_t)used, ".%09d", (int)nanos);
        while (text[used - 1] == '0') used--;
    }
    text[used++] = 'Z';
    text[used] = '\0';
    return used;
}
