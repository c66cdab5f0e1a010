# SPDX-License-Identifier: Apache-2.0
"""A machine that has no more room, no more files, or no right to write: what is said, and what is kept."""

import contextlib
import errno
import os
import pathlib
import re
import subprocess
import tempfile

import pytest
from bus import DEADLINE_S, Bus, Refused
from load import check_rows, reading, readings_kind, status_of
from test_telemetry import START_NS, launch_device, query, report, rows_of

from servers import BINARY, SANITIZER, Server, sanitized
from wire import PATIENCE, Violation, Wire, let_pass, wait_until

pytestmark = pytest.mark.alone("it keeps no data")

STARTED_AND_REFUSED_S = 10 * PATIENCE


class Wrapped(Server):
    """A server in a folder that it is given, run by a command in front of its own."""

    def __init__(self, settings=None, shards=1, folder=None, before=()):
        super().__init__(settings, shards)
        self.folder = folder
        self.before = list(before)

    def _command(self):
        return [*self.before, *super()._command()]

    def refuse(self):
        """Runs it where it cannot serve; its exit code and what it said."""
        self.folder = self.folder or pathlib.Path(tempfile.mkdtemp(prefix="mir-blackbox-"))
        done = subprocess.run(self._command(), stdin=subprocess.DEVNULL, capture_output=True, text=True,
                              timeout=STARTED_AND_REFUSED_S)
        assert not SANITIZER.search(done.stderr), done.stderr
        return done.returncode, done.stderr


@pytest.fixture
def wrap(disk):
    """wrap(…): a Wrapped, not started; ended and removed after the test, before the disks that it may be on."""
    servers = []

    def make(*args, **kwargs):
        servers.append(Wrapped(*args, **kwargs))
        return servers[-1]

    yield make
    try:
        for server in servers:
            if server.process is not None:
                print(server.tail())
            server.stop()
    finally:
        for server in servers:
            server.kill()
            server.remove()


@pytest.fixture
def disk():
    """disk(options): a file system of its own; skips where mounting is not allowed."""
    mounted = []

    def mount(options):
        folder = pathlib.Path(tempfile.mkdtemp(prefix="mir-disk-"))
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], capture_output=True)
        if done.returncode != 0:
            folder.rmdir()
            pytest.skip("mounting is not allowed here")
        mounted.append(folder)
        return folder

    yield mount
    for folder in mounted:
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
        with contextlib.suppress(OSError):
            folder.rmdir()


@contextlib.contextmanager
def heard_by(loop, server):
    bus = Bus(loop, server)
    try:
        yield bus
    finally:
        bus.close()


def fill(folder):
    """Takes all that is left of a disk, and what comes free while that is done; remove it to have it back."""
    path = folder / "filler"
    fd = os.open(path, os.O_WRONLY | os.O_CREAT)
    try:
        for size in (1 << 16, 1 << 12, 1):
            with contextlib.suppress(OSError):
                while os.write(fd, b"f" * size):
                    pass
    finally:
        os.close(fd)
    return path


class Rows:
    """A device's rows in the order of their numbers: how many were sent, and that each is stored or counted."""

    def __init__(self, server, kind, device):
        self.server, self.kind, self.device = server, kind, device
        self.wire = Wire(server.address).connect()
        self.sent = 0

    def send(self, count):
        """These rows, and what the server says became of them: stored, refused."""
        before = status_of(self.server)["telemetry"]
        numbers = range(self.sent, self.sent + count)
        self.wire.send(b"".join(reading(self.kind, self.device, number) for number in numbers)).settle()
        self.sent += count
        after = status_of(self.server)["telemetry"]
        stored = after["rows_accepted"] - before["rows_accepted"]
        refused = after["rows_refused"] - before["rows_refused"]
        assert stored + refused == count, (stored, refused, after)
        return stored, refused

    def close(self):
        self.wire.close()


def create_until_refused(bus, prefix, most=300):
    """Creates many devices at a time, and one at a time when many are too many; the ids and the error."""
    confirmed, text = [], None
    for size in (100, 1):
        for n in range(most):
            ids = [f"{prefix}-{size}-{n}-{i}" for i in range(size)]
            devices = [{"meta": {"labels": {"filler": "x" * 200}}, "spec": {"device_id": i}} for i in ids]
            try:
                bus.ask("core.creates", devices=devices)
                confirmed += ids
            except Refused as error:
                text = str(error)
                break
        else:
            raise AssertionError("every device was created")
    return confirmed, text


