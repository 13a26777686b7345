"""Pictures of the documents: what they show of tiny made-up videos, and the files that are kept."""

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from experiments.pictures import examples, readme
from experiments.pictures.growing import HIGHLIGHT, THUMB, Moment, Stage, moments
from experiments.pictures.take import Preview, Take, shown, span
from framepack_core.drawing.palette import LIGHT
from framepack_core.plan import Plan
from scripts.support.server import Server

SIDE, STEPS, WINDOW = 128, 4, 3
MADE, EXPECTED = 60, 180  # how bright finished frames and previews are
ROOT = Path(__file__).parents[2]
IMAGES = ROOT / "docs" / "images"
LARGEST = 1_200_000  # bytes


def grey(frames: int, value: int) -> np.ndarray:
    return np.full((frames, SIDE, SIDE, 3), value, np.uint8)


@pytest.fixture(scope="module")
def take() -> Take:
    plan = Plan.of(0.8, window=WINDOW)
    sections = plan.fill(1 + plan.generated)
    previews = tuple(
        tuple(Preview(step, grey(len(shown(section)), EXPECTED)) for step in range(1, STEPS)) for section in sections
    )
    return Take(plan, "a red star stands still", STEPS, grey(25, MADE), previews)


@pytest.fixture(scope="module")
def stage(take) -> Stage:
    return Stage(take)


