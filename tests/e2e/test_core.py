# SPDX-License-Identifier: Apache-2.0
"""Devices: created, changed, deleted and listed over the bus, and the events that tell of it."""

import random
from functools import partial

import nats.errors
import pytest
from bus import DEADLINE_S, PULL, SERVICES, Refused, api, seconds_ago, subject_of, unzstd, zstd

from wire import PATIENCE, wait_until

pytestmark = pytest.mark.alone("it knows no devices")

NO_TARGET = "error no target found: No device target provided"


def refused(bus, function, **fields):
    with pytest.raises(Refused) as refusal:
        bus.ask(function, **fields)
    return str(refusal.value)


def new(device, name="", namespace="", labels=None):
    meta = {"name": name, "namespace": namespace, "labels": labels or {}}
    return {"meta": meta, "spec": {"device_id": device}}


def ids_of(devices):
    return sorted(device.spec.device_id for device in devices)


# --- create


def test_create(bus, name):
    device = bus.create(name, f"{name}-n", f"{name}-ns", {"a": "1"}, {"note": "two\nlines"})
    assert (device.api_version, device.kind) == ("mir/v1alpha", "device")
    assert (device.meta.name, device.meta.namespace) == (f"{name}-n", f"{name}-ns")
    assert dict(device.meta.labels) == {"a": "1"} and dict(device.meta.annotations) == {"note": "two\nlines"}
    assert device.spec.device_id == name and not device.spec.disabled
    assert bus.device(name) == device
    assert bus.kinds(name) == ["devicecreated"]


def test_sub_messages_are_there_though_empty(bus, name):
    """Clients read them without a look whether they are there, whichever answer brings the device."""
    target = {"ids": [name]}
    devices = [bus.create(name), bus.device(name)]
    devices.append(bus.ask("core.schema", targets=target).devices[0].device)
    devices.append(bus.ask("core.update", targets=target).devices[0])
    devices.append(bus.ask("core.delete", targets=target).devices[0])
    devices.append(bus.ask("core.creates", devices=[{"spec": {"device_id": name}}]).devices[0])
    for device in devices:
        for path in ("meta", "spec", "properties", "status"):
            assert device.HasField(path)
        for path in ("desired", "reported"):
            assert device.properties.HasField(path)
        for path in ("schema", "properties"):
            assert device.status.HasField(path)
        assert not device.status.HasField("last_hearthbeat")
        assert not device.status.schema.HasField("last_schema_fetch")
        assert not device.status.online


def test_create_fills_name_and_namespace(bus, name):
    device = bus.create(name)
    assert (device.meta.name, device.meta.namespace) == (name, "default")


def test_create_disabled(bus, name):
    assert bus.create(name, disabled=True).spec.disabled
    assert bus.device(name).spec.disabled


def test_create_without_id(bus):
    assert refused(bus, "core.create", device=new("")) == "device id is missing"


@pytest.mark.parametrize("request_", [{}, {"device": {}}, {"device": {"meta": {"name": "x"}}}])
def test_create_without_parts(bus, request_):
    assert refused(bus, "core.create", **request_) == "device id is missing"


def test_create_without_meta(bus, name):
    device = bus.ask("core.create", device={"spec": {"device_id": name}})
    assert (device.meta.name, device.meta.namespace) == (name, "default")


def test_create_twice(bus, name):
    bus.create(name, f"{name}-n", "ns")
    text = f"device {name}-n/ns with deviceId {name} already exist"
    assert refused(bus, "core.create", device=new(name, f"{name}-n", "ns")) == text
    # The id alone, the name alone.
    assert refused(bus, "core.create", device=new(name)) == f"device {name}/default with deviceId {name} already exist"
    text = f"device {name}-n/ns with deviceId {name}-other already exist"
    assert refused(bus, "core.create", device=new(f"{name}-other", f"{name}-n", "ns")) == text
    # The same name elsewhere is another name.
    bus.create(f"{name}-other", f"{name}-n", "ns2")
    bus.settle()
    assert bus.kinds(name) == ["devicecreated"]
    assert bus.kinds(f"{name}-other") == ["devicecreated"]


@pytest.mark.parametrize("device", ["a.b", "a*", ">", "two words", "client", "device", "event", "_INBOX", "x" * 129, "tab\t"])
def test_ids_that_no_device_may_have(bus, device):
    assert refused(bus, "core.create", device=new(device)).startswith("device id '")
    assert bus.ids(ids=[device.replace("*", "")]) == []


@pytest.mark.parametrize("device", ["-", "a-b_c", "Ünïcødé", "x" * 128, "$#@!'\"\\", "01"])
def test_ids_that_are_odd(bus, name, device):
    device = (name + device)[:128]
    assert bus.create(device).spec.device_id == device
    assert bus.ids(ids=[device]) == [device]
    assert bus.kinds(device) == ["devicecreated"]
    assert ids_of(bus.ask("core.delete", targets={"ids": [device]}).devices) == [device]


def test_publish_without_reply_is_carried_out(bus, name):
    request = api.CreateDeviceRequest(device=new(name)).SerializeToString()
    bus.publish(subject_of("core.create"), request)
    bus.await_kinds(name, "devicecreated")
    assert bus.device(name).meta.name == name
    bus.publish(subject_of("core.delete"), api.DeleteDeviceRequest(targets={"ids": [name]}).SerializeToString())
    bus.await_kinds(name, "devicecreated", "devicedeleted")
    assert bus.device(name) is None


