"""What a plan will make, read from a graph that has not run: for the drawings in nodes."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from .family import family_named
from .frames import PIXEL_FRAMES, nearest_frames
from .graph import SAMPLERS, Graph, Later, Values, is_link, kind, source
from .helios import chunks
from .layout import chosen_layout
from .orders import PADDINGS
from .placing import SEEN, Arrangement, At, Frames, Placed, Use, spelled_places
from .plan import Plan
from .prompts import Prompt, in_parts

PLAN, PLACE = "FramePack_Plan", "FramePack_Place"
STILLS = ("LoadImage", "FramePack_DemoImage")
IMAGES = ("image", "images", "pixels")  # what nodes that change images call them


@dataclass(frozen=True)
class Foreseen:
    """A plan, and what will be given of its video: `known` latent frames, and the stretches of `guides`.

    `open`: how long something fixed is will be known when the graph runs.
    """

    plan: Plan
    known: frozenset[int] = frozenset({0})
    guides: tuple[tuple[int, int], ...] = ()
    open: bool = False

    @classmethod
    def of(cls, graph: Graph, node: str) -> Foreseen:
        """From the FramePack_Plan with this id, and the sampler behind it. Raises ValueError for values that do not fit."""
        sampler = sampler_behind(graph, node)
        files = [file_before(graph, name) for name in (node, sampler) if name is not None]
        plan = family_named(next(filter(None, files), "")).fit(plan_of(graph, node))
        if sampler is None:
            return cls(plan)
        arrangement = Arrangement.of(plan, given_to(graph, sampler, plan))
        return cls(arrangement.plan, frozenset(arrangement.known), tuple(arrangement.guides), is_open(graph, sampler))

    def told(self, prompts: Iterable[Prompt]) -> Foreseen:
        """With the parts that a video with these prompts has. Raises ValueError if none of them is for the video."""
        frames = len(self.known) + self.plan.beside(len(self.known)).generated
        return replace(self, plan=in_parts(self.plan, (prompt.span for prompt in prompts), frames, self.known))


def plan_of(graph: Graph, node: str) -> Plan:
    """The plan that a FramePack_Plan node will make."""
    value = Values(graph, node)
    plan = Plan.of(
        seconds=float(value("seconds", 5.0)),
        order=value("order", "inverted"),
        window=int(value("window", 9)),
        layout=chosen_layout(value("layout", "auto"), value("custom_layout", "")),
        fps=float(value("fps", Plan.fps)),
        paddings=value("paddings", PADDINGS[0]),
        exact_length=value("exact_length", False),
        loop=int(value("loop", 0)),
        reanchored=value("reanchor", False),
    )
    return plan.in_parts_of(value("parts", ""))


def sampler_behind(graph: Graph, node: str) -> str | None:
    """The first sampler that is given this node's plan."""
    for name, other in graph.items():
        if other["class_type"] in SAMPLERS and other["inputs"].get("plan") == [node, 0]:
            return name
    return None


def file_before(graph: Graph, node: str) -> str:
    """The name of the checkpoint whose model leads to a node; empty if it is known only when the graph runs."""
    inputs = graph[node]["inputs"]
    named = (inputs[name] for name in ("model_name", "unet_name") if isinstance(inputs.get(name), str))
    before = (source(graph, inputs.get(name)) for name in ("model", "guider"))
    return next(named, None) or next((file_before(graph, name) for name in before if name is not None), "")


def given_to(graph: Graph, sampler: str, plan: Plan) -> Frames:
    """What a sampler is given, with empty latents of the right length."""
    inputs = graph[sampler]["inputs"]
    frames = placed_before(graph, inputs.get("frames"), plan)
    if is_link(inputs.get("start_latent")):
        frames = frames.with_placed(still("start"))
    if is_link(inputs.get("end_latent")) and plan.order.end == "last":
        frames = frames.with_placed(still("end"))
    return frames


