# SPDX-License-Identifier: Apache-2.0
"""A hub for the command line under test: nats-server carries the messages, Python answers them.

Devices are in a dictionary, targets are matched as the API says, and every request is kept with its headers. The messages come
from the .proto files of the repository through protoc and the Python protobuf library.
Run alone (fake_hub.py [DEVICES [STATUS.json]]), it serves devices on a port until it is interrupted, for a look at the output
by hand.
"""

import asyncio
import ctypes
import fnmatch
import json
import os
import pathlib
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time

import nats
from google.protobuf import descriptor_pb2, descriptor_pool, json_format, message_factory

ROOT = pathlib.Path(__file__).resolve().parents[2]
NATS_SERVER = shutil.which("nats-server") or "/usr/sbin/nats-server"
PATIENCE = float(os.environ.get("MIR_TEST_PATIENCE", "1"))

PUMP_PROTO = """
syntax = "proto3";
package pump.v1;
import "mir/device/v1/mir.proto";
enum Mode { IDLE = 0; RUNNING = 1; }
message Valve { double opening = 1 [(mir.device.v1.field_meta) = {unit: "%"}]; Valve next = 2; }
message Flow {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    option (mir.device.v1.meta) = {tags: {key: "site", value: "north"}};
    mir.device.v1.Timestamp at = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_FRACTION];
    double rate = 2 [(mir.device.v1.field_meta) = {unit: "l/s", tags: {key: "side", value: "in"}}];
    repeated int32 steps = 3;
    map<string, Valve> valves = 4;
    Mode mode = 5;
}
message Stop {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND;
    uint32 after_ms = 1 [(mir.device.v1.field_meta) = {unit: "ms"}];
}
message StartBootup {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND;
    option (mir.device.v1.meta) = {tags: {key: "kind", value: "boot"}};
}
message OpenValve { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND; }
message Open_Valve { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND; }
message Speed { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; int64 rpm = 1; }
message DataRate { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; int32 interval = 1; bool burst = 2; }
message Note { string text = 1; }
"""


def protoc(folder, includes, files):
    out = pathlib.Path(folder) / "set.bin"
    command = ["protoc", *(f"-I{each}" for each in includes), "--include_imports", f"--descriptor_set_out={out}", *files]
    subprocess.run(command, check=True)
    return out.read_bytes()


def zstd(data):
    library = ctypes.CDLL("libzstd.so.1")
    library.ZSTD_compress.restype = library.ZSTD_compressBound.restype = ctypes.c_size_t
    room = library.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(room)
    size = library.ZSTD_compress(out, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)), 3)
    return out.raw[:size]


class Api:
    """The messages of proto/pb by their short name: api.Device, api.ListDeviceRequest."""

    def __init__(self):
        base = ROOT / "proto" / "pb"
        with tempfile.TemporaryDirectory() as folder:
            files = [str(path.relative_to(base)) for path in sorted(base.glob("mir_api/v1/*.proto"))]
            pool = descriptor_pool.DescriptorPool()
            for file in descriptor_pb2.FileDescriptorSet.FromString(protoc(folder, [base], files)).file:
                pool.Add(file)
            pump = pathlib.Path(folder) / "pump.proto"
            pump.write_text(PUMP_PROTO)
            self.pump_set = protoc(folder, [base, folder], ["pump.proto"])
        self.pool = pool
        self.factory = message_factory.MessageFactory(pool)
        self.pump = descriptor_pool.DescriptorPool()
        for file in descriptor_pb2.FileDescriptorSet.FromString(self.pump_set).file:
            self.pump.Add(file)
        self.pump_factory = message_factory.MessageFactory(self.pump)

    def __getattr__(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(f"mir_api.v1.{name}"))


ONLINE, OFFLINE = "online", "offline"
NO_RESPONDERS = "nats: no responders available for request"
MESSAGES = {
    "TELECOMMAND": ["pump.v1.Stop", "pump.v1.StartBootup", "pump.v1.OpenValve", "pump.v1.Open_Valve"],
    "TELECONFIG": ["pump.v1.Speed", "pump.v1.DataRate"],
}
LABELS = {"pump.v1.Stop": {"__unit_after_ms": "ms"}, "pump.v1.StartBootup": {"__tag_kind": "boot"}}
TEMPLATES = {"pump.v1.Stop": '{"afterMs":0}', "pump.v1.Speed": '{"rpm":0}', "pump.v1.DataRate": '{"interval":0,"burst":false}'}


