# SPDX-License-Identifier: Apache-2.0
"""What went wrong once."""

from bus import DEADLINE_S, zstd
from test_telemetry import CHANGING, START_NS, Kind, query, report, rows_of

from wire import wait_until

COUNT = 200


def test_a_type_that_nobody_explains_holds_no_other_up(bus, name):
    """The device does not answer the question for its schema. Everything that followed the unknown type
    waited behind it for good, and was refused from the 65th message on."""
    known = Kind(CHANGING.replace("VALUE", "int64"), f"{name}known")
    unknown = Kind(CHANGING.replace("VALUE", "int64"), f"{name}unknown")
    bus.create(name)
    packages = [f"{known.package}.v1", "google.protobuf", "mir.device.v1"]
    bus.ask("core.update", targets={"ids": [name]},
            status={"schema": {"compressed_schema": zstd(known.set), "package_names": packages}})
    for number in range(COUNT):
        if number % 20 == 0:
            report(bus, name, unknown.T(ts=START_NS + number, v=number), flush=False)
        report(bus, name, known.T(ts=START_NS + number, v=number), flush=False)
    bus.flush()
    rows = wait_until(lambda: rows_of(query(bus, name, known.name("T"))), DEADLINE_S, "rows")
    assert [row[-1] for row in rows] == list(range(COUNT))
