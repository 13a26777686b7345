"""Runs of what was placed: which sections of an earlier run are found again, and what a cancel returns."""

from __future__ import annotations

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy_api.latest import InputImpl, Types
from support import given

from framepack_core.comfyui.latent import LENGTH, MADE
from framepack_core.comfyui.loading.checkpoints import load_path
from framepack_core.comfyui.originals import Originals
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.sample import Video, sample
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.frames import pixel_frames
from framepack_core.media.video import Encoding, Footage
from framepack_core.placing import Frames, Placed
from framepack_core.plan import Plan

INPUTS = given.inputs()
SECONDS = 1.2  # of a section
CLIP = 19  # latent frames of 73 frames, as many as a section sees


def latents(frames: int = 1, seed: int = 1) -> torch.Tensor:
    return torch.randn(1, 16, frames, given.HEIGHT, given.WIDTH, generator=torch.Generator().manual_seed(seed))


def embedding(seed: int) -> dict[str, torch.Tensor]:
    return {"last_hidden_state": torch.randn(1, 5, 32, generator=torch.Generator().manual_seed(seed))}


def placed(at: str = "start", frames: int = 1, seed: int = 1, **changes: Any) -> Placed:
    """A still, or the latents of a clip, with an embedding of its own."""
    shown = latents(frames, seed)
    return Placed(**{"latents": shown, "picture": shown[:, :, :1], "at": at, "embedding": embedding(seed), **changes})


START, GUIDE = placed(), placed("time", seed=2, use="guide", seconds=1.3)


@pytest.fixture(scope="module")
def model(checkpoint):
    return load_path(str(checkpoint), {})


@pytest.fixture
def kept(tmp_path, monkeypatch) -> None:
    """Finished sections are kept in a folder of the test's own."""
    monkeypatch.setattr("folder_paths.get_system_user_directory", lambda name: str(tmp_path))


def request(model, plan: Plan, *frames: Placed, denoised: torch.Tensor | None = None, **options) -> Request:
    """`denoised` is the video that is changed, instead of noise."""
    asked = Given(frames=Frames(frames), latent_image=None if denoised is None else {"samples": denoised})
    timeline = asked.timeline(plan)
    sections = plan.bind(timeline)
    conditioning = [[INPUTS.positive[0], {"pooled_output": INPUTS.positive[1]}]]
    return Request(
        guider=make_guider(model, conditioning, None, 1.0, given.GUIDANCE),
        sampler=sampler_named("euler"),
        plan=plan,
        timeline=timeline,
        sections=sections,
        sigmas=section_sigmas(sections, timeline, 1, 0.0),
        seed=7,
        embeddings=asked.embeddings(plan, sections),
        initial=asked.initial(timeline, from_noise=denoised is None),
        given=asked.known(plan),
        **options,
    )


def video(asked: Request, say: Callable[[str], None] = lambda line: None) -> torch.Tensor:
    return sample(asked, say).latents


def found(asked: Request) -> tuple[torch.Tensor, str | None]:
    """The video, and how many of its sections an earlier run had made."""
    lines: list[str] = []
    made = video(asked, lines.append)
    words = [line.split()[1:4] for line in "\n".join(lines).splitlines() if line.startswith("resumed: ")]
    return made, " ".join(words[0]) if words else None


LONGER = {
    "a clip": (placed(frames=CLIP),),
    "a still": (START,),
    "a still and a guide": (START, GUIDE),
}


@pytest.mark.parametrize("what", LONGER)
def test_a_longer_forward_video_finds_all_sections_of_the_shorter_one(model, kept, what):
    short, long = (Plan.of(count * SECONDS, "forward") for count in (2, 3))
    before = video(request(model, short, *LONGER[what], origin="here"))

    after, resumed = found(request(model, long, *LONGER[what], origin="here"))

    assert resumed == "2 of 3"
    assert torch.equal(after[:, :, : before.shape[2]], before)
    assert torch.equal(after, video(request(model, long, *LONGER[what])))


@pytest.mark.parametrize("what", LONGER)
@pytest.mark.parametrize("order", ["forward", "inverted"])
def test_a_finished_video_becomes_a_loop_by_its_connecting_section(model, kept, order, what):
    video(request(model, Plan.of(2 * SECONDS, order), *LONGER[what], origin="here"))
    loop = Plan.of(2 * SECONDS, order, loop=1)

    looped, resumed = found(request(model, loop, *LONGER[what], origin="here"))

    assert resumed == "2 of 3"
    assert torch.equal(looped, video(request(model, loop, *LONGER[what])))


def test_a_longer_video_that_is_denoised_finds_the_sections_whose_frames_are_the_same(model, kept):
    whole = latents(1 + 3 * given.WINDOW, seed=8)
    short, long = (Plan.of(count * SECONDS, "forward") for count in (2, 3))
    video(request(model, short, START, denoised=whole[:, :, : 1 + 2 * given.WINDOW], origin="here"))

    after, resumed = found(request(model, long, START, denoised=whole, origin="here"))

    assert resumed == "2 of 3"
    assert torch.equal(after, video(request(model, long, START, denoised=whole)))


WHOLE = latents(1 + 3 * given.WINDOW, seed=8)
CHANGED = WHOLE.clone()
CHANGED[:, :, -1] += 1
LATE = {"use": "guide", "seconds": 2.6}  # in the third section


