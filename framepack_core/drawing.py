"""A plan as a picture: a row for each section, a column for each latent frame of the video."""

from __future__ import annotations

import math
import textwrap
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass
from functools import cache
from itertools import groupby, pairwise

from PIL import Image, ImageDraw, ImageFont

from .layout import BASE_KERNEL, FRAME_POOL, Kernel, Pool, token_count
from .plan import PIXEL_FRAMES, Plan, Section, pixel_frames, runs, spell_seconds

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Paint = Callable[[ImageDraw.ImageDraw, Box], None]

LATENT_PIXEL = 8  # video pixels to one latent pixel, each way

MAX_WIDTH, MAX_HEIGHT = 2000, 4000
MARGIN, COLUMN_GAP = 28, 22
CELL = 30
PITCH_MIN, PITCH_MAX, ROWS_HEIGHT = 20, 38, 1500  # rows shrink when they would be higher than ROWS_HEIGHT together
CHIP, CHIPS_WIDTH = 32, 260
BAR = 170
TEXT_WIDTH = 1350  # longer lines are hard to read
LEGEND_PITCH, SWATCH = 38, 32
TITLE, TEXT, SMALL, LINE = 26, 17, 15, 25

INK, FAINT, PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
OUTLINE, DONE, GENERATED = (196, 196, 196), (222, 222, 222), (213, 94, 0)
# Context from fine to coarse. Blue beside orange, and dark to light, stays apart without red-green vision and in grey.
FINE_TO_COARSE = ((8, 40, 96), (24, 104, 178), (66, 160, 212), (158, 212, 242))


