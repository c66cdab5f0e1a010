# SPDX-License-Identifier: Apache-2.0
"""Keepalive, slow consumers, limits, the ways a server ends. Statements 38 to 42."""

import json
import signal
import threading
import time

import pytest

from servers import REFERENCE, Server, ended_within
from wire import (
    DEADLINE_S,
    ESTABLISHED,
    PATIENCE,
    QUIET,
    Violation,
    Wire,
    connect_line,
    raw_of,
    readable,
    server_sides,
    wait_until,
)

KEEPALIVE = {"ping.interval": "1s", "ping.max": 2}


# Keepalive


def test_38_who_does_not_answer_is_stale(shared, dial):
    server = shared(KEEPALIVE)
    begin = time.monotonic()
    wire = dial(server, manual=True)
    wire.send(connect_line(**QUIET) + b"PING\r\n")
    assert wire.frame().op == "PONG"
    frames = wire.rest(10)
    taken = time.monotonic() - begin
    assert [frame.raw for frame in frames] == [b"PING\r\n"] * 2 + [b"-ERR 'Stale Connection'\r\n"]
    # Two PINGs at one and two intervals, the end at the third.
    assert 3 * 0.75 <= taken <= 3 * 1.25 * PATIENCE


def test_38_who_answers_or_is_busy_is_not_stale(shared, dial):
    server = shared(KEEPALIVE)
    answering = dial.quiet(server)
    publishing = dial(server, manual=True)
    pinging = dial(server, manual=True)
    late = dial(server, manual=True)
    for wire in (publishing, pinging, late):
        wire.send(connect_line(**QUIET) + b"PING\r\n")
        assert wire.frame().op == "PONG"
    begin = time.monotonic()
    pings = dict.fromkeys((answering, publishing, pinging, late), 0)
    while time.monotonic() < begin + 6:
        publishing.pub("a", b"x")
        pinging.send(b"PING\r\n")
        for wire in readable(list(pings), 0.1):
            frame = wire.raw_frame()
            assert frame is not None and frame.op in ("PING", "PONG"), frame
            if frame.op == "PING":
                pings[wire] += 1
                # One PONG makes good for all PINGs before it.
                if wire is answering or (wire is late and pings[wire] % 2 == 0):
                    wire.send(b"PONG\r\n")
        for wire in pings:
            while b"\n" in wire.buffer:
                assert wire.raw_frame().op in ("PING", "PONG")
    assert pings[answering] >= 3
    assert pings[late] >= 3
    for wire in pings:
        wire.send(b"PING\r\n")
        while wire.raw_frame().op != "PONG":
            pass


def test_38_the_first_ping_measures_the_round_trip(server, dial):
    """However long the interval is, a first PING comes about two seconds after CONNECT."""
    wire = dial(server, manual=True)
    begin = time.monotonic()
    wire.send(connect_line(**QUIET) + b"PING\r\n")
    assert wire.frame().op == "PONG"
    assert wire.frame(6 * PATIENCE).op == "PING"
    assert 1.9 <= time.monotonic() - begin <= 3 * PATIENCE
    wire.send(b"PONG\r\nPING\r\n")
    assert wire.frame().op == "PONG"


# Slow consumers


def publish_until(sender, condition, body, most):
    """Publishes in chunks until the condition holds; tells how many messages it took."""
    line = b"PUB flood %d\r\n%b\r\n" % (len(body), body)
    count = 0
    while not condition():
        assert count < most, "the slow consumer is still there"
        sender.send(line * 8).flush(DEADLINE_S * 2)
        count += 8
    return count


class Counting(threading.Thread):
    """A reader that keeps up, counts bodies and looks for holes."""

    def __init__(self, wire):
        super().__init__()
        self.wire, self.count, self.problem = wire, 0, None

    def run(self):
        try:
            while self.wire.msg(20 * PATIENCE).body[:4] != b"stop":
                self.count += 1
        except AssertionError as problem:
            self.problem = problem


def flood(server, dial, until_seconds=None):
    """One subscriber stops reading, another keeps up. Returns (slow, sent, counted, peak memory)."""
    slow = Wire(server.address, receive_bytes=4096).connect().sub("flood", 1).settle()
    quick = Counting(dial.quiet(server).sub("flood", 1).settle())
    idle = dial.quiet(server)
    sender = dial.quiet(server)
    quick.start()
    before = peak = server.memory_bytes()

    def gone():
        nonlocal peak
        peak = max(peak, server.memory_bytes())
        return server_sides(server.port).get(slow.port, ("",))[0] != ESTABLISHED

    if until_seconds is None:
        sent = publish_until(sender, gone, b"x" * 32768, MOST)
    else:
        # Enough to fill the kernel's buffers, far less than the limit; then only time passes.
        sent = 512
        sender.send(b"PUB flood 32768\r\n%b\r\n" % (b"x" * 32768) * sent).flush(DEADLINE_S * 2)
        assert not gone()
        wait_until(gone, until_seconds, "the slow consumer is dropped")
    idle.settle()
    sender.pub("flood", b"stop").flush(DEADLINE_S * 2)
    quick.join()
    assert quick.problem is None, quick.problem
    return slow, sent, quick.count, peak - before


