"""A Helios video in chunks of nine latent frames, each of which becomes 33 frames of the video by itself.

A chunk sees the 19 latent frames before it at three kernels, and one more, the anchor: FramePack F1's layout and order. What
does not exist yet is seen as zeros in the model's space, so timelines are in that space here. They may begin with frames that
are only there to be seen (`hidden`); the video is what follows.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Generator, Tensor

from ..filling import Section
from ..frames import pixel_frames
from ..orders import FORWARD
from ..plan import Plan
from ..timeline import Guide, Timeline
from .noise import noised

FPS = 24.0
WINDOW = 9  # latent frames of a chunk
CHUNK_FRAMES = pixel_frames(WINDOW)  # frames of the video in a chunk: 33
SEEN = 3  # chunks of a clip, at most
LAYOUT = FORWARD.fit("f1").with_window(WINDOW)


def clip_chunks(frames: int) -> list[tuple[int, int]]:
    """Where a clip of so many frames is cut, as (start, stop), to be encoded: its last chunks, each by itself.

    Its first frame is encoded alone, too. Raises ValueError for a clip that is shorter than a chunk.
    """
    count = frames // CHUNK_FRAMES
    if count == 0:
        raise ValueError(f"the clip has {frames} frames, but Helios continues clips of {CHUNK_FRAMES} frames or more; give a "
                         "longer clip, or its last frame as a start image")  # fmt: skip
    first = frames - count * CHUNK_FRAMES
    return [(start, start + CHUNK_FRAMES) for start in range(first, frames, CHUNK_FRAMES)]


# What is given, and what each chunk sees


def text_to_video(chunks: int, shape: Sequence[int]) -> Timeline:
    """A timeline in which nothing is known, for latents of the shape `B C T H W`, whose T does not count.

    The first chunk has zeros for an anchor, all others the first latent frame.
    """
    B, C, _, H, W = shape
    return Timeline.empty(chunks * WINDOW, B, C, H, W)


def image_to_video(chunks: int, image: Tensor, still: Tensor, generator: Generator) -> Timeline:
    """A timeline that begins after a still: its anchor is `image`, and the hidden frame before the first chunk `still`.

    Both are `B C 1 H W` in the model's space: the image encoded by itself, and the last latent frame of the image shown for a
    whole chunk. They get their noise from the generator.
    """
    return _after(chunks, *with_noise(image, still, generator))


def continue_video(chunks: int, first: Tensor, clip: Tensor, generator: Generator) -> Timeline:
    """A timeline that begins after a clip: its anchor is `first`, and the clip's latent frames are hidden.

    `first` `B C 1 H W` is the first frame of the whole clip, encoded by itself, and `clip` `B C T H W` has the latents of its
    chunks (`clip_chunks`), both in the model's space. They get their noise from the generator. Raises ValueError for a clip
    that is not in chunks.
    """
    if clip.shape[2] % WINDOW:
        raise ValueError(f"the clip has {clip.shape[2]} latent frames, which is not a multiple of the {WINDOW} of a chunk; "
                         f"encode {CHUNK_FRAMES} frames at a time")  # fmt: skip
    return _after(chunks, *with_noise(first, clip, generator))


def with_noise(anchor: Tensor, hidden: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The anchor and the hidden frames as chunks see them. Each frame of a clip has noise of its own strength."""
    anchor = noised(anchor, generator)
    if hidden.shape[2] == 1:
        return anchor, noised(hidden, generator)
    seen = [noised(chunk, generator, each_frame=True) for chunk in hidden.split(WINDOW, dim=2)]
    return anchor, torch.cat(seen, dim=2)


def _after(chunks: int, anchor: Tensor, seen: Tensor) -> Timeline:
    B, C, hidden, H, W = seen.shape
    if anchor.shape != (B, C, 1, H, W):
        raise ValueError(
            f"what is given differs in shape: {tuple(anchor.shape)} and {tuple(seen.shape)}; encode it at one size"
        )
    timeline = Timeline.empty(hidden + chunks * WINDOW, B, C, H, W)
    timeline.write(range(hidden), seen)
    timeline.guides = (Guide(anchor.to(timeline.latents), hidden, timeline.frames),)
    return timeline


def hidden_frames(timeline: Timeline) -> int:
    """How many latent frames there are before the first chunk: the anchor, if one is given, is shown from there on."""
    return timeline.guides[0].start if timeline.guides else 0


def plan_of(chunks: int, reanchored: bool = False) -> Plan:
    """The plan of so many chunks."""
    return Plan(chunks, FORWARD, WINDOW, LAYOUT, FPS, name="f1", apart=True, reanchored=reanchored)


def sections_of(timeline: Timeline, reanchored: bool = False) -> tuple[Section, ...]:
    """The chunks that fill a timeline. Raises ValueError for a size that cannot be patchified."""
    return plan_of((timeline.frames - len(timeline.known)) // WINDOW, reanchored).bind(timeline)
