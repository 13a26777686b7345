"""Files from scripts/quantize.py through the whole graph: quantised in memory, and close to the full-precision result."""

import json
import subprocess
import sys
from pathlib import Path

import comfy.sd
import pytest
import torch
from comfy.model_management import module_size
from safetensors.torch import load_file, save_file
from support import given
from support.ours import relative_error, sample

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.loading.quantise import FORMATS
from framepack_core.comfyui.model.framepack import FramePackModel
from framepack_core.trained import Trained
from framepack_core.weights import names
from scripts.support.environment import ROOT
from scripts.support.quantising.convert import convert

# The tests' transformer magnifies errors of its weights several times.
BOUNDS = {"float8_e4m3fn": 0.2, "int8_tensorwise": 0.1, "mxfp8": 0.2, "nvfp4": 0.7, "convrot_w4a4": 0.8}


def video(model) -> torch.Tensor:
    return sample(model, given.inputs(8, 8), sections=2, steps=2)


@pytest.fixture(scope="module")
def expected(checkpoint) -> torch.Tensor:
    return video(checkpoints.load_path(str(checkpoint), {}))


@pytest.fixture(scope="module", params=FORMATS)
def quantised(request, checkpoint, tmp_path_factory) -> tuple[str, Path]:
    path = tmp_path_factory.mktemp("quantised") / f"{request.param}.safetensors"
    convert(checkpoint, path, request.param)
    return request.param, path


def test_the_result_is_near_that_of_full_precision(quantised, expected):
    name, path = quantised

    error = relative_error(video(checkpoints.load_path(str(path), {})), expected)

    assert 1e-3 < error < BOUNDS[name]


def test_blocks_take_in_memory_what_they_take_in_the_file(quantised):
    _, path = quantised

    model = checkpoints.load_path(str(path), {})

    blocks = [tensor for key, tensor in load_file(path).items() if "_blocks." in key and not key.endswith("comfy_quant")]
    transformer = model.model.diffusion_model
    marks = sum(part.nbytes for key, part in transformer.state_dict().items() if key.endswith("comfy_quant"))
    size = module_size(transformer.double_blocks) + module_size(transformer.single_blocks)
    assert size - marks == sum(tensor.nbytes for tensor in blocks)


@pytest.mark.slow
def test_core_s_own_loader_gives_the_same_model(quantised):
    _, path = quantised

    model = comfy.sd.load_diffusion_model(str(path))

    assert isinstance(model.model, FramePackModel)
    assert torch.equal(video(model), video(checkpoints.load_path(str(path), {})))


def test_weight_dtype_leaves_a_quantised_file_as_it_is(quantised):
    _, path = quantised

    model, same = (
        checkpoints.load_path(str(path), dict(checkpoints._FP8_OPTIONS[choice])) for choice in ("default", "fp8_e5m2")
    )

    expected, found = (dict(patcher.model.diffusion_model.state_dict()) for patcher in (model, same))
    assert {key: tensor.dtype for key, tensor in found.items()} == {key: tensor.dtype for key, tensor in expected.items()}


@pytest.mark.slow
def test_a_lora_changes_the_video_and_goes_again(quantised):
    _, path = quantised
    model = checkpoints.load_path(str(path), {})
    before = video(model)
    patched = model.clone()
    name = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    patched.add_patches({name: ("diff", (0.1 * torch.randn(768, 256, generator=torch.Generator().manual_seed(3)),))})

    assert relative_error(video(patched), before) > 1e-2
    assert torch.equal(video(model), before)


def test_a_quantised_file_that_lacks_a_matrix_is_refused(quantised, tmp_path):
    _, path = quantised
    left = {key: weight for key, weight in load_file(path).items() if key != "double_blocks.0.img_attn.qkv.weight"}
    save_file(left, tmp_path / "hole.safetensors")

    with pytest.raises(ValueError, match=r"lacks 1 of FramePack's weights, first double_blocks.0.img_attn.qkv.weight"):
        checkpoints.load_path(str(tmp_path / "hole.safetensors"), {})


FP8 = torch.float8_e4m3fn
Weights = dict[str, torch.Tensor]


def scaled(weights: Weights, scales: str) -> Weights:
    """Scaled fp8 as tools write it, with a scale per matrix or per row."""
    stored = dict(weights)
    for name, weight in weights.items():
        if weight.ndim == 2 and "blocks" in name and "norm" not in name:
            largest = weight.abs().amax() if scales == "tensor" else weight.abs().amax(dim=1, keepdim=True)
            stored[name] = (weight / largest * 448).to(FP8)
            stored[name.replace(".weight", ".scale_weight")] = largest / 448
            stored[name.replace(".weight", ".scale_input")] = torch.tensor(1.0 if name.endswith("2.weight") else 2.0)
    return stored


def named_formats(weights: Weights) -> tuple[Weights, dict[str, str]]:
    """Scaled fp8 whose header names the formats of layers."""
    stored = {name.replace("scale_weight", "weight_scale"): weight for name, weight in scaled(weights, "tensor").items()
              if not name.endswith("scale_input")}  # fmt: skip
    layers = {
        name.removesuffix(".weight_scale"): {"format": "float8_e4m3fn"} for name in stored if name.endswith("weight_scale")
    }
    return stored, {"_quantization_metadata": json.dumps({"layers": layers})}


