"""Prompts that change with time, in seconds of the finished video.

    a cat sits [2s: it jumps] [4s-5.5s ~1s: it lands]

What is outside the brackets counts wherever no bracket does. The syntax is that of FramePack Studio and FramePack Plus, with
times from the end (`-1s`) and fades (`~1s`) besides.
"""

from __future__ import annotations

import math
import re
from bisect import bisect_right
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

from .filling import Section, seconds_shown
from .frames import Length
from .plan import Plan
from .spelling import aligned

MAX_SECONDS = 3600.0
LEAST_WEIGHT = 0.05  # of a prompt while one fades into another: less does not show
LONGEST_WORDS = 60  # characters of a prompt in a line of text

_NUMBER = r"-?\d+(?:\.\d+)?"
_TIMES = rf"\[\s*(?P<start>{_NUMBER})\s*s\s*(?:-\s*(?P<end>{_NUMBER})\s*s\s*)?(?:~\s*(?P<fade>\d+(?:\.\d+)?)\s*s\s*)?:"
_ALMOST = r"-?\d[\d.,]*\s*(?:s|sec|secs|second|seconds)?\s*"
_MISSPELT = rf"\[\s*{_ALMOST}(?:(?:-|–|to)\s*{_ALMOST})?(?:~[^:\]]*)?:(?!\d)"
_BRACKET = re.compile(f"{_TIMES}|{_MISSPELT}", re.IGNORECASE)


@dataclass(frozen=True)
class Span:
    """When a prompt counts: from `start` up to `end`, in seconds; negative ones are counted from the video's end.

    Without an end it counts until the next one begins. It fades in, and what comes after its end, for `fade` seconds.
    """

    start: float
    end: float | None = None
    fade: float = 0.0

    def __str__(self) -> str:
        end = "" if self.end is None else " to the end" if self.end == math.inf else f"-{_spelled(self.end)}s"
        return f"{_spelled(self.start)}s{end}" + (f" ~{_spelled(self.fade)}s" if self.fade else "")


@dataclass(frozen=True)
class Prompt:
    """Words, and when they count; None: wherever no prompt with a time does."""

    words: str
    span: Span | None = None


@dataclass(frozen=True)
class Written:
    """A time as it stands in a text: the characters from `at` up to `until` are the number of its `seconds`.

    `begins` says whether a prompt begins then, or ends.
    """

    at: int
    until: int
    seconds: float
    begins: bool


@dataclass(frozen=True)
class Stretch:
    """A time of the finished video, in seconds, in which one span counts, or None. It takes `fade` seconds to come in."""

    start: float
    stop: float
    span: Span | None
    fade: float = 0.0

    def shared(self, start: float, stop: float) -> float:
        """How many seconds of a time belong to it."""
        return min(self.stop, stop) - max(self.start, start)


@dataclass(frozen=True)
class Choice:
    """What a section is told: the prompts of `span` (None: those without a time) by a `weight`, the rest by those before."""

    span: Span | None
    weight: float = 1.0
    before: Span | None = None


# Text


def parse(text: str) -> tuple[Prompt, ...]:
    """The prompts of a text: first what has no time, unless there is nothing of it, then the others as they are written.

    Brackets that do not begin with a time are part of the words. Raises ValueError for one that is not closed, is empty or has
    a time that cannot be, and for two that begin at the same time.
    """
    outside, timed, at = [], [], 0
    for match, stop in _brackets(text):
        outside.append(text[at : match.start()])
        timed.append(_timed(match, text[match.start() : stop]))
        at = stop
    everywhere = " ".join(filter(None, (part.strip() for part in [*outside, text[at:]]))) if timed else text
    _require_different(timed)
    return (*([] if timed and not everywhere else [Prompt(everywhere)]), *timed)


def written(text: str) -> list[Written]:
    """When the prompts of a text that `parse` reads begin and end, in the order of writing."""
    found = [(match, name) for match, _ in _brackets(text) for name in ("start", "end")]
    return [Written(*match.span(name), float(match[name]), name == "start") for match, name in found if match[name] is not None]


def spell(prompts: Iterable[Prompt]) -> str:
    """The text that `parse` reads as these prompts."""
    return " ".join(prompt.words if prompt.span is None else f"[{prompt.span}: {prompt.words}]" for prompt in prompts)


def span_of(start: float, end: float, fade: float = 0.0) -> Span:
    """The span from a node's inputs, where an end of 0 is the video's. Raises ValueError for times that no video has."""
    span = Span(float(start), float(end) if end else math.inf, float(fade))
    require_span(span, "what is to count")
    return span


