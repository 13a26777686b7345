"""Modulations that are remembered are those that the layers compute, bit for bit, and nothing outlives what it depends on."""

from contextlib import contextmanager, nullcontext
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import comfy.hooks
import comfy.model_patcher
import comfy_extras.nodes_custom_sampler as custom
import comfy_extras.nodes_easycache as easycache
import comfy_extras.nodes_model_advanced as model_advanced
import pytest
import torch
from comfy.model_management import InterruptProcessingException
from comfy.patcher_extension import WrappersMP
from comfy_api.torch_helpers import set_torch_compile_wrapper
from support import given
from support.ours import begun_and_resumed, make_guider, sample

from framepack_core.caching import Skipping
from framepack_core.comfyui import log
from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.loading.patcher import ModulationsLast
from framepack_core.comfyui.model import modulation
from framepack_core.comfyui.sampling import denoise
from framepack_core.comfyui.sampling.cache import with_cache
from framepack_core.comfyui.sampling.timed import with_time
from framepack_core.prompts import span_of
from framepack_core.weights import names
from scripts.support.quantising.convert import convert
from scripts.support.quantising.to_gguf import write_gguf

INPUTS = given.inputs(8, 8)
IMG_MOD, SINGLE_MOD = "double_blocks.0.img_mod.lin", "single_blocks.1.modulation.lin"
STEPS, SECTIONS = 4, 2


@contextmanager
def off_the_card():
    """As if the layers' weights were not where the step is computed."""
    with patch.object(modulation, "all_there", lambda layers, device: False):
        yield


@contextmanager
def uses(model, name: str = IMG_MOD):
    """How often a layer computes in the block, as a list of its inputs."""
    seen: list[torch.Tensor] = []
    layer = model.model.diffusion_model.get_submodule(name)
    handle = layer.register_forward_pre_hook(lambda module, args: seen.append(args[0].clone()))
    yield seen
    handle.remove()


def video(model, sections: int = SECTIONS, steps: int = STEPS, inputs: given.Inputs = INPUTS, **options) -> torch.Tensor:
    return sample(model, inputs, sections=sections, steps=steps, **options)


def both(model, **options) -> tuple[torch.Tensor, torch.Tensor]:
    """The video with what is remembered, and without."""
    with off_the_card():
        found = video(model, **options)
    return found, video(model, **options)


@pytest.fixture(scope="module")
def model(checkpoint):
    return checkpoints.load_path(str(checkpoint), {})


def changed(model, strength: float, *layers: str):
    """A LoRA of some strength on layers."""
    patched = model.clone()
    generator = torch.Generator().manual_seed(3)
    for name in layers:
        rows, columns = model.model.diffusion_model.get_submodule(name).weight.shape
        difference = 0.1 * torch.randn(rows, columns, generator=generator)
        patched.add_patches({f"diffusion_model.{name}.weight": ("diff", (difference,))}, strength)
    return patched


def hook(*layers: tuple[str, torch.Size], strengths: tuple[float, ...]) -> comfy.hooks.HookGroup:
    """A LoRA hook with these strengths from the start, the middle, ... of sampling on."""
    weights = {
        name: ("diff", (0.1 * torch.randn(shape, generator=torch.Generator().manual_seed(5)),)) for name, shape in layers
    }
    weight_hook = comfy.hooks.WeightHook()
    weight_hook.weights = {f"diffusion_model.{name}.weight": change for name, change in weights.items()}
    weight_hook.need_weight_init = False
    group = comfy.hooks.HookGroup()
    group.add(weight_hook)
    keyframes = comfy.hooks.HookKeyframeGroup()
    for i, strength in enumerate(strengths):
        keyframes.add(comfy.hooks.HookKeyframe(strength, start_percent=i / len(strengths)))
    group.set_keyframes_on_hooks(keyframes)
    return group


# What is the same


@pytest.mark.parametrize("cfg", [1.0, 2.5])
@pytest.mark.parametrize("order", ["inverted", "forward", "endpoints"])
def test_in_every_order_with_and_without_cfg(model, order, cfg):
    found, expected = both(model, order=order, cfg=cfg, end=order != "forward")

    assert torch.equal(found, expected)


