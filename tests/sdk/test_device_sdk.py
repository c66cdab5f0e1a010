# SPDX-License-Identifier: Apache-2.0
"""The DeviceSDK seen from the bus, through the programs mir-host and thermostat."""

import datetime
import pathlib
import re
import signal
import socket
import struct
import time

import pytest
from google.protobuf import descriptor_pb2

from hub import BUILD, ZSTD, Api, Gate, Hub, Program, classes_of, free_port, unzstd
from wire import PATIENCE, wait_until

HOST = BUILD / "bin" / "mir-host"
THERMOSTAT = BUILD / "examples" / "thermostat"

STOP_S = 5 * PATIENCE  # at once, on a machine that has other work


@pytest.fixture(scope="module")
def api():
    return Api()


@pytest.fixture(scope="module")
def hub():
    hub = Hub()
    yield hub
    hub.close()


@pytest.fixture
def own_hub():
    hubs = []

    def make(**how):
        hubs.append(Hub(**how))
        return hubs[-1]

    yield make
    for hub in hubs:
        hub.close()


@pytest.fixture
def run(tmp_path):
    programs = []

    def start(*command, env=None):
        programs.append(Program(*command, env={"XDG_STATE_HOME": str(tmp_path / "state"), **(env or {})}))
        return programs[-1]

    yield start
    for program in programs:
        program.close()
        assert "Sanitizer" not in program.text() and "runtime error" not in program.text(), program.text()


ids = iter(range(1_000_000))


@pytest.fixture
def host(hub, run):
    """mir-host under an id of its own, quick."""
    def start(*arguments, at=hub):
        name = f"host-{next(ids)}"
        program = run(HOST, "--id", name, "--target", at.url, "--interval", "100ms", "--reconnect-wait", "100ms",
                      *arguments)
        program.id = name
        return program

    return start


@pytest.fixture
def thermostat(hub, run, api):
    """thermostat, through with its launch; `desired` are the properties that it finds."""
    def start(desired=None, at=hub):
        name = f"thermostat-{next(ids)}"
        response = api.DeviceReportedPropertiesResponse()
        response.ok.SetInParent()
        response.ok.encoding = 1
        for key, (when, value) in (desired or {}).items():
            response.ok.properties[key].time = when
            response.ok.properties[key].property = value
        subject = f"device.{name}.cfg.v1alpha.desiredproperties"
        at.answers[subject] = lambda _: response.SerializeToString()
        program = run(THERMOSTAT, name, at.url)
        program.id = name
        at.wait(subject)
        program.classes = schema_of(at, api, name)
        return program

    return start


def beat_of(name):
    return f"device.{name}.core.v1alpha.hearthbeat"


def telemetry_of(name):
    return f"device.{name}.tlm.v1alpha.proto"


def reported_of(name):
    return f"device.{name}.cfg.v1alpha.proto"


def schema_of(hub, api, name):
    hello = hub.wait(beat_of(name))[0]
    return classes_of(api.DeviceHello.FromString(unzstd(hello.data)).hello.schema)


# ---- Launch ----


def test_hello_comes_first_with_the_whole_schema(hub, api, host):
    name = host().id
    hello = hub.wait(beat_of(name))[0]
    assert hello.headers == {"mir-content": "mir-hello", "mir-content-encoding": ZSTD}
    assert not hello.reply
    first = next(message for message in hub.messages if message.subject.startswith(f"device.{name}."))
    assert first is hello
    content = api.DeviceHello.FromString(unzstd(hello.data))
    assert content.WhichOneof("response") == "hello"
    files = descriptor_pb2.FileDescriptorSet.FromString(content.hello.schema).file
    assert [file.name for file in files] == [
        "host.proto", "google/protobuf/descriptor.proto", "mir/device/v1/mir.proto"]
    classes = classes_of(content.hello.schema)
    assert {name for name in classes if name.startswith("host.v1.")} == {
        "host.v1.Cpu", "host.v1.Memory", "host.v1.Load", "host.v1.Disk", "host.v1.Network",
        "host.v1.Ping", "host.v1.Pong", "host.v1.TopProcesses", "host.v1.Processes", "host.v1.Sampling"}


