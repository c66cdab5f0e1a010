/* SPDX-License-Identifier: Apache-2.0 */
/* Durations, sizes and addresses as people write them. */
#include "mir_config.h"

#include <arpa/inet.h>
#include <stdlib.h>
#include <string.h>

#include "mir_clock.h"

typedef struct unit {
    const char *name;
    int64_t factor;
} unit;

/* Decimal fractions are kept in billionths, which is exact for every unit of time. */
enum { FRACTION_DIGITS_MAX = 9, FRACTION_ONE = 1000000000 };

static bool is_digit(char c)
{
    return c >= '0' && c <= '9';
}

/* Reads `12` or `1.5` followed by the name of a unit, multiplies, and adds it to *sum. */
MIR_MUST_CHECK static bool add_part(const char **text, const unit *units, int64_t *sum)
{
    const char *at = *text;
    int64_t whole = 0;
    int64_t fraction = 0;
    if (!is_digit(*at)) return false;
    for (; is_digit(*at); at++) {
        if (__builtin_mul_overflow(whole, (int64_t)10, &whole) ||
            __builtin_add_overflow(whole, (int64_t)(*at - '0'), &whole))
            return false;
    }
    if (*at == '.') {
        at++;
        int64_t digit = FRACTION_ONE / 10;
        if (!is_digit(*at)) return false;
        for (int digits = 0; is_digit(*at); at++, digits++, digit /= 10) {
            if (digits == FRACTION_DIGITS_MAX) return false;
            fraction += (*at - '0') * digit;
        }
    }
    size_t length = 0;
    while ((at[length] >= 'a' && at[length] <= 'z') || (at[length] >= 'A' && at[length] <= 'Z'))
        length++;
    const unit *found = units;
    while (found->name != NULL &&
           (strlen(found->name) != length || strncmp(found->name, at, length) != 0))
        found++;
    if (found->name == NULL) return false;
    int64_t value;
    __int128 part = (__int128)fraction * found->factor / FRACTION_ONE;
    if (__builtin_mul_overflow(whole, found->factor, &value) ||
        __builtin_add_overflow(value, (int64_t)part, &value) ||
        __builtin_add_overflow(*sum, value, sum))
        return false;
    *text = at + length;
    return true;
}

mir_status mir_config_parse_duration(const char *text, int64_t *duration_ns, mir_error *error)
{
    static const unit units[] = {{"ns", 1},
                                 {"us", MIR_NS_PER_US},
                                 {"ms", MIR_NS_PER_MS},
                                 {"s", MIR_NS_PER_S},
                                 {"m", 60 * MIR_NS_PER_S},
                                 {"h", 3600 * MIR_NS_PER_S},
                                 {"d", 24 * 3600 * MIR_NS_PER_S},
                                 {NULL, 0}};
    int64_t sum = 0;
    const char *at = text;
    if (strcmp(text, "0") == 0) {
        *duration_ns = 0;
        return MIR_OK;
    }
    do {
        if (!add_part(&at, units, &sum)) goto refused;
    } while (*at != '\0');
    *duration_ns = sum;
    return MIR_OK;

refused:
    if (text[0] != '\0' && text[strspn(text, "0123456789.")] == '\0')
        return mir_error_set(error, MIR_E_INVALID, "%.40s has no unit (did you mean %.40ss?)", text,
                             text);
    return mir_error_set(error, MIR_E_INVALID,
                         "\"%.64s\" is not a duration (units: ns, us, ms, s, m, h, d)", text);
}

mir_status mir_config_parse_size(const char *text, int64_t *size_bytes, mir_error *error)
{
    static const unit units[] = {{"", 1},
                                 {"B", 1},
                                 {"kB", 1000},
                                 {"KB", 1000},
                                 {"MB", 1000000},
                                 {"GB", 1000000000},
                                 {"TB", INT64_C(1000000000000)},
                                 {"KiB", INT64_C(1) << 10},
                                 {"MiB", INT64_C(1) << 20},
                                 {"GiB", INT64_C(1) << 30},
                                 {"TiB", INT64_C(1) << 40},
                                 {NULL, 0}};
    int64_t size = 0;
    const char *at = text;
    if (!add_part(&at, units, &size) || *at != '\0')
        return mir_error_set(
            error, MIR_E_INVALID,
            "\"%.64s\" is not a size (units: B, KiB, MiB, GiB, TiB, kB, MB, GB, TB)", text);
    *size_bytes = size;
    return MIR_OK;
}

mir_status mir_config_parse_listen(const char *text, mir_config_listen *listen, mir_error *error)
{
    const char *colon = strrchr(text, ':');
    const char *digits = colon == NULL ? "" : colon + 1;
    size_t digit_count = strspn(digits, "0123456789");
    if (digit_count == 0 || digit_count > 5 || digits[digit_count] != '\0' ||
        strtol(digits, NULL, 10) > UINT16_MAX)
        return mir_error_set(error, MIR_E_INVALID,
                             "\"%.64s\" does not end in :PORT (a number from 0 to 65535)", text);

    mir_config_listen result = {.port = (uint16_t)strtol(digits, NULL, 10)};
    char host[MIR_CONFIG_HOST_BYTES];
    size_t length = (size_t)(colon - text);
    if (length >= 2 && text[0] == '[' && text[length - 1] == ']') {
        result.ipv6 = true;
        text++;
        length -= 2;
    }
    if (length >= sizeof host)
        return mir_error_set(error, MIR_E_INVALID, "\"%.64s\" is not an address", text);
    memcpy(host, text, length);
    host[length] = '\0';

    if (result.ipv6) {
        struct in6_addr address;
        if (inet_pton(AF_INET6, host, &address) != 1)
            return mir_error_set(error, MIR_E_INVALID, "\"%s\" is not an IPv6 address", host);
        result.loopback = IN6_IS_ADDR_LOOPBACK(&address) ||
                          (IN6_IS_ADDR_V4MAPPED(&address) && address.s6_addr[12] == 127);
        (void)inet_ntop(AF_INET6, &address, result.host, sizeof result.host);
    } else {
        struct in_addr address;
        const char *name = host;
        if (length == 0 || strcmp(host, "*") == 0) name = "0.0.0.0";
        if (strcmp(host, "localhost") == 0) name = "127.0.0.1";
        if (inet_pton(AF_INET, name, &address) != 1)
            return mir_error_set(error, MIR_E_INVALID, "\"%s\" is not %s", host,
                                 strchr(host, ':') != NULL
                                     ? "in brackets, as an IPv6 address must be"
                                     : "a numeric address (names are not looked up)");
        result.loopback = ntohl(address.s_addr) >> 24 == 127;
        (void)inet_ntop(AF_INET, &address, result.host, sizeof result.host);
    }
    *listen = result;
    return MIR_OK;
}
