# SPDX-License-Identifier: Apache-2.0
"""The same behaviour on each I/O backend and with any number of shards, in brief."""

import pytest

from wire import raw_of

pytestmark = pytest.mark.alone("it has neither backends nor shards")


@pytest.fixture(params=[("auto", 1), ("auto", 3), ("epoll", 1), ("epoll", 2)], ids=lambda p: f"{p[0]}-{p[1]}")
def built(request, launch):
    backend, shards = request.param
    return launch({"io.backend": backend, "limits.max_payload": "1MiB"}, shards)


def test_messages_small_and_large(built, dial):
    receivers = [dial.quiet(built).sub("a.*", 1).settle() for _ in range(6)]
    sender = dial.quiet(built)
    stream, expected = [], []
    for n in range(3000):
        body = b"%04d" % n + b"x" * (n * 7919 % 1500)
        stream.append(b"PUB a.%d %d\r\n%b\r\n" % (n % 5, len(body), body))
        expected.append(b"MSG a.%d 1 %d\r\n%b\r\n" % (n % 5, len(body), body))
    huge = b"y" * (1 << 20)
    stream.append(b"PUB a.x %d\r\n%b\r\n" % (len(huge), huge))
    expected.append(b"MSG a.x 1 %d\r\n%b\r\n" % (len(huge), huge))
    sender.send(b"".join(stream)).settle()
    for receiver in receivers:
        receiver.exactly(b"".join(expected), 20)
        receiver.settle()


def test_a_slow_reader_gets_everything_in_the_end(built, dial):
    slow = dial(built, receive_bytes=4096).connect().sub("a", 1).settle()
    sender = dial.quiet(built)
    body = b"z" * 100_000
    sender.send(b"PUB a %d\r\n%b\r\n" % (len(body), body) * 100).settle()
    slow.exactly(b"MSG a 1 %d\r\n%b\r\n" % (len(body), body) * 100, 20)
    slow.settle()


def test_errors_and_ends(built, dial):
    for _ in range(20):
        wire = dial.quiet(built)
        wire.send(b"PUB a 2\r\nhi\r\nnonsense\r\n")
        assert raw_of(wire.rest()) == b"-ERR 'Unknown Protocol Operation'\r\n"
        gone = dial.quiet(built).sub("a", 1)
        gone.abort()
    dial.quiet(built).settle()
