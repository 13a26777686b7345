"""What a video shows, measured against the world it should show: where each shape is, and whether it does what it was told.

    tracks = follow(frames, scene)             # frames uint8 F 128 128 3, one Track for each of scene.actors
    obeys("left", tracks[0])
    comeback(tracks[0])                        # is it the same after it was away?

A shape is found by its colour alone. The world's backgrounds are greyish and its shapes are not, so a pixel belongs to a shape
when its chroma (the colour less its mean) lies more than half way from the background's to the shape's. A shape that has lost
half of its colour, or turned into another one, counts as lost.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cache

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from ..drift import to_lab
from .world import (
    BOUNCE_FRAMES,
    COLORS,
    GROWTH,
    GROWTH_FRAMES,
    MOTIONS,
    ORBIT_FRAMES,
    SHAPES,
    SIZE,
    SPEED,
    SPIN,
    Scene,
    signed_distance,
)

CHUNK = 128  # frames at once
SMALLEST = 12  # pixels of area below which nothing is seen
AWAY = 48  # frames: no shape of the world is out of sight for so long
LAG = 4  # frames between the two positions of a step: one latent frame

SYMMETRY = {"circle": 0.0, "square": math.tau / 4, "triangle": math.tau / 3, "star": math.tau / 5, "cross": math.tau / 4}
_TURN = math.radians(3)  # between two templates
_GRID, _SPAN = 32, 1.8  # of a template: its pixels, and half its width in radii of the circle of the same area

_HALF = 0.5  # of the program's rate: a slower motion does not count as one
_MOSTLY = 0.75  # of the way goes in the right direction
_STAYS = 8.0  # pixels that a shape may wander and still be in its place


@dataclass(frozen=True)
class Track:
    """One shape through a video, a value a frame; not a number where it was not seen.

    `area` in pixels, 0 where not seen; `x`, `y` the center of what is seen; `edges` `F 4` its left, right, top and bottom, not
    numbers where it is cut off by the border; `lab` `F 3` the mean colour of its inside. `clear` where no shape in front
    touches it, `whole` where it is clear and not cut off. Where whole, `kind` is the index in SHAPES of the best template,
    `fit` the overlap (intersection over union) with its own shape's, `angle` how far that is turned, in radians, up to the
    symmetry. `share` is how much of all that has its colour is in this one place.
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
        """The track of a part of the video."""
        return Track(self.shape, *(getattr(self, name)[frames] for name in self.__dataclass_fields__ if name != "shape"))


def follow(frames: np.ndarray, scene: Scene) -> tuple[Track, ...]:
    """Find every actor of the scene in a video, uint8 `F 128 128 3`, whose first frame shows the scene's start.

    Raises ValueError for another shape.
    """
    if frames.shape[1:] != (SIZE, SIZE, 3):
        raise ValueError(f"a video of shape {frames.shape} is none of the world's; expected F {SIZE} {SIZE} 3")
    parts = [_follow(frames[start : start + CHUNK], scene) for start in range(0, len(frames), CHUNK)]
    return tuple(_joined(tracks) for tracks in zip(*parts, strict=True))


def obeys(motion: str, track: Track) -> bool:
    """Whether the shape is one shape and moves as the motion's word says. `OBEYS` holds the criterion of each.

    Rates may be as low as half those of the world; what counts is the kind of motion. Raises ValueError for an unknown word.
    """
    if motion not in OBEYS:
        raise ValueError(f"motion is {motion!r}; choose one of {', '.join(MOTIONS)}")
    return bool(np.count_nonzero(track.clear) > LAG and is_one_shape(track) and OBEYS[motion](track))


def is_one_shape(track: Track) -> bool:
    """Neither a smear, which fits its own template badly, nor several pieces of one colour."""
    pieces = np.median(track.share[track.clear]) < 0.75 if track.clear.any() else True
    smear = track.whole.any() and np.median(track.fit[track.whole]) < 0.6
    return not (pieces or smear)


def hidden(track: Track) -> bool:
    """Whether a shape in front covers or touches it for so long that its motion cannot be judged."""
    return bool(np.count_nonzero(track.clear) < 0.6 * np.count_nonzero(track.seen))


