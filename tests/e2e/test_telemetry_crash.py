# SPDX-License-Identifier: Apache-2.0
"""A server that is killed while it seals, merges and removes telemetry: every row that a PONG covered is there, once."""

import os
import random
import shutil
import subprocess
import time

import pytest
from bus import DEADLINE_S, Bus
from load import Stream, check_rows, readings_kind, row_of, rows_between, status_of, telemetry
from test_telemetry import SECOND_NS, launch_device

from servers import BINARY, SANITIZER
from wire import PATIENCE, Wire, let_pass, wait_until

pytestmark = pytest.mark.alone("it keeps no data")

ROUNDS = int(os.environ.get("MIR_TEST_ROUNDS", "20"))

# Logs of a third of a MiB, so that each round fills one; all that a round sends is less than three quarters of what may
# be unsealed, so that no row is refused however slow the disk is.
SETTINGS = {
    "limits.max_payload": "1MiB",
    "telemetry.log_bytes_max": "1MiB",
    "telemetry.retention.rules": '[{message: "*.v1.Other", age: 2s}]',
}
DEVICES = 3
ROUND_ROWS = 3000
BATCH = 60
OTHERS = 100


class Bounded(Stream):
    """Sends so many rows and no more."""

    def __init__(self, server, kind, device, first):
        super().__init__(server, kind, device, batch=BATCH, first=first)
        self.end = first + ROUND_ROWS

    def run(self):
        send = self.wire.send

        def counted(data):
            send(data)
            if self.sent >= self.end:
                self.stopping.set()

        self.wire.send = counted
        super().run()


def passing(server, kind, device):
    """Rows past their age, of four hours: most are cut out of the segments that they come into, and what they came to stays."""
    now_ns = time.time_ns()
    with Wire(server.address).connect() as wire:
        wire.send(b"".join(telemetry(device, kind.Other(ts=now_ns - n * 144 * SECOND_NS, value=n)) for n in range(OTHERS)))
        wire.settle()


def verify(directory):
    """All that `mir storage verify` can see of a data directory, or of a backup, is whole."""
    done = subprocess.run([BINARY, "storage", "verify", "--data", directory], capture_output=True, text=True,
                          timeout=4 * DEADLINE_S)
    assert done.returncode == 0, done.stdout + done.stderr


class Seen:
    """What the background did, as the server told shortly before each kill."""

    def __init__(self):
        self.seals = self.merges = self.removed = self.rolled_up = self.half_made = 0

    def before(self, bus, server):
        log = status_of(server)["telemetry"]
        assert log["rows_refused"] == 0, log
        self.seals += log["seals"]
        self.merges += log["merges"]
        told = bus.ask("tlm.retention")
        self.removed += told.rules[0].rows_removed
        self.rolled_up += any(rollup.rows for rollup in told.rollups)

    def after(self, server):
        """Files that a sealing, a merge or a removal left half made."""
        self.half_made += bool(list((server.folder / "data" / "telemetry").glob("*.tmp")))

    def __str__(self):
        return (f"{self.seals} logs sealed, {self.merges} merges, {self.removed} rows removed "
                f"({self.rolled_up} times with rollups), "
                f"{self.half_made} kills in the middle of one")


def await_work(server, dice):
    """Until a file is being made, and some part of the time that this takes."""
    folder = server.folder / "data" / "telemetry"
    until = time.monotonic() + 1
    while time.monotonic() < until and not any(name.endswith(".tmp") for name in os.listdir(folder)):
        pass
    let_pass(dice.uniform(0, 0.002))


@pytest.mark.timeout(max(300, ROUNDS * 10) * PATIENCE)
def test_kill_in_the_middle_of_maintenance(launch, loop, name, tmp_path):
    seed = int(os.environ.get("MIR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"MIR_TEST_SEED={seed}")
    dice = random.Random(seed)
    kind = readings_kind(name)
    server = launch(SETTINGS, shards=1)
    devices = [f"{name}-{n}" for n in range(DEVICES)]
    bus = Bus(loop, server)
    for device in devices:
        launch_device(bus, device, kind)
    bus.close()
    first = dict.fromkeys(devices, 0)
    there = {device: set() for device in devices}
    covered, seen = 0, Seen()
    for n in range(ROUNDS):
        bus = Bus(loop, server)
        passing(server, kind, devices[0])
        streams = [Bounded(server, kind, device, first[device]) for device in devices]
        for stream in streams:
            stream.start()
        how = "at work" if n % 2 else dice.choice(["at once", "in time"])
        wait_until(lambda: how == "at once" or any(s.covered > s.first for s in streams), 2 * DEADLINE_S, "load on its way")
        if how != "at once":
            let_pass(dice.uniform(0, 1))
            seen.before(bus, server)
        backup, saving = tmp_path / f"backup-{n}", None
        if n % 4 == 1:
            saving = subprocess.Popen([BINARY, "storage", "backup", "--data", server.folder / "data", backup],
                                      stdout=subprocess.DEVNULL)
        if how == "at work":
            await_work(server, dice)
        bus.close()
        server.kill()
        assert not SANITIZER.search(server.log()), server.tail(200)
        seen.after(server)
        if saving is not None:
            # It needs no server; what a merge took away under its hands it takes from the next picture.
            assert saving.wait(DEADLINE_S) == 0
            verify(backup)
            shutil.rmtree(backup)
        for stream in streams:
            stream.join(DEADLINE_S)
            assert not stream.is_alive() and stream.wrong is None, stream.wrong
        server.shards = 1 + n % 2
        server.start()
        bus = Bus(loop, server)
        for stream in streams:
            numbers = check_rows(bus, kind, stream.device, stream.covered, stream.sent, stream.first)
            there[stream.device].update(numbers)
            covered += stream.covered - stream.first
            first[stream.device] = stream.sent
        log = status_of(server)["telemetry"]
        assert log["corrupt_frames"] == log["corrupt_chunks"] == 0, server.tail()
        bus.close()
    # Nothing that was there once went away later, whatever was merged and cut since.
    bus = Bus(loop, server)
    for device in devices:
        rows = rows_between(bus, kind, device, 0, first[device], ROUND_ROWS)
        assert rows == [row_of(device, number) for number in sorted(there[device])]
    bus.close()
    verify(server.folder / "data")
    print(f"{ROUNDS} kills, {covered} rows covered by a PONG; {seen}")
    assert covered > 0
    assert seen.seals > 0 and seen.merges > 0 and seen.removed > 0 and seen.rolled_up > 0 and seen.half_made > 0, str(seen)
