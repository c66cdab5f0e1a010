# SPDX-License-Identifier: Apache-2.0
"""clang-tidy over the C sources, and the rules of this tree that a script can see.

lint.py [--fast] [FILE…]     --fast leaves clang-tidy out; FILE… lints these alone

Reads build/dev/compile_commands.json, so that preset must have been built. A source that passed is not
examined again until it, a header that it includes or .clang-tidy changes.
"""

import argparse
import concurrent.futures
import hashlib
import json
import os
import pathlib
import re
import shlex
import subprocess
import sys

ROOT = pathlib.Path(__file__).resolve().parent.parent
BUILD = ROOT / "build" / "dev"
CACHE = ROOT / "build" / "lint"
ANALYZER = ROOT / "tests" / "lint_analyzer.h"

SOURCE = {".c", ".h", ".py", ".proto", ".cmake", ".go", ".sh"}
SOURCE_NAMES = {"CMakeLists.txt", "dev", "run"}
# Places that say nothing about this machine.
COMMON_PLACES = {"/", "/home", "/opt", "/root", "/srv", "/tmp", "/usr/local/src", "/usr/src", "/var/lib"}

INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"', re.M)
UNFINISHED = re.compile(r"\b(TODO|FIXME|XXX)\b")
UNSAFE = re.compile(
    r"(?<![\w.>])(strtok|localtime|gmtime|asctime|ctime|rand|gets|sprintf|vsprintf|strcpy|strcat)\s*\("
)
SLEEP = re.compile(r"(?<!\w)(time\.sleep|asyncio\.sleep|usleep|nanosleep|sleep)\s*\((?!0\))")
FUNCTION = re.compile(r"^\s*(?:async\s+)?def\s+(\w+)|^\w[\w\s*()]*?\b(\w+)\s*\([^;]*$")


def all_files():
    listed = subprocess.run(
        ["git", "ls-files", "-z", "--cached", "--others", "--exclude-standard"],
        cwd=ROOT, capture_output=True, check=True,
    ).stdout  # fmt: skip
    paths = [ROOT / name.decode() for name in listed.split(b"\0") if name]
    return sorted(path for path in paths if path.is_file() and not path.is_symlink())


def text_of(path):
    """The text of a file, or None for one that is not text."""
    data = path.read_bytes()
    if b"\0" in data[:4096]:
        return None
    return data.decode("utf-8", errors="replace")


def machine_paths():
    places = {str(ROOT), str(pathlib.Path.home())}
    # Below /tmp a checkout's parent is as common a name as any that a test makes there.
    if pathlib.Path("/tmp") not in ROOT.parents:
        places.add(str(ROOT.parent))
    return re.compile("|".join(re.escape(place) + r"(?![\w.-])" for place in sorted(places - COMMON_PLACES)))


def is_test(path):
    return path.stem.endswith("_test") or (ROOT / "tests") in path.parents


def enclosing_function(lines, index):
    for line in reversed(lines[: index + 1]):
        if match := FUNCTION.match(line):
            return match.group(1) or match.group(2)
    return ""


def polls(lines, index):
    """A pause between two looks at a condition is no fixed sleep, nor is a promise about time."""
    if re.match(r"(wait_)?until|let_pass", enclosing_function(lines, index)):
        return True
    near = "\n".join(lines[max(0, index - 8) : index])
    return re.search(r"\b(while|for)\b", near) and re.search(r"deadline|monotonic|_ns\(\)", near)


def rule_findings(path, machine):
    text = text_of(path)
    if text is None or path.suffix in {".md", ""} and path.name == "LICENSE":
        return
    lines = text.splitlines()
    if path.suffix in SOURCE or path.name in SOURCE_NAMES:
        if not any("SPDX-License-Identifier: Apache-2.0" in line for line in lines[:3]):
            yield 1, "its first line is not SPDX-License-Identifier: Apache-2.0"
    itself = path == pathlib.Path(__file__).resolve()
    for number, line in enumerate(lines, 1):
        if not itself and UNFINISHED.search(line):
            yield number, "unfinished work is written down elsewhere"
        if machine.search(line):
            yield number, "names a place on this machine"
        if path.suffix in {".c", ".h"}:
            if "../" in line and INCLUDE.match(line):
                yield number, "includes across folders by path; each folder is an include root"
            if not is_test(path) and (match := UNSAFE.search(line)):
                yield number, f"{match.group(1)} is unbounded or not safe between threads"
        if not itself and path.suffix in {".c", ".py"} and is_test(path) and SLEEP.search(line):
            if not polls(lines, number - 1):
                yield number, "a fixed sleep; await the event (wait_until)"


