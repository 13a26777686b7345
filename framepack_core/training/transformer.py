"""The transformer for training: diffusers' blocks with this project's packing."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import torch
import torch._inductor
from diffusers import HunyuanVideoFramepackTransformer3DModel
from diffusers.models.transformers.transformer_hunyuan_video_framepack import HunyuanVideoHistoryPatchEmbed
from torch import Tensor, nn
from torch.nn import functional as F

from ..layout import BASE_KERNEL, Kernel
from ..packing import context_tokens

RELEASED_KERNELS = {"proj": Kernel(1, 2, 2), "proj_2x": Kernel(2, 4, 4), "proj_4x": Kernel(4, 8, 8)}
TIMESTEPS = 1000.0  # the scale of timesteps and guidance inside the embeddings

Rotary = tuple[Tensor, Tensor]


class PackedTransformer(HunyuanVideoFramepackTransformer3DModel):
    """FramePack's transformer with a patchify convolution for every kernel added to it.

    Convolutions of kernels beyond the released ones are named `clean_x_embedder.proj_<kernel>`, for example `proj_k1h4w2`.
    """

    clean_x_embedder: HunyuanVideoHistoryPatchEmbed  # diffusers allows it to be missing
    _gradient_checkpointing_func: Callable[..., Any]

    def __init__(self, *args, **kwargs) -> None:
        super().__init__(*args, **kwargs)
        for block in self.blocks:
            block.attn.set_processor(JointAttention())

    @property
    def blocks(self) -> list[Any]:
        """All modules in order, typed, which a ModuleList's are not."""
        return [*self.transformer_blocks, *self.single_transformer_blocks]

    def add_kernels(self, kernels: Iterable[Kernel]) -> tuple[str, ...]:
        """Add convolutions for those of these kernels that have none, and return their names.

        A new one starts as what packing does without it: the base convolution of averaged latents.
        """
        base = self.clean_x_embedder.proj
        present = set(context_kernels(self.clean_x_embedder.state_dict()).values())
        added = []
        for kernel in sorted(set(kernels) - present):
            convolution = nn.Conv3d(base.in_channels, base.out_channels, kernel, kernel).to(base.weight)
            with torch.no_grad():
                convolution.load_state_dict({"weight": stretched(base.weight, kernel), "bias": base.bias})
            self.clean_x_embedder.add_module(f"proj_{kernel}", convolution)
            added.append(f"proj_{kernel}")
        return tuple(added)

    def drop_kernels(self, names: Iterable[str]) -> None:
        """Remove these kernels' convolutions, which packing then builds from the base. The released ones stay."""
        for name in names:
            if hasattr(self.clean_x_embedder, f"proj_{name}"):
                delattr(self.clean_x_embedder, f"proj_{name}")

    @property
    def convolutions(self) -> dict[Kernel, nn.Conv3d]:
        convolutions = [module for module in self.clean_x_embedder.children() if isinstance(module, nn.Conv3d)]
        return {Kernel(*convolution.kernel_size): convolution for convolution in convolutions}

    def forward(  # pyright: ignore[reportIncompatibleMethodOverride] - packing is done here, so the inputs are others
        self,
        latents: Tensor,
        timestep: Tensor,
        text: Tensor,
        text_mask: Tensor | None,
        pooled: Tensor,
        image: Tensor | None,
        context: Sequence[Tensor],
        kernels: Sequence[Kernel],
        rotary: Rotary,
        guidance: Tensor | None = None,
    ) -> Tensor:
        """Velocity `B C T H W` of the noisy `latents`.

        `timestep` `B` is 1000 sigma, `text` `B L D` has the mask `text_mask` `B L` (None: all of it counts), `pooled` is
        `B 768`, `image` `B N D`, `guidance` `B`. `context` are the groups `B C T H W` in the section's order, `rotary` are
        packing's phases `L head/2` for the context tokens and then the generated ones.
        """
        tokens = self.x_embedder(latents)
        generated = tokens.shape[1]
        if context:
            tokens = torch.cat([context_tokens(context, kernels, self.convolutions).to(tokens), tokens], dim=1)
        modulation, _ = self.time_text_embed(timestep, pooled, None if guidance is None else guidance * TIMESTEPS)
        text = self.context_embedder(text, timestep, text_mask)
        if self.image_projection is not None and image is not None:
            text = torch.cat([self.image_projection(image).to(text), text], dim=1)
        tokens = self.run_blocks(tokens, text, modulation, seen(text_mask, tokens, text), turns(rotary, tokens))
        tokens = self.proj_out(self.norm_out(tokens[:, -generated:], modulation))
        return unpatchify(tokens, latents.shape)

    def run_blocks(self, tokens: Tensor, text: Tensor, modulation: Tensor, mask: Tensor | None, rotary: Rotary) -> Tensor:
        for block in self.blocks:
            if self.gradient_checkpointing and torch.is_grad_enabled():
                tokens, text = self._gradient_checkpointing_func(block, tokens, text, modulation, mask, rotary)
            else:
                tokens, text = block(tokens, text, modulation, mask, rotary)
        return tokens

    def use_plain_attention(self) -> None:
        """Compute attention from plain matrix products, which is faster on CPUs that multiply bfloat16 in hardware."""
        for block in self.blocks:
            block.attn.processor.plain = True

    def compile(self, whole: bool) -> None:
        """Compile the whole blocks, once for all token counts, or only what is not a matrix product in them.

        On a CPU the latter is faster: whole blocks compiled for any length are slower there than uncompiled ones.
        """
        if whole:
            for block in self.blocks:
                block.compile(dynamic=True, options=without_mixed_reductions())
            return
        turn = torch.compile(norm_turn, dynamic=True)
        for block in self.blocks:
            block.attn.processor.norm_turn = turn
        compiled = torch.compile(gelu, dynamic=True)
        for block in self.single_transformer_blocks:
            block.act_mlp = Activation(compiled)
        for block in self.blocks[: len(self.transformer_blocks)]:
            block.ff.net[0].gelu = compiled


