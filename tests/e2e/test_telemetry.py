# SPDX-License-Identifier: Apache-2.0
"""Telemetry from the device's message to the client's table: what is listed, what is answered."""

import contextlib
import itertools
import math
import os
import shutil
import time

import pytest
from bus import DEADLINE_S, NO_RESPONDERS, PULL, SERVICES, Refused, api, schema_of, seconds_ago, unzstd, zstd
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from wire import wait_until

UNKNOWN = "no device found with current targets criteria"
START_NS = 1_700_000_000_000_000_000
SECOND_NS = 1_000_000_000

SAMPLES = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Sample {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    option (mir.device.v1.meta) = { tags { key: "site" value: "roof" } };
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double temperature = 2 [(mir.device.v1.field_meta) = { unit: "C" tags { key: "side" value: "north" } }];
    int32 pressure = 3 [(mir.device.v1.field_meta) = { unit: "hPa" }];
    string note = 4;
    bool raining = 5;
}

message Wind {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    Vector vector = 2;
    repeated int32 gusts = 3 [(mir.device.v1.field_meta) = { unit: "kn" }];
}

message Vector {
    float speed = 1 [(mir.device.v1.field_meta) = { unit: "m/s" }];
    float direction = 2;
}

message Reset {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND;
    int32 delay = 1;
}
"""

SCALARS = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

enum Mode { MODE_UNSPECIFIED = 0; MODE_AUTO = 7; }

message All {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    sfixed64 p_sfixed64 = 2;
    int32 b_int32 = 3;
    int64 c_int64 = 4;
    sint32 d_sint32 = 5;
    sint64 e_sint64 = 6;
    uint32 f_uint32 = 7;
    uint64 g_uint64 = 8;
    fixed32 h_fixed32 = 9;
    fixed64 i_fixed64 = 10;
    sfixed32 j_sfixed32 = 11;
    float k_float = 12;
    double l_double = 13;
    bool m_bool = 14;
    string n_string = 15;
    Mode o_mode = 16;
}

message Some {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    optional int32 count = 2;
    optional double level = 3;
    optional bool open = 4;
    optional string text = 5;
}
"""

