"""What few steps give: videos of 6 to 12 steps against one of 50 from the same noise, by sampler and shift. Run by
`scripts/bench.py steps`.

One section of held-out scenes of the demo. PSNR tells how near a video comes to the one that many steps give, before frames are
rounded; for `er_sde`, which draws noise of its own, there is no such video. The fit tells how well the shape holds together
(docs/EXPERIMENTS.md). Results are kept, and a run that was stopped goes on.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from itertools import product
from pathlib import Path

from torch import Tensor

from experiments.study.results import Results
from scripts.support.environment import ROOT
from scripts.support.pack import load_comfyui

STEPS = (6, 8, 10, 12)
SAMPLERS = ("euler", "unipc_bh1", "unipc_bh2", "dpmpp_2m", "res_multistep", "er_sde")
STOCHASTIC = ("er_sde",)
SOLVERS = tuple(sampler for sampler in SAMPLERS if sampler not in STOCHASTIC)
SHIFTS = (0.0, 3.0, 7.0)  # that of the demo's size, and up to that of the sizes of the released models
CACHE = 0.02  # FramePack Cache's default


@dataclass(frozen=True)
class Way:
    """A shift of 0 is the one for the size; `cache` is a threshold, 0 without one."""

    sampler: str
    steps: int
    shift: float = 0.0
    cache: float = 0.0


REFERENCE = Way("unipc_bh1", 50)


def ways() -> Iterator[Way]:
    """Every shift, sampler and number of steps, those of `SOLVERS` with the cache too."""
    for shift, (samplers, cache) in product(SHIFTS, ((SAMPLERS, 0.0), (SOLVERS, CACHE))):
        yield from (Way(sampler, steps, shift, cache) for sampler, steps in product(samplers, STEPS))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py steps", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--scenes", type=int, default=4, help="start images, each with noise of its own (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / ".cache" / "experiments" / "steps.jsonl",
                        help="file with the result of each video; a run continues it")  # fmt: skip
    options = parser.parse_args()
    load_comfyui(options.comfyui)
    from experiments.study.run import quiet_comfyui
    from experiments.study.studio import Studio, fingerprint

    quiet_comfyui()
    results = Results(options.results, fingerprint())
    measure(Studio(), results, range(options.scenes), list(ways()))
    print(report(results, options.scenes))
    return 0


def measure(studio, results: Results, scenes: Sequence[int], wanted: Sequence[Way]) -> None:
    """Make the videos that have no results yet; each is on disk before the next begins."""
    from experiments.study.findings import findings

    left = [(way, scene) for way in wanted for scene in scenes if made(scene, way) not in results]
    references = {scene: frames_of(studio, scene, REFERENCE)[0] for scene in sorted({scene for _, scene in left})}
    for number, (way, scene) in enumerate(left, 1):
        frames, calls = frames_of(studio, scene, way)
        found = findings(video(scene, way), rounded(frames))
        near = psnr(frames, references[scene])
        results.add([(made(scene, way), {"psnr": near, "fit": found["fit"], "calls": calls})])
        print(f"{number} of {len(left)}: {way}", flush=True)


def made(scene: int, way: Way) -> dict:
    return {"scene": scene, **asdict(way)}


def video(scene: int, way: Way):
    from experiments.study.videos import Video, motion_of

    return Video(scene, motion_of(scene), 1, "inverted", "framepack", steps=way.steps, shift=way.shift, cache=way.cache,
                 sampler=way.sampler)  # fmt: skip


def frames_of(studio, scene: int, way: Way) -> tuple[Tensor, float]:
    """Frames `F H W 3` in 0..1, and the share of the model's calls that were made."""
    from framepack_core.comfyui.decoding.stream import decode_video

    sampled = studio.sample([video(scene, way)])
    return decode_video(studio.vae, sampled.latents), sampled.calls


def rounded(frames: Tensor):
    """The frames as a video file has them, uint8."""
    import numpy as np

    from framepack_core.media.video import pixels

    return np.stack(list(pixels(frames)))


def psnr(frames: Tensor, reference: Tensor) -> float:
    return -10 * math.log10(max((frames - reference).square().mean().item(), 1e-12))


def report(results: Results, scenes: int) -> str:
    """A row for each sampler, shift and threshold: PSNR and fit at each number of steps, medians over the scenes. Rows of which
    nothing has been made are left out."""
    header = ("sampler", "shift", "cache", *(f"{steps} steps" for steps in STEPS))
    rows = [header, ["---"] * len(header)]
    for sampler, shift, cache in dict.fromkeys((way.sampler, way.shift, way.cache) for way in ways()):
        cells = [cell(results, scenes, Way(sampler, steps, shift, cache)) for steps in STEPS]
        if not any(cells):
            continue
        rows.append([sampler, f"{shift:g}" if shift else "auto", f"{cache:g}" if cache else "off", *cells])
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)


def cell(results: Results, scenes: int, way: Way) -> str:
    """Empty if some of the scenes have not been made."""
    if not all(made(scene, way) in results for scene in range(scenes)):
        return ""
    found = [results[made(scene, way)] for scene in range(scenes)]
    decibels, fit, calls = (statistics.median(one[name] for one in found) for name in ("psnr", "fit", "calls"))
    near = "" if way.sampler in STOCHASTIC else f"{decibels:.1f} dB, "
    return f"{near}{fit:.2f}" + (f", {calls:.2f}" if way.cache else "")


if __name__ == "__main__":
    sys.exit(main())
