# SPDX-License-Identifier: Apache-2.0
"""Telemetry over HTTP, as dashboards ask for it: InfluxQL in, JSON of InfluxDB 1.x out. The client
`influx` is Debian's, unmodified."""

import base64
import contextlib
import csv
import http.client
import io
import json
import os
import pathlib
import re
import shutil
import signal
import socket
import subprocess
import threading
import urllib.error
import urllib.parse
import urllib.request
from random import Random

import pytest
from bus import DEADLINE_S, api
from peers import ANSWER_S, start_influxdb
from peers import fetch as get
from test_telemetry import SECOND_NS, START_NS, Kind, launch_device, query, report, rows_of, types_of

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
    optional uint64 big = 4;
    optional string note = 5;
    optional bool open = 6;
}
"""

BINARY = os.environ.get("MIR_BIN", "build/dev/bin/mir")
ROWS = max(20, 200 // int(os.environ.get("MIR_TEST_SCALE", "1")))
START_S = START_NS // SECOND_NS
HTTP = re.compile(r"http on 127\.0\.0\.1:(\d+)")
ON = {"http.listen": "127.0.0.1:0"}
# A million windows, of which one is shown; sixty times.
SLOW = ";".join([f'SELECT count(temperature) FROM "influx.v1.Env" WHERE time >= {START_S - 999_000}s AND time < {START_S}s + 900s '
                 "GROUP BY time(1s) fill(0) LIMIT 1"] * 60)  # fmt: skip


def port_of(server):
    return int(HTTP.search(server.log())[1])


def fetch(server, path="/query", body=None, headers=None, method=None, **parameters):
    """Status, headers and body; errors are answers like others."""
    query = urllib.parse.urlencode(parameters)
    url = f"http://127.0.0.1:{port_of(server)}{path}" + (f"?{query}" if query else "")
    request = urllib.request.Request(url, data=body, headers=headers or {}, method=method)
    try:
        with urllib.request.urlopen(request, timeout=6 * DEADLINE_S) as answer:
            return answer.status, answer.headers, answer.read()
    except urllib.error.HTTPError as error:
        with error:
            return error.code, error.headers, error.read()


def ask(server, q, **parameters):
    """The results of a query that is understood."""
    status, headers, body = fetch(server, q=q, **{"db": "mir", "epoch": "s", **parameters})
    assert status == 200, body
    assert headers["Content-Type"] == "application/json"
    return json.loads(body)["results"]


def series(server, q, **parameters):
    (result,) = ask(server, q, **parameters)
    assert "error" not in result, result
    return result.get("series", [])


def refusal(server, q, **parameters):
    status, _, body = fetch(server, q=q, **{"db": "mir", **parameters})
    return status, json.loads(body)["error"]


def http_status(bus):
    return json.loads(bus.raw("sys.status").data)["http"]


@pytest.fixture(scope="module")
def env():
    return Kind(ENV, "influx")


@pytest.fixture
def dash(shared):
    return shared(ON)


@pytest.fixture
def fleet(dash, connect, env, name):
    """Two pumps and a valve, each with its readings; a prefix that no other test uses."""
    bus = connect(dash)
    for i, label in (("a", "north"), ("b", "south"), ("c", "")):
        bus.create(f"{name}-{i}", f"{name}-pump-{i}" if label else f"{name}-valve", name,
                   labels={"site": label} if label else {})  # fmt: skip
        launch_device(bus, f"{name}-{i}", env)
    for second in range(0, 30, 5):
        report(bus, f"{name}-a", env.Env(ts=START_NS + second * SECOND_NS, temperature=second, level=second * 10))
    report(bus, f"{name}-b", env.Env(ts=START_NS + SECOND_NS, temperature=0.5, note='a "b"', open=True, big=2**64 - 1))
    report(bus, f"{name}-c", env.Env(ts=START_NS + 12 * SECOND_NS, temperature=float("nan"), level=-(2**63)))
    return bus


def test_what_there_is_can_be_browsed(dash, fleet, name):
    assert series(dash, "SHOW DATABASES") == [{"name": "databases", "columns": ["name"], "values": [["mir"]]}]
    (policies,) = series(dash, 'SHOW RETENTION POLICIES on "mir"')
    assert policies["values"] == [["autogen", "0s", "168h0m0s", 1, True]]
    (found,) = series(dash, "SHOW MEASUREMENTS WITH MEASUREMENT =~ /(?i)INFLUX/ LIMIT 100")
    assert found["values"] == [["influx.v1.Env"]]
    (keys,) = series(dash, 'SHOW FIELD KEYS FROM "autogen"."influx.v1.Env"')
    assert keys["values"] == [["big", "unsigned"], ["level", "integer"], ["note", "string"], ["open", "boolean"],
                              ["temperature", "float"]]  # fmt: skip
    (tags,) = series(dash, 'SHOW TAG KEYS FROM "influx.v1.Env"')
    assert tags["values"] == [["__id"], ["__name"], ["__namespace"], ["site"]]
    of_ours = f"WHERE \"__namespace\" = '{name}'"
    (values,) = series(dash, f'SHOW TAG VALUES FROM "influx.v1.Env" WITH KEY = "site" {of_ours}')
    assert values["values"] == [["site", "north"], ["site", "south"]]
    (names,) = series(dash, f'SHOW SERIES FROM "influx.v1.Env" {of_ours} LIMIT 1')
    assert names["values"] == [[f"influx.v1.Env,__id={name}-a,__name={name}-pump-a,__namespace={name},site=north"]]


def test_the_query_builder_gets_its_windows(dash, fleet, name):
    first, last = START_NS // 10**6, START_NS // 10**6 + 39_999
    found = series(
        dash,
        f'SELECT mean("temperature") FROM "influx.v1.Env" WHERE ("__name"::tag =~ /^{name}-pump.*$/) AND '
        f'time >= {first}ms and time <= {last}ms GROUP BY time(10s), "__name"::tag fill(null) ORDER BY time ASC',
        epoch="ms",
    )
    assert [one["tags"] for one in found] == [{"__name": f"{name}-pump-a"}, {"__name": f"{name}-pump-b"}]
    assert found[0]["columns"] == ["time", "mean"]
    assert found[0]["values"] == [[first, 2.5], [first + 10_000, 12.5], [first + 20_000, 22.5], [first + 30_000, None]]
    assert [value for _, value in found[1]["values"]] == [0.5, None, None, None]
    # Of the last hour there is nothing.
    assert series(dash, 'SELECT mean("temperature") FROM "influx.v1.Env" WHERE time > now() - 1h GROUP BY time(1m)') == []


def test_values_are_exact(dash, fleet, name):
    (found,) = series(dash, f'SELECT big, level, note, open, temperature FROM "influx.v1.Env" WHERE __id = \'{name}-b\'')
    assert found["values"] == [[START_S + 1, 2**64 - 1, None, 'a "b"', True, 0.5]]
    (found,) = series(dash, f'SELECT level, temperature FROM "influx.v1.Env" WHERE __id = \'{name}-c\'')
    assert found["values"] == [[START_S + 12, -(2**63), None]]


def test_a_sum_beyond_64_bits_makes_all_of_them_doubles(dash, fleet, env, name):
    """One column for all devices: exact while each of its sums fits, else each rounded to a double once."""
    measurement, most = "influx.v1.Env", 2**64 - 1
    for device, values in (("a", (5, 2**53)), ("c", (most, most, most - 6))):
        report(fleet, f"{name}-{device}", *[env.Env(ts=START_NS + (100 + n) * SECOND_NS, big=value) for n, value in enumerate(values)])
    exact, sums = {"a": 2**53 + 5, "b": most}, {"a": 2.0**53 + 4, "b": 2.0**64, "c": float(3 * most - 6)}

    def table(devices, **how):
        answer = query(fleet, [f"{name}-{each}" for each in devices], measurement, START_NS, START_NS + 999 * SECOND_NS,
                       functions=["sum", "count"], fields=["big"], **how)
        assert list(answer.headers)[2:] == ["count(big)", "sum(big)"]
        return types_of(answer)[-1], {row[1].removeprefix(f"{name}-"): row[-1] for row in rows_of(answer)}

    assert table("ab") == ("UINT64", exact)
    assert table("abc") == ("DOUBLE", sums)
    assert table("abc", aggregation_window="1h") == ("DOUBLE", sums)

    def influx(devices, group):
        found = series(dash, f'SELECT sum(big) FROM "{measurement}" WHERE __id =~ /^{name}-[{devices}]$/ {group}')
        return {one.get("tags", {}).get("__id", "").removeprefix(f"{name}-"): [row[1:] for row in one["values"]] for one in found}

    assert influx("ab", "GROUP BY __id") == {each: [[value]] for each, value in exact.items()}
    # As InfluxDB writes them: with as many digits as a double has, and zeros.
    assert {each: float(value) for each, ((value,),) in influx("abc", "GROUP BY __id").items()} == sums
    (((value,),),) = influx("abc", "").values()
    assert float(value) == float(4 * most - 6 + 2**53 + 5)

    def command(devices):
        asked = subprocess.run([BINARY, "telemetry", "query", "--id", ",".join(f"{name}-{each}" for each in devices), "-m", measurement, "-f", "big",
                                "--agg", "sum", "--from", str(START_S), "--to", str(START_S + 999), "-o", "csv"],
                               stdin=subprocess.DEVNULL, capture_output=True, text=True, timeout=6 * DEADLINE_S, check=False,
                               env={**os.environ, "HOME": "/nonexistent", "MIR_TARGET": f"127.0.0.1:{dash.port}"})
        assert asked.returncode == 0, asked.stderr
        header, *rows = csv.reader(io.StringIO(asked.stdout))
        assert header[1:] == ["__id", "big"]
        return {row[1].removeprefix(f"{name}-"): row[2] for row in rows}

    assert command("ab") == {each: str(value) for each, value in exact.items()}
    assert {each: float(text) for each, text in command("abc").items()} == sums


def test_changes_are_as_exact_as_times(dash, fleet, env, name):
    for after, value in ((0, 0), (100, 10**6), (350, 0)):
        report(fleet, f"{name}-b", env.Env(ts=START_NS + 60 * SECOND_NS + 57 + after, level=value))
    (found,) = series(dash, f"SELECT derivative(level, 1ns), difference(level) FROM \"influx.v1.Env\" WHERE __id = '{name}-b'", epoch="ns")
    assert [row[1:] for row in found["values"]] == [[10_000, 10**6], [-4000, -(10**6)]]


def test_windows_without_a_value_are_filled_after_the_function(dash, fleet, env, name):
    report(fleet, f"{name}-b", env.Env(ts=START_NS + 21 * SECOND_NS, temperature=4.5))
    where = f"FROM \"influx.v1.Env\" WHERE __id = '{name}-b' AND time >= {START_S}s AND time < {START_S + 40}s GROUP BY time(10s)"
    for fill, expected in (("7", [0, 7, 0, 7]), ("null", [0, None, 0, None]), ("previous", [0, 0, 0, 0]), ("none", [0, 0])):
        (found,) = series(dash, f"SELECT spread(temperature), max(temperature) - min(temperature) AS by_hand {where} fill({fill})")
        assert [row[1] for row in found["values"]] == expected, fill
        assert [row[2] for row in found["values"]] == [0 if value == 7 else value for value in expected], fill
    # Windows count none, so what is made of counts has them.
    (found,) = series(dash, f"SELECT difference(count(temperature)), moving_average(count(temperature), 2), difference(max(temperature)) {where}")
    assert [row[1:] for row in found["values"]] == [[-1, 0.5, None], [1, 0.5, 4], [-1, 0.5, None]]


def test_times_come_in_every_unit(dash, fleet, name):
    query = f"SELECT temperature FROM \"influx.v1.Env\" WHERE __id = '{name}-b'"
    time_ns = START_NS + SECOND_NS
    units = {"ns": 1, "u": 10**3, "ms": 10**6, "s": 10**9, "m": 60 * 10**9, "h": 3600 * 10**9}
    for epoch, unit in units.items():
        (found,) = series(dash, query, epoch=epoch)
        assert found["values"] == [[time_ns // unit, 0.5]]
    (found,) = series(dash, query, epoch="")
    assert found["values"] == [["2023-11-14T22:13:21Z", 0.5]]
    assert refusal(dash, query, epoch="d")[0] == 400


def test_a_renamed_device_keeps_its_history(dash, fleet, name):
    fleet.ask("core.update", targets={"ids": [f"{name}-a"]}, meta={"name": f"{name}-main"})
    counted = "SELECT count(temperature) FROM \"influx.v1.Env\" WHERE __name = '{}'"
    (found,) = series(dash, counted.format(f"{name}-main"))
    assert found["values"] == [[0, 6]]
    assert series(dash, counted.format(f"{name}-pump-a")) == []


def test_a_chunked_answer_has_a_document_for_each_part(dash, fleet, name):
    status, _, body = fetch(
        dash, q=f"SELECT level FROM \"influx.v1.Env\" WHERE __namespace = '{name}' AND level = '' GROUP BY __id; SHOW DATABASES",
        epoch="s", chunked="true", chunk_size=4,
    )  # fmt: skip
    assert status == 200
    parts = [json.loads(line)["results"] for line in body.splitlines()]
    assert [len(part) for part in parts] == [1] * 4
    rows = [(part[0]["statement_id"], part[0].get("partial"), part[0]["series"][0].get("partial"),
             len(part[0]["series"][0]["values"])) for part in parts]  # fmt: skip
    assert rows == [(0, True, True, 4), (0, True, None, 2), (0, None, None, 1), (1, None, None, 1)]


def test_a_query_may_be_posted(dash, fleet):
    form = urllib.parse.urlencode({"q": "SHOW DATABASES"}).encode()
    status, _, body = fetch(dash, body=form, headers={"Content-Type": "application/x-www-form-urlencoded"}, db="mir")
    assert status == 200 and json.loads(body)["results"][0]["series"][0]["values"] == [["mir"]]
    status, _, body = fetch(dash, body=b"SHOW DATABASES", headers={"Content-Type": "application/vnd.influxql"}, pretty="true")
    assert status == 200 and b'\n    "results": [\n' in body
    many = " OR ".join(f"__id = 'nobody-{i}'" for i in range(5000))
    form = urllib.parse.urlencode({"q": f"SELECT v FROM m WHERE {many}"}).encode()
    status, _, body = fetch(dash, body=form, headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, json.loads(body)) == (200, {"results": [{"statement_id": 0}]})
    status, _, body = fetch(dash, body=b"q=" + b"x" * (2 << 20), headers={"Content-Type": "application/x-www-form-urlencoded"})
    assert (status, json.loads(body)["error"]) == (413, "the request is larger than it may be")


def test_a_form_may_come_in_pieces(dash, fleet, name):
    form = urllib.parse.urlencode({
        "chunked": "true", "chunk_size": 4, "epoch": "s", "pretty": "false", "db": "mir",
        "q": f"SELECT level FROM \"influx.v1.Env\" WHERE __namespace = '{name}' AND level = '' GROUP BY __id",
    }).encode()  # fmt: skip
    head = f"POST /query HTTP/1.1\r\nHost: x\r\nConnection: close\r\nContent-Length: {len(form)}\r\n"
    head += "Content-Type: application/x-www-form-urlencoded\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port_of(dash)), DEADLINE_S) as client:
        client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        for byte in head.encode() + form:
            client.send(bytes([byte]))
        answer = b""
        while data := client.recv(65536):
            answer += data
    parts = answer.split(b"\r\n\r\n", 1)[1].splitlines()
    assert [len(json.loads(part)["results"][0]["series"][0]["values"]) for part in parts] == [4, 2, 1]


def test_a_form_with_parts_that_have_no_name_harms_nobody(dash):
    edge = b"--------------------edge"
    query = b'Content-Disposition: form-data; name="q"\r\n\r\nSHOW DATABASES'
    for part in (b"\r\nSHOW DATABASES", b"Content-Type: text/plain\r\n\r\nx", b"Content-Disposition: form-data\r\n\r\nx",
                 b'Content-Disposition: form-data; name\r\n\r\nx', b'Content-Disposition: form-data; filename="q"\r\n\r\n' + b"x" * 9000):  # fmt: skip
        form = b"".join(b"--" + edge + b"\r\n" + one + b"\r\n" for one in (part, query)) + b"--" + edge + b"--\r\n"
        status, _, body = fetch(dash, body=form, headers={"Content-Type": f"multipart/form-data; boundary={edge.decode()}"})
        assert status == 200 and json.loads(body)["results"][0]["series"][0]["values"] == [["mir"]]


def test_what_is_wrong_is_said(dash, fleet):
    assert refusal(dash, "SELEC") == (400, "error parsing query: found SELEC, expected SELECT or SHOW at line 1, char 1")
    assert refusal(dash, "") == (400, 'missing required parameter "q"')
    status, text = refusal(dash, "SELECT median(v) FROM m")
    assert status == 400 and "this function is not supported" in text
    (result,) = ask(dash, "SHOW MEASUREMENTS", db="telegraf")
    assert result["error"].startswith("database not found: telegraf")
    (result,) = ask(dash, "SELECT v FROM influx.v1.Env")
    assert "stands in double quotes" in result["error"]
    (result,) = ask(dash, "SELECT level FROM \"influx.v1.Env\" WHERE note = 'x'")
    assert result["error"].startswith("note is a field")
    first, second = ask(dash, "SHOW MEASUREMENTS ON other; SHOW DATABASES")
    assert "error" in first and second == {"statement_id": 1, "error": "not executed"}
    for path, method, code in (("/write", "POST", 405), ("/query", "PUT", 405), ("/x", "GET", 404), ("/ping", "POST", 405)):
        status, _, body = fetch(dash, path, body=b"x" if method != "GET" else None, method=method)
        assert status == code and json.loads(body)["error"]


def test_it_says_that_it_is_there(dash):
    for method in ("GET", "HEAD"):
        status, headers, body = fetch(dash, "/ping", method=method)
        assert (status, body) == (204, b"") and headers["X-Influxdb-Version"].startswith("1.8")
    status, _, body = fetch(dash, "/health")
    assert status == 200 and json.loads(body)["status"] == "pass"


def test_bytes_that_are_no_request_harm_nobody(dash, fleet):
    for garbage in (b"\x00" * 100, b"GET / HTTP/9.9\r\n\r\n", b"GET /query?q=%00%ff%'\"=&&= HTTP/1.1\r\nHost: x\r\n\r\n",
                    b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Length: -5\r\n\r\n", b"A" * 400_000):  # fmt: skip
        with socket.create_connection(("127.0.0.1", port_of(dash)), DEADLINE_S) as client:
            with contextlib.suppress(OSError):
                client.sendall(garbage)
                client.shutdown(socket.SHUT_WR)
                while client.recv(65536):
                    pass
    assert series(dash, "SHOW DATABASES")


def requests_of_many_kinds():
    query = b"q=SHOW+DATABASES&epoch=ms&chunked=true&chunk_size=2&pretty=true&u=a&p=b&db=mir"
    edge = b"-------------edge"
    parts = b"".join(b"--" + edge + b'\r\nContent-Disposition: form-data; name="' + key + b'"\r\n\r\n' + value + b"\r\n"
                     for key, value in ((b"q", b"SHOW SERIES"), (b"db", b"mir"), (b"x", b"y" * 300))) + b"--" + edge + b"--\r\n"  # fmt: skip
    head = b"POST /query HTTP/1.1\r\nHost: x\r\nAuthorization: Basic YTpi\r\n"
    form = b"Content-Type: application/x-www-form-urlencoded\r\n"
    return [
        b"GET /query?" + query + b" HTTP/1.1\r\nHost: x\r\nAuthorization: Token a:b\r\n\r\n",
        b"HEAD /query?" + query + b" HTTP/1.0\r\nConnection: keep-alive\r\n\r\n",
        head + form + b"Content-Length: %d\r\n\r\n" % len(query) + query,
        head + form + b"Expect: 100-continue\r\nTransfer-Encoding: chunked\r\n\r\n%x\r\n" % len(query) + query + b"\r\n0\r\n\r\n",
        head + b"Content-Type: multipart/form-data; boundary=" + edge + b"\r\nContent-Length: %d\r\n\r\n" % len(parts) + parts,
        head + b"Content-Type: application/vnd.influxql\r\nContent-Length: 11\r\n\r\nSHOW SERIES" + b"GET /ping HTTP/1.1\r\nHost: x\r\n\r\n" * 3,
        b"GET /health HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer c\r\n\r\n",
    ]


def damaged(request, random):
    """A few bytes or lines of it are missing, there twice, or others."""
    for _ in range(random.randint(1, 4)):
        at, size = random.randrange(len(request) + 1), random.choice((1, 1, 2, 7, 40))
        piece = request[at : at + size]
        lines = request.split(b"\r\n")
        match random.randrange(6):
            case 0: request = request[:at] + request[at + size :]  # fmt: skip
            case 1: request = request[:at] + piece * random.choice((2, 3, 200)) + request[at + size :]  # fmt: skip
            case 2: request = request[:at] + random.randbytes(size) + request[at:]  # fmt: skip
            case 3: request = request[:at] + random.choice((b"\r\n", b"%", b"&", b"=", b"-1", b"\0", b'"', b";", b"99999999999")) + request[at:]  # fmt: skip
            case 4: del lines[random.randrange(len(lines))]; request = b"\r\n".join(lines)  # fmt: skip
            case 5: request = request[:at]  # fmt: skip
    return request


def test_damaged_requests_harm_nobody(dash):
    seed = int(os.environ.get("MIR_TEST_SEED", "7"))
    random = Random(seed)
    kinds = requests_of_many_kinds()
    for turn in range(int(os.environ.get("MIR_TEST_REQUESTS", "400"))):
        request = damaged(random.choice(kinds), random)
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port_of(dash)), DEADLINE_S) as client:
            client.sendall(request)
            client.settimeout(0.02)  # some are only the beginning of a request: nothing answers them
            client.recv(65536)
        if turn % 50 == 49:
            assert series(dash, "SHOW DATABASES"), f"seed {seed}, request {turn}"
    assert series(dash, "SHOW DATABASES")


# The client of InfluxDB


@pytest.fixture(scope="module")
def influx():
    path = shutil.which("influx")
    assert path, "the package influxdb-client is missing: ./dev setup"

    def run(server, statement, *options):
        command = [path, "-host", "127.0.0.1", "-port", str(port_of(server)), "-database", "mir", "-execute", statement]
        return subprocess.run([*command, *options], capture_output=True, text=True, check=False, timeout=6 * DEADLINE_S)

    return run


def test_the_client_of_influxdb_reads(dash, fleet, influx, name):
    found = influx(dash, f"SELECT temperature FROM \"influx.v1.Env\" WHERE __id = '{name}-a' LIMIT 2", "-precision", "s",
                   "-format", "csv")  # fmt: skip
    assert found.stdout == f"name,time,temperature\ninflux.v1.Env,{START_S},0\ninflux.v1.Env,{START_S + 5},5\n", found.stderr
    found = influx(dash, "SHOW MEASUREMENTS; SHOW DATABASES", "-format", "json")
    assert [list(one["series"][0]["values"][0]) for one in json.loads(found.stdout)["results"]][1] == ["mir"]
    found = influx(dash, "SELECT nothing")
    assert found.returncode != 0 or "error parsing query" in found.stdout + found.stderr


# Beside InfluxDB


QUERIES = pathlib.Path(__file__).with_name("influxql.txt")


@pytest.mark.skipif(shutil.which("influxd") is None, reason="influxdb is not installed")
def test_influxdb_answers_the_same(launch, connect, env, run_peer, tmp_path):
    base = start_influxdb(run_peer, tmp_path)
    get(f"{base}/query?" + urllib.parse.urlencode({"q": "CREATE DATABASE mir"}), "POST")
    server = launch({**ON, "telemetry.sink.url": f"{base}/write?db=mir", "telemetry.sink.linger": "20ms"})
    bus = connect(server)
    for i, label in (("a", "north"), ("b", "south"), ("c", "")):
        bus.create(f"d{i}", f"pump-{i}", "plant", labels={"site": label} if label else {})
        launch_device(bus, f"d{i}", env)
    for second in (*range(0, 30, 5), *range(60, 200, 7)):
        report(bus, "da", env.Env(ts=START_NS + second * SECOND_NS, temperature=second * 1.25 - 30, level=second * 10 % 37 - 5))
    for second in range(3, 120, 11):
        report(bus, "db", env.Env(ts=START_NS + second * SECOND_NS, temperature=second % 17 * 0.5, level=second))
    report(bus, "db", env.Env(ts=START_NS + SECOND_NS, temperature=0.5, note='a "b"', open=True))
    report(bus, "dc", env.Env(ts=START_NS + 12 * SECOND_NS, temperature=4, level=-(2**63)))
    wait_until(lambda: json.loads(bus.raw("sys.status").data)["sink"]["lag_rows"] == 0, ANSWER_S, "InfluxDB has all")
    queries = [line for line in QUERIES.read_text().splitlines() if line and not line.startswith("#")]
    filled, others = 0, []
    for line in queries:
        q = line.format(M='"influx.v1.Env"', R=f"time >= {START_S}s AND time < {START_S}s + 200s", S=START_S)
        parameters = {"db": "mir", "epoch": "s", "q": q}
        status, _, body = fetch(server, **parameters)
        try:
            theirs = 200, get(f"{base}/query?" + urllib.parse.urlencode(parameters))
        except urllib.error.HTTPError as error:
            with error:
                theirs = error.code, error.read()
        if (status, json.loads(body)) != (theirs[0], json.loads(theirs[1])):
            others.append((q, body, theirs))
        filled += "series" in json.loads(body).get("results", [{}])[0]
    assert not others
    assert filled > len(queries) * 3 // 4


# Who may


USERS = ("[{user: anna, password: x}, {user: dora, password: y, permissions: {publish: {allow: [client.dora.tlm.>]}}}, "
         "{user: eve, password: z, permissions: {publish: {deny: [client.*.tlm.>]}}}]")  # fmt: skip


def basic(user, password):
    return {"Authorization": "Basic " + base64.b64encode(f"{user}:{password}".encode()).decode()}


def test_users_log_in_as_elsewhere(launch, influx):
    server = launch({**ON, "auth.mode": "users", "auth.users": USERS})
    show = {"q": "SHOW DATABASES"}
    for headers, more in ((basic("anna", "x"), {}), ({"Authorization": "Token dora:y"}, {}), ({}, {"u": "anna", "p": "x"})):
        assert fetch(server, headers=headers, **show, **more)[0] == 200
    for headers, more in (({}, {}), (basic("anna", "y"), {}), ({"Authorization": "Token nobody:y"}, {}),
                          ({"Authorization": "Basic ?"}, {}), ({"Authorization": "Bearer x"}, {}),
                          ({}, {"u": "anna", "p": ""})):  # fmt: skip
        status, answered, body = fetch(server, headers=headers, **show, **more)
        assert (status, json.loads(body)) == (401, {"error": "authorization failed"})
        assert answered["WWW-Authenticate"].startswith("Basic ")
    status, _, body = fetch(server, headers=basic("eve", "z"), **show)
    assert status == 403 and "may not query telemetry" in json.loads(body)["error"]
    assert fetch(server, "/ping")[0] == 204
    assert "mir" in influx(server, "SHOW DATABASES", "-username", "anna", "-password", "x").stdout


def test_a_hashed_password_is_right_every_time(launch):
    # Made by crypt(3) from "userword".
    hashed = "$2b$04$yNXgYmO.Ob1SsLhn8w5VueEyxDbjPJNVb6AtpkvMbFwMcfNsuyxy2"
    server = launch({**ON, "auth.mode": "users", "auth.users": f"[{{user: anna, password: '{hashed}'}}]"})
    for _ in range(3):
        assert fetch(server, headers=basic("anna", "userword"), q="SHOW DATABASES")[0] == 200
        for user, password in (("anna", ""), ("anna", "userwor"), ("annau", "serword"), ("", "userword")):
            assert fetch(server, headers=basic(user, password), q="SHOW DATABASES")[0] == 401
    # More than are remembered.
    for i in range(70):
        headers = {"Authorization": f"Bearer {i}"}
        assert fetch(server, headers=headers, u="anna", p="userword", q="SHOW DATABASES")[0] == 200


def test_a_token_is_a_password(launch):
    server = launch({**ON, "auth.mode": "token", "auth.token": "secret"})
    for headers, more in (({"Authorization": "Token secret"}, {}), ({"Authorization": "Bearer secret"}, {}),
                          (basic("any", "secret"), {}), ({}, {"p": "secret"})):  # fmt: skip
        assert fetch(server, headers=headers, q="SHOW DATABASES", **more)[0] == 200
    assert fetch(server, headers={"Authorization": "Token other"}, q="SHOW DATABASES")[0] == 401


def test_a_refused_login_over_http_is_an_event(launch, connect):
    server = launch({**ON, "auth.mode": "users", "auth.users": USERS, "auth.no_auth_user": "anna"})
    bus = connect(server)
    assert fetch(server, headers=basic("mallory", "x"), q="SHOW DATABASES")[0] == 401

    def stored():
        target = {"device_ids": ["server"], "reasons": ["AuthenticationFailed"]}
        return list(api.ListEventsResponse.FromString(
            bus.raw("evt.list", api.ListEventsRequest(target=target).SerializeToString()).data).ok.events)  # fmt: skip

    (event,) = wait_until(stored, DEADLINE_S, "it is stored")
    payload = json.loads(event.spec.json_payload)
    assert (payload["user"], payload["address"]) == ("mallory", "127.0.0.1")
    assert http_status(bus)["auth_failures"] == 1


# What takes long


@pytest.fixture
def filled(connect, env):
    def fill(server):
        bus = connect(server)
        launch_device(bus, "slow", env)
        report(bus, "slow", *(env.Env(ts=START_NS + i * SECOND_NS, temperature=i) for i in range(100)))
        return bus

    return fill


def test_a_query_ends_when_its_client_goes(launch, filled):
    server = launch({**ON, "http.timeout": "10m", "http.threads": 1})
    bus = filled(server)
    body = urllib.parse.urlencode({"q": SLOW}).encode()
    client = socket.create_connection(("127.0.0.1", port_of(server)), DEADLINE_S)
    client.sendall(b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\n"
                   b"Content-Length: %d\r\n\r\n%s" % (len(body), body))  # fmt: skip
    wait_until(lambda: http_status(bus)["queries_running"] == 1, DEADLINE_S, "the query runs")
    client.close()
    wait_until(lambda: http_status(bus)["clients_gone"] == 1, DEADLINE_S, "its client is missed")
    wait_until(lambda: http_status(bus)["queries_running"] == 0, DEADLINE_S, "the query ends")
    assert series(server, "SHOW DATABASES")


def test_a_query_has_its_time(launch, filled):
    server = launch({**ON, "http.timeout": "100ms"})
    bus = filled(server)
    status, text = refusal(server, SLOW)
    assert status == 503 and "http.timeout" in text
    assert http_status(bus)["timeouts"] == 1


def test_many_ask_while_telemetry_arrives(launch, connect, env):
    server = launch({**ON, "http.threads": 3})
    bus = connect(server)
    devices = [f"many-{i}" for i in range(8)]
    for device in devices:
        launch_device(bus, device, env)
    count = f'SELECT count(temperature) FROM "influx.v1.Env" WHERE time >= {START_S}s'
    failures = []

    def dashboard():
        last = 0
        try:
            while last < ROWS * len(devices):
                (found,) = series(server, count) or [{"values": [[0, 0]]}]
                assert found["values"][0][1] >= last
                last = found["values"][0][1]
                grouped = series(server, f'SELECT last(level), max(temperature) FROM "influx.v1.Env" WHERE time >= {START_S}s '
                                         "GROUP BY time(10s), __name fill(none) LIMIT 5")  # fmt: skip
                assert len(grouped) <= len(devices)
        except BaseException as failure:
            failures.append(failure)

    threads = [threading.Thread(target=dashboard, daemon=True) for i in range(6)]
    for thread in threads:
        thread.start()
    for row in range(ROWS):
        for i, device in enumerate(devices):
            report(bus, device, env.Env(ts=START_NS + row * SECOND_NS + i, temperature=row, level=row), flush=False)
        if row == ROWS // 2:
            bus.ask("core.update", targets={"ids": [devices[0]]}, meta={"name": "renamed"})
    bus.flush()
    for thread in threads:
        thread.join(6 * DEADLINE_S)
    assert not failures and not any(thread.is_alive() for thread in threads)
    wait_until(lambda: http_status(bus)["waiting_bytes"] == 0, DEADLINE_S, "every answer is out")
    counted = http_status(bus)
    assert counted["queries_running"] == 0 and counted["errors"] == 0


def test_connections_have_a_bound(launch):
    server = launch({**ON, "http.max_connections": 2})
    held = []
    for _ in range(2):
        client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=DEADLINE_S)
        client.request("GET", "/ping")
        client.getresponse().read()
        held.append(client)
    # A third one is not served until there is room.
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=1)
    with pytest.raises((OSError, http.client.HTTPException)):
        client.request("GET", "/ping")
        client.getresponse()
    client.close()
    held.pop().close()

    def served():
        with contextlib.suppress(OSError, http.client.HTTPException):
            return fetch(server, "/ping")[0] == 204
        return False

    wait_until(served, DEADLINE_S, "there is room")


def test_who_goes_in_the_middle_of_a_request_makes_room_at_once(launch):
    server = launch({**ON, "http.max_connections": 2})
    head = b"POST /query HTTP/1.1\r\nHost: x\r\nContent-Type: application/x-www-form-urlencoded\r\nContent-Length: 2000\r\n\r\nq="
    for request in (head, head + b"x" * 1000, b"GET /health HTTP/1.1\r\nHost: x\r\n\r\n", b"GET /que") * 5:
        with socket.create_connection(("127.0.0.1", port_of(server)), DEADLINE_S) as client:
            client.sendall(request)
    assert fetch(server, "/ping")[0] == 204


def test_a_stop_ends_queries(launch, filled):
    server = launch({**ON, "http.timeout": "10m"})
    bus = filled(server)
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=6 * DEADLINE_S)
    client.request("GET", "/query?" + urllib.parse.urlencode({"q": SLOW}))
    wait_until(lambda: http_status(bus)["queries_running"] == 1, DEADLINE_S, "the query runs")
    server.stop()
    with contextlib.suppress(http.client.HTTPException, OSError):
        assert b"error" in client.getresponse().read()
    client.close()


def test_a_lame_duck_takes_no_new_connections(launch):
    server = launch({**ON, "lame_duck.duration": "60s", "lame_duck.grace_period": "60s"})
    client = http.client.HTTPConnection("127.0.0.1", port_of(server), timeout=DEADLINE_S)
    client.request("GET", "/ping")
    client.getresponse().read()
    server.signal(signal.SIGUSR2)

    def refused():
        try:
            socket.create_connection(("127.0.0.1", port_of(server)), DEADLINE_S).close()
        except ConnectionRefusedError:
            return True
        except ConnectionResetError:
            pass  # it was in the queue of the socket that closed
        return False

    wait_until(refused, DEADLINE_S, "it does not listen")
    client.request("GET", "/query?" + urllib.parse.urlencode({"q": "SHOW DATABASES"}))
    answer = client.getresponse()
    assert answer.status == 200 and answer.headers["Connection"].lower() == "close"
    answer.read()
    client.close()


def test_without_the_setting_nothing_listens(server, bus):
    assert HTTP.search(server.log()) is None
    assert "http" not in json.loads(bus.raw("sys.status").data)


def test_explore_queries_can_be_influxql(launch, connect, env, name):
    server = launch({**ON, "telemetry.explore": "influxql"})
    bus = connect(server)
    for device in ("x'1", "x2"):
        launch_device(bus, f"{name}-{device}", env)
        report(bus, f"{name}-{device}", env.Env(ts=START_NS, temperature=1))
    (group,) = bus.ask("tlm.list", targets={"ids": [f"{name}-x'1", f"{name}-x2"]}).devices_telemetry
    query = group.tlm_descriptors[0].explore_query
    assert query.startswith('SELECT * FROM "influx.v1.Env" WHERE (') and query.endswith(') AND $timeFilter GROUP BY "__id"')
    found = series(server, query.replace("$timeFilter", "time > 0"))
    assert [one["tags"]["__id"] for one in found] == [f"{name}-x'1", f"{name}-x2"]