def refuse_telemetry(rows, batch=1000, most=1000):
    """Sends until a row is refused."""
    total_stored = total_refused = 0
    for _ in range(most):
        stored, refused = rows.send(batch)
        total_stored += stored
        total_refused += refused
        if refused:
            return total_stored, total_refused
    raise AssertionError("the disk does not fill")


def check_disk_full(server, loop, name, take_room):
    """A full disk refuses and counts, loses nothing, and is over as soon as there is room."""
    kind = readings_kind(name)
    device = f"{name}-d"
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
        bus.create(f"{name}-before")
        rows = Rows(server, kind, device)
        stored, refused = rows.send(500)
        assert (stored, refused) == (500, 0)
        room_again = take_room()
        more, refused = refuse_telemetry(rows)
        stored += more
        # Nothing that was not stored is shown, and nothing is shown that was not stored.
        there = check_rows(bus, kind, device, 500, rows.sent)
        assert len(there) == stored
        status = status_of(server)
        assert status["telemetry"]["trouble"] != "" and "free disk space" in status["telemetry"]["trouble"]
        assert any(one["device"] == device and "disk" in one["text"] for one in status["problems"]), status["problems"]
        # Until the store has used up what its file still has, creates may work.
        created, text = create_until_refused(bus, f"{name}-full")
        confirmed = [f"{name}-before", *created]
        assert "free some space" in text, text
        room_again()

        def stored_again():
            return rows.send(10)[0] == 10

        wait_until(stored_again, 2 * DEADLINE_S, "telemetry is stored again")
        bus.create(f"{name}-after")
        confirmed.append(f"{name}-after")
        there = check_rows(bus, kind, device, 500, rows.sent)
        rows.close()
    for _ in range(2):
        server.kill()
        server.start()
        with heard_by(loop, server) as bus:
            assert check_rows(bus, kind, device, 500, rows.sent) == there
            listed = bus.ids(ids=[f"{name}-*"])
            assert set(confirmed) <= set(listed)
            bus.create(f"{name}-again{server.starts}")
        log = status_of(server)["telemetry"]
        assert log["corrupt_frames"] == log["corrupt_chunks"] == 0


def test_a_full_disk(wrap, disk, loop, name):
    folder = disk("size=16m")
    server = wrap({"telemetry.log_bytes_max": "1MiB", "limits.max_payload": "1MiB"}, folder=folder).start()

    def take_room():
        filler = fill(folder)
        return filler.unlink

    check_disk_full(server, loop, name, take_room)


def test_a_full_log(wrap, loop, name):
    """While segments cannot be written the log fills: who sends most is refused first, it is said when that begins and
    when it is over, each device's refusals are counted on it, and nothing that was taken is lost."""
    settings = {"telemetry.log_bytes_max": "1MiB", "limits.max_payload": "1MiB", "limits.device_rate": "0"}
    server = wrap(settings, shards=1)
    server.start()
    server.stop()
    # A segment is made under a temporary name. Where a directory has it, it cannot be.
    telemetry = server.folder / "data" / "telemetry"
    taken = [telemetry / f"{number:016x}.seg.tmp" for number in range(2000)]
    for path in taken:
        path.mkdir()
    server.start()
    kind = readings_kind(name)
    loud, quiet = f"{name}-loud", f"{name}-quiet"
    with heard_by(loop, server) as bus:
        for device in (loud, quiet):
            launch_device(bus, device, kind)
        many, few = Rows(server, kind, loud), Rows(server, kind, quiet)
        refused = 0
        while refused == 0:
            assert few.send(10) == (10, 0)
            refused = many.send(200)[1]
            assert many.sent < 100_000
        for _ in range(10):
            assert few.send(50) == (50, 0), "the neighbour's share"
            refused += many.send(50)[1]
        status = status_of(server)
        assert status["telemetry"]["refused_share"] > 0
        full, = [one for one in status["problems"] if one["kind"] == "log full"]
        assert full["device"] == "" and full["count"] > 0 and "telemetry.log_bytes_max" in full["text"]
        own, = [one for one in status["problems"] if one["device"] == loud]
        assert (own["kind"], own["count"]) == ("telemetry refused", refused), own
        assert "faster" in own["text"]
        assert not [one for one in status["problems"] if one["device"] == quiet]
        for path in taken:
            path.rmdir()

        def stored_again():
            return many.send(10)[0] == 10

        wait_until(stored_again, 2 * DEADLINE_S, "rows are stored again")
        over = "rows are no longer refused"
        wait_until(lambda: over in server.log(), 2 * DEADLINE_S, "the log says that it is over")
        status = status_of(server)
        assert not [one for one in status["problems"] if one["kind"] == "log full"]
        log = server.log()
        assert log.count("are refused: they come faster") == log.count(over) == 1
        assert f" {status['telemetry']['refused_full']} were within" in log
        assert len(check_rows(bus, kind, quiet, few.sent, few.sent)) == few.sent
        there = check_rows(bus, kind, loud, 0, many.sent)
        assert few.sent + len(there) == status["telemetry"]["rows_accepted"]
        many.close()
        few.close()