def thumbs(stage: Stage, moment: Moment) -> list[tuple[int, int, int]]:
    """The colours of the thumbnails, from the video's start to its end."""
    image = stage.draw(moment)
    return [image.getpixel((left + 6, (top + bottom) // 2)) for left, top, right, bottom in stage.thumbs.values()]


def test_the_moments_are_the_steps_of_every_section_its_frames_and_then_the_whole_video(take):
    found = list(moments(take))

    assert [section.target for section in take.sections] == [(4, 5, 6), (1, 2, 3)]
    assert len(found) == 1 + 2 * (3 + 6) + 13
    assert [moment.section for moment in found] == [None] + [0] * 9 + [1] * 9 + [None] * 13
    assert [moment.playing for moment in found[4:10]] == [13, 15, 17, 19, 21, 23]
    assert [moment.playing for moment in found[-13:]] == list(range(0, 25, 2))


def test_all_pictures_have_one_size(take, stage):
    assert {stage.draw(moment).size for moment in moments(take)} == {stage.size}


def test_frames_that_are_not_made_yet_are_blank(take, stage):
    first, making, *_ = moments(take)
    last = list(moments(take))[-1]

    assert thumbs(stage, first) == [(MADE,) * 3, LIGHT.paper, LIGHT.paper]
    assert thumbs(stage, making) == [(MADE,) * 3, LIGHT.paper, (EXPECTED,) * 3]
    assert thumbs(stage, last) == [(MADE,) * 3] * 3


def test_thumbnails_stand_above_their_frames_in_the_plan(stage):
    for number, (left, _, right, _) in enumerate(list(stage.thumbs.values())[1:]):
        assert (left, right) == (stage.rows.x(1 + THUMB * number), stage.rows.x(1 + THUMB * (number + 1)))


def test_the_row_of_the_section_that_is_being_made_is_highlighted_and_later_ones_are_empty(take, stage):
    for moment in moments(take):
        image = stage.draw(moment)
        left, tops = stage.row_box(0)[0], [stage.row_box(row)[1] for row in (0, 1)]
        found = [image.getpixel((left + 1, top + 1)) == HIGHLIGHT for top in tops]
        assert found == [moment.section == row for row in (0, 1)]
        for row, section in enumerate(take.sections):
            x0, y0, _, _ = stage.rows.box(row, section.target[0], section.target[0] + 1)
            assert image.getpixel((x0 + 3, y0 + 3)) == (LIGHT.generated if row < moment.rows else LIGHT.paper)


def test_the_caption_has_the_plans_own_numbers(take, stage):
    _, making, *_ = moments(take)

    assert stage.lines(making) == ("section 1 of 2: makes 0.43 to 0.83 s", "sees 1 latent frame at the cost of 2.5")


def test_latent_frames_are_one_frame_and_then_four_each():
    assert [list(span(0, 1)), list(span(1, 2)), list(span(35, 37))] == [[0], [1, 2, 3, 4], list(range(137, 145))]


def test_a_written_animation_keeps_its_times_and_starts_again(tmp_path):
    colours = [LIGHT.paper, LIGHT.generated, LIGHT.ink, LIGHT.outline]

    readme.write_animation(tmp_path / "a.webp", (Image.new("RGB", (40, 20), colour) for colour in colours), [100, 50, 50, 900])

    with Image.open(tmp_path / "a.webp") as image:
        assert (image.n_frames, image.info["loop"], image.size) == (4, 0, (40, 20))


def test_the_picture_that_is_kept_moves_and_is_small():
    path = IMAGES / "demo.webp"

    assert path.stat().st_size < LARGEST
    with Image.open(path) as image:
        assert image.is_animated and image.info["loop"] == 0
        assert 900 <= image.width <= 1000


@pytest.mark.parametrize("name", readme.PLANS)
def test_the_plans_that_are_kept_are_those_that_the_command_draws(name):
    with Image.open(IMAGES / f"{name}.png") as kept:
        assert kept.size == readme.draw_plan(readme.PLANS[name]).size


# What templates and help pages show

VIDEOS = {  # frames of each
    "demo": 145, "redone": 145, "timed": 145, "extended": 109, "ends": 77, "keyframes": 81, "without_lora": 73, "with_lora": 73,
    "becoming": 5,
}  # fmt: skip


@pytest.fixture
def reels() -> examples.Reels:
    """Reels that need no server: each has as many frames as the video, and all frames of a section are of one grey."""
    reels = examples.Reels(server=None)
    for name, frames in VIDEOS.items():
        reels.__dict__[name] = np.concatenate(
            [grey(1, MADE), *(grey(4, MADE + number) for number in range(1, frames // 4 + 1))]
        )
    return reels


def colours(image: Image.Image) -> set[tuple[int, int, int]]:
    return {colour for _, colour in image.convert("RGB").getcolors(image.width * image.height)}


@pytest.mark.parametrize("path", examples.PICTURES)
def test_the_pictures_of_videos_that_are_kept_are_those_that_the_command_draws(path, reels):
    with Image.open(ROOT / path) as kept:
        assert kept.size == examples.PICTURES[path](reels).size


def test_what_is_given_and_what_is_made_have_edges_of_their_own_colours(reels):
    for draw in (examples.extend, examples.first_and_last, examples.keyframes):
        assert {examples.GIVEN, examples.MADE} <= colours(draw(reels))


def test_one_section_of_the_four_is_crossed_out_and_made_again(reels):
    frames = examples.by_section(reels.demo)

    assert [int(frame[0, 0, 0]) - MADE for frame in frames] == [0, 5, 14, 23, 32]  # the latent frames in their middles
    assert {examples.WRONG, examples.MADE} <= colours(examples.redo(reels))


def test_a_keyframe_stands_where_it_was_placed_and_what_is_made_between(reels):
    pictures = examples.keyframe_pictures(reels, examples.GIVEN, ["a", "b", "c"], "made")

    assert [int(picture.frame[0, 0, 0]) - MADE for picture in pictures] == [0, 5, 10, 15, 20]
    assert [picture.caption for picture in pictures] == ["a", "made", "b", "made", "c"]


@pytest.mark.server
@pytest.mark.slow
def test_a_server_makes_every_video_of_the_pictures(environment, tmp_path, reels):
    """With one step a section, what they show is noise."""
    with Server(environment, tmp_path) as server:
        made = examples.Reels(server, steps=1)
        shapes = {name: getattr(made, name).shape for name in VIDEOS}

    assert shapes == {name: getattr(reels, name).shape for name in VIDEOS}
