"""Whether a shape does what it was told, and stays what it was, judged by its track.

obeys("left", track)
comeback(track)  # is it the same after being away?
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np

from framepack_core.demo.world import (
    BOUNCE_FRAMES,
    GROWTH,
    GROWTH_FRAMES,
    LORA_MOTION,
    ORBIT_FRAMES,
    SHAPES,
    SIZE,
    SPEED,
    SPIN,
)

from .tracks import SMALLEST, SYMMETRY, Track

AWAY = 48  # frames: no shape of the world is out of sight for this long
LAG = 4  # frames between the two positions of a step: one latent frame

_HALF = 0.5  # of the motion program's rate: slower motion does not count
_MOSTLY = 0.75  # of the way must be in the right direction
_STAYS = 8.0  # pixels that a shape may wander and still count as being in its place


def obeys(motion: str, track: Track) -> bool:
    """Whether the shape is one shape and moves as the motion's word says. `OBEYS` holds each motion's criterion.

    Rates may be as low as half the world's; what counts is the kind of motion. Raises ValueError for an unknown word.
    """
    if motion not in OBEYS:
        raise ValueError(f"motion is {motion!r}; choose one of {', '.join(OBEYS)}")
    return bool(np.count_nonzero(track.clear) > LAG and is_one_shape(track) and OBEYS[motion](track))


def is_one_shape(track: Track) -> bool:
    """Whether it is neither a smear, which fits its own template badly, nor several pieces of one colour."""
    pieces = np.median(track.share[track.clear]) < 0.75 if track.clear.any() else True
    smear = track.whole.any() and np.median(track.fit[track.whole]) < 0.6
    return not (pieces or smear)


def hidden(track: Track) -> bool:
    """Whether a shape in front covers or touches it for too long to judge its motion."""
    return bool(np.count_nonzero(track.clear) < 0.6 * np.count_nonzero(track.seen))


def colour_distance(track: Track, start: Track) -> float:
    """Lab distance between the colour in the last latent frame that shows the shape and that at another track's start."""
    views = np.flatnonzero(_shown(track))
    return _lab_distance(track.lab[views[-LAG:]], start.lab[_shown(start)][:LAG]) if len(views) else math.nan


def lost(track: Track) -> bool:
    """Whether it cannot be seen at the end, for longer than any shape of the world is ever away."""
    return not _shown(track)[-AWAY:].any()


def same_kind(track: Track) -> float:
    """The share of whole views in which the best template is the shape's own."""
    return float(np.mean(track.kind[track.whole] == SHAPES.index(track.shape))) if track.whole.any() else math.nan


def fit(track: Track) -> float:
    """Mean overlap between what was found and the shape's own template, over whole views."""
    return float(np.mean(track.fit[track.whole])) if track.whole.any() else math.nan


def speed(track: Track) -> float:
    """Mean pixels per frame."""
    steps = _steps(track)
    return float(np.hypot(*steps.T).mean()) if len(steps) else math.nan


@dataclass(frozen=True)
class Comeback:
    """A shape left the picture and was seen whole before and after: how far its colour and form have changed."""

    away: int
    colour: float
    fit_before: float
    fit_after: float
    same: bool


def comeback(track: Track) -> Comeback | None:
    """The first return after a time out of sight, or None if it never left or never came back whole.

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
        colour=_lab_distance(track.lab[before], track.lab[after]),
        fit_before=float(track.fit[before].mean()),
        fit_after=float(track.fit[after].mean()),
        same=bool(kinds[0] == kinds[1]),
    )


def _goes(dx: float, dy: float):
    """Most steps go that way: the median step at half the world's speed or more, and little of the way in other directions."""

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
    bounce it need not come back."""
    x, y = _path(track)
    if np.mean(track.whole) < 0.5 or np.ptp(x) > _STAYS or np.ptp(y) < 20:
        return False
    way = np.diff(y)
    if np.abs(way).max() > SIZE / 2:  # it left on one side and came in on the other
        return False
    up, down = way.clip(max=0).sum(), way.clip(0).sum()
    return track.frames < BOUNCE_FRAMES or min(-up, down) >= 0.25 * (down - up)


def _orbits(track: Track) -> bool:
    """Goes round the centre clockwise at half the world's rate or faster, and its heading turns with it."""
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
    """Ends larger than it began, by at least half of what the world's shapes grow in that time, also in width and height where
    these can be seen, and stays in its place."""
    size = _sizes(track)
    expected = (GROWTH - 1) * min(track.frames / GROWTH_FRAMES, 1)
    left, right, top, bottom = track.edges[track.whole].T
    spans = [_smooth(span) for span in (right - left, bottom - top)]
    grown = [size[-1] / size[0], *(span.max() / span[0] for span in spans if len(span) > track.frames / 2)]
    return bool(np.mean(track.clear) >= 0.5 and min(grown) >= 1 + _HALF * expected and _wander(track) <= 2 * _STAYS)


