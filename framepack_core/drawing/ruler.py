"""The ruler under a text with times: what counts when, and which numbers of the text are the borders between prompts."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import groupby

from ..filling import seconds_shown
from ..foreseen import Foreseen
from ..prompts import Written, from_beginning, parse, without_section, written
from .bars import Bar, Told
from .chart import Chart
from .painting import ticks
from .palette import LIGHT, Palette

STEP = 0.1  # seconds: as far apart as borders stay when they are moved
SIDE = 64  # latent pixels of the video, which do not matter here


@dataclass(frozen=True)
class Number:
    """The number of a time: its first character in the text and the one after its last, counted as JavaScript does (UTF-16).

    `from_end` says whether it is negative, counted from the video's end.
    """

    at: int
    until: int
    from_end: bool


@dataclass(frozen=True)
class Border:
    """What can be moved: the numbers that stand for one moment of the video, and from when to when it can go, in seconds."""

    seconds: float
    least: float
    most: float
    numbers: tuple[Number, ...]


@dataclass(frozen=True)
class Ruler:
    """So many seconds, with labels at `ticks`. `marks` are the seconds at which sections begin and end.

    `borders` are in the order of their time, for this `text`. `sections` are bars, too. `notes` are lines for the user.
    """

    text: str
    seconds: float
    ticks: tuple[int, ...]
    marks: tuple[float, ...]
    bars: tuple[Bar, ...]
    sections: tuple[Bar, ...]
    borders: tuple[Border, ...]
    notes: tuple[str, ...] = ()
    step: float = STEP

    @classmethod
    def of(cls, text: str, foreseen: Foreseen | None, width: int, palette: Palette = LIGHT) -> Ruler:
        """In `width` pixels; of the video that is foreseen, or else up to the text's last time.

        Raises ValueError for a text that cannot be.
        """
        told, times = Told.of(parse(text), palette), written(text)
        if foreseen is None:
            seconds = _enough(times)
            bars = told.bars(seconds, lambda second: second / seconds)
            return cls(text, seconds, _ticks(seconds, width), (), bars, (), borders(text, times, seconds))
        chart = Chart.of(foreseen.plan, SIDE, SIDE, foreseen.known, palette, foreseen.guides)
        return cls.along(chart, text, told, times, width)

    @classmethod
    def along(cls, chart: Chart, text: str, told: Told, times: Sequence[Written], width: int) -> Ruler:
        """The ruler of a video."""
        seconds, length, fps = chart.seconds, chart.length, chart.plan.fps
        shown = {second for section in chart.sections for time in seconds_shown(section, length, fps) for second in time}
        left = without_section(told.spans, told.choices(chart.sections, length, fps), chart.sections, length, fps)
        return cls(
            text,
            seconds,
            _ticks(seconds, width),
            tuple(sorted(shown)),
            told.bars(seconds, lambda second: second / seconds),
            told.section_bars(chart.sections, length, fps, lambda second: second / seconds),
            borders(text, times, seconds),
            tuple(f"no section is told {told.words[span]!r} ({span}): {why}" for span, why in left),
        )


def borders(text: str, times: Sequence[Written], seconds: float) -> tuple[Border, ...]:
    """The borders in a video of so many seconds. Each can go as far as its neighbours, which leaves their order as it is.

    What begins, or is counted from the end, cannot go to the end: it would not be in the video, and -0 is its beginning.
    """
    placed = sorted(times, key=lambda time: (_place(time, seconds), time.at))
    moments = [(place, list(same)) for place, same in groupby(placed, key=lambda time: _place(time, seconds))]
    found = []
    for number, (place, same) in enumerate(moments):
        before = moments[number - 1][0] + STEP if number else 0.0
        after = moments[number + 1][0] - STEP if number + 1 < len(moments) else seconds
        last = seconds - STEP if any(time.begins or time.seconds < 0 for time in same) else seconds
        numbers = tuple(Number(_utf16(text, time.at), _utf16(text, time.until), time.seconds < 0) for time in same)
        found.append(Border(place, min(place, max(before, 0.0)), max(place, min(after, last)), numbers))
    return tuple(found)


def _place(time: Written, seconds: float) -> float:
    return round(from_beginning(time.seconds, seconds), 3)


def _utf16(text: str, at: int) -> int:
    return len(text[:at].encode("utf-16-le", "surrogatepass")) // 2


def _enough(times: Iterable[Written]) -> float:
    """Seconds for all that a text tells of, with room for what begins last."""
    return 1.0 + math.ceil(max((abs(time.seconds) for time in times), default=4.0))


def _ticks(seconds: float, width: int) -> tuple[int, ...]:
    return tuple(ticks(seconds, width / seconds))
