# SPDX-License-Identifier: Apache-2.0
"""What the tests of the command line share: a hub of their own, and a home without settings."""

import os
import subprocess

import pytest
from fake_hub import PATIENCE, Hub
from terminal import BINARY


@pytest.fixture(scope="module")
def shared_hub():
    hub = Hub().serve()
    yield hub
    hub.stop()


@pytest.fixture
def hub(shared_hub):
    shared_hub.fresh()
    shared_hub.status = {"version": "9.9.9", "uptime_seconds": 4000, "problems": []}
    return shared_hub


@pytest.fixture
def home(tmp_path):
    """An environment without anything of the person who runs the tests."""
    return {
        "PATH": os.environ["PATH"],
        "HOME": str(tmp_path),
        "XDG_CONFIG_HOME": str(tmp_path / "config"),
        "MIR_DATA": str(tmp_path / "data"),
        "ASAN_OPTIONS": os.environ.get("ASAN_OPTIONS", ""),
    }


@pytest.fixture
def mir(hub, home):
    def run(*args, stdin="", target=hub.url, env=None, cwd=None):
        environment = {**home, "MIR_TARGET": target, **(env or {})}
        return subprocess.run(
            [BINARY, *args], input=stdin, text=True, capture_output=True, timeout=20 * PATIENCE, env=environment,
            cwd=cwd,
        )

    return run
