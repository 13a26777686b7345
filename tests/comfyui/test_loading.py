"""Every kind of checkpoint file gives the same model."""

import errno
import json
import logging
import sys
from pathlib import Path

import comfy.lora
import comfy.memory_management
import comfy.model_management
import comfy.sd
import folder_paths
import pytest
import torch
from comfy.cli_args import args
from support import given
from support.checkpoints import Weights, save, save_shards
from support.ours import relative_error, sample

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.loading.kinds import FRAMEPACK
from framepack_core.comfyui.model import residence
from framepack_core.comfyui.model.framepack import FramePackModel
from framepack_core.trained import Trained
from framepack_core.weights import fp8, names

FP8 = torch.float8_e4m3fn


@pytest.fixture(scope="module")
def weights(oracle) -> Weights:
    """Official/diffusers names."""
    return dict(oracle.state_dict())


@pytest.fixture(scope="module")
def expected(checkpoint) -> torch.Tensor:
    return video(checkpoints.load_path(str(checkpoint), {}))


def video(model) -> torch.Tensor:
    return sample(model, given.inputs(8, 8), sections=2, steps=2)


def test_official_names_with_a_prefix(weights, expected, tmp_path):
    path = save({f"model.diffusion_model.{name}": weight for name, weight in weights.items()}, tmp_path)

    assert torch.equal(video(checkpoints.load_path(path, {})), expected)


def test_what_the_header_says_of_the_training_comes_with_the_model(weights, tmp_path):
    trained = Trained(("geometric", "td_f2k1_g9"), ("forward",))
    path = save(weights, tmp_path, metadata=trained.metadata())

    assert checkpoints.load_path(path, {}).clone().model.trained == trained


def test_a_released_file_says_nothing_of_its_training(checkpoint):
    assert checkpoints.load_path(str(checkpoint), {}).model.trained is None


def test_a_header_that_cannot_be_understood_is_warned_about(weights, tmp_path, caplog):
    path = save(weights, tmp_path, "odd.safetensors", metadata={"framepack.layouts": "all"})

    assert checkpoints.load_path(path, {}).model.trained is None
    assert "what odd.safetensors was trained with is unknown: framepack.layouts is 'all'" in caplog.text


def test_a_sharded_folder(weights, expected, tmp_path):
    assert torch.equal(video(checkpoints.load_path(save_shards(weights, tmp_path), {})), expected)


def test_comfyui_names(weights, expected, tmp_path):
    path = save(names.to_comfy(weights.copy()), tmp_path)

    assert torch.equal(video(checkpoints.load_path(path, {})), expected)


def test_comfyui_names_through_core_s_own_loader(weights, expected, tmp_path):
    model = comfy.sd.load_diffusion_model(save(names.to_comfy(weights.copy()), tmp_path))

    assert isinstance(model.model, FramePackModel)
    assert torch.equal(video(model), expected)


@pytest.mark.parametrize(("dtype", "bound"), [(torch.bfloat16, 3e-2), (torch.float16, 5e-3), (FP8, 0.2)])
def test_half_and_plain_fp8_files(weights, expected, tmp_path, dtype, bound):
    """Only the stored precision differs: the result is that of the rounded weights in float32 arithmetic."""
    path = save({name: weight.to(dtype) for name, weight in weights.items()}, tmp_path)
    rounded = save({name: weight.to(dtype).float() for name, weight in weights.items()}, tmp_path, "rounded.safetensors")

    found = video(checkpoints.load_path(path, {}))

    assert relative_error(found, expected) < bound
    if dtype != torch.bfloat16:  # bf16 files run in bf16
        assert relative_error(found, video(checkpoints.load_path(rounded, {}))) < 1e-5


@pytest.mark.parametrize("dtype", ["fp8_e4m3fn", "fp8_e5m2"])
def test_weight_dtype_stores_the_large_matrices_in_fp8(checkpoint, expected, dtype):
    options = checkpoints._FP8_OPTIONS[dtype]

    model = checkpoints.load_path(str(checkpoint), dict(options))

    for name, weight in model.model.diffusion_model.named_parameters():
        matrix = "_blocks." in name and weight.ndim == 2
        assert weight.dtype == (options["dtype"] if matrix else torch.float32), name
    assert 0 < relative_error(video(model), expected) < 0.5


