"""The checks: `python3 scripts/test.py [--all] [pytest arguments]`.

Sets up the environment if necessary (see environment.py), then runs ruff, the type checker and pytest in it. Tests marked
slow only run with --all. Browser tests need a Chromium: without one they are left out, which in CI is an error.
"""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.chromium import find_chromium
from scripts.support.environment import ROOT, Environment, prepare_or_exit

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
    return check(environment) or pytest(environment, left_out, [argument for argument in chosen if argument != "--all"])


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


def pytest(environment: Environment, left_out: list[str], arguments: list[str]) -> int:
    """Runs pytest with -P, which keeps this folder off sys.path, where `nodes/` would shadow ComfyUI's nodes.py."""
    command = [environment.python, "-P", "-m", "pytest", "--durations=10", "-o", HANGING]
    if left_out:
        command += ["-m", " and ".join(f"not {mark}" for mark in left_out)]
    places = {"FRAMEPACK_COMFYUI": str(environment.comfyui), "FRAMEPACK_CACHE": str(environment.cache)}
    return subprocess.call([*command, *arguments], cwd=ROOT, env={**os.environ, **places})


if __name__ == "__main__":
    sys.exit(main())
