# SPDX-License-Identifier: Apache-2.0
"""What the protocol says about commands, properties and the start of a device, statement by statement.

The device is `probe`: each call of a handler of it is a line of a file.
"""

import asyncio
import itertools
import random
import signal
import threading

import nats.errors
import pytest

from hub import BUILD, ZSTD, Api, Hub, Program, classes_of, unzstd
from wire import PATIENCE, let_pass, wait_until

PROBE = BUILD / "tests" / "probe"
ids = itertools.count()


@pytest.fixture(scope="module")
def api():
    return Api()


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def own_hub():
    hub = Hub()
    yield hub
    hub.close()


class Probe:
    def __init__(self, hub, api, name, calls, state, reply):
        self.hub, self.api, self.id, self.file, self.state = hub, api, name, calls, state
        self.request_subject = f"device.{name}.cfg.v1alpha.desiredproperties"
        hub.answers[self.request_subject] = reply
        self.programs = []
        self.start()
        set_bytes = api.DeviceHello.FromString(unzstd(hub.wait(self.beat)[0].data)).hello.schema
        self.classes = classes_of(set_bytes)

    @property
    def beat(self):
        return f"device.{self.id}.core.v1alpha.hearthbeat"

    def start(self):
        state = [self.state] if self.state else []
        self.programs.append(Program(PROBE, self.id, self.hub.url, self.file, *state))
        self.program = self.programs[-1]

    def restart(self, number=signal.SIGKILL):
        self.stop(number)
        self.start()
        self.reachable()

    def stop(self, number=signal.SIGKILL):
        self.program.process.send_signal(number)
        self.program.process.wait(20 * PATIENCE)

    def reachable(self):
        """The subscription is there: a schema request is answered."""
        def answered():
            try:
                return self.hub.request(f"{self.id}.v1alpha.schema", timeout=0.2)
            except (nats.errors.NoRespondersError, nats.errors.TimeoutError):
                return None
        wait_until(answered, 20 * PATIENCE)

    def kind(self, name):
        return self.classes[f"probe.v1.{name}"]

    def calls(self, *who):
        lines = self.file.read_text().splitlines() if self.file.exists() else []
        return [line for line in lines if not who or line.split(" ")[0] in who]

    def wait_calls(self, count, *who):
        wait_until(lambda: len(self.calls(*who)) >= count, 10 * PATIENCE)
        return self.calls(*who)

    def command(self, kind, id=None, data=None, headers=None, timeout=5, **fields):
        headers = dict(headers or {})
        headers.setdefault("mir_msg", f"probe.v1.{kind}")
        if id is not None:
            headers["mir_command_id"] = id
        if data is None:
            data = self.kind(kind)(**fields).SerializeToString()
        return self.hub.request(f"{self.id}.v1alpha.command", data, timeout=timeout, **headers)

    def error(self, reply):
        assert reply.headers == {"mir-msg": "mir.device.v1.Error"}
        return self.classes["mir.device.v1.Error"].FromString(reply.data).message

    def push(self, kind, time, data=None, **fields):
        headers = {"mir_msg": f"probe.v1.{kind}"}
        if time is not None:
            headers["mir_time"] = time
        self.hub.publish(f"{self.id}.v1alpha.config",
                         self.kind(kind)(**fields).SerializeToString() if data is None else data, **headers)

    def settled(self):
        """What was sent before has been seen: all of it comes through one subscription, and a property
        handler's turn comes after those before it."""
        mark = f"mark-{next(ids)}"
        self.push("Mode", f"9000-01-01T00:00:00.{next(marks):09d}Z", text=mark)
        wait_until(lambda: f"second {mark}" in self.calls(), 10 * PATIENCE)
        return [line for line in self.calls() if "mark-" not in line]

    def close(self):
        for program in self.programs:
            program.close()
            assert "Sanitizer" not in program.text() and "runtime error" not in program.text(), program.text()


