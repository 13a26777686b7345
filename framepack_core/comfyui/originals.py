"""The videos that a saved one continues and leads up to: ComfyUI's VIDEOs, fitted as FramePack_Place fits a clip."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction

from comfy_api.latest import Input, InputImpl
from torch import Tensor

from ..frames import Length, nearest_frames
from ..made import Made
from ..media.clips import Clip, VideoFile, chosen
from ..media.joining import Overlap, Piece, Soundtrack, join
from ..media.sound import Audio, Sound
from ..media.video import Encoding, Footage
from .encoding import fit_images
from .latent import length_of, made_of
from .watching import until_interrupted

CROSSFADE = 8


@dataclass(frozen=True)
class Originals:
    """Videos around the one that is saved; of the frames that both have, `crossfade` go over from one to the other."""

    before: Input.Video | None = None
    after: Input.Video | None = None
    crossfade: int = CROSSFADE

    def join(self, latent: dict, video: Footage, encoding: Encoding, sound: Sound | None) -> Joined:
        """The whole video. `sound` belongs to what is new: it begins where `before` ends, and is cut where `after` begins.

        Raises ValueError, before any frame is decoded by the VAE, for what cannot be the video that the latent continues.
        """
        if self.before is None and self.after is None:
            return Joined(video, sound)
        if len(latent["samples"]) > 1:
            raise ValueError(
                f"latent holds {len(latent['samples'])} videos, but before and after belong to one; pick one with "
                "LatentFromBatch"
            )
        length = length_of(latent)
        if length.loop:
            raise ValueError("latent is a loop, which has no start and no end to join; disconnect before and after, or set the "
                             "plan's loop to 0")  # fmt: skip
        made = made_of(latent)
        if made is not None and made.plan.fps != encoding.fps:
            raise ValueError(f"fps is {encoding.fps:g}, but the plan of the latent has {made.plan.fps:g}; set fps to "
                             f"{made.plan.fps:g}")  # fmt: skip
        overlap = Overlap() if made is None or length.apart else _overlap(made)
        before, after = (self._clip(name, video, encoding.fps, count) for name, count in
                         (("before", overlap.first), ("after", overlap.last)))  # fmt: skip
        joined = join(video, before, after, overlap, self.crossfade)
        return Joined(joined, soundtrack(joined.count, before, after, sound, encoding.rate), self._notes(made, overlap, length))

    def _clip(self, name: str, video: Footage, fps: float, known: int) -> Clip | None:
        """Raises ValueError if it does not have the frames that were given."""
        original = getattr(self, name)
        if original is None:
            return None
        try:
            clip = fitted(original, fps, video.width, video.height)
        except (ValueError, OSError) as error:
            raise ValueError(f"{name} cannot be read ({error}); connect a video that plays") from error
        if clip.count < known:
            where = "begins" if name == "before" else "ends"
            raise ValueError(
                f"{name} has {clip.count} frames at {fps:g} fps, but the latent {where} with {known} of a clip; connect the "
                "video whose frames FramePack Place was given"
            )
        return clip

    def _notes(self, made: Made | None, overlap: Overlap, length: Length) -> tuple[str, ...]:
        why_first = "this model's videos begin after what they continue: no frame is in both, and crossfade has no effect"
        return tuple(
            f"{name}: a hard cut, since {reason}"
            for name, known, reason in (
                ("before", overlap.first, why_first if length.apart else _why(made, made is None or made.begins)),
                ("after", overlap.last, _why(made, made is None or made.ends)),
            )
            if getattr(self, name) is not None and not known
        )


@dataclass(frozen=True)
class Joined:
    """What is saved, and lines for the user."""

    video: Footage
    sound: Sound | None
    notes: tuple[str, ...] = ()


def _overlap(made: Made) -> Overlap:
    """Of a part of a cancelled video: what was given where it was cut off is in the middle of the video."""
    overlap = Overlap.of(made.given, made.frames)
    return Overlap(overlap.first if made.begins else 0, overlap.last if made.ends else 0)


def _why(made: Made | None, reaches: bool) -> str:
    """Why no frame of a latent, which reaches that end of its video or not, is one of the original's."""
    if made is None:
        return (
            "the latent does not say which of its frames were given (it was saved and loaded, or changed): if some are there, "
            "up to 73 are shown twice; connect the sampler's own latent"
        )
    if not reaches:
        return "the latent is the finished part of a cancelled run, which does not reach there"
    return "none of its frames was given there"


def fitted(video: Input.Video, fps: float, width: int, height: int) -> Clip:
    """A VIDEO at this rate and size. One from a file is decoded as it is needed, and once before to know its length."""
    if isinstance(video, InputImpl.VideoFromFile):
        file = VideoFile(video.get_stream_source(), *video.get_active_trim_window())
        length = file.length(until_interrupted(file.frames()))
        indices, frames, sound = nearest_frames(length.count, length.fps, fps), file.pictures(), file.sound(length.begin)
    else:
        parts = video.get_components()
        indices, frames = nearest_frames(len(parts.images), float(parts.frame_rate), fps), iter(parts.images)
        sound = None if parts.audio is None else Audio.of(parts.audio)
    return Clip(_fitted(chosen(frames, indices), width, height), len(indices), sound)


def _fitted(frames: Iterator[Tensor], width: int, height: int) -> Iterator[Tensor]:
    return (fit_images(frame[None], height, width)[0].float().cpu() for frame in frames)


def soundtrack(count: int, before: Clip | None, after: Clip | None, sound: Sound | None, rate: Fraction) -> Sound | None:
    """The sound of a joined video of so many frames, at `rate` frames a second."""
    begin = Fraction(before.count if before else 0) / rate
    end = Fraction(count - (after.count if after else 0)) / rate
    pieces = [
        Piece(heard, start, stop)
        for heard, start, stop in (
            (before and before.sound, Fraction(0), begin),
            (sound, begin, end),
            (after and after.sound, end, Fraction(count) / rate),
        )
        if heard is not None and stop > start
    ]
    return Soundtrack(tuple(pieces)) if pieces else None
