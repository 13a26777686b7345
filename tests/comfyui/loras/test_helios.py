"""LoRA files for Helios and for Wan, in every naming: the model is that of merged weights. For kinds see namings_and_kinds."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from support.checkpoints import Weights, save
from support.helios import call, run_ours, seen, small_helios
from support.ours import relative_error
from torch import Tensor

from framepack_core.comfyui.loading import checkpoints, loras
from framepack_core.weights import helios
from framepack_core.weights.loras import spellings

RANK = 4
TRAINED = [  # a module of each kind, in official/diffusers names
    *(f"blocks.0.attn1.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
    *(f"blocks.1.attn2.{part}" for part in ("to_q", "to_k", "to_v", "to_out.0")),
    *("blocks.0.ffn.net.0.proj", "blocks.1.ffn.net.2", "proj_out", "patch_embedding", "patch_short", "patch_mid", "patch_long"),
    *(f"condition_embedder.{part}" for part in ("time_embedder.linear_1", "time_proj", "text_embedder.linear_2")),
]
OFFICIAL: dict[str, Callable[[str], str]] = {
    "diffusers": "transformer.{}".format,
    "peft": "base_model.model.{}".format,
    "bare, official": str,
    "OneTrainer": lambda module: f"lora_transformer_{underscored(module)}",
    "musubi, official": lambda module: f"lora_unet_{underscored(module)}",
}
WAN: dict[str, Callable[[str], str]] = {
    "Wan": "diffusion_model.{}".format,
    "musubi": lambda module: f"lora_unet_{underscored(module)}",
    "bare": str,
    "LyCORIS": lambda module: f"lycoris_{underscored(module)}",
}
NAMINGS = OFFICIAL | {name: lambda module, spell=spell: spell(helios.rename_module(module)) for name, spell in WAN.items()}
PAIRS = {  # up, down, and alpha if there is one
    "A and B": ("lora_B.weight", "lora_A.weight", None),
    "up and down, alpha": ("lora_up.weight", "lora_down.weight", 2.0),
}


def underscored(module: str) -> str:
    return module.replace(".", "_")


@pytest.fixture(scope="module")
def weights() -> Weights:
    """Official/diffusers names."""
    return dict(small_helios().state_dict())


@pytest.fixture
def model(weights, tmp_path):
    return checkpoints.load_path(save(weights, tmp_path, "Helios-Base.safetensors"), {})


def trained(
    weights: Weights, spell: Callable[[str], str], pair: tuple, modules: list[str] = TRAINED
) -> tuple[Weights, Weights]:
    """(a file's tensors, the model's weights with it merged, in official names)."""
    (up_name, down_name, alpha), generator = pair, torch.Generator().manual_seed(1)
    tensors, merged = {}, dict(weights)
    for module in modules:
        weight = weights[f"{module}.weight"]
        up = 0.2 * torch.randn(weight.shape[0], RANK, generator=generator)
        down = 0.2 * torch.randn(RANK, weight[0].numel(), generator=generator)
        tensors |= {f"{spell(module)}.{up_name}": up, f"{spell(module)}.{down_name}": down}
        if alpha is not None:
            tensors[f"{spell(module)}.alpha"] = torch.tensor(alpha)
        merged[f"{module}.weight"] = weight + (alpha or RANK) / RANK * (up @ down).view_as(weight)
    return tensors, merged


def stored(folder: Path, tensors: Weights, header: dict | None = None) -> str:
    save_file({name: tensor.contiguous() for name, tensor in tensors.items()}, folder / "some.safetensors", header)
    return "some.safetensors"


def patched(model) -> Weights:
    """The weights as the model computes with them."""
    names = (name for name, _ in model.model.diffusion_model.named_parameters())
    return {name: model.patch_weight_to_device(f"diffusion_model.{name}", return_weight=True).float() for name in names}


def assert_merged(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for key, weight in expected.items():
        assert relative_error(found[key], weight) < 1e-6, key


def velocity(model) -> Tensor:
    """What the transformer makes with its patches."""
    model.patch_model()
    with torch.inference_mode():
        out = run_ours(model.model.diffusion_model, call(8, 12), seen(8, 12))
    model.unpatch_model()
    return out


@pytest.mark.parametrize("pair", PAIRS)
@pytest.mark.parametrize("naming", NAMINGS)
def test_every_naming_gives_the_merged_weights(weights, model, folder, naming, pair):
    tensors, merged = trained(weights, NAMINGS[naming], PAIRS[pair])

    found, report = loras.load(model, stored(folder, tensors), 1.0)

    assert_merged(patched(found), helios.to_comfy(merged))
    assert f"changes {len(TRAINED)} weights (10 in the blocks, 4 in the embedders of frames, 4 in other layers)" in report
    assert "not used" not in report


@pytest.mark.parametrize("naming", NAMINGS)
def test_the_result_is_that_of_a_checkpoint_with_the_merged_weights(weights, model, folder, tmp_path, naming):
    tensors, merged = trained(weights, NAMINGS[naming], PAIRS["up and down, alpha"])
    whole = checkpoints.load_path(save(merged, tmp_path, "Helios-merged-Base.safetensors"), {})

    found = velocity(loras.load(model, stored(folder, tensors), 1.0)[0])

    assert relative_error(found, velocity(whole)) < 1e-4
    assert relative_error(found, velocity(model)) > 1e-2


@pytest.mark.parametrize("name", ["blocks.0.norm2", "diffusion_model.blocks.0.norm3", "lora_unet_blocks_0_norm2"])
def test_the_norm_before_cross_attention_has_another_number_in_each_naming(weights, model, folder, name):
    change = torch.full((256,), 0.3)
    expected = dict(weights)
    expected["blocks.0.norm2.weight"] = weights["blocks.0.norm2.weight"] + 0.3
    expected["blocks.0.norm2.bias"] = weights["blocks.0.norm2.bias"] + 0.6

    found, _ = loras.load(model, stored(folder, {f"{name}.diff": change, f"{name}.diff_b": 2 * change}), 1.0)

    assert_merged(patched(found), helios.to_comfy(expected))


def test_the_embedders_of_frames_have_other_names_in_earlier_files(weights, model, folder):
    older = {"patch_short": "multi_term_memory_patch.patch_short", "patch_long": "clean_patch_embedding.proj_4x"}
    tensors, merged = trained(weights, lambda module: f"transformer.{older[module]}", PAIRS["A and B"], list(older))

    found, _ = loras.load(model, stored(folder, tensors), 1.0)

    assert_merged(patched(found), helios.to_comfy(merged))


def test_no_name_can_be_read_in_two_ways(model):
    places: dict[str, set[str]] = {}
    for module in {name.rpartition(".")[0] for name, _ in model.model.diffusion_model.named_parameters()}:
        for old in (module, *helios.modules_for(module)):
            for spelled in spellings(old):
                places.setdefault(spelled, set()).add(module)

    assert {spelled: found for spelled, found in places.items() if len(found) > 1} == {}


def test_what_is_not_used_of_a_lora_for_wan_is_named(weights, model, folder):
    """For image to video, with layers that Helios lacks, and of a text encoder."""
    tensors, _ = trained(weights, NAMINGS["musubi"], PAIRS["up and down, alpha"], ["blocks.0.attn2.to_k"])
    image = {f"lora_unet_blocks_0_cross_attn_k_img.lora_{part}.weight": torch.zeros(4, 4) for part in ("up", "down")}
    text = {f"lora_te1_text_model_encoder_layers_0_mlp_fc1.lora_{part}.weight": torch.zeros(4, 4) for part in ("up", "down")}

    _, report = loras.load(model, stored(folder, tensors | image | text, {"ss_base_model_version": "wan2.1"}), 1.0)

    assert report.splitlines() == [
        "some.safetensors at strength 1: changes 1 weights (1 in the blocks)",
        "not used: 2 tensors for text encoders, which Helios's LoRAs leave as they are",
        "not used: 2 tensors that are not of this model, first lora_unet_blocks_0_cross_attn_k_img.lora_down.weight",
        "made for wan2.1, as its header says",
    ]


ROWS = {"lora_up.weight": torch.zeros(8, 2), "lora_down.weight": torch.zeros(2, 8)}


@pytest.mark.parametrize(
    ("module", "said"),
    [
        (
            "transformer.single_transformer_blocks.0.attn.to_q",
            "none of its 2 tensors, first transformer.single_transformer_blocks.0.attn.to_q.lora_down.weight, is of Helios or "
            "Wan 14B; it seems to be for HunyuanVideo; load it on a FramePack model",
        ),
        (
            "diffusion_model.blocks.0.self_attn.q",
            "all 1 of its weights that Helios has too have another size, first diffusion_model.blocks.0.self_attn.q: 8x8, "
            "where the model has 256x256; choose a LoRA for Helios or Wan 14B",
        ),
        ("layers.0.attention", "is of Helios or Wan 14B; choose a LoRA for Helios or Wan 14B"),
    ],
    ids=["HunyuanVideo", "a smaller Wan", "unknown"],
)
def test_a_file_that_changes_nothing_is_an_error_that_says_what_it_is_for(model, folder, module, said):
    name = stored(folder, {f"{module}.{leaf}": tensor for leaf, tensor in ROWS.items()})

    with pytest.raises(ValueError) as raised:
        loras.load(model, name, 1.0)

    assert str(raised.value).startswith("some.safetensors changes nothing of the model: ") and str(raised.value).endswith(said)
