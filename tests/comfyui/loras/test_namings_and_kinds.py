"""The model is that of merged weights, whoever named them and whatever they are."""

import pytest
import torch
from support.checkpoints import save
from support.loras import (
    KINDS,
    NAMINGS,
    NATIVE,
    assert_merged,
    in_comfyui_s_names,
    loaded,
    loha,
    make,
    patched,
    stored,
    underscored,
    video,
    whole,
)
from support.ours import relative_error

from framepack_core.comfyui.loading import checkpoints, loras
from framepack_core.weights import names
from framepack_core.weights.loras import spellings


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
