"""From pictures to ComfyUI's images, and from images to latents through a VAE."""

from __future__ import annotations

import comfy.utils
import numpy
import torch
from PIL import Image
from torch import Tensor

from ..family import VAES
from ..frames import nearest_frames
from ..weights.buckets import STEP, nearest_bucket

CHANNELS = 16


def fit_image(image_NHWC: Tensor, base_resolution: int, step: int = STEP) -> Tensor:
    """One image resized and centre-cropped to the nearest trained size, `1 H W 3`; unchanged if it already has that size.

    Its sides are multiples of `step` pixels. Raises ValueError for more than one image.
    """
    if image_NHWC.shape[0] != 1:
        raise ValueError(f"image holds {image_NHWC.shape[0]} images, expected one; pick one with ImageFromBatch")
    height, width = nearest_bucket(image_NHWC.shape[1], image_NHWC.shape[2], base_resolution, step)
    return fit_images(image_NHWC, height, width)


def fit_images(images_NHWC: Tensor, height: int, width: int) -> Tensor:
    """Images resized and centre-cropped, `N H W 3`; unchanged if they already have that size."""
    if images_NHWC.shape[1:3] == (height, width):
        return images_NHWC[..., :3]  # ComfyUI's resizing would round its pixels down
    images_NCHW = images_NHWC[..., :3].movedim(-1, 1)
    return comfy.utils.common_upscale(images_NCHW, width, height, "lanczos", "center").movedim(1, -1)


def resampled(images_NHWC: Tensor, fps: float, wanted: float) -> Tensor:
    """A clip of `fps` frames a second as one of `wanted`: the nearest frame by time. Unchanged if the rates are equal."""
    return images_NHWC if fps == wanted else images_NHWC[nearest_frames(len(images_NHWC), fps, wanted)]


def to_image(picture: Image.Image) -> Tensor:
    """A picture as one of ComfyUI's images, `1 H W 3` in 0..1."""
    return torch.from_numpy(numpy.array(picture.convert("RGB")))[None] / 255


def encode_images(vae, images_NHWC: Tensor) -> Tensor:
    """The latent `1 16 T H W` of 4 T - 3 images, unscaled. Raises ValueError if the VAE is no model's."""
    latent = vae.encode(images_NHWC)
    if latent.ndim != 5 or latent.shape[1] != CHANNELS:
        raise ValueError(f"vae gives latents of shape {tuple(latent.shape)}, expected (1, {CHANNELS}, T, H, W); "
                         f"load {VAES}")  # fmt: skip
    return latent