@pytest.mark.parametrize("function", SERVICES)
def test_request_that_is_no_protobuf(bus, function):
    response = getattr(api, SERVICES[function][1]).FromString(bus.raw(function, b"\xff\xff\xff").data)
    assert response.WhichOneof("response") == "error" and response.error


def test_ordinary_request(bus, name):
    """As clients ask: with an inbox, and a second answer never comes."""

    async def twice():
        inbox = bus.client.new_inbox()
        subscription = await bus.client.subscribe(inbox)
        body = api.CreateDeviceRequest(device=new(name)).SerializeToString()
        await bus.client.publish(subject_of("core.create"), body, reply=inbox)
        answer = await subscription.next_msg(DEADLINE_S)
        # What is answered later comes later.
        await bus.client.request(subject_of("core.list"), b"", timeout=DEADLINE_S)
        with pytest.raises(nats.errors.TimeoutError):
            await subscription.next_msg(0.05)
        return answer

    answer = bus.loop.run(twice())
    assert api.CreateDeviceResponse.FromString(answer.data).ok.spec.device_id == name


def test_any_client_name_and_no_other_subject(bus):
    async def ask(subject):
        return await bus.client.request(subject, b"", timeout=DEADLINE_S)

    for client in ("todo", "Another", "x-1234567"):
        assert bus.loop.run(ask(f"client.{client}.core.v1alpha.list")).data
    for subject in ("client.core.v1alpha.list", "client.a.core.v1alpha.list.x", "client.a.core.v1.list",
                    "client.a.core.v1alpha.lists", "client.a.tlm.v1alpha.create"):
        with pytest.raises(nats.errors.NoRespondersError):
            bus.loop.run(ask(subject))


def test_other_subscribers_hear_requests_too(bus, name, connect, server):
    heard = []

    async def hear(message):
        heard.append(message)

    other = connect(server)
    other.subscribe("client.*.core.v1alpha.create", hear)
    bus.create(name)
    wait_until(lambda: len(heard) == 1, DEADLINE_S, "copy of the request")
    assert api.CreateDeviceRequest.FromString(heard[0].data).device.spec.device_id == name


# --- create many


def test_creates(bus, name):
    devices = [new(f"{name}-{i}", namespace=name) for i in range(20)]
    made = bus.ask("core.creates", devices=devices).devices
    assert ids_of(made) == sorted(f"{name}-{i}" for i in range(20)) == bus.ids(namespaces=[name])
    assert all(bus.kinds(f"{name}-{i}") == ["devicecreated"] for i in range(20))


def test_creates_nothing(bus):
    assert list(bus.ask("core.creates").devices) == []


def test_creates_leaves_out_what_is_there(bus, name):
    bus.create(f"{name}-a", "taken", name)
    devices = [new(f"{name}-a"), new(f"{name}-b", "taken", name), new(f"{name}-c", "", name)]
    assert ids_of(bus.ask("core.creates", devices=devices).devices) == [f"{name}-c"]
    bus.settle()
    assert bus.kinds(f"{name}-a") == ["devicecreated"] and bus.kinds(f"{name}-b") == []
    assert bus.ids(namespaces=[name]) == [f"{name}-a", f"{name}-c"]


@pytest.mark.parametrize(
    "last, text",
    [
        (lambda n: new(f"{n}-a", "other", n), "device with id {n}-a is duplicated"),
        (lambda n: new(f"{n}-c", "b", n), "device with name/namespace b/{n} is duplicated"),
        (lambda n: new(f"{n}-a", "b", n), "device with id {n}-a is duplicated"),
        (lambda n: new(""), "device at index 2 is missing its id"),
    ],
)
def test_creates_with_a_fault_creates_nothing(bus, name, last, text):
    devices = [new(f"{name}-a", "a", name), new(f"{name}-b", "b", name), last(name)]
    assert refused(bus, "core.creates", devices=devices) == "error creating devices: " + text.format(n=name)
    bus.settle()
    assert bus.ids(namespaces=[name]) == [] and bus.kinds(f"{name}-a") == []


def test_creates_says_all_that_is_wrong(bus, name):
    devices = [new(""), new(f"{name}-a", "a", name), new(f"{name}-a", "x", name), new(f"{name}-b", "a", name)]
    lines = refused(bus, "core.creates", devices=devices).removeprefix("error creating devices: ").split("\n")
    assert sorted(lines) == sorted([
        "device at index 0 is missing its id",
        f"device with id {name}-a is duplicated",
        f"device with name/namespace a/{name} is duplicated",
    ])


# --- update


def optional(**values):
    """Labels of an update: None removes."""
    return {key: api.OptString() if value is None else api.OptString(value=value) for key, value in values.items()}


def fleet(bus, name):
    """a and b in one namespace, c in another, with labels."""
    bus.create(f"{name}-a", "a", name, {"site": "north", "kind": "pump"})
    bus.create(f"{name}-b", "b", name, {"site": "north", "kind": "valve"})
    bus.create(f"{name}-c", "c", f"{name}-2", {"site": "south", "kind": "pump"})
    return f"{name}-a", f"{name}-b", f"{name}-c"


