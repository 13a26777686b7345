"""`python3 scripts/experiments.py`: what the demo model does, measured; writes docs/EXPERIMENTS.md with its plots.

    --quick               a few videos of each experiment
    --only NAME ...       some of vae obedience prompts lengths layouts paddings long
    --videos N, --steps N fewer videos, other steps
    --report              only write the report from the results that are there

Everything is seeded. The results of each video are kept in .cache/experiments, and a run that was stopped goes on.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import prepare_or_exit, run_module


def main() -> int:
    if sys.argv[1:] in (["-h"], ["--help"]):
        print(__doc__)
        return 0
    environment = prepare_or_exit()
    return run_module(environment, "experiments.study.run", environment.comfyui, *sys.argv[1:])


if __name__ == "__main__":
    sys.exit(main())
