"""The video so far as one picture."""

import pytest
from PIL import Image

from framepack_core.media.filmstrip import BAR, GAP, KNOWN, MADE, PLAYING, Filmstrip

RED, GREEN, BLUE = (255, 0, 0), (0, 255, 0), (0, 0, 255)


def picture(colour: tuple[int, int, int], width: int = 20, height: int = 10) -> Image.Image:
    return Image.new("RGB", (width, height), colour)


def colours_of_the_cells(strip: Filmstrip, drawn: Image.Image) -> list[tuple[int, int, int]]:
    """The middle of every thumbnail, from left to right."""
    columns = len(strip.cells)
    y = drawn.height - BAR - strip.cell[1] // 2
    return [drawn.getpixel(((2 * column + 1) * strip.size // (2 * columns), y)) for column in range(columns)]


def colours_of_the_bar(strip: Filmstrip, drawn: Image.Image) -> list[tuple[int, int, int]]:
    """The middle of every latent frame."""
    middles = ((2 * frame + 1) * strip.size // (2 * strip.frames) for frame in range(strip.frames))
    return [drawn.getpixel((x, drawn.height - 1)) for x in middles]


def test_thumbnails_are_sampled_evenly_over_the_whole_video():
    strip = Filmstrip(frames=451, height=60, width=104)

    assert strip.cells == (22, 67, 112, 157, 202, 248, 293, 338, 383, 428)


@pytest.mark.parametrize("frames", [1, 2, 7])
def test_a_short_video_shows_every_frame_once(frames):
    assert Filmstrip(frames, height=60, width=104).cells == tuple(range(frames))


def test_thumbnails_stand_in_the_order_of_the_video_whatever_is_made_first():
    strip = Filmstrip(frames=4, height=10, width=20)
    strip.put({3: picture(BLUE)})
    strip.put({0: picture(RED)})

    (draw,) = strip.play({1: picture(GREEN)}, known={0, 3})

    assert colours_of_the_cells(strip, draw()) == [RED, GREEN, GAP, BLUE]


def test_what_is_known_made_and_played_is_marked_in_time():
    strip = Filmstrip(frames=6, height=10, width=20)

    draws = strip.play({3: picture(GREEN), 4: picture(BLUE)}, known={0, 5})

    assert colours_of_the_bar(strip, draws[0]()) == [KNOWN, GAP, GAP, PLAYING, MADE, KNOWN]
    assert colours_of_the_bar(strip, draws[1]()) == [KNOWN, GAP, GAP, MADE, PLAYING, KNOWN]


def test_the_frames_being_made_play_in_turn_above_the_strip():
    strip = Filmstrip(frames=100, height=10, width=20)

    draws = strip.play({number: picture(colour) for number, colour in ((7, RED), (8, GREEN), (9, BLUE))}, known=())

    assert [draw().getpixel((strip.size // 2, strip.screen[1] // 2)) for draw in draws] == [RED, GREEN, BLUE]


def test_what_is_being_made_is_no_thumbnail_once_it_is_not_played():
    """A section's frames change with every step, so only `put` keeps them."""
    strip = Filmstrip(frames=4, height=10, width=20)
    strip.play({1: picture(GREEN)}, known=())

    (draw,) = strip.play({2: picture(BLUE)}, known=())

    assert colours_of_the_cells(strip, draw()) == [GAP, GAP, BLUE, GAP]


def test_only_frames_with_a_place_in_the_strip_are_kept():
    strip = Filmstrip(frames=1000, height=10, width=20)

    strip.put({frame: picture(RED) for frame in range(0, 200)})

    assert strip.shown(range(0, 200)) == [50, 150] == list(strip.thumbnails)
    assert {thumbnail.size for thumbnail in strip.thumbnails.values()} == {strip.cell}


@pytest.mark.parametrize(("height", "width"), [(80, 76), (60, 104), (104, 60), (52, 120), (120, 52), (2, 200)])
@pytest.mark.parametrize("frames", [1, 10, 451])
def test_a_picture_is_as_wide_as_asked_and_never_higher(height, width, frames):
    strip = Filmstrip(frames, height, width, size=512)

    (draw,) = strip.play({0: picture(RED, width, height)}, known=())

    assert draw().width == 512 and draw().height <= 512
    assert strip.screen[0] / strip.screen[1] == pytest.approx(width / height, rel=0.2)
