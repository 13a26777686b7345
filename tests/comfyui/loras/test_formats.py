"""On every format of weights, in each way that ComfyUI applies patches."""

from collections.abc import Callable

import comfy.lora
import comfy.model_patcher
import comfy.utils
import pytest
import torch
from support.checkpoints import Weights, save
from support.loras import IN_BLOCKS, KINDS, NAMINGS, draw, loaded, make, stored, video
from support.ours import relative_error
from torch import Tensor

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.weights import names
from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf

FP8 = torch.float8_e4m3fn
FILES = ["bf16", "float16", "fp8", "weight_dtype fp8", "scaled fp8", *FORMATS, "Q8_0", "Q4_0", "Q5_0"]


def scaled(weights: Weights) -> Weights:
    out = dict(weights)
    for key, weight in weights.items():
        if "_blocks." in key and weight.ndim == 2:
            scale = weight.abs().amax() / 448
            out |= {key: (weight / scale).to(FP8), key.replace(".weight", ".scale_weight"): scale}
    return out


@pytest.fixture(scope="module", params=FILES)
def quantised(request, checkpoint, official, native, tmp_path_factory) -> tuple[str, dict]:
    """A file of each format, and the options to load it with."""
    folder, kind = tmp_path_factory.mktemp("formats"), request.param
    if kind in FORMATS:
        convert(checkpoint, folder / "some.safetensors", kind)
        return str(folder / "some.safetensors"), {}
    if kind.startswith("Q"):
        return str(write_gguf(folder / "some.gguf", native, kind)), {}
    if kind == "scaled fp8":
        return save(scaled(official), folder), {}
    if kind == "weight_dtype fp8":
        return str(checkpoint), {"dtype": FP8}
    dtype = {"bf16": torch.bfloat16, "float16": torch.float16, "fp8": FP8}[kind]
    return save({key: weight.to(dtype) for key, weight in official.items()}, folder), {}


@pytest.fixture
def merged_patch(official, native) -> Callable:
    """(a LoRA in musubi's names, the same as differences of ComfyUI's own matrices)."""
    file = make(official, IN_BLOCKS, KINDS["LoRA of diffusers"])
    changed = names.to_comfy(dict(file.merged))
    whole = {
        f"diffusion_model.{key}": ("diff", (weight - native[key],))
        for key, weight in changed.items()
        if not torch.equal(weight, native[key])
    }
    return file.tensors, whole


@pytest.mark.slow
def test_every_format_is_changed_as_by_the_whole_difference(quantised, merged_patch, folder):
    path, options = quantised
    tensors, differences = merged_patch
    model, other = (checkpoints.load_path(path, dict(options)) for _ in range(2))
    before = video(model)
    found, expected = loaded(model, stored(folder, tensors)), other.clone()
    expected.add_patches(differences)

    changed = video(found)

    assert relative_error(changed, video(expected)) < 0.2 * relative_error(changed, before)
    assert relative_error(changed, before) > 1e-2
    assert torch.equal(video(model), before)


def outputs(patcher) -> Tensor:
    """What the patched layers make of random numbers."""
    transformer, found = patcher.model.diffusion_model, []
    for name in dict.fromkeys(names.rename_module(module).name for module in IN_BLOCKS):
        layer = comfy.utils.get_attr(transformer, name)
        found.append(layer(draw(torch.Generator().manual_seed(2), 1, 5, layer.in_features)))
    return torch.cat([output.flatten().float() for output in found])


def test_every_format_is_changed_at_each_use_of_a_layer_that_is_fetched(quantised, merged_patch, folder):
    """The classic patcher on a card that does not hold the model."""
    path, options = quantised
    tensors, differences = merged_patch
    model, other = (checkpoints.load_path(path, dict(options)) for _ in range(2))
    model.load(model.load_device, lowvram_model_memory=1)
    before = outputs(model)
    model.unpatch_model()
    found, expected = loaded(model, stored(folder, tensors)), other.clone()
    expected.add_patches(differences)
    for patcher in (found, expected):
        patcher.load(patcher.load_device, lowvram_model_memory=1)
    assert all(comfy.utils.get_attr(found.model, key.removesuffix(".weight")).weight_function for key in found.patches)

    changed = outputs(found)

    assert relative_error(changed, outputs(expected)) < 0.1 * relative_error(changed, before)


@pytest.mark.parametrize("kind", KINDS)
def test_dynamic_vram_gets_the_same_weights_from_what_it_gathers_in_one_buffer(official, model, folder, kind):
    """It copies the tensors of all patches of a weight to the card at once, and applies them to the weight there."""
    file = make(official, NAMINGS["musubi, FramePack"].modules, KINDS[kind], biases=True)
    found, merged = loaded(model, stored(folder, file.tensors), 1.0), names.to_comfy(dict(file.merged))

    for key in found.patches:
        patch = comfy.model_patcher.LowVramPatch(key, found.patches)
        patch.prepare(torch.empty(patch.memory_required(), dtype=torch.uint8), None)
        weight = comfy.utils.get_attr(model.model, key).detach().clone()
        assert comfy.lora.calculate_shape(found.patches[key], weight, key) == weight.shape, "it would be loaded as a whole"
        assert relative_error(patch(weight), merged[key.removeprefix("diffusion_model.")]) < 1e-6, key
