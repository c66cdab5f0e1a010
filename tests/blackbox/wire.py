# SPDX-License-Identifier: Apache-2.0
"""A client that knows nothing but bytes.

It sends what it is told, cuts what arrives into frames, and is strict about their form: upper case
operations, one blank between arguments, CRLF everywhere, sizes in shortest decimal. Every wait has
a deadline. Server PINGs are answered and asynchronous INFOs kept aside, unless `manual` is set, so
that a test sees only what it asked for.
"""

import json
import os
import re
import select
import socket
import struct
import time
from typing import NamedTuple

PATIENCE = float(os.environ.get("MIR_TEST_PATIENCE", "1"))
DEADLINE_S = 5.0 * PATIENCE

MSG = re.compile(rb"MSG ([^ \t\r\n]+) ([^ \t\r\n]+) (?:([^ \t\r\n]+) )?(0|[1-9][0-9]*)")
HMSG = re.compile(rb"HMSG ([^ \t\r\n]+) ([^ \t\r\n]+) (?:([^ \t\r\n]+) )?([1-9][0-9]*) (0|[1-9][0-9]*)")
ERR = re.compile(rb"-ERR '([^\r\n]*)'")
INFO = re.compile(rb"INFO (\{.*\}) ?")

# What most tests say: quiet, headers on.
QUIET = {"verbose": False, "pedantic": False, "headers": True, "no_responders": True, "protocol": 1}


class Violation(AssertionError):
    """The server sent something that is not of the protocol, or nothing in time."""


class Frame(NamedTuple):
    op: str
    raw: bytes
    subject: bytes = b""
    sid: bytes = b""
    reply: bytes = b""
    head: bytes = b""
    body: bytes = b""
    text: str = ""


def let_pass(seconds):
    """For promises about time itself, where there is no event to await."""
    time.sleep(seconds)


def wait_until(condition, seconds=DEADLINE_S, what="condition"):
    end = time.monotonic() + seconds
    while True:
        value = condition()
        if value:
            return value
        if time.monotonic() > end:
            raise Violation(f"{what}: not within {seconds} s")
        time.sleep(0.002)


def connect_line(**options):
    return b"CONNECT " + json.dumps(options).encode() + b"\r\n"


