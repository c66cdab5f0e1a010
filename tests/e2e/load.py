# SPDX-License-Identifier: Apache-2.0
"""Load whose content is known, kept up until the server goes, and what of it the server answered for.

Each stream is a thread with a connection of its own. What a PONG covered, or a reply said was done,
is written down at once, so that it can be held against what the server tells after it came back.
"""

import json
import os
import subprocess
import threading

from bus import DEADLINE_S, api
from test_telemetry import SECOND_NS, START_NS, Kind, query

from servers import BINARY
from wire import Violation, Wire, wait_until

READINGS = """
syntax = "proto3";
package PACKAGE.v1;
import "mir/device/v1/mir.proto";

message Reading {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    int64 number = 2;
    double root = 3;
    string text = 4;
}

message Other {
    option (mir.device.v1.message_type) = MESSAGE_TYPE_TELEMETRY;
    int64 ts = 1 [(mir.device.v1.timestamp) = TIMESTAMP_TYPE_NANO];
    int32 value = 2;
}
"""

# Rows of one query, small enough for an answer of the largest size.
QUERY_ROWS = 10_000


def readings_kind(name):
    return Kind(READINGS, f"readings_{name}")


def row_of(device, number):
    """What has to be read back of a device's row of this number, whose time is START_NS + number."""
    return [START_NS + number, device, number, number**0.5, f"{device}/{number}"]


def telemetry(device, message, name=None):
    """One publish as it goes over the wire; name: of the type, if not the message's own."""
    body = message if isinstance(message, bytes) else message.SerializeToString()
    name = message.DESCRIPTOR.full_name if name is None else name
    header = f"NATS/1.0\r\nmir-msg: {name}\r\n\r\n" if name else "NATS/1.0\r\na: b\r\n\r\n"
    size = len(header) + len(body)
    return f"HPUB device.{device}.tlm.v1alpha.proto {len(header)} {size}\r\n{header}".encode() + body + b"\r\n"


def reading(kind, device, number):
    time_ns, _, number, root, text = row_of(device, number)
    return telemetry(device, kind.Reading(ts=time_ns, number=number, root=root, text=text))


class Stream(threading.Thread):
    """Sends rows [0, count) of a device, in batches that each end with PING; at most `window` of them unanswered."""

    def __init__(self, server, kind, device, batch=100, window=8, first=0):
        super().__init__(daemon=True)
        self.server, self.kind, self.device = server, kind, device
        self.batch, self.window = batch, window
        self.first = self.sent = self.covered = first
        self.stopping = threading.Event()
        self.wrong = None
        self.wire = Wire(server.address).connect()

    def run(self):
        try:
            open_batches = 0
            while not self.stopping.is_set():
                numbers = range(self.sent, self.sent + self.batch)
                data = b"".join(reading(self.kind, self.device, number) for number in numbers)
                self.sent += self.batch
                self.wire.send(data + b"PING\r\n")
                open_batches += 1
                while open_batches >= self.window:
                    self._pong()
                    open_batches -= 1
            while open_batches:
                self._pong()
                open_batches -= 1
        except (OSError, Violation):
            pass  # The server went, which is what most of these tests are about.
        finally:
            self.wire.close()

    def _pong(self):
        frame = self.wire.frame(DEADLINE_S)
        if frame.op != "PONG":
            self.wrong = frame.raw
            raise Violation(f"instead of a PONG: {frame.raw!r}")
        self.covered += self.batch

    def finish(self):
        """Ends the load, with all that was sent covered."""
        self.stopping.set()
        self.join(DEADLINE_S)
        assert not self.is_alive() and self.covered == self.sent, self.wrong


