"""A video in parts, on the demo's models: what comes first is made first, and what comes later goes on from it."""

import pytest
import torch
from support.graph import DemoGraph, Seen

from scripts.support.server import PromptRefused

CHANGE = "a pink circle stands still [1.2s: a pink circle moves right]"


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_the_first_part_is_the_video_that_ends_there(graph, server, order):
    in_parts = graph.latents(server, graph.sampler(plan=graph.plan_of(3, order=order, parts="1.2")))
    alone = graph.latents(server, graph.sampler(plan=graph.plan_of(1, order=order)))
    at_once = graph.latents(server, graph.sampler(plan=graph.plan_of(3, order=order)))

    assert in_parts.shape == at_once.shape
    assert torch.equal(in_parts[:, :, :10], alone)
    assert not torch.equal(in_parts[:, :, 1:10], at_once[:, :, 1:10])


def test_forwards_only_what_comes_after_the_first_part_is_another(graph, server):
    in_parts, at_once = (
        graph.latents(server, graph.sampler(plan=graph.plan_of(3, order="forward", parts=parts))) for parts in ("1.2", "")
    )

    assert torch.equal(in_parts[:, :, :10], at_once[:, :, :10])
    assert not torch.equal(in_parts[:, :, 10:], at_once[:, :, 10:])


@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_parts_of_prompts_begin_where_a_timed_prompt_changes(graph, server, order):
    words = graph.add(
        "FramePack_PromptTimeline", clip=graph.clip, text="a pink circle stands [1.2s: a pink circle moves right]"
    )

    by_prompts, by_seconds, whole, without = (
        graph.latents(server, graph.sampler(plan=graph.plan_of(3, order=order, **parts), positive=words, resume=False))
        for parts in ({"parts": "prompts"}, {"parts": "1.2"}, {"parts": ""}, {})
    )

    assert torch.equal(by_prompts, by_seconds)
    assert torch.equal(whole, without) and not torch.equal(by_prompts, whole)


def test_without_timed_prompts_a_video_has_no_parts(graph, server):
    by_prompts, whole = (
        graph.latents(server, graph.sampler(plan=graph.plan_of(3, parts=parts), resume=False)) for parts in ("prompts", "")
    )

    assert torch.equal(by_prompts, whole)


def test_with_any_guider_parts_are_those_of_its_positive_prompt(graph, server):
    plan = graph.plan_of(2, parts="prompts")
    words = graph.add("FramePack_PromptTimeline", clip=graph.clip, text=CHANGE)
    guider = graph.add("BasicGuider", model=graph.model, conditioning=words)

    found = graph.latents(server, graph.custom_sampler(guider=guider, plan=plan))

    guided = graph.add("FluxGuidance", conditioning=words, guidance=10.0)
    same = graph.add("BasicGuider", model=graph.model, conditioning=guided)
    assert torch.equal(found, graph.latents(server, graph.custom_sampler(guider=same, plan=graph.plan_of(2, parts="1.2"))))


def test_a_section_of_a_video_in_parts_of_prompts_is_made_again_by_its_own_number(graph, server):
    """The first that was made is the video's first then, not its last; another seed changes only that."""
    words = graph.add(
        "FramePack_PromptTimeline", clip=graph.clip, text="a pink circle stands [1.2s: a pink circle moves right]"
    )
    plan = graph.plan_of(2, parts="prompts")
    first = graph.sampler(plan=plan, positive=words)
    redo = graph.add("FramePack_Redo", latent=first, plan=plan, sections="1")
    again = graph.sampler(plan=redo[0], frames=redo[1], start_latent=None, positive=words, seed=2)

    before, after = (graph.latents(server, latent) for latent in (first, again))

    assert torch.equal(after[:, :, 10:], before[:, :, 10:]) and torch.equal(after[:, :, :1], before[:, :, :1])
    assert not torch.equal(after[:, :, 1:10], before[:, :, 1:10])


@pytest.mark.parametrize("parts", ["prompts", ""])
def test_a_latent_that_does_not_say_its_parts_is_made_again_as_one_and_the_user_is_told(graph, server, parts):
    plan, seen = graph.plan_of(2, parts=parts), Seen()
    latent = graph.add("EmptyHunyuanLatentVideo", width=128, height=128, length=73, batch_size=1)
    redo = graph.add("FramePack_Redo", latent=latent, plan=plan, sections="1")

    again = graph.latents(server, graph.sampler(plan=redo[0], frames=redo[1], start_latent=None), on_message=seen)

    assert not again[:, :, :10].any() and again[:, :, 10:].any()
    assert any("nothing says whether latent was made in parts" in text for text in seen.texts(redo)) == bool(parts)


@pytest.mark.parametrize(
    ("parts", "said"),
    [("2, 1", "parts has 1 s after 2 s; write ascending seconds"), ("later", "parts is 'later'")],
)
def test_parts_that_cannot_be_are_refused_when_they_are_queued(graph, server, parts, said):
    with pytest.raises(PromptRefused) as refusal:
        graph.latents(server, graph.sampler(plan=graph.plan_of(3, parts=parts)))

    assert f"FramePack_Plan: {said}" in str(refusal.value)
