"""What a plan will make, read from a graph that has not run: for the drawings in nodes."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Any, cast

import torch

from .family import family_named
from .graph import SAMPLERS, Graph, Values, is_link, kind, source
from .helios import chunks
from .layout import chosen_layout
from .orders import PADDINGS
from .placing import SEEN, Arrangement, At, Frames, Placed, Use, spelled_places
from .plan import Plan
from .prompts import Prompt, in_parts

PLAN, PLACE = "FramePack_Plan", "FramePack_Place"
CLIPS = ("LoadVideo", "GetVideoComponents", "RepeatImageBatch")  # what gives images of which several are used


@dataclass(frozen=True)
class Foreseen:
    """A plan, and what will be given of its video: `known` latent frames, and the stretches of `guides`."""

    plan: Plan
    known: frozenset[int] = frozenset({0})
    guides: tuple[tuple[int, int], ...] = ()

    @classmethod
    def of(cls, graph: Graph, node: str) -> Foreseen:
        """From the FramePack_Plan with this id, and the sampler behind it. Raises ValueError for values that do not fit."""
        sampler = sampler_behind(graph, node)
        files = [file_before(graph, name) for name in (node, sampler) if name is not None]
        plan = family_named(next(filter(None, files), "")).fit(plan_of(graph, node))
        if sampler is None:
            return cls(plan)
        arrangement = Arrangement.of(plan, given_to(graph, sampler, plan))
        return cls(arrangement.plan, frozenset(arrangement.known), tuple(arrangement.guides))

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
    name = source(graph, link)
    if name is None or kind(graph, name) != PLACE:
        return Frames(fps=plan.fps)
    frames = placed_before(graph, graph[name]["inputs"].get("frames"), plan)
    for placed in placed_by(graph, name, plan):
        frames = frames.with_placed(placed)
    return frames


def placed_by(graph: Graph, name: str, plan: Plan) -> list[Placed]:
    """What one FramePack_Place gives. How long a clip is, is unknown before it is loaded: it counts as long as it may be."""
    value = Values(graph, name)
    use = cast(Use, value("use", "fixed"))
    times = value("times", "").strip()
    if times:
        return [still(at, use, seconds) for at, seconds in spelled_places(times, times.count(",") + 1)]
    at, seconds = cast(At, value("at", "start")), float(value("seconds", 0.0))
    if kind(graph, source(graph, graph[name]["inputs"].get("images"))) not in CLIPS:
        return [still(at, use, seconds)]
    longest = chunks.SEEN * chunks.WINDOW if plan.apart else SEEN + (at == "start")
    return [Placed(empty(longest), empty(1), at, use, seconds)]


def with_start_image(frames: Frames) -> Frames:
    """What is given together with a sampler's start image, unless it has a start already."""
    return frames if frames.has_start else frames.with_placed(still("start"))


def still(at: At, use: Use = "fixed", seconds: float = 0.0) -> Placed:
    return Placed(empty(1), empty(1), at, use, seconds)


def empty(frames: int) -> torch.Tensor:
    return torch.empty(1, 0, frames, 0, 0)
