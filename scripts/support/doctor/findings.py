"""What the doctor finds: plain data, and checks that cannot end it."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal

Status = Literal["ok", "warning", "fault"]


@dataclass(frozen=True)
class Finding:
    """`what` was looked at, the `value` found, and what to do about it. A fault prevents use; a warning does not."""

    what: str
    value: str
    status: Status = "ok"
    remedy: str = ""


@dataclass(frozen=True)
class Chapter:
    """The findings under one heading of the report."""

    title: str
    findings: tuple[Finding, ...]


def look(what: str, check: Callable[[], Finding | Iterable[Finding]]) -> list[Finding]:
    """What a check finds. One that fails becomes a finding with its error, so that the others still run."""
    try:
        found = check()
        return [found] if isinstance(found, Finding) else list(found)
    except (Exception, SystemExit) as error:
        return [unseen(what, error)]


def unseen(what: str, error: BaseException) -> Finding:
    remedy = "if nothing else in this report explains it, attach the report to an issue"
    return Finding(what, f"could not be looked at: {type(error).__name__}: {error}", "warning", remedy)


def gigabytes(count: float) -> str:
    return f"{count / 1e9:.1f} GB"
