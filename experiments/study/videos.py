"""The videos that the experiments consist of. One video serves every experiment that asks for it."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass, fields, replace
from itertools import permutations
from typing import Literal

from framepack_core.demo.world import MOTIONS, SIZE, Scene
from framepack_core.frames import pixel_frames
from framepack_core.orders import FORWARD, INVERTED, ORDERS, Paddings
from framepack_core.plan import Plan

HELD_OUT = 2_000_000  # seeds of scenes from here on are never trained on
WINDOW = 9
SAMPLER = "unipc_bh1"  # of all videos whose experiment does not compare samplers

# Layouts besides each order's own; the inverted order uses them mirrored.
OTHER_LAYOUTS: tuple[tuple[str, str], ...] = (
    ("forward", "vanilla"),
    ("forward", "geometric"),
    ("forward", "duplicated"),
    ("forward", "important-start"),
    ("forward", "symmetric"),
    ("inverted", "geometric"),
    ("inverted", "duplicated"),
)
CONFIGURATIONS: tuple[tuple[str, str], ...] = (
    *((order.name, order.layout) for order in ORDERS.values()),
    *OTHER_LAYOUTS,
)

TAILS = {"deleted": "vanilla", "pooled, appended": "ta_f16k4f2k2f1k1_g9", "pooled globally": "tc_f16k4f2k2f1k1_g9"}

Source = Literal["model", "world", "vae"]  # made by the model, rendered, or rendered and put through the VAE
Sees = Literal["own", "world"]

LATER = {
    "window": WINDOW,
    "error": 0.0,
    "sees": "own",
    "shapes": None,
    "sampler": SAMPLER,
}  # fields that results made before do not have, with their defaults


@dataclass(frozen=True)
class Video:
    """One video: a held-out scene by number, the `motion` it is told to do, from its middle on `then`, and how it is made:
    with `in_parts`, what comes before its middle first. `cache` is a threshold of FramePack Cache, 0 without one.

    A finished section is worse by an `error`, in standard deviations of the model's latents, before others see it. Sections
    that see the `world` see its latents in the place of those of the video's `own` sections.

    With a number of `shapes`, the scene is another one, with as many; without, most have one.

    The noise has the scene's seed, so that two videos of a scene differ only in what they are told.
    """

    scene: int
    motion: str
    sections: int
    order: str = ""
    layout: str = ""
    paddings: Paddings = "released"
    steps: int = 0
    shift: float = 0.0
    source: Source = "model"
    colour_anchor: float = 0.0
    then: str = ""
    in_parts: bool = False
    cache: float = 0.0
    window: int = WINDOW
    error: float = 0.0
    sees: Sees = "own"
    shapes: int | None = None
    sampler: str = SAMPLER

    @property
    def seed(self) -> int:
        return HELD_OUT + self.scene

    @property
    def told(self) -> Scene:
        return Scene.draw(self.seed, self.shapes).with_motion(self.motion, self.seed)

    @property
    def told_then(self) -> Scene:
        return replace(self, motion=self.then or self.motion).told

    @property
    def middle(self) -> int:
        """Pixel frames before the second half, which begins with a section."""
        return pixel_frames(1 + self.generated // 2)

    @property
    def plan(self) -> Plan:
        plan = Plan.of(1.2, self.order, self.window, layout=self.layout, paddings=self.paddings)
        return replace(plan, sections=self.sections, parts=(self.middle,) if self.in_parts else ())

    @property
    def generated(self) -> int:
        """Latent frames besides the start image."""
        return self.sections * self.window

    @property
    def batch(self) -> tuple:
        """Videos with the same value can be sampled together. With a cache each is alone, since one decides for all."""
        told = self.colour_anchor, bool(self.then), self.in_parts, self.cache, self.scene if self.cache else None
        seen = self.window, self.error, self.sees, self.sampler
        return self.sections, self.order, self.layout, self.paddings, self.steps, self.shift, self.source, *told, *seen

    def to_dict(self) -> dict:
        """What its results are found by. A field of `LATER` at its default is left out, as it is in results made before."""
        return {name: value for name, value in asdict(self).items() if name not in LATER or value != LATER[name]}

    @classmethod
    def from_dict(cls, values: dict) -> Video:
        return cls(**{field.name: values[field.name] for field in fields(cls) if field.name in values})


@dataclass(frozen=True)
class Way:
    """How the model's videos are sampled; a shift of 0 follows from the number of tokens."""

    steps: int = 10
    shift: float = 0.0

    def of(self, videos: Iterable[Video]) -> Iterator[Video]:
        """The videos, with those of the model made in this way, unless their experiment chooses the steps."""
        for video in videos:
            ours = video.source == "model" and not video.steps
            yield replace(video, steps=self.steps, shift=self.shift) if ours else video


