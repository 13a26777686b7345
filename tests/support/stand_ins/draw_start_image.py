"""Draws start_image.png, the picture that the demo starts from: `python -m support.stand_ins.draw_start_image`."""

from math import sin
from pathlib import Path

from PIL import Image, ImageDraw, ImageFilter

Colour = tuple[int, int, int]
Points = list[tuple[float, float]]

WIDTH, HEIGHT, FINE = 640, 608, 2  # drawn FINE times larger, then reduced, for smooth edges
SUN = (470, 130)


def draw() -> Image.Image:
    """A house between hills on a summer evening."""
    image = vertical_gradient((92, 148, 214), (252, 214, 160))
    image = glow(image, SUN, radius=150, colour=(255, 236, 180))
    canvas = ImageDraw.Draw(image)
    disc(canvas, SUN, 38, (255, 246, 214))
    cloud(canvas, 150, 110)
    cloud(canvas, 300, 70)
    hill(canvas, 330, 40, 0.011, 0.4, (124, 150, 176))
    hill(canvas, 380, 34, 0.014, 2.2, (96, 146, 112))
    hill(canvas, 440, 26, 0.009, 4.0, (72, 128, 70))
    path(canvas)
    house(canvas, 210, 330)
    for x, y, size in ((90, 470, 1.0), (520, 440, 0.8), (580, 480, 1.2)):
        tree(canvas, x, y, size)
    return image.resize((WIDTH, HEIGHT), Image.Resampling.LANCZOS)


def vertical_gradient(top: Colour, bottom: Colour) -> Image.Image:
    column = Image.new("RGB", (1, HEIGHT * FINE))
    for y in range(column.height):
        share = min(1.0, y / (0.65 * column.height))
        column.putpixel((0, y), tuple(round(a + (b - a) * share) for a, b in zip(top, bottom, strict=True)))
    return column.resize((WIDTH * FINE, HEIGHT * FINE))


def glow(image: Image.Image, centre: tuple[int, int], radius: int, colour: Colour) -> Image.Image:
    mask = Image.new("L", image.size)
    disc(ImageDraw.Draw(mask), centre, radius // 2, 200)
    mask = mask.filter(ImageFilter.GaussianBlur(radius * FINE / 3))
    return Image.composite(Image.new("RGB", image.size, colour), image, mask)


def hill(canvas: ImageDraw.ImageDraw, height: float, rise: float, waves: float, phase: float, colour: Colour) -> None:
    columns = range(0, WIDTH + 8, 8)
    crest = [(x, height - rise * (sin(waves * x + phase) + sin(3 * waves * x) / 4)) for x in columns]
    polygon(canvas, [(0, HEIGHT), *crest, (WIDTH, HEIGHT)], colour)


def path(canvas: ImageDraw.ImageDraw) -> None:
    polygon(canvas, [(284, 468), (304, 468), (330, 520), (372, HEIGHT), (250, HEIGHT), (272, 520)], (206, 180, 132))


def house(canvas: ImageDraw.ImageDraw, x: float, y: float) -> None:
    box(canvas, x, y + 50, 170, 90, (238, 222, 196))
    box(canvas, x + 118, y - 20, 20, 50, (150, 84, 70))
    polygon(canvas, [(x - 16, y + 54), (x + 40, y), (x + 130, y), (x + 186, y + 54)], (172, 70, 58))
    box(canvas, x + 72, y + 88, 26, 52, (104, 70, 48))
    for left in (x + 20, x + 120):
        box(canvas, left - 3, y + 77, 36, 36, (255, 250, 240))
        box(canvas, left, y + 80, 30, 30, (252, 206, 110))


def tree(canvas: ImageDraw.ImageDraw, x: float, y: float, size: float) -> None:
    trunk = [(-6, 0), (6, 0), (4, -50), (-4, -50)]
    leaves = [(-18, -58, 26, (44, 98, 52)), (20, -62, 28, (52, 108, 56)), (0, -88, 30, (66, 126, 62))]
    polygon(canvas, [(x + dx * size, y + dy * size) for dx, dy in trunk], (96, 68, 48))
    for dx, dy, radius, colour in leaves:
        disc(canvas, (x + dx * size, y + dy * size), radius * size, colour)


def cloud(canvas: ImageDraw.ImageDraw, x: float, y: float) -> None:
    for dx, dy, radius in ((-34, 6, 16), (-12, -4, 22), (16, 0, 20), (38, 8, 13)):
        disc(canvas, (x + dx, y + dy), radius, (244, 240, 236))


def disc(canvas: ImageDraw.ImageDraw, centre: tuple[float, float], radius: float, colour: Colour | int) -> None:
    x, y = centre
    canvas.ellipse([FINE * side for side in (x - radius, y - radius, x + radius, y + radius)], fill=colour)


def box(canvas: ImageDraw.ImageDraw, x: float, y: float, width: float, height: float, colour: Colour) -> None:
    polygon(canvas, [(x, y), (x + width, y), (x + width, y + height), (x, y + height)], colour)


def polygon(canvas: ImageDraw.ImageDraw, points: Points, colour: Colour) -> None:
    canvas.polygon([(FINE * x, FINE * y) for x, y in points], fill=colour)


if __name__ == "__main__":
    draw().save(Path(__file__).with_name("start_image.png"), optimize=True)
