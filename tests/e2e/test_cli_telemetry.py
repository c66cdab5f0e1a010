# SPDX-License-Identifier: Apache-2.0
"""Telemetry asked for at the command line, of a server: functions, groups, pages, points, charts."""

import csv
import fcntl
import io
import json
import os
import pty
import select
import signal
import struct
import subprocess
import termios
import time

import pytest
from test_telemetry import CHANGING, SECOND_NS, START_NS, Kind, launch_device, report, samples, weather  # noqa: F401
from test_telemetry_functions import BASE, pressures

from wire import PATIENCE, wait_until

BINARY = os.environ.get("MIR_BIN", "build/dev/bin/mir")
RANGE = ["--from", str(BASE // SECOND_NS), "--to", str(BASE // SECOND_NS + 7200)]


def run(server, *args, **env):
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MIR_TARGET": f"127.0.0.1:{server.port}",
                   "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""), **env}
    return subprocess.run([BINARY, "telemetry", *args], stdin=subprocess.DEVNULL, capture_output=True, text=True,
                          timeout=20 * PATIENCE, env=environment)


def rows(result):
    assert result.returncode == 0, result.stderr
    return list(csv.reader(io.StringIO(result.stdout)))


def ask(server, kind, *args):
    return run(server, "query", "-m", kind.name("Sample"), *RANGE, "-o", "csv", *args)


@pytest.fixture
def device(bus, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    return name


def test_functions_of_windows(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5, 1, 9, 5], every_s=10))
    report(bus, device, *pressures(weather, [7], first=BASE + 60 * SECOND_NS))
    got = rows(ask(server, weather, device, "-f", "pressure", "--agg", "max,p50", "--every", "1m"))
    assert got[0][1:] == ["__id", "max(pressure)", "p50(pressure)"]
    assert [[float(each) for each in row[2:]] for row in got[1:]] == [[9, 5], [7, 7]]
    assert rows(ask(server, weather, device, "-f", "pressure", "-w", "1m", "-a", "max,p50")) == got
    assert rows(ask(server, weather, device, "-f", "pressure", "--window", "1m", "-a", "max,p50")) == got


def test_the_last_value_of_each_device_and_of_groups(server, bus, name, weather):  # noqa: F811
    fleet = [f"{name}-{n}" for n in range(3)]
    for n, each in enumerate(fleet):
        bus.create(each, namespace=f"{name}-hall", labels={"floor": str(n // 2)})
        launch_device(bus, each, weather)
        report(bus, each, *pressures(weather, range(n, n + 5)))
    space = ["--namespace", f"{name}-hall", "-f", "pressure"]
    assert sorted(row[1:] for row in rows(ask(server, weather, *space, "--last"))[1:]) == [
        [each, str(n + 4)] for n, each in enumerate(fleet)]
    grouped = rows(ask(server, weather, *space, "--agg", "count", "--group-by", "label:floor"))
    assert grouped[0][1] == "__label_floor"
    assert sorted(row[1:] for row in grouped[1:]) == [["0", "10"], ["1", "5"]]
    table = run(server, "query", "-m", weather.name("Sample"), *RANGE, *space, "--agg", "count", "--group-by", "all")
    assert table.stdout.split()[:3] == ["TIME", "GROUP", "pressure"]


def test_the_latest_rows_and_a_cursor_to_older_ones(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, range(10)))
    first = ask(server, weather, device, "-f", "pressure", "--limit", "4")
    assert [row[2] for row in rows(first)[1:]] == ["6", "7", "8", "9"]
    assert "There are older rows: go on with --cursor " in first.stderr
    cursor = first.stderr.split("--cursor ")[1].strip()
    older = ask(server, weather, device, "-f", "pressure", "--limit", "8", "--desc", "--cursor", cursor)
    assert [row[2] for row in rows(older)[1:]] == ["5", "4", "3", "2", "1", "0"]
    assert older.stderr == ""
    assert [row[2] for row in rows(ask(server, weather, device, "-f", "pressure", "--desc"))[1:]] == [
        str(n) for n in reversed(range(10))]


def test_any_number_of_rows_simply_works(shared, connect, name, weather):  # noqa: F811
    server = shared({"limits.max_payload": "64KiB"})
    bus = connect(server)
    launch_device(bus, name, weather)
    report(bus, name, *samples(weather, 4500))
    asked = ["query", name, "-m", weather.name("Sample"), "--from", str(START_NS // SECOND_NS), "--to", "now"]
    got = rows(run(server, *asked, "-o", "csv"))
    at = got[0].index("pressure")
    assert [int(float(row[at])) for row in got[1:]] == [1000 + n for n in range(4500)]
    answer = json.loads(run(server, *asked, "-o", "json", "--limit", "3000").stdout)
    assert [row["note"] for row in answer["rows"]] == [f"n{n}" for n in range(1500, 4500)]
    assert len(run(server, *asked, "-f", "note").stdout.splitlines()) == 4501


def test_pages_with_other_columns_are_one_answer(shared, connect, name, weather):  # noqa: F811
    server = shared({"limits.max_payload": "64KiB"})
    bus = connect(server)
    launch_device(bus, name, weather)
    long = "x" * 100
    report(bus, name, *[weather.Sample(ts=START_NS + n * SECOND_NS, note=long, pressure=n) for n in range(1000)])
    report(bus, name, *[weather.Sample(ts=START_NS + (1000 + n) * SECOND_NS, pressure=n) for n in range(1000)])
    got = rows(run(server, "query", name, "-m", weather.name("Sample"), "--from", str(START_NS // SECOND_NS),
                   "--to", "now", "-f", "note,pressure", "-o", "csv"))
    assert len(got) == 2001
    assert {len(row) for row in got} == {4}
    assert got[1][got[0].index("note")] == long
    assert [int(float(row[got[0].index("pressure")])) for row in got[1:]] == [*range(1000), *range(1000)]


def test_points_keep_the_course(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [0] * 50 + [99] + [0] * 50))
    got = rows(ask(server, weather, device, "-f", "pressure", "--points", "9"))
    assert len(got) == 10 and "99" in [row[2] for row in got[1:]]


@pytest.mark.parametrize(
    "options, says, code",
    [
        (["--agg", "median"], "there is no function 'median'", 1),
        (["--group-by", "all"], "--group-by needs to know what rows come to", 2),
        (["--group-by", "house", "--agg", "max"], "rows cannot be grouped by 'house'", 1),
        (["--last", "--every", "1m"], "--last is the newest value of each device", 2),
        (["--points", "0"], "--points is a number of rows from 1, not '0'", 2),
        (["--points", "5", "--limit", "5"], "--points are of the whole range", 2),
        (["--cursor", "x", "--every", "1m"], "--cursor and --points are for rows as they are", 2),
        (["--cursor", "x"], "this is no cursor", 1),
    ],
)
def test_what_does_not_go_together_is_said(server, bus, device, weather, options, says, code):  # noqa: F811
    result = ask(server, weather, device, *options)
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr


def plot(server, kind, *args, **env):
    return run(server, "plot", "-m", kind.name("Sample"), *RANGE, *args, **{"TZ": "UTC", **env})


def points_of(server, kind, *args):
    result = plot(server, kind, *args, "-o", "json")
    assert result.returncode == 0, result.stderr
    return json.loads(result.stdout)["series"]


def marks(text, letters):
    """How many characters of the canvas are one of these."""
    canvas = [line.split("|", 1)[-1] if "|" in line else line.split("+", 1)[-1] for line in text.splitlines()[1:-3]]
    return sum(line.count(letter) for line in canvas for letter in letters)


def test_a_chart_has_axes_and_the_course(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [1000 + n for n in range(101)], every_s=60))
    result = plot(server, weather, device, "-f", "pressure")
    lines = result.stdout.splitlines()
    assert (result.returncode, result.stderr, len(lines)) == (0, "", 20)
    assert max(len(line) for line in lines) <= 80
    assert lines[0].startswith(f"{device}/default  {weather.name('Sample')} pressure")
    assert [line.split("┤")[0].strip() for line in lines if "┤" in line] == ["1100", "1080", "1060", "1040", "1020", "1000"]
    assert lines[-2].split()[0] == "UTC" and lines[-1] == "pressure  last 1100 hPa"
    assert sum(0x2800 < ord(each) < 0x2900 for each in result.stdout) > 50
    wide = plot(server, weather, device, "-f", "pressure", "--min", "0", "--max", "1e3").stdout.splitlines()
    labels = [line.split("┤")[0].strip() for line in wide if "┤" in line]
    assert (labels[0], labels[-1]) == ("1250", "0")
    small = plot(server, weather, device, "-f", "pressure", "--width", "50", "--height", "10").stdout.splitlines()
    assert len(small) == 10 and max(len(line) for line in small) <= 50


@pytest.mark.parametrize("options, env", [(["--ascii"], {}), ([], {"LC_ALL": "C"}), ([], {"LANG": "de_DE.ISO-8859-1"})])
def test_a_chart_can_do_without_utf8(server, bus, device, weather, options, env):  # noqa: F811
    report(bus, device, *pressures(weather, range(50), every_s=100))
    result = plot(server, weather, device, "-f", "pressure", *options, **env)
    assert result.returncode == 0 and result.stdout.isascii() and marks(result.stdout, "*") > 30


def test_series_of_a_chart_are_told_apart(server, bus, name, weather):  # noqa: F811
    for n in range(3):
        launch_device(bus, f"{name}-{n}", weather)
        report(bus, f"{name}-{n}", *pressures(weather, [10 * n + i % 5 for i in range(60)], every_s=100))
    result = plot(server, weather, "--id", f"{name}-*", "-f", "pressure")
    legend = result.stdout.split("UTC")[1].split("\n", 1)[1].split()
    assert [[mark, legend[legend.index(mark) + 1]] for mark in "*+x"] == [
        [mark, f"{name}-{n}/default"] for n, mark in enumerate("*+x")]
    for mark in "*+x":
        assert marks(result.stdout, mark) > 10
    unlabelled = plot(server, weather, "--id", f"{name}-*", "-f", "pressure", "--agg", "max", "--group-by", "label:hall")
    assert unlabelled.stdout.startswith("(none)  ")
    together = points_of(server, weather, "--id", f"{name}-*", "-f", "pressure", "--agg", "max", "--every", "1h", "--group-by", "all")
    assert [[value for _, value in each["points"]] for each in together] == [[24, 24]]


def test_a_gap_in_the_data_is_a_gap_in_the_chart(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5] * 200, every_s=10))
    report(bus, device, *pressures(weather, [5] * 200, first=BASE + 5200 * SECOND_NS, every_s=10))
    chart = plot(server, weather, device, "-f", "pressure", "--ascii").stdout
    course = next(line for line in chart.splitlines() if line.count("*") > 10)
    left, hole, right = course.partition(" " * 20)
    assert hole and "*" in left and "*" in right
    windows = plot(server, weather, device, "-f", "pressure", "--every", "1m", "--ascii").stdout
    assert " " * 20 in next(line for line in windows.splitlines() if line.count("*") > 10).split("*", 1)[1]


def test_windows_that_are_shorter_than_rows_are_apart_are_one_line(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5] * 70, every_s=100))
    for windows in (["--every", "30s"], ["--every", "100s"], ["--agg", "max"]):
        chart = plot(server, weather, device, "-f", "pressure", *windows, "--ascii").stdout
        assert max(line.count("*") for line in chart.splitlines()) > 65


