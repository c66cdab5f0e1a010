# SPDX-License-Identifier: Apache-2.0
"""Events of what the server refused, and of schemas that changed."""

import hashlib
import json

import pytest
from bus import DEADLINE_S, PUMP, api, schema_of

from wire import Wire, wait_until

pytestmark = pytest.mark.alone("it has no such events")


def stored(bus, device, reason):
    return list(bus.ask("evt.list", target={"device_ids": [device], "reasons": [reason]}).events)


def await_stored(bus, device, reason):
    return wait_until(lambda: stored(bus, device, reason), DEADLINE_S, f"event {reason} of {device}")


def payload(event):
    return json.loads(event.spec.json_payload)


def send_telemetry(bus, device, count, message="a.B", body=b"x"):
    for _ in range(count):
        bus.publish(f"device.{device}.tlm.v1alpha.proto", body, headers={"mir-msg": message})
    bus.flush()


def test_another_schema_is_an_event_that_says_from_what_to_what(bus, name):
    first = schema_of(PUMP)
    other = schema_of('syntax = "proto3"; package other.v1; message M { int32 x = 1; }')
    bus.hello(name, first)
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    assert stored(bus, name, "SchemaChanged") == []
    bus.hello(name, other)
    (event,) = await_stored(bus, name, "SchemaChanged")
    said = payload(event)
    assert said == {
        "from": hashlib.sha256(first).hexdigest(),
        "to": hashlib.sha256(other).hexdigest(),
        "packages": ["other.v1"],
    }
    assert event.spec.audit.actor == f"device {name}"
    wait_until(lambda: bus.events(name, "schemachanged"), DEADLINE_S, "it is published")
    assert bus.events(name, "schemachanged")[0].payload == said
    # The same once more is no change.
    bus.hello(name, other)
    bus.settle()
    assert len(stored(bus, name, "SchemaChanged")) == 1


def test_refused_telemetry_is_one_event_that_counts(bus, name):
    bus.hello(name, schema_of(PUMP))
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")
    send_telemetry(bus, name, 50, "pump.v1.Flow", b"\xff\xff")
    (event,) = await_stored(bus, name, "TelemetryRefused")
    assert event.spec.type == "warning" and event.spec.audit.outcome == "failed"
    said = payload(event)
    assert said["kind"] == "bad payload" and "is not a valid protobuf message" in said["text"]
    assert said["count"] == 1 and event.spec.audit.error == said["text"]
    wait_until(lambda: bus.events(name, module="tlm"), DEADLINE_S, "it is published")
    (heard,) = bus.events(name, module="tlm")
    assert heard.kind == "telemetryrefused" and heard.payload == said
    assert dict(event.object.meta.annotations)["mir-route"] == f"event.{name}.tlm.v1alpha.telemetryrefused"


def test_telemetry_of_invented_ids_makes_no_events(bus, name):
    for i in range(20):
        send_telemetry(bus, f"{name}-{i}", 70)
    bus.create(name, disabled=True)
    send_telemetry(bus, name, 1)
    await_stored(bus, name, "TelemetryRefused")
    ids = [f"{name}-{i}" for i in range(20)]
    assert list(bus.ask("evt.list", target={"device_ids": ids}).events) == []


@pytest.fixture
def guarded(launch, connect):
    users = "[{user: anna, password: x}]"
    return launch({"auth.mode": "users", "auth.users": users, "limits.max_connections": 3})


def ask_as_admin(server, reason):
    """Through a connection that is accepted, unlike nats-py's."""
    wire = Wire(server.address).connect(user="anna", **{"pass": "x"})
    wire.sub("_INBOX.a", 1)
    target = api.ListEventsRequest(target={"device_ids": ["server"], "reasons": [reason]}).SerializeToString()
    wire.pub("client.x.evt.v1alpha.list", target, "_INBOX.a")
    answer = api.ListEventsResponse.FromString(wire.msg().body)
    wire.close()
    assert not answer.error
    return list(answer.ok.events)


def test_a_refused_login_is_an_event_that_says_who_was_tried(guarded):
    for _ in range(5):
        wire = Wire(guarded.address)
        wire.send(b'CONNECT {"verbose":false,"pedantic":false,"user":"mallory","pass":"y"}\r\nPING\r\n')
        assert wire.error() == "Authorization Violation"
        wire.close()
    (event,) = wait_until(lambda: ask_as_admin(guarded, "AuthenticationFailed"), DEADLINE_S, "it is stored")
    assert payload(event) == {
        "text": "wrong user or password",
        "user": "mallory",
        "address": "127.0.0.1",
        "count": 1,
    }
    audit = event.spec.audit
    assert (audit.actor, audit.address, audit.outcome) == ("unknown", "127.0.0.1", "failed")
    assert event.spec.type == "warning"
    route = dict(event.object.meta.annotations)["mir-route"]
    assert route == "event.server.core.v1alpha.authenticationfailed"


def test_a_login_with_a_name_that_is_no_text_is_an_event(guarded):
    wire = Wire(guarded.address)
    name = "ä" * 200
    wire.send(b'CONNECT {"verbose":false,"pedantic":false,"user":"%s","pass":"y"}\r\n' % name.encode())
    assert wire.error() == "Authorization Violation"
    wire.close()
    (event,) = wait_until(lambda: ask_as_admin(guarded, "AuthenticationFailed"), DEADLINE_S, "it is stored")
    assert payload(event)["user"] == "ä" * 64


def test_a_connection_too_many_is_an_event(guarded):
    wires = [Wire(guarded.address).connect(user="anna", **{"pass": "x"}) for _ in range(3)]
    refused = Wire(guarded.address)
    assert refused.error() == "maximum connections exceeded"
    refused.close()
    wires.pop().close()

    def found():
        try:
            return ask_as_admin(guarded, "ConnectionRefused")
        except AssertionError:
            return None  # The connection that was closed may still count.

    (event,) = wait_until(found, DEADLINE_S, "it is stored")
    assert payload(event)["text"] == "more connections than limits.max_connections allows"
    assert payload(event)["address"] == "127.0.0.1"
    for wire in wires:
        wire.close()
