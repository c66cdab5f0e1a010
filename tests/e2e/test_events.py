# SPDX-License-Identifier: Apache-2.0
"""Stored events: what is kept of what happened, who caused it, and how it is found again."""

import hashlib
import json
import os
import signal
import threading
import time

import pytest
from bus import DEADLINE_S, Bus, Refused, api, seconds_ago

from wire import Wire, wait_until

pytestmark = pytest.mark.alone("it keeps no events")


def listed(bus, **target):
    return list(bus.ask("evt.list", target=target).events)


def of_device(bus, device, **target):
    return listed(bus, device_ids=[device], **target)


def reasons(events):
    return [event.spec.reason for event in events]


def await_reasons(bus, device, *wanted):
    """Events of commands and modules are stored a moment after they are published."""
    wait_until(lambda: reasons(of_device(bus, device)) == list(wanted), DEADLINE_S, f"events {wanted} of {device}")
    return of_device(bus, device)


def publish(bus, subject, headers=None, **spec):
    bus.publish(subject, api.CreateEventRequest(spec=spec).SerializeToString(), headers=headers)
    bus.flush()


def labels(**values):
    return {"labels": {key: api.OptString(value=value) for key, value in values.items()}}


def audit(event):
    a = event.spec.audit
    return a.actor, a.outcome, a.error


# --- in which order they are heard


def test_events_of_one_device_are_heard_in_the_order_of_the_commits(connect, server, bus, name):
    other = connect(server)
    bus.create(name)
    for turn in range(150):
        answers = []
        for who in (bus, other):
            asked = api.UpdateDeviceRequest(targets={"ids": [name]}, meta=labels(turn=f"{turn}"))
            answers.append((who, who.answer_name()))
            who.send("core.update", asked.SerializeToString(), answers[-1][1])
        for who, answer in answers:
            before, _ = who.answer(answer)
            updated = [m for m in who.heard[:before] if m.subject == f"event.{name}.core.v1alpha.deviceupdated"]
            assert len(updated) > 2 * turn, "an answer came before its event"
    for who in (bus, other):
        numbers = [int(event.headers["mir-event-sequence"]) for event in who.events(name, "deviceupdated")]
        assert len(numbers) == 300
        assert numbers == sorted(numbers)


# --- what is stored


def test_every_change_of_a_device_is_stored_before_its_answer(bus, name):
    bus.create(name, f"{name}-n", "ns", {"floor": "1"})
    bus.ask("core.update", targets={"ids": [name]}, meta=labels(floor="2"))
    assert reasons(of_device(bus, name)) == ["DeviceUpdated", "DeviceCreated"]
    bus.ask("core.delete", targets={"ids": [name]})
    assert reasons(of_device(bus, name)) == ["DeviceDeleted", "DeviceUpdated", "DeviceCreated"]
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceupdated", "devicedeleted", "devicecreated", "deviceonline")
    assert reasons(of_device(bus, name))[:2] == ["DeviceOnline", "DeviceCreated"]


def test_a_stored_event_is_the_published_one(bus, name):
    bus.create(name, f"{name}-n", "ns", {"floor": "1"})
    (event,) = of_device(bus, name)
    (heard,) = bus.events(name)
    assert json.loads(event.spec.json_payload) == heard.payload
    assert (event.spec.type, event.spec.reason, event.spec.message) == (
        heard.spec.type,
        heard.spec.reason,
        heard.spec.message,
    )
    assert event.spec.related_object == heard.spec.related_object
    assert event.spec.audit == heard.spec.audit
    assert str(event.status.sequence) == heard.headers["mir-event-sequence"]
    assert (event.object.api_version, event.object.kind) == ("mir/v1alpha", "events")
    meta = event.object.meta
    assert meta.name.startswith(f"{name}-n-") and len(meta.name) == len(f"{name}-n-") + 12
    assert int(meta.name[-12:], 16) >= 0 and meta.namespace == "ns"
    assert dict(meta.labels) == {"reason": "DeviceCreated", "type": "normal"}
    annotations = dict(meta.annotations)
    assert annotations["mir-route"] == f"event.{name}.core.v1alpha.devicecreated"
    assert annotations["mir-subject"] == name
    assert annotations["mir-trigger-chain"].startswith("mir-")
    assert event.status.count == 1 and event.status.first_at == event.status.last_at
    assert -1 < seconds_ago(event.status.first_at) < 60


