"""What is recorded about a video: plain numbers, measured on its frames."""

from __future__ import annotations

import math

import numpy as np

from experiments.measures import motions
from experiments.measures.tracks import Track, follow
from experiments.study.videos import WINDOW, Video
from framepack_core.demo.world import MOTIONS, Scene
from framepack_core.frames import PIXEL_FRAMES
from framepack_core.measures.sections import Sections
from framepack_core.measures.series import Series, distance

EVERY = 4  # frames: averages over a section use one frame in four


def findings(video: Video, frames: np.ndarray) -> dict:
    """Obedience, colour, identity, comeback, motion, drift and joins of a video's frames."""
    scene = video.told
    tracks, starts = follow(frames, scene), follow(scene.render(1), scene)
    first, start = tracks[0], starts[0]
    series = Series.of(frames)
    return {
        "obeys": [_obeys(actor.motion, track) for actor, track in zip(scene.actors, tracks, strict=True)],
        "halves": _halves(video, first),
        "looks_like": [motion for motion in MOTIONS if motions.obeys(motion, first)],
        "lost": [motions.lost(track) for track in tracks],
        "color": [_colour(*pair) for pair in zip(tracks, starts, strict=True)],
        "same_kind": motions.same_kind(first),
        "fit": motions.fit(first),
        "speed": motions.speed(first),
        "comeback": _comeback(first),
        "motion": series.motion,
        "flow": series.flow,
        "joins": joins(series, video.window),
        "drift": series.drift(),
        "by_section": [_look(series, part, first, start) for part in sections(video)],
    }


def joins(series: Series, window: int) -> float:
    """The change into sections relative to that into other latent frames (1: no visible join)."""
    found = Sections.of(series.frames, window)
    return float(series.joins(found.begins, found.latents).mean()) if found.begins else 1.0


def sections(video: Video) -> list[slice]:
    """Pixel frames of each section, in the video's time. Where the window is another, they are as long as with the usual one,
    so that videos of several windows are compared over the same frames."""
    length = PIXEL_FRAMES * WINDOW
    return [slice(1 + length * number, 1 + length * (number + 1)) for number in range(video.generated // WINDOW)]


def vae_quality(scene: Scene, frames: np.ndarray, decoded: np.ndarray) -> dict:
    """PSNR in dB of whole frames and inside the shapes' boxes."""
    error = (frames / 255.0 - decoded / 255.0) ** 2
    inside = np.stack([_boxes(scene, frame, frames.shape[1:3]) for frame in range(len(frames))])
    return {"psnr": _decibel(error.mean()), "psnr_inside": _decibel(error[inside].mean())}


def _halves(video: Video, track: Track) -> list[bool | None]:
    """Whether the first shape does in each half what the video is told there."""
    parts = (video.motion, track[: video.middle]), (video.then or video.motion, track[video.middle :])
    return [_obeys(motion, part) for motion, part in parts]


def _obeys(motion: str, track: Track) -> bool | None:
    """None for a shape behind another one."""
    return None if motions.hidden(track) else motions.obeys(motion, track)


def _colour(track: Track, start: Track) -> float | None:
    return None if motions.lost(track) else motions.colour_distance(track, start)


def _comeback(track: Track) -> dict | None:
    found = motions.comeback(track)
    return None if found is None else {"color": found.colour, "fit": found.fit_after, "same": found.same, "away": found.away}


def _look(series: Series, part: slice, track: Track, start: Track) -> dict:
    """A section compared with the start image: the shape's colour, the picture's mean colour, and its sharpness."""
    here = {name: values[part][::EVERY].mean(dim=0) for name, values in series.looks.items()}
    return {
        "color": motions.colour_distance(track[part], start),
        "lab": distance("lab_mean", here["lab_mean"], series.looks["lab_mean"][0]),
        "sharpness": float(here["laplacian"] / series.looks["laplacian"][0]),
    }


def _boxes(scene: Scene, frame: int, size: tuple[int, int]) -> np.ndarray:
    """A mask of the shapes' bounding boxes, with 2 pixels around them."""
    inside = np.zeros(size, bool)
    for place in scene.truth(frame):
        rows, columns = (
            slice(max(int(at - place.radius - 2), 0), max(int(at + place.radius + 2), 0)) for at in (place.y, place.x)
        )
        inside[rows, columns] = True
    return inside


def _decibel(squared_error: float) -> float:
    return -10 * math.log10(squared_error)
