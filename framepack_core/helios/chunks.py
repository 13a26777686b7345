"""A Helios video in chunks of nine latent frames, each of which becomes 33 frames of the video by itself.

A chunk sees the 19 latent frames before it at three kernels, and one more, the anchor: FramePack F1's layout and order. What
does not exist yet is seen as zeros in the model's space. A timeline may begin with frames that are only there to be seen
(`hidden`); the video is what follows.
"""

from __future__ import annotations

import torch
from torch import Generator, Tensor

from ..frames import pixel_frames
from ..orders import FORWARD
from ..plan import Plan
from ..timeline import Timeline
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


def with_noise(anchor: Tensor, hidden: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
    """The anchor `B C 1 H W` and the hidden frames `B C T H W` as chunks see them, in the model's space.

    The anchor is an image, or the first frame of a clip, encoded by itself. The hidden frames are the last latent frame of the
    image shown for a whole chunk, or the clip's chunks, in which each frame has noise of its own strength.
    """
    anchor = noised(anchor, generator)
    if hidden.shape[2] == 1:
        return anchor, noised(hidden, generator)
    seen = [noised(chunk, generator, each_frame=True) for chunk in hidden.split(WINDOW, dim=2)]
    return anchor, torch.cat(seen, dim=2)


def hidden_frames(timeline: Timeline) -> int:
    """How many latent frames there are before the first chunk: the anchor, if one is given, is shown from there on."""
    return timeline.guides[0].start if timeline.guides else 0


def plan_of(chunks: int) -> Plan:
    """The plan of so many chunks."""
    return Plan(chunks, FORWARD, WINDOW, LAYOUT, FPS, name="f1", apart=True)