def test_events_of_modules_are_stored(server, dial, bus, name):
    spec = {
        "type": "warning",
        "reason": "Leak",
        "message": "it drips",
        "json_payload": b'{"litres": 3}',
        "related_object": {"api_version": "a", "kind": "k", "meta": {"name": f"{name}-r", "namespace": "ns"}},
    }
    body = api.CreateEventRequest(spec=spec).SerializeToString()
    head = b"NATS/1.0\r\nmir-trigger-chain: a\r\nmir-trigger-chain: b\r\nmir-trigger-chain: module-1234567\r\n\r\n"
    wire = dial.quiet(server)
    subject = f"event.{name}.mod.v1.leak".encode()
    wire.send(b"HPUB %s %d %d\r\n%s%s\r\n" % (subject, len(head), len(head) + len(body), head, body)).settle()
    (event,) = await_reasons(bus, name, "Leak")
    assert event.object.meta.name.startswith(f"{name}-r-") and event.object.meta.namespace == "ns"
    assert event.spec.message == "it drips" and event.spec.json_payload == b'{"litres": 3}'
    annotations = dict(event.object.meta.annotations)
    assert annotations["mir-trigger-chain"] == "a,b,module-1234567"
    assert annotations["mir-route"] == f"event.{name}.mod.v1.leak" and annotations["mir-subject"] == name
    assert event.spec.audit.actor == "anonymous" and event.spec.audit.address == "127.0.0.1"


def test_an_event_without_a_namespace_is_of_the_default_one(bus, name):
    publish(bus, f"event.{name}.mod.v1.f", related_object={"meta": {"name": f"{name}-r"}}, reason="R")
    (event,) = await_reasons(bus, name, "R")
    assert event.object.meta.namespace == "default"
    publish(bus, f"event.{name}-2.mod.v1.f", reason="R")
    (event,) = await_reasons(bus, f"{name}-2", "R")
    assert event.object.meta.name.startswith(f"{name}-2-")
    assert "mir-trigger-chain" not in event.object.meta.annotations  # it came without


@pytest.mark.parametrize(
    "subject", ["event.{}.mod.v1", "event.{}.mod.v1.f.more", "events.{}.mod.v1.f", "xevent.{}.mod.v1.f"]
)
def test_other_subjects_are_no_events(bus, name, subject):
    publish(bus, subject.format(name), reason="No")
    publish(bus, f"event.{name}.mod.v1.f", reason="Yes")
    await_reasons(bus, name, "Yes")


def test_equal_events_are_events_of_their_own(bus, name):
    for _ in range(3):
        publish(bus, f"event.{name}.mod.v1.f", reason="Again", type="normal", message="the same")
    events = await_reasons(bus, name, "Again", "Again", "Again")
    assert len({event.object.meta.name for event in events}) == 3
    assert [event.status.count for event in events] == [1, 1, 1]
    assert [event.spec.json_payload for event in events] == [b"", b"", b""]


def test_sub_messages_of_events_are_there_though_empty(bus, name):
    """Clients read them without a look whether they are there."""
    publish(bus, f"event.{name}.mod.v1.f", reason="Related", related_object={"kind": "valve"})
    bus.publish(f"event.{name}.mod.v1.f", api.CreateEventRequest().SerializeToString())
    bus.flush()
    stored = await_reasons(bus, name, "", "Related")
    deleted = bus.ask("evt.delete", target={"device_ids": [name]}).events
    for bare, related in (stored, deleted):
        for event in (bare, related):
            assert event.HasField("object") and event.object.HasField("meta")
            assert event.HasField("spec") and event.HasField("status")
        assert not bare.spec.HasField("related_object")
        assert related.spec.related_object.kind == "valve" and related.spec.related_object.HasField("meta")


def test_what_is_no_event_is_left_out(bus, name):
    bus.publish(f"event.{name}.mod.v1.f", b"\xff\xff\xff")
    publish(bus, f"event.{name}.mod.v1.f", reason="Yes")
    await_reasons(bus, name, "Yes")


