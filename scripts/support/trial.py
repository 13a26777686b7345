"""One section and its decode with random weights of the released size, through ComfyUI's model management, timed and measured.

Shared by `scripts/doctor.py` and `scripts/bench.py gpu`. ComfyUI must be loaded (see `pack`). Random weights take the same time
and memory as trained ones, and what does not fit on the card is fetched at every step in the same way. Nothing is on disk.
"""

from __future__ import annotations

import math
import re
import threading
import time
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import comfy.model_management
import comfy.sd
import torch
from torch import Tensor, nn

from framepack_core.comfyui import private
from framepack_core.comfyui.decoding.stream import stream_frames
from framepack_core.comfyui.loading.patcher import with_modulations_last
from framepack_core.comfyui.model.framepack import FramePackModel, PackedContext
from framepack_core.comfyui.sampling.denoise import GuiderDenoiser, with_conditions
from framepack_core.comfyui.sampling.request import make_guider
from framepack_core.comfyui.sampling.samplers import sampler_named, section_sigmas
from framepack_core.filling import Section
from framepack_core.packing import Context, gather
from framepack_core.plan import Plan
from framepack_core.timeline import Timeline
from scripts.support.quantising.sizes import HIDDEN, IMAGE, POOLED, TEXT, Shapes, released_shapes

Format = Literal["bf16", "fp8"]
CHANNELS = 16
DEVIATION = 0.02  # of the weights
INTERVAL = 0.02  # seconds between two readings of the card's memory


@dataclass(frozen=True)
class Size:
    """A transformer whose heads are 128 wide, the latent that it samples, the tokens beside it, and the latent frames that
    are decoded: a section and the start image."""

    hidden: int
    double: int
    single: int
    height: int
    width: int
    text: int = 512
    image: int = 729
    decoded: int = 10

    @property
    def pixels(self) -> str:
        return f"{8 * self.width}x{8 * self.height}"


RELEASED = Size(HIDDEN, 20, 40, 76, 80)
SMALL = Size(256, 1, 2, 4, 4, text=16, image=9, decoded=3)


@dataclass(frozen=True)
class Cost:
    """Seconds of each call, and the most memory in use at once, in bytes; None where there is no card to ask.

    `torch` is what torch's allocator gave to tensors. `card` is what the card had in use altogether: the driver, other programs
    and ComfyUI's dynamic VRAM, which torch does not know of, are in it.
    """

    seconds: tuple[float, ...]
    torch: int | None
    card: int | None
    finite: bool = True


# Models


def shapes(size: Size) -> Shapes:
    """The weights of a transformer of this size, in ComfyUI's names."""

    def scaled(dim: int) -> int:
        return dim // HIDDEN * size.hidden if dim % HIDDEN == 0 else dim

    def belongs(key: str) -> bool:
        block = re.match(r"(double|single)_blocks\.(\d+)\.", key)
        return block is None or int(block[2]) < (size.double if block[1] == "double" else size.single)

    return {key: tuple(map(scaled, shape)) for key, shape in released_shapes().items() if belongs(key)}


def dtypes(found: Shapes, format: Format) -> dict[str, torch.dtype]:
    """bf16 throughout, or as in the published fp8 files: matrices in fp8, and modulation, norms and biases in bf16."""
    small = {key for key, shape in found.items() if format == "fp8" and len(shape) == 2 and "mod" not in key}
    return {key: torch.float8_e4m3fn if key in small else torch.bfloat16 for key in found}


def nbytes(size: Size, format: Format) -> int:
    """Bytes of the weights."""
    found = shapes(size)
    return sum(dtype.itemsize * math.prod(found[key]) for key, dtype in dtypes(found, format).items())


def transformer(size: Size, format: Format):
    """A MODEL with random weights. ComfyUI's own loader makes it, and so chooses how they are computed with on this card.

    The loader gets views of one random tensor. Then each weight becomes a copy of its own, so that it takes the memory and
    the transfers of a real file, and no more than that while loading.
    """
    found = shapes(size)
    numbers = torch.randn(max(map(math.prod, found.values())), generator=torch.Generator().manual_seed(0)) * DEVIATION
    shared = {dtype: numbers.to(dtype) for dtype in (torch.bfloat16, torch.float8_e4m3fn)}
    weights = {key: shared[dtype][: math.prod(found[key])].view(found[key]) for key, dtype in dtypes(found, format).items()}
    patcher = with_modulations_last(private.load_diffusion_model_state_dict(weights))
    separate(patcher.model, shared.values())
    return patcher


