"""Cancelling, and the same seed twice."""

import pytest
import torch
from support.graph import Graph, Seen

from scripts.support.environment import ROOT
from scripts.support.server import RunFailed

START_IMAGE = ROOT / "tests" / "support" / "stand_ins" / "start_image.png"
LARGE = 256  # pixels, so that a step takes longer than the messages about it


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


class CancelAfter(Seen):
    """Presses cancel when the node says that it has done this many steps."""

    def __init__(self, server, node, steps: int) -> None:
        super().__init__()
        self.server, self.node, self.steps_before, self.done = server, node, steps, 0

    def __call__(self, message) -> None:
        super().__call__(message)
        if message["type"] == "text" and "step 0 of" not in message["data"]["text"]:
            self.done += 1
            if self.done == self.steps_before:
                self.server.interrupt()


@pytest.mark.parametrize("steps", [2, pytest.param(10, marks=pytest.mark.slow)])
def test_cancel_stops_within_a_step_and_leaves_nothing_half_written(graph, server, steps):
    """In the first section and in the second one, of 8 steps each."""
    start = graph.encode(graph.image, LARGE)
    sampler = graph.sampler(start_latent=start, plan=graph.plan_of(2), steps=8, seed=1000 + steps)
    images = graph.add("FramePack_Decode", latent=sampler, vae=graph.vae)
    video = graph.add("CreateVideo", images=images, fps=30.0)
    graph.add("SaveVideo", video=video, filename_prefix="cancelled", format="mp4", codec="h264")
    seen = CancelAfter(server, sampler, steps)

    with pytest.raises(RunFailed) as failure:
        server.run(graph.prompt, on_message=seen)

    assert failure.value.interrupted
    assert seen.done <= steps + 1
    assert not [file for file in (server.base / "output").rglob("*") if "cancelled" in file.name]


def test_after_a_cancel_the_same_server_gives_the_same_video(graph, server):
    expected = graph.latents(server, graph.sampler(seed=7, steps=3))
    cancelled = graph.sampler(start_latent=graph.encode(graph.image, LARGE), steps=20, seed=8)
    with pytest.raises(RunFailed):
        graph.latents(server, cancelled, on_message=CancelAfter(server, cancelled, 1))
    other = graph.latents(server, graph.sampler(seed=9))  # so that the first one is not simply taken from the cache

    # cfg 1 ignores the negative prompt: the same video from a prompt that ComfyUI has not run yet
    again = graph.latents(server, graph.sampler(seed=7, steps=3, negative=graph.negative))

    assert torch.equal(again, expected)
    assert not torch.equal(other, expected)


@pytest.mark.slow
def test_one_seed_gives_the_same_video_bit_by_bit_in_two_servers(graph, server, new_server):
    other = new_server()
    same = Graph(other.upload_image(START_IMAGE))

    videos = [given.latents(machine, given.sampler(plan=given.plan_of(3), seed=5, steps=4))
              for given, machine in ((graph, server), (same, other))]  # fmt: skip

    assert torch.equal(*videos)


def test_another_seed_gives_another_video_in_every_section(graph, server):
    plan = graph.plan_of(2)

    one, two = (graph.latents(server, graph.sampler(plan=plan, seed=seed)) for seed in (1, 2))

    assert torch.equal(one[:, :, :1], two[:, :, :1])
    assert all((one[:, :, frame] - two[:, :, frame]).abs().max() > 0.1 for frame in range(1, 19))


def test_sections_get_different_noise(graph, server):
    video = graph.latents(server, graph.sampler(plan=graph.plan_of(2), seed=1))

    assert not torch.allclose(video[:, :, 1:10], video[:, :, 10:19], atol=0.1)


@pytest.mark.parametrize("seed", [0, 2**64 - 1])
def test_every_seed_of_the_widget_works(graph, server, seed):
    assert graph.latents(server, graph.sampler(plan=graph.plan_of(2), seed=seed)).isfinite().all()
