# SPDX-License-Identifier: Apache-2.0
"""Modules: programs beside the server that hear devices, clients and events, and speak to them."""

import pytest
from bus import DEADLINE_S, Connection, Device, api, subject_of, unzstd

from wire import wait_until

SHARED = 100  # messages among the members of a group: that one of them gets none does not happen


class Module(Connection):
    """Hears subjects, alone or as a member of a group, and answers what it is asked."""

    def __init__(self, loop, server):
        super().__init__(loop, server)
        self.heard = []

    def hear(self, subject, queue="", answer=None):
        async def on_message(message):
            self.heard.append(message)
            if answer is not None:
                await message.respond(answer(message))

        self.loop.run(self.client.subscribe(subject, queue=queue, cb=on_message))
        self.flush()
        return self

    def subjects(self):
        return [message.subject for message in self.heard]

    def request(self, subject, body=b"", headers=None):
        return self.loop.run(self.client.request(subject, body, timeout=DEADLINE_S, headers=headers))


@pytest.fixture
def module(loop, server):
    """module(): another program at the server."""
    modules = []

    def make(kind=Module, *args, **how):
        modules.append(kind(loop, server, *args, **how))
        return modules[-1]

    yield make
    for made in modules:
        made.close()


def await_messages(what, count, *modules):
    wait_until(lambda: sum(len(made.heard) for made in modules) >= count, DEADLINE_S, what)
    for made in modules:
        made.flush()
    assert sum(len(made.heard) for made in modules) == count


# --- devices


@pytest.mark.parametrize("family", ["device", "client"])
def test_custom_subjects_reach_who_hears_them(module, name, family):
    """With more tokens than the server's own, and with as many."""
    listener, speaker = module(), module()
    listener.hear(f"{family}.*.metering.v2.total").hear(f"{family}.*.metering.v2.total.daily")
    headers = {"mir-msg": "metering.v2.Total", "mir-trigger-chain": "speaker-1234567"}
    speaker.publish(f"{family}.{name}.metering.v2.total", b"\x00raw\xff", headers=headers)
    speaker.publish(f"{family}.{name}.metering.v2.total.daily", b'{"kwh": 3}')
    speaker.publish(f"{family}.{name}.metering.v2.other", b"no")
    speaker.publish(f"{family}.{name}.metering.v2.total.daily.more", b"no")
    speaker.flush()
    await_messages("both", 2, listener)
    assert sorted((m.subject, m.data, m.headers) for m in listener.heard) == [
        (f"{family}.{name}.metering.v2.total", b"\x00raw\xff", headers),
        (f"{family}.{name}.metering.v2.total.daily", b'{"kwh": 3}', None),
    ]


@pytest.mark.parametrize("family", ["device", "client"])
def test_members_of_a_group_share_custom_messages(module, name, family):
    members, alone, speaker = [module(), module()], module(), module()
    for member in members:
        member.hear(f"{family}.*.metering.v2.count", queue="counters")
    alone.hear(f"{family}.*.metering.v2.count")
    for n in range(SHARED):
        speaker.publish(f"{family}.{name}.metering.v2.count", str(n).encode())
    speaker.flush()
    await_messages("all, once", SHARED, *members)
    await_messages("all", SHARED, alone)
    assert all(member.heard for member in members)
    assert sorted(int(m.data) for member in members for m in member.heard) == list(range(SHARED))
    assert [int(m.data) for m in alone.heard] == list(range(SHARED))


@pytest.mark.alone("it knows no devices")
def test_a_module_hears_the_heartbeats_and_hellos_of_one_device(module, bus, name, pump):
    listener = module().hear(f"device.{name}.core.v1alpha.hearthbeat")
    bus.heartbeat(f"{name}-other")
    bus.heartbeat(name)
    bus.hello(name, pump)
    await_messages("both", 2, listener)
    beat, hello = listener.heard
    assert (beat.data, beat.headers) == (b"", None)
    assert hello.headers == {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}
    assert api.DeviceHello.FromString(unzstd(hello.data)).hello.schema == pump
    bus.await_kinds(name, "devicecreated", "deviceonline", "deviceupdated")  # the server heard them, too


@pytest.mark.alone("it knows no devices")
def test_a_module_hears_telemetry_by_its_name_and_body(module, bus, name):
    listener = module().hear("device.*.tlm.v1alpha.proto")
    bus.publish(f"device.{name}.tlm.v1alpha.proto", b"\x08\x01", headers={"mir-msg": "pump.v1.Flow"})
    bus.flush()
    await_messages("telemetry", 1, listener)
    (heard,) = listener.heard
    assert (heard.subject, heard.data) == (f"device.{name}.tlm.v1alpha.proto", b"\x08\x01")
    assert heard.headers["mir-msg"] == "pump.v1.Flow"


