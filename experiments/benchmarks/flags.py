"""ComfyUI's ways to compute faster, on this machine. Run by `scripts/bench.py flags`.

Each way is a process of its own, started with ComfyUI's flags, which samples a section with a transformer of the released
width and random weights: seconds a step, and how far the first step's velocity is from float32's, for the same weights in
bf16 and the same inputs. A step takes as long as its blocks, nearly, of which the released transformer has 20 and 40. The
next processes load their model while one measures, and wait for their turn. A way that cannot be had here is listed with the
reason.
"""

from __future__ import annotations

import argparse
import importlib.util
import itertools
import json
import logging
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from scripts.support.environment import ROOT

if TYPE_CHECKING:
    from torch import Tensor

    from scripts.support.trial import Format, Size

WARM_UP = 2  # steps that are not counted: the first ones fetch weights and choose or compile kernels
DEPTH = (4, 8)
READY, GO = "ready", "go\n"


@dataclass(frozen=True)
class Way:
    """A way to run the model: ComfyUI's flags, the format of the weights, and the package that it needs."""

    name: str
    flags: tuple[str, ...] = ()
    format: Format = "bf16"
    package: str = ""
    compiled: bool = False  # by the node TorchCompileModel


EXACT = Way("float32", ("--fp32-unet",))  # a single step, since it takes so long
PLAIN = Way("default")
WAYS = (
    PLAIN,
    EXACT,
    Way("classic patcher", ("--disable-dynamic-vram",)),
    Way("SageAttention", ("--use-sage-attention",), package="sageattention"),
    Way("FlashAttention", ("--use-flash-attention",), package="flash_attn"),
    Way("xformers", (), package="xformers"),
    Way("fp16", ("--fp16-unet",)),
    Way("fp16, accumulated in fp16", ("--fp16-unet", "--fast", "fp16_accumulation")),
    Way("bf16 beside fp16 accumulation", ("--fast", "fp16_accumulation")),
    Way("fp16, cuBLAS", ("--fp16-unet", "--fast", "cublas_ops"), package="cublas_ops"),
    Way("fp8 weights", (), "fp8"),
    Way("fp8 products", ("--fast", "fp8_matrix_mult"), "fp8"),
    Way("compiled", ("--disable-dynamic-vram",), compiled=True),
    Way("compiled, fp8 products", ("--disable-dynamic-vram", "--fast", "fp8_matrix_mult"), "fp8", compiled=True),
)


@dataclass(frozen=True)
class Found:
    """Seconds of the counted steps, the file of the first step's velocity, seconds of what came before, and what was logged."""

    seconds: tuple[float, ...]
    velocity: str
    begun: float
    notes: tuple[str, ...] = ()

    @property
    def step(self) -> float:
        return statistics.median(self.seconds)


Result = Found | str  # or why there is none


def main() -> int:
    options = arguments()
    if options.one:
        print(json.dumps(asdict(measure(options))), flush=True)
        return 0
    ways = [way for way in WAYS if not options.only or way.name in options.only]
    print(heading(options), flush=True)
    with TemporaryDirectory() as folder:
        results = {}
        for way, result in in_turn(ways, options, Path(folder)):
            results[way] = result
            print(f"  {way.name}: {result if isinstance(result, str) else f'{result.step:.3f} s'}", flush=True)
        print("\n".join(["", *table(results)]), flush=True)
    return 0 if any(isinstance(result, Found) for result in results.values()) else 1


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="scripts/bench.py flags", description=__doc__)
    parser.add_argument("comfyui", type=Path, help=argparse.SUPPRESS)
    parser.add_argument("--runs", type=int, default=5, help="steps in a median (default: %(default)s)")
    parser.add_argument("--depth", type=int, nargs=2, default=DEPTH, help="double and single blocks (default: %(default)s)")
    parser.add_argument("--ahead", type=int, default=1, help="processes that load while one measures (default: %(default)s)")
    parser.add_argument("--small", action="store_true", help="a tiny transformer, which any computer runs")
    names = [way.name for way in WAYS]
    parser.add_argument("--only", nargs="*", choices=names, default=[], metavar="WAY", help=f"only these: {', '.join(names)}")
    parser.add_argument("--one", choices=names, help=argparse.SUPPRESS)
    parser.add_argument("--cpu", action="store_true", help=argparse.SUPPRESS)
    parser.add_argument("--velocity", type=Path, help=argparse.SUPPRESS)
    return parser.parse_args()


def heading(options: argparse.Namespace) -> str:
    import torch

    card = torch.cuda.get_device_name() if torch.cuda.is_available() else "CPU"
    double, single = options.depth
    size = "a tiny transformer" if options.small else f"{double} and {single} blocks of the released width at 640x608"
    return f"{card}, torch {torch.__version__}, {size}, median of {options.runs} steps after {WARM_UP}"


def table(results: dict[Way, Result]) -> list[str]:
    """In the order of the results; ratios and differences are to the default and to float32, if they were measured."""
    plain, exact = results.get(PLAIN), results.get(EXACT)
    lines = ["| way | flags | weights | s a step | ratio | off from float32 | off from default | |", "| --- " * 8 + "|"]
    for way, result in results.items():
        flags = " ".join(f"`{flag}`" for flag in [" ".join(way.flags)] if flag)
        cells = [way.name, flags, way.format]
        if isinstance(result, str):
            lines.append(f"| {' | '.join([*cells, '', '', '', '', result])} |")
            continue
        ratio = f"{result.step / plain.step:.2f}" if isinstance(plain, Found) else ""
        offs = [f"{off(result, other):.1e}" if isinstance(other, Found) else "" for other in (exact, plain)]
        notes = "; ".join([f"{result.begun:.0f} s before", *result.notes])
        lines.append(f"| {' | '.join([*cells, f'{result.step:.3f}', ratio, *offs, notes])} |")
    return lines