CHANGING = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message T {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    VALUE v = 2;
}
"""

MEMBERS = {"DATA_TYPE_INT64": "value_int64", "DATA_TYPE_UINT64": "value_uint64", "DATA_TYPE_DOUBLE": "value_double",
           "DATA_TYPE_BOOL": "value_bool", "DATA_TYPE_STRING": "value_string",
           "DATA_TYPE_TIMESTAMP": "value_timestamp"}


class Kind:
    """A device schema under a package of its own, and messages of it."""

    def __init__(self, text, package):
        self.package = package
        self.set = schema_of(text.replace("PACKAGE", package), f"{package}.proto")
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(self.set).file:
            pool.Add(file)
        self.pool, self.factory = pool, message_factory.MessageFactory(pool)

    def name(self, short):
        return f"{self.package}.v1.{short}"

    def __getattr__(self, short):
        if short.startswith("_"):
            raise AttributeError(short)
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(self.name(short)))


def has_schema(bus, device):
    found = bus.device(device)
    return found is not None and found.status.schema.compressed_schema != b""


def launch_device(bus, device, kind):
    bus.hello(device, kind.set)
    wait_until(lambda: has_schema(bus, device), DEADLINE_S, f"schema of {device}")


def report(bus, device, *messages, flush=True):
    for message in messages:
        headers = {"mir-msg": message.DESCRIPTOR.full_name}
        bus.publish(f"device.{device}.tlm.v1alpha.proto", message.SerializeToString(), headers=headers)
    if flush:
        bus.flush()


def stamp(time_ns):
    return {"seconds": time_ns // SECOND_NS, "nanos": time_ns % SECOND_NS}


def query(bus, device, measurement, first=START_NS, last=START_NS + 3600 * SECOND_NS, **more):
    devices = [device] if isinstance(device, str) else device
    return bus.ask("tlm.query", targets={"ids": devices}, measurement=measurement, start_time=stamp(first),
                   end_time=stamp(last), **more)


def value(table, column, point):
    datatype = api.pool.FindEnumTypeByName("mir_api.v1.DataType").values_by_number[table.datatypes[column]].name
    fields = [field.name for field, _ in point.ListFields()]
    if not fields:
        return None
    assert fields == [MEMBERS[datatype]]
    got = getattr(point, fields[0])
    return got.seconds * SECOND_NS + got.nanos if column == 0 else got


def rows_of(table):
    assert len(table.units) == len(table.datatypes) == len(table.headers)
    rows = []
    for row in table.rows:
        assert len(row.datapoints) == len(table.headers)
        rows.append([value(table, column, point) for column, point in enumerate(row.datapoints)])
    return rows


def types_of(table):
    names = api.pool.FindEnumTypeByName("mir_api.v1.DataType").values_by_number
    return [names[number].name.removeprefix("DATA_TYPE_") for number in table.datatypes]


def listed(bus, devices, **more):
    return list(bus.ask("tlm.list", targets={"ids": devices}, **more).devices_telemetry)


@pytest.fixture
def weather(name):
    return Kind(SAMPLES, f"weather_{name}")


def samples(kind, count, first=START_NS):
    return [kind.Sample(ts=first + n * SECOND_NS, temperature=20 + n / 8, pressure=1000 + n, note=f"n{n}",
                        raining=n % 2 == 1) for n in range(count)]


# --- query ---


def test_query_gives_one_row_per_message(bus, name, weather):
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 5))
    table = query(bus, name, weather.name("Sample"))
    assert list(table.headers) == ["_time", "__id", "note", "pressure", "raining", "temperature"]
    assert types_of(table) == ["TIMESTAMP", "STRING", "STRING", "INT64", "BOOL", "DOUBLE"]
    assert list(table.units) == ["RFC3339", "", "", "hPa", "", "C"]
    assert rows_of(table) == [[START_NS + n * SECOND_NS, name, f"n{n}", 1000 + n, n % 2 == 1, 20 + n / 8]
                              for n in range(5)]


def test_rows_are_there_when_the_server_says_pong(bus, name, weather):
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 1))
    for n in range(1, 50):
        report(bus, name, *samples(weather, 1, START_NS + n * SECOND_NS))
        assert len(query(bus, name, weather.name("Sample")).rows) == n + 1


def test_rows_that_come_before_the_schema_is_known_are_kept(bus, name, weather):
    bus.create(name)
    bus.hello(name, weather.set)
    report(bus, name, *samples(weather, 3))
    wait_until(lambda: len(query(bus, name, weather.name("Sample")).rows) == 3, DEADLINE_S, "three rows")


def upload(bus, device, schema, fetched_s):
    """The schema comes from a client, not from the device."""
    schema = {"compressed_schema": zstd(schema), "package_names": ["any"], "last_schema_fetch": {"seconds": fetched_s}}
    bus.ask("core.update", targets={"ids": [device]}, status={"schema": schema})


def await_rows(bus, device, measurement, count):
    wait_until(lambda: len(query(bus, device, measurement).rows) >= count, DEADLINE_S, f"{count} rows of {measurement}")
    assert len(query(bus, device, measurement).rows) == count


def test_what_a_new_device_sends_right_behind_its_hello_is_there_with_the_pong(bus, connect, server, name, weather):
    # On another connection, so that its shard is sometimes that of the devices and sometimes not.
    fleet = connect(server)
    for n in range(12):
        device = f"{name}-{n}"
        rows = samples(weather, 300)
        rows += [weather.Sample(ts=START_NS + (300 + i) * SECOND_NS, note="x" * 65536) for i in range(3)]
        fleet.hello(device, weather.set, flush=False)
        report(fleet, device, *rows)
        assert len(rows_of(query(bus, device, weather.name("Sample")))) == 303
        assert not bus.device(device).status.problems


def test_telemetry_brings_the_schema_of_a_device_that_said_no_hello(bus, connect, server, name, weather):
    bus.create(name)
    device = connect.device(server, name, schema=weather.set)
    sample, wind = samples(weather, 3), [weather.Wind(ts=START_NS + n, gusts=[n]) for n in range(2)]
    report(bus, name, sample[0], wind[0], sample[1], wind[1], sample[2])
    await_rows(bus, name, weather.name("Sample"), 3)
    await_rows(bus, name, weather.name("Wind"), 2)
    schema = bus.device(name).status.schema
    assert unzstd(schema.compressed_schema) == weather.set
    assert -1 < seconds_ago(schema.last_schema_fetch) < 60
    assert len(device.asked) == 1 and bus.kinds(name) == ["devicecreated", "deviceupdated"]


def test_telemetry_goes_by_a_stored_schema_without_asking_the_device(bus, connect, server, name, weather):
    bus.create(name)
    upload(bus, name, weather.set, 1_600_000_000)
    device = connect.device(server, name, schema=weather.set)
    report(bus, name, *samples(weather, 5))
    await_rows(bus, name, weather.name("Sample"), 5)
    assert device.asked == []
    assert bus.device(name).status.schema.last_schema_fetch.seconds == 1_600_000_000


def test_telemetry_replaces_a_wrong_schema_by_that_of_the_device(bus, connect, server, name, weather, pump):
    bus.create(name)
    upload(bus, name, pump, 1_600_000_000)
    connect.device(server, name, schema=weather.set)
    report(bus, name, *samples(weather, 5))
    await_rows(bus, name, weather.name("Sample"), 5)
    schema = bus.device(name).status.schema
    assert unzstd(schema.compressed_schema) == weather.set
    assert -1 < seconds_ago(schema.last_schema_fetch) < 60


def test_labels_that_change_in_flight_cost_no_rows(bus, connect, server, name, weather):
    device = connect.device(server, name, schema=weather.set)
    launch_device(bus, name, weather)
    rows, answers = 400, []
    for n in range(rows):
        if n % 20 == 0:
            labels = {"labels": {"turn": api.OptString(value=str(n))}}
            request = api.UpdateDeviceRequest(targets={"ids": [name]}, meta=labels)
            answers.append(bus.answer_name())
            bus.send("core.update", request.SerializeToString(), answers[-1])
        report(bus, name, weather.Sample(ts=START_NS + n), flush=False)
    bus.flush()
    for answer in answers:
        assert not api.UpdateDeviceResponse.FromString(bus.answer(answer)[1].data).error
    await_rows(bus, name, weather.name("Sample"), rows)
    times = [row[0] for row in rows_of(query(bus, name, weather.name("Sample")))]
    assert times == list(range(START_NS, START_NS + rows))
    # Every change is told with its labels; of those that were made at once the number says which was last.
    events = sorted(bus.events(name, "deviceupdated")[1:], key=lambda event: int(event.headers["mir-event-sequence"]))
    told = [event.payload["meta"]["labels"]["turn"] for event in events]
    assert sorted(map(int, told)) == list(range(0, rows, 20))
    assert bus.device(name).meta.labels["turn"] == told[-1] and device.asked == []


def test_query_of_some_fields(bus, name, weather):
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 2))
    table = query(bus, name, weather.name("Sample"), fields=["temperature", "pressure", "absent"])
    assert list(table.headers) == ["_time", "__id", "pressure", "temperature"]
    assert list(table.units) == ["RFC3339", "", "hPa", "C"]
    assert [row[2:] for row in rows_of(table)] == [[1000, 20.0], [1001, 20.125]]


def test_query_interleaves_devices_by_time(bus, name, weather):
    devices = [f"{name}-{n}" for n in range(3)]
    for device in devices:
        launch_device(bus, device, weather)
    for n in range(12):
        report(bus, devices[n % 3], *samples(weather, 1, START_NS + n), flush=False)
    bus.flush()
    rows = rows_of(query(bus, devices, weather.name("Sample")))
    assert [row[:2] for row in rows] == [[START_NS + n, devices[n % 3]] for n in range(12)]
    rows = rows_of(query(bus, devices[1], weather.name("Sample")))
    assert {row[1] for row in rows} == {devices[1]}


def test_the_range_counts_nanoseconds(bus, name, weather):
    launch_device(bus, name, weather)
    for n in range(5):
        report(bus, name, *samples(weather, 1, START_NS + n))
    rows = rows_of(query(bus, name, weather.name("Sample"), START_NS + 1, START_NS + 4))
    assert [row[0] for row in rows] == [START_NS + 1, START_NS + 2, START_NS + 3]


def test_the_last_hour_unless_told_otherwise(bus, name, weather):
    launch_device(bus, name, weather)
    now = time.time_ns()
    ages_s = [7200, 3500, 10]
    for age_s in ages_s:
        report(bus, name, *samples(weather, 1, now - age_s * SECOND_NS))
    report(bus, name, *samples(weather, 1, now + 3600 * SECOND_NS))
    ask = {"targets": {"ids": [name]}, "measurement": weather.name("Sample")}
    table = bus.ask("tlm.query", **ask)
    assert [row[0] for row in rows_of(table)] == [now - age_s * SECOND_NS for age_s in ages_s[1:]]
    table = bus.ask("tlm.query", start_time=stamp(now - 8000 * SECOND_NS), **ask)
    assert len(table.rows) == 3
    # The zero time of Go, and one far beyond what nanoseconds can tell.
    table = bus.ask("tlm.query", start_time={"seconds": -62135596800}, end_time={"seconds": 1 << 60}, **ask)
    assert len(table.rows) == 4


def test_all_scalar_types(bus, name):
    kind = Kind(SCALARS, f"scalars_{name}")
    launch_device(bus, name, kind)
    low = dict(b_int32=-(1 << 31), c_int64=-(1 << 63), d_sint32=-(1 << 31), e_sint64=-(1 << 63), f_uint32=0,
               g_uint64=0, h_fixed32=0, i_fixed64=0, j_sfixed32=-(1 << 31), k_float=-1.5, l_double=-1e300,
               m_bool=False, n_string="", o_mode=0, p_sfixed64=-(1 << 63))
    high = dict(b_int32=(1 << 31) - 1, c_int64=(1 << 63) - 1, d_sint32=(1 << 31) - 1, e_sint64=(1 << 63) - 1,
                f_uint32=(1 << 32) - 1, g_uint64=(1 << 64) - 1, h_fixed32=(1 << 32) - 1, i_fixed64=(1 << 64) - 1,
                j_sfixed32=(1 << 31) - 1, k_float=0.25, l_double=0.1, m_bool=True,
                n_string="größer \"than\"\n, =\\", o_mode=7, p_sfixed64=(1 << 63) - 1)
    odd = {**high, "k_float": -math.inf, "l_double": math.inf}
    report(bus, name, *(kind.All(ts=START_NS + n, **values) for n, values in enumerate([low, high, odd])))
    table = query(bus, name, kind.name("All"))
    assert list(table.headers) == ["_time", "__id", *sorted(low)]
    assert types_of(table)[2:] == ["INT64"] * 4 + ["UINT64"] * 4 + ["INT64", "DOUBLE", "DOUBLE", "BOOL", "STRING",
                                                                   "UINT64", "INT64"]
    for row, sent in zip(rows_of(table), [low, high, odd], strict=True):
        assert dict(zip(table.headers[2:], row[2:], strict=True)) == sent


def test_not_a_number(bus, name):
    kind = Kind(SCALARS, f"scalars_{name}")
    launch_device(bus, name, kind)
    report(bus, name, kind.Some(ts=START_NS, level=math.nan))
    assert math.isnan(rows_of(query(bus, name, kind.name("Some")))[0][2])


def test_optional_fields_that_are_not_set_are_empty(bus, name):
    kind = Kind(SCALARS, f"optional_{name}")
    launch_device(bus, name, kind)
    report(bus, name, kind.Some(ts=START_NS + 2, text="late"), kind.Some(ts=START_NS, count=0, level=0.0),
           kind.Some(ts=START_NS + 1, open=False, count=4))
    table = query(bus, name, kind.name("Some"))
    assert list(table.headers) == ["_time", "__id", "count", "level", "open", "text"]
    assert [row[2:] for row in rows_of(table)] == [
        [0, 0.0, None, None], [4, None, False, None], [None, None, None, "late"]]


def test_units_reach_nested_fields_and_elements(bus, name, weather):
    launch_device(bus, name, weather)
    report(bus, name, weather.Wind(ts=START_NS, vector={"speed": 2.5, "direction": 90}, gusts=[7, 9]))
    table = query(bus, name, weather.name("Wind"))
    assert list(table.headers) == ["_time", "__id", "gusts_0", "gusts_1", "vector.direction", "vector.speed"]
    assert list(table.units) == ["RFC3339", "", "kn", "kn", "", "m/s"]
    assert rows_of(table) == [[START_NS, name, 7, 9, 90.0, 2.5]]


def test_windows(bus, name, weather):
    other = f"{name}-other"
    launch_device(bus, name, weather)
    launch_device(bus, other, weather)
    base = START_NS // (60 * SECOND_NS) * 60 * SECOND_NS
    minute = 60 * SECOND_NS
    for n, pressure in [(0, 10), (59, 13), (60, 20), (180, 40), (185, 41)]:
        report(bus, name, weather.Sample(ts=base + n * SECOND_NS, pressure=pressure, temperature=n))
    report(bus, other, weather.Sample(ts=base + 30 * SECOND_NS, pressure=1))
    table = query(bus, name, weather.name("Sample"), base, base + 200 * SECOND_NS, aggregation_window="1m")
    # Texts and truth values have no mean; the third minute has no rows; the last is cut by the end.
    assert list(table.headers) == ["_time", "__id", "pressure", "temperature"]
    assert types_of(table)[2:] == ["DOUBLE", "DOUBLE"]
    assert list(table.units)[2:] == ["hPa", "C"]
    assert rows_of(table) == [[base + minute, name, 11.5, 29.5], [base + 2 * minute, name, 20.0, 60.0],
                              [base + 200 * SECOND_NS, name, 40.5, 182.5]]
    same = query(bus, name, weather.name("Sample"), base, base + 200 * SECOND_NS, aggregation_window="30s30000ms")
    assert same == table
    both = query(bus, [name, other], weather.name("Sample"), base, base + minute, aggregation_window="1m")
    assert rows_of(both) == [[base + minute, name, 11.5, 29.5], [base + minute, other, 1.0, 0.0]]
    raw = query(bus, name, weather.name("Sample"), base, base + minute, aggregation_window="")
    assert types_of(raw)[2:] == ["STRING", "INT64", "BOOL", "DOUBLE"]
    longest = query(bus, name, weather.name("Sample"), base, base + 200 * SECOND_NS,
                    aggregation_window="9223372036854775807ns")
    assert rows_of(longest) == [[base + 200 * SECOND_NS, name, 24.8, 96.8]]


@pytest.mark.parametrize("window", ["soon", "10", "1.5s", "-1m", "0s", "1mo", "1y", "99999999w"])
def test_windows_that_are_none(bus, name, window):
    bus.create(name)
    with pytest.raises(Refused, match=f"^invalid aggregation window '{window}': "):
        query(bus, name, "any.v1.Message", aggregation_window=window)


def test_nothing_to_answer(bus, name, weather):
    launch_device(bus, name, weather)
    for measurement in (weather.name("Sample"), "no.such.Message", ""):
        table = query(bus, name, measurement)
        assert len(table.headers) == len(table.units) == len(table.datatypes) == len(table.rows) == 0


def test_a_range_that_ends_before_it_begins(bus, name):
    bus.create(name)
    for last in (START_NS, START_NS - 1):
        with pytest.raises(Refused, match="start time is not before the end time"):
            query(bus, name, "any.v1.Message", START_NS, last)


def test_query_of_an_unknown_device(bus, name):
    with pytest.raises(Refused) as refused:
        query(bus, name, "any.v1.Message")
    assert str(refused.value) == UNKNOWN


def test_a_field_of_two_types_has_two_columns(bus, name):
    before, after = (Kind(CHANGING.replace("VALUE", kind), f"changing_{name}") for kind in ("int32", "string"))
    launch_device(bus, name, before)
    report(bus, name, before.T(ts=START_NS, v=5))
    bus.hello(name, after.set)

    later = itertools.count(START_NS + 1)

    def arrived():
        # Until the server has read the new schema the text is no number, which counts as 0.
        report(bus, name, after.T(ts=next(later), v="five"))
        table = query(bus, name, before.name("T"))
        return table if len(table.headers) == 4 else None

    table = wait_until(arrived, DEADLINE_S, "the second type")
    assert list(table.headers) == ["_time", "__id", "v", "v"]
    assert types_of(table)[2:] == ["INT64", "STRING"]
    rows = rows_of(table)
    assert [rows[0][2:], rows[-1][2:]] == [[5, None], [None, "five"]]


def test_an_answer_that_does_not_fit(shared, connect, name, weather):
    bus = connect(shared({"limits.max_payload": "64KiB"}))
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 2000))
    with pytest.raises(Refused, match="larger than a message may be .* shorter time, fewer devices, fewer fields"):
        query(bus, name, weather.name("Sample"))
    assert len(query(bus, name, weather.name("Sample"), fields=["pressure"],
                     last=START_NS + 1000 * SECOND_NS).rows) == 1000
    assert len(query(bus, name, weather.name("Sample"), aggregation_window="1m").rows) == 34
    report(bus, name, *samples(weather, 2500, START_NS + 2000 * SECOND_NS))
    with pytest.raises(Refused, match="larger than [0-9]+ rows: .* shorter time, fewer devices, fewer fields"):
        query(bus, name, weather.name("Sample"), last=START_NS + 5000 * SECOND_NS)


def test_requests_that_are_no_messages(bus):
    for function in ("tlm.list", "tlm.query"):
        response = getattr(api, SERVICES[function][1]).FromString(bus.raw(function, b"\xff\xff\xff").data)
        assert response.WhichOneof("response") == "error" and response.error != ""


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_a_restart_keeps_the_data(launch, connect, name, weather, how):
    server = launch()
    bus = connect(server)
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 300))
    before = query(bus, name, weather.name("Sample"))
    assert len(before.rows) == 300
    getattr(server, how)()
    bus.close()
    server.start()
    bus = connect(server)
    assert query(bus, name, weather.name("Sample")) == before
    group, = listed(bus, [name])
    fields = {descriptor.name: list(descriptor.fields) for descriptor in group.tlm_descriptors}
    # The rows are from long ago: no field had data lately.
    assert fields == {weather.name("Sample"): [], weather.name("Wind"): []}


# --- list ---


def test_list_groups_by_schema(bus, name):
    kinds = [Kind(SAMPLES, f"kind{n}_{name}") for n in range(3)]
    devices = [f"{name}-{n}" for n in range(6)]
    for n, device in enumerate(devices):
        launch_device(bus, device, kinds[n % 3])
    groups = listed(bus, devices)
    assert [[pair.device_id for pair in group.ids] for group in groups] == [devices[n::3] for n in range(3)]
    for n, group in enumerate(groups):
        assert group.error == ""
        assert [descriptor.name for descriptor in group.tlm_descriptors] == \
            [kinds[n].name("Sample"), kinds[n].name("Wind")]
        for pair in group.ids:
            assert (pair.name, pair.namespace) == (pair.device_id, "default")


def test_files_in_another_order_are_the_same_schema(bus, name, weather):
    files = descriptor_pb2.FileDescriptorSet.FromString(weather.set)
    turned = descriptor_pb2.FileDescriptorSet(file=reversed(files.file)).SerializeToString()
    assert turned != weather.set
    launch_device(bus, f"{name}-1", weather)
    bus.hello(f"{name}-2", turned)
    wait_until(lambda: has_schema(bus, f"{name}-2"), DEADLINE_S, "schema")
    group, = listed(bus, [f"{name}-1", f"{name}-2"])
    assert len(group.ids) == 2


def test_list_describes_messages(bus, name, weather):
    launch_device(bus, f"{name}-1", weather)
    launch_device(bus, f"{name}-2", weather)
    now = time.time_ns()
    report(bus, f"{name}-2", weather.Sample(ts=now), weather.Wind(ts=now - 31 * 86400 * SECOND_NS))
    group, = listed(bus, [f"{name}-1", f"{name}-2"])
    sample, wind = group.tlm_descriptors
    assert dict(sample.labels) == {"__tag_site": "roof", "__tag_temperature.side": "north",
                                   "__unit_temperature": "C", "__unit_pressure": "hPa"}
    assert dict(wind.labels) == {"__unit_vector.speed": "m/s", "__unit_gusts": "kn"}
    assert list(sample.fields) == ["note", "pressure", "raining", "temperature"]
    assert list(wind.fields) == []
    assert sample.explore_query == "\n".join([
        'from(bucket: "mir")',
        "  |> range(start: v.timeRangeStart, stop: v.timeRangeStop)",
        f'  |> filter(fn: (r) => r["__id"] == "{name}-1" or r["__id"] == "{name}-2")',
        f'  |> filter(fn: (r) => r["_measurement"] == "{weather.name("Sample")}")'])
    assert sample.error == wind.error == ""
    # Fields of a measurement are those of any device.
    group, = listed(bus, [f"{name}-1"])
    assert list(group.tlm_descriptors[0].fields) == ["note", "pressure", "raining", "temperature"]


def test_list_of_some_messages(bus, name, weather):
    launch_device(bus, name, weather)

    def names(**more):
        group, = listed(bus, [name], **more)
        return [descriptor.name.rpartition(".")[2] for descriptor in group.tlm_descriptors]

    assert names() == ["Sample", "Wind"]
    assert names(measurements=[weather.name("Wind")]) == ["Wind"]
    assert names(measurements=["Wind"]) == []
    assert names(measurements=[weather.name("Reset")]) == []
    assert names(filters={"__tag_site": "roof"}) == ["Sample"]
    assert names(filters={"__tag_site": "roof", "__unit_pressure": "hPa"}) == ["Sample"]
    assert names(filters={"__tag_site": "roof", "__unit_pressure": "bar"}) == []
    assert names(filters={"__tag_site": "ro"}) == names(filters={"__tag_site": ""}) == []
    assert names(filters={"site": "roof"}) == []


def test_list_of_an_unknown_device(bus, name):
    with pytest.raises(Refused) as refused:
        listed(bus, [name])
    assert str(refused.value) == UNKNOWN


def test_list_of_everything_and_by_package(launch, connect, name, weather):
    bus = connect(launch())
    with pytest.raises(Refused) as refused:
        bus.ask("tlm.list")
    assert str(refused.value) == UNKNOWN
    launch_device(bus, name, weather)
    bus.create(f"{name}-bare")
    groups = bus.ask("tlm.list").devices_telemetry
    # Those that have an error come first.
    assert [[pair.device_id for pair in group.ids] for group in groups] == [[f"{name}-bare"], [name]]
    assert groups[0].error == PULL + NO_RESPONDERS
    groups = bus.ask("tlm.list", targets={"schemas": [f"{weather.package}.v1"]}).devices_telemetry
    assert [[pair.device_id for pair in group.ids] for group in groups] == [[name]]


def test_refresh_of_devices_that_cannot_be_reached(bus, connect, server, name, weather):
    gone = [f"{name}-gone{n}" for n in range(2)]
    for device in gone:
        launch_device(bus, device, weather)
    assert [group.error for group in listed(bus, gone)] == [""]
    connect.device(server, f"{name}-there", schema=weather.set)
    launch_device(bus, f"{name}-there", weather)
    connect.device(server, f"{name}-broken", error="error occure while marshalling schema: no")
    launch_device(bus, f"{name}-broken", weather)
    groups = listed(bus, [*gone, f"{name}-there", f"{name}-broken"], refresh_schema=True)
    answered = [([pair.device_id for pair in group.ids], group.error, len(group.tlm_descriptors)) for group in groups]
    broken = "cannot reconcile device schema: error occure while marshalling schema: no"
    assert answered == [([f"{name}-broken"], broken, 0), (gone, PULL + NO_RESPONDERS, 0), ([f"{name}-there"], "", 2)]


def test_list_asks_a_device_for_its_schema(bus, connect, server, name, weather):
    device = connect.device(server, name, schema=weather.set)
    bus.create(name)
    assert not has_schema(bus, name)
    group, = listed(bus, [name])
    assert (group.error, [descriptor.name for descriptor in group.tlm_descriptors]) == \
        ("", [weather.name("Sample"), weather.name("Wind")])
    assert has_schema(bus, name)
    assert len(device.asked) == 1
    listed(bus, [name])
    assert len(device.asked) == 1
    listed(bus, [name], refresh_schema=True)
    assert len(device.asked) == 2


def test_quotes_in_ids_stay_inside_the_explore_query(bus, name, weather):
    device = f'{name}"${{x}}\\'
    with contextlib.suppress(Refused):
        bus.create(device)
    if bus.device(device) is None:
        pytest.skip("such ids are refused")
    launch_device(bus, device, weather)
    group, = listed(bus, [device])
    line = group.tlm_descriptors[0].explore_query.split("\n")[2]
    assert line == f'  |> filter(fn: (r) => r["__id"] == "{name}\\"\\${{x}}\\\\")'


def test_rows_of_a_clock_that_is_far_ahead_are_refused_and_told(bus, name, weather):
    launch_device(bus, name, weather)
    now_ns = time.time_ns()
    report(bus, name, weather.Sample(ts=now_ns + 23 * 3600 * SECOND_NS, pressure=1),
           weather.Sample(ts=now_ns + 49 * 3600 * SECOND_NS, pressure=2), weather.Sample(ts=(1 << 63) - 1, pressure=3))
    table = query(bus, name, weather.name("Sample"), first=0, last=(1 << 62), fields=["pressure"])
    assert [row[2] for row in rows_of(table)] == [1]
    wait_until(lambda: any(p.kind == "future time" for p in bus.device(name).status.problems), DEADLINE_S, "the problem")
    problem = next(p for p in bus.device(name).status.problems if p.kind == "future time")
    assert problem.count == 2 and "telemetry.future_limit" in problem.message


def test_a_disk_without_its_reserve_takes_no_telemetry_until_it_has_it(launch, connect, name, weather, tmp_path):
    disk = shutil.disk_usage(tmp_path)
    # The reserve is a sixteenth of the disk at most: the disk is filled until less than half of that is free.
    reserve = min(disk.total // 32, 4 << 30)
    taken = disk.free - reserve // 2
    server = launch({"telemetry.disk_reserve": str(reserve)})
    bus = connect(server)
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 1))
    assert len(query(bus, name, weather.name("Sample")).rows) == 1
    filler = server.folder / "filler"
    sent = itertools.count(1)

    def told():
        report(bus, name, *samples(weather, 1, START_NS + next(sent) * SECOND_NS))
        return any("no room on the disk" in problem.message for problem in bus.device(name).status.problems)

    def taken_again():
        before = len(query(bus, name, weather.name("Sample")).rows)
        report(bus, name, *samples(weather, 1, START_NS + next(sent) * SECOND_NS))
        return len(query(bus, name, weather.name("Sample")).rows) > before

    try:
        with open(filler, "wb") as file:
            os.posix_fallocate(file.fileno(), 0, taken)
        wait_until(told, DEADLINE_S, "a refusal")
    finally:
        filler.unlink(missing_ok=True)
    wait_until(taken_again, DEADLINE_S, "telemetry is taken")


def test_what_comes_no_more_is_soon_in_segments_and_takes_little_room(launch, connect, name, weather):
    server = launch()
    bus = connect(server)
    launch_device(bus, name, weather)
    assert telemetry_bytes(server) < 2 << 20
    for n in range(10):
        report(bus, name, *samples(weather, 2000, START_NS + n * 2000 * SECOND_NS))
    rows = 20000 * 4
    wait_until(lambda: any(path.suffix == ".seg" for path in (server.folder / "data" / "telemetry").iterdir()), 30, "a segment")
    wait_until(lambda: telemetry_bytes(server) < 2 << 20, DEADLINE_S, f"little room for {rows} values")
    table = query(bus, name, weather.name("Sample"), last=START_NS + 20000 * SECOND_NS, functions=["count"])
    assert rows_of(table)[0][2:] == [20000] * 4


def telemetry_bytes(server):
    """Of the disk, not of the files."""
    total = 0
    for path in (server.folder / "data" / "telemetry").iterdir():
        with contextlib.suppress(FileNotFoundError):
            total += path.stat().st_blocks * 512
    return total
