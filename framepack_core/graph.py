"""A graph that has not run, in the form of an API prompt."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

Node = Mapping[str, Any]  # `class_type`, and `inputs` with values and [node, slot] links
Graph = Mapping[str, Node]

SAMPLERS = ("FramePack_Sampler", "FramePack_SamplerCustom")


class Later(ValueError):
    """A value is known only when the graph runs."""


def is_link(value: Any) -> bool:
    return isinstance(value, list) and len(value) == 2


def source(graph: Graph, link: Any) -> str | None:
    """The node that a link comes from, if it is one of the graph."""
    return link[0] if is_link(link) and link[0] in graph else None


def kind(graph: Graph, node: str | None) -> str:
    return "" if node is None else graph[node]["class_type"]


@dataclass(frozen=True)
class Values:
    """The values of a node's inputs. One that another node gives is that node's own `value`, as core's primitives have it."""

    graph: Graph
    node: str

    def __call__(self, name: str, default: Any) -> Any:
        """Raises Later for a value that is known only when the graph runs."""
        found = self.graph[self.node]["inputs"].get(name, default)
        if is_link(found):
            found = self.graph.get(found[0], {}).get("inputs", {}).get("value")
            if found is None or is_link(found):
                raise Later(f"{name} comes from another node and is known when the graph runs")
        return found
