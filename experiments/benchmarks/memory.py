"""A real ComfyUI's peak memory and time, by the length of the video. Run by `scripts/bench.py memory`.

Each figure comes from a separate server. Before it samples, it has sampled one section; what a longer video adds is counted.
Before it saves, it has run and loaded nothing, so that all is counted: libraries, the demo's VAE, the latents, and the work.
"""

from __future__ import annotations

import argparse
import re
import shutil
import statistics
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import torch
from safetensors.torch import save_file

from framepack_core.frames import PIXEL_FRAMES
from framepack_core.plan import Plan
from scripts.support.environment import Environment
from scripts.support.server import Prompt, Server
from scripts.support.websocket import Message

WINDOW, FPS = 9, 30
DEMO = 16  # rows and columns of the demo's latents
SECONDS = WINDOW * PIXEL_FRAMES / FPS  # of a section
STEPS = 2  # few: how memory and time change over the sections does not depend on them
SQUARE = 40  # rows and columns of the latents of the long video that is only saved: 320 pixels
FRAMES = (45, 450)  # of those latents
INTERVAL = 0.005  # seconds between readings of the memory
WAYS = ("FramePack_SaveVideo", "VAEDecode", "VAEDecodeTiled")


@dataclass(frozen=True)
class Cost:
    """What a run took: its peak memory above the idle server's, its seconds, and those of its parts."""

    megabytes: float
    seconds: float
    parts: tuple[float, ...] = ()


def main() -> int:
    options = arguments()
    environment = Environment(Path(sys.executable), options.comfyui, options.comfyui.parent)
    with TemporaryDirectory() as folder:
        bench = Bench(environment, Path(folder))
        if options.sections:
            print_sampling(bench, options.sections)
            print_saving(bench, options.sections, options.ways)
        if options.frames:
            print_long(bench, options.frames, options.ways, options.repeats)
    return 0


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.py memory", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument(
        "--sections", type=int, nargs="*", default=[1, 4, 16, 64], help="lengths to sample and save (default: %(default)s)"
    )
    parser.add_argument(
        "--frames",
        type=int,
        nargs="*",
        default=FRAMES,
        help=f"latent frames of {SQUARE}x{SQUARE} to save (default: %(default)s)",
    )
    parser.add_argument("--ways", nargs="+", choices=WAYS, default=WAYS, help="nodes that decode (default: all)")
    parser.add_argument("--repeats", type=int, default=3, help="runs per median in the last table (default: %(default)s)")
    return parser.parse_args()


def print_sampling(bench: Bench, lengths: list[int]) -> None:
    print_row("sections", "frames", "tokens a call", "sampler: MB above idle", "seconds a section, median")
    print_row(*["---:"] * 5)
    for sections in lengths:
        cost = bench.sampling(sections)
        frames = 1 + PIXEL_FRAMES * WINDOW * sections
        median = f"{statistics.median(cost.parts):.2f}" if cost.parts else "-"
        print_row(sections, frames, tokens(sections), f"{cost.megabytes:.0f}", median)


def tokens(sections: int) -> str:
    """All tokens of a transformer call, context included, from the third section on."""
    plan = Plan.of(SECONDS * sections, "inverted", WINDOW)
    found = [part.context_tokens(DEMO, DEMO) + part.target_tokens(DEMO, DEMO) for part in plan.fill(1 + plan.generated)]
    later = set(found[2:]) or set(found[-1:])
    return " or ".join(map(str, sorted(later)))


def print_saving(bench: Bench, lengths: list[int], ways: Sequence[str]) -> None:
    print_head("sections", ways)
    for sections in lengths:
        print_row(sections, *(shown(bench.saving(way, bench.sampled(sections))) for way in ways))


def print_long(bench: Bench, lengths: list[int], ways: Sequence[str], repeats: int) -> None:
    print_head(f"latent frames of {SQUARE}x{SQUARE}", ways)
    ours = []
    for frames in lengths:
        latents = random_latents(bench.folder, frames)
        costs = [middle([bench.saving(way, latents) for _ in range(repeats)]) for way in ways]
        print_row(frames, *map(shown, costs))
        ours.append((costs[0].megabytes, costs[0].seconds / frames))
    memory, time_a_frame = (last / first for first, last in zip(ours[0], ours[-1], strict=True))
    print(f"\n{ways[0]}, longest against shortest: {memory:.2f} of the memory, {time_a_frame:.2f} of the time a frame")


def middle(costs: list[Cost]) -> Cost:
    return Cost(statistics.median(cost.megabytes for cost in costs), statistics.median(cost.seconds for cost in costs))


def print_head(length: str, ways: Sequence[str]) -> None:
    print()
    print_row(length, *(f"{way}: MB, seconds" for way in ways))
    print_row(*["---:"] * (1 + len(ways)))


def print_row(*cells: object) -> None:
    print("| " + " | ".join(map(str, cells)) + " |", flush=True)


def shown(cost: Cost) -> str:
    return f"{cost.megabytes:.0f}, {cost.seconds:.1f}"


