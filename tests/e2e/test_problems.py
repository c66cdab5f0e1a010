# SPDX-License-Identifier: Apache-2.0
"""What goes wrong with a device is shown on its twin, and its rate has a bound."""

import pytest
from bus import Bus
from load import await_problem, problems_of, reading, readings_kind, status_of, telemetry
from test_telemetry import launch_device

from wire import Wire

pytestmark = pytest.mark.alone("it knows no devices")


@pytest.fixture
def place(launch, loop, name):
    """A server that takes 50 messages a second of a device, a bus, and a device that it knows."""
    kind = readings_kind(name)
    server = launch({"limits.device_rate": "50"})
    bus = Bus(loop, server)
    device = f"{name}-d"
    launch_device(bus, device, kind)
    yield server, bus, kind, device
    bus.close()


def problems_of_twin(bus, device):
    (twin,) = bus.list(ids=[device])
    return {problem.kind: problem for problem in twin.status.problems}


def test_a_device_without_trouble_shows_none(place):
    _, bus, _, device = place
    assert problems_of_twin(bus, device) == {}


def test_what_went_wrong_is_shown_on_the_twin(place):
    server, bus, kind, device = place
    wire = Wire(server.address).connect()
    wire.send(telemetry(device, b"\xff\xff\xff", name=kind.name("Reading"))).settle()
    await_problem(server, device, "bad payload")
    problem = problems_of_twin(bus, device)["bad payload"]
    assert problem.count == 1
    assert kind.name("Reading") in problem.message
    assert problem.last_at.seconds > 0
    wire.close()


def test_a_flood_is_refused_and_counted_for_its_device_alone(place, name):
    server, bus, kind, device = place
    other = f"{name}-calm"
    launch_device(bus, other, kind)
    before = status_of(server)["telemetry"]
    wire = Wire(server.address).connect()
    # Both on one connection: a second's worth of messages is fine, what is more is not.
    wire.send(b"".join(reading(kind, device, number) for number in range(1000)))
    wire.send(b"".join(reading(kind, other, number) for number in range(40)))
    wire.settle()
    await_problem(server, device, "flood")
    refused = problems_of_twin(bus, device)["flood"].count
    # One second at 50, and as many as the sending itself took time for.
    assert 800 <= refused <= 1000 - 50
    assert problems_of_twin(bus, other) == {}
    after = status_of(server)["telemetry"]
    assert after["rows_accepted"] - before["rows_accepted"] == 1040 - refused
    wire.close()


def test_what_is_no_event_is_a_problem_of_its_id_and_no_loss(place):
    server, bus, _, device = place
    wire = Wire(server.address).connect()
    subject = b"event.%s.door.v1.opened" % device.encode()
    wire.send(b"PUB %s 3\r\n\xff\xff\xff\r\n" % subject * 3)
    wire.send(b"PUB %s 0\r\n\r\n" % subject).settle()
    await_problem(server, device, "bad event", 3)
    problem = problems_of_twin(bus, device)["bad event"]
    assert problem.count == 3 and problem.message.startswith(f"event.{device}.door.v1.opened: ")
    assert problems_of(server, "") == {}
    wire.close()
