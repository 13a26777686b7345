"""`python3 scripts/experiments.py`: measures what the demo model does, and writes docs/EXPERIMENTS.md and its plots.

    --quick               only a few videos per experiment
    --only NAME ...       only these: vae obedience prompts shapes lengths layouts paddings anchors changes cache
                          orders long_layouts tails windows errors long
    --videos N, --steps N fewer videos, other steps
    --report              only write the report, from the results so far

Everything is seeded. The results of each video are kept in .cache/experiments, and a stopped run continues.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("experiments.study.run", __doc__))
