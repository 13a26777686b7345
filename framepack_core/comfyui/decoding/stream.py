"""Decodes a video of any length a few frames at a time, in memory that does not grow with it.

How decoding can be split in time depends on the VAE's architecture: `hunyuan` carries state from step to step, `causal`
decoders look a few latent frames back, and any other VAE is decoded in `windows`. A video whose sections are clips of their own
for the VAE is split where they meet.
"""

from __future__ import annotations

import copy
import ctypes
import math
from collections.abc import Iterable, Iterator
from dataclasses import replace
from itertools import chain, islice

import comfy.model_management
import comfy.sd
import comfy.utils
import torch
from torch import Tensor

from ...frames import PIXEL_FRAMES, Length, pixel_frames
from ...media.video import Footage
from ...timeline import is_finite
from .. import private
from ..encoding import CHANNELS
from ..log import log_once
from .causal import causal, reach_back
from .fitting import require_fitting
from .hunyuan import carried, decode_any_memory, is_carried
from .windows import WINDOW, blended, decode_window

EXACT, LINEAR = "exact", "linear"
WRAP = 12  # latent frames of a loop's end and beginning that are decoded once more around it
FADE = 16  # frames of a loop's end, over which it becomes what was decoded before its beginning: TAEHV looks back 8 from there
ATTENTION_FRAMES = 96  # with these the middle block needs no more memory than HunyuanVideo's up path needs anyway

try:  # glibc's: memory that chunks have freed would otherwise stay in pieces between what is still used
    malloc_trim = ctypes.CDLL(None).malloc_trim
except (AttributeError, OSError, TypeError):

    def malloc_trim(pad: int) -> None:
        pass


def stream_frames(
    vae: comfy.sd.VAE,
    latents: Tensor,
    blending: str = EXACT,
    attention_frames: int = ATTENTION_FRAMES,
    length: Length | None = None,
) -> Iterable[Tensor]:
    """The frames `F H W 3` in 0..1, on the CPU, of latents `B 16 T H W`: 4 T - 3 per video, or what `length` says, one video
    after the other.

    `exact` gives what `vae.decode` gives for the whole video, as far as the VAE's architecture allows: with HunyuanVideo's, up
    to `attention_frames` latent frames, and nearly so beyond. `linear` decodes each section together with the one before it
    and blends them, as the official program does. Clips that `length` says are apart are decoded one by one, in either case.
    Raises ValueError for latents of another shape, or that are not finite, and for a VAE that the video of this `length` is
    not for. Between chunks it shows progress and can be interrupted.
    """
    return reported(footage(vae, latents, blending, attention_frames, length)).chunks


def footage(
    vae: comfy.sd.VAE,
    latents: Tensor,
    blending: str = EXACT,
    attention_frames: int = ATTENTION_FRAMES,
    length: Length | None = None,
) -> Footage:
    """The frames of `stream_frames`, with their number and size, without progress."""
    if latents.ndim != 5 or latents.shape[1] != CHANNELS or latents.numel() == 0:
        raise ValueError(f"latent has shape {tuple(latents.shape)}, expected (B, {CHANNELS}, T, H, W) from a FramePack "
                         "sampler")  # fmt: skip
    if not is_finite(latents):
        raise ValueError("latent has values that are not finite (NaN or infinite), which decode to black frames; sample it "
                         "again, without LoRAs and other patches of the model")  # fmt: skip
    if length is not None:
        require_fitting(vae, length)
    length = length or Length(latents.shape[2])
    videos = (shown(vae, video, length, blending, attention_frames) for video in latents.split(1))
    return Footage(chain.from_iterable(videos), frame_count(latents, length), *frame_size(vae, latents))


def decode_video(vae: comfy.sd.VAE, latents: Tensor, length: Length | None = None) -> Tensor:
    """All frames `N H W 3` of `stream_frames` at once, decoded as `exact`. Raises ValueError for latents of another shape."""
    chunks = stream_frames(vae, latents, length=length)
    width, height = frame_size(vae, latents)
    images = torch.empty(frame_count(latents, length), height, width, 3, dtype=vae.vae_output_dtype())
    end = 0
    for frames in chunks:
        start, end = end, end + len(frames)
        images[start:end] = frames
    return images


def frame_count(latents: Tensor, length: Length | None = None) -> int:
    """Frames of all the videos in latents."""
    return len(latents) * (length or Length(latents.shape[2])).frames


