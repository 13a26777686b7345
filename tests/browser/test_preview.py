"""The preview that grows in the sampler node, in ComfyUI's own front end."""

import json

import pytest
from support.canvas import nodes_of, overlapping

from scripts.support.environment import ROOT
from scripts.support.workflow import with_widgets

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"
FPS = 30

RUN = "app.queuePrompt(0)"
SAVED_VALUES = "app.graph.serialize().nodes.map(node => node.widgets_values?.length)"  # each run draws another seed
PLAYER = "app.graph.nodes.find(node => node.type === 'FramePack_Sampler').widgets.find(w => w.name === 'framepack_clip')"

pytestmark = [pytest.mark.slow, pytest.mark.usefixtures("unlimited_previews")]


def test_the_finished_sections_play_in_the_node(nodes_as_elements, page, server, load_workflow):
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    unseen = 100 + nodes_as_elements  # because ComfyUI would not make the same video again
    load_workflow(with_widgets(workflow, server.object_info(), {"seconds": 2.4, "steps": 2, "seed": unseen}))

    page.evaluate(RUN)
    page.wait_for_function(f"{PLAYER}?.element.duration > {1.5 / FPS}")  # more than the start image
    page.wait_for_function(f"(({{ element }}) => !element.paused && element.currentTime > 0)({PLAYER})")

    assert page.evaluate(f"(({{ element }}) => element.isConnected && element.offsetHeight)({PLAYER})") >= 100
    assert page.evaluate(f"(({{ element }}) => element.muted && element.loop)({PLAYER})")
    assert nodes_as_elements or overlapping(nodes_of(page)) == [], "the previews have room in the demo"


def test_the_player_is_no_part_of_prompts_and_saved_workflows(page, server, load_workflow):
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    load_workflow(with_widgets(workflow, server.object_info(), {"seconds": 1.2, "steps": 1, "seed": 102}))
    before = page.evaluate(SAVED_VALUES)

    page.evaluate(RUN)
    page.wait_for_function(f"{PLAYER}?.element.duration > 0")

    assert page.evaluate(SAVED_VALUES) == before
    assert "framepack_clip" not in page.evaluate("async () => JSON.stringify((await app.graphToPrompt()).output)")


def test_the_text_in_the_node_breaks_between_words(page, server, load_workflow):
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    load_workflow(with_widgets(workflow, server.object_info(), {"seconds": 1.2, "steps": 2, "seed": 103}))

    page.evaluate("app.queuePrompt(0)")
    page.wait_for_function("document.body.innerText.includes('37 of 37 frames done in')")

    page.wait_for_function("""() => [...document.querySelectorAll('.break-all')].some(element =>
        element.innerText.includes('frames done') && getComputedStyle(element).wordBreak === 'normal')""")
