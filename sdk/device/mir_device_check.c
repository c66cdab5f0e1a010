/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_device_check.h"

#include <ctype.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include "mir_device.h"

enum { ROUTE_BYTES_MAX = 1024 };

static bool is_blank_or_control(unsigned char c)
{
    return c <= ' ' || c == 0x7f;
}

mir_status mir_device_check_id(const char *id, mir_error *error)
{
    static const char *const reserved[] = {"client", "device", "event", "_INBOX"};
    if (id == NULL || id[0] == '\0')
        return mir_error_set(error, MIR_E_INVALID, "the device id is missing");
    if (strlen(id) > MIR_DEVICE_ID_BYTES_MAX)
        return mir_error_set(error, MIR_E_INVALID, "the device id is longer than %d bytes",
                             MIR_DEVICE_ID_BYTES_MAX);
    for (const char *c = id; *c != '\0'; c++)
        if (strchr(".*>", *c) != NULL || is_blank_or_control((unsigned char)*c))
            return mir_error_set(error, MIR_E_INVALID,
                                 "the device id must not contain '.', '*', '>', blanks or control "
                                 "characters");
    for (size_t i = 0; i < sizeof reserved / sizeof reserved[0]; i++)
        if (strcmp(id, reserved[i]) == 0)
            return mir_error_set(error, MIR_E_INVALID, "the device id '%s' is a reserved word", id);
    return MIR_OK;
}

static bool is_url(const char *url, size_t size)
{
    static const char *const schemes[] = {"nats://", "tls://"};
    const char *end = url + size;
    const char *at = NULL;
    for (size_t i = 0; at == NULL && i < sizeof schemes / sizeof schemes[0]; i++) {
        size_t length = strlen(schemes[i]);
        if (size > length && strncmp(url, schemes[i], length) == 0) at = url + length;
    }
    if (at == NULL) return false;
    const char *host = at;
    for (const char *c = at; c < end; c++) {
        if (is_blank_or_control((unsigned char)*c)) return false;
        if (*c == '@') host = c + 1;
    }
    at = host;
    const char *host_end;
    if (at < end && *at == '[') { /* an IPv6 address */
        host_end = memchr(at, ']', (size_t)(end - at));
        if (host_end == NULL || host_end == at + 1) return false;
        host_end++;
    } else {
        host_end = memchr(at, ':', (size_t)(end - at));
        if (host_end == NULL) host_end = end;
        if (host_end == at) return false;
    }
    if (host_end == end) return true;
    if (*host_end != ':') return false;
    long port = 0;
    for (const char *c = host_end + 1; c < end; c++) {
        if (!isdigit((unsigned char)*c) || port > 65535) return false;
        port = port * 10 + (*c - '0');
    }
    return port >= 1 && port <= 65535;
}

mir_status mir_device_check_target(const char *target, mir_error *error)
{
    const char *url = target;
    for (;;) {
        size_t size = strcspn(url, ",");
        if (!is_url(url, size)) {
            /* The part before an '@' is a secret. */
            const char *host = memrchr(url, '@', size);
            const char *shown = host == NULL ? url : host;
            return mir_error_set(error, MIR_E_INVALID,
                                 "'%.*s' is no target; write nats://host:port or tls://host:port",
                                 (int)(size - (size_t)(shown - url)), shown);
        }
        if (url[size] == '\0') return MIR_OK;
        url += size + 1;
    }
}

mir_status mir_device_check_route(const char *route, mir_error *error)
{
    int tokens = 1;
    size_t token_bytes = 0;
    bool good = route != NULL && strlen(route) <= ROUTE_BYTES_MAX;
    for (const char *c = route; good && *c != '\0'; c++) {
        if (*c == '.') {
            good = token_bytes > 0;
            tokens++;
            token_bytes = 0;
        } else {
            good = *c != '*' && *c != '>' && !is_blank_or_control((unsigned char)*c);
            token_bytes++;
        }
    }
    if (good && tokens >= 3 && token_bytes > 0) return MIR_OK;
    return mir_error_set(error, MIR_E_INVALID,
                         "a route is <module>.<version>.<function>[.more] without wildcards and "
                         "blanks, at most %d bytes",
                         ROUTE_BYTES_MAX);
}

mir_status mir_device_check_header(const char *name, const char *value, mir_error *error)
{
    bool good = name != NULL && name[0] != '\0' && value != NULL && strpbrk(value, "\r\n") == NULL;
    for (const char *c = name; good && *c != '\0'; c++) good = *c != ':' && *c > ' ' && *c < 0x7f;
    if (good) return MIR_OK;
    return mir_error_set(error, MIR_E_INVALID,
                         "a header has a name of printable ASCII without ':' and blanks, and a "
                         "value without line ends");
}

mir_status mir_device_check_message_name(const char *name, mir_error *error)
{
    bool good = name != NULL && name[0] != '\0' && strlen(name) <= ROUTE_BYTES_MAX;
    bool at_start = true;
    for (const char *c = name; good && *c != '\0'; c++) {
        if (*c == '.')
            good = !at_start;
        else
            good = *c == '_' || isalpha((unsigned char)*c) ||
                   (!at_start && isdigit((unsigned char)*c));
        at_start = *c == '.';
    }
    if (good && !at_start) return MIR_OK;
    return mir_error_set(error, MIR_E_INVALID, "not a full message name, such as pump.v1.Flow");
}

/* The bytes of the character that the text begins with, 0 if it is none. */
static size_t utf8_size(const unsigned char *text)
{
    static const uint32_t smallest[] = {0, 0, 0x80, 0x800, 0x10000};
    if (text[0] < 0x80) return 1;
    size_t size = text[0] >= 0xf0 ? 4 : text[0] >= 0xe0 ? 3 : text[0] >= 0xc0 ? 2 : 0;
    if (size == 0 || text[0] >= 0xf8) return 0;
    uint32_t character = text[0] & (0x7fu >> size);
    for (size_t i = 1; i < size; i++) {
        if ((text[i] & 0xc0) != 0x80) return 0; /* the end of the text, too */
        character = character << 6 | (text[i] & 0x3f);
    }
    bool surrogate = character >= 0xd800 && character < 0xe000;
    return character < smallest[size] || character > 0x10ffff || surrogate ? 0 : size;
}

void mir_device_make_utf8(char *text)
{
    while (*text != '\0') {
        size_t size = utf8_size((const unsigned char *)text);
        if (size == 0) *text = '?';
        text += size == 0 ? 1 : size;
    }
}