def require_span(span: Span, what: str) -> None:
    """Raises ValueError for times that no video has."""
    for name, value in (("start", span.start), ("end", span.end)):
        if value is not None and value != math.inf and not abs(value) <= MAX_SECONDS:
            raise ValueError(f"{what}: {name} is {value:g} s; choose at most {MAX_SECONDS:g} s, or as much before the end")
    if not 0 <= span.fade <= MAX_SECONDS:
        raise ValueError(f"{what}: the fade is {span.fade:g} s; choose 0 (none) to {MAX_SECONDS:g}")
    if span.end is not None and (span.start < 0) == (span.end < 0) and span.end <= span.start:
        raise ValueError(f"{what} ends at {_spelled(span.end)} s, but begins at {_spelled(span.start)} s; write the earlier "
                         "time first")  # fmt: skip


def require_no_time(span: Span | None) -> None:
    """Raises ValueError for what has a time already."""
    if span is not None:
        raise ValueError(f"conditioning has a time already ({span}); connect what has none")


def called(span: Span | None, words: Iterable[str]) -> str:
    """What the prompts of one time are called in a line of text: by their words, as far as these are known."""
    known = dict.fromkeys(filter(None, words))
    if known:
        return shortened(" + ".join(known))
    return "the prompt without a time" if span is None else f"the prompt of {span}"


def shortened(words: str) -> str:
    """A prompt for a line of text."""
    line = " ".join(words.split())
    return line if len(line) <= LONGEST_WORDS else f"{line[: LONGEST_WORDS - 1]}…"


def _brackets(text: str) -> Iterator[tuple[re.Match, int]]:
    """What begins with a time, or nearly, and where it ends."""
    at = 0
    while match := _BRACKET.search(text, at):
        at = _closing(text, match.start())
        yield match, at


def _timed(match: re.Match, bracket: str) -> Prompt:
    """The prompt of a bracket, of which the match is the beginning."""
    if match["start"] is None:
        raise ValueError(f"{shortened(bracket)!r} looks like a time, but is none; write [2s: ...], [2s-3.5s: ...], or "
                         "[2s-3.5s ~1s: ...] with a fade, with an s after each number and a point in it")  # fmt: skip
    words = bracket[len(match[0]) : -1].strip()
    if not words:
        raise ValueError(f"{bracket!r} has no words; write what happens then, or remove it")
    start, end, fade = match["start"], match["end"], match["fade"]
    span = Span(float(start), None if end is None else float(end), float(fade or 0))
    require_span(span, repr(shortened(bracket)))
    return Prompt(words, span)


def _closing(text: str, begun: int) -> int:
    """Where a bracket ends, with those within it."""
    depth = 0
    for at in range(begun, len(text)):
        depth += (text[at] == "[") - (text[at] == "]")
        if depth == 0:
            return at + 1
    raise ValueError(f"{shortened(text[begun:])!r} is not closed; write a ] after its words")


def _require_different(timed: Sequence[Prompt]) -> None:
    begun: dict[float, Prompt] = {}
    for prompt in timed:
        assert prompt.span
        other = begun.setdefault(prompt.span.start, prompt)
        if other is not prompt:
            raise ValueError(
                f"{shortened(other.words)!r} and {shortened(prompt.words)!r} both begin at {_spelled(prompt.span.start)} s; "
                "give one of them another time, or write both in one bracket"
            )


def _spelled(seconds: float) -> str:
    return f"{seconds:.6f}".rstrip("0").rstrip(".")


# Time


def stretches(spans: Sequence[Span], anywhere: bool, seconds: float) -> list[Stretch]:
    """Which span counts when, in a video of so many seconds. Where several do, it is the one that begins last.

    Where none does, it is None if there are prompts `anywhere`, without a time; or else the span before goes on, and before
    the first span it is the first. Raises ValueError if that leaves nothing.
    """
    placed = list(_placed(spans, seconds))
    edges = sorted({0.0, seconds, *(edge for one in placed for edge in (one.start, one.stop))})
    found: list[Stretch] = []
    for start, stop in pairwise(edges):
        counting = [one for one in placed if one.start <= start < one.stop]
        one = max(counting, key=lambda one: (one.start, -one.stop), default=None)
        if one is None and not anywhere and found:
            found[-1] = replace(found[-1], stop=stop)
        elif one is None or not found or found[-1].span is not one.span:
            found.append(Stretch(start, stop, one and one.span, _fade(found, one, start)))
        else:
            found[-1] = replace(found[-1], stop=stop)
    if not anywhere:
        found = _from_the_beginning(found)
        if not found:
            raise ValueError(f"no prompt has a time within the video's {seconds:.2f} s: the first is for {spans[0]}; give one "
                             "an earlier time, or combine it with a prompt without a time")  # fmt: skip
    return found


