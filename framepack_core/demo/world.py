"""A synthetic world whose videos are known in every frame: coloured shapes that move on textured backgrounds.

    scene = Scene.draw(seed=7)
    scene.caption          # "a red star moves left on a striped background"
    video = scene.render(frames=145)   # uint8 F H W 3
    scene.truth(frame=40)  # where every shape is, how large, how far turned

Frame 0 looks the same whatever the motion, so that a start image leaves the motion to the prompt. Lengths are in pixels of a
128 x 128 picture, times in frames; the video is meant to run at 30 frames per second.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import NamedTuple

import numpy as np

SIZE = 128
FPS = 30

COLOURS: dict[str, tuple[int, int, int]] = {
    "red": (214, 38, 38),
    "orange": (245, 138, 20),
    "yellow": (242, 222, 45),
    "green": (38, 166, 66),
    "cyan": (45, 200, 214),
    "blue": (45, 75, 220),
    "purple": (146, 56, 196),
    "pink": (246, 122, 182),
}
SHAPES = ("circle", "square", "triangle", "star", "cross")
MOTIONS: dict[str, tuple[str, ...]] = {
    "left": ("moves left", "moves to the left"),
    "right": ("moves right", "moves to the right"),
    "up": ("moves up", "moves upwards"),
    "down": ("moves down", "moves downwards"),
    "bounce": ("bounces", "bounces up and down"),
    "orbit": ("orbits", "orbits the center"),
    "grow": ("grows", "gets bigger"),
    "spin": ("spins", "spins around"),
    "stop": ("stands still", "does not move"),
}
LORA_MOTION = "diagonal"  # known to the demo's LoRA only, by words that the text encoder knows
LORA_WORDS = ("moves right and down",)
BACKGROUNDS: dict[str, str] = {
    "gradient": "smooth",
    "stripes": "striped",
    "checks": "checkered",
    "dots": "dotted",
    "clouds": "cloudy",
}

SPEED = 1.0  # pixels per frame, of everything that moves in a straight line
MARGIN = 4.0  # pixels that a shape travels unseen before it comes back on the other side
BOUNCE_HEIGHT, BOUNCE_FRAMES = 40.0, 72
ORBIT_FRAMES = 144
GROWTH, GROWTH_FRAMES = 2.2, 144
SPIN = math.radians(3.0)  # per frame
RADII = (12.0, 17.0)
DISTANCES = (24.0, 46.0)  # of a shape's start from the centre

_DIRECTIONS = {"left": (-1, 0), "right": (1, 0), "up": (0, -1), "down": (0, 1), LORA_MOTION: (math.sqrt(0.5), math.sqrt(0.5))}


class Placement(NamedTuple):
    """One shape in one frame: its centre, its radius, how far it is turned (radians, clockwise), whether any of it shows."""

    x: float
    y: float
    radius: float
    angle: float
    visible: bool


@dataclass(frozen=True)
class Actor:
    """A shape and its motion program, and the one that it has from a frame on, if it changes.

    `x`, `y`, `radius` and `angle` are those of frame 0.
    """

    shape: str
    colour: str
    motion: str
    x: float
    y: float
    radius: float
    angle: float = 0.0
    then: tuple[int, str] | None = None

    def at(self, frame: int) -> Placement:
        """Where the shape's motion program has brought it by this frame."""
        if self.then is not None:
            begin, motion = self.then
            before = replace(self, then=None)
            if frame > begin:
                x, y, radius, angle, _ = before.at(begin)
                return replace(before, motion=motion, x=x, y=y, radius=radius, angle=angle).at(frame - begin)
        x, y, radius, angle = self.x, self.y, self.radius, self.angle
        if self.motion in _DIRECTIONS:
            dx, dy = _DIRECTIONS[self.motion]
            x = _wrapped(x, dx * SPEED * frame, radius) if dx else x
            y = _wrapped(y, dy * SPEED * frame, radius) if dy else y
        elif self.motion == "bounce":
            turn = math.pi * frame / BOUNCE_FRAMES
            low = self.y >= SIZE / 2  # a low shape starts on the floor, a high one falls
            y += -BOUNCE_HEIGHT * abs(math.sin(turn)) if low else BOUNCE_HEIGHT * (1 - abs(math.cos(turn)))
        elif self.motion == "orbit":
            dx, dy = x - SIZE / 2, y - SIZE / 2
            cos, sin = math.cos(math.tau * frame / ORBIT_FRAMES), math.sin(math.tau * frame / ORBIT_FRAMES)
            x, y = SIZE / 2 + cos * dx - sin * dy, SIZE / 2 + sin * dx + cos * dy
        elif self.motion == "grow":
            radius *= 1 + (GROWTH - 1) * min(frame / GROWTH_FRAMES, 1)
        elif self.motion == "spin":
            angle += SPIN * frame
        shows = -radius < x < SIZE + radius and -radius < y < SIZE + radius
        return Placement(x, y, radius, angle, shows)


