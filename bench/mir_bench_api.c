/* SPDX-License-Identifier: Apache-2.0 */
#include "mir_bench_api.h"

#include "mir_clock.h"
#include "mir_pbwire.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>
#include <zstd.h>

#include "mir_api/v1/core.pb-c.h"
#include "mir_api/v1/device.pb-c.h"
#include "mir_api/v1/tlm.pb-c.h"

enum {
    VALUE_COUNT = 4,
    PAYLOAD_BYTES = 10 + 4 + 4 + 5 + 5,
    CREATE_DEVICES_MAX = 1000,
    ID_BYTES_MAX = 32,
    HELLO_BYTES = 1 << 20, /* written at once */
};

static const int64_t introduce_timeout_ns = 60 * MIR_NS_PER_S;
static char measurement[] = "bench.v1.Env";
/* In the order of their field numbers; replies name columns in an order of their own. */
static const char *const value_names[VALUE_COUNT] = {"temperature", "humidity", "pressure",
                                                     "light"};

/* Slow readings with some noise, each within the range that its varint length needs: 2^14 to 2^21
 * are three bytes, 2^21 to 2^28 four. */
static void values_of(unsigned device, uint32_t sequence, uint32_t *values)
{
    uint64_t noise = ((uint64_t)sequence * 0x9E3779B97F4A7C15u + device) >> 40;
    values[0] = 20000 + (sequence & 1023) + (uint32_t)(noise & 7);
    values[1] = 300000 + (sequence >> 3 & 4095) + (uint32_t)(noise >> 3 & 15);
    values[2] = 3000000 + device + (uint32_t)(noise >> 7 & 255);
    values[3] = 4000000 + sequence % 100000;
}

void mir_bench_telemetry_fill(uint8_t *payload, int64_t base_ns, unsigned device, uint32_t sequence)
{
    uint32_t values[VALUE_COUNT];
    values_of(device, sequence, values);
    uint8_t *at = payload;
    *at++ = 1 << 3;
    at = mir_pbwire_write_varint(at, (uint64_t)(base_ns + (int64_t)sequence * MIR_BENCH_STEP_NS));
    for (unsigned i = 0; i < VALUE_COUNT; i++) {
        *at++ = (uint8_t)((i + 2) << 3);
        at = mir_pbwire_write_varint(at, values[i]);
    }
}

void mir_bench_telemetry_init(mir_bench_telemetry *telemetry, unsigned device)
{
    static const char header[] = "NATS/1.0\r\nmir-msg: bench.v1.Env\r\n\r\n";
    int size = snprintf((char *)telemetry->bytes, sizeof telemetry->bytes,
                        "HPUB device.bench-%u.tlm.v1alpha.proto %zu %zu\r\n%s", device,
                        sizeof header - 1, sizeof header - 1 + PAYLOAD_BYTES, header);
    telemetry->payload_at = (size_t)size;
    mir_bench_telemetry_fill(telemetry->bytes + telemetry->payload_at, mir_clock_wall_ns(), device,
                             0);
    memcpy(telemetry->bytes + telemetry->payload_at + PAYLOAD_BYTES, "\r\n", 2);
    telemetry->size = telemetry->payload_at + PAYLOAD_BYTES + 2;
}

mir_status mir_bench_api_ask(mir_bench_conn *conn, const char *subject,
                             const ProtobufCMessage *request, mir_view *reply, mir_error *error)
{
    size_t size = protobuf_c_message_get_packed_size(request);
    uint8_t *body = malloc(size + 1);
    if (body == NULL) return mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    (void)protobuf_c_message_pack(request, body);
    mir_status status =
        mir_bench_conn_request(conn, subject, mir_view_of(body, size), reply, error);
    free(body);
    return status;
}

mir_status mir_bench_api_refused(const char *subject, const char *text, mir_error *error)
{
    return mir_error_set(error, MIR_E_INVALID, "%s was refused: %s", subject,
                         text != NULL ? text : "not a reply");
}