def test_files_that_may_not_grow(wrap, loop, name):
    """A limit on the size of files (`ulimit -f`) is an error like another, not the end."""
    # LMDB's file reaches it; logs of 2 MiB do not.
    server = wrap({"telemetry.log_bytes_max": "8MiB"}, before=["prlimit", f"--fsize={6 << 20}"]).start()
    kind = readings_kind(name)
    device = f"{name}-d"
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
        confirmed, text = create_until_refused(bus, name)
        assert "state store" in text, text
        assert server.running()
        rows = Rows(server, kind, device)
        assert rows.send(1000) == (1000, 0)
        rows.close()
    server.kill()
    server.before = []
    server.start()
    with heard_by(loop, server) as bus:
        assert set(confirmed) <= set(bus.ids(ids=[f"{name}-*"]))
        check_rows(bus, kind, device, 1000, 1000)
        bus.create(f"{name}-after")


def test_a_full_state_store(launch, loop, name):
    """state.map_size is a bound that is named when it is met, and can be raised."""
    server = launch({"state.map_size": "4MiB"})
    kind = readings_kind(name)
    device = f"{name}-d"
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
        confirmed, text = create_until_refused(bus, name)
        assert "raise state.map_size" in text, text
        # Again and again, and what there is goes on.
        with pytest.raises(Refused, match="raise state.map_size"):
            bus.create(f"{name}-more", labels={"filler": "x" * 250})
        assert bus.device(confirmed[-1]) is not None
        rows = Rows(server, kind, device)
        assert rows.send(1000) == (1000, 0)
        rows.close()
        kinds = [problem["kind"] for problem in status_of(server)["problems"] if problem["device"] == ""]
        assert "store nearly full" in kinds
    assert "raise state.map_size" in server.log()
    server.stop()
    server.settings["state.map_size"] = "64MiB"
    server.start()
    with heard_by(loop, server) as bus:
        assert set(confirmed) <= set(bus.ids(ids=[f"{name}-*"]))
        check_rows(bus, kind, device, 1000, 1000)
        bus.create(f"{name}-more", labels={"filler": "x" * 250})


def test_a_full_state_store_lets_things_be_deleted(launch, loop, name):
    """There is room to delete when there is none to write, and what was deleted is room again."""
    server = launch({"state.map_size": "4MiB"})
    with heard_by(loop, server) as bus:
        confirmed, text = create_until_refused(bus, name)
        assert "raise state.map_size, or delete events or devices" in text, text
        assert "of state.map_size (4 MiB) are used" in server.log()
        # Devices one by one: each leaves an event.
        for device in confirmed[:20]:
            assert len(bus.ask("core.delete", targets={"ids": [device]}).devices) == 1
        for n in range(3):
            assert "raise state.map_size" in create_until_refused(bus, f"{name}-again-{n}")[1]
        # Events of many devices, from all over the store.
        gone = {"reasons": ["DeviceCreated", "DeviceDeleted"]}
        bus.ask("evt.delete", target=gone)
        assert list(bus.ask("evt.list", target=gone).events) == []
        bus.create(f"{name}-more", labels={"filler": "x" * 250})
        assert bus.ids(ids=[f"{name}-more"]) == [f"{name}-more"]
        assert set(confirmed[20:]) <= set(bus.ids(ids=[f"{name}-*"]))
        bus.ask("core.delete", targets={"ids": [f"{name}-*"]})
        bus.create(f"{name}-last")
        kinds = [problem["kind"] for problem in status_of(server)["problems"] if problem["device"] == ""]
        assert "store nearly full" not in kinds
    assert "there is room again" in server.log()