# --- audit


def test_who_did_it_is_told(shared, connect, name):
    users = "[{user: anna, password: x}, {user: bert, password: y}]"
    server = shared({"auth.mode": "users", "auth.users": users})
    wire = Wire(server.address).connect(user="anna", **{"pass": "x"})
    body = api.CreateDeviceRequest(device={"spec": {"device_id": name}}).SerializeToString()
    head = b"NATS/1.0\r\nmir-request-id: ticket 7\r\n\r\n"
    wire.send(b"SUB _INBOX.a 1\r\n")
    sizes = (len(head), len(head) + len(body))
    wire.send(b"HPUB client.x.core.v1alpha.create _INBOX.a %d %d\r\n%s%s\r\n" % (*sizes, head, body))
    assert not api.CreateDeviceResponse.FromString(wire.msg().body).error
    target = api.ListEventsRequest(target={"device_ids": [name]}).SerializeToString()
    wire.send(b"PUB client.x.evt.v1alpha.list _INBOX.a %d\r\n%s\r\n" % (len(target), target))
    (event,) = api.ListEventsResponse.FromString(wire.msg().body).ok.events
    wire.close()
    assert audit(event) == ("anna", "ok", "")
    assert event.spec.audit.request_id == "ticket 7"
    assert event.spec.audit.address == "127.0.0.1"


def test_what_a_device_caused_names_the_device(bus, name):
    bus.heartbeat(name)
    bus.await_kinds(name, "devicecreated", "deviceonline")
    assert {audit(event) for event in of_device(bus, name)} == {(f"device {name}", "ok", "")}


def test_an_update_tells_what_changed_from_what_to_what(bus, name):
    bus.create(name, f"{name}-n", "ns", {"floor": "1", "gone": "x"})
    bus.ask(
        "core.update",
        targets={"ids": [name]},
        meta={"namespace": "other"} | labels(floor="2", gone=None, new="y"),
        spec={"disabled": True},
    )
    changes = {
        change.path: (getattr(change, "from") or None, change.to or None)
        for change in of_device(bus, name)[0].spec.audit.changes
    }
    assert changes == {
        "meta.labels.floor": ('"1"', '"2"'),
        "meta.labels.gone": ('"x"', None),
        "meta.labels.new": (None, '"y"'),
        "meta.namespace": ('"ns"', '"other"'),
        "spec.disabled": ("false", "true"),
    }


def test_a_failed_command_is_a_warning_that_says_so(bus, name):
    bus.create(name, namespace="plant")
    fields = {"targets": {"ids": [name]}, "name": "a.B", "payload": b"", "payload_encoding": 1, "no_validation": True}
    bus.ask("cmd.send", **fields)
    event = await_reasons(bus, name, "DeviceCommand", "DeviceCreated")[0]
    assert event.spec.type == "warning" and dict(event.object.meta.labels)["type"] == "warning"
    actor, outcome, error = audit(event)
    assert (actor, outcome) == ("anonymous", "failed") and "no responders available" in error
    assert "no responders available" in event.spec.message


# --- listing


@pytest.fixture
def tales(bus, name):
    """Thirty events of three devices in two namespaces, oldest first."""
    for i in range(30):
        meta = {"name": f"{name}-{i % 3}", "namespace": ["north", "south"][i % 3 == 2]}
        publish(
            bus,
            f"event.{name}-{i % 3}.tale.v1.told",
            type=["normal", "warning"][i % 2],
            reason=f"R{i % 5}",
            message=f"tale number {i}",
            json_payload=json.dumps({"i": i}).encode(),
            related_object={"api_version": "mir/v1alpha", "kind": "device", "meta": meta},
        )
    ids = [f"{name}-{i}" for i in range(3)]
    wait_until(lambda: len(listed(bus, device_ids=ids)) == 30, DEADLINE_S, "all are stored")
    return ids


def numbers(events):
    return [json.loads(event.spec.json_payload)["i"] for event in events]


def test_events_are_listed_newest_first(bus, tales):
    assert numbers(listed(bus, device_ids=tales)) == list(range(29, -1, -1))


