# SPDX-License-Identifier: Apache-2.0
"""The command line against a hub that the test plays: what is asked, what is shown, which exit code."""

import csv
import io
import json
import os
import pathlib
import socket
import subprocess
import threading

import pytest
from fake_hub import ROOT, Hub, Tunnel, zstd
from terminal import BINARY, terminal


# Usage


@pytest.mark.parametrize(
    "args, says",
    [
        (["devise"], "did you mean 'device'"),
        (["device", "lsit"], "did you mean 'list'"),
        (["device", "list", "--namspace=x"], "did you mean '--namespace'"),
        (["device", "list", "-o", "xml"], "--output is table"),
        (["device", "list", "-o"], "--output needs a value"),
        (["device", "list", "-Z"], "no option '-Z'"),
        (["device", "list", "--events=1"], "--events takes no value"),
        (["device", "list", "a/b/c"], "more than one '/'"),
        (["device", "list", "/plant"], "is not NAME/NAMESPACE"),
        (["device", "list", "--label", "floor"], "'floor' is not KEY=VALUE"),
        (["device", "list", "x", "--namespace", "y"], "not as both"),
        (["device", "create"], "needs NAME"),
        (["device", "create", "a", "b"], "does not take 'b'"),
        (["device", "update", "--labels", "a=b"], "which devices?"),
        (["device", "update", "x"], "nothing to change"),
        (["device", "update", "x", "--enable", "--disable"], "exclude each other"),
        (["device", "apply"], "needs -f FILE"),
        (["device", "delete", "x"], "say --yes"),
        (["device", "delete", "--yes"], "which devices?"),
        (["telemetry", "query", "host"], "needs -m"),
        (["telemetry", "query", "-m", "a", "--since", "1 minute"], "is no duration"),
        (["telemetry", "query", "-m", "a", "--from", "yesterday"], "is no time"),
        (["telemetry", "query", "-m", "a", "--from", "20", "--to", "10"], "ends before it begins"),
        (["telemetry", "query", "-m", "a", "--window", "0s"], "above zero"),
        (["telemetry", "query", "-m", "a", "--limit", "0"], "--limit is a number"),
        (["status", "--timeout", "soon"], "is no duration"),
        (["completion", "tcsh"], "is not bash, zsh or fish"),
        (["device"], "which command?"),
    ],
)
def test_wrong_usage_is_2_and_says_what_is_right(mir, hub, args, says):
    result = mir(*args)
    assert result.returncode == 2, result.stderr
    assert says in result.stderr
    assert "--help" in result.stderr
    assert result.stdout == ""
    assert hub.requests == []


def test_every_command_has_help_with_its_options(mir):
    def commands(path):
        text = mir(*path, "--help")
        assert text.returncode == 0 and text.stderr == ""
        assert mir("help", *path).stdout == text.stdout
        assert f"Usage: {' '.join(['mir', *path])}" in text.stdout
        if "\nCommands:\n" in text.stdout:
            listed = text.stdout.split("\nCommands:\n")[1].split("\n\n")[0]
            for line in listed.splitlines():
                yield from commands([*path, line.split()[0]])
        else:
            yield path

    leaves = {" ".join(path) for path in commands([])}
    assert {"serve", "device apply", "telemetry query", "telemetry export", "telemetry import", "telemetry watch",
            "status", "context use", "completion", "version"} <= leaves


def test_help_fits_a_hundred_columns_except_examples(mir):
    for path in ([], ["device"], ["device", "list"], ["telemetry", "list"], ["context", "add"], ["serve"]):
        text = mir(*path, "--help").stdout.split("\nExamples:\n")[0]
        assert [line for line in text.splitlines() if len(line) > 100] == []


def test_the_man_page_of_the_repository_is_the_one_that_the_program_writes(mir):
    assert mir("help", "--man").stdout == (ROOT / "docs" / "man" / "mir.1").read_text()


def test_the_version(mir):
    assert mir("version").stdout == mir("--version").stdout
    assert mir("version").stdout.startswith("mir 0.")


# Reaching a server


def test_nothing_reachable_is_3_and_names_what_was_tried(mir, home):
    environment = {key: value for key, value in home.items()}
    result = subprocess.run([BINARY, "device", "list", "--timeout", "2s"], capture_output=True, text=True, env=environment)
    if result.returncode == 0:
        pytest.skip("something serves on port 4222 of this machine")
    assert result.returncode == 3
    assert f"{home['MIR_DATA']}/admin.sock" in result.stderr
    assert "127.0.0.1:4222" in result.stderr
    assert "mir serve" in result.stderr


@pytest.mark.parametrize("command", [["device", "list"], ["status"], ["telemetry", "query", "-m", "a"]])
def test_a_closed_port_is_3(mir, command):
    with socket.socket() as held:
        held.bind(("127.0.0.1", 0))
        result = mir(*command, "-t", f"nats://127.0.0.1:{held.getsockname()[1]}")
    assert result.returncode == 3
    assert "Connection refused" in result.stderr


