"""The demo's own LoRA, trained on one motion, as every trainer would name its weights."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import folder_paths
import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor

from experiments.measures import motions
from experiments.measures.tracks import follow
from experiments.study.studio import Studio
from experiments.study.videos import Video
from framepack_core.comfyui.demo import weights_file
from framepack_core.comfyui.loading import loras
from framepack_core.demo.world import LORA_MOTION
from framepack_core.weights.names import made_of

PREFIX = "diffusion_model."
OLD = {f"{stream}_{new}": f"{stream}_{old}" for stream in ("img", "txt") for new, old in
       {"attn.qkv": "attn_qkv", "attn.proj": "attn_proj", "mlp.0": "mlp.fc1", "mlp.2": "mlp.fc2"}.items()}  # fmt: skip


@dataclass(frozen=True)
class Layer:
    """A module's LoRA: `down` `r D`, `up` `D' r`; alpha is r."""

    module: str
    down: Tensor
    up: Tensor


def native(module: str) -> str:
    """A module of ComfyUI's in the names of the original HunyuanVideo."""
    block, number, leaf = module.split(".", 2)
    return f"{block}.{number}.{OLD.get(leaf, leaf)}"


def kohya(prefix: str, layer: Layer, module: str) -> dict[str, Tensor]:
    name = f"{prefix}_{module.replace('.', '_')}"
    alpha = torch.tensor(float(len(layer.down)))
    return {f"{name}.lora_down.weight": layer.down, f"{name}.lora_up.weight": layer.up, f"{name}.alpha": alpha}


def dotted(prefix: str, layer: Layer, module: str) -> dict[str, Tensor]:
    return {f"{prefix}{module}.lora_A.weight": layer.down, f"{prefix}{module}.lora_B.weight": layer.up}


# Whether the modules are the official ones, and how a layer is written.
NAMINGS: dict[str, tuple[bool, Callable[[Layer], dict[str, Tensor]]]] = {
    "musubi, HunyuanVideo": (False, lambda layer: kohya("lora_unet", layer, native(layer.module))),
    "diffusion-pipe": (False, lambda layer: dotted("transformer.", layer, native(layer.module))),
    "diffusion-pipe, old": (False, lambda layer: dotted(PREFIX, layer, native(layer.module))),
    "ComfyUI": (False, lambda layer: dotted(PREFIX, layer, layer.module)),
    "ComfyUI, kohya": (False, lambda layer: kohya("lora_unet", layer, layer.module)),
    "musubi, FramePack": (True, lambda layer: kohya("lora_unet", layer, layer.module)),
    "diffusers": (True, lambda layer: dotted("transformer.", layer, layer.module)),
    "no prefix": (True, lambda layer: dotted("", layer, layer.module)),
    "diffusion-pipe, FramePack": (True, lambda layer: dotted(PREFIX, layer, layer.module)),
    "peft": (True, lambda layer: dotted("base_model.model.", layer, layer.module)),
    "OneTrainer": (True, lambda layer: kohya("lora_transformer", layer, layer.module)),
}


@pytest.fixture(scope="module")
def studio() -> Studio:
    return Studio()


@pytest.fixture(scope="module")
def layers() -> list[Layer]:
    """Of the file, in ComfyUI's names."""
    weights = {name: tensor.float() for name, tensor in load_file(weights_file("demo_lora.safetensors")).items()}
    modules = [name.removesuffix(".lora_A.weight") for name in weights if name.endswith(".lora_A.weight")]
    found = [Layer(module.removeprefix(PREFIX), weights[f"{module}.lora_A.weight"], weights[f"{module}.lora_B.weight"])
             for module in modules]  # fmt: skip
    assert all(weights[f"{PREFIX}{layer.module}.alpha"] == len(layer.down) for layer in found)
    return found


def parts(layer: Layer, rows: dict[str, int]) -> Iterator[Layer]:
    """The official modules that a module is made of; the joined LoRA has their inner ranks side by side."""
    modules = made_of(layer.module)
    rank, begin = len(layer.down) // len(modules), 0
    for number, module in enumerate(modules):
        inner, outer = slice(number * rank, (number + 1) * rank), slice(begin, begin + rows[module])
        yield Layer(module, layer.down[inner], layer.up[outer, inner])
        begin += rows[module]


def loaded(model, tensors: dict[str, Tensor], folder: Path):
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "demo.safetensors")
    return loras.load(model, "demo.safetensors", 1.0)[0]


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folder of LoRAs."""
    known = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path)], known))
    return tmp_path


@pytest.mark.parametrize("naming", NAMINGS)
def test_in_every_naming_it_changes_the_demo_s_weights_in_the_same_way(studio, layers, folder, naming):
    official, written = NAMINGS[naming]
    rows = {
        name.removesuffix(".weight"): len(tensor)
        for name, tensor in load_file(weights_file("demo_transformer.safetensors")).items()
    }
    every = [part for layer in layers for part in (parts(layer, rows) if official else [layer])]
    tensors = {name: tensor for layer in every for name, tensor in written(layer).items()}

    model = loaded(studio.model, tensors, folder)

    for layer in layers:
        key = f"{PREFIX}{layer.module}.weight"
        before = studio.model.patch_weight_to_device(key, return_weight=True)
        found = model.patch_weight_to_device(key, return_weight=True)
        torch.testing.assert_close(found - before, (layer.up @ layer.down).to(before), atol=1e-4, rtol=1e-3)
        assert (found - before).abs().max() > 1e-3, layer.module


@pytest.mark.slow
def test_with_it_the_demo_s_shapes_move_as_they_never_do_without(studio, layers, folder, monkeypatch):
    tensors = {name: tensor for layer in layers for name, tensor in NAMINGS["ComfyUI"][1](layer).items()}
    videos = [Video(scene, LORA_MOTION, 2, "forward", "f1", steps=8, shift=5.0) for scene in (2, 3, 4)]

    without = obeyed(studio, videos)
    monkeypatch.setattr(studio, "model", loaded(studio.model, tensors, folder))
    with_it = obeyed(studio, videos)

    assert without == 0 and with_it >= 2


def obeyed(studio: Studio, videos: list[Video]) -> int:
    clips = studio.shoot(videos).clips
    return sum(motions.obeys(video.motion, follow(clip, video.told)[0]) for video, clip in zip(videos, clips, strict=True))
