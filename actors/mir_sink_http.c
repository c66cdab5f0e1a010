/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sink_http.h"

#include <curl/curl.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

enum { ANSWER_BYTES_MAX = 4096, TOKEN_BYTES_MAX = 4096 };

struct mir_sink_http {
    CURL *curl;
    struct curl_slist *headers;
    const atomic_bool *stop;
    char answer[ANSWER_BYTES_MAX];
    size_t answer_size;
    char error[CURL_ERROR_SIZE];
};

static void curl_begin(void)
{
    (void)curl_global_init(CURL_GLOBAL_DEFAULT);
}

/* The rest of it is read and forgotten. */
static size_t take(char *data, size_t size, size_t count, void *context)
{
    mir_sink_http *http = context;
    const size_t bytes = size * count;
    size_t kept = ANSWER_BYTES_MAX - http->answer_size;
    if (kept > bytes) kept = bytes;
    memcpy(http->answer + http->answer_size, data, kept);
    http->answer_size += kept;
    return bytes;
}

static int progress(void *context, curl_off_t down_total, curl_off_t down, curl_off_t up_total,
                    curl_off_t up)
{
    const mir_sink_http *http = context;
    (void)down_total;
    (void)down;
    (void)up_total;
    (void)up;
    return atomic_load_explicit(http->stop, memory_order_relaxed) ? 1 : 0;
}

static bool add_header(mir_sink_http *http, const char *text)
{
    struct curl_slist *more = curl_slist_append(http->headers, text);
    if (more == NULL) return false;
    http->headers = more;
    return true;
}

mir_status mir_sink_http_create(const mir_sink_http_options *options, mir_sink_http **http,
                                mir_error *error)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    (void)pthread_once(&once, curl_begin);
    char token[TOKEN_BYTES_MAX];
    if (options->token != NULL && strlen(options->token) > sizeof token - 32)
        return mir_error_set(error, MIR_E_INVALID, "telemetry.sink.token is too long");
    mir_sink_http *made = calloc(1, sizeof *made);
    if (made == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    made->stop = options->stop;
    made->curl = curl_easy_init();
    CURL *curl = made->curl;
    /* Expect would cost a round trip before each batch. */
    bool ok = curl != NULL && add_header(made, "Content-Type: text/plain; charset=utf-8") &&
              add_header(made, "Expect:");
    if (ok && options->token != NULL) {
        (void)snprintf(token, sizeof token, "Authorization: Token %s", options->token);
        ok = add_header(made, token);
    }
    ok = ok && curl_easy_setopt(curl, CURLOPT_URL, options->url) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_POST, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_HTTPHEADER, made->headers) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_USERAGENT, "mir/" MIR_VERSION) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_TIMEOUT_MS, (long)(options->timeout_ns / MIR_NS_PER_MS)) ==
             CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_NOPROGRESS, 0L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_XFERINFOFUNCTION, progress) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_XFERINFODATA, made) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_WRITEFUNCTION, take) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_WRITEDATA, made) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_ERRORBUFFER, made->error) == CURLE_OK;
    if (ok && options->user != NULL) {
        ok = curl_easy_setopt(curl, CURLOPT_HTTPAUTH, CURLAUTH_BASIC) == CURLE_OK &&
             curl_easy_setopt(curl, CURLOPT_USERNAME, options->user) == CURLE_OK &&
             curl_easy_setopt(curl, CURLOPT_PASSWORD,
                              options->password == NULL ? "" : options->password) == CURLE_OK;
    }
    if (!ok) {
        mir_sink_http_destroy(made);
        return mir_error_set(error, MIR_E_NO_MEMORY, "the telemetry sink cannot start");
    }
    *http = made;
    return MIR_OK;
}

/* One line of what may be anything, for people. */
static void set_text(mir_sink_answer *answer, const char *text, size_t size)
{
    size_t used = 0;
    for (size_t i = 0; i < size && used + 1 < sizeof answer->text; i++) {
        const char c = text[i];
        if (c >= ' ' && c < 0x7f)
            answer->text[used++] = c;
        else if (used > 0 && answer->text[used - 1] != ' ')
            answer->text[used++] = ' ';
    }
    while (used > 0 && answer->text[used - 1] == ' ') used--;
    answer->text[used] = '\0';
}

void mir_sink_http_post(mir_sink_http *http, mir_view body, mir_sink_answer *answer)
{
    *answer = (mir_sink_answer){0};
    http->answer_size = 0;
    http->error[0] = '\0';
    CURLcode code = curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, (const char *)body.data);
    if (code == CURLE_OK)
        code = curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)body.size);
    if (code == CURLE_OK) code = curl_easy_perform(http->curl);
    if (code != CURLE_OK) {
        const char *why = http->error[0] != '\0' ? http->error : curl_easy_strerror(code);
        set_text(answer, why, strlen(why));
        return;
    }
    curl_off_t retry_after_s = 0;
    (void)curl_easy_getinfo(http->curl, CURLINFO_RESPONSE_CODE, &answer->http_status);
    (void)curl_easy_getinfo(http->curl, CURLINFO_RETRY_AFTER, &retry_after_s);
    if (retry_after_s > INT32_MAX) retry_after_s = INT32_MAX;
    if (retry_after_s > 0) answer->retry_after_ns = retry_after_s * MIR_NS_PER_S;
    answer->partial = mir_sink_partial_of(mir_view_of(http->answer, http->answer_size));
    set_text(answer, http->answer, http->answer_size);
}

void mir_sink_http_destroy(mir_sink_http *http)
{
    if (http == NULL) return;
    if (http->curl != NULL) curl_easy_cleanup(http->curl);
    curl_slist_free_all(http->headers);
    free(http);
}
