# SPDX-License-Identifier: Apache-2.0
"""Commands, the queue of commands, and configuration, as they are typed, sent and shown."""

import json
import os
import re
import subprocess
import threading

import pytest
from fake_hub import PATIENCE
from terminal import BINARY, terminal


def fleet(hub, count=3, namespace="plant"):
    for number in range(count):
        hub.add(f"pump-{number}", namespace, online=True, schema=True, type="pump")


def rows(text):
    return [line.split() for line in text.splitlines()]


# The lines of the product's page


@pytest.mark.parametrize(
    "line, target, name",
    [
        ("mir cmd send */production -n start_bootup", {"namespaces": ["production"]}, "pump.v1.StartBootup"),
        ("""mir cfg send --label="type=temp-sensor" -n datarate -p '{"interval": 60}'""",
         {"labels": {"type": "temp-sensor"}}, "pump.v1.DataRate"),
        ("mir command send pump-7/plant -n pkg.Reboot --queue --ttl 1h",
         {"names": ["pump-7"], "namespaces": ["plant"]}, "pkg.Reboot"),
        ("mir dev cmd send */production -n start_bootup", {"namespaces": ["production"]}, "pump.v1.StartBootup"),
        ("""mir devices cfg send -n datarate --label type=temp-sensor -p '{"interval": 60}'""",
         {"labels": {"type": "temp-sensor"}}, "pump.v1.DataRate"),
    ],
)
def test_the_lines_of_the_page_work_as_typed(hub, home, tmp_path, line, target, name):
    hub.add("a", "production", online=True, schema=True)
    hub.add("b", "lab", online=True, schema=True, type="temp-sensor")
    hub.add("pump-7", "plant", online=True, schema=True)
    path = f"{os.path.dirname(BINARY)}:{home['PATH']}"
    result = subprocess.run(
        ["bash", "-c", line], stdin=subprocess.DEVNULL, capture_output=True, text=True, cwd=tmp_path,
        env={**home, "PATH": path, "MIR_TARGET": hub.url}, timeout=20 * PATIENCE,
    )
    [request] = hub.asked("cfg.send" if "datarate" in line else "cmd.send")
    asked = {key: list(getattr(request.targets, key)) for key in ("names", "namespaces", "ids")}
    asked = {key: value for key, value in {**asked, "labels": dict(request.targets.labels)}.items() if value}
    assert (asked, request.name, request.payload_encoding) == (target, name, 2)
    if "datarate" in line:
        assert request.payload == b'{"interval": 60}' and hub.desired == {("b", name): {"interval": 60}}
    else:
        assert request.payload == b"{}"
    if "--queue" in line:
        assert request.queue and request.ttl_sec == 3600
    else:
        assert result.returncode == 0, result.stderr


def test_the_list_of_the_page_asks_for_a_label_and_for_liveness(mir, hub):
    hub.add("a", "factory", online=True, location="floor-2")
    hub.add("b", "factory", location="floor-2")
    hub.add("c", "factory", online=True, location="floor-3")
    result = mir("device", "list", "--namespace=factory", "--label=location=floor-2,status=online", "-o", "name")
    assert result.stdout == "a/factory\n"
    [request] = hub.asked("core.list")
    assert dict(request.targets.labels) == {"location": "floor-2"} and list(request.targets.liveness) == ["online"]


# Liveness and labels


def test_liveness_is_alternatives_and_a_label_of_that_name_is_still_there(mir, hub):
    hub.add("on", online=True)
    hub.add("off")
    hub.add("cut", online=True).spec.disabled = True
    hub.add("label", status="online")
    ask = lambda *labels: mir("device", "list", *(f"--label={each}" for each in labels), "-o", "name").stdout.split()
    assert ask("status=online") == ["on/default"]
    assert ask("status=offline") == ["label/default", "off/default"]
    assert ask("status=disabled") == ["cut/default"]
    assert ask("status=online,status=disabled") == ask("status=online", "status=disabled") == ["cut/default", "on/default"]
    assert ask("labels.status=online") == ["label/default"]
    refused = mir("device", "list", "--label", "status=asleep")
    assert refused.returncode == 2 and "labels.status=asleep" in refused.stderr


def test_liveness_alone_is_a_target_for_what_changes_devices(mir, hub):
    hub.add("on", online=True)
    hub.add("off")
    assert mir("device", "update", "--label", "status=offline", "--labels", "x=y").stdout == "updated off/default (id off)\n"
    [request] = hub.asked("core.update")
    assert list(request.targets.liveness) == ["offline"] and list(request.targets.names) == ["*"]


# Sending commands


