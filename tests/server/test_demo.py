"""The demo's models in ComfyUI's own nodes and ours: words and pictures have a meaning that shows in the video."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
import time
from argparse import Namespace
from pathlib import Path
from urllib.error import URLError
from urllib.request import urlopen

import av
import numpy
import pytest
import torch
from PIL import Image
from support.graph import DEMO_SCENE, DEMO_SEED, DemoGraph, new_log_lines
from support.signals import undo_ignored
from support.stand_ins.prompt import LORA

from experiments.measures.motions import obeys
from experiments.measures.tracks import follow
from framepack_core.demo.scenes import UNSEEN
from framepack_core.demo.world import Scene
from scripts import demo
from scripts.support.environment import ROOT
from scripts.support.server import RunFailed
from scripts.support.workflow import to_prompt, with_widgets

STEPS = 16


@pytest.fixture
def graph() -> DemoGraph:
    return DemoGraph()


def psnr(found: numpy.ndarray, expected: numpy.ndarray) -> float:
    """dB, of uint8 pixels."""
    return -10 * numpy.log10(numpy.mean((found / 255 - expected / 255) ** 2))


# The prompt and the pictures decide what is seen.


@pytest.mark.slow
@pytest.mark.parametrize(("order", "motion"), [("inverted", "right"), ("forward", "up"), ("endpoints", "right")])
def test_the_shape_does_what_the_prompt_says(graph, server, order, motion):
    """With two of three seeds: endpoints obeys least, and may fail with one."""
    plan, words = graph.plan_of(2, order=order), graph.text(f"a pink circle moves {motion}")

    videos = [graph.video(server, plan=plan, positive=words, steps=STEPS, seed=seed) for seed in (1, 2, 3)]

    assert {len(video) for video in videos} == {4 * 19 - 3}
    assert sum(obeys(motion, follow(video, DEMO_SCENE)[0]) for video in videos) >= 2


def test_two_prompts_on_one_image_give_two_motions(graph, server):
    grow, rest = (graph.text(f"a pink circle {does}") for does in ("grows", "stands still"))

    larger, same = (follow(graph.video(server, positive=words, steps=STEPS), DEMO_SCENE)[0].area for words in (grow, rest))

    assert larger[-1] > 1.15 * larger[0] and abs(same[-1] / same[0] - 1) < 0.1


@pytest.mark.parametrize("order", ["inverted", "forward"])
def test_the_video_starts_with_the_start_image(graph, server, order):
    video = graph.video(server, plan=graph.plan_of(order=order))

    assert psnr(video[0], DEMO_SCENE.render(1)[0]) > 26


def test_an_end_image_is_where_the_video_ends(graph, server, tmp_path):
    """In between, the shape is on its way."""
    moving = DEMO_SCENE.with_motion("right")
    end = moving.render(1, start=40)[0]
    Image.fromarray(end).save(tmp_path / "end.png")
    image = graph.add("LoadImage", image=server.upload_image(tmp_path / "end.png"))
    plan, words = graph.plan_of(order="endpoints"), graph.text("a pink circle moves right")

    video = graph.video(server, plan=plan, positive=words, end_latent=graph.encode(image), steps=STEPS)

    assert psnr(video[-1], end) > 26
    x = follow(video, moving)[0].x
    assert x[0] + 8 < x[len(x) // 2] < x[-1] - 8


def test_the_demo_image_is_another_scene_for_each_seed_and_says_what_could_happen(graph, server):
    first, second = (graph.frames(server, graph.add("FramePack_DemoImage", seed=seed)) for seed in (DEMO_SEED, 13))
    graph.add("PreviewAny", source=graph.image[1])
    (shown,) = (output["text"] for output in server.run(graph.prompt)["outputs"].values() if "text" in output)

    assert numpy.array_equal(first, DEMO_SCENE.render(1))
    assert numpy.array_equal(second, Scene.draw(3_000_013).render(1))
    assert shown == [DEMO_SCENE.caption]


# Every stock node that takes a MODEL, CLIP, VAE or CLIP_VISION


def test_a_picture_comes_back_through_stock_vae_nodes(graph, server):
    latent = graph.add("VAEEncode", pixels=graph.image, vae=graph.vae)
    decoded = graph.frames(server, graph.add("VAEDecode", samples=latent, vae=graph.vae))

    assert graph.latents(server, latent).shape == (1, 16, 1, 16, 16)
    assert psnr(decoded, DEMO_SCENE.render(1)) > 26


def test_a_video_comes_back_in_tiles_too(graph, server):
    images = graph.add("RepeatImageBatch", image=graph.image, amount=33)
    tiles = {"tile_size": 96, "overlap": 32, "temporal_size": 64, "temporal_overlap": 8}
    whole = graph.add("VAEEncode", pixels=images, vae=graph.vae)
    tiled = graph.add("VAEEncodeTiled", pixels=images, vae=graph.vae, **tiles)

    latents = graph.latents(server, whole), graph.latents(server, tiled)
    decoded = graph.frames(server, graph.add("VAEDecodeTiled", samples=whole, vae=graph.vae, **tiles))

    assert latents[0].shape == latents[1].shape == (1, 16, 9, 16, 16)
    assert len(decoded) == 33 and psnr(decoded, DEMO_SCENE.render(1)) > 26


def test_clip_vision_encode_gives_what_encode_image_gives(graph, server):
    stock = graph.add("CLIPVisionEncode", clip_vision=graph.vision, image=graph.image, crop="none")
    given = [{"clip_vision_output": output} for output in (stock, graph.start[1], None)]

    found, expected, without = (graph.latents(server, graph.sampler(**output)) for output in given)

    assert torch.equal(found, expected)
    assert not torch.equal(without, expected)


def test_a_lora_and_cfg_change_the_video(graph, server):
    lora = graph.add("LoraLoaderModelOnly", model=graph.model, lora_name=LORA, strength_model=1.0)
    both = graph.add("LoraLoader", model=graph.model, clip=graph.clip, lora_name=LORA, strength_model=1.0, strength_clip=1.0)
    own = graph.add("FramePack_LoadLora", model=graph.model, lora_name=LORA, strength=1.0)
    plain, *changed = (
        graph.latents(server, graph.sampler(**change))
        for change in ({}, {"model": lora}, {"model": both}, {"model": own}, {"negative": graph.negative, "cfg": 3.0})
    )

    assert all((video - plain).norm() > 1e-3 * plain.norm() for video in changed)
    assert torch.equal(changed[0], changed[1]) and torch.equal(changed[0], changed[2])


def test_stock_samplers_run_it_without_sections(graph, server):
    window = graph.add("EmptyHunyuanLatentVideo", width=128, height=128, length=33, batch_size=1)
    conds = {"positive": graph.positive, "negative": graph.negative, "model": graph.model, "latent_image": window}
    settings = {"seed": 1, "steps": 2, "cfg": 2.0, "sampler_name": "euler", "scheduler": "simple", "denoise": 1.0}

    video = graph.latents(server, graph.add("KSampler", **conds, **settings))

    assert video.shape == (1, 16, 9, 16, 16) and video.isfinite().all() and video.std() > 0.1


def test_a_saved_model_is_the_same_model(graph, server):
    """Saved by a stock node in ComfyUI's names; without its header it passes for a released one."""
    entry = server.run({**graph.prompt, "save": {"class_type": "ModelSave", "inputs": {
        "model": graph.model.link, "filename_prefix": "diffusion_models/demo"}}})  # fmt: skip
    expected = graph.latents(server, graph.sampler())
    (saved,) = (server.base / "output" / "diffusion_models").glob("demo*.safetensors")
    folder = server.base / "linked" / "diffusion_models"
    shutil.move(saved, folder / "saved_demo.safetensors")
    try:
        model = graph.add("FramePack_LoadModel", model_name="saved_demo.safetensors", weight_dtype="default")
        found = graph.latents(server, graph.sampler(model=model))
    finally:
        (folder / "saved_demo.safetensors").unlink()

    assert entry["status"]["completed"]
    assert (found - expected).norm() < 1e-5 * expected.norm()


