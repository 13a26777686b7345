"""The demo's vision encoder: turns a picture into tokens that say what is where."""

from __future__ import annotations

import torch
from torch import Tensor, nn

IMAGE_SIZE = 64  # the picture is resized to a square without cropping
VISION_TOKENS, VISION_WIDTH = 16, 128


class VisionEncoder(nn.Module):
    """Turns pictures `B 3 64 64` in -1..1 into tokens `B 16 128` of about unit deviation, one for every 16 x 16 pixels."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Sequential(nn.Conv2d(3, 48, 4, stride=4), nn.GELU(), nn.Conv2d(48, VISION_WIDTH, 4, stride=4))
        self.places = nn.Parameter(0.02 * torch.randn(VISION_TOKENS, VISION_WIDTH))
        self.layers = nn.ModuleList(
            nn.TransformerEncoderLayer(VISION_WIDTH, 4, 256, dropout=0.0, activation="gelu", batch_first=True, norm_first=True)
            for _ in range(2)
        )
        self.norm = nn.LayerNorm(VISION_WIDTH, elementwise_affine=False)

    def forward(self, images: Tensor) -> Tensor:
        x = self.stem(images).flatten(2).transpose(1, 2) + self.places
        for layer in self.layers:
            x = layer(x)
        return self.norm(x)