def test_update_by_id(bus, name):
    bus.create(name, labels={"keep": "1", "change": "1", "drop": "1", "empty": "1"}, annotations={"drop": "1"})
    meta = {"labels": optional(change="2", drop=None, empty="", new="3"), "annotations": optional(drop=None, a="b")}
    done = bus.ask("core.update", targets={"ids": [name]}, meta=meta, spec={"disabled": True}).devices
    assert len(done) == 1 and bus.device(name) == done[0]
    assert dict(done[0].meta.labels) == {"keep": "1", "change": "2", "new": "3"}
    assert dict(done[0].meta.annotations) == {"a": "b"}
    assert done[0].spec.disabled
    assert bus.kinds(name) == ["devicecreated", "deviceupdated"]
    event = bus.events(name)[-1].payload
    assert event["meta"]["labels"] == {"keep": "1", "change": "2", "new": "3"}
    # What is absent stays.
    done = bus.ask("core.update", targets={"ids": [name]}, spec={"disabled": False}).devices
    assert dict(done[0].meta.labels) == {"keep": "1", "change": "2", "new": "3"} and not done[0].spec.disabled


def test_a_list_goes_on_where_a_message_was_full(launch, connect, pump):
    server = launch({"limits.max_payload": "16KiB"})
    bus = connect(server)
    ids = [f"d{n:03}" for n in range(60)]
    for number, device in enumerate(ids):
        bus.create(device, device, f"ns{number % 3}", {"what": "x" * 100})
        bus.hello(device, pump)
    wait_until(lambda: len(paged(bus)[0]) == 60 and paged(bus)[2], DEADLINE_S, "all have their schema")
    whole, pages, _ = paged(bus)
    places = [(device.meta.namespace, device.meta.name) for device in whole]
    assert places == sorted(places) and ids_of(whole) == ids and pages > 2
    brief, fewer, _ = paged(bus, without_schema=True)
    assert ids_of(brief) == ids and 1 < fewer < pages
    assert not any(device.status.schema.compressed_schema for device in brief)
    assert all(device.status.schema.package_names for device in brief)
    # Whoever asks for no pages is told that it is too much, as is whoever changes more than fits.
    with pytest.raises(Refused, match="more than a message may have"):
        bus.list(ids=["*"])
    gone = ids.pop()
    bus.ask("core.delete", targets={"ids": [gone]})
    assert ids_of(bus.ask("core.list", targets={}, after=f"ns2/{ids[-2]}").devices) == []
    assert ids_of(bus.ask("core.list", targets={}, after=f"ns1/{ids[-1]}").devices)[0] == ids[2]


def paged(bus, **how):
    devices, pages, after = [], 0, ""
    while True:
        page = bus.ask("core.list", targets={}, after=after, **how)
        devices += page.devices
        pages += 1
        if not page.cut:
            return devices, pages, all(device.status.schema.package_names for device in devices)
        last = page.devices[-1].meta
        after = f"{last.namespace}/{last.name}"


def test_a_change_of_more_devices_than_a_message_holds_schemas_of_is_no_failure(launch, connect, pump):
    bus = connect(launch({"limits.max_payload": "16KiB"}))
    for number in range(20):
        bus.hello(f"d{number}", pump)
    wait_until(lambda: len(paged(bus)[0]) == 20 and paged(bus)[2], DEADLINE_S, "all have their schema")
    answer = bus.ask("core.update", targets={"ids": ["*"]}, meta={"labels": {"a": api.OptString(value="b")}})
    assert len(answer.devices) == 20 and all(device.meta.labels["a"] == "b" for device in answer.devices)
    with pytest.raises(Refused, match="it was done for 20 devices"):
        bus.ask("core.update", targets={"ids": ["*"]}, meta={"labels": {"b": api.OptString(value="c" * 1000)}})
    assert all(device.meta.labels["b"] for device in paged(bus)[0])


@pytest.mark.parametrize(
    "target, hit",
    [
        (lambda n: {"ids": [f"{n}-a", f"{n}-c"]}, "ac"),
        (lambda n: {"names": ["a"], "namespaces": [n, f"{n}-2"]}, "a"),
        (lambda n: {"namespaces": [n]}, "ab"),
        (lambda n: {"labels": {"site": "north", "kind": "pump"}, "ids": [f"{n}-*"]}, "a"),
        (lambda n: {"ids": [f"{n}-a", f"{n}-b"], "labels": {"kind": "valve"}}, "b"),
    ],
)
def test_update_touches_only_its_targets(bus, name, target, hit):
    devices = fleet(bus, name)
    done = bus.ask("core.update", targets=target(name), meta={"labels": optional(touched="yes")}).devices
    expected = [f"{name}-{letter}" for letter in hit]
    assert ids_of(done) == expected == bus.ids(ids=[f"{name}-*"], labels={"touched": "yes"})
    for device in devices:
        updated = ["deviceupdated"] if device in expected else []
        assert bus.kinds(device) == ["devicecreated", *updated]


def test_update_of_nobody(bus, name):
    assert list(bus.ask("core.update", targets={"ids": [name]}, meta={"labels": optional(a="1")}).devices) == []
    assert list(bus.ask("core.update", targets={"ids": [name]}, meta={"name": "only"}).devices) == []
    assert bus.device(name) is None


def test_update_that_changes_nothing_is_told_all_the_same(bus, name):
    bus.create(name)
    assert ids_of(bus.ask("core.update", targets={"ids": [name]}).devices) == [name]
    assert bus.kinds(name) == ["devicecreated", "deviceupdated"]


