"""Routes that draw what a graph would do if it ran now, for the front end (`web/live.js`).

POST /framepack/plan  {"prompt": {id: {"class_type": ..., "inputs": ...}}, "node": id, "width": 600, "light": false}
-> {"image": "data:image/png;base64,...", "height": 200, "length": "145 frames, 4.83 s", "bars": [...],
    "rows": [{"section": 0, "top": 28, "bottom": 62, "text": "section 1 of 4: ..."}], "colours": {"ink": "#e8e8e8", ...}}
-> {"error": "window is 0; choose 1 or more"}

POST /framepack/prompts, asked in the same way for a FramePack_PromptTimeline
-> the fields of `drawing.ruler.Ruler`, and "colours"; {"later": true} if its text is known only when the graph runs
-> {"error": "'[2s: it jumps' is not closed; write a ] after its words"}
"""

from __future__ import annotations

import asyncio
import base64
from collections.abc import Callable
from dataclasses import asdict
from io import BytesIO
from typing import Any

from ..drawing.palette import DARK, LIGHT, Palette, as_css
from ..drawing.ruler import Ruler
from ..drawing.sketch import Sketch, sketch_plan
from ..foreseen import PLAN, Foreseen, sampler_behind
from ..foretold import sampler_told_by, told_to
from ..graph import Graph, Later, Values, kind, source

Json = dict[str, Any]

WIDTHS = 64, 2000  # pixels
OPEN = " (the length of a clip that is placed is known when it runs)"


def add_routes() -> None:
    """Add them to a running ComfyUI; without one there is nothing to do."""
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is not None:
        server.routes.post("/framepack/plan")(answering(drawn))
        server.routes.post("/framepack/prompts")(answering(ruled))


def answering(answer: Callable[[Json], Json]) -> Callable:
    """A handler that answers requests by a function, and with the error if it raises ValueError."""
    from aiohttp import web

    async def handle(request: web.Request) -> web.Response:
        try:
            asked = await request.json()
            return web.json_response(await asyncio.to_thread(answer, asked))
        except (AttributeError, KeyError, TypeError) as error:  # not from our script
            return web.json_response({"error": f"not a request for a drawing: {error!r}"}, status=400)
        except RecursionError:
            return web.json_response({"error": "the graph goes round in a circle; remove one of the links"})
        except ValueError as error:
            return web.json_response({"error": str(error)})

    return handle


def drawn(asked: Json) -> Json:
    """The drawing of a plan. Raises ValueError for a plan that cannot be, KeyError and others for what is no request."""
    graph, node, palette = asked["prompt"], asked["node"], palette_of(asked)
    foreseen, prompts = Foreseen.of(graph, node), told_to(graph, sampler_behind(graph, node))
    foreseen = foreseen.told(prompts)
    sketch = sketch_plan(
        foreseen.plan,
        width_of(asked),
        known=foreseen.known,
        guides=foreseen.guides,
        palette=palette,
        prompts=prompts,
    )
    return {
        "image": as_url(sketch),
        "height": sketch.image.height,
        "length": sketch.length + (OPEN if foreseen.open else ""),
        "bars": [asdict(bar) for bar in sketch.bars],
        "rows": [asdict(row) for row in sketch.rows],
        "colours": colours_of(palette),
    }


def ruled(asked: Json) -> Json:
    """The ruler of a prompt timeline. Raises as `drawn` does."""
    graph, node, palette = asked["prompt"], asked["node"], palette_of(asked)
    try:
        text = Values(graph, node)("text", "")
    except Later:
        return {"later": True}
    ruler = Ruler.of(text, foreseen_behind(graph, node), width_of(asked), palette)
    return {**asdict(ruler), "colours": colours_of(palette)}


def foreseen_behind(graph: Graph, node: str) -> Foreseen | None:
    """The video that a prompt timeline is for: its own plan's, or that of the sampler behind it. None if it cannot be known."""
    sampler = sampler_told_by(graph, node)
    links = (graph[name]["inputs"].get("plan") for name in (node, sampler) if name is not None)
    plan = next((name for name in (source(graph, link) for link in links) if kind(graph, name) == PLAN), None)
    if plan is None:
        return None
    try:
        foreseen = Foreseen.of(graph, plan)
    except ValueError:  # which the plan's own drawing says
        return None
    try:
        return foreseen.told(told_to(graph, sampler_behind(graph, plan)))
    except ValueError:  # which the ruler of that text says
        return foreseen


def width_of(asked: Json) -> int:
    return min(max(int(asked["width"]), WIDTHS[0]), WIDTHS[1])


def palette_of(asked: Json) -> Palette:
    return LIGHT if asked.get("light") else DARK


def colours_of(palette: Palette) -> dict[str, str]:
    named = {"ink": palette.ink, "faint": palette.faint, "paper": palette.paper, "outline": palette.outline}
    return {name: as_css(colour) for name, colour in named.items()}


def as_url(sketch: Sketch) -> str:
    file = BytesIO()
    sketch.image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
