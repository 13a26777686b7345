"""What a run of the demo waits for besides its steps, and what it sends to the front end. Run by `scripts/bench.py waits`.

Everything is read from the messages of a real server. Encoding and decoding are compared with ComfyUI's own nodes in the same
run, on the same picture and latent.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import NamedTuple

from scripts.support.environment import ROOT, Environment
from scripts.support.server import Prompt, Server
from scripts.support.websocket import Message
from scripts.support.workflow import to_prompt

WORKFLOW = ROOT / "example_workflows" / "FramePack demo.json"
SAMPLER = "FramePack_Sampler"
SECTIONS = 4  # of the demo's video
SIDE, FRAMES = 640, 145  # pixels of the picture that is encoded; frames of the video that is decoded, a quarter as wide
ENCODING = ("FramePack_EncodeImage", ("VAEEncode", "CLIPVisionEncode"))  # ours, and ComfyUI's own that do the same
DECODING = ("FramePack_Decode", ("VAEDecode",))


class Heard(NamedTuple):
    """A message, and how many seconds after the prompt was queued it came."""

    seconds: float
    message: Message


@dataclass(frozen=True)
class Run:
    """What a run of a prompt has said."""

    prompt: Prompt
    heard: Sequence[Heard]

    def seconds(self, kinds: Iterable[str]) -> float:
        """How long the nodes of these kinds took together."""
        nodes = {name for name, node in self.prompt.items() if node["class_type"] in kinds}
        turns = [each for each in self.heard if each.message["type"] in ("executing", "execution_success")]
        return sum(end.seconds - begin.seconds for begin, end in pairwise(turns) if begin.message["data"].get("node") in nodes)

    @property
    def steps(self) -> list[float]:
        """When each step of the sampler ended."""
        (sampler,) = (name for name, node in self.prompt.items() if node["class_type"] == SAMPLER)
        return [
            each.seconds
            for each in self.heard
            if each.message["type"] == "progress" and each.message["data"]["node"] == sampler
        ]

    @property
    def step(self) -> float:
        """Seconds of a step, the median."""
        return statistics.median(after - before for before, after in pairwise(self.steps))

    @property
    def before_sampling(self) -> float:
        """Seconds from queueing to the beginning of the first step."""
        return self.steps[0] - self.step

    def beginnings(self, sections: int) -> list[float]:
        """What the first step of each section but the first takes more than a step, in steps."""
        steps = self.steps
        each = len(steps) // sections
        return [(steps[first] - steps[first - 1]) / self.step - 1 for first in range(each, len(steps), each)]

    @property
    def sent(self) -> tuple[float, float]:
        """Messages, and kilobytes in them, for each step."""
        steps = self.steps
        during = [each.message for each in self.heard if steps[0] < each.seconds <= steps[-1]]
        return len(during) / (len(steps) - 1), sum(map(size, during)) / 1000 / (len(steps) - 1)


def size(message: Message) -> int:
    """Bytes of a message: of its text, or of the picture or video in it."""
    data = message["data"]
    return len(data) if isinstance(data, bytes) else len(json.dumps(message, default=lambda value: "." * len(value)))


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py waits", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=7, help="runs of each kind after the first (default: %(default)s)")
    options = parser.parse_args()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    with TemporaryDirectory() as folder, Server(environment, Path(folder, "server")) as server:
        workflow = to_prompt(json.loads(WORKFLOW.read_text(encoding="utf-8")), server.object_info())
        videos = [recorded(server, video(workflow, seed)) for seed in range(options.runs + 1)]
        coded = [recorded(server, coding(seed)) for seed in range(options.runs + 1)][1:]
    print("\n".join(report(videos, coded)))
    return 0


def recorded(server: Server, prompt: Prompt) -> Run:
    heard: list[Heard] = []
    begun = time.monotonic()
    server.run(prompt, timeout=3600, on_message=lambda message: heard.append(Heard(time.monotonic() - begun, message)))
    return Run(prompt, heard)


def video(workflow: Prompt, seed: int) -> Prompt:
    """The demo with another seed, sampled from its beginning."""
    changed = {"seed": seed, "resume": False}
    return {
        name: {**node, "inputs": node["inputs"] | changed} if node["class_type"] == SAMPLER else node
        for name, node in workflow.items()
    }


def coding(seed: int) -> Prompt:
    """A picture that is encoded and a latent that is decoded, by our nodes and by ComfyUI's."""
    vae, vision = ["demo", 2], ["demo", 3]
    empty = {"width": SIDE // 4, "height": SIDE // 4, "length": FRAMES, "batch_size": 1}
    nodes = [
        ("demo", "FramePack_LoadDemo", {}),
        ("scene", "FramePack_DemoImage", {"seed": seed}),
        ("picture", "ImageScale",
         {"image": ["scene", 0], "width": SIDE, "height": SIDE, "upscale_method": "lanczos", "crop": "disabled"}),
        ("encode", ENCODING[0], {"image": ["picture", 0], "vae": vae, "clip_vision": vision, "base_resolution": SIDE}),
        ("their encode", "VAEEncode", {"pixels": ["picture", 0], "vae": vae}),
        ("their vision", "CLIPVisionEncode", {"image": ["picture", 0], "clip_vision": vision, "crop": "none"}),
        ("empty", "EmptyHunyuanLatentVideo", empty),
        ("latent", "LatentMultiply", {"samples": ["empty", 0], "multiplier": float(seed)}),  # another one for each seed
        ("decode", DECODING[0], {"latent": ["latent", 0], "vae": vae}),
        ("their decode", "VAEDecode", {"samples": ["latent", 0], "vae": vae}),
    ]  # fmt: skip
    made = ("encode", "their encode", "their vision", "decode", "their decode")
    nodes += [(f"shown {name}", "PreviewAny", {"source": [name, 0]}) for name in made]
    return {name: {"class_type": kind, "inputs": inputs} for name, kind, inputs in nodes}


def report(videos: Sequence[Run], coded: Sequence[Run]) -> list[str]:
    first, *later = videos
    return [
        "| | median (lowest to highest) |",
        "| --- | --- |",
        row("queueing to the first step, models not loaded, s", [first.before_sampling]),
        row("queueing to the first step, models loaded, s", [run.before_sampling for run in later]),
        row("beginning of a section, steps", [one for run in later for one in run.beginnings(SECTIONS)]),
        row("messages to the front end, a step", [run.sent[0] for run in later]),
        row("kB of them, a step", [run.sent[1] for run in later]),
        row("encoding, ours by ComfyUI's", ratios(coded, *ENCODING)),
        row("decoding, ours by ComfyUI's", ratios(coded, *DECODING)),
    ]


def ratios(runs: Iterable[Run], ours: str, theirs: Sequence[str]) -> list[float]:
    return [run.seconds([ours]) / run.seconds(theirs) for run in runs]


def row(name: str, values: Sequence[float]) -> str:
    spread = f" ({min(values):.2f} to {max(values):.2f})" if len(values) > 1 else ""
    return f"| {name} | {statistics.median(values):.2f}{spread} |"


if __name__ == "__main__":
    sys.exit(main())
