/* SPDX-License-Identifier: Apache-2.0 */
/* Plain messages: one publisher to one queue subscriber at saturation, and request/reply.
 *
 * Both sides of a pair run in a thread of this process, the same for both servers, so on few cores
 * the generator takes its share from the server; the ratio is what a row says, not the rate. */
#include "mir_bench_conn.h"
#include "mir_bench_exchange.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <errno.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum {
    WINDOW_BYTES = 8 << 20, /* between publisher and subscriber, below every slow-consumer bound */
    WRITE_BYTES = 32 << 10,
    READ_BYTES = 256 << 10,
    PIPELINE_DEPTH = 64,
};

typedef struct stream {
    mir_bench_conn conn;
    size_t message_bytes; /* as delivered */
    char line[64];
    _Atomic uint64_t received; /* messages; written by the subscriber, read by the publisher */
    _Atomic bool ended;
} stream;

/* Counts messages of one known length by counting bytes, and looks at the line of the first whole
 * message of each read, so that bytes that are not those messages are noticed. Ends with its
 * connection. */
static void *consume(void *context)
{
    stream *in = context;
    uint8_t *buffer = malloc(READ_BYTES);
    uint64_t bytes = 0;
    size_t line_size = strlen(in->line);
    while (buffer != NULL) {
        ssize_t size = recv(in->conn.fd, buffer, READ_BYTES, 0);
        if (size < 0 && errno == EINTR) continue;
        if (size <= 0) break;
        /* The server's first PING comes two seconds after CONNECT, between two messages. */
        uint8_t *ping = memmem(buffer, (size_t)size, "PING\r\n", 6);
        if (ping != NULL) {
            size -= 6;
            memmove(ping, ping + 6, (size_t)(buffer + size - ping));
        }
        size_t offset = (in->message_bytes - bytes % in->message_bytes) % in->message_bytes;
        if (offset + line_size <= (size_t)size && memcmp(buffer + offset, in->line, line_size) != 0)
            break;
        bytes += (uint64_t)size;
        atomic_store_explicit(&in->received, bytes / in->message_bytes, memory_order_release);
    }
    atomic_store_explicit(&in->ended, true, memory_order_release);
    free(buffer);
    return NULL;
}

static void short_nap(void)
{
    struct timespec wait = {.tv_nsec = 50000};
    (void)nanosleep(&wait, NULL);
}

/* Publishes until the time is over, in whole writes, then says how many messages that were. */
static mir_status produce(mir_bench_conn *conn, stream *to, size_t payload, int64_t until_ns,
                          uint64_t *sent, mir_error *error)
{
    char line[64];
    int line_size = snprintf(line, sizeof line, "PUB bench.q %zu\r\n", payload);
    size_t message = (size_t)line_size + payload + 2;
    size_t per_write = WRITE_BYTES / message;
    uint64_t window = WINDOW_BYTES / to->message_bytes;
    uint8_t *buffer = malloc(per_write * message);
    if (buffer == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < per_write; i++) {
        uint8_t *at = buffer + i * message;
        memcpy(at, line, (size_t)line_size);
        memset(at + line_size, 'x', payload);
        memcpy(at + line_size + payload, "\r\n", 2);
    }
    mir_status status = MIR_OK;
    uint64_t count = 0;
    while (status == MIR_OK && mir_clock_mono_ns() < until_ns) {
        if (atomic_load_explicit(&to->ended, memory_order_acquire)) break;
        if (count - atomic_load_explicit(&to->received, memory_order_acquire) > window) {
            short_nap();
            continue;
        }
        status = mir_bench_conn_write(conn, buffer, per_write * message, error);
        count += per_write;
    }
    if (status == MIR_OK) status = mir_bench_conn_flush(conn, error);
    *sent = count;
    free(buffer);
    return status;
}

/* The publisher stops by time; what it sent until then is awaited by count, and that wait is part
 * of the time that the rate is taken over. */
static mir_status pubsub_round(const mir_bench_server *server, size_t payload, double seconds,
                               double *rate, mir_error *error)
{
    stream in = {.conn = {.fd = -1}};
    mir_bench_conn out = {.fd = -1};
    pthread_t thread;
    uint64_t sent = 0;
    (void)snprintf(in.line, sizeof in.line, "MSG bench.q 1 %zu\r\n", payload);
    in.message_bytes = strlen(in.line) + payload + 2;
    mir_status status =
        mir_bench_conn_open(&in.conn, server->port, "SUB bench.q work 1\r\n", error);
    if (status == MIR_OK) status = mir_bench_conn_open(&out, server->port, "", error);
    if (status != MIR_OK) goto out;
    int64_t from_ns = mir_clock_mono_ns();
    int failure = pthread_create(&thread, NULL, consume, &in);
    if (failure != 0) {
        status = mir_error_os(error, failure, "cannot start a thread");
        goto out;
    }
    status = produce(&out, &in, payload, from_ns + (int64_t)(seconds * 1e9), &sent, error);
    int64_t until_ns = mir_clock_mono_ns() + 30 * MIR_NS_PER_S;
    while (status == MIR_OK && atomic_load_explicit(&in.received, memory_order_acquire) < sent &&
           !atomic_load_explicit(&in.ended, memory_order_acquire) && mir_clock_mono_ns() < until_ns)
        short_nap();
    int64_t wall_ns = mir_clock_mono_ns() - from_ns;
    uint64_t received = atomic_load_explicit(&in.received, memory_order_acquire);
    (void)shutdown(in.conn.fd, SHUT_RDWR);
    (void)pthread_join(thread, NULL);
    if (status == MIR_OK && received != sent)
        status = mir_error_set(error, MIR_E_CORRUPT, "%llu of %llu messages arrived",
                               (unsigned long long)received, (unsigned long long)sent);
    *rate = (double)received * 1e9 / (double)wall_ns;
out:
    mir_bench_conn_close(&in.conn);
    mir_bench_conn_close(&out);
    return status;
}