def test_a_message_server_without_a_hub_is_3():
    hub = Hub()
    try:
        result = subprocess.run([BINARY, "-t", hub.url, "device", "list"], capture_output=True, text=True)
        assert result.returncode == 3
        assert "is no Mir server that serves core.v1alpha.list" in result.stderr
    finally:
        hub.stop()


def test_the_admin_socket_of_the_data_directory_is_found_without_a_flag(hub, home, tmp_path):
    hub.add("host")
    (tmp_path / "data").mkdir()
    tunnel = Tunnel(tmp_path / "data" / "admin.sock", hub.port)
    try:
        run = lambda *args, **env: subprocess.run(
            [BINARY, *args], capture_output=True, text=True, env={**home, **env}, cwd=tmp_path / "data"
        )
        assert run("device", "list", "-o", "name").stdout == "host/default\n"
        other = {"MIR_DATA": "/nonexistent"}
        assert run("device", "list", "-o", "name", "--admin", "admin.sock", **other).stdout == "host/default\n"
        assert run("device", "list", "-o", "name", "-t", "./admin.sock", **other).stdout == "host/default\n"
        path = str(tmp_path / "data" / "admin.sock")
        assert run("device", "list", "-o", "name", MIR_ADMIN=path, **other).stdout == "host/default\n"
        assert run("device", "list", "-o", "name", MIR_TARGET=f"unix://{path}", **other).stdout == "host/default\n"
    finally:
        tunnel.stop()


@pytest.mark.parametrize(
    "options, url, env",
    [
        (["--user", "ada", "--pass", "p w<"], "nats://ada:p%20w%3C@{}", {}),
        (["--user", "ada", "--pass", "pw"], "nats://{}", {"MIR_USER": "ada", "MIR_PASSWORD": "pw"}),
        (["--auth", "tok"], "nats://tok@{}", {}),
        (["--auth", "tok"], "{}", {"MIR_TOKEN": "tok"}),
    ],
)
def test_logging_in(home, options, url, env):
    hub = Hub(*options)
    login = {"user": "ada", "password": options[-1]} if "--user" in options else {"token": "tok"}
    try:
        hub.serve(**login).add("host")
        address = url.format(f"127.0.0.1:{hub.port}")
        run = lambda **more: subprocess.run(
            [BINARY, "-t", address, "device", "list", "-o", "name"], capture_output=True, text=True, env={**home, **more}
        )
        assert run(**env).stdout == "host/default\n"
        refused = subprocess.run([BINARY, "-t", hub.url, "status"], capture_output=True, text=True, env=home)
        assert refused.returncode == 1
        assert "does not let you in" in refused.stderr and "MIR_TOKEN" in refused.stderr
    finally:
        hub.stop()


@pytest.mark.parametrize(
    "greeting, code, says",
    [
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", 3, "not a Mir server"),
        (b"INFO {nonsense\r\n", 3, "not a Mir server"),
        (b"-ERR 'maximum connections exceeded'\r\n", 3, "maximum connections exceeded"),
        (b'INFO {"headers":true,"tls_required":true}\r\n', 1, "TLS"),
        (b"", 3, "closed the connection"),
        (b"x" * 100000, 3, "not a Mir server"),
    ],
)
def test_a_peer_that_is_something_else(mir, greeting, code, says):
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        listener.listen()

        def answer():
            connection, _ = listener.accept()
            with connection:
                connection.sendall(greeting)
                connection.shutdown(socket.SHUT_WR)
                connection.settimeout(5)
                try:
                    while connection.recv(4096):
                        pass
                except OSError:
                    pass

        thread = threading.Thread(target=answer)
        thread.start()
        result = mir("status", "-t", f"127.0.0.1:{listener.getsockname()[1]}")
        thread.join()
    assert (result.returncode, says in result.stderr) == (code, True), result.stderr


def test_a_silent_hub_times_out_with_1(mir, hub):
    hub.override["core.list"] = lambda request: None
    result = mir("device", "list", "--timeout", "300ms")
    assert result.returncode == 1
    assert "did not answer" in result.stderr


def test_an_answer_that_is_no_protobuf_is_1(mir, hub):
    hub.override["core.list"] = b"\x0a\xff\xff\xff\xff\x0f"
    result = mir("device", "list")
    assert result.returncode == 1
    assert "cannot be read" in result.stderr


def test_a_reply_of_eight_mebibytes(hub, home):
    big = Hub("-c", str(write_config(home, "max_payload: 9437184\n")))
    try:
        big.serve()
        for number in range(2000):
            big.add(f"device-{number:05}", note="x" * 4000)
        run = subprocess.run([BINARY, "-t", big.url, "device", "list", "-o", "json"], capture_output=True, env=home)
        assert run.returncode == 0
        assert len(json.loads(run.stdout)) == 2000
    finally:
        big.stop()


def write_config(home, text):
    path = pathlib.Path(home["HOME"]) / "server.conf"
    path.write_text(text)
    return path


def test_requests_carry_the_trigger_chain_and_come_from_one_instance(mir, hub):
    mir("device", "list")
    [(_, _, message)] = hub.requests
    instance = message.subject.split(".")[1]
    assert instance.startswith("mir-") and len(instance) == len("mir-") + 7
    assert message.headers["mir-trigger-chain"] == instance
    assert message.reply.startswith("_INBOX.")