def test_a_command_and_its_replies_as_a_table(mir, hub):
    fleet(hub)
    hub.answers["pump-1"] = lambda fields: "device error in command handler: the valve is stuck"
    hub.answers["pump-2"] = lambda fields: ("pump.v1.Note", {"text": "stopped"})
    result = mir("command", "send", "*/plant", "-n", "pump.v1.Stop", "-p", '{"afterMs": 7}')
    assert result.returncode == 1
    assert rows(result.stdout) == [
        ["DEVICE", "STATUS", "REPLY", "RESULT"],
        ["pump-0/plant", "success", "mir.device.v1.Void", "{}"],
        ["pump-1/plant", "error", "device", "error", "in", "command", "handler:", "the", "valve", "is", "stuck"],
        ["pump-2/plant", "success", "pump.v1.Note", '{"text":', '"stopped"}'],
    ]
    assert "1 of 3 devices failed." in result.stderr
    assert sorted(hub.ran) == [(f"pump-{n}", "pump.v1.Stop", {"afterMs": 7}) for n in range(3)]
    assert mir("command", "send", "pump-0/plant", "-n", "pump.v1.Stop").returncode == 0


def test_replies_as_json_and_yaml(mir, hub):
    fleet(hub, 2)
    hub.answers["pump-0"] = lambda fields: ("pump.v1.Note", {"text": "ok", "big": "9007199254740993"})
    hub.answers["pump-1"] = lambda fields: "no"
    result = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-o", "json")
    assert result.returncode == 1
    assert json.loads(result.stdout) == [
        {"device": "pump-0/plant", "deviceId": "pump-0", "status": "success", "name": "pump.v1.Note",
         "payload": {"text": "ok", "big": "9007199254740993"}},
        {"device": "pump-1/plant", "deviceId": "pump-1", "status": "error", "error": "no"},
    ]
    assert "  status: error\n" in mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-o", "yaml").stdout


def test_flags_reach_the_server(mir, hub):
    fleet(hub, 1)
    mir("cmd", "send", "*/*", "-n", "pump.v1.Stop", "--dry-run", "--force-push", "--no-validation", "--refresh-schema",
        "--timeout", "1500ms")
    [request] = hub.asked("cmd.send")
    assert request.dry_run and request.force_push and request.no_validation and request.refresh_schema
    assert request.timeout_sec == 2 and not request.stream and not request.queue and not request.HasField("ttl_sec")
    assert list(request.targets.names) == ["*"]
    mir("cmd", "send", "*/*", "-n", "pump.v1.Stop")
    assert not hub.asked("cmd.send")[-1].HasField("timeout_sec")


def test_a_dry_run_says_who_could_have_it(mir, hub):
    fleet(hub, 1)
    hub.add("new", "plant", online=True)
    result = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--dry-run")
    assert result.returncode == 1 and hub.ran == []
    assert rows(result.stdout)[2][:2] == ["pump-0/plant", "validated"] and "cannot reconcile" in result.stdout
    refused = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop")
    assert refused.returncode == 1 and hub.ran == []
    assert "Nothing was sent. --force-push sends to the devices that can have it." in refused.stderr
    assert "Nothing was sent" not in result.stderr
    forced = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--force-push")
    assert "Nothing was sent" not in forced.stderr and forced.returncode == 1 and hub.ran == [("pump-0", "pump.v1.Stop", {})]


def test_targets_of_several_namespaces_are_one_request_and_no_device_is_told_twice(mir, hub):
    fleet(hub, 2)
    hub.add("pump-9", "lab", online=True, schema=True)
    mir("cmd", "send", "pump-0", "pump-0/plant", "pump-9/lab", "-n", "pump.v1.Stop")
    [request] = hub.asked("cmd.send")
    assert sorted(request.targets.ids) == ["pump-0", "pump-9"]
    assert [device for device, _, _ in hub.ran] == ["pump-9", "pump-0"] or len(hub.ran) == 2


@pytest.mark.parametrize("typed", ["start_bootup", "StartBootup", "STARTBOOTUP", "start_bootup{kind=boot}"])
def test_a_short_name_is_found_ignoring_case_and_underscores(mir, hub, typed):
    fleet(hub, 1)
    assert mir("cmd", "send", "*/plant", "-n", typed).returncode == 0
    assert hub.asked("cmd.send")[0].name == "pump.v1.StartBootup"


def test_a_short_name_that_is_unknown_or_not_unique_sends_nothing(mir, hub):
    fleet(hub, 1)
    unknown = mir("cmd", "send", "*/plant", "-n", "explode")
    assert unknown.returncode == 1
    assert "no command 'explode'" in unknown.stderr and "\n  pump.v1.Stop\n" in unknown.stderr
    twice = mir("cmd", "send", "*/plant", "-n", "openvalve")
    assert twice.returncode == 1
    assert "may mean more than one command" in twice.stderr
    assert "\n  pump.v1.OpenValve\n  pump.v1.Open_Valve\n" in twice.stderr
    assert "pump.v1.Stop" not in twice.stderr
    assert hub.asked("cmd.send") == []
    hub.fresh()
    hub.add("new", online=True)
    assert "cannot reconcile device schema" in mir("cmd", "send", "new", "-n", "stop").stderr
    assert "no device found" in mir("cmd", "send", "nobody", "-n", "stop").stderr


def test_a_refusal_of_the_server_is_shown_as_it_is(mir, hub):
    result = mir("cmd", "send", "nobody", "-n", "pump.v1.Stop")
    assert result.returncode == 1
    assert result.stderr == ("mir: error sending command to devices: no device found with current targets criteria; "
                             "`mir device list` shows all devices\n")


