# SPDX-License-Identifier: Apache-2.0
"""Events: lists and their pages, watching without a gap, deletion, the chain, retention, and the history of a device."""

import fcntl
import json
import os
import pty
import re
import signal
import struct
import subprocess
import termios
import threading
import time

import pytest
from fake_hub import PATIENCE, Hub
from terminal import BINARY, terminal

HEAD = bytes(range(32)).hex()


def wait_until(condition):
    end = time.monotonic() + 20 * PATIENCE
    while not condition():
        assert time.monotonic() < end
        threading.Event().wait(0.02)


def rows(text):
    return [line.split() for line in text.splitlines()]


def sequences(result):
    return [event["status"]["sequence"] for event in json.loads(result.stdout)]


# Lists


def test_events_newest_first_with_who_and_what(mir, hub):
    hub.event("DeviceCreated", actor="ada", message="A device has been created successfully")
    hub.event("DeviceCommand", type="warning", error="nats: timeout\nand more")
    result = mir("event", "list")
    assert result.returncode == 0
    assert rows(result.stdout)[0] == ["SEQ", "TIME", "REASON", "DEVICE", "ACTOR", "MESSAGE"]
    first, second = result.stdout.splitlines()[1:]
    assert first.split()[:1] + first.split()[2:] == ["2", "DeviceCommand", "pump-7/plant", "server", "nats:", "timeout", "and", "more"]
    assert re.match(r"\d\d:\d\d:\d\d$", first.split()[1])
    assert second.endswith("ada     A device has been created successfully")
    assert result.stderr == ""


def test_an_old_event_shows_its_date_and_not_a_time_of_today(mir, hub):
    hub.event("DeviceCreated", at=1700000000)
    assert rows(mir("event", "list", "--utc").stdout)[1][1] == "2023-11-14"
    assert "2023-11-14 22:13:20.000" in mir("event", "list", "--utc", "-o", "wide").stdout


def test_an_event_as_json_and_yaml(mir, hub):
    hub.event("DeviceUpdated", actor="ada", at=1700000000, payload={"a": [1]}, changes=[("meta.labels.floor", '"1"', None)])
    [event] = json.loads(mir("evt", "ls", "-o", "json").stdout)
    assert event["kind"] == "event" and event["meta"]["namespace"] == "plant"
    assert event["spec"]["jsonPayload"] == {"a": [1]}
    assert event["spec"]["relatedObject"]["meta"] == {"name": "pump-7", "namespace": "plant"}
    assert event["spec"]["audit"] == {
        "actor": "ada", "outcome": "ok", "changes": [{"path": "meta.labels.floor", "from": "1"}]
    }
    assert event["status"] == {
        "count": 1, "sequence": 1, "firstAt": "2023-11-14T22:13:20Z", "lastAt": "2023-11-14T22:13:20Z", "leaf": "01" * 32
    }
    assert "    actor: ada\n" in mir("event", "show", "1").stdout
    assert json.loads(mir("event", "show", "1", "-o", "json").stdout) == [event]
    assert mir("event", "show", "2").returncode == 1
    assert "reason: DeviceUpdated" in mir("event", "list", "-o", "yaml").stdout


def test_a_twin_in_a_payload_is_shown_without_the_bytes_of_its_schema(mir, hub):
    hub.event("DeviceUpdated", payload={"status": {"schema": {"compressedSchema": "KLUv", "packageNames": ["a"]}}})
    assert "compressedSchema" not in mir("event", "show", "1").stdout
    assert "- a\n" in mir("event", "show", "1").stdout
    assert "KLUv" in mir("event", "show", "1", "-o", "json").stdout