# Targets


@pytest.mark.parametrize(
    "args, lists",
    [
        ([], [{}]),
        (["host"], [{"names": ["host"]}]),
        (["pump-7/plant"], [{"names": ["pump-7"], "namespaces": ["plant"]}]),
        (["*/plant"], [{"namespaces": ["plant"]}]),
        (["*/*"], [{}]),
        (["pump-*/*"], [{"names": ["pump-*"]}]),
        (["a/x", "b/x"], [{"names": ["a", "b"], "namespaces": ["x"]}]),
        (["a/x", "b/y"], [{"names": ["a"], "namespaces": ["x"]}, {"names": ["b"], "namespaces": ["y"]}]),
        (["--namespace=factory", "--label=location=floor-2,type=x"],
         [{"namespaces": ["factory"], "labels": {"location": "floor-2", "type": "x"}}]),
        (["--label", "a=1", "--label", "b=x\\,y"], [{"labels": {"a": "1", "b": "x,y"}}]),
        (["--target.labels", "a=b,c=d", "--target.ids", "i,j", "--target.names", "n", "--target.namespaces", "s",
          "--target.schemas", "p.v1"],
         [{"labels": {"a": "b", "c": "d"}, "ids": ["i", "j"], "names": ["n"], "namespaces": ["s"], "schemas": ["p.v1"]}]),
        (["--id", "i", "--name", "n", "--schema", "p"], [{"ids": ["i"], "names": ["n"], "schemas": ["p"]}]),
    ],
)
def test_words_and_flags_become_targets(mir, hub, args, lists):
    mir("dev", "ls", *args)
    asked = []
    for request in hub.asked("core.list"):
        target = request.targets
        filled = {name: list(getattr(target, name)) for name in ("names", "namespaces", "ids", "schemas")}
        filled["labels"] = dict(target.labels)
        asked.append({name: value for name, value in filled.items() if value})
    assert asked == lists


def test_the_variable_of_devices_names_the_server_too(mir, hub):
    hub.add("host")
    listed = mir("device", "list", "-o", "name", target="", env={"MIR__TARGET": hub.url})
    assert (listed.returncode, listed.stdout) == (0, "host/default\n"), listed.stderr
    listed = mir("device", "list", "-o", "name", env={"MIR__TARGET": "nats://127.0.0.1:1"})
    assert listed.returncode == 0


# Devices


def test_a_table_of_devices(mir, hub):
    hub.add("host", online=True, os="linux")
    hub.add("pump-7", "plant", type="pump", floor="2").spec.disabled = True
    hub.add("pump-8", "plant")
    result = mir("device", "list")
    assert result.returncode == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["DEVICE", "ID", "STATUS", "SEEN", "LABELS"]
    assert lines[1][:3] == ["host/default", "host", "online"] and lines[1][4:] == ["ago", "os=linux"]
    assert lines[2] == ["pump-7/plant", "pump-7", "disabled", "never", "floor=2,type=pump"]
    assert lines[3] == ["pump-8/plant", "pump-8", "new", "never"]


def test_any_number_of_devices_is_listed_page_by_page(mir, hub):
    names = sorted(f"pump-{n}/{space}" for n in range(7) for space in ("a", "b"))
    for name in names:
        hub.add(*name.split("/"), device_id=name.replace("/", "."), schema=True)
    hub.page = 3
    assert sorted(mir("device", "list", "-o", "name").stdout.split()) == names
    asked = [(request.after, request.without_schema) for request in hub.asked("core.list")]
    assert asked == [(after, True) for after in ("", "a/pump-2", "a/pump-5", "b/pump-1", "b/pump-4")]
    devices = json.loads(mir("device", "list", "-o", "json").stdout)
    assert len(devices) == 14 and all(device["status"]["schema"]["compressedSchema"] for device in devices)
    hub.page = None
    assert len(mir("device", "list", "-o", "name").stdout.split()) == 14


def test_json_is_complete_and_always_an_array(mir, hub):
    hub.add("host", online=True, schema=True)
    [device] = json.loads(mir("device", "list", "-o", "json").stdout)
    assert device["apiVersion"] == "mir/v1alpha" and device["kind"] == "device"
    assert device["meta"] == {"name": "host", "namespace": "default"}
    assert device["spec"] == {"deviceId": "host", "disabled": False}
    assert device["status"]["online"] is True
    assert device["status"]["schema"]["packageNames"] == ["google.protobuf", "mir.device.v1", "pump.v1"]
    assert device["status"]["schema"]["compressedSchema"].startswith("KLUv/")
    hub.devices.clear()
    assert json.loads(mir("device", "list", "-o", "json").stdout) == []


def test_yaml_is_a_document_for_each_device_without_schema_bytes(mir, hub):
    hub.add("a", schema=True, floor="2", on="yes")
    hub.add("b")
    text = mir("device", "list", "-o", "yaml").stdout
    assert text.startswith("apiVersion: mir/v1alpha\nkind: device\nmeta:\n")
    assert text.count("\n---\n") == 1
    assert 'floor: "2"' in text and '"on": "yes"' in text
    assert "compressedSchema" not in text
    assert "- pump.v1" in text