# Payloads


def test_a_payload_comes_from_the_line_a_file_or_standard_input(mir, hub, home, tmp_path):
    fleet(hub, 1)
    path = tmp_path / "stop.json"
    path.write_text('{"afterMs": 2}\n')
    send = ["cmd", "send", "pump-0", "-n", "pump.v1.Stop"]
    environment = {**home, "MIR_TARGET": hub.url}
    mir(*send, "-p", '{"after_ms": 1}')
    mir(*send, "-p", f"@{path}")
    mir(*send, stdin='{"afterMs": 3}')
    mir(*send, "-p", "-", stdin='{"afterMs": 4}')
    with path.open() as file:
        subprocess.run([BINARY, *send], stdin=file, env=environment, capture_output=True)
    mir(*send, stdin="")
    mir(*send, stdin=" \n")
    subprocess.run([BINARY, *send], stdin=subprocess.DEVNULL, env=environment, capture_output=True)
    assert [fields.get("afterMs") for _, _, fields in hub.ran] == [1, 2, 3, 4, 2, None, None, None]


def test_a_file_that_somebody_reads_already_is_left_alone(hub, home, tmp_path):
    fleet(hub, 2)
    path = tmp_path / "names"
    path.write_text("pump-0\npump-1\n")
    line = f"while read name; do {BINARY} -t {hub.url} cmd send $name -n pump.v1.Stop; done"
    with path.open() as file:
        result = subprocess.run(["bash", "-c", line], stdin=file, env=home, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr
    assert [device for device, _, _ in hub.ran] == ["pump-0", "pump-1"]


def silent_input(hub, home, *args):
    """Runs with a pipe as standard input that stays open and says nothing."""
    read, write = os.pipe()
    try:
        return subprocess.run(
            [BINARY, "-t", hub.url, *args], stdin=read, env=home, capture_output=True, text=True, timeout=20 * PATIENCE
        )
    finally:
        os.close(read)
        os.close(write)


def test_a_pipe_that_says_nothing_does_not_hold_a_command_up(hub, home):
    fleet(hub, 1)
    assert silent_input(hub, home, "cmd", "send", "pump-0", "-n", "start_bootup").returncode == 0
    assert hub.ran == [("pump-0", "pump.v1.StartBootup", {})]


def test_a_pipe_that_says_nothing_yet_is_not_taken_for_no_payload(hub, home):
    fleet(hub, 1)
    result = silent_input(hub, home, "cmd", "send", "pump-0", "-n", "pump.v1.Stop")
    assert result.returncode == 2 and hub.ran == []
    assert "-p -" in result.stderr and "-p '{}'" in result.stderr
    assert silent_input(hub, home, "cmd", "send", "pump-0", "-n", "pump.v1.Stop", "-p", "{}").returncode == 0
    result = silent_input(hub, home, "cfg", "send", "pump-0", "-n", "pump.v1.Speed")
    assert result.returncode == 2 and "what value?" in result.stderr


def test_a_slow_pipe_is_waited_for_when_it_is_asked_for(hub, home):
    fleet(hub, 1)
    read, write = os.pipe()
    process = subprocess.Popen(
        [BINARY, "-t", hub.url, "cmd", "send", "pump-0", "-n", "pump.v1.Stop", "-p", "-"], stdin=read, env=home
    )
    os.close(read)
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(1.5)
    os.write(write, b'{"afterMs": 9}')
    os.close(write)
    assert process.wait(20 * PATIENCE) == 0
    assert hub.ran == [("pump-0", "pump.v1.Stop", {"afterMs": 9})]


@pytest.mark.parametrize(
    "args, stdin, says",
    [
        (["cmd", "send", "a"], "", "needs -n NAME"),
        (["cmd", "send", "-n", "x"], "", "which devices?"),
        (["cmd", "send", "a", "-n", "x", "-p", "{"], "", "this is no JSON: line 1"),
        (["cmd", "send", "a", "-n", "x", "-p", "[1]"], "", "JSON object"),
        (["cmd", "send", "a", "-n", "x", "-p", ""], "", "is '{}'"),
        (["cmd", "send", "a", "-n", "x"], "pump-1\npump-2\n", "standard input: this is no JSON"),
        (["cmd", "send", "a", "-n", "x", "-p", "{}", "-e"], "", "exclude each other"),
        (["cmd", "send", "a", "-n", "x", "-j", "-e"], "", "exclude each other"),
        (["cmd", "send", "a", "-n", "x", "--ttl", "1h"], "", "add --queue"),
        (["cmd", "send", "a", "-n", "x", "--queue", "--ttl", "soon"], "", "--ttl"),
        (["cmd", "send", "a", "-n", "x", "--timeout", "-3s"], "", "--timeout"),
        (["cmd", "send", "a", "-n", "x", "--timeout", "500y"], "", "--timeout"),
        (["cmd", "send", "a", "-n", "x", "--label", "status=on"], "", "online, offline or disabled"),
        (["cfg", "send", "a", "-n", "x"], "", "what value?"),
        (["cfg", "send", "a", "-n", "x", "--if-version", "new", "-p", "{}"], "", "--if-version is a number"),
        (["cfg", "send", "a", "-n", "x", "--show-values", "-j"], "", "exclude each other"),
        (["cmd", "queue", "list", "--state", "asleep"], "", "not 'asleep'"),
        (["cmd", "queue", "cancel"], "", "which commands?"),
        (["cmd", "queue", "cancel", "pump-7/plant"], "", "is no id"),
        (["cmd", "queue", "show"], "", "needs ID"),
        (["cmd", "list", "--filter-labels", "x"], "", "is not KEY=VALUE"),
        (["device", "update", "a", "--desired", "x"], "", "is not NAME=JSON"),
        (["device", "update", "a", "--desired", "x.Y={"], "", "--desired x.Y"),
        (["device", "update", "a", "--desired", "x.Y=3"], "", "no JSON object"),
        (["device", "update", "a", "-p", "[]"], "", "JSON object"),
        (["device", "update", "a", "--desired", "x.Y={}", "--if-version", "-1"], "", "--if-version is a number"),
        (["device", "update", "a", "--disabled", "maybe"], "", "--disabled is true or false"),
    ],
)
def test_wrong_use_is_2_and_nothing_is_asked(mir, hub, args, stdin, says):
    result = mir(*args, stdin=stdin)
    assert (result.returncode, result.stdout) == (2, "")
    assert says in result.stderr and "--help" in result.stderr
    assert hub.requests == []


def test_serialized_payloads_pass_unchanged_and_answers_are_base64(mir, hub, home, tmp_path):
    fleet(hub, 1)
    hub.answers["pump-0"] = lambda fields: ("pump.v1.Note", {})
    body = bytes(range(256)) + b"  \r\n\0"
    (tmp_path / "stop.bin").write_bytes(body)
    line = [BINARY, "cmd", "send", "pump-0", "-n", "pump.v1.Stop", "--protobuf", "--no-validation"]
    run = lambda *more, **how: subprocess.run(
        [*line, *more], capture_output=True, env={**home, "MIR_TARGET": hub.url}, timeout=20 * PATIENCE, **how
    )
    shown = run("-p", f"@{tmp_path}/stop.bin", "-o", "json", stdin=subprocess.DEVNULL)
    assert shown.returncode == 0 and json.loads(shown.stdout)[0]["payload"] == "e30="
    assert run(input=body).returncode == 0
    with open(tmp_path / "stop.bin", "rb") as file:
        assert run(stdin=file).returncode == 0
    assert run("-p", "", stdin=subprocess.DEVNULL).returncode == 0
    assert run(input=b" \n").returncode == 0
    sent = hub.asked("cmd.send")
    assert [request.payload for request in sent] == [body, body, body, b"", b" \n"]
    assert all(request.payload_encoding == 1 and request.no_validation for request in sent)
    refused = run("-e", stdin=subprocess.DEVNULL)
    assert refused.returncode == 2 and b"--protobuf is of bytes" in refused.stderr


def test_a_file_that_is_not_there_is_1(mir, hub):
    result = mir("cmd", "send", "a", "-n", "x", "-p", "@/nonexistent")
    assert result.returncode == 1 and "cannot open /nonexistent" in result.stderr and hub.requests == []


# Streaming and progress


def test_results_are_streamed_as_they_come(hub, home):
    fleet(hub, 5)
    gate = hub.gates["pump-3"] = threading.Event()
    hub.answers["pump-1"] = lambda fields: "no"
    process = subprocess.Popen(
        [BINARY, "-t", hub.url, "cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--stream", "-o", "json"],
        stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=home,
    )
    first = [json.loads(process.stdout.readline()) for _ in range(4)]
    assert process.poll() is None and not gate.is_set()
    gate.set()
    rest, errors = process.communicate(timeout=20 * PATIENCE)
    assert [each["device"] for each in first] == [f"pump-{n}/plant" for n in (0, 1, 2, 4)]
    assert [each["status"] for each in first] == ["success", "error", "success", "success"]
    assert [json.loads(line)["device"] for line in rest.splitlines()] == ["pump-3/plant"]
    assert process.returncode == 1 and "1 of 5 devices failed." in errors
    assert hub.asked("cmd.send")[0].stream


def test_a_server_that_does_not_stream_gives_the_same_lines(mir, hub):
    fleet(hub, 2)
    response = hub.api.SendCommandResponse()
    for name in ("b/x", "a/x"):
        response.ok.device_responses[name].status = 4
    hub.override["cmd.send"] = response.SerializeToString()
    result = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--stream")
    assert sorted(rows(result.stdout)) == [["success", "a/x"], ["success", "b/x"]]


def test_streamed_lines_as_yaml_and_as_a_table(mir, hub):
    fleet(hub, 2)
    hub.answers["pump-0"] = lambda fields: "two\nlines\x1b[2J"
    table = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--stream").stdout
    assert "error     pump-0/plant" in table and "two lines\ufffd[2J" in table and len(table.splitlines()) == 2
    text = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "--stream", "-o", "yaml").stdout
    assert text.count("---\n") == 2


