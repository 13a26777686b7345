"""Our transformer against diffusers', and our sampler against its transformer calls. Run by scripts/bench.py."""

from __future__ import annotations

import argparse
import math
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import torch
from torch.utils.flop_counter import FlopCounterMode, sdpa_flop

from experiments.benchmarks.live import LiveBytes
from scripts.support.pack import load_comfyui


@dataclass(frozen=True)
class Size:
    """A latent size and a transformer, whose heads are 128 wide."""

    name: str
    height: int
    width: int
    hidden: int
    double: int
    single: int
    dtype: torch.dtype = torch.float32

    @property
    def tolerance(self) -> float:
        """Largest relative difference between the two sides; beyond it they do not compute the same thing."""
        return 1e-3 if self.dtype == torch.float32 else 5e-2


TRANSFORMER_SIZES = (
    Size("0.9k tokens", 16, 20, 256, 3, 6),
    Size("1.8k tokens", 24, 26, 512, 3, 6),
    Size("4.8k tokens", 40, 42, 768, 3, 6),
)
SECTION_SIZE = Size("section", 24, 24, 512, 3, 6)
RELEASED_SIZE = Size("released", 76, 80, 3072, 20, 40, torch.bfloat16)
TEXT_TOKENS, TEXT_WIDTH, IMAGE_TOKENS, IMAGE_WIDTH = 64, 512, 32, 128
AXES, THETA = (16, 56, 56), 256
STEPS = 25
SHARED_STEPS, CACHED_STEPS = 3, 5
GEOMETRIC_MEAN_BOUND, SINGLE_BOUND, SECTION_BOUND = 1.00, 1.05, 1.05
CACHE_TOLERANCE = 0.05


def main() -> int:
    parser = argparse.ArgumentParser()
    parser.add_argument("comfyui", type=Path)
    parser.add_argument("--runs", type=int, default=9, help="interleaved runs of each pair")
    parser.add_argument("--depth", type=int, nargs=2, default=(20, 40), help="double and single blocks on a card")
    options = parser.parse_args()
    gpu = torch.cuda.is_available()
    load_comfyui(options.comfyui, cpu=not gpu)
    be_quiet()
    device = torch.device("cuda" if gpu else "cpu")
    print(
        f"{machine(device)}, torch {torch.__version__}, float32, ComfyUI's default flags, "
        f"median of {options.runs} interleaved runs"
    )
    peak = matmul_peak(device)
    print(f"matmul peak {peak / 1e9:.0f} GFLOP/s\n")
    print("one transformer call, ours against diffusers': same weights, same inputs")
    within = transformer_calls(options, TRANSFORMER_SIZES, device, peak)
    if gpu:
        double, single = options.depth
        print(f"the released width, {double} and {single} blocks, random weights, bfloat16, 640x608 pixels")
        released = replace(RELEASED_SIZE, double=double, single=single)
        transformer_calls(options, [released], device, matmul_peak(device, 8192, torch.bfloat16))
    within &= section_overhead(device)
    within &= shared_modulations(options.runs, device)
    within &= cache_memory()
    return 0 if within else 1


def be_quiet() -> None:
    import comfy.utils
    from diffusers.utils import logging

    comfy.utils.set_progress_bar_enabled(False)
    logging.set_verbosity_error()