def choices(spans: Sequence[Span], anywhere: bool, sections: Sequence[Section], length: Length, fps: float) -> list[Choice]:
    """What each section is told. One that makes both ends of a video is told what belongs to the beginning.

    It is what has most of the section's time, or of which the section has most.
    """
    times = [seconds_shown(section, length, fps)[0] for section in sections]
    return _choices(spans, anywhere, times, length.frames / fps)


def in_parts(plan: Plan, prompts: Iterable[Span | None], frames: int, known: Collection[int]) -> Plan:
    """A `prompted` plan with a part for each prompt, of which one without a time has None; other plans as they are.

    The video has so many latent frames, of which `known` were given at first. A part begins with a window that is told another
    prompt than the one before it. Raises ValueError if there is no prompt for the video.
    """
    if not plan.prompted:
        return plan
    all_spans = tuple(dict.fromkeys(prompts))
    spans = [span for span in all_spans if span]
    length = plan.length(frames, len(known))
    windows = plan.windows(frames - plan.loop * plan.window, known)
    times = [(length.begins(first) / plan.fps, length.begins(first + plan.window) / plan.fps) for first in windows]
    told = _choices(spans, None in all_spans or not spans, times, length.frames / plan.fps)
    changes = [first for (_, before), (first, now) in pairwise(zip(windows, told, strict=True)) if before.span != now.span]
    return replace(plan, parts=tuple(map(length.begins, changes)), prompted=False)


def _choices(spans: Sequence[Span], anywhere: bool, times: Iterable[tuple[float, float]], seconds: float) -> list[Choice]:
    """What each of these times of a video is told."""
    found = stretches(spans, anywhere, seconds)
    starts = [stretch.start for stretch in found]
    told = []
    for begin, end in times:
        first = max(0, bisect_right(starts, begin) - 1)
        stop = max(first + 1, bisect_right(starts, end))
        number = max(range(first, stop), key=lambda number: _claim(found[number], begin, end))
        told.append(_faded(found, number, begin, end))
    return told


def changes_backwards(told: Sequence[Choice], sections: Sequence[Section]) -> bool:
    """Whether anywhere in the video what is told after a change is made before what is told before it. Within a fade, it is
    the same prompt by another weight."""
    by_time = sorted(zip(sections, told, strict=True), key=lambda one: one[0].target[0])
    return any(said.span != then.span and before.number > after.number for (before, said), (after, then) in pairwise(by_time))


def keeps_start(told: Sequence[Choice], sections: Sequence[Section]) -> bool:
    """Whether a section that is told something else than the video's beginning still sees that in the start image's place."""
    beginning = min(zip(sections, told, strict=True), key=lambda one: one[0].target[0])[1]
    return any(said.span != beginning.span and sees_start(section) for section, said in zip(sections, told, strict=True))


def sees_start(section: Section) -> bool:
    """Whether it sees the video's first frame at the first time index, and not because that is how far back it lies."""
    places = ((group.frames[0], group.indices[0]) for group in section.context)
    return (0, 0) in places and section.indices[0] != section.target[0]


def from_beginning(time: float, seconds: float) -> float:
    """A time that is counted from the end if it is negative, in a video of so many seconds."""
    return seconds + time if time < 0 else time


def without_section(
    spans: Sequence[Span], told: Iterable[Choice], sections: Sequence[Section], length: Length, fps: float
) -> list[tuple[Span, str]]:
    """Spans that no section is told, with the reason. Sections that are not among these may be told what lies in them."""
    seconds = length.frames / fps
    used = {span for choice in told for span in (choice.span, choice.before)}
    placed = {stretch.span: stretch for stretch in _placed(spans, seconds)}
    times = [time for section in sections for time in seconds_shown(section, length, fps)]
    found = []
    for span in (span for span in spans if span not in used):
        if span not in placed:
            found.append((span, f"it lies outside the video's {seconds:.2f} s"))
        elif _is_within(placed[span], times, fps):
            found.append((span, "each of its sections has more of another; make it longer"))
    return found


