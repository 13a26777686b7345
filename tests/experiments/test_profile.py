"""Where the time of a step goes: operations by part, and the measuring with a tiny transformer."""

import pytest
import torch

from experiments.benchmarks import profile
from experiments.benchmarks.profile import BETWEEN, Profile
from scripts.support.trial import SMALL


@pytest.mark.parametrize(
    ("chain", "part"),
    [
        (["aten::mul", "comfy_kitchen::apply_rope"], "rotary phases"),
        (["aten::mul"], "modulation, residuals"),
        (["aten::pow", "aten::_fused_rms_norm", "aten::rms_norm"], "norms"),
        (["aten::addmm", "aten::linear"], "products"),
        (["aten::_scaled_dot_product_cudnn_attention", "aten::scaled_dot_product_attention"], "attention"),
        (["aten::copy_", "aten::to"], "copies"),
        (["aten::sort"], "other operations"),
    ],
)
def test_an_operation_belongs_to_what_it_is_part_of(chain, part):
    assert profile.part_of(chain) == part


def test_what_a_part_loses_is_its_time_beyond_that_of_its_products_at_the_peak():
    found = Profile(4.0, {"products": 3.0, "norms": 1.0}, {"products": 200.0}, peak=100.0)

    assert found.share == 0.5
    assert found.lost("products") == 0.25
    assert found.lost("norms") == 0.25
    assert "| products | 3000.00 | 75.0% | 25.0% |" in profile.lines("some", found)


def test_the_parts_of_a_tiny_transformer_s_call_are_measured():
    found = profile.profile_of(SMALL, 1, torch.device("cpu"))

    assert {"products", "attention", "norms", "rotary phases", BETWEEN} <= found.parts.keys()
    assert found.operations.keys() <= {"products", "attention", "convolutions"}
    assert 0 < found.share < 1
