"""Prompts with a time as ComfyUI's CONDITIONING: each entry that has one says so, and each section is told what belongs to it.

conditioning = encode(clip, parse("a cat sits [2s: it jumps]"))
told = Told.of(guider.original_conds, sections, length, fps)
told.conds(section)  # as a guider has them, without times
"""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from ...filling import Section
from ...frames import Length
from ...plan import Plan
from ...prompts import (
    Choice,
    Prompt,
    Span,
    called,
    changes_backwards,
    choices,
    in_parts,
    keeps_start,
    require_no_time,
    spell_choice,
    without_section,
)

TIME, WORDS = "framepack_time", "framepack_words"  # keys of a condition

TEXT = ("cross_attn", "pooled_output")
PLAIN = (bool, int, float, str)

Conds = Mapping[str, list[dict[str, Any]]]  # by the guider's names for them: positive, negative


@dataclass(frozen=True)
class VideoTime:
    """When a condition counts, what it tells other samplers for now, and what it had there itself."""

    span: Span
    for_others: Mapping[str, Any]
    own: Mapping[str, Any]


def encode(clip, prompts: Sequence[Prompt]) -> list:
    """The CONDITIONING of prompts, each text encoded once. Raises ValueError without a text encoder."""
    if clip is None:
        raise ValueError(
            "clip holds no text encoder; load it with DualCLIPLoader (type hunyuan_video), or CLIPLoader (type wan)"
        )
    encoded = cache(lambda words: clip.encode_from_tokens_scheduled(clip.tokenize(words)))
    if len(prompts) == 1 and prompts[0].span is None:
        return encoded(prompts[0].words)
    first = None if prompts[0].span is None else min(prompts, key=_start)
    found = []
    for prompt in prompts:
        entries = [[tensor, {**values, WORDS: prompt.words}] for tensor, values in encoded(prompt.words)]
        found += entries if prompt.span is None else with_time(entries, prompt.span, alone=prompt is first)
    return found


def with_time(conditioning: list, span: Span, alone: bool | None = None) -> list:
    """The CONDITIONING for a time only. Samplers that know no seconds use it if it is `alone` in that, by default from 0 s on.

    Raises ValueError if some of it has a time already.
    """
    for _, values in conditioning:
        require_no_time(_span(values))
    changed = _for_others(span.start == 0 if alone is None else alone)
    return [
        [tensor, {**values, **changed, TIME: VideoTime(span, changed, {key: values[key] for key in changed if key in values})}]
        for tensor, values in conditioning
    ]


