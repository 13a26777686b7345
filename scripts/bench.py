"""`python3 scripts/bench.py`: paired speed comparisons, printed as ratios; ends non-zero when a bound is missed.

Each figure is the median of interleaved runs in one process, so that it holds when the machine's speed drifts.
"""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.environment import ROOT, prepare_or_exit


def main() -> int:
    environment = prepare_or_exit()
    command = [environment.python, ROOT / "scripts" / "benchmarks" / "speed.py", environment.comfyui, *sys.argv[1:]]
    return subprocess.run(command, cwd=ROOT).returncode


if __name__ == "__main__":
    sys.exit(main())