def test_options_of_messages_and_fields_travel_with_the_schema(hub, api, host):
    classes = schema_of(hub, api, host().id)
    options = classes["mir.device.v1.Meta"].DESCRIPTOR.file
    message_type = options.extensions_by_name["message_type"]
    timestamp = options.extensions_by_name["timestamp"]
    field_meta = options.extensions_by_name["field_meta"]
    for name in ("Cpu", "Memory", "Load", "Disk", "Network"):
        descriptor = classes[f"host.v1.{name}"].DESCRIPTOR
        assert option(descriptor.GetOptions(), message_type.number) == 1
        assert option(descriptor.fields_by_name["ts"].GetOptions(), timestamp.number) == 4
    for name, kind in (("Ping", 2), ("TopProcesses", 2), ("Sampling", 3), ("Pong", None), ("Processes", None)):
        assert option(classes[f"host.v1.{name}"].DESCRIPTOR.GetOptions(), message_type.number) == kind
    meta = classes["mir.device.v1.FieldMeta"]
    unit = {
        f"{name}.{field.name}": meta.FromString(option(field.GetOptions(), field_meta.number)).unit
        for name in ("Cpu", "Memory", "Disk", "Network", "Pong", "Sampling")
        for field in classes[f"host.v1.{name}"].DESCRIPTOR.fields
        if field.name in ("total", "core", "used", "read", "receive", "uptime", "interval_ms")
    }
    assert unit == {"Cpu.total": "%", "Cpu.core": "%", "Memory.total": "bytes", "Memory.used": "bytes",
                    "Disk.read": "bytes/s", "Network.receive": "bytes/s", "Pong.uptime": "s",
                    "Sampling.interval_ms": "ms"}


def fields_of(data):
    """(number, value) of each field; just enough of the wire format for options."""
    at = 0

    def varint():
        nonlocal at
        value = shift = 0
        while True:
            byte = data[at]
            at += 1
            value |= (byte & 0x7F) << shift
            shift += 7
            if byte < 0x80:
                return value

    while at < len(data):
        key = varint()
        if key & 7 == 0:
            yield key >> 3, varint()
        else:
            assert key & 7 == 2
            size = varint()
            yield key >> 3, data[at:at + size]
            at += size


def option(options, number):
    """An extension that the standard options do not know: from their serialized form."""
    return dict(fields_of(options.SerializeToString())).get(number)


def test_desired_properties_are_requested_a_second_after_hello(hub, host):
    program = host()
    began = time.monotonic()
    hub.wait(beat_of(program.id))
    request = hub.wait(f"device.{program.id}.cfg.v1alpha.desiredproperties")[0]
    assert time.monotonic() - began > 0.7
    assert request.data == b"" and request.reply.startswith("_INBOX.") and not request.headers


def test_heartbeats_are_empty(hub, host):
    program = host("--heartbeat", "100ms")
    beats = hub.wait(beat_of(program.id), 4)[1:]
    assert all(beat.data == b"" and not beat.headers and not beat.reply for beat in beats)


def test_an_unknown_device_is_told_and_goes_on(hub, api, host):
    name = f"host-{next(ids)}"
    response = api.DeviceReportedPropertiesResponse()
    response.error = "no device found with current targets criteria"
    hub.answers[f"device.{name}.cfg.v1alpha.desiredproperties"] = lambda _: response.SerializeToString()
    program = host("--id", name)
    program.wait_for("no device found with current targets criteria")
    count = len(hub.sent(telemetry_of(name)))
    hub.wait(telemetry_of(name), count + 5)


# ---- Schema ----


def test_schema_request_without_compression(hub, api, host):
    name = host().id
    hello = api.DeviceHello.FromString(unzstd(hub.wait(beat_of(name))[0].data))
    reply = hub.request(f"{name}.v1alpha.schema")
    assert reply.headers == {"mir-msg": "mir_api.v1.SchemaRetrieveResponse"}
    assert api.SchemaRetrieveResponse.FromString(reply.data).schema == hello.hello.schema


def test_schema_request_with_compression(hub, api, host):
    name = host().id
    hello = api.DeviceHello.FromString(unzstd(hub.wait(beat_of(name))[0].data))
    reply = hub.request(f"{name}.v1alpha.schema", mir_request_encoding=ZSTD)
    assert reply.headers == {"mir-msg": "mir_api.v1.SchemaRetrieveResponse", "mir-content-encoding": ZSTD}
    assert api.SchemaRetrieveResponse.FromString(unzstd(reply.data)).schema == hello.hello.schema


