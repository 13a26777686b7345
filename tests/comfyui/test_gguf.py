"""GGUF checkpoints: quantised in memory, and the same model as one whose weights are rounded in the same way."""

import sys
import warnings
from pathlib import Path

import comfy.hooks
import gguf as package
import numpy
import pytest
import torch
from comfy.model_management import module_size
from safetensors.torch import save_file
from support import given
from support.ours import relative_error, sample
from torch._subclasses.fake_tensor import FakeTensorMode
from torch.utils._python_dispatch import TorchDispatchMode

from framepack_core.comfyui.loading import checkpoints, gguf
from framepack_core.trained import Trained
from framepack_core.weights import names
from scripts.support.quantising.to_gguf import write_gguf

QKV = "double_blocks.0.img_attn.qkv"

Weights = dict[str, torch.Tensor]


@pytest.fixture(scope="module")
def weights(oracle) -> Weights:
    """Official/diffusers names."""
    return dict(oracle.state_dict())


@pytest.fixture(scope="module")
def native(weights) -> Weights:
    return names.to_comfy(weights.copy())


@pytest.fixture(scope="module")
def q8(native, tmp_path_factory) -> Path:
    return write_gguf(tmp_path_factory.mktemp("gguf") / "FramePackI2V-Q8_0.gguf", native, "Q8_0")


def video(model) -> torch.Tensor:
    return sample(model, given.inputs(8, 8), sections=2, steps=2)


def qkv(model):
    return model.get_model_object("diffusion_model").double_blocks[0].img_attn.qkv


def dense(native: Weights, folder: Path, kind: str) -> str:
    """A file of full-precision weights that are rounded as `kind` rounds them, by the gguf package."""
    type = package.GGMLQuantizationType[kind]

    def rounded(weight: torch.Tensor) -> torch.Tensor:
        return torch.from_numpy(package.quants.dequantize(package.quants.quantize(weight.numpy(), type), type))

    quantised = {name: rounded(weight) for name, weight in native.items() if "_blocks." in name and weight.ndim == 2}
    save_file({**native, **quantised}, folder / "rounded.safetensors")
    return str(folder / "rounded.safetensors")


@pytest.mark.parametrize("kind", gguf.BLOCKS)
def test_every_type_of_block_means_what_the_gguf_package_says(kind):
    elements, size, dequantise = gguf.BLOCKS[kind]
    blocks = numpy.random.default_rng(1).integers(0, 256, (200, size), dtype=numpy.uint8)
    with warnings.catch_warnings(action="ignore"):  # random bytes: some scales are infinite
        expected = package.quants.dequantize(blocks, package.GGMLQuantizationType[kind])

    found = dequantise(torch.from_numpy(blocks))

    assert found.shape == (200, elements)
    torch.testing.assert_close(found, torch.from_numpy(expected), rtol=0, atol=0, equal_nan=True)