def test_update_of_name_namespace_and_id(bus, name):
    bus.create(name, labels={"x": "1"})
    done = bus.ask("core.update", targets={"ids": [name]}, meta={"name": "other", "namespace": name}).devices
    assert (done[0].meta.name, done[0].meta.namespace) == ("other", name)
    # Empty means untouched.
    meta = {"name": "", "namespace": "", "labels": optional(x="2")}
    done = bus.ask("core.update", targets={"ids": [name]}, meta=meta, spec={"device_id": ""}).devices
    assert (done[0].meta.name, done[0].meta.namespace) == ("other", name) and done[0].spec.device_id == name
    done = bus.ask("core.update", targets={"names": ["other"], "namespaces": [name]},
                   spec={"device_id": f"{name}-new"}).devices
    assert ids_of(done) == [f"{name}-new"]
    assert bus.ids(namespaces=[name]) == [f"{name}-new"] and bus.device(name) is None
    # Both are free again, and taken by nothing.
    bus.create(name)
    # The device's own name and id are no conflict.
    meta = {"name": name, "namespace": "default"}
    assert ids_of(bus.ask("core.update", targets={"ids": [name]}, meta=meta, spec={"device_id": name}).devices) == [name]
    assert ids_of(bus.ask("core.update", targets={"ids": [name]}, meta={"name": name}).devices) == [name]
    assert ids_of(bus.ask("core.update", targets={"ids": [name]}, meta={"namespace": "default"}).devices) == [name]


def test_update_of_status(bus, name, pump):
    bus.create(name)
    status = {
        "online": True,
        "last_hearthbeat": {"seconds": 1700000000, "nanos": 5},
        "schema": {"compressed_schema": zstd(pump), "package_names": ["pump.v1"],
                   "last_schema_fetch": {"seconds": 1700000001}},
    }
    device = bus.ask("core.update", targets={"ids": [name]}, status=status).devices[0]
    assert device.status.online
    assert (device.status.last_hearthbeat.seconds, device.status.last_hearthbeat.nanos) == (1700000000, 5)
    assert unzstd(device.status.schema.compressed_schema) == pump
    assert list(device.status.schema.package_names) == ["pump.v1"]
    assert device.status.schema.last_schema_fetch.seconds == 1700000001
    payload = [event for event in bus.events(name) if event.kind == "deviceupdated"][0].payload
    assert payload["status"]["schema"]["packageNames"] == ["pump.v1"]
    assert payload["status"]["schema"]["compressedSchema"]


def test_schema_that_is_none_is_refused(bus, name):
    bus.create(name)
    schema = {"compressed_schema": b"garbage", "package_names": ["x"]}
    assert refused(bus, "core.update", targets={"ids": [name]}, status={"schema": schema})
    assert list(bus.device(name).status.schema.package_names) == []


def test_changes_need_targets(bus):
    for targets in ({}, None):
        fields = {} if targets is None else {"targets": targets}
        assert refused(bus, "core.update", **fields) == NO_TARGET
        assert refused(bus, "core.delete", **fields) == NO_TARGET
        assert "No device target provided" in refused(bus, "core.schema", **fields)
    text = "error occure because of bad request: [No device target provided]"
    assert refused(bus, "core.schema") == text
    meta = {"name": "n", "namespace": "ns"}
    assert refused(bus, "core.update", targets={}, meta=meta, spec={"device_id": "x"}) == NO_TARGET


CONFLICTS = {
    # what is there, the target's ids, the update's meta and spec, the text
    "id for several": (
        [("a", "a", "1"), ("b", "b", "1")], "ab", {}, {"device_id": "{n}-z"},
        "cannot update multiple devices as deviceId must be unique",
    ),
    "id of another": (
        [("a", "a", "1"), ("b", "b", "1")], "a", {}, {"device_id": "{n}-b"},
        "cannot update device has deviceId '{n}-b' is already in use",
    ),
    "name for two of a namespace": (
        [("a", "a", "1"), ("b", "b", "1")], "ab", {"name": "z"}, {},
        "cannot update device as multiple device will have the same name 'z' in namespace '{n}-1'",
    ),
    "name that one of them has": (
        [("a", "a", "1"), ("b", "b", "1")], "ab", {"name": "a"}, {},
        "cannot update device as multiple device will have the same name 'a' in namespace '{n}-1'",
    ),
    "name of another": (
        [("a", "a", "1"), ("b", "b", "1")], "a", {"name": "b"}, {},
        "cannot update device as name 'b' is already in use in namespace '{n}-1'",
    ),
    "namespace for two of a name": (
        [("a", "s", "1"), ("b", "s", "2")], "ab", {"namespace": "{n}-3"}, {},
        "cannot update device as multiple device will have the same name 's' in namespace '{n}-3'",
    ),
    "namespace that has the name": (
        [("a", "s", "1"), ("b", "s", "2")], "a", {"namespace": "{n}-2"}, {},
        "cannot update device as name 's' is already in use in namespace '{n}-2'",
    ),
    "both for several": (
        [("a", "a", "1"), ("b", "b", "1")], "ab", {"name": "z", "namespace": "{n}-9"}, {},
        "cannot update multiple devices as name/namespace 'z/{n}-9' must be unique",
    ),
    "both for several, one has it": (
        [("a", "a", "1"), ("b", "b", "1")], "ab", {"name": "a", "namespace": "{n}-1"}, {},
        "cannot update multiple devices as name/namespace 'a/{n}-1' must be unique",
    ),
    "both of another": (
        [("a", "a", "1"), ("b", "b", "2")], "a", {"name": "b", "namespace": "{n}-2"}, {},
        "cannot update device has 'b/{n}-2' is already in use",
    ),
}