mir_status mir_bench_pubsub(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    static const size_t payloads[] = {16, 128};
    mir_bench_server servers[MIR_BENCH_SIDES] = {0};
    mir_status status = mir_bench_pair_start(servers, options, error);
    for (size_t p = 0; p < sizeof payloads / sizeof payloads[0] && status == MIR_OK; p++) {
        mir_bench_series rates[MIR_BENCH_SIDES] = {0};
        for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
            double rate = 0;
            if (servers[i % 2].pid == 0) continue;
            status = pubsub_round(&servers[i % 2], payloads[p], options->seconds, &rate, error);
            if (status != MIR_OK) break;
            mir_bench_series_add(&rates[i % 2], rate / 1e3);
            mir_bench_say("pubsub, %zu B, %s: %.0f k msg/s", payloads[p],
                          i % 2 == MIR_BENCH_OURS ? "ours" : "peer", rate / 1e3);
        }
        if (status == MIR_OK)
            (void)mir_bench_report_add(
                report, "k msg/s", mir_bench_series_median(&rates[MIR_BENCH_OURS]),
                mir_bench_series_median(&rates[MIR_BENCH_PEER]), MIR_BENCH_BAR_RATIO_MIN, 1,
                "pub/sub, 1 queue subscriber, %zu B", payloads[p]);
    }
    mir_bench_pair_stop(servers, report);
    return status;
}

mir_status mir_bench_reqrep(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    enum { P50, P99, P999, MAX, RATE, FIGURES };
    mir_bench_server servers[MIR_BENCH_SIDES] = {0};
    mir_bench_series series[MIR_BENCH_SIDES][FIGURES] = {0};
    double medians[MIR_BENCH_SIDES][FIGURES];
    mir_status status = mir_bench_pair_start(servers, options, error);
    for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
        mir_bench_latency result = {0};
        if (servers[i % 2].pid == 0) continue;
        status = mir_bench_exchange_round(servers[i % 2].port, &mir_bench_plain,
                                          options->seconds / 2, &result, error);
        if (status == MIR_OK)
            status = mir_bench_exchange_rate(servers[i % 2].port, &mir_bench_plain, PIPELINE_DEPTH,
                                             options->seconds / 2, &result.rate, error);
        if (status != MIR_OK) break;
        mir_bench_series *of = series[i % 2];
        mir_bench_series_add(&of[P50], result.p50_us);
        mir_bench_series_add(&of[P99], result.p99_us);
        mir_bench_series_add(&of[P999], result.p999_us);
        mir_bench_series_add(&of[MAX], result.max_us);
        mir_bench_series_add(&of[RATE], result.rate / 1e3);
        mir_bench_say("reqrep, %s: p50 %.1f us, p99 %.1f us, %.0f k/s at depth %d",
                      i % 2 == MIR_BENCH_OURS ? "ours" : "peer", result.p50_us, result.p99_us,
                      result.rate / 1e3, PIPELINE_DEPTH);
    }
    for (unsigned side = 0; side < MIR_BENCH_SIDES; side++)
        for (unsigned f = 0; f < FIGURES; f++)
            medians[side][f] = mir_bench_series_median(&series[side][f]);
    if (status == MIR_OK) {
        static const struct {
            unsigned figure;
            mir_bench_bar bar;
            const char *unit, *name;
        } rows[] = {
            {P50, MIR_BENCH_BAR_RATIO_MAX, "us", "request/reply, depth 1, p50"},
            {P99, MIR_BENCH_BAR_RATIO_MAX, "us", "request/reply, depth 1, p99"},
            {P999, MIR_BENCH_BAR_NONE, "us", "request/reply, depth 1, p99.9"},
            {MAX, MIR_BENCH_BAR_NONE, "us", "request/reply, depth 1, max"},
            {RATE, MIR_BENCH_BAR_RATIO_MIN, "k/s", "request/reply, depth 64, rate"},
        };
        for (size_t r = 0; r < sizeof rows / sizeof rows[0]; r++)
            (void)mir_bench_report_add(
                report, rows[r].unit, medians[MIR_BENCH_OURS][rows[r].figure],
                medians[MIR_BENCH_PEER][rows[r].figure], rows[r].bar, 1, "%s", rows[r].name);
    }
    mir_bench_pair_stop(servers, report);
    return status;
}