static mir_status query(mir_bench_conn *conn, char *id, int64_t from_ns, int64_t to_ns,
                        MirApi__V1__QueryTelemetryResponse **response, mir_error *error)
{
    static const char subject[] = "client.bench.tlm.v1alpha.query";
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__Timestamp from = MIR_API__V1__TIMESTAMP__INIT, to = MIR_API__V1__TIMESTAMP__INIT;
    MirApi__V1__QueryTelemetryRequest request = MIR_API__V1__QUERY_TELEMETRY_REQUEST__INIT;
    char *ids[] = {id};
    target.n_ids = id != NULL ? 1 : 0;
    target.ids = ids;
    from.has_seconds = from.has_nanos = to.has_seconds = to.has_nanos = 1;
    from.seconds = from_ns / MIR_NS_PER_S;
    from.nanos = (int32_t)(from_ns % MIR_NS_PER_S);
    to.seconds = to_ns / MIR_NS_PER_S;
    to.nanos = (int32_t)(to_ns % MIR_NS_PER_S);
    request.targets = &target;
    request.measurement = measurement;
    request.start_time = &from;
    request.end_time = &to;
    mir_view reply;
    mir_status status = mir_bench_api_ask(conn, subject, &request.base, &reply, error);
    if (status != MIR_OK) return status;
    MirApi__V1__QueryTelemetryResponse *got =
        mir_api__v1__query_telemetry_response__unpack(NULL, reply.size, reply.data);
    if (got == NULL || got->response_case != MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_OK) {
        bool has_text = got != NULL &&
                        got->response_case == MIR_API__V1__QUERY_TELEMETRY_RESPONSE__RESPONSE_ERROR;
        status = mir_bench_api_refused(subject, has_text ? got->error : NULL, error);
        if (got != NULL) mir_api__v1__query_telemetry_response__free_unpacked(got, NULL);
        return status;
    }
    *response = got;
    return MIR_OK;
}

static mir_status append_hello(mir_bytes *out, unsigned device, mir_view body, mir_error *error)
{
    static const char header[] =
        "NATS/1.0\r\nmir-content: mir-hello\r\nmir-content-encoding: mir-zstd\r\n\r\n";
    mir_bytes_printf(out, "HPUB device.bench-%u.core.v1alpha.hearthbeat %zu %zu\r\n%s", device,
                     sizeof header - 1, sizeof header - 1 + body.size, header);
    mir_bytes_view(out, body);
    mir_bytes_text(out, "\r\n");
    return mir_bytes_ok(out) ? MIR_OK : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
}

static mir_status pack_hello(mir_bytes *body, mir_error *error)
{
    MirApi__V1__DeviceHelloContent content = MIR_API__V1__DEVICE_HELLO_CONTENT__INIT;
    MirApi__V1__DeviceHello hello = MIR_API__V1__DEVICE_HELLO__INIT;
    content.has_schema = 1;
    content.schema.data = (uint8_t *)mir_bench_schema;
    content.schema.len = mir_bench_schema_size;
    hello.response_case = MIR_API__V1__DEVICE_HELLO__RESPONSE_HELLO;
    hello.hello = &content;
    size_t size = protobuf_c_message_get_packed_size(&hello.base);
    uint8_t *plain = malloc(size);
    uint8_t *packed = mir_bytes_reserve(body, ZSTD_compressBound(size));
    mir_status status = MIR_OK;
    if (plain == NULL || packed == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        goto out;
    }
    (void)protobuf_c_message_pack(&hello.base, plain);
    size_t packed_size = ZSTD_compress(packed, ZSTD_compressBound(size), plain, size, 3);
    if (ZSTD_isError(packed_size)) {
        status = mir_error_set(error, MIR_E_INVALID, "zstd: %s", ZSTD_getErrorName(packed_size));
        goto out;
    }
    body->size += packed_size;
out:
    free(plain);
    return status;
}

mir_status mir_bench_api_hello(mir_bench_conn *conn, unsigned device_count, mir_error *error)
{
    mir_bytes body = {0}, out = {0};
    mir_status status = pack_hello(&body, error);
    for (unsigned i = 0; i < device_count && status == MIR_OK; i++) {
        status = append_hello(&out, i, mir_bytes_as_view(&body), error);
        if (status != MIR_OK || (out.size < HELLO_BYTES && i + 1 < device_count)) continue;
        status = mir_bench_conn_write(conn, out.data, out.size, error);
        out.size = 0;
    }
    if (status == MIR_OK) status = mir_bench_conn_flush(conn, error);
    mir_bytes_free(&body);
    mir_bytes_free(&out);
    return status;
}

