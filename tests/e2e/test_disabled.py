# SPDX-License-Identifier: Apache-2.0
"""Disabled devices: cut off at once, refused whatever they try, and back when they are enabled."""

import json

import pytest
from bus import DEADLINE_S, ConfiguredDevice, Refused, api, schema_of
from google.protobuf import json_format
from test_command import ERROR, SUCCESS, VALVE, Kinds, Obedient, send

from wire import Wire, wait_until

pytestmark = pytest.mark.alone("it lets disabled devices talk")

DISABLED = "the device is disabled"
HINT = 'the device is disabled: enable it with "mir device update NAME/NAMESPACE --disabled false"'
QUEUED_STATUS = 1000
QUEUED, DONE, EXPIRED = 1, 3, 5
JSON = 2
LEVEL = """
syntax = "proto3";
package level.v1;
import "mir/device/v1/mir.proto";
message Rate { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; int32 interval = 1; }
"""


@pytest.fixture(scope="module")
def schema():
    return schema_of(VALVE, "valve.proto")


@pytest.fixture(scope="module")
def valve(schema):
    return Kinds(schema, "valve.v1")


@pytest.fixture(scope="module")
def level():
    return schema_of(LEVEL, "level.proto")


def disable(bus, *devices, disabled=True):
    request = api.UpdateDeviceRequest(targets={"ids": list(devices)}, spec={"disabled": disabled})
    return bus.ask("core.update", request)


def enable(bus, *devices):
    disable(bus, *devices, disabled=False)


def stored(bus, device, **target):
    """Oldest first."""
    return list(bus.ask("evt.list", target={"device_ids": [device], **target}).events)[::-1]


def reasons(bus, device):
    return [event.spec.reason for event in stored(bus, device)]


def await_event(bus, device, reason):
    def found():
        events = stored(bus, device, reasons=[reason])
        return events[0] if events else None

    return wait_until(found, DEADLINE_S, f"event {reason} of {device}")


def problems(bus, device):
    return {problem.kind: problem.count for problem in bus.device(device).status.problems}


def await_problem(bus, device, count=1):
    wait_until(lambda: problems(bus, device).get("disabled", 0) >= count, DEADLINE_S, "it is refused")


def heartbeat(wire, device):
    return wire.pub(f"device.{device}.core.v1alpha.hearthbeat")


@pytest.fixture
def gateway(dial, server, name):
    """A connection that serves several devices."""
    wire = dial.quiet(server)
    wire.sub(f"{name}.>", 1).sub(f"{name}-other.>", 2)
    return wire.settle()


def online(bus, wire, device):
    heartbeat(wire, device)
    wait_until(lambda: (found := bus.device(device)) and found.status.online, DEADLINE_S, f"{device} is online")


# --- the twin


def test_a_disabled_device_is_offline_at_once(bus, gateway, name):
    online(bus, gateway, name)
    (device,) = disable(bus, name).devices
    assert device.spec.disabled and not device.status.online
    assert [event.kind for event in bus.events(name)] == [
        "devicecreated",
        "deviceonline",
        "devicedisabled",
        "deviceoffline",
        "deviceupdated",
    ]
    assert bus.ids(ids=[name], liveness=["disabled"]) == [name]
    assert bus.ids(ids=[name], liveness=["online", "offline"]) == []


def test_heartbeats_and_hellos_of_a_disabled_device_change_nothing(bus, gateway, name, schema):
    online(bus, gateway, name)
    disable(bus, name)
    before = bus.device(name)
    heartbeat(gateway, name).settle()
    await_problem(bus, name, 1)
    bus.hello(name, schema)
    bus.publish(f"device.{name}.core.v1alpha.schema", api.SchemaRetrieveResponse(schema=schema).SerializeToString())
    await_problem(bus, name, 3)
    after = bus.device(name)
    del after.status.problems[:], before.status.problems[:]
    assert after == before
    assert set(reasons(bus, name)) == {
        "DeviceCreated",
        "DeviceOnline",
        "DeviceOffline",
        "DeviceDisabled",
        "DeviceUpdated",
    }


