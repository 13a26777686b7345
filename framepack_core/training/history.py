"""Histories as imperfect as the model's own, against drift (arXiv 2504.12626): noise, or the few values of a codebook (+D)."""

from __future__ import annotations

from collections.abc import Collection, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from .cache import ClipCache, save_whole

CENTRES = 128  # of the paper's codebook
ROUNDS = 100
CHUNK = 1 << 16  # latent pixels compared with all centres at once


def corrupt(latents: Tensor, generator: torch.Generator, maximum: float, keep: Collection[int] = ()) -> Tensor:
    """History `B C T H W` with Gaussian noise, `(1 - sigma) latents + sigma noise`, at a separate level for each sample.

    sigma is uniform in 0..`maximum` (flow matching's sigma, at most 1); the frames in `keep`, such as a given start image, stay
    clean. The generator is on the CPU, so that a seed means the same everywhere.
    """
    if not 0 <= maximum <= 1:
        raise ValueError(f"the history's largest sigma is {maximum}; choose one from 0 (clean) to 1 (nothing but noise)")
    B, _, T, _, _ = latents.shape
    levels = maximum * torch.rand(B, 1, 1, 1, 1, generator=generator)
    noise = torch.randn(latents.shape, generator=generator).to(latents)
    noisy = torch.tensor([frame not in keep for frame in range(T)])
    sigma = (levels * noisy[:, None, None]).to(latents)
    return (1 - sigma) * latents + sigma * noise


class Clips(Protocol):
    """Latents `C T H W` that can be counted and read in turn: a batch `B C T H W`, or the clips of a cache."""

    def __len__(self) -> int: ...

    def __iter__(self) -> Iterator[Tensor]: ...


@dataclass(frozen=True)
class CachedLatents:
    """The latents of a cache's clips, read one at a time."""

    clips: ClipCache

    def __len__(self) -> int:
        return len(self.clips)

    def __iter__(self) -> Iterator[Tensor]:
        return (clip.latents for clip in self.clips)


@dataclass(frozen=True)
class Codebook:
    """`centres_KC` are the K latent pixels (vectors of C channels) that a discretised history consists of."""

    centres_KC: Tensor

    @classmethod
    def fit(cls, latents: Clips, K: int, generator: torch.Generator, pixels: int = 1_000_000) -> Codebook:
        """K-means over latent pixels (k-means++ start, Lloyd's rounds until nothing moves, at most 100), in float32.

        Uses about `pixels` of them, drawn evenly from the clips. Raises ValueError if fewer than K of them differ.
        """
        drawn_NC = _draw_pixels(latents, pixels, generator)
        centres_KC = _start(drawn_NC, K, generator)
        for _ in range(ROUNDS):
            moved_KC = _means(drawn_NC, nearest(drawn_NC, centres_KC), centres_KC)
            if torch.equal(moved_KC, centres_KC):
                break
            centres_KC = moved_KC
        return cls(centres_KC)

    @classmethod
    def load(cls, path: Path) -> Codebook:
        """Raises a ValueError that names the file if it is not one of `save`'s."""
        try:
            with safe_open(path, framework="pt") as file:
                return cls(file.get_tensor("centres"))
        except (SafetensorError, OSError) as error:
            raise ValueError(
                f"{path} is not a codebook ({error}); fit one with python -m framepack_core.training codebook"
            ) from error

    def save(self, path: Path) -> Path:
        return save_whole(Path(path), {"centres": self.centres_KC}, {"kind": "latent pixels"})

    def discretise(self, latents: Tensor) -> Tensor:
        """`B C T H W` with each latent pixel replaced by the nearest centre.

        Raises ValueError if the latents and the codebook differ in channels.
        """
        channels = self.centres_KC.shape[1]
        if latents.shape[1] != channels:
            raise ValueError(f"the codebook has {channels} channels, but the latents have {latents.shape[1]}; fit one to them")
        pixels = latents.movedim(1, -1)
        centres_KC = self.centres_KC.to(latents.device)
        indices = nearest(pixels.reshape(-1, channels), centres_KC)
        return centres_KC[indices].to(latents.dtype).view(pixels.shape).movedim(-1, 1)


def nearest(pixels_NC: Tensor, centres_KC: Tensor) -> Tensor:
    """The index of the centre nearest to each pixel, `N`."""
    half_norms = centres_KC.square().sum(dim=1) / 2
    return torch.cat([(half_norms - chunk.float() @ centres_KC.T).argmin(dim=1) for chunk in pixels_NC.split(CHUNK)])


def _draw_pixels(latents: Clips, count: int, generator: torch.Generator) -> Tensor:
    """`N C` float32: equally many pixels from each clip, without replacement, or all of a clip that has fewer."""
    share = -(-count // len(latents))
    drawn = []
    for clip in latents:
        pixels_NC = clip.flatten(1).T
        if len(pixels_NC) > share:
            pixels_NC = pixels_NC[torch.randperm(len(pixels_NC), generator=generator)[:share]]
        drawn.append(pixels_NC.float().cpu())
    return torch.cat(drawn)


def _start(pixels_NC: Tensor, K: int, generator: torch.Generator) -> Tensor:
    """K-means++: each further centre is a pixel drawn with a probability proportional to its squared distance to the others."""
    first = int(torch.randint(len(pixels_NC), (1,), generator=generator))
    chosen = [pixels_NC[first]]
    distance_N = _squared_distance(pixels_NC, chosen[0])
    while len(chosen) < K:
        total_N = distance_N.double().cumsum(dim=0)
        if total_N[-1] == 0:
            raise ValueError(
                f"{len(chosen)} different latent pixels are too few for {K} centres; use more clips or fewer centres"
            )
        at = torch.rand(1, generator=generator, dtype=torch.float64) * total_N[-1]
        pick = min(int(torch.searchsorted(total_N, at, right=True)), len(pixels_NC) - 1)
        chosen.append(pixels_NC[pick])
        distance_N = torch.minimum(distance_N, _squared_distance(pixels_NC, chosen[-1]))
    return torch.stack(chosen)


def _squared_distance(pixels_NC: Tensor, centre_C: Tensor) -> Tensor:
    return (pixels_NC - centre_C).square().sum(dim=1)


def _means(pixels_NC: Tensor, indices_N: Tensor, centres_KC: Tensor) -> Tensor:
    """The mean of each cluster's pixels; a cluster without pixels takes the one farthest from its centre."""
    K = len(centres_KC)
    counts_K = torch.bincount(indices_N, minlength=K)
    sums_KC = torch.zeros(centres_KC.shape, dtype=torch.float64).index_add_(0, indices_N, pixels_NC.double())
    means_KC = (sums_KC / counts_K.clamp(min=1)[:, None]).float()
    lost = (counts_K == 0).nonzero().flatten()
    if len(lost):
        distance_N = (pixels_NC - centres_KC[indices_N]).square().sum(dim=1)
        means_KC[lost] = pixels_NC[distance_N.topk(len(lost)).indices]
    return means_KC