@pytest.mark.parametrize("room", [True, False])
@pytest.mark.parametrize("stored", [torch.float32, torch.bfloat16])
def test_fp8_values_are_those_of_a_plain_cast(weights, tmp_path, monkeypatch, room, stored):
    given = {name: weight.to(stored) for name, weight in weights.items()}
    monkeypatch.setattr(residence, "has_room", lambda size: room)

    model = checkpoints.load_path(save(given, tmp_path), {"dtype": FP8})

    for name, weight in names.to_comfy(given).items():
        found = model.model.diffusion_model.get_parameter(name)
        assert torch.equal(found.float(), (weight.to(FP8) if "_blocks." in name and weight.ndim == 2 else weight).float()), name


def test_with_dynamic_vram_fp8_is_left_to_comfyui_and_the_file_s_weights_are_not_copied(weights, tmp_path, monkeypatch):
    """Except for the fast product, which looks at the dtype of the weight that is not on the card yet."""
    native = {name: weight.bfloat16() for name, weight in names.to_comfy(weights.copy()).items()}
    monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "is_dynamic", lambda patcher: True)
    path = save(native, tmp_path)

    plain, fast = (
        checkpoints.load_path(path, dict(checkpoints._FP8_OPTIONS[name])) for name in ("fp8_e4m3fn", "fp8_e4m3fn_fast")
    )

    layer, fast_layer = (model.model.diffusion_model.double_blocks[0].img_attn.qkv for model in (plain, fast))
    assert (layer.weight.dtype, layer.weight_comfy_model_dtype) == (torch.bfloat16, FP8)
    assert (layer.bias.dtype, layer.bias_comfy_model_dtype) == (torch.bfloat16, torch.bfloat16)
    assert fast_layer.weight.dtype == FP8
    assert torch.equal(layer.weight.to(FP8).float(), fast_layer.weight.float())


def test_without_room_in_memory_weights_stay_in_the_file_and_are_not_pinned(weights, expected, tmp_path, monkeypatch):
    """What ComfyUI pins becomes a copy."""
    monkeypatch.setattr(residence, "has_room", lambda size: False)
    pinned: list[int] = []
    monkeypatch.setattr(torch.cuda.cudart, "cudaHostRegister", lambda *args: pinned.append(args[0]) or 0, raising=False)
    monkeypatch.setattr(torch.cuda, "cudart", lambda: torch.cuda.cudart)
    path = save(names.to_comfy(weights.copy()), tmp_path)

    model = checkpoints.load_path(path, {})

    assert in_file(path, model.model.diffusion_model.double_blocks[0].img_attn.qkv.weight)
    monkeypatch.setattr(comfy.model_management, "MAX_PINNED_MEMORY", 10**12)
    model.pin_weight_to_device("diffusion_model.double_blocks.0.img_attn.qkv.weight")
    assert not pinned
    assert relative_error(video(model), expected) < 1e-5


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="only Linux refuses it")
def test_a_file_that_is_larger_than_the_computer_s_memory_is_mapped_all_the_same(weights, expected, tmp_path, monkeypatch):
    def refused(path: str, return_metadata: bool):
        raise RuntimeError(f"unable to mmap 25748783128 bytes from file <{path}>: Cannot allocate memory (12)")

    trained = Trained(("geometric",), ("forward",))
    path = save(weights, tmp_path, metadata=trained.metadata())
    monkeypatch.setattr(comfy.utils, "load_torch_file", refused)

    model = checkpoints.load_path(path, {})

    assert torch.equal(video(model), expected) and model.model.trained == trained


def test_with_room_in_memory_the_file_is_let_go(weights, tmp_path):
    """So that it can be replaced while ComfyUI runs, which Windows refuses for a file that is mapped."""
    for dtype in (torch.float32, FP8):
        path = save({name: weight.to(dtype) for name, weight in weights.items()}, tmp_path)

        model = checkpoints.load_path(path, {"dtype": dtype})

        assert path not in Path("/proc/self/maps").read_text(), model


def in_file(path: str, weight: torch.Tensor) -> bool:
    """Whether a tensor lies in the memory that a file is mapped to."""
    ranges = [line.split()[0].split("-") for line in Path("/proc/self/maps").read_text().splitlines() if line.endswith(path)]
    return any(int(begin, 16) <= weight.data_ptr() < int(end, 16) for begin, end in ranges)