def test_unknown_functions_and_garbage_are_ignored(hub, host):
    name = host().id
    hub.wait(beat_of(name))
    for function in ("v1alpha.reboot", "v2.schema", "v1alpha.schema.more", "x", "v1alpha.config", "v1alpha.command"):
        hub.publish(f"{name}.{function}", b"\xff" * 100)
    hub.publish(f"{name}.v1alpha.config", b"x", mir_msg="../../etc", mir_time="2025-01-01T00:00:00Z")
    hub.publish(f"{name}.v1alpha.config", b"x", mir_msg="host.v1.Cpu", mir_time="yesterday")
    assert hub.request(f"{name}.v1alpha.schema").data


# ---- Telemetry ----


def test_readings_decode_with_the_schema_that_the_device_sent(hub, api, host):
    name = host().id
    classes = schema_of(hub, api, name)
    latest = {}
    wait_until(lambda: latest.update({m.headers["mir-msg"]: m for m in hub.sent(telemetry_of(name))})
               or len(latest) == 5, 10 * PATIENCE)
    readings = {key: classes[key].FromString(message.data) for key, message in latest.items()}
    for reading in readings.values():
        assert abs(reading.ts / 1e9 - time.time()) < 30 * PATIENCE
    cpu, memory = readings["host.v1.Cpu"], readings["host.v1.Memory"]
    cores = pathlib.Path("/proc/stat").read_text().count("\ncpu")
    assert len(cpu.core) == cores
    assert all(0 <= value <= 100 for value in (cpu.total, cpu.user, *cpu.core))
    total = int(pathlib.Path("/proc/meminfo").read_text().split()[1]) * 1024
    assert memory.total == total and 0 < memory.used < total
    assert memory.used + memory.available == total
    assert readings["host.v1.Load"].uptime > 0
    assert readings["host.v1.Disk"].root_total > readings["host.v1.Disk"].root_used > 0
    assert "lo" not in readings["host.v1.Network"].interface


def test_rates_come_from_the_files(hub, api, host, tmp_path):
    """A machine made of files: two readings that differ by a known amount."""
    def write(step):
        (tmp_path / "net").mkdir(exist_ok=True)
        texts = {
            "stat": f"cpu {100 + 25 * step} 0 0 {100 + 75 * step}\ncpu0 {100 + 25 * step} 0 0 {100 + 75 * step}\n",
            "net/dev": f"h\nh\neth0: {1000 * step} {step} 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n",
            "diskstats": f"8 0 sda {step} 0 {8 * step} 0 0 0 0 0 0 0 0\n8 1 sda1 {step} 0 {8 * step} 0 0 0 0 0 0 0 0\n",
        }
        for file, text in texts.items():
            fresh = tmp_path / "fresh"
            fresh.write_text(text)
            fresh.rename(tmp_path / file)

    write(1)
    program = host("--proc", tmp_path, "--sys", tmp_path)
    classes = schema_of(hub, api, program.id)

    def readings(kind):
        return [classes[kind].FromString(m.data) for m in hub.sent(telemetry_of(program.id))
                if m.headers["mir-msg"] == kind]

    wait_until(lambda: readings("host.v1.Network"), 10 * PATIENCE)
    assert readings("host.v1.Network")[-1].receive == 0
    write(2)
    wait_until(lambda: any(r.total for r in readings("host.v1.Cpu")), 10 * PATIENCE)
    wait_until(lambda: any(r.receive for r in readings("host.v1.Network")), 10 * PATIENCE)
    wait_until(lambda: any(r.read for r in readings("host.v1.Disk")), 10 * PATIENCE)
    assert max(r.total for r in readings("host.v1.Cpu")) == pytest.approx(25)
    network = max(readings("host.v1.Network"), key=lambda r: r.receive)
    assert network.receive == network.interface["eth0"].receive
    disk = max(readings("host.v1.Disk"), key=lambda r: r.read)
    assert list(disk.device) == ["sda"] and disk.read == disk.device["sda"].read
    # What is not there is said once, and costs only its message.
    assert not readings("host.v1.Memory")
    assert program.text().count("meminfo") == 1


