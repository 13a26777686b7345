"""The middle block of HunyuanVideo's decoder over a video of any length, two latent frames at a time.

In ComfyUI's decoder (`comfy.ldm.modules.diffusionmodules.model.Decoder`) this block sees the whole video at once: its group
norms take their statistics over all frames, and every position attends to every other. The layers are few and work at
latent resolution, so they can be run again and again: once for the statistics of each norm, which are exact in this way, and
once for the result. What is left out is attention to every frame. A frame attends to those around it, and to others that are
spread evenly over the rest of the video, each of which stands for those between.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from itertools import chain, repeat

import comfy.model_management
import torch
from comfy.ldm.modules.diffusionmodules.model import AttnBlock, Decoder, ResnetBlock, conv_carry_causal_3d
from torch import Tensor, nn
from torch.nn import functional as F

SCORES = 2**27  # attention scores that are in memory at once, where torch has no fused kernel

Chunks = Iterator[Tensor]


def whole_middle(decoder: Decoder, z: Tensor) -> Tensor:
    """The decoder's own middle block on all latents `1 16 T H W` at once, in memory of seven times its result.

    The attention is torch's; what ComfyUI would choose may take all the memory that is free.
    """
    attention = decoder.mid.attn_1
    x = decoder.mid.block_1(conv_carry_causal_3d([z], decoder.conv_in))
    normed = attention.norm(x)
    x = attend(attention, x, normed, *keys_and_values(attention, normed))
    return decoder.mid.block_2(x)


class Middle:
    """Iterates over the decoder's features `1 C t H W` behind its middle block.

    `latents()` starts over the video's latents `1 16 t H W`; `count` is the number of its chunks. A chunk attends to `keys`
    chunks: all of a video that has no more, otherwise a quarter around it and the others spread over the rest.
    """

    def __init__(self, decoder: Decoder, latents: Callable[[], Chunks], count: int, keys: int) -> None:
        self.decoder, self.latents, self.count = decoder, latents, count
        self.reach = max(1, keys // 8)  # chunks before and after that all are attended to
        self.stride = 1 if count <= keys else math.ceil(count / max(1, keys - 2 * self.reach - 1))
        self.norms: list[VideoNorm] = []
        mid = decoder.mid
        self._measure(mid.block_1.norm1, mid.block_1.norm2, mid.attn_1.norm)
        self.spread = self._spread_keys()
        self._measure(mid.block_2.norm1, mid.block_2.norm2)

    def __iter__(self) -> Chunks:
        return self._run()

    def _measure(self, *norms: nn.GroupNorm) -> None:
        for norm in norms:
            self.norms.append(VideoNorm(norm, self._run()))

    def _run(self) -> Chunks:
        """What the first norm without statistics is given; the block's output when all have them."""
        mid = self.decoder.mid
        features = map(Carried(self.decoder.conv_in), self.latents())
        features = resnet(mid.block_1, self.norms[:2], features)
        if len(self.norms) > 2:
            features = self._attend(mid.attn_1, self.norms[2], features)
        return resnet(mid.block_2, self.norms[3:], features)

    def _spread_keys(self) -> dict[int, tuple[Tensor, Tensor]]:
        """Keys and values of every `stride`-th chunk, by its index."""
        attention, norm = self.decoder.mid.attn_1, self.norms[2]
        features = resnet(self.decoder.mid.block_1, self.norms[:2], map(Carried(self.decoder.conv_in), self.latents()))
        return {
            index: keys_and_values(attention, norm(x))
            for index, x in enumerate(features)
            if index % self.stride == self.stride // 2
        }

    def _attend(self, attention: AttnBlock, norm: VideoNorm, features: Chunks) -> Chunks:
        window: deque[tuple[int, Tensor, Tensor, Tensor]] = deque(maxlen=2 * self.reach + 1)
        for index, x in enumerate(chain(features, repeat(None, self.reach))):
            if x is not None:
                window.append((index, x, *keys_and_values(attention, norm(x))))
            if index >= self.reach:
                yield self._attend_from(attention, norm, index - self.reach, window)

    def _attend_from(self, attention: AttnBlock, norm: VideoNorm, index: int, window: deque) -> Tensor:
        first, last = window[0][0], window[-1][0]
        near = [entry[2:] for entry in window]
        others = [pair for key, pair in self.spread.items() if not first <= key <= last]
        keys, values = (torch.cat(parts) for parts in zip(*near, *others, strict=True))
        bias = keys.new_zeros(len(keys))
        if others:
            bias[sum(len(key) for key, _ in near) :] = math.log((self.count - len(window)) / len(others))
        x = window[index - first][1]
        return attend(attention, x, norm(x), keys, values, bias)


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
    """A causal convolution that goes on where the chunk before ended."""

    def __init__(self, convolution: nn.Module) -> None:
        self.convolution, self.carry = convolution, None

    def __call__(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        x = conv_carry_causal_3d([x], self.convolution, self.carry, kept)
        self.carry = kept
        return x


def resnet(block: ResnetBlock, norms: list[VideoNorm], chunks: Iterable[Tensor]) -> Chunks:
    """The block with these norms in place of its own. With the first only, what its second is given; with none, its input."""
    conv1, conv2 = Carried(block.conv1), Carried(block.conv2)
    for x in chunks:
        if not norms:
            yield x
            continue
        h = conv1(F.silu(norms[0](x)))
        yield h if len(norms) == 1 else x + conv2(F.silu(norms[1](h)))


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
