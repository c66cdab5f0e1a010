# SPDX-License-Identifier: Apache-2.0
"""Configuration: desired properties on their way to devices, and what devices report of them."""

import base64
import json
import time

import pytest
from bus import DEADLINE_S, NO_RESPONDERS, PULL, ConfiguredDevice, Refused, api, schema_of, seconds_ago, unzstd
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

from wire import wait_until

pytestmark = pytest.mark.alone("it knows no configuration")

HEATER = """
syntax = "proto3";
package heater.v1;
import "mir/device/v1/mir.proto";

enum Mode { MODE_UNSPECIFIED = 0; MODE_DAY = 1; MODE_NIGHT = 2; }
message Burner {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG;
    option (mir.device.v1.meta) = {tags: [{key: "kind", value: "heat"}, {key: "risk", value: "high"}]};
    int32 gas_level = 1 [(mir.device.v1.field_meta).unit = "%"];
    int64 power = 2;
    bool valve_open = 3;
}
message Rate {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG;
    option (mir.device.v1.meta) = {tags: [{key: "kind", value: "time"}, {key: "risk", value: "low"}]};
    int32 interval = 1;
}
message Program {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG;
    option (mir.device.v1.meta) = {tags: [{key: "kind", value: "time"}]};
    message Slot { int32 hour = 1; double celsius = 2; }
    Mode mode = 1;
    repeated Slot slots = 2;
    map<string, int32> offsets = 3;
    optional string note = 4;
    bytes key = 5;
    oneof until { int64 minutes = 6; bool for_ever = 7; }
}
message Plain { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; string text = 1; }
message Position { int32 percent = 1; int64 steps = 2; }
message Warmth {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double celsius = 2;
}
"""

LAMP = """
syntax = "proto3";
package lamp.v1;
import "mir/device/v1/mir.proto";
message Light { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; bool on = 1; }
"""

JSON, PROTOBUF = 2, 1
VALIDATED, NOCHANGE, ERROR, SUCCESS = 2, 3, 4, 5
BURNER = {"gasLevel": 7, "power": "12", "valveOpen": True}
BURNER_TEXT = '{"gasLevel":7,"power":"12","valveOpen":true}'
BURNER_DEFAULT = '{"gasLevel":0,"power":"0","valveOpen":false}'
DESCRIPTOR = "error retrieve config descriptor from device schema: "
NAMES = ["heater.v1.Burner", "heater.v1.Rate", "heater.v1.Program", "heater.v1.Plain"]


class Kinds:
    """The message classes of a schema by their short names."""

    def __init__(self, set_bytes, package):
        pool = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(set_bytes).file:
            pool.Add(file)
        self.find, self.package = pool.FindMessageTypeByName, package
        self.factory = message_factory.MessageFactory(pool)

    def __getattr__(self, name):
        return self.factory.GetPrototype(self.find(f"{self.package}.{name}"))


@pytest.fixture(scope="session")
def heater_schema():
    return schema_of(HEATER, "heater.proto")


@pytest.fixture(scope="session")
def heater(heater_schema):
    return Kinds(heater_schema, "heater.v1")


@pytest.fixture(scope="session")
def lamp_schema():
    return schema_of(LAMP, "lamp.proto")


@pytest.fixture
def device(loop, bus, server, heater_schema, name):
    """device("a", …): a created device with handlers for all its properties, launched unless told not to."""
    devices = []

    def make(suffix, schema=heater_schema, handled=tuple(NAMES), launch=True, create=True, namespace="plant", title="",
             **how):
        made_id = f"{name}-{suffix}"
        if create:
            bus.create(made_id, title, namespace=namespace)
        made = ConfiguredDevice(loop, server, made_id, schema, handled=handled, **how)
        devices.append(made)
        if launch:
            made.launch()
        return made

    yield make
    for made in devices:
        made.close()


def ids_of(devices):
    return {"ids": [made if isinstance(made, str) else made.id for made in devices]}


def send(bus, *devices, name="heater.v1.Burner", payload=BURNER, payload_encoding=JSON, **fields):
    if isinstance(payload, dict):
        payload = json.dumps(payload)
    if isinstance(payload, str):
        payload = payload.encode()
    return bus.ask(
        "cfg.send",
        targets=ids_of(devices),
        name=name,
        payload=payload,
        payload_encoding=payload_encoding,
        **fields,
    )


def one(bus, made, **fields):
    entries = send(bus, made, **fields).device_responses
    assert list(entries) == [f"{made.id}/plant"]
    return entries[f"{made.id}/plant"]


def listed(bus, *devices, **fields):
    return list(bus.ask("cfg.list", targets=ids_of(devices), **fields).device_configs)


def values(bus, made):
    (group,) = listed(bus, made)
    return dict(group.cfg_values[0].values)


def state(bus, made, name="heater.v1.Burner"):
    (group,) = listed(bus, made)
    return group.cfg_values[0].states[name]


def calls(made, name="heater.v1.Burner"):
    return [payload for called, payload in made.calls if called == name]


def await_calls(made, count, name="heater.v1.Burner"):
    wait_until(lambda: len(calls(made, name)) >= count, DEADLINE_S, f"{count} calls of {name}")
    made.flush()
    assert len(calls(made, name)) == count


def cfg_events(bus, made, kind="desiredproperties"):
    bus.settle()
    return bus.events(made.id, kind, module="cfg")


# --- listing


def test_configs_are_listed_in_the_order_of_their_declaration(bus, device):
    made = device("a")
    (group,) = listed(bus, made)
    assert group.error == ""
    assert [descriptor.name for descriptor in group.cfg_descriptors] == NAMES
    labels = [dict(descriptor.labels) for descriptor in group.cfg_descriptors]
    assert labels[0] == {"__tag_kind": "heat", "__tag_risk": "high", "__unit_gas_level": "%"}
    assert labels[1] == {"__tag_kind": "time", "__tag_risk": "low"} and labels[3] == {}
    templates = [descriptor.template for descriptor in group.cfg_descriptors]
    assert templates[0] == '{"gasLevel":0,"power":0,"valveOpen":false}'
    assert [descriptor.error for descriptor in group.cfg_descriptors] == [""] * 4