def separate(model: nn.Module, shared: Iterable[Tensor]) -> None:
    """Make each weight that is a view of one of these tensors a copy of its own; some loaders take tensors over as they are."""
    places = {tensor.untyped_storage().data_ptr() for tensor in shared}
    for weight in model.parameters():
        if weight.untyped_storage().data_ptr() in places:
            weight.data = weight.data.clone()


def transformer_without_weights(size: Size) -> FramePackModel:
    """The same on the meta device, where nothing is computed, to count a call's operations."""
    import comfy.model_detection
    import comfy.ops

    weights = {key: torch.empty(shape, device="meta", dtype=torch.bfloat16) for key, shape in shapes(size).items()}
    config: Any = comfy.model_detection.model_config_from_unet(weights, "")
    config.set_inference_dtype(torch.bfloat16, None)
    config.custom_operations = comfy.ops.disable_weight_init
    model = config.get_model(weights, "", device="meta")
    model.diffusion_model.load_state_dict(weights)  # with dynamic VRAM, ComfyUI's layers have no weights before
    return model


def autoencoder(width: int = 128) -> nn.Module:
    """HunyuanVideo's VAE without trained weights, as ComfyUI builds it; the released one's last level has 128 channels."""
    from comfy.ldm.models.autoencoder import AutoencoderKL

    config = {
        "double_z": True,
        "z_channels": CHANNELS,
        "resolution": 256,
        "in_channels": 3,
        "out_ch": 3,
        "ch": width,
        "ch_mult": [1, 2, 4, 4],
        "num_res_blocks": 2,
        "attn_resolutions": [],
        "conv3d": True,
        "time_compress": 4,
    }
    return AutoencoderKL(ddconfig=config, embed_dim=CHANNELS)


def video_vae() -> comfy.sd.VAE:
    """The released VAE's architecture with random weights, recognised by ComfyUI as the file would be."""
    with torch.device("meta"):
        empty = autoencoder().state_dict()
    generator = torch.Generator().manual_seed(1)

    def drawn(key: str, shape: torch.Size) -> Tensor:
        if len(shape) > 1:
            return torch.randn(shape, generator=generator) * math.prod(shape[1:]) ** -0.5
        return torch.ones(shape) if key.endswith("weight") else torch.zeros(shape)

    return comfy.sd.VAE(sd={key: drawn(key, weight.shape).bfloat16() for key, weight in empty.items()})


# Measuring


@dataclass(frozen=True)
class Sampling:
    """One section, ready to be sampled with `denoise(noise, context)`."""

    denoise: GuiderDenoiser
    noise: Tensor
    context: Context

    def run(self) -> Tensor:
        return self.denoise(self.noise, self.context)


def sampling(patcher, size: Size, steps: int, plan: Plan | None = None, number: int = 0) -> Sampling:
    """A section of a plan, by default of a video of one section, through ComfyUI's guider and sampler, from random inputs."""
    plan = plan or Plan.of(1.2)
    frames = 1 + plan.generated
    timeline = Timeline(torch.randn(1, CHANNELS, frames, size.height, size.width), set(range(frames)))
    sections = plan.fill(frames)
    positive = [[torch.randn(1, size.text, TEXT), {"pooled_output": torch.randn(1, POOLED)}]]
    guider = with_conditions(
        make_guider(patcher, positive, None, 1.0, 10.0),
        clip_vision_output={"last_hidden_state": torch.randn(1, size.image, IMAGE)},
    )
    denoise = GuiderDenoiser(guider, sampler_named("unipc_bh1"), section_sigmas(sections, timeline, steps, 0.0), seed=0)
    noise = torch.randn(1, CHANNELS, plan.window, size.height, size.width)
    return Sampling(denoise, noise, gather(sections[number], timeline))


