# SPDX-License-Identifier: Apache-2.0
"""A hub for devices under test: nats-server carries the messages, the test is the server.

Everything a device publishes is recorded; the test answers what it chooses to. Messages are decoded
with the schema that the device itself sent and with the repository's .proto files, by the Python
protobuf library: nothing of the code under test judges itself.
"""

import asyncio
import ctypes
import os
import pathlib
import shutil
import socket
import subprocess
import tempfile
import threading
import time

import nats
from google.protobuf import descriptor_pb2, descriptor_pool, message_factory

from wire import PATIENCE, wait_until

ROOT = pathlib.Path(__file__).resolve().parents[2]
BUILD = pathlib.Path(os.environ.get("MIR_BUILD_DIR", ROOT / "build" / "dev"))
NATS_SERVER = shutil.which("nats-server") or "/usr/sbin/nats-server"

ZSTD = "mir-zstd"


def free_port():
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        return sock.getsockname()[1]


libzstd = ctypes.CDLL("libzstd.so.1")
libzstd.ZSTD_getFrameContentSize.restype = ctypes.c_ulonglong
libzstd.ZSTD_decompress.restype = ctypes.c_size_t


def unzstd(data):
    size = libzstd.ZSTD_getFrameContentSize(data, ctypes.c_size_t(len(data)))
    assert size < 64 << 20, "no zstd frame"
    out = ctypes.create_string_buffer(size)
    assert libzstd.ZSTD_decompress(out, ctypes.c_size_t(size), data, ctypes.c_size_t(len(data))) == size
    return out.raw


class Api:
    """The messages of proto/pb, from descriptors that protoc makes of the sources."""

    def __init__(self):
        with tempfile.TemporaryDirectory() as folder:
            out = pathlib.Path(folder) / "api.fds"
            base = ROOT / "proto" / "pb"
            files = [str(path.relative_to(base)) for path in base.rglob("*.proto")]
            subprocess.run(["protoc", f"-I{base}", "--include_imports", f"--descriptor_set_out={out}", *files],
                           check=True)
            self.classes = classes_of(out.read_bytes())

    def __getattr__(self, name):
        return self.classes[f"mir_api.v1.{name}"]


def classes_of(set_bytes):
    """Message classes of a serialized FileDescriptorSet, by full name, in a pool of their own."""
    files = descriptor_pb2.FileDescriptorSet.FromString(set_bytes)
    pool = descriptor_pool.DescriptorPool()
    waiting = {file.name: file for file in files.file}

    def add(name):
        file = waiting.pop(name, None)
        if file is not None:
            for dependency in file.dependency:
                add(dependency)
            pool.Add(file)

    names = list(waiting)
    for name in names:
        add(name)
    classes = {}
    for name in names:
        for message in pool.FindFileByName(name).message_types_by_name.values():
            classes[message.full_name] = message_factory.MessageFactory(pool).GetPrototype(message)
    return classes


def is_listening(port):
    with socket.socket() as sock:
        return sock.connect_ex(("127.0.0.1", port)) == 0


class Gate:
    """A port that leads to a hub when opened: devices that wait at it find a hub that listens."""

    def __init__(self):
        self.port = free_port()
        self.server = None

    def open(self, hub):
        async def copy(reader, writer):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()
            writer.close()

        async def join(reader, writer):
            far_reader, far_writer = await asyncio.open_connection("127.0.0.1", hub.port)
            await asyncio.gather(copy(reader, far_writer), copy(far_reader, writer), return_exceptions=True)

        self.server = hub.run(asyncio.start_server(join, "127.0.0.1", self.port))


class Hub:
    def __init__(self, port=None, arguments=(), user=None):
        self.port = port or free_port()
        self.arguments = arguments
        self.user = user or {}
        self.messages = []
        self.answers = {}  # subject -> function(message) -> bytes, or None for no answer
        self.process = None
        self.loop = asyncio.new_event_loop()
        self.thread = threading.Thread(target=self.loop.run_forever, daemon=True)
        self.thread.start()
        self.start()

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    def run(self, coroutine, timeout=20):
        return asyncio.run_coroutine_threadsafe(coroutine, self.loop).result(timeout * PATIENCE)

    def start(self):
        self.process = subprocess.Popen(
            [NATS_SERVER, "-a", "127.0.0.1", "-p", str(self.port), *self.arguments],
            stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        wait_until(lambda: is_listening(self.port), 10 * PATIENCE)
        self.run(self.connect())

    async def connect(self):
        async def quiet(_):
            pass

        self.client = await nats.connect(self.url, allow_reconnect=False, error_cb=quiet, **self.user)
        await self.client.subscribe("device.>", cb=self.receive)
        await self.client.flush()

    async def receive(self, message):
        answer = self.answers.get(message.subject)
        self.messages.append(message)
        data = answer(message) if answer is not None and message.reply else None
        if data is not None:
            await self.client.publish(message.reply, data)

    def stop(self):
        """Ends the server; start() brings it back on the same port."""
        self.run(self.client.close())
        self.process.terminate()
        self.process.wait(10)

    def close(self):
        if self.process.poll() is None:
            self.stop()
        self.loop.call_soon_threadsafe(self.loop.stop)
        self.thread.join(5)
        self.loop.close()

    def sent(self, subject):
        return [message for message in list(self.messages) if message.subject == subject]

    def wait(self, subject, count=1, timeout=10):
        """The messages on a subject, when there are `count`."""
        wait_until(lambda: len(self.sent(subject)) >= count, timeout * PATIENCE)
        return self.sent(subject)

    def request(self, subject, data=b"", timeout=5, **headers):
        return self.run(self.client.request(subject, data, timeout=timeout * PATIENCE,
                                            headers={k.replace("_", "-"): v for k, v in headers.items()} or None))

    def publish(self, subject, data=b"", **headers):
        async def send():
            await self.client.publish(subject, data,
                                      headers={k.replace("_", "-"): v for k, v in headers.items()} or None)
            await self.client.flush()

        self.run(send())


class Program:
    """A device program with its log."""

    def __init__(self, *command, env=None):
        self.log = tempfile.TemporaryFile()
        self.process = subprocess.Popen([str(word) for word in command], stdout=self.log, stderr=self.log,
                                        env={**os.environ, **(env or {})})

    def text(self):
        if self.log.closed:
            return self.last_words
        # Its own offset: the process goes on writing at the shared one.
        return os.pread(self.log.fileno(), 1 << 20, 0).decode(errors="replace")

    def wait_for(self, text, timeout=10):
        wait_until(lambda: text in self.text() or self.process.poll() is not None, timeout * PATIENCE)
        assert text in self.text(), self.text()

    def stop(self, number):
        """Sends a signal; the exit status and the seconds that it took."""
        began = time.monotonic()
        self.process.send_signal(number)
        status = self.process.wait(10 * PATIENCE)
        return status, time.monotonic() - began

    def close(self):
        if self.process.poll() is None:
            self.process.kill()
        self.process.wait()
        self.last_words = self.text()
        self.log.close()