class Devices(TorchDispatchMode):
    """Collects the devices of all tensors that operations take or make."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: set[str] = set()

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        made = function(*args, **(kwargs or {}))
        self.seen |= {part.device.type for part in (*args, made) if isinstance(part, torch.Tensor)}
        return made


@pytest.mark.parametrize("kind", gguf.BLOCKS)
def test_dequantising_on_a_card_makes_nothing_beside_it(kind):
    """Each copy to the card would wait for it, thousands of times a step."""
    _, size, dequantise = gguf.BLOCKS[kind]

    with FakeTensorMode():
        blocks = torch.empty(200, size, dtype=torch.uint8, device="cuda")
        with Devices() as devices:
            dequantise(blocks)

    assert devices.seen == {"cuda"}


def test_a_large_matrix_is_dequantised_in_pieces(monkeypatch):
    blocks = torch.from_numpy(numpy.random.default_rng(1).integers(0, 100, (7, 18 * 8), dtype=numpy.uint8))
    whole = gguf.quantised_tensor((("Q4_0", blocks.numel()),), blocks.flatten(), (7, 256)).dequantize()
    monkeypatch.setattr(gguf, "ELEMENTS_AT_ONCE", 5 * 32)

    assert torch.equal(gguf.quantised_tensor((("Q4_0", blocks.numel()),), blocks.flatten(), (7, 256)).dequantize(), whole)


@pytest.mark.parametrize("kind", ["Q8_0", "Q5_0", "Q4_1", "Q4_0"])
def test_the_result_is_that_of_rounded_weights(native, tmp_path, kind):
    """Up to the error of float32 arithmetic in another order."""
    path = write_gguf(tmp_path / "model.gguf", native, kind)

    found = video(checkpoints.load_path(str(path), {}))

    assert relative_error(found, video(checkpoints.load_path(dense(native, tmp_path, kind), {}))) < 1e-5


def test_official_names_give_the_same_model(weights, q8, tmp_path):
    """q, k and v become one matrix without being dequantised."""
    path = write_gguf(tmp_path / "official.gguf", weights, "Q8_0")

    model, expected = (checkpoints.load_path(str(path), {}) for path in (path, q8))

    assert gguf.is_quantised(qkv(model).weight)
    assert torch.equal(qkv(model).weight.dequantize(), qkv(expected).weight.dequantize())
    assert relative_error(video(model), video(expected)) < 2e-2  # the text refiner is quantised in only one of them


def test_q_k_and_v_of_different_types_are_one_quantised_matrix():
    kinds = ("Q4_0", "Q8_0")
    parts = [torch.randint(0, 60, (4, 256 // 32 * gguf.BLOCKS[kind][1]), dtype=torch.uint8).flatten() for kind in kinds]
    matrices = [gguf.quantised_tensor(((kind, len(data)),), data, (4, 256)) for kind, data in zip(kinds, parts, strict=True)]

    joined = torch.cat(matrices)

    assert gguf.is_quantised(joined) and joined.nbytes == sum(map(len, parts))
    assert torch.equal(joined.dequantize(), torch.cat([matrix.dequantize() for matrix in matrices]))


def test_comfyui_counts_packed_bytes(native, q8):
    model = checkpoints.load_path(str(q8), {})
    blocks = [weight for name, weight in native.items() if "_blocks." in name and weight.ndim == 2]
    rest = sum(weight.nbytes for weight in native.values()) - sum(weight.nbytes for weight in blocks)

    size = module_size(model.model.diffusion_model)
    assert size == rest + sum(weight.numel() for weight in blocks) * 34 // 32
    assert size < model.model_size() < size + 10_000  # a little more: the table for sampling


def test_a_lora_applies_to_the_dequantised_weight_and_leaves_the_packed_one(q8, native, tmp_path):
    change = {f"diffusion_model.{QKV}.weight": ("diff", (0.1 * torch.randn(768, 256),))}
    model, exact = (checkpoints.load_path(path, {}) for path in (str(q8), dense(native, tmp_path, "Q8_0")))
    before, size = video(model), model.model_size()
    patched, expected = model.clone(), exact.clone()
    patched.add_patches(change)
    expected.add_patches(change)

    found = video(patched)

    assert relative_error(found, video(expected)) < 1e-5 < 1e-2 < relative_error(found, before)
    assert gguf.is_quantised(qkv(patched).weight) and patched.model_size() == size
    assert torch.equal(video(model), before)
    assert torch.equal(video(patched), found)


def test_offloaded_layers_are_patched_as_well(q8):
    """ComfyUI loads parts of the model repeatedly as memory comes and goes."""
    model = checkpoints.load_path(str(q8), {}).clone()
    model.add_patches({f"diffusion_model.{QKV}.weight": ("diff", (0.1 * torch.randn(768, 256),))})
    expected = video(model)

    for budget in (1, 10**6, 10**9):
        model.load(model.load_device, lowvram_model_memory=budget)
        assert len(qkv(model).weight_function) == 1
        assert torch.equal(video(model), expected)
    model.unpatch_model()
    assert qkv(model).weight_function == []


def test_a_lora_is_applied_once_after_layers_are_offloaded(q8):
    model = checkpoints.load_path(str(q8), {}).clone()
    model.add_patches({f"diffusion_model.{QKV}.weight": ("diff", (0.1 * torch.randn(768, 256),))})
    expected = video(model)

    model.partially_unload(model.offload_device, 10**9)

    assert len(qkv(model).weight_function) == 1
    assert torch.equal(video(model), expected)
    model.unpatch_model()


BIAS = f"{QKV.replace('0', '1')}.bias"  # is not quantised
PROMPTS = given.inputs(8, 8)


def hooks(*changes: dict[str, tuple], strengths: tuple[float, ...] = ()) -> comfy.hooks.HookGroup:
    """A hook for each change of weights, by name. `strengths` are those from the start, the middle, ... of sampling on."""
    group = comfy.hooks.HookGroup()
    for weights in changes:
        hook = comfy.hooks.WeightHook()
        hook.weights = {f"diffusion_model.{name}": change for name, change in weights.items()}
        hook.need_weight_init = False
        group.add(hook)
    if strengths:
        keyframes = comfy.hooks.HookKeyframeGroup()
        for i, strength in enumerate(strengths):
            keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=i / len(strengths)))
        group.set_keyframes_on_hooks(keyframes)
    return group


def change(seed: int, *shape: int) -> tuple:
    return ("diff", (0.1 * torch.randn(*shape, generator=torch.Generator().manual_seed(seed)),))


def hooked_video(model, positive, negative=None) -> torch.Tensor:
    return sample(model, PROMPTS, sections=1, steps=3, cfg=2.0, hooks=(positive, negative))


FIRST = {f"{QKV}.weight": change(1, 768, 256), BIAS: change(2, 768)}
SECOND = {f"{QKV}.weight": change(3, 768, 256)}
WHOLE = {f"{QKV}.weight": ("model_as_lora", change(4, 768, 256)[1])}


@pytest.mark.parametrize("budget", [0, 1], ids=["loaded", "offloaded"])
@pytest.mark.parametrize(
    ("positive", "negative"),
    [
        (hooks(FIRST), None),
        (hooks(FIRST, SECOND), hooks(SECOND)),
        (hooks(FIRST, strengths=(1.0, 0.3)), hooks(SECOND, strengths=(0.0, 0.5, 1.0))),
        (hooks(WHOLE), hooks(FIRST)),
    ],
    ids=["one", "several", "keyframes", "a model as a LoRA"],
)
def test_lora_hooks_do_what_they_do_to_a_dequantised_model(q8, native, tmp_path, positive, negative, budget):
    model, exact = (checkpoints.load_path(path, {}) for path in (str(q8), dense(native, tmp_path, "Q8_0")))
    before = hooked_video(model, None)
    if budget:
        model.partially_unload(model.offload_device, 10**9)

    found = hooked_video(model, positive, negative)

    assert relative_error(found, hooked_video(exact, positive, negative)) < 1e-5 < 1e-3 < relative_error(found, before)
    assert gguf.is_quantised(qkv(model).weight) and not qkv(model).weight_function
    assert torch.equal(hooked_video(model, None), before)


def test_hooks_are_added_to_a_lora(q8, native, tmp_path):
    models = [checkpoints.load_path(path, {}).clone() for path in (str(q8), dense(native, tmp_path, "Q8_0"))]
    for model in models:
        model.add_patches({f"diffusion_model.{name}": change for name, change in SECOND.items()})

    found, expected = (hooked_video(model, hooks(FIRST)) for model in models)

    assert relative_error(found, expected) < 1e-5
    assert len(qkv(models[0]).weight_function) == 1


def test_a_hook_that_fails_leaves_no_model_half_patched(q8):
    model = checkpoints.load_path(str(q8), {})
    before = hooked_video(model, None)
    broken = {**FIRST, "double_blocks.1.img_attn.proj.bias": ("diff", (None,))}

    with pytest.raises(AttributeError):
        hooked_video(model, hooks(broken))

    assert not model.hook_backup and model.current_hooks is None and not qkv(model).weight_function
    assert torch.equal(hooked_video(model, None), before)


def test_an_error_while_sampling_takes_the_hooks_away(q8, monkeypatch):
    model = checkpoints.load_path(str(q8), {})
    layer = qkv(model)

    def fail(weight: torch.Tensor) -> torch.Tensor:
        assert len(layer.weight_function) == 1
        raise RuntimeError("out of memory")

    monkeypatch.setattr(gguf.HookPatch, "__call__", lambda patch, weight: fail(weight))
    with pytest.raises(RuntimeError, match="out of memory"):
        hooked_video(model, hooks(FIRST))

    assert not layer.weight_function and not model.hook_backup


def test_weight_dtype_leaves_a_gguf_as_it_is(q8):
    model = checkpoints.load_path(str(q8), dict(checkpoints._FP8_OPTIONS["fp8_e4m3fn"]))

    assert gguf.is_quantised(qkv(model).weight)
    assert qkv(model).bias.dtype == torch.float32


def test_what_the_header_says_of_the_training_comes_with_the_model(native, tmp_path):
    trained = Trained(("geometric",), ("forward",))

    path = write_gguf(tmp_path / "trained.gguf", native, "Q8_0", trained.metadata())

    assert checkpoints.load_path(str(path), {}).model.trained == trained


def test_without_the_gguf_package_the_remedy_is_named(q8, monkeypatch):
    monkeypatch.setitem(sys.modules, "gguf", None)

    with pytest.raises(ValueError, match=r"FramePackI2V-Q8_0.gguf needs the gguf package: pip install gguf"):
        checkpoints.load_path(str(q8), {})


def test_a_truncated_file_is_refused(q8, tmp_path):
    path = tmp_path / "cut.gguf"
    path.write_bytes(q8.read_bytes()[:-1000])

    with pytest.raises(ValueError, match=r"cut.gguf cannot be read: .* download it again"):
        checkpoints.load_path(str(path), {})


def test_missing_weights_are_refused(native, tmp_path):
    left = {name: weight for name, weight in native.items() if name != f"{QKV}.weight"}

    with pytest.raises(ValueError, match=rf"lacks 1 of FramePack's weights, first {QKV}.weight"):
        checkpoints.load_path(str(write_gguf(tmp_path / "hole.gguf", left, "Q8_0")), {})
