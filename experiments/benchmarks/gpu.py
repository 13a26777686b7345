"""The released transformer on a real card, with random weights. Run by `scripts/bench.py gpu`.

Seconds a step at 640x608 and their share of the card's peak, the memory of sampling and decoding on cards of 6, 8 and 12 GB,
and a video of 60 seconds, whose calls must need the same memory at its beginning, middle and end.

Each part runs in a process of its own. A smaller card is made of this one: this process takes the rest of the memory, so that
the driver tells ComfyUI what a smaller card would, and torch is told the same limit.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from framepack_core.plan import Plan
from scripts.support.doctor.expectation import FPS, STEPS, WINDOW, duration
from scripts.support.environment import ROOT

if TYPE_CHECKING:
    from scripts.support.trial import Format, Size

CAPS = (6.0, 8.0, 12.0)  # GiB
FRAMES = 1800
SIDE = 8192  # of the matrices whose product is the card's peak
TOLERANCE = 0.01  # by which the memory of two equal calls may differ

Part = Callable[..., dict[str, Any]]  # "speed", or "capped" with a cap; its result as plain values


@dataclass(frozen=True)
class Call:
    """A call in one section of the long video, counted from 1; bytes of torch's tensors."""

    section: int
    tokens: int
    memory: int | None


@dataclass(frozen=True)
class Speed:
    """Seconds of steps after the first, and of decoding a section; operations of a step; operations a second of a product."""

    seconds: tuple[float, ...]
    decode: float
    operations: float
    peak: float
    calls: tuple[Call, ...]

    @property
    def step(self) -> float:
        return statistics.median(self.seconds)

    @property
    def share(self) -> float:
        """What the step reaches of the peak."""
        return self.operations / self.step / self.peak

    @property
    def constant(self) -> bool:
        """Whether the calls of the long video take the same memory."""
        found = [call.memory for call in self.calls if call.memory is not None]
        return len({call.tokens for call in self.calls}) == 1 and (not found or max(found) <= (1 + TOLERANCE) * min(found))


@dataclass(frozen=True)
class Capped:
    """A section and its decode on a card of `cap` GiB: the most in use on it in bytes, seconds, or why it does not run."""

    cap: float
    sampling: float = 0.0
    decoding: float = 0.0
    step: float = 0.0
    decode: float = 0.0
    error: str = ""


def main() -> int:
    options = arguments()
    if options.part:
        print(json.dumps(asdict(run_part(options))))
        return 0
    import torch

    if not torch.cuda.is_available():
        sys.exit("framepack: torch sees no CUDA or ROCm card here; run this benchmark on a computer with one")
    card = f"{torch.cuda.get_device_name()}, {torch.cuda.get_device_properties(0).total_memory / 2**30:.1f} GiB"
    print(f"{card}, torch {torch.__version__}, random weights in {options.format}", flush=True)
    return report(*measured(options.caps, in_a_process(options)))


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.py gpu", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5, help="steps in a median (default: %(default)s)")
    parser.add_argument("--caps", type=float, nargs="*", default=CAPS, help="GiB of the smaller cards (default: %(default)s)")
    parser.add_argument("--format", choices=("bf16", "fp8"), default="fp8", help="of the weights (default: %(default)s)")
    parser.add_argument("--part", choices=("speed", "capped"), help=argparse.SUPPRESS)
    parser.add_argument("--cap", type=float, default=0.0, help=argparse.SUPPRESS)
    return parser.parse_args()


def report(speed: Speed, capped: Iterable[Capped]) -> int:
    """Print each part when it is measured; returns 1 if the memory of the long video grows, or a card is too small."""
    print("\n".join([*speed_lines(speed), "", *long_video_lines(speed)]), flush=True)
    good = speed.constant
    print("\n| card | sampling: GB, seconds a step | decoding: GB, seconds a section |\n| ---: | ---: | ---: |", flush=True)
    for found in capped:
        print(capped_line(found), flush=True)
        good = good and not found.error
    return int(not good)


def speed_lines(speed: Speed) -> list[str]:
    return [
        f"a step at 640x608, window {WINDOW}: {speed.step:.2f} s, the median of {len(speed.seconds)}",
        f"a product of {SIDE}x{SIDE} matrices in bf16: {speed.peak / 1e12:.0f} TFLOP/s",
        f"share of that: {speed.share:.0%}, since a step is {speed.operations / 1e12:.0f} TFLOP",
        f"decoding a section: {speed.decode:.1f} s",
    ]


def capped_line(found: Capped) -> str:
    if found.error:
        return f"| {found.cap:g} GiB | {found.error} | |"
    sampling = f"{found.sampling / 1e9:.1f}, {found.step:.2f}"
    return f"| {found.cap:g} GiB | {sampling} | {found.decoding / 1e9:.1f}, {found.decode:.1f} |"


