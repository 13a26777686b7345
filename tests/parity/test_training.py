"""The transformer for training is the one that samples: the same numbers from the same weights, in every layout and order."""

import comfy.sd
import pytest
import torch
from safetensors.torch import load_file
from support.calls import inputs, run_oracle, run_ours, video
from support.ours import relative_error

from framepack_core.comfyui.loading import checkpoints
from framepack_core.layout import PRESETS
from framepack_core.orders import ORDERS
from framepack_core.packing import gather, rotary_phases
from framepack_core.plan import Plan
from framepack_core.training import lora, state
from framepack_core.training.examples import Recipe
from framepack_core.training.transformer import PackedTransformer

TOLERANCE = 1e-5
HEIGHT, WIDTH = 6, 10
RECIPES = [Recipe(layout, order) for layout in PRESETS for order in ORDERS if ORDERS[order].fits(layout)]


@pytest.fixture(scope="module")
def trained(oracle) -> PackedTransformer:
    """The oracle's weights, with a convolution for every kernel of every layout."""
    transformer = PackedTransformer(**{key: value for key, value in oracle.config.items() if not key.startswith("_")})
    transformer.load_state_dict(oracle.state_dict())
    transformer.add_kernels(
        kernel for layout in PRESETS for kernel in Plan.of(1, order_of(layout), layout=layout).layout.kernels
    )
    torch.manual_seed(3)
    with torch.no_grad():
        for convolution in transformer.clean_x_embedder.children():
            convolution.weight.add_(0.05 * torch.randn_like(convolution.weight))
    return transformer.eval()


def order_of(layout: str):
    return next(order for order in ORDERS if ORDERS[order].fits(layout))


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    return state.export(trained, tmp_path_factory.mktemp("exported"), {"framepack.layouts": '["f1"]'}, torch.float32)


@pytest.fixture(scope="module")
def sampled(exported):
    """The export as FramePack_LoadModel loads it."""
    return checkpoints.load_path(str(exported), {"dtype": torch.float32})


def run_trained(transformer: PackedTransformer, given: dict, context, **changes) -> torch.Tensor:
    config = transformer.config
    with torch.no_grad():
        return transformer(
            latents=given["noise"],
            timestep=given["timestep"],
            text=given["text"],
            text_mask=None,
            pooled=given["pooled"],
            image=given["image"],
            context=context.latents,
            kernels=[group.kernel for group in context.section.context],
            rotary=rotary_phases(context.section, *given["noise"].shape[3:], config.rope_axes_dim, config.rope_theta),
            guidance=given["guidance"],
        )


def case(recipe: Recipe, number: int):
    plan = Plan.of(4.8, recipe.order, layout=recipe.layout)
    section = plan.fill(1 + plan.generated)[number]
    return inputs(section, HEIGHT, WIDTH), gather(section, video(1 + plan.generated, HEIGHT, WIDTH))


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: f"{recipe.layout}-{recipe.order}")
def test_the_side_that_trains_equals_the_side_that_samples(trained, sampled, recipe):
    for number in (0, 2):
        given, context = case(recipe, number)

        found = run_trained(trained, given, context)

        assert relative_error(run_ours(sampled.model.diffusion_model, given, context), found) < TOLERANCE


@pytest.mark.parametrize("recipe", [Recipe("framepack", "inverted"), Recipe("f1", "forward")], ids=lambda recipe: recipe.layout)
def test_released_layouts_equal_diffusers(oracle, recipe):
    transformer = PackedTransformer(**{key: value for key, value in oracle.config.items() if not key.startswith("_")})
    transformer.load_state_dict(oracle.state_dict())
    given, context = case(recipe, 2)

    assert relative_error(run_trained(transformer.eval(), given, context), run_oracle(oracle, given, context)) < TOLERANCE


def test_parity_notices_a_kernel_that_was_not_loaded(trained, sampled, monkeypatch):
    given, context = case(Recipe("geometric", "forward"), 2)
    embedder = sampled.model.diffusion_model.clean_x_embedder
    kernels = {name: kernel for name, kernel in embedder.kernels.items() if name != "proj_k1h4w2"}
    monkeypatch.setattr(embedder, "kernels", kernels)

    found = run_ours(sampled.model.diffusion_model, given, context)

    assert relative_error(found, run_trained(trained, given, context)) > 10 * TOLERANCE


def test_a_trained_lora_changes_comfyui_as_it_changed_training(exported, sampled, tmp_path):
    transformer = state.load_transformer(exported).eval()
    lora.add_lora(transformer, rank=3, alpha=2.0)
    torch.manual_seed(4)
    adapter = {name: parameter for name, parameter in transformer.named_parameters() if parameter.requires_grad}
    with torch.no_grad():
        for name, parameter in adapter.items():
            parameter.copy_(0.05 * torch.randn_like(parameter) if ".lora_B." in name else torch.randn_like(parameter))
    path = state.write_tensors(tmp_path / "lora.safetensors", lora.to_comfy(adapter, 2.0), {}, torch.float32)
    given, context = case(Recipe("f1", "forward"), 2)
    plain = run_ours(sampled.model.diffusion_model, given, context)

    patched, _ = comfy.sd.load_lora_for_models(sampled, None, load_file(path), 1.0, 0.0)
    expected_patches = len({key.rpartition(".lora_")[0] for key in load_file(path) if ".lora_A." in key})
    assert len(patched.patches) == expected_patches
    patched.patch_model()
    found = run_ours(patched.model.diffusion_model, given, context)
    patched.unpatch_model()

    expected = run_trained(transformer, given, context)
    assert relative_error(expected, plain) > 0.01
    assert relative_error(found, expected) < TOLERANCE
