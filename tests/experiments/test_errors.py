"""Videos of the paper's claims: a set error of each section, sections that see the world, other windows and tails."""

from dataclasses import replace

import numpy as np
import pytest
import torch

from experiments.study import strips
from experiments.study.errors import Elsewhere, Tinted, direction
from experiments.study.findings import findings
from experiments.study.results import Results
from experiments.study.studio import Studio
from experiments.study.videos import EXPERIMENTS, TAILS, WINDOWS, Amount, Video
from framepack_core.frames import pixel_frames
from framepack_core.sections import drawing, fill
from framepack_core.timeline import Timeline

ONE = Video(0, "left", 2, "forward", "f1", steps=1)
ORDERS = (("forward", "f1"), ("inverted", "framepack"))


def seen_by_second(denoise_in) -> torch.Tensor:
    """What the second of two sections sees at full detail of what is next to it, where `denoise_in(denoise)` makes zeros."""
    seen = []

    def denoise(noise, context):
        seen.append(context)
        return torch.zeros_like(noise)

    timeline = Timeline.of(19, {0: torch.zeros(1, 16, 1, 4, 4)})
    list(fill(ONE.plan.bind(timeline), timeline, drawing(timeline, 0), denoise_in(denoise)))
    groups = zip(seen[1].section.context, seen[1].latents, strict=True)
    return next(latents for group, latents in groups if group.frames == (9,))


def test_a_set_error_is_in_what_later_sections_see():
    tint = 0.1 * direction(16)

    seen = seen_by_second(lambda denoise: Tinted(denoise, tint))

    torch.testing.assert_close(seen, tint.expand_as(seen))


def test_sections_that_see_elsewhere_see_nothing_of_what_was_made():
    world = Timeline(torch.arange(19.0).reshape(1, 1, 19, 1, 1).expand(1, 16, 19, 4, 4))

    seen = seen_by_second(lambda denoise: Elsewhere(denoise, world))

    assert (seen == 9).all()


def test_the_error_has_the_same_direction_each_time_and_a_size_of_one():
    assert direction(16).square().mean().sqrt().item() == pytest.approx(1)
    torch.testing.assert_close(direction(16), direction(16))


def test_each_section_is_worse_by_the_set_error_and_the_next_one_goes_on_from_it(studio: Studio):
    plain, worse = (studio.sample([replace(ONE, error=error)]).latents for error in (0.0, 0.2))

    added = studio.model.model.latent_format.process_in(worse - plain)
    first, second = added[:, :, 1:10], added[:, :, 10:]
    assert not added[:, :, 0].any(), "what is given is as it was"
    torch.testing.assert_close(first, 0.2 * direction(16).expand_as(first), atol=1e-5, rtol=0)
    assert (second - 0.2 * direction(16)).abs().max() > 0.01


@pytest.mark.parametrize(("order", "layout"), ORDERS)
def test_only_the_first_section_is_the_same_where_sections_see_the_world(studio: Studio, order, layout):
    video = replace(ONE, order=order, layout=layout)

    own, world = (studio.sample([replace(video, sees=sees)]).latents for sees in ("own", "world"))

    first, second = video.plan.fill(1 + video.generated)
    torch.testing.assert_close(world[:, :, list(first.target)], own[:, :, list(first.target)])
    assert (world - own)[:, :, list(second.target)].abs().max() > 0.01


def test_what_a_section_sees_of_the_world_is_its_own_video_after_the_same_start(studio: Studio):
    world = studio.world([ONE, replace(ONE, scene=1)])

    torch.testing.assert_close(world.latents[:1, :, :1], studio.starts([ONE]))
    shown, rendered = studio.decode(world.latents[:1]), ONE.told.render(pixel_frames(19))
    assert np.abs(shown.astype(float) - rendered).mean() < 8


def test_a_window_of_4_makes_the_same_frames_in_more_sections(studio: Studio):
    videos = {video.window: video for video in EXPERIMENTS["windows"](Amount(windows=1)) if video.order == "forward"}
    short = replace(ONE, sections=9, window=4)

    assert {window: video.sections for window, video in videos.items()} == WINDOWS
    assert videos[4].generated == videos[9].generated
    assert len(short.plan.fill(37)) == 9
    assert len(studio.shoot([short]).clips[0]) == pixel_frames(37)


def test_videos_of_all_windows_are_measured_over_the_same_frames():
    usual, short = replace(ONE, sections=4), replace(ONE, sections=9, window=4)
    frames = usual.told.render(pixel_frames(37))

    by_window = [findings(video, frames) for video in (usual, short)]

    assert len(by_window[0]["by_section"]) == 4
    assert by_window[0]["by_section"] == by_window[1]["by_section"]
    assert by_window[0]["joins"] != by_window[1]["joins"], "joins are where sections meet"


def test_tails_differ_from_the_section_on_that_has_one(studio: Studio):
    deleted, appended, pooled = (studio.sample([replace(ONE, sections=4, layout=layout)]).latents for layout in TAILS.values())

    for latents in (appended, pooled):
        torch.testing.assert_close(latents[:, :, :28], deleted[:, :, :28])
        assert (latents - deleted)[:, :, 28:].abs().max() > 1e-4
    assert not torch.allclose(appended, pooled)


def test_results_from_before_there_were_windows_and_errors_are_found(tmp_path):
    before = {
        "scene": 3, "motion": "left", "sections": 2, "order": "forward", "layout": "f1", "paddings": "released", "steps": 8,
        "shift": 5.0, "source": "model", "colour_anchor": 0.0, "then": "", "in_parts": False, "cache": 0.0,
    }  # fmt: skip
    Results(tmp_path / "results.jsonl", "w").add([(before, {"motion": 1.0})])

    results = Results(tmp_path / "results.jsonl", "w")

    video = Video.from_dict(before)
    assert results[video.to_dict()] == {"motion": 1.0}
    for other in (replace(video, window=4), replace(video, error=0.1), replace(video, sees="world")):
        assert other.to_dict() not in results
        assert Video.from_dict(other.to_dict()) == other


def test_videos_that_see_or_get_something_else_are_made_and_shown_apart():
    video = replace(ONE, sections=6)
    others = [replace(video, window=4), replace(video, error=0.1), replace(video, sees="world")]

    assert len({each.batch for each in (video, *others)}) == 4
    assert strips.is_shown(video) and not any(strips.is_shown(other) for other in others[1:])