def test_the_filters_reach_the_server(mir, hub):
    mir("event", "list", "--reason", "A,B", "--type", "warning", "--actor", "ada", "--outcome", "failed", "--text", "a, b",
        "--from", "2023-11-14T22:13:20Z", "--to", "1700000010", "--before", "9", "--limit", "3", "--namespace", "plant",
        "--id", "p7", "--label", "floor=2,status=online", "--schema", "pump.v1")
    target = hub.asked("evt.list")[0].target
    assert list(target.reasons) == ["A", "B"] and list(target.types) == ["warning"] and list(target.actors) == ["ada"]
    assert list(target.outcomes) == ["failed"] and target.text == "a, b"
    assert getattr(target.filter_date, "from").seconds == 1700000000 and target.filter_date.to.seconds == 1700000010
    assert target.before_sequence == 9 and target.filter_limit == 4 and not target.HasField("after_sequence")
    assert list(target.targets.namespaces) == ["plant"] and list(target.device_ids) == ["p7"]
    assert dict(target.devices.labels) == {"floor": "2"} and list(target.devices.liveness) == ["online"]
    assert list(target.devices.schemas) == ["pump.v1"] and not target.devices.ids and not target.devices.namespaces
    mir("event", "list", "--since", "1h")
    since = getattr(hub.asked("evt.list")[-1].target.filter_date, "from").seconds
    assert abs(time.time() - 3600 - since) < 60


@pytest.mark.parametrize(
    "words, found",
    [
        ([], [5, 4, 3, 2, 1]),
        (["*/*"], [5, 4, 3, 2, 1]),
        (["pump-7/plant"], [2, 1]),
        (["pump-7"], [2, 1]),
        (["pump-7/plant", "gone/plant"], [2, 1]),
        (["gone/plant"], [5]),
        (["*/lab"], [4]),
        (["pump-*/plant"], [3, 2, 1]),
        (["nobody/plant"], []),
        (["--id", "gone"], [5]),
        (["--label", "site=b"], [4]),
        (["--text", "REBOOT"], [3]),
    ],
)
def test_which_events_are_meant(mir, hub, words, found):
    hub.add("pump-7", "plant")
    hub.add("pump-7-b", "plant")
    hub.add("pump-8", "lab", site="b")
    hub.event("A", "old-name", "plant", device_id="pump-7")  # before it was renamed
    hub.event("B")
    hub.event("C", "pump-7-b", message="a reboot")
    hub.event("D", "pump-8", "lab")
    hub.event("E", "gone")
    if words == ["pump-*/plant"]:
        found = [3, 2]
    assert sequences(mir("event", "list", *words, "-o", "json")) == found


def test_a_device_that_is_gone_is_not_mixed_up_with_one_of_a_longer_name(mir, hub):
    hub.event("A", "pump-7")
    hub.event("B", "pump-7-b")
    assert sequences(mir("event", "list", "pump-7/plant", "-o", "json")) == [1]


def test_a_page_and_how_to_get_the_next_one(mir, hub):
    for number in range(250):
        hub.event("A")
    first = mir("event", "list")
    assert len(first.stdout.splitlines()) == 101
    assert first.stderr == "There are older ones: --before 151 shows them, --limit 0 shows all.\n"
    second = mir("event", "list", "--before", "151", "--limit", "150", "-o", "json")
    assert sequences(second) == list(range(150, 0, -1)) and second.stderr == ""


def test_all_events_come_in_pages_of_bounded_size(mir, hub):
    for number in range(2500):
        hub.event("A")
    assert sequences(mir("event", "list", "--limit", "0", "-o", "json")) == list(range(2500, 0, -1))
    asked = [request.target for request in hub.asked("evt.list")]
    assert [each.filter_limit for each in asked] == [1000, 1000, 1000]
    assert [each.before_sequence for each in asked] == [0, 1501, 501]
    assert len(sequences(mir("event", "list", "--limit", "1700", "-o", "json"))) == 1700


def test_no_events_are_said_and_are_0(mir):
    empty = mir("event", "list")
    assert (empty.returncode, empty.stdout, empty.stderr) == (0, "", "There are no events yet.\n")
    assert "No event matches." in mir("event", "list", "--reason", "x").stderr
    assert json.loads(mir("event", "list", "-o", "json").stdout) == []


