"""A video's measures over time as a picture: a panel for each, with a line where sections meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from ..drawing.marks import SMALL, TEXT, typeface
from ..drawing.painting import ticks
from ..drawing.palette import LIGHT, Palette
from .report import Report

WIDTH, PANEL, LEFT, RIGHT, TOP, BOTTOM = 1200, 190, 110, 24, 44, 16  # pixels
FLAT = 1e-6  # a scale's least height


@dataclass(frozen=True)
class Panel:
    """Lines of one unit over the frames of a video, the first drawn on top; `level` is a value to compare them with."""

    title: str
    lines: tuple[Tensor, ...]
    level: float
    least: float

    @property
    def scale(self) -> tuple[float, float]:
        """The lowest and the highest value, `level` among them and at least `least` apart, so that noise does not fill it."""
        low = min(self.level, *(float(line.min()) for line in self.lines))
        high = max(self.level, *(float(line.max()) for line in self.lines))
        spare = max(self.least - (high - low), 0)
        return (low, high + spare) if low == self.level else (low - spare / 2, high + spare / 2)


def panels(report: Report) -> tuple[Panel, ...]:
    series = report.series
    sharpness, contrast = (relative(series.looks[name][:, 0], series.ends(name)[0][0]) for name in ("laplacian", "contrast"))
    return (
        Panel("mean colour: distance from the start (Lab)", (series.from_start("lab_mean"),), 0.0, 5.0),
        Panel("colour histogram: distance from the start (0 to 1)", (series.from_start("hsv"),), 0.0, 0.2),
        Panel("sharpness, and contrast (blue), relative to the start", (sharpness, contrast), 1.0, 0.4),
        Panel("change from frame to frame (of 255)", (series.changes,), 0.0, 1.0),
    )


def relative(values: Tensor, start: Tensor) -> Tensor:
    return values / start.clamp_min(FLAT)


def plot(report: Report, palette: Palette = LIGHT) -> Image.Image:
    """The panels above each other, over the seconds of the video."""
    drawn = panels(report)
    image = Image.new("RGB", (WIDTH, len(drawn) * PANEL + 2 * TEXT), palette.paper)
    draw = ImageDraw.Draw(image)
    for number, panel in enumerate(drawn):
        axes = Axes(number * PANEL + TOP, (number + 1) * PANEL - BOTTOM, *panel.scale, report.series.frames)
        draw_axes(draw, axes, panel, report.sections.begins, palette)
        for line, colour in [*zip(panel.lines, (palette.generated, palette.ramp(0.5)), strict=False)][::-1]:
            draw.line(axes.points(line), colour, 3, joint="curve")
    draw_seconds(draw, report, palette, len(drawn) * PANEL)
    return image


@dataclass(frozen=True)
class Axes:
    """A panel's place, from the row of pixels `top`, where values are `high`, to `bottom`, where they are `low`."""

    top: int
    bottom: int
    low: float
    high: float
    frames: int

    def down(self, value: float) -> int:
        return round(self.bottom - (value - self.low) / max(self.high - self.low, FLAT) * (self.bottom - self.top))

    def points(self, values: Tensor) -> list[tuple[int, int]]:
        """Of values of the video's last frames: changes begin with the second frame."""
        first = self.frames - len(values)
        found = [(across(first + number, self.frames), self.down(value)) for number, value in enumerate(values.tolist())]
        return found if len(found) > 1 else found * 2


def draw_axes(draw: ImageDraw.ImageDraw, axes: Axes, panel: Panel, joins: Sequence[int], palette: Palette) -> None:
    """Everything of a panel but its lines: title, frame, joins, scale."""
    draw.text((LEFT, axes.top - 8), panel.title, palette.ink, typeface(SMALL), anchor="ls")
    draw.rectangle((LEFT, axes.top, WIDTH - RIGHT, axes.bottom), outline=palette.outline)
    for x in (across(frame, axes.frames) for frame in joins):
        draw.line((x, axes.top, x, axes.bottom), palette.outline, 2)
    draw.line((LEFT, axes.down(panel.level), WIDTH - RIGHT, axes.down(panel.level)), palette.faint)
    for value, y, anchor in ((axes.high, axes.top, "rt"), (axes.low, axes.bottom, "rs")):
        draw.text((LEFT - 10, y), f"{value:.3g}", palette.faint, typeface(SMALL), anchor=anchor)


def draw_seconds(draw: ImageDraw.ImageDraw, report: Report, palette: Palette, y: int) -> None:
    frames = report.series.frames
    seconds = (frames - 1) / report.fps
    for second in ticks(seconds, (WIDTH - RIGHT - LEFT) / seconds):
        x = across(second * report.fps, frames)
        draw.text((x, y), f"{second:g} s", palette.faint, typeface(SMALL), anchor="mt")


def across(frame: float, frames: int) -> int:
    """Where a frame of the video is from left to right."""
    return round(LEFT + frame / (frames - 1) * (WIDTH - RIGHT - LEFT))