def test_values_are_listed_for_each_device_with_defaults_for_what_was_never_sent(bus, device):
    first, second = device("a"), device("b")
    one(bus, first)
    (group,) = listed(bus, first, second)
    assert {pair.id.device_id for pair in group.cfg_values} == {first.id, second.id}
    by_id = {pair.id.device_id: pair for pair in group.cfg_values}
    assert (by_id[first.id].id.name, by_id[first.id].id.namespace) == (first.id, "plant")
    assert dict(by_id[first.id].values) == {
        "heater.v1.Burner": BURNER_TEXT,
        "heater.v1.Rate": '{"interval":0}',
        "heater.v1.Program": '{"key":"","mode":"MODE_UNSPECIFIED","note":"","offsets":{},"slots":[]}',
        "heater.v1.Plain": '{"text":""}',
    }
    assert by_id[second.id].values["heater.v1.Burner"] == BURNER_DEFAULT


def test_values_of_a_device_that_never_asked_are_templates(bus, device):
    made = device("a", launch=False)
    made.hello(made.id, made.schema)
    wait_until(lambda: bus.device(made.id).status.online, DEADLINE_S, "online")
    assert values(bus, made)["heater.v1.Burner"] == '{"gasLevel":0,"power":0,"valveOpen":false}'
    (group,) = listed(bus, made)
    assert not group.cfg_values[0].states


def test_configs_are_filtered_by_labels_and_the_schema_is_asked_for(bus, device):
    made = device("a")
    made.asked.clear()
    (group,) = listed(bus, made, filter_labels={"__tag_kind": "time", "__tag_risk": "low"}, refresh_schema=True)
    assert [descriptor.name for descriptor in group.cfg_descriptors] == ["heater.v1.Rate"]
    assert list(group.cfg_values[0].values) == ["heater.v1.Rate"]
    assert len(made.asked) == 1


def test_a_device_without_a_schema_is_in_a_group_of_its_error(bus, device, name):
    made = device("a")
    bus.create(f"{name}-away", namespace="plant")
    error, group = listed(bus, made, f"{name}-away")
    assert error.error == PULL + NO_RESPONDERS
    assert [pair.id.device_id for pair in error.cfg_values] == [f"{name}-away"]
    assert not error.cfg_values[0].values and not error.cfg_descriptors
    assert group.error == "" and [pair.id.device_id for pair in group.cfg_values] == [made.id]


def test_a_list_for_an_unknown_device_is_refused(bus, name):
    with pytest.raises(Refused, match="^no device found with current targets criteria$"):
        listed(bus, f"{name}-nobody")


def test_configs_are_listed_by_the_package_of_a_schema(bus, device, name):
    made = device("a")
    bus.create(f"{name}-away", namespace="plant")
    groups = bus.ask("cfg.list", targets={"schemas": ["heater.v1"]}).device_configs
    found = {pair.id.device_id for group in groups for pair in group.cfg_values}
    assert made.id in found and f"{name}-away" not in found
    with pytest.raises(Refused, match="no device found"):
        bus.ask("cfg.list", targets={"schemas": ["heater.v2"], "ids": [made.id]})


# --- sending


def test_a_protobuf_config_reaches_the_handler_and_is_echoed(bus, device, heater):
    made = device("a")
    payload = heater.Burner(gas_level=7, power=12, valve_open=True).SerializeToString()
    response = send(bus, made, payload=payload, payload_encoding=PROTOBUF)
    entry = response.device_responses[f"{made.id}/plant"]
    assert response.encoding == PROTOBUF
    assert (entry.status, entry.name, entry.device_id, entry.error) == (SUCCESS, "heater.v1.Burner", made.id, "")
    assert heater.Burner.FromString(entry.payload) == heater.Burner.FromString(payload)
    await_calls(made, 2)  # its default at the launch, and this
    assert calls(made) == [heater.Burner().SerializeToString(), payload]


def test_a_json_config_reaches_the_handler(bus, device, heater):
    made = device("a")
    response = send(bus, made)
    entry = response.device_responses[f"{made.id}/plant"]
    assert response.encoding == JSON
    assert (entry.status, entry.payload) == (SUCCESS, BURNER_TEXT.encode())
    await_calls(made, 2)
    assert heater.Burner.FromString(calls(made)[1]) == heater.Burner(gas_level=7, power=12, valve_open=True)
    (pushed,) = made.pushed
    assert pushed.subject == f"{made.id}.v1alpha.config" and pushed.reply == ""
    assert pushed.headers["mir-msg"] == "heater.v1.Burner"


def test_an_empty_request_is_refused(bus):
    with pytest.raises(Refused) as refused:
        bus.ask("cfg.send")
    assert str(refused.value) == (
        "error occure because of bad request: [No device target provided No command name provided "
        "Command encoding not specified No command payload provided]"
    )


def test_values_that_were_sent_are_shown(bus, device):
    made = device("a")
    one(bus, made)
    entry = one(bus, made, payload=b"", show_values=True)
    assert (entry.status, entry.name, entry.payload) == (SUCCESS, "heater.v1.Burner", BURNER_TEXT.encode())
    shown = send(bus, made, payload=b"", show_values=True, payload_encoding=PROTOBUF)
    assert shown.device_responses[f"{made.id}/plant"].payload == BURNER_TEXT.encode()
    with pytest.raises(Refused, match="Command encoding not specified"):
        one(bus, made, payload=b"", show_values=True, payload_encoding=0)


def test_the_time_of_acceptance_is_stored(bus, device):
    made = device("a")
    one(bus, made)
    stored = bus.device(made.id).status.properties.desired["heater.v1.Burner"]
    assert 0 <= seconds_ago(stored) < DEADLINE_S
    assert made.values["heater.v1.Burner"][0].startswith(time.strftime("%Y-%m-", time.gmtime(stored.seconds)))