def without_mixed_reductions() -> dict[str, bool]:
    """Options of torch.compile, where this torch has them: its mixed reductions fail for dynamic lengths in torch 2.11."""
    name = "triton.mix_order_reduction"
    return {name: False} if name in torch._inductor.list_options() else {}


class Activation(nn.Module):
    """A function as a module."""

    def __init__(self, function) -> None:
        super().__init__()
        self.function = function

    def forward(self, x: Tensor) -> Tensor:
        return self.function(x)


class JointAttention:
    """diffusers' attention in HunyuanVideo's blocks: phases rotate video tokens but not text tokens."""

    def __init__(self) -> None:
        self.plain = False
        self.norm_turn = norm_turn

    def __call__(self, attn, hidden_states: Tensor, encoder_hidden_states: Tensor, attention_mask, image_rotary_emb):
        L = hidden_states.shape[1]
        plain, norm_turn = self.plain, self.norm_turn
        single = attn.add_q_proj is None
        if single:
            joint = torch.cat([hidden_states, encoder_hidden_states], dim=1)
            q, k, v = (heads(project(joint), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v))
            phases = unturned(image_rotary_emb, encoder_hidden_states.shape[1])
            q, k = (normed(norm_turn, x, norm, phases) for x, norm in ((q, attn.norm_q), (k, attn.norm_k)))
        else:
            q, k, v = (heads(project(hidden_states), attn.heads) for project in (attn.to_q, attn.to_k, attn.to_v))
            q, k = (normed(norm_turn, x, norm, image_rotary_emb) for x, norm in ((q, attn.norm_q), (k, attn.norm_k)))
            projections = attn.add_q_proj, attn.add_k_proj, attn.add_v_proj
            text_q, text_k, text_v = (heads(project(encoder_hidden_states), attn.heads) for project in projections)
            q = torch.cat([q, attn.norm_added_q(text_q).to(q)], dim=1)
            k = torch.cat([k, attn.norm_added_k(text_k).to(k)], dim=1)
            v = torch.cat([v, text_v], dim=1)
        out = attend(q.to(v), k.to(v), v, attention_mask, plain)
        out, text = out[:, :L], out[:, L:]
        if not single:
            out, text = attn.to_out[0](out), attn.to_add_out(text)
        return out, text


