# SPDX-License-Identifier: Apache-2.0
"""What rows come to, pages of them and points: asked for beyond what other clients know."""

import math

import pytest
from bus import DEADLINE_S, Refused, api
from test_telemetry import SECOND_NS, START_NS, launch_device, query, report, rows_of, stamp, types_of, weather  # noqa: F401

from wire import wait_until

MINUTE = 60 * SECOND_NS
BASE = START_NS // MINUTE * MINUTE


def pressures(kind, values, every_s=1, first=BASE):
    return [kind.Sample(ts=first + n * every_s * SECOND_NS, pressure=value, temperature=value / 2, note=f"n{n}")
            for n, value in enumerate(values)]


@pytest.fixture
def device(bus, name, weather):  # noqa: F811
    launch_device(bus, name, weather)
    return name


def ask(bus, devices, kind, last=BASE + 60 * MINUTE, **more):
    return query(bus, devices, kind.name("Sample"), BASE, last, **more)


def test_each_function_of_each_window(bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5, 1, 9, 5], every_s=10))
    report(bus, device, *pressures(weather, [7], first=BASE + MINUTE))
    names = ["mean", "min", "max", "sum", "count", "first", "last", "p50", "p99.5"]
    table = ask(bus, device, weather, functions=names, aggregation_window="1m", fields=["pressure"])
    assert list(table.headers) == ["_time", "__id", *sorted(f"{each}(pressure)" for each in names)]
    got = [dict(zip(table.headers, row)) for row in rows_of(table)]
    assert [row["_time"] for row in got] == [BASE + MINUTE, BASE + 2 * MINUTE]
    assert [[row[f"{each}(pressure)"] for each in names] for row in got] == [
        [5.0, 1, 9, 20, 4, 5, 5, 5, 9], [7.0, 7, 7, 7, 1, 7, 7, 7, 7]]
    units = dict(zip(table.headers, table.units))
    assert units["max(pressure)"] == "hPa" and units["count(pressure)"] == ""


def test_one_function_keeps_the_names_of_the_fields(bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [5, 1, 9]))
    table = ask(bus, device, weather, functions=["max"])
    # Without a window there is one row, of the time of the newest value; texts have no largest.
    assert list(table.headers) == ["_time", "__id", "pressure", "temperature"]
    assert rows_of(table) == [[BASE + 2 * SECOND_NS, device, 9, 4.5]]
    last = ask(bus, device, weather, functions=["last"])
    assert dict(zip(last.headers, rows_of(last)[0]))["note"] == "n2"
    assert rows_of(ask(bus, device, weather, functions=["count"], fields=["note"])) == [[BASE + 2 * SECOND_NS, device, 3]]


def test_rates_of_a_counter_go_over_windows_and_restarts(bus, device, weather):  # noqa: F811
    report(bus, device, *pressures(weather, [100, 160, 220, 10, 70], every_s=30))
    table = ask(bus, device, weather, functions=["rate"], fields=["pressure"], aggregation_window="1m")
    # 60 in 30 s; then 60 and 10 after the restart in 60 s; then 60 in 30 s.
    assert [row[2] for row in rows_of(table)] == pytest.approx([2.0, 70 / 60, 2.0])
    assert list(table.units)[2:] == ["hPa/s"]


def test_the_last_value_of_each_device_of_a_fleet(bus, name, weather):  # noqa: F811
    fleet = [f"{name}-{n}" for n in range(5)]
    for n, each in enumerate(fleet):
        launch_device(bus, each, weather)
        report(bus, each, *pressures(weather, range(n, n + 10)))
    table = ask(bus, fleet, weather, functions=["last"], fields=["pressure"])
    assert sorted(row[1:] for row in rows_of(table)) == [[each, n + 9] for n, each in enumerate(fleet)]


