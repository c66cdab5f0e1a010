/* SPDX-License-Identifier: Apache-2.0 */
/* Commands and configuration: one device there and back beside a plain request through the peer, and
 * ten thousand devices at once.
 *
 * The devices of the many are one connection that answers for all of them: what is measured is the
 * server, and not how fast ten thousand sockets can be served by the generator. */
#include "mir_bench_api.h"
#include "mir_bench_exchange.h"
#include "mir_bench_server.h"
#include "mir_clock.h"

#include <math.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "mir_api/v1/cfg.pb-c.h"
#include "mir_api/v1/cmd.pb-c.h"

enum {
    DEVICES = 10000,
    DEVICES_QUICK = 500,
    BULK_ROUNDS = 5,
    STREAM_ROUNDS = 3,
    STREAM_TIMEOUT_S = 3,
    SILENT_EVERY = 100,
    DONE_PERCENT = 99,
};

static const int64_t enrol_timeout_ns = 120 * MIR_NS_PER_S;
static const char send_subject[] = "client.bench.cmd.v1alpha.send";
static const char config_subject[] = "client.bench.cfg.v1alpha.send";
static const char switch_json[] = "{\"on\":true,\"level\":7,\"why\":\"because it is measured\"}";
static char command_name[] = "bench.v1.Switch";
static char config_name[] = "bench.v1.Sampling";
static char name_space[] = "default";

#define ANSWER_HEADER "NATS/1.0\r\nmir-msg: bench.v1.Switched\r\n\r\n"
/* {on: true, level: 7} */
#define ANSWER "\x08\x01\x10\x07"
#define ANSWERING                                                                                  \
    .answer_header = {(const uint8_t *)ANSWER_HEADER, sizeof ANSWER_HEADER - 1},                   \
    .answer = {(const uint8_t *)ANSWER, sizeof ANSWER - 1}

typedef struct command {
    MirApi__V1__SendCommandRequest request;
    MirApi__V1__DeviceTarget target;
    char *lists[1];
} command;

/* To one device by its id, or with null to all. */
static void command_init(command *c, char *id)
{
    mir_api__v1__send_command_request__init(&c->request);
    mir_api__v1__device_target__init(&c->target);
    c->lists[0] = id != NULL ? id : name_space;
    c->target.n_ids = id != NULL ? 1 : 0;
    c->target.ids = c->lists;
    c->target.n_namespaces = id != NULL ? 0 : 1;
    c->target.namespaces = c->lists;
    c->request.targets = &c->target;
    c->request.name = command_name;
    c->request.has_payload = 1;
    c->request.payload =
        (ProtobufCBinaryData){sizeof switch_json - 1, (uint8_t *)(uintptr_t)switch_json};
    c->request.has_payload_encoding = 1;
    c->request.payload_encoding = MIR_API__V1__ENCODING__ENCODING_JSON;
}

/* How many entries of an answer have this status. */
static mir_status count_answers(mir_view reply, MirApi__V1__CommandResponseStatus wanted,
                                size_t *count, mir_error *error)
{
    MirApi__V1__SendCommandResponse *response =
        mir_api__v1__send_command_response__unpack(NULL, reply.size, reply.data);
    mir_status status = MIR_OK;
    *count = 0;
    if (response == NULL) return mir_bench_api_refused(send_subject, NULL, error);
    if (response->response_case == MIR_API__V1__SEND_COMMAND_RESPONSE__RESPONSE_OK) {
        for (size_t i = 0; i < response->ok->n_device_responses; i++)
            if (response->ok->device_responses[i]->value->status == wanted) (*count)++;
    } else {
        bool has_text =
            response->response_case == MIR_API__V1__SEND_COMMAND_RESPONSE__RESPONSE_ERROR;
        status = mir_bench_api_refused(send_subject, has_text ? response->error : NULL, error);
    }
    mir_api__v1__send_command_response__free_unpacked(response, NULL);
    return status;
}

static const MirApi__V1__CommandResponseStatus
    validated = MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_VALIDATED,
    success = MIR_API__V1__COMMAND_RESPONSE_STATUS__COMMAND_RESPONSE_STATUS_SUCCESS;