def test_a_long_run_shows_a_bar_on_the_terminal_and_takes_it_away(hub, home):
    fleet(hub, 4)
    gate = hub.gates["pump-2"] = threading.Event()
    threading.Timer(2.5, gate.set).start()
    shown, code = terminal(["-t", hub.url, "cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-p", "{}"], home, columns=80)
    assert code == 0
    assert "[##############################..........] 3 of 4, " in shown
    bar_end = shown.rindex("of 4")
    assert "\r\x1b[K" in shown[bar_end:] and "pump-2/plant" in shown[bar_end:]
    assert all(len(part) <= 80 for part in shown[:bar_end].replace("\x1b[K", "").split("\r"))
    hub.gates.clear()
    quick, _ = terminal(["-t", hub.url, "cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-p", "{}"], home, columns=80)
    assert "of 4" not in quick


def test_a_terminal_of_80_columns_is_not_overrun(hub, home):
    fleet(hub, 3)
    hub.answers["pump-1"] = lambda fields: "an error that is rather long and says more than a line of a table can hold, to the end"
    for columns in (60, 80, 120):
        shown, code = terminal(
            ["-t", hub.url, "cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-p", "{}"], {**home, "NO_COLOR": "1"}, columns=columns
        )
        table = shown.split("an error that is rather long and says more than a line of a table can hold, to the end")[0]
        assert code == 1 and max(len(line) for line in table.splitlines()) <= columns
        assert "to the end" in shown


