"""What FramePack Cache saves, and what it costs: the demo's video with all steps, with half of them, and with the cache. Run by
`scripts/bench.py cache`.

All runs of a seed are next to each other in time, on one server that has run before. A video is compared with the one that all
steps give; a run with fewer steps says how much a given time is worth without a cache. MagCache goes by a table of the demo's
own, measured beforehand with another seed. The command fails if the defaults miss a bound.
"""

from __future__ import annotations

import argparse
import json
import math
import re
import statistics
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from tempfile import TemporaryDirectory

from safetensors.torch import load_file
from torch import Tensor

from framepack_core.caching import Skipping
from scripts.support.environment import ROOT, Environment
from scripts.support.pack import load_comfyui
from scripts.support.server import Prompt, Server
from scripts.support.workflow import to_prompt

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"
SAMPLER, IMAGE = "FramePack_Sampler", "FramePack_DemoImage"
STEPS = 25
SAID = re.compile(r"(\d+) of (\d+) calls skipped")


@dataclass(frozen=True)
class Way:
    """How many steps, and what the cache is set to."""

    name: str
    steps: int = STEPS
    method: str = "off"
    threshold: float = Skipping.threshold


ALL, HALF, MEASURE = Way("all steps"), Way("half the steps", STEPS // 2), Way("MagCache's table", method="measure")
WAYS = (
    ALL,
    Way("0.6 of the steps, in about the default's time", STEPS * 3 // 5),
    HALF,
    Way("a third of the steps", STEPS // 3),
    *(Way(f"easycache, threshold {threshold:g}", STEPS, "easycache", threshold) for threshold in (0.02, 0.05, 0.1, 0.25)),
    *(Way(f"magcache, threshold {threshold:g}", STEPS, "magcache", threshold) for threshold in (0.02, 0.05, 0.1, 0.2)),
)
DEFAULTS = next(way for way in WAYS if way.method == "easycache" and way.threshold == Skipping.threshold)
FASTER, NEAR, ABOVE_HALF = 1.6, 26.0, 3.0  # what the defaults reach at least: times as fast, dB, dB above half the steps


@dataclass(frozen=True)
class Run:
    """Seconds, the share of calls that were made, and the frames `F H W 3` in 0..1, before they are rounded."""

    seconds: float
    calls: float
    frames: Tensor


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py cache", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--seeds", type=int, default=5, help="start images, each with noise of its own (default: %(default)s)")
    parser.add_argument("--order", default="inverted", choices=("inverted", "forward", "endpoints"))
    options = parser.parse_args()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    load_comfyui(options.comfyui)
    with TemporaryDirectory() as folder, Server(environment, Path(folder)) as server:
        run(server, MEASURE, 0, options.order)
        by_way: dict[Way, list[Run]] = {way: [] for way in WAYS}
        for seed in range(1, options.seeds + 1):
            for way in (*WAYS[seed % len(WAYS) :], *WAYS[: seed % len(WAYS)]):
                by_way[way].append(run(server, way, seed, options.order))
            report(by_way)
    return 0 if holds(by_way) else 1


def run(server: Server, way: Way, seed: int, order: str) -> Run:
    skipped, calls = 0, 0

    def listen(message: dict) -> None:
        nonlocal skipped, calls
        if message["type"] == "text" and (match := SAID.match(message["data"]["text"])):
            skipped, calls = skipped + int(match[1]), calls + int(match[2])

    begun = time.monotonic()
    entry = server.run(prompt_of(server, way, seed, order), timeout=7200, on_message=listen)
    seconds = time.monotonic() - begun
    (latents,) = (file for file in server.output_files(entry) if file.suffix == ".latent")
    frames = decoded(load_file(latents)["latent_tensor"])
    return Run(seconds, way.steps / STEPS * (1 - skipped / calls if calls else 1), frames)


def decoded(latents: Tensor) -> Tensor:
    from framepack_core.comfyui.decoding.stream import decode_video

    return decode_video(demo_vae(), latents)


@cache
def demo_vae():
    from framepack_core.comfyui.demo import load_demo

    return load_demo()[2]


def prompt_of(server: Server, way: Way, seed: int, order: str) -> Prompt:
    """The demo with another start image and other noise, sampled from its beginning."""
    prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.object_info())
    for name, node in list(prompt.items()):
        inputs = node["inputs"]
        if node["class_type"] == SAMPLER:
            inputs |= {"seed": seed, "steps": way.steps, "resume": False}
            inputs.pop("preview_vae", None)
            prompt["cache"] = {"class_type": "FramePack_Cache", "inputs": cached(inputs["model"], way)}
            inputs["model"] = ["cache", 0]
            prompt["latent"] = {"class_type": "SaveLatent", "inputs": {"samples": [name, 0], "filename_prefix": "cache"}}
        elif node["class_type"] == IMAGE:
            inputs["seed"] = seed
        elif node["class_type"] == "FramePack_Plan":
            inputs["order"] = order
    return prompt


def cached(model: list, way: Way) -> dict:
    return {"model": model, "method": way.method, "threshold": way.threshold, "start": 0.1, "end": 1.0, "max_skips": 5}


@dataclass(frozen=True)
class Figures:
    """Of one way, over the seeds: its share of all steps' calls and time, its PSNR to them, and how much more that is than
    with half of the steps (dB)."""

    calls: float
    time: float
    near: tuple[float, ...]
    above_half: tuple[float, ...]

    @classmethod
    def of(cls, way: Way, by_way: dict[Way, list[Run]]) -> Figures:
        runs, reference = by_way[way], by_way[ALL]
        near, half = ([psnr(*pair) for pair in zip(by_way[one], reference, strict=True)] for one in (way, HALF))
        return cls(
            statistics.median(run.calls for run in runs),
            statistics.median(run.seconds / whole.seconds for run, whole in zip(runs, reference, strict=True)),
            tuple(near),
            tuple(one - other for one, other in zip(near, half, strict=True)),
        )


def report(by_way: dict[Way, list[Run]]) -> None:
    above = "above half the steps, dB: median (lowest to highest)"
    header = f"{len(by_way[ALL])} seeds", "calls", "time", "PSNR, dB: median (lowest to highest)", above
    print("", " | ".join(header), " | ".join(["---"] * len(header)), sep="\n")
    for way in by_way:
        if way != ALL:
            found = Figures.of(way, by_way)
            more = spread(found.above_half, sign="+")
            print(f"{way.name} | {found.calls:.2f} | {found.time:.2f} | {spread(found.near)} | {more}", flush=True)


def holds(by_way: dict[Way, list[Run]]) -> bool:
    """Print what the defaults reach, and say whether that is enough."""
    found = Figures.of(DEFAULTS, by_way)
    reached = {
        "times as fast": (1 / found.time, FASTER),
        "dB": (statistics.median(found.near), NEAR),
        "dB above half the steps": (statistics.median(found.above_half), ABOVE_HALF),
    }
    print(f"\n{DEFAULTS.name}:", ", ".join(f"{value:.2f} {what} (bound {bound:g})" for what, (value, bound) in reached.items()))
    return all(value >= bound for value, bound in reached.values())


def spread(values: Sequence[float], sign: str = "") -> str:
    median, lowest, highest = (f"{value:{sign}.1f}" for value in (statistics.median(values), min(values), max(values)))
    return f"{median} ({lowest} to {highest})"


def psnr(run: Run, reference: Run) -> float:
    return -10 * math.log10(max((run.frames - reference.frames).square().mean().item(), 1e-12))


if __name__ == "__main__":
    sys.exit(main())