def transformer_calls(options: argparse.Namespace, sizes: Sequence[Size], device: torch.device, peak: float) -> bool:
    """Print a line per size and return whether the bounds hold."""
    print(f"  {'size':<24}{'ours/diffusers':>16}{'ours':>10}{'diffusers':>11}{'% of peak':>16}{'peak MB':>12}")
    ratios = []
    for size in sizes:
        ours, theirs, tokens = pair(size, device)
        times = interleaved(options.runs, ours, theirs, device)
        ratio = statistics.median(a / b for a, b in zip(*times, strict=True))
        ratios.append(ratio)
        seconds = [statistics.median(series) for series in times]
        work = flops(theirs)
        shares = "/".join(f"{100 * work / second / peak:.0f}" for second in seconds)
        memory = "/".join(f"{peak_memory(call):.0f}" for call in (ours, theirs))
        name = f"{tokens} tokens, {size.hidden} wide"
        print(f"  {name:<24}{ratio:>16.3f}{seconds[0]:>9.3f}s{seconds[1]:>10.3f}s{shares:>16}{memory:>12}", flush=True)
    mean = math.exp(statistics.fmean(map(math.log, ratios)))
    print(
        f"  geometric mean {mean:.3f} (bound {GEOMETRIC_MEAN_BOUND:.2f}), "
        f"largest {max(ratios):.3f} (bound {SINGLE_BOUND:.2f})\n"
    )
    return mean <= GEOMETRIC_MEAN_BOUND and max(ratios) <= SINGLE_BOUND


def unchanged(model: Any) -> Any:
    return model


def sampling_run(
    size: Size, steps: int, length: float, patched: Callable[[Any], Any] = unchanged
) -> tuple[Any, Callable[[], torch.Tensor]]:
    """A model, and a run of its sampler node for a video of so many seconds, with what `patched` makes of the model; the run
    returns latents."""
    from framepack_core.comfyui.sampling.request import Given, Request, make_guider
    from framepack_core.comfyui.sampling.sample import sample
    from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
    from framepack_core.plan import Plan

    patcher = load_ours(build_diffusers(size), size)
    inputs, _, _ = make_inputs(size, torch.device("cpu"))
    conditioning = [[inputs["text"], {"pooled_output": inputs["pooled"]}]]

    def run() -> torch.Tensor:
        plan = Plan.of(length)
        guider, sampler = make_guider(patched(patcher), conditioning, None, 1.0, 10.0), sampler_named("unipc_bh1")
        timeline = Given({"samples": torch.zeros(1, 16, 1, size.height, size.width)}).timeline(plan)
        sections = plan.bind(timeline)
        sigmas = section_sigmas(sections, timeline, steps, 0.0)
        embedding = {"last_hidden_state": inputs["image"]}
        return sample(Request(guider, sampler, plan, timeline, sections, sigmas, 0, embedding), say=lambda text: None).latents

    return patcher, run


def section_overhead(device: torch.device) -> bool:
    """One section through the sampler node's path against the transformer calls inside it."""
    from scripts.support.trial import Stopwatch

    patcher, section = sampling_run(SECTION_SIZE, STEPS, 1.2)
    calls = Stopwatch(patcher.model.diffusion_model)
    ratios = []
    for _ in range(3):
        calls.seconds.clear()
        ratios.append(seconds(section, device) / sum(calls.seconds))
        assert len(calls.seconds) == STEPS
    ratio = statistics.median(ratios)
    size = SECTION_SIZE
    print(f"one section through the sampler against the sum of its {STEPS} transformer calls")
    print(f"  {size.hidden} wide, latent {size.height}x{size.width}: {ratio:.3f} (bound {SECTION_BOUND:.2f})\n")
    return ratio <= SECTION_BOUND


def shared_modulations(runs: int, device: torch.device) -> bool:
    """Two sections that may share modulations against two in which all layers compute at every step."""
    from experiments.card.steps import unshared
    from framepack_core.comfyui.model import modulation

    _, run = sampling_run(SECTION_SIZE, SHARED_STEPS, 2.4)

    def computed() -> torch.Tensor:
        with unshared():
            return run()

    def remembered() -> torch.Tensor:
        with patch.object(modulation, "all_there", lambda layers, device: False):
            return run()

    print(
        f"two sections of {SHARED_STEPS} steps that may share modulations against two in which all layers compute at every step"
    )
    within = True
    for name, shared in (("weights on the device", run), ("as if they were not", remembered)):
        same = torch.equal(shared(), computed())
        ratio = statistics.median(a / b for a, b in zip(*interleaved(runs, shared, computed, device), strict=True))
        print(f"  {name}: {ratio:.3f} (bound {SECTION_BOUND:.2f}), {'the same' if same else 'OTHER'} bits")
        within &= same and ratio <= SECTION_BOUND
    print()
    return within