def test_the_table_fits_the_terminal_and_so_does_the_page(hub, home):
    for number in range(50):
        hub.event("DeviceDesiredProps", "a-device-with-a-long-name", "and-a-namespace", actor="device a-long-id",
                  message="Device desired properties updated successfully", type="warning" if number % 2 else "normal")
    for columns in (80, 120):
        shown, code = terminal(["-t", hub.url, "event", "list"], {**home, "NO_COLOR": "1"}, columns=columns)
        lines = shown.splitlines()
        assert code == 0 and max(len(line) for line in lines) <= columns
        assert len(lines) == 22 and lines[0].split()[-1] == "MESSAGE" and "--before 31" in lines[-1]
        assert "DeviceDesiredProps " in lines[1]
    coloured, _ = terminal(["-t", hub.url, "event", "list"], home, columns=80)
    assert "\x1b[31mDeviceDesiredProps" in coloured


@pytest.mark.parametrize(
    "args, says",
    [
        (["event", "list", "--outcome", "good"], "ok or failed"),
        (["event", "list", "--limit", "-1"], "--limit is a number"),
        (["event", "list", "--before", "0"], "--before is the number"),
        (["event", "list", "--from", "1", "--since", "1h"], "exclude each other"),
        (["event", "list", "--from", "20", "--to", "10"], "ends before it begins"),
        (["event", "list", "--since", "yesterday"], "is no duration"),
        (["event", "list", "a/b/c"], "more than one '/'"),
        (["event", "watch", "--after", "x"], "--after is the number"),
        (["event", "watch", "--since", "1h"], "no option '--since'"),
        (["event", "show", "x"], "is not the number"),
        (["event", "show"], "needs SEQ"),
        (["event", "delete", "--yes"], "which events?"),
        (["event", "delete", "a/b"], "say --yes"),
        (["event", "verify", "--head", "12"], "64 hexadecimal digits"),
        (["event", "verify", "--head", HEAD + "0"], "64 hexadecimal digits"),
        (["device", "history"], "which device?"),
        (["device", "history", "*/plant"], "has a star"),
        (["device", "history", "a/b", "--id", "c"], "which device?"),
        (["device", "history", "a/b", "--at", "then"], "--at: "),
        (["device", "history", "a/b", "--limit", "0"], "--limit is a number"),
    ],
)
def test_wrong_use_of_events_is_2_and_nothing_is_asked(mir, hub, args, says):
    result = mir(*args)
    assert (result.returncode, result.stdout) == (2, ""), result.stderr
    assert says in result.stderr and "--help" in result.stderr
    assert hub.requests == []


def test_control_characters_of_an_event_do_not_reach_the_terminal(mir, hub):
    hub.event("Evil\x1b", "a\x07", message="x\x1b[2J", actor="\u202e", error="y\x1b", changes=[("p\x1b", '"\x1b"', None)])
    for args in (["list"], ["list", "-o", "wide"], ["show", "1"], ["delete", "--yes", "*/nothing"]):
        result = mir("event", *args)
        unwanted = "\x1b\x07" if "show" in args else "\x1b\x07\u202e"
        assert not set(unwanted) & set(result.stdout + result.stderr), args
    assert not set("\x1b\x07") & set(mir("device", "history", "a\x07/plant").stdout)


# Deletion


def test_events_are_deleted_with_yes(mir, hub):
    hub.event("A")
    hub.event("B", "pump-8")
    hub.event("C", "pump-8", "lab")
    hub.add("pump-8", "plant")
    result = mir("event", "delete", "pump-8/plant", "--yes")
    assert (result.returncode, result.stdout) == (0, "deleted 2 events\n")
    assert mir("event", "delete", "--reason", "A", "--yes").stdout == "deleted 1 event\n"
    again = mir("event", "delete", "*/*", "--yes")
    assert again.returncode == 1 and "no event matches" in again.stderr