@pytest.mark.slow
@pytest.mark.parametrize(
    "name", ["unipc_bh1", "unipc_bh2", "heun", "dpmpp_2s_ancestral", "dpm_adaptive", "seeds_2", "res_multistep"]
)
def test_with_samplers_that_ask_for_sigmas_between_the_steps(model, name):
    found, expected = both(model, sampler=name)

    assert torch.equal(found, expected)


def test_with_both_prompts_in_one_batch(model):
    negative = INPUTS.positive[0].flip(1), INPUTS.negative[1]
    inputs = replace(INPUTS, negative=negative)
    with off_the_card(), uses(model) as seen:
        found = video(model, cfg=2.5, inputs=inputs)

    assert [vec.shape[0] for vec in seen] == [2] * STEPS
    assert torch.equal(found, video(model, cfg=2.5, inputs=inputs))


def write(name: str, checkpoint: Path, oracle, folder: Path) -> Path:
    if name == "GGUF":
        return write_gguf(folder / "small.gguf", names.to_comfy(dict(oracle.state_dict())), "Q4_0")
    convert(checkpoint, folder / f"{name}.safetensors", name)
    return folder / f"{name}.safetensors"


@pytest.mark.slow
@pytest.mark.parametrize("name", ["GGUF", "float8_e4m3fn", "int8_tensorwise", "nvfp4"])
def test_in_every_kind_of_file_with_and_without_a_lora(name, checkpoint, oracle, tmp_path):
    model = checkpoints.load_path(str(write(name, checkpoint, oracle, tmp_path)), {})

    for patched in (model, changed(model, 0.7, IMG_MOD)):
        found, expected = both(patched, cfg=2.5, steps=2)
        assert torch.equal(found, expected)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16, torch.float8_e4m3fn])
def test_in_every_dtype(dtype, checkpoint):
    found, expected = both(checkpoints.load_path(str(checkpoint), {"dtype": dtype}), cfg=2.5)

    assert torch.equal(found, expected)


@pytest.mark.slow
def test_compiled(model):
    """A compiled transformer computes all layers itself, in one graph."""
    compiled = model.clone()
    set_torch_compile_wrapper(model=compiled, backend="aot_eager", fullgraph=True)
    torch._dynamo.reset()

    found, expected = both(compiled, sections=2, steps=2)

    assert torch.equal(found, expected)


@pytest.mark.slow
def test_compiled_by_a_node_that_puts_it_in_the_transformer_s_place(model):
    compiled = model.clone()
    compiled.add_object_patch("diffusion_model", torch.compile(model.model.diffusion_model, backend="aot_eager"))
    torch._dynamo.reset()

    found, expected = both(compiled, sections=2, steps=2)

    assert torch.equal(found, expected)


@pytest.mark.slow
def test_with_each_block_compiled(model):
    compiled = model.clone()
    keys = ["diffusion_model.double_blocks.0", "diffusion_model.single_blocks.1"]
    set_torch_compile_wrapper(model=compiled, backend="aot_eager", keys=keys)
    torch._dynamo.reset()

    found, expected = both(compiled, sections=2, steps=2)

    assert torch.equal(found, expected)


def with_easycache(model):
    [cached] = easycache.EasyCacheNode.execute(model, 0.5, 0.1, 0.9, False).args
    return cached


def with_lazycache(model):
    [cached] = easycache.LazyCacheNode.execute(model, 0.5, 0.1, 0.9, False).args
    return cached


def with_framepack_cache(model):
    return with_cache(model, "easycache", Skipping(threshold=1.0, start=0.0, max_skips=2), lambda text: None)


@pytest.mark.slow
@pytest.mark.parametrize("cache", [with_easycache, with_lazycache, with_framepack_cache])
def test_with_nodes_that_leave_out_calls(model, cache):
    """They are around the transformer, and hand on what they are given."""
    cached = cache(model)

    with off_the_card(), uses(model) as seen:
        found = video(cached, steps=8)

    assert len(seen) == 8
    assert torch.equal(found, video(cached, steps=8))
    assert not torch.equal(found, video(model, steps=8))


# What is saved


def test_each_sigma_is_computed_once_for_all_sections(model):
    """In the first step, so that later ones need no weights."""
    with off_the_card(), uses(model) as seen:
        video(model)

    assert len(seen) == STEPS