def test_events_of_a_device_by_the_prefix_of_their_names(bus, name, tales):
    """What the cockpit asks: names ["<device>-*"] and its namespace."""
    found = listed(bus, targets={"names": [f"{name}-1-*"], "namespaces": ["north"]})
    assert numbers(found) == list(range(28, -1, -3))
    assert listed(bus, targets={"names": [f"{name}-1-*"], "namespaces": ["south"]}) == []
    exact = found[3].object.meta.name
    assert numbers(listed(bus, targets={"names": [exact]})) == [numbers(found)[3]]


@pytest.mark.parametrize(
    ("target", "wanted"),
    [
        ({"targets": {"labels": {"reason": "R2"}}}, lambda i: i % 5 == 2),
        ({"targets": {"labels": {"reason": "R2", "type": "warning"}}}, lambda i: i % 5 == 2 and i % 2),
        ({"targets": {"labels": {"reason": "*2"}}}, lambda i: i % 5 == 2),
        ({"targets": {"namespaces": ["south"]}}, lambda i: i % 3 == 2),
        ({"reasons": ["R1", "R3"]}, lambda i: i % 5 in (1, 3)),
        ({"types": ["warning"]}, lambda i: i % 2),
        ({"actors": ["anonymous"]}, lambda i: True),
        ({"actors": ["nobody"]}, lambda i: False),
        ({"outcomes": ["failed"]}, lambda i: False),
        ({"text": "TALE NUMBER 1"}, lambda i: str(i).startswith("1")),
        ({"text": '"i": 22'}, lambda i: i == 22),
        ({"filter_limit": 4}, lambda i: i >= 26),
        ({"filter_limit": -1}, lambda i: True),
        ({"reasons": ["R0"], "types": ["normal"], "filter_limit": 2}, lambda i: i in (20, 10)),
    ],
)
def test_filters_narrow_a_list(bus, tales, target, wanted):
    target.setdefault("device_ids", tales)
    assert numbers(listed(bus, **target)) == [i for i in range(29, -1, -1) if wanted(i)]


def test_dates_bound_a_list_and_belong_to_it(bus, tales):
    events = listed(bus, device_ids=tales)
    first, last = events[20].status.first_at, events[10].status.first_at
    inside = [e for e in events if (first.seconds, first.nanos) <= (e.status.first_at.seconds, e.status.first_at.nanos)]
    inside = [e for e in inside if (e.status.first_at.seconds, e.status.first_at.nanos) <= (last.seconds, last.nanos)]
    found = listed(bus, device_ids=tales, filter_date={"from": first, "to": last})
    assert numbers(found) == numbers(inside) and len(found) >= 11


@pytest.mark.parametrize(
    "function, prefix",
    [
        ("evt.list", "error listing events: error listing devices from database: "),
        ("evt.delete", "error deleting event: "),
    ],
)
def test_a_target_that_is_none_is_refused_with_the_words_of_the_service(bus, function, prefix):
    reasons = {
        "a value of reasons in the target has more than 2048 bytes": {"reasons": ["x" * 2049]},
        "a bound of filter_date is no time between the years 1 and 9999": {"filter_date": {"to": {"seconds": 1 << 60}}},
        "'asleep' is no liveness of a device: it is online, offline or disabled": {"devices": {"liveness": ["asleep"]}},
    }
    for text, target in reasons.items():
        with pytest.raises(Refused) as refused:
            bus.ask(function, target=target)
        assert str(refused.value) == prefix + text


def test_a_watch_goes_on_where_it_was(bus, name, tales):
    events = listed(bus, device_ids=tales)
    after = listed(bus, device_ids=tales, after_sequence=events[5].status.sequence)
    assert numbers(after) == [25, 26, 27, 28, 29]
    newest = bus.ask("evt.list", target={"filter_limit": 1}).newest_sequence
    assert listed(bus, after_sequence=newest, device_ids=tales) == []
    publish(bus, f"event.{tales[0]}.tale.v1.told", reason="New", json_payload=b'{"i": 30}')
    wait_until(
        lambda: numbers(listed(bus, after_sequence=newest, device_ids=tales)) == [30], DEADLINE_S, "the new one"
    )


