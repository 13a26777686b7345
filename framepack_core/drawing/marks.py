"""The marks in the drawing of a plan: what each looks like in its box."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache

from PIL import ImageDraw, ImageFont

from ..layout import Kernel
from .chart import Chart, Detail, Mark

Colour = tuple[int, int, int]
Box = tuple[int, int, int, int]
Paint = Callable[[ImageDraw.ImageDraw, Box], None]

TITLE, TEXT, SMALL, LINE = 26, 17, 15, 25

INK, FAINT, PAPER = (34, 34, 34), (110, 110, 110), (255, 255, 255)
OUTLINE, DONE, GENERATED = (196, 196, 196), (222, 222, 222), (213, 94, 0)
# Context from fine to coarse. Blue and orange, dark and light can be told apart without red-green vision and in grey.
FINE_TO_COARSE = ((8, 40, 96), (24, 104, 178), (66, 160, 212), (158, 212, 242))


def swatch(mark: Mark, chart: Chart) -> Paint:
    """How the legend shows a mark."""
    if isinstance(mark, Detail):
        return grid_painter(colour_of(mark, chart), mark.kernel)
    finest, coarsest = (colour_of(chart.details[place], chart) for place in (0, -1))
    swatches: dict[str, Paint] = {
        "generated": cell_painter((GENERATED,)),
        "twice": cell_painter((finest, coarsest)),
        "unseen": cell_painter((DONE,)),
        "later": cell_painter((PAPER,)),
        "missing": chip_painter(coarsest, "3"),
        "skipped": paint_skip,
        "given": paint_given,
    }
    return swatches[mark]


def colour_of(detail: Detail, chart: Chart) -> Colour:
    return _ramp(chart.details.index(detail) / max(len(chart.details) - 1, 1))


def _ramp(position: float) -> Colour:
    """A colour of FINE_TO_COARSE at a position 0..1."""
    at = position * (len(FINE_TO_COARSE) - 1)
    i = min(int(at), len(FINE_TO_COARSE) - 2)
    red, green, blue = (round(a + (b - a) * (at - i)) for a, b in zip(FINE_TO_COARSE[i], FINE_TO_COARSE[i + 1], strict=True))
    return red, green, blue


def cell_painter(colours: tuple[Colour, ...]) -> Paint:
    """A frame or a run of equal ones, with one stripe for each time it is looked at."""

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


def grid_painter(colour: Colour, kernel: Kernel) -> Paint:
    """A swatch cut into tokens: the larger the kernel, the larger the pieces."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), colour)
        for x in range(left + 2 * kernel.w, right, 2 * kernel.w):
            draw.line((x, top, x, bottom - 1), PAPER)
        for y in range(top + 2 * kernel.h, bottom, 2 * kernel.h):
            draw.line((left, y, right - 1, y), PAPER)

    return paint


def chip_painter(colour: Colour, text: str) -> Paint:
    """An outline with a number: context frames that do not exist yet."""

    def paint(draw: ImageDraw.ImageDraw, box: Box) -> None:
        left, top, right, bottom = box
        draw.rectangle((left, top, right - 1, bottom - 1), PAPER, colour, 2)
        text_within(draw, box, INK, text)

    return paint


def paint_skip(draw: ImageDraw.ImageDraw, box: Box, *texts: str) -> None:
    """A double arrow across the box, with the first of the texts that fits on it."""
    left, top, right, bottom = box
    middle, head = (top + bottom) // 2, 5
    if right - left > head:
        draw.line((left + 2, middle, right - 4, middle), INK)
    if right - left > 4 * head:
        for tip, back in ((left + 2, head), (right - 4, -head)):
            draw.polygon(((tip, middle), (tip + back, middle - head + 1), (tip + back, middle + head - 1)), INK)
    text_within(draw, (left + 3 * head, top, right - 3 * head, bottom), INK, *texts, backdrop=PAPER)


def paint_given(draw: ImageDraw.ImageDraw, box: Box) -> None:
    left, top, right, bottom = box
    middle = (top + bottom) // 2
    draw.rectangle((left, middle - 2, right - 1, middle + 2), INK)


def text_within(draw: ImageDraw.ImageDraw, box: Box, colour: Colour, *texts: str, backdrop: Colour | None = None) -> None:
    """Write the first text that fits into the middle of the box, if any does."""
    left, top, right, bottom = box
    font = typeface(min(SMALL, bottom - top - 2))
    centre = ((left + right) / 2, (top + bottom) / 2)
    for text in texts:
        if font.getlength(text) + 6 <= right - left:
            if backdrop:
                half, outline = font.getlength(text) / 2 + 2, int(backdrop == PAPER)
                x0, x1 = round(centre[0] - half), round(centre[0] + half)
                draw.rectangle((x0, top + outline, x1, bottom - 1 - outline), backdrop)
            draw.text(centre, text, colour, font, anchor="mm")
            return


@cache
def typeface(size: int) -> ImageFont.FreeTypeFont | ImageFont.ImageFont:
    return ImageFont.load_default(size=size)
