"""A plan as a picture: a row for each section, a column for each latent frame of the video."""

from __future__ import annotations

import itertools
import math
import textwrap
from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby

from PIL import Image, ImageDraw

from ..filling import Section
from ..frames import PIXEL_FRAMES, runs
from ..plan import Plan
from ..spelling import spell_seconds
from .chart import LATENT_PIXEL, Chart, Mark, heading, looks, missing, skips, spell_tokens, title
from .marks import (
    LINE,
    SMALL,
    TEXT,
    TITLE,
    Box,
    Paint,
    cell_painter,
    chip_painter,
    colour_of,
    empty_painter,
    skip_painter,
    swatch,
    text_within,
    typeface,
)
from .palette import LIGHT, Colour, Palette

MAX_WIDTH, MAX_HEIGHT = 2000, 4000
MARGIN, COLUMN_GAP = 16, 16
CELL = 13
PITCH_MIN, PITCH_MAX, ROWS_HEIGHT = 24, 36, 1500  # rows shrink if together they would exceed ROWS_HEIGHT
ARROWS = 12  # pixels of a row in which skipped time is marked
CHIP, CHIPS_WIDTH = 38, 200
TEXT_WIDTH = 1350  # longer lines are hard to read
LEGEND_PITCH, SWATCH = 33, 26
TOKENS = "tokens seen + made"


