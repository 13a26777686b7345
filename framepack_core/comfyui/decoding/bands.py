"""HunyuanVideo's up path layer by layer, for cards that cannot hold a layer of the whole picture and all its intermediates.

Each layer is computed in bands of rows, and what it puts out is kept on the card or, where that is full, in the computer's
memory. The frames are those of `hunyuan.Up`: a norm takes its statistics over the whole picture, and a convolution reads the
rows beside its band, so that nothing is blended and no pixel is computed twice.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from .norm import MeasuredNorm, Moments
from .room import Kept, Room

if TYPE_CHECKING:
    from comfy.ldm.modules.diffusionmodules.model import Decoder, ResnetBlock, Upsample

GROUPS = 32  # of every norm
FRAMES = 8  # that a step of the up path puts out


class Bands:
    """Turns features `1 C 2 H W` into pixels `1 3 F 8H 8W` on the CPU; each call continues where the one before ended."""

    def __init__(self, decoder: Decoder, room: Room, spare: int) -> None:
        """Carried state is kept on the card only if it leaves `spare` bytes there for the layers."""
        self.room = room
        self.stages: list[Block | Convolution] = []
        for level in reversed(decoder.up):
            self.stages += [Block(block, room, spare) for block in level.block]
            if hasattr(level, "upsample"):
                self.stages.append(Convolution(level.upsample.conv, room, spare, scale=_scale(level.upsample)))
        self.stages.append(Convolution(decoder.conv_out, room, spare, decoder.norm_out))

    def take_over(self, carry: Sequence[Tensor]) -> None:
        """Continue from what `hunyuan.Up` carries, which has a border of one pixel."""
        convolutions = (convolution for stage in self.stages for convolution in stage.convolutions)
        for convolution, padded in zip(convolutions, carry, strict=True):
            convolution.carry = self.room.keep(padded[..., 1:-1, 1:-1], convolution.spare)

    def __call__(self, h: Tensor) -> Tensor:
        layer = Layer(self.room.keep(h))
        self.room.survive(layer.measure)
        for stage in self.stages:
            layer = stage(layer)
        return layer.kept.tensor.cpu()


class Layer:
    """What a layer puts out, `1 C T H W`, and the moments that the norm after it needs."""

    def __init__(self, kept: Kept) -> None:
        self.kept = kept
        self.moments = Moments(GROUPS)

    @property
    def shape(self) -> torch.Size:
        return self.kept.tensor.shape

    def measure(self) -> None:
        part = self.kept.read()
        self.moments.add(self.moments.of(part), part.numel())


class Block:
    """A residual block."""

    def __init__(self, block: ResnetBlock, room: Room, spare: int) -> None:
        self.conv1 = Convolution(block.conv1, room, spare, block.norm1)
        self.conv2 = Convolution(block.conv2, room, spare, block.norm2)
        self.convolutions = (self.conv1, self.conv2)
        self.shortcut = block.nin_shortcut if block.in_channels != block.out_channels else None

    def __call__(self, x: Layer) -> Layer:
        h = self.conv1(x)
        shortcut = self.shortcut
        if shortcut is None:
            return self.conv2(h, lambda rows: x.kept.read(rows, slice(None)), onto=x.kept)
        return self.conv2(h, lambda rows: shortcut(x.kept.read(rows, slice(None))))


class Convolution:
    """A causal convolution of 3x3x3, with what comes before it: a norm and SiLU, or nearest-neighbour upsampling by `scale`."""

    def __init__(
        self, convolution: nn.Module, room: Room, spare: int, norm: nn.GroupNorm | None = None, scale: Sequence[int] = (1, 1, 1)
    ) -> None:
        self.convolution = cast(nn.Conv3d, convolution.conv)
        self.convolutions = (self,)
        self.room = room
        self.spare = spare
        self.norm = norm
        self.scale = scale
        self.carry: Kept | None = None  # the last two frames of the convolution's input in the step before

    def __call__(self, x: Layer, residual: Callable[[slice], Tensor] | None = None, onto: Kept | None = None) -> Layer:
        """`residual(rows)` is added; `onto` is overwritten with the result, row by row."""
        prepared = self._prepared(x)
        channels, (frames, height, width) = self.convolution.out_channels, self._size(x)
        shape = (1, channels, frames, height, width)
        out = Layer(onto or self.room.survive(lambda: self.room.new(shape, x.kept.tensor.dtype)))

        def band(rows: slice) -> None:
            around = slice(max(0, rows.start - 1), min(height, rows.stop + 1))
            part = self.convolution(_padded(self._after_carry(prepared(around), around), rows, height))
            if residual:
                part += residual(rows)
            moments = out.moments.of(part) if channels % GROUPS == 0 else None
            out.kept.write(part, rows, slice(None))  # last, because a band that fails is computed again
            if moments is not None:
                out.moments.add(moments, part.numel())

        self._in_bands(band, shape)
        self._carry_on(prepared, shape, x.kept.tensor.dtype)
        return out

    def _prepared(self, x: Layer) -> Callable[..., Tensor]:
        """A function that gives rows of the convolution's input, `1 C T h W`."""
        if self.norm is None:
            return lambda rows, frames=slice(None): self._upsampled(x, rows)[:, :, frames]
        norm = MeasuredNorm(self.norm, x.moments)
        return lambda rows, frames=slice(None): F.silu(norm(x.kept.read(frames, rows, slice(None))), inplace=True)

    def _upsampled(self, x: Layer, rows: slice) -> Tensor:
        """In the first step of a video, its first latent frame gives one frame only."""
        _, y_scale, x_scale = self.scale
        first = rows.start // y_scale
        part = x.kept.read(slice(first, -(-rows.stop // y_scale)), slice(None))
        part = part.repeat_interleave(y_scale, 3).repeat_interleave(x_scale, 4)
        part = part[:, :, :, rows.start - first * y_scale : rows.stop - first * y_scale]
        if self.carry is None:
            return torch.cat([part[:, :, :1], part[:, :, 1:].repeat_interleave(self.scale[0], 2)], dim=2)
        return part.repeat_interleave(self.scale[0], 2)

    def _size(self, x: Layer) -> tuple[int, int, int]:
        """Frames, height and width of what the convolution puts out."""
        frames, height, width = (length * scale for length, scale in zip(x.shape[2:], self.scale, strict=True))
        return (frames - self.scale[0] + 1 if self.carry is None else frames), height, width

    def _after_carry(self, part: Tensor, rows: slice) -> Tensor:
        """The rows of the two frames before these: of the step before, or copies of a video's first frame."""
        before = part[:, :, :1].expand(-1, -1, 2, -1, -1) if self.carry is None else self.carry.read(rows, slice(None))
        return torch.cat([before, part], dim=2)

    def _carry_on(self, prepared: Callable[..., Tensor], shape: tuple[int, ...], dtype: torch.dtype) -> None:
        """Take the input's last two frames, or one and the last that was carried, over to the next step."""
        _, _, frames, height, width = shape
        size = (1, self.convolution.in_channels, 2, height, width)
        carry = self.carry or self.room.survive(lambda: self.room.new(size, dtype, self.spare))

        def band(rows: slice) -> None:
            if frames == 1:
                part = self._after_carry(prepared(rows), rows)[:, :, -2:]
            else:
                part = prepared(rows, slice(frames - 2, frames))
            carry.write(part, rows, slice(None))

        self._in_bands(band, size)
        self.carry = carry

    def _in_bands(self, band: Callable[[slice], None], shape: tuple[int, ...]) -> None:
        """Call `band` for rows of a picture, as many at once as there is room for."""
        start = 0
        while start < shape[3]:
            start = self.room.survive(lambda start=start: self._band_from(start, band, shape))

    def _band_from(self, start: int, band: Callable[[slice], None], shape: tuple[int, ...]) -> int:
        _, _, frames, height, width = shape
        size = self.convolution.weight.dtype.itemsize
        channels = self.convolution.in_channels * (8 + size) + self.convolution.out_channels * (4 + size)  # norms are float32
        rows = max(1, self.room.work // ((frames + 2) * width * channels))
        stop = min(height, start + rows)
        band(slice(start, stop))
        return stop


def largest_layer(decoder: Decoder, height: int, width: int) -> int:
    """Values of the layers that exist at once, at most: the last level's first block has its input, a layer and its result."""
    block = decoder.up[0].block[0]
    return (block.in_channels + 2 * block.out_channels) * FRAMES * 64 * height * width


def _scale(upsample: Upsample) -> tuple[int, int, int]:
    scale = upsample.scale_factor
    t, h, w = scale if isinstance(scale, tuple) else (scale, scale, scale)
    return int(t), int(h), int(w)


def _padded(part: Tensor, rows: slice, height: int) -> Tensor:
    """With a border of one pixel, which is copied at the edges of the picture; the rows beside the band are there already."""
    return F.pad(part, (1, 1, int(rows.start == 0), int(rows.stop == height), 0, 0), mode="replicate")
