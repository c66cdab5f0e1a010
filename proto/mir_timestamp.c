/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_timestamp.h"

#include <time.h>

#include "mir_clock.h"

MirApi__V1__Timestamp *mir_timestamp_new(mir_arena *arena, int64_t wall_ns)
{
    MirApi__V1__Timestamp *timestamp = mir_arena_alloc(arena, sizeof *timestamp);
    if (timestamp == NULL) return NULL;
    mir_api__v1__timestamp__init(timestamp);
    int64_t seconds = wall_ns / MIR_NS_PER_S;
    int64_t nanos = wall_ns % MIR_NS_PER_S;
    if (nanos < 0) {
        nanos += MIR_NS_PER_S;
        seconds--;
    }
    timestamp->has_seconds = timestamp->has_nanos = 1;
    timestamp->seconds = seconds;
    timestamp->nanos = (int32_t)nanos;
    return timestamp;
}

static bool in_range(int64_t seconds, int32_t nanos)
{
    return seconds >= MIR_CLOCK_SECONDS_MIN && seconds <= MIR_CLOCK_SECONDS_MAX && nanos >= 0 &&
           nanos < MIR_NS_PER_S;
}

bool mir_timestamp_valid(const MirApi__V1__Timestamp *timestamp)
{
    return in_range(timestamp->seconds, timestamp->nanos);
}

int64_t mir_timestamp_ns(const MirApi__V1__Timestamp *timestamp)
{
    if (timestamp == NULL) return 0;
    int64_t seconds = timestamp->seconds;
    if (seconds <= INT64_MIN / MIR_NS_PER_S) return INT64_MIN;
    if (seconds >= INT64_MAX / MIR_NS_PER_S) return INT64_MAX;
    return seconds * MIR_NS_PER_S + timestamp->nanos;
}

int mir_timestamp_format(int64_t seconds, int32_t nanos, char *text)
{
    return mir_clock_write(seconds, nanos, MIR_CLOCK_TRIMMED, text);
}

/* Exactly `count` digits. */
static bool digits(mir_view text, size_t at, size_t count, int *value)
{
    if (text.size < at || text.size - at < count) return false;
    int result = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t c = text.data[at + i];
        if (c < '0' || c > '9') return false;
        result = result * 10 + (c - '0');
    }
    *value = result;
    return true;
}

static bool at_is(mir_view text, size_t at, char c)
{
    return at < text.size && text.data[at] == (uint8_t)c;
}

mir_status mir_timestamp_parse(mir_view text, int64_t *seconds, int32_t *nanos)
{
    static const int month_days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    int year, month, day, hour, minute, second;
    if (!digits(text, 0, 4, &year) || !at_is(text, 4, '-') || !digits(text, 5, 2, &month) ||
        !at_is(text, 7, '-') || !digits(text, 8, 2, &day) ||
        !(at_is(text, 10, 'T') || at_is(text, 10, 't') || at_is(text, 10, ' ')) ||
        !digits(text, 11, 2, &hour) || !at_is(text, 13, ':') || !digits(text, 14, 2, &minute) ||
        !at_is(text, 16, ':') || !digits(text, 17, 2, &second))
        return MIR_E_INVALID;
    if (month < 1 || month > 12 || hour > 23 || minute > 59 || second > 59) return MIR_E_INVALID;
    bool leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    int days = month_days[month - 1] + (month == 2 && leap ? 1 : 0);
    if (day < 1 || day > days) return MIR_E_INVALID;
    size_t at = 19;
    int32_t fraction = 0;
    if (at_is(text, at, '.')) {
        at++;
        int count = 0;
        for (; at < text.size && text.data[at] >= '0' && text.data[at] <= '9'; at++) {
            if (++count > 9) return MIR_E_INVALID;
            fraction = fraction * 10 + (text.data[at] - '0');
        }
        if (count == 0) return MIR_E_INVALID;
        for (; count < 9; count++) fraction *= 10;
    }
    int64_t offset = 0;
    if (at_is(text, at, 'Z') || at_is(text, at, 'z')) {
        at++;
    } else if (at_is(text, at, '+') || at_is(text, at, '-')) {
        int hours, minutes;
        if (!digits(text, at + 1, 2, &hours) || !at_is(text, at + 3, ':') ||
            !digits(text, at + 4, 2, &minutes) || hours > 23 || minutes > 59)
            return MIR_E_INVALID;
        offset = (hours * 60 + minutes) * 60;
        if (text.data[at] == '-') offset = -offset;
        at += 6;
    } else {
        return MIR_E_INVALID;
    }
    if (at != text.size) return MIR_E_INVALID;
    struct tm utc = {.tm_year = year - 1900,
                     .tm_mon = month - 1,
                     .tm_mday = day,
                     .tm_hour = hour,
                     .tm_min = minute,
                     .tm_sec = second};
    int64_t result = (int64_t)timegm(&utc) - offset;
    if (!in_range(result, fraction)) return MIR_E_INVALID;
    *seconds = result;
    *nanos = fraction;
    return MIR_OK;
}