def test_telemetry_of_a_disabled_device_is_refused_and_counted(bus, gateway, name):
    bus.create(name, disabled=True)
    for _ in range(5):
        bus.publish(f"device.{name}.tlm.v1alpha.proto", b"x", headers={"mir-msg": "a.B"})
    bus.flush()
    await_problem(bus, name, 5)
    event = await_event(bus, name, "TelemetryRefused")
    payload = json.loads(event.spec.json_payload)
    assert (payload["kind"], payload["text"]) == ("disabled", HINT) and 1 <= payload["count"] <= 5


def test_properties_of_a_disabled_device_are_refused(loop, bus, server, name, level, gateway):
    device = ConfiguredDevice(loop, server, name, level)
    device.subscribe(f"{name}-neighbour.>", device._asked)
    device.launch()
    disable(bus, name)
    response = device.ask_desired()
    assert response.error == HINT
    before = bus.device(name).properties
    device.report("level.v1.Rate", b"\x08\x07")
    wait_until(lambda: "property refused" in problems(bus, name), DEADLINE_S, "the report is refused")
    assert bus.device(name).properties == before
    enable(bus, name)
    assert wait_until(lambda: (r := device.ask_desired()).WhichOneof("response") == "ok" and r, DEADLINE_S, "it is back")
    device.close()


def test_a_device_that_is_enabled_comes_back(bus, gateway, name):
    online(bus, gateway, name)
    disable(bus, name)
    heartbeat(gateway, name).settle()
    await_problem(bus, name)
    enable(bus, name)
    assert not bus.device(name).status.online
    online(bus, gateway, name)
    assert [reason for reason in reasons(bus, name) if reason in ("DeviceDisabled", "DeviceEnabled")] == [
        "DeviceDisabled",
        "DeviceEnabled",
    ]


def test_a_device_is_disabled_across_a_restart(launch, connect, name):
    server = launch()
    bus = connect(server)
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    disable(bus, name)
    server.stop()
    server.start()
    bus = connect(server)
    bus.heartbeat(name)
    await_problem(bus, name)
    assert not bus.device(name).status.online
    wire = Wire(server.address).connect()
    wire.sub(f"{name}.>", 1)
    assert wire.rest() == []
    wire.close()


def test_the_heartbeat_of_a_race_does_not_bring_it_back(bus, gateway, name):
    """Heartbeats that are on their way while it is disabled."""
    online(bus, gateway, name)
    for _ in range(10):
        for _ in range(20):
            heartbeat(gateway, name)
        disable(bus, name)
        for _ in range(20):
            heartbeat(gateway, name)
        gateway.settle()
        bus.settle()
        device = bus.device(name)
        assert device.spec.disabled and not device.status.online
        enable(bus, name)
        online(bus, gateway, name)


# --- connections


def test_the_connection_of_a_disabled_device_is_closed_without_a_text(dial, server, bus, name):
    wire = dial.quiet(server)
    wire.sub("_INBOX.x.*", 1).sub(f"{name}.>", 2).settle()
    online(bus, wire, name)
    disable(bus, name)
    assert wire.rest() == []
    assert "ConnectionRefused" not in reasons(bus, name)


def test_a_connection_is_closed_also_when_its_device_never_spoke(dial, server, bus, name):
    bus.create(name)
    wire = dial.quiet(server).sub(f"{name}.>", 2).settle()
    disable(bus, name)
    assert wire.rest() == []


def test_a_connection_is_closed_when_its_device_is_created_disabled(dial, server, bus, name):
    wire = dial.quiet(server).sub(f"{name}.>", 2).settle()
    bus.create(name, disabled=True)
    assert wire.rest() == []


