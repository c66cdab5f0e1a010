# SPDX-License-Identifier: Apache-2.0
"""Devices that send what they should not: it is counted for them, and nobody else notices."""

import contextlib
import os
import random
import threading
import time

import pytest
from bus import DEADLINE_S, Bus, api, zstd
from google.protobuf import descriptor_pb2
from load import (await_problem, check_rows, problems_of, reading, readings_kind, status_of, telemetry,
                  text_of_problem)
from test_telemetry import START_NS, launch_device

from wire import PATIENCE, Violation, Wire, connect_line, wait_until

pytestmark = pytest.mark.alone("it knows no devices")

SCALE = int(os.environ.get("MIR_TEST_SCALE", "1"))
MIB = 1 << 20
# Of telemetry messages a second: the witness sends at most a fifth of it.
DEVICE_RATE = 5000


class Witness(threading.Thread):
    """A device like any other, on a connection of its own: how long its PONGs took, and what it sent."""

    def __init__(self, server, kind, device):
        super().__init__(daemon=True)
        self.server, self.kind, self.device = server, kind, device
        self.sent = 0
        self.worst_s = 0.0
        self.failure = None
        self.stopping = threading.Event()
        self.wire = Wire(server.address).connect()

    def run(self):
        try:
            while not self.stopping.wait(0.005):
                numbers = range(self.sent, self.sent + 5)
                self.wire.send(b"".join(reading(self.kind, self.device, number) for number in numbers))
                begin = time.monotonic()
                self.wire.settle()
                self.worst_s = max(self.worst_s, time.monotonic() - begin)
                self.sent += 5
        except (OSError, Violation) as failure:
            self.failure = failure


@pytest.fixture
def calm(launch, loop, name):
    """A server on which a device that does nothing wrong must not notice what the test does."""
    kind = readings_kind(f"witness_{name}")
    device = f"{name}-witness"
    server = launch({"schema.request_timeout": "300ms", "limits.device_rate": str(DEVICE_RATE)})
    bus = Bus(loop, server)
    launch_device(bus, device, kind)
    witness = Witness(server, kind, device)
    witness.start()
    wait_until(lambda: witness.sent >= 10, DEADLINE_S, "the witness sends")
    yield server
    end = witness.sent + 25
    wait_until(lambda: witness.sent >= end or witness.failure, DEADLINE_S, "the witness sends")
    witness.stopping.set()
    witness.join(DEADLINE_S)
    assert witness.failure is None, witness.failure
    check_rows(bus, kind, device, witness.sent, witness.sent)
    assert problems_of(server, device) == {}
    # Generous: two cores are shared with the tests themselves.
    assert witness.worst_s < 1 * PATIENCE, f"the witness waited for {witness.worst_s:.2f} s"
    bus.close()
    witness.wire.close()


@pytest.fixture
def calm_bus(calm, connect):
    return connect(calm)


# Telemetry


def test_telemetry_that_is_wrong(calm, calm_bus, dial, name):
    kind = readings_kind(name)
    device = f"{name}-d"
    launch_device(calm_bus, device, kind)
    good = kind.Reading(ts=START_NS, number=0, root=0, text=f"{device}/0")
    wire = dial.quiet(calm)
    message = kind.name("Reading")
    wire.send(telemetry(device, b"\xff\xff\xff", message) * 7).settle()
    wire.send(telemetry(device, good.SerializeToString()[:-1], message) * 3).settle()
    wire.send(telemetry(device, good.SerializeToString(), name="") * 4).settle()
    wire.send(b"PUB device.%b.tlm.v1alpha.proto 3\r\nabc\r\n" % device.encode() * 2).settle()
    wire.send(telemetry(device, good)).settle()
    await_problem(calm, device, "bad payload", 10)
    assert problems_of(calm, device) == {"bad payload": 10, "unknown message": 6}
    assert "not a valid protobuf message" in text_of_problem(calm, device, "bad payload")
    assert check_rows(calm_bus, kind, device, 1, 1) == [0]