def test_the_log_says_what_joining_costs_and_the_command_that_saves_it(weights, tmp_path, caplog, monkeypatch):
    monkeypatch.setattr(checkpoints, "WORTH_SAYING", 1)
    caplog.set_level(logging.INFO, "framepack")
    joined = sum(
        weight.nbytes for name, weight in weights.items() if names.rename_module(name.rpartition(".")[0]).part is not None
    )
    swapped = sum(weights[f"norm_out.linear.{leaf}"].nbytes for leaf in ("weight", "bias"))

    native = save(names.to_comfy(weights.copy()), tmp_path, "native.safetensors")
    checkpoints.load_path(native, {})
    assert "put together" not in caplog.text
    monkeypatch.setattr(checkpoints, "WORTH_SAYING", joined + swapped)
    path = save(weights, tmp_path, "official.safetensors")
    checkpoints.load_path(path, {})

    assert f"official.safetensors does not have ComfyUI's names, so {(joined + swapped) / 1e9:.1f} GB" in caplog.text
    command = f'quantize.py" "{path}" "{tmp_path / "official_comfyui.safetensors"}" --format same'
    assert command in caplog.text
    assert Path(caplog.text.split('python3 "')[1].split('"')[0]).is_file()
    caplog.clear()
    monkeypatch.setattr(checkpoints, "WORTH_SAYING", joined + swapped + 1)
    checkpoints.load_path(path, {})
    assert "put together" not in caplog.text


# What it computes in


class Card:
    """ComfyUI's answers about a card."""

    def __init__(self, monkeypatch, bf16: bool, fp16: bool = True) -> None:
        management = comfy.model_management
        monkeypatch.setattr(management, "get_torch_device", lambda: torch.device("cuda:0"))
        monkeypatch.setattr(management, "should_use_bf16", lambda *args, **kwargs: bf16)
        monkeypatch.setattr(management, "should_use_fp16", lambda *args, **kwargs: fp16)
        monkeypatch.setattr(management, "supports_fp8_compute", lambda *args: False)
        monkeypatch.setattr(management, "maximum_vram_for_weights", lambda *args: 10**6)
        monkeypatch.setattr(comfy.model_patcher.ModelPatcher, "__del__", lambda patcher: None)


def kinds(weights: Weights, folder: Path) -> dict[str, str]:
    """A file of each kind that ComfyUI chooses a precision for in its own way."""
    from scripts.support.quantising.convert import convert
    from scripts.support.quantising.to_gguf import write_gguf

    files = {str(dtype): save({name: weight.to(dtype) for name, weight in weights.items()}, folder, f"{dtype}.safetensors")
             for dtype in (torch.bfloat16, torch.float16, FP8)}  # fmt: skip
    convert(Path(save(weights, folder)), folder / "int8.safetensors", "int8_tensorwise")
    gguf = write_gguf(folder / "q8.gguf", names.to_comfy(weights.copy()), "Q8_0")
    return {**files, "int8": str(folder / "int8.safetensors"), "gguf": str(gguf)}


def test_a_card_without_bf16_computes_in_float32_and_the_log_says_so(weights, tmp_path, monkeypatch, caplog):
    caplog.set_level(logging.INFO, "framepack")
    files = kinds(weights, tmp_path)
    for bf16, dtype in ((False, torch.float32), (True, torch.bfloat16)):
        Card(monkeypatch, bf16)
        for kind, path in files.items():
            caplog.clear()

            model = checkpoints.load_path(path, {})

            assert model.model.get_dtype_inference() == dtype, kind
            said = [record.message for record in caplog.records if "float32" in record.message]
            assert len(said) == (not bf16), kind
            assert all("the card (cuda:0) has no fast bfloat16" in line and "slower" in line for line in said)


def test_float16_is_warned_about_where_it_is_computed_in(weights, tmp_path, monkeypatch, caplog):
    files = kinds(weights, tmp_path)
    Card(monkeypatch, bf16=True)
    monkeypatch.setattr(args, "fp16_unet", True)
    for kind, path in files.items():
        caplog.clear()

        model = checkpoints.load_path(path, {})

        computes = model.model.get_dtype_inference() == torch.float16
        assert computes == (kind != "int8"), kind  # ComfyUI computes with quantised files in bf16 whatever is asked for
        assert ("frames may be black. Start ComfyUI without --fp16-unet" in caplog.text) == computes


