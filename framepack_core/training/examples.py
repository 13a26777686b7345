"""Training examples: sections as inference meets them, with their contexts read from real videos.

Every draw depends only on (seed, step, micro-batch, sample), so a resumed run or any number of processes draw the same.
"""

from __future__ import annotations

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache

import torch
from torch import Tensor

from ..filling import Section
from ..layout import Kernel, resolve
from ..orders import ORDERS, PADDINGS, Paddings, order_named
from ..packing import gather, rotary_phases
from ..plan import Plan
from ..timeline import Timeline
from .cache import Clip, ClipCache
from .history import Codebook, corrupt
from .loss import Sigmas, draw_sigma, motion_weight, noisy

MOST_SEEN = 19  # latent frames of a clip that a section looks at in the released layouts


@dataclass(frozen=True)
class Recipe:
    """A layout in an order, and how often it is drawn."""

    layout: str
    order: str
    weight: float = 1.0


@dataclass(frozen=True)
class Choices:
    """What may be drawn. `sections` is the range of a plan's length; clips limit it too.

    `text_only` is how often nothing is known, not even the start, `placed` how often more than the start is known, `changed`
    how often all that comes before a change of a clip's prompt is known, as in a video made in parts. `first` is how often the
    section that is sampled first is drawn, besides by chance: it sees least, and the others go on with what it shows.
    """

    recipes: tuple[Recipe, ...]
    window: int = 9
    sections: tuple[int, int] = (1, 4)
    paddings: tuple[Paddings, ...] = PADDINGS
    end_probability: float = 0.5
    text_only: float = 0.0
    placed: float = 0.0
    changed: float = 0.0
    first: float = 0.0
    caption_dropout: float = 0.1
    sigmas: Sigmas = "logit-normal"
    shift: float = 0.0
    motion_weight: float = 0.0
    corruption: float = 0.0
    codebook: Codebook | None = None


@dataclass(frozen=True)
class Draw:
    """One section of one plan, for a whole micro-batch. `frames` of the clip are the video; an end frame is the one after."""

    recipe: Recipe
    section: Section
    frames: int
    known: frozenset[int]
    end: bool

    @property
    def clip_frames(self) -> int:
        return self.frames + self.end

    def follows(self, changes: Sequence[int]) -> bool:
        """Whether nothing before the frames at which a clip's prompt changes has to be guessed from a later prompt.

        True if all of it is known, if the order only looks back and so has made it before, and if the video ends there.
        """
        if order_named(self.recipe.order).end is None:
            return True
        last = max((change for change in changes if change < self.clip_frames), default=0)
        return self.known.issuperset(range(last))


@dataclass(frozen=True)
class MicroBatch:
    """What the transformer is called with, and what it should return."""

    draw: Draw
    inputs: dict
    x0: Tensor
    noise: Tensor
    weight: Tensor | None

    def to(self, device: torch.device) -> MicroBatch:
        if device.type == "cpu":
            return self
        weight = None if self.weight is None else self.weight.to(device)
        return replace(
            self, inputs=moved(self.inputs, device), x0=self.x0.to(device), noise=self.noise.to(device), weight=weight
        )


