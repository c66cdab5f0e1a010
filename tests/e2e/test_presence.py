# SPDX-License-Identifier: Apache-2.0
"""Heartbeats and hellos of devices, what becomes of them, and the device's own requests."""

import nats.errors
import pytest
from bus import DEADLINE_S, PULL, api, schema_of, seconds_ago, unzstd, zstd

from wire import PATIENCE, let_pass, wait_until

pytestmark = pytest.mark.alone("it knows no devices")

OFFLINE_AFTER_S = 1 * PATIENCE


@pytest.fixture
def brief(shared):
    """A server to which devices are offline soon."""
    return shared({"presence.offline_after": f"{OFFLINE_AFTER_S:g}s", "schema.request_timeout": "300ms"})


def online_since(bus, name):
    device = bus.device(name)
    return device is not None and device.status.online and device.status.last_hearthbeat


# --- heartbeats


def test_one_heartbeat_of_a_known_device(bus, name):
    bus.create(name, f"{name}-n", "ns", {"a": "1"})
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    device = bus.device(name)
    assert device.status.online and -1 < seconds_ago(device.status.last_hearthbeat) < 10
    assert (device.meta.name, device.meta.namespace, dict(device.meta.labels)) == (f"{name}-n", "ns", {"a": "1"})
    event = bus.events(name, "deviceonline")[0]
    assert (event.spec.reason, event.spec.message) == ("DeviceOnline", "Device is now online")
    assert (event.spec.type, event.spec.related_object.meta.name) == ("normal", f"{name}-n")
    assert event.payload["status"]["online"] is True and event.payload["status"]["lastHearthbeat"]
    assert event.headers["mir-trigger-chain"].startswith("mir-")


def test_one_heartbeat_of_an_unknown_device(bus, name):
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    device = bus.device(name)
    assert (device.meta.name, device.meta.namespace, device.spec.device_id) == (name, "default", name)
    assert device.status.online and not device.spec.disabled
    assert list(device.status.schema.package_names) == []


def test_more_heartbeats_are_one_event(bus, name):
    for _ in range(20):
        bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    first = bus.device(name).status.last_hearthbeat
    bus.heartbeat(name)
    bus.settle()
    bus.await_kinds(name, "devicecreated", "deviceonline")
    later = bus.device(name).status.last_hearthbeat
    assert (later.seconds, later.nanos) > (first.seconds, first.nanos)


def test_many_devices_at_once(bus, name):
    names = [f"{name}-{i}" for i in range(200)]
    for device in names:
        bus.publish(f"device.{device}.core.v1alpha.hearthbeat")
    bus.flush()
    wait_until(lambda: len([d for d in bus.list(ids=[f"{name}-*"]) if d.status.online]) == 200, DEADLINE_S, "all online")
    for device in names:
        bus.await_kinds(device, "devicecreated", "deviceonline")


def test_device_that_nobody_can_be(bus, name):
    """Ids that no device may have, and a name that is taken, provision nothing and harm nobody."""
    bus.create(f"{name}-a", f"{name}-b", "default")
    before = bus.ids()
    for device in ("client", "event", "_INBOX", "x" * 129, f"{name}-b"):
        bus.heartbeat(device)
    bus.heartbeat(f"{name}-c")
    bus.await_kinds(f"{name}-c", "devicecreated", "deviceonline")
    bus.settle()
    assert bus.ids() == sorted([*before, f"{name}-c"])
    assert bus.kinds(f"{name}-b") == []


def test_heartbeat_is_spelt_as_ever(bus, name):
    bus.publish(f"device.{name}.core.v1alpha.heartbeat")
    bus.publish(f"device.{name}.core.v1.hearthbeat")
    bus.publish(f"device.{name}.core.v1alpha.hearthbeat.more")
    bus.heartbeat(f"{name}-other")
    bus.await_kinds(f"{name}-other", "devicecreated", "deviceonline")
    assert bus.device(name) is None


# --- hellos


def schema_is(bus, name, schema):
    stored = bus.device(name).status.schema
    return stored.compressed_schema and unzstd(stored.compressed_schema) == schema


