"""The checks: `python3 scripts/test.py [--all] [pytest arguments]`.

Sets up the environment if necessary (see environment.py), then runs ruff, the type checker and pytest in it. Tests marked
slow only run with --all. Without pytest arguments, two halves run at once, and the second one's output comes last. Browser
tests need a Chromium: without one they are left out, which in CI is an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TextIO

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.chromium import find_chromium
from scripts.support.environment import ROOT, Environment, prepare_or_exit

TESTS = ROOT / "tests"
LOADS_COMFYUI = ("card", "comfyui", "parity")  # folders of tests that load ComfyUI into their own process: half of the time
COMPILES_ANEW = "PYTHONDONTWRITEBYTECODE"  # with which each server that a test starts would compile all of torch again
HANGING = "faulthandler_timeout=900"  # seconds in one test after which pytest prints where every thread is


def main() -> int:
    chosen = sys.argv[1:]
    if chosen in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    everything = "--all" in chosen
    left_out = [] if everything else ["slow"]
    if not find_chromium():
        remedy = "no Chromium found: install chromium or Chrome, or set CHROME_PATH"
        if os.environ.get("CI") == "true":
            sys.exit(f"framepack: {remedy}")
        print(f"{remedy}; the browser tests are left out")
        left_out.append("browser")
    environment = prepare_or_exit()
    marks = [f"not {mark}" for mark in left_out]
    arguments = [argument for argument in chosen if argument != "--all"]
    if arguments:
        return check(environment) or pytest(environment, marks, arguments).wait()
    return check(environment) or pytest_in_halves(environment, marks)


def check(environment: Environment) -> int:
    """Print a line per check, and a failed one's output; returns the status of the first that fails, or 0."""
    checks = {
        "lint": ["ruff", "check", "--quiet", "--output-format", "concise", "."],
        "format": ["ruff", "format", "--check", "--quiet", "."],
        "types": ["basedpyright", "--pythonpath", environment.python],
    }
    for name, command in checks.items():
        done = subprocess.run([environment.python, "-m", *command], cwd=ROOT, capture_output=True, text=True)
        print(f"{name}: {'failed' if done.returncode else 'passed'}", flush=True)
        if done.returncode:
            print(done.stdout + done.stderr)
            return done.returncode
    return 0


def pytest_in_halves(environment: Environment, marks: list[str]) -> int:
    """Tests mostly keep one core busy. So those that load ComfyUI run beside the others, each half with half the threads."""
    threads = {"OMP_NUM_THREADS": str(max((os.cpu_count() or 1) // 2, 1))}
    folders = sorted({path.parent.name for path in TESTS.glob("*/test_*.py")})
    halves = [[f"tests/{name}" for name in folders if (name in LOADS_COMFYUI) == loads] for loads in (False, True)]
    with tempfile.TemporaryFile("w+") as later:
        second = pytest(environment, marks, halves[1], threads, later)
        try:
            status = pytest(environment, marks, halves[0], threads).wait()
        finally:  # after Ctrl+C too, which both are sent
            status_of_second = second.wait()
            later.seek(0)
            print(later.read(), flush=True)
    return status or status_of_second


def pytest(
    environment: Environment,
    marks: list[str],
    arguments: list[str],
    variables: Mapping[str, str] = {},
    output: TextIO | None = None,
) -> subprocess.Popen:
    """Starts pytest with -P, which keeps this folder off sys.path, where `nodes/` would shadow ComfyUI's nodes.py."""
    command = [environment.python, "-P", "-m", "pytest", "--durations=10", "-o", HANGING]
    if marks:
        command += ["-m", " and ".join(marks)]
    places = {"FRAMEPACK_COMFYUI": str(environment.comfyui), "FRAMEPACK_CACHE": str(environment.cache)}
    inherited = {name: value for name, value in os.environ.items() if name != COMPILES_ANEW}
    return subprocess.Popen([*command, *arguments], cwd=ROOT, env={**inherited, **variables, **places}, stdout=output)


if __name__ == "__main__":
    sys.exit(main())
