"""Helios' templates on small random models, from the prompt to the file. No demo of Helios is there to judge a video by."""

import json
import re

import av
import numpy
import pytest
from support.graph import Outputs, Seen
from support.stand_ins.prompt import of_kind, with_stand_ins

from scripts.support.environment import ROOT
from scripts.support.server import Prompt, Server
from scripts.support.workflow import to_prompt

pytestmark = pytest.mark.slow

CHUNKS, CHUNK, FPS = 2, 33, 24
STEPS = 3  # of a chunk, one in each stage; the first chunk has twice as many
BEFORE = 33  # frames of the example video at this rate
SMALL = {"steps": STEPS, "base_resolution": 128, "width": 128, "height": 128}


def template(server: Server, name: str, start_image: str) -> Prompt:
    workflow = json.loads((ROOT / "example_workflows" / f"Helios {name}.json").read_text(encoding="utf-8"))
    prompt = with_stand_ins(to_prompt(workflow, server.object_info()))
    for node in prompt.values():
        node["inputs"] |= {name: value for name, value in SMALL.items() if name in node["inputs"]}
        if node["class_type"] == "LoadImage":
            node["inputs"]["image"] = start_image
    (plan,) = of_kind(prompt, "FramePack_Plan").values()
    plan["inputs"]["seconds"] = CHUNKS * CHUNK / FPS
    return prompt


@pytest.fixture(
    scope="module",
    params=[("text to video", 0), pytest.param(("image to video", 0), marks=pytest.mark.slow), ("extend a video", BEFORE)],
    ids=lambda param: param[0],
)
def run(request, server, start_image):
    """The frames that are joined before the new ones, what the sampler has said, and the file."""
    name, before = request.param
    prompt, seen = template(server, name, start_image), Seen()
    files = server.output_files(server.run(prompt, on_message=seen))
    (sampler,) = of_kind(prompt, "FramePack_Sampler")
    (video,) = (file for file in files if file.suffix == ".mp4")
    return before, seen, Outputs(sampler), video


def test_the_file_has_whole_chunks_at_helios_rate(run):
    before, _, _, video = run

    with av.open(str(video)) as container:
        stream = container.streams.video[0]
        frames = numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(stream)])

    assert len(frames) == before + CHUNKS * CHUNK
    assert stream.average_rate == FPS
    assert frames.shape[1:] == (128, 128, 3)
    assert numpy.diff(frames.astype(int), axis=0).any(axis=(1, 2, 3)).mean() > 0.9, "the video stands still"


def test_the_steps_of_all_stages_count(run):
    """DMD's first chunk has twice the steps."""
    _, seen, sampler, _ = run

    steps = [step for step, _ in seen.steps(sampler)]

    assert steps == sorted(set(steps)) and steps[-1] == STEPS * (CHUNKS + 1)
    assert {most for _, most in seen.steps(sampler)} == {STEPS * (CHUNKS + 1)}
    assert re.fullmatch(rf"{CHUNKS * CHUNK} of {CHUNKS * CHUNK} frames done in \d+ s", seen.texts(sampler)[-1])


def test_a_template_runs_without_a_warning(run):
    _, seen, sampler, _ = run

    said = "\n".join(seen.texts(sampler))

    assert not re.search("trained|without effect|ignored|jump|suffers|another speed", said), said
