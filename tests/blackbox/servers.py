# SPDX-License-Identifier: Apache-2.0
"""Starts and stops a server process in a directory of its own, on a port nobody else has.

Settings are named as in our configuration (`limits.max_payload`). The reference server gets the same
settings translated into its own configuration file, so that one test speaks to both.
"""

import functools
import json
import os
import pathlib
import re
import shutil
import signal
import subprocess
import tempfile
import time

from wire import PATIENCE, Violation, wait_until

REFERENCE = os.environ.get("MIR_TEST_PEER", "") == "nats-server"
SHARDS = int(os.environ.get("MIR_TEST_SHARDS", "2"))
BACKEND = os.environ.get("MIR_TEST_BACKEND", "auto")

BINARY = os.path.abspath(os.environ.get("MIR_BIN", ""))

START_S = 20 * PATIENCE
STOP_S = 10 * PATIENCE

SIZE = re.compile(r"(\d+)(KiB|MiB|GiB)?")
UNIT = {None: 1, "KiB": 1 << 10, "MiB": 1 << 20, "GiB": 1 << 30}
TIME = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m)")
SECOND = {"ms": 0.001, "s": 1, "m": 60}

READY = re.compile(r"ready on 127\.0\.0\.1:(\d+)")
SANITIZER = re.compile(r"AddressSanitizer|LeakSanitizer|ThreadSanitizer|runtime error:")


@functools.cache
def sanitized():
    """Whether the server is a sanitizer build, whose memory says nothing about the server's."""
    if REFERENCE:
        return False
    content = pathlib.Path(BINARY).read_bytes()
    return b"__asan_init" in content or b"__tsan_init" in content


def size_bytes(text):
    number, unit = SIZE.fullmatch(str(text)).groups()
    return int(number) * UNIT[unit]


def seconds_of(text):
    number, unit = TIME.fullmatch(text).groups()
    return float(number) * SECOND[unit]


def as_is(value):
    return json.dumps(value)


# Our key -> (their key, how to write the value)
REFERENCE_KEYS = {
    "limits.max_connections": ("max_connections", as_is),
    "limits.max_payload": ("max_payload", size_bytes),
    "limits.max_pending": ("max_pending", size_bytes),
    "limits.max_control_line": ("max_control_line", size_bytes),
    "limits.max_subscriptions": ("max_subscriptions", as_is),
    "limits.max_subscription_tokens": ("max_sub_tokens", as_is),
    "limits.write_deadline": ("write_deadline", as_is),
    "ping.interval": ("ping_interval", as_is),
    "ping.max": ("ping_max", as_is),
    "lame_duck.duration": ("lame_duck_duration", as_is),
    "lame_duck.grace_period": ("lame_duck_grace_period", as_is),
    "auth.no_auth_user": ("no_auth_user", as_is),
}


def reference_config(settings):
    lines, auth = [], {}
    # Ours allows 8 MiB unless told otherwise.
    settings = {"limits.max_payload": "8MiB", **settings}
    for key, value in settings.items():
        if key == "auth.mode":
            continue
        if key == "auth.timeout":
            auth["timeout"] = seconds_of(value)
        elif key == "auth.token":
            auth["token"] = value
        elif key == "auth.users":
            auth["users"] = value
        elif key == "auth.default_permissions":
            auth["default_permissions"] = value
        else:
            name, write = REFERENCE_KEYS[key]
            lines.append(f"{name}: {write(value)}")
    if auth:
        lines.append(f"authorization: {json.dumps(auth, ensure_ascii=False)}")
    return "\n".join(lines) + "\n"


