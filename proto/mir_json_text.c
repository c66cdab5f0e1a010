/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_json_text.h"

#include <float.h>
#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <stdlib.h>

#include "mir_clock.h"
#include "mir_timestamp.h"
#include "mir_utf8.h"

#define DURATION_SECONDS_MAX INT64_C(315576000000)

enum { NANOS_MAX = 999999999 };

/* What stands for the character at the start of `rest`, whose length comes back in *size; null when
 * it stands for itself. `form` has room for an escape. */
static const char *escaped(mir_view rest, mir_json_escape escape, size_t *size, char form[8])
{
    uint8_t byte = rest.data[0];
    *size = 1;
    switch (byte) {
    case '"': return "\\\"";
    case '\\': return "\\\\";
    case '\n': return "\\n";
    case '\r': return "\\r";
    case '\t': return "\\t";
    case '\b':
        if (escape != MIR_JSON_ESCAPE_LENIENT) return "\\b";
        break;
    case '\f':
        if (escape != MIR_JSON_ESCAPE_LENIENT) return "\\f";
        break;
    case '<':
    case '>':
    case '&':
        if (escape == MIR_JSON_ESCAPE_NEEDED) return NULL;
        break;
    default:
        if (byte < 0x20) break;
        if (byte < 0x80 || escape == MIR_JSON_ESCAPE_NEEDED) return NULL;
        size_t sequence = mir_utf8_sequence(rest);
        if (sequence == 0) return escape == MIR_JSON_ESCAPE_LENIENT ? "\xef\xbf\xbd" : NULL;
        *size = sequence;
        if (sequence != 3 || byte != 0xe2 || rest.data[1] != 0x80) return NULL;
        return rest.data[2] == 0xa8 ? "\\u2028" : rest.data[2] == 0xa9 ? "\\u2029" : NULL;
    }
    (void)snprintf(form, 8, "\\u%04x", byte);
    return form;
}

void mir_json_put_string(mir_bytes *text, mir_view value, mir_json_escape escape)
{
    mir_bytes_u8(text, '"');
    size_t plain = 0; /* where what needs no escape began */
    size_t size;
    for (size_t i = 0; i < value.size; i += size) {
        char form[8];
        const char *stands = escaped(mir_view_from(value, i), escape, &size, form);
        if (stands == NULL) continue;
        mir_bytes_append(text, value.data + plain, i - plain);
        mir_bytes_text(text, stands);
        plain = i + size;
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

bool mir_json_put_time(mir_bytes *text, int64_t seconds, int32_t nanos)
{
    char time[MIR_CLOCK_TEXT_BYTES];
    if (mir_clock_write(seconds, nanos, MIR_CLOCK_THREES, time) == 0) return false;
    mir_bytes_printf(text, "\"%s\"", time);
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

bool mir_json_parse_time(mir_view text, int64_t *seconds, int32_t *nanos)
{
    /* People may write what this form may not. */
    if (text.size < 11 || text.data[10] != 'T' || text.data[text.size - 1] == 'z') return false;
    return mir_timestamp_parse(text, seconds, nanos) == MIR_OK;
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
    char fraction[MIR_CLOCK_TEXT_BYTES];
    (void)mir_clock_write_fraction(nanos < 0 ? -nanos : nanos, MIR_CLOCK_THREES, fraction);
    mir_bytes_printf(text, "%ss\"", fraction);
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
