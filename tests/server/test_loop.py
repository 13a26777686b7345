"""Loops and exact lengths, from the prompt to the file, on the demo's models."""

from pathlib import Path

import av
import numpy
import pytest
import torch
from support.graph import CancelAt, DemoGraph, Outputs, Seen

from scripts.support.server import PromptRefused, RunFailed, Server

SECTION, STEPS = 9, 8  # latent frames; steps that the demo needs for a clean picture


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


def saving(graph: DemoGraph, latent: Outputs, **changes) -> Outputs:
    inputs = {"fps": 30.0, "filename_prefix": "loops/video", "crf": 0, "pixel_format": "yuv444p", **changes}
    return graph.add("FramePack_SaveVideo", latent=latent, vae=graph.vae, **inputs)


def saved(graph: DemoGraph, server: Server, **run) -> Path:
    """The one MP4 of a run of the prompt."""
    (path,) = (file for file in server.output_files(server.run(graph.prompt, **run)) if file.suffix == ".mp4")
    return path


def frames_of(path: Path) -> numpy.ndarray:
    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def steps_of(video: numpy.ndarray) -> numpy.ndarray:
    """The mean absolute difference from each frame to the next, and from the last to the first."""
    return numpy.abs(video.astype(float) - numpy.roll(video, -1, axis=0)).mean(axis=(1, 2, 3))


@pytest.mark.parametrize("start", [True, False])
def test_a_loop_is_a_file_of_four_frames_for_each_latent_frame_but_the_first(graph, server, start):
    empty = graph.add("EmptyHunyuanLatentVideo", width=128, height=128, length=1, batch_size=1)
    given = {} if start else {"start_latent": None, "clip_vision_output": None, "latent_image": empty}
    seen, sampler = Seen(), graph.sampler(plan=graph.plan_of(2, loop=1), **given)
    saving(graph, sampler)

    video = frames_of(saved(graph, server, on_message=seen))

    count = 4 * (3 * SECTION - (not start))
    assert video.shape == (count, 128, 128, 3)
    assert f"{count} of {count} frames done" in seen.texts(sampler)[-1]


@pytest.mark.slow
def test_a_loop_goes_on_from_its_last_frame_to_its_first(graph, server):
    """The demo's models leave a step wherever sections meet, so it is compared with those, and with no connection."""
    plan = graph.plan_of(2, loop=2)
    latent = graph.sampler(plan=plan, steps=STEPS)
    saving(graph, latent)

    video = frames_of(saved(graph, server))
    plain = graph.frames(server, graph.add("VAEDecode", samples=latent, vae=graph.vae))

    steps = steps_of(video)
    assert len(video) == 144
    assert steps[-1] <= max(steps[at] for at in (35, 71, 107)), "no larger than where other sections meet"
    assert steps[-1] < steps_of(video[: 2 * 36])[-1] / 2, "without the connection"
    assert len(plain) == 145  # the start image, then the loop
    assert numpy.abs(plain[61:].astype(float) - video[60:]).mean() < 1


def test_a_finished_video_becomes_a_loop_by_its_connecting_sections_alone(graph, server):
    settings = {"seed": 4001, "steps": 2}
    without = graph.latents(server, graph.sampler(plan=graph.plan_of(2), **settings))
    seen, looped = Seen(), graph.sampler(plan=graph.plan_of(2, loop=1), **settings)

    latents = graph.latents(server, looped, on_message=seen)

    assert latents.shape[2] == 1 + 3 * SECTION
    assert torch.equal(latents[:, :, : 1 + 2 * SECTION], without)
    assert "resumed: 2 of 3 sections" in "\n".join(seen.texts(looped))


@pytest.mark.slow
def test_a_cancelled_loop_goes_on_and_ends_in_the_same_video(graph, server):
    settings = {"plan": graph.plan_of(2, loop=2), "seed": 4002, "steps": 4}
    sampler = graph.sampler(**settings)

    with pytest.raises(RunFailed) as failure:
        graph.latents(server, sampler, on_message=CancelAt(server, sampler, "section 4 of 4: .* step 1 of"))
    seen = Seen()
    found = graph.latents(server, sampler, on_message=seen)

    assert failure.value.interrupted
    assert "resumed: 3 of 4 sections" in "\n".join(seen.texts(sampler))
    assert torch.equal(found, graph.latents(server, graph.sampler(**settings, resume=False)))


