/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_text.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#define TIME_SECONDS_MIN     INT64_C(-62135596800) /* 0001-01-01T00:00:00Z */
#define TIME_SECONDS_MAX     INT64_C(253402300799) /* 9999-12-31T23:59:59Z */
#define DURATION_SECONDS_MAX INT64_C(315576000000)

enum { NANOS_MAX = 999999999 };

void mir_json_put_string(mir_bytes *text, mir_view value, mir_json_escape escape)
{
    static const char hex[] = "0123456789abcdef";
    mir_bytes_u8(text, '"');
    size_t plain = 0; /* where what needs no escape began */
    for (size_t i = 0; i < value.size; i++) {
        uint8_t byte = value.data[i];
        char short_form = 0;
        bool is_separator = false;
        switch (byte) {
        case '"':
        case '\\': short_form = (char)byte; break;
        case '\b': short_form = 'b'; break;
        case '\f': short_form = 'f'; break;
        case '\n': short_form = 'n'; break;
        case '\r': short_form = 'r'; break;
        case '\t': short_form = 't'; break;
        case '<':
        case '>':
        case '&':
            if (escape != MIR_JSON_ESCAPE_HTML) continue;
            break;
        case 0xe2:
            is_separator = escape == MIR_JSON_ESCAPE_HTML && value.size - i > 2 &&
                           value.data[i + 1] == 0x80 && (value.data[i + 2] & 0xfe) == 0xa8;
            if (!is_separator) continue;
            break;
        default:
            if (byte >= 0x20) continue;
        }
        mir_bytes_append(text, value.data + plain, i - plain);
        if (short_form != 0) {
            mir_bytes_u8(text, '\\');
            mir_bytes_u8(text, (uint8_t)short_form);
        } else if (is_separator) {
            mir_bytes_text(text, (value.data[i + 2] & 1) != 0 ? "\\u2029" : "\\u2028");
            i += 2;
        } else {
            mir_bytes_text(text, "\\u00");
            mir_bytes_u8(text, (uint8_t)hex[byte >> 4]);
            mir_bytes_u8(text, (uint8_t)hex[byte & 15]);
        }
        plain = i + 1;
    }
    if (plain < value.size) mir_bytes_append(text, value.data + plain, value.size - plain);
    mir_bytes_u8(text, '"');
}

void mir_json_put_number(mir_bytes *text, double value, bool is_float)
{
    if (value == 0) {
        mir_bytes_text(text, signbit(value) ? "-0" : "0");
        return;
    }
    /* What is exact within the guaranteed digits is shortest after its zeros are cut off. */
    char form[40];
    int precision = is_float ? 6 : 15, precision_max = is_float ? 9 : 17;
    if (fabs(value) < (is_float ? (double)FLT_MIN : DBL_MIN)) precision = 1; /* no such guarantee */
    for (;; precision++) {
        (void)snprintf(form, sizeof form, "%.*e", precision - 1, value);
        double back = is_float ? (double)strtof(form, NULL) : strtod(form, NULL);
        if (precision == precision_max || back == value) break;
    }
    /* form is [-]d[.ddd]e(+|-)dd */
    char digits[24] = {'0'};
    int count = 0;
    const char *at = form;
    bool is_negative = *at == '-';
    for (; *at != 0 && *at != 'e'; at++) {
        if (*at >= '0' && *at <= '9') digits[count++] = *at;
    }
    while (count > 1 && digits[count - 1] == '0') count--;
    int exponent = *at == 'e' ? (int)strtol(at + 1, NULL, 10) : 0;
    if (is_negative) mir_bytes_u8(text, '-');
    if (exponent < -6 || exponent >= 21) {
        mir_bytes_u8(text, (uint8_t)digits[0]);
        if (count > 1) mir_bytes_printf(text, ".%.*s", count - 1, digits + 1);
        mir_bytes_printf(text, "e%c%d", exponent < 0 ? '-' : '+', abs(exponent));
    } else if (exponent < 0) {
        mir_bytes_text(text, "0.");
        for (int i = -1; i > exponent; i--) mir_bytes_u8(text, '0');
        mir_bytes_append(text, digits, (size_t)count);
    } else {
        for (int i = 0; i < count || i <= exponent; i++) {
            if (i == exponent + 1) mir_bytes_u8(text, '.');
            mir_bytes_u8(text, (uint8_t)(i < count ? digits[i] : '0'));
        }
    }
}

