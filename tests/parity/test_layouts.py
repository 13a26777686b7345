"""Every layout in every order its shape allows, on a checkpoint that has only the released kernels."""

import comfy.sample
import pytest
import torch
from safetensors.torch import save_file
from support import given
from support.ours import relative_error, sample

from framepack_core.comfyui.loading import checkpoints
from framepack_core.comfyui.sampling.checks import log_once
from framepack_core.layout import PRESETS, Kernel
from framepack_core.orders import ORDERS


@pytest.fixture(scope="module")
def model(checkpoint):
    return checkpoints.load_path(str(checkpoint), {})


@pytest.fixture(scope="module")
def inputs() -> given.Inputs:
    return given.inputs(8, 8)


def fitting() -> list[tuple[str, str]]:
    names = [*PRESETS, "ta_f2k2f1k1_g9", "tc_f2k2f1k1_g9", "f1k1_x_g9_f1k1f2k2_ta"]
    return [(name, order.name) for name in names for order in ORDERS.values() if order.fits(name)]


@pytest.mark.parametrize(("layout", "order"), fitting())
def test_every_fitting_layout_samples(model, inputs, layout, order):
    latents = sample(model, inputs, order, sections=4, layout=layout, steps=2)

    assert latents.shape == (1, 16, 37, 8, 8)
    assert latents.isfinite().all() and torch.allclose(latents[:, :, :1], inputs.start)
    assert latents[:, :, 1:].flatten(3).std(dim=3).min() > 0.1  # nothing was left blank


def test_layouts_differ(model, inputs):
    runs = {name: sample(model, inputs, "forward", layout=name, steps=2) for name in ("f1", "vanilla", "geometric", "temporal")}

    for name, latents in runs.items():
        assert all(relative_error(latents, other) > 1e-3 for other_name, other in runs.items() if other_name != name)


def test_a_kernel_without_weights_equals_tiled_weights(oracle, inputs, tmp_path):
    """The paper's construction, written out: the base weights repeated over the kernel and divided by the copies."""
    weights = dict(oracle.state_dict())
    base, bias = (weights[f"clean_x_embedder.proj.{leaf}"] for leaf in ("weight", "bias"))
    for kernel in (Kernel(1, 4, 2), Kernel(1, 4, 4), Kernel(1, 8, 4), Kernel(1, 8, 8)):
        copies = kernel.t, kernel.h // 2, kernel.w // 2
        tiled = base
        for dimension, count in enumerate(copies):
            tiled = tiled.repeat_interleave(count, dim=2 + dimension) / count
        weights[f"clean_x_embedder.proj_{kernel}.weight"] = tiled
        weights[f"clean_x_embedder.proj_{kernel}.bias"] = bias.clone()
    models = []
    for name, state in (("released", oracle.state_dict()), ("tiled", weights)):
        save_file(state, tmp_path / f"{name}.safetensors")
        models.append(checkpoints.load_path(str(tmp_path / f"{name}.safetensors"), {}))

    assert len(models[1].model.diffusion_model.clean_x_embedder.kernels) == 7
    built, tiled = (sample(model, inputs, "forward", layout="geometric", steps=2) for model in models)
    assert relative_error(built, tiled) < 1e-4


def test_endpoints_keep_both_images(model, inputs):
    latents = sample(model, inputs, "endpoints", sections=3, end=True, steps=2)

    assert latents.shape[2] == 1 + 27 + 1
    assert torch.allclose(latents[:, :, :1], inputs.start) and torch.allclose(latents[:, :, -1:], inputs.end)


def test_a_batch_samples_every_video_of_it(model, inputs):
    """Two videos at once: noise is drawn for both, and each sees its own start image."""
    both = given.Inputs(
        inputs.positive,
        inputs.negative,
        inputs.image,
        torch.cat([inputs.start, inputs.end]),
        torch.cat([inputs.end, inputs.start]),
    )

    latents = sample(model, both, sections=2, cfg=2.0, steps=2)

    assert latents.shape[0] == 2
    assert torch.allclose(latents[:, :, :1], both.start)
    assert relative_error(latents[1], latents[0]) > 0.1


def test_a_stock_sampler_runs_without_sections(model, inputs):
    """KSampler knows no plan: the model then generates frames without context."""
    text, pooled = inputs.positive
    conditioning = [[text, {"pooled_output": pooled}]]
    latent = torch.zeros(1, 16, 3, 8, 8)

    found = comfy.sample.sample(
        model, torch.randn(latent.shape), 2, 1.0, "euler", "simple", conditioning, conditioning, latent, seed=0
    )

    assert found.shape == latent.shape and found.isfinite().all() and found.std() > 0.1


def test_an_untrained_layout_is_logged_once(model, inputs, caplog):
    log_once.cache_clear()

    for _ in range(2):
        sample(model, inputs, "forward", sections=1, layout="temporal", steps=1)

    assert sum("untrained" in record.message for record in caplog.records) == 1