class Wire:
    def __init__(self, address, manual=False, receive_bytes=None, info=True):
        self.sock = socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        if receive_bytes:
            self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, receive_bytes)
        self.sock.settimeout(DEADLINE_S)
        try:
            self.sock.connect(address)
        except OSError:
            self.sock.close()
            raise
        self.sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.port = self.sock.getsockname()[1]
        self.manual = manual
        self.buffer = bytearray()
        self.ended = None  # "fin" or "reset" once the peer is gone
        self.infos = []
        self.info = None
        if info:
            frame = self.frame()
            if frame.op != "INFO":
                raise Violation(f"first line is not INFO: {frame.raw!r}")
            self.info = json.loads(frame.text)

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        self.sock.close()

    def abort(self):
        """Ends with a reset instead of an orderly close."""
        self.sock.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        self.sock.close()

    # Sending

    def send(self, data):
        self.sock.settimeout(DEADLINE_S)
        self.sock.sendall(data)
        return self

    def try_send(self, data):
        """Sends although the peer may have gone meanwhile; tells whether it took everything."""
        try:
            self.send(data)
            return True
        except (BrokenPipeError, ConnectionResetError, TimeoutError):
            return False

    def connect(self, **options):
        self.send(connect_line(**{**QUIET, **options}) + b"PING\r\n")
        frame = self.frame()
        while frame.op == "+OK":
            frame = self.frame()
        if frame.op != "PONG":
            raise Violation(f"no PONG after CONNECT: {frame.raw!r}")
        return self

    def sub(self, subject, sid, queue=None):
        middle = f" {queue}" if queue else ""
        return self.send(f"SUB {subject}{middle} {sid}\r\n".encode())

    def pub(self, subject, body=b"", reply=None):
        middle = f" {reply}" if reply else ""
        return self.send(f"PUB {subject}{middle} {len(body)}\r\n".encode() + body + b"\r\n")

    # Receiving

    def _fill(self, end):
        left = end - time.monotonic()
        if left <= 0:
            raise Violation(f"nothing in time; unread so far: {bytes(self.buffer[:200])!r}")
        self.sock.settimeout(left)
        try:
            data = self.sock.recv(1 << 18)
        except TimeoutError:
            raise Violation(
                f"nothing in time; unread so far: {bytes(self.buffer[:200])!r}"
            ) from None
        except ConnectionResetError:
            self.ended = "reset"
            return
        if not data:
            self.ended = "fin"
            return
        self.buffer += data

    def _need(self, count, end):
        while len(self.buffer) < count:
            if self.ended:
                raise Violation(f"ended inside a frame: {bytes(self.buffer[:200])!r}")
            self._fill(end)

    def raw_frame(self, seconds=DEADLINE_S):
        """The next frame whatever it is, or None at the end of the stream."""
        end = time.monotonic() + seconds
        while (at := self.buffer.find(b"\n")) < 0:
            if self.ended:
                if self.buffer:
                    raise Violation(f"ended inside a line: {bytes(self.buffer[:200])!r}")
                return None
            self._fill(end)
        line = bytes(self.buffer[: at + 1])
        if not line.endswith(b"\r\n"):
            raise Violation(f"line without CR: {line!r}")
        text, size = line[:-2], at + 1
        if match := MSG.fullmatch(text):
            total, header = int(match[4]), 0
        elif match := HMSG.fullmatch(text):
            total, header = int(match[5]), int(match[4])
            if header > total:
                raise Violation(f"header longer than all: {line!r}")
        else:
            del self.buffer[:size]
            if text in (b"PING", b"PONG", b"+OK"):
                return Frame(text.decode(), line)
            if match := ERR.fullmatch(text):
                return Frame("-ERR", line, text=match[1].decode("utf-8", "backslashreplace"))
            if match := INFO.fullmatch(text):
                return Frame("INFO", line, text=match[1].decode())
            raise Violation(f"not a line of the protocol: {line[:200]!r}")
        self._need(size + total + 2, end)
        whole = bytes(self.buffer[: size + total + 2])
        del self.buffer[: size + total + 2]
        if not whole.endswith(b"\r\n"):
            raise Violation(f"payload without CRLF: {whole[:200]!r}")
        body = whole[size:-2]
        return Frame(
            "HMSG" if header else "MSG",
            whole,
            subject=match[1],
            sid=match[2],
            reply=match[3] or b"",
            head=body[:header],
            body=body[header:],
        )

    def frame_or_end(self, seconds=DEADLINE_S):
        end = time.monotonic() + seconds
        while True:
            frame = self.raw_frame(end - time.monotonic())
            if frame is None or self.manual:
                return frame
            if frame.op == "PING":
                self.try_send(b"PONG\r\n")
            elif frame.op == "INFO" and self.info is not None:
                self.infos.append(json.loads(frame.text))
            else:
                return frame

    def frame(self, seconds=DEADLINE_S):
        frame = self.frame_or_end(seconds)
        if frame is None:
            raise Violation("closed instead of a frame")
        return frame

    def msg(self, seconds=DEADLINE_S):
        frame = self.frame(seconds)
        if frame.op not in ("MSG", "HMSG"):
            raise Violation(f"not a message: {frame.raw!r}")
        return frame

    def error(self, seconds=DEADLINE_S):
        frame = self.frame(seconds)
        if frame.op != "-ERR":
            raise Violation(f"not an error: {frame.raw!r}")
        return frame.text

    def flush(self, seconds=DEADLINE_S):
        """PING, then everything that precedes its PONG."""
        self.send(b"PING\r\n")
        return self.until_pong(seconds)

    def until_pong(self, seconds=DEADLINE_S):
        frames = []
        end = time.monotonic() + seconds
        while (frame := self.frame(end - time.monotonic())).op != "PONG":
            frames.append(frame)
        return frames

    def settle(self):
        """PING and PONG with nothing between them."""
        frames = self.flush()
        if frames:
            raise Violation(f"unexpected: {[f.raw for f in frames[:3]]!r}")
        return self

    def rest(self, seconds=DEADLINE_S):
        """Everything up to the end of the stream, which must come."""
        frames = []
        end = time.monotonic() + seconds
        while (frame := self.frame_or_end(end - time.monotonic())) is not None:
            frames.append(frame)
        return frames

    def exactly(self, expected, seconds=DEADLINE_S):
        """Reads precisely these bytes; for streams too long to be cut into frames."""
        end = time.monotonic() + seconds
        view, at = memoryview(expected), 0
        while at < len(view):
            if not self.buffer:
                if self.ended:
                    raise Violation(f"ended after {at} of {len(view)} bytes")
                self._fill(end)
            count = min(len(self.buffer), len(view) - at)
            if self.buffer[:count] != view[at : at + count]:
                got = bytes(self.buffer[:count])
                off = next(i for i in range(count) if got[i] != view[at + i])
                want = bytes(view[at + off : at + off + 60])
                raise Violation(f"byte {at + off}: {got[off:off + 60]!r} instead of {want!r}")
            del self.buffer[:count]
            at += count


def raw_of(frames):
    return b"".join(frame.raw for frame in frames)


# The kernel's view of the server's side of a connection

ESTABLISHED = "01"


def server_sides(server_port):
    """Client port -> (state, bytes the server has not read yet), for one server port."""
    found = {}
    with open("/proc/net/tcp", encoding="ascii") as table:
        next(table)
        for line in table:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == server_port:
                unread = int(fields[4].rpartition(":")[2], 16)
                found[int(fields[2].rpartition(":")[2], 16)] = (fields[3], unread)
    return found


def await_read(server_port, wires):
    """Until the server has taken every byte sent on these connections out of its sockets."""
    ports = {wire.port for wire in wires}

    def all_read():
        sides = server_sides(server_port)
        return all(sides.get(port, ("", 0))[1] == 0 for port in ports)

    wait_until(all_read, what="server reads what was sent")


def readable(wires, seconds):
    poller = select.poll()
    by_fd = {wire.sock.fileno(): wire for wire in wires}
    for fd in by_fd:
        poller.register(fd, select.POLLIN)
    return [by_fd[fd] for fd, _ in poller.poll(seconds * 1000)]