@dataclass(frozen=True)
class Background:
    """A muted texture between two colours; `phase`, `angle` and `period` shape it, `seed` draws clouds."""

    kind: str
    colours: tuple[tuple[int, int, int], tuple[int, int, int]]
    angle: float
    period: float
    phase: float
    seed: int


@dataclass(frozen=True)
class Scene:
    """What is in a video and what happens. The first actor is drawn last, in front of the others."""

    actors: tuple[Actor, ...]
    background: Background
    caption: str

    @classmethod
    def draw(cls, seed: int, shapes: int | None = None) -> Scene:
        """The scene of a seed with `shapes` shapes (None: one, sometimes two)."""
        rng = np.random.default_rng([seed, 0])
        count = shapes or (2 if rng.random() < 0.15 else 1)
        actors = _draw_actors(rng, count)
        background = _draw_background(rng)
        return cls(actors, background, caption(actors, background, rng))

    def with_motion(self, motion: str, seed: int = 0) -> Scene:
        """The same picture with another motion program for its first shape."""
        actors = (replace(self.actors[0], motion=motion), *self.actors[1:])
        return replace(self, actors=actors, caption=caption(actors, self.background, np.random.default_rng([seed, 1])))

    def changed(self, frame: int, motion: str) -> Scene:
        """The same video, but from this frame on its first shape has another motion program. The caption stays."""
        return replace(self, actors=(replace(self.actors[0], then=(frame, motion)), *self.actors[1:]))

    def truth(self, frame: int) -> tuple[Placement, ...]:
        return tuple(actor.at(frame) for actor in self.actors)

    def render(self, frames: int, start: int = 0, size: int = SIZE) -> np.ndarray:
        """Frames `start` to `start + frames - 1` as uint8 `F size size 3`."""
        video = np.repeat(paint_background(self.background, size)[None], frames, axis=0)
        for actor in self.actors[::-1]:
            colour = np.array(COLOURS[actor.colour], dtype=np.float32)
            for number, canvas in enumerate(video):
                _paint(canvas, actor.shape, colour, actor.at(start + number), size)
        return np.rint(video).astype(np.uint8)

    def mask(self, actor: int, frame: int, size: int = SIZE) -> np.ndarray:
        """How much of each pixel the actor covers in a frame, float32 `size size`, without what others in front hide."""
        canvas = np.zeros((size, size, 1), dtype=np.float32)
        for number in range(actor, -1, -1):
            colour = np.ones(1, np.float32) if number == actor else np.zeros(1, np.float32)
            _paint(canvas, self.actors[number].shape, colour, self.actors[number].at(frame), size)
        return canvas[..., 0]


def caption(actors: Sequence[Actor], background: Background, rng: np.random.Generator) -> str:
    """Plain English for what happens; the wording, and whether it names the background, are random."""
    clauses = []
    for actor in actors:
        words = LORA_WORDS if actor.motion == LORA_MOTION else MOTIONS[actor.motion]
        article = "an" if actor.colour == "orange" else "a"
        clauses.append(f"{article} {actor.colour} {actor.shape} {rng.choice(words)}")
    text = " and ".join(clauses)
    return f"{text} on a {BACKGROUNDS[background.kind]} background" if rng.random() < 0.7 else text


def signed_distance(shape: str, x: np.ndarray, y: np.ndarray, radius: float) -> np.ndarray:
    """Pixels from the shape's outline, negative inside; `x` and `y` are in the shape's own axes, y downwards.

    Exact on the outline and of about unit slope near it, which is what a smooth edge needs.
    """
    if shape == "circle":
        return np.hypot(x, y) - radius
    if shape == "square":
        return np.maximum(abs(x), abs(y)) - 0.85 * radius
    if shape == "triangle":
        slanted = math.sqrt(3) / 2 * abs(x) - y / 2
        return np.maximum(slanted, y) - radius / 2
    if shape == "cross":
        arm = 0.36 * radius
        return np.minimum(np.maximum(abs(x) - radius, abs(y) - arm), np.maximum(abs(y) - radius, abs(x) - arm))
    if shape == "star":
        sector = math.tau / 5
        turn = abs((np.arctan2(x, -y) + sector / 2) % sector - sector / 2)
        length = np.hypot(x, y)
        inner = 0.5 * radius
        px, py = length * np.cos(turn), length * np.sin(turn)
        ex, ey = inner * math.cos(sector / 2) - radius, inner * math.sin(sector / 2)
        return (ey * (px - radius) - ex * py) / math.hypot(ex, ey)
    raise ValueError(f"shape is {shape!r}; choose one of {', '.join(SHAPES)}")