# Templates and the editor


def test_a_template_can_be_sent_back(mir, hub, tmp_path):
    fleet(hub, 3)
    result = mir("cmd", "send", "*/plant", "-n", "stop", "-j")
    assert (result.returncode, result.stdout) == (0, '{\n  "afterMs": 0\n}\n') and hub.ran == []
    (tmp_path / "t.json").write_text(result.stdout)
    assert mir("cmd", "send", "*/plant", "-n", "stop", "-p", f"@{tmp_path / 't.json'}").returncode == 0
    hub.add("new", "plant")
    partly = mir("cmd", "send", "*/plant", "-n", "pump.v1.Stop", "-j")
    assert partly.returncode == 1 and partly.stdout == result.stdout and "new/plant: error retrieve" in partly.stderr
    assert json.loads(mir("cfg", "send", "pump-0/plant", "-n", "data_rate", "-j").stdout) == {"interval": 0, "burst": False}


def editor(tmp_path, *scripts):
    """An editor that runs the n-th script at its n-th start and keeps what it was opened with."""
    path = tmp_path / "editor"
    path.write_text(
        f"#!/bin/bash\nn=$(($(cat {tmp_path}/count 2>/dev/null || echo 0) + 1)); echo $n > {tmp_path}/count\n"
        f'cp "${{@: -1}}" {tmp_path}/opened.$n\nf="${{@: -1}}"\ncase $n in\n'
        + "".join(f"{n}) {script} ;;\n" for n, script in enumerate(scripts, 1))
        + "*) exit 9 ;;\nesac\n"
    )
    path.chmod(0o755)
    return {"EDITOR": f"{path} --wait", "TMPDIR": str(tmp_path)}


def test_the_editor_opens_the_template_and_sends_what_was_saved(mir, hub, tmp_path):
    fleet(hub, 5)
    env = editor(tmp_path, 'sed -i s/0/42/ "$f"; echo "# a comment" >> "$f"')
    result = mir("cmd", "send", "*/plant", "-n", "stop", "-e", env=env)
    assert result.returncode == 0, result.stderr
    opened = (tmp_path / "opened.1").read_text()
    assert opened.startswith("// pump.v1.Stop for pump-0/plant, pump-1/plant, pump-2/plant and 2 more\n")
    assert opened.endswith('{\n  "afterMs": 0\n}\n')
    assert hub.ran == [(f"pump-{n}", "pump.v1.Stop", {"afterMs": 42}) for n in range(5)]
    assert list(tmp_path.glob("mir-*")) == []


def test_what_the_server_refuses_goes_back_to_the_editor(mir, hub, tmp_path):
    fleet(hub, 1)
    env = editor(
        tmp_path, """echo '{"afterMs": "x"' > "$f\"""", """sed -i '$d' "$f"; echo '{"before": 1}' >> "$f\"""",
        """echo '{"afterMs": 3}' > "$f\"""",
    )
    result = mir("cmd", "send", "pump-0", "-n", "stop", "-e", env=env)
    assert result.returncode == 0, result.stderr
    second, third = (tmp_path / "opened.2").read_text(), (tmp_path / "opened.3").read_text()
    assert second.startswith("// REFUSED: this is no JSON: line ") and '\n{"afterMs": "x"\n' in second
    assert third.startswith("// REFUSED: pump-0/plant: error unmarshaling payload: ") and third.endswith('\n{"before": 1}\n')
    assert hub.ran == [("pump-0", "pump.v1.Stop", {"afterMs": 3})]