@dataclass(frozen=True)
class Amount:
    """How many scenes each experiment uses; `lengths` are (sections, scenes)."""

    obedience: int = 40
    example: int = 40
    samplers: int = 40
    prompts: int = 10
    layouts: int = 12
    lengths: tuple[tuple[int, int], ...] = ((1, 8), (2, 8), (4, 8), (6, 8), (12, 40))
    paddings: int = 6
    anchors: int = 12
    changes: int = 12
    cache: int = 8
    long: int = 40
    vae: int = 40
    shapes: int = 20
    orders: int = 92
    far_orders: int = 92  # as orders, over the longest videos
    long_layouts: int = 24
    tails: int = 24
    windows: int = 76
    errors: int = 52

    def at_most(self, videos: int) -> Amount:
        counts = {
            field.name: min(getattr(self, field.name), videos)
            for field in fields(self)
            if field.name not in ("lengths", "long")
        }
        return replace(self, **counts, lengths=tuple((sections, min(scenes, videos)) for sections, scenes in self.lengths))


FULL = Amount()
QUICK = Amount(
    obedience=4,
    example=1,
    samplers=1,
    prompts=2,
    layouts=2,
    lengths=((1, 2), (2, 2), (6, 1)),
    paddings=1,
    anchors=1,
    changes=1,
    cache=1,
    long=5,
    vae=4,
    shapes=1,
    orders=1,
    far_orders=1,
    long_layouts=1,
    tails=1,
    windows=1,
    errors=1,
)

SHAPES = (1, 2)  # of a scene
ANCHORS = (0.0, 0.5, 1.0)
CACHES = (0.0, 0.02, 0.03, 0.1)  # none, the default, about half the calls, about a third of them
SAMPLERS = (SAMPLER, "euler_ancestral")  # which adds noise at every step
NOISY_SHIFT = 12.0  # with which more of the steps are where the picture is still open
EXAMPLE_STEPS = 25  # of the example workflows, whose shift follows from the size
LASTING = ("left", "stop", "up", "right", "down")  # motions that look the same whenever they begin
LONG = (12, 24)  # sections over which the orders' drift is compared; the rest of the paper's claims, over the first
WINDOWS = {WINDOW: 12, 4: 27}  # the sections that make the same frames
ERRORS = (0.0, 0.1, 0.2)
ERROR_SECTIONS = 6
TWO_SECTIONS = 2  # sections of the shortest video in which all motions can be told apart


def motion_of(scene: int, turn: int = 0, shapes: int | None = None) -> str:
    """The motions in turn, except those that cannot be seen on the scene's first shape."""
    shape = Scene.draw(HELD_OUT + scene, shapes).actors[0].shape
    possible = [motion for motion in MOTIONS if (motion, shape) != ("spin", "circle")]
    return possible[(scene + turn) % len(possible)]


def obedience(amount: Amount) -> Iterator[Video]:
    """Each order with its own layout."""
    for order in ORDERS:
        for scene in range(amount.obedience):
            yield Video(scene, motion_of(scene), TWO_SECTIONS, order, ORDERS[order].layout)


def example(amount: Amount) -> Iterator[Video]:
    """The same as `obedience`, sampled as the example workflow does."""
    for video in obedience(replace(amount, obedience=amount.example)):
        yield replace(video, steps=EXAMPLE_STEPS)


def samplers(amount: Amount) -> Iterator[Video]:
    """The same as `obedience` with a sampler that adds noise, and one that does not."""
    for video in obedience(replace(amount, obedience=amount.samplers)):
        for sampler in SAMPLERS:
            yield replace(video, steps=EXAMPLE_STEPS, shift=NOISY_SHIFT, sampler=sampler)


def prompts(amount: Amount) -> Iterator[Video]:
    """A second prompt for the first pictures of `obedience`, with the same noise."""
    for scene in range(amount.prompts):
        yield Video(scene, motion_of(scene), TWO_SECTIONS, INVERTED.name, INVERTED.layout)
        yield Video(scene, motion_of(scene, turn=4), TWO_SECTIONS, INVERTED.name, INVERTED.layout)


def shapes(amount: Amount) -> Iterator[Video]:
    """Scenes with one shape, and others with two."""
    for order in ORDERS:
        for number in SHAPES:
            for scene in range(amount.shapes):
                motion = motion_of(scene, shapes=number)
                yield Video(scene, motion, TWO_SECTIONS, order, ORDERS[order].layout, shapes=number)


def layouts(amount: Amount) -> Iterator[Video]:
    """Every pair of order and layout in `CONFIGURATIONS`."""
    for order, layout in CONFIGURATIONS:
        for scene in range(amount.layouts):
            yield Video(scene, motion_of(scene), TWO_SECTIONS, order, layout)


def layouts_of(amount: Amount, order: str, layout: str) -> list[Video]:
    """Those of `layouts` with this order and layout."""
    return [video for video in layouts(amount) if (video.order, video.layout) == (order, layout)]


