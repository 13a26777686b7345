"""A moving picture of a video that grows section by section, above its plan, which fills in step with it.

    pictures = [(stage.draw(moment), moment.milliseconds) for moment in moments(take)]

The columns of the plan are the video's time, and so are the thumbnails above them: a section's orange frames are below the
pictures that it makes.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from PIL import Image, ImageDraw

from experiments.pictures.take import Preview, Take, shown, span
from framepack_core.drawing.chart import LATENT_PIXEL, Chart, Mark, looks
from framepack_core.drawing.marks import Box, empty_painter, swatch, typeface
from framepack_core.drawing.painting import Rows, draw_frames
from framepack_core.drawing.palette import LIGHT, Colour
from framepack_core.filling import Section
from framepack_core.frames import PIXEL_FRAMES, runs
from framepack_core.spelling import spell_seconds

WIDTH, MARGIN, GAP = 960, 31, 14
SCREEN = 256  # pixels: the side of the frame being played
CELL, PITCH = 23, 32  # pixels in the plan: the largest width of a latent frame, and a section's height
THUMB = 3  # latent frames that one thumbnail stands for
TITLE, CAPTION, TEXT, SWATCH = 25, 21, 17, 22
HIGHLIGHT: Colour = (252, 234, 220)  # behind the row of the section being made: GENERATED, faded almost to LIGHT.paper

FRAME_TIME = 67  # milliseconds, the duration of two frames of the video
EVERY = 2  # frames of the video from each one shown to the next
STEP_TIME, START_TIME, FINISHED_TIME, END_TIME = 90, 1200, 500, 2500


@dataclass(frozen=True)
class Moment:
    """One picture: how many sections are finished, what is on the screen, and for how long.

    `section` is the one being made or just finished, whose row is highlighted; None before the first and once all are
    finished. `preview` is what it looks like so far. `playing` is the frame of the video on the screen.
    """

    finished: int
    screen: np.ndarray
    caption: str
    milliseconds: int
    section: int | None = None
    preview: Preview | None = None
    playing: int | None = None

    @property
    def rows(self) -> int:
        return self.finished + (self.preview is not None)


def moments(take: Take) -> Iterator[Moment]:
    """The start image, each section as it takes shape and then plays, and the whole video."""
    yield Moment(0, take.frames[0], "the start image: all there is", START_TIME)
    for section in take.sections:
        yield from making(take, section)
        frames = shown(section)
        yield from playing(
            take, frames, f"plays {spell_seconds(section, take.length, take.plan.fps, ' to ')} s", section.number
        )
    yield from playing(take, list(range(len(take.frames))), "plays the whole video", None)


def making(take: Take, section: Section) -> Iterator[Moment]:
    for preview in take.previews[section.number]:
        middle = preview.frames[len(preview.frames) // 2]
        caption = f"takes shape: step {preview.step} of {take.steps}"
        yield Moment(section.number, middle, caption, STEP_TIME, section.number, preview)


def playing(take: Take, frames: list[int], caption: str, section: int | None) -> Iterator[Moment]:
    finished = len(take.sections) if section is None else section + 1
    *early, last = frames[::EVERY]
    for frame in early:
        yield Moment(finished, take.frames[frame], caption, FRAME_TIME, section, playing=frame)
    hold = END_TIME if section is None else FINISHED_TIME
    yield Moment(finished, take.frames[last], caption, hold, section, playing=last)


@dataclass(frozen=True)
class Stage:
    """Draws the moments of one take."""

    take: Take

    @cached_property
    def chart(self) -> Chart:
        height, width = self.take.frames.shape[1:3]
        return Chart.of(self.take.plan, height // LATENT_PIXEL, width // LATENT_PIXEL, {0})

    @cached_property
    def rows(self) -> Rows:
        top = self.strip_top + self.thumb + GAP
        return Rows(top=top, left=MARGIN + self.thumb - self.cell, cell=self.cell, pitch=PITCH)

    @property
    def cell(self) -> int:
        """Pixels per latent frame; the start image's thumbnail is wider than its column, to the left."""
        return max(1, min(CELL, (WIDTH - 2 * MARGIN) // (self.chart.frames + THUMB - 1)))

    @property
    def thumb(self) -> int:
        """The side of a thumbnail in pixels."""
        return THUMB * self.cell

    @property
    def strip_top(self) -> int:
        return MARGIN + SCREEN + 2 * GAP + TEXT

    @property
    def size(self) -> tuple[int, int]:
        ticks = GAP + TEXT
        return WIDTH, self.rows.top + len(self.chart.sections) * PITCH + ticks + MARGIN // 2

    @property
    def screen_box(self) -> Box:
        return MARGIN, MARGIN, MARGIN + SCREEN, MARGIN + SCREEN

    def draw(self, moment: Moment) -> Image.Image:
        image = self.backdrop.copy()
        draw = ImageDraw.Draw(image)
        self._draw_screen(image, draw, moment)
        self._draw_caption(draw, moment)
        self._draw_strip(image, draw, moment)
        self._draw_plan(draw, moment)
        return image

    @cached_property
    def backdrop(self) -> Image.Image:
        """Draw what stays the same in every picture."""
        image = Image.new("RGB", self.size, LIGHT.paper)
        draw = ImageDraw.Draw(image)
        draw.rectangle((0, 0, image.width - 1, image.height - 1), outline=LIGHT.outline)
        left = self.screen_box[2] + MARGIN
        lines = [(line, LIGHT.ink, TITLE) for line in wrapped(f"“{self.take.prompt}”", TITLE, WIDTH - MARGIN - left)]
        top = MARGIN - 5
        for text, colour, size in [*lines, (self._story(), LIGHT.faint, TEXT)]:
            draw.text((left, top), text, colour, typeface(size))
            top += size + 8
        self._draw_legend(draw, left, self.screen_box[3])
        self._draw_seconds(draw)
        return image

    def _story(self) -> str:
        seconds = self.take.length.frames / self.take.plan.fps
        return f"{seconds:.1f} seconds from one picture, in {len(self.chart.sections)} sections, {self.take.plan.order} order"

    def _draw_legend(self, draw: ImageDraw.ImageDraw, left: int, bottom: int) -> None:
        """Two lines that end at `bottom` and say what the plan's colours mean."""
        blues: list[Mark] = [*self.chart.details]
        lines: list[list[tuple[list[Mark], str]]] = [
            [(["generated"], "made by this section"), (["later"], "not there yet")],
            [(blues, "seen by it: fine to coarse"), (["unseen"], "not seen")],
        ]
        for row, entries in enumerate(lines):
            top = bottom - (len(lines) - row) * (SWATCH + 8) + 8
            for place, (marks, text) in enumerate(entries):
                x = left + place * 370
                for mark in marks:
                    swatch(mark, self.chart)(draw, (x, top, x + SWATCH, top + SWATCH))
                    x += SWATCH + 4
                draw.text((x + 6, top + SWATCH // 2), text, LIGHT.ink, typeface(TEXT), anchor="lm")

    def _draw_seconds(self, draw: ImageDraw.ImageDraw) -> None:
        fps, top = self.take.plan.fps, self.rows.top + len(self.chart.sections) * PITCH
        for second in range(int(len(self.take.frames) / fps) + 1):
            x = self._x(second * fps)
            draw.line((x, top, x, top + 5), LIGHT.outline)
            draw.text((x, top + GAP + TEXT // 2), f"{second} s", LIGHT.faint, typeface(TEXT), anchor="mm")

    def _draw_screen(self, image: Image.Image, draw: ImageDraw.ImageDraw, moment: Moment) -> None:
        left, top, right, bottom = self.screen_box
        image.paste(_resized(moment.screen, SCREEN), (left, top))
        if moment.section is not None:
            draw.rectangle((left - 4, top - 4, right + 3, bottom + 3), outline=LIGHT.generated, width=4)
        draw.text((left, bottom + GAP + TEXT // 2), moment.caption, LIGHT.faint, typeface(TEXT), anchor="lm")

    def _draw_caption(self, draw: ImageDraw.ImageDraw, moment: Moment) -> None:
        """Two lines: the section being made, what it sees, and what that costs in frames at full detail."""
        left, top = self.screen_box[2] + MARGIN, MARGIN + 118
        colour = LIGHT.ink if moment.section is None else LIGHT.generated
        first, second = self.lines(moment)
        draw.text((left, top), first, colour, typeface(CAPTION))
        draw.text((left, top + CAPTION + 9), second, LIGHT.ink, typeface(CAPTION))

    def lines(self, moment: Moment) -> tuple[str, str]:
        chart, sections = self.chart, len(self.chart.sections)
        if moment.section is None and not moment.finished:
            return "given: one picture and what happens in it", ""
        if moment.section is None:
            bounded = math.isfinite(chart.plan.layout.context_bound(chart.height, chart.width))
            cost = "however long the video, none would cost more" if bounded else ""
            return f"all {sections} sections are made: {len(self.take.frames)} frames", cost
        section = chart.sections[moment.section]
        cost = section.context_tokens(chart.height, chart.width) / chart.full_frame
        seconds = spell_seconds(section, self.take.length, self.take.plan.fps, " to ")
        seen = len(looks(section))
        return (
            f"section {section.number + 1} of {sections}: makes {seconds} s",
            f"sees {seen} latent frame{'s' if seen > 1 else ''} at the cost of {cost:.2g}",
        )

    def _draw_strip(self, image: Image.Image, draw: ImageDraw.ImageDraw, moment: Moment) -> None:
        """Thumbnails of the video so far, and a mark where it plays."""
        for frame, box in self.thumbs.items():
            picture = self._picture(frame, moment)
            if picture is None:
                empty_painter(LIGHT)(draw, box)
            else:
                image.paste(_resized(picture, self.thumb).crop((0, 0, box[2] - box[0] - 1, self.thumb)), box[:2])
        if moment.preview is not None and moment.section is not None:
            for start, stop in runs(self.chart.sections[moment.section].target):
                corners = self.rows.x(start), self.strip_top, self.rows.x(stop) - 2, self.strip_top + self.thumb - 1
                draw.rectangle(corners, outline=LIGHT.generated, width=3)
        if moment.playing is not None:
            x, bottom = self._x(moment.playing + 0.5), self.strip_top + self.thumb
            draw.rectangle((x - 2, self.strip_top - 4, x + 2, bottom + 3), LIGHT.paper)
            draw.rectangle((x - 1, self.strip_top - 4, x + 1, bottom + 3), LIGHT.ink)

    @cached_property
    def thumbs(self) -> dict[int, Box]:
        """The frames of the video that have a thumbnail, and where; the start image's ends with the plan's first column."""
        top, bottom, x = self.strip_top, self.strip_top + self.thumb, self.rows.x
        places = {0: (x(1) - self.thumb, top, x(1), bottom)}
        for start in range(1, self.chart.frames, THUMB):
            stop = min(start + THUMB, self.chart.frames)
            frames = span(start, stop)
            places[frames[len(frames) // 2]] = (x(start), top, x(stop), bottom)
        return places

    def _picture(self, frame: int, moment: Moment) -> np.ndarray | None:
        """A frame of the video as it is so far."""
        maker = self.makers[frame]
        if maker < moment.finished:
            return self.take.frames[frame]
        if moment.preview is None or maker != moment.section:
            return None
        return moment.preview.frames[shown(self.chart.sections[maker]).index(frame)]

    @cached_property
    def makers(self) -> list[int]:
        """For every frame of the video, the section that makes it; -1 for the start image."""
        return [maker for frame, maker in enumerate(self.chart.made) for _ in span(frame, frame + 1)]

    def _draw_plan(self, draw: ImageDraw.ImageDraw, moment: Moment) -> None:
        """Draw a row for every section that has begun; the others stay empty."""
        for row, section in enumerate(self.chart.sections):
            now = row == moment.section
            if now:
                draw.rectangle(self.row_box(row), HIGHLIGHT)
            colour = LIGHT.generated if now else LIGHT.ink if row < moment.rows else LIGHT.faint
            draw.text((MARGIN, self.rows.middle(row)), f"{row + 1}", colour, typeface(CAPTION), anchor="lm")
            if row < moment.rows:
                label = f"{spell_seconds(section, self.take.length, self.take.plan.fps, ' to ')} s"
                draw_frames(draw, self.chart, self.rows, row, section, label)
            else:
                empty_painter(LIGHT)(draw, self.rows.box(row, 0, self.chart.frames))

    def row_box(self, row: int) -> Box:
        """The box of a section's whole row."""
        top = self.rows.top + row * PITCH
        return MARGIN - 8, top, self.rows.x(self.chart.frames) + 5, top + PITCH - 1

    def _x(self, frame: float) -> int:
        """Where a frame of the video is in the plan: the first fills a column, of the others each four share one."""
        return self.rows.x((frame + PIXEL_FRAMES - 1) / PIXEL_FRAMES if frame >= 1 else frame)


def _resized(picture: np.ndarray, side: int) -> Image.Image:
    return Image.fromarray(picture).resize((side, side), Image.Resampling.BICUBIC)


def wrapped(text: str, size: int, width: int) -> list[str]:
    """The words in lines that fit into `width` pixels."""
    lines = [""]
    for word in text.split():
        longer = f"{lines[-1]} {word}".strip()
        if lines[-1] and typeface(size).getlength(longer) > width:
            lines.append(word)
        else:
            lines[-1] = longer
    return lines
