/* SPDX-License-Identifier: Apache-2.0 */
/* Telemetry in: CPU that a server spends per message, in large writes from few connections, and one
 * message per TCP segment from many.
 *
 * Ours decodes and stores; the peer parses and drops the same bytes, having no subscriber. Cost is
 * the server's CPU from the first byte until it is quiet after the last PONG, so that syncs and
 * other work that follows the replies is in it. Every message has its own timestamp and values,
 * which are read back from ours afterwards: a row that was not stored fails the measurement. */
#include "mir_bench_api.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <errno.h>
#include <math.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/socket.h>
#include <time.h>

enum {
    DEVICES = 1000,
    BATCH_MESSAGES = 256,
    BULK_MESSAGES_PER_SECOND = 1000000, /* of the aimed length of a round */
    SEGMENT_MESSAGES_PER_SECOND = 30000,
    SEGMENT_TICK_NS = 1000000,
    VERIFIED_DEVICES = 10,
};

typedef struct fleet {
    mir_bench_server server;
    mir_bench_conn control;
    int64_t base_ns;
    uint32_t sent[DEVICES]; /* messages of each device; the first is the introduction's */
    mir_bench_telemetry telemetry[DEVICES];
} fleet;

typedef struct sender {
    mir_bench_conn conn;
    unsigned device_first;
    unsigned device_count;
    uint8_t *batch;
    size_t batch_size;
    size_t batch_messages;
    size_t batches_left;
    size_t at; /* what is sent of the current batch */
    bool filled;
} sender;

static mir_status fleet_start(fleet *made, mir_bench_side side, const mir_bench_options *options,
                              mir_error *error)
{
    made->base_ns = mir_clock_wall_ns() / MIR_NS_PER_S * MIR_NS_PER_S;
    for (unsigned i = 0; i < DEVICES; i++) {
        mir_bench_telemetry_init(&made->telemetry[i], i);
        made->sent[i] = 1;
    }
    mir_status status = mir_bench_server_start(&made->server, side, options, NULL, error);
    if (status == MIR_OK)
        status = mir_bench_conn_open(&made->control, made->server.port, "", error);
    if (status == MIR_OK && side == MIR_BENCH_OURS)
        status = mir_bench_api_introduce(&made->control, DEVICES, made->base_ns, error);
    return status;
}