def test_the_points_of_a_chart_are_as_many_as_it_can_show(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [n % 17 for n in range(2000)], every_s=3))
    for width in (30, 100):
        [series] = points_of(server, weather, device, "-f", "pressure", "--width", str(width))
        assert series["field"] == "pressure" and series["device"] == f"{device}/default"
        assert len(series["points"]) == 2 * width
        assert {value for _, value in series["points"]} <= set(range(17))


@pytest.mark.parametrize(
    "options, says, code",
    [
        (["-f", "note"], "is no number (string) and cannot be drawn", 1),
        (["-f", "note", "--agg", "last"], "is no number (string) and cannot be drawn", 1),
        (["-f", "pressure,note"], "is no number (string) and cannot be drawn", 1),
        (["-f", "raining"], "is true or false: --agg last --every 10s draws it as 1 and 0", 1),
        (["-f", "presure"], "has no field 'presure'; did you mean 'pressure'?", 1),
        (["--width", "20"], "--width is a number of columns from 30 to 1000, not '20'", 2),
        (["--min", "low"], "--min is a number, not 'low'", 2),
        (["--max", "inf"], "--max is a number, not 'inf'", 2),
        (["--min", "5", "--max", "4"], "--min is below --max", 2),
        (["--height", "x"], "--height is a number of lines from 7 to 500, not 'x'", 2),
        (["--group-by", "all"], "--group-by needs to know what rows come to", 2),
        (["--follow", "-f", "pressure"], "--follow ends now: leave --to out", 2),
        (["--agg", "median"], "there is no function 'median'", 1),
    ],
)
def test_what_cannot_be_drawn_is_said(server, bus, device, weather, options, says, code):  # noqa: F811
    report(bus, device, *[weather.Sample(ts=BASE + n * SECOND_NS, pressure=n, note="calm", raining=n > 4) for n in range(9)])
    result = plot(server, weather, device, *options)
    assert (result.returncode, result.stdout) == (code, "")
    assert says in result.stderr


