"""Sections of a video that the demo has made are made again: they are shown what they were shown, and nothing else changes."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any

import pytest
import torch

import nodes
from framepack_core.comfyui import demo
from framepack_core.comfyui.families import family_of
from framepack_core.comfyui.latent import LENGTH, MADE, length_of, made_of
from framepack_core.comfyui.placing import Picture, place
from framepack_core.comfyui.sampling.request import Given, Request, make_guider
from framepack_core.comfyui.sampling.sample import Video, finished_part, sample
from framepack_core.demo.world import Scene
from framepack_core.placing import Frames
from framepack_core.plan import Plan
from framepack_core.redo import sections_again

SIZE = 64
PLAN = Plan.of(3.6)
LAST, MIDDLE, FIRST = range(19, 28), range(10, 19), range(1, 10)  # sections 1, 2 and 3 of the inverted order


@dataclass(frozen=True)
class Demo:
    """The demo's models, and its pictures."""

    model: Any
    clip: Any
    vae: Any
    vision: Any

    def place(self, seed: int, frames: Frames | None = None, seen: bool = True, **options) -> Frames:
        """The picture of a scene as a still."""
        picture = torch.from_numpy(Scene.draw(seed).render(1)) / 255
        vision = self.vision if seen else None
        return place(Picture(picture, **{"use": "fixed", **options}), frames or Frames(), self.vae, vision, SIZE)[0]

    def request(self, plan: Plan, seed: int = 1, denoise: float = 1.0, **inputs) -> Request:
        """What FramePack Sampler makes of its inputs."""
        own, given = family_of(self.model), Given(**inputs)
        plan = given.fit(plan, own.family, denoise)
        timeline = given.timeline(plan)
        sections = plan.bind(timeline)
        (positive,) = nodes.CLIPTextEncode().encode(self.clip, "a pink circle moves right")
        return Request(
            guider=make_guider(self.model, positive, None, 1.0, 10.0),
            sampler=own.sampler("auto"),
            plan=plan,
            timeline=timeline,
            sections=sections,
            sigmas=own.sigmas(sections, timeline, 2, 0.0, denoise),
            seed=seed,
            clip_vision_output=given.clip_vision_output,
            embeddings=given.embeddings(plan, sections),
            given=given.known(plan),
            finished=given.frames.made,
            initial=given.initial(timeline, from_noise=denoise >= 1),
        )

    def latent(self, *args, **inputs) -> dict:
        return as_latent(sample(self.request(*args, **inputs), lambda line: None))


@pytest.fixture(scope="module")
def made() -> Demo:
    return Demo(*demo.load_demo())


@pytest.fixture(autouse=True)
def no_gradients():
    """As ComfyUI runs nodes."""
    with torch.inference_mode():
        yield


def as_latent(video: Video) -> dict:
    return {"samples": video.latents, MADE: video.made, LENGTH: video.length}


def again(latent: dict, sections: str, plan: Plan = PLAN) -> tuple[Plan, Frames]:
    return sections_again(sections, plan, latent["samples"], length_of(latent), made_of(latent))[:2]


def changed(before: dict, after: dict) -> list[int]:
    pairs = zip(before["samples"].unbind(2), after["samples"].unbind(2), strict=True)
    return [number for number, (one, other) in enumerate(pairs) if not torch.equal(one, other)]


def difference(before: dict, after: dict, frames: range) -> float:
    one, other = (latent["samples"][:, :, list(frames)] for latent in (before, after))
    return ((other - one).norm() / one.norm()).item()


# What sections are shown


def test_a_section_is_shown_its_guide_and_embedding_again(made):
    """As if both were given by hand to a video that does not say how it was made."""
    guide = {"at": "time", "seconds": 1.5, "use": "guide"}
    plan, frames = again(made.latent(PLAN, frames=made.place(3, made.place(1, at="start"), **guide)), "2")
    silent = replace(frames, made=replace(frames.made, shown=()))

    found = made.latent(plan, seed=2, frames=frames)

    by_hand = made.latent(plan, seed=2, frames=made.place(3, silent, **guide))
    without = made.latent(plan, seed=2, frames=silent)
    assert changed(by_hand, found) == []
    assert changed(without, found) == [*MIDDLE]


@pytest.mark.parametrize(("order", "strength"), [("inverted", 1.0), ("inverted", 0.5), ("endpoints", 0.5)])
def test_the_last_section_sees_the_end_that_it_saw(made, order, strength):
    """It goes on to the next time."""
    plan = Plan.of(3.6, order)
    start, end = ({"samples": made.place(seed, at="start").placed[0].latents} for seed in (1, 2))
    request = made.request(plan, start_latent=start, end_latent=end, end_strength=strength)
    latent = as_latent(sample(request, lambda line: None))

    shorter, frames = again(latent, "1", plan)
    second = made.request(shorter, frames=frames)
    once_more = again(as_latent(sample(second, lambda line: None)), "1", plan)
    third = made.request(once_more[0], frames=once_more[1])

    seen, expected = (second.timeline.read(second.sections[0].sees & {28}), end["samples"] * strength)
    assert torch.equal(seen, expected)
    assert third.made.end is not None and torch.equal(third.made.end, expected)


