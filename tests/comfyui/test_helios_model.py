"""Helios as one of ComfyUI's models: conditions, samplers, patches, timesteps, and the memory that a call is said to take."""

from dataclasses import replace

import comfy.ldm.wan.model
import comfy.model_management
import comfy.ops
import comfy.patcher_extension
import comfy.sample
import comfy.samplers
import pytest
import torch
from support.checkpoints import save
from support.helios import call, run_ours, seen, small_helios
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from experiments.benchmarks.live import LiveBytes
from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.model.helios.conditions import STAGE_KEY, PackedStage, Timesteps
from framepack_core.comfyui.model.helios.model import Helios, HeliosModel

AXES = (44, 42, 42)


@pytest.fixture(scope="module")
def patcher(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models")
    return checkpoints.load_path(save(dict(small_helios().state_dict()), folder, "Helios-Base.safetensors"), {})


@pytest.fixture
def model(patcher):
    return patcher.model.diffusion_model


def stage(context, target: tuple[int, int], timesteps: Timesteps | None = None) -> PackedStage:
    return PackedStage(context, tuple(context.latents[0].shape[3:]), target, AXES, timesteps)


def denoised(patcher, sigmas: list[float], noise: torch.Tensor, cfg: float = 1.0, **conditions) -> torch.Tensor:
    """What ComfyUI's own guider and sampler make of it."""
    guider = comfy.samplers.CFGGuider(patcher)
    text = call(8, 12)["text"]
    guider.set_conds([[text, conditions]], [[text.flip(1), conditions]])
    guider.set_cfg(cfg)
    sampler = comfy.samplers.sampler_object("euler")
    return guider.sample(noise, torch.zeros_like(noise), sampler, torch.tensor(sigmas), seed=1, disable_pbar=True)


# Conditions


def test_the_history_comes_through_a_guider_in_the_model_s_space(patcher, model):
    """One step from pure noise: x - v, whose history is what was packed, not scaled as latents of the VAE are."""
    context, given = seen(8, 12), call(8, 12) | {"timestep": torch.tensor([1000.0])}

    found = denoised(patcher, [1.0, 0.0], given["noise"], **{STAGE_KEY: stage(context, (8, 12))})

    expected = given["noise"] - run_ours(model, given, context)
    assert torch.allclose(found, patcher.model.process_latent_out(expected), atol=1e-4)


def test_without_a_history_a_plain_sampler_runs(patcher):
    noise = call(8, 12)["noise"]

    found = denoised(patcher, [1.0, 0.5, 0.0], noise, cfg=3.0)

    assert found.shape == noise.shape and found.isfinite().all()


def test_both_calls_of_a_guider_are_one_batch(patcher, monkeypatch):
    batches = []
    forward = type(patcher.model.diffusion_model)._forward
    monkeypatch.setattr(
        type(patcher.model.diffusion_model),
        "_forward",
        lambda self, x, *args, **kwargs: batches.append(len(x)) or forward(self, x, *args, **kwargs),
    )

    denoised(patcher, [1.0, 0.0], call(8, 12)["noise"], cfg=3.0, **{STAGE_KEY: stage(seen(8, 12), (8, 12))})

    assert batches == [2]


@pytest.mark.parametrize(("sigma", "expected"), [(0.999, 998.0), (0.36, 833.0), (0.1, 742.0)])
def test_a_stage_s_timestep_is_that_of_the_nearest_sigma(patcher, sigma, expected):
    table = Timesteps(torch.tensor([0.99818, 0.35404, 0.0]), torch.tensor([998.0, 833.0, 742.0]))
    model = patcher.model
    told = model.model_sampling.timestep(torch.tensor([sigma]))

    assert model.process_timestep(told, packed=stage(seen(8, 12), (4, 6), table)).tolist() == [expected]
    assert torch.equal(model.process_timestep(told, packed=stage(seen(8, 12), (4, 6))), told)


def test_a_stage_tells_the_transformer_its_timesteps(patcher, model):
    context = seen(8, 12)
    given = call(8, 12) | {"noise": call(4, 6)["noise"], "timestep": torch.tensor([998])}
    table = Timesteps(torch.tensor([0.8, 0.0]), torch.tensor([998.0, 742.0]))

    found = denoised(patcher, [0.8, 0.0], given["noise"], **{STAGE_KEY: stage(context, (4, 6), table)})

    x = 0.8 * given["noise"]
    expected = x - 0.8 * run_ours(model, given | {"noise": x}, context)
    assert torch.allclose(found, patcher.model.process_latent_out(expected), atol=1e-4)


def test_a_condition_with_an_area_sees_its_part_of_the_frames(patcher):
    context = seen(8, 12)
    whole = stage(context, (8, 12))

    part = whole.part((9, 4, 8, 0, 2, 4))

    history, generated = whole.rotary.tensor_split([whole.tokens], dim=1)
    grid = generated.unflatten(1, (9, 4, 6))[:, :, 1:3, 2:6].flatten(1, 3)
    assert part.size == (9, 2, 4)
    assert torch.equal(part.rotary, torch.cat([history, grid], dim=1))


def test_an_area_that_cuts_tokens_is_refused():
    with pytest.raises(ValueError, match="needs even numbers"):
        stage(seen(8, 12), (8, 12)).part((9, 3, 8, 0, 2, 4))


def test_another_size_than_the_stage_s_is_refused(model):
    packed = stage(seen(16, 24), (16, 24))

    with pytest.raises(ValueError, match="given 9 latent frames of 96x64 pixels, but the section has 9 of 192x128"):
        model(torch.zeros(1, 16, 9, 8, 12), torch.ones(1), torch.zeros(1, 3, 64), packed=packed)


# Patches and wrappers


def test_wrappers_and_replaced_blocks_see_the_call(model):
    context, given = seen(8, 12), call(8, 12)
    expected, blocks, wrapped = run_ours(model, given, context), [], []

    def replaced(inputs, extra):
        options = inputs["transformer_options"]
        blocks.append((options["block_index"], options["total_blocks"], options["block_type"], inputs["vec"].shape))
        return extra["original_block"](inputs)

    def wrapper(executor, x, *args, **kwargs):
        wrapped.append(x)
        out = executor(x, *args, **kwargs)
        x += 1  # as EasyCache does
        return out

    kind = comfy.patcher_extension.WrappersMP.DIFFUSION_MODEL
    noise = given["noise"].clone()
    options = {
        "patches_replace": {"dit": {("double_block", i): replaced for i in range(2)}},
        "wrappers": {kind: {"": [wrapper]}},
    }
    found = run_ours(model, given, context, **options)

    assert torch.equal(found, expected)
    assert blocks == [(0, 2, "double", (1, 2, 6, 256)), (1, 2, "double", (1, 2, 6, 256))]
    assert len(wrapped) == 1 and torch.equal(given["noise"], noise)


def test_patches_are_told_where_the_generated_tokens_begin(model):
    context, given, seen_by = seen(8, 12), call(8, 12), []

    def patch(inputs):
        seen_by.append((inputs["block_index"], inputs["img_offset"], inputs["img"].shape[1]))
        return {"img": inputs["img"]}

    run_ours(model, given, context, patches={"double_block": [patch]})

    history = stage(context, (8, 12)).tokens
    assert seen_by == [(i, history, history + 9 * 4 * 6) for i in range(2)]


def test_patches_of_attention_apply(model):
    context, given, called = seen(8, 12), call(8, 12), []
    patches = {
        "attn1_patch": [lambda inputs: called.append("attn1") or inputs["x"]],
        "attn2_patch": [lambda inputs: called.append("attn2") or inputs["x"]],
    }

    run_ours(model, given, context, patches=patches)

    assert called == ["attn1", "attn2"] * 2


# Memory


class Largest(TorchDispatchMode):
    """The elements of the largest tensor that is made."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        out = function(*args, **(kwargs or {}))
        made = [leaf.numel() for leaf in tree_leaves(out) if isinstance(leaf, torch.Tensor)]
        self.elements = max([self.elements, *made])
        return out


def model_without_weights(dim: int) -> HeliosModel:
    """The released architecture with two blocks on the meta device: shapes and lifetimes are real, nothing is computed."""
    config = Helios(
        {
            "image_model": "wan2.1",
            "model_type": "t2v",
            "dim": dim,
            "num_heads": dim // 128,
            "ffn_dim": dim * 27 // 10,
            "num_layers": 2,
            "text_dim": 4096,
            "in_dim": 16,
            "out_dim": 16,
        }
    )
    config.set_inference_dtype(torch.bfloat16, None)
    config.custom_operations = comfy.ops.disable_weight_init
    return HeliosModel(config, device="meta")


def meta(*shape: int) -> torch.Tensor:
    return torch.empty(shape, device="meta", dtype=torch.bfloat16)


def flash_attention(default, q, k, v, heads, **kwargs) -> torch.Tensor:
    """A stand-in for a GPU's attention, which keeps only its output."""
    return torch.empty_like(q)


def run(model: HeliosModel, size: tuple[int, int], target: tuple[int, int]) -> PackedStage:
    context = seen(*size)
    context = replace(context, latents=tuple(latents.to("meta", torch.bfloat16) for latents in context.latents))
    packed = stage(context, target).to(torch.device("meta"))
    with torch.inference_mode():
        model.diffusion_model(
            meta(1, 16, 9, *target),
            torch.zeros(1, device="meta"),
            meta(1, 512, 4096),
            packed=packed,
            history_latents=list(context.latents),
            transformer_options={"optimized_attention_override": flash_attention},
        )
    return packed


@pytest.mark.parametrize("dim", [5120, 1024])
@pytest.mark.parametrize(("size", "target"), [((48, 80), (48, 80)), ((48, 80), (24, 40)), ((64, 64), (64, 64))])
def test_the_estimate_covers_a_call(monkeypatch, dim, size, target):
    monkeypatch.setattr(comfy.model_management, "pytorch_attention_flash_attention", lambda: True)
    model = model_without_weights(dim)

    with LiveBytes() as live:
        packed = run(model, size, target)

    shapes = model.extra_conds_shapes(**{STAGE_KEY: packed, "cross_attn": meta(1, 512, 4096)})
    estimate = model.memory_required([1, 16, 9, *target], {name: [shape] for name, shape in shapes.items()})
    assert 1.0 < estimate / live.peak < 1.35


def test_modulation_is_two_rows_and_never_one_a_token():
    model, largest = model_without_weights(1024), Largest()

    with largest:
        packed = run(model, (48, 80), (48, 80))

    tokens = packed.tokens + 9 * 24 * 40
    assert tokens == 11040
    assert largest.elements < 6 * 1024 * tokens / 2


def test_the_estimate_before_sampling_equals_the_one_while_sampling():
    """ComfyUI asks twice: from the conditioning, to free memory, and from what extra_conds returns, to form batches."""
    model = model_without_weights(1024)
    cond = {STAGE_KEY: stage(seen(8, 12), (8, 12)), "cross_attn": torch.zeros(1, 7, 4096)}

    before = model.extra_conds_shapes(**cond)
    during = model.extra_conds(**cond, noise=torch.zeros(1, 16, 9, 8, 12), device=torch.device("cpu"))

    shapes = [{name: [shape] for name, shape in before.items()}, {name: [c.size()] for name, c in during.items()}]
    first, second = (model.memory_required([1, 16, 9, 8, 12], given) for given in shapes)
    assert first == second > model.memory_required([1, 16, 9, 8, 12], {})
