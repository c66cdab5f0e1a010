# SPDX-License-Identifier: Apache-2.0
"""Telemetry goes after its time: by namespace, by message, and that of deleted devices."""

import os
import random
import subprocess
import time

import pytest
from bus import DEADLINE_S, Bus, seconds_ago
from load import status_of
from test_telemetry import SAMPLES, SECOND_NS, Kind, launch_device, query, report, rows_of

from wire import let_pass, wait_until

RULES = """[
    {message: "*.v1.Wind", age: 0}, {namespace: short-*, age: 8s}, {deleted: true, age: 4s}]"""

NO_ROLLUPS = {f"telemetry.rollup.{step}": "off" for step in ("1m", "10m", "1h")}
HOUR_NS = 3600 * SECOND_NS
ROUNDS = 20


@pytest.fixture
def weather(name):
    return Kind(SAMPLES, f"weather_{name}")


def rows(bus, device, measurement):
    return len(query(bus, device, measurement, 1, time.time_ns() + SECOND_NS).rows)


def rules_of(bus):
    return [(r.namespace, r.message, r.deleted, r.keep_seconds) for r in bus.ask("tlm.retention").rules]


def test_telemetry_goes_after_its_time(launch, loop, name, weather):
    server = launch({"telemetry.retention.rules": RULES, "telemetry.retention.age": "1000d", **NO_ROLLUPS})
    bus = Bus(loop, server)
    assert rules_of(bus) == [
        ("", "*.v1.Wind", False, 0), ("short-*", "", False, 8), ("", "", True, 4), ("", "", False, 86400000)]
    sample, wind = weather.name("Sample"), weather.name("Wind")
    short, long, moved, gone = (f"{name}-{which}" for which in ("short", "long", "moved", "gone"))
    for device, namespace in ((short, "short-1"), (long, "long"), (moved, "long"), (gone, "long")):
        bus.create(device, namespace=namespace)
        launch_device(bus, device, weather)
        now_ns = time.time_ns()
        report(bus, device, *[weather.Sample(ts=now_ns - n * SECOND_NS, pressure=n) for n in range(60, 90)])
        report(bus, device, *[weather.Wind(ts=now_ns - n * SECOND_NS, gusts=[n]) for n in range(60, 90)])
    wait_until(lambda: rows(bus, short, sample) == 0, DEADLINE_S, "its time is over")
    assert [rows(bus, device, sample) for device in (long, moved, gone)] == [30, 30, 30]

    # A device that moves comes under the rule of where it is; one that is deleted under that of such.
    bus.ask("core.update", targets={"ids": [moved]}, meta={"namespace": "short-2"})
    bus.ask("core.delete", targets={"ids": [gone]})
    bus.close()
    server.stop()  # It would be seen within the hour; a start looks at once.
    server.start()
    bus = Bus(loop, server)
    wait_until(lambda: rows(bus, moved, sample) == 0, DEADLINE_S, "it has moved")
    told = wait_until(lambda: (t := bus.ask("tlm.retention")).rules[2].rows_removed >= 30 and t, DEADLINE_S, "it was deleted")
    assert [rule.rows_removed for rule in told.rules] == [0, 60, 30, 0]  # half of them before the start
    assert 0 < seconds_ago(told.counted_since) < DEADLINE_S
    assert told.bytes_removed > 0 and told.rows_removed_size == 0 and not told.HasField("size_max")
    assert seconds_ago(told.last_removal) < DEADLINE_S and seconds_ago(told.last_run) < DEADLINE_S
    bus.create(gone)
    assert rows(bus, gone, sample) == 0
    assert [rows(bus, device, wind) for device in (short, long, moved, gone)] == [30] * 4
    assert rows(bus, long, sample) == 30

    # What is too old when it comes goes in the same way, and the server starts with what is left.
    report(bus, short, weather.Sample(ts=time.time_ns() - 100 * SECOND_NS, pressure=1))
    wait_until(lambda: rows(bus, short, sample) == 0, DEADLINE_S, "it came too late")
    bus.close()
    server.stop()
    server.start()
    bus = Bus(loop, server)
    assert [rows(bus, device, sample) for device in (short, long, moved)] == [0, 30, 0]
    assert [rows(bus, device, wind) for device in (short, long, moved)] == [30] * 3
    bus.close()