marks = itertools.count(1)


def desired(api, **properties):
    """A desired-properties reply: name=(time, message)."""
    response = api.DeviceReportedPropertiesResponse()
    response.ok.SetInParent()
    response.ok.encoding = 1
    for name, (time, data) in properties.items():
        response.ok.properties[f"probe.v1.{name}"].time = time
        response.ok.properties[f"probe.v1.{name}"].property = data
    return lambda _: response.SerializeToString()


def text(value):
    """A serialized message whose field 1 is this text."""
    return b"\x0a" + bytes([len(value)]) + value.encode()


@pytest.fixture
def probe(hub, api, tmp_path):
    probes = []

    def start(reply=None, at=hub, state=None, launched=False):
        name = f"probe-{next(ids)}"
        probe = Probe(at, api, name, tmp_path / name, state, reply or desired(api))
        probes.append(probe)
        if launched:
            at.wait(probe.request_subject)
            probe.settled()
        return probe

    yield start
    for probe in probes:
        probe.close()


# ---- Commands ----


def test_a_type_that_the_schema_lacks_is_looked_for_in_vain(probe):
    device = probe()
    for name in ("no.v1.Such", "probe.v1", ".", ".probe.v1.Echo", "probe.v1.echo", "é" * 300):
        reply = device.command("Echo", headers={"mir_msg": name}, data=b"")
        assert device.error(reply).startswith("device error while looking for command descriptor: ")


def test_a_command_without_a_name_is_refused(probe):
    device = probe()
    reply = device.hub.request(f"{device.id}.v1alpha.command", b"")
    assert device.error(reply).startswith("device error while looking for command descriptor: ")


def test_a_type_without_a_handler_is_refused(probe):
    device = probe()
    assert device.error(device.command("Unheard")) == "device error: no handler for command probe.v1.Unheard found"


def test_bytes_that_are_not_the_message_are_refused(probe):
    device = probe()
    for data in (b"\x0a\xff", b"\x0a\x05abc", b"\xff" * 20, b"\x0b"):
        error = device.error(device.command("Echo", data=data))
        assert error.startswith("device error while unmarshalling command payload: ")
    assert not device.calls("echo")


def test_the_text_of_a_handler_is_the_error(probe):
    device = probe()
    assert device.error(device.command("Fail", text=b"the valve is stuck")) == (
        "device error in command handler: the valve is stuck")


def test_a_handler_that_fails_without_a_text_is_an_error_all_the_same(probe):
    device = probe()
    error = device.error(device.command("Fail"))
    assert error.startswith("device error in command handler: ") and len(error) > len("device error in command handler: ")


@pytest.mark.parametrize("words", [b"caf\xe9", "é".encode() * 400, b"x" + "é".encode() * 400, b"\xed\xa0\x80", b"\xf8"],
                         ids=["latin1", "cut", "cut-odd", "surrogate", "five"])
def test_an_error_can_be_read_whatever_its_text(probe, words):
    device = probe()
    assert device.error(device.command("Fail", text=words)).startswith("device error in command handler: ")


def test_errors_are_never_compressed(probe):
    device = probe()
    zstd = {"mir_request_encoding": ZSTD}
    assert device.error(device.command("Fail", headers=zstd, text=b"no"))
    assert device.error(device.command("Unheard", headers=zstd))


def test_a_handler_that_answers_nothing_answers_void(probe):
    device = probe()
    for headers in ({}, {"mir_request_encoding": ZSTD}):
        reply = device.command("Nothing", headers=headers)
        assert reply.headers == {"mir-msg": "mir.device.v1.Void"} and reply.data == b""


