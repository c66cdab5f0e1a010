# SPDX-License-Identifier: Apache-2.0
"""Who gets what, how often and in which order. Statements 24 to 35."""

import os
import random
import threading
from collections import Counter

import pytest

from servers import REFERENCE
from wire import DEADLINE_S, raw_of, wait_until

SCALE = int(os.environ.get("MIR_TEST_SCALE", "1"))

# More connections than shards, so that the pairs meet on one shard and across shards.
CROWD = 6


def subjects(frames):
    return [frame.subject.decode() for frame in frames]


def bodies(frames):
    return [frame.body for frame in frames]


def sids(frames):
    return Counter(frame.sid.decode() for frame in frames)


def no_responders(reply, sid, subject):
    named = b"" if REFERENCE else b"Nats-Subject: %b\r\n" % subject
    head = b"NATS/1.0 503\r\n" + named + b"\r\n"
    return b"HMSG %b %b %d %d\r\n%b\r\n" % (reply, sid, len(head), len(head), head)


# What matches

DEEP = ".".join(f"t{n}" for n in range(40))
DEEPER = ".".join("x" for _ in range(1500))


@pytest.mark.parametrize(
    "pattern, hits, misses",
    [
        ("foo", ["foo"], ["foo.bar", "Foo", "fo", "fooo"]),
        ("foo.*", ["foo.bar", "foo.b", "foo.*", "foo.>"], ["foo", "foo.bar.baz", "fo.bar"]),
        ("foo.>", ["foo.bar", "foo.bar.baz", "foo.*"], ["foo", "fop.bar", "Foo.bar"]),
        ("*", ["foo", ">", "$SYS"], ["foo.bar"]),
        (">", ["foo", "foo.bar", "$SYS.x", DEEP], []),
        ("*.b.*", ["a.b.c"], ["a.b", "a.c.c", "a.b.c.d"]),
        ("*.>", ["a.b", "a.b.c"], ["a"]),
        ("a.*.c.>", ["a.b.c.d", "a.x.c.d.e"], ["a.b.c", "a.b.d.d"]),
        (DEEP, [DEEP], [DEEP + ".x", DEEP[:-4]]),
        (DEEP + ".*", [DEEP + ".x"], [DEEP, DEEP + ".x.y"]),
        (DEEP + ".>", [DEEP + ".x", DEEP + ".x.y"], [DEEP]),
        (DEEP.replace("t20", "*"), [DEEP], [DEEP.replace("t21", "u")]),
        (DEEPER, [DEEPER], [DEEPER + ".x"]),
        (".".join("*" for _ in range(200)), [".".join("x" for _ in range(200))], [".".join("x" for _ in range(199))]),
    ],
    ids=lambda value: value[:12] if isinstance(value, str) else "",
)
def test_24_wildcards(routed, dial, pattern, hits, misses):
    receiver = dial.quiet(routed).sub(pattern, 1).settle()
    sender = dial.quiet(routed)
    for subject in misses + hits + misses:
        sender.pub(subject, b"x")
    sender.settle()
    assert subjects(receiver.flush()) == hits


def test_24_a_published_wildcard_is_literal(routed, dial):
    receiver = dial.quiet(routed).sub("a.b", 1).sub("a.*", 2).sub("a.>", 3).settle()
    dial.quiet(routed).pub("a.*").pub("a.>").settle()
    frames = receiver.flush()
    assert sids(frames) == {"2": 2, "3": 2}
    assert Counter(subjects(frames)) == {"a.*": 2, "a.>": 2}


def test_24_many_subscriptions_stay_apart(routed, dial):
    receiver = dial.quiet(routed)
    receiver.send(b"".join(b"SUB m.%d.* %d\r\n" % (n, n) for n in range(5000))).settle()
    sender = dial.quiet(routed)
    order = list(range(5000))
    random.Random(24).shuffle(order)
    sender.send(b"".join(b"PUB m.%d.x 0\r\n\r\n" % n for n in order)).settle()
    assert [int(frame.sid) for frame in receiver.flush()] == order
    receiver.send(b"".join(b"UNSUB %d\r\n" % n for n in range(0, 5000, 2))).settle()
    sender.send(b"".join(b"PUB m.%d.x 0\r\n\r\n" % n for n in order)).settle()
    assert [int(frame.sid) for frame in receiver.flush()] == [n for n in order if n % 2]


