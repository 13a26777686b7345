"""The encoders that turn captions and pictures into what the transformer sees: HunyuanVideo's, or the demo's.

Text encoders and picture encoders are loaded separately, so that the large ones never share memory.
"""

from __future__ import annotations

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

log = logging.getLogger("framepack")

Module = TypeVar("Module", bound=torch.nn.Module)

# HunyuanVideo's instruction to Llama. Only the embedding of the user's part is kept.
TEMPLATE = (
    "<|start_header_id|>system<|end_header_id|>\n\nDescribe the video by detailing the following aspects: "
    "1. The main content and theme of the video."
    "2. The color, shape, size, texture, quantity, text, and spatial relationships of the objects."
    "3. Actions, events, behaviors temporal relationships, physical movement changes of the objects."
    "4. background environment, light, style and atmosphere."
    "5. camera angles, movements, and transitions used in the video:<|eot_id|>"
    "<|start_header_id|>user<|end_header_id|>\n\n{}<|eot_id|>"
)
TEMPLATE_TOKENS = 95  # before the caption
TEXT_TOKENS, POOLED_TOKENS = 256, 77  # at most
HIDDEN_STATE = -3  # two layers before Llama's last

HUNYUAN_FOLDERS = ("text_encoder", "tokenizer", "text_encoder_2", "tokenizer_2", "vae")
VISION_FOLDERS = ("image_encoder", "feature_extractor")


class TextEncoder(Protocol):
    def encode(self, caption: str) -> tuple[Tensor, Tensor]:
        """The text `L D`, unpadded, and its pooled embedding `D`."""
        ...


class PictureEncoder(Protocol):
    def latents(self, pixels: np.ndarray) -> Tensor:
        """Frames uint8 `F H W 3`, F = 4T - 3, as `C T H W` in model space."""
        ...

    def image(self, pixels: np.ndarray) -> Tensor | None:
        """A frame uint8 `H W 3`, resized without cropping, as `N D`; None without a vision encoder."""
        ...


class Encoders(Protocol):
    @property
    def name(self) -> str: ...

    def text(self) -> TextEncoder: ...

    def pictures(self) -> PictureEncoder: ...


def to_model_range(pixels: np.ndarray, device: torch.device | str, dtype: torch.dtype) -> Tensor:
    """uint8 `F H W 3` as `1 3 F H W` in -1..1."""
    frames = torch.from_numpy(pixels).to(device).permute(3, 0, 1, 2)[None]
    return (frames.float() / 127.5 - 1).to(dtype)


@dataclass(frozen=True)
class Hunyuan:
    """HunyuanVideo's encoders in a local folder of diffusers' layout, and SigLIP's in `vision`, which may be None.

    Raises a FileNotFoundError that names what is missing. `tiled` encodes pictures in overlapping parts: less memory, slower.
    """

    models: Path
    vision: Path | None
    device: str = "cpu"
    dtype: torch.dtype = torch.float32
    tiled: bool = False
    name: str = "hunyuan"

    def __post_init__(self) -> None:
        _check_folders(self.models, HUNYUAN_FOLDERS, "hunyuanvideo-community/HunyuanVideo")
        if self.vision:
            _check_folders(self.vision, VISION_FOLDERS, "lllyasviel/flux_redux_bfl")

    def text(self) -> TextEncoder:
        return HunyuanText(self)

    def pictures(self) -> PictureEncoder:
        return HunyuanPictures(self)


class HunyuanText:
    """Llama on HunyuanVideo's instruction, and CLIP's pooled embedding."""

    def __init__(self, encoders: Hunyuan) -> None:
        from transformers import AutoTokenizer, CLIPTextModel, LlamaModel

        self.device = encoders.device
        load: dict[str, Any] = {"local_files_only": True}
        self.llama_tokenizer = AutoTokenizer.from_pretrained(encoders.models / "tokenizer", **load)
        self.clip_tokenizer = AutoTokenizer.from_pretrained(encoders.models / "tokenizer_2", **load)
        load |= {"dtype": encoders.dtype}
        self.llama = _ready(LlamaModel.from_pretrained(encoders.models / "text_encoder", **load), self.device)
        self.clip = _ready(CLIPTextModel.from_pretrained(encoders.models / "text_encoder_2", **load), self.device)

    @torch.inference_mode()
    def encode(self, caption: str) -> tuple[Tensor, Tensor]:
        limit = TEMPLATE_TOKENS + TEXT_TOKENS
        instruction = TEMPLATE.format(caption)
        tokens = self.llama_tokenizer(instruction, truncation=True, max_length=limit, return_tensors="pt").to(self.device)
        states = self.llama(tokens.input_ids, tokens.attention_mask, output_hidden_states=True).hidden_states
        words = self.clip_tokenizer(
            caption, padding="max_length", truncation=True, max_length=POOLED_TOKENS, return_tensors="pt"
        ).to(self.device)
        return states[HIDDEN_STATE][0, TEMPLATE_TOKENS:], self.clip(words.input_ids).pooler_output[0]


