"""A plan as a small picture without words: it is shown in a node while the plan is made."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw

from ..filling import Section
from ..frames import PIXEL_FRAMES
from ..plan import Plan
from ..prompts import Prompt
from ..spelling import spell, spell_seconds, spell_seen
from .bars import Bar, Told
from .chart import LATENT_PIXEL, Chart, spell_tokens
from .marks import typeface
from .painting import Rows, draw_frames, ticks
from .palette import LIGHT, Palette

AXIS, FONT = 28, 20  # pixels: the seconds above the rows
HIGHEST = 34, 1000  # pixels: a row, and all of them
LEAST = 4  # pixels of a row


@dataclass(frozen=True)
class Row:
    """One section's row, from `top` to `bottom` in pixels, and what it is about."""

    section: int
    top: int
    bottom: int
    text: str


@dataclass(frozen=True)
class Sketch:
    """The picture, and where in it each section is. `length` says in words how long the video is, and which guides are not
    shown.

    `bars` are its prompts, if they have times, in the same width as the picture.
    """

    image: Image.Image
    rows: tuple[Row, ...]
    length: str
    bars: tuple[Bar, ...] = ()


def sketch_plan(
    plan: Plan,
    width: int,
    video: tuple[int, int] = (640, 608),
    known: Collection[int] = (0,),
    guides: Sequence[tuple[int, int]] = (),
    palette: Palette = LIGHT,
    prompts: Sequence[Prompt] = (),
) -> Sketch:
    """`draw_plan` in `width` pixels, with as many rows as there is room for; `video` is its width and height in pixels.

    If there are more sections than rows, those in the middle are left out. Raises ValueError if no prompt is for the video.
    """
    chart = Chart.of(plan, video[1] // LATENT_PIXEL, video[0] // LATENT_PIXEL, known, palette, guides)
    most = HIGHEST[1] // LEAST
    shown = chart.shown(min(most, len(chart.sections)))
    rows = Rows(top=AXIS, left=0, cell=width / chart.frames, pitch=min(HIGHEST[0], HIGHEST[1] // len(shown)))
    image = Image.new("RGB", (width, AXIS + len(shown) * rows.pitch), palette.paper)
    draw = ImageDraw.Draw(image)
    _draw_seconds(draw, chart, rows)
    told = Told.of(prompts, palette)
    lines = spell_told(told, chart)
    found = []
    for row, section in enumerate(shown):
        if section is not None:
            draw_frames(draw, chart, rows, row, section, chart.label(section))
            top = rows.top + row * rows.pitch
            text = spell_section(section, chart) + lines.get(section.number, "")
            found.append(Row(section.number, top, top + rows.pitch, text))
    words = "; ".join((f"{chart.length.frames} frames, {chart.seconds:.2f} s", *chart.unseen_guides))
    return Sketch(image, tuple(found), words, prompt_bars(told, chart) if lines else ())


def spell_told(told: Told, chart: Chart) -> dict[int, str]:
    """A line for each section about what it is told; none without prompts that have a time."""
    if not told.spans:
        return {}
    found = told.choices(chart.sections, chart.length, chart.plan.fps)
    return {section.number: f"\nprompt: {told.spelled(choice)}" for section, choice in zip(chart.sections, found, strict=True)}


def prompt_bars(told: Told, chart: Chart) -> tuple[Bar, ...]:
    """The prompts where their seconds are among the columns of the picture."""
    return told.bars(chart.seconds, lambda second: chart.length.place(second * chart.plan.fps) / chart.frames)


def spell_section(section: Section, chart: Chart) -> str:
    """What a section makes, sees and costs, a line each."""
    seconds = spell_seconds(section, chart.length, chart.plan.fps, " to ")
    seen = [group for group in section.context if any(frame is not None for frame in group.frames)]
    sees = [f"{spell_seen(group.frames, chart.frames)} at {group.kernel}" for group in seen]
    return "\n".join([
        f"section {section.number + 1} of {len(chart.sections)}: {seconds} s, latent frames {spell(section.target)}",
        f"sees latent frames {', '.join(sees)}" if sees else "sees nothing yet",
        f"{spell_tokens(section, chart)} tokens (seen + made)",
    ])  # fmt: skip


def _draw_seconds(draw: ImageDraw.ImageDraw, chart: Chart, rows: Rows) -> None:
    for second in ticks(chart.seconds, rows.cell * chart.plan.fps / PIXEL_FRAMES):
        x = rows.x(chart.length.place(second * chart.plan.fps))
        draw.text((x + 2, AXIS - 6), f"{second:g} s", chart.palette.faint, typeface(FONT), anchor="ls")
        draw.line((x, AXIS - 10, x, AXIS - 2), chart.palette.outline)