@pytest.mark.parametrize("case", CONFLICTS)
def test_update_that_would_make_two_of_one(bus, name, case):
    there, target, meta, spec, text = CONFLICTS[case]
    for device, title, space in there:
        bus.create(f"{name}-{device}", title, f"{name}-{space}")
    before = bus.list(ids=[f"{name}-*"])
    fill = {key: value.format(n=name) for key, value in {**meta, **spec}.items()}
    spec = {key: fill.pop(key) for key in spec}
    got = refused(bus, "core.update", targets={"ids": [f"{name}-{d}" for d in target]}, meta=fill, spec=spec)
    assert got == "error updating device: " + text.format(n=name)
    bus.settle()
    assert bus.list(ids=[f"{name}-*"]) == before
    assert all(bus.kinds(f"{name}-{device}") == ["devicecreated"] for device, _, _ in there)


# --- upsert


def test_upsert(bus, name):
    meta = {"name": name, "namespace": "up", "labels": optional(a="1", gone=None), "annotations": optional(b="2")}
    request = api.UpdateDeviceRequest(targets={"ids": [name]}, meta=meta, spec={"device_id": name, "disabled": True})
    answer = bus.answer_name()
    bus.send("core.update", request.SerializeToString(), answer)
    at, message = bus.answer(answer)
    # What was heard before the answer, through the same subscription.
    before = [m.subject.rpartition(".")[2] for m in bus.heard[:at] if m.subject.split(".")[1] == name]
    assert before == ["devicecreated", "deviceupdated"]
    device = api.UpdateDeviceResponse.FromString(message.data).ok.devices[0]
    assert (device.spec.device_id, device.meta.name, device.meta.namespace) == (name, name, "up")
    assert dict(device.meta.labels) == {"a": "1"} and dict(device.meta.annotations) == {"b": "2"}
    assert device.spec.disabled and bus.device(name) == device
    # The second time it is an update.
    again = bus.ask("core.update", request).devices
    assert ids_of(again) == [name]
    assert bus.kinds(name) == ["devicecreated", "deviceupdated", "deviceupdated"]


def test_upsert_needs_an_id_that_is_free(bus, name):
    meta = {"name": name, "namespace": "up"}
    target = {"names": [name], "namespaces": ["up"]}
    assert refused(bus, "core.update", targets=target, meta=meta) == "error creating device: device id is missing"
    bus.create(f"{name}-a", "x", "up2")
    text = f"error creating device: device {name}/up with deviceId {name}-a already exist"
    assert refused(bus, "core.update", targets=target, meta=meta, spec={"device_id": f"{name}-a"}) == text
    assert bus.ids(names=[name]) == []


# --- delete


@pytest.mark.parametrize(
    "target, hit",
    [
        (lambda n: {"ids": [f"{n}-a", f"{n}-c"]}, "ac"),
        (lambda n: {"names": ["b"], "namespaces": [n]}, "b"),
        (lambda n: {"namespaces": [n]}, "ab"),
        (lambda n: {"labels": {"kind": "pump"}, "ids": [f"{n}-*"]}, "ac"),
        (lambda n: {"ids": [f"{n}-none"]}, ""),
    ],
)
def test_delete(bus, name, target, hit):
    devices = fleet(bus, name)
    before = bus.list(**target(name))
    gone = bus.ask("core.delete", targets=target(name)).devices
    expected = [f"{name}-{letter}" for letter in hit]
    assert ids_of(gone) == expected and list(gone) == before
    assert bus.ids(ids=[f"{name}-*"]) == [device for device in devices if device not in expected]
    for device in devices:
        deleted = ["devicedeleted"] if device in expected else []
        assert bus.kinds(device) == ["devicecreated", *deleted]
    for device in expected:
        assert bus.events(device)[-1].payload["spec"]["deviceId"] == device
        bus.create(device)


# --- list


def test_list_is_sorted_and_empty_targets_mean_all(launch, connect):
    server = launch()
    bus = connect(server)
    assert bus.list() == []
    for i, (title, space) in enumerate([("b", "z"), ("a", "z"), ("c", "y"), ("a", "A")]):
        bus.create(f"id{i}", title, space)
    names = [(device.meta.namespace, device.meta.name) for device in bus.list()]
    assert names == [("A", "a"), ("y", "c"), ("z", "a"), ("z", "b")]
    assert bus.list(ids=["*"]) == bus.list()
    assert api.ListDeviceResponse.FromString(bus.raw("core.list").data).ok.devices[0].spec.device_id == "id3"


@pytest.mark.parametrize(
    "target, hit",
    [
        (lambda n: {"ids": [f"{n}-a"]}, "a"),
        (lambda n: {"ids": [f"{n}-c", f"{n}-a", f"{n}-a", f"{n}-no"]}, "ac"),
        (lambda n: {"ids": [f"{n}-*"]}, "abc"),
        (lambda n: {"ids": [f"{n}*b"]}, "b"),
        (lambda n: {"ids": [f"*{n}-*"]}, "abc"),
        (lambda n: {"ids": [f"{n}-A"]}, ""),
        (lambda n: {"ids": [f"{n}-."]}, ""),
        (lambda n: {"ids": [""]}, ""),
        (lambda n: {"names": ["a", "c"], "namespaces": [n]}, "a"),
        (lambda n: {"names": ["a", "c"], "namespaces": [n, f"{n}-2"]}, "ac"),
        (lambda n: {"namespaces": [f"{n}*"]}, "abc"),
        (lambda n: {"namespaces": [n], "names": ["*"]}, "ab"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"site": "north"}}, "ab"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"site": "*o*th"}}, "abc"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"site": "*th", "kind": "valve"}}, "b"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"site": "*"}}, "abc"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"absent": ""}}, "abc"),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"site": ""}}, ""),
        (lambda n: {"ids": [f"{n}-*"], "labels": {"Site": "north"}}, ""),
        (lambda n: {"ids": [f"{n}-*"], "schemas": ["pump.v1"]}, ""),
    ],
)
def test_targets(bus, name, target, hit):
    fleet(bus, name)
    assert bus.ids(**target(name)) == [f"{name}-{letter}" for letter in hit]