@pytest.mark.parametrize(("dynamic", "first"), [(False, [STEPS] * STEPS), (True, [1, 2, 3, 4])])
def test_the_first_step_computes_for_all_others_unless_vram_is_dynamic(model, dynamic, first):
    """Then each step of the first section does for itself."""
    watched, computed = model.clone(), []
    watched.is_dynamic = lambda: dynamic

    with off_the_card(), uses(model) as seen:

        def count(forward, *args, **kwargs):
            velocity = forward(*args, **kwargs)
            computed.append(len(seen))
            return velocity

        watched.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", count)
        found = video(watched)

    assert computed == [*first, *[STEPS] * STEPS * (SECTIONS - 1)]
    assert torch.equal(found, video(model))


def test_the_endpoints_order_has_two_schedules(model):
    with off_the_card(), uses(model) as seen:
        video(model, order="endpoints", end=True, sections=4)

    assert len(seen) == 2 * STEPS


def test_each_prompt_is_computed_once(model):
    with off_the_card(), uses(model) as seen:
        video(model, cfg=2.5)

    assert len(seen) == 2 * STEPS


def test_layers_that_are_on_the_card_compute_at_every_step(model):
    with uses(model) as seen:
        video(model)

    assert len(seen) == STEPS * SECTIONS


def test_what_a_section_has_not_used_is_forgotten_when_the_next_begins(model):
    """So a sampler that never asks twice for a sigma does not fill the memory."""
    transformer = model.model.diffusion_model
    memory, kept = modulation.Modulations(), []

    for section in range(6):
        memory.begin(torch.empty(0))
        kept.append(len(memory._kept))
        for step in range(STEPS):
            vec = torch.full((1, transformer.hidden_size), float(section * STEPS + step))
            sigmas = modulation.values(vec[:, 0])
            shared = modulation.Shared(memory, "patches", model.model.model_sampling, {}, sigmas, prompts=((),))
            memory.of(modulation.Call(shared, vec, lambda timestep, vec=vec: vec, transformer.modulations))

    assert kept == [0, *[STEPS] * 5]


def test_layers_compute_at_every_step_if_comfyui_has_changed_what_sharing_needs(model, monkeypatch, caplog):
    log.log_once.cache_clear()
    expected = video(model)
    monkeypatch.delattr("comfy.patcher_extension.add_wrapper_with_key")

    with off_the_card(), uses(model) as seen:
        found = video(model)

    assert len(seen) == STEPS * SECTIONS and torch.equal(found, expected)
    assert "add_wrapper_with_key does not exist" in caplog.text and "computing modulations once for all sections" in caplog.text


def test_comfyui_places_the_layers_if_it_has_changed_how_it_does_so(model, checkpoint, monkeypatch, caplog):
    log.log_once.cache_clear()
    monkeypatch.delattr("comfy.model_patcher.ModelPatcherDynamic")

    plain = checkpoints.load_path(str(checkpoint), {})

    assert isinstance(model, ModulationsLast) and type(plain) is comfy.model_patcher.CoreModelPatcher
    assert "ModelPatcherDynamic does not exist" in caplog.text and "keeping modulation layers off a card" in caplog.text


# What is never reused


@pytest.mark.slow
@pytest.mark.parametrize("layers", [(IMG_MOD,), (SINGLE_MOD,), (IMG_MOD, SINGLE_MOD, "double_blocks.1.img_attn.qkv")])
def test_a_lora_on_modulations_acts_with_the_strength_it_has_now(model, layers):
    results = [both(changed(model, strength, *layers)) for strength in (0.5, 1.0, 0.0)] + [both(model)]

    assert all(torch.equal(found, expected) for found, expected in results)
    assert not torch.equal(results[0][0], results[1][0])


@pytest.mark.slow
@pytest.mark.parametrize("strengths", [(1.0,), (1.0, 0.3), (0.0, 0.5, 1.0)])
@pytest.mark.parametrize("prompts", ["one", "both"])
def test_hooks_on_modulations_act_with_the_strength_of_the_step(model, strengths, prompts):
    layers = [(name, model.model.diffusion_model.get_submodule(name).weight.shape) for name in (IMG_MOD, SINGLE_MOD)]
    group = hook(*layers, strengths=strengths)
    hooks = (group, group if prompts == "both" else None)

    found, expected = both(model, cfg=2.0, hooks=hooks)

    assert torch.equal(found, expected)
    assert not torch.equal(found, video(model, cfg=2.0))