class Creates(threading.Thread):
    """Creates devices one by one and, every eighth time, eight at once; up to `window` requests are open."""

    def __init__(self, server, prefix, window=16):
        super().__init__(daemon=True)
        self.prefix, self.window = prefix, window
        self.asked = {}  # request number -> ids
        self.sent, self.confirmed, self.refused = set(), set(), []
        self.stopping = threading.Event()
        self.wire = Wire(server.address).connect()
        self.inbox = f"_INBOX.{prefix}"
        self.wire.sub(f"{self.inbox}.*", 1).settle()

    def run(self):
        try:
            requests = answers = 0
            while not self.stopping.is_set():
                self._ask(requests)
                requests += 1
                while requests - answers >= self.window:
                    self._answer()
                    answers += 1
            while answers < requests:
                self._answer()
                answers += 1
        except (OSError, Violation):
            pass
        finally:
            self.wire.close()

    def new(self, device):
        meta = {"name": f"{device}-name", "namespace": "crash", "labels": {"round": self.prefix, "id": device}}
        return {"meta": meta, "spec": {"device_id": device}}

    def _ask(self, number):
        many = number % 8 == 0
        ids = [f"{self.prefix}-{number}-{n}" for n in range(8 if many else 1)]
        if many:
            function, request = "creates", api.CreateDevicesRequest(devices=[self.new(i) for i in ids])
        else:
            function, request = "create", api.CreateDeviceRequest(device=self.new(ids[0]))
        self.asked[number] = many, ids
        self.sent.update(ids)
        subject = f"client.load.core.v1alpha.{function}"
        self.wire.pub(subject, request.SerializeToString(), reply=f"{self.inbox}.{number}")

    def _answer(self):
        message = self.wire.msg(DEADLINE_S)
        many, ids = self.asked[int(message.subject.rpartition(b".")[2])]
        answer = (api.CreateDevicesResponse if many else api.CreateDeviceResponse).FromString(message.body)
        if answer.WhichOneof("response") == "ok":
            self.confirmed.update(ids)
        else:
            self.refused.append(answer.error)

    def finish(self):
        self.stopping.set()
        self.join(DEADLINE_S)
        assert not self.is_alive()


def rows_between(bus, kind, device, first, last, page=QUERY_ROWS):
    """The rows of a device with numbers in [first, last)."""
    rows = []
    for start in range(first, last, page):
        end = min(start + page, last)
        table = query(bus, device, kind.name("Reading"), START_NS + start, START_NS + end)
        if table.rows:
            assert list(table.headers) == ["_time", "__id", "number", "root", "text"]
        for row in table.rows:
            # By hand, as there are hundreds of thousands of them.
            when, who, number, root, text = row.datapoints
            time_ns = when.value_timestamp.seconds * SECOND_NS + when.value_timestamp.nanos
            rows.append([time_ns, who.value_string, number.value_int64, root.value_double, text.value_string])
    return rows


def check_rows(bus, kind, device, covered, sent, first=0):
    """All of [first, covered) is there; of [covered, sent) what is there is unaltered; nothing twice, nothing else."""
    rows = rows_between(bus, kind, device, first, sent)
    numbers = [row[2] for row in rows]
    assert len(set(numbers)) == len(numbers), f"{device}: rows are there twice"
    missing = set(range(first, covered)) - set(numbers)
    assert not missing, f"{device}: {len(missing)} rows are missing that a PONG covered, from {min(missing)} on"
    assert rows == [row_of(device, number) for number in numbers]
    return numbers


def check_creates(bus, creates):
    assert not creates.refused, creates.refused[:3]
    listed = bus.list(ids=[f"{creates.prefix}-*"])
    by_id = {device.spec.device_id: device for device in listed}
    assert len(by_id) == len(listed)
    missing = creates.confirmed - set(by_id)
    assert not missing, f"{len(missing)} devices are missing whose creation was confirmed: {sorted(missing)[:3]}"
    assert set(by_id) <= creates.sent
    for device, found in by_id.items():
        new = creates.new(device)
        assert (found.meta.name, found.meta.namespace) == (new["meta"]["name"], new["meta"]["namespace"])
        assert dict(found.meta.labels) == new["meta"]["labels"]


# The server's own account


def status_of(server):
    """What `mir status -o json` says."""
    command = [BINARY, "status", "-o", "json", "--target", server.url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=2 * DEADLINE_S, env=os.environ)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def problems_of(server, device):
    """kind -> count of what the server reports about a device."""
    return {one["kind"]: one["count"] for one in status_of(server)["problems"] if one["device"] == device}


def await_problem(server, device, kind, count=1):
    def reported():
        return problems_of(server, device).get(kind, 0) >= count

    wait_until(reported, 2 * DEADLINE_S, f"{kind!r} of {device}")


def text_of_problem(server, device, kind):
    text, = [one["text"] for one in status_of(server)["problems"] if (one["device"], one["kind"]) == (device, kind)]
    return text
