/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench_conn: a small blocking client of the NATS protocol for generators and requests.
 *
 * Why        Load for both servers must come from the same code, and that code must not be the
 *            parser under test.
 * Ownership  The caller owns the struct and closes it. Views in a message live until the next read.
 * Affinity   One thread at a time per connection.
 * Bounds     A reply of at most 64 MiB; no call waits longer than 30 s for the other side.
 * Errors     An -ERR is a failure with its text. PING is answered, +OK and INFO are passed over. */
#ifndef MIR_BENCH_CONN_H
#define MIR_BENCH_CONN_H

#include "mir_status.h"
#include "mir_view.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

typedef struct mir_bench_conn {
    int fd;
    uint8_t *in; /* allocated while something is being read */
    size_t in_start;
    size_t in_size;
    size_t in_capacity;
    uint64_t request_count;
    bool inbox_ready;
    bool stamped;       /* see mir_bench_conn_stamp */
    int64_t arrived_ns; /* since 1970: when the socket had the newest bytes that were read */
} mir_bench_conn;

typedef struct mir_bench_message {
    bool pong;
    mir_view subject;
    mir_view reply;
    mir_view header;
    mir_view payload;
} mir_bench_message;

/* MIR_OK when somebody on this loopback port accepts and sends the first bytes of an INFO. */
MIR_MUST_CHECK mir_status mir_bench_conn_probe(uint16_t port);
/* Connects, sends CONNECT, `first` and PING in one write and returns when the PONG is here. */
MIR_MUST_CHECK mir_status mir_bench_conn_open(mir_bench_conn *conn, uint16_t port,
                                              const char *first, mir_error *error);
void mir_bench_conn_close(mir_bench_conn *conn);
/* Gives the read buffer back, unless there are unread bytes in it. */
void mir_bench_conn_trim(mir_bench_conn *conn);

MIR_MUST_CHECK mir_status mir_bench_conn_write(mir_bench_conn *conn, const void *data, size_t size,
                                               mir_error *error);
/* From now on the kernel notes when bytes arrive at the socket, whenever they are read. */
MIR_MUST_CHECK mir_status mir_bench_conn_stamp(mir_bench_conn *conn, mir_error *error);
/* The next message or PONG. */
MIR_MUST_CHECK mir_status mir_bench_conn_read(mir_bench_conn *conn, mir_bench_message *message,
                                              mir_error *error);
/* Reads up to the next PONG and drops what comes before it. */
MIR_MUST_CHECK mir_status mir_bench_conn_await_pong(mir_bench_conn *conn, mir_error *error);
/* PING, then await_pong. */
MIR_MUST_CHECK mir_status mir_bench_conn_flush(mir_bench_conn *conn, mir_error *error);
/* A request on a fresh inbox subject; `reply` is the payload, until the next read. */
MIR_MUST_CHECK mir_status mir_bench_conn_request(mir_bench_conn *conn, const char *subject,
                                                 mir_view body, mir_view *reply, mir_error *error);

#endif