def long_video_lines(speed: Speed) -> list[str]:
    sections = long_video().sections
    predicted = sections * (STEPS * speed.step + speed.decode)
    cells = (f"{call.section}: {call.tokens}, {'not measured' if call.memory is None else f'{call.memory / 1e9:.2f} GB'}"
             for call in speed.calls)  # fmt: skip
    return [
        f"a video of {FRAMES} frames: {sections} sections, {duration(predicted)} at {STEPS} steps, predicted",
        f"tokens and memory of a call, by section: {'; '.join(cells)}: {'constant' if speed.constant else 'NOT CONSTANT'}",
    ]


# Parts


def measured(caps: Sequence[float], part: Part) -> tuple[Speed, Iterator[Capped]]:
    """The speed, and the smaller cards, which are measured one by one as they are asked for."""
    found = part("speed")
    speed = Speed(**{**found, "seconds": tuple(found["seconds"]), "calls": tuple(Call(**call) for call in found["calls"])})
    return speed, (Capped(**part("capped", cap)) for cap in caps)


def in_a_process(options: argparse.Namespace) -> Part:
    """Runs a part in a process of its own; a capped one while this process holds the rest of the card."""

    def part(name: str, cap: float = 0.0) -> dict[str, Any]:
        import torch

        free, total = torch.cuda.mem_get_info()
        rest = max(0, free - int(cap * 2**30)) if cap else 0
        if cap and free < cap * 2**30:
            return asdict(Capped(cap, error=f"this card has only {free / 2**30:.1f} GiB free"))
        held = torch.empty(rest, dtype=torch.uint8, device="cuda")
        before = total - torch.cuda.mem_get_info()[0]
        module = ["-m", "experiments.benchmarks.gpu", str(options.comfyui)]
        choices = ["--runs", str(options.runs), "--format", options.format, "--part", name, "--cap", str(cap)]
        done = subprocess.run([sys.executable, *module, *choices], cwd=ROOT, stdout=subprocess.PIPE, text=True)
        del held
        torch.cuda.empty_cache()
        if done.returncode:
            raise SystemExit(f"framepack: the part {name} ended with status {done.returncode}; see above")
        return without(json.loads(done.stdout.splitlines()[-1]), before)

    return part


def without(found: dict[str, Any], before: int) -> dict[str, Any]:
    """The result of a part less the bytes that others, this process among them, had in use on the card before it."""
    return found | {key: max(0.0, found[key] - before) for key in ("sampling", "decoding") if found.get(key)}


def run_part(options: argparse.Namespace) -> Speed | Capped:
    from scripts.support.pack import start_comfyui

    start_comfyui(options.comfyui)
    import torch

    from scripts.support.trial import RELEASED

    if options.part == "speed":
        return speed_of(RELEASED, options.format, options.runs, SIDE)
    total = torch.cuda.get_device_properties(0).total_memory
    torch.cuda.set_per_process_memory_fraction(min(1.0, options.cap * 2**30 / total))
    return capped_of(RELEASED, options.format, options.runs, options.cap)


def speed_of(size: Size, format: Format, runs: int, side: int) -> Speed:
    """ComfyUI must be loaded."""
    import comfy.model_management
    import torch

    from experiments.benchmarks.speed import matmul_peak
    from scripts.support import trial

    plan = long_video()
    sections = plan.fill(1 + plan.generated)
    model = trial.transformer(size, format)
    seconds = trial.sample_section(model, size, 1 + runs).seconds[1:]
    peak = matmul_peak(comfy.model_management.get_torch_device(), side, torch.bfloat16)
    calls = []
    for number in (0, len(sections) // 2, len(sections) - 1):
        section = sections[number]
        tokens = section.target_tokens(size.height, size.width) + section.context_tokens(size.height, size.width)
        calls.append(Call(number + 1, tokens, trial.sample_section(model, size, 1, plan, number).torch))
    decode = sum(trial.decode_section(trial.video_vae(), size).seconds)
    return Speed(seconds, decode, trial.operations(size, sections[0]), peak, tuple(calls))


def capped_of(size: Size, format: Format, runs: int, cap: float) -> Capped:
    """ComfyUI must be loaded, on a card of this size or one that seems to be."""
    from scripts.support.doctor.running import run

    found = run(size, format, runs)
    if not (found.sampling and found.decoding and found.step and found.decode):
        return Capped(cap, error=f"{found.findings[-1].what} {found.findings[-1].value}")
    return Capped(cap, found.sampling.card or 0.0, found.decoding.card or 0.0, found.step, found.decode)


def long_video() -> Plan:
    return Plan.of(FRAMES / FPS, "inverted", WINDOW, fps=FPS)


if __name__ == "__main__":
    sys.exit(main())
