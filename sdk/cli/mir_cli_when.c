/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_cli_when.h"

#include "mir_clock.h"
#include "mir_timestamp.h"

#include <ctype.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static const int64_t minute_ns = 60 * MIR_NS_PER_S;
static const int64_t hour_ns = 3600 * MIR_NS_PER_S;
static const int64_t day_ns = 86400 * MIR_NS_PER_S;

static int64_t unit_ns(const char *unit, size_t size)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"ns", 1},
                 {"us", MIR_NS_PER_US},
                 {"ms", MIR_NS_PER_MS},
                 {"s", MIR_NS_PER_S},
                 {"m", 60 * MIR_NS_PER_S},
                 {"h", 3600 * MIR_NS_PER_S},
                 {"d", 86400 * MIR_NS_PER_S},
                 {"w", 7 * 86400 * MIR_NS_PER_S},
                 {"y", 365 * 86400 * MIR_NS_PER_S}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++)
        if (strlen(units[i].name) == size && memcmp(units[i].name, unit, size) == 0)
            return units[i].ns;
    return 0;
}

mir_status mir_cli_when_duration(const char *text, int64_t *duration_ns, mir_error *error)
{
    double sum = 0;
    const char *at = text;
    while (*at != '\0') {
        if (!isdigit((unsigned char)*at)) break;
        char *end = NULL;
        double number = strtod(at, &end);
        size_t letters = 0;
        while (isalpha((unsigned char)end[letters])) letters++;
        int64_t unit = unit_ns(end, letters);
        /* strtod also reads hexadecimal and exponents, which nobody means here. */
        if (unit == 0 || strspn(at, "0123456789.") != (size_t)(end - at)) break;
        sum += number * (double)unit;
        at = end + letters;
    }
    if (*at == '\0' && at != text && sum < 1)
        return mir_error_set(error, MIR_E_INVALID,
                             "'%s' is too short: a duration here is above zero, for example 10s, "
                             "5m, 1h30m or 7d",
                             text);
    if (*at != '\0' || !(sum >= 1) || sum > 100.0 * 365 * (double)day_ns)
        return mir_error_set(error, MIR_E_INVALID,
                             "'%s' is no duration; write for example 10s, 5m, 1h30m or 7d", text);
    *duration_ns = (int64_t)sum;
    return MIR_OK;
}

mir_status mir_cli_when_time(const char *text, int64_t *wall_ns, mir_error *error)
{
    int64_t seconds = 0;
    int32_t nanos = 0;
    char full[64];
    if (strcmp(text, "now") == 0) {
        *wall_ns = mir_clock_wall_ns();
        return MIR_OK;
    }
    bool found = mir_timestamp_parse(mir_view_cstr(text), &seconds, &nanos) == MIR_OK;
    if (!found && strlen(text) == 10 && text[4] == '-') {
        (void)snprintf(full, sizeof full, "%sT00:00:00Z", text);
        found = mir_timestamp_parse(mir_view_cstr(full), &seconds, &nanos) == MIR_OK;
    }
    size_t digits = strspn(text, "0123456789");
    if (!found && digits > 0 && digits <= 10 && (text[digits] == '\0' || text[digits] == '.')) {
        seconds = strtoll(text, NULL, 10);
        const char *fraction = text[digits] == '.' ? text + digits + 1 : "";
        size_t places = strspn(fraction, "0123456789");
        found = fraction[places] == '\0' && places <= 9;
        for (size_t i = 0; found && i < 9; i++)
            nanos = nanos * 10 + (i < places ? fraction[i] - '0' : 0);
    }
    int64_t sum = 0;
    int64_t ago_ns = 0;
    if (!found && mir_cli_when_duration(text, &ago_ns, NULL) == MIR_OK) {
        *wall_ns = mir_clock_wall_ns() - ago_ns;
        return MIR_OK;
    }
    if (!found || __builtin_mul_overflow(seconds, MIR_NS_PER_S, &sum) ||
        __builtin_add_overflow(sum, nanos, &sum))
        return mir_error_set(error, MIR_E_INVALID,
                             "'%s' is no time; write for example 2026-01-31T15:04:05Z, 2026-01-31, "
                             "10m for ten minutes ago, or seconds since 1970",
                             text);
    *wall_ns = sum;
    return MIR_OK;
}

void mir_cli_when_age(int64_t wall_ns, int64_t now_ns, char *text, size_t size)
{
    int64_t age_ns = now_ns - wall_ns;
    const char *before = age_ns < 0 ? "in " : "";
    const char *after = age_ns < 0 ? "" : " ago";
    if (age_ns < 0) age_ns = -age_ns;
    if (age_ns < MIR_NS_PER_S)
        (void)snprintf(text, size, "now");
    else if (age_ns < 2 * minute_ns)
        (void)snprintf(text, size, "%s%llds%s", before, (long long)(age_ns / MIR_NS_PER_S), after);
    else if (age_ns < 2 * hour_ns)
        (void)snprintf(text, size, "%s%lldm%s", before, (long long)(age_ns / minute_ns), after);
    else if (age_ns < 2 * day_ns)
        (void)snprintf(text, size, "%s%lldh%s", before, (long long)(age_ns / hour_ns), after);
    else
        (void)snprintf(text, size, "%s%lldd%s", before, (long long)(age_ns / day_ns), after);
}

void mir_cli_when_span(int64_t duration_ns, char *text, size_t size)
{
    long long seconds = (long long)(duration_ns / MIR_NS_PER_S);
    if (seconds < 60)
        (void)snprintf(text, size, "%llds", seconds);
    else if (seconds < 3600)
        (void)snprintf(text, size, "%lldm %llds", seconds / 60, seconds % 60);
    else if (seconds < 86400)
        (void)snprintf(text, size, "%lldh %lldm", seconds / 3600, seconds / 60 % 60);
    else
        (void)snprintf(text, size, "%lldd %lldh", seconds / 86400, seconds / 3600 % 24);
}

const char *mir_cli_when_title(bool utc)
{
    return utc ? "TIME (UTC)" : "TIME";
}

void mir_cli_when_clock(int64_t wall_ns, bool date, int digits, bool utc, char *text, size_t size)
{
    int64_t nanos = wall_ns % MIR_NS_PER_S;
    if (nanos < 0) nanos += MIR_NS_PER_S;
    time_t seconds = (time_t)((wall_ns - nanos) / MIR_NS_PER_S);
    struct tm parts = {0};
    if (utc)
        (void)gmtime_r(&seconds, &parts);
    else
        (void)localtime_r(&seconds, &parts);
    char clock[48] = "";
    (void)strftime(clock, sizeof clock, date ? "%Y-%m-%d %H:%M:%S" : "%H:%M:%S", &parts);
    if (digits <= 0) {
        (void)snprintf(text, size, "%s", clock);
        return;
    }
    for (int i = digits; i < 9; i++) nanos /= 10;
    (void)snprintf(text, size, "%s.%0*lld", clock, digits, (long long)nanos);
}

void mir_cli_when_kept(uint64_t seconds, char *text, size_t size)
{
    const uint64_t day_s = 24 * 60 * 60;
    if (seconds == 0)
        (void)snprintf(text, size, "for ever");
    else if (seconds % day_s == 0)
        (void)snprintf(text, size, "%" PRIu64 "d", seconds / day_s);
    else
        mir_cli_when_span(seconds < INT64_MAX / MIR_NS_PER_S ? (int64_t)seconds * MIR_NS_PER_S
                                                             : INT64_MAX,
                          text, size);
}
