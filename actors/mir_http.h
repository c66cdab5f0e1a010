/* SPDX-License-Identifier: Apache-2.0 */
/* mir_http: the HTTP interface of InfluxDB 1.x, for reading.
 *
 * Why        Dashboards have a data source for it. Nothing of it touches the message path: one thread does
 *            the input and output of all connections, a few others run the queries and give way to
 *            everybody, and one sees whose client has gone or whose time is over.
 *
 *              GET, POST /query     mir_influx, after a login
 *              GET, HEAD /ping      204
 *              GET       /health    200
 *
 * Ownership  mir_http_start takes the listening socket in any case. Hub and auth are borrowed and must
 *            outlive it.
 * Affinity   start, quiesce, stop: the main thread. The counters: any thread.
 * Bounds     http.max_connections, http.threads, http.timeout; a request has MIR_HTTP_BODY_BYTES_MAX bytes,
 *            an answer MIR_HTTP_ANSWER_BYTES_MAX, all answers that wait for their clients
 *            MIR_HTTP_ANSWERS_BYTES_MAX, a query twice MIR_HTTP_QUERY_BYTES_MAX of memory.
 * Errors     start: with a text. Clients get {"error":…} with a status of HTTP; a login that fails is an
 *            event as well.
 * Source     docs/formats/influxql.md */
#ifndef MIR_HTTP_H
#define MIR_HTTP_H

#include <stdatomic.h>

#include "mir_auth.h"
#include "mir_status.h"

typedef struct mir_http mir_http;
struct mir_hub;

enum {
    MIR_HTTP_BODY_BYTES_MAX = 1024 * 1024,
    MIR_HTTP_ANSWER_BYTES_MAX = 64 * 1024 * 1024,
    MIR_HTTP_ANSWERS_BYTES_MAX = 256 * 1024 * 1024,
    MIR_HTTP_QUERY_BYTES_MAX =
        128 * 1024 * 1024, /* for what the log reads, and again for its rows */
    MIR_HTTP_IDLE_S = 60,  /* a connection that neither sends nor takes anything is closed */
};

/* What `mir status` shows; the hub's, so that it is there before and after the interface. */
typedef struct mir_http_counters {
    _Atomic uint64_t connections; /* now */
    _Atomic uint64_t requests;
    _Atomic uint64_t queries;
    _Atomic uint64_t errors; /* of these: not understood, refused, or a statement that failed */
    _Atomic uint64_t auth_failures;
    _Atomic uint64_t gone;     /* the client did not wait */
    _Atomic uint64_t timeouts; /* http.timeout */
    _Atomic uint64_t damaged;  /* answers that are incomplete */
    _Atomic uint64_t running;  /* queries, now */
    _Atomic uint64_t rows;     /* that were read */
    _Atomic uint64_t bytes_out;
    _Atomic uint64_t busy_ns;      /* of all queries together */
    _Atomic uint64_t answer_bytes; /* that wait for their clients */
    _Atomic uint32_t port;         /* 0: off */
} mir_http_counters;

MIR_MUST_CHECK mir_status mir_http_start(struct mir_hub *hub, const mir_auth *auth, int listener,
                                         mir_http **http, mir_error *error);
/* No new connections; those that are open end with their next answer. */
void mir_http_quiesce(mir_http *http);
/* Cancels what runs and closes what is open. The shards still run, the stores are open. Null is fine. */
void mir_http_stop(mir_http *http);

#endif