def test_a_cpu_is_not_a_card_without_bf16(checkpoint, caplog):
    caplog.set_level(logging.INFO, "framepack")

    checkpoints.load_path(str(checkpoint), {})

    assert "bfloat16" not in caplog.text


# Which files there are


@pytest.fixture
def models(tmp_path, monkeypatch) -> Path:
    """An empty folder of models."""
    folder = tmp_path / "diffusion_models"
    folder.mkdir()
    monkeypatch.setattr(
        folder_paths, "get_folder_paths", lambda category: [str(folder)] if category == "diffusion_models" else []
    )
    return folder


def touch(path: Path) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.touch()
    return path


def test_linked_folders_are_listed_as_comfyui_does(models, tmp_path):
    touch(tmp_path / "disk" / "deep" / "model.safetensors")
    touch(models / "own" / "Upper.SAFETENSORS")
    touch(models / ".hidden" / "model.gguf")
    touch(models / ".git" / "model.safetensors")
    touch(models / "notes.txt")
    (models / "folder.safetensors").mkdir()
    (models / "linked").symlink_to(tmp_path / "disk")
    (models / "linked.safetensors").symlink_to(models / "own" / "Upper.SAFETENSORS")

    found = checkpoints.model_names()

    core = folder_paths.recursive_search(str(models), excluded_dir_names=[".git"])[0]
    assert found == sorted(folder_paths.filter_files_extensions(core, checkpoints.SUFFIXES))
    assert {"linked/deep/model.safetensors", "own/Upper.SAFETENSORS", ".hidden/model.gguf"} <= set(found)


def test_links_that_lead_back_end(models, tmp_path):
    touch(models / "a" / "model.safetensors")
    touch(models / "b" / "other.safetensors")
    (models / "a" / "up").symlink_to(models)
    (models / "a" / "to_b").symlink_to(models / "b")
    (models / "b" / "to_a").symlink_to(models / "a")
    (models / "itself").symlink_to(models / "itself")

    found = checkpoints.model_names()

    assert found == ["a/model.safetensors", "a/to_b/other.safetensors", "b/other.safetensors", "b/to_a/model.safetensors"]


def test_a_linked_folder_of_shards_is_one_model(models, weights, expected, tmp_path):
    (tmp_path / "disk" / "sharded").mkdir(parents=True)
    save_shards(weights, tmp_path / "disk" / "sharded")
    (models / "linked").symlink_to(tmp_path / "disk")

    assert checkpoints.model_names() == ["linked/sharded/"]
    assert torch.equal(video(checkpoints.load("linked/sharded/", "default")), expected)


def test_a_folder_that_cannot_be_read_hides_no_others(models, monkeypatch):
    touch(models / "model.safetensors")
    touch(models / "closed" / "hidden.safetensors")
    listed = Path.iterdir

    def iterdir(folder: Path):
        if folder.name == "closed":
            raise PermissionError(errno.EACCES, "Permission denied")  # root, who may run this, can read everything
        return listed(folder)

    monkeypatch.setattr(Path, "iterdir", iterdir)

    assert checkpoints.model_names() == ["model.safetensors"]


def test_a_file_that_chose_its_fp8_weights_keeps_the_others(weights, tmp_path):
    attention = {
        name: weight.to(FP8) for name, weight in weights.items() if name.endswith(("to_q.weight", "to_k.weight", "to_v.weight"))
    }
    path = save({**weights, **attention}, tmp_path)

    model = checkpoints.load_path(path, {"dtype": FP8}).model.diffusion_model

    assert model.double_blocks[0].img_attn.qkv.weight.dtype == FP8
    assert model.double_blocks[0].img_mod.lin.weight.dtype == torch.float32
    assert model.single_blocks[0].linear1.weight.dtype == torch.float32  # q, k and v in fp8, the mlp not


def test_lora_patches_apply_to_fp8_weights(checkpoint):
    model = checkpoints.load_path(str(checkpoint), dict(checkpoints._FP8_OPTIONS["fp8_e4m3fn"]))
    before = video(model)
    name = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    patched = model.clone()
    patched.add_patches({name: ("diff", (0.1 * torch.randn(3 * 256, 256),))})

    assert relative_error(video(patched), before) > 1e-3
    assert torch.equal(video(model), before)