def test_the_finished_part_of_a_cancelled_loop_is_a_video(graph, server):
    """The main video, with its start image."""
    settings = {"plan": graph.plan_of(1, loop=1), "seed": 4003, "steps": 4, "on_cancel": "return finished part"}
    sampler = graph.sampler(**settings)
    saving(graph, sampler)

    assert len(frames_of(saved(graph, server, on_message=CancelAt(server, sampler, "section 2 of 2")))) == 37


def test_a_second_pass_over_a_loop_is_a_loop(graph, server):
    plan = graph.plan_of(1, loop=1)
    first = graph.sampler(plan=plan, seed=1)
    again = graph.sampler(plan=plan, seed=2, latent_image=first, denoise=0.4)

    video = graph.frames(server, graph.add("FramePack_Decode", latent=again, vae=graph.vae))

    assert len(video) == 4 * 2 * SECTION


@pytest.mark.parametrize(("seconds", "start"), [(1.0, True), (1.2, True), (1.5, True), (1.2, False)])
def test_an_exact_length_is_that_of_the_file_and_of_its_sound(graph, server, seconds, start):
    empty = graph.add("EmptyHunyuanLatentVideo", width=128, height=128, length=1, batch_size=1)
    given = {} if start else {"start_latent": None, "clip_vision_output": None, "latent_image": empty}
    sound = graph.add("EmptyAudio", duration=10.0, sample_rate=44100, channels=2)
    saving(graph, graph.sampler(plan=graph.plan_of(seconds=seconds, exact_length=True), **given), audio=sound)

    path = saved(graph, server)

    assert len(frames_of(path)) == round(seconds * 30)
    with av.open(str(path)) as container:
        heard = container.streams.audio[0]
        assert float(heard.duration * heard.time_base) == pytest.approx(seconds, abs=0.05)


def test_the_sound_of_a_loop_is_as_long_as_the_loop(graph, server):
    sound = graph.add("EmptyAudio", duration=10.0, sample_rate=44100, channels=1)
    saving(graph, graph.sampler(plan=graph.plan_of(1, loop=1)), audio=sound)

    with av.open(str(saved(graph, server))) as container:
        heard = container.streams.audio[0]
        assert float(heard.duration * heard.time_base) == pytest.approx(2.4, abs=0.05)


def test_an_exact_length_cuts_the_end_and_nothing_else(graph, server):
    whole, exact = graph.sampler(plan=graph.plan_of(2)), graph.sampler(plan=graph.plan_of(seconds=2.0, exact_length=True))

    one, other = (graph.frames(server, graph.add("FramePack_Decode", latent=made, vae=graph.vae)) for made in (whole, exact))

    assert (len(one), len(other)) == (73, 60)
    assert numpy.array_equal(one[:60], other)


def test_sections_of_a_loop_are_not_made_again(graph, server):
    plan = graph.plan_of(1, loop=1)
    redo = graph.add("FramePack_Redo", latent=graph.sampler(plan=plan), plan=plan, sections="1")
    again = graph.sampler(plan=redo, frames=redo[1], start_latent=None, seed=2)

    with pytest.raises(RunFailed) as failure:
        graph.latents(server, again)

    assert "FramePack_Redo: the plan is of a loop (loop is 1)" in failure.value.message
    assert "set the plan's loop to 0" in failure.value.message


def test_a_loop_of_an_exact_length_is_refused_when_it_is_queued(graph, server):
    sampler = graph.sampler(plan=graph.plan_of(2, loop=1, exact_length=True))

    with pytest.raises(PromptRefused) as refusal:
        graph.latents(server, sampler)

    assert "FramePack_Plan: exact_length cuts frames off the end, but a loop (loop is 1)" in str(refusal.value)
