# SPDX-License-Identifier: Apache-2.0
"""Commands that wait for an absent device: kept, delivered once and in order, and told about."""

import os
import random
import signal
import threading

import nats.errors
import pytest
from bus import DEADLINE_S, Bus, Refused, api, schema_of
from test_command import ERROR, JSON, SUCCESS, VALVE, Kinds, Obedient, send

from wire import Wire, wait_until

pytestmark = pytest.mark.alone("it queues no commands")

QUEUED_STATUS = 1000
QUEUED, SENT, DONE, FAILED, EXPIRED, CANCELLED = 1, 2, 3, 4, 5, 6


@pytest.fixture(scope="module")
def schema():
    return schema_of(VALVE, "valve.proto")


@pytest.fixture(scope="module")
def valve(schema):
    return Kinds(schema, "valve.v1")


class Field:
    """One device that comes and goes."""

    def __init__(self, loop, server, bus, device, schema, valve):
        self.loop, self.server, self.bus, self.id, self.schema, self.valve = loop, server, bus, device, schema, valve
        self.device, self.ran = None, []
        bus.create(device, namespace="plant")
        self.come()
        wait_until(lambda: bus.device(device).status.schema.package_names, DEADLINE_S, "the schema is stored")

    def come(self, answers=True):
        def open_valve(body):
            self.ran.append(self.valve.Open.FromString(body).percent)
            return ("valve.v1.Position", b"") if answers else None

        # What waits for it may come as soon as it subscribes.
        self.device = Obedient(self.loop, self.server, self.id, self.schema, on={"valve.v1.Open": open_valve})
        self.device.hello(self.id, self.schema)
        return self.device

    def go(self):
        self.device.close()
        self.device = None
        # What is sent to a connection that is just being closed has been sent, as far as anybody knows.
        wait_until(self.is_away, DEADLINE_S, "the server knows that it is gone")

    def is_away(self):
        try:
            self.loop.run(self.bus.client.request(f"{self.id}.v1alpha.schema", timeout=1))
        except nats.errors.NoRespondersError:
            return True
        except nats.errors.TimeoutError:
            pass
        return False

    def queue(self, percent=1, raw=None, **fields):
        payload = {"percent": percent} if raw is None else raw
        entries, _ = send(self.bus, self.id, payload=payload, queue=True, **fields)
        return entries[f"{self.id}/plant"]

    def listed(self, **fields):
        return list(self.bus.ask("cmd.queue", targets={"ids": [self.id]}, **fields).commands)

    def states(self):
        return [command.state for command in self.listed()][::-1]

    def await_states(self, *wanted):
        wait_until(lambda: self.states() == list(wanted), DEADLINE_S, f"states {wanted}, not {self.states()}")

    def stored_reasons(self):
        events = self.bus.ask("evt.list", target={"device_ids": [self.id]}).events
        return [e.spec.reason for e in events if "Command" in e.spec.reason][::-1]

    def close(self):
        if self.device is not None:
            self.device.close()


@pytest.fixture
def field(loop, server, bus, name, schema, valve):
    made = Field(loop, server, bus, name, schema, valve)
    yield made
    made.close()


def test_a_command_for_an_absent_device_is_delivered_once_when_it_returns(field):
    field.go()
    entry = field.queue(7)
    assert (entry.status, entry.error) == (QUEUED_STATUS, "") and entry.command_id
    (command,) = field.listed()
    assert (command.id, command.name, command.state) == (entry.command_id, "valve.v1.Open", QUEUED)
    assert command.payload_json == '{"percent":7}' and command.device.device_id == field.id
    assert command.actor == "anonymous" and command.expires_at.seconds
    events = field.bus.ask("evt.list", target={"device_ids": [field.id], "reasons": ["CommandQueued"]}).events
    assert [event.spec.audit.actor for event in events] == ["anonymous"]
    device = field.come()
    field.await_states(DONE)
    assert field.ran == [7]
    ((_, _, headers),) = device.ran
    assert headers["mir-command-id"] == entry.command_id and headers["mir-msg"] == "valve.v1.Open"
    (command,) = field.listed()
    assert [step.state for step in command.steps] == [QUEUED, SENT, DONE]
    assert all(step.at.seconds for step in command.steps)
    assert command.response_name == "valve.v1.Position" and command.response_json == "{}"
    # What it came to is still the doing of whoever queued it.
    (event,) = field.bus.ask("evt.list", target={"device_ids": [field.id], "reasons": ["DeviceCommand"]}).events
    assert (event.spec.audit.actor, event.spec.audit.address) == ("anonymous", "127.0.0.1")
    device.heartbeat(field.id)
    field.bus.settle()
    assert field.ran == [7]