def test_a_name_that_is_not_there_is_1_and_a_filter_without_a_match_is_0(mir):
    missing = mir("device", "list", "nobody")
    assert (missing.returncode, missing.stdout) == (1, "")
    assert "no device matches" in missing.stderr
    empty = mir("device", "list", "--label", "a=b")
    assert (empty.returncode, empty.stdout) == (0, "")
    assert "There are no devices yet" in mir("device", "list").stderr


def test_control_characters_of_a_device_do_not_reach_the_terminal(mir, hub):
    hub.add("evil\x1b[2Jname", label="\x07\u202e")
    for command in (["device", "list"], ["device", "list", "-o", "name"], ["device", "list", "-o", "wide"]):
        shown = mir(*command).stdout
        assert "\x1b" not in shown and "\x07" not in shown and "\u202e" not in shown
        assert "evil\ufffd[2Jname" in shown


def test_create(mir, hub):
    result = mir("device", "create", "pump-7/plant", "--id", "p7", "--labels", "floor=2,type=pump")
    assert (result.returncode, result.stdout) == (0, "created pump-7/plant (id p7)\n")
    [request] = hub.asked("core.create")
    assert (request.device.meta.name, request.device.meta.namespace) == ("pump-7", "plant")
    assert request.device.spec.device_id == "p7"
    assert dict(request.device.meta.labels) == {"floor": "2", "type": "pump"}
    again = mir("device", "create", "pump-7/plant", "--id", "p7")
    assert (again.returncode, again.stdout) == (1, "")
    assert again.stderr == "mir: device pump-7/plant with deviceId p7 already exist\n"
    assert mir("device", "create", "solo").stdout == "created solo/default (id solo)\n"


def test_update_sets_and_removes_labels(mir, hub):
    hub.add("pump-7", "plant", floor="2", type="pump")
    result = mir("device", "update", "pump-7/plant", "--labels", "floor=null,zone=b", "--disable")
    assert (result.returncode, result.stdout) == (0, "updated pump-7/plant (id pump-7)\n")
    [request] = hub.asked("core.update")
    assert set(request.meta.labels) == {"floor", "zone"}
    assert not request.meta.labels["floor"].HasField("value")
    assert request.meta.labels["zone"].value == "b"
    assert request.spec.disabled is True
    assert not request.meta.HasField("name") and not request.spec.HasField("device_id")
    assert dict(hub.devices["pump-7"].meta.labels) == {"type": "pump", "zone": "b"}
    assert mir("device", "update", "nobody", "--labels", "a=b").returncode == 1


def test_update_of_everything_says_so(mir, hub):
    hub.add("a")
    hub.add("b")
    assert mir("device", "update", "*/*", "--labels", "x=y").stdout.count("updated") == 2
    assert list(hub.asked("core.update")[0].targets.names) == ["*"]


def test_delete_with_yes(mir, hub):
    hub.add("a", "plant")
    hub.add("b", "plant")
    hub.add("c")
    result = mir("device", "delete", "*/plant", "--yes")
    assert (result.returncode, result.stdout) == (0, "deleted a/plant (id a)\ndeleted b/plant (id b)\n")
    assert list(hub.devices) == ["c"]
    assert mir("device", "delete", "*/plant", "--yes").returncode == 1


def test_delete_without_a_terminal_refuses_without_asking_the_server(mir, hub):
    hub.add("a")
    assert mir("device", "delete", "a", stdin="y\n").returncode == 2
    assert hub.requests == []


@pytest.mark.parametrize("answer, code, left", [(b"y\n", 0, []), (b"n\n", 1, ["a"]), (b"\n", 1, ["a"]), (b"\x04", 1, ["a"])])
def test_delete_asks_on_a_terminal_and_deletes_what_was_shown(hub, home, answer, code, left):
    hub.add("a", "plant")
    shown, got = terminal(["-t", hub.url, "device", "delete", "*/plant"], home, answer)
    assert got == code, shown
    assert "Delete 1 device?" in shown and "a/plant" in shown
    assert list(hub.devices) == left
    assert [list(request.targets.ids) for request in hub.asked("core.delete")] == ([["a"]] if code == 0 else [])


# Apply

APPLY_YAML = """
apiVersion: mir/v1alpha
kind: device
meta: {name: pump-7, namespace: plant, labels: {floor: 3, wet: true, old: null}}
spec: {deviceId: p7}
status: {online: true}
---
- meta: {name: pump-8, namespace: plant}
  spec: {deviceId: p8, disabled: true}
- spec: {deviceId: p9}
"""


