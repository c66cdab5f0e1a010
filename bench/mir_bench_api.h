/* SPDX-License-Identifier: Apache-2.0 */
/* mir_bench_api: what devices and clients say to ours: hellos, telemetry, and the few requests that
 * the benches make and check.
 *
 * Why        A figure counts only if what was asked for was really done, so whatever is sent can be
 *            computed again from (device, sequence) and is compared with what comes back.
 * Ownership  Buffers are the caller's; nothing is kept.
 * Affinity   Any thread.
 * Units      Timestamps in ns of wall time; a device's messages are MIR_BENCH_STEP_NS apart.
 * Bounds     A query asks for at most MIR_BENCH_QUERY_ROWS rows at a time.
 * Errors     An error arm in a reply is a failure with its text; so is a reply that is not
 * protobuf. */
#ifndef MIR_BENCH_API_H
#define MIR_BENCH_API_H

#include "mir_bench_conn.h"
#include "mir_bytes.h"

#include <protobuf-c/protobuf-c.h>

enum {
    MIR_BENCH_STEP_NS = 1000000,
    MIR_BENCH_QUERY_ROWS = 20000,
    MIR_BENCH_TELEMETRY_BYTES_MAX = 192,
    MIR_BENCH_LABEL_HITS = 1000,
};

extern const size_t mir_bench_schema_size;
extern const uint8_t mir_bench_schema[];

/* A whole HPUB of one telemetry message, whose payload has the same length for every sequence. */
typedef struct mir_bench_telemetry {
    uint8_t bytes[MIR_BENCH_TELEMETRY_BYTES_MAX];
    size_t size;
    size_t payload_at;
} mir_bench_telemetry;

void mir_bench_telemetry_init(mir_bench_telemetry *telemetry, unsigned device);
/* Writes the payload of a message at `payload`. */
void mir_bench_telemetry_fill(uint8_t *payload, int64_t base_ns, unsigned device,
                              uint32_t sequence);

/* Packs and asks; the reply's view lives until the next read. */
MIR_MUST_CHECK mir_status mir_bench_api_ask(mir_bench_conn *conn, const char *subject,
                                            const ProtobufCMessage *request, mir_view *reply,
                                            mir_error *error);
/* The status of an answer with an error (null: with neither). */
mir_status mir_bench_api_refused(const char *subject, const char *text, mir_error *error);

/* Sends the hello of each of `device_count` devices. The server goes on with them when this has
 * returned. */
MIR_MUST_CHECK mir_status mir_bench_api_hello(mir_bench_conn *conn, unsigned device_count,
                                              mir_error *error);
/* Sends a heartbeat of each. */
MIR_MUST_CHECK mir_status mir_bench_api_beat(mir_bench_conn *conn, unsigned device_count,
                                             mir_error *error);
/* Sends the hello of each of `device_count` devices and one telemetry message (sequence 0), and
 * returns when all of these answer a query. */
MIR_MUST_CHECK mir_status mir_bench_api_introduce(mir_bench_conn *conn, unsigned device_count,
                                                  int64_t base_ns, mir_error *error);
/* Compares every stored row of a device with what was sent: exactly the sequences below `sent`,
 * each once and with its values. `stored` is the number of rows that came back. */
MIR_MUST_CHECK mir_status mir_bench_api_verify(mir_bench_conn *conn, unsigned device,
                                               int64_t base_ns, uint32_t sent, uint32_t *stored,
                                               mir_error *error);
/* Fails unless this one message of a device can be read now. */
MIR_MUST_CHECK mir_status mir_bench_api_visible(mir_bench_conn *conn, unsigned device,
                                                int64_t base_ns, uint32_t sequence,
                                                mir_error *error);
/* Creates devices [first, first + count), labelled so that MIR_BENCH_LABEL_HITS in a row share the
 * value of `group`, and checks that the reply names them all. */
MIR_MUST_CHECK mir_status mir_bench_api_create(mir_bench_conn *conn, unsigned first, unsigned count,
                                               mir_error *error);
/* Lists by the label of a group; `wall_ns` is the time until the whole reply was here. */
MIR_MUST_CHECK mir_status mir_bench_api_list_group(mir_bench_conn *conn, unsigned group,
                                                   size_t *found, int64_t *wall_ns,
                                                   mir_error *error);
/* How many of these ids are online. */
MIR_MUST_CHECK mir_status mir_bench_api_online(mir_bench_conn *conn, char **ids, size_t id_count,
                                               size_t *online, mir_error *error);

#endif
