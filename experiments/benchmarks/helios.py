"""Our Helios against ComfyUI's Wan, of the same width and depth, on as many tokens: `python3 scripts/bench.py helios`.

Helios adds history to Wan: two rows of modulation, rotary phases of its own for each kernel, and blocks in which only the
generated tokens see the prompt. That must not make a call slower than Wan's on as many tokens. Both are in one process, with
random weights, and take turns; the figure is the ratio of the medians.
"""

from __future__ import annotations

import argparse
import math
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from experiments.benchmarks.speed import GEOMETRIC_MEAN_BOUND, SINGLE_BOUND, interleaved, machine
from scripts.support.pack import load_comfyui


@dataclass(frozen=True)
class Size:
    """Latent height and width of the video, how often a stage halves them, and a transformer whose heads are 128 wide."""

    height: int
    width: int
    dim: int
    layers: int
    halved: int = 0

    @property
    def target(self) -> tuple[int, int]:
        return self.height >> self.halved, self.width >> self.halved

    @property
    def transformer(self) -> dict[str, int]:
        """As both classes take it; the feed-forward is 2.7 times as wide as the rest, as in the released models."""
        return {
            "dim": self.dim,
            "ffn_dim": 27 * self.dim // 10,
            "num_heads": self.dim // 128,
            "num_layers": self.layers,
            "text_dim": TEXT_WIDTH,
        }


SIZES = (Size(16, 24, 256, 3), Size(16, 24, 512, 3), Size(32, 48, 256, 2, halved=1))
RELEASED = Size(48, 80, 5120, 40)  # too large for a CPU
TEXT_TOKENS, TEXT_WIDTH, PATCH = 64, 512, 2
HISTORY = 27  # latent frames that there are already


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--runs", type=int, default=9, help="interleaved runs of each pair")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    load_comfyui(options.comfyui, cpu=not gpu)
    device = torch.device("cuda" if gpu else "cpu")
    print(f"{machine(device)}, torch {torch.__version__}, medians of {options.runs} interleaved runs")
    return 0 if compare(options.runs, (*SIZES, RELEASED) if gpu else SIZES, device) else 1


def compare(runs: int, sizes: Sequence[Size], device: torch.device) -> bool:
    """Print a line per size and return whether the bounds hold."""
    print(f"  {'size':<28}{'Helios/Wan':>12}{'Helios':>10}{'Wan':>10}")
    ratios = []
    for size in sizes:
        ours, theirs, tokens = pair(size, device)
        times = [statistics.median(series) for series in interleaved(runs, ours, theirs, device)]
        ratios.append(times[0] / times[1])
        name = f"{tokens} tokens, {size.dim} wide"
        print(f"  {name:<28}{ratios[-1]:>12.3f}{times[0]:>9.3f}s{times[1]:>9.3f}s", flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(
        f"  geometric mean {mean:.3f} (bound {GEOMETRIC_MEAN_BOUND:.2f}), largest {max(ratios):.3f} (bound {SINGLE_BOUND:.2f})"
    )
    return mean <= GEOMETRIC_MEAN_BOUND and max(ratios) <= SINGLE_BOUND


def pair(size: Size, device: torch.device) -> tuple[Callable[[], Tensor], Callable[[], Tensor], int]:
    """(a call of Helios with a full history, one of Wan on a video of as many tokens, their number)."""
    from comfy.ldm.wan.model import WanModel

    from framepack_core.comfyui.model.helios.transformer import HeliosTransformer

    dtype = torch.bfloat16 if device.type == "cuda" else torch.float32
    helios, wan = (made(kind, size, dtype, device) for kind in (HeliosTransformer, WanModel))
    stage = staged(size, helios.axes).to(device)
    tokens = stage.tokens + math.prod(stage.size)
    text = torch.randn(1, TEXT_TOKENS, TEXT_WIDTH).to(device, dtype)
    timestep = torch.tensor([700.0], device=device)
    history = [latents.to(device, dtype) for latents in stage.latents]
    noise = torch.randn(1, 16, 9, *size.target).to(device, dtype)
    video = torch.randn(1, 16, tokens, PATCH, PATCH).to(device, dtype)  # a token a frame: any shape costs the same

    @torch.inference_mode()
    def ours() -> Tensor:
        return helios(noise, timestep, text, packed=stage, history_latents=history)

    @torch.inference_mode()
    def theirs() -> Tensor:
        return wan(video, timestep, text)

    for call, given in ((ours, noise), (theirs, video)):
        out = call()
        assert out.shape == given.shape and out.isfinite().all()
    return ours, theirs, tokens


def made(kind: type[nn.Module], size: Size, dtype: torch.dtype, device: torch.device) -> Any:
    """A transformer with random weights, whose layers are as ComfyUI makes them where no weight has to be moved or cast."""
    import comfy.ops

    model = kind(**size.transformer, dtype=dtype, device=device, operations=comfy.ops.disable_weight_init)
    for weight in model.parameters():
        nn.init.normal_(weight, std=0.02)
    return model.eval().requires_grad_(False)


def staged(size: Size, axes: Sequence[int]) -> Any:
    """What a chunk in the middle of a video sees, for one of its stages."""
    from framepack_core.comfyui.model.helios.conditions import PackedStage
    from framepack_core.helios.chunks import WINDOW, plan_of
    from framepack_core.packing import gather
    from framepack_core.timeline import Timeline

    latents = torch.randn(1, 16, HISTORY + WINDOW, size.height, size.width)
    timeline = Timeline(latents, set(range(HISTORY)))
    return PackedStage(gather(plan_of(1).bind(timeline)[0], timeline), (size.height, size.width), size.target, axes)


if __name__ == "__main__":
    sys.exit(main())