def color_distance(track: Track, start: Track) -> float:
    """Lab distance of the colour in the last latent frame that shows the shape from that at the start of another track."""
    views = np.flatnonzero(_shown(track))
    return _lab_distance(track.lab[views[-LAG:]], start.lab[_shown(start)][:LAG]) if len(views) else math.nan


def lost(track: Track) -> bool:
    """Whether it is not to be seen at the end, for longer than any shape of the world is ever away."""
    return not _shown(track)[-AWAY:].any()


def same_kind(track: Track) -> float:
    """The share of whole views in which the best of all templates is the shape's own."""
    return float(np.mean(track.kind[track.whole] == SHAPES.index(track.shape))) if track.whole.any() else math.nan


def fit(track: Track) -> float:
    """Mean overlap of what was found with the shape's own template, over whole views."""
    return float(np.mean(track.fit[track.whole])) if track.whole.any() else math.nan


def speed(track: Track) -> float:
    """Mean pixels a frame."""
    steps = _steps(track)
    return float(np.hypot(*steps.T).mean()) if len(steps) else math.nan


@dataclass(frozen=True)
class Comeback:
    """A shape that left the picture whole and was seen whole again: how far its colour and its form are from before."""

    away: int
    color: float
    fit_before: float
    fit_after: float
    same: bool


def comeback(track: Track) -> Comeback | None:
    """The first return after a time out of sight, or None when it never left or never came back whole.

    Before and after are medians over up to 16 whole views nearest to the gap.
    """
    gone = _first_gap(track)
    if gone is None:
        return None
    leaves, returns = gone
    before, after = np.flatnonzero(track.whole[:leaves])[-16:], returns + np.flatnonzero(track.whole[returns:])[:16]
    if not len(before) or not len(after):
        return None
    kinds = [np.bincount(track.kind[views], minlength=len(SHAPES)).argmax() for views in (before, after)]
    return Comeback(
        away=returns - leaves,
        color=_lab_distance(track.lab[before], track.lab[after]),
        fit_before=float(track.fit[before].mean()),
        fit_after=float(track.fit[after].mean()),
        same=bool(kinds[0] == kinds[1]),
    )


def _goes(dx: int, dy: int):
    """Most steps lead that way: the median one at half the world's speed, little of the way elsewhere."""

    def judge(track: Track) -> bool:
        steps = _steps(track)
        if len(steps) < LAG:
            return False
        along, across = steps @ (dx, dy), steps @ (-dy, dx)
        way = np.hypot(along, across).sum()
        straight = along.clip(0).sum() >= _MOSTLY * way
        return bool(np.median(along) >= _HALF * SPEED and abs(np.median(across)) <= np.median(along) / 2 and straight)

    return judge


def _bounces(track: Track) -> bool:
    """Goes up and comes down, or the reverse, by 20 pixels or more, and stays in its column. In less than a whole
    bounce the way back is not asked for."""
    x, y = _path(track)
    if np.mean(track.whole) < 0.5 or np.ptp(x) > _STAYS or np.ptp(y) < 20:
        return False
    way = np.diff(y)
    if np.abs(way).max() > SIZE / 2:  # out at one side, in at the other
        return False
    up, down = way.clip(max=0).sum(), way.clip(0).sum()
    return track.frames < BOUNCE_FRAMES or min(-up, down) >= 0.25 * (down - up)


def _orbits(track: Track) -> bool:
    """Goes round the center clockwise at half the world's rate or faster, and its heading turns as much."""
    x, y = _path(track)
    if np.mean(track.whole) < 0.5 or len(x) < 3 * LAG:
        return False
    dx, dy = x - SIZE / 2, y - SIZE / 2
    turns = np.diff(np.unwrap(np.arctan2(dy, dx)))
    heading = np.unwrap(np.arctan2(y[LAG:] - y[:-LAG], x[LAG:] - x[:-LAG]))
    least = _HALF * math.tau / ORBIT_FRAMES * (len(x) - 1)
    distance = np.hypot(dx, dy)
    round_it = turns.sum() >= least and turns.clip(0).sum() >= _MOSTLY * np.abs(turns).sum()
    return bool(round_it and heading[-1] - heading[0] >= _HALF * turns.sum() and np.ptp(distance) <= 0.6 * distance.mean())


