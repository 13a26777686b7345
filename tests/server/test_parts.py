"""A video in parts, on the demo's models: what comes first is made first, and what comes later goes on from it."""

import pytest
import torch
from support.graph import DemoGraph

from scripts.support.server import PromptRefused


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


@pytest.mark.parametrize(
    ("parts", "said"),
    [("2, 1", "parts has 1 s after 2 s; write ascending seconds"), ("later", "parts is 'later'")],
)
def test_parts_that_cannot_be_are_refused_when_they_are_queued(graph, server, parts, said):
    with pytest.raises(PromptRefused) as refusal:
        graph.latents(server, graph.sampler(plan=graph.plan_of(3, parts=parts)))

    assert f"FramePack_Plan: {said}" in str(refusal.value)
