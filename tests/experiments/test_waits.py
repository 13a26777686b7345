"""The benchmark of waits: what it reads from a run's messages."""

import json

import pytest

from experiments.benchmarks.waits import DECODING, ENCODING, WORKFLOW, Heard, Run, coding, ratios, size, video
from scripts.support.websocket import Message

PROMPT = {
    "1": {"class_type": "FramePack_EncodeImage", "inputs": {}},
    "2": {"class_type": "VAEEncode", "inputs": {}},
    "3": {"class_type": "CLIPVisionEncode", "inputs": {}},
    "4": {"class_type": "FramePack_Sampler", "inputs": {"seed": 0}},
}


def executing(node: str) -> Message:
    return {"type": "executing", "data": {"node": node}}


def step(value: int) -> Message:
    return {"type": "progress", "data": {"node": "4", "value": value, "max": 6}}


@pytest.fixture
def run() -> Run:
    """Encoding by our node in 2 s, by ComfyUI's two in 1 s and 3 s, then two sections of three steps of 1 s each."""
    ends = [8.0, 9.0, 10.0, 11.5, 12.5, 13.5]  # the second section begins half a second late
    texts = [Heard(end, {"type": "text", "data": {"node": "4", "text": "..."}}) for end in ends]
    steps = [Heard(end, step(number)) for number, end in enumerate(ends, 1)]
    nodes = [Heard(at, executing(node)) for at, node in ((0.5, "1"), (2.5, "2"), (3.5, "3"), (6.5, "4"))]
    other = Heard(7.0, {"type": "progress", "data": {"node": "1", "value": 1, "max": 1}})
    heard = [*nodes, other, *texts, *steps, Heard(14.0, {"type": "execution_success", "data": {}})]
    return Run(PROMPT, sorted(heard, key=lambda each: each.seconds))


def test_a_node_takes_until_the_next_one_begins_or_the_run_ends(run):
    assert run.seconds(["FramePack_EncodeImage"]) == 2.0
    assert run.seconds(["FramePack_Sampler"]) == 7.5


def test_ours_is_compared_with_all_of_comfyui_s_nodes_that_do_the_same(run):
    assert ratios([run], *ENCODING) == [0.5]


def test_the_first_step_begins_a_step_before_it_ends(run):
    assert run.step == 1.0 and run.before_sampling == 7.0


def test_the_beginning_of_a_section_is_what_its_first_step_takes_more(run):
    assert run.beginnings(2) == [0.5]


def test_what_is_sent_is_counted_between_the_first_step_and_the_last(run):
    messages, kilobytes = run.sent

    assert messages == 2.0
    assert kilobytes == pytest.approx((size(step(1)) + size(run.heard[-3].message)) / 1000, rel=0.2)


def test_pictures_count_as_many_bytes_as_they_have():
    assert size({"type": "preview", "data": b"12345"}) == 5
    assert size({"type": "preview", "data": {"image": b"12345"}}) > 5


def test_each_seed_encodes_another_picture_and_decodes_another_latent():
    one, other = coding(1), coding(2)

    assert {name for name in one if one[name] != other[name]} == {"scene", "latent"}
    assert {node["class_type"] for node in one.values()} >= {ENCODING[0], *ENCODING[1], DECODING[0], *DECODING[1]}


def test_the_demo_is_sampled_anew_for_each_seed():
    assert video(PROMPT, 3)["4"]["inputs"] == {"seed": 3, "resume": False}
    assert PROMPT["4"]["inputs"] == {"seed": 0}
    assert "FramePack_Sampler" in json.dumps(json.loads(WORKFLOW.read_text(encoding="utf-8")))
