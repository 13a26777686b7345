"""The ruler under the text of a Prompt Timeline, in ComfyUI's own front end: its borders are moved, and the text follows."""

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from scripts.support.environment import ROOT
from scripts.support.server import Json

pytestmark = pytest.mark.slow

DEMO = (ROOT / "example_workflows" / "FramePack demo.json").read_text(encoding="utf-8")
TEXT = "🎩 a cat [0.50s-2s: it [really] jumps] [2.0s-4s ~1s: it lands] [-0.5s: it sleeps]"

TIMELINES = "app.graph.nodes.filter(node => node.type === 'FramePack_PromptTimeline')"
TIMELINE = f"{TIMELINES}[0]"
WIDGET = f"{TIMELINE}.widgets.find(widget => widget.name === 'text')"
RULER = f"{TIMELINE}.widgets.find(widget => widget.name === 'framepack_prompts').element"
BORDERS = f"[...{RULER}.querySelectorAll('[role=slider]')]"
BARS = f"[...{RULER}.querySelector('[data-part=bars]').children].map(bar => bar.textContent)"
SECTIONS = f"[...{RULER}.querySelector('[data-part=sections]').children].map(bar => bar.title)"
UNDO_STEPS = "app.extensionManager.workflow.activeWorkflow.changeTracker.undoQueue.length"
STEADY = """number => new Promise(resolve => {
  const place = () => { const { left, top, width, height } = BORDERS[number].getBoundingClientRect()
                        return [left + width / 2, top + height / 2] }
  const wait = (before, frames) => requestAnimationFrame(() => {
    const now = place()
    if (String(now) !== String(before)) wait(now, 3)
    else if (frames) wait(now, frames - 1)
    else resolve(now)
  })
  wait(place(), 3)
})""".replace("BORDERS", BORDERS)
CAPTURE = "app.extensionManager.workflow.activeWorkflow.changeTracker.captureCanvasState()"
SHOW = f"""() => {{
  const node = {TIMELINE}
  app.canvas.ds.scale = 1
  app.canvas.ds.offset = [200 - node.pos[0], 200 - node.pos[1]]
  app.canvas.setDirty(true, true)
}}"""


def timeline_workflow(text: str) -> Json:
    """The demo's, with a Prompt Timeline as it was saved before there was a ruler in the place of its prompt."""
    workflow = json.loads(DEMO)
    (node,) = [node for node in workflow["nodes"] if node["type"] == "CLIPTextEncode" and node["title"] == "Prompt"]
    node.update(type="FramePack_PromptTimeline", widgets_values=[text], size=[500, 200])
    return workflow


class Timeline:
    """The node as a user sees it."""

    def __init__(self, page):
        self.page = page

    def shows(self, text: str, borders: int) -> None:
        """Wait until the ruler has been drawn for a text: before the server's first answer it has no sections."""
        drawn = f"{SECTIONS}.length > 0 && {BORDERS}.length === {borders} && {RULER}.ariaBusy === 'false'"
        self.page.wait_for_function(f"text => {WIDGET}.value === text && {drawn}", arg=text)

    def text(self) -> str:
        return self.page.evaluate(f"{WIDGET}.value")

    def drag(self, border: int, seconds: float, modifier: str = "") -> None:
        """Move a border by so many seconds of the ruler's 4.83, and wait until it is drawn anew. A note below the ruler moves
        it up, once the canvas is drawn again."""
        box = self.page.evaluate(STEADY, border)
        unit = self.page.evaluate(f"{RULER}.getBoundingClientRect().width") * 30 / 145
        self.page.mouse.move(*box)
        self.page.mouse.down()
        if modifier:
            self.page.keyboard.down(modifier)
        self.page.mouse.move(box[0] + unit * seconds, box[1] + 3, steps=4)
        with self.drawn_anew():
            self.page.mouse.up()
        if modifier:
            self.page.keyboard.up(modifier)

    def press(self, border: int, *keys: str) -> None:
        self.page.evaluate(f"{BORDERS}[{border}].focus()")
        with self.drawn_anew():
            for key in keys:
                self.page.keyboard.press(key)

    @contextmanager
    def drawn_anew(self) -> Iterator[None]:
        with self.page.expect_response("**/framepack/prompts") as response:
            yield
        response.value.finished()


@pytest.fixture
def timeline(page, load_workflow) -> Callable[..., Timeline]:
    """`timeline(text, borders)` opens a workflow with it, and waits until the ruler has so many borders."""

    def load(text: str = TEXT, borders: int = 4) -> Timeline:
        load_workflow(timeline_workflow(text))
        page.evaluate(SHOW)
        shown = Timeline(page)
        shown.shows(text, borders)
        return shown

    return load


@pytest.mark.parametrize("nodes_as_elements", [False, pytest.param(True, marks=pytest.mark.slow)], indirect=True)
def test_dragging_a_border_rewrites_its_times_and_nothing_else_in_one_step_for_undo(nodes_as_elements, page, timeline):
    """Both numbers of the border are changed; the hat counts as two characters in a browser, and as one in Python."""
    shown = timeline()
    assert page.evaluate(BARS) == ["🎩 a cat", "it [really] jumps", "it lands", "🎩 a cat", "it sleeps"]
    before = page.evaluate(UNDO_STEPS)

    shown.drag(1, 0.8)
    moved = TEXT.replace("-2s", "-2.8s").replace("2.0s", "2.8s")
    shown.shows(moved, 4)

    assert page.evaluate(UNDO_STEPS) == before + 1
    page.keyboard.press("Control+z")
    shown.shows(TEXT, 4)