def test_a_command_for_a_present_device_is_answered_at_once(field):
    entry = field.queue(9)
    assert (entry.status, entry.name, entry.payload) == (SUCCESS, "valve.v1.Position", b"{}")
    assert entry.command_id and field.ran == [9]
    field.await_states(DONE)


def test_commands_are_delivered_in_the_order_of_queueing(field):
    field.go()
    for percent in range(1, 21):
        assert field.queue(percent).status == QUEUED_STATUS
    field.come()
    field.await_states(*[DONE] * 20)
    assert field.ran == list(range(1, 21))


def test_without_queue_nothing_is_kept(field):
    field.go()
    wait_until(lambda: send(field.bus, field.id)[0][f"{field.id}/plant"].status == ERROR, DEADLINE_S, "it is away")
    field.come()
    field.bus.settle()
    assert field.ran == [] and field.listed() == []


def test_a_command_expires(field):
    field.go()
    field.queue(1, ttl_sec=1)
    field.await_states(EXPIRED)
    field.come()
    field.bus.settle()
    assert field.ran == []
    assert field.stored_reasons() == ["CommandQueued", "CommandExpired"]
    (event,) = field.bus.events(field.id, "commandexpired", "cmd")
    assert event.spec.type == "warning" and event.payload["command_id"] == field.listed()[0].id


def test_a_command_is_cancelled_before_it_is_sent(field):
    field.go()
    ids = [field.queue(percent).command_id for percent in (1, 2, 3)]
    gone = field.bus.ask("cmd.cancel", command_ids=[ids[1]]).commands
    assert [command.id for command in gone] == [ids[1]] and gone[0].state == CANCELLED
    assert list(field.bus.ask("cmd.cancel", command_ids=[ids[1]]).commands) == []
    field.come()
    field.await_states(DONE, CANCELLED, DONE)
    assert field.ran == [1, 3]
    assert list(field.bus.ask("cmd.cancel", targets={"ids": [field.id]}).commands) == []
    assert "CommandCancelled" in field.stored_reasons()
    with pytest.raises(Refused, match="No device target and no command id"):
        field.bus.ask("cmd.cancel")


def test_the_error_of_the_device_is_the_outcome(field):
    field.go()
    field.queue(1)
    stuck = {"valve.v1.Open": lambda body: "device error in command handler: it is stuck"}
    field.device = Obedient(field.loop, field.server, field.id, field.schema, on=stuck)
    field.device.heartbeat(field.id)
    field.await_states(FAILED)
    assert field.listed()[0].error == "device error in command handler: it is stuck"
    assert field.stored_reasons() == ["CommandQueued", "DeviceCommand"]


def test_a_device_that_does_not_answer_is_not_asked_again(field):
    field.go()
    field.queue(1, timeout_sec=1)
    field.come(answers=False)
    field.await_states(FAILED)
    assert "not known" in field.listed()[0].error
    field.device.heartbeat(field.id)
    field.bus.settle()
    assert field.ran == [1]


def test_a_monitor_is_no_device(field, connect, server):
    """Somebody who hears everything takes no command from its device."""
    heard = []
    monitor = connect.device(server, "monitor")

    async def hear(message):
        heard.append(message.subject)

    field.go()
    wait_until(lambda: send(field.bus, field.id)[0][f"{field.id}/plant"].status == ERROR, DEADLINE_S, "it is away")
    field.bus.ask("core.update", targets={"ids": [field.id]}, status={"online": False})
    monitor.subscribe(">", hear)
    assert field.queue(1).status == QUEUED_STATUS
    assert not any(subject.endswith("v1alpha.command") for subject in heard)
    field.come()
    field.await_states(DONE)
    assert field.ran == [1]