def check_ended_in_silence(slow, sent):
    """What it still gets are whole messages, no error text, and by far not all of them."""
    got = 0
    try:
        while (frame := slow.raw_frame()) is not None:
            assert frame.op in ("MSG", "PING"), frame.raw
            got += frame.op == "MSG"
    except Violation as cut:
        assert "ended inside" in str(cut)
    assert slow.ended
    assert got < sent
    assert b"-ERR" not in slow.buffer
    slow.close()


# The reference marks such a subscriber at once, but lets its socket go only at the write deadline.
SOONER = {"limits.write_deadline": "1s"} if REFERENCE else {}
# What the kernel may hold, and some.
MOST = 4096 if REFERENCE else 1024


def test_39_a_subscriber_that_never_reads_is_dropped_at_max_pending(launch, dial):
    server = launch({"limits.max_payload": "64KiB", "limits.max_pending": "1MiB", **SOONER})
    slow, sent, counted, grown = flood(server, dial)
    assert counted == sent
    check_ended_in_silence(slow, sent)
    if not REFERENCE:
        # One queue of 1 MiB and what is on the way.
        assert grown < 48 << 20


def test_39_a_subscriber_that_never_reads_is_dropped_at_the_write_deadline(launch, dial):
    server = launch({"limits.write_deadline": "1s"})
    slow, sent, counted, _ = flood(server, dial, until_seconds=8 * PATIENCE)
    assert counted == sent
    check_ended_in_silence(slow, sent)


def test_39_a_slow_but_steady_reader_keeps_its_connection(launch, dial):
    """Below both limits, what is late is still complete."""
    server = launch({"limits.write_deadline": "5s"})
    slow = Wire(server.address, receive_bytes=4096).connect().sub("flood", 1).settle()
    sender = dial.quiet(server)
    sender.send(b"PUB flood 32768\r\n%b\r\n" % (b"x" * 32768) * 400).settle()
    for _ in range(400):
        assert len(slow.msg().body) == 32768
    slow.settle()
    slow.close()


def test_39_many_subscribers_that_never_read_stay_bounded(launch, dial):
    server = launch({"limits.max_payload": "64KiB", "limits.max_pending": "256KiB", **SOONER})
    before = server.memory_bytes()
    slow = [Wire(server.address, receive_bytes=4096).connect().sub("flood", 1).settle() for _ in range(100)]
    ports = {wire.port for wire in slow}
    sender = dial.quiet(server)

    def gone():
        sides = server_sides(server.port)
        return not any(sides.get(port, ("",))[0] == ESTABLISHED for port in ports)

    publish_until(sender, gone, b"x" * 32768, MOST)
    sender.settle()
    for wire in slow:
        wire.close()
    if not REFERENCE:
        assert server.memory_bytes() - before < 96 << 20


def test_a_client_that_sends_but_does_not_read_its_pongs_is_bounded(launch, dial):
    """The server may hold answers back or drop the client, but not pile them up."""
    server = launch({"limits.max_pending": "8MiB", "limits.write_deadline": "2s"})
    other = dial.quiet(server).sub("x", 1).settle()
    before = server.memory_bytes()
    greedy = Wire(server.address, receive_bytes=4096).connect()
    greedy.sock.settimeout(1)
    try:
        for _ in range(400):
            greedy.sock.sendall(b"PING\r\n" * 16384)
    except OSError:
        pass
    other.pub("x", b"1")
    assert [frame.body for frame in other.flush()] == [b"1"]
    assert server.memory_bytes() - before < 64 << 20
    greedy.abort()


# Limits of numbers


def test_40_one_connection_too_many(launch, dial):
    server = launch({"limits.max_connections": 3})
    kept = [dial.quiet(server) for _ in range(3)]
    for _ in range(5):
        wire = dial(server)
        assert wire.info["server_id"]
        assert raw_of(wire.rest()) == b"-ERR 'maximum connections exceeded'\r\n"
    for wire in kept:
        wire.settle()
    kept[0].close()

    def another():
        with Wire(server.address) as wire:
            return wire.send(connect_line(**QUIET) + b"PING\r\n").frame().op == "PONG"

    wait_until(another, what="a place becomes free")


