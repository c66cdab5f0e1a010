# SPDX-License-Identifier: Apache-2.0
"""Servers and connections for the black-box and interop tests.

MIR_BIN            the server to test; not needed with
MIR_TEST_PEER      nats-server: the same tests against the reference server, to judge the tests
MIR_TEST_SHARDS    shards of a server unless a test says otherwise (2)
MIR_TEST_BACKEND   auto, uring or epoll
MIR_TEST_PATIENCE  factor on every deadline, for slow builds (1)
MIR_TEST_SCALE     divisor of the large message counts, for slow builds (1)
MIR_TEST_SOAK      seconds of the test that does everything at once (6)
"""

import contextlib
import os
import resource
import signal

import pytest

from servers import BINARY, REFERENCE, SHARDS, Server
from wire import PATIENCE, Wire

current_servers = []


def pytest_configure():
    # Thousands of connections, at both ends; servers inherit it.
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (max(soft, min(hard, 16384)), hard))
    # A shell's background jobs have Ctrl-C ignored, and so would the programs that are interrupted here.
    for number in (signal.SIGINT, signal.SIGHUP):
        if signal.getsignal(number) == signal.SIG_IGN:
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)


def pytest_collection_modifyitems(items):
    if PATIENCE > 1:
        for item in items:
            mark = item.get_closest_marker("timeout")
            item.add_marker(pytest.mark.timeout((mark.args[0] if mark else 60) * PATIENCE))
    if not REFERENCE:
        startable = os.path.isfile(BINARY) and os.access(BINARY, os.X_OK)
        if not startable and any({"pool", "launch"} & set(item.fixturenames) for item in items):
            raise pytest.UsageError("MIR_BIN has to name the server to test; or set MIR_TEST_PEER=nats-server")
        return
    for item in items:
        for name in ("deviation", "alone"):
            if mark := item.get_closest_marker(name):
                item.add_marker(pytest.mark.skip(reason=f"{name}: {mark.args[0]}"))


@pytest.hookimpl(hookwrapper=True)
def pytest_runtest_makereport(item):
    outcome = yield
    report = outcome.get_result()
    if report.failed:
        for server in current_servers:
            with contextlib.suppress(OSError, AttributeError):
                report.sections.append((f"server on port {server.port}", server.tail()))


class Pool:
    """Servers by their settings, started at first use and kept while they are among the latest."""

    KEPT = 8

    def __init__(self):
        self.servers = {}
        self.problems = []

    def get(self, settings=None, shards=SHARDS):
        key = (repr(settings), shards)
        server = self.servers.pop(key, None)
        if server is not None and not server.running():
            self.end(server)
            server = None
        if server is None:
            server = Server(settings, shards).start()
        self.servers[key] = server
        while len(self.servers) > self.KEPT:
            self.end(self.servers.pop(next(iter(self.servers))))
        return server

    def end(self, server):
        try:
            server.stop()
        except AssertionError as problem:
            self.problems.append(str(problem))
        server.remove()

    def stop(self):
        for server in self.servers.values():
            self.end(server)
        assert not self.problems, "\n".join(self.problems)


@pytest.fixture(scope="session")
def pool():
    pool = Pool()
    yield pool
    pool.stop()


def lend(server):
    """A shared server for one test; it must survive the test."""
    current_servers.append(server)
    try:
        yield server
        assert server.running(), f"the server died:\n{server.tail()}"
    finally:
        current_servers.remove(server)


@pytest.fixture
def server(pool):
    yield from lend(pool.get())


# Shards mean nothing to the reference.
@pytest.fixture(params=[2] if REFERENCE else [1, 2], ids=lambda shards: f"shards{shards}")
def routed(request, pool):
    yield from lend(pool.get(shards=request.param))


@pytest.fixture
def shared(pool):
    """shared({settings}): a server with these settings that later tests may meet again."""
    with contextlib.ExitStack() as stack:
        yield lambda settings: stack.enter_context(contextlib.contextmanager(lend)(pool.get(settings)))


@pytest.fixture
def launch():
    """launch({settings}): a server of this test alone, which may end as it likes."""
    servers = []

    def start(settings=None, shards=SHARDS):
        server = Server(settings, shards)
        servers.append(server)
        current_servers.append(server)
        return server.start()

    yield start
    problems = []
    for server in servers:
        current_servers.remove(server)
        try:
            server.stop()
        except AssertionError as problem:
            problems.append(str(problem))
        server.remove()
    assert not problems, "\n".join(problems)


@pytest.fixture
def dial():
    """dial(server): a connection that has read INFO. dial.quiet(server, …): logged in, too."""
    wires = []

    def open_wire(server, **how):
        wire = Wire(server.address, **how)
        wires.append(wire)
        return wire

    def quiet(server, **options):
        return open_wire(server).connect(**options)

    open_wire.quiet = quiet
    yield open_wire
    for wire in wires:
        wire.close()