@pytest.mark.parametrize(
    "script, says",
    [
        (":", "was not changed; nothing was sent"),
        ('printf "" > "$f"', "is empty; nothing was sent"),
        ('echo "// only this" > "$f"', "is empty; nothing was sent"),
        ('echo >> "$f"', "was not changed"),
        ("exit 3", "failed; nothing was sent"),
    ],
)
def test_leaving_the_editor_without_a_change_sends_nothing(mir, hub, tmp_path, script, says):
    fleet(hub, 1)
    result = mir("cmd", "send", "pump-0", "-n", "stop", "-e", env=editor(tmp_path, script))
    assert result.returncode == 1 and says in result.stderr
    assert hub.ran == [] and not any(request.payload for request in hub.asked("cmd.send"))


def test_the_editor_of_a_configuration_begins_with_what_is_set(mir, hub, tmp_path):
    fleet(hub, 1)
    hub.desired[("pump-0", "pump.v1.DataRate")] = {"interval": 60, "burst": True}
    env = editor(tmp_path, 'sed -i s/60/30/ "$f"')
    assert mir("cfg", "send", "pump-0", "-n", "datarate", "-e", env=env).returncode == 0
    assert hub.desired[("pump-0", "pump.v1.DataRate")] == {"interval": 30, "burst": True}


# Listing


def test_commands_are_listed_for_devices_with_equal_schemas(mir, hub):
    fleet(hub, 6)
    result = mir("cmd", "ls", "*/plant")
    lines = result.stdout.splitlines()
    assert lines[0] == "pump-0/plant, pump-1/plant, pump-2/plant, pump-3/plant and 2 more"
    assert rows(result.stdout)[1:4] == [
        ["COMMAND", "TEMPLATE", "UNITS"],
        ["pump.v1.Stop", '{"afterMs":0}', "after_ms:", "ms"],
        ["pump.v1.StartBootup{kind=boot}", "{}"],
    ]
    assert mir("cmd", "list", "-o", "name").stdout.split() == [
        "pump.v1.OpenValve", "pump.v1.Open_Valve", "pump.v1.StartBootup", "pump.v1.Stop"
    ]
    [group] = json.loads(mir("dev", "cmd", "list", "-o", "json").stdout)
    assert group["devices"][0] == {"id": "pump-0", "name": "pump-0", "namespace": "plant"}
    assert group["commands"][0] == {"name": "pump.v1.Stop", "labels": {"__unit_after_ms": "ms"}, "template": {"afterMs": 0}}


def test_commands_are_filtered_and_schemas_asked_for_again(mir, hub):
    fleet(hub, 1)
    assert mir("cmd", "list", "--filter-labels", "kind=boot", "--refresh-schema", "-o", "name").stdout == "pump.v1.StartBootup\n"
    mir("cmd", "list", "--filter-labels", "__unit_after_ms=ms")
    first, second = hub.asked("cmd.list")
    assert dict(first.filter_labels) == {"__tag_kind": "boot"} and first.refresh_schema
    assert dict(second.filter_labels) == {"__unit_after_ms": "ms"} and not second.refresh_schema


def test_devices_without_a_schema_are_said_and_the_exit_code_is_1(mir, hub):
    fleet(hub, 1)
    hub.add("new", "plant")
    for command in ("command", "config"):
        result = mir(command, "list")
        assert result.returncode == 1 and "cannot reconcile device schema" in result.stderr
        assert "pump-0/plant" in result.stdout


# The queue


def test_a_command_waits_for_a_device_that_is_away(mir, hub):
    hub.add("pump-7", "plant", schema=True)
    result = mir("command", "send", "pump-7/plant", "-n", "pump.v1.Stop", "-p", '{"afterMs": 5}', "--queue", "--ttl", "90m")
    assert result.returncode == 0
    assert rows(result.stdout)[1] == ["pump-7/plant", "queued", "id", "c-1"]
    assert hub.asked("cmd.send")[0].ttl_sec == 5400
    listed = mir("command", "queue", "list", "pump-7/plant", "--state", "queued,sent")
    assert rows(listed.stdout)[0] == ["ID", "DEVICE", "COMMAND", "STATE", "SINCE", "EXPIRES", "RESULT"]
    assert rows(listed.stdout)[1][:4] == ["c-1", "pump-7/plant", "pump.v1.Stop", "queued"]
    assert re.search(r"queued +\S.* in (89|90)m", listed.stdout)
    request = hub.asked("cmd.queue")[0]
    assert list(request.states) == [1, 2] and list(request.targets.names) == ["pump-7"]
    shown = mir("cmd", "queue", "show", "c-1").stdout
    assert 'payload    {"afterMs": 5}' in shown and "by         ada" in shown and "  queued     20" in shown
    [one] = json.loads(mir("cmd", "queue", "show", "c-1", "-o", "json").stdout)
    assert one["payload"] == {"afterMs": 5} and [step["state"] for step in one["steps"]] == ["queued"]
    assert mir("cmd", "queue", "show", "c-2").returncode == 1
    assert mir("cmd", "queue", "cancel", "c-1").stdout == "cancelled c-1 pump.v1.Stop of pump-7/plant\n"
    again = mir("cmd", "queue", "cancel", "c-1")
    assert again.returncode == 1 and "nothing was cancelled" in again.stderr
    assert list(hub.asked("cmd.cancel")[0].command_ids) == ["c-1"]


