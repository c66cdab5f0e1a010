# SPDX-License-Identifier: Apache-2.0
"""`mir storage` beside a server under load: backups that can be restored, and damage that is found where it is."""

import contextlib
import json
import os
import shutil
import signal
import struct
import subprocess
from pathlib import Path

import pytest
from bus import DEADLINE_S, Bus
from load import Creates, Stream, check_creates, check_rows, readings_kind, row_of, rows_between, status_of
from test_telemetry import launch_device

from servers import BINARY
from wire import Violation, wait_until

# Room in the log, so that no row is refused however slow the disk is.
SETTINGS = {"telemetry.log_bytes_max": "48MiB", "limits.max_payload": "1MiB"}


@contextlib.contextmanager
def heard_by(loop, server):
    bus = Bus(loop, server)
    try:
        yield bus
    finally:
        bus.close()


def storage(*arguments, expect=0):
    done = subprocess.run([BINARY, "storage", *map(str, arguments), "-o", "json"], capture_output=True, text=True,
                          timeout=4 * DEADLINE_S, env=os.environ)
    assert done.returncode == expect, (done.returncode, done.stdout[-2000:], done.stderr[-2000:])
    return json.loads(done.stdout) if expect in (0, 4) else done.stderr


def data_of(server):
    return Path(server.folder) / "data"


@contextlib.contextmanager
def under_load(loop, server, name, kind):
    """Streams of two devices and requests that create others; yields them once all of them have begun."""
    devices = [f"{name}-s{n}" for n in range(2)]
    with heard_by(loop, server) as bus:
        for device in devices:
            launch_device(bus, device, kind)
    streams = [Stream(server, kind, device) for device in devices]
    creates = Creates(server, f"{name}-c")
    threads = [*streams, creates]
    for thread in threads:
        thread.start()
    try:
        wait_until(lambda: all(s.covered > 2000 for s in streams) and len(creates.confirmed) > 20, 2 * DEADLINE_S,
                   "load on its way")
        yield streams, creates
    finally:
        for thread in threads:
            thread.stopping.set()
        for thread in threads:
            thread.join(DEADLINE_S)


def with_segments(loop, server, name, kind):
    """Rows in segments: a start seals what is in the logs. Gives the streams that sent them."""
    with under_load(loop, server, name, kind) as (streams, _):
        pass
    server.stop()
    server.start()
    wait_until(lambda: status_of(server)["telemetry"]["segments"] > 0, 4 * DEADLINE_S, "a segment")
    return streams


@pytest.mark.alone("it starts servers of its own")
@pytest.mark.parametrize("how", ["linked", "copied"])
def test_a_backup_under_load_is_restored(launch, loop, name, tmp_path, how):
    kind = readings_kind(name)
    server = launch(SETTINGS)
    backup = tmp_path / "backup"
    with_segments(loop, server, f"{name}-old", kind)
    with under_load(loop, server, name, kind) as (streams, creates):
        covered = [stream.covered for stream in streams]
        confirmed = set(creates.confirmed)
        saved = storage("backup", "--data", data_of(server), backup, *(["--copy"] if how == "copied" else []))
        checked = storage("verify", "--data", data_of(server), "--events")
        assert checked["intact"] and checked["damage"] == [] and checked["events"] > 0
    assert saved["damaged"] == 0 and saved["files"] > 3
    # A segment that is merged away between the look and the link is copied from what was opened.
    assert how == "linked" or saved["linked"] == 0
    checked = storage("verify", "--data", backup, "--events")
    assert checked["intact"] and checked["rows"] > 0
    assert not (backup / "state" / "lock.mdb").exists()
    # Neither over what is there, nor from what is no backup.
    assert "not empty" in storage("backup", "--data", data_of(server), backup, expect=1)
    assert "not empty" in storage("restore", backup, data_of(server), expect=1)
    (tmp_path / "nothing").mkdir()
    assert "no complete backup" in storage("restore", tmp_path / "nothing", tmp_path / "new", expect=1)

    restored = launch(SETTINGS)
    restored.stop()
    for path in sorted(data_of(restored).rglob("*"), reverse=True):
        path.rmdir() if path.is_dir() else path.unlink()
    assert storage("restore", backup, data_of(restored))["files"] == saved["files"]
    assert storage("verify", "--data", data_of(restored))["intact"]
    restored.start()
    with heard_by(loop, restored) as bus:
        for stream, before in zip(streams, covered):
            check_rows(bus, kind, stream.device, before, stream.sent)
        creates.confirmed = confirmed
        check_creates(bus, creates)
    log = status_of(restored)["telemetry"]
    assert log["corrupt_frames"] == log["corrupt_chunks"] == log["torn_bytes_cut"] == 0
    # What the restored server did, the backup does not see.
    restored.stop()
    assert storage("verify", "--data", backup)["intact"]


