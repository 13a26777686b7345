"""A video's measures over time, and how far its end has drifted from its start (the paper's start-end contrast).

    |M(first 15% of the frames) - M(last 15%)|  for measures M of single frames

A still video drifts least, so report `motion` and `flow` with it. What comes back is missed by it and seen by `slopes`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from .looks import LOOKS, changes_of, flows_of, looks_of, luma

SHARE = 0.15
PIXELS, MOST = 1 << 20, 64  # of a part that is measured at once, and its frames; few pixels stay in the caches


@dataclass(frozen=True)
class Series:
    """Measures of a video of F frames, `width` by `height` pixels.

    `looks` has those of each frame, `F n`, by the names in LOOKS; `changes` the mean change of brightness into each frame but
    the first, `F-1`; `moved` and `edges` are `flows_of` the same.
    """

    looks: Mapping[str, Tensor]
    changes: Tensor
    moved: Tensor
    edges: Tensor
    width: int
    height: int

    @classmethod
    def of(cls, frames: Iterable[np.ndarray]) -> Series:
        """Of frames `H W 3` in uint8, as they arrive.

        Raises ValueError for fewer than two, for smaller ones than 4 by 4, and if their sizes differ.
        """
        looks, changes, flows = [], [], []
        height = width = 0
        for part, first in parts(frames):
            height, width = part.shape[1:3]
            grey, new = luma(part), slice(0 if first else 1, None)
            looks.append(looks_of(part[new], grey[new]))
            changes.append(changes_of(grey))
            flows.append(flows_of(grey))
        if not looks:
            raise ValueError("a video of fewer than two frames has no start and end to compare; use a longer one")
        moved, edges = (torch.cat(each) for each in zip(*flows, strict=True))
        joined = {name: torch.cat([one[name] for one in looks]) for name in LOOKS}
        return cls(joined, torch.cat(changes), moved, edges, width, height)

    @property
    def frames(self) -> int:
        return len(self.changes) + 1

    @property
    def motion(self) -> float:
        """Mean change of brightness from frame to frame, in levels of 255."""
        return float(self.changes.mean())

    @property
    def flow(self) -> float:
        """Mean speed along the brightness gradient, in pixels a frame, weighted by the gradient."""
        strength = float(self.edges.sum())
        return float(self.moved.sum()) / strength if strength else 0.0

    def ends(self, name: str) -> tuple[Tensor, Tensor]:
        """The mean of a measure over the first and the last `SHARE` of the frames, `n` each."""
        count = max(1, round(SHARE * self.frames))
        values = self.looks[name]
        return values[:count].mean(dim=0), values[-count:].mean(dim=0)

    def drift(self) -> dict[str, float]:
        """By the names in LOOKS. `lab_mean` and `lab_std` are distances in CIE Lab, `hsv` half the L1 distance of histograms
        (0 to 1), the others plain differences."""
        return {name: distance(name, *self.ends(name)) for name in LOOKS}

    def from_start(self, name: str) -> Tensor:
        """How far each frame is from the video's start, in the measure of `drift`, `F`."""
        start, _ = self.ends(name)
        apart = self.looks[name] - start
        return apart.abs().sum(dim=1) / 2 if name == "hsv" else apart.norm(dim=1)

    def joins(self, borders: Sequence[int], others: Sequence[int]) -> Tensor:
        """The change into each of the frames `borders`, relative to the median of that into `others`.

        1 is no visible join. Compare frames with which latent frames begin, since a VAE's own seams lie between these. Raises
        ValueError if a frame is not in the video, or is its first.
        """
        if wrong := [frame for frame in (*borders, *others) if not 0 < frame < self.frames]:
            raise ValueError(f"nothing changes into frame {wrong[0]} of a video of {self.frames}")
        usual = self.changes[[frame - 1 for frame in others]] if others else self.changes
        return self.changes[[frame - 1 for frame in borders]] / usual.quantile(0.5).clamp_min(1e-6)


def slopes(values: Tensor, fps: float) -> Tensor:
    """How much `values` `F n` of a video's frames change a second: the slopes of the straight lines nearest to them, `n`."""
    seconds = torch.arange(len(values), dtype=torch.float64) / fps
    seconds -= seconds.mean()
    return (seconds @ (values - values.mean(dim=0)).double() / seconds.square().sum()).float()


def distance(name: str, one: Tensor, other: Tensor) -> float:
    """Between two values of a measure, as in `Series.drift`."""
    return float((one - other).abs().sum() / 2 if name == "hsv" else (one - other).norm())


def parts(frames: Iterable[np.ndarray]) -> Iterator[tuple[np.ndarray, bool]]:
    """Frames together, `n H W 3` with n > 1, and whether they are the first. Others begin with the last frame before them."""
    part: list[np.ndarray] = []
    first = True
    for frame in frames:
        if min(frame.shape[:2]) < 4:
            raise ValueError(f"frames are {frame.shape[1]}x{frame.shape[0]}; use 4x4 or larger ones")
        if part and frame.shape != part[0].shape:
            raise ValueError(f"frames of a video have one size, but {frame.shape[1]}x{frame.shape[0]} follows "
                             f"{part[0].shape[1]}x{part[0].shape[0]}; resize them first")  # fmt: skip
        part.append(frame)
        if len(part) > min(MOST, max(PIXELS // frame[..., 0].size, 1)):
            yield np.stack(part), first
            part, first = part[-1:], False
    if len(part) > 1:
        yield np.stack(part), first
