# SPDX-License-Identifier: Apache-2.0
"""The program under test, and terminals to run it on."""

import fcntl
import os
import pty
import select
import struct
import subprocess
import termios

from fake_hub import PATIENCE, ROOT

BINARY = os.path.abspath(os.environ.get("MIR_BIN", ROOT / "build" / "dev" / "bin" / "mir"))


def terminal(args, env, answer=b"", columns=60):
    """Runs on a terminal of that width; returns what was shown and the exit code."""
    near, far = pty.openpty()
    fcntl.ioctl(far, termios.TIOCSWINSZ, struct.pack("HHHH", 24, columns, 0, 0))
    process = subprocess.Popen([BINARY, *args], stdin=far, stdout=far, stderr=far, env={**env, "TERM": "xterm"})
    os.close(far)
    if answer:
        os.write(near, answer)
    shown = b""
    while True:
        try:
            ready, _, _ = select.select([near], [], [], 20 * PATIENCE)
            assert ready, f"silent after {shown!r}"
            data = os.read(near, 65536)
        except OSError:
            break
        if not data:
            break
        shown += data
    os.close(near)
    return shown.decode().replace("\r\n", "\n"), process.wait(20 * PATIENCE)