def matches(pattern, subject):
    pattern, subject = pattern.split("."), subject.split(".")
    for at, token in enumerate(pattern):
        if token == ">":
            return len(subject) > at
        if at >= len(subject) or token not in ("*", subject[at]):
            return False
    return len(pattern) == len(subject)


@pytest.mark.parametrize("seed", range(3))
def test_24_random_patterns_match_as_the_rules_say(routed, dial, seed):
    """Subscriptions come and go between rounds; an oracle of ten lines tells who has to hear what."""
    noise = random.Random(seed)

    def words(choice):
        return ".".join(noise.choice(choice) for _ in range(noise.randrange(1, 6)))

    wires = [dial.quiet(routed) for _ in range(CROWD)]
    live = [{} for _ in wires]
    sender = dial.quiet(routed)
    sid = 0
    for _ in range(5):
        for wire, patterns in zip(wires, live):
            for old in noise.sample(sorted(patterns), len(patterns) // 2):
                wire.send(b"UNSUB %d\r\n" % old)
                del patterns[old]
            for _ in range(60):
                sid += 1
                patterns[sid] = words(["a", "b", "c", "*"]) + noise.choice(["", ".>", ".*"])
                wire.sub(patterns[sid], sid)
            wire.settle()
        subjects_sent = [words(["a", "b", "c", "d"]) for _ in range(200)]
        sender.send(b"".join(b"PUB %b 3\r\n%03d\r\n" % (s.encode(), n) for n, s in enumerate(subjects_sent))).settle()
        for wire, patterns in zip(wires, live):
            got = Counter((int(frame.body), int(frame.sid)) for frame in wire.flush())
            assert got == Counter(
                (n, sid)
                for n, subject in enumerate(subjects_sent)
                for sid, pattern in patterns.items()
                if matches(pattern, subject)
            )


def test_24_subscriptions_change_while_messages_flow(routed, dial):
    """Nobody gets what it never asked for, and whoever asked throughout gets everything in order."""
    noise = random.Random(4)
    steady = dial.quiet(routed).sub("flow.*", 0).settle()
    senders = [dial.quiet(routed) for _ in range(2)]
    churners = [dial.quiet(routed) for _ in range(CROWD)]
    serial, sent = 0, 0
    for _ in range(150 // SCALE):
        for wire in churners:
            lines = []
            for _ in range(10):
                serial += 1
                topic = noise.randrange(50)
                lines.append(b"SUB flow.%d %d.%d\r\n" % (topic, topic, serial))
                lines.append(b"UNSUB %d.%d %d\r\n" % (topic, serial, noise.randrange(3)))
            wire.send(b"".join(lines))
        for sender in senders:
            numbers = range(sent, sent + 20)
            sender.send(b"".join(b"PUB flow.%d 6\r\n%06d\r\n" % (n % 50, n) for n in numbers))
            sent += 20
        for wire in churners:
            # Whether a message came in time for its subscription is a matter of luck.
            for frame in wire.flush():
                assert frame.subject == b"flow." + frame.sid.partition(b".")[0]
    for sender in senders:
        sender.settle()
    heard = [int(body) for body in bodies(steady.flush())]
    assert sorted(heard) == list(range(sent))
    for parity in (0, 1):
        own = [n for n in heard if n // 20 % 2 == parity]
        assert own == sorted(own)


# Copies


def test_25_overlapping_subscriptions_deliver_once_each(routed, dial):
    receiver = dial.quiet(routed).sub("a.b", 1).sub("a.*", 2).sub("a.b", 3).sub(">", 4).sub("b", 5).settle()
    dial.quiet(routed).pub("a.b", b"x").settle()
    assert sids(receiver.flush()) == {"1": 1, "2": 1, "3": 1, "4": 1}


def test_25_the_same_sid_twice_keeps_the_first(routed, dial):
    receiver = dial.quiet(routed).sub("a", 1).sub("b", 1).sub("a", 1, queue="q").settle()
    dial.quiet(routed).pub("b").pub("a").settle()
    assert raw_of(receiver.flush()) == b"MSG a 1 0\r\n\r\n"


def test_25_one_message_to_many_connections(routed, dial):
    receivers = [dial.quiet(routed).sub("all", n).settle() for n in range(60)]
    dial.quiet(routed).pub("all", b"x").settle()
    for n, receiver in enumerate(receivers):
        assert raw_of(receiver.flush()) == b"MSG all %d 1\r\nx\r\n" % n


# Queue groups


def drain_into(wires, count_of):
    """Reads all connections to their PONG at once, in threads."""
    results = [None] * len(wires)

    def work(at):
        results[at] = count_of(wires[at].flush(DEADLINE_S * 6))

    threads = [threading.Thread(target=work, args=(at,)) for at in range(len(wires))]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return results


def test_26_a_queue_group_shares_evenly_and_completely(routed, dial):
    total = 100_000 // SCALE
    members = [dial.quiet(routed).sub("work", 1, queue="q").settle() for _ in range(4)]
    plain = [dial.quiet(routed).sub("work", 1).settle() for _ in range(2)]
    sender = dial.quiet(routed)
    for begin in range(0, total, 10_000):
        numbers = range(begin, min(begin + 10_000, total))
        sender.send(b"".join(b"PUB work 6\r\n%06d\r\n" % n for n in numbers)).flush(DEADLINE_S * 4)
    got = drain_into(members + plain, lambda frames: [int(frame.body) for frame in frames])
    shares, copies = got[:4], got[4:]
    assert all(copy == list(range(total)) for copy in copies)
    assert all(share == sorted(share) for share in shares)
    assert sorted(n for share in shares for n in share) == list(range(total))
    fair = total / 4
    # One in 10^12 at random: nine standard deviations for the full count.
    spread = 0.05 if SCALE == 1 else 0.05 * SCALE**0.5
    assert all(abs(len(share) - fair) <= fair * spread for share in shares), [len(s) for s in shares]


def test_26_groups_are_independent(routed, dial):
    receivers = [dial.quiet(routed) for _ in range(CROWD)]
    for n, receiver in enumerate(receivers):
        receiver.sub("work", "a", queue="qa").sub("work", "b", queue="qb" if n % 2 else "qc").settle()
    sender = dial.quiet(routed)
    for n in range(300):
        sender.pub("work", b"%d" % n)
    sender.settle()
    got = [(frame.sid, frame.body, n % 2) for n, r in enumerate(receivers) for frame in r.flush()]
    for number in range(300):
        body = b"%d" % number
        assert Counter((sid, odd) if sid == b"b" else sid for sid, b, odd in got if b == body) == {
            b"a": 1, (b"b", 0): 1, (b"b", 1): 1,
        }  # fmt: skip


def test_26_two_memberships_on_one_connection(routed, dial):
    receiver = dial.quiet(routed).sub("work", 1, queue="q").sub("work", 2, queue="q").settle()
    sender = dial.quiet(routed)
    sender.send(b"PUB work 0\r\n\r\n" * 200).settle()
    counts = sids(receiver.flush())
    assert sum(counts.values()) == 200
    assert counts["1"] and counts["2"]


def test_26_a_member_that_leaves_gets_nothing_more(routed, dial):
    """Half of the members end, orderly or not; every later message goes to one of the rest."""
    members = [dial.quiet(routed).sub("work", 1, queue="q").settle() for _ in range(CROWD)]
    sender = dial.quiet(routed)
    for n, member in enumerate(members[::2]):
        if n % 2:
            member.send(b"UNSUB 1\r\n").settle()
        else:
            member.abort()
    rest = members[1::2]

    def all_arrive(count):
        sender.send(b"PUB work 1\r\nx\r\n" * count).settle()
        return sum(len(member.flush()) for member in rest) == count

    # The server learns of a reset on its own time.
    wait_until(lambda: all_arrive(60), what="the group is down to the rest")
    assert all_arrive(300)


def test_27_a_queue_spans_its_patterns(routed, dial):
    members = [
        dial.quiet(routed).sub(pattern, 1, queue="q").settle()
        for pattern in ("a.*", "a.b", "a.>", "*.b", "a.*", "a.b")
    ]
    other = dial.quiet(routed).sub("a.c", 1, queue="q").settle()
    sender = dial.quiet(routed)
    for n in range(600):
        sender.pub("a.b", b"%d" % n)
    sender.settle()
    shares = [bodies(member.flush()) for member in members]
    assert sorted(int(body) for share in shares for body in share) == list(range(600))
    assert all(shares)
    assert other.flush() == []


# Echo


def test_28_echo_off(routed, dial):
    silent = dial.quiet(routed, echo=False).sub("a", 1).sub("a", 2, queue="q").sub(">", 3)
    other = dial.quiet(routed).sub("a", 1).sub("a", 2, queue="q").settle()
    silent.send(b"PUB a 1\r\nx\r\n" * 50).settle()
    # Its membership is passed over, so the other member gets each one.
    assert sids(other.flush()) == {"1": 50, "2": 50}
    other.pub("a", b"y")
    frames = other.flush() + silent.flush()
    assert sids(frames) == {"1": 2, "2": 1, "3": 1}


# Order


class Reader(threading.Thread):
    def __init__(self, wire, expected):
        super().__init__()
        self.wire, self.expected, self.problem = wire, expected, None

    def run(self):
        try:
            self.wire.exactly(self.expected, 45)
        except AssertionError as problem:
            self.problem = problem


def test_29_a_million_messages_keep_their_order(routed, dial):
    total = 1_000_000 // SCALE
    lines = [b"ord.%d" % (n % 8) for n in range(8)]
    stream = b"".join(b"PUB %b 7\r\n%07d\r\n" % (lines[n % 8], n) for n in range(total))
    everything = b"".join(b"MSG %b 1 7\r\n%07d\r\n" % (lines[n % 8], n) for n in range(total))
    one = b"".join(b"MSG ord.3 1 7\r\n%07d\r\n" % n for n in range(3, total, 8))
    receivers = [dial.quiet(routed).sub("ord.*", 1).settle() for _ in range(3)]
    single = dial.quiet(routed).sub("ord.3", 1).settle()
    readers = [Reader(wire, everything) for wire in receivers] + [Reader(single, one)]
    for reader in readers:
        reader.start()
    sender = dial.quiet(routed)
    sender.sock.settimeout(45)
    sender.sock.sendall(stream)
    sender.flush(45)
    for reader in readers:
        reader.join()
    assert [reader.problem for reader in readers if reader.problem] == []
    for reader in readers:
        reader.wire.settle()


def test_29_each_publisher_keeps_its_order(routed, dial):
    """Several publishers at once: their streams may mix, but none is out of order."""
    total = 5000 // SCALE // 100 * 100
    receivers = [dial.quiet(routed).sub("mix.>", 1).settle() for _ in range(3)]
    senders = [dial.quiet(routed) for _ in range(CROWD)]
    for begin in range(0, total, 100):
        for who, sender in enumerate(senders):
            sender.send(
                b"".join(b"PUB mix.%d.%d 6\r\n%d%05d\r\n" % (who, n % 5, who, n) for n in range(begin, begin + 100))
            )
    for sender in senders:
        sender.settle()
    for receiver in receivers:
        seen = Counter()
        for body in bodies(receiver.flush(DEADLINE_S * 4)):
            who, number = body[0], int(body[1:])
            assert number == seen[who]
            seen[who] += 1
        assert len(seen) == len(senders) and set(seen.values()) == {total}


# UNSUB


def test_30_unsub_with_max_counts_from_the_beginning(routed, dial):
    receiver = dial.quiet(routed).sub("a", 1).sub("a", 2).send(b"UNSUB 1 5\r\n").settle()
    sender = dial.quiet(routed)
    sender.send(b"PUB a 0\r\n\r\n" * 3).settle()
    assert sids(receiver.flush()) == {"1": 3, "2": 3}
    sender.send(b"PUB a 0\r\n\r\n" * 10).settle()
    assert sids(receiver.flush()) == {"1": 2, "2": 10}
    # The sid is free again.
    receiver.sub("b", 1).settle()
    sender.pub("b").settle()
    assert sids(receiver.flush()) == {"1": 1}


def test_30_unsub_with_max_already_reached_removes_at_once(routed, dial):
    receiver = dial.quiet(routed).sub("a", 1).sub("a", 2).settle()
    sender = dial.quiet(routed)
    sender.send(b"PUB a 0\r\n\r\n" * 4).settle()
    receiver.flush()
    receiver.send(b"UNSUB 1 4\r\nUNSUB 2 3\r\n").settle()
    sender.send(b"PUB a 0\r\n\r\n").settle()
    receiver.settle()


def test_30_a_later_max_replaces_the_earlier(routed, dial):
    receiver = dial.quiet(routed).sub("a", 1).sub("a", 2).send(b"UNSUB 1 2\r\nUNSUB 1 6\r\nUNSUB 2 6\r\nUNSUB 2 2\r\n").settle()
    sender = dial.quiet(routed)
    sender.send(b"PUB a 0\r\n\r\n" * 10).settle()
    assert sids(receiver.flush()) == {"1": 6, "2": 2}


def test_30_max_on_the_publishing_connection_itself(routed, dial):
    wire = dial.quiet(routed)
    wire.send(b"SUB a 1\r\nUNSUB 1 2\r\n" + b"PUB a 0\r\n\r\n" * 5 + b"SUB a 1\r\nPUB a 0\r\n\r\n")
    assert len(wire.flush()) == 3


def test_30_max_in_a_queue_group_loses_nothing(routed, dial):
    """Members that have had enough leave; what they do not take the others get."""
    members = [dial.quiet(routed).sub("work", 1, queue="q").send(b"UNSUB 1 5\r\n").settle() for _ in range(4)]
    last = dial.quiet(routed).sub("work", 1, queue="q").settle()
    sender = dial.quiet(routed)
    # One at a time, each barrier letting an expiry take effect before the next.
    for n in range(200):
        sender.pub("work", b"%d" % n).settle()
        for member in [*members, last] if n < 60 else []:
            member.kept = getattr(member, "kept", []) + member.flush()
    got = [bodies(getattr(member, "kept", []) + member.flush()) for member in [*members, last]]
    assert sorted(int(body) for share in got for body in share) == list(range(200))
    assert all(len(share) <= 5 for share in got[:4])


@pytest.mark.parametrize("count", [1, 100])
def test_30_max_under_load_is_exact(routed, dial, count):
    receivers = [dial.quiet(routed).sub("a", 1).send(b"UNSUB 1 %d\r\n" % count).settle() for _ in range(CROWD)]
    sender = dial.quiet(routed)
    sender.send(b"PUB a 0\r\n\r\n" * 5000).settle()
    for receiver in receivers:
        assert len(receiver.flush()) == count


# No responders


def test_31_nobody_there(routed, dial):
    wire = dial.quiet(routed).sub("in.box.*", 9)
    wire.pub("service.x", b"question", reply="in.box.1")
    assert raw_of(wire.flush()) == no_responders(b"in.box.1", b"9", b"service.x")


def test_31_also_for_a_publish_with_headers(routed, dial):
    wire = dial.quiet(routed).sub("in.box.*", 9)
    wire.send(b"HPUB service in.box.1 12 14\r\nNATS/1.0\r\n\r\nhi\r\n")
    assert raw_of(wire.flush()) == no_responders(b"in.box.1", b"9", b"service")


@pytest.mark.parametrize("prefix", ["$JS.API.INFO", "$KV.bucket.key", "$O.bucket", "$SRV.PING"])
def test_31_services_that_do_not_exist_here(routed, dial, prefix):
    wire = dial.quiet(routed).sub("_INBOX.abc.*", 1)
    wire.pub(prefix, reply="_INBOX.abc.1")
    assert raw_of(wire.flush()) == no_responders(b"_INBOX.abc.1", b"1", prefix.encode())


@pytest.mark.parametrize("queue", [None, "q"])
def test_31_a_responder_anywhere_suppresses_it(routed, dial, queue):
    for _ in range(CROWD):
        responder = dial.quiet(routed).sub("service.*", 1, queue=queue).settle()
        for _ in range(CROWD):
            wire = dial.quiet(routed).sub("in.box.*", 9)
            wire.pub("service.x", reply="in.box.1").settle()
            wire.close()
        assert len(responder.flush()) == CROWD
        responder.send(b"UNSUB 1\r\n").settle()


def test_31_comes_back_when_the_responder_is_gone(routed, dial):
    wire = dial.quiet(routed).sub("in.box.*", 9)
    expected = no_responders(b"in.box.1", b"9", b"service")
    for _ in range(50):
        responder = dial.quiet(routed).sub("service", 1, queue="q").settle()
        wire.pub("service", reply="in.box.1").settle()
        responder.send(b"UNSUB 1\r\n").flush()
        wire.pub("service", reply="in.box.1")
        assert raw_of(wire.flush()) == expected
        responder.close()


def test_31_own_subscription_that_hears_no_echo_is_no_responder(routed, dial):
    wire = dial.quiet(routed, echo=False).sub("service", 1).sub("in.box.*", 9)
    wire.pub("service", reply="in.box.1")
    assert raw_of(wire.flush()) == no_responders(b"in.box.1", b"9", b"service")


def test_31_own_subscription_with_echo_is_a_responder(routed, dial):
    wire = dial.quiet(routed).sub("service", 1).sub("in.box.*", 9)
    wire.pub("service", b"x", reply="in.box.1")
    assert raw_of(wire.flush()) == b"MSG service 1 in.box.1 1\r\nx\r\n"


def test_31_once_even_with_two_subscriptions_on_the_reply(routed, dial):
    wire = dial.quiet(routed).sub("in.box.*", 8).sub("in.box.1", 9)
    wire.pub("service", reply="in.box.1")
    assert [frame.op for frame in wire.flush()] == ["HMSG"]


def test_32_only_to_who_asked_for_it(routed, dial):
    for options in ({"no_responders": False}, {"no_responders": False, "headers": False}):
        wire = dial.quiet(routed, **options).sub("in.box.*", 9)
        wire.pub("service", reply="in.box.1").settle()


def test_32_not_without_reply(routed, dial):
    dial.quiet(routed).sub("in.box.*", 9).pub("service").settle()


def test_32_not_without_an_own_plain_subscription_on_the_reply(routed, dial):
    dial.quiet(routed).pub("service", reply="in.box.1").settle()
    dial.quiet(routed).sub("in.box.*", 9, queue="q").pub("service", reply="in.box.1").settle()
    other = dial.quiet(routed).sub("in.box.*", 9).settle()
    dial.quiet(routed).pub("service", reply="in.box.1").settle()
    other.settle()


@pytest.mark.deviation("it does not count the 503")
def test_32_the_503_counts_as_a_delivery(routed, dial):
    """So that a request with a subscription of its own, and UNSUB 1, leaves nothing behind."""
    wire = dial.quiet(routed).sub("in.box", 9).send(b"UNSUB 9 1\r\n")
    wire.pub("service", reply="in.box")
    assert raw_of(wire.flush()) == no_responders(b"in.box", b"9", b"service")
    dial.quiet(routed).pub("in.box").settle()
    wire.settle()


# Barriers across connections


def test_33_a_confirmed_subscription_hears_everyone(routed, dial):
    receivers = [dial.quiet(routed) for _ in range(CROWD)]
    senders = [dial.quiet(routed) for _ in range(CROWD)]
    for turn in range(1000 // SCALE):
        receiver = receivers[turn % CROWD]
        sender = senders[turn // CROWD % CROWD]
        receiver.send(b"SUB t.%d 1\r\n" % turn).settle()
        sender.send(b"PUB t.%d 0\r\n\r\n" % turn).settle()
        assert raw_of(receiver.flush()) == b"MSG t.%d 1 0\r\n\r\n" % turn
        receiver.send(b"UNSUB 1\r\n")


def test_34_what_was_confirmed_precedes_the_pong_of_others(routed, dial):
    receivers = [dial.quiet(routed).sub("news", n).settle() for n in range(CROWD)]
    senders = [dial.quiet(routed) for _ in range(CROWD)]
    for turn in range(1000 // SCALE):
        receiver = receivers[turn % CROWD]
        sender = senders[turn // CROWD % CROWD]
        sender.send(b"PUB news 5\r\n%05d\r\n" % turn).settle()
        assert bodies(receiver.flush())[-1:] == [b"%05d" % turn]


def test_34_through_a_third_connection(routed, dial):
    """What A had confirmed before it told B comes before anything that B then tells others."""
    heard = [dial.quiet(routed).sub("direct", 1).sub("relayed", 2).settle() for _ in range(CROWD)]
    relays = [dial.quiet(routed).sub("go", 1).settle() for _ in range(CROWD)]
    firsts = [dial.quiet(routed) for _ in range(CROWD)]
    for turn in range(200 // SCALE):
        body = b"%05d" % turn
        first = firsts[turn % CROWD]
        first.pub("direct", body).settle()
        first.pub("go", body)
        for relay in relays:
            assert relay.msg().body == body
        relays[turn // CROWD % CROWD].pub("relayed", body)
        for receiver in heard:
            got = [receiver.msg(), receiver.msg()]
            assert [(f.subject, f.body) for f in got] == [(b"direct", body), (b"relayed", body)]


def test_35_nothing_arrives_after_a_confirmed_unsub(routed, dial):
    receivers = [dial.quiet(routed) for _ in range(CROWD)]
    senders = [dial.quiet(routed) for _ in range(CROWD)]
    for turn in range(500 // SCALE):
        receiver = receivers[turn % CROWD]
        sender = senders[turn // CROWD % CROWD]
        receiver.send(b"SUB t 1\r\n").settle()
        sender.pub("t", b"in").settle()
        receiver.send(b"UNSUB 1\r\n")
        assert bodies(receiver.flush()) == [b"in"]
        sender.pub("t", b"out").settle()
        receiver.settle()


def test_35_a_connection_that_ended_is_forgotten(routed, dial):
    """Subscriptions go with their connection; the 503 tells when."""
    asker = dial.quiet(routed).sub("in.box.*", 9)
    for turn in range(20):
        responder = dial.quiet(routed).sub("service", 1, queue="q" if turn % 2 else None).settle()
        asker.pub("service", reply="in.box.1").settle()
        if turn % 4 < 2:
            responder.close()
        else:
            responder.abort()
        for _ in range(1000):
            asker.pub("service", reply="in.box.1")
            if asker.flush():
                break
        else:
            pytest.fail("the ended connection still counts as a responder")


# Reserved subjects


@pytest.mark.parametrize("reply", ["$JS.ACK.stream.consumer.1"])
def test_reserved_replies_are_refused(routed, dial, reply):
    wire = dial.quiet(routed).sub("a", 1)
    wire.pub("a", b"x", reply=reply)
    assert [frame.text for frame in wire.flush()] == [f'Permissions Violation for Publish with Reply of "{reply}"']
    wire.pub("a", b"x", reply="$JS.OTHER")
    assert len(wire.flush()) == 1


@pytest.mark.deviation("refused from 2.10 on")
@pytest.mark.parametrize("subject", ["_GR_.a.b", "$NRG.x"])
def test_reserved_subjects_are_refused(routed, dial, subject):
    wire = dial.quiet(routed).sub(subject, 1)
    wire.pub(subject, b"x")
    assert [frame.text for frame in wire.flush()] == [f'Permissions Violation for Publish to "{subject}"']


@pytest.mark.parametrize("subject", ["$SYS.REQ.x", "$SRV.PING", "$KV.b.k", "_INBOX.a.b", "$X", "_GRX.a", "$NRGX"])
def test_other_special_names_are_ordinary(routed, dial, subject):
    receiver = dial.quiet(routed).sub(subject, 1).sub(">", 2).settle()
    dial.quiet(routed).pub(subject, b"x", reply="_INBOX.r").settle()
    assert sids(receiver.flush()) == {"1": 1, "2": 1}


def test_the_system_queue_name_is_refused(routed, dial):
    wire = dial.quiet(routed).sub("a", 1, queue="_sys_")
    assert [frame.text for frame in wire.flush()] == ['Permissions Violation for Subscription to "a" using queue "_sys_"']
    wire.pub("a").settle()
