# SPDX-License-Identifier: Apache-2.0
"""The guide shows the example as it is, so that what it shows is compiled and tested."""

import pathlib
import re

ROOT = pathlib.Path(__file__).resolve().parents[2]
FILES = {"c": "thermostat.c", "proto": "thermostat.proto", "cmake": "CMakeLists.txt"}


def test_the_guide_quotes_the_example():
    guide = (ROOT / "docs" / "device-sdk.md").read_text()
    blocks = re.findall(r"```(c|proto|cmake)\n(.*?)```", guide, re.DOTALL)
    assert len(blocks) >= 9
    for language, block in blocks:
        source = (ROOT / "sdk" / "device" / "example" / FILES[language]).read_text()
        assert block in source, f"not in {FILES[language]}:\n{block}"
