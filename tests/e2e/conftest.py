# SPDX-License-Identifier: Apache-2.0
import itertools

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