def test_unknown_words_are_named_in_the_log(graph, server):
    with new_log_lines(server) as log:
        graph.latents(server, graph.sampler(positive=graph.text("a pink circle (dances:1.2) like a girl")))

    assert "the demo does not know 'dances', 'like', 'girl'; its words are: a an and around" in log.text


def test_an_empty_prompt_works(graph, server):
    assert graph.latents(server, graph.sampler(positive=graph.text(""))).isfinite().all()


def test_every_trained_order_runs_without_a_warning_and_an_untrained_layout_with_one(graph, server):
    with new_log_lines(server) as log:
        for order in ("inverted", "forward", "endpoints"):
            graph.latents(server, graph.sampler(plan=graph.plan_of(2, order=order), steps=1))
    assert "untrained" not in log.text

    with new_log_lines(server) as log:
        graph.latents(server, graph.sampler(plan=graph.plan_of(layout="custom", custom_layout="f1k1_x_g9_f2k2_td"), steps=1))
    assert "layout f1k1_x_g9_f2k2_td is untrained on demo_transformer.safetensors: it knows" in log.text


def test_missing_weights_are_an_error_that_says_what_to_do(graph, server):
    weights = server.base / "custom_nodes" / "framepack" / "framepack_core" / "demo" / "weights"
    forget_the_models(graph, server)
    away = shutil.move(weights / "demo_vae.safetensors", server.base / "demo_vae.safetensors")
    try:
        with pytest.raises(RunFailed) as failure:
            server.run(graph.saving(graph.start))
    finally:
        shutil.move(away, weights / "demo_vae.safetensors")

    assert failure.value.message.startswith("FramePack_LoadDemo: demo_vae.safetensors is missing in ")
    assert "install it again, or run `git checkout -- framepack_core/demo/weights`" in failure.value.message


def forget_the_models(graph: DemoGraph, server) -> None:
    """Because ComfyUI keeps what the last prompt loaded."""
    server.run({"1": {"class_type": "PreviewAny", "inputs": {"source": f"nothing {time.monotonic()}"}}})