def off(found: Found, other: Found) -> float:
    """The relative difference of the first steps' velocities."""
    import torch

    one, two = (torch.load(result.velocity) for result in (found, other))
    return float((one - two).norm() / two.norm())


# Processes


def in_turn(ways: Sequence[Way], options: argparse.Namespace, folder: Path) -> Iterator[tuple[Way, Result]]:
    """Each way's result when it is there. The processes of the next ways are started meanwhile, and wait for their turn."""
    processes: list[Process | str] = []
    try:
        for number, way in enumerate(ways):
            for coming in ways[len(processes) : number + 1 + options.ahead]:
                processes.append(lacking(coming) or Process(coming, options, folder / f"{len(processes)}.pt"))
            process = processes[number]
            yield way, process if isinstance(process, str) else process.result()
    finally:
        for process in processes:
            if isinstance(process, Process):
                process.end()


def lacking(way: Way) -> str:
    """Why a way cannot be had, if a package is missing."""
    missing = way.package and importlib.util.find_spec(way.package) is None
    return f"not there: the package {way.package} is not installed" if missing else ""


class Process:
    """A way's process, which loads its model at once and measures when its result is asked for."""

    def __init__(self, way: Way, options: argparse.Namespace, velocity: Path) -> None:
        import torch

        self.log = velocity.with_suffix(".log")
        module = [sys.executable, "-m", "experiments.benchmarks.flags", str(options.comfyui), "--one", way.name]
        choices = ["--runs", str(options.runs), "--depth", *map(str, options.depth), "--velocity", str(velocity)]
        kind = [*(["--small"] if options.small else []), *([] if torch.cuda.is_available() else ["--cpu"])]
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [*module, *choices, *kind],
                cwd=ROOT,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                text=True,
            )

    def result(self) -> Result:
        """What the process found, or the last line of its log if it failed."""
        assert self.process.stdin and self.process.stdout
        if any(line.strip() == READY for line in iter(self.process.stdout.readline, "")):
            self.process.stdin.write(GO)
            self.process.stdin.flush()
        lines = self.process.stdout.read().splitlines()
        if self.process.wait():
            said = self.log.read_text().strip().splitlines()
            return f"failed: {said[-1] if said else f'status {self.process.returncode}'}"
        found = json.loads(lines[-1])
        return Found(**{**found, "seconds": tuple(found["seconds"]), "notes": tuple(found["notes"])})

    def end(self) -> None:
        self.process.kill()
        self.process.wait()


# One way


def measure(options: argparse.Namespace) -> Found:
    way = next(way for way in WAYS if way.name == options.one)
    from scripts.support.pack import start_comfyui

    start_comfyui(options.comfyui, [*way.flags, *(["--cpu"] if options.cpu else [])])
    import torch

    from scripts.support.trial import RELEASED, SMALL, transformer

    size = SMALL if options.small else replace(RELEASED, double=options.depth[0], single=options.depth[1])
    said = Warnings.gathered()
    model = transformer(size, way.format)
    if way.compiled:
        model = compiled(model)
    print(READY, flush=True)
    if sys.stdin.readline() != GO:
        sys.exit("the process that started this one has ended")
    begun = time.perf_counter()
    warm_up, runs = (0, 1) if way == EXACT else (WARM_UP, options.runs)
    seconds, velocity = steps(model, size, warm_up + runs)
    torch.save(velocity, options.velocity)
    counted = seconds[warm_up:]
    return Found(counted, str(options.velocity), time.perf_counter() - begun - sum(counted), said.lines())


def compiled(model):
    from comfy_extras.nodes_torch_compile import TorchCompileModel

    return TorchCompileModel.execute(model, "inductor")[0]


def steps(model, size: Size, count: int) -> tuple[tuple[float, ...], Tensor]:
    """Seconds of each of the steps, and the velocity that the first one found.

    A step lasts until the next one begins, so that what the sampler does counts too.
    """
    import comfy.model_management
    import torch
    from comfy.patcher_extension import WrappersMP

    from scripts.support.trial import sampling

    begun: list[float] = []
    velocities: list[Tensor] = []

    def timed(executor, x: Tensor, sigma: Tensor, *args, **kwargs) -> Tensor:
        comfy.model_management.synchronize()
        begun.append(time.perf_counter())
        denoised = executor(x, sigma, *args, **kwargs)
        if not velocities:
            velocities.append(((x - denoised) / sigma.view(-1, 1, 1, 1, 1)).float().cpu())
        return denoised

    watched = model.clone()
    watched.add_wrapper_with_key(WrappersMP.APPLY_MODEL, "flags", timed)
    torch.manual_seed(0)
    with torch.inference_mode():
        sampling(watched, size, count + 1).run()
    return tuple(later - earlier for earlier, later in itertools.pairwise(begun)), velocities[0]


class Warnings(logging.Handler):
    """What ComfyUI warns of, such as attention that falls back to torch's; each line once."""

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._lines: dict[str, None] = {}

    @classmethod
    def gathered(cls) -> Warnings:
        """From now on."""
        handler, logger = cls(), logging.getLogger()
        logger.setLevel(logging.WARNING)
        logger.addHandler(handler)
        return handler

    def emit(self, record: logging.LogRecord) -> None:
        self._lines[record.getMessage().strip().splitlines()[0]] = None

    def lines(self) -> tuple[str, ...]:
        return tuple(self._lines)


if __name__ == "__main__":
    sys.exit(main())
