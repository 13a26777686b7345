"""Trains the demo model from nothing and writes its weights: `python scripts/make_demo.py [STAGE ...]`.

Stages, in order: vae, text, vision, clips, transformer. Each goes on where it was stopped; all draws come from fixed seeds.
The states lie in `.cache/make_demo`, the weights in `framepack_core/demo/weights`. Needs the extra `train`.
"""

from __future__ import annotations

import argparse
import shutil
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch
from safetensors.torch import load_file, save_file
from torch import nn

from framepack_core.training import state
from framepack_core.demo.text import TextEncoder
from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.vision import VisionEncoder
from framepack_core.training.__main__ import main as run_training
from scripts.making import autoencoder, encoders
from scripts.making.clips import write_clips

WORK = ROOT / ".cache" / "make_demo"
WEIGHTS = ROOT / "framepack_core" / "demo" / "weights"
CLIPS = 2400

# Every preset but `temporal`, whose k8 covers more frames than it is worth here; the released two are drawn more often.
LAYOUTS = ["framepack:2", "f1:2", "vanilla", "endpoints:2", "geometric", "duplicated", "important-start", "symmetric"]
TRANSFORMER = ["--layouts", *LAYOUTS, "--steps", "3600"]


def make_vae() -> None:
    vae = autoencoder.train(autoencoder.Settings(), WORK / "vae.pt")
    autoencoder.psnr(vae)
    write(vae, "demo_vae", halved=torch.float16)


def make_text() -> None:
    write(encoders.train_text(WORK / "text.pt"), "demo_text", halved=torch.float16)
    print(encoders.accuracy(WORK / "text.pt"))


def make_vision() -> None:
    write(encoders.train_vision(WORK / "vision.pt"), "demo_vision", halved=torch.float16)


def make_clips() -> None:
    vae, text, vision = (read(module, name) for module, name in
                         ((DemoVAE(), "demo_vae"), (TextEncoder(), "demo_text"), (VisionEncoder(), "demo_vision")))  # fmt: skip
    write_clips(WORK / "clips", range(CLIPS), vae, text, vision)


def make_transformer() -> None:
    if run_training(["train", str(WORK / "clips"), str(WORK / "transformer"), *TRANSFORMER]):
        sys.exit(1)
    WEIGHTS.mkdir(exist_ok=True)
    shutil.copyfile(WORK / "transformer" / "model" / state.WEIGHTS, WEIGHTS / "demo_transformer.safetensors")


def write(module: nn.Module, name: str, halved: torch.dtype) -> None:
    """Matrices in half precision, vectors as they are."""
    WEIGHTS.mkdir(exist_ok=True)
    weights = {key: value.to(halved) if value.ndim > 1 else value for key, value in module.state_dict().items()}
    save_file({key: value.contiguous() for key, value in weights.items()}, WEIGHTS / f"{name}.safetensors")


def read(module: nn.Module, name: str) -> nn.Module:
    module.load_state_dict(load_file(WEIGHTS / f"{name}.safetensors"))
    return module.requires_grad_(False).eval()


STAGES = {"vae": make_vae, "text": make_text, "vision": make_vision, "clips": make_clips, "transformer": make_transformer}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("stages", nargs="*", metavar="STAGE", help=f"{', '.join(STAGES)} (default: all, in this order)")
    stages = parser.parse_args().stages or list(STAGES)
    if unknown := [stage for stage in stages if stage not in STAGES]:
        parser.error(f"no stage {unknown[0]!r}; choose from {', '.join(STAGES)}")
    for stage in stages:
        STAGES[stage]()


if __name__ == "__main__":
    main()