static void fleet_stop(fleet *stopped, mir_bench_report *report)
{
    mir_bench_conn_close(&stopped->control);
    mir_bench_server_stop(&stopped->server, false);
    if (stopped->server.side == MIR_BENCH_OURS &&
        stopped->server.peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = stopped->server.peak_resident_bytes;
}

static void batch_refill(sender *from, fleet *load)
{
    uint8_t *at = from->batch;
    for (size_t i = 0; i < from->batch_messages; i++) {
        unsigned device = from->device_first + (unsigned)(i % from->device_count);
        const mir_bench_telemetry *telemetry = &load->telemetry[device];
        mir_bench_telemetry_fill(at + telemetry->payload_at, load->base_ns, device,
                                 load->sent[device]++);
        at += telemetry->size;
    }
    from->at = 0;
    from->filled = true;
}

static mir_status sender_open(sender *made, fleet *load, unsigned first, unsigned count,
                              size_t batches, mir_error *error)
{
    size_t passes = (BATCH_MESSAGES + count - 1) / count;
    made->device_first = first;
    made->device_count = count;
    made->batch_messages = passes * count;
    made->batches_left = batches;
    made->batch = malloc(made->batch_messages * MIR_BENCH_TELEMETRY_BYTES_MAX);
    if (made->batch == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    for (size_t i = 0; i < made->batch_messages; i++) {
        const mir_bench_telemetry *telemetry = &load->telemetry[first + i % count];
        memcpy(made->batch + made->batch_size, telemetry->bytes, telemetry->size);
        made->batch_size += telemetry->size;
    }
    return mir_bench_conn_open(&made->conn, load->server.port, "", error);
}

/* Sends what the socket takes, at most the rest of one batch; `*moved` tells whether it took any.
 */
static mir_status sender_push(sender *from, fleet *load, bool *moved, mir_error *error)
{
    if (from->batches_left == 0) return MIR_OK;
    if (!from->filled) batch_refill(from, load);
    ssize_t sent = send(from->conn.fd, from->batch + from->at, from->batch_size - from->at,
                        MSG_DONTWAIT | MSG_NOSIGNAL);
    if (sent < 0 && errno == EAGAIN) return MIR_OK;
    if (sent < 0) return mir_error_os(error, errno, "send");
    *moved = true;
    from->at += (size_t)sent;
    if (from->at == from->batch_size) {
        from->filled = false;
        from->batches_left--;
    }
    return MIR_OK;
}

static mir_status push_all(sender *senders, unsigned count, fleet *load, mir_error *error)
{
    struct pollfd waiting[64];
    for (;;) {
        bool moved = false;
        nfds_t unfinished = 0;
        for (unsigned i = 0; i < count; i++) {
            mir_status status = sender_push(&senders[i], load, &moved, error);
            if (status != MIR_OK) return status;
            if (senders[i].batches_left > 0)
                waiting[unfinished++] =
                    (struct pollfd){.fd = senders[i].conn.fd, .events = POLLOUT};
        }
        if (unfinished == 0) return MIR_OK;
        if (moved) continue;
        if (poll(waiting, unfinished, 30000) == 0)
            return mir_error_set(error, MIR_E_TIMEOUT, "the server took no bytes for 30 s");
    }
}

/* One PING on every connection, then one PONG from each. */
static mir_status flush_all(sender *senders, unsigned count, mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < count && status == MIR_OK; i++)
        status = mir_bench_conn_write(&senders[i].conn, "PING\r\n", 6, error);
    for (unsigned i = 0; i < count && status == MIR_OK; i++)
        status = mir_bench_conn_await_pong(&senders[i].conn, error);
    return status;
}

static void senders_close(sender *senders, unsigned count)
{
    for (unsigned i = 0; i < count; i++) {
        mir_bench_conn_close(&senders[i].conn);
        free(senders[i].batch);
    }
    free(senders);
}

static sender *senders_new(unsigned count, mir_error *error)
{
    sender *senders = calloc(count, sizeof *senders);
    if (senders == NULL) {
        (void)mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        return NULL;
    }
    for (unsigned i = 0; i < count; i++) senders[i].conn.fd = -1;
    return senders;
}

typedef struct round_result {
    double cpu_us; /* per message */
    double rate;   /* messages per second until the last PONG */
} round_result;

static mir_status bulk_round(fleet *load, unsigned connections, size_t messages,
                             round_result *result, mir_error *error)
{
    sender *senders = senders_new(connections, error);
    if (senders == NULL) return MIR_E_NO_MEMORY;
    size_t total = 0;
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < connections && status == MIR_OK; i++) {
        unsigned first = i * DEVICES / connections;
        unsigned count = (i + 1) * DEVICES / connections - first;
        size_t batches = messages / connections / BATCH_MESSAGES + 1;
        status = sender_open(&senders[i], load, first, count, batches, error);
        total += batches * senders[i].batch_messages;
    }
    if (status == MIR_OK) {
        mir_bench_server_settle(&load->server);
        int64_t cpu_ns = mir_bench_server_cpu_ns(&load->server), from_ns = mir_clock_mono_ns();
        status = push_all(senders, connections, load, error);
        if (status == MIR_OK) status = flush_all(senders, connections, error);
        int64_t wall_ns = mir_clock_mono_ns() - from_ns;
        /* What a PONG covers can be read at once: the newest row of the last connection. */
        if (status == MIR_OK && load->server.side == MIR_BENCH_OURS)
            status = mir_bench_api_visible(&load->control, DEVICES - 1, load->base_ns,
                                           load->sent[DEVICES - 1] - 1, error);
        if (status == MIR_OK) mir_bench_server_settle(&load->server);
        cpu_ns = mir_bench_server_cpu_ns(&load->server) - cpu_ns;
        result->cpu_us = (double)cpu_ns / 1e3 / (double)total;
        result->rate = (double)total * 1e9 / (double)wall_ns;
    }
    senders_close(senders, connections);
    return status;
}

static void pause_until(int64_t mono_ns)
{
    struct timespec until = {.tv_sec = mono_ns / MIR_NS_PER_S, .tv_nsec = mono_ns % MIR_NS_PER_S};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &until, NULL) == EINTR) {
    }
}

/* One message per write on connections that were opened before, in turn, a tick's worth at a time.
 */
