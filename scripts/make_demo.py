"""Trains the demo model from nothing and writes its weights: `python scripts/make_demo.py [STAGE ...]`.

Stages, in order: vae, encoders, clips, transformer, weights. Each goes on where it was stopped; all draws come from fixed
seeds. The states lie in `.cache/make_demo`, the weights in `framepack_core/demo/weights`. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from scripts.making import autoencoder

WORK = ROOT / ".cache" / "make_demo"


def make_vae() -> None:
    vae = autoencoder.train(autoencoder.Settings(), WORK / "vae.pt")
    autoencoder.psnr(vae)


STAGES = {"vae": make_vae}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", choices=[*STAGES, []], help="which (default: all)")
    for stage in parser.parse_args().stages or STAGES:
        STAGES[stage]()


if __name__ == "__main__":
    main()
