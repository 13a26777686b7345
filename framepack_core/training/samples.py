"""Short videos that a run samples while it trains."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from ..media.files import whole_file
from ..media.remedies import named_failure
from ..media.video import Encoding, Footage, write_video
from ..packing import Context, rotary_phases
from ..plan import Plan
from ..sections import generate
from ..solver import flow_sigmas, sample_unipc
from ..timeline import Timeline
from .cache import Clip
from .transformer import TIMESTEPS, PackedTransformer

Decode = Callable[[Tensor], Tensor]


def sample_video(
    transformer: PackedTransformer, clip: Clip, plan: Plan, steps: int, guidance: float, shift: float, seed: int
) -> Tensor:
    """Latents `1 C T H W` in model space of the plan's video, which starts from the clip's first frame with its caption."""
    timeline = Timeline.of(1 + plan.generated, {0: clip.latents[None, :, :1].float()})
    denoise = Denoiser(transformer, clip, steps, guidance, shift)
    training = transformer.training
    transformer.eval()
    for _ in generate(plan.bind(timeline), timeline, denoise, seed):
        pass
    transformer.train(training)
    return timeline.latents


class Denoiser:
    """The `denoise` callable of the section loop, with the transformer in training."""

    def __init__(self, transformer: PackedTransformer, clip: Clip, steps: int, guidance: float, shift: float) -> None:
        self.transformer = transformer
        self.steps, self.shift = steps, shift
        self.device = transformer.device
        text, pooled, image = (None if part is None else part[None].float().to(self.device)
                               for part in (clip.text, clip.pooled, clip.image))  # fmt: skip
        self.inputs: dict[str, Tensor | None] = {"text": text, "text_mask": None, "pooled": pooled, "image": image}
        if transformer.config["guidance_embeds"]:
            self.inputs["guidance"] = torch.full((1,), guidance, device=self.device)

    @torch.no_grad()
    def __call__(self, noise: Tensor, context: Context) -> Tensor:
        H, W = noise.shape[3:]
        config, section = self.transformer.config, context.section
        packed: dict[str, Any] = {
            "context": tuple(latents.to(self.device) for latents in context.latents),
            "kernels": tuple(group.kernel for group in section.context),
            "rotary": rotary_phases(section, H, W, config["rope_axes_dim"], config["rope_theta"]),
        }

        def x0(x: Tensor, sigma: Tensor) -> Tensor:
            velocity = self.transformer(latents=x, timestep=sigma * TIMESTEPS, **packed, **self.inputs)
            return x - sigma.view(-1, 1, 1, 1, 1) * velocity.float()

        sigmas = flow_sigmas(self.steps, section.target_tokens(H, W), self.shift).to(self.device)
        return sample_unipc(x0, noise.to(self.device), sigmas).cpu()


def hunyuan_decoder(folder: Path) -> Decode:
    """A decoder to pixels `1 3 F H W` in -1..1: a diffusers AutoencoderKLHunyuanVideo. Raises a ValueError with the folder."""
    from diffusers import AutoencoderKLHunyuanVideo

    try:
        vae: Any = AutoencoderKLHunyuanVideo.from_pretrained(folder, local_files_only=True).eval()
    except (OSError, ValueError) as error:
        raise ValueError(f"{folder} is not an AutoencoderKLHunyuanVideo ({error}); choose the vae folder of "
                         "hunyuanvideo-community/HunyuanVideo") from error  # fmt: skip

    def decode(latents: Tensor) -> Tensor:
        with torch.no_grad():
            return vae.decode(latents.to(vae.device, vae.dtype) / vae.config.scaling_factor).sample

    return decode


def write_sample(path: Path, latents: Tensor, decode: Decode | None, fps: float = 30.0) -> Path:
    """Write `<path>.mp4`, or the latents as `<path>.safetensors` if nothing decodes them."""
    path.parent.mkdir(parents=True, exist_ok=True)
    if decode is None:
        file = path.with_suffix(".safetensors")
        save_file({"latents": latents[0].contiguous()}, file)
        return file
    file = path.with_suffix(".mp4")
    with named_failure(file), whole_file(file) as unfinished:
        write_video(unfinished, Footage.of((decode(latents)[0].movedim(0, -1) + 1) / 2), Encoding(fps))
    return file
