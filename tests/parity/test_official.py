"""UniPC videos equal the official program's (golden/record.py tells how they were recorded), float32 on a CPU."""

from functools import partial
from pathlib import Path

import given
import pytest
import torch
from framepack.framepack_core import solver
from framepack.framepack_core.comfyui import loading
from framepack.framepack_core.comfyui.sampling import make_guider, sample_video, sampler_named, schedule
from framepack.framepack_core.plan import Plan
from safetensors.torch import load_file, save_file
from sharp import sharp_transformer

GOLDEN = Path(__file__).parent / "golden"
SCALE = 0.476986
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "FramePack_small.safetensors"
    save_file(sharp_transformer(given.CONFIG).state_dict(), path)
    return loading.load_path(str(path), {"dtype": torch.float32})


def run(model, case: given.Case, sampler: str = "unipc_bh1") -> torch.Tensor:
    inputs = given.inputs()
    positive, negative = ([[text, {"pooled_output": pooled}]] for text, pooled in (inputs.positive, inputs.negative))
    latents = sample_video(
        make_guider(model, positive, negative if case.cfg != 1 else None, case.cfg, given.GUIDANCE),
        sampler_named(sampler),
        partial(schedule, given.STEPS, 0.0),
        Plan.of(case.sections * 1.2, case.order),
        {"samples": inputs.start / SCALE},
        None,
        {"last_hidden_state": inputs.image},
        given.SEED,
        lambda text: None,
    )
    return latents * SCALE


def error(found: torch.Tensor, name: str) -> float:
    expected = load_file(GOLDEN / f"{name}.safetensors")["latents"]
    assert found.shape == expected.shape
    return ((found - expected).norm() / expected.norm()).item()


@pytest.mark.parametrize("name", given.CASES)
def test_a_whole_video_equals_the_official_program(model, name):
    assert error(run(model, given.CASES[name]), name) < TOLERANCE


def test_the_golden_files_tell_samplers_apart(model):
    assert error(run(model, given.CASES["inverted"], "unipc_bh2"), "inverted") > 10 * TOLERANCE
    assert error(run(model, given.CASES["inverted"], "euler"), "inverted") > 10 * TOLERANCE


def test_the_golden_files_notice_a_lower_order(model, monkeypatch):
    """A second-order multistep is close; it must still show."""

    class SecondOrder(solver._Step):
        def __init__(self, x, history, *rest):
            super().__init__(x, history[:2], *rest)

    monkeypatch.setattr(solver, "_Step", SecondOrder)

    assert error(run(model, given.CASES["inverted"]), "inverted") > 10 * TOLERANCE