def test_a_chart_of_nothing_says_what_to_do(server, bus, device, weather):  # noqa: F811
    result = plot(server, weather, device, "-f", "pressure")
    assert (result.returncode, result.stdout) == (0, "")
    assert "No data of" in result.stderr and "--since 24h" in result.stderr
    wrong = run(server, "plot", device, "-m", "weather.v1.Nothing")
    assert wrong.returncode == 1 and "none of these devices measures 'weather.v1.Nothing'" in wrong.stderr
    nobody = plot(server, weather, "nobody-at-all")
    assert nobody.returncode == 1 and "no device matches" in nobody.stderr


def test_a_table_of_windows_can_have_sparklines(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, range(8), every_s=60))
    asked = ["query", device, "-m", weather.name("Sample"), *RANGE, "-f", "pressure", "--every", "1m"]
    plain, drawn = run(server, *asked), run(server, *asked, "--sparkline")
    assert drawn.stdout == plain.stdout + "\npressure  ▁▂▃▄▅▆▇█\n"
    assert run(server, *asked, "--sparkline", LC_ALL="C").stdout.endswith("\npressure  _.,-=+*#\n")
    # The last window, which is not over, has its place like the others.
    begun = [str(BASE // SECOND_NS + 60 * 6 + 20) if option == RANGE[3] else option for option in asked]
    assert run(server, *begun, "--sparkline").stdout.endswith("\npressure  ▁▂▃▅▆▇█\n")
    assert run(server, *asked, "--sparkline", "-o", "csv").returncode == 2


def test_true_and_false_can_be_drawn(server, bus, device, weather):  # noqa: F811
    report(bus, device, *[weather.Sample(ts=BASE + n * 60 * SECOND_NS, raining=n > 20) for n in range(60)])
    lines = plot(server, weather, device, "-f", "raining", "--agg", "last", "--every", "1m", "--ascii").stdout.splitlines()
    assert lines[1].startswith("1.0 +") and lines[1].count("*") > 15
    assert sum(line.startswith("  0 +") and line.count("*") > 5 for line in lines) == 1


def test_what_is_not_finite_leaves_a_gap_and_is_counted(server, bus, device, weather):  # noqa: F811
    values = [float("nan") if 20 <= n < 40 else float("inf") if n == 5 else 20.0 for n in range(60)]
    report(bus, device, *[weather.Sample(ts=BASE + n * 60 * SECOND_NS, temperature=v) for n, v in enumerate(values)])
    result = plot(server, weather, device, "-f", "temperature", "--ascii")
    assert result.returncode == 0 and "21 values are NaN or infinite and left a gap." in result.stderr
    course = next(line for line in result.stdout.splitlines() if line.count("*") > 10)
    assert "*" + " " * 10 in course
    [series] = points_of(server, weather, device, "-f", "temperature")
    assert [value for _, value in series["points"]].count("NaN") == 20


def test_a_mistyped_name_is_said_and_leaves_no_file(server, bus, device, weather, tmp_path):  # noqa: F811
    report(bus, device, *pressures(weather, range(5)))
    out = tmp_path / "out.csv"
    for wrong, says in [(["-m", "weather.v1.Nothing"], "none of these devices measures 'weather.v1.Nothing'"),
                        (["-m", weather.name("Sample"), "-f", "presure"], "did you mean 'pressure'?")]:
        result = run(server, "export", device, *wrong, "-O", str(out))
        assert result.returncode == 1 and says in result.stderr and list(tmp_path.iterdir()) == []
    nothing = run(server, "export", device, "-m", weather.name("Sample"), "--since", "1s", "-O", str(out))
    assert nothing.returncode == 0 and out.exists()
    partly = ask(server, weather, device, "-f", "pressure,presure")
    assert (partly.returncode, partly.stdout) == (1, "") and "did you mean 'pressure'?" in partly.stderr
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MIR_TARGET": f"127.0.0.1:{server.port}"}
    with subprocess.Popen([BINARY, "telemetry", "watch", device, "-m", "weather.v1.Nothing"], env=environment,
                          stderr=subprocess.PIPE, text=True) as watch:
        assert "none of these devices measures 'weather.v1.Nothing'" in watch.stderr.readline()
        assert "Watching telemetry" in watch.stderr.readline()
        watch.terminate()
        watch.communicate(timeout=20 * PATIENCE)


def test_what_has_no_mean_is_said(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5]))
    for options in (["--agg", "mean,max"], ["--every", "1m"]):
        asked = ask(server, weather, device, "-f", "note", *options)
        assert asked.returncode == 1
        assert f"note of {weather.name('Sample')} is no number (string): there are count, first and last of it" in asked.stderr
    assert rows(ask(server, weather, device, "-f", "note", "--agg", "last"))[1][2:] == ["n0"]


