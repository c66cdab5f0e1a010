# SPDX-License-Identifier: Apache-2.0
"""Telemetry out of a server and into one, through the command line: export, import, watch."""

import contextlib
import json
import math
import os
import re
import signal
import socket
import subprocess
import threading

import pytest
from bus import DEADLINE_S
from test_telemetry import SCALARS, SECOND_NS, START_NS, Kind, launch_device, query, report, rows_of, samples, weather  # noqa: F401

from servers import BINARY
from wire import wait_until


@pytest.fixture
def mir(tmp_path):
    """mir(server, …): what the command line says."""

    def run(server, *args, stdin=None, code=0):
        environment = {**os.environ, "MIR_TARGET": server.url, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        done = subprocess.run([BINARY, "telemetry", *args], input=stdin, capture_output=True,
                              timeout=6 * DEADLINE_S, env=environment)
        assert done.returncode == code, done.stderr.decode()
        return done

    return run


NESTED = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Deep {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    mir.device.v1.Timestamp at = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_FRACTION];
    repeated Part parts = 2;
    repeated sint32 gusts = 3;
    map<string, double> rooms = 4;
    map<int32, Part> floors = 5;
    Part one = 6;
    bytes raw = 7;
    optional string note = 8;
    oneof way {
        int64 north = 9;
        string south = 10;
    }
}

message Part {
    float speed = 1;
    optional uint64 count = 2;
}

message Slow {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    uint32 at = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_SEC];
    int32 level = 2;
}

