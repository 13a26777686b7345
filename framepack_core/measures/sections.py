"""Where the sections of a finished video meet, told by its number of frames."""

from __future__ import annotations

from dataclasses import dataclass

from ..frames import PIXEL_FRAMES
from ..helios.chunks import CHUNK_FRAMES, WINDOW


@dataclass(frozen=True)
class Sections:
    """`kind` says in words what a video is taken for. `begins` are the frames with which sections after the first begin, and
    `latents` those with which other latent frames do, the first one left out."""

    kind: str
    begins: tuple[int, ...]
    latents: tuple[int, ...]

    @classmethod
    def of(cls, frames: int, window: int) -> Sections:
        """Of a video of so many frames whose sections have `window` latent frames; a window of 0 is a video without sections.

        After a start image a video has one frame more than whole sections, without one three fewer, and as a loop exactly so
        many. Helios' chunks have 33. Any other is taken for one after a start image: its end may have been cut off.
        """
        if window == 0:
            return cls("a video without sections", (), ())
        section, every = PIXEL_FRAMES * window, range(1, frames, PIXEL_FRAMES)
        after_image = range(section + 1, frames, section)
        kinds = (
            (frames % section == 1, "after a start image", after_image, every),
            (frames % section == section - 3, "without a start image", range(section - 3, frames, section), every),
            (frames % section == 0, "of a loop", range(section, frames, section), range(0, frames, PIXEL_FRAMES)),
            (
                window == WINDOW and frames % CHUNK_FRAMES == 0,
                "of Helios",
                range(CHUNK_FRAMES, frames, CHUNK_FRAMES),
                [frame for frame in range(frames) if frame % CHUNK_FRAMES % PIXEL_FRAMES == 1],
            ),
            (True, "guessed as after a start image, since there are no whole ones", after_image, every),
        )
        _, kind, begins, latents = next(found for found in kinds if found[0])
        return cls(f"sections {kind}", tuple(begins), tuple(frame for frame in latents if frame and frame not in begins))
