"""FramePack's transformer: ComfyUI's HunyuanVideo with packed context in front of the generated tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import comfy.model_management
import torch
from comfy.cli_args import args
from torch import Tensor, nn

from ...layout import BASE_KERNEL, Kernel
from ...packing import context_tokens, patchify
from .. import private
from ..log import log_once
from .modulation import SHARED, Call, Known, Modulation, Shared

private.require_for(private.MODELS)

# Bound once: they run at every step, and torch.compile must not see the look-up.
attention_pytorch, timestep_embedding = private.attention_pytorch, private.timestep_embedding

WATCHED = "framepack_watched"  # an option: a function that is given what the blocks add to the generated tokens `B L D`

ATTENTION_FLAGS = (  # the last one is newer than ComfyUI 0.30.0
    "use_split_cross_attention",
    "use_quad_cross_attention",
    "use_pytorch_cross_attention",
    "use_ck_attention",
)


class ContextEmbedder(nn.Module):
    """One patchify convolution for each kernel the checkpoint has; others are built from the base."""

    def __init__(self, kernels: dict[str, Kernel], in_channels: int, hidden_size: int, dtype, device, operations) -> None:
        super().__init__()
        self.kernels = kernels
        for name, kernel in kernels.items():
            convolution = operations.Conv3d(
                in_channels, hidden_size, kernel_size=kernel, stride=kernel, dtype=dtype, device=device
            )
            self.add_module(name, convolution)

    def forward(self, latents: Sequence[Tensor], kernels: Sequence[Kernel]) -> Tensor:
        """Tokens `B L D` of the groups `B C T H W`, in order."""
        convolutions = {kernel: getattr(self, name) for name, kernel in self.kernels.items()}
        return context_tokens(latents, kernels, convolutions)


class ImageProjection(nn.Module):
    """The image embedding as tokens in front of the text."""

    def __init__(self, in_dim: int, hidden_size: int, dtype, device, operations) -> None:
        super().__init__()
        self.up = operations.Linear(in_dim, hidden_size * 3, dtype=dtype, device=device)
        self.down = operations.Linear(hidden_size * 3, hidden_size, dtype=dtype, device=device)

    def forward(self, embedding_BLD: Tensor) -> Tensor:
        return self.down(nn.functional.silu(self.up(embedding_BLD)))


class FramePackTransformer(private.HunyuanVideo):
    """HunyuanVideo that sees other frames of the video, patchified more coarsely the less they matter."""

    def __init__(
        self, kernels: dict[str, Kernel], image_dim: int | None, dtype=None, device=None, operations=None, **kwargs
    ) -> None:
        super().__init__(dtype=dtype, device=device, operations=operations, **kwargs)
        settings = {"dtype": dtype, "device": device, "operations": operations}
        self.clean_x_embedder = ContextEmbedder(kernels, self.in_channels, self.hidden_size, **settings)
        self.image_projection = ImageProjection(image_dim, self.hidden_size, **settings) if image_dim else None
        self.known = Known()
        self.modulations = self._replace_modulations(settings)

    def _replace_modulations(self, settings: dict[str, Any]) -> tuple[Modulation, ...]:
        """Put layers that look at what is known in the place of ComfyUI's, which have the same weights."""
        places = [(block, name) for block in self.double_blocks for name in ("img_mod", "txt_mod")]
        places += [(block, "modulation") for block in self.single_blocks]
        for block, name in places:
            double = getattr(block, name).is_double
            setattr(block, name, Modulation(self.known, self.hidden_size, double=double, **settings))
        return tuple(getattr(block, name) for block, name in places)

    def forward(self, x: Tensor, timestep: Tensor, *args, **kwargs) -> Tensor:
        """ComfyUI's, which calls `_forward` through nodes. They may exchange its inputs.

        They get a copy: where nothing is cast, `x` is the sampler's own, and ComfyUI's EasyCache adds to what it is given.
        """
        shared = kwargs.pop(SHARED, None)
        if shared is not None and not torch.compiler.is_compiling():
            kwargs[SHARED] = replace(shared, given=(timestep, kwargs["y"], kwargs.get("guidance")))
        return super().forward(x.clone(), timestep, *args, **kwargs)

    def _forward(
        self,
        x: Tensor,
        timestep: Tensor,
        context: Tensor,
        y: Any = None,
        txt_byt5=None,
        clip_fea: Tensor | None = None,
        guidance: Tensor | None = None,
        attention_mask=None,
        guiding_frame_index=None,
        ref_latent=None,
        disable_time_r: bool = False,
        control=None,
        transformer_options: dict = {},  # noqa: B006 - ComfyUI's signature
        *,
        packed: Any = None,
        context_latents: Sequence[Tensor] = (),
        shared: Shared | None = None,
        **kwargs,
    ) -> Tensor:
        """Velocity `B C T H W` of the generated frames `x`.

        `packed` is the section's kernels and rotary phases, `context_latents` its groups `B C T H W`, `clip_fea` the image
        embedding `B L D`, `shared` the modulations that need not be computed. The other parameters are HunyuanVideo's;
        FramePack ignores those it has no use for.
        """
        transformer_options = with_attention(transformer_options, x.device)
        img = patchify(x, BASE_KERNEL, {BASE_KERNEL: self.img_in.proj})
        generated = img.shape[1]
        require_whole_section(x, packed)
        if context_latents:
            img = torch.cat([self.clean_x_embedder(context_latents, packed.kernels).to(img), img], dim=1)

        def vector(timestep: Tensor) -> Tensor:
            return self.modulation_vector(x.dtype, timestep, y, guidance)

        vec = vector(timestep)
        txt = self.txt_in(context, timestep, None, transformer_options=transformer_options)
        if self.image_projection is not None and clip_fea is not None:
            txt = torch.cat([self.image_projection(clip_fea), txt], dim=1)
        pe = torch.cat([unturned(txt.shape[1], packed.rotary), packed.rotary], dim=2)

        given = img.clone() if WATCHED in transformer_options else img  # blocks add to what they are given
        if shared is not None and shared.fits((timestep, y, guidance), self.modulations, vec.device):
            call = Call(shared, vec, vector, self.modulations)
            with self.known.of(vec, shared.memory.of(call)):
                img = self.run_blocks(img, txt, vec, pe, transformer_options)
            shared.memory.foresee(call)
        else:
            img = self.run_blocks(img, txt, vec, pe, transformer_options)
        if WATCHED in transformer_options:
            transformer_options[WATCHED](img[:, -generated:] - given[:, -generated:], transformer_options)
        velocity = self.final_layer(img[:, -generated:], vec)
        return self.unpatchify(velocity, x.shape)

    def modulation_vector(self, dtype: torch.dtype, timestep: Tensor, y: Tensor, guidance: Tensor | None) -> Tensor:
        vec = self.time_in(timestep_embedding(timestep, 256, time_factor=1.0).to(dtype))
        if self.params.guidance_embed and guidance is not None:
            vec = vec + self.guidance_in(timestep_embedding(guidance, 256).to(dtype))
        return vec + self.vector_in(y[:, : self.params.vec_in_dim])

    def run_blocks(self, img: Tensor, txt: Tensor, vec: Tensor, pe: Tensor, transformer_options: dict) -> Tensor:
        """The image tokens after all blocks, honouring ComfyUI's block replacements."""
        replaced = transformer_options.get("patches_replace", {})
        if others := replaced.keys() - {"dit"}:
            log_once(f"without effect on FramePack: replaced parts of U-Nets ({', '.join(sorted(others))}: PAG and the like)")
        replace = replaced.get("dit", {})
        options = transformer_options
        options["total_blocks"], options["block_type"] = len(self.double_blocks), "double"
        for i, block in enumerate(self.double_blocks):
            options["block_index"] = i
            inputs = {"img": img, "txt": txt, "vec": vec, "pe": pe, "attention_mask": None,
                      "modulation_dims_img": None, "modulation_dims_txt": None, "transformer_options": options}  # fmt: skip
            run = replace.get(("double_block", i))
            out = run(inputs, {"original_block": _double(block)}) if run else _double(block)(inputs)
            img, txt = out["img"], out["txt"]

        text_tokens = txt.shape[1]
        img = torch.cat([txt, img], dim=1)
        options["total_blocks"], options["block_type"] = len(self.single_blocks), "single"
        options["img_slice"] = [text_tokens, img.shape[1]]
        for i, block in enumerate(self.single_blocks):
            options["block_index"] = i
            inputs = {"img": img, "vec": vec, "pe": pe, "attention_mask": None, "modulation_dims": None,
                      "transformer_options": options}  # fmt: skip
            run = replace.get(("single_block", i))
            img = (run(inputs, {"original_block": _single(block)}) if run else _single(block)(inputs))["img"]
        return img[:, text_tokens:]

    def unpatchify(self, tokens_BLD: Tensor, shape: Sequence[int]) -> Tensor:
        B, _, T, H, W = shape
        _, p, q = self.patch_size
        patches = tokens_BLD.unflatten(1, (T, H // p, W // q)).unflatten(-1, (self.out_channels, p, q))
        return patches.permute(0, 4, 1, 2, 5, 3, 6).reshape(B, self.out_channels, T, H, W)


def require_whole_section(x: Tensor, packed: Any) -> None:
    """Raises ValueError if the model gets something else than the frames that the phases are for."""
    found = tuple(length // step for length, step in zip(x.shape[2:], BASE_KERNEL, strict=True))
    if found != packed.size:
        (t, h, w), (T, H, W) = found, packed.size
        raise ValueError(
            f"the model is given {t} latent frames of {16 * w}x{16 * h} pixels, but the section has {T} of {16 * W}x{16 * H}: "
            "a node cuts it into windows or tiles; remove it"
        )


def unturned(tokens: int, rotary: Tensor) -> Tensor:
    """Identity rotations for text, which has no place in the video."""
    return torch.eye(2, dtype=rotary.dtype, device=rotary.device).expand(1, 1, tokens, rotary.shape[3], 2, 2)


def with_attention(transformer_options: dict, device: torch.device) -> dict:
    """A copy of the options that runs torch's attention on a CPU, where ComfyUI's default is the slow sub-quadratic one.

    A flag or an override that the user chose takes precedence.
    """
    options = transformer_options.copy()
    chosen = any(getattr(args, flag, False) for flag in ATTENTION_FLAGS)
    if comfy.model_management.is_device_cpu(device) and not chosen:
        options.setdefault("optimized_attention_override", _torch_attention)
    return options


def _torch_attention(default, *args, **kwargs) -> Tensor:
    return attention_pytorch(*args, **kwargs)


def _double(block: nn.Module):
    def run(inputs: dict) -> dict:
        img, txt = block(
            img=inputs["img"],
            txt=inputs["txt"],
            vec=inputs["vec"],
            pe=inputs["pe"],
            attn_mask=inputs["attention_mask"],
            modulation_dims_img=inputs["modulation_dims_img"],
            modulation_dims_txt=inputs["modulation_dims_txt"],
            transformer_options=inputs["transformer_options"],
        )
        return {"img": img, "txt": txt}

    return run


def _single(block: nn.Module):
    def run(inputs: dict) -> dict:
        img = block(
            inputs["img"],
            vec=inputs["vec"],
            pe=inputs["pe"],
            attn_mask=inputs["attention_mask"],
            modulation_dims=inputs["modulation_dims"],
            transformer_options=inputs["transformer_options"],
        )
        return {"img": img}

    return run
