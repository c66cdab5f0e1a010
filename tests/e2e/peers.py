# SPDX-License-Identifier: Apache-2.0
"""Databases that telemetry is forwarded to and compared with: Debian's, unmodified."""

import socket
import urllib.request

from bus import DEADLINE_S

from wire import wait_until

ANSWER_S = 6 * DEADLINE_S


def free_port():
    with socket.socket() as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def fetch(url, method="GET"):
    with urllib.request.urlopen(urllib.request.Request(url, method=method), timeout=ANSWER_S) as answer:
        return answer.read().decode()


def answers(url):
    try:
        fetch(url)
    except OSError:
        return False
    return True


def start_influxdb(run_peer, directory):
    """Where it listens."""
    port, rpc = free_port(), free_port()
    base = f"http://127.0.0.1:{port}"
    config = directory / "influxdb.conf"
    config.write_text(f"""
reporting-disabled = true
bind-address = "127.0.0.1:{rpc}"
[meta]
dir = "{directory}/meta"
[data]
dir = "{directory}/data"
wal-dir = "{directory}/wal"
[http]
bind-address = "127.0.0.1:{port}"
""")
    run_peer("influxd", "-config", str(config))
    wait_until(lambda: answers(f"{base}/ping"), ANSWER_S, "InfluxDB")
    return base
