"""The drawing of a plan in its own node, in ComfyUI's own front end."""

import json

import pytest

from scripts.support.environment import ROOT
from scripts.support.workflow import with_widgets

pytestmark = pytest.mark.slow

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
    assert len(rows(4)) == 4
    assert page.evaluate(f"{DRAWING}.getBoundingClientRect().height") > 30

    page.evaluate(SET, ["seconds", 2.4])
    assert rows(2)[0].startswith("section 1 of 2: 1.23 to 2.43 s, latent frames 10..18\nsees latent frames 0 at k1\n")
    page.evaluate(SET, ["order", "forward"])
    page.wait_for_function(f"{ROWS}[0].title.startsWith('section 1 of 2: 0.03 to 1.23 s')")
    page.evaluate(SET, ["seconds", 240.0])
    assert len(rows(200)) == 200


def test_a_plan_that_cannot_be_says_why_and_recovers(page, rows):
    rows(4)

    page.evaluate(SET, ["layout", "f1"])
    page.wait_for_function(f"{DRAWING}.innerText.includes('does not fit the order inverted')")
    page.evaluate(SET, ["layout", "auto"])
    page.wait_for_function(f"!{DRAWING}.innerText && {DRAWING}.firstChild.style.visibility === 'visible'")


def test_a_server_that_does_not_answer_is_told_of_and_asked_again(page, rows):
    rows(4)

    page.route("**/framepack/plan", lambda route: route.fulfill(status=200, body="not JSON"))
    page.evaluate(SET, ["seconds", 2.4])
    page.wait_for_function(f"{DRAWING}.innerText.includes('The plan cannot be drawn')")
    page.unroute("**/framepack/plan")
    page.evaluate(SET, ["seconds", 2.4])

    assert len(rows(2)) == 2 and not page.evaluate(f"{DRAWING}.innerText")


def test_what_is_connected_to_the_sampler_is_drawn(page, rows):
    """Without the start image, which is disconnected as a user would, the first section sees nothing."""
    assert "sees latent frames 0 at k1" in rows(4)[0]

    page.evaluate("""() => {
      const sampler = app.graph.nodes.find(node => node.type === 'FramePack_Sampler')
      sampler.disconnectInput(sampler.inputs.findIndex(({ name }) => name === 'start_latent'))
      app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
    }""")

    page.wait_for_function(f"{ROWS}[0]?.title.includes('sees nothing yet')")


def test_a_bypassed_node_gives_nothing_but_what_passes_it(page, rows):
    """The start image does not pass the node that would encode it."""
    assert "sees latent frames 0 at k1" in rows(4)[0]

    page.evaluate("""() => {
      app.graph.nodes.find(node => node.type === 'FramePack_EncodeImage').mode = 4
      app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
    }""")

    page.wait_for_function(f"{ROWS}[0]?.title.includes('sees nothing yet')")


def test_timed_prompts_are_bars_above_the_drawing(page, rows):
    rows(4)

    page.evaluate("""() => {
      const timeline = LiteGraph.createNode('FramePack_PromptTimeline')
      app.graph.add(timeline)
      timeline.widgets.find(({ name }) => name === 'text').value = 'stands <b> [1.2s-3.6s: moves left]'
      timeline.connect(0, app.graph.nodes.find(node => node.type === 'FramePack_Sampler'), 'positive')
      app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
    }""")

    bars = f"[...{DRAWING}.querySelector('[data-part=bars]').children].map(bar => bar.textContent)"
    page.wait_for_function(f"{bars}.join() === 'stands <b>,moves left,stands <b>'")
    assert rows(4)[1].endswith("prompt: moves left")


def test_the_drawing_fills_in_while_the_sampler_runs(page, server, load_workflow):
    changed = with_widgets(WORKFLOW, server.object_info(), {"seconds": 2.4, "steps": 1, "seed": 104})
    load_workflow(changed)
    page.wait_for_function(f"{ROWS}.length === 2")

    page.evaluate("app.queuePrompt(0)")

    page.wait_for_function(f"{ROWS}.length === 2 && {ROWS}.every(row => row.dataset.state === 'finished')")


def test_the_drawing_is_no_part_of_prompts_and_saved_workflows(page, rows, load_workflow):
    rows(4)

    (saved,) = [node for node in page.evaluate("app.graph.serialize()")["nodes"] if node["type"] == "FramePack_Plan"]

    (before,) = [node for node in WORKFLOW["nodes"] if node["type"] == "FramePack_Plan"]
    assert saved["widgets_values"] == before["widgets_values"]
    assert "framepack_plan" not in page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")


def test_a_plan_in_a_subgraph_is_drawn_too_with_what_comes_from_outside(page, rows):
    rows(4)

    page.evaluate("""() => {
      const wanted = ['FramePack_Plan', 'FramePack_Sampler']
      app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(node => wanted.includes(node.type))))
      app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()
    }""")

    inner = "app.graph.nodes.find(node => node.subgraph).subgraph.nodes.find(node => node.type === 'FramePack_Plan')"
    page.wait_for_function(f"""() => {{
      const drawing = {inner}?.widgets?.find(widget => widget.name === 'framepack_plan')?.element
      const rows = drawing?.querySelectorAll('[data-section]') ?? []
      return rows.length === 4 && rows[0].title.includes('sees latent frames 0 at k1')
    }}""")