def draw_plan(plan: Plan, width: int = 640, height: int = 608, known: Collection[int] = (0,)) -> Image.Image:
    """Which latent frames each section of `plan` generates, looks at and how finely, and skips, with its tokens.

    `width` and `height` are the video's, in pixels: they decide the tokens. `known` are the latent frames given before
    the first section (default: a start image). The picture is at most about 2000 x 4000 pixels: when there are more
    sections than fit, the ones in the middle are left out and counted.
    """
    chart = Chart.of(plan, height // LATENT_PIXEL, width // LATENT_PIXEL, known)
    grid = Grid.of(chart)
    image = Image.new("RGB", (grid.width, grid.height), PAPER)
    draw = ImageDraw.Draw(image)
    _draw_heading(draw, chart, grid)
    _draw_legend(draw, chart, grid)
    _draw_axis(draw, chart, grid)
    for row, section in enumerate(chart.shown(grid.rows)):
        if section is None:
            left_out = f"... {len(chart.sections) - grid.rows + 1} more sections, filled in the same way ..."
            draw.text((grid.left, grid.middle(row)), left_out, FAINT, _font(TEXT), anchor="lm")
        else:
            _draw_row(draw, chart, grid, row, section)
    return image


@dataclass(frozen=True)
class Detail:
    """How finely a context frame is looked at."""

    kernel: Kernel
    pool: Pool = "none"

    def tokens_a_frame(self, height: int, width: int) -> float:
        return token_count(self.kernel.t, self.kernel, height, width, self.pool) / self.kernel.t


@dataclass(frozen=True)
class Chart:
    """What is drawn: the sections, and for every frame the section that makes it (-1: given)."""

    plan: Plan
    height: int
    width: int
    sections: tuple[Section, ...]
    made: tuple[int, ...]
    details: tuple[Detail, ...]

    @classmethod
    def of(cls, plan: Plan, height: int, width: int, known: Collection[int]) -> Chart:
        sections = plan.fill(len(known) + plan.generated, known)
        made = {frame: -1 for frame in known}
        made |= {frame: section.number for section in sections for frame in section.target}
        groups = [group for section in sections for group in section.context]
        finest_first = sorted({Detail(group.kernel, group.pool) for group in groups}, key=_coarseness)
        return cls(plan, height, width, sections, tuple(made[i] for i in range(len(made))), tuple(finest_first))

    @property
    def frames(self) -> int:
        return len(self.made)

    @property
    def full_frame(self) -> int:
        return token_count(1, BASE_KERNEL, self.height, self.width)

    def colour(self, detail: Detail) -> Colour:
        return _ramp(self.details.index(detail) / max(len(self.details) - 1, 1))

    def shown(self, rows: int) -> list[Section | None]:
        """The sections in sampling order; when there are more than `rows`, None stands for the ones in the middle."""
        if rows >= len(self.sections):
            return list(self.sections)
        head = rows // 2
        return [*self.sections[:head], None, *self.sections[head + 1 - rows :]]


@dataclass(frozen=True)
class Grid:
    """Where things are, in pixels of the picture."""

    width: int
    height: int
    legend: int
    top: int
    left: int
    cell: float
    pitch: int
    rows: int
    chip: int
    seconds: int
    tokens: int
    bar: int

    @classmethod
    def of(cls, chart: Chart) -> Grid:
        text = _font(TEXT)
        numbers = text.getlength("section")
        times = max(text.getlength(spell_seconds(section, chart.plan.fps, " - ")) for section in chart.sections)
        tokens = max(text.getlength(_tokens(section, chart)) for section in chart.sections)
        chips = [max(len(_empty(section)[side]) for section in chart.sections) for side in (0, 1)]
        chip = max(min(CHIP, CHIPS_WIDTH // max(*chips, 1)), 4)
        before, after = ((count * chip + COLUMN_GAP // 2 if count else 0) for count in chips)

        seconds = round(MARGIN + numbers + COLUMN_GAP)
        left = round(seconds + times + COLUMN_GAP + before)
        right = round(after + COLUMN_GAP + tokens + COLUMN_GAP + BAR + MARGIN)
        cell = min(CELL, (MAX_WIDTH - left - right) / chart.frames)
        plot_end = round(left + cell * chart.frames)
        legend_width = 2 * MARGIN + sum(width for _, width in _legend_columns(chart))
        width = min(max(plot_end + right, legend_width), MAX_WIDTH)

        legend = MARGIN + TITLE + 14 + len(_heading(chart, width)) * LINE + 12
        top = legend + len(_legend_columns(chart)[0][0]) * LEGEND_PITCH + 72
        pitch = min(max(ROWS_HEIGHT // len(chart.sections), PITCH_MIN), PITCH_MAX)
        rows = min(len(chart.sections), (MAX_HEIGHT - top - MARGIN) // pitch)
        token_column = round(plot_end + after + COLUMN_GAP)
        bar = round(token_column + tokens + COLUMN_GAP)
        height = top + rows * pitch + MARGIN
        return cls(width, height, legend, top, left, cell, pitch, rows, chip, seconds, token_column, bar)

    def x(self, frame: float) -> int:
        return round(self.left + frame * self.cell)

    def middle(self, row: int) -> int:
        return self.top + row * self.pitch + self.pitch // 2

    def box(self, row: int, start: float, stop: float) -> Box:
        """The frames `start` up to but without `stop`, at least a pixel wide."""
        gap = self.pitch // 8
        left, top = self.x(start), self.top + row * self.pitch
        return left, top + gap, max(self.x(stop), left + 1), top + self.pitch - gap

    def chip_box(self, row: int, place: int, count: int, after: bool, frames: int) -> Box:
        """The place of one of `count` chips beyond the video's first or last frame."""
        start = self.x(frames) + COLUMN_GAP // 2 if after else self.left - COLUMN_GAP // 2 - count * self.chip
        left = start + place * self.chip
        _, top, _, bottom = self.box(row, 0, 1)
        return left, top, left + self.chip - 3, bottom


def legend_entries(chart: Chart) -> list[tuple[Paint, str]]:
    """What every mark in this picture means; marks that do not occur are left out."""
    tokens = f"{chart.full_frame:,}"
    entries: list[tuple[Paint, str]] = [
        (_cell_painter((GENERATED,)), f"generated by this section, at full detail: {tokens} tokens a frame")
    ]
    entries += [(_grid_painter(chart.colour(d), d.kernel), _explain(d, chart)) for d in chart.details]
    sections = chart.sections
    if any(len(details) > 1 for section in sections for details in _looks(section).values()):
        stripes = chart.colour(chart.details[0]), chart.colour(chart.details[-1])
        entries.append((_cell_painter(stripes), "split: looked at twice, in two groups of the context"))
    if any(_unseen(section, chart) for section in sections):
        entries.append((_cell_painter((DONE,)), "exists already, but this section does not look at it: no tokens"))
    if len(sections) > 1:
        entries.append((_cell_painter((PAPER,)), "not generated yet: a later section will"))
    if any(any(_empty(section)) for section in sections):
        chip = _chip_painter(chart.colour(chart.details[-1]), "3")
        entries.append((chip, "context that does not exist yet: so many empty frames (zeros)"))
    if any(any(_skips(section)) for section in sections):
        entries.append((_paint_skip, "skipped: the model is only told that so many frames lie between"))
    if -1 in chart.made:
        entries.append((_paint_given, "given before the first section, such as the start image"))
    return entries


def _legend_columns(chart: Chart) -> list[tuple[list[tuple[Paint, str]], int]]:
    """The legend in two columns, each with its width."""
    entries = legend_entries(chart)
    half = math.ceil(len(entries) / 2)
    columns = (entries[:half], entries[half:])
    return [
        (column, SWATCH + 12 + round(max(_font(TEXT).getlength(text) for _, text in column)) + 2 * COLUMN_GAP)
        for column in columns
    ]


def _unseen(section: Section, chart: Chart) -> bool:
    """Whether frames exist before this section that it does not look at."""
    looks = _looks(section)
    return any(maker < section.number and frame not in looks for frame, maker in enumerate(chart.made))


def _explain(detail: Detail, chart: Chart) -> str:
    kernel = detail.kernel
    tokens = _short(detail.tokens_a_frame(chart.height, chart.width))
    if detail.pool == "global":
        return f"{kernel}, averaged: all these frames together are one token"
    if detail.pool == "frame":
        side = FRAME_POOL * LATENT_PIXEL
        return f"{kernel}, averaged over {side}x{side} pixels first: {tokens} tokens a frame"
    share = kernel.t * kernel.h * kernel.w // math.prod(BASE_KERNEL)
    level = "full detail" if share == 1 else f"1/{share} of the detail"
    pixels = f"{kernel.w * LATENT_PIXEL}x{kernel.h * LATENT_PIXEL} pixels"
    of_frames = "" if kernel.t == 1 else f" of {kernel.t} frames"
    return f"{kernel}: looked at with {level}: {tokens} tokens a frame, each {pixels}{of_frames}"


def _coarseness(detail: Detail) -> tuple[bool, bool, int, Kernel]:
    return detail.pool == "global", detail.pool == "frame", math.prod(detail.kernel), detail.kernel


def _ramp(position: float) -> Colour:
    """A colour of FINE_TO_COARSE at a position 0..1."""
    at = position * (len(FINE_TO_COARSE) - 1)
    i = min(int(at), len(FINE_TO_COARSE) - 2)
    red, green, blue = (round(a + (b - a) * (at - i)) for a, b in zip(FINE_TO_COARSE[i], FINE_TO_COARSE[i + 1], strict=True))
    return red, green, blue


def _looks(section: Section) -> dict[int, list[Detail]]:
    """The frames a section looks at and how finely, the finest first."""
    looks: dict[int, list[Detail]] = {}
    for group in section.context[::-1]:
        for frame in group.frames:
            if frame is not None:
                looks.setdefault(frame, []).append(Detail(group.kernel, group.pool))
    return looks


def _empty(section: Section) -> tuple[dict[Detail, int], dict[Detail, int]]:
    """Frames that do not exist yet, before and after the generated ones in time order, counted by detail."""
    empty: tuple[dict[Detail, int], dict[Detail, int]] = ({}, {})
    for group in sorted(section.context, key=lambda group: group.indices):
        missing = group.frames.count(None)
        if missing:
            side = empty[group.indices[0] > section.indices[0]]
            detail = Detail(group.kernel, group.pool)
            side[detail] = side.get(detail, 0) + missing
    return empty


def _skips(section: Section) -> Iterator[tuple[int | None, int | None, int]]:
    """Blank time indices: the frame before them, the frame after them (None: an empty one), how many."""
    frames = dict(zip(section.indices, section.target, strict=True))
    for group in section.context:
        frames |= dict(zip(group.indices, group.frames, strict=True))
    for before, after in pairwise(sorted(frames)):
        if after > before + 1:
            yield frames[before], frames[after], after - before - 1


def _tokens(section: Section, chart: Chart) -> str:
    context = section.context_tokens(chart.height, chart.width)
    target = section.target_tokens(chart.height, chart.width)
    return f"{context:,} + {target:,}"


def _heading(chart: Chart, width: int) -> list[str]:
    """The lines under the title."""
    plan, length = chart.plan, pixel_frames(chart.frames)
    bound = plan.layout.context_bound(chart.height, chart.width)
    frames = _short(bound / chart.full_frame)
    limit = (
        "The context grows with the video in this layout."
        if math.isinf(bound)
        else f"However long the video, the context stays within {bound:,} tokens, the price of {frames} full frames."
    )
    paragraphs = [
        f"{chart.frames} latent frames = {length} frames = {length / plan.fps:.2f} s at {plan.fps:g} fps, "
        f"{chart.width * LATENT_PIXEL}x{chart.height * LATENT_PIXEL} pixels.  Layout {plan.name}: {plan.layout}",
        "The video is made section by section. Each row is one section, the first at the top; each column is a latent "
        f"frame, {PIXEL_FRAMES} frames of the video. A section generates the orange frames while it looks at the blue "
        "ones, its context. Tokens cost time and memory: the paler the blue, the coarser the look and the fewer tokens "
        f"a frame takes. {limit}",
    ]
    return [line for paragraph in paragraphs for line in _wrap(paragraph, min(width - 2 * MARGIN, TEXT_WIDTH))]


def _wrap(text: str, width: int) -> list[str]:
    return textwrap.wrap(text, int(0.95 * width * len(text) / _font(TEXT).getlength(text)))


def _draw_heading(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    plan = chart.plan
    sections, window = _count(len(chart.sections), "section"), _count(plan.window, "latent frame")
    title = f"FramePack plan: {plan.order} order, {sections}, window of {window}"
    draw.text((MARGIN, MARGIN), title, INK, _font(TITLE))
    for i, line in enumerate(_heading(chart, grid.width)):
        draw.text((MARGIN, MARGIN + TITLE + 14 + i * LINE), line, INK, _font(TEXT))


def _draw_legend(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    left = MARGIN
    for entries, width in _legend_columns(chart):
        for i, (paint, text) in enumerate(entries):
            top = grid.legend + i * LEGEND_PITCH
            paint(draw, (left, top, left + SWATCH, top + SWATCH))
            draw.text((left + SWATCH + 12, top + SWATCH // 2), text, INK, _font(TEXT), anchor="lm")
        left += width


def _draw_axis(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid) -> None:
    """Column titles, seconds and latent frame numbers above the rows, a bar over the given frames."""
    small = _font(SMALL)
    titles = ((MARGIN, "section"), (grid.seconds, "seconds"), (grid.tokens, "tokens: context + generated"))
    for x, text in titles:
        draw.text((x, grid.top - 12), text, FAINT, small, anchor="ls")
    seconds = pixel_frames(chart.frames) / chart.plan.fps
    for second in _ticks(seconds, grid.cell * chart.plan.fps / PIXEL_FRAMES):
        x = grid.x((second * chart.plan.fps + 3) / PIXEL_FRAMES) if second else grid.left
        draw.text((x, grid.top - 34), f"{second:g} s", FAINT, small, anchor="ls")
        draw.line((x, grid.top - 32, x, grid.top - 28), OUTLINE)
    for frame in _ticks(chart.frames - 1, grid.cell):
        draw.text((grid.x(frame + 0.5), grid.top - 12), f"{frame:g}", FAINT, small, anchor="ms")
    for start, stop in runs(tuple(frame for frame, maker in enumerate(chart.made) if maker < 0)):
        draw.rectangle((grid.x(start), grid.top - 7, max(grid.x(stop) - 1, grid.x(start) + 2), grid.top - 3), INK)


def _draw_row(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid, row: int, section: Section) -> None:
    middle = grid.middle(row)
    draw.text((MARGIN, middle), str(section.number + 1), INK, _font(TEXT), anchor="lm")
    draw.text((grid.seconds, middle), spell_seconds(section, chart.plan.fps, " - "), INK, _font(TEXT), anchor="lm")
    draw.text((grid.tokens, middle), _tokens(section, chart), INK, _font(TEXT), anchor="lm")
    _draw_cells(draw, chart, grid, row, section)
    for after, empty in enumerate(_empty(section)):
        for place, (detail, count) in enumerate(empty.items()):
            box = grid.chip_box(row, place, len(empty), bool(after), chart.frames)
            _chip_painter(chart.colour(detail), str(count))(draw, box)
    for before, after, count in _skips(section):
        start = 0 if before is None else before + 1
        stop = chart.frames if after is None else after
        if start < stop:
            _paint_skip(draw, grid.box(row, start, stop), f"{count} skipped", str(count))
    _draw_bar(draw, chart, grid, row, section)


def _draw_cells(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid, row: int, section: Section) -> None:
    looks, target = _looks(section), set(section.target)

    def fills(frame: int) -> tuple[Colour, ...]:
        if frame in target:
            return (GENERATED,)
        if frame in looks:
            return tuple(chart.colour(detail) for detail in looks[frame])
        return (DONE,) if chart.made[frame] < section.number else (PAPER,)

    for colours, run in groupby(range(chart.frames), key=fills):
        frames = list(run)
        _cell_painter(colours)(draw, grid.box(row, frames[0], frames[-1] + 1))
        for frame in frames[1:] if grid.cell >= 6 else ():
            x, top, _, bottom = grid.box(row, frame, frame + 1)
            draw.line((x - 1, top, x - 1, bottom - 1), OUTLINE if colours == (PAPER,) else PAPER)
    for start, stop in runs(section.target):
        _text_within(draw, grid.box(row, start, stop), PAPER, "generated", str(section.number + 1), backdrop=GENERATED)


def _draw_bar(draw: ImageDraw.ImageDraw, chart: Chart, grid: Grid, row: int, section: Section) -> None:
    """The section's tokens, context from fine to coarse and then generated, beside those of the other sections."""
    size = chart.height, chart.width
    parts = [(chart.colour(Detail(group.kernel, group.pool)), group.tokens(*size)) for group in section.context[::-1]]
    parts.append((GENERATED, section.target_tokens(*size)))
    most = max(section.context_tokens(*size) + section.target_tokens(*size) for section in chart.sections)
    _, top, _, bottom = grid.box(row, 0, 1)
    inset, tokens = (bottom - top) // 5, 0
    for colour, part in parts:
        start, tokens = grid.bar + round(BAR * tokens / most), tokens + part
        stop = grid.bar + round(BAR * tokens / most)
        if stop > start:
            draw.rectangle((start, top + inset, stop - 1, bottom - 1 - inset), colour)


def _cell_painter(colours: tuple[Colour, ...]) -> Paint:
    """A frame, or a run of equal ones: one stripe for each time it is looked at."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        if colours == (PAPER,):
            draw.rectangle((left, top, right - 1, bottom - 1), PAPER, OUTLINE)
            return
        stripe = (bottom - top) / len(colours)
        edge = 1 if right - left > 3 else 0
        for i, colour in enumerate(colours):
            first = top + round(i * stripe) + (1 if i else 0)
            draw.rectangle((left, first, right - 1 - edge, top + round((i + 1) * stripe) - 1), colour)

    return paint


def _grid_painter(colour: Colour, kernel: Kernel) -> Paint:
    """A swatch cut into tokens: the larger the kernel, the larger the pieces."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), colour)
        for x in range(left + 2 * kernel.w, right, 2 * kernel.w):
            draw.line((x, top, x, bottom - 1), PAPER)
        for y in range(top + 2 * kernel.h, bottom, 2 * kernel.h):
            draw.line((left, y, right - 1, y), PAPER)

    return paint


def _chip_painter(colour: Colour, text: str) -> Paint:
    """An outline with a number: context frames that do not exist yet."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), PAPER, colour, 2)
        _text_within(draw, box, INK, text)

    return paint


def _paint_skip(draw: ImageDraw.ImageDraw, box: Box, *texts: str) -> None:
    """A double arrow across the box; the first of the texts that fits stands on it."""
    left, top, right, bottom = box
    middle, head = (top + bottom) // 2, 5
    if right - left > head:
        draw.line((left + 2, middle, right - 4, middle), INK)
    if right - left > 4 * head:
        for tip, back in ((left + 2, head), (right - 4, -head)):
            draw.polygon(((tip, middle), (tip + back, middle - head + 1), (tip + back, middle + head - 1)), INK)
    _text_within(draw, (left + 3 * head, top, right - 3 * head, bottom), INK, *texts, backdrop=PAPER)


def _paint_given(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    middle = (top + bottom) // 2
    draw.rectangle((left, middle - 2, right - 1, middle + 2), INK)


def _text_within(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, *texts: str, backdrop: Colour | None = None) -> None:
    """The first text that fits into the box, in its middle; nothing when none fits."""
    left, top, right, bottom = box
    font = _font(min(SMALL, bottom - top - 2))
    centre = ((left + right) / 2, (top + bottom) / 2)
    for text in texts:
        if font.getlength(text) + 6 <= right - left:
            if backdrop:
                half, outline = font.getlength(text) / 2 + 2, int(backdrop == PAPER)
                x0, x1 = round(centre[0] - half), round(centre[0] + half)
                draw.rectangle((x0, top + outline, x1, bottom - 1 - outline), backdrop)
            draw.text(centre, text, colour, font, anchor="mm")
            return


def _ticks(last: float, unit: float) -> list[int]:
    """Round values from 0 to `last`, at least 56 pixels apart where a step of one is `unit` pixels."""
    steps = (lead * 10**zeros for zeros in range(9) for lead in (1, 2, 5))
    step = next(step for step in steps if step * unit >= 56)
    return list(range(0, int(last) + 1, step))


def _short(number: float) -> str:
    """A number as people say it: 1,520 or 24 or 3.1."""
    return f"{number:,.0f}" if number >= 10 else f"{number:.2g}"


def _count(number: int, what: str) -> str:
    return f"{number} {what}" if number == 1 else f"{number} {what}s"


@cache
def _font(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