message Timeless {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int32 level = 2;
}
"""


def odd_scalars(kind):
    low = dict(b_int32=-(1 << 31), c_int64=-(1 << 63), d_sint32=-(1 << 31), e_sint64=-(1 << 63),
               j_sfixed32=-(1 << 31), k_float=-1.5, l_double=-1e300, p_sfixed64=-(1 << 63))
    high = dict(b_int32=(1 << 31) - 1, c_int64=(1 << 63) - 1, d_sint32=(1 << 31) - 1, e_sint64=(1 << 63) - 1,
                f_uint32=(1 << 32) - 1, g_uint64=(1 << 64) - 1, h_fixed32=(1 << 32) - 1, i_fixed64=(1 << 64) - 1,
                j_sfixed32=(1 << 31) - 1, k_float=0.1, l_double=0.1, m_bool=True,
                n_string="größer \"than\"\r\n\n, =\\", o_mode=7, p_sfixed64=(1 << 63) - 1)
    odd = [dict(high, k_float=-math.inf, l_double=math.inf), dict(k_float=math.nan, l_double=math.nan),
           dict(k_float=-0.0, l_double=-0.0, n_string=" "), dict(l_double=5e-324, n_string='"'),
           dict(l_double=1.7976931348623157e308, n_string="\\"), dict(n_string="a,b\n\n_time,__id\n"),
           dict(n_string="x" * 65536)]
    return [kind.All(ts=START_NS + n, **values) for n, values in enumerate([low, high, *odd])]


def deep(kind):
    def at(seconds, nanos=0):
        return {"seconds": seconds, "nanos": nanos}

    full = kind.Deep(at=at(1_700_000_000, 1), parts=[kind.Part(speed=1.5), kind.Part(count=1 << 63)], gusts=[3, -4, 0],
                     rooms={"a.b_c": 0.5, "": 2, "größe =,\"": -1}, one=kind.Part(speed=3, count=4), raw=b"\x00\xff\x01",
                     note="", north=5)
    full.floors[-2].speed = 2
    full.floors[7].count = 0
    return [full, kind.Deep(at=at(-5, 999_999_999), raw=b"ab", south="x"),
            kind.Deep(at=at(1_700_000_001), gusts=list(range(40)), note="null")]


@pytest.fixture
def filled(bus, name):
    """Two devices with everything that rows can have, of three messages, and their schemas."""
    scalars, nested = Kind(SCALARS, f"scalars_{name}"), Kind(NESTED, f"nested_{name}")
    devices = {f"{name}-a": scalars, f"{name}-b": scalars, f"{name}-c": nested}
    for device, kind in devices.items():
        launch_device(bus, device, kind)
    for device in list(devices)[:2]:
        report(bus, device, *odd_scalars(scalars))
        report(bus, device, scalars.Some(ts=START_NS, level=math.nan), scalars.Some(ts=START_NS + 1, text=""),
               scalars.Some(ts=START_NS + 2, count=-1, open=False))
    report(bus, f"{name}-c", *deep(nested), nested.Slow(at=1_700_000_000, level=3))
    return devices


def everything(mir, server, name, form, tmp_path):
    path = tmp_path / f"{form}.{server.port}"
    mir(server, "export", f"{name}-*", "--format", form, "-O", str(path))
    assert not path.with_name(path.name + ".tmp").exists()
    return path.read_bytes()


@pytest.mark.parametrize("form", ["csv", "line"])
def test_what_was_exported_is_the_same_in_another_server(server, launch, connect, mir, filled, name, tmp_path, form):
    exported = everything(mir, server, name, form, tmp_path)
    assert exported.count(name.encode()) > 30
    as_json = everything(mir, server, name, "jsonl", tmp_path)
    other = launch()
    bus = connect(other)
    for device, kind in filled.items():
        launch_device(bus, device, kind)
    said = mir(other, "import", "-", stdin=exported).stderr.decode()
    assert "rows: 28 imported, 0 refused" in said
    assert everything(mir, other, name, form, tmp_path) == exported
    assert everything(mir, other, name, "jsonl", tmp_path) == as_json
    # Once more changes nothing: rows of a series and a time are one row.
    mir(other, "import", str(tmp_path / f"{form}.{server.port}"))
    assert everything(mir, other, name, "jsonl", tmp_path) == as_json


def test_json_lines_have_every_digit(bus, server, mir, name):
    kind = Kind(SCALARS, f"scalars_{name}")
    launch_device(bus, name, kind)
    sent = odd_scalars(kind)
    report(bus, name, *sent)
    out = mir(server, "export", name, "-m", kind.name("All"), "--format", "jsonl").stdout.decode()
    rows = [json.loads(line) for line in out.splitlines()]
    assert len(rows) == len(sent)
    assert rows[1]["_time"] == "2023-11-14T22:13:20.000000001Z" and rows[1]["__id"] == name
    assert rows[1]["_measurement"] == kind.name("All")
    for row, message in zip(rows, sent):
        for field in message.DESCRIPTOR.fields:
            if field.name == "ts":
                continue
            value = getattr(message, field.name)
            if isinstance(value, float) and not math.isfinite(value):
                value = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
            assert row[field.name] == value and type(row[field.name]) is type(value), field.name


def test_export_of_some_fields_and_times(bus, server, mir, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 5))
    out = mir(server, "export", name, "-m", weather.name("Sample"), "-f", "pressure,note", "--from", "1700000001",
              "--to", "1700000003").stdout.decode()
    kind = weather.name("Sample")
    assert out == (f"_time,__id,_measurement,note,pressure\n2023-11-14T22:13:21Z,{name},{kind},n1,1001\n"
                   f"2023-11-14T22:13:22Z,{name},{kind},n2,1002\n")
    out = mir(server, "export", name, "-m", weather.name("Sample"), "-f", "temperature,raining", "--format", "line",
              "--to", "1700000001").stdout.decode()
    assert out == f"{kind},__id={name} raining=false,temperature=20 1700000000000000000\n"


def test_export_of_more_than_one_answer_holds(bus, server, mir, name, weather):  # noqa: F811
    """Some 4 MiB are one answer."""
    launch_device(bus, name, weather)
    long = "x" * 4000
    for n in range(3000):
        report(bus, name, weather.Sample(ts=START_NS + n, pressure=n, note=long), flush=n % 100 == 99)
    out = mir(server, "export", name, "-m", weather.name("Sample"), "-f", "pressure").stdout.decode()
    assert [line.rsplit(",", 1)[1] for line in out.splitlines()[1:]] == [str(n) for n in range(3000)]
    out = mir(server, "export", name, "-m", weather.name("Sample")).stdout.decode()
    assert out.count(long) == 3000 and len(out.splitlines()) == 3001


def test_a_file_that_cannot_be_whole_does_not_take_the_place_of_one(bus, server, mir, name, weather, tmp_path):  # noqa: F811
    launch_device(bus, name, weather)
    path = tmp_path / "kept.csv"
    path.write_text("before")
    said = mir(server, "export", f"no-{name}", "-O", str(path), code=1).stderr.decode()
    assert "no device" in said
    assert path.read_text() == "before" and [each.name for each in tmp_path.glob("kept*")] == ["kept.csv"]
    mir(server, "export", name, "-O", str(tmp_path / "none" / "kept.csv"), code=1)


# --- import


def test_rows_that_are_refused_are_told_with_their_lines(bus, server, mir, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    kind = weather.name("Sample")
    lines = [f"{kind},__id={name} temperature=21.5,pressure=7i,note=\"a b\",raining=t 1700000000000000000",
             "# a comment", "", f"{kind},__id={name} colour=1 1700000001000000000",
             f"{kind},__id={name} pressure=2.5 1700000001000000000",
             f"{kind},__id=nobody-{name} pressure=2 1700000001000000000", f"no.v1.Such,__id={name} pressure=2 1700000001",
             f"{kind} pressure=2 1700000001000000000", f"{kind},__id={name} pressure=2",
             f"{kind},__id={name} pressure=4294967296i 1700000001000000000", f"{kind},__id={name} pressure=8.0 1700000002000000000",
             f"{kind},__id={name} note=3 1700000002000000000", f"{kind},__id={name} pressure 1"]
    text = ("\n".join(lines) + "\n").encode()
    said = mir(server, "import", "--dry-run", "-", stdin=text, code=1).stderr.decode()
    assert "11 rows: 2 would be imported, 9 refused" in said
    assert rows_of(query(bus, name, kind)) == []
    said = mir(server, "import", "-", stdin=text, code=1).stderr.decode()
    assert "11 rows: 2 imported, 9 refused" in said
    for line, words in [(4, "there is no field 'colour'"), (5, "'2.5' is no value of pressure"), (6, "is not registered"),
                        (7, "does not measure 'no.v1.Such'"), (8, "names no device"), (9, "has no time"),
                        (10, "'4294967296i' is no value of pressure"), (12, "'3' is no value of note"),
                        (13, "this is not measurement,tag=value field=value time")]:
        assert any(f"line {line}: " in each and words in each for each in said.splitlines()), (line, said)
    assert "  3 a value of another type" in said
    table = query(bus, name, kind)
    assert [dict(zip(table.headers, row)) for row in rows_of(table)] == [
        {"_time": START_NS, "__id": name, "note": "a b", "pressure": 7, "raining": True, "temperature": 21.5},
        {"_time": START_NS + 2 * SECOND_NS, "__id": name, "note": "", "pressure": 8, "raining": False, "temperature": 0}]


def test_csv_of_another_program(bus, server, mir, name, weather, tmp_path):  # noqa: F811
    launch_device(bus, name, weather)
    path = tmp_path / "points.csv"
    path.write_bytes(b'\xef\xbb\xbf"time",pressure,note\r\n1700000000,5,"say ""hi"",\r\nyou"\r\n1700000001,6,\r\n'
                     b'soon,7,x\r\n1700000003,8\r\n')
    said = mir(server, "import", "--format", "csv", "--precision", "s", "--device", name, "-m", weather.name("Sample"), str(path),
               code=1).stderr.decode()
    assert "4 rows: 2 imported, 2 refused" in said
    assert "line 5: 'soon' is no time" in said and "line 6: the row has 2 cells and the header 3" in said
    table = query(bus, name, weather.name("Sample"), fields=["note", "pressure"])
    assert [row[2:] for row in rows_of(table)] == [['say "hi",\r\nyou', 5], ["", 6]]


def test_two_members_of_a_oneof_are_two_messages(bus, server, mir, name):
    kind = Kind(NESTED, f"nested_{name}")
    launch_device(bus, name, kind)
    header, row = "_time,__id,_measurement,north,south\n", f"2023-11-14T22:13:20Z,{name},{kind.name('Deep')},"
    said = mir(server, "import", "-", stdin=(header + row + "5,x\n").encode(), code=1).stderr.decode()
    assert "line 2: " in said and "north and south have a value, and a message has one of them" in said
    mir(server, "import", "-", stdin=(header + row + "5,\n" + row + ",x\n").encode())
    exported = mir(server, "export", name, "-f", "north,south").stdout.decode()
    assert exported.splitlines() == [header.strip(), row + "5,x"]


def test_times_that_a_message_cannot_carry(bus, server, mir, name):
    kind = Kind(NESTED, f"nested_{name}")
    launch_device(bus, name, kind)
    slow, timeless = kind.name("Slow"), kind.name("Timeless")
    text = (f"_time,__id,_measurement,level\n1970-01-01T00:00:00Z,{name},{slow},1\n2023-11-14T22:13:20.5Z,{name},{slow},1\n"
            f"1969-11-14T22:13:20Z,{name},{slow},1\n2023-11-14T22:13:20Z,{name},{timeless},1\n2023-11-14T22:13:20Z,{name},{slow},1\n")
    said = mir(server, "import", "-", stdin=text.encode(), code=1).stderr.decode()
    assert "5 rows: 1 imported, 4 refused" in said
    assert "3 a time that the message cannot carry" in said and "take the time of their arrival" in said


def test_what_the_server_refuses_is_in_the_summary(launch, connect, mir, name, weather):  # noqa: F811
    server = launch({"telemetry.future_limit": "1h"})
    bus = connect(server)
    launch_device(bus, name, weather)
    kind = weather.name("Sample")
    text = f"{kind},__id={name} pressure=1 4000000000\n{kind},__id={name} pressure=1 1700000000\n"
    said = mir(server, "import", "--precision", "s", "-", stdin=text.encode(), code=1).stderr.decode()
    assert "2 rows: 1 imported, 1 refused" in said and "1 future time (by the server" in said


def test_who_may_not_publish_imports_nothing(launch, connect, mir, name, weather):  # noqa: F811
    users = [{"user": "device", "password": "d"},
             {"user": "reader", "password": "r", "permissions": {"publish": {"deny": ["device.>"]}}}]
    server = launch({"auth.mode": "users", "auth.users": users, "auth.no_auth_user": "device"})
    bus = connect(server)
    launch_device(bus, name, weather)
    text = f"{weather.name('Sample')},__id={name} pressure=1 {START_NS}\n".encode()
    said = mir(server, "import", "-t", server.url.replace("//", "//reader:r@"), "-", stdin=text, code=1).stderr.decode()
    assert "Permissions Violation" in said and "1 row: 0 imported, 0 refused" in said and "1 may be there or not" in said
    assert rows_of(query(bus, name, weather.name("Sample"))) == []


def test_files_that_are_none(server, mir, tmp_path):
    assert "cannot open" in mir(server, "import", str(tmp_path / "none"), code=1).stderr.decode()
    said = mir(server, "import", "--format", "csv", "-", stdin=b"a,b\n1,2\n", code=1).stderr.decode()
    assert "line 1: this is no header of CSV with a column '_time'" in said
    assert "0 rows: 0 imported, 0 refused" in mir(server, "import", "-", stdin=b"").stderr.decode()


# --- watch


@pytest.fixture
def watch(tmp_path):
    """watch(server, …): a process that watches, and the file of what it says."""
    processes = []

    def start(server, *args):
        environment = {**os.environ, "MIR_TARGET": server.url, "HOME": str(tmp_path), "XDG_CONFIG_HOME": str(tmp_path)}
        out, errors = tmp_path / f"out{len(processes)}", tmp_path / f"errors{len(processes)}"
        process = subprocess.Popen([BINARY, "telemetry", "watch", *args], stdout=out.open("wb"),
                                   stderr=errors.open("wb"), env=environment)
        processes.append(process)
        wait_until(lambda: "Watching" in errors.read_text(), DEADLINE_S, "watch")
        return process, out, errors

    yield start
    for process in processes:
        if process.poll() is None:
            process.kill()
        process.wait()


def lines_of(path, count):
    wait_until(lambda: path.read_text().count("\n") >= count, DEADLINE_S, f"{count} lines")
    return path.read_text().splitlines()


def test_watch_shows_what_comes_in(bus, server, name, weather, watch):  # noqa: F811
    launch_device(bus, name, weather)
    launch_device(bus, f"{name}-other", weather)
    kind = weather.name("Sample")
    process, out, _ = watch(server, name, "-m", kind, "-o", "json")
    _, people, _ = watch(server, f"{name}*", "--utc")
    _, table, _ = watch(server, name, "-f", "note,pressure,vector.speed", "-o", "csv")
    report(bus, f"{name}-other", *samples(weather, 1))
    report(bus, name, weather.Wind(ts=START_NS, vector={"speed": 2}, gusts=[1, 2]), *samples(weather, 2))
    assert [json.loads(line) for line in lines_of(out, 2)] == [
        {"_time": "2023-11-14T22:13:20Z", "__id": name, "_measurement": kind, "temperature": 20, "pressure": 1000,
         "note": "n0", "raining": False},
        {"_time": "2023-11-14T22:13:21Z", "__id": name, "_measurement": kind, "temperature": 20.125, "pressure": 1001,
         "note": "n1", "raining": True}]
    assert lines_of(table, 6) == [
        "_time,__id,_measurement,vector.speed", f"2023-11-14T22:13:20Z,{name},{weather.name('Wind')},2", "",
        "_time,__id,_measurement,pressure,note", f"2023-11-14T22:13:20Z,{name},{kind},1000,n0",
        f"2023-11-14T22:13:21Z,{name},{kind},1001,n1"]
    shown = lines_of(people, 4)
    assert f"22:13:20.000  {name}-other/default  {kind}  temperature=20 pressure=1000 note=n0 raining=false" in shown
    assert any("vector.speed=2 vector.direction=0 gusts_0=1 gusts_1=2" in line for line in shown)
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 0


def test_watch_meets_devices_that_come_later(bus, server, name, weather, watch):  # noqa: F811
    _, out, _ = watch(server, "-m", weather.name("Sample"), "-o", "line")
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 1))
    assert lines_of(out, 1) == [f'{weather.name("Sample")},__id={name} temperature=20,pressure=1000i,note="n0",raining=false '
                                f"{START_NS}"]


def test_watch_goes_on_when_the_server_is_back(launch, connect, name, weather, watch):  # noqa: F811
    server = launch()
    bus = connect(server)
    launch_device(bus, name, weather)
    process, out, errors = watch(server, "-o", "csv", "-f", "pressure")
    report(bus, name, *samples(weather, 1))
    lines_of(out, 2)
    bus.close()
    server.kill()
    server.start()
    wait_until(lambda: "Connected again" in errors.read_text(), DEADLINE_S, "connection")
    bus = connect(server)

    # It subscribes just after it has said so: what was sent before that it does not see.
    def seen():
        report(bus, name, *samples(weather, 1, first=START_NS + SECOND_NS))
        return "2023-11-14T22:13:21Z" in out.read_text()

    wait_until(seen, DEADLINE_S, "a row")
    process.send_signal(signal.SIGTERM)
    assert process.wait(DEADLINE_S) == 0


def test_without_a_server_nothing_is_imported(launch, mir):
    server = launch()
    server.stop()
    assert "no Mir server is reachable" in mir(server, "import", "-", stdin=b"", code=3).stderr.decode()


# --- how an import goes, and how it ends early


class Relay:
    """A server's door that keeps back the answers to PINGs, as a long way would."""

    def __init__(self, server, hold):
        self.hold = hold  # (pings seen, bytes of rows seen): whether the PONGs stay here for now
        self.pings = self.bytes = 0
        self.door = socket.create_server(("127.0.0.1", 0))
        self.url = f"nats://127.0.0.1:{self.door.getsockname()[1]}"
        self.back = self.front = socket.create_connection(("127.0.0.1", server.port))
        self.kept, self.ready = 0, threading.Condition()
        threading.Thread(target=self._up, daemon=True).start()

    def _up(self):
        self.front, _ = self.door.accept()
        threading.Thread(target=self._down, daemon=True).start()
        with contextlib.suppress(OSError):
            while data := self.front.recv(65536):
                with self.ready:
                    self.bytes += len(data)
                    self.pings += data.count(b"\r\nPING\r\n")
                    self._let_go()
                self.back.sendall(data)
            self.back.shutdown(socket.SHUT_WR)

    def _let_go(self):
        if self.kept > 0 and not self.hold(self):
            self.front.sendall(b"PONG\r\n" * self.kept)
            self.kept = 0

    def _down(self):
        with contextlib.suppress(OSError):
            while data := self.back.recv(65536):
                with self.ready:
                    # Lines of these answers are whole here: the server writes each at once.
                    self.kept += data.count(b"PONG\r\n")
                    self.front.sendall(data.replace(b"PONG\r\n", b""))
                    self._let_go()
            self.front.shutdown(socket.SHUT_WR)

    def close(self):
        for each in (self.door, self.back, self.front):
            each.close()


