/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench_exchange.h"

#include "mir_clock.h"

#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>

enum { OUT_BYTES = 64 << 10, LINE_BYTES_MAX = 256 };

const mir_bench_exchange mir_bench_plain = {
    .listen = "SUB bench.r work 1\r\n",
    .subject = "bench.r",
    .request = {(const uint8_t *)"0123456789abcdef", 16},
    .expected = {(const uint8_t *)"0123456789abcdef", 16},
};

static bool is_silent(const mir_bench_exchange *exchange, mir_view subject)
{
    if (exchange->silent_every == 0) return false;
    const uint8_t *dash = memchr(subject.data, '-', subject.size);
    return dash != NULL && strtoul((const char *)dash + 1, NULL, 10) % exchange->silent_every == 0;
}

/* Whether another message was read already. A PING is none: after it a read would wait for the other
 * side, which waits for what is still to be written. */
static bool more_waits(const mir_bench_conn *conn)
{
    return conn->in_size > conn->in_start && conn->in[conn->in_start] != 'P';
}

static bool append_answer(const mir_bench_exchange *exchange, uint8_t *out, size_t *size,
                          const mir_bench_message *message)
{
    mir_view header = exchange->answer_header;
    mir_view payload = header.size == 0 ? message->payload : exchange->answer;
    mir_view to = message->reply;
    if (*size + to.size + header.size + payload.size + 64 > OUT_BYTES) return false;
    char *at = (char *)out + *size;
    int line =
        header.size == 0
            ? snprintf(at, OUT_BYTES - *size, "PUB %.*s %zu\r\n", MIR_VIEW_ARGS(to), payload.size)
            : snprintf(at, OUT_BYTES - *size, "HPUB %.*s %zu %zu\r\n", MIR_VIEW_ARGS(to),
                       header.size, header.size + payload.size);
    *size += (size_t)line;
    if (header.size != 0) memcpy(out + *size, header.data, header.size);
    *size += header.size;
    if (payload.size != 0) memcpy(out + *size, payload.data, payload.size);
    *size += payload.size;
    memcpy(out + *size, "\r\n", 2);
    *size += 2;
    return true;
}

/* One write for all requests of one read. Ends when its connection does. */
static void *respond(void *context)
{
    mir_bench_responder *self = context;
    uint8_t *out = malloc(OUT_BYTES);
    size_t size = 0;
    self->status = out == NULL ? MIR_E_NO_MEMORY : MIR_OK;
    while (self->status == MIR_OK) {
        mir_bench_message message;
        self->status = mir_bench_conn_read(&self->conn, &message, &self->error);
        if (self->status == MIR_E_TIMEOUT && size == 0) self->status = MIR_OK; /* Nobody asked. */
        if (self->status != MIR_OK || message.pong) continue;
        bool is_answered = message.reply.size != 0 && !is_silent(self->exchange, message.subject);
        if (is_answered && !append_answer(self->exchange, out, &size, &message)) {
            self->status = mir_bench_conn_write(&self->conn, out, size, &self->error);
            size = 0;
            if (self->status == MIR_OK && !append_answer(self->exchange, out, &size, &message))
                self->status = MIR_E_FULL;
        }
        if (more_waits(&self->conn) || self->status != MIR_OK || size == 0) continue;
        self->status = mir_bench_conn_write(&self->conn, out, size, &self->error);
        size = 0;
    }
    free(out);
    return NULL;
}

mir_status mir_bench_responder_start(mir_bench_responder *responder, uint16_t port,
                                     const mir_bench_exchange *exchange, mir_error *error)
{
    *responder = (mir_bench_responder){.exchange = exchange, .conn = {.fd = -1}};
    mir_status status = mir_bench_conn_open(&responder->conn, port, exchange->listen, error);
    if (status != MIR_OK) return status;
    int failure = pthread_create(&responder->thread, NULL, respond, responder);
    if (failure == 0) return MIR_OK;
    mir_bench_conn_close(&responder->conn);
    return mir_error_os(error, failure, "cannot start a thread");
}

void mir_bench_responder_stop(mir_bench_responder *responder)
{
    if (responder->conn.fd < 0) return;
    (void)shutdown(responder->conn.fd, SHUT_RDWR);
    (void)pthread_join(responder->thread, NULL);
    mir_bench_conn_close(&responder->conn);
}

typedef struct samples {
    int64_t *times;
    size_t count;
} samples;

/* Each request has a reply subject of its own, as clients have it; replies are answered with as many
 * new requests, in one write per read. `to` null: no latencies are taken. */
