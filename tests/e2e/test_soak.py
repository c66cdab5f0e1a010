# SPDX-License-Identifier: Apache-2.0
"""Everything at once, for as long as MIR_TEST_SOAK says (seconds; a few without it): operators that come and go, devices
that answer, keep silent, answer garbage or leave. In the end nothing is left of it, and memory has stopped growing."""

import os
import random
import threading
import time

import pytest
from bus import DEADLINE_S, Bus, Refused, api, schema_of
from load import status_of
from test_command import JSON, VALVE, Obedient

from wire import Violation, Wire, wait_until

SECONDS = float(os.environ.get("MIR_TEST_SOAK", "6"))
pytestmark = [pytest.mark.alone("it has no commands"), pytest.mark.timeout(SECONDS + 240)]

DEVICES = 60


def anonymous_kib(server):
    with open(f"/proc/{server.process.pid}/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("RssAnon"))


def request_of(noise, ids):
    targets = {"ids": noise.sample(ids, noise.randint(1, len(ids)))}
    kind = noise.randrange(6)
    if kind == 0:
        return "cmd.send", api.SendCommandRequest(
            targets=targets, name="open", payload=b'{"percent": 1}', payload_encoding=JSON, timeout_sec=1, force_push=True
        )
    if kind == 1:
        return "cmd.send", api.SendCommandRequest(
            targets=targets, name="open", payload=b"{}", payload_encoding=JSON, timeout_sec=1, stream=True
        )
    if kind == 2:
        few = {"ids": targets["ids"][:3]}
        return "cmd.send", api.SendCommandRequest(
            targets=few, name="open", payload=b"{}", payload_encoding=JSON, queue=True, ttl_sec=2, timeout_sec=1
        )
    if kind == 3:
        return "evt.list", api.ListEventsRequest(target={"device_ids": targets["ids"][:2], "filter_limit": 20})
    if kind == 4:
        labels = {"turn": api.OptString(value=str(noise.random()))}
        return "core.update", api.UpdateDeviceRequest(targets={"ids": targets["ids"][:5]}, meta={"labels": labels})
    return "cmd.queue", api.ListQueuedCommandsRequest(targets={"ids": targets["ids"][:5]}, limit=10)


def operate(server, ids, seed, stop, failures):
    """One operator after the other; some leave in the middle of a request."""
    noise = random.Random(seed)
    while not stop.is_set():
        try:
            with Wire(server.address).connect() as wire:
                wire.sub("_INBOX.op", 1)
                for _ in range(noise.randint(1, 8)):
                    function, request = request_of(noise, ids)
                    module, name = function.split(".")
                    body = request.SerializeToString()
                    head = f"PUB client.op.{module}.v1alpha.{name} _INBOX.op {len(body)}\r\n".encode()
                    wire.send(head + body + b"\r\n")
                    if noise.random() < 0.2:
                        break
                    while b"mir-stream" in (wire.msg(30).head or b""):
                        pass
        except Violation as violation:
            failures.append(violation)
            return
        except OSError as error:
            failures.append(error)
            return


def test_everything_at_once_leaves_nothing_behind(launch, loop, name):
    server = launch({"presence.offline_after": "3s", "schema.request_timeout": "500ms"})
    schema = schema_of(VALVE, "valve.proto")
    ids = [f"{name}-{i}" for i in range(DEVICES)]
    bus = Bus(loop, server)
    bus.ask("core.creates", devices=[{"meta": {"namespace": "soak"}, "spec": {"device_id": device}} for device in ids])
    for device in ids:
        bus.hello(device, schema)
    wait_until(lambda: len(bus.ids(schemas=["valve.v1"])) == DEVICES, DEADLINE_S, "all schemas are known")
    bus.close()
    noise, stop, failures, devices = random.Random(1), threading.Event(), [], {}
    answers = [
        lambda body: ("mir.device.v1.Void", b""),
        lambda body: ("valve.v1.Position", b"\x08\x01"),
        lambda body: ("valve.v1.Position", noise.randbytes(noise.randrange(200))),
        lambda body: "device error in command handler: " + "é" * noise.randrange(30),
        lambda body: None,
    ]
    operators = [
        threading.Thread(target=operate, args=(server, ids, seed, stop, failures), daemon=True) for seed in range(4)
    ]
    for operator in operators:
        operator.start()
    sizes, end = [], time.monotonic() + SECONDS
    while time.monotonic() < end and not failures:
        device = noise.choice(ids)
        if device in devices and noise.random() < 0.4:
            devices.pop(device).close()
        elif device not in devices and len(devices) < DEVICES // 2:
            devices[device] = Obedient(loop, server, device, schema, on={"valve.v1.Open": noise.choice(answers)})
        elif device in devices:
            devices[device].heartbeat(device)
        sizes.append(anonymous_kib(server))
    stop.set()
    for operator in operators:
        operator.join(4 * DEADLINE_S)
    for device in devices.values():
        device.close()
    assert failures == []
    bus = Bus(loop, server)
    # What is queued expires; nothing is under way any more.
    states = {1, 2}
    wait_until(
        lambda: all(c.state not in states for c in bus.ask("cmd.queue", limit=2000).commands), 3 * DEADLINE_S, "an outcome"
    )
    # Computing the chain of millions of events takes its time.
    reply = bus.answer_name()
    bus.send("evt.verify", b"", reply)
    answer = wait_until(
        lambda: next((m for m in bus.heard if m.subject == reply), None), 2 * DEADLINE_S + SECONDS, "the proof"
    )
    proof = api.VerifyEventsResponse.FromString(answer.data).ok
    assert proof.intact and proof.links > DEVICES
    bus.close()
    wait_until(lambda: status_of(server)["connections"] <= 1, DEADLINE_S, "all connections are gone")
    # A disk that stands still for a while makes peaks, of what waits for it; what is lost for good raises the floor.
    quarter = len(sizes) // 4
    early, late, peak = min(sizes[quarter : 2 * quarter]), min(sizes[3 * quarter :]), max(sizes)
    print(f"{SECONDS:g} s: {proof.links} events, at least {early} KiB early and {late} KiB late, at most {peak} KiB")
    if SECONDS >= 60:
        assert late < early * 1.25 + 32 * 1024
        assert peak < 512 * 1024