@pytest.mark.alone("it starts a server of its own")
@pytest.mark.parametrize("words", [["verify"], ["repair"], ["stats"], ["backup", "there"], ["restore", "from", "there"]])
@pytest.mark.parametrize("option", ["--admin", "--target"])
def test_a_server_is_no_data_directory(tmp_path, words, option):
    done = subprocess.run([os.environ["MIR_BIN"], "storage", *words, option, "data/admin.sock"], capture_output=True, text=True,
                          cwd=tmp_path, timeout=DEADLINE_S)  # fmt: skip
    assert done.returncode == 2 and "name its data directory" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_killed_backup_is_none(launch, loop, name, tmp_path):
    kind = readings_kind(name)
    server = launch(SETTINGS)
    with under_load(loop, server, name, kind):
        for n in range(8):
            target = tmp_path / f"backup{n}"
            process = subprocess.Popen([BINARY, "storage", "backup", "--data", data_of(server), target, "--copy"],
                                       stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
            # Each time a little further, from its first file on.
            wait_until(lambda: process.poll() is not None or len(list(target.glob("**/*"))) > n, DEADLINE_S, "a start")
            process.send_signal(signal.SIGKILL if n % 2 else signal.SIGINT)
            process.communicate(timeout=DEADLINE_S)
            if (target / "BACKUP").exists():
                assert storage("verify", "--data", target)["intact"]
            elif n % 2:
                assert "no complete backup" in storage("restore", target, tmp_path / f"data{n}", expect=1)
                assert not (tmp_path / f"data{n}").exists()
            else:
                assert process.returncode == 130 and not target.exists()
        storage("backup", "--data", data_of(server), tmp_path / "whole")
    assert storage("verify", "--data", tmp_path / "whole")["intact"]
    assert storage("verify", "--data", data_of(server))["intact"]


@pytest.mark.alone("it starts servers of its own")
def test_a_backup_outlives_its_server(launch, loop, name, tmp_path):
    kind = readings_kind(name)
    server = launch(SETTINGS)
    backup = tmp_path / "backup"
    with under_load(loop, server, name, kind) as (streams, creates):
        covered = [stream.covered for stream in streams]
        confirmed = set(creates.confirmed)
        process = subprocess.Popen([BINARY, "storage", "backup", "--data", data_of(server), backup, "--copy"],
                                   stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        wait_until(lambda: list(backup.glob("*")), DEADLINE_S, "its first file")
        server.kill()
        _, said = process.communicate(timeout=4 * DEADLINE_S)
        assert process.returncode == 0, said
    assert storage("verify", "--data", backup, "--events")["intact"]
    restored = launch(SETTINGS)
    restored.stop()
    shutil.rmtree(data_of(restored))
    storage("restore", backup, data_of(restored))
    restored.start()
    with heard_by(loop, restored) as bus:
        for stream, before in zip(streams, covered):
            check_rows(bus, kind, stream.device, before, stream.sent)
        creates.confirmed = confirmed
        check_creates(bus, creates)


def test_no_start_on_a_backup(launch, tmp_path):
    server = launch()
    storage("backup", "--data", data_of(server), tmp_path / "backup")
    server.stop()
    shutil.rmtree(data_of(server))
    (tmp_path / "backup").rename(data_of(server))
    with pytest.raises(Violation, match="it is a backup"):
        server.start()
    (data_of(server) / "BACKUP").rename(data_of(server) / "BACKUP.tmp")
    with pytest.raises(Violation, match="did not finish"):
        server.start()
    assert "no complete backup" in storage("restore", data_of(server), tmp_path / "new", expect=1)
    shutil.rmtree(data_of(server))
    server.start()


def test_no_start_on_half_a_restore(launch):
    server = launch()
    server.stop()
    (data_of(server) / "restoring").mkdir()
    with pytest.raises(Violation, match="did not finish"):
        server.start()
    (data_of(server) / "restoring").rmdir()
    server.start()


def flipped(path, at):
    with open(path, "r+b") as file:
        file.seek(at)
        byte = file.read(1)
        file.seek(at)
        file.write(bytes([byte[0] ^ 0x10]))


def test_every_flipped_byte_is_found(launch, loop, name, tmp_path):
    """In each region of each kind of file, where a checksum is; and in a backup in all of it."""
    kind = readings_kind(name)
    server = launch(SETTINGS, shards=1)
    with_segments(loop, server, name, kind)
    with under_load(loop, server, f"{name}-new", kind):
        pass
    data = data_of(server)
    backup = tmp_path / "backup"
    storage("backup", "--data", data, backup, "--copy")
    server.stop()
    assert storage("verify", "--data", data)["intact"]
    names = {path.name: path for path in (data / "telemetry").iterdir()}
    segment = max((path for path in names.values() if path.suffix == ".seg"), key=lambda path: path.stat().st_size)
    logs = [path for path in names.values() if path.suffix == ".log" and path.read_bytes()[128:132] == b"MFRM"]
    trailer = segment.stat().st_size - 64
    index, footer = struct.unpack("<QQ", segment.read_bytes()[trailer:trailer + 16])
    # Behind the chunks and before the index stands the second copy of index and footer.
    places = [(segment, at, found) for at, found in
              [(3, "segment"), (20, "segment"), (60, "segment"), (64, "chunk"), (70, "chunk"), (75, "chunk"),
               (200, "chunk"), (index - 1, "index"), (index, "index"), (index + 9, "index"), (footer - 1, "index"),
               (footer, "segment"), (trailer - 1, "segment"), (trailer, "segment"), (trailer + 63, "segment")]]
    places += [(names["MANIFEST"], at, "manifest") for at in (0, 9, 13, 17, 25, names["MANIFEST"].stat().st_size - 1)]
    for log in logs[:1]:
        places += [(log, at, "log") for at in (0, 20, 60, 64, 100, 127, 128, 133, 140, 150, 161)]
    for path, at, found in places:
        flipped(path, at)
        damage = storage("verify", "--data", data, expect=4)["damage"]
        flipped(path, at)
        assert found in {one["kind"] for one in damage}, (path, at, damage)
        assert {one["file"] for one in damage} == {f"telemetry/{path.name}"}
        for one in damage:
            if one["kind"] == "chunk":
                assert one["device"].startswith(name) and one["measurement"] == kind.name("Reading")
                assert one["rows"] > 0 and one["from"] and one["to"]
    assert storage("verify", "--data", data)["intact"]
    # The state store has no checksums: what is said is said of what cannot be walked through.
    state = data / "state" / "data.mdb"
    for at in (16, 4096 + 16):  # the magic number of both of its heads
        flipped(state, at)
    assert [one["kind"] for one in storage("verify", "--data", data, expect=4)["damage"]] == ["state"]
    for path in sorted(backup.glob("**/*")):
        if path.is_dir():
            continue
        size = path.stat().st_size
        for at in {0, size // 3, size // 2, size - 1}:
            flipped(path, at)
            damage = storage("verify", "--data", backup, expect=4)["damage"]
            assert "backup" in {one["kind"] for one in damage}, (path, at, damage)
            if path.name != "BACKUP":
                assert "damaged" in storage("restore", backup, tmp_path / "into", expect=1)
            assert storage("restore", backup, tmp_path / "into", expect=1)
            assert not (tmp_path / "into").exists()
            flipped(path, at)
    assert storage("verify", "--data", backup)["intact"]


def test_a_repair_keeps_what_can_be_read(launch, loop, name):
    kind = readings_kind(name)
    server = launch(SETTINGS, shards=1)
    streams = with_segments(loop, server, name, kind)
    data = data_of(server)
    assert "stop it" in storage("repair", "--data", data, expect=1)
    server.stop()
    assert storage("repair", "--data", data)["steps"] == []
    segments = sorted((data / "telemetry").glob("*.seg"), key=lambda path: path.stat().st_size)
    before = storage("stats", "--data", data)["all"]["rows"]
    flipped(segments[-1], 100)
    flipped(segments[-1], segments[-1].stat().st_size - 1)
    said = storage("repair", "--data", data, "--dry-run", expect=4)
    assert segments[-1].exists() and not (data / "damaged").exists()
    done = storage("repair", "--data", data)
    assert done["lost"] == said["lost"] and done["rows_lost"] == said["rows_lost"] > 0
    (lost,) = done["lost"]
    assert lost["kind"] == "chunk" and lost["device"].startswith(name) and lost["measurement"] == kind.name("Reading")
    assert lost["rows"] == done["rows_lost"] and lost["from"] != lost["to"]
    assert (data / "damaged" / segments[-1].name).exists()
    assert storage("verify", "--data", data)["intact"]
    assert storage("stats", "--data", data)["all"]["rows"] == before - done["rows_lost"]
    server.start()
    log = status_of(server)["telemetry"]
    assert log["corrupt_frames"] == log["corrupt_chunks"] == 0
    with heard_by(loop, server) as bus:
        for stream in streams:
            if stream.device != lost["device"]:
                check_rows(bus, kind, stream.device, stream.covered, stream.sent)
                continue
            rows = rows_between(bus, kind, stream.device, 0, stream.sent)
            assert rows == [row_of(stream.device, row[2]) for row in rows]
            missing = set(range(stream.covered)) - {row[2] for row in rows}
            assert len(missing) == done["rows_lost"] == max(missing) - min(missing) + 1


def test_damage_is_told_until_it_is_repaired(launch, loop, name):
    kind = readings_kind(name)
    server = launch(SETTINGS, shards=1)
    streams = with_segments(loop, server, name, kind)
    data = data_of(server)

    def told():
        return [one["text"] for one in status_of(server)["problems"] if one["kind"] == "telemetry damaged"]

    server.stop()
    segments = sorted((data / "telemetry").glob("*.seg"), key=lambda path: path.stat().st_size)
    flipped(segments[-1], 100)
    server.start()
    with heard_by(loop, server) as bus:
        for stream in streams:
            rows_between(bus, kind, stream.device, 0, stream.sent)
    (text,) = told()
    assert text.startswith("stored telemetry is damaged: ") and "mir storage verify" in text
    shown = subprocess.run([BINARY, "status", "-t", f"127.0.0.1:{server.address[1]}"], capture_output=True, text=True, check=False)
    assert "telemetry damaged: stored telemetry is damaged" in shown.stdout.splitlines()[0]
    # A file that is missing is known from the start on, and from later ones.
    server.stop()
    segments[-1].unlink()
    for _ in range(2):
        server.start()
        (text,) = told()
        assert text.startswith("stored telemetry is damaged (1 file is missing or set aside): ")
        server.stop()
    storage("repair", "--data", data)
    server.start()
    assert told() == []


def test_without_a_data_directory_it_says_how_to_name_one(tmp_path):
    for command in (["verify"], ["repair"], ["stats"], ["backup", tmp_path / "backup"]):
        found = subprocess.run([BINARY, "storage", *command], capture_output=True, text=True, check=False,
                               env={**os.environ, "MIR_DATA": str(tmp_path / "none")})  # fmt: skip
        assert found.returncode == 1
        assert found.stderr == f"mir: there is no data directory at {tmp_path}/none; name another with --data\n"