def test_a_name_that_only_begins_alike_is_not_deleted(mir, hub):
    hub.event("A", "pump-7-b")
    assert mir("event", "delete", "pump-7/plant", "--yes").returncode == 1
    assert len(hub.events) == 1


def test_nothing_is_asked_about_a_device_that_is_gone(hub, home):
    hub.event("A", "gone")
    shown, code = terminal(["-t", hub.url, "event", "delete", "gone/plant"], home, b"y\n", columns=80)
    assert code == 1 and "Delete" not in shown and "are found with --id" in shown
    assert len(hub.events) == 1 and hub.asked("evt.delete") == []


@pytest.mark.parametrize("answer, code, left", [(b"y\n", 0, 1), (b"n\n", 1, 8), (b"\x04", 1, 8)])
def test_delete_asks_and_deletes_what_was_counted(hub, home, answer, code, left):
    for _ in range(7):
        hub.event("DeviceCommand")

    def counted(request):
        response = hub.api.ListEventsResponse()
        hub.evt_list(request, response)
        hub.override.clear()
        hub.event("Later")  # while the person thinks
        return response.SerializeToString()

    hub.override["evt.list"] = counted
    shown, got = terminal(["-t", hub.url, "event", "delete", "*/plant"], home, answer, columns=80)
    assert got == code, shown
    assert "Delete 7 events?" in shown and "DeviceCommand  pump-7/plant" in shown and "and older ones" in shown
    assert len(hub.events) == left


# Watching


class Watch:
    """`mir event watch` in the background; its lines as they come."""

    def __init__(self, home, url, *args):
        self.process = subprocess.Popen(
            [BINARY, "-t", url, "event", "watch", "-o", "json", *args], stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, env=home, bufsize=1,
        )
        self.said = []
        self.changed = threading.Condition()
        self.thread = threading.Thread(target=self.listen)
        self.thread.start()

    def listen(self):
        for line in self.process.stderr:
            with self.changed:
                self.said.append(line)
                self.changed.notify_all()

    def await_text(self, text):
        with self.changed:
            assert self.changed.wait_for(lambda: text in "".join(self.said), 20 * PATIENCE), (text, self.said)

    def read(self, count):
        return [json.loads(self.process.stdout.readline())["status"]["sequence"] for _ in range(count)]

    def stop(self, how=signal.SIGINT):
        """Ends it; returns the exit code, what it still showed and what it said."""
        if self.process.poll() is None:
            self.process.send_signal(how)
        code = self.process.wait(20 * PATIENCE)
        self.thread.join()
        rest = [json.loads(line)["status"]["sequence"] for line in self.process.stdout]
        self.process.stdout.close()
        self.process.stderr.close()
        return code, rest, "".join(self.said)


@pytest.fixture
def watch(hub, home):
    started = []

    def start(*args, url=hub.url):
        started.append(Watch(home, url, *args))
        return started[-1]

    yield start
    for each in started:
        if each.process.poll() is None:
            each.stop(signal.SIGKILL)


@pytest.mark.parametrize("how", [signal.SIGINT, signal.SIGTERM])
def test_watch_shows_what_happens_and_ends_with_a_cursor(hub, watch, how):
    hub.event("Before")
    watched = watch()
    watched.await_text("Watching events behind 1.")
    hub.event("A", publish=True)
    assert watched.read(1) == [2]
    hub.event("B", publish=True)
    hub.event("C", publish=True)
    assert watched.read(2) == [3, 4]
    code, rest, said = watched.stop(how)
    assert (code, rest) == (0, [])
    assert "Stopped behind event 4; `mir event watch --after 4` goes on from there." in said


def test_watch_goes_on_behind_a_cursor_and_pages_are_not_lost(hub, watch):
    for _ in range(2300):
        hub.event("A")
    watched = watch("--after", "100")
    assert watched.read(2200) == list(range(101, 2301))
    hub.event("B", publish=True)
    assert watched.read(1) == [2301]
    assert watched.stop()[:2] == (0, [])