def test_apply_creates_and_updates_from_documents_and_arrays(mir, hub, tmp_path):
    hub.add("pump-7", "plant", "p7", old="x")
    path = tmp_path / "devices.yaml"
    path.write_text(APPLY_YAML)
    dry = mir("device", "apply", "-f", str(path), "--dry-run")
    assert dry.stdout == "would update pump-7/plant\nwould create pump-8/plant\nwould create p9/default\n"
    assert hub.asked("core.update") == []
    result = mir("device", "apply", "-f", str(path))
    assert result.returncode == 0, result.stderr
    assert result.stdout == "updated pump-7/plant (id p7)\ncreated pump-8/plant (id p8)\ncreated p9/default (id p9)\n"
    first, second, third = hub.asked("core.update")
    assert (list(first.targets.ids), list(first.targets.names), list(first.targets.namespaces)) == (["p7"], ["pump-7"], ["plant"])
    assert {key: value.value for key, value in first.meta.labels.items()} == {"floor": "3", "wet": "true", "old": ""}
    assert not first.meta.labels["old"].HasField("value")
    assert not first.HasField("status") and not first.spec.HasField("disabled")
    assert second.spec.disabled is True
    assert (third.meta.name, third.meta.namespace) == ("p9", "default")


def test_what_list_writes_can_be_applied(mir, hub):
    hub.add("a", "plant", online=True, schema=True, floor="2")
    hub.add("b", "plant", odd='#: "x"\n😀')
    for form in ("json", "yaml"):
        text = mir("device", "list", "-o", form).stdout
        result = mir("device", "apply", "-f", "-", stdin=text)
        assert (result.returncode, result.stdout.count("updated")) == (0, 2), result.stderr
        assert hub.devices["b"].meta.labels["odd"] == '#: "x"\n😀'


def test_json_lines_can_be_applied(mir, hub):
    lines = '{"spec":{"deviceId":"a"}}\n{"spec":{"deviceId":"b"}}\n'
    assert mir("device", "apply", "-f", "-", stdin=lines).stdout.count("created") == 2


@pytest.mark.parametrize(
    "text, says",
    [
        ("meta: {nam: x}\nspec: {deviceId: x}\n", "nam"),
        ("meta:\n  name: [\n", "line "),
        ('{"meta": {"name": "a"}', "line 1"),
        ("meta: {labels: {a: b}}\n", "both missing"),
        ("just text\n", "device 1"),
        ("a: &a [x, x, x]\nb: &b [*a, *a, *a]\n", "device 1"),
        ("", "no device in the input"),
    ],
)
def test_a_bad_file_changes_nothing(mir, hub, text, says):
    result = mir("device", "apply", "-f", "-", stdin=text)
    assert (result.returncode, result.stdout) == (1, "")
    assert says in result.stderr
    assert hub.requests == []