mir_status mir_bench_api_beat(mir_bench_conn *conn, unsigned device_count, mir_error *error)
{
    mir_bytes out = {0};
    for (unsigned i = 0; i < device_count; i++)
        mir_bytes_printf(&out, "PUB device.bench-%u.core.v1alpha.hearthbeat 0\r\n\r\n", i);
    mir_status status = mir_bytes_ok(&out) ? mir_bench_conn_write(conn, out.data, out.size, error)
                                           : mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK) status = mir_bench_conn_flush(conn, error);
    mir_bytes_free(&out);
    return status;
}

mir_status mir_bench_api_introduce(mir_bench_conn *conn, unsigned device_count, int64_t base_ns,
                                   mir_error *error)
{
    mir_bytes out = {0};
    mir_bench_telemetry telemetry;
    mir_status status = mir_bench_api_hello(conn, device_count, error);
    for (unsigned i = 0; i < device_count && status == MIR_OK; i++) {
        mir_bench_telemetry_init(&telemetry, i);
        mir_bench_telemetry_fill(telemetry.bytes + telemetry.payload_at, base_ns, i, 0);
        mir_bytes_append(&out, telemetry.bytes, telemetry.size);
    }
    if (status == MIR_OK && !mir_bytes_ok(&out))
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
    if (status == MIR_OK) status = mir_bench_conn_write(conn, out.data, out.size, error);
    if (status == MIR_OK) status = mir_bench_conn_flush(conn, error);
    mir_bytes_free(&out);

    size_t rows = 0;
    int64_t until_ns = mir_clock_mono_ns() + introduce_timeout_ns;
    while (status == MIR_OK && rows < device_count && mir_clock_mono_ns() < until_ns) {
        MirApi__V1__QueryTelemetryResponse *response;
        mir_error refusal = {0};
        mir_status asked =
            query(conn, NULL, base_ns, base_ns + MIR_BENCH_STEP_NS, &response, &refusal);
        if (asked == MIR_OK) {
            rows = response->ok->n_rows;
            mir_api__v1__query_telemetry_response__free_unpacked(response, NULL);
        } else if (asked != MIR_E_INVALID) {
            *error = refusal;
            status = asked;
        }
        if (rows < device_count) {
            struct timespec wait = {.tv_nsec = 20 * MIR_NS_PER_MS};
            (void)nanosleep(&wait, NULL);
        }
    }
    if (status == MIR_OK && rows != device_count)
        status = mir_error_set(error, MIR_E_TIMEOUT,
                               "%zu rows of %u devices were readable after their first telemetry",
                               rows, device_count);
    return status;
}

typedef struct columns {
    size_t value_at[VALUE_COUNT];
} columns;

static bool find_columns(const MirApi__V1__QueryTelemetry *table, columns *found)
{
    for (size_t v = 0; v < VALUE_COUNT; v++) {
        size_t at = 0;
        while (at < table->n_headers && strcmp(table->headers[at], value_names[v]) != 0) at++;
        if (at == table->n_headers) return false;
        found->value_at[v] = at;
    }
    return true;
}

static bool row_is(const MirApi__V1__QueryTelemetry__Row *row, const columns *found,
                   int64_t base_ns, unsigned device, uint32_t sequence)
{
    uint32_t values[VALUE_COUNT];
    values_of(device, sequence, values);
    if (row->n_datapoints < 2 + VALUE_COUNT) return false;
    const MirApi__V1__Timestamp *time = row->datapoints[0]->value_timestamp;
    if (time == NULL || time->seconds * MIR_NS_PER_S + time->nanos !=
                            base_ns + (int64_t)sequence * MIR_BENCH_STEP_NS)
        return false;
    for (size_t v = 0; v < VALUE_COUNT; v++) {
        if (found->value_at[v] >= row->n_datapoints) return false;
        const MirApi__V1__QueryTelemetry__Row__DataPoint *point =
            row->datapoints[found->value_at[v]];
        if (!point->has_value_int64 || point->value_int64 != (int64_t)values[v]) return false;
    }
    return true;
}