def test_since_before_all_times_is_everything(server, bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, range(5)))
    got = rows(run(server, "query", device, "-m", weather.name("Sample"), "-f", "pressure", "--since", "90y", "-o", "csv"))
    assert [row[2] for row in got[1:]] == [str(n) for n in range(5)]


def test_shells_complete_messages_and_fields(server, bus, device, weather):  # noqa: F811
    report(bus, device, *[weather.Sample(ts=time.time_ns(), pressure=1, temperature=2)])

    def offered(*words):
        result = subprocess.run([BINARY, "__complete", "telemetry", *words], stdin=subprocess.DEVNULL, capture_output=True,
                                text=True, timeout=20 * PATIENCE, env={"PATH": os.environ["PATH"], "HOME": "/nonexistent",
                                                                       "MIR_TARGET": f"127.0.0.1:{server.port}"})
        return [line.split("\t")[0] for line in result.stdout.splitlines()]

    sample = weather.name("Sample")
    # A shell waits less than a second for a list, and goes without it on a machine that is busy.
    wait_until(lambda: offered("plot", device, "-m", sample[:-3]) == [sample], what="the name of the message")
    wait_until(lambda: offered("query", "-m", sample, "-f", "p") == ["pressure"], what="the name of the field")
    wait_until(lambda: offered("query", "-m", sample, "-f", "pressure,temp") == ["pressure,temperature"], what="one more field")
    assert offered("query", "-m", "weather.v1.Nothing", "-f", "") == []
    assert offered("plot", "--agg", "mean,m") == ["mean,mean", "mean,min", "mean,max"]
    assert offered("query", "-g", "n") == ["namespace"]