def test_pages_of_several_namespaces_come_in_one_order(hub, watch):
    for number in range(3000):
        hub.event("A", namespace="lab" if number % 3 == 0 else "plant")
    watched = watch("--after", "0", "*/plant", "*/lab")
    assert watched.read(3000) == list(range(1, 3001))
    assert watched.stop()[:2] == (0, [])


def test_an_event_between_subscribing_and_listing_is_shown_once(hub, watch):
    def list_late(request):
        response = hub.api.ListEventsResponse()
        hub.override.clear()
        hub.evt_list(request, response)
        hub.event("A")  # stored and told before the answer is on its way
        threading.Thread(target=hub.ring, args=(hub.events[-1],)).start()
        return response.SerializeToString()

    hub.override["evt.list"] = list_late
    watched = watch("--after", "0")
    assert watched.read(1) == [1]
    hub.event("B", publish=True)
    assert watched.read(1) == [2]
    assert watched.stop()[:2] == (0, [])


@pytest.mark.parametrize("filters", [[], ["--reason", "A"]])
def test_an_event_that_is_told_before_it_is_stored_is_not_missed(hub, watch, filters):
    watched = watch(*filters)
    watched.await_text("Watching events behind 0.")
    hub.hidden = 1
    asked = len(hub.requests)
    hub.event("A", publish=True)
    wait_until(lambda: len(hub.requests) >= asked + 3)
    hub.hidden = 0
    assert watched.read(1) == [1]
    assert watched.stop()[0] == 0


def test_an_event_of_a_module_has_no_number_when_it_is_told(hub, watch):
    watched = watch()
    watched.await_text("Watching events behind 0.")
    hub.hidden = 1
    asked = len(hub.requests)
    hub.event("Custom", publish=True, numbered=False)
    wait_until(lambda: len(hub.requests) >= asked + 2)
    hub.hidden = 0
    assert watched.read(1) == [1]
    assert watched.stop()[0] == 0


def test_watch_with_filters_moves_its_cursor_over_what_does_not_match(hub, watch):
    watched = watch("--reason", "Wanted", "--namespace", "plant")
    watched.await_text("Watching events behind 0.")
    for _ in range(3):
        hub.event("Other", publish=True)
    hub.event("Wanted", publish=True)
    hub.event("Wanted", "a", "lab", publish=True)
    assert watched.read(1) == [4]
    hub.event("Other", publish=True)
    filtered = lambda: [r.target.after_sequence for r in list(hub.asked("evt.list")) if list(r.target.reasons) == ["Wanted"]]
    hub.event("Other", publish=True)
    wait_until(lambda: hub.ring(hub.events[-1]) or filtered()[-1] >= 6)
    code, rest, said = watched.stop()
    assert (code, rest) == (0, []) and "Stopped behind event 7" in said


def test_watch_goes_on_where_it_was_after_a_lost_connection(home, watch, tmp_path):
    first = Hub().serve()
    port = first.port
    try:
        for _ in range(3):
            first.event("A")
        watched = watch("--after", "0", url=first.url)
        assert watched.read(3) == [1, 2, 3]
        events = first.events
    finally:
        first.stop()
    watched.await_text("The connection is lost")
    second = Hub("-p", str(port))
    try:
        second.events = events
        second.event("B")  # while nobody listened
        second.serve()
        assert watched.read(1) == [4]
        watched.await_text("Connected again; going on behind event 3.")
        second.event("C", publish=True)
        assert watched.read(1) == [5]
        code, rest, said = watched.stop()
        assert (code, rest) == (0, []) and "--after 5" in said
    finally:
        second.stop()


def test_watch_stops_while_there_is_no_server(home, watch):
    only = Hub().serve()
    try:
        watched = watch("--after", "0", url=only.url)
        only.event("A", publish=True)
        assert watched.read(1) == [1]
    finally:
        only.stop()
    watched.await_text("The connection is lost")
    code, rest, said = watched.stop()
    assert (code, rest) == (0, []) and "--after 1" in said