# ---- Connection ----


def test_hello_waits_for_a_server_that_comes_later(hub, api, run):
    gate = Gate()
    program = run(HOST, "--id", "late", "--target", f"nats://127.0.0.1:{gate.port}", "--reconnect-wait", "100ms")
    program.wait_for("no connection")
    gate.open(hub)
    assert hub.wait(beat_of("late"))[0].headers["mir-content"] == "mir-hello"
    assert "host.v1.Cpu" in schema_of(hub, api, "late")
    hub.wait("device.late.cfg.v1alpha.desiredproperties")


def test_the_server_may_restart(own_hub, host):
    hub = own_hub()
    program = host("--heartbeat", "100ms", at=hub)
    hub.wait(f"device.{program.id}.cfg.v1alpha.desiredproperties")
    hub.stop()
    program.wait_for("readings are discarded")
    hub.messages.clear()
    hub.start()
    hub.wait(f"device.{program.id}.cfg.v1alpha.desiredproperties")
    hub.wait(telemetry_of(program.id))
    # No second hello; the schema is there for who asks.
    assert not any(beat.headers for beat in hub.wait(beat_of(program.id), 2))
    assert hub.request(f"{program.id}.v1alpha.schema").data
    assert "connection lost" in program.text() and "reconnected" in program.text()


def test_a_refused_device_says_why(own_hub, run):
    hub = own_hub(arguments=("--auth", "secret"), user={"token": "secret"})
    program = run(HOST, "--target", hub.url, "--reconnect-wait", "100ms")
    program.wait_for("refuses this device")
    assert "uthorization" in program.text(), program.text()
    assert program.stop(signal.SIGTERM)[0] == 0


def test_login_by_target(own_hub, run):
    hub = own_hub(arguments=("--user", "u", "--pass", "pw"), user={"user": "u", "password": "pw"})
    program = run(HOST, "--id", "in", env={"MIR__TARGET": f"nats://u:pw@127.0.0.1:{hub.port}"})
    hub.wait(beat_of("in"))
    assert "pw@" not in program.text()


# ---- The program ----


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_it_at_once(hub, host, number):
    program = host()
    hub.wait(beat_of(program.id))
    status, seconds = program.stop(number)
    assert status == 0 and seconds < STOP_S


def test_a_signal_stops_it_without_a_server(run):
    program = run(HOST, "--target", f"nats://127.0.0.1:{free_port()}")
    program.wait_for("no connection")
    status, seconds = program.stop(signal.SIGTERM)
    assert status == 0 and seconds < STOP_S


def test_a_signal_stops_it_while_an_attempt_hangs(run):
    # A port that takes connections and says nothing.
    with socket.create_server(("127.0.0.1", 0)) as silent:
        program = run(HOST, "--target", f"nats://127.0.0.1:{silent.getsockname()[1]}")
        silent.settimeout(10 * PATIENCE)
        with silent.accept()[0]:
            status, seconds = program.stop(signal.SIGTERM)
    assert status == 0 and seconds < STOP_S


def test_once_sends_one_reading_of_each_kind(hub, host):
    program = host("--once")
    assert program.process.wait(20 * PATIENCE) == 0
    kinds = [message.headers["mir-msg"] for message in hub.wait(telemetry_of(program.id), 5)]
    assert sorted(kinds) == sorted(set(kinds)) and len(kinds) == 5


def test_wrong_usage_has_its_status_and_a_text(run):
    for arguments, text in ((["--id", "a.b"], "must not contain"), (["--target", "nowhere"], "is no target"),
                            (["--interval", "soon"], "takes a duration"), (["--what"], "unknown option")):
        program = run(HOST, *arguments)
        assert program.process.wait(10 * PATIENCE) == 2
        assert text in program.text()


def test_help_and_version(run):
    for flag, text in (("--help", "Examples:"), ("--version", "mir-host ")):
        program = run(HOST, flag)
        assert program.process.wait(10 * PATIENCE) == 0
        assert text in program.text()


# ---- Commands ----


def command(hub, program, kind, data=b"", **headers):
    return hub.request(f"{program.id}.v1alpha.command", data, mir_msg=kind, **headers)