def test_pages_have_everything_once(bus, tales):
    found, before = [], None
    while True:
        target = {"device_ids": tales, "filter_limit": 7}
        if before is not None:
            target["before_sequence"] = before
        page = listed(bus, **target)
        found += numbers(page)
        if len(page) < 7:
            break
        before = page[-1].status.sequence
    assert found == list(range(29, -1, -1))


def test_what_does_not_fit_into_a_message_is_told(shared, connect, name):
    server = shared({"limits.max_payload": "64KiB"})
    bus = connect(server)
    for i in range(20):
        publish(bus, f"event.{name}.m.v1.f", reason=f"R{i}", json_payload=json.dumps({"i": i, "x": "y" * 8000}).encode())
    wait_until(lambda: listed(bus, device_ids=[name], reasons=["R19"]), DEADLINE_S, "all are stored")
    answer = bus.ask("evt.list", target={"device_ids": [name]})
    assert answer.cut and 1 < len(answer.events) < 20
    found = numbers(answer.events)
    while answer.cut:
        answer = bus.ask("evt.list", target={"device_ids": [name], "before_sequence": answer.cut_sequence})
        found += numbers(answer.events)
    assert found == list(range(19, -1, -1))


def test_devices_are_listed_with_their_newest_events(bus, name):
    bus.create(name, f"{name}-n", "ns")
    for i in range(7):
        bus.ask("core.update", targets={"ids": [name]}, meta=labels(l=str(i)))
    ok = bus.ask("core.list", targets={"ids": [name]}, include_events=True)
    events = ok.devices[0].status.events
    assert [event.reason for event in events] == ["DeviceUpdated"] * 5
    assert all(event.type == "normal" and event.message and event.first_at.seconds for event in events)
    times = [(event.first_at.seconds, event.first_at.nanos) for event in events]
    newest = of_device(bus, name)[0].status.first_at
    assert times == sorted(times, reverse=True) and times[0] == (newest.seconds, newest.nanos)
    # They are those of its name, in its namespace.
    bus.create(f"{name}-2", f"{name}-n", "ns2")
    (twin,) = bus.ask("core.list", targets={"ids": [f"{name}-2"]}, include_events=True).devices
    assert [event.reason for event in twin.status.events] == ["DeviceCreated"]
    assert not bus.device(name).status.events


# --- deleting


def test_deleting_answers_with_what_it_deleted(bus, name, tales):
    with pytest.raises(Refused) as refused:
        bus.ask("evt.delete", target={})
    assert str(refused.value) == "error no target found: No device target provided"
    gone = bus.ask("evt.delete", target={"targets": {"names": [f"{name}-1-*"], "namespaces": ["north"]}}).events
    assert numbers(gone) == list(range(28, -1, -3))
    assert listed(bus, device_ids=[tales[1]]) == []
    assert len(listed(bus, device_ids=tales)) == 20
    assert list(bus.ask("evt.delete", target={"device_ids": [tales[1]]}).events) == []


def test_deleting_says_how_many_even_where_they_do_not_fit(shared, connect, name):
    bus = connect(shared({"limits.max_payload": "64KiB"}))
    meta = {"name": name, "namespace": f"{name}-n"}
    for i in range(150):
        publish(bus, f"event.{name}.tale.v1.told", message=f"{i:0900d}", related_object={"kind": "device", "meta": meta})
    everything = {"namespaces": [f"{name}-n"]}
    wait_until(lambda: len(listed(bus, device_ids=[name], filter_limit=1)) == 1, DEADLINE_S, "the first is stored")
    bus.flush()
    gone, fit = 0, 0

    def all_gone():
        nonlocal gone, fit
        answer = bus.ask("evt.delete", target={"targets": everything})
        gone, fit = gone + answer.removed, fit + len(answer.events)
        return gone >= 150

    wait_until(all_gone, DEADLINE_S, "all are deleted")
    assert gone == 150 and fit < 150