class HunyuanPictures:
    """HunyuanVideo's VAE (the mean of its distribution, so that a cache is reproducible) and SigLIP.

    The VAE normalises over time, so later frames change its first latent. A clip's first latent is therefore encoded from the
    first frame alone, as start images are at inference.
    """

    def __init__(self, encoders: Hunyuan) -> None:
        from diffusers import AutoencoderKLHunyuanVideo
        from transformers import SiglipImageProcessor, SiglipVisionModel

        self.device, self.dtype = encoders.device, encoders.dtype
        load: dict[str, Any] = {"local_files_only": True}
        vae = AutoencoderKLHunyuanVideo.from_pretrained(encoders.models / "vae", torch_dtype=self.dtype, **load)
        self.vae = _ready(vae, self.device)
        if encoders.tiled:
            self.vae.enable_tiling()
        self.processor: Any = None
        self.vision: Any = None
        if folder := encoders.vision:
            self.processor = SiglipImageProcessor.from_pretrained(folder / "feature_extractor", **load)
            vision = SiglipVisionModel.from_pretrained(folder / "image_encoder", dtype=self.dtype, **load)
            self.vision = _ready(vision, self.device)

    @torch.inference_mode()
    def latents(self, pixels: np.ndarray) -> Tensor:
        first, video = self._encode(pixels[:1]), self._encode(pixels)
        return torch.cat([first, video[:, 1:]], dim=1) * self.vae.config.scaling_factor

    @torch.inference_mode()
    def image(self, pixels: np.ndarray) -> Tensor | None:
        if self.vision is None:
            return None
        values = self.processor(images=pixels, return_tensors="pt").pixel_values.to(self.device, self.dtype)
        return self.vision(values).last_hidden_state[0]

    def _encode(self, pixels: np.ndarray) -> Tensor:
        return self.vae.encode(to_model_range(pixels, self.device, self.dtype)).latent_dist.mode()[0]


@dataclass(frozen=True)
class Demo:
    """The encoders of the demo's synthetic world, from the files in `weights`."""

    weights: Path = Path(__file__).parents[1] / "demo" / "weights"
    device: str = "cpu"
    name: str = "demo"

    def __post_init__(self) -> None:
        for part in ("text", "vae", "vision"):
            if not self._file(part).exists():
                raise FileNotFoundError(f"{self._file(part)} is missing; install the pack again")

    def text(self) -> TextEncoder:
        return DemoText(self)

    def pictures(self) -> PictureEncoder:
        return DemoPictures(self)

    def load(self, part: str, module: Module) -> Module:
        from safetensors.torch import load_file

        module.load_state_dict(load_file(self._file(part)))
        return module.float().to(self.device).eval()

    def _file(self, part: str) -> Path:
        return self.weights / f"demo_{part}.safetensors"


class DemoText:
    """Captions in the synthetic world's words; other words are logged."""

    def __init__(self, encoders: Demo) -> None:
        from ..demo.text import TextEncoder, Tokenizer

        self.tokenizer = Tokenizer()
        self.encoder = encoders.load("text", TextEncoder())
        self.device = encoders.device

    @torch.inference_mode()
    def encode(self, caption: str) -> tuple[Tensor, Tensor]:
        ids, unknown = self.tokenizer.encode(caption)
        if unknown:
            log.warning("the demo's text encoder does not know %s in %r", ", ".join(unknown), caption)
        text, pooled = self.encoder(torch.tensor([ids], device=self.device))
        return text[0], pooled[0]


class DemoPictures:
    def __init__(self, encoders: Demo) -> None:
        from ..demo.vae import DemoVAE
        from ..demo.vision import VisionEncoder

        self.vae = encoders.load("vae", DemoVAE())
        self.vision = encoders.load("vision", VisionEncoder())
        self.device = encoders.device

    @torch.inference_mode()
    def latents(self, pixels: np.ndarray) -> Tensor:
        from ..demo.vae import SCALE

        return self.vae.encode(to_model_range(pixels, self.device, torch.float32))[0] * SCALE

    @torch.inference_mode()
    def image(self, pixels: np.ndarray) -> Tensor:
        from ..demo.vision import IMAGE_SIZE

        picture = torch.from_numpy(pixels).to(self.device).movedim(-1, 0)[None].float()
        resized = F.interpolate(picture, size=(IMAGE_SIZE, IMAGE_SIZE), mode="bicubic", antialias=True)
        return self.vision(resized.clamp(0, 255).round() / 127.5 - 1)[0]


def _ready(model: torch.nn.Module, device: str) -> Any:
    """The model on its device, for inference. What the libraries' models return has no usable type."""
    return model.to(device).eval()


def _check_folders(root: Path, parts: tuple[str, ...], repository: str) -> None:
    missing = [part for part in parts if not (root / part).is_dir()]
    if missing:
        raise FileNotFoundError(f"{root} lacks {', '.join(missing)}; download these folders of {repository} to it")