def test_a_module_asks_a_device_for_its_schema(module, name, pump):
    module(Device, name, schema=pump)
    answer = module().request(f"{name}.v1alpha.schema", headers={"mir-request-encoding": "mir-zstd"})
    assert answer.headers["mir-content-encoding"] == "mir-zstd"
    assert api.SchemaRetrieveResponse.FromString(unzstd(answer.data)).schema == pump


def test_a_module_commands_a_device_itself(module, name):
    device, asker = module(), module()

    async def obey(message):
        device.heard.append(message)
        await device.client.publish(message.reply, b"\x08\x28", headers={"mir-msg": "valve.v1.Position"})

    device.subscribe(f"{name}.>", obey)
    answer = asker.request(f"{name}.v1alpha.command", b"\x08\x07", headers={"mir-msg": "valve.v1.Open"})
    assert (answer.data, answer.headers) == (b"\x08\x28", {"mir-msg": "valve.v1.Position"})
    (heard,) = device.heard
    assert (heard.data, heard.headers) == (b"\x08\x07", {"mir-msg": "valve.v1.Open"})


# --- clients

RESPONSES = {
    "core.create": ("CreateDeviceResponse", lambda: {"ok": {"spec": {"device_id": "mine"}}}),
    "core.update": ("UpdateDeviceResponse", lambda: {"ok": {"devices": [{"spec": {"device_id": "mine"}}]}}),
    "core.delete": ("DeleteDeviceResponse", lambda: {"ok": {"devices": [{"spec": {"device_id": "mine"}}]}}),
    "core.list": ("ListDeviceResponse", lambda: {"ok": {"devices": [{"spec": {"device_id": "mine"}}]}}),
    "tlm.list": ("ListTelemetryResponse", lambda: {"ok": {"devices_telemetry": [{"error": "mine"}]}}),
    "cmd.list": ("SendListCommandsResponse", lambda: {"ok": {"devices_commands": [{"error": "mine"}]}}),
    "cmd.send": ("SendCommandResponse", lambda: {"error": "mine"}),
}


@pytest.mark.alone("it answers no requests")
@pytest.mark.parametrize("function", RESPONSES)
def test_a_second_responder_is_heard_beside_the_server(module, function):
    """In a group of its own it gets each request, and both answers reach who asks."""
    kind, fields = RESPONSES[function]
    mine = getattr(api, kind)(**fields()).SerializeToString()
    responder = module().hear(subject_of(function).replace("tester", "*"), queue="another", answer=lambda _: mine)
    asker = module()

    async def ask():
        inbox = asker.client.new_inbox()
        answers = await asker.client.subscribe(inbox)
        await asker.client.publish(subject_of(function), b"", reply=inbox)
        return [(await answers.next_msg(DEADLINE_S)).data for _ in range(2)]

    answers = asker.loop.run(ask())
    assert answers.count(mine) == 1 and len(responder.heard) == 1
    (own,) = [answer for answer in answers if answer != mine]
    assert getattr(api, kind).FromString(own).WhichOneof("response")


# --- events


@pytest.mark.alone("it knows no devices")
def test_groups_hear_each_event_once(module, bus, name):
    everything, created = [module(), module()], [module(), module()]
    for member in everything:
        member.hear("event.*.*.*.*", queue="auditors")
    for member in created:
        member.hear("event.*.core.v1alpha.devicecreated", queue="welcomers")
    devices = sorted(f"{name}-{n}" for n in range(SHARED))
    bus.ask("core.creates", devices=[{"spec": {"device_id": device}} for device in devices])
    bus.ask("core.delete", targets={"ids": [f"{name}-*"]})
    bus.settle()

    def heard(members, function):
        subjects = [subject for member in members for subject in member.subjects()]
        return sorted(s.split(".")[1] for s in subjects if s.startswith(f"event.{name}-") and s.endswith(function))

    wait_until(lambda: len(heard(everything, ".devicedeleted")) >= SHARED, DEADLINE_S, "all events")
    wait_until(lambda: len(heard(created, ".devicecreated")) >= SHARED, DEADLINE_S, "those of creations")
    assert heard(everything, ".devicecreated") == heard(everything, ".devicedeleted") == devices
    assert heard(created, ".devicecreated") == devices and not heard(created, ".devicedeleted")
    assert all(member.heard for member in everything + created)


@pytest.mark.alone("it keeps no events")
def test_an_event_of_a_module_reaches_other_modules_as_it_was(module, bus, name):
    listener, speaker = module().hear(f"event.*.metering.v2.{name}"), module()
    spec = {"type": "normal", "reason": "Full", "message": "it is full", "json_payload": b'{"a": 1}'}
    body = api.CreateEventRequest(spec=spec).SerializeToString()
    speaker.publish(f"event.{name}.metering.v2.{name}", body, headers={"mir-trigger-chain": "speaker-1234567"})
    speaker.flush()
    await_messages("the event", 1, listener)
    assert listener.heard[0].data == body
    assert listener.heard[0].headers["mir-trigger-chain"] == "speaker-1234567"