def test_sections_between_keyframes_have_the_embedding_of_the_one_that_they_had(made):
    keyframes = made.place(2, made.place(1, at="start"), at="end")
    start, end = (placed.embedding for placed in keyframes.placed)
    latent = made.latent(PLAN, frames=keyframes)

    plan, frames = again(latent, "1,3")
    second = made.request(plan, frames=frames)
    sample(second, lambda line: None)
    once_more = sections_again("1-3", PLAN, latent["samples"], length_of(latent), second.made)

    assert [second.embeddings[section.number] is one for section, one in zip(second.sections, (end, start), strict=True)]
    third = made.request(once_more[0], frames=once_more[1])
    assert [third.embeddings[number] for number in (0, 2)] == [end, start]


def test_an_embedding_that_is_connected_takes_the_place_of_what_sections_had(made):
    first, other = (made.place(seed, at="start").placed[0] for seed in (1, 4))
    latent = made.latent(PLAN, start_latent={"samples": first.latents}, clip_vision_output=first.embedding)

    plan, frames = again(latent, "2")

    assert made.request(plan, frames=frames).embeddings == {0: first.embedding}
    given = made.request(plan, frames=frames, clip_vision_output=other.embedding)
    assert (given.embeddings, given.clip_vision_output) == ({}, other.embedding)
    assert [one.embedding for one in given.made.shown if one.covers(MIDDLE)] == [other.embedding]


def test_a_new_guide_is_shown_to_what_is_made_again(made):
    plan, frames = again(made.latent(PLAN, frames=made.place(1, at="start")), "2")
    guided = made.place(3, frames, at="time", seconds=1.5, use="guide")

    found = made.request(plan, frames=guided)

    (guide,) = found.timeline.guides
    assert torch.equal(guide.latent, guided.placed[-1].picture)
    assert found.timeline.frames == 28 and found.embeddings == {0: guided.placed[-1].embedding}


@pytest.mark.parametrize(("order", "name"), [("inverted", "start_latent"), ("endpoints", "end_latent")])
def test_an_image_that_would_become_one_more_frame_is_refused(made, order, name):
    image = {"samples": made.place(1, at="start").placed[0].latents}
    plan = Plan.of(3.6, order)
    both = {"start_latent": image, **({"end_latent": image} if order == "endpoints" else {})}
    again_plan, frames = again(made.latent(plan, **both), "2", plan)

    with pytest.raises(ValueError, match=f"{name} is connected, but frames are the rest of a .* disconnect {name}"):
        made.request(again_plan, frames=frames, **{name: image})


def test_the_finished_part_of_a_video_has_a_plan_of_its_own_length(made):
    """Of which sections can be made again as of a whole video."""
    cancelled = made.request(PLAN, frames=made.place(1, at="start"))
    before = frozenset(cancelled.timeline.known)
    cancelled.timeline.write(LAST, torch.zeros(1, 16, 9, 8, 8))

    part = finished_part(cancelled.timeline, before, cancelled.made, cancelled.length)

    assert (part.made.frames, part.made.given, part.made.plan.sections) == (9, (), 1)
    assert [(one.start, one.stop) for one in part.made.shown] == [(0, 9)]
    assert sections_again("1", Plan.of(1.2), part.latents, part.length, part.made)[1].placed == ()
    with pytest.raises(ValueError, match=r"the plan has 3 sections, but latent was made with 1 section; .* was cancelled"):
        sections_again("1", PLAN, part.latents, part.length, part.made)


# Repair in place


def test_with_little_noise_a_section_stays_near_what_it_was_and_the_rest_stays_bit_for_bit(made):
    """The section shows another scene: with little noise it still does, made anew it does not."""
    latent = made.latent(PLAN, frames=made.place(1, at="start"))
    latent["samples"][:, :, list(MIDDLE)] = made.place(4, at="start").placed[0].latents
    plan, frames = again(latent, "2")

    repaired, more, anew = (
        made.latent(plan, seed=2, denoise=denoise, frames=frames, latent_image=latent) for denoise in (0.1, 0.5, 1.0)
    )

    assert changed(latent, repaired) == changed(latent, more) == changed(latent, anew) == [*MIDDLE]
    near, farther, far = (difference(latent, video, MIDDLE) for video in (repaired, more, anew))
    assert 0 < near < farther < far
    assert near < far / 4


def test_without_less_noise_the_video_that_is_repaired_gives_only_its_size(made):
    latent = made.latent(PLAN, frames=made.place(1, at="start"))
    plan, frames = again(latent, "1,3")

    with_image, without = (made.latent(plan, seed=2, frames=frames, **image) for image in ({"latent_image": latent}, {}))

    assert changed(with_image, without) == []
    assert changed(latent, without) == [*FIRST, *LAST]


def test_a_video_of_another_length_cannot_be_repaired(made):
    latent = made.latent(PLAN, frames=made.place(1, at="start"))
    plan, frames = again(latent, "2")
    shorter = {"samples": latent["samples"][:, :, :19]}

    with pytest.raises(ValueError, match="latent_image holds 19 latent frames, but the plan's video has 28"):
        made.request(plan, denoise=0.5, frames=frames, latent_image=shorter)