@pytest.mark.parametrize(
    ("before", "after"),
    [
        ((START,), (START, placed("time", seed=2, **LATE))),
        ((START, placed("time", seed=2, **LATE)), (START, placed("time", seed=3, embedding=embedding(2), **LATE))),
        ((START, placed("time", seed=2, **LATE)), (START, placed("time", seed=2, embedding=embedding(3), **LATE))),
        ((START, WHOLE), (START, CHANGED)),
    ],
    ids=["no guide", "another guide", "another embedding", "other frames to denoise"],
)
def test_what_only_the_last_section_sees_leaves_those_before_it(model, kept, before, after):
    def asked(what: tuple, **options) -> Request:
        denoised = [one for one in what if isinstance(one, torch.Tensor)]
        frames = [one for one in what if isinstance(one, Placed)]
        return request(model, Plan.of(3 * SECONDS, "forward"), *frames, denoised=denoised[0] if denoised else None, **options)

    one = video(asked(before, origin="here"))

    other, resumed = found(asked(after, origin="here"))

    assert resumed == "2 of 3"
    assert torch.equal(other, video(asked(after))) and not torch.equal(other, one)


def test_an_embedding_that_all_sections_see_changes_all_of_them(model, kept):
    plan = Plan.of(2 * SECONDS, "forward")
    video(request(model, plan, START, origin="here"))

    assert found(request(model, plan, placed(embedding=embedding(9)), origin="here"))[1] is None


# Cancel and keep what is finished


SHOWN = pixel_frames(CLIP)  # frames of the clip, of which one at the end has no first latent frame
AT_START, AT_END = placed(frames=CLIP), placed("end", frames=CLIP - 1, seed=2)
KEYFRAME = placed("time", seed=2, seconds=2.4)


def cancelled(model, plan: Plan, *frames: Placed, at: str) -> Video:
    """What a run returns that is cancelled when its last line begins so."""

    def cancel(line: str) -> None:
        if line.splitlines()[-1].startswith(at):
            raise InterruptProcessingException

    return sample(request(model, plan, *frames, on_cancel="return finished part"), cancel)


CUT = {
    "a clip continued": ("forward", [AT_START], 1, slice(0, 28), range(19)),
    "a clip continued from the end": ("inverted", [AT_START], 2, slice(28, 46), ()),
    "a clip continued from both ends": ("endpoints", [AT_START], 1, slice(0, 28), range(19)),
    "led up to a clip": ("inverted", [AT_END], 1, slice(18, 45), range(9, 27)),
    "led up to a clip from both ends": ("endpoints", [AT_END], 1, slice(18, 45), range(9, 27)),
    "between clips, from the end": ("inverted", [AT_START, AT_END], 2, slice(28, 64), range(18, 36)),
    "between clips, from both ends": ("endpoints", [AT_START, AT_END], 1, slice(0, 28), range(19)),
    "after a keyframe": ("inverted", [START, KEYFRAME], 1, slice(19, 29), (0,)),
    "around a keyframe": ("inverted", [START, KEYFRAME], 2, slice(10, 29), (9,)),
}


@pytest.mark.parametrize(("order", "frames", "finished", "part", "given"), CUT.values(), ids=CUT)
def test_a_cancel_returns_the_stretch_with_the_most_that_was_made(model, order, frames, finished, part, given):
    plan = Plan.of(3 * SECONDS, order)
    whole = video(request(model, plan, *frames))

    found = cancelled(model, plan, *frames, at=f"section {finished + 1} of")

    assert torch.equal(found.latents, whole[:, :, part])
    assert found.made.given == tuple(given)
    assert (found.made.begins, found.made.ends) == (part.start == 0, part.stop == whole.shape[2])
    assert found.length.frames == pixel_frames(found.latents.shape[2]) and not found.whole


def test_a_cancel_after_the_last_section_returns_the_whole_video(model):
    """As it would have been, with what is cut off for an exact length."""
    plan = Plan.of(SECONDS, "forward", exact_length=True)

    found = cancelled(model, plan, START, at="36 of 36 frames done")

    assert found.whole and found.length.frames == 36


def clip(value: float):
    """A VIDEO of what Place was given, which shows its value."""
    images = torch.full((SHOWN, 8 * given.HEIGHT, 8 * given.WIDTH, 3), value)
    return InputImpl.VideoFromComponents(Types.VideoComponents(images=images, audio=None, frame_rate=Fraction(30)))


NOT_THERE = "a hard cut, since the latent is the finished part of a cancelled run, which does not reach there"
JOINED = {
    "a clip continued": (36, []),
    "a clip continued from the end": (69, [f"before: {NOT_THERE}"]),
    "led up to a clip": (32, []),
    "between clips, from the end": (141 - SHOWN, [f"before: {NOT_THERE}"]),
    "between clips, from both ends": (36, [f"after: {NOT_THERE}"]),
    "after a keyframe": (37, [f"before: {NOT_THERE}"]),
}


@pytest.mark.parametrize("case", JOINED)
def test_the_finished_part_is_joined_with_the_clips_that_it_reaches(model, case):
    (order, frames, finished, *_), (new, notes) = CUT[case], JOINED[case]
    part = cancelled(model, Plan.of(3 * SECONDS, order), *frames, at=f"section {finished + 1} of")
    latent = {"samples": part.latents, MADE: part.made, LENGTH: part.length}
    places = [one.at for one in frames]
    before, after = clip(1.0) if "start" in places else None, clip(0.5) if "end" in places else None
    black = Footage.of(torch.zeros(part.length.frames, 8 * given.HEIGHT, 8 * given.WIDTH, 3))

    joined = Originals(before, after, crossfade=0).join(latent, black, Encoding(fps=30.0), None)

    levels = torch.cat(list(joined.video.chunks))[:, 0, 0, 0].tolist()
    assert levels == [1.0] * (SHOWN if before else 0) + [0.0] * new + [0.5] * (SHOWN if after else 0)
    assert list(joined.notes) == notes