static mir_status segment_round(fleet *load, sender *senders, size_t messages, round_result *result,
                                mir_error *error)
{
    const size_t per_tick =
        (size_t)((int64_t)SEGMENT_MESSAGES_PER_SECOND * SEGMENT_TICK_NS / MIR_NS_PER_S);
    mir_status status = MIR_OK;
    mir_bench_server_settle(&load->server);
    int64_t cpu_ns = mir_bench_server_cpu_ns(&load->server), from_ns = mir_clock_mono_ns();
    int64_t next_ns = from_ns;
    for (size_t i = 0; i < messages && status == MIR_OK; i++) {
        if (i % per_tick == 0) {
            pause_until(next_ns);
            next_ns += SEGMENT_TICK_NS;
        }
        unsigned device = (unsigned)(i % DEVICES);
        mir_bench_telemetry *telemetry = &load->telemetry[device];
        mir_bench_telemetry_fill(telemetry->bytes + telemetry->payload_at, load->base_ns, device,
                                 load->sent[device]++);
        status =
            mir_bench_conn_write(&senders[device].conn, telemetry->bytes, telemetry->size, error);
    }
    int64_t wall_ns = mir_clock_mono_ns() - from_ns;
    /* Everything is in the server's sockets; when it is quiet, it has been taken. The PINGs come
     * after the reading: they are not part of the load, but what they answer for is compared. */
    if (status == MIR_OK) mir_bench_server_settle(&load->server);
    int64_t spent_ns = mir_bench_server_cpu_ns(&load->server) - cpu_ns;
    if (status == MIR_OK) status = flush_all(senders, DEVICES, error);
    result->cpu_us = (double)spent_ns / 1e3 / (double)messages;
    result->rate = (double)messages * 1e9 / (double)wall_ns;
    return status;
}

/* Reads back the rows of some devices, spread over all. Wrong data fails the row, not the run. */
static void verify(fleet *load, mir_bench_row *row)
{
    mir_error error = {0};
    size_t sent = 0, stored = 0;
    size_t used = strlen(row->note);
    for (unsigned i = 0; i < VERIFIED_DEVICES; i++) {
        unsigned device = i * (DEVICES - 1) / (VERIFIED_DEVICES - 1);
        uint32_t rows = 0;
        mir_status status = mir_bench_api_verify(&load->control, device, load->base_ns,
                                                 load->sent[device], &rows, &error);
        if (status != MIR_OK) {
            row->failed = true;
            (void)snprintf(row->note + used, sizeof row->note - used, "; %.120s", error.text);
            return;
        }
        sent += load->sent[device];
        stored += rows;
    }
    if (stored != sent) row->failed = true;
    (void)snprintf(row->note + used, sizeof row->note - used,
                   "; stored %zu of %zu (%d devices, every value compared)", stored, sent,
                   VERIFIED_DEVICES);
}

/* Starts the wanted sides; loads[side] stays null for the others. */
static mir_status loads_start(fleet **loads, const mir_bench_options *options, mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned side = 0; side < MIR_BENCH_SIDES && status == MIR_OK; side++) {
        if (!mir_bench_server_wanted(options, side)) continue;
        loads[side] = calloc(1, sizeof *loads[side]);
        if (loads[side] == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        loads[side]->control.fd = -1;
        status = fleet_start(loads[side], side, options, error);
    }
    return status;
}

static void loads_stop(fleet **loads, mir_bench_report *report)
{
    for (unsigned side = 0; side < MIR_BENCH_SIDES; side++) {
        if (loads[side] == NULL) continue;
        fleet_stop(loads[side], report);
        free(loads[side]);
    }
}

static void note_rates(mir_bench_row *row, const mir_bench_series *rates)
{
    double ours = mir_bench_series_median(&rates[MIR_BENCH_OURS]) / 1e3;
    double peer = mir_bench_series_median(&rates[MIR_BENCH_PEER]) / 1e3;
    if (isnan(ours))
        (void)snprintf(row->note, sizeof row->note, "k msg/s accepted: peer %.0f", peer);
    else if (isnan(peer))
        (void)snprintf(row->note, sizeof row->note, "k msg/s accepted: %.0f", ours);
    else
        (void)snprintf(row->note, sizeof row->note, "k msg/s accepted: %.0f, peer %.0f", ours,
                       peer);
}

