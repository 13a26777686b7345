"""Measures of single frames, and of the change from one to the next. Frames are uint8 `F H W 3`, their brightness is `F H W`.

Colours are computed channel by channel, which is two to three times as fast as pixel by pixel.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Of each frame: mean and deviation in CIE Lab, the colour histogram, sharpness (the Laplacian's variance), the share of fine
# detail in the spectrum, and the deviation of brightness.
LOOKS = ("lab_mean", "lab_std", "hsv", "laplacian", "high_frequency", "contrast")

_LUMA = (0.299, 0.587, 0.114)
_WHITE = torch.tensor([0.95047, 1.0, 1.08883])
_TO_XYZ = torch.tensor([
    [0.4124564, 0.3575761, 0.1804375], [0.2126729, 0.7151522, 0.0721750], [0.0193339, 0.1191920, 0.9503041]
]) / _WHITE[:, None]  # fmt: skip
_HSV_BINS = (12, 4, 4)


def looks_of(frames: np.ndarray, grey: Tensor) -> dict[str, Tensor]:
    """`LOOKS` of each frame, `F n`; `grey` is their brightness."""
    lab = to_lab(frames).flatten(1, 2)
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return {
        "lab_mean": lab.mean(dim=1),
        "lab_std": lab.std(dim=1),
        "hsv": _hsv_histograms(frames),
        "laplacian": (neighbours - 4 * grey[:, 1:-1, 1:-1]).var(dim=(1, 2))[:, None],
        "high_frequency": _high_frequency(grey)[:, None],
        "contrast": grey.std(dim=(1, 2))[:, None],
    }


def changes_of(grey: Tensor) -> Tensor:
    """Mean absolute change of brightness into every frame but the first, in levels of 255, `F-1`."""
    return grey.diff(dim=0).abs().mean(dim=(1, 2))


def flows_of(grey: Tensor) -> tuple[Tensor, Tensor]:
    """The change along brightness gradients and the squared gradients, each summed over a frame, `F-1`.

    The ratio of their sums is the speed in pixels a frame of what moves (normal flow, weighted by the gradient).
    """
    dy, dx = torch.gradient(grey, dim=(1, 2))
    slope = torch.hypot(dx, dy)[:-1]
    return (slope * grey.diff(dim=0).abs()).sum(dim=(1, 2)), slope.square().sum(dim=(1, 2))


def luma(frames: np.ndarray) -> Tensor:
    """Brightness `F H W` in 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() @ torch.tensor(_LUMA)


def to_lab(rgb: np.ndarray | Tensor) -> Tensor:
    """CIE Lab (D65), float32 `... 3`, from sRGB in 0..255."""
    levels = np.asarray(rgb)
    linear = _LINEAR[levels] if levels.dtype == np.uint8 else _linear(levels.astype(np.float32))
    xyz = torch.tensordot(_TO_XYZ, torch.from_numpy(linear).movedim(-1, 0), dims=1)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)]).movedim(0, -1)


def _linear(levels: np.ndarray) -> np.ndarray:
    """Light, 0 to 1, of levels of sRGB."""
    share = levels / np.float32(255)
    return np.where(share <= 0.04045, share / 12.92, ((share + 0.055) / 1.055) ** 2.4).astype(np.float32)


_LINEAR = _linear(np.arange(256, dtype=np.float32))  # by level


def _high_frequency(grey: Tensor) -> Tensor:
    """Share of the spectrum's energy, without the mean, above half the Nyquist frequency on either axis."""
    H, W = grey.shape[1:]
    energy = torch.fft.rfft2(grey - grey.mean(dim=(1, 2), keepdim=True)).abs().square()
    high = torch.maximum(torch.fft.fftfreq(H).abs()[:, None], torch.fft.rfftfreq(W)[None]) > 0.25
    return energy[:, high].sum(dim=1) / energy.sum(dim=(1, 2)).clamp_min(1e-9)


def _hsv_histograms(frames: np.ndarray) -> Tensor:
    """Joint histograms of hue, saturation and value, each summing to 1, `F bins`."""
    r, g, b = torch.from_numpy(np.ascontiguousarray(np.moveaxis(frames, -1, 0))).flatten(2).float() / 255
    value = torch.maximum(torch.maximum(r, g), b)
    chroma = value - torch.minimum(torch.minimum(r, g), b)
    red, green = r == value, g == value
    turns = torch.where(red, g - b, torch.where(green, b - r, r - g)) / chroma.clamp_min(1e-6)
    hue = (turns + torch.where(red, 0, torch.where(green, 2, 4))) / 6 % 1
    saturation = chroma / value.clamp_min(1e-6)
    bins = torch.zeros(value.shape, dtype=torch.int32)
    for channel, count in zip((hue, saturation, value), _HSV_BINS, strict=True):
        bins = bins * count + (channel * count).int().clamp(0, count - 1)
    counts = torch.stack([torch.bincount(row, minlength=math.prod(_HSV_BINS)) for row in bins])
    return counts / counts.sum(dim=1, keepdim=True)
