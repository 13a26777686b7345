"""What FramePack Measure Video says of videos that do not drift: `python3 scripts/bench.py measures`.

They are the demo's world as it is rendered; the same through the demo's VAE; and through the VAE in chunks of 33 frames, each
by itself, as Helios' are. Each figure is the median of so many scenes, with the range that holds nine in ten of them.
"""

from __future__ import annotations

import argparse
from collections.abc import Callable
from functools import partial
from pathlib import Path

import numpy as np
import torch
from safetensors.torch import load_file
from torch import Tensor

from framepack_core.demo.vae import DemoVAE
from framepack_core.demo.world import Scene
from framepack_core.helios.chunks import CHUNK_FRAMES, WINDOW
from framepack_core.measures.report import Report
from framepack_core.measures.series import Series, slopes
from scripts.support.environment import ROOT

SECTIONS, FIRST_SCENE = 3, 30_000
AFTER_IMAGE, CHUNKS = 4 * WINDOW * SECTIONS + 1, CHUNK_FRAMES * SECTIONS  # frames
FPS = 30
WEIGHTS = ROOT / "framepack_core" / "demo" / "weights" / "demo_vae.safetensors"

Show = Callable[[np.ndarray], np.ndarray]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--scenes", type=int, default=24, help="scenes of the world (default: %(default)s)")
    options = parser.parse_args()
    vae = DemoVAE().eval()
    vae.load_state_dict(load_file(WEIGHTS))
    kinds: dict[str, tuple[int, Show]] = {
        "rendered": (AFTER_IMAGE, lambda frames: frames),
        "through the VAE": (AFTER_IMAGE, partial(through, vae)),
        "rendered, as Helios' chunks": (CHUNKS, lambda frames: frames),
        "through the VAE, chunk by chunk": (CHUNKS, partial(in_chunks, vae)),
    }
    for name, (frames, show) in kinds.items():
        reports = [
            Report(Series.of(show(Scene.draw(seed).render(frames))), FPS, WINDOW)
            for seed in range(FIRST_SCENE, FIRST_SCENE + options.scenes)
        ]
        print(f"{name}, {options.scenes} scenes of {frames} frames")
        for title, figure in FIGURES.items():
            print(f"  {title:<44}{spelled([figure(report) for report in reports])}")


def through(vae: DemoVAE, frames: np.ndarray) -> np.ndarray:
    """Frames uint8 `F H W 3`, F = 4T - 3, encoded and decoded."""
    with torch.inference_mode():
        decoded = vae.decode(vae.encode(to_video(frames)))[0]
    return ((decoded.movedim(0, -1).clamp(-1, 1) + 1) * 127.5).round().byte().numpy()


def in_chunks(vae: DemoVAE, frames: np.ndarray) -> np.ndarray:
    chunks = (frames[start : start + CHUNK_FRAMES] for start in range(0, len(frames), CHUNK_FRAMES))
    return np.concatenate([through(vae, chunk) for chunk in chunks])


def to_video(frames: np.ndarray) -> Tensor:
    """`1 3 F H W` in -1..1."""
    return torch.from_numpy(frames).movedim(-1, 0)[None] / 127.5 - 1


def slope(name: str, report: Report) -> float:
    """Of a measure's first channel, a second."""
    return float(slopes(report.series.looks[name], report.fps)[0])


def change(name: str, report: Report) -> float:
    """Of a measure from start to end, in percent."""
    start, end = (float(value) for value in report.series.ends(name))
    return 100 * (end - start) / start


FIGURES: dict[str, Callable[[Report], float]] = {
    "drift of the mean colour": lambda report: report.series.drift()["lab_mean"],
    "drift of the colour histogram": lambda report: report.series.drift()["hsv"],
    "change of contrast, %": partial(change, "contrast"),
    "change of sharpness, %": partial(change, "laplacian"),
    "change of fine detail, %": partial(change, "high_frequency"),
    "slope of lightness, a second": partial(slope, "lab_mean"),
    "slope of contrast, a second": partial(slope, "contrast"),
    "motion": lambda report: report.series.motion,
    "flow": lambda report: report.series.flow,
    "joins, mean": lambda report: float(report.joins.mean()),
    "joins, at most": lambda report: float(report.joins.max()),
    "contrast of a section's first 4 frames, %": lambda report: 100 * report.beginning("contrast"),
    "sharpness of a section's first 4 frames, %": lambda report: 100 * report.beginning("laplacian"),
}


def spelled(values: list[float]) -> str:
    low, middle, high = np.percentile(values, (5, 50, 95))
    return f"{middle:8.2f}  ({low:.2f} to {high:.2f})"


if __name__ == "__main__":
    main()