@dataclass(frozen=True)
class Told:
    """What the sections of a video are told: by their number, `conditions` as a guider has them and `words` for the user.

    Empty for prompts without times. `notes` are lines about times that have no effect.
    """

    conditions: Mapping[int, Conds] = field(default_factory=dict)
    words: Mapping[int, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    @classmethod
    def of(cls, conds: Conds, sections: Sequence[Section], length: Length, fps: float) -> Told:
        """Raises ValueError if there is no prompt for the video at all."""
        if not is_timed(conds):
            return cls()
        told = {name: _Prompts.of(name, entries, sections, length, fps) for name, entries in conds.items()}
        conditions = {section.number: {} for section in sections}
        for name, prompts in told.items():
            for section, choice in zip(sections, prompts.choices, strict=True):
                conditions[section.number][name] = prompts.entries(choice)
        shown = next(prompts for prompts in told.values() if prompts.spans)
        words = {section.number: shown.spelled(choice) for section, choice in zip(sections, shown.choices, strict=True)}
        return cls(conditions, words, tuple(dict.fromkeys(note for prompts in told.values() for note in prompts.notes)))


def with_parts(plan: Plan, conds: Conds, frames: int, known: Collection[int]) -> Plan:
    """A `prompted` plan with a part for each of a guider's positive prompts; other plans as they are."""
    with _errors_of("positive"):
        return in_parts(plan, (_span(cond) for cond in conds.get("positive", ())), frames, known)


def is_timed(conds: Conds) -> bool:
    return any(TIME in cond for entries in conds.values() for cond in entries)


@dataclass(frozen=True)
class _Prompts:
    """The conditions of one name by their time, None for those without, and which of them each section is told."""

    by_span: Mapping[Span | None, list[dict[str, Any]]]
    choices: Sequence[Choice]
    notes: tuple[str, ...] = ()
    made: dict[Choice, list[dict[str, Any]]] = field(default_factory=dict)  # one list for all sections that are told the same

    @classmethod
    def of(cls, name: str, entries: Iterable[dict], sections: Sequence[Section], length: Length, fps: float) -> _Prompts:
        by_span: dict[Span | None, list[dict[str, Any]]] = {}
        for cond in entries:
            by_span.setdefault(_span(cond), []).append(_without_time(cond))
        spans = [span for span in by_span if span]
        if not spans:
            return cls(by_span, [Choice(None)] * len(sections))
        with _errors_of(name):
            told = choices(spans, None in by_span, sections, length, fps)
        prompts = cls(by_span, told)
        left = without_section(spans, told, sections, length, fps)
        notes = [f"no section is told {prompts.words[span]!r} ({span}): {reason}" for span, reason in left]
        if ends := [section.number for section in sections if section.target[-1] - section.target[0] >= len(section.target)]:
            notes.append(f"section {ends[0] + 1} makes both ends of the video, and is told what belongs to its beginning")
        if changes_backwards(told, sections):
            notes.append("a prompt's sections are made before those of the prompt that it follows; for a motion that goes on, "
                         "set the plan's parts to prompts")  # fmt: skip
        elif length.apart is None and keeps_start(told, sections):  # sections apart see the start image in every part
            notes.append("after a prompt has changed, sections still see the start image, and may go back to it; for a motion "
                         "that goes on, set the plan's parts to prompts")  # fmt: skip
        return cls(by_span, told, tuple(notes))

    @property
    def spans(self) -> list[Span]:
        return [span for span in self.by_span if span]

    @property
    def words(self) -> dict[Span | None, str]:
        return {
            span: called(span, (cond[WORDS] for cond in entries if WORDS in cond)) for span, entries in self.by_span.items()
        }

    def spelled(self, choice: Choice) -> str:
        return spell_choice(choice, self.words)

    def entries(self, choice: Choice) -> list[dict[str, Any]]:
        if choice not in self.made:
            before, after = (_without_words(self.by_span.get(span, ())) for span in (choice.before, choice.span))
            self.made[choice] = after if choice.weight == 1 else _mixed(before, after, choice.weight)
        return self.made[choice]


def _mixed(before: list[dict[str, Any]], after: list[dict[str, Any]], weight: float) -> list[dict[str, Any]]:
    """Conditions between those before and those after.

    Texts of the same length become one whose values lie between theirs, at no cost. Of others both count, by their strength,
    which takes a call of the model for each. Both do the same (docs/prompts.md).
    """
    if len(before) == len(after) == 1 and _differ_in_values_only(before[0], after[0]):
        (one,), (other,) = before, after
        return [{**other, **{key: torch.lerp(one[key], other[key], weight) for key in TEXT if other[key] is not None}}]
    return [*(_weighted(cond, 1 - weight) for cond in before), *(_weighted(cond, weight) for cond in after)]


def _differ_in_values_only(one: dict[str, Any], other: dict[str, Any]) -> bool:
    if one.keys() != other.keys() or any(_shape(one[key]) != _shape(other[key]) for key in TEXT):
        return False
    rest = one.keys() - {*TEXT, "uuid", "model_conds"}  # the last is filled in later
    return all(one[key] is other[key] or (isinstance(one[key], PLAIN) and one[key] == other[key]) for key in rest)


def _shape(text: torch.Tensor | None) -> torch.Size | None:
    """None for a pooled text of an encoder that gives none."""
    return None if text is None else text.shape


def _weighted(cond: dict[str, Any], weight: float) -> dict[str, Any]:
    return {**cond, "strength": cond.get("strength", 1.0) * weight}


def _span(cond: Mapping[str, Any]) -> Span | None:
    return cond[TIME].span if TIME in cond else None


@contextmanager
def _errors_of(name: str) -> Iterator[None]:
    """Let errors begin with the name of the guider's conditions that they are about."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"{name}: {error}") from error


def _without_time(cond: dict[str, Any]) -> dict[str, Any]:
    """The condition as it was before it got its time, but with what it has been given since."""
    if TIME not in cond:
        return cond
    time: VideoTime = cond[TIME]
    now = {key for key, value in time.for_others.items() if cond.get(key) == value}
    return {**time.own, **{key: value for key, value in cond.items() if key != TIME and key not in now}}


def _without_words(conds: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    return [{key: value for key, value in cond.items() if key != WORDS} for cond in conds]


def _for_others(alone: bool) -> dict[str, Any]:
    """What makes samplers that know no seconds use a condition where there is no other, or never."""
    return {"default": True} if alone else {"start_percent": 1.0}


def _start(prompt: Prompt) -> float:
    """When a prompt begins, in a video of any length: times from the end come last."""
    assert prompt.span
    return prompt.span.start if prompt.span.start >= 0 else math.inf
