# SPDX-License-Identifier: Apache-2.0
"""The protocol on one connection: what it answers, byte for byte. Statements 7 to 23."""

import itertools
import random
import resource
import socket
import threading

import pytest

import wire_cases as cases
from wire import QUIET, Wire, await_read, connect_line, raw_of, wait_until


@pytest.fixture
def bystander(server, dial):
    """Another connection, which must not notice anything."""
    other = dial.quiet(server).sub("bystander", 1).settle()
    yield other
    other.pub("bystander", b"still here")
    assert [f.raw for f in other.flush()] == [b"MSG bystander 1 10\r\nstill here\r\n"]


def run(case, server, dial):
    wire = dial(server)
    sentinel = b"" if case.closes else b"PING\r\n"
    # An end may come while the bytes are still on their way.
    took_all = wire.try_send(case.before + case.send + sentinel)
    if case.closes:
        got = raw_of(wire.rest())
        wanted = (b"", cases.UNKNOWN) if case.expect is cases.SILENT else (case.expect,)
        assert got in wanted
    else:
        assert took_all
        wanted = case.expect + cases.PONG
        got = b""
        while len(got) < len(wanted):
            got += wire.frame().raw
        assert got == wanted
        wire.settle()


def table(rows):
    def param(row):
        marks = [pytest.mark.deviation(row.deviation)] if row.deviation else []
        return pytest.param(row, id=row.name, marks=marks)

    return pytest.mark.parametrize("case", [param(row) for row in rows])


@table(cases.CONNECTS)
def test_07_08_connect_options(case, server, dial, bystander):
    run(case, server, dial)


@table(cases.LEXICAL)
def test_09_lenient_input(case, server, dial):
    run(case, server, dial)


@table(cases.MESSAGES)
def test_10_11_messages_are_byte_exact(case, server, dial):
    run(case, server, dial)


def test_11_large_header_and_payload_round_trip(server, dial):
    wire = dial.quiet(server).sub("a", 1)
    noise = random.Random(11)
    head = b"NATS/1.0\r\n" + b"".join(b"k-%d: %d\r\n" % (n, n) for n in range(5000)) + b"\r\n"
    body = noise.randbytes(1_000_000)
    size = len(head), len(head) + len(body)
    wire.send(b"HPUB a %d %d\r\n" % size + head + body + b"\r\n")
    assert wire.msg().raw == b"HMSG a 1 %d %d\r\n" % size + head + body + b"\r\n"


def test_11_long_payloads_between_short_ones_reach_every_reader_whole(server, dial):
    """A long payload is sent from where it lies, to each of its readers."""
    full = [dial.quiet(server).sub("long.*", sid).settle() for sid in (1, 22, 333)]
    plain = dial.quiet(server, headers=False, no_responders=False).sub("long.*", 4).settle()
    gone = dial.quiet(server).sub("long.*", 5).settle()
    noise = random.Random(12)
    head = cases.HEADER
    sent, with_head, without = b"", b"", b""
    for count, size in enumerate([16383, 16384, 3, 70000, 0, 300000, 20000, 16385, 1, 2_000_000, 5]):
        body = noise.randbytes(size)
        if count % 2:
            numbers = len(head), len(head) + size
            sent += b"HPUB long.x re.ply %d %d\r\n" % numbers + head + body + b"\r\n"
            with_head += b"HMSG long.x SID re.ply %d %d\r\n" % numbers + head + body + b"\r\n"
            without += b"MSG long.x 4 re.ply %d\r\n" % size + body + b"\r\n"
        else:
            sent += b"PUB long.y %d\r\n" % size + body + b"\r\n"
            with_head += b"MSG long.y SID %d\r\n" % size + body + b"\r\n"
            without += b"MSG long.y 4 %d\r\n" % size + body + b"\r\n"
    publisher = dial.quiet(server)
    publisher.send(sent)
    gone.abort()
    publisher.flush()
    for wire, sid in zip(full, (b"1", b"22", b"333")):
        assert raw_of(wire.flush()) == with_head.replace(b" SID ", b" " + sid + b" ")
    assert raw_of(plain.flush()) == without


def test_12_without_headers_a_subscriber_gets_the_payload_alone(server, dial):
    plain = dial.quiet(server, headers=False, no_responders=False).sub("a", 7).settle()
    full = dial.quiet(server).sub("a", 8).settle()
    head = cases.HEADER
    full.send(b"HPUB a r %d %d\r\n" % (len(head), len(head) + 2) + head + b"hi\r\n").flush()
    assert raw_of(plain.flush()) == b"MSG a 7 r 2\r\nhi\r\n"
    full.send(b"HPUB a %d %d\r\n" % (len(head), len(head)) + head + b"\r\n").flush()
    assert raw_of(plain.flush()) == b"MSG a 7 0\r\n\r\n"


