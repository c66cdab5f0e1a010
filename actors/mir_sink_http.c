/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_sink_http.h"

#include <curl/curl.h>
#include <errno.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <zlib.h>

enum {
    ANSWER_BYTES_MAX = 4096,
    TOKEN_BYTES_MAX = 4096,
    GZIP_WINDOW_BITS = 15 + 16, /* zlib's way to ask for gzip */
    GZIP_MEMORY_LEVEL = 8,
};

struct mir_sink_http {
    CURL *curl;
    struct curl_slist *headers;
    const atomic_bool *stop;
    bool gzip;
    z_stream deflate;
    mir_bytes packed;
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
    if (options->ca_file != NULL && access(options->ca_file, R_OK) != 0)
        return mir_error_os(error, errno, "telemetry.sink.ca_file: cannot read %s",
                            options->ca_file);
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
    if (ok && options->gzip) {
        /* Fast: lines are mostly repetition. */
        made->gzip = ok = deflateInit2(&made->deflate, Z_BEST_SPEED, Z_DEFLATED, GZIP_WINDOW_BITS,
                                       GZIP_MEMORY_LEVEL, Z_DEFAULT_STRATEGY) == Z_OK;
        ok = ok && add_header(made, "Content-Encoding: gzip");
    }
    if (ok && options->ca_file != NULL)
        ok = curl_easy_setopt(curl, CURLOPT_CAINFO, options->ca_file) == CURLE_OK &&
             curl_easy_setopt(curl, CURLOPT_CAPATH, NULL) == CURLE_OK;
    ok = ok && curl_easy_setopt(curl, CURLOPT_URL, options->url) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_PROTOCOLS_STR, "http,https") == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_POST, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_HTTPHEADER, made->headers) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_USERAGENT, "mir/" MIR_VERSION) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_NOSIGNAL, 1L) == CURLE_OK &&
         curl_easy_setopt(curl, CURLOPT_TCP_KEEPALIVE, 1L) == CURLE_OK &&
         /* The thread that asks for a name is left to end by itself, instead of waited for. */
         curl_easy_setopt(curl, CURLOPT_QUICK_EXIT, 1L) == CURLE_OK &&
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

/* The body as it is sent; null data when there is no memory for it. */
static mir_view packed(mir_sink_http *http, mir_view body)
{
    if (!http->gzip) return body;
    z_stream *stream = &http->deflate;
    http->packed.size = 0;
    http->packed.failed = false; /* of another time */
    const size_t room = deflateBound(stream, body.size);
    uint8_t *out = mir_bytes_reserve(&http->packed, room);
    if (out == NULL || deflateReset(stream) != Z_OK) return (mir_view){0};
    stream->next_in = (z_const Bytef *)(uintptr_t)body.data;
    stream->avail_in = (uInt)body.size;
    stream->next_out = out;
    stream->avail_out = (uInt)room;
    if (deflate(stream, Z_FINISH) != Z_STREAM_END) return (mir_view){0};
    return mir_view_of(out, room - stream->avail_out);
}

void mir_sink_http_post(mir_sink_http *http, mir_view body, mir_sink_answer *answer)
{
    *answer = (mir_sink_answer){0};
    http->answer_size = 0;
    http->error[0] = '\0';
    const mir_view sent = packed(http, body);
    CURLcode code = sent.data == NULL
                        ? CURLE_OUT_OF_MEMORY
                        : curl_easy_setopt(http->curl, CURLOPT_POSTFIELDS, (const char *)sent.data);
    if (code == CURLE_OK)
        code = curl_easy_setopt(http->curl, CURLOPT_POSTFIELDSIZE_LARGE, (curl_off_t)sent.size);
    if (code == CURLE_OK) code = curl_easy_perform(http->curl);
    if (code != CURLE_OK) {
        const char *why = http->error[0] != '\0' ? http->error : curl_easy_strerror(code);
        curl_off_t sent_bytes = 0;
        (void)curl_easy_getinfo(http->curl, CURLINFO_SIZE_UPLOAD_T, &sent_bytes);
        /* Somebody was there. What a stop has ended is nobody's fault. */
        answer->slow = sent_bytes > 0 && code != CURLE_ABORTED_BY_CALLBACK;
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
    if (http->gzip) (void)deflateEnd(&http->deflate);
    mir_bytes_free(&http->packed);
    free(http);
}