def placed_before(graph: Graph, link: Any, plan: Plan) -> Frames:
    """What a chain of FramePack_Place gives, from its first to its last."""
    frames = Frames(fps=plan.fps)
    for name in placing_nodes(graph, link):
        for placed in placed_by(graph, name, plan):
            frames = frames.with_placed(placed)
    return frames


def placing_nodes(graph: Graph, link: Any) -> Iterator[str]:
    """The nodes of a chain of FramePack_Place."""
    name = source(graph, link)
    if name is not None and kind(graph, name) == PLACE:
        yield from placing_nodes(graph, graph[name]["inputs"].get("frames"))
        yield name


def is_open(graph: Graph, sampler: str) -> bool:
    """Whether something is fixed whose number of images is known only when the graph runs."""
    for name in placing_nodes(graph, graph[sampler]["inputs"].get("frames")):
        value, images = Values(graph, name), graph[name]["inputs"].get("images")
        stills = value("use", "fixed") == "guide" or value("times", "").strip()
        if not stills and images_from(graph, images) in (None, math.inf):
            return True
    return False


def placed_by(graph: Graph, name: str, plan: Plan) -> list[Placed]:
    """What one FramePack_Place gives. A clip counts as long as it may be, and other images as a still, if nothing tells."""
    value = Values(graph, name)
    use = cast(Use, value("use", "fixed"))
    times = value("times", "").strip()
    if times:
        return [still(at, use, seconds) for at, seconds in spelled_places(times, times.count(",") + 1)]
    at, seconds = cast(At, value("at", "start")), float(value("seconds", 0.0))
    count = images_from(graph, graph[name]["inputs"].get("images"))
    if count in (None, 1):
        return [still(at, use, seconds)]
    longest = chunks.SEEN * chunks.WINDOW if plan.apart else SEEN + (at == "start")
    if count != math.inf:
        longest = clip_length(len(nearest_frames(int(count), float(value("fps", Plan.fps)), plan.fps)), at, use, plan.apart)
    return [Placed(empty(longest), empty(1), at, use, seconds)]


def images_from(graph: Graph, link: Any) -> float | None:
    """How many images come through a link: infinitely many from a video, None if nothing tells."""
    node = source(graph, link)
    if node is None:
        return None
    value, inputs = Values(graph, node), graph[node]["inputs"]
    through = next((inputs[name] for name in IMAGES if is_link(inputs.get(name))), None)
    try:
        match kind(graph, node):
            case name if name in STILLS:
                return 1
            case "ImageFromBatch":
                return min(int(value("length", 1)), images_from(graph, through) or math.inf)
            case "RepeatImageBatch":
                return (images_from(graph, through) or math.inf) * int(value("amount", 1))
            case "ImageBatch":
                return sum(images_from(graph, inputs.get(name)) or math.inf for name in ("image1", "image2"))
            case name if through is None:
                return math.inf if "video" in name.lower() else None  # other packs' loaders say so too
        return images_from(graph, through)
    except Later:
        return math.inf


def clip_length(frames: int, at: At, use: Use, apart: bool) -> int:
    """How many latent frames are used of a clip of so many frames."""
    if use == "guide":
        return max(1, frames // PIXEL_FRAMES)
    if apart and at == "start":
        return len(chunks.clip_chunks(frames)[-chunks.SEEN :]) * chunks.WINDOW
    return min(max(1, (frames - 1) // PIXEL_FRAMES), SEEN) + (at == "start")


def with_start_image(frames: Frames) -> Frames:
    """What is given together with a sampler's start image, unless it has a start already."""
    return frames if frames.has_start else frames.with_placed(still("start"))


def still(at: At, use: Use = "fixed", seconds: float = 0.0) -> Placed:
    return Placed(empty(1), empty(1), at, use, seconds)


def empty(frames: int) -> torch.Tensor:
    return torch.empty(1, 0, frames, 0, 0)
