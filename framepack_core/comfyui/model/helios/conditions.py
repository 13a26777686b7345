"""A section's history as a ComfyUI condition, for one stage of Helios' pyramid."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Self

import torch
from torch import Tensor

from ....filling import Section
from ....packing import Context
from ..conditions import PackedContext

STAGE_KEY = "helios"  # a stage's PackedStage in a conditioning dict
THETA = 10000.0


@dataclass(frozen=True)
class Timesteps:
    """The timestep that the model is told at each of a stage's `sigmas`, two lists of the same length."""

    sigmas: Tensor
    timesteps: Tensor

    def to(self, device: torch.device) -> Timesteps:
        return Timesteps(self.sigmas.to(device), self.timesteps.to(device))


class PackedStage(PackedContext):
    """One section's history at the size of the video, and the generated frames at the size of a stage.

    `history_size` and `target_size` are latent heights and widths. Unlike FramePack's, latents are in the model's space.
    Without `timesteps`, the model is told 1000 times sigma.
    """

    axis = 1

    def __init__(
        self,
        context: Context,
        history_size: tuple[int, int],
        target_size: tuple[int, int],
        axes: Sequence[int],
        timesteps: Timesteps | None = None,
    ) -> None:
        super().__init__(context, *history_size, axes, THETA, target_size)
        self.timesteps = timesteps

    @classmethod
    def without_history(cls, frames: int, height: int, width: int, axes: Sequence[int]) -> PackedStage:
        """No history, for samplers that know nothing of sections."""
        section = Section(0, tuple(range(frames)), tuple(range(frames)), ())
        return cls(Context(section, ()), (height, width), (height, width), axes)

    def to(self, device: torch.device) -> Self:
        moved = super().to(device)
        if moved is not self and self.timesteps is not None:
            moved.timesteps = self.timesteps.to(device)
        return moved
