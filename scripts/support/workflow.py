"""A saved workflow (the front end's JSON) as an API prompt, without a browser.

Covers what this pack's workflows use: links, widgets in schema order, dynamic combos, muted and bypassed nodes, and
notes. Subgraphs, reroutes and primitive nodes are left to the front end.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator
from typing import Any

MUTED, BYPASSED = 2, 4
NOTES = ("Note", "MarkdownNote")
WIDGET_TYPES = ("INT", "FLOAT", "STRING", "BOOLEAN", "COMBO")
DYNAMIC_COMBO = "COMFY_DYNAMICCOMBO_V3"

Json = dict[str, Any]


def to_prompt(workflow: Json, object_info: Json) -> Json:
    """What the front end's graphToPrompt makes of the workflow, with the server's /object_info."""
    nodes = {node["id"]: node for node in workflow["nodes"] if node["type"] not in NOTES}
    links = {link[0]: link for link in workflow["links"]}
    prompt = {}
    for node in nodes.values():
        if node.get("mode", 0) in (MUTED, BYPASSED):
            continue
        info = object_info[node["type"]]
        prompt[str(node["id"])] = {
            "inputs": {**widget_values(node, info), **linked_inputs(node, nodes, links)},
            "class_type": node["type"],
            "_meta": {"title": node.get("title", info["display_name"])},
        }
    return prompt


def with_widgets(workflow: Json, object_info: Json, changes: Json) -> Json:
    """A copy with these widgets changed in every node that has them. Raises ValueError for a widget that no node has."""
    workflow, left = copy.deepcopy(workflow), set(changes)
    for node in workflow["nodes"]:
        if node["type"] in NOTES:
            continue
        places = _named(enumerate(node.get("widgets_values", [])), object_info[node["type"]]["input"])
        for name, (place, _) in list(places):
            if name in changes:
                node["widgets_values"][place] = changes[name]
                left.discard(name)
    if left:
        raise ValueError(f"no node of the workflow has a widget {', '.join(sorted(left))}")
    return workflow


def widget_values(node: Json, info: Json) -> Json:
    """Widget names with their saved values; the saved list has no names but follows the schema."""
    return {name: value for name, (_, value) in _named(enumerate(node.get("widgets_values", [])), info["input"])}


def linked_inputs(node: Json, nodes: dict[int, Json], links: dict[int, list]) -> Json:
    sources = {slot["name"]: source(slot.get("link"), nodes, links) for slot in node.get("inputs", [])}
    return {name: found for name, found in sources.items() if found}


def source(link_id: int | None, nodes: dict[int, Json], links: dict[int, list]) -> list | None:
    """The `[node id, slot]` that feeds a link: None for a muted node; through a bypassed one, by type."""
    if link_id is None:
        return None
    _, origin_id, origin_slot, _, _, kind = links[link_id]
    origin = nodes[origin_id]
    if origin.get("mode", 0) == MUTED:
        return None
    if origin.get("mode", 0) == BYPASSED:
        same_type = (slot["link"] for slot in origin["inputs"] if slot["type"] == kind)
        return source(next(same_type, None), nodes, links)
    return [str(origin_id), origin_slot]


def _named(values: Iterator[tuple[int, Any]], schema: Json, prefix: str = "") -> Iterator[tuple[str, tuple[int, Any]]]:
    """Take the next saved (place, value) for each widget in turn, skipping the seed's "control after generate"."""
    for name, (kind, *rest) in _inputs(schema):
        options = rest[0] if rest else {}
        if not _is_widget(kind, options):
            continue
        try:
            saved = next(values)
        except StopIteration:  # saved before this widget was added: its default applies
            return
        yield prefix + name, saved
        if options.get("control_after_generate"):
            next(values)
        if kind == DYNAMIC_COMBO:
            (chosen,) = (option for option in options["options"] if option["key"] == saved[1])
            yield from _named(values, chosen["inputs"], f"{prefix}{name}.")


def _inputs(schema: Json) -> Iterator[tuple[str, list]]:
    for group in ("required", "optional"):
        yield from schema.get(group, {}).items()


def _is_widget(kind: str | list, options: Json) -> bool:
    if options.get("forceInput"):
        return False
    return isinstance(kind, list) or kind in WIDGET_TYPES or kind == DYNAMIC_COMBO