def test_the_same_config_only_if_different_changes_nothing(bus, device):
    made = device("a")
    one(bus, made)
    await_calls(made, 2)
    version = bus.device(made.id).status.version
    entry = one(bus, made, send_only_different=True)
    assert (entry.status, entry.name, entry.payload) == (NOCHANGE, "heater.v1.Burner", b"")
    await_calls(made, 2)
    assert bus.device(made.id).status.version == version


def test_the_same_config_is_sent_again_when_asked_for(bus, device):
    made = device("a")
    one(bus, made)
    assert one(bus, made).status == SUCCESS
    await_calls(made, 3)


def test_a_different_config_only_if_different_is_sent(bus, device):
    made = device("a")
    one(bus, made)
    assert one(bus, made, payload={"gasLevel": 8}, send_only_different=True).status == SUCCESS
    await_calls(made, 3)


def test_a_config_for_an_unknown_device_is_refused(bus, name):
    with pytest.raises(Refused) as refused:
        send(bus, f"{name}-nobody")
    assert str(refused.value) == "error sending config to devices: no device found with current targets criteria"


def test_a_dry_run_only_validates(bus, device):
    made = device("a")
    entry = one(bus, made, dry_run=True)
    assert (entry.status, entry.device_id, entry.payload) == (VALIDATED, made.id, b"")
    await_calls(made, 1)
    assert values(bus, made)["heater.v1.Burner"] == BURNER_DEFAULT


def test_a_dry_run_tells_what_would_change_nothing(bus, device):
    made = device("a")
    one(bus, made)
    assert one(bus, made, dry_run=True, send_only_different=True).status == NOCHANGE
    assert one(bus, made, dry_run=True, send_only_different=True, payload={"gasLevel": 8}).status == VALIDATED
    await_calls(made, 2)


def test_answers_and_events_go_by_the_name_of_a_device(bus, device, name):
    """Which need not be its id, by which it is asked."""
    made = device("a", title=f"{name}-boiler")
    entries = send(bus, made).device_responses
    assert list(entries) == [f"{name}-boiler/plant"] and entries[f"{name}-boiler/plant"].device_id == made.id
    (group,) = bus.ask("cfg.list", targets={"names": [f"{name}-boiler"]}).device_configs
    pair = group.cfg_values[0].id
    assert (pair.device_id, pair.name, pair.namespace) == (made.id, f"{name}-boiler", "plant")
    (event,) = cfg_events(bus, made)
    meta = event.spec.related_object.meta
    assert (meta.name, meta.namespace) == (f"{name}-boiler", "plant")
    await_calls(made, 2)


def test_an_unknown_config_is_refused_with_those_that_there_are(bus, device):
    made = device("a")
    entry = one(bus, made, name="heater.v1.Nothing")
    assert (entry.status, entry.name, entry.payload) == (ERROR, "", b"")
    assert entry.error.startswith(DESCRIPTOR + "cannot reconcile device schema: proto: not found")
    assert "heater.v1.Burner, heater.v1.Rate" in entry.error
    assert len(made.asked) == 1  # once more for its schema


def test_two_devices_get_a_protobuf_config(bus, device, heater):
    first, second = device("a"), device("b")
    payload = heater.Burner(gas_level=1).SerializeToString()
    entries = send(bus, first, second, payload=payload, payload_encoding=PROTOBUF).device_responses
    assert {entry.status for entry in entries.values()} == {SUCCESS} and len(entries) == 2
    await_calls(first, 2)
    await_calls(second, 2)


def test_a_device_without_a_handler_is_a_success_too(bus, device):
    devices = [device("a"), device("b"), device("c", handled=())]
    entries = send(bus, *devices).device_responses
    assert [entries[f"{made.id}/plant"].status for made in devices] == [SUCCESS] * 3
    await_calls(devices[0], 2)
    await_calls(devices[1], 2)
    wait_until(lambda: devices[2].pushed, DEADLINE_S, "the push")
    assert devices[2].calls == []


def test_two_devices_get_a_json_config(bus, device):
    first, second = device("a"), device("b")
    entries = send(bus, first, second).device_responses
    assert {entry.payload for entry in entries.values()} == {BURNER_TEXT.encode()}
    await_calls(first, 2)
    await_calls(second, 2)


def test_an_unknown_config_reaches_no_handler(bus, device):
    first, second = device("a"), device("b")
    entries = send(bus, first, second, name="heater.v1.Nothing").device_responses
    assert [entry.status for entry in entries.values()] == [ERROR, ERROR]
    await_calls(first, 1)
    await_calls(second, 1)
    assert not first.pushed and not second.pushed


def test_one_device_in_error_holds_all_back_unless_pushed(bus, device, lamp_schema):
    good = device("a")
    bad = device("b", schema=lamp_schema, handled=("lamp.v1.Light",))
    entries = send(bus, good, bad).device_responses
    assert entries[f"{good.id}/plant"].status == VALIDATED
    assert DESCRIPTOR in entries[f"{bad.id}/plant"].error
    await_calls(good, 1)
    entries = send(bus, good, bad, force_push=True).device_responses
    assert (entries[f"{good.id}/plant"].status, entries[f"{bad.id}/plant"].status) == (SUCCESS, ERROR)
    await_calls(good, 2)
    assert not bad.pushed


def test_a_template_is_shown_for_each_device(bus, device):
    first, second = device("a"), device("b")
    entries = send(bus, first, second, payload=b"", payload_encoding=0, show_template=True).device_responses
    for entry in entries.values():
        assert (entry.status, entry.name) == (SUCCESS, "heater.v1.Burner")
        assert entry.payload == b'{"gasLevel":0,"power":0,"valveOpen":false}'
    assert len(entries) == 2
    await_calls(first, 1)
    assert one(bus, first, name="program", payload=b"", show_template=True).payload == (
        b'{"mode":"MODE_UNSPECIFIED|MODE_DAY|MODE_NIGHT","slots":[{"hour":0,"celsius":0.0}],'
        b'"offsets":{"string":0},"note":"","key":[0, 255],"minutes":0,"forEver":false}'
    )