def draw_plan(
    plan: Plan,
    width: int = 640,
    height: int = 608,
    known: Collection[int] = (0,),
    palette: Palette = LIGHT,
    guides: Sequence[tuple[int, int]] = (),
) -> Image.Image:
    """Which latent frames each section of `plan` generates, looks at and how finely, and skips, with its tokens.

    `width` and `height` are the video's, in pixels: they decide the tokens. `known` are the latent frames given before the
    first section (default: a start image), `guides` the stretches of latent frames whose sections are shown a guide. The
    picture is at most about 2000 x 4000 pixels: if there are more sections than fit, those in the middle are left out and
    counted.
    """
    chart = Chart.of(plan, height // LATENT_PIXEL, width // LATENT_PIXEL, known, palette, guides)
    grid = Grid.of(chart)
    image = Image.new("RGB", (grid.width, grid.height), palette.paper)
    draw = ImageDraw.Draw(image)
    _draw_heading(draw, chart, grid)
    _draw_legend(draw, chart, grid)
    _draw_axis(draw, chart, grid)
    for row, section in enumerate(chart.shown(grid.rows)):
        if section is None:
            left_out = f"... {len(chart.sections) - grid.rows + 1} more sections, filled in the same way ..."
            draw.text((grid.left, grid.middle(row)), left_out, palette.faint, typeface(TEXT), anchor="lm")
        else:
            _draw_row(draw, chart, grid, row, section)
    return image


@dataclass(frozen=True)
class Rows:
    """Where the sections' frames are, in pixels of the picture."""

    top: int
    left: int
    cell: float
    pitch: int

    def x(self, frame: float) -> int:
        return round(self.left + frame * self.cell)

    def middle(self, row: int) -> int:
        return self.top + row * self.pitch + self.pitch // 2

    def box(self, row: int, start: float, stop: float) -> Box:
        """The frames from `start` up to but not including `stop`, at least a pixel wide."""
        gap = self.pitch // 8
        left, top = self.x(start), self.top + row * self.pitch
        return left, top + gap, max(self.x(stop), left + 1), top + self.pitch - gap


@dataclass(frozen=True)
class Grid(Rows):
    """Where everything is in the picture of a plan."""

    width: int
    height: int
    legend: int
    rows: int
    chip: int
    seconds: int
    tokens: int

    @classmethod
    def of(cls, chart: Chart) -> Grid:
        text = typeface(TEXT)
        numbers = typeface(SMALL).getlength("section")
        times = max(text.getlength(spell_seconds(section, chart.length, chart.plan.fps, " - ")) for section in chart.sections)
        tokens = max(typeface(SMALL).getlength(TOKENS), *(text.getlength(spell_tokens(s, chart)) for s in chart.sections))
        chips = [max(len(missing(section)[side]) for section in chart.sections) for side in (0, 1)]
        chip = max(min(CHIP, CHIPS_WIDTH // max(*chips, 1)), 4)
        before, after = ((count * chip + COLUMN_GAP // 2 if count else 0) for count in chips)

        seconds = round(MARGIN + numbers + COLUMN_GAP)
        left = round(seconds + times + COLUMN_GAP + before)
        right = round(after + COLUMN_GAP + tokens + MARGIN)
        cell = min(CELL, (MAX_WIDTH - left - right) / chart.frames)
        plot_end = round(left + cell * chart.frames)
        legend_width = 2 * MARGIN + sum(width for _, width in _legend_columns(chart))
        width = min(max(plot_end + right, legend_width), MAX_WIDTH)

        legend = MARGIN + TITLE + 8 + len(_heading_lines(chart, width)) * LINE + 10
        top = legend + len(_legend_columns(chart)[0][0]) * LEGEND_PITCH + 66
        pitch = min(max(ROWS_HEIGHT // len(chart.sections), PITCH_MIN), PITCH_MAX)
        rows = min(len(chart.sections), (MAX_HEIGHT - top - MARGIN) // pitch)
        token_column = round(plot_end + after + COLUMN_GAP)
        height = top + rows * pitch + MARGIN
        return cls(
            width=width,
            height=height,
            legend=legend,
            top=top,
            left=left,
            cell=cell,
            pitch=pitch,
            rows=rows,
            chip=chip,
            seconds=seconds,
            tokens=token_column,
        )

    def chip_box(self, row: int, place: int, count: int, after: bool, frames: int) -> Box:
        """The box of one of `count` chips beyond the video's first or last frame."""
        start = self.x(frames) + COLUMN_GAP // 2 if after else self.left - COLUMN_GAP // 2 - count * self.chip
        left = start + place * self.chip
        _, top, _, bottom = self.box(row, 0, 1)
        return left, top, left + self.chip - 3, bottom


def _legend_columns(chart: Chart) -> list[tuple[list[tuple[Mark, str]], int]]:
    """The legend in two columns, each with its width."""
    half = math.ceil(len(chart.legend) / 2)
    columns = (chart.legend[:half], chart.legend[half:])
    return [
        (column, SWATCH + 12 + round(max((typeface(TEXT).getlength(text) for _, text in column), default=0)) + 2 * COLUMN_GAP)
        for column in columns
    ]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, int(0.95 * width * len(text) / typeface(TEXT).getlength(text)))


def _draw_heading(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    draw.text((MARGIN, MARGIN), title(chart), chart.palette.ink, typeface(TITLE))
    for i, line in enumerate(_heading_lines(chart, grid.width)):
        draw.text((MARGIN, MARGIN + TITLE + 8 + i * LINE), line, chart.palette.ink, typeface(TEXT))


def _heading_lines(chart: Chart, width: int) -> list[str]:
    return [line for paragraph in heading(chart) for line in _wrap(paragraph, min(width - 2 * MARGIN, TEXT_WIDTH))]


def _draw_legend(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    left = MARGIN
    for entries, width in _legend_columns(chart):
        for i, (mark, text) in enumerate(entries):
            top = grid.legend + i * LEGEND_PITCH
            swatch(mark, chart)(draw, (left, top, left + SWATCH, top + SWATCH))
            draw.text((left + SWATCH + 12, top + SWATCH // 2), text, chart.palette.ink, typeface(TEXT), anchor="lm")
        left += width


def _draw_axis(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    """Column titles, seconds and latent frame numbers above the rows, a bar over the given frames."""
    small = typeface(SMALL)
    titles = ((MARGIN, "section"), (grid.seconds, "seconds"), (grid.tokens, TOKENS))
    for x, text in titles:
        draw.text((x, grid.top - 12), text, chart.palette.faint, small, anchor="ls")
    for second in ticks(chart.seconds, grid.cell * chart.plan.fps / PIXEL_FRAMES):
        x = grid.x(chart.length.place(second * chart.plan.fps))
        draw.text((x, grid.top - 34), f"{second:g} s", chart.palette.faint, small, anchor="ls")
        draw.line((x, grid.top - 32, x, grid.top - 28), chart.palette.outline)
    for frame in ticks(chart.frames - 1, grid.cell):
        draw.text((grid.x(frame + 0.5), grid.top - 12), f"{frame:g}", chart.palette.faint, small, anchor="ms")
    for start, stop in runs(tuple(frame for frame, maker in enumerate(chart.made) if maker < 0)):
        draw.rectangle((grid.x(start), grid.top - 7, max(grid.x(stop) - 1, grid.x(start) + 2), grid.top - 3), chart.palette.ink)


def _draw_row(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid, row: int, section: Section) -> None:
    middle, ink = grid.middle(row), chart.palette.ink
    draw.text((MARGIN, middle), str(section.number + 1), ink, typeface(TEXT), anchor="lm")
    seconds = spell_seconds(section, chart.length, chart.plan.fps, " - ")
    draw.text((grid.seconds, middle), seconds, ink, typeface(TEXT), anchor="lm")
    draw.text((grid.tokens, middle), spell_tokens(section, chart), ink, typeface(TEXT), anchor="lm")
    draw_frames(draw, chart, grid, row, section, chart.label(section))
    for after, counts in enumerate(missing(section)):
        for place, (detail, count) in enumerate(counts.items()):
            box = grid.chip_box(row, place, len(counts), bool(after), chart.frames)
            chip_painter(colour_of(detail, chart), str(count), chart.palette)(draw, box)


def draw_frames(draw: ImageDraw.ImageDraw, chart: Chart, grid: Rows, row: int, section: Section, label: str) -> None:
    """Draw what happens to every frame while the section is made; its own frames carry the `label` if there is room."""
    palette = chart.palette
    for colours, start, stop in fills(section, chart):
        paint: Paint = cell_painter(colours) if colours else empty_painter(palette)
        paint(draw, grid.box(row, start, stop))
        for frame in range(start + 1, stop) if grid.cell >= 6 else ():
            x, top, _, bottom = grid.box(row, frame, frame + 1)
            draw.line((x - 1, top, x - 1, bottom - 1), palette.paper if colours else palette.outline)
    for start, stop in runs(section.target):
        box = grid.box(row, start, stop)
        text_within(draw, box, palette.paper, label, str(section.number + 1), backdrop=palette.generated)
    for before, after, count in skips(section) if grid.pitch >= ARROWS else ():
        start = 0 if before is None or before > chart.frames else before + 1  # a guide has no place in the video
        stop = chart.frames if after is None else after
        if start < stop:
            skip_painter(palette, f"{count} skipped", str(count))(draw, grid.box(row, start, stop))


def fills(section: Section, chart: Chart) -> Iterator[tuple[tuple[Colour, ...], int, int]]:
    """Colours, one for each look and none if not made yet, and the frames that they fill, from the first to the last."""

    def unseen(maker: int) -> tuple[Colour, ...]:
        return (chart.palette.done,) if maker < section.number else ()

    found = {start: unseen(maker) for start, maker in chart.made_runs}
    special = {frame: tuple(colour_of(detail, chart) for detail in details) for frame, details in looks(section).items()}
    special |= dict.fromkeys(section.target, (chart.palette.generated,))
    for frame in special:
        if frame + 1 < chart.frames:
            found.setdefault(frame + 1, unseen(chart.made[frame + 1]))
    found |= {frame: colours for frame, colours in special.items() if frame < chart.frames}
    stretches = [(colours, next(run)) for colours, run in groupby(sorted(found), key=lambda frame: found[frame])]
    stops = [start for _, start in stretches[1:]] + [chart.frames]
    return ((colours, start, stop) for (colours, start), stop in zip(stretches, stops, strict=True))


def ticks(last: float, unit: float) -> list[int]:
    """Round values from 0 to `last`, at least 56 pixels apart if a step of one is `unit` pixels."""
    steps = (lead * 10**zeros for zeros in itertools.count() for lead in (1, 2, 5))
    step = next(step for step in steps if step * unit >= 56)
    return list(range(0, int(last) + 1, step))