def test_a_disabled_device_that_comes_back_is_closed_when_it_subscribes(dial, server, bus, name):
    bus.create(name, namespace="plant", disabled=True)
    for _ in range(3):
        wire = dial.quiet(server)
        wire.sub(f"{name}.>", 1)
        assert wire.rest() == []
    event = await_event(bus, name, "ConnectionRefused")
    assert event.spec.type == "warning" and event.object.meta.namespace == "plant"
    audit = event.spec.audit
    assert (audit.actor, audit.address, audit.outcome) == ("anonymous", "127.0.0.1", "failed")
    assert audit.error == DISABLED and json.loads(event.spec.json_payload)["count"] == 1
    # One in a minute.
    assert reasons(bus, name).count("ConnectionRefused") == 1
    (heard,) = bus.events(name, "connectionrefused")
    assert heard.spec.message == "Connection refused: the device is disabled"


def test_a_disabled_device_whose_user_is_its_own_is_closed_when_it_speaks(shared, connect, name):
    own = f"permissions: {{publish: {{allow: [device.{name}.>]}}, subscribe: {{allow: [{name}.>, _INBOX.>]}}}}"
    users = f"[{{user: anna, password: x}}, {{user: dev, password: y, {own}}}]"
    server = shared({"auth.mode": "users", "auth.users": users, "auth.no_auth_user": "anna"})
    bus = connect(server)
    bus.create(name, disabled=True)
    wire = Wire(server.address).connect(user="dev", **{"pass": "y"})
    heartbeat(wire, name)
    assert wire.rest() == []
    wire.close()
    assert await_event(bus, name, "ConnectionRefused").spec.audit.actor == "dev"


def test_other_devices_of_a_connection_are_served(bus, gateway, name):
    online(bus, gateway, name)
    online(bus, gateway, f"{name}-other")
    disable(bus, name)
    heartbeat(gateway, name).settle()
    await_problem(bus, name)
    bus.publish(f"{name}-other.x", b"hello")
    assert gateway.msg().body == b"hello"
    assert bus.device(f"{name}-other").status.online


def test_a_connection_with_many_subscriptions_is_of_no_device(dial, server, bus, name):
    """Each further subscription would look at all the others."""
    wire = dial.quiet(server)
    for i in range(65):
        wire.sub(f"{name}.{i}", i)
    wire.settle()
    bus.create(name, disabled=True)
    heartbeat(wire, name).settle()
    await_problem(bus, name)
    bus.publish(f"{name}.7", b"hello")
    assert wire.msg().body == b"hello"


def test_a_device_that_was_enabled_is_let_in(dial, server, bus, name):
    bus.create(name, disabled=True)
    wire = dial.quiet(server)
    wire.sub(f"{name}.>", 1)
    assert wire.rest() == []
    enable(bus, name)
    wire = dial.quiet(server).sub(f"{name}.>", 1).settle()
    online(bus, wire, name)
    bus.publish(f"{name}.x", b"hello")
    assert wire.msg().body == b"hello"


@pytest.mark.parametrize("back", ["at once", "after a refusal"])
def test_who_deletes_a_disabled_device_lets_it_in_anew(bus, gateway, dial, server, name, back):
    """Nothing stays cut off: neither what it says on a shared connection nor a connection of its own."""
    online(bus, gateway, name)
    disable(bus, name)
    if back == "after a refusal":
        heartbeat(gateway, name).settle()
        await_problem(bus, name)
        wire = dial.quiet(server)
        wire.sub(f"{name}.>", 1)
        assert wire.rest() == []
    (deleted,) = bus.ask("core.delete", targets={"ids": [name]}).devices
    assert deleted.spec.disabled
    online(bus, gateway, name)
    device = bus.device(name)
    assert not device.spec.disabled and device.status.version < deleted.status.version
    bus.publish(f"{name}.x", b"hello")
    assert gateway.msg().body == b"hello"
    wire = dial.quiet(server).sub(f"{name}.>", 1).settle()
    heartbeat(wire, name).settle()
    bus.publish(f"{name}.x", b"hello")
    assert wire.msg().body == b"hello"
    told = [reason for reason in reasons(bus, name) if reason in ("DeviceCreated", "DeviceDeleted", "DeviceEnabled")]
    assert told == ["DeviceCreated", "DeviceDeleted", "DeviceCreated"]