def test_a_template_goes_before_values(bus, device):
    made = device("a")
    one(bus, made)
    entry = one(bus, made, payload=b"", show_template=True, show_values=True)
    assert (entry.status, entry.payload) == (SUCCESS, b'{"gasLevel":0,"power":0,"valveOpen":false}')


def test_a_template_of_an_unreachable_device_is_an_error(bus, device, name):
    made = device("a")
    bus.create(f"{name}-away", namespace="plant")
    entries = send(bus, made, f"{name}-away", payload=b"", show_template=True).device_responses
    entry = entries[f"{name}-away/plant"]
    assert (entry.status, entry.name, entry.payload) == (ERROR, "", b"")
    assert entry.error == DESCRIPTOR + PULL + NO_RESPONDERS
    assert entries[f"{made.id}/plant"].status == SUCCESS


def test_a_name_may_carry_labels_or_be_short(bus, device):
    made = device("a")
    assert one(bus, made, name="heater.v1.Burner{kind=heat, risk=high}").name == "heater.v1.Burner"
    assert one(bus, made, name="burner{}").name == "heater.v1.Burner"
    assert list(bus.device(made.id).properties.desired) != ["burner"]
    await_calls(made, 3)


def test_any_message_of_the_schema_can_be_a_config(bus, device):
    made = device("a")
    assert one(bus, made, name="heater.v1.Position", payload={"percent": 3}).status == SUCCESS


# --- events


def test_a_send_is_exactly_one_event_and_defaults_are_none(bus, device):
    made = device("a")
    assert cfg_events(bus, made) == []
    entry = one(bus, made)
    assert entry.status == SUCCESS
    (event,) = cfg_events(bus, made)
    assert (event.spec.reason, event.spec.type) == ("DeviceDesiredProps", "normal")
    assert event.spec.message == "Device desired properties updated successfully"
    assert event.payload["heater.v1.Burner"] == BURNER and set(event.payload) == set(NAMES)
    meta = event.spec.related_object.meta
    assert (meta.name, meta.namespace) == (made.id, "plant")
    assert bus.kinds(made.id).count("deviceupdated") == 1  # of its hello


def test_the_event_comes_before_the_push_and_the_answer(bus, device):
    made = device("a")
    order = []

    async def hear(message):
        order.append(message.subject)

    bus.subscribe(f"{made.id}.v1alpha.config", hear)
    bus.subscribe(f"event.{made.id}.cfg.v1alpha.desiredproperties", hear)
    name = bus.answer_name()
    bus.subscribe(name, hear)
    request = api.SendConfigRequest(
        targets=ids_of([made]), name="heater.v1.Rate", payload=b'{"interval":1}', payload_encoding=JSON
    )
    bus.send("cfg.send", request.SerializeToString(), name)
    wait_until(lambda: len(order) == 3, DEADLINE_S, "event, push, answer")
    assert order == [f"event.{made.id}.cfg.v1alpha.desiredproperties", f"{made.id}.v1alpha.config", name]


def test_the_chain_of_the_request_goes_on(bus, device):
    made = device("a")
    request = api.SendConfigRequest(
        targets=ids_of([made]), name="heater.v1.Rate", payload=b'{"interval":1}', payload_encoding=JSON
    )
    bus.raw("cfg.send", request.SerializeToString(), headers={"mir-trigger-chain": "tester-1"})
    (event,) = bus.ask(
        "evt.list", target={"targets": {"names": [f"{made.id}-*"], "labels": {"reason": "DeviceDesiredProps"}}}
    ).events
    first, last = event.object.meta.annotations["mir-trigger-chain"].split(",")
    assert first == "tester-1" and last.startswith("mir-")
    assert event.object.meta.annotations["mir-route"] == f"event.{made.id}.cfg.v1alpha.desiredproperties"
    assert json.loads(event.spec.json_payload)["heater.v1.Rate"] == {"interval": 1}


# --- what is stored


def test_the_order_of_keys_never_matters(bus, device):
    made = device("a")
    one(bus, made, payload='{"valveOpen":true,"power":"12","gasLevel":7}')
    assert values(bus, made)["heater.v1.Burner"] == BURNER_TEXT
    entry = one(bus, made, payload='{"power":12.0,"valveOpen":true,"gasLevel":"7"}', send_only_different=True)
    assert entry.status == NOCHANGE


def test_a_protobuf_config_compares_with_a_json_one(bus, device, heater):
    made = device("a")
    one(bus, made)
    payload = heater.Burner(gas_level=7, power=12, valve_open=True).SerializeToString()
    entry = one(bus, made, payload=payload, payload_encoding=PROTOBUF, send_only_different=True)
    assert entry.status == NOCHANGE


def test_letter_case_is_a_difference(bus, device):
    made = device("a")
    one(bus, made, name="heater.v1.Plain", payload={"text": "On"})
    entry = one(bus, made, name="heater.v1.Plain", payload={"text": "on"}, send_only_different=True)
    assert entry.status == SUCCESS


def test_names_in_snake_case_are_normalized(bus, device):
    made = device("a")
    entry = one(bus, made, payload={"gas_level": "7", "power": 12, "valve_open": True})
    assert entry.payload == BURNER_TEXT.encode()
    made.values.clear()
    made.launch()
    assert "heater.v1.Burner" in made.values


def test_false_and_zero_are_kept(bus, device):
    made = device("a")
    one(bus, made)
    entry = one(bus, made, payload={"valveOpen": False, "gasLevel": 0})
    assert entry.payload == b'{"gasLevel":0,"power":"12","valveOpen":false}'


def test_parts_are_merged_and_the_device_gets_what_was_requested(bus, device, heater):
    made = device("a")
    one(bus, made)
    assert one(bus, made, payload={"gasLevel": 9}).payload == b'{"gasLevel":9,"power":"12","valveOpen":true}'
    await_calls(made, 3)
    assert heater.Burner.FromString(calls(made)[2]) == heater.Burner(gas_level=9)


