/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_properties.h"

#include <ctype.h>
#include <stdio.h>
#include <stdlib.h>

static bool read_digits(const char **at, int count, int *value)
{
    *value = 0;
    for (int i = 0; i < count; i++) {
        if (!isdigit((unsigned char)**at)) return false;
        *value = *value * 10 + (*(*at)++ - '0');
    }
    return true;
}

static bool read_char(const char **at, char expected)
{
    if (**at != expected) return false;
    (*at)++;
    return true;
}

/* Days from 1970-01-01 in the proleptic Gregorian calendar: Howard Hinnant's days_from_civil. */
static int64_t days_of(int year, int month, int day)
{
    int64_t y = month <= 2 ? year - 1 : year;
    int64_t era = (y >= 0 ? y : y - 399) / 400;
    int64_t of_era = y - era * 400;
    int64_t of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    return era * 146097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719468;
}

mir_status mir_device_time_parse(const char *text, mir_device_time *time)
{
    static const int month_days[] = {31, 29, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    const char *at = text;
    int year, month, day, hour, minute, second;
    if (!read_digits(&at, 4, &year) || !read_char(&at, '-') || !read_digits(&at, 2, &month) ||
        !read_char(&at, '-') || !read_digits(&at, 2, &day) ||
        !(read_char(&at, 'T') || read_char(&at, 't')) || !read_digits(&at, 2, &hour) ||
        !read_char(&at, ':') || !read_digits(&at, 2, &minute) || !read_char(&at, ':') ||
        !read_digits(&at, 2, &second))
        return MIR_E_INVALID;
    if (month < 1 || month > 12 || day < 1 || day > month_days[month - 1] || hour > 23 ||
        minute > 59 || second > 60)
        return MIR_E_INVALID;
    int32_t nanos = 0;
    if (read_char(&at, '.')) {
        int digits = 0;
        for (; digits < 9 && isdigit((unsigned char)*at); digits++)
            nanos = nanos * 10 + *at++ - '0';
        if (digits == 0) return MIR_E_INVALID;
        for (; digits < 9; digits++) nanos *= 10;
    }
    int offset = 0;
    if (!read_char(&at, 'Z') && !read_char(&at, 'z')) {
        int sign = *at == '-' ? -1 : 1;
        int hours, minutes;
        if (*at != '-' && *at != '+') return MIR_E_INVALID;
        at++;
        if (!read_digits(&at, 2, &hours) || !read_char(&at, ':') ||
            !read_digits(&at, 2, &minutes) || hours > 23 || minutes > 59)
            return MIR_E_INVALID;
        offset = sign * (hours * 3600 + minutes * 60);
    }
    if (*at != '\0') return MIR_E_INVALID;
    *time = (mir_device_time){.nanos = nanos};
    (void)snprintf(time->text, sizeof time->text, "%s", text); /* 35 bytes at most, by now */
    time->seconds = days_of(year, month, day) * 86400 + hour * 3600 + minute * 60 + second - offset;
    return MIR_OK;
}

static bool is_later(mir_device_time a, mir_device_time b)
{
    return a.seconds != b.seconds ? a.seconds > b.seconds : a.nanos > b.nanos;
}

static mir_device_property *find(const mir_device_properties *properties, const char *name)
{
    for (size_t i = 0; i < properties->count; i++)
        if (strcmp(properties->items[i].name, name) == 0) return &properties->items[i];
    return NULL;
}

mir_status mir_device_properties_put(mir_device_properties *properties, const char *name,
                                     mir_device_time time, mir_view value)
{
    mir_device_property *item = find(properties, name);
    if (item != NULL && !is_later(time, item->time)) return MIR_E_EXISTS;
    if (item == NULL && properties->count == MIR_DEVICE_PROPERTIES_MAX) return MIR_E_FULL;
    mir_bytes copy = {0};
    mir_bytes_view(&copy, value);
    if (!mir_bytes_ok(&copy)) return MIR_E_NO_MEMORY;
    if (item == NULL) {
        mir_device_property *items =
            realloc(properties->items, (properties->count + 1) * sizeof *items);
        if (items != NULL) properties->items = items;
        char *owned = items == NULL ? NULL : strdup(name);
        if (owned == NULL) {
            mir_bytes_free(&copy);
            return MIR_E_NO_MEMORY;
        }
        item = &properties->items[properties->count++];
        *item = (mir_device_property){.name = owned};
    }
    mir_bytes_free(&item->value);
    item->value = copy;
    item->time = time;
    return MIR_OK;
}

mir_device_property *mir_device_properties_get(const mir_device_properties *properties,
                                               const char *name)
{
    return find(properties, name);
}

void mir_device_properties_free(mir_device_properties *properties)
{
    for (size_t i = 0; i < properties->count; i++) {
        free(properties->items[i].name);
        mir_bytes_free(&properties->items[i].value);
    }
    free(properties->items);
    *properties = (mir_device_properties){0};
}
