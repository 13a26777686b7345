"""What a section costs in a very long video: its tokens, its seconds, and the tensors alive at once."""

from __future__ import annotations

from experiments.benchmarks.live import LiveBytes
from experiments.study.studio import Studio
from experiments.study.videos import CONFIGURATIONS, Video

LATENT = 16  # rows and columns of the demo's latents


def tokens(video: Video) -> list[int]:
    """Context and generated tokens together, for every section."""
    sections = video.plan.fill(1 + video.generated)
    return [part.context_tokens(LATENT, LATENT) + part.target_tokens(LATENT, LATENT) for part in sections]


def uneven(sections: int) -> list[str]:
    """Orders and layouts whose sections do not all cost the same from the third one on."""
    made = {f"{order}, {layout}": Video(0, "stop", sections, order, layout) for order, layout in CONFIGURATIONS}
    return [name for name, video in made.items() if len(set(tokens(video)[2:])) > 1]


def live_megabytes(studio: Studio, video: Video) -> list[float]:
    """The most that tensors take at once in each section, including those made before it."""
    peaks: list[float] = []

    with LiveBytes() as live:

        def note_peak() -> None:
            peaks.append(live.peak / 1e6)
            live.peak = 0

        studio.sample([video], each=note_peak)
    return peaks
