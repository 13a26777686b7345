"""The drawing of a plan in its own node, in ComfyUI's own front end."""

import json

import pytest

from scripts.support.environment import ROOT

WORKFLOW = json.loads((ROOT / "example_workflows" / "FramePack demo.json").read_text(encoding="utf-8"))

PLAN = "app.graph.nodes.find(node => node.type === 'FramePack_Plan')"
DRAWING = f"{PLAN}.widgets.find(widget => widget.name === 'framepack_plan').element"
ROWS = f"[...{DRAWING}.querySelectorAll('[data-section]')]"
SET = f"""([name, value]) => {{
  const widget = {PLAN}.widgets.find(widget => widget.name === name)
  widget.value = value
  {PLAN}.onWidgetChanged?.(name, value, undefined, widget)
}}"""


@pytest.fixture
def rows(page, load_workflow):
    """`rows(count)` waits until the drawing has so many sections, and returns what each is about."""
    load_workflow(WORKFLOW)

    def wait(count: int) -> list[str]:
        page.wait_for_function(f"{ROWS}.length === {count}")
        return page.evaluate(f"{ROWS}.map(row => row.title)")

    return wait


def test_the_drawing_follows_the_node_s_values(nodes_as_elements, page, rows):
    page.set_viewport_size({"width": 1366, "height": 768})
    assert len(rows(4)) == 4
    page.wait_for_timeout(1500)
    print(page.evaluate(f"[{PLAN}.size, {DRAWING}.getBoundingClientRect().toJSON(), {DRAWING}.isConnected]"))
    page.screenshot(path=f"/tmp/plan_node_{nodes_as_elements}.png")

    page.evaluate(SET, ["seconds", 2.4])
    assert rows(2)[0].startswith("section 1 of 2: 1.23 to 2.43 s, latent frames 10..18\nsees latent frames 0 at k1\n")
    page.evaluate(SET, ["order", "forward"])
    page.wait_for_function(f"{ROWS}[0].title.startsWith('section 1 of 2: 0.03 to 1.23 s')")