def test_40_one_subscription_too_many(shared, dial):
    server = shared({"limits.max_subscriptions": 3})
    wire = dial.quiet(server).sub("a", 1).sub("b", 2).sub("c", 3).sub("d", 4)
    assert [frame.raw for frame in wire.flush()] == [b"-ERR 'maximum subscriptions exceeded'\r\n"]
    dial.quiet(server).pub("d").pub("c").settle()
    assert raw_of(wire.flush()) == b"MSG c 3 0\r\n\r\n"
    wire.send(b"UNSUB 1\r\n").sub("d", 4).settle()
    # The limit is of each connection.
    dial.quiet(server).sub("a", 1).sub("b", 2).sub("c", 3).settle()


def test_40_a_subscription_that_expired_makes_room(shared, dial):
    wire = dial.quiet(shared({"limits.max_subscriptions": 3})).sub("a", 1).sub("b", 2).sub("c", 3)
    wire.send(b"UNSUB 1 1\r\n").pub("a")
    assert len(wire.flush()) == 1
    wire.sub("d", 4).settle()


def test_too_many_tokens(shared, dial):
    wire = dial.quiet(shared({"limits.max_subscription_tokens": 3})).sub("a.b.c", 1).settle()
    wire.sub("a.b.c.d", 2)
    text = 'Permissions Violation for Subscription to "a.b.c.d", too many tokens'
    assert [frame.text for frame in wire.flush()] == [text]
    wire.pub("a.b.c.d").pub("a.b.c")
    assert raw_of(wire.flush()) == b"MSG a.b.c 1 0\r\n\r\n"


# Lame duck


def test_41_lame_duck(launch, dial):
    # The reference takes no less than 30 s, but with few clients it is done sooner.
    duration = "30s" if REFERENCE else "4s"
    server = launch({"lame_duck.duration": duration, "lame_duck.grace_period": "500ms"})
    wires = [dial(server, manual=True) for _ in range(4)]
    for wire in wires:
        wire.send(connect_line(**QUIET) + b"SUB a 1\r\nPING\r\n")
        assert wire.frame().op == "PONG"
        wire.begin = wire.info
    old = dial(server, manual=True)
    old.send(connect_line(**{**QUIET, "protocol": 0}) + b"PING\r\n")
    assert old.frame().op == "PONG"

    begin = time.monotonic()
    server.signal(signal.SIGUSR2)
    for wire in wires:
        frame = wire.frame()
        assert frame.op == "INFO"
        info = json.loads(frame.text)
        assert info["ldm"] is True
        assert not set(wire.info) - set(info)
        assert not info.get("connect_urls")
    with pytest.raises(ConnectionRefusedError):
        Wire(server.address)
    # It still works until it is closed.
    wires[0].pub("a", b"x")
    for wire in wires:
        assert wire.frame().raw == b"MSG a 1 1\r\nx\r\n"

    ends = []
    open_wires = [*wires, old]
    while open_wires:
        for wire in readable(open_wires, 10):
            frame = wire.raw_frame()
            if frame is None:
                ends.append(time.monotonic() - begin)
                open_wires.remove(wire)
            else:
                assert frame.op == "PING", frame.raw
    # Not before the grace period, and not all at once.
    assert ends[0] >= 0.45
    assert ends[-1] - ends[0] > 0.5
    if not REFERENCE:
        assert ends[-1] <= 4 * 1.25 * PATIENCE
    server.process.wait(10 * PATIENCE)
    assert server.process.returncode == 0


# The end


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
def test_a_stop_flushes_and_is_quick(launch, dial, number):
    server = launch()
    wires = [dial.quiet(server).sub("a", 1).settle() for _ in range(20)]
    sender = dial.quiet(server)
    sender.send(b"PUB a 100\r\n%b\r\n" % (b"x" * 100) * 200).settle()
    server.signal(number)
    assert ended_within(server, 10) < 2 * PATIENCE
    for wire in wires:
        frames = wire.rest()
        # What a PONG covered arrives, and nothing but messages.
        assert [frame.op for frame in frames] == ["MSG"] * 200
        assert wire.ended == "fin"
    if not REFERENCE:
        assert server.process.returncode == 0


@pytest.mark.parametrize("connected", [0, 10])
def test_42_kill_and_restart_on_the_same_port_at_once(launch, dial, connected):
    """A supervisor does not wait, and a client that reconnects comes to the same port."""
    server = launch()
    port = server.port
    for _ in range(8):
        wires = [dial.quiet(server).sub("a", 1).settle() for _ in range(connected)]
        server.kill()
        server.start()
        assert server.port == port
        for wire in wires:
            assert wire.rest() == []
        # Nothing is left of the past.
        asker = dial.quiet(server).sub("in.*", 1).pub("a", reply="in.1")
        assert [frame.op for frame in asker.flush()] == ["HMSG"]
        asker.close()


def test_a_taken_port_is_named(launch):
    server = launch()
    second = Server()
    second.port = server.port
    try:
        with pytest.raises(AssertionError) as refused:
            second.start()
        assert str(server.port) in str(refused.value)
        assert second.process.returncode not in (0, -signal.SIGKILL)
    finally:
        second.kill()
        second.remove()