/* Introduces the devices and returns when the server would send a command to each of them. */
static mir_status enrol(mir_bench_conn *conn, unsigned device_count, mir_error *error)
{
    mir_status status = mir_bench_api_hello(conn, device_count, error);
    int64_t until_ns = mir_clock_mono_ns() + enrol_timeout_ns;
    size_t known = 0;
    while (status == MIR_OK && known != device_count) {
        command dry;
        mir_view reply;
        mir_error refusal = {0};
        command_init(&dry, NULL);
        dry.request.has_dry_run = dry.request.dry_run = 1;
        status = mir_bench_api_ask(conn, send_subject, &dry.request.base, &reply, error);
        if (status != MIR_OK) break;
        mir_status counted = count_answers(reply, validated, &known, &refusal);
        if (counted == MIR_OK && known == device_count) break;
        if (mir_clock_mono_ns() > until_ns)
            status = mir_error_set(error, MIR_E_TIMEOUT, "%zu of %u devices are known: %s", known,
                                   device_count, refusal.text);
        struct timespec wait = {.tv_nsec = 50 * MIR_NS_PER_MS};
        (void)nanosleep(&wait, NULL);
    }
    return status;
}

/* --- one device ----------------------------------------------------------------------------- */

/* The exchange of a command to one device; what it allocates is request.data and expected.data. */
static mir_status prepare(const mir_bench_server *server, mir_bench_exchange *exchange,
                          mir_error *error)
{
    char id[] = "bench-0";
    command one;
    mir_bench_conn conn;
    mir_bench_responder device;
    mir_view reply = {NULL, 0};
    size_t done = 0;
    command_init(&one, id);
    mir_status status = mir_bench_responder_start(&device, server->port, exchange, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&conn, server->port, "", error);
    if (status == MIR_OK) {
        status = enrol(&conn, 1, error);
        if (status == MIR_OK)
            status = mir_bench_api_ask(&conn, send_subject, &one.request.base, &reply, error);
        if (status == MIR_OK) status = count_answers(reply, success, &done, error);
        if (status == MIR_OK && done != 1)
            status = mir_error_set(error, MIR_E_INVALID, "the device did not answer: %.*s",
                                   MIR_VIEW_ARGS(reply));
        size_t size = protobuf_c_message_get_packed_size(&one.request.base);
        uint8_t *request = malloc(size), *expected = malloc(reply.size + 1);
        if (status == MIR_OK && (request == NULL || expected == NULL))
            status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        if (status == MIR_OK) {
            (void)protobuf_c_message_pack(&one.request.base, request);
            memcpy(expected, reply.data, reply.size);
            exchange->request = mir_view_of(request, size);
            exchange->expected = mir_view_of(expected, reply.size);
        } else {
            free(request);
            free(expected);
        }
        mir_bench_conn_close(&conn);
    }
    mir_bench_responder_stop(&device);
    return status;
}

static mir_status round_trip(const mir_bench_options *options, mir_bench_report *report,
                             mir_error *error)
{
    enum { P50, P99, CPU, FIGURES };
    mir_bench_server servers[MIR_BENCH_SIDES] = {0};
    mir_bench_series series[MIR_BENCH_SIDES][FIGURES] = {0};
    mir_bench_exchange exchanges[MIR_BENCH_SIDES] = {
        [MIR_BENCH_OURS] = {.listen = "SUB bench-0.v1alpha.command 1\r\n",
                            .subject = send_subject,
                            ANSWERING},
        [MIR_BENCH_PEER] = mir_bench_plain,
    };
    mir_bench_exchange *ours = &exchanges[MIR_BENCH_OURS];
    mir_status status = mir_bench_pair_start(servers, options, error);
    if (status == MIR_OK && servers[MIR_BENCH_OURS].pid != 0)
        status = prepare(&servers[MIR_BENCH_OURS], ours, error);
    for (unsigned i = 0; i < 2 * options->rounds && status == MIR_OK; i++) {
        const mir_bench_server *server = &servers[i % 2];
        mir_bench_latency latency = {0};
        if (server->pid == 0) continue;
        int64_t cpu_ns = mir_bench_server_cpu_ns(server);
        status = mir_bench_exchange_round(server->port, &exchanges[i % 2], options->seconds / 2,
                                          &latency, error);
        if (status != MIR_OK) break;
        mir_bench_series_add(&series[i % 2][P50], latency.p50_us);
        mir_bench_series_add(&series[i % 2][P99], latency.p99_us);
        mir_bench_server_settle(server);
        cpu_ns = mir_bench_server_cpu_ns(server) - cpu_ns;
        double cpu_us = (double)cpu_ns / 1e3 / (double)latency.count;
        mir_bench_series_add(&series[i % 2][CPU], cpu_us);
        mir_bench_say("commands, %s: p50 %.1f us, p99 %.1f us, %.1f us of CPU",
                      i % 2 == MIR_BENCH_OURS ? "ours" : "peer, plain", latency.p50_us,
                      latency.p99_us, cpu_us);
    }
    mir_bench_pair_stop(servers, report);
    free((void *)(uintptr_t)ours->request.data);
    free((void *)(uintptr_t)ours->expected.data);
    if (status != MIR_OK) return status;
    for (unsigned f = P50; f <= P99; f++) {
        mir_bench_row *row = mir_bench_report_add(
            report, "us", mir_bench_series_median(&series[MIR_BENCH_OURS][f]),
            mir_bench_series_median(&series[MIR_BENCH_PEER][f]), MIR_BENCH_BAR_RATIO_MAX, 1.3,
            "command to a device and back, %s", f == P50 ? "p50" : "p99");
        (void)snprintf(row->note, sizeof row->note,
                       "validated and stored as an event, %.0f us of CPU; the peer: a plain "
                       "request/reply, %.0f us",
                       mir_bench_series_median(&series[MIR_BENCH_OURS][CPU]),
                       mir_bench_series_median(&series[MIR_BENCH_PEER][CPU]));
    }
    return MIR_OK;
}