def test_null_removes_a_field(bus, device):
    made = device("a")
    one(bus, made, name="heater.v1.Program", payload={"note": "x", "mode": 1, "offsets": {"a": 1, "b": 2}})
    entry = one(bus, made, name="heater.v1.Program", payload={"note": None})
    assert entry.payload == b'{"key":"","mode":"MODE_DAY","offsets":{"a":1,"b":2},"slots":[]}'


def test_a_protobuf_config_resets_to_defaults(bus, device, heater):
    made = device("a")
    one(bus, made)
    payload = heater.Burner(power=3).SerializeToString()
    assert one(bus, made, payload=payload, payload_encoding=PROTOBUF).status == SUCCESS
    assert values(bus, made)["heater.v1.Burner"] == '{"gasLevel":0,"power":"3","valveOpen":false}'
    one(bus, made, name="heater.v1.Program", payload={"offsets": {"a": 1}, "note": "x"})
    one(bus, made, name="heater.v1.Program", payload=b"", payload_encoding=PROTOBUF)
    program = '{"key":"","mode":"MODE_UNSPECIFIED","offsets":{},"slots":[]}'
    assert values(bus, made)["heater.v1.Program"] == program


@pytest.mark.parametrize(
    ("payload", "why"),
    [
        ('{"gasLevel":"x"}', "invalid value for int32 field gas_level"),
        ('{"nope":1}', 'unknown field "nope"'),
        ('{"gasLevel":1,"gas_level":1}', "duplicate field"),
        ("[]", "unexpected token"),
        ("{", "unexpected end"),
        ('{"valveOpen":1}', "unexpected token"),
    ],
)
def test_a_wrong_payload_changes_nothing(bus, device, payload, why):
    made = device("a")
    entry = one(bus, made, payload=payload)
    assert entry.status == ERROR and entry.error.startswith("error unmarshaling payload: ") and why in entry.error
    assert values(bus, made)["heater.v1.Burner"] == BURNER_DEFAULT
    assert cfg_events(bus, made) == []


def test_wrong_protobuf_is_refused(bus, device):
    entry = one(bus, device("a"), payload=b"\x0a\xff", payload_encoding=PROTOBUF)
    assert entry.status == ERROR and entry.error.startswith("error unmarshaling payload: ")


# --- versions


def test_a_version_grows_by_one_and_is_told(bus, device):
    made = device("a")
    before = bus.device(made.id).status.version
    entry = one(bus, made)
    assert entry.version == before + 1 == bus.device(made.id).status.version
    assert one(bus, made, send_only_different=True).version == before + 1


def test_a_config_for_another_version_is_refused(bus, device):
    first, second = device("a"), device("b")
    version = bus.device(first.id).status.version
    bus.ask("core.update", targets=ids_of([first]), meta={"labels": {"a": api.OptString(value="b")}})
    text = f"error updating device properties in store: device {first.id}/plant has version {version + 1}, not {version}"
    entry = one(bus, first, if_version=version)
    assert (entry.status, entry.error) == (ERROR, text)
    assert one(bus, first, if_version=version, dry_run=True).error == text
    assert values(bus, first)["heater.v1.Burner"] == BURNER_DEFAULT
    assert one(bus, first, if_version=version + 1).status == SUCCESS
    assert one(bus, second).status == SUCCESS


def test_of_two_that_know_the_same_version_one_is_refused(bus, device):
    made = device("a")
    version = bus.device(made.id).status.version
    statuses = [one(bus, made, payload={"power": i}, if_version=version).status for i in range(2)]
    assert statuses == [SUCCESS, ERROR]
    assert values(bus, made)["heater.v1.Burner"] == BURNER_DEFAULT


def test_an_update_for_another_version_is_refused(bus, device):
    made = device("a")
    version = bus.device(made.id).status.version
    change = {"labels": {"a": api.OptString(value="b")}}
    (updated,) = bus.ask("core.update", targets=ids_of([made]), meta=change, if_version=version).devices
    assert updated.status.version == version + 1
    with pytest.raises(Refused) as refused:
        bus.ask("core.update", targets=ids_of([made]), meta=change, if_version=version)
    assert str(refused.value) == (
        f"error updating device: device {made.id}/plant has version {version + 1}, not {version}"
    )


# --- what devices ask for


def test_the_first_launch_stores_defaults_of_all_configs(bus, device, heater):
    made = device("a")
    assert set(made.values) == set(NAMES)
    assert [name for name, _ in made.calls] == list(made.values)
    desired = json_format.MessageToDict(bus.device(made.id).properties.desired)
    assert set(desired) == set(NAMES)
    assert desired["heater.v1.Burner"] == {"gasLevel": 0, "power": "0", "valveOpen": False}
    assert set(bus.device(made.id).status.properties.desired) == set(NAMES)
    # A handler that is registered later is given what is there.
    assert heater.Program.FromString(made.values["heater.v1.Program"][1]).mode == 0
    version = bus.device(made.id).status.version
    assert made.ask_desired().ok.encoding == PROTOBUF
    assert bus.device(made.id).status.version == version


def test_what_was_sent_while_the_device_was_away_is_delivered_at_its_launch(bus, device, heater, heater_schema):
    from bus import zstd

    made = device("a", launch=False, hello=False)
    made.close()
    status = {"schema": {"compressed_schema": zstd(heater_schema), "package_names": ["heater.v1"]}}
    bus.ask("core.update", targets=ids_of([made]), status=status)
    assert one(bus, made).status == SUCCESS
    back = device("a", create=False, hello=False)
    assert heater.Burner.FromString(back.values["heater.v1.Burner"][1]) == heater.Burner(
        gas_level=7, power=12, valve_open=True
    )
    await_calls(back, 1)