@pytest.fixture
def relay():
    opened = []

    def start(server, hold):
        opened.append(Relay(server, hold))
        return opened[-1]

    yield start
    for each in opened:
        each.close()


def many_rows(name, kind, count):
    note = "n" * 200
    return "".join(f"{kind},__id={name} pressure={n},note=\"{note}\" {START_NS + n}\n" for n in range(count))


def count_of(bus, name, kind):
    table = query(bus, name, kind, functions=["count"], fields=["pressure"])
    return rows_of(table)[0][2] if table.rows else 0


def test_import_does_not_wait_for_each_answer(bus, server, mir, relay, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    kind = weather.name("Sample")
    # Whoever waits for one answer before it goes on would never send the fourth PING of rows.
    far = relay(server, lambda relay: relay.bytes > 100_000 and relay.pings < 6)
    said = mir(server, "import", "-t", far.url, "-", stdin=many_rows(name, kind, 10_000).encode()).stderr.decode()
    assert "10000 rows: 10000 imported, 0 refused." in said
    assert count_of(bus, name, kind) == 10_000


def test_import_that_is_not_answered_stops_and_says_where_it_goes_on(bus, server, mir, relay, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    kind = weather.name("Sample")
    rows = many_rows(name, kind, 40_000).encode()
    # The first ten batches are answered, nothing after that is.
    far = relay(server, lambda relay: relay.pings > 10)
    said = mir(server, "import", "-t", far.url, "--timeout", "1s", "-", stdin=rows, code=1).stderr.decode()
    assert "the server did not answer within 1 s" in said
    assert far.bytes < 8 << 20, "more was on its way than an import may have there"
    done, unknown = (int(re.search(words, said)[1]) for words in (r"(\d+) imported", r"(\d+) may be there"))
    line = int(re.search(r"--from-line (\d+)", said)[1])
    assert 0 < done < 40_000 and 0 < unknown and line == done + 1
    assert "may be there or not" in said
    said = mir(server, "import", "--from-line", str(line), "-", stdin=rows).stderr.decode()
    assert f"{40_000 - done} rows: {40_000 - done} imported, 0 refused." in said
    assert count_of(bus, name, kind) == 40_000
    assert "the number of a line" in mir(server, "import", "--from-line", "0", "-", stdin=rows, code=2).stderr.decode()
    lines = rows.count(b"\n")
    said = mir(server, "import", "--from-line", str(lines + 1), "-", stdin=rows).stderr.decode()
    assert said == "0 rows: 0 imported, 0 refused.\n"
    said = mir(server, "import", "--from-line", str(lines + 2), "-", stdin=rows, code=1).stderr.decode()
    assert said.startswith(f"mir: there is no line {lines + 2} to begin with: there are {lines}\n")


def start_mir(server, *args, **how):
    environment = {**os.environ, "MIR_TARGET": server.url, "HOME": "/nonexistent"}
    return subprocess.Popen([BINARY, "telemetry", *args], stderr=subprocess.PIPE, env=environment, **how)


def test_import_that_is_interrupted_says_what_it_has_done(bus, server, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    kind = weather.name("Sample")
    process = start_mir(server, "import", "-", stdin=subprocess.PIPE)
    process.stdin.write(many_rows(name, kind, 5_000).encode() + f"{kind},__id={name} colour=1 5\n".encode())
    process.stdin.flush()
    # Most of it is on its way by now; the rest is when it is interrupted.
    wait_until(lambda: count_of(bus, name, kind) > 2_000, DEADLINE_S, "rows")
    process.send_signal(signal.SIGINT)
    assert process.wait(DEADLINE_S) == 130
    said = process.communicate()[1].decode()
    line = int(re.search(r"Everything before line (\d+) is done", said)[1])
    rows = int(re.search(r"(\d+) rows: (\d+) imported", said)[2])
    assert rows == min(line - 1, 5_000) == count_of(bus, name, kind)
    assert ("1 refused" in said) == (line == 5_002)


def test_export_that_is_interrupted_leaves_nothing(bus, server, mir, name, weather, tmp_path):  # noqa: F811
    launch_device(bus, name, weather)
    mir(server, "import", "-", stdin=many_rows(name, weather.name("Sample"), 20_000).encode())
    pipe, path = tmp_path / "pipe", tmp_path / "file"
    os.mkfifo(pipe)
    path.write_text("before")
    # Nobody reads the pipe to its end: the program is in the middle of its rows.
    process = start_mir(server, "export", name, "-O", str(pipe))
    with pipe.open("rb") as reader:
        assert reader.read(1000)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=DEADLINE_S)[1].decode()
    assert process.returncode == 130 and "Stopped" in said
    process = start_mir(server, "export", name, "-O", str(path))
    beside = path.with_name("file.tmp")
    wait_until(lambda: beside.exists() or process.poll() is not None, DEADLINE_S, "a file beside the other")
    process.send_signal(signal.SIGTERM)
    process.communicate(timeout=DEADLINE_S)
    assert not beside.exists()
    assert process.returncode == (130 if path.read_text() == "before" else 0)


def test_keys_with_zero_bytes_are_shown_as_in_tables(bus, server, mir, name):
    kind = Kind(NESTED, f"nested_{name}")
    launch_device(bus, name, kind)
    report(bus, name, kind.Deep(at={"seconds": START_NS // SECOND_NS}, rooms={"x\0y": 0.5}, south="a\0b"))
    for form in ("csv", "jsonl", "line"):
        out = mir(server, "export", name, "-m", kind.name("Deep"), "--format", form).stdout.decode()
        assert "rooms_x\ufffdy" in out and "a\ufffdb" in out


def test_messages_without_a_time_that_come_at_once_are_rows_of_their_own(bus, server, mir, name):
    kind = Kind(NESTED, f"nested_{name}")
    launch_device(bus, name, kind)
    report(bus, name, *[kind.Timeless(level=n) for n in range(500)])
    lines = mir(server, "export", name, "-m", kind.name("Timeless"), "--format", "jsonl").stdout.decode().splitlines()
    assert [json.loads(line)["level"] for line in lines] == list(range(500))