def test_targets_of_many_ids(bus, name):
    ids = sorted(f"{name}-{i}" for i in range(350))
    bus.ask("core.creates", devices=[new(device, namespace=name) for device in [*ids, f"{name}-else"]])
    shuffled = random.Random(1).sample(ids, len(ids))
    assert bus.ids(ids=shuffled) == ids
    done = bus.ask("core.update", targets={"ids": shuffled}, meta={"labels": optional(a="1")}).devices
    assert ids_of(done) == ids == bus.ids(namespaces=[name], labels={"a": "1"})
    assert ids_of(bus.ask("core.delete", targets={"ids": shuffled}).devices) == ids
    assert bus.ids(namespaces=[name]) == [f"{name}-else"]


SENT = {"name": "a.B", "payload": b"{}", "payload_encoding": 2}
PREFIXES = {
    "core.list": ({}, "error listing device: error listing devices from database: "),
    "core.update": ({}, "error updating device: "),
    "core.delete": ({}, "error deleting device: "),
    "core.schema": ({}, "error listing device: error listing devices from database: "),
    "cmd.send": (SENT, "error sending command to devices: "),
    "cmd.list": ({}, "error listing devices from db: "),
    "cfg.send": (SENT, "error sending config to devices: "),
    "cfg.list": ({}, "error listing devices from db: "),
    "tlm.list": ({}, "error listing device from db: "),
    "tlm.query": ({}, "error listing device from db: "),
}


@pytest.mark.parametrize(
    "what, text",
    [
        ({"liveness": ["asleep"]}, "'asleep' is no liveness of a device: it is online, offline or disabled"),
        ({"ids": [f"*{i}" for i in range(65)]}, "the target has 65 patterns and empty label values: use at most 64"),
        ({"labels": {f"k{i}": "v" for i in range(257)}}, "the target has 257 labels and 0 schemas: use at most 256"),
    ],
    ids=["liveness", "patterns", "labels"],
)
@pytest.mark.parametrize("function", PREFIXES)
def test_a_target_that_is_none_is_refused_with_the_words_of_the_service(bus, name, function, what, text):
    fields, prefix = PREFIXES[function]
    bus.create(name)
    assert refused(bus, function, targets={"names": [name], **what}, **fields) == prefix + text
    assert bus.device(name) is not None


@pytest.mark.parametrize("key", ["a-b", "a.b", "a/b", "two words", "ünï", "'\"\\`$", "a:b,c={}", "%s%n"])
def test_labels_with_odd_characters(bus, name, key):
    value = f"{name}{key}*"[:-1]
    bus.create(f"{name}-a", labels={key: value})
    bus.create(f"{name}-b", labels={key: "other"})
    assert bus.ids(labels={key: value}) == [f"{name}-a"]
    assert bus.ids(ids=[f"{name}-*"], labels={key: f"*{key}"}) == [f"{name}-a"]
    done = bus.ask("core.update", targets={"labels": {key: value}}, meta={"labels": optional(**{key: None})}).devices
    assert ids_of(done) == [f"{name}-a"] and dict(done[0].meta.labels) == {}
    assert bus.ids(labels={key: value}) == []
    assert bus.events(f"{name}-a")[0].payload["meta"]["labels"] == {key: value}


def test_list_by_schema_package(bus, name, pump):
    for letter in "ab":
        bus.create(f"{name}-{letter}")
    bus.hello(f"{name}-a", pump)
    wait_until(lambda: "deviceupdated" in bus.kinds(f"{name}-a"), DEADLINE_S, "schema stored")
    mine = [f"{name}-*"]
    assert bus.ids(ids=mine, schemas=["pump.v1"]) == [f"{name}-a"]
    assert bus.ids(ids=mine, schemas=["pump.v1", "mir.device.v1"]) == [f"{name}-a"]
    assert bus.ids(ids=mine, schemas=["pump.v1", "other.v1"]) == []
    assert bus.ids(ids=mine, schemas=["pump.*"]) == []


# --- events


def test_events_say_what_happened(bus, name):
    bus.create(name, f"{name}-n", "ns", {"l": "<&>\u2028"})
    bus.ask("core.update", targets={"ids": [name]}, meta={"annotations": optional(a="b")})
    bus.ask("core.delete", targets={"ids": [name]})
    expected = [
        ("devicecreated", "DeviceCreated", "A device has been created successfully"),
        ("deviceupdated", "DeviceUpdated", "A device has been updated successfully"),
        ("devicedeleted", "DeviceDeleted", "A device has been deleted successfully"),
    ]
    events = bus.events(name)
    assert [(event.kind, event.spec.reason, event.spec.message) for event in events] == expected
    for event in events:
        related = event.spec.related_object
        assert event.spec.type == "normal"
        assert (related.api_version, related.kind) == ("mir/v1alpha", "device")
        assert (related.meta.name, related.meta.namespace) == (f"{name}-n", "ns")
        payload = event.payload
        assert (payload["apiVersion"], payload["kind"]) == ("mir/v1alpha", "device")
        assert payload["meta"]["labels"] == {"l": "<&>\u2028"} and payload["spec"]["deviceId"] == name
        assert payload["properties"] == {}
        assert payload["status"]["schema"] == {} and payload["status"]["properties"] == {}
    assert "annotations" not in events[0].payload["meta"] and events[2].payload["meta"]["annotations"] == {"a": "b"}


