"""Every kind of Helios file gives the same model, the variant is told, and plain Wan stays ComfyUI's."""

from pathlib import Path

import comfy.sd
import folder_paths
import pytest
import torch
from comfy.ldm.wan.model import WanModel
from safetensors.torch import load_file
from support.checkpoints import Weights, save, save_shards
from support.helios import SMALL, call, run_ours, seen, small_helios
from support.ours import relative_error

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.comfyui.model.helios.model import HeliosModel
from framepack_core.weights import fp8, helios
from framepack_core.weights.variants import KEY
from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf

FP8 = torch.float8_e4m3fn
BOUNDS = {"float8_e4m3fn": 0.1, "int8_tensorwise": 0.05, "mxfp8": 0.1, "nvfp4": 0.3, "convrot_w4a4": 0.45}  # of the error


@pytest.fixture(scope="module")
def oracle():
    return small_helios()


@pytest.fixture(scope="module")
def weights(oracle) -> Weights:
    """Official/diffusers names."""
    return dict(oracle.state_dict())


@pytest.fixture(scope="module")
def native(weights) -> Weights:
    """ComfyUI's names."""
    return helios.to_comfy(weights.copy())


@pytest.fixture(scope="module")
def expected(weights, tmp_path_factory) -> torch.Tensor:
    return velocity(checkpoints.load_path(save(weights, tmp_path_factory.mktemp("models"), "Helios-Base.safetensors"), {}))


def velocity(patcher) -> torch.Tensor:
    """One call, with a history, in the precision that ComfyUI has chosen for the file."""
    dtype = patcher.model.get_dtype_inference()
    context, given = seen(8, 12), call(8, 12)
    given = {name: value.to(dtype) if value.is_floating_point() else value for name, value in given.items()}
    with torch.inference_mode():
        return run_ours(patcher.model.diffusion_model, given, context).float()


def loaded(weights: Weights, folder: Path, **options):
    return checkpoints.load_path(save(weights, folder, "Helios-Base.safetensors"), options)


def older(weights: Weights) -> Weights:
    """As in the first files: another name of the head's table, and embedders of history that are a module of their own."""
    renamed = {key.replace("norm_out.scale_shift_table", "scale_shift_table"): weight for key, weight in weights.items()}
    return {
        f"multi_term_memory_patch.{key}" if key.startswith(("patch_short", "patch_mid", "patch_long")) else key: weight
        for key, weight in renamed.items()
    }


def oldest(weights: Weights) -> Weights:
    embedders = {"patch_short": "proj", "patch_mid": "proj_2x", "patch_long": "proj_4x"}
    return {
        f"clean_patch_embedding.{embedders[module]}.{leaf}" if module in embedders else key: weight
        for key, weight in weights.items()
        for module, _, leaf in [key.rpartition(".")]
    }


def with_leftovers(weights: Weights) -> Weights:
    names = ("gan_heads.0.weight", "gan_final_head.weight", "blocks.0.attn1.q_loras.0.down.weight")
    return weights | {name: torch.zeros(2, 2) for name in names}


def prefixed(weights: Weights) -> Weights:
    return {f"model.diffusion_model.{name}": weight for name, weight in weights.items()}


@pytest.mark.parametrize("spelling", [older, oldest, with_leftovers, prefixed])
def test_every_spelling_of_official_names(weights, expected, tmp_path, spelling):
    assert torch.equal(velocity(loaded(spelling(weights), tmp_path)), expected)


@pytest.mark.parametrize("spelling", [dict, prefixed])
def test_comfyui_names(native, expected, tmp_path, spelling):
    assert torch.equal(velocity(loaded(spelling(native), tmp_path)), expected)


def test_comfyui_names_through_core_s_own_loader(native, expected, tmp_path):
    model = comfy.sd.load_diffusion_model(save(native, tmp_path))

    assert isinstance(model.model, HeliosModel)
    assert torch.equal(velocity(model), expected)


def test_a_sharded_folder(weights, expected, tmp_path):
    assert torch.equal(velocity(checkpoints.load_path(save_shards(weights, tmp_path), {})), expected)


def test_a_model_that_amplifies_its_history(tmp_path):
    amplified = small_helios(is_amplify_history=True)

    found = loaded(dict(amplified.state_dict()), tmp_path).model.diffusion_model

    assert found.blocks[0].self_attn.history_key_scale.shape == (SMALL["num_attention_heads"],)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, FP8])
