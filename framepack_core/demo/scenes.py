"""Start images for the demo's models, as ComfyUI's images."""

from __future__ import annotations

import torch
from torch import Tensor

from .world import Scene

UNSEEN = 3_000_000  # scenes from this seed on are never trained on


def draw_scene(seed: int) -> tuple[Tensor, str]:
    """A picture `1 H W 3` of the demo's world and a sentence about what could happen in it."""
    scene = Scene.draw(UNSEEN + seed)
    return picture(scene), scene.caption


def picture(scene: Scene) -> Tensor:
    """The first frame `1 H W 3` in 0..1."""
    return torch.from_numpy(scene.render(1)) / 255
