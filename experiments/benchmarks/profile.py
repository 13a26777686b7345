"""Where the time of a step goes. Run by `scripts/bench.py profile`.

For each part of a call of the transformer: its time, and how much of that it does not reach the speed of one large product,
which is measured in the same run. On a card it is the time of kernels, and the size is the released one with fewer blocks; on
a CPU it is the time of operations, at three sizes. What is left of the call is between them: gaps on a card, Python on a CPU.
"""

from __future__ import annotations

import argparse
import sys
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch.autograd import DeviceType
from torch.autograd.profiler_util import FunctionEvent
from torch.profiler import ProfilerActivity, profile

from experiments.benchmarks.speed import flop_counter, machine, matmul_peak, seconds
from scripts.support.pack import load_comfyui

if TYPE_CHECKING:
    from scripts.support.trial import Size

RUNS = 3
DEPTH = (4, 8)
OTHERS, BETWEEN = "other operations", "between them"
PARTS: Mapping[str, tuple[str, ...]] = {  # an operation is the first part's that it or one around it belongs to
    "rotary phases": ("rope",),
    "attention": ("attention",),
    "norms": ("_norm",),
    "products": ("::linear", "::addmm", "::mm", "::bmm", "::matmul", "scaled_mm"),
    "convolutions": ("conv3d", "convolution"),
    "activations": ("::gelu", "::silu"),
    "joining": ("::cat",),
    "copies": ("::copy_", "::clone", "::contiguous", "::to"),
    "modulation, residuals": ("::mul", "::add"),
}


@dataclass(frozen=True)
class Profile:
    """Seconds of a call, of its parts, and operations of its parts; operations a second of one large product."""

    seconds: float
    parts: Mapping[str, float]
    operations: Mapping[str, float]
    peak: float

    @property
    def share(self) -> float:
        """What the call reaches of the peak."""
        return sum(self.operations.values()) / self.seconds / self.peak

    def lost(self, part: str) -> float:
        """The share of the call's time in which a part does not reach the peak."""
        return (self.parts[part] - self.operations.get(part, 0.0) / self.peak) / self.seconds


def main() -> int:
    parser = argparse.ArgumentParser(prog="scripts/bench.py profile", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=RUNS, help="calls in a mean (default: %(default)s)")
    parser.add_argument("--depth", type=int, nargs=2, default=DEPTH, help="double and single blocks on a card")
    parser.add_argument("--small", action="store_true", help="a tiny transformer only")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    load_comfyui(options.comfyui, cpu=not gpu)
    device = torch.device("cuda" if gpu else "cpu")
    print(f"{machine(device)}, torch {torch.__version__}, mean of {options.runs} calls")
    for name, size in sizes(options, gpu):
        print("\n".join(["", *lines(name, profile_of(size, options.runs, device))]), flush=True)
    return 0


def sizes(options: argparse.Namespace, gpu: bool) -> Iterator[tuple[str, Size]]:
    from experiments.benchmarks.speed import IMAGE_TOKENS, TEXT_TOKENS, TRANSFORMER_SIZES
    from scripts.support.trial import RELEASED, SMALL, Size

    double, single = options.depth
    if options.small:
        yield "tiny", SMALL
    elif gpu:
        yield (
            f"640x608, {double}+{single} blocks of the released width",
            Size(RELEASED.hidden, double, single, RELEASED.height, RELEASED.width),
        )
    else:
        for size in TRANSFORMER_SIZES:
            shape = size.hidden, size.double, size.single, size.height, size.width
            yield f"{size.name}, {size.hidden} wide", Size(*shape, text=TEXT_TOKENS, image=IMAGE_TOKENS)


def lines(name: str, found: Profile) -> list[str]:
    """A table of the parts, the longest first."""
    rows = [
        f"| {part} | {1e3 * time:.2f} | {time / found.seconds:.1%} | {found.lost(part):.1%} |"
        for part, time in sorted(found.parts.items(), key=lambda item: -item[1])
    ]
    return [
        f"{name}: {1e3 * found.seconds:.1f} ms a call, {found.share:.0%} of the peak, {found.peak / 1e9:.0f} GFLOP/s",
        "| part | ms | share | below the peak |",
        "| --- | ---: | ---: | ---: |",
        *rows,
    ]


# Measuring


def profile_of(size: Size, runs: int, device: torch.device) -> Profile:
    """A call of the transformer, as the sampler calls it. ComfyUI must be loaded."""
    from comfy.patcher_extension import WrappersMP

    from scripts.support.trial import sampling, transformer

    found: list[Profile] = []

    def profiled(executor, *args, **kwargs):
        found.append(profile_call(lambda: executor(*args, **kwargs), runs, device))
        return executor(*args, **kwargs)

    model = transformer(size, "bf16").clone()
    model.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "profile", profiled)
    with torch.inference_mode():
        sampling(model, size, 1).run()
    return found[0]


def profile_call(call: Callable[[], Any], runs: int, device: torch.device) -> Profile:
    gpu = device.type == "cuda"
    call()
    peak = matmul_peak(device, 8192, torch.bfloat16) if gpu else matmul_peak(device)
    taken = seconds(lambda: [call() for _ in range(runs)], device) / runs
    with flop_counter() as counter:
        call()
    operations: Counter[str] = Counter()
    for operation, count in counter.get_flop_counts()["Global"].items():
        operations[part_of([str(operation).replace(".", "::")])] += count
    with profile(activities=[ProfilerActivity.CPU, *([ProfilerActivity.CUDA] if gpu else [])], acc_events=True) as profiler:
        seconds(lambda: [call() for _ in range(runs)], device)
    parts: defaultdict[str, float] = defaultdict(float)
    for event in profiler.events() or ():
        if event.device_type == DeviceType.CPU:
            own = event.self_device_time_total if gpu else event.self_cpu_time_total
            parts[part_of(names(event))] += own / 1e6 / runs
    parts[BETWEEN] = max(0.0, taken - sum(parts.values()))
    return Profile(taken, parts, operations, peak)


def names(event: FunctionEvent) -> list[str]:
    """The event's and those of what it was called by."""
    found, at = [], event
    while at is not None:
        found.append(at.name)
        at = at.cpu_parent
    return found


def part_of(chain: list[str]) -> str:
    belongs = (part for part, marks in PARTS.items() if any(mark in name for name in chain for mark in marks))
    return next(belongs, OTHERS)


if __name__ == "__main__":
    sys.exit(main())