def test_the_queue_of_devices_can_be_cancelled(mir, hub):
    for name in ("a", "b"):
        hub.add(name, "plant", schema=True, type=name)
        mir("command", "send", f"{name}/plant", "-n", "pump.v1.Stop", "--queue")
    assert mir("dev", "command", "queue", "cancel", "--label", "type=b").stdout.startswith("cancelled c-2 ")
    assert mir("cmd", "queue", "cancel", "--name", "*").stdout.startswith("cancelled c-1 ")
    assert "No command is in the queue" in mir("cmd", "queue", "list", "--state", "queued").stderr


# Configuration


def test_desired_and_reported_side_by_side(mir, hub):
    fleet(hub, 1)
    hub.desired[("pump-0", "pump.v1.Speed")] = {"rpm": "900"}
    hub.desired[("pump-0", "pump.v1.DataRate")] = {"interval": 60}
    hub.reported[("pump-0", "pump.v1.DataRate")] = {"interval": 60}
    result = mir("config", "list", "pump-0/plant")
    assert rows(result.stdout) == [
        ["DEVICE", "PROPERTY", "DESIRED", "REPORTED", "STATE"],
        ["pump-0/plant", "pump.v1.Speed", '{"rpm":"900"}', "unreported", "for", "2m"],
        ["pump.v1.DataRate", '{"interval":60}', "the", "same", "in", "sync"],
    ]
    hub.reported[("pump-0", "pump.v1.Speed")] = {"rpm": "800"}
    assert '{"rpm":"800"}  differs for 2m' in mir("cfg", "ls").stdout
    [device] = json.loads(mir("cfg", "ls", "-o", "json").stdout)
    speed = device["properties"]["pump.v1.Speed"]
    assert speed["desired"] == {"rpm": "900"} and speed["reported"] == {"rpm": "800"} and speed["inSync"] is False
    assert "differsSince" in speed and device["properties"]["pump.v1.DataRate"]["inSync"] is True


def test_many_devices_that_say_the_same_share_their_rows(mir, hub):
    fleet(hub, 30)
    for n in range(30):
        hub.desired[(f"pump-{n}", "pump.v1.DataRate")] = {"interval": 60 if n < 28 else 90}
        hub.reported[(f"pump-{n}", "pump.v1.DataRate")] = {"interval": 60}
    listed = [row for row in rows(mir("cfg", "list", "*/*").stdout) if "pump.v1.DataRate" in row or "/plant" in row[0]]
    assert [row[:4] for row in listed if "/plant" in row[0]] == [
        ["pump-0/plant", "and", "27", "more"], ["pump-28/plant", "and", "1", "more"]]
    assert [row[1:] for row in listed if row[0] == "pump.v1.DataRate"] == [
        ['{"interval":60}', "the", "same", "in", "sync"], ['{"interval":90}', '{"interval":60}', "differs", "for", "2m"]]
    wide = [row[0] for row in rows(mir("cfg", "list", "*/*", "-o", "wide").stdout) if "/plant" in row[0]]
    assert sorted(wide) == sorted(f"pump-{n}/plant" for n in range(30))


def test_values_of_a_server_that_knows_no_states(mir, hub):
    fleet(hub, 1)
    assert rows(mir("cfg", "list").stdout) == [
        ["DEVICE", "PROPERTY", "VALUE"],
        ["pump-0/plant", "pump.v1.Speed", '{"rpm":0}'],
        ["pump.v1.DataRate", '{"interval":0,"burst":false}'],
    ]


def test_config_flags_reach_the_server(mir, hub):
    fleet(hub, 1)
    mir("cfg", "send", "*/*", "-n", "pump.v1.Speed", "-p", "{}", "--dry-run", "--force-push", "--send-only-different",
        "--refresh-schema", "--if-version", "0")
    mir("cfg", "send", "*/*", "-n", "pump.v1.Speed", "-p", "{}", "--only-different")
    first, second = hub.asked("cfg.send")
    assert first.dry_run and first.force_push and first.send_only_different and first.refresh_schema
    assert first.HasField("if_version") and first.if_version == 0
    assert second.send_only_different and not second.dry_run and not second.HasField("if_version")


def test_a_value_that_is_set_already_is_unchanged(mir, hub):
    fleet(hub, 1)
    send = ["cfg", "send", "pump-0", "-n", "datarate", "-p", '{"interval": 5}', "--only-different"]
    assert rows(mir(*send).stdout)[1][:2] == ["pump-0/plant", "success"]
    assert rows(mir(*send).stdout)[1] == ["pump-0/plant", "unchanged", "pump.v1.DataRate"]
    shown = mir("cfg", "send", "pump-0", "-n", "datarate", "--show-values")
    assert shown.returncode == 0 and rows(shown.stdout)[1] == ["pump-0/plant", "success", "pump.v1.DataRate", '{"interval":5}']