def test_hello_of_a_known_device(bus, name, pump):
    bus.create(name)
    bus.hello(name, pump)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    status = bus.device(name).status
    assert status.online and unzstd(status.schema.compressed_schema) == pump
    assert set(status.schema.package_names) == {"pump.v1", "mir.device.v1", "google.protobuf"}
    assert -1 < seconds_ago(status.schema.last_schema_fetch) < 10
    payload = bus.events(name, "deviceupdated")[0].payload
    assert payload["status"]["schema"]["compressedSchema"]
    assert set(payload["status"]["schema"]["packageNames"]) == {"pump.v1", "mir.device.v1", "google.protobuf"}


def test_hello_of_an_unknown_device(bus, name, pump):
    bus.hello(f"{name}-x", pump)
    bus.await_kinds(f"{name}-x", "devicecreated", "deviceonline", "deviceupdated")
    assert schema_is(bus, f"{name}-x", pump) and bus.device(f"{name}-x").meta.namespace == "default"


def test_heartbeats_after_a_hello_do_not_lose_it(bus, name, pump):
    bus.hello(name, pump)
    for _ in range(5):
        bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    bus.settle()
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    assert schema_is(bus, name, pump)


def test_hello_again(bus, name, pump):
    other = schema_of('syntax = "proto3"; package other.v1; message M { int32 x = 1; }')
    bus.hello(name, pump)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    bus.hello(name, other)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated", "deviceupdated")
    assert schema_is(bus, name, other)
    assert list(bus.device(name).status.schema.package_names) == ["other.v1"]


def hello_body(**arm):
    return api.DeviceHello(**arm).SerializeToString()


