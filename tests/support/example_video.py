"""The video that a user chooses in the templates that begin with one."""

from pathlib import Path

import numpy
import torch

from framepack_core.demo.scenes import UNSEEN
from framepack_core.demo.world import Scene
from framepack_core.media.video import Encoding, Footage, write_video

NAME = "example.mp4"
FRAMES = 41  # 11 latent frames
SEED = 12  # a pink circle on the left, on a smooth background


def write_example_video(folder: Path) -> None:
    """Write it, of `FRAMES` frames at 30 fps, where Load Video finds it."""
    folder.mkdir(parents=True, exist_ok=True)
    frames = torch.from_numpy(example_frames()) / 255
    write_video(folder / NAME, Footage.of(frames), Encoding(crf=0, pixel_format="yuv444p"))


def example_frames() -> numpy.ndarray:
    """uint8 `F H W 3`."""
    return Scene.draw(UNSEEN + SEED).render(FRAMES)
