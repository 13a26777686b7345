"""A route that draws the plan which a graph would have if it ran now, for the front end (`web/plan.js`).

POST /framepack/plan  {"prompt": {id: {"class_type": ..., "inputs": ...}}, "node": id, "width": 600, "light": false}
-> {"image": "data:image/png;base64,...", "height": 200, "length": "145 frames, 4.83 s",
    "rows": [{"section": 0, "top": 28, "bottom": 62, "text": "section 1 of 4: ..."}]}
-> {"error": "window is 0; choose 1 or more"}
"""

from __future__ import annotations

import asyncio
import base64
from dataclasses import asdict
from io import BytesIO
from typing import Any

from ..drawing.palette import DARK, LIGHT
from ..drawing.sketch import Sketch, sketch_plan
from ..foreseen import Foreseen

ROUTE = "/framepack/plan"
WIDTHS = 64, 2000  # pixels


def add_route() -> None:
    """Add it to a running ComfyUI; without one there is nothing to do."""
    from aiohttp import web
    from server import PromptServer

    server = getattr(PromptServer, "instance", None)
    if server is None:
        return

    @server.routes.post(ROUTE)
    async def draw(request: web.Request) -> web.Response:
        try:
            asked = await request.json()
            return web.json_response(await asyncio.to_thread(drawn, asked))
        except (AttributeError, KeyError, TypeError) as error:  # not from our script
            return web.json_response({"error": f"not a request for a plan: {error!r}"}, status=400)
        except ValueError as error:
            return web.json_response({"error": str(error)})


def drawn(asked: dict[str, Any]) -> dict[str, Any]:
    """The answer. Raises ValueError for a plan that cannot be, KeyError and others for what is no request."""
    foreseen = Foreseen.of(asked["prompt"], asked["node"])
    width = min(max(int(asked["width"]), WIDTHS[0]), WIDTHS[1])
    palette = LIGHT if asked.get("light") else DARK
    sketch = sketch_plan(foreseen.plan, width, known=foreseen.known, guides=foreseen.guides, palette=palette)
    return {
        "image": as_url(sketch),
        "height": sketch.image.height,
        "length": sketch.length,
        "rows": [asdict(row) for row in sketch.rows],
    }


def as_url(sketch: Sketch) -> str:
    file = BytesIO()
    sketch.image.save(file, "PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