mir_status mir_bench_ingest(const mir_bench_options *options, mir_bench_report *report,
                            mir_error *error)
{
    static const unsigned connections[] = {8, 64};
    fleet *loads[MIR_BENCH_SIDES] = {NULL};
    size_t messages = (size_t)(options->seconds * BULK_MESSAGES_PER_SECOND);
    mir_status status = loads_start(loads, options, error);
    for (size_t c = 0; c < sizeof connections / sizeof connections[0] && status == MIR_OK; c++) {
        mir_bench_series cpu[MIR_BENCH_SIDES] = {0}, rates[MIR_BENCH_SIDES] = {0};
        for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
            if (loads[i % 2] == NULL) continue;
            round_result result = {0};
            status = bulk_round(loads[i % 2], connections[c], messages, &result, error);
            if (status != MIR_OK) break;
            mir_bench_series_add(&cpu[i % 2], result.cpu_us);
            mir_bench_series_add(&rates[i % 2], result.rate);
            mir_bench_say("ingest, %u connections, %s: %.3f us/msg", connections[c],
                          i % 2 == MIR_BENCH_OURS ? "ours" : "peer", result.cpu_us);
        }
        if (status != MIR_OK) break;
        mir_bench_row *row = mir_bench_report_add(
            report, "us/msg", mir_bench_series_median(&cpu[MIR_BENCH_OURS]),
            mir_bench_series_median(&cpu[MIR_BENCH_PEER]), MIR_BENCH_BAR_RATIO_MAX, 3,
            "ingest, CPU, %u connections", connections[c]);
        note_rates(row, rates);
        if (loads[MIR_BENCH_OURS] != NULL) verify(loads[MIR_BENCH_OURS], row);
    }
    loads_stop(loads, report);
    return status;
}

static mir_status devices_connect(sender **senders, fleet *load, mir_error *error)
{
    *senders = senders_new(DEVICES, error);
    if (*senders == NULL) return MIR_E_NO_MEMORY;
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < DEVICES && status == MIR_OK; i++) {
        char text[64];
        (void)snprintf(text, sizeof text, "SUB bench-%u.> 1\r\n", i);
        status = mir_bench_conn_open(&(*senders)[i].conn, load->server.port, text, error);
    }
    return status;
}

mir_status mir_bench_segments(const mir_bench_options *options, mir_bench_report *report,
                              mir_error *error)
{
    fleet *loads[MIR_BENCH_SIDES] = {NULL};
    sender *senders[MIR_BENCH_SIDES] = {NULL};
    mir_bench_series cpu[MIR_BENCH_SIDES] = {0}, rates[MIR_BENCH_SIDES] = {0};
    size_t messages = (size_t)(options->seconds * SEGMENT_MESSAGES_PER_SECOND);
    mir_status status = loads_start(loads, options, error);
    for (unsigned side = 0; side < MIR_BENCH_SIDES && status == MIR_OK; side++)
        if (loads[side] != NULL) status = devices_connect(&senders[side], loads[side], error);
    for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
        if (loads[i % 2] == NULL) continue;
        round_result result = {0};
        status = segment_round(loads[i % 2], senders[i % 2], messages, &result, error);
        if (status != MIR_OK) break;
        mir_bench_series_add(&cpu[i % 2], result.cpu_us);
        mir_bench_series_add(&rates[i % 2], result.rate);
        mir_bench_say("segments, %s: %.3f us/msg", i % 2 == MIR_BENCH_OURS ? "ours" : "peer",
                      result.cpu_us);
    }
    if (status == MIR_OK) {
        mir_bench_row *row = mir_bench_report_add(
            report, "us/msg", mir_bench_series_median(&cpu[MIR_BENCH_OURS]),
            mir_bench_series_median(&cpu[MIR_BENCH_PEER]), MIR_BENCH_BAR_RATIO_MAX, 1,
            "segments, CPU, %d connections", DEVICES);
        note_rates(row, rates);
        if (loads[MIR_BENCH_OURS] != NULL) verify(loads[MIR_BENCH_OURS], row);
    }
    for (unsigned side = 0; side < MIR_BENCH_SIDES; side++)
        if (senders[side] != NULL) senders_close(senders[side], DEVICES);
    loads_stop(loads, report);
    return status;
}