mir_status mir_bench_api_verify(mir_bench_conn *conn, unsigned device, int64_t base_ns,
                                uint32_t sent, uint32_t *stored, mir_error *error)
{
    char id[ID_BYTES_MAX];
    (void)snprintf(id, sizeof id, "bench-%u", device);
    uint32_t rows = 0;
    for (uint32_t from = 0; from <= sent; from += MIR_BENCH_QUERY_ROWS) {
        MirApi__V1__QueryTelemetryResponse *response;
        int64_t from_ns = base_ns + (int64_t)from * MIR_BENCH_STEP_NS;
        mir_status status =
            query(conn, id, from_ns, from_ns + (int64_t)MIR_BENCH_QUERY_ROWS * MIR_BENCH_STEP_NS,
                  &response, error);
        if (status != MIR_OK) return status;
        const MirApi__V1__QueryTelemetry *table = response->ok;
        columns found;
        if (table->n_rows > 0 && !find_columns(table, &found))
            status = mir_error_set(error, MIR_E_CORRUPT, "a query misses columns");
        for (size_t i = 0; i < table->n_rows && status == MIR_OK; i++) {
            if (row_is(table->rows[i], &found, base_ns, device, from + (uint32_t)i)) continue;
            status = mir_error_set(error, MIR_E_CORRUPT,
                                   "row %zu of %s is missing or not what was sent", from + i, id);
        }
        rows += (uint32_t)table->n_rows;
        mir_api__v1__query_telemetry_response__free_unpacked(response, NULL);
        if (status != MIR_OK) return status;
    }
    *stored = rows;
    return MIR_OK;
}

mir_status mir_bench_api_visible(mir_bench_conn *conn, unsigned device, int64_t base_ns,
                                 uint32_t sequence, mir_error *error)
{
    char id[ID_BYTES_MAX];
    MirApi__V1__QueryTelemetryResponse *response;
    columns found;
    (void)snprintf(id, sizeof id, "bench-%u", device);
    int64_t from_ns = base_ns + (int64_t)sequence * MIR_BENCH_STEP_NS;
    mir_status status = query(conn, id, from_ns, from_ns + MIR_BENCH_STEP_NS, &response, error);
    if (status != MIR_OK) return status;
    const MirApi__V1__QueryTelemetry *table = response->ok;
    if (table->n_rows != 1 || !find_columns(table, &found) ||
        !row_is(table->rows[0], &found, base_ns, device, sequence))
        status = mir_error_set(error, MIR_E_CORRUPT,
                               "telemetry of %s that a PONG covered could not be read at once", id);
    mir_api__v1__query_telemetry_response__free_unpacked(response, NULL);
    return status;
}

typedef struct new_device {
    MirApi__V1__NewDevice device;
    MirApi__V1__Meta meta;
    MirApi__V1__DeviceSpec spec;
    MirApi__V1__Meta__LabelsEntry labels[2];
    MirApi__V1__Meta__LabelsEntry *label_list[2];
    char id[ID_BYTES_MAX];
    char group[ID_BYTES_MAX];
    char floor[ID_BYTES_MAX];
} new_device;

static char label_group[] = "group", label_floor[] = "floor", name_space[] = "plant";

static void describe(new_device *made, unsigned number)
{
    mir_api__v1__new_device__init(&made->device);
    mir_api__v1__meta__init(&made->meta);
    mir_api__v1__device_spec__init(&made->spec);
    (void)snprintf(made->id, sizeof made->id, "pump-%u", number);
    (void)snprintf(made->group, sizeof made->group, "g%u", number / MIR_BENCH_LABEL_HITS);
    (void)snprintf(made->floor, sizeof made->floor, "%u", number % 7);
    for (size_t i = 0; i < 2; i++) {
        mir_api__v1__meta__labels_entry__init(&made->labels[i]);
        made->labels[i].key = i == 0 ? label_group : label_floor;
        made->labels[i].value = i == 0 ? made->group : made->floor;
        made->label_list[i] = &made->labels[i];
    }
    made->meta.name = made->id;
    made->meta.namespace_ = name_space;
    made->meta.n_labels = 2;
    made->meta.labels = made->label_list;
    made->spec.device_id = made->id;
    made->device.meta = &made->meta;
    made->device.spec = &made->spec;
}