# A little of everything, and long enough that a cut falls into each part of each op. The name
# stands for three digits: connections do not hear each other.
SCRIPT = (
    b'CONNECT {"verbose":true,"pedantic":false,"headers":true}\r\n'
    b"SUB NAM.* q 1\r\nsub NAM.> \t22\nPING\r\n"
    b"PUB NAM.a 6\r\na\r\nb\r\n\r\n"
    b"PUB NAM.b re.ply 0\r\n\r\n"
    b"HPUB NAM.c 18 20\r\nNATS/1.0\r\nk: v\r\n\r\nhi\r\n"
    b"UNSUB 1 4\r\nSUB NAM..x 3\r\nPONG\r\n+OK\r\npub NAM.d.e 3\r\nxyz\r\n"
    b"UNSUB 22\r\nPUB NAM.f 1\r\n!\r\nPING\r\n"
)
ANSWER = (
    b"+OK\r\n+OK\r\n+OK\r\nPONG\r\n"
    b"+OK\r\nMSG NAM.a 1 6\r\na\r\nb\r\n\r\nMSG NAM.a 22 6\r\na\r\nb\r\n\r\n"
    b"+OK\r\nMSG NAM.b 1 re.ply 0\r\n\r\nMSG NAM.b 22 re.ply 0\r\n\r\n"
    b"+OK\r\nHMSG NAM.c 1 18 20\r\nNATS/1.0\r\nk: v\r\n\r\nhi\r\n"
    b"HMSG NAM.c 22 18 20\r\nNATS/1.0\r\nk: v\r\n\r\nhi\r\n"
    b"+OK\r\n-ERR 'Invalid Subject'\r\n+OK\r\nMSG NAM.d.e 22 3\r\nxyz\r\n+OK\r\n"
    b"+OK\r\nMSG NAM.f 1 1\r\n!\r\nPONG\r\n"
)


def script_for(number):
    return SCRIPT.replace(b"NAM", b"%03d" % number)


def by_sid(frames):
    """The copies of one message may come in any order among themselves; this is the order of sids."""
    groups = itertools.groupby(frames, key=lambda f: (f.op in ("MSG", "HMSG"), f.subject))
    return [f for _, group in groups for f in sorted(group, key=lambda f: f.sid)]


def check_script(wire, number):
    answer = ANSWER.replace(b"NAM", b"%03d" % number)
    got = raw_of(by_sid(wire.until_pong())) + cases.PONG + raw_of(by_sid(wire.until_pong())) + cases.PONG
    assert got == answer


def test_13_any_split_gives_the_same_result(server, dial):
    length = len(script_for(0))
    positions = list(range(1, length))
    for batch in range(0, len(positions), 100):
        cuts = positions[batch : batch + 100]
        wires = [dial(server) for _ in cuts]
        for wire, cut in zip(wires, cuts):
            wire.send(script_for(cut)[:cut])
        await_read(server.port, wires)
        for wire, cut in zip(wires, cuts):
            wire.send(script_for(cut)[cut:])
        for wire, cut in zip(wires, cuts):
            check_script(wire, cut)
            wire.close()


def test_13_byte_by_byte_gives_the_same_result(server, dial):
    numbers = range(500, 510)
    wires = [dial(server) for _ in numbers]
    scripts = [script_for(number) for number in numbers]
    for at in range(len(scripts[0])):
        for wire, script in zip(wires, scripts):
            wire.send(script[at : at + 1])
        await_read(server.port, wires)
    for wire, number in zip(wires, numbers):
        check_script(wire, number)


def test_13_random_cuts_give_the_same_result(server, dial):
    noise = random.Random(13)
    numbers = range(600, 640)
    wires = [dial(server) for _ in numbers]
    length = len(script_for(600))
    cuts = [[0, *sorted(noise.sample(range(1, length), 6)), length] for _ in numbers]
    for part in range(7):
        for wire, number, cut in zip(wires, numbers, cuts):
            wire.send(script_for(number)[cut[part] : cut[part + 1]])
        await_read(server.port, wires)
    for wire, number in zip(wires, numbers):
        check_script(wire, number)


