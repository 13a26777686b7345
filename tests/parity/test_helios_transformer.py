"""One call of our Helios equals diffusers' on the same weights and inputs, in float32 on a CPU."""

import comfy.ops
import pytest
import torch
from support.helios import SMALL, call, run_oracle, run_ours, seen, small_helios
from support.ours import relative_error

from framepack_core.comfyui.model.helios.transformer import HeliosTransformer
from framepack_core.weights import helios

# The size of the history, and that of the generated frames.
SIZES = {
    "full": ((16, 24), (16, 24)),
    "padded": ((10, 14), (10, 14)),
    "half": ((16, 24), (8, 12)),
    "quarter": ((16, 24), (4, 6)),
    "odd half": ((20, 12), (10, 6)),
}
TOLERANCE = 2e-5


@pytest.fixture(scope="module")
def oracle():
    return small_helios()


@pytest.fixture(scope="module")
def ours(oracle) -> HeliosTransformer:
    return ours_of(oracle)


def ours_of(oracle, **config) -> HeliosTransformer:
    sizes = oracle.config
    model = HeliosTransformer(
        dim=sizes.num_attention_heads * sizes.attention_head_dim,
        num_heads=sizes.num_attention_heads,
        ffn_dim=sizes.ffn_dim,
        num_layers=sizes.num_layers,
        text_dim=sizes.text_dim,
        dtype=torch.float32,
        operations=comfy.ops.disable_weight_init,
        **config,
    )
    model.load_state_dict(helios.to_comfy(dict(oracle.state_dict())))
    return model.eval().requires_grad_(False)


@pytest.mark.parametrize("batch", [1, 2])
@pytest.mark.parametrize("size", SIZES)
def test_one_call_equals_diffusers(oracle, ours, size, batch):
    history, target = SIZES[size]
    context, given = seen(*history, batch), call(*target, batch)

    expected = run_oracle(oracle, given, context)
    found = run_ours(ours, given, context)

    assert relative_error(found, expected) < TOLERANCE