@pytest.mark.parametrize("kind", ["Echo", "EchoRaw"])
def test_a_message_is_answered_under_its_full_name(probe, kind):
    device = probe()
    reply = device.command(kind, text="hello")
    assert reply.headers == {"mir-msg": f"probe.v1.{kind}"}
    assert device.kind(kind).FromString(reply.data).text == "hello"
    reply = device.command(kind, headers={"mir_request_encoding": ZSTD}, text="hello")
    assert reply.headers == {"mir-msg": f"probe.v1.{kind}", "mir-content-encoding": ZSTD}
    assert device.kind(kind).FromString(unzstd(reply.data)).text == "hello"
    reply = device.command(kind, headers={"mir_request_encoding": "gzip"}, text="hello")
    assert reply.headers == {"mir-msg": f"probe.v1.{kind}"}


def test_the_last_registration_of_a_command_wins(probe):
    device = probe()
    device.command("Echo", text="1")
    device.command("RegisterLate")
    device.command("Echo", text="2")
    assert [line for line in device.calls() if line.startswith("echo")] == ["echo 1", "echo-late 2"]


def test_commands_are_handled_concurrently(probe):
    device = probe()
    data = device.kind("Meet")(count=4).SerializeToString()

    async def all_at_once():
        return await asyncio.gather(*(
            device.hub.client.request(f"{device.id}.v1alpha.command", data, timeout=10 * PATIENCE,
                                      headers={"mir-msg": "probe.v1.Meet"}) for _ in range(4)))

    assert all(reply.headers["mir-msg"] == "probe.v1.Meet" for reply in device.hub.run(all_at_once()))


def test_a_handler_that_blocks_holds_up_neither_others_nor_the_schema(probe):
    device = probe()
    device.hub.publish(f"{device.id}.v1alpha.command", text("x"), mir_msg="probe.v1.Stay")
    device.wait_calls(1, "stay")
    assert device.command("Echo", text="on").data
    assert device.hub.request(f"{device.id}.v1alpha.schema").data
    device.command("Release")


def test_a_command_without_a_reply_subject_runs(probe):
    device = probe()
    device.hub.publish(f"{device.id}.v1alpha.command", text("quiet"), mir_msg="probe.v1.Echo")
    assert device.wait_calls(1, "echo") == ["echo quiet"]


# ---- Properties ----


def test_the_first_value_is_accepted_whatever_its_time(probe):
    device = probe()
    device.hub.wait(device.request_subject)
    device.push("Mode", "0001-01-01T00:00:00Z", text="old")
    assert device.wait_calls(2) == ["first old", "second old"]


