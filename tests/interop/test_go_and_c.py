# SPDX-License-Identifier: Apache-2.0
"""nats.go and nats.c, unmodified, each driven by a small program of ours that prints what it saw."""

import pathlib
import signal
import subprocess
import threading

import pytest

from servers import REFERENCE
from wire import PATIENCE

HERE = pathlib.Path(__file__).parent
DEADLINE_S = 45 * PATIENCE


@pytest.fixture(scope="session")
def programs(tmp_path_factory):
    """Builds a program at its first use."""
    built = {}

    def build(language):
        if language in built:
            return built[language]
        program = tmp_path_factory.mktemp(language) / "interop"
        if language == "go":
            command, where = ["go", "build", "-o", str(program), "."], HERE / "go"
        else:
            flags = ["-std=c17", "-D_GNU_SOURCE", "-O1", "-Wall", "-Wextra", "-Werror"]
            command, where = ["cc", *flags, "interop.c", "-lnats", "-o", str(program)], HERE / "c"
        done = subprocess.run(command, cwd=where, capture_output=True, text=True, timeout=280)
        assert done.returncode == 0, done.stderr
        built[language] = program
        return program

    return build


class Client:
    """A running scenario. Its lines are facts, name=value; they can be awaited one by one."""

    def __init__(self, program, scenario, url, stderr):
        self.stderr = stderr
        with open(stderr, "wb") as errors:
            self.process = subprocess.Popen(
                [program, scenario, url],
                stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=errors, text=True, bufsize=1,
            )  # fmt: skip
        self.timer = threading.Timer(DEADLINE_S, self.process.kill)
        self.timer.start()

    def next(self, name):
        """The value of the next fact, which must have this name."""
        line = self.process.stdout.readline().rstrip("\n")
        found, _, value = line.partition("=")
        assert found == name, (line, self.stderr.read_text())
        return value

    def say(self, line):
        self.process.stdin.write(line + "\n")

    def finish(self):
        """Waits for a good end; all facts that were not read yet."""
        out = self.process.stdout.read()
        assert self.process.wait() == 0, (out, self.stderr.read_text())
        facts = [tuple(line.split("=", 1)) for line in out.splitlines()]
        assert facts.pop() == ("done", "true")
        return facts

    def end(self):
        self.timer.cancel()
        self.process.kill()
        self.process.wait()
        self.process.stdin.close()
        self.process.stdout.close()


@pytest.fixture
def run(programs, tmp_path):
    clients = []

    def start(language, scenario, url):
        client = Client(programs(language), scenario, url, tmp_path / f"stderr.{len(clients)}")
        clients.append(client)
        return client

    yield start
    for client in clients:
        client.end()


LANGUAGES = pytest.mark.parametrize("language", ["go", "c"])
# The first test of a language builds it, and Go's first build takes its time.
pytestmark = pytest.mark.timeout(300)


@LANGUAGES
def test_publish_and_subscribe(run, routed, language):
    facts = dict(run(language, "pubsub", routed.url).finish())
    if language == "go":
        assert facts == {
            "received": "10000", "after_unsubscribe": "true", "limited": "3", "version": "true", "headers": "true",
        }  # fmt: skip
    else:
        assert facts == {"received": "5000", "limited": "2"}


@LANGUAGES
def test_queue_groups(run, routed, language):
    facts = dict(run(language, "queue", routed.url).finish())
    assert facts == {"received": "8000" if language == "go" else "5000", "idle_members": "0"}


@LANGUAGES
def test_requests_headers_and_no_responders(run, routed, language):
    facts = dict(run(language, "request", routed.url).finish())
    if language == "go":
        assert facts == {
            "data": "payload", "header": "answer", "asked": "first,second", "concurrent": "3200", "old_style": "old",
            "old_no_responders": "true", "no_responders": "true", "prompt": "true", "jetstream": "true", "kv": "true",
            "connected": "true",
        }  # fmt: skip
    else:
        assert facts == {
            "data": "payload", "header": "answer", "asked": "question", "repeated": "500",
            "no_responders": "No responders available for request",
        }  # fmt: skip


@LANGUAGES
def test_drain_loses_nothing(run, routed, language):
    facts = dict(run(language, "drain", routed.url).finish())
    if language == "go":
        assert facts == {"received": "2000", "error": "<nil>", "gone": "true"}
    else:
        assert facts == {"closed": "true", "received": "5000", "gone": "No responders available for request"}


@LANGUAGES
def test_max_payload(run, shared, language):
    facts = dict(run(language, "limits", shared({"limits.max_payload": "1MiB"}).url).finish())
    too_large = "true" if language == "go" else "Maximum Payload Exceeded"
    assert facts == {"max_payload": "1048576", "too_large": too_large, "largest": "1048576"}


PERMITTED = {
    "auth.mode": "users",
    "auth.users": [
        {"user": "u", "password": "p", "permissions": {"publish": {"allow": ["ok.>"]}, "subscribe": {"allow": ["ok.>"]}}}
    ],
}


@LANGUAGES
def test_49_permission_errors_leave_the_connection_open(run, shared, language):
    facts = run(language, "permissions", shared(PERMITTED).url).finish()
    texts = [value for name, value in facts if name == "text"]
    rest = dict((name, value) for name, value in facts if name != "text")
    if language == "go":
        assert rest == {"connected": "true", "wrong_password": "true", "no_password": "true"}
        assert texts == [
            'nats: permissions violation for publish to "no.publish"',
            'nats: permissions violation for subscription to "no.plain"',
            'nats: permissions violation for subscription to "no.queued" using queue "work"',
        ]
    else:
        assert rest == {
            "status": "Not Permitted", "errors": "3", "connected": "true",
            "wrong_password": "Authentication Violation",
        }  # fmt: skip
        wanted = ('publish to "no.publish"', 'subscription to "no.plain"', 'subscription to "no.queued" using queue "work"')
        for text in wanted:
            assert any(text in got.lower() for got in texts), texts


@LANGUAGES
def test_42_reconnects_and_subscribes_again(run, launch, language):
    server = launch()
    client = run(language, "reconnect", server.url)
    assert client.next("ready") == "true"
    for turn in range(3):
        client.say(f"publish {turn}")
        got = client.next("received")
        assert got == (f"{turn},queued {turn}" if language == "go" else str(2 * turn + 2))
        if turn < 2:
            server.kill()
            server.start()
            client.say("await-reconnect")
            assert client.next("reconnected") == "true"
    client.say("end")
    assert client.finish() == []


@LANGUAGES
def test_41_lame_duck_is_noticed(run, launch, language):
    duration = "30s" if REFERENCE else "3s"
    server = launch({"lame_duck.duration": duration, "lame_duck.grace_period": "1s"})
    client = run(language, "lameduck", server.url)
    assert client.next("ready") == "true"
    server.signal(signal.SIGUSR2)
    assert client.next("notice") == "true"
    client.finish()
    server.process.wait(20 * PATIENCE)


def test_a_client_that_was_there_first(run, launch, programs):
    programs("go")
    server = launch()
    server.kill()
    client = run("go", "late", server.url)
    assert client.next("ready") == "true"
    server.start()
    assert client.next("received") == "x"
    client.finish()