def error_of(program, reply):
    assert reply.headers == {"mir-msg": "mir.device.v1.Error"}
    return program.classes["mir.device.v1.Error"].FromString(reply.data).message


def test_a_command_is_answered_by_its_handler(hub, thermostat):
    program = thermostat()
    boost = program.classes["thermostat.v1.Boost"](minutes=10)
    reply = command(hub, program, "thermostat.v1.Boost", boost.SerializeToString())
    assert reply.headers == {"mir-msg": "thermostat.v1.BoostStarted"}
    until = program.classes["thermostat.v1.BoostStarted"].FromString(reply.data).until
    assert abs(until - time.time() - 600) < 10 * PATIENCE


def test_an_answer_is_compressed_for_who_asks(hub, thermostat):
    program = thermostat()
    boost = program.classes["thermostat.v1.Boost"](minutes=10).SerializeToString()
    reply = command(hub, program, "thermostat.v1.Boost", boost, mir_request_encoding=ZSTD)
    assert reply.headers == {"mir-msg": "thermostat.v1.BoostStarted", "mir-content-encoding": ZSTD}
    assert program.classes["thermostat.v1.BoostStarted"].FromString(unzstd(reply.data)).until


def test_refused_commands_say_why(hub, thermostat):
    program = thermostat()
    refused = {
        ("thermostat.v1.Boost", b""): "device error in command handler: minutes must be between 1 and 120",
        ("thermostat.v1.Boost", b"\x0a\xff"): "device error while unmarshalling command payload: ",
        ("thermostat.v1.Climate", b""): "device error: no handler for command thermostat.v1.Climate found",
        ("no.v1.Such", b""): "device error while looking for command descriptor: ",
    }
    for (kind, data), text in refused.items():
        reply = command(hub, program, kind, data, mir_request_encoding=ZSTD)
        assert error_of(program, reply).startswith(text)


# ---- Properties ----


def target(program_or_classes, temperature):
    classes = getattr(program_or_classes, "classes", program_or_classes)
    return classes["thermostat.v1.Target"](temperature=temperature).SerializeToString()


def reports(hub, program):
    return [program.classes["thermostat.v1.TargetStatus"].FromString(message.data).temperature
            for message in hub.sent(reported_of(program.id))]


def encoded(temperature):
    return b"\x09" + struct.pack("<d", temperature)


def test_a_known_value_reaches_the_handler_at_launch(hub, thermostat):
    program = thermostat({"thermostat.v1.Target": ("2025-01-01T00:00:00.5Z", encoded(21))})
    report = hub.wait(reported_of(program.id))[0]
    assert report.headers == {"mir-msg": "thermostat.v1.TargetStatus"}
    assert reports(hub, program) == [21]


def push(hub, program, temperature, when):
    hub.publish(f"{program.id}.v1alpha.config", target(program, temperature), mir_msg="thermostat.v1.Target",
                mir_time=when)


def test_only_newer_values_reach_the_handler(hub, thermostat):
    program = thermostat({"thermostat.v1.Target": ("2025-01-01T00:00:00.5Z", encoded(21))})
    hub.wait(reported_of(program.id))
    push(hub, program, 5, "2024-01-01T00:00:00Z")
    push(hub, program, 6, "2025-01-01T00:00:00.5Z")
    push(hub, program, 7, "not a time")
    push(hub, program, 22, "2025-01-01T00:00:00.500000001Z")
    push(hub, program, 8, "2025-01-01T00:00:00.5Z")
    push(hub, program, 23, "2025-01-02T01:00:00+01:00")
    hub.wait(reported_of(program.id), 3)
    assert reports(hub, program) == [21, 22, 23]


def test_after_a_reconnection_the_handler_is_called_again(own_hub, thermostat):
    hub = own_hub()
    program = thermostat({"thermostat.v1.Target": ("2025-01-01T00:00:00Z", encoded(20))}, at=hub)
    hub.wait(reported_of(program.id))
    hub.stop()
    hub.messages.clear()
    hub.start()
    hub.wait(reported_of(program.id), timeout=15)
    assert reports(hub, program) == [20]


# ---- The host's commands and its property ----


