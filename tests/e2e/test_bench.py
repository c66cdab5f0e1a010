# SPDX-License-Identifier: Apache-2.0
"""The bench of telemetry measures every row that it names, and none of them finds wrong data.

What the figures are is not looked at: that is for a machine that does nothing else.
"""

import json
import os
import shutil
import subprocess

import pytest

from servers import BINARY, sanitized
from wire import PATIENCE

BENCH = os.path.join(os.path.dirname(BINARY), "mir-bench")
PEERS = ["VictoriaMetrics", "InfluxDB"]
SETS = ["ints, ns", "ints, ms", "doubles, ns", "skewed, ns"]
OURS_ALONE = ["reopen after kill -9", "peak memory, 2000 series", "50,000 msg/s to a subscriber, p99",
              "the same during scans and merges"]
BESIDE_PEERS = ["peak anonymous memory, ints, ns", "a field of 1 device, raw", "mean per minute, 1 device",
                "mean per minute, 100 devices", "mean per minute, 1,000 devices",
                "a field of 100 devices, raw", "count of all values",
                *(f"{what}, {name}" for what in ("in, CPU", "on disk") for name in SETS)]


def measure(tmp_path, *options):
    done = subprocess.run(
        [BENCH, "telemetry", "--quick", "--mir", BINARY, "-o", "json", *options],
        env={**os.environ, "TMPDIR": str(tmp_path)}, stdin=subprocess.DEVNULL, capture_output=True, text=True,
        timeout=280 * PATIENCE)
    assert done.returncode == 0, done.stderr
    assert list(tmp_path.iterdir()) == [], "it left something behind"
    report = json.loads(done.stdout)
    rows = {row["name"]: row for row in report["rows"]}
    assert sorted(rows) == sorted(OURS_ALONE + BESIDE_PEERS)
    for row in rows.values():
        assert row["result"] != "FAILED", row
        assert row["ours"] is not None and row["ours"] > 0, row
    return report, rows


def skip_unless_measurable():
    if not os.access(BENCH, os.X_OK):
        pytest.skip("mir-bench is not beside the server")
    if sanitized():
        pytest.skip("an instrumented server is not measured")


@pytest.mark.timeout(300)
def test_telemetry_is_measured_without_peers(tmp_path):
    skip_unless_measurable()
    report, rows = measure(tmp_path, "--peer", "none")
    assert "peers" not in report
    for name in BESIDE_PEERS:
        assert rows[name]["ratio"] is None, rows[name]


@pytest.mark.timeout(300)
def test_telemetry_is_measured_beside_both_databases(tmp_path):
    skip_unless_measurable()
    for program in ("victoria-metrics", "influxd"):
        if shutil.which(program) is None:
            pytest.skip(f"{program} is not installed: ./dev bench telemetry does that")
    report, rows = measure(tmp_path)
    assert sorted(report["peers"]) == sorted(PEERS)
    for name in BESIDE_PEERS:
        figures = rows[name]["peers"]
        assert sorted(figures) == sorted(PEERS), rows[name]
        assert rows[name]["peer"] == min(figures.values()), rows[name]
        assert rows[name]["ratio"] == pytest.approx(rows[name]["ours"] / rows[name]["peer"], rel=0.01), rows[name]
