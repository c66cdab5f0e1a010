# SPDX-License-Identifier: Apache-2.0
"""Clients and devices of the tests from end to end, on nats-py, with message classes that protoc and
the Python protobuf library make of the repository's .proto files.

A Bus hears events and the answers to its requests through one subscription, so that what it has
heard is in the order in which the server published it.
"""

import asyncio
import contextlib
import ctypes
import itertools
import json
import pathlib
import subprocess
import tempfile
import threading
import time
from typing import NamedTuple

import nats
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from wire import PATIENCE, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
PROTO = ROOT / "proto" / "pb"
DEADLINE_S = 10 * PATIENCE

NO_RESPONDERS = "nats: no responders available for request"
PULL = "cannot reconcile device schema: error requesting device schema: error publishing request message: "

PUMP = """
syntax = "proto3";
package pump.v1;
import "mir/device/v1/mir.proto";

message Flow {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    double litres = 2;
}
"""

zstd_library = ctypes.CDLL("libzstd.so.1")
for function in ("ZSTD_compress", "ZSTD_compressBound", "ZSTD_decompress"):
    getattr(zstd_library, function).restype = ctypes.c_size_t
zstd_library.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong


def zstd(data):
    room = zstd_library.ZSTD_compressBound(ctypes.c_size_t(len(data)))
    out = ctypes.create_string_buffer(room)
    size = zstd_library.ZSTD_compress(out, ctypes.c_size_t(room), data, ctypes.c_size_t(len(data)), 3)
    return out.raw[:size]


def unzstd(data):
    size = zstd_library.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    assert size < 64 << 20, "no zstd frame with its size"
    out = ctypes.create_string_buffer(size)
    got = zstd_library.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data)))
    assert got == size
    return out.raw


def schema_of(text, package_file="device.proto"):
    """A serialized FileDescriptorSet as devices send it: the text's file and all that it imports."""
    with tempfile.TemporaryDirectory() as folder:
        (pathlib.Path(folder) / package_file).write_text(text)
        out = pathlib.Path(folder) / "set"
        command = ["protoc", f"-I{PROTO}", f"-I{folder}", "--include_imports", f"--descriptor_set_out={out}"]
        subprocess.run([*command, package_file], check=True)
        return out.read_bytes()


