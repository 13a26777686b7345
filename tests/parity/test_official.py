"""UniPC videos equal the official program's (golden/record.py says how they were recorded), in float32 on a CPU."""

from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file
from support import given
from support.ours import relative_error, sample
from support.sharp import sharp_transformer

from framepack_core import solver
from framepack_core.comfyui.loading import checkpoints

GOLDEN = Path(__file__).parent / "golden"
TOLERANCE = 1e-4


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    path = tmp_path_factory.mktemp("official") / "FramePack_small.safetensors"
    save_file(sharp_transformer(given.CONFIG).state_dict(), path)
    return checkpoints.load_path(str(path), {"dtype": torch.float32})


def run(model, case: given.Case, sampler: str = "unipc_bh1") -> torch.Tensor:
    return sample(model, given.inputs(), case.order, case.sections, case.cfg, sampler, given.STEPS, seed=given.SEED)


def error(found: torch.Tensor, name: str) -> float:
    return relative_error(found, load_file(GOLDEN / f"{name}.safetensors")["latents"])


@pytest.mark.parametrize("name", given.CASES)
def test_a_whole_video_equals_the_official_program(model, name):
    assert error(run(model, given.CASES[name]), name) < TOLERANCE


def test_the_golden_files_tell_samplers_apart(model):
    assert error(run(model, given.CASES["inverted"], "unipc_bh2"), "inverted") > 10 * TOLERANCE
    assert error(run(model, given.CASES["inverted"], "euler"), "inverted") > 10 * TOLERANCE


def test_the_golden_files_notice_a_lower_order(model, monkeypatch):
    """A second-order multistep solver comes close, but the difference must still show."""

    class SecondOrder(solver.UniPCStep):
        def __init__(self, x, history, *rest):
            super().__init__(x, history[:2], *rest)

    monkeypatch.setattr(solver, "UniPCStep", SecondOrder)

    assert error(run(model, given.CASES["inverted"]), "inverted") > 10 * TOLERANCE