@pytest.mark.parametrize(
    "target, gone",
    [
        (lambda n: {"namespaces": [f"{n}-south"]}, lambda i: i % 3 == 2),
        (lambda n: {"labels": {"reason": f"{n}-2"}}, lambda i: i % 5 == 2),
        (lambda n: {"labels": {"reason": f"{n}-*", "type": "warning"}}, lambda i: i % 2),
        (lambda n: {"names": [f"{n}-0-*", f"{n}-1-*"], "namespaces": [f"{n}-*"]}, lambda i: i % 3 < 2),
    ],
    ids=["namespace", "label", "labels", "names"],
)
def test_deleting_leaves_what_does_not_match(bus, name, target, gone):
    for i in range(12):
        meta = {"name": f"{name}-{i % 3}", "namespace": f"{name}-{['north', 'south'][i % 3 == 2]}"}
        spec = {"type": ["normal", "warning"][i % 2], "reason": f"{name}-{i % 5}", "related_object": {"meta": meta}}
        publish(bus, f"event.{name}.tale.v1.told", json_payload=json.dumps({"i": i}).encode(), **spec)
    wait_until(lambda: len(of_device(bus, name)) == 12, DEADLINE_S, "all are stored")
    deleted = bus.ask("evt.delete", target={"targets": target(name)}).events
    assert numbers(deleted) == [i for i in range(11, -1, -1) if gone(i)]
    assert numbers(of_device(bus, name)) == [i for i in range(11, -1, -1) if not gone(i)]


def test_a_date_alone_says_what_to_delete_and_a_limit_alone_does_not(bus, tales):
    tomorrow = {"seconds": int(time.time()) + 86400}
    assert list(bus.ask("evt.delete", target={"filter_date": {"from": tomorrow}}).events) == []
    for target in ({"filter_limit": 5}, {"targets": {}}, {"filter_date": {}}):
        with pytest.raises(Refused, match="^error no target found: No device target provided$"):
            bus.ask("evt.delete", target=target)
    assert len(listed(bus, device_ids=tales)) == 30


def test_deletions_are_no_events(bus, tales):
    def heard():
        """Devices of other tests may go offline at any time."""
        bus.settle()
        return [m.subject for m in bus.heard if m.subject.split(".")[1] != "answer" and "offline" not in m.subject]

    before = heard()
    assert len(bus.ask("evt.delete", target={"device_ids": tales}).events) == 30
    assert heard() == before and listed(bus, device_ids=tales) == []


def test_a_list_without_conditions_has_everything(bus, name, tales):
    bus.create(f"{name}-made")
    everything = listed(bus)
    sequences = [event.status.sequence for event in everything]
    assert sequences == sorted(sequences, reverse=True)
    mine = [event for event in everything if event.object.meta.name.startswith(f"{name}-")]
    assert mine[0].spec.reason == "DeviceCreated" and numbers(mine[1:]) == list(range(29, -1, -1))


# --- proof


def test_the_chain_of_events_is_proved(bus, tales):
    proof = bus.ask("evt.verify")
    assert proof.intact and len(proof.head) == 32 and proof.links > 30
    head = proof.head
    bus.ask("evt.delete", target={"device_ids": [tales[0]]})
    after = bus.ask("evt.verify", head=head)
    assert after.intact and after.removed >= 10 and after.removals >= 1
    assert after.head_sequence and after.head != head and "prove" in after.text
    wrong = bus.ask("evt.verify", head=hashlib.sha256(b"another").digest())
    assert not wrong.intact and not wrong.head_sequence
    with pytest.raises(Refused, match="32 bytes"):
        bus.ask("evt.verify", head=b"short")


# --- retention


def test_events_go_after_their_time(launch, loop, name):
    server = launch({"events.retention": "{default: 0, Short: 1s, DeviceDeleted: 0}"})
    bus = Bus(loop, server)
    rules = {rule.reason: rule.keep_seconds for rule in bus.ask("evt.retention").rules}
    assert rules == {"default": 0, "Short": 1, "DeviceDeleted": 0}
    publish(bus, f"event.{name}.m.v1.f", reason="Short")
    publish(bus, f"event.{name}.m.v1.f", reason="Long")
    await_reasons(bus, name, "Long", "Short")
    old = of_device(bus, name)[1].status.first_at
    wait_until(lambda: seconds_ago(old) > 1.1, DEADLINE_S, "its time is over")
    bus.close()
    server.stop()
    server.start()
    bus = Bus(loop, server)
    wait_until(lambda: reasons(of_device(bus, name)) == ["Long"], DEADLINE_S, "it is removed")
    # The run that removed it may still go on.
    wait_until(lambda: bus.ask("evt.retention").last_run.seconds, DEADLINE_S, "the run is over")
    assert bus.ask("evt.retention").removed >= 1
    proof = bus.ask("evt.verify")
    assert proof.intact and proof.removed >= 1
    bus.close()


