"""A saved video, dropped on ComfyUI's own front end."""

import base64
import json
import time
from pathlib import Path

import pytest
import torch

from framepack_core.media.video import Encoding, Footage, write_video
from scripts.support.environment import ROOT
from scripts.support.workflow import with_widgets

pytestmark = pytest.mark.slow

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"

RUN = "app.queuePrompt(0)"
PROMPT = "async () => (await app.graphToPrompt()).output"
ADD_CORE_S = """() => {
  const core = LiteGraph.createNode('SaveVideo')
  app.graph.add(core)
  app.graph.nodes.find(node => node.type === 'FramePack_SaveVideo').connect(0, core, 0)
}"""
NAME = """name => app.graph.nodes.filter(node => node.type.endsWith('SaveVideo'))
  .forEach(node => { node.widgets.find(widget => widget.name === 'filename_prefix').value = name })"""
NAMES = """async () => Object.values((await app.graphToPrompt()).output)
  .filter(node => node.class_type.endsWith('SaveVideo')).map(node => node.inputs.filename_prefix)"""
INTO_A_SUBGRAPH = """() => {
  app.graph.convertToSubgraph(new Set(app.graph.nodes.filter(node => node.type.endsWith('SaveVideo'))))
}"""
PROMOTE = """name => {
  const outer = app.graph.nodes.find(node => node.isSubgraphNode?.()), [inner] = outer.subgraph.nodes
  outer.subgraph.addInput('name', 'STRING').connect(inner.inputs.find(input => input.name === 'filename_prefix'), inner)
  outer.widgets.find(widget => widget.name === 'name').value = name
}"""
CLEAR = "app.graph.clear()"
DROP = """([video, name]) => {
  const bytes = Uint8Array.from(atob(video), letter => letter.charCodeAt(0))
  const files = new DataTransfer()
  files.items.add(new File([bytes], name, { type: name.endsWith('webm') ? 'video/webm' : 'video/mp4' }))
  app.canvas.canvas.dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }))
}"""
COLOUR_IN_THE_MIDDLE = """async video => {
  const player = Object.assign(document.createElement('video'), { muted: true, loop: true })
  document.body.append(player)
  player.src = 'data:video/mp4;base64,' + video
  const shown = new Promise(shown => player.requestVideoFrameCallback(shown))
  await player.play()
  await shown
  const canvas = Object.assign(document.createElement('canvas'), { width: player.videoWidth, height: player.videoHeight })
  const context = canvas.getContext('2d')
  context.drawImage(player, 0, 0)
  return Array.from(context.getImageData(canvas.width / 2, canvas.height / 2, 1, 1).data).slice(0, 3)
}"""


@pytest.mark.parametrize("container", ["mp4", "webm", "mov"])
def test_dropping_a_saved_video_brings_its_graph_back(page, server, load_workflow, container):
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    values = {"seconds": 1.2, "steps": 1, "seed": 103, "filename_prefix": f"dropped_{container}", "container": container}
    prompt = load_workflow(with_widgets(workflow, server.object_info(), values))
    page.evaluate(RUN)
    video = appeared(server.base / "output" / f"dropped_{container}_00001_.{container}")
    page.evaluate(CLEAR)
    assert page.evaluate(PROMPT) == {}

    page.evaluate(DROP, [base64.b64encode(video.read_bytes()).decode(), video.name])
    page.wait_for_function(f"app.graph.nodes.length === {len(workflow['nodes'])}")

    assert page.evaluate(PROMPT) == prompt


def test_a_date_and_a_widget_in_the_name_are_those_of_core_s_save_video(page, load_workflow):
    load_workflow(json.loads(WORKFLOW.read_text(encoding="utf-8")))
    page.evaluate(ADD_CORE_S)

    page.evaluate(NAME, "%date:yyyy-MM-dd%/%FramePack_Sampler.seed% %Prompt.text%")
    today = page.evaluate("new Date().toLocaleDateString('sv')")

    assert page.evaluate(NAMES) == [f"{today}/1 a pink circle bounces"] * 2
    page.evaluate(INTO_A_SUBGRAPH)
    assert page.evaluate(NAMES) == [f"{today}/1 a pink circle bounces"] * 2


def test_a_name_that_is_a_widget_of_a_subgraph_is_filled_in(page, server, load_workflow):
    """The front end leaves it as it is, in core's nodes too."""
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    load_workflow(with_widgets(workflow, server.object_info(), {"seconds": 1.2, "steps": 1, "seed": 104}))
    page.evaluate(INTO_A_SUBGRAPH)

    page.evaluate(PROMOTE, "promoted/%date:yyyy%_%FramePack_Sampler.seed%")
    page.evaluate(RUN)

    year = page.evaluate("new Date().getFullYear()")
    assert appeared(server.base / "output" / "promoted" / f"{year}_104_00001_.mp4").exists()


@pytest.mark.parametrize("height", [64, 832])
@pytest.mark.parametrize("colour", [(30, 200, 60), (255, 120, 180)])
def test_a_browser_shows_the_colours_of_pictures_of_any_height(browser, tmp_path, height, colour):
    """Without being told, it uses another matrix from 720 lines on, and colours are off by 25 levels."""
    file = tmp_path / "video.mp4"
    write_video(file, Footage.of(torch.tensor(colour).div(255).expand(8, height, 64, 3)), Encoding(crf=4))

    page = browser.new_page()
    found = page.evaluate(COLOUR_IN_THE_MIDDLE, base64.b64encode(file.read_bytes()).decode())
    page.close()

    assert found == pytest.approx(colour, abs=3)


def appeared(path: Path) -> Path:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return path
