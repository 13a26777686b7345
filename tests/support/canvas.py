"""Where the front end has drawn a workflow's nodes and groups, in a page of the browser tests."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from itertools import combinations
from pathlib import Path

import pytest
from playwright.sync_api import Page

BOXES = """({ items, type }) => app.graph[items].map(item => ({
  name: item.title,
  box: Array.from(item.boundingRect),
  least: type === 'node' && !item.flags.collapsed ? item.computeSize()[1] + LiteGraph.NODE_TITLE_HEIGHT : 0,
  note: item.type === 'MarkdownNote',
}))"""


def demo_at_once(workflows: Iterable[Path]) -> list:
    """Workflows as parameters of a test, which is slow for all but the demo's."""
    return [
        pytest.param(path, id=path.stem, marks=() if path.stem == "FramePack demo" else pytest.mark.slow) for path in workflows
    ]


@dataclass(frozen=True)
class Item:
    """A node with its title, or a group: its box in the graph's units, and the least height that its content needs."""

    name: str
    left: float
    top: float
    width: float
    height: float
    least: float
    note: bool

    @property
    def right(self) -> float:
        return self.left + self.width

    @property
    def bottom(self) -> float:
        return self.top + self.height

    def overlaps(self, other: Item) -> bool:
        across = self.left < other.right and other.left < self.right
        return across and self.top < other.bottom and other.top < self.bottom

    def holds(self, other: Item) -> bool:
        across = self.left <= other.left and other.right <= self.right
        return across and self.top <= other.top and other.bottom <= self.bottom


def nodes_of(page: Page) -> list[Item]:
    return _items(page, "nodes", "node")


def groups_of(page: Page) -> list[Item]:
    return _items(page, "groups", "group")


def overlapping(items: list[Item]) -> list[tuple[str, str]]:
    return [(a.name, b.name) for a, b in combinations(items, 2) if a.overlaps(b)]


def _items(page: Page, items: str, kind: str) -> list[Item]:
    found = page.evaluate(BOXES, {"items": items, "type": kind})
    return [Item(item["name"], *item["box"], least=item["least"], note=item["note"]) for item in found]