def test_a_message_that_the_schema_does_not_have(calm, calm_bus, dial, name):
    kind = readings_kind(name)
    device = f"{name}-d"
    launch_device(calm_bus, device, kind)
    wire = dial.quiet(calm)
    for _ in range(3):
        wire.send(telemetry(device, b"\x08\x01", "no.such.v1.Message") * 100).settle()
    # Some wait while the device is asked whether it has learnt the message; nobody answers.
    await_problem(calm, device, "unknown message", 100)
    assert "no.such.v1.Message" in text_of_problem(calm, device, "unknown message")
    wire.send(reading(kind, device, 0)).settle()
    wait_until(lambda: check_rows(calm_bus, kind, device, 0, 1) == [0], 2 * DEADLINE_S, "the good row")


def test_telemetry_without_a_schema(calm, calm_bus, dial, name):
    device = f"{name}-d"
    calm_bus.heartbeat(device)
    wire = dial.quiet(calm)
    wire.send(telemetry(device, b"\x08\x01", "some.v1.Message") * 500).settle()
    await_problem(calm, device, "no schema")
    # 64 wait for it; the others do not.
    await_problem(calm, device, "telemetry refused", 400)
    assert "no responders" in text_of_problem(calm, device, "no schema")


def test_telemetry_of_a_device_that_nobody_provisioned(calm, calm_bus, dial, name):
    device = f"{name}-d"
    wire = dial.quiet(calm)
    wire.send(telemetry(device, b"\x08\x01", "some.v1.Message") * 500).settle()
    # 64 wait for a heartbeat; the others do not.
    await_problem(calm, device, "telemetry refused", 400)
    wire.send(telemetry(device, b"\x08\x01", "some.v1.Message")).settle()
    wait_until(lambda: "not provisioned" in text_of_problem(calm, device, "telemetry refused"), DEADLINE_S, "reason")
    assert calm_bus.device(device) is None


def test_ids_that_nobody_may_have(calm, dial):
    wire = dial.quiet(calm)
    before = status_of(calm)["telemetry"]["rows_refused"]
    for device in ("client", "_INBOX", "x" * 200):
        wire.send(telemetry(device, b"\x08\x01", "some.v1.Message") * 10).settle()
    assert status_of(calm)["telemetry"]["rows_refused"] == before + 30


# Schemas


def schema_set(*files):
    return descriptor_pb2.FileDescriptorSet(file=files)


def file_of(name, package="hostile.v1"):
    return descriptor_pb2.FileDescriptorProto(name=name, package=package, syntax="proto3")


def nested(levels):
    # By hand: libraries refuse to build what is so deep. DescriptorProto.nested_type is field 3.
    body = b"\x0a\x01m"
    for _ in range(levels):
        body = b"\x0a\x01m\x1a" + varint(len(body)) + body
    file = b"\x0a\x07a.proto\x12\x0ahostile.v1\x22" + varint(len(body)) + body
    return b"\x0a" + varint(len(file)) + file


def varint(value):
    out = bytearray()
    while value >= 0x80:
        out.append(value & 0x7F | 0x80)
        value >>= 7
    out.append(value)
    return bytes(out)


def self_import():
    file = file_of("a.proto")
    file.dependency.append("a.proto")
    file.message_type.add(name="M").field.add(name="x", number=1, type=5, label=1)
    return schema_set(file).SerializeToString()


def import_cycle():
    files = [file_of(f"{n}.proto", f"cycle{n}.v1") for n in range(3)]
    for n, file in enumerate(files):
        file.dependency.append(f"{(n + 1) % 3}.proto")
        field = file.message_type.add(name="M").field.add(name="x", number=1, type=11, label=1)
        field.type_name = f".cycle{(n + 1) % 3}.v1.M"
    return schema_set(*files).SerializeToString()


def many_fields():
    # {name: "f", number: n, label: optional, type: int32}, a million times.
    out = bytearray(b"\x0a\x01M")
    for number in range(1, 1_000_001):
        name = b"f%d" % number
        field = b"\x0a" + varint(len(name)) + name + b"\x18" + varint(number) + b"\x20\x01\x28\x05"
        out += b"\x12" + varint(len(field)) + field
    file = b"\x0a\x07a.proto\x12\x0ahostile.v1\x22" + varint(len(out)) + bytes(out)
    return b"\x0a" + varint(len(file)) + file


