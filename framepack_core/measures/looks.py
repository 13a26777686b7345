"""Measures of single frames, and of the change from one to the next. Frames are uint8 `F H W 3`."""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import Tensor

# Of each frame: mean and deviation in CIE Lab, the colour histogram, sharpness (the Laplacian's variance), the share of fine
# detail in the spectrum, and the deviation of brightness.
LOOKS = ("lab_mean", "lab_std", "hsv", "laplacian", "high_frequency", "contrast")

_LUMA = (0.299, 0.587, 0.114)
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)
_HSV_BINS = (12, 4, 4)


def looks_of(frames: np.ndarray) -> dict[str, Tensor]:
    """`LOOKS` of each frame, `F n`."""
    lab, grey = to_lab(frames).flatten(1, 2), luma(frames)
    neighbours = grey[:, :-2, 1:-1] + grey[:, 2:, 1:-1] + grey[:, 1:-1, :-2] + grey[:, 1:-1, 2:]
    return {
        "lab_mean": lab.mean(dim=1),
        "lab_std": lab.std(dim=1),
        "hsv": _hsv_histograms(frames),
        "laplacian": (neighbours - 4 * grey[:, 1:-1, 1:-1]).var(dim=(1, 2))[:, None],
        "high_frequency": _high_frequency(grey)[:, None],
        "contrast": grey.std(dim=(1, 2))[:, None],
    }


def changes_of(frames: np.ndarray) -> Tensor:
    """Mean absolute change of brightness into every frame but the first, in levels of 255, `F-1`."""
    return luma(frames).diff(dim=0).abs().mean(dim=(1, 2))


def flows_of(frames: np.ndarray) -> tuple[Tensor, Tensor]:
    """The change along brightness gradients and the squared gradients, each summed over a frame, `F-1`.

    The ratio of their sums is the speed in pixels a frame of what moves (normal flow, weighted by the gradient).
    """
    grey = luma(frames)
    dy, dx = torch.gradient(grey, dim=(1, 2))
    slope = torch.hypot(dx, dy)[:-1]
    return (slope * grey.diff(dim=0).abs()).sum(dim=(1, 2)), slope.square().sum(dim=(1, 2))


def luma(frames: np.ndarray) -> Tensor:
    """Brightness `F H W` in 0..255."""
    return torch.from_numpy(np.ascontiguousarray(frames)).float() @ torch.tensor(_LUMA)


def to_lab(rgb: np.ndarray | Tensor) -> Tensor:
    """CIE Lab (D65), float32 `... 3`, from sRGB in 0..255."""
    linear = torch.as_tensor(np.asarray(rgb)).float() / 255
    linear = torch.where(linear <= 0.04045, linear / 12.92, ((linear + 0.055) / 1.055) ** 2.4)
    xyz = linear @ torch.tensor(_TO_XYZ).T / torch.tensor(_WHITE)
    f = torch.where(xyz > (6 / 29) ** 3, xyz.clamp_min(1e-9) ** (1 / 3), xyz * (29 / 6) ** 2 / 3 + 4 / 29)
    x, y, z = f.unbind(-1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], dim=-1)


def _high_frequency(grey: Tensor) -> Tensor:
    """Share of the spectrum's energy, without the mean, above half the Nyquist frequency on either axis."""
    H, W = grey.shape[1:]
    energy = torch.fft.rfft2(grey - grey.mean(dim=(1, 2), keepdim=True)).abs().square()
    high = torch.maximum(torch.fft.fftfreq(H).abs()[:, None], torch.fft.rfftfreq(W)[None]) > 0.25
    return energy[:, high].sum(dim=1) / energy.sum(dim=(1, 2)).clamp_min(1e-9)


def _hsv_histograms(frames: np.ndarray) -> Tensor:
    """Joint histograms of hue, saturation and value, each summing to 1, `F bins`."""
    rgb = torch.from_numpy(np.ascontiguousarray(frames)).float().flatten(1, 2) / 255
    value, brightest = rgb.max(dim=-1)
    chroma = value - rgb.min(dim=-1).values
    r, g, b = rgb.unbind(-1)
    turns = torch.stack([g - b, b - r, r - g], dim=-1).gather(-1, brightest[..., None])[..., 0]
    hue = (turns / chroma.clamp_min(1e-6) + 2 * brightest) / 6 % 1
    saturation = chroma / value.clamp_min(1e-6)
    bins = torch.zeros_like(brightest)
    for channel, count in zip((hue, saturation, value), _HSV_BINS, strict=True):
        bins = bins * count + (channel * count).long().clamp(0, count - 1)
    counts = torch.stack([torch.bincount(row, minlength=math.prod(_HSV_BINS)) for row in bins])
    return counts / counts.sum(dim=1, keepdim=True)