def scaled(weights: Weights, scales: str) -> tuple[Weights, Weights]:
    """A scaled fp8 file as tools write it, and the same weights dequantised."""
    stored, dequantised = {}, {}
    for name, weight in weights.items():
        stored[name] = dequantised[name] = weight
        if weight.ndim == 2 and "blocks" in name and "norm" not in name:
            shape = {"tensor": weight.reshape(1, -1), "row": weight, "block": weight.unflatten(1, (-1, 64))}[scales]
            scale = shape.abs().amax(dim=-1, keepdim=True) / torch.finfo(FP8).max
            stored[name] = (shape / scale).to(FP8).reshape(weight.shape)
            scale = scale.flatten() if scales == "tensor" else scale
            stored[name.replace(".weight", ".scale_weight")] = scale
            dequantised[name] = fp8.dequantise(stored[name], scale)
    return stored, dequantised


@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("scales", ["tensor", "row", "block"])
def test_scaled_fp8_files(weights, tmp_path, scales, marker):
    """One scale per matrix, row or block; with and without the marker key; q, k and v become one matrix."""
    stored, dequantised = scaled(weights, scales)
    if marker:
        stored["scaled_fp8"] = torch.empty(2, dtype=FP8)
    path = save(stored, tmp_path)
    exact = video(checkpoints.load_path(save(dequantised, tmp_path, "exact.safetensors"), {}))

    model = checkpoints.load_path(path, {})

    linear = model.model.diffusion_model.double_blocks[0].img_attn.qkv
    assert type(linear.weight).__name__ == "QuantizedTensor"
    assert relative_error(video(model), exact) < 0.15


@pytest.mark.parametrize("marker", [True, False])
@pytest.mark.parametrize("scales", ["tensor", "row", "block"])
def test_scaled_fp8_files_in_comfyui_names(weights, tmp_path, scales, marker):
    stored, dequantised = scaled(names.to_comfy(weights.copy()), scales)
    if marker:
        stored["scaled_fp8"] = torch.empty(2, dtype=FP8)
    path = save(stored, tmp_path)
    exact = video(checkpoints.load_path(save(dequantised, tmp_path, "exact.safetensors"), {}))

    assert relative_error(video(checkpoints.load_path(path, {})), exact) < 0.15


def test_scaled_fp8_in_comfyui_names_through_core_s_own_loader(weights, tmp_path):
    stored, dequantised = scaled(weights, "tensor")
    checkpoints.make_scales_readable(stored)
    native = checkpoints.to_comfy(stored, None, FRAMEPACK)
    quantised = {name: weight for name, weight in native.items() if not name.endswith("comfy_quant")}
    layers = {name.removesuffix(".comfy_quant"): {"format": "float8_e4m3fn"} for name in native.keys() - quantised.keys()}
    metadata = {"_quantization_metadata": json.dumps({"layers": layers})}
    path = save(quantised, tmp_path, metadata=metadata)
    exact = video(checkpoints.load_path(save(dequantised, tmp_path, "exact.safetensors"), {}))

    model = comfy.sd.load_diffusion_model(path)

    assert isinstance(model.model, FramePackModel)
    assert relative_error(video(model), exact) < 0.15


def test_a_plain_hunyuanvideo_checkpoint_still_loads_as_core_s(weights, tmp_path):
    plain = {k: w for k, w in weights.items() if not k.startswith(("clean_x_embedder", "image_projection"))}

    model = comfy.sd.load_diffusion_model(save(names.to_comfy(plain), tmp_path))

    assert type(model.model).__name__ == "HunyuanVideo"
    assert type(model.model.diffusion_model).__module__ == "comfy.ldm.hunyuan_video.model"


def test_a_loaded_model_can_be_loaded_again_by_comfyui(checkpoint, expected):
    model = checkpoints.load_path(str(checkpoint), {})
    factory, arguments = model.cached_patcher_init

    assert torch.equal(video(factory(*arguments, disable_dynamic=True)), expected)


def test_core_maps_lora_names_as_for_hunyuanvideo(checkpoint):
    mapping = comfy.lora.model_lora_keys_unet(checkpoints.load_path(str(checkpoint), {}).model, {})

    qkv = "diffusion_model.double_blocks.0.img_attn.qkv.weight"
    for name in (
        "lora_unet_double_blocks_0_img_attn_qkv",
        "diffusion_model.double_blocks.0.img_attn.qkv",
        "transformer.double_blocks.0.img_attn_qkv",
        "diffusion_model.double_blocks.0.img_attn_qkv",
    ):
        assert mapping[name] == qkv