def test_watch_shows_lines_that_fit_the_terminal(hub, home):
    hub.event("DeviceDesiredProps", "a-device-with-a-long-name", "and-a-namespace", message="x" * 200)
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    # A terminal forgets what nobody has read of it when its session ends: that is the shell's.
    session = 'trap : INT; "$@"; echo "status $?"; read end'
    process = subprocess.Popen(["sh", "-c", session, "sh", BINARY, "-t", hub.url, "event", "watch", "--after", "0"], stdin=far, stdout=far, stderr=far,
                               env={**home, "TERM": "dumb"}, start_new_session=True, preexec_fn=lambda: fcntl.ioctl(0, termios.TIOCSCTTY, 0))
    os.close(far)
    shown = b""
    while b"\n" not in shown:
        shown += os.read(near, 4096)
    os.write(near, b"\x03")
    while not re.search(rb"status \d+\r\n", shown):
        shown += os.read(near, 4096)
    os.write(near, b"\n")
    process.wait(20 * PATIENCE)
    os.close(near)
    lines = shown.decode().replace("\r\n", "\n").splitlines()
    assert lines[-1] == "status 0"
    assert len(lines[0]) == 80 and "DeviceDesiredProps  a-device" in lines[0] and lines[0].endswith("…")
    assert "Stopped behind event 1" in lines[-2]


def test_a_server_that_does_not_number_its_events_is_not_watched(mir, hub):
    hub.event("A").status.ClearField("sequence")
    hub.override["evt.list"] = hub.api.ListEventsResponse(ok=hub.api.Events(events=hub.events)).SerializeToString()
    for args in (["watch"], ["watch", "--after", "0"]):
        result = mir("event", *args)
        assert result.returncode == 1 and "does not number its events" in result.stderr


def test_a_server_that_cannot_be_reached_is_3(mir):
    assert mir("event", "watch", target="nats://127.0.0.1:1").returncode == 3


# The chain, retention, history


def test_the_chain_is_verified(mir, hub):
    result = mir("event", "verify")
    assert result.returncode == 0
    assert result.stdout.splitlines()[0] == "intact" and f"head     {HEAD}" in result.stdout
    assert "Every link follows" in result.stdout and not hub.asked("evt.verify")[0].HasField("head")
    found = mir("event", "verify", "--head", HEAD.upper())
    assert found.returncode == 0 and "behind link 1234" in found.stdout
    response = hub.api.VerifyEventsResponse()
    response.ok.intact, response.ok.text = True, "a " + "word " * 40 + "\n" + "x" * 90 + " end\x1b"
    hub.override["evt.verify"] = response.SerializeToString()
    text = mir("event", "verify").stdout.split("\n\n")[1]
    assert max(len(line) for line in text.splitlines() if "x" not in line) <= 76
    assert " ".join(text.split()) == " ".join(response.ok.text.replace("\x1b", "\ufffd").split())
    hub.override.clear()
    lost = mir("event", "verify", "--head", "ff" * 32)
    assert lost.returncode == 1 and lost.stdout.startswith("BROKEN\n") and "not in the chain" in lost.stdout
    assert json.loads(mir("event", "verify", "-o", "json").stdout)["links"] == 1234


def test_a_broken_link_is_named(mir, hub):
    response = hub.api.VerifyEventsResponse()
    response.ok.intact, response.ok.broken_sequence, response.ok.broken_text = False, 17, "the leaf was altered"
    hub.override["evt.verify"] = response.SerializeToString()
    result = mir("evt", "verify")
    assert result.returncode == 1
    assert result.stdout.startswith("BROKEN\nfirst broken link: 17\nthe leaf was altered\n")
    assert json.loads(mir("evt", "verify", "-o", "json").stdout)["brokenSequence"] == 17


