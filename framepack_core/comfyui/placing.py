"""Pictures as stills and clips that are given of a video."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import comfy.clip_vision
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ..frames import PIXEL_FRAMES
from ..placing import ATS, SEEN, USES, At, Frames, Placed, Use, spelled_places
from ..weights.buckets import STEP, nearest_bucket
from .chunked import STEP as CHUNKS_STEP
from .chunked import encode_clip, encode_still, in_chunks, seen_frames
from .decoding.stream import frame_size
from .encoding import encode_images, fit_images, resampled
from .sampling.checks import require_finite

STILL = 1 + PIXEL_FRAMES  # of the same picture: the second latent frame then stands for four frames of it


@dataclass(frozen=True)
class Picture:
    """What FramePack_Place is given: images `N H W C`, of `fps` frames a second if there are several, and where they go.

    `mask` `[1] H W` says how much of each pixel of their latent sections see, 0..1, where the images only guide them. Images
    that go to several places may have as many masks.
    """

    images: Tensor
    at: At
    use: Use
    seconds: float = 0.0
    fps: float = 30.0
    mask: Tensor | None = None

    def __post_init__(self) -> None:
        for name, value, known in (("at", self.at, ATS), ("use", self.use, USES)):
            if value not in known:
                raise ValueError(f"{name} is {value!r}; choose one of {', '.join(known)}")

    @property
    def is_still(self) -> bool:
        return len(self.images) == 1


def pictures(picture: Picture, times: str) -> list[Picture]:
    """This one, or each image of its batch as a still at a place of its own if there are `times` (`spelled_places`)."""
    if not times.strip():
        return [picture]
    places = spelled_places(times, len(picture.images))
    return [
        replace(picture, images=image[None], at=at, seconds=seconds, mask=mask)
        for image, mask, (at, seconds) in zip(picture.images, masks(picture), places, strict=True)
    ]


def masks(picture: Picture) -> Sequence[Tensor | None]:
    """The mask of each image of a batch: its own if there are as many masks, or else the same for all."""
    mask, images = picture.mask, len(picture.images)
    return [mask] * images if mask is None or mask.ndim < 3 or len(mask) != images else list(mask)


def place_all(
    pictures: Sequence[Picture],
    frames: Frames,
    vae: comfy.sd.VAE,
    clip_vision: comfy.clip_vision.ClipVisionModel | None,
    base_resolution: int,
) -> tuple[Frames, Tensor, str]:
    """`place` for each in turn. Returns also the images of all that were used, and a line of text about each."""
    shown, lines = [], []
    for picture in pictures:
        frames, used = place(picture, frames, vae, clip_vision, base_resolution)
        shown.append(used)
        lines.append(spelled(picture, used, frames.fps))
    return frames, torch.cat(shown), "\n".join(lines)


def place(
    picture: Picture,
    frames: Frames,
    vae: comfy.sd.VAE,
    clip_vision: comfy.clip_vision.ClipVisionModel | None,
    base_resolution: int,
) -> tuple[Frames, Tensor]:
    """`frames` with one more still or clip, and the images `N H W 3` that were used.

    The first of several decides the size, like FramePack_EncodeImage. Raises ValueError for a clip of fewer than five frames
    at the video's rate, or than a chunk's, and for a mask that does not fit.
    """
    require_fitting_mask(picture)
    rows, columns = picture.images.shape[1:3]
    apart = in_chunks(vae)
    size = size_in_pixels(frames, vae) or nearest_bucket(rows, columns, base_resolution, CHUNKS_STEP if apart else STEP)
    given = resampled(picture.images, picture.fps, frames.fps) if not picture.is_still else picture.images
    images = fit_images(used(given, picture, apart), *size)
    is_clip = picture.use == "fixed" and not picture.is_still
    first = encode_images(vae, fit_images(given[:1], *size) if apart else images[:1])
    latents = written(images, first, picture, vae, apart)
    for latent in (first, latents):
        require_finite(latent, "the latent of images", "look at the images, and start ComfyUI without --fp16-vae")
    placed = Placed(
        latents=latents,
        picture=first if picture.mask is None else first * latent_mask(picture.mask, first),
        at=picture.at,
        use=picture.use,
        seconds=picture.seconds,
        embedding=embedded(images[:1], clip_vision),
        ending=embedded(images[-1:], clip_vision) if is_clip else None,
        still=picture.is_still,
        masked=picture.mask is not None,
        apart=apart,
    )
    return frames.with_placed(placed), images


def require_fitting_mask(picture: Picture) -> None:
    """Raises ValueError for a mask of another size than the images, for several, and for one that hides everything."""
    if picture.mask is None:
        return
    *masks, height, width = picture.mask.shape
    rows, columns = picture.images.shape[1:3]
    if masks not in ([], [1]) or (height, width) != (rows, columns):
        found = f"{width}x{height}" if masks in ([], [1]) else f"a batch of {masks[0]}"
        raise ValueError(
            f"mask is {found}, but images are {columns}x{rows}; give one mask of their size, or one for each image that times "
            "places, or disconnect it"
        )
    require_finite(picture.mask, "mask", "look at what it comes from")
    if not picture.mask.gt(0).any():
        raise ValueError("mask is black, so that nothing of the image would be seen; turn it with InvertMask, or disconnect it")


def latent_mask(mask: Tensor, latent: Tensor) -> Tensor:
    """A mask of images, cropped like them, for a latent of theirs: `1 1 1 H W`."""
    height, width = latent.shape[-2:]
    fitted = comfy.utils.common_upscale(mask.reshape(1, 1, *mask.shape[-2:]), width, height, "lanczos", "center")
    return fitted.reshape(1, 1, 1, height, width).to(latent)  # with --gpu-only latents are on the card, but masks are not


def size_in_pixels(frames: Frames, vae: comfy.sd.VAE) -> tuple[int, int] | None:
    """Height and width of what is placed already."""
    if not frames.placed:
        return None
    width, height = frame_size(vae, frames.placed[0].picture)
    return height, width


def used(images: Tensor, picture: Picture, apart: bool) -> Tensor:
    """The images of a clip that are encoded: 4 k + 1, or whole chunks, counted from where the clip meets what is generated."""
    if picture.is_still or picture.use == "guide":
        return images
    if apart and picture.at == "start":
        return seen_frames(images)
    steps = min((len(images) - 1) // PIXEL_FRAMES, SEEN)
    if not steps:
        raise ValueError(
            f"images holds {len(images)} frames at the video's rate, but a clip needs {1 + PIXEL_FRAMES} or more; give a "
            "longer one, or pick a single image with ImageFromBatch"
        )
    count = 1 + PIXEL_FRAMES * steps
    return images[-count:] if picture.at == "start" else images[:count]


def embedded(image: Tensor, clip_vision: comfy.clip_vision.ClipVisionModel | None) -> Any:
    """The whole image, whatever its mask: as in musubi-tuner, masks are for latents."""
    return None if clip_vision is None else clip_vision.encode_image(image, crop=False)


def written(images: Tensor, first: Tensor, picture: Picture, vae: comfy.sd.VAE, apart: bool) -> Tensor:
    """The latents that go into the video, or before it where sections are `apart`."""
    if picture.use == "guide":
        return first.expand(-1, -1, max(1, len(images) // PIXEL_FRAMES), -1, -1)
    if apart and picture.at == "start":
        return encode_still(vae, images) if picture.is_still else encode_clip(vae, images)
    if picture.at == "start":
        return first if picture.is_still else encode_images(vae, images)
    clip = images.expand(STILL, -1, -1, -1) if picture.is_still else images
    return encode_images(vae, clip)[:, :, 1:]


def spelled(picture: Picture, images: Tensor, fps: float) -> str:
    """What has been placed, for the node's text."""
    height, width = images.shape[1:3]
    if picture.is_still:
        return f"a still of {width}x{height}"
    given, kept = len(picture.images), len(images)
    end = "last" if picture.at == "start" else "first"
    cut = f", the {end} {kept / fps:.2f} s of {given / picture.fps:.2f} s" if picture.use == "fixed" else ""
    return f"a clip of {kept} frames, {width}x{height}{cut}"