mir_status mir_bench_api_create(mir_bench_conn *conn, unsigned first, unsigned count,
                                mir_error *error)
{
    static const char subject[] = "client.bench.core.v1alpha.creates";
    if (count > CREATE_DEVICES_MAX)
        return mir_error_set(error, MIR_E_TOO_LARGE, "at most %d at once", CREATE_DEVICES_MAX);
    new_device *made = calloc(count, sizeof *made);
    MirApi__V1__NewDevice **list = calloc(count, sizeof *list);
    mir_status status = MIR_OK;
    MirApi__V1__CreateDevicesResponse *response = NULL;
    if (made == NULL || list == NULL) {
        status = mir_error_set(error, MIR_E_NO_MEMORY, "out of memory");
        goto out;
    }
    for (unsigned i = 0; i < count; i++) {
        describe(&made[i], first + i);
        list[i] = &made[i].device;
    }
    MirApi__V1__CreateDevicesRequest request = MIR_API__V1__CREATE_DEVICES_REQUEST__INIT;
    request.n_devices = count;
    request.devices = list;
    mir_view reply;
    status = mir_bench_api_ask(conn, subject, &request.base, &reply, error);
    if (status != MIR_OK) goto out;
    response = mir_api__v1__create_devices_response__unpack(NULL, reply.size, reply.data);
    if (response == NULL)
        status = mir_bench_api_refused(subject, NULL, error);
    else if (response->response_case != MIR_API__V1__CREATE_DEVICES_RESPONSE__RESPONSE_OK)
        status = mir_bench_api_refused(subject, response->error, error);
    else if (response->ok->n_devices != count)
        status = mir_error_set(error, MIR_E_INVALID, "%zu of %u devices were created",
                               response->ok->n_devices, count);
out:
    if (response != NULL) mir_api__v1__create_devices_response__free_unpacked(response, NULL);
    free(made);
    free(list);
    return status;
}

static mir_status list(mir_bench_conn *conn, MirApi__V1__DeviceTarget *target,
                       MirApi__V1__ListDeviceResponse **response, int64_t *wall_ns,
                       mir_error *error)
{
    static const char subject[] = "client.bench.core.v1alpha.list";
    MirApi__V1__ListDeviceRequest request = MIR_API__V1__LIST_DEVICE_REQUEST__INIT;
    request.targets = target;
    mir_view reply;
    int64_t from_ns = mir_clock_mono_ns();
    mir_status status = mir_bench_api_ask(conn, subject, &request.base, &reply, error);
    *wall_ns = mir_clock_mono_ns() - from_ns;
    if (status != MIR_OK) return status;
    MirApi__V1__ListDeviceResponse *got =
        mir_api__v1__list_device_response__unpack(NULL, reply.size, reply.data);
    if (got == NULL) return mir_bench_api_refused(subject, NULL, error);
    if (got->response_case != MIR_API__V1__LIST_DEVICE_RESPONSE__RESPONSE_OK) {
        status = mir_bench_api_refused(
            subject,
            got->response_case == MIR_API__V1__LIST_DEVICE_RESPONSE__RESPONSE_ERROR ? got->error
                                                                                    : NULL,
            error);
        mir_api__v1__list_device_response__free_unpacked(got, NULL);
        return status;
    }
    *response = got;
    return MIR_OK;
}

mir_status mir_bench_api_list_group(mir_bench_conn *conn, unsigned group, size_t *found,
                                    int64_t *wall_ns, mir_error *error)
{
    char value[ID_BYTES_MAX];
    (void)snprintf(value, sizeof value, "g%u", group);
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__DeviceTarget__LabelsEntry label = MIR_API__V1__DEVICE_TARGET__LABELS_ENTRY__INIT;
    MirApi__V1__DeviceTarget__LabelsEntry *labels[] = {&label};
    MirApi__V1__ListDeviceResponse *response;
    label.key = label_group;
    label.value = value;
    target.n_labels = 1;
    target.labels = labels;
    mir_status status = list(conn, &target, &response, wall_ns, error);
    if (status != MIR_OK) return status;
    *found = response->ok->n_devices;
    mir_api__v1__list_device_response__free_unpacked(response, NULL);
    return MIR_OK;
}

mir_status mir_bench_api_online(mir_bench_conn *conn, char **ids, size_t id_count, size_t *online,
                                mir_error *error)
{
    MirApi__V1__DeviceTarget target = MIR_API__V1__DEVICE_TARGET__INIT;
    MirApi__V1__ListDeviceResponse *response;
    int64_t wall_ns;
    target.n_ids = id_count;
    target.ids = ids;
    mir_status status = list(conn, &target, &response, &wall_ns, error);
    if (status != MIR_OK) return status;
    *online = 0;
    for (size_t i = 0; i < response->ok->n_devices; i++) {
        const MirApi__V1__DeviceStatus *state = response->ok->devices[i]->status;
        if (state != NULL && state->online) (*online)++;
    }
    mir_api__v1__list_device_response__free_unpacked(response, NULL);
    return MIR_OK;
}