def chain_of(frame):
    lines = frame.head.decode().split("\r\n")
    assert lines[0] == "NATS/1.0" and lines[-2:] == ["", ""]
    prefix = "mir-trigger-chain: "
    return [line.removeprefix(prefix) for line in lines[1:-2] if line.startswith(prefix)]


def test_events_precede_the_answer_and_carry_the_chain(server, dial, name):
    wire = dial.quiet(server).sub("event.>", 1).sub("inbox.x", 2)
    wire.settle()

    def ask(function, message, *chain):
        head = "".join(["NATS/1.0\r\n", *[f"mir-trigger-chain: {link}\r\n" for link in chain], "\r\n"]).encode()
        body = message.SerializeToString()
        subject = subject_of(function)
        wire.send(b"HPUB %s inbox.x %d %d\r\n%s%s\r\n" % (subject.encode(), len(head), len(head) + len(body), head, body))
        frames = [wire.msg()]
        while frames[-1].subject != b"inbox.x":
            frames.append(wire.msg())
        return frames

    devices = [new(f"{name}-{i}", namespace=name) for i in range(3)]
    target = {"namespaces": [name]}
    requests = [
        ("core.creates", api.CreateDevicesRequest(devices=devices), "devicecreated"),
        ("core.update", api.UpdateDeviceRequest(targets=target, meta={"labels": optional(a="1")}), "deviceupdated"),
        ("core.delete", api.DeleteDeviceRequest(targets=target), "devicedeleted"),
    ]
    instances = set()
    for function, message, kind in requests:
        *events, answer = ask(function, message, "first-1234567", "second-7654321")
        got = sorted(frame.subject.decode() for frame in events)
        assert got == [f"event.{name}-{i}.core.v1alpha.{kind}" for i in range(3)]
        for frame in events:
            *before, last = chain_of(frame)
            assert before == ["first-1234567", "second-7654321"]
            instances.add(last)
        assert len(chain_of(answer)) == 1
        instances.add(chain_of(answer)[0])
        assert len(getattr(api, SERVICES[function][1]).FromString(answer.body).ok.devices) == 3
    (instance,) = instances
    assert instance.startswith("mir-") and len(instance) == len("mir-") + 7
    # Without a chain the server's own name begins it.
    event, answer = ask("core.create", api.CreateDeviceRequest(device=new(f"{name}-x")))
    assert chain_of(event) == chain_of(answer) == [instance]
    wire.settle()


# --- schema refresh


def test_refresh_of_a_live_device(bus, server, connect, name, pump):
    bus.create(name)
    device = connect.device(server, name, schema=pump)
    (entry,) = bus.ask("core.schema", targets={"ids": [name]}).devices
    assert entry.error == "" and entry.device.spec.device_id == name
    schema = entry.device.status.schema
    assert unzstd(schema.compressed_schema) == pump
    assert set(schema.package_names) == {"pump.v1", "mir.device.v1", "google.protobuf"}
    assert -1 < seconds_ago(schema.last_schema_fetch) < 60
    assert bus.kinds(name) == ["devicecreated", "deviceupdated"]
    assert bus.device(name).status.schema == schema
    (question,) = device.asked
    assert question.subject == f"{name}.v1alpha.schema" and question.data == b""
    assert question.headers["mir-request-encoding"] == "mir-zstd"
    assert question.headers["mir-trigger-chain"].startswith("mir-")
    # Asked anew each time.
    (entry,) = bus.ask("core.schema", targets={"ids": [name]}).devices
    assert entry.error == "" and len(device.asked) == 2


def test_refresh_takes_answers_that_are_not_compressed(bus, server, connect, name, pump):
    bus.create(name)
    connect.device(server, name, schema=pump, compress=False)
    (entry,) = bus.ask("core.schema", targets={"ids": [name]}).devices
    assert entry.error == "" and unzstd(entry.device.status.schema.compressed_schema) == pump


def test_refresh_of_several(shared, connect, name, pump):
    server = shared({"schema.request_timeout": "300ms"})
    bus = connect(server)
    for letter in "abcdef":
        bus.create(f"{name}-{letter}", namespace=name)
    connect.device(server, f"{name}-a", schema=pump)
    connect.device(server, f"{name}-b", error="error occure while marshalling schema: x")
    connect.device(server, f"{name}-c")  # never answers
    connect.device(server, f"{name}-d", schema=b"no schema")
    connect.device(server, f"{name}-e", schema=b"")
    entries = bus.ask("core.schema", targets={"namespaces": [name]}).devices
    errors = {entry.device.spec.device_id.rpartition("-")[2]: entry.error for entry in entries}
    assert sorted(errors) == list("abcdef")
    assert errors["a"] == ""
    assert errors["b"].startswith("cannot reconcile device schema: ")
    assert errors["b"].endswith("error occure while marshalling schema: x")
    assert errors["c"] == PULL + "nats: timeout"
    assert errors["f"] == PULL + "nats: no responders available for request"
    for letter in "de":
        assert errors[letter].startswith("cannot reconcile device schema: ")
    bus.settle()
    for entry in entries:
        device = entry.device.spec.device_id
        fetched = entry.device.status.schema.HasField("last_schema_fetch")
        assert fetched == (device == f"{name}-a")
        assert bus.kinds(device) == ["devicecreated"] + (["deviceupdated"] if fetched else [])