/* --- many ----------------------------------------------------------------------------------- */

/* Sends to all and waits for the whole answer, which must be `expected` times a success. */
static mir_status bulk_round(mir_bench_conn *conn, size_t expected, double *seconds,
                             mir_error *error)
{
    command all;
    mir_view reply;
    size_t done = 0;
    command_init(&all, NULL);
    int64_t from_ns = mir_clock_mono_ns();
    mir_status status = mir_bench_api_ask(conn, send_subject, &all.request.base, &reply, error);
    *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    if (status == MIR_OK) status = count_answers(reply, success, &done, error);
    if (status == MIR_OK && done != expected)
        status = mir_error_set(error, MIR_E_INVALID, "%zu of %zu devices carried the command out",
                               done, expected);
    return status;
}

/* The header `mir-progress: <done>/<all>` of a partial answer; 0 of another one. */
static size_t progress_of(mir_view header)
{
    static const char name[] = "mir-progress: ";
    const uint8_t *at =
        header.size == 0 ? NULL : memmem(header.data, header.size, name, sizeof name - 1);
    return at == NULL ? 0 : strtoul((const char *)at + sizeof name - 1, NULL, 10);
}

/* The same with partial answers, while some devices are silent: `seconds` until all but these are in
 * hand. */
static mir_status stream_round(mir_bench_conn *conn, unsigned device_count, double *seconds,
                               mir_error *error)
{
    command all;
    char line[128];
    command_init(&all, NULL);
    all.request.has_stream = all.request.stream = 1;
    all.request.has_timeout_sec = 1;
    all.request.timeout_sec = STREAM_TIMEOUT_S;
    size_t size = protobuf_c_message_get_packed_size(&all.request.base);
    int line_size =
        snprintf(line, sizeof line, "PUB %s _INBOX.stream.1 %zu\r\n", send_subject, size);
    uint8_t *out = malloc((size_t)line_size + size + 2);
    if (out == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    memcpy(out, line, (size_t)line_size);
    (void)protobuf_c_message_pack(&all.request.base, out + line_size);
    memcpy(out + (size_t)line_size + size, "\r\n", 2);
    size_t enough = (size_t)device_count * DONE_PERCENT / 100, in_hand = 0, done = 0;
    int64_t from_ns = mir_clock_mono_ns();
    mir_status status = mir_bench_conn_write(conn, out, (size_t)line_size + size + 2, error);
    *seconds = NAN;
    while (status == MIR_OK) {
        mir_bench_message message;
        status = mir_bench_conn_read(conn, &message, error);
        if (status != MIR_OK || message.pong) continue;
        size_t progress = progress_of(message.header);
        if (progress == 0) {
            status = count_answers(message.payload, success, &done, error);
            break;
        }
        size_t part = 0;
        status = count_answers(message.payload, success, &part, error);
        in_hand += part;
        if (isnan(*seconds) && in_hand >= enough)
            *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    }
    free(out);
    if (status == MIR_OK && (isnan(*seconds) || done != in_hand))
        status = mir_error_set(error, MIR_E_INVALID,
                               "%zu answers came one by one, and %zu in the whole answer", in_hand,
                               done);
    return status;
}

static mir_status config_round(mir_bench_conn *conn, unsigned device_count, unsigned value,
                               double *seconds, mir_error *error)
{
    MirApi__V1__SendConfigRequest request = MIR_API__V1__SEND_CONFIG_REQUEST__INIT;
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    char *namespaces[] = {name_space};
    char payload[64];
    mir_view reply;
    int size = snprintf(payload, sizeof payload, "{\"intervalMs\":%u}", value);
    target.n_namespaces = 1;
    target.namespaces = namespaces;
    request.targets = &target;
    request.name = config_name;
    request.has_payload = 1;
    request.payload = (ProtobufCBinaryData){(size_t)size, (uint8_t *)payload};
    request.has_payload_encoding = 1;
    request.payload_encoding = MIR_API__V1__ENCODING__ENCODING_JSON;
    int64_t from_ns = mir_clock_mono_ns();
    mir_status status = mir_bench_api_ask(conn, config_subject, &request.base, &reply, error);
    *seconds = (double)(mir_clock_mono_ns() - from_ns) / 1e9;
    if (status != MIR_OK) return status;
    MirApi__V1__SendConfigResponse *response =
        mir_api__v1__send_config_response__unpack(NULL, reply.size, reply.data);
    if (response == NULL) return mir_bench_api_refused(config_subject, NULL, error);
    size_t done = 0;
    if (response->response_case == MIR_API__V1__SEND_CONFIG_RESPONSE__RESPONSE_OK) {
        for (size_t i = 0; i < response->ok->n_device_responses; i++)
            if (response->ok->device_responses[i]->value->status ==
                MIR_API__V1__CONFIG_RESPONSE_STATUS__CONFIG_RESPONSE_STATUS_SUCCESS)
                done++;
        if (done != device_count)
            status = mir_error_set(error, MIR_E_INVALID, "%zu of %u devices were configured", done,
                                   device_count);
    } else {
        bool has_text =
            response->response_case == MIR_API__V1__SEND_CONFIG_RESPONSE__RESPONSE_ERROR;
        status = mir_bench_api_refused(config_subject, has_text ? response->error : NULL, error);
    }
    mir_api__v1__send_config_response__free_unpacked(response, NULL);
    return status;
}

typedef struct many {
    mir_bench_server server;
    mir_bench_conn control, streamed;
    unsigned device_count;
    mir_bench_series bulk, bulk_cpu, stream, config, config_cpu;
} many;

/* Nobody is away while it is measured, and what came before has been paid for. */
static mir_status calm(many *m, mir_error *error)
{
    mir_status status = mir_bench_api_beat(&m->control, m->device_count, error);
    if (status == MIR_OK) mir_bench_server_settle(&m->server);
    return status;
}

static mir_status measure_bulk(many *m, mir_error *error)
{
    static const mir_bench_exchange answering = {.listen = "SUB *.v1alpha.command 1\r\n",
                                                 ANSWERING};
    mir_bench_responder devices;
    mir_status status = mir_bench_responder_start(&devices, m->server.port, &answering, error);
    if (status != MIR_OK) return status;
    status = enrol(&m->control, m->device_count, error);
    for (unsigned i = 0; i < BULK_ROUNDS && status == MIR_OK; i++) {
        double seconds = NAN;
        status = calm(m, error);
        int64_t cpu_ns = mir_bench_server_cpu_ns(&m->server);
        if (status == MIR_OK) status = bulk_round(&m->control, m->device_count, &seconds, error);
        if (status != MIR_OK) break;
        mir_bench_server_settle(&m->server);
        cpu_ns = mir_bench_server_cpu_ns(&m->server) - cpu_ns;
        mir_bench_series_add(&m->bulk, seconds);
        mir_bench_series_add(&m->bulk_cpu, (double)cpu_ns / 1e3 / m->device_count);
        mir_bench_say("commands, %u devices: %.3f s", m->device_count, seconds);
    }
    mir_bench_responder_stop(&devices);
    return status;
}

static mir_status measure_stream(many *m, mir_error *error)
{
    static const mir_bench_exchange answering = {
        .listen = "SUB *.v1alpha.command 1\r\n", ANSWERING, .silent_every = SILENT_EVERY};
    mir_bench_responder devices;
    mir_status status = mir_bench_responder_start(&devices, m->server.port, &answering, error);
    if (status != MIR_OK) return status;
    for (unsigned i = 0; i < STREAM_ROUNDS && status == MIR_OK; i++) {
        double seconds = NAN;
        status = calm(m, error);
        if (status == MIR_OK) status = stream_round(&m->streamed, m->device_count, &seconds, error);
        if (status != MIR_OK) break;
        mir_bench_series_add(&m->stream, seconds);
        mir_bench_say("commands, %u devices, %d %% of which in hand: %.3f s", m->device_count,
                      DONE_PERCENT, seconds);
    }
    mir_bench_responder_stop(&devices);
    return status;
}

static mir_status measure_config(many *m, mir_error *error)
{
    mir_status status = MIR_OK;
    for (unsigned i = 0; i < BULK_ROUNDS && status == MIR_OK; i++) {
        double seconds = NAN;
        status = calm(m, error);
        int64_t cpu_ns = mir_bench_server_cpu_ns(&m->server);
        if (status == MIR_OK)
            status = config_round(&m->control, m->device_count, 1000 + i, &seconds, error);
        if (status != MIR_OK) break;
        mir_bench_server_settle(&m->server);
        cpu_ns = mir_bench_server_cpu_ns(&m->server) - cpu_ns;
        mir_bench_series_add(&m->config, seconds);
        mir_bench_series_add(&m->config_cpu, (double)cpu_ns / 1e3 / m->device_count);
        mir_bench_say("configuration, %u devices: %.3f s", m->device_count, seconds);
    }
    return status;
}

static mir_status many_devices(const mir_bench_options *options, mir_bench_report *report,
                               mir_error *error)
{
    many m = {.control = {.fd = -1},
              .streamed = {.fd = -1},
              .device_count = options->quick ? DEVICES_QUICK : DEVICES};
    mir_status status = mir_bench_server_start(&m.server, MIR_BENCH_OURS, options, NULL, error);
    if (status != MIR_OK) return status;
    status = mir_bench_conn_open(&m.control, m.server.port, "", error);
    if (status == MIR_OK)
        status =
            mir_bench_conn_open(&m.streamed, m.server.port, "SUB _INBOX.stream.* 1\r\n", error);
    if (status == MIR_OK) status = measure_bulk(&m, error);
    if (status == MIR_OK) {
        mir_bench_row *row = mir_bench_report_add(report, "s", mir_bench_series_median(&m.bulk),
                                                  NAN, MIR_BENCH_BAR_VALUE_MAX, 1,
                                                  "command to %u devices", m.device_count);
        (void)snprintf(row->note, sizeof row->note, "all answer; %.1f us of CPU for each",
                       mir_bench_series_median(&m.bulk_cpu));
        status = measure_stream(&m, error);
    }
    if (status == MIR_OK) {
        mir_bench_row *row = mir_bench_report_add(
            report, "s", mir_bench_series_median(&m.stream), NAN, MIR_BENCH_BAR_VALUE_MAX, 1,
            "command, %u devices, %d %% there", m.device_count, DONE_PERCENT);
        (void)snprintf(row->note, sizeof row->note, "streamed; the others never answer");
        status = measure_config(&m, error);
    }
    if (status == MIR_OK) {
        mir_bench_row *row = mir_bench_report_add(report, "s", mir_bench_series_median(&m.config),
                                                  NAN, MIR_BENCH_BAR_VALUE_MAX, 3,
                                                  "configuration of %u devices", m.device_count);
        (void)snprintf(row->note, sizeof row->note, "durable; %.1f us of CPU for each",
                       mir_bench_series_median(&m.config_cpu));
    }
    mir_bench_conn_close(&m.control);
    mir_bench_conn_close(&m.streamed);
    mir_bench_server_stop(&m.server, false);
    if (m.server.peak_resident_bytes > report->peak_resident_bytes)
        report->peak_resident_bytes = m.server.peak_resident_bytes;
    return status;
}

mir_status mir_bench_commands(const mir_bench_options *options, mir_bench_report *report,
                              mir_error *error)
{
    mir_status status = round_trip(options, report, error);
    if (!mir_bench_server_wanted(options, MIR_BENCH_OURS)) return status;
    return status == MIR_OK ? many_devices(options, report, error) : status;
}
