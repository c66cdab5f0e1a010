# SPDX-License-Identifier: Apache-2.0
import itertools
import subprocess

import pytest
from bus import PUMP, Bus, Device, Loop, schema_of


@pytest.fixture(scope="session")
def loop():
    loop = Loop()
    yield loop
    loop.stop()


@pytest.fixture
def connect(loop):
    """connect(server): a Bus. connect.device(server, id, …): a Device."""
    connections = []

    def bus(server):
        connections.append(Bus(loop, server))
        return connections[-1]

    def device(server, *args, **kwargs):
        connections.append(Device(loop, server, *args, **kwargs))
        return connections[-1]

    bus.device = device
    yield bus
    for connection in connections:
        connection.close()


@pytest.fixture
def bus(server, connect):
    return connect(server)


serial = itertools.count(1)


@pytest.fixture
def name():
    """A prefix that no other test of this run uses: servers are shared."""
    return f"t{next(serial)}"


@pytest.fixture(scope="session")
def pump():
    return schema_of(PUMP, "pump.proto")


@pytest.fixture
def run_peer(tmp_path):
    """Starts another server, which ends with the test."""
    running = []

    def run(*command):
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, cwd=tmp_path)
        running.append(process)
        return process

    yield run
    for process in running:
        process.kill()
        process.wait()
