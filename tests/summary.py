# SPDX-License-Identifier: Apache-2.0
"""Adds up what the test runners wrote into one last line, "N passed, N failed".

summary.py [--filtered NAME] [--unit FILE STATUS] [--blackbox FILE STATUS]

FILE is the runner's JUnit report and STATUS the exit status of the runner. A report that is missing
or unreadable, a runner that failed without a failed test, and a runner that found no test each count
as a failure: nothing that went wrong may look like success. With --filtered, for the tests whose name
contains NAME, one of the runners may have found nothing, but not both.
"""

import argparse
import re
import sys
import xml.etree.ElementTree as ElementTree

NO_TESTS = {"unit": 0, "blackbox": 5}

# A unit test program says how many tests it ran; a program that died before that is one failure.
PROGRAM = {
    "passed": re.compile(r"^\[  PASSED  \] (\d+) test\(s\)\.", re.M),
    "failed": re.compile(r"^\[  FAILED  \] (\d+) test\(s\)", re.M),
    "skipped": re.compile(r"^\[  SKIPPED \] (\d+) test\(s\)", re.M),
}


def program_counts(case, failed):
    output = "".join(case.itertext())
    counts = {name: sum(map(int, pattern.findall(output))) for name, pattern in PROGRAM.items()}
    if failed:
        counts["failed"] = max(counts["failed"], 1)
    elif counts["failed"] or not any(counts.values()):
        # A test program of another kind passes as one test.
        counts = {"passed": 1, "failed": 0, "skipped": 0}
    return counts


def count(kind, path, status, filtered):
    """({passed, failed, skipped}, the reasons for failures that no test stands for)"""
    total = {"passed": 0, "failed": 0, "skipped": 0}
    try:
        cases = list(ElementTree.parse(path).iter("testcase"))
    except (OSError, ElementTree.ParseError) as problem:
        total["failed"] = 1
        return total, [f"{kind}: no report ({problem})"]
    for case in cases:
        failed = case.find("failure") is not None or case.find("error") is not None
        skipped = case.find("skipped") is not None
        if kind == "unit" and not skipped:
            for name, number in program_counts(case, failed).items():
                total[name] += number
        else:
            total["failed" if failed else "skipped" if skipped else "passed"] += 1
    reasons = []
    if not cases and not filtered:
        reasons.append(f"{kind}: no tests were found")
    elif status != 0 and not total["failed"] and not (status == NO_TESTS[kind] and not cases):
        reasons.append(f"{kind}: the runner ended with status {status}")
    total["failed"] += len(reasons)
    return total, reasons


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--filtered", metavar="NAME", default="")
    for kind in NO_TESTS:
        parser.add_argument(f"--{kind}", nargs=2, metavar=("FILE", "STATUS"))
    arguments = parser.parse_args()
    sums = {"passed": 0, "failed": 0, "skipped": 0}
    for kind in NO_TESTS:
        if report := getattr(arguments, kind):
            total, reasons = count(kind, report[0], int(report[1]), arguments.filtered)
            for name, number in total.items():
                sums[name] += number
            for reason in reasons:
                print(reason, file=sys.stderr)
    if not sums["passed"] and not sums["failed"]:
        if arguments.filtered:
            print(
                f"no test ran: none has '{arguments.filtered}' in its name. A NAME is part of that of a unit test program"
                " (mir_ring) or of a test function or file (test_core): `ctest -N --test-dir build/dev` lists the first,"
                " `grep -rn 'def test_' tests` the others",
                file=sys.stderr,
            )
        else:
            print("no test ran", file=sys.stderr)
        sums["failed"] = 1
    # What was written to stderr before belongs above the last line.
    sys.stderr.flush()
    line = f"{sums['passed']} passed, {sums['failed']} failed"
    print(line + (f", {sums['skipped']} skipped" if sums["skipped"] else ""))
    return 1 if sums["failed"] else 0


if __name__ == "__main__":
    sys.exit(main())