def test_a_value_is_accepted_only_if_its_time_is_strictly_later(probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00.5Z", text("stored"))))
    device.wait_calls(2)
    for time, value in (("2025-01-01T00:00:00.5Z", "same"), ("2025-01-01T00:00:00.499999999Z", "older"),
                        ("2025-01-01T00:00:00.500000001Z", "newer"), ("2025-01-01T01:00:00.5+01:00", "same"),
                        ("2025-01-01T00:00:00.5Z", "older"), ("2025-01-01T00:00:01Z", "newest")):
        device.push("Mode", time, text=value)
    assert device.settled() == [f"{who} {value}" for value in ("stored", "newer", "newest") for who in ("first", "second")]


def test_freshness_is_by_property(probe):
    device = probe()
    device.hub.wait(device.request_subject)
    device.push("Mode", "2025-01-02T00:00:00Z", text="later")
    device.push("Level", "2025-01-01T00:00:00Z", level=7)
    device.wait_calls(2)
    device.command("RegisterLate")
    assert device.wait_calls(1, "level") == ["level 7"]


@pytest.mark.parametrize("time", [None, "", "yesterday", "2025-13-01T00:00:00Z", "2025-01-01T00:00:00", "1735689600"])
def test_a_value_without_a_time_is_dropped(probe, time):
    device = probe()
    device.hub.wait(device.request_subject)
    device.push("Mode", time, text="dropped")
    device.push("Level", time, level=1)
    # It would be later than this one, were it taken for the time of its arrival.
    device.push("Mode", "2000-01-01T00:00:00Z", text="good")
    assert device.wait_calls(2) == ["first good", "second good"]
    device.command("RegisterLate")
    assert not [line for line in device.settled() if line.startswith("level")]


def test_a_value_is_stored_before_its_handler_is_looked_up(probe):
    device = probe(launched=True)
    device.push("Level", "2025-01-01T00:00:00Z", level=3)
    device.settled()
    device.command("RegisterLate")
    assert device.wait_calls(1, "level") == ["level 3"]


def test_a_value_without_a_handler_is_only_logged(probe):
    device = probe(launched=True)
    device.push("Level", "2025-01-01T00:00:00Z", level=3)
    device.push("Unheard", "2025-01-01T00:00:00Z")
    device.hub.publish(f"{device.id}.v1alpha.config", b"\xff", mir_msg="no.v1.Such", mir_time="2025-01-01T00:00:00Z")
    assert device.settled() == []


def test_a_value_that_is_not_of_its_type_calls_nobody(probe):
    device = probe(launched=True)
    device.push("Mode", "9000-01-01T00:00:00.999Z", data=b"\x0a\xff")
    device.push("Level", "2025-01-01T00:00:00Z", level=3)
    device.command("RegisterLate")
    device.wait_calls(1, "level")
    assert [line for line in device.calls("first", "second", "late") if "mark-" not in line] == []


def test_all_handlers_of_a_property_are_called(probe):
    device = probe(launched=True)
    device.command("RegisterLate")
    device.push("Mode", "9500-01-01T00:00:00Z", text="all")
    wait_until(lambda: sum(line.endswith(" all") for line in device.calls()) == 3, 10 * PATIENCE)
    assert {line for line in device.calls() if line.endswith(" all")} == {"first all", "second all", "late all"}


def test_handlers_are_called_once_at_launch_with_the_stored_value(probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00Z", text("stored"))))
    device.wait_calls(2)
    assert device.settled() == ["first stored", "second stored"]


def test_what_came_before_the_launch_was_through_is_delivered_once_and_newest(hub, probe, api):
    reply = desired(api, Mode=("2025-01-01T00:00:00Z", text("stored")))
    device = probe(lambda message: None)
    hub.wait(device.request_subject)
    device.push("Mode", "2025-01-02T00:00:00Z", text="pushed")
    device.reachable()
    assert device.calls() == []
    request = hub.sent(device.request_subject)[0]
    hub.publish(request.reply, reply(None))
    assert device.wait_calls(2) == ["first pushed", "second pushed"]
    # A second answer to the same request is nobody's.
    later = desired(api, Mode=("2026-01-01T00:00:00Z", text("late")))
    hub.publish(request.reply, later(None))
    assert device.settled() == ["first pushed", "second pushed"]


def test_handlers_of_what_nobody_desires_are_not_called(probe):
    assert probe(launched=True).settled() == []


def test_a_handler_registered_after_launch_is_called_once_with_the_stored_value(probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00Z", text("stored"))))
    device.wait_calls(2)
    device.command("RegisterLate")
    assert device.wait_calls(1, "late") == ["late stored"]
    lines = device.settled()
    assert sorted(lines) == ["first stored", "late stored", "second stored"]  # and Level's has no value


def test_a_handler_registered_while_values_wait_sees_each_once(probe):
    device = probe()
    device.hub.wait(device.request_subject)
    device.push("Mode", "2025-01-01T00:00:00Z", text="stay")
    device.wait_calls(1, "first")
    device.push("Level", "2025-01-01T00:00:00Z", level=7)
    device.reachable()  # so both have been accepted, and the second waits for its turn
    device.command("RegisterLate")
    device.command("Release")
    assert device.settled() == ["first stay", "second stay", "late stay", "level 7"]


def test_after_a_reconnection_handlers_are_called_with_stored_values(own_hub, probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00Z", text("stored"))), at=own_hub)
    device.wait_calls(2)
    device.push("Mode", "2025-01-03T00:00:00Z", text="pushed")
    device.wait_calls(4)
    own_hub.stop()
    own_hub.messages.clear()
    own_hub.start()
    own_hub.wait(device.request_subject, timeout=20)
    # The answer is older than what is known, and calls nobody by itself.
    assert device.wait_calls(6)[4:] == ["first pushed", "second pushed"]
    assert not any(beat.headers for beat in own_hub.sent(device.beat))
    device.push("Mode", "2025-01-04T00:00:00Z", text="again")
    assert device.wait_calls(8)[6:] == ["first again", "second again"]
    assert len(own_hub.sent(device.request_subject)) == 1


def test_an_answer_after_a_reconnection_is_stored_by_the_same_rule(own_hub, probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00Z", text("stored"))), at=own_hub)
    device.wait_calls(2)
    own_hub.answers[device.request_subject] = desired(api, Mode=("2025-02-01T00:00:00Z", text("newer")))
    own_hub.stop()
    own_hub.start()
    assert device.wait_calls(4)[2:] == ["first newer", "second newer"]


def test_an_error_after_a_reconnection_leaves_the_local_copy(own_hub, probe, api):
    device = probe(desired(api, Mode=("2025-01-01T00:00:00Z", text("stored"))), at=own_hub)
    device.wait_calls(2)
    for error in ("no device found with current targets criteria", "cannot reconcile device schema: x", None):
        response = api.DeviceReportedPropertiesResponse()
        response.error = error or ""
        data = b"\xff\xff" if error is None else response.SerializeToString()
        own_hub.answers[device.request_subject] = lambda _, data=data: data
        count = len(device.calls())
        own_hub.stop()
        own_hub.start()
        assert device.wait_calls(count + 2)[count:] == ["first stored", "second stored"]


def test_a_device_that_is_not_known_yet_gets_its_properties_when_they_come(probe, api):
    response = api.DeviceReportedPropertiesResponse()
    response.error = "no device found with current targets criteria"
    device = probe(lambda _: response.SerializeToString())
    device.hub.wait(device.request_subject)
    device.push("Mode", "2025-01-01T00:00:00Z", text="come")
    assert device.wait_calls(2) == ["first come", "second come"]
    assert len(device.hub.sent(device.request_subject)) == 1


def test_reported_properties_go_out_under_their_name(probe):
    device = probe(launched=True)
    device.command("Report", level=5)
    report = device.hub.wait(f"device.{device.id}.cfg.v1alpha.proto")[0]
    assert report.headers == {"mir-msg": "probe.v1.Level"} and not report.reply
    assert device.kind("Level").FromString(report.data).level == 5


def test_a_report_carries_the_time_of_the_value_that_the_device_goes_by(probe):
    device = probe(launched=True)
    reports = f"device.{device.id}.cfg.v1alpha.proto"

    def time_of(count):
        device.command("Report", level=count)
        report = device.hub.wait(reports, count)[-1]
        assert device.kind("Level").FromString(report.data).level == count
        return report.headers.get("mir-time")

    assert time_of(1) is None  # nothing is desired
    device.push("Level", "0001-01-01T00:00:00Z", level=1)
    device.command("RegisterLate")
    device.wait_calls(1, "level")
    assert time_of(2) is None  # that is no time
    device.push("Level", "2025-01-01T00:00:00.000000001Z", level=2)
    device.wait_calls(2, "level")
    assert time_of(3) == "2025-01-01T00:00:00.000000001Z"
    device.push("Level", "2024-01-01T00:00:00Z", level=3)  # not accepted
    device.push("Level", "2025-01-02T00:00:00Z", level=4)
    device.wait_calls(3, "level")
    assert time_of(4) == "2025-01-02T00:00:00Z"


def test_a_value_that_no_handler_saw_is_none_that_the_device_goes_by(probe):
    device = probe(launched=True)
    device.push("Level", "2025-01-01T00:00:00Z", level=2)
    device.settled()
    device.command("Report", level=1)
    assert device.hub.wait(f"device.{device.id}.cfg.v1alpha.proto")[0].headers == {"mir-msg": "probe.v1.Level"}


# ---- Start ----


def test_the_subscription_is_there_before_the_hello(own_hub, api, tmp_path):
    """Whoever answers a hello with a request is heard."""
    replies = []

    async def ask(message):
        device = message.subject.split(".")[1]
        replies.append(await own_hub.client.request(f"{device}.v1alpha.schema", b"", timeout=10 * PATIENCE))

    async def listen():
        await own_hub.client.subscribe("device.*.core.v1alpha.hearthbeat", cb=ask)
        await own_hub.client.flush()

    own_hub.run(listen())
    device = Probe(own_hub, api, "early", tmp_path / "early", None, desired(api))
    try:
        wait_until(lambda: replies, 10 * PATIENCE)
    finally:
        device.close()


def test_heartbeats_go_on_while_handlers_block(probe):
    device = probe()
    for i in range(4):
        device.hub.publish(f"{device.id}.v1alpha.command", text(str(i)), mir_msg="probe.v1.Stay")
    device.wait_calls(4, "stay")
    count = len(device.hub.sent(device.beat))
    device.hub.wait(device.beat, count + 2)


# ---- Commands with an id ----


UNKNOWN = "device error: command {} was begun before and its outcome is not known"


def echo(device, reply):
    assert reply.headers == {"mir-msg": "probe.v1.Echo"}
    return device.kind("Echo").FromString(reply.data).text


def test_an_id_runs_once(probe, tmp_path):
    device = probe(state=tmp_path / "state")
    for _ in range(3):
        assert echo(device, device.command("Echo", id="a", text="1")) == "1"
    # The id counts, not what comes with it.
    assert echo(device, device.command("Echo", id="a", text="2")) == "1"
    assert echo(device, device.command("Echo", id="b", text="2")) == "2"
    assert echo(device, device.command("Echo", text="3")) == "3"
    assert echo(device, device.command("Echo", text="3")) == "3"
    assert device.calls("echo") == ["echo 1", "echo 2", "echo 3", "echo 3"]


def test_every_kind_of_answer_is_given_again(probe, tmp_path):
    device = probe(state=tmp_path / "state")
    for again in range(2):
        assert device.error(device.command("Fail", id="f", text=b"stuck")) == "device error in command handler: stuck"
        reply = device.command("Nothing", id="n")
        assert reply.headers == {"mir-msg": "mir.device.v1.Void"} and reply.data == b""
        reply = device.command("EchoRaw", id="z", headers={"mir_request_encoding": ZSTD}, text="x" * 50)
        assert device.kind("EchoRaw").FromString(unzstd(reply.data)).text == "x" * 50
        reply = device.command("EchoRaw", id="z", text="x" * 50)
        assert device.kind("EchoRaw").FromString(reply.data).text == "x" * 50
        if again == 0:
            device.restart()
    assert len(device.calls("nothing")) == 1 and len(device.calls("raw")) == 1


@pytest.mark.parametrize("id", ["x" * 65, "a b", "tab\there"])
def test_an_id_that_is_none_is_refused(probe, id):
    device = probe()
    assert "the id of the command is not 1 to 64 printable bytes" in device.error(device.command("Echo", id=id, text="1"))
    assert not device.calls("echo")
    assert echo(device, device.command("Echo", id="x" * 64, text="1")) == "1"


def test_who_sends_an_id_that_runs_waits_for_its_answer(probe):
    device = probe()
    replies = []

    def send():
        replies.append(device.command("Stay", id="s", timeout=20, text="1"))

    threads = [threading.Thread(target=send) for _ in range(3)]
    threads[0].start()
    device.wait_calls(1, "stay")
    for thread in threads[1:]:
        thread.start()
    wait_until(lambda: device.program.text().count("was here before") == 2, 10 * PATIENCE)
    device.command("Release")
    for thread in threads:
        thread.join(20 * PATIENCE)
    assert len(replies) == 3 and len({bytes(reply.data) for reply in replies}) == 1
    assert device.calls("stay") == ["stay 1"]


def test_what_a_killed_device_had_begun_is_not_run_again(probe, tmp_path):
    device = probe(state=tmp_path / "state")
    device.hub.publish(f"{device.id}.v1alpha.command", text("1"), mir_msg="probe.v1.Stay", mir_command_id="s")
    device.wait_calls(1, "stay")
    device.restart()
    for _ in range(2):
        assert device.error(device.command("Stay", id="s", text="1")) == UNKNOWN.format("s")
    device.restart(signal.SIGTERM)
    assert device.error(device.command("Stay", id="s", text="1")) == UNKNOWN.format("s")
    assert device.calls("stay") == ["stay 1"]


def test_without_a_state_directory_ids_are_forgotten_with_the_process(probe):
    device = probe()
    assert echo(device, device.command("Echo", id="a", text="1")) == "1"
    assert echo(device, device.command("Echo", id="a", text="1")) == "1"
    assert len(device.calls("echo")) == 1
    device.restart()
    assert echo(device, device.command("Echo", id="a", text="1")) == "1"
    assert len(device.calls("echo")) == 2


def test_a_state_directory_has_one_process(probe, tmp_path):
    device = probe(state=tmp_path / "state")
    second = Program(PROBE, device.id, device.hub.url, device.file, tmp_path / "state")
    try:
        assert second.process.wait(10 * PATIENCE) == 1
        assert "is used by another process" in second.text()
    finally:
        second.close()


KILLS = 30


def test_no_id_runs_twice_whenever_the_device_is_killed(own_hub, probe, tmp_path):
    seed = random.randrange(1 << 32)
    print(f"seed {seed}")
    chance = random.Random(seed)
    device = probe(at=own_hub, state=tmp_path / "state")
    answers = {}
    over = threading.Event()

    async def lane(number):
        """Sends one id after another, each until it is answered."""
        for count in itertools.count():
            id = f"{number}-{count}"
            while id not in answers:
                if over.is_set():
                    return
                try:
                    reply = await own_hub.client.request(
                        f"{device.id}.v1alpha.command", text(id), timeout=0.3 * PATIENCE,
                        headers={"mir-msg": "probe.v1.Echo", "mir-command-id": id})
                except nats.errors.TimeoutError:
                    continue
                except nats.errors.NoRespondersError:
                    await own_hub.client.flush()
                    continue
                answers[id] = (reply.headers["mir-msg"], reply.data)

    async def lanes():
        await asyncio.gather(*(lane(number) for number in range(4)))

    sender = threading.Thread(target=lambda: own_hub.run(lanes(), 300))
    sender.start()
    try:
        for _ in range(KILLS):
            before = len(device.calls("echo"))
            wait_until(lambda: len(device.calls("echo")) > before, 30 * PATIENCE)
            let_pass(chance.uniform(0, 0.03))
            device.stop()
            device.start()
        before = len(answers)
        wait_until(lambda: len(answers) >= before + 8, 30 * PATIENCE)
    finally:
        over.set()
        sender.join(60 * PATIENCE)
    runs = [line.split(" ")[1] for line in device.calls("echo")]
    assert len(runs) == len(set(runs)), f"seed {seed}: {[id for id in runs if runs.count(id) > 1]}"
    unknown = 0
    for id, (kind, data) in answers.items():
        if kind == "probe.v1.Echo":
            assert id in runs and device.kind("Echo").FromString(data).text == id
        else:
            assert device.classes["mir.device.v1.Error"].FromString(data).message == UNKNOWN.format(id)
            unknown += 1
    assert KILLS <= len(runs) and unknown <= 4 * KILLS
