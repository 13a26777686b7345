"""What the released model needs, by arithmetic: `python3 scripts/plans.py memory | training`

memory: the share of its weights that stays on cards of each size, as tabulated in docs/memory.md.

training: the parameters, memory, time and disk space of training it, as tabulated in docs/training.md.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import prepare_or_exit, run_module

PLANS = ("memory", "training")


def main() -> int:
    if sys.argv[1:] not in [[name] for name in PLANS]:
        print(__doc__)
        return 0 if sys.argv[1:] in (["-h"], ["--help"]) else 2
    return run_module(prepare_or_exit(), f"experiments.plans.{sys.argv[1]}")


if __name__ == "__main__":
    sys.exit(main())