def cache_memory() -> bool:
    """What a section keeps for FramePack Cache while the transformer is called, against two velocities in float32."""
    from framepack_core.caching import Skipping
    from framepack_core.comfyui.sampling.cache import with_cache

    def peak(patched: Callable[[Any], Any]) -> float:
        _, run = sampling_run(SECTION_SIZE, CACHED_STEPS, 1.2, patched)
        return peak_memory(run)

    def cached(model: Any) -> Any:
        return with_cache(model, "easycache", Skipping(threshold=0.0), lambda cache: None)

    kept = peak(cached) - peak(unchanged)
    computed = 2 * 4 * 16 * 9 * SECTION_SIZE.height * SECTION_SIZE.width / 1e6
    print(f"FramePack Cache keeps {kept:.2f} MB in a section, two velocities are {computed:.2f} MB")
    return abs(kept - computed) <= CACHE_TOLERANCE * computed


def pair(size: Size, device: torch.device) -> tuple[Callable[[], torch.Tensor], Callable[[], torch.Tensor], int]:
    """(our call, diffusers' call, tokens)."""
    oracle = build_diffusers(size)
    model = load_ours(oracle, size).model.diffusion_model
    torch.nn.Module.to(oracle, device)
    inputs, context, packed = make_inputs(size, device)
    section = context.section
    tokens = section.target_tokens(size.height, size.width) + section.context_tokens(size.height, size.width)

    def ours() -> torch.Tensor:
        return call_ours(model, inputs, packed)

    def theirs() -> torch.Tensor:
        return call_diffusers(oracle, inputs, context)

    error = (ours() - theirs()).float().norm() / theirs().float().norm()
    assert error < size.tolerance, f"the two sides compute different things: relative error {error:.1e}"
    return ours, theirs, tokens + TEXT_TOKENS + IMAGE_TOKENS


def build_diffusers(size: Size):
    from diffusers import HunyuanVideoFramepackTransformer3DModel

    torch.manual_seed(0)
    torch.set_default_dtype(size.dtype)
    transformer = HunyuanVideoFramepackTransformer3DModel(
        num_attention_heads=size.hidden // 128,
        num_layers=size.double,
        num_single_layers=size.single,
        text_embed_dim=TEXT_WIDTH,
        has_image_proj=True,
        image_proj_dim=IMAGE_WIDTH,
        has_clean_x_embedder=True,
    )
    torch.set_default_dtype(torch.float32)
    return transformer.eval().requires_grad_(False)


def load_ours(oracle, size: Size):
    """Our MODEL with the oracle's weights, loaded onto the device as ComfyUI loads it."""
    import comfy.model_management
    import comfy.sd

    from framepack_core.weights import names

    weights = names.to_comfy(dict(oracle.state_dict()))
    patcher = comfy.sd.load_diffusion_model_state_dict(weights, {"dtype": size.dtype})
    comfy.model_management.load_models_gpu([patcher], force_full_load=True)
    return patcher


