"""How much longer the demo's video takes while previews are watched. Run by `scripts/bench.py previews`.

Each ratio is of a run with previews to one without, next to each other in time, on servers that have run before; the median
of several pairs counts.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory

from scripts.support.environment import ROOT, Environment
from scripts.support.server import Prompt, Server
from scripts.support.workflow import to_prompt

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"
PICTURES = ("--preview-method", "latent2rgb")
SAMPLER = "FramePack_Sampler"


@dataclass(frozen=True)
class Way:
    """What is shown during a run: the filmstrip, which is up to the server, and the video so far."""

    name: str
    filmstrip: bool = False
    video: bool = False


NOTHING = Way("nothing")
WAYS = (Way("video preview", video=True), Way("filmstrip", filmstrip=True), Way("both", filmstrip=True, video=True))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py previews", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=7, help="pairs of each kind (default: %(default)s)")
    options = parser.parse_args()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    with (
        TemporaryDirectory() as folder,
        Server(environment, Path(folder, "plain")) as plain,
        Server(environment, Path(folder, "pictures"), flags=PICTURES) as pictures,
    ):
        report(measured({False: plain, True: pictures}, options.runs))
    return 0


def measured(servers: dict[bool, Server], runs: int) -> dict[str, list[float]]:
    """The ratios of each way, by its name."""
    ways = (NOTHING, *WAYS)
    for way in ways:
        seconds(servers[way.filmstrip], way, seed=0)
    found: dict[str, list[float]] = {way.name: [] for way in WAYS}
    for run in range(1, runs + 1):
        first = run % len(ways)
        took = {way.name: seconds(servers[way.filmstrip], way, run) for way in (*ways[first:], *ways[:first])}
        for name, ratios in found.items():
            ratios.append(took[name] / took[NOTHING.name])
    return found


def seconds(server: Server, way: Way, seed: int) -> float:
    """How long the demo's video takes while a client listens."""
    prompt = prompt_of(server, way, seed)
    begun = time.monotonic()
    server.run(prompt, timeout=3600, on_message=lambda message: None)
    return time.monotonic() - begun


def prompt_of(server: Server, way: Way, seed: int) -> Prompt:
    """The demo with another seed, sampled from its beginning."""
    prompt = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.object_info())
    for node in prompt.values():
        if node["class_type"] == SAMPLER:
            node["inputs"] |= {"seed": seed, "resume": False}
            if not way.video:
                del node["inputs"]["preview_vae"]
    return prompt


def report(found: dict[str, list[float]]) -> None:
    print("previews | time, as a ratio to that of none: median (lowest to highest)")
    print("--- | ---")
    for name, ratios in found.items():
        print(f"{name} | {statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f})")


if __name__ == "__main__":
    sys.exit(main())
