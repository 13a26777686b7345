"""`python3 scripts/pictures.py`: draws the pictures of README.md and docs/layouts.md, and of videos in help pages and
templates.

    --only NAME ...       only these: plan f1 endpoints geometric important-start tail-average demo examples
    --output FOLDER       another folder
    --scene N --motion WORD --steps N     another video for demo.webp

The demo's models make `demo` and `examples` (help pages, templates) from fixed seeds, which takes a few minutes; the others
are drawings of plans.
"""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from scripts.support.environment import run_experiment

if __name__ == "__main__":
    sys.exit(run_experiment("experiments.pictures.readme", __doc__))
