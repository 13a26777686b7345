"""The nodes themselves on a fake card, from the picture to the file, as ComfyUI executes them."""

import importlib.util
import sys
from types import SimpleNamespace

import av
import comfy.clip_vision
import comfy_extras.nodes_custom_sampler as custom
import folder_paths
import numpy
import pytest
import server
import torch

from experiments.card.card import GB, FakeCard
from experiments.card.models import released_transformer, released_vae, released_weights
from experiments.card.steps import TEXT
from framepack_core.comfyui import demo
from scripts.support.environment import ROOT

PACK = "framepack_pack"
FRAMES = 73  # of two sections


@pytest.fixture(scope="module")
def nodes():
    """The pack's nodes by their ids. They use the core that is imported already."""
    spec = importlib.util.spec_from_file_location(PACK, ROOT / "__init__.py", submodule_search_locations=[str(ROOT)])
    sys.modules[PACK] = importlib.util.module_from_spec(spec)
    core = {name: module for name, module in sys.modules.items() if name.partition(".")[0] == "framepack_core"}
    sys.modules.update({f"{PACK}.{name}": module for name, module in core.items()})
    ours = importlib.import_module(f"{PACK}.nodes")
    found = [node for module, names in ours.NODES.items() for node in ours.load(module, names)]
    yield {node.GET_SCHEMA().node_id.removeprefix("FramePack_"): node for node in found}
    for name in [name for name in sys.modules if name.partition(".")[0] == PACK]:
        del sys.modules[name]


@pytest.fixture(autouse=True)
def comfyui(monkeypatch, tmp_path):
    """What nodes find in a ComfyUI that runs: a server to send texts to, and folders."""
    instance = SimpleNamespace(send_progress_text=lambda text, node: None)
    monkeypatch.setattr(server.PromptServer, "instance", instance, raising=False)
    monkeypatch.setattr(folder_paths, "output_directory", str(tmp_path))


def execute(node: type, **inputs) -> tuple:
    """The outputs of a node, which gets its defaults for what is not given."""
    defaults = {entry.id: getattr(entry, "default", None) for entry in node.GET_SCHEMA().inputs}
    given = {name: value for name, value in defaults.items() if value is not None}
    return node.PREPARE_CLASS_CLONE(None).execute(**given | inputs).args


def prompt() -> list:
    return [[torch.zeros(1, TEXT, 4096), {"pooled_output": torch.zeros(1, 768)}]]


def vision_model() -> comfy.clip_vision.ClipVisionModel:
    return comfy.clip_vision.ClipVisionModel(f"{comfy.__path__[0]}/clip_vision_siglip_384.json")


@pytest.mark.slow
@pytest.mark.parametrize("size", [6, 24])
def test_from_a_picture_to_a_file(nodes, size, tmp_path):
    with FakeCard(size * GB) as card:
        model, vae = released_transformer(released_weights(torch.float8_e4m3fn)), released_vae(torch.bfloat16)
        latent, seen, picture = execute(
            nodes["EncodeImage"], image=torch.zeros(1, 700, 640, 3), vae=vae, clip_vision=vision_model()
        )
        plan, _ = execute(nodes["Plan"], seconds=2.4)
        sampled = {"plan": plan, "start_latent": latent, "clip_vision_output": seen, "steps": 2, "resume": False}
        [video] = execute(nodes["Sampler"], model=model, positive=prompt(), **sampled)
        execute(nodes["SaveVideo"], latent=video, vae=vae)
        [images] = execute(nodes["Decode"], latent=video, vae=vae)

    assert picture.shape[1:3] == images.shape[1:3] and len(images) == FRAMES
    assert latent["samples"].device == video["samples"].device == images.device == torch.device("cpu")
    with av.open(str(next(tmp_path.rglob("*.mp4")))) as file:
        assert sum(1 for _ in file.decode(video=0)) == FRAMES
    assert not card.memory.refused


def test_the_custom_sampler_with_cfg_and_an_end_image(nodes):
    with FakeCard(8 * GB) as card:
        model = released_transformer(released_weights(torch.float8_e4m3fn, blocks=2))
        [guider] = custom.CFGGuider.execute(model, prompt(), prompt(), 2.0).args
        [plan, _] = execute(nodes["Plan"], seconds=2.4, order="endpoints")
        image = {"samples": torch.zeros(1, 16, 1, 76, 80)}
        [sigmas] = execute(nodes["Scheduler"], latent=image, steps=2)
        [sampler] = execute(nodes["UniPC"])
        given = {"plan": plan, "start_latent": image, "end_latent": image, "resume": False}
        [video] = execute(nodes["SamplerCustom"], guider=guider, sampler=sampler, sigmas=sigmas, **given)

    assert video["samples"].device == torch.device("cpu")
    assert not card.memory.refused


def test_the_demo_s_own_models(nodes, monkeypatch):
    """The colours of its previews, which need values, are computed on the CPU."""
    monkeypatch.setattr(demo, "latent_colours", lambda vae: numpy.zeros((17, 3)))
    with FakeCard(2 * GB) as card:
        model, clip, vae, vision = execute(nodes["LoadDemo"])
        image, text = execute(nodes["DemoImage"])
        latent, seen, _ = execute(nodes["EncodeImage"], image=image, vae=vae, clip_vision=vision, base_resolution=128)
        [plan, _] = execute(nodes["Plan"], seconds=2.4)
        prompt = clip.encode_from_tokens_scheduled(clip.tokenize(text))
        sampled = {"plan": plan, "start_latent": latent, "clip_vision_output": seen, "steps": 2, "resume": False}
        [video] = execute(nodes["Sampler"], model=model, positive=prompt, **sampled)
        [images] = execute(nodes["Decode"], latent=video, vae=vae)

    assert images.shape == (FRAMES, 128, 128, 3) and images.device == torch.device("cpu")
    assert card.memory.moved > model.model_size()