def liveness(device):
    return "disabled" if device.spec.disabled else ONLINE if device.status.online else OFFLINE


def compact(value):
    return json.dumps(value, sort_keys=True, separators=(",", ":"))


def matches(target, device):
    def any_of(patterns, value):
        return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)

    labels = device.meta.labels
    return (
        any_of(target.ids, device.spec.device_id)
        and any_of(target.names, device.meta.name)
        and any_of(target.namespaces, device.meta.namespace)
        and all(fnmatch.fnmatchcase(labels[key] if key in labels else "", value) for key, value in target.labels.items())
        and all(package in device.status.schema.package_names for package in target.schemas)
        and (not target.liveness or liveness(device) in target.liveness)
    )


class Hub:
    def __init__(self, *server_options):
        self.api = Api()
        self.devices = {}
        self.requests = []  # (function, message, headers)
        self.override = {}  # function -> bytes, or a function of the request
        self.status = {"version": "9.9.9", "uptime_seconds": 4000, "problems": []}
        self.fresh()
        self.folder = tempfile.TemporaryDirectory(prefix="mir-cli-")
        ports = pathlib.Path(self.folder.name)
        self.process = subprocess.Popen(
            [NATS_SERVER, "-a", "127.0.0.1", "-p", "-1", "--ports_file_dir", str(ports), *server_options],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        end = time.monotonic() + 10 * PATIENCE
        while not (found := list(ports.glob("*.ports"))) or not found[0].read_text().strip().endswith("}"):
            assert self.process.poll() is None and time.monotonic() < end, "nats-server did not start"
            time.sleep(0.002)
        self.port = int(json.loads(found[0].read_text())["nats"][0].rsplit(":", 1)[1])
        self.url = f"nats://127.0.0.1:{self.port}"
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever)
        self.thread.start()
        self.connection = None

    def fresh(self):
        """Without devices and whatever happened to them."""
        self.page = None  # how many devices one has; without it the hub knows no pages
        self.devices.clear()
        self.requests.clear()
        self.override.clear()
        self.answers = {}  # device id -> function of the message: (name, payload) or an error text
        self.gates = {}  # device id -> threading.Event that its answer to a command waits for
        self.ran = []  # (device id, command, fields)
        self.desired = {}  # (device id, property) -> fields
        self.reported = {}
        self.queue = []
        self.events = []
        self.hidden = 0  # so many of the newest events are not in the store yet

    def serve(self, **login):
        async def start():
            self.connection = await nats.connect(self.url, **login)
            await self.connection.subscribe("client.*.*.v1alpha.*", cb=self.handle)
            await self.connection.flush()

        asyncio.run_coroutine_threadsafe(start(), self.loop).result(10 * PATIENCE)
        return self

    def stop(self):
        if self.connection is not None:
            asyncio.run_coroutine_threadsafe(self.connection.close(), self.loop).result(10 * PATIENCE)
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join()
        self.loop.close()
        self.process.terminate()
        self.process.wait()
        self.folder.cleanup()

    def add(self, name, namespace="default", device_id=None, online=False, schema=False, **labels):
        device = self.api.Device(api_version="mir/v1alpha", kind="device")
        device.meta.name, device.meta.namespace = name, namespace
        device.meta.labels.update(labels)
        device.spec.device_id = device_id or name
        device.spec.disabled = False
        if online:
            device.status.online = True
            device.status.last_hearthbeat.seconds = int(time.time()) - 12
        if schema:
            device.status.schema.compressed_schema = zstd(self.api.pump_set)
            device.status.schema.package_names.extend(["google.protobuf", "mir.device.v1", "pump.v1"])
            device.status.schema.last_schema_fetch.seconds = int(time.time()) - 300
        self.devices[device.spec.device_id] = device
        return device

    def asked(self, function):
        """The requests for a function so far, in order."""
        return [message for name, message, _ in self.requests if name == function]

    async def handle(self, message):
        _, _, module, _, name = message.subject.split(".")
        function = f"{module}.{name}"
        kinds = {
            "core.list": "ListDevice",
            "core.create": "CreateDevice",
            "core.update": "UpdateDevice",
            "core.delete": "DeleteDevice",
            "core.schema": "RefreshDeviceSchema",
            "tlm.list": "ListTelemetry",
            "tlm.query": "QueryTelemetry",
            "tlm.retention": "TelemetryRetention",
            "cmd.list": "SendListCommands",
            "cmd.send": "SendCommand",
            "cmd.queue": "ListQueuedCommands",
            "cmd.cancel": "CancelQueuedCommands",
            "cfg.list": "SendListConfig",
            "cfg.send": "SendConfig",
            "evt.list": "ListEvents",
            "evt.delete": "DeleteEvent",
            "evt.verify": "VerifyEvents",
            "evt.retention": "EventRetention",
            "evt.history": "DeviceHistory",
        }
        kind = kinds.get(function)
        request = getattr(self.api, f"{kind}Request").FromString(message.data) if kind else message.data
        self.requests.append((function, request, message))
        if function in self.override:
            reply = self.override[function]
            reply = reply(request) if callable(reply) else reply
            if reply is None:
                return
        elif function == "sys.status":
            reply = json.dumps(self.status).encode()
        else:
            response = getattr(self.api, "DeleteEventReponse" if kind == "DeleteEvent" else f"{kind}Response")()
            if function == "cmd.send":
                await self.cmd_send(request, response, message.reply)
            else:
                getattr(self, function.replace(".", "_"))(request, response)
            reply = response.SerializeToString()
        await message.respond(reply)

    def core_list(self, request, response):
        response.ok.SetInParent()
        found = [d for d in self.devices.values() if matches(request.targets, d)]
        if request.HasField("after") and self.page is not None:
            place = lambda device: (device.meta.namespace, device.meta.name)
            behind = tuple(request.after.split("/")) if request.after else ("", "")
            found = sorted((d for d in found if place(d) > behind), key=place)
            response.ok.cut = len(found) > self.page
            found = found[: self.page]
        response.ok.devices.extend(found)
        if request.without_schema:
            for device in response.ok.devices:
                device.status.schema.ClearField("compressed_schema")

    def core_create(self, request, response):
        new = request.device
        if not new.spec.device_id:
            response.error = "device id is missing"
        elif new.spec.device_id in self.devices:
            response.error = f"device {new.meta.name}/{new.meta.namespace} with deviceId {new.spec.device_id} already exist"
        else:
            device = self.add(new.meta.name, new.meta.namespace or "default", new.spec.device_id, **new.meta.labels)
            response.ok.CopyFrom(device)

    def core_update(self, request, response):
        target = request.targets
        if not any([target.ids, target.names, target.namespaces, target.labels, target.schemas]):
            response.error = "error no target found: No device target provided"
            return
        found = [device for device in self.devices.values() if matches(target, device)]
        if not found and request.meta.name and request.meta.namespace:
            found = [self.add(request.meta.name, request.meta.namespace, request.spec.device_id)]
        for device in found:
            if request.HasField("if_version") and request.if_version != device.status.version:
                response.error = (
                    f"device {device.meta.name}/{device.meta.namespace} has version {device.status.version}, not {request.if_version}"
                )
                return
            device.status.version += 1
            for key, value in request.meta.labels.items():
                if value.value:
                    device.meta.labels[key] = value.value
                else:
                    device.meta.labels.pop(key, None)
            device.meta.name = request.meta.name or device.meta.name
            if request.spec.HasField("disabled"):
                device.spec.disabled = request.spec.disabled
            for name, value in request.props.desired.items():
                device.properties.desired[name] = value
        response.ok.SetInParent()
        response.ok.devices.extend(found)

    def core_delete(self, request, response):
        found = [device for device in self.devices.values() if matches(request.targets, device)]
        response.ok.SetInParent()
        for device in found:
            response.ok.devices.append(self.devices.pop(device.spec.device_id))

    def core_schema(self, request, response):
        for device in self.devices.values():
            if matches(request.targets, device):
                entry = response.ok.devices.add()
                entry.device.CopyFrom(device)
                if not device.status.online:
                    entry.error = "cannot reconcile device schema: no responders available for request"

    def tlm_list(self, request, response):
        found = [device for device in self.devices.values() if matches(request.targets, device)]
        if not found:
            response.error = "no device found with current targets criteria"
            return
        group = response.ok.devices_telemetry.add()
        for device in found:
            group.ids.add(device_id=device.spec.device_id, name=device.meta.name, namespace=device.meta.namespace)
        flow = group.tlm_descriptors.add(name="pump.v1.Flow", fields=["rate", "steps_0", "valves_main.opening"])
        flow.labels.update(
            {
                "__tag_site": "north",
                "__tag_rate.side": "in",
                "__unit_rate": "l/s",
                "__unit_valves.opening": "%",
                "__unit_pressure": "bar",
            }
        )

        group.tlm_descriptors.add(name="pump.v1.Quiet", fields=["level"])

    def tlm_query(self, request, response):
        response.ok.SetInParent()
        ok = response.ok
        if request.measurement != "pump.v1.Flow":
            return
        ok.headers.extend(["_time", "__id", "big", "note", "on", "rate"])
        ok.units.extend(["RFC3339", "", "", "", "", "l/s"])
        ok.datatypes.extend([16, 15 - 1, 6, 14, 13, 12])
        for i in range(3):
            row = ok.rows.add()
            row.datapoints.add().value_timestamp.seconds = 1700000000 + i
            row.datapoints[0].value_timestamp.nanos = 500_000_000
            row.datapoints.add(value_string="pump-7")
            row.datapoints.add(value_uint64=2**63 + i)
            row.datapoints.add(value_string='a "quoted", text')
            row.datapoints.add(value_bool=i == 1)
            if i == 1:
                row.datapoints.add()
            else:
                row.datapoints.add(value_double=0.1 + i)


    # Commands and configuration

    def bad_request(self, request, needs_payload):
        target = request.targets
        texts = []
        if not any([target.ids, target.names, target.namespaces, target.labels]):
            texts.append("No device target provided")
        if not request.name:
            texts.append("No command name provided")
        if request.payload_encoding == 0 and not request.show_template:
            texts.append("Command encoding not specified")
        if needs_payload and not request.payload:
            texts.append("No command payload provided")
        return f"error occure because of bad request: [{' '.join(texts)}]" if texts else None

    def parse(self, name, payload):
        """The fields as JSON, and an error text or None."""
        try:
            message = self.api.pump_factory.GetPrototype(self.api.pump.FindMessageTypeByName(name))()
        except KeyError:
            return None, "proto: not found"
        try:
            json_format.Parse(payload, message)
        except json_format.ParseError as error:
            return None, f"error unmarshaling payload: {error}"
        return json_format.MessageToDict(message), None

    def groups(self, target, kind):
        """Devices without a schema first, each with its descriptors."""
        found = [device for device in self.devices.values() if matches(target, device)]
        for known in (False, True):
            devices = [each for each in found if bool(each.status.schema.compressed_schema) == known]
            if devices:
                yield devices, MESSAGES[kind] if known else None

    def describe(self, group, request, names):
        for name in names:
            labels = LABELS.get(name, {})
            if all(labels.get(key) == value for key, value in request.filter_labels.items()):
                group.add(name=name, template=TEMPLATES.get(name, "{}")).labels.update(labels)

    def ids(self, device):
        return self.api.DeviceIdPair(device_id=device.spec.device_id, name=device.meta.name, namespace=device.meta.namespace)

    def cmd_list(self, request, response):
        for devices, names in self.groups(request.targets, "TELECOMMAND"):
            group = response.ok.devices_commands.add()
            group.ids.extend(self.ids(each) for each in devices)
            if names is None:
                group.error = f"cannot reconcile device schema: {NO_RESPONDERS}"
            else:
                self.describe(group.cmd_descriptors, request, names)
        if not response.HasField("ok"):
            response.error = "no device found with current targets criteria"

    async def cmd_send(self, request, response, reply):
        error = self.bad_request(request, not request.show_template and request.payload_encoding != 1)
        found = [device for device in self.devices.values() if matches(request.targets, device)]
        if error or not found:
            response.error = error or "error sending command to devices: no device found with current targets criteria"
            return
        response.ok.encoding = request.payload_encoding
        entries = response.ok.device_responses
        name = request.name.split("{")[0]
        parsed = {}
        for device in found:
            entry = entries[f"{device.meta.name}/{device.meta.namespace}"]
            entry.device_id = device.spec.device_id
            known = bool(device.status.schema.compressed_schema)
            fields, problem = (
                ({"bytes": request.payload}, None) if request.no_validation and request.payload_encoding == 1
                else self.parse(name, request.payload or b"{}") if known
                else (None, f"cannot reconcile device schema: {NO_RESPONDERS}")
            )
            if problem and not problem.startswith("error unmarshaling"):
                problem = f"error retrieve command descriptor from device schema: {problem}"
            parsed[device.spec.device_id] = fields
            entry.status = 3 if problem else 4 if request.show_template else 2
            entry.error = problem or ""
            if request.show_template and not problem:
                entry.name, entry.payload = name, TEMPLATES.get(name, "{}").encode()
        failed = any(each.status == 3 for each in entries.values())
        if request.show_template or request.dry_run or (failed and not request.force_push):
            return
        sent = [device for device in found if entries[f"{device.meta.name}/{device.meta.namespace}"].status == 2]
        done = 0

        async def run(device):
            nonlocal done
            key = f"{device.meta.name}/{device.meta.namespace}"
            await self.run(request, device, name, parsed[device.spec.device_id], entries[key])
            done += 1
            if request.stream:
                part = self.api.SendCommandResponse()
                part.ok.encoding = request.payload_encoding
                part.ok.device_responses[key].CopyFrom(entries[key])
                headers = {"mir-stream": "partial", "mir-progress": f"{done}/{len(sent)}"}
                await self.connection.publish(reply, part.SerializeToString(), headers=headers)

        await asyncio.gather(*(run(device) for device in sent))

    async def run(self, request, device, name, fields, entry):
        gate = self.gates.get(device.spec.device_id)
        if gate is not None:
            await asyncio.to_thread(gate.wait, 30 * PATIENCE)
        if liveness(device) != ONLINE:
            if request.queue:
                entry.status, entry.command_id = 1000, f"c-{len(self.queue) + 1}"
                queued = self.api.QueuedCommand(id=entry.command_id, name=name, state=1, actor="ada")
                queued.device.CopyFrom(self.ids(device))
                queued.payload_json = request.payload.decode()
                queued.steps.add(state=1).at.seconds = int(time.time())
                queued.expires_at.seconds = int(time.time()) + (request.ttl_sec or 86400)
                self.queue.insert(0, queued)
            else:
                entry.status = 3
                entry.error = f"error during sent command request to device: error requesting device command: {NO_RESPONDERS}"
            return
        self.ran.append((device.spec.device_id, name, fields))
        answer = self.answers.get(device.spec.device_id, lambda fields: ("mir.device.v1.Void", {}))(fields)
        if isinstance(answer, str):
            entry.status, entry.error = 3, answer
        else:
            entry.status, entry.name, entry.payload = 4, answer[0], json.dumps(answer[1]).encode()

    def chosen(self, request):
        def wanted(queued):
            device = self.devices.get(queued.device.device_id)
            ids = request.command_ids
            return (not ids or queued.id in ids) and (device is None or matches(request.targets, device))

        return [each for each in self.queue if wanted(each)]

    def cmd_queue(self, request, response):
        found = [each for each in self.chosen(request) if not request.states or each.state in request.states]
        response.ok.SetInParent()
        response.ok.commands.extend(found[: request.limit or None])

    def cmd_cancel(self, request, response):
        response.ok.SetInParent()
        for queued in self.chosen(request):
            if queued.state == 1:
                queued.state = 6
                queued.steps.add(state=6).at.seconds = int(time.time())
                response.ok.commands.append(queued)

    def cfg_list(self, request, response):
        for devices, names in self.groups(request.targets, "TELECONFIG"):
            group = response.ok.device_configs.add()
            if names is None:
                group.error = f"cannot reconcile device schema: {NO_RESPONDERS}"
            else:
                self.describe(group.cfg_descriptors, request, names)
            for device in devices:
                values = group.cfg_values.add()
                values.id.CopyFrom(self.ids(device))
                for name in names or []:
                    key = (device.spec.device_id, name)
                    values.values[name] = compact(self.desired[key]) if key in self.desired else TEMPLATES[name]
                    if key not in self.desired:
                        continue
                    state = values.states[name]
                    state.desired = compact(self.desired[key])
                    state.desired_at.seconds = int(time.time()) - 120
                    state.in_sync = self.desired[key] == self.reported.get(key)
                    if key in self.reported:
                        state.reported = compact(self.reported[key])
                    if not state.in_sync:
                        state.differs_since.seconds = int(time.time()) - 120
        if not response.HasField("ok"):
            response.error = "no device found with current targets criteria"

    def cfg_send(self, request, response):
        shows = request.show_template or request.show_values
        error = self.bad_request(request, not shows and request.payload_encoding != 1)
        found = [device for device in self.devices.values() if matches(request.targets, device)]
        if error or not found:
            response.error = error or "error sending config to devices: no device found with current targets criteria"
            return
        response.ok.encoding = request.payload_encoding
        name = request.name.split("{")[0]
        entries = response.ok.device_responses
        for device in found:
            entry = entries[f"{device.meta.name}/{device.meta.namespace}"]
            entry.device_id = device.spec.device_id
            key = (device.spec.device_id, name)
            fields, problem = self.parse(name, request.payload or b"{}")
            if problem and not problem.startswith("error unmarshaling"):
                problem = f"error retrieve config descriptor from device schema: {problem}"
            if not problem and request.HasField("if_version") and request.if_version != device.status.version:
                problem = f"device has version {device.status.version}, not {request.if_version}"
            if problem:
                entry.status, entry.error = 4, problem
            elif shows:
                values = request.show_values and not request.show_template and key in self.desired
                entry.status, entry.name = 5, name
                entry.payload = (compact(self.desired[key]) if values else TEMPLATES[name]).encode()
            elif request.send_only_different and self.desired.get(key) == json.loads(request.payload):
                entry.status, entry.name = 3, name
            else:
                entry.status = 2
        failed = any(each.status == 4 for each in entries.values())
        if shows or request.dry_run or (failed and not request.force_push):
            return
        for device in found:
            entry = entries[f"{device.meta.name}/{device.meta.namespace}"]
            if entry.status != 2:
                continue
            key = (device.spec.device_id, name)
            self.desired[key] = {**self.desired.get(key, {}), **json.loads(request.payload)}
            device.status.version += 1
            entry.status, entry.name, entry.version = 5, name, device.status.version
            entry.payload = compact(self.desired[key]).encode()

    # Events

    def event(self, reason, device="pump-7", namespace="plant", at=None, publish=False, numbered=True, **more):
        """Stores an event; with `publish` it is told as well, with its number unless not `numbered`."""
        sequence = self.events[-1].status.sequence + 1 if self.events else 1
        event = self.api.Event()
        event.object.api_version, event.object.kind = "mir/v1alpha", "events"
        event.object.meta.name, event.object.meta.namespace = f"{device}-{sequence:012x}", namespace
        event.object.meta.annotations["mir-subject"] = more.get("device_id", device)
        event.spec.type, event.spec.reason = more.get("type", "normal"), reason
        event.object.meta.labels.update({"reason": reason, "type": event.spec.type})
        event.spec.message = more.get("message", f"{reason} happened")
        event.spec.json_payload = json.dumps(more.get("payload", {"n": sequence})).encode()
        event.spec.related_object.kind = "device"
        event.spec.related_object.meta.name, event.spec.related_object.meta.namespace = device, namespace
        event.spec.audit.actor = more.get("actor", "server")
        event.spec.audit.outcome = "failed" if "error" in more else "ok"
        event.spec.audit.error = more.get("error", "")
        for path, before, after in more.get("changes", []):
            change = event.spec.audit.changes.add(path=path)
            if before is not None:
                setattr(change, "from", before)
            if after is not None:
                change.to = after
        event.status.count, event.status.sequence = 1, sequence
        event.status.leaf = bytes([sequence % 256]) * 32
        seconds = at if at is not None else int(time.time())
        event.status.first_at.seconds = event.status.last_at.seconds = seconds
        self.events.append(event)
        if publish:
            self.ring(event, numbered)
        return event

    def ring(self, event, numbered=True):
        async def publish():
            headers = {"mir-event-sequence": str(event.status.sequence)} if numbered else None
            body = self.api.CreateEventRequest(spec=event.spec).SerializeToString()
            subject = f"event.{event.object.meta.annotations['mir-subject']}.core.v1alpha.something"
            await self.connection.publish(subject, body, headers=headers)
            await self.connection.flush()

        asyncio.run_coroutine_threadsafe(publish(), self.loop).result(10 * PATIENCE)

    def meant(self, target):
        def one_of(patterns, value):
            return not patterns or any(fnmatch.fnmatchcase(value, pattern) for pattern in patterns)

        def wanted(event):
            spec, meta = event.spec, event.object.meta
            device_id = meta.annotations["mir-subject"]
            first = event.status.first_at.seconds
            everywhere = f"{spec.reason} {spec.message} {spec.json_payload.decode()} {spec.audit.error}".lower()
            if target.HasField("devices"):
                device = self.devices.get(device_id)
                if device is None or not matches(target.devices, device):
                    return False
            return (
                one_of(target.targets.names, meta.name)
                and one_of(target.targets.namespaces, meta.namespace)
                and (not target.device_ids or device_id in target.device_ids)
                and (not target.reasons or spec.reason in target.reasons)
                and (not target.types or spec.type in target.types)
                and (not target.actors or spec.audit.actor in target.actors)
                and (not target.outcomes or spec.audit.outcome in target.outcomes)
                and target.text.lower() in everywhere
                and (not target.filter_date.HasField("from") or first >= getattr(target.filter_date, "from").seconds)
                and (not target.filter_date.HasField("to") or first <= target.filter_date.to.seconds)
                and (not target.HasField("after_sequence") or event.status.sequence > target.after_sequence)
                and (not target.HasField("before_sequence") or event.status.sequence < target.before_sequence)
            )

        stored = self.events[: len(self.events) - self.hidden]
        found = [event for event in stored if wanted(event)]
        if not target.HasField("after_sequence"):
            found.reverse()
        return found[: target.filter_limit] if target.filter_limit > 0 else found

    def evt_list(self, request, response):
        response.ok.SetInParent()
        response.ok.events.extend(self.meant(request.target))

    def evt_delete(self, request, response):
        target = request.target
        if not any([target.targets.names, target.targets.namespaces, target.targets.labels]) and not target.HasField("filter_date"):
            response.error = "error no target found: No device target provided"
            return
        found = self.meant(target)
        response.ok.SetInParent()
        response.ok.events.extend(found)
        gone = {event.status.sequence for event in found}
        self.events = [event for event in self.events if event.status.sequence not in gone]

    def evt_verify(self, request, response):
        proof = response.ok
        proof.intact, proof.links, proof.removed, proof.removals = True, 1234, 3, 1
        proof.head = bytes(range(32))
        proof.text = "Every link follows from the one before it."
        if request.HasField("head"):
            proof.intact = request.head == proof.head
            if proof.intact:
                proof.head_sequence = 1234
            else:
                proof.text = "The given head is not in the chain."

    def evt_retention(self, request, response):
        response.ok.rules.add(reason="default", keep_seconds=90 * 86400)
        response.ok.rules.add(reason="DeviceDeleted", keep_seconds=0)
        response.ok.events, response.ok.removed, response.ok.index_lag = len(self.events), 7, 0
        response.ok.oldest.seconds = int(time.time()) - 3600

    def tlm_retention(self, request, response):
        now = int(time.time())
        response.ok.rules.add(namespace="plant-*", message="env.v1.*", keep_seconds=7 * 86400, rows_removed=12)
        response.ok.rules.add(deleted=True, keep_seconds=5400, rows_removed=3)
        response.ok.rules.add(keep_seconds=0, rows_removed=0)
        response.ok.rollups.add(step_seconds=60, keep_seconds=90 * 86400, rows=12)
        response.ok.rollups.add(step_seconds=3600, keep_seconds=0, rows=3)
        response.ok.rollup_bytes = 2048
        response.ok.rows, response.ok.bytes, response.ok.bytes_removed, response.ok.size_max = 1000, 3 << 20, 5000, 4 << 30
        response.ok.oldest.seconds, response.ok.last_removal.seconds, response.ok.last_run.seconds = now - 7200, now - 60, now

    def evt_history(self, request, response):
        asked = request.device
        response.ok.SetInParent()
        mine = [
            event
            for event in self.events
            if (asked.device_id and event.object.meta.annotations["mir-subject"] == asked.device_id)
            or (event.spec.related_object.meta.name, event.spec.related_object.meta.namespace) == (asked.name, asked.namespace)
        ]
        if request.HasField("at"):
            mine = [event for event in mine if event.status.first_at.seconds <= request.at.seconds]
            if mine:
                twin = {"apiVersion": "mir/v1alpha", "kind": "device", "meta": {"name": asked.name}, "status": {"version": len(mine)}}
                response.ok.device_json = json.dumps(twin)
        else:
            response.ok.events.extend(mine[: request.limit or None])


