"""Makes the videos of the experiments, measures them, and writes the report. Run by scripts/experiments.py."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import replace
from pathlib import Path

import torch

from experiments.study.results import Results
from experiments.study.videos import EXPERIMENTS, FULL, HELD_OUT, QUICK, Video, Way, motion_of
from framepack_core.demo.world import Scene
from scripts.support.pack import load_comfyui

ROOT = Path(__file__).resolve().parents[2]
MEMORY_STEPS = 2  # of the long video's second run, which only measures memory


def main() -> int:
    options = arguments()
    load_comfyui(options.comfyui, cpu=not torch.cuda.is_available())
    from experiments.study import report
    from experiments.study.studio import Studio, fingerprint

    amount = QUICK if options.quick else FULL
    amount = amount.at_most(options.videos) if options.videos else amount
    results = Results(options.results, fingerprint())
    way = Way(options.steps, options.shift)
    if not options.report:
        run(Studio(), results, amount, way, options)
    report.write(results, amount, way, options.output)
    print(f"wrote {options.output / 'EXPERIMENTS.md'}")
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/experiments.py", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--only", nargs="+", default=NAMES, choices=NAMES, metavar="NAME", help=f"some of {', '.join(NAMES)}")
    parser.add_argument("--quick", action="store_true", help="only a few videos per experiment")
    parser.add_argument("--videos", type=int, help="use at most this many scenes in each experiment")
    parser.add_argument("--steps", type=int, default=10, help="steps per section (default: %(default)s)")
    parser.add_argument("--shift", type=float, default=0.0, help="shift of the sigmas (default: the one for the size)")
    parser.add_argument("--batch", type=int, default=4, help="videos to sample together (default: %(default)s)")
    parser.add_argument("--results", type=Path, default=ROOT / ".cache" / "experiments" / "results.jsonl",
                        help="file with the results of each video; a run continues it")  # fmt: skip
    parser.add_argument("--output", type=Path, default=ROOT / "docs", help="folder for EXPERIMENTS.md and its images")
    parser.add_argument("--report", action="store_true", help="only write the report, without making videos")
    return parser.parse_args()


NAMES = ("vae", *EXPERIMENTS, "long")


def run(studio, results: Results, amount, way, options: argparse.Namespace) -> None:
    quiet_comfyui()
    if "vae" in options.only:
        measure_vae(studio, results, amount.vae)
    wanted = {name: list(way.of(videos(amount))) for name, videos in EXPERIMENTS.items() if name in options.only}
    make_videos(studio, results, wanted, options)
    if "long" in options.only:
        measure_long(studio, results, amount.long, way)


def quiet_comfyui() -> None:
    import comfy.utils

    comfy.utils.set_progress_bar_enabled(False)


def measure_vae(studio, results: Results, clips: int) -> None:
    from experiments.study.findings import vae_quality

    for number in range(clips):
        made = {"vae": number}
        if made not in results:
            scene = Scene.draw(HELD_OUT + number)
            frames = scene.render(33)
            results.add([(made, vae_quality(scene, frames, studio.through_vae(frames)))])
    print(f"vae: {clips} clips", flush=True)


def make_videos(studio, results: Results, wanted: dict[str, list], options: argparse.Namespace) -> None:
    """Make the videos that have no results yet, in batches; each batch is on disk before the next begins."""
    from experiments.study.findings import findings

    todo = {name: batches(videos, results, options.batch) for name, videos in wanted.items()}
    seen: set = set()
    clock = Clock()
    for name, groups in todo.items():
        groups = [fresh for group in groups if (fresh := [video for video in group if video not in seen])]
        seen.update(video for group in groups for video in group)
        clock.plan(sum(work(group) for group in groups))
        todo[name] = groups
    for name, groups in todo.items():
        for number, group in enumerate(groups, 1):
            shot = studio.shoot(group)
            found = [
                (video.to_dict(), findings(video, frames) | {"calls": shot.calls})
                for video, frames in zip(group, shot.clips, strict=True)
            ]
            keep_frames(options.results.parent, group, shot.clips)
            results.add(found)
            print(f"{name}: batch {number} of {len(groups)}, {clock.done(work(group))}", flush=True)


def batches(videos: Iterable, results: Results, size: int) -> list[list]:
    """Videos that have no results yet, grouped by what can be sampled together, in the given order."""
    groups: dict[tuple, list] = {}
    for video in dict.fromkeys(videos):
        if video.to_dict() not in results:
            groups.setdefault(video.batch, []).append(video)
    return [group[start : start + size] for group in groups.values() for start in range(0, len(group), size)]


def work(group: list) -> int:
    return sum(video.sections * max(video.steps, 1) for video in group)


def keep_frames(folder: Path, group: list, clips: Sequence) -> None:
    from experiments.study.strips import is_shown, save_strip

    for video, frames in zip(group, clips, strict=True):
        if is_shown(video):
            save_strip(folder, video, frames)


def measure_long(studio, results: Results, sections: int, way) -> None:
    from experiments.study.findings import findings
    from experiments.study.long import live_megabytes, tokens

    video = next(way.of([Video(0, motion_of(0), sections, "inverted", "framepack")]))
    made = {"long": video.to_dict()}
    if made in results:
        return
    sampled = studio.sample([video])
    costs = {
        "seconds": list(sampled.seconds),
        "megabytes": live_megabytes(studio, replace(video, steps=MEMORY_STEPS)),
        "tokens": tokens(video),
    }
    results.add([(made, costs), (video.to_dict(), findings(video, studio.decode(sampled.latents)))])
    print(f"long: {sections} sections, {sum(sampled.seconds):.0f} s", flush=True)


class Clock:
    """Estimates how long the rest will take from what is done."""

    def __init__(self) -> None:
        self.begun, self.planned, self.finished = time.monotonic(), 0, 0

    def plan(self, amount: int) -> None:
        self.planned += amount

    def done(self, amount: int) -> str:
        self.finished += amount
        spent = time.monotonic() - self.begun
        left = spent / self.finished * (self.planned - self.finished)
        return f"{spent / 60:.1f} min, about {left / 60:.1f} min left"


if __name__ == "__main__":
    sys.exit(main())
