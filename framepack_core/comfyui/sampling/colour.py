"""Keeps the colours of a long video from drifting."""

from __future__ import annotations

from torch import Tensor

from ...packing import Context
from ...sections import Denoise
from ...timeline import Timeline


class ColourAnchor:
    """A `denoise` callable whose latents are pulled towards the colours of a known frame, before other sections see them.

    The mean and the standard deviation of each channel are those of the section, `strength` of the way (0..1) to those of the
    first frame if it is known, or else of the known frame that is nearest. So errors do not add up from section to section.
    `hidden` frames before the first one do not count, since they have noise.
    """

    def __init__(self, denoise: Denoise, timeline: Timeline, strength: float, hidden: int = 0) -> None:
        self.denoise = denoise
        self.timeline = timeline
        self.strength = strength
        self.hidden = hidden

    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        latents = self.denoise(noise, context)
        known = self.timeline.known - {*range(self.hidden)}
        if not known:
            return latents
        target = context.section.target
        nearest = min(known, key=lambda frame: min(abs(frame - target[0]), abs(frame - target[-1])))
        reference = self.hidden if self.hidden in known else nearest
        return latents.lerp(with_statistics(latents, self.timeline.latents[:, :, reference : reference + 1]), self.strength)


def with_statistics(latents: Tensor, reference: Tensor) -> Tensor:
    """Latents `B C T H W` with the mean and the standard deviation of each channel of the reference, over time and space."""
    axes = (2, 3, 4)
    mean, deviation = latents.mean(axes, keepdim=True), latents.std(axes, keepdim=True).clamp(min=1e-6)
    wanted = reference.std(axes, keepdim=True)
    return (latents - mean) / deviation * wanted + reference.mean(axes, keepdim=True)