class Api:
    """The messages of mir_api.v1 by their short name: api.Device, api.ListDeviceRequest."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "set"
            files = [str(path.relative_to(PROTO)) for path in sorted(PROTO.glob("mir_api/v1/*.proto"))]
            command = ["protoc", f"-I{PROTO}", "--include_imports", f"--descriptor_set_out={out}"]
            subprocess.run([*command, *files], check=True)
            self.pool = descriptor_pool.DescriptorPool()
            for file in descriptor_pb2.FileDescriptorSet.FromString(out.read_bytes()).file:
                self.pool.Add(file)
        self.factory = message_factory.MessageFactory(self.pool)

    def __getattr__(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(f"mir_api.v1.{name}"))


api = Api()

ADDED_EVENTS = {"schemachanged", "devicedisabled", "deviceenabled", "connectionrefused"}

# function -> request, response
SERVICES = {
    "core.create": ("CreateDeviceRequest", "CreateDeviceResponse"),
    "core.creates": ("CreateDevicesRequest", "CreateDevicesResponse"),
    "core.update": ("UpdateDeviceRequest", "UpdateDeviceResponse"),
    "core.delete": ("DeleteDeviceRequest", "DeleteDeviceResponse"),
    "core.list": ("ListDeviceRequest", "ListDeviceResponse"),
    "core.schema": ("RefreshDeviceSchemaRequest", "RefreshDeviceSchemaResponse"),
    "cmd.list": ("SendListCommandsRequest", "SendListCommandsResponse"),
    "cmd.send": ("SendCommandRequest", "SendCommandResponse"),
    "cmd.queue": ("ListQueuedCommandsRequest", "ListQueuedCommandsResponse"),
    "cmd.cancel": ("CancelQueuedCommandsRequest", "CancelQueuedCommandsResponse"),
    "evt.list": ("ListEventsRequest", "ListEventsResponse"),
    "evt.delete": ("DeleteEventRequest", "DeleteEventReponse"),
    "evt.verify": ("VerifyEventsRequest", "VerifyEventsResponse"),
    "evt.retention": ("EventRetentionRequest", "EventRetentionResponse"),
    "evt.history": ("DeviceHistoryRequest", "DeviceHistoryResponse"),
    "cfg.list": ("SendListConfigRequest", "SendListConfigResponse"),
    "cfg.send": ("SendConfigRequest", "SendConfigResponse"),
    "tlm.list": ("ListTelemetryRequest", "ListTelemetryResponse"),
    "tlm.retention": ("TelemetryRetentionRequest", "TelemetryRetentionResponse"),
    "tlm.query": ("QueryTelemetryRequest", "QueryTelemetryResponse"),
}


def subject_of(function):
    module, name = function.split(".")
    return f"client.tester.{module}.v1alpha.{name}"


class Refused(Exception):
    """The error arm of a response."""


class Event(NamedTuple):
    device: str
    kind: str
    spec: object
    headers: dict

    @property
    def payload(self):
        return json.loads(self.spec.json_payload)


class Loop:
    """An event loop on a thread of its own, for connections of nats-py."""

    def __init__(self):
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()

    def run(self, coroutine, seconds=2 * DEADLINE_S):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(seconds)

    def stop(self):
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(DEADLINE_S)
        self.loop.close()


class Connection:
    def __init__(self, loop, server):
        self.loop = loop
        self.client = loop.run(nats.connect(server.url, allow_reconnect=False, error_cb=self._lost, closed_cb=None))

    async def _lost(self, error):
        pass  # Tests kill servers; what matters they see by what does not arrive.

    def publish(self, subject, body=b"", **how):
        self.loop.run(self.client.publish(subject, body, **how))

    def subscribe(self, subject, on_message):
        self.loop.run(self.client.subscribe(subject, cb=on_message))
        self.flush()

    def flush(self):
        """This client writes a PING past what it still buffers, so only the second is a barrier."""
        self.loop.run(self.client.flush())
        self.loop.run(self.client.flush())

    def heartbeat(self, device):
        self.publish(f"device.{device}.core.v1alpha.hearthbeat")
        self.flush()

    def hello(self, device, schema, encode=zstd, flush=True):
        hello = api.DeviceHello(hello={"schema": schema})
        headers = {"mir-content": "mir-hello", "mir-content-encoding": "mir-zstd"}
        self.publish(f"device.{device}.core.v1alpha.hearthbeat", encode(hello.SerializeToString()), headers=headers)
        if flush:
            self.flush()

    def close(self):
        with contextlib.suppress(Exception):
            self.loop.run(self.client.close())


class Bus(Connection):
    answers = itertools.count(1)

    def __init__(self, loop, server):
        super().__init__(loop, server)
        self.heard = []
        self.given_up = False
        self.subscribe("event.>", self._hear)

    async def _hear(self, message):
        self.heard.append(message)

    def send(self, function, body, reply, headers=None):
        self.publish(subject_of(function), body, reply=reply, headers=headers)

    def answer_name(self):
        """Below event, so that it arrives in order with the events."""
        return f"event.answer.{next(self.answers)}"

    def answer(self, name):
        """The message, and how much was heard before it."""

        def found():
            assert not self.given_up, "the server was killed"
            for i, message in enumerate(self.heard):
                if message.subject == name:
                    return i, message
            return None

        return wait_until(found, DEADLINE_S, f"answer {name}")

    def give_up(self):
        """Answers that have not come will not come: whoever waits for one is told so."""
        self.given_up = True

    def raw(self, function, body=b"", headers=None):
        name = self.answer_name()
        self.send(function, body, name, headers)
        return self.answer(name)[1]

    def ask(self, function, request=None, **fields):
        """The ok arm; raises Refused with the text of the error arm."""
        asked, answered = SERVICES[function]
        if request is None:
            request = getattr(api, asked)(**fields)
        response = getattr(api, answered).FromString(self.raw(function, request.SerializeToString()).data)
        arm = response.WhichOneof("response")
        assert arm is not None, "neither ok nor error"
        if arm == "error":
            assert response.error != ""
            raise Refused(response.error)
        return response.ok

    def create(self, device, name="", namespace="", labels=None, annotations=None, disabled=False):
        meta = {"name": name, "namespace": namespace, "labels": labels or {}, "annotations": annotations or {}}
        return self.ask("core.create", device={"meta": meta, "spec": {"device_id": device, "disabled": disabled}})

    def list(self, **targets):
        return list(self.ask("core.list", targets=targets).devices)

    def ids(self, **targets):
        return sorted(device.spec.device_id for device in self.list(**targets))

    def device(self, device):
        """As it is listed, or None."""
        found = self.list(ids=[device])
        assert len(found) <= 1
        return found[0] if found else None

    def events(self, device=None, kind=None, module="core"):
        found = []
        for message in list(self.heard):
            tokens = message.subject.split(".")
            if len(tokens) != 5 or tokens[2:4] != [module, "v1alpha"]:
                continue
            if device in (None, tokens[1]) and kind in (None, tokens[4]):
                spec = api.CreateEventRequest.FromString(message.data).spec
                found.append(Event(tokens[1], tokens[4], spec, message.headers or {}))
        return found

    def kinds(self, device):
        """Of the events that every server of this API has, without those that this one adds."""
        return [event.kind for event in self.events(device) if event.kind not in ADDED_EVENTS]

    def await_kinds(self, device, *kinds):
        wait_until(lambda: len(self.kinds(device)) >= len(kinds), DEADLINE_S, f"events {kinds} of {device}")
        assert self.kinds(device) == list(kinds)

    def settle(self):
        """All that the server published towards us by now has been heard."""
        name = self.answer_name()
        self.publish(name)
        self.answer(name)


class Device(Connection):
    """Answers the server's questions for its schema, or keeps silent."""

    def __init__(self, loop, server, device, schema=None, error=None, compress=True):
        super().__init__(loop, server)
        self.id = device
        self.schema = schema
        self.error = error
        self.compress = compress
        self.asked = []
        self.subscribe(f"{device}.>", self._asked)

    async def _asked(self, message):
        self.asked.append(message)
        if self.error is not None:
            await message.respond(api.SchemaRetrieveResponse(error=self.error).SerializeToString())
        elif self.schema is not None:
            body = api.SchemaRetrieveResponse(schema=self.schema).SerializeToString()
            headers = {"mir-msg": "mir_api.v1.SchemaRetrieveResponse"}
            if self.compress:
                headers["mir-content-encoding"] = "mir-zstd"
                body = zstd(body)
            await self.client.publish(message.reply, body, headers=headers)


