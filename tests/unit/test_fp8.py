"""Scaled fp8 with one scale per matrix: how far it is from what the file says."""

import pytest
import torch

from framepack_core.weights.fp8 import FP8_DTYPES, dequantise, fuse_scaled, one_scale, quantise

# Rounding to nearest: half of the last bit of the mantissa, and half of the smallest subnormal.
RELATIVE = {torch.float8_e4m3fn: 2**-4, torch.float8_e5m2: 2**-3}
ABSOLUTE = {torch.float8_e4m3fn: 2**-10, torch.float8_e5m2: 2**-17}
TINY = 1 + 1e-5  # margin for float32 arithmetic

both = pytest.mark.parametrize("dtype", FP8_DTYPES, ids=str)


def random(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def assert_rounded(stored: torch.Tensor, scale: torch.Tensor, full: torch.Tensor) -> None:
    """`stored * scale` is `full` up to one rounding to fp8."""
    error = (stored.float() * scale - full).abs()
    bound = (RELATIVE[stored.dtype] * full.abs()).clamp(min=(ABSOLUTE[stored.dtype] * scale).item())
    assert (error <= bound * TINY).all(), (error / bound).max()


def scaled(shape: tuple[int, ...], dtype: torch.dtype, out: int = 24, columns: int = 64, seed: int = 0):
    """(fp8 weight, scales of a shape, what they stand for), scales a thousandfold apart."""
    weight = random(out, columns, seed=seed).mul(3).to(dtype)
    scale = torch.logspace(-2, 1, torch.Size(shape).numel()).reshape(shape)
    rows = scale.expand(out, *shape[1:]) if len(shape) > 1 else scale.expand(out, 1)
    per_column = rows.reshape(out, -1).repeat_interleave(columns // rows.reshape(out, -1).shape[1], dim=1)
    return weight, scale, weight.float() * per_column


@both
@pytest.mark.parametrize("shape", [(1,), (24, 1), (24, 4, 1), (24, 64, 1)], ids=["matrix", "row", "block", "column"])
def test_a_scale_counts_for_the_matrix_its_row_or_its_block_of_columns(shape, dtype):
    weight, scale, full = scaled(shape, dtype)

    torch.testing.assert_close(dequantise(weight, scale), full, rtol=1e-6, atol=0)


@both
def test_quantising_uses_the_whole_range_and_rounds_once(dtype):
    weight = random(64, 64) * 0.037

    stored, scale = quantise(weight, dtype)

    assert stored.dtype == dtype
    assert scale.dtype == torch.float32
    assert scale.shape == ()
    assert stored.float().abs().max() == torch.finfo(dtype).max
    assert_rounded(stored, scale, weight)


@both
def test_a_matrix_of_zeros_stays_zero(dtype):
    stored, scale = quantise(torch.zeros(4, 4), dtype)

    assert torch.equal(stored.float() * scale, torch.zeros(4, 4))


@both
@pytest.mark.parametrize("shape", [(24, 1), (24, 4, 1)], ids=["row", "block"])
def test_scales_of_rows_or_blocks_become_one_within_one_rounding(shape, dtype):
    weight, scale, full = scaled(shape, dtype)
    weights = {"proj_out.weight": weight, "proj_out.scale_weight": scale, "proj_out.bias": random(24)}

    one_scale(weights)

    assert weights.keys() == {"proj_out.weight", "proj_out.scale_weight", "proj_out.bias"}
    assert weights["proj_out.weight"].dtype == dtype
    assert weights["proj_out.scale_weight"].numel() == 1
    assert_rounded(weights["proj_out.weight"], weights["proj_out.scale_weight"], full)
    # The matrix as a whole is even closer than its worst number.
    result = weights["proj_out.weight"].float() * weights["proj_out.scale_weight"]
    assert (result - full).norm() / full.norm() < RELATIVE[dtype] / 2


@both
def test_a_single_scale_is_left_as_it_is(dtype):
    weight, scale, _ = scaled((1,), dtype)
    weights = {"proj_out.weight": weight, "proj_out.scale_weight": scale}

    one_scale(weights)

    assert weights["proj_out.weight"] is weight
    assert weights["proj_out.scale_weight"] is scale


@both
@pytest.mark.parametrize("shape", [(), (1,), (24, 1), (24, 4, 1)], ids=["scalar", "matrix", "row", "block"])
def test_joined_matrices_share_one_scale_within_one_rounding(shape, dtype):
    parts, full = [], []
    for seed, factor in enumerate((1.0, 0.1, 4.0)):
        weight, scale, whole = scaled(shape or (1,), dtype, seed=seed)
        parts.append({"weight": weight, "weight_scale": (scale * factor).reshape(shape), "bias": random(24, seed=seed)})
        full.append(whole * factor)

    joined = fuse_scaled(parts)

    assert joined.keys() == {"weight", "weight_scale", "bias"}
    assert joined["weight"].shape == (72, 64)
    assert joined["weight"].dtype == dtype
    assert joined["weight_scale"].numel() == 1
    assert_rounded(joined["weight"], joined["weight_scale"], torch.cat(full))
    assert torch.equal(joined["bias"], torch.cat([part["bias"] for part in parts]))


def test_joined_matrices_keep_the_widest_input_scale_and_the_format():
    mark = torch.tensor([1, 2, 3], dtype=torch.uint8)
    parts = [
        {
            "weight": random(4, 4).to(torch.float8_e4m3fn),
            "weight_scale": torch.tensor(1.0),
            "input_scale": torch.tensor(value),
            "comfy_quant": mark,
        }
        for value in (0.5, 2.0, 1.0)
    ]

    joined = fuse_scaled(parts)

    assert joined["input_scale"] == 2.0
    assert torch.equal(joined["comfy_quant"], mark)
