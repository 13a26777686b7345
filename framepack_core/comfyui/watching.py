"""The frames of ComfyUI's images and videos one after another, so that a long video needs no more memory than a short one."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import TypeVar

import comfy.model_management
import numpy
from comfy_api.latest import Input, InputImpl
from torch import Tensor

from ..media.clips import VideoFile
from ..media.video import pixels

T = TypeVar("T")


@dataclass(frozen=True)
class Watched:
    """Frames uint8 `H W 3` as they are decoded, until the run is interrupted, and how many are shown in a second."""

    frames: Iterator[numpy.ndarray]
    fps: float

    @classmethod
    def of(cls, images: Tensor | None, video: Input.Video | None, fps: float) -> Watched:
        """Of images, whose rate is `fps`, or of a video, which has its own.

        Raises ValueError for both, for neither, and for a file without pictures, and OSError for one that cannot be read.
        """
        if images is not None and video is not None:
            raise ValueError("images and video are both connected; connect one of them")
        if images is not None:
            return cls(until_interrupted(pixels(images[..., :3])), fps)
        if video is None:
            raise ValueError("neither images nor video is connected; connect one of them")
        if not isinstance(video, InputImpl.VideoFromFile):
            parts = video.get_components()
            return cls(until_interrupted(pixels(parts.images[..., :3])), float(parts.frame_rate))
        file = VideoFile(video.get_stream_source(), *video.get_active_trim_window())
        return cls(until_interrupted(pixels(file.pictures())), file.rate())


def until_interrupted(frames: Iterable[T]) -> Iterator[T]:
    for frame in frames:
        comfy.model_management.throw_exception_if_processing_interrupted()
        yield frame
