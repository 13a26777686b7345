"""Where each shape of the demo's world is in a video, found by its colour.

The world's backgrounds are greyish and its shapes are not, so a pixel belongs to a shape if its chroma (the colour minus its
mean) lies more than halfway from the background's to the shape's. A shape that has lost half of its colour or turned into
another colour counts as lost.

    tracks = follow(frames, scene)  # frames uint8 F 128 128 3, one Track for each of scene.actors
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from framepack_core.demo.world import (
    COLOURS,
    SHAPES,
    SIZE,
    Scene,
    signed_distance,
)
from framepack_core.measures.looks import to_lab

CHUNK = 128  # frames at once
SMALLEST = 12  # pixels of area below which a shape counts as not seen

SYMMETRY = {"circle": 0.0, "square": math.tau / 4, "triangle": math.tau / 3, "star": math.tau / 5, "cross": math.tau / 4}
_TURN = math.radians(3)  # between two templates
_GRID, _SPAN = 32, 1.8  # of a template: its pixels, and half its width in radii of the circle of the same area


@dataclass(frozen=True)
class Track:
    """One shape through a video, one value per frame, NaN where it was not seen.

    `area` is in pixels, 0 where it was not seen; `x`, `y` is the centre of what is seen; `edges` `F 4` are its left, right, top
    and bottom, NaN where the border cuts it off; `lab` `F 3` is the mean colour of its inside. It is `clear` where no shape in
    front touches it, and `whole` where it is clear and not cut off. Where it is whole, `kind` is the best template's index in
    SHAPES, `fit` the overlap (intersection over union) with its own shape's, and `angle` how far that is turned, in radians, up
    to its symmetry. `share` is how much of everything in its colour is in this one place.
    """

    shape: str
    area: np.ndarray
    x: np.ndarray
    y: np.ndarray
    edges: np.ndarray
    lab: np.ndarray
    clear: np.ndarray
    whole: np.ndarray
    kind: np.ndarray
    fit: np.ndarray
    angle: np.ndarray
    share: np.ndarray

    @property
    def frames(self) -> int:
        return len(self.area)

    @property
    def seen(self) -> np.ndarray:
        return self.area > 0

    def __getitem__(self, frames: slice) -> Track:
        """The track in a part of the video."""
        return Track(self.shape, *(getattr(self, name)[frames] for name in self.__dataclass_fields__ if name != "shape"))


def follow(frames: np.ndarray, scene: Scene) -> tuple[Track, ...]:
    """Find every actor of the scene in a video, uint8 `F 128 128 3`, whose first frame shows the scene's start.

    Raises ValueError for an array of another shape.
    """
    if frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"a video of shape {frames.shape} is not of the demo's world; expected F {SIZE} {SIZE} 3")
    parts = [_follow(frames[start : start + CHUNK], scene) for start in range(0, len(frames), CHUNK)]
    return tuple(_joined(tracks) for tracks in zip(*parts, strict=True))


def _follow(frames: np.ndarray, scene: Scene) -> list[Track]:
    """`follow` for few enough frames that their masks fit into memory."""
    covers = _covers(frames, scene)
    blobs = [_largest_blob(cover) for cover in covers]
    return [
        _measure(actor.shape, cover, blob, frames, blobs[:number])
        for number, (actor, cover, blob) in enumerate(zip(scene.actors, covers, blobs, strict=True))
    ]


def _covers(frames: np.ndarray, scene: Scene) -> list[Tensor]:
    """How much of each pixel each actor covers, judged by chroma, `F H W` each."""
    chroma = _chroma(torch.from_numpy(np.ascontiguousarray(frames)).float())
    ground = _chroma(torch.tensor(scene.background.colours, dtype=torch.float32)).mean(dim=0)
    ways = torch.stack([_chroma(torch.tensor(COLOURS[actor.colour]).float()) for actor in scene.actors]) - ground
    covers = ((chroma - ground) @ (ways / ways.square().sum(dim=1, keepdim=True)).T).clamp(0, 1)
    nearest = torch.stack([(chroma - ground - way).square().sum(dim=-1) for way in ways]).argmin(dim=0)
    return [covers[..., number] * (nearest == number) for number in range(len(ways))]


def _chroma(rgb: Tensor) -> Tensor:
    return rgb - rgb.mean(dim=-1, keepdim=True)


def _largest_blob(cover: Tensor) -> Tensor:
    """The pixels connected to the place of most cover, and a margin around them, `F H W` of 0 or 1. Found at half size."""
    inside = F.max_pool2d((cover > 0.5).float()[:, None], 2)
    crowded = F.avg_pool2d(inside, 5, stride=1, padding=2) * inside
    blob = ((crowded == crowded.amax(dim=(2, 3), keepdim=True)) & (crowded > 0)).float()
    size = torch.tensor(0.0)
    while size != (size := blob.sum()):
        for _ in range(4):
            blob = F.max_pool2d(blob, 3, stride=1, padding=1) * inside
    return F.interpolate(F.max_pool2d(blob, 3, stride=1, padding=1), scale_factor=2)[:, 0]


def _measure(shape: str, cover: Tensor, blob: Tensor, frames: np.ndarray, in_front: list[Tensor]) -> Track:
    """The track of one shape from the cover `F H W` of its colour and its blob."""
    everywhere = (cover * (cover > 0.5)).sum(dim=(1, 2))
    cover = cover * blob
    area = cover.sum(dim=(1, 2))
    share = (cover * (cover > 0.5)).sum(dim=(1, 2)) / everywhere.clamp_min(1e-6)
    seen = area >= SMALLEST
    area = area * seen
    cells = torch.arange(SIZE) + 0.5
    weight = area.clamp_min(1e-6)
    x, y = (cover.sum(dim=1) @ cells) / weight, (cover.sum(dim=2) @ cells) / weight
    edges = torch.stack([*_extent(cover.amax(dim=1)), *_extent(cover.amax(dim=2))], dim=1)
    touched = [(F.max_pool2d(other[:, None], 5, 1, 2)[:, 0] * blob).amax(dim=(1, 2)) > 0 for other in in_front]
    clear = seen & ~torch.stack([torch.zeros_like(seen), *touched]).any(dim=0)
    whole = clear & ~edges.isnan().any(dim=1)
    edges[~clear] = math.nan
    kind, fits, angle = _compare(shape, cover, x, y, area)
    return Track(
        shape,
        area.numpy(),
        x.masked_fill(~seen, math.nan).numpy(),
        y.masked_fill(~seen, math.nan).numpy(),
        edges.masked_fill(~seen[:, None], math.nan).numpy(),
        _inside_lab(frames, cover).masked_fill(~seen[:, None], math.nan).numpy(),
        clear.numpy(),
        whole.numpy(),
        kind.masked_fill(~whole, -1).numpy(),
        fits.masked_fill(~whole, math.nan).numpy(),
        angle.masked_fill(~whole, math.nan).numpy(),
        share.masked_fill(~seen, math.nan).numpy(),
    )


def _extent(profile: Tensor) -> tuple[Tensor, Tensor]:
    """(first, last) place where a profile `F n` crosses a half, in pixels; NaN where that is the border."""
    n = profile.shape[1]
    above = profile > 0.5
    first, last = above.float().argmax(dim=1), n - 1 - above.flip(1).float().argmax(dim=1)
    return _crossing(profile, first, -1), _crossing(profile, last, 1)


def _crossing(profile: Tensor, at: Tensor, side: int) -> Tensor:
    """Linear interpolation between the pixel `at` and its outer neighbour."""
    n = profile.shape[1]
    border = at == (0 if side < 0 else n - 1)
    inner = profile.gather(1, at[:, None])[:, 0]
    outer = profile.gather(1, (at + side).clamp(0, n - 1)[:, None])[:, 0]
    share = (inner - 0.5) / (inner - outer).clamp_min(1e-6)
    return (at + 0.5 + side * share).masked_fill(border, math.nan)


def _inside_lab(frames: np.ndarray, cover: Tensor) -> Tensor:
    """Mean colour of the pixels two or more from the edge, or of all if these are too few, `F 3`."""
    inside = (cover > 0.5).float()
    deep = 1 - F.max_pool2d(1 - inside[:, None], 5, stride=1, padding=2)[:, 0]
    chosen = torch.where(deep.sum(dim=(1, 2), keepdim=True) >= 8, deep, inside) > 0
    frame = chosen.nonzero()[:, 0]
    sums = torch.zeros(len(frames), 3).index_add_(0, frame, to_lab(frames[chosen.numpy()]))
    return sums / torch.bincount(frame, minlength=len(frames)).clamp_min(1)[:, None]


def _compare(shape: str, cover: Tensor, x: Tensor, y: Tensor, area: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(best shape, overlap with `shape`, its angle) for each frame, from comparing the cover with every turned template."""
    names, angles, templates = _templates()
    scale = (area.clamp_min(1e-6) / math.pi).sqrt()
    line = torch.linspace(-1, 1, _GRID + 1)[:-1] + 1 / _GRID
    gy, gx = torch.meshgrid(line * _SPAN, line * _SPAN, indexing="ij")
    grid = torch.stack([x[:, None, None] + gx * scale[:, None, None], y[:, None, None] + gy * scale[:, None, None]], dim=-1)
    views = F.grid_sample(cover[:, None], grid / SIZE * 2 - 1, align_corners=False)[:, 0].flatten(1)
    apart = torch.cdist(views, templates, p=1)
    both = views.sum(dim=1, keepdim=True) + templates.sum(dim=1)
    overlap = (both - apart) / (both + apart)
    own = names == SHAPES.index(shape)
    fits, best = overlap[:, own].max(dim=1)
    return names[overlap.argmax(dim=1)], fits, angles[own][best]


