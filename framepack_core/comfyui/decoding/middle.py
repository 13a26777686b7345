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
from collections.abc import Callable, Iterator, Sequence
from itertools import chain, repeat
from typing import TYPE_CHECKING, NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .. import private
from .norm import MeasuredNorm, Moments
from .room import Kept, Room

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.model import AttnBlock, Decoder, ResnetBlock

SCORES = 2**27  # attention scores in memory at once where torch has no fused kernel

Chunks = Iterator[Tensor]


def whole_middle(decoder: Decoder, z: Tensor, room: Room) -> Tensor:
    """The decoder's own middle block on all latents `1 16 T H W` at once, which takes seven times the memory of its result.

    The attention is torch's, because the one ComfyUI would choose may take all free memory.
    """
    attention = decoder.mid.attn_1
    x = decoder.mid.block_1(private.conv_carry_causal_3d([z], decoder.conv_in))
    normed = attention.norm(x)
    out = attend_at_once(rows(attention.q(normed)), *keys_and_values(attention, normed), None, room)
    return decoder.mid.block_2(x + attention.proj_out(out.T.reshape(x.shape)))


class Middle:
    """Iterates over the decoder's features `1 C t H W` after its middle block.

    `latents()` iterates afresh over the video's latents in `count` chunks `1 16 t H W`. A chunk attends to `keys` chunks: to
    all of a video that has no more, otherwise to a quarter of them around it and the others spread over the rest.
    """

    def __init__(self, decoder: Decoder, latents: Callable[[], Chunks], count: int, keys: int, room: Room) -> None:
        mid = decoder.mid
        block_1 = Resnet(mid.block_1, lambda: mapped(room, Carried(decoder.conv_in), latents()), room)
        attention = Attention(mid.attn_1, block_1, count, keys, room)
        self.block_2 = Resnet(mid.block_2, attention, room)

    def __iter__(self) -> Chunks:
        return self.block_2()


