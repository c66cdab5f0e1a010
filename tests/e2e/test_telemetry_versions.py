# SPDX-License-Identifier: Apache-2.0
"""Telemetry of devices whose schema changes: old and new rows answer one query."""

import json
import time

import pytest
from bus import DEADLINE_S, api, zstd
from test_influx import ON, fetch
from test_telemetry import SECOND_NS, START_NS, Kind, launch_device, query, report, rows_of, types_of

from wire import wait_until

FIRST = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Air {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double temperature = 2 [(mir.device.v1.field_meta) = { unit: "C" }];
    int32 count = 3;
    string note = 4;
    Vector wind = 5;
    map<string, Vector> gusts = 6;
}

message Vector {
    float speed = 1;
}
"""

# Renamed: 2, 5, 6 and the field of Vector. Widened: 3. Removed: 4. Added: 7.
SECOND = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Air {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double celsius = 2 [(mir.device.v1.field_meta) = { unit: "C" }];
    int64 count = 3;
    Vector flow = 5;
    map<string, Vector> bursts = 6;
    bool open = 7;
}

message Vector {
    double velocity = 1;
}
"""


@pytest.fixture
def versions(name):
    return [Kind(text, f"versions_{name}") for text in (FIRST, SECOND)]


def first_rows(kind, count):
    return [kind.Air(ts=START_NS + n * SECOND_NS, temperature=n, count=n, note=f"n{n}", wind=kind.Vector(speed=n),
                     gusts={"left": kind.Vector(speed=n)}) for n in range(count)]  # fmt: skip


def second_rows(kind, first, count):
    return [kind.Air(ts=START_NS + n * SECOND_NS, celsius=n, count=n + 2**40, flow=kind.Vector(velocity=n),
                     open=True, bursts={"left": kind.Vector(velocity=n)}) for n in range(first, first + count)]  # fmt: skip


def renew(bus, device, kind):
    """The device has another schema: what it sends from now on is of that one."""
    bus.hello(device, kind.set)


@pytest.fixture(params=["in the log", "sealed"])
def changed(request, launch, connect, name, versions):
    """A server with one device, ten rows of each version."""
    server = launch({"telemetry.sync": "10ms", **ON})
    bus = connect(server)
    launch_device(bus, name, versions[0])
    report(bus, name, *first_rows(versions[0], 10))
    if request.param == "sealed":
        bus.close()
        server.stop()
        server.start()
        bus = connect(server)
    renew(bus, name, versions[1])
    report(bus, name, *second_rows(versions[1], 10, 10))
    return server, bus


def announce_and_report(bus, device, kind, *rows):
    """In one write, as a device does that was renewed and has much to tell."""
    hello = api.DeviceHello(hello={"schema": kind.set}).SerializeToString()
    coding = {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}

    async def send():
        await bus.client.publish(f"device.{device}.core.v1alpha.hearthbeat", zstd(hello), headers=coding)
        for row in rows:
            headers = {"mir-msg": row.DESCRIPTOR.full_name}
            await bus.client.publish(f"device.{device}.tlm.v1alpha.proto", row.SerializeToString(), headers=headers)

    bus.loop.run(send())
    bus.flush()


def test_rows_right_behind_a_schema_are_of_that_schema(bus, name, versions):
    launch_device(bus, name, versions[0])
    for turn in range(10):
        version = 1 - turn % 2
        kind = versions[version]
        row = second_rows(kind, turn, 1)[0] if version else first_rows(kind, turn + 1)[turn]
        announce_and_report(bus, name, kind, row)
        table = query(bus, name, kind.name("Air"))
        assert len(rows_of(table)) == turn + 1, "what a PONG came for answers queries"
        seen = dict(zip(table.headers, rows_of(table)[-1], strict=True))
        assert (seen.get("open"), seen.get("note")) == ((True, None) if version else (None, f"n{turn}"))


def test_the_schema_that_was_sent_last_is_the_one_to_go_by(bus, name, versions):
    """Also when the one before it takes long to read, and it does not."""
    launch_device(bus, f"{name}_other", versions[1])
    launch_device(bus, name, versions[0])
    large = "".join(
        f"message Large{n} {{ option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;"
        + "".join(f" int64 field_{n}_{field} = {field};" for field in range(1, 60))
        + " }\n"
        for n in range(150)
    )
    for turn in range(3):
        slow = Kind(FIRST + large + f"message Turn{turn} {{ }}\n", f"versions_{name}")
        for kind in (slow, versions[1]):
            bus.hello(name, kind.set, flush=False)
        report(bus, name, second_rows(versions[1], turn, 1)[0])
        table = query(bus, name, versions[1].name("Air"))
        assert [dict(zip(table.headers, row, strict=True))["open"] for row in rows_of(table)] == [True] * (turn + 1)


def test_rows_behind_a_schema_that_is_known_are_there_with_their_pong(bus, name, versions):
    launch_device(bus, name, versions[0])
    rows = first_rows(versions[0], 300)
    for turn in range(10):
        announce_and_report(bus, name, versions[0], *rows[30 * turn:30 * turn + 30])  # fmt: skip
        assert len(rows_of(query(bus, name, versions[0].name("Air")))) == 30 * turn + 30


def test_rows_behind_a_broken_schema_go_by_the_one_before(bus, name, versions):
    launch_device(bus, name, versions[0])
    bus.hello(name, b"\x0a\x05broken")
    report(bus, name, *first_rows(versions[0], 5))
    assert len(rows_of(query(bus, name, versions[0].name("Air")))) == 5


