"""The routes that draw for the front end, and what a sampler tells of its sections."""

import base64
import json
import urllib.error
import urllib.request
from io import BytesIO

import pytest
from PIL import Image
from support.graph import DemoGraph, Seen

from scripts.support.server import Json, Server


def ask(server: Server, asked: Json, route: str = "plan") -> Json:
    body = json.dumps(asked).encode()
    request = urllib.request.Request(f"{server.url}/framepack/{route}", body, {"Content-Type": "application/json"})
    with urllib.request.urlopen(request, timeout=60) as answer:
        return json.load(answer)


def plan(**inputs) -> Json:
    return {"prompt": {"7": {"class_type": "FramePack_Plan", "inputs": inputs}}, "node": "7", "width": 400, "light": False}


def test_the_route_draws_the_plan_that_the_graph_would_have(server):
    answer = ask(server, plan(seconds=3.6, order="forward"))

    picture = Image.open(BytesIO(base64.b64decode(answer["image"].removeprefix("data:image/png;base64,"))))
    assert picture.size == (400, answer["height"])
    assert [row["section"] for row in answer["rows"]] == [0, 1, 2]
    assert answer["length"] == "109 frames, 3.63 s"


def test_a_length_that_is_known_only_when_the_graph_runs_is_told(server):
    asked = plan(seconds=1.2)
    asked["prompt"] |= {
        "3": {"class_type": "FramePack_Place", "inputs": {"images": ["4", 0]}},
        "4": {"class_type": "GetVideoComponents", "inputs": {"video": ["9", 0]}},
        "5": {"class_type": "FramePack_Sampler", "inputs": {"frames": ["3", 0], "plan": ["7", 0]}},
    }

    assert ask(server, asked)["length"] == "109 frames, 3.63 s (the length of a clip that is placed is known when it runs)"


def test_a_plan_that_cannot_be_is_answered_with_the_reason(server):
    assert "window" in ask(server, plan(window=0))["error"]


def timeline(text: str, **planned) -> Json:
    """A timeline, 3, in front of a sampler with a plan, 7."""
    asked = plan(seconds=2.4, **planned)
    asked["prompt"] |= {
        "3": {"class_type": "FramePack_PromptTimeline", "inputs": {"clip": ["1", 0], "text": text}},
        "5": {"class_type": "FramePack_Sampler", "inputs": {"positive": ["3", 0], "plan": ["7", 0], "start_latent": ["8", 0]}},
    }
    return asked


def test_timed_prompts_are_drawn_with_the_plan(server):
    answer = ask(server, timeline("a cat 🎩 [1.2s: <b>]"))

    assert [bar["words"] for bar in answer["bars"]] == ["a cat 🎩", "<b>"]
    assert answer["rows"][0]["text"].endswith("prompt: <b>")
    assert "is not closed" in ask(server, timeline("[1s: a"))["error"]


def test_parts_of_prompts_are_drawn_as_they_will_be_made(server):
    def first(parts: str, node: str, route: str) -> str:
        answer = ask(server, {**timeline("a cat [1.2s: it jumps]", parts=parts), "node": node}, route)
        return answer["rows"][0]["text"] if route == "plan" else answer["sections"][0]["title"]

    for node, route in (("7", "plan"), ("3", "prompts")):
        assert first("", node, route).startswith("section 1 of 2: 1.23 to 2.43 s"), route
        assert first("prompts", node, route).startswith("section 1 of 2: 0.03 to 1.23 s"), route


@pytest.mark.parametrize("parts", ["", "prompts"])
def test_a_text_without_a_prompt_for_the_video_is_told_by_both_drawings(server, parts):
    asked = timeline("[9s: a]", parts=parts)

    for node, route in (("7", "plan"), ("3", "prompts")):
        assert "no prompt has a time within the video's 2.43 s" in ask(server, {**asked, "node": node}, route)["error"]


def test_the_ruler_of_a_text_has_the_sections_of_the_plan_and_the_places_of_its_times(server):
    answer = ask(server, {**timeline("a cat 🎩 [1.2s: jumps]"), "node": "3"}, "prompts")

    assert answer["text"] == "a cat 🎩 [1.2s: jumps]"
    assert [border["numbers"] for border in answer["borders"]] == [[{"at": 10, "until": 13, "from_end": False}]]
    assert len(answer["sections"]) == 2 and answer["seconds"] == pytest.approx(73 / 30)
    assert "is not closed" in ask(server, {**timeline("[1s: a"), "node": "3"}, "prompts")["error"]


def test_links_that_go_round_in_a_circle_are_told_of(server):
    asked = timeline("a")
    asked["prompt"]["3"] = {"class_type": "ConditioningCombine", "inputs": {"conditioning_1": ["3", 0]}}

    assert "round in a circle" in ask(server, asked)["error"]


@pytest.mark.parametrize("asked", [{}, [], {"prompt": {}, "node": "1", "width": 400}, {**plan(), "prompt": 3}])
def test_what_is_no_request_is_refused(server, asked):
    with pytest.raises(urllib.error.HTTPError) as refused:
        ask(server, asked)

    assert refused.value.code == 400


def test_a_sampler_tells_which_section_it_makes_and_which_are_finished(server):
    graph, seen = DemoGraph(), Seen()
    sampler = graph.sampler(plan=graph.plan_of(2), steps=1, seed=411)

    graph.latents(server, sampler, on_message=seen)

    told = seen.data("framepack.sections")
    assert [(one["finished"], one["current"]) for one in told] == [([], 0), ([0], 1), ([0, 1], None)]
    assert {one["node"] for one in told} == {sampler.node}
