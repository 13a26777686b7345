"""A saved video, dropped on ComfyUI's own front end."""

import base64
import json
import time
from pathlib import Path

from scripts.environment import ROOT
from scripts.workflow import with_widgets

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"

RUN = "app.queuePrompt(0)"
PROMPT = "async () => (await app.graphToPrompt()).output"
CLEAR = "app.graph.clear()"
DROP = """video => {
  const bytes = Uint8Array.from(atob(video), letter => letter.charCodeAt(0))
  const files = new DataTransfer()
  files.items.add(new File([bytes], 'video.mp4', { type: 'video/mp4' }))
  app.canvas.canvas.dispatchEvent(new DragEvent('drop', { dataTransfer: files, bubbles: true, cancelable: true }))
}"""


def test_dropping_a_saved_video_brings_its_graph_back(page, server, load_workflow):
    workflow = json.loads(WORKFLOW.read_text(encoding="utf-8"))
    values = {"seconds": 1.2, "steps": 1, "seed": 103, "filename_prefix": "dropped"}
    prompt = load_workflow(with_widgets(workflow, server.object_info(), values))
    page.evaluate(RUN)
    video = appeared(server.base / "output" / "dropped_00001_.mp4")
    page.evaluate(CLEAR)
    assert page.evaluate(PROMPT) == {}

    page.evaluate(DROP, base64.b64encode(video.read_bytes()).decode())
    page.wait_for_function(f"app.graph.nodes.length === {len(workflow['nodes'])}")

    assert page.evaluate(PROMPT) == prompt


def appeared(path: Path) -> Path:
    deadline = time.monotonic() + 120
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.1)
    return path
