"""ComfyUI's own front end in a real Chromium; `server` is in tests/conftest.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, sync_playwright
from support.front_end import go_to, watched_page

from scripts.support.chromium import find_chromium
from scripts.support.server import Server

FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--use-angle=swiftshader",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
]
LOAD_WORKFLOW = """async workflow => {
  const app = window.app
  const types = workflow.nodes.map(node => node.type).filter(type => !type.endsWith('Note'))
  const missing = types.filter(type => !(type in LiteGraph.registered_node_types))
  await app.loadGraphData(workflow)
  const broken = app.graph.nodes.filter(node => node.has_errors).map(node => node.type)
  return { missing, broken, prompt: (await app.graphToPrompt()).output }
}"""


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=find_chromium(), args=FLAGS)
        yield browser
        browser.close()


@pytest.fixture
def page(browser: Browser, server: Server) -> Iterator[Page]:
    """The front end, ready."""
    with watched_page(browser, server) as page:
        yield go_to(page, server.url)


@pytest.fixture(params=[False, True], ids=["canvas", "elements"])
def nodes_as_elements(request, server: Server) -> Iterator[bool]:
    """The front end draws nodes on a canvas or, if the user chooses so, as elements of the page."""
    server.set_setting("Comfy.VueNodes.Enabled", request.param)
    yield request.param
    server.set_setting("Comfy.VueNodes.Enabled", False)


@pytest.fixture
def open_address(page: Page) -> Callable[[str], None]:
    """`open_address(url)` goes to a page of the front end and waits until it is ready."""

    def go(url: str) -> None:
        go_to(page, url)

    return go


@pytest.fixture
def load_workflow(page: Page) -> Callable[[dict[str, Any]], dict[str, Any]]:
    """`load_workflow(workflow)` opens it in the front end and returns the API prompt that the front end makes of it."""

    def load(workflow: dict[str, Any]) -> dict[str, Any]:
        result = page.evaluate(LOAD_WORKFLOW, workflow)
        assert not result["missing"], f"nodes unknown to the front end: {result['missing']}"
        assert not result["broken"], f"nodes with errors: {result['broken']}"
        return result["prompt"]

    return load