@cache
def _templates() -> tuple[Tensor, Tensor, Tensor]:
    """(index in SHAPES, angle, cover `n 32*32`) of every shape at every angle, all of the same area."""
    line = (np.arange(_GRID) + 0.5) / _GRID * 2 - 1
    x, y = np.meshgrid(line * _SPAN, line * _SPAN)
    names, angles, covers = [], [], []
    for index, shape in enumerate(SHAPES):
        radius = _radius_of_unit_area(shape)
        for step in range(max(1, round(SYMMETRY[shape] / _TURN))):
            angle = step * _TURN
            cos, sin = math.cos(angle), math.sin(angle)
            distance = signed_distance(shape, cos * x + sin * y, cos * y - sin * x, radius)
            names.append(index)
            angles.append(angle)
            covers.append(np.clip(0.5 - distance * _GRID / (2 * _SPAN), 0, 1).flatten())
    return torch.tensor(names), torch.tensor(angles), torch.tensor(np.stack(covers), dtype=torch.float32)


def _radius_of_unit_area(shape: str) -> float:
    """The radius at which the shape has the area of a circle of radius 1."""
    y, x = (np.mgrid[:400, :400] + 0.5) / 200 - 1
    share = np.mean(signed_distance(shape, x * 1.01, y * 1.01, 1.0) < 0) * 4 * 1.01**2
    return math.sqrt(math.pi / share)


def _joined(tracks: tuple[Track, ...]) -> Track:
    names = [name for name in Track.__dataclass_fields__ if name != "shape"]
    return Track(tracks[0].shape, *(np.concatenate([getattr(track, name) for track in tracks]) for name in names))