def test_a_device_is_kept_out_by_creating_it_disabled_again(bus, gateway, name):
    online(bus, gateway, name)
    disable(bus, name)
    bus.ask("core.delete", targets={"ids": [name]})
    bus.create(name, disabled=True)
    heartbeat(gateway, name).settle()
    await_problem(bus, name)
    assert not bus.device(name).status.online


# --- commands and configuration


@pytest.fixture
def obeying(loop, server, bus, name, schema, valve):
    """A device that stays connected beside a neighbour."""
    device = Obedient(loop, server, name, schema)
    device.subscribe(f"{name}-neighbour.>", device._asked)
    device.on["valve.v1.Open"] = lambda body: ("valve.v1.Position", b"")
    device.hello(name, schema)
    wait_until(lambda: (found := bus.device(name)) and found.status.schema.package_names, DEADLINE_S, "its schema")
    yield device
    device.close()


@pytest.mark.parametrize(
    "fields",
    [{}, {"force_push": True}, {"no_validation": True, "payload_encoding": 1, "payload": b""}, {"refresh_schema": True}],
    ids=["plain", "force", "raw", "refresh"],
)
def test_commands_to_a_disabled_device_are_in_error(bus, obeying, name, fields):
    disable(bus, name)
    entries, _ = send(bus, name, **fields)
    entry = entries[f"{name}/default"]
    assert (entry.status, entry.error) == (ERROR, DISABLED)
    bus.settle()
    assert obeying.ran == []
    enable(bus, name)
    entries, _ = send(bus, name)
    assert entries[f"{name}/default"].status == SUCCESS


def test_a_forced_command_reaches_the_others(loop, server, bus, obeying, name):
    bus.create(f"{name}-off", disabled=True)
    entries, _ = send(bus, name, f"{name}-off", force_push=True)
    assert entries[f"{name}/default"].status == SUCCESS
    assert entries[f"{name}-off/default"].error == DISABLED


def queue(bus, name):
    return list(bus.ask("cmd.queue", targets={"ids": [name]}).commands)


def test_queued_commands_wait_until_the_device_is_enabled(bus, obeying, name):
    disable(bus, name)
    entries, _ = send(bus, name, payload={"percent": 3}, queue=True)
    assert entries[f"{name}/default"].status == QUEUED_STATUS
    obeying.heartbeat(name)
    await_problem(bus, name)
    assert [command.state for command in queue(bus, name)] == [QUEUED] and obeying.ran == []
    enable(bus, name)
    obeying.heartbeat(name)
    wait_until(lambda: [c.state for c in queue(bus, name)] == [DONE], DEADLINE_S, "it ran")
    assert len(obeying.ran) == 1


def test_the_time_of_a_queued_command_runs_while_the_device_is_disabled(bus, obeying, name):
    disable(bus, name)
    send(bus, name, queue=True, ttl_sec=1)
    wait_until(lambda: [c.state for c in queue(bus, name)] == [EXPIRED], DEADLINE_S, "it expired")
    assert obeying.ran == []


def test_configuration_of_a_disabled_device_is_stored_and_not_sent(loop, bus, server, name, level):
    device = ConfiguredDevice(loop, server, name, level)
    device.subscribe(f"{name}-neighbour.>", device._asked)
    device.launch()
    disable(bus, name)
    payload = b'{"interval":7}'
    ok = bus.ask("cfg.send", targets={"ids": [name]}, name="level.v1.Rate", payload=payload, payload_encoding=JSON)
    assert not ok.device_responses[f"{name}/default"].error
    request = api.UpdateDeviceRequest(targets={"ids": [name]})
    json_format.ParseDict({"level.v1.Rate": {"interval": 8}}, request.props.desired)
    bus.ask("core.update", request)
    device.flush()
    assert device.pushed == []
    enable(bus, name)
    wait_until(lambda: device.ask_desired().WhichOneof("response") == "ok", DEADLINE_S, "it is back")
    assert device.ask_desired().ok.properties["level.v1.Rate"].property == b"\x08\x08"
    device.close()