def make_inputs(size: Size, device: torch.device):
    """(tensors, context, packed context) of the second section of an inverted video."""
    from framepack_core.comfyui.model.framepack import PackedContext
    from framepack_core.packing import Context, gather
    from framepack_core.plan import Plan
    from framepack_core.timeline import Timeline

    torch.manual_seed(1)
    plan = Plan.of(5.0)
    timeline = Timeline(torch.randn(1, 16, 1 + plan.generated, size.height, size.width), set(range(1 + plan.generated)))
    context = gather(plan.fill(timeline.frames)[1], timeline)
    latents = tuple(latents.to(device, size.dtype) for latents in context.latents)
    tensors = {
        "x": torch.randn(1, 16, plan.window, size.height, size.width),
        "text": torch.randn(1, TEXT_TOKENS, TEXT_WIDTH),
        "pooled": torch.randn(1, 768),
        "image": torch.randn(1, IMAGE_TOKENS, IMAGE_WIDTH),
        "mask": torch.ones(1, TEXT_TOKENS),
    }
    inputs = {name: tensor.to(device, size.dtype) for name, tensor in tensors.items()}
    inputs |= {"timestep": torch.tensor([700.0], device=device), "guidance": torch.tensor([10.0], device=device)}
    context = Context(context.section, latents)
    return inputs, context, PackedContext(context, size.height, size.width, AXES, THETA).to(device)


def call_ours(model, inputs: dict, packed) -> torch.Tensor:
    with torch.inference_mode():
        return model(
            inputs["x"],
            inputs["timestep"],
            inputs["text"],
            y=inputs["pooled"],
            clip_fea=inputs["image"],
            guidance=inputs["guidance"],
            packed=packed,
            context_latents=list(packed.latents),
        )


def call_diffusers(model, inputs: dict, context) -> torch.Tensor:
    four, two, start, newest = context.section.context
    latents = context.latents
    with torch.inference_mode():
        return model(
            hidden_states=inputs["x"],
            timestep=inputs["timestep"],
            encoder_hidden_states=inputs["text"],
            encoder_attention_mask=inputs["mask"],
            pooled_projections=inputs["pooled"],
            image_embeds=inputs["image"],
            indices_latents=torch.tensor(context.section.indices),
            guidance=inputs["guidance"] * 1000,
            latents_clean=torch.cat(latents[2:], dim=2),
            indices_latents_clean=torch.tensor([*start.indices, *newest.indices]),
            latents_history_2x=latents[1],
            indices_latents_history_2x=torch.tensor(two.indices),
            latents_history_4x=latents[0],
            indices_latents_history_4x=torch.tensor(four.indices),
            return_dict=False,
        )[0]


def interleaved(runs: int, a: Callable, b: Callable, device: torch.device) -> tuple[list[float], list[float]]:
    """Times of `a` and `b` in turn, after a warm-up of each; they alternate in going first."""
    times: tuple[list[float], list[float]] = ([], [])
    a()
    b()
    for run in range(runs):
        for side in (0, 1) if run % 2 == 0 else (1, 0):
            times[side].append(seconds((a, b)[side], device))
    return times


def seconds(call: Callable, device: torch.device) -> float:
    synchronise(device)
    start = time.perf_counter()
    call()
    synchronise(device)
    return time.perf_counter() - start


def synchronise(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize()


def matmul_peak(device: torch.device, side: int = 2048, dtype: torch.dtype = torch.float32) -> float:
    """FLOP/s of the fastest of several square products."""
    a, b = (torch.randn(side, side, device=device, dtype=dtype) for _ in range(2))
    best = min(seconds(lambda: a @ b, device) for _ in range(12))
    return 2 * side**3 / best


def flops(call: Callable) -> int:
    """Operations of all products."""
    with flop_counter() as counter:
        call()
    return counter.get_total_flops()


def flop_counter() -> FlopCounterMode:
    """Torch's, which does not know its own CPU attention."""
    cpu_attention = torch.ops.aten._scaled_dot_product_flash_attention_for_cpu
    return FlopCounterMode(display=False, custom_mapping={cpu_attention: _attention_flops})


def _attention_flops(query, key, value, *_, **__) -> int:
    return sdpa_flop(query, key, value)


def peak_memory(call: Callable[[], torch.Tensor]) -> float:
    """MB of the tensors that a call makes and holds at once."""
    with LiveBytes() as live:
        call()
    return live.peak / 1e6


def machine(device: torch.device) -> str:
    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    return f"CPU, {torch.get_num_threads()} threads"


if __name__ == "__main__":
    sys.exit(main())