def test_13_cut_inside_errors(server, dial):
    """A malformed op is refused the same way wherever it is cut."""
    script = cases.OPENING + b"PUB a 2\r\nhi\r\nPING\r\nBAD\r\n"
    wires = [dial(server) for _ in range(1, len(script))]
    for cut, wire in enumerate(wires, 1):
        wire.send(script[:cut])
    await_read(server.port, wires)
    for cut, wire in enumerate(wires, 1):
        wire.try_send(script[cut:])
        assert raw_of(wire.rest()) == cases.PONG + cases.UNKNOWN


def test_14_a_thousand_ops_in_one_segment_are_answered_in_order(server, dial):
    wire = dial.quiet(server, verbose=True)
    ops, answers = [], []
    for n in range(250):
        ops.append(b"SUB t%d %d\r\nPUB t%d 3\r\n%03d\r\nPING\r\nUNSUB %d\r\n" % (n, n, n, n, n))
        answers.append(b"+OK\r\n+OK\r\nMSG t%d %d 3\r\n%03d\r\nPONG\r\n+OK\r\n" % (n, n, n))
    wire.send(b"".join(ops))
    wire.exactly(b"".join(answers))
    wire.settle()


@table(cases.UNKNOWN_OPS)
def test_15_unknown_operations_are_named_before_the_end(case, server, dial, bystander):
    run(case, server, dial)


@table(cases.MALFORMED)
def test_16_malformed_operations_end_the_connection(case, server, dial, bystander):
    run(case, server, dial)


@table(cases.PAYLOAD_ENDS)
def test_17_payloads_end_with_crlf(case, server, dial, bystander):
    run(case, server, dial)


@table(cases.LIMITS)
def test_18_19_limits_of_payload_and_line(case, shared, dial):
    run(case, shared({"limits.max_payload": "1KiB"}), dial)


def test_18_default_payload_limit_is_8_mib(server, dial):
    wire = dial.quiet(server).sub("a", 1)
    assert wire.info["max_payload"] == 8 << 20
    body = b"x" * (8 << 20)
    wire.send(b"PUB a %d\r\n" % len(body) + body + b"\r\n")
    assert wire.msg(20).body == body
    wire.send(b"PUB a %d\r\n" % (len(body) + 1))
    assert raw_of(wire.rest()) == cases.TOO_LARGE


def send_until_refused(wire, stop):
    sent = 0
    try:
        while not stop.is_set():
            sent += wire.sock.send(b"x" * 65536)
    except (OSError, ValueError):
        pass
    return sent


def test_18_the_error_can_be_read_while_the_body_is_still_coming(shared, dial):
    """The peer keeps writing; a reset must not take the error away from it."""
    server = shared({"limits.max_payload": "1KiB"})
    for _ in range(20):
        wire = dial(server)
        wire.send(connect_line(**QUIET) + b"PUB a 100000000\r\n")
        stop = threading.Event()
        writer = threading.Thread(target=send_until_refused, args=(wire, stop))
        writer.start()
        try:
            assert wire.error() == "Maximum Payload Violation"
            assert wire.rest() == []
        finally:
            stop.set()
            wire.sock.settimeout(0.001)
            writer.join()
            wire.close()


@table(cases.VERBOSE_ANSWERS)
def test_20_verbose_answers(case, server, dial):
    run(case, server, dial)


def test_20_a_refused_publish_gets_only_the_error(shared, dial):
    user = {"user": "a", "password": "b", "permissions": {"publish": {"allow": ["ok"]}, "subscribe": {"allow": ["ok"]}}}
    server = shared({"auth.mode": "users", "auth.users": [user]})
    wire = dial.quiet(server, user="a", **{"pass": "b"}, verbose=True)
    wire.send(b"PUB no 0\r\n\r\nPUB ok 0\r\n\r\nSUB no 1\r\nSUB ok 2\r\n")
    assert [f.text or f.op for f in wire.flush()] == [
        'Permissions Violation for Publish to "no"',
        "+OK",
        'Permissions Violation for Subscription to "no"',
        "+OK",
    ]


@table(cases.PEDANTIC_ANSWERS)
def test_21_pedantic_answers(case, server, dial):
    run(case, server, dial)


@table(cases.SUBSCRIPTIONS)
def test_22_23_subscriptions_and_ignored_answers(case, server, dial):
    run(case, server, dial)


# The flush contract


