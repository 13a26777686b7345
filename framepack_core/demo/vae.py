"""A small video autoencoder with HunyuanVideo's compression: 8 x 8 pixels of 4 frames to 16 channels, the first frame alone.

All layers work at latent resolution, between one space-to-depth and one depth-to-space, which makes it fast on a CPU. It is
causal: a latent frame depends on its own frames and those before, never on later ones.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ..frames import PIXEL_FRAMES

CHANNELS = 16
PATCH = 8  # pixels of a latent's side
SCALE = 0.476986  # HunyuanVideo's: latents times this have unit deviation


class Block(nn.Module):
    """A residual block that sees 3 x 3 latents of this frame and the same latent one frame earlier."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.near = nn.Conv2d(width, width, 3, padding=1)
        self.before = nn.Conv2d(width, width, 1, bias=False)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor, frames: int) -> Tensor:
        """`x` is `(B T) D H W`, T = `frames`."""
        h = self.norm(x.movedim(1, -1)).movedim(-1, 1)
        before = self.before(h).unflatten(0, (-1, frames))
        before = torch.cat([before[:, :1], before[:, :-1]], dim=1).flatten(0, 1)
        return x + self.out(F.silu(self.near(h) + before))


class Coder(nn.Module):
    """A linear layer, blocks, a linear layer: `B C T H W` to `B C' T H W`."""

    def __init__(self, inputs: int, width: int, blocks: int, outputs: int) -> None:
        super().__init__()
        self.proj_in = nn.Conv2d(inputs, width, 1)
        self.blocks = nn.ModuleList(Block(width) for _ in range(blocks))
        self.proj_out = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        B, _, T, _, _ = x.shape
        x = x.transpose(1, 2).flatten(0, 1).contiguous(memory_format=torch.channels_last)
        x = self.proj_in(x)
        for block in self.blocks:
            x = block(x, T)
        return self.proj_out(x).unflatten(0, (B, T)).transpose(1, 2)


class DemoVAE(nn.Module):
    """Pixels `B 3 F H W` in -1..1, F = 4T - 3, to latents `B 16 T H/8 W/8` and back."""

    mean: Tensor
    deviation: Tensor

    @property
    def reach_back(self) -> int:
        """How many earlier latent frames the pixels of each latent frame depend on."""
        return len(self.decoder.blocks)

    def __init__(self) -> None:
        super().__init__()
        pixels = 3 * PIXEL_FRAMES * PATCH * PATCH
        self.encoder = Coder(pixels, width=192, blocks=2, outputs=CHANNELS)
        self.register_buffer("mean", torch.zeros(CHANNELS))  # of the encoder's channels over the world
        self.register_buffer("deviation", torch.ones(CHANNELS))
        self.decoder = Coder(CHANNELS, width=256, blocks=4, outputs=pixels)

    def encode(self, pixels: Tensor) -> Tensor:
        """Frames beyond 4T - 3 are left out. Raises ValueError for sizes that are not multiples of 8."""
        _, _, F_, H, W = pixels.shape
        if H % PATCH or W % PATCH:
            raise ValueError(f"the demo VAE encodes multiples of {PATCH} pixels, not {W}x{H}")
        frames = (F_ - 1) // PIXEL_FRAMES * PIXEL_FRAMES + 1
        first = pixels[:, :, :1].expand(-1, -1, PIXEL_FRAMES - 1, -1, -1)
        channels = self.encoder(to_depth(torch.cat([first, pixels[:, :, :frames]], dim=2)))
        return (channels - self._per_channel(self.mean)) / self._per_channel(self.deviation) / SCALE

    def decode(self, latents: Tensor) -> Tensor:
        channels = latents * SCALE * self._per_channel(self.deviation) + self._per_channel(self.mean)
        return to_space(self.decoder(channels))[:, :, PIXEL_FRAMES - 1 :]

    @staticmethod
    def _per_channel(values: Tensor) -> Tensor:
        return values[:, None, None, None]


def to_depth(pixels: Tensor) -> Tensor:
    """`B 3 4T 8h 8w` to `B 768 T h w`."""
    B, C, F_, H, W = pixels.shape
    cells = pixels.reshape(B, C, F_ // PIXEL_FRAMES, PIXEL_FRAMES, H // PATCH, PATCH, W // PATCH, PATCH)
    return cells.permute(0, 1, 3, 5, 7, 2, 4, 6).flatten(1, 4)


def to_space(cells: Tensor) -> Tensor:
    """The inverse of `to_depth`."""
    B, _, T, h, w = cells.shape
    pixels = cells.reshape(B, 3, PIXEL_FRAMES, PATCH, PATCH, T, h, w).permute(0, 1, 5, 2, 6, 3, 7, 4)
    return pixels.reshape(B, 3, T * PIXEL_FRAMES, h * PATCH, w * PATCH)