def paint_background(background: Background, size: int = SIZE) -> np.ndarray:
    """The texture, float32 `size size 3` in 0..255."""
    y, x = (np.mgrid[:size, :size].astype(np.float32) + 0.5) * (SIZE / size)
    cos, sin = math.cos(background.angle), math.sin(background.angle)
    along, across = cos * x + sin * y, cos * y - sin * x
    wave = math.tau / background.period
    if background.kind == "gradient":
        share = 0.5 + (along - along.mean()) / SIZE
    elif background.kind == "stripes":
        share = 0.5 + 0.5 * np.tanh(2 * np.sin(wave * along + background.phase))
    elif background.kind == "checks":
        share = 0.5 + 0.5 * np.tanh(3 * np.sin(wave * along + background.phase) * np.sin(wave * across + background.phase))
    elif background.kind == "dots":
        share = np.clip(np.cos(wave * along + background.phase) * np.cos(wave * across) * 2 - 0.6, 0, 1)
    else:
        share = _clouds(background, x, y)
    low, high = (np.array(colour, dtype=np.float32) for colour in background.colours)
    return low + np.clip(share, 0, 1)[..., None] * (high - low)


def _clouds(background: Background, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    rng = np.random.default_rng([background.seed, 2])
    share = np.full_like(x, 0.5)
    for _ in range(8):
        angle, period, phase = rng.uniform(0, math.tau), rng.uniform(24, 96), rng.uniform(0, math.tau)
        share += 0.14 * np.sin(math.tau / period * (math.cos(angle) * x + math.sin(angle) * y) + phase)
    return share


def _paint(canvas: np.ndarray, shape: str, colour: np.ndarray, place: Placement, size: int) -> None:
    """Blend one shape into a frame `size size C`, in place; only its own box is touched."""
    scale = size / SIZE
    x, y, radius = place.x * scale, place.y * scale, place.radius * scale
    left, top = (max(int(centre - radius - 2), 0) for centre in (x, y))
    right, bottom = (max(min(int(centre + radius + 3), size), 0) for centre in (x, y))
    if left >= right or top >= bottom:
        return
    dy, dx = np.mgrid[top:bottom, left:right].astype(np.float32) + 0.5
    dx, dy = dx - x, dy - y
    cos, sin = math.cos(place.angle), math.sin(place.angle)
    distance = signed_distance(shape, cos * dx + sin * dy, cos * dy - sin * dx, radius)
    cover = np.clip(0.5 - distance, 0, 1)[..., None]
    box = canvas[top:bottom, left:right]
    box += cover * (colour - box)


def _wrapped(start: float, travelled: float, radius: float) -> float:
    """A coordinate that wraps around once the shape has left the picture by a margin."""
    edge = radius + MARGIN
    return (start + travelled + edge) % (SIZE + 2 * edge) - edge


def _draw_actors(rng: np.random.Generator, count: int) -> tuple[Actor, ...]:
    """Shapes of different kinds and colours, around the centre and away from each other."""
    shapes = rng.permutation(SHAPES)[:count]
    colours = rng.permutation(list(COLOURS))[:count]
    direction = rng.uniform(0, math.tau)
    actors = []
    for number, (shape, colour) in enumerate(zip(shapes, colours, strict=True)):
        turn = direction + math.tau * number / count + rng.uniform(-0.3, 0.3)
        distance, radius = rng.uniform(*DISTANCES), rng.uniform(*RADII)
        x, y = SIZE / 2 + distance * math.cos(turn), SIZE / 2 + distance * math.sin(turn)
        motions = [motion for motion in MOTIONS if (motion, shape) != ("spin", "circle")]  # nobody sees a circle spin
        actors.append(Actor(str(shape), str(colour), str(rng.choice(motions)), x, y, radius))
    return tuple(actors)


def _draw_background(rng: np.random.Generator) -> Background:
    """Two greyish colours of different lightness, so that every shape stands out."""
    lightness = rng.uniform(70, 150)
    contrast = rng.uniform(30, 60)
    tint = rng.uniform(-14, 14, size=3)
    low, high = (_colour(level + tint) for level in (lightness, lightness + contrast))
    return Background(
        kind=str(rng.choice(list(BACKGROUNDS))),
        colours=(low, high),
        angle=rng.uniform(0, math.pi),
        period=rng.uniform(20, 40),
        phase=rng.uniform(0, math.tau),
        seed=int(rng.integers(1 << 31)),
    )


def _colour(levels: np.ndarray) -> tuple[int, int, int]:
    red, green, blue = (int(value) for value in np.clip(levels, 0, 255))
    return red, green, blue