def test_borders_snap_to_sections_and_stop_at_their_neighbours(page, timeline):
    shown = timeline()

    shown.drag(1, 0.415)
    shown.shows(TEXT.replace("-2s", "-2.43s").replace("2.0s", "2.43s"), 4)
    shown.drag(1, 9)
    shown.shows(TEXT.replace("-2s", "-3.9s").replace("2.0s", "3.9s"), 4)
    shown.drag(1, -0.4, "Shift")
    shown.shows(TEXT.replace("-2s", "-3.63s").replace("2.0s", "3.63s"), 4)


def test_the_keyboard_moves_borders_too(page, timeline):
    shown = timeline()
    before = page.evaluate(UNDO_STEPS)

    shown.press(3, "ArrowRight", "ArrowRight")
    shown.shows(TEXT.replace("-0.5s", "-0.3s"), 4)
    assert page.evaluate(UNDO_STEPS) == before + 2
    shown.press(3, "Home")
    shown.shows(TEXT.replace("-0.5s", "-0.73s"), 4)
    shown.press(0, "Shift+ArrowRight")
    shown.shows(TEXT.replace("-0.5s", "-0.73s").replace("0.50s", "1.23s"), 4)


@pytest.mark.parametrize("nodes_as_elements", [False, pytest.param(True, marks=pytest.mark.slow)], indirect=True)
def test_the_ruler_follows_what_is_typed(nodes_as_elements, page, timeline):
    timeline("a cat", borders=0)
    assert len(page.evaluate(SECTIONS)) == 4

    box = page.locator("textarea").filter(visible=True).and_(page.get_by_placeholder("text").or_(page.get_by_label("text")))
    box.last.click()
    page.keyboard.press("Control+End")
    page.keyboard.type(" [2s: <img src=x>")
    page.wait_for_function(f"{RULER}.innerText.includes('is not closed; write a ] after its words')")
    page.keyboard.type("]")

    page.wait_for_function(f"{BORDERS}.length === 1")
    assert page.evaluate(BARS) == ["a cat", "<img src=x>"] and not page.evaluate(f"{RULER}.querySelector('img')")
    assert page.evaluate(SECTIONS)[2] == "section 3 of 4: 3.63 to 4.83 s\n<img src=x>", "the first of the second part"


def test_the_ruler_is_no_part_of_prompts_and_saved_workflows(page, timeline, load_workflow):
    shown = timeline()

    shown.drag(1, 0.8)
    moved = TEXT.replace("-2s", "-2.8s").replace("2.0s", "2.8s")
    saved = page.evaluate("app.graph.serialize()")
    (node,) = [node for node in saved["nodes"] if node["type"] == "FramePack_PromptTimeline"]
    assert node["widgets_values"] == [moved]

    prompt = load_workflow(saved)
    shown.shows(moved, 4)
    (inputs,) = [node["inputs"] for node in prompt.values() if node["class_type"] == "FramePack_PromptTimeline"]
    assert inputs.keys() == {"clip", "text"} and inputs["text"] == moved


def test_a_copy_has_a_ruler_of_its_own(page, timeline):
    shown = timeline()

    page.evaluate(
        f"() => {{ app.canvas.selectNode({TIMELINE}); app.canvas.copyToClipboard(); app.canvas.pasteFromClipboard() }}"
    )
    copy = TIMELINES + "[1]"
    page.wait_for_function(f"{copy}?.widgets.at(-1).element.querySelectorAll('[role=slider]').length === 4")
    shown.press(1, "ArrowRight")

    assert page.evaluate(f"{TIMELINES}.map(node => node.widgets[0].value)") == [
        TEXT.replace("-2s", "-2.1s").replace("2.0s", "2.1s"),
        TEXT,
    ]


def test_a_timeline_in_a_subgraph_has_the_sections_of_the_plan_outside_and_is_drawn_there(page, timeline):
    timeline()

    page.evaluate(f"() => {{ app.graph.convertToSubgraph(new Set([{TIMELINE}])); {CAPTURE} }}")

    inner = "app.graph.nodes.find(node => node.subgraph).subgraph.nodes[0].widgets.at(-1).element"
    page.wait_for_function(f"{inner}.querySelector('[data-part=sections]').children.length === 4")
    plan = "app.graph.nodes.find(node => node.type === 'FramePack_Plan').widgets.at(-1).element"
    page.wait_for_function(f"{plan}.querySelector('[data-part=bars]').children.length === 5")


def test_a_text_from_another_node_can_be_seen_but_not_moved(page, timeline):
    timeline()

    page.evaluate(f"""() => {{
      const words = LiteGraph.createNode('PrimitiveStringMultiline')
      app.graph.add(words)
      words.widgets[0].value = 'a cat [1s: it runs]'
      words.connect(0, {TIMELINE}, 'text')
      {CAPTURE}
    }}""")

    page.wait_for_function(f"{BARS}.join() === 'a cat,it runs' && {BORDERS}.length === 0")
