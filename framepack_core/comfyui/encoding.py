"""From pictures to ComfyUI's images, and from images to latents through a VAE."""

from __future__ import annotations

import comfy.utils
import numpy
import torch
from PIL import Image
from torch import Tensor

from ..weights.buckets import nearest_bucket

CHANNELS = 16


def fit_image(image_NHWC: Tensor, base_resolution: int) -> Tensor:
    """One image resized and centre-cropped to the nearest trained size, `1 H W 3`; unchanged if it already has that size.

    Raises ValueError for more than one image.
    """
    if image_NHWC.shape[0] != 1:
        raise ValueError(f"image holds {image_NHWC.shape[0]} images, expected one; pick one with ImageFromBatch")
    size = image_NHWC.shape[1:3]
    height, width = nearest_bucket(size[0], size[1], base_resolution)
    if size == (height, width):
        return image_NHWC[..., :3]  # ComfyUI's resizing would round its pixels down
    image_NCHW = image_NHWC[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(image_NCHW, width, height, "lanczos", "center").movedim(1, -1)


def to_image(picture: Image.Image) -> Tensor:
    """A picture as one of ComfyUI's images, `1 H W 3` in 0..1."""
    return torch.from_numpy(numpy.array(picture.convert("RGB")))[None] / 255


def encode_image(vae, image_NHWC: Tensor) -> Tensor:
    """The latent `1 16 1 H W`, unscaled. Raises ValueError if the VAE is not HunyuanVideo's."""
    latent = vae.encode(image_NHWC)
    if latent.ndim != 5 or latent.shape[1] != CHANNELS:
        raise ValueError(f"vae gives latents of shape {tuple(latent.shape)}, expected (1, {CHANNELS}, 1, H, W); "
                         "load HunyuanVideo's VAE (hunyuan_video_vae_bf16.safetensors)")  # fmt: skip
    return latent