def frame_size(vae: comfy.sd.VAE, latents: Tensor) -> tuple[int, int]:
    """Width and height of the frames, in pixels."""
    ratio = vae.spacial_compression_decode()
    return latents.shape[-1] * ratio, latents.shape[-2] * ratio


def shown(vae: comfy.sd.VAE, latents: Tensor, length: Length, blending: str, attention_frames: int) -> Iterator[Tensor]:
    """The frames of one video that `length` shows. Those after them are not decoded."""
    if length.loop:
        return closed(vae, latents[:, :, 1:], blending, attention_frames)
    if length.apart:
        return cut(clips(vae, latents[:, :, length.hidden :], length.apart), length.frames)
    return cut(chunks(vae, latents, blending, attention_frames), length.frames)


def cut(chunks: Iterator[Tensor], count: int) -> Iterator[Tensor]:
    """The first frames of all, so many."""
    while count:
        frames = next(chunks)[:count]
        yield frames
        count -= len(frames)


def clips(vae: comfy.sd.VAE, latents: Tensor, size: int) -> Iterator[Tensor]:
    """The frames of clips of `size` latent frames, each decoded by itself: 4 T - 3 of each.

    Decoded together, a clip's first latent frame would give four frames, while it stands for one.
    """
    return (decode_window(vae, clip) for clip in latents.split(size, dim=2))


def closed(vae: comfy.sd.VAE, cycle: Tensor, blending: str, attention_frames: int) -> Iterator[Tensor]:
    """The frames of a loop, four for each of its latent frames, one by one.

    It is decoded with some of its end before it and of its beginning after it. A decoder that looks far back makes slightly
    other frames of that end than of the end itself, which therefore fades into it: the first frame continues it.
    """
    latent_frames = cycle.shape[2]
    around = torch.arange(-WRAP, latent_frames + WRAP) % latent_frames
    frames = chain.from_iterable(chunks(vae, cycle[:, :, around], blending, attention_frames))
    count = PIXEL_FRAMES * latent_frames
    fade = min(FADE, count)
    before = list(islice(frames, pixel_frames(WRAP)))[-fade:]
    yield from (frame[None] for frame in islice(frames, count - fade))
    for number, (frame, earlier) in enumerate(zip(islice(frames, fade), before, strict=True), start=1):
        yield frame.lerp(earlier, number / fade)[None]


def reported(video: Footage) -> Footage:
    """The same frames. Between chunks, progress is shown and the run can be interrupted."""
    return replace(video, chunks=_reported(video.chunks, video.count))


def _reported(chunks: Iterable[Tensor], total: int) -> Iterator[Tensor]:
    bar = comfy.utils.ProgressBar(total)
    for frames in chunks:
        comfy.model_management.throw_exception_if_processing_interrupted()
        if not is_finite(frames):
            log_once("the VAE gives values that are not finite: frames are black. Start ComfyUI with --bf16-vae or --fp32-vae")
        yield frames
        bar.update(len(frames))
        malloc_trim(0)


def chunks(
    vae: comfy.sd.VAE,
    latents: Tensor,
    blending: str = EXACT,
    attention_frames: int = ATTENTION_FRAMES,
    most: float = math.inf,
) -> Iterator[Tensor]:
    """`stream_frames` of one video, without its checks and its progress.

    ComfyUI is asked for at most `most` bytes of the card's memory, so that what other models have there stays.
    """
    exact, reach = False, None
    try:
        exact = is_carried(vae)
        reach = reach_back(vae.first_stage_model)
    except private.Missing as missing:
        log_once(f"{missing}. Until then, videos are decoded in windows of {WINDOW} latent frames that are blended")
    if exact and blending == EXACT:
        return carried(vae, latents, attention_frames, most)
    vae = modest(vae, most)
    if reach is not None and blending == EXACT:
        return causal(vae, latents, reach)
    return blended(vae, latents, decode_any_memory if exact else decode_window)


def modest(vae: comfy.sd.VAE, most: float) -> comfy.sd.VAE:
    """The same VAE, for whose decoding ComfyUI frees at most this much memory. If that is too little, ComfyUI tiles it."""
    if most == math.inf:
        return vae
    vae, used = copy.copy(vae), vae.memory_used_decode
    vae.memory_used_decode = lambda shape, dtype: min(most, used(shape, dtype))
    return vae
