# SPDX-License-Identifier: Apache-2.0
"""Devices written with the SDK against the server itself, and the command line that talks to them."""

import json
import os
import subprocess
import time

import pytest

from hub import BUILD, Api, Hub, Program, unzstd
from servers import BINARY
from wire import PATIENCE, wait_until

HOST = BUILD / "bin" / "mir-host"
PROBE = BUILD / "tests" / "probe"
JSON, PROTOBUF = 2, 1
ERROR, SUCCESS = 3, 4

pytestmark = pytest.mark.alone("it knows no devices")


class Client(Hub):
    """A client of a server that is already there."""

    def __init__(self, port):
        self.ask_count = 0
        super().__init__(port)

    def start(self):
        self.run(self.connect())

    def close(self):
        self.run(self.client.close())
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()


@pytest.fixture(scope="module")
def api():
    return Api()


@pytest.fixture
def world(server, api, tmp_path):
    """world.start(program): its device, known to the server with its schema."""

    class World:
        url, folder = server.url, tmp_path
        client = Client(server.port)
        programs = []

        def start(self, *command, ready):
            program = Program(*command, env={"XDG_STATE_HOME": str(tmp_path / "state")})
            self.programs.append(program)
            wait_until(ready, 20 * PATIENCE)
            return program

        def ask(self, function, request, response):
            reply = self.client.request(f"client.test.{function}", request.SerializeToString(), timeout=20)
            answer = response.FromString(reply.data)
            assert answer.WhichOneof("response") == "ok", answer.error
            return answer.ok

        def knows(self, device, package):
            """Whether the server has the device's schema."""
            request = api.ListDeviceRequest()
            request.targets.ids.append(device)
            found = self.ask("core.v1alpha.list", request, api.ListDeviceResponse).devices
            return [twin for twin in found if package in twin.status.schema.package_names]

        def command(self, device, name, payload="{}", timeout=0):
            request = api.SendCommandRequest(name=name, payload=payload.encode(), payload_encoding=JSON,
                                             timeout_sec=timeout)
            request.targets.ids.append(device)
            responses = self.ask("cmd.v1alpha.send", request, api.SendCommandResponse).device_responses
            assert len(responses) == 1
            return next(iter(responses.values()))

        def mir(self, *arguments, expect=0, input=""):
            done = subprocess.run([BINARY, *arguments, "--target", self.url], input=input, capture_output=True,
                                  text=True, timeout=30 * PATIENCE, check=False,
                                  env={**os.environ, "HOME": str(tmp_path), "NO_COLOR": "1"})
            assert done.returncode == expect, done.stdout + done.stderr
            return done.stdout

    world = World()
    yield world
    for program in world.programs:
        program.close()
        assert "Sanitizer" not in program.text() and "runtime error" not in program.text(), program.text()
    world.client.close()


@pytest.fixture
def host(world, name):
    device = f"{name}-host"
    world.start(HOST, "--id", device, "--target", world.url, ready=lambda: world.knows(device, "host.v1"))
    return device


@pytest.fixture
def probe(world, name):
    device = f"{name}-probe"
    world.start(PROBE, device, world.url, world.folder / "calls", world.folder / "state",
                ready=lambda: world.knows(device, "probe.v1"))
    return device


@pytest.fixture
def name(request):
    return f"sdk{abs(hash(request.node.nodeid)) % 10**9}"


# ---- Launch ----


def test_a_launched_device_is_online_with_a_recent_heartbeat(world, host):
    def status():
        (found,) = world.knows(host, "host.v1")
        return found.status

    wait_until(lambda: status().online, 20 * PATIENCE)
    first = status().last_hearthbeat
    assert abs(time.time() - first.seconds) < 20 * PATIENCE
    # And goes on so: the next one comes by itself.
    later = wait_until(lambda: status() if status().last_hearthbeat != first else None, 20 * PATIENCE)
    assert later.online and later.last_hearthbeat.seconds > first.seconds


def test_the_server_stores_the_schema_that_the_device_has(world, api, host):
    (found,) = world.knows(host, "host.v1")
    reply = world.client.request(f"{host}.v1alpha.schema")
    schema = api.SchemaRetrieveResponse.FromString(reply.data).schema
    assert schema and unzstd(found.status.schema.compressed_schema) == schema
    assert abs(time.time() - found.status.schema.last_schema_fetch.seconds) < 60 * PATIENCE


# ---- Commands ----


def test_ping(world, host):
    answer = world.command(host, "host.v1.Ping")
    assert answer.status == SUCCESS and answer.name == "host.v1.Pong", answer.error
    pong = json.loads(answer.payload)
    assert pong["time"].endswith("Z") and pong["uptime"] > 0


def test_top_processes(world, host):
    answer = world.command(host, "host.v1.TopProcesses", '{"count": 3}')
    assert answer.status == SUCCESS and answer.name == "host.v1.Processes", answer.error
    processes = json.loads(answer.payload)
    assert len(processes["process"]) == min(3, processes["total"])
    assert all(process["pid"] > 0 for process in processes["process"])


def test_errors_of_a_device_arrive_word_by_word(world, probe):
    refused = {
        ("probe.v1.Fail", '{"text": "c3R1Y2s="}'): "device error in command handler: stuck",
        ("probe.v1.Unheard", "{}"): "device error: no handler for command probe.v1.Unheard found",
    }
    for (command, payload), text in refused.items():
        answer = world.command(probe, command, payload)
        assert answer.status == ERROR and answer.error == text


def test_void_is_a_success(world, probe):
    answer = world.command(probe, "probe.v1.Nothing")
    assert (answer.status, answer.name, answer.payload) == (SUCCESS, "mir.device.v1.Void", b"{}"), answer.error


def test_a_device_that_takes_its_time_is_given_up(world, probe):
    answer = world.command(probe, "probe.v1.Stay", '{"text": "x"}', timeout=1)
    assert answer.status == ERROR and answer.error.endswith("nats: timeout")
    assert world.command(probe, "probe.v1.Release").status == SUCCESS


# ---- The command line, as the README has it ----


def test_the_lines_about_the_host_work_as_they_are(world, host):
    assert "host.v1.Pong" in world.mir("cmd", "send", host, "-n", "ping", "-o", "json")
    assert "host.v1.Processes" in world.mir(
        "cmd", "send", host, "-n", "top_processes", "-p", '{"count": 5}', "-o", "json")
    world.mir("cfg", "send", host, "-n", "sampling", "-p", '{"intervalMs": 2000}')
    wait_until(lambda: reported(world, host) == {"intervalMs": 2000}, 20 * PATIENCE)


# ---- Properties ----


def twin(world, device):
    return json.loads(world.mir("device", "list", "--id", device, "-o", "json"))


def reported(world, device):
    listed = twin(world, device)
    listed = listed[0] if isinstance(listed, list) else listed
    return listed["properties"].get("reported", {}).get("host.v1.Sampling")


def test_the_sampling_of_a_new_host_is_its_own(world, host):
    wait_until(lambda: reported(world, host) == {"intervalMs": 1000}, 20 * PATIENCE)


def test_a_sampling_out_of_range_is_reported_as_what_is_in_force(world, host):
    for wanted, told in ((1, 100), (4_000_000_000, 3_600_000)):
        world.mir("cfg", "send", host, "-n", "sampling", "-p", json.dumps({"intervalMs": wanted}))
        wait_until(lambda told=told: reported(world, host) == {"intervalMs": told}, 20 * PATIENCE)
