"""The example workflows in ComfyUI's own front end, in a real browser."""

import json
import re
from argparse import Namespace
from collections.abc import Iterator

import pytest
from playwright.sync_api import Page
from support.canvas import demo_at_once
from support.front_end import go_to, watched_page

from scripts import demo
from scripts.support.environment import ROOT
from scripts.support.server import Json
from scripts.support.workflow import NOTES, to_prompt

WORKFLOWS = sorted((ROOT / "example_workflows").glob("*.json"))
PICTURE = re.compile(r"!\[[^\]]*\]\(([^)]+)\)")

DEFAULTS = {
    "FramePack_LoadModel": {"variant": "auto"},
    "FramePack_Sampler": {"end_strength": 1, "colour_anchor": 0, "denoise": 1},
    "FramePack_Plan": {"exact_length": False, "loop": 0, "parts": "prompts", "reanchor": False},
    "FramePack_SaveVideo": {"crossfade": 8, "container": "auto", "codec": "auto", "mark_as_ai": True},
}
PLAYER = "video-preview"  # what the front end adds to Load Video, after a while
GAINED = {"frames", "latent_image", "before", "after", *(name for widgets in DEFAULTS.values() for name in widgets)}


def is_old(workflow: Json) -> bool:
    """Whether it could have been saved before its nodes gained inputs: it uses none of them."""
    return not any(given["name"] in GAINED and given["link"] for node in workflow["nodes"] for given in node["inputs"])


OLD = [path for path in WORKFLOWS if is_old(json.loads(path.read_text(encoding="utf-8")))]


@pytest.fixture(scope="module")
def page(browser, server) -> Iterator[Page]:
    """One for all tests here, since a front end is slow to start. Errors on its console fail the last of them."""
    with watched_page(browser, server) as page:
        yield go_to(page, server.url)


@pytest.fixture(params=demo_at_once(WORKFLOWS))
def workflow(request) -> Json:
    return json.loads(request.param.read_text(encoding="utf-8"))


def test_the_front_end_makes_the_prompt_that_the_server_tests_run(workflow, server, load_workflow):
    assert without_titles(load_workflow(workflow)) == without_titles(to_prompt(workflow, server.object_info()))


def test_loading_keeps_every_widget_and_link(workflow, page, load_workflow):
    load_workflow(workflow)

    again = page.evaluate("window.app.graph.serialize()")

    assert widgets(again) == widgets(workflow)
    assert sorted(links(again)) == sorted(links(workflow))


@pytest.mark.parametrize("workflow", demo_at_once(OLD), indirect=True)
def test_a_workflow_from_before_nodes_gained_inputs_loads_with_their_defaults(workflow, server, load_workflow):
    """All that a node has gained comes last."""
    for node in (node for node in workflow["nodes"] if node["type"] in DEFAULTS):
        node["inputs"] = [given for given in node["inputs"] if given["name"] not in GAINED]
        node["widgets_values"] = node["widgets_values"][: -len(DEFAULTS[node["type"]])]

    prompt = without_titles(load_workflow(workflow))

    old = without_titles(to_prompt(workflow, server.object_info()))
    for node in old.values():
        node["inputs"] |= DEFAULTS.get(node["class_type"], {})
    assert prompt == old


def test_the_front_end_finds_our_nodes_by_their_aliases(page):
    nodes = "Object.values(LiteGraph.registered_node_types).map(type => type.nodeData)"
    found = page.evaluate(f"{nodes}.filter(n => n?.name?.startsWith('FramePack_')).map(n => [n.name, n.search_aliases ?? []])")

    assert len(found) == 20 and all(aliases for _, aliases in found)


def test_the_front_end_serves_a_help_page_for_every_node(page, server):
    fetch = "async name => (await fetch(`/extensions/framepack/docs/${name}.md`)).text()"

    for name, node in server.object_info().items():
        if name.startswith("FramePack_"):
            assert page.evaluate(fetch, name).startswith(f"# {node['display_name']}")


def test_the_front_end_serves_the_pictures_of_the_help_pages(page):
    """The path in a page is within the folder that the front end looks in."""
    width = """async name => {
      const picture = Object.assign(new Image(), { src: `/extensions/framepack/docs/${name}` })
      await picture.decode()
      return picture.naturalWidth
    }"""
    pages = (ROOT / "web" / "docs").glob("*.md")
    pictures = {name for page in pages for name in PICTURE.findall(page.read_text(encoding="utf-8"))}

    assert {"place.webp", "redo.webp", "loop.webp", "extend.webp"} <= pictures
    assert {page.evaluate(width, name) for name in pictures} == {720}


def test_the_workflows_are_offered_as_templates_with_thumbnails(page):
    offered = page.evaluate("async () => (await fetch('/api/workflow_templates')).json()")
    status = "async name => (await fetch(`/api/workflow_templates/framepack/${encodeURIComponent(name)}`)).status"

    assert sorted(offered["framepack"]) == [path.stem for path in WORKFLOWS]
    for path in WORKFLOWS:
        assert page.evaluate(status, f"{path.stem}.json") == page.evaluate(status, f"{path.stem}.jpg") == 200


def test_a_demo_that_was_set_up_opens_by_its_address(server, browser):
    """The address that `scripts/demo.py --serve` prints: its page, a new one, shows that workflow, ready to run."""
    options = Namespace(image=demo.PICTURE, prompt="a red star moves left", seconds=2.4, seed=None)
    workflow = demo.chosen_workflow(server, options)

    with watched_page(browser, server) as page:
        go_to(page, server.offer("set_up", workflow))
        page.wait_for_function("app.graph.nodes.some(node => node.type == 'FramePack_LoadDemo')")
        shown = page.evaluate("async () => (await app.graphToPrompt()).output")
        server.withdraw("set_up")

        assert not page.evaluate("app.graph.nodes.filter(node => node.has_errors).map(node => node.type)")
        assert without_titles(shown) == without_titles(to_prompt(workflow, server.object_info()))


def without_titles(prompt: Json) -> Json:
    return {
        name: {
            "class_type": node["class_type"],
            "inputs": {given: value for given, value in node["inputs"].items() if given != PLAYER},
        }
        for name, node in prompt.items()
    }


def widgets(workflow: Json) -> dict[int, list]:
    nodes = (node for node in workflow["nodes"] if node["type"] not in NOTES)
    return {node["id"]: (node.get("widgets_values") or [])[: 1 if node["type"] == "LoadVideo" else None] for node in nodes}


def links(workflow: Json) -> list[list]:
    return [list(link) for link in workflow["links"]]