def test_rows_taken_together_by_namespace_label_or_all(bus, name, weather):  # noqa: F811
    for n, (space, floor) in enumerate([("east", "1"), ("east", "2"), ("west", "1")]):
        bus.create(f"{name}-{n}", namespace=f"{name}-{space}", labels={"floor": floor})
        launch_device(bus, f"{name}-{n}", weather)
        report(bus, f"{name}-{n}", *pressures(weather, [n + 1, 10 * (n + 1)]))
    fleet = [f"{name}-{n}" for n in range(3)]

    def grouped(by, function="sum"):
        table = ask(bus, fleet, weather, functions=[function], fields=["pressure"], group_by=by)
        return table.headers[1], {row[1]: row[2] for row in rows_of(table)}

    assert grouped("namespace") == ("__namespace", {f"{name}-east": 33, f"{name}-west": 33})
    assert grouped("label:floor") == ("__label_floor", {"1": 44, "2": 22})
    assert grouped("label:absent") == ("__label_absent", {"": 66})
    assert grouped("all") == ("__group", {"all": 66})
    assert grouped("all", "mean") == ("__group", {"all": 11.0})
    assert grouped("device")[0] == "__id"


@pytest.mark.parametrize("descending", [False, True])
def test_pages_give_each_row_once(bus, name, weather, descending):  # noqa: F811
    fleet = [f"{name}-{n}" for n in range(3)]
    for each in fleet:
        launch_device(bus, each, weather)
        report(bus, each, *pressures(weather, range(50)))
    whole = rows_of(ask(bus, fleet, weather))
    assert len(whole) == 150
    rows, cursor = [], None
    while cursor != "":
        table = ask(bus, fleet, weather, limit=40, descending=descending, **({"cursor": cursor} if cursor else {}))
        assert len(table.rows) <= 40
        rows += rows_of(table) if table.rows else []
        cursor = table.cursor
    assert rows == (list(reversed(whole)) if descending else whole)
    newest = ask(bus, fleet, weather, limit=2, descending=True)
    assert [row[0] for row in rows_of(newest)] == [BASE + 49 * SECOND_NS] * 2


def test_points_show_the_course_of_a_field(bus, device, weather):  # noqa: F811
    values = [int(1000 * math.sin(n / 60)) for n in range(3000)]
    values[1234], values[2345] = 9000, -9000
    report(bus, device, *pressures(weather, values))
    table = ask(bus, device, weather, points=100, fields=["pressure"])
    rows = rows_of(table)
    assert len(rows) == 100
    assert rows[0][0] == BASE and rows[-1][0] == BASE + 2999 * SECOND_NS
    shown = [row[2] for row in rows]
    assert max(shown) == 9000 and min(shown) == -9000
    assert types_of(table)[2:] == ["INT64"]


@pytest.mark.parametrize("asked, refusal", [
    ({"functions": ["median"]}, "there is no function 'median': use mean, min, .* p0 to p100"),
    ({"functions": ["p101"]}, "there is no function 'p101'"),
    ({"functions": ["p"]}, "there is no function 'p'"),
    ({"functions": ["p1", "p2", "p3", "p4", "p5"]}, "at most 4 percentiles"),
    ({"functions": ["mean"] * 17}, "at most 16 functions"),
    ({"functions": ["mean"], "group_by": "colour"}, "cannot be grouped by 'colour': use device, namespace, label:<key> or all"),
    ({"functions": ["mean"], "group_by": "label:"}, "cannot be grouped by 'label:': use device, namespace, label:<key> or all"),
    ({"group_by": "all"}, "rows as they are cannot be grouped: add a function"),
    ({"functions": ["mean"], "points": 10}, "cursor and points are for rows as they are"),
    ({"aggregation_window": "1m", "cursor": "1:a"}, "cursor and points are for rows as they are"),
    ({"points": 10, "limit": 5}, "points are of the whole range"),
    ({"limit": 5, "cursor": "here"}, "this is no cursor: give the one of the answer before"),
])
def test_what_cannot_be_asked_is_said_with_what_can(bus, name, weather, asked, refusal):  # noqa: F811
    bus.create(name)
    with pytest.raises(Refused, match=refusal):
        ask(bus, name, weather, **asked)