def same_sources(weights: Weights) -> dict[str, tuple[Weights, dict[str, str]]]:
    """Files that can be read, with their headers."""
    marked = {"scaled_fp8": torch.empty(0, dtype=FP8)}
    return {
        "float32": (weights, {}),
        "bf16": ({name: weight.bfloat16() for name, weight in weights.items()}, {}),
        "fp8": ({name: weight.to(FP8) for name, weight in weights.items()}, {}),
        "fp8 e5m2 and bf16": (
            {name: weight.to(torch.float8_e5m2 if "attn" in name else torch.bfloat16) for name, weight in weights.items()},
            {},
        ),
        "scaled fp8": (scaled(weights, "tensor"), {}),
        "scaled fp8, rows": (scaled(weights, "row"), {}),
        "scaled fp8, fast": (scaled(weights, "tensor") | marked, {}),
        "formats in the header": named_formats(weights),
    }


@pytest.mark.parametrize("native", [False, True], ids=["official", "comfyui"])
@pytest.mark.parametrize("kind", same_sources({}))
def test_the_same_format_loads_as_the_same_weights(oracle, tmp_path, kind, native):
    weights = dict(oracle.state_dict())
    stored, header = same_sources(names.to_comfy(weights) if native else weights)[kind]
    trained = Trained(("geometric",), ("forward",))
    source, found = tmp_path / "source.safetensors", tmp_path / "same.safetensors"
    prefixed = {f"model.diffusion_model.{name}": weight for name, weight in stored.items()} if not header else stored
    save_file({name: weight.contiguous() for name, weight in prefixed.items()}, source, header | trained.metadata())

    convert(source, found, "same")

    assert not names.is_diffusers(load_file(found))
    options = {"dtype": stored["proj_out.weight" if not native else "final_layer.linear.weight"].dtype} if kind == "fp8" else {}
    expected, model = (checkpoints.load_path(str(path), dict(options)) for path in (source, found))
    assert_same(model.model.diffusion_model.state_dict(), expected.model.diffusion_model.state_dict())
    assert model.model.trained == trained


def assert_same(found: Weights, expected: Weights) -> None:
    assert found.keys() == expected.keys()
    for name, weight in expected.items():
        assert (found[name].dtype, found[name].shape) == (weight.dtype, weight.shape), name
        assert torch.equal(*(tensor.contiguous().reshape(-1).view(torch.uint8) for tensor in (found[name], weight))), name


def test_the_same_format_of_shards_is_one_file(oracle, tmp_path):
    weights = {name: weight.bfloat16() for name, weight in oracle.state_dict().items()}
    ordered = list(weights)
    for i in range(2):
        save_file({name: weights[name] for name in ordered[i::2]}, tmp_path / f"{i}.safetensors")
    index = {"weight_map": {name: f"{i % 2}.safetensors" for i, name in enumerate(ordered)}}
    (tmp_path / "model.safetensors.index.json").write_text(json.dumps(index))
    (tmp_path / "out").mkdir()

    convert(tmp_path, tmp_path / "out" / "same.safetensors", "same")

    assert_same(load_file(tmp_path / "out" / "same.safetensors"), names.to_comfy(dict(weights)))


def test_a_quantised_file_stays_as_it_is_in_the_same_format(quantised, tmp_path):
    _, path = quantised

    convert(path, tmp_path / "same.safetensors", "same")

    assert_same(load_file(tmp_path / "same.safetensors"), load_file(path))


def test_a_gguf_has_no_same_format(tmp_path):
    (tmp_path / "model.gguf").touch()

    with pytest.raises(ValueError, match=r"model.gguf is a GGUF"):
        convert(tmp_path / "model.gguf", tmp_path / "same.safetensors", "same")


@pytest.mark.slow
def test_the_demo_in_every_format_is_the_same_video_with_a_small_error(tmp_path):
    """The table that the script prints: eight bits have smaller errors than four and take more memory."""
    command = [sys.executable, ROOT / "scripts" / "quantize.py", "--compare"]

    done = subprocess.run(command, capture_output=True, text=True, cwd=tmp_path)

    assert done.returncode == 0, done.stderr
    rows = [[cell.strip("` ") for cell in line.strip("|").split("|")] for line in done.stdout.splitlines()[2:]]
    memory, error = ({row[0]: float(row[column].split()[0].rstrip("%")) for row in rows} for column in (1, 3))
    eight, four = ("float8_e4m3fn", "int8_tensorwise", "mxfp8", "GGUF Q8_0"), ("nvfp4", "convrot_w4a4", "GGUF Q4_0")
    assert error.keys() == {"bf16", "GGUF Q5_0", *eight, *four}
    assert error["bf16"] < min(error[name] for name in eight)
    assert max(error[name] for name in eight) < min(error[name] for name in four) and max(error.values()) < 50
    assert max(memory[name] for name in four) < min(memory[name] for name in eight) < memory["bf16"] / 3
