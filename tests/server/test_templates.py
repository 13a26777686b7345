"""What the templates promise, on the demo's models: where the pictures are in the file, what is joined, what stays."""

import json
import re
import shutil
from pathlib import Path

import av
import numpy
import pytest
from support.example_video import FRAMES, example_frames
from support.graph import Outputs, Seen, own_models
from support.stand_ins.prompt import of_kind, shortened, with_demo

from framepack_core.demo.scenes import UNSEEN
from framepack_core.demo.world import Scene
from scripts.support.environment import ROOT
from scripts.support.server import Prompt, Server
from scripts.support.workflow import to_prompt

SCENES = (12, 5, 3)
SECTIONS, STEPS = 2, 8
SECTION = 36  # frames
SMALL = {"steps": STEPS, "base_resolution": 128, "width": 128, "height": 128, "crf": 4, "pixel_format": "yuv444p"}


def template(server: Server, name: str, scenes: int = 0, text: str = "a pink circle moves left") -> Prompt:
    """A template on the demo's models, of two sections."""
    workflow = json.loads((ROOT / "example_workflows" / f"FramePack {name}.json").read_text(encoding="utf-8"))
    prompt = shortened(with_demo(to_prompt(workflow, server.object_info()), SCENES[:scenes], text), SECTIONS)
    for node in prompt.values():
        node["inputs"] |= {name: value for name, value in SMALL.items() if name in node["inputs"]}
    return prompt


def videos(server: Server, prompt: Prompt, **run) -> list[Path]:
    return [file for file in server.output_files(server.run(prompt, **run)) if file.suffix == ".mp4"]


def pictures(path: Path) -> numpy.ndarray:
    """uint8 `F H W 3`."""
    with av.open(str(path)) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def psnr(found: numpy.ndarray, expected: numpy.ndarray) -> float:
    """dB, of uint8 pixels."""
    return float(-10 * numpy.log10(max(numpy.mean((found / 255 - expected / 255) ** 2), 1e-10)))


def scene(number: int) -> numpy.ndarray:
    return Scene.draw(UNSEEN + SCENES[number]).render(1)[0]


def likenesses(frames: numpy.ndarray, number: int) -> list[float]:
    """dB of each frame to one of the scenes."""
    return [psnr(frame, scene(number)) for frame in frames]


pytestmark = pytest.mark.slow  # test_workflows.py runs them on stand-ins


@pytest.mark.parametrize(
    ("name", "places"),
    [
        ("first and last frame", [range(1), range(SECTION * 2 + 2, SECTION * 2 + 5)]),
        ("keyframes", [range(1), range(SECTION * 2 + 6, SECTION * 2 + 9), range(SECTION + 2, SECTION + 5)]),
    ],
)
def test_the_pictures_are_in_the_file_at_their_times(server, name, places):
    """First, last and middle picture. Of a still's four frames the first is a blend with the one before."""
    (path,) = videos(server, template(server, name, len(places)))
    frames = pictures(path)

    assert len(frames) == places[1].stop
    for number, place in enumerate(places):
        likeness = [psnr(frame, scene(number)) for frame in frames]
        assert min(likeness[frame] for frame in place) > 36
        assert max(likeness[frame] for frame in range(len(frames)) if min(abs(frame - at) for at in place) > 4) < 27


def test_the_longer_video_begins_with_the_original_and_goes_on_from_it(server):
    (path,) = videos(server, template(server, "extend a video"))
    frames, original = pictures(path), example_frames()

    assert len(frames) == FRAMES + SECTION * SECTIONS
    kept = FRAMES - 8  # the rest is a crossfade to what the VAE makes of them
    assert min(psnr(*pair) for pair in zip(frames[:kept], original, strict=False)) > 40
    assert min(psnr(*pair) for pair in zip(frames[:FRAMES], original, strict=True)) > 30
    assert psnr(frames[FRAMES], original[-1]) > 25 > psnr(frames[-1], original[-1])


def test_each_section_is_told_what_the_timeline_says(server):
    text = "a pink circle stands still [1.2s: a pink circle moves down]"
    prompt, seen = template(server, "timed prompts", 1, text), Seen()
    (sampler,) = of_kind(prompt, "FramePack_Sampler")

    (video,) = videos(server, prompt, on_message=seen)

    assert len(pictures(video)) == 1 + SECTIONS * SECTION
    told = "\n".join(seen.texts(Outputs(sampler, 0)))
    assert all(re.search(rf"section {number} of 2[^\n]*\nprompt: a pink circle {words}", told) for number, words in
               ((1, "stands still"), (2, "moves down")))  # fmt: skip


def test_a_lora_moves_what_the_model_alone_does_not(server):
    """A star at the upper left, which without the LoRA only moves to the right."""
    text = "a green star moves right and down"
    prompt, seen = template(server, "LoRA", 1, text), Seen()
    (loader,) = of_kind(prompt, "FramePack_LoadLora")
    (plan,), (image,) = (of_kind(prompt, f"FramePack_{kind}").values() for kind in ("Plan", "DemoImage"))
    plan["inputs"]["order"], image["inputs"]["seed"] = "forward", 10
    with own_models(server, "loras") as folder:
        shutil.copy(ROOT / "framepack_core" / "demo" / "weights" / "demo_lora.safetensors", folder)
        prompt[loader]["inputs"]["lora_name"] = f"{folder.name}/demo_lora.safetensors"
        with_it = pictures(*videos(server, prompt, on_message=seen))
        prompt[loader]["inputs"]["strength"] = 0.0
        without = pictures(*videos(server, prompt))

    assert "demo_lora.safetensors at strength 1" in "".join(seen.texts(Outputs(loader, 0)))
    assert row_of_the_star(with_it[-1]) > row_of_the_star(without[-1]) + 10


def row_of_the_star(frame: numpy.ndarray) -> float:
    """The middle of what is green, in rows from the top."""
    red, green, _ = frame.astype(float).transpose(2, 0, 1)
    return float(numpy.nonzero(green - red > 60)[0].mean())


def test_a_prompt_alone_decides_the_colour(server):
    red, blue = (
        pictures(*videos(server, template(server, "text to video", text=f"a {colour} circle moves left")))
        for colour in ("red", "blue")
    )

    assert len(red) == len(blue) == SECTION * SECTIONS - 3
    redness, blueness = (video[..., 0].astype(int) - video[..., 2] for video in (red, blue))
    assert numpy.percentile(redness, 99) > 80 and numpy.percentile(blueness, 1) < -80
    assert redness.mean() > blueness.mean() + 10


def test_a_section_is_made_again_as_often_as_one_likes_while_the_first_sampler_rests(server):
    prompt = template(server, "redo a section", 1)
    first, second = of_kind(prompt, "FramePack_Sampler")
    finished, changed = map(pictures, videos(server, prompt))

    prompt[second]["inputs"]["seed"] += 1
    seen = Seen()
    again = pictures(videos(server, prompt, on_message=seen)[-1])

    assert not seen.steps(Outputs(first)) and seen.steps(Outputs(second))
    for video in (changed, again):
        difference = numpy.abs(video.astype(float) - finished).mean(axis=(1, 2, 3))
        assert difference[0] < 0.5 and difference[SECTION + 1 :].max() < 0.9 < difference[1 : SECTION + 1].min()
    assert (again != changed)[1 : SECTION + 1].any(axis=(1, 2, 3)).all()
