"""ComfyUI's own front end in a real Chromium; `server` is in tests/conftest.py."""

from collections.abc import Callable, Iterator
from typing import Any

import pytest
from playwright.sync_api import Browser, ConsoleMessage, Page, sync_playwright

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
TIMEOUT = 120_000  # milliseconds: two cores are slow at drawing
NOISE = (
    "404",
    "graph accessed before initialization",  # the front end's own
    "Content Security Policy",  # it may not ask the hub for the size of a linked model
)
READY = """() => window.LiteGraph?.registered_node_types?.FramePack_Sampler
  && window.app?.extensionManager?.workflow?.activeWorkflow"""

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
    """The front end, ready and without the tutorial. Errors on its console fail the test when it ends."""
    server.set_setting("Comfy.TutorialCompleted", True)
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.extend(_error(message)))
    page.on("pageerror", lambda error: errors.append(str(error)))
    page.goto(server.url)
    page.wait_for_function(READY)
    yield page
    context.close()
    assert not errors, "\n".join(errors)


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
        page.goto(url)
        page.wait_for_function(READY)

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


def _error(message: ConsoleMessage) -> list[str]:
    noise = any(part in message.text for part in NOISE)
    return [] if message.type != "error" or noise else [message.text]