class Bench:
    """Runs, each in a separate server. `folder` holds the latents between them."""

    def __init__(self, environment: Environment, folder: Path) -> None:
        self.environment = environment
        self.folder = folder

    def sampling(self, sections: int) -> Cost:
        """Run the sampler on the demo's models. Its latents are kept for `saving`."""
        with self.server() as server:
            server.run(sampling_prompt(1, seed=1))
            starts = SectionStarts()
            cost = measure(server, lambda: server.run(sampling_prompt(sections, seed=2), timeout=3600, on_message=starts))
            (latents,) = (server.base / "output").glob("sampled_00002_.latent")
            latents.replace(self.sampled(sections))
        return Cost(cost.megabytes, cost.seconds, starts.durations)

    def saving(self, way: str, latents: Path) -> Cost:
        """Load latents and save them to an MP4 through the demo's VAE."""
        with self.server() as server:
            shutil.copyfile(latents, server.base / "input" / "video.latent")
            return measure(server, lambda: server.run(saving_prompt(way, "video.latent"), timeout=3600))

    def sampled(self, sections: int) -> Path:
        return self.folder / f"sampled_{sections}.latent"

    @contextmanager
    def server(self) -> Iterator[Server]:
        with TemporaryDirectory(dir=self.folder) as base, Server(self.environment, Path(base), temporary=True) as server:
            yield server


def measure(server: Server, run: Callable[[], object]) -> Cost:
    with Peak(server.pid) as peak:
        begun = time.perf_counter()
        run()
        seconds = time.perf_counter() - begun
    return Cost((peak.most - peak.idle) / 1e6, seconds)


class Peak:
    """A process's peak resident memory while the block runs, and its memory before."""

    def __init__(self, pid: int) -> None:
        self.process = psutil.Process(pid)
        self.idle = self.most = self.resident()
        self.ended = threading.Event()
        self.watcher = threading.Thread(target=self.watch, daemon=True)

    def __enter__(self) -> Peak:
        self.watcher.start()
        return self

    def __exit__(self, *exception: object) -> None:
        self.ended.set()
        self.watcher.join()

    def watch(self) -> None:
        while not self.ended.wait(INTERVAL):
            self.most = max(self.most, self.resident())

    def resident(self) -> int:
        return self.process.memory_info().rss


class SectionStarts:
    """How long each section of a run took, except the last, from the sampler's line of text."""

    def __init__(self) -> None:
        self.times: dict[int, float] = {}

    def __call__(self, message: Message) -> None:
        if message["type"] == "text" and (found := re.match(r"section (\d+) of", message["data"]["text"])):
            self.times.setdefault(int(found[1]), time.perf_counter())

    @property
    def durations(self) -> tuple[float, ...]:
        times = list(self.times.values())
        return tuple(end - begin for begin, end in pairwise(times))


def sampling_prompt(sections: int, seed: int) -> Prompt:
    """The demo's models, `sections` inverted sections, saved as latents."""
    return {
        "demo": node("FramePack_LoadDemo"),
        "image": node("FramePack_DemoImage", seed=12),
        "text": node("CLIPTextEncode", text="a pink circle bounces", clip=["demo", 1]),
        "start": node("FramePack_EncodeImage", image=["image", 0], vae=["demo", 2], clip_vision=["demo", 3],
                      base_resolution=128),
        "plan": node("FramePack_Plan", seconds=SECONDS * sections, order="inverted", window=WINDOW, layout="auto", fps=FPS),
        "sampler": node("FramePack_Sampler", model=["demo", 0], positive=["text", 0], plan=["plan", 0],
                        start_latent=["start", 0], clip_vision_output=["start", 1], seed=seed, steps=STEPS, cfg=1.0,
                        guidance=10.0, shift=0.0, sampler="unipc_bh1"),
        "save": node("SaveLatent", samples=["sampler", 0], filename_prefix="sampled"),
    }  # fmt: skip


def saving_prompt(way: str, latents: str) -> Prompt:
    loaded = {"demo": node("FramePack_LoadDemo"), "latent": node("LoadLatent", latent=latents)}
    if way == "FramePack_SaveVideo":
        save = node(way, latent=["latent", 0], vae=["demo", 2], fps=float(FPS), filename_prefix="saved", crf=16)
        return loaded | {"save": save}
    tiles = {} if way == "VAEDecode" else {"tile_size": 256, "overlap": 64, "temporal_size": 64, "temporal_overlap": 8}
    return loaded | {
        "images": node(way, samples=["latent", 0], vae=["demo", 2], **tiles),
        "video": node("CreateVideo", images=["images", 0], fps=float(FPS)),
        "save": node("SaveVideo", video=["video", 0], filename_prefix="saved", format="mp4", codec="h264"),
    }


def node(kind: str, **inputs) -> dict:
    return {"class_type": kind, "inputs": inputs}


def random_latents(folder: Path, frames: int) -> Path:
    """A file of noise for Load Latent, made once."""
    path = folder / f"random_{frames}.latent"
    if not path.exists():
        generator = torch.Generator().manual_seed(frames)
        latents = torch.randn(1, 16, frames, SQUARE, SQUARE, generator=generator)
        save_file({"latent_tensor": latents, "latent_format_version_0": torch.tensor([])}, path)
    return path


if __name__ == "__main__":
    sys.exit(main())
