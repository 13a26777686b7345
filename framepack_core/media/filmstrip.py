"""The video so far as one picture: the frame being played, above a strip of thumbnails of the whole video."""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterable, Mapping
from functools import partial

from PIL import Image, ImageDraw

from ..frames import runs

COLUMNS = 10
BAR = 6  # pixels under the thumbnails that show what is known, what is being made and what is playing

BACKGROUND, GAP = (24, 24, 27), (52, 52, 58)
KNOWN, MADE, PLAYING = (150, 150, 160), (90, 160, 255), (255, 255, 255)


class Filmstrip:
    """Thumbnails spread evenly over a video of `frames` latent frames `height` x `width`, with gaps where none is known.

    `size` is the width of the pictures it draws, in pixels, and their greatest height.

        strip = Filmstrip(frames=145, height=60, width=104)
        strip.put({0: start})
        pictures = strip.play(frames_that_are_made, known={0})
        show(pictures[0]())
    """

    def __init__(self, frames: int, height: int, width: int, size: int = 512) -> None:
        self.frames = frames
        self.size = size
        columns = min(COLUMNS, frames)
        self.cells = tuple((2 * column + 1) * frames // (2 * columns) for column in range(columns))
        self.cell = _fit(width, height, size // columns - 2, size // 4)
        self.screen = _fit(width, height, size, size - self.cell[1] - BAR)
        self.thumbnails: dict[int, Image.Image] = {}

    def shown(self, frames: Iterable[int]) -> list[int]:
        """Those of the frames that have a place in the strip."""
        return [frame for frame in frames if frame in self.cells]

    def put(self, pictures: Mapping[int, Image.Image]) -> None:
        """Turn finished frames into thumbnails."""
        self.thumbnails |= self._thumbnails(pictures)

    def play(self, pictures: Mapping[int, Image.Image], known: Collection[int]) -> list[Callable[[], Image.Image]]:
        """A function for each of these frames, which are being made, that draws it above the strip; `known` ones exist."""
        strip = self._strip({**self.thumbnails, **self._thumbnails(pictures)}, pictures, known)
        return [partial(self._draw, strip, frame, picture) for frame, picture in pictures.items()]

    def _thumbnails(self, pictures: Mapping[int, Image.Image]) -> dict[int, Image.Image]:
        return {frame: pictures[frame].resize(self.cell) for frame in self.shown(pictures)}

    def _strip(self, thumbnails: Mapping[int, Image.Image], made: Iterable[int], known: Iterable[int]) -> Image.Image:
        strip = Image.new("RGB", (self.size, self.cell[1] + BAR), BACKGROUND)
        for column, frame in enumerate(self.cells):
            picture = thumbnails.get(frame) or Image.new("RGB", self.cell, GAP)
            left, right = (edge * self.size // len(self.cells) for edge in (column, column + 1))
            strip.paste(picture, ((left + right - self.cell[0]) // 2, 0))
        for frames, colour in ((range(self.frames), GAP), (sorted(known), KNOWN), (sorted(made), MADE)):
            for start, stop in runs(frames):
                self._mark(strip, start, stop, colour)
        return strip

    def _draw(self, strip: Image.Image, frame: int, picture: Image.Image) -> Image.Image:
        drawn = Image.new("RGB", (self.size, self.screen[1] + strip.height), BACKGROUND)
        drawn.paste(picture.resize(self.screen), ((self.size - self.screen[0]) // 2, 0))
        strip = strip.copy()
        self._mark(strip, frame, frame + 1, PLAYING)
        drawn.paste(strip, (0, self.screen[1]))
        return drawn

    def _mark(self, strip: Image.Image, start: int, stop: int, colour: tuple[int, int, int]) -> None:
        """Frames `start` to `stop - 1` in the bar, at least two pixels wide."""
        left, right = (edge * self.size // self.frames for edge in (start, stop))
        top = strip.height - BAR + 2
        ImageDraw.Draw(strip).rectangle((left, top, max(right - 1, left + 1), strip.height - 1), fill=colour)


def _fit(width: int, height: int, most_wide: int, most_high: int) -> tuple[int, int]:
    """The largest width and height of these proportions within the limits."""
    scale = min(most_wide / width, most_high / height)
    return max(1, round(width * scale)), max(1, round(height * scale))
