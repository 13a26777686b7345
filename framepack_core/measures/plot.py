"""A video's measures over time as a picture: a panel for each, with a line where sections meet."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from PIL import Image, ImageDraw
from torch import Tensor

from ..drawing.marks import SMALL, TEXT, typeface
from ..drawing.painting import ticks
from ..drawing.palette import LIGHT, Colour, Palette
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
        top = number * PANEL + TOP
        Axes(draw, report, palette, top, top + PANEL - TOP - BOTTOM, panel.scale).paint(panel)
    draw_seconds(draw, report, palette, len(drawn) * PANEL)
    return image


@dataclass(frozen=True)
class Axes:
    """Where a panel's values are in the picture, between two rows of pixels."""

    draw: ImageDraw.ImageDraw
    report: Report
    palette: Palette
    top: int
    bottom: int
    scale: tuple[float, float]

    def paint(self, panel: Panel) -> None:
        draw, palette = self.draw, self.palette
        draw.text((LEFT, self.top - 8), panel.title, palette.ink, typeface(SMALL), anchor="ls")
        draw.rectangle((LEFT, self.top, WIDTH - RIGHT, self.bottom), outline=palette.outline)
        for frame in self.report.sections.begins:
            x = across(self.report, frame)
            draw.line((x, self.top, x, self.bottom), palette.outline, 2)
        draw.line((LEFT, self.down(panel.level), WIDTH - RIGHT, self.down(panel.level)), palette.faint)
        for value, y, anchor in ((self.scale[1], self.top, "rt"), (self.scale[0], self.bottom, "rs")):
            draw.text((LEFT - 10, y), spelled(value), palette.faint, typeface(SMALL), anchor=anchor)
        for line, colour in list(zip(panel.lines, self.colours(), strict=False))[::-1]:
            self.line(line, colour)

    def colours(self) -> Sequence[Colour]:
        return self.palette.generated, self.palette.ramp(0.5)

    def line(self, values: Tensor, colour: Colour) -> None:
        first = self.report.series.frames - len(values)  # changes begin with the second frame
        points = [(across(self.report, first + number), self.down(value)) for number, value in enumerate(values.tolist())]
        self.draw.line(points if len(points) > 1 else points * 2, colour, 3, joint="curve")

    def down(self, value: float) -> int:
        low, high = self.scale
        return round(self.bottom - (value - low) / max(high - low, FLAT) * (self.bottom - self.top))


def across(report: Report, frame: float) -> int:
    """Where a frame is from left to right."""
    return round(LEFT + frame / (report.series.frames - 1) * (WIDTH - RIGHT - LEFT))


def draw_seconds(draw: ImageDraw.ImageDraw, report: Report, palette: Palette, y: int) -> None:
    seconds = (report.series.frames - 1) / report.fps
    for second in ticks(seconds, (WIDTH - RIGHT - LEFT) / seconds):
        draw.text((across(report, second * report.fps), y), f"{second:g} s", palette.faint, typeface(SMALL), anchor="mt")


def spelled(value: float) -> str:
    return f"{value:.3g}"