# --- history


def test_the_history_of_a_device_from_its_creation_to_its_deletion(bus, name):
    bus.create(name, f"{name}-n", "ns", {"floor": "1"})
    bus.ask("core.update", targets={"ids": [name]}, meta=labels(floor="2"))
    middle = of_device(bus, name)[0].status.first_at
    bus.ask("core.update", targets={"ids": [name]}, meta={"name": f"{name}-m"} | labels(floor="3"))
    bus.ask("core.delete", targets={"ids": [name]})
    for device in ({"device_id": name}, {"name": f"{name}-n", "namespace": "ns"}, {"name": f"{name}-m", "namespace": "ns"}):
        history = bus.ask("evt.history", device=device).events
        assert reasons(history) == ["DeviceCreated", "DeviceUpdated", "DeviceUpdated", "DeviceDeleted"]
    then = json.loads(bus.ask("evt.history", device={"device_id": name}, at=middle).device_json)
    assert then["meta"]["labels"] == {"floor": "2"} and then["meta"]["name"] == f"{name}-n"
    with pytest.raises(Refused, match="history"):
        bus.ask("evt.history", device={"name": f"{name}-n"})


# --- what goes wrong


def test_acknowledged_events_outlive_a_kill_once(launch, loop, name):
    """Creates while the server is killed: what was answered is an event, once, and the chain holds."""
    server = launch()
    answered = []
    for turn in range(4):
        bus = Bus(loop, server)
        stop = threading.Event()

        def create(bus=bus, stop=stop, turn=turn):
            for i in range(100_000):
                if stop.is_set():
                    return
                device = f"{name}-{turn}-{i}"
                try:
                    bus.create(device)
                except Exception:
                    return
                answered.append(device)

        before = len(answered)
        thread = threading.Thread(target=create)
        thread.start()
        wait_until(lambda before=before, turn=turn: len(answered) >= before + 20 * (turn + 1), DEADLINE_S, "creates")
        os.kill(server.process.pid, signal.SIGKILL)
        server.process.wait()
        stop.set()
        bus.give_up()
        thread.join(2 * DEADLINE_S)
        bus.close()
        server.start()
    bus = Bus(loop, server)
    events = listed(bus, reasons=["DeviceCreated"])
    sequences = [event.status.sequence for event in events]
    assert len(set(sequences)) == len(sequences)
    told = [dict(event.object.meta.annotations)["mir-subject"] for event in events]
    assert len(set(told)) == len(told) and set(answered) <= set(told)
    assert set(told) == {device.spec.device_id for device in bus.list()}
    assert bus.ask("evt.verify").intact
    bus.close()


def test_a_burst_of_events_is_stored_whole(bus, name, server, dial):
    count = 20_000 // int(os.environ.get("MIR_TEST_SCALE", "1"))
    body = api.CreateEventRequest(spec={"reason": "Burst", "message": "m"}).SerializeToString()
    line = f"PUB event.{name}.m.v1.f {len(body)}\r\n".encode() + body + b"\r\n"
    wire = dial.quiet(server)
    began = time.monotonic()
    for _ in range(count // 1000):
        wire.send(line * 1000).settle()

    def sequences():
        found, after = 0, 0
        while True:
            page = bus.ask("evt.list", target={"device_ids": [name], "after_sequence": after})
            found += len(page.events)
            if not page.cut:
                return found
            after = page.cut_sequence

    wait_until(lambda: sequences() >= count // 1000 * 1000, 4 * DEADLINE_S, "all are stored")
    print(f"{count} events stored and listed after {time.monotonic() - began:.2f} s")
