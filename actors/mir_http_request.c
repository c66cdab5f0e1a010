/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_http_request.h"

#include <strings.h>

#include "mir_clock.h"
#include "mir_influxql.h"
#include "mir_json_text.h"

static mir_bytes *parameter_of(mir_http_request *request, const char *name)
{
    const struct {
        const char *name;
        mir_bytes *bytes;
    } known[] = {{"q", &request->query},
                 {"db", &request->database},
                 {"u", &request->user},
                 {"p", &request->password},
                 {"epoch", &request->epoch},
                 {"chunked", &request->chunked},
                 {"chunk_size", &request->chunk_size},
                 {"pretty", &request->pretty}};
    for (size_t i = 0; i < sizeof known / sizeof known[0]; i++)
        if (strcmp(name, known[i].name) == 0) return known[i].bytes;
    return NULL;
}

void mir_http_request_take(mir_http_request *request, const char *name, const char *value,
                           size_t size, uint64_t offset)
{
    mir_bytes *to = name == NULL ? NULL : parameter_of(request, name);
    if (value == NULL || to == NULL || request->too_large) return;
    if (offset == 0) to->size = 0;
    const size_t bytes_max =
        to == &request->query ? MIR_INFLUXQL_BYTES_MAX : MIR_HTTP_PARAMETER_BYTES_MAX;
    if (size > bytes_max - to->size) {
        request->too_large = true;
        return;
    }
    mir_bytes_append(to, value, size);
    request->too_large = !mir_bytes_ok(to);
}

/* What follows the scheme, or null. */
static const char *after_scheme(const char *header, const char *scheme)
{
    const size_t size = strlen(scheme);
    if (strncasecmp(header, scheme, size) != 0 || header[size] != ' ') return NULL;
    return header + size + strspn(header + size, " ");
}

static void set(mir_http_request *request, mir_bytes *to, mir_view text)
{
    to->size = 0;
    mir_bytes_view(to, text);
    if (!mir_bytes_ok(to)) request->too_large = true;
}

/* USER:PASSWORD; a password may have colons. */
static void take_pair(mir_http_request *request, mir_view text)
{
    const uint8_t *colon = text.size == 0 ? NULL : memchr(text.data, ':', text.size);
    if (colon == NULL) return;
    const size_t user_size = (size_t)(colon - text.data);
    set(request, &request->user, mir_view_of(text.data, user_size));
    set(request, &request->password, mir_view_of(colon + 1, text.size - user_size - 1));
}

void mir_http_request_authorize(mir_http_request *request, const char *header)
{
    if (header == NULL || strlen(header) > MIR_HTTP_PARAMETER_BYTES_MAX) return;
    const char *text;
    if ((text = after_scheme(header, "Basic")) != NULL) {
        mir_bytes pair = {0};
        if (mir_json_parse_base64(mir_view_cstr(text), &pair))
            take_pair(request, mir_bytes_as_view(&pair));
        mir_bytes_free(&pair);
    } else if ((text = after_scheme(header, "Token")) != NULL) {
        set(request, &request->token, mir_view_cstr(text));
        take_pair(request, mir_view_cstr(text));
    } else if ((text = after_scheme(header, "Bearer")) != NULL) {
        set(request, &request->token, mir_view_cstr(text));
    }
}

mir_credentials mir_http_request_credentials(const mir_http_request *request)
{
    const mir_bytes *token = request->token.size != 0 ? &request->token : &request->password;
    return (mir_credentials){.user = mir_bytes_as_view(&request->user),
                             .password = mir_bytes_as_view(&request->password),
                             .token = mir_bytes_as_view(token)};
}

bool mir_http_request_epoch(const mir_http_request *request, int64_t *epoch_ns)
{
    static const struct {
        const char *name;
        int64_t ns;
    } units[] = {{"", 0},
                 {"rfc3339", 0},
                 {"n", 1},
                 {"ns", 1},
                 {"u", MIR_NS_PER_US},
                 {"us", MIR_NS_PER_US},
                 {"\xc2\xb5", MIR_NS_PER_US},
                 {"ms", MIR_NS_PER_MS},
                 {"s", MIR_NS_PER_S},
                 {"m", 60 * MIR_NS_PER_S},
                 {"h", 3600 * MIR_NS_PER_S}};
    for (size_t i = 0; i < sizeof units / sizeof units[0]; i++) {
        if (!mir_view_eq_cstr(mir_bytes_as_view(&request->epoch), units[i].name)) continue;
        *epoch_ns = units[i].ns;
        return true;
    }
    return false;
}

static bool is_true(const mir_bytes *value)
{
    return mir_view_eq_cstr(mir_bytes_as_view(value), "true");
}

uint64_t mir_http_request_chunk_rows(const mir_http_request *request)
{
    const mir_bytes *text = &request->chunk_size;
    uint64_t rows = 0;
    if (!is_true(&request->chunked)) return 0;
    for (size_t i = 0; i < text->size && text->data[i] >= '0' && text->data[i] <= '9'; i++) {
        rows = rows * 10 + (text->data[i] - '0');
        if (rows > UINT32_MAX) return UINT32_MAX;
    }
    return rows == 0 ? MIR_HTTP_CHUNK_ROWS : rows;
}

bool mir_http_request_pretty(const mir_http_request *request)
{
    return is_true(&request->pretty);
}

void mir_http_request_free(mir_http_request *request)
{
    mir_bytes *const all[] = {&request->query,    &request->database,   &request->user,
                              &request->password, &request->token,      &request->epoch,
                              &request->chunked,  &request->chunk_size, &request->pretty};
    for (size_t i = 0; i < sizeof all / sizeof all[0]; i++) mir_bytes_free(all[i]);
    *request = (mir_http_request){0};
}
