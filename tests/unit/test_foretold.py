"""What the sections of a video will be told, read from a graph that has not run."""

import pytest

from framepack_core.foretold import sampler_told_by, told_to
from framepack_core.graph import Graph
from framepack_core.prompts import Prompt, Span

SAMPLER = {"positive": ["2", 0], "negative": ["9", 0]}
TEXT = "a cat [2s: it jumps]"


def graph(sampler: dict | None = None, **others: tuple[str, dict]) -> Graph:
    """A sampler, 1, and other nodes by their number."""
    nodes = {"1": ("FramePack_Sampler", SAMPLER if sampler is None else sampler)}
    nodes |= {name.removeprefix("n"): node for name, node in others.items()}
    return {name: {"class_type": kind, "inputs": inputs} for name, (kind, inputs) in nodes.items()}


def timeline(text) -> tuple[str, dict]:
    return "FramePack_PromptTimeline", {"text": text}


def set_time(link, **values) -> tuple[str, dict]:
    return "FramePack_SetVideoTime", {"conditioning": link, **values}


def test_the_prompts_of_a_timeline():
    assert told_to(graph(n2=timeline(TEXT)), "1") == (Prompt("a cat"), Prompt("it jumps", Span(2)))


def test_prompts_are_combined_changed_and_given_a_time():
    told = told_to(
        graph(
            n2=("ConditioningCombine", {"conditioning_1": ["3", 0], "conditioning_2": ["4", 0]}),
            n3=("CLIPTextEncode", {"clip": ["8", 0], "text": "a cat"}),
            n4=("FluxGuidance", {"conditioning": ["5", 0], "guidance": 10.0}),
            n5=set_time(["6", 0], start=2.0, end=3.0, fade=1.0),
            n6=("CLIPTextEncode", {"clip": ["8", 0], "text": "it jumps"}),
        ),
        "1",
    )

    assert told == (Prompt("a cat"), Prompt("it jumps", Span(2, 3, 1)))


@pytest.mark.parametrize("name", ["conditioning", "positive", "cond1"])
def test_a_guider_is_looked_through(name):
    guided = graph({"guider": ["7", 0]}, n7=("SomeGuider", {"model": ["8", 0], name: ["2", 0]}), n2=timeline(TEXT))

    assert told_to(guided, "1")[1].words == "it jumps"


@pytest.mark.parametrize("link", [["5", 0], ["8", 0]], ids=["of the graph", "of no node"])
def test_what_is_known_only_when_the_graph_runs_is_left_out(link):
    reader = {"n5": ("StringConcatenate", {"string_a": "a", "string_b": "b"})}

    assert told_to(graph(n2=timeline(link), **reader), "1") == ()
    assert told_to(graph(n2=set_time(["3", 0], start=link), n3=timeline("a cat"), **reader), "1") == ()
    unread = graph(n2=set_time(["3", 0], start=1.0), n3=("CLIPTextEncode", {"text": link}), **reader)
    assert [prompt.words for prompt in told_to(unread, "1")] == [""]


def test_a_text_from_a_primitive_is_known():
    assert told_to(graph(n2=timeline(["3", 0]), n3=("PrimitiveString", {"value": TEXT})), "1")[1].words == "it jumps"


def test_what_cannot_be_is_told_in_words():
    with pytest.raises(ValueError, match="is not closed"):
        told_to(graph(n2=timeline("[2s: x")), "1")
    with pytest.raises(ValueError, match=r"^conditioning has a time already \(2s\); connect what has none$"):
        told_to(graph(n2=set_time(["3", 0]), n3=timeline(TEXT)), "1")


def test_the_sampler_behind_a_timeline_is_found_on_either_side():
    combine = "ConditioningCombine", {"conditioning_1": ["4", 0]}
    told = graph(n2=set_time(["3", 0]), n3=combine, n4=timeline("a"), n9=timeline("b"), n10=timeline("c"))

    assert [sampler_told_by(told, node) for node in ("4", "9", "10")] == ["1", "1", None]