class Examples:
    """Micro-batches drawn from a cache's clips.

    Raises a ValueError that names the file for clips too short for one section or of an odd size.
    """

    def __init__(self, clips: ClipCache, choices: Choices, seed: int, axes: Sequence[int], theta: float, held_out: int = 0):
        self.clips = clips
        self.choices = choices
        self.seed = seed
        self.rope = tuple(axes), theta
        self.buckets = buckets(clips, range(len(clips) - held_out), 1 + choices.sections[0] * choices.window)
        self.empty = clips.empty if choices.caption_dropout else None

    def batch(self, step: int, micro: int, samples: Iterable[int]) -> MicroBatch:
        """These samples of a micro-batch, whose section is the same whichever samples are asked for."""
        draw, candidates, (height, width) = self.draw(step, micro)
        drawn = [self.sample(draw, candidates, random(self.seed, step, micro, sample)) for sample in samples]
        clips, sigmas, noises, latents, histories = (list(column) for column in zip(*drawn, strict=True))
        latents, histories, noise, sigma = (torch.stack(column) for column in (latents, histories, noises, sigmas))
        x0 = latents[:, :, list(draw.section.target)]
        before = latents[:, :, [max(frame - 1, 0) for frame in draw.section.target]]
        end = histories[:, :, draw.frames :] if draw.end else None
        context = gather(draw.section, Timeline(histories[:, :, : draw.frames], set(range(draw.frames)), end))
        text, mask = padded([clip.text.float() for clip in clips])
        inputs = {
            "latents": noisy(x0, noise, sigma),
            "timestep": sigma * 1000,
            "text": text,
            "text_mask": mask,
            "pooled": torch.stack([clip.pooled.float() for clip in clips]),
            "image": images(clips) if draw.known else None,
            "context": context.latents,
            "kernels": kernels(draw.section),
            "rotary": phases(draw.section, height, width, *self.rope),
        }
        amount = self.choices.motion_weight
        return MicroBatch(draw, inputs, x0, noise, motion_weight(x0, before, amount) if amount else None)

    def draw(self, step: int, micro: int) -> tuple[Draw, list[int], tuple[int, int]]:
        """A section, the clips long enough for it, and their latent size."""
        generator = random(self.seed, step, micro)
        choices = self.choices
        sizes = list(self.buckets)
        size = sizes[pick(generator, [len(self.buckets[size]) for size in sizes])]
        frames = {index: self.clips.shapes[index][0] for index in self.buckets[size]}
        recipe = choices.recipes[pick(generator, [recipe.weight for recipe in choices.recipes])]
        paddings = choices.paddings[uniform(generator, 0, len(choices.paddings) - 1)]
        fewest, most = choices.sections
        sections = uniform(generator, fewest, min(most, (max(frames.values()) - 1) // choices.window))
        wants_end = torch.rand((), generator=generator).item() < choices.end_probability
        plan = planned(recipe, sections, choices.window, paddings)
        known, end, change = self._known(generator, plan, frames, wants_end)
        length = len(known) + plan.generated
        filled = plan.fill(length, known, end)
        is_first = choices.first and torch.rand((), generator=generator).item() < choices.first
        section = filled[0 if is_first else uniform(generator, 0, len(filled) - 1)]
        draw = Draw(recipe, section, length, known, end)
        long = [index for index, count in frames.items() if count >= draw.clip_frames]
        fitting = [index for index in long if change is None or change in self.clips.changes[index]]
        return draw, [index for index in fitting if draw.follows(self.clips.changes[index])] or fitting, size

    def _known(
        self, generator: torch.Generator, plan: Plan, frames: Mapping[int, int], wants_end: bool
    ) -> tuple[frozenset[int], bool, int | None]:
        """What is known of a video of these clips, whether an end frame is too, and the change up to which it all is, if so."""
        choices, longest = self.choices, max(frames.values())
        has_end = wants_end and plan.order.end is not None and longest >= 2 + plan.generated
        if choices.text_only or choices.placed or choices.changed:
            chance = torch.rand((), generator=generator).item()
            if chance < choices.text_only:
                return frozenset(), False, None
            if chance < choices.text_only + choices.placed:
                return placed_frames(generator, plan, longest), False, None
            changes = self._changes(plan, frames) if chance < choices.text_only + choices.placed + choices.changed else []
            if changes:
                change = changes[uniform(generator, 0, len(changes) - 1)]
                return frozenset(range(change)), False, change
        if plan.order.end == "last" and has_end:
            return frozenset((0, 1 + plan.generated)), False, None
        return frozenset((0,)), has_end, None

    def _changes(self, plan: Plan, frames: Mapping[int, int]) -> list[int]:
        """The frames at which prompts change in clips that go on for the plan's length from there."""
        found = ((change, count) for index, count in frames.items() for change in self.clips.changes[index])
        return sorted({change for change, count in found if change + plan.generated <= count})

    def sample(
        self, draw: Draw, candidates: list[int], generator: torch.Generator
    ) -> tuple[Clip, Tensor, Tensor, Tensor, Tensor]:
        """(clip, sigma, noise `C T H W` of the section, truth, history `C T H W`), sometimes with the caption dropped."""
        choices = self.choices
        clip = self.clips[candidates[uniform(generator, 0, len(candidates) - 1)]]
        latents = clip.latents[:, : draw.clip_frames].float()
        _, _, H, W = latents.shape
        sigma = draw_sigma(generator, choices.sigmas, draw.section.target_tokens(H, W), choices.shift)
        dropped = torch.rand((), generator=generator).item() < choices.caption_dropout
        text, pooled = self.empty if dropped and self.empty is not None else clip.told(draw.section.target)
        clip = replace(clip, text=text, pooled=pooled)
        noise = torch.randn(latents.shape[0], len(draw.section.target), H, W, generator=generator)
        given = {*draw.known, draw.frames} if draw.end else draw.known
        history = latents[None]
        if choices.corruption:
            history = corrupt(history, generator, choices.corruption, given)
        if choices.codebook is not None:
            history = choices.codebook.discretise(history)
        return clip, sigma, noise, latents, history[0]


def placed_frames(generator: torch.Generator, plan: Plan, longest: int) -> frozenset[int]:
    """What is known of a video of at most `longest` frames: a clip at its start, or, in an order that looks ahead, the start
    image or nothing there, and a still between two sections or a clip at the end."""
    spare = longest - plan.generated
    if plan.order.end is None or coin(generator):
        return frozenset(range(prefix(generator, plan.window, min(MOST_SEEN, spare))))
    start = uniform(generator, 0, 1) if spare > 1 else 0
    if plan.sections > 1 and coin(generator):
        return frozenset((*range(start), start + plan.window * uniform(generator, 1, plan.sections - 1)))
    first = start + plan.generated
    return frozenset((*range(start), *range(first, first + uniform(generator, 1, min(MOST_SEEN - 1, spare - start)))))


def prefix(generator: torch.Generator, window: int, most: int) -> int:
    """Known frames before the first section, 1 to `most`: any number, or a start and whole sections, as often each."""
    if most > window and coin(generator):
        return 1 + window * uniform(generator, 1, (most - 1) // window)
    return uniform(generator, 1, most)


def coin(generator: torch.Generator) -> bool:
    return bool(uniform(generator, 0, 1))


def recipes(layouts: Sequence[str], orders: Sequence[str]) -> tuple[Recipe, ...]:
    """Every layout in every order its shape allows; `framepack:3` is drawn three times as often.

    Raises ValueError for an unknown order, a bad layout, or a layout that fits none of the orders.
    """
    found: list[Recipe] = []
    ordered = [weighted(order) for order in orders]
    for order, _ in ordered:
        order_named(order)
    for layout, weight in map(weighted, layouts):
        resolve(layout)
        fitting = [(order, share) for order, share in ordered if ORDERS[order].fits(layout)]
        if not fitting:
            raise ValueError(f"layout {layout} fits none of the orders {', '.join(order for order, _ in ordered)}")
        found += [Recipe(layout, order, weight * share) for order, share in fitting]
    return tuple(found)


def weighted(spelled: str) -> tuple[str, float]:
    name, _, weight = spelled.partition(":")
    try:
        value = float(weight or 1)
    except ValueError:
        value = 0
    if value <= 0:
        raise ValueError(f"{spelled!r} has no weight above 0 after its colon; write {name}:2 to draw it twice as often")
    return name, value


def all_kernels(found: Iterable[Recipe]) -> tuple[Kernel, ...]:
    """The kernels that these layouts use."""
    return tuple(sorted({kernel for recipe in found for kernel in resolve(recipe.layout).kernels}))


def buckets(clips: ClipCache, indices: Iterable[int], fewest_frames: int) -> dict[tuple[int, int], list[int]]:
    """Clips by latent size (height, width), one per micro-batch. Raises a ValueError that names a clip that cannot be used."""
    found: dict[tuple[int, int], list[int]] = defaultdict(list)
    short = []
    for index in indices:
        T, H, W = clips.shapes[index]
        if H % 2 or W % 2:
            raise ValueError(f"{clips.path(clips.names[index])} is {W}x{H}, an odd number of latent pixels; "
                             "crop its video to multiples of 16 pixels and cache it again")  # fmt: skip
        if fewest_frames > T:
            short.append(f"{clips.path(clips.names[index])} ({T})")
        else:
            found[H, W].append(index)
    if short:
        raise ValueError(f"{len(short)} clips have fewer than the {fewest_frames} latent frames that the shortest plan needs, "
                         f"first {short[0]}; cut longer clips, lower the window, or remove them")  # fmt: skip
    if not found:
        raise ValueError(f"{clips.folder} has no clip left to train on; lower --held-out or cache more clips")
    return dict(sorted(found.items()))


@lru_cache(maxsize=4096)
def planned(recipe: Recipe, sections: int, window: int, paddings: Paddings) -> Plan:
    plan = Plan.of(1, recipe.order, window, recipe.layout, paddings=paddings)
    return replace(plan, sections=sections)


@lru_cache(maxsize=512)
def phases(section: Section, height: int, width: int, axes: tuple[int, ...], theta: float) -> tuple[Tensor, Tensor]:
    return rotary_phases(section, height, width, axes, theta)


def kernels(section: Section) -> tuple[Kernel, ...]:
    return tuple(group.kernel for group in section.context)


def padded(texts: Sequence[Tensor]) -> tuple[Tensor, Tensor | None]:
    """Texts `L D` as `B L D` with a mask `B L` of what counts; no mask if all are equally long."""
    lengths = torch.tensor([len(text) for text in texts])
    stacked = torch.nn.utils.rnn.pad_sequence(list(texts), batch_first=True)
    if (lengths == lengths[0]).all():
        return stacked, None
    return stacked, torch.arange(stacked.shape[1])[None] < lengths[:, None]


def images(clips: Sequence[Clip]) -> Tensor | None:
    """Image embeddings `B N D`, or None if the clips have none. Raises ValueError if only some have one."""
    found = [clip.image for clip in clips if clip.image is not None]
    if found and len(found) < len(clips):
        without = next(clip.caption for clip in clips if clip.image is None)
        raise ValueError(f"the clip {without!r} has no image embedding, but others do; cache all with --vision or all without")
    return torch.stack([image.float() for image in found]) if found else None


def moved(value, device: torch.device):
    if isinstance(value, Tensor):
        return value.to(device, non_blocking=True)
    if isinstance(value, dict):
        return {name: moved(part, device) for name, part in value.items()}
    if isinstance(value, tuple) and value and isinstance(value[0], Tensor):
        return tuple(moved(part, device) for part in value)
    return value


def random(*place: int) -> torch.Generator:
    """A separate generator for each place in the run: (seed, step, micro-batch, sample)."""
    digest = hashlib.blake2b(repr(place).encode(), digest_size=8).digest()
    return torch.Generator("cpu").manual_seed(int.from_bytes(digest, "little", signed=True))


def pick(generator: torch.Generator, weights: Sequence[float]) -> int:
    return int(torch.multinomial(torch.tensor(weights, dtype=torch.float64), 1, generator=generator))


def uniform(generator: torch.Generator, low: int, high: int) -> int:
    """An integer from low to high, inclusive."""
    return int(torch.randint(low, high + 1, (), generator=generator))