def test_weights_that_are_patched_again_between_two_sections_count(model):
    """As a node could do it: sections before and after have the modulations of their weights."""

    def run(context) -> torch.Tensor:
        patched = changed(model, 0.5, IMG_MOD)
        begin = denoise.GuiderDenoiser.__call__

        def call(self, noise, context):
            if context.section.number == 1:
                name = f"diffusion_model.{IMG_MOD}.weight"
                patched.add_patches({name: ("diff", (torch.full_like(layer_weight(model), 0.05),))})
            return begin(self, noise, context)

        with context, patch.object(denoise.GuiderDenoiser, "__call__", call):
            return video(patched)

    assert torch.equal(run(off_the_card()), run(nullcontext()))


def hooked(entries: list, group: comfy.hooks.HookGroup) -> list:
    return [[text, {**values, "hooks": group}] for text, values in entries]


@pytest.mark.slow
@pytest.mark.parametrize("order", ["forward", "inverted", "endpoints"])
@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_hooks_in_a_prompt_s_time_act_in_its_sections_only(model, order, cfg):
    """Sections before and after share modulations all the same."""
    layers = [(name, model.model.diffusion_model.get_submodule(name).weight.shape) for name in (IMG_MOD, SINGLE_MOD)]
    text, pooled = INPUTS.positive
    plain = [[text, {"pooled_output": pooled}]]
    late = with_time(hooked(plain, hook(*layers, strengths=(1.0, 0.3))), span_of(1.3, 2.4))

    options = {"order": order, "cfg": cfg, "sections": 4, "end": order != "forward"}
    found, expected = both(model, told=[*plain, *late], **options)

    assert torch.equal(found, expected)
    assert not torch.equal(found, video(model, told=plain, **options))


def test_sections_without_hooks_share_modulations(model):
    text, pooled = INPUTS.positive
    plain = [[text, {"pooled_output": pooled}]]
    late = with_time(hooked(plain, hook((IMG_MOD, layer_weight(model).shape), strengths=(1.0,))), span_of(1.3, 2.4))

    with off_the_card(), uses(model) as seen:
        video(model, told=[*plain, *late], order="forward", sections=4)

    assert len(seen) == 3 * STEPS, "once before the section with a hook, in it, and once for the two after it"


@pytest.mark.parametrize("cfg", [1.0, 2.5])
def test_each_section_has_the_modulations_of_its_own_prompt(model, cfg):
    """Also in a fade, where a prompt between two others has the id of one of them."""
    text, pooled = INPUTS.positive
    first, second = ([[text, {"pooled_output": values}]] for values in (pooled, pooled.flip(1)))
    told = [*with_time(first, span_of(0, 0)), *with_time(second, span_of(1.3, 0, fade=2.4))]

    found, expected = both(model, told=told, order="forward", cfg=cfg, sections=4)

    assert torch.equal(found, expected)
    assert not torch.equal(found, video(model, told=first, order="forward", cfg=cfg, sections=4))


def test_each_prompt_has_the_modulations_of_its_own_guidance(model, monkeypatch):
    def guider(*args):
        found = make_guider(*args)
        found.original_conds["negative"][0]["guidance"] = 3.0
        return found

    same = replace(INPUTS, negative=INPUTS.positive)
    of_one_guidance = video(model, cfg=2.5, inputs=same)
    monkeypatch.setattr("support.ours.make_guider", guider)

    found, expected = both(model, cfg=2.5, inputs=same)

    assert torch.equal(found, expected)
    assert not torch.equal(found, of_one_guidance)


def around_the_call(model) -> None:
    def change(apply_model, given):
        return apply_model(given["input"], 0.9 * given["timestep"], **given["c"])

    model.set_model_unet_function_wrapper(change)


def around_the_model(model) -> None:
    def change(apply_model, x, timestep, *args, **kwargs):
        return apply_model(x, 0.9 * timestep, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "test", change)


