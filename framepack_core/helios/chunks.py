"""A Helios video in chunks of nine latent frames, each of which becomes 33 frames of the video by itself.

A chunk sees the 19 latent frames before it at three kernels, and one more, the anchor: FramePack F1's layout and order. What
does not exist yet is seen as zeros in the model's space, so timelines are in that space here. They may begin with frames that
are only there to be seen (`hidden`); the video is what follows.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import torch
from torch import Generator, Tensor

from ..frames import PIXEL_FRAMES
from ..orders import FORWARD
from ..plan import MAX_SECONDS, Plan, Section
from ..timeline import Guide, Timeline
from .noise import noised

FPS = 24.0
WINDOW = 9  # latent frames of a chunk
CHUNK_FRAMES = PIXEL_FRAMES * (WINDOW - 1) + 1  # frames of the video in a chunk: 33
LAYOUT = FORWARD.fit("f1").with_window(WINDOW)


# Frames and seconds


def chunk_count(seconds: float) -> int:
    """Chunks of a video that is at least as long. Raises ValueError for seconds out of range."""
    if not 0 < seconds <= MAX_SECONDS:
        raise ValueError(f"seconds is {seconds}; choose a value above 0 and up to {MAX_SECONDS:g}")
    return max(math.ceil(round(seconds * FPS) / CHUNK_FRAMES), 1)


@dataclass(frozen=True)
class ChunkLength:
    """The frames of a video of `latents` latent frames, in chunks, after `hidden` ones: 33 a chunk, cut to 1 + 4 n.

    What `frames.Length` is for videos that are decoded as a whole.
    """

    latents: int
    hidden: int = 0

    @property
    def frames(self) -> int:
        return self.begins(self.latents)

    def begins(self, latent_frame: int) -> int:
        """The number, from 0, of the first frame that this latent frame stands for; a hidden one stands for none."""
        whole = _shown(self._frames(self.latents))
        return min(self._frames(latent_frame), whole)

    def place(self, frame: float) -> float:
        """Where in the latent frames a frame is: the reverse of `begins`, between them too."""
        chunk, within = divmod(frame, CHUNK_FRAMES)
        return self.hidden + WINDOW * chunk + ((within + PIXEL_FRAMES - 1) / PIXEL_FRAMES if within else 0.0)

    def shown(self, latent_frame: int) -> int:
        """How many frames this latent frame stands for."""
        return self.begins(latent_frame + 1) - self.begins(latent_frame)

    def _frames(self, latent_frame: int) -> int:
        chunk, within = divmod(max(latent_frame - self.hidden, 0), WINDOW)
        return CHUNK_FRAMES * chunk + (PIXEL_FRAMES * within - (PIXEL_FRAMES - 1) if within else 0)


def _shown(frames: int) -> int:
    return frames - (frames - 1) % PIXEL_FRAMES if frames else 0


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
    timeline = Timeline.empty(chunks * WINDOW, B, C, H, W)
    timeline.guides = (Guide(torch.zeros(B, C, 1, H, W), 0, WINDOW),)
    return timeline


def image_to_video(chunks: int, image: Tensor, still: Tensor, generator: Generator) -> Timeline:
    """A timeline that begins after a still: its anchor is `image`, and the hidden frame before the first chunk `still`.

    Both are `B C 1 H W` in the model's space: the image encoded by itself, and the last latent frame of the image shown for a
    whole chunk. They get their noise from the generator.
    """
    anchor = noised(image, generator)
    return _after(noised(still, generator), anchor, chunks)


def continue_video(chunks: int, first: Tensor, clip: Tensor, generator: Generator) -> Timeline:
    """A timeline that begins after a clip: its anchor is `first`, and the clip's latent frames are hidden.

    `first` `B C 1 H W` is the first frame of the whole clip, encoded by itself, and `clip` `B C T H W` has the latents of its
    chunks (`clip_chunks`), both in the model's space. They get their noise from the generator. Raises ValueError for a clip
    that is not in chunks.
    """
    if clip.shape[2] % WINDOW:
        raise ValueError(f"the clip has {clip.shape[2]} latent frames, which is not a multiple of the {WINDOW} of a chunk; "
                         f"encode {CHUNK_FRAMES} frames at a time")  # fmt: skip
    anchor = noised(first, generator)
    seen = [noised(chunk, generator, each_frame=True) for chunk in clip.split(WINDOW, dim=2)]
    return _after(torch.cat(seen, dim=2), anchor, chunks)


def _after(seen: Tensor, anchor: Tensor, chunks: int) -> Timeline:
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
    """How many latent frames there are before the first chunk: the anchor is shown from there on."""
    return timeline.guides[0].start


def plan_of(chunks: int) -> Plan:
    """The plan of so many chunks."""
    return Plan(chunks, FORWARD, WINDOW, LAYOUT, FPS, name="f1")


def sections_of(timeline: Timeline, reanchor: bool = False) -> tuple[Section, ...]:
    """The chunks that fill a timeline; with `reanchor` those from the third on have the second's first frame for an anchor.

    That lets a video that begins with a still get further away from it (the official `is_skip_first_chunk`). Raises ValueError
    for a size that cannot be patchified.
    """
    sections = plan_of((timeline.frames - len(timeline.known)) // WINDOW).bind(timeline)
    if not reanchor:
        return sections
    anchor = hidden_frames(timeline) + WINDOW
    return tuple(_anchored(section, anchor) if section.target[0] > anchor else section for section in sections)


def _anchored(section: Section, frame: int) -> Section:
    """The section with this frame in the place of the anchor, which has the time index 0."""
    context = tuple(replace(group, frames=(frame,)) if group.indices == (0,) else group for group in section.context)
    return replace(section, context=context)