def test_a_list_can_show_how_the_last_hour_went(server, bus, device, weather):  # noqa: F811
    now = time.time_ns()
    report(bus, device, *[weather.Sample(ts=now - n * 300 * SECOND_NS, pressure=1000 - n) for n in range(11)])
    asked = ["list", device, "-m", weather.name("Sample")]
    plain, drawn = run(server, *asked), run(server, *asked, "--sparkline")
    assert "LAST HOUR" not in plain.stdout and "LAST HOUR" in drawn.stdout
    [course] = [line for line in drawn.stdout.splitlines() if " pressure " in line]
    heights = [each for each in course if each in "▁▂▃▄▅▆▇█"]
    assert len(heights) >= 10 and heights == sorted(heights) and {"▁", "█"} <= set(heights)
    assert run(server, *asked, "--sparkline", "-o", "json").returncode == 2


def test_rows_that_are_too_many_are_drawn_as_windows(shared, connect, name, weather):  # noqa: F811
    server = shared({"limits.max_payload": "40KiB"})
    bus = connect(server)
    launch_device(bus, name, weather)
    report(bus, name, *pressures(weather, [n % 100 for n in range(3600)], every_s=2))
    result = plot(server, weather, name, "-f", "pressure", "--width", "1000")
    assert result.returncode == 0 and "means of 10s are drawn" in result.stderr
    assert max(len(line) for line in result.stdout.splitlines()) > 900
    [series] = points_of(server, weather, name, "-f", "pressure", "--width", "1000")
    assert len(series["points"]) == 720 and series["points"][0][1] == 2