def test_aliases_of_aliases_do_not_explode(mir, hub):
    layers = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{', '.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    result = mir("device", "apply", "-f", "-", stdin="\n".join(layers) + "\n")
    assert result.returncode == 1
    assert "too many values" in result.stderr


# Schema


def test_a_schema_as_text(mir, hub):
    hub.add("pump-7", "plant", schema=True)
    text = mir("device", "schema", "pump-7/plant").stdout
    assert text.splitlines()[0].startswith("pump-7/plant  schema of ")
    words = {line.split()[0]: line.split()[1:] for line in text.splitlines() if line.strip()}
    assert words["pump.v1.Flow"] == ["telemetry", "site=north"]
    assert words["at"] == ["Timestamp", "time", "of", "the", "message"]
    assert words["rate"] == ["double", "l/s", "side=in"]
    assert words["steps"] == ["repeated", "int32"]
    assert words["valves"] == ["map<string,", "Valve>"]
    assert words["mode"] == ["Mode", "IDLE", "|", "RUNNING"]
    assert words["opening"] == ["double", "%"]
    assert words["pump.v1.Stop"] == ["command"] and words["pump.v1.Speed"] == ["property"]
    assert "google.protobuf" not in text


def test_a_schema_as_json(mir, hub):
    hub.add("pump-7", "plant", schema=True)
    [schema] = json.loads(mir("device", "schema", "pump-7/plant", "-o", "json").stdout)
    assert schema["device"] == {"id": "pump-7", "name": "pump-7", "namespace": "plant"}
    flow = next(message for message in schema["messages"] if message["name"] == "pump.v1.Flow")
    rate = next(field for field in flow["fields"] if field["name"] == "rate")
    assert rate == {"name": "rate", "number": 2, "type": "double", "unit": "l/s", "tags": {"side": "in"}}


def test_a_schema_with_bytes_that_are_no_text(mir, hub):
    hub.add("odd", schema=True)
    for part in (b"Flow", b"rate", b"l/s", b"IDLE", b"north"):
        broken = hub.api.pump_set.replace(part, b"\xff\xfe"[: len(part)] + b"\x1b" * (len(part) - 2))
        hub.devices["odd"].status.schema.compressed_schema = zstd(broken)
        for form in ("table", "json", "yaml"):
            result = mir("device", "schema", "odd", "-o", form)
            assert result.returncode in (0, 1), result.stderr
            assert "\x1b" not in result.stdout + result.stderr


def test_a_schema_that_is_missing_or_cannot_be_had_is_1(mir, hub):
    hub.add("new")
    result = mir("device", "schema", "new")
    assert result.returncode == 1 and "--refresh" in result.stderr
    hub.add("away", schema=True)
    result = mir("device", "schema", "away", "--refresh")
    assert result.returncode == 1 and "no responders" in result.stderr
    assert "pump.v1.Flow" in result.stdout
    hub.add("here", schema=True, online=True)
    assert mir("device", "schema", "here", "--refresh").returncode == 0
    hub.devices["here"].status.schema.compressed_schema = b"garbage"
    assert mir("device", "schema", "here").returncode == 1


# Telemetry


def test_telemetry_list_shows_fields_units_and_labels(mir, hub):
    hub.add("pump-7", "plant")
    result = mir("tlm", "ls", "pump-7", "-m", "pump.v1.Flow", "--filter", "__tag_site=north", "--refresh")
    assert result.returncode == 0
    lines = [line.split() for line in result.stdout.splitlines()]
    assert lines[0] == ["pump-7/plant"]
    assert lines[1] == ["MEASUREMENT", "FIELD", "TYPE", "UNIT", "LABELS"]
    assert lines[2] == ["pump.v1.Flow", "rate", "l/s", "site=north", "side=in"]
    assert lines[3] == ["steps_0"]
    assert lines[4] == ["valves_main.opening", "%"]
    assert lines[5] == ["pressure", "bar", "(no", "data", "in", "30", "days)"]
    [request] = hub.asked("tlm.list")
    assert list(request.measurements) == ["pump.v1.Flow"]
    assert dict(request.filters) == {"__tag_site": "north"} and request.refresh_schema
    [group] = json.loads(mir("tlm", "list", "-o", "json").stdout)
    assert group["measurements"][0]["fields"][0] == {"name": "rate", "stored": True, "unit": "l/s"}
    assert mir("tlm", "list", "nobody").stderr == (
        "mir: no device found with current targets criteria; `mir device list` shows all devices\n")


def test_telemetry_list_knows_what_the_schema_declares_and_nobody_has_sent(mir, hub):
    hub.add("pump-7", "plant", schema=True)
    [group] = json.loads(mir("tlm", "list", "-o", "json").stdout)
    fields = {field["name"]: (field["type"], field["unit"], field["stored"]) for field in group["measurements"][0]["fields"]}
    assert fields == {
        "rate": ("double", "l/s", True),
        "steps_0": ("int32", "", True),
        "valves_main.opening": ("double", "%", True),
        "mode": ("pump.v1.Mode", "", False),
    }


def test_telemetry_query_sends_what_was_asked(mir, hub):
    hub.add("pump-7", "plant")
    mir("telemetry", "query", "pump-7", "-m", "pump.v1.Flow", "-f", "rate,on", "--window", "10s",
        "--from", "2023-11-14T22:13:20.25Z", "--to", "1700000010.5")
    [request] = hub.asked("tlm.query")
    assert request.measurement == "pump.v1.Flow" and list(request.fields) == ["rate", "on"]
    assert request.aggregation_window == "10s"
    assert (request.start_time.seconds, request.start_time.nanos) == (1700000000, 250000000)
    assert (request.end_time.seconds, request.end_time.nanos) == (1700000010, 500000000)
    import time

    mir("telemetry", "query", "-m", "pump.v1.Flow", "--since", "1m")
    request = hub.asked("tlm.query")[-1]
    assert abs(time.time() - 60 - request.start_time.seconds) < 5
    assert not request.HasField("end_time") and not request.HasField("aggregation_window")
    mir("telemetry", "query", "-m", "pump.v1.Flow")
    assert not hub.asked("tlm.query")[-1].HasField("start_time")


def test_telemetry_query_as_table(mir, hub):
    result = mir("telemetry", "query", "-m", "pump.v1.Flow", "--utc")
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["TIME", "(UTC)", "DEVICE", "big", "note", "on", "rate"]
    assert lines[1].split() == ["l/s"]
    assert lines[2].split() == ["2023-11-14", "22:13:20.500", "pump-7", str(2**63), "a", '"quoted",', "text", "false", "0.100"]
    assert len(lines) == 5
    assert len(mir("telemetry", "query", "-m", "pump.v1.Flow", "--limit", "1").stdout.splitlines()) == 3


def test_telemetry_query_as_json_yaml_and_csv(mir, hub):
    answer = json.loads(mir("telemetry", "query", "-m", "pump.v1.Flow", "-o", "json").stdout)
    assert answer["measurement"] == "pump.v1.Flow"
    assert answer["columns"][0] == {"name": "_time", "unit": "RFC3339", "type": "timestamp"}
    assert answer["columns"][5] == {"name": "rate", "unit": "l/s", "type": "double"}
    assert answer["rows"][0] == {
        "_time": "2023-11-14T22:13:20.5Z", "__id": "pump-7", "big": str(2**63), "note": 'a "quoted", text',
        "on": False, "rate": 0.1,
    }
    assert answer["rows"][1]["rate"] is None
    rows = list(csv.reader(io.StringIO(mir("telemetry", "query", "-m", "pump.v1.Flow", "-o", "csv").stdout)))
    assert rows[0] == ["_time", "__id", "big", "note", "on", "rate"]
    assert rows[1] == ["2023-11-14T22:13:20.5Z", "pump-7", str(2**63), 'a "quoted", text', "false", "0.1"]
    assert rows[2][5] == "" and len(rows) == 4
    assert "measurement: pump.v1.Flow" in mir("telemetry", "query", "-m", "pump.v1.Flow", "-o", "yaml").stdout


def test_a_star_that_the_shell_took_is_said(mir, hub, tmp_path):
    (tmp_path / "shed").mkdir()
    (tmp_path / "shed" / "plant").touch()
    hub.add("pump-7", "plant")
    for command in ["device", "list"], ["command", "send", "-n", "stop"]:
        result = mir(*command, "shed/plant", cwd=tmp_path)
        assert result.returncode == 1
        assert "'shed/plant' is also a file here" in result.stderr and "'*/plant'" in result.stderr
    assert "also a file" not in mir("device", "list", "gone/plant", cwd=tmp_path).stderr
    assert mir("device", "list", "*/plant", cwd=tmp_path).stderr == ""


def test_completion_finds_a_device_behind_many(mir, hub):
    for n in range(600):
        hub.add(f"a{n}", "plant")
    hub.add("z9", "plant")
    assert mir("__complete", "device", "list", "z").stdout.split("\t")[0] == "z9/plant"
    assert len(mir("__complete", "device", "list", "").stdout.splitlines()) == 500


def test_no_data_is_said_and_is_0(mir, hub):
    hub.add("pump-7", "plant")
    for options in [], ["--fields", "level"]:
        result = mir("telemetry", "query", "-m", "pump.v1.Quiet", *options)
        assert (result.returncode, result.stdout) == (0, "")
        assert "No data of pump.v1.Quiet" in result.stderr
    assert json.loads(mir("telemetry", "query", "-m", "pump.v1.Quiet", "-o", "json").stdout)["rows"] == []


@pytest.mark.parametrize(
    "options, says",
    [
        (["-m", "pump.v1.Flwo"], "measures 'pump.v1.Flwo'; did you mean 'pump.v1.Flow'?"),
        (["-m", "quiet"], "did you mean 'pump.v1.Quiet'?"),
        (["-m", "other.v1.Unlike"], "there is pump.v1.Flow, pump.v1.Quiet"),
        (["-m", "pump.v1.Quiet", "--fields", "levle"], "pump.v1.Quiet has no field 'levle'; did you mean 'level'?"),
    ],
)
def test_a_name_that_no_device_knows_is_not_taken_for_no_data(mir, hub, options, says):
    hub.add("pump-7", "plant")
    for form in "table", "json", "csv":
        result = mir("telemetry", "query", *options, "-o", form)
        assert (result.returncode, result.stdout) == (1, "")
        assert says in result.stderr and "No data" not in result.stderr


# Status


def test_status_when_all_is_fine(mir, hub):
    hub.status |= {
        "io_backend": "uring", "connections": 3, "slow_consumers": 0,
        "shards": [{"id": 0, "connections": 2, "bytes_in": 2048, "loop_busy_percent": 1.5}],
        "devices": {"registered": 1234567, "online": 2},
        "state": {"commits": 5, "map_used_bytes": 1048576, "map_size_bytes": 17179869184},
        "latency_us": {"publish": {"p50": 12, "p99": 1500, "max": 2.5e6}},
        "something_new": {"answer": 42},
    }
    result = mir("status")
    assert result.returncode == 0, result.stderr
    assert result.stdout.startswith("everything is fine\nmir 9.9.9 at nats://127.0.0.1")
    assert "up 1h 6m" in result.stdout and "io uring" in result.stdout
    assert "1,234,567 registered, 2 online" in result.stdout
    assert "1.0 MiB map used, 16.0 GiB map size" in result.stdout
    assert "12 us" in result.stdout and "1.50 ms" in result.stdout and "2.50 s" in result.stdout
    assert "42 answer" in result.stdout
    assert json.loads(mir("status", "-o", "json").stdout) == hub.status


def test_status_shows_what_is_wrong_first(mir, hub):
    hub.status["problems"] = [
        {"device": "pump-7/plant", "kind": "bad_protobuf", "count": 12, "text": "field 3 is cut short\x1b[2J"}
    ]
    hub.status["slow_consumers"] = 2
    lines = mir("status").stdout.splitlines()
    assert lines[0] == "wrong: pump-7/plant: bad protobuf: field 3 is cut short\ufffd[2J (12 times)"
    assert "2 slow consumers" in lines[1]
    assert "fine" not in "\n".join(lines)


def test_status_shows_rates(mir, hub):
    def grow(_):
        hub.status["telemetry"]["rows_accepted"] += 1000
        return json.dumps(hub.status).encode()

    hub.status["telemetry"] = {"rows_accepted": 0}
    hub.override["sys.status"] = grow
    assert "2,000 rows accepted (" in mir("status").stdout


@pytest.mark.parametrize("odd", [{}, {"problems": 3, "shards": {}, "devices": [1, None], "latency_us": {"x": 1}}])
def test_status_bears_odd_documents(mir, hub, odd):
    hub.status = odd
    assert mir("status").returncode == 0


# Contexts


def test_contexts_are_added_used_and_listed(hub, home, tmp_path):
    hub.add("host")
    run = lambda *args: subprocess.run([BINARY, *args], capture_output=True, text=True, env=home)
    assert "There are no contexts" in run("context", "list").stderr
    assert run("context", "add", "plant", hub.url).returncode == 0
    assert run("context", "add", "other", "nats://127.0.0.1:1").returncode == 0
    assert run("device", "list", "--context", "plant", "-o", "name").stdout == "host/default\n"
    assert run("context", "use", "plant").returncode == 0
    assert run("device", "list", "-o", "name").stdout == "host/default\n"
    assert run("device", "list", "--context", "other").returncode == 3
    assert "did you mean 'plant'" in run("context", "use", "plnat").stderr
    assert "there is no context 'x'" in run("device", "list", "--context", "x").stderr
    table = [line.split() for line in run("ctx", "ls").stdout.splitlines()]
    assert table == [["NAME", "TARGET"], ["*", "plant", hub.url], ["other", "nats://127.0.0.1:1"]]
    assert run("context", "current").stdout == f"{hub.url}  (the current context 'plant')\n"
    path = tmp_path / "config" / "mir" / "cli.yaml"
    assert path.stat().st_mode & 0o777 == 0o600


def test_a_context_file_written_elsewhere_is_kept(hub, home, tmp_path):
    path = tmp_path / "config" / "mir" / "cli.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(
        f"logLevel: info\ncurrentContext: local\ncontexts:\n- name: local\n  target: {hub.url}\n  webTarget: ''\n"
        "  grafana: localhost:3000\n  sec: {credentials: '', rootCA: '', password: ''}\n"
    )
    run = lambda *args: subprocess.run([BINARY, *args], capture_output=True, text=True, env=home)
    assert run("device", "list").returncode == 0
    assert run("context", "add", "b", "host:1").returncode == 0
    text = path.read_text()
    assert "logLevel: info" in text and "grafana: localhost:3000" in text and "name: b" in text
    path.write_text("contexts: [{name: a}]\n")
    assert "has no name or no target" in run("device", "list").stderr
    path.write_text("contexts:\n  - [\n")
    broken = run("device", "list")
    assert broken.returncode == 1 and "cli.yaml: line" in broken.stderr
    path.write_text("currentContext: a\ncontexts: [{name: a, target: 'nats://x:1', sec: {rootCA: /ca.pem}}]\n")
    assert "sec.rootCA" in run("device", "list").stderr


