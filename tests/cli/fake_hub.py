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
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

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
message Stop { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECOMMAND; uint32 after_ms = 1; }
message Speed { option (mir.device.v1.message_type) = MESSAGE_TYPE_TELECONFIG; int64 rpm = 1; }
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

    def __getattr__(self, name):
        return self.factory.GetPrototype(self.pool.FindMessageTypeByName(f"mir_api.v1.{name}"))


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
    )


class Hub:
    def __init__(self, *server_options):
        self.api = Api()
        self.devices = {}
        self.requests = []  # (function, message, headers)
        self.override = {}  # function -> bytes, or a function of the request
        self.status = {"version": "9.9.9", "uptime_seconds": 4000, "problems": []}
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
            response = getattr(self.api, f"{kind}Response")()
            getattr(self, function.replace(".", "_"))(request, response)
            reply = response.SerializeToString()
        await message.respond(reply)

    def core_list(self, request, response):
        response.ok.SetInParent()
        response.ok.devices.extend(d for d in self.devices.values() if matches(request.targets, d))

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
            for key, value in request.meta.labels.items():
                if value.value:
                    device.meta.labels[key] = value.value
                else:
                    device.meta.labels.pop(key, None)
            device.meta.name = request.meta.name or device.meta.name
            if request.spec.HasField("disabled"):
                device.spec.disabled = request.spec.disabled
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
    if len(sys.argv) > 2:
        demo.status = json.loads(pathlib.Path(sys.argv[2]).read_text())
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    print(demo.url, flush=True)
    try:
        demo.process.wait()
    except KeyboardInterrupt:
        demo.stop()
