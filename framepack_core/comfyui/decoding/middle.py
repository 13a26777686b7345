"""The middle block of HunyuanVideo's decoder over a video of any length, two latent frames at a time.

In ComfyUI's decoder (`comfy.ldm.modules.diffusionmodules.model.Decoder`) this block sees the whole video at once: its group
norms take their statistics over all frames, and every position attends to every other. The layers are few and work at
latent resolution, so they can be run several times: once for the exact statistics of each norm, and once for the result.
Only the attention is reduced in a long video: a frame attends to those around it and to others spread evenly over the rest
of the video, each of which also stands for its neighbours.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterator
from itertools import chain, repeat
from typing import TYPE_CHECKING

import comfy.model_management
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import private

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.model import AttnBlock, Decoder, ResnetBlock

SCORES = 2**27  # attention scores in memory at once where torch has no fused kernel

Chunks = Iterator[Tensor]


def whole_middle(decoder: Decoder, z: Tensor) -> Tensor:
    """The decoder's own middle block on all latents `1 16 T H W` at once, which takes seven times the memory of its result.

    The attention is torch's, because the one ComfyUI would choose may take all free memory.
    """
    attention = decoder.mid.attn_1
    x = decoder.mid.block_1(private.conv_carry_causal_3d([z], decoder.conv_in))
    normed = attention.norm(x)
    x = attend(attention, x, normed, *keys_and_values(attention, normed))
    return decoder.mid.block_2(x)


class Middle:
    """Iterates over the decoder's features `1 C t H W` after its middle block.

    `latents()` iterates afresh over the video's latents in `count` chunks `1 16 t H W`. A chunk attends to `keys` chunks: to
    all of a video that has no more, otherwise to a quarter of them around it and the others spread over the rest.
    """

    def __init__(self, decoder: Decoder, latents: Callable[[], Chunks], count: int, keys: int) -> None:
        mid = decoder.mid
        block_1 = Resnet(mid.block_1, lambda: map(Carried(decoder.conv_in), latents()))
        attention = Attention(mid.attn_1, block_1, count, keys)
        self.block_2 = Resnet(mid.block_2, attention)

    def __iter__(self) -> Chunks:
        return self.block_2()


class Resnet:
    """A residual block over a whole video. `chunks()` iterates over its input, a call over its output, both `1 C t H W`.

    Two passes measure its norms, one after the other, because what the second sees depends on the first.
    """

    def __init__(self, block: ResnetBlock, chunks: Callable[[], Chunks]) -> None:
        self.block, self.chunks = block, chunks
        self.norm1 = VideoNorm(block.norm1, chunks())
        self.norm2 = VideoNorm(block.norm2, (h for _, h in self._halfway()))

    def __call__(self) -> Chunks:
        conv2 = Carried(self.block.conv2)
        for x, h in self._halfway():
            yield x + conv2(F.silu(self.norm2(h)))

    def _halfway(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each chunk, and what the first convolution makes of it."""
        conv1 = Carried(self.block.conv1)
        for x in self.chunks():
            yield x, conv1(F.silu(self.norm1(x)))


class Attention:
    """The attention block over a whole video in the same way: one pass measures its norm, one collects keys from all over."""

    def __init__(self, block: AttnBlock, chunks: Callable[[], Chunks], count: int, keys: int) -> None:
        self.block, self.chunks, self.count = block, chunks, count
        self.reach = max(1, keys // 8)  # all chunks this near, before and after, are attended to
        stride = 1 if count <= keys else math.ceil(count / max(1, keys - 2 * self.reach - 1))
        self.norm = VideoNorm(block.norm, chunks())
        self.spread = {
            index: keys_and_values(block, self.norm(x)) for index, x in enumerate(chunks()) if index % stride == stride // 2
        }

    def __call__(self) -> Chunks:
        window: deque[tuple[int, Tensor, Tensor, Tensor]] = deque(maxlen=2 * self.reach + 1)
        for index, x in enumerate(chain(self.chunks(), repeat(None, self.reach))):
            if x is not None:
                window.append((index, x, *keys_and_values(self.block, self.norm(x))))
            if index >= self.reach:
                yield self._attend_from(index - self.reach, window)

    def _attend_from(self, index: int, window: deque[tuple[int, Tensor, Tensor, Tensor]]) -> Tensor:
        first, last = window[0][0], window[-1][0]
        near = [entry[2:] for entry in window]
        others = [pair for key, pair in self.spread.items() if not first <= key <= last]
        keys, values = (torch.cat(parts) for parts in zip(*near, *others, strict=True))
        bias = keys.new_zeros(len(keys))
        if others:
            bias[sum(len(key) for key, _ in near) :] = math.log((self.count - len(window)) / len(others))
        x = window[index - first][1]
        return attend(self.block, x, self.norm(x), keys, values, bias)


class VideoNorm:
    """A group norm whose mean and variance are those of a whole video, given as `chunks` of `1 C t H W`."""

    def __init__(self, norm: nn.GroupNorm, chunks: Chunks) -> None:
        count, moments = 0, torch.zeros(2, norm.num_groups, dtype=torch.float64)
        for x in chunks:
            variance, mean = torch.var_mean(x.float().reshape(norm.num_groups, -1), dim=1, correction=0)
            moments += x.numel() * torch.stack([mean, variance + mean**2]).cpu()
            count += x.numel()
        mean, square = moments / count
        deviation = (square - mean**2 + norm.eps).sqrt()
        mean, deviation = (value.repeat_interleave(norm.num_channels // norm.num_groups) for value in (mean, deviation))
        weight, bias = (comfy.model_management.cast_to(p, torch.float64, mean.device) for p in (norm.weight, norm.bias))
        self.scale = (weight / deviation).float().view(-1, 1, 1, 1)
        self.shift = (bias - mean * weight / deviation).float().view(-1, 1, 1, 1)

    def __call__(self, x: Tensor) -> Tensor:
        return torch.addcmul(self.shift.to(x.device), x.float(), self.scale.to(x.device)).to(x.dtype)


class Carried:
    """A causal convolution that continues where the chunk before ended."""

    def __init__(self, convolution: nn.Module) -> None:
        self.convolution, self.carry = convolution, None

    def __call__(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        x = private.conv_carry_causal_3d([x], self.convolution, self.carry, kept)
        self.carry = kept
        return x


def attend(attention: AttnBlock, x: Tensor, normed: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None = None) -> Tensor:
    """The attention block for `x`, with these keys and values `N C`; `bias`, one for each key, is added to the scores."""
    out = torch.cat([
        F.scaled_dot_product_attention(
            queries[None, None], keys[None, None], values[None, None],
            None if bias is None else bias.expand(1, 1, len(queries), -1),
        )[0, 0]
        for queries in rows(attention.q(normed)).split(max(1, SCORES // len(keys)))
    ])  # fmt: skip
    return x + attention.proj_out(out.T.reshape(x.shape))


def keys_and_values(attention: AttnBlock, normed: Tensor) -> tuple[Tensor, Tensor]:
    return rows(attention.k(normed)), rows(attention.v(normed))


def rows(x: Tensor) -> Tensor:
    """`1 C t H W` as `N C`."""
    return x[0].flatten(1).T.contiguous()
