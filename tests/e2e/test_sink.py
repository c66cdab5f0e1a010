# SPDX-License-Identifier: Apache-2.0
"""Telemetry that is forwarded as Influx line protocol, whatever the other side does meanwhile."""

import contextlib
import gzip
import http.server
import json
import os
import re
import shutil
import socket
import ssl
import subprocess
import threading
import urllib.parse
import urllib.request

import pytest
from bus import DEADLINE_S, Bus
from load import Stream, readings_kind, status_of
from peers import ANSWER_S, answers, fetch, free_port, start_influxdb
from test_telemetry import SECOND_NS, START_NS, Kind, launch_device, report

from wire import wait_until

ENV = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Env {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double temperature = 2;
    optional int64 level = 3;
    optional string note = 4;
    optional bool open = 5;
    map<string, double> by = 6;
}
"""
# Only here may both of these names be in one message.
CLOCK = """
syntax = "proto2";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Clock {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    optional int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    optional int64 time = 2;
    optional int64 time_ = 3 [json_name = "too"];
}
"""
SCALE = int(os.environ.get("MIR_TEST_SCALE", "1"))
LINE = re.compile(r"^(?P<measurement>[^, ]+),(?P<tags>(?:\\.|[^ \\])+) (?P<fields>.*) (?P<time>-?\d+)$")


class Peer:
    """An HTTP server that does with a batch what `rule` says: a status and a text, or None for no answer at all."""

    def __init__(self, tls=None):
        self.tls = tls
        self.lines, self.bodies, self.refused, self.heads, self.connections = [], [], [], [], []
        self.rule = lambda lines: (204, "")
        self.hanging = threading.Event()
        self.port = None
        self.up()

    def up(self):
        peer = self

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def setup(self):
                super().setup()
                peer.connections.append(self.connection)

            def do_POST(self):
                body = self.rfile.read(int(self.headers["Content-Length"]))
                if self.headers["Content-Encoding"] == "gzip":
                    body = gzip.decompress(body)
                body = body.decode()
                lines = [line for line in body.splitlines() if not line.startswith("#")]
                peer.heads.append((self.path, dict(self.headers)))
                rule = peer.rule(lines)
                if rule is None:  # neither an answer nor an end, until the test is over
                    peer.hanging.wait(ANSWER_S)
                    self.close_connection = True
                    return
                status, text, *headers = rule
                if status == "garbage":
                    self.wfile.write(text.encode())
                    self.close_connection = True
                    return
                if 200 <= status < 300:
                    peer.bodies.append(body if lines else "")
                    peer.lines.extend(lines)
                else:
                    peer.refused.append(lines)
                self.send_response(status)
                for name, value in headers:
                    self.send_header(name, value)
                self.send_header("Content-Length", str(len(text)))
                self.end_headers()
                self.wfile.write(text.encode())

            def log_message(self, *_):
                pass

        class Server(http.server.ThreadingHTTPServer):
            daemon_threads = True
            handle_error = staticmethod(lambda *_: None)  # a peer that hangs up is no news
            allow_reuse_address = True

        self.server = Server(("127.0.0.1", self.port or 0), Handler)
        self.port = self.server.server_address[1]
        if self.tls is not None:
            self.server.socket = self.tls.wrap_socket(self.server.socket, server_side=True, do_handshake_on_connect=False)
        self.thread = threading.Thread(target=self.server.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True)
        self.thread.start()

    def down(self):
        self.server.shutdown()
        self.server.server_close()
        self.thread.join(DEADLINE_S)
        for connection in self.connections:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self.connections = []

    @property
    def url(self):
        return f"http{'' if self.tls is None else 's'}://127.0.0.1:{self.port}/write?db=mir"

    def times(self, device):
        """Of the lines of a device, in the order in which they came."""
        found = [LINE.match(line) for line in self.lines]
        return [int(one["time"]) for one in found if f"__id={device}" in one["tags"].split(",")]

    def await_times(self, device, count):
        wait_until(lambda: len(set(self.times(device))) >= count, ANSWER_S, f"{count} rows of {device}")
        return self.times(device)


@pytest.fixture
def peer():
    peer = Peer()
    yield peer
    peer.hanging.set()
    peer.down()


@pytest.fixture(scope="module")
def env():
    return Kind(ENV, "sink")


def to(peer, **more):
    return {"telemetry.sink.url": peer.url, "telemetry.sink.linger": "20ms", **more}


def sink_of(server):
    return status_of(server)["sink"]


def kinds(server):
    return [one["kind"] for one in status_of(server)["problems"]]


def send(bus, env, device, first, count):
    report(bus, device, *(env.Env(ts=START_NS + n * SECOND_NS, temperature=n / 8, level=n) for n in range(first, first + count)))


def expected(count):
    return [START_NS + n * SECOND_NS for n in range(count)]


def await_caught_up(server):
    wait_until(lambda: sink_of(server)["lag_rows"] == 0, ANSWER_S, "nothing waits")
    return sink_of(server)


def test_rows_are_lines_with_what_the_device_is_called(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.token": "s3cret"}))
    bus = connect(server)
    bus.create(name, "boiler 7", "plant,a", labels={"site": "north=1", "floor": "2", "time": "noon"})
    launch_device(bus, name, env)
    report(bus, name, env.Env(ts=START_NS, temperature=1.5, level=-(2**63), note='say "a\\b"\r\nnow', open=True))
    report(bus, name, env.Env(ts=START_NS + 1, temperature=float("nan"), level=4))
    wait_until(lambda: len(peer.lines) >= 2, ANSWER_S, "two rows")
    text = "".join(peer.bodies)
    assert text == (
        rf'sink.v1.Env,__id={name},__name=boiler\ 7,__namespace=plant\,a,floor=2,site=north\=1 '
        rf'temperature=1.5,level=-9223372036854775808i,note="say \"a\\b\"\\r\\nnow",open=true {START_NS}' "\n"
        rf'sink.v1.Env,__id={name},__name=boiler\ 7,__namespace=plant\,a,floor=2,site=north\=1 '
        rf'level=4i {START_NS + 1}' "\n"
    )  # fmt: skip
    path, headers = peer.heads[0]
    assert path == "/write?db=mir" and headers["Authorization"] == "Token s3cret"
    status = await_caught_up(server)
    assert status["rows_sent"] == 2 and status["values_left_out"] == 2 and not status["failing"]
    assert status["url"] == peer.url.split("?")[0] and "last_error" not in status
    # A device that is renamed goes by its new name from then on.
    bus.ask("core.update", targets={"ids": [name]}, meta={"name": "kettle"})
    report(bus, name, env.Env(ts=START_NS + 2, temperature=2))
    wait_until(lambda: "__name=kettle," in "".join(peer.bodies), ANSWER_S, "the new name")


def test_a_field_that_influxdb_leaves_out_goes_by_another_name(launch, connect, peer, name):
    server = launch(to(peer))
    bus = connect(server)
    clock = Kind(CLOCK, "clock")
    launch_device(bus, name, clock)
    report(bus, name, clock.Clock(ts=START_NS, time=7), clock.Clock(ts=START_NS + 1, time=8, time_=9))
    wait_until(lambda: len(peer.lines) >= 2, ANSWER_S, "two rows")
    assert [LINE.match(line)["fields"] for line in peer.lines] == ["time_=7i", "time_=9i"]
    assert "time of clock.v1.Clock is sent as time_" in server.log()
    assert await_caught_up(server)["values_left_out"] == 1


def test_nothing_is_lost_while_the_other_side_is_away(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.batch_lines": 50}))
    bus = connect(server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 100)
    peer.await_times(name, 100)
    peer.down()
    send(bus, env, name, 100, 300)
    wait_until(lambda: sink_of(server)["failing"], ANSWER_S, "the sink has noticed")
    status = sink_of(server)
    assert status["lag_rows"] > 0 and status["retries"] > 0 and status["last_error"]
    assert "sink" in kinds(server)
    assert "does not accept rows" in server.log()
    peer.up()
    assert peer.await_times(name, 400) == expected(400)
    status = await_caught_up(server)
    assert status["rows_sent"] == 400 and status["rows_refused"] == status["rows_dropped"] == 0
    assert not status["failing"] and "sink" not in kinds(server)
    assert "accepts rows again" in server.log()


def test_whatever_is_answered_rows_come_once_it_works(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.timeout": "2s"}))
    bus = connect(server)
    launch_device(bus, name, env)
    failures = [(500, "no"), (503, "busy", ("Retry-After", "1")), (429, "slower"), None, ("garbage", "\x00\x01 what?\r\n\r\n"),
                (302, "there", ("Location", "/elsewhere")), (401, "who?"), (404, "database not found")]  # fmt: skip
    waiting = []
    peer.rule = lambda lines: waiting.pop(0) if waiting else (204, "")
    for n in range(0, 8, 2):  # pauses grow with each failure
        waiting.extend(failures[n : n + 2])
        send(bus, env, name, n * 10, 20)
        peer.await_times(name, n * 10 + 20)
    # What took too long to be answered came twice.
    assert list(dict.fromkeys(peer.times(name))) == expected(80)
    status = await_caught_up(server)
    assert status["retries"] >= 8 and status["rows_refused"] == 0
    assert {path for path, _ in peer.heads} == {"/write?db=mir"}


def test_who_is_slower_than_a_batch_takes_gets_less_at_once(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.timeout": "1s"}))
    bus = connect(server)
    launch_device(bus, name, env)
    peer.rule = lambda lines: (204, "") if len(lines) <= 40 else None
    send(bus, env, name, 0, 200)
    peer.await_times(name, 200)
    assert sorted(set(peer.times(name))) == expected(200)
    status = await_caught_up(server)
    assert status["rows_sent"] == 200 and status["rows_refused"] == 0


def test_a_refused_row_takes_none_along(launch, connect, env, peer, name):
    server = launch(to(peer))
    bus = connect(server)
    launch_device(bus, name, env)
    bad = {f"level={n}i" for n in (3, 4, 77, 199)}
    peer.rule = lambda lines: (400, "bad\r\nlevel") if any(f"{one} " in line for line in lines for one in bad) else (204, "")
    send(bus, env, name, 0, 200)
    times = peer.await_times(name, 196)
    assert times == [START_NS + n * SECOND_NS for n in range(200) if n not in (3, 4, 77, 199)]
    status = await_caught_up(server)
    assert status["rows_refused"] == 4 and status["rows_sent"] == 196
    assert status["last_error"] == "HTTP 400: bad level" and not status["failing"]
    assert "refused" in server.log() and "sink.v1.Env,__id=" in server.log()


def test_who_is_killed_goes_on_where_it_was(launch, loop, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.batch_lines": 20}))
    sent = 0
    for n in range(4):
        bus = Bus(loop, server)
        if n == 0:
            launch_device(bus, name, env)
        if n == 2:
            peer.rule = lambda lines: (503, "away")
        seen = len(peer.times(name))
        send(bus, env, name, sent, 150)
        sent += 150
        if n != 2:
            wait_until(lambda: len(peer.times(name)) > seen, ANSWER_S, "some rows")
        bus.close()
        server.kill()
        peer.rule = lambda lines: (204, "")
        server.start()
    assert set(peer.await_times(name, sent)) == set(expected(sent))
    # What came twice is what was in a batch when it was killed, and each row came first in its order.
    times = peer.times(name)
    assert list(dict.fromkeys(times)) == expected(sent)
    assert len(times) <= sent + 4 * 20
    await_caught_up(server)


def test_what_a_pong_covered_is_forwarded_however_often_the_server_is_killed(launch, loop, peer, name):
    kind = readings_kind(name)
    server = launch(to(peer, **{"telemetry.log_bytes_max": "8MiB", "telemetry.sink.batch_lines": 500}))
    devices = [f"{name}-{n}" for n in range(3)]
    bus = Bus(loop, server)
    for device in devices:
        launch_device(bus, device, kind)
    bus.close()
    covered = dict.fromkeys(devices, 0)
    for n in range(5):
        streams = [Stream(server, kind, device, batch=50, first=covered[device]) for device in devices]
        for stream in streams:
            stream.start()
        before = sum(covered.values())
        wait_until(lambda: sum(stream.covered for stream in streams) - before >= 3000 // SCALE + 300, ANSWER_S, "load")
        if n == 1:
            peer.down()
        server.kill()
        for stream in streams:
            stream.stopping.set()
            stream.join(DEADLINE_S)
            covered[stream.device] = stream.covered
        if n == 2:
            peer.up()
        server.start()
    for device in devices:
        wait_until(lambda: len(set(peer.times(device))) >= covered[device], ANSWER_S, f"rows of {device}")  # noqa: B023
        times = list(dict.fromkeys(peer.times(device)))
        assert set(times) >= {START_NS + number for number in range(covered[device])}
    status = await_caught_up(server)
    assert status["rows_refused"] == status["rows_dropped"] == status["rows_damaged"] == 0


def test_lines_go_out_compressed(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.compression": "gzip"}))
    bus = connect(server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 1000)
    assert sorted(set(peer.await_times(name, 1000))) == expected(1000)
    assert await_caught_up(server)["rows_sent"] >= 1000
    assert all(head["Content-Encoding"] == "gzip" for _, head in peer.heads)
    on_the_wire = sum(int(head["Content-Length"]) for _, head in peer.heads)
    assert on_the_wire * 4 < sum(len(body) for body in peer.bodies)


def test_rows_wait_for_who_takes_nothing_compressed(launch, connect, env, peer, name):
    peer.rule = lambda lines: (415, "unsupported encoding")
    server = launch(to(peer, **{"telemetry.sink.compression": "gzip"}))
    bus = connect(server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 10)
    wait_until(lambda: sink_of(server)["failing"], ANSWER_S, "the sink says that it fails")
    assert "415" in sink_of(server)["last_error"] and sink_of(server)["rows_refused"] == 0
    peer.rule = lambda lines: (204, "")
    assert sorted(set(peer.await_times(name, 10))) == expected(10)


def test_rules_choose_what_is_forwarded(launch, connect, env, peer, name):
    rules = f"[{{namespace: test-*, forward: false}}, {{namespace: plant, message: {env.package}.*}}, {{namespace: plant-1}}]"
    server = launch(to(peer, **{"telemetry.sink.rules": rules}))
    bus = connect(server)
    rows = {"test-1": 0, "plant": 20, "plant-1": 20, "plant-2": 0}
    for namespace in rows:
        bus.create(f"{name}-{namespace}", f"of-{namespace}", namespace)
        launch_device(bus, f"{name}-{namespace}", env)
        send(bus, env, f"{name}-{namespace}", 0, 20)
    assert await_caught_up(server)["rows_withheld"] == 40
    for namespace, count in rows.items():
        assert len(peer.times(f"{name}-{namespace}")) == count
    # Where a device is when its rows go out is what counts.
    bus.ask("core.update", targets={"ids": [f"{name}-plant-2"]}, meta={"namespace": "plant-1"})
    send(bus, env, f"{name}-plant-2", 20, 20)
    assert sorted(set(peer.await_times(f"{name}-plant-2", 20))) == expected(40)[20:]


def certificate(where, name):
    """A certificate for 127.0.0.1 that vouches for itself, and its key."""
    paths = [str(where / f"{name}.{kind}") for kind in ("pem", "key")]
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes", "-days", "2",
               "-subj", f"/CN={name}", "-addext", "subjectAltName=IP:127.0.0.1", "-out", paths[0], "-keyout", paths[1]]  # fmt: skip
    subprocess.run(command, check=True, capture_output=True, timeout=ANSWER_S)
    return paths


def test_lines_go_to_whom_a_certificate_vouches_for_and_to_nobody_else(launch, connect, env, name, tmp_path):
    pem, key = certificate(tmp_path, "ours")
    other, _ = certificate(tmp_path, "theirs")
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem, key)
    peer = Peer(tls)
    try:
        for vouching in ({"telemetry.sink.ca_file": other}, {}):
            server = launch(to(peer, **vouching))
            bus = connect(server)
            launch_device(bus, name, env)
            send(bus, env, name, 0, 5)
            wait_until(lambda: sink_of(server)["failing"], ANSWER_S, "the certificate is refused")  # noqa: B023
            status = sink_of(server)
            assert "certificate" in status["last_error"] and status["lag_rows"] == 5 and status["rows_refused"] == 0
            assert peer.heads == []  # nothing was said before the other side was known
        server = launch(to(peer, **{"telemetry.sink.ca_file": pem}))
        bus = connect(server)
        launch_device(bus, name, env)
        send(bus, env, name, 0, 100)
        assert sorted(set(peer.await_times(name, 100))) == expected(100)
    finally:
        peer.hanging.set()
        peer.down()


@pytest.mark.parametrize(
    ("settings", "text"),
    [({"telemetry.sink.url": "127.0.0.1:8086"}, "telemetry.sink.url: expected a URL such as"),
     ({"telemetry.sink.url": "http://x/", "telemetry.sink.user": "a", "telemetry.sink.token": "b"}, "either a token or a user"),
     ({"telemetry.sink.url": "http://x/", "telemetry.sink.batch_lines": "0"}, "telemetry.sink.batch_lines"),
     ({"telemetry.sink.url": "https://x/", "telemetry.sink.ca_file": "/nowhere/ca.pem"}, "telemetry.sink.ca_file: cannot read /nowhere/ca.pem"),
     ({"telemetry.sink.url": "http://x/", "telemetry.sink.compression": "zip"}, "telemetry.sink.compression")],
)  # fmt: skip
def test_what_cannot_be_meant_is_said_at_the_start(tmp_path, settings, text):
    command = [os.environ["MIR_BIN"], "serve", "--data", str(tmp_path / "data"), "--listen", "127.0.0.1:0"]
    for key, value in settings.items():
        command += ["--set", f"{key}={value}"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode != 0 and text in done.stderr


def test_the_oldest_is_given_up_when_too_much_waits(launch, connect, env, peer, name):
    server = launch(to(peer, **{"telemetry.sink.spool_bytes_max": "1MiB", "telemetry.log_bytes_max": "8MiB",
                                "telemetry.sink.linger": "1h"}))  # fmt: skip
    bus = connect(server)
    launch_device(bus, name, env)
    text = "x" * 4000
    count = 3000

    def dropped():
        return sink_of(server)["rows_dropped"]

    peer.down()
    for n in range(count):
        report(bus, name, env.Env(ts=START_NS + n * SECOND_NS, note=text), flush=n % 100 == 99)
    wait_until(lambda: dropped() > 0, ANSWER_S, "rows are given up")
    assert "will not be sent" in server.log()
    assert "sink dropped" in kinds(server)

    wait_until(lambda: bus.ask("evt.list", target={"reasons": ["TelemetryForwardingDropped"]}).events, ANSWER_S, "an event")


def test_it_begins_when_it_is_switched_on_and_leaves_nothing_when_off(launch, loop, env, peer, name):
    server = launch({"telemetry.sink.linger": "20ms"})
    bus = Bus(loop, server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 10)
    assert "sink" not in status_of(server)
    bus.close()
    server.stop()
    server.settings = {**server.settings, "telemetry.sink.url": peer.url}
    server.start()
    bus = Bus(loop, server)
    send(bus, env, name, 10, 5)
    assert peer.await_times(name, 5) == expected(15)[10:]
    bus.close()
    peer.rule = lambda lines: (500, "")
    server.stop()
    pins = server.folder / "data" / "sink"
    assert list(pins.glob("*.log")) and (pins / "POSITION").exists()
    server.settings = {"telemetry.sink.linger": "20ms"}
    server.start()
    assert list(pins.iterdir()) == []


def test_the_command_shows_how_far_it_is(launch, connect, env, peer, name):
    command = [os.environ["MIR_BIN"], "telemetry", "sink", "status", "--target"]
    quiet = launch({})
    done = subprocess.run([*command, quiet.url], capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode == 1 and "telemetry.sink.url is not set" in done.stderr
    server = launch(to(peer))
    bus = connect(server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 10)
    await_caught_up(server)
    done = subprocess.run([*command, server.url], capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode == 0, done.stderr
    assert f"to        http://127.0.0.1:{peer.port}/write\n" in done.stdout and "?db" not in done.stdout
    assert "sent      10 rows in " in done.stdout and "waiting   0 rows; " in done.stdout
    peer.rule = lambda lines: (500, "\x1b[31mno")
    send(bus, env, name, 10, 5)
    wait_until(lambda: sink_of(server)["failing"] and sink_of(server)["lag_rows"] == 5, ANSWER_S, "five wait")
    done = subprocess.run([*command, server.url], capture_output=True, text=True, timeout=ANSWER_S)
    assert done.returncode == 1
    assert "which does not accept anything" in done.stdout and "waiting   5 rows, the oldest for " in done.stdout
    assert "HTTP 500: [31mno (last at 20" in done.stdout
    done = subprocess.run([*command, server.url, "-o", "json"], capture_output=True, text=True, timeout=ANSWER_S)
    assert json.loads(done.stdout)["lag_rows"] == 5


@pytest.mark.skipif(shutil.which("victoria-metrics") is None, reason="victoria-metrics is not installed")
def test_victoria_metrics_has_what_was_sent(launch, connect, env, run_peer, tmp_path, name):
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    command = ("victoria-metrics", f"-storageDataPath={tmp_path}/vm", f"-httpListenAddr=127.0.0.1:{port}",
               "-retentionPeriod=100y")  # fmt: skip
    server = launch({"telemetry.sink.url": f"{base}/write", "telemetry.sink.linger": "20ms"})
    bus = connect(server)
    bus.create(name, f"{name}-pump", "plant", labels={"site": "north"})
    launch_device(bus, name, env)
    send(bus, env, name, 0, 50)  # nobody is there yet
    wait_until(lambda: sink_of(server)["failing"], ANSWER_S, "nobody is there")
    run_peer(*command)
    wait_until(lambda: answers(f"{base}/health"), ANSWER_S, "VictoriaMetrics")
    send(bus, env, name, 50, 50)
    await_caught_up(server)
    match = urllib.parse.urlencode({"match[]": f'{{__id="{name}"}}'})

    def exported():
        fetch(f"{base}/internal/force_flush")
        return {one["metric"]["__name__"]: one for one in map(json.loads, fetch(f"{base}/api/v1/export?{match}").splitlines())}

    wait_until(lambda: len(exported().get("sink.v1.Env_level", {}).get("values", [])) == 100, ANSWER_S, "all rows")
    level = exported()["sink.v1.Env_level"]
    assert level["values"] == list(range(100))
    assert level["timestamps"] == [time // 10**6 for time in expected(100)]
    assert level["metric"]["__id"] == name and level["metric"]["site"] == "north"
    assert exported()["sink.v1.Env_temperature"]["values"] == [n / 8 for n in range(100)]
    # What a device says cannot become a row of another one.
    forged = f"x\nsink.v1.Env,__id={name}-victim level=666 {START_NS}\n"
    report(bus, name, env.Env(ts=START_NS + 500 * SECOND_NS, level=500, note=forged))
    wait_until(lambda: exported()["sink.v1.Env_level"]["values"][-1] == 500, ANSWER_S, "the row with line ends in its text")
    victim = urllib.parse.urlencode({"match[]": f'{{__id="{name}-victim"}}'})
    assert fetch(f"{base}/api/v1/export?{victim}") == ""
    # Nor does a key that it chooses cost the row.
    keys = ['"', 'a"b', 'a "b', "ü, =1"]
    report(bus, name, env.Env(ts=START_NS + 501 * SECOND_NS, level=501, note='a "b', by={key: 1 + n for n, key in enumerate(keys)}))
    wait_until(lambda: exported()["sink.v1.Env_level"]["values"][-1] == 501, ANSWER_S, "the row with quotes in its names")
    found = {metric.replace('\\"', '"'): one["values"] for metric, one in exported().items()}
    for n, key in enumerate(keys):
        assert found[f"sink.v1.Env_by_{key}"] == [1 + n]


@pytest.mark.skipif(shutil.which("victoria-metrics") is None, reason="victoria-metrics is not installed")
def test_a_wrong_path_loses_nothing(launch, connect, env, run_peer, tmp_path, name):
    """VictoriaMetrics answers it with a 400, as others answer a line that they cannot read."""
    port = free_port()
    base = f"http://127.0.0.1:{port}"
    run_peer("victoria-metrics", f"-storageDataPath={tmp_path}/vm", f"-httpListenAddr=127.0.0.1:{port}", "-retentionPeriod=100y")
    wait_until(lambda: answers(f"{base}/health"), ANSWER_S, "VictoriaMetrics")
    server = launch({"telemetry.sink.url": f"{base}/wrong", "telemetry.sink.linger": "20ms"})
    bus = connect(server)
    launch_device(bus, name, env)
    send(bus, env, name, 0, 20)
    wait_until(lambda: sink_of(server)["failing"], ANSWER_S, "the sink says that it fails")
    status = sink_of(server)
    assert "unsupported path" in status["last_error"] and status["rows_refused"] == 0 and status["lag_rows"] == 20


@pytest.mark.skipif(shutil.which("influxd") is None, reason="influxdb is not installed")
def test_influxdb_has_what_was_sent(launch, connect, env, run_peer, tmp_path, name):
    base = start_influxdb(run_peer, tmp_path)
    server = launch({"telemetry.sink.url": f"{base}/write?db=mir", "telemetry.sink.linger": "20ms"})
    bus = connect(server)
    bus.create(name, f"{name}-pump", "plant", labels={"site": "north"})
    launch_device(bus, name, env)
    send(bus, env, name, 0, 50)
    wait_until(lambda: "database not found" in sink_of(server).get("last_error", ""), ANSWER_S, "it says what is missing")
    fetch(f"{base}/query?" + urllib.parse.urlencode({"q": "CREATE DATABASE mir"}), "POST")
    # A field that has another type there: those rows are refused, and the others come.
    note = f"sink.v1.Env,__id=other note=1i {START_NS}"
    urllib.request.urlopen(urllib.request.Request(f"{base}/write?db=mir", data=note.encode(), method="POST"), timeout=ANSWER_S).close()
    report(bus, name, env.Env(ts=START_NS + 500 * SECOND_NS, note="text"))
    send(bus, env, name, 50, 50)
    status = await_caught_up(server)
    assert status["rows_refused"] == 1 and "conflict" in status["last_error"]
    query = f"SELECT level, temperature FROM \"sink.v1.Env\" WHERE __id = '{name}' AND site = 'north'"
    found = json.loads(fetch(f"{base}/query?" + urllib.parse.urlencode({"db": "mir", "epoch": "ns", "q": query})))
    values = found["results"][0]["series"][0]["values"]
    assert values == [[time, n, n / 8] for n, time in enumerate(expected(100))]
    keys = ['"', 'a"b', 'a "b', "ü, =1"]
    report(bus, name, env.Env(ts=START_NS + 501 * SECOND_NS, by={key: 1 + n for n, key in enumerate(keys)}))
    await_caught_up(server)
    query = f"SELECT * FROM \"sink.v1.Env\" WHERE __id = '{name}' AND time = {START_NS + 501 * SECOND_NS}"
    found = json.loads(fetch(f"{base}/query?" + urllib.parse.urlencode({"db": "mir", "epoch": "ns", "q": query})))
    series = found["results"][0]["series"][0]
    row = dict(zip(series["columns"], series["values"][0]))
    assert [row[f"by_{key}"] for key in keys] == [1, 2, 3, 4]
