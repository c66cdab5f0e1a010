/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench_http.h"

#include <curl/curl.h>
#include <stdio.h>

enum { REQUEST_SECONDS = 120, SHOWN_BYTES = 160 };

static size_t take(char *data, size_t size, size_t count, void *context)
{
    mir_bench_http *http = context;
    mir_bytes_append(&http->answer, data, size * count);
    return mir_bytes_ok(&http->answer) ? size * count : 0;
}

mir_status mir_bench_http_open(mir_bench_http *http, uint16_t port, mir_error *error)
{
    *http = (mir_bench_http){.curl = curl_easy_init()};
    if (http->curl == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    (void)snprintf(http->base, sizeof http->base, "http://127.0.0.1:%u", port);
    (void)curl_easy_setopt(http->curl, CURLOPT_WRITEFUNCTION, take);
    (void)curl_easy_setopt(http->curl, CURLOPT_WRITEDATA, http);
    (void)curl_easy_setopt(http->curl, CURLOPT_TIMEOUT, (long)REQUEST_SECONDS);
    (void)curl_easy_setopt(http->curl, CURLOPT_NOSIGNAL, 1L);
    (void)curl_easy_setopt(http->curl, CURLOPT_NOPROXY, "*");
    return MIR_OK;
}

void mir_bench_http_close(mir_bench_http *http)
{
    if (http->curl != NULL) curl_easy_cleanup(http->curl);
    mir_bytes_free(&http->answer);
    http->curl = NULL;
}

static mir_status perform(mir_bench_http *http, const char *path, mir_error *error)
{
    http->answer.size = 0;
    CURLcode result = curl_easy_perform(http->curl);
    if (result != CURLE_OK)
        return mir_error_set(error, MIR_E_UNREACHABLE, "%s%s: %s", http->base, path,
                             curl_easy_strerror(result));
    long code = 0;
    (void)curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &code);
    if (code / 100 == 2) return MIR_OK;
    size_t shown = http->answer.size < SHOWN_BYTES ? http->answer.size : SHOWN_BYTES;
    return mir_error_set(error, MIR_E_INVALID, "%s%s answered %ld: %.*s", http->base, path, code,
                         (int)shown, (const char *)http->answer.data);
}

mir_status mir_bench_http_get(mir_bench_http *http, const char *path, const char *const *parameters,
                              mir_error *error)
{
    mir_bytes url = {0};
    mir_bytes_printf(&url, "%s%s", http->base, path);
    for (size_t i = 0; parameters != NULL && parameters[i] != NULL; i += 2) {
        char *value = curl_easy_escape(http->curl, parameters[i + 1], 0);
        mir_bytes_printf(&url, "%c%s=%s", i == 0 ? '?' : '&', parameters[i],
                         value == NULL ? "" : value);
        curl_free(value);
    }
    mir_bytes_u8(&url, 0);
    mir_status status = MIR_E_NO_MEMORY;
    if (mir_bytes_ok(&url)) {
        (void)curl_easy_setopt(http->curl, CURLOPT_HTTPGET, 1L);
        (void)curl_easy_setopt(http->curl, CURLOPT_URL, (const char *)url.data);
        status = perform(http, path, error);
    }
    mir_bytes_free(&url);
    return status;
}

mir_status mir_bench_http_post(mir_bench_http *http, const char *path, mir_view body,
                               mir_error *error)
{
    char url[256];
    (void)snprintf(url, sizeof url, "%s%s", http->base, path);
    (void)curl_easy_setopt(http->curl, CURLOPT_URL, url);
    (void)curl_easy_setopt(http->curl, CURLOPT_POST, 1L);
    (void)curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, (const char *)body.data);
    (void)curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
    return perform(http, path, error);
}

bool mir_bench_http_answers(uint16_t port, const char *path)
{
    mir_bench_http http;
    mir_error unread = {0};
    bool answers = mir_bench_http_open(&http, port, &unread) == MIR_OK &&
                   mir_bench_http_get(&http, path, NULL, &unread) == MIR_OK;
    mir_bench_http_close(&http);
    return answers;
}
