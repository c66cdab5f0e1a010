# SPDX-License-Identifier: Apache-2.0
"""What went wrong once."""

import pytest

from wire import DEADLINE_S, ESTABLISHED, Wire, connect_line, server_sides, wait_until


@pytest.mark.parametrize(
    "line", [b"PING\r\n", b"SUB a..b 1\r\n", b"UNSUB 7\r\n"], ids=["PONG", "-ERR", "+OK"]
)
@pytest.mark.alone("it waits for the write deadline")
def test_answers_that_nobody_reads_stay_bounded(launch, line):
    """Only deliveries were measured against max_pending."""
    server = launch({"limits.max_payload": "64KiB", "limits.max_pending": "256KiB", "limits.write_deadline": "60s"})
    before = server.memory_bytes()
    with Wire(server.address, receive_bytes=4096) as wire:
        wire.send(connect_line(verbose=True, pedantic=False))
        sent = 0

        def refused():
            nonlocal sent
            try:
                wire.send(line * 4096)
            except OSError:
                return True
            sent += len(line) * 4096
            return server_sides(server.port).get(wire.port, ("",))[0] != ESTABLISHED

        wait_until(refused, 4 * DEADLINE_S, "who reads nothing is dropped")
    # What the kernel holds for both ends, and some.
    assert sent < 64 << 20
    assert server.memory_bytes() - before < 16 << 20


def test_no_connect_is_no_way_around_no_auth_user(launch):
    """Before its CONNECT a client had every permission, not those of no_auth_user."""
    permissions = {"publish": {"allow": ["open.>"]}, "subscribe": {"allow": ["open.>"]}}
    users = [{"user": "guest", "password": "x", "permissions": permissions}]
    server = launch({"auth.mode": "users", "auth.no_auth_user": "guest", "auth.users": users})
    with Wire(server.address) as wire:
        wire.send(b"SUB secret 1\r\nSUB open.a 2\r\nPUB secret 1\r\nx\r\nPUB open.a 1\r\ny\r\nPING\r\n")
        frames = [wire.frame() for _ in range(6)]
    assert [frame.text for frame in frames if frame.op == "-ERR"] == [
        'Permissions Violation for Subscription to "secret"',
        'Permissions Violation for Publish to "secret"',
    ]
    assert [frame.subject for frame in frames if frame.op == "MSG"] == [b"open.a"]