def _spins(track: Track) -> bool:
    """Turns one way at half the world's rate or faster, in its place and without growing."""
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
    LORA_MOTION: _goes(math.sqrt(0.5), math.sqrt(0.5)),
}


def _stays_as_it_is(track: Track) -> bool:
    """Whether it is whole in most frames, in its place and of its size."""
    size = _sizes(track)
    whole = np.mean(track.whole) >= 0.5
    return bool(whole and _wander(track) <= _STAYS and size.min() / size[0] >= 0.85 and size.max() / size[0] <= 1.15)


def _path(track: Track) -> tuple[np.ndarray, np.ndarray]:
    """Its centre where it was whole, each value the median over a latent frame, so that one bad frame does not count."""
    return _smooth(track.x[track.whole]), _smooth(track.y[track.whole])


def _wander(track: Track) -> float:
    """Its largest distance from its first place, over all clear views."""
    x, y = _smooth(track.x[track.clear]), _smooth(track.y[track.clear])
    return float(np.hypot(x - x[0], y - y[0]).max())


def _sizes(track: Track) -> np.ndarray:
    return _smooth(np.sqrt(track.area[track.clear]))


def _turns(track: Track) -> np.ndarray:
    """Radians turned between neighbouring whole views; none for a circle, whose turning cannot be seen."""
    symmetry = SYMMETRY[track.shape]
    if not symmetry:
        return np.empty(0)
    neighbours = track.whole[1:] & track.whole[:-1]
    turns = np.diff(track.angle)[neighbours]
    return (turns + symmetry / 2) % symmetry - symmetry / 2


def _steps(track: Track) -> np.ndarray:
    """Movement over a latent frame, in pixels per frame, `n 2`, wherever it was seen throughout.

    Measured at the edges that the border does not cut off, so that a shape on its way out still has its speed.
    """
    moved = (track.edges[LAG:] - track.edges[:-LAG]) / LAG
    sides = moved.reshape(-1, 2, 2)
    free = ~np.isnan(sides)
    steps = np.where(free, sides, 0).sum(axis=2) / np.maximum(free.sum(axis=2), 1)
    throughout = np.stack([track.seen[lag : track.frames - LAG + lag] for lag in range(LAG + 1)]).all(axis=0)
    return steps[throughout & np.all(free.any(axis=2), axis=1)]


def _smooth(values: np.ndarray) -> np.ndarray:
    """Medians over windows one frame longer than a latent frame."""
    if len(values) <= LAG:
        return values
    return np.median(np.lib.stride_tricks.sliding_window_view(values, LAG + 1), axis=-1)


def _shown(track: Track) -> np.ndarray:
    """Frames that show enough of the shape to tell its colour: a quarter of what is first seen."""
    first = track.area[track.seen][:1]
    return track.area >= max(SMALLEST, *(first / 4)) if len(first) else track.seen


def _lab_distance(a: np.ndarray, b: np.ndarray) -> float:
    """The distance between medians over `n 3`."""
    return float(np.linalg.norm(np.median(a, axis=0) - np.median(b, axis=0)))


def _first_gap(track: Track) -> tuple[int, int] | None:
    """(first frame away, first frame back) for the first time out of sight."""
    seen = track.seen
    away = np.flatnonzero(seen[:-1] & ~seen[1:]) + 1
    for leaves in away:
        back = np.flatnonzero(seen[leaves:])
        if len(back) and back[0] >= 2:  # a single missed frame does not count as leaving
            return int(leaves), int(leaves + back[0])
    return None
