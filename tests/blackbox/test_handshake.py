# SPDX-License-Identifier: Apache-2.0
"""From accept to the first PONG. Statements 1 to 8."""

import json
import re
import time

import pytest

import wire_cases as cases
from servers import REFERENCE
from wire import QUIET, Wire, connect_line, let_pass, raw_of, wait_until

MUST = {
    "server_id": str, "server_name": str, "version": str, "proto": int, "host": str, "port": int,
    "headers": bool, "max_payload": int, "client_id": int,
}  # fmt: skip
NEVER = {"jetstream", "connect_urls", "ldm", "cluster", "tls_required", "tls_available", "auth_required", "nonce"}

TOKEN = {"auth.mode": "token", "auth.token": "s3cret"}


def check_info(info, server):
    for key, kind in MUST.items():
        assert type(info.get(key)) is kind, key
    assert info["proto"] == 1
    assert info["headers"] is True
    assert info["port"] == server.port
    assert info["max_payload"] == 8 << 20
    assert re.search(r"\d+\.\d+\.\d+", info["version"])
    assert " " not in info["server_id"]
    assert 0 < info["client_id"] < 1 << 31
    assert info["client_ip"] == "127.0.0.1"


def test_01_info_comes_first_and_is_complete(server, dial):
    waits, infos = [], []
    for _ in range(20):
        begin = time.monotonic()
        wire = Wire(server.address, info=False)
        frame = wire.raw_frame()
        waits.append(time.monotonic() - begin)
        wire.close()
        assert frame.op == "INFO"
        assert len(frame.raw) < 4096
        infos.append(json.loads(frame.text))
    assert sorted(waits)[len(waits) // 2] < 0.1
    for info in infos:
        check_info(info, server)
        # False and absent mean the same to every client.
        assert not [key for key in NEVER if info.get(key)]
    assert len({info["client_id"] for info in infos}) == len(infos)
    assert len({info["server_id"] for info in infos}) == 1


@pytest.mark.deviation("2.9 is what it is")
def test_01_the_advertised_version_is_2_10_or_later(server, dial):
    version = re.search(r"(\d+)\.(\d+)\.(\d+)", dial(server).info["version"])
    assert tuple(map(int, version.groups())) >= (2, 10, 0)


def test_01_client_ids_differ_while_connected(server, dial):
    wires = [dial(server) for _ in range(50)]
    assert len({wire.info["client_id"] for wire in wires}) == 50


def test_01_server_id_is_new_with_each_start(launch, dial):
    server = launch()
    first = dial(server).info["server_id"]
    server.kill()
    server.start()
    assert dial(server).info["server_id"] != first


@pytest.mark.parametrize("verbose", [False, True])
@pytest.mark.parametrize("protocol", [0, 1])
def test_02_nothing_but_ok_precedes_the_first_pong(server, dial, verbose, protocol):
    """Also when messages for everyone are about: a new connection has no subscription yet."""
    noisy = dial.quiet(server)
    for _ in range(20):
        wire = dial(server, manual=True)
        noisy.pub("a.b", b"x")
        wire.send(connect_line(**{**QUIET, "verbose": verbose, "protocol": protocol}) + b"PING\r\n")
        expected = ["+OK", "PONG"] if verbose else ["PONG"]
        assert [wire.frame().op for _ in expected] == expected
        wire.close()


def test_02_no_server_ping_before_the_first_pong(shared, dial):
    """An eager keepalive must not break into a handshake that takes its time, up to two seconds."""
    server = shared({"ping.interval": "1s"})
    wire = dial(server, manual=True)
    wire.send(connect_line(**QUIET))
    let_pass(0.9)
    wire.send(b"PING\r\n")
    assert wire.frame().op == "PONG"


def test_03_a_later_info_is_complete(server, dial):
    """There need not be one; one that comes replaces all that the client knew."""
    wire = dial.quiet(server)
    wire.settle()
    wire.settle()
    for info in wire.infos:
        assert not set(wire.info) - set(info)
        check_info(info, server)
    if not REFERENCE:
        assert not wire.infos


def test_04_without_authentication_ops_need_no_connect(server, dial):
    assert dial(server).send(b"PING\r\n").frame().raw == b"PONG\r\n"
    assert dial(server).send(b"SUB a 1\r\n").frame().raw == b"+OK\r\n"


@pytest.mark.parametrize("first", [b"PING\r\n", b"SUB a 1\r\n", b"PUB a 0\r\n\r\n", b"\r\n", b"+OK\r\n", b"p", b"\x16\x03\x01"])
def test_05_with_authentication_connect_comes_first(shared, dial, first):
    server = shared(TOKEN)
    wire = dial(server)
    assert wire.info["auth_required"] is True
    wire.send(first)
    assert raw_of(wire.rest()) == cases.DENIED


@pytest.mark.parametrize("connect", [b"CONNECT", b"connect", b"Connect", b"cONNECT"])
def test_05_with_authentication_connect_may_have_any_case(shared, dial, connect):
    wire = dial(shared(TOKEN))
    wire.send(connect + b' {"verbose":false,"auth_token":"s3cret"}\r\nPING\r\n')
    assert wire.frame().op == "PONG"


def test_06_connect_has_to_come_in_time(launch, dial):
    server = launch({**TOKEN, "auth.timeout": "500ms"})
    begin = time.monotonic()
    silent = dial(server)
    half = dial(server).send(b"CONNECT {")
    done = dial(server)
    done.send(connect_line(**{**QUIET, "auth_token": "s3cret"}) + b"PING\r\n")
    assert done.frame().op == "PONG"
    for wire in (silent, half):
        assert raw_of(wire.rest()) == b"-ERR 'Authentication Timeout'\r\n"
    assert 0.4 < time.monotonic() - begin < 3
    done.settle()


def test_06_without_authentication_connect_may_take_its_time(server, dial):
    wire = dial(server)
    let_pass(2.5)
    wire.send(b"PING\r\n")
    assert wire.frame().op == "PONG"


def test_08_escapes_in_a_password(shared, dial):
    user = {"user": "a", "password": "<a&b>\"\\é/"}
    server = shared({"auth.mode": "users", "auth.users": [user]})
    wire = dial(server)
    wire.send(rb'CONNECT {"verbose":false,"user":"\u0061","pass":"\u003ca\u0026b\u003E\"\\\u00e9\/"}' + b"\r\nPING\r\n")
    assert wire.frame().op == "PONG"
    wire = dial(server)
    wire.send('CONNECT {"verbose":false,"user":"a","pass":"<a&b>\\"\\\\é/"}\r\nPING\r\n'.encode())
    assert wire.frame().op == "PONG"


def test_many_connections_come_and_go(server, dial):
    before = server.descriptors()
    for _ in range(20):
        wires = [dial(server) for _ in range(50)]
        for wire in wires:
            wire.connect()
        for wire in wires:
            wire.close()
    wait_until(lambda: server.descriptors() <= before + 8, what="descriptors are given back")