def _grows(track: Track) -> bool:
    """Ends larger than it began, by half of what the world's shapes grow in that time or more, wider and higher too where
    that can be seen, in its place."""
    size = _sizes(track)
    expected = (GROWTH - 1) * min(track.frames / GROWTH_FRAMES, 1)
    left, right, top, bottom = track.edges[track.whole].T
    spans = [_smooth(span) for span in (right - left, bottom - top)]
    grown = [size[-1] / size[0], *(span.max() / span[0] for span in spans if len(span) > track.frames / 2)]
    return bool(np.mean(track.clear) >= 0.5 and min(grown) >= 1 + _HALF * expected and _wander(track) <= 2 * _STAYS)


def _spins(track: Track) -> bool:
    """Turns one way, at half the world's rate or faster, in its place and without growing."""
    turns = _turns(track)
    if len(turns) < LAG:
        return False
    net = abs(turns.sum())
    return bool(net >= _HALF * SPIN * len(turns) and net >= _MOSTLY * np.abs(turns).sum() and _stays_as_it_is(track))


def _stops(track: Track) -> bool:
    """Neither moves, nor grows, nor turns by more than 20 degrees."""
    turns = _turns(track)
    return _stays_as_it_is(track) and (not len(turns) or np.abs(turns.cumsum()).max() <= math.radians(20))


OBEYS = {
    "left": _goes(-1, 0),
    "right": _goes(1, 0),
    "up": _goes(0, -1),
    "down": _goes(0, 1),
    "bounce": _bounces,
    "orbit": _orbits,
    "grow": _grows,
    "spin": _spins,
    "stop": _stops,
}


def _stays_as_it_is(track: Track) -> bool:
    """Whole in most frames, in its place, of its size."""
    size = _sizes(track)
    whole = np.mean(track.whole) >= 0.5
    return bool(whole and _wander(track) <= _STAYS and size.min() / size[0] >= 0.85 and size.max() / size[0] <= 1.15)


def _path(track: Track) -> tuple[np.ndarray, np.ndarray]:
    """The center where it was whole, each the median of a latent frame, so that one bad frame counts for nothing."""
    return _smooth(track.x[track.whole]), _smooth(track.y[track.whole])


def _wander(track: Track) -> float:
    """The largest distance from the first place, over all clear views."""
    x, y = _smooth(track.x[track.clear]), _smooth(track.y[track.clear])
    return float(np.hypot(x - x[0], y - y[0]).max())


def _sizes(track: Track) -> np.ndarray:
    return _smooth(np.sqrt(track.area[track.clear]))


def _turns(track: Track) -> np.ndarray:
    """Radians turned between neighbouring whole views; a circle's cannot be seen."""
    symmetry = SYMMETRY[track.shape]
    if not symmetry:
        return np.empty(0)
    neighbours = track.whole[1:] & track.whole[:-1]
    turns = np.diff(track.angle)[neighbours]
    return (turns + symmetry / 2) % symmetry - symmetry / 2