def test_half_and_plain_fp8_files(weights, expected, tmp_path, dtype):
    """Only the stored precision differs: the result is that of the rounded weights in float32 arithmetic."""
    rounded = {name: weight.to(dtype).float() for name, weight in weights.items()}

    found = velocity(loaded({name: weight.to(dtype) for name, weight in weights.items()}, tmp_path))

    exact = velocity(loaded(rounded, tmp_path))
    assert relative_error(found, exact) < (0.05 if dtype == torch.bfloat16 else 1e-4)  # bf16 files run in bf16
    assert relative_error(exact, expected) > 1e-4


@pytest.mark.parametrize("name", ["fp8_e4m3fn", "fp8_e5m2"])
def test_weight_dtype_stores_the_blocks_matrices_in_fp8(weights, expected, tmp_path, name):
    options = checkpoints._FP8_OPTIONS[name]

    model = loaded(weights, tmp_path, **options)

    for key, weight in model.model.diffusion_model.named_parameters():
        matrix = key.startswith("blocks.") and weight.ndim == 2
        assert weight.dtype == (options["dtype"] if matrix else torch.float32), key
    assert 0 < relative_error(velocity(model), expected) < 0.5


def test_in_bf16_what_the_reference_keeps_in_float32_stays_so(weights, tmp_path):
    model = loaded(weights, tmp_path, dtype=torch.bfloat16).model.diffusion_model

    exact = {key for key, weight in model.named_parameters() if weight.dtype == torch.float32}
    kept = ("time_embedding", "patch_", "head.modulation")
    assert exact == {key for key, _ in model.named_parameters()
                     if key.startswith(kept) or key.endswith(".modulation") or ".norm3." in key}  # fmt: skip


@pytest.mark.parametrize("scales", ["tensor", "row"])
@pytest.mark.parametrize("names", ["official", "comfyui"])
def test_scaled_fp8_files(weights, native, tmp_path, names, scales):
    stored, dequantised = scaled(weights if names == "official" else native, scales)

    found = velocity(loaded(stored, tmp_path))

    assert relative_error(found, velocity(loaded(dequantised, tmp_path))) < 0.15


def scaled(weights: Weights, scales: str) -> tuple[Weights, Weights]:
    """The blocks' matrices in scaled fp8, and the float32 weights that they stand for."""
    stored, exact = dict(weights), dict(weights)
    for key, weight in weights.items():
        if key.startswith("blocks.") and weight.ndim == 2:
            largest = weight.abs().amax(dim=1, keepdim=True) if scales == "row" else weight.abs().amax()
            scale = largest / torch.finfo(FP8).max
            stored[key], stored[key.removesuffix("weight") + "scale_weight"] = (weight / scale).to(FP8), scale
            exact[key] = fp8.dequantise(stored[key], scale)
    return stored, exact


@pytest.mark.parametrize("name", FORMATS)
def test_files_of_the_quantize_script(weights, expected, tmp_path, name):
    """They say themselves which variant they are."""
    source, path = save(weights, tmp_path, "Helios-Mid.safetensors"), tmp_path / "quantised.safetensors"
    convert(Path(source), path, name)

    model = checkpoints.load_path(str(path), {"dtype": FP8})

    assert model.model.variant == "mid"
    assert type(model.model.diffusion_model.blocks[0].self_attn.q.weight).__name__ == "QuantizedTensor"
    assert 0 < relative_error(velocity(model), expected) < BOUNDS[name]


@pytest.mark.parametrize("spelling", [older, oldest, with_leftovers])
def test_the_quantize_script_gives_every_spelling_comfyui_s_names(weights, native, tmp_path, spelling):
    source, path = save(spelling(weights), tmp_path), tmp_path / "comfyui.safetensors"

    convert(Path(source), path, "same")

    found = load_file(path)
    assert found.keys() == native.keys() and all(torch.equal(found[key], native[key]) for key in native)


@pytest.mark.parametrize("names", ["official", "comfyui"])
def test_a_gguf_file(weights, native, expected, tmp_path, names):
    path = write_gguf(tmp_path / "helios-mid.gguf", weights if names == "official" else native, "Q8_0")

    model = checkpoints.load_path(str(path), {})

    assert relative_error(velocity(model), expected) < 0.1
    assert model.model.variant == "mid"


