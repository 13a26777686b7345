"""What the sections of a video will be told, read from a graph that has not run."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from .graph import SAMPLERS, Graph, Later, Values, kind, source
from .prompts import Prompt, parse, require_no_time, span_of

TIMELINE, SET_TIME = "FramePack_PromptTimeline", "FramePack_SetVideoTime"
POSITIVE = ("positive", "conditioning", "cond1")  # what samplers and guiders call it
PASSED_ON = ("conditioning", "positive", "cond", "negative", "guider")  # how inputs that lead to a sampler begin
WORDS = ("text", "prompt")  # what text encoders call it


def told_to(graph: Graph, sampler: str | None) -> tuple[Prompt, ...]:
    """The positive prompts of a sampler. Words that are not known before the graph runs are empty.

    Raises ValueError for a text or a time that cannot be.
    """
    if sampler is None:
        return ()
    inputs = graph[sampler]["inputs"]
    guided = graph[guider]["inputs"] if (guider := source(graph, inputs.get("guider"))) else inputs
    return prompts_from(graph, next((guided[name] for name in POSITIVE if name in guided), None))


def prompts_from(graph: Graph, link: Any) -> tuple[Prompt, ...]:
    """The prompts that come through a link, through nodes that change or combine what they are given."""
    node = source(graph, link)
    if node is None:
        return ()
    if kind(graph, node) == TIMELINE:
        return written_in(graph, node)
    inputs = graph[node]["inputs"]
    given = [prompt for name in inputs if name.startswith(POSITIVE) for prompt in prompts_from(graph, inputs[name])]
    if kind(graph, node) == SET_TIME:
        return timed_by(graph, node, given)
    return tuple(given) or (Prompt(words_in(graph, node)),)


def written_in(graph: Graph, node: str) -> tuple[Prompt, ...]:
    """The prompts of a FramePack_PromptTimeline; none if its text is not known yet."""
    try:
        return parse(Values(graph, node)("text", ""))
    except Later:
        return ()


def timed_by(graph: Graph, node: str, given: Sequence[Prompt]) -> tuple[Prompt, ...]:
    """What a FramePack_SetVideoTime makes of prompts; nothing if its times are not known yet."""
    value = Values(graph, node)
    try:
        span = span_of(value("start", 0.0), value("end", 0.0), value("fade", 0.0))
    except Later:
        return ()
    for prompt in given:
        require_no_time(prompt.span)
    return tuple(Prompt(prompt.words, span) for prompt in given)


def words_in(graph: Graph, node: str) -> str:
    """The text of a text encoder."""
    found = (graph[node]["inputs"].get(name) for name in WORDS)
    return next((words for words in found if isinstance(words, str)), "")


def sampler_told_by(graph: Graph, node: str) -> str | None:
    """The first sampler that is given this node's prompts, positive or negative."""
    samplers = (name for name in graph if kind(graph, name) in SAMPLERS)
    return next((sampler for sampler in samplers if node in before(graph, sampler)), None)


def before(graph: Graph, node: str) -> Iterator[str]:
    """The nodes in front of one that deal with prompts, each once."""
    found, waiting = set(), [node]
    while waiting:
        inputs = graph[waiting.pop()]["inputs"]
        links = {source(graph, value) for name, value in inputs.items() if name.startswith(PASSED_ON)}
        new = sorted(name for name in links if name is not None and name not in found)
        found.update(new)
        waiting += new
        yield from new
