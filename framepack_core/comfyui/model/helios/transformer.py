"""Helios' transformer: ComfyUI's Wan with packed history in front of the generated tokens."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch
from torch import Tensor, nn

from ....layout import BASE_KERNEL, Kernel
from ....packing import context_tokens, patchify
from ... import private
from ..transformer import require_whole_section, with_attention
from .block import HeliosBlock, in_float32, modulated

private.require_for(private.HELIOS)

timestep_embedding = private.timestep_embedding  # bound once: it runs at every step

HISTORY_KERNELS = {"patch_short": Kernel(1, 2, 2), "patch_mid": Kernel(2, 4, 4), "patch_long": Kernel(4, 8, 8)}


class HeliosTransformer(private.WanModel):
    """Wan that sees the video's history, patchified more coarsely the older it is.

    Patchifying, the embedding of the timestep, norms, modulation and sums of residuals are in float32, as in the reference.
    """

    def __init__(
        self, history_scales: int = 0, dtype=None, device=None, operations: Any = None, freq_dim: int = 256, **kwargs: Any
    ) -> None:
        block = partial(HeliosBlock, history_scales=history_scales)
        settings = {"dtype": dtype, "device": device, "operations": operations}
        super().__init__(wan_attn_block_class=block, freq_dim=freq_dim, **settings, **kwargs)
        exact = {"dtype": torch.float32, "device": device}
        for name, kernel in HISTORY_KERNELS.items():
            self.add_module(name, operations.Conv3d(self.in_dim, self.dim, kernel_size=kernel, stride=kernel, **exact))
        self.time_embedding = nn.Sequential(
            operations.Linear(freq_dim, self.dim, **exact), nn.SiLU(), operations.Linear(self.dim, self.dim, **exact)
        )
        self.head.modulation = nn.Parameter(torch.empty(1, 2, self.dim, **exact))

    @property
    def axes(self) -> tuple[int, int, int]:
        """Channels of a head that turn with time, height and width."""
        side = 2 * (self.dim // self.num_heads // 6)
        return self.dim // self.num_heads - 2 * side, side, side

    def forward(self, x: Tensor, timestep: Tensor, *args: Any, **kwargs: Any) -> Tensor:
        """ComfyUI's, which calls `_forward` through nodes. They get a copy of `x`, since EasyCache adds to what it is given."""
        return super().forward(x.clone(), timestep, *args, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        clip_fea: Tensor | None = None,
        time_dim_concat: Tensor | None = None,
        transformer_options: dict = {},  # noqa: B006 - ComfyUI's signature
        *,
        packed: Any,
        history_latents: Sequence[Tensor] = (),
        **kwargs: Any,
    ) -> Tensor:
        """Velocity `B C T H W` of the generated frames `x`, at a timestep `B` each, for a prompt `B L D`.

        `packed` is the stage's kernels and rotary phases, `history_latents` its groups `B C T H W`. The other parameters are
        Wan's; Helios ignores them.
        """
        require_whole_section(x, packed)
        options = with_attention(transformer_options, x.device)
        options["grid_sizes"] = packed.size
        tokens = patchify(x, BASE_KERNEL, {BASE_KERNEL: self.exactly(self.patch_embedding, x.dtype)})
        if history_latents:
            convolutions = {kernel: self.exactly(getattr(self, name), x.dtype) for name, kernel in HISTORY_KERNELS.items()}
            tokens = torch.cat([context_tokens(history_latents, packed.kernels, convolutions), tokens], dim=1)
        vec = self.embedded(timestep, x.dtype)
        tokens = self.run_blocks(x, tokens, self.text_embedding(context), vec, packed, options)
        return self.unpatchify(self.velocity(tokens[:, packed.tokens :], vec), packed.size)

    def exactly(self, convolution: nn.Module, dtype: torch.dtype) -> Callable[[Tensor], Tensor]:
        """The convolution in float32, whatever the dtype of the latents and, afterwards, of the tokens."""
        return lambda latents: convolution(latents.float()).to(dtype)

    def embedded(self, timestep: Tensor, dtype: torch.dtype) -> Tensor:
        """`B 2 D`: timestep zero, which is the history's, and that of the generated frames."""
        timesteps = torch.stack([torch.zeros_like(timestep), timestep], dim=-1)
        embedded = self.time_embedding(timestep_embedding(timesteps.flatten(), self.freq_dim, time_factor=1.0))
        return embedded.to(dtype).unflatten(0, timesteps.shape)

    def run_blocks(self, x: Tensor, tokens: Tensor, txt: Tensor, vec: Tensor, packed: Any, options: dict) -> Tensor:
        """All tokens `B L D` after all blocks, honouring ComfyUI's block replacements and patches."""
        replaced = options.get("patches_replace", {}).get("dit", {})
        patches = options.get("patches", {}).get("double_block", ())
        modulation = self.time_projection(vec).unflatten(-1, (6, self.dim))
        options["total_blocks"], options["block_type"] = len(self.blocks), "double"
        for i, block in enumerate(self.blocks):
            options["block_index"] = i
            inputs = {"img": tokens, "txt": txt, "vec": modulation, "pe": packed.rotary, "transformer_options": options}
            run = replaced.get(("double_block", i))
            original = _original(block, packed.tokens)
            tokens = (run(inputs, {"original_block": original}) if run else original(inputs))["img"]
            for patch in patches:
                given = {"img": tokens, "x": x, "vec": vec, "block_index": i, "img_offset": packed.tokens,
                         "transformer_options": options}  # fmt: skip
                tokens = patch(given)["img"]
        return tokens

    def velocity(self, tokens: Tensor, vec: Tensor) -> Tensor:
        """The generated tokens `B L D` as patches `B L C`."""
        table = in_float32(self.head.modulation, tokens.device)[:, None]
        shift, scale = (table + vec[:, :, None].float()).unbind(2)
        return self.head.head(modulated(self.head.norm, tokens, shift, scale, history=0))


def _original(block: nn.Module, history: int) -> Callable[[dict], dict]:
    def run(inputs: dict) -> dict:
        out = block(
            inputs["img"],
            e=inputs["vec"],
            freqs=inputs["pe"],
            context=inputs["txt"],
            history=history,
            transformer_options=inputs["transformer_options"],
        )
        return {"img": out}

    return run
