/* SPDX-License-Identifier: Apache-2.0 */
/* Requests for queries of any bytes: a line for the header, then NAME=VALUE pairs with '&' between them.
 * Whether a value comes whole or in two pieces does not matter, what is taken is within its bounds, and
 * what it says can be read. */
#include <stdint.h>
#include <stdlib.h>

#include "mir_assert.h"
#include "mir_http_request.h"
#include "mir_influxql.h"

static char *text_of(mir_view view)
{
    char *text = malloc(view.size + 1);
    MIR_ASSERT(text != NULL);
    if (view.size != 0) memcpy(text, view.data, view.size);
    text[view.size] = '\0';
    return text;
}

static mir_view cut(mir_view *rest, char end)
{
    const uint8_t *at = rest->size == 0 ? NULL : memchr(rest->data, end, rest->size);
    const size_t size = at == NULL ? rest->size : (size_t)(at - rest->data);
    const mir_view part = mir_view_of(rest->data, size);
    const size_t used = at == NULL ? size : size + 1;
    *rest = mir_view_of(rest->data + used, rest->size - used);
    return part;
}

static void take(mir_http_request *request, mir_view body, bool whole)
{
    while (body.size != 0) {
        mir_view value = cut(&body, '&');
        char *name = text_of(cut(&value, '='));
        char *text = text_of(value);
        const size_t first = whole ? value.size : value.size / 3;
        const char *key = name[0] == '\0' ? NULL : name; /* as of a part of a form without one */
        mir_http_request_take(request, key, text, first, 0);
        if (!whole) mir_http_request_take(request, key, text + first, value.size - first, first);
        free(text);
        free(name);
    }
}

static void check(const mir_http_request *request)
{
    int64_t epoch_ns = -1;
    MIR_ASSERT(request->query.size <= MIR_INFLUXQL_BYTES_MAX);
    if (mir_http_request_epoch(request, &epoch_ns)) MIR_ASSERT(epoch_ns >= 0);
    MIR_ASSERT(mir_http_request_chunk_rows(request) <= UINT32_MAX);
    const mir_credentials who = mir_http_request_credentials(request);
    MIR_ASSERT(who.user.size <= MIR_HTTP_PARAMETER_BYTES_MAX &&
               who.password.size <= MIR_HTTP_PARAMETER_BYTES_MAX &&
               who.token.size <= MIR_HTTP_PARAMETER_BYTES_MAX);
}

static void same(const mir_http_request *a, const mir_http_request *b)
{
    const mir_credentials left = mir_http_request_credentials(a);
    const mir_credentials right = mir_http_request_credentials(b);
    MIR_ASSERT(a->too_large == b->too_large);
    if (a->too_large) return;
    MIR_ASSERT(mir_view_eq(mir_bytes_as_view(&a->query), mir_bytes_as_view(&b->query)) &&
               mir_view_eq(mir_bytes_as_view(&a->database), mir_bytes_as_view(&b->database)) &&
               mir_view_eq(left.user, right.user) && mir_view_eq(left.password, right.password) &&
               mir_view_eq(left.token, right.token));
    MIR_ASSERT(mir_http_request_chunk_rows(a) == mir_http_request_chunk_rows(b) &&
               mir_http_request_pretty(a) == mir_http_request_pretty(b));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);
int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    mir_view body = mir_view_of(data, size);
    char *header = text_of(cut(&body, '\n'));
    mir_http_request whole = {0}, pieces = {0};
    take(&whole, body, true);
    take(&pieces, body, false);
    mir_http_request_authorize(&whole, header);
    mir_http_request_authorize(&pieces, header);
    check(&whole);
    check(&pieces);
    same(&whole, &pieces);
    mir_http_request_free(&whole);
    mir_http_request_free(&pieces);
    free(header);
    return 0;
}