class ConfiguredDevice(Device):
    """A device with properties, as the device SDKs treat them: for each name the newest value counts,
    a handler is called once at the launch, for each newer value and after a reconnect."""

    def __init__(self, loop, server, device, schema=None, handled=(), hello=True, **how):
        self.values = {}  # name -> time, payload
        self.calls = []  # name, payload
        self.handled = list(handled)
        self.pushed = []  # messages
        super().__init__(loop, server, device, schema, **how)
        self.says_hello = hello

    async def _asked(self, message):
        if not message.subject.endswith(".v1alpha.config"):
            await super()._asked(message)
            return
        self.pushed.append(message)
        name = message.headers["mir-msg"]
        if self.take(name, message.headers["mir-time"], message.data):
            self.call(name)

    def take(self, name, time_text, payload):
        if name in self.values and not nanoseconds(time_text) > nanoseconds(self.values[name][0]):
            return False
        self.values[name] = (time_text, payload)
        return True

    def call(self, name):
        if name in self.handled:
            self.calls.append((name, self.values[name][1]))

    def ask_desired(self):
        """The response, as it came."""
        reply = self.loop.run(
            self.client.request(f"device.{self.id}.cfg.v1alpha.desiredproperties", b"", timeout=DEADLINE_S)
        )
        return api.DeviceReportedPropertiesResponse.FromString(reply.data)

    def launch(self):
        if self.says_hello:
            self.hello(self.id, self.schema)
        else:
            self.heartbeat(self.id)
        response = self.ask_desired()
        assert response.WhichOneof("response") == "ok", response.error
        for name, property in response.ok.properties.items():
            self.take(name, property.time, property.property)
        for name in list(self.values):
            self.call(name)
        return response.ok

    def report(self, name, payload, goes_by=None):
        headers = {"mir-msg": name}
        if goes_by is not None:
            headers["mir-time"] = goes_by
        self.publish(f"device.{self.id}.cfg.v1alpha.proto", payload, headers=headers)
        self.flush()


def nanoseconds(text):
    """Of an RFC 3339 time in UTC, as a text that sorts."""
    seconds, _, fraction = text.removesuffix("Z").partition(".")
    return seconds, fraction.ljust(9, "0")


def seconds_ago(timestamp):
    return time.time() - timestamp.seconds - timestamp.nanos / 1e9