class Server:
    def __init__(self, settings=None, shards=SHARDS):
        self.settings = dict(settings or {})
        self.shards = shards
        self.folder = None
        self.port = 0
        self.process = None
        self.starts = 0

    @property
    def address(self):
        return ("127.0.0.1", self.port)

    @property
    def url(self):
        return f"nats://127.0.0.1:{self.port}"

    @property
    def pid(self):
        return self.process.pid

    def _command(self):
        if REFERENCE:
            config = self.folder / "server.conf"
            config.write_text(reference_config(self.settings), encoding="utf-8")
            port = str(self.port or -1)
            binary = shutil.which("nats-server") or "/usr/sbin/nats-server"
            folder = str(self.folder)
            return [binary, "-a", "127.0.0.1", "-p", port, "-c", str(config), "--ports_file_dir", folder]
        command = [BINARY, "serve", "--data", str(self.folder / "data")]
        # Spread from the first connection on, so that what crosses shards is what is tested.
        command += ["--set", "io.together=0"]
        command += ["--listen", f"127.0.0.1:{self.port}", "--shards", str(self.shards)]
        settings = {"io.backend": BACKEND, **self.settings}
        for key, value in settings.items():
            text = value if isinstance(value, str) else json.dumps(value)
            command += ["--set", f"{key}={text}"]
        return command

    def start(self):
        """Runs it and waits until it accepts. A second start keeps the port of the first."""
        if self.folder is None:
            self.folder = pathlib.Path(tempfile.mkdtemp(prefix="mir-blackbox-"))
        self.starts += 1
        self.log_path = self.folder / f"stderr.{self.starts}"
        try:
            with open(self.log_path, "wb") as log:
                self.process = subprocess.Popen(
                    self._command(), stdin=subprocess.DEVNULL, stdout=log, stderr=log, cwd=self.folder
                )
            self.port = wait_until(self._ready, START_S, "server is ready")
        except BaseException:
            self.kill()
            if self.starts == 1:
                self.remove()
            raise
        return self

    def _ready(self):
        if self.process.poll() is not None:
            raise Violation(f"server ended at start with {self.process.returncode}:\n{self.log()}")
        if REFERENCE:
            ports = self.folder / f"nats-server_{self.pid}.ports"
            try:
                return int(json.loads(ports.read_text(encoding="ascii"))["nats"][0].rpartition(":")[2])
            except (FileNotFoundError, json.JSONDecodeError):
                return None
        found = READY.search(self.log())
        return int(found[1]) if found else None

    def log(self):
        return self.log_path.read_text(encoding="utf-8", errors="replace")

    def running(self):
        return self.process is not None and self.process.poll() is None

    def signal(self, number):
        self.process.send_signal(number)

    def kill(self):
        if self.process is not None:
            self.process.kill()
            self.process.wait()

    def stop(self):
        """Asks it to end, and insists that it ends well."""
        if self.process is None:
            return
        if self.process.poll() is None:
            self.process.terminate()
        try:
            self.process.wait(STOP_S)
        except subprocess.TimeoutExpired:
            self.kill()
            raise Violation(f"server did not end within {STOP_S} s of SIGTERM:\n{self.tail()}") from None
        if SANITIZER.search(self.log()):
            raise Violation(f"the sanitizer spoke:\n{self.tail(200)}")
        # The reference reports its end by a signal as 1.
        allowed = (0, 1) if REFERENCE else (0, -signal.SIGKILL)
        if self.process.returncode not in allowed:
            raise Violation(f"server ended with {self.process.returncode}:\n{self.tail()}")

    def remove(self):
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)

    def tail(self, lines=40):
        return "\n".join(self.log().splitlines()[-lines:])

    # What the kernel knows about the process

    def memory_bytes(self):
        """Anonymous memory that is really there; always 0 where that says nothing."""
        if sanitized():
            return 0
        status = pathlib.Path(f"/proc/{self.pid}/status").read_text(encoding="ascii")
        return int(re.search(r"RssAnon:\s+(\d+) kB", status)[1]) << 10

    def descriptors(self):
        return len(os.listdir(f"/proc/{self.pid}/fd"))


def ended_within(server, seconds):
    begin = time.monotonic()
    server.process.wait(seconds)
    return time.monotonic() - begin