def test_a_version_that_is_no_longer_the_present_one_is_refused(mir, hub):
    fleet(hub, 1)
    send = ["cfg", "send", "pump-0", "-n", "datarate", "-p", '{"interval": 5}', "--if-version"]
    [answer] = json.loads(mir(*send, "0", "-o", "json").stdout)
    assert answer["version"] == 1
    late = mir(*send, "0")
    assert late.returncode == 1 and "has version 1, not 0" in late.stdout
    assert mir(*send, "1").returncode == 0


# Updates of devices


def test_desired_properties_through_update(mir, hub):
    fleet(hub, 1)
    result = mir("device", "update", "pump-0", "--desired", 'pump.v1.Speed={"rpm": 900}', "--desired", 'data_rate={"interval": 1, "burst": true}')
    assert (result.returncode, result.stdout) == (0, "updated pump-0/plant (id pump-0)\n")
    [request] = hub.asked("core.update")
    assert dict(request.props.desired["pump.v1.Speed"]) == {"rpm": 900}
    assert dict(request.props.desired["pump.v1.DataRate"]) == {"interval": 1, "burst": True}
    assert not request.HasField("if_version")
    mir("device", "update", "pump-0", "-p", '{"pump.v1.Speed": {"rpm": 1}}', "--if-version", "1")
    request = hub.asked("core.update")[-1]
    assert dict(request.props.desired["pump.v1.Speed"]) == {"rpm": 1} and request.if_version == 1
    late = mir("device", "update", "pump-0", "--labels", "a=b", "--if-version", "1")
    assert late.returncode == 1 and "has version 2, not 1" in late.stderr
    unknown = mir("device", "update", "pump-0", "--desired", "warp={}")
    assert unknown.returncode == 1 and "no config 'warp'" in unknown.stderr


def test_a_device_is_disabled_and_enabled(mir, hub):
    hub.add("a")
    for value in ("true", "false"):
        assert mir("device", "update", "a", "--disabled", value).returncode == 0
        assert hub.devices["a"].spec.disabled is (value == "true")
    assert mir("device", "update", "a", "--disabled", "true", "--enable").returncode == 2


def test_the_version_of_a_device_is_shown(mir, hub):
    hub.add("a").status.version = 12
    [device] = json.loads(mir("device", "list", "-o", "json").stdout)
    assert device["status"]["version"] == 12
    assert "version: 12" in mir("device", "list", "-o", "yaml").stdout
    assert rows(mir("device", "list", "-o", "wide").stdout)[0][5:] == ["VERSION", "SCHEMA"]
    assert mir("device", "apply", "-f", "-", stdin=mir("device", "list", "-o", "json").stdout).returncode == 0


# Completion


@pytest.mark.parametrize(
    "words, expected",
    [
        (["command", ""], ["list", "send", "queue"]),
        (["cmd", "queue", "c"], ["cancel"]),
        (["device", "co"], ["command", "config"]),
        (["dev", "cmd", "se"], ["send"]),
        (["cmd", "send", "-n", "pump.v1.S"], ["pump.v1.StartBootup", "pump.v1.Stop"]),
        (["dev", "cfg", "send", "--name", ""], ["pump.v1.DataRate", "pump.v1.Speed"]),
        (["cmd", "send", "--t"], ["--timeout", "--ttl", "--target.names", "--target"]),
        (["cfg", "send", "pum"], ["pump-0/plant"]),
        (["event", "watch", "-o", "j"], ["json"]),
        (["evt", "li"], ["list"]),
    ],
)
def test_completion_knows_the_commands_and_the_names_of_messages(mir, hub, words, expected):
    fleet(hub, 1)
    assert [line.split("\t")[0] for line in mir("__complete", *words).stdout.splitlines()] == expected


def test_control_characters_of_a_message_do_not_reach_the_terminal(mir, hub):
    response = hub.api.SendCommandResponse()
    entry = response.ok.device_responses["a\x1b[2J/b"]
    entry.status, entry.name, entry.payload = 4, "evil\x07", b'{"x": "\xe2\x80\xae\x1b"}'
    hub.override["cmd.send"] = response.SerializeToString()
    listed = hub.api.SendListCommandsResponse()
    group = listed.ok.devices_commands.add()
    group.ids.add(name="a\x1b[2J", namespace="b")
    group.cmd_descriptors.add(name="evil\x1b", template='{"\x07": 0}')
    hub.override["cmd.list"] = listed.SerializeToString()
    for args in (["cmd", "send", "a", "-n", "x.Y"], ["cmd", "send", "a", "-n", "x.Y", "--stream"], ["cmd", "list"],
                 ["cmd", "list", "-o", "name"], ["cmd", "send", "a", "-n", "z"]):
        result = mir(*args)
        shown = result.stdout + result.stderr
        assert shown and not set("\x1b\x07\u202e") & set(shown), args