def _steps(track: Track) -> np.ndarray:
    """Movement over a latent frame, pixels a frame, `n 2`, wherever it was seen all the while.

    Measured on the edges that the border does not cut off, so that a shape on its way out still has its speed.
    """
    moved = (track.edges[LAG:] - track.edges[:-LAG]) / LAG
    sides = moved.reshape(-1, 2, 2)
    free = ~np.isnan(sides)
    steps = np.where(free, sides, 0).sum(axis=2) / np.maximum(free.sum(axis=2), 1)
    throughout = np.stack([track.seen[lag : track.frames - LAG + lag] for lag in range(LAG + 1)]).all(axis=0)
    return steps[throughout & free.any(axis=2).all(axis=1)]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Medians of windows of a latent frame and one more."""
    if len(values) <= LAG:
        return values
    return np.median(np.lib.stride_tricks.sliding_window_view(values, LAG + 1), axis=-1)


def _shown(track: Track) -> np.ndarray:
    """Frames with enough of the shape to tell its colour: a quarter of what is seen at first."""
    first = track.area[track.seen][:1]
    return track.area >= max(SMALLEST, *(first / 4)) if len(first) else track.seen


def _lab_distance(a: np.ndarray, b: np.ndarray) -> float:
    """Between medians over `n 3`."""
    return float(np.linalg.norm(np.median(a, axis=0) - np.median(b, axis=0)))


def _first_gap(track: Track) -> tuple[int, int] | None:
    """(first frame away, first frame back) of the first time out of sight."""
    seen = track.seen
    away = np.flatnonzero(seen[:-1] & ~seen[1:]) + 1
    for leaves in away:
        back = np.flatnonzero(seen[leaves:])
        if len(back) and back[0] >= 2:  # a single missed frame is no leave
            return int(leaves), int(leaves + back[0])
    return None


def _follow(frames: np.ndarray, scene: Scene) -> list[Track]:
    """`follow` for so many frames that their masks fit into memory."""
    covers = _covers(frames, scene)
    blobs = [_largest_blob(cover) for cover in covers]
    return [
        _measure(actor.shape, cover, blob, frames, blobs[:number])
        for number, (actor, cover, blob) in enumerate(zip(scene.actors, covers, blobs, strict=True))
    ]


def _covers(frames: np.ndarray, scene: Scene) -> list[Tensor]:
    """How much of each pixel every actor covers, by its chroma, `F H W` each."""
    chroma = _chroma(torch.from_numpy(np.ascontiguousarray(frames)).float())
    ground = _chroma(torch.tensor(scene.background.colors, dtype=torch.float32)).mean(dim=0)
    ways = torch.stack([_chroma(torch.tensor(COLORS[actor.color]).float()) for actor in scene.actors]) - ground
    covers = ((chroma - ground) @ (ways / ways.square().sum(dim=1, keepdim=True)).T).clamp(0, 1)
    nearest = torch.stack([(chroma - ground - way).square().sum(dim=-1) for way in ways]).argmin(dim=0)
    return [covers[..., number] * (nearest == number) for number in range(len(ways))]


def _chroma(rgb: Tensor) -> Tensor:
    return rgb - rgb.mean(dim=-1, keepdim=True)


def _largest_blob(cover: Tensor) -> Tensor:
    """Pixels connected with the place of most cover, and a margin around them, `F H W` of 0 or 1. Found at half size."""
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
    """(first, last) place where a profile `F n` crosses a half, in pixels; not a number where that is the border."""
    n = profile.shape[1]
    above = profile > 0.5
    first, last = above.float().argmax(dim=1), n - 1 - above.flip(1).float().argmax(dim=1)
    return _crossing(profile, first, -1), _crossing(profile, last, 1)


def _crossing(profile: Tensor, at: Tensor, side: int) -> Tensor:
    """Linear interpolation between the pixel `at` and its neighbour outside."""
    n = profile.shape[1]
    border = at == (0 if side < 0 else n - 1)
    inner = profile.gather(1, at[:, None])[:, 0]
    outer = profile.gather(1, (at + side).clamp(0, n - 1)[:, None])[:, 0]
    share = (inner - 0.5) / (inner - outer).clamp_min(1e-6)
    return (at + 0.5 + side * share).masked_fill(border, math.nan)


def _inside_lab(frames: np.ndarray, cover: Tensor) -> Tensor:
    """Mean colour of the pixels two or more from the edge, or of all that there are, `F 3`."""
    inside = (cover > 0.5).float()
    deep = 1 - F.max_pool2d(1 - inside[:, None], 5, stride=1, padding=2)[:, 0]
    chosen = torch.where(deep.sum(dim=(1, 2), keepdim=True) >= 8, deep, inside) > 0
    frame = chosen.nonzero()[:, 0]
    sums = torch.zeros(len(frames), 3).index_add_(0, frame, to_lab(frames[chosen.numpy()]))
    return sums / torch.bincount(frame, minlength=len(frames)).clamp_min(1)[:, None]


def _compare(shape: str, cover: Tensor, x: Tensor, y: Tensor, area: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """(best of all shapes, overlap with `shape`, its angle), for each frame: the cover against every turned template."""
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
    """(index in SHAPES, angle, cover `n 32*32`) of every shape in every position, all of one area."""
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