def test_configuration_stored_meanwhile_is_delivered_when_the_device_is_enabled(loop, bus, server, name, level):
    """On a connection that serves others too nothing else tells the device that it is enabled."""
    device = ConfiguredDevice(loop, server, name, level, handled=["level.v1.Rate"])
    device.subscribe(f"{name}-neighbour.>", device._asked)
    device.launch()
    disable(bus, name)
    for interval in (7, 9):
        payload = b'{"interval":%d}' % interval
        bus.ask("cfg.send", targets={"ids": [name]}, name="level.v1.Rate", payload=payload, payload_encoding=JSON)
    enable(bus, name)
    wait_until(lambda: device.pushed, DEADLINE_S, "the stored value is delivered")
    (pushed,) = device.pushed
    assert (pushed.headers["mir-msg"], pushed.data) == ("level.v1.Rate", b"\x08\x09")
    assert device.calls == [("level.v1.Rate", b""), ("level.v1.Rate", b"\x08\x09")]
    asked = device.ask_desired().ok.properties["level.v1.Rate"]
    assert (asked.property, asked.time) == (pushed.data, pushed.headers["mir-time"])
    # A value that the device has is told again under its time: no handler is called.
    disable(bus, name)
    enable(bus, name)
    wait_until(lambda: len(device.pushed) == 2, DEADLINE_S, "it is told again")
    assert len(device.calls) == 2
    device.close()


def test_an_update_that_enables_a_device_delivers_what_it_brings_and_what_was_stored(loop, bus, server, name, level):
    device = ConfiguredDevice(loop, server, name, level, handled=["level.v1.Rate"])
    device.subscribe(f"{name}-neighbour.>", device._asked)
    device.launch()
    disable(bus, name)
    request = api.UpdateDeviceRequest(targets={"ids": [name]}, spec={"disabled": False})
    json_format.ParseDict({"level.v1.Rate": {"interval": 5}}, request.props.desired)
    bus.ask("core.update", request)
    wait_until(lambda: ("level.v1.Rate", b"\x08\x05") in device.calls, DEADLINE_S, "it is delivered")
    device.flush()
    assert len(device.calls) == 2
    device.close()


# --- events


def test_who_disabled_and_enabled_a_device_is_told(bus, name):
    bus.create(name)
    request = api.UpdateDeviceRequest(targets={"ids": [name]}, spec={"disabled": True})
    bus.raw("core.update", request.SerializeToString(), {"mir-request-id": "ticket 8"})
    enable(bus, name)
    disabled, enabled = [e for e in stored(bus, name) if e.spec.reason in ("DeviceDisabled", "DeviceEnabled")]
    assert [disabled.spec.reason, enabled.spec.reason] == ["DeviceDisabled", "DeviceEnabled"]
    audit = disabled.spec.audit
    assert (audit.actor, audit.address, audit.request_id) == ("anonymous", "127.0.0.1", "ticket 8")
    assert json.loads(disabled.spec.json_payload)["spec"]["disabled"] is True
    kinds = [event.kind for event in bus.events(name)]
    assert kinds == ["devicecreated", "devicedisabled", "deviceupdated", "deviceenabled", "deviceupdated"]


def test_what_is_disabled_already_is_no_event(bus, name):
    bus.create(name, disabled=True)
    disable(bus, name)
    assert reasons(bus, name) == ["DeviceCreated", "DeviceUpdated"]


def test_disabling_needs_nobody_there(bus, name):
    bus.create(name)
    disable(bus, name)
    with pytest.raises(Refused):
        bus.ask("core.update", targets={}, spec={"disabled": True})
    assert bus.device(name).spec.disabled