def ask_host(hub, api, program, kind, **fields):
    classes = schema_of(hub, api, program.id)
    reply = hub.request(f"{program.id}.v1alpha.command", classes[f"host.v1.{kind}"](**fields).SerializeToString(),
                        mir_msg=f"host.v1.{kind}")
    assert reply.headers["mir-msg"].startswith("host.v1."), reply.data
    return classes[reply.headers["mir-msg"]].FromString(reply.data)


def test_ping_is_answered_with_time_and_uptime(hub, api, host):
    pong = ask_host(hub, api, host(), "Ping")
    assert pong.DESCRIPTOR.full_name == "host.v1.Pong"
    when = datetime.datetime.fromisoformat(re.sub(r"\.\d+", "", pong.time).replace("Z", "+00:00"))
    assert abs(when.timestamp() - time.time()) < 10 * PATIENCE
    assert abs(pong.uptime - time.clock_gettime(time.CLOCK_BOOTTIME)) < 10 * PATIENCE
    assert 0 <= pong.agent_uptime < 60 * PATIENCE


def test_top_processes_finds_the_one_that_works(hub, api, host, run):
    program = host()
    hub.wait(beat_of(program.id))
    busy = run("sh", "-c", "while :; do :; done")
    top = ask_host(hub, api, program, "TopProcesses", count=5)
    assert top.DESCRIPTOR.full_name == "host.v1.Processes"
    assert len(top.process) == 5 <= top.total
    shares = [process.cpu for process in top.process]
    assert shares == sorted(shares, reverse=True) and shares[0] > 0

    def found():
        all_of_them = ask_host(hub, api, program, "TopProcesses", count=100).process
        return [process for process in all_of_them if process.pid == busy.process.pid and process.cpu > 0]

    process = wait_until(found, 20 * PATIENCE)[0]
    assert process.name == "sh" and process.memory > 0


def test_top_processes_is_bounded(hub, api, host):
    program = host()
    assert len(ask_host(hub, api, program, "TopProcesses").process) <= 10
    assert len(ask_host(hub, api, program, "TopProcesses", count=4_000_000_000).process) <= 100


def test_top_processes_says_what_it_cannot_read(hub, api, host, tmp_path):
    program = host("--proc", tmp_path / "nothing")
    hub.wait(beat_of(program.id))
    reply = hub.request(f"{program.id}.v1alpha.command", b"", mir_msg="host.v1.TopProcesses")
    assert reply.headers["mir-msg"] == "mir.device.v1.Error"
    assert b"device error in command handler: open " in reply.data


def intervals(hub, api, program):
    classes = schema_of(hub, api, program.id)
    return [classes["host.v1.Sampling"].FromString(message.data).interval_ms
            for message in hub.sent(reported_of(program.id)) if message.headers["mir-msg"] == "host.v1.Sampling"]


@pytest.fixture
def sampling(hub, api, host):
    """mir-host, through with its launch: sampling(interval known to the server or None, more options)."""
    def start(interval_ms=None, *arguments):
        name = f"host-{next(ids)}"
        response = api.DeviceReportedPropertiesResponse()
        response.ok.SetInParent()
        if interval_ms is not None:
            response.ok.properties["host.v1.Sampling"].time = "2025-01-01T00:00:00Z"
            response.ok.properties["host.v1.Sampling"].property = varint_field(interval_ms)
        hub.answers[f"device.{name}.cfg.v1alpha.desiredproperties"] = lambda _: response.SerializeToString()
        program = host("--id", name, *arguments)
        program.id = name
        return program

    return start


def varint_field(value):
    data = b"\x08"
    while value > 0x7F:
        data += bytes([value & 0x7F | 0x80])
        value >>= 7
    return data + bytes([value])


def desire(hub, program, interval_ms, when):
    hub.publish(f"{program.id}.v1alpha.config", varint_field(interval_ms), mir_msg="host.v1.Sampling", mir_time=when)


def test_the_interval_is_reported_at_start(hub, api, sampling):
    program = sampling(None, "--interval", "700ms")
    hub.wait(reported_of(program.id))
    assert intervals(hub, api, program) == [700]


def test_a_known_interval_is_in_force_from_the_start(hub, api, sampling):
    program = sampling(300, "--interval", "1h")
    wait_until(lambda: 300 in intervals(hub, api, program), 20 * PATIENCE)
    hub.wait(telemetry_of(program.id), 10)


