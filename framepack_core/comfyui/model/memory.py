"""The memory that a call of the transformer takes, in the units of ComfyUI's memory estimate."""

from __future__ import annotations

from collections.abc import Sequence

from ...layout import BASE_KERNEL

# Activations of one call at the released width: up to 106 KB per token in bf16 where no kernel turns queries and keys in one
# pass, as tests/card/test_transformer.py counts, and a few percent more.
MEMORY_FACTOR, RELEASED_HIDDEN = 1.3, 3072


def memory_factor(hidden_size: int) -> float:
    """ComfyUI's `memory_usage_factor`."""
    return MEMORY_FACTOR * hidden_size / RELEASED_HIDDEN


def token_cells(shape: Sequence[int]) -> list[int]:
    """Tokens `B L D` as the latent pixels that cost as much: a generated token stands for 2x2 of them."""
    return [shape[0], 1, shape[1] * BASE_KERNEL.h * BASE_KERNEL.w]