@pytest.mark.parametrize(
    "body, headers",
    [
        (lambda pump: b"garbage", {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(b"\xff\xff"), {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: b"", {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(hello_body(error="broken")), {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(hello_body(hello={})), {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(hello_body(hello={"schema": b"\x0a\x05junk!"})),
         {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(hello_body(hello={"schema": pump})), {"mir-content-encoding": "mir-zstd"}),
        (lambda pump: zstd(hello_body(hello={"schema": pump})), None),
    ],
    ids=["no zstd", "no protobuf", "nothing", "an error", "no schema", "a bad schema", "not called hello", "no headers"],
)
def test_hello_that_is_none_is_a_heartbeat(bus, name, pump, body, headers):
    device = f"{name}-h"
    bus.publish(f"device.{device}.core.v1alpha.hearthbeat", body(pump), headers=headers)
    bus.await_kinds(device, "devicecreated", "deviceonline")
    bus.settle()
    bus.await_kinds(device, "devicecreated", "deviceonline")
    assert list(bus.device(device).status.schema.package_names) == []
    bus.ask("core.delete", targets={"ids": [device]})


def test_schema_that_a_device_sends_of_its_own_accord(bus, name, pump):
    bus.create(name)
    body = api.SchemaRetrieveResponse(schema=pump).SerializeToString()
    bus.publish(f"device.{name}.core.v1alpha.schema", zstd(body), headers={"mir-content-encoding": "mir-zstd"})
    bus.await_kinds(name, "devicecreated", "deviceupdated")
    status = bus.device(name).status
    assert unzstd(status.schema.compressed_schema) == pump and not status.online
    assert seconds_ago(status.schema.last_schema_fetch) < 10


def test_schemas_that_come_at_once_are_no_heartbeat(bus, name):
    """They are stored one after the other, and the device that only sent schemas is not online."""
    bus.create(name)
    schemas = [schema_of(f'syntax = "proto3"; package p{i}.v1; message M {{ int32 x = 1; }}') for i in range(4)]
    for schema in schemas:
        body = api.SchemaRetrieveResponse(schema=schema).SerializeToString()
        bus.publish(f"device.{name}.core.v1alpha.schema", body)
    bus.flush()
    # While the first is being written others come; what is read later replaces what waits.
    wait_until(lambda: bus.kinds(name).count("deviceupdated") >= 2, DEADLINE_S, "two schemas")
    bus.settle()
    assert not bus.device(name).status.online
    assert set(bus.kinds(name)) == {"devicecreated", "deviceupdated"}


# --- offline


def test_offline_after_its_time(brief, connect, name):
    bus = connect(brief)
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    heartbeat = bus.device(name).status.last_hearthbeat
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceoffline")
    assert OFFLINE_AFTER_S - 0.1 < seconds_ago(heartbeat) < OFFLINE_AFTER_S + 5 * PATIENCE
    status = bus.device(name).status
    assert not status.online and status.last_hearthbeat == heartbeat
    event = bus.events(name, "deviceoffline")[0]
    assert (event.spec.reason, event.spec.message) == ("DeviceOffline", "Device is now offline")
    assert event.payload["status"]["online"] is False
    # And back.
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceoffline", "deviceonline")
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceoffline", "deviceonline", "deviceoffline")


def test_heartbeats_keep_online(brief, connect, name):
    bus = connect(brief)
    for _ in range(8):
        bus.heartbeat(name)
        let_pass(OFFLINE_AFTER_S / 3)
    assert bus.device(name).status.online
    assert bus.kinds(name) == ["devicecreated", "deviceonline"]


def test_heartbeat_at_the_moment_of_going_offline_counts(brief, connect, name):
    bus = connect(brief)
    names = [f"{name}-{i}" for i in range(100)]
    for turn in range(4):
        for device in names:
            bus.publish(f"device.{device}.core.v1alpha.hearthbeat")
        bus.flush()
        seen = set()

        def all_were_online():
            seen.update(device.spec.device_id for device in bus.list(ids=[f"{name}-*"]) if device.status.online)
            return len(seen) == len(names)

        # Each heartbeat makes its device online, whatever was being written about it.
        wait_until(all_were_online, DEADLINE_S, f"online in round {turn}")
        let_pass(OFFLINE_AFTER_S - 0.02)
    for device in names:
        bus.settle()
        kinds = bus.kinds(device)[1:]
        assert kinds == [("deviceonline", "deviceoffline")[i % 2] for i in range(len(kinds))]


def test_online_device_that_is_deleted(brief, connect, name):
    bus = connect(brief)
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    bus.ask("core.delete", targets={"ids": [name]})
    let_pass(1.5 * OFFLINE_AFTER_S)
    bus.settle()
    assert bus.kinds(name) == ["devicecreated", "deviceonline", "devicedeleted"]
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline", "devicedeleted", "devicecreated", "deviceonline")


def test_device_whose_id_changes(brief, connect, name):
    bus = connect(brief)
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    bus.ask("core.update", targets={"ids": [name]}, spec={"device_id": f"{name}-new"})
    bus.heartbeat(f"{name}-new")
    bus.settle()
    assert online_since(bus, f"{name}-new")
    # The old id is free: who beats there is another device, whose name is taken.
    bus.heartbeat(f"{name}-unrelated")
    bus.await_kinds(f"{name}-unrelated", "devicecreated", "deviceonline")
    wait_until(lambda: "deviceoffline" in bus.kinds(f"{name}-new"), DEADLINE_S, "offline under the new id")


@pytest.mark.parametrize("how", ["stop", "kill"])
def test_restart_gives_a_full_time(launch, connect, name, how):
    after_s = 2 * PATIENCE
    server = launch({"presence.offline_after": f"{after_s:g}s"})
    bus = connect(server)
    names = [f"{name}-{i}" for i in range(10)]
    for device in names:
        bus.heartbeat(device)
    for device in names:
        bus.await_kinds(device, "devicecreated", "deviceonline")
    heartbeat = bus.device(names[0]).status.last_hearthbeat
    bus.close()
    getattr(server, how)()
    let_pass(after_s)
    server.start()
    bus = connect(server)
    assert all(online_since(bus, device) for device in names), "their time is not over"
    bus.heartbeat(names[1])
    bus.settle()
    assert bus.kinds(names[1]) == [], "it was online all the time"
    for device in names:
        bus.await_kinds(device, "deviceoffline")
    # Who was silent kept the time of its last heartbeat.
    stored = bus.device(names[0]).status.last_hearthbeat
    assert abs((stored.seconds - heartbeat.seconds) + (stored.nanos - heartbeat.nanos) / 1e9) < after_s
    assert seconds_ago(stored) > after_s


# --- what a device asks


def desired(bus, name):
    async def ask():
        subject = f"device.{name}.cfg.v1alpha.desiredproperties"
        return await bus.client.request(subject, b"", timeout=DEADLINE_S)

    return api.DeviceReportedPropertiesResponse.FromString(bus.loop.run(ask()).data)


def test_desired_properties_of_an_unknown_device(bus, name):
    response = desired(bus, name)
    assert response.error == "no device found with current targets criteria"
    assert bus.device(name) is None


def test_desired_properties(bus, name, pump):
    bus.hello(name, pump)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    response = desired(bus, name)
    assert response.WhichOneof("response") == "ok"
    assert response.ok.encoding == api.DeviceEncodedReportedProperties(encoding=1).encoding
    assert dict(response.ok.properties) == {}


def test_desired_properties_fetch_the_schema(bus, server, connect, name, pump):
    """A device that never said hello is asked for its schema when it comes for its properties."""
    bus.create(name)
    device = connect.device(server, name, schema=pump)
    assert desired(bus, name).WhichOneof("response") == "ok"
    assert schema_is(bus, name, pump) and len(device.asked) == 1
    bus.await_kinds(name, "devicecreated", "deviceupdated")
    assert bus.ids(ids=[name], schemas=["pump.v1"]) == [name]


def test_desired_properties_without_a_schema(brief, connect, name):
    bus = connect(brief)
    bus.create(name)
    assert desired(bus, name).error == PULL + "nats: no responders available for request"
    connect.device(brief, name)  # Listens, and says nothing.
    assert desired(bus, name).error == PULL + "nats: timeout"


def test_device_functions_that_are_not_there(bus, name):
    async def ask(subject):
        return await bus.client.request(subject, b"", timeout=DEADLINE_S)

    for subject in (f"device.{name}.cfg.v1alpha.nothing", f"device.{name}.core.v1.schema", f"device.{name}"):
        with pytest.raises(nats.errors.NoRespondersError):
            bus.loop.run(ask(subject))


# --- what the server tells of it


def test_status_counts_devices(launch, connect, name, pump):
    import json

    server = launch()
    bus = connect(server)
    bus.hello(f"{name}-a", pump)
    bus.create(f"{name}-b")
    bus.await_kinds(f"{name}-a", "devicecreated", "deviceonline", "deviceupdated")
    bus.publish(f"device.{name}-c.core.v1alpha.hearthbeat", b"garbage", headers={"mir-content": "mir-hello"})
    bus.await_kinds(f"{name}-c", "devicecreated", "deviceonline")

    def status():
        return json.loads(bus.raw("sys.status").data)

    devices = status()["devices"]
    assert (devices["registered"], devices["online"], devices["schemas"]) == (3, 2, 1)
    assert devices["active_twins"] >= 2
    (problem,) = [p for p in status()["problems"] if p["device"]]
    assert (problem["device"], problem["kind"], problem["count"]) == (f"{name}-c", "bad schema", 1)
    assert problem["text"] and problem["last"].endswith("Z")
    report = status()
    assert report["connections"] == 1 == sum(shard["connections"] for shard in report["shards"])
    assert [shard["id"] for shard in report["shards"]] == list(range(server.shards))
    assert report["state"]["commits"] >= 1 and report["state"]["map_used_bytes"] > 0
    assert report["latency_us"]["request"]["count"] >= 3
    assert report["uptime_seconds"] > 0 and report["version"]
    # As many at once as there may be do not stand in each other's way.
    names = [bus.answer_name() for _ in range(50)]
    for answer in names:
        bus.send("sys.status", b"", answer)
    for answer in names:
        assert json.loads(bus.answer(answer)[1].data)["server_id"] == report["server_id"]
