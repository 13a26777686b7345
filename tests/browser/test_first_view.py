"""What one sees of an example workflow when it opens: all of it, at a zoom at which ComfyUI draws text that can be read."""

from __future__ import annotations

import io
import json
from collections.abc import Callable, Iterator

import pytest
from PIL import Image
from playwright.sync_api import Page
from support.canvas import Item, demo_at_once, groups_of, nodes_of, overlapping
from support.front_end import watched_page

from scripts.support.environment import ROOT
from scripts.support.server import Json

pytestmark = pytest.mark.slow

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
LARGE = [path for path in WORKFLOWS if path.stem in ("FramePack demo", "FramePack timed prompts")]
SIZE, LARGER = (1366, 768), [(1600, 1000), (1920, 1080)]
WIDGET_TEXT = 12  # units: the size in which LiteGraph writes names and values of widgets
LEAST_TEXT = 8.5  # pixels on the screen
VIEW = """() => ({
  scale: app.canvas.ds.scale,
  offset: Array.from(app.canvas.ds.offset),
  left: document.querySelector('.side-tool-bar-container').getBoundingClientRect().right,
  lowQuality: app.canvas.low_quality,
})"""
SETTLED = "async () => { for (let i = 0; i < 20; i++) await new Promise(requestAnimationFrame) }"


@pytest.fixture(params=demo_at_once(WORKFLOWS))
def workflow(request) -> Json:
    return json.loads(request.param.read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def page(browser, server) -> Iterator[Page]:
    """One for all tests here, which keeps the front end's scripts. Errors on its console fail the last of them."""
    with watched_page(browser, server) as page:
        page.add_init_script("localStorage.clear(); sessionStorage.clear()")  # which workflows were open
        yield page


@pytest.fixture
def open_template(page, server, open_address, workflow) -> Callable[[tuple[int, int]], None]:
    """`open_template(size)` opens the workflow in a window of this size, and waits until it is drawn."""

    def go(size: tuple[int, int]) -> None:
        page.set_viewport_size({"width": size[0], "height": size[1]})
        open_address(server.offer("first_view", workflow))
        page.wait_for_function(f"app.graph.nodes.length === {len(workflow['nodes'])}")
        page.evaluate(SETTLED)
        server.withdraw("first_view")

    return go


def test_a_template_opens_whole_and_can_be_read(page, open_template):
    open_template(SIZE)

    require_in_view(page, SIZE)


@pytest.mark.parametrize("size", LARGER, ids=lambda size: "{}x{}".format(*size))
@pytest.mark.parametrize("workflow", demo_at_once(LARGE), indirect=True)
def test_in_larger_windows_it_does_too(page, open_template, size):
    """The smallest template and the fullest."""
    open_template(size)

    require_in_view(page, size)


def test_nodes_have_room_in_their_groups(nodes_as_elements, page, open_template):
    open_template(SIZE)
    nodes, groups = nodes_of(page), groups_of(page)

    assert overlapping(nodes) == [] and overlapping(groups) == []
    assert [node.name for node in nodes if node.height < node.least] == [], "too small for their widgets"
    for node in nodes:
        touched = [group for group in groups if group.overlaps(node)]
        assert len(touched) == (not node.note) and all(group.holds(node) for group in touched), node.name


def require_in_view(page: Page, size: tuple[int, int]) -> None:
    """All nodes are on the screen, and their text is drawn in a size that can be read."""
    nodes, view = nodes_of(page), page.evaluate(VIEW)
    picture = Image.open(io.BytesIO(page.screenshot())).convert("L")

    assert not view["lowQuality"]
    assert view["scale"] * WIDGET_TEXT >= LEAST_TEXT
    for node in nodes:
        left, top, right, bottom = on_screen(node, view)
        assert view["left"] <= left and right <= size[0] and top >= 0 and bottom <= size[1], node.name
        dark, bright = picture.crop(title_text(left, top, right, view["scale"])).getextrema()
        assert bright - dark > 60, f"the title of {node.name} is not drawn"


def title_text(left: float, top: float, right: float, scale: float) -> tuple[int, int, int, int]:
    """The box of a node's title on the page, without the dot in front of it."""
    return round(left + 26 * scale), round(top + 2), round(right - 8), round(top + 30 * scale - 2)


def on_screen(item: Item, view: dict) -> tuple[float, float, float, float]:
    """The box in pixels of the page."""
    scale, (x, y) = view["scale"], view["offset"]
    return tuple(scale * (place + shift) for place, shift in ((item.left, x), (item.top, y), (item.right, x), (item.bottom, y)))
