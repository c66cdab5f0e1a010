# SPDX-License-Identifier: Apache-2.0
"""The last line of a test run, when nothing was run."""

import subprocess
import sys

import pytest
from fake_hub import ROOT


@pytest.mark.parametrize("name, says", [("nosuch", "no test ran: none has 'nosuch' in its name."), ("", "no tests were found")])
def test_a_run_without_tests_fails_and_says_which_name_matched_nothing(tmp_path, name, says):
    report = tmp_path / "unit.xml"
    report.write_text("<testsuite></testsuite>")
    filtered = ["--filtered", name] if name else []
    result = subprocess.run(
        [sys.executable, ROOT / "tests" / "summary.py", *filtered, "--unit", report, "0"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (1, "0 passed, 1 failed\n")
    assert says in result.stderr