@pytest.mark.parametrize("backend", ["auto", "epoll"])
def test_open_files_used_up(wrap, loop, name, backend):
    """Who comes when no file is left waits; who is there is served; it is said, and not a thousand times."""
    server = wrap({"io.backend": backend}, before=["prlimit", "--nofile=96:96"]).start()
    kind = readings_kind(name)
    device = f"{name}-d"
    with heard_by(loop, server) as bus:
        launch_device(bus, device, kind)
        late = []
        try:
            while "ulimit -n" not in server.log().partition("ready on")[2]:
                assert len(late) < 200
                late.append(Wire(server.address, info=False))
                let_pass(0.002)
            late += [Wire(server.address, info=False) for _ in range(20)]
            cpu_before = cpu_of(server)
            let_pass(0.5)
            busy_s = cpu_of(server) - cpu_before
            assert busy_s < 0.25 * PATIENCE, f"{busy_s:.2f} s of CPU in half a second of nothing to do"
            bus.heartbeat(device)
            assert bus.device(device).status.online
        finally:
            for wire in late:
                wire.close()
        wait_until(lambda: can_connect(server), DEADLINE_S, "room for a connection again")
    assert server.log().count("cannot accept a connection") < 10


def cpu_of(server):
    fields = pathlib.Path(f"/proc/{server.pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


def can_connect(server):
    with contextlib.suppress(OSError, AssertionError):
        wire = Wire(server.address, info=False)
        wire.sock.settimeout(0.2)
        try:
            return wire.sock.recv(4) == b"INFO"
        finally:
            wire.close()
    return False


# Starts that are refused


def check_refusal(server, *texts):
    code, said = server.refuse()
    assert code == 1, (code, said)
    last = said.rstrip().splitlines()[-1]
    for text in texts:
        assert text in last, said


class InboxBus(Bus):
    """Answers elsewhere are not sent while the store cannot tell whether they would go to a device."""

    def __init__(self, loop, server):
        super().__init__(loop, server)
        self.subscribe("_INBOX.faults.>", self._hear)

    def answer_name(self):
        return f"_INBOX.faults.{next(self.answers)}"


@pytest.mark.parametrize("what", ["pages", "head"])
def test_a_state_store_that_cannot_be_written(wrap, loop, name, what, tmp_path):
    """Nothing that fails is told to be done; what was done is there, and telemetry goes on."""
    if sanitized():
        pytest.skip("an instrumented server wants its own library to be the first")
    failing = tmp_path / "failing"
    library = pathlib.Path(BINARY).parent.parent / "tests" / "failing_store.so"
    assert library.exists()
    server = wrap(before=["env", f"LD_PRELOAD={library}", f"FAILING_STORE={failing}"]).start()
    bus = InboxBus(loop, server)
    kind = readings_kind(name)
    launch_device(bus, name, kind)
    bus.create(f"{name}-a")
    before = bus.ids()
    count = len(bus.events())

    failing.write_text(what)
    for n in range(3):
        with pytest.raises(Refused) as refused:
            bus.create(f"{name}-{n}")
        assert "state store" in str(refused.value)
        with pytest.raises(Refused) as refused:
            bus.ask("core.delete", targets={"ids": [f"{name}-a"]})
        assert "state store" in str(refused.value)
        bus.hello(f"{name}-new", kind.set)
        report(bus, name, kind.Reading(ts=START_NS + n, number=n))
    assert server.process.poll() is None
    assert len(bus.events()) == count, "what was not done has no events"
    assert status_of(server)["state"]["commits_failed"] > 0
    if what == "pages":
        assert bus.ids() == before
    else:
        with pytest.raises(Refused, match="restart the server"):
            bus.ids()
    failing.unlink()

    if what == "head":
        bus.close()
        server.stop()
        server.start()
        bus = InboxBus(loop, server)
    assert [one for one in bus.ids() if not one.endswith("-new")] == before
    bus.create(f"{name}-b")
    assert f"{name}-b" in bus.ids()
    assert len(rows_of(query(bus, name, kind.name("Reading")))) == 3, "rows are no matter of this store"
    bus.close()


def test_a_second_server_on_the_same_data(launch, wrap, name):
    first = launch()
    second = wrap(folder=first.folder)
    check_refusal(second, str(first.folder / "data"), "another server", "--data")
    second.folder = None
    Wire(first.address).connect().close()
    # Nothing of the first was touched, its admin socket above all.
    done = subprocess.run([BINARY, "status", "--admin", str(first.folder / "data" / "admin.sock")],
                          capture_output=True, text=True, timeout=DEADLINE_S, env={**os.environ, "MIR_TARGET": ""})
    assert done.returncode == 0, done.stderr


def test_a_port_that_is_taken(launch, wrap):
    first = launch()
    second = wrap()
    second.port = first.port
    check_refusal(second, f"127.0.0.1:{first.port}", "another program", "--listen")


def test_a_data_directory_that_cannot_be_written(wrap, disk):
    folder = disk("size=1m,ro")
    server = wrap(folder=folder)
    check_refusal(server, str(folder / "data"), "--data", os.strerror(errno.EROFS))


def test_data_that_became_read_only(wrap, disk, loop, name):
    """The data of a run, on a disk that can only be read at the next start."""
    folder = disk("size=64m")
    server = wrap(folder=folder).start()
    with heard_by(loop, server) as bus:
        bus.create(f"{name}-d")
    server.stop()
    subprocess.run(["mount", "-o", "remount,ro", str(folder)], check=True)
    check_refusal(server, str(folder / "data"), "--data")
    subprocess.run(["mount", "-o", "remount,rw", str(folder)], check=True)
    server.start()
    with heard_by(loop, server) as bus:
        assert bus.ids(ids=[f"{name}-*"]) == [f"{name}-d"]


def test_a_data_directory_below_a_file(wrap, tmp_path):
    (tmp_path / "data").write_text("not a directory")
    server = wrap(folder=tmp_path)
    check_refusal(server, str(tmp_path / "data"), "--data")


def test_no_room_to_start(wrap, disk):
    folder = disk("size=1m")
    filler = fill(folder)
    server = wrap(folder=folder)
    server.folder.joinpath("data").mkdir(exist_ok=True)
    code, said = server.refuse()
    assert code == 1 and "space" in said.rstrip().splitlines()[-1], said
    filler.unlink()


def test_too_few_open_files_to_start(wrap):
    code, said = wrap(before=["prlimit", "--nofile=8:8"]).refuse()
    last = said.rstrip().splitlines()[-1]
    assert code == 1 and re.search("open files|ulimit -n|LimitNOFILE", said), said
    assert "error" in last or last.startswith("mir:"), said


@pytest.mark.parametrize("backend", ["auto", "epoll"])
def test_some_shards_cannot_start(backend):
    """Where the files suffice for the first shards and not for all, it ends and says so."""
    after_shards_began = 0
    for files in range(12, 96, 2):
        server = Wrapped({"io.backend": backend}, shards=4, before=["prlimit", f"--nofile={files}:{files}"])
        try:
            server.start()
        except Violation as refusal:
            assert "ended at start with 1" in str(refusal), refusal
            after_shards_began += "a shard could not start" in str(refusal)
        else:
            server.stop()
            server.remove()
            break
    assert after_shards_began > 0


def test_a_directory_in_use_names_the_process_and_a_wrong_setting_is_wrong_usage(shared):
    server = shared({})
    serve = lambda *options: subprocess.run(
        [BINARY, "serve", *options], stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=DEADLINE_S
    )
    data = str(server.folder / "data")
    second = serve("--data", data, "--listen", "127.0.0.1:0")
    assert second.returncode == 1
    assert f"another server (process {server.pid}) uses the data directory {data}" in second.stderr
    for options in (["--set", "limits.max_paylod=1"], ["--listen", "somewhere"], ["--set", "ping.interval=30"]):
        wrong = serve("--data", data, *options)
        assert wrong.returncode == 2 and "ready" not in wrong.stderr, wrong.stderr