def test_a_chart_can_follow_what_comes_in(server, bus, device, weather):  # noqa: F811
    report(bus, device, *[weather.Sample(ts=time.time_ns() - n * SECOND_NS, pressure=7) for n in range(9)])
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, 80, 0, 0))
    environment = {"PATH": os.environ["PATH"], "HOME": "/nonexistent", "MIR_TARGET": f"127.0.0.1:{server.port}",
                   "TERM": "xterm", "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", "")}
    asked = ["plot", device, "-m", weather.name("Sample"), "-f", "pressure", "--since", "2m", "--follow"]
    process = subprocess.Popen([BINARY, "telemetry", *asked], stdin=far, stdout=far, stderr=far, env=environment)
    os.close(far)
    shown = b""

    def shows(text, least=1):
        nonlocal shown
        while shown.count(text) < least:
            ready, _, _ = select.select([near], [], [], 20 * PATIENCE)
            assert ready, f"silent after {shown!r}"
            shown += os.read(near, 65536)

    shows(b"last 7 hPa", 2)
    report(bus, device, weather.Sample(ts=time.time_ns(), pressure=42))
    shows(b"last 42 hPa")
    fcntl.ioctl(near, termios.TIOCSWINSZ, struct.pack("HHHH", 12, 50, 0, 0))
    shows(b"last 42 hPa", 3)
    process.send_signal(signal.SIGINT)
    shows(b"\x1b[?1049l")
    try:
        while data := os.read(near, 65536):
            shown += data
    except OSError:
        pass
    os.close(near)
    assert process.wait(20 * PATIENCE) == 0
    last = shown.decode().split("\x1b[?1049l")[1].replace("\r\n", "\n").splitlines()
    assert "\x1b[?1049h\x1b[?25l" in shown.decode() and "\x1b[?25h\x1b[?1049l" in shown.decode()
    assert len(last) == 11 and last[-1].endswith("pressure  last 42 hPa")


def test_json_has_the_values_of_a_field_that_had_two_types(server, bus, name):
    before, after = (Kind(CHANGING.replace("VALUE", kind), f"changing_{name}") for kind in ("int32", "string"))
    launch_device(bus, name, before)
    report(bus, name, before.T(ts=BASE, v=5))
    launch_device(bus, name, after)
    wait_until(lambda: report(bus, name, after.T(ts=BASE + SECOND_NS, v="five")) or
               "five" in run(server, "query", name, "-m", after.name("T"), *RANGE, "-o", "csv").stdout, 10 * PATIENCE, "rows")
    answer = json.loads(run(server, "query", name, "-m", after.name("T"), *RANGE, "-o", "json").stdout)
    assert [row["v"] for row in answer["rows"]] == [5, "five"]
    assert [column["type"] for column in answer["columns"] if column["name"] == "v"] == ["int64", "string"]


