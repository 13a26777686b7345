"""What a section costs in a very long video: its tokens, its seconds, and the tensors alive at once."""

from __future__ import annotations

from framepack.framepack_core.plan import Plan

from scripts.benchmarks.live import LiveBytes
from scripts.study.studio import Studio
from scripts.study.videos import CONFIGURATIONS, WINDOW, Video

LATENT = 16  # rows and columns of the demo's latents


def tokens(sections: int) -> dict[str, list[int]]:
    """Context and generated tokens of every section, for each order and layout."""
    found = {}
    for order, layout in CONFIGURATIONS:
        plan = Plan(sections, order, WINDOW, Plan.of(1.2, order, WINDOW, layout).layout)
        steps = plan.fill(1 + plan.generated)
        found[f"{order} {layout}"] = [
            step.context_tokens(LATENT, LATENT) + step.target_tokens(LATENT, LATENT) for step in steps
        ]
    return found


def live_megabytes(studio: Studio, video: Video) -> list[float]:
    """The most that tensors made in each section, and before, take at once."""
    peaks: list[float] = []

    with LiveBytes() as live:

        def note_peak() -> None:
            peaks.append(live.peak / 1e6)
            live.peak = 0

        studio.sample([video], each=note_peak)
    return peaks