class Tunnel:
    """A unix socket whose connections go on to a TCP port, since nats-server has no unix sockets."""

    def __init__(self, path, port):
        self.port = port
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen()
        self.thread = threading.Thread(target=self.accept)
        self.thread.start()

    def accept(self):
        while True:
            try:
                near, _ = self.listener.accept()
            except OSError:
                return
            far = socket.create_connection(("127.0.0.1", self.port))
            pumps = [threading.Thread(target=self.pump, args=pair) for pair in ((near, far), (far, near))]
            for each in pumps:
                each.start()
            for each in pumps:
                each.join()
            near.close()
            far.close()

    @staticmethod
    def pump(source, sink):
        try:
            while data := source.recv(65536):
                sink.sendall(data)
        except OSError:
            pass
        for each, how in ((sink, socket.SHUT_WR), (source, socket.SHUT_RD)):
            try:
                each.shutdown(how)
            except OSError:
                pass

    def stop(self):
        self.listener.shutdown(socket.SHUT_RDWR)
        self.listener.close()
        self.thread.join()


if __name__ == "__main__":
    settings = pathlib.Path(tempfile.mkdtemp()) / "hub.conf"
    settings.write_text("max_payload: 8388608\n")
    demo = Hub("-c", str(settings)).serve()
    shutil.rmtree(settings.parent)
    demo.add("host", online=True, schema=True, os="linux", site="lab")
    for number in range(int(sys.argv[1]) if len(sys.argv) > 1 else 5):
        demo.add(f"pump-{number}", "plant", online=number % 2 == 0, schema=number < 10, floor=str(number), type="pump")
    for number in range(40):
        demo.event(
            "DeviceCommand" if number % 3 else "DeviceUpdated", f"pump-{number % 5}", at=int(time.time()) - (40 - number) * 4000,
            actor="ada" if number % 2 else "device host", message="Device command executed successfully",
            **({"type": "warning", "error": "the valve is stuck and does not move any more"} if number % 7 == 0 else {}),
            changes=[("meta.labels.floor", '"1"', '"2"'), ("properties.desired.pump.v1.Speed", None, '{"rpm":900}')],
        )
    if len(sys.argv) > 2:
        demo.status = json.loads(pathlib.Path(sys.argv[2]).read_text())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(demo.url, flush=True)
    try:
        demo.process.wait()
    except KeyboardInterrupt:
        demo.stop()
