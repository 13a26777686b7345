"""What a client sees of a video while it is being made, and that showing it changes nothing."""

from io import BytesIO
from pathlib import Path

import av
import pytest
import torch
from PIL import Image
from support.graph import DemoGraph, Graph, Seen, new_log_lines, show_all_previews
from support.stand_ins.prompt import VAE

from scripts.support.server import RunFailed, Server
from tests.server.test_cancel import CancelAfter

FRAMES = 37, 73  # of videos of one and two sections

pytestmark = pytest.mark.usefixtures("unlimited_previews")


@pytest.fixture
def graph(start_image) -> Graph:
    return Graph(start_image)


def clip_of(server: Server, seen: Seen) -> Path:
    """The newest preview."""
    told = seen.data("framepack.clip")[-1]
    return server.base / "temp" / told["subfolder"] / told["filename"]


def frames_of(video: Path) -> list[Image.Image]:
    with av.open(str(video)) as container:
        return [frame.to_image() for frame in container.decode(video=0)]


@pytest.mark.slow
def test_previews_are_filmstrips_and_change_nothing(server, new_server):
    def sampled(machine: Server, watched: bool) -> tuple[torch.Tensor, Seen]:
        graph, seen = DemoGraph(), Seen()
        preview_vae = graph.vae if watched else None
        sampler = graph.sampler(plan=graph.plan_of(2), seed=21, steps=3, preview_vae=preview_vae)
        return graph.latents(machine, sampler, on_message=seen), seen

    pictured = new_server("--preview-method", "latent2rgb")
    show_all_previews(pictured)
    watched, seen = sampled(pictured, watched=True)
    unwatched, nothing = sampled(server, watched=False)

    pictures = [Image.open(BytesIO(preview)) for preview in seen.data("preview")]
    assert {(picture.format, picture.width) for picture in pictures} == {("JPEG", 512)}
    assert all(picture.height <= 512 for picture in pictures)
    assert len({preview for preview in seen.data("preview")}) > 2
    assert torch.equal(watched, unwatched)
    assert not nothing.data("preview") and not nothing.data("framepack.clip")


@pytest.mark.parametrize("order", ["inverted", "endpoints"])
def test_a_client_is_told_of_clips_of_the_finished_sections(graph, server, order):
    vae = graph.add("VAELoader", vae_name=VAE)
    sampler, seen = graph.sampler(plan=graph.plan_of(2, order=order), preview_vae=vae, seed=31), Seen()

    graph.latents(server, sampler, on_message=seen)

    told = seen.data("framepack.clip")
    assert len(told) == (2 if order == "inverted" else 1)  # endpoints makes both ends at once
    assert all(data["node"] == sampler.node and data["type"] == "temp" for data in told)
    assert len(frames_of(clip_of(server, seen))) == FRAMES[1]
    assert [path.name for path in clip_of(server, seen).parent.iterdir()] == [told[-1]["filename"]]


def test_the_custom_sampler_shows_a_clip_too(graph, server):
    sampler, seen = graph.custom_sampler(preview_vae=graph.vae, seed=32), Seen()

    graph.latents(server, sampler, on_message=seen)

    assert len(frames_of(clip_of(server, seen))) == FRAMES[0]


def test_a_vae_that_cannot_show_the_video_is_told_of_once(graph, server):
    other = graph.add("VAELoader", vae_name="pixel_space")
    sampler, seen = graph.sampler(plan=graph.plan_of(2), preview_vae=other, seed=33), Seen()

    with new_log_lines(server) as log:
        latents = graph.latents(server, sampler, on_message=seen)

    assert latents.isfinite().all() and latents.shape[2] == 19
    assert log.text.count("preview_vae cannot show the video") == 1
    assert not seen.data("framepack.clip")


@pytest.mark.slow
def test_after_a_cancel_only_the_clip_is_left(graph, server):
    start = graph.encode(graph.image, 256)
    sampler = graph.sampler(start_latent=start, plan=graph.plan_of(2), steps=3, preview_vae=graph.vae, seed=34)
    seen = CancelAfter(server, sampler, 4)  # in the second section

    with pytest.raises(RunFailed) as failure:
        graph.latents(server, sampler, on_message=seen)

    assert failure.value.interrupted
    clip = clip_of(server, seen)
    assert len(frames_of(clip)) == FRAMES[0]
    assert list(clip.parent.iterdir()) == [clip]