def test_a_loaded_model_can_be_loaded_again_by_comfyui(weights, expected, tmp_path):
    model = checkpoints.load_path(save(weights, tmp_path), {}, "distilled")
    factory, arguments = model.cached_patcher_init

    again = factory(*arguments, disable_dynamic=True)

    assert torch.equal(velocity(again), expected) and again.model.variant == "distilled"


# Which variant it is


@pytest.mark.parametrize(
    ("name", "metadata", "chosen", "variant"),
    [
        ("Helios-Distilled.safetensors", {KEY: "mid"}, "base", "base"),
        ("Helios-Distilled.safetensors", {KEY: "mid"}, "auto", "mid"),
        ("Helios-Distilled.safetensors", None, "auto", "distilled"),
        ("helios_distill_bf16.safetensors", {KEY: "other"}, "auto", "distilled"),
        ("HeliosMid.safetensors", None, "auto", "base"),
        ("amid.safetensors", None, "auto", "base"),
    ],
)
def test_the_choice_comes_before_the_header_and_the_header_before_the_name(weights, tmp_path, name, metadata, chosen, variant):
    path = save(weights, tmp_path, name, metadata)

    assert checkpoints.load_path(path, {}, chosen).clone().model.variant == variant


def test_a_sharded_folder_is_named_by_the_one_it_lies_in(weights, tmp_path, monkeypatch):
    (folder := tmp_path / "base" / "Helios-Mid" / "transformer").mkdir(parents=True)
    save_shards(weights, folder)
    monkeypatch.setattr(folder_paths, "get_folder_paths", lambda category: [str(tmp_path)])

    assert checkpoints.load("base/Helios-Mid/transformer/", "default").model.variant == "mid"


def test_if_nothing_tells_it_is_taken_for_base_and_the_log_says_so(weights, tmp_path, caplog):
    model = checkpoints.load_path(save(weights, tmp_path, "helios.safetensors"), {})

    assert model.model.variant == "base"
    assert "which Helios helios.safetensors is" in caplog.text and "Choose the variant" in caplog.text


def test_another_variant_is_refused(weights, tmp_path):
    with pytest.raises(ValueError, match=r"variant is 'turbo'; choose one of auto, base, mid, distilled"):
        checkpoints.load_path(save(weights, tmp_path), {}, "turbo")


# What is refused, and what stays ComfyUI's


def without_history(weights: Weights) -> Weights:
    return {key: weight for key, weight in weights.items() if not key.startswith(("patch_short", "patch_mid", "patch_long"))}


@pytest.mark.parametrize("spelling", [dict, prefixed])
def test_plain_wan_is_refused(weights, native, tmp_path, spelling):
    for names in (weights, native):
        path = save(spelling(without_history(names)), tmp_path, "wan2.1_t2v.safetensors")
        with pytest.raises(ValueError, match=r"wan2\.1_t2v\.safetensors is a plain Wan model .* Load Diffusion Model"):
            checkpoints.load_path(path, {})


def test_plain_wan_still_loads_as_core_s(native, tmp_path):
    plain = without_history(native) | {"text_embedding.0.weight": torch.zeros(256, 4096)}  # which ComfyUI takes for granted

    model = comfy.sd.load_diffusion_model(save(plain, tmp_path))

    assert type(model.model).__name__ == "WAN21"
    assert type(model.model.diffusion_model) is WanModel


@pytest.mark.parametrize(
    "missing", ["head.modulation", "blocks.1.modulation", "patch_mid.bias", "blocks.1.ffn.2.weight", "blocks.0.norm3.bias"]
)
def test_missing_weights_are_refused(native, tmp_path, missing):
    left = {key: weight for key, weight in native.items() if key != missing}

    with pytest.raises(ValueError, match=rf"incomplete: it lacks .*{missing}"):
        loaded(left, tmp_path)


def test_an_unknown_weight_is_refused_by_name(weights, tmp_path):
    with pytest.raises(ValueError, match=r"blocks\.0\.attn3\.weight is not a weight of Helios' transformer"):
        loaded(weights | {"blocks.0.attn3.weight": torch.zeros(2)}, tmp_path)


@pytest.mark.parametrize("fault", ["WanModel", "WanAttentionBlock"])
def test_without_comfyui_s_wan_a_helios_file_is_refused_and_not_loaded_as_wan(weights, tmp_path, monkeypatch, fault):
    monkeypatch.delattr(f"comfy.ldm.wan.model.{fault}")

    with pytest.raises(ValueError, match=rf"{fault} does not exist .* loading and sampling Helios models"):
        loaded(weights, tmp_path)
