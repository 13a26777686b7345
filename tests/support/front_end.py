"""Pages of ComfyUI's front end."""

from collections.abc import Iterator
from contextlib import contextmanager

from playwright.sync_api import Browser, ConsoleMessage, Page

from scripts.support.server import Server

TIMEOUT = 120_000  # milliseconds: two cores are slow at drawing
NOISE = (
    "404",
    "graph accessed before initialization",  # the front end's own
    "Content Security Policy",  # it may not ask the hub for the size of a linked model
)
READY = """() => window.LiteGraph?.registered_node_types?.FramePack_Sampler
  && window.app?.extensionManager?.workflow?.activeWorkflow"""


@contextmanager
def watched_page(browser: Browser, server: Server) -> Iterator[Page]:
    """A page of its own, without the tutorial. Errors on its console fail what is tested with it."""
    server.set_setting("Comfy.TutorialCompleted", True)
    context = browser.new_context(viewport={"width": 1600, "height": 1000})
    context.set_default_timeout(TIMEOUT)
    page = context.new_page()
    errors: list[str] = []
    page.on("console", lambda message: errors.extend(_error(message)))
    page.on("pageerror", lambda error: errors.append(str(error)))
    yield page
    context.close()
    assert not errors, "\n".join(errors)


def go_to(page: Page, url: str) -> Page:
    """Go to a page of the front end and wait until it is ready."""
    page.goto(url)
    page.wait_for_function(READY)
    return page


def _error(message: ConsoleMessage) -> list[str]:
    noise = any(part in message.text for part in NOISE)
    return [] if message.type != "error" or noise else [message.text]