def test_nobody_has_set_the_interval(hub, api, sampling):
    # A property's default is zero.
    program = sampling(0, "--interval", "900ms")
    hub.wait(reported_of(program.id))
    desire(hub, program, 200, "2025-01-02T00:00:00Z")
    wait_until(lambda: intervals(hub, api, program)[-1] == 200, 10 * PATIENCE)
    desire(hub, program, 0, "2025-01-03T00:00:00Z")
    wait_until(lambda: intervals(hub, api, program)[-1] == 900, 10 * PATIENCE)
    assert set(intervals(hub, api, program)) == {900, 200}


def test_an_interval_out_of_range_is_clamped_and_reported_so(hub, api, sampling):
    program = sampling()
    hub.wait(reported_of(program.id))
    for day, (wanted, told) in enumerate(((1, 100), (4_000_000_000, 3_600_000), (99, 100), (3_600_001, 3_600_000)), 1):
        desire(hub, program, wanted, f"2025-01-{day:02d}T00:00:00Z")
        wait_until(lambda told=told: intervals(hub, api, program)[-1] == told, 10 * PATIENCE)


def test_a_new_interval_does_not_wait_for_the_old_one(hub, api, sampling):
    program = sampling(None, "--interval", "1h")
    hub.wait(reported_of(program.id))
    assert not hub.sent(telemetry_of(program.id))
    desire(hub, program, 100, "2025-01-01T00:00:00Z")
    hub.wait(telemetry_of(program.id), 15)
    desire(hub, program, 3_600_000, "2025-01-02T00:00:00Z")
    wait_until(lambda: intervals(hub, api, program)[-1] == 3_600_000, 10 * PATIENCE)
    # The report came from the thread that takes readings: none is under way.
    count = len(hub.sent(telemetry_of(program.id)))
    desire(hub, program, 0, "2025-01-03T00:00:00Z")
    wait_until(lambda: len(intervals(hub, api, program)) >= 4, 10 * PATIENCE)
    assert len(hub.sent(telemetry_of(program.id))) == count


def test_after_a_reconnection_the_interval_is_reported_again(own_hub, api, host):
    hub = own_hub()
    name = f"host-{next(ids)}"
    response = api.DeviceReportedPropertiesResponse()
    response.ok.properties["host.v1.Sampling"].time = "2025-01-01T00:00:00Z"
    response.ok.properties["host.v1.Sampling"].property = varint_field(400)
    hub.answers[f"device.{name}.cfg.v1alpha.desiredproperties"] = lambda _: response.SerializeToString()
    program = host("--id", name, at=hub)
    program.id = name
    hub.wait(reported_of(name))
    classes = schema_of(hub, api, name)
    hub.stop()
    hub.messages.clear()
    hub.start()
    report = hub.wait(reported_of(name), timeout=20)[0]
    assert classes["host.v1.Sampling"].FromString(report.data).interval_ms == 400


def test_state_goes_where_it_is_told_to(hub, host, tmp_path):
    program = host("--state", tmp_path / "there")
    hub.wait(beat_of(program.id))
    assert (tmp_path / "there" / program.id / "commands").exists()


def test_state_that_was_not_named_is_below_the_home(hub, run, tmp_path):
    run(HOST, "--id", "homely", "--target", hub.url, env={"XDG_STATE_HOME": "", "HOME": str(tmp_path)})
    hub.wait(beat_of("homely"))
    assert (tmp_path / ".local" / "state" / "mir-host" / "homely" / "commands").exists()


def test_a_named_state_directory_must_be_usable(run, tmp_path):
    (tmp_path / "file").write_text("")
    program = run(HOST, "--state", tmp_path / "file" / "below")
    assert program.process.wait(10 * PATIENCE) == 1
    assert "Not a directory" in program.text()


def test_without_a_usable_home_it_runs_and_says_so(hub, run, tmp_path):
    (tmp_path / "file").write_text("")
    program = run(HOST, "--id", "homeless", "--target", hub.url,
                  env={"XDG_STATE_HOME": str(tmp_path / "file"), "HOME": "/nonexistent"})
    hub.wait(beat_of("homeless"))
    assert "known as long as this process lives" in program.text()