def heads(x_BLD: Tensor, count: int) -> Tensor:
    return x_BLD.unflatten(2, (count, -1))


def norm_turn(x: Tensor, weight: Tensor, cos: Tensor, sin: Tensor, eps: float) -> Tensor:
    """`B L heads D` divided by its root mean square over D, times `weight`, with neighbours rotated by phases `L 1 D/2`."""
    scaled = x.float()
    scaled = scaled * torch.rsqrt(scaled.square().mean(dim=-1, keepdim=True) + eps) * weight.float()
    real, imaginary = scaled.unflatten(-1, (-1, 2)).unbind(-1)
    turned = torch.stack([real * cos - imaginary * sin, real * sin + imaginary * cos], dim=-1)
    return turned.flatten(-2).to(x.dtype)


def gelu(x: Tensor) -> Tensor:
    """GELU in its tanh form, written with the sigmoid, which takes half the time of the tanh when compiled."""
    full = x.float()
    return (full * torch.sigmoid(1.5957691216057308 * (full + 0.044715 * full * full * full))).to(x.dtype)


def normed(function, x: Tensor, norm: nn.Module, rotary: Rotary) -> Tensor:
    return function(x, norm.weight, *rotary, norm.eps)


def attend(q: Tensor, k: Tensor, v: Tensor, mask: Tensor | None, plain: bool) -> Tensor:
    """Attention over all tokens, `B L heads D` to `B L heads*D`. `mask` `B 1 1 L` keeps what is True."""
    q, k, v = (x.transpose(1, 2) for x in (q, k, v))
    if plain:
        scores = (q * q.shape[-1] ** -0.5) @ k.transpose(-1, -2)
        if mask is not None:
            scores = scores.masked_fill(~mask, -torch.inf)
        out = scores.softmax(dim=-1) @ v
    else:
        out = F.scaled_dot_product_attention(q, k, v, attn_mask=mask)
    return out.transpose(1, 2).flatten(2)


def unturned(rotary: Rotary, tokens: int) -> Rotary:
    """The phases, followed by identity ones for text, which has no place in the video."""
    cos, sin = rotary
    return F.pad(cos, (0, 0, 0, 0, 0, tokens), value=1.0), F.pad(sin, (0, 0, 0, 0, 0, tokens))


def turns(rotary: Rotary, tokens: Tensor) -> Rotary:
    """The phases on the tokens' device, shaped for `B L heads D/2`."""
    cos, sin = (phase.to(tokens.device)[:, None] for phase in rotary)
    return cos, sin


def seen(text_mask: Tensor | None, tokens: Tensor, text: Tensor) -> Tensor | None:
    """`B 1 1 L` over video, image and text tokens: True where a token counts. None if all do."""
    if text_mask is None:
        return None
    everything = text_mask.shape[1]
    before = text_mask.new_ones(len(text_mask), tokens.shape[1] + text.shape[1] - everything, dtype=torch.bool)
    return torch.cat([before, text_mask.bool()], dim=1)[:, None, None]


def unpatchify(tokens_BLD: Tensor, shape: Sequence[int]) -> Tensor:
    B, _, T, H, W = shape
    _, p, q = BASE_KERNEL
    patches = tokens_BLD.unflatten(1, (T, H // p, W // q)).unflatten(-1, (-1, p, q))
    return patches.permute(0, 4, 1, 2, 5, 3, 6).reshape(B, -1, T, H, W)


def stretched(weight: Tensor, kernel: Kernel) -> Tensor:
    """The base convolution's weight with every cell repeated over a larger kernel, divided by the number of copies."""
    copies = tuple(k // base for k, base in zip(kernel, BASE_KERNEL, strict=True))
    for axis, count in enumerate(copies, start=2):
        weight = weight.repeat_interleave(count, dim=axis) / count
    return weight


def context_kernels(weights: dict[str, Tensor]) -> dict[str, Kernel]:
    """Names and kernels of the convolutions in `clean_x_embedder`'s state dict."""
    names = re.compile(r"(proj\w*)\.weight")
    return {match[1]: Kernel(*weights[key].shape[2:]) for key in weights if (match := names.fullmatch(key))}