def around_the_transformer(model) -> None:
    def change(forward, x, timestep, *args, **kwargs):
        return forward(x, 0.9 * timestep, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", change)


def around_its_prompt(model) -> None:
    def change(forward, x, timestep, context, y, *args, **kwargs):
        return forward(x, timestep, context, 0.9 * y, *args, **kwargs)

    model.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", change)


def around_all_prompts(model) -> None:
    def change(calculate, model, conds, x, timestep, options):
        return calculate(model, conds, x, 0.9 * timestep, options)

    model.add_wrapper_with_key(WrappersMP.CALC_COND_BATCH, "test", change)


@pytest.mark.parametrize(
    "add", [around_the_call, around_the_model, around_the_transformer, around_its_prompt, around_all_prompts]
)
def test_a_node_that_changes_what_the_transformer_is_given_gets_what_the_layers_make_of_it(model, add):
    patched = model.clone()
    add(patched)

    found, expected = both(patched)

    assert torch.equal(found, expected)
    assert not torch.equal(found, video(model))


def layer_weight(model) -> torch.Tensor:
    return model.model.diffusion_model.get_submodule(IMG_MOD).weight


def another(checkpoint):
    """Weights that are not those of the first model, on whose modulation layers a LoRA is."""
    return changed(checkpoints.load_path(str(checkpoint), {}), 1.0, IMG_MOD, SINGLE_MOD)


def with_timesteps_of_its_own(checkpoint):
    """A node like ModelSamplingAuraFlow, after which sigmas are other timesteps."""
    [other] = model_advanced.ModelSamplingAuraFlow().patch_aura(checkpoints.load_path(str(checkpoint), {}), 7.0)
    return other


@pytest.mark.slow
@pytest.mark.parametrize("make", [another, with_timesteps_of_its_own])
def test_a_second_model_for_the_same_prompt_has_modulations_of_its_own(model, make, checkpoint, monkeypatch):
    other, inputs = make(checkpoint), replace(INPUTS, negative=INPUTS.positive)
    of_one_model = video(model, cfg=2.5, inputs=inputs)

    def guider(patcher, positive, negative, cfg, guidance):
        found = custom.Guider_DualModel(patcher, other)
        found.set_conds(positive, negative)
        found.set_cfg(cfg)
        return found

    monkeypatch.setattr("support.ours.make_guider", guider)
    found, expected = both(model, cfg=2.5, inputs=inputs)

    assert torch.equal(found, expected)
    assert not torch.equal(found, of_one_model)


def test_a_run_that_is_cancelled_leaves_nothing(model):
    calls: list[int] = []

    def cancel(forward, *args, **kwargs):
        calls.append(1)
        if len(calls) == STEPS + 2:
            raise InterruptProcessingException
        return forward(*args, **kwargs)

    cancelled = model.clone()
    cancelled.add_wrapper_with_key(WrappersMP.DIFFUSION_MODEL, "test", cancel)
    with off_the_card(), pytest.raises(InterruptProcessingException):
        video(cancelled)

    with uses(model) as seen, off_the_card():
        found = video(model)
    assert len(seen) == STEPS
    assert torch.equal(found, video(model))


def test_a_run_that_goes_on_after_its_first_section_ends_in_the_same_video(model, monkeypatch):
    """The first time without sharing."""
    ways, seen = iter([nullcontext(), off_the_card()]), []

    def run() -> torch.Tensor:
        with next(ways), uses(model) as calls:
            seen.append(calls)
            return video(model)

    expected, found = begun_and_resumed(monkeypatch, run)

    assert [len(calls) for calls in seen] == [SECTIONS * STEPS, STEPS]
    assert torch.equal(found, expected)


def test_a_node_that_changes_a_block_s_vector_gets_what_the_layer_makes_of_it(model):
    patched = model.clone()

    def louder(inputs: dict, extra: dict) -> dict:
        return extra["original_block"]({**inputs, "vec": inputs["vec"] * 1.5})

    patched.set_model_patch_replace(louder, "dit", "double_block", 0)

    found, expected = both(patched)

    assert torch.equal(found, expected)
    assert not torch.equal(found, video(model))


def test_modulations_have_the_names_that_comfyui_gives_them(model, oracle):
    found = {name for name in model.model.diffusion_model.state_dict() if "mod" in name}

    assert found == {name for name in names.to_comfy(dict(oracle.state_dict())) if "mod" in name}