def test_one_event_brings_a_schema_that_was_asked_for_and_one_the_labels_after_it(bus, device):
    """Whoever keeps devices and schemas by these events alone has what the server has."""
    made = device("a", hello=False)

    def updates():
        bus.settle()
        return [event.payload for event in bus.events(made.id, "deviceupdated")]

    (pulled,) = updates()
    schema = unzstd(base64.b64decode(pulled["status"]["schema"]["compressedSchema"]))
    assert schema == made.schema and len(made.asked) == 1
    bus.ask("core.update", targets=ids_of([made]), meta={"labels": {"floor": api.OptString(value="2")}})
    _, labelled = updates()
    assert labelled["meta"]["labels"] == {"floor": "2"}
    assert unzstd(base64.b64decode(labelled["status"]["schema"]["compressedSchema"])) == schema
    assert labelled["status"]["schema"] == pulled["status"]["schema"]
    assert len(listed(bus, made)[0].cfg_descriptors) == len(NAMES) and len(made.asked) == 1


def test_an_unknown_device_is_told_so(loop, server, name, heater_schema):
    made = ConfiguredDevice(loop, server, f"{name}-nobody", heater_schema)
    response = made.ask_desired()
    made.close()
    assert response.error == "no device found with current targets criteria"


def test_a_device_whose_schema_cannot_be_had_is_told_so(bus, device):
    made = device("a", schema=None, launch=False)
    made.error = "it is broken"
    assert made.ask_desired().error == "cannot reconcile device schema: it is broken"


def test_a_device_that_says_hello_and_asks_at_once_is_answered(bus, device):
    made = device("a", launch=False, create=False)
    made.publish(f"device.{made.id}.core.v1alpha.hearthbeat")
    made.launch()
    assert set(made.values) == set(NAMES)


def test_the_time_of_a_value_is_the_stored_one(bus, device):
    made = device("a")
    one(bus, made)
    wait_until(lambda: made.pushed, DEADLINE_S, "the push")
    response = made.ask_desired()
    assert response.ok.properties["heater.v1.Burner"].time == made.pushed[0].headers["mir-time"]


def test_what_a_newer_schema_cannot_read_is_left_out(bus, device):
    made = device("a")
    one(bus, made, name="heater.v1.Plain", payload={"text": "x"})
    newer = schema_of(HEATER.replace("string text = 1", "int32 text = 1"), "heater.proto")
    made.schema = newer
    made.values.clear()
    made.launch()
    assert set(made.values) == set(NAMES) - {"heater.v1.Plain"}


def test_a_hundred_devices_that_start_at_once_are_answered(bus, loop, server, name, heater_schema):
    """Through one connection, each with its hello before its request."""
    import asyncio

    devices = [f"{name}-{i}" for i in range(100)]
    one_of_all = ConfiguredDevice(loop, server, f"{name}-x", heater_schema)

    async def start(device):
        hello = api.DeviceHello(hello={"schema": heater_schema}).SerializeToString()
        await one_of_all.client.publish(
            f"device.{device}.core.v1alpha.hearthbeat", hello, headers={"mir-content": "mir-hello"}
        )
        subject = f"device.{device}.cfg.v1alpha.desiredproperties"
        return await one_of_all.client.request(subject, b"", timeout=4 * DEADLINE_S)

    async def start_all():
        return await asyncio.gather(*(start(device) for device in devices))

    replies = loop.run(start_all(), 5 * DEADLINE_S)
    one_of_all.close()
    for reply in replies:
        response = api.DeviceReportedPropertiesResponse.FromString(reply.data)
        assert set(response.ok.properties) == set(NAMES), response.error
    stored = bus.list(ids=[f"{name}-*"])
    assert {len(made.properties.desired) for made in stored} == {4}


# --- through an update


def update(bus, made, desired, **fields):
    request = api.UpdateDeviceRequest(targets=ids_of([made]), **fields)
    request.props.desired.update(desired)
    return bus.ask("core.update", request).devices


def test_an_update_brings_a_desired_property(bus, device, heater):
    made = device("a")
    (updated,) = update(bus, made, {"heater.v1.Burner": {"gasLevel": 7, "power": 12, "valveOpen": True}})
    shown = json_format.MessageToDict(updated.properties.desired)
    assert shown["heater.v1.Burner"] == BURNER
    await_calls(made, 2)  # its default at the launch, and this
    assert heater.Burner.FromString(calls(made)[1]).power == 12
    assert [event.kind for event in cfg_events(bus, made)] == ["desiredproperties"]
    assert bus.kinds(made.id)[-1] == "deviceupdated"


def test_the_same_update_twice_calls_the_handler_once_more(bus, device):
    made = device("a")
    for _ in range(2):
        update(bus, made, {"heater.v1.Burner": BURNER})
    await_calls(made, 2)
    assert len(cfg_events(bus, made)) == 1


def test_an_unknown_field_in_an_update_is_refused(bus, device):
    made = device("a")
    with pytest.raises(Refused) as refused:
        update(bus, made, {"heater.v1.Burner": {"nope": 1}}, meta={"labels": {"a": api.OptString(value="b")}})
    assert str(refused.value).startswith(
        f"error validating config 'heater.v1.Burner' to device {made.id}/plant: error unmarshaling payload: "
    )
    await_calls(made, 1)
    assert not bus.device(made.id).meta.labels


def test_all_problems_of_an_update_are_told(bus, device):
    made = device("a")
    with pytest.raises(Refused) as refused:
        update(bus, made, {"heater.v1.Burner": {"nope": 1}, "heater.v1.Gone": {}, "heater.v1.Rate": None})
    lines = str(refused.value).split("\n")
    assert len(lines) == 3 and all(line.startswith("error validating config '") for line in lines)


def test_an_update_of_properties_needs_a_device(bus, name):
    context = "error validating config 'heater.v1.Burner' to cfg module: "
    with pytest.raises(Refused) as refused:
        update(
            bus,
            f"{name}-nobody",
            {"heater.v1.Burner": BURNER},
            meta={"name": f"{name}-nobody", "namespace": "plant"},
            spec={"device_id": f"{name}-nobody"},
        )
    assert str(refused.value) == (
        context + "error sending config to devices: no device found with current targets criteria"
    )
    request = api.UpdateDeviceRequest()
    request.props.desired.update({"heater.v1.Burner": BURNER})
    with pytest.raises(Refused) as refused:
        bus.ask("core.update", request)
    assert str(refused.value) == context + "error occure because of bad request: [No device target provided]"