def test_an_answer_whose_type_is_no_text_harms_nobody(field, name):
    """A header may have any bytes; what is stored and answered is text."""
    field.go()
    field.queue(1)
    bad = b"NATS/1.0\r\nmir-msg: a\xff\xfe\r\n\r\n"
    with Wire(field.server.address).connect() as wire:
        wire.sub(f"{field.id}.>", 1).settle()
        field.bus.heartbeat(field.id)
        while True:
            message = wire.msg()
            if message.subject.endswith(b".command"):
                break
        wire.send(b"HPUB %s %d %d\r\n%s\r\n" % (message.reply, len(bad), len(bad), bad)).settle()
        field.await_states(DONE)
    assert field.listed()[0].response_name == ""
    field.come()
    assert field.queue(2).status == SUCCESS


def test_the_event_of_a_long_error_is_stored(field):
    """However long an error is and wherever it is cut."""
    for error in ("a" + "\u00e9" * 400, "\u00e9" * 400, "a" + "\u20ac" * 900):
        text = error.encode()
        size = bytes([len(text) & 0x7F | 0x80, len(text) >> 7])
        answer = ("mir.device.v1.Error", b"\x0a" + size + text)
        field.device.on["valve.v1.Open"] = lambda body, answer=answer: answer
        entry = send(field.bus, field.id)[0][f"{field.id}/plant"]
        assert (entry.status, entry.error) == (ERROR, error)
        assert field.queue(1).error == error
    wait_until(lambda: len(field.stored_reasons()) == 9, DEADLINE_S, "all events are stored")
    told = field.bus.events(field.id, "devicecommand", "cmd")
    assert len(told) == 6 and all(event.spec.message.startswith("Device command failed: ") for event in told)


def test_a_command_that_was_cancelled_is_no_success(field):
    """It waits behind one that is with the device; then the device is deleted."""
    field.go()
    field.come(answers=False)
    reply = field.bus.answer_name()
    fields = {"targets": {"ids": [field.id]}, "name": "valve.v1.Open", "payload": b"{}", "payload_encoding": 2}
    body = api.SendCommandRequest(queue=True, timeout_sec=2, **fields).SerializeToString()
    field.bus.send("cmd.send", body, reply)
    wait_until(lambda: field.ran, DEADLINE_S, "the first one is with the device")
    assert field.queue(2).status == QUEUED_STATUS
    field.bus.ask("core.delete", targets={"ids": [field.id]})
    wait_until(
        lambda: [c.state for c in field.bus.ask("cmd.queue").commands if c.device.device_id == field.id]
        == [CANCELLED, FAILED],
        DEADLINE_S,
        "both have an outcome",
    )


def test_the_bounds_of_a_request(field):
    field.go()
    with pytest.raises(Refused, match="use at most 10000"):
        field.bus.ask("cmd.queue", command_ids=["x"] * 10001)
    with pytest.raises(Refused, match="No command name provided"):
        field.queue(1, name="{x", no_validation=True, payload_encoding=1)
    big = b"\x0a" + b"\x80\x80\x12" + b"x" * (18 << 14)
    entry = field.queue(1, payload_encoding=1, no_validation=True, raw=big)
    assert entry.status == ERROR and "262144" in entry.error
    assert field.listed() == []


def test_events_of_queued_commands_are_heard_in_the_order_of_the_commits(field, connect, server):
    other = connect(server)
    commands = api.SendCommandRequest(
        targets={"ids": [field.id]},
        name="valve.v1.Open",
        payload=b'{"percent": 5}',
        payload_encoding=JSON,
        queue=True,
    ).SerializeToString()
    for turn in range(100):
        changed = api.UpdateDeviceRequest(targets={"ids": [field.id]})
        changed.meta.labels["turn"].value = f"{turn}"
        answers = [(who, who.answer_name()) for who in (field.bus, other, field.bus)]
        field.bus.send("cmd.send", commands, answers[0][1])
        other.send("core.update", changed.SerializeToString(), answers[1][1])
        field.bus.send("cmd.send", commands, answers[2][1])
        for place, (who, answer) in enumerate(answers):
            before, _ = who.answer(answer)
            queued = [m for m in who.heard[:before] if m.subject.endswith(f"{field.id}.cmd.v1alpha.commandqueued")]
            assert place == 1 or len(queued) > 2 * turn, "an answer came before its event"
    for who in (field.bus, other):
        wait_until(lambda: len(who.events(field.id, "devicecommand", module="cmd")) == 200, DEADLINE_S, "all events")
        heard = [m for m in who.heard if m.subject.startswith(f"event.{field.id}.")]
        numbers = [int(message.headers["mir-event-sequence"]) for message in heard]
        assert len(numbers) >= 500
        assert numbers == sorted(numbers)


