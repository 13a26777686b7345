"""The marks in the drawing of a plan: what each looks like in its box."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from PIL import ImageDraw, ImageFont

from ..layout import Kernel
from .chart import Chart, Detail, Mark
from .palette import Colour, Palette

Box = tuple[int, int, int, int]
Paint = Callable[[ImageDraw.ImageDraw, Box], None]

# Twice the size that they have in ComfyUI, in a node that is half as wide as the picture.
TITLE, TEXT, SMALL, LINE = 28, 26, 22, 33


def swatch(mark: Mark, chart: Chart) -> Paint:
    """How the legend shows a mark."""
    palette = chart.palette
    if isinstance(mark, Detail):
        return grid_painter(colour_of(mark, chart), mark.kernel, palette.paper)
    colours = [colour_of(detail, chart) for detail in chart.details] or [palette.done]
    finest, coarsest = colours[0], colours[-1]
    swatches: dict[str, Paint] = {
        "generated": cell_painter((palette.generated,)),
        "twice": cell_painter((finest, coarsest)),
        "unseen": cell_painter((palette.done,)),
        "later": empty_painter(palette),
        "missing": chip_painter(coarsest, "3", palette),
        "skipped": skip_painter(palette),
        "given": given_painter(palette.ink),
    }
    return swatches[mark]


def colour_of(detail: Detail, chart: Chart) -> Colour:
    return chart.palette.ramp(chart.details.index(detail) / max(len(chart.details) - 1, 1))


def empty_painter(palette: Palette) -> Paint:
    """A frame or a run of frames that do not exist yet."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), palette.paper, palette.outline)

    return paint


def cell_painter(colours: tuple[Colour, ...]) -> Paint:
    """A frame or a run of equal ones, with one stripe for each time it is looked at."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        stripe = (bottom - top) / len(colours)
        edge = 1 if right - left > 3 else 0
        for i, colour in enumerate(colours):
            first = top + round(i * stripe) + (1 if i else 0)
            draw.rectangle((left, first, right - 1 - edge, top + round((i + 1) * stripe) - 1), colour)

    return paint


def grid_painter(colour: Colour, kernel: Kernel, paper: Colour) -> Paint:
    """A swatch cut into tokens: the larger the kernel, the larger the pieces."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), colour)
        for x in range(left + 2 * kernel.w, right, 2 * kernel.w):
            draw.line((x, top, x, bottom - 1), paper)
        for y in range(top + 2 * kernel.h, bottom, 2 * kernel.h):
            draw.line((left, y, right - 1, y), paper)

    return paint


def chip_painter(colour: Colour, text: str, palette: Palette) -> Paint:
    """An outline with a number: context frames that do not exist yet."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), palette.paper, colour, 2)
        text_within(draw, box, palette.ink, text)

    return paint


def skip_painter(palette: Palette, *texts: str) -> Paint:
    """A double arrow across the box, with the first of the texts that fits on it."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        middle, head = (top + bottom) // 2, 5
        if right - left > head:
            draw.line((left + 2, middle, right - 4, middle), palette.ink)
        if right - left > 4 * head:
            for tip, back in ((left + 2, head), (right - 4, -head)):
                draw.polygon(((tip, middle), (tip + back, middle - head + 1), (tip + back, middle + head - 1)), palette.ink)
        within = left + 3 * head, top + 1, right - 3 * head, bottom - 1
        text_within(draw, within, palette.ink, *texts, backdrop=palette.paper)

    return paint


def given_painter(ink: Colour) -> Paint:
    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        middle = (top + bottom) // 2
        draw.rectangle((left, middle - 2, right - 1, middle + 2), ink)

    return paint


def text_within(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, *texts: str, backdrop: Colour | None = None) -> None:
    """Write the first text that fits into the middle of the box, if any does."""
    left, top, right, bottom = box
    font = typeface(min(SMALL, bottom - top - 2))
    centre = ((left + right) / 2, (top + bottom) / 2)
    for text in texts:
        if font.getlength(text) + 6 <= right - left:
            if backdrop:
                half = font.getlength(text) / 2 + 2
                draw.rectangle((round(centre[0] - half), top, round(centre[0] + half), bottom - 1), backdrop)
            draw.text(centre, text, colour, font, anchor="mm")
            return


@cache
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