static mir_status ask_all(mir_bench_conn *conn, const mir_bench_exchange *exchange, unsigned depth,
                          int64_t duration_ns, samples *to, mir_bench_latency *result,
                          mir_error *error)
{
    size_t out_bytes = depth * (exchange->request.size + LINE_BYTES_MAX);
    uint8_t *out = malloc(out_bytes);
    if (out == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    uint64_t asked = 0, answered = 0;
    unsigned due = depth;
    int64_t from_ns = mir_clock_mono_ns(), sent_ns = from_ns;
    mir_status status = MIR_OK;
    while (status == MIR_OK) {
        bool over = sent_ns - from_ns >= duration_ns;
        if (over && answered == asked) break;
        size_t size = 0;
        for (; due > 0 && !over; due--, asked++) {
            size += (size_t)snprintf((char *)out + size, LINE_BYTES_MAX,
                                     "PUB %s _INBOX.bench.%llu %zu\r\n", exchange->subject,
                                     (unsigned long long)asked, exchange->request.size);
            memcpy(out + size, exchange->request.data, exchange->request.size);
            memcpy(out + size + exchange->request.size, "\r\n", 2);
            size += exchange->request.size + 2;
        }
        sent_ns = mir_clock_mono_ns();
        if (size > 0) status = mir_bench_conn_write(conn, out, size, error);
        while (status == MIR_OK && answered < asked) {
            mir_bench_message message;
            status = mir_bench_conn_read(conn, &message, error);
            if (status != MIR_OK || message.pong) continue;
            if (to != NULL && to->count < MIR_BENCH_SAMPLES_MAX)
                to->times[to->count++] = mir_clock_mono_ns() - sent_ns;
            if (!mir_view_eq(message.payload, exchange->expected)) {
                status =
                    mir_error_set(error, MIR_E_INVALID, "a request to %s was answered with %.*s",
                                  exchange->subject, MIR_VIEW_ARGS(message.payload));
                break;
            }
            answered++;
            due++;
            if (!more_waits(conn)) break;
        }
    }
    result->rate = (double)answered * 1e9 / (double)(mir_clock_mono_ns() - from_ns);
    result->count += answered;
    free(out);
    return status;
}

static int compare_times(const void *a, const void *b)
{
    int64_t left = *(const int64_t *)a, right = *(const int64_t *)b;
    return (left > right) - (left < right);
}

double mir_bench_quantile(int64_t *times, size_t count, double quantile)
{
    if (count == 0) return 0;
    qsort(times, count, sizeof times[0], compare_times);
    return (double)times[(size_t)((double)(count - 1) * quantile + 0.5)];
}

typedef struct pair {
    mir_bench_responder answers;
    mir_bench_conn asks;
} pair;

static mir_status open_pair(pair *both, uint16_t port, const mir_bench_exchange *exchange,
                            mir_error *error)
{
    *both = (pair){.asks = {.fd = -1}};
    mir_status status = mir_bench_responder_start(&both->answers, port, exchange, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&both->asks, port, "SUB _INBOX.bench.* 1\r\n", error);
    if (status != MIR_OK) mir_bench_responder_stop(&both->answers);
    return status;
}

static void close_pair(pair *both)
{
    mir_bench_responder_stop(&both->answers);
    mir_bench_conn_close(&both->asks);
}

mir_status mir_bench_exchange_round(uint16_t port, const mir_bench_exchange *exchange,
                                    double seconds, mir_bench_latency *latency, mir_error *error)
{
    pair both;
    samples taken = {.times = malloc(MIR_BENCH_SAMPLES_MAX * sizeof *taken.times)};
    int64_t duration_ns = (int64_t)(seconds * 1e9);
    if (taken.times == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    mir_status status = open_pair(&both, port, exchange, error);
    if (status == MIR_OK) {
        status = ask_all(&both.asks, exchange, 1, duration_ns / 10, NULL, latency, error);
        if (status == MIR_OK)
            status = ask_all(&both.asks, exchange, 1, duration_ns, &taken, latency, error);
        close_pair(&both);
    }
    latency->p50_us = mir_bench_quantile(taken.times, taken.count, 0.5) / 1e3;
    latency->p99_us = mir_bench_quantile(taken.times, taken.count, 0.99) / 1e3;
    latency->p999_us = mir_bench_quantile(taken.times, taken.count, 0.999) / 1e3;
    latency->max_us = mir_bench_quantile(taken.times, taken.count, 1) / 1e3;
    free(taken.times);
    return status;
}

mir_status mir_bench_exchange_rate(uint16_t port, const mir_bench_exchange *exchange,
                                   unsigned depth, double seconds, double *rate, mir_error *error)
{
    pair both;
    mir_bench_latency result = {0};
    mir_status status = open_pair(&both, port, exchange, error);
    if (status != MIR_OK) return status;
    status = ask_all(&both.asks, exchange, depth, (int64_t)(seconds * 1e9), NULL, &result, error);
    close_pair(&both);
    *rate = result.rate;
    return status;
}