def test_lists_are_narrowed(field):
    field.go()
    ids = [field.queue(percent).command_id for percent in (1, 2, 3)]
    field.bus.ask("cmd.cancel", command_ids=[ids[0]])
    assert [c.id for c in field.listed(states=[QUEUED])] == [ids[2], ids[1]]
    assert [c.id for c in field.listed(limit=1)] == [ids[2]]
    assert [c.id for c in field.listed(command_ids=[ids[0]])] == [ids[0]]
    assert list(field.bus.ask("cmd.queue", targets={"ids": ["nobody"]}).commands) == []


def test_a_deleted_device_gets_nothing_that_its_predecessor_was_sent(field):
    field.go()
    field.queue(1)
    field.bus.ask("core.delete", targets={"ids": [field.id]})
    field.bus.create(field.id, namespace="plant")
    field.come()
    field.await_states(CANCELLED)
    assert field.ran == [] and "deleted" in field.listed()[0].error


def test_a_queue_has_a_bound(field):
    field.go()
    fields = {"targets": {"ids": [field.id]}, "name": "valve.v1.Open", "payload": b"{}", "payload_encoding": 2}
    body = api.SendCommandRequest(queue=True, **fields).SerializeToString()
    # All at once: one after the other they would take as long as a thousand commits.
    replies = [field.bus.answer_name() for _ in range(1000)]
    for reply in replies:
        field.bus.send("cmd.send", body, reply)
    for reply in replies:
        answer = api.SendCommandResponse.FromString(field.bus.answer(reply)[1].data)
        assert answer.ok.device_responses[f"{field.id}/plant"].status == QUEUED_STATUS
    entry = field.queue()
    assert entry.status == ERROR and "too many commands wait already" in entry.error
    assert len(field.bus.ask("cmd.cancel", targets={"ids": [field.id]}).commands) == 1000


def test_a_time_to_live_has_a_bound(field):
    with pytest.raises(Refused, match="a year"):
        field.queue(1, ttl_sec=366 * 24 * 3600)


def test_queued_commands_outlive_kills_and_run_once(launch, loop, schema, valve, name):
    """The server is killed while commands are queued and the device comes and goes: what was
    acknowledged is there, each runs at most once and in order, and each has an outcome."""
    server = launch()
    noise = random.Random(7)
    bus = Bus(loop, server)
    field = Field(loop, server, bus, name, schema, valve)
    field.go()
    percent, acknowledged = 0, {}
    for _turn in range(5):
        stop = threading.Event()
        first = percent

        def queue(bus=bus, field=field, stop=stop):
            nonlocal percent
            while not stop.is_set():
                percent += 1
                try:
                    entry = field.queue(percent)
                except Exception:
                    return
                if entry.command_id:
                    acknowledged[percent] = entry.command_id

        thread = threading.Thread(target=queue)
        thread.start()
        wait_until(lambda first=first: percent > first + 5, DEADLINE_S, "commands are queued")
        if noise.random() < 0.7:
            field.come()
        wait_until(lambda first=first: percent > first + 15, DEADLINE_S, "more of them")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        stop.set()
        bus.give_up()
        thread.join(2 * DEADLINE_S)
        field.close()
        bus.close()
        server.start()
        bus = field.bus = Bus(loop, server)
    field.come()
    wait_until(lambda: all(s not in (QUEUED, SENT) for s in field.states()), 3 * DEADLINE_S, "all have an outcome")
    commands = {command.id: command for command in field.listed()}
    assert set(acknowledged.values()) <= set(commands)
    assert len(field.ran) == len(set(field.ran)) and field.ran == sorted(field.ran)
    done = [p for p, command_id in acknowledged.items() if commands[command_id].state == DONE]
    assert set(done) <= set(field.ran)
    for command in commands.values():
        assert command.state == DONE or "not known" in command.error
    assert bus.ask("evt.verify").intact
    field.close()
    bus.close()