def test_pages_say_together_what_is_left_out(launch, connect, name, weather):  # noqa: F811
    """One device's rows are kept, and reach behind what of the other's is there as rollups alone."""
    server = launch({"telemetry.retention.age": "2h", "telemetry.retention.rules": "[{namespace: kept, age: 0}]",
                     "limits.max_payload": "32KiB"})
    bus = connect(server)
    devices = [f"{name}-a", f"{name}-b"]
    hour_ns = 3600 * SECOND_NS
    now_ns = time.time_ns()
    first_ns = (now_ns // hour_ns - 9) * hour_ns
    for device, namespace in zip(devices, ("kept", "else")):
        bus.create(device, namespace=namespace)
        launch_device(bus, device, weather)
        report(bus, device, *[weather.Sample(ts=at_ns, pressure=1) for at_ns in range(first_ns, now_ns, 20 * SECOND_NS)])
    bus.close()
    server.stop()  # A start seals what there is.
    server.start()
    bus = connect(server)
    told = wait_until(lambda: (t := bus.ask("tlm.retention")).rules[1].rows_removed >= 6 * 180 and t, what="rows have gone")
    until_s = first_ns // SECOND_NS + told.rules[1].rows_removed // 180 * 3600
    asked = run(server, "query", *devices, "-m", weather.name("Sample"), "--from", str(first_ns // SECOND_NS), "--limit", "1500", "-o", "csv")
    assert asked.returncode == 0 and asked.stdout.count("\n") == 1501
    assert f"of rows from before {time.strftime('%Y-%m-%d %H:%M:%S', time.gmtime(until_s))}" in asked.stderr
    bus.close()


def test_rows_that_are_gone_are_drawn_from_what_they_came_to(launch, connect, name, weather):  # noqa: F811
    server = launch({"telemetry.retention.age": "2h"})
    bus = connect(server)
    launch_device(bus, name, weather)
    hour_ns = 3600 * SECOND_NS
    now_ns = time.time_ns()
    first_ns = (now_ns // hour_ns - 9) * hour_ns
    times = range(first_ns, now_ns, 20 * SECOND_NS)
    report(bus, name, *[weather.Sample(ts=at_ns, pressure=n // 180) for n, at_ns in enumerate(times)])
    bus.close()
    server.stop()  # A start seals what there is.
    server.start()
    bus = connect(server)
    wait_until(lambda: bus.ask("tlm.retention").rules[0].rows_removed >= 6 * 180, what="rows have gone")
    begins = first_ns // SECOND_NS
    ask = ["plot", name, "-m", weather.name("Sample"), "-f", "pressure"]
    # Of all the time; from within a minute on, in windows that rows would be drawn in by the second.
    drawn = run(server, *ask, "--from", str(begins))
    assert drawn.returncode == 0 and "are there as rollups alone: means of 10m are drawn" in drawn.stderr
    assert "Not all is here" not in drawn.stderr
    drawn = run(server, *ask, "--from", str(begins + 3607), "--to", str(begins + 4209), "-o", "json")
    assert drawn.returncode == 0 and "means of 1m are drawn" in drawn.stderr and "Not all" not in drawn.stderr
    [series] = json.loads(drawn.stdout)["series"]
    assert [value for _, value in series["points"]] == [1] * 11
    extremes = run(server, *ask, "--from", str(begins + 3000), "--to", str(begins + 4200), "--agg", "min,max", "-o", "json")
    assert extremes.returncode == 0 and "windows of 1m are drawn" in extremes.stderr
    assert {value for series in json.loads(extremes.stdout)["series"] for _, value in series["points"]} == {0, 1}
    # Who says how long windows are has them, and hears what is left out.
    said = run(server, *ask, "--from", str(begins), "--agg", "mean", "--every", "30s")
    assert "Not all is here" in said.stderr
    # What is there as rows is drawn as it is.
    rest = run(server, *ask, "--from", str(now_ns // SECOND_NS - 1800))
    assert rest.returncode == 0 and "rollups" not in rest.stderr