def test_an_update_with_a_version_changes_all_or_nothing(bus, device):
    made = device("a")
    version = bus.device(made.id).status.version
    with pytest.raises(Refused, match=f"has version {version}, not {version + 5}"):
        update(bus, made, {"heater.v1.Burner": BURNER}, if_version=version + 5)
    assert values(bus, made)["heater.v1.Burner"] == BURNER_DEFAULT
    (updated,) = update(bus, made, {"heater.v1.Burner": BURNER}, if_version=version)
    assert updated.status.version == version + 1


# --- what devices report


def problems_of(bus, device):
    return {problem.kind: problem.count for problem in bus.device(device).status.problems}


def reported(bus, made):
    return json_format.MessageToDict(bus.device(made.id).properties.reported)


def test_a_property_is_reported_with_one_event(bus, device, heater):
    made = device("a", create=False, namespace="default")
    made.report("heater.v1.Position", heater.Position(percent=4).SerializeToString())
    wait_until(lambda: cfg_events(bus, made, "reportedproperties"), DEADLINE_S, "the event")
    (event,) = cfg_events(bus, made, "reportedproperties")
    assert event.spec.reason == "DeviceReportedProps"
    assert event.spec.message == "Device reported properties updated successfully"
    assert event.payload == {"heater.v1.Position": {"percent": 4, "steps": "0"}}
    assert reported(bus, made) == {"heater.v1.Position": {"percent": 4, "steps": "0"}}
    assert seconds_ago(bus.device(made.id).status.properties.reported["heater.v1.Position"]) < DEADLINE_S
    made.report("heater.v1.Rate", heater.Rate(interval=2).SerializeToString())
    wait_until(lambda: len(cfg_events(bus, made, "reportedproperties")) == 2, DEADLINE_S, "the event")
    assert set(cfg_events(bus, made, "reportedproperties")[1].payload) == {"heater.v1.Position", "heater.v1.Rate"}


def test_what_a_later_report_leaves_out_stays(bus, device, heater):
    """And what was never set is not there, while everything else has its default."""
    made = device("a")
    before = bus.kinds(made.id)

    def report(**fields):
        events = len(cfg_events(bus, made, "reportedproperties"))
        made.report("heater.v1.Program", heater.Program(**fields).SerializeToString())
        wait_until(lambda: len(cfg_events(bus, made, "reportedproperties")) > events, DEADLINE_S, "the event")
        return reported(bus, made)["heater.v1.Program"]

    assert report(offsets={"a": 1}) == {"mode": "MODE_UNSPECIFIED", "slots": [], "offsets": {"a": 1}, "key": ""}
    assert report(note="x", minutes=5)["offsets"] == {"a": 1}
    slots = [{"hour": 6, "celsius": 19.5}]
    assert report(mode=2, slots=slots, offsets={"b": 2}) == {
        "mode": "MODE_NIGHT", "slots": slots, "offsets": {"a": 1, "b": 2}, "key": "", "note": "x", "minutes": "5",
    }
    for event in cfg_events(bus, made, "reportedproperties"):
        assert event.headers["mir-trigger-chain"].startswith("mir-")
    assert bus.kinds(made.id) == before  # it is no update of the device


def test_a_report_right_behind_the_first_hello_is_stored(bus, device, heater):
    made = device("a", create=False, launch=False)
    made.hello(made.id, made.schema)
    made.report("heater.v1.Rate", heater.Rate(interval=2).SerializeToString())
    wait_until(lambda: bus.device(made.id) and reported(bus, made), DEADLINE_S, "the report")
    assert reported(bus, made) == {"heater.v1.Rate": {"interval": 2}}


def test_reports_keep_their_order(bus, device, heater):
    made = device("a", create=False, launch=False)
    made.hello(made.id, made.schema)
    for i in range(200):
        made.publish(
            f"device.{made.id}.cfg.v1alpha.proto",
            heater.Rate(interval=i).SerializeToString(),
            headers={"mir-msg": "heater.v1.Rate"},
        )
    made.flush()
    wait_until(lambda: len(cfg_events(bus, made, "reportedproperties")) == 200, DEADLINE_S, "all events")
    assert reported(bus, made)["heater.v1.Rate"]["interval"] == 199


def test_a_bad_report_is_counted_and_drops_nothing_else(bus, device, heater):
    made = device("a")
    made.report("heater.v1.Rate", b"\x0a\xff")
    made.report("heater.v1.Nothing", b"")
    made.publish(f"device.{made.id}.cfg.v1alpha.proto", b"")
    made.report("heater.v1.Rate", heater.Rate(interval=2).SerializeToString())
    wait_until(lambda: reported(bus, made), DEADLINE_S, "the report")
    assert reported(bus, made) == {"heater.v1.Rate": {"interval": 2}}
    problems = {problem.kind: problem.count for problem in bus.device(made.id).status.problems}
    assert problems == {"property refused": 3}


def test_a_report_of_a_type_that_the_stored_schema_lacks_asks_the_device(launch, connect, loop, name, heater):
    """As telemetry does: the device has learnt the type while nobody listened."""
    older = schema_of(HEATER.replace("message Position { int32 percent = 1; int64 steps = 2; }", ""), "heater.proto")
    newer = schema_of(HEATER, "heater.proto")
    server = launch()
    made = ConfiguredDevice(loop, server, name, older)
    made.launch()
    made.close()
    server.stop()
    server.start()
    bus = connect(server)
    made = ConfiguredDevice(loop, server, name, newer)
    made.heartbeat(name)
    for percent in (4, 5):
        made.report("heater.v1.Position", heater.Position(percent=percent).SerializeToString())
    expected = {"heater.v1.Position": {"percent": 5, "steps": "0"}}
    wait_until(lambda: json_format.MessageToDict(bus.device(name).properties.reported) == expected, DEADLINE_S, "it is there")
    assert [problem.kind for problem in bus.device(name).status.problems] == []
    # What the newest schema lacks, too, is refused, and the device is not asked each time.
    for _ in range(3):
        made.report("heater.v1.Nothing", b"")
    wait_until(lambda: problems_of(bus, name).get("property refused") == 3, DEADLINE_S, "they are refused")
    made.close()