# Terminals


def test_a_table_fits_the_terminal_and_is_coloured_there_only(hub, home):
    hub.add("a-device-with-a-rather-long-name", "and-a-namespace", online=True, labels="x" * 50)
    for columns in (40, 60, 100):
        shown, code = terminal(["-t", hub.url, "device", "list"], {**home, "NO_COLOR": "1"}, columns=columns)
        assert code == 0
        assert max(len(line) for line in shown.splitlines()) <= columns
        assert "\x1b" not in shown
    assert "…" in shown
    coloured, _ = terminal(["-t", hub.url, "device", "list"], home)
    assert "\x1b[32monline\x1b[0m" in coloured
    wide, _ = terminal(["-t", hub.url, "device", "list", "-o", "wide"], home)
    assert "x" * 50 in wide and "…" not in wide


def test_numbers_are_left_out_rather_than_cut(hub, home):
    shown, code = terminal(["-t", hub.url, "tlm", "query", "-m", "pump.v1.Flow"], {**home, "NO_COLOR": "1"}, columns=60)
    assert code == 0
    assert "more column" in shown and str(2**63) in shown


# Completion


@pytest.mark.parametrize(
    "words, expected",
    [
        (["de"], ["device"]),
        (["device", "l"], ["list"]),
        (["device", "list", "-o", ""], ["table", "wide", "json", "yaml", "name"]),
        (["device", "list", "--output", "=", "j"], ["json"]),
        (["device", "list", "--names"], ["--namespace"]),
        (["-t", "device", "tele"], ["telemetry"]),
        (["completion", ""], ["bash", "zsh", "fish"]),
        (["help", "telemetry", "q"], ["query"]),
        (["device", "list", "ho"], ["host/default"]),
        (["context", "use", ""], []),
    ],
)
def test_completion_offers(mir, hub, words, expected):
    hub.add("host", online=True)
    hub.add("$(touch /tmp/x)")
    lines = mir("__complete", *words).stdout.splitlines()
    assert [line.split("\t")[0] for line in lines] == expected


def test_completion_never_offers_what_a_shell_could_run(mir, hub):
    hub.add("$(touch x)")
    hub.add("-rf")
    assert mir("__complete", "device", "delete", "").stdout == ""


def test_the_bash_script_completes(mir, hub, tmp_path):
    script = tmp_path / "mir.bash"
    script.write_text(mir("completion", "bash").stdout)
    path = f"{os.path.dirname(BINARY)}:{os.environ['PATH']}"
    ask = f'source {script}; COMP_WORDS=(mir device cr); COMP_CWORD=2; _mir; echo "${{COMPREPLY[@]}}"'
    out = subprocess.run(["bash", "-c", ask], capture_output=True, text=True, env={**os.environ, "PATH": path})
    assert out.stdout == "create\n", out.stderr