def _placed(spans: Sequence[Span], seconds: float) -> Iterator[Stretch]:
    """The spans that lie in a video, from its beginning to its end."""
    starts = sorted(from_beginning(span.start, seconds) for span in spans)
    for span in spans:
        start = from_beginning(span.start, seconds)
        following = bisect_right(starts, start)
        after = starts[following] if following < len(starts) else seconds
        stop = min(after if span.end is None else from_beginning(span.end, seconds), seconds)
        if max(start, 0.0) < stop:
            yield Stretch(max(start, 0.0), stop, span, span.fade)


def _is_within(stretch: Stretch, times: Iterable[tuple[float, float]], fps: float) -> bool:
    """Whether all of it but a frame, such as the start image, lies in these times."""
    inside = sum(max(0.0, stretch.shared(begin, end)) for begin, end in times)
    return inside > stretch.stop - stretch.start - 1.5 / fps


def _fade(before: Sequence[Stretch], one: Stretch | None, start: float) -> float:
    """How long it takes from the stretches before to what begins or goes on at `start`."""
    if not before:
        return 0.0
    if one is not None and one.start == start:
        return one.fade
    ended = before[-1].span
    return ended.fade if ended else 0.0


def _from_the_beginning(found: list[Stretch]) -> list[Stretch]:
    """The stretches without one of nothing at the beginning."""
    if found and found[0].span is None:
        return [replace(stretch, start=0.0, fade=0.0) for stretch in found[1:2]] + found[2:]
    return found


def _claim(stretch: Stretch, begin: float, end: float) -> tuple[float, float]:
    """How much a stretch has to do with a section: the larger share of both, then the seconds."""
    shared = max(0.0, stretch.shared(begin, end))
    of_section = shared / (end - begin) if end > begin else 0.0
    of_itself = shared / (stretch.stop - stretch.start) if stretch.span else 0.0
    return round(max(of_section, of_itself), 6), round(shared, 6)


def _faded(found: Sequence[Stretch], number: int, begin: float, end: float) -> Choice:
    """What a section is told that belongs to a stretch: while this fades in, by the mean of its weight in the section."""
    stretch = found[number]
    if not number or not stretch.fade:
        return Choice(stretch.span)
    first, last = (max(time - stretch.start, 0.0) for time in (begin, end))
    weight = (_risen(last, stretch.fade) - _risen(first, stretch.fade)) / (last - first) if last > first else 1.0
    if weight > 1 - LEAST_WEIGHT:
        return Choice(stretch.span)
    before = found[number - 1].span
    return Choice(before) if weight < LEAST_WEIGHT else Choice(stretch.span, round(weight, 2), before)


def _risen(seconds: float, fade: float) -> float:
    """The integral of a weight that rises from 0 to 1 within `fade` seconds, after so many of them."""
    rising = min(seconds, fade)
    return rising**2 / (2 * fade) + seconds - rising


# Tables


def table(prompts: Sequence[Prompt], plan: Plan | None = None) -> str:
    """Which words count when; with a plan, which section of a video that begins with an image is told what."""
    if plan is None:
        return "\n".join(aligned([("time", "words"), *((_when(prompt), shortened(prompt.words)) for prompt in prompts)]))
    words = {prompt.span: shortened(prompt.words) for prompt in prompts}
    spans = [prompt.span for prompt in prompts if prompt.span]
    plan = plan.beside(1)
    length = plan.length(1 + plan.generated, given=1)
    sections = in_parts(plan, words, length.latents, (0,)).fill(length.latents)
    told = choices(spans, None in words, sections, length, plan.fps)
    rows = [("section", "seconds", "words")]
    for section, choice in zip(sections, told, strict=True):
        begin, end = seconds_shown(section, length, plan.fps)[0]
        rows.append((f"{section.number + 1}", f"{begin:.2f}-{end:.2f}", spell_choice(choice, words)))
    left = without_section(spans, told, sections, length, plan.fps)
    return "\n".join([*aligned(rows), *(f"no section is told {words[span]!r} ({span}): {why}" for span, why in left)])


def spell_choice(choice: Choice, words: Mapping[Span | None, str]) -> str:
    """What a section is told, from the words of each span."""
    if choice.weight == 1:
        return words[choice.span]
    return f"{words[choice.span]} ({choice.weight:.0%}), {words[choice.before]} ({1 - choice.weight:.0%})"


def _when(prompt: Prompt) -> str:
    return "otherwise" if prompt.span is None else str(prompt.span)