def dangling_type():
    file = file_of("a.proto")
    file.message_type.add(name="M").field.add(name="x", number=1, type=11, label=1, type_name=".not.there.T")
    return schema_set(file).SerializeToString()


def same_name_twice():
    file = file_of("a.proto")
    for _ in range(2):
        file.message_type.add(name="M").field.add(name="x", number=1, type=5, label=1)
    return schema_set(file).SerializeToString()


def bomb():
    """100 MiB of zeros in a few kilobytes."""
    return bytes(100 * MIB)


HOSTILE = {
    "nested 10,000 deep": lambda: nested(10_000),
    "nested 100,000 deep": lambda: nested(100_000),
    "a million fields": many_fields,
    "a type that is not there": dangling_type,
    "a name twice": same_name_twice,
    "a bomb": bomb,
    "noise": lambda: random.Random(7).randbytes(10_000),
    "cut": lambda: self_import()[:-2],
}


def hello(device, body, encoding="mir-zstd"):
    header = f"NATS/1.0\r\nmir-content: mir-hello\r\nmir-content-encoding: {encoding}\r\n\r\n".encode()
    subject = f"device.{device}.core.v1alpha.hearthbeat".encode()
    return b"HPUB %b %d %d\r\n%b%b\r\n" % (subject, len(header), len(header) + len(body), header, body)


def in_hello(schema):
    """DeviceHello{hello: {schema}} by hand, as the schema may be larger than libraries like."""
    template = api.DeviceHello(hello={"schema": b"S"}).SerializeToString()
    # Two nested length-delimited fields around the one byte.
    outer, inner = template[0:1], template[2:3]
    middle = inner + varint(len(schema)) + schema
    return outer + varint(len(middle)) + middle


@pytest.mark.parametrize("what", HOSTILE, ids=lambda what: what.replace(" ", "-"))
def test_a_hostile_schema(calm, calm_bus, dial, name, what):
    """Is refused with a reason, for the device that sent it."""
    device = f"{name}-d"
    before = calm.memory_bytes()
    wire = dial.quiet(calm)
    body = zstd(in_hello(HOSTILE[what]()))
    wire.send(hello(device, body)).settle()
    await_problem(calm, device, "bad schema")
    assert text_of_problem(calm, device, "bad schema") != ""
    # The heartbeat in it counts, and the schema does not.
    wait_until(lambda: calm_bus.device(device) is not None, DEADLINE_S, "the device")
    assert calm_bus.device(device).status.schema.compressed_schema == b""
    # Ten more times: it costs nothing that stays.
    wire.send(hello(device, body) * 10).settle()
    await_problem(calm, device, "bad schema", 11)
    assert calm.memory_bytes() - before < 200 * MIB


@pytest.mark.parametrize("what", ["self import", "import cycle"])
def test_schemas_that_are_odd_but_harmless(calm, calm_bus, dial, name, what):
    """Taken or refused, but at once; the device goes on either way."""
    device = f"{name}-d"
    wire = dial.quiet(calm)
    wire.send(hello(device, zstd(in_hello({"self import": self_import, "import cycle": import_cycle}[what]())))).settle()

    def judged():
        found = calm_bus.device(device)
        taken = found is not None and found.status.schema.compressed_schema != b""
        return taken or problems_of(calm, device).get("bad schema")

    wait_until(judged, DEADLINE_S, "the schema is judged")
    kind = readings_kind(name)
    calm_bus.hello(device, kind.set)
    wait_until(lambda: f"{kind.package}.v1" in calm_bus.device(device).status.schema.package_names, DEADLINE_S,
               "the schema after it")


@pytest.mark.parametrize(("body", "encoding"), [(random.Random(1).randbytes(5000), "mir-zstd"),
                                                (random.Random(2).randbytes(5000), "none"),
                                                (zstd(random.Random(3).randbytes(5000)), "mir-zstd"),
                                                (zstd(b"x" * 1000)[:-5], "mir-zstd")],
                         ids=["no-zstd", "plain", "compressed", "cut"])