ARMS = {"DATA_TYPE_INT64": "ints", "DATA_TYPE_DOUBLE": "doubles", "DATA_TYPE_BOOL": "bools", "DATA_TYPE_STRING": "texts"}


def stream(bus, devices, kind, last=BASE + 3600 * MINUTE, **more):
    """All rows as [time, device, fields], and the messages that brought them; follows cursors."""
    rows, messages, cursor = [], 0, None
    names = api.pool.FindEnumTypeByName("mir_api.v1.DataType").values_by_number
    while cursor != "":
        reply = bus.answer_name()
        body = api.QueryTelemetryRequest(targets={"ids": devices}, measurement=kind.name("Sample"), stream=True,
                                         start_time=stamp(BASE), end_time=stamp(last), cursor=cursor or "", **more)
        bus.send("tlm.query", body.SerializeToString(), reply)

        def whole(reply=reply):
            found = [message for message in bus.heard if message.subject == reply]
            return found if found and "mir-stream" not in (found[-1].headers or {}) else None

        found = wait_until(whole, 3 * DEADLINE_S, "the last message")
        before = len(rows)
        for message in found[:-1]:
            assert message.headers["mir-stream"] == "partial" and len(message.data) <= 300 << 10
            for block in api.QueryTelemetryResponse.FromString(message.data).ok.blocks:
                times = []
                for step in block.times:
                    times.append(step + (times[-1] if times else 0))
                cells = [{} for _ in times]
                for column in block.columns:
                    values = iter(getattr(column, ARMS[names[column.datatype].name]))
                    for n, cell in enumerate(cells):
                        if column.present == b"" or column.present[n // 8] >> (n % 8) & 1:
                            cell[column.name] = next(values)
                    assert next(values, None) is None
                rows += [[time_ns, block.device_id, cell] for time_ns, cell in zip(times, cells)]
        last_message = api.QueryTelemetryResponse.FromString(found[-1].data)
        assert last_message.WhichOneof("response") == "ok", last_message.error
        assert last_message.ok.stream_rows == len(rows) - before
        messages += len(found)
        cursor = last_message.ok.cursor
    return rows, messages


def test_a_stream_has_all_rows_of_each_device_in_turn(bus, name, weather):  # noqa: F811
    fleet = [f"{name}-{n}" for n in range(3)]
    for each in fleet:
        launch_device(bus, each, weather)
        report(bus, each, *pressures(weather, range(700)))
    rows, messages = stream(bus, fleet, weather)
    table = ask(bus, fleet, weather)
    want = [[row[0], row[1], dict(zip(table.headers[2:], row[2:]))] for row in rows_of(table)]
    assert sorted(rows, key=lambda row: row[:2]) == want
    assert [row[:2] for row in rows] == sorted((row[:2] for row in rows), key=lambda row: (row[1], row[0]))
    assert messages == 2
    some, _ = stream(bus, fleet, weather, fields=["pressure"])
    assert {tuple(cell) for _, _, cell in some} == {("pressure",)}


def test_a_stream_that_is_larger_than_one_answer_may_be_goes_on(bus, device, weather):  # noqa: F811
    count = 6000
    report(bus, device, *[weather.Sample(ts=BASE + n * SECOND_NS, pressure=n, note=f"{n:0900d}") for n in range(count)])
    rows, messages = stream(bus, [device], weather, fields=["note", "pressure"])
    assert [cell["pressure"] for _, _, cell in rows] == list(range(count))
    assert rows[-1][2]["note"] == f"{count - 1:0900d}"
    assert messages > 10


@pytest.mark.parametrize("asked", [{"functions": ["mean"]}, {"aggregation_window": "1m"}, {"limit": 5}, {"points": 5},
                                   {"descending": True}])
def test_a_stream_is_of_all_rows_as_they_are(bus, name, weather, asked):  # noqa: F811
    bus.create(name)
    with pytest.raises(Refused, match="a stream is of all rows as they are"):
        ask(bus, name, weather, stream=True, **asked)