# scripts/demo.py


def options(**changes) -> Namespace:
    return Namespace(**{"image": demo.PICTURE, "prompt": None, "seconds": None, "seed": None} | changes)


def prompt_of(server, chosen: Namespace) -> dict[str, dict]:
    """Inputs by the node's type."""
    prompt = to_prompt(demo.chosen_workflow(server, chosen), server.object_info())
    return {node["class_type"]: node["inputs"] for node in prompt.values()}


def test_the_shipped_picture_is_the_one_that_the_workflow_draws(server):
    workflow = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))
    prompt = {node["class_type"]: node["inputs"] for node in to_prompt(workflow, server.object_info()).values()}
    scene = Scene.draw(UNSEEN + prompt["FramePack_DemoImage"]["seed"])

    with Image.open(demo.PICTURE) as picture:
        assert numpy.array_equal(numpy.asarray(picture), scene.render(1)[0])
    words = f"{scene.actors[0].colour} {scene.actors[0].shape}"
    assert words in prompt["CLIPTextEncode"]["text"]


def test_the_demo_loads_the_picture_and_takes_what_was_chosen(server):
    plain = prompt_of(server, options())
    chosen = prompt_of(server, options(prompt="a red star moves left", seconds=2.4, seed=5))

    assert "FramePack_DemoImage" not in plain
    assert plain["LoadImage"]["image"] == demo.PICTURE.name
    assert plain["FramePack_EncodeImage"]["image"][1] == 0
    assert plain["FramePack_Plan"]["seconds"] == 4.8
    assert (chosen["CLIPTextEncode"]["text"], chosen["FramePack_Plan"]["seconds"], chosen["FramePack_Sampler"]["seed"]) == (
        "a red star moves left",
        2.4,
        5,
    )


def test_a_widget_that_no_node_has_is_refused(server):
    workflow = json.loads(demo.WORKFLOW.read_text(encoding="utf-8"))

    with pytest.raises(ValueError, match="no node of the workflow has a widget colour"):
        with_widgets(workflow, server.object_info(), {"colour": "red"})


def test_what_is_served_makes_another_video_at_each_press_of_run(server):
    made = demo.chosen_workflow(server, options(seconds=1.2, seed=8))
    served = demo.with_another_seed(made, server)
    first, second = (to_prompt(workflow, server.object_info()) for workflow in (made, served))
    (sampler,) = (name for name, node in first.items() if node["class_type"] == "FramePack_Sampler")

    assert first[sampler]["inputs"].pop("seed") != second[sampler]["inputs"].pop("seed")
    assert first == second
    assert widgets_of(served, "FramePack_Sampler")[1] == "randomize", "the second press would make nothing"


def widgets_of(workflow: dict, kind: str) -> list:
    (node,) = (node for node in workflow["nodes"] if node["type"] == kind)
    return node["widgets_values"]


@pytest.mark.slow
@pytest.mark.skipif(os.name == "nt", reason="Windows has no SIGHUP")
def test_a_served_demo_leaves_nothing_behind_when_its_terminal_closes(tmp_path):
    command = [sys.executable, ROOT / "scripts" / "demo.py", "--serve", "--seconds", "1.2"]

    def left() -> list[Path]:
        return list(tmp_path.glob(f"{demo.FOLDER}*"))

    surroundings = {**os.environ, "TMPDIR": str(tmp_path)}
    with subprocess.Popen(
        command, stdout=subprocess.PIPE, text=True, env=surroundings, start_new_session=True, preexec_fn=undo_ignored
    ) as running:
        assert running.stdout
        said = iter(running.stdout)
        address = next(line.split()[-1] for line in said if line.startswith("ComfyUI is running"))
        assert "another video" in next(said)
        with urlopen(address) as page:
            assert page.status == 200 and left()

        os.kill(running.pid, signal.SIGHUP)

    deadline = time.monotonic() + 10
    while left() and time.monotonic() < deadline:
        time.sleep(0.1)
    assert not left()
    with pytest.raises(URLError):
        urlopen(address)


@pytest.mark.slow
def test_the_demo_makes_four_sections_of_25_steps(server, tmp_path):
    """Without any options. This many steps of so small a picture are all that a first try may cost."""
    done = subprocess.run([sys.executable, ROOT / "scripts" / "demo.py"], capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    assert "framepack_demo.mp4: 145 frames" in done.stdout
    assert "step 100 of 100" in done.stdout
    assert frames_of(demo.VIDEO).shape == (145, 128, 128, 3)
    assert psnr(frames_of(demo.VIDEO)[0], numpy.asarray(Image.open(demo.PICTURE))) > 22


def frames_of(video: Path) -> numpy.ndarray:
    with av.open(video) as container:
        return numpy.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def test_a_picture_that_is_not_there_is_refused_at_once():
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "demo.py", "--image", "nowhere.png"], capture_output=True, text=True
    )

    assert done.returncode == 2 and "there is no file nowhere.png" in done.stderr