@torch.inference_mode()
def sample_section(patcher, size: Size, steps: int, plan: Plan | None = None, number: int = 0) -> Cost:
    """The calls of one section, as `sampling` prepares it."""
    section = sampling(patcher, size, steps, plan, number)
    with Stopwatch(patcher.model.diffusion_model) as calls, Peak() as peak:
        latents = section.run()
    return Cost(tuple(calls.seconds), peak.torch, peak.card, bool(latents.isfinite().all()))


@torch.inference_mode()
def decode_section(vae: comfy.sd.VAE, size: Size) -> Cost:
    """A decode as *Save Video* does it, a few frames at a time; each chunk counts as one call."""
    latents = torch.randn(1, CHANNELS, size.decoded, size.height, size.width)
    seconds, finite, begun = [], True, time.perf_counter()
    with Peak() as peak:
        for pixels in stream_frames(vae, latents):
            seconds.append(time.perf_counter() - begun)
            finite, begun = finite and bool(pixels.isfinite().all()), time.perf_counter()
    return Cost(tuple(seconds), peak.torch, peak.card, finite)


def operations(size: Size, section: Section) -> int:
    """Floating-point operations of one call of the transformer for this section, counted on the meta device."""
    from torch.utils.flop_counter import FlopCounterMode

    def meta(*shape: int) -> Tensor:
        return torch.empty(shape, device="meta", dtype=torch.bfloat16)

    def attention(default, q: Tensor, k: Tensor, v: Tensor, heads: int, **kwargs) -> Tensor:
        """Two products, whatever kernel computes them on a card."""
        return ((q @ k.transpose(-2, -1)) @ v).transpose(1, 2).flatten(2)

    model = transformer_without_weights(size)
    params = model.diffusion_model.params
    latents = [meta(1, CHANNELS, len(group.frames), size.height, size.width) for group in section.context]
    packed = PackedContext(Context(section, tuple(latents)), size.height, size.width, params.axes_dim, params.theta)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.diffusion_model(
            meta(1, CHANNELS, len(section.target), size.height, size.width),
            torch.zeros(1, device="meta"),
            meta(1, size.text, TEXT),
            y=meta(1, POOLED),
            clip_fea=meta(1, size.image, IMAGE),
            guidance=torch.zeros(1, device="meta"),
            packed=packed.to(torch.device("meta")),
            context_latents=latents,
            transformer_options={"optimized_attention_override": attention},
        )
    return counter.get_total_flops()


class Stopwatch:
    """The seconds of each call of a module, from the first kernel to the last.

    with Stopwatch(module) as calls:
        ...
    calls.seconds
    """

    def __init__(self, module: nn.Module) -> None:
        self.seconds: list[float] = []
        self._hooks = (module.register_forward_pre_hook(self._start), module.register_forward_hook(self._stop))

    def __enter__(self) -> Stopwatch:
        return self

    def __exit__(self, *exception: object) -> None:
        for hook in self._hooks:
            hook.remove()

    def _start(self, *_: object) -> None:
        comfy.model_management.synchronize()
        self._started = time.perf_counter()

    def _stop(self, *_: object) -> None:
        comfy.model_management.synchronize()
        self.seconds.append(time.perf_counter() - self._started)


class Peak:
    """The most memory in use while the block runs, as in `Cost`; a thread asks the card again and again."""

    def __init__(self) -> None:
        self.device = comfy.model_management.get_torch_device()
        self.torch: int | None = None
        self.card: int | None = None

    def __enter__(self) -> Peak:
        if self.device.type == "cuda":
            torch.cuda.reset_peak_memory_stats(self.device)
            self._ended = threading.Event()
            self._reader = threading.Thread(target=self._read, daemon=True)
            self._reader.start()
        return self

    def __exit__(self, *exception: object) -> None:
        if self.device.type == "cuda":
            self._ended.set()
            self._reader.join()
            self.torch = torch.cuda.max_memory_allocated(self.device)

    def _read(self) -> None:
        while not self._ended.wait(INTERVAL):
            free, total = torch.cuda.mem_get_info(self.device)
            self.card = max(self.card or 0, total - free)