void mir_json_put_base64(mir_bytes *text, mir_view value)
{
    static const char alphabet[] =
        "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    for (size_t i = 0; i < value.size; i += 3) {
        size_t left = value.size - i;
        uint32_t group = (uint32_t)value.data[i] << 16;
        if (left > 1) group |= (uint32_t)value.data[i + 1] << 8;
        if (left > 2) group |= value.data[i + 2];
        char out[4] = {alphabet[group >> 18], alphabet[group >> 12 & 63],
                       left > 1 ? alphabet[group >> 6 & 63] : '=',
                       left > 2 ? alphabet[group & 63] : '='};
        mir_bytes_append(text, out, sizeof out);
    }
}

static int base64_digit(uint8_t byte)
{
    if (byte >= 'A' && byte <= 'Z') return byte - 'A';
    if (byte >= 'a' && byte <= 'z') return byte - 'a' + 26;
    if (byte >= '0' && byte <= '9') return byte - '0' + 52;
    if (byte == '+' || byte == '-') return 62;
    if (byte == '/' || byte == '_') return 63;
    return -1;
}

bool mir_json_parse_base64(mir_view text, mir_bytes *value)
{
    size_t size = text.size;
    if (size % 4 == 0) {
        for (int i = 0; i < 2 && size > 0 && text.data[size - 1] == '='; i++) size--;
    }
    if (size % 4 == 1) return false;
    uint32_t group = 0;
    for (size_t i = 0; i < size; i++) {
        int digit = base64_digit(text.data[i]);
        if (digit < 0) return false;
        group = group << 6 | (uint32_t)digit;
        if (i % 4 != 0) mir_bytes_u8(value, (uint8_t)(group >> (6 - i % 4 * 2)));
        group &= 0xffffff;
    }
    return true;
}

/* Proleptic Gregorian calendar, after Howard Hinnant's public algorithms for civil dates. */
static int64_t days_of_date(int64_t year, unsigned month, unsigned day)
{
    year -= month <= 2;
    int64_t era = (year >= 0 ? year : year - 399) / 400;
    unsigned year_of_era = (unsigned)(year - era * 400);
    unsigned day_of_year = (153 * (month > 2 ? month - 3 : month + 9) + 2) / 5 + day - 1;
    unsigned day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    return era * 146097 + (int64_t)day_of_era - 719468;
}

static void date_of_days(int64_t days, int64_t *year, unsigned *month, unsigned *day)
{
    days += 719468;
    int64_t era = (days >= 0 ? days : days - 146096) / 146097;
    unsigned day_of_era = (unsigned)(days - era * 146097);
    unsigned year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146096) / 365;
    unsigned day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    unsigned shifted = (5 * day_of_year + 2) / 153;
    *day = day_of_year - (153 * shifted + 2) / 5 + 1;
    *month = shifted < 10 ? shifted + 3 : shifted - 9;
    *year = (int64_t)year_of_era + era * 400 + (*month <= 2);
}

static void put_fraction(mir_bytes *text, int32_t nanos)
{
    if (nanos == 0) return;
    if (nanos % 1000000 == 0) {
        mir_bytes_printf(text, ".%03d", nanos / 1000000);
    } else if (nanos % 1000 == 0) {
        mir_bytes_printf(text, ".%06d", nanos / 1000);
    } else {
        mir_bytes_printf(text, ".%09d", nanos);
    }
}

bool mir_json_put_time(mir_bytes *text, int64_t seconds, int32_t nanos)
{
    if (seconds < TIME_SECONDS_MIN || seconds > TIME_SECONDS_MAX || nanos < 0 ||
        nanos > NANOS_MAX) {
        return false;
    }
    int64_t days = seconds / 86400 - (seconds % 86400 < 0);
    unsigned rest = (unsigned)(seconds - days * 86400);
    int64_t year;
    unsigned month, day;
    date_of_days(days, &year, &month, &day);
    mir_bytes_printf(text, "\"%04" PRId64 "-%02u-%02uT%02u:%02u:%02u", year, month, day,
                     rest / 3600, rest / 60 % 60, rest % 60);
    put_fraction(text, nanos);
    mir_bytes_text(text, "Z\"");
    return true;
}

/* Exactly `count` digits. */
static bool take_digits(mir_view *text, size_t count, unsigned *value)
{
    if (text->size < count) return false;
    *value = 0;
    for (size_t i = 0; i < count; i++) {
        uint8_t byte = text->data[i];
        if (byte < '0' || byte > '9') return false;
        *value = *value * 10 + (byte - '0');
    }
    *text = mir_view_from(*text, count);
    return true;
}

