# SPDX-License-Identifier: Apache-2.0
"""What went wrong once."""

from bus import DEADLINE_S, api, zstd
from google.protobuf import descriptor_pb2
from load import status_of, telemetry
from test_telemetry import CHANGING, START_NS, Kind, query, report, rows_of

from wire import Wire, wait_until

COUNT = 200
ABSENT_MAX = 16384  # per shard: MIR_TWINS_ABSENT_MAX


def test_a_type_that_nobody_explains_holds_no_other_up(bus, name):
    """The device does not answer the question for its schema. Everything that followed the unknown type
    waited behind it for good, and was refused from the 65th message on."""
    known = Kind(CHANGING.replace("VALUE", "int64"), f"{name}known")
    unknown = Kind(CHANGING.replace("VALUE", "int64"), f"{name}unknown")
    bus.create(name)
    packages = [f"{known.package}.v1", "google.protobuf", "mir.device.v1"]
    bus.ask("core.update", targets={"ids": [name]},
            status={"schema": {"compressed_schema": zstd(known.set), "package_names": packages}})
    for number in range(COUNT):
        if number % 20 == 0:
            report(bus, name, unknown.T(ts=START_NS + number, v=number), flush=False)
        report(bus, name, known.T(ts=START_NS + number, v=number), flush=False)
    bus.flush()
    rows = wait_until(lambda: rows_of(query(bus, name, known.name("T"))), DEADLINE_S, "rows")
    assert [row[-1] for row in rows] == list(range(COUNT))


def test_a_device_is_not_forgotten_while_its_schema_is_read(launch, connect, name):
    """Where too many unknown ids speak, it was forgotten when the store did not know it, and what was read then
    counted for the one that its next message made: that one waited for good for a schema on its way."""
    server = launch({"limits.device_rate": "0"}, shards=1)
    bus = connect(server)
    wire = Wire(server.address).connect()
    wire.send(b"".join(telemetry(f"{name}-u{n}", b"x", "a.B") for n in range(ABSENT_MAX + 500)))
    wire.settle()
    large = descriptor_pb2.FileDescriptorSet()
    file = large.file.add(name="large.proto", package="large", syntax="proto3")
    for n in range(6000):
        message = file.message_type.add(name=f"M{n}")
        message.field.add(name="a_field_with_a_long_name", number=1, label=1, type=3)
    push = api.SchemaRetrieveResponse(schema=large.SerializeToString()).SerializeToString()
    kind = Kind(CHANGING.replace("VALUE", "int64"), name)
    for turn in range(5):
        device = f"{name}-{turn}"
        bus.publish(f"device.{device}.core.v1alpha.schema", push)
        for number in range(30):
            report(bus, device, kind.T(ts=START_NS + number, v=number))
        bus.hello(device, kind.set)
        report(bus, device, *[kind.T(ts=START_NS + number, v=number) for number in range(COUNT)])
        assert [row[-1] for row in rows_of(query(bus, device, kind.name("T")))] == list(range(COUNT))
    push = api.SchemaRetrieveResponse(schema=b"").SerializeToString()
    for number in range(500):
        bus.publish(f"device.{name}-v{number}.core.v1alpha.schema", push)
    bus.flush()
    wait_until(lambda: status_of(server)["shards"][0]["twins"] <= ABSENT_MAX + 50, DEADLINE_S, "nobody knows them")
