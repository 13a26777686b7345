"""A block of Helios: ComfyUI's Wan block in which history is modulated by another timestep and does not see the prompt.

The first `history` of the tokens `B L D` are the history's. Norms, modulation and residual sums are computed in float32 and
rounded once each, as in the reference (diffusers' `HeliosTransformerBlock`).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from comfy.model_management import cast_to
from torch import Tensor, nn

from ... import private

# Bound once: they run at every step.
apply_rope1, optimized_attention = private.apply_rope1, private.optimized_attention

MAX_KEY_SCALE = 10.0  # of history keys that a checkpoint amplifies


class HeliosBlock(private.WanAttentionBlock):
    """With `history_scales`, the number of them, the checkpoint amplifies history keys: one for all heads or one for each."""

    def __init__(self, *args: Any, history_scales: int = 0, operation_settings: dict[str, Any], **kwargs: Any) -> None:
        super().__init__(*args, operation_settings=operation_settings, **kwargs)
        device, operations = operation_settings["device"], operation_settings["operations"]
        exact = {"device": device, "dtype": torch.float32}
        self.modulation = nn.Parameter(torch.empty(1, 6, self.dim, **exact))
        self.norm3 = operations.LayerNorm(self.dim, self.eps, elementwise_affine=True, **exact)
        if history_scales:
            self.self_attn = AmplifyingAttention(
                self.dim, self.num_heads, self.window_size, self.qk_norm, self.eps, operation_settings=operation_settings
            )
            self.self_attn.history_key_scale = nn.Parameter(torch.empty(history_scales, **exact))

    def forward(
        self,
        x: Tensor,
        e: Tensor,
        freqs: Tensor,
        context: Tensor,
        history: int = 0,
        transformer_options: dict = {},  # noqa: B006 - ComfyUI's signature
    ) -> Tensor:
        """`e` `B 2 6 D` modulates the history and the generated tokens; `freqs` `1 L 1 d/2 2 2` turns both."""
        table = in_float32(self.modulation, x.device)[:, None]
        shift, scale, gate, ffn_shift, ffn_scale, ffn_gate = (table + e.float()).unbind(2)

        y = modulated(self.norm1, x, shift, scale, history)
        x = gated(x, self.attend(y, freqs, history, transformer_options), gate, history)

        generated = x[:, history:]
        generated += self.cross_attn(
            self.norm3(generated.float()).to(x.dtype), context, transformer_options=transformer_options
        )
        for patch in transformer_options.get("patches", {}).get("attn2_patch", ()):
            x = patch({"x": x, "transformer_options": transformer_options})

        y = modulated(self.norm2, x, ffn_shift, ffn_scale, history)
        return gated(x, self.ffn(y), ffn_gate, history)

    def attend(self, y: Tensor, freqs: Tensor, history: int, transformer_options: dict) -> Tensor:
        if isinstance(self.self_attn, AmplifyingAttention):
            return self.self_attn(y, freqs, transformer_options, history)
        return self.self_attn(y, freqs, transformer_options)


class AmplifyingAttention(private.WanSelfAttention):
    """Wan's self-attention in which the history's turned keys are up to `MAX_KEY_SCALE` times as long."""

    history_key_scale: nn.Parameter

    def forward(self, x: Tensor, freqs: Tensor, transformer_options: dict = {}, history: int = 0) -> Tensor:  # noqa: B006
        q, k = (
            apply_rope1(norm(layer(x)).unflatten(-1, (self.num_heads, self.head_dim)), freqs)
            for norm, layer in ((self.norm_q, self.q), (self.norm_k, self.k))
        )
        amplified = in_float32(self.history_key_scale, x.device).sigmoid() * (MAX_KEY_SCALE - 1) + 1
        k = torch.cat([(k[:, :history] * amplified[:, None]).to(k), k[:, history:]], dim=1)
        out = optimized_attention(
            q.flatten(2), k.flatten(2), self.v(x), heads=self.num_heads, transformer_options=transformer_options
        )
        for patch in transformer_options.get("patches", {}).get("attn1_patch", ()):
            out = patch({"x": out, "q": q, "k": k, "transformer_options": transformer_options})
        return self.o(out)


def in_float32(weight: Tensor, device: torch.device) -> Tensor:
    return cast_to(weight, dtype=torch.float32, device=device)


def modulated(norm: nn.Module, x: Tensor, shift: Tensor, scale: Tensor, history: int) -> Tensor:
    """`norm(x) * (1 + scale) + shift`, with a row `B 2 D` of shift and scale for the history and one for the other tokens."""
    out = torch.empty_like(x)
    for tokens, row in rows(x, history):
        torch.addcmul(shift[:, row], norm(x[:, tokens].float()), 1 + scale[:, row], out=out[:, tokens])
    return out


def gated(x: Tensor, y: Tensor, gate: Tensor, history: int) -> Tensor:
    """`x + y * gate`, with a row `B 2 D` of the gate for the history and one for the other tokens."""
    out = torch.empty_like(x)
    for tokens, row in rows(x, history):
        torch.addcmul(x[:, tokens], y[:, tokens], gate[:, row], out=out[:, tokens])
    return out


def rows(x: Tensor, history: int) -> Iterator[tuple[slice, slice]]:
    """The tokens of the history, if there are any, and the generated ones, each with its row of a modulation."""
    if history:
        yield slice(0, history), slice(0, 1)
    yield slice(history, x.shape[1]), slice(1, 2)