def commands():
    """source -> (folder, arguments), for the sources that are ours rather than generated."""
    try:
        entries = json.loads((BUILD / "compile_commands.json").read_text())
    except OSError:
        sys.exit("lint: build/dev is not there: ./dev build dev")
    found = {}
    for entry in entries:
        path = (pathlib.Path(entry["directory"]) / entry["file"]).resolve()
        if ROOT in path.parents and (ROOT / "build") not in path.parents and path.exists():
            found[path] = (entry["directory"], shlex.split(entry["command"]))
    return found


def include_flags(arguments):
    flags, take = [], False
    for argument in arguments:
        if take or argument.startswith(("-I", "-D", "-std=")):
            flags.append(argument)
            take = False
        elif argument == "-isystem":
            flags.append(argument)
            take = True
    return flags


def run(arguments, **options):
    return subprocess.run(arguments, capture_output=True, text=True, **options)


def header_findings(header, known):
    """A header must compile as the only include of a source in its folder."""
    # Sources of one folder may be built in more than one way; one of them is enough.
    ways = {
        (folder, arguments[0], *include_flags(arguments))
        for path, (folder, arguments) in known.items()
        if path.parent == header.parent
    }
    said = ""
    for folder, *command in sorted(ways, key=len):
        done = run(
            [*command, "-fsyntax-only", "-x", "c", "-"], cwd=folder, input=f'#include "{header}"\n'
        )
        if done.returncode == 0:
            return []
        said = said or done.stderr.rstrip()
    return [(1, "does not compile alone:\n" + said)] if ways else []


def closure_hash(path, headers, command):
    digest = hashlib.sha256()
    digest.update((ROOT / ".clang-tidy").read_bytes() + ANALYZER.read_bytes())
    digest.update(" ".join(command).encode())
    seen, queue = set(), [path]
    while queue:
        current = queue.pop()
        if current in seen:
            continue
        seen.add(current)
        for name in INCLUDE.findall(current.read_text(errors="replace")):
            if found := headers.get(name):
                queue.append(found)
    for current in sorted(seen):
        digest.update(current.read_bytes())
    return digest.hexdigest()


def tidy_command(path, command):
    # Options of gcc that clang does not know are no findings.
    extra = ["-Wno-unknown-warning-option"]
    # A bound on the paths through one function; the default takes four times as long.
    extra += ["-Xclang", "-analyzer-config", "-Xclang", "max-nodes=60000"]
    if f"-I{ROOT}/core" in " ".join(command) and path.stem != "mir_status":
        extra += ["-include", str(ANALYZER)]
    return [command[0], *extra, *command[1:]]


def tidy_findings(path, known, headers):
    passed = CACHE / "passed" / closure_hash(path, headers, known[path][1])
    if passed.exists():
        return []
    done = run(["clang-tidy", "--quiet", "-p", str(CACHE), str(path)])
    if done.returncode == 0:
        passed.touch()
        return []
    said = done.stdout.strip() or done.stderr.strip()
    return [(0, "clang-tidy:\n" + said.replace(f"{ROOT}/", ""))]


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--fast", action="store_true", help="without clang-tidy")
    parser.add_argument("files", nargs="*", type=lambda name: pathlib.Path(name).resolve())
    arguments = parser.parse_args()

    everything = all_files()
    files = [path for path in everything if not arguments.files or path in arguments.files]
    headers = {path.name: path for path in everything if path.suffix == ".h"}
    known = commands()
    (CACHE / "passed").mkdir(parents=True, exist_ok=True)
    database = [
        {"directory": folder, "file": str(path), "arguments": tidy_command(path, command)}
        for path, (folder, command) in known.items()
    ]
    (CACHE / "compile_commands.json").write_text(json.dumps(database))

    machine = machine_paths()
    findings = 0
    with concurrent.futures.ThreadPoolExecutor(os.cpu_count()) as pool:
        work = {}
        for path in files:
            work[pool.submit(lambda p: list(rule_findings(p, machine)), path)] = path
            if path.suffix == ".h":
                work[pool.submit(header_findings, path, known)] = path
            if path.suffix == ".c" and path in known and not arguments.fast:
                work[pool.submit(tidy_findings, path, known, headers)] = path
        for done in concurrent.futures.as_completed(work):
            for line, text in done.result():
                findings += 1
                print(f"{work[done].relative_to(ROOT)}:{line}: {text}", flush=True)
    print(f"lint: {findings} findings in {len(files)} files", file=sys.stderr)
    return 1 if findings else 0


if __name__ == "__main__":
    sys.exit(main())