TODAY = ["bursts_left.velocity", "celsius", "count", "flow.velocity", "note", "open"]


def test_rows_of_both_versions_have_the_names_of_today(changed, name, versions):
    _, bus = changed
    table = query(bus, name, versions[0].name("Air"))
    assert list(table.headers) == ["_time", "__id", *TODAY]
    rows = [dict(zip(table.headers, row, strict=True)) for row in rows_of(table)]
    assert [row["celsius"] for row in rows] == list(range(20))
    assert [row["flow.velocity"] for row in rows] == list(range(20))
    assert [row["bursts_left.velocity"] for row in rows] == list(range(20))
    assert [row["count"] for row in rows] == [n if n < 10 else n + 2**40 for n in range(20)]
    assert [row["note"] for row in rows] == [f"n{n}" for n in range(10)] + [None] * 10
    assert [row["open"] for row in rows] == [None] * 10 + [True] * 10


@pytest.mark.parametrize("asked", ["celsius", "temperature"])
def test_a_renamed_field_answers_to_each_of_its_names(changed, name, versions, asked):
    _, bus = changed
    table = query(bus, name, versions[0].name("Air"), fields=[asked])
    assert list(table.headers) == ["_time", "__id", asked]
    assert [row[2] for row in rows_of(table)] == list(range(20))
    table = query(bus, name, versions[0].name("Air"), fields=[asked], aggregation_window="1h")
    assert [row[2:] for row in rows_of(table)] == [[9.5]]
    both = query(bus, name, versions[0].name("Air"), fields=["celsius", "temperature"])
    assert [row[2:] for row in rows_of(both)] == [[None, n] for n in range(10)] + [[n, None] for n in range(10, 20)]


def test_a_renamed_field_is_one_for_dashboards(changed, name, versions):
    server, _ = changed
    measurement = versions[0].name("Air")
    for asked in ("celsius", "temperature"):
        text = f'SELECT sum("{asked}") FROM "{measurement}" WHERE __id = \'{name}\''
        status, _, body = fetch(server, q=text, db="mir")
        assert status == 200
        (series,) = json.loads(body)["results"][0]["series"]
        assert series["values"][0][1] == 190


def test_a_renamed_field_is_listed_by_its_name_of_today(launch, connect, name, versions):
    server = launch(ON)
    bus = connect(server)
    measurement = versions[0].name("Air")
    rows = [first_rows(versions[0], 10), second_rows(versions[1], 10, 10)]
    for row in rows[0] + rows[1]:  # Fields are listed that had data of late.
        row.ts += time.time_ns() - 3600 * SECOND_NS - START_NS

    def listed(device):
        (telemetry,) = bus.ask("tlm.list", targets={"ids": [device]}, measurements=[measurement]).devices_telemetry
        return list(telemetry.tlm_descriptors[0].fields)

    def ask(text):
        _, _, body = fetch(server, q=text, db="mir")
        (series,) = json.loads(body)["results"][0]["series"]
        return series

    def keys():
        return [key for key, _ in ask(f'SHOW FIELD KEYS FROM "{measurement}"')["values"]]

    launch_device(bus, name, versions[0])
    report(bus, name, *rows[0])
    first = ["count", "gusts_left.speed", "note", "temperature", "wind.speed"]
    assert listed(name) == first and keys() == first
    renew(bus, name, versions[1])
    today = [field for field in TODAY if field != "open"]
    wait_until(lambda: listed(name) == today, DEADLINE_S, "before there is a row that calls them so")
    report(bus, name, *rows[1])
    assert listed(name) == TODAY and keys() == TODAY
    everything = ask(f'SELECT * FROM "{measurement}" WHERE __id = \'{name}\'')
    assert set(TODAY) == {field for field in everything["columns"] if field in TODAY + first}
    at = everything["columns"].index("celsius")
    assert [row[at] for row in everything["values"]] == list(range(20))
    counts = ask(f'SELECT count(*) FROM "{measurement}" WHERE __id = \'{name}\'')
    assert dict(zip(counts["columns"], counts["values"][0], strict=True))["count_celsius"] == 20
    # While a device still says the earlier name, both are there.
    other = f"{name}-other"
    launch_device(bus, other, versions[0])
    report(bus, other, *rows[0][:3])
    assert listed(name) == TODAY and "temperature" in listed(other)
    assert {"celsius", "temperature"} <= set(keys())
    bus.close()


def test_devices_of_both_versions_have_a_column_each(changed, name, versions):
    _, bus = changed
    other = f"{name}-other"
    launch_device(bus, other, versions[0])
    report(bus, other, *first_rows(versions[0], 3))
    table = query(bus, [name, other], versions[0].name("Air"))
    assert {"celsius", "temperature"} <= set(table.headers)
    table = query(bus, [name, other], versions[0].name("Air"), fields=["celsius"])
    rows = [(row[1], row[2]) for row in rows_of(table)]
    assert sorted(rows) == sorted([(name, n) for n in range(20)] + [(other, n) for n in range(3)])


def test_names_are_remembered_when_nobody_has_the_old_schema(changed, name, versions, connect):
    server, bus = changed
    bus.close()
    server.stop()
    server.start()
    bus = connect(server)
    table = query(bus, name, versions[0].name("Air"), fields=["celsius"])
    assert [row[2] for row in rows_of(table)] == list(range(20))
    assert types_of(table)[2:] == ["DOUBLE"]