def test_what_rows_came_to_stays_when_they_go(launch, loop, name, weather):
    """Hours that are past the age are answered as if their rows were there, where rollups can tell."""
    server = launch({"telemetry.retention.age": "2h", "telemetry.retention.rules": "[{message: '*.v1.Wind', age: 2h, rollup: false}]"})
    bus = Bus(loop, server)
    launch_device(bus, name, weather)
    sample = weather.name("Sample")
    now_ns = time.time_ns()
    first_ns = (now_ns // HOUR_NS - 30) * HOUR_NS
    stamps = [first_ns + n * 20 * SECOND_NS for n in range(26 * 180)] + [now_ns - 60 * SECOND_NS]
    wind = [weather.Wind(ts=at_ns, gusts=[3]) for at_ns in stamps[::10]]
    report(bus, name, *[weather.Sample(ts=at_ns, pressure=n, temperature=n / 4, raining=n % 2 == 0, note="dry")
                        for n, at_ns in enumerate(stamps)], *wind)

    def ask(**how):
        return query(bus, name, sample, first_ns, now_ns, **how)

    functions = ["count", "mean", "min", "max", "sum", "first", "last"]
    asked = [{"functions": functions, "aggregation_window": window} for window in ("1m", "10m", "1h", "3h", "1d")]
    before = [rows_of(ask(**how)) for how in asked]
    # The last hours are in no segment yet, or were late: a start seals what there is.
    bus.close()
    server.stop()
    server.start()
    bus = Bus(loop, server)
    told = wait_until(lambda: (t := bus.ask("tlm.retention")).rules[1].rows_removed >= 26 * 180 and t, DEADLINE_S, "they went")
    assert [(r.step_seconds, r.keep_seconds, r.rows) for r in told.rollups] == [
        (60, 90 * 86400, 26 * 60), (600, 365 * 86400, 26 * 6), (3600, 1825 * 86400, 26)]
    assert told.rules[0].rollup is False and told.rollup_bytes > 0
    for how, rows in zip(asked, before):
        table = ask(**how)
        assert rows_of(table) == rows and not table.HasField("rollups_until")
    # What they cannot tell is said: rows as they are, percentiles, windows within minutes.
    until = first_ns // SECOND_NS + 26 * 3600
    for how in ({}, {"functions": ["p50"], "aggregation_window": "1h"}, {"functions": ["count"], "aggregation_window": "30s"}):
        table = ask(**how)
        assert until - 60 <= table.rollups_until.seconds <= until, how
    assert len(ask().rows) == 1
    wind = query(bus, name, weather.name("Wind"), first_ns, now_ns, functions=["count"], aggregation_window="1d")
    assert len(rows_of(wind)) <= 1 and not wind.HasField("rollups_until")
    listed = bus.ask("tlm.list", targets={"ids": [name]}).devices_telemetry[0].tlm_descriptors
    assert sorted(d.name for d in listed) == [sample, weather.name("Wind")]
    bus.close()


def test_a_clock_that_is_ahead_removes_nothing_until_it_is_believed(launch, loop, name, weather):
    """What was known last is a year ago: then the clock is a year ahead, or the server was away for a year."""
    server = launch(NO_ROLLUPS)
    bus = Bus(loop, server)
    launch_device(bus, name, weather)
    then_ns = time.time_ns() - 365 * 24 * HOUR_NS
    report(bus, name, *[weather.Sample(ts=then_ns - n * SECOND_NS, pressure=n) for n in range(30)])

    def told():
        return bus.ask("tlm.retention")

    def stored():
        return len(query(bus, name, weather.name("Sample"), 1, time.time_ns() + SECOND_NS).rows)

    assert stored() == 30
    for start in range(2):
        bus.close()
        server.stop()
        if start == 0:
            (server.folder / "data" / "telemetry" / "CLOCK").unlink()
        server.settings["telemetry.retention.age"] = "30d"
        server.start()
        bus = Bus(loop, server)
        sealed = wait_until(lambda: (t := told()).rows == 30 and t, DEADLINE_S, "they are in a segment")
        wait_until(lambda: told().last_run.seconds > sealed.last_run.seconds + 1, DEADLINE_S, "retention looked at it")
        assert told().rows == stored() == 30
        ahead, = [one for one in status_of(server)["problems"] if one["kind"] == "clock ahead"]
        assert "365.0 days ahead" in ahead["text"]
    bus.close()
    server.stop()
    server.settings["telemetry.retention.clock_wait"] = "0"
    server.start()
    bus = Bus(loop, server)
    wait_until(lambda: stored() == 0, DEADLINE_S, "the clock is right")
    assert not [one for one in status_of(server)["problems"] if one["kind"] == "clock ahead"]
    events = wait_until(lambda: bus.ask("evt.list", target={"reasons": ["ClockAhead"]}).events, DEADLINE_S, "an event")
    assert len(events) == 2 and all("365 days ahead" in event.spec.message for event in events)
    bus.close()


def test_kills_while_rows_go_lose_and_double_nothing(launch, loop, name, weather):
    """Rows of hours that are past their age come again and again: a start seals, removes and rolls them up."""
    seed = int(os.environ.get("MIR_TEST_SEED", random.SystemRandom().randrange(1 << 32)))
    print(f"MIR_TEST_SEED={seed}")
    dice = random.Random(seed)
    server = launch({"telemetry.retention.age": "2h"})
    bus = Bus(loop, server)
    launch_device(bus, name, weather)
    sample = weather.name("Sample")
    first_ns = (time.time_ns() // HOUR_NS - 40) * HOUR_NS
    until_ns = first_ns + 30 * HOUR_NS
    total = rolled = 0
    for n in range(ROUNDS):
        batch = [first_ns + dice.randrange(30 * 3600) * SECOND_NS + n for _ in range(60)]
        batch = sorted(set(batch))
        report(bus, name, *[weather.Sample(ts=at_ns, pressure=7) for at_ns in batch])
        total += len(batch)
        counts = query(bus, name, sample, first_ns, until_ns, functions=["count", "sum"], fields=["pressure"], aggregation_window="1h")
        found = [sum(column) for column in list(zip(*rows_of(counts)))[2:]]
        assert found == [total, 7 * total] and not counts.HasField("rollups_until"), n
        rolled += bus.ask("tlm.retention").rollups[2].rows > 0
        let_pass(dice.random() * 0.1)  # Where the kill comes is to be anywhere.
        bus.close()
        server.kill()
        server.start()
        bus = Bus(loop, server)
    assert rolled > 0
    bus.close()


@pytest.mark.parametrize("rules, says", [
    ("[{namespace: plant}]", "telemetry.retention.rules: a rule has no age"),
    ("[{namspace: plant, age: 1d}]", 'unknown key "namspace"'),
    ("[{deleted: true, namespace: a, age: 1d}]", "has no namespace"),
    ("[{age: 1d}, {message: a, age: 2d}]", "rule 1 fits everything"),
    ("{age: 1d}", "expected a list"),
])
def test_bad_rules_are_told_at_the_start(tmp_path, rules, says):
    ended = subprocess.run(
        [os.environ["MIR_BIN"], "serve", "--data", tmp_path / "data", "--listen", "127.0.0.1:0", "--set", f"telemetry.retention.rules={rules}"],
        capture_output=True, text=True, timeout=DEADLINE_S, check=False)
    assert ended.returncode != 0 and says in ended.stderr