def test_each_ping_gets_one_pong_in_order(server, dial):
    wire = dial.quiet(server).sub("a", 1)
    wire.send(b"".join(b"PUB a 4\r\n%04d\r\nPING\r\n" % n for n in range(1000)))
    wire.exactly(b"".join(b"MSG a 1 4\r\n%04d\r\nPONG\r\n" % n for n in range(1000)))
    wire.settle()


def test_messages_before_a_ping_precede_its_pong(server, dial):
    wire = dial.quiet(server).sub("a", 1)
    wire.send(b"PUB a 1\r\nx\r\n" * 5000 + b"UNSUB 1\r\nPING\r\nPUB a 1\r\ny\r\n")
    assert len(wire.until_pong()) == 5000
    wire.settle()


def test_unsolicited_pongs_are_ignored(server, dial):
    dial.quiet(server).send(b"PONG\r\n" * 100).settle()


def test_an_own_message_may_precede_the_first_pong(server, dial):
    """Only a client that publishes to itself before its first PING sees anything before the PONG."""
    wire = dial(server)
    wire.send(connect_line(**QUIET) + b"SUB a 1\r\nPUB a 0\r\n\r\nPING\r\n")
    assert raw_of(wire.until_pong()) == b"MSG a 1 0\r\n\r\n"


# Peers that misbehave


def test_random_bytes_harm_nobody_else(server, dial, bystander):
    noise = random.Random(1)
    words = [b"PUB ", b"HPUB ", b"SUB ", b"UNSUB ", b"CONNECT ", b"{", b"}", b"PING", b"\r\n", b" ", b"1", b"99", b"a.>", b"-", b'"']
    for turn in range(300):
        wire = dial(server)
        if turn % 3 == 0:
            data = noise.randbytes(noise.randrange(1, 4096))
        elif turn % 3 == 1:
            data = b"".join(noise.choice(words) for _ in range(200))
        else:
            whole = bytearray(SCRIPT)
            for _ in range(3):
                whole[noise.randrange(len(whole))] = noise.randrange(256)
            data = bytes(whole)
        wire.try_send(data)
        if turn % 2:
            wire.abort()
        else:
            wire.close()
        if turn % 50 == 49:
            bystander.settle()


def test_thousands_of_connections_that_say_nothing(launch, dial):
    server = launch()
    bystander = dial.quiet(server).sub("x", 1).settle()
    before = server.descriptors()
    starts = [b"", b"C", b"CONNECT {", b"PING", b"PUB a 100\r\nhalf", b"SUB ", b"HPUB a 12 20\r\nNATS"]
    many = min(3000, resource.getrlimit(resource.RLIMIT_NOFILE)[0] - 500)
    wires = [Wire(server.address, info=False) for _ in range(many)]
    try:
        for n, wire in enumerate(wires):
            wire.send(starts[n % len(starts)])
        bystander.pub("x", b"1")
        assert [f.body for f in bystander.flush(20)] == [b"1"]
    finally:
        for n, wire in enumerate(wires):
            if n % 2:
                wire.abort()
            else:
                wire.close()
    wait_until(lambda: server.descriptors() <= before + 8, 20, "descriptors are given back")
    bystander.pub("x", b"2")
    assert [f.body for f in bystander.flush()] == [b"2"]


@pytest.mark.deviation("it reserves what was announced")
def test_payloads_announced_and_never_sent_cost_nothing(launch, dial):
    server = launch()
    bystander = dial.quiet(server).sub("x", 1).settle()
    before = server.memory_bytes()
    wires = [dial.quiet(server) for _ in range(500)]
    for wire in wires:
        wire.send(b"PUB a %d\r\nbegin" % (8 << 20))
    await_read(server.port, wires)
    bystander.pub("x", b"1")
    assert [f.body for f in bystander.flush()] == [b"1"]
    # 500 times 8 MiB were promised, 500 times 5 bytes came.
    assert server.memory_bytes() - before < 64 << 20


def test_a_connection_may_vanish_inside_an_op(server, dial, bystander):
    for cut in range(1, len(SCRIPT), 5):
        wire = dial(server)
        wire.send(script_for(0)[:cut])
        wire.abort()
    bystander.settle()


def test_half_a_close_still_gets_the_answers(server, dial):
    wire = dial(server)
    wire.send(connect_line(**QUIET) + b"SUB a 1\r\nPUB a 0\r\n\r\nPING\r\n")
    wire.sock.shutdown(socket.SHUT_WR)
    assert raw_of(wire.rest()) == b"MSG a 1 0\r\n\r\n" + cases.PONG
