# SPDX-License-Identifier: Apache-2.0
"""What a server that was killed, or told to stop, in the middle of its work still has when it is back."""

import contextlib
import os
import random
import signal
import struct
import time

import pytest
from bus import DEADLINE_S, Bus, api
from load import (Creates, Stream, check_creates, check_rows, reading, readings_kind, status_of,
                  telemetry)
from test_telemetry import launch_device

from servers import BACKEND, SANITIZER, ended_within
from wire import PATIENCE, Wire, let_pass, wait_until

pytestmark = pytest.mark.alone("it keeps no data")

ROUNDS = 20
FRAME_MAGIC = b"MFRM"


@contextlib.contextmanager
def heard_by(loop, server):
    bus = Bus(loop, server)
    try:
        yield bus
    finally:
        bus.close()


def crash(server):
    server.kill()
    assert not SANITIZER.search(server.log()), server.tail(200)


@pytest.mark.timeout(150)
def test_kill_at_any_instant(launch, loop, name):
    """What a PONG covered and what a reply confirmed is there after each of many kills, and nothing is there twice."""
    seed = int(os.environ.get("MIR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"MIR_TEST_SEED={seed}")
    dice = random.Random(seed)
    kind = readings_kind(name)
    # So large that no row is refused however slow the disk is: that would be counted, and be right. What
    # a round left in logs is sealed while the next one runs, so that segments are in the making, too.
    server = launch({"telemetry.log_bytes_max": "48MiB"})
    devices = [f"{name}-d{n}" for n in range(4)]
    with heard_by(loop, server) as bus:
        for device in devices:
            launch_device(bus, device, kind)
    done = {device: set() for device in devices}
    first = dict.fromkeys(devices, 0)
    every_create = []
    covered_total = 0
    for n in range(ROUNDS):
        streams = [Stream(server, kind, device, batch=40 + 60 * i, first=first[device])
                   for i, device in enumerate(devices)]
        creates = [Creates(server, f"{name}-r{n}x{i}") for i in range(2)]
        for thread in [*streams, *creates]:
            thread.start()
        wait_until(lambda: any(s.covered > s.first for s in streams) and any(c.confirmed for c in creates),
                   2 * DEADLINE_S, "load on its way")
        let_pass(dice.uniform(0, 0.5))
        crash(server)
        for thread in [*streams, *creates]:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        assert not any(stream.wrong for stream in streams), [stream.wrong for stream in streams]
        server.start()
        with heard_by(loop, server) as bus:
            for stream in streams:
                there = check_rows(bus, kind, stream.device, stream.covered, stream.sent, stream.first)
                done[stream.device].update(there)
                covered_total += stream.covered - stream.first
                first[stream.device] = stream.sent
            for create in creates:
                check_creates(bus, create)
        every_create += creates
        log = status_of(server)["telemetry"]
        # All that the files hold, logs and segments, is no more than was ever there.
        assert log["replayed_rows"] <= sum(map(len, done.values()))
        assert log["corrupt_frames"] == log["corrupt_chunks"] == 0
    assert covered_total > 0
    # Nothing that was there once went away later.
    with heard_by(loop, server) as bus:
        for device in devices:
            assert set(check_rows(bus, kind, device, 0, first[device])) == done[device]
        for create in every_create:
            check_creates(bus, create)
    print(f"{covered_total} rows covered, {sum(len(c.confirmed) for c in every_create)} creates confirmed")


def frames_of(data):
    """Where the frames of a log begin, by docs/formats/telemetry-log.md, and their sizes."""
    at, found = 128, []
    while data[at : at + 4] == FRAME_MAGIC:
        size = 32 + (struct.unpack_from("<I", data, at + 4)[0] + 7) // 8 * 8
        found.append((at, size))
        at += size
    return found


@pytest.mark.parametrize("how", ["cut off", "half written", "never written"])
def test_a_torn_tail_is_cut_and_reported(launch, loop, name, how):
    kind = readings_kind(name)
    device = f"{name}-d"
    server = launch(shards=1)
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
    wire = Wire(server.address).connect()
    for first in (0, 50):
        wire.send(b"".join(reading(kind, device, number) for number in range(first, first + 50))).settle()
    wire.close()
    crash(server)
    logs = [path for path in (server.folder / "data" / "telemetry").glob("*.log") if frames_of(path.read_bytes())]
    path, = logs
    frames = frames_of(path.read_bytes())
    at, size = frames[-1]
    with open(path, "r+b") as log:
        if how == "cut off":
            log.truncate(at + size // 2)
        else:
            # As preallocated: zeros where nothing was written.
            hole = at + (size // 2 if how == "half written" else 16)
            log.seek(hole)
            log.write(bytes(at + size - hole))
    server.start()
    assert "torn tail" in server.log()
    with heard_by(loop, server) as bus:
        numbers = check_rows(bus, kind, device, 50, 100)
        assert numbers == list(range(len(numbers))), "rows after the tear"
        assert len(numbers) < 100
    assert status_of(server)["telemetry"]["torn_bytes_cut"] > 0
    # What was cut is gone once the rest is in a segment.
    wait_until(lambda: status_of(server)["telemetry"]["segments"] == 1, 2 * DEADLINE_S, "the log is sealed")
    crash(server)
    server.start()
    assert "torn tail" not in server.log()
    with heard_by(loop, server) as bus:
        assert check_rows(bus, kind, device, 50, 100) == numbers


@pytest.mark.parametrize(("backend", "before", "after"), [(BACKEND, 2, 3), ("epoll", 3, 1)],
                         ids=lambda value: str(value))
def test_a_stop_under_load_loses_nothing(launch, loop, name, backend, before, after):
    """SIGTERM ends it within two seconds, well, and another number of shards finds everything."""
    kind = readings_kind(name)
    server = launch({"io.backend": backend}, shards=before)
    devices = [f"{name}-d{n}" for n in range(4)]
    with heard_by(loop, server) as bus:
        for device in devices:
            launch_device(bus, device, kind)
    first = dict.fromkeys(devices, 0)
    for n, shards in enumerate([after, before]):
        streams = [Stream(server, kind, device, first=first[device]) for device in devices]
        creates = [Creates(server, f"{name}-s{n}x{i}") for i in range(2)]
        for thread in [*streams, *creates]:
            thread.start()
        wait_until(lambda: all(s.covered > s.first for s in streams) and all(c.confirmed for c in creates),
                   2 * DEADLINE_S, "load on its way")
        server.signal(signal.SIGTERM)
        assert ended_within(server, 10 * PATIENCE) < 2 * PATIENCE
        assert server.process.returncode == 0, server.tail()
        assert server.log().rstrip().endswith("stopped")
        for thread in [*streams, *creates]:
            thread.join(DEADLINE_S)
            assert not thread.is_alive()
        server.shards = shards
        server.start()
        status = status_of(server)
        assert len(status["shards"]) == shards
        assert status["telemetry"]["torn_bytes_cut"] == 0
        with heard_by(loop, server) as bus:
            for stream in streams:
                check_rows(bus, kind, stream.device, stream.covered, stream.sent, stream.first)
                first[stream.device] = stream.sent
            for create in creates:
                create.refused.clear()  # The stop may be said as an error; that is no confirmation.
                check_creates(bus, create)


def test_a_full_log_is_replayed_quickly(launch, loop, name):
    """The unsealed log is bounded, and with it the time until the server is back; it says what it replayed."""
    kind = readings_kind(name)
    device = f"{name}-d"
    # So that nothing is sealed before 64 MiB are written, the default of one shard. The one device sends as fast as
    # this machine takes it, which may be more than the default of limits.device_rate.
    server = launch({"telemetry.log_bytes_max": "256MiB", "limits.device_rate": "0"}, shards=1)
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
    # Without a time of their own these all get that of their arrival: what counts here is their number.
    block = telemetry(device, kind.Reading(number=7, root=0.5, text="twenty bytes of text")) * 20_000
    wire = Wire(server.address).connect()
    wanted = (64 << 20) // int(os.environ.get("MIR_TEST_SCALE", "1"))
    sent = 0
    while (log := status_of(server)["telemetry"])["log_bytes"] < wanted:
        for _ in range(4):
            wire.send(block)
            sent += 20_000
        wire.flush(2 * DEADLINE_S)
    wire.close()
    assert log["rows_refused"] == 0 and log["segments"] == 0
    crash(server)
    begin = time.monotonic()
    server.start()
    took = time.monotonic() - begin
    assert took < 2 * PATIENCE, server.log()
    rows = status_of(server)["telemetry"]["replayed_rows"]
    assert rows == sent
    assert f"{rows} rows" in server.log()
    print(f"{rows} rows of {log['log_bytes']} bytes: ready after {took:.2f} s")


def test_a_burst_right_after_a_restart(launch, loop, name):
    """A device need not wait until the server has read what it knows of it: all that it sends is stored."""
    kind = readings_kind(name)
    device = f"{name}-d"
    server = launch()
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
    for first in (0, 3000, 6000):
        crash(server)
        server.start()
        wire = Wire(server.address).connect()
        wire.send(b"".join(reading(kind, device, number) for number in range(first, first + 3000))).settle()
        wire.close()
        with heard_by(loop, server) as bus:
            check_rows(bus, kind, device, first + 3000, first + 3000)


def test_changes_of_a_device_that_streams(launch, loop, name):
    """Whatever is changed about a device, its telemetry goes on, and what a PONG covered outlives a crash."""
    kind = readings_kind(name)
    device = f"{name}-d"
    server = launch()
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
        stream = Stream(server, kind, device)
        stream.start()
        label = api.OptString
        for n in range(50):
            bus.ask("core.update", targets={"ids": [device]}, meta={"labels": {"n": label(value=str(n))}})
            bus.heartbeat(device)
        bus.hello(device, kind.set)
        covered = stream.covered
        wait_until(lambda: stream.covered > covered or stream.wrong, DEADLINE_S, "the stream goes on")
        crash(server)
        stream.join(DEADLINE_S)
    server.start()
    with heard_by(loop, server) as bus:
        check_rows(bus, kind, device, stream.covered, stream.sent)
        assert dict(bus.device(device).meta.labels) == {"n": "49"}


def delete_under_kills(launch, loop, prefix, dice):
    """Deletes a fleet, killing the server in each attempt; whether one of the kills came midway."""
    # So many that it takes several commits.
    devices = {f"{prefix}-{n}" for n in range(4500)}
    server = launch()
    with heard_by(loop, server) as bus:
        new = [{"meta": {"namespace": prefix}, "spec": {"device_id": device}} for device in sorted(devices)]
        bus.ask("core.creates", devices=new)
    left, midway = set(devices), False
    while left:
        with heard_by(loop, server) as bus:
            asked = api.DeleteDeviceRequest(targets={"namespaces": [prefix]})
            bus.send("core.delete", asked.SerializeToString(), bus.answer_name())
            wait_until(lambda: bus.events(None, "devicedeleted"), DEADLINE_S, "the deletion has begun")
            let_pass(dice.uniform(0, 0.02))
            crash(server)
            told = {event.device for event in bus.events(None, "devicedeleted")}
        server.start()
        with heard_by(loop, server) as bus:
            there = {device.spec.device_id for device in bus.list(namespaces=[prefix])}
            assert there <= left and told <= left - there
            left, midway = there, midway or bool(there)
            stored, target = [], {"reasons": ["DeviceDeleted"], "filter_limit": 1000}
            while page := bus.ask("evt.list", target=target).events:
                stored += [event.spec.related_object.meta.name for event in page]
                target["before_sequence"] = page[-1].status.sequence
            assert sorted(stored) == sorted(devices - left)
    return midway


def test_a_deletion_that_is_killed_is_told_as_far_as_it_came(launch, loop, name):
    """Each device of a large deletion is either there as before, or gone with the one event that says so."""
    dice = random.Random(4711)
    # Where the machine has just then better things to do than to kill, all may be gone already.
    assert any(delete_under_kills(launch, loop, f"{name}-{attempt}", dice) for attempt in range(10))
