"""LoRA files in every naming, of every kind, on every format of weights: the model is that of merged weights."""

import logging
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import comfy.lora
import comfy.model_patcher
import comfy.sd
import comfy.utils
import folder_paths
import pytest
import torch
from comfy_execution.graph import DynamicPrompt
from hypothesis import HealthCheck, settings
from hypothesis import given as with_given
from hypothesis import strategies as st
from safetensors.torch import save_file
from support import given
from support.checkpoints import Weights, save
from support.ours import relative_error, sample
from torch import Tensor

from framepack_core.comfyui.loading import checkpoints, loras
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.comfyui.sampling.loras import unused
from framepack_core.weights import names
from framepack_core.weights.loras import spellings
from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf

FP8 = torch.float8_e4m3fn

# A module of each kind: in diffusers' names, and by the names of ComfyUI and of the original HunyuanVideo.
OFFICIAL = [
    *(f"transformer_blocks.0.attn.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"transformer_blocks.1.attn.{part}" for part in ("add_q_proj", "add_k_proj", "add_v_proj", "to_add_out")),
    *("transformer_blocks.0.ff.net.0.proj", "transformer_blocks.0.ff.net.2", "transformer_blocks.1.ff_context.net.0.proj"),
    *(
        "transformer_blocks.1.ff_context.net.2",
        "transformer_blocks.0.norm1.linear",
        "transformer_blocks.1.norm1_context.linear",
    ),
    *(f"single_transformer_blocks.1.{part}" for part in ("attn.to_q", "attn.to_k", "attn.to_v", "proj_mlp", "proj_out")),
    *("single_transformer_blocks.0.norm.linear", "norm_out.linear", "proj_out", "x_embedder.proj", "context_embedder.proj_in"),
    *(f"context_embedder.token_refiner.refiner_blocks.1.{part}" for part in ("attn.to_k", "attn.to_out.0", "ff.net.0.proj")),
    *("context_embedder.token_refiner.refiner_blocks.0.norm_out.linear", "time_text_embed.guidance_embedder.linear_2"),
    *("clean_x_embedder.proj_2x", "image_projection.up"),
]
REFINER = "txt_in.individual_token_refiner.blocks"
NATIVE = {
    "double_blocks.0.img_attn.qkv": "double_blocks.0.img_attn_qkv",
    "double_blocks.1.txt_attn.qkv": "double_blocks.1.txt_attn_qkv",
    "double_blocks.1.img_attn.proj": "double_blocks.1.img_attn_proj",
    "double_blocks.0.img_mlp.0": "double_blocks.0.img_mlp.fc1",
    "double_blocks.1.txt_mlp.2": "double_blocks.1.txt_mlp.fc2",
    "double_blocks.0.img_mod.lin": "double_blocks.0.img_mod.linear",
    "double_blocks.1.txt_mod.lin": "double_blocks.1.txt_mod.linear",
    "single_blocks.1.linear1": "single_blocks.1.linear1",
    "single_blocks.0.linear2": "single_blocks.0.linear2",
    "single_blocks.0.modulation.lin": "single_blocks.0.modulation.linear",
    f"{REFINER}.0.self_attn.qkv": f"{REFINER}.0.self_attn_qkv",
    f"{REFINER}.1.mlp.2": f"{REFINER}.1.mlp.fc2",
    f"{REFINER}.1.adaLN_modulation.1": f"{REFINER}.1.adaLN_modulation.1",
    "final_layer.adaLN_modulation.1": "final_layer.adaLN_modulation.1",
    "final_layer.linear": "final_layer.linear",
}


def underscored(module: str) -> str:
    return module.replace(".", "_")


@dataclass(frozen=True)
class Naming:
    """Whose names they are, and how a module of the model is spelled in the file."""

    official: bool
    modules: dict[str, str]


NAMINGS = {
    "musubi, HunyuanVideo": Naming(False, {new: f"lora_unet_{underscored(old)}" for new, old in NATIVE.items()}),
    "diffusion-pipe": Naming(False, {new: f"transformer.{old}" for new, old in NATIVE.items()}),
    "diffusion-pipe, old": Naming(False, {new: f"diffusion_model.{old}" for new, old in NATIVE.items()}),
    "ComfyUI": Naming(False, {new: f"diffusion_model.{new}" for new in NATIVE}),
    "ComfyUI, kohya": Naming(False, {new: f"lora_unet_{underscored(new)}" for new in NATIVE}),
    "musubi, FramePack": Naming(True, {module: f"lora_unet_{underscored(module)}" for module in OFFICIAL}),
    "diffusers": Naming(True, {module: f"transformer.{module}" for module in OFFICIAL}),
    "no prefix": Naming(True, {module: module for module in OFFICIAL}),
    "diffusion-pipe, FramePack": Naming(True, {module: f"diffusion_model.{module}" for module in OFFICIAL}),
    "peft": Naming(True, {module: f"base_model.model.{module}" for module in OFFICIAL}),
    "OneTrainer": Naming(True, {module: f"lora_transformer_{underscored(module)}" for module in OFFICIAL}),
}


# The kinds: what the file holds of a module, and the weight that it makes of one.

Kind = Callable[[Tensor, torch.Generator], tuple[Weights, Tensor]]


def draw(generator: torch.Generator, *shape: int) -> Tensor:
    return torch.randn(shape, generator=generator) * 0.2


def flat(weight: Tensor) -> tuple[int, int]:
    return weight.shape[0], weight[0].numel()


def pair(weight: Tensor, generator: torch.Generator, rank: int = 4) -> tuple[Tensor, Tensor]:
    rows, columns = flat(weight)
    return draw(generator, rows, rank), draw(generator, rank, columns)


def lora(up_name: str, down_name: str, alpha: float | None) -> Kind:
    def make(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
        up, down = pair(weight, generator)
        scale = 1.0 if alpha is None else alpha / 4
        tensors = {up_name: up, down_name: down} | ({} if alpha is None else {"alpha": torch.tensor(alpha)})
        return tensors, weight + scale * (up @ down).view_as(weight)

    return make


def loha(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    (one_a, one_b), (two_a, two_b) = pair(weight, generator), pair(weight, generator)
    tensors = {"hada_w1_a": one_a, "hada_w1_b": one_b, "hada_w2_a": two_a, "hada_w2_b": two_b, "alpha": torch.tensor(2.0)}
    return tensors, weight + 0.5 * ((one_a @ one_b) * (two_a @ two_b)).view_as(weight)


def lokr(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    rows, columns = flat(weight)
    one, two = draw(generator, 4, 2), draw(generator, rows // 4, columns // 2)
    return {"lokr_w1": one, "lokr_w2": two}, weight + torch.kron(one, two).view_as(weight)


def lokr_of_ranks(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    rows, columns = flat(weight)
    one, (two_a, two_b) = draw(generator, 2, 4), (draw(generator, rows // 2, 3), draw(generator, 3, columns // 4))
    tensors = {"lokr_w1": one, "lokr_w2_a": two_a, "lokr_w2_b": two_b, "alpha": torch.tensor(6.0)}
    return tensors, weight + 2 * torch.kron(one, two_a @ two_b).view_as(weight)


def dora(name: str, per_row: bool, vector: bool = False) -> Kind:
    """As ComfyUI computes it: scales of rows stand beside the norms of the weight as it was."""

    def make(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
        up, down = pair(weight, generator)
        changed = weight + (up @ down).view_as(weight)
        rest = tuple(range(2, weight.ndim))  # of a convolution
        squares = weight.square().sum((1, *rest), keepdim=True) if per_row else changed.square().sum((0, *rest), keepdim=True)
        norms = squares.sqrt()
        scales = norms * (1 + draw(generator, *norms.shape))
        stored = scales.flatten() if vector and weight.ndim == 2 else scales
        return {"lora_up.weight": up, "lora_down.weight": down, name: stored}, changed * scales / norms

    return make


def whole(weight: Tensor, generator: torch.Generator) -> tuple[Weights, Tensor]:
    change = draw(generator, *weight.shape)
    return {"diff": change}, weight + change


KINDS: dict[str, Kind] = {
    "LoRA of kohya, alpha": lora("lora_up.weight", "lora_down.weight", 2.0),
    "LoRA of diffusers": lora("lora_B.weight", "lora_A.weight", None),
    "LoRA of peft": lora("lora_B.default.weight", "lora_A.default.weight", None),
    "LoHa": loha,
    "LoKr": lokr,
    "LoKr of two ranks": lokr_of_ranks,
    "DoRA by rows": dora("dora_scale", per_row=True),
    "DoRA by columns": dora("dora_scale", per_row=False),
    "DoRA of peft": dora("lora_magnitude_vector", per_row=True, vector=True),
    "whole matrix": whole,
}


@dataclass(frozen=True)
class File:
    """A LoRA file's tensors, and the model's weights with it merged, in the names that it is in."""

    tensors: Weights
    merged: Weights


def make(weights: Weights, modules: dict[str, str], kind: Kind, biases: bool = False, seed: int = 1) -> File:
    generator, tensors, merged = torch.Generator().manual_seed(seed), {}, dict(weights)
    for module, spelled in modules.items():
        made, merged[f"{module}.weight"] = kind(weights[f"{module}.weight"], generator)
        if biases:
            made["diff_b"] = draw(generator, *weights[f"{module}.bias"].shape)
            merged[f"{module}.bias"] = weights[f"{module}.bias"] + made["diff_b"]
        tensors |= {f"{spelled}.{name}": tensor for name, tensor in made.items()}
    return File(tensors, merged)


@pytest.fixture(scope="module")
def official(oracle) -> Weights:
    return dict(oracle.state_dict())


@pytest.fixture(scope="module")
def native(official) -> Weights:
    return names.to_comfy(official.copy())


@pytest.fixture
def model(checkpoint):
    return checkpoints.load_path(str(checkpoint), {})


@pytest.fixture(autouse=True)
def folder(tmp_path, monkeypatch) -> Path:
    """ComfyUI's folder of LoRAs."""
    known = folder_paths.supported_pt_extensions
    monkeypatch.setitem(folder_paths.folder_names_and_paths, "loras", ([str(tmp_path / "loras")], known))
    (tmp_path / "loras").mkdir()
    return tmp_path / "loras"


def stored(folder: Path, tensors: Weights, name: str = "some.safetensors", header: dict | None = None) -> str:
    save_file({key: tensor.clone().contiguous() for key, tensor in tensors.items()}, folder / name, header)
    return name


def loaded(model, name: str, strength: float = 1.0):
    return loras.load(model, name, strength)[0]


def patched(model) -> Weights:
    """The weights as the model computes with them."""
    names = (name for name, _ in model.model.diffusion_model.named_parameters())
    return {name: model.patch_weight_to_device(f"diffusion_model.{name}", return_weight=True).float() for name in names}


def in_comfyui_s_names(weights: Weights, official: bool) -> Weights:
    return names.to_comfy(dict(weights)) if official else weights


def assert_merged(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert relative_error(found[key], weight.float()) < 1e-6, key


def video(model) -> Tensor:
    return sample(model, given.inputs(8, 8), sections=1, steps=2)


# Names and kinds


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_and_kind_gives_the_merged_weights(official, native, model, folder, naming, kind):
    whose = NAMINGS[naming]
    file = make(official if whose.official else native, whose.modules, KINDS[kind])

    found, report = loras.load(model, stored(folder, file.tensors), 1.0)

    assert_merged(patched(found), in_comfyui_s_names(file.merged, whose.official))
    assert f"changes {len(whose.modules)} weights" in report and "not used" not in report


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_video_is_that_of_a_checkpoint_with_the_merged_weights(official, native, model, folder, tmp_path, naming):
    whose = NAMINGS[naming]
    file = make(official if whose.official else native, whose.modules, KINDS["LoRA of kohya, alpha"])
    merged = checkpoints.load_path(save(file.merged, tmp_path), {})

    found = video(loaded(model, stored(folder, file.tensors)))

    assert relative_error(found, video(merged)) < 1e-4
    assert relative_error(found, video(model)) > 1e-2


@pytest.mark.parametrize("naming", NAMINGS)
def test_biases_are_changed_with_their_weights(official, native, model, folder, naming):
    whose = NAMINGS[naming]
    file = make(official if whose.official else native, whose.modules, KINDS["LoRA of diffusers"], biases=True)

    found = loaded(model, stored(folder, file.tensors))

    assert_merged(patched(found), in_comfyui_s_names(file.merged, whose.official))


def test_norms_are_changed(official, model, folder):
    change = {"weight": torch.full((128,), 0.3), "bias": torch.full((256,), 0.2)}
    refiner = "context_embedder.token_refiner.refiner_blocks.0.norm1"
    tensors = {"lora_unet_transformer_blocks_0_attn_norm_added_q.w_norm": change["weight"], f"{refiner}.w_norm": change["bias"],
               f"{refiner}.b_norm": 2 * change["bias"]}  # fmt: skip
    expected = dict(official)
    expected["transformer_blocks.0.attn.norm_added_q.weight"] = official["transformer_blocks.0.attn.norm_added_q.weight"] + 0.3
    expected[f"{refiner}.weight"] = official[f"{refiner}.weight"] + 0.2
    expected[f"{refiner}.bias"] = official[f"{refiner}.bias"] + 0.4

    assert_merged(patched(loaded(model, stored(folder, tensors))), names.to_comfy(expected))


@pytest.mark.parametrize("kind", KINDS)
def test_the_last_modulation_s_halves_are_swapped_only_in_official_names(official, native, model, folder, kind):
    by_official = make(official, {"norm_out.linear": "transformer.norm_out.linear"}, KINDS[kind], biases=True)
    module = "final_layer.adaLN_modulation.1"
    by_comfyui = make(native, {module: f"diffusion_model.{module}"}, KINDS[kind], biases=True)

    swapped, straight = (loaded(model, stored(folder, file.tensors)) for file in (by_official, by_comfyui))

    assert_merged(patched(swapped), names.to_comfy(dict(by_official.merged)))
    assert_merged(patched(straight), by_comfyui.merged)


def test_a_file_with_two_namings_is_added_as_a_whole_even_where_both_are_for_one_matrix(official, native, model, folder):
    q, qkv, other = "transformer_blocks.0.attn.to_q", "double_blocks.0.img_attn.qkv", "double_blocks.0.img_attn.proj"
    first = make(official, {q: f"transformer.{q}"}, KINDS["LoRA of diffusers"])
    second = make(
        names.to_comfy(first.merged), {qkv: f"lora_unet_{underscored(qkv)}", other: f"diffusion_model.{other}"}, whole
    )
    third = make(second.merged, {qkv: f"transformer.{NATIVE[qkv]}"}, loha, seed=2)

    found = loaded(model, stored(folder, first.tensors | second.tensors | third.tensors))

    assert_merged(patched(found), third.merged)


def test_no_name_can_be_read_in_two_ways(model):
    places: dict[str, set] = {}
    for module in (name.rpartition(".")[0] for name, _ in model.model.diffusion_model.named_parameters()):
        for old in names.made_of(module):
            for spelled in spellings(old):
                places.setdefault(spelled, set()).add(names.rename_module(old))
        for old in {module, NATIVE.get(module, module)}:
            for spelled in spellings(old):
                places.setdefault(spelled, set()).add(names.Module(module))

    assert {spelled: found for spelled, found in places.items() if len(found) > 1} == {}


def test_alpha_may_be_a_number_of_a_pickle(official, model, folder):
    file = make(official, {"proj_out": "transformer.proj_out"}, KINDS["LoRA of kohya, alpha"])
    torch.save(file.tensors | {"transformer.proj_out.alpha": 2.0}, folder / "some.pt")

    assert_merged(patched(loaded(model, "some.pt")), names.to_comfy(file.merged))


# Strength


def everything(weights: Weights, seed: int) -> File:
    return make(weights, NAMINGS["musubi, FramePack"].modules, KINDS["LoRA of kohya, alpha"], biases=True, seed=seed)


@settings(max_examples=15, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@with_given(st.floats(-4, 4).map(lambda value: round(value, 2)), st.floats(-4, 4).map(lambda value: round(value, 2)))
def test_strengths_scale_and_stacks_add(official, model, folder, first, second):
    files = [everything(official, seed) for seed in (1, 2)]
    name, other = (stored(folder, file.tensors, f"{number}.safetensors") for number, file in enumerate(files))
    changes = zip((first, second), files, strict=True)
    merged = {key: weight.clone() for key, weight in official.items()}
    for strength, file in changes:
        for key, weight in file.merged.items():
            merged[key] += strength * (weight - official[key])

    found = loaded(loaded(model, name, first), other, second)

    assert_merged(patched(found), names.to_comfy(merged))


def test_the_opposite_strength_takes_a_lora_away(official, model, folder):
    name = stored(folder, everything(official, 1).tensors)
    before = video(model)

    changed, back = loaded(model, name, 0.7), loaded(loaded(model, name, 0.7), name, -0.7)

    assert relative_error(video(back), before) < 1e-4 < 1e-2 < relative_error(video(changed), before)


def test_strength_0_is_the_model_itself(official, model, folder):
    found, report = loras.load(model, stored(folder, everything(official, 1).tensors), 0.0)

    assert found is model
    assert report == "some.safetensors: the strength is 0, so the model stays as it is"


def test_another_strength_reads_no_checkpoint_and_leaves_the_models_before_it_as_they_are(official, model, folder, monkeypatch):
    name = stored(folder, everything(official, 1).tensors)
    before = video(model)
    monkeypatch.setattr(checkpoints, "read_checkpoint", lambda path: pytest.fail("the checkpoint was read again"))

    models = {strength: loaded(model, name, strength) for strength in (0.5, 1.0)}
    found = {strength: video(patcher) for strength, patcher in models.items()}

    assert all(patcher.is_clone(model) for patcher in models.values())
    assert relative_error(found[0.5], found[1.0]) > 1e-2
    assert torch.equal(video(models[0.5]), found[0.5]) and torch.equal(video(model), before)


# Formats of weights, and the ways in which ComfyUI applies patches to them

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


IN_BLOCKS = {module: spelled for module, spelled in NAMINGS["musubi, FramePack"].modules.items() if "former_blocks" in module}


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


# What is said of a file


def report(model, folder: Path, tensors: Weights, header: dict | None = None) -> str:
    return loras.load(model, stored(folder, tensors, header=header), 0.5)[1]


def test_it_is_said_where_the_model_changes(official, model, folder, caplog):
    caplog.set_level(logging.INFO, "framepack")
    file = make(official, NAMINGS["diffusers"].modules, loha)

    said = report(model, folder, file.tensors)

    assert said == (
        "some.safetensors at strength 0.5: changes 31 weights (14 in the double blocks, 6 in the single blocks, 5 in the "
        "text refiner, 6 in other layers)"
    )
    assert [(record.levelname, record.message) for record in caplog.records] == [("INFO", f"FramePack: {said}")]


def test_what_does_not_match_is_named_in_the_node_and_in_a_warning(official, model, folder, caplog):
    file = make(official, {"proj_out": "proj_out", "transformer_blocks.0.attn.to_q": "transformer_blocks.45.attn.to_q"}, loha)
    misfit = {f"single_transformer_blocks.0.proj_out.lora_{part}.weight": torch.zeros(4, 4) for part in "AB"}
    text = {f"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{part}.weight": torch.zeros(4, 4) for part in ("up", "down")}
    kind = {"proj_out.some_new_kind": torch.zeros(4)}

    said = report(model, folder, file.tensors | misfit | text | kind, {"modelspec.architecture": "hunyuan-video/lora"})

    assert said.splitlines() == [
        "some.safetensors at strength 0.5: changes 1 weights (1 in other layers)",
        "not used: 2 tensors for text encoders, which FramePack's LoRAs leave as they are",
        "not used: 6 tensors that are not of this model, first transformer_blocks.45.attn.to_q.alpha",
        "not used: 1 weights of another size, first single_transformer_blocks.0.proj_out: 4x4, where the model has 256x1280",
        "made for hunyuan-video/lora, as its header says",
        "by its names it may be for HunyuanVideo 1.5",
    ]
    assert [(record.levelname, record.message) for record in caplog.records] == [
        ("WARNING", f"FramePack: {said}".replace("\n", "; "))
    ]


ROWS = {"lora_up.weight": torch.zeros(8, 2), "lora_down.weight": torch.zeros(2, 8)}


def of(*modules: str) -> Weights:
    return {f"{module}.{name}": tensor for module in modules for name, tensor in ROWS.items()}


@pytest.mark.parametrize(
    ("tensors", "header", "said"),
    [
        (
            of("diffusion_model.blocks.0.self_attn.q"),
            {},
            "none of its 2 tensors, first diffusion_model.blocks.0.self_attn.q.lora_down.weight, is of FramePack or "
            "HunyuanVideo; it seems to be for Wan; load it on a Wan model, with ComfyUI's Load LoRA: Wan's names are left to "
            "the models that have them",
        ),
        (
            of("lora_unet_down_blocks_0_attentions_0_proj_in", "lora_te_text_model_encoder_layers_0_mlp_fc1"),
            {},
            "is of FramePack or HunyuanVideo; it seems to be for Stable Diffusion; choose a LoRA for FramePack or HunyuanVideo",
        ),
        (
            of("double_blocks.0.img_attn.proj", "double_blocks.53.img_attn.proj"),
            {},
            "all 1 of its weights that FramePack has too have another size, first double_blocks.0.img_attn.proj: 8x8, where "
            "the model has 256x256; it seems to be for HunyuanVideo 1.5; choose a LoRA",
        ),
        (
            of("layers.0.attention"),
            {"modelspec.architecture": "z-image/lora"},
            "it seems to be for z-image/lora; choose a LoRA",
        ),
        (of("layers.0.attention"), {"ss_base_model_version": "wan2.1"}, "for wan2.1; load it on a Wan model"),
        (of("layers.0.attention"), {}, "is of FramePack or HunyuanVideo; choose a LoRA for FramePack or HunyuanVideo"),
        (of("lora_te1_text_model_encoder_layers_0_mlp_fc1"), {}, "all its weights are for text encoders; choose a LoRA"),
    ],
    ids=["Wan", "Stable Diffusion", "HunyuanVideo 1.5", "header", "header of Wan", "unknown", "text encoders"],
)
def test_a_file_that_changes_nothing_is_an_error_that_says_what_it_is_for(model, folder, tensors, header, said):
    with pytest.raises(ValueError) as raised:
        report(model, folder, tensors, header)

    assert str(raised.value).startswith("some.safetensors changes nothing of the model: ") and said in str(raised.value)


def test_the_whole_of_another_model_s_names_is_never_taken_for_ours(model):
    """Wan's, and those of U-Nets, under every prefix."""
    wan = ["blocks.0.self_attn.q", "blocks.0.cross_attn.k_img", "blocks.0.ffn.0", "head.head", "text_embedding.0"]
    unet = ["down_blocks.0.attentions.0.transformer_blocks.0.attn1.to_q", "input_blocks.1.1.proj_in", "time_embed.0"]
    known = loras.targets(model.model)

    assert not [spelled for module in wan + unet for spelled in spellings(module) if spelled in known]


# Files that cannot be read


def truncated(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-100])


def emptied(path: Path) -> None:
    path.write_bytes(b"")


def text(path: Path) -> None:
    path.write_text("<!doctype html><title>Sign in</title>" * 10)


@pytest.mark.parametrize("suffix", [".safetensors", ".sft", ".pt", ".bin", ".ckpt"])
@pytest.mark.parametrize("damage", [truncated, emptied, text])
def test_a_damaged_file_is_refused_by_name(official, model, folder, suffix, damage):
    path = folder / f"some{suffix}"
    tensors = everything(official, 1).tensors
    save_file(tensors, path) if suffix in (".safetensors", ".sft") else torch.save(tensors, path)
    damage(path)

    with pytest.raises(ValueError, match=rf"^some\{suffix} cannot be read: it is damaged, .* download it again"):
        loaded(model, path.name)


class Evil:
    def __reduce__(self):
        return print, ("the file ran code",)


@pytest.mark.parametrize(
    "held", [Evil(), {"a": Evil()}, [1, 2], "text", {"a": "text"}, {1: torch.zeros(2), 2: 1}, {}, torch.zeros(2)], ids=repr
)
def test_a_pickle_of_something_else_is_refused_and_runs_no_code(model, folder, held, capsys):
    torch.save(held, folder / "some.pt")

    with pytest.raises(ValueError, match=r"^some\.pt (cannot be read|holds no weights|changes nothing)"):
        loaded(model, "some.pt")
    assert "ran code" not in capsys.readouterr().out


def test_a_lora_that_lacks_half_of_a_module_is_refused(official, model, folder):
    file = make(official, {"proj_out": "transformer.proj_out"}, KINDS["LoRA of diffusers"])
    del file.tensors["transformer.proj_out.lora_A.weight"]

    with pytest.raises(ValueError, match=r"some.safetensors is damaged: transformer.proj_out lacks .*lora_A.weight"):
        loaded(model, stored(folder, file.tensors))


SHAPES = st.sampled_from(
    [(), (1,), (4,), (256,), (768,), (4, 256), (256, 4), (256, 3), (768, 4), (256, 256), (2, 2), (256, 4, 1)]
)
PARTS = st.sampled_from(
    [
        *("lora_up.weight", "lora_down.weight", "lora_A.weight", "lora_B.weight", "alpha", "dora_scale", "diff", "diff_b"),
        *("hada_w1_a", "hada_w1_b", "hada_w2_a", "hada_w2_b", "lokr_w1", "lokr_w2", "lokr_w1_a", "lokr_w1_b", "lokr_w2_b"),
        *("w_norm", "b_norm", "set_weight", "weight", "bias", "lora_magnitude_vector"),
    ]
)
SPELLED = st.sampled_from(
    [
        *("transformer.transformer_blocks.0.attn.to_q", "lora_unet_double_blocks_0_img_attn_qkv", "norm_out.linear"),
        *("blocks.0.attn", "transformer.proj_out", "context_embedder.token_refiner.refiner_blocks.0.norm1"),
        "transformer_blocks.0.attn.norm_q",
    ]
)


@settings(max_examples=300, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@with_given(st.dictionaries(st.builds("{}.{}".format, SPELLED, PARTS), SHAPES, min_size=1, max_size=8))
def test_whatever_a_file_holds_it_is_refused_or_does_what_is_said(model, folder, caplog, shapes):
    """ComfyUI only logs what it cannot apply."""
    caplog.clear()
    name = stored(folder, {key: torch.ones(shape) for key, shape in shapes.items()})
    try:
        found = loaded(model, name)
    except ValueError as error:
        assert str(error).startswith(("some.safetensors changes nothing", "some.safetensors is damaged"))
        return

    patched(found)

    assert [record.message for record in caplog.records if record.name == "root" and record.levelno >= logging.WARNING] == []


def test_an_empty_safetensors_file_holds_no_weights(model, folder):
    with pytest.raises(ValueError, match=r"some.safetensors holds no weights; download it again"):
        loaded(model, stored(folder, {}))


def test_a_file_that_is_gone_is_named(model):
    with pytest.raises(ValueError, match=r"^gone.safetensors is no longer under models/loras; refresh the browser"):
        loaded(model, "gone.safetensors")


def test_another_model_is_refused(official, folder, tmp_path):
    plain = {key: weight for key, weight in official.items() if not key.startswith(("clean_x_embedder", "image_projection"))}
    model = comfy.sd.load_diffusion_model(save(names.to_comfy(plain), tmp_path))

    with pytest.raises(ValueError, match=r"^model is HunyuanVideo, not FramePack"):
        loaded(model, stored(folder, everything(official, 1).tensors))


# The sampler's warning about ComfyUI's own loaders


def prompt(loader: str, name: str) -> DynamicPrompt:
    nodes = {
        "1": {"class_type": loader, "inputs": {"lora_name": name, "strength": 1.0}},
        "2": {"class_type": "FramePack_Sampler", "inputs": {"model": ["1", 0]}},
    }
    return DynamicPrompt(nodes)


OURS = "ComfyUI's loaders do not know all names of its trainer; load it with Load FramePack LoRA"


def test_the_sampler_says_which_node_loads_a_lora_that_comfyui_s_does_not_know(official, model, folder):
    name = stored(folder, make(official, IN_BLOCKS, loha).tensors)

    said = unused(prompt("LoraLoaderModelOnly", name), "2", model)

    assert said == [f"LoRA some.safetensors changes nothing of the model: {OURS}"]
    assert unused(prompt("FramePack_LoadLora", name), "2", model) == []


def test_the_sampler_says_how_much_comfyui_s_loaders_leave_out_of_a_lora(native, model, folder):
    """Of musubi's for HunyuanVideo, the layers of which ComfyUI lacks the underscored original names."""
    name = stored(folder, make(native, NAMINGS["musubi, HunyuanVideo"].modules, loha).tensors)

    said = unused(prompt("LoraLoaderModelOnly", name), "2", model)

    assert said == [f"LoRA some.safetensors changes only 9 of 15 weights: {OURS}"]


@pytest.mark.parametrize(
    "tensors",
    [
        {f"diffusion_model.double_blocks.0.img_attn.proj.lora_{part}.weight": torch.ones(4, 256) for part in "AB"},
        {"diffusion_model.double_blocks.0.img_attn.proj.lokr_w1": torch.ones(4, 256)},
        {"diffusion_model.double_blocks.0.img_attn.norm.query_norm.diff_b": torch.ones(128)},
    ],
    ids=["ranks", "a factor", "no bias"],
)
def test_a_damaged_lora_does_not_end_the_sampler(model, folder, tensors):
    """ComfyUI's loaders take it, and log what they cannot apply."""
    said = unused(prompt("LoraLoaderModelOnly", stored(folder, tensors)), "2", model)

    assert len(said) == 1 and said[0].startswith("LoRA some.safetensors changes nothing of the model")


@pytest.mark.parametrize("naming", ["diffusion-pipe", "ComfyUI"])
def test_the_sampler_says_nothing_of_a_lora_that_comfyui_s_loaders_know(native, model, folder, naming):
    file = make(native, NAMINGS[naming].modules, KINDS["LoRA of diffusers"], biases=True)

    assert unused(prompt("LoraLoaderModelOnly", stored(folder, file.tensors)), "2", model) == []
