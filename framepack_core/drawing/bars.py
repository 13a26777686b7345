"""Prompts in time as bars along a video, which the front end draws (`web/live.js`)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..filling import Section, seconds_shown
from ..frames import Length
from ..prompts import Choice, Prompt, Span, called, choices, spell_choice, stretches
from .palette import Colour, Palette, as_css, mixed

Place = Callable[[float], float]  # where in the video a second is: 0 at its beginning, 1 at its end


@dataclass(frozen=True)
class Bar:
    """A stretch of the video, from `left` to `right` of 0 to 1. Within `fade` of it, its colour comes in."""

    left: float
    right: float
    words: str
    title: str
    colour: str
    fade: float = 0.0


@dataclass(frozen=True)
class Told:
    """The prompts of a video: what those of each time are called, None for those without one, and their colours."""

    words: Mapping[Span | None, str]
    palette: Palette

    @classmethod
    def of(cls, prompts: Iterable[Prompt], palette: Palette) -> Told:
        by_span: dict[Span | None, list[str]] = {}
        for prompt in prompts:
            by_span.setdefault(prompt.span, []).append(prompt.words)
        return cls({span: called(span, words) for span, words in by_span.items()}, palette)

    @property
    def spans(self) -> list[Span]:
        return [span for span in self.words if span]

    @property
    def anywhere(self) -> bool:
        return None in self.words or not self.words

    def colour(self, span: Span | None) -> Colour:
        """The same for the same words, wherever they count."""
        if span is None:
            return self.palette.done
        different = list(dict.fromkeys(self.words[span] for span in self.spans))
        return self.palette.prompts[different.index(self.words[span]) % len(self.palette.prompts)]

    def bars(self, seconds: float, place: Place) -> tuple[Bar, ...]:
        """What counts when, in a video of so many seconds. Raises ValueError if nothing does."""
        return tuple(
            Bar(
                left=place(stretch.start),
                right=place(stretch.stop),
                words=self.words.get(stretch.span, ""),
                title=f"{stretch.start:.2f} to {stretch.stop:.2f} s: {self.words.get(stretch.span, '')}",
                colour=as_css(self.colour(stretch.span)),
                fade=place(min(stretch.start + stretch.fade, stretch.stop)) - place(stretch.start),
            )
            for stretch in stretches(self.spans, self.anywhere, seconds)
        )

    def choices(self, sections: Sequence[Section], length: Length, fps: float) -> list[Choice]:
        """What each section is told."""
        return choices(self.spans, self.anywhere, sections, length, fps)

    def spelled(self, choice: Choice) -> str:
        return spell_choice(choice, self.words)

    def section_bars(self, sections: Sequence[Section], length: Length, fps: float, place: Place) -> tuple[Bar, ...]:
        """The sections along the video, in the colour of what each is told."""
        found = []
        for section, choice in zip(sections, self.choices(sections, length, fps), strict=True):
            colour = as_css(mixed(self.colour(choice.before), self.colour(choice.span), choice.weight))
            for begin, end in seconds_shown(section, length, fps):
                title = f"section {section.number + 1} of {len(sections)}: {begin:.2f} to {end:.2f} s\n{self.spelled(choice)}"
                found.append(Bar(place(begin), place(end), f"{section.number + 1}", title, colour))
        return tuple(found)