static bool take_byte(mir_view *text, const char *one_of)
{
    if (text->size == 0 || text->data[0] == 0 || strchr(one_of, text->data[0]) == NULL) {
        return false;
    }
    *text = mir_view_from(*text, 1);
    return true;
}

/* Up to nine digits after a dot, if there is one. */
static bool take_fraction(mir_view *text, int32_t *nanos)
{
    *nanos = 0;
    if (!take_byte(text, ".")) return true;
    int digits = 0;
    while (text->size > 0 && text->data[0] >= '0' && text->data[0] <= '9') {
        if (++digits > 9) return false;
        *nanos = *nanos * 10 + (text->data[0] - '0');
        *text = mir_view_from(*text, 1);
    }
    if (digits == 0) return false;
    for (; digits < 9; digits++) *nanos *= 10;
    return true;
}

static unsigned days_in_month(unsigned year, unsigned month)
{
    static const uint8_t days[] = {31, 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31};
    bool is_leap = (year % 4 == 0 && year % 100 != 0) || year % 400 == 0;
    return days[month - 1] + (month == 2 && is_leap);
}

bool mir_json_parse_time(mir_view text, int64_t *seconds, int32_t *nanos)
{
    unsigned year, month, day, hour, minute, second, zone_hour = 0, zone_minute = 0;
    bool sound =
        take_digits(&text, 4, &year) && take_byte(&text, "-") && take_digits(&text, 2, &month) &&
        take_byte(&text, "-") && take_digits(&text, 2, &day) && take_byte(&text, "T") &&
        take_digits(&text, 2, &hour) && take_byte(&text, ":") && take_digits(&text, 2, &minute) &&
        take_byte(&text, ":") && take_digits(&text, 2, &second) && take_fraction(&text, nanos);
    if (!sound || month < 1 || month > 12 || day < 1 || day > days_in_month(year, month) ||
        hour > 23 || minute > 59 || second > 59 || text.size == 0) {
        return false;
    }
    bool is_east = text.data[0] == '+';
    if (!take_byte(&text, "Z")) {
        if (!take_byte(&text, "+-") || !take_digits(&text, 2, &zone_hour) ||
            !take_byte(&text, ":") || !take_digits(&text, 2, &zone_minute) || zone_hour > 23 ||
            zone_minute > 59) {
            return false;
        }
    }
    if (text.size != 0) return false;
    int64_t offset = (int64_t)zone_hour * 3600 + zone_minute * 60;
    *seconds = days_of_date(year, month, day) * 86400 + (int64_t)hour * 3600 + minute * 60 +
               second - (is_east ? offset : -offset);
    return *seconds >= TIME_SECONDS_MIN && *seconds <= TIME_SECONDS_MAX;
}

bool mir_json_put_duration(mir_bytes *text, int64_t seconds, int32_t nanos)
{
    if (seconds < -DURATION_SECONDS_MAX || seconds > DURATION_SECONDS_MAX || nanos < -NANOS_MAX ||
        nanos > NANOS_MAX || (seconds > 0 && nanos < 0) || (seconds < 0 && nanos > 0)) {
        return false;
    }
    bool is_negative = seconds < 0 || nanos < 0;
    mir_bytes_printf(text, "\"%s%" PRId64, is_negative ? "-" : "",
                     seconds < 0 ? -seconds : seconds);
    put_fraction(text, nanos < 0 ? -nanos : nanos);
    mir_bytes_text(text, "s\"");
    return true;
}

bool mir_json_parse_duration(mir_view text, int64_t *seconds, int32_t *nanos)
{
    bool is_negative = take_byte(&text, "-");
    if (!is_negative) (void)take_byte(&text, "+");
    int digits = 0;
    int64_t whole = 0;
    while (text.size > 0 && text.data[0] >= '0' && text.data[0] <= '9') {
        if (++digits > 12) return false;
        whole = whole * 10 + (text.data[0] - '0');
        text = mir_view_from(text, 1);
    }
    if ((digits == 0 && (text.size == 0 || text.data[0] != '.')) || !take_fraction(&text, nanos) ||
        !take_byte(&text, "s") || text.size != 0 || whole > DURATION_SECONDS_MAX) {
        return false;
    }
    *seconds = is_negative ? -whole : whole;
    if (is_negative) *nanos = -*nanos;
    return true;
}
