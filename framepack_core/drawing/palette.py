"""The colours of a plan's drawing, on white paper for documents or on a dark ground as in ComfyUI."""

from __future__ import annotations

from dataclasses import dataclass

Colour = tuple[int, int, int]


@dataclass(frozen=True)
class Palette:
    """Blue and orange, dark and light can be told apart without red-green vision and in grey.

    `fine_to_coarse` is context: the coarser, the closer to the paper. `prompts` are grounds for `ink`, in turn.
    """

    ink: Colour
    faint: Colour
    paper: Colour
    outline: Colour
    done: Colour
    generated: Colour
    fine_to_coarse: tuple[Colour, ...]
    prompts: tuple[Colour, ...]

    def ramp(self, position: float) -> Colour:
        """A colour of `fine_to_coarse` at a position 0..1."""
        ramp = self.fine_to_coarse
        at = position * (len(ramp) - 1)
        i = min(int(at), len(ramp) - 2)
        return mixed(ramp[i], ramp[i + 1], at - i)


def mixed(one: Colour, other: Colour, share: float) -> Colour:
    """A colour between two, with a share 0..1 of the other."""
    red, green, blue = (round(a + (b - a) * share) for a, b in zip(one, other, strict=True))
    return red, green, blue


def as_css(colour: Colour) -> str:
    return "#{:02x}{:02x}{:02x}".format(*colour)


LIGHT = Palette(
    ink=(34, 34, 34),
    faint=(110, 110, 110),
    paper=(255, 255, 255),
    outline=(196, 196, 196),
    done=(222, 222, 222),
    generated=(213, 94, 0),
    fine_to_coarse=((8, 40, 96), (24, 104, 178), (66, 160, 212), (158, 212, 242)),
    prompts=((168, 216, 190), (214, 194, 234), (240, 220, 140), (240, 188, 196), (166, 212, 232)),
)
DARK = Palette(
    ink=(232, 232, 232),
    faint=(165, 165, 165),
    paper=(32, 32, 32),
    outline=(88, 88, 88),
    done=(78, 78, 78),
    generated=(240, 138, 52),
    fine_to_coarse=((214, 236, 252), (118, 188, 236), (48, 128, 190), (26, 84, 136)),
    prompts=((30, 104, 76), (98, 68, 136), (112, 88, 20), (130, 54, 70), (24, 92, 118)),
)