def test_retention_is_shown(mir, hub):
    hub.event("A")
    result = mir("event", "retention")
    assert rows(result.stdout)[:3] == [["REASON", "KEPT"], ["default", "90d"], ["DeviceDeleted", "for", "ever"]]
    assert "1 event is stored, the oldest from " in result.stdout and "; 7 were removed." in result.stdout
    assert json.loads(mir("event", "retention", "-o", "json").stdout)["rules"][0] == {"reason": "default", "keepSeconds": 7776000}


def test_the_retention_of_telemetry_is_shown(mir, hub):
    result = mir("telemetry", "retention")
    assert result.returncode == 0
    assert rows(result.stdout)[:4] == [
        ["NAMESPACE", "MESSAGE", "KEPT", "REMOVED"],
        ["plant-*", "env.v1.*", "7d", "12"],
        ["(deleted)", "*", "1h", "30m", "3"],
        ["*", "*", "for", "ever", "0"],
    ]
    assert "1000 rows are in segments, 3.0 MiB, the oldest from 2h" in result.stdout
    assert "Rollups: 1m 90d (12), 1h for ever (3), 2.0 KiB.\n" in result.stdout
    assert "Beyond 4.0 GiB the oldest go; so did 0 rows." in result.stdout
    assert "4.9 KiB were removed, the last of them " in result.stdout
    shown = json.loads(mir("telemetry", "retention", "-o", "json").stdout)
    assert shown["rules"][1] == {"deleted": True, "keepSeconds": 5400, "rowsRemoved": 3}
    assert shown["rollups"][0] == {"stepSeconds": 60, "rows": 12, "keepSeconds": 7776000}
    assert shown["sizeMax"] == 4 << 30 and shown["lastRemoval"].endswith("Z")


def test_the_history_of_a_device(mir, hub):
    hub.event("DeviceCreated", at=1700000000, actor="ada")
    hub.event("DeviceUpdated", at=1700000100, actor="bob", changes=[
        ("meta.labels.floor", '"1"', '"2"'), ("meta.labels.old", '"x"', None), ("spec.disabled", None, "true")])
    hub.event("DeviceUpdated", "other")
    result = mir("device", "history", "pump-7/plant", "--utc", "-o", "wide")
    assert rows(result.stdout) == [
        ["SEQ", "TIME", "(UTC)", "REASON", "ACTOR", "CHANGE"],
        ["1", "2023-11-14", "22:13:20.000", "DeviceCreated", "ada", "DeviceCreated", "happened"],
        ["2", "2023-11-14", "22:15:00.000", "DeviceUpdated", "bob", "meta.labels.floor:", '"1"', "->", '"2"'],
        ["meta.labels.old", "removed,", "was", '"x"'],
        ["spec.disabled", "=", "true"],
    ]
    assert rows(mir("device", "history", "pump-7/plant", "--utc").stdout)[1][:3] == ["1", "2023-11-14", "DeviceCreated"]
    request = hub.asked("evt.history")[0]
    assert (request.device.name, request.device.namespace, request.device.device_id) == ("pump-7", "plant", "")
    assert sequences(mir("device", "history", "--id", "pump-7", "--limit", "1", "-o", "json")) == [1]


def test_a_twin_as_it_was(mir, hub):
    hub.event("DeviceCreated", at=1700000000)
    hub.event("DeviceUpdated", at=1700000100)
    assert "  version: 1\n" in mir("dev", "history", "pump-7/plant", "--at", "1700000050").stdout
    assert json.loads(mir("dev", "history", "pump-7/plant", "--at", "now", "-o", "json").stdout)["status"] == {"version": 2}
    early = mir("dev", "history", "pump-7/plant", "--at", "1600000000")
    assert early.returncode == 1 and "did not exist then" in early.stderr


def test_a_name_without_a_namespace_is_looked_up(mir, hub):
    hub.add("pump-7", "plant")
    hub.event("A")
    assert mir("device", "history", "pump-7").stdout.count("happened") == 1
    hub.add("pump-7", "lab", "other")
    assert "several devices" in mir("device", "history", "pump-7").stderr
    assert "if it is gone" in mir("device", "history", "gone").stderr