def test_a_report_of_an_unknown_type_is_refused_when_the_device_does_not_answer(launch, connect, loop, name, heater_schema):
    server = launch({"schema.request_timeout": "200ms"})
    made = ConfiguredDevice(loop, server, name, heater_schema)
    made.launch()
    made.close()
    server.stop()
    server.start()
    bus = connect(server)
    bus.publish(f"device.{name}.cfg.v1alpha.proto", b"", headers={"mir-msg": "heater.v1.Nothing"})
    wait_until(lambda: "property refused" in problems_of(bus, name), DEADLINE_S, "it is refused")
    (text,) = [p.message for p in bus.device(name).status.problems if p.kind == "property refused"]
    assert text.startswith("heater.v1.Nothing is not in the device's schema: error requesting device schema"), text


def test_it_is_listed_since_when_desired_and_reported_differ(bus, device, heater):
    made = device("a")
    one(bus, made)
    shown = state(bus, made)
    assert (shown.desired, shown.reported, shown.in_sync) == (BURNER_TEXT, "", False)
    since = shown.differs_since
    made.report("heater.v1.Burner", heater.Burner(gas_level=7, power=12).SerializeToString())
    wait_until(lambda: state(bus, made).reported, DEADLINE_S, "the report")
    shown = state(bus, made)
    assert shown.reported == '{"gasLevel":7,"power":"12","valveOpen":false}'
    assert not shown.in_sync and shown.differs_since == since
    assert shown.desired_at != shown.reported_at
    made.report("heater.v1.Burner", heater.Burner(gas_level=7, power=12, valve_open=True).SerializeToString())
    wait_until(lambda: state(bus, made).in_sync, DEADLINE_S, "in sync")
    assert not state(bus, made).HasField("differs_since")


def test_a_report_by_an_older_config_is_out_of_sync(bus, device, heater):
    made = device("a")
    one(bus, made)
    wait_until(lambda: len(made.pushed) == 1, DEADLINE_S, "the push")
    old = made.pushed[0].headers["mir-time"]
    one(bus, made, payload={"gasLevel": 8})
    wait_until(lambda: len(made.pushed) == 2, DEADLINE_S, "the push")
    for _ in range(2):
        made.report("heater.v1.Burner", heater.Burner(gas_level=8, power=12, valve_open=True).SerializeToString(), old)
    wait_until(lambda: len(cfg_events(bus, made, "reportedproperties")) == 2, DEADLINE_S, "the reports")
    (event,) = cfg_events(bus, made, "outofsync")
    assert (event.spec.type, event.spec.reason) == ("warning", "DeviceConfigOutOfSync")
    assert event.payload["heater.v1.Burner"]["reported"]["gasLevel"] == 8
    assert not state(bus, made).in_sync  # as it says nothing of the newer one, though it looks the same
    new = made.pushed[1].headers["mir-time"]
    made.report("heater.v1.Burner", heater.Burner(gas_level=8, power=12, valve_open=True).SerializeToString(), new)
    wait_until(lambda: state(bus, made).in_sync, DEADLINE_S, "in sync")
    assert len(cfg_events(bus, made, "outofsync")) == 1


# --- what devices never hear


def test_no_answer_is_published_to_a_device(bus, device):
    """Devices end on what they do not know below their id."""
    victim, other = device("a"), device("b")
    heard = len(victim.asked)
    for function in ("cfg.list", "cfg.send", "cmd.send", "core.list", "core.create", "tlm.list"):
        bus.send(function, b"", f"{victim.id}.v1alpha.boom")
        bus.send(function, b"\xff", f"{victim.id}.boom")
    for asker in (victim.id, other.id, "nobody-knows-it"):
        other.publish(f"device.{asker}.cfg.v1alpha.desiredproperties", reply=f"{victim.id}.v1alpha.boom")
    request = api.SendConfigRequest(
        targets=ids_of([other]), name="heater.v1.Rate", payload=b'{"interval":3}', payload_encoding=JSON
    )
    bus.send("cfg.send", request.SerializeToString(), f"{victim.id}.v1alpha.config")
    await_calls(other, 2, "heater.v1.Rate")  # it is carried out all the same
    bus.settle()
    other.ask_desired()
    one(bus, victim)
    await_calls(victim, 2)
    assert len(victim.asked) == heard and len(victim.pushed) == 1
    assert bus.raw("core.list").data  # on a subject that is no device's


# --- a server that is killed


@pytest.mark.timeout(120)
def test_what_was_acknowledged_is_there_once_after_a_kill(launch, connect, heater_schema):
    server = launch()
    bus = connect(server)
    bus.create("d", namespace="plant")
    bus.hello("d", heater_schema)
    wait_until(lambda: bus.device("d").status.schema.package_names, DEADLINE_S, "the schema")
    version = bus.device("d").status.version
    acknowledged = 0

    def request():
        payload = b'{"interval":%d}' % (acknowledged + 1)
        targets = {"ids": ["d"]}
        return api.SendConfigRequest(
            targets=targets, name="heater.v1.Rate", payload=payload, payload_encoding=JSON
        ).SerializeToString()

    for kill in range(8):
        for _ in range(5 * kill):
            bus.raw("cfg.send", request())
            acknowledged += 1
        # One more is under way when it dies.
        bus.send("cfg.send", request(), bus.answer_name())
        server.kill()
        bus.close()
        server.start()
        bus = connect(server)
        stored = bus.device("d")
        desired = json_format.MessageToDict(stored.properties.desired)
        interval = int(desired.get("heater.v1.Rate", {"interval": 0})["interval"])
        assert interval in (acknowledged, acknowledged + 1)
        online = sum(event.kind == "deviceonline" for event in bus.events("d"))
        assert stored.status.version - version - online == interval
        acknowledged = interval