class Resnet:
    """A residual block over a whole video. `chunks()` iterates over its input, a call over its output, both `1 C t H W`.

    Two passes measure its norms, one after the other, because what the second sees depends on the first.
    """

    def __init__(self, block: ResnetBlock, chunks: Callable[[], Chunks], room: Room) -> None:
        self.block, self.chunks, self.room = block, chunks, room
        self.norm1 = measured(block.norm1, chunks(), room)
        self.norm2 = measured(block.norm2, (h for _, h in self._halfway()), room)

    def __call__(self) -> Chunks:
        conv2 = Carried(self.block.conv2)
        for x, h in self._halfway():
            yield self.room.survive(lambda x=x, h=h: x + conv2(F.silu(self.norm2(h))))

    def _halfway(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Each chunk, and what the first convolution makes of it."""
        conv1 = Carried(self.block.conv1)
        for x in self.chunks():
            yield x, self.room.survive(lambda x=x: conv1(F.silu(self.norm1(x))))


class Attention:
    """The attention block over a whole video in the same way: one pass measures its norm, one collects keys from all over."""

    def __init__(self, block: AttnBlock, chunks: Callable[[], Chunks], count: int, keys: int, room: Room) -> None:
        self.block, self.chunks, self.count, self.room = block, chunks, count, room
        self.reach = max(1, keys // 8)  # all chunks this near, before and after, are attended to
        stride = 1 if count <= keys else math.ceil(count / max(1, keys - 2 * self.reach - 1))
        self.norm = measured(block.norm, chunks(), room)
        self.spread = {index: self._keys(x) for index, x in enumerate(chunks()) if index % stride == stride // 2}

    def __call__(self) -> Chunks:
        window: deque[tuple[int, Tensor, Keys]] = deque(maxlen=2 * self.reach + 1)
        for index, x in enumerate(chain(self.chunks(), repeat(None, self.reach))):
            if x is not None:
                window.append((index, x, self.spread.get(index) or self._keys(x)))
            if index >= self.reach:
                yield self.room.survive(lambda index=index: self._attend_from(index - self.reach, window))

    def _keys(self, x: Tensor) -> Keys:
        pair = self.room.survive(lambda: keys_and_values(self.block, self.norm(x)))
        spare = 3 * self.room.allowed // 4  # the attention joins them, which takes as much again
        return Keys(*(self.room.keep(part, spare) for part in pair))

    def _attend_from(self, index: int, window: deque[tuple[int, Tensor, Keys]]) -> Tensor:
        first, last = window[0][0], window[-1][0]
        x = window[index - first][1]
        near = [entry[2] for entry in window]
        others = [keys for key, keys in self.spread.items() if not first <= key <= last]
        share = math.log((self.count - len(window)) / len(others)) if others else 0.0
        blocks = [*((keys, 0.0) for keys in near), *((keys, share) for keys in others)]
        return attend(self.block, x, self.norm(x), blocks, self.room)


class Keys(NamedTuple):
    """Keys and values `N C` of a chunk."""

    keys: Kept
    values: Kept


def measured(norm: nn.GroupNorm, chunks: Chunks, room: Room) -> MeasuredNorm:
    """A group norm with the statistics of a whole video, given as chunks `1 C t H W`."""
    moments = Moments(norm.num_groups)
    for x in chunks:
        moments.add(room.survive(lambda x=x: moments.of(x)), x.numel())
    return MeasuredNorm(norm, moments)


def mapped(room: Room, function: Callable[[Tensor], Tensor], chunks: Chunks) -> Chunks:
    for x in chunks:
        yield room.survive(lambda x=x: function(x))


class Carried:
    """A causal convolution that continues where the chunk before ended."""

    def __init__(self, convolution: nn.Module) -> None:
        self.convolution, self.carry = convolution, None

    def __call__(self, x: Tensor) -> Tensor:
        kept: list[Tensor] = []
        x = private.conv_carry_causal_3d([x], self.convolution, self.carry and [*self.carry], kept)
        self.carry = kept
        return x


def attend(attention: AttnBlock, x: Tensor, normed: Tensor, blocks: Sequence[tuple[Keys, float]], room: Room) -> Tensor:
    """The attention block for `x`, with blocks of keys and values, each with a bias that is added to its scores."""
    queries = rows(attention.q(normed))
    if all(kept.tensor.device == room.device for keys, _ in blocks for kept in keys):
        keys, values = (torch.cat([pair[part].tensor for pair, _ in blocks]) for part in (0, 1))
        biases = [keys.new_full((len(pair.keys.tensor),), bias) for pair, bias in blocks]
        out = attend_at_once(queries, keys, values, torch.cat(biases) if any(bias for _, bias in blocks) else None, room)
    else:
        out = attend_block_by_block(queries, blocks, room)
    return x + attention.proj_out(out.T.reshape(x.shape))


def attend_at_once(queries: Tensor, keys: Tensor, values: Tensor, bias: Tensor | None, room: Room) -> Tensor:
    """Attention `N C`; `bias`, one for each key, is added to the scores.

    On a card, torch's kernel never holds all scores. Where it has none, and after running out of memory, rows are split.
    """
    split = SCORES // len(keys) if room.full or room.device.type == "cpu" else len(queries)
    return torch.cat([
        F.scaled_dot_product_attention(
            some[None, None], keys[None, None], values[None, None], None if bias is None else bias[None, None, None]
        )[0, 0]
        for some in queries.split(max(1, split))
    ])  # fmt: skip


def attend_block_by_block(queries: Tensor, blocks: Sequence[tuple[Keys, float]], room: Room) -> Tensor:
    """The same with keys that are fetched one block after the other, in float32."""
    rows = max(1, room.work // (16 * max(len(keys.keys.tensor) for keys, _ in blocks)))
    return torch.cat([_over_blocks(some.float(), blocks).to(queries.dtype) for some in queries.split(rows)])


def _over_blocks(queries: Tensor, blocks: Sequence[tuple[Keys, float]]) -> Tensor:
    """Softmax over blocks of scores: https://arxiv.org/abs/2205.14135, section 3.1."""
    largest = queries.new_full((len(queries), 1), -math.inf)
    total, out = torch.zeros_like(largest), torch.zeros_like(queries)
    for (keys, values), bias in blocks:
        scores = (queries @ keys.read().float().T).mul_(queries.shape[1] ** -0.5).add_(bias)
        above = torch.maximum(largest, scores.amax(dim=1, keepdim=True))
        weights = scores.sub_(above).exp_()
        shrink = (largest - above).exp_()
        total = total * shrink + weights.sum(dim=1, keepdim=True)
        out = out.mul_(shrink).addmm_(weights, values.read().float())
        largest = above
    return out / total


def keys_and_values(attention: AttnBlock, normed: Tensor) -> tuple[Tensor, Tensor]:
    return rows(attention.k(normed)), rows(attention.v(normed))


def rows(x: Tensor) -> Tensor:
    """`1 C t H W` as `N C`."""
    return x[0].flatten(1).T.contiguous()