def test_noise_as_a_hello(calm, calm_bus, dial, name, body, encoding):
    device = f"{name}-d"
    dial.quiet(calm).send(hello(device, body, encoding)).settle()
    await_problem(calm, device, "bad schema")
    wait_until(lambda: calm_bus.device(device) is not None, DEADLINE_S, "the device")
    assert calm_bus.device(device).status.online


# Floods


def test_a_device_that_floods(calm, calm_bus, dial, name):
    """Is cut to the rate that one device may have and counted; nobody else waits for it."""
    kind = readings_kind(name)
    device = f"{name}-d"
    launch_device(calm_bus, device, kind)
    wire = dial.quiet(calm)
    block = b"".join(reading(kind, device, number) for number in range(1000)) * 50
    before = calm.memory_bytes()
    for _ in range(max(12 // SCALE, 2)):
        wire.send(block)
    wire.flush(4 * DEADLINE_S)
    assert calm.memory_bytes() - before < 300 * MIB
    await_problem(calm, device, "flood")
    log = status_of(calm)["telemetry"]
    assert log["rows_refused"] >= problems_of(calm, device)["flood"]
    assert check_rows(calm_bus, kind, device, 0, 1000) != []


def test_floods_of_many_unknown_devices(calm, dial, name):
    """Ids without end cost a bounded amount of memory, and the list of problems stays short."""
    before = calm.memory_bytes()
    wire = dial.quiet(calm)
    count = 20_000 // SCALE
    for start in range(0, count, 1000):
        wire.send(b"".join(telemetry(f"{name}-{n}", b"\x08\x01", "some.v1.Message")
                           for n in range(start, start + 1000))).settle()
    assert calm.memory_bytes() - before < 100 * MIB
    assert len(status_of(calm)["problems"]) <= 256


# Connections


@contextlib.contextmanager
def many(server, count, first):
    """Connections that have sent `first(n)` and no more."""
    wires = []
    try:
        for n in range(count):
            wires.append(Wire(server.address, info=False))
            if data := first(n):
                wires[-1].try_send(data)
        yield wires
    finally:
        for wire in wires:
            wire.abort()


@pytest.mark.timeout(120)
def test_ten_thousand_half_open_connections(calm, name):
    before = calm.memory_bytes()
    beginnings = [b"", b"C", connect_line(verbose=False)[:20], connect_line(verbose=False), b"PI"]
    count = 10_000 // SCALE
    with many(calm, count, lambda n: beginnings[n % len(beginnings)]):
        wait_until(lambda: status_of(calm)["connections"] >= count, 2 * DEADLINE_S, "all are accepted")
        held = calm.memory_bytes() - before
        assert held < 160 * MIB, f"{held / count:.0f} bytes each"
    wait_until(lambda: status_of(calm)["connections"] < 50, 4 * DEADLINE_S, "all are gone")


@pytest.mark.timeout(120)
def test_payloads_announced_and_never_sent(calm, name):
    before = calm.memory_bytes()
    count = 2000 // SCALE
    whole = 8 * MIB
    head = b"NATS/1.0\r\nmir-msg: some.v1.Message\r\n\r\n"
    publish = f"HPUB device.{name}-d.tlm.v1alpha.proto {len(head)} {whole}\r\n".encode() + head
    login = connect_line(verbose=False, headers=True)
    starts = [login + publish, login + publish + b"x" * 3000, login + b"PUB a %d\r\n" % whole,
              login + b"PUB a %d\r\n" % whole + b"y" * 20_000]
    with many(calm, count, lambda n: starts[n % len(starts)]):
        wait_until(lambda: status_of(calm)["connections"] >= count, 2 * DEADLINE_S, "all are accepted")
        held = calm.memory_bytes() - before
        assert held < 200 * MIB, f"{held / count:.0f} bytes each"
    wait_until(lambda: status_of(calm)["connections"] < 50, 4 * DEADLINE_S, "all are gone")
