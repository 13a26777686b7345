"""How far a video's end has drifted from its start, without any downloaded model (the paper's start-end contrast).

    |M(first 15% of the frames) - M(last 15%)|  for measures M of single frames

A still video drifts least, so report `motion` and `flow` with it.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from framepack_core.frames import PIXEL_FRAMES

SHARE = 0.15
MEASURES = ("lab_mean", "lab_std", "hsv", "laplacian", "high_frequency", "contrast")
CHUNK = 64  # frames at once, so that memory does not grow with the video

_LUMA = (0.299, 0.587, 0.114)
_TO_XYZ = ((0.4124564, 0.3575761, 0.1804375), (0.2126729, 0.7151522, 0.0721750), (0.0193339, 0.1191920, 0.9503041))
_WHITE = (0.95047, 1.0, 1.08883)
_HSV_BINS = (12, 4, 4)


def drift(frames: np.ndarray) -> dict[str, float]:
    """`MEASURES` of a video, uint8 `F H W 3`.

    `lab_mean` and `lab_std` are distances in CIE Lab, `hsv` half the L1 distance of histograms (0 to 1), the others plain
    differences. Raises ValueError for fewer than two frames.
    """
    if frames.ndim != 4 or frames.shape[-1] != 3 or len(frames) < 2:
        raise ValueError(f"a video of shape {frames.shape} has no start and end to compare; use at least two frames F H W 3")
    ends = max(1, round(SHARE * len(frames)))
    first, last = (averages(part) for part in (frames[:ends], frames[-ends:]))
    return {name: float((first[name] - last[name]).norm()) for name in MEASURES if name != "hsv"} | {
        "hsv": float((first["hsv"] - last["hsv"]).abs().sum() / 2)
    }


def averages(frames: np.ndarray) -> dict[str, Tensor]:
    """Every measure averaged over the frames, before any comparison, `n` each."""
    parts = [_measures(part) for part in _chunks(frames)]
    return {name: torch.cat([part[name] for part in parts]).mean(dim=0) for name in MEASURES}


def motion(frames: np.ndarray) -> float:
    """Mean change of brightness from frame to frame, in levels of 255."""
    return float(frame_differences(frames).mean())


def flow(frames: np.ndarray) -> float:
    """Mean speed along the brightness gradient, in pixels per frame, weighted by the gradient (normal flow)."""
    moved = strength = 0.0
    for part in _chunks(frames, overlap=1):
        grey = luma(part)
        dy, dx = torch.gradient(grey, dim=(1, 2))
        slope = torch.hypot(dx, dy)[:-1]
        moved += float((slope * grey.diff(dim=0).abs()).sum())
        strength += float(slope.square().sum())
    return moved / strength if strength else 0.0


def joins(frames: np.ndarray, starts: Sequence[int]) -> float:
    """Frame difference where the latent frames `starts` begin, relative to the median where others begin (1: no visible join).

    Only beginnings are compared, since a VAE's own seams lie between latent frames. Raises ValueError if a start lies outside
    the video.
    """
    differences = frame_differences(frames)
    borders = [PIXEL_FRAMES * (start - 1) for start in starts]  # the change into the latent frame's first pixel frame
    if any(not 0 <= border < len(differences) for border in borders):
        raise ValueError(f"sections start at latent frames {list(starts)}, but the video has {len(frames)} pixel frames")
    others = np.setdiff1d(np.arange(0, len(differences), PIXEL_FRAMES), borders)
    if not borders or not len(others):
        return 1.0
    return float(np.mean(differences[borders]) / max(np.median(differences[others]), 1e-6))


def frame_differences(frames: np.ndarray) -> np.ndarray:
    """Mean absolute change of brightness into every frame but the first, float32 `F-1`."""
    parts = [luma(part).diff(dim=0).abs().mean(dim=(1, 2)) for part in _chunks(frames, overlap=1)]
    return torch.cat(parts).numpy()


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


def _measures(frames: np.ndarray) -> dict[str, Tensor]:
    """Every measure of single frames, each `F ...`."""
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
    counts = torch.stack([torch.bincount(row, minlength=int(np.prod(_HSV_BINS))) for row in bins])
    return counts / counts.sum(dim=1, keepdim=True)


def _chunks(frames: np.ndarray, overlap: int = 0):
    """Views of at most `CHUNK` frames and `overlap` more, each starting with the last `overlap` frames of the one before."""
    for start in range(0, max(len(frames) - overlap, 1), CHUNK):
        yield frames[start : start + CHUNK + overlap]
