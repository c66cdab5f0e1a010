/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench_exchange: one that asks and one that answers, over TCP, measured at the one that asks.
 *
 * Why        A plain request through the peer and a command through ours are compared, so both go
 *            through the same loop, and differ only in what is said.
 * Ownership  Strings and views of an exchange are the caller's and live as long as it does.
 * Affinity   Who asks is the calling thread, who answers a thread of its own.
 * Units      Seconds in, microseconds and requests per second out.
 * Bounds     MIR_BENCH_SAMPLES_MAX latencies in a round.
 * Errors     An answer that is not the expected one ends the round with MIR_E_INVALID. */
#ifndef MIR_BENCH_EXCHANGE_H
#define MIR_BENCH_EXCHANGE_H

#include "mir_bench_conn.h"

#include <pthread.h>

enum { MIR_BENCH_SAMPLES_MAX = 1 << 20 };

typedef struct mir_bench_exchange {
    const char *listen; /* the SUB lines of who answers */
    mir_view answer_header;
    mir_view answer; /* with an empty header: what was asked */
    const char *subject;
    mir_view request;
    mir_view expected; /* what has to come back, byte for byte */
    /* One in so many subjects, by the number behind its first '-', is never answered; 0: none. */
    unsigned silent_every;
} mir_bench_exchange;

/* 16 bytes that come back as they are. */
extern const mir_bench_exchange mir_bench_plain;

typedef struct mir_bench_latency {
    double p50_us, p99_us, p999_us, max_us;
    uint64_t count; /* of requests, those that warmed up included */
    double rate;    /* of mir_bench_exchange_rate */
} mir_bench_latency;

typedef struct mir_bench_responder {
    const mir_bench_exchange *exchange;
    mir_bench_conn conn;
    pthread_t thread;
    mir_error error;
    mir_status status;
} mir_bench_responder;

/* Answers from its own thread until it is stopped. */
MIR_MUST_CHECK mir_status mir_bench_responder_start(mir_bench_responder *responder, uint16_t port,
                                                    const mir_bench_exchange *exchange,
                                                    mir_error *error);
void mir_bench_responder_stop(mir_bench_responder *responder);

/* One request at a time, for so many seconds after a tenth of that which warms up. */
MIR_MUST_CHECK mir_status mir_bench_exchange_round(uint16_t port,
                                                   const mir_bench_exchange *exchange,
                                                   double seconds, mir_bench_latency *latency,
                                                   mir_error *error);
/* `depth` requests under way all the time. */
MIR_MUST_CHECK mir_status mir_bench_exchange_rate(uint16_t port, const mir_bench_exchange *exchange,
                                                  unsigned depth, double seconds, double *rate,
                                                  mir_error *error);

/* Sorts the times; 0 when there are none. */
double mir_bench_quantile(int64_t *times, size_t count, double quantile);

#endif
