"""Findings as lines on the screen, and as a Markdown file that can be attached to an issue."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import date

from scripts.support.doctor.findings import Chapter, Finding, Status

MARKS: dict[Status, str] = {"ok": "", "warning": "warning", "fault": "**fault**"}


def lines(chapter: Chapter) -> list[str]:
    """For the screen."""
    text = ["", chapter.title]
    for finding in chapter.findings:
        mark = {"ok": "  ", "warning": "? ", "fault": "! "}[finding.status]
        text.append(f"  {mark}{finding.what}: {finding.value}")
        text += [f"      {finding.remedy}"] if finding.remedy else []
    return text


def markdown(chapters: Sequence[Chapter], version: str, day: date) -> str:
    found = [finding for chapter in chapters for finding in chapter.findings]
    text = ["# FramePack report", "", f"FramePack {version}, `scripts/doctor.py`, {day.isoformat()}: {verdict(found)}."]
    to_do = [finding for status in ("fault", "warning") for finding in found if finding.status == status]
    if to_do:
        text += ["", "## What to do", ""]
        text += [
            f"- {MARKS[finding.status]}: {finding.what}: {flat(finding.value)}. {sentence(finding.remedy)}" for finding in to_do
        ]
    for chapter in chapters:
        text += ["", f"## {chapter.title}", "", "| what | found | | what to do |", "| --- | --- | --- | --- |"]
        text += [row(finding) for finding in chapter.findings]
    return "\n".join([*text, ""])


def row(finding: Finding) -> str:
    cells = (finding.what, finding.value, MARKS[finding.status], finding.remedy)
    return "| " + " | ".join(flat(cell).replace("|", "\\|") for cell in cells) + " |"


def flat(text: str) -> str:
    return " ".join(text.split())


def sentence(text: str) -> str:
    text = flat(text)
    return text[:1].upper() + text[1:]


def verdict(findings: Sequence[Finding]) -> str:
    faults, warnings = (sum(finding.status == status for finding in findings) for status in ("fault", "warning"))
    if not faults and not warnings:
        return "nothing is wrong"
    return f"{counted(faults, 'fault')}, {counted(warnings, 'warning')}"


def counted(count: int, noun: str) -> str:
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