def test_refresh_of_nobody(bus, name):
    assert refused(bus, "core.schema", targets={"ids": [name]}) == "no device found with current targets criteria"


# --- what was said is so


def test_many_requests_at_once(bus, name):
    """They are served side by side, each is answered, and each id is given once."""
    count = 300
    answers = []
    for i in range(count):
        answers.append(bus.answer_name())
        body = api.CreateDeviceRequest(device=new(f"{name}-{i % 100}", namespace=name)).SerializeToString()
        bus.send("core.create", body, answers[-1])
    responses = [api.CreateDeviceResponse.FromString(bus.answer(answer)[1].data) for answer in answers]
    arms = [response.WhichOneof("response") for response in responses]
    assert arms.count("ok") == 100 and arms.count("error") == 200
    assert all("already exist" in response.error for response in responses if response.error)
    assert len(bus.ids(namespaces=[name])) == 100
    assert len(bus.events(kind="devicecreated")) == 100


@pytest.mark.timeout(120)
def test_what_was_answered_outlives_a_kill(launch, connect):
    server = launch()
    dice = random.Random(7)
    there, gone = set(), set()
    serial = 0
    for _ in range(max(3, int(20 / PATIENCE))):
        bus = connect(server)
        asked = {}  # answer -> what was asked, for which device
        for _ in range(dice.randrange(20, 120)):
            answer = bus.answer_name()
            if there and dice.random() < 0.2:
                device = there.pop()  # Neither there nor gone before an answer says so.
                asked[answer] = "core.delete", device
                body = api.DeleteDeviceRequest(targets={"ids": [device]}).SerializeToString()
            else:
                serial += 1
                asked[answer] = "core.create", f"k{serial}"
                body = api.CreateDeviceRequest(device=new(f"k{serial}")).SerializeToString()
            bus.send(asked[answer][0], body, answer)
        enough = dice.randrange(1, len(asked))
        answered = partial(heard_answers, bus, asked)
        wait_until(lambda: len(answered()) >= enough, DEADLINE_S, "some answers")
        server.kill()
        bus.close()
        for function, device, body in answered():
            response = getattr(api, SERVICES[function][1]).FromString(body)
            assert response.WhichOneof("response") == "ok", response.error
            (there if function == "core.create" else gone).add(device)
        server.start()
        listed = set(connect(server).ids())
        assert there <= listed, "it was created, and is not there"
        assert not gone & listed, "it was deleted, and is there"
        there |= listed  # What was not answered may have been done.
    assert len(there) > 0 and len(gone) > 0


def heard_answers(bus, asked):
    return [(*asked[message.subject], message.data) for message in list(bus.heard) if message.subject in asked]


def test_stop_with_requests_under_way(launch, connect, name):
    """Whatever a request waits for (the writer, a shard, a silent device), it does not hold up the end."""
    server = launch()
    bus = connect(server)
    bus.create(name)
    silent = connect.device(server, name)
    for i in range(300):
        body = api.CreateDeviceRequest(device=new(f"{name}-{i}")).SerializeToString()
        bus.send("core.create", body, bus.answer_name())
        bus.send("sys.status", b"", bus.answer_name())
    body = api.RefreshDeviceSchemaRequest(targets={"ids": [name]}).SerializeToString()
    for _ in range(5):
        bus.send("core.schema", body, bus.answer_name())
    wait_until(lambda: silent.asked, DEADLINE_S, "the device was asked")
    for i in range(300):
        body = api.CreateDeviceRequest(device=new(f"{name}-late-{i}")).SerializeToString()
        bus.send("core.create", body, bus.answer_name())
    server.stop()
    made = {event.device for event in bus.events(kind="devicecreated")}
    server.start()
    assert made <= set(connect(server).ids())


def test_devices_by_their_liveness(bus, name):
    """Whether a device is online is a condition like any other, also for changes and commands."""
    ids = [f"{name}-{i}" for i in range(4)]
    for i, device in enumerate(ids):
        bus.create(device, namespace=f"{name}-ns", disabled=i == 3)
    bus.heartbeat(ids[0])
    bus.heartbeat(ids[1])
    wait_until(lambda: all(bus.device(device).status.online for device in ids[:2]), DEADLINE_S, "they are online")
    everybody = {"namespaces": [f"{name}-ns"]}
    assert bus.ids(**everybody, liveness=["online"]) == ids[:2]
    assert bus.ids(**everybody, liveness=["offline"]) == [ids[2]]
    assert bus.ids(**everybody, liveness=["disabled"]) == [ids[3]]
    assert bus.ids(**everybody, liveness=["offline", "disabled"]) == ids[2:]
    assert bus.ids(ids=[ids[0], ids[2]], liveness=["online"]) == [ids[0]]
    assert set(ids[:2]) <= set(bus.ids(liveness=["online"])) and ids[2] not in bus.ids(liveness=["online"])
    gone = bus.ask("core.delete", targets={**everybody, "liveness": ["offline"]})
    assert [device.spec.device_id for device in gone.devices] == [ids[2]]
    with pytest.raises(Refused, match="'asleep' is no liveness of a device: it is online, offline or disabled"):
        bus.list(**everybody, liveness=["asleep"])