def lengths(amount: Amount) -> Iterator[Video]:
    """The three orders at growing lengths, and what the world itself and its VAE would show."""
    for sections, scenes in amount.lengths:
        for scene in range(scenes):
            motion = motion_of(scene)
            yield Video(scene, motion, sections, source="world")
            yield Video(scene, motion, sections, source="vae")
            for order in ORDERS:
                yield Video(scene, motion, sections, order, ORDERS[order].layout)


def paddings(amount: Amount) -> Iterator[Video]:
    """The inverted order's two paddings, which differ from five sections on."""
    for scene in range(amount.paddings):
        for spacing in ("released", "exact"):
            yield Video(scene, motion_of(scene), 6, INVERTED.name, INVERTED.layout, spacing)


def anchors(amount: Amount) -> Iterator[Video]:
    """Every order with its colours pulled to the start image's not at all, halfway and wholly."""
    for order in ORDERS:
        for scene in range(amount.anchors):
            for anchor in ANCHORS:
                yield Video(scene, motion_of(scene), 6, order, ORDERS[order].layout, colour_anchor=anchor)


def changes(amount: Amount) -> Iterator[Video]:
    """Changes of motion in the middle of four sections, in every order, with and without parts, and both motions alone."""
    for name, order in ORDERS.items():
        for scene in range(amount.changes):
            for first, second in changes_of(scene):
                video = Video(scene, first, 4, name, order.layout)
                yield from (video, replace(video, motion=second))
                yield from (replace(video, then=second, in_parts=in_parts) for in_parts in (False, True))


def changes_of(scene: int) -> list[tuple[str, str]]:
    """A pair of two lasting motions, all in turn, and if the shape is leaving the picture when it changes, also the next pair
    in whose video it is not."""
    pairs = list(permutations(LASTING, 2))
    in_turn = [pairs[(scene + turn) * 7 % len(pairs)] for turn in range(len(pairs))]
    seen = next(pair for pair in in_turn if in_sight(Video(scene, pair[0], 4)))
    return list(dict.fromkeys((in_turn[0], seen)))


def in_sight(video: Video) -> bool:
    """Whether all of the world's first shape is in the picture in the middle of the video."""
    shape = video.told.truth(video.middle)[0]
    return all(shape.radius <= at <= SIZE - shape.radius for at in (shape.x, shape.y))


def cached(amount: Amount) -> Iterator[Video]:
    """FramePack Cache at several thresholds against all steps; each video is long enough for its errors to add up."""
    for scene in range(amount.cache):
        for order in (INVERTED, FORWARD):
            video = Video(scene, motion_of(scene), 4, order.name, order.layout, steps=EXAMPLE_STEPS)
            yield from (replace(video, cache=threshold) for threshold in CACHES)


def orders(amount: Amount) -> Iterator[Video]:
    """The three orders in long videos."""
    for sections, scenes in zip(LONG, (amount.orders, amount.far_orders), strict=True):
        for name, order in ORDERS.items():
            for scene in range(scenes):
                yield Video(scene, motion_of(scene), sections, name, order.layout)


def long_layouts(amount: Amount) -> Iterator[Video]:
    """Every layout of the forward order in long videos."""
    for order, layout in CONFIGURATIONS:
        for scene in range(amount.long_layouts) if order == FORWARD.name else ():
            yield Video(scene, motion_of(scene), LONG[0], order, layout)


def tails(amount: Amount) -> Iterator[Video]:
    """What is done with the frames beyond vanilla's groups."""
    for layout in TAILS.values():
        for scene in range(amount.tails):
            yield Video(scene, motion_of(scene), LONG[0], FORWARD.name, layout)


def windows(amount: Amount) -> Iterator[Video]:
    """The same frames in more and shorter sections."""
    for window, sections in WINDOWS.items():
        for order in (INVERTED, FORWARD):
            for scene in range(amount.windows):
                yield Video(scene, motion_of(scene), sections, order.name, order.layout, window=window)


def errors(amount: Amount) -> Iterator[Video]:
    """Both orders with a set error of every section, and where no error can add up, since sections see the world."""
    for order in (INVERTED, FORWARD):
        for scene in range(amount.errors):
            video = Video(scene, motion_of(scene), ERROR_SECTIONS, order.name, order.layout)
            yield from (replace(video, error=error) for error in ERRORS)
            yield replace(video, sees="world")


EXPERIMENTS = {
    "obedience": obedience,
    "example": example,
    "samplers": samplers,
    "prompts": prompts,
    "shapes": shapes,
    "lengths": lengths,
    "layouts": layouts,
    "paddings": paddings,
    "anchors": anchors,
    "changes": changes,
    "cache": cached,
    "orders": orders,
    "long_layouts": long_layouts,
    "tails": tails,
    "windows": windows,
    "errors": errors,
}
